//! `Buffer`: keeps on disk what one dataflow writes to one endpoint while the far side cannot
//! take it, so that its sources go on. It stands between the dataflow's queue and the
//! endpoint's, and knows no transport.
//!
//! ```text
//!              ┌───────────── buffer ─────────────┐
//! dataflow ──► │ front ──────── passing ────────► │ back ──► sink
//!              │   └─► log ──── read again ──► ─┘ │
//!              └──────────────────────────────────┘
//! ```
//!
//! As long as the far side takes what comes, writes pass and are confirmed as it confirms
//! them. Once it does not, whatever it has not confirmed goes to the log, and so does all that
//! follows; what is on disk is confirmed to the dataflow. When the far side is back it is given
//! what the log has, in order, and what comes meanwhile goes behind it.

mod log;
mod record;

use std::{
    collections::VecDeque,
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::{Duration, Instant},
};

use tokio::{sync::Notify, task::spawn_blocking};

use self::{
    log::{Log, Torn},
    record::Kept,
};
use super::{backoff::Backoff, status::Status};
use crate::{
    batch::Batch,
    clock::Clock,
    dead_letter::{DeadLetter, DeadLetters, Reason},
    topic::TopicFilter,
    write::{Confirmed, Confirms, Destination, Rejected, SinkQueue, Write},
};

/// How often to look whether it is.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Of what comes, so much is written to disk at once, and so much is read again.
const WRITTEN_BYTES_MAX: usize = 4 << 20;
const READ_BYTES_MAX: usize = 1 << 20;
/// The log is told of what is done no more often.
const NOTE_EVERY: Duration = Duration::from_millis(200);
/// A disk that takes nothing is tried again.
const RETRY_AFTER: Duration = Duration::from_millis(200);
const RETRY_AFTER_MAX: Duration = Duration::from_secs(5);
/// What the far side has when the dataflow goes may still be confirmed within this.
const CLOSES_WITHIN: Duration = Duration::from_secs(2);

/// When a far side is away.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// It was not there for so long.
    pub missing: Duration,
    /// It is connected, and has confirmed nothing for so long.
    pub silent: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Patience { missing: Duration::from_secs(1), silent: Duration::from_secs(5) }
    }
}

/// What a buffer is for.
pub struct BufferOptions {
    pub tenant: String,
    pub dataflow: String,
    /// Where the log is.
    pub dir: PathBuf,
    /// Bytes on disk of all the tenant's buffers, and how many there may be.
    pub used: Arc<AtomicU64>,
    pub bytes_max: u64,
    /// What the tenant may write there, for what an earlier run has left.
    pub write_grants: Vec<TopicFilter>,
    /// Of the endpoint's sink.
    pub far: Arc<Status>,
    pub patience: Patience,
    pub letters: DeadLetters,
    pub clock: Clock,
}

/// What can be seen of a buffer from outside.
#[derive(Debug, Default)]
pub struct BufferStatus {
    pub bytes: AtomicU64,
    /// Writes that are on disk.
    pub writes: AtomicU64,
    /// It has all that policy allows, or the disk takes nothing: the dataflow waits.
    pub is_full: AtomicBool,
}

/// See the module.
pub struct Buffer {
    options: BufferOptions,
    front: Arc<SinkQueue>,
    back: Arc<SinkQueue>,
    log: Option<Log>,
    /// Of `options.used`, so much is this one's.
    bytes: u64,
    bell: Arc<Bell>,
    waker: Waker,
    confirms: Arc<Confirms>,
    /// What the back has and has not confirmed, by number, the oldest first.
    handed: VecDeque<Handed>,
    next_number: u64,
    /// Taken from the front and not on disk yet.
    taken: VecDeque<Write>,
    /// The front gives nothing more.
    is_closed: bool,
    missing_since: Option<Instant>,
    /// All records before this are done.
    done: u64,
    noted: (u64, Instant),
    status: Arc<BufferStatus>,
}

/// A write that the back has.
struct Handed {
    what: What,
    since: Instant,
    state: State,
}

enum What {
    /// The dataflow waits for it.
    Passing(Write),
    /// It is in the log, under this number.
    Logged { record: u64, destination: Arc<Destination>, batch: Batch },
}

enum State {
    Open,
    /// Its dead letters are on their way to disk.
    Burying,
    Answered(Vec<(u32, String)>),
}

/// What policy leaves.
struct Room {
    bytes: u64,
    is_full: bool,
}

