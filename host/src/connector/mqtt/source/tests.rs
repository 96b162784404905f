use std::{
    sync::{Mutex, mpsc},
    task::Waker,
};

use proptest::prelude::*;
use rumqttc::{
    mqttbytes::v4,
    v5::mqttbytes::v5::{Packet, PingReq, PingResp, PublishProperties, RetainForwardRule},
};

use super::*;
use crate::{
    clock::{Clock, VirtualClock},
    connector::{
        mqtt::{
            Qos,
            tests::{Stepper, connack, encode, puback_ids, publish, publish_v311, publish_with},
        },
        status::ConnectionState,
    },
    ledger::Ledger,
    queue::{Delivery, Queue},
};

const PAYLOAD_BYTES_MAX: usize = 1000;

/// A source session between a scripted broker and a dataflow played by the test.
struct Bench {
    stepper: Stepper<SourceSession>,
    queue: Arc<Queue>,
    ledger: Arc<Ledger>,
    oversize: mpsc::Receiver<Oversize>,
    stop: Stop,
    unsettled: Vec<Delivery>,
}

impl Bench {
    fn new() -> Self {
        Self::with(Settings::new("id".into()), 1 << 20)
    }

    fn with(settings: Settings, credit_bytes: usize) -> Self {
        Self::of(settings, credit_bytes, false)
    }

    fn of(settings: Settings, credit_bytes: usize, identifies: bool) -> Self {
        let queue = Queue::new(Waker::noop().clone());
        let ledger = Ledger::new(credit_bytes);
        let stop = Stop::default();
        let (tx, oversize) = mpsc::channel();
        let tx = Mutex::new(tx);
        let options = SourceOptions {
            filters: ["a/#", "b"].map(|filter| TopicFilter::parse(filter).expect("valid")).to_vec(),
            payload_bytes_max: PAYLOAD_BYTES_MAX,
            node: "edge-1".into(),
            identifies,
            oversize: Box::new(move |oversize| {
                tx.lock().expect("one thread").send(oversize).expect("the test listens");
            }),
            stop: stop.clone(),
        };
        let door = SourceDoor::new(0, queue.clone(), ledger.clone());
        let stepper = Stepper::new(SourceSession::new(settings, options, door));
        Bench { stepper, queue, ledger, oversize, stop, unsettled: Vec::new() }
    }

    fn connect(&mut self) {
        let packets = self.stepper.connect(&connack(None, None));
        let [Packet::Subscribe(subscribe)] = &packets[..] else { panic!("{packets:?}") };
        let asked: Vec<_> =
            subscribe.filters.iter().map(|filter| (&filter.path[..], filter.qos as u8)).collect();
        assert_eq!(asked, [("a/#", 1), ("b", 1)]);
        assert_eq!(self.stepper.give(&[0x90, 5, 0, 1, 0, 1, 1]), []);
    }

    /// What the dataflow is handed now: payloads of each delivery.
    fn deliveries(&mut self) -> Vec<Vec<String>> {
        let mut deliveries = Vec::new();
        while let Some(delivery) = self.queue.pop() {
            let batch = &delivery.batch;
            let payload = |entry: &crate::batch::Entry| {
                String::from_utf8_lossy(entry.payload.bytes(&batch.arena)).into_owned()
            };
            deliveries.push(batch.entries.iter().map(payload).collect());
            self.unsettled.push(delivery);
        }
        deliveries
    }

    /// Acks the first `count` deliveries that are not acked.
    fn ack(&mut self, count: usize) {
        for Delivery { settle, .. } in self.unsettled.drain(..count) {
            settle.ack();
        }
    }

    /// Polls after the wait for company is over: ids of the PUBACKs.
    fn pubacks(&mut self) -> Vec<u16> {
        self.stepper.advance(SETTLE_WITHIN);
        puback_ids(&self.stepper.poll())
    }
}

fn messages(ids: std::ops::Range<u16>) -> Vec<u8> {
    ids.flat_map(|id| publish("a/b", &id.to_string(), id, false)).collect()
}

