//! `KeySpace`: the state that one tenant's operators keep. What lies in memory and
//! what is written is served at once; a key that only the disk has is read by a
//! thread of the store's, and its reader waits without blocking. Writes of all
//! tenants are flushed together. Serves guests on a shard; knows none of them.

use std::{
    collections::HashMap,
    hash::BuildHasher as _,
    sync::{Arc, Mutex, MutexGuard, Weak, mpsc},
    time::Duration,
};

use lru::LruCache;
use tokio::sync::oneshot;

use super::{
    Shared,
    kept_state::ReadAhead,
    record::{Condition, Record, StateError, Version, check_key, check_token},
};
use crate::{
    hlc::{Hlc, Point},
    stats::Counter,
};

/// Bytes of read and written records that each tenant has in memory, at most.
const CACHE_BYTES_MAX: u64 = 256 << 10;
/// What a record takes beside key and value, about.
const RECORD_BYTES: u64 = 160;
/// Expired records are looked for at most this often, when a quota is reached.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// How much a tenant may keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StateLimits {
    pub keys_max: u64,
    /// Keys and values together.
    pub bytes_max: u64,
    pub value_bytes_max: u64,
}

impl Default for StateLimits {
    fn default() -> Self {
        StateLimits { keys_max: 10_000, bytes_max: 16 << 20, value_bytes_max: 256 << 10 }
    }
}

/// A value to write.
#[derive(Clone, Debug)]
pub struct Set {
    pub key: Vec<u8>,
    pub value: Arc<[u8]>,
    pub condition: Condition,
    pub token: Option<Version>,
    /// From now on.
    pub expires: Option<Duration>,
}

/// What came of a request to write or delete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Done, with the version of the change.
    Done(Version),
    /// The key is not there.
    Absent,
    /// The key has another value, at this version.
    Differs(Version),
}

/// One tenant's state within its limits; clones share it.
#[derive(Clone, Debug)]
pub struct KeySpace {
    space: Arc<Space>,
    limits: StateLimits,
}

#[derive(Debug)]
pub(super) struct Space {
    pub(super) tenant: String,
    pub(super) node: Arc<str>,
    cells: Mutex<Cells>,
    /// For the reading thread alone.
    read_ahead: Mutex<ReadAhead>,
    /// None of it is on disk where there is no store.
    disk: Option<Disk>,
    refused: Counter,
}

#[derive(Debug)]
struct Disk {
    store: Weak<Shared>,
    door: mpsc::Sender<Read>,
}

/// What the reading thread is asked.
pub(super) enum Read {
    /// A key, and how much there is.
    Key { space: Arc<Space>, key: Vec<u8>, reply: oneshot::Sender<Result<OnDisk, StateError>> },
    /// Which keys have expired.
    Sweep { space: Arc<Space>, wall: Duration, reply: oneshot::Sender<Result<(), StateError>> },
}

/// What the disk had of a key.
pub(super) struct OnDisk {
    /// See [`Space::mark`].
    pub(super) mark: u64,
    pub(super) held: Held,
}

/// How much a tenant keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub keys: u64,
    pub bytes: u64,
}

#[derive(Debug)]
struct Cells {
    /// `None` until it was read.
    usage: Option<Usage>,
    hlc: Hlc,
    /// There is no disk: what is not here is nowhere.
    is_all: bool,
    /// Changes that are not on disk. Without a disk, all there is.
    unwritten: Changes,
    /// Earlier ones that are on their way there; whoever writes them has them too, and
    /// nobody waits while they are copied.
    writing: Option<Arc<Changes>>,
    /// What the disk has, as far as it was written, or asked for more than once.
    cached: LruCache<Vec<u8>, Held>,
    cached_bytes: u64,
    /// What it has behind the key that was read last.
    ahead: Ahead,
    asked: Asked,
    /// Numbers of the last change accepted and of the last that is on disk.
    accepted: u64,
    written: u64,
    /// The store knows that there is something to write.
    announced: bool,
    waiting: Vec<(u64, oneshot::Sender<()>)>,
    /// Time since the Unix epoch of the last sweep.
    swept: Option<Duration>,
}

/// A record, or that there is none.
type Held = Option<Arc<Record>>;

/// Records that were read ahead, by key. They are asked for one after the other, mostly,
/// and not again.
#[derive(Debug, Default)]
struct Ahead {
    records: Vec<(Vec<u8>, Arc<Record>)>,
    bytes: u64,
    /// Behind the last that was asked for.
    next: usize,
}

