//! Tenants' state on disk: one tree, each key below its tenant's name, with how much
//! a tenant keeps beside it. Reads on a thread of their own, writes with everything
//! else that the store flushes. Serves `KeySpace`; decides nothing.

use std::{
    ops::Bound,
    sync::{Arc, Weak, mpsc},
    time::Duration,
};

use tokio::sync::oneshot;

use super::{
    Shared, Store,
    key_space::{KeySpace, OnDisk, Read, Space, StateLimits, Unwritten, Usage},
    record::{Record, StateError},
};

// No tenant's name holds a zero byte, so that no tenant's keys can be another's.
const KEY: u8 = b'k';
const USAGE: u8 = b'u';

fn name_of(tenant: &str, kind: u8, key: &[u8]) -> Vec<u8> {
    [tenant.as_bytes(), &[0, kind], key].concat()
}

impl Store {
    /// The state of a tenant within `limits`. `node` names the host in versions.
    pub fn key_space(&self, tenant: &str, node: &str, limits: StateLimits) -> KeySpace {
        let mut spaces = self.spaces.lock().expect("no panic under this lock");
        // A tenant that was replaced leaves what it wrote to whoever follows.
        if let Some(space) = spaces.get(tenant).and_then(Weak::upgrade) {
            return KeySpace::on(space, limits);
        }
        let store = Arc::downgrade(&self.shared);
        let space = Arc::new(Space::on_disk(tenant, node, store, self.reads.clone()));
        // Seldom enough that ten thousand tenants do not look at each other each time.
        if spaces.len().is_power_of_two() {
            spaces.retain(|_, space| space.strong_count() > 0);
        }
        spaces.insert(tenant.to_owned(), Arc::downgrade(&space));
        KeySpace::on(space, limits)
    }
}

/// Requests that are read in a row before those who asked are told: each time, this thread
/// and theirs may get in each other's way.
const TOLD_TOGETHER: usize = 16;

/// The reading thread: ends with the last tenant that could ask.
pub(super) fn read_all(shared: &Weak<Shared>, reads: &mpsc::Receiver<Read>) {
    let mut done = Vec::with_capacity(TOLD_TOGETHER);
    while let Ok(first) = reads.recv() {
        let tree = shared.upgrade().and_then(|shared| shared.state_tree());
        let others = reads.try_iter().take(TOLD_TOGETHER - 1);
        for read in std::iter::once(first).chain(others) {
            // A sweep is long, and whoever came before it waits for none.
            if matches!(read, Read::Sweep { .. }) {
                done.drain(..).for_each(Answered::tell);
            }
            done.push(answer(tree.as_ref(), read));
        }
        // It holds the database's lock.
        drop(tree);
        done.drain(..).for_each(Answered::tell);
    }
}

/// What was asked for, and whom to tell.
enum Answered {
    Key(oneshot::Sender<Result<OnDisk, StateError>>, Result<OnDisk, StateError>),
    Sweep(oneshot::Sender<Result<(), StateError>>, Result<(), StateError>),
}

impl Answered {
    /// Whoever asked may be gone.
    fn tell(self) {
        match self {
            Answered::Key(reply, result) => _ = reply.send(result),
            Answered::Sweep(reply, result) => _ = reply.send(result),
        }
    }
}

fn answer(tree: Option<&sled::Tree>, read: Read) -> Answered {
    match read {
        Read::Key { space, key, reply } => {
            Answered::Key(reply, readable(tree.map(|tree| read_key(tree, &space, key))))
        }
        Read::Sweep { space, wall, reply } => {
            Answered::Sweep(reply, readable(tree.map(|tree| sweep(tree, &space, wall))))
        }
    }
}

/// Nothing can be read while the database is closed.
fn readable<T>(result: Option<sled::Result<T>>) -> Result<T, StateError> {
    match result {
        Some(Ok(value)) => Ok(value),
        Some(Err(error)) => {
            tracing::error!(%error, "a tenant's state cannot be read");
            Err(StateError::Unreadable)
        }
        None => Err(StateError::Unreadable),
    }
}

/// Most keys, and bytes of their values, that are read ahead of one.
const AHEAD_KEYS_MAX: usize = 64;
const AHEAD_BYTES_MAX: usize = 64 << 10;

/// Whether a tenant reads its keys in their order, as loops over numbered keys do: then
/// one wait serves many of them.
#[derive(Debug, Default)]
pub(super) struct ReadAhead {
    /// The key behind all that was read last, or, where nobody looked for it, the last
    /// that was asked for.
    next: Next,
    /// Keys read ahead last.
    keys: usize,
}

#[derive(Debug, Default)]
enum Next {
    #[default]
    Nothing,
    Is(Vec<u8>),
    Behind(Vec<u8>),
}

