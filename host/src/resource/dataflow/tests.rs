use std::sync::Arc;

use super::*;
use crate::resource::{Severity, diagnostic::SourceFile, yaml};

const FLOW: &str = r#"spec:
  mode: Enabled
  nodes:
    - { nodeType: Source, name: in, sourceSettings: { endpointRef: local, dataSources: [ a/in, "b/+" ] } }
    - { nodeType: Graph, name: g, graphSettings: { artifact: "g:1", configuration: [ { key: k, value: 5 } ] } }
    - { nodeType: Destination, name: out, destinationSettings: { endpointRef: local, dataDestination: "x/${outputTopic.2}", headers: [ { actionType: AddOrReplace, key: h, value: v } ] } }
  nodeConnections:
    - { from: { name: in }, to: { name: g } }
    - { from: { name: g.alert.high }, to: { name: out } }
annotations: { tidegate.dev/pinned: "true", other.org/x: y }
"#;

fn read(text: &str) -> (Option<Dataflow>, Vec<(Severity, &'static str)>) {
    let file = Arc::new(SourceFile { path: "flow.yaml".into(), text: text.into() });
    let mut diagnostics = Diagnostics::default();
    let nodes = yaml::parse(&file, &mut diagnostics);
    let name = Text { text: "flow".into(), place: nodes[0].place.clone() };
    let spec =
        Object::of(nodes[0].get("spec").expect("a spec"), "`spec`", Unknown::Warning, &mut diagnostics);
    let dataflow = Dataflow::read(name, nodes[0].get("annotations"), spec, &mut diagnostics);
    (dataflow, diagnostics.iter().map(|it| (it.severity, it.rule)).collect())
}

#[test]
fn a_dataflow_is_taken_apart() {
    let (dataflow, found) = read(FLOW);
    assert_eq!(found, []);
    let dataflow = dataflow.expect("it is right");
    assert!(dataflow.enabled && dataflow.pinned);
    assert_eq!(dataflow.order(), Some(vec![0, 1, 2]));
    let FlowNodeKind::Source { topics, .. } = &dataflow.nodes[0].kind else {
        panic!("{:?}", dataflow.nodes[0])
    };
    assert_eq!(topics.iter().map(|(filter, _)| filter.as_str()).collect::<Vec<_>>(), ["a/in", "b/+"]);
    let FlowNodeKind::Graph { artifact, settings } = &dataflow.nodes[1].kind else {
        panic!("{:?}", dataflow.nodes[1])
    };
    let settings: Vec<_> = settings.iter().map(|it| (it.key.as_str(), it.value.as_str())).collect();
    assert_eq!((artifact.text.as_str(), settings.as_slice()), ("g:1", &[("k", "5")][..]));
    let outputs: Vec<_> =
        dataflow.connections.iter().map(|it| it.output.as_ref().map(|it| it.text.as_str())).collect();
    assert_eq!(outputs, [None, Some("alert.high")]);
}

#[test]
fn one_change_makes_one_finding() {
    use Severity::{Error, Warning};
    for (right, wrong, expected) in [
        ("mode: Enabled", "mode: Disabled", None),
        ("mode: Enabled", "mode: On", Some((Error, "yaml/choice"))),
        ("mode: Enabled", "requestDiskPersistence: Enabled", None),
        ("mode: Enabled", "requestDiskPersistence: yes", Some((Error, "yaml/choice"))),
        ("mode: Enabled", "profile: x", Some((Warning, "yaml/unknown-key"))),
        ("\"true\"", "true", None),
        ("\"true\"", "\"yes\"", Some((Error, "dataflow/annotation"))),
        ("[ a/in, \"b/+\" ]", "[]", Some((Error, "dataflow/topic"))),
        ("[ a/in, \"b/+\" ]", "[ \"a/#/b\" ]", Some((Error, "dataflow/topic"))),
        ("[ a/in, \"b/+\" ]", "[ \"$shared/g/t\" ]", None),
        ("[ a/in, \"b/+\" ]", "[ \"$shared/+/t\" ]", Some((Error, "dataflow/topic"))),
        ("[ a/in, \"b/+\" ]", "a/in", Some((Error, "yaml/type"))),
        ("${outputTopic.2}", "${topic}", Some((Error, "dataflow/topic"))),
        ("x/${outputTopic.2}", "b/y", Some((Error, "dataflow/loop"))),
        ("x/${outputTopic.2}", "b/y/z", None),
        ("value: 5", "value: [5]", Some((Error, "yaml/type"))),
        (", value: 5", "", Some((Error, "yaml/missing-key"))),
        ("AddOrReplace", "AddIfNotPresent", None),
        ("AddOrReplace", "Remove", None),
        ("AddOrReplace", "Replace", Some((Error, "yaml/choice"))),
        ("actionType: AddOrReplace, ", "", Some((Error, "yaml/missing-key"))),
        (", value: v", "", Some((Error, "yaml/missing-key"))),
        ("key: h", "key: __ts", Some((Error, "dataflow/header"))),
        ("key: h", "key: \"\"", Some((Error, "dataflow/header"))),
        ("key: h", "key: \"\\0\"", Some((Error, "dataflow/header"))),
        ("[ { actionType: AddOrReplace, key: h, value: v } ]", "x", Some((Error, "yaml/type"))),
        (
            "from: { name: in }",
            "from: { name: in, schema: { schemaRef: x } }",
            Some((Error, "dataflow/schema-reference")),
        ),
        (
            "from: { name: in }",
            "from: { name: in, schema: { serializationFormat: Json, schemaRef: \"aio-sr://plant/reading:1\" } }",
            None,
        ),
        (
            "from: { name: in }",
            "from: { name: in, schema: { serializationFormat: Xml } }",
            Some((Error, "yaml/choice")),
        ),
        (
            "from: { name: in }",
            "from: { name: in, schema: { schemaref: x } }",
            Some((Warning, "yaml/unknown-key")),
        ),
        ("to: { name: g }", "to: { name: in }", Some((Error, "dataflow/connection"))),
    ] {
        assert!(FLOW.contains(right), "{right}");
        let (dataflow, found) = read(&FLOW.replacen(right, wrong, 1));
        assert_eq!(found, Vec::from_iter(expected), "{wrong}");
        assert_eq!(dataflow.is_none(), expected.is_some_and(|it| it.0 == Error), "{wrong}");
    }
}

#[test]
fn resource_names_are_azures() {
    for (name, expected) in [
        ("abc", true),
        ("a-b-1", true),
        ("ab", false),
        ("-ab", false),
        ("ab-", false),
        ("Abc", false),
        ("a/b", false),
    ] {
        assert_eq!(is_resource_name(name), expected, "{name}");
    }
    assert!(is_resource_name(&"a".repeat(63)) && !is_resource_name(&"a".repeat(64)));
}

#[test]
fn a_dataflow_has_a_largest_size() {
    let more: String = (0..NODES_MAX)
        .map(|index| {
            format!("    - {{ nodeType: Graph, name: g{index}, graphSettings: {{ artifact: g }} }}\n")
        })
        .collect();
    let (dataflow, found) = read(&FLOW.replace("  nodes:\n", &format!("  nodes:\n{more}")));
    assert!(dataflow.is_none());
    assert_eq!(found[0], (Severity::Error, "dataflow/too-large"));
}
