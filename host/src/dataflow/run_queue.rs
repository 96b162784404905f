//! `RunQueue`: whose guest work runs next on a shard. Deficit round robin over
//! tenants by weight, charged in CPU time after each slice; a tenant that has been
//! quiet goes first, one that is past its CPU rate last, and one that may use no more
//! waits until its bucket has filled. Knows tasks by number only; Timely's own order
//! has no weights.
//!
//! ```text
//!            enqueue, deficit > 0            deficit spent
//!   Idle ───────────────────────► Fresh ───────────────────► Waiting
//!    ▲  └──────────────────────────────────────────────────►  │  ▲  one quantum a
//!    │            enqueue, deficit spent                      │  │  round, by weight
//!    │                                       past its rate    ▼  │  has filled
//!    └──────────────────── no task left ─────────────────── Behind, Throttled
//! ```
//!
//! *Behind* are those past their `cpu` rate without a cap: what nobody within theirs
//! wants is divided among them, by weight. *Throttled* are those with a cap, or out of
//! fuel: they run only once their bucket is open again.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    sync::Arc,
};

use crate::{
    bucket::{Bucket, Level, LevelOf},
    clock::Instant,
    guest::host_call::{HostCalls, Interface},
    stats::{Counter, TenantStats},
};

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
    /// In the line of those past their rate.
    Behind,
    /// In no line: its bucket opens by itself.
    Throttled,
}

/// What a tenant may use on its shard.
#[derive(Debug)]
pub struct Share {
    /// From 1.
    pub weight: u32,
    /// CPU time, in ns.
    pub cpu: Bucket,
    /// No more CPU time than that, even if nobody else wants it.
    pub cpu_cap: bool,
    /// No more fuel than this.
    pub fuel: Option<Bucket>,
    /// No more host calls than these, where they are limited.
    pub calls: Vec<(Interface, Bucket)>,
    pub stats: Arc<TenantStats>,
    /// Of the CPU time of its models, which run in a process of their own, so much is charged
    /// already, in ns.
    pub models_charged_ns: u64,
}

impl Share {
    fn fill(&mut self, now: Instant) {
        self.cpu.fill(now);
        self.fuel.iter_mut().for_each(|fuel| fuel.fill(now));
        self.calls.iter_mut().for_each(|(_, calls)| calls.fill(now));
    }

    fn spend(&mut self, used: &Used) {
        let models_ns = self.stats.models_cpu_ns.get();
        self.cpu.spend(used.cpu_ns + models_ns.saturating_sub(self.models_charged_ns));
        self.models_charged_ns = models_ns;
        self.fuel.iter_mut().for_each(|fuel| fuel.spend(used.fuel));
        self.calls.iter_mut().for_each(|(of, calls)| calls.spend(used.calls.of(*of).into()));
        self.stats.cpu_ns.add(used.cpu_ns);
        self.stats.longest_slice_ns.raise(used.cpu_ns);
        self.stats.fuel.add(used.fuel);
        self.stats.host_calls.add(used.calls.total());
    }

    fn is_behind(&self) -> bool {
        !self.cpu_cap && !self.cpu.is_open()
    }

    /// Buckets without which it does not run.
    fn needed(&self) -> impl Iterator<Item = (&Bucket, &Counter)> {
        let stats = &*self.stats;
        let cpu = self.cpu_cap.then_some((&self.cpu, &stats.throttled_cpu));
        let fuel = self.fuel.as_ref().map(|fuel| (fuel, &stats.throttled_fuel));
        let calls = self.calls.iter().map(|(_, calls)| (calls, &stats.throttled_calls));
        cpu.into_iter().chain(fuel).chain(calls)
    }

    fn is_throttled(&self) -> bool {
        self.needed().any(|(bucket, _)| !bucket.is_open())
    }

    /// When it may run again.
    fn runs_at(&self) -> Instant {
        self.needed().map(|(bucket, _)| bucket.opens_at()).max().unwrap_or_default()
    }
}

#[derive(Debug)]
struct Tenant {
    share: Share,
    quantum_ns: i64,
    deficit_ns: i64,
    /// Round in which the deficit was last topped up.
    round: u64,
    place: Place,
    tasks: VecDeque<TaskId>,
    /// It is among `opening`.
    opens: bool,
    /// Since when it has been throttled.
    throttled_since: Option<Instant>,
}

