//! `Publisher`: the broker that the host's source subscribes to. Keeps what it sent
//! until its PUBACK and sends it again on the next connection; may forget that it
//! did, as a broker does that loses its sessions.

use std::collections::VecDeque;

use anyhow::{bail, ensure};
use bytes::BytesMut;
use rand::Rng as _;
use rumqttc::v5::mqttbytes::{
    QoS,
    v5::{Packet, PingResp, PubAck, Publish, SubAck, SubscribeReasonCode},
};
use tidegate::{clock::Instant, dead_letter::Reason};

use super::{Phase, Port};
use crate::sim::{
    client::Broker,
    ledger::{Fate, Ledger},
    stage::Stage,
};

/// See the module.
pub(in crate::sim) struct Publisher {
    port: Port,
    /// Messages that were not published yet.
    queue: VecDeque<usize>,
    /// Messages without PUBACK, in the order in which they were first sent.
    inflight: VecDeque<Inflight>,
    /// How many of them were sent on this connection.
    sent: usize,
    /// All messages sent on this connection.
    sent_here: Vec<usize>,
    next_id: u16,
    /// Most that it sends without PUBACK, and what the client allows.
    window: u16,
    receive_max: u16,
    is_subscribed: bool,
    publish_at: Instant,
    /// Messages that only the host has.
    orphans: Vec<usize>,
}

struct Inflight {
    packet_id: u16,
    message: usize,
    /// The host has taken it, and its dataflow is still there.
    is_taken: bool,
    /// Of one over the limit the host may have taken only the beginning.
    is_oversize: bool,
    /// It was sent before, on whichever connection.
    is_again: bool,
}

/// With as much unwritten, nothing is published: the socket does not keep up.
const OUTGOING_BYTES_MAX: usize = 4 << 10;

impl Publisher {
    pub fn new(messages: usize, stage: &mut Stage) -> Self {
        // Mosquitto's default is 20.
        const WINDOWS: [u16; 4] = [3, 20, 20, 200];
        Publisher {
            port: Port::new(),
            queue: (0..messages).collect(),
            inflight: VecDeque::new(),
            sent: 0,
            sent_here: Vec::new(),
            next_id: 1,
            window: WINDOWS[stage.rng.random_range(0..WINDOWS.len())],
            receive_max: 1,
            is_subscribed: false,
            publish_at: Instant(0),
            orphans: Vec::new(),
        }
    }

    pub fn go_away(&mut self, until: Instant) {
        self.port.away_until = until;
    }

    pub fn stall(&mut self, until: Instant) {
        self.port.stalled_until = until;
    }

    /// Messages that have not come to their end.
    pub fn left(&mut self, ledger: &Ledger) -> usize {
        self.queue.len() + self.inflight.len() + self.orphans(ledger)
    }

    /// Messages that only the host has, and that have not come to their end.
    pub fn orphans(&mut self, ledger: &Ledger) -> usize {
        self.orphans.retain(|message| !ledger.is_done(*message));
        self.orphans.len()
    }

    /// Forgets the client's session while nobody is connected. What the host had
    /// not taken is published anew; for the rest there is only the host.
    pub fn forget_session(&mut self) {
        assert_eq!(self.port.phase, Phase::Offline, "sessions are lost with their connections");
        self.port.has_session = false;
        for Inflight { message, is_taken, .. } in self.inflight.drain(..).rev() {
            if is_taken {
                self.orphans.push(message);
            } else {
                self.queue.push_front(message);
            }
        }
    }

    /// The host's dataflow is gone, with what it had and had not settled.
    pub fn forget_taken(&mut self, ledger: &mut Ledger) {
        self.inflight.iter_mut().for_each(|it| it.is_taken = false);
        for message in self.orphans.drain(..) {
            if !ledger.is_done(message) {
                ledger.lose(message);
            }
        }
    }

    fn take(&mut self, packet: Packet, ledger: &mut Ledger, stage: &mut Stage) -> anyhow::Result<()> {
        match (self.port.phase, packet) {
            (Phase::Greeting, Packet::Connect(connect, None, None)) => {
                ensure!(!connect.clean_start, "a source that would forget its session");
                let receive_max = connect.properties.and_then(|properties| properties.receive_maximum);
                self.receive_max = receive_max.unwrap_or(u16::MAX);
                // A session that is there has its subscription, too.
                self.is_subscribed = self.port.has_session && stage.one_in(2);
                let is_busy = stage.one_in(30);
                self.port.greet(is_busy, None)
            }
            (Phase::Online, Packet::Subscribe(subscribe)) => {
                self.is_subscribed = true;
                let codes = vec![SubscribeReasonCode::Success(QoS::AtLeastOnce); subscribe.filters.len()];
                let pkid = subscribe.pkid;
                self.port.send(Packet::SubAck(SubAck { pkid, return_codes: codes, properties: None }))
            }
            (Phase::Online, Packet::PubAck(ack)) => self.take_puback(&ack, ledger),
            (Phase::Online, Packet::PingReq(_)) => self.port.send(Packet::PingResp(PingResp)),
            (phase, packet) => bail!("a source sends {packet:?} while {phase:?}"),
        }
    }

