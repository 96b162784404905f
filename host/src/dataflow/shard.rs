//! `Shard`: one Timely worker with the dataflows that live on it, stepped by a loop
//! of ours: commands, wake-ups, one slice for the run queue's pick, cheap work until
//! idle. In production on a thread of its own, whose other half are its tenants'
//! connections; by hand on a virtual clock in simulation. Knows connectors only as
//! doors.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    future::poll_fn,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    rc::Rc,
    sync::{Arc, Weak, mpsc},
    task::{Context, Poll, Waker},
    time::Duration,
};

use timely::{WorkerConfig, communication::Allocator, worker::Worker};
use tokio::{runtime::Runtime, sync::oneshot, time::Sleep};

use crate::{
    clock::{Clock, Instant},
    dataflow::{
        circuit::{Circuit, CircuitLimits},
        description::Description,
        lull,
        operators::{Parts, Setup},
        plan::{Failure, Health, Plan},
        region::Region,
        run_queue::{TaskId, TenantIndex},
        tasks::{Polled, Tasks},
        timers::Timers,
        window::Windows,
    },
    dead_letter::DeadLetters,
    guest::{Guests, Operator, component::Components, instance::GuestsSetup, linker::Linkers},
    hlc::Hlc,
    queue::Queue,
    resource::PerEngine,
    tenant::Tenant,
    wake::{Mailbox, Wake, WakeKey},
    write::Confirms,
};

/// Names a dataflow on its shard; never used again.
pub type DataflowId = u32;

/// Steps of one turn, so that a chatty dataflow cannot keep the shard from its
/// commands.
const STEPS_MAX: usize = 8;
/// Slices are granted until they have used so much CPU time between them.
const SHORT_SLICES_NS: u64 = 20_000;
/// Dataflows installed in one turn: each costs some 30 µs, and its first step as much.
const INSTALLS_MAX: usize = 20;

/// After so long the connections on the shard's thread get their turn.
const TURNS_WITHIN: Duration = Duration::from_micros(100);
/// After as many polls of connections the shard gets its turn, and sockets are asked
/// for news.
const POLLS_MAX: u32 = 8;
/// Fewer tenants than these are not looked through for those that are gone.
const TENANTS_SWEPT_AT_MIN: usize = 16;

/// What a shard is told to do.
pub enum Command {
    /// Builds the dataflow. Answers with its id and the queue for its sources.
    Install { plan: Arc<Plan>, reply: oneshot::Sender<(DataflowId, Arc<Queue>)> },
    /// Closes the dataflow's queue, lets it empty for at most `drain`, and ends it.
    Remove { dataflow: DataflowId, drain: Duration, reply: oneshot::Sender<Removed> },
    /// Lets a dataflow go on that is paused or in quarantine. False if it is neither.
    Resume { dataflow: DataflowId, reply: oneshot::Sender<bool> },
    /// Runs `init` of each operator once, on instances that are thrown away.
    Try { operators: Vec<Arc<Operator>>, reply: oneshot::Sender<Result<(), String>> },
    /// Says what only the shard knows of a dataflow; nothing of one that is gone.
    Describe { dataflow: DataflowId, reply: oneshot::Sender<Option<Description>> },
    /// Counts instances.
    Census { reply: oneshot::Sender<Census> },
    /// Abandons what is left and ends the shard.
    Stop,
}

/// How a removed dataflow ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removed {
    /// Everything it had taken is settled.
    Drained,
    /// The deadline came first: what it had taken will be delivered again.
    Abandoned,
}

/// What a shard holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    pub dataflows: usize,
    pub instances: usize,
    pub instances_idle: usize,
}

/// Sends commands to a shard; clones reach the same one.
#[derive(Clone)]
pub struct ShardDoor {
    commands: mpsc::Sender<Command>,
    mailbox: Arc<Mailbox>,
}

