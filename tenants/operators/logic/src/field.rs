//! `Field`: the name of a value within a JSON payload, such as `temperature` or
//! `geometry.coordinates.2`, and reading it.

use std::fmt;
use std::ops::Range;

use serde::Deserialize;

use crate::json::{self, JsonError};

/// Names of members and indices into arrays, joined by dots.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Field {
    segments: Vec<String>,
}

impl TryFrom<String> for Field {
    type Error = String;

    fn try_from(path: String) -> Result<Self, String> {
        let segments: Vec<String> = path.split('.').map(Into::into).collect();
        if segments.iter().any(String::is_empty) {
            return Err(format!(
                "expected a field such as `temperature` or `geometry.depth`, found `{path}`"
            ));
        }
        Ok(Field { segments })
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.segments.join("."))
    }
}

impl Field {
    /// Its own name, and the path of the object that it is a member of.
    pub fn split(&self) -> (&str, &[String]) {
        let (name, object) = self.segments.split_last().expect("a field has at least one segment");
        (name, object)
    }

    /// Where it lies.
    pub fn find(&self, json: &str) -> Result<Range<usize>, FieldError> {
        json::find(json, &self.segments)?.ok_or_else(|| FieldError::Missing { field: self.to_string() })
    }

    /// Reads it as a number.
    pub fn number(&self, payload: &[u8]) -> Result<f64, FieldError> {
        let json = json::text(payload)?;
        self.parse(&json[self.find(json)?])
    }

    /// Parses its value.
    pub fn parse(&self, value: &str) -> Result<f64, FieldError> {
        // Rust takes a few words for numbers; JSON does not.
        if value.starts_with(|first: char| first == '-' || first.is_ascii_digit())
            && let Ok(number) = value.parse()
        {
            return Ok(number);
        }
        Err(FieldError::Type { field: self.to_string(), expected: "a number" })
    }
}

/// Why a payload could not be worked on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    #[error(transparent)]
    Json(#[from] JsonError),
    #[error("payload has no field `{field}`")]
    Missing { field: String },
    #[error("field `{field}` is not {expected}")]
    Type { field: String, expected: &'static str },
    #[error("result for field `{field}` is no finite number")]
    Infinite { field: String },
    #[error("output refused")]
    Write(#[from] fmt::Error),
}
