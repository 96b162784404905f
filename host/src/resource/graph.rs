//! AIO graph definitions, checked in two stages: the published JSON schema, whose
//! verdict is final, then the rules that a schema cannot say. Those of the preview have
//! a schema that is made of the oldest published one.

use std::{
    collections::HashSet,
    sync::{Arc, LazyLock},
};

use jsonschema::{
    JsonType, JsonTypeSet, ValidationError, Validator,
    error::{TypeKind, ValidationErrorKind},
};
use serde_json::Value as Json;

use crate::{
    inference,
    resource::{
        diagnostic::{Diagnostics, Place, nearest},
        yaml::{Node, Object, Text, Unknown, Value},
    },
    schema::PayloadSchema,
};

/// A graph definition that passed both stages.
#[derive(Clone, Debug)]
pub struct Graph {
    /// Its file's, if it is of the preview: that has none.
    pub name: String,
    pub version: Option<String>,
    /// In the order of the file.
    pub operations: Vec<Operation>,
    pub connections: Vec<Connection>,
    /// In the order of the file.
    pub schemas: Vec<Arc<PayloadSchema>>,
    /// What its modules need and this host does not have. It is a graph all the same;
    /// but whoever runs it must refuse.
    pub features_missing: Vec<Text>,
}

#[derive(Clone, Debug)]
pub struct Operation {
    pub name: Text,
    pub kind: OperationKind,
    /// Reference of the component; none for source, sink and concatenate.
    pub module: Option<Text>,
    pub parameters: Vec<Parameter>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OperationKind {
    Source,
    Map,
    Filter,
    Branch,
    Concatenate,
    Accumulate,
    Delay,
    Sink,
}

impl OperationKind {
    const ALL: [(&'static str, OperationKind); 8] = [
        ("source", OperationKind::Source),
        ("map", OperationKind::Map),
        ("filter", OperationKind::Filter),
        ("branch", OperationKind::Branch),
        ("concatenate", OperationKind::Concatenate),
        ("accumulate", OperationKind::Accumulate),
        ("delay", OperationKind::Delay),
        ("sink", OperationKind::Sink),
    ];

    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, kind)| *kind == self).map_or("operation", |(name, _)| name)
    }

    fn has_module(self) -> bool {
        !matches!(self, OperationKind::Source | OperationKind::Sink | OperationKind::Concatenate)
    }
}

/// One parameter that an operation declares.
#[derive(Clone, Debug)]
pub struct Parameter {
    /// What the resource's configuration names it.
    pub key: String,
    /// What the operator sees.
    pub name: String,
    pub required: bool,
    pub default: Option<String>,
    pub schema: Option<ParameterSchema>,
}

/// What values of a parameter must fit.
#[derive(Clone, Debug)]
pub struct ParameterSchema {
    pub schema: Arc<PayloadSchema>,
    pub place: Place,
}

/// A value that somebody gives to a parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    pub key: String,
    pub value: String,
    /// Where it is written, if that is in a file.
    pub place: Option<Place>,
}

/// Why an operation has no configuration.
#[derive(Debug)]
pub enum ConfigurationError<'a> {
    /// A required parameter has no value.
    Missing(&'a Parameter),
    /// A value does not fit its parameter's schema.
    Unfit { setting: &'a Setting, schema: &'a ParameterSchema, violation: String },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Connection {
    /// Places in the graph's operations.
    pub from: usize,
    /// Which arm of a branch.
    pub arm: Option<bool>,
    pub to: usize,
    /// Which of the graph's schemas its payloads must fit.
    pub schema: Option<usize>,
}

/// Most operations, and four times as many connections, of one graph.
const OPERATIONS_MAX: usize = 256;

/// Rules that are not about the graph but about how far Tidegate is.
pub const NOT_YET_SUPPORTED: &str = "graph/not-yet-supported";

/// Which form a graph definition has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// Without `metadata`: with it, a document is held against the schema that this names.
    Preview,
    /// That of schema 1.0.0.
    First,
    /// That of schema 1.1.0, also if none is named.
    Newest,
}

impl Form {
    fn of(node: &Node) -> Self {
        let requirements = node.get("moduleRequirements");
        let metadata = node.get("metadata");
        let named = metadata.and_then(|it| it.get("$schema")).and_then(Node::text);
        match metadata {
            None if requirements.is_some_and(|it| it.get(HOSTLIB_VERSION).is_some()) => Form::Preview,
            _ if named.is_some_and(|name| name.contains("1.0.0")) => Form::First,
            _ => Form::Newest,
        }
    }

