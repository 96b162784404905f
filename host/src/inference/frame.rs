//! Frames between the host and the process that runs models: a length, and so many bytes.
//! Both ends read what the other wrote as a stranger's: the process runs a tenant's model.
//!
//! ```text
//!  length: u32 │ id: u32 │ kind: u8 │ what the kind needs      numbers little-endian
//! ```

use bytes::{Buf as _, BufMut as _, Bytes};

use super::{InferenceError, InferenceErrorKind, NamedTensor, Tensor, TensorType};

/// What the process is asked. A drop has no answer.
#[derive(Debug)]
pub enum Ask {
    Load { model: u32, bytes: Bytes },
    Run { model: u32, inputs: Vec<NamedTensor> },
    Drop { model: u32 },
}

/// Loading gives no tensors.
pub type Answer = Result<Vec<NamedTensor>, InferenceError>;

/// Bytes of a frame before what its kind needs, and room for names and dimensions.
pub const OVERHEAD_BYTES_MAX: u64 = 1 << 20;

/// A frame that is none.
#[derive(Debug, thiserror::Error)]
#[error("a frame is not in form")]
pub struct FrameError;

const LOAD: u8 = 0;
const RUN: u8 = 1;
const DROP: u8 = 2;
const DONE: u8 = 3;
const FAILED: u8 = 4;

impl Ask {
    /// The frame in two parts, of which the second is not copied.
    pub fn encode(&self, id: u32) -> (Vec<u8>, Bytes) {
        let mut body = Vec::new();
        let (kind, model, rest) = match self {
            Ask::Load { model, bytes } => (LOAD, *model, bytes.clone()),
            Ask::Run { model, .. } => (RUN, *model, Bytes::new()),
            Ask::Drop { model } => (DROP, *model, Bytes::new()),
        };
        body.put_u32_le(id);
        body.put_u8(kind);
        body.put_u32_le(model);
        if let Ask::Run { inputs, .. } = self {
            put_tensors(&mut body, inputs);
        }
        (framed(body, rest.len()), rest)
    }

    #[cfg_attr(not(feature = "wasi-nn"), allow(dead_code, reason = "no process reads it"))]
    pub fn decode(mut body: Bytes) -> Result<(u32, Ask), FrameError> {
        let id = get_u32(&mut body)?;
        let kind = get_u8(&mut body)?;
        let model = get_u32(&mut body)?;
        let ask = match kind {
            LOAD => Ask::Load { model, bytes: std::mem::take(&mut body) },
            RUN => Ask::Run { model, inputs: get_tensors(&mut body)? },
            DROP => Ask::Drop { model },
            _ => return Err(FrameError),
        };
        if body.is_empty() { Ok((id, ask)) } else { Err(FrameError) }
    }
}

#[cfg_attr(not(feature = "wasi-nn"), allow(dead_code, reason = "no process writes it"))]
pub fn encode_answer(id: u32, answer: &Answer) -> Vec<u8> {
    let mut body = Vec::new();
    body.put_u32_le(id);
    match answer {
        Ok(outputs) => {
            body.put_u8(DONE);
            put_tensors(&mut body, outputs);
        }
        Err(InferenceError { kind, text }) => {
            body.put_u8(FAILED);
            body.put_u8(place_of(&InferenceErrorKind::ALL, kind));
            put_bytes(&mut body, text.as_bytes());
        }
    }
    framed(body, 0)
}

pub fn decode_answer(mut body: Bytes) -> Result<(u32, Answer), FrameError> {
    let id = get_u32(&mut body)?;
    let answer = match get_u8(&mut body)? {
        DONE => Ok(get_tensors(&mut body)?),
        FAILED => {
            let kind = InferenceErrorKind::ALL.get(usize::from(get_u8(&mut body)?)).ok_or(FrameError)?;
            Err(InferenceError::new(*kind, get_text(&mut body)?))
        }
        _ => return Err(FrameError),
    };
    if body.is_empty() { Ok((id, answer)) } else { Err(FrameError) }
}

/// With its length before it, and that of what follows it.
fn framed(body: Vec<u8>, rest_len: usize) -> Vec<u8> {
    let len = u32::try_from(body.len() + rest_len).expect("models and tensors are bounded far below that");
    let mut frame = Vec::with_capacity(4 + body.len());
    frame.put_u32_le(len);
    frame.extend_from_slice(&body);
    frame
}

fn place_of<T: PartialEq>(all: &[T], one: &T) -> u8 {
    all.iter().position(|it| it == one).expect("all are there") as u8
}

fn put_bytes(body: &mut Vec<u8>, bytes: &[u8]) {
    body.put_u32_le(bytes.len() as u32);
    body.extend_from_slice(bytes);
}

fn put_tensors(body: &mut Vec<u8>, tensors: &[NamedTensor]) {
    body.put_u32_le(tensors.len() as u32);
    for (name, tensor) in tensors {
        put_bytes(body, name.as_bytes());
        body.put_u8(place_of(&TensorType::ALL, &tensor.kind()));
        body.put_u32_le(tensor.dimensions().len() as u32);
        tensor.dimensions().iter().for_each(|size| body.put_u32_le(*size));
        put_bytes(body, tensor.data());
    }
}

fn get_u8(body: &mut Bytes) -> Result<u8, FrameError> {
    body.try_get_u8().map_err(|_| FrameError)
}

fn get_u32(body: &mut Bytes) -> Result<u32, FrameError> {
    body.try_get_u32_le().map_err(|_| FrameError)
}

fn get_bytes(body: &mut Bytes) -> Result<Bytes, FrameError> {
    let len = get_u32(body)? as usize;
    if len > body.len() { Err(FrameError) } else { Ok(body.split_to(len)) }
}

fn get_text(body: &mut Bytes) -> Result<String, FrameError> {
    String::from_utf8(get_bytes(body)?.to_vec()).map_err(|_| FrameError)
}

fn get_tensors(body: &mut Bytes) -> Result<Vec<NamedTensor>, FrameError> {
    let count = get_u32(body)?;
    // Nothing is set aside for what a count only claims.
    let mut tensors = Vec::new();
    for _ in 0..count {
        let name = get_text(body)?;
        let kind = *TensorType::ALL.get(usize::from(get_u8(body)?)).ok_or(FrameError)?;
        let rank = get_u32(body)?;
        let mut dimensions = Vec::new();
        for _ in 0..rank {
            dimensions.push(get_u32(body)?);
        }
        let tensor = Tensor::new(dimensions, kind, get_bytes(body)?).map_err(|_| FrameError)?;
        tensors.push((name, tensor));
    }
    Ok(tensors)
}

#[cfg(test)]
mod tests;