#[test]
fn everything_that_a_read_brought_is_one_delivery() {
    let mut bench = Bench::new();
    bench.connect();
    bench.stepper.give(&messages(1..4));
    assert_eq!(bench.deliveries(), [["1", "2", "3"]]);
    bench.stepper.give(&messages(4..5));
    assert_eq!(bench.deliveries(), [["4"]]);
    bench.stepper.give(&messages(5..306));
    let sizes: Vec<usize> = bench.deliveries().iter().map(Vec::len).collect();
    assert_eq!(sizes, [256, 45], "a delivery has its limit");
}

#[test]
fn pubacks_come_in_order_of_receipt_once_their_delivery_is_settled() {
    let mut bench = Bench::new();
    bench.connect();
    // The broker may number as it likes; order is that of receipt.
    bench.stepper.give(&[publish("b", "x", 7, false), publish("b", "y", 3, false)].concat());
    bench.stepper.give(&publish("b", "z", 5, false));
    bench.deliveries();
    assert_eq!(bench.pubacks(), [0u16; 0]);
    bench.ack(1);
    assert_eq!(bench.pubacks(), [7, 3]);
    assert_eq!(bench.pubacks(), [0u16; 0]);
    bench.ack(1);
    assert_eq!(bench.pubacks(), [5]);
}

#[test]
fn qos_0_is_delivered_and_needs_no_answer() {
    let mut bench = Bench::new();
    bench.connect();
    bench.stepper.give(
        &[publish("b", "0", 0, false), publish("b", "1", 9, false), publish("b", "2", 0, false)].concat(),
    );
    assert_eq!(bench.deliveries(), [["0", "1", "2"]]);
    bench.ack(1);
    assert_eq!(bench.pubacks(), [9]);
}

#[test]
fn settlements_wait_for_company_but_not_for_long() {
    let mut bench = Bench::new();
    bench.connect();
    let mut settle_by = bench.stepper.now.plus(SETTLE_WITHIN);
    bench.stepper.give(&messages(1..2));
    bench.deliveries();
    bench.stepper.take_woken();
    bench.ack(1);
    assert_eq!(bench.stepper.take_woken(), 0, "others may share its packet");
    assert_eq!(bench.stepper.give(&messages(2..3)), []);
    bench.deliveries();
    assert_eq!(bench.stepper.session.deadline(), Some(settle_by));
    bench.stepper.now = settle_by;
    assert_eq!(puback_ids(&bench.stepper.poll()), [1]);
    settle_by = settle_by.plus(SETTLE_WITHIN);
    assert_eq!(bench.stepper.session.deadline(), Some(settle_by));
    bench.stepper.now = settle_by;
    assert_eq!(bench.stepper.poll(), []);
    bench.stepper.take_woken();
    bench.ack(1);
    assert_eq!(bench.stepper.take_woken(), 1, "it was not settled in time");
    assert_eq!(puback_ids(&bench.stepper.poll()), [2]);
}

#[test]
fn a_broker_with_a_window_of_one_waits_only_once() {
    let mut bench = Bench::new();
    bench.connect();
    bench.stepper.give(&messages(1..2));
    bench.deliveries();
    bench.ack(1);
    assert_eq!(bench.pubacks(), [1]);
    for id in 2..10 {
        bench.stepper.give(&messages(id..id + 1));
        bench.deliveries();
        bench.stepper.take_woken();
        bench.ack(1);
        assert_eq!(bench.stepper.take_woken(), 1, "message {id}");
        assert_eq!(puback_ids(&bench.stepper.poll()), [id]);
    }
}

#[test]
fn with_many_pubacks_due_every_settlement_wakes() {
    let mut bench = Bench::new();
    bench.connect();
    for id in 1..=EAGER_FROM as u16 {
        bench.stepper.give(&messages(id..id + 1));
    }
    bench.deliveries();
    bench.stepper.take_woken();
    bench.ack(1);
    assert_eq!(bench.stepper.take_woken(), 1);
    assert_eq!(puback_ids(&bench.stepper.poll()), [1]);
}

