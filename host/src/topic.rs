//! Topics: filters with MQTT's wildcards, for subscriptions and for what policy
//! grants, and the template of a destination. Used by source and sink alike.

use bytes::BytesMut;

/// An MQTT topic filter: levels parted by `/`, `+` for one level, `#` for the rest.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TopicFilter {
    text: String,
    /// Where the filter begins: behind the group of a shared subscription.
    start: usize,
}

/// Why a topic or a filter cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    #[error("a topic cannot be empty")]
    Empty,
    #[error("a topic holds at most 65535 bytes")]
    TooLong,
    #[error("`{wildcard}` must stand alone in its level")]
    WildcardInLevel { wildcard: char },
    #[error("`#` must be the last level")]
    HashNotLast,
    #[error("a topic cannot hold a NUL character")]
    Nul,
    #[error("a shared subscription is `$share/GROUP/FILTER`, and its group has no wildcards")]
    Group,
    #[error("topics that begin with `$` belong to the broker")]
    Reserved,
    #[error("`{placeholder}` is unknown; `${{outputTopic}}` and `${{outputTopic.N}}` are")]
    UnknownPlaceholder { placeholder: String },
    #[error("the message's topic has no level {level}")]
    NoLevel { level: usize },
    #[error("a topic to write to cannot hold `{wildcard}`")]
    WildcardInName { wildcard: char },
    #[error("a topic must be UTF-8")]
    NotUtf8,
}

impl TopicFilter {
    /// Refuses wildcards out of place and `$` topics (`$SYS`, `$share`).
    pub fn parse(text: &str) -> Result<Self, TopicError> {
        check_filter(text)?;
        Ok(TopicFilter { text: text.to_owned(), start: 0 })
    }

    /// The same of what a source subscribes to, which may be `$share/GROUP/FILTER`: each
    /// message goes to one of those who share the group. AIO writes `$shared`.
    pub fn parse_subscription(text: &str) -> Result<Self, TopicError> {
        let Some(shared) = text.strip_prefix("$share/").or_else(|| text.strip_prefix("$shared/")) else {
            return Self::parse(text);
        };
        let (group, filter) = shared.split_once('/').ok_or(TopicError::Group)?;
        if group.is_empty() || group.contains(['+', '#']) {
            return Err(TopicError::Group);
        }
        check_filter(filter)?;
        let text = format!("$share/{group}/{filter}");
        check_len(&text)?;
        Ok(TopicFilter { start: text.len() - filter.len(), text })
    }

    /// The filter itself.
    pub fn as_str(&self) -> &str {
        &self.text[self.start..]
    }

    /// What a broker is asked for: the filter, and the group that shares what it gives.
    pub fn subscription(&self) -> &str {
        &self.text
    }

    pub fn is_shared(&self) -> bool {
        self.start > 0
    }

    /// Whether a message on `topic` would come through this filter. A wildcard in
    /// the first level does not match a topic that begins with `$`.
    pub fn matches(&self, topic: &str) -> bool {
        if topic.starts_with('$') {
            return false;
        }
        let mut topic = topic.split('/');
        let mut filter = self.as_str().split('/');
        loop {
            match (filter.next(), topic.next()) {
                (Some("#"), _) => return true,
                (Some("+"), Some(_)) => {}
                (Some(level), Some(name)) if level == name => {}
                (None, None) => return true,
                _ => return false,
            }
        }
    }

    /// Whether every topic that `other` can match is matched by this filter too.
    pub fn covers(&self, other: &TopicFilter) -> bool {
        let mut mine = self.as_str().split('/');
        let mut theirs = other.as_str().split('/');
        loop {
            match (mine.next(), theirs.next()) {
                (Some("#"), _) => return true,
                (Some("+"), Some(level)) if level != "#" => {}
                (Some(level), Some(other)) if level == other && level != "#" => {}
                (None, None) => return true,
                _ => return false,
            }
        }
    }
}

/// Wildcards stand alone in their levels, `#` in the last.
fn check_filter(text: &str) -> Result<(), TopicError> {
    check_text(text)?;
    let mut levels = text.split('/').peekable();
    while let Some(level) = levels.next() {
        match level {
            "#" if levels.peek().is_some() => return Err(TopicError::HashNotLast),
            "#" | "+" => {}
            _ if level.contains('#') => return Err(TopicError::WildcardInLevel { wildcard: '#' }),
            _ if level.contains('+') => return Err(TopicError::WildcardInLevel { wildcard: '+' }),
            _ => {}
        }
    }
    Ok(())
}

