//! The file connector: JSON lines in and out, of a file or of stdin and stdout. It
//! blocks on its file, so each end runs on a thread of its own; how far it has read
//! is given back as lines are settled.

mod line;
mod reading;

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, IsTerminal, Write as _},
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf as _, BytesMut};

pub use self::line::LineError;
use self::{
    line::{Message, write_line},
    reading::{Fate, Found, Reading},
};
use super::{backoff::Backoff, status::Status, stop::Stop, waiter::Waiter};
use crate::{
    batch::{Batch, BatchBuilder, Entry},
    clock::Clock,
    queue::{Marks, Places, SourceDoor},
    store::Position,
    write::{SinkQueue, Write},
};

/// How often a file that is followed is looked at for more.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Between attempts on a file that cannot be opened, read or written.
const RETRY_AFTER: Duration = Duration::from_millis(100);
const RETRY_AFTER_MAX: Duration = Duration::from_secs(5);

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

impl FileError {
    fn with_source(&self) -> String {
        match self {
            FileError::Open { source, .. }
            | FileError::Read { source, .. }
            | FileError::Write { source, .. } => {
                format!("{self}: {source}")
            }
        }
    }
}

/// What a source does where its file ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtEnd {
    /// Ends once all is settled.
    Finish,
    /// Waits for more until it is stopped, over renaming, truncating, and times when
    /// there is no file.
    Follow,
}

/// Given the number, the problem and the bytes of a line that is no message.
pub type Problem = Box<dyn FnMut(u64, LineError, &[u8]) + Send>;

/// What a [`FileSource`] reads, and whom it tells.
pub struct FileOptions {
    pub location: Location,
    /// How far it was settled in an earlier run.
    pub position: Position,
    pub at_end: AtEnd,
    /// The host's node name, for messages without a timestamp of their own.
    pub node: String,
    /// Larger lines and payloads are problems of their own.
    pub line_bytes_max: usize,
    pub payload_bytes_max: usize,
    /// Told the position up to which every line is settled, whenever it has moved.
    pub settled: Box<dyn FnMut(Position) + Send>,
    /// Given each line that is no message, as much of it as was kept; it is passed over
    /// when this returns. Lines count from 1 where reading began.
    pub problem: Problem,
    pub stop: Stop,
}

