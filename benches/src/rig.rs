//! A shard stepped by hand with sources and sinks in memory: the narrowest door
//! through which whole dataflows are tested.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
    time::Duration,
};

use tidegate::{
    batch::{Batch, BatchBuilder},
    clock::Clock,
    command::Commands,
    dataflow::{
        plan::{DestinationPlan, Health, Plan, SourcePlan, Step, Target},
        shard::{DataflowId, Shard, ShardDoor, ShardSetup, Turn, install_panic_hook},
        watermark::Timing,
        window::Keeping,
    },
    dead_letter::{DeadLetters, Record},
    guest::{
        Contract, Operator, OperatorKind,
        compile::{Cache, Code, Compiler},
        component::{Components, Digest},
        engine::{self, Engines, PoolSize},
        linker::Linkers,
        metrics::GuestMetrics,
    },
    queue::SourceDoor,
    resource::{CompileLimits, EngineKind, Limits, PerEngine, PoolLayout},
    stats::{DataflowStats, OperatorStats},
    store::WindowSpace,
    tenant::Tenant,
    topic::{TopicFilter, TopicTemplate},
    write::{Destination, SinkQueue, Write},
};

/// Where `cargo xtask guests` leaves components.
pub fn guest_path(name: &str) -> PathBuf {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../tenants/target/wasm32-wasip2/release");
    PathBuf::from(root).join(format!("{name}.wasm"))
}

pub struct Rig {
    pub shard: Shard,
    pub door: ShardDoor,
    pub components: Components,
    pub dead: Arc<Mutex<Vec<Record>>>,
    /// Where operators that are made from now on ask other programs.
    pub commands: Option<Arc<Commands>>,
}

pub struct Running {
    pub id: DataflowId,
    pub plan: Arc<Plan>,
    pub source: SourceDoor,
    pub sink: Arc<SinkQueue>,
}

/// An engine with a small pool, and components loaded on the calling thread.
pub fn components() -> Components {
    let engines = Engines::new(PoolSize::small(64)).expect("a small pool fits any machine");
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/rig-compiled");
    let cache = Cache::open(&dir, &engines, Compiler::InProcess).expect("target/ can be written");
    Components::inline(engines, cache)
}

/// Deliveries that [`Running::pump`] has under way at once.
const IN_FLIGHT: u64 = 8;

/// The engine without metering, for what metering costs.
pub fn unmetered() -> anyhow::Result<wasmtime::Engine> {
    let mut config = engine::settings(engine::Tuning::of(EngineKind::Fuel, PoolLayout::Guarded));
    config.consume_fuel(false);
    Ok(wasmtime::Engine::new(&config)?)
}

/// An operator of a chain: name of the guest, kind, configuration.
pub type Link<'a> = (&'a str, OperatorKind, &'a [(&'a str, &'a str)]);

impl Rig {
    pub fn new(slots_max: usize, components_max: usize) -> Self {
        Self::on(Clock::System, slots_max, components_max)
    }

    pub fn on(clock: Clock, slots_max: usize, components_max: usize) -> Self {
        Self::with(components(), clock, slots_max, components_max, 7)
    }

    /// With components that other rigs share.
    pub fn with(
        components: Components,
        clock: Clock,
        slots_max: usize,
        components_max: usize,
        seed: u64,
    ) -> Self {
        install_panic_hook();
        let linkers = Arc::new(Linkers::new(components.engines()));
        let dead = Arc::new(Mutex::new(Vec::new()));
        let setup = ShardSetup {
            clock,
            components: components.clone(),
            linkers,
            dead_letters: DeadLetters::Memory(dead.clone()),
            slots_max: PerEngine::by(|_| slots_max),
            components_max,
            seed,
        };
        let (shard, door) = Shard::new(setup);
        Rig { shard, door, components, dead, commands: None }
    }

    pub fn operator(&self, tenant: &Arc<Tenant>, dataflow: &str, link: Link<'_>) -> Arc<Operator> {
        let (guest, kind, configuration) = link;
        let path = guest_path(guest);
        let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let digest = Digest::of(&bytes);
        self.components
            .cache()
            .compile(tenant.limits.engine, digest, Code::Whole(&bytes), CompileLimits::default())
            .expect("compiles");
        Arc::new(Operator {
            name: format!("{}/{dataflow}/{guest}", tenant.name),
            tenant: tenant.clone(),
            kind,
            contract: if guest.starts_with("aio_") { Contract::Aio } else { Contract::Packed },
            digest,
            fused: None,
            world: "tidegate:policy/standard@0.1.0".into(),
            configuration: configuration
                .iter()
                .map(|(key, value)| (key.to_string(), value.to_string()))
                .collect(),
            schemas: Vec::new(),
            pinned: false,
            stats: Arc::new(OperatorStats::default()),
            metrics: Arc::new(GuestMetrics::within(tenant.series.clone())),
            commands: self.commands.clone(),
        })
    }

