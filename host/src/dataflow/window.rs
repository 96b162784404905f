//! `Windows`: what accumulates and delays of one dataflow hold until a logical time is
//! complete. Between the region, which fills them, and flow, which sends on what they
//! release; knows guests only by what they gave, and the disk as a list of changes.
//! Volatile ones change nothing there but what it has from durable days.
//!
//! ```text
//! region ─► stage, hold ─► open, by logical time ─► watermark passes ─► released,
//!                                                                        numbered
//! ```

mod covered;
mod record;
mod replay;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, atomic::Ordering},
};

pub use self::covered::Known;
use self::{
    covered::Covered,
    record::Key,
    replay::{Members, Replay},
};
use crate::{
    batch::{Batch, BatchBuilder, Entry, Kind, Span, Stamped, Time},
    clock::Instant,
    dataflow::watermark::{Moment, Timing, Watermarks},
    guest::Operator,
    planted::{self, Bug},
    queue::{Marks, Queue},
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

/// Where windows keep what is open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Keeping {
    /// On disk, so that a source need not keep it.
    #[default]
    Durable,
    /// In memory: after a restart the source is read again from before what was open.
    Volatile,
}

/// What a change makes of a key on disk.
pub type Change = (Vec<u8>, Option<Vec<u8>>);

/// The windows of one dataflow.
#[derive(Debug)]
pub struct Windows {
    /// Names of the windows on disk.
    names: Vec<String>,
    upstream: Vec<Vec<u32>>,
    windows: Vec<Window>,
    watermarks: Watermarks,
    /// Sources before the windows' own.
    outside: u32,
    sources: Vec<Covered>,
    space: WindowSpace,
    /// What has changed since the last commit.
    changes: Vec<Change>,
    /// `None` where windows are durable.
    replay: Option<Replay>,
    /// For each window, before which time an earlier run had completed it.
    complete: Vec<Moment>,
    /// So many messages, from the first of what is in the region, may have been in
    /// windows that were complete.
    repeats: u32,
    /// What is open, in bytes; the tenant's sum has it too.
    bytes: u64,
    /// Of it, what is remembered of deliveries.
    replay_bytes: u64,
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
    /// Pieces and releases up to these numbers are on disk, though windows are volatile.
    on_disk: (u64, u64),
}

/// What is held for one logical time: a staged value, or messages.
#[derive(Debug)]
struct Held {
    /// Its first message's, with the node.
    time: Time,
    node: Box<[u8]>,
    /// A staged value, or messages in order, with the numbers of their records.
    pieces: VecDeque<(u64, Batch)>,
    /// Of volatile ones.
    members: Members,
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
    members: Members,
    /// Records that go with it.
    gone: Vec<Change>,
}

/// What a delivery takes that is settled only after windows are complete, in the queue, in the ledger and at
/// its source.
const REPLAY_BYTES: u64 = 128;

