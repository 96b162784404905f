//! `Answer`: what came back to a request, read from the user properties and the payload
//! of a message as AIO's protocol has them. Knows nothing of sessions.

use super::{CommandError, CommandErrorKind as Kind, RESERVED_PREFIX};
use crate::hlc::{self, Point};

/// User properties of the protocol.
pub mod property {
    pub const TIMESTAMP: &str = crate::hlc::PROPERTY;
    /// Who asks: a client id.
    pub const SOURCE: &str = "__srcId";
    /// The same, for programs made for earlier versions.
    pub const INVOKER: &str = "__invId";
    pub const VERSION: &str = "__protVer";
    pub const STATUS: &str = "__stat";
    pub const STATUS_TEXT: &str = "__stMsg";
    /// The error is the application's own.
    pub const APPLICATION_ERROR: &str = "__apErr";
    /// What was wrong with the request.
    pub const BAD_NAME: &str = "__propName";
    pub const BAD_VALUE: &str = "__propVal";
}

/// The protocol's version that we speak.
pub const VERSION: &str = "1.0";

/// Of a text in an answer, as much goes into an error.
const TEXT_BYTES_MAX: usize = 256;

/// What another program answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub payload: Vec<u8>,
    /// User properties that are not the protocol's.
    pub user_data: Vec<(String, String)>,
    /// When it was given, on the other program's clock, and by whom.
    pub time: Option<(Point, String)>,
}

/// What the protocol's properties say.
#[derive(Default)]
struct Said<'a> {
    time: Option<&'a str>,
    version: Option<&'a str>,
    status: Option<&'a str>,
    text: Option<&'a str>,
    is_of_application: bool,
    bad_name: Option<&'a str>,
    bad_value: Option<&'a str>,
}

impl Answer {
    /// Reads a message with these user properties.
    pub fn read<'a>(
        payload: &[u8],
        properties: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, CommandError> {
        let (mut said, mut user_data) = (Said::default(), Vec::new());
        for (key, value) in properties {
            match key {
                property::TIMESTAMP => said.time = Some(value),
                property::VERSION => said.version = Some(value),
                property::STATUS => said.status = Some(value),
                property::STATUS_TEXT => said.text = Some(value),
                property::APPLICATION_ERROR => said.is_of_application = value.eq_ignore_ascii_case("true"),
                property::BAD_NAME => said.bad_name = Some(value).filter(|name| !name.is_empty()),
                property::BAD_VALUE => said.bad_value = Some(value),
                other if other.starts_with(RESERVED_PREFIX) => {}
                _ => user_data.push((key.to_owned(), value.to_owned())),
            }
        }
        said.check(payload)?;
        let time = match said.time {
            None => None,
            Some(text) => {
                let read = hlc::parse(text.as_bytes());
                let (point, node) = read.ok_or_else(|| header_invalid(property::TIMESTAMP, text))?;
                Some((point, String::from_utf8_lossy(node).into_owned()))
            }
        };
        Ok(Answer { payload: payload.to_vec(), user_data, time })
    }

    /// Bytes of all that it brings.
    pub fn bytes_len(&self) -> usize {
        self.payload.len() + self.user_data.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>()
    }
}

impl Said<'_> {
    /// Whether it is an answer, and a good one.
    fn check(&self, payload: &[u8]) -> Result<(), CommandError> {
        let version = self.version.unwrap_or(VERSION);
        if version.split_once('.').is_none_or(|(major, _)| major != "1") {
            return Err(header_invalid(property::VERSION, version));
        }
        let Some(status) = self.status else {
            let text = format!("the answer has no `{}`", property::STATUS);
            return Err(CommandError::new(Kind::HeaderMissing, text));
        };
        let kind = match status.parse::<u16>() {
            Err(_) => return Err(header_invalid(property::STATUS, status)),
            Ok(200) => return Ok(()),
            Ok(204) if payload.is_empty() => return Ok(()),
            Ok(204) => {
                let text = "the answer has a payload and the status 204, which has none";
                return Err(CommandError::new(Kind::PayloadInvalid, text));
            }
            Ok(status) => self.kind(status),
        };
        let mut text = format!("the answer has the status {status}");
        for (what, said) in [("", self.text), ("property ", self.bad_name), ("value ", self.bad_value)] {
            if let Some(said) = said {
                text += &format!(": {what}{}", cut(said));
            }
        }
        Err(CommandError::new(kind, text))
    }

    fn kind(&self, status: u16) -> Kind {
        match status {
            400 if self.bad_name.is_none() => Kind::PayloadInvalid,
            400 if self.bad_value.is_none() => Kind::HeaderMissing,
            // Content type, or version of the protocol.
            400 | 415 | 505 => Kind::HeaderInvalid,
            408 => Kind::Timeout,
            422 => Kind::InvocationException,
            500 if self.is_of_application => Kind::ExecutionException,
            500 if self.bad_name.is_some() => Kind::InternalLogicError,
            503 => Kind::StateInvalid,
            _ => Kind::UnknownError,
        }
    }
}

fn header_invalid(name: &str, value: &str) -> CommandError {
    CommandError::new(Kind::HeaderInvalid, format!("the answer has `{}` as its `{name}`", cut(value)))
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_BYTES_MAX)]
}

#[cfg(test)]
mod tests;
