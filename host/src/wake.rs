//! `Wake`: how the async side tells a shard that something waits for it. Serves
//! both doors of the path; knows the shard only as a mailbox of keys.

use std::{
    future::poll_fn,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    task::{Poll, Waker},
};

use crate::planted::{self, Bug};

/// Keys that want a shard's attention, and how to tell it so while it sleeps. A shard
/// that is stepped by hand never sleeps.
#[derive(Debug, Default)]
pub struct Mailbox {
    state: Mutex<State>,
    /// Whether there are keys: a shard looks every turn, and whoever wakes it would have
    /// to wait for a lock that is taken to find nothing.
    has_keys: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    woken: Vec<Arc<Wake>>,
    /// Empty: room for those to come while these are looked at.
    spare: Vec<Arc<Wake>>,
    /// Woken without a key since the shard last looked.
    nudged: bool,
    /// The shard sleeps until this is woken.
    sleeper: Option<Waker>,
}

impl Mailbox {
    /// Wakes the shard without a key.
    pub fn nudge(&self) {
        let mut state = self.state();
        state.nudged = true;
        Self::rouse(state);
    }

    /// Moves what was woken since the last call into `keys`; each may be woken again
    /// from here on, so look at what it stands for only after this.
    pub fn take(&self, keys: &mut Vec<WakeKey>) {
        if self.is_empty() {
            return;
        }
        // No longer than that, since whoever wakes would wait for it.
        let mut woken = {
            let mut state = self.state();
            self.has_keys.store(false, Ordering::SeqCst);
            let spare = std::mem::take(&mut state.spare);
            std::mem::replace(&mut state.woken, spare)
        };
        for wake in woken.drain(..) {
            wake.scheduled.store(false, Ordering::SeqCst);
            keys.push(wake.key);
        }
        self.state().spare = woken;
    }

    pub fn is_empty(&self) -> bool {
        !self.has_keys.load(Ordering::SeqCst)
    }

    /// The shard found nothing to do. True if it may sleep until `waker` is woken;
    /// false if something came meanwhile.
    pub fn sleep(&self, waker: &Waker) -> bool {
        let mut state = self.state();
        let may_sleep = !std::mem::take(&mut state.nudged) && state.woken.is_empty();
        state.sleeper = may_sleep.then(|| waker.clone());
        may_sleep
    }

    fn push(&self, wake: &Arc<Wake>) {
        let mut state = self.state();
        state.woken.push(wake.clone());
        self.has_keys.store(true, Ordering::SeqCst);
        Self::rouse(state);
    }

    /// A shard that is awake looks by itself before it sleeps.
    fn rouse(mut state: MutexGuard<'_, State>) {
        let sleeper = state.sleeper.take();
        drop(state);
        if let Some(sleeper) = sleeper {
            sleeper.wake();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic under this lock")
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
        self.mailbox.push(self);
    }
}

/// Lets whoever else is ready run first.
pub async fn yield_once() {
    let mut yielded = false;
    poll_fn(|ctx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        ctx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
