//! The resources that were applied last: every file of the site that was read, kept
//! so that a host starts again from its data folder alone. Texts are in the database
//! by digest, components in `blobs/`; a tree names them by path, and an apply changes
//! in it, at once, what differs from the one before.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    convert::Infallible,
    fs, io,
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use sled::{
    Transactional as _,
    transaction::{ConflictableTransactionError, TransactionError},
};

use super::{Store, StoreError, blobs};
use crate::{guest::component::Digest, resource::diagnostic::SourceFile};

/// The key of what is in force besides files.
const HEAD: &str = "applied";

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
    /// Whose folders there are, be they empty; without those that are unchanged.
    pub tenants: Vec<String>,
    /// Tenants whose files are those that were kept last in this run.
    pub unchanged: BTreeSet<String>,
    /// Every text once, as it was read.
    pub texts: Vec<Arc<SourceFile>>,
    /// Components by path below the site folder, with where they lie now.
    pub components: BTreeMap<String, (PathBuf, Digest)>,
}

impl Snapshot {
    /// Adds a component that lies below `dir`; it must have one digest throughout.
    pub fn add_component(&mut self, dir: &Path, place: &Path, digest: Digest) -> Result<(), AppliedError> {
        let path = place.strip_prefix(dir).unwrap_or(place).display().to_string();
        match self.components.insert(path, (place.to_owned(), digest)) {
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
        self.add_component(dir, place, Digest::of(&bytes))
    }
}

/// What is in force besides files.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Head {
    dir: PathBuf,
    tenants: Vec<String>,
}

/// Files of one owner, by path below the site folder.
type OwnersFiles = BTreeMap<String, AppliedFile>;

#[derive(Debug, Default)]
pub(super) struct Manifest {
    head: Head,
    /// By tenant; the platform's by an empty name. An owner without a change has the
    /// same ones as before.
    owners: BTreeMap<String, Arc<OwnersFiles>>,
}

/// A file in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AppliedFile {
    Text(Digest),
    Component(Digest),
}

/// A site whose components are on disk, ready to be the one that was applied last.
#[derive(Debug)]
pub struct Staged {
    blobs: PathBuf,
    manifest: Manifest,
    /// Texts that what was applied before did not have.
    texts: Vec<(Digest, Arc<SourceFile>)>,
}

/// What an apply has left behind.
#[derive(Debug)]
#[must_use]
pub struct Leftovers {
    blobs: PathBuf,
    /// What the site before had and this one has not; unknown, if nobody knows it.
    left: Option<Vec<Digest>>,
}

impl Store {
    /// All of an apply that needs no decision: keeps components, and digests the rest.
    /// Components that are not applied in the end go when the next host has applied
    /// something.
    pub fn stage_applied(&self, data: &Path, snapshot: Snapshot) -> Result<Staged, AppliedError> {
        let Snapshot { dir, mut tenants, unchanged, texts, components } = snapshot;
        self.keep_components(data, &components)?;
        // Known once something was applied in this run.
        let before = self.applied.lock().expect("no panic under this lock");
        let before = before.as_ref();
        let mut owners: BTreeMap<&str, OwnersFiles> = BTreeMap::new();
        for (path, (_, digest)) in &components {
            let files = owners.entry(owner_of(path)).or_default();
            files.insert(path.clone(), AppliedFile::Component(*digest));
        }
        let mut new = Vec::new();
        for text in &texts {
            let digest = Digest::of(text.text.as_bytes());
            let file = AppliedFile::Text(digest);
            if before.and_then(|before| before.file(&text.path)) != Some(file) {
                new.push((digest, text.clone()));
            }
            owners.entry(owner_of(&text.path)).or_default().insert(text.path.clone(), file);
        }
        let mut owners: BTreeMap<_, _> =
            owners.into_iter().map(|(owner, files)| (owner.to_owned(), Arc::new(files))).collect();
        for tenant in &unchanged {
            let files = before.and_then(|before| before.owners.get(tenant));
            owners.extend(files.map(|files| (tenant.clone(), files.clone())));
        }
        tenants.extend(unchanged);
        tenants.sort();
        Ok(Staged {
            blobs: blobs::folder_of(data),
            manifest: Manifest { head: Head { dir, tenants }, owners },
            texts: new,
        })
    }

    /// Begins with a component that will be staged soon, while others look at it. One
    /// that cannot be kept now is tried again then.
    pub fn stage_ahead(&self, data: &Path, digest: Digest, bytes: &[u8]) {
        let mut blobs = self.blobs.lock().expect("no panic under this lock");
        let read = |_| Ok(bytes.to_vec());
        let _ = blobs.keep(&blobs::folder_of(data), [digest], read, |_, error: io::Error| error);
    }

