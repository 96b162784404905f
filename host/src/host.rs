//! `Host`: everything that runs, put together: shards, connections, dead letters,
//! tenants. Supervises the path and takes changes of the site as a whole or not at
//! all; knows nothing of commands or sockets.

mod oversize;

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};
use tokio::{sync::oneshot, task};

use crate::{
    clock::Clock,
    connector::{
        Sink, Source, broker,
        file::{AtEnd, FileError, FileOptions, FileSink, FileSource, Location},
        memory::{self, Answer},
        mqtt::{self, InflightMax, Qos, SinkSession, SourceOptions, SourceSession},
        status::Status,
        stop::{Farewell, Stop},
    },
    dataflow::{
        plan::{Health, Plan},
        shard::{Census, Command, DataflowId, Removed, Shard, ShardDoor, ShardSetup, install_panic_hook},
    },
    dead_letter::DeadLetters,
    deploy::{self, chain},
    guest::{
        compile::{Cache, Compiler},
        component::Components,
        engine::{self, EngineError, PoolSize},
        linker::Linkers,
    },
    queue::{Queue, SourceDoor},
    resource::{
        Diagnostics, EndpointKind, HostConfig, Site,
        dataflow::FlowNodeKind,
        endpoint::MqttSettings,
        host::BrokerPorts,
        site::{DataflowSite, TenantSite},
    },
    store::{Store, StoreError},
    tenant::Tenant,
    write::SinkQueue,
};

/// Bytes that may wait for one sink before its dataflows pause.
const SINK_BYTES_MAX: usize = 1 << 20;
/// How long a dataflow may take to empty when it is replaced or the host stops.
const DRAIN: Duration = Duration::from_secs(10);

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
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
}

/// The data folder's version; a newer one is refused.
const DATA_VERSION: u32 = 1;

pub struct Host {
    name: String,
    data: PathBuf,
    clock: Clock,
    components: Components,
    shards: Vec<(ShardDoor, JoinHandle<()>)>,
    dead_letters: DeadLetters,
    store: Store,
    tenants: BTreeMap<String, RunningTenant>,
    /// Where the embedded broker listens.
    broker: Option<broker::Ports>,
    rng: rand::rngs::StdRng,
}

struct RunningTenant {
    tenant: Arc<Tenant>,
    shard: usize,
    /// What its limits, grants and endpoints were.
    fingerprint: String,
    dataflows: BTreeMap<String, RunningDataflow>,
    sinks: BTreeMap<String, RunningSink>,
}

struct RunningDataflow {
    id: DataflowId,
    plan: Arc<Plan>,
    fingerprint: String,
    sources: Vec<RunningSource>,
}

struct RunningSource {
    name: String,
    stop: Stop,
    status: Option<Arc<Status>>,
    task: task::JoinHandle<()>,
}

struct RunningSink {
    queue: Arc<SinkQueue>,
    status: Option<Arc<Status>>,
    task: task::JoinHandle<()>,
}

/// A dataflow that is ready to be installed.
struct Prepared<'a> {
    site: &'a DataflowSite,
    components: deploy::Components,
    fingerprint: String,
}

/// What an apply changed, as names `tenant/dataflow`.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Applied {
    pub added: Vec<String>,
    pub replaced: Vec<String>,
    pub removed: Vec<String>,
    pub unchanged: usize,
}

