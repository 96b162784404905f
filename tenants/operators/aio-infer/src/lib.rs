//! Map in AIO's contract that runs a model of ONNX on each message, through `wasi:nn`.
//!
//! | parameter | |
//! | --- | --- |
//! | `model` | the model, as base64 |
//! | `input` | name of its input, which takes numbers of f32 in one row; `x` unless it is given |
//! | `load` | `init` to load the model at once; else with the first message |
//!
//! A message `{"x":[1,2]}` is answered with `{"y":[0.5,3],"class":1}`: what the first output
//! has, and which place in it has the largest number.
//!
//! Instead a message may say itself what is done, so that one can do anything with it:
//! `{"model":"AA==","encoding":"onnx","target":"cpu","parts":1}` for a model of its own, or
//! `"name"` for one by name; `"inputs":[{"name":"x","dims":[1,2],"type":"f32","values":[1,2]}]`,
//! or `"bytes":8` for as many zeros in the place of `values`. `"tensors":100` makes so many
//! tensors and keeps them, `"graphs":100` as many graphs of the model. It is answered with
//! `outputs` in the same form, or with `error` and `text`.

wit_bindgen::generate!({
    inline: "
        package tidegate:aio-infer;
        world infer {
            include wasm-graph:processor/map-impl@1.1.0;
            import wasi:nn/errors@0.2.0-rc-2024-10-28;
            import wasi:nn/tensor@0.2.0-rc-2024-10-28;
            import wasi:nn/graph@0.2.0-rc-2024-10-28;
            import wasi:nn/inference@0.2.0-rc-2024-10-28;
        }
    ",
    path: ["../../../wit/deps/nn.wit", "../../../wit/wasm-graph-processor"],
    generate_all,
});

use std::{cell::RefCell, sync::OnceLock};

use exports::wasm_graph::processor::map::Guest;
use serde_json::{Map, Value, json};
use wasi::nn::{
    errors::{Error as NnError, ErrorCode},
    graph::{ExecutionTarget, Graph, GraphEncoding, load, load_by_name},
    inference::GraphExecutionContext,
    tensor::{Tensor, TensorType},
};
use wasm_graph::processor::types::{BufferOrBytes, DataModel, Error, ModuleConfiguration};

struct Infer;

static CONFIGURATION: OnceLock<Vec<(String, String)>> = OnceLock::new();

thread_local! {
    /// The configured model, once it is loaded.
    static CONTEXT: RefCell<Option<GraphExecutionContext>> = const { RefCell::new(None) };
}

fn parameter(name: &str) -> Option<&'static str> {
    let all = CONFIGURATION.get().into_iter().flatten();
    all.into_iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

/// What base64 stands for; what is no base64 is left out.
fn from_base64(text: &str) -> Vec<u8> {
    let (mut bytes, mut bits, mut count) = (Vec::with_capacity(text.len() * 3 / 4), 0_u32, 0);
    for byte in text.bytes() {
        let six = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => continue,
        };
        bits = bits << 6 | u32::from(six);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    bytes
}

fn configured() -> Result<GraphExecutionContext, NnError> {
    let model = from_base64(parameter("model").unwrap_or_default());
    load(&[model], GraphEncoding::Onnx, ExecutionTarget::Cpu)?.init_execution_context()
}

/// Runs the configured model on one row of numbers.
fn classify(row: &[f32]) -> Result<Value, NnError> {
    CONTEXT.with_borrow_mut(|context| {
        if context.is_none() {
            *context = Some(configured()?);
        }
        let context = context.as_ref().expect("it was put there");
        let data: Vec<u8> = row.iter().flat_map(|value| value.to_le_bytes()).collect();
        let tensor = Tensor::new(&[1, row.len() as u32], TensorType::Fp32, &data);
        let input = parameter("input").unwrap_or("x").to_owned();
        let outputs = context.compute(vec![(input, tensor)])?;
        let y: Vec<f32> = outputs.first().map(|(_, tensor)| floats(&tensor.data())).unwrap_or_default();
        let class = (0..y.len()).max_by(|one, other| y[*one].total_cmp(&y[*other]));
        Ok(json!({ "y": y, "class": class }))
    })
}

fn floats(data: &[u8]) -> Vec<f32> {
    data.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().expect("four"))).collect()
}

const TYPES: [(&str, TensorType); 7] = [
    ("f16", TensorType::Fp16),
    ("f32", TensorType::Fp32),
    ("f64", TensorType::Fp64),
    ("bf16", TensorType::Bf16),
    ("u8", TensorType::U8),
    ("i32", TensorType::I32),
    ("i64", TensorType::I64),
];

fn encoded(kind: TensorType, values: &[Value]) -> Vec<u8> {
    let float = |value: &Value| value.as_f64().unwrap_or_default();
    let integer = |value: &Value| value.as_i64().unwrap_or_default();
    let bytes = |value: &Value| match kind {
        // As their bits.
        TensorType::Fp16 | TensorType::Bf16 => (integer(value) as u16).to_le_bytes().to_vec(),
        TensorType::Fp32 => (float(value) as f32).to_le_bytes().to_vec(),
        TensorType::Fp64 => float(value).to_le_bytes().to_vec(),
        TensorType::U8 => vec![integer(value) as u8],
        TensorType::I32 => (integer(value) as i32).to_le_bytes().to_vec(),
        TensorType::I64 => integer(value).to_le_bytes().to_vec(),
    };
    values.iter().flat_map(bytes).collect()
}

