//! The resources that were applied last: every file of the site that was read, kept
//! so that a host starts again from its data folder alone. Texts are in the database
//! by digest, components in `blobs/`; one key names them all and changes at once.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    fs::{self, File},
    io::{self, Write as _},
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use sled::{
    Transactional as _,
    transaction::{ConflictableTransactionError, TransactionError},
};

use super::{Store, StoreError};
use crate::{guest::component::Digest, resource::diagnostic::SourceFile};

/// The key of the manifest in force.
const MANIFEST: &str = "applied";

/// Why what is applied cannot be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum AppliedError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("cannot keep the component {}", path.display())]
    Blob { path: PathBuf, source: io::Error },
    #[error("the component {} changed while it was applied; apply again", path.display())]
    Changed { path: PathBuf },
    #[error("cannot lay out what was applied in {}", path.display())]
    LayOut { path: PathBuf, source: io::Error },
    #[error("what was applied is damaged: {what}; apply the site folder again with `up DIR`")]
    Damaged { what: String },
}

/// A site as its files were when it was applied.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The site folder, absolute: paths of file endpoints are relative to it.
    pub dir: PathBuf,
    /// Whose folders there are, be they empty.
    pub tenants: Vec<String>,
    /// Every text once, as it was read.
    pub texts: Vec<Arc<SourceFile>>,
    /// Components by path below the site folder, with where they lie now and their
    /// digest in hex.
    pub components: BTreeMap<String, (PathBuf, String)>,
}

impl Snapshot {
    /// Adds a component that lies below `dir`; it must have one digest throughout.
    pub fn add_component(&mut self, dir: &Path, place: &Path, digest: String) -> Result<(), AppliedError> {
        let path = place.strip_prefix(dir).unwrap_or(place).display().to_string();
        match self.components.insert(path, (place.to_owned(), digest.clone())) {
            Some((_, other)) if other != digest => Err(AppliedError::Changed { path: place.to_owned() }),
            _ => Ok(()),
        }
    }

    /// Adds a component that nobody has read yet.
    pub fn add_component_as_it_is(&mut self, dir: &Path, place: &Path) -> Result<(), AppliedError> {
        let path = place.strip_prefix(dir).unwrap_or(place).display().to_string();
        if self.components.contains_key(&path) {
            return Ok(());
        }
        let bytes =
            fs::read(place).map_err(|source| AppliedError::Blob { path: place.to_owned(), source })?;
        self.add_component(dir, place, hex(&bytes))
    }
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Manifest {
    dir: PathBuf,
    tenants: Vec<String>,
    /// Digests in hex, by path below the site folder.
    texts: BTreeMap<String, String>,
    components: BTreeMap<String, String>,
}

/// A site whose components are on disk, ready to be the one that was applied last.
#[derive(Debug)]
pub struct Staged {
    blobs: PathBuf,
    manifest: Manifest,
    /// The manifest as it is kept.
    bytes: Vec<u8>,
    /// Texts that what was applied before did not have, by digest.
    texts: Vec<(String, Arc<SourceFile>)>,
}

impl Store {
    /// All of an apply that needs no decision: keeps components, and digests the rest.
    /// Components that are not applied in the end go when the next host has applied
    /// something.
    pub fn stage_applied(&self, data: &Path, snapshot: Snapshot) -> Result<Staged, AppliedError> {
        let Snapshot { dir, tenants, texts, components } = snapshot;
        let blobs = blobs_of(data);
        // Known once something was applied in this run: what it names is there.
        let before = self.applied.lock().expect("no panic under this lock");
        keep_blobs(&blobs, before.as_ref(), &components)?;
        let components = components.into_iter().map(|(path, (_, digest))| (path, digest)).collect();
        let mut manifest = Manifest { dir, tenants, components, texts: BTreeMap::new() };
        let mut new = Vec::new();
        for text in texts {
            let digest = hex(text.text.as_bytes());
            if before.as_ref().and_then(|before| before.texts.get(&text.path)) != Some(&digest) {
                new.push((digest.clone(), text.clone()));
            }
            manifest.texts.insert(text.path.clone(), digest);
        }
        let bytes = serde_json::to_vec(&manifest).expect("paths of a site are UTF-8");
        Ok(Staged { blobs, manifest, bytes, texts: new })
    }

