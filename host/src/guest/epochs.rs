//! `Epochs`: how long a guest of the engine `epoch` runs on one shard before it yields, and
//! when its call has had its time. For instances, around each poll of a call; the ticks come
//! from `ticker`, or on a virtual clock from the guest's own steps.

use std::{
    cell::Cell,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::Poll,
    time::Duration,
};

use wasmtime::{Engine, Store, UpdateDeadline};

use crate::{
    clock::Clock,
    guest::{state::GuestState, ticker},
};

/// Time between two yields of a guest: about what [`super::engine::SLICE_FUEL`] takes.
const SLICE: Duration = Duration::from_micros(200);

/// What one loop or call of a guest takes on a virtual clock, on which no time passes by
/// itself. Far more than it does, so that an endless loop is over soon.
const VIRTUAL_STEP: Duration = Duration::from_nanos(100);

/// One shard's.
pub struct Epochs {
    clock: Clock,
    ends: Arc<Ends>,
    /// Epochs between two looks of a guest at its clock. On a virtual one there are none, and
    /// it looks at every step.
    look_after: u64,
    /// Time of calls that have ended since the last yield, in ns.
    used_ns: Cell<u64>,
}

/// What the guest that runs now is measured by. Several shards may run guests of one
/// engine: each one's tick makes all of them look at their clocks.
struct Ends {
    /// When its slice is over.
    slice: AtomicU64,
    /// When its call has had its time, if it runs on until then.
    call: AtomicU64,
}

impl Epochs {
    pub fn new(clock: Clock) -> Self {
        let ends = Ends { slice: AtomicU64::new(0), call: AtomicU64::new(0) };
        let look_after = if matches!(clock, Clock::System) { 1 } else { 0 };
        Epochs { clock, ends: Arc::new(ends), look_after, used_ns: Cell::new(0) }
    }

    /// Makes a new store yield and stop in time. On the shard's thread.
    pub fn configure(&self, store: &mut Store<GuestState>) -> io::Result<()> {
        if matches!(self.clock, Clock::System) {
            ticker::prepare()?;
        }
        let (clock, ends, look_after) = (self.clock.clone(), self.ends.clone(), self.look_after);
        store.epoch_deadline_callback(move |_| {
            clock.spend(VIRTUAL_STEP);
            let now = clock.now();
            // The thread may have lost the CPU meanwhile. Whether the call has had its time,
            // the CPU clock then says, after the slice.
            if ends.slice.load(Ordering::Relaxed) <= now.0 {
                return Ok(UpdateDeadline::Yield(look_after));
            }
            if ends.call.load(Ordering::Relaxed) <= now.0 {
                return Ok(UpdateDeadline::Interrupt);
            }
            Ok(UpdateDeadline::Continue(look_after))
        });
        Ok(())
    }

    /// Begins a call.
    pub fn begin_call(&self, store: &mut Store<GuestState>) {
        store.set_epoch_deadline(self.look_after);
    }

    /// Lets a guest of `engine` run until its slice is over, or its call has had the time
    /// that is `left` to it.
    pub fn slice<T>(&self, engine: &Engine, left: Duration, poll: impl FnOnce() -> Poll<T>) -> Poll<T> {
        let began = self.clock.now();
        let slice_left = SLICE.saturating_sub(Duration::from_nanos(self.used_ns.get()));
        self.ends.slice.store(began.plus(slice_left).0, Ordering::Relaxed);
        self.ends.call.store(began.plus(left).0, Ordering::Relaxed);
        let polled = {
            let _ticking = matches!(self.clock, Clock::System).then(|| ticker::ticking(engine));
            poll()
        };
        let used = self.clock.now().since(began).as_nanos() as u64;
        self.used_ns.set(if polled.is_pending() { 0 } else { self.used_ns.get() + used });
        polled
    }

    /// Whether calls that have ended have used up a slice between them; the next begins.
    pub fn slice_is_over(&self) -> bool {
        let is_over = u128::from(self.used_ns.get()) >= SLICE.as_nanos();
        if is_over {
            self.used_ns.set(0);
        }
        is_over
    }
}

#[cfg(test)]
mod tests;
