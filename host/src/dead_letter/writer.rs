//! The thread that keeps dead letters: writes them, removes them, and holds tenants to
//! their limits. Behind the doors of shards and commands; the one owner of the archive.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant, SystemTime},
};

use super::{
    Archive, DeadLetter, DeadLetterLimits, Kept, Order, Record, Submission,
    archive::{Letter, Trimmed},
};
use crate::write::Confirmed;

/// Between two attempts to write.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// Letters that are too old are looked for as often, at least and at most.
const SWEEP_AFTER_MIN: Duration = Duration::from_secs(1);
const SWEEP_AFTER_MAX: Duration = Duration::from_secs(60);
/// Submissions that are written together.
const TOGETHER_MAX: usize = 256;
/// Submissions that are taken while none can be written.
const WAITING_MAX: usize = 4096;

pub(super) struct Writer {
    archive: Archive,
    newest: Arc<AtomicU64>,
    governed: HashMap<String, (DeadLetterLimits, Arc<Kept>)>,
    /// Letters that are on their way through their dataflow again, and whether they
    /// were given up there.
    replayed: HashMap<u64, bool>,
    /// What is not begun yet.
    waiting: VecDeque<Submission>,
    work: Option<Work>,
    /// Work could not be done, and is tried again then.
    retry_at: Option<Instant>,
    sweep_at: Instant,
}

/// What is written together.
struct Work {
    submissions: Vec<Submission>,
    /// Those not on disk yet.
    letters: Vec<Letter>,
    /// Letters whose place these take.
    replaced: Vec<u64>,
    tenants: BTreeSet<String>,
}

impl Writer {
    pub fn new(archive: Archive, newest: Arc<AtomicU64>) -> Self {
        Writer {
            archive,
            newest,
            governed: HashMap::new(),
            replayed: HashMap::new(),
            waiting: VecDeque::new(),
            work: None,
            retry_at: None,
            sweep_at: Instant::now() + SWEEP_AFTER_MAX,
        }
    }

    /// Until the last door is dropped and all is written.
    pub fn run(mut self, orders: &Receiver<Order>) {
        loop {
            let has_ended = self.take_orders(orders);
            if self.retry_at.is_none_or(|at| at <= Instant::now()) {
                self.retry_at = None;
                self.write();
            }
            if has_ended && self.work.is_none() && self.waiting.is_empty() {
                return;
            }
            if self.sweep_at <= Instant::now() {
                self.sweep();
            }
        }
    }

    /// Takes what there is, and waits for it if there is nothing to do. True once nothing
    /// comes any more.
    fn take_orders(&mut self, orders: &Receiver<Order>) -> bool {
        // Beside what cannot be written, commands must come through: they may free the disk.
        let waiting_max = if self.retry_at.is_some() { WAITING_MAX } else { TOGETHER_MAX };
        loop {
            let now = Instant::now();
            let until = self.retry_at.unwrap_or(if self.waiting.is_empty() { self.sweep_at } else { now });
            let wait = until.saturating_duration_since(now);
            if self.waiting.len() >= waiting_max {
                std::thread::sleep(wait);
                return false;
            }
            match orders.recv_timeout(wait) {
                Ok(order) => self.obey(order),
                Err(RecvTimeoutError::Timeout) => return false,
                Err(RecvTimeoutError::Disconnected) => {
                    std::thread::sleep(self.retry_at.map_or(Duration::ZERO, |_| wait));
                    return true;
                }
            }
        }
    }

    fn obey(&mut self, order: Order) {
        // Whoever asked may have gone away.
        match order {
            Order::Submit(submission) => self.waiting.push_back(submission),
            Order::Govern { tenant, limits, kept } => {
                self.governed.insert(tenant.clone(), (limits, kept));
                self.trim(&tenant);
            }
            Order::Remove { ids, reply } => {
                let removed = self.archive.remove(&ids);
                self.count_all();
                let _ = reply.send(removed);
            }
            Order::BeginReplay { ids, reply } => {
                let (already, fresh): (Vec<u64>, Vec<u64>) =
                    ids.into_iter().partition(|id| self.replayed.contains_key(id));
                self.replayed.extend(fresh.into_iter().map(|id| (id, false)));
                let _ = reply.send(already);
            }
            Order::EndReplay { ids, is_settled, reply } => {
                let again = ids.iter().filter(|id| self.replayed.remove(id) == Some(true)).count();
                if is_settled && let Err(error) = self.archive.remove(&ids) {
                    tracing::error!(%error, "replayed dead letters stay, since they cannot be removed");
                }
                self.count_all();
                let _ = reply.send(again as u64);
            }
        }
    }

