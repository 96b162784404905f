//! `Windows`: what accumulates and delays of one dataflow hold until a logical time is
//! complete. Between the region, which fills them, and flow, which sends on what they
//! release; knows guests only by what they gave, and the disk as a list of changes.
//!
//! ```text
//! region ─► stage, hold ─► open, by logical time ─► watermark passes ─► released,
//!                                                                        numbered
//! ```

mod record;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use self::record::Key;
use crate::{
    batch::{Batch, BatchBuilder, Entry, Kind, Span, Stamped, Time},
    clock::Instant,
    dataflow::watermark::{Moment, Timing, Watermarks},
    guest::Operator,
    queue::Places,
    store::WindowSpace,
    tenant::Tenant,
};

/// An accumulate or delay of a plan.
#[derive(Debug)]
pub struct WindowPlan {
    pub operator: Arc<Operator>,
    /// Sources whose messages reach it without passing another window; the windows of
    /// a plan follow its outside sources, in their order.
    pub upstream: Vec<u32>,
}

/// What a change makes of a key on disk.
pub type Change = (Vec<u8>, Option<Vec<u8>>);

/// The windows of one dataflow.
#[derive(Debug)]
pub struct Windows {
    plans: Vec<Arc<Operator>>,
    upstream: Vec<Vec<u32>>,
    windows: Vec<Window>,
    watermarks: Watermarks,
    /// Sources before the windows' own.
    outside: u32,
    sources: Vec<Covered>,
    space: WindowSpace,
    /// What has changed since the last commit.
    changes: Vec<Change>,
    /// What is open, in bytes; the tenant's sum has it too.
    bytes: u64,
    tenant: Arc<Tenant>,
}

impl Drop for Windows {
    fn drop(&mut self) {
        self.tenant.window_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Windows hold as much as policy allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// What windows have of a source.
#[derive(Debug)]
struct Covered {
    name: String,
    /// All messages of this stream up to this place.
    upto: ([u64; 2], u64),
    /// What is on its way.
    arriving: Option<([u64; 2], u64)>,
}

#[derive(Debug, Default)]
struct Window {
    open: BTreeMap<Moment, Held>,
    /// Of the release made last.
    number: u64,
    /// Names pieces on disk, none twice.
    piece: u64,
    released: VecDeque<Release>,
}

/// What is held for one logical time: a staged value, or messages.
#[derive(Debug)]
struct Held {
    /// Its first message's, with the node.
    time: Time,
    node: Box<[u8]>,
    messages: Batch,
    /// Further ones, that are put together when they are released.
    more: Vec<Batch>,
    /// On disk.
    pieces: Vec<u64>,
}

/// What a window lets go at once.
#[derive(Clone, Debug)]
pub struct Release {
    pub window: usize,
    /// From 1, without gaps; the same after a restart.
    pub number: u64,
    pub messages: Stamped,
    /// All before this has left the window with it.
    pub passed: Moment,
}

/// What becomes of a message whose time is complete already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InTime {
    /// It has this moment.
    At(Moment),
    Late,
}

impl Windows {
    /// Takes up what an earlier run has left in `space`. `sources` are all sources'
    /// names, the windows' last.
    pub fn new(
        tenant: &Arc<Tenant>,
        plans: &[WindowPlan],
        sources: Vec<String>,
        timing: Timing,
        space: WindowSpace,
        now: Instant,
    ) -> Self {
        let outside = sources.len() - plans.len();
        let covered = |name| Covered { name, upto: ([0; 2], 0), arriving: None };
        let mut windows = Windows {
            sources: sources.into_iter().map(covered).collect(),
            plans: plans.iter().map(|plan| plan.operator.clone()).collect(),
            upstream: plans.iter().map(|plan| plan.upstream.clone()).collect(),
            windows: plans.iter().map(|_| Window::default()).collect(),
            watermarks: Watermarks::new(timing, outside, plans.len(), now),
            outside: outside as u32,
            space,
            changes: Vec::new(),
            bytes: 0,
            tenant: tenant.clone(),
        };
        windows.load();
        windows
    }

