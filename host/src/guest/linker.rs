//! Linkers: one for each policy world, holding what it grants and nothing else.
//! Serves instantiation; what differs between tenants is in the store's data.

use std::{collections::HashMap, sync::Arc};

use wasmtime::{
    Engine, StoreContextMut,
    component::{
        Component, ComponentType, HasSelf, InstancePre, Lift, Linker, LinkerInstance, Lower, Resource,
        ResourceType, WasmStr,
    },
};
use wasmtime_wasi::{
    filesystem::{WasiFilesystem, WasiFilesystemView as _},
    p2::bindings::{cli, clocks, filesystem, random, sockets},
    sockets::{WasiSockets, WasiSocketsView as _},
};
use wasmtime_wasi_io::bindings::wasi::io;

use crate::guest::{
    Contract,
    aio::Buffer,
    command_invoker,
    engine::Engines,
    host_call::Interface,
    inference,
    log::Severity,
    metrics::{self, Labels, Sample},
    schema_registry,
    state::{GuestState, LISTED_BYTES},
    state_store,
    world::{Grant, InterfaceName, PolicyWorld},
};
use crate::resource::{EngineKind, PerEngine};

/// The linkers of all shipped worlds, for each engine.
pub struct Linkers {
    by_world: PerEngine<HashMap<String, Linker<GuestState>>>,
}

impl Linkers {
    /// Building them takes some hundred microseconds in all.
    pub fn new(engines: &Engines) -> Self {
        let linker = |kind, world| {
            linker_for(engines.of(kind), world).expect("every grant of a shipped world has an implementation")
        };
        let of = |kind| {
            let worlds = PolicyWorld::shipped().iter();
            worlds.map(|world| (world.name.clone(), linker(kind, world))).collect()
        };
        Linkers { by_world: PerEngine::by(of) }
    }

    /// The component linked with what a world grants. The error names the world,
    /// or what the component asks for and does not get.
    pub fn link(
        &self,
        engine: EngineKind,
        world: &Arc<str>,
        component: &Component,
    ) -> Result<InstancePre<GuestState>, Arc<str>> {
        let by_world = self.by_world.of(engine);
        let linker = by_world.get(&**world).ok_or_else(|| format!("no policy world is named `{world}`"))?;
        Ok(linker.instantiate_pre(component).map_err(|error| format!("{error:#}"))?)
    }
}

impl std::fmt::Debug for Linkers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Linkers").field("worlds", &self.by_world.fuel.keys()).finish()
    }
}

fn linker_for(engine: &Engine, world: &PolicyWorld) -> wasmtime::Result<Linker<GuestState>> {
    let mut linker = Linker::new(engine);
    for granted in world.granted() {
        let path = granted.interface.path.as_str();
        // Types alone need no definition.
        if granted.items.is_empty() && !path.starts_with("wasi:") {
            continue;
        }
        match granted.grant {
            Grant::Real => add_real(&mut linker, &granted.interface)?,
            Grant::Inert => add_inert(&mut linker, path)?,
        }
    }
    Ok(linker)
}

/// AIO's interfaces are the same in its preview, under the names of that.
fn add_real(linker: &mut Linker<GuestState>, interface: &InterfaceName) -> wasmtime::Result<()> {
    let instance = &mut linker.instance(&interface.to_string())?;
    match interface.path.as_str() {
        "wasi:nn/errors" => return inference::add_errors(instance),
        "wasi:nn/tensor" => return inference::add_tensor(instance),
        "wasi:nn/graph" => return inference::add_graph(instance),
        "wasi:nn/inference" => return inference::add_inference(instance),
        _ => {}
    }
    let ends = |package: Contract| interface.path.strip_prefix(package.package());
    match ends(Contract::Aio).or_else(|| ends(Contract::Preview)) {
        Some("/types") => add_types(instance),
        Some("/logger") => add_logger(instance),
        Some("/metrics") => add_metrics(instance),
        Some("/command-invoker") => command_invoker::add_to(instance),
        Some("/schema-registry") => schema_registry::add_to(instance),
        Some("/state-store") => state_store::add_to(instance),
        _ => Err(wasmtime::Error::msg(format!("`{interface}` has no real implementation"))),
    }
}

