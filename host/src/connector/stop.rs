//! `Stop`: how a source is told to take nothing more. The first step of shutting
//! down and of removing a dataflow; sinks need none, since their queue is closed.

use std::{
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
};

/// Whether the source will be opened again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Farewell {
    /// The far side is to keep what comes meanwhile.
    UntilLater,
    /// Nobody will come again: the far side may forget the source.
    ForGood,
}

/// Held by the one who stops and by the source that is stopped.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    farewell: Option<Farewell>,
    source: Option<Waker>,
}

impl Stop {
    /// The first call counts.
    pub fn stop(&self, farewell: Farewell) {
        let source = {
            let mut state = self.0.lock().expect("no panic under this lock");
            state.farewell.get_or_insert(farewell);
            state.source.take()
        };
        if let Some(source) = source {
            source.wake();
        }
    }

    /// The source's side: ready once it is to stop.
    pub fn poll_stopped(&self, ctx: &mut Context<'_>) -> Poll<Farewell> {
        let mut state = self.0.lock().expect("no panic under this lock");
        if let Some(farewell) = state.farewell {
            return Poll::Ready(farewell);
        }
        if !state.source.as_ref().is_some_and(|source| source.will_wake(ctx.waker())) {
            state.source = Some(ctx.waker().clone());
        }
        Poll::Pending
    }
}
