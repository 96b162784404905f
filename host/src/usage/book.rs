//! `Book`: the rows that may still grow, in memory, and which of them are to be written.
//! Decides for the ledger; knows neither clock nor disk.
//!
//! ```text
//!             add, nothing but memory            add
//!  written ───────────────────────────► held ─────────► used
//!     ▲  └──────────────── add ──────────┼────────────────▲
//!     └────── due, now and then ─────────┘                │
//!     └────────────────── due, each time ─────────────────┘
//! ```

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use super::row::{Hour, Row};
use crate::clock::Instant;

/// How often a row is written that only memory adds to: ten thousand idle tenants are
/// 33 rows a second.
pub const HELD_WRITTEN_EVERY: Duration = Duration::from_secs(300);
/// Most such rows that are written at once, so that nobody who waits for the disk waits
/// for them.
const HELD_ROWS_MAX: usize = 500;
/// Hours with any usage that are kept. Hours of a clock that jumped are as good as any
/// other, so that a jump costs as many old hours as it has brought new ones.
pub const HOURS_MAX: usize = 400 * 24;
/// Most rows kept of all hours, each of about 100 bytes.
pub const ROWS_MAX: u64 = 10_000_000;

/// Rows as they are to be on disk: totals, so that writing them twice is writing them once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    pub rows: Vec<(Hour, Arc<str>, Row)>,
    /// How many rows these hours have.
    pub counts: Vec<(Hour, u32)>,
    /// Hours whose rows go, before those above are written.
    pub gone: Vec<Hour>,
}

impl Changes {
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.gone.is_empty()
    }
}

/// How much is kept.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    pub hours_max: usize,
    pub rows_max: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Retention { hours_max: HOURS_MAX, rows_max: ROWS_MAX }
    }
}

#[derive(Debug)]
pub struct Book {
    retention: Retention,
    /// Rows of every hour, written or not.
    counts: BTreeMap<Hour, u32>,
    rows: u64,
    /// Hours whose rows are all in memory.
    open: BTreeMap<Hour, HashMap<Arc<str>, Entry>>,
}

#[derive(Debug)]
struct Entry {
    row: Row,
    state: State,
    written: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    /// As it is on disk, or as it was given to whoever writes it.
    Written,
    /// Only memory was added.
    Held,
    Used,
}

impl Book {
    /// Of what is on disk.
    pub fn new(counts: BTreeMap<Hour, u32>, retention: Retention) -> Self {
        let rows = counts.values().map(|count| u64::from(*count)).sum();
        Book { retention, counts, rows, open: BTreeMap::new() }
    }

    pub fn is_open(&self, hour: Hour) -> bool {
        self.open.contains_key(&hour)
    }

    /// From here on rows of this hour may grow; `rows` are those that are there.
    pub fn open(&mut self, hour: Hour, rows: Vec<(String, Row)>, now: Instant) {
        let entry = |(tenant, row): (String, Row)| {
            (Arc::from(tenant), Entry { row, state: State::Written, written: now })
        };
        let entries: HashMap<_, _> = rows.into_iter().map(entry).collect();
        // A host that was killed may have left a row that its count does not know.
        self.set_count(hour, entries.len() as u32);
        self.open.insert(hour, entries);
    }

    /// Adds to a row of an hour that is open.
    pub fn add(&mut self, hour: Hour, tenant: &Arc<str>, used: &Row, now: Instant) {
        if used.is_empty() {
            return;
        }
        let entries = self.open.get_mut(&hour).expect("the hour was opened");
        let state = if used.is_memory_alone() { State::Held } else { State::Used };
        if let Some(entry) = entries.get_mut(tenant) {
            entry.row.add(used);
            entry.state = entry.state.max(state);
            return;
        }
        entries.insert(tenant.clone(), Entry { row: *used, state, written: now });
        let count = entries.len() as u32;
        self.set_count(hour, count);
    }

    /// What is to be written now, and counts as written from here on. Hours before
    /// `current` are closed once all of them is.
    pub fn due(&mut self, current: Hour, now: Instant) -> Changes {
        let mut held_left = HELD_ROWS_MAX;
        self.take(current, now, |hour, entry| match entry.state {
            State::Written => false,
            State::Used => true,
            State::Held => {
                let is_due = hour != current || now.since(entry.written) >= HELD_WRITTEN_EVERY;
                let takes = is_due && held_left > 0;
                held_left -= usize::from(takes);
                takes
            }
        })
    }

    /// All that is not written.
    pub fn all(&mut self, current: Hour, now: Instant) -> Changes {
        self.take(current, now, |_, entry| entry.state != State::Written)
    }

    fn take(&mut self, current: Hour, now: Instant, mut takes: impl FnMut(Hour, &Entry) -> bool) -> Changes {
        let mut changes = Changes::default();
        for (hour, entries) in &mut self.open {
            let before = changes.rows.len();
            for (tenant, entry) in entries {
                if takes(*hour, entry) {
                    (entry.state, entry.written) = (State::Written, now);
                    changes.rows.push((*hour, tenant.clone(), entry.row));
                }
            }
            if changes.rows.len() > before {
                changes.counts.push((*hour, self.counts[hour]));
            }
        }
        let is_written = |entries: &HashMap<_, Entry>| entries.values().all(|it| it.state == State::Written);
        self.open.retain(|hour, entries| *hour == current || !is_written(entries));
        self.retire(&mut changes);
        changes
    }

    /// The oldest go once there are too many; what is open stays.
    fn retire(&mut self, changes: &mut Changes) {
        let Retention { hours_max, rows_max } = self.retention;
        while self.counts.len() > hours_max || self.rows > rows_max {
            let Some(oldest) = self.counts.keys().copied().find(|hour| !self.is_open(*hour)) else { return };
            changes.rows.retain(|(hour, ..)| *hour != oldest);
            changes.counts.retain(|(hour, _)| *hour != oldest);
            changes.gone.push(oldest);
            self.rows -= u64::from(self.counts.remove(&oldest).unwrap_or_default());
        }
    }

    fn set_count(&mut self, hour: Hour, count: u32) {
        let before = match count {
            0 => self.counts.remove(&hour),
            count => self.counts.insert(hour, count),
        };
        self.rows = self.rows + u64::from(count) - u64::from(before.unwrap_or_default());
    }
}

#[cfg(test)]
mod tests;
