//! `SourceSession`: one dataflow's MQTT subscription. Turns PUBLISHes into
//! deliveries at the source's door, and their settlement into PUBACKs in the order
//! of receipt. It pauses by withholding PUBACKs; it knows neither sockets nor time.

mod acks;
mod intake;
mod repeats;

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::BytesMut;

use self::{
    acks::{Acks, Duty},
    intake::Intake,
    repeats::Repeats,
};
use super::{
    Session, SessionError, Settings, Version,
    frame::{self, Deframer, Piece},
    link::{self, Greeting, Link},
    packets::{self, SubAck},
    patience::Patience,
    publish::Incoming,
};
use crate::{
    batch::{Batch, BatchBuilder},
    clock::Instant,
    connector::{
        carried,
        status::Status,
        stop::{Farewell, Stop},
    },
    planted::{self, Bug},
    queue::{Marks, SourceDoor},
    settle::{Settle, Settled},
    topic::TopicFilter,
};

/// What of a message over the limit goes into its dead letter: enough to see what
/// it was.
const OVERSIZE_HEAD_BYTES: usize = 64 << 10;
/// Topic and properties of a message whose payload is just within the limit.
const AROUND_PAYLOAD_BYTES: usize = 64 << 10;
/// How long a settlement may wait for company before its PUBACK is written: no
/// wake-up is spent on it while messages keep coming.
const SETTLE_WITHIN: Duration = Duration::from_millis(5);
/// With as many PUBACKs due, each settlement wakes the session. Well under the 20
/// messages that mosquitto lets a client have open by default.
const EAGER_FROM: usize = 8;
/// A source sends nothing else with a packet id.
const SUBSCRIBE_ID: u16 = 1;
const UNSUBSCRIBE_ID: u16 = 2;

/// What a source takes, and from where.
pub struct SourceOptions {
    /// Already checked against the policy's grants.
    pub filters: Vec<TopicFilter>,
    /// The policy's `payload`.
    pub payload_bytes_max: usize,
    /// The host's node name, for messages without a timestamp of their own.
    pub node: String,
    /// Whether anybody wants to know messages again that the broker sends again.
    pub identifies: bool,
    /// Takes messages over the limit to the dead letters.
    pub oversize: Box<dyn FnMut(Oversize) + Send>,
    /// Once stopped, the session takes nothing more and finishes when all that it
    /// delivered is settled and acknowledged; the rest stays with the broker.
    pub stop: Stop,
}

/// A message over the policy's `payload`.
#[derive(Debug)]
pub struct Oversize {
    /// The message alone, with the first bytes of its payload, 64 KiB at most.
    pub message: Batch,
    /// Length of the whole payload.
    pub payload_bytes: u64,
    /// To be acked once the dead letter is on disk, in the order in which these
    /// come; the message's PUBACK waits for it.
    pub settle: Settle,
}

/// See the module.
pub struct SourceSession {
    link: Link,
    deframer: Deframer,
    options: SourceOptions,
    door: SourceDoor,
    intake: Intake,
    acks: Acks,
    repeats: Repeats,
    patience: Patience,
    oversize: OversizeState,
    stopping: Option<Farewell>,
    /// Messages come on this connection, or its subscriptions are granted.
    is_served: bool,
    /// They were granted on an earlier one.
    has_subscribed: bool,
}

#[derive(Default)]
struct OversizeState {
    settled: Arc<Settled>,
    count: u64,
    /// One whose last bytes are still to come, and its packet id.
    head: Option<(OversizeMessage, Option<u16>)>,
}

/// An [`Oversize`] before its duty begins.
struct OversizeMessage {
    message: Batch,
    payload_bytes: u64,
}

impl SourceSession {
    pub fn new(settings: Settings, options: SourceOptions, door: SourceDoor) -> Self {
        let packet_bytes_max = match settings.version {
            Version::V5 => link::PACKET_BYTES_MAX,
            // Nobody can tell the broker.
            Version::V311 => frame::REMAINING_BYTES_MAX,
        };
        let whole_bytes_max = (options.payload_bytes_max + AROUND_PAYLOAD_BYTES).min(packet_bytes_max);
        SourceSession {
            deframer: Deframer::new(whole_bytes_max, packet_bytes_max),
            intake: Intake::new(
                options.node.clone(),
                door.delivery_bytes_max(),
                options.identifies,
                settings.clock.clone(),
            ),
            link: Link::new(settings),
            options,
            door,
            acks: Acks::default(),
            repeats: Repeats::new(),
            patience: Patience::new(SETTLE_WITHIN, EAGER_FROM),
            oversize: OversizeState::default(),
            stopping: None,
            is_served: false,
            has_subscribed: false,
        }
    }

