//! Map: renames, adds and removes JSON fields and changes the topic. Keys, all optional:
//! `rename` (`old=new,…`), `add` (`name=value,…`), `remove` (`name,…`), `topic`,
//! `topic_suffix`.

use operator_logic::{Enrich, FieldError};
use tidegate_sdk::{Message, Output, map};

fn enrich(enrich: &Enrich, message: &Message, output: &mut Output) -> Result<(), FieldError> {
    let mut draft = output.emit(message);
    if !enrich.keeps_payload() {
        draft = draft.payload_with(|writer| enrich.write(message.payload(), writer))?;
    }
    if let Some(topic) = &enrich.topic {
        draft = draft.topic(topic);
    }
    if let Some(suffix) = &enrich.topic_suffix {
        draft.topic_suffix(suffix);
    }
    Ok(())
}

map!(enrich, Enrich);
