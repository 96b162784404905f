//! Simulation: the shard with its run queue and real guests, stepped by hand on a
//! virtual clock, between sources that deliver again what was not settled and sinks
//! that are slow, away or refuse. A seed decides everything; the same seed gives the
//! same log.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, HashMap, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use anyhow::{bail, ensure};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tidegate::{
    clock::{Clock, VirtualClock},
    dataflow::shard::{Command, Removed, Turn},
    dead_letter::Reason,
    guest::{OperatorKind, component::Components},
    ledger::Credit,
    resource::Limits,
    settle,
    tenant::Tenant,
    write::{Rejected, Write},
};

use crate::rig::{Link, Rig, Running};

/// What a simulated run came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Deliveries settled.
    pub deliveries: u64,
    /// Hash of everything that happened, in order.
    pub log: u64,
    pub removals: u64,
    pub faults: u64,
    pub redelivered: u64,
}

/// How a tenant of the simulation behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Character {
    Passes,
    Filters,
    /// Traps on some messages.
    Traps,
    /// Loops on some messages.
    Spins,
}

impl Character {
    const ALL: [Character; 4] = [Character::Passes, Character::Filters, Character::Traps, Character::Spins];

    fn links(self) -> &'static [Link<'static>] {
        match self {
            Character::Passes => {
                &[("pass_through", OperatorKind::Map, &[]), ("pass_through", OperatorKind::Map, &[])]
            }
            Character::Filters => &[
                ("json_filter", OperatorKind::Filter, &[("field", "t"), ("op", "gt"), ("value", "50")]),
                ("pass_through", OperatorKind::Map, &[]),
            ],
            Character::Traps => &[("hostile_attacks", OperatorKind::Map, &[("attack", "trap")])],
            Character::Spins => &[("hostile_attacks", OperatorKind::Map, &[("attack", "spin")])],
        }
    }

    fn fate(self, payload: &str) -> Fate {
        match self {
            Character::Passes => Fate::Delivered,
            Character::Filters if payload.contains(r#""t":9"#) => Fate::Delivered,
            Character::Filters => Fate::Filtered,
            Character::Traps if payload.contains("attack") => Fate::Dead(Reason::Trap),
            Character::Spins if payload.contains("attack") => Fate::Dead(Reason::OutOfFuel),
            Character::Traps | Character::Spins => Fate::Delivered,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Delivered,
    Filtered,
    Dead(Reason),
}

/// A source like a broker's session: keeps what is not settled and delivers it again.
struct Stream {
    character: Character,
    tenant: Arc<Tenant>,
    name: String,
    running: Option<Running>,
    /// Messages in order; those before `settled` are done with.
    messages: Vec<String>,
    settled: usize,
    /// First message not yet handed over.
    next: usize,
    /// Message counts of unsettled deliveries, and how many of them are settled.
    in_flight: VecDeque<usize>,
    acked: u64,
    /// Messages that were handed over and abandoned at least once.
    again_upto: usize,
    seen: HashMap<String, u32>,
    last_seen: Option<usize>,
}

struct World {
    rng: StdRng,
    rig: Rig,
    clock: Arc<VirtualClock>,
    streams: Vec<Stream>,
    /// Writes that a sink has not confirmed yet, by when it will.
    confirming: BinaryHeap<Reverse<(u64, u64)>>,
    writes: BTreeMap<u64, (usize, Write)>,
    next_write: u64,
    /// Until when sinks are away.
    sinks_away_until: u64,
    log: DefaultHasher,
    outcome: Outcome,
    rejected: HashMap<String, u32>,
}

/// Runs one seed; an error says which promise was broken.
pub fn run(seed: u64, components: &Components, messages: usize) -> anyhow::Result<Outcome> {
    let dropped = settle::dropped_count();
    let result = catch_unwind(AssertUnwindSafe(|| World::new(seed, components, messages).run()));
    match result {
        Ok(outcome) => {
            let outcome = outcome?;
            ensure!(settle::dropped_count() == dropped, "a duty was dropped unanswered");
            Ok(outcome)
        }
        Err(_) => bail!("the host panicked"),
    }
}

impl World {
    fn new(seed: u64, components: &Components, messages: usize) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let clock = Arc::new(VirtualClock::default());
        let rig = Rig::with(components.clone(), Clock::Virtual(clock.clone()), 5, 3, seed);
        let streams = (0..6).map(|index| {
            let character = Character::ALL[index % Character::ALL.len()];
            let limits = Limits {
                weight: rng.random_range(1..4),
                inflight_bytes_max: rng.random_range(4_000..40_000),
                message_fuel_max: 300_000,
                ..Limits::default()
            };
            let share = messages / 6;
            Stream {
                character,
                tenant: Tenant::new(format!("t{index}"), limits),
                name: format!("flow{index}"),
                running: None,
                messages: (0..share).map(|id| payload(&mut rng, index, id)).collect(),
                settled: 0,
                next: 0,
                in_flight: VecDeque::new(),
                acked: 0,
                again_upto: 0,
                seen: HashMap::new(),
                last_seen: None,
            }
        });
        let streams = streams.collect();
        World {
            rng,
            rig,
            clock,
            streams,
            confirming: BinaryHeap::new(),
            writes: BTreeMap::new(),
            next_write: 0,
            sinks_away_until: 0,
            log: DefaultHasher::new(),
            outcome: Outcome { deliveries: 0, log: 0, removals: 0, faults: 0, redelivered: 0 },
            rejected: HashMap::new(),
        }
    }

    fn now(&self) -> u64 {
        Clock::Virtual(self.clock.clone()).now().0
    }

    fn note(&mut self, event: impl Hash) {
        self.now().hash(&mut self.log);
        event.hash(&mut self.log);
    }

    fn run(mut self) -> anyhow::Result<Outcome> {
        let mut idle = 0;
        for index in 0..self.streams.len() {
            self.install(index);
        }
        while self.streams.iter().any(|stream| stream.settled < stream.messages.len()) {
            let before = self.outcome.deliveries;
            self.disturb()?;
            for index in 0..self.streams.len() {
                self.deliver(index);
            }
            let turn = self.rig.shard.turn();
            for index in 0..self.streams.len() {
                self.settle(index)?;
                self.take_writes(index);
            }
            self.confirm();
            if turn != Turn::Busy {
                self.clock.advance(Duration::from_micros(100));
            }
            idle = if self.outcome.deliveries == before { idle + 1 } else { 0 };
            ensure!(idle < 20_000, "nothing is settled any more: a message or a wake-up was lost");
        }
        self.finish()
    }

    fn install(&mut self, index: usize) {
        let stream = &mut self.streams[index];
        let running = self.rig.install(&stream.tenant, &stream.name, stream.character.links());
        stream.running = Some(running);
        stream.acked = 0;
        self.note(("install", index));
    }

    /// Now and then a dataflow is replaced, or sinks go away.
    fn disturb(&mut self) -> anyhow::Result<()> {
        if self.rng.random_ratio(1, 1_000) {
            self.sinks_away_until = self.now() + self.rng.random_range(0..20_000_000);
            self.note("sinks away");
        }
        if self.rng.random_ratio(1, 200) {
            let index = self.rng.random_range(0..self.streams.len());
            self.replace(index)?;
        }
        for index in 0..self.streams.len() {
            // A dataflow that a panic took is started again, as an administrator would.
            let gone =
                self.streams[index].running.as_ref().is_none_or(|running| running.source.is_abandoned());
            if gone {
                self.rewind(index);
                self.install(index);
            }
        }
        Ok(())
    }

    fn replace(&mut self, index: usize) -> anyhow::Result<()> {
        let Some(running) = &self.streams[index].running else { return Ok(()) };
        let drain = Duration::from_micros(self.rng.random_range(0..3_000));
        let (reply, mut removed) = tokio::sync::oneshot::channel();
        self.rig.door.send(Command::Remove { dataflow: running.id, drain, reply });
        for _ in 0..100_000 {
            self.rig.shard.turn();
            self.take_writes(index);
            self.confirm();
            self.clock.advance(Duration::from_micros(20));
            if let Ok(removed) = removed.try_recv() {
                self.settle(index)?;
                self.note(("removed", index, removed == Removed::Drained));
                if removed == Removed::Drained {
                    let left = self.streams[index].in_flight.len();
                    ensure!(left == 0, "drained with {left} deliveries unsettled");
                }
                self.outcome.removals += 1;
                self.rewind(index);
                self.install(index);
                return Ok(());
            }
        }
        bail!("a removal never ends")
    }

    /// The session comes back: everything unsettled is delivered again.
    fn rewind(&mut self, index: usize) {
        let stream = &mut self.streams[index];
        self.outcome.redelivered += (stream.next - stream.settled) as u64;
        stream.again_upto = stream.again_upto.max(stream.next);
        stream.next = stream.settled;
        stream.in_flight.clear();
        stream.last_seen = None;
        stream.running = None;
    }

    fn deliver(&mut self, index: usize) {
        let count = self.rng.random_range(1..24);
        let stream = &mut self.streams[index];
        let Some(running) = &mut stream.running else { return };
        let end = (stream.next + count).min(stream.messages.len());
        if end == stream.next || running.source.unsettled() > 12 {
            return;
        }
        let batch = running.batch(&stream.messages[stream.next..end]);
        let credit: Option<Credit> = stream.tenant.ledger.try_acquire(batch.arena.len());
        if let Some(credit) = credit {
            running.source.deliver(credit, batch);
            stream.in_flight.push_back(end - stream.next);
            stream.next = end;
            self.note(("deliver", index, end));
        }
    }

    /// Takes note of what is settled, and checks that all of it came to its end.
    fn settle(&mut self, index: usize) -> anyhow::Result<()> {
        let stream = &mut self.streams[index];
        let Some(running) = &stream.running else { return Ok(()) };
        let upto = running.source.settled_upto();
        let mut settled = 0;
        while stream.acked < upto {
            stream.acked += 1;
            settled += 1;
            let Some(count) = stream.in_flight.pop_front() else { bail!("settled more than was delivered") };
            for message in &stream.messages[stream.settled..stream.settled + count] {
                if stream.character.fate(message) == Fate::Delivered && !self.rejected.contains_key(message) {
                    ensure!(
                        stream.seen.contains_key(message),
                        "{message} is settled and was never delivered"
                    );
                }
            }
            stream.settled += count;
        }
        if settled > 0 {
            self.outcome.deliveries += settled;
            self.note(("settled", index, upto));
        }
        Ok(())
    }

    fn take_writes(&mut self, index: usize) {
        let Some(running) = &self.streams[index].running else { return };
        for write in running.take() {
            let delay = if self.rng.random_ratio(1, 20) { 5_000_000 } else { 200_000 };
            let at = self.now() + self.rng.random_range(0..delay);
            let id = self.next_write;
            self.next_write += 1;
            self.confirming.push(Reverse((at, id)));
            self.writes.insert(id, (index, write));
        }
    }

    /// Sinks confirm what is due, in any order; some messages they refuse.
    fn confirm(&mut self) {
        let now = self.now();
        if now < self.sinks_away_until {
            return;
        }
        while self.confirming.peek().is_some_and(|Reverse((at, _))| *at <= now) {
            let Some(Reverse((_, id))) = self.confirming.pop() else { return };
            let Some((index, write)) = self.writes.remove(&id) else { continue };
            let mut rejected = Vec::new();
            for (place, text) in crate::rig::texts(&write.batch).into_iter().enumerate() {
                if self.rng.random_ratio(1, 500) {
                    rejected.push(Rejected { index: place as u32, reason: "refused".into() });
                    *self.rejected.entry(text).or_default() += 1;
                } else {
                    *self.streams[index].seen.entry(text).or_default() += 1;
                }
            }
            self.note(("confirm", index, write.batch.len(), rejected.len()));
            write.confirm(rejected);
        }
    }

    /// All is settled: nothing may be left, and everything must have had its fate.
    fn finish(mut self) -> anyhow::Result<Outcome> {
        for _ in 0..100_000 {
            let turn = self.rig.shard.turn();
            (0..self.streams.len()).for_each(|index| self.take_writes(index));
            self.clock.advance(Duration::from_millis(1));
            self.confirm();
            if turn != Turn::Busy && self.writes.is_empty() {
                break;
            }
        }
        let dead = std::mem::take(&mut *self.rig.dead.lock().expect("no panic under this lock"));
        let mut buried: HashMap<(String, Reason), u32> = HashMap::new();
        for letter in dead {
            *buried.entry((letter.payload.unwrap_or_default(), letter.reason)).or_default() += 1;
        }
        for stream in &self.streams {
            let held = stream.tenant.ledger.bytes_in_flight();
            ensure!(held == 0, "{held} bytes of credit of {} did not come back", stream.tenant.name);
            for (id, message) in stream.messages.iter().enumerate() {
                let once = id >= stream.again_upto;
                let rejected = self.rejected.get(message).copied().unwrap_or(0);
                let seen = stream.seen.get(message).copied().unwrap_or(0) + rejected;
                let (count, what) = match stream.character.fate(message) {
                    Fate::Delivered => (seen, "delivered"),
                    Fate::Filtered => (u32::from(seen == 0), "filtered"),
                    Fate::Dead(reason) => {
                        (buried.get(&(message.clone(), reason)).copied().unwrap_or(0), "dead-lettered")
                    }
                };
                ensure!(count >= 1, "{message} was not {what}");
                ensure!(!once || count == 1, "{message} was {what} {count} times");
            }
            if let Some(running) = &stream.running {
                self.outcome.faults += running.plan.operators().map(|it| it.stats.faults.get()).sum::<u64>();
            }
        }
        self.outcome.log = self.log.finish();
        Ok(self.outcome)
    }
}

fn payload(rng: &mut StdRng, stream: usize, id: usize) -> String {
    let value = if rng.random_bool(0.5) { 9 } else { 1 };
    let mark = if rng.random_ratio(1, 60) { "attack" } else { "calm" };
    format!(r#"{{"id":"{stream}-{id}","t":{value}0,"mark":"{mark}"}}"#)
}

/// Largest deviation from the promised share among busy tenants of these weights,
/// as a fraction of that share.
///
/// An error if they get nowhere.
pub fn unfairness(
    seed: u64,
    components: &Components,
    weights: &[u32],
    batches: usize,
) -> anyhow::Result<f64> {
    let clock = Arc::new(VirtualClock::default());
    let mut rig = Rig::with(components.clone(), Clock::Virtual(clock), 64, 8, seed);
    let mut flows: Vec<Running> = Vec::new();
    for (index, weight) in weights.iter().enumerate() {
        let limits = Limits { weight: *weight, ..Limits::default() };
        let tenant = Tenant::new(format!("busy{index}"), limits);
        // Tenants differ in how long their calls are: weights must hold all the same.
        let micros = (10 << (index % 4)).to_string();
        let link: Link<'_> = ("hostile_busy", OperatorKind::Map, &[("micros", &micros)]);
        flows.push(rig.install(&tenant, "busy", &[link]));
    }
    let (mut done, mut turns) = (0, 0);
    while done < batches {
        turns += 1;
        ensure!(turns < batches * 100, "busy tenants get nowhere");
        for flow in &mut flows {
            while flow.source.unsettled() < 4 {
                flow.send(&["work", "work", "work", "work"]);
            }
        }
        rig.shard.turn();
        for flow in &flows {
            for write in flow.take() {
                done += 1;
                write.confirm(Vec::new());
            }
        }
    }
    let fuel: Vec<f64> = flows
        .iter()
        .map(|flow| flow.plan.operators().map(|it| it.stats.fuel.get()).sum::<u64>() as f64)
        .collect();
    let (total, shares) = (fuel.iter().sum::<f64>(), weights.iter().sum::<u32>());
    let deviation = |(fuel, weight): (&f64, &u32)| {
        let promised = f64::from(*weight) / f64::from(shares);
        ((fuel / total) / promised - 1.0).abs()
    };
    Ok(fuel.iter().zip(weights).map(deviation).fold(0.0, f64::max))
}
