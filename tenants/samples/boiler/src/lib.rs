//! Two operators for a boiler house, written as one writes them for Azure IoT
//! Operations: a crate with its registry in `Cargo.toml`, a module for each operator,
//! parameters read once. Both become one component: `boiler/filter` drops readings of
//! other boilers and `boiler/map` adds how near the pressure is to the limit.

mod nearness;
mod selection;