    fn validator(self) -> &'static Validator {
        &SCHEMAS[self as usize]
    }
}

/// In the order of the forms.
static SCHEMAS: LazyLock<[Validator; 3]> = LazyLock::new(|| {
    let parse = |text| serde_json::from_str(text).expect("the shipped schema is JSON");
    let first: Json = parse(include_str!("../../schema/aio-wasm-graph-config-1.0.0.json"));
    let newest = parse(include_str!("../../schema/aio-wasm-graph-config-1.1.0.json"));
    [preview_of(first.clone()), first, newest]
        .map(|schema| jsonschema::draft7::new(&schema).expect("the shipped schema is a schema"))
});

/// What the preview's form differs in: no `metadata`, and `hostlibVersion` in the place
/// of `runtimeVersion`.
fn preview_of(mut schema: Json) -> Json {
    let without = |object: &mut Json, key: &str| {
        object["required"].as_array_mut().expect("it is a list").retain(|it| it != key);
        object["properties"].as_object_mut().expect("it is an object").remove(key)
    };
    without(&mut schema, "metadata");
    let versions = &mut schema["definitions"]["ModuleVersions"];
    let version = without(versions, "runtimeVersion").expect("the oldest schema has it");
    versions["properties"][HOSTLIB_VERSION] = version;
    versions["required"].as_array_mut().expect("it is a list").push(HOSTLIB_VERSION.into());
    schema
}

const HOSTLIB_VERSION: &str = "hostlibVersion";

/// The first stage alone: the schema's verdict on a document. The schema is the one
/// that the document names, else the newest; that of the preview if it is of that form.
pub fn check_schema(node: &Node, diagnostics: &mut Diagnostics) -> bool {
    let json = node.to_json();
    let mut valid = true;
    for error in Form::of(node).validator().iter_errors(&json) {
        valid = false;
        say(node, &error, diagnostics);
    }
    valid
}

/// The schema's finding in words that name what was written and what was expected.
fn say(root: &Node, error: &ValidationError<'_>, diagnostics: &mut Diagnostics) {
    let (node, key) = root.at_pointer(error.instance_path().as_str());
    let what = key.map_or("a graph definition".to_owned(), |key| format!("`{key}`"));
    match error.kind() {
        ValidationErrorKind::Required { property } => {
            let mut place = node.place.clone();
            place.len = 1;
            let message = format!("{what} lacks the key `{}`", property.as_str().unwrap_or_default());
            diagnostics.error("graph/schema", place, message, "needed here");
        }
        ValidationErrorKind::AdditionalProperties { unexpected } => {
            let Value::Map(pairs) = &node.value else { return };
            for (key, _) in pairs.iter().filter(|(key, _)| unexpected.iter().any(|it| key.text() == Some(it)))
            {
                let message = format!("unknown key `{}` in {what}", key.text().unwrap_or_default());
                diagnostics.error("graph/schema", key.place.clone(), message, "the schema knows no such key");
            }
        }
        ValidationErrorKind::Type { kind } => {
            let (message, label) =
                (format!("{what} must be {}", types(kind)), format!("this is {}", kind_of(node)));
            diagnostics.error("graph/schema", node.place.clone(), message, label);
        }
        // That it is no text at all is said by its type.
        ValidationErrorKind::Enum { .. } if !node.to_json().is_string() => {}
        ValidationErrorKind::Enum { options } => {
            let options: Vec<_> =
                options.as_array().into_iter().flatten().filter_map(|it| it.as_str()).collect();
            one_of(node, &what, &options, diagnostics);
        }
        // The schema has one `anyOf`, a branch's arm or nothing, and one `oneOf`.
        ValidationErrorKind::AnyOf { .. } => one_of(node, &what, &["False", "True"], diagnostics),
        ValidationErrorKind::OneOfNotValid { .. } => {
            let label = "a whole number from 1, or `unbounded`";
            diagnostics.error("graph/schema", node.place.clone(), format!("no value for {what}"), label);
        }
        _ => diagnostics.error("graph/schema", node.place.clone(), format!("{what}: {}", error.masked()), ""),
    }
}

