//! `Known`: what was found out about components before, so that an apply reads only
//! what has changed and each component is taken apart once, however many use it.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    guest::{
        component::{Digest, ReadError, check_size, read_bytes},
        compose::{ComposeError, Fusion, Parts},
        imports::{ComponentError, ComponentShape, Refusal},
        world::PolicyWorld,
    },
    resource::{EngineKind, Limits, footprint::Stamp},
};

/// A component's digest and shape.
pub struct Found {
    pub digest: Digest,
    /// What it is fused from, if it is.
    pub parts: Option<Parts>,
    pub shape: Arc<ComponentShape>,
}

/// Why nothing could be found out.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Form(#[from] ComponentError),
}

/// Why a map and its provider are not one component.
#[derive(Debug, thiserror::Error)]
pub enum FuseError {
    #[error(transparent)]
    Map(ReadError),
    #[error(transparent)]
    Provider(ReadError),
    #[error("{} changed while it was read; apply again", .0.display())]
    Changed(PathBuf),
    #[error(transparent)]
    Compose(#[from] ComposeError),
}

/// Files and components seen at the last pass over a site, and at this one.
#[derive(Default)]
pub struct Known {
    before: HashMap<PathBuf, (Stamp, Digest)>,
    files: HashMap<PathBuf, (Stamp, Digest)>,
    shapes: HashMap<Digest, Arc<ComponentShape>>,
    /// Components that a world was found to grant all they ask for.
    fit: HashSet<(Digest, &'static str)>,
    is_new: Option<IsNew>,
    /// Components that this pass has told of.
    told: usize,
}

/// Most new components that a pass tells of: what is begun with them ahead of the rest
/// takes memory.
const TOLD_MAX: usize = 4;

/// Given the engine that it is for, the component's digest and its bytes.
pub type IsNew = Box<dyn Fn(EngineKind, Digest, &Arc<Vec<u8>>) + Send>;

impl Known {
    /// Tells of components that were not known, before it takes them apart, but for what
    /// is above a small number at once; the default tells nobody.
    pub fn telling(is_new: IsNew) -> Self {
        Known { is_new: Some(is_new), ..Known::default() }
    }

    /// Begins a pass; what the last one did not look for is forgotten.
    pub fn begin(&mut self) {
        self.told = 0;
        self.before = std::mem::take(&mut self.files);
        let looked_for: HashSet<_> = self.before.values().map(|(_, digest)| *digest).collect();
        self.shapes.retain(|digest, _| looked_for.contains(digest));
        self.fit.retain(|(digest, _)| self.shapes.contains_key(digest));
    }

    /// Whether a component asks for no more than a world grants.
    pub fn fits(&mut self, found: &Found, world: &'static PolicyWorld) -> Result<(), Vec<Refusal>> {
        let key = (found.digest, world.name.as_str());
        if !self.fit.contains(&key) {
            found.shape.fits(world)?;
            self.fit.insert(key);
        }
        Ok(())
    }

    /// The component in a file that `limits` allow.
    pub fn find(&mut self, path: &Path, limits: &Limits) -> Result<Found, FindError> {
        let bytes_max = limits.component_bytes_max;
        let stamp = Stamp::of(&check_size(path, bytes_max)?);
        let same = self.before.get(path).filter(|(before, _)| stamp == *before);
        if let Some((stamp, digest)) = same.copied()
            && let Some(shape) = self.shapes.get(&digest)
        {
            let found = Found { digest, parts: None, shape: shape.clone() };
            self.files.insert(path.to_owned(), (stamp, digest));
            return Ok(found);
        }
        let bytes = Arc::new(read_bytes(path, bytes_max)?);
        let digest = Digest::of(&bytes);
        let shape = match self.shapes.get(&digest) {
            Some(shape) => shape.clone(),
            None => {
                if let Some(is_new) = self.is_new.as_ref().filter(|_| self.told < TOLD_MAX) {
                    self.told += 1;
                    is_new(limits.engine, digest, &bytes);
                }
                let shape = Arc::new(ComponentShape::read(&bytes)?);
                self.shapes.insert(digest, shape.clone());
                shape
            }
        };
        if stamp.is_trusted() {
            self.files.insert(path.to_owned(), (stamp, digest));
        }
        Ok(Found { digest, parts: None, shape })
    }

