//! `Tasks`: guest work of one shard as futures, polled in slices by the run queue or
//! inline in a step. Serves the operators; knows nothing of what the work is.

use std::{
    cell::{Cell, RefCell},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use crate::{
    clock::{Clock, Instant},
    dataflow::run_queue::{RunQueue, TaskId, TenantIndex, Used},
    wake::{Mailbox, Wake, WakeKey},
};

/// Work that borrows nothing and leaves its result where its owner looks for it.
pub type Work = Pin<Box<dyn Future<Output = ()>>>;

/// The tasks of one shard, its run queue and its CPU meter; clones share them.
#[derive(Clone)]
pub struct Tasks {
    inner: Rc<RefCell<Inner>>,
    /// CPU time of the slices that the task which is polled now has had before, in ns.
    cpu_spent_ns: Rc<Cell<u64>>,
    /// What the slice which runs now has used so far, but for its CPU time.
    used: Rc<Cell<Used>>,
}

struct Inner {
    mailbox: Arc<Mailbox>,
    queue: RunQueue,
    slots: Vec<Option<Slot>>,
    free: Vec<TaskId>,
    meter: Meter,
}

/// CPU time of what a shard's thread does, lap by lap. Reading the thread's CPU clock
/// is a system call, a quarter of what a short call of a guest costs; a lap that is
/// short by the monotonic clock cannot have lost the CPU for long, so that its length
/// is taken for its CPU time, and the next long lap puts the sum right.
struct Meter {
    clock: Clock,
    lap_began: Instant,
    /// CPU clock when it was read last.
    cpu_read_ns: u64,
    /// Taken for CPU time since then.
    guessed_ns: u64,
    /// The thread was parked: the lap that ends next is not CPU time.
    parked: bool,
}

impl Meter {
    /// From here on, a lap's CPU time is read.
    const READ_FROM_NS: u64 = 50_000;

    fn new(clock: Clock) -> Self {
        let (lap_began, cpu_read_ns) = (clock.now(), clock.cpu_ns());
        Meter { clock, lap_began, cpu_read_ns, guessed_ns: 0, parked: false }
    }

    /// CPU time since the last call, in ns.
    fn lap(&mut self) -> u64 {
        let now = self.clock.now();
        let length_ns = now.0.saturating_sub(self.lap_began.0);
        self.lap_began = now;
        if length_ns < Self::READ_FROM_NS && !self.parked {
            self.guessed_ns += length_ns;
            return length_ns;
        }
        let cpu_ns = self.clock.cpu_ns();
        let lap_ns = cpu_ns.saturating_sub(self.cpu_read_ns + self.guessed_ns).min(length_ns);
        self.cpu_read_ns = cpu_ns;
        self.guessed_ns = 0;
        self.parked = false;
        lap_ns
    }
}

struct Slot {
    tenant: TenantIndex,
    /// CPU time of its slices so far, in ns.
    spent_ns: u64,
    waker: Waker,
    work: Option<Work>,
    /// Called when the work has ended in a slice, so that its owner is scheduled.
    done: Rc<dyn Fn()>,
}

/// What came of polling a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Polled {
    /// The work ended.
    Done,
    /// It yielded or waits; a wake-up brings it back into the queue.
    Pending,
    /// It panicked: a bug of ours. The work is gone.
    Panicked,
    /// There is no such work (any more).
    Nothing,
}

impl Tasks {
    pub fn new(clock: Clock, mailbox: Arc<Mailbox>) -> Self {
        let inner = Inner {
            meter: Meter::new(clock),
            mailbox,
            queue: RunQueue::default(),
            slots: Vec::new(),
            free: Vec::new(),
        };
        Tasks { inner: Rc::new(RefCell::new(inner)), cpu_spent_ns: Rc::default(), used: Rc::default() }
    }

    /// CPU time of the polled task's own slices that have ended, in ns: what a call reads
    /// to know how much it has used. What others use while it waits is theirs.
    pub fn cpu_spent_ns(&self) -> Rc<Cell<u64>> {
        self.cpu_spent_ns.clone()
    }

    /// Where guests add what they use, but for CPU time.
    pub fn used(&self) -> Rc<Cell<Used>> {
        self.used.clone()
    }

    /// The last reading of the clock that anybody here made: as the turn began, or as a
    /// slice ended.
    pub fn latest(&self) -> Instant {
        let inner = self.inner.borrow();
        inner.queue.now().max(inner.meter.lap_began)
    }