fn one_of(node: &Node, what: &str, options: &[&str], diagnostics: &mut Diagnostics) {
    let (message, label) = match (node.text(), node.to_json().is_string()) {
        (Some(text), true) => {
            let label = match nearest(text, options.iter().copied()) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("one of `{}`", options.join("`, `")),
            };
            (format!("`{text}` is no value for {what}"), label)
        }
        _ => {
            let label = format!("write \"{}\", in quotes", options.join("\" or \""));
            (format!("{what} must be text, and this is {}", kind_of(node)), label)
        }
    };
    diagnostics.error("graph/schema", node.place.clone(), message, label);
}

fn types(kind: &TypeKind) -> String {
    let name = |json_type| match json_type {
        JsonType::String => "text",
        JsonType::Object => "a mapping",
        JsonType::Array => "a list",
        JsonType::Boolean => "`true` or `false`",
        JsonType::Integer => "a whole number",
        JsonType::Number => "a number",
        JsonType::Null => "nothing",
    };
    match kind {
        TypeKind::Single(one) => name(*one).to_owned(),
        TypeKind::Multiple(many) => {
            let of = |set: &JsonTypeSet| set.iter().map(name).collect::<Vec<_>>().join(" or ");
            of(many)
        }
    }
}

/// What a value is to a schema, for messages.
fn kind_of(node: &Node) -> &'static str {
    match node.to_json() {
        Json::Null => "nothing",
        Json::Bool(_) => "`true` or `false` without quotes",
        Json::Number(_) => "a number without quotes",
        Json::String(_) => "text",
        Json::Array(_) => "a list",
        Json::Object(_) => "a mapping",
    }
}

impl Graph {
    /// Both stages. `None` if there was any error.
    pub fn read(node: &Node, diagnostics: &mut Diagnostics) -> Option<Arc<Graph>> {
        Self::read_with(node, features_built(), diagnostics)
    }

    /// The same in a build with these of AIO's features.
    fn read_with(node: &Node, built: &[&str], diagnostics: &mut Diagnostics) -> Option<Arc<Graph>> {
        let before = diagnostics.errors();
        if !check_schema(node, diagnostics) {
            return None;
        }
        let mut raw = Object::of(node, "a graph definition", Unknown::Ignored, diagnostics);
        let (name, version) = match raw.object("metadata", diagnostics) {
            Some(mut metadata) => {
                (metadata.text("name", diagnostics)?, metadata.text("version", diagnostics))
            }
            None => (Text { text: node.place.file.path.clone(), place: node.place.clone() }, None),
        };
        let version = version.map(|version| version.text);
        let features_missing = read_features(&mut raw, built, diagnostics);
        if let Some(node) = raw.list("operations", diagnostics).get(OPERATIONS_MAX) {
            let message = format!("a graph has at most {OPERATIONS_MAX} operations");
            diagnostics.error("graph/too-large", node.place.clone(), message, "this is one too many");
            return None;
        }
        if let Some(node) = raw.list("connections", diagnostics).get(4 * OPERATIONS_MAX) {
            let message = format!("a graph has at most {} connections", 4 * OPERATIONS_MAX);
            diagnostics.error("graph/too-large", node.place.clone(), message, "this is one too many");
            return None;
        }
        let mut operations: Vec<Operation> = Vec::new();
        for node in raw.list("operations", diagnostics) {
            let Some(operation) = read_operation(node, diagnostics) else { continue };
            if operations.iter().any(|other| other.name.text == operation.name.text) {
                let message = format!("two operations are named `{}`", operation.name.text);
                diagnostics.error(
                    "graph/duplicate-operation",
                    operation.name.place,
                    message,
                    "names are unique",
                );
            } else {
                operations.push(operation);
            }
        }
        read_configurations(&mut raw, Form::of(node), &mut operations, diagnostics);
        let schemas = read_schemas(&mut raw, diagnostics);
        let mut connections = Vec::new();
        let mut places = Vec::new();
        for node in raw.list("connections", diagnostics) {
            if let Some(connection) = read_connection(node, &operations, &schemas, diagnostics) {
                connections.push(connection);
                places.push(node.place.clone());
            }
        }
        let listed = |key: &str| match node.get(key).map(|node| &node.value) {
            Some(Value::List(nodes)) => nodes.len(),
            _ => 0,
        };
        let listed_schemas = listed("schemas");
        let schemas: Vec<_> = schemas.into_iter().filter_map(|(_, schema)| schema).collect();
        if schemas.len() != listed_schemas {
            return None;
        }
        // An operation or a connection that could not be read makes others look wrong.
        if (operations.len(), connections.len()) != (listed("operations"), listed("connections")) {
            return None;
        }
        let graph = Graph { name: name.text, version, operations, connections, schemas, features_missing };
        graph.check_ends(node, diagnostics);
        graph.check_ports(diagnostics);
        graph.check_connections(&places, diagnostics);
        graph.check_acyclic(diagnostics);
        (diagnostics.errors() == before).then(|| Arc::new(graph))
    }

