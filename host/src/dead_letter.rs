//! Dead letters: messages that a dataflow gave up on, kept with the reason. A dead
//! letter is on disk before its delivery is settled. Serves the region and the sink
//! operator; knows them only as somebody who waits for a confirmation.

mod archive;
pub mod filter;
pub mod reader;
mod removals;
mod writer;

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::BytesMut;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::{
    background,
    batch::{Batch, BatchBuilder, Entry},
    hlc,
    stats::Counter,
    write::{Confirmed, Confirms},
};

pub use archive::{Archive, ArchiveError};

/// The user property that a replayed message carries: which dead letter it was.
pub const REPLAY_PROPERTY: &str = "tidegate-replay";

/// Why a message was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Reason {
    /// The guest trapped on it, again after every retry.
    Trap,
    /// The guest was refused memory, again after every retry.
    MemoryRefused,
    /// The guest ran out of the message's fuel.
    OutOfFuel,
    /// The guest ran past the message's CPU time.
    OutOfTime,
    /// The guest gave more than policy allows, or what no host can read.
    BadOutput,
    /// The operator returned an error, and policy says to keep such messages.
    OperatorError,
    /// It came after its time was complete, and policy says to keep such messages.
    Late,
    /// Open windows hold as much as policy allows.
    WindowsFull,
    /// Its payload does not fit the schema of a connection, or cannot be held against it.
    Schema,
    /// The sink will never take it.
    Rejected,
    /// Larger than the tenant's payload limit.
    Oversize,
    /// A line of a file that is no message.
    BadLine,
}

impl Reason {
    /// Whether a guest failed, rather than what it was given or where that went.
    pub fn is_fault(self) -> bool {
        match self {
            Reason::Trap
            | Reason::MemoryRefused
            | Reason::OutOfFuel
            | Reason::OutOfTime
            | Reason::BadOutput => true,
            Reason::OperatorError
            | Reason::Late
            | Reason::WindowsFull
            | Reason::Schema
            | Reason::Rejected
            | Reason::Oversize
            | Reason::BadLine => false,
        }
    }

    pub const ALL: [Reason; 12] = [
        Reason::Trap,
        Reason::MemoryRefused,
        Reason::OutOfFuel,
        Reason::OutOfTime,
        Reason::BadOutput,
        Reason::OperatorError,
        Reason::Late,
        Reason::WindowsFull,
        Reason::Schema,
        Reason::Rejected,
        Reason::Oversize,
        Reason::BadLine,
    ];

    /// As it is written in JSON and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Reason::Trap => "trap",
            Reason::MemoryRefused => "memoryRefused",
            Reason::OutOfFuel => "outOfFuel",
            Reason::OutOfTime => "outOfTime",
            Reason::BadOutput => "badOutput",
            Reason::OperatorError => "operatorError",
            Reason::Late => "late",
            Reason::WindowsFull => "windowsFull",
            Reason::Schema => "schema",
            Reason::Rejected => "rejected",
            Reason::Oversize => "oversize",
            Reason::BadLine => "badLine",
        }
    }
}

/// The dead letter that a replayed message was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replayed {
    pub id: u64,
    /// How often it has been given up so far.
    pub attempts: u32,
}

/// One message given up, as it came from its source.
#[derive(Debug)]
pub struct DeadLetter {
    pub tenant: String,
    pub dataflow: String,
    /// The operation that gave up, if one did.
    pub operation: Option<String>,
    /// The source node it came from.
    pub source: String,
    /// The delivery's number in its dataflow since the host began.
    pub sequence: u64,
    pub reason: Reason,
    pub detail: String,
    /// Fuel that the last try used.
    pub fuel: u64,
    /// The first 12 digits of the component's digest.
    pub component: Option<String>,
    /// The original message: a batch of one.
    pub message: Batch,
    /// Since the Unix epoch.
    pub at: Duration,
    /// The dead letter that it was, if it was replayed: this one takes its place.
    pub replayed: Option<Replayed>,
}

/// A dead letter as its line in a segment below `dead-letters/TENANT/DATAFLOW/`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Names it among all of its host, for good; 0 where nothing is kept, as in
    /// `tidegate run`, and in lines of hosts that gave none.
    #[serde(default)]
    pub id: u64,
    /// RFC 3339, UTC.
    pub at: String,
    pub tenant: String,
    pub dataflow: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub operation: Option<String>,
    pub source: String,
    pub sequence: u64,
    pub reason: Reason,
    pub detail: String,
    pub fuel: u64,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub component: Option<String>,
    pub topic: String,
    /// The payload, if it is UTF-8; else `payloadBase64` has it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub payload: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub payload_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub content_type: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub properties: Vec<(String, String)>,
    /// The time that its host gave it, if it had none of its own: as `__ts` carries it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub timestamp: Option<String>,
    /// How often the message has been given up: more than once after a replay.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub attempts: u32,
    /// The dead letter whose place it took.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub replaces: Option<u64>,
}

fn one() -> u32 {
    1
}

fn is_one(count: &u32) -> bool {
    *count == 1
}