    /// Keeps a copy of each component under its digest; on disk when this returns.
    fn keep_components(
        &self,
        data: &Path,
        components: &BTreeMap<String, (PathBuf, Digest)>,
    ) -> Result<(), AppliedError> {
        let from: HashMap<Digest, &Path> =
            components.values().map(|(path, digest)| (*digest, path.as_path())).collect();
        let error = |digest, source| AppliedError::Blob { path: from[&digest].to_owned(), source };
        let read = |digest| {
            let path = from[&digest];
            let bytes = fs::read(path).map_err(|source| error(digest, source))?;
            if Digest::of(&bytes) != digest {
                return Err(AppliedError::Changed { path: path.to_owned() });
            }
            Ok(bytes)
        };
        let mut blobs = self.blobs.lock().expect("no panic under this lock");
        blobs.keep(&blobs::folder_of(data), from.keys().copied(), read, error)
    }

    /// Replaces what was applied before, as a whole; on disk when this returns. What is
    /// left of what was there before is for [`Store::sweep_applied`].
    pub fn keep_applied(&self, staged: Staged) -> Result<Leftovers, AppliedError> {
        let Staged { blobs, manifest, texts } = staged;
        let mut before = self.applied.lock().expect("no panic under this lock");
        let changes = before.as_ref().map(|before| manifest.since(before));
        if let (Some(before), Some((left, changes))) = (before.as_ref(), &changes)
            && before.head == manifest.head
            && left.is_empty()
            && changes.is_empty()
        {
            return Ok(Leftovers { blobs, left: Some(Vec::new()) });
        }
        let head = serde_json::to_vec(&manifest.head).expect("paths of a site are UTF-8");
        self.with(|database| {
            let mut missing = Vec::new();
            for (digest, text) in &texts {
                let key = digest.to_string();
                if !database.files.contains_key(&key)? {
                    missing.push((key, &text.text));
                }
            }
            let over;
            let changes = match &changes {
                Some((_, changes)) => changes,
                None => {
                    over = manifest.over(&database.applied)?;
                    &over
                }
            };
            let head = before.as_ref().is_none_or(|before| before.head != manifest.head).then_some(&head);
            let trees = (&database.files, &database.applied, &database.meta);
            let kept = trees.transaction(|(files, applied, meta)| {
                for (digest, text) in &missing {
                    files.insert(digest.as_bytes(), text.as_bytes())?;
                }
                for (path, file) in changes {
                    match file {
                        Some(file) => applied.insert(path.as_bytes(), file.record().as_slice())?,
                        None => applied.remove(path.as_bytes())?,
                    };
                }
                if let Some(head) = head {
                    meta.insert(HEAD, head.as_slice())?;
                }
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
        *before = Some(manifest);
        Ok(Leftovers { blobs, left: changes.map(|(left, _)| left) })
    }

    /// Lays what was applied last out as a site folder below `data`, which is given
    /// with the folder that it came from.
    pub fn lay_out_applied(&self, data: &Path) -> Result<Option<(PathBuf, PathBuf)>, AppliedError> {
        let read = self.with(|database| {
            let head = database.meta.get(HEAD)?;
            head.map(|head| Ok((head, database.applied.iter().collect::<sled::Result<Vec<_>>>()?)))
                .transpose()
        })?;
        let Some((head, files)) = read else { return Ok(None) };
        let manifest = Manifest::read(&head, &files).map_err(|what| AppliedError::Damaged { what })?;
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
        for tenant in &manifest.head.tenants {
            // Made with whatever lies in it.
            place_below(&dir, &format!("tenants/{tenant}/dataflows"))?;
        }
        for (path, file) in manifest.files() {
            match file {
                AppliedFile::Text(digest) => self.lay_out_text(&dir, path, digest)?,
                AppliedFile::Component(digest) => {
                    lay_out_component(&blobs::folder_of(data), &dir, path, digest)?
                }
            }
        }
        Ok(Some((dir, manifest.head.dir)))
    }

    fn lay_out_text(&self, dir: &Path, path: &str, digest: Digest) -> Result<(), AppliedError> {
        let missing = || AppliedError::Damaged { what: format!("the text of {path}") };
        let text = self.with(|database| database.files.get(digest.to_string()))?.ok_or_else(missing)?;
        if Digest::of(&text) != digest {
            return Err(missing());
        }
        let place = place_below(dir, path)?;
        fs::write(&place, &text).map_err(|source| AppliedError::LayOut { path: place, source })
    }

    /// Removes what the manifest in force does not name any more. What stays behind
    /// costs only space.
    pub fn sweep_applied(&self, Leftovers { blobs, left }: Leftovers) {
        if left.as_ref().is_some_and(Vec::is_empty) {
            return;
        }
        let applied = self.applied.lock().expect("no panic under this lock");
        let Some(manifest) = applied.as_ref() else { return };
        let named: BTreeSet<Digest> = manifest.files().map(|(_, file)| file.digest()).collect();
        let gone: Option<Vec<String>> = left.map(|left| {
            left.into_iter().filter(|digest| !named.contains(digest)).map(|it| it.to_string()).collect()
        });
        let named: BTreeSet<String> = match gone {
            Some(_) => BTreeSet::new(),
            None => named.into_iter().map(|digest| digest.to_string()).collect(),
        };
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
        let there = fs::read_dir(&blobs).into_iter().flatten().flatten();
        let there = there.filter_map(|entry| entry.file_name().into_string().ok());
        let gone = gone.unwrap_or_else(|| there.filter(|name| !named.contains(name)).collect());
        let mut kept = self.blobs.lock().expect("no panic under this lock");
        for name in gone {
            // Of a text there is none.
            if let Err(error) = kept.remove(&blobs, &name) {
                tracing::warn!(%error, component = name, "an old component stays");
            }
        }
    }
}

impl Manifest {
    /// From its records; or what is wrong with them.
    fn read(head: &[u8], files: &[(sled::IVec, sled::IVec)]) -> Result<Self, String> {
        let head =
            serde_json::from_slice(head).map_err(|error| format!("its folder and tenants: {error}"))?;
        let mut manifest = Manifest { head, ..Manifest::default() };
        for (path, record) in files {
            let path = String::from_utf8_lossy(path).into_owned();
            let file = AppliedFile::read(record).ok_or_else(|| format!("the record of {path}"))?;
            let owner = manifest.owners.entry(owner_of(&path).to_owned()).or_default();
            Arc::make_mut(owner).insert(path, file);
        }
        Ok(manifest)
    }

    fn files(&self) -> impl Iterator<Item = (&str, AppliedFile)> {
        self.owners.values().flat_map(|files| files.iter()).map(|(path, file)| (path.as_str(), *file))
    }

    fn file(&self, path: &str) -> Option<AppliedFile> {
        self.owners.get(owner_of(path))?.get(path).copied()
    }

    /// What this does not have any more of `before`, and the changes to its records.
    fn since(&self, before: &Manifest) -> (Vec<Digest>, Vec<(String, Option<AppliedFile>)>) {
        let (mut left, mut changes) = (Vec::new(), Vec::new());
        let is_same = |owner: &str, files: &Arc<OwnersFiles>, other: &Manifest| {
            other.owners.get(owner).is_some_and(|others| Arc::ptr_eq(files, others))
        };
        for (_, files) in before.owners.iter().filter(|(owner, files)| !is_same(owner, files, self)) {
            for (path, file) in files.iter() {
                let now = self.file(path);
                if now != Some(*file) {
                    left.push(file.digest());
                }
                if now.is_none() {
                    changes.push((path.clone(), None));
                }
            }
        }
        for (_, files) in self.owners.iter().filter(|(owner, files)| !is_same(owner, files, before)) {
            let new = files.iter().filter(|(path, file)| before.file(path) != Some(**file));
            changes.extend(new.map(|(path, file)| (path.clone(), Some(*file))));
        }
        (left, changes)
    }

    /// Changes to records that nobody has looked at.
    fn over(&self, records: &sled::Tree) -> sled::Result<Vec<(String, Option<AppliedFile>)>> {
        let ours: BTreeMap<_, _> = self.files().collect();
        let mut changes = Vec::new();
        for path in records.iter().keys() {
            let path = String::from_utf8_lossy(&path?).into_owned();
            if !ours.contains_key(path.as_str()) {
                changes.push((path, None));
            }
        }
        changes.extend(ours.into_iter().map(|(path, file)| (path.to_owned(), Some(file))));
        Ok(changes)
    }
}

impl AppliedFile {
    fn digest(self) -> Digest {
        match self {
            AppliedFile::Text(digest) | AppliedFile::Component(digest) => digest,
        }
    }

    /// What it is, and its digest.
    fn record(self) -> [u8; 33] {
        let kind = match self {
            AppliedFile::Text(_) => b't',
            AppliedFile::Component(_) => b'c',
        };
        let mut record = [kind; 33];
        record[1..].copy_from_slice(self.digest().as_bytes());
        record
    }

    fn read(record: &[u8]) -> Option<Self> {
        let (kind, digest) = record.split_first()?;
        let digest = Digest::from(<[u8; 32]>::try_from(digest).ok()?);
        match kind {
            b't' => Some(AppliedFile::Text(digest)),
            b'c' => Some(AppliedFile::Component(digest)),
            _ => None,
        }
    }
}

fn lay_out_component(blobs: &Path, dir: &Path, path: &str, digest: Digest) -> Result<(), AppliedError> {
    let place = place_below(dir, path)?;
    let blob = blobs.join(digest.to_string());
    let bytes = fs::read(&blob).map_err(|source| AppliedError::LayOut { path: blob.clone(), source })?;
    if Digest::of(&bytes) != digest {
        return Err(AppliedError::Damaged { what: format!("the component {path}") });
    }
    fs::hard_link(&blob, &place).map_err(|source| AppliedError::LayOut { path: place, source })
}

/// Whose a path below the site folder is: a tenant's name, or nothing for the platform.
fn owner_of(path: &str) -> &str {
    let tenants = path.strip_prefix("tenants/");
    tenants.and_then(|rest| rest.split_once('/')).map_or("", |(owner, _)| owner)
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
