//! `Summary`: what one JSON field was over a window, as it is staged and as it is given.

use serde::{Deserialize, Serialize};

use crate::field::{Field, FieldError};

/// `{"count":3,"sum":90.0,"min":10.0,"max":60.0,"mean":30.0}`.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
pub struct Summary {
    count: u64,
    sum: f64,
    min: f64,
    max: f64,
    mean: f64,
}

/// Of which field.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Summarise {
    field: Field,
}

impl Summary {
    const EMPTY: Summary =
        Summary { count: 0, sum: 0.0, min: f64::INFINITY, max: f64::NEG_INFINITY, mean: 0.0 };

    /// What is staged: nothing yet in a payload of no bytes.
    pub fn staged(payload: &[u8]) -> Result<Self, serde_json::Error> {
        if payload.is_empty() { Ok(Summary::EMPTY) } else { serde_json::from_slice(payload) }
    }

    pub fn add(&mut self, value: f64) {
        let (count, sum) = (self.count + 1, self.sum + value);
        let (min, max) = (self.min.min(value), self.max.max(value));
        *self = Summary { count, sum, min, max, mean: sum / count as f64 };
    }
}

impl Summarise {
    pub fn of(field: Field) -> Self {
        Summarise { field }
    }

    /// Adds what a payload says.
    pub fn add(&self, payload: &[u8], summary: &mut Summary) -> Result<(), FieldError> {
        summary.add(self.field.number(payload)?);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
