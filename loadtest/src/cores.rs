//! Which cores the host runs on, and which everything else: load that shares a core
//! with what it measures, measures itself.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// A division of the cores that this process may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cores {
    pub host: Vec<usize>,
    pub others: Vec<usize>,
}

impl Cores {
    /// A core for each shard, as long as one is left for the rest.
    pub fn divide(shards: usize) -> std::io::Result<Self> {
        let allowed = sched_getaffinity(None)?;
        let all: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core)).collect();
        Ok(Self::of(&all, shards))
    }

    fn of(all: &[usize], shards: usize) -> Self {
        let host = shards.min(all.len().saturating_sub(1)).max(1);
        let others = if all.len() > 1 { &all[host..] } else { all };
        Cores { host: all[..host].to_vec(), others: others.to_vec() }
    }

    /// Whether host and load are apart.
    pub fn are_apart(&self) -> bool {
        self.host != self.others
    }

    /// Keeps this thread, and what it starts, on `cores`.
    pub fn pin(cores: &[usize]) -> std::io::Result<()> {
        let mut set = CpuSet::new();
        cores.iter().for_each(|core| set.set(*core));
        Ok(sched_setaffinity(None, &set)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_gets_a_core_a_shard_and_the_rest_keeps_one() {
        let of = |all: &[usize], shards| {
            let Cores { host, others } = Cores::of(all, shards);
            (host, others)
        };
        assert_eq!(of(&[0, 1], 1), (vec![0], vec![1]));
        assert_eq!(of(&[2, 3, 5, 7], 2), (vec![2, 3], vec![5, 7]));
        assert_eq!(of(&[0, 1], 4), (vec![0], vec![1]));
        assert_eq!(of(&[4], 1), (vec![4], vec![4]));
        assert!(!Cores::of(&[4], 1).are_apart());
    }
}
