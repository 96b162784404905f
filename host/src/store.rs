//! `Store`: what a host keeps across restarts, in sled: its name, the resources that
//! were applied last, how far file sources were settled, tenants' state, open windows, what
//! tenants used. All but what is applied, which is on disk when that returns, is written
//! behind by a thread of the store's own. An I/O error closes the database, which is opened
//! again until that succeeds.

mod applied;
mod blobs;
mod kept_state;
mod key_space;
mod leave;
mod position;
mod record;
mod usage;
mod windows;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, Weak, mpsc},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use self::{
    applied::Manifest,
    blobs::Blobs,
    kept_state::read_all,
    key_space::{Read, Space},
    leave::Left,
    windows::Commit,
};
pub use self::{
    applied::{AppliedError, Leftovers, Snapshot, Staged},
    key_space::{Answer, KeySpace, Set, StateLimits, Usage},
    position::{Head, Position},
    record::{Condition, Record, StateError, Version},
    windows::WindowSpace,
};

/// Most memory for sled's cache.
const CACHE_BYTES: u64 = 64 << 20;
/// How long positions gather before they are written and flushed together.
const WRITE_EVERY: Duration = Duration::from_millis(50);
/// How long changes gather once somebody waits for them to be on disk.
const GATHER: Duration = Duration::from_millis(2);
/// How long a database that was closed may still be locked: sled ends its work in the
/// background.
const LOCKED_MAX: Duration = Duration::from_secs(1);
const LOCKED_LOOK_EVERY: Duration = Duration::from_millis(5);
/// Between attempts to open the database again.
const REOPEN_AFTER: Duration = Duration::from_millis(100);
const REOPEN_AFTER_MAX: Duration = Duration::from_secs(10);

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("cannot use the store {}", path.display())]
    Database { path: PathBuf, source: sled::Error },
    #[error("cannot start the store's thread")]
    Thread(#[source] std::io::Error),
}

/// A database that failed closes within this, or never.
const CLOSES_WITHIN: Duration = Duration::from_secs(10);

/// Before the name of a dataflow that is in quarantine.
const QUARANTINE: &str = "quarantine/";
const FUEL_PER_SECOND: &str = "fuel-per-cpu-second";

/// Clones share one store; it is closed when the last is dropped.
#[derive(Clone, Debug)]
pub struct Store {
    shared: Arc<Shared>,
    /// Tenants' state that somebody has a hand on.
    spaces: Arc<Mutex<BTreeMap<String, Weak<Space>>>>,
    reads: mpsc::Sender<Read>,
    /// What this run has applied last.
    applied: Arc<Mutex<Option<Manifest>>>,
    /// Components on disk.
    blobs: Arc<Mutex<Blobs>>,
    _closer: Arc<Closer>,
}

#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    /// `None` between an error and the next successful attempt.
    database: Mutex<Option<Database>>,
    /// The tree of tenants' state while the database is open: reading does not wait
    /// for a flush.
    state_tree: Mutex<Option<sled::Tree>>,
    /// Never held while the database is used, so that no source waits for the disk.
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct Database {
    db: sled::Db,
    positions: sled::Tree,
    files: sled::Tree,
    /// What is applied, by path.
    applied: sled::Tree,
    meta: sled::Tree,
    state: sled::Tree,
    windows: sled::Tree,
    usage: sled::Tree,
}

#[derive(Debug, Default)]
struct State {
    /// All positions, written or not.
    positions: BTreeMap<String, Position>,
    /// Sources whose position is to be written, or removed.
    unwritten: BTreeSet<String>,
    /// Tenants' state that has changes to be written.
    changed: BTreeMap<String, Arc<Space>>,
    /// Changes of windows that are to be written, in this order.
    commits: VecDeque<Commit>,
    /// What tenants used, to be written.
    usage: usage::Unwritten,
    /// Somebody waits for these changes.
    urgent: bool,
    /// Why the database is closed.
    failure: Option<String>,
    /// The one before, if it is not closed and keeps its files locked.
    left: Option<Left>,
    closing: bool,
}

/// Ends the thread with the last clone of the store.
#[derive(Debug)]
struct Closer {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for Closer {
    fn drop(&mut self) {
        self.shared.state().closing = true;
        self.shared.changed.notify_all();
        let thread = self.thread.lock().expect("no panic under this lock").take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the store's thread had panicked");
        }
    }
}

