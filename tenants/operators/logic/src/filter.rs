//! `Filter`: compares one field of a JSON payload with a value.

use serde::Deserialize;

use crate::field::{Field, FieldError};
use crate::json;

/// `field`, `op` (`gt`, `ge`, `lt`, `le`, `eq`, `ne`) and `value`. A value that is a
/// number or `true` or `false` is compared as such, any other as text, for which only
/// `eq` and `ne` are meant.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "RawFilter")]
pub struct Filter {
    field: Field,
    op: Op,
    value: Value,
}

#[derive(Deserialize)]
struct RawFilter {
    field: Field,
    op: Op,
    value: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Op {
    Gt,
    Ge,
    Lt,
    Le,
    Eq,
    Ne,
}

#[derive(Clone, Debug, PartialEq)]
enum Value {
    Number(f64),
    Bool(bool),
    Text(String),
}

impl TryFrom<RawFilter> for Filter {
    type Error = String;

    fn try_from(raw: RawFilter) -> Result<Self, String> {
        let RawFilter { field, op, value } = raw;
        let value = match (value.trim().parse::<f64>(), value.as_str()) {
            (Ok(number), _) if number.is_finite() => Value::Number(number),
            (_, "true") => Value::Bool(true),
            (_, "false") => Value::Bool(false),
            _ => Value::Text(value),
        };
        if !matches!(value, Value::Number(_)) && !matches!(op, Op::Eq | Op::Ne) {
            return Err(
                "configuration key `value`: only numbers can be compared by `gt`, `ge`, `lt` and `le`".into(),
            );
        }
        Ok(Filter { field, op, value })
    }
}

impl Filter {
    /// Whether the comparison holds.
    pub fn passes(&self, payload: &[u8]) -> Result<bool, FieldError> {
        let json = json::text(payload)?;
        let found = &json[self.field.find(json)?];
        let is_equal = match &self.value {
            Value::Number(value) => return Ok(self.compare(self.field.parse(found)?, *value)),
            Value::Bool(value) => found == if *value { "true" } else { "false" },
            Value::Text(text) if found.starts_with('"') => json::is_string(found, text),
            Value::Text(_) => {
                return Err(FieldError::Type { field: self.field.to_string(), expected: "text" });
            }
        };
        Ok(is_equal == (self.op == Op::Eq))
    }

    fn compare(&self, found: f64, value: f64) -> bool {
        match self.op {
            Op::Gt => found > value,
            Op::Ge => found >= value,
            Op::Lt => found < value,
            Op::Le => found <= value,
            Op::Eq => found == value,
            Op::Ne => found != value,
        }
    }
}

#[cfg(test)]
mod tests;
