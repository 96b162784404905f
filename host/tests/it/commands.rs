//! What operators ask of other programs through AIO's `command-invoker`, over a real
//! broker, with a program on the other side that speaks MQTT v5 and knows nothing of the
//! host.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use rumqttc::v5::mqttbytes::v5::{Publish, PublishProperties};
use serde_json::{Value, json};
use tidegate::{
    clock::{Clock, VirtualClock},
    command::{Calls, Commands},
    dataflow::shard::Turn,
    guest::OperatorKind::Map,
    resource::{Grants, Limits},
    tenant::Tenant,
    topic::TopicFilter,
};
use tidegate_benches::rig::{Rig, Running, tenant};
use tidegate_loadtest::proxy::Proxy;

use crate::{
    folder::{Link, SiteFolder},
    mosquitto::{Mosquitto, eventually},
    outside::{Responder, Subscriber, publish_all},
    process::{Host, Status, output, tidegate},
};

/// What one operator answers to messages, in order.
fn answers(rig: &mut Rig, tenant: &Arc<Tenant>, messages: &[Value]) -> Vec<Value> {
    let mut flow = rig.install(tenant, "flow", &[("aio_command", Map, &[])]);
    flow.send(&messages.iter().map(Value::to_string).collect::<Vec<_>>());
    rig.settle();
    received(&flow)
}

fn received(flow: &Running) -> Vec<Value> {
    flow.receive().iter().map(|text| serde_json::from_str(text).expect("JSON")).collect()
}

#[test]
fn each_thing_that_is_wrong_with_a_request_has_its_error() {
    let tenant = Tenant::new("a", Limits { output_bytes_max: 2000, ..Limits::default() });
    let many = |count: usize| {
        let pairs = (0..count).map(|number| (format!("k{number}"), json!("v")));
        Value::Object(pairs.collect())
    };
    let table = [
        // Options.
        (json!({ "payload": "x" }), "build-error"),
        (json!({ "topic": "", "payload": "x" }), "configuration-invalid"),
        (json!({ "topic": "a/+", "payload": "x" }), "configuration-invalid"),
        (json!({ "topic": "a/{x", "payload": "x" }), "configuration-invalid"),
        (json!({ "topic": "$SYS/a", "payload": "x" }), "configuration-invalid"),
        (json!({ "topic": "a".repeat(2000), "payload": "x" }), "configuration-invalid"),
        (json!({ "topic": "a", "response": "a", "payload": "x" }), "configuration-invalid"),
        (json!({ "topic": "a", "response": "b/#", "payload": "x" }), "configuration-invalid"),
        (json!({ "topic": "a", "prefix": "/", "payload": "x" }), "configuration-invalid"),
        (json!({ "topic": "a", "suffix": "b c", "payload": "x" }), "configuration-invalid"),
        (json!({ "topic": "a", "namespace": "{x}", "payload": "x" }), "configuration-invalid"),
        (json!({ "topic": "a", "command": "b c", "payload": "x" }), "configuration-invalid"),
        (json!({ "topic": "a", "tokens": { "x": "+" }, "payload": "x" }), "configuration-invalid"),
        (json!({ "topic": "a", "tokens": many(65), "payload": "x" }), "configuration-invalid"),
        // Requests.
        (json!({ "topic": "a" }), "build-error"),
        (json!({ "topic": "a", "payload": "x".repeat(2001) }), "payload-invalid"),
        (json!({ "topic": "a", "payload": "x", "data": { "__ts": "1" } }), "header-invalid"),
        (json!({ "topic": "a", "payload": "x", "data": { "k": "\u{1}" } }), "header-invalid"),
        (json!({ "topic": "a", "payload": "x", "data": many(65) }), "header-invalid"),
        (json!({ "topic": "a", "payload": "x", "data": { "k": "v".repeat(17 << 10) } }), "header-invalid"),
        (json!({ "topic": "a", "payload": "x", "timeout": 0 }), "configuration-invalid"),
        (
            json!({ "topic": "a", "payload": "x", "timeout": 1000, "nanos": 1_000_000_000 }),
            "configuration-invalid",
        ),
        (json!({ "topic": "a/{x}", "payload": "x" }), "configuration-invalid"),
        (json!({ "topic": "a/{x}", "payload": "x", "own": { "x": "#" } }), "configuration-invalid"),
        (json!({ "topic": "a/{x}", "payload": "x", "own": many(65) }), "configuration-invalid"),
        // All is well, and there is no broker.
        (
            json!({ "topic": "a/{x}", "payload": "x".repeat(2000), "own": { "x": "1" }, "data": many(64) }),
            "client-error",
        ),
        (json!({ "topic": "a", "payload": "", "timeout": 1 }), "client-error"),
    ];
    let messages: Vec<_> = table.iter().map(|(ask, _)| json!({ "ask": ask })).collect();
    let mut rig = Rig::new(4, 4);
    let answers = answers(&mut rig, &tenant, &messages);
    assert_eq!(answers.len(), table.len());
    for ((ask, expected), answer) in table.iter().zip(answers) {
        assert_eq!(answer["error"], **expected, "{ask}");
    }
}

