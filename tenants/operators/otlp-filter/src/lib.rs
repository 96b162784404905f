//! Filter: drops spans and log records of OTLP in protobuf, an item a message, of which an
//! attribute has a text. Keys: `attribute`, `value`. Reads no more of a message than leads to
//! its attributes.

use serde::Deserialize;
use tidegate_sdk::{Message, filter};

#[derive(Deserialize)]
struct Drop {
    attribute: String,
    value: String,
}

#[derive(Debug, PartialEq, Eq)]
enum OtlpError {
    Signal,
    CutShort,
}

impl std::fmt::Display for OtlpError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            OtlpError::Signal => "the topic is neither `traces` nor `logs`",
            OtlpError::CutShort => "the payload is no item of OTLP in protobuf",
        })
    }
}

const SPAN_ATTRIBUTES: u64 = 9;
const LOG_ATTRIBUTES: u64 = 6;

fn passes(drop: &Drop, message: &Message) -> Result<bool, OtlpError> {
    let attributes = match message.topic() {
        b"traces" => SPAN_ATTRIBUTES,
        b"logs" => LOG_ATTRIBUTES,
        _ => return Err(OtlpError::Signal),
    };
    Ok(!is_dropped(drop, message.payload(), attributes)?)
}

fn is_dropped(drop: &Drop, payload: &[u8], attributes: u64) -> Result<bool, OtlpError> {
    // Resource, scope, item.
    let resource = find(payload, 1)?;
    let scope = find(resource, 2)?;
    let mut rest = find(scope, 2)?;
    while let Some((number, value)) = next(&mut rest)? {
        if number == attributes
            && find(value, 1)? == drop.attribute.as_bytes()
            && find(find(value, 2)?, 1)? == drop.value.as_bytes()
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What the first field of this number holds; nothing where there is none.
fn find(mut message: &[u8], number: u64) -> Result<&[u8], OtlpError> {
    while let Some((found, value)) = next(&mut message)? {
        if found == number {
            return Ok(value);
        }
    }
    Ok(&[])
}

/// The next field, and what it holds if it is of any length.
fn next<'a>(rest: &mut &'a [u8]) -> Result<Option<(u64, &'a [u8])>, OtlpError> {
    if rest.is_empty() {
        return Ok(None);
    }
    let key = varint(rest)?;
    let len = match key & 7 {
        0 => {
            varint(rest)?;
            0
        }
        1 => 8,
        2 => usize::try_from(varint(rest)?).map_err(|_| OtlpError::CutShort)?,
        5 => 4,
        _ => return Err(OtlpError::CutShort),
    };
    let (value, behind) = rest.split_at_checked(len).ok_or(OtlpError::CutShort)?;
    *rest = behind;
    Ok(Some((key >> 3, value)))
}

fn varint(rest: &mut &[u8]) -> Result<u64, OtlpError> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, behind) = rest.split_first().ok_or(OtlpError::CutShort)?;
        *rest = behind;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(OtlpError::CutShort)
}

filter!(passes, Drop);

#[cfg(test)]
mod tests {
    use super::*;

    fn within(number: u8, inner: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, inner.len() as u8], inner].concat()
    }

    fn span(key: &str, value: &str) -> Vec<u8> {
        let pair = [within(1, key.as_bytes()), within(2, &within(1, value.as_bytes()))].concat();
        // A time before its attributes.
        let span = [&[7 << 3 | 1, 1, 2, 3, 4, 5, 6, 7, 8], &within(9, &pair)[..]].concat();
        within(1, &[within(1, b""), within(2, &within(2, &span))].concat())
    }

    #[test]
    fn what_has_the_attribute_with_that_text_is_dropped() {
        let drop = Drop { attribute: "kind".into(), value: "probe".into() };
        let is = |key, value| is_dropped(&drop, &span(key, value), SPAN_ATTRIBUTES);
        assert_eq!(is("kind", "probe"), Ok(true));
        assert_eq!(is("kind", "order"), Ok(false));
        assert_eq!(is("other", "probe"), Ok(false));
        assert_eq!(is_dropped(&drop, &[], SPAN_ATTRIBUTES), Ok(false));
        let whole = span("kind", "probe");
        assert_eq!(is_dropped(&drop, &whole[..whole.len() - 1], SPAN_ATTRIBUTES), Err(OtlpError::CutShort));
    }
}