#[derive(Debug, Default)]
pub struct RunQueue {
    /// As of the turn that runs.
    now: Instant,
    tenants: Vec<Tenant>,
    /// Places that are given to the next tenants.
    free: Vec<TenantIndex>,
    fresh: VecDeque<TenantIndex>,
    waiting: VecDeque<TenantIndex>,
    /// Those past their rate.
    behind: VecDeque<TenantIndex>,
    /// When to look at those behind or throttled again, each at most once.
    opening: BinaryHeap<Reverse<(Instant, TenantIndex)>>,
    /// Throttled with work to do.
    throttled: usize,
    /// Somebody had to wait for a slice in this turn, or in the one before.
    waits: [bool; 2],
    round: u64,
    inline_ns_left: i64,
}

impl RunQueue {
    /// A place for one more tenant.
    pub fn add_tenant(&mut self, share: Share) -> TenantIndex {
        let quantum_ns = QUANTUM_NS * i64::from(share.weight.max(1));
        let tenant = Tenant {
            share,
            quantum_ns,
            deficit_ns: quantum_ns,
            round: self.round,
            place: Place::Idle,
            tasks: VecDeque::new(),
            opens: false,
            throttled_since: None,
        };
        if let Some(index) = self.free.pop() {
            self.tenants[index as usize] = tenant;
            return index;
        }
        self.tenants.push(tenant);
        self.tenants.len() as TenantIndex - 1
    }

    /// The tenant has no task any more and gets none: its place is another's.
    pub fn remove_tenant(&mut self, index: TenantIndex) {
        for line in [&mut self.fresh, &mut self.waiting, &mut self.behind] {
            line.retain(|other| *other != index);
        }
        self.opening.retain(|Reverse((_, other))| *other != index);
        let tenant = &mut self.tenants[index as usize];
        if tenant.place == Place::Throttled {
            self.throttled -= 1;
        }
        tenant.place = Place::Idle;
        tenant.tasks.clear();
        // Whoever counts what it used sees by this that no more comes.
        tenant.share.stats = Arc::default();
        self.free.push(index);
    }

    /// Begins a turn of the shard at `now`: inline work has its allowance again, and
    /// buckets that have filled let their tenants go on.
    pub fn begin_turn(&mut self, now: Instant) {
        self.now = now;
        self.inline_ns_left = INLINE_NS_MAX;
        self.waits = [false, self.waits[0]];
        if self.is_calm() {
            // Nobody waits, so nobody's debt hurts anybody.
            self.round += 1;
        }
        while let Some(Reverse((at, index))) = self.opening.peek().copied()
            && at <= now
        {
            self.opening.pop();
            let tenant = &mut self.tenants[index as usize];
            tenant.opens = false;
            if matches!(tenant.place, Place::Behind | Place::Throttled) {
                tenant.share.fill(now);
                self.replace(index);
            }
        }
    }

    /// Nobody waits for a slice now, nor did a moment ago: lines are empty for an instant
    /// between two calls of tenants that all want more.
    fn is_calm(&self) -> bool {
        self.waits == [false; 2] && self.fresh.is_empty() && self.waiting.is_empty() && self.behind.is_empty()
    }

    /// Puts a tenant that was behind or throttled where it belongs now.
    fn replace(&mut self, index: TenantIndex) {
        let tenant = &mut self.tenants[index as usize];
        match tenant.place {
            Place::Throttled => {
                if tenant.share.is_throttled() {
                    return self.look_again(index);
                }
                self.throttled -= 1;
                let since = tenant.throttled_since.take().unwrap_or(self.now);
                tenant.share.stats.unthrottled.add(1);
                tenant.share.stats.throttled_ns.add(self.now.since(since).as_nanos() as u64);
            }
            Place::Behind if tenant.share.is_behind() => return self.look_again(index),
            Place::Behind => self.behind.retain(|other| *other != index),
            Place::Idle | Place::Fresh | Place::Waiting => return,
        }
        let tenant = &mut self.tenants[index as usize];
        tenant.place = Place::Idle;
        if !tenant.tasks.is_empty() {
            self.line_up(index);
        }
    }