/// A door that nobody reads, as if the broker did not answer.
fn silent(tenant: &Arc<Tenant>) -> Arc<Commands> {
    let all = || vec![TopicFilter::parse("#").expect("a filter")];
    let grants = Grants { endpoint: "local".into(), read: all(), write: all(), rates: Default::default() };
    Commands::new("id".into(), grants, tenant.calls.clone())
}

fn value(calls: &Calls, name: &str) -> u64 {
    calls.values().into_iter().find(|(key, _)| *key == name).expect("a counter").1
}

#[test]
fn a_call_waits_as_long_as_it_says_and_the_shard_goes_on() {
    for (timeout, expected) in [
        (json!({ "timeout": 2500 }), Duration::from_millis(2500)),
        (json!({}), Duration::from_secs(10)),
        // Longer than is allowed.
        (json!({ "timeout": 3_600_000 }), Duration::from_secs(60)),
    ] {
        let clock = Arc::<VirtualClock>::default();
        let mut rig = Rig::on(Clock::Virtual(clock.clone()), 4, 4);
        let now = || Clock::Virtual(clock.clone()).now();
        let asking = tenant("asking");
        rig.commands = Some(silent(&asking));
        let mut flow = rig.install(&asking, "flow", &[("aio_command", Map, &[])]);
        let mut neighbour = rig.install(&tenant("neighbour"), "flow", &[("pass_through", Map, &[])]);
        let mut ask = timeout;
        ask["topic"] = json!("a");
        ask["payload"] = json!("x");
        flow.send(&[json!({ "ask": ask }).to_string()]);
        rig.settle();
        let began = now();
        assert_eq!(value(&asking.calls, "open"), 1, "it waits");
        let mut passed = 0;
        let answer = loop {
            let Turn::Idle { until } = rig.shard.turn() else { continue };
            if let [answer] = &received(&flow)[..] {
                break answer.clone();
            }
            passed += 1;
            neighbour.send(&[passed.to_string()]);
            rig.settle();
            assert_eq!(neighbour.receive(), [passed.to_string()], "the shard goes on");
            clock.advance(until.expect("a timer").since(now()));
        };
        assert_eq!(answer["error"], "timeout");
        assert!(passed > 1);
        let waited = now().since(began);
        assert!(expected <= waited && waited < expected + Duration::from_millis(1), "{waited:?}");
        assert_eq!((value(&asking.calls, "open"), value(&asking.calls, "timedOut")), (0, 1));
    }
}

#[test]
fn handles_that_are_given_back_leave_room_for_others() {
    // Each message makes eight of the 256 that an instance may have at once.
    let messages = vec![json!({ "ask": { "topic": "a", "payload": "x" } }); 200];
    let mut rig = Rig::new(4, 4);
    let answers = answers(&mut rig, &tenant("a"), &messages);
    assert!(answers.iter().all(|answer| answer["error"] == "client-error"), "{answers:?}");
}

