//! `UsageLedger`: what every tenant used, by hour, for whoever pays for the machine. A
//! thread of its own reads the path's counters and has the store write totals, so that a
//! host that applies, or is busy otherwise, loses no more than any other. Reports on the
//! path; limits nothing.

mod book;
mod meter;
mod row;

use std::{
    io,
    sync::{Arc, Condvar, Mutex},
    thread::JoinHandle,
    time::Duration,
};

use serde::{Deserialize, Serialize};

pub use self::{
    book::Changes,
    row::{Hour, Row},
};
use self::{
    book::{Book, Retention},
    meter::{FlowMeter, TenantMeter},
};
use crate::{
    background,
    clock::Clock,
    deploy::chain,
    planted::{self, Bug},
    stats::DataflowStats,
    store::{Store, StoreError},
    tenant::Tenant,
};

/// Between two looks at counters and memory.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);
/// Samples in one of which the memory of a tenant that does nothing is looked at.
const SAMPLES_PER_MEASURE: usize = 10;
/// Samples until what they found is written: with them, and the time that a disk takes,
/// it is within the five seconds that docs/quotas.md gives a crash.
const SAMPLES_PER_WRITE: usize = 3;

/// Rows that are meant, in pages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Query {
    pub tenant: Option<String>,
    pub from: Hour,
    /// Without it.
    pub to: Hour,
    /// Where the page before ended.
    pub after: Option<(Hour, String)>,
}

/// Rows by hour and, within it, by tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    pub rows: Vec<(Hour, String, Row)>,
    /// Where the next page goes on, if there may be more.
    pub next: Option<(Hour, String)>,
}

/// A page as it goes over the control socket.
#[derive(Serialize, Deserialize)]
struct RawPage {
    rows: Vec<(Hour, String, [u64; Row::LEN])>,
    next: Option<(Hour, String)>,
}

impl Page {
    pub fn to_json(&self) -> serde_json::Value {
        let rows = self.rows.iter().map(|(hour, tenant, row)| (*hour, tenant.clone(), row.values()));
        let raw = RawPage { rows: rows.collect(), next: self.next.clone() };
        serde_json::to_value(raw).expect("numbers and names are JSON")
    }

    pub fn from_json(value: serde_json::Value) -> serde_json::Result<Self> {
        let RawPage { rows, next } = serde_json::from_value(value)?;
        let row = |(hour, tenant, values)| (hour, tenant, Row::from_values(values));
        Ok(Page { rows: rows.into_iter().map(row).collect(), next })
    }
}

/// The ledger of a running host. Closed, or dropped, it writes what is left.
#[derive(Debug)]
pub struct UsageLedger {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    store: Store,
    clock: Clock,
    door: Mutex<Door>,
    changed: Condvar,
    /// Held while the disk is read: whoever brings tenants does not wait for it.
    work: Mutex<Work>,
}

/// What has come since the last sample.
#[derive(Debug, Default)]
struct Door {
    tenants: Vec<TenantMeter>,
    flows: Vec<FlowMeter>,
    is_closing: bool,
}

#[derive(Debug, Default)]
struct Work {
    tenants: Vec<TenantMeter>,
    flows: Vec<FlowMeter>,
    /// Once it could be read.
    book: Option<Book>,
    samples: usize,
    /// It was said that it cannot be read.
    has_failed: bool,
}

/// Whose memory a sample looks at, besides those that did something.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    InTurn,
    All,
}

impl UsageLedger {
    pub fn start(store: Store, clock: Clock) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            store,
            clock,
            door: Mutex::default(),
            changed: Condvar::new(),
            work: Mutex::default(),
        });
        let running = shared.clone();
        let thread = background::spawn("usage", move || running.run())?;
        Ok(UsageLedger { shared, thread: Some(thread) })
    }

    /// Counts what a tenant uses from its beginning until nothing is left of it.
    pub fn watch(&self, tenant: &Arc<Tenant>) {
        let meter = TenantMeter::new(tenant, self.shared.clock.now());
        self.shared.door().tenants.push(meter);
    }

    /// The same of a dataflow.
    pub fn watch_dataflow(&self, tenant: &str, stats: &Arc<DataflowStats>) {
        self.shared.door().flows.push(FlowMeter::new(tenant, stats));
    }

    /// What reads rows, the first page as of then; for a thread that may block.
    pub fn reader(&self) -> impl FnOnce(&Query) -> Result<Page, StoreError> + Send + 'static {
        let shared = self.shared.clone();
        move |query| {
            if query.after.is_none() {
                shared.write_now()?;
            }
            shared.store.usage_page(query)
        }
    }

    /// Takes and writes all that is left: whatever counts should have ended before.
    pub fn close(&mut self) {
        self.shared.door().is_closing = true;
        self.shared.changed.notify_all();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread of the usage ledger had panicked");
        }
    }
}

