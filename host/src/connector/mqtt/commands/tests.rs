use std::{pin::pin, task::Waker};

use rumqttc::v5::mqttbytes::{
    QoS,
    v5::{
        Packet, PubAck as TheirPubAck, PubAckReason, Publish, PublishProperties, SubAck, SubscribeReasonCode,
        UnsubAck, UnsubAckReason,
    },
};

use super::*;
use crate::{
    clock::VirtualClock,
    command::{Call, Calls, Request, pattern::Patterns},
    connector::{
        client_id,
        mqtt::tests::{Stepper, connack, encode, puback, puback_ids, publish_with, sent},
    },
    resource::Grants,
    topic::TopicFilter,
};

/// A command session between a scripted broker and guests played by the test.
struct Bench {
    stepper: Stepper<CommandSession>,
    door: Arc<Commands>,
    calls: Arc<Calls>,
}

impl Bench {
    fn new() -> Self {
        let id = client_id::of_commands("edge", "a", "local");
        let all = || vec![TopicFilter::parse("#").expect("a filter")];
        let grants =
            Grants { endpoint: "local".into(), read: all(), write: all(), rates: Default::default() };
        let calls = Calls::new(1000);
        let door = Commands::new(id.clone(), grants, calls.clone());
        let clock = Clock::Virtual(Arc::<VirtualClock>::default());
        let options = CommandOptions { payload_bytes_max: 100, node: "edge".into(), clock };
        let session = CommandSession::new(Settings::new(id), options, door.clone());
        Bench { stepper: Stepper::new(session), door, calls }
    }

    fn connect(&mut self) -> Vec<Packet> {
        self.stepper.connect(&connack(None, None))
    }

    /// Asks `payload` on `topic`, to be answered on `back/` and that, within ten seconds.
    fn ask(&mut self, topic: &str, payload: &str) -> Call {
        let mut ctx = Context::from_waker(Waker::noop());
        let Poll::Ready(permit) = self.calls.poll_permit(&mut ctx) else { panic!("no permit") };
        let patterns = Patterns { request: topic, prefix: Some("back"), command: "c", ..Patterns::default() };
        let (request, response) = patterns.read(self.door.client_id()).expect("patterns");
        let request = Request {
            topic: request.topic(&[]).expect("a topic"),
            response: response.topic(&[]).expect("a topic"),
            payload: Bytes::copy_from_slice(payload.as_bytes()),
            user_data: [("k".to_owned(), "v".to_owned())].into(),
            until: self.stepper.now.plus(Duration::from_secs(10)),
        };
        self.door.begin(permit, request).expect("all is granted")
    }

    /// Grants each subscription among `packets`; gives what follows.
    fn grant(&mut self, packets: &[Packet]) -> Vec<Packet> {
        let mut sent = Vec::new();
        for packet in packets {
            if let Packet::Subscribe(subscribe) = packet {
                sent.extend(self.stepper.give(&suback(subscribe.pkid, Ok(QoS::AtLeastOnce))));
            }
        }
        sent
    }

    /// A session that has connected and subscribed, and the request that it published.
    fn asked(&mut self, topic: &str, payload: &str) -> (Call, Publish) {
        let call = self.ask(topic, payload);
        let mut packets = self.stepper.poll();
        packets.extend(self.grant(&packets.clone()));
        let publish = packets.iter().find_map(published).expect("it was published");
        (call, publish)
    }

    fn kind(&self, call: &mut Call) -> Option<Kind> {
        match poll(call) {
            Poll::Ready(Err(error)) => Some(error.kind),
            _ => None,
        }
    }
}

fn poll(call: &mut Call) -> Poll<Result<Answer, CommandError>> {
    pin!(call).poll(&mut Context::from_waker(Waker::noop()))
}

fn published(packet: &Packet) -> Option<Publish> {
    match packet {
        Packet::Publish(publish) => Some(publish.clone()),
        _ => None,
    }
}

fn suback(packet_id: u16, code: Result<QoS, SubscribeReasonCode>) -> Vec<u8> {
    let code = code.map_or_else(|refused| refused, SubscribeReasonCode::Success);
    encode(&Packet::SubAck(SubAck { pkid: packet_id, return_codes: vec![code], properties: None }))
}

