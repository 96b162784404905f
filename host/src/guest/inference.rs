//! `wasi:nn`: models that operators load and run, in the types and with the errors of its
//! WIT. A request that waits for the process which runs them suspends the guest's fiber,
//! within its time on the shard's clock. What graphs, tensors and errors hold is bounded
//! for each instance and for its tenant.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use bytes::Bytes;
use wasmtime::{
    AsContextMut as _, StoreContextMut,
    component::{ComponentType, Lift, LinkerInstance, Lower, Resource, ResourceType, WasmList},
};

use crate::{
    guest::{host_call::Interface, log::Severity, state::GuestState},
    inference::{
        Inference, InferenceError, InferenceErrorKind as Kind, Model, NamedTensor, Tensor as Checked,
        TensorHold, TensorType as Element,
    },
};

/// Graphs, execution contexts, tensors and errors that one instance may have at once.
pub const HANDLES_MAX: u32 = 256;

/// Errors that it may have beyond that.
const ERRORS_MORE_MAX: u32 = 64;

/// Largest text of an error that a guest is given, in bytes.
const TEXT_BYTES_MAX: usize = 1024;

type Store<'a> = StoreContextMut<'a, GuestState>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ComponentType, Lift, Lower)]
#[component(enum)]
#[repr(u8)]
enum TensorType {
    #[component(name = "FP16")]
    Fp16,
    #[component(name = "FP32")]
    Fp32,
    #[component(name = "FP64")]
    Fp64,
    #[component(name = "BF16")]
    Bf16,
    #[component(name = "U8")]
    U8,
    #[component(name = "I32")]
    I32,
    #[component(name = "I64")]
    I64,
}

impl From<TensorType> for Element {
    fn from(kind: TensorType) -> Self {
        match kind {
            TensorType::Fp16 => Element::F16,
            TensorType::Fp32 => Element::F32,
            TensorType::Fp64 => Element::F64,
            TensorType::Bf16 => Element::Bf16,
            TensorType::U8 => Element::U8,
            TensorType::I32 => Element::I32,
            TensorType::I64 => Element::I64,
        }
    }
}

impl From<Element> for TensorType {
    fn from(kind: Element) -> Self {
        match kind {
            Element::F16 => TensorType::Fp16,
            Element::F32 => TensorType::Fp32,
            Element::F64 => TensorType::Fp64,
            Element::Bf16 => TensorType::Bf16,
            Element::U8 => TensorType::U8,
            Element::I32 => TensorType::I32,
            Element::I64 => TensorType::I64,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ComponentType, Lift)]
#[component(enum)]
#[repr(u8)]
#[expect(dead_code, reason = "guests make them")]
enum GraphEncoding {
    #[component(name = "openvino")]
    Openvino,
    #[component(name = "onnx")]
    Onnx,
    #[component(name = "tensorflow")]
    Tensorflow,
    #[component(name = "pytorch")]
    Pytorch,
    #[component(name = "tensorflowlite")]
    Tensorflowlite,
    #[component(name = "ggml")]
    Ggml,
    #[component(name = "autodetect")]
    Autodetect,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ComponentType, Lift)]
#[component(enum)]
#[repr(u8)]
#[expect(dead_code, reason = "guests make them")]
enum ExecutionTarget {
    #[component(name = "cpu")]
    Cpu,
    #[component(name = "gpu")]
    Gpu,
    #[component(name = "tpu")]
    Tpu,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ComponentType, Lower)]
#[component(enum)]
#[repr(u8)]
#[expect(dead_code, reason = "the WIT has them, and this host does not give them")]
enum ErrorCode {
    #[component(name = "invalid-argument")]
    InvalidArgument,
    #[component(name = "invalid-encoding")]
    InvalidEncoding,
    #[component(name = "timeout")]
    Timeout,
    #[component(name = "runtime-error")]
    RuntimeError,
    #[component(name = "unsupported-operation")]
    UnsupportedOperation,
    #[component(name = "too-large")]
    TooLarge,
    #[component(name = "not-found")]
    NotFound,
    #[component(name = "security")]
    Security,
    #[component(name = "unknown")]
    Unknown,
}

