//! YAML and JSON with the place of every node, and a reader that goes on after a
//! mistake. Limits on everything, since tenants write these files.

use std::sync::Arc;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

use crate::resource::diagnostic::{Diagnostics, Place, SourceFile, nearest};

/// Largest file that is read, in bytes.
pub const FILE_BYTES_MAX: usize = 1 << 20;
/// Deepest nesting.
const DEPTH_MAX: usize = 32;
/// Most nodes of a file.
const NODES_MAX: usize = 100_000;

/// A value and where it stands.
#[derive(Clone, Debug)]
pub struct Node {
    pub place: Place,
    pub value: Value,
}

#[derive(Clone, Debug)]
pub enum Value {
    /// `plain` means written without quotes.
    Scalar {
        text: String,
        plain: bool,
    },
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
}

impl Node {
    pub fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, plain: true } if matches!(text.as_str(), "" | "~" | "null"))
    }

    /// The value of `key`, if this is a mapping that has it.
    pub fn get(&self, key: &str) -> Option<&Node> {
        match &self.value {
            Value::Map(pairs) => {
                pairs.iter().find(|(name, _)| name.text() == Some(key)).map(|(_, node)| node)
            }
            _ => None,
        }
    }

    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    /// What kind of value it is, for messages.
    pub fn kind(&self) -> &'static str {
        match &self.value {
            Value::Scalar { .. } if self.is_null() => "nothing",
            Value::Scalar { .. } => "a value",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }

    /// As JSON, by YAML's core schema: what a JSON schema is asked about.
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::Value as Json;
        match &self.value {
            Value::List(nodes) => nodes.iter().map(Node::to_json).collect(),
            Value::Map(pairs) => {
                let pairs = pairs
                    .iter()
                    .map(|(key, node)| (key.text().unwrap_or_default().to_owned(), node.to_json()));
                Json::Object(pairs.collect())
            }
            Value::Scalar { text, plain: false } => Json::String(text.clone()),
            Value::Scalar { text, plain: true } => match text.as_str() {
                "" | "~" | "null" | "Null" | "NULL" => Json::Null,
                "true" | "True" | "TRUE" => Json::Bool(true),
                "false" | "False" | "FALSE" => Json::Bool(false),
                _ => plain_number(text).unwrap_or_else(|| Json::String(text.clone())),
            },
        }
    }
}

fn plain_number(text: &str) -> Option<serde_json::Value> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !digits.starts_with(|first: char| first.is_ascii_digit() || first == '.') {
        return None;
    }
    if let Ok(number) = text.parse::<i64>() {
        return Some(number.into());
    }
    serde_json::Number::from_f64(text.parse().ok()?).map(Into::into)
}

/// Parses all documents of a file; what cannot be parsed is among the diagnostics.
pub fn parse(file: &Arc<SourceFile>, diagnostics: &mut Diagnostics) -> Vec<Node> {
    let start = Place { file: file.clone(), line: 1, column: 1, len: 1 };
    if file.text.len() > FILE_BYTES_MAX {
        let message = format!("the file has {} bytes, and {FILE_BYTES_MAX} are allowed", file.text.len());
        diagnostics.error("yaml/too-large", start, message, "");
        return Vec::new();
    }
    let mut builder = Builder { file: file.clone(), parser: Parser::new_from_str(&file.text), nodes: 0 };
    match builder.documents() {
        Ok(documents) => documents,
        Err(Refused { place, rule, message }) => {
            diagnostics.error(rule, place, message, "");
            Vec::new()
        }
    }
}

struct Builder<'a> {
    file: Arc<SourceFile>,
    parser: Parser<'a, saphyr_parser::StrInput<'a>>,
    nodes: usize,
}

struct Refused {
    place: Place,
    rule: &'static str,
    message: String,
}