    /// Sees to it that the tenant is looked at once its bucket may be open.
    fn look_again(&mut self, index: TenantIndex) {
        let now = self.now;
        let tenant = &mut self.tenants[index as usize];
        if std::mem::replace(&mut tenant.opens, true) {
            return;
        }
        let is_throttled = tenant.place == Place::Throttled;
        let at = if is_throttled { tenant.share.runs_at() } else { tenant.share.cpu.opens_at() };
        // What may be open now is looked at in the next turn.
        self.opening.push(Reverse((at.max(Instant(now.0 + 1)), index)));
    }

    /// When a throttled tenant with work to do may run again.
    pub fn next_opening(&self) -> Option<Instant> {
        (self.throttled > 0).then(|| self.opening.peek().map(|Reverse((at, _))| *at)).flatten()
    }

    /// Gives a tenant with tasks and no place its line.
    fn line_up(&mut self, index: TenantIndex) {
        let (round, calm, now) = (self.round, self.is_calm(), self.now);
        let tenant = &mut self.tenants[index as usize];
        tenant.share.fill(now);
        if tenant.share.is_throttled() {
            return self.throttle(index);
        }
        tenant.top_up(round, calm);
        if tenant.share.is_behind() {
            tenant.place = Place::Behind;
            // Who has some of a quantum left was away for a moment only, between two calls.
            match tenant.deficit_ns > 0 {
                true => self.behind.push_front(index),
                false => self.behind.push_back(index),
            }
            return self.look_again(index);
        }
        if tenant.deficit_ns > 0 {
            tenant.place = Place::Fresh;
            self.fresh.push_back(index);
        } else {
            tenant.place = Place::Waiting;
            self.waiting.push_back(index);
        }
    }

    fn throttle(&mut self, index: TenantIndex) {
        let tenant = &mut self.tenants[index as usize];
        tenant.share.stats.throttled.add(1);
        tenant.share.needed().filter(|(bucket, _)| !bucket.is_open()).for_each(|(_, times)| times.add(1));
        tenant.throttled_since = Some(self.now);
        tenant.place = Place::Throttled;
        self.throttled += 1;
        self.look_again(index);
    }

    /// Whether a call of `tenant` may run at once, inside the step that brought it:
    /// only while nothing of the tenant waits and its deficit is positive, and past its
    /// rate only while nobody else waits.
    pub fn may_run_inline(&mut self, tenant: TenantIndex) -> bool {
        let (round, calm, now) = (self.round, self.is_calm(), self.now);
        let others = !self.fresh.is_empty() || !self.waiting.is_empty() || !self.behind.is_empty();
        let tenant = &mut self.tenants[tenant as usize];
        tenant.share.fill(now);
        tenant.top_up(round, calm);
        // A tenant whose last task was picked keeps its place in line for a while.
        tenant.tasks.is_empty()
            && tenant.deficit_ns > 0
            && self.inline_ns_left > 0
            && !tenant.share.is_throttled()
            && !(others && tenant.share.is_behind())
    }

    /// Gives `task` a place in its tenant's line.
    pub fn enqueue(&mut self, index: TenantIndex, task: TaskId) {
        let tenant = &mut self.tenants[index as usize];
        if tenant.tasks.contains(&task) {
            return;
        }
        tenant.tasks.push_back(task);
        if tenant.place == Place::Idle {
            self.line_up(index);
        }
        self.waits[0] = true;
    }

    /// The task that gets the next slice.
    pub fn pick(&mut self) -> Option<(TenantIndex, TaskId)> {
        while let Some(&index) = self.fresh.front() {
            if self.leaves(index, Place::Fresh) {
                continue;
            }
            let tenant = &mut self.tenants[index as usize];
            if tenant.deficit_ns > 0
                && let Some(task) = tenant.tasks.pop_front()
            {
                return Some((index, task));
            }
            self.fresh.pop_front();
            tenant.place = Place::Waiting;
            self.waiting.push_back(index);
        }
        self.pick_in_turn(Place::Waiting).or_else(|| self.pick_in_turn(Place::Behind))
    }