fn add_inert(linker: &mut Linker<GuestState>, path: &str) -> wasmtime::Result<()> {
    macro_rules! own {
        ($($interface:ident)::+) => {
            $($interface)::+::add_to_linker::<_, HasSelf<GuestState>>(linker, |state| state)
        };
    }
    match path {
        "wasi:io/error" => own!(io::error),
        "wasi:io/poll" => own!(io::poll),
        "wasi:io/streams" => own!(io::streams),
        "wasi:clocks/wall-clock" => own!(clocks::wall_clock),
        "wasi:clocks/monotonic-clock" => own!(clocks::monotonic_clock),
        "wasi:random/random" => own!(random::random),
        "wasi:random/insecure" => own!(random::insecure),
        "wasi:random/insecure-seed" => own!(random::insecure_seed),
        "wasi:cli/environment" => own!(cli::environment),
        "wasi:cli/exit" => own!(cli::exit),
        "wasi:cli/stdin" => own!(cli::stdin),
        "wasi:cli/stdout" => own!(cli::stdout),
        "wasi:cli/stderr" => own!(cli::stderr),
        "wasi:cli/terminal-input" => own!(cli::terminal_input),
        "wasi:cli/terminal-output" => own!(cli::terminal_output),
        "wasi:cli/terminal-stdin" => own!(cli::terminal_stdin),
        "wasi:cli/terminal-stdout" => own!(cli::terminal_stdout),
        "wasi:cli/terminal-stderr" => own!(cli::terminal_stderr),
        "wasi:sockets/ip-name-lookup" => own!(sockets::ip_name_lookup),
        other => add_inert_of_wasmtime(linker, other),
    }
}

/// Folders and sockets: wasmtime-wasi's, over a context that opens none of either,
/// so that every one of its functions that could wait is out of reach.
fn add_inert_of_wasmtime(linker: &mut Linker<GuestState>, path: &str) -> wasmtime::Result<()> {
    macro_rules! folder {
        ($interface:ident) => {
            filesystem::$interface::add_to_linker::<_, WasiFilesystem>(linker, GuestState::filesystem)
        };
    }
    macro_rules! socket {
        ($interface:ident) => {
            sockets::$interface::add_to_linker::<_, WasiSockets>(linker, GuestState::sockets)
        };
    }
    match path {
        "wasi:filesystem/types" => folder!(types),
        "wasi:filesystem/preopens" => folder!(preopens),
        "wasi:sockets/network" => {
            let options = sockets::network::LinkOptions::default();
            sockets::network::add_to_linker::<_, WasiSockets>(linker, &options, GuestState::sockets)
        }
        "wasi:sockets/instance-network" => socket!(instance_network),
        "wasi:sockets/tcp" => socket!(tcp),
        "wasi:sockets/tcp-create-socket" => socket!(tcp_create_socket),
        "wasi:sockets/udp" => socket!(udp),
        "wasi:sockets/udp-create-socket" => socket!(udp_create_socket),
        other => Err(wasmtime::Error::msg(format!("`{other}` has no inert implementation"))),
    }
}

fn add_types(types: &mut LinkerInstance<'_, GuestState>) -> wasmtime::Result<()> {
    types.resource(
        "buffer",
        ResourceType::host::<Buffer>(),
        |mut store: StoreContextMut<'_, GuestState>, rep| {
            store.data_mut().table.delete(Resource::<Buffer>::new_own(rep))?;
            Ok(())
        },
    )?;
    types.func_wrap_async(
        "[method]buffer.read",
        |mut store: StoreContextMut<'_, GuestState>, (buffer,): (Resource<Buffer>,)| {
            Box::new(async move {
                let state = store.data_mut();
                let bytes = state.table.get(&buffer)?.bytes().to_vec();
                state.charge_bytes_and_yield(Interface::Buffers, bytes.len() as u64).await?;
                Ok((bytes,))
            })
        },
    )
}

