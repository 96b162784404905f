//! `Windows`: what accumulates and delays of one dataflow hold until a logical time is
//! complete. Between the region, which fills them, and flow, which sends on what they
//! release; knows guests only by what they gave, and the disk as a list of changes.
//!
//! ```text
//! region ─► stage, hold ─► open, by logical time ─► watermark passes ─► released,
//!                                                                        numbered
//! ```

mod covered;
mod record;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, atomic::Ordering},
};

pub use self::covered::Known;
use self::{covered::Covered, record::Key};
use crate::{
    batch::{Batch, BatchBuilder, Entry, Kind, Span, Stamped, Time},
    clock::Instant,
    dataflow::watermark::{Moment, Timing, Watermarks},
    guest::Operator,
    queue::Marks,
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

#[derive(Debug, Default)]
struct Window {
    open: BTreeMap<Moment, Held>,
    /// Of the release made last.
    number: u64,
    /// Names pieces on disk, none twice.
    piece: u64,
    released: VecDeque<Release>,
    /// A release is on its way through the region; all before this has left with it.
    leaving: Option<Moment>,
}

/// What is held for one logical time: a staged value, or messages.
#[derive(Debug)]
struct Held {
    /// Its first message's, with the node.
    time: Time,
    node: Box<[u8]>,
    /// A staged value, or messages in order, with the numbers of their records.
    pieces: VecDeque<(u64, Batch)>,
}

/// Messages that are released at a time: as long as it takes to put them together,
/// nothing else goes on.
const RELEASED_AT_ONCE: usize = 2_048;

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
        let mut windows = Windows {
            sources: sources.into_iter().map(Covered::new).collect(),
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
            if let Some((source, record)) = record::read_had(&key, &value) {
                if let Some(covered) = self.sources.iter_mut().find(|covered| covered.name() == source) {
                    covered.restore(record);
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

    /// A delivery has come. Which of its messages windows have already.
    pub fn arrived(&mut self, source: u32, marks: Option<Marks>) -> Known {
        self.sources[source as usize].arrived(marks)
    }

    /// What came last from a source is through the region: with what windows took of
    /// it goes how far they have it.
    pub fn absorbed(&mut self, source: u32) {
        let is_committed = self.has_changes();
        self.sources[source as usize].absorbed(is_committed, &mut self.changes);
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

    /// The release that was given last is through the region.
    pub fn passed(&mut self, window: usize) {
        if let Some(passed) = self.windows[window].leaving.take() {
            self.watermarks.passed(self.outside + window as u32, passed);
        }
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
        let held = self.windows[window].open.get(&moment).and_then(Held::staged);
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
        let held = self.windows[window].open.get(&moment).and_then(Held::staged);
        let before = held.map_or(0, Batch::bytes_held);
        self.charge(value.bytes_held(), before)?;
        let state = &mut self.windows[window];
        let held = state.open.entry(moment).or_insert_with(|| Held::new(time));
        let number = match held.pieces.pop_front() {
            Some((number, _)) => number,
            None => {
                state.piece += 1;
                state.piece
            }
        };
        let key = Key::Piece { moment, number };
        let record = record::write(&value, &[held.stamp()], &held.node);
        held.pieces.push_front((number, value));
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
        let record = record::write(&message, &[held.stamp()], &held.node);
        held.pieces.push_back((number, message));
        let key = Key::Piece { moment, number };
        self.changes.push((key.to_bytes(self.plans[window].operation()), Some(record)));
        Ok(())
    }

    /// Looks at every watermark again and moves what is complete to the releases. True
    /// if there is more than can be moved at once.
    pub fn advance(&mut self, now: Instant) -> bool {
        let mut more = false;
        for index in 0..self.windows.len() {
            let reached = self.watermarks.advance(index, &self.upstream[index], now);
            more |= self.release(index, reached);
        }
        more
    }

    fn release(&mut self, index: usize, reached: Moment) -> bool {
        let window = &mut self.windows[index];
        let operation = self.plans[index].operation();
        let mut building = Building::default();
        let (mut left, mut bytes) = (RELEASED_AT_ONCE, 0);
        while left > 0
            && let Some(mut open) = window.open.first_entry().filter(|open| *open.key() < reached)
        {
            let moment = *open.key();
            let held = open.get_mut();
            let stamp = held.stamp();
            while left > 0
                && let Some((number, batch)) = held.pieces.pop_front()
            {
                self.changes.push((Key::Piece { moment, number }.to_bytes(operation), None));
                bytes += batch.bytes_held() as u64;
                left = left.saturating_sub(batch.len());
                batch
                    .entries
                    .iter()
                    .for_each(|entry| building.push(entry, &batch.arena, (stamp, &held.node)));
            }
            if held.pieces.is_empty() {
                open.remove();
            }
        }
        self.bytes -= bytes;
        self.tenant.window_bytes.fetch_sub(bytes, Ordering::Relaxed);
        let next = window.open.first_key_value().map(|(moment, _)| *moment).filter(|next| *next < reached);
        let passed = next.unwrap_or(reached);
        let released = building.finish();
        if released.is_empty() {
            // Behind what is still on its way: it would come too late.
            let last = window.released.back_mut().map(|last| &mut last.passed);
            match last.or(window.leaving.as_mut()) {
                Some(last) => *last = passed.max(*last),
                None => self.watermarks.passed(self.outside + index as u32, passed),
            }
            return false;
        }
        for messages in released {
            window.number += 1;
            let number = window.number;
            let record = record::write(&messages.batch, &messages.times, &[]);
            self.changes.push((Key::Release { number }.to_bytes(operation), Some(record)));
            window.released.push_back(Release { window: index, number, messages, passed: Moment::default() });
        }
        window.released.back_mut().expect("something was released").passed = passed;
        let record = record::reached(reached, window.number);
        self.changes.push((Key::Reached.to_bytes(operation), Some(record)));
        next.is_some()
    }

    /// The next release to send through the region.
    pub fn next_release(&mut self) -> Option<Release> {
        let window = self.windows.iter_mut().find(|window| !window.released.is_empty())?;
        let release = window.released.pop_front()?;
        window.leaving = Some(release.passed);
        Some(release)
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
        let gone = |window: &Window| window.released.is_empty() && window.leaving.is_none();
        self.windows.iter().all(gone) && (self.open() == 0 || !self.watermarks.all_ended())
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
}

impl Window {
    /// Takes up a piece that was on disk.
    fn hold(&mut self, moment: Moment, messages: Stamped, number: u64) {
        let Stamped { batch, times } = messages;
        let time = times.first().copied().unwrap_or(Time { node: Span::ABSENT, ..NO_TIME });
        let node = time.node.bytes(&batch.arena).to_vec();
        let held = self.open.entry(moment).or_insert_with(|| Held::new((time, &node)));
        held.pieces.push_back((number, batch));
    }
}

const NO_TIME: Time = Time { seconds: 0, nanos: 0, zero: 0, counter: 0, node: Span::ABSENT };

impl Held {
    fn new((time, node): (Time, &[u8])) -> Self {
        Held { time, node: node.into(), pieces: VecDeque::new() }
    }

    /// The staged value, if there is one yet.
    fn staged(&self) -> Option<&Batch> {
        self.pieces.front().map(|(_, value)| value)
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