impl From<Kind> for ErrorCode {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::InvalidArgument => ErrorCode::InvalidArgument,
            Kind::InvalidEncoding => ErrorCode::InvalidEncoding,
            Kind::Timeout => ErrorCode::Timeout,
            Kind::RuntimeError => ErrorCode::RuntimeError,
            Kind::UnsupportedOperation => ErrorCode::UnsupportedOperation,
            Kind::TooLarge => ErrorCode::TooLarge,
            Kind::NotFound => ErrorCode::NotFound,
        }
    }
}

/// One handle of the instance's, given back when dropped.
struct Handle(Arc<AtomicU32>);

impl Handle {
    fn take(state: &mut GuestState) -> Result<Handle, InferenceError> {
        Self::take_of(state, HANDLES_MAX)
    }

    /// For an error, which says that there is no room for anything else.
    fn take_for_error(state: &mut GuestState) -> Result<Handle, InferenceError> {
        Self::take_of(state, HANDLES_MAX + ERRORS_MORE_MAX)
    }

    fn take_of(state: &mut GuestState, most: u32) -> Result<Handle, InferenceError> {
        let held = state.models_held.get_or_insert_default().clone();
        let all = held.fetch_add(1, Ordering::Relaxed) + 1;
        let handle = Handle(held);
        if all <= most {
            return Ok(handle);
        }
        let text = format!("{all} graphs, contexts, tensors and errors, {most} are allowed");
        Err(InferenceError::new(Kind::RuntimeError, text))
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// As the guest made it: whether its data is as long as its dimensions say shows when it
/// is used, since a constructor has no way to say no.
struct Tensor {
    dimensions: Vec<u32>,
    kind: TensorType,
    data: Bytes,
    _hold: TensorHold,
    _handle: Handle,
}

/// A graph, or an execution context of it.
struct Graph {
    model: Arc<Model>,
    _handle: Handle,
}

struct Context(Graph);

struct Error {
    code: ErrorCode,
    text: String,
    _handle: Handle,
}

type Answer<T> = Result<T, Resource<Error>>;

pub fn add_errors(errors: &mut LinkerInstance<'_, GuestState>) -> wasmtime::Result<()> {
    add_resource::<Error>(errors, "error")?;
    errors.func_wrap("[method]error.code", |mut store: Store<'_>, (error,): (Resource<Error>,)| {
        let state = store.data_mut();
        state.charge(Interface::Models, 0)?;
        Ok((state.table.get(&error)?.code,))
    })?;
    errors.func_wrap("[method]error.data", |mut store: Store<'_>, (error,): (Resource<Error>,)| {
        let state = store.data_mut();
        let text = state.table.get(&error)?.text.clone();
        state.charge(Interface::Models, text.len() as u64)?;
        Ok((text,))
    })
}

pub fn add_tensor(tensor: &mut LinkerInstance<'_, GuestState>) -> wasmtime::Result<()> {
    add_resource::<Tensor>(tensor, "tensor")?;
    tensor.func_wrap(
        "[constructor]tensor",
        |mut store: Store<'_>, (dimensions, kind, data): (Vec<u32>, TensorType, Vec<u8>)| {
            let state = store.data_mut();
            let bytes = bytes_of(&dimensions, &data);
            state.charge_model(bytes)?;
            let made = hold_tensor(state, bytes).map_err(|error| wasmtime::Error::msg(error.text))?;
            let (hold, handle) = made;
            let tensor = Tensor { dimensions, kind, data: data.into(), _hold: hold, _handle: handle };
            Ok((state.table.push(tensor)?,))
        },
    )?;
    tensor.func_wrap(
        "[method]tensor.dimensions",
        |mut store: Store<'_>, (tensor,): (Resource<Tensor>,)| {
            let state = store.data_mut();
            let dimensions = state.table.get(&tensor)?.dimensions.clone();
            state.charge_model(bytes_of(&dimensions, &[]))?;
            Ok((dimensions,))
        },
    )?;
    tensor.func_wrap("[method]tensor.ty", |mut store: Store<'_>, (tensor,): (Resource<Tensor>,)| {
        let state = store.data_mut();
        state.charge(Interface::Models, 0)?;
        Ok((state.table.get(&tensor)?.kind,))
    })?;
    tensor.func_wrap("[method]tensor.data", |mut store: Store<'_>, (tensor,): (Resource<Tensor>,)| {
        let state = store.data_mut();
        let data = state.table.get(&tensor)?.data.clone();
        state.charge_model(data.len() as u64)?;
        Ok((data.to_vec(),))
    })
}

