//! `SinkSession`: one tenant's publications to one endpoint. Takes writes from the
//! sink's door as the broker's window allows, and confirms each when all its
//! PUBACKs came. Its own memory of unconfirmed messages outlives every connection;
//! it knows neither sockets nor dataflows.

mod aliases;
mod window;

use std::{
    collections::VecDeque,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::BytesMut;

use self::{
    aliases::{Aliases, Said},
    window::{Slot, Window},
};
use super::{
    Session, SessionError, Settings,
    frame::{self, Deframer, Piece},
    link::{Greeting, Link},
    patience::Patience,
    publish::{Outgoing, PubAck, Stamp},
};
use crate::{
    batch::Properties,
    clock::Instant,
    connector::{
        carried::{Carried, Extras},
        route::Route,
        status::Status,
        stop::Farewell,
    },
    planted::{self, Bug},
    topic::is_text,
    write::{Rejected, SinkQueue, Write},
};

/// Largest packet that a broker has reason to send to one who never subscribes.
const INCOMING_BYTES_MAX: usize = 128 << 10;
/// With as much unwritten, nothing is added: the socket does not keep up.
const OUTGOING_BYTES_MAX: usize = 256 << 10;

/// How long PUBACKs may lie unread while messages follow each other that closely:
/// many cost one wake-up of session and shard.
const ANSWERS_WITHIN: Duration = Duration::from_millis(2);
/// So long after the last message they no longer follow each other.
const STREAM_ENDS_AFTER: Duration = Duration::from_millis(20);
/// With as many messages unanswered, or half a window of them, PUBACKs are read as
/// they come.
const EAGER_FROM: usize = 32;

/// See the module.
pub struct SinkSession {
    link: Link,
    deframer: Deframer,
    queue: Arc<SinkQueue>,
    /// Writes that are not confirmed, in order.
    writes: VecDeque<Unconfirmed>,
    /// Sequence number of the first of them.
    first_write: u64,
    window: Window,
    route: Route,
    /// Of this connection.
    aliases: Aliases,
    greeting: Greeting,
    /// Whether PUBACKs are read as they come, or may lie unread for a while.
    reads: bool,
    patience: Patience,
    /// When a message was published last.
    published_at: Instant,
    /// Until when messages are taken to follow each other closely.
    streams_until: Instant,
    /// The broker ended a connection over one of our packets: publish one at a time
    /// until it is found.
    suspects: bool,
    closing: bool,
}

/// A write, and how far it is.
struct Unconfirmed {
    write: Write,
    /// The first message that was not yet published.
    next: usize,
    /// Messages neither acknowledged nor rejected.
    unanswered: usize,
    rejected: Vec<Rejected>,
}

/// Why a message will never be sent.
enum Unsent {
    /// Nobody wants it any more.
    Expired,
    Refused(String),
}

impl Unsent {
    fn refusal(self) -> Option<String> {
        match self {
            Unsent::Expired => None,
            Unsent::Refused(reason) => Some(reason),
        }
    }
}

impl From<String> for Unsent {
    fn from(reason: String) -> Self {
        Unsent::Refused(reason)
    }
}

impl SinkSession {
    pub fn new(settings: Settings, queue: Arc<SinkQueue>) -> Self {
        SinkSession {
            link: Link::new(settings),
            deframer: Deframer::new(INCOMING_BYTES_MAX, INCOMING_BYTES_MAX),
            queue,
            writes: VecDeque::new(),
            first_write: 0,
            window: Window::default(),
            route: Route::default(),
            aliases: Aliases::default(),
            greeting: Greeting::default(),
            reads: true,
            patience: Patience::new(ANSWERS_WITHIN, EAGER_FROM),
            published_at: Instant(0),
            streams_until: Instant(0),
            suspects: false,
            closing: false,
        }
    }

    /// Messages that were published and are not answered.
    pub fn unanswered(&self) -> usize {
        self.window.unanswered()
    }

    fn take(&mut self, piece: Piece<'_>, now: Instant) -> Result<(), SessionError> {
        const PUBACK: u8 = 4;
        let Piece::Packet { first, body } = piece else {
            return Err(SessionError::Unexpected { packet: "PUBLISH" });
        };
        if first >> 4 == PUBACK {
            return self.take_puback(&PubAck::read(body)?);
        }
        if let Some(greeting) = self.link.take_packet(first, body, now)? {
            self.greeting = greeting;
            self.aliases = Aliases::new(greeting.topic_alias_max);
            self.link.status.set_connected();
        }
        Ok(())
    }

    fn take_puback(&mut self, ack: &PubAck<'_>) -> Result<(), SessionError> {
        let Some(slot) = self.window.answer(ack.packet_id) else {
            return Err(SessionError::Unexpected { packet: "PUBACK" });
        };
        self.suspects &= self.window.unanswered() > 0;
        self.patience.answered();
        self.answer(slot, ack.refusal());
        Ok(())
    }

    /// Message `slot` has its answer: taken, or refused for good.
    fn answer(&mut self, slot: Slot, refusal: Option<String>) {
        let unconfirmed = &mut self.writes[(slot.write - self.first_write) as usize];
        unconfirmed.unanswered -= 1;
        if let Some(reason) = refusal {
            self.link.status.rejected.add(1);
            unconfirmed.rejected.push(Rejected { index: slot.index, reason });
        }
    }

    /// Confirms the writes that are answered, in order.
    fn confirm(&mut self) {
        while self.writes.front().is_some_and(|unconfirmed| unconfirmed.unanswered == 0) {
            let Some(Unconfirmed { write, rejected, .. }) = self.writes.pop_front() else { return };
            self.first_write += 1;
            write.confirm(rejected);
        }
    }

    /// Whether to read PUBACKs now. In a stream of messages they are left to gather,
    /// and nothing that comes wakes anybody.
    fn is_time_to_read(&mut self, now: Instant) -> bool {
        let waiting = self.window.unanswered_sent();
        let half = (self.window_max() / 2).max(1);
        let is_over = self.patience.is_over(waiting, half, now);
        self.streams_until <= now || (is_over && waiting > 0)
    }

    /// A message was published.
    fn note_published(&mut self, now: Instant) {
        if now.since(self.published_at) < ANSWERS_WITHIN {
            self.streams_until = now.plus(STREAM_ENDS_AFTER);
        }
        self.published_at = now;
    }

    fn window_max(&self) -> usize {
        if self.suspects {
            return 1;
        }
        usize::from(self.greeting.receive_max.min(self.link.settings().inflight_max.get()))
    }

    /// Sends again what the last connection left unanswered, then what is new, as
    /// far as window and write buffer allow.
    fn publish(&mut self, ctx: &mut Context<'_>) {
        while self.link.outgoing.len() < OUTGOING_BYTES_MAX && self.window.span() < self.window_max() {
            if let Some(slot) = self.window.next_to_resend() {
                self.resend(slot);
            } else if !self.publish_next() && !self.take_write(ctx) {
                return;
            }
        }
    }

    /// Takes one write from the door; `false` if there is none now.
    fn take_write(&mut self, ctx: &mut Context<'_>) -> bool {
        match self.queue.poll_next(ctx) {
            Poll::Ready(Some(write)) => {
                let unanswered = write.batch.len();
                self.writes.push_back(Unconfirmed { write, next: 0, unanswered, rejected: Vec::new() });
                true
            }
            Poll::Ready(None) => {
                self.closing = true;
                false
            }
            Poll::Pending => false,
        }
    }

    /// Publishes the next message of the write that was taken last; `false` if
    /// there is none.
    fn publish_next(&mut self) -> bool {
        let number = self.first_write + self.writes.len() as u64;
        let Some(unconfirmed) = self.writes.back_mut() else { return false };
        if unconfirmed.next == unconfirmed.write.batch.len() {
            return false;
        }
        let slot = Slot::new(number - 1, unconfirmed.next as u32);
        unconfirmed.next += 1;
        match self.encode(slot, self.window.next_packet_id(), false) {
            Ok(()) => {
                self.window.push(slot);
                self.patience.moved();
            }
            Err(unsent) => self.answer(slot, unsent.refusal()),
        }
        true
    }

    fn resend(&mut self, slot: Slot) {
        self.link.status.redelivered.add(1);
        let packet_id = self.window.resent();
        if let Err(unsent) = self.encode(slot, packet_id, true) {
            // This broker takes smaller packets than the one before, or it has expired.
            let slot = self.window.answer(packet_id).expect("it was just marked as sent");
            self.answer(slot, unsent.refusal());
        }
    }

    /// Appends the PUBLISH of one message, or says why it will never be sent.
    fn encode(&mut self, slot: Slot, packet_id: u16, dup: bool) -> Result<(), Unsent> {
        let write = &self.writes[(slot.write - self.first_write) as usize].write;
        let batch = &write.batch;
        let entry = &batch.entries[slot.index as usize];
        let topic = self.route.topic(&write.destination, entry.topic.bytes(&batch.arena))?;
        let properties = entry.user_properties(&batch.arena);
        let mut carried = Carried::read(properties)?;
        let settings = self.link.settings();
        carried.retain &= settings.keeps_retain;
        let Some(extras) = carried.extras(|| settings.clock.wall()) else {
            self.link.status.expired.add(1);
            return Err(Unsent::Expired);
        };
        let (arena, payload) = (&batch.arena, entry.payload.bytes(&batch.arena));
        let is_stamped = entry.seconds > 0 || entry.nanos > 0;
        let mut publish = Outgoing {
            version: settings.version,
            dup,
            qos: settings.qos.level(),
            packet_id,
            topic,
            alias: None,
            content_type: entry.content_type.get(arena),
            properties,
            stamp: is_stamped.then_some(Stamp { entry, arena }),
            // Operators may have made other bytes of a text, which a broker may look at.
            extras: Extras { is_text: extras.is_text && str::from_utf8(payload).is_ok(), ..extras },
            payload,
        };
        check_texts(&publish)?;
        let said = self.aliases.say(topic);
        match said {
            Said::AsItIs => {}
            Said::WithAlias(alias) => publish.alias = Some(alias),
            Said::ByAlias(alias) => (publish.topic, publish.alias) = (&[], Some(alias)),
        }
        let bytes = publish.packet_bytes();
        if bytes > self.greeting.packet_bytes_max.min(frame::REMAINING_BYTES_MAX) {
            let bytes_max = self.greeting.packet_bytes_max;
            let reason = format!("packet of {bytes} bytes where the broker takes at most {bytes_max}");
            return Err(Unsent::Refused(reason));
        }
        publish.write(&mut self.link.outgoing);
        self.aliases.said(topic, said);
        self.link.status.messages_out.add(1);
        self.link.status.bytes_out.add(bytes as u64);
        Ok(())
    }

    /// QoS 0 has no answer: what was written is done.
    fn answer_written(&mut self) {
        if self.link.settings().qos.level() > 0 || !self.link.outgoing.is_empty() {
            return;
        }
        while let Some(slot) = self.window.answer_first_sent() {
            self.answer(slot, None);
        }
    }
}

/// Operators may have written anything into a message's texts.
fn check_texts(publish: &Outgoing<'_>) -> Result<(), String> {
    let refused = |what: &str| {
        Err(format!("{what} is not text that MQTT carries (UTF-8, 65,535 bytes, no control characters)"))
    };
    if !is_text(publish.topic) {
        return refused("topic");
    }
    if publish.content_type.is_some_and(|text| !is_text(text)) {
        return refused("content type");
    }
    if Properties::of(publish.properties).any(|(key, value)| !is_text(key) || !is_text(value)) {
        return refused("user property");
    }
    // The stamp adds its digits, of which there are never more than 64.
    let node = publish.stamp.map_or(&[][..], |stamp| stamp.entry.node.bytes(stamp.arena));
    if !is_text(node) || node.len() > 65_000 {
        return refused("node of the timestamp");
    }
    Ok(())
}

impl Session for SinkSession {
    fn wants_connection(&self, now: Instant) -> bool {
        self.link.wants_connection(now)
    }

    fn connected(&mut self, now: Instant) -> Result<(), SessionError> {
        self.deframer.clear();
        self.window.begin_generation();
        self.patience.answered();
        self.link.connected(now, None)
    }

    fn disconnected(&mut self, now: Instant, error: &SessionError) {
        if matches!(error, SessionError::Ended { blames_packet: true, .. }) {
            if self.suspects && self.window.unanswered_sent() == 1 {
                // It was alone on the connection: it is the one.
                let slot = self.window.answer_first_sent().expect("one is unanswered");
                self.answer(slot, Some(error.to_string()));
                self.suspects = false;
            } else {
                self.suspects = self.window.unanswered_sent() > 0;
            }
        }
        self.deframer.clear();
        if planted::is(Bug::LostPublish) {
            while let Some(slot) = self.window.answer_first_sent() {
                self.answer(slot, None);
            }
        }
        self.window.begin_generation();
        self.link.disconnected(now, error);
    }

    fn wants_read(&self) -> bool {
        self.reads || !self.link.is_online()
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
        if self.link.is_online() {
            self.answer_written();
            let before = self.link.outgoing.len();
            self.publish(ctx);
            if self.link.outgoing.len() > before {
                self.note_published(now);
            }
            self.reads = self.is_time_to_read(now);
        } else {
            self.closing = self.queue.poll_closed(ctx).is_ready();
        }
        self.confirm();
        if self.closing && self.writes.is_empty() {
            self.link.end(Farewell::ForGood);
        }
        self.link.keep_alive(self.wants_read(), now)
    }

    fn outgoing(&mut self) -> &mut BytesMut {
        &mut self.link.outgoing
    }

    fn deadline(&self) -> Option<Instant> {
        let answers_by = if self.wants_read() {
            None
        } else if self.window.unanswered_sent() == 0 {
            Some(self.streams_until)
        } else {
            self.patience.deadline()
        };
        [self.link.deadline(), answers_by].into_iter().flatten().min()
    }

    fn is_finished(&self) -> bool {
        self.link.is_ended()
    }

    fn status(&self) -> &Arc<Status> {
        &self.link.status
    }
}

#[cfg(test)]
mod tests;
