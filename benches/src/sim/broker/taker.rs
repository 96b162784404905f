//! `Taker`: the broker that the host's sink publishes to. Takes its time with
//! PUBACKs, refuses some messages for good, and may forget what it has not yet
//! answered.

use std::collections::VecDeque;

use anyhow::{bail, ensure};
use bytes::BytesMut;
use rand::Rng as _;
use rumqttc::v5::mqttbytes::{
    QoS,
    v5::{Packet, PingResp, PubAck, PubAckReason, Publish},
};
use tidegate::clock::Instant;

use super::{Phase, Port};
use crate::sim::{client::Broker, ledger::Ledger, stage::Stage};

/// See the module.
pub(in crate::sim) struct Taker {
    port: Port,
    /// What it has and will answer: when, packet id, message.
    unanswered: VecDeque<(Instant, u16, usize)>,
    /// Most that it takes without having answered.
    receive_max: u16,
}

/// One message in as many is refused.
const REFUSED_EVERY: u32 = 400;

impl Taker {
    pub fn new(stage: &mut Stage) -> Self {
        let mut taker = Taker { port: Port::new(), unanswered: VecDeque::new(), receive_max: 1 };
        taker.restart(stage);
        taker
    }

    /// Comes back with other limits.
    fn restart(&mut self, stage: &mut Stage) {
        const WINDOWS: [u16; 4] = [2, 20, 60, 1000];
        self.receive_max = WINDOWS[stage.rng.random_range(0..WINDOWS.len())];
    }

    pub fn go_away(&mut self, until: Instant) {
        self.port.away_until = until;
    }

    pub fn stall(&mut self, until: Instant) {
        self.port.stalled_until = until;
    }

    /// Forgets the client's session while nobody is connected.
    pub fn forget_session(&mut self, stage: &mut Stage) {
        assert_eq!(self.port.phase, Phase::Offline, "sessions are lost with their connections");
        self.port.has_session = false;
        self.restart(stage);
    }

    fn take(&mut self, packet: Packet, ledger: &mut Ledger, stage: &mut Stage) -> anyhow::Result<()> {
        match (self.port.phase, packet) {
            (Phase::Greeting, Packet::Connect(connect, None, None)) => {
                ensure!(!connect.clean_start, "a sink that would forget its session");
                let is_busy = stage.one_in(30);
                self.port.greet(is_busy, Some(self.receive_max))
            }
            (Phase::Online, Packet::Publish(publish)) => self.take_publish(&publish, ledger, stage),
            (Phase::Online, Packet::PingReq(_)) => self.port.send(Packet::PingResp(PingResp)),
            (phase, packet) => bail!("a sink sends {packet:?} while {phase:?}"),
        }
    }

    fn take_publish(
        &mut self,
        publish: &Publish,
        ledger: &mut Ledger,
        stage: &mut Stage,
    ) -> anyhow::Result<()> {
        ensure!(publish.qos == QoS::AtLeastOnce && publish.pkid > 0, "a message that no one will answer for");
        ensure!(&publish.topic[..] == b"out", "a message to {:?}", publish.topic);
        let id = publish.pkid;
        ensure!(self.unanswered.iter().all(|(_, other, _)| *other != id), "packet id {id} is in use");
        let message = ledger.receive(&publish.payload, publish.dup)?;
        let longest = if stage.one_in(40) { 6_000 } else { 300 };
        let at = stage.after(0..longest);
        self.unanswered.push_back((at, id, message));
        let open = self.unanswered.len();
        ensure!(open <= usize::from(self.receive_max), "{open} messages where {} may be", self.receive_max);
        Ok(())
    }

    fn answer(
        &mut self,
        id: u16,
        message: usize,
        ledger: &mut Ledger,
        stage: &mut Stage,
    ) -> anyhow::Result<()> {
        let is_refused = stage.one_in(REFUSED_EVERY);
        ledger.answer(message, is_refused);
        let mut ack = PubAck::new(id, None);
        if is_refused {
            ack.reason = PubAckReason::QuotaExceeded;
        }
        self.port.send(Packet::PubAck(ack))
    }
}

impl Broker for Taker {
    fn is_up(&self, now: Instant) -> bool {
        self.port.away_until <= now
    }

    fn connected(&mut self) {
        self.port.enter(Phase::Greeting);
    }

    fn disconnected(&mut self, _taken: usize) {
        self.port.enter(Phase::Offline);
        self.unanswered.clear();
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

    /// Answers what is due, in the order of receipt.
    fn poll(&mut self, ledger: &mut Ledger, stage: &mut Stage) -> anyhow::Result<()> {
        while !self.port.is_stalled(stage.now)
            && let Some((at, id, message)) = self.unanswered.front().copied()
            && at <= stage.now
        {
            self.unanswered.pop_front();
            self.answer(id, message, ledger, stage)?;
        }
        Ok(())
    }

    fn outgoing(&mut self) -> &mut BytesMut {
        &mut self.port.outgoing
    }

    fn deadline(&self, now: Instant) -> Option<Instant> {
        let answer_at = self.unanswered.front().map(|(at, ..)| (*at).max(now));
        self.port.deadline(now).or(answer_at)
    }
}
