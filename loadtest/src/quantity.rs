//! Quantities with their units: `10s`, `800/s`, `64Mi`, `10%`. A unit that is missing
//! where one is needed is an error, as in the host's own files.

use std::time::Duration;

/// Why a text is no quantity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    #[error("a number was expected, such as {example}")]
    NoNumber { example: &'static str },
    #[error("a unit is missing: write {example}")]
    NoUnit { example: &'static str },
    #[error("the unit `{unit}` is unknown here: write {example}")]
    UnknownUnit { unit: String, example: &'static str },
    #[error("the quantity is too large")]
    TooLarge,
}

fn split<'t>(text: &'t str, example: &'static str) -> Result<(u64, &'t str), QuantityError> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    if number.is_empty() {
        return Err(QuantityError::NoNumber { example });
    }
    Ok((number.parse().map_err(|_| QuantityError::TooLarge)?, unit))
}

fn unknown<T>(unit: &str, example: &'static str) -> Result<T, QuantityError> {
    match unit {
        "" => Err(QuantityError::NoUnit { example }),
        unit => Err(QuantityError::UnknownUnit { unit: unit.to_owned(), example }),
    }
}

/// A plain whole number.
pub fn count(text: &str) -> Result<u64, QuantityError> {
    match split(text, "`16`")? {
        (number, "") => Ok(number),
        (_, unit) => unknown(unit, "`16`"),
    }
}

/// A plain number, with a fraction or without.
pub fn factor(text: &str) -> Result<f64, QuantityError> {
    let plain = text.chars().all(|c| c.is_ascii_digit() || c == '.');
    let number = text.parse::<f64>().ok().filter(|_| plain);
    number.ok_or(QuantityError::NoNumber { example: "`2` or `1.5`" })
}

/// Messages a second: `800/s`.
pub fn rate(text: &str) -> Result<f64, QuantityError> {
    match split(text, "`800/s`")? {
        (number, "/s") => Ok(number as f64),
        (number, "/m") => Ok(number as f64 / 60.0),
        (_, unit) => unknown(unit, "`800/s`"),
    }
}

/// A share in per cent: `10%`.
pub fn percent(text: &str) -> Result<f64, QuantityError> {
    match split(text, "`10%`")? {
        (number, "%") => Ok(number as f64),
        (_, unit) => unknown(unit, "`10%`"),
    }
}

/// Bytes: `Ki`, `Mi`, `Gi` or `B`.
pub fn bytes(text: &str) -> Result<u64, QuantityError> {
    let example = "`64Ki`";
    let (number, unit) = split(text, example)?;
    let by = match unit {
        "B" => 1,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        unit => return unknown(unit, example),
    };
    number.checked_mul(by).ok_or(QuantityError::TooLarge)
}

/// Time: `us`, `ms`, `s`, `m` or `h`.
pub fn time(text: &str) -> Result<Duration, QuantityError> {
    let example = "`10s` or `20ms`";
    let (number, unit) = split(text, example)?;
    let micros: u64 = match unit {
        "us" => 1,
        "ms" => 1_000,
        "s" => 1_000_000,
        "m" => 60_000_000,
        "h" => 3_600_000_000,
        unit => return unknown(unit, example),
    };
    number.checked_mul(micros).map(Duration::from_micros).ok_or(QuantityError::TooLarge)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_say_what_a_number_is() {
        assert_eq!(time("250us"), Ok(Duration::from_micros(250)));
        assert_eq!(time("2h"), Ok(Duration::from_secs(7_200)));
        assert_eq!(rate("90/m"), Ok(1.5));
        assert_eq!(bytes("3Ki"), Ok(3_072));
        assert_eq!(percent("10%"), Ok(10.0));
        assert_eq!(factor("1.5"), Ok(1.5));
    }

    #[test]
    fn a_wrong_or_missing_unit_is_refused() {
        let example = "`10s` or `20ms`";
        assert_eq!(time("10"), Err(QuantityError::NoUnit { example }));
        assert_eq!(time("10sec"), Err(QuantityError::UnknownUnit { unit: "sec".into(), example }));
        assert_eq!(time("18446744073709551615h"), Err(QuantityError::TooLarge));
        assert_eq!(rate("10"), Err(QuantityError::NoUnit { example: "`800/s`" }));
        assert_eq!(count("10s"), Err(QuantityError::UnknownUnit { unit: "s".into(), example: "`16`" }));
        assert!(factor("-1").is_err() && factor("inf").is_err() && factor("").is_err());
    }
}
