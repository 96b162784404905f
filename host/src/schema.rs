//! `PayloadSchema`: what a JSON schema says of the payloads on a connection. Compiled
//! when a graph is checked, asked by the region before the operator at the
//! connection's end. Values of parameters are held against one in the same way, when a
//! site is read. Knows neither graphs nor messages.
//!
//! A tenant writes both schema and payloads, and a check cannot be interrupted: so what
//! it may cost is bounded beforehand. References lead into the schema itself and never
//! round in a circle; with each of them written out, the schema has a *weight*, about the
//! comparisons that one value can cause. Weight times the values of a payload is the
//! *work* of its check, and there is a most that is done. Patterns run on automata, in
//! time linear in the text, whose states count in the weight.

use std::fmt;

use jsonschema::{Draft, PatternOptions, Validator};
use serde_json::Value as Json;

/// Longest schema, in bytes.
pub const SCHEMA_BYTES_MAX: usize = 256 << 10;
/// Heaviest schema: payloads of fifty values can still be held against it.
const WEIGHT_MAX: u64 = 5_000;
/// Most work of one check: 4 ms, measured with a hundred subschemas on each of 800
/// numbers; other things cause slices as long.
const WORK_MAX: u64 = 250_000;
/// Subschemas inside each other, references written out.
const DEPTH_MAX: usize = 64;
/// Most memory of one compiled pattern, and of its cache.
const PATTERN_BYTES_MAX: usize = 64 << 10;
const PATTERN_CACHE_BYTES_MAX: usize = 256 << 10;
/// Bytes of text that count as one more value.
const TEXT_BYTES_PER_VALUE: usize = 32;
/// Longest account of what is wrong with a payload.
const VIOLATION_BYTES_MAX: usize = 500;

/// A compiled schema.
pub struct PayloadSchema {
    name: String,
    text: String,
    validator: Validator,
    weight: u64,
    /// Its `type` can be a string.
    takes_text: bool,
}

/// Why a text is no schema that payloads can be held against.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{cause}{}", at(.pointer))]
pub struct SchemaError {
    /// Where in the schema, as a JSON pointer; empty for all of it.
    pub pointer: String,
    pub cause: String,
}

fn at(pointer: &str) -> String {
    if pointer.is_empty() { String::new() } else { format!(", at `{pointer}`") }
}

/// What came of one check.
#[derive(Debug, PartialEq, Eq)]
pub struct Checked {
    /// What it cost; see the module.
    pub work: u64,
    /// What is wrong with the payload, if anything.
    pub violation: Option<String>,
}

