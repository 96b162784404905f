//! `Reading`: one file as a source reads it, and which file that is. A file that was
//! renamed or copied away under its source is found beside its old path, so that its
//! last lines are read before the new file's first.

use std::{
    fs::{self, File},
    io::{self, BufRead as _, BufReader, Read, Seek as _, SeekFrom},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use crate::store::{Head, Position};

/// Files beside a path that are looked at for the one that was there before.
const BESIDE_MAX: usize = 1000;

pub struct Reading {
    reader: BufReader<Box<dyn Read + Send>>,
    /// 0 for a stream.
    inode: u64,
    /// The first bytes, as far as they were read.
    begin: Vec<u8>,
    /// Bytes from the beginning that were read.
    pub read: u64,
    /// It lies elsewhere by now: at its end the path's own file is next.
    is_moved: bool,
}

/// What has become of the file that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is still the one at its path.
    Stays,
    /// Another is at its path, or none.
    Moved,
    /// It is shorter than what was read of it.
    Truncated,
}

/// What was found on opening, beside the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// The file, at the position.
    Same,
    /// The file at this path first; the path's own is next.
    Elsewhere(PathBuf),
    /// Another file, from its beginning, and no trace of the earlier one's rest.
    Another,
}

impl Reading {
    pub fn stdin() -> Self {
        let reader: Box<dyn Read + Send> = Box::new(io::stdin());
        Reading { reader: buffered(reader), inode: 0, begin: Vec::new(), read: 0, is_moved: false }
    }

    /// Opens the file that was read up to `position`, wherever it is now; otherwise
    /// the one at `path`, from its beginning.
    pub fn open(path: &Path, position: Position) -> io::Result<(Self, Found)> {
        let opened = match File::open(path) {
            Ok(file) => {
                if position.bytes == 0 || is_the_one(&file, position)? {
                    return Ok((Self::at(file, position.bytes, false)?, Found::Same));
                }
                Ok(file)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(error),
            Err(error) => return Err(error),
        };
        if let Some((place, file)) = find_beside(path, position) {
            // Of one that was read to its end nothing is missing.
            if file.metadata()?.len() > position.bytes || opened.is_err() {
                return Ok((Self::at(file, position.bytes, true)?, Found::Elsewhere(place)));
            }
            return Ok((Self::at(opened?, 0, false)?, Found::Same));
        }
        Ok((Self::at(opened?, 0, false)?, Found::Another))
    }

    fn at(mut file: File, position: u64, is_moved: bool) -> io::Result<Self> {
        let begin = first_bytes(&mut file, position)?;
        file.seek(SeekFrom::Start(position))?;
        let inode = file.metadata()?.ino();
        Ok(Reading { reader: buffered(Box::new(file)), inode, begin, read: position, is_moved })
    }

    /// Bytes that can be had without waiting.
    pub fn buffer(&self) -> &[u8] {
        self.reader.buffer()
    }

    pub fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.reader.fill_buf()
    }

    pub fn consume(&mut self, bytes: usize) {
        let missing = Head::bytes_max().saturating_sub(self.begin.len());
        if missing > 0 {
            self.begin.extend(self.reader.buffer().iter().take(missing.min(bytes)));
        }
        self.reader.consume(bytes);
        self.read += bytes as u64;
    }

    /// The position `bytes` behind the beginning, which were read.
    pub fn position(&self, bytes: u64) -> Position {
        Position { bytes, inode: self.inode, head: Head::of(&self.begin, bytes) }
    }

    /// Looks what is at its path now.
    pub fn fate(&self, path: &Path) -> io::Result<Fate> {
        if self.is_moved {
            // Until there is a file again, its writer may still write to this one.
            return Ok(if path.exists() { Fate::Moved } else { Fate::Stays });
        }
        match fs::metadata(path) {
            Ok(found) if found.ino() != self.inode => Ok(Fate::Moved),
            Ok(found) if found.len() < self.read => Ok(Fate::Truncated),
            Ok(_) => Ok(Fate::Stays),
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => Ok(Fate::Stays),
            Err(error) => Err(error),
        }
    }
}

fn buffered(reader: Box<dyn Read + Send>) -> BufReader<Box<dyn Read + Send>> {
    BufReader::with_capacity(64 << 10, reader)
}

fn first_bytes(file: &mut File, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut begin = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.take(bytes_max.min(Head::bytes_max() as u64)).read_to_end(&mut begin)?;
    Ok(begin)
}

/// Whether `file` is the one that was read up to `position`, grown perhaps.
fn is_the_one(file: &File, position: Position) -> io::Result<bool> {
    let metadata = file.metadata()?;
    let inode_fits = position.inode == 0 || position.inode == metadata.ino();
    Ok(inode_fits && metadata.len() >= position.bytes && head_fits(file, position)?)
}

fn head_fits(file: &File, position: Position) -> io::Result<bool> {
    let mut file = file.try_clone()?;
    Ok(position.head.fits(&first_bytes(&mut file, u64::MAX)?))
}

/// The file that was read up to `position`, renamed, or else copied and truncated.
fn find_beside(path: &Path, position: Position) -> Option<(PathBuf, File)> {
    if position.inode == 0 {
        return None;
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut copy = None;
    for entry in fs::read_dir(folder).ok()?.flatten().take(BESIDE_MAX) {
        let Ok(metadata) = entry.metadata() else { continue };
        if !metadata.is_file() || metadata.len() < position.bytes || entry.path() == path {
            continue;
        }
        let Ok(file) = File::open(entry.path()) else { continue };
        if !head_fits(&file, position).unwrap_or(false) {
            continue;
        }
        if metadata.ino() == position.inode {
            return Some((entry.path(), file));
        }
        // Of a copy nothing but its name says whose it is.
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        if entry.file_name().as_encoded_bytes().starts_with(name) {
            copy.get_or_insert((entry.path(), file));
        }
    }
    copy
}
