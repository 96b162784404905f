//! What no operator expects to be sent, through the whole host and a real mosquitto:
//! it comes out as it was, or is an operator's error, or a dead letter with its reason;
//! never a crash, never silence, and neighbours do not notice. And a broker that is not
//! there, at the start or later.

use std::collections::BTreeMap;

use rumqttc::v5::mqttbytes::v5::PublishProperties;
use tidegate::dead_letter::Reason;

use crate::{
    folder::{Link, SiteFolder},
    mosquitto::{Mosquitto, eventually},
    outside::{Subscriber, numbers, publish_all, publish_unacknowledged},
    process::{Host, Status},
};

/// What becomes of a message where it should be JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Passes,
    /// The operator returns an error.
    Error,
    /// It never gets to an operator, here or where anything may come.
    Oversize,
}
use Fate::{Error, Oversize, Passes};

const PAYLOAD_BYTES_MAX: usize = 64 << 10;

type Properties = Vec<(String, String)>;

/// Name, payload, user properties, fate.
fn cases() -> Vec<(&'static str, Vec<u8>, Properties, Fate)> {
    let plain = || br#"{"t":70}"#.to_vec();
    let none = Vec::new;
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let just_within = |bytes: usize| {
        let mut payload = br#"{"t":70,"fill":""#.to_vec();
        payload.resize(bytes - 2, b'f');
        payload.extend(b"\"}");
        payload
    };
    vec![
        ("plain", plain(), none(), Passes),
        ("empty", b"".to_vec(), none(), Error),
        ("white space", b" \n ".to_vec(), none(), Error),
        ("not JSON", b"temperature is 70".to_vec(), none(), Error),
        ("half of JSON", br#"{"t":70"#.to_vec(), none(), Error),
        ("another JSON", b"[70]".to_vec(), none(), Error),
        ("a field of another type", br#"{"t":"warm"}"#.to_vec(), none(), Error),
        ("a number beyond all", br#"{"t":1e999}"#.to_vec(), none(), Passes),
        ("deep", "[".repeat(30_000).into_bytes(), none(), Error),
        (
            "deep in a field",
            format!(r#"{{"d":{}1{},"t":70}}"#, "[".repeat(9_000), "]".repeat(9_000)).into(),
            none(),
            Error,
        ),
        ("NUL", b"{\"t\":70}\0".to_vec(), none(), Error),
        ("invalid UTF-8", vec![b'{', 0xff, 0xfe, 0x80, b'}'], none(), Error),
        ("just within", just_within(PAYLOAD_BYTES_MAX), none(), Passes),
        ("just over", just_within(PAYLOAD_BYTES_MAX + 1), none(), Oversize),
        ("ten MiB", vec![b'x'; 10 << 20], none(), Oversize),
        ("an empty key", plain(), vec![pair("", "v"), pair("k", "")], Passes),
        ("a key twice", plain(), vec![pair("k", "v"), pair("k", "w"), pair("k", "v")], Passes),
        ("a long property", plain(), vec![pair(&"k".repeat(60_000), &"v".repeat(60_000))], Passes),
        ("many properties", plain(), (0..500).map(|n| pair(&n.to_string(), "v")).collect(), Passes),
        ("unicode", plain(), vec![pair("ключ 🗝", "\u{202e}значение \u{fffd}")], Passes),
    ]
}

/// Dataflows of one operator, by name.
type Flows = &'static [(&'static str, Link<'static>)];

/// Tenant, policy, and the dataflows that each message is sent to.
const FLOWS: [(&str, &str, Flows); 2] = [
    ("keeps", "keeps", &[("json", JSON), ("aio-json", AIO_JSON), ("any", ANY), ("aio-any", AIO_ANY)]),
    ("drops", "drops", &[("json", JSON), ("aio-json", AIO_JSON)]),
];

const HOT: &[(&str, &str)] = &[("field", "t"), ("op", "gt"), ("value", "50")];
const JSON: Link<'_> = ("filter", "json_filter", HOT);
const AIO_JSON: Link<'_> = ("filter", "aio_json_filter", HOT);
const ANY: Link<'_> = ("map", "pass_through", &[]);
const AIO_ANY: Link<'_> = ("map", "aio_pass_through", &[]);

fn is_settled(status: &Status, name: &str, received: u64) -> bool {
    let count = |counter| status.count(name, counter);
    count("received") == received && count("settled") == count("deliveries")
}

#[test]
fn mqtt_odd_messages_are_delivered_or_answered_for_and_neighbours_do_not_notice() {
    let Some(broker) = Mosquitto::start(&[]) else { return };
    let site = SiteFolder::new("{ shards: 1 }", &broker.address());
    let payload = format!("payload: {}Ki", PAYLOAD_BYTES_MAX >> 10);
    site.policy("keeps", &[&payload, "onError: deadLetter", "connections: 8"]);
    site.policy("drops", &[&payload, "connections: 8"]);
    for (tenant, policy, flows) in FLOWS {
        site.tenant(tenant, policy);
        flows.iter().for_each(|(flow, link)| site.dataflow(tenant, flow, &[*link]));
    }
    site.tenant("neighbour", "standard");
    site.dataflow("neighbour", "pass", &[ANY]);
    let subscriber = Subscriber::new(broker.port, "+/out/#");
    let host = Host::up(site.path());

    let cases = cases();
    let names: Vec<_> = FLOWS
        .iter()
        .flat_map(|(tenant, _, flows)| flows.iter().map(move |(flow, _)| (*tenant, *flow)))
        .collect();
    for (number, (_, payload, properties, _)) in cases.iter().enumerate() {
        let number = number as u64;
        publish_all(broker.port, numbers("neighbour/in/pass", 10 * number..10 * number + 10));
        let properties =
            PublishProperties { user_properties: properties.clone(), ..PublishProperties::default() };
        let message = |(tenant, flow): &(&str, &str)| {
            (format!("{tenant}/in/{flow}"), payload.clone(), properties.clone())
        };
        publish_all(broker.port, names.iter().map(message));
    }
    let sent = cases.len() as u64;
    let status = host.wait_for("all is settled", |status| {
        names.iter().all(|(tenant, flow)| is_settled(status, &format!("{tenant}/{flow}"), sent))
            && is_settled(status, "neighbour/pass", 10 * sent)
    });

    // What is too large is counted when it is seen; only its PUBACK waits for the disk.
    eventually("all dead letters are there", || host.dead_letters().len() as u64 >= status.sum("dead"));
    let dead = host.dead_letters();
    for (tenant, flow) in names {
        let name = format!("{tenant}/{flow}");
        let fate = |fate: Fate| if fate == Error && flow.ends_with("any") { Passes } else { fate };
        let of_fate = |wanted: Fate| cases.iter().filter(move |(.., it)| fate(*it) == wanted);
        let count = |counter| status.count(&name, counter) as usize;
        let errors = of_fate(Error).count();
        let (dropped, kept) = if tenant == "keeps" { (0, errors) } else { (errors, 0) };
        assert_eq!(count("errors"), dropped, "{name}");
        assert_eq!(count("dead"), kept + of_fate(Oversize).count(), "{name}");
        assert_eq!(count("delivered"), of_fate(Passes).count(), "{name}");
        assert_eq!(status.dataflow(&name)["state"], "Running", "{name}");

        let mut reasons = BTreeMap::<String, usize>::new();
        for letter in dead.iter().filter(|letter| letter.tenant == tenant && letter.dataflow == flow) {
            *reasons.entry(format!("{:?}", letter.reason)).or_default() += 1;
            assert!(!letter.detail.is_empty(), "{letter:?}");
        }
        let expected = [(Reason::OperatorError, kept), (Reason::Oversize, of_fate(Oversize).count())];
        let expected = expected.into_iter().filter(|(_, count)| *count > 0);
        let expected: BTreeMap<_, _> =
            expected.map(|(reason, count)| (format!("{reason:?}"), count)).collect();
        assert_eq!(reasons, expected, "{name}");

        let topic = format!("{tenant}/out/{flow}");
        eventually("the last results arrive", || {
            subscriber.received().iter().filter(|it| it.topic == topic).count() >= of_fate(Passes).count()
        });
        let came: Vec<_> = subscriber.received().into_iter().filter(|it| it.topic == topic).collect();
        assert_eq!(came.len(), of_fate(Passes).count(), "{name}");
        for (came, (what, payload, properties, _)) in came.iter().zip(of_fate(Passes)) {
            assert!(came.payload == *payload, "{name}: {what} came out as {:?}", came.payload);
            let came = came.properties.clone().map(|it| it.user_properties).unwrap_or_default();
            let came: Vec<_> = came.into_iter().filter(|(key, _)| key != "__ts").collect();
            assert_eq!(came, *properties, "{name}: {what}");
        }
    }
    assert!(dead.iter().all(|letter| letter.tenant != "neighbour"));
    let came = subscriber.received().into_iter().filter(|it| it.topic == "neighbour/out/pass");
    let came: Vec<u64> =
        came.map(|it| String::from_utf8_lossy(&it.payload).parse().expect("a number")).collect();
    assert_eq!(came, (0..10 * sent).collect::<Vec<_>>());
    host.stop();
}

#[test]
fn mqtt_messages_without_acknowledgement_are_taken_as_well() {
    let Some(broker) = Mosquitto::start(&[]) else { return };
    let site = SiteFolder::new("{ shards: 1 }", &broker.address());
    site.tenant("a", "standard");
    site.dataflow("a", "flow", &[ANY]);
    let subscriber = Subscriber::new(broker.port, "a/out/#");
    let host = Host::up(site.path());
    publish_unacknowledged(broker.port, numbers("a/in/flow", 0..500));
    eventually("all arrive", || subscriber.len() >= 500);
    assert_eq!(subscriber.numbers(), (0..500).collect::<Vec<_>>());
    host.wait_for("all is settled", |status| is_settled(status, "a/flow", 500));
    host.stop();
}

/// What the connections say of themselves: sources, then sinks.
fn connections(status: &Status) -> Vec<&str> {
    status.connections().map(|end| end["connection"].as_str().expect("a connection has a state")).collect()
}

#[test]
fn mqtt_a_broker_that_is_away_is_shown_and_tried_again_and_nothing_is_lost() {
    let Some(mut broker) = Mosquitto::start(&["persistence true"]) else { return };
    broker.stop();
    let site = SiteFolder::new("{ shards: 1 }", &broker.address());
    site.tenant("a", "standard");
    site.dataflow("a", "flow", &[ANY]);
    // Away when the host starts, which says it is ready once it has tried.
    let host = Host::up(site.path());
    let is_away = |status: &Status| connections(status).iter().all(|it| it.starts_with("degraded: "));
    let is_there = |status: &Status| connections(status).iter().all(|it| *it == "connected");
    let status = host.status();
    assert!(is_away(&status), "{:?}", connections(&status));
    assert!(connections(&status)[0].contains("refused"), "{:?}", connections(&status));
    broker.restart();
    let subscriber = Subscriber::new(broker.port, "a/out/#");
    host.wait_for("it is connected", is_there);
    // Away while messages are on their way, several times.
    for round in 0..3 {
        let port = broker.port;
        publish_all(port, numbers("a/in/flow", 2_000 * round..2_000 * (round + 1)));
        broker.stop();
        host.wait_for("it says that the broker is away", is_away);
        let subscriptions = subscriber.subscriptions();
        broker.restart();
        subscriber.wait_for_subscription(subscriptions + 1);
        host.wait_for("it is connected again", is_there);
    }
    let ids = || subscriber.numbers().into_iter().collect::<std::collections::BTreeSet<_>>();
    eventually("all arrive", || ids().len() == 6_000);
    assert!(ids().into_iter().eq(0..6_000));
    host.stop();
}

#[test]
fn lines_of_a_file_that_are_no_messages_are_dead_letters_too() {
    let site = SiteFolder::new("{ shards: 1 }", "127.0.0.1:1");
    for end in ["readings", "results"] {
        let kind = "apiVersion: tidegate.dev/v1\nkind: DataflowEndpoint\n";
        let spec = format!("spec: {{ endpointType: File, fileSettings: {{ path: {end} }} }}\n");
        site.write(&format!("platform/{end}.yaml"), &format!("{kind}metadata: {{ name: {end} }}\n{spec}"));
    }
    let grants = "endpoints: [ { name: readings, read: [ \"#\" ] }, { name: results, write: [ \"#\" ] } ]";
    site.policy("p", &["payload: 1Ki", grants]);
    site.tenant("a", "p");
    site.dataflow_between("a", "flow", ("readings", "a"), &[ANY], ("results", "a"));
    let (long, longer) = ("x".repeat(1_500), "y".repeat(100_000));
    let text =
        format!("1\nnot JSON\n\"{long}\"\n2\n\"{longer}\"\n{{\"payload\":1,\"timestamp\":\"now\"}}\n3\n");
    std::fs::write(site.path().join("readings"), text).expect("a file");
    let host = Host::up(site.path());
    let status = host.wait_for("all is settled", |status| is_settled(status, "a/flow", 7));
    assert_eq!((status.count("a/flow", "delivered"), status.count("a/flow", "dead")), (3, 4));
    let dead = host.dead_letters();
    let reasons: Vec<_> = dead.iter().map(|letter| (letter.sequence, letter.reason)).collect();
    let expected = [(2, Reason::BadLine), (3, Reason::Oversize), (5, Reason::Oversize), (6, Reason::BadLine)];
    assert_eq!(reasons, expected);
    assert_eq!(dead[0].payload.as_deref().map(str::trim), Some("not JSON"));
    host.stop();
}
