//! AIO's OpenTelemetry payload form, `{"metrics": […], "logs": […]}`, as requests of OTLP.
//! A message is taken whole or not at all. What AIO's instruments are told is an increment
//! or a value, so sums and histograms are of delta temporality. Knows no connections.

use chrono::DateTime;
use opentelemetry_proto::tonic::{
    collector::{logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest},
    common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList, any_value},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber},
    metrics::v1::{
        AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint,
        ResourceMetrics, ScopeMetrics, Sum, metric, number_data_point,
    },
    resource::v1::Resource,
};
use prost::Message as _;
use serde::Deserialize;
use serde_json::Value;

/// Bounds of a histogram's buckets, as OpenTelemetry's SDKs have them.
const BOUNDS: [f64; 15] = [
    0.0, 5.0, 10.0, 25.0, 50.0, 75.0, 100.0, 250.0, 500.0, 750.0, 1_000.0, 2_500.0, 5_000.0, 7_500.0,
    10_000.0,
];

/// What one message says, as a request for each signal that it says something of.
#[derive(Debug, PartialEq)]
pub struct Telemetry {
    /// A request, unless it has none.
    pub metrics: Option<Vec<u8>>,
    pub logs: Option<Vec<u8>>,
}

/// Why a message is not in AIO's form.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error("it is not in the form of OpenTelemetry endpoints: {0}")]
    Form(#[from] serde_json::Error),
    #[error("it has neither `metrics` nor `logs`")]
    Empty,
    #[error("the value {value} of `{name}` is no {kind}")]
    Number { name: String, value: String, kind: &'static str },
    #[error("`{0}` is no time: a number of nanoseconds since 1970 or RFC 3339")]
    Time(String),
}

#[derive(Deserialize)]
struct RawTelemetry {
    metrics: Option<Vec<RawMetric>>,
    logs: Option<Vec<RawLog>>,
}

#[derive(Deserialize)]
struct RawMetric {
    name: String,
    #[serde(rename = "type")]
    kind: Kind,
    value: serde_json::Number,
    #[serde(default)]
    description: String,
    #[serde(default)]
    unit: String,
    timestamp: Option<Value>,
    attributes: Option<Vec<RawAttribute>>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    U64Counter,
    F64Counter,
    I64UpDownCounter,
    F64UpDownCounter,
    U64Gauge,
    I64Gauge,
    F64Gauge,
    F64Histogram,
    U64Histogram,
}

#[derive(Deserialize)]
struct RawLog {
    value: String,
    level: Level,
    timestamp: Option<Value>,
    attributes: Option<Vec<RawAttribute>>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    Trace,
    Debug,
    Info,
    #[serde(alias = "warning")]
    Warn,
    Error,
    Fatal,
}

#[derive(Deserialize)]
struct RawAttribute {
    key: String,
    value: Value,
}

impl Telemetry {
    /// Reads one message of a tenant; `nanos` is its time, for what says none.
    pub fn parse(payload: &[u8], tenant: &str, nanos: u64) -> Result<Self, TelemetryError> {
        let RawTelemetry { metrics, logs } = serde_json::from_slice(payload)?;
        if metrics.is_none() && logs.is_none() {
            return Err(TelemetryError::Empty);
        }
        let metrics: Vec<_> =
            metrics.into_iter().flatten().map(|it| it.metric(nanos)).collect::<Result<_, _>>()?;
        let logs: Vec<_> = logs.into_iter().flatten().map(|it| it.record(nanos)).collect::<Result<_, _>>()?;
        Ok(Telemetry {
            metrics: (!metrics.is_empty()).then(|| request_of_metrics(metrics, tenant)),
            logs: (!logs.is_empty()).then(|| request_of_logs(logs, tenant)),
        })
    }
}

fn request_of_metrics(metrics: Vec<Metric>, tenant: &str) -> Vec<u8> {
    let scope_metrics = vec![ScopeMetrics { scope: Some(scope()), metrics, ..Default::default() }];
    let resource = Some(resource(tenant));
    let resource_metrics = vec![ResourceMetrics { resource, scope_metrics, ..Default::default() }];
    ExportMetricsServiceRequest { resource_metrics }.encode_to_vec()
}

fn request_of_logs(log_records: Vec<LogRecord>, tenant: &str) -> Vec<u8> {
    let scope_logs = vec![ScopeLogs { scope: Some(scope()), log_records, ..Default::default() }];
    let resource_logs =
        vec![ResourceLogs { resource: Some(resource(tenant)), scope_logs, ..Default::default() }];
    ExportLogsServiceRequest { resource_logs }.encode_to_vec()
}

/// Who says it: the message itself names nobody.
fn resource(tenant: &str) -> Resource {
    let text = |key: &str, value: &str| KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) }),
        ..Default::default()
    };
    let attributes = vec![text("service.name", "tidegate"), text("service.namespace", tenant)];
    Resource { attributes, ..Default::default() }
}

fn scope() -> InstrumentationScope {
    InstrumentationScope { name: "tidegate".to_owned(), ..Default::default() }
}

