//! The wasmtime engines and their pools, with settings that each have a measured
//! reason. Knows nothing of tenants.

use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, component::Component,
};

use crate::resource::{EngineKind, HostConfig, PerEngine};

/// Fuel between two yields of a guest: 100 to 200 µs of work at 5 to 11 units a ns.
pub const SLICE_FUEL: u64 = 1_000_000;

/// Kernel mappings that one instance needs: four for its copy-on-write memory, two
/// for its fiber stack.
const MAPS_PER_SLOT: u64 = 6;
/// Mappings of a loaded component.
const MAPS_PER_COMPONENT: u64 = 3;
/// Mappings left for everything else in the process.
const MAPS_SPARE: u64 = 5_000;

/// Address space of a linear memory, and of the guard behind it.
const MEMORY_RESERVED_BYTES: u64 = 4 << 30;
const MEMORY_GUARD_BYTES: u64 = 32 << 20;
/// An element of a table.
const TABLE_ELEMENT_BYTES: u64 = 16;

/// Stack of a guest; its fiber has as much again for the host.
const STACK_BYTES: usize = 128 << 10;

/// Linear memories of one instance: of an operator and what is fused with it.
const MEMORIES_MAX: u32 = 4;
/// Tables for each linear memory.
const TABLES_PER_MEMORY: u32 = 2;
/// Core instances in one component; the pool keeps no room for them, it only counts.
const CORE_INSTANCES_MAX: u32 = 16 * MEMORIES_MAX;

/// The slots that an instance of `component` takes: one for each linear memory, and
/// more if it has more tables than come with them. At most [`SLOTS_PER_INSTANCE_MAX`].
pub fn slots_of(component: &Component) -> usize {
    // What cannot be told beforehand, a pool does not load.
    let Some(needed) = component.resources_required() else { return 1 };
    needed.num_memories.max(needed.num_tables.div_ceil(TABLES_PER_MEMORY)).max(1) as usize
}

/// Memory that an instance of `component` starts with, in bytes, or a little more.
pub fn memory_bytes_min(component: &Component) -> u64 {
    component
        .resources_required()
        .map_or(0, |needed| u64::from(needed.num_memories) * needed.max_initial_memory_size.unwrap_or(0))
}

/// The most slots that one instance takes; every shard has as many.
pub const SLOTS_PER_INSTANCE_MAX: usize = MEMORIES_MAX as usize;

/// How large the pools are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolSize {
    /// Linear memories at once: an instance has one, unless it is fused of several.
    pub slots: PerEngine<u32>,
    /// Components loaded at once.
    pub components: u32,
}

/// Why the pool cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error(
        "{} and {} slots and {components} components need {needed} memory mappings and the kernel allows {allowed} \
         (vm.max_map_count): lower `slots.fuel` to {fit} in the Host resource, or raise the kernel's limit",
        slots.fuel, slots.large
    )]
    TooManyMaps { slots: PerEngine<u32>, components: u32, needed: u64, allowed: u64, fit: u64 },
    #[error("cannot set up the WebAssembly engine")]
    Wasmtime(#[source] wasmtime::Error),
}

impl PoolSize {
    /// What a host has: each shard can take its largest instance, however few slots there
    /// are.
    pub fn of(config: &HostConfig) -> Self {
        let least = (config.shards * SLOTS_PER_INSTANCE_MAX) as u32;
        PoolSize { slots: config.slots.map(|slots| slots.max(least)), components: config.components }
    }

    /// Memory mappings that the process may come to need.
    pub fn maps(self) -> u64 {
        self.maps_fixed() + MAPS_PER_SLOT * u64::from(self.slots.fuel)
    }

    /// The same without any slot of the engine `fuel`.
    fn maps_fixed(self) -> u64 {
        MAPS_SPARE
            + MAPS_PER_COMPONENT * u64::from(self.components)
            + MAPS_PER_SLOT * u64::from(self.slots.large)
    }

    /// So many slots of the engine `fuel` would do.
    pub fn fuel_slots_that_fit(self, maps_max: u64) -> u64 {
        maps_max.saturating_sub(self.maps_fixed()) / MAPS_PER_SLOT
    }

    /// Address space that the pools keep: for each slot its linear memory with a guard,
    /// its tables, and the stack of its fiber.
    pub fn address_space_bytes(self) -> u64 {
        let of = |kind: EngineKind| {
            let shape = Shape::of(kind);
            let tables = u64::from(TABLES_PER_MEMORY) * shape.table_elements as u64 * TABLE_ELEMENT_BYTES;
            let slot = MEMORY_RESERVED_BYTES + MEMORY_GUARD_BYTES + tables + 2 * shape.stack_bytes as u64;
            u64::from(*self.slots.of(kind)) * slot
        };
        EngineKind::ALL.into_iter().map(of).sum()
    }

