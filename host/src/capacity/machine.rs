//! `Machine`: what there is for a host: asked of the kernel, once a judgement.

use rustix::process::{Resource, getrlimit};

use crate::guest::engine::PoolSize;

/// What the machine and this process's limits allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    pub cores: u64,
    pub memory_bytes: u64,
    /// Memory mappings of one process.
    pub maps_max: u64,
    /// Open files of this process.
    pub files_max: u64,
    pub address_space_bytes_max: u64,
}

/// Address space of a process where nothing limits it: 47 bits on x86-64 with four levels
/// of page tables, and no less on others that are 64 bits wide.
const ADDRESS_SPACE_BYTES: u64 = 1 << 47;

impl Machine {
    /// The one that this runs on.
    pub fn this() -> Self {
        let limit = |resource| getrlimit(resource).current.unwrap_or(u64::MAX);
        Machine {
            cores: std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64),
            memory_bytes: memory_bytes(),
            maps_max: PoolSize::maps_max(),
            files_max: limit(Resource::Nofile),
            address_space_bytes_max: limit(Resource::As).min(ADDRESS_SPACE_BYTES),
        }
    }
}

/// Of the machine, or of the control group that the host is in, if that has less.
fn memory_bytes() -> u64 {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let machine = read("/proc/meminfo").and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    });
    // `max` where there is no limit, which is no number.
    let group = read("/sys/fs/cgroup/memory.max").and_then(|text| text.trim().parse().ok());
    machine.map_or(u64::MAX, |kib| kib << 10).min(group.unwrap_or(u64::MAX))
}
