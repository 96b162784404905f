//! YAML and JSON with the place of every node, and a reader that goes on after a
//! mistake. Limits on everything, since tenants write these files.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, LazyLock},
};

use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag};

use crate::resource::diagnostic::{Diagnostics, Place, SourceFile, nearest};

/// Largest file that is read, in bytes.
pub const FILE_BYTES_MAX: usize = 1 << 20;
/// Deepest nesting.
const DEPTH_MAX: usize = 32;
/// Most nodes of a file, those that aliases repeat counted each time.
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
        matches!(&self.value, Value::Scalar { text, plain: true } if is_null(text))
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

    /// The value at a JSON pointer, or as near as there is, and the last key before it.
    pub fn at_pointer(&self, pointer: &str) -> (&Node, Option<String>) {
        let mut node = self;
        let mut key = None;
        for step in pointer.split('/').skip(1) {
            let step = step.replace("~1", "/").replace("~0", "~");
            let next = match &node.value {
                Value::List(nodes) => step.parse::<usize>().ok().and_then(|index| nodes.get(index)),
                _ => {
                    let found = node.get(&step);
                    key = Some(step);
                    found
                }
            };
            match next {
                Some(next) => node = next,
                None => break,
            }
        }
        (node, key)
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
                text if is_null(text) => Json::Null,
                "true" | "True" | "TRUE" => Json::Bool(true),
                "false" | "False" | "FALSE" => Json::Bool(false),
                text => plain_number(text).unwrap_or_else(|| Json::String(text.to_owned())),
            },
        }
    }
}

fn is_null(plain: &str) -> bool {
    matches!(plain, "" | "~" | "null" | "Null" | "NULL")
}

/// A number in the forms of YAML's core schema.
fn plain_number(text: &str) -> Option<serde_json::Value> {
    if let Some(digits) = text.strip_prefix("0x") {
        return u64::from_str_radix(digits, 16).ok().map(Into::into);
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return u64::from_str_radix(digits, 8).ok().map(Into::into);
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") {
        // JSON has neither: any number that is no integer gets the same verdict.
        return Some(0.5.into());
    }
    // Rust's own parser takes `inf` and `nan` too, which are text in YAML.
    let number_like = |c: char| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '+' | '-');
    if !unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.') || !unsigned.chars().all(number_like) {
        return None;
    }
    let integer =
        text.parse::<i64>().ok().map(Into::into).or_else(|| text.parse::<u64>().ok().map(Into::into));
    integer.or_else(|| serde_json::Number::from_f64(text.parse().ok()?).map(Into::into))
}

/// Parses all documents of a file; what cannot be parsed is among the diagnostics.
pub fn parse(file: &Arc<SourceFile>, diagnostics: &mut Diagnostics) -> Vec<Node> {
    let start = Place { file: file.clone(), line: 1, column: 1, len: 1 };
    if file.text.len() > FILE_BYTES_MAX {
        let message = format!("the file has {} bytes, and {FILE_BYTES_MAX} are allowed", file.text.len());
        diagnostics.error("yaml/too-large", start, message, "");
        return Vec::new();
    }
    let mut builder = Builder {
        file: file.clone(),
        parser: Parser::new_from_str(&file.text),
        anchors: HashMap::new(),
        size: Size::default(),
    };
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
    /// What aliases may repeat, and how large it is.
    anchors: HashMap<usize, (Node, Size, usize)>,
    /// Of all that was built, repetitions included.
    size: Size,
}

#[derive(Clone, Copy, Debug, Default)]
struct Size {
    nodes: usize,
    bytes: usize,
}

