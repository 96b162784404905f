use rumqttc::v5::mqttbytes::{
    QoS,
    v5::{Connect, ConnectProperties, Filter, PubAck, Publish, Subscribe},
};

use super::*;
use crate::sim::{
    client::Broker,
    ledger::{Character, Fate, Ledger},
    stage::Stage,
};

/// A broker, and a client that the test plays.
struct Bench<B> {
    broker: B,
    ledger: Ledger,
    stage: Stage,
    /// What came right behind the greeting.
    early: Vec<Packet>,
}

impl<B: Broker> Bench<B> {
    fn new(broker: impl Fn(usize, &mut Stage) -> B) -> Self {
        let mut stage = Stage::new(3);
        let ledger = Ledger::new("t".into(), Character::Passes, 50, false, &mut stage);
        Bench { broker: broker(50, &mut stage), ledger, stage, early: Vec::new() }
    }

    fn give(&mut self, packet: Packet) -> anyhow::Result<Vec<Packet>> {
        let mut bytes = BytesMut::new();
        packet.write(&mut bytes, None)?;
        self.broker.received(&bytes, &mut self.ledger, &mut self.stage)?;
        self.sent()
    }

    /// What the broker sends within the next second.
    fn sent(&mut self) -> anyhow::Result<Vec<Packet>> {
        self.stage.now = self.stage.now.plus(std::time::Duration::from_secs(1));
        self.broker.poll(&mut self.ledger, &mut self.stage)?;
        let mut packets = Vec::new();
        while !self.broker.outgoing().is_empty() {
            packets.push(Packet::read(self.broker.outgoing(), None)?);
        }
        Ok(packets)
    }

    /// Connects until the broker is not busy; gives whether it knew the session.
    fn connect(&mut self) -> bool {
        loop {
            let properties = ConnectProperties { receive_maximum: Some(3), ..ConnectProperties::new() };
            let connect = Connect {
                keep_alive: 10,
                client_id: "id".into(),
                clean_start: false,
                properties: Some(properties),
            };
            self.broker.connected();
            let mut answer = self.give(Packet::Connect(connect, None, None)).expect("a good CONNECT");
            let Packet::ConnAck(ack) = answer.remove(0) else { panic!("no CONNACK") };
            if ack.code == ConnectReturnCode::Success {
                self.early = answer;
                return ack.session_present;
            }
            self.broker.disconnected(0);
        }
    }
}

fn puback(pkid: u16) -> Packet {
    Packet::PubAck(PubAck::new(pkid, None))
}

/// Packet ids and DUP flags.
fn published(packets: &[Packet]) -> Vec<(u16, bool)> {
    let read = |packet: &Packet| match packet {
        Packet::Publish(publish) => Some((publish.pkid, publish.dup)),
        _ => None,
    };
    packets.iter().filter_map(read).collect()
}

impl Bench<Publisher> {
    /// Subscribes; gives what is published until the window is full.
    fn subscribe(&mut self) -> Vec<(u16, bool)> {
        let mut subscribe = Subscribe::new(Filter::new("in", QoS::AtLeastOnce), None);
        subscribe.pkid = 1;
        let mut packets = std::mem::take(&mut self.early);
        packets.extend(self.give(Packet::Subscribe(subscribe)).expect("a good SUBSCRIBE"));
        for _ in 0..10 {
            packets.extend(self.sent().expect("nothing is wrong"));
        }
        published(&packets)
    }

    /// The sink has these messages.
    fn end(&mut self, messages: std::ops::Range<usize>) {
        for id in messages {
            assert_eq!(self.ledger.messages[id].fate, Fate::Delivered);
            self.ledger.answer(id, false);
        }
    }
}

#[test]
fn a_publisher_keeps_to_the_window_and_sends_again_what_was_not_answered() {
    let mut bench = Bench::new(Publisher::new);
    assert!(!bench.connect());
    assert_eq!(bench.subscribe(), [(1, false), (2, false), (3, false)], "three may be open");
    bench.end(0..1);
    assert_eq!(published(&bench.give(puback(1)).expect("it is done")), [(4, false)]);
    bench.broker.disconnected(0);
    assert!(bench.connect());
    assert_eq!(bench.subscribe()[..3], [(2, true), (3, true), (4, true)]);
}

#[test]
fn a_publisher_sees_pubacks_that_are_early_or_out_of_order() {
    for (done, acked, said) in [(0..0, 1, "is settled and was not"), (0..2, 2, "which came first")] {
        let mut bench = Bench::new(Publisher::new);
        bench.connect();
        bench.subscribe();
        bench.end(done);
        let error = bench.give(puback(acked)).expect_err(said).to_string();
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn what_the_host_has_taken_is_its_own_once_the_session_is_lost() {
    let mut bench = Bench::new(Publisher::new);
    bench.connect();
    bench.subscribe();
    bench.broker.disconnected(2);
    bench.broker.forget_session();
    assert_eq!(bench.broker.orphans(&bench.ledger), 2);
    assert!(!bench.connect());
    let again = bench.subscribe();
    assert_eq!(again, [(4, false), (5, false), (6, false)], "the third is published anew");
    bench.end(0..1);
    bench.broker.forget_taken(&mut bench.ledger);
    assert_eq!(bench.broker.orphans(&bench.ledger), 0);
}

fn publish(bench: &Bench<Taker>, id: usize, pkid: u16) -> Packet {
    let payload = bench.ledger.messages[id].payload.clone();
    let mut publish = Publish::new("out", QoS::AtLeastOnce, payload, None);
    publish.pkid = pkid;
    Packet::Publish(publish)
}

#[test]
fn a_taker_answers_and_sees_a_packet_id_twice() {
    let mut bench = Bench::new(|_, stage| Taker::new(stage));
    bench.connect();
    (0..3).for_each(|id| bench.ledger.send(id, &mut bench.stage));
    bench.give(publish(&bench, 0, 7)).expect("a good PUBLISH");
    let answers = bench.sent().expect("nothing is wrong");
    assert!(bench.ledger.is_done(0), "{answers:?}");
    bench.broker.stall(bench.stage.now.plus(std::time::Duration::from_secs(10)));
    bench.give(publish(&bench, 1, 7)).expect("it is free again");
    assert!(bench.give(publish(&bench, 2, 7)).is_err(), "now it is in use");
}
