//! Quantities with their units: `20M` fuel, `64Mi` bytes, `20ms`, `100m` of a core.

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
    #[error("nothing could ever run with 0")]
    Zero,
}

/// As `parse`, but zero is refused: for limits that zero would turn into a ban.
pub fn above_zero<T: Default + PartialEq>(
    parse: fn(&str) -> Result<T, QuantityError>,
    text: &str,
) -> Result<T, QuantityError> {
    let value = parse(text)?;
    if value == T::default() { Err(QuantityError::Zero) } else { Ok(value) }
}

fn split<'t>(text: &'t str, example: &'static str) -> Result<(u64, &'t str), QuantityError> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    if number.is_empty() {
        return Err(QuantityError::NoNumber { example });
    }
    let number = number.parse().map_err(|_| QuantityError::TooLarge)?;
    Ok((number, unit))
}

fn scaled(number: u64, by: u64) -> Result<u64, QuantityError> {
    number.checked_mul(by).ok_or(QuantityError::TooLarge)
}

/// A plain whole number.
pub fn count(text: &str) -> Result<u64, QuantityError> {
    match split(text, "`16`")? {
        (number, "") => Ok(number),
        (_, unit) => Err(QuantityError::UnknownUnit { unit: unit.to_owned(), example: "`16`" }),
    }
}

/// Fuel: a number, thousands (`K`), millions (`M`) or billions (`G`).
pub fn fuel(text: &str) -> Result<u64, QuantityError> {
    let example = "`20M`";
    match split(text, example)? {
        (number, "") => Ok(number),
        (number, "K") => scaled(number, 1_000),
        (number, "M") => scaled(number, 1_000_000),
        (number, "G") => scaled(number, 1_000_000_000),
        (_, unit) => Err(QuantityError::UnknownUnit { unit: unit.to_owned(), example }),
    }
}

/// Bytes: `Ki`, `Mi`, `Gi` or `B`.
pub fn bytes(text: &str) -> Result<u64, QuantityError> {
    let example = "`64Mi`";
    match split(text, example)? {
        (_, "") => Err(QuantityError::NoUnit { example }),
        (number, "B") => Ok(number),
        (number, "Ki") => scaled(number, 1 << 10),
        (number, "Mi") => scaled(number, 1 << 20),
        (number, "Gi") => scaled(number, 1 << 30),
        (_, unit) => Err(QuantityError::UnknownUnit { unit: unit.to_owned(), example }),
    }
}

/// Time: `us`, `ms`, `s`, `m`, `h` or `d`.
pub fn time(text: &str) -> Result<Duration, QuantityError> {
    let example = "`20ms`";
    let (number, unit) = split(text, example)?;
    match unit {
        "" => Err(QuantityError::NoUnit { example }),
        "us" => Ok(Duration::from_micros(number)),
        "ms" => Ok(Duration::from_millis(number)),
        "s" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(scaled(number, 60)?)),
        "h" => Ok(Duration::from_secs(scaled(number, 3_600)?)),
        "d" => Ok(Duration::from_secs(scaled(number, 86_400)?)),
        _ => Err(QuantityError::UnknownUnit { unit: unit.to_owned(), example }),
    }
}

/// CPU in thousandths of a core: `100m`, or whole cores: `2`.
pub fn cpu(text: &str) -> Result<u64, QuantityError> {
    let example = "`100m`";
    match split(text, example)? {
        (number, "m") => Ok(number),
        (number, "") => scaled(number, 1_000),
        (_, unit) => Err(QuantityError::UnknownUnit { unit: unit.to_owned(), example }),
    }
}

/// What [`count`] reads as the same number; nothing limits what is `u64::MAX`.
pub fn show_count(count: u64) -> String {
    if count == u64::MAX { UNLIMITED.to_owned() } else { count.to_string() }
}

/// What [`fuel`] reads as the same amount.
pub fn show_fuel(fuel: u64) -> String {
    in_largest(fuel, &[("G", 1_000_000_000), ("M", 1_000_000), ("K", 1_000)], "")
}

/// What [`bytes()`] reads as the same amount.
pub fn show_bytes(bytes: u64) -> String {
    in_largest(bytes, &[("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)], "B")
}

/// What [`time`] reads as the same time, down to a microsecond.
pub fn show_time(time: Duration) -> String {
    let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let units =
        [("d", 86_400_000_000), ("h", 3_600_000_000), ("m", 60_000_000), ("s", 1_000_000), ("ms", 1_000)];
    in_largest(micros, &units, "us")
}

/// What [`cpu`] reads as the same share.
pub fn show_cpu(milli: u64) -> String {
    in_largest(milli, &[("", 1_000)], "m")
}

const UNLIMITED: &str = "unlimited";

/// In the largest unit that leaves no rest, or in the smallest.
fn in_largest(number: u64, units: &[(&str, u64)], smallest: &str) -> String {
    if number == u64::MAX {
        return UNLIMITED.to_owned();
    }
    let (unit, by) = units
        .iter()
        .find(|(_, by)| number > 0 && number.is_multiple_of(*by))
        .copied()
        .unwrap_or((smallest, 1));
    format!("{}{unit}", number / by)
}

#[cfg(test)]
mod tests;