impl Ahead {
    fn new(records: Vec<(Vec<u8>, Record)>) -> Self {
        let bytes = records.iter().map(|(key, record)| RECORD_BYTES + bytes_of(key, record)).sum();
        let records = records.into_iter().map(|(key, record)| (key, Arc::new(record))).collect();
        Ahead { records, bytes, next: 0 }
    }

    fn get(&mut self, key: &[u8]) -> Option<&Arc<Record>> {
        let is_next = self.records.get(self.next).is_some_and(|(next, _)| next == key);
        let place = match is_next {
            true => self.next,
            false => self.records.binary_search_by(|(other, _)| other.as_slice().cmp(key)).ok()?,
        };
        self.next = place + 1;
        Some(&self.records[place].1)
    }
}

/// Which keys were asked for not long ago, by their hashes: what is asked for once, as by
/// whoever goes through all there is, costs more to keep than to read, and takes the place
/// of what is asked for often.
#[derive(Debug, Default)]
struct Asked {
    hasher: lru::DefaultHasher,
    tags: Vec<u16>,
}

impl Asked {
    /// A key's place, by its hash: about as many as records that fit in memory.
    const PLACES: usize = 2048;

    /// Whether the key was asked for before; from now on it was.
    fn again(&mut self, key: &[u8]) -> bool {
        if self.tags.is_empty() {
            self.tags = vec![0; Self::PLACES];
        }
        let hash = self.hasher.hash_one(key);
        let tag = (hash >> 48) as u16 | 1;
        std::mem::replace(&mut self.tags[hash as usize % Self::PLACES], tag) == tag
    }
}

/// What keys have become.
type Changes = HashMap<Vec<u8>, Held, lru::DefaultHasher>;

/// Written keys that go to what is cached at once: as long as it takes, their tenant's
/// guests wait.
const CACHED_AT_ONCE: usize = 16;

/// Changes of one tenant on their way to the disk.
pub(super) struct Unwritten {
    pub(super) changes: Arc<Changes>,
    pub(super) usage: Usage,
    upto: u64,
}

impl KeySpace {
    /// In memory alone: for hosts that keep nothing.
    pub fn memory(limits: StateLimits) -> Self {
        KeySpace { space: Arc::new(Space::new(String::new(), "memory", None)), limits }
    }

    pub(super) fn on(space: Arc<Space>, limits: StateLimits) -> Self {
        KeySpace { space, limits }
    }

    /// Requests that a limit refused.
    pub fn refused(&self) -> u64 {
        self.space.refused.get()
    }

    /// Bytes of it that are in memory.
    pub fn bytes_held(&self) -> u64 {
        let cells = self.space.cells();
        cells.cached_bytes + cells.ahead.bytes
    }

    /// How much is kept; `None` as long as nobody asked for any of it.
    pub fn usage(&self) -> Option<Usage> {
        self.space.cells().usage
    }

    /// The live record of a key. `wall` is the time since the Unix epoch.
    pub async fn get(&self, key: &[u8], wall: Duration) -> Result<Option<Arc<Record>>, StateError> {
        self.counted(check_key(key))?;
        self.with(key, |_, held| Ok(held.filter(|record| record.is_live(wall)))).await
    }

    /// Writes a value if its condition holds; accepted when this returns, on disk
    /// once [`KeySpace::flushed`] does.
    pub async fn set(&self, set: Set, wall: Duration) -> Result<Answer, StateError> {
        let bytes = set.value.len();
        self.counted(check_key(&set.key))?;
        if bytes as u64 > self.limits.value_bytes_max {
            let error = StateError::ValueTooLarge { bytes, bytes_max: self.limits.value_bytes_max };
            return self.counted(Err(error));
        }
        if set.expires.is_some_and(|expires| expires.is_zero()) {
            return Err(StateError::ExpiryZero);
        }
        let mut result = self.try_set(&set, wall).await;
        let is_full = matches!(result, Err(StateError::TooManyKeys { .. } | StateError::TooManyBytes { .. }));
        if is_full && self.sweep(wall).await? {
            result = self.try_set(&set, wall).await;
        }
        self.counted(result)
    }

    /// Deletes a key; only if it has this value, where one is given.
    pub async fn delete(
        &self,
        key: &[u8],
        value: Option<&[u8]>,
        token: Option<&Version>,
        wall: Duration,
    ) -> Result<Answer, StateError> {
        self.counted(check_key(key))?;
        let node = &self.space.node;
        self.with(key, |cells, held| {
            let live = held.clone().filter(|record| record.is_live(wall));
            check_token(live.as_deref(), token, wall)?;
            Ok(match (live, value) {
                (None, _) => Answer::Absent,
                (Some(record), Some(value)) if *record.value != *value => {
                    Answer::Differs(record.version.clone())
                }
                (Some(_), _) => {
                    let version = cells.next_version(held.as_deref(), wall, node);
                    cells.put(key, held.as_deref(), None);
                    Answer::Done(version)
                }
            })
        })
        .await
    }

