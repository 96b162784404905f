//! Instances: one per operator, made on its first message, kept while hot, retired
//! by least recent use when slots run short. A shard's side of the pool; every
//! entry into a guest goes through [`Guest`]. Knows nothing of dataflows.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    future::poll_fn,
    pin::pin,
    rc::Rc,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, Waker},
    time::Duration,
};

use lru::LruCache;
use smallvec::{SmallVec, smallvec};
use wasmtime::{Store, Trap};

use crate::{
    batch::{Batch, Stamped},
    clock::Clock,
    dataflow::{run_queue::Used, timers::Timers},
    guest::{
        Contract, Fault, InvokeError, Operator, Output,
        aio::Aio,
        component::{Components, Digest, Linked, LoadError, Loaded},
        engine::{INSTANCE_FUEL, SLICE_FUEL, SLOTS_PER_INSTANCE_MAX},
        epochs::Epochs,
        host_call::HostCalls,
        linker::Linkers,
        packed::{OutputMax, Packed},
        state::{Bounds, GuestState, INSTANCE_BYTES, Pause},
        world::PolicyWorld,
    },
    resource::{EngineKind, PerEngine},
    tenant::Tenant,
    wake::yield_once,
};

/// What wasmtime counts beside the bytes of a model: the lists that they are in.
const HEADS_BYTES_MAX: u64 = 64 << 10;

/// `init` may use as much fuel and time as this many messages.
const INIT_MESSAGES: u64 = 64;

/// The guests of one shard; clones share them.
#[derive(Clone)]
pub struct Guests {
    inner: Rc<Inner>,
}

struct Inner {
    components: Components,
    linkers: Arc<Linkers>,
    clock: Clock,
    timers: Timers,
    /// CPU time that the task which runs now has had before this slice, in ns.
    cpu_spent_ns: Rc<Cell<u64>>,
    /// What this slice has used so far.
    used: Rc<Cell<Used>>,
    slots_max: PerEngine<usize>,
    cells: RefCell<Cells>,
    /// Fuel used since the last yield, over several short calls.
    slice_fuel: Cell<u64>,
    /// For guests whose engine counts none.
    epochs: Epochs,
    /// Seeds of guests' random numbers, drawn in order.
    seed: Cell<u64>,
}

struct Cells {
    /// Idle instances by operator, least recently used first out; none where all are in
    /// use, so that their place is not made anew for each call.
    idle: LruCache<usize, Idle>,
    /// Idle instances of pinned operators.
    pinned: HashMap<usize, Box<Guest>>,
    /// Instances, idle and in use.
    live: usize,
    slots_used: PerEngine<usize>,
    /// Components that this shard keeps in memory.
    loaded: LruCache<(EngineKind, Digest), Arc<Loaded>>,
    waiting: Vec<Waker>,
}

/// Instances of one operator: nearly always one, but as many as its dataflow has lanes.
type Idle = SmallVec<[Box<Guest>; 1]>;

/// Why an operator has no instance.
#[derive(Debug, thiserror::Error)]
pub enum AcquireError {
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error("`init` of {operator} refused its configuration: {cause}")]
    Init { operator: String, cause: String },
    #[error("{operator} cannot be instantiated: {error}")]
    Start { operator: String, error: InvokeError },
}

/// What a shard's guests share with the rest of the host.
pub struct GuestsSetup {
    pub components: Components,
    pub linkers: Arc<Linkers>,
    pub clock: Clock,
    pub timers: Timers,
    pub cpu_spent_ns: Rc<Cell<u64>>,
    /// Where what a slice uses is added up.
    pub used: Rc<Cell<Used>>,
    /// Slots of the pools that are this shard's; it takes as many as the largest
    /// instance needs in any case.
    pub slots_max: PerEngine<usize>,
    /// Components loaded at once by this shard.
    pub components_max: usize,
    /// Seed of the guests' random numbers.
    pub seed: u64,
}

