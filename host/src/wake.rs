//! `Wake`: how the async side tells a shard that something waits for it. Serves
//! both doors of the path; knows the shard only as a mailbox of keys.

use std::{
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    thread::Thread,
};

use crate::planted::{self, Bug};

/// Keys that want a shard's attention, and the thread to unpark for them.
#[derive(Debug, Default)]
pub struct Mailbox {
    woken: Mutex<Vec<Arc<Wake>>>,
    /// Empty in simulation, where the shard is stepped by hand.
    thread: OnceLock<Thread>,
}

impl Mailbox {
    /// Names the thread that [`Wake`]s of this mailbox unpark. Once.
    pub fn attend(&self, thread: Thread) {
        self.thread.set(thread).expect("a shard has one thread");
    }

    /// Unparks the shard without a key.
    pub fn nudge(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    /// Moves what was woken since the last call into `keys`; each may be woken again
    /// from here on, so look at what it stands for only after this.
    pub fn take(&self, keys: &mut Vec<WakeKey>) {
        let mut woken = self.woken.lock().expect("no panic under this lock");
        for wake in woken.drain(..) {
            wake.scheduled.store(false, Ordering::SeqCst);
            keys.push(wake.key);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.woken.lock().expect("no panic under this lock").is_empty()
    }
}

/// What a wake-up is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WakeKey {
    /// Deliveries wait in a dataflow's queue, or some of its writes or dead letters
    /// were confirmed.
    Dataflow(u32),
    /// Guest work can go on and asks for a slice.
    Task(u32),
}

/// Wakes one key of one shard; many wake-ups between two turns count as one.
#[derive(Debug)]
pub struct Wake {
    key: WakeKey,
    scheduled: AtomicBool,
    mailbox: Arc<Mailbox>,
}

impl Wake {
    pub fn new(mailbox: Arc<Mailbox>, key: WakeKey) -> Arc<Self> {
        Arc::new(Wake { key, scheduled: AtomicBool::new(false), mailbox })
    }
}

impl std::task::Wake for Wake {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.scheduled.swap(true, Ordering::SeqCst) {
            return;
        }
        if planted::is_now_and_then(Bug::LostWake, 40) {
            return;
        }
        self.mailbox.woken.lock().expect("no panic under this lock").push(self.clone());
        self.mailbox.nudge();
    }
}
