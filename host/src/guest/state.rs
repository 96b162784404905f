//! `GuestState`: what a store holds beside its instance. All that differs between
//! tenants under one policy world is here: limits, clock, timers, random numbers,
//! log, metrics and
//! state. It knows no interface; those are in `inert` and `linker`.

use std::{
    future::poll_fn,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    task::{Poll, Waker},
    time::Duration,
};

use rand::{SeedableRng as _, rngs::StdRng};
use wasmtime::{ResourceLimiter, Store, component::ResourceTable};
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

use crate::{
    clock::{Clock, Instant},
    command::{Commands, TIMEOUT_MAX},
    dataflow::timers::Timers,
    guest::{
        command_invoker::Held,
        host_call::{HostCalls, Interface},
        log::{GuestLog, LineStream, Severity},
        metrics::GuestMetrics,
    },
    inference::{Inference, Processes},
    store::KeySpace,
    tenant::Tenant,
    wake::yield_once,
};

/// Handles that one instance may hold, on the guest's side and on the host's.
const HANDLES_MAX: usize = 1_000;

/// Elements of one table: as many as the pool's slots have room for.
const TABLE_ELEMENTS_MAX: usize = 10_000;

/// Bytes of one of them.
const TABLE_ELEMENT_BYTES: usize = 8;

/// What an instance takes of the host beside its memories and tables: its store, its
/// place in the pool and what of its stack is in use.
pub const INSTANCE_BYTES: u64 = 32 << 10;

/// Host calls of one call: fuel does not count them. At 0.1 to 1 µs each they stay
/// below the longest slice that other things can cause.
pub const HOST_CALLS_MAX: u32 = 16_384;

/// Bytes that host calls of one call may carry in either direction.
pub const HOST_CALL_BYTES_MAX: u64 = 4 << 20;

/// What one of a list's pairs of strings costs beside their bytes: as much as lies in the
/// guest's memory for it.
pub(super) const LISTED_BYTES: usize = 16;

/// How long one call may wait for timers, in all.
pub const WAIT_MAX: Duration = Duration::from_secs(5);

/// How far ahead a timer is armed. One that turns out not to be needed stays armed, and
/// a guest may ask many things that are answered at once.
const TIMER_STEP: Duration = Duration::from_secs(1);

/// Fuel of host calls between two yields: as much as 64 requests to the state. A guest in a
/// loop of them uses hardly any of its own.
const HOST_CALL_FUEL_PER_SLICE: u64 = 256_000;

/// Bytes of a host call that cost as much as one unit of fuel: they are copied, mostly,
/// at some 10 bytes a ns.
const BYTES_PER_FUEL: u64 = 1;

/// What a call stops for before its end.
#[derive(Debug)]
pub struct Pause {
    /// The earliest deadline that a pending poll asked for, as ns.
    earliest_ns: AtomicU64,
    /// It is a host call that waits; otherwise a slice is over.
    is_waiting: AtomicBool,
}

impl Default for Pause {
    fn default() -> Self {
        Pause { earliest_ns: AtomicU64::new(u64::MAX), is_waiting: AtomicBool::new(false) }
    }
}

impl Pause {
    fn set_waiting(&self) {
        self.is_waiting.store(true, Ordering::Relaxed);
    }

    /// Whether the call that has just stopped waits for a host call.
    pub fn take_waiting(&self) -> bool {
        self.is_waiting.load(Ordering::Relaxed) && self.is_waiting.swap(false, Ordering::Relaxed)
    }
}

/// What an instance may use, from its tenant's limits.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Most linear memory, over all that the instance has.
    pub memory_bytes_max: u64,
    /// Bytes that one call may copy out of the guest.
    pub hostcall_bytes_max: u64,
}

