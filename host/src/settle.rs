//! `Settle`: the duty to answer a source for one delivery. Made with the delivery,
//! spent by the commit operator; knows a delivery only by its number.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
};

use crate::planted::{self, Bug};

/// Duties dropped without an answer while their dataflow was alive: a bug of ours.
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// How many duties were dropped unanswered since the process began. Must stay 0.
pub fn dropped_count() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// A delivery that is acked, of a source that is in any order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acked {
    pub number: u64,
    /// Of its messages, so many became dead letters.
    pub given_up: u64,
}

/// Which of one source's deliveries are settled. Shared by the source and its duties.
#[derive(Debug, Default)]
pub struct Settled {
    /// So many deliveries are acked.
    count: AtomicU64,
    /// Which, since they were last taken, if they may be acked in any order.
    out_of_order: Option<Mutex<Vec<Acked>>>,
    /// Of those behind it, so many are kept open by windows alone.
    kept_open: AtomicU64,
    abandoned: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Settled {
    /// For a source whose deliveries do not wait for each other.
    pub fn in_any_order() -> Self {
        Settled { out_of_order: Some(Mutex::default()), ..Settled::default() }
    }

    /// So many deliveries are acked: the first ones, unless they are in any order.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::SeqCst)
    }

    /// Appends what was acked since the last call, of a source that is in any order.
    pub fn take(&self, taken: &mut Vec<Acked>) {
        if let Some(acked) = &self.out_of_order {
            taken.append(&mut acked.lock().expect("no panic under this lock"));
        }
    }

    /// Deliveries that wait for nothing but windows to be complete.
    pub fn kept_open(&self) -> u64 {
        self.kept_open.load(Ordering::SeqCst)
    }

    /// The dataflow is gone: what is not settled now never will be.
    pub fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::SeqCst)
    }

    /// Ready with the count once it is above `seen`, or once the rest is abandoned.
    pub fn poll_beyond(&self, seen: u64, ctx: &mut Context<'_>) -> Poll<u64> {
        if let Some(count) = self.beyond(seen) {
            return Poll::Ready(count);
        }
        *self.waker.lock().expect("no panic under this lock") = Some(ctx.waker().clone());
        // Again, for what came between the look and the registration.
        self.beyond(seen).map_or(Poll::Pending, Poll::Ready)
    }

    /// Ready once `holds`, which is asked again after every answer.
    pub fn poll_until(&self, holds: impl Fn(&Self) -> bool, ctx: &mut Context<'_>) -> Poll<()> {
        if holds(self) {
            return Poll::Ready(());
        }
        *self.waker.lock().expect("no panic under this lock") = Some(ctx.waker().clone());
        if holds(self) { Poll::Ready(()) } else { Poll::Pending }
    }

    fn beyond(&self, seen: u64) -> Option<u64> {
        let count = self.count();
        (count > seen || self.is_abandoned()).then_some(count)
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.lock().expect("no panic under this lock").take() {
            waker.wake();
        }
    }
}

/// The duty to answer the source for one delivery.
#[derive(Debug)]
#[must_use = "ack or abandon it"]
pub struct Settle {
    settled: Arc<Settled>,
    number: u64,
    given_up: u64,
    kept_open: bool,
    answered: bool,
}

impl Settle {
    /// For delivery `number` (from 1, without gaps) of the source that `settled`
    /// belongs to.
    pub fn new(settled: Arc<Settled>, number: u64) -> Self {
        Settle { settled, number, given_up: 0, kept_open: false, answered: false }
    }

    /// So many more of its messages are dead letters.
    pub fn give_up(&mut self, messages: u64) {
        self.given_up += messages;
    }

    /// Nothing waits for it any more but windows, which may take their time.
    pub fn keep_open(&mut self) {
        if !std::mem::replace(&mut self.kept_open, true) {
            self.settled.kept_open.fetch_add(1, Ordering::SeqCst);
            self.settled.wake();
        }
    }

    /// Whether windows alone have kept it from being answered.
    pub fn is_kept_open(&self) -> bool {
        self.kept_open
    }

    /// Whether it must not be acked before all deliveries of its source that came earlier.
    pub fn is_in_order(&self) -> bool {
        self.settled.out_of_order.is_none()
    }

    /// All that follows from the delivery is durable, confirmed or dead-lettered.
    /// Deliveries of one source are acked in order, unless it is in any order; anything
    /// else is our own bug.
    pub fn ack(mut self) {
        self.answered = true;
        match &self.settled.out_of_order {
            None => {
                let before = self.settled.count.swap(self.number, Ordering::SeqCst);
                assert!(before + 1 == self.number, "delivery {} acked after {before}", self.number);
            }
            Some(acked) => {
                // In this order: whoever sees the count finds the number.
                acked
                    .lock()
                    .expect("no panic under this lock")
                    .push(Acked { number: self.number, given_up: self.given_up });
                self.settled.count.fetch_add(1, Ordering::SeqCst);
            }
        }
        if self.kept_open {
            self.settled.kept_open.fetch_sub(1, Ordering::SeqCst);
        }
        if planted::is_now_and_then(Bug::DoubleSettle, 20) {
            self.settled.count.fetch_add(1, Ordering::SeqCst);
        }
        self.settled.wake();
    }

    /// Its dataflow is gone: the source will deliver it again.
    pub fn abandon(mut self) {
        self.answered = true;
        self.settled.abandoned.store(true, Ordering::SeqCst);
        self.settled.wake();
    }
}

impl Drop for Settle {
    fn drop(&mut self) {
        if !self.answered {
            DROPPED.fetch_add(1, Ordering::Relaxed);
            self.settled.abandoned.store(true, Ordering::SeqCst);
            self.settled.wake();
        }
    }
}
