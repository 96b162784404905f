//! `Convert`: converts one field of a JSON payload from unit to unit. All other bytes
//! of the payload stay as they are.

use std::fmt;

use serde::Deserialize;

use crate::field::{Field, FieldError};
use crate::json::{self, Members};

/// `field`, `from` and `to` (names of `UNITS`); optionally `output`, the name that
/// the result gets beside the field, whose own place it takes by default, and
/// `decimals`, to how many digits the result is rounded.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "RawConvert")]
pub struct Convert {
    field: Field,
    /// `None` if the result takes the field's place.
    output: Option<String>,
    conversion: Conversion,
    decimals: Option<usize>,
}

#[derive(Deserialize)]
struct RawConvert {
    field: Field,
    from: String,
    to: String,
    output: Option<String>,
    decimals: Option<u8>,
}

impl TryFrom<RawConvert> for Convert {
    type Error = String;

    fn try_from(raw: RawConvert) -> Result<Self, String> {
        let RawConvert { field, from, to, output, decimals } = raw;
        let conversion = Conversion::between(&from, &to)?;
        if decimals.is_some_and(|decimals| decimals > DECIMALS_MAX) {
            return Err(format!("configuration key `decimals`: expected at most {DECIMALS_MAX}"));
        }
        if let Some(name) = &output
            && name
                .contains(|character: char| character == '"' || character == '\\' || character.is_control())
        {
            return Err(format!("configuration key `output`: expected a plain name, found `{name}`"));
        }
        let output = output.filter(|name| name != field.split().0);
        Ok(Convert { field, output, conversion, decimals: decimals.map(Into::into) })
    }
}

/// A double has no more than 17 that mean anything.
const DECIMALS_MAX: u8 = 17;

impl Convert {
    /// Writes the payload with the converted value.
    pub fn write(&self, payload: &[u8], out: &mut impl fmt::Write) -> Result<(), FieldError> {
        let json = json::text(payload)?;
        let Some(output) = &self.output else {
            let value = self.field.find(json)?;
            let number = self.converted(&json[value.clone()])?;
            out.write_str(&json[..value.start])?;
            self.write_number(number, out)?;
            return Ok(out.write_str(&json[value.end..])?);
        };

        let (name, path) = self.field.split();
        let missing = || FieldError::Missing { field: self.field.to_string() };
        let object =
            if path.is_empty() { 0..json.len() } else { json::find(json, path)?.ok_or_else(missing)? };
        let (mut value, mut old) = (None, None);
        let mut members = Members::of(&json[object.clone()])?;
        while let Some(member) = members.take_next()? {
            if member.is(name) {
                value = Some(member.value);
            } else if member.is(output) {
                old = Some(member.value);
            }
        }
        let value = value.ok_or_else(missing)?;
        let number = self.converted(&json[object.start..][value.clone()])?;
        // Behind the field itself, or where a value of that name stood.
        let place = object.start + old.as_ref().map_or(value.end, |old| old.start);
        out.write_str(&json[..place])?;
        if old.is_none() {
            write!(out, ",\"{output}\":")?;
        }
        self.write_number(number, out)?;
        let rest = object.start + old.map_or(value.end, |old| old.end);
        Ok(out.write_str(&json[rest..])?)
    }

    fn converted(&self, value: &str) -> Result<f64, FieldError> {
        let number = self.conversion.apply(self.field.parse(value)?);
        if number.is_finite() {
            Ok(number)
        } else {
            Err(FieldError::Infinite { field: self.field.to_string() })
        }
    }

    fn write_number(&self, number: f64, out: &mut impl fmt::Write) -> fmt::Result {
        match self.decimals {
            Some(decimals) => write!(out, "{number:.decimals$}"),
            None => write!(out, "{number:?}"),
        }
    }
}

/// Units by what they measure. One of a unit is `numerator / denominator` of the first
/// of its kind, counted from `zero`.
const UNITS: &[Unit] = &[
    Unit::new(Kind::Temperature, "C", 1.0, 1.0, 0.0),
    Unit::new(Kind::Temperature, "F", 5.0, 9.0, 32.0),
    Unit::new(Kind::Temperature, "K", 1.0, 1.0, 273.15),
    Unit::new(Kind::Speed, "m/s", 1.0, 1.0, 0.0),
    Unit::new(Kind::Speed, "km/h", 1.0, 3.6, 0.0),
    Unit::new(Kind::Speed, "mph", 0.44704, 1.0, 0.0),
    Unit::new(Kind::Speed, "kn", 1.852, 3.6, 0.0),
    Unit::new(Kind::Pressure, "hPa", 1.0, 1.0, 0.0),
    Unit::new(Kind::Pressure, "kPa", 10.0, 1.0, 0.0),
    Unit::new(Kind::Pressure, "bar", 1000.0, 1.0, 0.0),
    Unit::new(Kind::Pressure, "inHg", 33.86389, 1.0, 0.0),
    Unit::new(Kind::Pressure, "mmHg", 1.333224, 1.0, 0.0),
    Unit::new(Kind::Length, "km", 1.0, 1.0, 0.0),
    Unit::new(Kind::Length, "m", 1.0, 1000.0, 0.0),
    Unit::new(Kind::Length, "mi", 1.609344, 1.0, 0.0),
    Unit::new(Kind::Length, "ft", 0.3048, 1000.0, 0.0),
];

/// One unit of measurement.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Unit {
    kind: Kind,
    name: &'static str,
    numerator: f64,
    denominator: f64,
    zero: f64,
}

impl Unit {
    const fn new(kind: Kind, name: &'static str, numerator: f64, denominator: f64, zero: f64) -> Self {
        Unit { kind, name, numerator, denominator, zero }
    }

    fn named(key: &str, name: &str) -> Result<Self, String> {
        // A degree sign is what people write.
        let plain = name.strip_prefix('°').unwrap_or(name);
        UNITS.iter().find(|unit| unit.name == plain).copied().ok_or_else(|| {
            let names: Vec<_> = UNITS.iter().map(|unit| unit.name).collect();
            format!("configuration key `{key}`: no unit is called `{name}`; known are {}", names.join(", "))
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Temperature,
    Speed,
    Pressure,
    Length,
}

/// `(value - subtract) * multiply / divide + add`
#[derive(Clone, Copy, Debug, PartialEq)]
struct Conversion {
    subtract: f64,
    multiply: f64,
    divide: f64,
    add: f64,
}

impl Conversion {
    fn between(from: &str, to: &str) -> Result<Self, String> {
        let (from, to) = (Unit::named("from", from)?, Unit::named("to", to)?);
        if from.kind != to.kind {
            return Err(format!("configuration key `to`: `{}` cannot become `{}`", from.name, to.name));
        }
        Ok(Conversion {
            subtract: from.zero,
            multiply: from.numerator * to.denominator,
            divide: from.denominator * to.numerator,
            add: to.zero,
        })
    }

    fn apply(&self, value: f64) -> f64 {
        (value - self.subtract) * self.multiply / self.divide + self.add
    }
}

#[cfg(test)]
mod tests;
