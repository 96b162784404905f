//! `Inference`: the door between a tenant's guests and the process that runs its models.
//! Beside the path, as `command` is: a guest waits at it and its shard goes on. Holds what
//! guests load to policy's bounds; knows neither guests nor ONNX.
//!
//! ```text
//!  guest ──load, compute──► requests ──► worker ──frames──► `tidegate infer`
//!    ▲                     (bounded)       │       (memory, CPU time, nice)
//!    └────────────── reply ◄───────────────┘
//! ```
//!
//! A model is anybody's, and may ask for any memory and any time: none runs in the host's
//! own process. What it does to its own ends that, and no more than that.

pub mod child;
mod frame;
#[cfg(feature = "wasi-nn")]
mod onnx;
mod process;
mod tensor;
mod worker;

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::{Notify, Semaphore, SemaphorePermit, oneshot};

pub use self::{
    process::Processes,
    tensor::{NamedTensor, Tensor, TensorType},
};
use crate::stats::{InferenceStats, TenantStats};

/// The cargo feature of this crate with which models can be run.
pub const FEATURE: &str = "wasi-nn";

/// Whether this build can run models.
pub const IS_BUILT: bool = cfg!(feature = "wasi-nn");

/// Requests of one tenant that may be open at once. Each is a guest's that waits for it,
/// so that policy's `instances` is the usual bound.
const REQUESTS_MAX: usize = 256;

/// What a tenant's models may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct InferenceLimits {
    /// Of the process, over what it takes itself. As much again may be kept of models in
    /// the host, from which a new process gets them.
    pub memory_bytes_max: u64,
    /// CPU time of one request.
    pub time_max: Duration,
    /// Largest model. All tensors that a tenant's guests hold may have as many bytes.
    pub model_bytes_max: u64,
}

impl Default for InferenceLimits {
    fn default() -> Self {
        InferenceLimits {
            memory_bytes_max: 256 << 20,
            time_max: Duration::from_secs(2),
            // AIO's own limit.
            model_bytes_max: 50 << 20,
        }
    }
}

/// Why there is no model or no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct InferenceError {
    pub kind: InferenceErrorKind,
    pub text: String,
}

impl InferenceError {
    pub fn new(kind: InferenceErrorKind, text: impl Into<String>) -> Self {
        InferenceError { kind, text: text.into() }
    }
}

/// The kinds of errors that `wasi:nn` has and this host gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InferenceErrorKind {
    InvalidArgument,
    InvalidEncoding,
    Timeout,
    RuntimeError,
    UnsupportedOperation,
    TooLarge,
    NotFound,
}

impl InferenceErrorKind {
    const ALL: [InferenceErrorKind; 7] = [
        InferenceErrorKind::InvalidArgument,
        InferenceErrorKind::InvalidEncoding,
        InferenceErrorKind::Timeout,
        InferenceErrorKind::RuntimeError,
        InferenceErrorKind::UnsupportedOperation,
        InferenceErrorKind::TooLarge,
        InferenceErrorKind::NotFound,
    ];
}

/// The door of one tenant. Its process ends with it.
#[derive(Debug)]
pub struct Inference {
    door: Arc<Door>,
    processes: Arc<Processes>,
    /// One model at a time is on its way in: until then its bytes are only the guest's.
    loading: Semaphore,
}

impl Inference {
    /// What its processes use is counted in `charged`, too.
    pub fn new(limits: InferenceLimits, processes: Arc<Processes>, charged: Arc<TenantStats>) -> Arc<Self> {
        let door = Door {
            limits,
            stats: InferenceStats::default(),
            charged,
            tensor_bytes: AtomicU64::new(0),
            state: Mutex::default(),
            changed: Notify::new(),
        };
        Arc::new(Inference { door: Arc::new(door), processes, loading: Semaphore::new(1) })
    }

    pub fn limits(&self) -> &InferenceLimits {
        &self.door.limits
    }