fn add_logger(logger: &mut LinkerInstance<'_, GuestState>) -> wasmtime::Result<()> {
    logger.func_wrap_async(
        "log",
        |mut store: StoreContextMut<'_, GuestState>,
         (severity, context, message): (Severity, WasmStr, WasmStr)| {
            Box::new(async move {
                let bytes = {
                    let (context, message) = (context.to_str(&store)?, message.to_str(&store)?);
                    store.data().log.line(severity, &context, &message);
                    (context.len() + message.len()) as u64
                };
                store.data_mut().charge_bytes_and_yield(Interface::Log, bytes).await
            })
        },
    )
}

#[derive(ComponentType, Lift)]
#[component(variant)]
enum CounterValue {
    #[component(name = "u64")]
    U64(u64),
}

#[derive(ComponentType, Lift)]
#[component(variant)]
enum HistogramValue {
    #[component(name = "f64")]
    F64(f64),
    #[component(name = "u64")]
    U64(u64),
}

#[derive(ComponentType, Lift)]
#[component(record)]
struct Label {
    key: String,
    value: String,
}

#[derive(ComponentType, Lower)]
#[component(variant)]
enum MetricsError {
    #[component(name = "incompatible-type")]
    IncompatibleType(String),
    #[component(name = "lock-error")]
    LockError(String),
}

/// AIO has two errors; what is not a clash of types is told as the other one.
fn told(result: Result<(), metrics::MetricsError>) -> (Result<(), MetricsError>,) {
    let error = |error: metrics::MetricsError| match error {
        metrics::MetricsError::IncompatibleType { .. } => MetricsError::IncompatibleType(error.to_string()),
        metrics::MetricsError::TooManySeries { .. } | metrics::MetricsError::TooLong => {
            MetricsError::LockError(error.to_string())
        }
    };
    (result.map_err(error),)
}

/// What a call of the interface carries: labels cost as much as names, and empty ones too
/// take time.
fn bytes_of(name: &str, labels: &Option<Vec<Label>>) -> u64 {
    let label = |Label { key, value }: &Label| LISTED_BYTES + key.len() + value.len();
    (name.len() + labels.iter().flatten().map(label).sum::<usize>()) as u64
}

fn labels(labels: Option<Vec<Label>>) -> Labels {
    labels.into_iter().flatten().map(|Label { key, value }| (key, value)).collect()
}

fn add_metrics(metrics: &mut LinkerInstance<'_, GuestState>) -> wasmtime::Result<()> {
    type Params<V> = (String, V, Option<Vec<Label>>);
    metrics.func_wrap_async(
        "add-to-counter",
        |mut store: StoreContextMut<'_, GuestState>,
         (name, CounterValue::U64(by), own): Params<CounterValue>| {
            Box::new(async move {
                let state = store.data_mut();
                state.charge_bytes_and_yield(Interface::Metrics, bytes_of(&name, &own)).await?;
                Ok(told(state.metrics.add_to_counter(&name, by, labels(own))))
            })
        },
    )?;
    metrics.func_wrap_async(
        "record-to-histogram",
        |mut store: StoreContextMut<'_, GuestState>, (name, value, own): Params<HistogramValue>| {
            Box::new(async move {
                let state = store.data_mut();
                state.charge_bytes_and_yield(Interface::Metrics, bytes_of(&name, &own)).await?;
                let sample = match value {
                    HistogramValue::F64(value) => Sample::Float(value),
                    HistogramValue::U64(value) => Sample::Integer(value),
                };
                Ok(told(state.metrics.record_to_histogram(&name, sample, labels(own))))
            })
        },
    )
}

#[cfg(test)]
mod tests;
