//! Metrics as an OpenTelemetry endpoint of AIO takes them, made of JSON payloads.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::field::Field;

/// Why a payload gives no metric.
#[derive(Debug, thiserror::Error)]
pub enum OtelError {
    #[error("payload is not JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("payload, or its `attributes`, is no object")]
    NoObject,
    #[error("payload has no `{0}`")]
    Absent(Field),
    #[error("`{field}`: expected {expected}, found {found}")]
    Value { field: Field, expected: &'static str, found: Value },
}

/// Types of metrics that the endpoint knows.
const TYPES: [&str; 9] = [
    "u64_counter",
    "f64_counter",
    "i64_up_down_counter",
    "f64_up_down_counter",
    "u64_gauge",
    "i64_gauge",
    "f64_gauge",
    "f64_histogram",
    "u64_histogram",
];

/// Which metric is made, of which fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metric {
    name: Name,
    value: Field,
    r#type: String,
    timestamp: Option<Field>,
    unit: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Name {
    Fixed(String),
    At(Field),
}

impl Metric {
    /// Reads the parameters `metricName` (before `metricNamePath`), `metricValuePath`,
    /// `metricType` (`f64_gauge` if absent), `metricTimestampPath` and `metricUnits`.
    pub fn parse(parameters: &[(String, String)]) -> Result<Self, String> {
        let parameters: BTreeMap<&str, &str> =
            parameters.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        let get = |key: &str| parameters.get(key).copied().filter(|it| !it.is_empty());
        let path = |key: &str| {
            let field =
                |path: &str| Field::try_from(path.to_owned()).map_err(|error| format!("`{key}`: {error}"));
            get(key).map(field).transpose()
        };
        let name = match (get("metricName"), path("metricNamePath")?) {
            (Some(name), _) => Name::Fixed(name.to_owned()),
            (None, Some(path)) => Name::At(path),
            (None, None) => return Err("one of `metricName` and `metricNamePath` is needed".into()),
        };
        let r#type = get("metricType").unwrap_or("f64_gauge").to_owned();
        if !TYPES.contains(&r#type.as_str()) {
            return Err(format!("`metricType`: `{type}` is none of {}", TYPES.join(", ")));
        }
        Ok(Metric {
            name,
            value: path("metricValuePath")?.ok_or("`metricValuePath` is needed")?,
            r#type,
            timestamp: path("metricTimestampPath")?,
            unit: get("metricUnits").map(str::to_owned),
        })
    }

    /// `{"metrics":[{name, type, value, unit?, timestamp?, attributes?}],"logs":[]}`.
    /// The members of the payload's own `attributes` become the metric's.
    pub fn make(&self, payload: &[u8]) -> Result<Vec<u8>, OtelError> {
        let payload: Value = serde_json::from_slice(payload)?;
        let at = |field: &Field| {
            let pointer =
                format!("/{}", field.to_string().replace('~', "~0").replace('/', "~1").replace('.', "/"));
            payload.pointer(&pointer).ok_or_else(|| OtelError::Absent(field.clone()))
        };
        let name = match &self.name {
            Name::Fixed(name) => name.clone(),
            Name::At(field) => match at(field)? {
                Value::String(name) => name.clone(),
                found => return Err(wrong(field, "text", found)),
            },
        };
        let value = at(&self.value)?;
        let (fits, expected) = match self.r#type.as_bytes()[0] {
            b'u' => (value.is_u64(), "a whole number that is not negative"),
            b'i' => (value.is_i64(), "a whole number"),
            _ => (value.is_number(), "a number"),
        };
        if !fits {
            return Err(wrong(&self.value, expected, value));
        }
        let mut metric = Map::new();
        metric.insert("name".into(), name.into());
        metric.insert("type".into(), self.r#type.clone().into());
        metric.insert("value".into(), value.clone());
        if let Some(unit) = &self.unit {
            metric.insert("unit".into(), unit.clone().into());
        }
        if let Some(field) = &self.timestamp {
            metric.insert("timestamp".into(), at(field)?.clone());
        }
        if let Some(Value::Object(attributes)) = payload.get("attributes") {
            let pairs = attributes.iter().map(|(key, value)| json!({ "key": key, "value": value }));
            metric.insert("attributes".into(), pairs.collect());
        }
        Ok(serde_json::to_vec(&json!({ "metrics": [metric], "logs": [] }))?)
    }
}

fn wrong(field: &Field, expected: &'static str, found: &Value) -> OtelError {
    OtelError::Value { field: field.clone(), expected, found: found.clone() }
}

/// The payload with more members in its `attributes`, which is made if it is absent.
pub fn add_attributes(payload: &[u8], more: Vec<(String, Value)>) -> Result<Vec<u8>, OtelError> {
    let mut payload: Value = serde_json::from_slice(payload)?;
    let members = payload.as_object_mut().ok_or(OtelError::NoObject)?;
    let attributes = members.entry("attributes").or_insert_with(|| json!({}));
    attributes.as_object_mut().ok_or(OtelError::NoObject)?.extend(more);
    Ok(serde_json::to_vec(&payload)?)
}

#[cfg(test)]
mod tests;
