//! What operators look up through AIO's `schema-registry`: the schemas of their tenant
//! and of its platform, and nobody else's.

use std::{fs::File, io::Write as _, path::Path};

use tidegate::guest::OperatorKind::Map;
use tidegate_benches::rig::{Rig, tenant};

use crate::{
    mosquitto::eventually,
    site::{Flow, Site, payloads},
};

const FLOW: Flow<'_> = Flow {
    tenant: "a",
    name: "ask",
    from: ("in", "a/in"),
    to: ("out", "a/out"),
    operators: &[("map", "aio_schemas")],
};

fn ask(path: &Path, requests: &[&str]) {
    let mut file = File::options().create(true).append(true).open(path).expect("it can be written");
    requests.iter().for_each(|request| writeln!(file, "\"{request}\"").expect("it can be written"));
}

/// Text of the answers so far.
fn said(path: &Path) -> Vec<String> {
    let text = |json: &String| serde_json::from_str::<String>(json).unwrap_or_else(|_| json.clone());
    payloads(path).iter().map(text).collect()
}

/// SHA-256 of `{}`, from another implementation.
const HASH: &str = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";

#[test]
fn guests_look_up_their_tenants_schemas_and_the_platforms_and_see_an_apply() {
    let endpoints = [
        ("in", "{ endpointType: File, fileSettings: { path: in.jsonl } }"),
        ("out", "{ endpointType: File, fileSettings: { path: out.jsonl } }"),
        ("in2", "{ endpointType: File, fileSettings: { path: in2.jsonl } }"),
        ("out2", "{ endpointType: File, fileSettings: { path: out2.jsonl } }"),
    ];
    let site = Site::new("{ shards: 2 }", &endpoints);
    site.flow(&FLOW);
    site.flow(&Flow { tenant: "b", from: ("in2", "b/in"), to: ("out2", "b/out"), ..FLOW });
    site.write("tenants/a/schemas/reading/9.json", "{}");
    site.write("tenants/a/schemas/reading/10.json", "{}");
    site.write("tenants/a/schemas/plant/reading/1.json", "{}");
    site.write(
        "tenants/a/schemas/plant/reading/1.yaml",
        "displayName: Reading\ndescription: of one boiler\ntags: { team: heat, site: north }\n",
    );
    site.write("platform/schemas/common/1.json", "{}");
    site.write("tenants/b/schemas/secret/1.json", "{}");
    let answers = |name: &str, expected: &[&str]| {
        let path = site.dir().join(name);
        eventually("all are answered", || said(&path).len() >= expected.len());
        assert_eq!(said(&path), expected);
    };
    let schema = |namespace: &str, name: &str, version: &str| {
        format!("-|-|json|{HASH}|{name}|{namespace}|{{}}|message-schema||{version}")
    };
    let (nine, ten) = (schema("a", "reading", "9"), schema("a", "reading", "10"));
    let described =
        format!("of one boiler|Reading|json|{HASH}|reading|plant|{{}}|message-schema|team=heat,site=north|1");
    let (common, secret) = (schema("platform", "common", "1"), schema("b", "secret", "1"));

    let host = site.up();
    let asked = [
        "reading 9",
        "reading",
        "reading latest",
        "aio-sr://a/reading 9",
        "plant/reading 1",
        "common 1",
        "reading 8",
        "secret 1",
        "b/secret 1",
        "../b/schemas/secret 1",
        "reading one/two",
        "reading 9 nanos=1000000000",
    ];
    ask(&site.dir().join("in.jsonl"), &asked);
    let mut expected = vec![
        &*nine,
        &ten,
        &ten,
        &nine,
        &described,
        &common,
        "not-found",
        "not-found",
        "not-found",
        "request: `../b/schemas/secret` is no name of a schema: write `[NAMESPACE/]NAME`",
        "request: `one/two` is no version of a schema",
        "request: 1000000000 nanoseconds in a time-out",
    ];
    answers("out.jsonl", &expected);
    ask(&site.dir().join("in2.jsonl"), &["secret", "common", "reading", "a/reading 9"]);
    answers("out2.jsonl", &[&secret, &common, "not-found", "not-found"]);

    // An apply changes what is looked up, and restarts nothing.
    site.write("tenants/a/schemas/reading/11.json", "{}");
    site.write("platform/schemas/common/2.json", "{}");
    let applied = site.apply();
    assert_eq!(applied.code, 0, "{}", applied.stderr);
    ask(&site.dir().join("in.jsonl"), &["reading", "common"]);
    let (eleven, second) = (schema("a", "reading", "11"), schema("platform", "common", "2"));
    expected.extend([&*eleven, &second]);
    answers("out.jsonl", &expected);

    // What was applied last comes back without the folder.
    host.kill();
    std::fs::rename(site.dir().join("tenants/a/schemas"), site.data().join("gone")).expect("moved");
    let host = site.up_from_data();
    ask(&site.dir().join("in.jsonl"), &["reading"]);
    // Lines may come again after a kill.
    let path = site.dir().join("out.jsonl");
    eventually("it is answered again", || {
        let said = said(&path);
        said.len() > expected.len() && said.last() == Some(&eleven)
    });
    host.stop();
}

#[test]
fn without_a_site_no_schema_is_available() {
    let mut rig = Rig::new(4, 4);
    let mut flow = rig.install(&tenant("a"), "flow", &[("aio_schemas", Map, &[])]);
    flow.send(&["reading 1", "no name"]);
    rig.settle();
    assert_eq!(flow.receive(), ["not-available", "not-available"]);
}
