//! The Host resource: how large the host is and where it keeps things. Everything
//! has a default.

use std::path::PathBuf;

use crate::resource::{
    EngineKind, PerEngine, PoolLayout,
    diagnostic::Diagnostics,
    quantity,
    yaml::{Object, Text},
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostConfig {
    /// Part of the ids of connections; drawn once if none is given.
    pub name: Option<String>,
    pub shards: usize,
    /// Instances live at once: one takes a slot for each of its linear memories.
    pub slots: PerEngine<u32>,
    pub pool: PoolLayout,
    /// Components loaded at once.
    pub components: u32,
    /// Bytes of compiled components that are kept on disk, beside those that run.
    pub compiled_bytes_max: u64,
    pub broker: Option<BrokerPorts>,
    /// Below the site folder unless absolute.
    pub data: PathBuf,
}

/// Ports of the embedded broker; 0 takes a free one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BrokerPorts {
    pub v5: u16,
    pub v311: u16,
}

impl Default for HostConfig {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
        HostConfig {
            name: None,
            shards: (cores - 1).max(1),
            slots: PerEngine { fuel: 6144, epoch: 2048, large: 32 },
            pool: PoolLayout::default(),
            components: 2000,
            compiled_bytes_max: 2 << 30,
            broker: None,
            data: ".tidegate".into(),
        }
    }
}

impl HostConfig {
    /// Most shards: one a core of the largest machine that this is made for.
    const SHARDS_MAX: u64 = 64;

    /// Reads a Host's `spec`.
    pub fn read(name: Text, mut spec: Object<'_>, diagnostics: &mut Diagnostics) -> Self {
        let mut host = HostConfig { name: Some(name.text), ..HostConfig::default() };
        if let Some(shards) = number(&mut spec, "shards", 1..=Self::SHARDS_MAX, diagnostics) {
            host.shards = shards as usize;
        }
        if let Some(mut slots) = spec.object("slots", diagnostics) {
            for kind in EngineKind::ALL {
                let most = if kind == EngineKind::Large { 10_000 } else { 1_000_000 };
                if let Some(count) = number(&mut slots, kind.name(), 1..=most, diagnostics) {
                    *host.slots.of_mut(kind) = count as u32;
                }
            }
            slots.finish(diagnostics);
        }
        let layouts = PoolLayout::ALL.map(|layout| (layout.name(), layout));
        if let Some(pool) = spec.choice("pool", &layouts, diagnostics) {
            host.pool = pool;
        }
        if let Some(components) = number(&mut spec, "components", 1..=1_000_000, diagnostics) {
            host.components = components as u32;
        }
        if let Some(text) = spec.text("compiled", diagnostics) {
            match quantity::bytes(&text.text) {
                Ok(bytes) => host.compiled_bytes_max = bytes,
                Err(error) => {
                    let message = format!("`{}` is no value for `compiled`", text.text);
                    diagnostics.error("policy/quantity", text.place, message, error.to_string());
                }
            }
        }
        if let Some(mut broker) = spec.object("broker", diagnostics) {
            let embedded = broker.choice("embedded", &[("true", true), ("false", false)], diagnostics);
            let mut port = |key| number(&mut broker, key, 0..=65_535, diagnostics).unwrap_or(0) as u16;
            let ports = BrokerPorts { v5: port("v5"), v311: port("v311") };
            host.broker = (embedded == Some(true)).then_some(ports);
            broker.finish(diagnostics);
        }
        if let Some(data) = spec.text("data", diagnostics) {
            host.data = data.text.into();
        }
        spec.finish(diagnostics);
        host
    }
}

/// A whole number in `range`.
pub fn number(
    object: &mut Object<'_>,
    key: &'static str,
    range: std::ops::RangeInclusive<u64>,
    diagnostics: &mut Diagnostics,
) -> Option<u64> {
    let text = object.text(key, diagnostics)?;
    match quantity::count(&text.text) {
        Ok(number) if range.contains(&number) => Some(number),
        _ => {
            let message = format!("`{}` is no value for `{key}`", text.text);
            let label = format!("a whole number from {} to {}", range.start(), range.end());
            diagnostics.error("yaml/number", text.place, message, label);
            None
        }
    }
}