impl Record {
    fn of(letter: &DeadLetter) -> Self {
        let entry = &letter.message.entries[0];
        let arena = &letter.message.arena;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let payload = entry.payload.bytes(arena);
        let (payload, payload_base64) = match std::str::from_utf8(payload) {
            Ok(payload) => (Some(payload.to_owned()), None),
            Err(_) => (None, Some(BASE64.encode(payload))),
        };
        let mut properties: Vec<_> =
            letter.message.properties(0).map(|(key, value)| (text(key), text(value))).collect();
        if letter.replayed.is_some() {
            // Ours is the last; another of this name came with the message.
            let ours = properties.iter().rposition(|(key, _)| key == REPLAY_PROPERTY);
            ours.map(|ours| properties.remove(ours));
        }
        let has_time = properties.iter().any(|(key, _)| key == hlc::PROPERTY);
        let at = chrono::DateTime::from_timestamp(letter.at.as_secs() as i64, letter.at.subsec_nanos());
        Record {
            id: 0,
            at: at.unwrap_or_default().to_rfc3339_opts(chrono::SecondsFormat::Millis, true),
            tenant: letter.tenant.clone(),
            dataflow: letter.dataflow.clone(),
            operation: letter.operation.clone(),
            source: letter.source.clone(),
            sequence: letter.sequence,
            reason: letter.reason,
            detail: letter.detail.clone(),
            fuel: letter.fuel,
            component: letter.component.clone(),
            topic: text(entry.topic.bytes(arena)),
            payload,
            payload_base64,
            content_type: entry.content_type.get(arena).map(text),
            properties,
            timestamp: (!has_time).then(|| stamp(entry, arena)).flatten(),
            attempts: letter.replayed.map_or(1, |before| before.attempts.saturating_add(1)),
            replaces: letter.replayed.map(|before| before.id),
        }
    }

    /// When it was given up, in ms since the Unix epoch.
    pub fn at_ms(&self) -> u64 {
        at_ms(&self.at)
    }

    /// The payload as it came; `None` if what is kept is no base64.
    pub fn payload_bytes(&self) -> Option<Vec<u8>> {
        match (&self.payload, &self.payload_base64) {
            (Some(text), _) => Some(text.clone().into_bytes()),
            (None, Some(encoded)) => BASE64.decode(encoded).ok(),
            (None, None) => Some(Vec::new()),
        }
    }

    /// Adds the message again, marked. Without a time of its own it is one of now, as any
    /// message of its source is: with its old one, windows would take it for late.
    pub fn push(&self, payload: &[u8], builder: &mut BatchBuilder) {
        let id = self.id.to_string();
        let own = self.properties.iter().map(|(key, value)| (key.as_bytes(), value.as_bytes()));
        let mark = [(REPLAY_PROPERTY.as_bytes(), id.as_bytes())];
        builder.push(self.topic.as_bytes(), self.content_type.as_deref(), payload, own.chain(mark));
    }
}

/// The time of a message that ingest has stamped.
fn stamp(entry: &Entry, arena: &[u8]) -> Option<String> {
    if entry.seconds == 0 && entry.nanos == 0 {
        return None;
    }
    let mut stamp = BytesMut::new();
    hlc::format(entry, arena, &mut stamp);
    String::from_utf8(stamp.into()).ok()
}

/// RFC 3339 in ms since the Unix epoch; 0 for what is no time.
fn at_ms(at: &str) -> u64 {
    let at = chrono::DateTime::parse_from_rfc3339(at).map(|at| at.timestamp_millis());
    at.ok().and_then(|ms| u64::try_from(ms).ok()).unwrap_or_default()
}

/// How many dead letters one tenant may keep, and how long; beyond it the oldest go
/// first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DeadLetterLimits {
    pub count_max: u64,
    /// Of their lines on disk.
    pub bytes_max: u64,
    pub age_max: Duration,
}

impl Default for DeadLetterLimits {
    fn default() -> Self {
        DeadLetterLimits { count_max: 10_000, bytes_max: 64 << 20, age_max: Duration::from_secs(7 * 86_400) }
    }
}

/// What is kept of one tenant, and what its limits cost it.
#[derive(Debug, Default)]
pub struct Kept {
    count: AtomicU64,
    bytes: AtomicU64,
    /// Letters that were removed because they were too old.
    expired: Counter,
    /// Letters that were removed to make room for newer ones.
    displaced: Counter,
}

impl Kept {
    fn set(&self, count: u64, bytes: u64) {
        self.count.store(count, Ordering::Relaxed);
        self.bytes.store(bytes, Ordering::Relaxed);
    }

    /// Each figure with its name.
    pub fn values(&self) -> Vec<(&'static str, u64)> {
        let gauge = |gauge: &AtomicU64| gauge.load(Ordering::Relaxed);
        let (expired, displaced) = (self.expired.get(), self.displaced.get());
        vec![
            ("count", gauge(&self.count)),
            ("bytes", gauge(&self.bytes)),
            ("expired", expired),
            ("displaced", displaced),
        ]
    }
}

/// Where dataflows leave what they give up.
#[derive(Clone, Debug)]
pub enum DeadLetters {
    /// A writer thread keeps them below a folder.
    Disk(Door),
    /// Kept in memory and confirmed at once: for simulations and `tidegate run`.
    Memory(Arc<Mutex<Vec<Record>>>),
}