/// An answer to `request`, with this status.
fn answer(request: &Publish, packet_id: u16, status: &str, payload: &str) -> Vec<u8> {
    let asked = request.properties.clone().expect("a request has properties");
    let topic = asked.response_topic.expect("a request says where its answer goes");
    let properties = PublishProperties {
        correlation_data: asked.correlation_data,
        user_properties: vec![("__stat".into(), status.into())],
        ..PublishProperties::default()
    };
    publish_with(&topic, payload, packet_id, properties)
}

fn filters(packets: &[Packet]) -> Vec<String> {
    let filter = |packet: &Packet| match packet {
        Packet::Subscribe(subscribe) => Some(subscribe.filters[0].path.clone()),
        _ => None,
    };
    packets.iter().filter_map(filter).collect()
}

#[test]
fn a_request_says_all_that_the_protocol_asks_for() {
    let mut bench = Bench::new();
    bench.connect();
    let call = bench.ask("pump/read", "how much?");
    let subscribed = bench.stepper.poll();
    assert_eq!(filters(&subscribed), ["back/pump/read"]);
    assert!(subscribed.iter().all(|packet| published(packet).is_none()), "the answer could not come yet");
    let sent = bench.grant(&subscribed);
    let [request] = &sent.iter().filter_map(published).collect::<Vec<_>>()[..] else { panic!("{sent:?}") };
    assert_eq!((&request.topic[..], &request.payload[..]), (&b"pump/read"[..], &b"how much?"[..]));
    let properties = request.properties.clone().expect("it has properties");
    assert_eq!(properties.response_topic.as_deref(), Some("back/pump/read"));
    assert_eq!(properties.message_expiry_interval, Some(10));
    assert_eq!(properties.correlation_data.as_ref().map(|data| data.len()), Some(16));
    assert_eq!(properties.content_type, None, "whoever answers takes it as it comes");
    let own = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    assert_eq!(
        properties.user_properties,
        [
            own("k", "v"),
            own("__ts", "001767225600000:00000:edge"),
            own("__srcId", "tg/edge/a/_commands/local"),
            own("__invId", "tg/edge/a/_commands/local"),
            own("__protVer", "1.0"),
        ]
    );
    drop(call);
}

#[test]
fn answers_find_their_requests_in_any_order() {
    let mut bench = Bench::new();
    bench.connect();
    let (mut one, first) = bench.asked("pump/read", "1");
    let (mut two, second) = bench.asked("pump/read", "2");
    assert_eq!(puback_ids(&bench.stepper.give(&answer(&second, 1, "200", "two"))), [1]);
    assert!(poll(&mut one).is_pending());
    bench.stepper.give(&answer(&first, 2, "204", ""));
    let payload = |call: &mut Call| match poll(call) {
        Poll::Ready(Ok(answer)) => String::from_utf8(answer.payload).expect("UTF-8"),
        other => panic!("{other:?}"),
    };
    assert_eq!((payload(&mut two), payload(&mut one)), ("two".to_owned(), String::new()));
    // Acknowledged only after it was answered.
    bench.stepper.give(&[puback(first.pkid), puback(second.pkid)].concat());
    assert_eq!(bench.stepper.session.open(), 0);
    assert_eq!(bench.stepper.session.status().unwanted.get(), 0);
}

#[test]
fn what_answers_nobody_is_acknowledged_and_dropped() {
    let mut bench = Bench::new();
    bench.connect();
    let (mut call, request) = bench.asked("pump/read", "1");
    let stale = {
        let mut other = request.clone();
        let properties = other.properties.as_mut().expect("it has some");
        properties.correlation_data = Some(Bytes::from_static(&[7; 16]));
        other
    };
    let elsewhere = {
        let mut other = request.clone();
        other.properties.as_mut().expect("it has some").response_topic = Some("back/pump/write".into());
        other
    };
    let without = publish_with("back/pump/read", "x", 3, PublishProperties::default());
    let all = [answer(&stale, 1, "200", "x"), answer(&elsewhere, 2, "200", "x"), without].concat();
    assert_eq!(puback_ids(&bench.stepper.give(&all)), [1, 2, 3]);
    assert_eq!(bench.stepper.session.status().unwanted.get(), 3);
    assert!(poll(&mut call).is_pending());
    bench.stepper.give(&answer(&request, 4, "200", "y"));
    assert!(poll(&mut call).is_ready());
    // The same once more.
    bench.stepper.give(&answer(&request, 5, "200", "y"));
    assert_eq!(bench.stepper.session.status().unwanted.get(), 4);
}

