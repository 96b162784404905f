//! The bare wasmtime call that the host is compared with: same engine, same
//! component, same batch, nothing around it.

use std::{
    pin::pin,
    task::{Context, Poll, Waker},
};

use tidegate::batch::Batch;
use wasmtime::{
    Engine, Store,
    component::{Component, Linker, ResourceTable},
};
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

/// More than any call uses.
const FUEL: u64 = u64::MAX / 2;

macro_rules! bare_call {
    ($(#[$doc:meta])* $name:ident, $module:ident, $world:literal, $type:ident, $exports:ident) => {
        mod $module {
            wasmtime::component::bindgen!({
                path: "../wit/tidegate-operator", world: $world, exports: { default: async },
            });
        }

        $(#[$doc])*
        pub struct $name {
            store: Store<State>,
            bindings: $module::$type,
            metered: bool,
            entries: Vec<u64>,
            arena: Vec<u8>,
        }

        impl $name {
            /// Instantiates the component and runs `init`.
            pub fn new(engine: &Engine, bytes: &[u8], properties: &[(&str, &str)], batch: &Batch) -> anyhow::Result<Self> {
                use $module::tidegate::operator::types::Configuration;
                let component = Component::new(engine, bytes)?;
                let mut linker = Linker::new(engine);
                wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
                let mut store = Store::new(engine, State::new());
                // An engine without metering refuses both.
                let metered = store.set_fuel(FUEL).is_ok();
                // Nobody ends an epoch of an engine that has them.
                store.set_epoch_deadline(1);
                if metered {
                    store.fuel_async_yield_interval(Some(tidegate::guest::engine::SLICE_FUEL))?;
                }
                let bindings = finish($module::$type::instantiate_async(&mut store, &component, &linker))?;
                let properties = properties.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
                let configuration = Configuration { properties, schemas: Vec::new() };
                let exports = bindings.$exports();
                finish(exports.call_init(&mut store, &configuration))?.map_err(anyhow::Error::msg)?;
                let entries = bytemuck::cast_slice(&batch.entries).to_vec();
                Ok($name { store, bindings, metered, entries, arena: batch.arena.to_vec() })
            }

            /// One call of `process`; its result is dropped.
            pub fn call(&mut self) -> anyhow::Result<()> {
                let $name { store, bindings, metered, entries, arena } = self;
                if *metered {
                    store.set_fuel(FUEL)?;
                }
                finish(bindings.$exports().call_process(store, entries, arena))?;
                Ok(())
            }
        }
    };
}

bare_call!(
    /// A filter, called bare.
    BareFilter, filter, "filter-operator", FilterOperator, tidegate_operator_filter
);
bare_call!(
    /// A map, called bare.
    BareMap, map, "map-operator", MapOperator, tidegate_operator_map
);

/// Making an instance of a filter and running its `init`, bare.
pub struct BareStart {
    engine: Engine,
    pre: filter::FilterOperatorPre<State>,
    properties: Vec<(String, String)>,
}

impl BareStart {
    pub fn new(engine: &Engine, bytes: &[u8], properties: &[(&str, &str)]) -> anyhow::Result<Self> {
        let component = Component::new(engine, bytes)?;
        let mut linker = Linker::new(engine);
        wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
        let pre = filter::FilterOperatorPre::new(linker.instantiate_pre(&component)?)?;
        let properties = properties.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        Ok(BareStart { engine: engine.clone(), pre, properties })
    }

    /// Makes an instance, runs `init` and drops it.
    pub fn call(&self) -> anyhow::Result<()> {
        use filter::tidegate::operator::types::Configuration;
        let mut store = Store::new(&self.engine, State::new());
        store.set_fuel(FUEL)?;
        let bindings = finish(self.pre.instantiate_async(&mut store))?;
        let configuration = Configuration { properties: self.properties.clone(), schemas: Vec::new() };
        finish(bindings.tidegate_operator_filter().call_init(&mut store, &configuration))?
            .map_err(anyhow::Error::msg)
    }
}

/// Polls a call of a guest to its end on this thread.
fn finish<T>(call: impl Future<Output = wasmtime::Result<T>>) -> anyhow::Result<T> {
    let mut call = pin!(call);
    loop {
        if let Poll::Ready(result) = call.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return Ok(result?);
        }
    }
}

pub struct State {
    wasi: WasiCtx,
    table: ResourceTable,
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl State {
    fn new() -> Self {
        State { wasi: WasiCtxBuilder::new().build(), table: ResourceTable::new() }
    }
}
