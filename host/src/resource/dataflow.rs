//! AIO's `DataflowGraph` resource: sources, graphs and destinations, connected.

use crate::{
    dataflow::{watermark::Timing, window::Keeping},
    headers::{HeaderAction, Headers},
    hlc,
    resource::{
        diagnostic::{Diagnostics, nearest},
        graph::Setting,
        quantity,
        schemas::parse_reference,
        yaml::{Node, Object, Text, Unknown, Value},
    },
    topic::{TopicFilter, TopicTemplate},
};

#[derive(Clone, Debug)]
pub struct Dataflow {
    pub name: Text,
    pub enabled: bool,
    /// Its operators keep their instances.
    pub pinned: bool,
    pub timing: Timing,
    pub keeping: Keeping,
    /// What its destinations cannot take now is kept on disk.
    pub is_buffered: bool,
    /// Components that operations of its graphs are fused with.
    pub providers: Vec<Provider>,
    /// The endpoint over which its operators ask other programs, if it names one.
    pub commands: Option<Text>,
    pub nodes: Vec<FlowNode>,
    pub connections: Vec<FlowConnection>,
}

/// An operation, and the component that gives its own what it imports.
#[derive(Clone, Debug)]
pub struct Provider {
    /// Its name, in which `.` may stand for `/`: a key of an annotation has one slash.
    pub operation: Text,
    pub artifact: Text,
}

#[derive(Clone, Debug)]
pub struct FlowNode {
    pub name: Text,
    pub kind: FlowNodeKind,
}

#[derive(Clone, Debug)]
pub enum FlowNodeKind {
    Source { endpoint: Text, topics: Vec<(TopicFilter, Text)> },
    Graph { artifact: Text, settings: Vec<Setting> },
    Destination { endpoint: Text, topic: TopicTemplate, at: Text, headers: Headers },
}

impl FlowNodeKind {
    fn name(&self) -> &'static str {
        match self {
            FlowNodeKind::Source { .. } => "Source",
            FlowNodeKind::Graph { .. } => "Graph",
            FlowNodeKind::Destination { .. } => "Destination",
        }
    }
}

#[derive(Clone, Debug)]
pub struct FlowConnection {
    pub from: usize,
    /// The graph's sink that this connection starts at, of `node.sink`.
    pub output: Option<Text>,
    pub to: usize,
    /// `aio-sr://[NAMESPACE/]NAME:VERSION` of what its messages look like.
    pub schema: Option<Text>,
}

const NAME_LEN: std::ops::RangeInclusive<usize> = 3..=63;
/// Most nodes, connections and headers of one dataflow, node or destination.
const NODES_MAX: usize = 100;
/// Longest key or value of a header: what MQTT has room for.
const HEADER_BYTES_MAX: usize = u16::MAX as usize;

/// Whether a resource's name is in AIO's form.
pub fn is_resource_name(name: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    NAME_LEN.contains(&name.len())
        && name.chars().all(inner)
        && !name.starts_with('-')
        && !name.ends_with('-')
}

impl Dataflow {
    /// Reads a DataflowGraph. `annotations` is its metadata's, if it has any.
    pub fn read(
        name: Text,
        annotations: Option<&Node>,
        mut spec: Object<'_>,
        diagnostics: &mut Diagnostics,
    ) -> Option<Self> {
        let before = diagnostics.errors();
        if !is_resource_name(&name.text) {
            let message = format!("`{}` is no name for a dataflow", name.text);
            let label = "3 to 63 of a-z, 0-9 and `-`, not at its ends";
            diagnostics.error("dataflow/name", name.place.clone(), message, label);
        }
        let modes = [("Enabled", true), ("Disabled", false)];
        let enabled = spec.choice("mode", &modes, diagnostics).unwrap_or(true);
        spec.get("profileRef");
        let is_buffered = spec.choice("requestDiskPersistence", &modes, diagnostics).unwrap_or(false);
        let mut nodes: Vec<FlowNode> = Vec::new();
        for node in limited(spec.list("nodes", diagnostics), "nodes", diagnostics) {
            let Some(node) = read_node(node, diagnostics) else { continue };
            if nodes.iter().any(|other| other.name.text == node.name.text) {
                let message = format!("two nodes are named `{}`", node.name.text);
                diagnostics.error("dataflow/duplicate-node", node.name.place, message, "names are unique");
            } else {
                nodes.push(node);
            }
        }
        let listed: Vec<_> =
            spec.list("nodes", diagnostics).iter().filter_map(|it| it.get("name")?.text()).collect();
        let mut connections = Vec::new();
        for node in limited(spec.list("nodeConnections", diagnostics), "connections", diagnostics) {
            connections.extend(read_connection(node, &nodes, &listed, diagnostics));
        }
        let place = spec.place();
        spec.finish(diagnostics);
        let read = read_annotations(annotations, diagnostics);
        let Annotations { pinned, timing, keeping, providers, commands } = read;
        let dataflow = Dataflow {
            name,
            enabled,
            pinned,
            timing,
            keeping,
            is_buffered,
            providers,
            commands,
            nodes,
            connections,
        };
        if diagnostics.errors() == before {
            dataflow.check(place, diagnostics);
        }
        (diagnostics.errors() == before).then_some(dataflow)
    }

