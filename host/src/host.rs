//! `Host`: everything that runs, put together: shards, connections, dead letters,
//! tenants. Supervises the path and takes changes of the site as a whole or not at
//! all; knows nothing of commands or sockets.

mod health;
mod ladder;
mod oversize;
pub mod replay;
mod watch;
mod why;

use std::{
    collections::BTreeMap,
    hash::Hash as _,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::Waker,
    thread::JoinHandle,
    time::Duration,
};

use chrono::{DateTime, SecondsFormat};
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};
use tokio::{sync::oneshot, task};

use health::{End, Facts, HealthLog};
use ladder::Step;
use replay::{Lane, Replay};
use watch::Watch;

use crate::{
    batch::Batch,
    capacity::{self, Asked, Demand, Machine},
    clock::Clock,
    command::Commands,
    connector::{
        Sink, Source, broker,
        buffer::{Buffer, BufferOptions, BufferStatus, Patience},
        client_id,
        file::{AtEnd, FileError, FileOptions, FileSink, FileSource, Location},
        http::{HttpOptions, HttpSink, HttpSource, ServerStatus, Servers, Webhook},
        kafka::{self, KafkaOptions, KafkaSink, KafkaSource, Transaction},
        memory::{Doors, MemorySource},
        mqtt::{
            self, CommandOptions, CommandSession, InflightMax, Qos, Remote, SinkSession, SourceOptions,
            SourceSession,
        },
        otlp::OtlpSink,
        status::{ConnectionState, Status},
        stop::{Farewell, Stop},
    },
    dataflow::{
        description::Description,
        plan::{Health, Plan},
        shard::{Census, Command, DataflowId, Removed, Shard, ShardDoor, ShardSetup, install_panic_hook},
    },
    dead_letter::{ArchiveError, DeadLetters, filter::Filter, reader},
    deploy::{
        self, Ends, chain,
        known::{IsNew, Known},
    },
    guest::compose::Parts,
    guest::{
        Operator,
        calibrate::{self, CalibrateError},
        compile::{Cache, Compiler},
        component::{Components, Digest},
        engine::{EngineError, Engines, PoolSize},
        linker::Linkers,
        metrics::{Reading, Series},
        ticker,
    },
    ledger::Ledger,
    queue::{Queue, SourceDoor},
    rate::Gates,
    resource::{
        Diagnostics, EndpointKind, HostConfig, Seen, Site,
        dataflow::FlowNodeKind,
        endpoint::{HttpSettings, MqttSettings, OtlpSettings, Speaks},
        host::BrokerPorts,
        site::{DataflowSite, GraphSite, TenantSite},
    },
    store::{AppliedError, Snapshot, Store, StoreError, WindowSpace},
    tenant::Tenant,
    topic::TopicFilter,
    usage::{Page, Query, UsageLedger},
    write::SinkQueue,
};

/// Bytes that may wait for one sink before its dataflows pause.
const SINK_BYTES_MAX: usize = 1 << 20;
/// How long a dataflow may take to empty when it is replaced or the host stops.
const DRAIN: Duration = Duration::from_secs(10);

/// Why a dataflow cannot be resumed.
#[derive(Debug, thiserror::Error)]
pub enum ResumeError {
    #[error("there is no dataflow `{name}` on this host")]
    Unknown { name: String },
    #[error("`{name}` is neither paused nor in quarantine")]
    NotHeld { name: String },
}

/// Why a host does not start.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error("cannot use the data folder {}", path.display())]
    Data { path: PathBuf, source: io::Error },
    #[error("the data folder {} was written by a newer version ({found}; this is {known})", path.display())]
    Newer { path: PathBuf, found: u32, known: u32 },
    #[error(transparent)]
    Broker(#[from] broker::BrokerError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    DeadLetters(#[from] ArchiveError),
    #[error(transparent)]
    Applied(#[from] AppliedError),
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
    #[error(transparent)]
    Calibrate(#[from] CalibrateError),
    #[error("there is no program to measure fuel with: it compiles in its own process")]
    NoProgram,
}

/// How long whoever starts dataflows waits for their connections.
const TRIED_WITHIN: Duration = Duration::from_secs(5);

/// The data folder's version; a newer one is refused.
const DATA_VERSION: u32 = 1;

pub struct Host {
    name: String,
    /// What it was started with.
    config: HostConfig,
    data: PathBuf,
    clock: Clock,
    components: Components,
    shards: Vec<RunningShard>,
    dead_letters: DeadLetters,
    store: Store,
    usage: UsageLedger,
    tenants: BTreeMap<String, RunningTenant>,
    /// Where the embedded broker listens.
    broker: Option<broker::Ports>,
    memory: Arc<Doors>,
    /// Where clients send requests, shared by tenants.
    servers: Servers,
    /// Components as they were at the last apply.
    known: Known,
    /// The site as it was applied last.
    seen: Arc<Seen>,
    /// Dataflows in quarantine, and why: what the store has.
    quarantined: BTreeMap<String, String>,
    /// Fuel a second of CPU time is on this machine: what the store has; 0 until it was
    /// measured.
    fuel_per_second: Arc<AtomicU64>,
    rng: rand::rngs::StdRng,
}

struct RunningShard {
    door: ShardDoor,
    /// Where its tenants' connections run.
    runtime: tokio::runtime::Handle,
    thread: JoinHandle<()>,
    /// Tenants that live on it.
    tenants: usize,
}

struct RunningTenant {
    tenant: Arc<Tenant>,
    shard: usize,
    /// What its limits, grants and endpoints were.
    fingerprint: Digest,
    dataflows: BTreeMap<String, RunningDataflow>,
    sinks: BTreeMap<String, RunningSink>,
    /// By endpoint, as sinks are.
    commands: BTreeMap<String, RunningCommands>,
    /// What it asks of the machine.
    demand: Demand,
    watch: Watch,
}

impl RunningTenant {
    /// Its sinks by endpoint, shared or not.
    fn all_sinks(&self) -> impl Iterator<Item = (&String, &RunningSink)> {
        self.sinks.iter().chain(self.dataflows.values().flat_map(|it| &it.sinks))
    }
}

struct RunningDataflow {
    id: DataflowId,
    plan: Arc<Plan>,
    fingerprint: Digest,
    queue: Arc<Queue>,
    sources: Vec<RunningSource>,
    /// Those that it shares with no other dataflow.
    sinks: BTreeMap<String, RunningSink>,
    /// By endpoint, what stands before the sink.
    buffers: Buffers,
    health: HealthLog,
}

type Buffers = BTreeMap<String, RunningBuffer>;

struct RunningBuffer {
    front: Arc<SinkQueue>,
    status: Arc<BufferStatus>,
    task: task::JoinHandle<()>,
}

struct RunningSource {
    name: String,
    endpoint: EndpointKind,
    stop: Stop,
    status: Option<Arc<Status>>,
    task: task::JoinHandle<()>,
}

struct RunningSink {
    queue: Arc<SinkQueue>,
    status: Option<Arc<Status>>,
    task: task::JoinHandle<()>,
}

struct RunningCommands {
    door: Arc<Commands>,
    status: Arc<Status>,
    task: task::JoinHandle<()>,
}

/// A tenant as it is to run.
struct Prepared<'a> {
    fingerprint: Digest,
    demand: Demand,
    dataflows: Vec<PreparedDataflow<'a>>,
}

/// A dataflow that is ready to be installed.
struct PreparedDataflow<'a> {
    site: &'a DataflowSite,
    components: deploy::Components,
    fingerprint: Digest,
    /// It runs already as it is to run.
    runs: bool,
}

impl Prepared<'_> {
    /// Whether a running tenant has all that it is to have, and nothing else.
    fn is(&self, running: &RunningTenant) -> bool {
        self.fingerprint == running.fingerprint
            && self.dataflows.len() == running.dataflows.len()
            && self.dataflows.iter().all(|dataflow| dataflow.runs)
    }
}

/// What becomes of an apply that would leave a tenant a smaller total than it uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverTotal {
    /// It is refused, with the amount.
    Refuse,
    /// Its dataflows are drained and start anew, within the total.
    Drain,
}

/// What an apply changed, as names `tenant/dataflow`.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Applied {
    pub added: Vec<String>,
    pub replaced: Vec<String>,
    pub removed: Vec<String>,
    pub unchanged: usize,
}

/// The runtime of what is not a tenant's: commands, the control socket, the end of
/// sessions. Connections run with the shard of their tenant.
pub fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).thread_name("control").enable_all().build()
}

