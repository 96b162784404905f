//! Site folders that tests write: tenants with dataflows of operators in a row.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use tidegate_benches::rig::guest_path;

/// An operator: operation type, guest, configuration.
pub type Link<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)]);

/// A site folder, removed when dropped.
pub struct SiteFolder {
    dir: tempfile::TempDir,
}

impl SiteFolder {
    /// With a Host of this `spec` and one endpoint `local`, a broker at `address`.
    pub fn new(host: &str, address: &str) -> Self {
        let site = SiteFolder { dir: tempfile::tempdir().expect("a folder") };
        fs::create_dir_all(site.path().join("tenants")).expect("a folder");
        site.write(
            "platform/host.yaml",
            &format!("apiVersion: tidegate.dev/v1\nkind: Host\nmetadata: {{ name: test }}\nspec: {host}\n"),
        );
        site.write(
            "platform/local.yaml",
            &format!(
                "apiVersion: connectivity.iotoperations.azure.com/v1\nkind: DataflowEndpoint\n\
                 metadata: {{ name: local }}\n\
                 spec: {{ endpointType: Mqtt, mqttSettings: {{ host: \"{address}\" }} }}\n"
            ),
        );
        site
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn write(&self, path: &str, text: &str) {
        fs::write(self.place(path), text).expect("a file");
    }

    pub fn remove(&self, path: &str) {
        let path = self.path().join(path);
        if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.expect("it was there");
    }

    fn place(&self, path: &str) -> PathBuf {
        let path = self.path().join(path);
        fs::create_dir_all(path.parent().expect("below the site")).expect("a folder");
        path
    }

    /// The standard policy with other values: `keys` are lines of its spec.
    pub fn policy(&self, name: &str, keys: &[&str]) {
        let mut text = format!(
            "apiVersion: tidegate.dev/v1\nkind: Policy\nmetadata: {{ name: {name} }}\nspec:\n  \
             world: tidegate:policy/standard@0.1.0\n"
        );
        for key in keys {
            writeln!(text, "  {key}").expect("a string takes all");
        }
        if !keys.iter().any(|key| key.starts_with("endpoints")) {
            text +=
                "  endpoints: [ { name: local, read: [ \"{tenant}/#\" ], write: [ \"{tenant}/out/#\" ] } ]\n";
        }
        self.write(&format!("platform/policy-{name}.yaml"), &text);
    }

    pub fn tenant(&self, name: &str, policy: &str) {
        let text = format!(
            "apiVersion: tidegate.dev/v1\nkind: Tenant\nmetadata: {{ name: {name} }}\nspec: {{ policy: {policy} }}\n"
        );
        self.write(&format!("platform/tenant-{name}.yaml"), &text);
    }

    /// A dataflow from `TENANT/in/DATAFLOW` through operators in a row to
    /// `TENANT/out/DATAFLOW`, with its graph and components.
    pub fn dataflow(&self, tenant: &str, dataflow: &str, links: &[Link<'_>]) {
        let (from, to) = (format!("{tenant}/in/{dataflow}"), format!("{tenant}/out/{dataflow}"));
        self.dataflow_between(tenant, dataflow, ("local", &from), links, ("local", &to));
    }

    /// The same from and to any endpoint and topic.
    pub fn dataflow_between(
        &self,
        tenant: &str,
        dataflow: &str,
        from: (&str, &str),
        links: &[Link<'_>],
        to: (&str, &str),
    ) {
        for (_, guest, _) in links {
            let bytes = fs::read(guest_path(guest)).expect("the guests are built");
            self.component(tenant, guest, &bytes);
        }
        self.write(&format!("tenants/{tenant}/artifacts/{dataflow}/1.yaml"), &graph(dataflow, links));
        let ((source, topic), (sink, destination)) = (from, to);
        let text = format!(
            r#"apiVersion: connectivity.iotoperations.azure.com/v1
kind: DataflowGraph
metadata: {{ name: {dataflow} }}
spec:
  nodes:
    - {{ nodeType: Source, name: in, sourceSettings: {{ endpointRef: {source}, dataSources: [ "{topic}" ] }} }}
    - {{ nodeType: Graph, name: g, graphSettings: {{ registryEndpointRef: r, artifact: "{dataflow}:1" }} }}
    - {{ nodeType: Destination, name: out, destinationSettings: {{ endpointRef: {sink}, dataDestination: "{destination}" }} }}
  nodeConnections:
    - {{ from: {{ name: in }}, to: {{ name: g }} }}
    - {{ from: {{ name: g }}, to: {{ name: out }} }}
"#
        );
        self.write(&format!("tenants/{tenant}/dataflows/{dataflow}.yaml"), &text);
    }

    /// Puts a component where the tenant's graphs find it.
    pub fn component(&self, tenant: &str, name: &str, bytes: &[u8]) {
        fs::write(self.place(&format!("tenants/{tenant}/artifacts/{name}/1.wasm")), bytes).expect("a file");
    }
}

fn graph(name: &str, links: &[Link<'_>]) -> String {
    let mut text = format!(
        r#"metadata: {{ $schema: "https://www.schemastore.org/aio-wasm-graph-config-1.1.0.json", name: {name}, version: "1" }}
moduleRequirements: {{ apiVersion: "1.1.0", runtimeVersion: "1.1.0" }}
"#
    );
    let mut line = |line: String| writeln!(text, "{line}").expect("a string takes all");
    let set: Vec<_> = links.iter().enumerate().filter(|(_, (.., keys))| !keys.is_empty()).collect();
    if !set.is_empty() {
        line("moduleConfigurations:".into());
    }
    for (index, (_, _, keys)) in set {
        let parameter = |(key, value): &(&str, &str)| {
            let value = serde_json::Value::from(*value);
            format!("{key}-{index}: {{ name: {key}, default: {value} }}")
        };
        let parameters: Vec<_> = keys.iter().map(parameter).collect();
        line(format!("  - {{ name: step-{index}, parameters: {{ {} }} }}", parameters.join(", ")));
    }
    line("operations:\n  - { operationType: source, name: in }".into());
    for (index, (kind, guest, _)) in links.iter().enumerate() {
        line(format!("  - {{ operationType: {kind}, name: step-{index}, module: \"{guest}:1\" }}"));
    }
    line("  - { operationType: sink, name: out }\nconnections:".into());
    let steps = (0..links.len()).map(|index| format!("step-{index}"));
    let names: Vec<_> = ["in".to_owned()].into_iter().chain(steps).chain(["out".to_owned()]).collect();
    for (from, to) in names.iter().zip(&names[1..]) {
        line(format!("  - {{ from: {{ name: {from} }}, to: {{ name: {to} }} }}"));
    }
    text
}
