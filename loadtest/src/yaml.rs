//! YAML with the place of every node, and a reader of mappings that goes on after a
//! mistake. One document a file, no aliases and no tags: nobody needs them here.

use std::{collections::HashSet, sync::Arc};

use saphyr_parser::{Event, Parser, ScalarStyle, Span, StrInput};

use crate::{
    diagnostic::{Place, Problems, SourceFile, nearest},
    quantity::QuantityError,
};

/// Largest file that is read, in bytes.
const FILE_BYTES_MAX: usize = 1 << 20;
/// Deepest nesting.
const DEPTH_MAX: usize = 16;

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
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    pub fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, plain: true } if matches!(text.as_str(), "" | "~" | "null"))
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

    /// As JSON, with every scalar as text but what is plainly a number, true, false or null.
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
                _ if self.is_null() => Json::Null,
                "true" => Json::Bool(true),
                "false" => Json::Bool(false),
                text => text.parse::<u64>().map_or_else(|_| Json::String(text.to_owned()), Json::from),
            },
        }
    }
}

/// The one document of a file; what cannot be read is among the problems.
pub fn parse(file: &Arc<SourceFile>, problems: &mut Problems) -> Option<Node> {
    let mut builder = Builder { file: file.clone(), parser: Parser::new_from_str(&file.text) };
    match builder.document() {
        Ok(node) => Some(node),
        Err((place, message)) => {
            problems.add("yaml/syntax", place, message, "");
            None
        }
    }
}

type Refused = (Place, String);

struct Builder<'a> {
    file: Arc<SourceFile>,
    parser: Parser<'a, StrInput<'a>>,
}

impl<'a> Builder<'a> {
    fn document(&mut self) -> Result<Node, Refused> {
        let start = Place { file: self.file.clone(), line: 1, column: 1, len: 1 };
        if self.file.text.len() > FILE_BYTES_MAX {
            let bytes = self.file.text.len();
            return Err((start, format!("the file has {bytes} bytes, and {FILE_BYTES_MAX} are allowed")));
        }
        let mut document = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => {
                    return document.ok_or((start, "the file holds nothing".into()));
                }
                Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing => {}
                event => {
                    let node = self.node(event, span, 0)?;
                    if document.is_some() && !node.is_null() {
                        return Err((node.place, "a second document: one file holds one".into()));
                    }
                    document.get_or_insert(node);
                }
            }
        }
    }

    fn next(&mut self) -> Result<(Event<'a>, Span), Refused> {
        match self.parser.next_event() {
            None => Ok((Event::StreamEnd, Span::default())),
            Some(Ok(next)) => Ok(next),
            Some(Err(error)) => {
                let place = self.place_at(error.marker().line(), error.marker().col() + 1);
                Err((place, format!("not YAML: {}", error.info())))
            }
        }
    }

    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Node, Refused> {
        let place = self.place(span);
        if depth > DEPTH_MAX {
            return Err((place, format!("nested deeper than {DEPTH_MAX}")));
        }
        let value = match event {
            Event::Scalar(text, style, 0, None) => {
                Value::Scalar { text: text.into_owned(), plain: style == ScalarStyle::Plain }
            }
            Event::SequenceStart(0, None) => Value::List(self.list(depth)?),
            Event::MappingStart(0, None) => Value::Map(self.mapping(depth)?),
            _ => return Err((place, "anchors, aliases and tags are not used in these files".into())),
        };
        Ok(Node { place, value })
    }

    fn list(&mut self, depth: usize) -> Result<Vec<Node>, Refused> {
        let mut nodes = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(nodes),
                (event, span) => nodes.push(self.node(event, span, depth + 1)?),
            }
        }
    }

    fn mapping(&mut self, depth: usize) -> Result<Vec<(Node, Node)>, Refused> {
        let mut pairs = Vec::new();
        let mut names = HashSet::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::MappingEnd {
                return Ok(pairs);
            }
            let key = self.node(event, span, depth + 1)?;
            let Some(name) = key.text() else { return Err((key.place, "a key must be text".into())) };
            if !names.insert(name.to_owned()) {
                let message = format!("the key `{name}` stands twice in one mapping");
                return Err((key.place, message));
            }
            let (event, span) = self.next()?;
            let value = self.node(event, span, depth + 1)?;
            pairs.push((key, value));
        }
    }

    /// What is found missing at the end of a file is shown at its last line.
    fn place_at(&self, line: usize, column: usize) -> Place {
        let lines = self.file.text.lines().count().max(1);
        let last = || self.file.text.lines().last().unwrap_or_default().chars().count() + 1;
        let (line, column) = if line > lines { (lines, last()) } else { (line.max(1), column) };
        Place { file: self.file.clone(), line, column, len: 1 }
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

/// Reads a mapping key by key, takes note of what is wrong and goes on as if the key
/// were not there.
pub struct Object<'n> {
    node: &'n Node,
    pairs: &'n [(Node, Node)],
    known: Vec<&'static str>,
}

