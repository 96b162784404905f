//! The file connector: JSON lines in and out, of a file or of stdin and stdout. It
//! blocks on its file, so each end runs on a thread of its own; how far it has read
//! is given back as lines are settled.

mod line;

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, BufRead, BufReader, BufWriter, IsTerminal, Read, Seek, SeekFrom, Write as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::Duration,
};

use bytes::BytesMut;

pub use self::line::LineError;
use self::line::{Message, write_line};
use super::stop::Stop;
use crate::{
    batch::{Batch, BatchBuilder, Entry},
    queue::SourceDoor,
    write::SinkQueue,
};

/// How often a file that is followed is looked at for more.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Which file: `-` is stdin or stdout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    Standard,
    Path(PathBuf),
}

impl Location {
    /// From what a user typed.
    pub fn parse(text: &str) -> Self {
        if text == "-" { Location::Standard } else { Location::Path(text.into()) }
    }

    /// The topic of messages that name none: the file's name without its ending.
    pub fn topic(&self) -> String {
        match self {
            Location::Standard => String::new(),
            Location::Path(path) => {
                path.file_stem().map_or(String::new(), |stem| stem.to_string_lossy().into_owned())
            }
        }
    }
}

impl std::fmt::Display for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Location::Standard => f.write_str("-"),
            Location::Path(path) => path.display().fmt(f),
        }
    }
}

/// Why a file cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("cannot open `{location}`")]
    Open {
        location: Location,
        #[source]
        source: io::Error,
    },
    #[error("cannot read `{location}`")]
    Read {
        location: Location,
        #[source]
        source: io::Error,
    },
    #[error("cannot write `{location}`")]
    Write {
        location: Location,
        #[source]
        source: io::Error,
    },
}

/// What a source does where its file ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtEnd {
    /// Ends once all is settled.
    Finish,
    /// Waits for more until it is stopped.
    Follow,
}

/// Given the number, the problem and the bytes of a line that is no message.
pub type Problem = Box<dyn FnMut(u64, LineError, &[u8]) + Send>;

/// What a [`FileSource`] reads, and whom it tells.
pub struct FileOptions {
    pub location: Location,
    /// Bytes at the beginning that were settled in an earlier run.
    pub position: u64,
    pub at_end: AtEnd,
    /// The host's node name, for messages without a timestamp of their own.
    pub node: String,
    /// Larger lines and payloads are problems of their own.
    pub line_bytes_max: usize,
    pub payload_bytes_max: usize,
    /// Told the position up to which every line is settled, whenever it has moved.
    pub settled: Box<dyn FnMut(u64) + Send>,
    /// Given each line that is no message, as much of it as was kept; it is passed over
    /// when this returns. Lines count from 1 at `position`.
    pub problem: Problem,
    pub stop: Stop,
}

/// Turns the lines of a file into deliveries.
pub struct FileSource {
    reader: BufReader<Box<dyn Read + Send>>,
    options: FileOptions,
    door: SourceDoor,
    topic: String,
    /// Bytes and lines read so far, and the position behind the last whole line.
    read: u64,
    lines: u64,
    behind: u64,
    /// Number of the last delivery.
    delivered: u64,
    /// The position behind each delivery that is not settled, by its number.
    unsettled: VecDeque<(u64, u64)>,
    /// The position told last.
    told: u64,
    line: Vec<u8>,
}

/// What reading on has brought.
enum Taken {
    Lines(Batch),
    /// Nothing now, perhaps later.
    Nothing,
    End,
}

impl FileSource {
    /// Opens the file and goes to its position.
    pub fn open(options: FileOptions, door: SourceDoor) -> Result<Self, FileError> {
        let opened = match &options.location {
            Location::Standard => Ok(Box::new(io::stdin()) as Box<dyn Read + Send>),
            Location::Path(path) => open_at(path, options.position),
        };
        let reader =
            opened.map_err(|source| FileError::Open { location: options.location.clone(), source })?;
        Ok(FileSource {
            reader: BufReader::with_capacity(64 << 10, reader),
            topic: options.location.topic(),
            read: options.position,
            lines: 0,
            behind: options.position,
            delivered: 0,
            unsettled: VecDeque::new(),
            told: options.position,
            line: Vec::new(),
            options,
            door,
        })
    }