    /// The right to take a model's bytes out of a guest, once there is one.
    pub async fn loading(&self) -> SemaphorePermit<'_> {
        self.loading.acquire().await.expect("it is never closed")
    }

    /// Loads a model, which is there until all handles to it are dropped. What was loaded
    /// before, by whichever instance of the tenant, is there already.
    pub async fn load(&self, bytes: Bytes) -> Result<Model, InferenceError> {
        self.door.stats.loads.add(1);
        match self.ask(|reply| Request::Load { bytes, reply }).await {
            Ok(model) => Ok(model),
            Err(error) => Err(self.door.count(error)),
        }
    }

    /// Runs a model.
    pub async fn compute(
        &self,
        model: &Model,
        inputs: Vec<NamedTensor>,
    ) -> Result<Vec<NamedTensor>, InferenceError> {
        self.door.stats.computes.add(1);
        let entry = model.entry.clone();
        match self.ask(|reply| Request::Compute { entry, inputs, reply }).await {
            Ok(outputs) => Ok(outputs),
            Err(error) => Err(self.door.count(error)),
        }
    }

    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<T, InferenceError>>) -> Request,
    ) -> Result<T, InferenceError> {
        let (reply, result) = oneshot::channel();
        let is_new = self.door.submit(request(reply))?;
        if is_new
            && let Err(text) = self.processes.spawn(worker::work(self.door.clone(), self.processes.clone()))
        {
            self.door.abandon();
            return Err(InferenceError::new(InferenceErrorKind::RuntimeError, text));
        }
        let ended = |_| InferenceError::new(InferenceErrorKind::RuntimeError, "the host ends");
        result.await.map_err(ended)?
    }

    /// Room for tensors that guests hold, given back when dropped.
    pub fn hold(&self, bytes: u64) -> Result<TensorHold, InferenceError> {
        let most = self.door.limits.model_bytes_max;
        let all = self.door.tensor_bytes.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        let hold = TensorHold { door: self.door.clone(), bytes };
        if all <= most {
            return Ok(hold);
        }
        let text =
            format!("the tenant's tensors have {all} bytes, and policy's `inference.model` allows {most}");
        Err(InferenceError::new(InferenceErrorKind::TooLarge, text))
    }

    /// Ends the process for good: the tenant is gone.
    pub fn close(&self) {
        self.door.state().is_closed = true;
        self.door.changed.notify_one();
    }

    /// Requests that guests wait for.
    pub fn open(&self) -> usize {
        self.door.state().open
    }

    /// What is open and kept now, and every counter with its name.
    pub fn values(&self) -> Vec<(&'static str, u64)> {
        let (open, model_bytes) = {
            let state = self.door.state();
            (state.open as u64, state.model_bytes)
        };
        let mut values = vec![("open", open), ("modelBytes", model_bytes)];
        values.extend(self.door.stats.values());
        values
    }
}

impl Drop for Inference {
    fn drop(&mut self) {
        self.close();
    }
}

/// Bytes of tensors that count until this is dropped.
#[derive(Debug)]
pub struct TensorHold {
    door: Arc<Door>,
    bytes: u64,
}