    /// Replaces what was applied before, as a whole; on disk when this returns.
    pub fn keep_applied(&self, staged: Staged) -> Result<(), AppliedError> {
        let Staged { blobs, manifest, bytes, texts } = staged;
        let mut before = self.applied.lock().expect("no panic under this lock");
        self.with(|database| {
            let mut missing = Vec::new();
            for (digest, text) in &texts {
                if !database.files.contains_key(digest)? {
                    missing.push((digest, &text.text));
                }
            }
            // All that it names and the one key that is in force at once.
            let kept = (&database.files, &database.meta).transaction(|(files, meta)| {
                for (digest, text) in &missing {
                    files.insert(digest.as_bytes(), text.as_bytes())?;
                }
                meta.insert(MANIFEST, bytes.as_slice())?;
                Ok::<(), ConflictableTransactionError<Infallible>>(())
            });
            match kept {
                Ok(()) => {}
                Err(TransactionError::Abort(never)) => match never {},
                Err(TransactionError::Storage(error)) => return Err(error),
            }
            database.db.flush()?;
            Ok(())
        })?;
        self.sweep(&blobs, before.as_ref(), &manifest);
        *before = Some(manifest);
        Ok(())
    }

    /// Lays what was applied last out as a site folder below `data`, which is given
    /// with the folder that it came from.
    pub fn lay_out_applied(&self, data: &Path) -> Result<Option<(PathBuf, PathBuf)>, AppliedError> {
        let Some(bytes) = self.with(|database| database.meta.get(MANIFEST))? else { return Ok(None) };
        let manifest: Manifest = serde_json::from_slice(&bytes)
            .map_err(|error| AppliedError::Damaged { what: format!("the list of its files: {error}") })?;
        let dir = data.join("applied");
        let error = |path: &Path| {
            let path = path.to_owned();
            move |source| AppliedError::LayOut { path, source }
        };
        match fs::remove_dir_all(&dir) {
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => {}
            other => other.map_err(error(&dir))?,
        }
        fs::create_dir_all(dir.join("platform")).map_err(error(&dir))?;
        for tenant in &manifest.tenants {
            // Made with whatever lies in it.
            place_below(&dir, &format!("tenants/{tenant}/dataflows"))?;
        }
        for (path, digest) in &manifest.texts {
            let missing = || AppliedError::Damaged { what: format!("the text of {path}") };
            let text = self.with(|database| database.files.get(digest))?.ok_or_else(missing)?;
            if hex(&text) != *digest {
                return Err(missing());
            }
            let place = place_below(&dir, path)?;
            fs::write(&place, &text).map_err(error(&place))?;
        }
        for (path, digest) in &manifest.components {
            let place = place_below(&dir, path)?;
            let blob = blobs_of(data).join(digest);
            let bytes = fs::read(&blob).map_err(error(&blob))?;
            if hex(&bytes) != *digest {
                return Err(AppliedError::Damaged { what: format!("the component {path}") });
            }
            fs::hard_link(&blob, &place).map_err(error(&place))?;
        }
        Ok(Some((dir, manifest.dir)))
    }