impl Host {
    /// Starts threads, engine and, if configured, the embedded broker. `program` is
    /// this binary, run again to compile.
    pub fn start(config: &HostConfig, data: &Path, program: PathBuf) -> Result<Self, HostError> {
        install_panic_hook();
        open_data(data)?;
        let size = PoolSize::of(config);
        size.check(PoolSize::maps_max())?;
        let engines = Engines::new(size)?;
        let data_error = |source| HostError::Data { path: data.to_owned(), source };
        let cache =
            Cache::open(&data.join("compiled"), &engines, Compiler::Child { program }).map_err(data_error)?;
        let linkers = Arc::new(Linkers::new(&engines));
        let components = Components::threaded(engines, cache).map_err(HostError::Thread)?;
        let dead_letters = DeadLetters::disk(data.join("dead-letters"))?;
        let store = Store::open(&data.join("store"))?;
        let name = match &config.name {
            Some(name) => name.clone(),
            None => store.host_name(draw_name)?,
        };
        let quarantined = store.quarantined()?;
        let fuel_per_second = Arc::new(AtomicU64::new(store.fuel_per_second()?.unwrap_or(0)));
        let usage = UsageLedger::start(store.clone(), Clock::System).map_err(HostError::Thread)?;
        let broker = config.broker.map(|BrokerPorts { v5, v311 }| broker::start(broker::Ports { v5, v311 }));
        let known = Known::telling(begin_ahead(&components, &store, data));
        let mut host = Host {
            name,
            config: config.clone(),
            data: data.to_owned(),
            clock: Clock::System,
            components,
            shards: Vec::new(),
            dead_letters,
            store,
            usage,
            tenants: BTreeMap::new(),
            broker: broker.transpose()?,
            memory: Arc::default(),
            servers: Servers::default(),
            known,
            seen: Arc::default(),
            quarantined,
            fuel_per_second,
            rng: rand::rngs::StdRng::from_os_rng(),
        };
        for shard in 0..config.shards {
            host.start_shard(shard, config, &linkers)?;
        }
        Ok(host)
    }

