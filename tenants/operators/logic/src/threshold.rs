//! `Threshold`: tells payloads apart by one number.

use serde::Deserialize;

use crate::field::{Field, FieldError};

/// `field` and `threshold`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Threshold {
    field: Field,
    threshold: f64,
}

impl Threshold {
    /// True at the threshold and above it.
    pub fn is_reached(&self, payload: &[u8]) -> Result<bool, FieldError> {
        Ok(self.field.number(payload)? >= self.threshold)
    }
}

#[cfg(test)]
mod tests;
