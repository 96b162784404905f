//! `Timers`: what a shard wakes at an instant of its own clock. Timely's timers
//! read the real clock, so none of them is used.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    sync::{Arc, Mutex},
    task::Waker,
};

use crate::clock::Instant;

/// Wakers by deadline; clones share them. Guests' stores must be `Send`, so the
/// heap is behind a lock that only the shard's thread takes.
#[derive(Clone, Debug, Default)]
pub struct Timers {
    heap: Arc<Mutex<Heap>>,
}

#[derive(Debug, Default)]
struct Heap {
    timers: BinaryHeap<Reverse<Timer>>,
    armed: u64,
}

#[derive(Debug)]
struct Timer {
    at: Instant,
    /// Order of arming, so that equal deadlines fire in order.
    number: u64,
    waker: Waker,
}

impl PartialEq for Timer {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}

impl Eq for Timer {}

impl PartialOrd for Timer {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Timer {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

impl Timers {
    /// Wakes `waker` once the clock reaches `at`.
    pub fn arm(&self, at: Instant, waker: Waker) {
        let mut heap = self.heap.lock().expect("no panic under this lock");
        heap.armed += 1;
        let number = heap.armed;
        heap.timers.push(Reverse(Timer { at, number, waker }));
    }

    /// Wakes all that is due.
    pub fn fire(&self, now: Instant) {
        loop {
            let mut heap = self.heap.lock().expect("no panic under this lock");
            match heap.timers.peek() {
                Some(Reverse(timer)) if timer.at <= now => {}
                _ => return,
            }
            let timer = heap.timers.pop();
            drop(heap);
            if let Some(Reverse(timer)) = timer {
                timer.waker.wake();
            }
        }
    }

    /// The earliest deadline.
    pub fn next(&self) -> Option<Instant> {
        self.heap.lock().expect("no panic under this lock").timers.peek().map(|Reverse(timer)| timer.at)
    }
}
