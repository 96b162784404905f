//! Kafka at both ends, on a real one: what comes through, what is committed, and what a kill
//! of either side loses, which is nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use rdkafka::{
    ClientConfig, Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
    error::KafkaError,
    message::{Header, Headers as _, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer as _},
};
use rumqttc::v5::mqttbytes::v5::PublishProperties;
use tidegate_loadtest::kafka::{Kafka, Options, find};

use crate::{
    authority::Authority,
    mosquitto::{Mosquitto, eventually},
    outside::{Subscriber, numbers, publish_all},
    site::{Flow, Site},
};

/// A running Kafka and its folder; ended when dropped.
pub struct Server {
    pub kafka: Mutex<Kafka>,
    pub port: u16,
    _folder: tempfile::TempDir,
}

impl Server {
    /// `None` only where `cargo xtask test` has said so.
    pub fn start(options: Options<'_>) -> Option<Self> {
        let Some(libs) = find() else {
            assert!(
                std::env::var_os("TIDEGATE_WITHOUT_KAFKA").is_some(),
                "no Kafka: run `cargo xtask test`, which fetches it"
            );
            eprintln!("SKIPPED: no Kafka");
            return None;
        };
        let folder = tempfile::tempdir().expect("a folder");
        let kafka = Kafka::start(libs, folder.path(), &[], options).expect("Kafka starts");
        Some(Server { port: kafka.port(), kafka: Mutex::new(kafka), _folder: folder })
    }

    /// One for all tests that run meanwhile and do not disturb it.
    pub fn shared() -> Option<Arc<Self>> {
        static SHARED: Mutex<Weak<Server>> = Mutex::new(Weak::new());
        // One that could not start fails its own test alone.
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(server) = shared.upgrade() {
            return Some(server);
        }
        let server = Arc::new(Server::start(Options::default())?);
        *shared = Arc::downgrade(&server);
        Some(server)
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn with<T>(&self, run: impl FnOnce(&mut Kafka) -> anyhow::Result<T>) -> T {
        run(&mut self.kafka.lock().expect("no panic under this lock")).expect("Kafka does it")
    }

    pub fn topic(&self, name: &str, partitions: u32) {
        self.with(|kafka| kafka.create_topic(name, partitions));
    }

    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.address());
        config
    }

    fn producer(&self) -> BaseProducer {
        self.client().set("partitioner", "murmur2_random").create().expect("a producer")
    }

    /// Sends records with a key, each a number.
    pub fn send(&self, topic: &str, range: std::ops::Range<u64>) {
        let producer = self.producer();
        for number in range {
            let (key, value) = (format!("k{}", number % 50), number.to_string());
            let record = BaseRecord::to(topic).key(&key).payload(&value);
            producer.send(record).map_err(|(error, _)| error).expect("it is taken");
        }
        producer.flush(Duration::from_secs(60)).expect("Kafka has them");
    }

    /// Sends records of a partition and a value, with a logical time in a header.
    pub fn send_timed(&self, topic: &str, records: impl IntoIterator<Item = (i32, String, String)>) {
        let producer = self.producer();
        for (partition, value, time) in records {
            let headers = OwnedHeaders::new().insert(Header { key: "__ts", value: Some(&time) });
            let record = BaseRecord::<(), _>::to(topic).partition(partition).headers(headers);
            producer.send(record.payload(&value)).map_err(|(error, _)| error).expect("it is taken");
        }
        producer.flush(Duration::from_secs(60)).expect("Kafka has them");
    }

    /// All records of a topic so far that can be read when read-committed.
    pub fn records(&self, topic: &str) -> Vec<Seen> {
        let consumer: BaseConsumer = self.client().set("group.id", "outside").create().expect("a consumer");
        let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(60)).expect("metadata");
        let mut list = TopicPartitionList::new();
        let mut ends = BTreeMap::new();
        for partition in metadata.topics()[0].partitions() {
            let watermarks = consumer.fetch_watermarks(topic, partition.id(), Duration::from_secs(60));
            let (_, end) = watermarks.expect("there are some");
            if end > 0 {
                list.add_partition_offset(topic, partition.id(), Offset::Beginning).expect("valid");
                ends.insert(partition.id(), end);
            }
        }
        consumer.assign(&list).expect("it is assigned");
        let mut seen = Vec::new();
        while !ends.is_empty() {
            let message = consumer.poll(Duration::from_secs(60)).expect("there is more").expect("a record");
            let headers = message.headers().map_or(Vec::new(), |headers| {
                let text = |header: Header<'_, &[u8]>| {
                    let value = String::from_utf8_lossy(header.value.unwrap_or_default()).into_owned();
                    (header.key.to_owned(), value)
                };
                headers.iter().map(text).collect()
            });
            let text = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
            seen.push(Seen {
                partition: message.partition(),
                key: text(message.key()),
                value: text(message.payload()),
                ms: message.timestamp().to_millis().unwrap_or_default(),
                headers,
            });
            // Of those that came meanwhile nothing is known but that there are more.
            if ends.get(&message.partition()).is_some_and(|end| *end <= message.offset() + 1) {
                ends.remove(&message.partition());
            }
        }
        seen
    }

    /// The values of all records of a topic that are committed, as numbers, to one who reads
    /// committed records alone.
    pub fn committed(&self, topic: &str) -> Vec<u64> {
        let consumer: BaseConsumer = self
            .client()
            .set("group.id", "outside")
            .set("enable.partition.eof", "true")
            .set("isolation.level", "read_committed")
            .create()
            .expect("a consumer");
        let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(60)).expect("metadata");
        let mut list = TopicPartitionList::new();
        let partitions = metadata.topics()[0].partitions();
        for partition in partitions {
            list.add_partition_offset(topic, partition.id(), Offset::Beginning).expect("valid");
        }
        consumer.assign(&list).expect("it is assigned");
        let (mut ends, mut numbers) = (BTreeSet::new(), Vec::new());
        while ends.len() < partitions.len() {
            match consumer.poll(Duration::from_secs(60)).expect("there is more") {
                Ok(message) => {
                    let value = String::from_utf8_lossy(message.payload().unwrap_or_default()).into_owned();
                    numbers.push(value.parse().expect("a number"));
                }
                Err(KafkaError::PartitionEOF(partition)) => _ = ends.insert(partition),
                Err(error) => panic!("{error}"),
            }
        }
        numbers
    }

    /// The values of all records, as numbers.
    pub fn numbers(&self, topic: &str) -> Vec<u64> {
        self.records(topic).iter().map(|seen| seen.value.parse().expect("a number")).collect()
    }
}