impl ReadAhead {
    /// How many keys to read behind this one: none unless it was to be expected, then
    /// more and more. Looking for the key behind another costs as much as the read itself,
    /// so that it is done only for keys that look like the last one's neighbours.
    fn keys_behind(
        &mut self,
        key: &[u8],
        is_behind: impl FnOnce(&[u8]) -> sled::Result<bool>,
    ) -> sled::Result<usize> {
        self.keys = match std::mem::take(&mut self.next) {
            Next::Is(next) if next == key => (self.keys * 2).clamp(4, AHEAD_KEYS_MAX),
            Next::Behind(last) if is_near(&last, key) && is_behind(&last)? => 4,
            _ => 0,
        };
        if self.keys == 0 {
            self.next = Next::Behind(key.to_vec());
        }
        Ok(self.keys)
    }
}

/// Whether a key may well be the next after another: a number that is a little greater.
fn is_near(last: &[u8], key: &[u8]) -> bool {
    let same = last.iter().zip(key).take_while(|(last, key)| last == key).count();
    last < key && same > 0 && same + 2 >= last.len().max(key.len())
}

fn read_key(tree: &sled::Tree, space: &Space, key: Vec<u8>) -> sled::Result<OnDisk> {
    let (mark, knows_usage) = space.mark();
    let usage = match knows_usage {
        true => None,
        false => match tree.get(name_of(&space.tenant, USAGE, &[]))? {
            Some(bytes) => Some(Usage::from_bytes(&bytes)),
            None => Some(Usage::default()),
        },
    };
    let name = name_of(&space.tenant, KEY, &key);
    let record = tree.get(&name)?;
    let record = record.map(|bytes| parse(space, &bytes)).transpose()?;
    let mut read_ahead = space.read_ahead();
    let is_behind = |last: &[u8]| {
        let behind = tree.get_gt(name_of(&space.tenant, KEY, last))?;
        Ok(behind.is_some_and(|(behind, _)| *behind == *name))
    };
    let (mut left, mut bytes) = (read_ahead.keys_behind(&key, is_behind)?, 0);
    let prefix = name.len() - key.len();
    let mut ahead = Vec::with_capacity(left);
    if left == 0 {
        drop(read_ahead);
        return Ok(space.loaded(mark, (key, record), ahead, usage));
    }
    for entry in tree.range::<&[u8], _>((Bound::Excluded(name.as_slice()), Bound::Unbounded)) {
        let (behind, value) = entry?;
        let Some(behind) = behind.strip_prefix(&name[..prefix]) else { break };
        bytes += value.len();
        if left == 0 || bytes > AHEAD_BYTES_MAX {
            read_ahead.next = Next::Is(behind.to_vec());
            break;
        }
        left -= 1;
        ahead.push((behind.to_vec(), parse(space, &value)?));
    }
    drop(read_ahead);
    Ok(space.loaded(mark, (key, record), ahead, usage))
}

fn parse(space: &Space, bytes: &[u8]) -> sled::Result<Record> {
    Record::from_bytes(bytes, &space.node)
        .ok_or_else(|| sled::Error::Unsupported("a record is damaged".into()))
}

fn sweep(tree: &sled::Tree, space: &Space, wall: Duration) -> sled::Result<()> {
    let prefix = name_of(&space.tenant, KEY, &[]);
    for entry in tree.scan_prefix(&prefix) {
        let (name, bytes) = entry?;
        if parse(space, &bytes)?.is_live(wall) {
            continue;
        }
        // It may have been written anew since the scan began.
        let (mark, _) = space.mark();
        let Some(bytes) = tree.get(&name)? else { continue };
        let record = parse(space, &bytes)?;
        if !record.is_live(wall) {
            space.expired(mark, &name[prefix.len()..], &record);
        }
    }
    Ok(())
}

impl Unwritten {
    /// Writes one tenant's changes, all or none.
    pub(super) fn write(&self, tree: &sled::Tree, space: &Space) -> sled::Result<()> {
        let tenant = &space.tenant;
        let mut batch = sled::Batch::default();
        for (key, record) in self.changes.iter() {
            let name = name_of(tenant, KEY, key);
            match record {
                Some(record) => batch.insert(name, record.to_bytes(&space.node)),
                None => batch.remove(name),
            }
        }
        batch.insert(name_of(tenant, USAGE, &[]), &self.usage.to_bytes());
        tree.apply_batch(batch)
    }
}

impl Usage {
    fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.keys.to_le_bytes());
        bytes[8..].copy_from_slice(&self.bytes.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Self {
        let number = |at: usize| {
            let bytes = bytes.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
            bytes.map_or(0, u64::from_le_bytes)
        };
        Usage { keys: number(0), bytes: number(8) }
    }
}