/// The way to the writer of a folder; clones reach the same one.
#[derive(Clone, Debug)]
pub struct Door {
    orders: mpsc::Sender<Order>,
    newest: Arc<AtomicU64>,
    dir: Arc<Path>,
}

/// Dead letters of one delivery and who waits for them.
#[derive(Debug)]
pub struct Submission {
    letters: Vec<DeadLetter>,
    id: u64,
    confirms: Arc<Confirms>,
}

/// What the writer is told.
#[derive(Debug)]
enum Order {
    Submit(Submission),
    /// Holds a tenant to its limits from now on.
    Govern {
        tenant: String,
        limits: DeadLetterLimits,
        kept: Arc<Kept>,
    },
    /// Removes these for good; answers how many there were.
    Remove {
        ids: Vec<u64>,
        reply: oneshot::Sender<io::Result<u64>>,
    },
    /// These go through their dataflow again; answers those that do so already.
    BeginReplay {
        ids: Vec<u64>,
        reply: oneshot::Sender<Vec<u64>>,
    },
    /// They have; what is settled is removed, and the others stay. Answers how many
    /// were given up again.
    EndReplay {
        ids: Vec<u64>,
        is_settled: bool,
        reply: oneshot::Sender<u64>,
    },
}

impl Door {
    /// The newest letter so far.
    pub fn newest(&self) -> u64 {
        self.newest.load(Ordering::SeqCst)
    }

    /// Where the letters lie, for readers.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Holds a tenant to its limits from now on, and counts in `kept`. May wait for
    /// the writer, as all of these do.
    pub fn govern(&self, tenant: &str, limits: DeadLetterLimits, kept: &Arc<Kept>) {
        let (tenant, kept) = (tenant.to_owned(), kept.clone());
        let _ = self.orders.send(Order::Govern { tenant, limits, kept });
    }

    /// Removes letters for good, all or none; gives how many there were.
    pub fn remove(&self, ids: Vec<u64>) -> io::Result<u64> {
        let ended = || Err(io::Error::other("the host is shutting down"));
        self.ask(|reply| Order::Remove { ids, reply }).unwrap_or_else(ended)
    }

    /// Says that letters are replayed; gives those that already are. `None` at shutdown.
    pub fn begin_replay(&self, ids: Vec<u64>) -> Option<Vec<u64>> {
        self.ask(|reply| Order::BeginReplay { ids, reply })
    }

    /// Removes letters whose replay is settled; those of any other stay. Gives how
    /// many were given up again; `None` at shutdown.
    pub fn end_replay(&self, ids: Vec<u64>, is_settled: bool) -> Option<u64> {
        self.ask(|reply| Order::EndReplay { ids, is_settled, reply })
    }

    fn ask<A>(&self, order: impl FnOnce(oneshot::Sender<A>) -> Order) -> Option<A> {
        let (reply, answer) = oneshot::channel();
        self.orders.send(order(reply)).ok()?;
        answer.blocking_recv().ok()
    }
}

impl DeadLetters {
    /// How long a command may have the letters when a host starts.
    const TAKEN_MAX: Duration = Duration::from_secs(10);

    /// Starts the writer for letters below `dir`. It ends when the last clone of the
    /// door is dropped.
    pub fn disk(dir: PathBuf) -> Result<Self, ArchiveError> {
        let archive = Archive::open_within(&dir, Self::TAKEN_MAX)?;
        // No shard waits for the disk. What waits here is in its tenant's credit.
        let (tx, rx) = mpsc::channel();
        let newest = Arc::new(AtomicU64::new(archive.newest()));
        let writer = writer::Writer::new(archive, newest.clone());
        let error = |source: io::Error| ArchiveError::Io { path: dir.clone(), source };
        background::spawn("dead-letters", move || writer.run(&rx)).map_err(error)?;
        Ok(DeadLetters::Disk(Door { orders: tx, newest, dir: dir.into() }))
    }

    pub fn memory() -> Self {
        DeadLetters::Memory(Arc::default())
    }

    /// The writer's door, where letters are kept on disk.
    pub fn door(&self) -> Option<&Door> {
        match self {
            DeadLetters::Disk(door) => Some(door),
            DeadLetters::Memory(_) => None,
        }
    }

    /// Hands over dead letters; `confirms` hears of `id` once they are safe.
    pub fn submit(&self, letters: Vec<DeadLetter>, id: u64, confirms: &Arc<Confirms>) {
        match self {
            DeadLetters::Disk(door) => {
                let submission = Submission { letters, id, confirms: confirms.clone() };
                if door.orders.send(Order::Submit(submission)).is_err() {
                    // The writer is gone at shutdown only: unconfirmed means delivered again.
                    tracing::warn!("dead letters after shutdown are left to redelivery");
                }
            }
            DeadLetters::Memory(records) => {
                let mut records = records.lock().expect("no panic under this lock");
                records.extend(letters.iter().map(Record::of));
                confirms.push(Confirmed { id, rejected: Vec::new() });
            }
        }
    }
}
