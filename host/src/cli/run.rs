//! `tidegate run`: one graph over JSON lines, with the same shard, guests and
//! settlement as a host's, then the end.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    process::ExitCode,
    sync::{Arc, Mutex},
    time::Duration,
};

use clap::Args;
use serde_json::json;
use tokio::sync::oneshot;

use super::{log_to_stderr, policy_of, print::err, report};
use crate::{
    clock::Clock,
    connector::{
        file::{AtEnd, FileOptions, FileSink, FileSource, Location},
        stop::Stop,
    },
    dataflow::{
        plan::{Health, Plan},
        shard::{Command, Shard, ShardDoor, ShardSetup, install_panic_hook},
        watermark::Timing,
        window::Keeping,
    },
    dead_letter::{DeadLetters, Record},
    deploy::{self, Ends, known::Known},
    guest::{
        compile::{Cache, Compiler},
        component::Components,
        engine::{Engines, PoolSize},
        linker::Linkers,
    },
    headers::Headers,
    queue::SourceDoor,
    resource::{
        Dataflow, Policy,
        dataflow::{FlowConnection, FlowNode, FlowNodeKind},
        graph::Setting,
        site::{self, DataflowSite, GraphSite, TenantSite},
        yaml::Text,
    },
    store::{Position, WindowSpace},
    tenant::Tenant,
    topic::TopicTemplate,
    write::SinkQueue,
};

#[derive(Args)]
pub struct RunArgs {
    /// The graph definition.
    graph: PathBuf,
    /// Folder with the graph's components: `NAME/TAG.wasm`, or `NAME.wasm`.
    #[arg(long, value_name = "DIR")]
    artifacts: PathBuf,
    /// JSON lines to read; `-` is standard input.
    #[arg(long, value_name = "F", default_value = "-")]
    input: String,
    /// Where results go as JSON lines; `-` is standard output.
    #[arg(long, value_name = "F", default_value = "-")]
    output: String,
    /// A parameter of the graph; may be given several times.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value)]
    set: Vec<(String, String)>,
    /// What a map is fused with, as `tidegate compose` would; may be given several times.
    #[arg(long, value_name = "OPERATION=ARTIFACT", value_parser = key_value)]
    provider: Vec<(String, String)>,
    /// `standard`, `large` (for Python and JavaScript), `inference` (for models), or a file
    /// with a Policy.
    #[arg(long, value_name = "P", default_value = "standard")]
    policy: PathBuf,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("there is no `=` in it")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// Name of the tenant, of the dataflow and of the endpoint of a run.
pub const NAME: &str = "run";

pub fn run(args: RunArgs, json: bool) -> anyhow::Result<ExitCode> {
    let setting =
        |(key, value): &(String, String)| Setting { key: key.clone(), value: value.clone(), place: None };
    let settings: Vec<_> = args.set.iter().map(setting).collect();
    let (graph, mut diagnostics) = site::load_graph(&args.graph, &args.artifacts, &settings, &args.provider);
    let policy = policy_of(&args.policy, &mut diagnostics);
    let (Some(graph), Some(policy)) = (graph, policy) else {
        report(&diagnostics, false);
        return Ok(ExitCode::FAILURE);
    };
    let tenant = tenant_under(&policy);
    let flow = around(graph);
    // Who else would tell why `init` refused, or what an operator says of a message?
    log_to_stderr("warn,sled=error");
    install_panic_hook();
    let engines = Engines::new(PoolSize::small(SLOTS))?;
    let compiler = Compiler::Child { program: std::env::current_exe()? };
    let cache = Cache::open(&cache_dir(), &engines, compiler)?;
    let admitted = deploy::admit(&tenant, &flow, &mut Known::default(), &mut diagnostics);
    deploy::check_memory(&tenant, [(&flow, &admitted)].into_iter(), &mut diagnostics);
    deploy::compile(&tenant, &flow, &admitted, &cache, &mut diagnostics);
    report(&diagnostics, false);
    if diagnostics.has_errors() {
        return Ok(ExitCode::FAILURE);
    }
    let sink = SinkQueue::new(1 << 20);
    let sinks = BTreeMap::from([(NAME.to_owned(), sink.clone())]);
    let running = Tenant::new(NAME, tenant.limits.clone());
    running.set_component_bytes(deploy::component_bytes([&admitted].into_iter()));
    let ends = Ends { endpoints: &BTreeMap::new(), sinks: &sinks, commands: None };
    let plan = Arc::new(deploy::plan(&running, &tenant, &flow, &admitted, WindowSpace::memory(), ends));
    let dead = Arc::new(Mutex::new(Vec::new()));
    let door = start_shard(Components::threaded(engines, cache)?, DeadLetters::Memory(dead.clone()))?;
    let problems = drive(&args, &door, &plan, &sink)?;
    summarise(&plan, &dead.lock().expect("no panic under this lock"), problems, json)
}

/// Slots of a run's pool, and components in memory.
const SLOTS: u32 = 64;

/// The only tenant of a run.
pub fn tenant_under(policy: &Policy) -> TenantSite {
    TenantSite {
        name: NAME.into(),
        policy: policy.name.clone(),
        world: policy.world.clone(),
        limits: policy.limits.clone(),
        grants: Vec::new(),
        schemas: None,
        dataflows: Vec::new(),
    }
}

/// A dataflow of one source, the graph, and one destination.
pub fn around(graph: GraphSite) -> DataflowSite {
    let place = graph.graph.operations[0].name.place.clone();
    let text = |text: &str| Text { text: text.to_owned(), place: place.clone() };
    let node = |name: &str, kind| FlowNode { name: text(name), kind };
    let artifact = text(&graph.graph.name);
    let topic = TopicTemplate::parse("${outputTopic}").expect("a fixed template is in form");
    let dataflow = Dataflow {
        name: text(NAME),
        enabled: true,
        pinned: false,
        timing: Timing::default(),
        keeping: Keeping::default(),
        providers: Vec::new(),
        commands: None,
        nodes: vec![
            node("input", FlowNodeKind::Source { endpoint: text(NAME), topics: Vec::new() }),
            node("graph", FlowNodeKind::Graph { artifact, settings: Vec::new() }),
            node(
                "output",
                FlowNodeKind::Destination {
                    endpoint: text(NAME),
                    topic,
                    at: text("${outputTopic}"),
                    headers: Headers::default(),
                },
            ),
        ],
        connections: vec![
            FlowConnection { from: 0, output: None, to: 1, schema: None },
            FlowConnection { from: 1, output: None, to: 2, schema: None },
        ],
    };
    DataflowSite { dataflow, graphs: BTreeMap::from([(1, graph)]) }
}

/// Compiled components are kept between runs, where the user's caches are.
pub fn cache_dir() -> PathBuf {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home);
    base.unwrap_or_else(std::env::temp_dir).join("tidegate/compiled")
}

