//! JSON Schema without references and patterns: what a reading's schema needs, in a
//! component that compiles at once. A keyword that would be needed for the verdict and
//! is not known refuses the schema, so that nothing passes unchecked.

use serde_json::{Map, Value};

/// Most schemas within one another.
const DEPTH_MAX: u32 = 64;

/// Keywords that describe and do not check, as of draft 7.
const DESCRIBING: [&str; 9] =
    ["$schema", "$id", "$comment", "title", "description", "default", "examples", "readOnly", "format"];

/// A schema whose keywords are all known.
#[derive(Debug)]
pub struct Schema(Vec<Check>);

#[derive(Debug)]
enum Check {
    Never,
    Type(Vec<Type>),
    Enum(Vec<Value>),
    Minimum(f64),
    Maximum(f64),
    ExclusiveMinimum(f64),
    ExclusiveMaximum(f64),
    MinLength(u64),
    MaxLength(u64),
    MinItems(u64),
    MaxItems(u64),
    Items(Schema),
    Required(Vec<String>),
    /// Named members, and all others.
    Members(Vec<(String, Schema)>, Option<Schema>),
    AllOf(Vec<Schema>),
    AnyOf(Vec<Schema>),
    Not(Schema),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    Null,
    Boolean,
    Integer,
    Number,
    String,
    Array,
    Object,
}

impl Schema {
    /// Reads a schema; the error names the keyword that is not known, or wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let schema: Value =
            serde_json::from_str(text).map_err(|error| format!("the schema is not JSON: {error}"))?;
        Self::read(&schema, DEPTH_MAX)
    }

    fn read(schema: &Value, depth: u32) -> Result<Self, String> {
        let depth = depth.checked_sub(1).ok_or("the schema is nested too deeply")?;
        let object = match schema {
            Value::Bool(true) => return Ok(Schema(Vec::new())),
            Value::Bool(false) => return Ok(Schema(vec![Check::Never])),
            Value::Object(object) => object,
            other => return Err(format!("`{other}` is no schema")),
        };
        let mut checks = Vec::new();
        if object.contains_key("properties") || object.contains_key("additionalProperties") {
            checks.push(members(object, depth)?);
        }
        for (keyword, value) in object {
            let known = DESCRIBING.contains(&keyword.as_str())
                || ["properties", "additionalProperties"].contains(&keyword.as_str());
            if !known {
                checks.push(check(keyword, value, depth).map_err(|error| format!("`{keyword}`: {error}"))?);
            }
        }
        Ok(Schema(checks))
    }

    pub fn fits(&self, value: &Value) -> bool {
        self.0.iter().all(|check| check.holds(value))
    }
}

fn members(object: &Map<String, Value>, depth: u32) -> Result<Check, String> {
    let named = match object.get("properties") {
        None => Vec::new(),
        Some(Value::Object(named)) => named
            .iter()
            .map(|(name, schema)| Ok((name.clone(), Schema::read(schema, depth)?)))
            .collect::<Result<_, String>>()?,
        Some(_) => return Err("`properties`: expected an object".into()),
    };
    let others = object.get("additionalProperties").map(|schema| Schema::read(schema, depth));
    Ok(Check::Members(named, others.transpose()?))
}

fn check(keyword: &str, value: &Value, depth: u32) -> Result<Check, String> {
    let number = || value.as_f64().ok_or("expected a number");
    let size = || value.as_u64().ok_or("expected a whole number that is not negative");
    let schemas = || -> Result<Vec<Schema>, String> {
        let list = value.as_array().filter(|list| !list.is_empty()).ok_or("expected a list of schemas")?;
        list.iter().map(|schema| Schema::read(schema, depth)).collect()
    };
    Ok(match keyword {
        "type" => Check::Type(types(value)?),
        "enum" => Check::Enum(value.as_array().ok_or("expected a list")?.clone()),
        "const" => Check::Enum(vec![value.clone()]),
        "minimum" => Check::Minimum(number()?),
        "maximum" => Check::Maximum(number()?),
        "exclusiveMinimum" => Check::ExclusiveMinimum(number()?),
        "exclusiveMaximum" => Check::ExclusiveMaximum(number()?),
        "minLength" => Check::MinLength(size()?),
        "maxLength" => Check::MaxLength(size()?),
        "minItems" => Check::MinItems(size()?),
        "maxItems" => Check::MaxItems(size()?),
        "items" => Check::Items(Schema::read(value, depth)?),
        "required" => {
            let list = value.as_array().ok_or("expected a list of names")?;
            let names = list.iter().map(|name| name.as_str().map(str::to_owned));
            Check::Required(names.collect::<Option<_>>().ok_or("expected a list of names")?)
        }
        "allOf" => Check::AllOf(schemas()?),
        "anyOf" => Check::AnyOf(schemas()?),
        "not" => Check::Not(Schema::read(value, depth)?),
        _ => return Err("this keyword is not known here".into()),
    })
}