    /// The number of the last change; [`KeySpace::flushed`] takes it.
    pub fn last_change(&self) -> u64 {
        self.space.cells().accepted
    }

    /// Waits until a change and all before it are on disk. False if the store was
    /// closed first.
    pub async fn flushed(&self, change: u64) -> bool {
        let done = {
            let mut cells = self.space.cells();
            if self.space.disk.is_none() || cells.written >= change {
                return true;
            }
            let (tx, done) = oneshot::channel();
            cells.waiting.push((change, tx));
            done
        };
        if !self.space.announce(true) {
            return false;
        }
        done.await.is_ok()
    }

    fn counted<T>(&self, result: Result<T, StateError>) -> Result<T, StateError> {
        if result.as_ref().is_err_and(StateError::is_limit) {
            self.space.refused.add(1);
        }
        result
    }

    async fn try_set(&self, set: &Set, wall: Duration) -> Result<Answer, StateError> {
        let Set { key, value, condition, token, expires } = set;
        let node = &self.space.node;
        self.with(key, |cells, held| {
            let live = held.as_deref().filter(|record| record.is_live(wall));
            check_token(live, token.as_ref(), wall)?;
            if let Some(record) = live.filter(|record| !condition.holds(Some(record), value)) {
                return Ok(Answer::Differs(record.version.clone()));
            }
            cells.check_quota(key, held.as_deref(), value.len(), self.limits)?;
            let version = cells.next_version(held.as_deref(), wall, node);
            let expires = expires.map(|expires| wall.saturating_add(expires));
            let record =
                Record { value: value.clone(), version: version.clone(), token: token.clone(), expires };
            cells.put(key, held.as_deref(), Some(Arc::new(record)));
            Ok(Answer::Done(version))
        })
        .await
    }

    /// Runs `run` on what is held of a key, which is read first if need be.
    async fn with<T>(
        &self,
        key: &[u8],
        mut run: impl FnMut(&mut Cells, Held) -> Result<T, StateError>,
    ) -> Result<T, StateError> {
        let mut on_disk = None;
        loop {
            {
                let mut cells = self.space.cells();
                let held = match on_disk.take() {
                    None => cells.find(key),
                    Some(OnDisk { mark, held }) => cells.is_all_there_is(key, mark).then_some(held),
                };
                if let Some(held) = held {
                    let before = cells.accepted;
                    let result = run(&mut cells, held);
                    let is_news = cells.accepted != before && !std::mem::replace(&mut cells.announced, true);
                    drop(cells);
                    if is_news {
                        self.space.announce(false);
                    }
                    return result;
                }
            }
            let read = self.ask(|space, reply| Read::Key { space, key: key.to_vec(), reply });
            on_disk = Some(read.await?);
        }
    }

    /// Forgets what has expired. False if that was done a moment ago.
    async fn sweep(&self, wall: Duration) -> Result<bool, StateError> {
        {
            let mut cells = self.space.cells();
            if cells.swept.is_some_and(|swept| wall < swept + SWEEP_EVERY) {
                return Ok(false);
            }
            cells.swept = Some(wall);
            let expired = |(key, held): (&Vec<u8>, &Held)| {
                held.as_ref()
                    .filter(|record| !record.is_live(wall))
                    .map(|record| (key.clone(), record.clone()))
            };
            let writing = cells.writing.iter().flat_map(|writing| writing.iter());
            let writing = writing.filter(|(key, _)| !cells.unwritten.contains_key(*key));
            let expired: Vec<_> = cells.unwritten.iter().chain(writing).filter_map(expired).collect();
            expired.iter().for_each(|(key, record)| cells.put(key, Some(record), None));
        }
        if self.space.disk.is_some() {
            self.ask(|space, reply| Read::Sweep { space, wall, reply }).await?;
            self.space.announce(false);
        }
        Ok(true)
    }

    async fn ask<T>(
        &self,
        read: impl FnOnce(Arc<Space>, oneshot::Sender<Result<T, StateError>>) -> Read,
    ) -> Result<T, StateError> {
        let (reply, done) = oneshot::channel();
        let disk = self.space.disk.as_ref().ok_or(StateError::Unreadable)?;
        disk.door.send(read(self.space.clone(), reply)).map_err(|_| StateError::Unreadable)?;
        done.await.map_err(|_| StateError::Unreadable)?
    }
}

