//! The memory connector: a source that a program feeds and a sink that it looks
//! into, for tests, simulation and benches. Both obey credit and confirmation like
//! any other; neither has a transport to lose.

use std::{
    collections::VecDeque,
    future::poll_fn,
    sync::{Arc, Mutex, OnceLock},
    task::{Context, Poll, Waker},
};

use dashmap::DashMap;

use super::stop::Stop;
use crate::{
    batch::Batch,
    queue::SourceDoor,
    write::{Destination, Rejected, SinkQueue, Write},
};

/// The memory endpoints of a host, for the program that it runs in.
#[derive(Default)]
pub struct Doors {
    feeds: DashMap<String, Feed>,
    watch: OnceLock<Watch>,
}

/// Called with `tenant/endpoint` and each write that comes there.
type Watch = Box<dyn Fn(&str, &Batch) + Send + Sync>;

impl Doors {
    /// The feed of the source node `tenant/dataflow/node`, made if it is not there
    /// yet: what is put there before the dataflow runs is its first delivery.
    pub fn feed(&self, source: &str) -> Feed {
        if let Some(feed) = self.feeds.get(source) {
            return feed.clone();
        }
        self.feeds.entry(source.to_owned()).or_default().clone()
    }

    /// The source node is gone.
    pub fn forget(&self, source: &str) {
        self.feeds.remove(source);
    }

    /// Shows every write from now on to `watch`. Once.
    pub fn watch(&self, watch: impl Fn(&str, &Batch) + Send + Sync + 'static) {
        assert!(self.watch.set(Box::new(watch)).is_ok(), "watched once");
    }

    /// A sink that shows its writes and keeps none.
    pub fn sink(self: &Arc<Self>, name: String, queue: Arc<SinkQueue>) -> MemorySink {
        let doors = self.clone();
        let answer = move |batch: &Batch| {
            if let Some(watch) = doors.watch.get() {
                watch(&name, batch);
            }
            Answer::Discard
        };
        sink(queue, Box::new(answer)).0
    }
}

/// A source of the batches that its [`Feed`] is given, and the feed.
pub fn source(door: SourceDoor, stop: Stop) -> (MemorySource, Feed) {
    let feed = Feed::default();
    (MemorySource::new(door, stop, feed.clone()), feed)
}

/// Where a program puts what a [`MemorySource`] is to deliver.
#[derive(Clone, Debug, Default)]
pub struct Feed(Arc<Mutex<FeedState>>);

#[derive(Debug, Default)]
struct FeedState {
    batches: VecDeque<Batch>,
    /// Batches put here.
    pushed: u64,
    closed: bool,
    settled: u64,
    source: Option<Waker>,
}

impl Feed {
    /// One delivery, within what [`SourceDoor::delivery_bytes_max`] allows.
    pub fn push(&self, batch: Batch) {
        self.with(|state| {
            state.pushed += 1;
            state.batches.push_back(batch);
        });
    }

    /// Nothing more will come: the source ends when all is settled.
    pub fn close(&self) {
        self.with(|state| state.closed = true);
    }

    /// Batches put here that are not settled yet.
    pub fn unsettled(&self) -> u64 {
        let state = self.lock();
        state.pushed - state.settled
    }

    /// Batches that wait for credit.
    pub fn waiting(&self) -> usize {
        self.lock().batches.len()
    }

    /// How many of the batches are settled, as the source last saw it.
    pub fn settled(&self) -> u64 {
        self.lock().settled
    }