    fn start_shard(
        &mut self,
        index: usize,
        config: &HostConfig,
        linkers: &Arc<Linkers>,
    ) -> Result<(), HostError> {
        let shards = config.shards;
        // Made on its own thread, since a shard never leaves it.
        let (components, linkers, dead_letters) =
            (self.components.clone(), linkers.clone(), self.dead_letters.clone());
        let (clock, seed) = (self.clock.clone(), self.rng.random());
        let (slots_max, components_max) =
            (config.slots.map(|slots| slots as usize / shards), config.components as usize / shards);
        let (tx, rx) = std::sync::mpsc::channel();
        let runtime = Shard::runtime().map_err(HostError::Thread)?;
        let handle = runtime.handle().clone();
        let run = move || {
            // Without it, only latency suffers.
            if let Err(error) = ticker::shorten_slices() {
                tracing::debug!(%error, "a shard gets a core as late as any other thread");
            }
            let setup =
                ShardSetup { clock, components, linkers, dead_letters, slots_max, components_max, seed };
            let (shard, door) = Shard::new(setup);
            // The starter waits for it, unless it is gone itself.
            if tx.send(door).is_ok() {
                shard.run(&runtime);
            }
            // A file that is read may not end.
            runtime.shutdown_background();
        };
        let thread = std::thread::Builder::new()
            .name(format!("shard-{index}"))
            .spawn(run)
            .map_err(HostError::Thread)?;
        let door = rx.recv().map_err(|_| HostError::Thread(io::Error::other("the shard ended at once")))?;
        self.shards.push(RunningShard { door, runtime: handle, thread, tenants: 0 });
        Ok(())
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Ports of the embedded broker.
    pub fn broker(&self) -> Option<broker::Ports> {
        self.broker
    }

    /// The memory endpoints, for the program that this host runs in.
    pub fn memory(&self) -> &Arc<Doors> {
        &self.memory
    }

    /// What it runs, for [`Site::load_since`].
    pub fn seen(&self) -> &Seen {
        &self.seen
    }

    /// Runs what the site says: added dataflows start, removed ones drain, changed
    /// ones are replaced. With an error anywhere nothing changes.
    pub async fn apply(
        &mut self,
        site: &Site,
        over_total: OverTotal,
    ) -> Result<(Applied, Diagnostics), Diagnostics> {
        let mut diagnostics = Diagnostics::default();
        if let Some(stranger) = site.unchanged.iter().find(|name| !self.tenants.contains_key(*name)) {
            let message = format!("the site was read as if the tenant `{stranger}` ran already");
            diagnostics.error("site/read", None, message, "apply again");
            return Err(diagnostics);
        }
        let mut prepared = task::block_in_place(|| self.prepare(site, &mut diagnostics));
        self.check_totals(site, over_total, &mut diagnostics);
        if diagnostics.has_errors() {
            self.components.forget_ahead();
            return Err(diagnostics);
        }
        let staging = task::block_in_place(|| self.snapshot(site, &prepared)).map(|snapshot| {
            let (store, data) = (self.store.clone(), self.data.clone());
            task::spawn_blocking(move || store.stage_applied(&data, snapshot))
        });
        self.try_all(site, &prepared, &mut diagnostics).await;
        self.components.forget_ahead();
        let staged = match staging {
            Ok(staging) => staging.await.expect("staging does not panic"),
            Err(error) => Err(error),
        };
        if diagnostics.has_errors() {
            return Err(diagnostics);
        }
        // Before anything changes: a host that is killed from here on starts again
        // with all of it.
        let kept = staged.and_then(|staged| task::block_in_place(|| self.store.keep_applied(staged)));
        let leftovers = match kept {
            Ok(leftovers) => leftovers,
            Err(error) => {
                let label = "nothing was changed; apply again once the data folder can be written";
                diagnostics.error("store/applied", None, chain(&error), label);
                return Err(diagnostics);
            }
        };
        if site.host != self.config {
            let message = "what the Host resource says has changed";
            diagnostics.warning(
                "host/restart",
                None,
                message,
                "it takes effect when the host is started again",
            );
        }
        let mut applied = Applied::default();
        self.servers.begin_change();
        self.remove_gone(site, &prepared, &mut applied).await;
        for tenant in &site.tenants {
            let wanted = prepared.remove(tenant.name.as_str()).expect("every tenant was prepared");
            if let Some(running) = self.tenants.get(&tenant.name).filter(|running| wanted.is(running)) {
                running.tenant.replace_schemas(tenant.schemas.clone());
                applied.unchanged += wanted.dataflows.len();
            } else {
                self.run_tenant(site, tenant, wanted, &mut applied).await;
            }
        }
        self.servers.end_change();
        let unchanged = site.unchanged.iter().filter_map(|name| self.tenants.get(name));
        applied.unchanged += unchanged.map(|running| running.dataflows.len()).sum::<usize>();
        self.seen = site.seen.clone();
        task::block_in_place(|| {
            self.store.sweep_applied(leftovers);
            self.sweep_compiled();
        });
        Ok((applied, diagnostics))
    }

    /// Removes compiled components beyond what the Host resource allows.
    fn sweep_compiled(&self) {
        let in_use = || {
            let dataflows = self.tenants.values().flat_map(|tenant| tenant.dataflows.values());
            let operators = dataflows.flat_map(|dataflow| dataflow.plan.operators());
            operators.map(|operator| (operator.engine(), operator.digest)).collect()
        };
        if let Err(error) = self.components.cache().sweep(self.config.compiled_bytes_max, in_use) {
            tracing::warn!(error = %chain(&error), "compiled components stay on disk");
        }
    }

    /// Reads and compiles the components of every dataflow that is to run.
    fn prepare<'a>(
        &mut self,
        site: &'a Site,
        diagnostics: &mut Diagnostics,
    ) -> BTreeMap<&'a str, Prepared<'a>> {
        self.known.begin();
        let mut prepared = BTreeMap::new();
        for tenant in &site.tenants {
            let tenant_fingerprint = tenant_fingerprint(site, tenant);
            let running = self.tenants.get(&tenant.name).filter(|it| it.fingerprint == tenant_fingerprint);
            let mut dataflows = Vec::new();
            for dataflow in tenant.dataflows.iter().filter(|it| it.dataflow.enabled) {
                let components = deploy::admit(tenant, dataflow, &mut self.known, diagnostics);
                deploy::check_layout(tenant, dataflow, &components, self.config.pool, diagnostics);
                let fingerprint = deploy::fingerprint(dataflow, &components);
                let running = running.and_then(|it| it.dataflows.get(&dataflow.dataflow.name.text));
                let runs = running.is_some_and(|running| running.fingerprint == fingerprint);
                if !runs {
                    deploy::compile(tenant, dataflow, &components, self.components.cache(), diagnostics);
                }
                dataflows.push(PreparedDataflow { site: dataflow, components, fingerprint, runs });
            }
            let admitted = dataflows.iter().map(|it: &PreparedDataflow<'_>| (it.site, &it.components));
            deploy::check_memory(tenant, admitted.clone(), diagnostics);
            deploy::check_commands(tenant, admitted.clone(), &site.endpoints, diagnostics);
            let demand = Demand::of(tenant, admitted, &site.endpoints);
            let tenant_prepared = Prepared { fingerprint: tenant_fingerprint, demand, dataflows };
            prepared.insert(tenant.name.as_str(), tenant_prepared);
        }
        self.check_capacity(site, &prepared, diagnostics);
        prepared
    }

    /// Whether tenants whose total becomes less use no more than that already.
    fn check_totals(&self, site: &Site, over_total: OverTotal, diagnostics: &mut Diagnostics) {
        for tenant in &site.tenants {
            let Some(running) = self.tenants.get(&tenant.name) else { continue };
            let used = running.tenant.memory().total();
            let before = running.tenant.limits.memory_total_bytes_max;
            let allowed = tenant.limits.memory_total_bytes_max;
            if allowed >= before || used <= allowed {
                continue;
            }
            let message = format!(
                "`{}` uses {} KiB of memory, and `memory.total` would allow {} KiB",
                tenant.name,
                used.div_ceil(1 << 10),
                allowed >> 10
            );
            match over_total {
                OverTotal::Refuse => {
                    let label =
                        "`tidegate apply --force` drains its dataflows and starts them anew within that";
                    diagnostics.error("tenant/over-total", None, message, label);
                }
                OverTotal::Drain => {
                    diagnostics.warning(
                        "tenant/over-total",
                        None,
                        message,
                        "its dataflows are drained first",
                    );
                }
            }
        }
    }

    /// Whether the machine has what all its tenants ask for, those that stay among them.
    fn check_capacity(
        &self,
        site: &Site,
        prepared: &BTreeMap<&str, Prepared<'_>>,
        diagnostics: &mut Diagnostics,
    ) {
        let unchanged = site.unchanged.iter().filter_map(|name| self.tenants.get(name));
        let demands = prepared.values().map(|it| &it.demand).chain(unchanged.map(|it| &it.demand));
        let asked = Asked::of(&self.config, demands);
        capacity::judge(&asked, &Machine::this()).say(diagnostics);
    }

    /// All that the site was read from.
    fn snapshot(
        &self,
        site: &Site,
        prepared: &BTreeMap<&str, Prepared<'_>>,
    ) -> Result<Snapshot, AppliedError> {
        let mut snapshot = Snapshot {
            dir: std::path::absolute(&site.home).unwrap_or_else(|_| site.home.clone()),
            tenants: site.tenants.iter().map(|tenant| tenant.name.clone()).collect(),
            unchanged: site.unchanged.clone(),
            texts: site.texts.values().cloned().collect(),
            ..Snapshot::default()
        };
        for it in prepared.values().flat_map(|it| &it.dataflows) {
            for (node, GraphSite { modules, .. }) in &it.site.graphs {
                for (operation, module) in modules {
                    if let Some(component) = it.components.get(&(*node, *operation)) {
                        let parts = component.fused;
                        let own = parts.map_or(component.digest, |parts| parts.map);
                        snapshot.add_component(&site.dir, &module.path, own)?;
                        if let (Some(provider), Some(parts)) = (&module.provider, parts) {
                            snapshot.add_component(&site.dir, &provider.path, parts.provider)?;
                        }
                    }
                }
            }
        }
        // Disabled dataflows come back with the rest, and are not admitted until they run.
        let disabled = site.tenants.iter().flat_map(|it| &it.dataflows).filter(|it| !it.dataflow.enabled);
        for module in disabled.flat_map(|it| it.graphs.values()).flat_map(|it| it.modules.values()) {
            snapshot.add_component_as_it_is(&site.dir, &module.path)?;
            if let Some(provider) = &module.provider {
                snapshot.add_component_as_it_is(&site.dir, &provider.path)?;
            }
        }
        Ok(snapshot)
    }

    /// Lets go of what sources of an earlier run hold that no longer are: sessions at
    /// brokers, which would keep messages that nobody fetches, and positions in files.
    /// To be called with what was applied last before this run.
    pub fn leave_behind(&mut self, before: &Site, now: &Site) {
        for tenant in &before.tenants {
            for dataflow in &tenant.dataflows {
                let flow = &dataflow.dataflow.name.text;
                for node in &dataflow.dataflow.nodes {
                    let FlowNodeKind::Source { endpoint, topics } = &node.kind else { continue };
                    let kind = &before.endpoints[&endpoint.text];
                    if has_source(now, &tenant.name, flow, &node.name.text, kind) {
                        continue;
                    }
                    let name = &node.name.text;
                    self.store.forget_position(&format!("{}/{flow}/{name}", tenant.name));
                    if let EndpointKind::Mqtt(settings) = kind {
                        let id = client_id::of_source(&self.name, &tenant.name, flow, name);
                        let filters = topics.iter().map(|(filter, _)| filter.clone()).collect();
                        self.end_session(&now.home, settings, id, filters);
                    }
                }
            }
        }
    }

    /// Takes a session over and says goodbye for good, taking nothing from it.
    fn end_session(&mut self, home: &Path, settings: &MqttSettings, id: String, filters: Vec<TopicFilter>) {
        let stop = Stop::default();
        let options = SourceOptions {
            filters,
            payload_bytes_max: Batch::BYTES_MAX,
            node: self.name.clone(),
            identifies: false,
            // Not acknowledged: it goes with the session.
            oversize: Box::new(|oversize| oversize.settle.abandon()),
            stop: stop.clone(),
        };
        // Without credit nothing is delivered.
        let ledger = Ledger::new(Batch::BYTES_MAX);
        let all_credit = ledger.try_acquire(Batch::BYTES_MAX).expect("nobody else has any");
        let door = SourceDoor::new(0, Queue::new(Waker::noop().clone()), ledger);
        let session = SourceSession::new(self.mqtt_settings(home, settings, id.clone()), options, door);
        let status = mqtt::Session::status(&session).clone();
        let remote = Remote::of(settings, home);
        let running = mqtt::run(remote, Box::new(session), self.clock.clone());
        task::spawn(async move {
            let _all_credit = all_credit;
            let stopping = async {
                // What waits at the broker comes before the answer to a subscription.
                while status.state() != ConnectionState::Connected && status.messages_in.get() == 0 {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                stop.stop(Farewell::ForGood);
                std::future::pending::<()>().await;
            };
            tokio::select! {
                _ = running => tracing::info!(session = id, "the session of a source that is gone was ended"),
                () = stopping => {}
                () = tokio::time::sleep(DRAIN) => {
                    tracing::warn!(session = id, "its broker keeps the session of a source that is gone until it expires");
                }
            }
        });
    }

    /// Runs `init` of everything new on instances that are thrown away.
    async fn try_all(
        &mut self,
        site: &Site,
        prepared: &BTreeMap<&str, Prepared<'_>>,
        diagnostics: &mut Diagnostics,
    ) {
        for tenant in &site.tenants {
            let shard = self.tenants.get(&tenant.name).map(|running| running.shard).unwrap_or_default();
            let mut trial = None;
            let dataflows = &prepared[tenant.name.as_str()].dataflows;
            for it in dataflows.iter().filter(|it| !it.runs) {
                let name = &it.site.dataflow.name;
                let sinks = dummy_sinks(it.site);
                let trial = trial.get_or_insert_with(|| {
                    Tenant::on_trial(&tenant.name, tenant.limits.clone(), tenant.schemas.clone())
                });
                let ends = Ends { endpoints: &site.endpoints, sinks: &sinks, commands: None };
                let plan = deploy::plan(trial, tenant, it.site, &it.components, WindowSpace::memory(), ends);
                let operators = plan.operators().cloned().collect();
                let (reply, result) = oneshot::channel();
                self.shards[shard].door.send(Command::Try { operators, reply });
                let result = result.await.unwrap_or_else(|_| Err("the shard ended".into()));
                if let Err(cause) = result {
                    let message = format!("the dataflow `{}/{}` does not start", tenant.name, name.text);
                    diagnostics.error("dataflow/init", name.place.clone(), message, cause);
                }
            }
            trial.iter().for_each(|trial| end_models(trial));
        }
    }

    async fn remove_gone(
        &mut self,
        site: &Site,
        prepared: &BTreeMap<&str, Prepared<'_>>,
        applied: &mut Applied,
    ) {
        let is_wanted =
            |name: &str, running: &RunningTenant| prepared.get(name).is_some_and(|it| it.is(running));
        let tenants = self.tenants.iter().filter(|(name, _)| !site.unchanged.contains(*name));
        let touched = tenants.filter(|(name, running)| !is_wanted(name, running));
        let names: Vec<String> = touched.map(|(name, _)| name.clone()).collect();
        for name in names {
            let stays = site.tenant(&name);
            let wanted = prepared.get(name.as_str());
            let mut running = self.tenants.remove(&name).expect("its name is a key");
            let unchanged = wanted.is_some_and(|wanted| wanted.fingerprint == running.fingerprint);
            let mut kept = BTreeMap::new();
            for (flow, dataflow) in std::mem::take(&mut running.dataflows) {
                let mut dataflows = wanted.into_iter().flat_map(|wanted| &wanted.dataflows);
                match dataflows.find(|it| it.site.dataflow.name.text == flow) {
                    Some(same) if same.runs => {
                        kept.insert(flow, dataflow);
                    }
                    other => {
                        let full = format!("{name}/{flow}");
                        let farewells = |source: &RunningSource| farewell_of(site, &name, &flow, source);
                        self.end_dataflow(running.shard, dataflow, farewells).await;
                        let is_there =
                            |it: &TenantSite| it.dataflows.iter().any(|it| it.dataflow.name.text == flow);
                        if !stays.is_some_and(is_there) {
                            self.keep_quarantine(&full, None);
                            self.forget_windows(&full);
                        }
                        if other.is_some() { &mut applied.replaced } else { &mut applied.removed }.push(full);
                    }
                }
            }
            running.dataflows = kept;
            if unchanged {
                self.tenants.insert(name, running);
            } else {
                self.shards[running.shard].tenants -= 1;
                end_commands(running.commands).await;
                end_models(&running.tenant);
                end_sinks(running.sinks).await;
            }
        }
    }

    async fn run_tenant(
        &mut self,
        site: &Site,
        tenant: &TenantSite,
        Prepared { fingerprint, demand, dataflows }: Prepared<'_>,
        applied: &mut Applied,
    ) {
        let mut running = match self.tenants.remove(&tenant.name) {
            Some(running) => {
                running.tenant.replace_schemas(tenant.schemas.clone());
                RunningTenant { demand, ..running }
            }
            None => RunningTenant {
                tenant: {
                    let keys = self.store.key_space(&tenant.name, &self.name, tenant.limits.state);
                    let TenantSite { name, limits, grants, schemas, .. } = tenant;
                    let tenant = Tenant::keeping(name, limits.clone(), keys, schemas.clone());
                    let rates = grants.iter().map(|grants| (grants.endpoint.as_str(), grants.rates));
                    tenant.set_gates(Gates::new(rates, self.clock.now()));
                    self.usage.watch(&tenant);
                    tenant
                },
                shard: self.place(),
                fingerprint,
                dataflows: BTreeMap::new(),
                sinks: BTreeMap::new(),
                commands: BTreeMap::new(),
                demand,
                watch: Watch::new(&self.clock),
            },
        };
        let components = dataflows.iter().map(|prepared| &prepared.components);
        running.tenant.set_component_bytes(deploy::component_bytes(components));
        self.govern_letters(&running.tenant);
        for prepared in dataflows {
            let name = prepared.site.dataflow.name.text.clone();
            if running.dataflows.contains_key(&name) {
                applied.unchanged += 1;
                continue;
            }
            let transaction = Arc::<Transaction>::default();
            let own = self.open_sinks(site, &mut running, prepared.site, &transaction);
            let buffers = self.open_buffers(site, tenant, &running, prepared.site);
            let sinks = running.sinks.iter().chain(&own).map(|(name, sink)| (name, &sink.queue));
            let fronts = buffers.iter().map(|(name, buffer)| (name, &buffer.front));
            let sinks = sinks.chain(fronts).map(|(name, queue)| (name.clone(), queue.clone())).collect();
            let space = match self.window_space(&running.tenant, prepared.site) {
                Ok(space) => space,
                Err(error) => {
                    tracing::error!(dataflow = name, error = %chain(&error), "its open windows cannot be read: it does not run");
                    continue;
                }
            };
            let PreparedDataflow { site: flow, components, .. } = &prepared;
            let endpoint = deploy::command_endpoint(flow, components, &site.endpoints);
            let commands = endpoint.map(|endpoint| self.open_commands(site, tenant, &mut running, endpoint));
            let ends = Ends { endpoints: &site.endpoints, sinks: &sinks, commands: commands.as_ref() };
            let plan = Arc::new(deploy::plan(&running.tenant, tenant, flow, components, space, ends));
            self.usage.watch_dataflow(&tenant.name, &plan.stats);
            if let Some(cause) = self.quarantined.get(&plan.name()) {
                plan.set_health(Health::Quarantined { cause: cause.clone() });
            }
            let (reply, installed) = oneshot::channel();
            self.shards[running.shard].door.send(Command::Install { plan: plan.clone(), reply });
            let Ok((id, queue)) = installed.await else {
                tracing::error!(dataflow = %plan.name(), "its shard has ended");
                continue;
            };
            let sources = self.open_sources(site, &running, prepared.site, &plan, &queue, &transaction);
            let full = plan.name();
            tracing::info!(dataflow = %full, shard = running.shard, "dataflow runs");
            if !applied.replaced.contains(&full) {
                applied.added.push(full);
            }
            let (fingerprint, health) = (prepared.fingerprint, HealthLog::new(&self.clock));
            let sinks = own;
            let dataflow = RunningDataflow { id, plan, fingerprint, queue, sources, sinks, buffers, health };
            running.dataflows.insert(name, dataflow);
        }
        self.tenants.insert(tenant.name.clone(), running);
    }

    /// Holds what is kept of a tenant's dead letters to its limits.
    fn govern_letters(&self, tenant: &Tenant) {
        if let Some(door) = self.dead_letters.door() {
            let limits = tenant.limits.dead_letters;
            task::block_in_place(|| door.govern(&tenant.name, limits, &tenant.letters));
        }
    }

    /// Where the open windows of a dataflow are kept, if it can have any.
    fn window_space(&self, tenant: &Tenant, flow: &DataflowSite) -> Result<WindowSpace, StoreError> {
        if !flow.has_windows() {
            return Ok(WindowSpace::memory());
        }
        let name = format!("{}/{}", tenant.name, flow.dataflow.name.text);
        task::block_in_place(|| self.store.window_space(&name))
    }

    /// What a dataflow that is gone still held goes with it.
    fn forget_windows(&self, dataflow: &str) {
        if let Err(error) = task::block_in_place(|| self.store.forget_windows(dataflow)) {
            tracing::warn!(dataflow, error = %chain(&error), "its open windows stay on disk");
        }
    }

    /// The less busy of two shards drawn at random, by tenants. A tenant lives on one
    /// shard, so that its weight and its instances are counted in one place.
    fn place(&mut self) -> usize {
        let shards = self.shards.len();
        let (one, other) = (self.rng.random_range(0..shards), self.rng.random_range(0..shards));
        let load = |shard: usize| self.shards[shard].tenants;
        let shard = if load(one) <= load(other) { one } else { other };
        self.shards[shard].tenants += 1;
        shard
    }

    /// Opens the sinks that a dataflow needs and its tenant has not open yet; gives those that
    /// are the dataflow's own: what they write is part of `transaction`.
    fn open_sinks(
        &mut self,
        site: &Site,
        running: &mut RunningTenant,
        dataflow: &DataflowSite,
        transaction: &Arc<Transaction>,
    ) -> BTreeMap<String, RunningSink> {
        let mut own = BTreeMap::new();
        for node in &dataflow.dataflow.nodes {
            let FlowNodeKind::Destination { endpoint, .. } = &node.kind else { continue };
            if running.sinks.contains_key(&endpoint.text) || own.contains_key(&endpoint.text) {
                continue;
            }
            let mut is_own = false;
            let queue = SinkQueue::new(SINK_BYTES_MAX);
            let mut status = None;
            let name = format!("{}/{}", running.tenant.name, endpoint.text);
            let sink = match &site.endpoints[&endpoint.text] {
                EndpointKind::Mqtt(settings) => {
                    let id = client_id::of_sink(&self.name, &running.tenant.name, &endpoint.text);
                    let session =
                        SinkSession::new(self.mqtt_settings(&site.home, settings, id), queue.clone());
                    status = Some(mqtt::Session::status(&session).clone());
                    Sink::Mqtt(Remote::of(settings, &site.home), Box::new(session))
                }
                EndpointKind::Kafka(settings) => {
                    is_own = settings.transactions;
                    let mut id = client_id::of_sink(&self.name, &running.tenant.name, &endpoint.text);
                    if is_own {
                        // A transaction of its own.
                        id = format!("{id}/{}", dataflow.dataflow.name.text);
                    }
                    let settings = settings.below(&site.home);
                    let mut sink =
                        KafkaSink::new(settings, id, self.name.clone(), self.clock.clone(), queue.clone());
                    if is_own {
                        sink = sink.within(transaction.clone());
                    }
                    status = Some(sink.status().clone());
                    Sink::Kafka(Box::new(sink))
                }
                EndpointKind::Http(HttpSettings::Listen(settings)) => {
                    let server = self.servers.open(settings.below(&site.home));
                    let sink = HttpSink::new(server, running.tenant.name.clone(), queue.clone());
                    status = Some(sink.status().clone());
                    Sink::Http(Box::new(sink))
                }
                EndpointKind::Http(HttpSettings::Webhook(settings)) => {
                    let sink = Webhook::new(settings.below(&site.home), queue.clone());
                    status = Some(sink.status().clone());
                    Sink::Webhook(Box::new(sink))
                }
                EndpointKind::Otlp(OtlpSettings::Export(settings)) => {
                    let tenant = running.tenant.name.clone();
                    let sink = OtlpSink::new(settings.below(&site.home), tenant, queue.clone());
                    status = Some(sink.status().clone());
                    Sink::Otlp(Box::new(sink))
                }
                EndpointKind::Otlp(OtlpSettings::Listen(_)) => {
                    unreachable!("a destination at what listens is refused when the site is read")
                }
                EndpointKind::Memory => Sink::Memory(self.memory.sink(name.clone(), queue.clone())),
                EndpointKind::File { path } => {
                    let sink = FileSink::lasting(Location::Path(site.home.join(path)), queue.clone());
                    status = Some(sink.status().clone());
                    Sink::File(sink)
                }
            };
            let clock = self.clock.clone();
            let task = spawn_end(&self.shards[running.shard].runtime, name, sink.run(clock));
            let sinks = if is_own { &mut own } else { &mut running.sinks };
            sinks.insert(endpoint.text.clone(), RunningSink { queue, status, task });
        }
        own
    }

    /// What stands between a dataflow and those of its sinks that it wants disk persistence
    /// for, or of which an earlier run has left something on disk.
    fn open_buffers(
        &self,
        site: &Site,
        tenant: &TenantSite,
        running: &RunningTenant,
        flow: &DataflowSite,
    ) -> Buffers {
        let dataflow = &flow.dataflow;
        let mut buffers = BTreeMap::new();
        for node in &dataflow.nodes {
            let FlowNodeKind::Destination { endpoint, .. } = &node.kind else { continue };
            let dir =
                self.data.join("buffers").join(&tenant.name).join(&dataflow.name.text).join(&endpoint.text);
            let sink = running.sinks.get(&endpoint.text);
            let Some((sink, far)) = sink.and_then(|sink| Some((sink, sink.status.clone()?))) else {
                continue;
            };
            let is_wanted = dataflow.is_buffered || dir.exists();
            let is_possible = site.endpoints[&endpoint.text].is_bufferable();
            if buffers.contains_key(&endpoint.text) || !is_wanted || !is_possible {
                continue;
            }
            let grants = tenant.grants.iter().find(|grants| grants.endpoint == endpoint.text);
            let options = BufferOptions {
                tenant: tenant.name.clone(),
                dataflow: dataflow.name.text.clone(),
                dir,
                used: running.tenant.buffered_bytes.clone(),
                bytes_max: running.tenant.limits.buffer_bytes_max,
                write_grants: grants.map(|grants| grants.write.clone()).unwrap_or_default(),
                far,
                patience: Patience::default(),
                letters: self.dead_letters.clone(),
                clock: self.clock.clone(),
            };
            let front = SinkQueue::new(SINK_BYTES_MAX);
            let buffer = Buffer::new(options, front.clone(), sink.queue.clone());
            let status = buffer.status().clone();
            let task = self.shards[running.shard].runtime.spawn(buffer.run());
            buffers.insert(endpoint.text.clone(), RunningBuffer { front, status, task });
        }
        buffers
    }

    /// The door to the connection over which a tenant asks other programs.
    fn open_commands(
        &mut self,
        site: &Site,
        tenant: &TenantSite,
        running: &mut RunningTenant,
        endpoint: &str,
    ) -> Arc<Commands> {
        if let Some(running) = running.commands.get(endpoint) {
            return running.door.clone();
        }
        let EndpointKind::Mqtt(settings) = &site.endpoints[endpoint] else {
            unreachable!("commands go over MQTT alone")
        };
        let id = client_id::of_commands(&self.name, &tenant.name, endpoint);
        let remote = Remote::of(settings, &site.home);
        let settings = self.mqtt_settings(&site.home, settings, id);
        let grants = tenant.grants.iter().find(|grants| grants.endpoint == endpoint);
        let grants = grants.expect("the endpoint is granted").clone();
        let door = Commands::new(settings.client_id.clone(), grants, running.tenant.calls.clone());
        let options = CommandOptions {
            payload_bytes_max: tenant.limits.payload_bytes_max as usize,
            node: self.name.clone(),
            clock: self.clock.clone(),
        };
        let session = CommandSession::new(settings, options, door.clone());
        let status = mqtt::Session::status(&session).clone();
        let name = format!("{}/{endpoint} for commands", tenant.name);
        let connection = mqtt::run(remote, Box::new(session), self.clock.clone());
        let end = async move {
            connection.await;
            Ok(())
        };
        let task = spawn_end(&self.shards[running.shard].runtime, name, end);
        let commands = RunningCommands { door: door.clone(), status, task };
        running.commands.insert(endpoint.to_owned(), commands);
        door
    }

    fn open_sources(
        &mut self,
        site: &Site,
        running: &RunningTenant,
        dataflow: &DataflowSite,
        plan: &Arc<Plan>,
        queue: &Arc<Queue>,
        transaction: &Arc<Transaction>,
    ) -> Vec<RunningSource> {
        let mut sources = Vec::new();
        for node in &dataflow.dataflow.nodes {
            let FlowNodeKind::Source { endpoint, topics } = &node.kind else { continue };
            let index = sources.len() as u32;
            let door = SourceDoor::new(index, queue.clone(), running.tenant.ledger.clone())
                .through(plan.sources[index as usize].gate.clone());
            let stop = Stop::default();
            let name = &node.name.text;
            let full = format!("{}/{name}", plan.name());
            let mut status = None;
            let source = match &site.endpoints[&endpoint.text] {
                EndpointKind::Mqtt(settings) => {
                    let id = client_id::of_source(&self.name, &running.tenant.name, &plan.dataflow, name);
                    let options = SourceOptions {
                        filters: topics.iter().map(|(filter, _)| filter.clone()).collect(),
                        payload_bytes_max: running.tenant.limits.payload_bytes_max as usize,
                        node: self.name.clone(),
                        identifies: !plan.windows.is_empty(),
                        oversize: oversize::bury(
                            plan.clone(),
                            name.clone(),
                            self.dead_letters.clone(),
                            self.clock.clone(),
                        ),
                        stop: stop.clone(),
                    };
                    let session =
                        SourceSession::new(self.mqtt_settings(&site.home, settings, id), options, door);
                    status = Some(mqtt::Session::status(&session).clone());
                    Source::Mqtt(Remote::of(settings, &site.home), Box::new(session))
                }
                EndpointKind::Kafka(settings) => {
                    let options = KafkaOptions {
                        client_id: client_id::of_source(
                            &self.name,
                            &running.tenant.name,
                            &plan.dataflow,
                            name,
                        ),
                        group: kafka::group(settings, &running.tenant.name, &plan.dataflow, name),
                        topics: topics.iter().map(|(topic, _)| topic.as_str().to_owned()).collect(),
                        node: self.name.clone(),
                        payload_bytes_max: running.tenant.limits.payload_bytes_max as usize,
                        identifies: !plan.windows.is_empty(),
                        transaction: settings.transactions.then(|| transaction.clone()),
                        oversize: oversize::bury_record(
                            plan.clone(),
                            name.clone(),
                            self.dead_letters.clone(),
                            self.clock.clone(),
                        ),
                        stop: stop.clone(),
                    };
                    let source = KafkaSource::new(settings.below(&site.home), options, door);
                    status = Some(source.status().clone());
                    Source::Kafka(Box::new(source))
                }
                EndpointKind::Http(HttpSettings::Listen(settings))
                | EndpointKind::Otlp(OtlpSettings::Listen(settings)) => {
                    let options = HttpOptions {
                        tenant: running.tenant.name.clone(),
                        name: full.clone(),
                        filters: topics.iter().map(|(filter, _)| filter.clone()).collect(),
                        replies: settings.speaks == Speaks::Http && replies(site, dataflow),
                        node: self.name.clone(),
                        payload_bytes_max: running.tenant.limits.payload_bytes_max as usize,
                        stop: stop.clone(),
                    };
                    let server = self.servers.open(settings.below(&site.home));
                    let source = HttpSource::new(server, options, door);
                    status = Some(source.status().clone());
                    Source::Http(Box::new(source))
                }
                EndpointKind::Otlp(OtlpSettings::Export(_)) => {
                    unreachable!("a source at what is exported to is refused when the site is read")
                }
                EndpointKind::Http(HttpSettings::Webhook(_)) => {
                    unreachable!("a source at a webhook is refused when the site is read")
                }
                // Nothing ever comes from memory but what a program puts there.
                EndpointKind::Memory => {
                    Source::Memory(MemorySource::new(door, stop.clone(), self.memory.feed(&full)))
                }
                EndpointKind::File { path } => {
                    let path = site.home.join(path);
                    let source = self.file_source(&path, plan, name, stop.clone(), door);
                    status = Some(source.status().clone());
                    Source::File(Box::new(source))
                }
            };
            let clock = self.clock.clone();
            let task = spawn_end(&self.shards[running.shard].runtime, full, source.run(clock));
            let endpoint = site.endpoints[&endpoint.text].clone();
            sources.push(RunningSource { name: name.clone(), endpoint, stop, status, task });
        }
        sources
    }

    fn file_source(
        &self,
        path: &Path,
        plan: &Arc<Plan>,
        node: &str,
        stop: Stop,
        door: SourceDoor,
    ) -> FileSource {
        let key = format!("{}/{node}", plan.name());
        let store = self.store.clone();
        let options = FileOptions {
            location: Location::Path(path.to_owned()),
            position: self.store.position(&key),
            at_end: AtEnd::Follow,
            node: self.name.clone(),
            line_bytes_max: 2 * plan.tenant.limits.payload_bytes_max as usize,
            payload_bytes_max: plan.tenant.limits.payload_bytes_max as usize,
            settled: Box::new(move |position| {
                store.set_position(&key, position);
                // The first says which file it is, should it be moved while nobody looks.
                if position.bytes == 0
                    && let Err(error) = store.flush()
                {
                    tracing::warn!(source = %key, error = %chain(&error), "cannot keep which file it reads");
                }
            }),
            problem: oversize::bury_line(
                plan.clone(),
                node.to_owned(),
                self.dead_letters.clone(),
                self.clock.clone(),
            ),
            stop,
        };
        FileSource::later(options, door)
    }

    fn mqtt_settings(&mut self, home: &Path, settings: &MqttSettings, id: String) -> mqtt::Settings {
        let id = format!("{}{id}", settings.client_id_prefix);
        let is_its = |port: u16| settings.address.ends_with(&format!(":{port}"));
        let embedded = self.broker.is_some_and(|ports| is_its(ports.v5) || is_its(ports.v311));
        mqtt::Settings {
            version: settings.version,
            login: settings.login.as_ref().map(|it| it.below(home)),
            last_will: settings.last_will.clone(),
            keep_alive: settings.keep_alive,
            session_expiry: settings.session_expiry,
            qos: if settings.qos == 0 { Qos::AtMostOnce } else { Qos::AtLeastOnce },
            inflight_max: InflightMax::nearest(settings.inflight_max.into()),
            keeps_retain: settings.keeps_retain,
            seed: self.rng.random(),
            clock: self.clock.clone(),
            ..mqtt::Settings::new(if embedded { broker::client_id(&id) } else { id })
        }
    }

    async fn end_dataflow(
        &self,
        shard: usize,
        dataflow: RunningDataflow,
        farewell: impl Fn(&RunningSource) -> Farewell,
    ) {
        let RunningDataflow { id, plan, sources, sinks, buffers, .. } = dataflow;
        let farewells: Vec<_> = sources.iter().map(farewell).collect();
        sources.iter().zip(&farewells).for_each(|(source, farewell)| source.stop.stop(*farewell));
        let gone = sources.iter().zip(farewells).filter(|(_, farewell)| *farewell == Farewell::ForGood);
        let gone: Vec<_> = gone.map(|(source, _)| format!("{}/{}", plan.name(), source.name)).collect();
        sources.iter().for_each(|source| self.memory.forget(&format!("{}/{}", plan.name(), source.name)));
        let mut tasks: Vec<_> = sources.into_iter().map(|source| source.task).collect();
        // A source ends once all that it delivered is settled and acknowledged.
        let stopped = async {
            for task in &mut tasks {
                // A task ends in one way only: it is not cancelled and does not panic.
                let _ = task.await;
            }
        };
        let drained = tokio::time::timeout(DRAIN, stopped).await.is_ok();
        let (reply, removed) = oneshot::channel();
        self.shards[shard].door.send(Command::Remove {
            dataflow: id,
            drain: if drained { DRAIN } else { Duration::ZERO },
            reply,
        });
        let removed = removed.await.unwrap_or(Removed::Abandoned);
        tasks.iter().for_each(|task| task.abort());
        end_buffers(buffers).await;
        end_sinks(sinks).await;
        gone.iter().for_each(|source| self.store.forget_position(source));
        tracing::info!(dataflow = %plan.name(), ?removed, "dataflow ended");
    }

    /// Stops taking, drains, settles, closes.
    pub async fn shut_down(mut self) {
        self.servers.begin_change();
        let tenants = std::mem::take(&mut self.tenants);
        let flows = tenants.into_values().map(|mut running| {
            let dataflows = std::mem::take(&mut running.dataflows);
            (running, dataflows)
        });
        let all: Vec<_> = flows.collect();
        all.iter().flat_map(|(_, dataflows)| dataflows.values()).flat_map(|it| &it.sources).for_each(
            |source| {
                source.stop.stop(Farewell::UntilLater);
            },
        );
        for (running, dataflows) in all {
            for dataflow in dataflows.into_values() {
                self.end_dataflow(running.shard, dataflow, |_| Farewell::UntilLater).await;
            }
            end_commands(running.commands).await;
            end_models(&running.tenant);
            end_sinks(running.sinks).await;
        }
        // Clients read their answers before the process ends.
        task::block_in_place(|| self.servers.join());
        task::block_in_place(|| self.usage.close());
        if let Err(error) = self.store.flush() {
            tracing::error!(error = %chain(&error), "positions of files, and what tenants used last, may be lost");
        }
        for RunningShard { door, thread, .. } in self.shards.drain(..) {
            door.send(Command::Stop);
            if thread.join().is_err() {
                tracing::error!("a shard had panicked");
            }
        }
    }

    /// Fuel that guests use in a second of CPU time on this machine, once that was measured.
    pub fn fuel_per_second(&self) -> Option<u64> {
        Some(self.fuel_per_second.load(Ordering::Relaxed)).filter(|fuel| *fuel > 0)
    }

    /// Measures that, and keeps it from now on.
    pub fn calibrate(&self) -> impl Future<Output = Result<u64, HostError>> + Send + 'static {
        let program = self.components.cache().program().map(Path::to_owned);
        let (store, kept) = (self.store.clone(), self.fuel_per_second.clone());
        let measure = move || {
            let program = program.ok_or(HostError::NoProgram)?;
            let fuel = calibrate::measure(&program)?;
            store.keep_fuel_per_second(fuel)?;
            kept.store(fuel, Ordering::Relaxed);
            Ok(fuel)
        };
        async move { task::spawn_blocking(measure).await.expect("measuring does not panic") }
    }

    /// What a tenant has used since it runs.
    pub fn used(&self, tenant: &str) -> Option<&crate::stats::TenantStats> {
        self.tenants.get(tenant).map(|running| &*running.tenant.stats)
    }

    pub fn has_tenant(&self, name: &str) -> bool {
        self.tenants.contains_key(name)
    }

    /// Until every connection has connected or failed once, five seconds at most;
    /// gives how many are not there. What is published at a broker before a source
    /// has subscribed there for the first time, the source never sees.
    pub fn tried(&self) -> impl Future<Output = u64> + Send + 'static {
        let ends = self.tenants.values().flat_map(|tenant| {
            let sources = tenant.dataflows.values().flat_map(|dataflow| &dataflow.sources);
            sources.map(|it| &it.status).chain(tenant.all_sinks().map(|(_, it)| &it.status))
        });
        let commands = self.tenants.values().flat_map(|tenant| tenant.commands.values());
        let ends: Vec<_> = ends.flatten().chain(commands.map(|it| &it.status)).cloned().collect();
        async move {
            let all = async {
                for end in &ends {
                    end.tried().await;
                }
            };
            // Those that take longer are tried on, and counted.
            let _ = tokio::time::timeout(TRIED_WITHIN, all).await;
            ends.iter().filter(|end| end.is_missing()).count() as u64
        }
    }

