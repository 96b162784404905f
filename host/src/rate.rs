//! `RateGate`: messages and bytes a second that a tenant may take in, or give out, at one
//! endpoint, over all its dataflows. Whoever is at the gate waits while it is closed; a
//! shard, which has a clock, opens it again. Serves sources and the region; knows neither.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
};

use crate::{
    bucket::{Bucket, Level, LevelOf, Passing},
    clock::Instant,
    stats::Counter,
};

/// What may pass in a second; `None` as much as comes. The burst is one second's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rate {
    pub messages: Option<u64>,
    pub bytes: Option<u64>,
}

impl Rate {
    fn is_limited(self) -> bool {
        self.messages.is_some() || self.bytes.is_some()
    }
}

/// Into a tenant at one endpoint, and out of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rates {
    pub r#in: Rate,
    pub out: Rate,
}

/// A tenant's gates, where its policy limits what passes.
#[derive(Debug, Default)]
pub struct Gates {
    sources: BTreeMap<String, Arc<RateGate>>,
    sinks: BTreeMap<String, Arc<RateGate>>,
}

impl Gates {
    /// By the name of each endpoint.
    pub fn new<'a>(rates: impl IntoIterator<Item = (&'a str, Rates)>, now: Instant) -> Self {
        let mut gates = Gates::default();
        for (endpoint, Rates { r#in, out }) in rates {
            for (rate, side) in [(r#in, &mut gates.sources), (out, &mut gates.sinks)] {
                if rate.is_limited() {
                    side.insert(endpoint.to_owned(), Arc::new(RateGate::new(rate, now)));
                }
            }
        }
        gates
    }

    pub fn of_source(&self, endpoint: &str) -> Option<Arc<RateGate>> {
        self.sources.get(endpoint).cloned()
    }

    pub fn of_sink(&self, endpoint: &str) -> Option<Arc<RateGate>> {
        self.sinks.get(endpoint).cloned()
    }

    fn all(&self) -> impl Iterator<Item = &RateGate> {
        self.sources.values().chain(self.sinks.values()).map(|gate| &**gate)
    }

    /// How often one of them was closed to somebody.
    pub fn closed(&self) -> u64 {
        self.all().map(|gate| gate.closed.get()).sum()
    }

    /// Whether one of them is closed to somebody now.
    pub fn is_closed(&self) -> bool {
        self.all().any(|gate| gate.state().is_closed)
    }

    /// What is left at each.
    pub fn levels(&self, now: Instant) -> Vec<Level> {
        let of = |side: &BTreeMap<String, Arc<RateGate>>, messages, bytes| {
            let gates =
                side.iter().flat_map(|(endpoint, gate)| gate.levels(endpoint, [messages, bytes], now));
            gates.collect::<Vec<_>>()
        };
        let into = of(&self.sources, Passing::MessagesIn, Passing::BytesIn);
        let out = of(&self.sinks, Passing::MessagesOut, Passing::BytesOut);
        into.into_iter().chain(out).collect()
    }
}

#[derive(Debug)]
pub struct RateGate {
    state: Mutex<State>,
    /// Somebody waits: a shard looks at every step, and nearly never has to take the lock.
    is_waited_at: AtomicBool,
    /// How often somebody had to wait.
    closed: Counter,
}

#[derive(Debug)]
struct State {
    messages: Option<Bucket>,
    bytes: Option<Bucket>,
    waiting: Vec<Waker>,
    /// Somebody waits, and a look found nothing left.
    is_closed: bool,
}

impl State {
    fn fill(&mut self, now: Instant) {
        self.messages.iter_mut().chain(&mut self.bytes).for_each(|bucket| bucket.fill(now));
    }

    fn is_open(&self) -> bool {
        self.messages.iter().chain(&self.bytes).all(Bucket::is_open)
    }
}

impl RateGate {
    pub fn new(rate: Rate, now: Instant) -> Self {
        let bucket = |rate: u64| Bucket::new(rate, rate, now);
        let state = State {
            messages: rate.messages.map(bucket),
            bytes: rate.bytes.map(bucket),
            waiting: Vec::new(),
            is_closed: false,
        };
        RateGate {
            state: Mutex::new(state),
            is_waited_at: AtomicBool::new(false),
            closed: Counter::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic under this lock")
    }

    /// Ready while it is open, as of the last look. Pending until [`Self::look`] opens it.
    pub fn poll_open(&self, ctx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state();
        if state.is_open() {
            return Poll::Ready(());
        }
        if !state.waiting.iter().any(|waker| waker.will_wake(ctx.waker())) {
            state.waiting.push(ctx.waker().clone());
        }
        self.is_waited_at.store(true, Ordering::SeqCst);
        Poll::Pending
    }

    /// So much has passed. It may be more than there was: that is owed.
    pub fn pass(&self, messages: u64, bytes: u64) {
        let mut state = self.state();
        state.messages.iter_mut().for_each(|bucket| bucket.spend(messages));
        state.bytes.iter_mut().for_each(|bucket| bucket.spend(bytes));
    }

    /// Adds what time has filled, and lets those in who wait if it is open; otherwise,
    /// when to look again.
    pub fn look(&self, now: Instant) -> Option<Instant> {
        let mut state = self.state();
        state.fill(now);
        if !state.is_open() {
            if state.waiting.is_empty() {
                return None;
            }
            if !std::mem::replace(&mut state.is_closed, true) {
                self.closed.add(1);
            }
            return state.messages.iter().chain(&state.bytes).map(Bucket::opens_at).max();
        }
        state.is_closed = false;
        self.is_waited_at.store(false, Ordering::SeqCst);
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
        None
    }

    fn levels(&self, endpoint: &str, [messages, bytes]: [Passing; 2], now: Instant) -> Vec<Level> {
        let mut state = self.state();
        state.fill(now);
        let level = |passing, bucket: &Bucket| {
            Level::new(LevelOf::Passing(passing), endpoint.to_owned(), bucket, now)
        };
        let messages = state.messages.iter().map(|bucket| level(messages, bucket));
        messages.chain(state.bytes.iter().map(|bucket| level(bytes, bucket))).collect()
    }

    /// Ready once it is open. For whoever has a clock: `arm` has `ctx` woken at an instant.
    pub fn poll_open_at(&self, now: Instant, ctx: &mut Context<'_>, arm: impl FnOnce(Instant)) -> Poll<()> {
        if self.poll_open(ctx).is_ready() {
            return Poll::Ready(());
        }
        match self.look(now) {
            Some(opens_at) => {
                arm(opens_at);
                Poll::Pending
            }
            None => Poll::Ready(()),
        }
    }

    /// Whether a look at it may let somebody in.
    pub fn is_waited_at(&self) -> bool {
        self.is_waited_at.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests;