    fn check(&self, place: crate::resource::diagnostic::Place, diagnostics: &mut Diagnostics) {
        for kind in ["Source", "Destination"] {
            if !self.nodes.iter().any(|node| node.kind.name() == kind) {
                let mut place = place.clone();
                place.len = 1;
                let message = format!("the dataflow `{}` has no {kind}", self.name.text);
                diagnostics.error("dataflow/nodes", place, message, "at least one is needed");
            }
        }
        for (index, node) in self.nodes.iter().enumerate() {
            let has_input = self.connections.iter().any(|it| it.to == index);
            let has_output = self.connections.iter().any(|it| it.from == index);
            let (needs_input, needs_output) = match node.kind {
                FlowNodeKind::Source { .. } => (false, true),
                FlowNodeKind::Graph { .. } => (true, true),
                FlowNodeKind::Destination { .. } => (true, false),
            };
            if (needs_input && !has_input) || (needs_output && !has_output) {
                let message = format!("the node `{}` is not connected", node.name.text);
                diagnostics.error(
                    "dataflow/unconnected",
                    node.name.place.clone(),
                    message,
                    "connect it, or remove it",
                );
            }
        }
        self.check_loops(diagnostics);
        if self.order().is_none() {
            let message = format!("the nodes of `{}` form a cycle", self.name.text);
            diagnostics.error(
                "dataflow/cycle",
                self.name.place.clone(),
                message,
                "messages would never leave it",
            );
        }
    }

    /// What a dataflow writes may not be what it reads: each message would come back
    /// for ever.
    fn check_loops(&self, diagnostics: &mut Diagnostics) {
        for node in &self.nodes {
            let FlowNodeKind::Destination { endpoint, topic, at, .. } = &node.kind else { continue };
            let Some(fixed) = topic.fixed() else { continue };
            let reads = |other: &FlowNode| match &other.kind {
                FlowNodeKind::Source { endpoint: source, topics } => {
                    source.text == endpoint.text && topics.iter().any(|(filter, _)| filter.matches(fixed))
                }
                _ => false,
            };
            if let Some(source) = self.nodes.iter().find(|other| reads(other)) {
                let message = format!("what is written to `{fixed}` is read again by `{}`", source.name.text);
                diagnostics.error(
                    "dataflow/loop",
                    at.place.clone(),
                    message,
                    "messages would go round for ever",
                );
            }
        }
    }

    /// Endpoints in the order in which commands would go over them: the one that is named
    /// for it, or sources' and then destinations'.
    pub fn command_endpoints(&self) -> Vec<&Text> {
        if let Some(named) = &self.commands {
            return vec![named];
        }
        let sources = self.nodes.iter().filter_map(|node| match &node.kind {
            FlowNodeKind::Source { endpoint, .. } => Some(endpoint),
            _ => None,
        });
        let destinations = self.nodes.iter().filter_map(|node| match &node.kind {
            FlowNodeKind::Destination { endpoint, .. } => Some(endpoint),
            _ => None,
        });
        sources.chain(destinations).collect()
    }

    /// Nodes, each after all that lead to it; `None` if there is a cycle.
    pub fn order(&self) -> Option<Vec<usize>> {
        let mut order: Vec<usize> = Vec::new();
        while order.len() < self.nodes.len() {
            let ready = (0..self.nodes.len()).find(|index| {
                let mut before = self.connections.iter().filter(|it| it.to == *index);
                !order.contains(index) && before.all(|it| order.contains(&it.from))
            })?;
            order.push(ready);
        }
        Some(order)
    }
}