/// A tenant whose dataflows `flow-N` ask on `TENANT/do/…` what comes on `TENANT/in/N`.
fn site(address: &str, tenants: &[&str], flows: usize, link: Link<'_>, keys: &[&str]) -> SiteFolder {
    let site = SiteFolder::new("{ shards: 1 }", address);
    let endpoints = "endpoints: [ { name: local, read: [ \"{tenant}/#\" ], write: [ \"{tenant}/#\" ] } ]";
    let connections = format!("connections: {}", flows + 3);
    let own = [endpoints, &connections, "onError: deadLetter"];
    site.policy("p", &[&own, keys].concat());
    for tenant in tenants {
        site.tenant(tenant, "p");
        for flow in 0..flows {
            add_flow(&site, tenant, &flow.to_string(), link);
        }
    }
    site
}

fn add_flow(site: &SiteFolder, tenant: &str, flow: &str, link: Link<'_>) {
    let (from, to) = (format!("{tenant}/in/{flow}"), format!("{tenant}/out/{flow}"));
    site.dataflow_between(tenant, &format!("flow-{flow}"), ("local", &from), &[link], ("local", &to));
}

const ASKS: Link<'_> = ("map", "aio_command", &[]);

fn message(topic: &str, value: &Value) -> (String, Vec<u8>, PublishProperties) {
    (topic.to_owned(), value.to_string().into_bytes(), PublishProperties::default())
}

fn payload(publish: &Publish) -> Value {
    serde_json::from_slice(&publish.payload).expect("JSON")
}

/// A counter of a tenant's calls.
fn call_count(status: &Status, tenant: &str, name: &str) -> u64 {
    let tenants = status.0["tenants"].as_array().expect("a list");
    let tenant = tenants.iter().find(|it| it["name"] == tenant).expect("it runs");
    tenant["calls"][name].as_u64().expect("a count")
}

#[test]
fn mqtt_answers_come_back_to_the_call_that_waits_though_many_do() {
    const FLOWS: usize = 12;
    let Some(broker) = Mosquitto::start(&[]) else { return };
    let link = ("map", "aio_command", &[("topic", "a/do/{commandName}"), ("command", "double")][..]);
    let site = site(&broker.address(), &["a"], FLOWS, link, &[]);
    let subscriber = Subscriber::new(broker.port, "a/out/#");
    let responder = Responder::new(broker.port, "a/do/#");
    let host = Host::up(site.path());
    let inputs = (0..FLOWS).map(|flow| message(&format!("a/in/{flow}"), &json!({ "n": flow })));
    publish_all(broker.port, inputs);
    // All of them wait at once; the last one is answered first.
    eventually("all have asked", || responder.len() == FLOWS);
    let requests = responder.requests();
    let correlations: BTreeSet<_> = requests
        .iter()
        .map(|it| it.properties.as_ref().and_then(|it| it.correlation_data.clone()).expect("it has some"))
        .collect();
    assert_eq!(correlations.len(), FLOWS);
    for request in requests.iter().rev() {
        assert_eq!(&request.topic[..], b"a/do/double");
        let number = payload(request)["n"].as_u64().expect("a number");
        let text = json!(2 * number).to_string();
        responder.answer(
            request,
            &[("__stat", "200"), ("from", "outside"), ("__ts", "1700000000123:4:pump")],
            &text,
        );
    }
    eventually("all are answered", || subscriber.len() == FLOWS);
    for publish in subscriber.received() {
        let answer = payload(&publish);
        let number = answer["n"].as_u64().expect("a number");
        assert_eq!(&publish.topic[..], format!("a/out/{number}").as_bytes());
        let expected = json!({
            "n": number, "answer": 2 * number, "data": { "from": "outside" },
            "answered": "1700000000.123000000:4:pump",
        });
        assert_eq!(answer, expected);
    }
    let status = host.status();
    let counts = ["asked", "answered", "failed", "open"].map(|name| call_count(&status, "a", name));
    assert_eq!(counts, [FLOWS as u64, FLOWS as u64, 0, 0]);
    host.stop();
}

