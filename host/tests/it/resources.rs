//! What users write: AIO's own graphs, broken files with the place of each error,
//! and the schema's verdict on a thousand mutants.

use std::{fs, path::Path, sync::Arc};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tidegate::resource::{
    Diagnostics, Graph, Site,
    diagnostic::{Severity, SourceFile},
    graph::{NOT_YET_SUPPORTED, check_schema},
    yaml,
};

use crate::{
    process::{output, tidegate},
    site,
};

fn aio_graphs() -> Vec<(String, String)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/aio");
    let mut graphs: Vec<_> = fs::read_dir(dir)
        .expect("fixtures")
        .flatten()
        .filter(|entry| entry.path().extension().is_some_and(|it| it == "yaml"))
        .map(|entry| {
            let name = entry.file_name().into_string().expect("UTF-8");
            (name, fs::read_to_string(entry.path()).expect("UTF-8"))
        })
        .collect();
    graphs.sort();
    graphs
}

fn parse(name: &str, text: &str, diagnostics: &mut Diagnostics) -> Vec<yaml::Node> {
    yaml::parse(&Arc::new(SourceFile { path: name.into(), text: text.into() }), diagnostics)
}

#[test]
fn every_graph_of_aio_passes_and_a_feature_that_this_build_lacks_is_a_warning() {
    let graphs = aio_graphs();
    assert_eq!(graphs.len(), 14);
    let mut warned = 0;
    for (name, text) in &graphs {
        let mut diagnostics = Diagnostics::default();
        let node = parse(name, text, &mut diagnostics).pop().expect("a document");
        assert!(Graph::read(&node, &mut diagnostics).is_some(), "{}", diagnostics.to_text(false));
        let found: Vec<_> = diagnostics.iter().map(|it| (it.severity, it.rule)).collect();
        let expected: &[_] = match text.contains("wasi-nn") && !cfg!(feature = "wasi-nn") {
            true => &[(Severity::Warning, NOT_YET_SUPPORTED)],
            false => &[],
        };
        assert_eq!(found, expected, "{name}");
        warned += found.len();
    }
    assert_eq!(warned, usize::from(!cfg!(feature = "wasi-nn")));
}

#[test]
#[cfg(not(feature = "wasi-nn"))]
fn the_command_says_the_same_of_aios_graphs_and_none_that_needs_the_feature_is_run() {
    let graphs = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/aio");
    let mut check = tidegate();
    check.arg("check").args(aio_graphs().iter().map(|(name, _)| graphs.join(name)));
    let checked = output(&mut check);
    assert_eq!(checked.code, Some(0), "{}", checked.stderr);
    assert_eq!(checked.stdout, "0 errors, 1 warnings\n");
    let place = "explore-graph.dataflow.yaml:12:13";
    assert!(checked.stderr.contains("warning: the feature `wasi-nn` is not there"), "{}", checked.stderr);
    assert!(checked.stderr.contains(place), "{}", checked.stderr);
    let mut run = tidegate();
    run.arg("run").arg(graphs.join("explore-graph.dataflow.yaml")).arg("--artifacts");
    run.arg(graphs.join("../../../../tenants/target/aio")).stdin(std::process::Stdio::null());
    let ran = output(&mut run);
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    assert!(ran.stderr.contains("error: the dataflow `run` needs the feature `wasi-nn`"), "{}", ran.stderr);
    assert!(ran.stderr.matches(place).count() == 2, "{}", ran.stderr);
}

