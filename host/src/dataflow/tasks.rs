//! `Tasks`: guest work of one shard as futures, polled in slices by the run queue or
//! inline in a step. Serves the operators; knows nothing of what the work is.

use std::{
    cell::RefCell,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use crate::{
    clock::Clock,
    dataflow::run_queue::{RunQueue, TaskId, TenantIndex},
    wake::{Mailbox, Wake, WakeKey},
};

/// Work that borrows nothing and leaves its result where its owner looks for it.
pub type Work = Pin<Box<dyn Future<Output = ()>>>;

/// The tasks of one shard, its run queue and its CPU meter; clones share them.
#[derive(Clone)]
pub struct Tasks {
    inner: Rc<RefCell<Inner>>,
    /// CPU time of all slices so far, in ns.
    cpu_spent_ns: Rc<std::cell::Cell<u64>>,
}

struct Inner {
    clock: Clock,
    mailbox: Arc<Mailbox>,
    queue: RunQueue,
    slots: Vec<Option<Slot>>,
    free: Vec<TaskId>,
    /// CPU reading at the end of what was metered last.
    cpu_read_ns: u64,
}

struct Slot {
    tenant: TenantIndex,
    waker: Waker,
    work: Option<Work>,
    /// Called when the work has ended, so that its owner is scheduled.
    done: Rc<dyn Fn()>,
}

/// What came of polling a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Polled {
    /// The work ended; its owner was told.
    Done,
    /// It yielded or waits; a wake-up brings it back into the queue.
    Pending,
    /// It panicked: a bug of ours. The work is gone, its owner was not told.
    Panicked,
    /// There is no such work (any more).
    Nothing,
}

impl Tasks {
    pub fn new(clock: Clock, mailbox: Arc<Mailbox>) -> Self {
        let cpu_read_ns = clock.cpu_ns();
        let inner = Inner {
            clock,
            mailbox,
            queue: RunQueue::default(),
            slots: Vec::new(),
            free: Vec::new(),
            cpu_read_ns,
        };
        Tasks { inner: Rc::new(RefCell::new(inner)), cpu_spent_ns: Rc::default() }
    }

    /// CPU time of all slices that have ended, in ns: what a call reads to know how
    /// much it has used.
    pub fn cpu_spent_ns(&self) -> Rc<std::cell::Cell<u64>> {
        self.cpu_spent_ns.clone()
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
        inner.slots[task as usize] = Some(Slot { tenant, waker, work: None, done });
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
    /// otherwise queues it.
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
        if inline { self.poll(task, true) } else { Polled::Pending }
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

    /// Starts the CPU meter: what the thread did until now is nobody's.
    pub fn begin_metering(&self) {
        let inner = &mut *self.inner.borrow_mut();
        inner.cpu_read_ns = inner.clock.cpu_ns();
    }

    /// One slice for whoever the run queue picks. `None` if nobody waits.
    pub fn grant(&self) -> Option<(TaskId, Polled)> {
        let (_, task) = self.inner.borrow_mut().queue.pick()?;
        Some((task, self.poll(task, false)))
    }

    fn poll(&self, task: TaskId, inline: bool) -> Polled {
        let (mut work, waker, tenant) = {
            let inner = &mut *self.inner.borrow_mut();
            let Some(Some(slot)) = inner.slots.get_mut(task as usize) else { return Polled::Nothing };
            let Some(work) = slot.work.take() else { return Polled::Nothing };
            (work, slot.waker.clone(), slot.tenant)
        };
        let polled = catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(&mut Context::from_waker(&waker))));
        let done = {
            let inner = &mut *self.inner.borrow_mut();
            let cpu_ns = inner.clock.cpu_ns();
            let slice_ns = cpu_ns.saturating_sub(inner.cpu_read_ns);
            inner.cpu_read_ns = cpu_ns;
            self.cpu_spent_ns.set(self.cpu_spent_ns.get() + slice_ns);
            inner.queue.charge(tenant, slice_ns, inline);
            let slot = inner.slots[task as usize].as_mut();
            match (&polled, slot) {
                (Ok(Poll::Pending), Some(slot)) => {
                    slot.work = Some(work);
                    return Polled::Pending;
                }
                (_, slot) => slot.map(|slot| slot.done.clone()),
            }
        };
        match polled {
            Ok(_) => {
                if let Some(done) = done {
                    done();
                }
                Polled::Done
            }
            Err(_) => Polled::Panicked,
        }
    }
}

impl std::fmt::Debug for Tasks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tasks").finish_non_exhaustive()
    }
}