    /// Reads, delivers and waits for settlements until the file ends, or it is
    /// stopped, or its dataflow is gone. Blocks its thread.
    pub fn run(mut self) -> Result<(), FileError> {
        let waiter = Waiter::default();
        while !self.is_stopped(&waiter) {
            match self.take()? {
                Taken::Lines(batch) => self.deliver(batch, &waiter),
                Taken::Nothing => waiter.wait_for(LOOK_EVERY),
                Taken::End => {
                    // Lines at the end that were no messages are done with as well.
                    self.unsettled.push_back((self.delivered, self.behind));
                    break;
                }
            }
            self.tell();
        }
        while self.door.unsettled() > 0 && !self.door.is_abandoned() {
            let seen = self.door.settled_upto();
            if self.door.poll_settled(seen, &mut waiter.context()).is_pending() {
                waiter.wait();
            }
            self.tell();
        }
        self.tell();
        Ok(())
    }

    fn is_stopped(&self, waiter: &Waiter) -> bool {
        self.door.is_abandoned() || self.options.stop.poll_stopped(&mut waiter.context()).is_ready()
    }

    /// The lines that can be had without waiting, at least one, as one batch.
    fn take(&mut self) -> Result<Taken, FileError> {
        let mut builder = BatchBuilder::new(&self.options.node);
        let bytes_max = self.door.delivery_bytes_max();
        loop {
            let is_whole = self.read_line()?;
            if !is_whole && self.options.at_end == AtEnd::Follow {
                break;
            }
            if self.line.is_empty() {
                return Ok(if builder.is_empty() { Taken::End } else { Taken::Lines(builder.finish()) });
            }
            self.take_line(&mut builder);
            self.line.clear();
            // The next line, if it can be had without waiting, and fits.
            let fits =
                self.reader.buffer().iter().position(|byte| *byte == b'\n').is_some_and(|bytes| {
                    !builder.is_full_for(bytes) && builder.bytes_len() + bytes <= bytes_max
                });
            if !fits && !builder.is_empty() {
                break;
            }
        }
        Ok(if builder.is_empty() { Taken::Nothing } else { Taken::Lines(builder.finish()) })
    }

    /// Reads on to the end of the line, or of the file as it is now; whether the
    /// line is whole. Of a line that is too long only as much is kept as shows it.
    fn read_line(&mut self) -> Result<bool, FileError> {
        loop {
            let bytes = match self.reader.fill_buf() {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => {
                    return Err(FileError::Read { location: self.options.location.clone(), source });
                }
            };
            let end = bytes.iter().position(|byte| *byte == b'\n');
            let taken = end.map_or(bytes.len(), |end| end + 1);
            let room = (self.options.line_bytes_max + 1).saturating_sub(self.line.len());
            self.line.extend_from_slice(&bytes[..taken.min(room)]);
            self.reader.consume(taken);
            self.read += taken as u64;
            if end.is_some() || taken == 0 {
                return Ok(end.is_some());
            }
        }
    }

    fn take_line(&mut self, builder: &mut BatchBuilder) {
        self.lines += 1;
        self.behind = self.read;
        let bytes_max = self.options.line_bytes_max;
        if self.line.len() > bytes_max {
            let error = LineError::TooLong { bytes_max };
            return (self.options.problem)(self.lines, error, &self.line);
        }
        if self.line.trim_ascii().is_empty() {
            return;
        }
        match Message::parse(&self.line) {
            Ok(message) if message.payload_bytes() > self.options.payload_bytes_max => {
                let (bytes, bytes_max) = (message.payload_bytes(), self.options.payload_bytes_max);
                let error = LineError::PayloadTooLong { bytes, bytes_max };
                (self.options.problem)(self.lines, error, &self.line);
            }
            Ok(message) => message.push(&self.topic, builder),
            Err(error) => (self.options.problem)(self.lines, error, &self.line),
        }
    }

    fn deliver(&mut self, batch: Batch, waiter: &Waiter) {
        let bytes = batch.bytes_held();
        loop {
            if self.is_stopped(waiter) {
                // It was read but not delivered: the position stays before it.
                return;
            }
            let seen = self.door.settled_upto();
            match self.door.poll_credit(bytes, &mut waiter.context()) {
                Poll::Ready(credit) => {
                    self.delivered = self.door.deliver(credit, batch);
                    self.unsettled.push_back((self.delivered, self.behind));
                    return;
                }
                Poll::Pending if self.door.poll_settled(seen, &mut waiter.context()).is_ready() => {}
                Poll::Pending => waiter.wait(),
            }
            self.tell();
        }
    }