#[test]
fn a_puback_of_an_older_connection_is_dropped() {
    let mut bench = Bench::new();
    bench.connect();
    bench.stepper.give(&messages(1..4));
    bench.deliveries();
    bench.stepper.lose();
    bench.ack(1);
    bench.stepper.advance(Duration::from_secs(1));
    bench.connect();
    assert_eq!(bench.pubacks(), [0u16; 0], "ids 1 to 3 mean nothing on this connection");
    bench.stepper.give(&publish("a/b", "1", 1, true));
    assert_eq!(bench.deliveries(), [["1"]]);
    assert_eq!(bench.stepper.session.status().redelivered.get(), 1);
    bench.ack(1);
    assert_eq!(bench.pubacks(), [1]);
}

#[test]
fn messages_taken_before_a_loss_are_still_delivered() {
    let mut bench = Bench::with(Settings::new("id".into()), 4096);
    bench.connect();
    let all = bench.ledger.try_acquire(4096).expect("free");
    bench.stepper.give(&messages(1..3));
    assert!(bench.queue.is_empty());
    bench.stepper.lose();
    drop(all);
    bench.stepper.poll();
    assert_eq!(bench.deliveries(), [["1", "2"]], "the broker may have lost them");
}

#[test]
fn without_credit_nothing_is_acknowledged_and_pings_go_on() {
    let settings = Settings { keep_alive: Duration::from_secs(10), ..Settings::new("id".into()) };
    let mut bench = Bench::with(settings, 4096);
    bench.connect();
    let all = bench.ledger.try_acquire(4096).expect("free");
    for id in 1..=100 {
        bench.stepper.give(&publish("b", "0123456789", id, false));
    }
    assert!(bench.queue.is_empty());
    bench.stepper.advance(Duration::from_secs(5));
    assert_eq!(bench.stepper.poll(), [], "it said and heard enough");
    for _ in 0..5 {
        bench.stepper.advance(Duration::from_secs(5));
        assert_eq!(bench.stepper.poll(), [Packet::PingReq(PingReq)]);
        if bench.stepper.session.wants_read() {
            bench.stepper.give(&encode(&Packet::PingResp(PingResp)));
        }
    }
    bench.stepper.take_woken();
    drop(all);
    assert!(bench.stepper.take_woken() > 0, "credit wakes the source");
    let (mut delivered, mut acked) = (0, Vec::new());
    while acked.len() < 100 {
        acked.extend(bench.pubacks());
        delivered += bench.deliveries().concat().len();
        bench.ack(bench.unsettled.len());
        assert!(acked.len() <= delivered);
    }
    assert_eq!(acked, (1..101).collect::<Vec<u16>>());
}

#[test]
fn a_source_that_holds_too_much_is_not_read_and_lets_qos_0_go() {
    let mut bench = Bench::with(Settings::new("id".into()), 4096);
    bench.connect();
    let all = bench.ledger.try_acquire(4096).expect("free");
    let payload = "x".repeat(900);
    let mut taken = 0;
    while bench.stepper.session.held_bytes() < 4096 {
        bench.stepper.give(&publish("b", &payload, 0, false));
        taken += 1;
    }
    for _ in 0..10 {
        bench.stepper.give(&publish("b", &payload, 0, false));
    }
    assert_eq!(bench.stepper.session.status().dropped.get(), 10);
    assert!(bench.stepper.session.wants_read(), "QoS 1 still finds room");
    let mut id = 0;
    while bench.stepper.session.wants_read() {
        id += 1;
        bench.stepper.give(&publish("b", &payload, id, false));
    }
    assert!(bench.stepper.session.held_bytes() < 3 * 4096);
    drop(all);
    let mut delivered = 0;
    loop {
        bench.stepper.poll();
        let deliveries = bench.deliveries();
        if deliveries.is_empty() {
            break;
        }
        delivered += deliveries.concat().len();
        bench.ack(bench.unsettled.len());
    }
    assert_eq!(delivered, taken + usize::from(id), "nothing of QoS 1 is let go");
    assert!(bench.stepper.session.wants_read());
}

