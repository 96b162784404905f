//! `Write`: what a dataflow hands to a sink, and `SinkQueue`, the sink's door:
//! writes out, confirmations in. Knows nothing of transports.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
};

use crate::{batch::Batch, headers::Headers};

/// Messages for one destination, and the duty to confirm them.
#[derive(Debug)]
#[must_use = "confirm it, or its delivery is never settled"]
pub struct Write {
    id: u64,
    pub batch: Batch,
    /// Where the messages go; what it means is the connector's business.
    pub destination: Arc<Destination>,
    confirms: Arc<Confirms>,
}

impl Write {
    /// Does to the messages' headers what their destination says.
    pub fn new(id: u64, batch: Batch, destination: Arc<Destination>, confirms: Arc<Confirms>) -> Self {
        let batch = destination.headers.apply(batch, &destination.topic);
        Write { id, batch, destination, confirms }
    }

    /// Of messages whose headers are as their destination has them.
    pub fn ready(id: u64, batch: Batch, destination: Arc<Destination>, confirms: Arc<Confirms>) -> Self {
        Write { id, batch, destination, confirms }
    }

    /// The far side has every message but the `rejected` ones, for good.
    pub fn confirm(self, rejected: Vec<Rejected>) {
        let origin =
            |rejected: Rejected| (self.batch.entries[rejected.index as usize].origin, rejected.reason);
        let rejected = rejected.into_iter().map(origin).collect();
        self.confirms.push(Confirmed { id: self.id, rejected });
    }
}

/// A destination node of a dataflow: topic template, and the topics that policy
/// lets the tenant write.
#[derive(Debug)]
pub struct Destination {
    /// `tenant/dataflow/node`, for logs.
    pub name: String,
    /// AIO's `dataDestination`, parsed.
    pub topic: crate::topic::TopicTemplate,
    /// Filters of which one must match each topic written.
    pub write_grants: Vec<crate::topic::TopicFilter>,
    pub headers: Headers,
}

/// Everything of one write is settled at the far side.
#[derive(Debug)]
pub struct Confirmed {
    pub id: u64,
    /// Messages that were refused for good: which of the delivery, and why.
    pub rejected: Vec<(u32, String)>,
}

/// A message that the far side will never take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// Its place in the write's batch.
    pub index: u32,
    pub reason: String,
}

/// Confirmations on their way back to one dataflow.
#[derive(Debug)]
pub struct Confirms {
    confirmed: Mutex<Vec<Confirmed>>,
    dataflow: Waker,
}

impl Confirms {
    /// `dataflow` is woken when a confirmation comes.
    pub fn new(dataflow: Waker) -> Arc<Self> {
        Arc::new(Confirms { confirmed: Mutex::default(), dataflow })
    }

    pub fn push(&self, confirmed: Confirmed) {
        self.confirmed.lock().expect("no panic under this lock").push(confirmed);
        self.dataflow.wake_by_ref();
    }

    /// Moves what came since the last call into `confirmed`.
    pub fn take(&self, confirmed: &mut Vec<Confirmed>) {
        confirmed.append(&mut self.confirmed.lock().expect("no panic under this lock"));
    }
}

/// Writes of one tenant to one endpoint, in order.
#[derive(Debug)]
pub struct SinkQueue {
    state: Mutex<SinkState>,
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct SinkState {
    writes: VecDeque<Write>,
    bytes: usize,
    closed: bool,
    sink: Option<Waker>,
    waiting_for_room: Vec<Waker>,
}

impl SinkQueue {
    /// Full from `bytes_max` on; one write may pass it.
    pub fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(SinkQueue { state: Mutex::default(), bytes_max })
    }

    /// Whether a dataflow may begin work whose result goes here.
    pub fn poll_room(&self, ctx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state.lock().expect("no panic under this lock");
        if state.bytes < self.bytes_max {
            return Poll::Ready(());
        }
        if !state.waiting_for_room.iter().any(|waker| waker.will_wake(ctx.waker())) {
            state.waiting_for_room.push(ctx.waker().clone());
        }
        Poll::Pending
    }

    pub fn push(&self, write: Write) {
        let sink = {
            let mut state = self.state.lock().expect("no panic under this lock");
            state.bytes += write.batch.bytes_held();
            state.writes.push_back(write);
            state.sink.take()
        };
        if let Some(sink) = sink {
            sink.wake();
        }
    }

    /// The sink's side: the next write; `None` when closed and empty. The write
    /// leaves the queue's room when it is taken.
    pub fn poll_next(&self, ctx: &mut Context<'_>) -> Poll<Option<Write>> {
        let mut state = self.state.lock().expect("no panic under this lock");
        let Some(write) = state.writes.pop_front() else {
            if state.closed {
                return Poll::Ready(None);
            }
            state.sink = Some(ctx.waker().clone());
            return Poll::Pending;
        };
        state.bytes -= write.batch.bytes_held();
        let waiting = std::mem::take(&mut state.waiting_for_room);
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
        Poll::Ready(Some(write))
    }

    /// Ready once it is closed and empty, without taking a write: for a sink that
    /// cannot write now.
    pub fn poll_closed(&self, ctx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state.lock().expect("no panic under this lock");
        if state.closed && state.writes.is_empty() {
            return Poll::Ready(());
        }
        state.sink = Some(ctx.waker().clone());
        Poll::Pending
    }

    /// No write comes any more.
    pub fn close(&self) {
        let sink = {
            let mut state = self.state.lock().expect("no panic under this lock");
            state.closed = true;
            state.sink.take()
        };
        if let Some(sink) = sink {
            sink.wake();
        }
    }

    pub fn is_closed(&self) -> bool {
        self.state.lock().expect("no panic under this lock").closed
    }

    /// Writes not yet taken by the sink, and their bytes.
    pub fn depth(&self) -> (usize, usize) {
        let state = self.state.lock().expect("no panic under this lock");
        (state.writes.len(), state.bytes)
    }
}