    /// Takes note of how every dataflow does: to be called now and then, so that it is known
    /// when that changed, and before [`Host::status`], which says what was noted last.
    pub fn observe(&mut self) {
        let mut news = Vec::new();
        for RunningTenant { tenant, dataflows, sinks, watch, .. } in self.tenants.values_mut() {
            watch.observe(tenant, dataflows.iter(), &self.clock);
            for RunningDataflow { plan, sources, sinks: own, buffers, health, .. } in dataflows.values_mut() {
                health.observe(&facts(plan, sources, sinks.iter().chain(&*own), buffers), &self.clock);
                if let Health::Quarantined { cause } = plan.health() {
                    news.push((plan.name(), cause));
                }
            }
        }
        news.into_iter().for_each(|(dataflow, cause)| self.keep_quarantine(&dataflow, Some(cause)));
    }

    /// So that it outlives this run.
    fn keep_quarantine(&mut self, dataflow: &str, cause: Option<String>) {
        let is_news = match &cause {
            Some(cause) => self.quarantined.insert(dataflow.to_owned(), cause.clone()).is_none(),
            None => self.quarantined.remove(dataflow).is_some(),
        };
        let kept = || task::block_in_place(|| self.store.set_quarantine(dataflow, cause.as_deref()));
        if is_news && let Err(error) = kept() {
            tracing::warn!(dataflow, error = %chain(&error), "its quarantine is not kept");
        }
    }