/// What becomes of a message whose time is complete already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InTime {
    /// It has this moment.
    At(Moment),
    /// An earlier run had it in time, and its window is complete.
    Again,
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
        (keeping, space): (Keeping, WindowSpace),
        now: Instant,
    ) -> Self {
        let outside = sources.len() - plans.len();
        let sources = unlike(sources);
        let replay = match keeping {
            Keeping::Durable => None,
            Keeping::Volatile => Some(Replay::new(plans.len(), sources.len())),
        };
        let mut windows = Windows {
            replay,
            complete: vec![Moment::default(); plans.len()],
            repeats: 0,
            replay_bytes: 0,
            names: sources[outside..].to_vec(),
            sources: sources.into_iter().map(Covered::new).collect(),
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
            let restored =
                record::read(&key, &value, |operation| self.names.iter().position(|name| name == operation));
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
                    window.on_disk.0 = window.piece;
                    window.hold(moment, messages, number);
                }
                record::Restored::Release { number, messages } => {
                    window.number = window.number.max(number);
                    window.on_disk.1 = window.on_disk.1.max(number);
                    window.released.push_back(Release::new(index, number, messages));
                }
                record::Restored::Reached { moment, number } => {
                    window.number = window.number.max(number);
                    if self.replay.is_some() && planted::is(Bug::PartialWindow) {
                        continue;
                    }
                    self.watermarks.restore(index, moment);
                    self.complete[index] = moment;
                    if let Some(replay) = &mut self.replay {
                        replay.restore(index, moment);
                    }
                }
            }
        }
        for (index, window) in self.windows.iter_mut().enumerate() {
            // Behind what was released before the restart.
            let passed = window.passed(self.watermarks.reached(index));
            match window.released.back_mut() {
                Some(last) => last.passed = passed,
                None => self.watermarks.passed(self.outside + index as u32, passed),
            }
        }
    }

    /// A delivery has come. Which of its messages windows have already.
    pub fn arrived(&mut self, source: u32, sequence: u64, marks: Option<Marks>) -> Known {
        if source < self.outside {
            self.watermarks.came(source);
            self.repeats = self.sources[source as usize].repeats(marks.as_ref());
            if let Some(replay) = &mut self.replay {
                replay.delivered(source, sequence, marks.as_ref());
            }
        }
        self.sources[source as usize].arrived(marks)
    }

    /// What came last from a source is through the region: with what windows took of
    /// it goes how far they have it.
    pub fn absorbed(&mut self, source: u32, sequence: u64) {
        if let Some(replay) = &mut self.replay {
            replay.absorbed(sequence);
            return self.charge_replay();
        }
        let is_committed = self.has_changes();
        self.sources[source as usize].absorbed(is_committed, &mut self.changes);
    }

    /// Deliveries that are not settled count as well: they may be many, and small.
    fn charge_replay(&mut self) {
        let bytes = self.replay.as_ref().map_or(0, Replay::len) as u64 * REPLAY_BYTES;
        let before = std::mem::replace(&mut self.replay_bytes, bytes);
        self.tenant.window_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.tenant.window_bytes.fetch_sub(before, Ordering::Relaxed);
        self.bytes = self.bytes + bytes - before;
    }

    /// Whether what is open is on disk.
    pub fn is_durable(&self) -> bool {
        self.replay.is_none()
    }

    /// The first delivery that volatile windows need to be delivered again after a restart.
    pub fn needed(&self) -> Option<u64> {
        self.replay.as_ref().and_then(Replay::first)
    }

    /// Volatile windows look what is complete, now that all before `unfinished` is on
    /// its way through them only. Changes to be written are to be answered by
    /// [`Self::wrote`] before the next.
    pub fn complete(&mut self, unfinished: u64) {
        let Windows { replay, names, sources, changes, .. } = self;
        let Some(replay) = replay.as_mut().filter(|replay| replay.is_written()) else { return };
        let operation = |window: usize| names[window].as_str();
        replay.complete(unfinished, operation, |source| sources[source].name(), changes);
    }

    /// The last changes of volatile windows are on disk.
    pub fn wrote(&mut self) {
        if let Some(replay) = &mut self.replay {
            replay.wrote();
            self.charge_replay();
        }
    }

    /// Whether volatile windows wait for nothing to be written.
    pub fn is_written(&self) -> bool {
        self.replay.as_ref().is_none_or(Replay::is_written)
    }

    /// Time has gone on; with a delivery of the outside source `heard`, if there is one, which is
    /// told next.
    pub fn look(&mut self, queue: &Queue, heard: Option<u32>, now: Instant) {
        // Before what comes from a stream that is new.
        for (source, streams) in queue.take_streams() {
            self.watermarks.reads(source, &streams);
        }
        self.watermarks.look(heard, now, |source| queue.waits(source));
    }

    /// A delivery of an outside source, from one of its streams and the latest of its messages at
    /// `latest`, is through the region.
    pub fn heard(&mut self, source: u32, stream: Option<[u64; 2]>, latest: Moment) {
        self.watermarks.heard(source, stream, latest);
    }

    /// The source gives nothing more.
    pub fn ended(&mut self, source: u32) {
        self.watermarks.ended(source);
    }

    /// The release that was given last is through the region.
    pub fn passed(&mut self, window: usize) {
        if let Some(passed) = self.windows[window].leaving.take() {
            self.watermarks.passed(self.outside + window as u32, passed);
            if let Some(replay) = &mut self.replay {
                replay.passed(window, passed);
            }
        }
    }

    /// Whether a message of this logical time is in time for a window. Those that are
    /// late and may have the next window get its moment.
    pub fn in_time(&self, window: usize, moment: Moment, origin: u32, next_window: bool) -> InTime {
        let reached = self.watermarks.reached(window);
        if moment >= reached {
            return InTime::At(moment);
        }
        if moment < self.complete[window] && origin < self.repeats {
            return InTime::Again;
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
        match &mut self.replay {
            Some(replay) => replay.takes(&mut held.members, window, moment),
            None => {
                let key = Key::Piece { moment, number };
                let record = record::write(&value, &[held.stamp()], &held.node);
                self.changes.push((key.to_bytes(&self.names[window]), Some(record)));
            }
        }
        held.pieces.push_front((number, value));
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
        match &mut self.replay {
            Some(replay) => replay.takes(&mut held.members, window, moment),
            None => {
                let record = record::write(&message, &[held.stamp()], &held.node);
                let key = Key::Piece { moment, number };
                self.changes.push((key.to_bytes(&self.names[window]), Some(record)));
            }
        }
        held.pieces.push_back((number, message));
        Ok(())
    }

    /// Moves what is complete to the releases, as far as [`Self::look`] saw. True if there is more
    /// than can be moved at once.
    pub fn advance(&mut self, now: Instant) -> bool {
        let mut more = false;
        for index in 0..self.windows.len() {
            let reached = self.watermarks.advance(index, &self.upstream[index], now);
            more |= self.release(index, reached);
        }
        more
    }

    fn release(&mut self, index: usize, reached: Moment) -> bool {
        let Taken { released, gone, members, emptied } = self.take_complete(index, reached);
        let window = &mut self.windows[index];
        let passed = window.passed(reached);
        if released.is_empty() {
            // Behind what is still on its way: it would come too late.
            let last = window.released.back_mut().map(|last| &mut last.passed);
            match last.or(window.leaving.as_mut()) {
                Some(last) => *last = passed.max(*last),
                None => self.watermarks.passed(self.outside + index as u32, passed),
            }
            return false;
        }
        if let Some(replay) = &mut self.replay {
            replay.leaves(members, released.len(), &emptied);
        }
        let operation = &self.names[index];
        for messages in released {
            window.number += 1;
            let number = window.number;
            if self.replay.is_none() {
                let record = record::write(&messages.batch, &messages.times, &[]);
                self.changes.push((Key::Release { number }.to_bytes(operation), Some(record)));
            }
            window.released.push_back(Release { members, ..Release::new(index, number, messages) });
        }
        let last = window.released.back_mut().expect("something was released");
        last.passed = passed;
        if self.replay.is_some() {
            last.gone = gone;
        } else {
            self.changes.extend(gone);
            let record = record::reached(reached, window.number);
            self.changes.push((Key::Reached.to_bytes(operation), Some(record)));
        }
        passed < reached
    }

    /// Takes what is complete out of a window, as much as may leave at once.
    fn take_complete(&mut self, index: usize, reached: Moment) -> Taken {
        let window = &mut self.windows[index];
        let operation = &self.names[index];
        let on_disk = if self.replay.is_some() { window.on_disk.0 } else { u64::MAX };
        let mut building = Building::default();
        let (mut gone, mut members, mut emptied) = (Vec::new(), Members::NONE, Vec::new());
        let (mut left, mut bytes) = (RELEASED_AT_ONCE, 0);
        while left > 0
            && let Some(mut open) = window.open.first_entry().filter(|open| *open.key() < reached)
        {
            let moment = *open.key();
            let held = open.get_mut();
            let stamp = held.stamp();
            members.merge(held.members);
            while left > 0
                && let Some((number, batch)) = held.pieces.pop_front()
            {
                if number <= on_disk {
                    gone.push((Key::Piece { moment, number }.to_bytes(operation), None));
                }
                bytes += batch.bytes_held() as u64;
                left = left.saturating_sub(batch.len());
                batch
                    .entries
                    .iter()
                    .for_each(|entry| building.push(entry, &batch.arena, (stamp, &held.node)));
            }
            if held.pieces.is_empty() {
                emptied.push(held.members);
                open.remove();
            }
        }
        self.bytes -= bytes;
        self.tenant.window_bytes.fetch_sub(bytes, Ordering::Relaxed);
        Taken { released: building.finish(), gone, members, emptied }
    }

    /// Whether something waits to be sent through the region.
    pub fn has_released(&self) -> bool {
        self.windows.iter().any(|window| !window.released.is_empty())
    }

    /// The next release to send through the region.
    pub fn next_release(&mut self) -> Option<Release> {
        let window = self.windows.iter_mut().find(|window| !window.released.is_empty())?;
        let mut release = window.released.pop_front()?;
        window.leaving = Some(release.passed);
        // It may hold what was in windows of an earlier run.
        self.repeats = if self.sources.iter().any(Covered::is_complete) { u32::MAX } else { 0 };
        if let Some(replay) = &mut self.replay {
            let gone = std::mem::take(&mut release.gone);
            replay.given(release.window, release.number, release.members, gone);
        }
        Some(release)
    }

    /// A release is confirmed, or absorbed by another window.
    pub fn confirmed(&mut self, window: usize, number: u64) {
        let record = || (Key::Release { number }.to_bytes(&self.names[window]), None);
        match &mut self.replay {
            Some(replay) => {
                let on_disk = number <= self.windows[window].on_disk.1;
                replay.confirmed(window, number, on_disk.then(record));
            }
            None => self.changes.push(record()),
        }
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

/// Names that differ: two graphs of a dataflow may call their operations the same, and a
/// source too. The first of a name has it as it is.
fn unlike(names: Vec<String>) -> Vec<String> {
    let mut unlike = Vec::with_capacity(names.len());
    for (index, name) in names.iter().enumerate() {
        let before = names[..index].iter().filter(|other| *other == name).count();
        // No name has a line's end in it.
        unlike.push(if before == 0 { name.clone() } else { format!("{name}\n{before}") });
    }
    unlike
}

/// What was complete and has left its window.
struct Taken {
    released: Vec<Stamped>,
    gone: Vec<Change>,
    members: Members,
    /// Times at which nothing is open any more.
    emptied: Vec<Members>,
}

impl Release {
    fn new(window: usize, number: u64, messages: Stamped) -> Self {
        let (passed, members, gone) = (Moment::default(), Members::NONE, Vec::new());
        Release { window, number, messages, passed, members, gone }
    }
}

impl Window {
    /// Up to where everything has left, when all before `reached` may.
    fn passed(&self, reached: Moment) -> Moment {
        self.open.first_key_value().map_or(reached, |(first, _)| reached.min(*first))
    }

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
        Held { time, node: node.into(), pieces: VecDeque::new(), members: Members::NONE }
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
