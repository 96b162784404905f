use std::{task::Waker, time::Duration};

use proptest::prelude::*;
use rumqttc::{
    mqttbytes::v4,
    v5::mqttbytes::v5::{Disconnect, DisconnectReasonCode, Packet, PubAck as TheirPubAck, PubAckReason},
};

use super::*;
use crate::{
    batch::{Batch, BatchBuilder},
    clock::{Clock, VirtualClock},
    connector::mqtt::{
        InflightMax, Qos, Version,
        tests::{Stepper, connack, encode, puback, publishes, sent},
    },
    topic::{TopicFilter, TopicTemplate},
    write::{Confirmed, Confirms, Destination},
};

/// A sink session between a scripted broker and a dataflow played by the test.
struct Bench {
    stepper: Stepper<SinkSession>,
    queue: Arc<SinkQueue>,
    confirms: Arc<Confirms>,
    destination: Arc<Destination>,
    writes: u64,
}

impl Bench {
    fn new() -> Self {
        Self::with(Settings::new("id".into()), "${outputTopic}")
    }

    fn with(settings: Settings, template: &str) -> Self {
        let queue = SinkQueue::new(1 << 20);
        let destination = Arc::new(Destination {
            name: "weather/frost/out".into(),
            topic: TopicTemplate::parse(template).expect("valid"),
            write_grants: vec![TopicFilter::parse("out/#").expect("valid")],
            headers: Default::default(),
        });
        let stepper = Stepper::new(SinkSession::new(settings, queue.clone()));
        let confirms = Confirms::new(Waker::noop().clone());
        Bench { stepper, queue, confirms, destination, writes: 0 }
    }

    fn connect(&mut self) -> Vec<Packet> {
        self.stepper.connect(&connack(None, None))
    }

    /// Puts a write of these messages to `out/x` into the queue.
    fn write(&mut self, payloads: &[&str]) {
        self.write_to(&payloads.iter().map(|payload| ("out/x", *payload)).collect::<Vec<_>>());
    }

    fn write_to(&mut self, messages: &[(&str, &str)]) {
        let mut builder = BatchBuilder::new("edge-1");
        for (topic, payload) in messages {
            builder.push(topic.as_bytes(), None, payload.as_bytes(), []);
        }
        self.write_batch(builder.finish());
    }

    fn write_batch(&mut self, batch: Batch) {
        self.writes += 1;
        self.queue.push(Write::new(self.writes, batch, self.destination.clone(), self.confirms.clone()));
    }

    /// Writes confirmed since the last call, and what was rejected of each.
    fn confirmed(&mut self) -> Vec<(u64, Vec<(u32, String)>)> {
        let mut confirmed = Vec::new();
        self.confirms.take(&mut confirmed);
        confirmed.into_iter().map(|Confirmed { id, rejected }| (id, rejected)).collect()
    }

    fn give(&mut self, bytes: &[u8]) -> Vec<(u16, bool, String)> {
        publishes(&self.stepper.give(bytes))
    }

    fn poll(&mut self) -> Vec<(u16, bool, String)> {
        publishes(&self.stepper.poll())
    }
}

fn fresh(from: u16, payloads: &[&str]) -> Vec<(u16, bool, String)> {
    (from..=u16::MAX).zip(payloads).map(|(id, payload)| (id, false, payload.to_string())).collect()
}

fn again(from: u16, payloads: &[&str]) -> Vec<(u16, bool, String)> {
    (from..=u16::MAX).zip(payloads).map(|(id, payload)| (id, true, payload.to_string())).collect()
}

#[test]
fn a_write_is_confirmed_when_all_its_pubacks_came() {
    let mut bench = Bench::new();
    bench.connect();
    bench.write(&["1", "2"]);
    bench.write(&["3"]);
    assert_eq!(bench.poll(), fresh(1, &["1", "2", "3"]));
    bench.give(&puback(1));
    assert_eq!(bench.confirmed(), []);
    bench.give(&[puback(2), puback(3)].concat());
    assert_eq!(bench.confirmed(), [(1, vec![]), (2, vec![])]);
    assert_eq!(bench.stepper.session.unanswered(), 0);
}

