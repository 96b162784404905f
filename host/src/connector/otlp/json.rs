//! OTLP in JSON, as protobuf and back: the mapping of the OpenTelemetry project, with ids in
//! hexadecimal, numbers of 64 bits as text, and enums as numbers. What comes is taken apart
//! item by item, so that never more than one of them is decoded.

use opentelemetry_proto::tonic::{
    collector::{
        logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest,
        trace::v1::ExportTraceServiceRequest,
    },
    common::v1::InstrumentationScope,
    logs::v1::LogRecord,
    metrics::v1::Metric,
    resource::v1::Resource,
    trace::v1::Span,
};
use prost::Message;
use serde::{
    Deserialize, Serialize,
    de::{DeserializeOwned, Error as _},
};
use serde_json::value::RawValue;

use super::{
    form::{ParseError, Signal},
    wire::put_head,
};

/// An object takes up to so many times its shortest text when decoded; those of exporters
/// are twice as long. Small requests may have any.
const BYTES_PER_OBJECT: usize = 16;
const OBJECTS_ANYWAY: usize = 1 << 16;

/// The protobuf of a request in JSON.
pub fn to_protobuf(signal: Signal, json: &[u8]) -> Result<Vec<u8>, ParseError> {
    if !json.trim_ascii_start().starts_with(b"{") {
        // A list in its order would be read as well.
        return Err(serde_json::Error::custom("a request is an object").into());
    }
    let objects = json.iter().filter(|byte| **byte == b'{').count();
    if objects > OBJECTS_ANYWAY + json.len() / BYTES_PER_OBJECT {
        return Err(ParseError::Dense);
    }
    let RawRequest { spans, metrics, logs } = serde_json::from_slice(json)?;
    let mut out = Vec::with_capacity(json.len() / 2);
    match signal {
        Signal::Traces => put_resources::<Span>(spans, &mut out)?,
        Signal::Metrics => put_resources::<Metric>(metrics, &mut out)?,
        Signal::Logs => put_resources::<LogRecord>(logs, &mut out)?,
    }
    Ok(out)
}

/// A request in protobuf, which was checked, as JSON.
pub fn to_json(signal: Signal, protobuf: &[u8]) -> Vec<u8> {
    match signal {
        Signal::Traces => write::<ExportTraceServiceRequest>(protobuf),
        Signal::Metrics => write::<ExportMetricsServiceRequest>(protobuf),
        Signal::Logs => write::<ExportLogsServiceRequest>(protobuf),
    }
}

/// Whether prost takes `bytes` as a request.
pub(super) fn is_decoded(signal: Signal, bytes: &[u8]) -> bool {
    match signal {
        Signal::Traces => ExportTraceServiceRequest::decode(bytes).is_ok(),
        Signal::Metrics => ExportMetricsServiceRequest::decode(bytes).is_ok(),
        Signal::Logs => ExportLogsServiceRequest::decode(bytes).is_ok(),
    }
}

fn write<M: Message + Default + Serialize>(protobuf: &[u8]) -> Vec<u8> {
    let message = M::decode(protobuf).expect("it was checked");
    serde_json::to_vec(&message).expect("every message has its JSON")
}

/// Of one signal there is no more than its own; whatever else lies there is nobody's.
#[derive(Deserialize)]
struct RawRequest<'a> {
    #[serde(borrow, default, rename = "resourceSpans")]
    spans: Vec<RawResource<'a>>,
    #[serde(borrow, default, rename = "resourceMetrics")]
    metrics: Vec<RawResource<'a>>,
    #[serde(borrow, default, rename = "resourceLogs")]
    logs: Vec<RawResource<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawResource<'a> {
    #[serde(borrow, default)]
    resource: Option<&'a RawValue>,
    #[serde(borrow, default, alias = "scopeMetrics", alias = "scopeLogs")]
    scope_spans: Vec<RawScope<'a>>,
    #[serde(default)]
    schema_url: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawScope<'a> {
    #[serde(borrow, default)]
    scope: Option<&'a RawValue>,
    #[serde(borrow, default, alias = "metrics", alias = "logRecords")]
    spans: Vec<&'a RawValue>,
    #[serde(default)]
    schema_url: String,
}

const RESOURCES: u32 = 1;
const OWNER: u32 = 1;
const CHILDREN: u32 = 2;
const SCHEMA_URL: u32 = 3;

fn put_resources<I>(resources: Vec<RawResource<'_>>, out: &mut Vec<u8>) -> Result<(), ParseError>
where
    I: Message + Default + DeserializeOwned,
{
    let (mut inner, mut scope_inner, mut message) = (Vec::new(), Vec::new(), Vec::new());
    for RawResource { resource, scope_spans, schema_url } in resources {
        inner.clear();
        put::<Resource>(OWNER, resource, &mut message, &mut inner)?;
        for RawScope { scope, spans, schema_url } in scope_spans {
            scope_inner.clear();
            put::<InstrumentationScope>(OWNER, scope, &mut message, &mut scope_inner)?;
            for item in spans {
                put::<I>(CHILDREN, Some(item), &mut message, &mut scope_inner)?;
            }
            put_text(SCHEMA_URL, &schema_url, &mut scope_inner);
            put_field(CHILDREN, &scope_inner, &mut inner);
        }
        put_text(SCHEMA_URL, &schema_url, &mut inner);
        put_field(RESOURCES, &inner, out);
    }
    Ok(())
}

/// Writes what a piece of JSON says as a field; `message` is room for it.
fn put<M>(
    number: u32,
    json: Option<&RawValue>,
    message: &mut Vec<u8>,
    out: &mut Vec<u8>,
) -> Result<(), ParseError>
where
    M: Message + Default + DeserializeOwned,
{
    let Some(json) = json.filter(|json| json.get() != "null") else { return Ok(()) };
    let read: M = serde_json::from_str(json.get())?;
    message.clear();
    read.encode(message).expect("there is room");
    put_field(number, message, out);
    Ok(())
}

fn put_text(number: u32, text: &str, out: &mut Vec<u8>) {
    if !text.is_empty() {
        put_field(number, text.as_bytes(), out);
    }
}

fn put_field(number: u32, inner: &[u8], out: &mut Vec<u8>) {
    put_head(number, inner.len(), out);
    out.extend_from_slice(inner);
}

#[cfg(test)]
mod tests;