    /// Messages that were taken but wait for credit, in bytes.
    pub fn held_bytes(&self) -> usize {
        self.intake.bytes()
    }

    /// PUBACKs that wait for a settlement.
    pub fn unacked(&self) -> usize {
        self.acks.len()
    }

    fn take(&mut self, piece: Piece<'_>, now: Instant) -> Result<(), SessionError> {
        const PUBLISH: u8 = 3;
        const SUBACK: u8 = 9;
        match piece {
            Piece::Packet { first, body } if first >> 4 == PUBLISH => {
                self.expect_online("PUBLISH")?;
                let mut publish = Incoming::read(self.version(), first, body)?;
                publish.extras.retain &= self.link.settings().keeps_retain;
                self.take_publish(&publish)
            }
            Piece::Packet { first, body } if first >> 4 == SUBACK => self.take_suback(first, body),
            Piece::Packet { first, body } => {
                if let Some(greeting) = self.link.take_packet(first, body, now)? {
                    self.begin(&greeting)?;
                }
                Ok(())
            }
            Piece::Head { first, head, body_bytes } => {
                self.expect_online("PUBLISH")?;
                let publish = Incoming::read_head(self.version(), first, head)?;
                let payload_bytes = (publish.payload.len() + body_bytes - head.len()) as u64;
                let message = self.oversize_message(&publish, payload_bytes);
                self.oversize.head = Some((message, packet_id(&publish)));
                self.count_in(&publish);
                Ok(())
            }
            Piece::HeadEnd => {
                let (message, packet_id) = self.oversize.head.take().expect("its head came before its end");
                self.take_oversize(message, packet_id);
                Ok(())
            }
        }
    }

    fn version(&self) -> Version {
        self.link.settings().version
    }

    /// The broker is there.
    fn begin(&mut self, greeting: &Greeting) -> Result<(), SessionError> {
        if !greeting.session_present {
            self.intake.begin_anew(&self.repeats);
            self.repeats.begin_anew();
        }
        if self.version() == Version::V311 && self.has_subscribed && greeting.session_present {
            // Asked again, it would send again all that is retained.
            self.set_served();
            return Ok(());
        }
        self.subscribe()
    }

    fn expect_online(&self, packet: &'static str) -> Result<(), SessionError> {
        if self.link.is_online() { Ok(()) } else { Err(SessionError::Unexpected { packet }) }
    }

    fn count_in(&mut self, publish: &Incoming<'_>) {
        if publish.qos > 0 {
            self.repeats.took(publish.dup);
        }
        let status = &self.link.status;
        status.messages_in.add(1);
        if publish.dup {
            status.redelivered.add(1);
        }
    }

    fn take_publish(&mut self, publish: &Incoming<'_>) -> Result<(), SessionError> {
        self.count_in(publish);
        if self.stopping.is_some() {
            return Ok(());
        }
        // What waited for the session comes before the SUBACK, however much that is.
        self.set_served();
        if !self.options.filters.iter().any(|filter| filter.matches(publish.topic)) {
            // A session outlives the filters that it was made with, and so the
            // rights that these were checked against.
            self.link.status.unwanted.add(1);
            self.acks.push(packet_id(publish), Duty::None);
            return Ok(());
        }
        if publish.payload.len() > self.options.payload_bytes_max {
            let message = self.oversize_message(publish, publish.payload.len() as u64);
            self.take_oversize(message, packet_id(publish));
            return Ok(());
        }
        if publish.qos == 0 && self.intake.is_full() {
            self.link.status.dropped.add(1);
            return Ok(());
        }
        self.patience.moved();
        let delivery = self.intake.push(publish, &self.repeats);
        self.acks.push(packet_id(publish), Duty::Delivery(delivery));
        Ok(())
    }