    fn check_ends(&self, node: &Node, diagnostics: &mut Diagnostics) {
        for kind in [OperationKind::Source, OperationKind::Sink] {
            if !self.operations.iter().any(|it| it.kind == kind) {
                let place = node.get("operations").map(|node| node.place.clone());
                let message = format!("the graph has no {}", kind.name());
                diagnostics.error("graph/ends", place, message, "at least one is needed");
            }
        }
    }

    fn check_ports(&self, diagnostics: &mut Diagnostics) {
        for (index, operation) in self.operations.iter().enumerate() {
            let place = || operation.name.place.clone();
            let name = &operation.name.text;
            let inputs = self.connections.iter().filter(|it| it.to == index).count();
            let outputs: Vec<_> = self.connections.iter().filter(|it| it.from == index).collect();
            let mut refuse =
                |rule, message: String, label: &str| diagnostics.error(rule, place(), message, label);
            match operation.kind {
                OperationKind::Source if inputs > 0 => {
                    refuse(
                        "graph/source-input",
                        format!("the source `{name}` has an input"),
                        "a source has none",
                    );
                }
                OperationKind::Sink if !outputs.is_empty() => {
                    refuse(
                        "graph/sink-output",
                        format!("the sink `{name}` has an output"),
                        "a sink has none",
                    );
                }
                OperationKind::Concatenate if inputs < 2 => {
                    refuse(
                        "graph/concatenate-inputs",
                        format!("`{name}` has {inputs} input(s)"),
                        "two or more are needed",
                    );
                }
                OperationKind::Source => {}
                _ if inputs == 0 => {
                    refuse("graph/no-input", format!("nothing leads to `{name}`"), "connect it, or remove it")
                }
                _ => {}
            }
            if operation.kind != OperationKind::Sink && outputs.is_empty() {
                refuse("graph/no-output", format!("nothing follows `{name}`"), "connect it, or remove it");
            }
            if operation.kind == OperationKind::Branch {
                for arm in [false, true] {
                    if !outputs.is_empty() && !outputs.iter().any(|it| it.arm == Some(arm)) {
                        let arm = if arm { "True" } else { "False" };
                        refuse(
                            "graph/branch-arm",
                            format!("the arm \"{arm}\" of `{name}` is not connected"),
                            "both arms must be",
                        );
                    }
                }
            }
        }
    }

    fn check_connections(&self, places: &[Place], diagnostics: &mut Diagnostics) {
        let mut seen = HashSet::new();
        for (connection, place) in self.connections.iter().zip(places) {
            if !seen.insert((connection.from, connection.arm, connection.to)) {
                let names = [connection.from, connection.to].map(|index| &self.operations[index].name.text);
                let message = format!("`{}` leads to `{}` twice", names[0], names[1]);
                diagnostics.error("graph/duplicate-connection", place.clone(), message, "remove one");
            }
            let from = &self.operations[connection.from];
            match (from.kind == OperationKind::Branch, connection.arm) {
                (true, None) => {
                    let message = format!("a connection from the branch `{}` needs an arm", from.name.text);
                    diagnostics.error(
                        "graph/branch-arm",
                        place.clone(),
                        message,
                        "write `arm: \"True\"` or `arm: \"False\"`",
                    );
                }
                (false, Some(_)) => {
                    let message = format!("`{}` is no branch and has no arms", from.name.text);
                    diagnostics.error("graph/arm-without-branch", place.clone(), message, "leave `arm` out");
                }
                _ => {}
            }
        }
    }