#[test]
fn mqtt_tenants_with_the_same_patterns_never_see_each_others_answers() {
    let Some(broker) = Mosquitto::start(&[]) else { return };
    // Requests and answers of both go over the very same topics.
    let configuration = [("topic", "public/do"), ("response", "public/answers"), ("timeout", "30000")];
    let link = ("map", "aio_command", &configuration[..]);
    let site = SiteFolder::new("{ shards: 2 }", &broker.address());
    let endpoints = "endpoints: [ { name: local, read: [ \"{tenant}/#\", \"public/#\" ], \
                     write: [ \"{tenant}/#\", \"public/#\" ] } ]";
    site.policy("p", &[endpoints]);
    for tenant in ["a", "b"] {
        site.tenant(tenant, "p");
        add_flow(&site, tenant, "0", link);
    }
    let subscriber = Subscriber::new(broker.port, "+/out/#");
    let responder = Responder::answering(broker.port, "public/do", |request| {
        let of = payload(request)["of"].as_str().expect("a tenant").to_owned();
        vec![("200".to_owned(), json!(format!("for {of}")).to_string())]
    });
    let host = Host::up(site.path());
    let inputs = (0..100)
        .flat_map(|n| ["a", "b"].map(|of| message(&format!("{of}/in/0"), &json!({ "of": of, "n": n }))));
    publish_all(broker.port, inputs);
    eventually("all are answered", || subscriber.len() == 200);
    for publish in subscriber.received() {
        let answer = payload(&publish);
        let of = answer["of"].as_str().expect("a tenant");
        assert_eq!(&publish.topic[..], format!("{of}/out/0").as_bytes());
        assert_eq!(answer["answer"], format!("for {of}"), "{answer}");
    }
    assert_eq!(responder.len(), 200);
    // Each has heard the other's, which went no further.
    let status = host.wait_for("all has arrived", |status| {
        ["a", "b"].iter().all(|tenant| command_connection(status, tenant, "unwanted") == 100)
    });
    assert_eq!(call_count(&status, "a", "answered") + call_count(&status, "b", "answered"), 200);
    host.stop();
}

/// A counter of a tenant's connection for commands.
fn command_connection(status: &Status, tenant: &str, name: &str) -> u64 {
    let tenants = status.0["tenants"].as_array().expect("a list");
    let tenant = tenants.iter().find(|it| it["name"] == tenant).expect("it runs");
    tenant["commands"][0]["counters"][name].as_u64().expect("a count")
}

#[test]
fn mqtt_what_the_other_side_says_is_aios_error() {
    let Some(broker) = Mosquitto::start(&[]) else { return };
    let link = ("map", "aio_command", &[("topic", "a/do"), ("timeout", "300")][..]);
    let site = site(&broker.address(), &["a"], 1, link, &[]);
    let subscriber = Subscriber::new(broker.port, "a/out/#");
    let table: [(&[(&str, &str)], &str); 7] = [
        (&[("__stat", "400")], "payload-invalid"),
        (&[("__stat", "422")], "invocation-exception"),
        (&[("__stat", "500"), ("__apErr", "true")], "execution-exception"),
        (&[("__stat", "503"), ("__stMsg", "later")], "state-invalid"),
        (&[("__stat", "x")], "header-invalid"),
        (&[], "header-missing"),
        // Answered, but to nobody.
        (&[("__stat", "200"), ("lost", "")], "timeout"),
    ];
    let responder = Responder::new(broker.port, "a/do");
    let host = Host::up(site.path());
    for (number, (properties, expected)) in table.into_iter().enumerate() {
        publish_all(broker.port, [message("a/in/0", &json!({ "n": number }))]);
        eventually("it was asked", || responder.len() > number);
        let request = responder.requests().pop().expect("one at least");
        if *expected == *"timeout" {
            let mut stale = request.clone();
            stale.properties.as_mut().expect("it has some").correlation_data = Some(vec![7; 16].into());
            responder.answer(&stale, properties, "1");
        } else {
            responder.answer(&request, properties, "1");
        }
        eventually("it was answered", || subscriber.len() > number);
        let answer = payload(&subscriber.received()[number]);
        assert_eq!(answer, json!({ "n": number, "error": expected }));
    }
    // A late answer is nobody's.
    let last = responder.requests().pop().expect("one at least");
    responder.answer(&last, &[("__stat", "200")], "1");
    let status = host.wait_for("it has arrived", |status| command_connection(status, "a", "unwanted") == 2);
    let counts = ["failed", "timedOut", "answered"].map(|name| call_count(&status, "a", name));
    assert_eq!(counts, [6, 1, 0]);
    host.stop();
}