impl Store {
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let error = |source| StoreError::Database { path: dir.to_owned(), source };
        leave::go_on(dir).map_err(|source| error(source.into()))?;
        let database = Database::open(dir).map_err(error)?;
        let positions = database.read_positions().map_err(error)?;
        let shared = Arc::new(Shared {
            dir: dir.to_owned(),
            state_tree: Mutex::new(Some(database.state.clone())),
            database: Mutex::new(Some(database)),
            state: Mutex::new(State { positions, ..State::default() }),
            changed: Condvar::new(),
        });
        let writing = shared.clone();
        let writer = crate::background::spawn("store", move || writing.run());
        let thread = writer.map_err(StoreError::Thread)?;
        let closer = Closer { shared: shared.clone(), thread: Mutex::new(Some(thread)) };
        let (reads, asked) = mpsc::channel();
        let reading = Arc::downgrade(&shared);
        std::thread::Builder::new()
            .name("store-read".into())
            .spawn(move || read_all(&reading, &asked))
            .map_err(StoreError::Thread)?;
        Ok(Store {
            shared,
            spaces: Arc::default(),
            reads,
            applied: Arc::default(),
            blobs: Arc::default(),
            _closer: Arc::new(closer),
        })
    }

    /// How far the file of a source (`tenant/dataflow/node`) was settled.
    pub fn position(&self, source: &str) -> Position {
        self.shared.state().positions.get(source).copied().unwrap_or_default()
    }

    /// Written soon; a crash before costs lines delivered again, never lines lost.
    pub fn set_position(&self, source: &str, position: Position) {
        let mut state = self.shared.state();
        state.positions.insert(source.to_owned(), position);
        state.unwritten.insert(source.to_owned());
        drop(state);
        self.shared.changed.notify_all();
    }

    /// The source will not come again.
    pub fn forget_position(&self, source: &str) {
        let mut state = self.shared.state();
        if state.positions.remove(source).is_some() {
            state.unwritten.insert(source.to_owned());
            drop(state);
            self.shared.changed.notify_all();
        }
    }

    /// Why nothing can be kept at the moment.
    pub fn failure(&self) -> Option<String> {
        self.shared.state().failure.clone()
    }

    /// The host's name, drawn the first time.
    pub fn host_name(&self, draw: impl Fn() -> String) -> Result<String, StoreError> {
        self.with(|database| {
            if let Some(name) = database.meta.get("host-name")? {
                return Ok(String::from_utf8_lossy(&name).into_owned());
            }
            let name = draw();
            database.meta.insert("host-name", name.as_bytes())?;
            database.db.flush()?;
            Ok(name)
        })
    }

    /// Fuel a second of CPU time on this machine, once that was measured.
    pub fn fuel_per_second(&self) -> Result<Option<u64>, StoreError> {
        self.with(|database| {
            let kept = database.meta.get(FUEL_PER_SECOND)?;
            Ok(kept.and_then(|bytes| Some(u64::from_le_bytes(bytes.as_ref().try_into().ok()?))))
        })
    }

    pub fn keep_fuel_per_second(&self, fuel: u64) -> Result<(), StoreError> {
        self.with(|database| {
            database.meta.insert(FUEL_PER_SECOND, &fuel.to_le_bytes())?;
            database.db.flush().map(drop)
        })
    }

    /// Dataflows in quarantine, and why.
    pub fn quarantined(&self) -> Result<BTreeMap<String, String>, StoreError> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        self.with(|database| {
            let entries = database.meta.scan_prefix(QUARANTINE).map(|entry| {
                let (name, cause) = entry?;
                Ok((text(&name[QUARANTINE.len()..]), text(&cause)))
            });
            entries.collect()
        })
    }

    /// Keeps that a dataflow is in quarantine, or that it is not any more.
    pub fn set_quarantine(&self, dataflow: &str, cause: Option<&str>) -> Result<(), StoreError> {
        self.with(|database| {
            let name = [QUARANTINE, dataflow].concat();
            match cause {
                Some(cause) => database.meta.insert(name, cause.as_bytes())?,
                None => database.meta.remove(name)?,
            };
            database.db.flush().map(drop)
        })
    }

    /// Every position and all state are on disk when this returns.
    pub fn flush(&self) -> Result<(), StoreError> {
        self.with(|database| self.shared.write_behind(database))
    }

    /// Uses the database, which is opened once more if it fails.
    fn with<T>(&self, run: impl Fn(&Database) -> sled::Result<T>) -> Result<T, StoreError> {
        let mut database = self.shared.database.lock().expect("no panic under this lock");
        let error = match self.shared.try_once(&mut database, &run) {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        tracing::warn!(%error, "the store failed, opening it again");
        self.shared.try_once(&mut database, &run).map_err(|source| {
            self.shared.failed(&source);
            StoreError::Database { path: self.shared.dir.clone(), source }
        })
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic under this lock")
    }

    /// sled keeps an I/O error until it is opened anew, so it is closed after one.
    fn try_once<T>(
        &self,
        database: &mut Option<Database>,
        run: impl Fn(&Database) -> sled::Result<T>,
    ) -> sled::Result<T> {
        let open = match database.take() {
            Some(open) => open,
            None => {
                let left = self.state().left;
                if let Some(left) = left {
                    left.may_go_on(&self.dir)?;
                    leave::leave_behind(&self.dir)?;
                    self.state().left = None;
                }
                let open = Database::open(&self.dir)?;
                *self.tree() = Some(open.state.clone());
                open
            }
        };
        let result = run(&open).and_then(|value| {
            if self.state().failure.is_some() {
                // It works again only with all that waited for it.
                self.write_behind(&open)?;
                self.state().failure = None;
                tracing::info!("the store works again");
            }
            Ok(value)
        });
        match &result {
            Ok(_) => *database = Some(open),
            Err(error) => self.give_up(open, error),
        }
        result
    }

    /// Closes a database after an error, unless that might take for ever.
    fn give_up(&self, database: Database, error: &sled::Error) {
        // It would hold the database's lock.
        let tree = self.tree().take();
        if !database.knows_its_error() {
            std::mem::forget((tree, database));
            return self.leave(error);
        }
        let (closed, is_closed) = mpsc::channel();
        let closing = move || {
            drop((tree, database));
            let _ = closed.send(());
        };
        let thread = std::thread::Builder::new().name("store-close".into()).spawn(closing);
        if thread.is_err() || is_closed.recv_timeout(CLOSES_WITHIN).is_err() {
            self.leave(error);
        }
    }

    fn leave(&self, error: &sled::Error) {
        tracing::error!(%error, "the failed store does not close: it goes on in new files, with what is on disk");
        self.state().left = Some(Left::after(error, &self.dir));
    }

    fn tree(&self) -> MutexGuard<'_, Option<sled::Tree>> {
        self.state_tree.lock().expect("no panic under this lock")
    }

    /// The tree of tenants' state, unless the database is closed. Not to be kept.
    fn state_tree(&self) -> Option<sled::Tree> {
        self.tree().clone()
    }

    /// A tenant's state has changes; `urgent` if somebody waits for them.
    /// False if the last write may have been.
    fn changed_state(&self, space: &Arc<Space>, urgent: bool) -> bool {
        let mut state = self.state();
        if state.closing {
            return false;
        }
        let mut is_news = urgent && !state.urgent;
        state.urgent |= urgent;
        if !state.changed.contains_key(&space.tenant) {
            state.changed.insert(space.tenant.clone(), space.clone());
            is_news = true;
        }
        drop(state);
        // The thread would wake to find that it knows.
        if is_news {
            self.changed.notify_all();
        }
        true
    }

    fn failed(&self, error: &sled::Error) {
        self.state().failure = Some(error.to_string());
        self.changed.notify_all();
    }

    /// The thread: writes positions as they come, and opens the database again after
    /// an error, until the store is closed.
    fn run(&self) {
        let mut wait = REOPEN_AFTER;
        while self.wait_for_work() {
            let result = {
                let mut database = self.database.lock().expect("no panic under this lock");
                self.try_once(&mut database, |database| self.write_behind(database))
            };
            match result {
                Ok(()) => {
                    wait = REOPEN_AFTER;
                    self.gather();
                }
                Err(error) => {
                    let since = self.failure_begins(&error);
                    if since {
                        tracing::error!(%error, dir = %self.dir.display(),
                            "the store cannot be written: positions are kept in memory and tried again");
                    }
                    self.pause(wait);
                    wait = (wait * 2).min(REOPEN_AFTER_MAX);
                }
            }
            if self.state().closing {
                return self.close();
            }
        }
        self.close();
    }

    /// Whether this error is the first of a row.
    fn failure_begins(&self, error: &sled::Error) -> bool {
        self.state().failure.replace(error.to_string()).is_none()
    }

    /// False once the store is closing.
    fn wait_for_work(&self) -> bool {
        let mut state = self.state();
        while !state.closing
            && state.unwritten.is_empty()
            && state.changed.is_empty()
            && state.commits.is_empty()
            && state.usage.is_empty()
            && state.failure.is_none()
        {
            state = self.changed.wait(state).expect("no panic under this lock");
        }
        !state.closing
    }

    /// Lets changes gather, for less long once somebody waits for them.
    fn gather(&self) {
        let calm = |state: &mut State| !state.closing && !state.urgent;
        let state = self.state();
        let waited = self.changed.wait_timeout_while(state, WRITE_EVERY, calm);
        let (state, timeout) = waited.expect("no panic under this lock");
        let urgent = state.urgent;
        drop(state);
        if urgent && !timeout.timed_out() {
            self.pause(GATHER);
        }
    }

    fn pause(&self, time: Duration) {
        let state = self.state();
        let closing = |state: &mut State| !state.closing;
        drop(self.changed.wait_timeout_while(state, time, closing).expect("no panic under this lock"));
    }

    /// The last attempt, then nothing holds the database's lock any more.
    fn close(&self) {
        let mut database = self.database.lock().expect("no panic under this lock");
        if let Err(error) = self.try_once(&mut database, |database| self.write_behind(database)) {
            tracing::error!(%error, dir = %self.dir.display(),
                "positions of files are lost: their last lines are delivered again");
        }
        *self.tree() = None;
        *database = None;
        let changed = std::mem::take(&mut self.state().changed);
        for (tenant, space) in changed {
            tracing::error!(tenant, "the last changes of its state are lost");
            space.close();
        }
    }

    /// Writes tenants' state and windows, then positions, which may depend on them. On disk when
    /// this returns; after an error it is still to be written.
    fn write_behind(&self, database: &Database) -> sled::Result<()> {
        let changed: Vec<_> = {
            let mut state = self.state();
            state.urgent = false;
            state.changed.values().cloned().collect()
        };
        let mut written = Vec::with_capacity(changed.len());
        for space in changed {
            let unwritten = space.unwritten();
            unwritten.write(&database.state, &space)?;
            written.push((space, unwritten));
        }
        let usage = self.write_usage(&database.usage)?;
        let commits = self.write_commits(&database.windows)?;
        if let Err(error) = self.write_positions(database) {
            self.again(commits);
            return Err(error);
        }
        Self::committed(commits);
        self.usage_written(usage);
        for (space, unwritten) in written {
            // Shards take this lock, and what follows is long. Changes that come meanwhile put
            // it back by themselves, unless they were announced before.
            self.state().changed.remove(&space.tenant);
            if space.written(unwritten) {
                self.state().changed.entry(space.tenant.clone()).or_insert(space);
                self.changed.notify_all();
            }
        }
        Ok(())
    }

    /// Writes what is not written yet; on disk when this returns. After an error it
    /// is still to be written.
    fn write_positions(&self, database: &Database) -> sled::Result<()> {
        let unwritten: Vec<_> = {
            let state = self.state();
            let of = |source: &String| (source.clone(), state.positions.get(source).copied());
            state.unwritten.iter().map(of).collect()
        };
        for (source, position) in &unwritten {
            match position {
                Some(position) => database.positions.insert(source, &position.to_bytes())?,
                None => database.positions.remove(source)?,
            };
        }
        database.db.flush()?;
        let mut state = self.state();
        for (source, position) in unwritten {
            // It may have moved on meanwhile.
            if state.positions.get(&source).copied() == position {
                state.unwritten.remove(&source);
            }
        }
        Ok(())
    }
}