impl Guests {
    pub fn new(setup: GuestsSetup) -> Self {
        let components_max = setup.components_max.max(1).try_into().expect("at least 1");
        let cells = Cells {
            idle: LruCache::unbounded(),
            pinned: HashMap::new(),
            live: 0,
            slots_used: PerEngine::default(),
            loaded: LruCache::new(components_max),
            waiting: Vec::new(),
        };
        let epochs = Epochs::new(setup.clock.clone());
        Guests {
            inner: Rc::new(Inner {
                components: setup.components,
                linkers: setup.linkers,
                clock: setup.clock,
                timers: setup.timers,
                cpu_spent_ns: setup.cpu_spent_ns,
                used: setup.used,
                slots_max: setup.slots_max.map(|slots| slots.max(SLOTS_PER_INSTANCE_MAX)),
                cells: RefCell::new(cells),
                slice_fuel: Cell::new(0),
                epochs,
                seed: Cell::new(setup.seed),
            }),
        }
    }

    /// An idle instance of the operator, or a new one that has been through `init`.
    /// Waits while all slots are in use, and while the tenant has no room for one but an
    /// instance of its own `comes_back` for certain.
    pub async fn acquire(
        &self,
        operator: &Arc<Operator>,
        comes_back: impl Fn() -> bool,
    ) -> Result<Box<Guest>, AcquireError> {
        let key = key_of(operator);
        {
            let mut cells = self.inner.cells.borrow_mut();
            if let Some(guest) = cells.take_idle(key) {
                return Ok(guest);
            }
        }
        let loaded = self.load(operator.engine(), operator.digest).await?;
        let given = poll_fn(|ctx| {
            // One that was given back meanwhile.
            if let Some(guest) = self.inner.cells.borrow_mut().take_idle(key) {
                return Poll::Ready(Err(guest));
            }
            self.poll_slots(&operator.tenant, &loaded, &comes_back, ctx).map(Ok)
        });
        match given.await {
            Ok(slots) => self.start(operator, loaded, slots).await.map(Box::new),
            Err(guest) => Ok(guest),
        }
    }