/// The graph is AIO's, and its components here do without a model.
#[test]
#[cfg(feature = "wasi-nn")]
fn the_command_says_the_same_of_aios_graphs_and_one_that_needs_the_feature_is_run() {
    let graphs = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/aio");
    let mut check = tidegate();
    check.arg("check").args(aio_graphs().iter().map(|(name, _)| graphs.join(name)));
    let checked = output(&mut check);
    assert_eq!(
        (checked.code, checked.stdout.as_str()),
        (Some(0), "0 errors, 0 warnings\n"),
        "{}",
        checked.stderr
    );
    let mut run = tidegate();
    run.arg("run").arg(graphs.join("explore-graph.dataflow.yaml")).arg("--artifacts");
    run.arg(graphs.join("../../../../tenants/target/aio")).stdin(std::process::Stdio::null());
    output(&mut run).expect_success();
}

/// A site that has a graph with a feature that no build has, and components that do
/// without.
#[test]
fn a_site_with_the_feature_passes_its_check_and_neither_starts_nor_is_applied() {
    let memory = ("memory", "{ endpointType: Memory }");
    let site = site::Site::new("{ shards: 1 }", &[memory]);
    let operators = &[("map", "pass_through")];
    site.flow(&site::Flow {
        tenant: "a",
        name: "flow",
        from: ("memory", "in"),
        to: ("memory", "out"),
        operators,
    });
    let host = site.up();
    let path = "tenants/a/artifacts/flow/1.yaml";
    let graph = fs::read_to_string(site.dir().join(path)).expect("it is there");
    let feature = "runtimeVersion: \"1.1.0\", features: [ { name: wasi-tpu } ]";
    site.write(path, &graph.replace("runtimeVersion: \"1.1.0\"", feature));
    let checked = output(tidegate().arg("check").arg(site.dir()));
    assert_eq!(
        (checked.code, checked.stdout.as_str()),
        (Some(0), "0 errors, 1 warnings\n"),
        "{}",
        checked.stderr
    );
    let words =
        "error: the dataflow `flow` needs the feature `wasi-tpu`\n --> tenants/a/artifacts/flow/1.yaml:2:89";
    let applied = site.apply();
    assert_eq!(applied.code, 1, "{}", applied.stderr);
    assert!(applied.stderr.contains(words), "{}", applied.stderr);
    assert_eq!(site.status()["tenants"][0]["dataflows"][0]["state"], "Running", "what ran, runs on");
    host.stop();
    let refused = output(tidegate().arg("up").arg(site.dir()).arg("--data").arg(site.data()));
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains(words), "{}", refused.stderr);
}

/// Changes one thing in a JSON document, anywhere.
fn mutate(value: &mut serde_json::Value, rng: &mut StdRng) {
    use serde_json::{Value, json};
    let replacements =
        [json!(null), json!(7), json!("x"), json!(true), json!([]), json!({}), json!("filter")];
    match value {
        Value::Object(map) if !map.is_empty() && rng.random_bool(0.8) => {
            let index = rng.random_range(0..map.len());
            let key = map.keys().nth(index).expect("in range").clone();
            match rng.random_range(0..5) {
                0 => _ = map.remove(&key),
                1 => _ = map.insert("unknown".into(), json!(1)),
                _ => mutate(map.get_mut(&key).expect("its own key"), rng),
            }
        }
        Value::Array(items) if !items.is_empty() && rng.random_bool(0.8) => {
            let index = rng.random_range(0..items.len());
            mutate(&mut items[index], rng);
        }
        value => *value = replacements[rng.random_range(0..replacements.len())].clone(),
    }
}