    /// PUBACKs come in the order of receipt, and none before its message is done.
    fn take_puback(&mut self, ack: &PubAck, ledger: &mut Ledger) -> anyhow::Result<()> {
        let first = self.inflight.front().filter(|_| self.sent > 0);
        let Some(Inflight { packet_id, message, .. }) = first else {
            bail!("PUBACK {} answers nothing on this connection", ack.pkid)
        };
        ensure!(*packet_id == ack.pkid, "PUBACK {} before {packet_id}, which came first", ack.pkid);
        ledger.check_done(*message)?;
        self.inflight.pop_front();
        self.sent -= 1;
        Ok(())
    }

    /// Sends one message: again what an older connection left, then what is new.
    fn publish(&mut self, ledger: &mut Ledger, stage: &mut Stage) -> anyhow::Result<bool> {
        if self.sent == self.inflight.len() {
            let Some(message) = self.queue.pop_front() else { return Ok(false) };
            let packet_id = self.next_id;
            self.next_id = packet_id.checked_add(1).unwrap_or(1);
            let is_oversize = ledger.messages[message].fate == Fate::Dead(Reason::Oversize);
            let (is_taken, is_again) = (false, false);
            self.inflight.push_back(Inflight { packet_id, message, is_taken, is_oversize, is_again });
        }
        let Inflight { packet_id, message, is_again, .. } = &mut self.inflight[self.sent];
        let payload = ledger.messages[*message].payload.clone();
        let mut publish = Publish::new("in", QoS::AtLeastOnce, payload, None);
        publish.pkid = *packet_id;
        publish.dup = std::mem::replace(is_again, true);
        ledger.send(*message, stage);
        self.sent_here.push(*message);
        self.sent += 1;
        self.port.send(Packet::Publish(publish))?;
        Ok(true)
    }

    fn may_publish(&self) -> bool {
        self.port.phase == Phase::Online
            && self.is_subscribed
            && self.sent < usize::from(self.window.min(self.receive_max))
            && self.port.outgoing.len() < OUTGOING_BYTES_MAX
            && (self.sent < self.inflight.len() || !self.queue.is_empty())
    }
}

impl Broker for Publisher {
    fn is_up(&self, now: Instant) -> bool {
        self.port.away_until <= now
    }

    fn connected(&mut self) {
        self.port.enter(Phase::Greeting);
        self.is_subscribed = false;
        self.sent = 0;
        self.sent_here.clear();
    }

    fn disconnected(&mut self, taken: usize) {
        self.port.enter(Phase::Offline);
        self.sent = 0;
        let taken = &self.sent_here[..taken];
        for inflight in &mut self.inflight {
            inflight.is_taken |= !inflight.is_oversize && taken.contains(&inflight.message);
        }
    }

    fn reads(&self, now: Instant) -> bool {
        !self.port.is_stalled(now)
    }

    fn received(&mut self, bytes: &[u8], ledger: &mut Ledger, stage: &mut Stage) -> anyhow::Result<()> {
        self.port.incoming.extend_from_slice(bytes);
        while self.port.phase != Phase::Ended
            && let Some(packet) = self.port.next_packet()?
        {
            self.take(packet, ledger, stage)?;
        }
        Ok(())
    }

    /// Publishes a few at a time.
    fn poll(&mut self, ledger: &mut Ledger, stage: &mut Stage) -> anyhow::Result<()> {
        if self.port.is_stalled(stage.now) || stage.now < self.publish_at || !self.may_publish() {
            return Ok(());
        }
        for _ in 0..stage.rng.random_range(1..8) {
            if !self.may_publish() || !self.publish(ledger, stage)? {
                break;
            }
        }
        self.publish_at = stage.after(1..900);
        Ok(())
    }

    fn outgoing(&mut self) -> &mut BytesMut {
        &mut self.port.outgoing
    }

    fn deadline(&self, now: Instant) -> Option<Instant> {
        let publish_at = self.may_publish().then_some(self.publish_at.max(now));
        self.port.deadline(now).or(publish_at)
    }
}