    /// Tries for as long as it takes: what is not on disk is not confirmed, and its
    /// source waits.
    fn write(&mut self) {
        let Some(mut work) = self.work.take().or_else(|| self.begin()) else { return };
        let written = self.archive.append(&mut work.letters);
        if let Err(error) = written.and_then(|()| self.archive.remove(&work.replaced).map(drop)) {
            tracing::error!(%error, "cannot write dead letters, trying again");
            self.work = Some(work);
            self.retry_at = Some(Instant::now() + RETRY_AFTER);
            return;
        }
        self.newest.store(self.archive.newest(), Ordering::SeqCst);
        work.tenants.iter().for_each(|tenant| self.trim(tenant));
        for submission in work.submissions {
            submission.confirms.push(Confirmed { id: submission.id, rejected: Vec::new() });
        }
    }

    /// One flush for all that waits.
    fn begin(&mut self) -> Option<Work> {
        let together = self.waiting.len().min(TOGETHER_MAX);
        let submissions: Vec<_> = self.waiting.drain(..together).collect();
        let (mut letters, mut replaced, mut tenants) = (Vec::new(), Vec::new(), BTreeSet::new());
        for letter in submissions.iter().flat_map(|submission| &submission.letters) {
            if let Some(before) = letter.replayed {
                // One message gives one dead letter, however many of its parts fail.
                match self.replayed.get_mut(&before.id) {
                    Some(true) => continue,
                    Some(is_again) => *is_again = true,
                    // Its dataflow ended before this one was safe.
                    None => {}
                }
                replaced.push(before.id);
            }
            tenants.insert(letter.tenant.clone());
            letters.push(self.letter(letter));
        }
        (!submissions.is_empty()).then_some(Work { submissions, letters, replaced, tenants })
    }

    fn letter(&mut self, letter: &DeadLetter) -> Letter {
        let record = Record { id: self.archive.next_id(), ..Record::of(letter) };
        let mut line = serde_json::to_vec(&record).expect("a record is JSON");
        line.push(b'\n');
        let at_ms = letter.at.as_millis() as u64;
        Letter { id: record.id, at_ms, tenant: record.tenant, dataflow: record.dataflow, line }
    }

    /// Holds every tenant to its limits.
    fn sweep(&mut self) {
        self.sweep_at = Instant::now() + SWEEP_AFTER_MAX;
        let tenants: Vec<_> = self.governed.keys().cloned().collect();
        tenants.iter().for_each(|tenant| self.trim(tenant));
    }

    /// Holds a tenant to its limits, and says when that is to be done again.
    fn trim(&mut self, tenant: &str) {
        let Some((limits, kept)) = self.governed.get(tenant) else { return };
        let now_ms = now_ms();
        match self.archive.trim(tenant, *limits, now_ms) {
            Ok(trimmed) => log(tenant, kept, trimmed),
            // Nothing is lost by it: they are kept longer than they may.
            Err(error) => tracing::error!(%error, tenant, "cannot hold dead letters to their limits"),
        }
        let (count, bytes) = self.archive.kept(tenant);
        kept.set(count, bytes);
        if let Some(expires_ms) = self.archive.expires_ms(tenant, *limits) {
            let wait = Duration::from_millis(expires_ms.saturating_sub(now_ms));
            let at = Instant::now() + wait.clamp(SWEEP_AFTER_MIN, SWEEP_AFTER_MAX);
            self.sweep_at = self.sweep_at.min(at);
        }
    }

    fn count_all(&self) {
        for (tenant, (_, kept)) in &self.governed {
            let (count, bytes) = self.archive.kept(tenant);
            kept.set(count, bytes);
        }
    }
}

/// A flood of dead letters must not become a flood of log lines.
fn log(tenant: &str, kept: &Kept, Trimmed { expired, displaced }: Trimmed) {
    for (counter, by, why) in [
        (&kept.expired, expired, "older than policy's `deadLetters.age`"),
        (&kept.displaced, displaced, "beyond policy's `deadLetters.count` or `bytes`, the oldest first"),
    ] {
        let before = counter.get();
        counter.add(by);
        if by > 0 && before.checked_ilog2() != counter.get().checked_ilog2() {
            tracing::warn!(tenant, removed = counter.get(), "dead letters were removed: {why}");
        }
    }
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    now.as_millis() as u64
}

#[cfg(test)]
mod tests;