/// The data of one instance's store.
pub struct GuestState {
    bounds: Bounds,
    /// Over all linear memories.
    memory_bytes: u64,
    /// The limit that refused memory since the call began, in bytes.
    memory_refused: Option<u64>,
    /// Taken of the tenant's total.
    taken_bytes: u64,
    host_calls: u32,
    host_call_bytes: u64,
    /// Fuel of this call's host calls, and how much it may be.
    call_fuel: u64,
    call_fuel_max: u64,
    /// It yields once host calls have used so much.
    slice_ends: u64,
    /// Host calls that nobody has accounted for yet.
    calls: HostCalls,
    pub(super) table: ResourceTable,
    pub(super) log: Arc<GuestLog>,
    /// Standard output and error, which most guests never ask for.
    stdout: Option<LineStream>,
    stderr: Option<LineStream>,
    pub(super) metrics: Arc<GuestMetrics>,
    pub(super) tenant: Arc<Tenant>,
    /// The tenant's.
    pub(super) keys: KeySpace,
    /// It made changes that may not be on disk yet.
    has_changed_keys: bool,
    /// Where its dataflow's requests to other programs go, if there is a broker.
    pub(super) commands: Option<Arc<Commands>>,
    /// What its handles to commands hold, once it has any.
    pub(super) commands_held: Option<Arc<Held>>,
    /// Where its tenant's models run.
    processes: Arc<Processes>,
    /// Handles to what belongs to models, once it has any.
    pub(super) models_held: Option<Arc<AtomicU32>>,
    /// Bytes of models and tensors in this call.
    model_bytes: u64,
    /// How long this call may still wait for answers of programs and models.
    wait_left: Duration,
    pub(super) clock: Clock,
    timers: Timers,
    pause: Arc<Pause>,
    /// The timer that was armed last for a request, which may still wait.
    armed: Option<(Instant, Waker)>,
    /// When waiting in this call is over.
    wait_end: Option<Instant>,
    seed: u64,
    random: Option<Box<StdRng>>,
    /// Only guests that import folders or sockets ever need one.
    wasi: Option<Box<WasiCtx>>,
}

impl GuestState {
    /// `name` is the operator's, `tenant/dataflow/operation`, and so is `metrics`; the
    /// guest's random numbers follow from `seed` alone.
    pub fn new(
        name: &str,
        bounds: Bounds,
        clock: Clock,
        timers: Timers,
        seed: u64,
        tenant: Arc<Tenant>,
        metrics: Arc<GuestMetrics>,
    ) -> Self {
        let mut table = ResourceTable::new();
        table.set_max_capacity(HANDLES_MAX);
        GuestState {
            bounds,
            memory_bytes: 0,
            memory_refused: None,
            taken_bytes: 0,
            host_calls: 0,
            host_call_bytes: 0,
            call_fuel: 0,
            call_fuel_max: u64::MAX,
            slice_ends: HOST_CALL_FUEL_PER_SLICE,
            calls: HostCalls::default(),
            table,
            stdout: None,
            stderr: None,
            log: GuestLog::new(name, tenant.log.clone(), clock.clone()),
            metrics,
            keys: tenant.keys.clone(),
            tenant,
            has_changed_keys: false,
            armed: None,
            commands: None,
            commands_held: None,
            processes: Processes::none(),
            models_held: None,
            model_bytes: 0,
            wait_left: TIMEOUT_MAX,
            clock,
            timers,
            pause: Arc::default(),
            wait_end: None,
            seed,
            random: None,
            wasi: None,
        }
    }

    pub(super) fn stdout(&mut self) -> &LineStream {
        self.stdout.get_or_insert_with(|| LineStream::new(self.log.clone(), Severity::Info, "stdout"))
    }

    pub(super) fn stderr(&mut self) -> &LineStream {
        self.stderr.get_or_insert_with(|| LineStream::new(self.log.clone(), Severity::Warn, "stderr"))
    }

    /// Lets it ask other programs; without, there is no broker to ask them over.
    pub fn share_commands(&mut self, commands: Option<Arc<Commands>>) {
        self.commands = commands;
    }

    /// Lets it run models; without, there is no process to run them.
    pub fn share_processes(&mut self, processes: Arc<Processes>) {
        self.processes = processes;
    }

    /// Where its tenant's models are.
    pub(super) fn inference(&self) -> Arc<Inference> {
        self.tenant.inference(&self.processes)
    }

