//! `Watermarks`: how far each source of a dataflow has come in logical time, and the
//! time up to which a window may be sure that all has arrived. Serves windows;
//! decisions only, knows neither messages nor clocks.
//!
//! ```text
//! source A  ───── greatest time seen, less lateness ──┐
//! source B  ───── idle: does not count ───────────────┤ least ──► watermark, never back
//! source C  ─┬─── stream, such as a partition ────────┤
//!            └─── stream, read behind the other ──────┤
//! delay     ───── all up to here has left it ─────────┘
//! ```

use std::time::Duration;

use crate::{batch::Time, clock::Instant, queue::Waits};

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

/// Most that counts of the time since the last look as silence: the rest may have been a stall.
/// So often somebody looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// One source of a dataflow: a real one, or a delay or accumulate inside it.
#[derive(Clone, Debug)]
struct Source {
    /// No message with an earlier time will come, but late ones; of one that reads streams, each
    /// of these knows.
    at: Moment,
    /// How long it has said nothing though it might have; `None` for one inside, which is never
    /// idle.
    quiet: Option<Duration>,
    /// Up to when that is known.
    looked: Instant,
    /// Deliveries of it that were taken and not heard yet.
    under_way: u32,
    ended: bool,
    /// What it reads, if that is several.
    streams: Vec<Stream>,
}

/// One of several that a source reads, each in its own order: one may be far behind another.
#[derive(Clone, Debug)]
struct Stream {
    name: [u64; 2],
    at: Moment,
    quiet: Duration,
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
        let source = |quiet| Source {
            at: Moment::default(),
            quiet,
            looked: now,
            under_way: 0,
            ended: false,
            streams: Vec::new(),
        };
        let mut sources = vec![source(Some(Duration::ZERO)); outside];
        sources.resize(outside + windows, source(None));
        Watermarks { timing, sources, windows: vec![Reached::default(); windows] }
    }

    /// A delivery of a source was taken: it will be heard.
    pub fn came(&mut self, source: u32) {
        self.sources[source as usize].under_way += 1;
    }

    /// Time has gone on, before a delivery of `heard` if there is one. Whoever is not let say
    /// anything, for what `waits` knows or because something of it is under way, is not quiet.
    pub fn look(&mut self, heard: Option<u32>, now: Instant, waits: impl Fn(u32) -> Waits) {
        for (number, source) in (0..).zip(&mut self.sources) {
            if source.quiet.is_none() || source.ended {
                continue;
            }
            let passed = now.since(source.looked).min(LOOK_EVERY);
            let counts = match heard {
                Some(heard) if heard == number => passed,
                _ if source.under_way > 0 => continue,
                _ => match waits(number) {
                    Waits::No => passed,
                    Waits::ToBeTaken => continue,
                    Waits::ForStreams => Duration::ZERO,
                },
            };
            source.looked = now;
            let streams = source.streams.iter_mut().map(|stream| &mut stream.quiet);
            streams.chain(&mut source.quiet).for_each(|quiet| *quiet += counts);
        }
    }

    /// A source has delivered messages, of one of its streams and the latest at `latest`.
    pub fn heard(&mut self, source: u32, stream: Option<[u64; 2]>, latest: Moment) {
        let at = latest.less(self.timing.lateness);
        let source = &mut self.sources[source as usize];
        source.quiet = Some(Duration::ZERO);
        source.under_way = source.under_way.saturating_sub(1);
        if source.streams.is_empty() {
            source.at = source.at.max(at);
        } else if let Some(stream) = source.streams.iter_mut().find(|it| Some(it.name) == stream) {
            stream.quiet = Duration::ZERO;
            stream.at = stream.at.max(at);
        }
    }

    /// A source reads these streams from now on.
    pub fn reads(&mut self, source: u32, streams: &[[u64; 2]]) {
        let source = &mut self.sources[source as usize];
        source.streams.retain(|stream| streams.contains(&stream.name));
        for &name in streams {
            if source.streams.iter().all(|stream| stream.name != name) {
                source.streams.push(Stream { name, at: Moment::default(), quiet: Duration::ZERO });
            }
        }
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
        self.sources.iter().filter(|source| source.quiet.is_some()).all(|source| source.ended)
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
        let at = match upstream.iter().filter_map(|source| of(source).active(timing.idle)).min() {
            Some(at) => {
                reached.idle = None;
                at
            }
            None if upstream.iter().map(of).all(|source| source.ended) => Moment::END,
            None => {
                let quiet = upstream.iter().filter_map(|source| of(source).quiet_for()).min();
                let since = now.less(quiet.unwrap_or_default().saturating_sub(timing.idle));
                // The last to become idle said how far it was; nobody holds it up now.
                let said = upstream.iter().map(|source| of(source).greatest()).max().unwrap_or_default();
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
        if upstream.iter().any(|source| of(source).quiet.is_none() && !of(source).ended) {
            // What it waits for is inside, and is looked at itself.
            return None;
        }
        if let Some(left) = upstream.iter().filter_map(|source| of(source).left(self.timing.idle)).min() {
            return Some(now.plus(left.min(LOOK_EVERY).max(self.timing.tick)));
        }
        let Reached { at, idle } = self.windows[window];
        let left = open.since(at).max(self.timing.tick);
        idle.map(|_| now.plus(left))
    }
}

impl Source {
    /// How far it is, unless it is idle.
    fn active(&self, idle: Duration) -> Option<Moment> {
        if self.ended {
            return None;
        }
        if self.streams.is_empty() {
            return self.quiet.is_none_or(|quiet| quiet < idle).then_some(self.at);
        }
        self.streams.iter().filter(|stream| stream.quiet < idle).map(|stream| stream.at).min()
    }

    /// The latest that was heard of it.
    fn greatest(&self) -> Moment {
        self.streams.iter().map(|stream| stream.at).fold(self.at, Moment::max)
    }

    /// Since it, or the last of its streams, was heard.
    fn quiet_for(&self) -> Option<Duration> {
        if self.ended {
            return None;
        }
        self.streams.iter().map(|stream| stream.quiet).min().or(self.quiet)
    }

    /// Until it, or the next of its streams, is idle if nothing comes; `None` if all are.
    fn left(&self, idle: Duration) -> Option<Duration> {
        if self.ended {
            return None;
        }
        let of = |quiet: Duration| idle.checked_sub(quiet).filter(|left| !left.is_zero());
        match self.streams.is_empty() {
            true => self.quiet.and_then(of),
            false => self.streams.iter().filter_map(|stream| of(stream.quiet)).min(),
        }
    }
}

#[cfg(test)]
mod tests;