#[test]
fn a_message_over_the_limit_is_acknowledged_after_its_dead_letter() {
    let properties = PublishProperties {
        content_type: Some("text/plain".into()),
        user_properties: vec![("k".into(), "v".into())],
        ..PublishProperties::default()
    };
    // Just over the limit it is kept whole; far over, only its head is.
    for payload_bytes in [PAYLOAD_BYTES_MAX + 1, 500_000] {
        let large = publish_with("b", &"y".repeat(payload_bytes), 2, properties.clone());
        let stream = [messages(1..2), large, messages(3..4)].concat();
        for cut in [0, 20, 60, 70_000, stream.len() - 3] {
            let cut = cut.min(stream.len());
            let mut bench = Bench::new();
            bench.connect();
            bench.stepper.give(&stream[..cut]);
            bench.stepper.give(&stream[cut..]);
            assert_eq!(bench.deliveries().concat(), ["1", "3"]);
            let oversize = bench.oversize.try_recv().expect("it is handed over");
            let (entry, arena) = (oversize.message.entries[0], &oversize.message.arena);
            assert_eq!(entry.topic.bytes(arena), b"b");
            assert_eq!(entry.content_type.get(arena), Some(&b"text/plain"[..]));
            assert_eq!(oversize.message.properties(0).collect::<Vec<_>>(), [(&b"k"[..], &b"v"[..])]);
            assert_eq!(oversize.payload_bytes, payload_bytes as u64);
            assert_eq!(entry.payload.len as usize, payload_bytes.min(OVERSIZE_HEAD_BYTES));
            let count = bench.unsettled.len();
            bench.ack(count);
            assert_eq!(bench.pubacks(), [1], "cut at {cut}: 3 waits behind 2");
            assert_eq!(bench.pubacks(), [0u16; 0]);
            bench.stepper.take_woken();
            oversize.settle.ack();
            assert_eq!(bench.stepper.take_woken(), 1);
            assert_eq!(puback_ids(&bench.stepper.poll()), [2, 3]);
            assert_eq!(bench.stepper.session.status().oversize.get(), 1);
        }
    }
}

#[test]
fn what_an_earlier_subscription_left_is_not_delivered() {
    let mut bench = Bench::new();
    bench.connect();
    bench.stepper.give(
        &[publish("old", "x", 1, false), publish("a", "y", 2, false), publish("$SYS/z", "z", 3, false)]
            .concat(),
    );
    assert_eq!(bench.deliveries(), [["y"]]);
    assert_eq!(bench.stepper.session.status().unwanted.get(), 2);
    bench.ack(1);
    assert_eq!(bench.pubacks(), [1, 2, 3]);
}

#[test]
fn a_refused_subscription_is_an_error_that_names_the_filter() {
    let cases: [(&[u8], &str); 3] = [
        (&[0x90, 5, 0, 1, 0, 1, 0x87], "the broker refused the subscription to `b`: NotAuthorized"),
        (&[0x90, 5, 0, 1, 0, 0, 1], "the broker refused the subscription to `a/#`: it grants only QoS 0"),
        (&[0x90, 4, 0, 1, 0, 1], "malformed packet: SUBACK that answers another number of filters"),
    ];
    for (suback, expected) in cases {
        let mut bench = Bench::new();
        bench.stepper.connect(&connack(None, None));
        let error = bench.stepper.session.received(suback, bench.stepper.now).expect_err("refused");
        assert_eq!(error.to_string(), expected);
        assert_eq!(bench.stepper.session.status().state(), ConnectionState::Connecting);
    }
}

/// What a session left comes before the answer to SUBSCRIBE.
#[test]
fn a_source_is_connected_as_soon_as_messages_come() {
    let mut bench = Bench::new();
    bench.stepper.connect(&connack(None, None));
    assert_eq!(bench.stepper.session.status().state(), ConnectionState::Connecting);
    bench.stepper.give(&messages(1..2));
    assert_eq!(bench.stepper.session.status().state(), ConnectionState::Connected);
    assert_eq!(bench.deliveries(), [["1"]]);
}

