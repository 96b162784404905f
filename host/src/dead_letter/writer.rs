//! The thread that keeps dead letters: writes them, removes them, and holds tenants to
//! their limits. Behind the doors of shards and commands; the one owner of the archive.

use std::{
    collections::{BTreeSet, HashMap},
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

pub(super) struct Writer {
    archive: Archive,
    newest: Arc<AtomicU64>,
    governed: HashMap<String, (DeadLetterLimits, Arc<Kept>)>,
    /// Letters that are on their way through their dataflow again, and whether they
    /// were given up there.
    replayed: HashMap<u64, bool>,
    sweep_at: Instant,
}

impl Writer {
    pub fn new(archive: Archive, newest: Arc<AtomicU64>) -> Self {
        let sweep_at = Instant::now() + SWEEP_AFTER_MAX;
        Writer { archive, newest, governed: HashMap::new(), replayed: HashMap::new(), sweep_at }
    }

    /// Until the last door is dropped.
    pub fn run(mut self, orders: &Receiver<Order>) {
        let mut next = None;
        loop {
            let wait = self.sweep_at.saturating_duration_since(Instant::now());
            let order = match next.take() {
                Some(order) => order,
                None => match orders.recv_timeout(wait) {
                    Ok(order) => order,
                    Err(RecvTimeoutError::Timeout) => {
                        self.sweep();
                        continue;
                    }
                    Err(RecvTimeoutError::Disconnected) => return,
                },
            };
            match order {
                Order::Submit(first) => {
                    // One flush for all that waits.
                    let mut submissions = vec![first];
                    for order in orders.try_iter() {
                        match order {
                            Order::Submit(submission) => submissions.push(submission),
                            other => next = Some(other),
                        }
                        if next.is_some() || submissions.len() == TOGETHER_MAX {
                            break;
                        }
                    }
                    self.keep(submissions);
                }
                other => self.obey(other),
            }
            if self.sweep_at <= Instant::now() {
                self.sweep();
            }
        }
    }

    fn obey(&mut self, order: Order) {
        // Whoever asked may have gone away.
        match order {
            Order::Submit(submission) => self.keep(vec![submission]),
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
    fn keep(&mut self, submissions: Vec<Submission>) {
        let mut letters = Vec::new();
        let mut replaced = Vec::new();
        let mut tenants = BTreeSet::new();
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
        while let Err(error) = self.archive.append(&mut letters) {
            tracing::error!(%error, "cannot write dead letters, trying again");
            std::thread::sleep(RETRY_AFTER);
        }
        while !replaced.is_empty() {
            match self.archive.remove(&replaced) {
                Ok(_) => break,
                Err(error) => {
                    tracing::error!(%error, "cannot remove dead letters, trying again");
                    std::thread::sleep(RETRY_AFTER);
                }
            }
        }
        self.newest.store(self.archive.newest(), Ordering::SeqCst);
        tenants.iter().for_each(|tenant| self.trim(tenant));
        for submission in submissions {
            submission.confirms.push(Confirmed { id: submission.id, rejected: Vec::new() });
        }
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
