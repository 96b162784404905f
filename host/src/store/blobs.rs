//! `Blobs`: components that are applied, kept by digest as an OCI image layout has
//! them. What a name stands for is held against its digest once a run, so that a file
//! may have its name before it is whole: naming and content then go to disk together.

use std::{
    collections::HashSet,
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use crate::guest::component::Digest;

/// What is known of the folder in this run.
#[derive(Debug, Default)]
pub struct Blobs {
    /// Names of components that are whole and on disk.
    whole: HashSet<String>,
}

/// Where a data folder has its components.
pub fn folder_of(data: &Path) -> PathBuf {
    data.join("blobs/sha256")
}

impl Blobs {
    fn has(&self, digest: Digest) -> bool {
        self.whole.contains(&digest.to_string())
    }

    /// Keeps each component, whose bytes `read` gives and holds against its digest; on
    /// disk when this returns.
    pub fn keep<E>(
        &mut self,
        folder: &Path,
        digests: impl IntoIterator<Item = Digest>,
        mut read: impl FnMut(Digest) -> Result<Vec<u8>, E>,
        io_error: impl Fn(Digest, io::Error) -> E,
    ) -> Result<(), E> {
        let mut new = Vec::new();
        for digest in digests {
            if self.has(digest) || new.contains(&digest) {
                continue;
            }
            match find(folder, digest) {
                Some(file) => file.sync_all(),
                None => write(folder, digest, &read(digest)?),
            }
            .map_err(|error| io_error(digest, error))?;
            new.push(digest);
        }
        if let Some(last) = new.last() {
            let synced = File::open(folder).and_then(|folder| folder.sync_all());
            synced.map_err(|error| io_error(*last, error))?;
            self.whole.extend(new.iter().map(Digest::to_string));
        }
        Ok(())
    }

    /// Removes a component, if it is one and there.
    pub fn remove(&mut self, folder: &Path, name: &str) -> io::Result<()> {
        self.whole.remove(name);
        match fs::remove_file(folder.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// The file of a component, if it is whole.
fn find(folder: &Path, digest: Digest) -> Option<File> {
    let path = folder.join(digest.to_string());
    let is_whole = fs::read(&path).is_ok_and(|bytes| Digest::of(&bytes) == digest);
    if is_whole { File::open(path).ok() } else { None }
}

/// On disk once its folder is. Writing one file and renaming it before it is synced
/// asks the file system's journal once, not twice.
fn write(folder: &Path, digest: Digest, bytes: &[u8]) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let beside = folder.join(format!("{digest}.new"));
    let mut file = File::create(&beside)?;
    file.write_all(bytes)?;
    fs::rename(&beside, folder.join(digest.to_string()))?;
    file.sync_all()
}