    fn check_acyclic(&self, diagnostics: &mut Diagnostics) {
        if let Err(index) = self.topological() {
            let operation = &self.operations[index];
            let message = format!("`{}` is part of a cycle", operation.name.text);
            diagnostics.error(
                "graph/cycle",
                operation.name.place.clone(),
                message,
                "messages would never leave it",
            );
        }
    }

    /// Operations, each after all that lead to it; or one that is part of a cycle.
    pub fn topological(&self) -> Result<Vec<usize>, usize> {
        let mut inputs: Vec<usize> = vec![0; self.operations.len()];
        self.connections.iter().for_each(|it| inputs[it.to] += 1);
        let mut order: Vec<usize> = (0..inputs.len()).filter(|index| inputs[*index] == 0).collect();
        let mut next = 0;
        while let Some(&index) = order.get(next) {
            next += 1;
            for connection in self.connections.iter().filter(|it| it.from == index) {
                inputs[connection.to] -= 1;
                if inputs[connection.to] == 0 {
                    order.push(connection.to);
                }
            }
        }
        match inputs.iter().position(|inputs| *inputs > 0) {
            Some(stuck) => Err(self.in_cycle(stuck, &inputs)),
            None => Ok(order),
        }
    }

    /// The first operation of the file in a cycle that `stuck` waits for; what only
    /// follows the cycle is stuck as well.
    fn in_cycle(&self, stuck: usize, inputs: &[usize]) -> usize {
        let mut walked = vec![stuck];
        loop {
            let last = walked[walked.len() - 1];
            let before = self.connections.iter().find(|it| it.to == last && inputs[it.from] > 0);
            let before = before.expect("what is stuck waits for something stuck").from;
            if let Some(start) = walked.iter().position(|index| *index == before) {
                return *walked[start..].iter().min().expect("it holds `before`");
            }
            walked.push(before);
        }
    }
}

impl Operation {
    /// The configuration that the operator sees: for each parameter the resource's
    /// value by key or by name, else the default, else nothing. Or all that is wrong.
    pub fn configuration<'a>(
        &'a self,
        settings: &'a [Setting],
    ) -> Result<Vec<(String, String)>, Vec<ConfigurationError<'a>>> {
        let (mut configuration, mut errors) = (Vec::new(), Vec::new());
        for parameter in &self.parameters {
            let by = |wanted: &str| settings.iter().find(|it| it.key == wanted);
            let setting = by(&parameter.key).or_else(|| by(&parameter.name));
            if let (Some(setting), Some(schema)) = (setting, &parameter.schema)
                && let Some(violation) = schema.schema.check_value(&setting.value)
            {
                errors.push(ConfigurationError::Unfit { setting, schema, violation });
            }
            match setting.map(|it| &it.value).or(parameter.default.as_ref()) {
                Some(value) => configuration.push((parameter.name.clone(), value.clone())),
                None if parameter.required => errors.push(ConfigurationError::Missing(parameter)),
                None => {}
            }
        }
        if errors.is_empty() { Ok(configuration) } else { Err(errors) }
    }
}

/// The features of AIO that this build has.
fn features_built() -> &'static [&'static str] {
    if inference::IS_BUILT { &[inference::FEATURE] } else { &[] }
}

/// The features that modules need and that are not among those that are there. Others
/// than AIO's are not known.
fn read_features(raw: &mut Object<'_>, built: &[&str], diagnostics: &mut Diagnostics) -> Vec<Text> {
    let Some(mut requirements) = raw.object("moduleRequirements", diagnostics) else { return Vec::new() };
    let names = requirements.list("features", diagnostics).iter().filter_map(|node| node.get("name"));
    let names = names.filter_map(|name| Text::of(name, "name", diagnostics));
    let features: Vec<Text> = names.filter(|name| !built.contains(&name.text.as_str())).collect();
    for Text { text, place } in &features {
        let message = format!("the feature `{text}` is not there on this host");
        let label = format!("the graph cannot be run{}", who_has(text));
        diagnostics.warning(NOT_YET_SUPPORTED, place.clone(), message, label);
    }
    features
}

/// Which build has a feature that this one does not have, if any.
pub fn who_has(feature: &str) -> String {
    if feature == inference::FEATURE {
        format!(": a build of this host with the cargo feature `{feature}` has it")
    } else {
        String::new()
    }
}

