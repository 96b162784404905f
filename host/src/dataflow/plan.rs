//! `Plan`: a dataflow resource with all its graphs, flattened into what a shard
//! runs: sources, operators in topological order, destinations. Made once at
//! deploy; holding one means that it was checked.

use std::sync::{Arc, Mutex};

use crate::{
    dataflow::{
        watermark::Timing,
        window::{Keeping, WindowPlan},
    },
    guest::{AcquireError, Operator},
    rate::RateGate,
    schema::PayloadSchema,
    stats::DataflowStats,
    store::WindowSpace,
    tenant::Tenant,
    write::{Destination, SinkQueue},
};

/// One dataflow, ready to be installed on a shard.
#[derive(Debug)]
pub struct Plan {
    pub tenant: Arc<Tenant>,
    pub dataflow: String,
    /// The source nodes, and behind them the windows; deliveries refer to them by place.
    pub sources: Vec<SourcePlan>,
    /// Operators, each after all that feed it.
    pub steps: Vec<Step>,
    pub destinations: Vec<DestinationPlan>,
    /// Schemas on edges, each after those that it leads to.
    pub checks: Vec<Check>,
    /// Accumulates and delays: each is a step to what comes in, and a source, behind
    /// those outside, of what it releases.
    pub windows: Vec<WindowPlan>,
    pub timing: Timing,
    pub keeping: Keeping,
    /// Where windows are kept, or what volatile ones have completed.
    pub window_space: WindowSpace,
    pub stats: Arc<DataflowStats>,
    pub health: Mutex<Health>,
}

/// Whether a dataflow does its work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    Running,
    /// It cannot go on; its sources wait, and nothing of what they sent is settled.
    Failed {
        failure: Failure,
        cause: String,
    },
    /// Its guests failed again and again: it goes on by itself, with one delivery first.
    Paused {
        cause: String,
    },
    /// They failed too often: its sources wait until it is resumed by command.
    Quarantined {
        cause: String,
    },
    /// It takes nothing more and ends once it is empty.
    Draining,
}

impl Health {
    pub fn name(&self) -> &'static str {
        match self {
            Health::Running => "Running",
            Health::Failed { .. } => "Failed",
            Health::Paused { .. } => "Paused",
            Health::Quarantined { .. } => "Quarantined",
            Health::Draining => "Draining",
        }
    }

    /// Why it is not running, where there is more to say than that.
    pub fn cause(&self) -> Option<&str> {
        match self {
            Health::Failed { cause, .. } | Health::Paused { cause } | Health::Quarantined { cause } => {
                Some(cause)
            }
            Health::Running | Health::Draining => None,
        }
    }
}

/// What a dataflow failed at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// An operator's component could not be loaded, linked or started.
    Instantiation,
    /// An operator's new instance refused its configuration.
    Configuration,
    /// A bug of the host's.
    Panic,
}

impl From<&AcquireError> for Failure {
    fn from(error: &AcquireError) -> Self {
        match error {
            AcquireError::Load(_) | AcquireError::Start { .. } => Failure::Instantiation,
            AcquireError::Init { .. } => Failure::Configuration,
        }
    }
}

#[derive(Debug)]
pub struct SourcePlan {
    pub name: String,
    pub targets: Vec<Target>,
    /// Where what it takes in has to pass.
    pub gate: Option<Arc<RateGate>>,
    /// Whether what it delivers must come through, and be settled, in order.
    pub is_in_order: bool,
}

/// Deliveries that may be in a region at once, whatever policy allows: each more costs an
/// idle dataflow 200 bytes.
const LANES_MAX: usize = 16;

/// One operator of the region, and where its results go.
#[derive(Debug)]
pub struct Step {
    pub operator: Arc<Operator>,
    /// Which window it fills, if it is an accumulate or delay.
    pub window: Option<usize>,
    /// Where a map's or filter's results go, or a branch's arm "False".
    pub targets: Vec<Target>,
    /// Where a branch's arm "True" goes.
    pub targets_true: Vec<Target>,
}

#[derive(Debug)]
pub struct DestinationPlan {
    pub destination: Arc<Destination>,
    pub sink: Arc<SinkQueue>,
    /// Where what is written has to pass.
    pub gate: Option<Arc<RateGate>>,
}

/// An end of an edge. Concatenate has no step of its own: edges go through it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    Step(usize),
    Destination(usize),
    /// One of the plan's checks, and through it.
    Check(usize),
}

/// A schema on a connection of a graph: what does not fit goes no further.
#[derive(Debug)]
pub struct Check {
    pub schema: Arc<PayloadSchema>,
    /// The operation at the connection's end.
    pub operation: String,
    /// Where the rest goes.
    pub target: Target,
}

impl Plan {
    /// `tenant/dataflow`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.tenant.name, self.dataflow)
    }

    pub fn health(&self) -> Health {
        self.health.lock().expect("no panic under this lock").clone()
    }

    pub fn set_health(&self, health: Health) {
        *self.health.lock().expect("no panic under this lock") = health;
    }

    /// Sources outside, whose deliveries are to be answered for.
    pub fn sources_outside(&self) -> usize {
        self.sources.len() - self.windows.len()
    }

    pub fn has_source_in_order(&self) -> bool {
        self.sources.iter().any(|source| source.is_in_order)
    }

    /// Deliveries that may be in its region at once: more than one only if a source has no
    /// order, there are no windows, and each operator may have as many instances, each with
    /// all the memory that it may take.
    pub fn lanes(&self) -> usize {
        if !self.windows.is_empty() || self.sources.iter().all(|source| source.is_in_order) {
            return 1;
        }
        let limits = &self.tenant.limits;
        let fitting = limits.memory_total_bytes_max / limits.memory_instance_bytes_max.max(1);
        let instances = u64::from(limits.instances_max).min(fitting) as usize;
        (instances / self.steps.len().max(1)).clamp(1, LANES_MAX)
    }

    pub fn operators(&self) -> impl Iterator<Item = &Arc<Operator>> {
        self.steps.iter().map(|step| &step.operator)
    }
}