    /// Checks the pool against the kernel's limit on mappings: past it every
    /// allocation in the process fails. `maps_max` is `vm.max_map_count`.
    pub fn check(self, maps_max: u64) -> Result<(), EngineError> {
        let PoolSize { slots, components } = self;
        let needed = self.maps();
        if needed > maps_max {
            let fit = self.fuel_slots_that_fit(maps_max);
            return Err(EngineError::TooManyMaps { slots, components, needed, allowed: maps_max, fit });
        }
        Ok(())
    }

    /// The kernel's limit on mappings of one process, or its default.
    pub fn maps_max() -> u64 {
        std::fs::read_to_string("/proc/sys/vm/max_map_count")
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(65_530)
    }
}

impl Default for PoolSize {
    fn default() -> Self {
        let HostConfig { slots, components, .. } = HostConfig::default();
        PoolSize { slots, components }
    }
}

impl PoolSize {
    /// For one tenant with as many operators.
    pub fn small(slots: u32) -> Self {
        PoolSize { slots: PerEngine { fuel: slots, large: slots.min(8) }, components: slots }
    }
}

/// The engines that run guests, each with a pool of its own.
#[derive(Clone)]
pub struct Engines(PerEngine<Engine>);

impl Engines {
    pub fn new(size: PoolSize) -> Result<Self, EngineError> {
        let PerEngine { fuel, large } = size.slots;
        let fuel = running(EngineKind::Fuel, fuel)?;
        Ok(Engines(PerEngine { fuel, large: running(EngineKind::Large, large)? }))
    }

    pub fn of(&self, kind: EngineKind) -> &Engine {
        self.0.of(kind)
    }
}

impl std::fmt::Debug for Engines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engines").finish_non_exhaustive()
    }
}

/// What one instance may consist of, which the pool keeps address space for.
struct Shape {
    component_instance_bytes: usize,
    core_instance_bytes: usize,
    table_elements: usize,
    stack_bytes: usize,
}

impl Shape {
    fn of(kind: EngineKind) -> Self {
        match kind {
            EngineKind::Fuel => Shape {
                component_instance_bytes: 256 << 10,
                core_instance_bytes: 64 << 10,
                table_elements: 10_000,
                stack_bytes: STACK_BYTES,
            },
            EngineKind::Large => Shape {
                component_instance_bytes: 4 << 20,
                core_instance_bytes: 4 << 20,
                table_elements: 200_000,
                stack_bytes: 8 * STACK_BYTES,
            },
        }
    }
}

fn running(kind: EngineKind, slots: u32) -> Result<Engine, EngineError> {
    let shape = Shape::of(kind);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(slots)
        .total_core_instances(slots * CORE_INSTANCES_MAX)
        .total_memories(slots)
        .total_tables(slots * TABLES_PER_MEMORY)
        .total_stacks(slots)
        .max_memories_per_component(MEMORIES_MAX)
        .max_tables_per_component(MEMORIES_MAX * TABLES_PER_MEMORY)
        .max_core_instances_per_component(CORE_INSTANCES_MAX)
        .max_component_instance_size(shape.component_instance_bytes)
        .max_core_instance_size(shape.core_instance_bytes)
        .table_elements(shape.table_elements)
        .max_memory_size(kind.memory_bytes_max() as usize)
        // Guests link a 64 KiB stack, so that all they touch lies in this window and
        // a slot is reset by a memset, not by a system call.
        .linear_memory_keep_resident(256 << 10)
        .table_keep_resident(16 << 10)
        // 48.0.8 skips pages that were swapped out and would show them to the next tenant.
        .pagemap_scan(Enabled::No)
        .async_stack_keep_resident(8 << 10)
        .max_unused_warm_slots(256)
        .decommit_batch_size(1);
    let mut config = settings();
    config.max_wasm_stack(shape.stack_bytes).async_stack_size(2 * shape.stack_bytes);
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    Engine::new(&config).map_err(EngineError::Wasmtime)
}

/// The engine of the compile process: what it makes, every engine of [`Engines`] can
/// load. It has no pool, since it runs nothing.
pub fn compiling() -> Result<Engine, EngineError> {
    Engine::new(&settings()).map_err(EngineError::Wasmtime)
}

/// All that decides what compiled code looks like, in one place for all engines.
pub fn settings() -> Config {
    let mut config = Config::new();
    config
        .consume_fuel(true)
        // Every call would otherwise build task state: 2.6 to 4.6 times dearer.
        .concurrency_support(false)
        .wasm_backtrace_max_frames(None)
        .wasm_memory64(false)
        .async_stack_zeroing(true)
        // The whole 32-bit space, so that no access needs a bounds check.
        .memory_reservation(MEMORY_RESERVED_BYTES)
        .memory_guard_size(MEMORY_GUARD_BYTES)
        .memory_init_cow(true);
    config
}

#[cfg(test)]
mod tests;