    /// Puts the bounds in force. Once, before the instance is made.
    pub fn configure(store: &mut Store<GuestState>) {
        let hostcall_bytes_max = store.data().bounds.hostcall_bytes_max as usize;
        store.limiter(|state| state);
        store.set_hostcall_fuel(hostcall_bytes_max);
        store.set_max_component_handles(HANDLES_MAX);
    }

    /// Gives the next call, with so many messages, its own share of what is bounded for
    /// each call. `fuel` is what it may use on host calls.
    pub fn begin_call(&mut self, messages: usize, fuel: u64) {
        (self.call_fuel, self.call_fuel_max) = (0, fuel);
        self.slice_ends = HOST_CALL_FUEL_PER_SLICE;
        self.wait_left = TIMEOUT_MAX.saturating_mul(messages as u32);
        self.model_bytes = 0;
        self.memory_refused = None;
        self.host_calls = 0;
        self.host_call_bytes = 0;
        self.wait_end = None;
        self.log.begin_call();
    }

    /// The limit that refused memory since the call began, in bytes, so that a trap after
    /// it can be told as what it is.
    pub fn memory_refused(&self) -> Option<u64> {
        self.memory_refused
    }

    /// Takes memory of the tenant's total, until this is dropped.
    pub fn take_memory(&mut self, bytes: u64) -> bool {
        let taken = self.tenant.take_memory(bytes);
        self.taken_bytes += if taken { bytes } else { 0 };
        taken
    }

    /// Counts one host call that carries `bytes`. An error is a trap.
    pub(super) fn charge(&mut self, interface: Interface, bytes: u64) -> wasmtime::Result<()> {
        self.host_calls += 1;
        self.calls.count(interface);
        self.charge_fuel(interface.call_fuel())?;
        self.charge_carried(bytes)
    }

    fn charge_carried(&mut self, bytes: u64) -> wasmtime::Result<()> {
        self.charge_fuel(bytes / BYTES_PER_FUEL)?;
        self.host_call_bytes = self.host_call_bytes.saturating_add(bytes);
        if self.host_calls > HOST_CALLS_MAX {
            return Err(wasmtime::Error::msg(format!("more than {HOST_CALLS_MAX} host calls in one call")));
        }
        if self.host_call_bytes > HOST_CALL_BYTES_MAX {
            return Err(wasmtime::Error::msg(format!(
                "host calls of more than {HOST_CALL_BYTES_MAX} bytes in one call"
            )));
        }
        Ok(())
    }

    /// Adds fuel to what the guest itself uses. One that has used up what its messages may
    /// is ended as if it had executed as much.
    fn charge_fuel(&mut self, fuel: u64) -> wasmtime::Result<()> {
        self.call_fuel = self.call_fuel.saturating_add(fuel);
        if self.call_fuel > self.call_fuel_max { Err(wasmtime::Trap::OutOfFuel.into()) } else { Ok(()) }
    }

    /// Counts one host call that carries bytes of models or tensors. They are larger than
    /// messages, so that they have a bound of their own: a call may take in the largest
    /// model and as much again.
    pub(super) fn charge_model(&mut self, bytes: u64) -> wasmtime::Result<()> {
        self.charge(Interface::Models, 0)?;
        self.model_bytes = self.model_bytes.saturating_add(bytes);
        let most = 2 * self.tenant.limits.inference.model_bytes_max;
        if self.model_bytes > most {
            return Err(wasmtime::Error::msg(format!(
                "models and tensors of more than {most} bytes in one call"
            )));
        }
        Ok(())
    }

    /// Counts bytes that the last host call carries back.
    pub(super) fn charge_more(&mut self, bytes: u64) -> wasmtime::Result<()> {
        self.charge_carried(bytes)
    }

    /// Counts one host call that carries `bytes`, and yields now and then.
    pub(super) async fn charge_bytes_and_yield(
        &mut self,
        interface: Interface,
        bytes: u64,
    ) -> wasmtime::Result<()> {
        self.charge(interface, bytes)?;
        if self.call_fuel >= self.slice_ends {
            self.slice_ends = self.call_fuel + HOST_CALL_FUEL_PER_SLICE;
            self.pause.set_waiting();
            yield_once().await;
        }
        Ok(())
    }

