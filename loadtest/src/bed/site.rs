//! The site folder of a bed: one tenant, one dataflow from end to end.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;

use super::Connector;

/// What the dataflow is like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shape {
    /// It passes everything on.
    #[default]
    Passing,
    /// It holds everything in windows of a second, on disk.
    Delaying,
    /// It passes everything on, and shares its source with that of other hosts.
    Sharing,
}

/// Where the host finds what is at its ends.
pub struct Ends {
    /// Of the server, or of the webhook.
    pub address: String,
    /// The port of its own server.
    pub listen: Option<u16>,
    /// In and out.
    pub topics: (String, String),
}

pub struct Site {
    dir: PathBuf,
    guest: PathBuf,
}

impl Site {
    pub fn write(
        dir: &Path,
        guests: &Path,
        connector: Connector,
        shape: Shape,
        ends: &Ends,
        number: usize,
    ) -> anyhow::Result<Self> {
        let (kind, component) = match shape {
            Shape::Passing | Shape::Sharing => ("map", "pass_through"),
            Shape::Delaying => ("delay", "align"),
        };
        let site = Site { dir: dir.to_owned(), guest: guests.join(format!("{component}.wasm")) };
        let Ends { address, listen, topics: (input, output) } = ends;
        let (source, sink) = match connector {
            Connector::Mqtt => {
                let prefix = format!("clientIdPrefix: \"host-{number}:\"");
                let spec =
                    format!("{{ endpointType: Mqtt, mqttSettings: {{ host: \"{address}\", {prefix} }} }}");
                (spec, None)
            }
            Connector::Kafka | Connector::Transactions => {
                let more = if connector == Connector::Transactions { ", transactions: true" } else { "" };
                let settings = format!("{{ host: \"{address}\", consumerGroupId: tidegate{more} }}");
                (format!("{{ endpointType: Kafka, kafkaSettings: {settings} }}"), None)
            }
            Connector::Http => {
                let port = listen.context("it listens")?;
                let http =
                    |settings: String| format!("{{ endpointType: Http, httpSettings: {{ {settings} }} }}");
                let source = http(format!("listen: \"127.0.0.1:{port}\""));
                (source, Some(http(format!("url: \"http://{address}/hook\""))))
            }
        };
        let input = match (connector, shape) {
            (Connector::Mqtt, Shape::Sharing) => format!("$shared/both/{input}"),
            _ => input.clone(),
        };
        let endpoint = |name: &str, spec: &str| {
            format!(
                "---\napiVersion: tidegate.dev/v1\nkind: DataflowEndpoint\nmetadata: {{ name: {name} }}\nspec: {spec}\n"
            )
        };
        let grant = |name: &str| format!("    - {{ name: {name}, read: [\"#\"], write: [\"#\"] }}\n");
        // What comes late is not lost: on a busy machine a partition may be silent for longer than `idle`.
        let mut platform = format!(
            "apiVersion: tidegate.dev/v1\nkind: Host\nmetadata: {{ name: host-{number} }}\nspec: {{ shards: 1 }}\n---\n\
             apiVersion: tidegate.dev/v1\nkind: Tenant\nmetadata: {{ name: a }}\nspec: {{ policy: team }}\n---\n\
             apiVersion: tidegate.dev/v1\nkind: Policy\nmetadata: {{ name: team }}\nspec:\n  \
             world: tidegate:policy/standard@0.1.0\n  late: nextWindow\n  endpoints:\n{}",
            grant("source")
        );
        if sink.is_some() {
            platform += &grant("sink");
        }
        platform += &endpoint("source", &source);
        platform += &sink.as_ref().map_or(String::new(), |sink| endpoint("sink", sink));
        site.file("platform/all.yaml", platform.as_bytes())?;
        site.revise(0)?;
        let configuration = match shape {
            Shape::Delaying => {
                "moduleConfigurations:\n  - { name: only, parameters: { s: { name: seconds, default: \"1\" } } }\n"
            }
            Shape::Passing | Shape::Sharing => "",
        };
        let graph = format!(
            "metadata: {{ $schema: \"https://www.schemastore.org/aio-wasm-graph-config-1.1.0.json\", name: graph, version: \"1\" }}\n\
             moduleRequirements: {{ apiVersion: \"1.1.0\", runtimeVersion: \"1.1.0\" }}\n{configuration}operations:\n  \
             - {{ operationType: source, name: in }}\n  \
             - {{ operationType: {kind}, name: only, module: \"only:1\" }}\n  \
             - {{ operationType: sink, name: out }}\nconnections:\n  \
             - {{ from: {{ name: in }}, to: {{ name: only }} }}\n  - {{ from: {{ name: only }}, to: {{ name: out }} }}\n"
        );
        site.file("tenants/a/artifacts/graph/1.yaml", graph.as_bytes())?;
        let to = if sink.is_some() { "sink" } else { "source" };
        let dataflow = format!(
            "apiVersion: connectivity.iotoperations.azure.com/v1\nkind: DataflowGraph\nmetadata: {{ name: flow }}\n\
             spec:\n  nodes:\n    \
             - {{ nodeType: Source, name: in, sourceSettings: {{ endpointRef: source, dataSources: [ \"{input}\" ] }} }}\n    \
             - {{ nodeType: Graph, name: g, graphSettings: {{ registryEndpointRef: r, artifact: \"graph:1\" }} }}\n    \
             - {{ nodeType: Destination, name: out, destinationSettings: {{ endpointRef: {to}, dataDestination: \"{output}\" }} }}\n  \
             nodeConnections:\n    - {{ from: {{ name: in }}, to: {{ name: g }} }}\n    - {{ from: {{ name: g }}, to: {{ name: out }} }}\n"
        );
        site.file("tenants/a/dataflows/flow.yaml", dataflow.as_bytes())?;
        Ok(site)
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Puts in the place of the component one that does the same and is another.
    pub fn revise(&self, revision: u32) -> anyhow::Result<()> {
        let mut bytes = fs::read(&self.guest)
            .with_context(|| format!("{}: `cargo xtask guests` makes it", self.guest.display()))?;
        // A custom section: id, size, length of the name, name, content.
        bytes.extend_from_slice(&[0, 6, 1, b'r']);
        bytes.extend_from_slice(&revision.to_le_bytes());
        self.file("tenants/a/artifacts/only/1.wasm", &bytes)
    }

    /// Another file in the place of what is there, which the host may have mapped.
    fn file(&self, path: &str, content: &[u8]) -> anyhow::Result<()> {
        let path = self.dir.join(path);
        let folder = path.parent().context("below the site")?;
        fs::create_dir_all(folder)?;
        let new = folder.join(".new");
        fs::write(&new, content)?;
        fs::rename(&new, &path).with_context(|| path.display().to_string())
    }
}

/// The group of the source, as Kafka knows it.
pub const GROUP: &str = "tidegate/a/flow/in";