#[test]
fn mutants_of_aios_graphs_get_the_schemas_verdict() {
    let schema = |version| {
        let path = format!("{}/schema/aio-wasm-graph-config-{version}.json", env!("CARGO_MANIFEST_DIR"));
        let text = fs::read_to_string(path).expect("the schema");
        jsonschema::draft7::new(&serde_json::from_str(&text).expect("JSON")).expect("a schema")
    };
    let (old, new) = (schema("1.0.0"), schema("1.1.0"));
    let mut rng = StdRng::seed_from_u64(11);
    let graphs = aio_graphs();
    let (mut valid, mut invalid) = (0, 0);
    for round in 0..1_000 {
        let (name, text) = &graphs[round % graphs.len()];
        let mut json = parse(name, text, &mut Diagnostics::default())[0].to_json();
        (0..rng.random_range(1..3)).for_each(|_| mutate(&mut json, &mut rng));
        let named = json.pointer("/metadata/$schema").and_then(|it| it.as_str()).unwrap_or_default();
        let expected = if named.contains("1.0.0") { old.is_valid(&json) } else { new.is_valid(&json) };
        let mut diagnostics = Diagnostics::default();
        let documents = parse(name, &json.to_string(), &mut diagnostics);
        let verdict = documents.first().is_some_and(|node| check_schema(node, &mut diagnostics));
        assert_eq!(verdict, expected, "round {round}, {name}: {json}");
        *if verdict { &mut valid } else { &mut invalid } += 1;
    }
    assert!(valid > 50 && invalid > 50, "{valid} valid, {invalid} invalid");
}

const GRAPH: &str = r#"metadata: { $schema: "https://www.schemastore.org/aio-wasm-graph-config-1.1.0.json", name: g, version: "1" }
moduleRequirements: { apiVersion: "1.1.0", runtimeVersion: "1.1.0" }
operations:
  - { operationType: source, name: in }
  - { operationType: filter, name: keep, module: "m:1" }
  - { operationType: sink, name: out }
connections:
  - { from: { name: in }, to: { name: keep } }
  - { from: { name: keep }, to: { name: out } }
"#;