fn read_operation(node: &Node, diagnostics: &mut Diagnostics) -> Option<Operation> {
    let mut raw = Object::of(node, "an operation", Unknown::Ignored, diagnostics);
    let kind = raw.choice("operationType", &OperationKind::ALL, diagnostics)?;
    let name = raw.text("name", diagnostics)?;
    let module = raw.text("module", diagnostics);
    match (&module, kind.has_module()) {
        (None, true) => {
            let message = format!("the {} `{}` names no module", kind.name(), name.text);
            diagnostics.error(
                "graph/module-missing",
                name.place.clone(),
                message,
                "write `module: NAME:TAG`",
            );
        }
        (Some(module), false) => {
            let message = format!("a {} runs no module", kind.name());
            diagnostics.error("graph/module-unused", module.place.clone(), message, "leave `module` out");
        }
        _ => {}
    }
    if let Some(arity) = raw.get("arity")
        && kind != OperationKind::Concatenate
        && !matches!(arity.text(), Some("1"))
        && kind != OperationKind::Source
    {
        diagnostics.warning("graph/arity", arity.place.clone(), "`arity` has no effect here", "");
    }
    Some(Operation { name, kind, module, parameters: Vec::new() })
}

fn read_configurations(
    raw: &mut Object<'_>,
    form: Form,
    operations: &mut [Operation],
    diagnostics: &mut Diagnostics,
) {
    let mut seen: Vec<String> = Vec::new();
    let mut schemas = 0;
    for node in raw.list("moduleConfigurations", diagnostics) {
        let mut raw = Object::of(node, "a module configuration", Unknown::Ignored, diagnostics);
        let Some(name) = raw.text("name", diagnostics) else { continue };
        if seen.contains(&name.text) {
            let message = format!("`{}` is configured twice", name.text);
            diagnostics.error("graph/duplicate-configuration", name.place, message, "one entry an operation");
            continue;
        }
        seen.push(name.text.clone());
        let known: Vec<String> = operations.iter().map(|it| it.name.text.clone()).collect();
        let Some(operation) = operations.iter_mut().find(|it| it.name.text == name.text) else {
            let message = format!("configuration of an unknown operation `{}`", name.text);
            let label = unknown_label(&name.text, known.iter().map(String::as_str));
            diagnostics.error("graph/unknown-operation", name.place, message, label);
            continue;
        };
        let Some(Value::Map(pairs)) = raw.get("parameters").map(|node| &node.value) else { continue };
        for (key, node) in pairs {
            let key = key.text().unwrap_or_default();
            let parameter = read_parameter(key, node, form, &mut schemas, diagnostics);
            if operation.parameters.iter().any(|it| it.name == parameter.name) {
                let message =
                    format!("two parameters of `{}` are named `{}`", operation.name.text, parameter.name);
                let place = node.get("name").unwrap_or(node).place.clone();
                let label = "the operator would see both";
                diagnostics.error("graph/duplicate-parameter", place, message, label);
            }
            operation.parameters.push(parameter);
        }
    }
}

/// `schemas` counts those of all parameters of the graph.
fn read_parameter(
    key: &str,
    node: &Node,
    form: Form,
    schemas: &mut usize,
    diagnostics: &mut Diagnostics,
) -> Parameter {
    let mut raw = Object::of(node, "a parameter", Unknown::Ignored, diagnostics);
    let name = raw.text("name", diagnostics).map_or_else(|| key.to_owned(), |name| name.text);
    let default = raw.text("default", diagnostics);
    // Others are open, and say nothing of a schema.
    let schema = if form == Form::Newest { raw.text("schema", diagnostics) } else { None };
    let schema = schema.and_then(|text| {
        *schemas += 1;
        if *schemas > OPERATIONS_MAX {
            let message = format!("a graph has at most {OPERATIONS_MAX} schemas of parameters");
            diagnostics.error("graph/too-large", text.place, message, "this is one too many");
            return None;
        }
        match PayloadSchema::compile(&name, &text.text) {
            Ok(schema) => Some(ParameterSchema { schema: Arc::new(schema), place: text.place }),
            Err(error) => {
                let message = format!("the schema of the parameter `{key}` cannot be used");
                diagnostics.error("graph/schema-invalid", text.place, message, error.to_string());
                None
            }
        }
    });
    if let (Some(default), Some(schema)) = (&default, &schema)
        && let Some(violation) = schema.schema.check_value(&default.text)
    {
        let message = format!("the default of the parameter `{key}` does not fit its schema");
        diagnostics.error("graph/parameter-value", default.place.clone(), message, violation);
    }
    Parameter {
        key: key.to_owned(),
        name,
        required: raw.get("required").and_then(Node::text) == Some("true"),
        default: default.map(|text| text.text),
        schema,
    }
}