#[test]
fn a_sink_of_3_1_1_sends_topic_and_payload_alone() {
    let settings = Settings { version: Version::V311, ..Settings::new("id".into()) };
    let mut bench = Bench::with(settings, "${outputTopic}");
    assert_eq!(bench.stepper.connect_v311(false), []);
    let mut builder = BatchBuilder::new("edge-1");
    builder.push(b"out/x", Some("text/plain"), b"1", [(&b"k"[..], &b"v"[..])]);
    builder.date_last(1_767_225_600_123);
    bench.write_batch(builder.finish());
    let publish = |dup| {
        let mut publish = v4::Publish::new("out/x", rumqttc::QoS::AtLeastOnce, "1");
        (publish.pkid, publish.dup) = (1, dup);
        v4::Packet::Publish(publish)
    };
    assert_eq!(bench.stepper.poll_v311(), [publish(false)]);
    bench.stepper.lose();
    assert_eq!(bench.stepper.connect_v311(false), [publish(true)]);
    bench.stepper.give_v311(&[0x40, 2, 0, 1]);
    assert_eq!(bench.confirmed(), [(1, vec![])]);
}

/// A sink on a clock of the test's.
fn on_a_clock(settings: Settings) -> (Bench, Arc<VirtualClock>) {
    let clock = Arc::<VirtualClock>::default();
    let settings = Settings { clock: Clock::Virtual(clock.clone()), ..settings };
    (Bench::with(settings, "${outputTopic}"), clock)
}

fn with_properties(payload: &[u8], properties: &[(&str, &str)]) -> Batch {
    let mut builder = BatchBuilder::new("edge-1");
    let properties = properties.iter().map(|(key, value)| (key.as_bytes(), value.as_bytes()));
    builder.push(b"out/x", None, payload, properties);
    builder.finish()
}

#[test]
fn what_a_message_carries_is_said_in_its_packet() {
    let carried = [
        ("__retain", "1"),
        ("__payloadFormat", "1"),
        ("k", "v"),
        ("__expires", "1767225660000"),
        ("__responseTopic", "back"),
        ("__correlationData", "AP8H"),
    ];
    let check = |settings: Settings, payload: &[u8], retain: bool, format: Option<u8>| {
        let (mut bench, clock) = on_a_clock(settings);
        bench.connect();
        bench.write_batch(with_properties(payload, &carried));
        for left_s in [60, 57] {
            let packets = bench.stepper.poll();
            let [Packet::Publish(publish)] = &packets[..] else { panic!("{packets:?}") };
            let properties = publish.properties.clone().expect("there are some");
            assert_eq!(publish.retain, retain);
            assert_eq!(properties.payload_format_indicator, format);
            assert_eq!(properties.message_expiry_interval, Some(left_s));
            assert_eq!(properties.response_topic.as_deref(), Some("back"));
            assert_eq!(properties.correlation_data.as_deref(), Some(&[0, 255, 7][..]));
            assert_eq!(properties.user_properties, [("k".to_owned(), "v".to_owned())]);
            clock.advance(Duration::from_secs(3));
            bench.stepper.lose();
            bench.stepper.session.connected(bench.stepper.now).expect("CONNECT can be written");
            sent(&mut bench.stepper.session);
            bench.stepper.session.received(&connack(None, None), bench.stepper.now).expect("it is valid");
        }
    };
    check(Settings::new("id".into()), "größer".as_bytes(), true, Some(1));
    check(Settings::new("id".into()), &[0xff], true, None);
    check(Settings { keeps_retain: false, ..Settings::new("id".into()) }, b"x", false, Some(1));
}

#[test]
fn a_topic_is_said_once_on_a_connection_where_the_broker_remembers() {
    let mut bench = Bench::new();
    let topics = |packets: &[Packet]| {
        let said = |packet: &Packet| match packet {
            Packet::Publish(publish) => {
                let alias = publish.properties.as_ref().and_then(|it| it.topic_alias);
                (String::from_utf8_lossy(&publish.topic).into_owned(), alias)
            }
            other => panic!("{other:?}"),
        };
        packets.iter().map(said).collect::<Vec<_>>()
    };
    let expected = |said: &[(&str, Option<u16>)]| {
        said.iter().map(|(topic, alias)| (topic.to_string(), *alias)).collect::<Vec<_>>()
    };
    const TWO_ALIASES: [u8; 8] = [0x20, 6, 0, 0, 3, 0x22, 0, 2];
    bench.stepper.connect(&TWO_ALIASES);
    bench.write_to(&[("out/first", "1"), ("out/second", "2"), ("out/first", "3"), ("out/third", "4")]);
    bench.write(&["5"]);
    let packets = bench.stepper.poll();
    let first = expected(&[
        ("out/first", Some(1)),
        ("out/second", Some(2)),
        ("", Some(1)),
        ("out/third", None),
        ("out/x", None),
    ]);
    assert_eq!(topics(&packets), first);
    bench.stepper.lose();
    assert_eq!(topics(&bench.stepper.connect(&TWO_ALIASES)), first, "another connection knows none");
    bench.stepper.lose();
    let none = expected(&["out/first", "out/second", "out/first", "out/third", "out/x"].map(|it| (it, None)));
    assert_eq!(topics(&bench.connect()), none);
}

