//! `Watermarks`: how far each source of a dataflow has come in logical time, and the
//! time up to which a window may be sure that all has arrived. Serves windows;
//! decisions only, knows neither messages nor clocks.
//!
//! ```text
//! source A  ───── greatest time seen, less lateness ──┐
//! source B  ───── idle: does not count ───────────────┤ least ──► watermark, never back
//! source C  ─┬─── stream, such as a partition ────────┤
//!            └─── stream, more of it is there ────────┤
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
#[derive(Clone, Debug)]
struct Source {
    /// No message with an earlier time will come, but late ones; of one that reads streams, each
    /// of these knows.
    at: Moment,
    /// When it was heard last; `None` for one inside, which is never idle.
    heard: Option<Instant>,
    /// Deliveries of it that were taken and not heard yet.
    under_way: u32,
    ended: bool,
    /// What it reads, if that is several.
    streams: Vec<Stream>,
    /// It may not read them, so that nobody knows how far they are.
    is_behind: bool,
}

/// One of several that a source reads, each in its own order: one may be far behind another.
#[derive(Clone, Debug)]
struct Stream {
    name: [u64; 2],
    at: Moment,
    /// When it was heard last, or known to be heard of no more.
    heard: Instant,
    /// Of the last message that was heard of it.
    place: u64,
    /// The place of the last one that there is; `None` where there are more, or may be.
    last: Option<u64>,
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
        let source = |heard| Source {
            at: Moment::default(),
            heard,
            under_way: 0,
            ended: false,
            streams: Vec::new(),
            is_behind: false,
        };
        let mut sources = vec![source(Some(now)); outside];
        sources.resize(outside + windows, source(None));
        Watermarks { timing, sources, windows: vec![Reached::default(); windows] }
    }

    /// A delivery of a source was taken: it will be heard.
    pub fn came(&mut self, source: u32) {
        self.sources[source as usize].under_way += 1;
    }

    /// Sources that `waits` knows to have more, or of which something is under way, say nothing
    /// because they are not let: that makes none idle.
    pub fn look(&mut self, now: Instant, waits: impl Fn(u32) -> bool) {
        let idle = self.timing.idle;
        for (number, source) in self.sources.iter_mut().enumerate() {
            // Asked seldom: it takes a lock.
            let is_due = source.heard.is_some_and(|heard| now.since(heard) >= idle);
            if is_due && !source.ended && (source.under_way > 0 || waits(number as u32)) {
                source.heard = Some(now);
            }
        }
    }

    /// A source has delivered messages, the latest at `latest` and the last of them at `place` in
    /// a stream.
    pub fn heard(&mut self, source: u32, place: Option<([u64; 2], u64)>, latest: Moment, now: Instant) {
        let lateness = self.timing.lateness;
        let source = &mut self.sources[source as usize];
        source.heard = Some(now);
        source.under_way = source.under_way.saturating_sub(1);
        if source.streams.is_empty() {
            source.at = source.at.max(latest.less(lateness));
        } else if let Some((name, place)) = place
            && let Some(stream) = source.streams.iter_mut().find(|stream| stream.name == name)
        {
            stream.heard = now;
            stream.at = stream.at.max(latest.less(lateness));
            stream.place = stream.place.max(place);
        }
    }

    /// A source reads these streams from now on.
    pub fn reads(&mut self, source: u32, streams: &[[u64; 2]], now: Instant) {
        let source = &mut self.sources[source as usize];
        source.streams.retain(|stream| streams.contains(&stream.name));
        for &name in streams {
            if source.streams.iter().all(|stream| stream.name != name) {
                let stream = Stream { name, at: Moment::default(), heard: now, place: 0, last: None };
                source.streams.push(stream);
            }
        }
    }

    /// Behind the place `upto` a stream has nothing more for now.
    pub fn all_of(&mut self, source: u32, stream: [u64; 2], upto: u64, now: Instant) {
        let streams = &mut self.sources[source as usize].streams;
        if let Some(stream) = streams.iter_mut().find(|it| it.name == stream) {
            if stream.last.is_none() {
                stream.heard = now;
            }
            stream.last = Some(upto);
        }
    }

    /// A stream has more again.
    pub fn more_of(&mut self, source: u32, stream: [u64; 2]) {
        let streams = &mut self.sources[source as usize].streams;
        if let Some(stream) = streams.iter_mut().find(|it| it.name == stream) {
            stream.last = None;
        }
    }

    /// All before `at` has left a window.
    pub fn passed(&mut self, source: u32, at: Moment) {
        let source = &mut self.sources[source as usize];
        source.at = source.at.max(at);
    }

    /// A source may not read: its streams may have more.
    pub fn behind(&mut self, source: u32) {
        self.sources[source as usize].is_behind = true;
    }

    /// A source has read all that there was in its streams.
    pub fn caught_up(&mut self, source: u32, now: Instant) {
        let source = &mut self.sources[source as usize];
        source.is_behind = false;
        source.streams.iter_mut().for_each(|stream| stream.heard = now);
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
        let at = match upstream.iter().filter_map(|source| of(source).active(timing.idle, now)).min() {
            Some(at) => {
                reached.idle = None;
                at
            }
            None if upstream.iter().map(of).all(|source| source.ended) => Moment::END,
            None => {
                let last = upstream.iter().filter_map(|source| of(source).heard_last()).max();
                let since = last.map_or(now, |last| last.plus(timing.idle));
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
        if upstream.iter().any(|source| of(source).heard.is_none() && !of(source).ended) {
            // What it waits for is inside, and is looked at itself.
            return None;
        }
        let active = || upstream.iter().map(of).filter(|it| it.active(self.timing.idle, now).is_some());
        if active().next().is_some() {
            // Of a stream that has more nobody knows when: it will be heard.
            let idle_at = active().filter_map(|source| source.idle_at(self.timing.idle, now)).min();
            return idle_at.map(|idle_at| idle_at.max(now.plus(self.timing.tick)));
        }
        let Reached { at, idle } = self.windows[window];
        let left = open.since(at).max(self.timing.tick);
        idle.map(|_| now.plus(left))
    }
}

impl Source {
    /// How far it is, unless it is idle.
    fn active(&self, after: Duration, now: Instant) -> Option<Moment> {
        if self.ended {
            return None;
        }
        if self.streams.is_empty() {
            let is_idle = self.heard.is_some_and(|heard| now.since(heard) >= after);
            return (!is_idle).then_some(self.at);
        }
        let active = self.streams.iter().filter(|stream| self.is_behind || !stream.is_idle(after, now));
        active.map(|stream| stream.at).min()
    }

    /// The latest that was heard of it.
    fn greatest(&self) -> Moment {
        self.streams.iter().map(|stream| stream.at).fold(self.at, Moment::max)
    }

    fn heard_last(&self) -> Option<Instant> {
        self.streams.iter().map(|stream| Some(stream.heard)).fold(self.heard, Option::max)
    }

    /// When it, or the next of its streams, becomes idle if nothing comes.
    fn idle_at(&self, after: Duration, now: Instant) -> Option<Instant> {
        if self.streams.is_empty() {
            return self.heard.map(|heard| heard.plus(after));
        }
        if self.is_behind {
            return None;
        }
        let active = self.streams.iter().filter(|stream| stream.is_whole() && !stream.is_idle(after, now));
        active.map(|stream| stream.heard.plus(after)).min()
    }
}

impl Stream {
    /// Whether all that there is of it has been heard.
    fn is_whole(&self) -> bool {
        self.last.is_some_and(|last| self.place >= last)
    }

    fn is_idle(&self, after: Duration, now: Instant) -> bool {
        self.is_whole() && now.since(self.heard) >= after
    }
}

#[cfg(test)]
mod tests;