#[test]
fn mqtt_topics_outside_the_grants_are_refused_and_counted() {
    let Some(broker) = Mosquitto::start(&[]) else { return };
    let site = site(&broker.address(), &["a"], 1, ASKS, &[]);
    let subscriber = Subscriber::new(broker.port, "a/out/#");
    let all = Responder::answering(broker.port, "#", |request| {
        let is_request = request.properties.as_ref().is_some_and(|it| it.response_topic.is_some());
        is_request.then(|| ("200".to_owned(), "1".to_owned())).into_iter().collect()
    });
    let host = Host::up(site.path());
    let asks = [
        (json!({ "topic": "b/do", "payload": "x" }), Some("configuration-invalid")),
        (json!({ "topic": "a/do", "response": "b/back", "payload": "x" }), Some("configuration-invalid")),
        (
            json!({ "topic": "a/do", "prefix": "clients/other", "payload": "x" }),
            Some("configuration-invalid"),
        ),
        (json!({ "topic": "{x}/do", "own": { "x": "b" }, "payload": "x" }), Some("configuration-invalid")),
        // The twin: where policy lets it.
        (json!({ "topic": "{x}/do", "own": { "x": "a" }, "payload": "x" }), None),
        (json!({ "topic": "a/do", "response": "a/back", "payload": "x" }), None),
    ];
    publish_all(broker.port, asks.iter().map(|(ask, _)| message("a/in/0", &json!({ "ask": ask }))));
    eventually("all are answered", || subscriber.len() == asks.len());
    for (publish, (ask, error)) in subscriber.received().iter().zip(&asks) {
        let answer = payload(publish);
        assert_eq!(answer["error"].as_str(), *error, "{ask}");
        assert_eq!(answer["answer"], if error.is_some() { Value::Null } else { json!(1) }, "{ask}");
    }
    let status = host.status();
    let counts = ["refused", "asked", "answered"].map(|name| call_count(&status, "a", name));
    assert_eq!(counts, [4, 2, 2]);
    let seen: BTreeSet<_> =
        all.requests().iter().map(|it| String::from_utf8_lossy(&it.topic).into_owned()).collect();
    assert!(
        !seen.iter().any(|topic| topic.starts_with("b/") || topic.starts_with("clients/other")),
        "{seen:?}"
    );
    host.stop();
}