    fn load(&mut self) {
        for (key, value) in self.space.take_kept() {
            if let Some((source, upto)) = record::read_covered(&key, &value) {
                if let Some(covered) = self.sources.iter_mut().find(|covered| covered.name == source) {
                    covered.upto = upto;
                }
                continue;
            }
            let restored = record::read(&key, &value, |operation| {
                self.plans.iter().position(|operator| operator.operation() == operation)
            });
            let Some((index, restored)) = restored else {
                tracing::warn!(key = %String::from_utf8_lossy(&key), "a record of a window is passed over");
                continue;
            };
            let window = &mut self.windows[index];
            match restored {
                record::Restored::Piece { moment, number, messages } => {
                    // However full it is: it was let in before.
                    let bytes = messages.batch.bytes_held() as u64;
                    self.bytes += bytes;
                    self.tenant.window_bytes.fetch_add(bytes, Ordering::Relaxed);
                    window.piece = window.piece.max(number);
                    window.hold(moment, messages, number);
                }
                record::Restored::Release { number, messages } => {
                    window.number = window.number.max(number);
                    let passed = Moment::default();
                    window.released.push_back(Release { window: index, number, messages, passed });
                }
                record::Restored::Reached { moment, number } => {
                    window.number = window.number.max(number);
                    self.watermarks.restore(index, moment);
                }
            }
        }
        for (index, window) in self.windows.iter_mut().enumerate() {
            // Behind what was released before the restart.
            let passed = self.watermarks.reached(index);
            match window.released.back_mut() {
                Some(last) => last.passed = passed,
                None => self.watermarks.passed(self.outside + index as u32, passed),
            }
        }
    }

    /// Whether there are any.
    pub fn is_empty(&self) -> bool {
        self.windows.is_empty()
    }

    /// A delivery has come. How many of its messages, the first ones, windows have
    /// already.
    pub fn arrived(&mut self, source: u32, places: Option<Places>) -> u32 {
        let covered = &mut self.sources[source as usize];
        covered.arriving = None;
        let Some(Places { stream, ends }) = places else { return 0 };
        covered.arriving = ends.last().map(|end| (stream, *end));
        let (same, upto) = covered.upto;
        if stream == same { ends.partition_point(|end| *end <= upto) as u32 } else { 0 }
    }

    /// What came last from a source is through the region: with what windows took of
    /// it goes how far they have it.
    pub fn absorbed(&mut self, source: u32) {
        if !self.has_changes() {
            return;
        }
        let covered = &mut self.sources[source as usize];
        if let Some((stream, end)) = covered.arriving.take()
            && (covered.upto.0 != stream || covered.upto.1 < end)
        {
            covered.upto = (stream, end);
            self.changes.push(record::covered(&covered.name, covered.upto));
        }
    }

    /// A delivery of an outside source, the latest of its messages at `latest`, is
    /// through the region.
    pub fn heard(&mut self, source: u32, latest: Moment, now: Instant) {
        self.watermarks.heard(source, latest, now);
    }

    /// The source gives nothing more.
    pub fn ended(&mut self, source: u32) {
        self.watermarks.ended(source);
    }

    /// A release is through the region.
    pub fn passed(&mut self, window: usize, passed: Moment) {
        self.watermarks.passed(self.outside + window as u32, passed);
    }

    /// Whether a message of this logical time is in time for a window. Those that are
    /// late and may have the next window get its moment.
    pub fn in_time(&self, window: usize, moment: Moment, next_window: bool) -> InTime {
        let reached = self.watermarks.reached(window);
        if moment >= reached {
            return InTime::At(moment);
        }
        if !next_window {
            return InTime::Late;
        }
        let next = self.windows[window].open.range(reached..).next();
        InTime::At(next.map_or(reached, |(moment, _)| *moment))
    }

    /// A window's call of its guest: the staged value, an empty message at first, and
    /// the messages that have come.
    pub fn call(&self, window: usize, moment: Moment, time: (Time, &[u8]), messages: &Batch) -> Batch {
        let held = self.windows[window].open.get(&moment).map(|held| &held.messages);
        let bytes = messages.entries.iter().map(Entry::bytes_len).sum::<usize>();
        let staged_bytes = held.map_or(time.1.len(), |staged| staged.arena.len());
        let mut builder = BatchBuilder::with_capacity("", messages.len() + 1, bytes + staged_bytes);
        match held {
            Some(staged) => builder.copy(&staged.entries[0], &staged.arena),
            None => {
                let (Time { seconds, nanos, counter, .. }, node) = time;
                let span = Span { offset: 0, len: node.len() as u32 };
                builder.copy(&Entry { seconds, nanos, counter, node: span, ..EMPTY_MESSAGE }, node);
            }
        }
        messages.entries.iter().for_each(|entry| builder.copy(entry, &messages.arena));
        builder.finish()
    }