impl Size {
    fn add(&mut self, other: Size) {
        self.nodes += other.nodes;
        self.bytes += other.bytes;
    }
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
                Event::DocumentStart(_) => self.anchors.clear(),
                Event::StreamStart | Event::DocumentEnd | Event::Nothing => {}
                event => {
                    let (node, _) = self.node(event, span, 0)?;
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
                let place = self.place_at(error.marker().line(), error.marker().col() + 1);
                Err(Refused { place, rule: "yaml/syntax", message: format!("not YAML: {}", error.info()) })
            }
        }
    }

    /// A node and how deep it is, itself included.
    fn node(&mut self, event: Event<'static>, span: Span, depth: usize) -> Result<(Node, usize), Refused> {
        let place = self.place(span);
        let before = self.size;
        if let Event::Alias(anchor) = event {
            return self.repeat(anchor, place, depth);
        }
        self.charge(Size { nodes: 1, bytes: 0 }, depth + 1, &place)?;
        let (anchor, (value, height)) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let plain = plain_by_tag(tag.as_deref(), &["str", "int", "float", "bool", "null"], &place)?;
                self.charge(Size { nodes: 0, bytes: text.len() }, depth + 1, &place)?;
                let plain = plain && style == ScalarStyle::Plain;
                (anchor, (Value::Scalar { text: text.into_owned(), plain }, 1))
            }
            Event::SequenceStart(anchor, tag) => {
                plain_by_tag(tag.as_deref(), &["seq"], &place)?;
                (anchor, self.sequence(depth)?)
            }
            Event::MappingStart(anchor, tag) => {
                plain_by_tag(tag.as_deref(), &["map"], &place)?;
                (anchor, self.mapping(depth)?)
            }
            _ => return Err(Refused { place, rule: "yaml/syntax", message: "a value was expected".into() }),
        };
        let node = Node { place, value };
        if anchor > 0 {
            let size = Size { nodes: self.size.nodes - before.nodes, bytes: self.size.bytes - before.bytes };
            self.anchors.insert(anchor, (node.clone(), size, height));
            // The copy that waits for aliases takes memory as well.
            self.charge(size, depth, &node.place)?;
        }
        Ok((node, height))
    }

    fn repeat(&mut self, anchor: usize, place: Place, depth: usize) -> Result<(Node, usize), Refused> {
        let Some((_, size, height)) = self.anchors.get(&anchor) else {
            let message = "an alias cannot stand inside of what it repeats".into();
            return Err(Refused { place, rule: "yaml/alias", message });
        };
        let (size, height) = (*size, *height);
        self.charge(size, depth + height, &place)?;
        Ok((self.anchors[&anchor].0.clone(), height))
    }

    fn charge(&mut self, more: Size, depth: usize, place: &Place) -> Result<(), Refused> {
        self.size.add(more);
        let refused = |rule, message: String| Err(Refused { place: place.clone(), rule, message });
        if depth > DEPTH_MAX {
            return refused("yaml/too-deep", format!("nested deeper than {DEPTH_MAX}"));
        }
        if self.size.nodes > NODES_MAX || self.size.bytes > FILE_BYTES_MAX {
            let message = "too many values, with what aliases repeat".into();
            return refused("yaml/too-large", message);
        }
        Ok(())
    }

    fn sequence(&mut self, depth: usize) -> Result<(Value, usize), Refused> {
        let mut nodes = Vec::new();
        let mut height = 0;
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok((Value::List(nodes), height + 1)),
                (event, span) => {
                    let (node, below) = self.node(event, span, depth + 1)?;
                    nodes.push(node);
                    height = height.max(below);
                }
            }
        }
    }

    fn mapping(&mut self, depth: usize) -> Result<(Value, usize), Refused> {
        let mut pairs: Vec<(Node, Node)> = Vec::new();
        let mut names: HashSet<String> = HashSet::new();
        let mut height = 0;
        loop {
            let (event, span) = self.next()?;
            if event == Event::MappingEnd {
                return Ok((Value::Map(pairs), height + 1));
            }
            let (key, _) = self.node(event, span, depth + 1)?;
            let Some(name) = key.text() else {
                return Err(Refused {
                    place: key.place,
                    rule: "yaml/syntax",
                    message: "a key must be text".into(),
                });
            };
            if !names.insert(name.to_owned()) {
                let message = format!("the key `{name}` stands twice in one mapping");
                return Err(Refused { place: key.place, rule: "yaml/duplicate-key", message });
            }
            let (event, span) = self.next()?;
            let (value, below) = self.node(event, span, depth + 1)?;
            height = height.max(below);
            pairs.push((key, value));
        }
    }

    /// What is found missing at the end of a file is shown at its last line.
    fn place_at(&self, line: usize, column: usize) -> Place {
        let lines = self.file.text.lines().count().max(1);
        let (line, column) = if line > lines {
            let last = self.file.text.lines().last().unwrap_or_default();
            (lines, last.chars().count() + 1)
        } else {
            (line.max(1), column)
        };
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

/// Whether a value may be read by its looks (`1` is a number): not if its tag says
/// that it is text. Tags that are not `known` are refused.
fn plain_by_tag(tag: Option<&Tag>, known: &[&str], place: &Place) -> Result<bool, Refused> {
    match tag {
        None => Ok(true),
        Some(tag) if tag.is_yaml_core_schema() && known.contains(&tag.suffix.as_str()) => {
            Ok(tag.suffix != "str")
        }
        Some(tag) => {
            let message = format!("the tag `{tag}` is not used in these files");
            Err(Refused { place: place.clone(), rule: "yaml/tag", message })
        }
    }
}

fn own(event: Event<'_>) -> Event<'static> {
    let own_tag =
        |tag: Option<std::borrow::Cow<'_, Tag>>| tag.map(|tag| std::borrow::Cow::Owned(tag.into_owned()));
    match event {
        Event::Scalar(text, style, anchor, tag) => {
            Event::Scalar(text.into_owned().into(), style, anchor, own_tag(tag))
        }
        Event::SequenceStart(anchor, tag) => Event::SequenceStart(anchor, own_tag(tag)),
        Event::MappingStart(anchor, tag) => Event::MappingStart(anchor, own_tag(tag)),
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
    /// The key whose value it is, if it was read as one.
    name: &'static str,
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
        Object { name: "", node, pairs, known: Vec::new(), unknown }
    }

    /// As if `key` had an empty mapping: to see what would be asked of one.
    pub fn absent(key: &'static str) -> Self {
        static ABSENT: LazyLock<Node> = LazyLock::new(|| {
            let file = Arc::new(SourceFile { path: String::new(), text: String::new() });
            Node { place: Place { file, line: 1, column: 1, len: 1 }, value: Value::Map(Vec::new()) }
        });
        Object { name: key, node: &ABSENT, pairs: &[], known: Vec::new(), unknown: Unknown::Ignored }
    }

    /// Whether anything is said in it.
    pub fn is_there(&self) -> bool {
        !self.pairs.is_empty()
    }

    /// The key whose value it is; empty at the top.
    pub fn name(&self) -> &'static str {
        self.name
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
        let object = |node| Object::of(node, &format!("`{key}`"), unknown, diagnostics);
        self.get(key).map(object).map(|object| Object { name: key, ..object })
    }

    /// One of `choices` by name.
    pub fn choice<T: Copy>(
        &mut self,
        key: &'static str,
        choices: &[(&'static str, T)],
        diagnostics: &mut Diagnostics,
    ) -> Option<T> {
        self.choice_at(key, choices, diagnostics).map(|(choice, _)| choice)
    }

    /// The same, with the place of its name.
    pub fn choice_at<T: Copy>(
        &mut self,
        key: &'static str,
        choices: &[(&'static str, T)],
        diagnostics: &mut Diagnostics,
    ) -> Option<(T, Place)> {
        let text = self.text(key, diagnostics)?;
        if let Some((_, choice)) = choices.iter().find(|(name, _)| *name == text.text) {
            return Some((*choice, text.place));
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

#[cfg(test)]
mod tests;
