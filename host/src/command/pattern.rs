//! `TopicPattern`: the topics of requests and answers, with tokens to be replaced, as
//! AIO's protocol has them. Serves invokers of commands; knows no grants.

use crate::topic::TopicFilter;

/// Longest topic of a request or an answer, and longest pattern, in bytes.
pub const TOPIC_BYTES_MAX: usize = 1 << 10;

/// Why there is no topic.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    #[error("{what} is empty")]
    Empty { what: &'static str },
    #[error("{what} `{text}` has an empty level")]
    EmptyLevel { what: &'static str, text: String },
    #[error("{what} `{text}` begins with `$`")]
    Reserved { what: &'static str, text: String },
    #[error("{what} `{text}` holds {found:?}")]
    Character { what: &'static str, text: String, found: char },
    #[error("{what} has {bytes} bytes, {TOPIC_BYTES_MAX} are allowed")]
    TooLong { what: &'static str, bytes: usize },
    #[error("`{level}` of a topic pattern is neither text nor one token in braces")]
    Token { level: String },
    #[error("the token `{{{name}}}` of the topic pattern has no value")]
    NoValue { name: String },
    #[error("requests and answers would have the same topic")]
    Same,
}

/// A topic of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    pub name: String,
    /// All topics of its pattern, this one included.
    pub filter: TopicFilter,
    /// It stands below the client's own place, where nobody else's topics are.
    pub is_own: bool,
}

/// Levels of a topic, some still to be named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicPattern {
    levels: Vec<Level>,
    is_own: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Level {
    /// One level, or several with `/` between them.
    Text(String),
    Token(String),
}

/// What an invoker's options say of topics.
#[derive(Clone, Debug, Default)]
pub struct Patterns<'a> {
    pub request: &'a str,
    pub response: Option<&'a str>,
    pub prefix: Option<&'a str>,
    pub suffix: Option<&'a str>,
    pub namespace: Option<&'a str>,
    /// `{commandName}`, unless there is a token of that name.
    pub command: &'a str,
    pub tokens: &'a [(String, String)],
}

impl Patterns<'_> {
    /// The patterns of requests and of answers. `client_id` is `{invokerClientId}`,
    /// unless there is a token of that name; without any word on answers they come
    /// below `clients/` and that.
    pub fn read(&self, client_id: &str) -> Result<(TopicPattern, TopicPattern), PatternError> {
        check_value("the command's name", self.command)?;
        for (_, value) in self.tokens {
            check_value("the value of a token", value)?;
        }
        let tokens = |name: &str| {
            let own = find(self.tokens, name);
            own.or(match name {
                "commandName" => Some(self.command),
                "invokerClientId" => Some(client_id),
                _ => None,
            })
        };
        let read = |text: &str, is_own| TopicPattern::read(text, self.namespace, tokens, is_own);
        let request = read(self.request, false)?;
        let response = match (self.response, self.prefix, self.suffix) {
            (Some(pattern), _, _) => read(pattern, false)?,
            (None, None, None) => read(&format!("clients/{client_id}/{}", self.request), true)?,
            (None, prefix, suffix) => {
                let parts = [prefix, Some(self.request), suffix];
                read(&parts.into_iter().flatten().collect::<Vec<_>>().join("/"), false)?
            }
        };
        if request.levels == response.levels {
            return Err(PatternError::Same);
        }
        Ok((request, response))
    }
}

impl TopicPattern {
    fn read<'t>(
        text: &str,
        namespace: Option<&str>,
        token: impl Fn(&str) -> Option<&'t str>,
        is_own: bool,
    ) -> Result<Self, PatternError> {
        const WHAT: &str = "a topic pattern";
        check_length(WHAT, text)?;
        let mut levels = Vec::new();
        if let Some(namespace) = namespace {
            check_value("the topic namespace", namespace)?;
            levels.push(Level::Text(namespace.to_owned()));
        }
        for level in text.split('/') {
            if level.is_empty() {
                return Err(PatternError::EmptyLevel { what: WHAT, text: text.to_owned() });
            }
            levels.push(match token_named(level)? {
                None => {
                    check_characters(WHAT, level)?;
                    Level::Text(level.to_owned())
                }
                Some(name) => match token(name) {
                    Some(value) => Level::Text(value.to_owned()),
                    None => Level::Token(name.to_owned()),
                },
            });
        }
        if let Some(Level::Text(first)) = levels.first()
            && first.starts_with('$')
        {
            return Err(PatternError::Reserved { what: WHAT, text: text.to_owned() });
        }
        Ok(TopicPattern { levels, is_own })
    }

    /// The topic with these tokens.
    pub fn topic(&self, tokens: &[(String, String)]) -> Result<Topic, PatternError> {
        const WHAT: &str = "a topic";
        let mut names = Vec::with_capacity(self.levels.len());
        for level in &self.levels {
            names.push(match level {
                Level::Text(text) => text.as_str(),
                Level::Token(name) => {
                    let value = find(tokens, name);
                    let value = value.ok_or_else(|| PatternError::NoValue { name: name.clone() })?;
                    check_value("the value of a token", value)?;
                    value
                }
            });
        }
        let name = names.join("/");
        check_length(WHAT, &name)?;
        if name.starts_with('$') {
            return Err(PatternError::Reserved { what: WHAT, text: name });
        }
        let filter = self.filter();
        // A token's value may be several levels.
        let filter = if filter.matches(&name) { filter } else { parsed(&name) };
        Ok(Topic { name, filter, is_own: self.is_own })
    }

    /// Bytes of its levels.
    pub fn bytes_len(&self) -> usize {
        self.levels
            .iter()
            .map(|level| match level {
                Level::Text(text) | Level::Token(text) => text.len(),
            })
            .sum()
    }

    fn filter(&self) -> TopicFilter {
        let levels = self.levels.iter().map(|level| match level {
            Level::Text(text) => text.as_str(),
            Level::Token(_) => "+",
        });
        parsed(&levels.collect::<Vec<_>>().join("/"))
    }
}