fn limited<'n>(nodes: &'n [Node], what: &str, diagnostics: &mut Diagnostics) -> &'n [Node] {
    match nodes.get(NODES_MAX) {
        Some(node) => {
            let message = format!("a dataflow has at most {NODES_MAX} {what}");
            diagnostics.error("dataflow/too-large", node.place.clone(), message, "this is one too many");
            &nodes[..NODES_MAX]
        }
        None => nodes,
    }
}

fn is_node_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c))
}

/// What a dataflow asks for beyond AIO's words.
#[derive(Default)]
struct Annotations {
    pinned: bool,
    timing: Timing,
    keeping: Keeping,
    providers: Vec<Provider>,
    commands: Option<Text>,
}

fn read_annotations(annotations: Option<&Node>, diagnostics: &mut Diagnostics) -> Annotations {
    let mut read = Annotations::default();
    let Some(Value::Map(pairs)) = annotations.map(|node| &node.value) else { return read };
    let Annotations { pinned, timing, keeping, providers, commands } = &mut read;
    for (key, node) in pairs {
        let Some(name) = key.text().and_then(|key| key.strip_prefix("tidegate.dev/")) else { continue };
        match name {
            "pinned" => match node.text() {
                Some("true") => *pinned = true,
                Some("false") => *pinned = false,
                _ => {
                    let message = "`tidegate.dev/pinned` is neither `true` nor `false`";
                    diagnostics.error(
                        "dataflow/annotation",
                        node.place.clone(),
                        message,
                        "one of `true`, `false`",
                    );
                }
            },
            "lateness" | "idle" | "tick" => match quantity::time(node.text().unwrap_or_default()) {
                Ok(time) => match name {
                    "lateness" => timing.lateness = time,
                    "idle" => timing.idle = time,
                    _ => timing.tick = time,
                },
                Err(error) => {
                    let message = format!("`tidegate.dev/{name}` is no time");
                    let place = node.place.clone();
                    diagnostics.error("dataflow/annotation", place, message, error.to_string());
                }
            },
            provider if provider.starts_with("provider.") => {
                let Some(artifact) = Text::of(node, "a provider", diagnostics) else { continue };
                let operation =
                    Text { text: provider["provider.".len()..].to_owned(), place: key.place.clone() };
                providers.push(Provider { operation, artifact });
            }
            "commands" => *commands = Text::of(node, "`tidegate.dev/commands`", diagnostics),
            "windows" => match node.text() {
                Some("durable") => *keeping = Keeping::Durable,
                Some("volatile") => *keeping = Keeping::Volatile,
                _ => {
                    let message = "`tidegate.dev/windows` is neither `durable` nor `volatile`";
                    let place = node.place.clone();
                    diagnostics.error("dataflow/annotation", place, message, "one of `durable`, `volatile`");
                }
            },
            _ => {
                let known =
                    ["pinned", "lateness", "idle", "tick", "windows", "commands", "provider.OPERATION"];
                let label = nearest(name, known)
                    .map_or(String::new(), |it| format!("did you mean `tidegate.dev/{it}`?"));
                let message = format!("unknown annotation `tidegate.dev/{name}`");
                diagnostics.error("dataflow/annotation", key.place.clone(), message, label);
            }
        }
    }
    read
}

fn read_node(node: &Node, diagnostics: &mut Diagnostics) -> Option<FlowNode> {
    let mut raw = Object::of(node, "a node", Unknown::Warning, diagnostics);
    let name = raw.need_text("name", diagnostics)?;
    if !is_node_name(&name.text) {
        let message = format!("`{}` is no name for a node", name.text);
        diagnostics.error("dataflow/node-name", name.place.clone(), message, "a-z, A-Z, 0-9, `_` and `-`");
    }
    let kinds = [("Source", 0), ("Graph", 1), ("Destination", 2)];
    raw.need("nodeType", diagnostics)?;
    let kind = match raw.choice("nodeType", &kinds, diagnostics)? {
        0 => read_source(raw.need("sourceSettings", diagnostics)?, diagnostics)?,
        1 => read_graph(raw.need("graphSettings", diagnostics)?, diagnostics)?,
        _ => read_destination(raw.need("destinationSettings", diagnostics)?, diagnostics)?,
    };
    raw.finish(diagnostics);
    Some(FlowNode { name, kind })
}