impl Space {
    fn new(tenant: String, node: &str, disk: Option<Disk>) -> Self {
        let cells = Cells {
            usage: disk.is_none().then(Usage::default),
            is_all: disk.is_none(),
            hlc: Hlc::default(),
            unwritten: Changes::default(),
            writing: None,
            cached: LruCache::unbounded(),
            cached_bytes: 0,
            ahead: Ahead::default(),
            asked: Asked::default(),
            accepted: 0,
            written: 0,
            announced: false,
            waiting: Vec::new(),
            swept: None,
        };
        Space {
            tenant,
            node: node.into(),
            cells: Mutex::new(cells),
            read_ahead: Mutex::default(),
            disk,
            refused: Counter::default(),
        }
    }

    pub(super) fn on_disk(tenant: &str, node: &str, store: Weak<Shared>, door: mpsc::Sender<Read>) -> Self {
        Space::new(tenant.to_owned(), node, Some(Disk { store, door }))
    }

    fn cells(&self) -> MutexGuard<'_, Cells> {
        self.cells.lock().expect("no panic under this lock")
    }

    /// Tells the store's thread that there are changes; `urgent` if somebody waits.
    /// False if the store is gone.
    fn announce(self: &Arc<Self>, urgent: bool) -> bool {
        let store = self.disk.as_ref().and_then(|disk| disk.store.upgrade());
        store.is_some_and(|store| store.changed_state(self, urgent))
    }

    /// What is to be written now.
    pub(super) fn unwritten(&self) -> Unwritten {
        let mut cells = self.cells();
        cells.announced = false;
        let mut changes = std::mem::take(&mut cells.unwritten);
        // They could not be written before.
        if let Some(again) = cells.writing.take() {
            for (key, held) in Arc::unwrap_or_clone(again) {
                changes.entry(key).or_insert(held);
            }
        }
        let changes = Arc::new(changes);
        cells.writing = Some(changes.clone());
        Unwritten { changes, usage: cells.usage.unwrap_or_default(), upto: cells.accepted }
    }

    /// These changes are on disk. True if there are others.
    pub(super) fn written(&self, unwritten: Unwritten) -> bool {
        let mut cells = self.cells();
        // First: what was read before they were written is out of date.
        cells.written = cells.written.max(unwritten.upto);
        let written = cells.written;
        for (place, (key, held)) in unwritten.changes.iter().enumerate() {
            if place > 0 && place.is_multiple_of(CACHED_AT_ONCE) {
                drop(cells);
                cells = self.cells();
            }
            if cells.ahead.get(key).is_some() {
                cells.ahead = Ahead::default();
            }
            cells.cache(key.clone(), held.clone());
        }
        cells.writing = None;
        let (done, waiting) =
            std::mem::take(&mut cells.waiting).into_iter().partition(|(change, _)| *change <= written);
        cells.waiting = waiting;
        let rest = !cells.unwritten.is_empty();
        drop(cells);
        let done: Vec<(u64, oneshot::Sender<()>)> = done;
        for (_, tx) in done {
            // Whoever waited may be gone.
            let _ = tx.send(());
        }
        rest
    }

    /// Nothing will be written any more.
    pub(super) fn close(&self) {
        drop(std::mem::take(&mut self.cells().waiting));
    }

    /// The last change that is on disk: what is read after this call and before the
    /// next change is written is what the disk has. And whether it is known how much there is.
    pub(super) fn mark(&self) -> (u64, bool) {
        let cells = self.cells();
        (cells.written, cells.usage.is_some())
    }

    pub(super) fn read_ahead(&self) -> MutexGuard<'_, ReadAhead> {
        self.read_ahead.lock().expect("no panic under this lock")
    }

    /// At `mark`, the disk had this for a key, and these behind it; `usage` is how much it
    /// had in all, if that was not known. Gives what to tell whoever asked, who asks again if
    /// it comes too late.
    pub(super) fn loaded(
        &self,
        mark: u64,
        (key, record): (Vec<u8>, Option<Record>),
        ahead: Vec<(Vec<u8>, Record)>,
        usage: Option<Usage>,
    ) -> OnDisk {
        let held = record.map(Arc::new);
        let ahead = (!ahead.is_empty()).then(|| Ahead::new(ahead));
        let mut cells = self.cells();
        if cells.written == mark {
            if let Some(usage) = usage {
                cells.usage.get_or_insert(usage);
            }
            if cells.asked.again(&key) {
                cells.cache(key, held.clone());
            }
            // What was there before is dropped by this thread, and nobody waits for it.
            let _before = ahead.map(|ahead| std::mem::replace(&mut cells.ahead, ahead));
            drop(cells);
        }
        OnDisk { mark, held }
    }

    /// At `mark`, the disk had this for a key, and it has expired.
    pub(super) fn expired(&self, mark: u64, key: &[u8], record: &Record) {
        let mut cells = self.cells();
        if cells.written == mark && !cells.is_changing(key) {
            cells.put(key, Some(record), None);
        }
    }
}