/// A record as an independent client sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    partition: i32,
    key: String,
    value: String,
    ms: i64,
    headers: Vec<(String, String)>,
}

/// An endpoint whose sources are in a `group` that no other test is in: whoever dies in a
/// group holds up all that are.
pub fn endpoint(address: &str, group: &str, more: &str) -> String {
    format!(
        "{{ endpointType: Kafka, kafkaSettings: {{ host: \"{address}\", consumerGroupId: \"{group}\"{more} }} }}"
    )
}

/// A site of a host `name`, from topic to topic.
fn site_of(name: &str, server: &Server, more: &str, from: &str, to: &str) -> Site {
    let site = Site::new("{ shards: 1 }", &[("k", &endpoint(&server.address(), from, more))]);
    let host = format!("metadata: {{ name: {name} }}\nspec: {{ shards: 1 }}\n");
    site.write("platform/host.yaml", &format!("apiVersion: tidegate.dev/v1\nkind: Host\n{host}"));
    site.flow(&Flow::passing(("k", from), ("k", to)));
    site
}

/// Of each key, the numbers in the order of the partition.
fn by_key(records: &[Seen]) -> BTreeMap<String, Vec<u64>> {
    let mut keys: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for seen in records {
        keys.entry(seen.key.clone()).or_default().push(seen.value.parse().expect("a number"));
    }
    keys
}