#[test]
fn what_has_expired_is_not_sent_and_counts_as_done() {
    let (mut bench, clock) = on_a_clock(Settings::new("id".into()));
    let expiring = |payload: &str| with_properties(payload.as_bytes(), &[("__expires", "1767225601000")]);
    bench.connect();
    bench.write_batch(expiring("1"));
    bench.write(&["2"]);
    assert_eq!(bench.poll(), fresh(1, &["1", "2"]));
    clock.advance(Duration::from_secs(1));
    bench.write_batch(expiring("3"));
    bench.write(&["4"]);
    assert_eq!(bench.poll(), fresh(3, &["4"]));
    bench.stepper.lose();
    assert_eq!(publishes(&bench.connect()), again(2, &["2", "4"]));
    assert_eq!(bench.confirmed(), [(1, vec![])]);
    bench.give(&[puback(2), puback(3)].concat());
    assert_eq!(bench.confirmed(), [(2, vec![]), (3, vec![]), (4, vec![])]);
    let status = bench.stepper.session.status();
    assert_eq!((status.expired.get(), status.rejected.get()), (2, 0));
}

#[test]
fn what_a_message_cannot_carry_is_rejected() {
    let mut bench = Bench::new();
    bench.connect();
    bench.write_batch(with_properties(b"1", &[("__responseTopic", "a/#")]));
    assert_eq!(bench.poll(), []);
    let reason = "its property `__responseTopic` cannot be read".to_owned();
    assert_eq!(bench.confirmed(), [(1, vec![(0, reason)])]);
}

#[test]
fn an_empty_write_is_confirmed_at_once() {
    let mut bench = Bench::new();
    bench.connect();
    bench.write(&[]);
    bench.poll();
    assert_eq!(bench.confirmed(), [(1, vec![])]);
}

#[test]
fn nothing_is_taken_without_a_connection() {
    let mut bench = Bench::new();
    bench.write(&["1"]);
    assert_eq!(bench.poll(), []);
    assert_eq!(bench.queue.depth().0, 1, "the queue fills and holds its dataflow back");
    assert_eq!(publishes(&bench.connect()), fresh(1, &["1"]));
}

#[test]
fn the_window_is_the_smaller_of_the_broker_s_and_ours() {
    let payloads: Vec<String> = (0..200).map(|number| number.to_string()).collect();
    let payloads: Vec<&str> = payloads.iter().map(String::as_str).collect();
    for (broker, ours, expected) in
        [(Some(20), 100, 20), (None, 100, 100), (Some(500), 64, 64), (Some(1), 64, 1)]
    {
        let settings = Settings { inflight_max: InflightMax::nearest(ours), ..Settings::new("id".into()) };
        let mut bench = Bench::with(settings, "${outputTopic}");
        bench.write(&payloads[..150]);
        bench.write(&payloads[150..]);
        assert_eq!(publishes(&bench.stepper.connect(&connack(broker, None))).len(), expected);
        let next = expected;
        assert_eq!(bench.give(&puback(1)), fresh(next as u16 + 1, &payloads[next..next + 1]));
    }
}

#[test]
fn unconfirmed_messages_are_sent_again_in_order_whether_or_not_the_session_is_present() {
    for session_present in [false, true] {
        let mut bench = Bench::new();
        bench.connect();
        bench.write(&["1", "2"]);
        bench.write(&["3", "4"]);
        bench.poll();
        bench.give(&puback(2));
        bench.stepper.lose();
        bench.stepper.advance(Duration::from_secs(1));
        bench.write(&["5"]);
        let greeting = [0x20, 3, u8::from(session_present), 0, 0];
        let packets = publishes(&bench.stepper.connect(&greeting));
        let expected = [again(1, &["1"]), again(3, &["3", "4"]), fresh(5, &["5"])].concat();
        assert_eq!(packets, expected, "session present: {session_present}");
        bench.give(&[puback(1), puback(3), puback(4), puback(5)].concat());
        assert_eq!(bench.confirmed().len(), 3);
        assert_eq!(bench.stepper.session.status().redelivered.get(), 3);
    }
}

