//! Schemas of a site, as folders hold them: what AIO's schema registry is to its
//! operators. Control side; serves lookups by guests and references of dataflows. It
//! does not hold messages against them.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    path::{Path, PathBuf},
    sync::Arc,
};

use serde_json::Value as Json;

use crate::{
    guest::component::Digest,
    resource::{
        diagnostic::{Diagnostics, Place, SourceFile},
        yaml::{self, Node, Object, Unknown, Value},
    },
};

/// Largest schema, in bytes.
pub const SCHEMA_BYTES_MAX: usize = 256 << 10;
/// Most schemas of one folder, each version counted, and their bytes in all: they are
/// kept in memory.
const SCHEMAS_MAX: usize = 1_000;
const SCHEMAS_BYTES_MAX: usize = 4 << 20;
/// Longest namespace, name or version.
const PART_LEN_MAX: usize = 128;

/// What stands in place of a version for the newest there is.
pub const LATEST: &str = "latest";
/// What AIO's references begin with.
pub const SCHEME: &str = "aio-sr://";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SchemaFormat {
    Json,
    Delta,
}

/// One version of a schema.
#[derive(Debug, PartialEq, Eq)]
pub struct RegisteredSchema {
    pub namespace: String,
    pub name: String,
    pub version: String,
    pub format: SchemaFormat,
    /// As it stands in its file.
    pub content: String,
    /// SHA-256 of the content, in lower-case hex.
    pub hash: String,
    pub display_name: Option<String>,
    pub description: Option<String>,
    pub tags: Vec<(String, String)>,
}

/// The schemas of one folder, by namespace and name, then by version, newest last.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct SchemaFolder {
    by_name: BTreeMap<(String, String), BTreeMap<Version, Arc<RegisteredSchema>>>,
}

/// What one tenant sees: its own schemas, then the platform's.
#[derive(Debug)]
pub struct Schemas {
    /// The tenant's: the namespace of its schemas that say none.
    namespace: String,
    own: Arc<SchemaFolder>,
    platform: Arc<SchemaFolder>,
}

/// The platform's namespace, for its schemas that say none.
pub const PLATFORM: &str = "platform";

/// Why a schema is not found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    #[error("`{id}` is no name of a schema: write `[NAMESPACE/]NAME`")]
    Id { id: String },
    #[error("`{version}` is no version of a schema")]
    Version { version: String },
    #[error("there is no such schema")]
    NotFound,
}

impl Schemas {
    /// `own` is the folder of the tenant `namespace`.
    pub fn new(namespace: &str, own: Arc<SchemaFolder>, platform: Arc<SchemaFolder>) -> Self {
        Schemas { namespace: namespace.to_owned(), own, platform }
    }

    /// The schema `[aio-sr://][NAMESPACE/]NAME` in a version; in the newest one if the
    /// version is empty or `latest`. The tenant's own comes before the platform's.
    pub fn find(&self, id: &str, version: &str) -> Result<&Arc<RegisteredSchema>, LookupError> {
        let path = id.strip_prefix(SCHEME).unwrap_or(id);
        let (namespace, name) = match path.split_once('/') {
            Some((namespace, name)) => (Some(namespace), name),
            None => (None, path),
        };
        if !is_part(name) || namespace.is_some_and(|it| !is_part(it)) {
            let id = id.chars().take(PART_LEN_MAX).collect();
            return Err(LookupError::Id { id });
        }
        if !version.is_empty() && !is_part(version) {
            let version = version.chars().take(PART_LEN_MAX).collect();
            return Err(LookupError::Version { version });
        }
        let own = self.own.newest_or(namespace.unwrap_or(&self.namespace), name, version);
        let shared = || self.platform.newest_or(namespace.unwrap_or(PLATFORM), name, version);
        own.or_else(shared).ok_or(LookupError::NotFound)
    }
}

/// A reference `aio-sr://[NAMESPACE/]NAME:VERSION` as id and version.
pub fn parse_reference(text: &str) -> Option<(&str, &str)> {
    let (id, version) = text.strip_prefix(SCHEME)?.rsplit_once(':')?;
    let parts = || id.split('/');
    let sound = parts().count() <= 2 && parts().all(is_part) && is_part(version);
    sound.then_some((id, version))
}

impl SchemaFolder {
    fn newest_or(&self, namespace: &str, name: &str, version: &str) -> Option<&Arc<RegisteredSchema>> {
        let versions = self.by_name.get(&(namespace.to_owned(), name.to_owned()))?;
        match version {
            "" | LATEST => versions.last_key_value().map(|(_, schema)| schema),
            version => versions.get(&Version::of(version)),
        }
    }