    /// Gives an instance back after a call that did not fail.
    pub fn release(&self, guest: Box<Guest>) {
        let waiting = {
            let mut cells = self.inner.cells.borrow_mut();
            let key = key_of(&guest.operator);
            if guest.operator.pinned && !cells.pinned.contains_key(&key) {
                cells.pinned.insert(key, guest);
            } else if let Some(place) = cells.idle.peek_mut(&key) {
                place.push(guest);
            } else {
                cells.idle.put(key, smallvec![guest]);
            }
            std::mem::take(&mut cells.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Throws away the operator's idle instances: its dataflow is gone.
    pub fn forget(&self, operator: &Arc<Operator>) {
        let key = key_of(operator);
        let guests = {
            let mut cells = self.inner.cells.borrow_mut();
            (cells.idle.pop(&key), cells.pinned.remove(&key))
        };
        drop(guests);
    }

    /// Ends all idle instances. They keep this alive, so that whoever is done with it
    /// must say so.
    pub fn end_all(&self) {
        let (idle, pinned) = {
            let mut cells = self.inner.cells.borrow_mut();
            cells.loaded.clear();
            (std::mem::replace(&mut cells.idle, LruCache::unbounded()), std::mem::take(&mut cells.pinned))
        };
        drop((idle, pinned));
    }

    /// Runs `init` once on a throw-away instance: a failure is a failed deploy.
    pub async fn try_init(&self, operator: &Arc<Operator>) -> Result<(), AcquireError> {
        let loaded = self.load(operator.engine(), operator.digest).await?;
        let slots = poll_fn(|ctx| self.poll_slots(&operator.tenant, &loaded, || false, ctx)).await;
        self.start(operator, loaded, slots).await.map(drop)
    }

    /// Instances live now, and of these idle.
    pub fn live_and_idle(&self) -> (usize, usize) {
        let cells = self.inner.cells.borrow();
        let idle = cells.idle.iter().map(|(_, guests)| guests.len()).sum::<usize>();
        (cells.live, idle + cells.pinned.len())
    }

    async fn load(&self, engine: EngineKind, digest: Digest) -> Result<Arc<Loaded>, AcquireError> {
        let key = (engine, digest);
        if let Some(loaded) = self.inner.cells.borrow_mut().loaded.get(&key) {
            return Ok(loaded.clone());
        }
        let loaded = self.inner.components.load(engine, digest).await?;
        let retired = {
            let mut cells = self.inner.cells.borrow_mut();
            let evicted = cells.loaded.push(key, loaded.clone()).filter(|(old, _)| *old != key);
            if evicted.is_some() {
                self.inner.components.cache().stats().evictions.add(1);
            }
            // Its idle instances would keep the evicted component in memory.
            evicted.map(|(old, _)| cells.take_idle_of(old))
        };
        retired.into_iter().flatten().for_each(|guest| guest.retire());
        Ok(loaded)
    }

    /// Slots in the pool for one instance: free, or taken from those who used theirs
    /// least recently; from the tenant's own if it has as many as policy allows.
    fn poll_slots(
        &self,
        tenant: &Arc<Tenant>,
        loaded: &Loaded,
        comes_back: impl Fn() -> bool,
        ctx: &mut Context<'_>,
    ) -> Poll<Slots> {
        let (slots, memory_bytes) = (loaded.slots, loaded.memory_bytes_min + INSTANCE_BYTES);
        let Inner { slots_max, cells, .. } = &*self.inner;
        let (own_max, engine) = (tenant.limits.instances_max.max(1), tenant.limits.engine);
        loop {
            // Its idle instances make room for one that does not fit beside them.
            let live = tenant.instances.load(Ordering::Relaxed);
            let own_full = live >= own_max || (live > 0 && !tenant.has_memory(memory_bytes));
            if !own_full && cells.borrow().slots_used.of(engine) + slots <= *slots_max.of(engine) {
                break;
            }
            let retired = cells.borrow_mut().pop_idle(|guest| match own_full {
                true => Arc::ptr_eq(&guest.operator.tenant, tenant),
                false => guest.operator.engine() == engine,
            });
            let Some(retired) = retired else {
                if own_full && live < own_max && !comes_back() {
                    // None of its own is idle: it is refused its memory, rather than to wait
                    // for what may never come.
                    break;
                }
                cells.borrow_mut().wait(ctx.waker());
                return Poll::Pending;
            };
            retired.retire();
        }
        let mut cells = cells.borrow_mut();
        *cells.slots_used.of_mut(engine) += slots;
        cells.live += 1;
        tenant.instances.fetch_add(1, Ordering::Relaxed);
        Poll::Ready(Slots { inner: self.inner.clone(), tenant: tenant.clone(), count: slots })
    }

    async fn start(
        &self,
        operator: &Arc<Operator>,
        loaded: Arc<Loaded>,
        slots: Slots,
    ) -> Result<Guest, AcquireError> {
        let inner = &self.inner;
        let limits = &operator.tenant.limits;
        let seed = inner.seed.get();
        inner.seed.set(seed.wrapping_add(0x9e37_79b9_7f4a_7c15));
        let Linked { pre, exported } = loaded.linked(&inner.linkers, operator)?;
        let bounds = Bounds {
            memory_bytes_max: limits.memory_instance_bytes_max,
            hostcall_bytes_max: hostcall_bytes_max(operator),
        };
        let (clock, timers) = (inner.clock.clone(), inner.timers.clone());
        let tenant = operator.tenant.clone();
        let metrics = operator.metrics.clone();
        let mut state = GuestState::new(&operator.name, bounds, clock, timers, seed, tenant, metrics);
        if !state.take_memory(INSTANCE_BYTES) {
            let limit_bytes = limits.memory_total_bytes_max;
            let cause = "no memory is left of its tenant's total".to_owned();
            let error = InvokeError::MemoryRefused { limit_bytes, cause };
            return Err(AcquireError::Start { operator: operator.name.clone(), error });
        }
        state.share_commands(operator.commands.clone());
        state.share_processes(inner.components.processes().clone());
        let mut store = Store::new(inner.components.engines().of(operator.engine()), state);
        GuestState::configure(&mut store);
        inner.meter(&mut store, operator.engine()).map_err(|error| start_error(operator, &error))?;
        let budget = Budget {
            fuel: limits.message_fuel_max.saturating_mul(INIT_MESSAGES),
            time: limits.message_time_max.saturating_mul(INIT_MESSAGES as u32),
            messages: INIT_MESSAGES as usize,
        };
        inner.begin_call(&mut store, operator.engine(), &budget);
        store.data_mut().begin_call(1, budget.fuel);
        let pause = store.data().pause();
        let started = self.limited(operator.engine(), budget.time, &pause, async {
            let instance = pre.instantiate_async(&mut store).await?;
            let mut exports = match operator.contract {
                Contract::Packed => {
                    Exports::Packed(Packed::new(&mut store, &instance, operator.kind, exported)?)
                }
                contract @ (Contract::Aio | Contract::Preview) => {
                    Exports::Aio(Aio::new(&mut store, &instance, contract, operator.kind, exported)?)
                }
            };
            let verdict = exports.init(&mut store, operator).await?;
            wasmtime::Result::Ok((exports, verdict))
        });
        let (result, charged) = started.await;
        let fuel = fuel_used(&store, &budget) + INSTANCE_FUEL;
        self.inner.charge(fuel.saturating_sub(charged), store.data_mut().take_calls());
        // It took as long as a slice, with the one before it that ended.
        self.inner.slice_fuel.set(0);
        yield_once().await;
        let start = |error| AcquireError::Start { operator: operator.name.clone(), error };
        match result {
            None => Err(start(budget.out_of_time())),
            Some(Err(error)) => Err(start(classify(&error, store.data(), &budget))),
            Some(Ok((_, Err(cause)))) => Err(AcquireError::Init { operator: operator.name.clone(), cause }),
            Some(Ok((exports, Ok(())))) => {
                operator.stats.instances.add(1);
                Ok(Guest {
                    operator: operator.clone(),
                    guests: self.clone(),
                    store,
                    pause,
                    exports,
                    _loaded: loaded,
                    _slots: slots,
                })
            }
        }
    }

    /// Ends `call` once it has used `time` of CPU, counted after each slice. Also gives the
    /// fuel of the slices that have ended, which is charged.
    async fn limited<T>(
        &self,
        engine: EngineKind,
        time: Duration,
        pause: &Pause,
        call: impl Future<Output = T>,
    ) -> (Option<T>, u64) {
        let running = self.inner.components.engines().of(engine);
        let spent_ns = || self.inner.cpu_spent_ns.get();
        let (begin_ns, time_ns) = (spent_ns(), time.as_nanos() as u64);
        let mut call = pin!(call);
        let (mut polled, mut charged) = (false, 0);
        let result = poll_fn(|ctx| {
            // A call's first slice cannot be over yet.
            if std::mem::replace(&mut polled, true) && spent_ns() - begin_ns > time_ns {
                return Poll::Ready(None);
            }
            if !engine.counts_fuel() {
                let left = Duration::from_nanos(time_ns - (spent_ns() - begin_ns));
                return self.inner.epochs.slice(running, left, || call.as_mut().poll(ctx).map(Some));
            }
            let poll = call.as_mut().poll(ctx).map(Some);
            // A store cannot be read while its call has not ended; a slice has a fixed length.
            if poll.is_pending() && !pause.take_waiting() {
                self.inner.charge(SLICE_FUEL, HostCalls::default());
                charged += SLICE_FUEL;
            }
            poll
        });
        (result.await, charged)
    }

    /// Accounts for what a finished call used since its last slice ended, and yields once
    /// many short calls have made a slice between them.
    async fn spend(&self, fuel: u64, calls: HostCalls) {
        self.inner.charge(fuel, calls);
        if self.inner.epochs.slice_is_over() {
            self.inner.slice_fuel.set(0);
            return yield_once().await;
        }
        let spent = self.inner.slice_fuel.get() + fuel;
        if spent < SLICE_FUEL {
            self.inner.slice_fuel.set(spent);
            return;
        }
        self.inner.slice_fuel.set(0);
        yield_once().await;
    }
}

impl Inner {
    /// Charges whoever runs now, and a virtual clock with the time that it takes.
    fn charge(&self, fuel: u64, calls: HostCalls) {
        self.clock.spend_fuel(fuel);
        let mut used = self.used.get();
        used.fuel += fuel;
        used.calls.add(calls);
        self.used.set(used);
    }

    /// Makes a new store yield, by what its engine counts.
    fn meter(&self, store: &mut Store<GuestState>, engine: EngineKind) -> wasmtime::Result<()> {
        if engine.counts_fuel() {
            return store.fuel_async_yield_interval(Some(SLICE_FUEL));
        }
        self.epochs.configure(store).map_err(|error| {
            wasmtime::Error::msg(format!("this thread has no timer for the engine `epoch`: {error}"))
        })
    }

    fn begin_call(&self, store: &mut Store<GuestState>, engine: EngineKind, budget: &Budget) {
        if engine.counts_fuel() {
            store.set_fuel(budget.fuel).expect("the engine counts fuel");
        } else {
            self.epochs.begin_call(store);
        }
    }
}

/// What a call has used, of its own and on host calls; nothing where nothing is counted.
fn fuel_used(store: &Store<GuestState>, budget: &Budget) -> u64 {
    store.get_fuel().map_or(0, |left| budget.fuel.saturating_sub(left) + store.data().call_fuel())
}

impl std::fmt::Debug for Guests {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guests").finish_non_exhaustive()
    }
}

/// Operators are told apart by where they live: an [`Arc`] for each, kept by
/// whoever can call it.
fn key_of(operator: &Arc<Operator>) -> usize {
    Arc::as_ptr(operator) as usize
}

impl Cells {
    /// An instance of the operator, to be used now.
    fn take_idle(&mut self, key: usize) -> Option<Box<Guest>> {
        if !self.pinned.is_empty()
            && let Some(guest) = self.pinned.remove(&key)
        {
            return Some(guest);
        }
        self.idle.get_mut(&key)?.pop()
    }

    #[expect(clippy::vec_box, reason = "they are in boxes")]
    fn take_idle_of(&mut self, (engine, digest): (EngineKind, Digest)) -> Vec<Box<Guest>> {
        let is_its = |guests: &Idle| {
            let operator = guests.first().map(|guest| &guest.operator);
            operator.is_some_and(|operator| (operator.engine(), operator.digest) == (engine, digest))
        };
        let keys: Vec<_> =
            self.idle.iter().filter(|(_, guests)| is_its(guests)).map(|(key, _)| *key).collect();
        keys.into_iter().filter_map(|key| self.idle.pop(&key)).flatten().collect()
    }

    /// Wakes `waker` once an instance is given back or has ended.
    fn wait(&mut self, waker: &Waker) {
        if !self.waiting.iter().any(|waiting| waiting.will_wake(waker)) {
            self.waiting.push(waker.clone());
        }
    }

    /// The idle instance that was used least recently of those that `may` be retired.
    fn pop_idle(&mut self, may: impl Fn(&Guest) -> bool) -> Option<Box<Guest>> {
        let mut oldest_first = self.idle.iter().rev();
        let (key, _) = oldest_first.find(|(_, guests)| guests.first().is_some_and(|guest| may(guest)))?;
        let key = *key;
        let guests = self.idle.peek_mut(&key)?;
        let guest = guests.pop();
        if guests.is_empty() {
            self.idle.pop(&key);
        }
        guest
    }
}

/// An instance's place in the pool, given back when dropped.
struct Slots {
    inner: Rc<Inner>,
    tenant: Arc<Tenant>,
    count: usize,
}

impl Drop for Slots {
    fn drop(&mut self) {
        self.tenant.instances.fetch_sub(1, Ordering::Relaxed);
        let waiting = {
            let mut cells = self.inner.cells.borrow_mut();
            cells.live -= 1;
            *cells.slots_used.of_mut(self.tenant.limits.engine) -= self.count;
            std::mem::take(&mut cells.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }
}

enum Exports {
    Packed(Packed),
    Aio(Aio),
}

impl Exports {
    async fn init(
        &mut self,
        store: &mut Store<GuestState>,
        operator: &Operator,
    ) -> wasmtime::Result<Result<(), String>> {
        let Operator { configuration, schemas, .. } = operator;
        match self {
            Exports::Packed(packed) => packed.init(store, configuration, schemas).await,
            Exports::Aio(aio) => {
                let accepted = aio.init(store, configuration, schemas).await?;
                Ok(if accepted { Ok(()) } else { Err("it returned false".into()) })
            }
        }
    }
}

/// What a call may use.
struct Budget {
    fuel: u64,
    time: Duration,
    messages: usize,
}

impl Budget {
    fn out_of_time(&self) -> InvokeError {
        InvokeError::OutOfTime { limit_ms: self.time.as_millis() as u64, messages: self.messages }
    }
}

/// The most that a call with `messages` may give back.
fn output_max(limits: &crate::resource::Limits, messages: usize) -> OutputMax {
    // n times a message's, up to the largest batch, but a single message may have
    // its whole allowance.
    let scaled = |one: u64, batch_max: u64| one.saturating_mul(messages as u64).min(one.max(batch_max));
    OutputMax {
        messages: scaled(u64::from(limits.output_messages_max), 16 * Batch::MESSAGES_MAX as u64),
        bytes: scaled(limits.output_bytes_max, 4 * Batch::BYTES_MAX as u64),
    }
}

/// Bytes that one call of the host may copy out of a guest: what it gives, or a model.
fn hostcall_bytes_max(operator: &Operator) -> u64 {
    let limits = &operator.tenant.limits;
    let given = output_max(limits, Batch::MESSAGES_MAX).bytes;
    match PolicyWorld::named(&operator.world) {
        Ok(world) if world.grants_models() => given.max(limits.inference.model_bytes_max + HEADS_BYTES_MAX),
        _ => given,
    }
}

/// A live instance, for one call at a time. Dropping it frees its slots.
pub struct Guest {
    operator: Arc<Operator>,
    guests: Guests,
    store: Store<GuestState>,
    /// The store's, whose calls it stops.
    pause: Arc<Pause>,
    exports: Exports,
    _loaded: Arc<Loaded>,
    _slots: Slots,
}

impl Guest {
    /// Calls `process` on `input`; logical times are those of `delivery`. After an
    /// error the instance is poisoned: drop it.
    pub async fn process(&mut self, input: &Batch, delivery: &Stamped) -> Result<Output, Fault> {
        let Guest { operator, guests, store, pause, exports, .. } = self;
        let limits = &operator.tenant.limits;
        let messages = input.len();
        let budget = Budget {
            fuel: limits.message_fuel_max.saturating_mul(messages as u64),
            time: limits.message_time_max.saturating_mul(messages as u32),
            messages,
        };
        guests.inner.begin_call(store, operator.engine(), &budget);
        store.data_mut().begin_call(messages, budget.fuel);
        let max = output_max(limits, messages);
        let call = async {
            match exports {
                Exports::Packed(packed) => packed.process(store, input, delivery, max).await,
                Exports::Aio(aio) => aio.process(store, input, delivery, max).await,
            }
        };
        let (result, charged) = guests.limited(operator.engine(), budget.time, pause, call).await;
        let fuel = fuel_used(store, &budget);
        operator.stats.fuel.add(fuel);
        guests.spend(fuel.saturating_sub(charged), store.data_mut().take_calls()).await;
        // What follows from the call is answered for later than this.
        if let Some(change) = store.data_mut().take_unflushed()
            && !operator.tenant.keys.flushed(change).await
        {
            // The host ends: it will be delivered again.
            std::future::pending::<()>().await;
        }
        let error = match result {
            Some(Ok(output)) => return Ok(output),
            None => budget.out_of_time(),
            Some(Err(error)) => match error.bad_output() {
                Ok(error) => error,
                Err(error) => classify(&error, store.data(), &budget),
            },
        };
        Err(Fault { error, fuel })
    }

    /// Counts an idle instance that ends to make room.
    fn retire(&self) {
        self.operator.stats.retired.add(1);
    }
}

/// What an error of wasmtime means for the message.
fn classify(error: &wasmtime::Error, state: &GuestState, budget: &Budget) -> InvokeError {
    let cause = format!("{error:#}");
    match error.downcast_ref::<Trap>() {
        Some(Trap::OutOfFuel) => {
            return InvokeError::OutOfFuel { limit: budget.fuel, messages: budget.messages };
        }
        Some(Trap::Interrupt) => return budget.out_of_time(),
        _ => {}
    }
    if let Some(limit_bytes) = state.memory_refused() {
        return InvokeError::MemoryRefused { limit_bytes, cause };
    }
    if cause.contains("too much data is being copied") {
        return InvokeError::BadOutput { cause };
    }
    InvokeError::Trap { cause }
}

fn start_error(operator: &Arc<Operator>, error: &wasmtime::Error) -> AcquireError {
    let error = InvokeError::Trap { cause: format!("{error:#}") };
    AcquireError::Start { operator: operator.name.clone(), error }
}