#[test]
fn after_the_packet_ids_wrapped_messages_are_sent_again_in_sequence() {
    let mut bench = Bench::new();
    bench.connect();
    for id in 1..=65_533 {
        bench.write(&["x"]);
        assert_eq!(bench.poll(), fresh(id, &["x"]));
        bench.give(&puback(id));
    }
    assert_eq!(bench.confirmed().len(), 65_533);
    bench.write(&["a", "b", "c", "d"]);
    let ids: Vec<u16> = bench.poll().iter().map(|(id, ..)| *id).collect();
    assert_eq!(ids, [65_534, 65_535, 1, 2]);
    bench.stepper.lose();
    bench.stepper.advance(Duration::from_secs(1));
    let expected = [again(65_534, &["a", "b"]), again(1, &["c", "d"])].concat();
    assert_eq!(publishes(&bench.connect()), expected);
}

#[test]
fn sending_again_respects_a_smaller_window() {
    let mut bench = Bench::new();
    bench.connect();
    bench.write(&["1", "2", "3", "4"]);
    bench.poll();
    bench.stepper.lose();
    bench.stepper.advance(Duration::from_secs(1));
    assert_eq!(publishes(&bench.stepper.connect(&connack(Some(2), None))), again(1, &["1", "2"]));
    assert_eq!(bench.give(&puback(1)), again(3, &["3"]));
    assert_eq!(bench.give(&[puback(2), puback(3)].concat()), again(4, &["4"]));
    bench.give(&puback(4));
    assert_eq!(bench.confirmed(), [(1, vec![])]);
}

#[test]
fn what_the_broker_refuses_for_good_is_rejected_with_its_reason() {
    let mut bench = Bench::new();
    bench.connect();
    bench.write(&["1", "2", "3"]);
    bench.poll();
    let mut refused = TheirPubAck::new(2, None);
    refused.reason = PubAckReason::QuotaExceeded;
    let mut unheard = TheirPubAck::new(3, None);
    unheard.reason = PubAckReason::NoMatchingSubscribers;
    bench.give(&[puback(1), encode(&Packet::PubAck(refused)), encode(&Packet::PubAck(unheard))].concat());
    assert_eq!(bench.confirmed(), [(1, vec![(1, "broker refused it: quota exceeded (0x97)".into())])]);
    assert_eq!(bench.stepper.session.status().rejected.get(), 1);
}

#[test]
fn what_policy_does_not_grant_is_rejected_and_the_rest_goes_on() {
    let mut bench = Bench::new();
    bench.connect();
    bench.write_to(&[("out/a", "1"), ("other/in", "2"), ("out/b\n", "3"), ("out/c", "4")]);
    assert_eq!(bench.poll(), fresh(1, &["1", "4"]));
    bench.give(&[puback(1), puback(2)].concat());
    let text = "topic is not text that MQTT carries (UTF-8, 65,535 bytes, no control characters)";
    let rejected = vec![(1, "policy does not let the tenant write to `other/in`".into()), (2, text.into())];
    assert_eq!(bench.confirmed(), [(1, rejected)]);
}

#[test]
fn a_packet_over_the_broker_s_limit_is_rejected() {
    let large = "x".repeat(200);
    let mut bench = Bench::new();
    bench.stepper.connect(&connack(None, Some(100)));
    bench.write(&["1", &large, "3"]);
    assert_eq!(bench.poll(), fresh(1, &["1", "3"]));
    bench.give(&[puback(1), puback(2)].concat());
    let reason = "packet of 213 bytes where the broker takes at most 100".to_owned();
    assert_eq!(bench.confirmed(), [(1, vec![(1, reason)])]);
}