#[test]
fn a_broker_is_asked_which_acknowledgements_it_has_read() {
    let mut bench = Bench::of(Settings::new("id".into()), 1 << 20, true);
    bench.connect();
    let opens = |bench: &Bench| {
        let open = |delivery: &Delivery| match &delivery.marks {
            Some(Marks::Sendings(sendings)) => sendings.open,
            other => panic!("{other:?}"),
        };
        bench.unsettled.iter().map(open).collect::<Vec<_>>()
    };
    bench.stepper.give(&messages(1..301));
    bench.deliveries();
    // The first was closed by the message behind it.
    assert_eq!(opens(&bench), [Some(257), Some(300)]);
    bench.ack(2);
    bench.stepper.advance(SETTLE_WITHIN);
    let packets = bench.stepper.poll();
    assert_eq!(puback_ids(&packets[..300]).len(), 300);
    assert_eq!(packets[300..], [Packet::PingReq(PingReq)], "behind what it asks for");
    bench.stepper.give(&messages(301..302));
    bench.deliveries();
    assert_eq!(opens(&bench), [Some(301)], "it has not answered");
    bench.stepper.give(&encode(&Packet::PingResp(PingResp)));
    bench.stepper.give(&messages(302..303));
    bench.deliveries();
    assert_eq!(opens(&bench), [Some(301), Some(2)]);
}

#[test]
fn a_stopped_source_acknowledges_what_it_delivered_and_leaves() {
    let mut bench = Bench::new();
    bench.connect();
    bench.stepper.give(&messages(1..3));
    bench.deliveries();
    bench.stepper.take_woken();
    bench.stop.stop(Farewell::UntilLater);
    assert_eq!(bench.stepper.take_woken(), 1);
    assert_eq!(bench.stepper.give(&messages(3..4)), []);
    assert_eq!(bench.deliveries(), Vec::<Vec<String>>::new(), "3 stays with the broker");
    assert!(!bench.stepper.session.is_finished());
    bench.ack(1);
    assert_eq!(bench.stepper.take_woken(), 1);
    let packets = bench.stepper.poll();
    assert_eq!(puback_ids(&packets), [1, 2]);
    assert!(matches!(packets.last(), Some(Packet::Disconnect(_))));
    assert!(bench.stepper.session.is_finished());
    assert_eq!(bench.stepper.session.status().state(), ConnectionState::Closed);
}

#[test]
fn a_source_that_never_comes_again_ends_its_session() {
    let mut bench = Bench::new();
    bench.connect();
    bench.stop.stop(Farewell::ForGood);
    let packets = bench.stepper.poll();
    let [Packet::Disconnect(disconnect)] = &packets[..] else { panic!("{packets:?}") };
    let properties = disconnect.properties.as_ref().expect("one is given");
    assert_eq!(properties.session_expiry_interval, Some(0));
}

#[test]
fn a_source_whose_dataflow_is_gone_leaves_without_acknowledging() {
    let mut bench = Bench::new();
    bench.connect();
    bench.stepper.give(&messages(1..3));
    bench.deliveries();
    bench.stepper.advance(SETTLE_WITHIN);
    bench.stepper.poll();
    bench.stepper.take_woken();
    for Delivery { settle, .. } in bench.unsettled.drain(..) {
        settle.abandon();
    }
    assert_eq!(bench.stepper.take_woken(), 1);
    let packets = bench.stepper.poll();
    assert!(matches!(packets[..], [Packet::Disconnect(_)]), "{packets:?}");
}

#[test]
fn a_publish_before_the_greeting_is_an_error() {
    let mut bench = Bench::new();
    bench.stepper.session.connected(bench.stepper.now).expect("CONNECT can be written");
    let error = bench.stepper.session.received(&messages(1..2), bench.stepper.now).expect_err("too early");
    assert_eq!(error.to_string(), "unexpected PUBLISH");
}

#[test]
fn subscribing_again_does_not_ask_for_retained_messages_again() {
    let mut bench = Bench::new();
    let packets = bench.stepper.connect(&connack(None, None));
    let [Packet::Subscribe(subscribe)] = &packets[..] else { panic!("{packets:?}") };
    let rules: Vec<_> = subscribe.filters.iter().map(|filter| filter.retain_forward_rule.clone()).collect();
    assert_eq!(rules, [RetainForwardRule::OnNewSubscribe, RetainForwardRule::OnNewSubscribe]);
}

