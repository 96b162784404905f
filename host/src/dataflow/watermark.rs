//! `Watermarks`: how far each source of a dataflow has come in logical time, and the
//! time up to which a window may be sure that all has arrived. Serves windows;
//! decisions only, knows neither messages nor clocks.
//!
//! ```text
//! source A  ───── greatest time seen, less lateness ──┐
//! source B  ───── idle: does not count ───────────────┤ least ──► watermark, never back
//! delay     ───── all up to here has left it ─────────┘
//! ```

use std::time::Duration;

use crate::{batch::Time, clock::Instant};

/// A logical time as windows compare it: whose clock it was does not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment {
    pub seconds: u64,
    pub nanos: u32,
    pub counter: u64,
}

impl Moment {
    /// After all others.
    pub const END: Moment = Moment { seconds: u64::MAX, nanos: 0, counter: 0 };

    pub fn of(time: Time) -> Self {
        Moment { seconds: time.seconds, nanos: time.nanos, counter: time.counter }
    }

    fn at(since_epoch: Duration) -> Self {
        Moment { seconds: since_epoch.as_secs(), nanos: since_epoch.subsec_nanos(), counter: 0 }
    }

    /// Without its counter.
    fn since_epoch(self) -> Duration {
        Duration::new(self.seconds, self.nanos)
    }

    pub fn less(self, lateness: Duration) -> Self {
        if lateness.is_zero() { self } else { Moment::at(self.since_epoch().saturating_sub(lateness)) }
    }

    pub fn plus(self, duration: Duration) -> Self {
        if duration.is_zero() { self } else { Moment::at(self.since_epoch().saturating_add(duration)) }
    }

    /// How much later this is, in wall time.
    pub fn since(self, earlier: Moment) -> Duration {
        self.since_epoch().saturating_sub(earlier.since_epoch())
    }
}

/// How a dataflow tells time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Timing {
    /// How far behind the latest a message may come and still be in time.
    pub lateness: Duration,
    /// A source that says nothing for so long holds nobody up.
    pub idle: Duration,
    /// Steps in which time goes on while nothing arrives.
    pub tick: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        let (idle, tick) = (Duration::from_secs(5), Duration::from_millis(100));
        Timing { lateness: Duration::ZERO, idle, tick }
    }
}

/// One source of a dataflow: a real one, or a delay or accumulate inside it.
#[derive(Clone, Copy, Debug)]
struct Source {
    /// No message with an earlier time will come, but late ones.
    at: Moment,
    /// When it was heard last; `None` for one inside, which is never idle.
    heard: Option<Instant>,
    ended: bool,
}

/// What a window knows.
#[derive(Clone, Copy, Debug, Default)]
struct Reached {
    at: Moment,
    /// When all its sources had become idle, and where the watermark was then.
    idle: Option<(Instant, Moment)>,
}

/// The watermarks of one dataflow.
#[derive(Debug)]
pub struct Watermarks {
    timing: Timing,
    sources: Vec<Source>,
    windows: Vec<Reached>,
}

impl Watermarks {
    /// For `outside` sources that begin to be heard `now`, and `windows`, each of which
    /// is a source as well, behind them.
    pub fn new(timing: Timing, outside: usize, windows: usize, now: Instant) -> Self {
        let source = |heard| Source { at: Moment::default(), heard, ended: false };
        let mut sources = vec![source(Some(now)); outside];
        sources.resize(outside + windows, source(None));
        Watermarks { timing, sources, windows: vec![Reached::default(); windows] }
    }

    /// A source has delivered messages, the latest at `latest`.
    pub fn heard(&mut self, source: u32, latest: Moment, now: Instant) {
        let lateness = self.timing.lateness;
        let source = &mut self.sources[source as usize];
        source.heard = Some(now);
        source.at = source.at.max(latest.less(lateness));
    }

    /// All before `at` has left a window.
    pub fn passed(&mut self, source: u32, at: Moment) {
        let source = &mut self.sources[source as usize];
        source.at = source.at.max(at);
    }

    /// Nothing more will come from a source.
    pub fn ended(&mut self, source: u32) {
        self.sources[source as usize].ended = true;
    }

    /// Whether no source outside will give anything more.
    pub fn all_ended(&self) -> bool {
        self.sources.iter().filter(|source| source.heard.is_some()).all(|source| source.ended)
    }

    /// Takes up what was known before a restart.
    pub fn restore(&mut self, window: usize, at: Moment) {
        self.windows[window].at = at;
    }

    /// Up to where all has come that a window gets from the sources `upstream`.
    pub fn reached(&self, window: usize) -> Moment {
        self.windows[window].at
    }

    /// Looks again. The watermark of a window that is fed by the sources `upstream`.
    pub fn advance(&mut self, window: usize, upstream: &[u32], now: Instant) -> Moment {
        let Watermarks { timing, sources, windows } = self;
        let reached = &mut windows[window];
        let of = |source: &u32| &sources[*source as usize];
        let active = upstream.iter().map(of).filter(|source| !source.is_idle(timing.idle, now));
        let at = match active.map(|source| source.at).min() {
            Some(at) => {
                reached.idle = None;
                at
            }
            None if upstream.iter().map(of).all(|source| source.ended) => Moment::END,
            None => {
                let last = upstream.iter().filter_map(|source| of(source).heard).max();
                let since = last.map_or(now, |last| last.plus(timing.idle));
                // The last to become idle said how far it was; nobody holds it up now.
                let said = upstream.iter().map(|source| of(source).at).max().unwrap_or_default();
                let (since, from) = *reached.idle.get_or_insert((since, reached.at.max(said)));
                if from == Moment::default() { from } else { from.plus(now.since(since)) }
            }
        };
        reached.at = reached.at.max(at);
        reached.at
    }

    /// When a window whose earliest open time is `open` should be looked at again,
    /// though nothing arrives.
    pub fn next_look(&self, window: usize, upstream: &[u32], open: Moment, now: Instant) -> Option<Instant> {
        let of = |source: &u32| &self.sources[*source as usize];
        if upstream.iter().any(|source| of(source).heard.is_none() && !of(source).ended) {
            // What it waits for is inside, and is looked at itself.
            return None;
        }
        let active = upstream.iter().map(of).filter(|source| !source.is_idle(self.timing.idle, now));
        if let Some(idle_at) =
            active.filter_map(|source| source.heard).map(|heard| heard.plus(self.timing.idle)).min()
        {
            return Some(idle_at.max(now.plus(self.timing.tick)));
        }
        let Reached { at, idle } = self.windows[window];
        let left = open.since(at).max(self.timing.tick);
        idle.map(|_| now.plus(left))
    }
}

impl Source {
    fn is_idle(&self, after: Duration, now: Instant) -> bool {
        self.ended || self.heard.is_some_and(|heard| now.since(heard) >= after)
    }
}

#[cfg(test)]
mod tests;
