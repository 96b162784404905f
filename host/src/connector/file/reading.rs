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
    /// The same file, to ask about it; `None` for a stream.
    file: Option<File>,
    /// 0 for a stream.
    inode: u64,
    /// The first bytes, as far as they were read.
    begin: Vec<u8>,
    /// Bytes from the beginning that were read.
    pub read: u64,
    /// When it was last written, as known when it was looked at last.
    changed: (i64, i64),
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
        let reader = buffered(reader);
        Reading { reader, file: None, inode: 0, begin: Vec::new(), read: 0, changed: (0, 0), is_moved: false }
    }

    /// Opens the file that was read up to `position`, wherever it is now; otherwise
    /// the one at `path`, from its beginning.
    pub fn open(path: &Path, position: Position) -> io::Result<(Self, Found)> {
        let opened = File::open(path);
        if let Ok(file) = &opened
            && is_the_one(file, position)?
        {
            return Ok((Self::at(opened?, position.bytes, false)?, Found::Same));
        }
        if let Some((place, file)) = find_beside(path, position) {
            return Ok((Self::at(file, position.bytes, true)?, Found::Elsewhere(place)));
        }
        Ok((Self::at(opened?, 0, false)?, Found::Another))
    }

    /// Opens what was written after this file, which was read to its end: one that was
    /// moved away as well, the oldest first, or the one at `path`. `read` holds the
    /// inodes of files that were read before.
    pub fn next(&self, path: &Path, read: &[u64]) -> io::Result<Self> {
        match self.successor(path, read) {
            Some(place) => Self::at(File::open(place)?, 0, true),
            None => Self::at(File::open(path)?, 0, false),
        }
    }

    /// Files that are moved twice before anybody looks would be passed over, if only
    /// the path were looked at.
    fn successor(&self, path: &Path, read: &[u64]) -> Option<PathBuf> {
        let changed = self.changed;
        let now = fs::metadata(path).map(|found| found.ino()).unwrap_or(0);
        let newer = siblings(path).filter(|(_, found)| {
            let inode = found.ino();
            inode != self.inode && inode != now && !read.contains(&inode) && changed_at(found) >= changed
        });
        newer.min_by_key(|(_, found)| changed_at(found)).map(|(place, _)| place)
    }

    pub fn inode(&self) -> u64 {
        self.inode
    }

    fn at(mut file: File, position: u64, is_moved: bool) -> io::Result<Self> {
        let begin = first_bytes(&mut file, position)?;
        file.seek(SeekFrom::Start(position))?;
        let found = file.metadata()?;
        let (inode, changed) = (found.ino(), changed_at(&found));
        let kept = Some(file.try_clone()?);
        let reader = buffered(Box::new(file));
        Ok(Reading { reader, file: kept, inode, begin, read: position, changed, is_moved })
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
    pub fn fate(&mut self, path: &Path, read: &[u64]) -> io::Result<Fate> {
        if let Some(file) = &self.file {
            self.changed = changed_at(&file.metadata()?);
        }
        if self.is_moved {
            // Until there is a file again, its writer may still write to this one.
            let is_over = path.exists() || self.successor(path, read).is_some();
            return Ok(if is_over { Fate::Moved } else { Fate::Stays });
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
    let fits = |place: &Path, found: &fs::Metadata| {
        let file = File::open(place).ok().filter(|_| found.len() >= position.bytes)?;
        head_fits(&file, position).unwrap_or(false).then_some(file)
    };
    let renamed = beside(path).filter(|(_, found)| found.ino() == position.inode);
    for (place, found) in renamed {
        if let Some(file) = fits(&place, &found) {
            return Some((place, file));
        }
    }
    if position.head.is_empty() {
        return None;
    }
    siblings(path).find_map(|(place, found)| fits(&place, &found).map(|file| (place, file)))
}

/// Regular files in the folder of `path`, but for itself.
fn beside(path: &Path) -> impl Iterator<Item = (PathBuf, fs::Metadata)> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().take(BESIDE_MAX);
    let found = entries.filter_map(|entry| Some((entry.path(), entry.metadata().ok()?)));
    found.filter(move |(place, found)| found.is_file() && place != path)
}

/// Of these, files whose name says that they were moved or copied away from `path`,
/// and not compressed: of others nothing says whose they are.
fn siblings(path: &Path) -> impl Iterator<Item = (PathBuf, fs::Metadata)> {
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    beside(path).filter(move |(place, _)| {
        let is_packed =
            place.extension().is_some_and(|it| it == "gz" || it == "xz" || it == "zst" || it == "bz2");
        !is_packed && place.file_name().is_some_and(|its| its.as_encoded_bytes().starts_with(name))
    })
}

/// When a file was last written, in seconds and nanoseconds.
fn changed_at(found: &fs::Metadata) -> (i64, i64) {
    (found.mtime(), found.mtime_nsec())
}