    /// Installs source → operators in a row → sink.
    pub fn install(&mut self, tenant: &Arc<Tenant>, dataflow: &str, links: &[Link<'_>]) -> Running {
        let plan = self.plan(tenant, dataflow, links, SinkQueue::new(1 << 20));
        self.start(plan)
    }

    /// What [`Self::install`] would start, with a sink of the caller's.
    pub fn plan(
        &self,
        tenant: &Arc<Tenant>,
        dataflow: &str,
        links: &[Link<'_>],
        sink: Arc<SinkQueue>,
    ) -> Arc<Plan> {
        let last = links.len();
        let next = |index: usize| if index == last { Target::Destination(0) } else { Target::Step(index) };
        let mut windows = 0;
        let steps = links.iter().enumerate().map(|(index, link)| {
            let holds = matches!(link.1, OperatorKind::Accumulate | OperatorKind::Delay);
            windows += usize::from(holds);
            Step {
                operator: self.operator(tenant, dataflow, *link),
                window: holds.then(|| windows - 1),
                targets: vec![next(index + 1)],
                targets_true: vec![next(index + 1)],
            }
        });
        let steps: Vec<Step> = steps.collect();
        let mut sources = vec![SourcePlan {
            name: "in".into(),
            targets: vec![next(0)],
            gate: tenant.gates().of_source("in"),
            is_in_order: true,
        }];
        let windows = tidegate::deploy::window_plans(&mut sources, &steps, &[]);
        Arc::new(Plan {
            tenant: tenant.clone(),
            dataflow: dataflow.into(),
            sources,
            steps,
            checks: Vec::new(),
            windows,
            timing: Timing::default(),
            keeping: Keeping::default(),
            window_space: WindowSpace::memory(),
            destinations: vec![DestinationPlan {
                destination: Arc::new(Destination {
                    name: format!("{}/{dataflow}/out", tenant.name),
                    topic: TopicTemplate::parse("out").expect("a topic"),
                    write_grants: vec![TopicFilter::parse("out").expect("a filter")],
                    headers: Default::default(),
                }),
                sink,
                gate: tenant.gates().of_sink("out"),
            }],
            stats: Arc::new(DataflowStats::default()),
            health: Mutex::new(Health::Running),
        })
    }

    /// Installs a plan, not for the first time perhaps.
    pub fn start(&mut self, plan: Arc<Plan>) -> Running {
        let sink = plan.destinations[0].sink.clone();
        plan.set_health(Health::Running);
        let (id, queue) = self.shard.install(plan.clone());
        let source =
            SourceDoor::new(0, queue, plan.tenant.ledger.clone()).through(plan.sources[0].gate.clone());
        let source = if plan.sources[0].is_in_order { source } else { source.in_any_order() };
        Running { id, plan, source, sink }
    }

    /// Turns the shard until it is idle.
    pub fn settle(&mut self) {
        for _ in 0..1_000_000 {
            if let Turn::Idle { .. } | Turn::Stopped = self.shard.turn() {
                return;
            }
        }
        panic!("the shard is never idle");
    }
}

impl Running {
    /// One delivery of these payloads.
    pub fn batch(&self, payloads: &[impl AsRef<str>]) -> Batch {
        let mut builder = BatchBuilder::new("host");
        payloads.iter().for_each(|payload| builder.push(b"in", None, payload.as_ref().as_bytes(), []));
        builder.finish()
    }

    pub fn send(&mut self, payloads: &[impl AsRef<str>]) -> u64 {
        let batch = self.batch(payloads);
        self.deliver(batch)
    }

    pub fn deliver(&mut self, batch: Batch) -> u64 {
        let credit = self.plan.tenant.ledger.try_acquire(batch.arena.len()).expect("credit");
        self.source.deliver(credit, batch)
    }

    /// Sends `batch` so many times, `IN_FLIGHT` at once, and confirms what comes out
    /// until all is settled.
    pub fn pump(&mut self, rig: &mut Rig, batch: &Batch, batches: usize) {
        let goal = self.source.settled_upto() + batches as u64;
        let mut sent = 0;
        while self.source.settled_upto() < goal {
            while sent < batches && self.source.unsettled() < IN_FLIGHT {
                // As many as the tenant's credit lets in.
                let Some(credit) = self.plan.tenant.ledger.try_acquire(batch.arena.len()) else { break };
                self.source.deliver(credit, batch.clone());
                sent += 1;
            }
            rig.shard.turn();
            self.take().into_iter().for_each(|write| write.confirm(Vec::new()));
        }
    }

    /// Takes and confirms all writes; gives their payloads.
    pub fn receive(&self) -> Vec<String> {
        let mut payloads = Vec::new();
        for write in self.take() {
            payloads.extend(texts(&write.batch));
            write.confirm(Vec::new());
        }
        payloads
    }

    pub fn take(&self) -> Vec<Write> {
        let mut writes = Vec::new();
        while let Poll::Ready(Some(write)) = self.sink.poll_next(&mut Context::from_waker(Waker::noop())) {
            writes.push(write);
        }
        writes
    }
}

pub fn texts(batch: &Batch) -> Vec<String> {
    let text = |entry: &tidegate::batch::Entry| {
        String::from_utf8_lossy(entry.payload.bytes(&batch.arena)).into_owned()
    };
    batch.entries.iter().map(text).collect()
}

/// One whose dataflows are never paused: whoever counts what becomes of each message wants
/// all of them tried.
pub fn tenant(name: &str) -> Arc<Tenant> {
    Tenant::new(name, patient(Limits::default()))
}

/// As many faults as one likes.
pub fn patient(limits: Limits) -> Limits {
    Limits { fault_cool_down: Duration::ZERO, quarantine_after: u32::MAX, ..limits }
}