impl Builder<'_> {
    fn documents(&mut self) -> Result<Vec<Node>, Refused> {
        let mut documents = Vec::new();
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => return Ok(documents),
                Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing => {}
                event => {
                    let node = self.node(event, span, 0)?;
                    // An empty document is what a trailing `---` leaves.
                    if !node.is_null() {
                        documents.push(node);
                    }
                }
            }
        }
    }

    fn next(&mut self) -> Result<(Event<'static>, Span), Refused> {
        match self.parser.next_event() {
            None => Ok((Event::StreamEnd, Span::default())),
            Some(Ok((event, span))) => Ok((own(event), span)),
            Some(Err(error)) => {
                let mark = *error.marker();
                let place = Place {
                    file: self.file.clone(),
                    line: mark.line().max(1),
                    column: mark.col() + 1,
                    len: 1,
                };
                Err(Refused { place, rule: "yaml/syntax", message: format!("not YAML: {}", error.info()) })
            }
        }
    }

    fn node(&mut self, event: Event<'static>, span: Span, depth: usize) -> Result<Node, Refused> {
        let place = self.place(span);
        let refused = |rule, message: &str| Refused { place: place.clone(), rule, message: message.into() };
        self.nodes += 1;
        if depth > DEPTH_MAX || self.nodes > NODES_MAX {
            return Err(refused("yaml/too-deep", "nested too deeply, or too many values"));
        }
        let value = match event {
            Event::Scalar(text, style, 0, _) => {
                Value::Scalar { text: text.into_owned(), plain: style == ScalarStyle::Plain }
            }
            Event::SequenceStart(0, _) => {
                let mut nodes = Vec::new();
                loop {
                    match self.next()? {
                        (Event::SequenceEnd, _) => break Value::List(nodes),
                        (event, span) => nodes.push(self.node(event, span, depth + 1)?),
                    }
                }
            }
            Event::MappingStart(0, _) => self.mapping(depth)?,
            Event::Alias(_) | Event::Scalar(..) | Event::SequenceStart(..) | Event::MappingStart(..) => {
                return Err(refused("yaml/anchor", "anchors and aliases are not used in these files"));
            }
            _ => return Err(refused("yaml/syntax", "a value was expected")),
        };
        Ok(Node { place, value })
    }

    fn mapping(&mut self, depth: usize) -> Result<Value, Refused> {
        let mut pairs: Vec<(Node, Node)> = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::MappingEnd {
                return Ok(Value::Map(pairs));
            }
            let key = self.node(event, span, depth + 1)?;
            let Some(name) = key.text() else {
                return Err(Refused {
                    place: key.place,
                    rule: "yaml/syntax",
                    message: "a key must be text".into(),
                });
            };
            if pairs.iter().any(|(other, _)| other.text() == Some(name)) {
                let message = format!("the key `{name}` stands twice in one mapping");
                return Err(Refused { place: key.place, rule: "yaml/duplicate-key", message });
            }
            let (event, span) = self.next()?;
            let value = self.node(event, span, depth + 1)?;
            pairs.push((key, value));
        }
    }

    fn place(&self, span: Span) -> Place {
        let same_line = span.start.line() == span.end.line();
        let len = if same_line { span.end.index().saturating_sub(span.start.index()) } else { usize::MAX };
        Place {
            file: self.file.clone(),
            line: span.start.line().max(1),
            column: span.start.col() + 1,
            len: len.max(1),
        }
    }
}

fn own(event: Event<'_>) -> Event<'static> {
    match event {
        Event::Scalar(text, style, anchor, _) => Event::Scalar(text.into_owned().into(), style, anchor, None),
        Event::SequenceStart(anchor, _) => Event::SequenceStart(anchor, None),
        Event::MappingStart(anchor, _) => Event::MappingStart(anchor, None),
        Event::Alias(anchor) => Event::Alias(anchor),
        Event::SequenceEnd => Event::SequenceEnd,
        Event::MappingEnd => Event::MappingEnd,
        Event::DocumentStart(explicit) => Event::DocumentStart(explicit),
        Event::DocumentEnd => Event::DocumentEnd,
        Event::StreamStart => Event::StreamStart,
        Event::StreamEnd => Event::StreamEnd,
        Event::Nothing => Event::Nothing,
    }
}

/// What an unknown key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    Error,
    Warning,
    Ignored,
}

/// Reads a mapping key by key, taking note of what is wrong and going on. The first
/// problem with a key says so; the reader then acts as if the key were absent.
pub struct Object<'n> {
    node: &'n Node,
    pairs: &'n [(Node, Node)],
    known: Vec<&'static str>,
    unknown: Unknown,
}