fn read_source(node: &Node, diagnostics: &mut Diagnostics) -> Option<FlowNodeKind> {
    let mut raw = Object::of(node, "`sourceSettings`", Unknown::Warning, diagnostics);
    let endpoint = raw.need_text("endpointRef", diagnostics);
    let listed = raw.need("dataSources", diagnostics)?;
    if matches!(&listed.value, Value::List(topics) if topics.is_empty()) {
        let message = "`dataSources` names no topic";
        diagnostics.error("dataflow/topic", listed.place.clone(), message, "at least one is needed");
    }
    let mut topics = Vec::new();
    for node in raw.list("dataSources", diagnostics) {
        let Some(text) = Text::of(node, "dataSources", diagnostics) else { continue };
        match TopicFilter::parse_subscription(&text.text) {
            Ok(filter) => topics.push((filter, text)),
            Err(error) => {
                let message = format!("`{}` cannot be subscribed to", text.text);
                diagnostics.error("dataflow/topic", text.place, message, error.to_string());
            }
        }
    }
    if let Some(asset) = raw.get("assetRef") {
        diagnostics.warning("dataflow/not-yet", asset.place.clone(), "`assetRef` has no effect", "");
    }
    raw.finish(diagnostics);
    Some(FlowNodeKind::Source { endpoint: endpoint?, topics })
}

fn read_graph(node: &Node, diagnostics: &mut Diagnostics) -> Option<FlowNodeKind> {
    let mut raw = Object::of(node, "`graphSettings`", Unknown::Warning, diagnostics);
    raw.get("registryEndpointRef");
    let artifact = raw.need_text("artifact", diagnostics);
    let mut settings: Vec<Setting> = Vec::new();
    for node in raw.list("configuration", diagnostics) {
        let mut pair = Object::of(node, "a configuration", Unknown::Warning, diagnostics);
        let (key, value) = (pair.need_text("key", diagnostics), pair.need_text("value", diagnostics));
        pair.finish(diagnostics);
        if let (Some(key), Some(value)) = (key, value) {
            if !is_node_name(&key.text) {
                let message = format!("`{}` is no key of a configuration", key.text);
                diagnostics.error("dataflow/key", key.place, message, "a-z, A-Z, 0-9, `_` and `-`");
            } else if settings.iter().any(|other| other.key == key.text) {
                let message = format!("`{}` is configured twice", key.text);
                diagnostics.error("dataflow/duplicate-key", key.place, message, "one value a key");
            } else {
                settings.push(Setting { key: key.text, value: value.text, place: Some(value.place) });
            }
        }
    }
    raw.finish(diagnostics);
    Some(FlowNodeKind::Graph { artifact: artifact?, settings })
}

fn read_destination(node: &Node, diagnostics: &mut Diagnostics) -> Option<FlowNodeKind> {
    let mut raw = Object::of(node, "`destinationSettings`", Unknown::Warning, diagnostics);
    let endpoint = raw.need_text("endpointRef", diagnostics);
    let text = raw.need_text("dataDestination", diagnostics)?;
    let headers = read_headers(raw.list("headers", diagnostics), diagnostics);
    if let Some(node) = raw.get("outputSchemaSettings") {
        let message = "`outputSchemaSettings` has no effect yet";
        diagnostics.warning("dataflow/not-yet", node.place.clone(), message, "");
    }
    raw.finish(diagnostics);
    match TopicTemplate::parse(&text.text) {
        Ok(topic) => Some(FlowNodeKind::Destination { endpoint: endpoint?, topic, at: text, headers }),
        Err(error) => {
            let message = format!("`{}` cannot be written to", text.text);
            diagnostics.error("dataflow/topic", text.place, message, error.to_string());
            None
        }
    }
}

/// The actions that can be read; what is wrong with the others is said.
fn read_headers(nodes: &[Node], diagnostics: &mut Diagnostics) -> Headers {
    let actions = limited(nodes, "headers", diagnostics);
    Headers::new(actions.iter().filter_map(|node| read_header(node, diagnostics)).collect())
}