impl Drop for UsageLedger {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    fn door(&self) -> std::sync::MutexGuard<'_, Door> {
        self.door.lock().expect("no panic under this lock")
    }

    fn run(&self) {
        while self.wait() {
            let mut work = self.work.lock().expect("no panic under this lock");
            if self.sample_or_say(&mut work, Which::InTurn) && work.samples.is_multiple_of(SAMPLES_PER_WRITE)
            {
                self.write(&mut work, Book::due);
            }
        }
        let mut work = self.work.lock().expect("no panic under this lock");
        if self.sample_or_say(&mut work, Which::All) {
            self.write(&mut work, Book::all);
        }
    }

    /// Until it is time for a sample; false once it is closing.
    fn wait(&self) -> bool {
        let waits = |door: &mut Door| !door.is_closing;
        let waited = self.changed.wait_timeout_while(self.door(), SAMPLE_EVERY, waits);
        !waited.expect("no panic under this lock").0.is_closing
    }

    /// All that was used up to now is on disk when this returns.
    fn write_now(&self) -> Result<(), StoreError> {
        let mut work = self.work.lock().expect("no panic under this lock");
        self.sample(&mut work, Which::All)?;
        self.write(&mut work, Book::all);
        drop(work);
        self.store.flush()
    }

    fn sample_or_say(&self, work: &mut Work, measured: Which) -> bool {
        match self.sample(work, measured) {
            Ok(()) => {
                work.has_failed = false;
                true
            }
            Err(error) => {
                if !std::mem::replace(&mut work.has_failed, true) {
                    tracing::warn!(error = %chain(&error),
                        "the usage ledger cannot be read: what tenants use is counted once it can");
                }
                false
            }
        }
    }

    /// Adds what was used since the last sample to the rows of this hour. With an error
    /// nothing is taken: the counters still have it.
    fn sample(&self, work: &mut Work, measured: Which) -> Result<(), StoreError> {
        {
            let mut door = self.door();
            work.tenants.append(&mut door.tenants);
            work.flows.append(&mut door.flows);
        }
        let (now, hour) = (self.clock.now(), Hour::of(self.clock.wall()));
        let book = match &mut work.book {
            Some(book) => book,
            none => none.insert(Book::new(self.store.usage_hours()?, Retention::default())),
        };
        if !book.is_open(hour) {
            let rows = self.store.usage_of_hour(hour)?;
            book.open(hour, if planted::is(Bug::UsageAnew) { Vec::new() } else { rows }, now);
        }
        work.samples += 1;
        let mut place = work.samples;
        work.tenants.retain_mut(|meter| {
            place += 1;
            let measures = measured == Which::All || place.is_multiple_of(SAMPLES_PER_MEASURE);
            let reading = meter.read(now, measures);
            book.add(hour, &meter.name, &reading.used, now);
            !reading.is_last
        });
        work.flows.retain_mut(|meter| {
            let reading = meter.read();
            book.add(hour, &meter.tenant, &reading.used, now);
            !reading.is_last
        });
        Ok(())
    }

    fn write(
        &self,
        work: &mut Work,
        changes: impl FnOnce(&mut Book, Hour, crate::clock::Instant) -> Changes,
    ) {
        let Some(book) = &mut work.book else { return };
        let changes = changes(book, Hour::of(self.clock.wall()), self.clock.now());
        if !changes.is_empty() {
            self.store.keep_usage(changes);
        }
    }
}

#[cfg(test)]
mod tests;