    /// Removes what no manifest names any more: what `before` named, or whatever there
    /// is. What stays behind costs only space.
    fn sweep(&self, blobs: &Path, before: Option<&Manifest>, manifest: &Manifest) {
        let left = before.map(|before| before.left_by(manifest));
        if left.as_ref().is_some_and(Vec::is_empty) {
            return;
        }
        let named: BTreeSet<&str> = manifest.digests().collect();
        let gone: Option<Vec<&str>> =
            left.map(|left| left.into_iter().filter(|digest| !named.contains(digest)).collect());
        let swept = self.with(|database| match &gone {
            Some(gone) => gone.iter().try_for_each(|digest| database.files.remove(digest).map(drop)),
            None => database.files.iter().keys().try_for_each(|key| {
                let key = key?;
                let stays = std::str::from_utf8(&key).is_ok_and(|key| named.contains(key));
                if stays { Ok(()) } else { database.files.remove(&key).map(drop) }
            }),
        });
        if let Err(error) = swept {
            tracing::warn!(%error, "texts of earlier sites stay in the store");
        }
        let there = || fs::read_dir(blobs).into_iter().flatten().flatten().map(|entry| entry.file_name());
        let gone: Vec<_> = match gone {
            Some(gone) => gone.into_iter().map(Into::into).collect(),
            None => there().filter(|name| !name.to_str().is_some_and(|name| named.contains(name))).collect(),
        };
        for name in gone {
            let path = blobs.join(name);
            match fs::remove_file(&path) {
                Ok(()) => {}
                // A text's digest.
                Err(missing) if missing.kind() == io::ErrorKind::NotFound => {}
                Err(error) => tracing::warn!(%error, path = %path.display(), "an old component stays"),
            }
        }
    }
}

impl Manifest {
    /// Digests of all that it names.
    fn digests(&self) -> impl Iterator<Item = &str> {
        self.texts.values().chain(self.components.values()).map(String::as_str)
    }

    /// Digests that `next` has no more where this had them.
    fn left_by(&self, next: &Manifest) -> Vec<&str> {
        let pairs = [(&self.texts, &next.texts), (&self.components, &next.components)];
        let left = pairs.into_iter().flat_map(|(ours, theirs)| {
            ours.iter().filter(|(path, digest)| theirs.get(*path) != Some(*digest))
        });
        left.map(|(_, digest)| digest.as_str()).collect()
    }
}

/// As an OCI image layout has it.
fn blobs_of(data: &Path) -> PathBuf {
    data.join("blobs/sha256")
}

fn hex(bytes: &[u8]) -> String {
    Digest::of(bytes).to_string()
}

/// Keeps a copy of each component under its digest, those aside that are kept since
/// `before`; on disk when this returns.
fn keep_blobs(
    blobs: &Path,
    before: Option<&Manifest>,
    components: &BTreeMap<String, (PathBuf, String)>,
) -> Result<(), AppliedError> {
    let mut any = false;
    for (path, (from, digest)) in components {
        if before.is_some_and(|before| before.components.get(path) == Some(digest)) {
            continue;
        }
        let place = blobs.join(digest);
        if place.exists() {
            continue;
        }
        let error = |source| AppliedError::Blob { path: from.clone(), source };
        let bytes = fs::read(from).map_err(error)?;
        if hex(&bytes) != *digest {
            return Err(AppliedError::Changed { path: from.clone() });
        }
        let write = || -> io::Result<()> {
            fs::create_dir_all(blobs)?;
            let beside = blobs.join(format!("{digest}.new"));
            let mut file = File::create(&beside)?;
            file.write_all(&bytes)?;
            // Whole on disk before it has its name, so that what has a name is whole.
            file.sync_all()?;
            fs::rename(&beside, &place)
        };
        write().map_err(error)?;
        any = true;
    }
    if any {
        let error = |source| AppliedError::Blob { path: blobs.to_owned(), source };
        File::open(blobs).and_then(|blobs| blobs.sync_all()).map_err(error)?;
    }
    Ok(())
}

/// A path of the manifest below `dir` and nowhere else, with its folder made.
fn place_below(dir: &Path, path: &str) -> Result<PathBuf, AppliedError> {
    if !Path::new(path).components().all(|part| matches!(part, Component::Normal(_))) {
        return Err(AppliedError::Damaged { what: format!("the path {path}") });
    }
    let place = dir.join(path);
    if let Some(folder) = place.parent() {
        fs::create_dir_all(folder)
            .map_err(|source| AppliedError::LayOut { path: folder.to_owned(), source })?;
    }
    Ok(place)
}
