//! Open windows on disk: what each dataflow's accumulates and delays hold, in one tree
//! with the dataflow's name before each key. Serves `WindowSpace`; decides nothing and
//! does not know what a window is.

use std::sync::{Arc, Mutex, Weak};

use super::{Shared, Store, StoreError};

/// Called once changes are on disk.
type Done = Box<dyn FnOnce() + Send>;

/// The windows of one dataflow, on disk or nowhere.
#[derive(Clone, Debug)]
pub struct WindowSpace {
    disk: Option<Disk>,
    /// What was there, until somebody takes it up.
    kept: Arc<Mutex<Records>>,
}

/// Keys and values, in the order of keys.
type Records = Vec<(Vec<u8>, Vec<u8>)>;

#[derive(Clone, Debug)]
struct Disk {
    /// `tenant/dataflow`.
    dataflow: Arc<str>,
    store: Weak<Shared>,
}

/// Changes of one dataflow that come into force together.
pub(super) struct Commit {
    batch: sled::Batch,
    done: Done,
}

impl std::fmt::Debug for Commit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Commit").finish_non_exhaustive()
    }
}

impl Store {
    /// The windows of `tenant/dataflow`, with all that was committed. Waits for the
    /// disk.
    pub fn window_space(&self, dataflow: &str) -> Result<WindowSpace, StoreError> {
        let disk = Disk { dataflow: dataflow.into(), store: Arc::downgrade(&self.shared) };
        let prefix = disk.prefix();
        let kept = self.with(|database| {
            self.shared.write_behind(database)?;
            let records = database.windows.scan_prefix(&prefix);
            records
                .map(|record| record.map(|(key, value)| (key[prefix.len()..].to_vec(), value.to_vec())))
                .collect()
        })?;
        Ok(WindowSpace { disk: Some(disk), kept: Arc::new(Mutex::new(kept)) })
    }

    /// The dataflow will not come again.
    pub fn forget_windows(&self, dataflow: &str) -> Result<(), StoreError> {
        let space = self.window_space(dataflow)?;
        let changes: Vec<_> = space.take_kept().into_iter().map(|(key, _)| (key, None)).collect();
        if !changes.is_empty() {
            space.commit(changes, || {});
        }
        Ok(())
    }
}

impl WindowSpace {
    /// Nothing outlasts the process.
    pub fn memory() -> Self {
        WindowSpace { disk: None, kept: Arc::default() }
    }

    /// What an earlier run has left. Once.
    pub fn take_kept(&self) -> Records {
        std::mem::take(&mut self.kept.lock().expect("no panic under this lock"))
    }

    /// Changes keys to these values, or removes them, all at once and after all that
    /// was committed before. `done` is called when they are on disk, soon.
    pub fn commit(&self, changes: Vec<(Vec<u8>, Option<Vec<u8>>)>, done: impl FnOnce() + Send + 'static) {
        self.write(changes, true, done);
    }

    /// The same where nothing waits for it but what may be delivered again.
    pub fn commit_behind(
        &self,
        changes: Vec<(Vec<u8>, Option<Vec<u8>>)>,
        done: impl FnOnce() + Send + 'static,
    ) {
        self.write(changes, false, done);
    }

    fn write(
        &self,
        changes: Vec<(Vec<u8>, Option<Vec<u8>>)>,
        urgent: bool,
        done: impl FnOnce() + Send + 'static,
    ) {
        let Some(disk) = &self.disk else { return done() };
        let prefix = disk.prefix();
        let mut batch = sled::Batch::default();
        for (key, value) in changes {
            let key = [prefix.as_slice(), &key].concat();
            match value {
                Some(value) => batch.insert(key, value),
                None => batch.remove(key),
            }
        }
        // A store that is gone writes nothing more; its sources will deliver again.
        if let Some(store) = disk.store.upgrade() {
            let mut state = store.state();
            state.commits.push_back(Commit { batch, done: Box::new(done) });
            state.urgent |= urgent;
            drop(state);
            store.changed.notify_all();
        }
    }
}

impl Disk {
    /// No name holds a zero byte, so that no dataflow's keys can be another's.
    fn prefix(&self) -> Vec<u8> {
        [self.dataflow.as_bytes(), &[0]].concat()
    }
}

impl Shared {
    /// Writes what is committed, in order; gives what to call once it is flushed. What
    /// could not be written waits for the next attempt.
    pub(super) fn write_commits(&self, windows: &sled::Tree) -> sled::Result<Vec<Commit>> {
        let commits = std::mem::take(&mut self.state().commits);
        for commit in &commits {
            if let Err(error) = windows.apply_batch(commit.batch.clone()) {
                self.again(commits.into());
                return Err(error);
            }
        }
        Ok(commits.into())
    }

    /// These were not flushed: before all others when there is another attempt.
    pub(super) fn again(&self, commits: Vec<Commit>) {
        let mut state = self.state();
        for commit in commits.into_iter().rev() {
            state.commits.push_front(commit);
        }
    }

    pub(super) fn committed(commits: Vec<Commit>) {
        commits.into_iter().for_each(|commit| (commit.done)());
    }
}
