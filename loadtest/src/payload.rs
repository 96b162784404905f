//! What messages say: a template with the message's id, or lines of a file.

use std::{
    io::Write as _,
    time::{SystemTime, UNIX_EPOCH},
};

use rand::{Rng as _, rngs::SmallRng};

use crate::diagnostic::nearest;

/// Text with places to fill in. Braces around anything but a lower-case word are text,
/// so that JSON stays JSON.
#[derive(Clone, Debug, PartialEq)]
pub struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq)]
enum Part {
    Text(String),
    Id,
    Tenant,
    Time,
    /// A whole number from the first to the last, both included.
    Whole(i64, i64),
    /// A number of one decimal place, in tenths.
    Tenths(i64, i64),
}

/// What can be filled in, for messages and help.
pub const PLACES: &str = "{id}, {tenant}, {time}, {random 0..100} and {random 0.0..100.0}";

/// Why a text is no template, and where in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateError {
    /// In characters.
    pub at: usize,
    pub len: usize,
    pub message: String,
    pub help: String,
}

impl Template {
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(open) = rest.find('{') {
            plain += &rest[..open];
            let inner = rest[open + 1..].split_once('}').map(|(inner, _)| inner);
            let Some(inner) = inner.filter(|inner| is_place(inner)) else {
                plain.push('{');
                rest = &rest[open + 1..];
                continue;
            };
            let at = text.len() - rest.len() + open;
            let part = part(inner).map_err(|(message, help)| TemplateError {
                at: text[..at].chars().count(),
                len: inner.chars().count() + 2,
                message,
                help,
            })?;
            if !plain.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut plain)));
            }
            parts.push(part);
            rest = &rest[open + 2 + inner.len()..];
        }
        plain += rest;
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Ok(Template(parts))
    }

    pub fn has_id(&self) -> bool {
        self.0.contains(&Part::Id)
    }

    /// Appends the text with its places filled in.
    pub fn fill(&self, fill: &Fill<'_>, rng: &mut SmallRng, out: &mut Vec<u8>) {
        for part in &self.0 {
            match part {
                Part::Text(text) => out.extend_from_slice(text.as_bytes()),
                Part::Id => out.extend_from_slice(fill.id.as_bytes()),
                Part::Tenant => out.extend_from_slice(fill.tenant.as_bytes()),
                Part::Time => {
                    let moment = UNIX_EPOCH.max(fill.time);
                    push(out, format_args!("{}", humantime::format_rfc3339_millis(moment)));
                }
                Part::Whole(first, last) => push(out, format_args!("{}", rng.random_range(*first..=*last))),
                Part::Tenths(first, last) => {
                    let tenths = rng.random_range(*first..=*last);
                    push(out, format_args!("{:.1}", tenths as f64 / 10.0));
                }
            }
        }
    }
}

fn push(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a vector takes all");
}

/// What goes into the places.
pub struct Fill<'a> {
    pub id: &'a str,
    pub tenant: &'a str,
    pub time: SystemTime,
}

fn is_place(inner: &str) -> bool {
    let word: usize = inner.bytes().take_while(u8::is_ascii_lowercase).count();
    word > 0 && matches!(inner.as_bytes().get(word), None | Some(b' '))
}

fn part(inner: &str) -> Result<Part, (String, String)> {
    let (name, range) = inner.split_once(' ').unwrap_or((inner, ""));
    match (name, range.trim()) {
        ("id", "") => Ok(Part::Id),
        ("tenant", "") => Ok(Part::Tenant),
        ("time", "") => Ok(Part::Time),
        ("random", range) => random(range)
            .ok_or_else(|| (format!("`{{{inner}}}` has no range"), "write `{random 0..100}`".to_owned())),
        (name, _) => {
            let help = match nearest(name, ["id", "tenant", "time", "random"]) {
                Some(meant) if meant != name => format!("did you mean `{{{meant}}}`?"),
                _ => format!("there are {PLACES}"),
            };
            Err((format!("`{{{inner}}}` cannot be filled in"), help))
        }
    }
}

fn random(range: &str) -> Option<Part> {
    let (first, last) = range.split_once("..")?;
    if let (Ok(first), Ok(last)) = (first.parse::<i64>(), last.parse::<i64>()) {
        return (first <= last).then_some(Part::Whole(first, last));
    }
    let tenths = |text: &str| {
        let (whole, tenth) = text.split_once('.')?;
        let (negative, digits) = (whole.starts_with('-'), whole.trim_start_matches('-'));
        let digit: i64 = (tenth.len() == 1).then(|| tenth.parse().ok())??;
        let tenths = digits.parse::<i64>().ok()?.checked_mul(10)?.checked_add(digit)?;
        Some(if negative { -tenths } else { tenths })
    };
    let (first, last) = (tenths(first)?, tenths(last)?);
    (first <= last).then_some(Part::Tenths(first, last))
}

/// Where payloads come from.
#[derive(Clone, Debug)]
pub enum Payloads {
    Template(Template),
    /// One after the other, and from the beginning again.
    Lines(Vec<String>),
}

impl Payloads {
    /// Appends the payload of the `sequence`th message.
    pub fn push(&self, sequence: u64, fill: &Fill<'_>, rng: &mut SmallRng, out: &mut Vec<u8>) {
        match self {
            Payloads::Template(template) => template.fill(fill, rng, out),
            Payloads::Lines(lines) => {
                out.extend_from_slice(lines[(sequence % lines.len() as u64) as usize].as_bytes());
            }
        }
    }

    /// The payloads of a file: each line, or each row of a CSV file as a JSON object.
    pub fn of_file(name: &str, text: &str) -> Result<Self, &'static str> {
        let mut lines = text.lines().filter(|line| !line.trim().is_empty());
        let lines: Vec<String> = if name.ends_with(".csv") {
            let header: Vec<&str> = lines.next().ok_or("it holds no line")?.split(',').collect();
            lines.map(|line| row(&header, line)).collect()
        } else {
            lines.map(str::to_owned).collect()
        };
        if lines.is_empty() { Err("it holds no line") } else { Ok(Payloads::Lines(lines)) }
    }
}

/// A row of plain values, which is all that a CSV file may hold here.
fn row(header: &[&str], line: &str) -> String {
    let value = |text: &str| match text.parse::<f64>() {
        Ok(number) if number.is_finite() => serde_json::json!(number),
        _ => serde_json::json!(text),
    };
    let pairs = header.iter().zip(line.split(',')).map(|(key, text)| ((*key).to_owned(), value(text)));
    serde_json::Value::Object(pairs.collect()).to_string()
}

#[cfg(test)]
mod tests;
