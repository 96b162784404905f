//! `Signal`: what a request is of; and `Parsed`: a request that was checked. Knows no
//! transports.

use bytes::Bytes;

use super::{items::Items, wire};

/// What OTLP carries. Its name is the topic of its messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Signal {
    Traces,
    Metrics,
    Logs,
}

/// Content types of payloads.
pub const PROTOBUF: &str = "application/x-protobuf";
pub const JSON: &str = "application/json";

impl Signal {
    pub const ALL: [Signal; 3] = [Signal::Traces, Signal::Metrics, Signal::Logs];

    /// The topic of its messages, and the end of its path over HTTP.
    pub fn name(self) -> &'static str {
        match self {
            Signal::Traces => "traces",
            Signal::Metrics => "metrics",
            Signal::Logs => "logs",
        }
    }

    pub fn of_name(name: &str) -> Option<Self> {
        Signal::ALL.into_iter().find(|signal| signal.name() == name)
    }

    /// Where its service takes requests over gRPC.
    pub fn method(self) -> &'static str {
        match self {
            Signal::Traces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            Signal::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
            Signal::Logs => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
        }
    }

    /// How the items of it that are refused are named in JSON.
    pub fn rejected(self) -> &'static str {
        match self {
            Signal::Traces => "rejectedSpans",
            Signal::Metrics => "rejectedDataPoints",
            Signal::Logs => "rejectedLogRecords",
        }
    }
}

/// A request whose protobuf was checked, with the places of its items: spans, data points
/// or log records.
#[derive(Debug)]
pub struct Parsed {
    pub signal: Signal,
    pub protobuf: Bytes,
    pub items: Items,
}

/// Why a request is not taken.
#[derive(Debug, thiserror::Error)]
pub enum ParseError {
    #[error("the request is no OTLP in protobuf: {0}")]
    Protobuf(#[from] wire::Malformed),
    #[error("the request is no OTLP in JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("the request has more objects than its size allows")]
    Dense,
    #[error("the request has more than {} items", Items::MAX)]
    Many,
}

impl Parsed {
    pub fn of(signal: Signal, protobuf: Bytes) -> Result<Self, ParseError> {
        wire::check(signal, &protobuf)?;
        let items = Items::of(signal, &protobuf).ok_or(ParseError::Many)?;
        Ok(Parsed { signal, protobuf, items })
    }
}
