//! `GuestState`: what a store holds beside its instance. All that differs between
//! tenants under one policy world is here: limits, clock, timers, random numbers,
//! log, metrics and
//! state. It knows no interface; those are in `inert` and `linker`.

use std::{
    future::poll_fn,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
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
        log::{GuestLog, LineStream, Severity},
        metrics::GuestMetrics,
    },
    inference::{Inference, Processes},
    store::KeySpace,
    tenant::Tenant,
};

/// Handles that one instance may hold, on the guest's side and on the host's.
const HANDLES_MAX: usize = 1_000;

/// Elements of one table: as many as the pool's slots have room for.
const TABLE_ELEMENTS_MAX: usize = 10_000;

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

/// Host calls between two yields of those that can yield.
const HOST_CALLS_PER_SLICE: u32 = 64;

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
    memory_refused: bool,
    host_calls: u32,
    host_call_bytes: u64,
    pub(super) table: ResourceTable,
    pub(super) log: Arc<GuestLog>,
    /// Standard output and error, which most guests never ask for.
    stdout: Option<LineStream>,
    stderr: Option<LineStream>,
    pub(super) metrics: Arc<GuestMetrics>,
    pub(super) tenant: Arc<Tenant>,
    /// The tenant's.
    pub(super) keys: KeySpace,
    /// The last change of this instance that may not be on disk yet.
    unflushed: Option<u64>,
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
    /// The earliest deadline that a pending poll asked for, as ns.
    deadline_ns: Arc<AtomicU64>,
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
            memory_refused: false,
            host_calls: 0,
            host_call_bytes: 0,
            table,
            stdout: None,
            stderr: None,
            log: GuestLog::new(name),
            metrics,
            keys: tenant.keys.clone(),
            tenant,
            unflushed: None,
            commands: None,
            commands_held: None,
            processes: Processes::none(),
            models_held: None,
            model_bytes: 0,
            wait_left: TIMEOUT_MAX,
            clock,
            timers,
            deadline_ns: Arc::new(AtomicU64::new(u64::MAX)),
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
    /// each call.
    pub fn begin_call(&mut self, messages: usize) {
        self.wait_left = TIMEOUT_MAX.saturating_mul(messages as u32);
        self.model_bytes = 0;
        self.memory_refused = false;
        self.host_calls = 0;
        self.host_call_bytes = 0;
        self.wait_end = None;
        self.log.begin_call();
    }

    /// Whether memory was refused since the call began, so that a trap after it can
    /// be told as what it is.
    pub fn memory_was_refused(&self) -> bool {
        self.memory_refused
    }

    /// Counts one host call that carries `bytes`. An error is a trap.
    pub(super) fn charge(&mut self, bytes: u64) -> wasmtime::Result<()> {
        self.host_calls += 1;
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

    /// Counts one host call that carries bytes of models or tensors. They are larger than
    /// messages, so that they have a bound of their own: a call may take in the largest
    /// model and as much again.
    pub(super) fn charge_model(&mut self, bytes: u64) -> wasmtime::Result<()> {
        self.charge(0)?;
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
        self.host_calls -= 1;
        self.charge(bytes)
    }

    /// Counts one host call that may wait and carries `bytes`.
    pub(super) async fn charge_bytes_and_yield(&mut self, bytes: u64) -> wasmtime::Result<()> {
        self.charge_and_yield().await?;
        self.charge_more(bytes)
    }

    /// How long a request of this call may wait for: as long as the guest says, and
    /// no longer than all waiting in one call.
    pub(super) fn patience(&mut self, timeout: Option<Duration>) -> Patience {
        let now = self.clock.now();
        let end = *self.wait_end.get_or_insert(now.plus(WAIT_MAX));
        let end = timeout.map_or(end, |timeout| end.min(now.plus(timeout.min(WAIT_MAX))));
        Patience { clock: self.clock.clone(), timers: self.timers.clone(), end }
    }

    /// How long a request to another program may wait.
    pub(super) fn command_patience(&mut self, timeout: Duration) -> Patience {
        let end = self.clock.now().plus(timeout.min(self.wait_left));
        Patience { clock: self.clock.clone(), timers: self.timers.clone(), end }
    }

    /// How long a request to a model may wait, for others before it too.
    pub(super) fn answer_patience(&mut self) -> Patience {
        self.command_patience(TIMEOUT_MAX)
    }

    /// It has waited as long for another program or a model.
    pub(super) fn spend_waiting(&mut self, waited: Duration) {
        self.wait_left = self.wait_left.saturating_sub(waited);
    }

    /// The guest changed its tenant's state.
    pub(super) fn changed_keys(&mut self) {
        self.unflushed = Some(self.keys.last_change());
    }

    /// The change that must be on disk before anything that this instance gave
    /// counts as done.
    pub fn take_unflushed(&mut self) -> Option<u64> {
        self.unflushed.take()
    }

    /// Counts one host call that may wait, and yields now and then: a guest in a
    /// loop of them uses hardly any fuel.
    pub(super) async fn charge_and_yield(&mut self) -> wasmtime::Result<()> {
        self.charge(0)?;
        if self.host_calls.is_multiple_of(HOST_CALLS_PER_SLICE) {
            yield_once().await;
        }
        Ok(())
    }

    /// Random numbers of this instance.
    pub(super) fn random(&mut self) -> &mut StdRng {
        let seed = self.seed;
        self.random.get_or_insert_with(|| Box::new(StdRng::seed_from_u64(seed)))
    }

    /// What a timer of this guest needs.
    pub(super) fn deadline(&self, at: Instant) -> Deadline {
        Deadline { at, clock: self.clock.clone(), earliest_ns: self.deadline_ns.clone() }
    }

    /// What waiting in this call needs.
    pub(super) fn waiting(&mut self) -> Waiting {
        let now = self.clock.now();
        let end = *self.wait_end.get_or_insert(now.plus(WAIT_MAX));
        Waiting {
            clock: self.clock.clone(),
            timers: self.timers.clone(),
            earliest_ns: self.deadline_ns.clone(),
            end,
        }
    }
}