impl ShardDoor {
    /// A shard that has ended drops the command, and with it the reply's sender.
    pub fn send(&self, command: Command) {
        if self.commands.send(command).is_ok() {
            self.mailbox.nudge();
        }
    }
}

/// What a shard is made of.
pub struct ShardSetup {
    pub clock: Clock,
    pub components: Components,
    pub linkers: Arc<Linkers>,
    pub dead_letters: DeadLetters,
    /// Instances and components that this shard may have at once.
    pub slots_max: PerEngine<usize>,
    pub components_max: usize,
    /// Seed of its guests' random numbers.
    pub seed: u64,
}

/// Who was woken.
struct Woken {
    any: bool,
    dataflows: bool,
}

/// What came of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// There may be more to do at once.
    Busy,
    /// Nothing to do until a wake-up, a command, or this instant.
    Idle {
        until: Option<Instant>,
    },
    Stopped,
}

pub struct Shard {
    worker: Worker,
    clock: Clock,
    timers: Timers,
    mailbox: Arc<Mailbox>,
    tasks: Tasks,
    guests: Guests,
    dead_letters: DeadLetters,
    hlc: Rc<RefCell<Hlc>>,
    commands: mpsc::Receiver<Command>,
    dataflows: HashMap<DataflowId, Installed>,
    next_dataflow: DataflowId,
    /// Whose region a task is; tasks without an owner are trials.
    task_owners: HashMap<TaskId, DataflowId>,
    /// By address; one that is gone stays for a while.
    tenants: HashMap<usize, (TenantIndex, Weak<Tenant>)>,
    /// So many tenants at which those that are gone are looked for.
    tenants_swept_at: usize,
    removals: Vec<Removal>,
    woken: Vec<WakeKey>,
    /// The last turn put its slice off.
    has_deferred: bool,
    stopped: bool,
}

struct Installed {
    parts: Rc<Parts>,
    timely_index: usize,
    /// Identifiers of its Timely operators.
    operators: std::ops::Range<usize>,
}

struct Removal {
    dataflow: DataflowId,
    deadline: Instant,
    reply: oneshot::Sender<Removed>,
}

/// Bounded by what policies let tenants connect; a thread that waits costs little.
const BLOCKING_THREADS_MAX: usize = 1 << 16;

impl Shard {
    pub fn new(setup: ShardSetup) -> (Self, ShardDoor) {
        let ShardSetup { clock, components, linkers, dead_letters, slots_max, components_max, seed } = setup;
        let mailbox = Arc::<Mailbox>::default();
        let timers = Timers::default();
        let tasks = Tasks::new(clock.clone(), mailbox.clone());
        let guests = Guests::new(GuestsSetup {
            components,
            linkers,
            clock: clock.clone(),
            timers: timers.clone(),
            cpu_spent_ns: tasks.cpu_spent_ns(),
            used: tasks.used(),
            slots_max,
            components_max,
            seed,
        });
        let allocator = Allocator::Thread(timely::communication::allocator::thread::Thread::default());
        // Without an instant a worker never counts as idle. None of Timely's timers is
        // used, so that nothing depends on it.
        let worker = Worker::new(WorkerConfig::default(), allocator, Some(std::time::Instant::now()));
        let (tx, commands) = mpsc::channel();
        let door = ShardDoor { commands: tx, mailbox: mailbox.clone() };
        let shard = Shard {
            worker,
            clock,
            timers,
            mailbox,
            tasks,
            guests,
            dead_letters,
            hlc: Rc::default(),
            commands,
            dataflows: HashMap::new(),
            next_dataflow: 0,
            task_owners: HashMap::new(),
            tenants: HashMap::new(),
            tenants_swept_at: TENANTS_SWEPT_AT_MIN,
            removals: Vec::new(),
            woken: Vec::new(),
            has_deferred: false,
            stopped: false,
        };
        (shard, door)
    }