/// A full disk or a kill leaves a snapshot that sled was writing and had not renamed yet. sled 0.34 takes
/// it for the latest one, finds it corrupt, and does not open any more. The one before is still there.
fn remove_half_snapshots(dir: &Path) -> std::io::Result<()> {
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            tracing::warn!(file = %entry.path().display(), "a snapshot that was not finished is removed");
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Whether another has the database open. sled gives the kind of error a text alone.
fn is_locked(error: &std::io::Error) -> bool {
    error.to_string().contains("could not acquire lock")
}

impl Database {
    /// Whether closing ends after an error. sled 0.34 remembers most errors, and then nobody waits
    /// for what will never be on disk. But of a value so large that it gets a file of its own, which
    /// could not be written, it forgets the error and not the place that it has taken in the log:
    /// whoever flushes waits for ever, and holds a lock that all databases of the process share.
    fn knows_its_error(&self) -> bool {
        self.meta.insert("probe", &[]).is_err()
    }

    fn open(dir: &Path) -> sled::Result<Self> {
        // Flushed by the store itself, whose errors somebody hears of.
        let config = sled::Config::new().path(dir).cache_capacity(CACHE_BYTES).flush_every_ms(None);
        let until = Instant::now() + LOCKED_MAX;
        let db = loop {
            remove_half_snapshots(dir)?;
            match config.open() {
                Err(sled::Error::Io(error)) if is_locked(&error) && Instant::now() < until => {
                    std::thread::sleep(LOCKED_LOOK_EVERY);
                }
                opened => break opened?,
            }
        };
        Ok(Database {
            positions: db.open_tree("positions")?,
            files: db.open_tree("files")?,
            applied: db.open_tree("applied")?,
            meta: db.open_tree("meta")?,
            // Records in another form than these were in `state`.
            state: db.open_tree("state-2")?,
            windows: db.open_tree("windows")?,
            usage: db.open_tree("usage")?,
            db,
        })
    }

    fn read_positions(&self) -> sled::Result<BTreeMap<String, Position>> {
        let mut positions = BTreeMap::new();
        for entry in &self.positions {
            let (source, bytes) = entry?;
            positions.insert(String::from_utf8_lossy(&source).into_owned(), Position::from_bytes(&bytes));
        }
        Ok(positions)
    }
}

#[cfg(test)]
mod tests;