    fn oversize_message(&self, publish: &Incoming<'_>, payload_bytes: u64) -> OversizeMessage {
        let head = &publish.payload[..publish.payload.len().min(OVERSIZE_HEAD_BYTES)];
        let mut builder = BatchBuilder::new(&self.options.node);
        builder.push(publish.topic.as_bytes(), publish.content_type, head, publish.user_properties());
        carried::keep(&publish.extras, || self.link.settings().clock.wall(), &mut builder);
        OversizeMessage { message: builder.finish(), payload_bytes }
    }

    fn take_oversize(&mut self, message: OversizeMessage, packet_id: Option<u16>) {
        if self.stopping.is_some() {
            return;
        }
        self.link.status.oversize.add(1);
        self.oversize.count += 1;
        let settle = Settle::new(self.oversize.settled.clone(), self.oversize.count);
        self.acks.push(packet_id, Duty::Oversize(self.oversize.count));
        let OversizeMessage { message, payload_bytes } = message;
        let oversize = Oversize { message, payload_bytes, settle };
        (self.options.oversize)(oversize);
    }

    /// On every connection, since the session may be one with other filters.
    fn subscribe(&mut self) -> Result<(), SessionError> {
        let Settings { version, qos, keeps_retain, .. } = *self.link.settings();
        let filters = self.options.filters.iter().map(TopicFilter::subscription);
        let out = &mut self.link.outgoing;
        packets::write_subscribe(version, SUBSCRIBE_ID, filters, qos, keeps_retain, out)
    }

    fn take_suback(&mut self, first: u8, body: &[u8]) -> Result<(), SessionError> {
        self.expect_online("SUBACK")?;
        let SubAck { packet_id: SUBSCRIBE_ID, answers } = SubAck::read(self.version(), first, body)? else {
            return Err(SessionError::Unexpected { packet: "SUBACK" });
        };
        if answers.len() != self.options.filters.len() {
            return Err(SessionError::Malformed("SUBACK that answers another number of filters"));
        }
        let asked = self.link.settings().qos.level();
        for (filter, answer) in self.options.filters.iter().zip(answers) {
            let reason = match answer {
                Ok(granted) if granted >= asked => continue,
                Ok(granted) => format!("it grants only QoS {granted}"),
                Err(reason) => reason,
            };
            return Err(SessionError::SubscriptionRefused {
                filter: filter.subscription().to_owned(),
                reason,
            });
        }
        self.has_subscribed = true;
        self.set_served();
        Ok(())
    }

    fn set_served(&mut self) {
        if !self.is_served {
            self.is_served = true;
            self.link.status.set_connected();
        }
    }

    /// Hands over every batch for which there is credit, without waiting for more
    /// messages.
    fn deliver(&mut self, ctx: &mut Context<'_>) {
        while let Some(bytes) = self.intake.next_bytes() {
            let Poll::Ready(credit) = self.door.poll_credit(bytes, ctx) else { return };
            let (expected, batch, sendings) =
                self.intake.take(&self.repeats).expect("`next_bytes` gave its size");
            let number = self.door.deliver_marked(credit, batch, sendings.map(Marks::Sendings));
            assert_eq!(number, expected, "deliveries are numbered as they were begun");
        }
    }

    /// Writes the PUBACKs whose turn has come, once they have had company or have
    /// waited for it long enough, and sees to it that the session learns of the next
    /// settlement in time.
    fn settle(&mut self, ctx: &mut Context<'_>, now: Instant) {
        loop {
            let is_over = self.patience.is_over(self.acks.len(), usize::MAX, now);
            if !is_over && self.stopping.is_none() {
                return;
            }
            let (settled, oversize) = (self.door.settled_upto(), self.oversize.settled.count());
            let written = self.acks.write(settled, oversize, &mut self.link.outgoing);
            if written > 0 {
                self.repeats.acknowledged(written);
                self.patience.answered();
                continue;
            }
            let Some(duty) = self.acks.next_duty() else { return };
            let waited = match duty {
                Duty::Oversize(_) => self.oversize.settled.poll_beyond(oversize, ctx),
                _ => self.door.poll_settled(settled, ctx),
            };
            // What is abandoned will never be settled.
            if waited.is_pending() || self.door.is_abandoned() || self.oversize.settled.is_abandoned() {
                return;
            }
        }
    }

