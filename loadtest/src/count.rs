//! One ledger that those who send and those who take share while they run, and that whoever
//! waits for something to come is woken by.

use std::{
    sync::{Condvar, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use crate::ledger::{Ledger, PhaseId, Tally};

pub struct Count {
    counted: Mutex<Counted>,
    changed: Condvar,
    began: Instant,
}

struct Counted {
    ledger: Ledger,
    phase: PhaseId,
}

impl Count {
    /// Of messages that come out at `topic`.
    pub fn new(topic: &str) -> Self {
        let mut ledger = Ledger::new(rand::random(), [topic.to_owned()]);
        let phase = ledger.begin_phase();
        Count {
            counted: Mutex::new(Counted { ledger, phase }),
            changed: Condvar::new(),
            began: Instant::now(),
        }
    }

    /// What is sent from now on is of another phase.
    pub fn begin_phase(&self) -> PhaseId {
        let mut counted = self.lock();
        counted.phase = counted.ledger.begin_phase();
        counted.phase
    }

    /// The id of a message that is about to be sent.
    pub fn send(&self) -> String {
        let now_ns = self.at(Instant::now());
        let mut counted = self.lock();
        let phase = counted.phase;
        counted.ledger.send(phase, 0, now_ns).1
    }

    /// Notes messages that came together.
    pub fn arrive<'m>(&self, messages: impl IntoIterator<Item = (&'m [u8], &'m [u8])>) {
        let now_ns = self.at(Instant::now());
        let mut counted = self.lock();
        messages.into_iter().for_each(|(topic, body)| counted.ledger.arrive(topic, body, now_ns));
        drop(counted);
        self.changed.notify_all();
    }

    /// Until something of the phase has come; how long after `since` that was.
    pub fn first_of(&self, phase: PhaseId, since: Instant, within: Duration) -> Option<Duration> {
        let came_ns = |ledger: &Ledger| ledger.tally(phase).first_came_ns;
        let came = self.wait(within, |ledger| came_ns(ledger) < u64::MAX);
        came.then(|| Duration::from_nanos(self.look(came_ns).saturating_sub(self.at(since))))
    }

    /// Until all that was sent has come. Gives up once nothing has come for so long.
    pub fn all(&self, quiet: Duration) -> bool {
        loop {
            let arrived = |ledger: &Ledger| (ledger.sent_and_came(), ledger.duplicated());
            let before = self.look(arrived);
            let ((sent, came), _) = before;
            if sent == came {
                return true;
            }
            if !self.wait(quiet, |ledger| arrived(ledger) != before) {
                return false;
            }
        }
    }

    /// Whether `holds` within that time.
    pub fn wait(&self, within: Duration, mut holds: impl FnMut(&Ledger) -> bool) -> bool {
        let waited = self.changed.wait_timeout_while(self.lock(), within, |it| !holds(&it.ledger));
        !waited.expect("no panic under this lock").1.timed_out()
    }

    pub fn look<T>(&self, at: impl FnOnce(&Ledger) -> T) -> T {
        at(&self.lock().ledger)
    }

    /// What came of some phases, and the first messages that are missing in them.
    pub fn of(&self, phases: &[PhaseId]) -> (Tally, Vec<u64>) {
        let counted = self.lock();
        let ledger = &counted.ledger;
        let missing = phases.iter().flat_map(|phase| ledger.missing(*phase));
        (ledger.total(phases), missing.take(MISSING_SHOWN).collect())
    }

    /// The ids of all that is missing in some phases.
    pub fn missing(&self, phases: &[PhaseId]) -> Vec<String> {
        let counted = self.lock();
        let ledger = &counted.ledger;
        phases.iter().flat_map(|phase| ledger.missing(*phase)).map(|sequence| ledger.id(sequence)).collect()
    }

    fn at(&self, instant: Instant) -> u64 {
        instant.saturating_duration_since(self.began).as_nanos() as u64
    }

    fn lock(&self) -> MutexGuard<'_, Counted> {
        self.counted.lock().expect("no panic under this lock")
    }
}

/// Most missing messages that are named.
const MISSING_SHOWN: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(20);
    const TOPIC: &[u8] = b"out";

    #[test]
    fn what_is_missing_is_named_and_what_came_twice_is_counted_by_phase() {
        let count = Count::new("out");
        let ids: Vec<String> = (0..3).map(|_| count.send()).collect();
        let phase = count.begin_phase();
        let later = count.send();
        count.arrive([&ids[0], &ids[2], &ids[2], &later].map(|id| (TOPIC, id.as_bytes())));
        let first = count.look(|ledger| ledger.first_phase());
        let (tally, missing) = count.of(&[first]);
        assert_eq!((tally.sent, tally.came, tally.duplicated, missing), (3, 2, 1, vec![1]));
        assert_eq!(count.missing(&[first, phase]), [ids[1].as_str()]);
        let (tally, missing) = count.of(&[phase]);
        assert_eq!((tally.sent, tally.came, tally.duplicated, missing), (1, 1, 0, vec![]));
        assert_eq!(count.of(&[first, phase]).0.lost(), 1);
        assert!(!count.all(SHORT), "one has not come");
        count.arrive([(TOPIC, ids[1].as_bytes())]);
        assert!(count.all(SHORT));
    }

    #[test]
    fn recovery_is_what_passes_until_something_new_comes() {
        let count = Count::new("out");
        let old = count.send();
        let end = Instant::now();
        let phase = count.begin_phase();
        count.arrive([(TOPIC, old.as_bytes())]);
        assert_eq!(count.first_of(phase, end, SHORT), None, "what was sent before says nothing");
        let new = count.send();
        let came = Instant::now();
        count.arrive([(TOPIC, new.as_bytes())]);
        let took = count.first_of(phase, end, SHORT).expect("it came");
        assert!((came - end..end.elapsed()).contains(&took), "{took:?}");
    }
}