    pub fn queue<R>(&self, with: impl FnOnce(&mut RunQueue) -> R) -> R {
        with(&mut self.inner.borrow_mut().queue)
    }

    /// A slot for work of `tenant`, empty at first.
    pub fn add(&self, tenant: TenantIndex, done: Rc<dyn Fn()>) -> TaskId {
        let inner = &mut *self.inner.borrow_mut();
        let task = inner.free.pop().unwrap_or_else(|| {
            inner.slots.push(None);
            inner.slots.len() as TaskId - 1
        });
        let waker = Waker::from(Wake::new(inner.mailbox.clone(), WakeKey::Task(task)));
        inner.slots[task as usize] = Some(Slot { tenant, spent_ns: 0, waker, work: None, done });
        task
    }

    /// Ends the task; what it holds is dropped.
    pub fn remove(&self, task: TaskId) {
        let slot = {
            let inner = &mut *self.inner.borrow_mut();
            let slot = inner.slots[task as usize].take();
            if let Some(slot) = &slot {
                inner.queue.forget(slot.tenant, task);
                inner.free.push(task);
            }
            slot
        };
        // Outside the borrow: dropping work drops guests, which may wake others.
        drop(slot);
    }

    /// Gives the task its work and runs it at once if the run queue allows,
    /// otherwise queues it. Work that ends at once is not announced.
    pub fn start(&self, task: TaskId, work: Work) -> Polled {
        let inline = {
            let inner = &mut *self.inner.borrow_mut();
            let slot = inner.slots[task as usize].as_mut().expect("started by its owner, who removes it");
            assert!(slot.work.replace(work).is_none(), "one work a task at a time");
            let tenant = slot.tenant;
            let inline = inner.queue.may_run_inline(tenant);
            if !inline {
                inner.queue.enqueue(tenant, task);
            }
            inline
        };
        if inline { self.poll(task, true).0 } else { Polled::Pending }
    }

    /// The task's work can go on: queues it for a slice.
    pub fn wake(&self, task: TaskId) {
        let inner = &mut *self.inner.borrow_mut();
        if let Some(Some(slot)) = inner.slots.get(task as usize)
            && slot.work.is_some()
        {
            inner.queue.enqueue(slot.tenant, task);
        }
    }

    /// The thread is about to park.
    pub fn park(&self) {
        self.inner.borrow_mut().meter.parked = true;
    }

    /// One slice for whoever the run queue picks, and its CPU time in ns. `None` if nobody
    /// waits.
    pub fn grant(&self) -> Option<(TaskId, Polled, u64)> {
        let (_, task) = self.inner.borrow_mut().queue.pick()?;
        let (polled, slice_ns) = self.poll(task, false);
        Some((task, polled, slice_ns))
    }

    fn poll(&self, task: TaskId, inline: bool) -> (Polled, u64) {
        let (mut work, waker, tenant) = {
            let inner = &mut *self.inner.borrow_mut();
            let Some(Some(slot)) = inner.slots.get_mut(task as usize) else { return (Polled::Nothing, 0) };
            let Some(work) = slot.work.take() else { return (Polled::Nothing, 0) };
            // What the thread did until now is nobody's.
            inner.meter.lap();
            self.cpu_spent_ns.set(slot.spent_ns);
            (work, slot.waker.clone(), slot.tenant)
        };
        let polled = catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(&mut Context::from_waker(&waker))));
        let (done, slice_ns) = {
            let inner = &mut *self.inner.borrow_mut();
            let slice_ns = inner.meter.lap();
            let used = Used { cpu_ns: slice_ns, ..self.used.take() };
            inner.queue.charge(tenant, used, inline);
            let mut slot = inner.slots[task as usize].as_mut();
            if let Some(slot) = &mut slot {
                slot.spent_ns += slice_ns;
            }
            match (&polled, slot) {
                (Ok(Poll::Pending), Some(slot)) => {
                    slot.work = Some(work);
                    return (Polled::Pending, slice_ns);
                }
                (_, slot) => (slot.filter(|_| !inline).map(|slot| slot.done.clone()), slice_ns),
            }
        };
        match polled {
            Ok(_) => {
                if let Some(done) = done {
                    done();
                }
                (Polled::Done, slice_ns)
            }
            Err(_) => (Polled::Panicked, slice_ns),
        }
    }
}

impl std::fmt::Debug for Tasks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tasks").finish_non_exhaustive()
    }
}