/// What is changed in a graph that is right: the text, its replacement, and the rule
/// that says so with its line and column.
const BROKEN_GRAPHS: &[(&str, &str, &str, usize, usize)] = &[
    ("to: { name: keep }", "to: { name: kep }", "graph/unknown-operation", 8, 39),
    ("name: out }\nconn", "name: in }\nconn", "graph/duplicate-operation", 6, 34),
    (r#", module: "m:1""#, "", "graph/module-missing", 5, 36),
    ("name: out }\nconn", "name: out, module: \"m:1\" }\nconn", "graph/module-unused", 6, 47),
    ("  - { from: { name: keep }, to: { name: out } }\n", "", "graph/no-output", 5, 36),
    ("  - { from: { name: in }, to: { name: keep } }\n", "", "graph/no-output", 4, 36),
    ("from: { name: in }", "from: { name: in, arm: \"True\" }", "graph/arm-without-branch", 8, 5),
    ("operationType: filter", "operationType: branch", "graph/branch-arm", 5, 36),
    ("operationType: filter", "operationType: fliter", "graph/schema", 5, 22),
    (
        "{ name: out } }\n",
        "{ name: out } }\n  - { from: { name: out }, to: { name: keep } }\n",
        "graph/sink-output",
        6,
        34,
    ),
    (
        "{ name: out } }\n",
        "{ name: out } }\n  - { from: { name: keep }, to: { name: in } }\n",
        "graph/source-input",
        4,
        36,
    ),
    (
        "{ name: out } }\n",
        "{ name: out } }\n  - { from: { name: keep }, to: { name: keep } }\n",
        "graph/cycle",
        5,
        36,
    ),
    ("version: \"1\" }", "version: 1 }", "graph/schema", 1, 104),
    ("connections:", "conections:", "graph/schema", 1, 1),
    ("name: in }\n", "name: in\n", "yaml/syntax", 6, 3),
    ("name: keep, module", "name: *keep, module", "yaml/syntax", 5, 36),
];

#[test]
fn a_broken_graph_is_refused_with_the_rule_and_the_place() {
    let mut diagnostics = Diagnostics::default();
    let node = parse("g.yaml", GRAPH, &mut diagnostics).pop().expect("a document");
    assert!(Graph::read(&node, &mut diagnostics).is_some(), "{}", diagnostics.to_text(false));
    refuses_broken(GRAPH, BROKEN_GRAPHS);
}

/// Whether each change to a graph that is right is refused by the rule and at the place.
fn refuses_broken(graph: &str, broken: &[(&str, &str, &str, usize, usize)]) {
    let mut wrong = Vec::new();
    for (text, replacement, rule, line, column) in broken {
        assert!(graph.contains(text), "{text}");
        let broken = graph.replacen(text, replacement, 1);
        let mut diagnostics = Diagnostics::default();
        if let Some(node) = parse("g.yaml", &broken, &mut diagnostics).pop() {
            Graph::read(&node, &mut diagnostics);
        }
        let found: Vec<_> = diagnostics
            .iter()
            .filter_map(|it| Some((it.rule, it.place.as_ref()?.line, it.place.as_ref()?.column)))
            .collect();
        if !found.contains(&(*rule, *line, *column)) {
            wrong.push(format!("{replacement:?}: expected {rule} at {line}:{column}, found {found:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// As `GRAPH`, in the preview's form.
const PREVIEW_GRAPH: &str = r#"moduleRequirements:
  apiVersion: "0.2.0"
  hostlibVersion: "0.2.0"
operations:
  - { operationType: source, name: in }
  - { operationType: filter, name: keep, module: "m:1" }
  - { operationType: sink, name: out }
moduleConfigurations:
  - name: keep
    parameters:
      limit: { name: limit, description: what is kept, required: true }
connections:
  - { from: { name: in }, to: { name: keep } }
  - { from: { name: keep }, to: { name: out } }
"#;

/// As `BROKEN_GRAPHS`.
const BROKEN_PREVIEWS: &[(&str, &str, &str, usize, usize)] = &[
    ("hostlibVersion: \"0.2.0\"", "hostlibVersion: 0.2", "graph/schema", 3, 19),
    ("  apiVersion: \"0.2.0\"\n", "", "graph/schema", 2, 3),
    // It is of neither form: the newest published one says what is missing.
    ("hostlibVersion", "runtimeVersion", "graph/schema", 1, 1),
    ("  hostlibVersion: \"0.2.0\"\n", "", "graph/schema", 1, 1),
    ("  hostlibVersion", "  runtimeVersion: \"0.2.0\"\n  hostlibVersion", "graph/schema", 3, 3),
    // With `metadata` it is held against the schema that this names.
    (
        "moduleRequirements:",
        "metadata: { $schema: \"aio-wasm-graph-config-1.0.0.json\", name: g, version: \"1\" }\nmoduleRequirements:",
        "graph/schema",
        4,
        3,
    ),
    ("moduleRequirements:", "requirements: 1\nmoduleRequirements:", "graph/schema", 1, 1),
    // Newer than the preview.
    ("module: \"m:1\"", "module: \"m:1\", arity: 1", "graph/schema", 6, 57),
    ("operationType: filter", "operationType: fliter", "graph/schema", 6, 22),
    ("to: { name: keep }", "to: { name: kep }", "graph/unknown-operation", 13, 39),
    ("  - { from: { name: in }, to: { name: keep } }\n", "", "graph/no-output", 5, 36),
];

#[test]
fn a_graph_of_the_preview_is_checked_as_any_other() {
    let mut diagnostics = Diagnostics::default();
    let node = parse("a/g.yaml", PREVIEW_GRAPH, &mut diagnostics).pop().expect("a document");
    let graph =
        Graph::read(&node, &mut diagnostics).unwrap_or_else(|| panic!("{}", diagnostics.to_text(false)));
    assert_eq!(diagnostics.count(), 0, "{}", diagnostics.to_text(false));
    assert_eq!((graph.name.as_str(), &graph.version), ("a/g.yaml", &None));
    assert!(graph.operations[1].parameters[0].required);
    refuses_broken(PREVIEW_GRAPH, BROKEN_PREVIEWS);
}

const PLATFORM: &str = r#"apiVersion: tidegate.dev/v1
kind: Policy
metadata: { name: team }
spec:
  world: tidegate:policy/standard@0.1.0
  message: { fuel: 20M, time: 20ms }
  payload: 256Ki
  connections: 4
  endpoints:
    - name: local
      read: [ "{tenant}/#" ]
      write: [ "{tenant}/out/#" ]
---
apiVersion: tidegate.dev/v1
kind: Tenant
metadata: { name: a }
spec: { policy: team, limits: { weight: 1 } }
---
apiVersion: connectivity.iotoperations.azure.com/v1
kind: DataflowEndpoint
metadata: { name: local }
spec: { endpointType: Mqtt, mqttSettings: { host: "127.0.0.1:1883" } }
"#;

const DATAFLOW: &str = r#"apiVersion: connectivity.iotoperations.azure.com/v1
kind: DataflowGraph
metadata: { name: flow }
spec:
  nodes:
    - { nodeType: Source, name: in, sourceSettings: { endpointRef: local, dataSources: [ "a/in" ] } }
    - { nodeType: Graph, name: g, graphSettings: { registryEndpointRef: r, artifact: "g:1" } }
    - { nodeType: Destination, name: out, destinationSettings: { endpointRef: local, dataDestination: "a/out/x" } }
  nodeConnections:
    - { from: { name: in }, to: { name: g } }
    - { from: { name: g }, to: { name: out } }
"#;

/// In which file what is changed, and what must be said about it.
const BROKEN_SITES: &[(&str, &str, &str, &str, usize, usize)] = &[
    ("platform", "payload: 256Ki", "payload: 256", "policy/quantity", 7, 12),
    ("platform", "payload: 256Ki", "payload: 2Mi", "policy/payload-above-inflight", 7, 12),
    ("platform", "payload: 256Ki", "paylod: 256Ki", "yaml/unknown-key", 7, 3),
    ("platform", "fuel: 20M", "fuel: 20Mi", "policy/quantity", 6, 20),
    ("platform", "\"{tenant}/#\"", "\"{team}/#\"", "policy/topic", 11, 15),
    ("platform", "\"{tenant}/out/#\"", "\"{tenant}/#/out\"", "policy/topic", 12, 16),
    ("platform", "policy: team", "policy: tem", "tenant/unknown-policy", 17, 17),
    ("platform", "weight: 1", "weight: 2", "policy/above-ceiling", 17, 41),
    ("platform", "weight: 1", "weight: 0", "policy/quantity", 17, 41),
    ("platform", "kind: Tenant", "kind: Tennant", "site/kind", 15, 7),
    ("platform", "kind: Tenant", "kind: DataflowGraph", "site/kind", 15, 7),
    (
        "platform",
        "apiVersion: tidegate.dev/v1\nkind: Tenant",
        "apiVersion: tidegate.dev/v2\nkind: Tenant",
        "site/api-version",
        14,
        13,
    ),
    ("platform", "endpointType: Mqtt", "endpointType: DataExplorer", "endpoint/type", 22, 23),
    ("platform", "127.0.0.1:1883", "127.0.0.1", "endpoint/host", 22, 51),
    ("platform", "connections: 4", "connections: 1", "tenant/connections", 16, 19),
    ("platform", "metadata: { name: team }", "metadata: { name: a/b }", "site/name", 3, 19),
    ("platform", "  world: tidegate:policy/standard@0.1.0\n", "", "yaml/missing-key", 5, 3),
    ("dataflow", "[ \"a/in\" ]", "[ \"b/in\" ]", "dataflow/read-right", 6, 90),
    ("dataflow", "[ \"a/in\" ]", "[ \"#\" ]", "dataflow/loop", 8, 103),
    ("dataflow", "[ \"a/in\" ]", "[ \"$SYS/x\" ]", "dataflow/topic", 6, 90),
    ("dataflow", "a/out/x", "b/out/x", "dataflow/write-right", 8, 103),
    ("dataflow", "a/out/x", "a/${x}", "dataflow/topic", 8, 103),
    (
        "dataflow",
        "\"a/out/x\" }",
        "\"a/out/x\", headers: [ { actionType: Remove, key: __ts } ] }",
        "dataflow/header",
        8,
        152,
    ),
    ("dataflow", "endpointRef: local, dataS", "endpointRef: locl, dataS", "dataflow/unknown-endpoint", 6, 68),
    ("dataflow", "to: { name: out }", "to: { name: ot }", "dataflow/unknown-node", 11, 40),
    ("dataflow", "\"g:1\"", "\"h:1\"", "artifact/missing", 7, 86),
    ("dataflow", "\"g:1\"", "\"../g:1\"", "artifact/reference", 7, 86),
    ("dataflow", "name: flow", "name: Flow_1", "dataflow/name", 3, 19),
    ("dataflow", "kind: DataflowGraph", "kind: Policy", "site/kind", 2, 7),
    ("graph", "\"m:1\"", "\"n:1\"", "artifact/missing", 5, 50),
];

fn load(platform: &str, dataflow: &str, graph: &str) -> (Option<Site>, Diagnostics) {
    let dir = tempfile::tempdir().expect("a folder");
    let write = |path: &str, text: &str| {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().expect("below the site")).expect("a folder");
        fs::write(path, text).expect("a file");
    };
    write("platform/all.yaml", platform);
    write("tenants/a/dataflows/flow.yaml", dataflow);
    write("tenants/a/artifacts/g/1.yaml", graph);
    write("tenants/a/artifacts/m/1.wasm", "not looked into here");
    Site::load(dir.path())
}

#[test]
fn what_kafka_does_not_let_a_dataflow_do_is_refused_where_it_is_written() {
    let platform = |settings: &str| {
        format!(
            "apiVersion: tidegate.dev/v1\nkind: Policy\nmetadata: {{ name: team }}\nspec:\n  \
             world: tidegate:policy/standard@0.1.0\n  endpoints:\n    - {{ name: k, read: [ \"#\" ], write: [ \"#\" ] }}\n    \
             - {{ name: m, read: [ \"#\" ], write: [ \"#\" ] }}\n---\napiVersion: tidegate.dev/v1\nkind: Tenant\n\
             metadata: {{ name: a }}\nspec: {{ policy: team }}\n---\napiVersion: tidegate.dev/v1\nkind: DataflowEndpoint\n\
             metadata: {{ name: k }}\nspec: {{ endpointType: Kafka, kafkaSettings: {{ host: \"k:1\"{settings} }} }}\n---\n\
             apiVersion: tidegate.dev/v1\nkind: DataflowEndpoint\nmetadata: {{ name: m }}\nspec: {{ endpointType: Memory }}\n"
        )
    };
    let group = ", consumerGroupId: g";
    let transactions = ", consumerGroupId: g, transactions: true";
    for (settings, from, to, rules) in [
        (group, ("k", "in"), ("k", "out"), &[][..]),
        (transactions, ("k", "in"), ("k", "out"), &[]),
        ("", ("m", "in"), ("k", "out"), &[]),
        ("", ("k", "in"), ("k", "out"), &["dataflow/kafka-group"]),
        (group, ("k", "a/in"), ("k", "out"), &["dataflow/kafka-topic"]),
        (group, ("k", "+"), ("m", "out"), &["dataflow/kafka-topic"]),
        (group, ("m", "in"), ("k", "a/out"), &["dataflow/kafka-topic"]),
        (transactions, ("m", "in"), ("k", "out"), &["dataflow/transactions"]),
        (transactions, ("k", "in"), ("m", "out"), &["dataflow/transactions"]),
    ] {
        let dataflow = tidegate_benches::site::chain::dataflow("flow", "g", from, to);
        let graph = tidegate_benches::site::chain::graph(
            "g",
            &[tidegate_benches::site::Link { kind: "map", module: "m", configuration: &[] }],
        );
        let (_, diagnostics) = load(&platform(settings), &dataflow, &graph);
        let found: Vec<_> = diagnostics.iter().map(|it| it.rule).collect();
        assert_eq!(found, rules, "{settings} {from:?} {to:?}: {}", diagnostics.to_text(false));
    }
}

/// Where things were found.
fn places(diagnostics: &Diagnostics) -> Vec<(&'static str, String, usize, usize)> {
    let place = |it: &tidegate::resource::diagnostic::Diagnostic| {
        let place = it.place.as_ref()?;
        Some((it.rule, place.file.path.clone(), place.line, place.column))
    };
    diagnostics.iter().filter_map(place).collect()
}

#[test]
fn a_value_that_does_not_fit_its_parameter_is_refused_where_it_is_written() {
    let configured = |parameter: &str| {
        format!("{GRAPH}moduleConfigurations:\n  - name: keep\n    parameters:\n      limit: {parameter}\n")
    };
    let given = |setting: &str| {
        let artifact = "artifact: \"g:1\"";
        DATAFLOW.replace(artifact, &format!("{artifact}, configuration: [ {setting} ]"))
    };
    let schema = "schema: '{ \"type\": \"integer\", \"minimum\": 3 }'";
    let (flow, graph) = ("tenants/a/dataflows/flow.yaml", "tenants/a/artifacts/g/1.yaml");
    for (parameter, setting, expected) in [
        (format!("{{ name: upper, {schema} }}"), "{ key: limit, value: \"3\" }", None),
        (
            format!("{{ name: upper, {schema} }}"),
            "{ key: limit, value: \"2\" }",
            Some(("dataflow/parameter-value", flow, 7, 131)),
        ),
        (
            format!("{{ name: upper, {schema} }}"),
            "{ key: upper, value: \"x\" }",
            Some(("dataflow/parameter-value", flow, 7, 131)),
        ),
        (
            format!("{{ name: upper, {schema}, default: \"2\" }}"),
            "{ key: upper, value: \"3\" }",
            Some(("graph/parameter-value", graph, 13, 85)),
        ),
        (
            "{ name: upper, schema: '{ \"type\": 3 }' }".to_owned(),
            "{ key: upper, value: \"3\" }",
            Some(("graph/schema-invalid", graph, 13, 37)),
        ),
    ] {
        let (site, diagnostics) = load(PLATFORM, &given(setting), &configured(&parameter));
        let expected = expected.map(|(rule, path, line, column)| (rule, path.to_owned(), line, column));
        assert_eq!(site.is_some(), expected.is_none(), "{parameter}, {setting}");
        assert_eq!(places(&diagnostics), Vec::from_iter(expected), "{parameter}, {setting}");
    }
}

#[test]
fn a_broken_site_is_refused_with_the_rule_and_the_place() {
    let (site, diagnostics) = load(PLATFORM, DATAFLOW, GRAPH);
    assert!(site.is_some(), "{}", diagnostics.to_text(false));
    let mut wrong = Vec::new();
    for (file, text, replacement, rule, line, column) in BROKEN_SITES {
        let broken = |name: &str, right: &str| {
            if *file != name {
                return right.to_owned();
            }
            assert!(right.contains(text), "{text}");
            right.replacen(text, replacement, 1)
        };
        let (site, diagnostics) =
            load(&broken("platform", PLATFORM), &broken("dataflow", DATAFLOW), &broken("graph", GRAPH));
        assert!(site.is_none(), "{replacement:?} is accepted");
        let found: Vec<_> = diagnostics
            .iter()
            .filter_map(|it| Some((it.rule, it.place.as_ref()?.line, it.place.as_ref()?.column)))
            .collect();
        if !found.contains(&(*rule, *line, *column)) {
            wrong.push(format!("{replacement:?}: expected {rule} at {line}:{column}, found {found:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
