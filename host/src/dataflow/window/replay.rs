//! `Replay`: what volatile windows owe their sources. A source goes on behind a delivery
//! only once nothing of it is open any more; up to which time windows are complete and out
//! of the host is on disk before that, so that what is read again builds no window twice,
//! and none in part. Between windows and flow; knows sequences, places and times, and no
//! messages.
//!
//! ```text
//! delivery ─► open ─► released ─► confirmed ─► complete, on disk ─► its source goes on
//! └───────────────── its sequence is needed ──────────────────────┘
//! ```

use std::collections::VecDeque;

use super::{
    Change,
    record::{self, Had, Key},
};
use crate::{
    dataflow::watermark::Moment,
    queue::{Marks, Places},
};

/// Deliveries by sequence: those that something open was made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Members {
    first: u64,
    last: u64,
}

impl Members {
    /// None that is delivered again: the disk has all of it.
    pub const NONE: Members = Members { first: u64::MAX, last: 0 };

    pub(super) fn merge(&mut self, other: Members) {
        self.first = self.first.min(other.first);
        self.last = self.last.max(other.last);
    }
}

/// A place in what a source reads: the stream, and how far.
type Place = ([u64; 2], u64);

/// See the module.
#[derive(Debug)]
pub(super) struct Replay {
    needed: Needed,
    /// Of what runs through the region now.
    arriving: Members,
    /// Where it stands, if it is a delivery.
    place: Option<(u32, Place)>,
    /// The latest times at which windows took something of it.
    taken: Vec<(usize, Moment)>,
    windows: Vec<Leaving>,
    sources: Vec<Read>,
    /// Sequences that are needed until this is on disk.
    written: Option<Vec<u64>>,
}

/// How far a source has been read, by deliveries that are not settled.
#[derive(Debug, Default)]
struct Read {
    deliveries: VecDeque<(u64, Place)>,
    /// Behind the last that nothing waits for but windows.
    upto: Option<Place>,
}

/// What has left a window and is not known to be complete.
#[derive(Debug, Default)]
struct Leaving {
    releases: VecDeque<Given>,
    /// Of releases that are complete, but not all that was released with them.
    needed: Vec<u64>,
    gone: Vec<Change>,
    /// All before it is complete.
    complete: Moment,
}

#[derive(Debug)]
struct Given {
    number: u64,
    members: Members,
    /// All before this has left with it; nothing if more was released at the same time.
    passed: Option<Moment>,
    /// What it brought to other windows.
    brought: Vec<(usize, Moment)>,
    /// Records of what was durable once.
    gone: Vec<Change>,
    confirmed: bool,
}

/// How many open things need each delivery.
#[derive(Debug, Default)]
struct Needed {
    /// The sequence of the first count, which is not 0.
    first: u64,
    counts: VecDeque<u32>,
}

impl Replay {
    pub(super) fn new(windows: usize, sources: usize) -> Self {
        Replay {
            needed: Needed::default(),
            arriving: Members::NONE,
            place: None,
            taken: Vec::new(),
            windows: (0..windows).map(|_| Leaving::default()).collect(),
            sources: (0..sources).map(|_| Read::default()).collect(),
            written: None,
        }
    }

    /// What an earlier run knew of a window.
    pub(super) fn restore(&mut self, window: usize, complete: Moment) {
        self.windows[window].complete = complete;
    }

    /// A delivery enters the region.
    pub(super) fn delivered(&mut self, source: u32, sequence: u64, marks: Option<&Marks>) {
        self.arriving = Members { first: sequence, last: sequence };
        self.taken.clear();
        self.place = match marks {
            Some(Marks::Places(Places { stream, ends, .. })) => {
                ends.last().map(|end| (source, (*stream, *end)))
            }
            _ => None,
        };
    }

    /// A release enters the region.
    pub(super) fn given(&mut self, window: usize, number: u64, members: Members, gone: Vec<Change>) {
        self.arriving = members;
        self.place = None;
        self.taken.clear();
        let (passed, brought) = (None, Vec::new());
        let given = Given { number, members, passed, brought, gone, confirmed: false };
        self.windows[window].releases.push_back(given);
    }

    /// What is in the region goes into what is open at a time of a window.
    pub(super) fn takes(&mut self, held: &mut Members, window: usize, moment: Moment) {
        let before = held.first;
        held.merge(self.arriving);
        if held.first != before {
            self.needed.add(held.first);
            self.needed.remove(before);
        }
        match self.taken.iter_mut().find(|(index, _)| *index == window) {
            Some((_, latest)) => *latest = moment.max(*latest),
            None => self.taken.push((window, moment)),
        }
    }

    /// So many releases are made of what was open, of which `emptied` is not any more.
    pub(super) fn leaves(&mut self, released: Members, releases: usize, emptied: &[Members]) {
        (0..releases).for_each(|_| self.needed.add(released.first));
        emptied.iter().for_each(|held| self.needed.remove(held.first));
    }

