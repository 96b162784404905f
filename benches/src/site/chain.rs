//! The files of a dataflow whose operators stand in a row: its graph definition and
//! the resource that runs it. What benches and tests deploy; knows no folder.

use std::fmt::Write as _;

/// An operator of a chain: kind, module and configuration.
#[derive(Clone, Copy)]
pub struct Link<'a> {
    pub kind: &'a str,
    pub module: &'a str,
    pub configuration: &'a [(&'a str, &'a str)],
}

/// The graph definition `name`, whose modules all have the tag 1.
pub fn graph(name: &str, links: &[Link<'_>]) -> String {
    let mut text = format!(
        r#"metadata: {{ $schema: "https://www.schemastore.org/aio-wasm-graph-config-1.1.0.json", name: {name}, version: "1" }}
moduleRequirements: {{ apiVersion: "1.1.0", runtimeVersion: "1.1.0" }}
"#
    );
    let mut line = |line: String| writeln!(text, "{line}").expect("a string takes all");
    let set: Vec<_> = links.iter().enumerate().filter(|(_, link)| !link.configuration.is_empty()).collect();
    if !set.is_empty() {
        line("moduleConfigurations:".into());
    }
    for (index, link) in set {
        let parameter = |(key, value): &(&str, &str)| {
            let value = serde_json::Value::from(*value);
            format!("{key}-{index}: {{ name: {key}, default: {value} }}")
        };
        let parameters: Vec<_> = link.configuration.iter().map(parameter).collect();
        line(format!("  - {{ name: step-{index}, parameters: {{ {} }} }}", parameters.join(", ")));
    }
    line("operations:\n  - { operationType: source, name: in }".into());
    for (index, Link { kind, module, .. }) in links.iter().enumerate() {
        line(format!("  - {{ operationType: {kind}, name: step-{index}, module: \"{module}:1\" }}"));
    }
    line("  - { operationType: sink, name: out }\nconnections:".into());
    let steps = (0..links.len()).map(|index| format!("step-{index}"));
    let names: Vec<_> = ["in".to_owned()].into_iter().chain(steps).chain(["out".to_owned()]).collect();
    for (from, to) in names.iter().zip(&names[1..]) {
        line(format!("  - {{ from: {{ name: {from} }}, to: {{ name: {to} }} }}"));
    }
    text
}

/// The resource `name` that runs the graph `graph:1` from an endpoint and topic to an
/// endpoint and topic.
pub fn dataflow(name: &str, graph: &str, from: (&str, &str), to: (&str, &str)) -> String {
    let ((source, topic), (sink, destination)) = (from, to);
    format!(
        r#"apiVersion: connectivity.iotoperations.azure.com/v1
kind: DataflowGraph
metadata: {{ name: {name} }}
spec:
  nodes:
    - {{ nodeType: Source, name: in, sourceSettings: {{ endpointRef: {source}, dataSources: [ "{topic}" ] }} }}
    - {{ nodeType: Graph, name: g, graphSettings: {{ registryEndpointRef: r, artifact: "{graph}:1" }} }}
    - {{ nodeType: Destination, name: out, destinationSettings: {{ endpointRef: {sink}, dataDestination: "{destination}" }} }}
  nodeConnections:
    - {{ from: {{ name: in }}, to: {{ name: g }} }}
    - {{ from: {{ name: g }}, to: {{ name: out }} }}
"#
    )
}
