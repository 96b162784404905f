//! Whether bytes are a request of OTLP, told by one walk over them that allocates nothing:
//! what prost refuses is refused, and what it takes is taken (`fuzz::otlp` holds the two
//! against each other). A request of empty spans, two bytes each, would be two hundred times
//! as large decoded. Knows the fields of OTLP, and no tenants.

use super::form::Signal;

/// Messages may lie in each other so deep, as prost has it.
const DEPTH_MAX: u32 = 100;

/// The bytes are no such message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("it is cut short")]
    Short,
    #[error("a number in it has too many bytes")]
    Varint,
    #[error("a field of it has a key that no field can have")]
    Key,
    #[error("a field of it is not written as that field is")]
    Type,
    #[error("a text in it is no UTF-8")]
    Text,
    #[error("messages in it lie too deep in each other")]
    Deep,
}

/// Whether `bytes` are an export request of `signal`.
pub fn check(signal: Signal, bytes: &[u8]) -> Result<(), Malformed> {
    let message = match signal {
        Signal::Traces => &TRACES,
        Signal::Metrics => &METRICS,
        Signal::Logs => &LOGS,
    };
    check_message(message, bytes, DEPTH_MAX)
}

/// How the value of a field is written.
#[derive(Clone, Copy)]
enum Kind {
    /// There is no field of this number.
    None,
    Varint,
    Fixed64,
    Fixed32,
    Bytes,
    Text,
    Message(&'static Message),
    /// Several, each as a field of its own or all in one.
    Varints,
    Fixed64s,
}

/// By number, from 0.
struct Message(&'static [Kind]);

use Kind::{Bytes, Fixed32, Fixed64, Fixed64s, None as No, Text, Varint, Varints};

macro_rules! messages {
    ($($name:ident = [$($kind:expr),* $(,)?];)*) => {
        $(static $name: Message = Message(&[$($kind),*]);)*
    };
}

const fn of(message: &'static Message) -> Kind {
    Kind::Message(message)
}

messages! {
    TRACES = [No, of(&RESOURCE_SPANS)];
    RESOURCE_SPANS = [No, of(&RESOURCE), of(&SCOPE_SPANS), Text];
    SCOPE_SPANS = [No, of(&SCOPE), of(&SPAN), Text];
    SPAN = [No, Bytes, Bytes, Text, Bytes, Text, Varint, Fixed64, Fixed64, of(&KEY_VALUE), Varint,
        of(&EVENT), Varint, of(&LINK), Varint, of(&SPAN_STATUS), Fixed32];
    EVENT = [No, Fixed64, Text, of(&KEY_VALUE), Varint];
    LINK = [No, Bytes, Bytes, Text, of(&KEY_VALUE), Varint, Fixed32];
    SPAN_STATUS = [No, No, Text, Varint];

    METRICS = [No, of(&RESOURCE_METRICS)];
    RESOURCE_METRICS = [No, of(&RESOURCE), of(&SCOPE_METRICS), Text];
    SCOPE_METRICS = [No, of(&SCOPE), of(&METRIC), Text];
    METRIC = [No, Text, Text, Text, No, of(&GAUGE), No, of(&SUM), No, of(&HISTOGRAM), of(&EXPONENTIAL),
        of(&SUMMARY), of(&KEY_VALUE)];
    GAUGE = [No, of(&NUMBER)];
    SUM = [No, of(&NUMBER), Varint, Varint];
    HISTOGRAM = [No, of(&HISTOGRAM_POINT), Varint];
    EXPONENTIAL = [No, of(&EXPONENTIAL_POINT), Varint];
    SUMMARY = [No, of(&SUMMARY_POINT)];
    NUMBER = [No, No, Fixed64, Fixed64, Fixed64, of(&EXEMPLAR), Fixed64, of(&KEY_VALUE), Varint];
    HISTOGRAM_POINT = [No, No, Fixed64, Fixed64, Fixed64, Fixed64, Fixed64s, Fixed64s, of(&EXEMPLAR),
        of(&KEY_VALUE), Varint, Fixed64, Fixed64];
    EXPONENTIAL_POINT = [No, of(&KEY_VALUE), Fixed64, Fixed64, Fixed64, Fixed64, Varint, Fixed64,
        of(&BUCKETS), of(&BUCKETS), Varint, of(&EXEMPLAR), Fixed64, Fixed64, Fixed64];
    BUCKETS = [No, Varint, Varints];
    SUMMARY_POINT = [No, No, Fixed64, Fixed64, Fixed64, Fixed64, of(&QUANTILE), of(&KEY_VALUE), Varint];
    QUANTILE = [No, Fixed64, Fixed64];
    EXEMPLAR = [No, No, Fixed64, Fixed64, Bytes, Bytes, Fixed64, of(&KEY_VALUE)];

    LOGS = [No, of(&RESOURCE_LOGS)];
    RESOURCE_LOGS = [No, of(&RESOURCE), of(&SCOPE_LOGS), Text];
    SCOPE_LOGS = [No, of(&SCOPE), of(&LOG_RECORD), Text];
    LOG_RECORD = [No, Fixed64, Varint, Text, No, of(&VALUE), of(&KEY_VALUE), Varint, Fixed32, Bytes, Bytes,
        Fixed64, Text];

    RESOURCE = [No, of(&KEY_VALUE), Varint, of(&ENTITY)];
    ENTITY = [No, Text, Text, Text, Text];
    SCOPE = [No, Text, Text, of(&KEY_VALUE), Varint];
    KEY_VALUE = [No, Text, of(&VALUE), Varint];
    VALUE = [No, Text, Varint, Varint, Fixed64, of(&ARRAY), of(&LIST), Bytes, Varint];
    ARRAY = [No, of(&VALUE)];
    LIST = [No, of(&KEY_VALUE)];
}

fn check_message(message: &Message, mut bytes: &[u8], depth: u32) -> Result<(), Malformed> {
    while !bytes.is_empty() {
        let (number, written, rest) = key(bytes)?;
        bytes = match message.0.get(number as usize).copied().unwrap_or(Kind::None) {
            Kind::None => skip(number, written, rest, depth)?,
            kind => check_field(kind, written, rest, depth)?,
        };
    }
    Ok(())
}

/// Gives what lies behind the field's value.
fn check_field(kind: Kind, written: u8, bytes: &[u8], depth: u32) -> Result<&[u8], Malformed> {
    match (kind, written) {
        (Kind::Varint | Kind::Varints, VARINT) => Ok(varint(bytes)?.1),
        (Kind::Fixed64 | Kind::Fixed64s, FIXED64) => bytes.get(8..).ok_or(Malformed::Short),
        (Kind::Fixed32, FIXED32) => bytes.get(4..).ok_or(Malformed::Short),
        (Kind::Bytes, DELIMITED) => Ok(delimited(bytes)?.1),
        (Kind::Text, DELIMITED) => {
            let (text, rest) = delimited(bytes)?;
            std::str::from_utf8(text).map_err(|_| Malformed::Text)?;
            Ok(rest)
        }
        (Kind::Message(message), DELIMITED) => {
            let depth = depth.checked_sub(1).ok_or(Malformed::Deep)?;
            let (inner, rest) = delimited(bytes)?;
            check_message(message, inner, depth)?;
            Ok(rest)
        }
        (Kind::Varints, DELIMITED) => {
            let (mut packed, rest) = delimited(bytes)?;
            while !packed.is_empty() {
                packed = varint(packed)?.1;
            }
            Ok(rest)
        }
        (Kind::Fixed64s, DELIMITED) => {
            let (packed, rest) = delimited(bytes)?;
            if packed.len().is_multiple_of(8) { Ok(rest) } else { Err(Malformed::Short) }
        }
        _ => Err(Malformed::Type),
    }
}

/// Behind a field that nobody knows.
fn skip(number: u32, written: u8, mut bytes: &[u8], depth: u32) -> Result<&[u8], Malformed> {
    let deeper = depth.checked_sub(1).ok_or(Malformed::Deep)?;
    match written {
        VARINT => Ok(varint(bytes)?.1),
        FIXED64 => bytes.get(8..).ok_or(Malformed::Short),
        FIXED32 => bytes.get(4..).ok_or(Malformed::Short),
        DELIMITED => Ok(delimited(bytes)?.1),
        GROUP => loop {
            let (inner, written, rest) = key(bytes)?;
            if written == GROUP_END {
                return if inner == number { Ok(rest) } else { Err(Malformed::Key) };
            }
            bytes = skip(inner, written, rest, deeper)?;
        },
        _ => Err(Malformed::Key),
    }
}

const VARINT: u8 = 0;
const FIXED64: u8 = 1;
const DELIMITED: u8 = 2;
const GROUP: u8 = 3;
const GROUP_END: u8 = 4;
const FIXED32: u8 = 5;

/// Number and way of writing of a field, and what follows.
fn key(bytes: &[u8]) -> Result<(u32, u8, &[u8]), Malformed> {
    let (key, rest) = varint(bytes)?;
    let key = u32::try_from(key).map_err(|_| Malformed::Key)?;
    let (number, written) = (key >> 3, (key & 7) as u8);
    if number == 0 || written > FIXED32 { Err(Malformed::Key) } else { Ok((number, written, rest)) }
}

fn varint(bytes: &[u8]) -> Result<(u64, &[u8]), Malformed> {
    let mut value = 0;
    for (index, byte) in bytes.iter().enumerate().take(10) {
        if index == 9 && *byte > 1 {
            return Err(Malformed::Varint);
        }
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok((value, &bytes[index + 1..]));
        }
    }
    Err(if bytes.len() < 10 { Malformed::Short } else { Malformed::Varint })
}

fn delimited(bytes: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    let (len, rest) = varint(bytes)?;
    let len = usize::try_from(len).map_err(|_| Malformed::Short)?;
    rest.split_at_checked(len).ok_or(Malformed::Short)
}

/// A field of a message that was checked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field<'a> {
    pub number: u32,
    /// Key and value.
    pub whole: &'a [u8],
    /// Of a field that is delimited: what it holds.
    pub inner: Option<&'a [u8]>,
}

/// The fields of a message that was checked, in their order.
pub(super) fn fields(mut bytes: &[u8]) -> impl Iterator<Item = Field<'_>> {
    std::iter::from_fn(move || {
        let whole = bytes;
        let (number, written, rest) = key(bytes).ok()?;
        let inner = if written == DELIMITED { delimited(rest).ok().map(|it| it.0) } else { None };
        bytes = skip(number, written, rest, DEPTH_MAX).ok()?;
        Some(Field { number, whole: &whole[..whole.len() - bytes.len()], inner })
    })
}

/// Writes key and length of a field that is delimited.
pub(super) fn put_head(number: u32, len: usize, out: &mut Vec<u8>) {
    put_varint(u64::from(number << 3 | u32::from(DELIMITED)), out);
    put_varint(len as u64, out);
}

/// What [`put_head`] writes, in bytes.
pub(super) fn head_len(number: u32, len: usize) -> usize {
    varint_len(u64::from(number << 3)) + varint_len(len as u64)
}

fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

#[cfg(test)]
mod tests;