impl Room {
    /// Nothing fits any more once something did not.
    fn take(&mut self, record: &[u8]) -> bool {
        let size = Log::size_of(record);
        self.is_full |= size > self.bytes;
        if !self.is_full {
            self.bytes -= size;
        }
        !self.is_full
    }
}

/// Wakes the buffer's task.
#[derive(Default)]
struct Bell(Notify);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.notify_one();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.notify_one();
    }
}

impl Buffer {
    /// Between these two; gives whoever asks its state.
    pub fn new(options: BufferOptions, front: Arc<SinkQueue>, back: Arc<SinkQueue>) -> Self {
        let bell = Arc::<Bell>::default();
        let waker = Waker::from(bell.clone());
        let now = Instant::now();
        Buffer {
            options,
            front,
            back,
            log: None,
            bytes: 0,
            confirms: Confirms::new(waker.clone()),
            bell,
            waker,
            handed: VecDeque::new(),
            next_number: 0,
            taken: VecDeque::new(),
            is_closed: false,
            missing_since: None,
            done: 0,
            noted: (0, now),
            status: Arc::default(),
        }
    }

    pub fn status(&self) -> &Arc<BufferStatus> {
        &self.status
    }

    /// Until its front is closed and empty. What is then in the log is for the next run.
    pub async fn run(mut self) {
        let mut backoff = Backoff::new(RETRY_AFTER, RETRY_AFTER_MAX);
        while self.log.is_none() {
            match self.open().await {
                Ok(()) => {}
                Err(error) => {
                    tracing::error!(buffer = %self.name(), %error, "a buffer cannot be opened: its dataflow waits");
                    self.status.is_full.store(true, Ordering::Relaxed);
                    if self.front.is_closed() {
                        return;
                    }
                    tokio::time::sleep(backoff.next()).await;
                }
            }
        }
        backoff.reset();
        let mut closed_at = None;
        loop {
            self.take_confirms();
            let result = self.step().await;
            self.show();
            match result {
                Ok(()) => backoff.reset(),
                Err(error) => {
                    if backoff.is_fresh() {
                        tracing::warn!(buffer = %self.name(), %error, "the disk takes nothing: its dataflow waits");
                    }
                    self.status.is_full.store(true, Ordering::Relaxed);
                    tokio::time::sleep(backoff.next()).await;
                }
            }
            if self.is_closed && self.taken.is_empty() {
                let since = *closed_at.get_or_insert_with(Instant::now);
                let is_over = self.handed.is_empty()
                    || self.missing_since.is_some()
                    || since.elapsed() >= CLOSES_WITHIN;
                if is_over {
                    return self.close().await;
                }
            }
            let looks = self.is_closed
                || !self.handed.is_empty()
                || !self.taken.is_empty()
                || self.log().unread() > 0
                || self.noted.0 < self.done;
            tokio::select! {
                () = self.bell.0.notified() => {}
                () = tokio::time::sleep(LOOK_EVERY), if looks => {}
            }
        }
    }

    fn name(&self) -> String {
        self.options.dir.display().to_string()
    }

    fn log(&self) -> &Log {
        self.log.as_ref().expect("it is put back after each use")
    }

    async fn open(&mut self) -> io::Result<()> {
        let dir = self.options.dir.clone();
        let (log, Torn(torn)) = spawn_blocking(move || Log::open(&dir)).await.expect("no panic")?;
        if torn > 0 {
            tracing::warn!(buffer = %self.name(), bytes = torn, "an end that was not whole is cut off");
        }
        self.done = log.next() - log.left();
        self.noted.0 = self.done;
        self.log = Some(log);
        self.count();
        Ok(())
    }

