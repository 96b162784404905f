//! `Tenant`: what every step of the path asks about the owner of a message: limits,
//! credit, counters. Knows nothing of resources or connections.

use std::sync::{
    Arc, OnceLock, RwLock,
    atomic::{AtomicU32, AtomicU64, Ordering},
};

use crate::{
    bucket::Bucket,
    clock::Instant,
    command::Calls,
    dataflow::run_queue::Share,
    dead_letter::Kept,
    guest::{host_call::Interface, log::LogAllowance, metrics::SeriesAllowance},
    inference::{Inference, Processes},
    latency::Latency,
    ledger::Ledger,
    rate::Gates,
    resource::{Limits, Schemas},
    stats::TenantStats,
    store::KeySpace,
};

/// A tenant as the path sees it; one per tenant, shared by all its dataflows.
#[derive(Debug)]
pub struct Tenant {
    pub name: String,
    /// Effective limits: the policy's, lowered by the tenant's own.
    pub limits: Limits,
    pub stats: Arc<TenantStats>,
    /// How long its deliveries take, over all its dataflows.
    pub latency: Latency,
    /// Byte credit from ingest to settlement.
    pub ledger: Arc<Ledger>,
    /// What its policy lets pass at endpoints; nothing is limited until it is set.
    gates: OnceLock<Gates>,
    /// Instances live now, over all operators.
    pub instances: AtomicU32,
    /// Bytes of its instances: linear memories, tables, stores and stacks.
    instance_bytes: AtomicU64,
    /// Bytes of all components that its dataflows use.
    component_bytes: AtomicU64,
    /// What its operators keep.
    pub keys: KeySpace,
    /// What its operators may log.
    pub log: Arc<LogAllowance>,
    /// Series of its operators' metrics.
    pub series: Arc<SeriesAllowance>,
    /// What its operators ask of other programs.
    pub calls: Arc<Calls>,
    /// Where its models are, once an operator has one.
    inference: OnceLock<Arc<Inference>>,
    /// What is kept of its dead letters.
    pub letters: Arc<Kept>,
    /// Bytes that its windows hold, over all dataflows.
    pub window_bytes: AtomicU64,
    /// Bytes on disk of what far sides cannot take now.
    pub buffered_bytes: Arc<AtomicU64>,
    /// Schemas that its operators may look up; none where there is no site. An apply
    /// puts others in their place.
    schemas: RwLock<Option<Arc<Schemas>>>,
}

impl Tenant {
    /// Its operators' state is in memory and ends with it, and they have no schemas.
    pub fn new(name: impl Into<String>, limits: Limits) -> Arc<Self> {
        Self::on_trial(name, limits, None)
    }

    /// Its operators' state is in memory and ends with it.
    pub fn on_trial(name: impl Into<String>, limits: Limits, schemas: Option<Arc<Schemas>>) -> Arc<Self> {
        let keys = KeySpace::memory(limits.state);
        Self::keeping(name, limits, keys, schemas)
    }

    /// Its operators' state is in `keys`.
    pub fn keeping(
        name: impl Into<String>,
        limits: Limits,
        keys: KeySpace,
        schemas: Option<Arc<Schemas>>,
    ) -> Arc<Self> {
        let ledger = Ledger::new(limits.inflight_bytes_max as usize);
        let calls = Calls::new(limits.commands_max);
        let log = Arc::new(LogAllowance::new(limits.log));
        let series = Arc::new(SeriesAllowance::new(limits.series_max));
        Arc::new(Tenant {
            name: name.into(),
            limits,
            stats: Arc::default(),
            latency: Latency::default(),
            ledger,
            gates: OnceLock::new(),
            instances: AtomicU32::new(0),
            instance_bytes: AtomicU64::new(0),
            component_bytes: AtomicU64::new(0),
            keys,
            log,
            series,
            calls,
            inference: OnceLock::new(),
            letters: Arc::default(),
            window_bytes: AtomicU64::new(0),
            buffered_bytes: Arc::default(),
            schemas: RwLock::new(schemas),
        })
    }

