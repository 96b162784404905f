//! AIO's `*.test.yaml`: a graph, the messages put into it, and what must come out.
//! Control side: a test file and all that it names become a [`TestCase`], or a list
//! of what is wrong and where. Knows neither how a graph is run nor how results are
//! compared.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde_json::Value as Json;

use crate::resource::{
    diagnostic::{Diagnostics, Place, SourceFile, nearest},
    graph::Setting,
    json_path::JsonPath,
    site::{SchemaFile, read_source},
    yaml::{self, Node, Object, Text, Unknown, Value},
};

/// A test with everything that it names read.
#[derive(Clone, Debug)]
pub struct TestCase {
    pub name: String,
    /// The graph definition, and where the test names it.
    pub graph: PathBuf,
    pub graph_at: Text,
    /// Values for the graph's parameters; AIO's format has no word for them.
    pub settings: Vec<Setting>,
    /// In the order in which they are sent.
    pub messages: Vec<InputMessage>,
    pub expected: Expected,
    /// Virtual time.
    pub timeout: Duration,
    pub compared: Compared,
    /// What operators are given at `init`, if an environment list names one.
    pub schema: Option<SchemaFile>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputMessage {
    pub topic: String,
    pub payload: Vec<u8>,
    pub file: PathBuf,
}

/// What must come out.
#[derive(Clone, Debug, PartialEq)]
pub enum Expected {
    /// The last message; others may come before it.
    Last(Json),
    /// These messages in this order and no others.
    All(Vec<Json>),
}

/// Which parts of a message count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compared {
    /// Only these, if there are any.
    pub select: Vec<JsonPath>,
    /// Never these.
    pub ignores: Vec<JsonPath>,
}

/// What a test's file is called.
const ENDINGS: [&str; 2] = [".test.yaml", ".test.yml"];
/// Topic of a test's messages, and of its images.
const TOPIC: &str = "sensors";
const TOPIC_OF_RAW: &str = "snapshot_simulation";
const TIMEOUT: Duration = Duration::from_secs(60);
/// Longest timeout: an hour of virtual time takes a second.
const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 3600);
/// Most bytes of one message, and most messages, of a test.
const INPUT_BYTES_MAX: u64 = 64 << 20;
const INPUTS_MAX: usize = 10_000;
/// Deepest folder in which tests are looked for.
const FOLDERS_DEEP_MAX: usize = 16;
/// Lists environment variables for AIO's local runtime.
const ENVIRONMENT: &str = "hostapp.env.list";