#[test]
fn mqtt_a_broker_that_is_away_costs_time_outs_and_later_nothing() {
    let Some(broker) = Mosquitto::start(&[]) else { return };
    // Messages take the straight way, commands the one that fails.
    let network = Proxy::before(broker.port);
    let link = ("map", "aio_command", &[("topic", "a/do"), ("timeout", "500")][..]);
    let site = site(&broker.address(), &["a"], 1, link, &[]);
    far_endpoint(&site, &network.address());
    let subscriber = Subscriber::new(broker.port, "a/out/#");
    let responder = Responder::answering(broker.port, "a/do", |_| vec![("200".into(), "1".into())]);
    let host = Host::up(site.path());
    let ask = |number: usize| {
        publish_all(broker.port, [message("a/in/0", &json!({ "n": number }))]);
        eventually("it is answered", || subscriber.len() > number);
        payload(&subscriber.received()[number])
    };
    assert_eq!(ask(0)["answer"], 1);
    network.refuse();
    host.wait_for("it is lost", |status| {
        command_state(status, "a").is_some_and(|state| state.starts_with("degraded"))
    });
    assert_eq!((ask(1)["error"].as_str(), responder.len()), (Some("timeout"), 1));
    network.admit();
    host.wait_for("it is back", |status| command_state(status, "a") == Some("connected"));
    assert_eq!(ask(2)["answer"], 1);
    let status = host.status();
    let counts = ["answered", "timedOut", "open"].map(|name| call_count(&status, "a", name));
    assert_eq!(counts, [2, 1, 0]);
    host.stop();
}

fn command_state<'a>(status: &'a Status, tenant: &str) -> Option<&'a str> {
    let tenant = status.0["tenants"].as_array()?.iter().find(|it| it["name"] == tenant)?;
    tenant["commands"][0]["connection"].as_str()
}

/// A second endpoint, over which the dataflow `flow-0` of the tenant `a` asks.
fn far_endpoint(site: &SiteFolder, address: &str) {
    site.write(
        "platform/far.yaml",
        &format!(
            "apiVersion: connectivity.iotoperations.azure.com/v1\nkind: DataflowEndpoint\n\
             metadata: {{ name: far }}\n\
             spec: {{ endpointType: Mqtt, mqttSettings: {{ host: \"{address}\" }} }}\n"
        ),
    );
    let policy = std::fs::read_to_string(site.path().join("platform/policy-p.yaml")).expect("it is there");
    let grant = "endpoints: [ { name: far, read: [ \"{tenant}/#\" ], write: [ \"{tenant}/#\" ] }, ";
    site.write("platform/policy-p.yaml", &policy.replace("endpoints: [ ", grant));
    annotate(site, "tidegate.dev/commands: far");
}

fn annotate(site: &SiteFolder, annotation: &str) {
    let path = "tenants/a/dataflows/flow-0.yaml";
    let flow = std::fs::read_to_string(site.path().join(path)).expect("it is there");
    let named = format!("metadata: {{ name: flow-0, annotations: {{ {annotation} }} }}");
    assert!(flow.contains("metadata: { name: flow-0 }"), "{flow}");
    site.write(path, &flow.replace("metadata: { name: flow-0 }", &named));
}

#[test]
fn mqtt_requests_survive_a_lost_connection_while_they_wait() {
    let Some(broker) = Mosquitto::start(&[]) else { return };
    let network = Proxy::before(broker.port);
    let link = ("map", "aio_command", &[("topic", "a/do"), ("timeout", "60000")][..]);
    let site = site(&broker.address(), &["a"], 1, link, &[]);
    far_endpoint(&site, &network.address());
    let subscriber = Subscriber::new(broker.port, "a/out/#");
    let responder = Responder::new(broker.port, "a/do");
    let host = Host::up(site.path());
    for number in 0..5 {
        publish_all(broker.port, [message("a/in/0", &json!({ "n": number }))]);
        // One that was sent again is seen again.
        let is_asked = || responder.requests().iter().any(|it| payload(it)["n"] == number);
        eventually("it was asked", is_asked);
        network.cut();
        let request = responder.requests().into_iter().find(|it| payload(it)["n"] == number);
        responder.answer(&request.expect("it was seen"), &[("__stat", "200")], &number.to_string());
        eventually("it is answered", || subscriber.len() > number);
        assert_eq!(payload(&subscriber.received()[number])["answer"], number);
    }
    host.stop();
}