    /// The delivery is through the region.
    pub(super) fn absorbed(&mut self, sequence: u64) {
        self.needed.reach(sequence);
        if let Some((source, place)) = self.place.take() {
            self.sources[source as usize].deliveries.push_back((sequence, place));
        }
    }

    /// The release that was given last is through the region; `passed` as in [`Given`].
    pub(super) fn passed(&mut self, window: usize, passed: Moment) {
        if let Some(given) = self.windows[window].releases.back_mut() {
            given.passed = (passed != Moment::default()).then_some(passed);
            given.brought = std::mem::take(&mut self.taken);
        }
    }

    /// Nothing of a release is on its way to a sink any more. `record` is its own on
    /// disk, if it has one.
    pub(super) fn confirmed(&mut self, window: usize, number: u64, record: Option<Change>) {
        let releases = &mut self.windows[window].releases;
        let place = releases.binary_search_by_key(&number, |given| given.number);
        let given = &mut releases[place.expect("it was given")];
        given.confirmed = true;
        given.gone.extend(record);
    }

    /// The first sequence that is needed, of a delivery or after it.
    pub(super) fn first(&self) -> Option<u64> {
        self.needed.first()
    }

    /// Sequences that are remembered.
    pub(super) fn len(&self) -> usize {
        self.needed.counts.len()
    }

    /// Whether nothing waits to be on disk.
    pub(super) fn is_written(&self) -> bool {
        self.written.is_none()
    }

    /// What the last call of [`Self::complete`] gave is on disk.
    pub(super) fn wrote(&mut self) {
        let written = self.written.take().into_iter().flatten();
        written.for_each(|sequence| self.needed.remove(sequence));
    }

    /// Looks what is complete: confirmed, and so is what it brought to other windows,
    /// in the order of release. Nothing before `unfinished` is on its way otherwise:
    /// what was not taken into a window of these deliveries is with its sink or dead.
    /// `name` is an operation's, or a source's behind those.
    pub(super) fn complete<'n>(
        &mut self,
        unfinished: u64,
        operation: impl Fn(usize) -> &'n str,
        source: impl Fn(usize) -> &'n str,
        changes: &mut Vec<Change>,
    ) {
        for read in &mut self.sources {
            while let Some((_, place)) = read.deliveries.pop_front_if(|(sequence, _)| *sequence < unfinished)
            {
                read.upto = Some(place);
            }
        }
        let mut written = Vec::new();
        // Those behind first: what is before them may wait for them.
        for index in (0..self.windows.len()).rev() {
            let mut last = None;
            while self.windows[index]
                .releases
                .front()
                .is_some_and(|given| self.is_complete(given, unfinished))
            {
                let leaving = &mut self.windows[index];
                let given = leaving.releases.pop_front().expect("it was looked at");
                leaving.needed.push(given.members.first);
                leaving.gone.extend(given.gone);
                if let Some(passed) = given.passed {
                    leaving.complete = leaving.complete.max(passed);
                    written.append(&mut leaving.needed);
                    changes.append(&mut leaving.gone);
                    last = Some(given.number);
                }
            }
            if let Some(number) = last {
                let record = record::reached(self.windows[index].complete, number);
                changes.push((Key::Reached.to_bytes(operation(index)), Some(record)));
            }
        }
        if written.is_empty() {
            return;
        }
        self.written = Some(written);
        for (index, read) in self.sources.iter().enumerate() {
            if let Some((stream, place)) = read.upto {
                changes.push(record::had(source(index), &Had::Complete(stream, place)));
            }
        }
    }

    fn is_complete(&self, given: &Given, unfinished: u64) -> bool {
        let complete = |(window, moment): &(usize, Moment)| *moment < self.windows[*window].complete;
        given.confirmed && given.members.last < unfinished && given.brought.iter().all(complete)
    }
}

impl Needed {
    fn first(&self) -> Option<u64> {
        (!self.counts.is_empty()).then_some(self.first)
    }

    /// From now on there is a place for this sequence, if one before it is needed.
    fn reach(&mut self, sequence: u64) {
        if !self.counts.is_empty() {
            let places = (sequence - self.first + 1) as usize;
            self.counts.resize(self.counts.len().max(places), 0);
        }
    }

    fn add(&mut self, sequence: u64) {
        if sequence == Members::NONE.first {
            return;
        }
        if self.counts.is_empty() {
            self.first = sequence;
            self.counts.push_back(0);
        }
        self.reach(sequence);
        self.counts[(sequence - self.first) as usize] += 1;
    }

    fn remove(&mut self, sequence: u64) {
        if sequence == Members::NONE.first {
            return;
        }
        self.counts[(sequence - self.first) as usize] -= 1;
        while self.counts.front() == Some(&0) {
            self.counts.pop_front();
            self.first += 1;
        }
    }
}

#[cfg(test)]
mod tests;
