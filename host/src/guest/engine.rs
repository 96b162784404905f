//! The wasmtime engines and their pools, with settings that each have a measured
//! reason. Knows nothing of tenants.

use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, component::Component,
};

use crate::resource::{EngineKind, HostConfig, PerEngine, PoolLayout};

/// Fuel between two yields of a guest: 100 to 200 µs of work at 5 to 11 units a ns.
pub const SLICE_FUEL: u64 = 1_000_000;
/// What it costs to make an instance and to end it, in fuel: some 60 µs, of which the guest
/// executes nothing.
pub const INSTANCE_FUEL: u64 = 500_000;

/// Kernel mappings that one instance needs: two for its fiber stack, and four for its
/// copy-on-write memory. Memories of a dense pool are one mapping together.
fn maps_per_slot(kind: EngineKind, layout: PoolLayout) -> u64 {
    match Tuning::of(kind, layout).layout {
        PoolLayout::Guarded => 6,
        PoolLayout::Dense => 2,
    }
}

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
    pub layout: PoolLayout,
}

/// Why the pool cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error(
        "`slots: {{ fuel: {}, epoch: {}, large: {} }}` and {components} components need {needed} memory mappings and \
         the kernel allows {allowed} (vm.max_map_count): {} in the Host resource{}, or raise the kernel's limit",
        slots.fuel, slots.epoch, slots.large, fewer(*fit), or_dense(*layout)
    )]
    TooManyMaps {
        slots: PerEngine<u32>,
        components: u32,
        layout: PoolLayout,
        needed: u64,
        allowed: u64,
        fit: u64,
    },
    #[error("cannot set up the WebAssembly engine")]
    Wasmtime(#[source] wasmtime::Error),
}

impl PoolSize {
    /// What a host has: each shard can take its largest instance, however few slots there
    /// are.
    pub fn of(config: &HostConfig) -> Self {
        let least = (config.shards * SLOTS_PER_INSTANCE_MAX) as u32;
        PoolSize {
            slots: config.slots.map(|slots| slots.max(least)),
            components: config.components,
            layout: config.pool,
        }
    }

    /// Memory mappings that the process may come to need.
    pub fn maps(self) -> u64 {
        self.maps_fixed() + self.maps_of(EngineKind::Fuel)
    }

    fn maps_of(self, kind: EngineKind) -> u64 {
        maps_per_slot(kind, self.layout) * u64::from(*self.slots.of(kind))
    }

    /// The same without any slot of the engine `fuel`.
    fn maps_fixed(self) -> u64 {
        let others = self.maps_of(EngineKind::Epoch) + self.maps_of(EngineKind::Large);
        MAPS_SPARE + MAPS_PER_COMPONENT * u64::from(self.components) + others
    }

    /// So many slots of the engine `fuel` would do.
    pub fn fuel_slots_that_fit(self, maps_max: u64) -> u64 {
        maps_max.saturating_sub(self.maps_fixed()) / maps_per_slot(EngineKind::Fuel, self.layout)
    }

    /// Address space that the pools keep: for each slot its linear memory with a guard,
    /// its tables, and the stack of its fiber.
    pub fn address_space_bytes(self) -> u64 {
        let of = |kind: EngineKind| {
            let shape = Shape::of(kind);
            let tables = u64::from(TABLES_PER_MEMORY) * shape.table_elements as u64 * TABLE_ELEMENT_BYTES;
            let memory = match Tuning::of(kind, self.layout).layout {
                PoolLayout::Guarded => MEMORY_RESERVED_BYTES + MEMORY_GUARD_BYTES,
                PoolLayout::Dense => kind.memory_bytes_max(),
            };
            let slot = memory + tables + 2 * shape.stack_bytes as u64;
            u64::from(*self.slots.of(kind)) * slot
        };
        EngineKind::ALL.into_iter().map(of).sum()
    }

    /// Checks the pool against the kernel's limit on mappings: past it every
    /// allocation in the process fails. `maps_max` is `vm.max_map_count`.
    pub fn check(self, maps_max: u64) -> Result<(), EngineError> {
        let PoolSize { slots, components, layout } = self;
        let needed = self.maps();
        if needed > maps_max {
            let fit = self.fuel_slots_that_fit(maps_max);
            return Err(EngineError::TooManyMaps {
                slots,
                components,
                layout,
                needed,
                allowed: maps_max,
                fit,
            });
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
        Self::of(&HostConfig::default())
    }
}

/// What there must be less of; so many slots of the engine `fuel` fit beside the others.
fn fewer(fit: u64) -> String {
    match fit {
        0 => "lower `slots.epoch`, `slots.large` or `components`".to_owned(),
        _ => format!("lower `slots.fuel` to {fit}, or `slots.epoch`,"),
    }
}

/// What else one may do who has too few mappings.
fn or_dense(layout: PoolLayout) -> &'static str {
    match layout {
        PoolLayout::Guarded => ", set `pool: dense` (a slot then needs two mappings instead of six)",
        PoolLayout::Dense => "",
    }
}