/// Test files at a path: the file itself, or those in the folder and below, in order.
/// Links to folders are not followed.
pub fn find(path: &Path) -> io::Result<Vec<PathBuf>> {
    if fs::metadata(path)?.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    let mut folders = vec![(path.to_owned(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        for path in visible_entries(&folder)? {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if path.is_dir() && !path.is_symlink() && depth < FOLDERS_DEEP_MAX {
                folders.push((path, depth + 1));
            } else if ENDINGS.iter().any(|ending| name.ends_with(ending)) {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// What a folder holds, in order of names, without hidden entries.
fn visible_entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let paths: io::Result<Vec<_>> = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect();
    let mut paths = paths?;
    paths.retain(|path| !path.file_name().unwrap_or_default().as_encoded_bytes().starts_with(b"."));
    paths.sort();
    Ok(paths)
}

impl TestCase {
    /// Reads a test file and what it names. There is a test only if there is no error.
    pub fn read(path: &Path, diagnostics: &mut Diagnostics) -> Option<TestCase> {
        let before = diagnostics.errors();
        let file = read_source(Path::new(""), path, diagnostics)?;
        let documents = yaml::parse(&file, diagnostics);
        let [node] = documents.as_slice() else {
            if diagnostics.errors() == before {
                let place = Place { file, line: 1, column: 1, len: 1 };
                let message = format!("{} must hold one test", path.display());
                let label = format!("there are {} documents", documents.len());
                diagnostics.error("test/documents", place, message, label);
            }
            return None;
        };
        let folder = path.parent().unwrap_or(Path::new("")).to_owned();
        let case = Reader { folder, diagnostics }.test(node);
        case.filter(|_| diagnostics.errors() == before)
    }
}

/// Reads the parts of one test; what they name is relative to the test's folder.
struct Reader<'d> {
    folder: PathBuf,
    diagnostics: &'d mut Diagnostics,
}

impl Reader<'_> {
    fn test(&mut self, node: &Node) -> Option<TestCase> {
        let mut raw = Object::of(node, "a test", Unknown::Warning, self.diagnostics);
        let name = raw.need_text("name", self.diagnostics);
        let graph = raw.need_text("graph", self.diagnostics);
        let input = raw.need_text("input", self.diagnostics);
        let expected = raw.need_text("expected", self.diagnostics);
        let timeout = raw.text("timeout", self.diagnostics);
        let topic = raw.text("topic", self.diagnostics);
        let select = raw.list("select", self.diagnostics);
        let ignores = raw.list("ignores", self.diagnostics);
        let configuration = raw.get("configuration");
        raw.finish(self.diagnostics);
        // Each part says what is wrong with it, whatever is wrong with the others.
        let timeout = timeout.map_or(Some(TIMEOUT), |text| self.timeout(&text));
        let compared = Compared { select: self.paths(select), ignores: self.paths(ignores) };
        let settings = configuration.map_or_else(Vec::new, |node| self.settings(node));
        let topic = topic.map_or(Some(TOPIC.to_owned()), |text| self.topic(text));
        let path = graph.as_ref().and_then(|text| self.named(text, "graph", Path::is_file));
        let schema = path.as_deref().and_then(|path| self.schema(path));
        let messages = input.and_then(|text| self.messages(&text, &topic?));
        let expected = expected.and_then(|text| self.expected(&text));
        Some(TestCase {
            name: name?.text,
            graph: path?,
            graph_at: graph?,
            settings,
            messages: messages?,
            expected: expected?,
            timeout: timeout?,
            compared,
            schema,
        })
    }

    fn error(&mut self, rule: &'static str, at: &Text, message: String, label: &str) {
        self.diagnostics.error(rule, at.place.clone(), message, label);
    }

    /// The file or folder that the test names, if it is there.
    fn named(&mut self, text: &Text, what: &str, is_so: fn(&Path) -> bool) -> Option<PathBuf> {
        let path = joined(&self.folder, &text.text);
        if is_so(&path) {
            return Some(path);
        }
        let known = path.parent().and_then(|folder| visible_entries(folder).ok()).unwrap_or_default();
        let known: Vec<_> = known.iter().filter_map(|path| path.file_name()?.to_str()).collect();
        let wanted = path.file_name().unwrap_or_default().to_string_lossy();
        let label = match nearest(&wanted, known.iter().copied()) {
            Some(meant) if meant != wanted => format!("beside it there is `{meant}`"),
            _ => format!("looked for {}", path.display()),
        };
        self.error(
            "test/missing-file",
            text,
            format!("the test's {what} `{}` is not there", text.text),
            &label,
        );
        None
    }

    fn timeout(&mut self, text: &Text) -> Option<Duration> {
        let timeout = text.text.parse().ok().map(Duration::from_millis);
        let timeout = timeout.filter(|it| !it.is_zero() && *it <= TIMEOUT_MAX);
        if timeout.is_none() {
            let message = format!("`{}` is no timeout", text.text);
            let label = format!("milliseconds, from 1 to {}", TIMEOUT_MAX.as_millis());
            self.error("test/timeout", text, message, &label);
        }
        timeout
    }

    fn topic(&mut self, text: Text) -> Option<String> {
        match crate::topic::check_name(&text.text) {
            Ok(()) => Some(text.text),
            Err(error) => {
                let message = format!("`{}` is no topic for messages", text.text);
                self.error("test/topic", &text, message, &error.to_string());
                None
            }
        }
    }

    fn paths(&mut self, nodes: &[Node]) -> Vec<JsonPath> {
        let mut paths = Vec::new();
        for node in nodes {
            let Some(text) = Text::of(node, "a path", self.diagnostics) else { continue };
            match JsonPath::parse(&text.text) {
                Ok(path) => paths.push(path),
                Err(error) => {
                    let message = format!("`{}` is no path into a message", text.text);
                    self.error("test/path", &text, message, &error.to_string());
                }
            }
        }
        paths
    }

    fn settings(&mut self, node: &Node) -> Vec<Setting> {
        let Value::Map(pairs) = &node.value else {
            let label = format!("this is {}", node.kind());
            let message = "`configuration` must be a mapping";
            self.diagnostics.error("yaml/type", node.place.clone(), message, label);
            return Vec::new();
        };
        let pair = |(key, value): &(Node, Node)| {
            let value = Text::of(value, key.text()?, self.diagnostics)?;
            Some(Setting { key: key.text()?.to_owned(), value: value.text, place: Some(value.place) })
        };
        pairs.iter().filter_map(pair).collect()
    }

    /// One message a file, in order of their names; images have a topic of their own.
    fn messages(&mut self, text: &Text, topic: &str) -> Option<Vec<InputMessage>> {
        let path = self.named(text, "input", Path::exists)?;
        let files = if path.is_dir() { visible_entries(&path) } else { Ok(vec![path.clone()]) };
        let read = files.and_then(|mut files| {
            files.retain(|file| file.is_file());
            let files = files.into_iter().take(INPUTS_MAX + 1);
            files.map(|file| read_message(file, topic)).collect::<io::Result<Vec<_>>>()
        });
        match read {
            Ok(messages) if messages.is_empty() => {
                self.error("test/input", text, format!("the input `{}` holds no file", text.text), "");
            }
            Ok(messages) if messages.len() > INPUTS_MAX => {
                let message = format!("the input holds more than {INPUTS_MAX} files");
                self.error("test/input", text, message, "split the test");
            }
            Ok(messages) => return Some(messages),
            Err(error) => {
                let message = format!("the input `{}` cannot be read", text.text);
                self.error("test/input", text, message, &error.to_string());
            }
        }
        None
    }

    fn expected(&mut self, text: &Text) -> Option<Expected> {
        let path = self.named(text, "expectation", Path::is_file)?;
        let file = read_source(Path::new(""), &path, self.diagnostics)?;
        let json: Json = match serde_json::from_str(&file.text) {
            Ok(json) => json,
            Err(error) => {
                // At the end of a file the column can be 0.
                let (line, column) = (error.line().max(1), error.column().max(1));
                let place = Place { file, line, column, len: 1 };
                self.diagnostics.error("test/expected", place, format!("not JSON: {error}"), "");
                return None;
            }
        };
        let place = Place { file, line: 1, column: 1, len: 1 };
        let (messages, expected) = match json {
            Json::Array(list) => (list.clone(), Expected::All(list)),
            one => (vec![one.clone()], Expected::Last(one)),
        };
        let sound = messages.iter().all(|message| self.is_message(message, &place));
        sound.then_some(expected)
    }

    /// Whether an expected message has the form of one.
    fn is_message(&mut self, message: &Json, place: &Place) -> bool {
        const KEYS: [&str; 4] = ["topic", "payload", "contentType", "properties"];
        let Json::Object(map) = message else {
            let label = "an object with `topic`, `payload`, `contentType` or `properties`";
            self.diagnostics.error("test/expected", place.clone(), "an expected message is no object", label);
            return false;
        };
        let unknown = map.keys().find(|key| !KEYS.contains(&key.as_str()));
        if let Some(key) = unknown {
            let label = match nearest(key, KEYS) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("known here: {}", KEYS.join(", ")),
            };
            let message = format!("a message has no `{key}`");
            self.diagnostics.error("test/expected", place.clone(), message, label);
        }
        unknown.is_none()
    }

    /// The schema that an environment list beside the test, or beside its graph, names.
    fn schema(&mut self, graph: &Path) -> Option<SchemaFile> {
        let beside = |folder: &Path| Some(folder.join(ENVIRONMENT)).filter(|list| list.is_file());
        let list = beside(&self.folder).or_else(|| beside(graph.parent()?))?;
        let file = read_source(Path::new(""), &list, self.diagnostics)?;
        let mut schema = None;
        for (index, line) in file.text.lines().enumerate() {
            let place =
                Place { file: file.clone(), line: index + 1, column: 1, len: line.chars().count().max(1) };
            let Some((key, value)) = line.split_once('=') else { continue };
            match key.trim() {
                "TK_SCHEMA_CONFIG_PATH" => schema = self.schema_file(&list, value.trim(), place),
                "TK_CONFIGURATION_PARAMETERS" => {
                    let message = "`TK_CONFIGURATION_PARAMETERS` has no effect: its form is not published";
                    let label = "write `configuration: { KEY: VALUE }` in the test";
                    self.diagnostics.warning("test/environment", place, message, label);
                }
                _ => {}
            }
        }
        schema
    }

    fn schema_file(&mut self, list: &Path, named: &str, place: Place) -> Option<SchemaFile> {
        let path = joined(list.parent().unwrap_or(Path::new("")), named);
        if !path.is_file() {
            let message = format!("the schema `{named}` is not there");
            let label = format!("looked for {}", path.display());
            self.diagnostics.error("test/missing-file", place, message, label);
            return None;
        }
        let file: Arc<SourceFile> = read_source(Path::new(""), &path, self.diagnostics)?;
        if let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(&file.text) {
            let (line, column) = (error.line().max(1), error.column().max(1));
            let place = Place { file, line, column, len: 1 };
            self.diagnostics.error("test/schema", place, format!("not JSON: {error}"), "");
            return None;
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Some(SchemaFile { name, content: file.text.clone() })
    }
}

fn read_message(file: PathBuf, topic: &str) -> io::Result<InputMessage> {
    if fs::metadata(&file)?.len() > INPUT_BYTES_MAX {
        return Err(io::Error::other(format!("{} has more than {INPUT_BYTES_MAX} bytes", file.display())));
    }
    let payload = fs::read(&file)?;
    let is_raw = file.extension().is_some_and(|it| it == "raw");
    let topic = if is_raw { TOPIC_OF_RAW } else { topic };
    Ok(InputMessage { topic: topic.to_owned(), payload, file })
}

/// `path` seen from `folder`, without `..` wherever that leads to the same file.
fn joined(folder: &Path, path: &str) -> PathBuf {
    use std::path::Component;
    let long = folder.join(path);
    let mut short = PathBuf::new();
    for part in long.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if matches!(short.components().next_back(), Some(Component::Normal(_))) => {
                short.pop();
            }
            part => short.push(part),
        }
    }
    match (short.canonicalize(), long.canonicalize()) {
        (Ok(a), Ok(b)) if a != b => long,
        _ => short,
    }
}

#[cfg(test)]
mod tests;