impl Drop for TensorHold {
    fn drop(&mut self) {
        self.door.tensor_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A model that was loaded; a handle to it.
#[derive(Debug)]
pub struct Model {
    door: Arc<Door>,
    entry: Arc<Entry>,
}

impl Drop for Model {
    fn drop(&mut self) {
        self.door.release(&self.entry);
    }
}

/// What is kept of a model for as long as somebody has a handle to it.
#[derive(Debug)]
struct Entry {
    id: u32,
    digest: blake3::Hash,
    /// A new process gets them again.
    bytes: Bytes,
}

/// What a guest asks.
#[derive(Debug)]
enum Request {
    Load {
        bytes: Bytes,
        reply: oneshot::Sender<Result<Model, InferenceError>>,
    },
    Compute {
        entry: Arc<Entry>,
        inputs: Vec<NamedTensor>,
        reply: oneshot::Sender<Result<Vec<NamedTensor>, InferenceError>>,
    },
}

/// What the tenant's guests and its worker share.
#[derive(Debug)]
struct Door {
    limits: InferenceLimits,
    stats: InferenceStats,
    /// The tenant's.
    charged: Arc<TenantStats>,
    tensor_bytes: AtomicU64,
    state: Mutex<State>,
    /// The worker has something to look at.
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    requests: VecDeque<Request>,
    /// Those and the one that the worker is at.
    open: usize,
    models: HashMap<blake3::Hash, Kept>,
    model_bytes: u64,
    /// How many models there ever were.
    count: u32,
    /// Models that nobody has a handle to any more, and a process may still have.
    dropped: Vec<u32>,
    has_worker: bool,
    is_closed: bool,
}

#[derive(Debug)]
struct Kept {
    entry: Arc<Entry>,
    handles: usize,
}

/// What the worker is to do next.
#[derive(Debug)]
enum Next {
    Request(Request),
    Drop(Vec<u32>),
    Close,
}

impl Door {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no panic under this lock")
    }

    fn charge_cpu(&self, ms: u64) {
        self.stats.cpu_ms.add(ms);
        self.charged.models_cpu_ns.add(ms * 1_000_000);
    }

    fn count(&self, error: InferenceError) -> InferenceError {
        match error.kind {
            InferenceErrorKind::Timeout => self.stats.timed_out.add(1),
            _ => self.stats.failed.add(1),
        }
        error
    }

    /// Says whether there is to be a worker from now on.
    fn submit(&self, request: Request) -> Result<bool, InferenceError> {
        let mut state = self.state();
        if state.is_closed {
            return Err(InferenceError::new(InferenceErrorKind::RuntimeError, "the tenant is gone"));
        }
        if state.open >= REQUESTS_MAX {
            let text = format!("{REQUESTS_MAX} requests of the tenant are open");
            return Err(InferenceError::new(InferenceErrorKind::RuntimeError, text));
        }
        state.open += 1;
        state.requests.push_back(request);
        self.changed.notify_one();
        Ok(!std::mem::replace(&mut state.has_worker, true))
    }

    async fn next(&self) -> Next {
        loop {
            {
                let mut state = self.state();
                if state.is_closed {
                    return Next::Close;
                }
                if !state.dropped.is_empty() {
                    return Next::Drop(std::mem::take(&mut state.dropped));
                }
                if let Some(request) = state.requests.pop_front() {
                    return Next::Request(request);
                }
            }
            self.changed.notified().await;
        }
    }

    /// There is no worker: nothing that was asked has an answer.
    fn abandon(&self) {
        let requests = {
            let mut state = self.state();
            state.has_worker = false;
            state.open -= state.requests.len();
            std::mem::take(&mut state.requests)
        };
        // Outside of the lock: a request may hold the last handle to a model.
        drop(requests);
    }

    /// A request has its answer, or nobody waits for it.
    fn close_one(&self) {
        self.state().open -= 1;
    }

    /// The worker goes, unless there is something to do.
    fn leave(&self) -> bool {
        let mut state = self.state();
        let leaves = state.requests.is_empty();
        state.has_worker = !leaves;
        if leaves {
            state.dropped.clear();
        }
        leaves
    }

    /// A handle to the model of these bytes.
    fn keep(self: &Arc<Self>, bytes: Bytes) -> Result<Model, InferenceError> {
        let digest = blake3::hash(&bytes);
        let mut state = self.state();
        if let Some(kept) = state.models.get_mut(&digest) {
            kept.handles += 1;
            return Ok(Model { door: self.clone(), entry: kept.entry.clone() });
        }
        let (all, most) = (state.model_bytes + bytes.len() as u64, self.limits.memory_bytes_max);
        if all > most {
            let text =
                format!("the tenant's models have {all} bytes, and policy's `inference.memory` is {most}");
            return Err(InferenceError::new(InferenceErrorKind::TooLarge, text));
        }
        state.model_bytes = all;
        state.count += 1;
        let entry = Arc::new(Entry { id: state.count, digest, bytes });
        state.models.insert(digest, Kept { entry: entry.clone(), handles: 1 });
        Ok(Model { door: self.clone(), entry })
    }

    fn release(&self, entry: &Arc<Entry>) {
        let mut state = self.state();
        let kept = state.models.get_mut(&entry.digest).expect("it has a handle until now");
        kept.handles -= 1;
        if kept.handles > 0 {
            return;
        }
        state.models.remove(&entry.digest);
        state.model_bytes -= entry.bytes.len() as u64;
        if state.has_worker {
            state.dropped.push(entry.id);
            self.changed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests;