#[test]
fn kafka_records_come_through_whole_in_order_and_are_committed() {
    let Some(server) = Server::shared() else { return };
    let (from, to) = ("whole.in", "whole.out");
    server.topic(from, 3);
    server.topic(to, 3);
    let site = site_of("test", &server, "", from, to);
    let producer = server.producer();
    let headers = OwnedHeaders::new()
        .insert(Header { key: "Content Type", value: Some("text/plain") })
        .insert(Header { key: "team", value: Some("weather") })
        .insert(Header { key: "bytes", value: Some(&[0xff, 0xfe][..]) });
    let record = BaseRecord::to(from).key("k0").payload("0").timestamp(1_700_000_000_123).headers(headers);
    producer.send(record).map_err(|(error, _)| error).expect("it is taken");
    producer.flush(Duration::from_secs(60)).expect("Kafka has it");
    server.send(from, 1..2_000);
    let host = site.up();
    eventually("all came", || server.records(to).len() >= 2_000);
    let records = server.records(to);
    let mut all = server.numbers(to);
    all.sort_unstable();
    assert_eq!(all, (0..2_000).collect::<Vec<_>>());
    let first = records.iter().find(|seen| seen.value == "0").expect("it came");
    assert_eq!((first.key.as_str(), first.ms), ("k0", 1_700_000_000_123));
    let expected = [("Content Type", "text/plain"), ("team", "weather")];
    assert_eq!(first.headers, expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
    for (key, numbers) in by_key(&records) {
        assert!(numbers.is_sorted(), "{key}: {numbers:?}");
        // The partitioner is that of Java's clients, here and there.
        let partitions: BTreeSet<i32> =
            records.iter().filter(|seen| seen.key == key).map(|seen| seen.partition).collect();
        assert_eq!(partitions.len(), 1, "{key}");
    }
    eventually("its lag is known and none", || {
        site.status()["tenants"][0]["dataflows"][0]["sources"][0]["lag"] == 0
    });
    host.stop();
    // What was committed is not read again.
    server.send(from, 2_000..2_100);
    let host = site.up();
    eventually("the rest came", || server.records(to).len() >= 2_100);
    host.stop();
    let mut all = server.numbers(to);
    all.sort_unstable();
    assert_eq!(all, (0..2_100).collect::<Vec<_>>());
    let printed = server.with(|kafka| kafka.consume(to, 2_100, &["print.key=true"]));
    assert_eq!(printed.len(), 2_100, "Kafka's own consumer sees as many");
    assert!(printed.iter().any(|line| line == "k10\t10"), "{:?}", &printed[..10]);
}

#[test]
fn kafka_and_mqtt_are_bridged_both_ways() {
    let Some(server) = Server::shared() else { return };
    let Some(broker) = Mosquitto::start(&[]) else { return };
    server.topic("bridge.in", 2);
    server.topic("bridge.out", 2);
    let mqtt = format!("{{ endpointType: Mqtt, mqttSettings: {{ host: \"{}\" }} }}", broker.address());
    let site =
        Site::new("{ shards: 1 }", &[("k", &endpoint(&server.address(), "bridge", "")), ("local", &mqtt)]);
    site.flow(&Flow::passing(("k", "bridge.in"), ("local", "a/out")));
    site.flow(&Flow {
        tenant: "b",
        name: "flow",
        from: ("local", "b/in"),
        to: ("k", "bridge.out"),
        operators: &[("map", "pass_through")],
    });
    let host = site.up();
    let subscriber = Subscriber::new(broker.port, "a/out");
    server.send("bridge.in", 0..500);
    publish_all(broker.port, numbers("b/in", 0..500));
    eventually("Kafka's came", || subscriber.len() >= 500);
    eventually("MQTT's came", || server.records("bridge.out").len() >= 500);
    host.stop();
    let mut came = subscriber.numbers();
    came.sort_unstable();
    assert_eq!(came, (0..500).collect::<Vec<_>>());
    let mut came = server.numbers("bridge.out");
    came.sort_unstable();
    assert_eq!(came, (0..500).collect::<Vec<_>>());
}

#[test]
fn kafka_events_are_made_where_they_are_wanted_and_go_on_to_mqtt() {
    let Some(server) = Server::shared() else { return };
    let Some(broker) = Mosquitto::start(&[]) else { return };
    server.topic("events", 1);
    let mqtt = format!("{{ endpointType: Mqtt, mqttSettings: {{ host: \"{}\" }} }}", broker.address());
    let settings = ", cloudEventAttributes: CreateOrRemap";
    let site = Site::new(
        "{ shards: 1 }",
        &[("k", &endpoint(&server.address(), "events", settings)), ("local", &mqtt)],
    );
    site.flow(&Flow {
        tenant: "b",
        name: "flow",
        from: ("local", "b/in"),
        to: ("k", "events"),
        operators: &[("map", "pass_through")],
    });
    site.flow(&Flow::passing(("k", "events"), ("local", "a/out")));
    let host = site.up();
    let subscriber = Subscriber::new(broker.port, "a/out");
    let said = |pairs: &[(&str, &str)]| PublishProperties {
        content_type: Some("application/json".into()),
        user_properties: pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect(),
        ..PublishProperties::default()
    };
    let messages = [said(&[("unit", "C")]), said(&[("id", "7"), ("source", "urn:boiler"), ("unit", "C")])];
    publish_all(
        broker.port,
        messages.into_iter().enumerate().map(|(at, it)| ("b/in".into(), at.to_string().into(), it)),
    );
    eventually("both came", || subscriber.len() >= 2);
    host.stop();
    let of = |headers: &[(String, String)], key: &str| {
        headers.iter().find(|(name, _)| name == key).map(|(_, value)| value.clone())
    };
    let records = server.records("events");
    let came = subscriber.received();
    for (record, (id, source)) in records.iter().zip([(None, "aio://k"), (Some("7"), "urn:boiler")]) {
        let publish = came.iter().find(|it| it.payload == record.value.as_bytes()).expect("it came");
        let publish = publish.properties.clone().expect("it has some");
        for (name, value) in [
            ("specversion", Some("1.0")),
            ("type", Some("ms.aio-dataflow.telemetry")),
            ("source", Some(source)),
            ("subject", Some("events")),
            ("datacontenttype", Some("application/json")),
            ("id", id),
            ("time", None),
        ] {
            let header = of(&record.headers, &format!("ce-{name}"));
            assert!(header.is_some() && value.is_none_or(|value| header.as_deref() == Some(value)), "{name}");
            assert_eq!(of(&publish.user_properties, name), header, "{name}, as MQTT has it");
        }
        assert_eq!(of(&record.headers, "unit").as_deref(), Some("C"), "which is no attribute");
    }
    let ids: BTreeSet<_> = records.iter().filter_map(|it| of(&it.headers, "ce-id")).collect();
    assert_eq!((records.len(), ids.len()), (2, 2));
}

#[test]
fn kafka_nothing_is_lost_when_the_host_is_killed_again_and_again() {
    let Some(server) = Server::shared() else { return };
    let (from, to) = ("killed.in", "killed.out");
    server.topic(from, 4);
    server.topic(to, 4);
    let site = site_of("test", &server, "", from, to);
    let mut came = 0;
    for round in 0..4_u64 {
        let host = site.up();
        server.send(from, round * 3_000..(round + 1) * 3_000);
        eventually("some more came", || server.records(to).len() > came);
        host.kill();
        came = server.records(to).len();
    }
    let host = site.up();
    let all = || server.numbers(to).into_iter().collect::<BTreeSet<u64>>();
    eventually("all came", || all().len() == 12_000);
    host.stop();
    // Repeated, but in order: each key's numbers go back only where a run began.
    for (key, numbers) in by_key(&server.records(to)) {
        let back = numbers.windows(2).filter(|pair| pair[1] < pair[0]).count();
        assert!(back <= 4, "{key} went back {back} times");
    }
}

#[test]
fn kafka_nothing_is_lost_when_the_broker_is_killed_or_frozen() {
    let Some(server) = Server::start(Options::default()) else { return };
    let (from, to) = ("broken.in", "broken.out");
    server.topic(from, 2);
    server.topic(to, 2);
    let site = site_of("test", &server, "", from, to);
    let host = site.up();
    server.send(from, 0..2_000);
    eventually("some came", || !server.records(to).is_empty());
    server.with(Kafka::kill);
    server.with(Kafka::restart);
    server.send(from, 2_000..4_000);
    let all = || server.numbers(to).into_iter().collect::<BTreeSet<u64>>();
    eventually("all came after the kill", || all().len() == 4_000);
    server.with(|kafka| kafka.process()?.freeze());
    // The host sees that nobody answers, or does not; either way nothing is lost.
    let waits = std::time::Instant::now();
    eventually("a while is over", || waits.elapsed() > Duration::from_secs(2));
    server.with(|kafka| kafka.process()?.go_on());
    server.send(from, 4_000..6_000);
    eventually("all came after the frost", || all().len() == 6_000);
    host.stop();
    assert_eq!(server.numbers(to).len(), 6_000, "an idempotent producer repeats nothing");
    for (key, numbers) in by_key(&server.records(to)) {
        assert!(numbers.is_sorted(), "{key}");
    }
}

#[test]
fn kafka_two_hosts_share_partitions_and_one_takes_over() {
    let Some(server) = Server::shared() else { return };
    let (from, to) = ("shared.in", "shared.out");
    server.topic(from, 4);
    server.topic(to, 4);
    let sites = ["one", "other"].map(|name| site_of(name, &server, "", from, to));
    let mut hosts: Vec<_> = sites.iter().map(Site::up).collect();
    let mut next = 0;
    eventually("both get something", || {
        server.send(from, next..next + 50);
        next += 50;
        sites.iter().all(|site| site.counter("a", "received") > 0)
    });
    hosts.pop().expect("two run").kill();
    server.send(from, next..next + 500);
    next += 500;
    let all = || server.numbers(to).into_iter().collect::<BTreeSet<u64>>();
    eventually("the other has all", || all().len() as u64 == next);
    hosts.pop().expect("one runs").stop();
}

#[test]
fn kafka_what_cannot_pass_is_a_dead_letter_and_holds_nothing_up() {
    let Some(server) = Server::shared() else { return };
    let (from, to) = ("unfit.in", "unfit.out");
    server.topic(from, 1);
    server.topic(to, 1);
    let site = site_of("test", &server, "", from, to);
    // Another dataflow writes where there is nothing.
    site.flow(&Flow { name: "lost", ..Flow::passing(("k", from), ("k", "no.such.topic")) });
    let host = site.up();
    let producer = server.producer();
    let large = "x".repeat(300 << 10);
    for payload in ["1", &large, "2"] {
        let record: BaseRecord<'_, str, str> = BaseRecord::to(from).payload(payload);
        producer.send(record).map_err(|(error, _)| error).expect("it is taken");
    }
    // A record without a value.
    producer
        .send(BaseRecord::<str, str>::to(from).key("k"))
        .map_err(|(error, _)| error)
        .expect("it is taken");
    producer.flush(Duration::from_secs(60)).expect("Kafka has them");
    eventually("what is fit came", || server.records(to).len() >= 3);
    let values: Vec<String> = server.records(to).into_iter().map(|seen| seen.value).collect();
    assert_eq!(values, ["1", "2", ""]);
    let letters = || {
        let ran = site.run(&["dead-letters", "list", "--json"]);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        ran.stdout
    };
    eventually("all letters are there", || letters().matches("\"dataflow\"").count() >= 5);
    let letters = letters();
    assert_eq!(letters.matches("at offset 1 of partition 0 of `unfit.in`").count(), 2, "{letters}");
    assert_eq!(letters.matches("Kafka refused it").count(), 3, "{letters}");
    host.stop();
}

#[test]
fn kafka_is_spoken_to_over_tls_with_passwords_and_certificates() {
    let authority = Authority::new("one that is trusted");
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let broker = authority.issue("broker", folder.path());
    let read = |path: &std::path::Path| std::fs::read_to_string(path).expect("it is there");
    std::fs::write(path("store"), read(&broker.key) + &read(&broker.certificate)).expect("a file");
    std::fs::write(path("trusted"), authority.pem()).expect("a file");
    std::fs::write(path("untrusted"), Authority::new("another one").pem()).expect("a file");
    let listener = "listener.name.secure";
    let module = "org.apache.kafka.common.security";
    let properties = [
        format!(
            "{listener}.ssl.keystore.type=PEM\n{listener}.ssl.keystore.location={}",
            path("store").display()
        ),
        format!(
            "{listener}.ssl.truststore.type=PEM\n{listener}.ssl.truststore.location={}",
            path("trusted").display()
        ),
        format!(
            "{listener}.ssl.client.auth=requested\n{listener}.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512"
        ),
        format!(
            "{listener}.plain.sasl.jaas.config={module}.plain.PlainLoginModule required user_anna=\"right\";"
        ),
        format!("{listener}.scram-sha-256.sasl.jaas.config={module}.scram.ScramLoginModule required;"),
        format!("{listener}.scram-sha-512.sasl.jaas.config={module}.scram.ScramLoginModule required;"),
    ];
    let format = [
        "--add-scram",
        "SCRAM-SHA-256=[name=anna,password=right]",
        "--add-scram",
        "SCRAM-SHA-512=[name=anna,password=right]",
    ];
    let options =
        Options { secure: Some("SASL_SSL"), properties: &properties, format: &format, ..Options::default() };
    let Some(server) = Server::start(options) else { return };
    let address = format!("127.0.0.1:{}", server.with(|kafka| Ok(kafka.secure_port())));
    server.topic("in", 1);
    for (at, mechanism) in ["Plain", "ScramSha256", "ScramSha512"].into_iter().enumerate() {
        let to = format!("out-{mechanism}");
        server.topic(&to, 1);
        let sasl = format!(
            ", tls: {{ mode: Enabled, trustedCaCertificateFile: secrets/ca }}, authentication: {{ method: Sasl, \
             saslSettings: {{ saslType: {mechanism}, user: anna, passwordFile: secrets/kafka }} }}"
        );
        let site = Site::new("{ shards: 1 }", &[("k", &endpoint(&address, "secure", &sasl))]);
        site.flow(&Flow::passing(("k", "in"), ("k", &to)));
        let connection =
            || site.status()["tenants"][0]["sinks"][0]["connection"].as_str().unwrap_or_default().to_owned();
        let untrusted = std::fs::read_to_string(path("untrusted")).expect("it is there");
        let host = site.up();
        eventually("it says where the password should be", || connection().contains("secrets/kafka"));
        site.write("secrets/kafka", "wrong");
        site.write("secrets/ca", &untrusted);
        eventually("the broker is not trusted", || connection().contains("certificate verify failed"));
        site.write("secrets/ca", &authority.pem());
        eventually("the password is wrong", || connection().to_lowercase().contains("authentication"));
        site.write("secrets/kafka", "right");
        server.send("in", at as u64 * 10..(at as u64 + 1) * 10);
        eventually("all came", || server.records(&to).len() == 10);
        assert!(!host.log().contains("right") && !site.status().to_string().contains("right"));
        host.stop();
    }
}

#[test]
fn kafka_lets_in_who_has_a_certificate() {
    let authority = Authority::new("one that is trusted");
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let broker = authority.issue("broker", folder.path());
    let client = authority.issue("client", folder.path());
    let read = |path: &std::path::Path| std::fs::read_to_string(path).expect("it is there");
    std::fs::write(path("store"), read(&broker.key) + &read(&broker.certificate)).expect("a file");
    std::fs::write(path("trusted"), authority.pem()).expect("a file");
    let listener = "listener.name.secure";
    let properties = ["keystore", "truststore"].map(|store| {
        let file = path(if store == "keystore" { "store" } else { "trusted" });
        format!("{listener}.ssl.{store}.type=PEM\n{listener}.ssl.{store}.location={}", file.display())
    });
    let properties = [&properties[..], &[format!("{listener}.ssl.client.auth=required")]].concat();
    let options = Options { secure: Some("SSL"), properties: &properties, ..Options::default() };
    let Some(server) = Server::start(options) else { return };
    let address = format!("127.0.0.1:{}", server.with(|kafka| Ok(kafka.secure_port())));
    server.topic("in", 1);
    server.topic("out", 1);
    let x509 = ", tls: { trustedCaCertificateFile: secrets/ca }, authentication: { method: X509Certificate, \
         x509CertificateSettings: { certificateFile: secrets/certificate, keyFile: secrets/key } }";
    let site = Site::new("{ shards: 1 }", &[("k", &endpoint(&address, "secure", x509))]);
    site.flow(&Flow::passing(("k", "in"), ("k", "out")));
    site.write("secrets/ca", &authority.pem());
    let stranger = Authority::new("another one").issue("stranger", folder.path());
    site.write("secrets/certificate", &read(&stranger.certificate));
    site.write("secrets/key", &read(&stranger.key));
    let connection =
        || site.status()["tenants"][0]["sinks"][0]["connection"].as_str().unwrap_or_default().to_owned();
    let host = site.up();
    eventually("a stranger is not let in", || connection().contains("degraded"));
    site.write("secrets/certificate", &read(&client.certificate));
    site.write("secrets/key", &read(&client.key));
    eventually("it is connected", || connection() == "connected");
    server.send("in", 0..10);
    eventually("all came", || server.records("out").len() == 10);
    host.stop();
}

#[test]
fn kafka_transactions_give_each_record_once_however_often_the_host_is_killed() {
    let Some(server) = Server::shared() else { return };
    let (from, to) = ("once.in", "once.out");
    server.topic(from, 3);
    server.topic(to, 3);
    let site = site_of("test", &server, ", transactions: true", from, to);
    let mut came = 0;
    for round in 0..4_u64 {
        let host = site.up();
        server.send(from, round * 3_000..(round + 1) * 3_000);
        eventually("some more came", || server.committed(to).len() > came);
        host.kill();
        came = server.committed(to).len();
    }
    let host = site.up();
    eventually("all came", || server.committed(to).len() >= 12_000);
    // Redeployed under load, and stopped in order.
    server.send(from, 12_000..13_000);
    site.flow(&Flow {
        operators: &[("map", "pass_through"), ("map", "pass_through")],
        ..Flow::passing(("k", from), ("k", to))
    });
    assert_eq!(site.apply().code, 0);
    server.send(from, 13_000..14_000);
    eventually("all came again", || server.committed(to).len() >= 14_000);
    host.stop();
    let mut all = server.committed(to);
    all.sort_unstable();
    assert_eq!(all, (0..14_000).collect::<Vec<_>>(), "each once");
}

#[test]
fn kafka_a_record_that_is_refused_leaves_its_transaction() {
    let Some(server) = Server::shared() else { return };
    let (from, to) = ("refused.in", "refused.out");
    server.topic(from, 1);
    server.topic(to, 1);
    let site =
        Site::new("{ shards: 1 }", &[("k", &endpoint(&server.address(), "refused", ", transactions: true"))]);
    site.flow(&Flow::passing(("k", from), ("k", "no.such.topic")));
    let host = site.up();
    server.send(from, 0..20);
    eventually("all are dead letters", || site.counter("a", "dead") >= 20);
    site.flow(&Flow::passing(("k", from), ("k", to)));
    assert_eq!(site.apply().code, 0);
    server.send(from, 20..40);
    eventually("the next came", || server.committed(to).len() >= 20);
    host.stop();
    assert_eq!(server.committed(to), (20..40).collect::<Vec<_>>());
    let letters = site.run(&["dead-letters", "list", "--json"]).stdout;
    assert_eq!(letters.matches("Kafka refused it").count(), 20, "{letters}");
}

#[test]
fn kafka_transactions_and_a_host_that_comes_and_goes_give_each_record_once() {
    let Some(server) = Server::shared() else { return };
    let (from, to) = ("moved.in", "moved.out");
    server.topic(from, 4);
    server.topic(to, 4);
    let sites = ["one", "other"].map(|name| site_of(name, &server, ", transactions: true", from, to));
    let stays = sites[0].up();
    let mut next = 0;
    let mut some = |count: u64| {
        server.send(from, next..next + count);
        next += count;
        next
    };
    eventually("the first has something", || {
        some(200);
        sites[0].counter("a", "received") > 0
    });
    for _ in 0..3 {
        let comes = sites[1].up();
        eventually("the other has something", || {
            some(200);
            sites[1].counter("a", "received") > 0
        });
        some(2_000);
        comes.stop();
    }
    let all = some(100) as usize;
    eventually("all came", || server.committed(to).len() >= all);
    stays.stop();
    let mut came = server.committed(to);
    came.sort_unstable();
    assert_eq!(came, (0..all as u64).collect::<Vec<_>>(), "each once");
}
