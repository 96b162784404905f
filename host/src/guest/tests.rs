//! What the tests of guests share: components made from WIT and text, and a store
//! to run one in.

use std::{
    io,
    sync::{Arc, LazyLock, Mutex},
    task::{Context, Poll, Waker},
};

use wasmtime::{
    Store,
    component::{Component, Instance},
};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::{LiftLowerAbi, ManglingAndAbi, Resolve, SizeAlign, Type, WorldId};

use crate::{
    clock::{Clock, VirtualClock},
    dataflow::timers::Timers,
    guest::{
        Contract, OperatorKind,
        engine::{Engines, PoolSize},
        linker::Linkers,
        packed::Exported,
        state::{Bounds, GuestState},
        world::WIT,
    },
    resource::{EngineKind, PerEngine},
};

pub const STANDARD: &str = "tidegate:policy/standard@0.1.0";
pub const PYTHON: &str = "tidegate:policy/python@0.1.0";

/// A component that imports and exports what a world says and traps when called.
/// `wit` is the body of the world.
pub fn dummy(wit: &str) -> Vec<u8> {
    dummy_with("", wit)
}

/// The same with packages of its own.
pub fn dummy_with(packages: &str, wit: &str) -> Vec<u8> {
    let (resolve, world) = resolve(packages, wit);
    let module = wit_component::dummy_module(&resolve, world, ManglingAndAbi::Legacy(LiftLowerAbi::Sync));
    encode(&resolve, world, module)
}

/// A component from a core module in text; `wit` is the body of its world.
pub fn component(wit: &str, wat: &str) -> Vec<u8> {
    let (resolve, world) = resolve("", wit);
    encode(&resolve, world, wat::parse_str(wat).expect("the text is a module"))
}

fn resolve(packages: &str, wit: &str) -> (Resolve, WorldId) {
    let mut resolve = WIT.resolve.clone();
    let text = format!("package test:guest;\n{packages}\nworld guest {{ {wit} }}");
    let package = resolve.push_source("guest.wit", &text).expect("the text is WIT");
    let world = resolve.packages[package].worlds["guest"];
    (resolve, world)
}

fn encode(resolve: &Resolve, world: WorldId, mut module: Vec<u8>) -> Vec<u8> {
    embed_component_metadata(&mut module, resolve, world, StringEncoding::UTF8, false).unwrap();
    ComponentEncoder::default().validate(true).module(&module).unwrap().encode().unwrap()
}

/// Bytes that a type of AIO's `types` takes in a guest's memory.
pub fn size_of_type(name: &str) -> usize {
    let mut sizes = SizeAlign::default();
    sizes.fill(&WIT.resolve).unwrap();
    let types = WIT.interface("wasm-graph:processor/types@1.1.0").unwrap();
    sizes.size(&Type::Id(types.types[name])).size_wasm32()
}

/// Memory, allocation and an accepting `init` for an operator of AIO's contract:
/// what is allocated for a call is free again after it.
pub fn aio_wat(interface: &str, imports: &str, process: &str) -> String {
    format!(
        r#"(module
            {imports}
            (memory (export "memory") 64)
            (global $top (mut i32) (i32.const 65536))
            (func $realloc (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
                (local $at i32)
                (local.set $at (i32.and (i32.add (global.get $top) (i32.const 7)) (i32.const -8)))
                (global.set $top (i32.add (local.get $at) (local.get 3)))
                (memory.copy (local.get $at) (local.get 0) (local.get 1))
                (local.get $at))
            (func (export "cabi_post_{interface}#process") (param i32)
                (global.set $top (i32.const 65536)))
            (func (export "{interface}#init") (param i32 i32 i32 i32) (result i32) (i32.const 1))
            (func (export "{interface}#process") {process})
        )"#
    )
}

/// Ample for what tests do.
static ENGINES: LazyLock<Engines> = LazyLock::new(|| {
    Engines::new(PoolSize { slots: PerEngine { fuel: 1, epoch: 1, large: 256 }, ..PoolSize::small(256) })
        .unwrap()
});

const KIND: EngineKind = EngineKind::Large;

/// One instance on a virtual clock.
pub struct Rig {
    pub store: Store<GuestState>,
    pub instance: Instance,
    component: Component,
    pub clock: Arc<VirtualClock>,
    pub timers: Timers,
}

/// What a rig's instance may use; ample for what tests do.
pub const BOUNDS: Bounds = Bounds { memory_bytes_max: 16 << 20, hostcall_bytes_max: 16 << 20 };

impl Rig {
    /// Instantiates under a policy world; the error is the linker's.
    pub fn start(bytes: &[u8], world: &str, seed: u64) -> Result<Self, String> {
        Self::bounded(bytes, world, seed, BOUNDS)
    }

    pub fn bounded(bytes: &[u8], world: &str, seed: u64, bounds: Bounds) -> Result<Self, String> {
        let component = Component::new(ENGINES.of(KIND), bytes).unwrap();
        let pre = Linkers::new(&ENGINES)
            .link(KIND, &world.into(), &component)
            .map_err(|error| error.to_string())?;
        let (clock, timers) = (Arc::new(VirtualClock::default()), Timers::default());
        let state = GuestState::new(
            "acme/flow/op",
            bounds,
            Clock::Virtual(clock.clone()),
            timers.clone(),
            seed,
            crate::tenant::Tenant::new("acme", Default::default()),
            Arc::default(),
        );
        let mut store = Store::new(ENGINES.of(KIND), state);
        GuestState::configure(&mut store);
        store.set_fuel(1_000_000_000).unwrap();
        store.fuel_async_yield_interval(Some(10_000)).unwrap();
        let instance = ready(pre.instantiate_async(&mut store)).map_err(|error| format!("{error:#}"))?;
        Ok(Rig { store, instance, component, clock, timers })
    }

    /// Where the instance has an operator.
    pub fn exported(&self, contract: Contract, kind: OperatorKind) -> Exported {
        Exported::find(&self.component, &contract.interface(kind)).unwrap()
    }
}

/// The result of a future that waits for nothing but its own yields.
pub fn ready<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    for _ in 0..1_000_000 {
        if let Poll::Ready(ready) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return ready;
        }
    }
    panic!("it waits");
}

/// What `body` logs, a line an event.
pub fn logged(body: impl FnOnce()) -> String {
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_env_filter("guest=trace")
        .without_time()
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::with_default(subscriber, body);
    String::from_utf8(lines.0.lock().unwrap().clone()).unwrap()
}