    /// Lets a dataflow go on that is paused or in quarantine.
    pub async fn resume(&mut self, tenant: &str, dataflow: &str) -> Result<(), ResumeError> {
        let name = format!("{tenant}/{dataflow}");
        let running = self.tenants.get(tenant).and_then(|it| Some((it.shard, it.dataflows.get(dataflow)?)));
        let Some((shard, running)) = running else { return Err(ResumeError::Unknown { name }) };
        let (reply, resumed) = oneshot::channel();
        self.shards[shard].door.send(Command::Resume { dataflow: running.id, reply });
        let resumed = resumed.await.unwrap_or(false);
        self.keep_quarantine(&name, None);
        if resumed { Ok(()) } else { Err(ResumeError::NotHeld { name }) }
    }

    /// Sends dead letters through their dataflows again, as these run now; to be run
    /// beside the host.
    pub fn replay(&self, filter: Filter) -> Replay {
        let door = self.dead_letters.door().expect("a host keeps them on disk").clone();
        let dataflows = self.tenants.iter().flat_map(|(tenant, running)| {
            running.dataflows.iter().map(move |(dataflow, it)| {
                let lane = Lane {
                    plan: it.plan.clone(),
                    queue: it.queue.clone(),
                    is_transactional: !it.sinks.is_empty(),
                };
                ((tenant.clone(), dataflow.clone()), lane)
            })
        });
        Replay { lanes: dataflows.collect(), door, filter, node: self.name.clone() }
    }

