//! `Alarm`: a waker that remembers that it was woken. Simulated far ends look at a
//! door only when theirs rang, so that a wake-up that is missing is missed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Wake, Waker},
};

/// See the module.
pub(super) struct Alarm {
    bell: Arc<Bell>,
    waker: Waker,
}

struct Bell(AtomicBool);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl Alarm {
    /// Rings from the start: everything wants a first look.
    pub fn new() -> Self {
        let bell = Arc::new(Bell(AtomicBool::new(true)));
        Alarm { waker: bell.clone().into(), bell }
    }

    pub fn rings(&self) -> bool {
        self.bell.0.load(Ordering::SeqCst)
    }

    pub fn ring(&self) {
        self.waker.wake_by_ref();
    }

    /// Silences it and gives the waker that makes it ring again.
    pub fn reset(&self) -> Waker {
        self.bell.0.store(false, Ordering::SeqCst);
        self.waker.clone()
    }
}