/// Turns the lines of a file into deliveries.
pub struct FileSource {
    /// `None` while there is no file.
    reading: Option<Reading>,
    options: FileOptions,
    status: Arc<Status>,
    door: SourceDoor,
    topic: String,
    lines: u64,
    /// Inodes of files that were read to their end, the last ones.
    read_before: Vec<u64>,
    /// Behind the last whole line.
    behind: Position,
    /// Files read from their beginning in this run though they had been read before.
    again: u64,
    /// Behind each message of the delivery that is being made.
    ends: Vec<u64>,
    /// Number of the last delivery.
    delivered: u64,
    /// The position behind each delivery that is not settled, by its number.
    unsettled: VecDeque<(u64, Position)>,
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
        let mut source = Self::later(options, door);
        source.open_file()?;
        Ok(source)
    }

    /// Opens the file once it runs, and tries until there is one.
    pub fn later(options: FileOptions, door: SourceDoor) -> Self {
        FileSource {
            reading: None,
            topic: options.location.topic(),
            lines: 0,
            read_before: Vec::new(),
            behind: options.position,
            again: 0,
            ends: Vec::new(),
            delivered: 0,
            unsettled: VecDeque::new(),
            line: Vec::new(),
            status: Status::new(),
            options,
            door,
        }
    }

    pub fn status(&self) -> &Arc<Status> {
        &self.status
    }

    /// Goes on behind the last whole line that was read.
    fn open_file(&mut self) -> Result<(), FileError> {
        let location = &self.options.location;
        let opened = match location {
            Location::Standard => Ok((Reading::stdin(), Found::Same)),
            Location::Path(path) => Reading::open(path, self.behind),
        };
        let (reading, found) =
            opened.map_err(|source| FileError::Open { location: location.clone(), source })?;
        match found {
            Found::Same => {}
            Found::Elsewhere(place) => tracing::info!(file = %location, rest = %place.display(),
                "the file was moved: its rest is read first"),
            Found::Another => {
                self.again += 1;
                tracing::warn!(file = %location, earlier = self.behind.bytes,
                    "the file was truncated or replaced: it is read from its beginning; \
                     lines of the earlier one that were not read yet are gone");
            }
        }
        if self.behind == Position::default() {
            // Which file it is is known before its first line is delivered.
            (self.options.settled)(reading.position(reading.read));
        }
        self.behind = reading.position(reading.read);
        self.line.clear();
        self.reading = Some(reading);
        self.status.set_connected();
        Ok(())
    }

    /// Goes on with what was written after the file that was read to its end.
    fn open_next(&mut self) -> Result<(), FileError> {
        let (Location::Path(path), Some(reading)) = (&self.options.location, &self.reading) else {
            return Ok(());
        };
        let next = reading.next(path, &self.read_before);
        let location = || self.options.location.clone();
        let next = next.map_err(|source| FileError::Open { location: location(), source })?;
        self.read_before.push(reading.inode());
        // Enough to see that files of one instant follow each other once.
        let forgotten = self.read_before.len().saturating_sub(64);
        self.read_before.drain(..forgotten);
        self.behind = next.position(0);
        self.reading = Some(next);
        Ok(())
    }

    /// Reads, delivers and waits for settlements until the file ends, or it is
    /// stopped, or its dataflow is gone. Blocks its thread.
    pub fn run(mut self) -> Result<(), FileError> {
        let waiter = Waiter::default();
        let mut backoff = Backoff::new(RETRY_AFTER, RETRY_AFTER_MAX);
        while !self.is_stopped(&waiter) {
            let before = self.behind;
            match self.take() {
                Ok(Taken::Lines(batch)) => {
                    backoff.reset();
                    self.deliver(batch, &waiter);
                }
                Ok(Taken::Nothing) => waiter.wait_for(LOOK_EVERY),
                Ok(Taken::End) => {
                    // Lines at the end that were no messages are done with as well.
                    self.unsettled.push_back((self.delivered, self.behind));
                    self.door.end();
                    break;
                }
                Err(error) if self.options.at_end == AtEnd::Finish => return Err(error),
                Err(error) => {
                    // Lines that were read but not delivered are read again.
                    (self.reading, self.behind) = (None, before);
                    self.status.set_degraded(Clock::System.now(), error.with_source());
                    waiter.wait_for(backoff.next());
                }
            }
            self.tell();
        }
        while self.poll_done(&mut waiter.context()).is_pending() {
            waiter.wait();
            self.tell();
        }
        self.tell();
        self.status.set_closed();
        Ok(())
    }

    /// Ready once nothing more will be settled in this run. Windows of one that follows its
    /// file stay open when it is stopped.
    fn poll_done(&self, ctx: &mut Context<'_>) -> Poll<()> {
        match self.options.at_end {
            AtEnd::Follow => self.door.poll_idle(ctx),
            AtEnd::Finish => self.door.poll_settled_all(ctx),
        }
    }

    fn is_stopped(&self, waiter: &Waiter) -> bool {
        self.door.is_abandoned() || self.options.stop.poll_stopped(&mut waiter.context()).is_ready()
    }

    /// The lines that can be had without waiting, at least one, as one batch.
    fn take(&mut self) -> Result<Taken, FileError> {
        if self.reading.is_none() {
            self.open_file()?;
        }
        let mut builder = BatchBuilder::new(&self.options.node);
        self.ends.clear();
        let bytes_max = self.door.delivery_bytes_max();
        loop {
            let is_whole = self.read_line()?;
            if !is_whole && self.options.at_end == AtEnd::Follow && !self.is_over()? {
                break;
            }
            if self.line.is_empty() {
                if self.options.at_end == AtEnd::Follow {
                    self.open_next()?;
                    break;
                }
                return Ok(if builder.is_empty() { Taken::End } else { Taken::Lines(builder.finish()) });
            }
            self.take_line(&mut builder);
            self.ends.resize(builder.len(), self.behind.bytes);
            self.line.clear();
            // The next line, if it can be had without waiting, and fits.
            let reading = self.reading.as_ref().expect("it was opened above");
            let fits =
                reading.buffer().iter().position(|byte| *byte == b'\n').is_some_and(|bytes| {
                    !builder.is_full_for(bytes) && builder.bytes_len() + bytes <= bytes_max
                });
            if !fits && !builder.is_empty() {
                break;
            }
        }
        Ok(if builder.is_empty() { Taken::Nothing } else { Taken::Lines(builder.finish()) })
    }

    /// Whether the end of a followed file is the end of all that it will hold. One
    /// that was truncated is opened again.
    fn is_over(&mut self) -> Result<bool, FileError> {
        let (Location::Path(path), Some(reading)) = (&self.options.location, &mut self.reading) else {
            return Ok(false);
        };
        let location = || self.options.location.clone();
        let fate = reading
            .fate(path, &self.read_before)
            .map_err(|source| FileError::Read { location: location(), source })?;
        match fate {
            Fate::Stays => Ok(false),
            Fate::Truncated => {
                self.open_file()?;
                Ok(false)
            }
            Fate::Moved => {
                // What came between reading to the end and looking.
                let more =
                    reading.fill_buf().map_err(|source| FileError::Read { location: location(), source })?;
                if more.is_empty() {
                    tracing::info!(file = %location(), "another file took its place: it is read from its beginning");
                    return Ok(true);
                }
                Ok(false)
            }
        }
    }

    /// Reads on to the end of the line, or of the file as it is now; whether the
    /// line is whole. Of a line that is too long only as much is kept as shows it.
    fn read_line(&mut self) -> Result<bool, FileError> {
        let reading = self.reading.as_mut().expect("only called when open");
        loop {
            let bytes = match reading.fill_buf() {
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
            reading.consume(taken);
            if end.is_some() || taken == 0 {
                return Ok(end.is_some());
            }
        }
    }

    fn take_line(&mut self, builder: &mut BatchBuilder) {
        self.lines += 1;
        if let Some(reading) = &self.reading {
            self.behind = reading.position(reading.read);
        }
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
                    let stream = [self.behind.inode, self.again];
                    let places = Marks::Places(Places {
                        stream,
                        is_one_of_many: false,
                        ends: std::mem::take(&mut self.ends),
                    });
                    self.delivered = self.door.deliver_marked(credit, batch, Some(places));
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
        let mut position = None;
        while let Some((number, behind)) = self.unsettled.front().copied() {
            if number > settled {
                break;
            }
            position = Some(behind);
            self.unsettled.pop_front();
        }
        if let Some(position) = position {
            (self.options.settled)(position);
        }
    }
}