#[test]
fn mqtt_a_neighbour_on_the_same_shard_goes_on_while_a_call_waits() {
    let Some(broker) = Mosquitto::start(&[]) else { return };
    let link = ("map", "aio_command", &[("topic", "a/do"), ("timeout", "60000")][..]);
    let site = site(&broker.address(), &["a"], 1, link, &[]);
    site.policy("q", &[]);
    site.tenant("b", "q");
    site.dataflow("b", "flow", &[("map", "pass_through", &[])]);
    add_flow(&site, "a", "other", ("map", "pass_through", &[]));
    let subscriber = Subscriber::new(broker.port, "+/out/#");
    let responder = Responder::new(broker.port, "a/do");
    let host = Host::up(site.path());
    publish_all(broker.port, [message("a/in/0", &json!({ "n": 0 }))]);
    eventually("it was asked", || responder.len() == 1);
    let mut inputs = Vec::new();
    for number in 0..500 {
        inputs.push(message("b/in/flow", &json!(number)));
        inputs.push(message("a/in/other", &json!(number)));
    }
    publish_all(broker.port, inputs);
    eventually("both neighbours have gone on", || subscriber.len() == 1000);
    let of = |topic: &str| {
        let received = subscriber.received();
        received.iter().filter(|it| &it.topic[..] == topic.as_bytes()).map(payload).collect::<Vec<_>>()
    };
    let numbers: Vec<_> = (0..500).map(|number| json!(number)).collect();
    assert_eq!((of("b/out/flow"), of("a/out/other")), (numbers.clone(), numbers));
    let status = host.status();
    assert_eq!(call_count(&status, "a", "open"), 1, "it waits all the while");
    responder.answer(&responder.requests()[0], &[("__stat", "200")], "1");
    eventually("it is answered", || subscriber.len() == 1001);
    assert_eq!(of("a/out/0"), [json!({ "n": 0, "answer": 1 })]);
    host.stop();
}

#[test]
fn mqtt_as_many_requests_are_open_as_policy_says() {
    for (commands, most) in [("commands: 1", 1), ("commands: 3", 3)] {
        const FLOWS: usize = 3;
        let Some(broker) = Mosquitto::start(&[]) else { return };
        let link = ("map", "aio_command", &[("topic", "a/do"), ("timeout", "60000")][..]);
        let site = site(&broker.address(), &["a"], FLOWS, link, &[commands]);
        let subscriber = Subscriber::new(broker.port, "a/out/#");
        let responder = Responder::new(broker.port, "a/do");
        let host = Host::up(site.path());
        let inputs = (0..FLOWS).map(|flow| message(&format!("a/in/{flow}"), &json!({ "n": flow })));
        publish_all(broker.port, inputs);
        let status = host.wait_for("all have called", |status| {
            let (open, waiting) = (call_count(status, "a", "open"), call_count(status, "a", "waiting"));
            open + waiting == FLOWS as u64
        });
        assert_eq!(call_count(&status, "a", "open"), most as u64, "{commands}");
        let mut answered = 0;
        while answered < FLOWS {
            eventually("the next has asked", || responder.len() == FLOWS.min(answered + most));
            responder.answer(&responder.requests()[answered], &[("__stat", "200")], "1");
            answered += 1;
        }
        eventually("all are answered", || subscriber.len() == FLOWS);
        assert!(subscriber.received().iter().all(|it| payload(it)["answer"] == 1));
        host.stop();
    }
}