impl Cells {
    /// What is held of a key; `None` if only the disk knows.
    fn find(&mut self, key: &[u8]) -> Option<Held> {
        self.usage?;
        let writing = || self.writing.as_ref().and_then(|writing| writing.get(key));
        if let Some(held) = self.unwritten.get(key).or_else(writing) {
            return Some(held.clone());
        }
        if self.is_all {
            return Some(None);
        }
        if let Some(record) = self.ahead.get(key) {
            return Some(Some(record.clone()));
        }
        self.cached.get(key).cloned()
    }

    /// Whether nothing is known of a key but what the disk had at `mark`.
    fn is_all_there_is(&self, key: &[u8], mark: u64) -> bool {
        self.usage.is_some() && self.written == mark && !self.is_changing(key)
    }

    /// Whether the disk does not have the last of a key.
    fn is_changing(&self, key: &[u8]) -> bool {
        self.unwritten.contains_key(key)
            || self.writing.as_ref().is_some_and(|writing| writing.contains_key(key))
    }

    /// A version later than all before it.
    fn next_version(&mut self, held: Option<&Record>, wall: Duration, node: &Arc<str>) -> Version {
        if let Some(record) = held {
            let ms = record.version.time().as_millis() as u64;
            self.hlc.observe(Point { ms, counter: record.version.counter }, wall);
        }
        let Point { ms, counter } = self.hlc.tick(wall);
        let nanos = (ms % 1000) as u32 * 1_000_000;
        Version { seconds: ms / 1000, nanos, counter, node: node.clone() }
    }

    fn check_quota(
        &self,
        key: &[u8],
        held: Option<&Record>,
        value_bytes: usize,
        limits: StateLimits,
    ) -> Result<(), StateError> {
        let usage = self.usage.unwrap_or_default();
        if held.is_none() && usage.keys >= limits.keys_max {
            return Err(StateError::TooManyKeys { keys_max: limits.keys_max });
        }
        let bytes = usage.bytes - held.map_or(0, |record| bytes_of(key, record));
        let (after, before) = (bytes + (key.len() + value_bytes) as u64, usage.bytes);
        // Whoever is above a limit that was lowered may still write less.
        if after > limits.bytes_max && after > before {
            return Err(StateError::TooManyBytes { bytes_max: limits.bytes_max });
        }
        Ok(())
    }

    /// Replaces what is held of a key.
    fn put(&mut self, key: &[u8], before: Option<&Record>, record: Held) {
        let usage = self.usage.get_or_insert_default();
        if let Some(before) = before {
            usage.keys -= 1;
            usage.bytes -= bytes_of(key, before);
        }
        if let Some(record) = &record {
            usage.keys += 1;
            usage.bytes += bytes_of(key, record);
        }
        self.accepted += 1;
        if self.is_all && record.is_none() {
            self.unwritten.remove(key);
        } else {
            match self.unwritten.get_mut(key) {
                Some(before) => *before = record,
                None => _ = self.unwritten.insert(key.to_vec(), record),
            }
        }
    }

    /// Keeps what the disk has, and lets go of what was used least recently.
    fn cache(&mut self, key: Vec<u8>, held: Held) {
        let bytes = |key: &[u8], held: &Held| {
            RECORD_BYTES + held.as_ref().map_or(key.len() as u64, |record| bytes_of(key, record))
        };
        self.cached_bytes += bytes(&key, &held);
        if let Some((key, held)) = self.cached.push(key, held) {
            self.cached_bytes -= bytes(&key, &held);
        }
        // The newest is what somebody waits for.
        while self.cached_bytes > CACHE_BYTES_MAX && self.cached.len() > 1 {
            let Some((key, held)) = self.cached.pop_lru() else { break };
            self.cached_bytes -= bytes(&key, &held);
        }
    }
}

fn bytes_of(key: &[u8], record: &Record) -> u64 {
    (key.len() + record.value.len()) as u64
}

#[cfg(test)]
mod tests;