    fn with(&self, change: impl FnOnce(&mut FeedState)) {
        let source = {
            let mut state = self.lock();
            change(&mut state);
            state.source.take()
        };
        if let Some(source) = source {
            source.wake();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, FeedState> {
        self.0.lock().expect("no panic under this lock")
    }
}

/// Delivers what it is fed as far as there is credit.
#[derive(Debug)]
pub struct MemorySource {
    door: SourceDoor,
    feed: Feed,
    stop: Stop,
    settled: u64,
}

impl MemorySource {
    pub fn new(door: SourceDoor, stop: Stop, feed: Feed) -> Self {
        MemorySource { door, feed, stop, settled: 0 }
    }

    /// Does all that can be done now; ready when it was stopped, or its feed closed,
    /// and all that was delivered is settled, or its dataflow gone.
    pub fn poll(&mut self, ctx: &mut Context<'_>) -> Poll<()> {
        let stopped = self.stop.poll_stopped(ctx).is_ready();
        let fed = if stopped { true } else { self.deliver(ctx) };
        loop {
            if let Poll::Ready(settled) = self.door.poll_settled(self.settled, ctx)
                && settled > self.settled
            {
                self.settled = settled;
                continue;
            }
            break;
        }
        self.feed.lock().settled = self.settled;
        if self.door.is_abandoned() || (fed && self.door.unsettled() == 0) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    /// Whether everything there will ever be has been delivered.
    fn deliver(&mut self, ctx: &mut Context<'_>) -> bool {
        loop {
            let bytes = {
                let mut state = self.feed.lock();
                match state.batches.front() {
                    Some(batch) => batch.bytes_held(),
                    None if state.closed => return true,
                    None => {
                        state.source = Some(ctx.waker().clone());
                        return false;
                    }
                }
            };
            let Poll::Ready(credit) = self.door.poll_credit(bytes, ctx) else { return false };
            let batch = self.feed.lock().batches.pop_front().expect("only the source takes them");
            self.door.deliver(credit, batch);
        }
    }

    /// Delivers until it ends.
    pub async fn run(mut self) {
        poll_fn(|ctx| self.poll(ctx)).await;
    }
}

/// A sink that keeps what it is given, and its [`Collected`]. `answer` decides what
/// becomes of each write.
pub fn sink(
    queue: Arc<SinkQueue>,
    answer: Box<dyn FnMut(&Batch) -> Answer + Send>,
) -> (MemorySink, Collected) {
    let collected = Collected(Arc::default());
    (MemorySink { queue, answer, collected: collected.clone(), ended: false }, collected)
}

/// What a [`MemorySink`] does with a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Keep it, and confirm it but for these messages.
    Confirm(Vec<Rejected>),
    /// Confirm it without keeping it: for benches, where nobody will look.
    Discard,
    /// Keep it, and confirm it when [`Collected::confirm`] says so.
    Hold,
}

impl Answer {
    /// Takes everything.
    pub fn all() -> Box<dyn FnMut(&Batch) -> Answer + Send> {
        Box::new(|_| Answer::Confirm(Vec::new()))
    }
}

/// What a sink was given.
#[derive(Clone, Debug)]
pub struct Collected(Arc<Mutex<CollectedState>>);

#[derive(Debug, Default)]
struct CollectedState {
    writes: Vec<(Arc<Destination>, Batch)>,
    held: VecDeque<Write>,
}

impl Collected {
    /// Moves out all that came since the last call, in order.
    pub fn take(&self) -> Vec<(Arc<Destination>, Batch)> {
        std::mem::take(&mut self.lock().writes)
    }

    /// Payloads of all that came since the last call, in order.
    pub fn take_payloads(&self) -> Vec<Vec<u8>> {
        let payloads = |(_, batch): (_, Batch)| {
            let payload = |entry: &crate::batch::Entry| entry.payload.bytes(&batch.arena).to_vec();
            batch.entries.iter().map(payload).collect::<Vec<_>>()
        };
        self.take().into_iter().flat_map(payloads).collect()
    }

    /// Writes that wait for [`Self::confirm`].
    pub fn held(&self) -> usize {
        self.lock().held.len()
    }

    /// Confirms the first `count` writes that wait.
    pub fn confirm(&self, count: usize) {
        let held: Vec<Write> = {
            let mut state = self.lock();
            let count = count.min(state.held.len());
            state.held.drain(..count).collect()
        };
        for write in held {
            write.confirm(Vec::new());
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, CollectedState> {
        self.0.lock().expect("no panic under this lock")
    }
}

/// Takes every write at once.
pub struct MemorySink {
    queue: Arc<SinkQueue>,
    answer: Box<dyn FnMut(&Batch) -> Answer + Send>,
    collected: Collected,
    ended: bool,
}

impl MemorySink {
    /// Takes all there is; ready when the queue is closed and empty.
    pub fn poll(&mut self, ctx: &mut Context<'_>) -> Poll<()> {
        while !self.ended {
            match self.queue.poll_next(ctx) {
                Poll::Ready(Some(write)) => self.take(write),
                Poll::Ready(None) => self.ended = true,
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(())
    }

    fn take(&mut self, write: Write) {
        let answer = (self.answer)(&write.batch);
        if answer != Answer::Discard {
            self.collected.lock().writes.push((write.destination.clone(), write.batch.clone()));
        }
        match answer {
            Answer::Confirm(rejected) => write.confirm(rejected),
            Answer::Discard => write.confirm(Vec::new()),
            Answer::Hold => self.collected.lock().held.push_back(write),
        }
    }

    /// Takes writes until the queue is closed.
    pub async fn run(mut self) {
        poll_fn(|ctx| self.poll(ctx)).await;
    }
}

#[cfg(test)]
mod tests;
