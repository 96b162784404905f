//! `Log`: records of one buffer on disk, in the order in which they came, in files that go
//! as soon as all of theirs are done. Knows records as bytes alone. Blocks.
//!
//! ```text
//! 00000000000000000042.log   records from 42 on: length, checksum, bytes
//! done                       every record before this number is done
//! ```

use std::{
    collections::VecDeque,
    fs::{self, File},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

/// Length and CRC-32 of what follows, little-endian.
const HEAD_BYTES: usize = 8;
/// No record is larger: a delivery's share of what operators may give.
const RECORD_BYTES_MAX: usize = 64 << 20;
/// So large a file is followed by another.
const SEGMENT_BYTES: u64 = 4 << 20;
const EXTENSION: &str = "log";
const DONE: &str = "done";

/// See the module. One process has it open.
#[derive(Debug)]
pub(super) struct Log {
    dir: PathBuf,
    /// Held as long as it is open.
    _lock: File,
    /// Oldest first.
    segments: VecDeque<Segment>,
    /// The last of them, if it is written to.
    writer: Option<File>,
    /// Number of the next record that is written, that is read, and that is not done.
    next: u64,
    unread: u64,
    done: u64,
    /// Where the next record that is read begins: of which segment, and where in it.
    reader: Option<(u64, File)>,
}

#[derive(Debug)]
struct Segment {
    /// Number of its first record.
    first: u64,
    bytes: u64,
}

/// What could not be read when a log was opened, in bytes: it was being written when the
/// machine went down, and nobody was told that it is there; or the disk is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Torn(pub u64);

impl Log {
    /// Opens the log in this folder, or begins one.
    pub fn open(dir: &Path) -> io::Result<(Self, Torn)> {
        fs::create_dir_all(dir)?;
        let lock = File::create(dir.join("lock"))?;
        lock.try_lock().map_err(|error| io::Error::other(format!("{}: {error}", dir.display())))?;
        let mut firsts: Vec<u64> = Vec::new();
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == EXTENSION) {
                let first = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
                firsts.push(first.ok_or_else(|| invalid(format!("{} is no file of a log", path.display())))?);
            }
        }
        firsts.sort_unstable();
        let noted = read_done(dir)?;
        let mut log = Log {
            dir: dir.to_owned(),
            _lock: lock,
            segments: VecDeque::new(),
            writer: None,
            next: firsts.first().copied().unwrap_or(noted),
            unread: 0,
            done: 0,
            reader: None,
        };
        let mut torn = 0;
        for first in firsts {
            // What is missing between two files was in a part that could not be read.
            log.next = log.next.max(first);
            let path = log.path(first);
            let mut file = File::options().read(true).write(true).open(&path)?;
            let len = file.metadata()?.len();
            let mut good = 0;
            while let Some(record) = read_record(&mut file)? {
                good += (HEAD_BYTES + record.len()) as u64;
                log.next += 1;
            }
            if good < len {
                torn += len - good;
                file.set_len(good)?;
                file.sync_all()?;
            }
            log.segments.push_back(Segment { first, bytes: good });
        }
        let first = log.segments.front().map_or(log.next, |segment| segment.first);
        // One that is behind gives records again; one that is ahead was of a log that is gone.
        log.done = if noted <= log.next { noted.max(first) } else { first };
        log.unread = log.done;
        log.drop_done()?;
        Ok((log, Torn(torn)))
    }

    /// Bytes on disk.
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// Records that are not done, and those of them that nobody has read.
    pub fn left(&self) -> u64 {
        self.next - self.done
    }

    pub fn unread(&self) -> u64 {
        self.next - self.unread
    }

    /// Number of the next record that is written.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// What a record takes on disk.
    pub fn size_of(record: &[u8]) -> u64 {
        (HEAD_BYTES + record.len()) as u64
    }

    /// Adds records: on disk when this returns. After an error none of them is there.
    pub fn append(&mut self, records: &[Vec<u8>]) -> io::Result<()> {
        if records.is_empty() {
            return Ok(());
        }
        let is_full = self.segments.back().is_none_or(|segment| segment.bytes >= SEGMENT_BYTES);
        if is_full {
            self.writer = None;
            let first = self.next;
            // An earlier attempt may have left one, of which nothing counts.
            File::create(self.path(first))?.sync_all()?;
            File::open(&self.dir)?.sync_all()?;
            self.segments.push_back(Segment { first, bytes: 0 });
        }
        let mut bytes = Vec::with_capacity(records.iter().map(|record| HEAD_BYTES + record.len()).sum());
        for record in records {
            bytes.extend_from_slice(&(record.len() as u32).to_le_bytes());
            bytes.extend_from_slice(&crc32fast::hash(record).to_le_bytes());
            bytes.extend_from_slice(record);
        }
        let path = self.path(self.segments.back().expect("there is one").first);
        let segment = self.segments.back_mut().expect("there is one");
        let mut file = match self.writer.take() {
            Some(file) => file,
            None => File::options().write(true).open(path)?,
        };
        file.seek(SeekFrom::Start(segment.bytes))?;
        let written = file.write_all(&bytes).and_then(|()| file.sync_data());
        if let Err(error) = written {
            // Part of it may be there. What cannot be cut off now is written over.
            let _ = file.set_len(segment.bytes);
            return Err(error);
        }
        segment.bytes += bytes.len() as u64;
        self.next += records.len() as u64;
        self.writer = Some(file);
        Ok(())
    }

    /// The next records, oldest first, each with its number: at least one, if there is any,
    /// and no more once they have `bytes_max` bytes.
    pub fn read(&mut self, bytes_max: usize) -> io::Result<Vec<(u64, Vec<u8>)>> {
        let (mut records, mut bytes) = (Vec::new(), 0);
        while self.unread < self.next && bytes < bytes_max {
            let (first, mut file) = match self.reader.take() {
                Some(reader) => reader,
                None => self.open_reader()?,
            };
            match read_record(&mut file)? {
                Some(record) => {
                    bytes += record.len();
                    records.push((self.unread, record));
                    self.unread += 1;
                    self.reader = Some((first, file));
                }
                // What follows is in the next file, or cannot be read and is passed over.
                None => {
                    let next = self.segments.iter().map(|segment| segment.first).find(|next| *next > first);
                    self.unread = next.unwrap_or(self.next);
                }
            }
        }
        Ok(records)
    }

    /// Nobody needs to read what is there now.
    pub fn pass_over(&mut self) {
        self.unread = self.next;
        self.reader = None;
    }

    /// All before this number are done: they do not come again, but for the last few after a
    /// crash.
    pub fn set_done(&mut self, number: u64) -> io::Result<()> {
        self.done = number.min(self.next).max(self.done);
        self.drop_done()?;
        let path = self.dir.join(DONE);
        let temporary = path.with_extension("new");
        fs::write(&temporary, self.done.to_string())?;
        fs::rename(temporary, path)
    }

    /// Removes the files of which every record is done.
    fn drop_done(&mut self) -> io::Result<()> {
        while let Some(first) = self.segments.front().map(|segment| segment.first) {
            let end = self.segments.get(1).map_or(self.next, |segment| segment.first);
            if end > self.done {
                break;
            }
            fs::remove_file(self.path(first))?;
            self.segments.pop_front();
            if self.segments.is_empty() {
                self.writer = None;
            }
        }
        Ok(())
    }

    /// At the next record that is read.
    fn open_reader(&self) -> io::Result<(u64, File)> {
        let holds = |segment: &&Segment| segment.first <= self.unread;
        let first = self.segments.iter().rev().find(holds).map(|segment| segment.first);
        let first = first.ok_or_else(|| invalid(format!("record {} is gone", self.unread)))?;
        let mut file = File::open(self.path(first))?;
        for _ in first..self.unread {
            read_record(&mut file)?;
        }
        Ok((first, file))
    }

    fn path(&self, first: u64) -> PathBuf {
        self.dir.join(format!("{first:020}.{EXTENSION}"))
    }
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

/// The record that begins here; `None` at the end, and at what is none.
fn read_record(file: &mut File) -> io::Result<Option<Vec<u8>>> {
    let mut head = [0; HEAD_BYTES];
    if !read_whole(file, &mut head)? {
        return Ok(None);
    }
    let [len, checksum] = [0, 4].map(|at| u32::from_le_bytes(head[at..at + 4].try_into().expect("four")));
    if len as usize > RECORD_BYTES_MAX {
        return Ok(None);
    }
    let mut record = vec![0; len as usize];
    let is_whole = read_whole(file, &mut record)? && crc32fast::hash(&record) == checksum;
    Ok(is_whole.then_some(record))
}

/// False if the file ends before.
fn read_whole(file: &mut File, bytes: &mut [u8]) -> io::Result<bool> {
    match file.read_exact(bytes) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// 0 if nothing is noted, or what is noted is no number: all is given again.
fn read_done(dir: &Path) -> io::Result<u64> {
    match fs::read_to_string(dir.join(DONE)) {
        Ok(text) => Ok(text.trim().parse().unwrap_or(0)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