    /// Removes dead letters for good, all that are meant or none; gives how many.
    pub fn discard(&self, filter: Filter) -> impl Future<Output = io::Result<u64>> + Send + 'static {
        let door = self.dead_letters.door().expect("a host keeps them on disk").clone();
        let discarding = task::spawn_blocking(move || door.remove(reader::ids(door.dir(), &filter)?));
        async { discarding.await.expect("discarding does not panic") }
    }

    /// What tenants used, a page of it; to be run beside the host.
    pub fn usage(&self, query: Query) -> impl Future<Output = Result<Page, StoreError>> + Send + 'static {
        let read = self.usage.reader();
        let reading = task::spawn_blocking(move || read(&query));
        async { reading.await.expect("reading does not panic") }
    }

    /// Why nothing comes out of a dataflow, as a document and in words.
    pub async fn why(&self, tenant: &str, dataflow: &str) -> Option<(Value, String)> {
        let running = self.tenants.get(tenant)?;
        let it = running.dataflows.get(dataflow)?;
        let (reply, description) = oneshot::channel();
        self.shards[running.shard].door.send(Command::Describe { dataflow: it.id, reply });
        let on_shard = description.await.ok().flatten();
        let facts = why_facts(running, it, on_shard);
        Some((facts.to_json(), facts.to_text()))
    }

    /// Live state, for `status`; of one tenant or of all.
    pub async fn status(&self, tenant: Option<&str>) -> Value {
        match tenant {
            Some(tenant) => self.status_of(Which::One(tenant)).await,
            None => self.status_of(Which::All).await,
        }
    }

    /// The same of those that are meant.
    pub async fn status_of(&self, which: Which<'_>) -> Value {
        let mut shards = Vec::new();
        for RunningShard { door, .. } in &self.shards {
            let (reply, census) = oneshot::channel();
            door.send(Command::Census { reply });
            let Census { dataflows, instances, instances_idle } = census.await.unwrap_or_default();
            shards.push(json!({ "dataflows": dataflows, "instances": instances, "idle": instances_idle }));
        }
        let meant = self.meant(which);
        let tenants: Vec<_> = meant.iter().map(|(name, running)| tenant_status(name, running)).collect();
        let ports = self.broker.map(|ports| json!({ "v5": ports.v5, "v311": ports.v311 }));
        json!({
            "host": self.name, "data": self.data, "broker": ports, "shards": shards,
            "componentsLoaded": self.components.loaded_count(),
            "components": counters(self.components.cache().stats().values()),
            "storeFailure": self.store.failure(), "fuelPerCpuSecond": self.fuel_per_second(), "tenants": tenants, "totals": self.totals(),
            "servers": self.servers.each().into_iter().map(server_status).collect::<Vec<_>>(),
        })
    }

    /// Running tenants by name, or by how busy they are: those that have trouble first.
    fn meant(&self, which: Which<'_>) -> Vec<(&String, &RunningTenant)> {
        let most = match which {
            Which::All => return self.tenants.iter().collect(),
            Which::One(name) => return self.tenants.get_key_value(name).into_iter().collect(),
            Which::Busiest(most) => most,
        };
        let mut tenants: Vec<_> = self.tenants.iter().collect();
        let busy = |running: &RunningTenant| {
            let pace = running.watch.pace;
            let taken: u64 = running.dataflows.values().map(|it| it.plan.stats.received.get()).sum();
            (running.watch.ladder.step() > Step::Running, pace.cpu_milli, pace.received, taken)
        };
        tenants.sort_by_cached_key(|(name, running)| (std::cmp::Reverse(busy(running)), *name));
        tenants.truncate(most);
        tenants
    }

    /// Over all tenants.
    fn totals(&self) -> Value {
        let paces = || self.tenants.values().map(|running| running.watch.pace);
        json!({
            "tenants": self.tenants.len(),
            "dataflows": self.tenants.values().map(|it| it.dataflows.len()).sum::<usize>(),
            "receivedPerSecond": paces().map(|pace| pace.received).sum::<u64>(),
            "deliveredPerSecond": paces().map(|pace| pace.delivered).sum::<u64>(),
            "cpuMilli": paces().map(|pace| pace.cpu_milli).sum::<u64>(),
        })
    }
}