    /// How long a request of this call may wait for: as long as the guest says, and
    /// no longer than all waiting in one call.
    pub(super) fn patience(&mut self, timeout: Option<Duration>) -> Patience<'_> {
        let now = self.clock.now();
        let end = *self.wait_end.get_or_insert(now.plus(WAIT_MAX));
        let end = timeout.map_or(end, |timeout| end.min(now.plus(timeout.min(WAIT_MAX))));
        self.patience_until(end)
    }

    fn patience_until(&mut self, end: Instant) -> Patience<'_> {
        let (clock, timers, pause) = (&self.clock, &self.timers, &*self.pause);
        Patience { clock, timers, pause, armed: &mut self.armed, end }
    }

    /// How long a request to another program may wait.
    pub(super) fn command_patience(&mut self, timeout: Duration) -> Patience<'_> {
        let end = self.clock.now().plus(timeout.min(self.wait_left));
        self.patience_until(end)
    }

    /// How long a request to a model may wait, for others before it too.
    pub(super) fn answer_patience(&mut self) -> Patience<'_> {
        self.command_patience(TIMEOUT_MAX)
    }

    /// It has waited as long for another program or a model.
    pub(super) fn spend_waiting(&mut self, waited: Duration) {
        self.wait_left = self.wait_left.saturating_sub(waited);
    }

    /// The guest changed its tenant's state.
    pub(super) fn changed_keys(&mut self) {
        self.has_changed_keys = true;
    }

    /// The change that must be on disk before anything that this instance gave
    /// counts as done.
    pub fn take_unflushed(&mut self) -> Option<u64> {
        std::mem::take(&mut self.has_changed_keys).then(|| self.keys.last_change())
    }

    /// Counts one host call, and yields now and then.
    pub(super) async fn charge_and_yield(&mut self, interface: Interface) -> wasmtime::Result<()> {
        self.charge_bytes_and_yield(interface, 0).await
    }

    /// Fuel of the host calls of this call.
    pub fn call_fuel(&self) -> u64 {
        self.call_fuel
    }

    /// Host calls since the last time.
    pub fn take_calls(&mut self) -> HostCalls {
        std::mem::take(&mut self.calls)
    }

    /// Why its calls stop before their end.
    pub fn pause(&self) -> Arc<Pause> {
        self.pause.clone()
    }

    /// Random numbers of this instance.
    pub(super) fn random(&mut self) -> &mut StdRng {
        let seed = self.seed;
        self.random.get_or_insert_with(|| Box::new(StdRng::seed_from_u64(seed)))
    }

    /// What a timer of this guest needs.
    pub(super) fn deadline(&self, at: Instant) -> Deadline {
        Deadline { at, clock: self.clock.clone(), pause: self.pause.clone() }
    }

    /// What waiting in this call needs.
    pub(super) fn waiting(&mut self) -> Waiting {
        let now = self.clock.now();
        let end = *self.wait_end.get_or_insert(now.plus(WAIT_MAX));
        Waiting { clock: self.clock.clone(), timers: self.timers.clone(), pause: self.pause.clone(), end }
    }
}

impl std::fmt::Debug for GuestState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GuestState").field("bounds", &self.bounds).finish_non_exhaustive()
    }
}

impl Drop for GuestState {
    fn drop(&mut self) {
        self.tenant.give_memory(self.taken_bytes);
        // A guest's last words often have no line end.
        self.stdout.iter().chain(&self.stderr).for_each(LineStream::finish);
    }
}

/// A point on the shard's clock that a guest waits for.
pub(super) struct Deadline {
    at: Instant,
    clock: Clock,
    pause: Arc<Pause>,
}

#[wasmtime_wasi::async_trait]
impl wasmtime_wasi::p2::Pollable for Deadline {
    async fn ready(&mut self) {
        poll_fn(|_| {
            if self.clock.now() >= self.at {
                return Poll::Ready(());
            }
            // Whoever polls arms one timer for all that are pending: [`Waiting`].
            self.pause.earliest_ns.fetch_min(self.at.0, Ordering::Relaxed);
            Poll::Pending
        })
        .await;
    }
}

