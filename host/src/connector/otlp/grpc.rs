//! gRPC's own forms: frames of a message each, the status that ends an answer, and what a
//! status says of when to come again. Knows no connections.

use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceResponse,
};
use prost::Message;
use tonic::{
    Code, Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

/// A flag, and the length of what follows.
pub(super) const HEAD_BYTES: usize = 5;

/// Why a body is not one frame.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("the body is not one message in a frame of gRPC")]
    Broken,
}

/// The one message of a body, and whether it is compressed.
pub fn unframe(mut body: Bytes) -> Result<(Bytes, bool), FrameError> {
    if body.len() < HEAD_BYTES {
        return Err(FrameError::Broken);
    }
    let (flag, len) = (body.get_u8(), body.get_u32() as usize);
    if len != body.len() || flag > 1 { Err(FrameError::Broken) } else { Ok((body, flag == 1)) }
}

/// A message in its frame.
pub(super) fn frame(message: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(HEAD_BYTES + message.len());
    framed.put_u8(0);
    framed.put_u32(message.len() as u32);
    framed.put_slice(message);
    framed.freeze()
}

/// google.rpc.Status: what an error says besides its code, over either protocol.
#[derive(Clone, PartialEq, Message)]
pub struct RpcStatus {
    #[prost(int32, tag = "1")]
    pub code: i32,
    #[prost(string, tag = "2")]
    pub message: String,
    #[prost(message, repeated, tag = "3")]
    pub details: Vec<Any>,
}

/// google.protobuf.Any.
#[derive(Clone, PartialEq, Message)]
pub struct Any {
    #[prost(string, tag = "1")]
    pub type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
}

/// google.rpc.RetryInfo.
#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    delay: Option<Delay>,
}

/// google.protobuf.Duration.
#[derive(Clone, PartialEq, Message)]
struct Delay {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

const RETRY_INFO: &str = "type.googleapis.com/google.rpc.RetryInfo";

impl RpcStatus {
    /// With `retry`, the client may come again after so long.
    pub fn new(code: Code, message: &str, retry: Option<Duration>) -> Self {
        let detail = |delay: Duration| {
            let delay = Delay { seconds: delay.as_secs() as i64, nanos: delay.subsec_nanos() as i32 };
            Any { type_url: RETRY_INFO.to_owned(), value: RetryInfo { delay: Some(delay) }.encode_to_vec() }
        };
        RpcStatus {
            code: code as i32,
            message: message.to_owned(),
            details: retry.map(detail).into_iter().collect(),
        }
    }
}

/// What the details of a status say of when to come again.
pub fn retry_after(details: &[u8]) -> Option<Duration> {
    let status = RpcStatus::decode(details).ok()?;
    let detail = status.details.iter().find(|detail| detail.type_url == RETRY_INFO)?;
    let Delay { seconds, nanos } = RetryInfo::decode(&detail.value[..]).ok()?.delay.unwrap_or_default();
    let seconds = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    Some(seconds.saturating_add(Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))))
}

/// What an answer says of items that were not taken: how many, and why. Answers of all
/// signals are written alike.
pub fn partial_success(answer: &[u8]) -> Option<(i64, String)> {
    let answer = ExportTraceServiceResponse::decode(answer).ok()?;
    let ExportTracePartialSuccess { rejected_spans, error_message } = answer.partial_success?;
    (rejected_spans != 0 || !error_message.is_empty()).then_some((rejected_spans, error_message))
}

/// An answer, with what was not taken and why.
pub(super) fn success(rejected: u64, message: &str) -> Vec<u8> {
    let partial = ExportTracePartialSuccess {
        rejected_spans: i64::try_from(rejected).unwrap_or(i64::MAX),
        error_message: message.to_owned(),
    };
    let partial_success = (rejected > 0).then_some(partial);
    ExportTraceServiceResponse { partial_success }.encode_to_vec()
}

/// Messages as the bytes that they are.
pub(super) struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(message);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

#[cfg(test)]
mod tests;