fn unknown_label<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    match nearest(name, known) {
        Some(meant) => format!("no operation has this name; `{meant}` does"),
        None => "no operation has this name".to_owned(),
    }
}

fn read_connection(
    node: &Node,
    operations: &[Operation],
    schemas: &[NamedSchema],
    diagnostics: &mut Diagnostics,
) -> Option<Connection> {
    let mut raw = Object::of(node, "a connection", Unknown::Ignored, diagnostics);
    let mut from = raw.object("from", diagnostics)?;
    let mut to = raw.object("to", diagnostics)?;
    let mut find = |end: &mut Object<'_>| {
        let name = end.text("name", diagnostics)?;
        let found = operations.iter().position(|it| it.name.text == name.text);
        if found.is_none() {
            let message = format!("unknown operation `{}` in connection", name.text);
            let label = unknown_label(&name.text, operations.iter().map(|it| it.name.text.as_str()));
            diagnostics.error("graph/unknown-operation", name.place, message, label);
        }
        found
    };
    let (source, target) = (find(&mut from), find(&mut to));
    let arm = from.choice("arm", &[("True", true), ("False", false)], diagnostics);
    let mut schema = None;
    if let Some(name) = from.text("schemaName", diagnostics) {
        schema = schemas.iter().position(|(other, _)| *other == name.text);
        if schema.is_none() {
            let message = format!("unknown schema `{}` on a connection", name.text);
            let label = match nearest(&name.text, schemas.iter().map(|(name, _)| name.as_str())) {
                Some(meant) => format!("no schema has this name; `{meant}` does"),
                None => "the graph's `schemas` have no such name".to_owned(),
            };
            diagnostics.error("graph/unknown-schema", name.place, message, label);
            return None;
        }
    }
    Some(Connection { from: source?, arm, to: target?, schema })
}

/// A schema with its name, or the name alone of one that could not be read.
type NamedSchema = (String, Option<Arc<PayloadSchema>>);

fn read_schemas(raw: &mut Object<'_>, diagnostics: &mut Diagnostics) -> Vec<NamedSchema> {
    let mut schemas: Vec<NamedSchema> = Vec::new();
    for node in raw.list("schemas", diagnostics) {
        let mut raw = Object::of(node, "a schema", Unknown::Ignored, diagnostics);
        let (name, format, text) =
            (raw.text("name", diagnostics), raw.text("format", diagnostics), raw.text("schema", diagnostics));
        let (Some(name), Some(format), Some(text)) = (name, format, text) else { continue };
        if schemas.len() == OPERATIONS_MAX {
            let message = format!("a graph has at most {OPERATIONS_MAX} schemas");
            diagnostics.error("graph/too-large", name.place, message, "this is one too many");
            break;
        }
        if schemas.iter().any(|(other, _)| *other == name.text) {
            let message = format!("two schemas are named `{}`", name.text);
            diagnostics.error("graph/duplicate-schema", name.place, message, "names are unique");
            continue;
        }
        let mut schema = None;
        if !is_json_schema(&format.text) {
            let message = format!("payloads cannot be held against a schema of format `{}`", format.text);
            diagnostics.error("graph/schema-format", format.place, message, "write `json`");
        } else {
            match PayloadSchema::compile(&name.text, &text.text) {
                Ok(compiled) => schema = Some(Arc::new(compiled)),
                Err(error) => {
                    let message = format!("the schema `{}` cannot be used", name.text);
                    diagnostics.error("graph/schema-invalid", text.place, message, error.to_string());
                }
            }
        }
        schemas.push((name.text, schema));
    }
    schemas
}

/// AIO does not say what `format` may be; its registry writes `JsonSchema/draft-07`.
fn is_json_schema(format: &str) -> bool {
    let format = format.to_ascii_lowercase();
    format == "json" || format == "jsonschema" || format.starts_with("jsonschema/")
}

#[cfg(test)]
mod tests;