#[test]
fn a_limit_that_shrank_meanwhile_rejects_what_would_be_sent_again() {
    let large = "x".repeat(200);
    let mut bench = Bench::new();
    bench.connect();
    bench.write(&["1", &large, "3"]);
    assert_eq!(bench.poll().len(), 3);
    bench.stepper.lose();
    bench.stepper.advance(Duration::from_secs(1));
    let packets = publishes(&bench.stepper.connect(&connack(None, Some(100))));
    assert_eq!(packets, [again(1, &["1"]), again(3, &["3"])].concat());
    bench.give(&[puback(1), puback(3)].concat());
    let confirmed = bench.confirmed();
    assert_eq!((confirmed.len(), confirmed[0].1.len(), confirmed[0].1[0].0), (1, 1, 1), "{confirmed:?}");
}

#[test]
fn a_message_over_which_the_broker_hangs_up_is_found_and_rejected() {
    let mut bench = Bench::new();
    bench.connect();
    bench.write(&["1", "bad", "3"]);
    bench.poll();
    let hang_up = encode(&Packet::Disconnect(Disconnect {
        reason_code: DisconnectReasonCode::MalformedPacket,
        properties: Some(rumqttc::v5::mqttbytes::v5::DisconnectProperties {
            session_expiry_interval: None,
            reason_string: None,
            user_properties: vec![("k".into(), "v".into())],
            server_reference: None,
        }),
    }));
    let mut connections = 0;
    loop {
        let Err(error) = bench.stepper.session.received(&hang_up, bench.stepper.now) else {
            panic!("it hangs up")
        };
        bench.stepper.session.disconnected(bench.stepper.now, &error);
        bench.stepper.advance(Duration::from_secs(60));
        connections += 1;
        assert!(connections < 5, "it goes round and round");
        let mut packets = publishes(&bench.connect());
        while let [(id, _, payload)] = &packets[..] {
            if payload == "bad" {
                break;
            }
            packets = bench.give(&puback(*id));
        }
        if packets.is_empty() {
            break;
        }
    }
    let confirmed = bench.confirmed();
    let reason = "the broker ended the connection: MalformedPacket (0x81)".to_owned();
    assert_eq!(confirmed, [(1, vec![(1, reason)])]);
    bench.write(&["4", "5"]);
    assert_eq!(bench.poll().len(), 2, "the window is whole again");
}

#[test]
fn qos_0_is_confirmed_when_it_is_written() {
    let settings = Settings { qos: Qos::AtMostOnce, ..Settings::new("id".into()) };
    let mut bench = Bench::with(settings, "${outputTopic}");
    bench.connect();
    bench.write(&["1", "2"]);
    bench.stepper.try_poll().expect("nothing is wrong");
    bench.stepper.try_poll().expect("nothing is wrong");
    assert_eq!(bench.confirmed(), [], "it stands in the write buffer");
    let packets = publishes(&sent(&mut bench.stepper.session));
    assert_eq!(packets, [(0, false, "1".into()), (0, false, "2".into())]);
    bench.poll();
    assert_eq!(bench.confirmed(), [(1, vec![])]);
}

