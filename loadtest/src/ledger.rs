//! What was sent and what came of it, message by message: lost, duplicated, out of
//! order, unexpected, and how long it took from when it was due. Believes nobody's
//! counters; knows no socket and no clock.

use std::collections::HashMap;

use hdrhistogram::Histogram;
use memchr::memmem;

use crate::timeline::Timeline;

/// Longest latency that is told from longer ones, in microseconds: an hour.
const LATENCY_MAX_US: u64 = 3_600_000_000;
/// Messages of one block, which takes no memory once all of them have come.
const BLOCK: usize = 4_096;

/// A message's number in this run.
pub type Sequence = u64;

/// Which phase of a run a message was sent in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PhaseId(u16);

/// One message that was sent.
#[derive(Clone, Copy)]
struct Entry {
    due_ns: u64,
    stream: u32,
    phase: PhaseId,
    came: bool,
}

enum Block {
    Open {
        entries: Vec<Entry>,
        came: usize,
    },
    /// All of them have come; in which phase the first was sent.
    Complete(PhaseId),
}

/// What is known of one phase. Of a message that came twice, the first time counts.
#[derive(Clone)]
pub struct Tally {
    pub sent: u64,
    pub came: u64,
    pub duplicated: u64,
    pub out_of_order: u64,
    /// From when a message was due to when it came, in microseconds.
    pub latency_us: Histogram<u64>,
    /// When its first message was due and its last came, in nanoseconds of the run.
    pub first_ns: u64,
    pub last_ns: u64,
    /// When the first of its messages that came did; `u64::MAX` before that.
    pub first_came_ns: u64,
}

impl Tally {
    fn new() -> Self {
        Tally {
            sent: 0,
            came: 0,
            duplicated: 0,
            out_of_order: 0,
            latency_us: Histogram::new_with_bounds(1, LATENCY_MAX_US, 3).expect("bounds of a histogram"),
            first_ns: u64::MAX,
            last_ns: 0,
            first_came_ns: u64::MAX,
        }
    }

    pub fn lost(&self) -> u64 {
        self.sent - self.came
    }

    /// From the first message due to the last that came.
    pub fn seconds(&self) -> f64 {
        self.last_ns.saturating_sub(self.first_ns) as f64 / 1e9
    }

    /// Takes in what another phase of the same kind came to.
    pub fn add(&mut self, other: &Tally) {
        let Tally { sent, came, duplicated, out_of_order, latency_us, first_ns, last_ns, first_came_ns } =
            other;
        self.sent += sent;
        self.came += came;
        self.duplicated += duplicated;
        self.out_of_order += out_of_order;
        self.latency_us.add(latency_us).expect("the same bounds");
        self.first_ns = self.first_ns.min(*first_ns);
        self.last_ns = self.last_ns.max(*last_ns);
        self.first_came_ns = self.first_came_ns.min(*first_came_ns);
    }
}

/// All messages of a run.
pub struct Ledger {
    /// Tells this run's ids from those of any other.
    mark: String,
    blocks: Vec<Block>,
    sent: u64,
    /// A stream is what order is promised for: a tenant and a topic.
    streams: HashMap<Vec<u8>, u32>,
    /// Up to which sequence each stream has come, and one on.
    reached: Vec<u64>,
    phases: Vec<Tally>,
    /// What came without an id that was sent, or where it was not meant to come.
    unexpected: u64,
    pub timeline: Timeline,
}

impl Ledger {
    /// `nonce` is this run's own, and `topics` are where what is sent may come out.
    pub fn new(nonce: u32, topics: impl IntoIterator<Item = String>) -> Self {
        let streams: HashMap<_, _> =
            topics.into_iter().enumerate().map(|(index, topic)| (topic.into_bytes(), index as u32)).collect();
        Ledger {
            mark: format!("lt{nonce:08x}-"),
            blocks: Vec::new(),
            sent: 0,
            reached: vec![0; streams.len()],
            streams,
            phases: Vec::new(),
            unexpected: 0,
            timeline: Timeline::default(),
        }
    }

    /// What is sent from now on is of another phase.
    pub fn begin_phase(&mut self) -> PhaseId {
        self.phases.push(Tally::new());
        PhaseId(u16::try_from(self.phases.len() - 1).expect("a run has few phases"))
    }