fn read_header(node: &Node, diagnostics: &mut Diagnostics) -> Option<HeaderAction> {
    let mut raw = Object::of(node, "a header", Unknown::Warning, diagnostics);
    raw.need("actionType", diagnostics)?;
    let kinds = [("AddIfNotPresent", 0), ("AddOrReplace", 1), ("Remove", 2)];
    let kind = raw.choice("actionType", &kinds, diagnostics);
    let key = raw.need_text("key", diagnostics);
    let value = match kind {
        Some(0 | 1) => raw.need_text("value", diagnostics),
        _ => raw.text("value", diagnostics),
    };
    raw.finish(diagnostics);
    let (kind, key) = (kind?, key?);
    let mut refuse = |text: &Text, message: String, label: &str| {
        diagnostics.error("dataflow/header", text.place.clone(), message, label);
    };
    if key.text.is_empty() || key.text == hlc::PROPERTY {
        refuse(&key, format!("`{}` is no header of a tenant's", key.text), "name another");
        return None;
    }
    for text in [Some(&key), value.as_ref()].into_iter().flatten() {
        if text.text.len() > HEADER_BYTES_MAX || text.text.contains('\0') {
            let label = "at most 65535 bytes of text, without NUL";
            refuse(text, "a broker does not take this header".to_owned(), label);
            return None;
        }
    }
    let key = key.text;
    Some(match kind {
        0 => HeaderAction::AddIfNotPresent { key, value: value?.text },
        1 => HeaderAction::AddOrReplace { key, value: value?.text },
        _ => HeaderAction::Remove { key },
    })
}

/// `listed` are the names of all nodes, those too that could not be read.
fn read_connection(
    node: &Node,
    nodes: &[FlowNode],
    listed: &[&str],
    diagnostics: &mut Diagnostics,
) -> Option<FlowConnection> {
    let mut raw = Object::of(node, "a node connection", Unknown::Warning, diagnostics);
    let mut from =
        raw.need("from", diagnostics).map(|it| Object::of(it, "`from`", Unknown::Warning, diagnostics))?;
    let mut to =
        raw.need("to", diagnostics).map(|it| Object::of(it, "`to`", Unknown::Warning, diagnostics))?;
    let from_name = from.need_text("name", diagnostics)?;
    let to_name = to.need_text("name", diagnostics)?;
    let schema = from.get("schema").filter(|node| !node.is_null());
    let schema = schema.and_then(|node| read_schema(node, diagnostics));
    from.finish(diagnostics);
    to.finish(diagnostics);
    raw.finish(diagnostics);
    let mut find = |name: &str, text: &Text| {
        let found = nodes.iter().position(|node| node.name.text == name);
        if found.is_none() && !listed.contains(&name) {
            let message = format!("unknown node `{name}` in connection");
            let label = nearest(name, listed.iter().copied());
            let label = label.map_or("no node has this name".to_owned(), |it| {
                format!("no node has this name; `{it}` does")
            });
            diagnostics.error("dataflow/unknown-node", text.place.clone(), message, label);
        }
        found
    };
    let (node_name, output) = match from_name.text.split_once('.') {
        Some((node, output)) => {
            (node, Some(Text { text: output.to_owned(), place: from_name.place.clone() }))
        }
        None => (from_name.text.as_str(), None),
    };
    let (source, target) = (find(node_name, &from_name), find(&to_name.text, &to_name));
    let (source, target) = (source?, target?);
    let (start, end) = (&nodes[source].kind, &nodes[target].kind);
    let allowed = matches!(
        (start, end),
        (
            FlowNodeKind::Source { .. } | FlowNodeKind::Graph { .. },
            FlowNodeKind::Graph { .. } | FlowNodeKind::Destination { .. }
        )
    );
    if !allowed || source == target {
        let message = format!("a {} cannot lead to a {}", start.name(), end.name());
        diagnostics.error("dataflow/connection", from_name.place, message, "Source to Graph to Destination");
        return None;
    }
    if let (Some(schema), FlowNodeKind::Destination { .. }) = (&schema, end) {
        let message = "the schema of a connection to a destination has no effect";
        let label = "it is told to the operators of a graph";
        diagnostics.warning("dataflow/schema-unused", schema.place.clone(), message, label);
    }
    Some(FlowConnection { from: source, output, to: target, schema })
}

/// The reference of a connection's schema. What its messages are serialized as changes
/// nothing here: they are passed on as they come.
fn read_schema(node: &Node, diagnostics: &mut Diagnostics) -> Option<Text> {
    let mut raw = Object::of(node, "a connection's schema", Unknown::Warning, diagnostics);
    let formats = [("Json", ()), ("Avro", ()), ("Delta", ()), ("Parquet", ())];
    raw.choice("serializationFormat", &formats, diagnostics);
    let reference = raw.text("schemaRef", diagnostics);
    raw.finish(diagnostics);
    let reference = reference?;
    if parse_reference(&reference.text).is_none() {
        let message = format!("`{}` is no reference of a schema", reference.text);
        let label = "write `aio-sr://[NAMESPACE/]NAME:VERSION`";
        diagnostics.error("dataflow/schema-reference", reference.place, message, label);
        return None;
    }
    Some(reference)
}

#[cfg(test)]
mod tests;