    /// Tells the position behind the last delivery that is settled.
    fn tell(&mut self) {
        let settled = self.door.settled_upto();
        let mut position = self.told;
        while let Some((number, behind)) = self.unsettled.front().copied() {
            if number > settled {
                break;
            }
            position = behind;
            self.unsettled.pop_front();
        }
        if position > self.told {
            self.told = position;
            (self.options.settled)(position);
        }
    }
}

fn open_at(path: &Path, position: u64) -> io::Result<Box<dyn Read + Send>> {
    let mut file = File::open(path)?;
    // A file that became shorter is another file: it is read from its beginning.
    let position = if file.metadata()?.len() < position { 0 } else { position };
    file.seek(SeekFrom::Start(position))?;
    Ok(Box::new(file))
}

/// Writes messages as lines, and confirms each write when its lines have left the
/// process.
pub struct FileSink {
    location: Location,
    writer: BufWriter<Box<dyn io::Write + Send>>,
    queue: Arc<SinkQueue>,
}

impl FileSink {
    /// Opens the file to append to it, or creates it.
    pub fn open(location: Location, queue: Arc<SinkQueue>) -> Result<Self, FileError> {
        let opened = match &location {
            Location::Standard => Ok(Box::new(io::stdout()) as Box<dyn io::Write + Send>),
            Location::Path(path) => File::options()
                .create(true)
                .append(true)
                .open(path)
                .map(|file| Box::new(file) as Box<dyn io::Write + Send>),
        };
        match opened {
            Ok(writer) => {
                Ok(FileSink { location, writer: BufWriter::with_capacity(64 << 10, writer), queue })
            }
            Err(source) => Err(FileError::Open { location, source }),
        }
    }

    /// Writes until the queue is closed and empty. Blocks its thread.
    pub fn run(mut self) -> Result<(), FileError> {
        let waiter = Waiter::default();
        let is_watched = self.location == Location::Standard && io::stdout().is_terminal();
        let mut text = BytesMut::new();
        let mut written = Vec::new();
        loop {
            match self.queue.poll_next(&mut waiter.context()) {
                Poll::Ready(Some(write)) => {
                    write_batch(&write.batch, &mut text);
                    self.write(&text)?;
                    text.clear();
                    written.push(write);
                    // Several writes share one system call unless somebody looks on.
                    if !is_watched && written.len() < 64 {
                        continue;
                    }
                }
                Poll::Ready(None) => {
                    self.flush(&mut written)?;
                    return Ok(());
                }
                Poll::Pending if written.is_empty() => waiter.wait(),
                Poll::Pending => {}
            }
            self.flush(&mut written)?;
        }
    }

    fn write(&mut self, text: &[u8]) -> Result<(), FileError> {
        self.writer
            .write_all(text)
            .map_err(|source| FileError::Write { location: self.location.clone(), source })
    }

    fn flush(&mut self, written: &mut Vec<crate::write::Write>) -> Result<(), FileError> {
        self.writer.flush().map_err(|source| FileError::Write { location: self.location.clone(), source })?;
        for write in written.drain(..) {
            write.confirm(Vec::new());
        }
        Ok(())
    }
}

fn write_batch(batch: &Batch, text: &mut BytesMut) {
    for entry in &batch.entries {
        write_entry(entry, batch, text);
    }
}

fn write_entry(entry: &Entry, batch: &Batch, text: &mut BytesMut) {
    write_line(entry, &batch.arena, text);
    text.extend_from_slice(b"\n");
}

/// Parks a thread until a door wakes it.
struct Waiter {
    waker: Waker,
    woken: Arc<Woken>,
}

struct Woken {
    thread: Thread,
    flag: AtomicBool,
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.flag.store(true, Ordering::SeqCst);
        self.thread.unpark();
    }
}

impl Default for Waiter {
    fn default() -> Self {
        let woken = Arc::new(Woken { thread: thread::current(), flag: AtomicBool::new(false) });
        Waiter { waker: Waker::from(woken.clone()), woken }
    }
}

impl Waiter {
    fn context(&self) -> Context<'_> {
        Context::from_waker(&self.waker)
    }

    /// Until it was woken since it last waited.
    fn wait(&self) {
        while !self.woken.flag.swap(false, Ordering::SeqCst) {
            thread::park();
        }
    }

    /// Until then, or until the time is over.
    fn wait_for(&self, time: Duration) {
        if !self.woken.flag.swap(false, Ordering::SeqCst) {
            thread::park_timeout(time);
        }
    }
}

#[cfg(test)]
mod tests;