impl PoolSize {
    /// For one tenant with as many operators.
    pub fn small(slots: u32) -> Self {
        let slots = PerEngine { fuel: slots, epoch: slots, large: slots.min(8) };
        PoolSize { slots, components: slots.fuel, layout: PoolLayout::Guarded }
    }
}

/// The engines that run guests, each with a pool of its own.
#[derive(Clone)]
pub struct Engines {
    engines: PerEngine<Engine>,
    layout: PoolLayout,
}

impl Engines {
    pub fn new(size: PoolSize) -> Result<Self, EngineError> {
        let PoolSize { slots, layout, .. } = size;
        let of = |kind: EngineKind| running(kind, *slots.of(kind), layout);
        let engines = PerEngine {
            fuel: of(EngineKind::Fuel)?,
            epoch: of(EngineKind::Epoch)?,
            large: of(EngineKind::Large)?,
        };
        Ok(Engines { engines, layout })
    }

    pub fn of(&self, kind: EngineKind) -> &Engine {
        self.engines.of(kind)
    }

    /// What a component must be compiled for to run on an engine.
    pub fn tuning(&self, kind: EngineKind) -> Tuning {
        Tuning::of(kind, self.layout)
    }
}

/// What compiled code depends on: engines of one tuning load what was compiled for any of
/// them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tuning {
    counts_fuel: bool,
    pub layout: PoolLayout,
}

impl Tuning {
    pub const ALL: [Tuning; 4] = [
        Tuning { counts_fuel: true, layout: PoolLayout::Guarded },
        Tuning { counts_fuel: false, layout: PoolLayout::Guarded },
        Tuning { counts_fuel: true, layout: PoolLayout::Dense },
        Tuning { counts_fuel: false, layout: PoolLayout::Dense },
    ];

    /// Slots of the engine `large` are few and far apart in any case.
    pub fn of(kind: EngineKind, layout: PoolLayout) -> Self {
        let layout = if kind == EngineKind::Large { PoolLayout::Guarded } else { layout };
        Tuning { counts_fuel: kind.counts_fuel(), layout }
    }

    /// As the compile process is told.
    pub fn name(self) -> &'static str {
        match (self.counts_fuel, self.layout) {
            (true, PoolLayout::Guarded) => "fuel",
            (false, PoolLayout::Guarded) => "epoch",
            (true, PoolLayout::Dense) => "fuel-dense",
            (false, PoolLayout::Dense) => "epoch-dense",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|tuning| tuning.name() == name)
    }

    /// What each memory of a component must begin with, if that is not the component's own
    /// choice: where slots lie side by side, one that has pages without access in it would
    /// be two mappings more.
    pub fn memory_bytes_first(self) -> Option<u64> {
        (self.layout == PoolLayout::Dense).then(|| EngineKind::Fuel.memory_bytes_max())
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
            EngineKind::Fuel | EngineKind::Epoch => Shape {
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

fn running(kind: EngineKind, slots: u32, layout: PoolLayout) -> Result<Engine, EngineError> {
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
    let mut config = settings(Tuning::of(kind, layout));
    config.max_wasm_stack(shape.stack_bytes).async_stack_size(2 * shape.stack_bytes);
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    Engine::new(&config).map_err(EngineError::Wasmtime)
}

/// The engine of the compile process: what it makes, every engine of [`Engines`] with this
/// tuning can load. It has no pool, since it runs nothing.
pub fn compiling(tuning: Tuning) -> Result<Engine, EngineError> {
    Engine::new(&settings(tuning)).map_err(EngineError::Wasmtime)
}

/// All that decides what compiled code looks like, in one place for all engines.
pub fn settings(tuning: Tuning) -> Config {
    let mut config = Config::new();
    config
        // One of the two, never both: together they cost half as much again as the code.
        .consume_fuel(tuning.counts_fuel)
        .epoch_interruption(!tuning.counts_fuel)
        // Every call would otherwise build task state: 2.6 to 4.6 times dearer.
        .concurrency_support(false)
        .wasm_backtrace_max_frames(None)
        .wasm_memory64(false)
        .async_stack_zeroing(true);
    match tuning.layout {
        PoolLayout::Guarded => config
            // The whole 32-bit space, so that no access needs a bounds check.
            .memory_reservation(MEMORY_RESERVED_BYTES)
            .memory_guard_size(MEMORY_GUARD_BYTES)
            .memory_init_cow(true),
        // Nothing between two memories, and nothing that is mapped into one: neighbours
        // with all their pages are one mapping.
        PoolLayout::Dense => config
            .memory_reservation(EngineKind::Fuel.memory_bytes_max())
            .memory_guard_size(0)
            .guard_before_linear_memory(false)
            .memory_init_cow(false),
    };
    config
}

#[cfg(test)]
mod tests;