    /// Limits what passes at endpoints. Once, before any of its dataflows runs.
    pub fn set_gates(&self, gates: Gates) {
        assert!(self.gates.set(gates).is_ok(), "a tenant has its gates for as long as it is there");
    }

    pub fn gates(&self) -> &Gates {
        self.gates.get_or_init(Gates::default)
    }

    /// Where its models are.
    pub fn inference(&self, processes: &Arc<Processes>) -> Arc<Inference> {
        let begin = || Inference::new(self.limits.inference, processes.clone(), self.stats.clone());
        self.inference.get_or_init(begin).clone()
    }

    /// The same, if any operator has a model.
    pub fn has_inference(&self) -> Option<&Arc<Inference>> {
        self.inference.get()
    }

    /// Bytes of memory that the host has for it, over all its dataflows.
    pub fn memory(&self) -> MemoryUse {
        let of = |bytes: &AtomicU64| bytes.load(Ordering::Relaxed);
        MemoryUse {
            instances: of(&self.instance_bytes),
            components: of(&self.component_bytes),
            queues: self.ledger.bytes_in_flight() as u64,
            windows: of(&self.window_bytes),
            state: self.keys.bytes_held(),
        }
    }

    /// Whether so much more would not pass what the tenant may have.
    pub fn has_memory(&self, bytes: u64) -> bool {
        self.memory().total().saturating_add(bytes) <= self.limits.memory_total_bytes_max
    }

    /// Takes memory for an instance, unless that would pass what the tenant may have.
    pub fn take_memory(&self, bytes: u64) -> bool {
        let fits = self.has_memory(bytes);
        if fits {
            self.instance_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        fits
    }

    /// Gives back what an instance took.
    pub fn give_memory(&self, bytes: u64) {
        self.instance_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Its dataflows use components of so many bytes in all, whoever else uses them too:
    /// one tenant's leaving is not to raise what another has to pay.
    pub fn set_component_bytes(&self, bytes: u64) {
        self.component_bytes.store(bytes, Ordering::Relaxed);
    }

    /// What it may use on its shard, with full buckets.
    pub fn share(&self, now: Instant) -> Share {
        let limits = &self.limits;
        // As many at once as in a second.
        let limited = |of| limits.calls.of(of).map(|calls| (of, Bucket::new(calls, calls, now)));
        let calls = Interface::ALL.into_iter().filter_map(limited);
        // Thousandths of a core, in ns a second.
        let cpu = Bucket::new(limits.cpu_rate_milli * 1_000_000, limits.cpu_burst.as_nanos() as u64, now);
        Share {
            weight: limits.weight,
            // Without a cap it may use far more than its rate, which is not held against it
            // once others want to.
            cpu: if limits.cpu_cap { cpu } else { cpu.forgiving() },
            cpu_cap: limits.cpu_cap,
            fuel: (limits.fuel_rate < u64::MAX)
                .then(|| Bucket::new(limits.fuel_rate, limits.fuel_burst, now)),
            calls: calls.collect(),
            stats: self.stats.clone(),
            models_charged_ns: self.stats.models_cpu_ns.get(),
        }
    }

    pub fn schemas(&self) -> Option<Arc<Schemas>> {
        self.schemas.read().expect("no panic under this lock").clone()
    }

    /// What its operators look up from now on.
    pub fn replace_schemas(&self, schemas: Option<Arc<Schemas>>) {
        *self.schemas.write().expect("no panic under this lock") = schemas;
    }
}

/// Bytes of memory of one tenant, by what they are for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUse {
    pub instances: u64,
    pub components: u64,
    /// Messages in flight.
    pub queues: u64,
    pub windows: u64,
    /// State that is in memory.
    pub state: u64,
}

impl MemoryUse {
    pub fn total(&self) -> u64 {
        let MemoryUse { instances, components, queues, windows, state } = *self;
        instances + components + queues + windows + state
    }
}
