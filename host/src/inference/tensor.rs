//! `Tensor`: what goes into a model and comes out of it, in the types of `wasi:nn`.
//! Holding one is the proof that its data has the length that its dimensions say.

use bytes::Bytes;

/// Most dimensions of a tensor: more than any operator of ONNX makes sense of.
const RANK_MAX: usize = 16;

/// The types of elements that `wasi:nn` has, in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TensorType {
    F16,
    F32,
    F64,
    Bf16,
    U8,
    I32,
    I64,
}

impl TensorType {
    pub const ALL: [TensorType; 7] = [
        TensorType::F16,
        TensorType::F32,
        TensorType::F64,
        TensorType::Bf16,
        TensorType::U8,
        TensorType::I32,
        TensorType::I64,
    ];

    fn bytes(self) -> u64 {
        match self {
            TensorType::U8 => 1,
            TensorType::F16 | TensorType::Bf16 => 2,
            TensorType::F32 | TensorType::I32 => 4,
            TensorType::F64 | TensorType::I64 => 8,
        }
    }
}

/// A tensor and the name of the input or output that it is for.
pub type NamedTensor = (String, Tensor);

/// Elements in row-major order, each in little-endian order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    dimensions: Vec<u32>,
    kind: TensorType,
    data: Bytes,
}

/// Why parts are no tensor.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TensorError {
    #[error("{0} dimensions, {RANK_MAX} are allowed")]
    Rank(usize),
    #[error("{found} bytes of data, and {kind:?} of {dimensions:?} has {}", .expected.map_or("more than there are".into(), |it| it.to_string()))]
    Length { found: usize, kind: TensorType, dimensions: Vec<u32>, expected: Option<u64> },
}

impl Tensor {
    pub fn new(dimensions: Vec<u32>, kind: TensorType, data: Bytes) -> Result<Self, TensorError> {
        if dimensions.len() > RANK_MAX {
            return Err(TensorError::Rank(dimensions.len()));
        }
        let expected =
            dimensions.iter().try_fold(kind.bytes(), |bytes, size| bytes.checked_mul((*size).into()));
        if expected != Some(data.len() as u64) {
            return Err(TensorError::Length { found: data.len(), kind, dimensions, expected });
        }
        Ok(Tensor { dimensions, kind, data })
    }

    pub fn dimensions(&self) -> &[u32] {
        &self.dimensions
    }

    pub fn kind(&self) -> TensorType {
        self.kind
    }

    pub fn data(&self) -> &Bytes {
        &self.data
    }
}

#[cfg(test)]
mod tests;
