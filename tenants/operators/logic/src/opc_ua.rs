//! OPC UA values, one member of an object each, as rows that a database takes.

use serde_json::{Map, Value, json};

/// Why a payload has no rows.
#[derive(Debug, thiserror::Error)]
pub enum FlattenError {
    #[error("payload is not JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("payload is no object")]
    NoObject,
}

/// A row `{"tag","timestamp","value"}` for each member that is an OPC UA data value,
/// which is an object with `Value`; ordered by tag, as `serde_json` orders members.
/// `timestamp` is its `SourceTimestamp`, absent if it has none. Each row also gets
/// `extra`, and with `copy_all` those members that are no data values; a name of the
/// row's own wins over one from outside, and a member over `extra`.
pub fn flatten(payload: &[u8], extra: &[(String, String)], copy_all: bool) -> Result<Vec<u8>, FlattenError> {
    let Value::Object(members) = serde_json::from_slice(payload)? else {
        return Err(FlattenError::NoObject);
    };
    let (tags, rest): (Vec<_>, Vec<_>) =
        members.into_iter().partition(|(_, member)| member.get("Value").is_some());
    let mut around: Map<String, Value> =
        extra.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    if copy_all {
        around.extend(rest);
    }
    let row = |(tag, mut member): (String, Value)| {
        let mut row = around.clone();
        row.insert("tag".into(), tag.into());
        row.insert("value".into(), member["Value"].take());
        row.remove("timestamp");
        if let Some(timestamp) = member.get_mut("SourceTimestamp") {
            row.insert("timestamp".into(), timestamp.take());
        }
        Value::Object(row)
    };
    Ok(serde_json::to_vec(&tags.into_iter().map(row).collect::<Vec<_>>())?)
}

#[cfg(test)]
mod tests;