#[test]
fn what_a_message_says_besides_goes_into_its_delivery() {
    let check = |keeps_retain: bool, expected: &[&str]| {
        let clock = Arc::<VirtualClock>::default();
        let settings = Settings { keeps_retain, clock: Clock::Virtual(clock), ..Settings::new("id".into()) };
        let mut bench = Bench::with(settings, 1 << 20);
        let packets = bench.stepper.connect(&connack(None, None));
        let [Packet::Subscribe(subscribe)] = &packets[..] else { panic!("{packets:?}") };
        assert!(subscribe.filters.iter().all(|filter| filter.preserve_retain == keeps_retain));
        bench.stepper.give(&[0x90, 5, 0, 1, 0, 1, 1]);
        let properties = PublishProperties {
            message_expiry_interval: Some(60),
            response_topic: Some("back".into()),
            user_properties: vec![("k".into(), "v".into())],
            ..PublishProperties::default()
        };
        let mut retained = publish_with("b", "x", 1, properties);
        retained[0] |= 1;
        bench.stepper.give(&retained);
        bench.deliveries();
        let batch = &bench.unsettled[0].batch;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let kept: Vec<_> = batch.properties(0).map(|(key, value)| text(key) + "=" + &text(value)).collect();
        assert_eq!(kept, expected);
    };
    check(true, &["k=v", "__retain=1", "__expires=1767225660000", "__responseTopic=back"]);
    check(false, &["k=v", "__expires=1767225660000", "__responseTopic=back"]);
}

/// A source of MQTT 3.1.1.
fn v311() -> Bench {
    Bench::with(Settings { version: Version::V311, ..Settings::new("id".into()) }, 1 << 20)
}

#[test]
fn a_source_of_3_1_1_takes_messages_and_acknowledges_them() {
    let mut bench = v311();
    let packets = bench.stepper.connect_v311(false);
    let [v4::Packet::Subscribe(subscribe)] = &packets[..] else { panic!("{packets:?}") };
    let asked: Vec<_> = subscribe.filters.iter().map(|it| (it.path.as_str(), it.qos as u8)).collect();
    assert_eq!(asked, [("a/#", 1), ("b", 1)]);
    bench.stepper.give_v311(&[0x90, 4, 0, 1, 1, 1]);
    assert_eq!(bench.stepper.session.status().state(), ConnectionState::Connected);
    bench.stepper.give_v311(&[publish_v311("a/b", "1", 7), publish_v311("b", "2", 8)].concat());
    assert_eq!(bench.deliveries(), [["1", "2"]]);
    bench.ack(1);
    bench.stepper.advance(SETTLE_WITHIN);
    let puback = |id| v4::Packet::PubAck(v4::PubAck::new(id));
    assert_eq!(bench.stepper.poll_v311(), [puback(7), puback(8)]);
    // More than a broker of v5 would be let send.
    let large = publish_v311("b", &"x".repeat(17 << 20), 9);
    assert_eq!(bench.stepper.give_v311(&large), []);
    let oversize = bench.oversize.try_recv().expect("it came");
    assert_eq!(oversize.payload_bytes, 17 << 20);
    assert_eq!(oversize.message.entries[0].topic.bytes(&oversize.message.arena), b"b");
    oversize.settle.ack();
    bench.stepper.advance(SETTLE_WITHIN);
    assert_eq!(bench.stepper.poll_v311(), [puback(9)]);
}

#[test]
fn a_source_of_3_1_1_subscribes_again_only_where_its_session_is_lost() {
    let mut bench = v311();
    // An earlier process may have had other filters.
    assert!(matches!(bench.stepper.connect_v311(true)[..], [v4::Packet::Subscribe(_)]));
    bench.stepper.give_v311(&[0x90, 4, 0, 1, 1, 1]);
    bench.stepper.lose();
    assert_eq!(bench.stepper.connect_v311(true), [], "all that is retained would come again");
    assert_eq!(bench.stepper.session.status().state(), ConnectionState::Connected);
    bench.stepper.lose();
    assert!(matches!(bench.stepper.connect_v311(false)[..], [v4::Packet::Subscribe(_)]));
}