    /// Makes room for `added` bytes where `gone` were.
    fn charge(&mut self, added: usize, gone: usize) -> Result<(), Full> {
        let (added, gone) = (added as u64, gone as u64);
        let held = &self.tenant.window_bytes;
        let before = held.fetch_add(added, Ordering::Relaxed);
        if added > gone && before + added - gone > self.tenant.limits.window_bytes_max {
            held.fetch_sub(added, Ordering::Relaxed);
            return Err(Full);
        }
        held.fetch_sub(gone, Ordering::Relaxed);
        self.bytes = self.bytes + added - gone;
        Ok(())
    }

    /// Replaces the staged value of a window.
    pub fn stage(
        &mut self,
        window: usize,
        moment: Moment,
        time: (Time, &[u8]),
        value: &Batch,
    ) -> Result<(), Full> {
        let value = compact(value, 0..1);
        let before = self.windows[window].open.get(&moment).map_or(0, |held| held.messages.bytes_held());
        self.charge(value.bytes_held(), before)?;
        let state = &mut self.windows[window];
        let held = state.open.entry(moment).or_insert_with(|| Held::new(time));
        if held.pieces.is_empty() {
            state.piece += 1;
            held.pieces.push(state.piece);
        }
        held.messages = value;
        let key = Key::Piece { moment, number: held.pieces[0] };
        let record = record::write(&held.messages, &[held.stamp()], &held.node);
        self.changes.push((key.to_bytes(self.plans[window].operation()), Some(record)));
        Ok(())
    }

    /// Holds a message until its new time. `time` has its node in the bytes beside it.
    pub fn hold(&mut self, window: usize, time: (Time, &[u8]), message: (&Entry, &[u8])) -> Result<(), Full> {
        let moment = Moment::of(time.0);
        let mut builder = BatchBuilder::with_capacity("", 1, message.0.bytes_len());
        builder.copy(message.0, message.1);
        let message = builder.finish();
        self.charge(message.bytes_held(), 0)?;
        let state = &mut self.windows[window];
        state.piece += 1;
        let number = state.piece;
        let held = state.open.entry(moment).or_insert_with(|| Held::new(time));
        held.add(message, number);
        let last = held.more.last().unwrap_or(&held.messages);
        let record = record::write(last, &[held.stamp()], &held.node);
        let key = Key::Piece { moment, number };
        self.changes.push((key.to_bytes(self.plans[window].operation()), Some(record)));
        Ok(())
    }

    /// Looks at every watermark again and moves what is complete to the releases.
    pub fn advance(&mut self, now: Instant) {
        for index in 0..self.windows.len() {
            let reached = self.watermarks.advance(index, &self.upstream[index], now);
            self.release(index, reached);
        }
    }

    fn release(&mut self, index: usize, reached: Moment) {
        let window = &mut self.windows[index];
        let later = window.open.split_off(&reached);
        let complete = std::mem::replace(&mut window.open, later);
        if complete.is_empty() {
            match window.released.back_mut() {
                Some(last) => last.passed = last.passed.max(reached),
                None => self.watermarks.passed(self.outside + index as u32, reached),
            }
            return;
        }
        let operation = self.plans[index].operation();
        let mut building = Building::default();
        for (moment, held) in complete {
            for number in &held.pieces {
                self.changes.push((Key::Piece { moment, number: *number }.to_bytes(operation), None));
            }
            let (stamp, node) = (held.stamp(), held.node);
            for batch in [held.messages].into_iter().chain(held.more) {
                let bytes = batch.bytes_held() as u64;
                self.bytes -= bytes;
                self.tenant.window_bytes.fetch_sub(bytes, Ordering::Relaxed);
                for entry in &batch.entries {
                    building.push(entry, &batch.arena, (stamp, &node));
                }
            }
        }
        for messages in building.finish() {
            window.number += 1;
            let number = window.number;
            let record = record::write(&messages.batch, &messages.times, &[]);
            self.changes.push((Key::Release { number }.to_bytes(operation), Some(record)));
            window.released.push_back(Release { window: index, number, messages, passed: Moment::default() });
        }
        window.released.back_mut().expect("something was complete").passed = reached;
        let record = record::reached(reached, window.number);
        self.changes.push((Key::Reached.to_bytes(operation), Some(record)));
    }

    /// The next release to send through the region.
    pub fn next_release(&mut self) -> Option<Release> {
        self.windows.iter_mut().find_map(|window| window.released.pop_front())
    }

    /// A release is confirmed, or absorbed by another window.
    pub fn confirmed(&mut self, window: usize, number: u64) {
        let key = Key::Release { number }.to_bytes(self.plans[window].operation());
        self.changes.push((key, None));
    }