fn parsed(text: &str) -> TopicFilter {
    TopicFilter::parse(text).expect("every level was checked")
}

fn find<'t>(tokens: &'t [(String, String)], name: &str) -> Option<&'t str> {
    tokens.iter().find(|(token, _)| token == name).map(|(_, value)| value.as_str())
}

/// The name in `{name}`; none if it is text without braces.
fn token_named(level: &str) -> Result<Option<&str>, PatternError> {
    if !level.contains(['{', '}']) {
        return Ok(None);
    }
    let name = level.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
    match name {
        Some(name) if !name.is_empty() && !name.contains(['{', '}']) => {
            check_characters("a token's name", name)?;
            Ok(Some(name))
        }
        _ => Err(PatternError::Token { level: level.to_owned() }),
    }
}

/// What a token stands for, or what stands before a pattern: one level or several.
fn check_value(what: &'static str, text: &str) -> Result<(), PatternError> {
    check_length(what, text)?;
    if text.split('/').any(str::is_empty) {
        return Err(PatternError::EmptyLevel { what, text: text.to_owned() });
    }
    check_characters(what, text)
}

fn check_length(what: &'static str, text: &str) -> Result<(), PatternError> {
    match text.len() {
        0 => Err(PatternError::Empty { what }),
        bytes if bytes > TOPIC_BYTES_MAX => Err(PatternError::TooLong { what, bytes }),
        _ => Ok(()),
    }
}

fn check_characters(what: &'static str, text: &str) -> Result<(), PatternError> {
    let allowed = |c: &char| c.is_ascii_graphic() && !matches!(c, '"' | '+' | '#' | '{' | '}');
    match text.chars().find(|c| !allowed(c)) {
        Some(found) => Err(PatternError::Character { what, text: text.to_owned(), found }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