impl std::fmt::Debug for GuestState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GuestState").field("bounds", &self.bounds).finish_non_exhaustive()
    }
}

impl Drop for GuestState {
    fn drop(&mut self) {
        // A guest's last words often have no line end.
        self.stdout.iter().chain(&self.stderr).for_each(LineStream::finish);
    }
}

/// A point on the shard's clock that a guest waits for.
pub(super) struct Deadline {
    at: Instant,
    clock: Clock,
    earliest_ns: Arc<AtomicU64>,
}

#[wasmtime_wasi::async_trait]
impl wasmtime_wasi::p2::Pollable for Deadline {
    async fn ready(&mut self) {
        poll_fn(|_| {
            if self.clock.now() >= self.at {
                return Poll::Ready(());
            }
            // Whoever polls arms one timer for all that are pending: [`Waiting`].
            self.earliest_ns.fetch_min(self.at.0, Ordering::Relaxed);
            Poll::Pending
        })
        .await;
    }
}

/// Suspends a guest's fiber until what it polls is ready, on the shard's timers.
pub(super) struct Waiting {
    clock: Clock,
    timers: Timers,
    earliest_ns: Arc<AtomicU64>,
    end: Instant,
}

impl Waiting {
    /// Waits for `future`, which waits for nothing but [`Deadline`]s.
    pub async fn until<T>(self, future: impl Future<Output = wasmtime::Result<T>>) -> wasmtime::Result<T> {
        let mut future = pin!(future);
        let mut armed: Option<(Instant, Waker)> = None;
        poll_fn(|ctx| {
            self.earliest_ns.store(u64::MAX, Ordering::Relaxed);
            if let Poll::Ready(ready) = future.as_mut().poll(ctx) {
                return Poll::Ready(ready);
            }
            if self.clock.now() >= self.end {
                let text = format!("waited longer than {WAIT_MAX:?} in one call");
                return Poll::Ready(Err(wasmtime::Error::msg(text)));
            }
            let at = self.end.min(Instant(self.earliest_ns.load(Ordering::Relaxed)));
            let is_armed =
                armed.as_ref().is_some_and(|(own, waker)| *own == at && waker.will_wake(ctx.waker()));
            if !is_armed {
                self.timers.arm(at, ctx.waker().clone());
                armed = Some((at, ctx.waker().clone()));
            }
            Poll::Pending
        })
        .await
    }
}

/// When a request is given up.
pub(super) struct Patience {
    clock: Clock,
    timers: Timers,
    end: Instant,
}

impl Patience {
    pub fn end(&self) -> Instant {
        self.end
    }

    /// What `future` gives, unless that takes longer.
    pub async fn within<T>(self, future: impl Future<Output = T>) -> Option<T> {
        let mut future = pin!(future);
        let mut armed: Option<(Instant, Waker)> = None;
        poll_fn(|ctx| {
            if let Poll::Ready(ready) = future.as_mut().poll(ctx) {
                return Poll::Ready(Some(ready));
            }
            let now = self.clock.now();
            if now >= self.end {
                return Poll::Ready(None);
            }
            if armed.as_ref().is_none_or(|(at, waker)| *at <= now || !waker.will_wake(ctx.waker())) {
                let at = self.end.min(now.plus(TIMER_STEP));
                self.timers.arm(at, ctx.waker().clone());
                armed = Some((at, ctx.waker().clone()));
            }
            Poll::Pending
        })
        .await
    }
}

async fn yield_once() {
    let mut yielded = false;
    poll_fn(|ctx| {
        if yielded {
            return Poll::Ready(());
        }
        yielded = true;
        ctx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

impl ResourceLimiter for GuestState {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _max: Option<usize>,
    ) -> wasmtime::Result<bool> {
        // A component fused of several has several memories.
        let bytes = self.memory_bytes + desired.saturating_sub(current) as u64;
        let granted = bytes <= self.bounds.memory_bytes_max;
        if granted {
            self.memory_bytes = bytes;
        }
        self.memory_refused |= !granted;
        Ok(granted)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _max: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(desired <= TABLE_ELEMENTS_MAX)
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