/// Of which tenants something is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which<'a> {
    All,
    One(&'a str),
    /// So many, those that have trouble and those that do most.
    Busiest(usize),
}

/// A time of the wall clock, as everything shows it.
fn time(wall: Duration) -> Option<String> {
    let time = DateTime::from_timestamp(wall.as_secs() as i64, wall.subsec_nanos())?;
    Some(time.to_rfc3339_opts(SecondsFormat::Millis, true))
}

fn why_facts(
    running: &RunningTenant,
    dataflow: &RunningDataflow,
    on_shard: Option<Description>,
) -> why::Facts {
    let (tenant, plan) = (&running.tenant, &dataflow.plan);
    let end = |name: &str, status: &Option<Arc<Status>>, waiting| why::End {
        name: name.to_owned(),
        state: status.as_ref().map(|status| status.state()),
        waiting,
        lag: status.as_ref().and_then(|status| status.lag()),
    };
    let is_written = |it: &(&String, &RunningSink)| writes_to(plan, &dataflow.buffers, it.0, it.1);
    let sinks = running.all_sinks().filter(is_written);
    let stats = &plan.stats;
    why::Facts {
        tenant: tenant.name.clone(),
        dataflow: plan.dataflow.clone(),
        health: plan.health(),
        on_shard,
        sources: dataflow.sources.iter().map(|source| end(&source.name, &source.status, 0)).collect(),
        sinks: sinks.map(|(name, sink)| end(name, &sink.status, sink.queue.depth().0)).collect(),
        counts: why::Counts {
            received: stats.received.get(),
            written: stats.written.get(),
            filtered: stats.filtered.get(),
            errors: stats.errors.get(),
            late: stats.late.get(),
            absorbed: stats.absorbed.get(),
            dead: stats.dead.get(),
        },
        credit: why::Credit {
            in_flight: tenant.ledger.bytes_in_flight() as u64,
            max: tenant.ledger.bytes_max() as u64,
            is_waited_for: tenant.ledger.is_waited_for(),
        },
    }
}

/// All that a tenant's dataflows share and that no running one can change.
fn tenant_fingerprint(site: &Site, tenant: &TenantSite) -> Digest {
    Digest::of_values(|feed| {
        (&tenant.limits, &tenant.world.text, tenant.grants.len()).hash(feed);
        for grants in &tenant.grants {
            (grants, site.endpoints.get(&grants.endpoint)).hash(feed);
        }
    })
}

/// Whether a site still has a source, running or disabled: what is only replaced or
/// disabled goes on where it stopped.
fn has_source(site: &Site, tenant: &str, flow: &str, source: &str, endpoint: &EndpointKind) -> bool {
    let tenant = site.tenant(tenant);
    let mut flows = tenant.into_iter().flat_map(|it| &it.dataflows);
    let flow = flows.find(|it| it.dataflow.name.text == flow);
    let mut nodes = flow.into_iter().flat_map(|it| &it.dataflow.nodes);
    nodes.any(|node| match &node.kind {
        FlowNodeKind::Source { endpoint: its, .. } => {
            node.name.text == source && site.endpoints.get(&its.text) == Some(endpoint)
        }
        _ => false,
    })
}

/// Whether what a dataflow writes may be the reply to a request.
fn replies(site: &Site, dataflow: &DataflowSite) -> bool {
    dataflow.dataflow.nodes.iter().any(|node| match &node.kind {
        FlowNodeKind::Destination { endpoint, .. } => {
            matches!(site.endpoints[&endpoint.text], EndpointKind::Http(HttpSettings::Listen(_)))
        }
        _ => false,
    })
}

fn farewell_of(site: &Site, tenant: &str, flow: &str, source: &RunningSource) -> Farewell {
    if has_source(site, tenant, flow, &source.name, &source.endpoint) {
        Farewell::UntilLater
    } else {
        Farewell::ForGood
    }
}

/// Runs one end of a connector; what it cannot do is logged, since its other end
/// waits and `status` shows it.
fn spawn_end(
    runtime: &tokio::runtime::Handle,
    name: String,
    end: impl Future<Output = Result<(), FileError>> + Send + 'static,
) -> task::JoinHandle<()> {
    // Apart, or the task would have room for it twice.
    let end = Box::pin(end);
    runtime.spawn(async move {
        if let Err(error) = end.await {
            tracing::error!(connection = %name, error = %chain(&error), "a connection ended");
        }
    })
}

/// Whether a sink is one of a dataflow's destinations', perhaps behind a buffer.
fn writes_to(plan: &Plan, buffers: &Buffers, endpoint: &str, sink: &RunningSink) -> bool {
    buffers.contains_key(endpoint) || plan.destinations.iter().any(|it| Arc::ptr_eq(&it.sink, &sink.queue))
}