impl RawMetric {
    fn metric(self, nanos: u64) -> Result<Metric, TelemetryError> {
        let time_unix_nano = time(self.timestamp.as_ref(), nanos)?;
        let value = number(self.kind, &self.name, &self.value)?;
        let attributes = attributes(self.attributes);
        let data_points =
            vec![NumberDataPoint { attributes, time_unix_nano, value: Some(value), ..Default::default() }];
        let delta = AggregationTemporality::Delta as i32;
        let sum = |data_points, is_monotonic| {
            metric::Data::Sum(Sum { data_points, aggregation_temporality: delta, is_monotonic })
        };
        let data = match self.kind {
            Kind::U64Counter | Kind::F64Counter => sum(data_points, true),
            Kind::I64UpDownCounter | Kind::F64UpDownCounter => sum(data_points, false),
            Kind::U64Gauge | Kind::I64Gauge | Kind::F64Gauge => metric::Data::Gauge(Gauge { data_points }),
            Kind::F64Histogram | Kind::U64Histogram => {
                let data_points = data_points.into_iter().map(histogram_point).collect();
                metric::Data::Histogram(Histogram { data_points, aggregation_temporality: delta })
            }
        };
        Ok(Metric {
            name: self.name,
            description: self.description,
            unit: self.unit,
            data: Some(data),
            ..Default::default()
        })
    }
}

/// A number as the instrument takes it.
fn number(
    kind: Kind,
    name: &str,
    value: &serde_json::Number,
) -> Result<number_data_point::Value, TelemetryError> {
    let (read, kind) = match kind {
        // OTLP's whole numbers are signed.
        Kind::U64Counter | Kind::U64Gauge | Kind::U64Histogram => {
            let whole = value.as_u64().and_then(|value| i64::try_from(value).ok());
            (whole.map(number_data_point::Value::AsInt), "whole number that is not negative")
        }
        Kind::I64UpDownCounter | Kind::I64Gauge => {
            (value.as_i64().map(number_data_point::Value::AsInt), "whole number")
        }
        Kind::F64Counter => {
            let counted = value.as_f64().filter(|value| *value >= 0.0);
            (counted.map(number_data_point::Value::AsDouble), "number that is not negative")
        }
        Kind::F64UpDownCounter | Kind::F64Gauge | Kind::F64Histogram => {
            (value.as_f64().map(number_data_point::Value::AsDouble), "number")
        }
    };
    read.ok_or_else(|| TelemetryError::Number { name: name.to_owned(), value: value.to_string(), kind })
}

/// Of one value.
fn histogram_point(point: NumberDataPoint) -> HistogramDataPoint {
    let value = match point.value {
        Some(number_data_point::Value::AsInt(value)) => value as f64,
        Some(number_data_point::Value::AsDouble(value)) => value,
        None => 0.0,
    };
    let mut bucket_counts = vec![0; BOUNDS.len() + 1];
    bucket_counts[BOUNDS.partition_point(|bound| *bound < value)] = 1;
    HistogramDataPoint {
        attributes: point.attributes,
        time_unix_nano: point.time_unix_nano,
        count: 1,
        sum: Some(value),
        min: Some(value),
        max: Some(value),
        bucket_counts,
        explicit_bounds: BOUNDS.to_vec(),
        ..Default::default()
    }
}

impl RawLog {
    fn record(self, nanos: u64) -> Result<LogRecord, TelemetryError> {
        let (severity, text) = match self.level {
            Level::Trace => (SeverityNumber::Trace, "TRACE"),
            Level::Debug => (SeverityNumber::Debug, "DEBUG"),
            Level::Info => (SeverityNumber::Info, "INFO"),
            Level::Warn => (SeverityNumber::Warn, "WARN"),
            Level::Error => (SeverityNumber::Error, "ERROR"),
            Level::Fatal => (SeverityNumber::Fatal, "FATAL"),
        };
        Ok(LogRecord {
            time_unix_nano: time(self.timestamp.as_ref(), nanos)?,
            observed_time_unix_nano: nanos,
            severity_number: severity as i32,
            severity_text: text.to_owned(),
            body: Some(AnyValue { value: Some(any_value::Value::StringValue(self.value)) }),
            attributes: attributes(self.attributes),
            ..Default::default()
        })
    }
}

fn time(timestamp: Option<&Value>, otherwise: u64) -> Result<u64, TelemetryError> {
    let wrong = |value: &Value| TelemetryError::Time(value.to_string());
    match timestamp {
        None | Some(Value::Null) => Ok(otherwise),
        Some(value @ Value::Number(nanos)) => nanos.as_u64().ok_or_else(|| wrong(value)),
        Some(value @ Value::String(text)) => {
            let time = DateTime::parse_from_rfc3339(text).map_err(|_| wrong(value))?;
            let nanos = time.timestamp_nanos_opt().ok_or_else(|| wrong(value))?;
            u64::try_from(nanos).map_err(|_| wrong(value))
        }
        Some(other) => Err(wrong(other)),
    }
}

fn attributes(attributes: Option<Vec<RawAttribute>>) -> Vec<KeyValue> {
    let attributes = attributes.into_iter().flatten();
    attributes
        .map(|RawAttribute { key, value }| KeyValue {
            key,
            value: Some(any_value(value)),
            ..Default::default()
        })
        .collect()
}

fn any_value(value: Value) -> AnyValue {
    let value = match value {
        Value::Null => None,
        Value::Bool(value) => Some(any_value::Value::BoolValue(value)),
        Value::String(value) => Some(any_value::Value::StringValue(value)),
        Value::Number(value) => Some(match value.as_i64() {
            Some(whole) => any_value::Value::IntValue(whole),
            None => any_value::Value::DoubleValue(value.as_f64().unwrap_or(f64::NAN)),
        }),
        Value::Array(values) => {
            let values = values.into_iter().map(any_value).collect();
            Some(any_value::Value::ArrayValue(ArrayValue { values }))
        }
        Value::Object(members) => {
            let pair = |(key, value)| KeyValue { key, value: Some(any_value(value)), ..Default::default() };
            let values = members.into_iter().map(pair).collect();
            Some(any_value::Value::KvlistValue(KeyValueList { values }))
        }
    };
    AnyValue { value }
}

#[cfg(test)]
mod tests;