/// Writes messages as lines, and confirms each write when its lines have left the
/// process.
pub struct FileSink {
    location: Location,
    /// `None` while it cannot be opened.
    output: Option<Output>,
    queue: Arc<SinkQueue>,
    status: Arc<Status>,
    /// Whether errors are for the caller, or tried again.
    at_error: AtError,
    /// Lines to write, and the writes that they are of.
    text: BytesMut,
    written: Vec<Write>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AtError {
    End,
    Retry,
}

struct Output {
    writer: Box<dyn io::Write + Send>,
    /// Which file it is, to see when another is at its path.
    inode: Option<u64>,
}

impl FileSink {
    /// Opens the file to append to it, or creates it. The first error ends it.
    pub fn open(location: Location, queue: Arc<SinkQueue>) -> Result<Self, FileError> {
        let mut sink = Self::lasting(location, queue);
        sink.at_error = AtError::End;
        sink.open_file()?;
        Ok(sink)
    }

    /// Opens the file once it runs. After an error it keeps what it has, and tries
    /// again until its queue is closed.
    pub fn lasting(location: Location, queue: Arc<SinkQueue>) -> Self {
        FileSink {
            location,
            output: None,
            queue,
            status: Status::new(),
            at_error: AtError::Retry,
            text: BytesMut::new(),
            written: Vec::new(),
        }
    }

    pub fn status(&self) -> &Arc<Status> {
        &self.status
    }