    /// Asks the broker how far it has read, for those who want to know what it may still
    /// send again.
    fn ask(&mut self) {
        self.repeats.answered(self.link.pings_answered());
        if self.options.identifies && self.repeats.wants_to_ask() {
            self.repeats.asked(self.link.ping());
        }
    }

    fn finish_if_done(&mut self, ctx: &mut Context<'_>) {
        let farewell = match self.stopping {
            None if self.door.is_abandoned() => Farewell::UntilLater,
            None => return,
            Some(farewell) => farewell,
        };
        // Offline nothing can be acknowledged any more, neither now nor later.
        let settled = self.door.unsettled() == 0 || self.door.is_abandoned() || self.link.is_offline();
        if settled {
            if self.link.is_online() {
                let (settled, oversize) = (self.door.settled_upto(), self.oversize.settled.count());
                self.acks.write(settled, oversize, &mut self.link.outgoing);
                if farewell == Farewell::ForGood && self.version() == Version::V311 {
                    // Its session cannot be ended; so nothing more comes into it.
                    let filters = self.options.filters.iter().map(TopicFilter::subscription);
                    packets::write_unsubscribe_v311(UNSUBSCRIBE_ID, filters, &mut self.link.outgoing)
                        .expect("what could be subscribed to is not too long");
                }
            }
            self.link.end(farewell);
        } else {
            // Ready means that it is abandoned or settled further meanwhile.
            let seen = self.door.settled_upto();
            if self.door.poll_settled(seen, ctx).is_ready() {
                ctx.waker().wake_by_ref();
            }
        }
    }
}

impl Session for SourceSession {
    fn wants_connection(&self, now: Instant) -> bool {
        self.link.wants_connection(now)
    }

    fn connected(&mut self, now: Instant) -> Result<(), SessionError> {
        self.forget_generation();
        let receive_max = self.link.settings().inflight_max.get();
        self.link.connected(now, Some(receive_max))
    }

    fn disconnected(&mut self, now: Instant, error: &SessionError) {
        self.forget_generation();
        self.link.disconnected(now, error);
    }

    fn wants_read(&self) -> bool {
        !self.intake.is_overfull()
    }

    fn received(&mut self, bytes: &[u8], now: Instant) -> Result<(), SessionError> {
        self.link.heard();
        self.link.status.bytes_in.add(bytes.len() as u64);
        let mut deframer = std::mem::take(&mut self.deframer);
        let result = deframer.feed(bytes, |piece| self.take(piece, now));
        self.deframer = deframer;
        result
    }

    fn poll(&mut self, ctx: &mut Context<'_>, now: Instant) -> Result<(), SessionError> {
        if self.link.is_ended() {
            return Ok(());
        }
        if self.stopping.is_none()
            && let Poll::Ready(farewell) = self.options.stop.poll_stopped(ctx)
        {
            self.stopping = Some(farewell);
        }
        if self.stopping.is_none() && !self.door.is_abandoned() {
            self.deliver(ctx);
        }
        if self.link.is_online() {
            self.settle(ctx, now);
            self.ask();
        }
        self.finish_if_done(ctx);
        self.link.keep_alive(self.wants_read(), now)
    }

    fn outgoing(&mut self) -> &mut BytesMut {
        &mut self.link.outgoing
    }

    fn deadline(&self) -> Option<Instant> {
        let settle_by = if self.link.is_online() { self.patience.deadline() } else { None };
        [self.link.deadline(), settle_by].into_iter().flatten().min()
    }

    fn is_finished(&self) -> bool {
        self.link.is_ended()
    }

    fn status(&self) -> &Arc<Status> {
        &self.link.status
    }
}

impl SourceSession {
    /// A PUBACK belongs to the connection on which its PUBLISH came. What was taken
    /// is still delivered: the broker may have lost its own copy.
    fn forget_generation(&mut self) {
        if !planted::is(Bug::StalePuback) {
            self.acks.clear();
        }
        // What comes again is told from what came before by the delivery that it is in.
        self.intake.close(&self.repeats);
        self.repeats = Repeats::new();
        self.is_served = false;
        self.deframer.clear();
        self.oversize.head = None;
        self.patience.answered();
    }
}

fn packet_id(publish: &Incoming<'_>) -> Option<u16> {
    (publish.qos > 0).then_some(publish.packet_id)
}

#[cfg(test)]
mod tests;
