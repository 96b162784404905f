//! `Difference`: where what came out is not what a test expects, by path. Pure: JSON
//! in, differences out.

use std::{collections::BTreeSet, fmt};

use serde_json::{Map, Value, json};

use crate::resource::{
    json_path::{JsonPath, Relation},
    test_case::{Compared, Expected},
};

/// One place at which a message is not as expected.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// Which message, from 1; none if it is about how many there are.
    pub output: Option<usize>,
    pub path: JsonPath,
    pub expected: Option<Value>,
    pub got: Option<Value>,
}

/// Most characters of a value that are shown.
const SHOWN_MAX: usize = 200;

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |value: &Option<Value>| match value {
            None => "nothing".to_owned(),
            Some(value) => {
                let text = value.to_string();
                match text.char_indices().nth(SHOWN_MAX) {
                    Some((end, _)) => format!("{}…", &text[..end]),
                    None => text,
                }
            }
        };
        let path = self.path.to_string();
        let parts = [self.output.map(|it| format!("output {it}")), Some(path).filter(|it| !it.is_empty())];
        let place = parts.into_iter().flatten().collect::<Vec<_>>().join(", ");
        let place = if place.is_empty() { "outputs".to_owned() } else { place };
        write!(f, "{place}: expected {}, got {}", shown(&self.expected), shown(&self.got))
    }
}

impl Difference {
    /// For programs.
    pub fn to_json(&self) -> Value {
        json!({
            "output": self.output,
            "path": self.path.to_string(),
            "expected": self.expected,
            "got": self.got,
        })
    }
}

/// All differences between what a test expects and what came, in order.
pub fn differences(expected: &Expected, compared: &Compared, got: &[Value]) -> Vec<Difference> {
    let mut comparison = Comparison { compared, output: None, found: Vec::new() };
    match expected {
        Expected::Last(expected) => match got.last() {
            Some(last) => comparison.message(got.len(), Some(expected), Some(last)),
            None => comparison.message(1, Some(expected), None),
        },
        Expected::All(expected) => {
            if expected.len() != got.len() {
                let counted = |list: &[Value]| Some(json!(format!("{} messages", list.len())));
                comparison.say(&JsonPath::default(), counted(expected), counted(got));
            }
            for index in 0..expected.len().max(got.len()) {
                comparison.message(index + 1, expected.get(index), got.get(index));
            }
        }
    }
    comparison.found
}

struct Comparison<'a> {
    compared: &'a Compared,
    output: Option<usize>,
    found: Vec<Difference>,
}

impl Comparison<'_> {
    fn say(&mut self, path: &JsonPath, expected: Option<Value>, got: Option<Value>) {
        self.found.push(Difference { output: self.output, path: path.clone(), expected, got });
    }

    fn message(&mut self, output: usize, expected: Option<&Value>, got: Option<&Value>) {
        self.output = Some(output);
        let root = JsonPath::default();
        let (Some(expected), Some(got)) = (expected, got) else {
            return self.say(&root, expected.cloned(), got.cloned());
        };
        let (expected, mut got) = (readable(expected), readable(got));
        if self.compared.select.is_empty()
            && let (Value::Object(wanted), Value::Object(has)) = (&expected, &mut got)
        {
            // A test says what matters to it: no other part of a message is compared.
            has.retain(|key, _| wanted.contains_key(key));
        }
        self.value(&root, Some(&expected), Some(&got));
    }

    fn value(&mut self, path: &JsonPath, expected: Option<&Value>, got: Option<&Value>) {
        let relations = |paths: &[JsonPath]| paths.iter().map(|it| path.relation(it)).collect::<Vec<_>>();
        if relations(&self.compared.ignores).contains(&Relation::Within) {
            return;
        }
        let selected = relations(&self.compared.select);
        let counts = selected.is_empty() || selected.contains(&Relation::Within);
        if !counts && !selected.contains(&Relation::Above) {
            return;
        }
        match (expected, got) {
            (Some(Value::Object(expected)), Some(Value::Object(got))) => self.members(path, expected, got),
            (Some(Value::Array(expected)), Some(Value::Array(got))) => {
                for index in 0..expected.len().max(got.len()) {
                    self.value(&path.index(index), expected.get(index), got.get(index));
                }
            }
            (expected, got) if same(expected, got) => {}
            (expected, got) => self.say(path, expected.cloned(), got.cloned()),
        }
    }

    fn members(&mut self, path: &JsonPath, expected: &Map<String, Value>, got: &Map<String, Value>) {
        let keys: BTreeSet<&String> = expected.keys().chain(got.keys()).collect();
        for key in keys {
            self.value(&path.key(key), expected.get(key), got.get(key));
        }
    }
}

/// A payload is text, in which JSON is compared as JSON.
fn readable(message: &Value) -> Value {
    let mut message = message.clone();
    if let Some(payload) = message.get_mut("payload")
        && let Some(parsed) = payload.as_str().and_then(|text| serde_json::from_str(text).ok())
    {
        *payload = parsed;
    }
    message
}

/// Numbers are the same if they mean the same: `1` and `1.0`.
fn same(expected: Option<&Value>, got: Option<&Value>) -> bool {
    match (expected, got) {
        (Some(Value::Number(a)), Some(Value::Number(b))) if a.is_f64() || b.is_f64() => {
            a.as_f64() == b.as_f64()
        }
        (expected, got) => expected == got,
    }
}

#[cfg(test)]
mod tests;
