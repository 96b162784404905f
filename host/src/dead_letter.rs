//! Dead letters: messages that a dataflow gave up on, kept with the reason. A dead
//! letter is on disk before its delivery is settled. Serves the region and the sink
//! operator; knows them only as somebody who waits for a confirmation.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, Write as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, mpsc},
    thread::JoinHandle,
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde::{Deserialize, Serialize};

use crate::{
    batch::Batch,
    write::{Confirmed, Confirms},
};

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
}

/// A dead letter as its line in `dead-letters/TENANT/DATAFLOW.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
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
        let at = chrono::DateTime::from_timestamp(letter.at.as_secs() as i64, letter.at.subsec_nanos());
        Record {
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
            properties: letter.message.properties(0).map(|(key, value)| (text(key), text(value))).collect(),
        }
    }
}

/// Where dataflows leave what they give up.
#[derive(Clone, Debug)]
pub enum DeadLetters {
    /// A writer thread appends to files below a folder.
    Disk(mpsc::SyncSender<Submission>),
    /// Kept in memory and confirmed at once: for simulations and `tidegate run`.
    Memory(Arc<Mutex<Vec<Record>>>),
}

/// Dead letters of one delivery and who waits for them.
#[derive(Debug)]
pub struct Submission {
    letters: Vec<DeadLetter>,
    id: u64,
    confirms: Arc<Confirms>,
}

impl DeadLetters {
    /// Submissions that may wait for the writer before a shard waits for it.
    const WAITING_MAX: usize = 4096;

    /// Starts the writer for files below `dir`. It ends when the last clone of the
    /// door is dropped.
    pub fn disk(dir: PathBuf) -> io::Result<(Self, JoinHandle<()>)> {
        fs::create_dir_all(&dir)?;
        let (tx, rx) = mpsc::sync_channel(Self::WAITING_MAX);
        let mut writer = Writer { dir, files: HashMap::new() };
        let thread = std::thread::Builder::new().name("dead-letters".into()).spawn(move || {
            while let Ok(first) = rx.recv() {
                // One flush for all that waits.
                let mut submissions = vec![first];
                submissions.extend(rx.try_iter().take(255));
                writer.append_until_done(submissions);
            }
        })?;
        Ok((DeadLetters::Disk(tx), thread))
    }

    pub fn memory() -> Self {
        DeadLetters::Memory(Arc::default())
    }

    /// Hands over dead letters; `confirms` hears of `id` once they are safe.
    pub fn submit(&self, letters: Vec<DeadLetter>, id: u64, confirms: &Arc<Confirms>) {
        match self {
            DeadLetters::Disk(tx) => {
                let submission = Submission { letters, id, confirms: confirms.clone() };
                if tx.send(submission).is_err() {
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

struct Writer {
    dir: PathBuf,
    /// Open files by tenant and dataflow, few at a time.
    files: HashMap<PathBuf, File>,
}

impl Writer {
    const FILES_MAX: usize = 64;
    const RETRY_AFTER: Duration = Duration::from_millis(500);

    /// Tries for as long as it takes: what is not on disk is not confirmed, and its
    /// source waits.
    fn append_until_done(&mut self, submissions: Vec<Submission>) {
        while let Err(error) = self.append(&submissions) {
            tracing::error!(%error, dir = %self.dir.display(), "cannot write dead letters, trying again");
            self.files.clear();
            std::thread::sleep(Self::RETRY_AFTER);
        }
        for submission in submissions {
            submission.confirms.push(Confirmed { id: submission.id, rejected: Vec::new() });
        }
    }

    fn append(&mut self, submissions: &[Submission]) -> io::Result<()> {
        let mut lines: HashMap<PathBuf, Vec<u8>> = HashMap::new();
        for letter in submissions.iter().flat_map(|submission| &submission.letters) {
            let path = file_of(&self.dir, &letter.tenant, &letter.dataflow);
            let line = lines.entry(path).or_default();
            serde_json::to_writer(&mut *line, &Record::of(letter))?;
            line.push(b'\n');
        }
        if self.files.len() + lines.len() > Self::FILES_MAX {
            self.files.clear();
        }
        for (path, lines) in lines {
            let file = match self.files.entry(path) {
                std::collections::hash_map::Entry::Occupied(open) => open.into_mut(),
                std::collections::hash_map::Entry::Vacant(place) => {
                    let path = place.key();
                    fs::create_dir_all(path.parent().expect("below the folder"))?;
                    let file = OpenOptions::new().create(true).append(true).open(path)?;
                    place.insert(file)
                }
            };
            file.write_all(&lines)?;
            file.sync_data()?;
        }
        Ok(())
    }
}

fn file_of(dir: &Path, tenant: &str, dataflow: &str) -> PathBuf {
    dir.join(tenant).join(format!("{dataflow}.jsonl"))
}

/// Reads the dead letters below `dir`, of one tenant or of all, oldest first within
/// a dataflow. A line cut short by a crash is left out.
pub fn read(dir: &Path, tenant: Option<&str>) -> io::Result<Vec<Record>> {
    let mut records = Vec::new();
    for file in files(dir, tenant)? {
        for line in BufReader::new(File::open(file)?).split(b'\n') {
            if let Ok(record) = serde_json::from_slice(&line?) {
                records.push(record);
            }
        }
    }
    Ok(records)
}

fn files(dir: &Path, tenant: Option<&str>) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let entries = |dir: &Path| match fs::read_dir(dir) {
        Ok(entries) => entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    };
    for folder in entries(dir)? {
        if tenant.is_none_or(|tenant| folder.file_name().is_some_and(|name| name == tenant)) {
            files.extend(entries(&folder)?);
        }
    }
    files.sort();
    Ok(files)
}
