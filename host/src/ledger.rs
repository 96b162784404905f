//! `Ledger`: a tenant's byte credit between ingest and settlement. Sources ask it
//! before they enqueue; it knows nothing of what the bytes are.

use std::{
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
};

use crate::planted::{self, Bug};

/// Bytes a tenant may have in flight, over all its dataflows.
#[derive(Debug)]
pub struct Ledger {
    bytes_max: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    bytes_free: usize,
    waiting: Vec<Waker>,
}

impl Ledger {
    pub fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Ledger {
            bytes_max,
            state: Mutex::new(State { bytes_free: bytes_max, waiting: Vec::new() }),
        })
    }

    pub fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    pub fn bytes_in_flight(&self) -> usize {
        self.bytes_max - self.state.lock().expect("no panic under this lock").bytes_free
    }

    /// Whether somebody wants credit that is not there.
    pub fn is_waited_for(&self) -> bool {
        !self.state.lock().expect("no panic under this lock").waiting.is_empty()
    }

    /// Takes `bytes` of credit, or registers the waker. More than the whole ledger
    /// counts as the whole ledger: policy bounds a single message, and what a
    /// transport adds to it must not make it wait for ever.
    pub fn poll_acquire(self: &Arc<Self>, bytes: usize, ctx: &mut Context<'_>) -> Poll<Credit> {
        let bytes = bytes.min(self.bytes_max);
        let mut state = self.state.lock().expect("no panic under this lock");
        if state.bytes_free < bytes {
            if !state.waiting.iter().any(|waker| waker.will_wake(ctx.waker())) {
                state.waiting.push(ctx.waker().clone());
            }
            return Poll::Pending;
        }
        state.bytes_free -= bytes;
        Poll::Ready(Credit { ledger: self.clone(), bytes })
    }

    /// Takes `bytes` of credit if there is as much, without waiting.
    pub fn try_acquire(self: &Arc<Self>, bytes: usize) -> Option<Credit> {
        match self.poll_acquire(bytes, &mut Context::from_waker(Waker::noop())) {
            Poll::Ready(credit) => Some(credit),
            Poll::Pending => None,
        }
    }

    fn release(&self, bytes: usize) {
        let waiting = {
            let mut state = self.state.lock().expect("no panic under this lock");
            state.bytes_free += bytes;
            std::mem::take(&mut state.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }
}

/// The right to hold bytes in flight. Only a ledger makes it; dropping returns it.
#[derive(Debug)]
#[must_use = "dropping it returns the credit"]
pub struct Credit {
    ledger: Arc<Ledger>,
    bytes: usize,
}

impl Credit {
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Credit {
    fn drop(&mut self) {
        if planted::is_now_and_then(Bug::CreditLeak, 100) {
            return;
        }
        self.ledger.release(self.bytes);
    }
}

#[cfg(test)]
mod tests;