fn types(value: &Value) -> Result<Vec<Type>, String> {
    let names = match value {
        Value::Array(names) => names.as_slice(),
        name => std::slice::from_ref(name),
    };
    let read = |name: &Value| match name.as_str() {
        Some("null") => Ok(Type::Null),
        Some("boolean") => Ok(Type::Boolean),
        Some("integer") => Ok(Type::Integer),
        Some("number") => Ok(Type::Number),
        Some("string") => Ok(Type::String),
        Some("array") => Ok(Type::Array),
        Some("object") => Ok(Type::Object),
        _ => Err(format!("{name} is no type")),
    };
    names.iter().map(read).collect()
}

impl Type {
    fn holds(self, value: &Value) -> bool {
        match self {
            Type::Null => value.is_null(),
            Type::Boolean => value.is_boolean(),
            // 1.0 is an integer since draft 6.
            Type::Integer => {
                value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|it| it.fract() == 0.0)
            }
            Type::Number => value.is_number(),
            Type::String => value.is_string(),
            Type::Array => value.is_array(),
            Type::Object => value.is_object(),
        }
    }
}

impl Check {
    /// A check of one type of value holds for all values of other types.
    fn holds(&self, value: &Value) -> bool {
        let number =
            |holds: fn(f64, f64) -> bool, bound: &f64| value.as_f64().is_none_or(|it| holds(it, *bound));
        let length = || value.as_str().map(|it| it.chars().count() as u64);
        let items = || value.as_array().map(|it| it.len() as u64);
        match self {
            Check::Never => false,
            Check::Type(types) => types.iter().any(|it| it.holds(value)),
            Check::Enum(values) => values.iter().any(|it| same(it, value)),
            Check::Minimum(bound) => number(|it, bound| it >= bound, bound),
            Check::Maximum(bound) => number(|it, bound| it <= bound, bound),
            Check::ExclusiveMinimum(bound) => number(|it, bound| it > bound, bound),
            Check::ExclusiveMaximum(bound) => number(|it, bound| it < bound, bound),
            Check::MinLength(least) => length().is_none_or(|it| it >= *least),
            Check::MaxLength(most) => length().is_none_or(|it| it <= *most),
            Check::MinItems(least) => items().is_none_or(|it| it >= *least),
            Check::MaxItems(most) => items().is_none_or(|it| it <= *most),
            Check::Items(schema) => value.as_array().is_none_or(|it| it.iter().all(|it| schema.fits(it))),
            Check::Required(names) => {
                value.as_object().is_none_or(|it| names.iter().all(|name| it.contains_key(name)))
            }
            Check::Members(named, others) => value.as_object().is_none_or(|it| {
                it.iter().all(|(name, member)| {
                    let named = named.iter().find(|(known, _)| known == name).map(|(_, schema)| schema);
                    named.or(others.as_ref()).is_none_or(|schema| schema.fits(member))
                })
            }),
            Check::AllOf(schemas) => schemas.iter().all(|it| it.fits(value)),
            Check::AnyOf(schemas) => schemas.iter().any(|it| it.fits(value)),
            Check::Not(schema) => !schema.fits(value),
        }
    }
}

/// Equal as JSON Schema means it: 1 and 1.0 are the same number.
fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => one == other || one.as_f64() == other.as_f64(),
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && one.iter().all(|(name, one)| other.get(name).is_some_and(|other| same(one, other)))
        }
        _ => one == other,
    }
}

#[cfg(test)]
mod tests;