#[test]
fn a_source_of_3_1_1_that_never_comes_again_leaves_no_subscription() {
    let mut bench = v311();
    bench.stepper.connect_v311(false);
    bench.stepper.give_v311(&[0x90, 4, 0, 1, 1, 1]);
    bench.stop.stop(Farewell::ForGood);
    let packets = bench.stepper.poll_v311();
    let [v4::Packet::Unsubscribe(left), v4::Packet::Disconnect] = &packets[..] else { panic!("{packets:?}") };
    assert_eq!(left.topics, ["a/#", "b"]);
}

#[test]
fn a_broker_of_3_1_1_may_refuse_a_subscription_too() {
    for (answer, expected) in [
        (&[0x90, 4, 0, 1, 1, 0x80][..], "the broker refused the subscription to `b`: Failure"),
        (&[0x90, 4, 0, 1, 0, 1], "the broker refused the subscription to `a/#`: it grants only QoS 0"),
        (&[0x90, 3, 0, 1, 1], "malformed packet: SUBACK that answers another number of filters"),
        (&[0xe0, 0], "unexpected DISCONNECT"),
    ] {
        let mut bench = v311();
        bench.stepper.connect_v311(false);
        let error = bench.stepper.session.received(answer, bench.stepper.now).expect_err("refused");
        assert_eq!(error.to_string(), expected);
    }
    let mut at_most_once = Bench::with(
        Settings { version: Version::V311, qos: Qos::AtMostOnce, ..Settings::new("id".into()) },
        1 << 20,
    );
    at_most_once.stepper.connect_v311(false);
    at_most_once.stepper.give_v311(&[0x90, 4, 0, 1, 0, 0]);
    assert_eq!(at_most_once.stepper.session.status().state(), ConnectionState::Connected);
}

proptest! {
    #[test]
    fn no_bytes_from_a_broker_can_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), packet_type in 0..16u8) {
        let mut bench = Bench::new();
        bench.connect();
        let _ = bench.stepper.session.received(&bytes, bench.stepper.now);
        let mut bench = Bench::new();
        bench.connect();
        let framed = [&[packet_type << 4, (bytes.len() % 128) as u8], &bytes[..bytes.len() % 128 % (bytes.len() + 1)]].concat();
        let _ = bench.stepper.session.received(&framed, bench.stepper.now);
        let _ = bench.stepper.try_poll();
        let mut bench = v311();
        bench.stepper.connect_v311(false);
        let _ = bench.stepper.session.received(&framed, bench.stepper.now);
        let _ = bench.stepper.try_poll();
    }

    /// However reads are cut and settlements come, all is delivered once in order
    /// and acknowledged once in order.
    #[test]
    fn order_and_number_hold(cuts in prop::collection::vec(1..40usize, 1..60), settle in prop::collection::vec(0..3usize, 60)) {
        let mut bench = Bench::new();
        bench.connect();
        let stream = messages(1..51);
        let mut rest = &stream[..];
        let (mut delivered, mut acked) = (Vec::new(), Vec::new());
        for (cut, settle) in cuts.into_iter().chain(std::iter::repeat(200)).zip(settle.into_iter().chain(std::iter::repeat(9))) {
            let (now, later) = rest.split_at(cut.min(rest.len()));
            rest = later;
            acked.extend(puback_ids(&bench.stepper.give(now)));
            delivered.extend(bench.deliveries().concat());
            bench.ack(settle.min(bench.unsettled.len()));
            acked.extend(bench.pubacks());
            if acked.len() == 50 {
                break;
            }
        }
        prop_assert_eq!(delivered, (1..51).map(|id| id.to_string()).collect::<Vec<_>>());
        prop_assert_eq!(acked, (1..51).collect::<Vec<u16>>());
    }
}