    /// Reads the files of a folder, each with its path in it: `[NAMESPACE/]NAME/VERSION.json`
    /// is a schema, the YAML file beside it describes it. `namespace` is whose folder it is.
    pub fn read(
        namespace: &str,
        files: &[(PathBuf, Arc<SourceFile>)],
        diagnostics: &mut Diagnostics,
    ) -> Self {
        let mut folder = SchemaFolder::default();
        let mut descriptors = read_descriptors(namespace, files, diagnostics);
        let mut bytes = 0;
        for (path, file) in files.iter().filter(|(path, _)| is_content(path)) {
            let Some(key) = Key::of(namespace, path, file, diagnostics) else { continue };
            let described = descriptors.remove(&key).map(|(_, descriptor)| descriptor).unwrap_or_default();
            bytes += file.text.len();
            let Some(schema) = read_schema(&key, file, described, diagnostics) else { continue };
            if folder.len() == SCHEMAS_MAX || bytes > SCHEMAS_BYTES_MAX {
                let message = format!("{} is one schema too many", file.path);
                let label =
                    format!("a folder has at most {SCHEMAS_MAX}, of {SCHEMAS_BYTES_MAX} bytes in all");
                diagnostics.error("schema/too-large", start_of(file), message, label);
                break;
            }
            let versions = folder.by_name.entry((key.namespace, key.name)).or_default();
            match versions.entry(key.version) {
                Entry::Vacant(place) => {
                    place.insert(Arc::new(schema));
                }
                Entry::Occupied(_) => {
                    let message = format!("{} is a schema that is there already", file.path);
                    let label = "a folder of the owner's own name is the same as none";
                    diagnostics.error("schema/duplicate", start_of(file), message, label);
                }
            }
        }
        for (file, _) in descriptors.into_values() {
            let message = format!("{} describes no schema", file.path);
            diagnostics.error(
                "schema/descriptor",
                start_of(&file),
                message,
                "put the schema beside it, as `.json`",
            );
        }
        folder
    }

    /// Schemas in it, each version counted.
    fn len(&self) -> usize {
        self.by_name.values().map(BTreeMap::len).sum()
    }
}

/// A version: numbers in it count as numbers, so that 10 is newer than 9.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Version {
    parts: Vec<Part>,
    /// Tells 1 from 01.
    text: String,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Text(String),
    Number(u64),
}

impl Version {
    fn of(text: &str) -> Self {
        let part = |part: &str| part.parse().map_or_else(|_| Part::Text(part.to_owned()), Part::Number);
        Version { parts: text.split('.').map(part).collect(), text: text.to_owned() }
    }
}

fn is_part(text: &str) -> bool {
    (1..=PART_LEN_MAX).contains(&text.len())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

/// Which schema a file is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    namespace: String,
    name: String,
    version: Version,
}

impl Key {
    fn of(
        namespace: &str,
        path: &Path,
        file: &Arc<SourceFile>,
        diagnostics: &mut Diagnostics,
    ) -> Option<Self> {
        let path = path.with_extension("");
        let parts: Vec<&str> = path.iter().filter_map(|part| part.to_str()).collect();
        let (namespace, name, version) = match *parts.as_slice() {
            [name, version] => (namespace, name, version),
            [namespace, name, version] => (namespace, name, version),
            _ => {
                let message = format!("{} does not lie where schemas do", file.path);
                let label = "`schemas/[NAMESPACE/]NAME/VERSION.json`";
                diagnostics.error("schema/place", start_of(file), message, label);
                return None;
            }
        };
        let sound = [namespace, name, version].into_iter().all(is_part) && version != LATEST;
        if !sound {
            let message = format!("the path of {} names no schema", file.path);
            let label = format!(
                "at most {PART_LEN_MAX} of a-z, A-Z, 0-9, `-`, `_` and `.`; no version is `{LATEST}`"
            );
            diagnostics.error("schema/name", start_of(file), message, label);
            return None;
        }
        let version = Version::of(version);
        Some(Key { namespace: namespace.to_owned(), name: name.to_owned(), version })
    }
}

fn is_content(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "json")
}

/// What the file beside a schema says about it.
#[derive(Debug, Default)]
struct Descriptor {
    format: Option<(SchemaFormat, Place)>,
    display_name: Option<String>,
    description: Option<String>,
    tags: Vec<(String, String)>,
}

type Descriptors = BTreeMap<Key, (Arc<SourceFile>, Descriptor)>;

fn read_descriptors(
    namespace: &str,
    files: &[(PathBuf, Arc<SourceFile>)],
    diagnostics: &mut Diagnostics,
) -> Descriptors {
    let mut descriptors = Descriptors::new();
    for (path, file) in files.iter().filter(|(path, _)| !is_content(path)) {
        let Some(key) = Key::of(namespace, path, file, diagnostics) else { continue };
        for node in yaml::parse(file, diagnostics) {
            let descriptor = read_descriptor(&node, diagnostics);
            if descriptors.insert(key.clone(), (file.clone(), descriptor)).is_some() {
                let message = format!("{} is described twice", key.name);
                diagnostics.error("schema/duplicate", node.place, message, "one description a version");
            }
        }
    }
    descriptors
}

/// What AIO and its registry call the two formats.
const FORMATS: [(&str, SchemaFormat); 4] = [
    ("json", SchemaFormat::Json),
    ("delta", SchemaFormat::Delta),
    ("JsonSchema/draft-07", SchemaFormat::Json),
    ("Delta/1.0", SchemaFormat::Delta),
];