/// Suspends a guest's fiber until what it polls is ready, on the shard's timers.
pub(super) struct Waiting {
    clock: Clock,
    timers: Timers,
    pause: Arc<Pause>,
    end: Instant,
}

impl Waiting {
    /// Waits for `future`, which waits for nothing but [`Deadline`]s.
    pub async fn until<T>(self, future: impl Future<Output = wasmtime::Result<T>>) -> wasmtime::Result<T> {
        let mut future = pin!(future);
        let mut armed: Option<(Instant, Waker)> = None;
        poll_fn(|ctx| {
            self.pause.earliest_ns.store(u64::MAX, Ordering::Relaxed);
            if let Poll::Ready(ready) = future.as_mut().poll(ctx) {
                return Poll::Ready(ready);
            }
            if self.clock.now() >= self.end {
                let text = format!("waited longer than {WAIT_MAX:?} in one call");
                return Poll::Ready(Err(wasmtime::Error::msg(text)));
            }
            let at = self.end.min(Instant(self.pause.earliest_ns.load(Ordering::Relaxed)));
            let is_armed =
                armed.as_ref().is_some_and(|(own, waker)| *own == at && waker.will_wake(ctx.waker()));
            if !is_armed {
                self.timers.arm(at, ctx.waker().clone());
                armed = Some((at, ctx.waker().clone()));
            }
            self.pause.set_waiting();
            Poll::Pending
        })
        .await
    }
}

/// When a request is given up.
pub(super) struct Patience<'a> {
    clock: &'a Clock,
    timers: &'a Timers,
    pause: &'a Pause,
    armed: &'a mut Option<(Instant, Waker)>,
    end: Instant,
}

impl Patience<'_> {
    pub fn end(&self) -> Instant {
        self.end
    }

    /// What `future` gives, unless that takes longer.
    pub async fn within<T>(self, future: impl Future<Output = T>) -> Option<T> {
        let Patience { clock, timers, pause, armed, end } = self;
        let mut future = pin!(future);
        poll_fn(|ctx| {
            if let Poll::Ready(ready) = future.as_mut().poll(ctx) {
                return Poll::Ready(Some(ready));
            }
            let now = clock.now();
            if now >= end {
                return Poll::Ready(None);
            }
            // One that an earlier request left will do: this is asked again when it fires.
            let is_armed =
                |(at, waker): &(Instant, Waker)| *at > now && *at <= end && waker.will_wake(ctx.waker());
            if !armed.as_ref().is_some_and(is_armed) {
                let at = end.min(now.plus(TIMER_STEP));
                timers.arm(at, ctx.waker().clone());
                *armed = Some((at, ctx.waker().clone()));
            }
            pause.set_waiting();
            Poll::Pending
        })
        .await
    }
}

impl ResourceLimiter for GuestState {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _max: Option<usize>,
    ) -> wasmtime::Result<bool> {
        // A component fused of several has several memories.
        let more = desired.saturating_sub(current) as u64;
        let bytes = self.memory_bytes + more;
        let refused_by = if bytes > self.bounds.memory_bytes_max {
            Some(self.bounds.memory_bytes_max)
        } else if !self.take_memory(more) {
            Some(self.tenant.limits.memory_total_bytes_max)
        } else {
            self.memory_bytes = bytes;
            None
        };
        self.memory_refused = self.memory_refused.or(refused_by);
        Ok(refused_by.is_none())
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        _max: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let more = (desired.saturating_sub(current) * TABLE_ELEMENT_BYTES) as u64;
        Ok(desired <= TABLE_ELEMENTS_MAX && self.take_memory(more))
    }
}

impl WasiView for GuestState {
    /// With no folder, no socket and no name service: what is built here grants
    /// nothing, and its clocks, streams and random numbers are linked nowhere.
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let ctx = self.wasi.get_or_insert_with(|| Box::new(WasiCtxBuilder::new().build()));
        WasiCtxView { ctx, table: &mut self.table }
    }
}

#[cfg(test)]
mod tests;