pub fn add_graph(graph: &mut LinkerInstance<'_, GuestState>) -> wasmtime::Result<()> {
    type Builder = WasmList<WasmList<u8>>;
    add_resource::<Graph>(graph, "graph")?;
    graph.func_wrap(
        "[method]graph.init-execution-context",
        |mut store: Store<'_>, (graph,): (Resource<Graph>,)| {
            let state = store.data_mut();
            state.charge(Interface::Models, 0)?;
            let model = state.table.get(&graph)?.model.clone();
            let context =
                Handle::take(state).and_then(|handle| push(state, Context(Graph { model, _handle: handle })));
            Ok((told(state, context)?,))
        },
    )?;
    graph.func_wrap_async(
        "load",
        |mut store: Store<'_>, (builder, encoding, target): (Builder, GraphEncoding, ExecutionTarget)| {
            Box::new(async move {
                store.data_mut().charge_and_yield(Interface::Models).await?;
                let loaded = match check_load(&builder, encoding, target) {
                    Ok(()) => load(&mut store, &builder).await?,
                    Err(error) => Err(error),
                };
                Ok((told(store.data_mut(), loaded)?,))
            })
        },
    )?;
    graph.func_wrap("load-by-name", |mut store: Store<'_>, (name,): (String,)| {
        let state = store.data_mut();
        state.charge(Interface::Models, name.len() as u64)?;
        let text = format!("no graph is named `{name}`: none has a name on this host");
        let unknown: Result<Resource<Graph>, _> = Err(InferenceError::new(Kind::NotFound, text));
        Ok((told(state, unknown)?,))
    })
}

pub fn add_inference(inference: &mut LinkerInstance<'_, GuestState>) -> wasmtime::Result<()> {
    add_resource::<Context>(inference, "graph-execution-context")?;
    inference.func_wrap_async(
        "[method]graph-execution-context.compute",
        |mut store: Store<'_>, params: (Resource<Context>, Vec<(String, Resource<Tensor>)>)| {
            Box::new(async move {
                let state = store.data_mut();
                state.charge_and_yield(Interface::Models).await?;
                let (context, inputs) = params;
                let model = state.table.get(&context)?.0.model.clone();
                let mut taken = Vec::with_capacity(inputs.len());
                for (name, tensor) in inputs {
                    taken.push((name, state.table.delete(tensor)?));
                }
                let outputs = compute(state, &model, taken).await;
                Ok((told(state, outputs)?,))
            })
        },
    )
}

fn add_resource<T: Send + 'static>(
    instance: &mut LinkerInstance<'_, GuestState>,
    name: &str,
) -> wasmtime::Result<()> {
    instance.resource(name, ResourceType::host::<T>(), |mut store: Store<'_>, rep| {
        store.data_mut().table.delete(Resource::<T>::new_own(rep))?;
        Ok(())
    })
}

fn bytes_of(dimensions: &[u32], data: &[u8]) -> u64 {
    (size_of_val(dimensions) + data.len()) as u64
}

/// The error as a resource; the tenant's log has it too.
fn told<T>(state: &mut GuestState, result: Result<T, InferenceError>) -> wasmtime::Result<Answer<T>> {
    let InferenceError { kind, mut text } = match result {
        Ok(value) => return Ok(Ok(value)),
        Err(error) => error,
    };
    text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
    state.log.line(Severity::Warn, "wasi:nn", &text);
    // Nothing can be said without room to say it.
    let handle = Handle::take_for_error(state).map_err(|error| wasmtime::Error::msg(error.text))?;
    Ok(Err(state.table.push(Error { code: kind.into(), text, _handle: handle })?))
}

fn push<T: Send + 'static>(state: &mut GuestState, value: T) -> Result<Resource<T>, InferenceError> {
    state.table.push(value).map_err(|error| InferenceError::new(Kind::RuntimeError, error.to_string()))
}

fn hold_tensor(state: &mut GuestState, bytes: u64) -> Result<(TensorHold, Handle), InferenceError> {
    Ok((state.inference().hold(bytes)?, Handle::take(state)?))
}

