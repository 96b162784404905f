//! Finds values in JSON text without building any: one pass that checks the whole
//! text and remembers where the wanted value lies. Nothing is allocated.

use std::ops::Range;
use std::str::Utf8Error;

/// Most arrays and objects within one another.
pub const DEPTH_MAX: u32 = 128;

/// Why a payload is not JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    #[error("payload is not JSON: {0}")]
    Utf8(Utf8Error),
    #[error("payload is not JSON: expected {expected} at byte {at}")]
    Syntax { expected: &'static str, at: usize },
    #[error("payload is JSON nested deeper than {DEPTH_MAX}")]
    Depth,
}

/// The payload as text, since JSON is UTF-8.
pub fn text(payload: &[u8]) -> Result<&str, JsonError> {
    str::from_utf8(payload).map_err(JsonError::Utf8)
}

/// Checks all of `json` and finds the value at `path`: names of members, and indices
/// into arrays. Of several members of one name the last counts.
pub fn find(json: &str, path: &[impl AsRef<str>]) -> Result<Option<Range<usize>>, JsonError> {
    let bytes = json.as_bytes();
    let (found, end) = find_at(json, skip_space(bytes, 0), path, 0)?;
    check_end(bytes, end)?;
    Ok(found)
}

/// Whether the value is the string `text`.
pub fn is_string(value: &str, text: &str) -> bool {
    match value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(raw) => raw_is(raw, raw.contains('\\'), text),
        None => false,
    }
}

/// One member of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member<'j> {
    /// The name as it stands between its quotes.
    raw_name: &'j str,
    escaped: bool,
    pub value: Range<usize>,
}

impl<'j> Member<'j> {
    pub fn is(&self, name: &str) -> bool {
        raw_is(self.raw_name, self.escaped, name)
    }

    /// The name as it stands between its quotes.
    pub fn raw_name(&self) -> &'j str {
        self.raw_name
    }
}

/// Reads an object member by member; that nothing follows it is checked after the last.
#[derive(Debug)]
pub struct Members<'j> {
    json: &'j str,
    at: usize,
    is_first: bool,
}

impl<'j> Members<'j> {
    pub fn of(object: &'j str) -> Result<Self, JsonError> {
        let at = skip_space(object.as_bytes(), 0);
        if byte_at(object.as_bytes(), at) != b'{' {
            return Err(JsonError::Syntax { expected: "an object", at });
        }
        Ok(Members { json: object, at: at + 1, is_first: true })
    }

    /// The next member, or `None` behind the last. Not to be called after that.
    pub fn take_next(&mut self) -> Result<Option<Member<'j>>, JsonError> {
        let bytes = self.json.as_bytes();
        let Some((name, escaped, start)) = next_member(bytes, self.at, self.is_first)? else {
            check_end(bytes, skip_space(bytes, self.at) + 1)?;
            return Ok(None);
        };
        self.is_first = false;
        self.at = skip_value(bytes, start, 1)?;
        Ok(Some(Member { raw_name: &self.json[name], escaped, value: start..self.at }))
    }
}

// What follows passes over text from a place `at` and gives the place behind. Places
// are kept out of memory on purpose: with a cursor behind a reference every byte cost
// five times as much.

/// Passes over the value at `at`, `depth` objects deep, and finds what lies at `path`
/// within it.
fn find_at(
    json: &str,
    at: usize,
    path: &[impl AsRef<str>],
    depth: u32,
) -> Result<(Option<Range<usize>>, usize), JsonError> {
    let bytes = json.as_bytes();
    let Some((first, rest)) = path.split_first() else {
        let end = skip_value(bytes, at, depth)?;
        return Ok((Some(at..end), end));
    };
    if depth >= DEPTH_MAX {
        return Err(JsonError::Depth);
    }
    let first = first.as_ref();
    let (mut found, mut end, mut is_first) = (None, at + 1, true);
    match byte_at(bytes, at) {
        b'{' => {
            while let Some((name, escaped, start)) = next_member(bytes, end, is_first)? {
                is_first = false;
                if raw_is(&json[name], escaped, first) {
                    (found, end) = find_at(json, start, rest, depth + 1)?;
                } else {
                    end = skip_value(bytes, start, depth + 1)?;
                }
            }
        }
        b'[' => {
            let wanted = first.parse().unwrap_or(usize::MAX);
            let mut index = 0;
            while let Some(start) = next_item(bytes, end, is_first)? {
                is_first = false;
                if index == wanted {
                    (found, end) = find_at(json, start, rest, depth + 1)?;
                } else {
                    end = skip_value(bytes, start, depth + 1)?;
                }
                index += 1;
            }
        }
        _ => return Ok((None, skip_value(bytes, at, depth)?)),
    }
    // The bracket that ended the loop.
    Ok((found, skip_space(bytes, end) + 1))
}