    /// Uses the log on a thread that may wait for the disk.
    async fn with_log<T: Send + 'static>(
        &mut self,
        with: impl FnOnce(&mut Log) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let mut log = self.log.take().expect("it is put back after each use");
        let (log, result) = spawn_blocking(move || {
            let result = with(&mut log);
            (log, result)
        })
        .await
        .expect("no panic");
        self.log = Some(log);
        self.count();
        result
    }

    /// Takes account of what is on disk.
    fn count(&mut self) {
        let bytes = self.log().bytes();
        self.options.used.fetch_add(bytes, Ordering::SeqCst);
        self.options.used.fetch_sub(std::mem::replace(&mut self.bytes, bytes), Ordering::SeqCst);
    }

    fn show(&self) {
        self.status.bytes.store(self.bytes, Ordering::Relaxed);
        self.status.writes.store(self.log().left(), Ordering::Relaxed);
    }

    /// What the back and the dead letters say; the dataflow hears of what passed.
    fn take_confirms(&mut self) {
        let mut confirmed = Vec::new();
        self.confirms.take(&mut confirmed);
        for Confirmed { id, rejected } in confirmed {
            let first = self.next_number - self.handed.len() as u64;
            let handed = &mut self.handed[(id - first) as usize];
            handed.state = match (&handed.what, &handed.state) {
                (What::Logged { record, destination, batch }, State::Open) if !rejected.is_empty() => {
                    let letters = rejected.into_iter().map(|(index, reason)| {
                        letter(&self.options, *record, destination, batch, index, reason)
                    });
                    self.options.letters.submit(letters.collect(), id, &self.confirms);
                    State::Burying
                }
                _ => State::Answered(rejected),
            };
        }
        while let Some(Handed { state: State::Answered(_), .. }) = self.handed.front() {
            let Some(Handed { what, state: State::Answered(rejected), .. }) = self.handed.pop_front() else {
                unreachable!("looked at right now")
            };
            match what {
                What::Passing(write) => {
                    // Its batch is the one that was handed, whose origins are places in it.
                    let rejected = rejected.into_iter().map(|(index, reason)| Rejected { index, reason });
                    write.confirm(rejected.collect());
                }
                What::Logged { record, .. } => self.done = record + 1,
            }
        }
    }

    /// Whether the far side takes what it is given.
    fn is_away(&mut self) -> bool {
        let now = Instant::now();
        match self.options.far.is_missing() {
            true => _ = self.missing_since.get_or_insert(now),
            false => self.missing_since = None,
        }
        let Patience { missing, silent } = self.options.patience;
        let is_missing = self.missing_since.is_some_and(|since| now.duration_since(since) >= missing);
        let is_silent = self.handed.front().is_some_and(|handed| now.duration_since(handed.since) >= silent);
        is_missing || is_silent
    }

    /// Does what can be done now.
    async fn step(&mut self) -> io::Result<()> {
        if self.noted.0 < self.done && self.noted.1.elapsed() >= NOTE_EVERY {
            self.note().await?;
        }
        let is_away = self.is_away();
        if is_away || self.log().unread() > 0 || !self.taken.is_empty() {
            self.spill().await?;
        }
        if self.missing_since.is_none() {
            self.feed().await?;
        }
        if !is_away && self.log().unread() == 0 && self.taken.is_empty() {
            self.pass();
        }
        Ok(())
    }

    async fn note(&mut self) -> io::Result<()> {
        let done = self.done;
        self.with_log(move |log| log.set_done(done)).await?;
        self.noted = (done, Instant::now());
        Ok(())
    }

    /// Writes pass as long as there is room for them.
    fn pass(&mut self) {
        let waker = self.waker.clone();
        let ctx = &mut Context::from_waker(&waker);
        while self.back.poll_room(ctx).is_ready() {
            match self.front.poll_next(ctx) {
                Poll::Ready(Some(write)) => {
                    let (batch, destination) = (write.batch.clone(), write.destination.clone());
                    self.hand(batch, destination, What::Passing(write));
                }
                Poll::Ready(None) => return self.is_closed = true,
                Poll::Pending => return,
            }
        }
    }

    /// Gives the back a write of its own.
    fn hand(&mut self, mut batch: Batch, destination: Arc<Destination>, what: What) {
        for (index, entry) in (0..).zip(&mut batch.entries) {
            entry.origin = index;
        }
        self.handed.push_back(Handed { what, since: Instant::now(), state: State::Open });
        let write = Write::ready(self.next_number, batch, destination, self.confirms.clone());
        self.next_number += 1;
        self.back.push(write);
    }

    /// What the back has not confirmed, and what comes, goes to the log as far as policy
    /// allows; the dataflow hears of it once it is there.
    async fn spill(&mut self) -> io::Result<()> {
        let used = self.options.used.load(Ordering::SeqCst);
        let mut room = Room { bytes: self.options.bytes_max.saturating_sub(used), is_full: false };
        self.spill_passing(&mut room).await?;
        let records = self.take_records(&mut room);
        self.status.is_full.store(room.is_full, Ordering::Relaxed);
        if records.is_empty() {
            return Ok(());
        }
        let count = records.len();
        self.with_log(move |log| log.append(&records)).await?;
        self.taken.drain(..count).for_each(|write| write.confirm(Vec::new()));
        // There may be more.
        self.bell.0.notify_one();
        Ok(())
    }

    /// What the back has comes first, and is not read again in this run.
    async fn spill_passing(&mut self, room: &mut Room) -> io::Result<()> {
        let of = |(place, handed): (usize, &Handed)| match (&handed.what, &handed.state) {
            (What::Passing(write), State::Open) => Some((place, encode(write))),
            _ => None,
        };
        let passing = self.handed.iter().enumerate().filter_map(of);
        let (places, records): (Vec<_>, Vec<_>) = passing.take_while(|(_, record)| room.take(record)).unzip();
        if records.is_empty() {
            return Ok(());
        }
        let first = self.log().next();
        self.with_log(move |log| log.append(&records).map(|()| log.pass_over())).await?;
        for (record, place) in (first..).zip(places) {
            let handed = &mut self.handed[place];
            let What::Passing(write) = &handed.what else { unreachable!("it was found here") };
            let (destination, batch) = (write.destination.clone(), write.batch.clone());
            let logged = What::Logged { record, destination, batch };
            if let What::Passing(write) = std::mem::replace(&mut handed.what, logged) {
                write.confirm(Vec::new());
            }
        }
        Ok(())
    }

    /// What comes, as records, as far as there is room.
    fn take_records(&mut self, room: &mut Room) -> Vec<Vec<u8>> {
        let waker = self.waker.clone();
        let ctx = &mut Context::from_waker(&waker);
        let (mut records, mut bytes) = (Vec::new(), 0);
        while !room.is_full && bytes < WRITTEN_BYTES_MAX {
            if self.taken.len() <= records.len() {
                match self.front.poll_next(ctx) {
                    Poll::Ready(Some(write)) => self.taken.push_back(write),
                    Poll::Ready(None) => self.is_closed = true,
                    Poll::Pending => {}
                }
            }
            let Some(write) = self.taken.get(records.len()) else { break };
            let record = encode(write);
            if room.take(&record) {
                bytes += record.len();
                records.push(record);
            }
        }
        records
    }

    /// Gives the back what the log has, as long as there is room.
    async fn feed(&mut self) -> io::Result<()> {
        let waker = self.waker.clone();
        let has_room = |back: &SinkQueue| back.poll_room(&mut Context::from_waker(&waker)).is_ready();
        while self.log().unread() > 0 && has_room(&self.back) {
            for (record, bytes) in self.with_log(|log| log.read(READ_BYTES_MAX)).await? {
                let Some(Kept { destination, topic, batch }) = record::decode(&bytes) else {
                    // Its checksum is right: another version wrote it.
                    tracing::error!(buffer = %self.name(), record, "a record in an unknown form is left out");
                    continue;
                };
                let write_grants = self.options.write_grants.clone();
                let headers = Default::default();
                let destination = Arc::new(Destination { name: destination, topic, write_grants, headers });
                let logged = What::Logged { record, destination: destination.clone(), batch: batch.clone() };
                self.hand(batch, destination, logged);
            }
        }
        Ok(())
    }

    /// What the dataflow still waits for is not confirmed: it is delivered again.
    async fn close(mut self) {
        if let Err(error) = self.note().await {
            tracing::warn!(buffer = %self.name(), %error, "what is done is not noted: it is sent again");
        }
        let left = self.log().left();
        if left > 0 {
            tracing::warn!(buffer = %self.name(), writes = left, "what a buffer holds is sent when its dataflow runs again");
        }
        self.show();
        if left == 0 {
            // Nothing is left that a later run could want.
            let dir = self.options.dir.clone();
            let removed = spawn_blocking(move || std::fs::remove_dir_all(dir)).await.expect("no panic");
            if let Err(error) = removed {
                tracing::debug!(buffer = %self.name(), %error, "an empty buffer stays on disk");
            }
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.options.used.fetch_sub(self.bytes, Ordering::SeqCst);
    }
}

fn encode(write: &Write) -> Vec<u8> {
    record::encode(&write.destination, &write.batch)
}

/// For what the far side refused after its delivery was settled: the message as it was
/// written, which no source can take again.
fn letter(
    options: &BufferOptions,
    record: u64,
    destination: &Destination,
    batch: &Batch,
    index: u32,
    reason: String,
) -> DeadLetter {
    DeadLetter {
        tenant: options.tenant.clone(),
        dataflow: options.dataflow.clone(),
        operation: None,
        source: String::new(),
        sequence: record,
        reason: Reason::Rejected,
        detail: format!("{}: {reason}", destination.name),
        fuel: 0,
        component: None,
        message: batch.select(|place, _| place == index as usize),
        at: options.clock.wall(),
        replayed: None,
    }
}

#[cfg(test)]
mod tests;