fn read_descriptor(node: &Node, diagnostics: &mut Diagnostics) -> Descriptor {
    let mut raw = Object::of(node, "a schema's description", Unknown::Error, diagnostics);
    let format = raw.choice("format", &FORMATS, diagnostics);
    let place = raw.get("format").map(|node| node.place.clone());
    let display_name = raw.text("displayName", diagnostics).map(|text| text.text);
    let description = raw.text("description", diagnostics).map(|text| text.text);
    let mut tags = Vec::new();
    match raw.get("tags").map(|node| (&node.value, node)) {
        Some((Value::Map(pairs), _)) => {
            for (key, value) in pairs {
                match (key.text(), value.text()) {
                    (Some(key), Some(value)) => tags.push((key.to_owned(), value.to_owned())),
                    _ => diagnostics.error("schema/descriptor", value.place.clone(), "a tag is text", ""),
                }
            }
        }
        Some((_, node)) if !node.is_null() => {
            let label = "write `KEY: VALUE`";
            diagnostics.error("schema/descriptor", node.place.clone(), "`tags` must be a mapping", label);
        }
        _ => {}
    }
    raw.finish(diagnostics);
    Descriptor { format: format.zip(place), display_name, description, tags }
}

fn start_of(file: &Arc<SourceFile>) -> Place {
    Place { file: file.clone(), line: 1, column: 1, len: 1 }
}

fn read_schema(
    key: &Key,
    file: &Arc<SourceFile>,
    described: Descriptor,
    diagnostics: &mut Diagnostics,
) -> Option<RegisteredSchema> {
    if file.text.len() > SCHEMA_BYTES_MAX {
        let message = format!("{} has {} bytes", file.path, file.text.len());
        let label = format!("a schema has at most {SCHEMA_BYTES_MAX}");
        diagnostics.error("schema/too-large", start_of(file), message, label);
        return None;
    }
    let json: Json = match serde_json::from_str(&file.text) {
        Ok(json) => json,
        Err(error) => {
            let place = Place { line: error.line().max(1), column: error.column().max(1), ..start_of(file) };
            let text = error.to_string();
            let cause = text.split(" at line ").next().unwrap_or_default();
            diagnostics.error("schema/json", place, format!("{} is not JSON", file.path), cause);
            return None;
        }
    };
    let looks = match json.get("$schema").and_then(Json::as_str) {
        Some(name) if name.starts_with("Delta/") => SchemaFormat::Delta,
        _ => SchemaFormat::Json,
    };
    let format = described.format.as_ref().map_or(looks, |(format, _)| *format);
    let wrong = match format {
        SchemaFormat::Json => check_json(&json),
        SchemaFormat::Delta => check_delta(&json),
    };
    if let Err((pointer, cause)) = wrong {
        let (what, place) = match format {
            SchemaFormat::Json => ("JSON", place_of(file, &pointer)),
            SchemaFormat::Delta => ("Delta", place_of(file, &pointer)),
        };
        let message = format!("{} is no {what} schema", file.path);
        diagnostics.error("schema/invalid", place, message, cause);
        return None;
    }
    Some(RegisteredSchema {
        namespace: key.namespace.clone(),
        name: key.name.clone(),
        version: key.version.text.clone(),
        format,
        content: file.text.clone(),
        hash: Digest::of(file.text.as_bytes()).to_string(),
        display_name: described.display_name,
        description: described.description,
        tags: described.tags,
    })
}

/// Where in it and why a document is no schema.
type Wrong = (String, String);

/// Against the meta-schema of the draft that it names.
fn check_json(json: &Json) -> Result<(), Wrong> {
    jsonschema::meta::validate(json)
        .map_err(|error| (error.instance_path().as_str().to_owned(), error.masked().to_string()))
}

/// As AIO describes its Delta schemas: a struct with fields, below `properties`.
fn check_delta(json: &Json) -> Result<(), Wrong> {
    let is = |pointer: &str, wanted: &str| match json.pointer(pointer).and_then(Json::as_str) {
        Some(text) if text == wanted => Ok(()),
        _ => Err((pointer.to_owned(), format!("`{pointer}` must be `{wanted}`"))),
    };
    is("/type", "object")?;
    is("/properties/type", "struct")?;
    let fields = "/properties/fields";
    let Some(listed) = json.pointer(fields).and_then(Json::as_array) else {
        return Err((fields.to_owned(), format!("`{fields}` must be a list")));
    };
    for (index, field) in listed.iter().enumerate() {
        let named = field.get("name").is_some_and(Json::is_string);
        let typed = field.get("type").is_some_and(|it| it.is_string() || it.is_object());
        if !named || !typed {
            return Err((format!("{fields}/{index}"), "a field has a `name` and a `type`".to_owned()));
        }
    }
    Ok(())
}

/// Where a JSON pointer leads in a file, or as near to it as there is.
fn place_of(file: &Arc<SourceFile>, pointer: &str) -> Place {
    // JSON is YAML; where it is not quite, the error has no better place than the file.
    match yaml::parse(file, &mut Diagnostics::default()).first() {
        Some(root) => root.at_pointer(pointer).0.place.clone(),
        None => start_of(file),
    }
}

#[cfg(test)]
mod tests;