/// From behind an object's `{` or a member to its next member: its name, whether that
/// has escapes, and where its value starts. `None` before the `}`.
#[inline]
fn next_member(
    bytes: &[u8],
    at: usize,
    is_first: bool,
) -> Result<Option<(Range<usize>, bool, usize)>, JsonError> {
    let mut at = skip_space(bytes, at);
    match byte_at(bytes, at) {
        b'}' => return Ok(None),
        b',' if !is_first => at = skip_space(bytes, at + 1),
        _ if !is_first => return Err(JsonError::Syntax { expected: "`,` or `}`", at }),
        _ => {}
    }
    let (end, escaped) = skip_name(bytes, at)?;
    Ok(Some((at + 1..end - 1, escaped, skip_colon(bytes, end)?)))
}

/// From behind an array's `[` or an item to its next item; `None` before the `]`.
#[inline]
fn next_item(bytes: &[u8], at: usize, is_first: bool) -> Result<Option<usize>, JsonError> {
    let at = skip_space(bytes, at);
    match byte_at(bytes, at) {
        b']' => Ok(None),
        b',' if !is_first => Ok(Some(skip_space(bytes, at + 1))),
        _ if !is_first => Err(JsonError::Syntax { expected: "`,` or `]`", at }),
        _ => Ok(Some(at)),
    }
}

/// Passes over one value that lies `depth` deep.
fn skip_value(bytes: &[u8], mut at: usize, depth: u32) -> Result<usize, JsonError> {
    // Which of the brackets that are open are objects, the innermost in the lowest bit.
    let (mut objects, mut open) = (0_u128, 0);
    loop {
        match byte_at(bytes, at) {
            b'"' => at = skip_string(bytes, at)?.0,
            b'-' | b'0'..=b'9' => at = skip_number(bytes, at)?,
            b't' => at = skip_literal(bytes, at, b"true")?,
            b'f' => at = skip_literal(bytes, at, b"false")?,
            b'n' => at = skip_literal(bytes, at, b"null")?,
            bracket @ (b'{' | b'[') => {
                if depth + open >= DEPTH_MAX {
                    return Err(JsonError::Depth);
                }
                let is_object = bracket == b'{';
                at = skip_space(bytes, at + 1);
                if byte_at(bytes, at) == closing(is_object) {
                    at += 1;
                } else {
                    objects = objects << 1 | u128::from(is_object);
                    open += 1;
                    if is_object {
                        at = skip_colon(bytes, skip_name(bytes, at)?.0)?;
                    }
                    continue;
                }
            }
            _ => return Err(JsonError::Syntax { expected: "a value", at }),
        }
        loop {
            if open == 0 {
                return Ok(at);
            }
            let is_object = objects & 1 == 1;
            at = skip_space(bytes, at);
            match byte_at(bytes, at) {
                b',' => {
                    at = skip_space(bytes, at + 1);
                    if is_object {
                        at = skip_colon(bytes, skip_name(bytes, at)?.0)?;
                    }
                    break;
                }
                close if close == closing(is_object) => {
                    at += 1;
                    open -= 1;
                    objects >>= 1;
                }
                _ => return Err(JsonError::Syntax { expected: "`,` or a closing bracket", at }),
            }
        }
    }
}

fn closing(is_object: bool) -> u8 {
    if is_object { b'}' } else { b']' }
}

#[inline]
fn skip_name(bytes: &[u8], at: usize) -> Result<(usize, bool), JsonError> {
    match byte_at(bytes, at) {
        b'"' => skip_string(bytes, at),
        _ => Err(JsonError::Syntax { expected: "a member's name", at }),
    }
}

/// Passes over a name's colon, to its value.
#[inline]
fn skip_colon(bytes: &[u8], at: usize) -> Result<usize, JsonError> {
    let at = skip_space(bytes, at);
    match byte_at(bytes, at) {
        b':' => Ok(skip_space(bytes, at + 1)),
        _ => Err(JsonError::Syntax { expected: "`:`", at }),
    }
}

/// Passes over a string, and tells whether a backslash is in it.
#[inline]
fn skip_string(bytes: &[u8], at: usize) -> Result<(usize, bool), JsonError> {
    let mut at = special_from(bytes, at + 1);
    let mut escaped = false;
    loop {
        match byte_at(bytes, at) {
            b'"' => return Ok((at + 1, escaped)),
            b'\\' => {
                escaped = true;
                at = special_from(bytes, skip_escape(bytes, at)?);
            }
            _ => return Err(JsonError::Syntax { expected: "the end of a string", at }),
        }
    }
}

fn skip_escape(bytes: &[u8], at: usize) -> Result<usize, JsonError> {
    match byte_at(bytes, at + 1) {
        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Ok(at + 2),
        b'u' if (2..6).all(|digit| byte_at(bytes, at + digit).is_ascii_hexdigit()) => Ok(at + 6),
        _ => Err(JsonError::Syntax { expected: "an escape", at }),
    }
}

