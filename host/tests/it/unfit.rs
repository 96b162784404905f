//! Schemas on connections: what does not fit goes no further than the connection that
//! names the schema, and becomes a dead letter that says why.

use std::{fs::File, io::Write as _, path::Path};

use crate::{
    mosquitto::eventually,
    site::{Flow, Site, payloads, tidegate},
};

const FLOW: Flow<'_> = Flow {
    tenant: "a",
    name: "flow",
    from: ("in", "a/in"),
    to: ("out", "a/out"),
    operators: &[("map", "pass_through")],
};

/// Two ways from the source to the sink that meet in a concatenate.
fn graph(version: &str, first: &str, second: &str) -> String {
    format!(
        r#"metadata: {{ $schema: "https://www.schemastore.org/aio-wasm-graph-config-{version}.json", name: g, version: "1" }}
moduleRequirements: {{ apiVersion: "1.1.0", runtimeVersion: "1.1.0" }}
operations:
  - {{ operationType: source, name: in }}
  - {{ operationType: map, name: one, module: "pass_through:1" }}
  - {{ operationType: map, name: two, module: "pass_through:1" }}
  - {{ operationType: concatenate, name: both }}
  - {{ operationType: sink, name: out }}
connections:
  - {{ from: {{ name: in, schemaName: {first} }}, to: {{ name: one }} }}
  - {{ from: {{ name: in }}, to: {{ name: two }} }}
  - {{ from: {{ name: one }}, to: {{ name: both }} }}
  - {{ from: {{ name: two, schemaName: {second} }}, to: {{ name: both }} }}
  - {{ from: {{ name: both, schemaName: object }}, to: {{ name: out }} }}
schemas:
  - {{ name: object, format: json, schema: '{{ "type": "object" }}' }}
  - {{ name: reading, format: JsonSchema/draft-07, schema: '{{ "required": [ "t" ], "properties": {{ "t": {{ "maximum": 100 }} }} }}' }}
  - {{ name: any, format: json, schema: "true" }}
"#
    )
}

fn site(graph: &str) -> Site {
    let endpoints = [
        ("in", "{ endpointType: File, fileSettings: { path: in.jsonl } }"),
        ("out", "{ endpointType: File, fileSettings: { path: out.jsonl } }"),
    ];
    let site = Site::new("{ shards: 1 }", &endpoints);
    site.flow(&FLOW);
    site.write("tenants/a/artifacts/flow/1.yaml", graph);
    site
}

fn send(path: &Path, lines: &[&str]) {
    let mut file = File::options().create(true).append(true).open(path).expect("it can be written");
    lines.iter().for_each(|line| writeln!(file, "{line}").expect("it can be written"));
}

#[test]
fn what_does_not_fit_goes_no_further_than_its_connection() {
    let fits = r#"{"t":1}"#;
    for (version, first, second, lines, expected, dead) in [
        // Nothing is lost where everything fits.
        ("1.0.0", "any", "any", vec![fits], vec![fits, fits], vec![]),
        ("1.1.0", "reading", "reading", vec![fits], vec![fits, fits], vec![]),
        // On one way only, before its operator.
        (
            "1.1.0",
            "reading",
            "null",
            vec![r#"{"t":101}"#, fits],
            vec![fits, r#"{"t":101}"#, fits],
            vec![("one", "schema `reading`: value is greater than the maximum of 100, at `/t`")],
        ),
        // Behind an operator, before a concatenate.
        (
            "1.0.0",
            "null",
            "reading",
            vec![r#"{"u":1}"#],
            vec![r#"{"u":1}"#],
            vec![("both", "schema `reading`: \"t\" is a required property")],
        ),
        // Twice unfit is one dead letter; so is what is unfit at the end of both ways.
        (
            "1.1.0",
            "null",
            "null",
            vec!["7", fits],
            vec![fits, fits],
            vec![("out", "schema `object`: value is not of type \"object\"")],
        ),
    ] {
        let site = site(&graph(version, first, second));
        let host = site.up();
        send(&site.dir().join("in.jsonl"), &lines);
        let out = site.dir().join("out.jsonl");
        eventually("all has come out", || {
            site.counter("a", "received") == lines.len() as u64
                && site.counter("a", "delivered") == expected.len() as u64
                && site.counter("a", "dead") == dead.len() as u64
        });
        let mut found = payloads(&out);
        found.sort();
        let mut sorted = expected.clone();
        sorted.sort();
        assert_eq!(found, sorted, "{first} {second}");
        assert_eq!(site.counter("a", "unfit") > 0, !dead.is_empty());
        host.stop();
        let letters = site.run(&["dead-letters", "list", "--json"]);
        let letters: Vec<serde_json::Value> =
            letters.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(letters.len(), dead.len(), "{letters:?}");
        for (letter, (operation, detail)) in letters.iter().zip(dead) {
            assert_eq!(letter["reason"], "schema");
            assert_eq!(
                (letter["operation"].as_str(), letter["detail"].as_str()),
                (Some(operation), Some(detail))
            );
            assert_eq!(letter["payload"].as_str(), Some(lines[0]));
        }
    }
}

#[test]
fn a_schema_with_another_text_replaces_the_dataflow() {
    let site = site(&graph("1.1.0", "any", "any"));
    let host = site.up();
    assert_eq!(site.apply().code, 0);
    let text = graph("1.1.0", "any", "any").replace(r#"schema: "true""#, r#"schema: "false""#);
    site.write("tenants/a/artifacts/flow/1.yaml", &text);
    assert_eq!(site.apply().code, 0);
    send(&site.dir().join("in.jsonl"), &["{}"]);
    eventually("it is given up", || site.counter("a", "dead") == 1);
    assert_eq!(site.counter("a", "written"), 0);
    host.stop();
}

#[test]
fn operators_are_told_the_schema_of_the_connection_that_leads_to_their_graph() {
    // The filter drops what does not fit the schema that `init` tells it.
    let site = site("");
    let filter = Flow { operators: &[("filter", "schema_filter")], ..FLOW };
    site.flow(&filter);
    site.write(
        "platform/schemas/plant/reading/1.json",
        r#"{"type":"object","required":["t"],"properties":{"t":{"type":"number"}}}"#,
    );
    let path = site.dir().join("tenants/a/dataflows/flow.yaml");
    let text = std::fs::read_to_string(&path).expect("it was written");
    let told = text.replacen(
        "from: { name: in }",
        "from: { name: in, schema: { serializationFormat: Json, schemaRef: \"aio-sr://plant/reading:1\" } }",
        1,
    );
    assert_ne!(text, told);
    std::fs::write(&path, told).expect("it can be written");
    let check = tidegate().arg("check").arg(site.dir()).output().expect("it runs");
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
    let host = site.up();
    send(&site.dir().join("in.jsonl"), &[r#"{"t":1}"#, r#"{"t":"x"}"#]);
    eventually("one passes", || site.counter("a", "filtered") == 1 && site.counter("a", "delivered") == 1);
    assert_eq!(payloads(&site.dir().join("out.jsonl")), [r#"{"t":1}"#]);
    assert_eq!(site.counter("a", "dead"), 0, "the host does not check it");
    host.stop();
}
