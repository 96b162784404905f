//! `Enrich`: renames, adds and removes members of a JSON object, and its topic.

use std::fmt;

use serde::Deserialize;

use crate::field::FieldError;
use crate::json::{self, Members};

/// `rename` (`old=new,…`), `add` (`name=value,…`), `remove` (`name,…`), `topic` (a new
/// one) and `topic_suffix` (more of the old one); all optional. An added value that is
/// a JSON number, `true`, `false` or `null` is added as such, any other as text, and
/// takes the place of a member of that name. Names are of the outermost object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "RawEnrich")]
pub struct Enrich {
    rename: Vec<(String, String)>,
    /// Names, and what they were made into: `"name":value`.
    add: Vec<(String, String)>,
    remove: Vec<String>,
    pub topic: Option<String>,
    pub topic_suffix: Option<String>,
}

#[derive(Deserialize)]
struct RawEnrich {
    #[serde(default)]
    rename: Vec<String>,
    #[serde(default)]
    add: Vec<String>,
    #[serde(default)]
    remove: Vec<String>,
    topic: Option<String>,
    topic_suffix: Option<String>,
}

impl TryFrom<RawEnrich> for Enrich {
    type Error = String;

    fn try_from(raw: RawEnrich) -> Result<Self, String> {
        let RawEnrich { rename, add, remove, topic, topic_suffix } = raw;
        let rename = pairs("rename", &rename)?.map(|(old, new)| (old.into(), quoted(new))).collect();
        let add = pairs("add", &add)?
            .map(|(name, value)| (name.into(), format!("{}:{}", quoted(name), literal(value))))
            .collect();
        Ok(Enrich { rename, add, remove, topic, topic_suffix })
    }
}

impl Enrich {
    /// Whether payloads stay as they are.
    pub fn keeps_payload(&self) -> bool {
        self.rename.is_empty() && self.add.is_empty() && self.remove.is_empty()
    }

    /// Writes the payload with its members changed.
    pub fn write(&self, payload: &[u8], out: &mut impl fmt::Write) -> Result<(), FieldError> {
        let json = json::text(payload)?;
        let mut members = Members::of(json)?;
        let mut separator = "{";
        while let Some(member) = members.take_next()? {
            if self.remove.iter().any(|name| member.is(name))
                || self.add.iter().any(|(name, _)| member.is(name))
            {
                continue;
            }
            out.write_str(separator)?;
            separator = ",";
            match self.rename.iter().find(|(old, _)| member.is(old)) {
                Some((_, quoted)) => out.write_str(quoted)?,
                None => write!(out, "\"{}\"", member.raw_name())?,
            }
            out.write_str(":")?;
            out.write_str(&json[member.value])?;
        }
        for (_, member) in &self.add {
            out.write_str(separator)?;
            separator = ",";
            out.write_str(member)?;
        }
        Ok(out.write_str(if separator == "{" { "{}" } else { "}" })?)
    }
}

fn pairs<'p>(key: &str, items: &'p [String]) -> Result<std::vec::IntoIter<(&'p str, &'p str)>, String> {
    let split = |item: &'p String| match item.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => Ok((name.trim(), value.trim())),
        _ => Err(format!("configuration key `{key}`: expected `name=value`, found `{item}`")),
    };
    Ok(items.iter().map(split).collect::<Result<Vec<_>, _>>()?.into_iter())
}

/// The value itself if it is a JSON scalar, else a string of it.
fn literal(value: &str) -> String {
    let is_scalar = !value.starts_with(['{', '[', '"']) && json::find(value, &[""; 0]).is_ok();
    if is_scalar { value.into() } else { quoted(value) }
}

fn quoted(text: &str) -> String {
    let mut json = String::with_capacity(text.len() + 2);
    json.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => json.extend(['\\', character]),
            control if control < ' ' => json.push_str(&format!("\\u{:04x}", u32::from(control))),
            plain => json.push(plain),
        }
    }
    json.push('"');
    json
}

#[cfg(test)]
mod tests;