/// Whether a broker takes `bytes` as the text of a topic or property: UTF-8 of at
/// most 65,535 bytes without control characters or non-characters. MQTT lets a
/// broker end the connection over those, as mosquitto does, which would make one
/// such message a loop of reconnects.
pub fn is_text(bytes: &[u8]) -> bool {
    if bytes.len() > usize::from(u16::MAX) {
        return false;
    }
    if bytes.iter().all(|byte| (0x20..0x7f).contains(byte)) {
        return true;
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    text.chars()
        .all(|c| !c.is_control() && !matches!(c as u32, 0xfdd0..=0xfdef) && c as u32 & 0xfffe != 0xfffe)
}

/// A topic that can be written to: no wildcards, not the broker's own.
pub fn check_name(topic: &str) -> Result<(), TopicError> {
    check_text(topic)?;
    match topic.chars().find(|c| matches!(c, '+' | '#')) {
        Some(wildcard) => Err(TopicError::WildcardInName { wildcard }),
        None => Ok(()),
    }
}

fn check_len(text: &str) -> Result<(), TopicError> {
    if text.len() > usize::from(u16::MAX) { Err(TopicError::TooLong) } else { Ok(()) }
}

fn check_text(text: &str) -> Result<(), TopicError> {
    check_len(text)?;
    match text {
        "" => Err(TopicError::Empty),
        _ if text.starts_with('$') => Err(TopicError::Reserved),
        _ if text.contains('\0') => Err(TopicError::Nul),
        _ => Ok(()),
    }
}

/// AIO's `dataDestination`: text with `${outputTopic}` (the message's topic as the
/// operators left it) and `${outputTopic.N}` (its level N, from 1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicTemplate {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    OutputTopic,
    Level(usize),
}

impl TopicTemplate {
    pub fn parse(text: &str) -> Result<Self, TopicError> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(start) = rest.find("${") {
            let end = rest[start..].find('}').map_or(rest.len(), |end| start + end + 1);
            if start > 0 {
                parts.push(Part::Text(rest[..start].to_owned()));
            }
            parts.push(placeholder(&rest[start..end])?);
            rest = &rest[end..];
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        if parts.is_empty() {
            return Err(TopicError::Empty);
        }
        // What can be known now is checked now.
        if let [Part::Text(fixed)] = parts.as_slice() {
            check_name(fixed)?;
        }
        Ok(TopicTemplate { parts })
    }

    /// The topic, if it is the same for every message.
    pub fn fixed(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// Appends the topic for a message whose own topic is `message_topic`.
    pub fn render(&self, message_topic: &[u8], out: &mut BytesMut) -> Result<(), TopicError> {
        let start = out.len();
        for part in &self.parts {
            match part {
                Part::Text(text) => out.extend_from_slice(text.as_bytes()),
                Part::OutputTopic => out.extend_from_slice(message_topic),
                Part::Level(level) => {
                    let name = message_topic.split(|byte| *byte == b'/').nth(level - 1);
                    out.extend_from_slice(name.ok_or(TopicError::NoLevel { level: *level })?);
                }
            }
        }
        if self.fixed().is_some() {
            return Ok(());
        }
        check_name(std::str::from_utf8(&out[start..]).map_err(|_| TopicError::NotUtf8)?)
    }
}

impl std::fmt::Display for TopicTemplate {
    /// As it was written.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.parts.iter().try_for_each(|part| match part {
            Part::Text(text) => f.write_str(text),
            Part::OutputTopic => f.write_str("${outputTopic}"),
            Part::Level(level) => write!(f, "${{outputTopic.{level}}}"),
        })
    }
}

fn placeholder(text: &str) -> Result<Part, TopicError> {
    let unknown = || TopicError::UnknownPlaceholder { placeholder: text.to_owned() };
    let name = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')).ok_or_else(unknown)?;
    match name.strip_prefix("outputTopic") {
        Some("") => Ok(Part::OutputTopic),
        Some(level) => match level.strip_prefix('.').and_then(|level| level.parse().ok()) {
            Some(level) if level > 0 => Ok(Part::Level(level)),
            _ => Err(unknown()),
        },
        None => Err(unknown()),
    }
}

#[cfg(test)]
mod tests;