fn check_load(
    builder: &WasmList<WasmList<u8>>,
    encoding: GraphEncoding,
    target: ExecutionTarget,
) -> Result<(), InferenceError> {
    if !matches!(encoding, GraphEncoding::Onnx | GraphEncoding::Autodetect) {
        let text = format!("models of {encoding:?} are not there, only those of ONNX");
        return Err(InferenceError::new(Kind::InvalidEncoding, text));
    }
    if target != ExecutionTarget::Cpu {
        let text = format!("the target {target:?} is not there, only the CPU");
        return Err(InferenceError::new(Kind::UnsupportedOperation, text));
    }
    match builder.len() {
        1 => Ok(()),
        parts => Err(InferenceError::new(
            Kind::InvalidArgument,
            format!("a model of ONNX is one part, not {parts}"),
        )),
    }
}

/// Takes a model's bytes out of the guest once it is their turn.
async fn load(
    store: &mut Store<'_>,
    builder: &WasmList<WasmList<u8>>,
) -> wasmtime::Result<Result<Resource<Graph>, InferenceError>> {
    let bytes = builder.get(store.as_context_mut(), 0).expect("it has one part")?;
    let inference = store.data_mut().inference();
    let (len, most) = (bytes.len() as u64, inference.limits().model_bytes_max);
    if len > most {
        let text = format!("a model of {len} bytes, and policy's `inference.model` allows {most}");
        return Ok(Err(InferenceError::new(Kind::TooLarge, text)));
    }
    let state = store.data_mut();
    state.charge_model(len)?;
    let handle = match Handle::take(state) {
        Ok(handle) => handle,
        Err(error) => return Ok(Err(error)),
    };
    let began = state.clock.now();
    let permit = state.answer_patience().within(inference.loading()).await;
    let bytes = permit.is_some().then(|| Bytes::copy_from_slice(bytes.as_le_slice(&*store)));
    let state = store.data_mut();
    state.spend_waiting(state.clock.now().since(began));
    let Some(bytes) = bytes else { return Ok(Err(too_long())) };
    let began = state.clock.now();
    let loaded =
        state.answer_patience().within(inference.load(bytes)).await.unwrap_or_else(|| Err(too_long()));
    drop(permit);
    let state = store.data_mut();
    state.spend_waiting(state.clock.now().since(began));
    Ok(loaded.and_then(|model| push(state, Graph { model: Arc::new(model), _handle: handle })))
}

async fn compute(
    state: &mut GuestState,
    model: &Model,
    inputs: Vec<(String, Tensor)>,
) -> Result<Vec<(String, Resource<Tensor>)>, InferenceError> {
    let inference = state.inference();
    let checked = inputs.iter().map(|(name, tensor)| {
        let Tensor { dimensions, kind, data, .. } = tensor;
        match Checked::new(dimensions.clone(), (*kind).into(), data.clone()) {
            Ok(tensor) => Ok((name.clone(), tensor)),
            Err(error) => {
                Err(InferenceError::new(Kind::InvalidArgument, format!("the input `{name}` has {error}")))
            }
        }
    });
    let checked = checked.collect::<Result<Vec<NamedTensor>, _>>()?;
    let began = state.clock.now();
    let computed = state.answer_patience().within(inference.compute(model, checked)).await;
    state.spend_waiting(state.clock.now().since(began));
    let outputs = computed.unwrap_or_else(|| Err(too_long()))?;
    // Inputs make room for outputs.
    drop(inputs);
    outputs.into_iter().map(|(name, tensor)| Ok((name, give(state, &inference, &tensor)?))).collect()
}

fn give(
    state: &mut GuestState,
    inference: &Inference,
    tensor: &Checked,
) -> Result<Resource<Tensor>, InferenceError> {
    let (dimensions, data) = (tensor.dimensions().to_vec(), tensor.data().clone());
    let hold = inference.hold(bytes_of(&dimensions, &data))?;
    let handle = Handle::take(state)?;
    push(state, Tensor { dimensions, kind: tensor.kind().into(), data, _hold: hold, _handle: handle })
}

fn too_long() -> InferenceError {
    InferenceError::new(Kind::Timeout, "the call has waited as long as it may")
}
