//! Guests: sealed components in wasmtime's pooling allocator, entered in slices.
//! The operators' side of the path; the only module that names wasmtime. It knows
//! neither Timely nor transports, does no I/O on a shard and never blocks.

pub mod aio;
pub mod calibrate;
mod command_invoker;
pub mod compile;
pub mod component;
pub mod compose;
pub mod engine;
mod epochs;
pub mod host_call;
pub mod imports;
mod inference;
mod inert;
pub mod inspect;
pub mod instance;
pub mod linker;
pub mod log;
pub mod metrics;
pub mod packed;
mod schema_registry;
pub mod signature;
pub mod state;
mod state_store;
pub mod ticker;
pub mod world;

use std::{fmt, sync::Arc};

use bytemuck::{Pod, Zeroable};
use bytes::Bytes;

pub use instance::{AcquireError, Guest, Guests};

use crate::{
    batch::{Batch, Time},
    command::Commands,
    guest::{component::Digest, compose::Parts, metrics::GuestMetrics},
    resource::EngineKind,
    stats::OperatorStats,
    tenant::Tenant,
};

/// One operation of a dataflow, bound to the component that serves it.
#[derive(Debug)]
pub struct Operator {
    /// `tenant/dataflow/operation`, as logs, metrics and errors name it.
    pub name: String,
    pub tenant: Arc<Tenant>,
    pub kind: OperatorKind,
    pub contract: Contract,
    /// Of the component; of both together if it was fused.
    pub digest: Digest,
    pub fused: Option<Parts>,
    /// The policy world whose imports the guest is linked with.
    pub world: Arc<str>,
    /// Key and value, as the operator sees them.
    pub configuration: Vec<(String, String)>,
    /// What it is told about the messages that come in.
    pub schemas: Vec<Schema>,
    /// Keeps its instance however long it is idle.
    pub pinned: bool,
    pub stats: Arc<OperatorStats>,
    /// What its guests report, over all of its instances.
    pub metrics: Arc<GuestMetrics>,
    /// Where its guests' requests to other programs go, if there is a broker.
    pub commands: Option<Arc<Commands>>,
}

impl Operator {
    /// The last part of the name: the operation in its graph.
    pub fn operation(&self) -> &str {
        self.name.splitn(3, '/').nth(2).unwrap_or(&self.name)
    }

    /// The engine that its tenant's policy chose.
    pub fn engine(&self) -> EngineKind {
        self.tenant.limits.engine
    }

    pub fn is_branch(&self) -> bool {
        self.kind == OperatorKind::Branch
    }

    pub fn digest_short(&self) -> String {
        self.digest.short()
    }
}

/// A schema that an operator is given at `init`. The host does not look into it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schema {
    pub name: String,
    pub content_type: String,
    pub content: String,
}

/// What an operator does, after the name of its interface in both contracts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OperatorKind {
    Map,
    Filter,
    Branch,
    Accumulate,
    Delay,
}

impl OperatorKind {
    pub const ALL: [OperatorKind; 5] = [
        OperatorKind::Map,
        OperatorKind::Filter,
        OperatorKind::Branch,
        OperatorKind::Accumulate,
        OperatorKind::Delay,
    ];

    pub fn name(self) -> &'static str {
        match self {
            OperatorKind::Map => "map",
            OperatorKind::Filter => "filter",
            OperatorKind::Branch => "branch",
            OperatorKind::Accumulate => "accumulate",
            OperatorKind::Delay => "delay",
        }
    }
}

impl fmt::Display for OperatorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How a guest is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Contract {
    /// `tidegate:operator@0.1.0`: a batch a call.
    Packed,
    /// `wasm-graph:processor@1.1.0`: a message a call.
    Aio,
    /// `tinykube-graph:processor@1.0.0`, the preview of AIO's: the same without errors.
    Preview,
}

/// What a guest made of a batch. Checked: every index and span is sound.
#[derive(Debug)]
pub enum Output {
    /// `origin` of each entry is the place of the message it came from, in the call.
    Mapped { batch: Batch, errors: Vec<OperatorError> },
    /// One verdict for each message.
    Judged { verdicts: Vec<Verdict>, errors: Vec<OperatorError> },
    /// The new staged value of a window, or why there is none.
    Staged(Result<Batch, OperatorError>),
    /// A new logical time for each message, meaningless where there is an error; nodes
    /// lie in `arena`.
    Delayed { times: Vec<Time>, arena: Bytes, errors: Vec<OperatorError> },
}

/// As it lies in a packed result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(transparent)]
pub struct Verdict(u8);

impl Verdict {
    pub const FALSE: Verdict = Verdict(0);
    pub const TRUE: Verdict = Verdict(1);
    /// The operator returned an error, which is among the errors.
    pub const ERROR: Verdict = Verdict(2);
}

/// The operator's own `error` for one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatorError {
    /// The message's place in the call.
    pub index: u32,
    pub text: String,
}

/// A call that failed, and the fuel it used.
#[derive(Debug)]
pub struct Fault {
    pub error: InvokeError,
    pub fuel: u64,
}

/// Why a call of a guest gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum InvokeError {
    #[error("guest trapped: {cause}")]
    Trap { cause: String },
    #[error("guest was refused memory beyond {limit_bytes} bytes: {cause}")]
    MemoryRefused { limit_bytes: u64, cause: String },
    #[error("guest ran out of fuel ({limit} for {messages} messages)")]
    OutOfFuel { limit: u64, messages: usize },
    #[error("guest ran past its CPU time ({limit_ms} ms for {messages} messages)")]
    OutOfTime { limit_ms: u64, messages: usize },
    #[error("guest gave bad output: {cause}")]
    BadOutput { cause: String },
}

impl InvokeError {
    /// Whether the same message may fare better on a fresh instance. Fuel is counted
    /// deterministically, and what a guest writes is checked the same way each time.
    pub fn is_worth_a_retry(&self) -> bool {
        matches!(self, InvokeError::Trap { .. } | InvokeError::MemoryRefused { .. })
    }
}

#[cfg(test)]
pub(crate) mod tests;