    pub fn has_changes(&self) -> bool {
        !self.changes.is_empty()
    }

    /// Whether nothing waits to be sent on, and nothing is open that only the end of
    /// the sources would release.
    pub fn is_done(&self) -> bool {
        let released = self.windows.iter().all(|window| window.released.is_empty());
        released && (self.open() == 0 || !self.watermarks.all_ended())
    }

    /// What has changed since the last call, to be written as a whole.
    pub fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    pub fn space(&self) -> &WindowSpace {
        &self.space
    }

    /// When to look again though nothing arrives.
    pub fn next_look(&self, now: Instant) -> Option<Instant> {
        let look = |(index, window): (usize, &Window)| {
            let (open, _) = window.open.first_key_value()?;
            self.watermarks.next_look(index, &self.upstream[index], *open, now)
        };
        self.windows.iter().enumerate().filter_map(look).min()
    }

    /// Logical times that are open, over all windows.
    pub fn open(&self) -> usize {
        self.windows.iter().map(|window| window.open.len()).sum()
    }

    /// How far the watermark of a window lies behind a wall clock.
    pub fn behind(&self, window: usize, wall: Duration) -> Duration {
        let reached = self.watermarks.reached(window);
        wall.saturating_sub(Duration::new(reached.seconds, reached.nanos))
    }
}

impl Window {
    /// Takes up a piece that was on disk.
    fn hold(&mut self, moment: Moment, messages: Stamped, number: u64) {
        let Stamped { batch, times } = messages;
        let time = times.first().copied().unwrap_or(Time { node: Span::ABSENT, ..NO_TIME });
        let node = time.node.bytes(&batch.arena).to_vec();
        let held = self.open.entry(moment).or_insert_with(|| Held::new((time, &node)));
        held.add(batch, number);
    }
}

const NO_TIME: Time = Time { seconds: 0, nanos: 0, zero: 0, counter: 0, node: Span::ABSENT };

impl Held {
    fn new((time, node): (Time, &[u8])) -> Self {
        let messages = Batch::default();
        Held { time, node: node.into(), messages, more: Vec::new(), pieces: Vec::new() }
    }

    fn add(&mut self, batch: Batch, number: u64) {
        if self.messages.is_empty() {
            self.messages = batch;
        } else {
            self.more.push(batch);
        }
        self.pieces.push(number);
    }

    /// Its time, whose node begins at the start of `node`.
    fn stamp(&self) -> Time {
        Time { node: Span { offset: 0, len: self.node.len() as u32 }, ..self.time }
    }
}

/// What a staged value is at first, as AIO has it.
const EMPTY_MESSAGE: Entry = Entry {
    origin: 0,
    kind: Kind::MESSAGE,
    seconds: 0,
    nanos: 0,
    zero: 0,
    counter: 0,
    node: Span::EMPTY,
    topic: Span::EMPTY,
    content_type: Span::ABSENT,
    payload: Span::EMPTY,
    properties: Span::ABSENT,
    schema: Span::ABSENT,
};

/// Copies messages so that what is kept holds nothing else.
fn compact(batch: &Batch, range: std::ops::Range<usize>) -> Batch {
    let entries = &batch.entries[range];
    let bytes = entries.iter().map(Entry::bytes_len).sum();
    let mut builder = BatchBuilder::with_capacity("", entries.len(), bytes);
    entries.iter().for_each(|entry| builder.copy(entry, &batch.arena));
    builder.finish()
}

/// Puts messages together, as many as one delivery may hold.
#[derive(Default)]
struct Building {
    done: Vec<Stamped>,
    builder: Option<BatchBuilder>,
    times: Vec<Time>,
}

impl Building {
    fn push(&mut self, entry: &Entry, arena: &[u8], (time, node): (Time, &[u8])) {
        let bytes = entry.bytes_len() + node.len();
        if self.builder.as_ref().is_some_and(|builder| builder.is_full_for(bytes)) {
            self.close();
        }
        let builder = self.builder.get_or_insert_with(|| BatchBuilder::new(""));
        builder.copy(entry, arena);
        let node = builder.copy_span(time.node, node);
        self.times.push(Time { node, ..time });
    }

    fn close(&mut self) {
        if let Some(builder) = self.builder.take() {
            let times = std::mem::take(&mut self.times);
            self.done.push(Stamped { batch: builder.finish(), times });
        }
    }

    fn finish(mut self) -> Vec<Stamped> {
        self.close();
        self.done
    }
}