#[test]
fn a_message_carries_its_timestamp_and_all_that_came_with_it() {
    let mut builder = BatchBuilder::new("edge-1");
    let properties = [(&b"k"[..], &b"v"[..]), (b"__ts", b"000000000000001:00000:other"), (b"k", b"w")];
    builder.push(b"out/x", Some("text/plain"), b"payload", properties);
    let mut batch = builder.finish();
    (batch.entries[0].seconds, batch.entries[0].nanos, batch.entries[0].counter) =
        (1_767_225_600, 123_456_789, 42);
    let mut bench = Bench::with(Settings::new("id".into()), "out/fixed");
    bench.connect();
    bench.write_batch(batch);
    let packets = bench.stepper.poll();
    let [Packet::Publish(publish)] = &packets[..] else { panic!("{packets:?}") };
    assert_eq!((&publish.topic[..], &publish.payload[..]), (&b"out/fixed"[..], &b"payload"[..]));
    let properties = publish.properties.as_ref().expect("there are some");
    assert_eq!(properties.content_type.as_deref(), Some("text/plain"));
    let expected = [("k", "v"), ("k", "w"), ("__ts", "001767225600123:00042:edge-1")];
    assert_eq!(properties.user_properties, expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
}

#[test]
fn properties_that_no_broker_takes_are_rejected() {
    let text = |what: &str| {
        format!("{what} is not text that MQTT carries (UTF-8, 65,535 bytes, no control characters)")
    };
    let long = vec![b'x'; 70_000];
    type Case<'a> = (Option<&'a str>, &'a [u8], &'a [u8], &'a str);
    let cases: [Case<'_>; 4] = [
        (Some("text\n"), b"k", b"v", "content type"),
        (None, b"k\0", b"v", "user property"),
        (None, b"k", &[0xff], "user property"),
        (None, b"k", &long, "user property"),
    ];
    for (content_type, key, value, what) in cases {
        let mut builder = BatchBuilder::new("edge-1");
        builder.push(b"out/x", content_type, b"", [(key, value)]);
        let mut bench = Bench::new();
        bench.connect();
        bench.write_batch(builder.finish());
        assert_eq!(bench.poll(), []);
        assert_eq!(bench.confirmed(), [(1, vec![(0, text(what))])]);
    }
}

#[test]
fn a_closed_sink_drains_and_says_goodbye() {
    let mut bench = Bench::new();
    bench.connect();
    bench.write(&["1"]);
    bench.poll();
    bench.write(&["2"]);
    bench.queue.close();
    assert_eq!(bench.poll(), fresh(2, &["2"]));
    assert!(!bench.stepper.session.is_finished());
    let packets = bench.stepper.give(&[puback(1), puback(2)].concat());
    assert!(matches!(packets[..], [Packet::Disconnect(_)]), "{packets:?}");
    assert!(bench.stepper.session.is_finished());
    assert_eq!(bench.confirmed().len(), 2);
}

#[test]
fn a_closed_sink_without_a_broker_ends_only_when_it_owes_nothing() {
    let mut bench = Bench::new();
    bench.poll();
    bench.stepper.take_woken();
    bench.queue.close();
    assert_eq!(bench.stepper.take_woken(), 1);
    bench.poll();
    assert!(bench.stepper.session.is_finished());

    let mut bench = Bench::new();
    bench.write(&["1"]);
    bench.queue.close();
    bench.poll();
    assert!(!bench.stepper.session.is_finished(), "a write waits for the broker");
}

#[test]
fn an_answer_to_nothing_ends_the_connection() {
    let mut bench = Bench::new();
    bench.connect();
    let error = bench.stepper.session.received(&puback(5), bench.stepper.now).expect_err("nobody asked");
    assert_eq!(error.to_string(), "unexpected PUBACK");
}

proptest! {
    #[test]
    fn no_bytes_from_a_broker_can_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut bench = Bench::new();
        bench.connect();
        bench.write(&["1", "2"]);
        bench.poll();
        let _ = bench.stepper.session.received(&bytes, bench.stepper.now);
        let _ = bench.stepper.try_poll();
    }

    /// Through any losses, an ideal broker has every message, first seen in order.
    #[test]
    fn nothing_is_lost_or_reordered(steps in prop::collection::vec(0..10u8, 1..120), window in 1..20u16) {
        let mut bench = Bench::new();
        let mut seen: Vec<u64> = Vec::new();
        let mut unanswered: Vec<u16> = Vec::new();
        let mut number = 0;
        let greeting = connack(Some(window), None);
        let mut packets = publishes(&bench.stepper.connect(&greeting));
        for step in steps.into_iter().chain([9; 400]) {
            match step {
                0..4 => {
                    let texts: Vec<String> = (0..=step).map(|i| (number + u64::from(i)).to_string()).collect();
                    number += u64::from(step) + 1;
                    bench.write(&texts.iter().map(String::as_str).collect::<Vec<_>>());
                    packets.extend(bench.poll());
                }
                4 => {
                    bench.stepper.lose();
                    unanswered.clear();
                    bench.stepper.advance(Duration::from_secs(60));
                    packets.extend(publishes(&bench.stepper.connect(&greeting)));
                }
                _ if !unanswered.is_empty() => {
                    let id = unanswered.remove(0);
                    packets.extend(bench.give(&puback(id)));
                }
                _ => {}
            }
            for (id, dup, payload) in packets.drain(..) {
                let value: u64 = payload.parse().expect("a number");
                unanswered.push(id);
                prop_assert_eq!(dup, seen.contains(&value), "message {}", value);
                if !dup {
                    seen.push(value);
                }
                prop_assert!(unanswered.len() <= usize::from(window));
            }
        }
        prop_assert_eq!(seen, (0..number).collect::<Vec<_>>());
        prop_assert_eq!(bench.confirmed().len() as u64, bench.writes);
    }
}