impl<'n> Object<'n> {
    /// `node` as a mapping; `what` names it in messages.
    pub fn of(node: &'n Node, what: &str, problems: &mut Problems) -> Self {
        let pairs: &[(Node, Node)] = match &node.value {
            Value::Map(pairs) => pairs,
            _ => {
                let label = format!("this is {}", node.kind());
                problems.add("yaml/type", node.place.clone(), format!("{what} must be a mapping"), label);
                &[]
            }
        };
        Object { node, pairs, known: Vec::new() }
    }

    /// Where the mapping begins.
    pub fn place(&self) -> Place {
        Place { len: 1, ..self.node.place.clone() }
    }

    /// Whether there is a mapping at all; that there is none was said.
    pub fn is_mapping(&self) -> bool {
        matches!(self.node.value, Value::Map(_))
    }

    fn pair(&self, key: &str) -> Option<&'n (Node, Node)> {
        self.pairs.iter().find(|(name, node)| name.text() == Some(key) && !node.is_null())
    }

    /// Where the key itself stands, if it is there.
    pub fn key(&self, key: &str) -> Option<Place> {
        self.pair(key).map(|(name, _)| name.place.clone())
    }

    /// All pairs as they stand; every key is known then.
    pub fn pairs(&self) -> &'n [(Node, Node)] {
        self.pairs
    }

    pub fn get(&mut self, key: &'static str) -> Option<&'n Node> {
        self.known.push(key);
        self.pair(key).map(|(_, node)| node)
    }

    /// As [`Self::get`]; a problem if it is not there.
    pub fn need(&mut self, key: &'static str, problems: &mut Problems) -> Option<&'n Node> {
        let found = self.get(key);
        if found.is_none() && self.is_mapping() {
            problems.add(
                "yaml/missing-key",
                self.place(),
                format!("the key `{key}` is missing"),
                "needed here",
            );
        }
        found
    }

    pub fn text(&mut self, key: &'static str, problems: &mut Problems) -> Option<&'n str> {
        let node = self.get(key)?;
        text(node, key, problems)
    }

    pub fn need_text(&mut self, key: &'static str, problems: &mut Problems) -> Option<&'n str> {
        let node = self.need(key, problems)?;
        text(node, key, problems)
    }

    pub fn list(&mut self, key: &'static str, problems: &mut Problems) -> Option<&'n [Node]> {
        let node = self.get(key)?;
        match &node.value {
            Value::List(nodes) => Some(nodes),
            _ => {
                let label = format!("this is {}", node.kind());
                problems.add("yaml/type", node.place.clone(), format!("`{key}` must be a list"), label);
                None
            }
        }
    }

    pub fn object(&mut self, key: &'static str, problems: &mut Problems) -> Option<Object<'n>> {
        self.get(key).map(|node| Object::of(node, &format!("`{key}`"), problems))
    }

    /// A quantity within `range`, which is shown as `allowed` if it is not.
    pub fn quantity<T: PartialOrd>(
        &mut self,
        key: &'static str,
        parse: fn(&str) -> Result<T, QuantityError>,
        range: std::ops::RangeInclusive<T>,
        allowed: &str,
        problems: &mut Problems,
    ) -> Option<T> {
        let node = self.get(key)?;
        let text = text(node, key, problems)?;
        match parse(text) {
            Ok(value) if range.contains(&value) => Some(value),
            Ok(_) => {
                let message = format!("`{key}: {text}` is out of range");
                problems.add("yaml/range", node.place.clone(), message, allowed);
                None
            }
            Err(error) => {
                let message = format!("`{text}` is no value of `{key}`");
                problems.add("yaml/quantity", node.place.clone(), message, error.to_string());
                None
            }
        }
    }

    /// One of `choices` by name.
    pub fn choice<T: Copy>(
        &mut self,
        key: &'static str,
        choices: &[(&str, T)],
        problems: &mut Problems,
    ) -> Option<T> {
        let node = self.get(key)?;
        let text = text(node, key, problems)?;
        if let Some((_, choice)) = choices.iter().find(|(name, _)| *name == text) {
            return Some(*choice);
        }
        let label = match nearest(text, choices.iter().map(|(name, _)| *name)) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => {
                let names: Vec<_> = choices.iter().map(|(name, _)| format!("`{name}`")).collect();
                format!("one of {}", names.join(", "))
            }
        };
        problems.add("yaml/choice", node.place.clone(), format!("`{text}` is no value of `{key}`"), label);
        None
    }

    /// Says what keys nobody asked for.
    pub fn finish(self, problems: &mut Problems) {
        for (key, _) in self.pairs {
            let name = key.text().unwrap_or_default();
            if self.known.contains(&name) {
                continue;
            }
            let label = match nearest(name, self.known.iter().copied()) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("known here: {}", self.known.join(", ")),
            };
            problems.add("yaml/unknown-key", key.place.clone(), format!("unknown key `{name}`"), label);
        }
    }
}

/// A node as text.
pub fn text<'n>(node: &'n Node, what: &str, problems: &mut Problems) -> Option<&'n str> {
    let found = node.text();
    if found.is_none() {
        let label = format!("this is {}", node.kind());
        problems.add("yaml/type", node.place.clone(), format!("`{what}` must be text"), label);
    }
    found
}