impl<'n> Object<'n> {
    /// `node` as a mapping; `what` names it in messages.
    pub fn of(node: &'n Node, what: &str, unknown: Unknown, diagnostics: &mut Diagnostics) -> Self {
        let pairs: &[(Node, Node)] = match &node.value {
            Value::Map(pairs) => pairs,
            _ => {
                let message = format!("{what} must be a mapping");
                diagnostics.error(
                    "yaml/type",
                    node.place.clone(),
                    message,
                    format!("this is {}", node.kind()),
                );
                &[]
            }
        };
        Object { node, pairs, known: Vec::new(), unknown }
    }

    /// Where the mapping begins.
    pub fn place(&self) -> Place {
        self.node.place.clone()
    }

    /// The value of `key`, if it is there and not null.
    pub fn get(&mut self, key: &'static str) -> Option<&'n Node> {
        self.known.push(key);
        let pair = self.pairs.iter().find(|(name, _)| name.text() == Some(key))?;
        (!pair.1.is_null()).then_some(&pair.1)
    }

    /// As [`Self::get`], an error if it is not there.
    pub fn need(&mut self, key: &'static str, diagnostics: &mut Diagnostics) -> Option<&'n Node> {
        let found = self.get(key);
        if found.is_none() && matches!(self.node.value, Value::Map(_)) {
            let mut place = self.node.place.clone();
            place.len = 1;
            diagnostics.error(
                "yaml/missing-key",
                place,
                format!("the key `{key}` is missing"),
                "needed here",
            );
        }
        found
    }

    pub fn text(&mut self, key: &'static str, diagnostics: &mut Diagnostics) -> Option<Text> {
        self.get(key).and_then(|node| Text::of(node, key, diagnostics))
    }

    pub fn need_text(&mut self, key: &'static str, diagnostics: &mut Diagnostics) -> Option<Text> {
        self.need(key, diagnostics).and_then(|node| Text::of(node, key, diagnostics))
    }

    pub fn list(&mut self, key: &'static str, diagnostics: &mut Diagnostics) -> &'n [Node] {
        match self.get(key) {
            None => &[],
            Some(Node { value: Value::List(nodes), .. }) => nodes,
            Some(other) => {
                let label = format!("this is {}", other.kind());
                diagnostics.error("yaml/type", other.place.clone(), format!("`{key}` must be a list"), label);
                &[]
            }
        }
    }

    pub fn object(&mut self, key: &'static str, diagnostics: &mut Diagnostics) -> Option<Object<'n>> {
        let unknown = self.unknown;
        self.get(key).map(|node| Object::of(node, &format!("`{key}`"), unknown, diagnostics))
    }

    /// One of `choices` by name.
    pub fn choice<T: Copy>(
        &mut self,
        key: &'static str,
        choices: &[(&'static str, T)],
        diagnostics: &mut Diagnostics,
    ) -> Option<T> {
        let text = self.text(key, diagnostics)?;
        if let Some((_, choice)) = choices.iter().find(|(name, _)| *name == text.text) {
            return Some(*choice);
        }
        let names: Vec<_> = choices.iter().map(|(name, _)| format!("`{name}`")).collect();
        let message = format!("`{}` is no value of `{key}`", text.text);
        diagnostics.error("yaml/choice", text.place, message, format!("one of {}", names.join(", ")));
        None
    }

    /// Says what keys nobody asked for.
    pub fn finish(self, diagnostics: &mut Diagnostics) {
        for (key, _) in self.pairs {
            let name = key.text().unwrap_or_default();
            if self.known.contains(&name) {
                continue;
            }
            let label = match nearest(name, self.known.iter().copied()) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("known here: {}", self.known.join(", ")),
            };
            let message = format!("unknown key `{name}`");
            match self.unknown {
                Unknown::Error => diagnostics.error("yaml/unknown-key", key.place.clone(), message, label),
                Unknown::Warning => {
                    diagnostics.warning("yaml/unknown-key", key.place.clone(), message, label)
                }
                Unknown::Ignored => {}
            }
        }
    }
}

/// Text with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    pub text: String,
    pub place: Place,
}

impl Text {
    pub fn of(node: &Node, what: &str, diagnostics: &mut Diagnostics) -> Option<Self> {
        match &node.value {
            Value::Scalar { text, .. } => Some(Text { text: text.clone(), place: node.place.clone() }),
            _ => {
                let label = format!("this is {}", node.kind());
                diagnostics.error("yaml/type", node.place.clone(), format!("`{what}` must be text"), label);
                None
            }
        }
    }
}
