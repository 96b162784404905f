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
    let mut scanner = Scanner::of(json);
    scanner.space();
    let found = scanner.find(path)?;
    scanner.end()?;
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
    scanner: Scanner<'j>,
    read: usize,
}

impl<'j> Members<'j> {
    pub fn of(object: &'j str) -> Result<Self, JsonError> {
        let mut scanner = Scanner::of(object);
        scanner.space();
        scanner.take(b'{', "an object")?;
        Ok(Members { scanner, read: 0 })
    }

    /// The next member, or `None` behind the last. Not to be called after that.
    pub fn take_next(&mut self) -> Result<Option<Member<'j>>, JsonError> {
        let Some((name, escaped)) = self.scanner.member(self.read == 0)? else {
            self.scanner.end()?;
            return Ok(None);
        };
        self.read += 1;
        let start = self.scanner.at;
        self.scanner.skip()?;
        let raw_name = &self.scanner.json[name];
        Ok(Some(Member { raw_name, escaped, value: start..self.scanner.at }))
    }
}

#[derive(Debug)]
struct Scanner<'j> {
    json: &'j str,
    at: usize,
    depth: u32,
}

impl<'j> Scanner<'j> {
    fn of(json: &'j str) -> Self {
        Scanner { json, at: 0, depth: 0 }
    }

    /// Passes over one value and finds what lies at `path` within it.
    fn find(&mut self, path: &[impl AsRef<str>]) -> Result<Option<Range<usize>>, JsonError> {
        let start = self.at;
        let Some((first, rest)) = path.split_first() else {
            self.skip()?;
            return Ok(Some(start..self.at));
        };
        let mut found = None;
        match self.peek() {
            Some(b'{') => {
                self.descend()?;
                let mut is_first = true;
                while let Some((name, escaped)) = self.member(is_first)? {
                    is_first = false;
                    if raw_is(&self.json[name], escaped, first.as_ref()) {
                        found = self.find(rest)?;
                    } else {
                        self.skip()?;
                    }
                }
                self.depth -= 1;
            }
            Some(b'[') => {
                self.descend()?;
                let wanted: Option<usize> = first.as_ref().parse().ok();
                let mut index = 0;
                while self.item(index == 0)? {
                    if wanted == Some(index) {
                        found = self.find(rest)?;
                    } else {
                        self.skip()?;
                    }
                    index += 1;
                }
                self.depth -= 1;
            }
            _ => self.skip()?,
        }
        Ok(found)
    }

    /// Passes over one value.
    fn skip(&mut self) -> Result<(), JsonError> {
        match self.peek() {
            Some(b'"') => self.string().map(|_| ()),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b'{') => {
                self.descend()?;
                let mut is_first = true;
                while self.member(is_first)?.is_some() {
                    is_first = false;
                    self.skip()?;
                }
                self.depth -= 1;
                Ok(())
            }
            Some(b'[') => {
                self.descend()?;
                let mut is_first = true;
                while self.item(is_first)? {
                    is_first = false;
                    self.skip()?;
                }
                self.depth -= 1;
                Ok(())
            }
            Some(b't') => self.literal("true"),
            Some(b'f') => self.literal("false"),
            Some(b'n') => self.literal("null"),
            _ => Err(self.expected("a value")),
        }
    }

    /// Up to the value of an object's next member, whose name it gives; `None` when
    /// the object has been closed.
    fn member(&mut self, is_first: bool) -> Result<Option<(Range<usize>, bool)>, JsonError> {
        self.space();
        match self.peek() {
            Some(b'}') => {
                self.at += 1;
                return Ok(None);
            }
            Some(b',') if !is_first => {
                self.at += 1;
                self.space();
            }
            _ if !is_first => return Err(self.expected("`,` or `}`")),
            _ => {}
        }
        if self.peek() != Some(b'"') {
            return Err(self.expected("a member's name"));
        }
        let name = self.string()?;
        self.space();
        self.take(b':', "`:`")?;
        self.space();
        Ok(Some(name))
    }

    /// Up to an array's next item; false when the array has been closed.
    fn item(&mut self, is_first: bool) -> Result<bool, JsonError> {
        self.space();
        match self.peek() {
            Some(b']') => {
                self.at += 1;
                Ok(false)
            }
            Some(b',') if !is_first => {
                self.at += 1;
                self.space();
                Ok(true)
            }
            _ if !is_first => Err(self.expected("`,` or `]`")),
            _ => Ok(true),
        }
    }

    /// A string: what lies between its quotes, and whether a backslash is there.
    fn string(&mut self) -> Result<(Range<usize>, bool), JsonError> {
        let start = self.at + 1;
        self.at = start;
        let mut escaped = false;
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok((start..self.at - 1, escaped));
                }
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                Some(0x20..) => self.at += 1,
                Some(_) => return Err(self.expected("no control character in a string")),
                None => return Err(self.expected("the end of a string")),
            }
        }
    }

    fn escape(&mut self) -> Result<(), JsonError> {
        self.at += 1;
        match self.peek() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 1,
            Some(b'u') => {
                self.at += 1;
                for _ in 0..4 {
                    if !self.peek().is_some_and(|byte| byte.is_ascii_hexdigit()) {
                        return Err(self.expected("four hexadecimal digits"));
                    }
                    self.at += 1;
                }
            }
            _ => return Err(self.expected("an escape")),
        }
        Ok(())
    }

    fn number(&mut self) -> Result<(), JsonError> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    /// At least one.
    fn digits(&mut self) -> Result<(), JsonError> {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        if self.at == start { Err(self.expected("a digit")) } else { Ok(()) }
    }

    fn literal(&mut self, literal: &'static str) -> Result<(), JsonError> {
        if self.json.as_bytes()[self.at..].starts_with(literal.as_bytes()) {
            self.at += literal.len();
            Ok(())
        } else {
            Err(self.expected("a value"))
        }
    }

    fn descend(&mut self) -> Result<(), JsonError> {
        self.at += 1;
        self.depth += 1;
        if self.depth > DEPTH_MAX { Err(JsonError::Depth) } else { Ok(()) }
    }

    fn take(&mut self, byte: u8, expected: &'static str) -> Result<(), JsonError> {
        if self.peek() != Some(byte) {
            return Err(self.expected(expected));
        }
        self.at += 1;
        Ok(())
    }

    fn end(&mut self) -> Result<(), JsonError> {
        self.space();
        if self.at == self.json.len() { Ok(()) } else { Err(self.expected("the end")) }
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.json.as_bytes().get(self.at).copied()
    }

    fn expected(&self, expected: &'static str) -> JsonError {
        JsonError::Syntax { expected, at: self.at }
    }
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
