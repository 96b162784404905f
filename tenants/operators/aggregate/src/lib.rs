//! Accumulate: what the JSON field `field` was over a window: `{"count":3,"sum":90.0,
//! "min":10.0,"max":60.0,"mean":30.0}`, on the topic of the window's first message.
//! Key: `field`.

use operator_logic::{Summarise, Summary};
use tidegate_sdk::{Message, Messages, Output, accumulate};

fn aggregate(
    config: &Summarise,
    staged: &Message,
    messages: Messages,
    output: &mut Output,
) -> Result<(), String> {
    let is_first = staged.payload().is_empty();
    let mut summary = Summary::staged(staged.payload()).map_err(|error| format!("staged value: {error}"))?;
    for message in messages.iter() {
        config.add(message.payload(), &mut summary).map_err(|error| error.to_string())?;
    }
    let first = messages.iter().next().filter(|_| is_first);
    let draft = output.emit(staged).json(&summary).map_err(|error| error.to_string())?;
    let draft = draft.content_type(Some("application/json"));
    if let Some(first) = first {
        draft.topic(first.topic());
    }
    Ok(())
}

accumulate!(aggregate, Summarise);
