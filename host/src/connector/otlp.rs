//! The OpenTelemetry connector: a server that takes what OTLP clients export, over gRPC and
//! HTTP on one port, and answers once it is settled; and a client that exports to a
//! Collector over gRPC, in order. Payloads go through as the protobuf that they are: only
//! what asks for JSON, or comes as it, is taken apart.

mod answer;
mod exporter;
mod form;
mod grpc;
mod gzip;
mod items;
mod json;
mod merged;
mod service;
mod sink;
mod telemetry;
mod wire;

pub(super) use self::service::answer;
pub use self::{
    form::{PROTOBUF, Parsed, Signal},
    sink::OtlpSink,
};

pub mod parsers {
    //! What takes apart what comes from outside, for those who feed it anything.

    pub use super::{
        grpc::{partial_success, retry_after, unframe},
        gzip::inflate,
        items::Items,
        json::{to_json, to_protobuf},
        merged::Merged,
        telemetry::Telemetry,
        wire::check,
    };

    use super::form::Signal;

    /// Whether prost takes `bytes` as a request.
    pub fn is_decoded(signal: Signal, bytes: &[u8]) -> bool {
        super::json::is_decoded(signal, bytes)
    }
}