    /// Notes a message that is about to be sent; its id is what it must carry.
    pub fn send(&mut self, phase: PhaseId, stream: usize, due_ns: u64) -> (Sequence, String) {
        let sequence = self.sent;
        self.sent += 1;
        let entry = Entry { due_ns, stream: stream as u32, phase, came: false };
        match self.blocks.last_mut() {
            Some(Block::Open { entries, .. }) if entries.len() < BLOCK => entries.push(entry),
            _ => {
                let mut entries = Vec::with_capacity(BLOCK);
                entries.push(entry);
                self.blocks.push(Block::Open { entries, came: 0 });
            }
        }
        let tally = &mut self.phases[usize::from(phase.0)];
        tally.sent += 1;
        tally.first_ns = tally.first_ns.min(due_ns);
        self.timeline.sent(due_ns);
        (sequence, self.id(sequence))
    }

    /// What a message must carry.
    pub fn id(&self, sequence: Sequence) -> String {
        format!("{}{sequence}", self.mark)
    }

    /// Notes what came on `topic`: `body` holds the id anywhere, in a payload or in a
    /// property.
    pub fn arrive(&mut self, topic: &[u8], body: &[u8], now_ns: u64) {
        let stream = self.streams.get(topic).copied();
        let sequence = self.sequence(body);
        let (Some(stream), Some(sequence)) = (stream, sequence) else {
            self.unexpected += 1;
            return;
        };
        let block = &mut self.blocks[sequence as usize / BLOCK];
        let Block::Open { entries, came } = block else {
            let Block::Complete(phase) = block else { unreachable!("it is not open") };
            self.phases[usize::from(phase.0)].duplicated += 1;
            return;
        };
        let entry = &mut entries[sequence as usize % BLOCK];
        if entry.stream != stream {
            // Another tenant's message: the worst that can come.
            self.unexpected += 1;
            return;
        }
        let tally = &mut self.phases[usize::from(entry.phase.0)];
        if entry.came {
            tally.duplicated += 1;
            return;
        }
        entry.came = true;
        *came += 1;
        let latency_us = now_ns.saturating_sub(entry.due_ns) / 1_000;
        tally.came += 1;
        tally.last_ns = tally.last_ns.max(now_ns);
        tally.first_came_ns = tally.first_came_ns.min(now_ns);
        tally.latency_us.saturating_record(latency_us);
        self.timeline.came(now_ns, latency_us);
        let reached = &mut self.reached[stream as usize];
        if sequence < *reached {
            tally.out_of_order += 1;
        } else {
            *reached = sequence + 1;
        }
        if *came == BLOCK {
            *block = Block::Complete(entries[0].phase);
        }
    }

    /// The sequence of the id in `body`, if it is one that was sent.
    fn sequence(&self, body: &[u8]) -> Option<Sequence> {
        let at = memmem::find(body, self.mark.as_bytes())?;
        let digits = &body[at + self.mark.len()..];
        let len = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let number: Sequence = std::str::from_utf8(&digits[..len]).ok()?.parse().ok()?;
        (number < self.sent).then_some(number)
    }

    pub fn tally(&self, phase: PhaseId) -> &Tally {
        &self.phases[usize::from(phase.0)]
    }

    /// Some phases as one.
    pub fn total(&self, phases: &[PhaseId]) -> Tally {
        let mut total = Tally::new();
        phases.iter().for_each(|phase| total.add(self.tally(*phase)));
        total
    }

    /// What was sent before any other phase began.
    pub fn first_phase(&self) -> PhaseId {
        PhaseId(0)
    }

    /// Messages that came again, of all phases.
    pub fn duplicated(&self) -> u64 {
        self.phases.iter().map(|tally| tally.duplicated).sum()
    }

    /// Messages of a phase that have not come, in the order of sending.
    pub fn missing(&self, phase: PhaseId) -> impl Iterator<Item = Sequence> + '_ {
        self.blocks.iter().enumerate().flat_map(move |(block, state)| {
            let entries = match state {
                Block::Open { entries, .. } => entries.as_slice(),
                Block::Complete(_) => &[],
            };
            let missing = entries.iter().enumerate().filter(move |(_, it)| !it.came && it.phase == phase);
            missing.map(move |(at, _)| (block * BLOCK + at) as Sequence)
        })
    }

    /// Messages that were sent, and that have come, of all phases.
    pub fn sent_and_came(&self) -> (u64, u64) {
        (self.sent, self.phases.iter().map(|tally| tally.came).sum())
    }

    pub fn unexpected(&self) -> u64 {
        self.unexpected
    }
}

#[cfg(test)]
mod tests;