#[test]
fn mqtt_an_apply_takes_the_connection_away_and_brings_it_again() {
    let Some(broker) = Mosquitto::start(&[]) else { return };
    let link = ("map", "aio_command", &[("topic", "a/do"), ("timeout", "60000")][..]);
    let site = site(&broker.address(), &["a"], 1, link, &[]);
    let subscriber = Subscriber::new(broker.port, "a/out/#");
    let responder = Responder::new(broker.port, "a/do");
    let host = Host::up(site.path());
    publish_all(broker.port, [message("a/in/0", &json!({ "n": 0 }))]);
    eventually("it was asked", || responder.len() == 1);
    // Everything of the tenant is replaced while the call waits.
    let policy = std::fs::read_to_string(site.path().join("platform/policy-p.yaml")).expect("it is there");
    site.write("platform/policy-p.yaml", &(policy + "  weight: 2\n"));
    let applied = std::thread::scope(|scope| {
        let applying = scope.spawn(|| host.apply_well(site.path()));
        // Its message was not done: it is delivered again, and asks again.
        eventually("it was asked again", || responder.len() == 2);
        applying.join().expect("it is applied")
    });
    assert_eq!(applied, ["replaced a/flow-0"]);
    for request in responder.requests() {
        responder.answer(&request, &[("__stat", "200")], "1");
    }
    eventually("it is answered", || subscriber.len() == 1);
    assert_eq!(payload(&subscriber.received()[0]), json!({ "n": 0, "answer": 1 }));
    host.stop();
}

/// What `tidegate check` finds, as rule and message.
fn found(site: &SiteFolder) -> Vec<(String, String)> {
    let checked = output(tidegate().args(["check", "--json"]).arg(site.path()));
    let document: Value = serde_json::from_str(&checked.stdout).expect("one JSON document");
    let diagnostics = document["diagnostics"].as_array().expect("a list").clone();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    diagnostics.iter().map(|it| (text(&it["rule"]), text(&it["message"]))).collect()
}

#[test]
fn what_commands_need_is_checked_before_anything_starts() {
    let with = |keys: &[&str]| {
        let site = SiteFolder::new("{ shards: 1 }", "127.0.0.1:1");
        site.policy("p", keys);
        site.tenant("a", "p");
        site.write(
            "platform/files.yaml",
            "apiVersion: tidegate.dev/v1\nkind: DataflowEndpoint\nmetadata: { name: files }\n\
             spec: { endpointType: File, fileSettings: { path: lines } }\n",
        );
        add_flow(&site, "a", "0", ASKS);
        site
    };
    let both = "endpoints: [ { name: local, read: [ \"#\" ], write: [ \"#\" ] }, \
                { name: files, read: [ \"#\" ], write: [ \"#\" ] } ]";
    // A connection for the source, one for the destination, one for commands.
    assert_eq!(
        found(&with(&[both, "connections: 2"])),
        [("tenant/connections".into(), "the tenant `a` needs 3 connections and may have 2".into())]
    );
    assert_eq!(found(&with(&[both, "connections: 3"])), []);
    let annotated = |annotation: &str, keys: &[&str]| {
        let site = with(keys);
        annotate(&site, annotation);
        found(&site)
    };
    assert_eq!(annotated("tidegate.dev/commands: local", &[both]), []);
    for (annotation, keys, rule, message) in [
        ("tidegate.dev/commands: locl", both, "dataflow/unknown-endpoint", "unknown endpoint `locl`"),
        (
            "tidegate.dev/commands: files",
            both,
            "dataflow/commands",
            "no commands can go over the endpoint `files`",
        ),
        (
            "tidegate.dev/commands: files",
            "endpoints: [ { name: local, read: [ \"#\" ], write: [ \"#\" ] } ]",
            "dataflow/endpoint-right",
            "the policy `p` does not grant the endpoint `files`",
        ),
    ] {
        assert_eq!(annotated(annotation, &[keys]), [(rule.to_owned(), message.to_owned())]);
    }
    // Between files there is no broker, unless it is named.
    let between_files = |annotation: Option<&str>| {
        let site = with(&[both]);
        site.dataflow_between("a", "flow-0", ("files", "a/in"), &[ASKS], ("files", "a/out"));
        annotation.into_iter().for_each(|annotation| annotate(&site, annotation));
        found(&site)
    };
    let message = "operators of `flow-0` ask other programs, and it has no broker";
    assert_eq!(between_files(None), [("dataflow/commands".to_owned(), message.to_owned())]);
    assert_eq!(between_files(Some("tidegate.dev/commands: local")), []);
}