fn start_shard(components: Components, dead_letters: DeadLetters) -> anyhow::Result<ShardDoor> {
    let (tx, rx) = std::sync::mpsc::channel();
    let linkers = Arc::new(Linkers::new(components.engines()));
    let runtime = Shard::runtime()?;
    std::thread::Builder::new().name("shard-0".into()).spawn(move || {
        let setup = ShardSetup {
            clock: Clock::System,
            components,
            linkers,
            dead_letters,
            slots_max: PoolSize::small(SLOTS).slots.map(|slots| slots as usize),
            components_max: SLOTS as usize,
            seed: rand::random(),
        };
        let (shard, door) = Shard::new(setup);
        if tx.send(door).is_ok() {
            shard.run(&runtime);
        }
    })?;
    Ok(rx.recv()?)
}

/// Reads all lines and waits until everything is settled; gives the number of lines
/// that are no messages.
fn drive(args: &RunArgs, door: &ShardDoor, plan: &Arc<Plan>, sink: &Arc<SinkQueue>) -> anyhow::Result<usize> {
    let operators = plan.operators().cloned().collect();
    let (reply, tried) = oneshot::channel();
    door.send(Command::Try { operators, reply });
    tried.blocking_recv()?.map_err(anyhow::Error::msg)?;
    let (reply, installed) = oneshot::channel();
    door.send(Command::Install { plan: plan.clone(), reply });
    let (dataflow, queue) = installed.blocking_recv()?;
    let problems = Arc::new(Mutex::new(0));
    let counted = problems.clone();
    let options = FileOptions {
        location: Location::parse(&args.input),
        position: Position::default(),
        at_end: AtEnd::Finish,
        node: NAME.into(),
        line_bytes_max: 2 * plan.tenant.limits.payload_bytes_max as usize,
        payload_bytes_max: plan.tenant.limits.payload_bytes_max as usize,
        settled: Box::new(|_| {}),
        problem: Box::new(move |line, error, _| {
            err!("line {line}: {error}");
            *counted.lock().expect("no panic under this lock") += 1;
        }),
        stop: Stop::default(),
    };
    let source = FileSource::open(options, SourceDoor::new(0, queue, plan.tenant.ledger.clone()))?;
    let writer = FileSink::open(Location::parse(&args.output), sink.clone())?;
    let writing = std::thread::spawn(move || writer.run());
    let reading = std::thread::spawn(move || source.run());
    while !reading.is_finished() {
        // A failed dataflow settles nothing any more, and its source waits for ever.
        if let Health::Failed { cause, .. } | Health::Quarantined { cause } = plan.health() {
            anyhow::bail!("{cause}");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    reading.join().map_err(|_| anyhow::anyhow!("reading the input panicked"))??;
    let (reply, removed) = oneshot::channel();
    door.send(Command::Remove { dataflow, drain: Duration::from_secs(60), reply });
    removed.blocking_recv()?;
    sink.close();
    writing.join().map_err(|_| anyhow::anyhow!("writing the output panicked"))??;
    let problems = *problems.lock().expect("no panic under this lock");
    Ok(problems)
}

fn summarise(plan: &Plan, dead: &[Record], problems: usize, json: bool) -> anyhow::Result<ExitCode> {
    let stats = &plan.stats;
    let (taken, given) = (stats.received.get(), stats.delivered.get());
    let (filtered, errors) = (stats.filtered.get(), stats.errors.get());
    if json {
        err!(
            "{}",
            json!({
                "in": taken, "out": given, "filtered": filtered, "errors": errors, "dead": dead.len(),
                "badLines": problems, "deadLetters": dead,
            })
        );
    } else {
        for record in dead {
            let payload: String = record.payload.clone().unwrap_or_default().chars().take(80).collect();
            err!("given up ({:?}, {}): {payload}", record.reason, record.detail);
        }
        err!("in {taken}, out {given}, filtered {filtered}, errors {errors}, dead {}", dead.len());
    }
    Ok(if dead.is_empty() && problems == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