impl PayloadSchema {
    /// Draft 7, as AIO's registry has it, unless `$schema` names another.
    pub fn compile(name: &str, text: &str) -> Result<Self, SchemaError> {
        let whole = |cause: String| SchemaError { pointer: String::new(), cause };
        if text.len() > SCHEMA_BYTES_MAX {
            return Err(whole(format!("it has {} bytes, {SCHEMA_BYTES_MAX} are allowed", text.len())));
        }
        let schema: Json =
            serde_json::from_str(text).map_err(|error| whole(format!("it is not JSON: {error}")))?;
        let mut weighing = Weighing { root: &schema, weight: 0, references: vec!["#"] };
        weighing.schema(&schema, "", 0, 1)?;
        let weight = weighing.weight;
        let patterns =
            PatternOptions::regex().size_limit(PATTERN_BYTES_MAX).dfa_size_limit(PATTERN_CACHE_BYTES_MAX);
        let mut options = jsonschema::options().with_pattern_options(patterns);
        if schema.get("$schema").is_none() {
            options = options.with_draft(Draft::Draft7);
        }
        // To see whether a payload's text is a pattern, it would be compiled.
        options = options.with_format("regex", |_: &str| true);
        let validator = options.build(&schema).map_err(|error| SchemaError {
            pointer: error.instance_path().as_str().to_owned(),
            cause: error.masked().to_string(),
        })?;
        let takes_text = match &schema["type"] {
            Json::Array(types) => types.iter().any(|it| it == "string"),
            one => one == "string",
        };
        Ok(PayloadSchema { name: name.to_owned(), text: text.to_owned(), validator, weight, takes_text })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Holds one payload against it.
    pub fn check(&self, payload: &[u8]) -> Checked {
        let parsing = (payload.len() / TEXT_BYTES_PER_VALUE) as u64 + 1;
        let json: Json = match serde_json::from_slice(payload) {
            Ok(json) => json,
            Err(error) => {
                let violation = Some(format!("the payload is not JSON: {error}"));
                return Checked { work: parsing, violation };
            }
        };
        self.check_json(&json, parsing)
    }

    /// What is wrong with the value of a parameter, if anything. Values are text: a schema
    /// whose `type` can be a string is asked about the text, any other about what it says
    /// as JSON, and about the text if that is none.
    pub fn check_value(&self, text: &str) -> Option<String> {
        let own = || Json::String(text.to_owned());
        let json = if self.takes_text { own() } else { serde_json::from_str(text).unwrap_or_else(|_| own()) };
        self.check_json(&json, 0).violation
    }

    fn check_json(&self, json: &Json, parsing: u64) -> Checked {
        let values = values_of(json);
        let work = self.weight.saturating_mul(values);
        if work > WORK_MAX {
            let violation = Some(format!(
                "with {values} values it is too much for a schema of weight {}: \
                 the product may be {WORK_MAX}",
                self.weight
            ));
            return Checked { work: parsing, violation };
        }
        let violation = self.validator.validate(json).err().map(|error| {
            let mut text = format!("{}{}", error.masked(), at(error.instance_path().as_str()));
            text.truncate(text.floor_char_boundary(VIOLATION_BYTES_MAX));
            text
        });
        Checked { work: work + parsing, violation }
    }
}

impl fmt::Debug for PayloadSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PayloadSchema").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Values in a value, itself too; long texts count as several.
fn values_of(json: &Json) -> u64 {
    let text = |text: &str| (text.len() / TEXT_BYTES_PER_VALUE) as u64;
    1 + match json {
        Json::Null | Json::Bool(_) | Json::Number(_) => 0,
        Json::String(string) => text(string),
        Json::Array(items) => items.iter().map(values_of).sum(),
        Json::Object(pairs) => pairs.iter().map(|(key, value)| text(key) + values_of(value)).sum(),
    }
}

/// Adds up the weight of a schema.
struct Weighing<'a> {
    root: &'a Json,
    weight: u64,
    /// Those that lead to where it is.
    references: Vec<&'a str>,
}

impl<'a> Weighing<'a> {
    /// `times`: how often each value may be asked, since a choice that fails is asked
    /// again for what is wrong.
    fn schema(&mut self, schema: &'a Json, at: &str, depth: usize, times: u64) -> Result<(), SchemaError> {
        if depth > DEPTH_MAX {
            return refuse(at, format!("subschemas lie deeper than {DEPTH_MAX} in each other"));
        }
        self.spend(times, at)?;
        let Json::Object(keywords) = schema else { return Ok(()) };
        for (keyword, value) in keywords {
            let at = format!("{at}/{}", keyword.replace('~', "~0").replace('/', "~1"));
            self.keyword(keyword, value, &at, depth, times)?;
        }
        Ok(())
    }

