//! Accumulate: what the JSON field `field` was over a window: `{"count":3,"sum":90.0,
//! "min":10.0,"max":60.0,"mean":30.0}`, on the topic of the window's first message.
//! Key: `field`.

use serde::{Deserialize, Serialize};
use tidegate_sdk::{Message, Messages, Output, accumulate};

#[derive(Deserialize)]
struct Config {
    field: String,
}

#[derive(Clone, Copy, Deserialize, Serialize)]
struct Summary {
    count: u64,
    sum: f64,
    min: f64,
    max: f64,
    mean: f64,
}

impl Summary {
    fn add(self, value: f64) -> Self {
        let (count, sum) = (self.count + 1, self.sum + value);
        let (min, max) = (self.min.min(value), self.max.max(value));
        Summary { count, sum, min, max, mean: sum / count as f64 }
    }
}

const EMPTY: Summary = Summary { count: 0, sum: 0.0, min: f64::INFINITY, max: f64::NEG_INFINITY, mean: 0.0 };

fn aggregate(
    config: &Config,
    staged: &Message,
    messages: Messages,
    output: &mut Output,
) -> Result<(), String> {
    let is_first = staged.payload().is_empty();
    let mut summary =
        if is_first { EMPTY } else { staged.json().map_err(|error| format!("staged value: {error}"))? };
    for message in messages.iter() {
        let payload: serde_json::Value = message.json().map_err(|error| error.to_string())?;
        let value = payload[config.field.as_str()].as_f64();
        summary = summary.add(value.ok_or_else(|| format!("no number in `{}`", config.field))?);
    }
    let first = messages.iter().next().filter(|_| is_first);
    let draft = output.emit(staged).json(&summary).map_err(|error| error.to_string())?;
    let draft = draft.content_type(Some("application/json"));
    if let Some(first) = first {
        draft.topic(first.topic());
    }
    Ok(())
}

accumulate!(aggregate, Config);