#[test]
fn errors_of_broker_and_answer_are_told() {
    let mut bench = Bench::new();
    bench.connect();
    let (mut busy, request) = bench.asked("pump/read", "1");
    bench.stepper.give(&answer(&request, 1, "503", "x"));
    assert_eq!(bench.kind(&mut busy), Some(Kind::StateInvalid));

    let (mut large, request) = bench.asked("pump/read", "1");
    bench.stepper.give(&answer(&request, 2, "200", &"x".repeat(101)));
    assert_eq!(bench.kind(&mut large), Some(Kind::PayloadInvalid));
    // So large that it is not kept whole.
    let (mut huge, request) = bench.asked("pump/read", "1");
    bench.stepper.give(&answer(&request, 3, "200", &"x".repeat(200 << 10)));
    assert_eq!(bench.kind(&mut huge), Some(Kind::PayloadInvalid));
    assert_eq!(bench.stepper.session.status().oversize.get(), 2);

    let (mut refused, request) = bench.asked("pump/read", "1");
    let ack = TheirPubAck { pkid: request.pkid, reason: PubAckReason::NotAuthorized, properties: None };
    bench.stepper.give(&encode(&Packet::PubAck(ack)));
    assert_eq!(bench.kind(&mut refused), Some(Kind::ClientError));

    let mut unheard = bench.ask("secret", "1");
    let packets = bench.stepper.poll();
    let Packet::Subscribe(subscribe) = &packets[0] else { panic!("{packets:?}") };
    bench.stepper.give(&suback(subscribe.pkid, Err(SubscribeReasonCode::NotAuthorized)));
    assert_eq!(bench.kind(&mut unheard), Some(Kind::ClientError));
    // It is asked for again with the next request.
    let again = bench.ask("secret", "2");
    assert_eq!(filters(&bench.stepper.poll()), ["back/secret"]);
    drop(again);
}

#[test]
fn a_packet_over_the_brokers_limit_is_refused_before_it_is_sent() {
    let mut bench = Bench::new();
    bench.stepper.connect(&connack(None, Some(300)));
    let mut call = bench.ask("pump/read", &"x".repeat(200));
    let packets = bench.stepper.poll();
    assert_eq!(bench.grant(&packets), []);
    assert_eq!(bench.kind(&mut call), Some(Kind::PayloadInvalid));
}

#[test]
fn no_more_are_unacknowledged_than_the_broker_takes() {
    let mut bench = Bench::new();
    bench.stepper.connect(&connack(Some(2), None));
    let calls: Vec<Call> = (0..5).map(|number| bench.ask("pump/read", &number.to_string())).collect();
    let packets = bench.stepper.poll();
    let payloads = |packets: &[Packet]| {
        let publishes = packets.iter().filter_map(published);
        publishes.map(|it| String::from_utf8_lossy(&it.payload).into_owned()).collect::<Vec<_>>()
    };
    let sent = bench.grant(&packets);
    assert_eq!(payloads(&sent), ["0", "1"]);
    let ids: Vec<u16> = sent.iter().filter_map(published).map(|publish| publish.pkid).collect();
    assert_eq!(payloads(&bench.stepper.give(&puback(ids[0]))), ["2"]);
    assert_eq!(payloads(&bench.stepper.give(&puback(ids[1]))), ["3"]);
    drop(calls);
}