    /// The component that a map and a provider in files of at most `bytes_max` each
    /// make. Its bytes come from the compile process alone.
    pub fn find_fused(&mut self, map: &Path, provider: &Path, bytes_max: u64) -> Result<Found, FuseError> {
        let parts = Parts {
            map: self.digest_of(map, bytes_max).map_err(FuseError::Map)?,
            provider: self.digest_of(provider, bytes_max).map_err(FuseError::Provider)?,
        };
        let digest = parts.digest();
        let shape = match self.shapes.get(&digest) {
            Some(shape) => shape.clone(),
            None => {
                let (map, provider) = read_parts(map, provider, parts, bytes_max)?;
                let shape = Arc::new(Fusion::check(&map, &provider)?.shape);
                self.shapes.insert(digest, shape.clone());
                shape
            }
        };
        Ok(Found { digest, parts: Some(parts), shape })
    }

    /// The digest of a file, read only if it has changed.
    fn digest_of(&mut self, path: &Path, bytes_max: u64) -> Result<Digest, ReadError> {
        let stamp = Stamp::of(&check_size(path, bytes_max)?);
        let seen = [&self.files, &self.before].into_iter().filter_map(|seen| seen.get(path));
        let same = seen.copied().find(|(seen, _)| stamp == *seen);
        let digest = match same {
            Some((_, digest)) => digest,
            None => Digest::of(&read_bytes(path, bytes_max)?),
        };
        if stamp.is_trusted() {
            self.files.insert(path.to_owned(), (stamp, digest));
        }
        Ok(digest)
    }
}

/// The bytes of a map and its provider, which are still those of the digests.
pub fn read_parts(
    map: &Path,
    provider: &Path,
    parts: Parts,
    bytes_max: u64,
) -> Result<(Vec<u8>, Vec<u8>), FuseError> {
    let (map_bytes, provider_bytes) = (
        read_bytes(map, bytes_max).map_err(FuseError::Map)?,
        read_bytes(provider, bytes_max).map_err(FuseError::Provider)?,
    );
    for (path, bytes, digest) in [(map, &map_bytes, parts.map), (provider, &provider_bytes, parts.provider)] {
        if Digest::of(bytes) != digest {
            return Err(FuseError::Changed(path.to_owned()));
        }
    }
    Ok((map_bytes, provider_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::tests::dummy;

    /// Two components that differ in a custom section only.
    fn component(content: u8) -> Vec<u8> {
        let mut bytes = dummy("export tidegate:operator/%map@0.1.0;");
        bytes.extend_from_slice(&[0, 6, 4]);
        bytes.extend_from_slice(b"copy");
        bytes.push(content);
        bytes
    }

    fn at_most(bytes: u64) -> Limits {
        Limits { component_bytes_max: bytes, ..Limits::default() }
    }

    #[test]
    fn a_file_is_read_again_only_once_it_has_changed() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("a.wasm");
        std::fs::write(&path, component(1)).expect("written");
        let stamp = || Stamp::of(&std::fs::metadata(&path).expect("it is there"));
        let mut known = Known::default();
        let find = |known: &mut Known| known.find(&path, &at_most(1 << 20)).expect("a component").digest;
        let first = find(&mut known);
        // As if it had been read long after it was written; the digest says that it is
        // not read again.
        let told = Digest::of(b"told");
        known.shapes.insert(told, known.shapes[&first].clone());
        known.files.insert(path.clone(), (stamp(), told));
        known.begin();
        assert_eq!(find(&mut known), told);
        let before = stamp();
        while stamp() == before {
            std::fs::write(&path, component(2)).expect("written");
        }
        known.begin();
        assert_eq!(find(&mut known), Digest::of(&component(2)));
    }

    #[test]
    fn the_size_is_held_against_the_limit_though_the_file_is_known() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("a.wasm");
        std::fs::write(&path, component(1)).expect("written");
        let mut known = Known::default();
        assert!(known.find(&path, &at_most(1 << 20)).is_ok());
        assert!(matches!(known.find(&path, &at_most(10)), Err(FindError::Read(ReadError::TooLarge { .. }))));
    }
}