    fn keyword(
        &mut self,
        keyword: &str,
        value: &'a Json,
        at: &str,
        depth: usize,
        times: u64,
    ) -> Result<(), SchemaError> {
        match keyword {
            "title" | "description" | "default" | "examples" | "$comment" | "$schema" => Ok(()),
            // Weighed where they are referred to.
            "definitions" | "$defs" => Ok(()),
            "$ref" => self.reference(value, at, depth, times),
            "unevaluatedItems" | "unevaluatedProperties" | "$dynamicRef" | "$recursiveRef" => {
                refuse(at, format!("`{keyword}` is not supported"))
            }
            "$id" | "id" if depth > 0 && !value.as_str().is_some_and(|id| id.starts_with('#')) => {
                refuse(at, "only the whole schema may have an id".to_owned())
            }
            "pattern" => self.spend(times.saturating_mul(states(value.as_str().unwrap_or_default())), at),
            "properties" | "patternProperties" | "dependentSchemas" | "dependencies" => {
                for (key, value) in value.as_object().into_iter().flatten() {
                    let at = format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"));
                    if keyword == "patternProperties" {
                        self.spend(times.saturating_mul(states(key)), &at)?;
                    }
                    match value {
                        Json::Array(names) => self.spend(times.saturating_mul(names.len() as u64), &at)?,
                        schema => self.schema(schema, &at, depth + 1, times)?,
                    }
                }
                Ok(())
            }
            "additionalProperties" | "additionalItems" | "contains" | "propertyNames" | "then" | "else" => {
                self.schema(value, at, depth + 1, times)
            }
            "not" | "if" => self.schema(value, at, depth + 1, times + 1),
            "items" if !value.is_array() => self.schema(value, at, depth + 1, times),
            "allOf" | "items" | "prefixItems" | "anyOf" | "oneOf" => {
                let times = if matches!(keyword, "anyOf" | "oneOf") { times + 1 } else { times };
                for (index, schema) in value.as_array().into_iter().flatten().enumerate() {
                    self.schema(schema, &format!("{at}/{index}"), depth + 1, times)?;
                }
                Ok(())
            }
            _ => self.spend(times.saturating_mul(values_of(value)), at),
        }
    }

    fn reference(&mut self, value: &'a Json, at: &str, depth: usize, times: u64) -> Result<(), SchemaError> {
        let reference = value.as_str().unwrap_or_default();
        let pointer = match reference.strip_prefix('#') {
            Some(pointer) if pointer.is_empty() || pointer.starts_with('/') => pointer,
            _ => {
                return refuse(at, format!("`{reference}` does not lead into the schema itself: `#/…` does"));
            }
        };
        if self.references.contains(&reference) {
            return refuse(at, format!("`{reference}` leads round in a circle"));
        }
        let Some(schema) = self.root.pointer(pointer) else {
            return refuse(at, format!("`{reference}` leads nowhere"));
        };
        self.references.push(reference);
        self.schema(schema, at, depth + 1, times)?;
        self.references.pop();
        Ok(())
    }

    fn spend(&mut self, weight: u64, at: &str) -> Result<(), SchemaError> {
        self.weight = self.weight.saturating_add(weight);
        if self.weight > WEIGHT_MAX {
            let cause = format!(
                "the schema is too large: with all references written out, it weighs more than {WEIGHT_MAX}"
            );
            return refuse(at, cause);
        }
        Ok(())
    }
}

fn refuse(pointer: &str, cause: String) -> Result<(), SchemaError> {
    Err(SchemaError { pointer: pointer.to_owned(), cause })
}

/// About the states of a pattern's automaton: its length, what counted repetitions add,
/// and what a class of Unicode takes. What is beyond a thousand does not compile.
fn states(pattern: &str) -> u64 {
    let mut states = pattern.len() as u64 + 256 * pattern.matches("\\p").count() as u64;
    let mut rest = pattern;
    while let Some(open) = rest.find('{') {
        let group = rest[..open].ends_with(')');
        rest = &rest[open + 1..];
        let close = rest.find('}').unwrap_or(rest.len());
        let counts = rest[..close].split(',').filter_map(|count| count.trim().parse::<u64>().ok());
        let most = counts.max().unwrap_or(0);
        states = if group { states.saturating_mul(most.max(1)) } else { states.saturating_add(most) };
    }
    states.min(1_000)
}

#[cfg(test)]
mod tests;