#[test]
fn a_new_connection_subscribes_again_and_sends_again_what_was_not_acknowledged() {
    for session_present in [true, false] {
        let mut bench = Bench::new();
        bench.connect();
        let (mut had, first) = bench.asked("pump/read", "had");
        bench.stepper.give(&puback(first.pkid));
        let (lost, second) = bench.asked("pump/read", "lost");
        bench.stepper.lose();
        let waiting = bench.ask("pump/read", "waiting");
        assert_eq!(bench.stepper.poll(), []);
        bench.stepper.advance(Duration::from_secs(2));
        let mut greeting = connack(None, None);
        // The flags of a CONNACK come after its type and length.
        greeting[2] = u8::from(session_present);
        let packets = bench.stepper.connect(&greeting);
        assert_eq!(filters(&packets), ["back/pump/read"]);
        let again: Vec<Publish> = bench.grant(&packets).iter().filter_map(published).collect();
        let seen: Vec<_> = again.iter().map(|it| (&it.payload[..], it.dup)).collect();
        assert_eq!(seen, [(&b"lost"[..], session_present), (&b"waiting"[..], false)]);
        assert_eq!(again[0].pkid == second.pkid, session_present);
        let asks = |publish: &Publish| publish.properties.clone().expect("it has some");
        assert_eq!(asks(&again[0]).correlation_data, asks(&second).correlation_data);
        assert_eq!(asks(&again[0]).message_expiry_interval, Some(8), "of ten seconds two are over");
        bench.stepper.give(&answer(&first, 1, "200", "x"));
        assert!(poll(&mut had).is_ready(), "what the broker had is still answered");
        drop((lost, waiting));
    }
}

#[test]
fn a_packet_that_the_broker_ends_the_connection_over_is_not_sent_again() {
    let mut bench = Bench::new();
    bench.connect();
    let (mut bad, _) = bench.asked("pump/read", "bad");
    let ended = SessionError::Ended { reason: "malformed".into(), blames_packet: true };
    let mut good = bench.ask("pump/read", "good");
    bench.stepper.session.disconnected(bench.stepper.now, &ended);
    bench.stepper.poll();
    assert_eq!(bench.kind(&mut bad), Some(Kind::ClientError));
    assert!(poll(&mut good).is_pending());
    bench.stepper.advance(Duration::from_secs(1));
    let packets = bench.connect();
    let sent = bench.grant(&packets);
    assert_eq!(sent.iter().filter_map(published).map(|it| it.payload).collect::<Vec<_>>(), ["good"]);
}

#[test]
fn a_request_whose_time_is_over_or_that_nobody_waits_for_is_let_go() {
    let mut bench = Bench::new();
    let mut slow = bench.ask("pump/read", "slow");
    bench.stepper.poll();
    bench.stepper.advance(Duration::from_secs(10));
    bench.stepper.poll();
    assert_eq!(bench.kind(&mut slow), Some(Kind::Timeout));
    let gone = bench.ask("pump/read", "gone");
    bench.stepper.poll();
    assert_eq!(bench.stepper.session.open(), 1);
    drop(gone);
    bench.stepper.poll();
    assert_eq!(bench.stepper.session.open(), 0);
    assert!(bench.connect().is_empty(), "nothing is left to be asked");
}

#[test]
fn a_closed_door_cancels_and_says_goodbye() {
    let mut bench = Bench::new();
    bench.connect();
    let (mut call, _) = bench.asked("pump/read", "1");
    bench.door.close();
    let packets = bench.stepper.poll();
    assert!(matches!(packets[..], [Packet::Disconnect(_)]), "{packets:?}");
    assert!(bench.stepper.session.is_finished());
    assert_eq!(bench.kind(&mut call), Some(Kind::Cancellation));
}

#[test]
fn subscriptions_that_nobody_needs_make_room_for_others() {
    let mut bench = Bench::new();
    bench.connect();
    for number in 0..64 {
        let (mut call, request) = bench.asked(&format!("pump/{number}"), "1");
        bench.stepper.give(&[puback(request.pkid), answer(&request, 1, "200", "x")].concat());
        assert!(poll(&mut call).is_ready());
    }
    let call = bench.ask("pump/64", "1");
    let packets = bench.stepper.poll();
    let Packet::Unsubscribe(unsubscribe) = &packets[0] else { panic!("{packets:?}") };
    assert_eq!(unsubscribe.filters, ["back/pump/0"]);
    assert_eq!(filters(&packets), ["back/pump/64"]);
    let left = UnsubAck { pkid: unsubscribe.pkid, reasons: vec![UnsubAckReason::Success], properties: None };
    bench.stepper.give(&encode(&Packet::UnsubAck(left)));
    assert_eq!(sent(&mut bench.stepper.session), []);
    let end = bench.stepper.now.plus(Duration::from_secs(10));
    assert_eq!(bench.stepper.session.deadline(), Some(end), "the first that is open");
    drop(call);
}