    /// A runtime for one shard and the connections of its tenants. A message then
    /// passes from socket to guests to socket without a change of threads, which on
    /// a busy machine costs more than the guests' work.
    pub fn runtime() -> io::Result<Runtime> {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .event_interval(POLLS_MAX)
            .on_thread_park(lull::park)
            // Connectors that block have one each, as long as they run.
            .max_blocking_threads(BLOCKING_THREADS_MAX)
            .build()
    }

    /// Runs on the calling thread until stopped, taking turns with what else was
    /// spawned on `runtime`: the connections of its tenants, to which it is then
    /// only a function call away.
    pub fn run(mut self, runtime: &Runtime) {
        runtime.block_on(async move {
            let mut sleep = pin!(tokio::time::sleep(Duration::ZERO));
            poll_fn(|ctx| self.poll_turns(sleep.as_mut(), ctx)).await;
        });
    }

    /// Turns until there is nothing to do, or until others should have a look.
    fn poll_turns(&mut self, mut sleep: Pin<&mut Sleep>, ctx: &mut Context<'_>) -> Poll<()> {
        let began = self.clock.now();
        loop {
            match self.turn() {
                Turn::Stopped => return Poll::Ready(()),
                Turn::Busy if !self.has_deferred && self.clock.now().since(began) < TURNS_WITHIN => {}
                Turn::Busy => {
                    ctx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Turn::Idle { until } => {
                    if let Some(until) = until {
                        let wait = until.since(self.clock.now());
                        sleep.as_mut().reset(tokio::time::Instant::now() + wait);
                        if sleep.as_mut().poll(ctx).is_ready() {
                            continue;
                        }
                    }
                    if self.mailbox.sleep(ctx.waker()) {
                        return Poll::Pending;
                    }
                }
            }
        }
    }

    /// One turn: commands, wake-ups, one slice, then cheap work until idle. Where something
    /// came for a dataflow the slice is put off by one turn, so that what came goes through,
    /// and out by connections that want this thread, before whoever works long.
    pub fn turn(&mut self) -> Turn {
        self.take_commands();
        if self.stopped {
            return Turn::Stopped;
        }
        let now = self.clock.now();
        if self.timers.next().is_some() {
            self.timers.fire(now);
        }
        let Woken { any: woken, dataflows } = self.take_wakes();
        self.tasks.queue(|queue| queue.begin_turn(now));
        let defers = dataflows && !self.has_deferred && !self.tasks.queue(|queue| queue.is_empty());
        self.has_deferred = defers;
        let granted = !defers && self.grant_slices();
        if granted {
            self.take_wakes();
        }
        let mut stepped = false;
        for _ in 0..STEPS_MAX {
            if self.is_timely_idle() {
                break;
            }
            stepped = true;
            self.step();
        }
        self.finish_removals();
        let busy = woken
            || granted
            || stepped
            || !self.mailbox.is_empty()
            || !self.is_timely_idle()
            || !self.tasks.queue(|queue| queue.is_empty());
        if busy {
            return Turn::Busy;
        }
        self.tasks.park();
        Turn::Idle { until: self.next_deadline() }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let opening = self.tasks.queue(|queue| queue.next_opening());
        let removals = self.removals.iter().map(|removal| removal.deadline);
        removals.chain(self.timers.next()).chain(opening).min()
    }

    fn is_timely_idle(&self) -> bool {
        self.worker.activations().borrow().empty_for() != Some(Duration::ZERO)
    }

    fn take_commands(&mut self) {
        for _ in 0..INSTALLS_MAX {
            let Ok(command) = self.commands.try_recv() else { return };
            match command {
                Command::Install { plan, reply } => {
                    let installed = self.install(plan);
                    // Whoever asked may have gone away; the dataflow is there all the same.
                    let _ = reply.send(installed);
                }
                Command::Remove { dataflow, drain, reply } => self.remove(dataflow, drain, reply),
                Command::Resume { dataflow, reply } => {
                    let resumed = self.dataflows.get(&dataflow).is_some_and(|it| it.parts.resume());
                    let _ = reply.send(resumed);
                }
                Command::Try { operators, reply } => self.try_operators(operators, reply),
                Command::Describe { dataflow, reply } => {
                    let _ = reply.send(self.describe(dataflow));
                }
                Command::Census { reply } => {
                    let (instances, instances_idle) = self.guests.live_and_idle();
                    let _ = reply.send(Census { dataflows: self.dataflows.len(), instances, instances_idle });
                }
                Command::Stop => self.stop(),
            }
        }
        // More may wait: come back without parking.
        self.mailbox.nudge();
    }

    fn describe(&self, dataflow: DataflowId) -> Option<Description> {
        let Installed { parts, .. } = self.dataflows.get(&dataflow)?;
        let now = self.clock.now();
        let key = Arc::as_ptr(&parts.plan.tenant) as usize;
        let levels = |(index, _): &(TenantIndex, _)| self.tasks.queue(|queue| queue.levels(*index, now));
        let (mut levels, is_throttled) = self.tenants.get(&key).map(levels).unwrap_or_default();
        let gates = parts.plan.tenant.gates();
        levels.extend(gates.levels(now));
        let is_throttled = is_throttled || gates.is_closed();
        Some(Description { levels, is_throttled, ..parts.describe(now) })
    }

    fn take_wakes(&mut self) -> Woken {
        let mut woken = std::mem::take(&mut self.woken);
        self.mailbox.take(&mut woken);
        let dataflows = woken.iter().any(|key| matches!(key, WakeKey::Dataflow(_)));
        let any = !woken.is_empty();
        for key in woken.drain(..) {
            match key {
                WakeKey::Task(task) => self.tasks.wake(task),
                WakeKey::Dataflow(dataflow) => {
                    // One that is gone may still be woken by what it left behind.
                    if let Some(installed) = self.dataflows.get(&dataflow) {
                        installed.parts.activators().flow.activate();
                    }
                }
            }
        }
        self.woken = woken;
        Woken { any, dataflows }
    }

    /// One slice, or several very short ones, such as those of guests that wait again for
    /// the disk: a turn for each would cost more than they do.
    fn grant_slices(&mut self) -> bool {
        let (mut granted, mut left_ns) = (false, SHORT_SLICES_NS);
        while left_ns > 0 {
            let Some((task, polled, slice_ns)) = self.tasks.grant() else { break };
            granted = true;
            left_ns = left_ns.saturating_sub(slice_ns);
            if polled == Polled::Panicked {
                match self.task_owners.get(&task).copied() {
                    Some(dataflow) => self.drop_culprit(dataflow, "panic while its guests ran"),
                    None => self.tasks.remove(task),
                }
            }
        }
        granted
    }

    /// One step of the worker behind the panic fence.
    fn step(&mut self) {
        let culprit = catch_unwind(AssertUnwindSafe(|| self.worker.step())).err().map(|panic| {
            let operator = panicked_operator();
            let owner = self.dataflows.iter().find(|(_, installed)| {
                operator.is_some_and(|operator| installed.operators.contains(&operator))
            });
            (owner.map(|(dataflow, _)| *dataflow), panic)
        });
        match culprit {
            None => {}
            Some((Some(dataflow), _)) => self.drop_culprit(dataflow, "panic in one of its operators"),
            // Nobody to blame: what the worker holds cannot be trusted.
            Some((None, panic)) => std::panic::resume_unwind(panic),
        }
    }

    /// Drops the dataflow before any further step, which would let its frontier pass
    /// what it lost, and schedules all others, whose activations the panic took.
    fn drop_culprit(&mut self, dataflow: DataflowId, cause: &str) {
        if let Some(installed) = self.dataflows.get(&dataflow) {
            installed.parts.fail(Failure::Panic, cause);
        }
        self.end(dataflow);
        self.dataflows.values().for_each(|installed| installed.parts.activators().all());
    }

    /// Installs a dataflow and gives the queue that feeds it.
    pub fn install(&mut self, plan: Arc<Plan>) -> (DataflowId, Arc<Queue>) {
        let dataflow = self.next_dataflow;
        self.next_dataflow += 1;
        let tenant = self.tenant_index(&plan.tenant);
        let waker = Waker::from(Wake::new(self.mailbox.clone(), WakeKey::Dataflow(dataflow)));
        let lanes = plan.lanes();
        let queue = match lanes {
            1 => Queue::new(waker.clone()),
            _ => Queue::with_two_lines(waker.clone()),
        };
        let confirms = Confirms::new(waker.clone());
        // The activator exists only once the operators are built.
        let flow: Rc<RefCell<Option<timely::scheduling::Activator>>> = Rc::default();
        let activating = flow.clone();
        let done: Rc<dyn Fn()> = Rc::new(move || {
            if let Some(flow) = &*activating.borrow() {
                flow.activate();
            }
        });
        let lanes: Vec<TaskId> = (0..lanes).map(|_| self.tasks.add(tenant, done.clone())).collect();
        self.task_owners.extend(lanes.iter().map(|task| (*task, dataflow)));
        let windows = (!plan.windows.is_empty()).then(|| {
            let sources = plan.sources.iter().map(|source| source.name.clone()).collect();
            let now = self.clock.now();
            let space = (plan.keeping, plan.window_space.clone());
            let windows = Windows::new(&plan.tenant, &plan.windows, sources, plan.timing, space, now);
            Rc::new(RefCell::new(windows))
        });
        let (guests, clock) = (self.guests.clone(), self.clock.clone());
        let limits = CircuitLimits::of(&plan.tenant.limits);
        let circuit = RefCell::new(Circuit::new(limits, matches!(plan.health(), Health::Quarantined { .. })));
        let timers = self.timers.clone();
        let region =
            Region { plan: plan.clone(), guests, clock, timers, windows, circuit, at_work: Cell::new(0) };
        let parts = Parts::new(Setup {
            plan,
            queue: queue.clone(),
            confirms,
            tasks: self.tasks.clone(),
            lanes,
            region: Rc::new(region),
            dead_letters: self.dead_letters.clone(),
            hlc: self.hlc.clone(),
            clock: self.clock.clone(),
            timers: self.timers.clone(),
            dataflow: waker,
        });
        let timely_index = self.worker.next_dataflow_index();
        let first = self.worker.peek_identifier();
        self.worker.dataflow::<u64, _, _>(|scope| parts.build(scope));
        let operators = first..self.worker.peek_identifier();
        *flow.borrow_mut() = Some(parts.activators().flow);
        self.dataflows.insert(dataflow, Installed { parts, timely_index, operators });
        (dataflow, queue)
    }

    fn tenant_index(&mut self, tenant: &Arc<Tenant>) -> TenantIndex {
        let key = Arc::as_ptr(tenant) as usize;
        if let Some((index, _)) = self.tenants.get(&key) {
            return *index;
        }
        if self.tenants.len() >= self.tenants_swept_at {
            self.sweep_tenants();
        }
        let share = tenant.share(self.clock.now());
        let index = self.tasks.queue(|queue| queue.add_tenant(share));
        // As long as this is held, no other tenant gets its address.
        self.tenants.insert(key, (index, Arc::downgrade(tenant)));
        index
    }

    /// Tenants come and go: each apply brings some that are only tried.
    fn sweep_tenants(&mut self) {
        let tasks = &self.tasks;
        self.tenants.retain(|_, (index, tenant)| {
            let is_there = tenant.strong_count() > 0;
            if !is_there {
                tasks.queue(|queue| queue.remove_tenant(*index));
            }
            is_there
        });
        self.tenants_swept_at = (2 * self.tenants.len()).max(TENANTS_SWEPT_AT_MIN);
    }

    fn remove(&mut self, dataflow: DataflowId, drain: Duration, reply: oneshot::Sender<Removed>) {
        let Some(installed) = self.dataflows.get(&dataflow) else {
            // It panicked or was removed before.
            let _ = reply.send(Removed::Abandoned);
            return;
        };
        // What is held does not become empty.
        let drain = if installed.parts.is_held() { Duration::ZERO } else { drain };
        installed.parts.plan.set_health(Health::Draining);
        installed.parts.queue.close();
        installed.parts.activators().all();
        self.removals.push(Removal { dataflow, deadline: self.clock.now().plus(drain), reply });
    }

    fn finish_removals(&mut self) {
        if self.removals.is_empty() {
            return;
        }
        let now = self.clock.now();
        let alive = self.worker.installed_dataflows();
        let (ended, waiting) =
            std::mem::take(&mut self.removals).into_iter().partition(|removal: &Removal| {
                removal.deadline <= now
                    || self
                        .dataflows
                        .get(&removal.dataflow)
                        .is_none_or(|it| !alive.contains(&it.timely_index))
            });
        self.removals = waiting;
        let ended: Vec<Removal> = ended;
        for removal in ended {
            let installed = self.dataflows.get(&removal.dataflow);
            let drained =
                installed.is_some_and(|it| !alive.contains(&it.timely_index) && it.parts.ledger.is_empty());
            self.end(removal.dataflow);
            let _ = removal.reply.send(if drained { Removed::Drained } else { Removed::Abandoned });
        }
    }

    /// Ends a dataflow at once; what is not settled is abandoned.
    fn end(&mut self, dataflow: DataflowId) {
        let Some(installed) = self.dataflows.remove(&dataflow) else { return };
        for lane in &installed.parts.lanes {
            self.tasks.remove(lane.task);
            self.task_owners.remove(&lane.task);
        }
        self.worker.drop_dataflow(installed.timely_index);
        installed.parts.queue.abandon();
        installed.parts.plan.operators().for_each(|operator| self.guests.forget(operator));
        installed.parts.abandon();
    }

    fn try_operators(&mut self, operators: Vec<Arc<Operator>>, reply: oneshot::Sender<Result<(), String>>) {
        let Some(first) = operators.first() else {
            let _ = reply.send(Ok(()));
            return;
        };
        let tenant = self.tenant_index(&first.tenant);
        let task_cell: Rc<Cell<Option<TaskId>>> = Rc::default();
        let (tasks, cell) = (self.tasks.clone(), task_cell.clone());
        let task = self.tasks.add(
            tenant,
            Rc::new(move || {
                if let Some(task) = cell.take() {
                    tasks.remove(task);
                }
            }),
        );
        task_cell.set(Some(task));
        let guests = self.guests.clone();
        let polled = self.tasks.start(
            task,
            Box::pin(async move {
                let mut result = Ok(());
                for operator in &operators {
                    if let Err(error) = guests.try_init(operator).await {
                        result = Err(error.to_string());
                        break;
                    }
                }
                let _ = reply.send(result);
            }),
        );
        // A trial that panics leaves no owner to drop; the reply's sender goes with it.
        if polled != Polled::Pending {
            self.tasks.remove(task);
        }
    }

    fn stop(&mut self) {
        self.stopped = true;
        let all: Vec<_> = self.dataflows.keys().copied().collect();
        all.into_iter().for_each(|dataflow| self.end(dataflow));
    }
}

impl Drop for Shard {
    fn drop(&mut self) {
        self.stop();
        self.guests.end_all();
    }
}

thread_local! {
    static PANICKED: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Makes panics remember which Timely operator ran. Once, before any shard.
pub fn install_panic_hook() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            PANICKED.set(timely::scheduling::current::operator_id());
            before(info);
        }));
    });
}

fn panicked_operator() -> Option<usize> {
    PANICKED.take()
}