fn decoded(kind: TensorType, data: &[u8]) -> Vec<Value> {
    let each = |size: usize, value: fn(&[u8]) -> Value| data.chunks_exact(size).map(value).collect();
    match kind {
        TensorType::Fp16 | TensorType::Bf16 => {
            each(2, |it| json!(u16::from_le_bytes(it.try_into().expect("two"))))
        }
        TensorType::Fp32 => each(4, |it| json!(f32::from_le_bytes(it.try_into().expect("four")))),
        TensorType::Fp64 => each(8, |it| json!(f64::from_le_bytes(it.try_into().expect("eight")))),
        TensorType::U8 => each(1, |it| json!(it[0])),
        TensorType::I32 => each(4, |it| json!(i32::from_le_bytes(it.try_into().expect("four")))),
        TensorType::I64 => each(8, |it| json!(i64::from_le_bytes(it.try_into().expect("eight")))),
    }
}

fn kind_of(value: &Value) -> TensorType {
    let name = value["type"].as_str().unwrap_or("f32");
    TYPES.into_iter().find(|(known, _)| *known == name).map_or(TensorType::Fp32, |(_, kind)| kind)
}

fn numbers(value: &Value) -> Vec<u32> {
    let all = value.as_array().into_iter().flatten();
    all.map(|it| it.as_u64().unwrap_or_default() as u32).collect()
}

fn tensor(value: &Value) -> Tensor {
    let kind = kind_of(value);
    let data = match value["bytes"].as_u64() {
        Some(zeros) => vec![0; zeros as usize],
        None => encoded(kind, value["values"].as_array().map_or(&[], Vec::as_slice)),
    };
    Tensor::new(&numbers(&value["dims"]), kind, &data)
}

fn graph(ask: &Value) -> Result<Graph, NnError> {
    if let Some(name) = ask["name"].as_str() {
        return load_by_name(name);
    }
    let encoding = match ask["encoding"].as_str() {
        Some("openvino") => GraphEncoding::Openvino,
        Some("ggml") => GraphEncoding::Ggml,
        Some("autodetect") => GraphEncoding::Autodetect,
        _ => GraphEncoding::Onnx,
    };
    let target = match ask["target"].as_str() {
        Some("gpu") => ExecutionTarget::Gpu,
        Some("tpu") => ExecutionTarget::Tpu,
        _ => ExecutionTarget::Cpu,
    };
    let model = match &ask["model"] {
        Value::Number(zeros) => vec![0; zeros.as_u64().unwrap_or_default() as usize],
        model => from_base64(model.as_str().or(parameter("model")).unwrap_or_default()),
    };
    let parts = vec![model; ask["parts"].as_u64().unwrap_or(1) as usize];
    load(&parts, encoding, target)
}

fn asked(ask: &Value) -> Result<Value, NnError> {
    let many = |key: &str| 0..ask[key].as_u64().unwrap_or_default();
    let _tensors: Vec<_> = many("tensors").map(|_| tensor(&ask["inputs"][0])).collect();
    let _graphs: Vec<_> = many("graphs").map(|_| graph(ask)).collect::<Result<_, _>>()?;
    let context = graph(ask)?.init_execution_context()?;
    let inputs = ask["inputs"].as_array().into_iter().flatten();
    let inputs = inputs.map(|input| (input["name"].as_str().unwrap_or("x").to_owned(), tensor(input)));
    let outputs = context.compute(inputs.collect())?;
    let described = outputs.into_iter().map(|(name, tensor)| {
        let kind = TYPES.into_iter().find(|(_, kind)| *kind == tensor.ty()).map(|(name, _)| name);
        json!({
            "name": name, "dims": tensor.dimensions(), "type": kind,
            "values": decoded(tensor.ty(), &tensor.data()),
        })
    });
    Ok(json!({ "outputs": described.collect::<Vec<_>>() }))
}

fn name_of(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::InvalidArgument => "invalid-argument",
        ErrorCode::InvalidEncoding => "invalid-encoding",
        ErrorCode::Timeout => "timeout",
        ErrorCode::RuntimeError => "runtime-error",
        ErrorCode::UnsupportedOperation => "unsupported-operation",
        ErrorCode::TooLarge => "too-large",
        ErrorCode::NotFound => "not-found",
        ErrorCode::Security => "security",
        ErrorCode::Unknown => "unknown",
    }
}

fn answer(payload: &[u8]) -> Vec<u8> {
    let message: Value = serde_json::from_slice(payload).unwrap_or_default();
    let result = match message["x"].as_array() {
        Some(row) => {
            let row: Vec<f32> = row.iter().map(|it| it.as_f64().unwrap_or_default() as f32).collect();
            classify(&row)
        }
        None => asked(&message),
    };
    let mut answer = match result {
        Ok(answer) => answer,
        Err(error) => json!({ "error": name_of(error.code()), "text": error.data() }),
    };
    if let (Value::Object(answer), Some(id)) = (&mut answer, message.get("id")) {
        Map::insert(answer, "id".into(), id.clone());
    }
    answer.to_string().into_bytes()
}

impl Guest for Infer {
    fn process(mut message: DataModel) -> Result<DataModel, Error> {
        let payload = match &mut message {
            DataModel::BufferOrBytes(payload) => payload,
            DataModel::Message(message) => &mut message.payload,
            DataModel::Snapshot(snapshot) => &mut snapshot.frame,
        };
        let bytes = match payload {
            BufferOrBytes::Buffer(buffer) => buffer.read(),
            BufferOrBytes::Bytes(bytes) => std::mem::take(bytes),
        };
        *payload = BufferOrBytes::Bytes(answer(&bytes));
        Ok(message)
    }

    fn init(configuration: ModuleConfiguration) -> bool {
        if CONFIGURATION.set(configuration.properties).is_err() {
            return false;
        }
        if parameter("load") != Some("init") {
            return true;
        }
        match configured() {
            Ok(context) => {
                CONTEXT.set(Some(context));
                true
            }
            Err(_) => false,
        }
    }
}

export!(Infer);