impl Host {
    /// Starts threads, engine and, if configured, the embedded broker. `program` is
    /// this binary, run again to compile.
    pub fn start(config: &HostConfig, data: &Path, program: PathBuf) -> Result<Self, HostError> {
        install_panic_hook();
        open_data(data)?;
        let size = PoolSize { slots: config.slots, components: config.components, ..PoolSize::default() };
        size.check(PoolSize::maps_max())?;
        let engine = engine::running(size)?;
        let data_error = |source| HostError::Data { path: data.to_owned(), source };
        let cache =
            Cache::open(&data.join("compiled"), &engine, Compiler::Child { program }).map_err(data_error)?;
        let linkers = Arc::new(Linkers::new(&engine));
        let components = Components::threaded(engine, cache).map_err(HostError::Thread)?;
        let (dead_letters, _) = DeadLetters::disk(data.join("dead-letters")).map_err(data_error)?;
        let broker = config.broker.map(|BrokerPorts { v5, v311 }| broker::start(broker::Ports { v5, v311 }));
        let mut host = Host {
            name: config.name.clone().unwrap_or_else(|| "tidegate".into()),
            data: data.to_owned(),
            clock: Clock::System,
            components,
            shards: Vec::new(),
            dead_letters,
            store: Store::open(&data.join("store"))?,
            tenants: BTreeMap::new(),
            broker: broker.transpose()?,
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
            (config.slots as usize / shards, config.components as usize / shards);
        let (tx, rx) = std::sync::mpsc::channel();
        let run = move || {
            let setup =
                ShardSetup { clock, components, linkers, dead_letters, slots_max, components_max, seed };
            let (shard, door) = Shard::new(setup);
            // The starter waits for it, unless it is gone itself.
            if tx.send(door).is_ok() {
                shard.run();
            }
        };
        let thread = std::thread::Builder::new()
            .name(format!("shard-{index}"))
            .spawn(run)
            .map_err(HostError::Thread)?;
        let door = rx.recv().map_err(|_| HostError::Thread(io::Error::other("the shard ended at once")))?;
        self.shards.push((door, thread));
        Ok(())
    }

    /// Ports of the embedded broker.
    pub fn broker(&self) -> Option<broker::Ports> {
        self.broker
    }

    /// Runs what the site says: added dataflows start, removed ones drain, changed
    /// ones are replaced. With an error anywhere nothing changes.
    pub async fn apply(&mut self, site: &Site) -> Result<(Applied, Diagnostics), Diagnostics> {
        let mut diagnostics = Diagnostics::default();
        let mut prepared: BTreeMap<&str, Vec<Prepared<'_>>> = BTreeMap::new();
        for tenant in &site.tenants {
            let all = prepared.entry(&tenant.name).or_default();
            for dataflow in tenant.dataflows.iter().filter(|it| it.dataflow.enabled) {
                let cache = self.components.cache();
                let components =
                    task::block_in_place(|| deploy::admit(tenant, dataflow, Some(cache), &mut diagnostics));
                let fingerprint = deploy::fingerprint(dataflow, &components);
                all.push(Prepared { site: dataflow, components, fingerprint });
            }
        }
        if diagnostics.has_errors() {
            return Err(diagnostics);
        }
        self.try_all(site, &prepared, &mut diagnostics).await;
        if diagnostics.has_errors() {
            return Err(diagnostics);
        }
        let mut applied = Applied::default();
        self.remove_gone(site, &prepared, &mut applied).await;
        for tenant in &site.tenants {
            let dataflows = prepared.remove(tenant.name.as_str()).unwrap_or_default();
            self.run_tenant(site, tenant, dataflows, &mut applied).await;
        }
        Ok((applied, diagnostics))
    }

    /// Runs `init` of everything new on instances that are thrown away.
    async fn try_all(
        &mut self,
        site: &Site,
        prepared: &BTreeMap<&str, Vec<Prepared<'_>>>,
        diagnostics: &mut Diagnostics,
    ) {
        for tenant in &site.tenants {
            let running = self.tenants.get(&tenant.name);
            let shard = running.map(|running| running.shard).unwrap_or_default();
            let trial = Tenant::new(&tenant.name, tenant.limits.clone());
            for it in prepared.get(tenant.name.as_str()).into_iter().flatten() {
                let name = &it.site.dataflow.name;
                let same = |old: &RunningDataflow| old.fingerprint == it.fingerprint;
                if running.and_then(|running| running.dataflows.get(&name.text)).is_some_and(same) {
                    continue;
                }
                let sinks = dummy_sinks(it.site);
                let plan = deploy::plan(&trial, tenant, it.site, &it.components, &sinks);
                let operators = plan.operators().cloned().collect();
                let (reply, result) = oneshot::channel();
                self.shards[shard].0.send(Command::Try { operators, reply });
                let result = result.await.unwrap_or_else(|_| Err("the shard ended".into()));
                if let Err(cause) = result {
                    let message = format!("the dataflow `{}/{}` does not start", tenant.name, name.text);
                    diagnostics.error("dataflow/init", name.place.clone(), message, cause);
                }
            }
        }
    }

    async fn remove_gone(
        &mut self,
        site: &Site,
        prepared: &BTreeMap<&str, Vec<Prepared<'_>>>,
        applied: &mut Applied,
    ) {
        let names: Vec<String> = self.tenants.keys().cloned().collect();
        for name in names {
            let stays = site.tenants.iter().find(|tenant| tenant.name == name);
            let unchanged =
                stays.is_some_and(|it| self.tenants[&name].fingerprint == self.tenant_fingerprint(site, it));
            let wanted = prepared.get(name.as_str());
            let mut running = self.tenants.remove(&name).expect("its name is a key");
            let mut kept = BTreeMap::new();
            for (flow, dataflow) in std::mem::take(&mut running.dataflows) {
                let same = wanted.into_iter().flatten().find(|it| it.site.dataflow.name.text == flow);
                match same {
                    Some(same) if unchanged && same.fingerprint == dataflow.fingerprint => {
                        kept.insert(flow, dataflow);
                    }
                    other => {
                        let full = format!("{name}/{flow}");
                        let farewell = if other.is_some() { Farewell::UntilLater } else { Farewell::ForGood };
                        self.end_dataflow(running.shard, dataflow, farewell).await;
                        if other.is_some() { &mut applied.replaced } else { &mut applied.removed }.push(full);
                    }
                }
            }
            running.dataflows = kept;
            if unchanged {
                self.tenants.insert(name, running);
            } else {
                end_sinks(running.sinks).await;
            }
        }
    }

    /// All that a tenant's dataflows share and that no running one can change.
    fn tenant_fingerprint(&self, site: &Site, tenant: &TenantSite) -> String {
        let grants: Vec<_> =
            tenant.grants.iter().map(|it| (&it.endpoint, site.endpoints.get(&it.endpoint), it)).collect();
        format!("{:?} {} {grants:?}", tenant.limits, tenant.world.text)
    }

    async fn run_tenant(
        &mut self,
        site: &Site,
        tenant: &TenantSite,
        dataflows: Vec<Prepared<'_>>,
        applied: &mut Applied,
    ) {
        let fingerprint = self.tenant_fingerprint(site, tenant);
        let mut running = match self.tenants.remove(&tenant.name) {
            Some(running) => running,
            None => RunningTenant {
                tenant: Tenant::new(&tenant.name, tenant.limits.clone()),
                shard: self.place().await,
                fingerprint,
                dataflows: BTreeMap::new(),
                sinks: BTreeMap::new(),
            },
        };
        for prepared in dataflows {
            let name = prepared.site.dataflow.name.text.clone();
            if running.dataflows.contains_key(&name) {
                applied.unchanged += 1;
                continue;
            }
            self.open_sinks(site, &mut running, prepared.site);
            let sinks = running.sinks.iter().map(|(name, sink)| (name.clone(), sink.queue.clone())).collect();
            let plan =
                Arc::new(deploy::plan(&running.tenant, tenant, prepared.site, &prepared.components, &sinks));
            let (reply, installed) = oneshot::channel();
            self.shards[running.shard].0.send(Command::Install { plan: plan.clone(), reply });
            let Ok((id, queue)) = installed.await else {
                tracing::error!(dataflow = %plan.name(), "its shard has ended");
                continue;
            };
            let sources = self.open_sources(site, &running, prepared.site, &plan, &queue);
            let full = plan.name();
            tracing::info!(dataflow = %full, shard = running.shard, "dataflow runs");
            if !applied.replaced.contains(&full) {
                applied.added.push(full);
            }
            running
                .dataflows
                .insert(name, RunningDataflow { id, plan, fingerprint: prepared.fingerprint, sources });
        }
        self.tenants.insert(tenant.name.clone(), running);
    }

    /// The less busy of two shards drawn at random, by dataflows. A tenant lives on
    /// one shard, so that its weight and its instances are counted in one place.
    async fn place(&mut self) -> usize {
        let shards = self.shards.len();
        let (one, other) = (self.rng.random_range(0..shards), self.rng.random_range(0..shards));
        let load = |shard: usize| {
            self.tenants.values().filter(|it| it.shard == shard).map(|it| it.dataflows.len()).sum::<usize>()
        };
        if load(one) <= load(other) { one } else { other }
    }

    fn open_sinks(&mut self, site: &Site, running: &mut RunningTenant, dataflow: &DataflowSite) {
        for node in &dataflow.dataflow.nodes {
            let FlowNodeKind::Destination { endpoint, .. } = &node.kind else { continue };
            if running.sinks.contains_key(&endpoint.text) {
                continue;
            }
            let queue = SinkQueue::new(SINK_BYTES_MAX);
            let mut status = None;
            let sink = match &site.endpoints[&endpoint.text] {
                EndpointKind::Mqtt(settings) => {
                    let id = mqtt::sink_client_id(&self.name, &running.tenant.name, &endpoint.text);
                    let session = SinkSession::new(self.mqtt_settings(settings, id), queue.clone());
                    status = Some(mqtt::Session::status(&session).clone());
                    Ok(Sink::Mqtt(settings.address.clone(), Box::new(session)))
                }
                EndpointKind::Memory => {
                    Ok(Sink::Memory(memory::sink(queue.clone(), Box::new(|_| Answer::Discard)).0))
                }
                EndpointKind::File { path } => {
                    FileSink::open(Location::Path(site.dir.join(path)), queue.clone()).map(Sink::File)
                }
            };
            let name = format!("{}/{}", running.tenant.name, endpoint.text);
            let clock = self.clock.clone();
            let task = spawn_end(name, async move { sink?.run(clock).await });
            running.sinks.insert(endpoint.text.clone(), RunningSink { queue, status, task });
        }
    }

    fn open_sources(
        &mut self,
        site: &Site,
        running: &RunningTenant,
        dataflow: &DataflowSite,
        plan: &Arc<Plan>,
        queue: &Arc<Queue>,
    ) -> Vec<RunningSource> {
        let mut sources = Vec::new();
        for node in &dataflow.dataflow.nodes {
            let FlowNodeKind::Source { endpoint, topics } = &node.kind else { continue };
            let index = sources.len() as u32;
            let door = SourceDoor::new(index, queue.clone(), running.tenant.ledger.clone());
            let stop = Stop::default();
            let name = &node.name.text;
            let mut status = None;
            let source = match &site.endpoints[&endpoint.text] {
                EndpointKind::Mqtt(settings) => {
                    let id = mqtt::source_client_id(&self.name, &running.tenant.name, &plan.dataflow, name);
                    let options = SourceOptions {
                        filters: topics.iter().map(|(filter, _)| filter.clone()).collect(),
                        payload_bytes_max: running.tenant.limits.payload_bytes_max as usize,
                        node: self.name.clone(),
                        oversize: oversize::bury(
                            plan.clone(),
                            name.clone(),
                            self.dead_letters.clone(),
                            self.clock.clone(),
                        ),
                        stop: stop.clone(),
                    };
                    let session = SourceSession::new(self.mqtt_settings(settings, id), options, door);
                    status = Some(mqtt::Session::status(&session).clone());
                    Ok(Source::Mqtt(settings.address.clone(), Box::new(session)))
                }
                // Nothing ever comes from memory but what a program puts there.
                EndpointKind::Memory => Ok(Source::Memory(memory::source(door, stop.clone()).0)),
                EndpointKind::File { path } => {
                    self.file_source(&site.dir.join(path), plan, name, stop.clone(), door)
                }
            };
            let full = format!("{}/{name}", plan.name());
            let clock = self.clock.clone();
            let task = spawn_end(full, async move { source?.run(clock).await });
            sources.push(RunningSource { name: name.clone(), stop, status, task });
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
    ) -> Result<Source, FileError> {
        let key = format!("{}/{node}", plan.name());
        let position = self.store.position(&key).unwrap_or_else(|error| {
            tracing::error!(source = %key, error = %chain(&error), "its position is lost: reading from the beginning");
            0
        });
        let store = self.store.clone();
        let options = FileOptions {
            location: Location::Path(path.to_owned()),
            position,
            at_end: AtEnd::Follow,
            node: self.name.clone(),
            line_bytes_max: 2 * plan.tenant.limits.payload_bytes_max as usize,
            payload_bytes_max: plan.tenant.limits.payload_bytes_max as usize,
            settled: Box::new(move |position| {
                if let Err(error) = store.set_position(&key, position) {
                    tracing::error!(source = %key, error = %chain(&error), "cannot keep its position");
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
        FileSource::open(options, door).map(|source| Source::File(Box::new(source)))
    }

    fn mqtt_settings(&mut self, settings: &MqttSettings, id: String) -> mqtt::Settings {
        let embedded = self.broker.is_some_and(|ports| settings.address.ends_with(&format!(":{}", ports.v5)));
        mqtt::Settings {
            keep_alive: settings.keep_alive,
            session_expiry: settings.session_expiry,
            qos: if settings.qos == 0 { Qos::AtMostOnce } else { Qos::AtLeastOnce },
            inflight_max: InflightMax::nearest(settings.inflight_max.into()),
            seed: self.rng.random(),
            ..mqtt::Settings::new(if embedded { broker::client_id(&id) } else { id })
        }
    }

    async fn end_dataflow(&self, shard: usize, dataflow: RunningDataflow, farewell: Farewell) {
        let RunningDataflow { id, plan, sources, .. } = dataflow;
        sources.iter().for_each(|source| source.stop.stop(farewell));
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
        self.shards[shard].0.send(Command::Remove {
            dataflow: id,
            drain: if drained { DRAIN } else { Duration::ZERO },
            reply,
        });
        let removed = removed.await.unwrap_or(Removed::Abandoned);
        tasks.iter().for_each(|task| task.abort());
        tracing::info!(dataflow = %plan.name(), ?removed, "dataflow ended");
    }

    /// Stops taking, drains, settles, closes.
    pub async fn shut_down(mut self) {
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
                self.end_dataflow(running.shard, dataflow, Farewell::UntilLater).await;
            }
            end_sinks(running.sinks).await;
        }
        if let Err(error) = self.store.flush() {
            tracing::error!(error = %chain(&error), "positions of files may be lost");
        }
        for (door, thread) in self.shards.drain(..) {
            door.send(Command::Stop);
            if thread.join().is_err() {
                tracing::error!("a shard had panicked");
            }
        }
    }

    /// Live state, for `status`; of one tenant or of all.
    pub async fn status(&self, tenant: Option<&str>) -> Value {
        let mut shards = Vec::new();
        for (door, _) in &self.shards {
            let (reply, census) = oneshot::channel();
            door.send(Command::Census { reply });
            let Census { dataflows, instances, instances_idle } = census.await.unwrap_or_default();
            shards.push(json!({ "dataflows": dataflows, "instances": instances, "idle": instances_idle }));
        }
        let tenants = self.tenants.iter().filter(|(name, _)| tenant.is_none_or(|wanted| wanted == *name));
        let tenants: Vec<_> = tenants.map(|(name, running)| tenant_status(name, running)).collect();
        let ports = self.broker.map(|ports| json!({ "v5": ports.v5, "v311": ports.v311 }));
        json!({
            "host": self.name, "data": self.data, "broker": ports, "shards": shards,
            "componentsLoaded": self.components.loaded_count(),
            "components": counters(self.components.cache().stats().values()), "tenants": tenants,
        })
    }
}

/// Runs one end of a connector; what it cannot do is logged, since its other end
/// waits and `status` shows it.
fn spawn_end(
    name: String,
    end: impl Future<Output = Result<(), FileError>> + Send + 'static,
) -> task::JoinHandle<()> {
    task::spawn(async move {
        if let Err(error) = end.await {
            tracing::error!(connection = %name, error = %chain(&error), "a connection ended");
        }
    })
}

fn tenant_status(name: &str, running: &RunningTenant) -> Value {
    let state = |status: &Option<Arc<Status>>| status.as_ref().map(|status| status.state().to_string());
    let traffic = |status: &Option<Arc<Status>>| status.as_ref().map(|status| counters(status.values()));
    let dataflows = running.dataflows.iter().map(|(flow, it)| {
        let operators = it.plan.operators().map(|operator| {
            json!({ "name": operator.name, "component": operator.digest_short(), "counters": counters(operator.stats.values()) })
        });
        let sources = it.sources.iter().map(|source| {
            json!({ "name": source.name, "connection": state(&source.status), "counters": traffic(&source.status) })
        });
        let (health, cause) = match it.plan.health() {
            Health::Running => ("Running", None),
            Health::Failed { cause } => ("Failed", Some(cause)),
            Health::Draining => ("Draining", None),
        };
        json!({
            "name": flow, "state": health, "cause": cause, "counters": counters(it.plan.stats.values()),
            "operators": operators.collect::<Vec<_>>(), "sources": sources.collect::<Vec<_>>(),
        })
    });
    let sinks = running.sinks.iter().map(|(endpoint, sink)| {
        let (writes, bytes) = sink.queue.depth();
        json!({ "endpoint": endpoint, "connection": state(&sink.status), "counters": traffic(&sink.status), "waitingWrites": writes, "waitingBytes": bytes })
    });
    json!({
        "name": name, "shard": running.shard, "inFlightBytes": running.tenant.ledger.bytes_in_flight(),
        "instances": running.tenant.instances.load(std::sync::atomic::Ordering::Relaxed),
        "dataflows": dataflows.collect::<Vec<_>>(), "sinks": sinks.collect::<Vec<_>>(),
    })
}

fn counters(values: Vec<(&'static str, u64)>) -> Value {
    values
        .into_iter()
        .map(|(name, value)| (name.to_owned(), Value::from(value)))
        .collect::<serde_json::Map<_, _>>()
        .into()
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
