//! `Waiter`: lets a connector that blocks its thread sleep until one of its doors, or its
//! library, has something for it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Wake, Waker},
    thread::{self, Thread},
    time::Duration,
};

/// Parks a thread until a door wakes it.
pub(super) struct Waiter {
    waker: Waker,
    woken: Arc<Woken>,
}

struct Woken {
    thread: Thread,
    flag: AtomicBool,
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.flag.store(true, Ordering::SeqCst);
        self.thread.unpark();
    }
}

impl Default for Waiter {
    fn default() -> Self {
        let woken = Arc::new(Woken { thread: thread::current(), flag: AtomicBool::new(false) });
        Waiter { waker: Waker::from(woken.clone()), woken }
    }
}

impl Waiter {
    pub(super) fn waker(&self) -> Waker {
        self.waker.clone()
    }

    pub(super) fn context(&self) -> Context<'_> {
        Context::from_waker(&self.waker)
    }

    /// Until it was woken since it last waited.
    pub(super) fn wait(&self) {
        while !self.woken.flag.swap(false, Ordering::SeqCst) {
            thread::park();
        }
    }

    /// Until then, or until the time is over.
    pub(super) fn wait_for(&self, time: Duration) {
        if !self.woken.flag.swap(false, Ordering::SeqCst) {
            thread::park_timeout(time);
        }
    }
}