    /// Writes until the queue is closed and empty. Blocks its thread.
    pub fn run(mut self) -> Result<(), FileError> {
        let waiter = Waiter::default();
        let is_watched = self.location == Location::Standard && io::stdout().is_terminal();
        self.flush_until_done(&waiter)?;
        loop {
            match self.queue.poll_next(&mut waiter.context()) {
                Poll::Ready(Some(write)) => {
                    write_batch(&write.batch, &mut self.text);
                    self.written.push(write);
                    // Several writes share one system call unless somebody looks on.
                    if !is_watched && self.written.len() < 64 && self.text.len() < 256 << 10 {
                        continue;
                    }
                }
                Poll::Ready(None) => {
                    self.flush_until_done(&waiter)?;
                    self.status.set_closed();
                    return Ok(());
                }
                Poll::Pending if self.written.is_empty() => waiter.wait(),
                Poll::Pending => {}
            }
            self.flush_until_done(&waiter)?;
        }
    }

    fn flush_until_done(&mut self, waiter: &Waiter) -> Result<(), FileError> {
        let mut backoff = Backoff::new(RETRY_AFTER, RETRY_AFTER_MAX);
        while let Err(error) = self.flush() {
            // Nobody waits any more for what a closed queue still holds.
            if self.at_error == AtError::End || self.queue.is_closed() {
                return Err(error);
            }
            if backoff.is_fresh() {
                tracing::warn!(file = %self.location, error = %error.with_source(), "trying again");
            }
            self.status.set_degraded(Clock::System.now(), error.with_source());
            waiter.wait_for(backoff.next());
        }
        Ok(())
    }

    /// Writes all lines that wait, then confirms.
    fn flush(&mut self) -> Result<(), FileError> {
        let location = self.location.clone();
        let error = |source| FileError::Write { location: location.clone(), source };
        if let (Some(Output { inode: Some(inode), .. }), Location::Path(path)) =
            (&self.output, &self.location)
            && !self.text.is_empty()
            && std::fs::metadata(path).map(|found| found.ino()).ok() != Some(*inode)
        {
            // Moved away by whoever rotates it: what follows goes to a new one.
            self.output = None;
        }
        if self.output.is_none() {
            self.open_file()?;
        }
        let output = self.output.as_mut().expect("it was opened above");
        while !self.text.is_empty() {
            match output.writer.write(&self.text) {
                Ok(0) => return Err(error(io::ErrorKind::WriteZero.into())),
                Ok(bytes) => self.text.advance(bytes),
                Err(interrupted) if interrupted.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(error(source)),
            }
        }
        output.writer.flush().map_err(error)?;
        self.status.set_connected();
        for write in self.written.drain(..) {
            write.confirm(Vec::new());
        }
        Ok(())
    }

    fn open_file(&mut self) -> Result<(), FileError> {
        let opened = match &self.location {
            Location::Standard => Ok(Output { writer: Box::new(io::stdout()), inode: None }),
            Location::Path(path) => open_to_append(path),
        };
        let location = || self.location.clone();
        self.output = Some(opened.map_err(|source| FileError::Open { location: location(), source })?);
        Ok(())
    }
}

/// A line that a killed host left unfinished is ended first, so that it spoils no
/// other: what it was to say is delivered again.
fn open_to_append(path: &Path) -> io::Result<Output> {
    let mut file = File::options().create(true).append(true).read(true).open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_file() && metadata.len() > 0 {
        let mut last = [0];
        file.read_exact_at(&mut last, metadata.len() - 1)?;
        if last != *b"\n" {
            file.write_all(b"\n")?;
        }
    }
    let inode = metadata.is_file().then(|| metadata.ino());
    Ok(Output { writer: Box::new(file), inode })
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

/// Adds the message of one line to a batch; `topic` is for lines that name none.
pub fn read_line(topic: &str, line: &[u8], builder: &mut BatchBuilder) -> Result<(), LineError> {
    Message::parse(line)?.push(topic, builder);
    Ok(())
}

/// The lines of a batch.
pub fn write_lines(batch: &Batch) -> BytesMut {
    let mut text = BytesMut::new();
    write_batch(batch, &mut text);
    text
}

#[cfg(test)]
mod tests;