    /// The next task of a line in which everybody has a quantum a round.
    fn pick_in_turn(&mut self, place: Place) -> Option<(TenantIndex, TaskId)> {
        while let Some(&index) = self.line(place).front() {
            if self.leaves(index, place) {
                continue;
            }
            let tenant = &mut self.tenants[index as usize];
            if tenant.deficit_ns > 0 {
                let task = tenant.tasks.pop_front().expect("those without a task leave");
                return Some((index, task));
            }
            if tenant.round == self.round {
                // It had its share of this round: the next one begins.
                self.round += 1;
            }
            tenant.earn(self.round);
            self.line(place).rotate_left(1);
        }
        None
    }

    fn line(&mut self, place: Place) -> &mut VecDeque<TenantIndex> {
        match place {
            Place::Fresh => &mut self.fresh,
            Place::Behind => &mut self.behind,
            Place::Waiting | Place::Idle | Place::Throttled => &mut self.waiting,
        }
    }

    /// Takes the first of a line out of it if it does not belong there any more.
    fn leaves(&mut self, index: TenantIndex, place: Place) -> bool {
        let now = self.now;
        let tenant = &mut self.tenants[index as usize];
        tenant.share.fill(now);
        let stays = !tenant.tasks.is_empty()
            && !tenant.share.is_throttled()
            && tenant.share.is_behind() == (place == Place::Behind);
        if stays {
            return false;
        }
        tenant.place = Place::Idle;
        let has_tasks = !tenant.tasks.is_empty();
        self.line(place).pop_front();
        if has_tasks {
            self.line_up(index);
        }
        true
    }

    /// Forgets a task that will not be polled again.
    pub fn forget(&mut self, tenant: TenantIndex, task: TaskId) {
        self.tenants[tenant as usize].tasks.retain(|queued| *queued != task);
    }

    /// Charges a tenant with what a slice used; `inline` work also uses up
    /// the turn's allowance.
    pub fn charge(&mut self, tenant: TenantIndex, used: Used, inline: bool) {
        let Tenant { share, deficit_ns, .. } = &mut self.tenants[tenant as usize];
        share.spend(&used);
        *deficit_ns -= used.cpu_ns as i64;
        if inline {
            self.inline_ns_left -= used.cpu_ns as i64;
        }
    }

    /// When the turn began that runs.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// What is left to a tenant at `now`, and whether it waits for more.
    pub fn levels(&mut self, index: TenantIndex, now: Instant) -> (Vec<Level>, bool) {
        let Tenant { share, place, .. } = &mut self.tenants[index as usize];
        share.fill(now);
        let level = |of, name, bucket: &Bucket| Level::new(of, name, bucket, now);
        let mut levels = vec![level(LevelOf::Cpu { cap: share.cpu_cap }, "", &share.cpu)];
        levels.extend(share.fuel.iter().map(|fuel| level(LevelOf::Fuel, "", fuel)));
        levels.extend(share.calls.iter().map(|(of, calls)| level(LevelOf::Calls, of.name(), calls)));
        (levels, *place == Place::Throttled)
    }

    /// Whether nobody could be given a slice now.
    pub fn is_empty(&self) -> bool {
        let mut lines = self.fresh.iter().chain(&self.waiting).chain(&self.behind);
        lines.all(|index| self.tenants[*index as usize].tasks.is_empty())
    }
}

/// What a slice used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    pub cpu_ns: u64,
    pub fuel: u64,
    pub calls: HostCalls,
}

/// The most that a tenant may have left, in quanta. One is not enough: who runs inline is
/// in no line for most of the time, and would lose what it earned while it had some left.
const QUANTA_MAX: i64 = 2;

impl Tenant {
    /// A tenant in no line earns as those in lines do, once it has nothing left; with
    /// nobody waiting, everything owed is forgiven.
    fn top_up(&mut self, round: u64, idle: bool) {
        if self.place != Place::Idle {
            return;
        }
        if idle {
            self.round = round;
            self.deficit_ns = self.deficit_ns.max(self.quantum_ns);
        } else if self.deficit_ns <= 0 {
            self.earn(round);
        }
    }

    /// A quantum for each round that has begun since it earned last.
    fn earn(&mut self, round: u64) {
        let rounds = i64::try_from(round - self.round).unwrap_or(i64::MAX);
        self.round = round;
        let earned = self.quantum_ns.saturating_mul(rounds);
        self.deficit_ns = self.deficit_ns.saturating_add(earned).min(QUANTA_MAX * self.quantum_ns);
    }
}

#[cfg(test)]
mod tests;