#[inline]
fn skip_number(bytes: &[u8], mut at: usize) -> Result<usize, JsonError> {
    if byte_at(bytes, at) == b'-' {
        at += 1;
    }
    at = if byte_at(bytes, at) == b'0' { at + 1 } else { skip_digits(bytes, at)? };
    if byte_at(bytes, at) == b'.' {
        at = skip_digits(bytes, at + 1)?;
    }
    if let b'e' | b'E' = byte_at(bytes, at) {
        at += 1;
        if let b'+' | b'-' = byte_at(bytes, at) {
            at += 1;
        }
        at = skip_digits(bytes, at)?;
    }
    Ok(at)
}

/// At least one.
#[inline]
fn skip_digits(bytes: &[u8], start: usize) -> Result<usize, JsonError> {
    let mut at = start;
    while byte_at(bytes, at).is_ascii_digit() {
        at += 1;
    }
    if at == start { Err(JsonError::Syntax { expected: "a digit", at }) } else { Ok(at) }
}

fn skip_literal(bytes: &[u8], at: usize, literal: &[u8]) -> Result<usize, JsonError> {
    match bytes[at..].starts_with(literal) {
        true => Ok(at + literal.len()),
        false => Err(JsonError::Syntax { expected: "a value", at }),
    }
}

fn check_end(bytes: &[u8], at: usize) -> Result<(), JsonError> {
    let at = skip_space(bytes, at);
    if at == bytes.len() { Ok(()) } else { Err(JsonError::Syntax { expected: "the end", at }) }
}

#[inline]
fn skip_space(bytes: &[u8], mut at: usize) -> usize {
    // Most places have none: one comparison tells.
    while byte_at(bytes, at) <= b' ' && matches!(byte_at(bytes, at), b' ' | b'\t' | b'\n' | b'\r') {
        at += 1;
    }
    at
}

/// The byte at `at`; behind the end 0, which stands nowhere in JSON.
#[inline]
fn byte_at(bytes: &[u8], at: usize) -> u8 {
    bytes.get(at).copied().unwrap_or(0)
}

/// The first place from `at` on where a string ends or needs a look: a quote, a
/// backslash or a control character. Looks at eight bytes at once.
fn special_from(bytes: &[u8], mut at: usize) -> usize {
    const ONES: u64 = u64::MAX / 0xff;
    // The top bit of each byte below `limit`; a bit above the lowest that is set may
    // be a mistake, so only that one is used.
    let below = |word: u64, limit: u8| word.wrapping_sub(ONES * u64::from(limit)) & !word & (ONES << 7);
    while let Some(chunk) = bytes.get(at..).and_then(|rest| rest.first_chunk()) {
        let word = u64::from_le_bytes(*chunk);
        let quote = below(word ^ (ONES * u64::from(b'"')), 1);
        let backslash = below(word ^ (ONES * u64::from(b'\\')), 1);
        let special = quote | backslash | below(word, 0x20);
        if special != 0 {
            return at + special.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    let tail =
        bytes.get(at..).unwrap_or_default().iter().position(|byte| matches!(byte, b'"' | b'\\' | ..0x20));
    tail.map_or(bytes.len(), |found| at + found)
}

/// Whether a string that stands as `raw` between its quotes means `text`.
fn raw_is(raw: &str, escaped: bool, text: &str) -> bool {
    if escaped { unescape(raw).eq(text.chars().map(Some)) } else { raw == text }
}

/// The characters of a string whose escapes were checked; `None` for half a pair.
fn unescape(raw: &str) -> impl Iterator<Item = Option<char>> {
    let mut rest = raw.chars();
    std::iter::from_fn(move || {
        let character = match rest.next()? {
            '\\' => match rest.next()? {
                'u' => return Some(unit(&mut rest)),
                'b' => '\u{8}',
                'f' => '\u{c}',
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                itself => itself,
            },
            itself => itself,
        };
        Some(Some(character))
    })
}

/// What follows `\u`, and the second half of a surrogate pair.
fn unit(rest: &mut std::str::Chars) -> Option<char> {
    let first = hex(rest);
    if !(0xd800..0xdc00).contains(&first) {
        return char::from_u32(first);
    }
    let mut ahead = rest.clone();
    if ahead.next() != Some('\\') || ahead.next() != Some('u') {
        return None;
    }
    let second = hex(&mut ahead);
    if !(0xdc00..0xe000).contains(&second) {
        return None;
    }
    *rest = ahead;
    char::from_u32(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00))
}

fn hex(rest: &mut std::str::Chars) -> u32 {
    rest.by_ref().take(4).fold(0, |value, digit| value << 4 | digit.to_digit(16).unwrap_or(0))
}

#[cfg(test)]
mod tests;
