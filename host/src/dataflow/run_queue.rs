//! `RunQueue`: whose guest work runs next on a shard. Deficit round robin over
//! tenants by weight, charged in CPU time after each slice; a tenant that has been
//! quiet goes first. Knows tasks by number only; Timely's own order has no weights.
//!
//! ```text
//!            enqueue, deficit > 0            deficit spent
//!   Idle ───────────────────────► Fresh ───────────────────► Waiting
//!    ▲  └──────────────────────────────────────────────────►    │ one quantum a
//!    │            enqueue, deficit spent                        │ round, by weight
//!    └──────────────────── no task left ────────────────────────┘
//! ```

use std::collections::VecDeque;

/// A tenant's place in the shard's run queue.
pub type TenantIndex = u32;
/// Some guest work that can be polled.
pub type TaskId = u32;

/// CPU time that weight 1 gets in a round: about one slice.
const QUANTUM_NS: i64 = 200_000;
/// CPU time of guest work that may run inside one turn's steps, over all tenants:
/// whoever comes later in the turn takes its place in the queue.
const INLINE_NS_MAX: i64 = 200_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Idle,
    Fresh,
    Waiting,
}

#[derive(Debug)]
struct Tenant {
    quantum_ns: i64,
    deficit_ns: i64,
    /// Round in which the deficit was last topped up.
    round: u64,
    place: Place,
    tasks: VecDeque<TaskId>,
}

#[derive(Debug, Default)]
pub struct RunQueue {
    tenants: Vec<Tenant>,
    /// Places that are given to the next tenants.
    free: Vec<TenantIndex>,
    fresh: VecDeque<TenantIndex>,
    waiting: VecDeque<TenantIndex>,
    round: u64,
    inline_ns_left: i64,
}

impl RunQueue {
    /// A place for one more tenant; `weight` from 1.
    pub fn add_tenant(&mut self, weight: u32) -> TenantIndex {
        let quantum_ns = QUANTUM_NS * i64::from(weight.max(1));
        let tenant = Tenant {
            quantum_ns,
            deficit_ns: quantum_ns,
            round: self.round,
            place: Place::Idle,
            tasks: VecDeque::new(),
        };
        if let Some(index) = self.free.pop() {
            self.tenants[index as usize] = tenant;
            return index;
        }
        self.tenants.push(tenant);
        self.tenants.len() as TenantIndex - 1
    }

    /// The tenant has no task any more and gets none: its place is another's.
    pub fn remove_tenant(&mut self, tenant: TenantIndex) {
        self.fresh.retain(|index| *index != tenant);
        self.waiting.retain(|index| *index != tenant);
        self.tenants[tenant as usize].tasks.clear();
        self.free.push(tenant);
    }

    pub fn set_weight(&mut self, tenant: TenantIndex, weight: u32) {
        self.tenants[tenant as usize].quantum_ns = QUANTUM_NS * i64::from(weight.max(1));
    }

    /// Begins a turn of the shard: inline work has its allowance again.
    pub fn begin_turn(&mut self) {
        self.inline_ns_left = INLINE_NS_MAX;
        if self.fresh.is_empty() && self.waiting.is_empty() {
            // Nobody waits, so nobody's debt hurts anybody.
            self.round += 1;
        }
    }

    /// Whether a call of `tenant` may run at once, inside the step that brought it:
    /// only while nothing of the tenant waits and its deficit is positive.
    pub fn may_run_inline(&mut self, tenant: TenantIndex) -> bool {
        let round = self.round;
        let idle = self.waiting.is_empty() && self.fresh.is_empty();
        let tenant = &mut self.tenants[tenant as usize];
        tenant.top_up(round, idle);
        // A tenant whose last task was picked keeps its place in line for a while.
        tenant.tasks.is_empty() && tenant.deficit_ns > 0 && self.inline_ns_left > 0
    }

    /// Gives `task` a place in its tenant's line.
    pub fn enqueue(&mut self, tenant: TenantIndex, task: TaskId) {
        let index = tenant;
        let (round, idle) = (self.round, self.waiting.is_empty() && self.fresh.is_empty());
        let tenant = &mut self.tenants[tenant as usize];
        if tenant.tasks.contains(&task) {
            return;
        }
        tenant.tasks.push_back(task);
        if tenant.place != Place::Idle {
            return;
        }
        tenant.top_up(round, idle);
        if tenant.deficit_ns > 0 {
            tenant.place = Place::Fresh;
            self.fresh.push_back(index);
        } else {
            tenant.place = Place::Waiting;
            self.waiting.push_back(index);
        }
    }

    /// The task that gets the next slice.
    pub fn pick(&mut self) -> Option<(TenantIndex, TaskId)> {
        while let Some(&index) = self.fresh.front() {
            let tenant = &mut self.tenants[index as usize];
            if tenant.deficit_ns > 0
                && let Some(task) = tenant.tasks.pop_front()
            {
                return Some((index, task));
            }
            self.fresh.pop_front();
            if tenant.tasks.is_empty() {
                tenant.place = Place::Idle;
            } else {
                tenant.place = Place::Waiting;
                self.waiting.push_back(index);
            }
        }
        while let Some(&index) = self.waiting.front() {
            let tenant = &mut self.tenants[index as usize];
            if tenant.tasks.is_empty() {
                tenant.place = Place::Idle;
                self.waiting.pop_front();
                continue;
            }
            if tenant.deficit_ns > 0 {
                let task = tenant.tasks.pop_front().expect("checked above");
                return Some((index, task));
            }
            if tenant.round == self.round {
                // It had its share of this round: the next one begins.
                self.round += 1;
            }
            tenant.round = self.round;
            tenant.deficit_ns += tenant.quantum_ns;
            self.waiting.rotate_left(1);
        }
        None
    }

    /// Forgets a task that will not be polled again.
    pub fn forget(&mut self, tenant: TenantIndex, task: TaskId) {
        self.tenants[tenant as usize].tasks.retain(|queued| *queued != task);
    }

    /// Takes CPU time off the tenant's deficit; `inline` work also uses up the
    /// turn's allowance.
    pub fn charge(&mut self, tenant: TenantIndex, cpu_ns: u64, inline: bool) {
        let cpu_ns = cpu_ns as i64;
        self.tenants[tenant as usize].deficit_ns -= cpu_ns;
        if inline {
            self.inline_ns_left -= cpu_ns;
        }
    }

    pub fn is_empty(&self) -> bool {
        self.fresh.iter().chain(&self.waiting).all(|index| self.tenants[*index as usize].tasks.is_empty())
    }
}

impl Tenant {
    /// A quiet tenant earns a quantum a round, up to one; with nobody waiting,
    /// everything owed is forgiven.
    fn top_up(&mut self, round: u64, idle: bool) {
        let rounds = round - self.round;
        if self.place != Place::Idle || (rounds == 0 && !idle) {
            return;
        }
        self.round = round;
        let earned = if idle {
            self.quantum_ns - self.deficit_ns
        } else {
            self.quantum_ns.saturating_mul(rounds as i64)
        };
        self.deficit_ns = self.deficit_ns.saturating_add(earned.max(0)).min(self.quantum_ns);
    }
}

#[cfg(test)]
mod tests;