/// What is seen of a dataflow now.
fn facts<'a>(
    plan: &Plan,
    sources: &'a [RunningSource],
    sinks: impl Iterator<Item = (&'a String, &'a RunningSink)>,
    buffers: &Buffers,
) -> Facts<'a> {
    let end = |name, status: &Option<Arc<Status>>| End { name, state: status.as_ref().map(|it| it.state()) };
    Facts {
        health: plan.health(),
        sources: sources.iter().map(|source| end(source.name.as_str(), &source.status)).collect(),
        sinks: sinks
            .filter(|(endpoint, sink)| writes_to(plan, buffers, endpoint, sink))
            .map(|(endpoint, sink)| end(endpoint.as_str(), &sink.status))
            .collect(),
        faults: plan.operators().map(|operator| operator.stats.faults.get()).sum(),
        rejected: plan.stats.rejected.get(),
    }
}

fn server_status(ServerStatus { address, state, values }: ServerStatus) -> Value {
    json!({ "address": address, "connection": state, "counters": counters(values) })
}

fn tenant_status(name: &str, running: &RunningTenant) -> Value {
    let state = |status: &Option<Arc<Status>>| status.as_ref().map(|status| status.state().to_string());
    let traffic = |status: &Option<Arc<Status>>| status.as_ref().map(|status| counters(status.values()));
    let dataflows = running.dataflows.iter().map(|(flow, it)| {
        let operators = it.plan.operators().map(|operator| {
            let fused = operator.fused.map(|Parts { map, provider }| {
                json!({ "map": map.short(), "provider": provider.short() })
            });
            json!({
                "name": operator.name, "component": operator.digest_short(), "fused": fused,
                "counters": counters(operator.stats.values()), "metrics": metrics(operator),
            })
        });
        let sources = it.sources.iter().map(|source| {
            let lag = source.status.as_ref().and_then(|status| status.lag());
            json!({
                "name": source.name, "connection": state(&source.status), "lag": lag,
                "counters": traffic(&source.status),
            })
        });
        let health = it.plan.health();
        let buffers = it.buffers.iter().map(|(endpoint, RunningBuffer { status, .. })| {
            let (bytes, writes) = (status.bytes.load(Ordering::Relaxed), status.writes.load(Ordering::Relaxed));
            let is_full = status.is_full.load(Ordering::Relaxed);
            json!({ "endpoint": endpoint, "bytes": bytes, "writes": writes, "full": is_full })
        });
        json!({
            "name": flow, "state": health.name(), "cause": health.cause(), "healthState": it.health.to_json(), "counters": counters(it.plan.stats.values()),
            "waitingDeliveries": it.queue.len(), "buffers": buffers.collect::<Vec<_>>(),
            "operators": operators.collect::<Vec<_>>(), "sources": sources.collect::<Vec<_>>(),
        })
    });
    let sinks = running.all_sinks().map(|(endpoint, sink)| {
        let (writes, bytes) = sink.queue.depth();
        json!({ "endpoint": endpoint, "connection": state(&sink.status), "counters": traffic(&sink.status), "waitingWrites": writes, "waitingBytes": bytes })
    });
    let commands = running.commands.iter().map(|(endpoint, it)| {
        json!({
            "endpoint": endpoint, "connection": it.status.state().to_string(),
            "counters": counters(it.status.values()),
        })
    });
    let inference = running.tenant.has_inference().map(|inference| counters(inference.values()));
    let keys = &running.tenant.keys;
    let usage = keys.usage().map(|usage| json!({ "keys": usage.keys, "bytes": usage.bytes }));
    let mut status = json!({
        "state": usage, "stateRefused": keys.refused(),
        "name": name, "shard": running.shard, "inFlightBytes": running.tenant.ledger.bytes_in_flight(),
        "instances": running.tenant.instances.load(std::sync::atomic::Ordering::Relaxed),
        "dataflows": dataflows.collect::<Vec<_>>(), "sinks": sinks.collect::<Vec<_>>(),
        "used": counters(running.tenant.stats.values()),
        "commands": commands.collect::<Vec<_>>(), "calls": counters(running.tenant.calls.values()),
        "inference": inference, "deadLetters": counters(running.tenant.letters.values()),
    });
    let watched = running.watch.to_json(&running.tenant);
    if let (Value::Object(status), Value::Object(watched)) = (&mut status, watched) {
        status.extend(watched);
    }
    status
}

/// What the operator itself reports.
fn metrics(operator: &Operator) -> Vec<Value> {
    let series = operator.metrics.read().into_iter();
    let value = |series: Series| match series.reading {
        Reading::Counter(count) => json!({ "name": series.name, "labels": series.labels, "count": count }),
        Reading::Histogram { count, sum, min, max } => json!({
            "name": series.name, "labels": series.labels, "count": count, "sum": sum, "min": min, "max": max,
        }),
    };
    series.map(value).collect()
}

fn counters(values: Vec<(&'static str, u64)>) -> Value {
    values
        .into_iter()
        .map(|(name, value)| (name.to_owned(), Value::from(value)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// What they hold stays on disk.
async fn end_buffers(buffers: Buffers) {
    for (endpoint, RunningBuffer { front, mut task, .. }) in buffers {
        front.close();
        if tokio::time::timeout(DRAIN, &mut task).await.is_err() {
            tracing::warn!(endpoint, "the disk does not take what a buffer has: it is delivered again");
            task.abort();
        }
    }
}

async fn end_sinks(sinks: BTreeMap<String, RunningSink>) {
    for (endpoint, sink) in sinks {
        sink.queue.close();
        let mut task = sink.task;
        if tokio::time::timeout(DRAIN, &mut task).await.is_err() {
            tracing::warn!(endpoint, "a sink did not finish; what it holds is delivered again");
            task.abort();
        }
    }
}

/// The process that runs a tenant's models, if there is one, ends.
fn end_models(tenant: &Tenant) {
    if let Some(inference) = tenant.has_inference() {
        inference.close();
    }
}

/// What was asked and is not answered yet is cancelled.
async fn end_commands(commands: BTreeMap<String, RunningCommands>) {
    for RunningCommands { door, mut task, .. } in commands.into_values() {
        door.close();
        if tokio::time::timeout(DRAIN, &mut task).await.is_err() {
            task.abort();
        }
    }
}

/// Loads a component that was compiled before, and keeps it, while it is taken apart:
/// these three are most of the time of an apply that brings one component.
fn begin_ahead(components: &Components, store: &Store, data: &Path) -> IsNew {
    let (components, store, data) = (components.clone(), store.clone(), data.to_owned());
    Box::new(move |engine, digest, bytes| {
        // First what waits for the disk and leaves the cores to the others.
        let (store, data, bytes) = (store.clone(), data.clone(), bytes.clone());
        task::spawn_blocking(move || store.stage_ahead(&data, digest, &bytes));
        components.load_ahead(engine, digest);
    })
}

/// The store of a data folder whose host does not run: it starts once this is dropped.
pub fn stored(data: &Path) -> Result<Store, HostError> {
    open_data(data)?;
    Ok(Store::open(&data.join("store"))?)
}

/// The site that was applied last to the host of a data folder, which does not run.
pub fn applied_site(data: &Path) -> Result<Option<(Option<Site>, Diagnostics)>, HostError> {
    let store = stored(data)?;
    let Some((dir, home)) = store.lay_out_applied(data)? else { return Ok(None) };
    let (site, diagnostics) = Site::load(&dir);
    Ok(Some((site.map(|site| Site { home, ..site }), diagnostics)))
}

/// Queues that nobody reads, for a plan that is only tried.
fn dummy_sinks(dataflow: &DataflowSite) -> BTreeMap<String, Arc<SinkQueue>> {
    let nodes = dataflow.dataflow.nodes.iter();
    let endpoints = nodes.filter_map(|node| match &node.kind {
        FlowNodeKind::Destination { endpoint, .. } => {
            Some((endpoint.text.clone(), SinkQueue::new(SINK_BYTES_MAX)))
        }
        _ => None,
    });
    endpoints.collect()
}

/// A name for a host that was given none: part of client ids and of time stamps.
fn draw_name() -> String {
    format!("host-{:08x}", rand::rng().random::<u32>())
}

/// Makes the data folder, or checks that it is ours.
fn open_data(path: &Path) -> Result<(), HostError> {
    let error = |source| HostError::Data { path: path.to_owned(), source };
    std::fs::create_dir_all(path).map_err(error)?;
    let version = path.join("VERSION");
    match std::fs::read_to_string(&version) {
        Ok(text) => {
            let found =
                text.trim().parse().map_err(|_| error(io::Error::other("its VERSION is no number")))?;
            if found > DATA_VERSION {
                return Err(HostError::Newer { path: path.to_owned(), found, known: DATA_VERSION });
            }
            Ok(())
        }
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => {
            std::fs::write(&version, format!("{DATA_VERSION}\n")).map_err(error)
        }
        Err(other) => Err(error(other)),
    }
}
