//! `CommandSession`: one tenant's requests to other programs over one endpoint, and
//! their answers. Subscribes to where answers come before it asks, tells them apart by
//! correlation data and topic, and lets go of requests whose time is over; it knows
//! neither sockets nor guests.

mod subscriptions;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use self::subscriptions::{State, Subscriptions};
use super::{
    Session, SessionError, Settings, Version,
    frame::{self, Deframer, Piece},
    link::{self, Greeting, Link},
    packets::SubAck,
    publish::{Incoming, Outgoing, PubAck},
};
use crate::{
    batch::push_property,
    clock::{Clock, Instant},
    command::{
        Answer, Answering, CommandError, CommandErrorKind as Kind, Commands, Submitted, TIMEOUT_MAX,
        answer::{VERSION, property},
    },
    connector::{carried::Extras, status::Status, stop::Farewell},
    hlc::Hlc,
};
use bytes::{Bytes, BytesMut};
use rand::{Rng as _, SeedableRng as _, rngs::SmallRng};

/// Topic and properties of an answer whose payload is just within the limit.
const AROUND_PAYLOAD_BYTES: usize = 64 << 10;
/// With as much unwritten, nothing is added: the socket does not keep up.
const OUTGOING_BYTES_MAX: usize = 256 << 10;

/// What a session asks with, and takes.
pub struct CommandOptions {
    /// The policy's `payload`.
    pub payload_bytes_max: usize,
    /// The host's node name, for the time of requests.
    pub node: String,
    /// What they are stamped by.
    pub clock: Clock,
}

/// Tells one request from all others, at every program that it passes: a UUID.
type Correlation = [u8; 16];

/// See the module.
pub struct CommandSession {
    link: Link,
    deframer: Deframer,
    options: CommandOptions,
    door: Arc<Commands>,
    hlc: Hlc,
    rng: SmallRng,
    calls: HashMap<Correlation, Open>,
    /// By the numbers of the door.
    numbers: HashMap<u64, Correlation>,
    /// When the time of each open request is over.
    ends: BTreeSet<(Instant, Correlation)>,
    /// Requests to be published, in order.
    unsent: VecDeque<Correlation>,
    /// Published and not acknowledged, by packet id.
    unacknowledged: BTreeMap<u16, Correlation>,
    next_packet_id: u16,
    subscriptions: Subscriptions,
    greeting: Greeting,
    closing: bool,
}

/// A request without an answer.
struct Open {
    number: u64,
    topic: String,
    response: String,
    filter: String,
    until: Instant,
    /// Let go of once the broker has it.
    payload: Bytes,
    /// User properties in a batch's encoding.
    properties: Bytes,
    /// The packet id that it was published with, if it may have to be again.
    packet_id: Option<u16>,
    answering: Answering,
}

impl CommandSession {
    pub fn new(settings: Settings, options: CommandOptions, door: Arc<Commands>) -> Self {
        assert_eq!(settings.version, Version::V5, "requests and answers are told apart by properties");
        // An answer is worth no more than the longest wait for it.
        let settings = Settings { session_expiry: settings.session_expiry.min(TIMEOUT_MAX), ..settings };
        let whole_bytes_max = (options.payload_bytes_max + AROUND_PAYLOAD_BYTES).min(link::PACKET_BYTES_MAX);
        CommandSession {
            deframer: Deframer::new(whole_bytes_max, link::PACKET_BYTES_MAX),
            rng: SmallRng::seed_from_u64(settings.seed),
            link: Link::new(settings),
            options,
            door,
            hlc: Hlc::default(),
            calls: HashMap::new(),
            numbers: HashMap::new(),
            ends: BTreeSet::new(),
            unsent: VecDeque::new(),
            unacknowledged: BTreeMap::new(),
            next_packet_id: 1,
            subscriptions: Subscriptions::default(),
            greeting: Greeting::default(),
            closing: false,
        }
    }

    /// Requests without an answer.
    pub fn open(&self) -> usize {
        self.calls.len()
    }

    fn take(&mut self, piece: Piece<'_>, now: Instant) -> Result<(), SessionError> {
        const PUBLISH: u8 = 3;
        const PUBACK: u8 = 4;
        const SUBACK: u8 = 9;
        const UNSUBACK: u8 = 11;
        match piece {
            Piece::Packet { first, body } => match first >> 4 {
                PUBLISH => {
                    self.expect_online("PUBLISH")?;
                    let publish = Incoming::read(Version::V5, first, body)?;
                    self.take_publish(&publish, publish.payload.len());
                    Ok(())
                }
                PUBACK => self.take_puback(&PubAck::read(body)?),
                SUBACK => self.take_suback(first, body),
                UNSUBACK => self.take_unsuback(body),
                _ => match self.link.take_packet(first, body, now)? {
                    Some(greeting) => self.begin(greeting),
                    None => Ok(()),
                },
            },
            Piece::Head { first, head, body_bytes } => {
                self.expect_online("PUBLISH")?;
                let publish = Incoming::read_head(Version::V5, first, head)?;
                self.take_publish(&publish, publish.payload.len() + body_bytes - head.len());
                Ok(())
            }
            Piece::HeadEnd => Ok(()),
        }
    }

    fn expect_online(&self, packet: &'static str) -> Result<(), SessionError> {
        if self.link.is_online() { Ok(()) } else { Err(SessionError::Unexpected { packet }) }
    }

    /// The broker is there. It may have lost our subscriptions.
    fn begin(&mut self, greeting: Greeting) -> Result<(), SessionError> {
        self.greeting = greeting;
        if !greeting.session_present {
            // It remembers none of the packets that it has not acknowledged.
            self.calls.values_mut().for_each(|open| open.packet_id = None);
        }
        for filter in self.subscriptions.begin_anew() {
            self.ask_for(&filter)?;
        }
        self.link.status.set_connected();
        Ok(())
    }

    /// An answer, whose payload has so many bytes.
    fn take_publish(&mut self, publish: &Incoming<'_>, payload_bytes: usize) {
        self.link.status.messages_in.add(1);
        if publish.dup {
            self.link.status.redelivered.add(1);
        }
        if publish.qos > 0 {
            // It is taken here or nowhere.
            PubAck::write(publish.packet_id, &mut self.link.outgoing);
        }
        let correlation = publish.extras.correlation.and_then(|data| Correlation::try_from(data).ok());
        let open = correlation.and_then(|correlation| self.calls.get(&correlation));
        let Some(open) = open.filter(|open| open.response == publish.topic) else {
            // Its time was over, or it answers somebody else.
            self.link.status.unwanted.add(1);
            return;
        };
        let bytes_max = self.options.payload_bytes_max;
        let number = open.number;
        let result = if payload_bytes <= bytes_max {
            Answer::read(publish.payload, publish.user_texts())
        } else {
            self.link.status.oversize.add(1);
            let text = format!("the answer has {payload_bytes} bytes, policy's `payload` allows {bytes_max}");
            Err(CommandError::new(Kind::PayloadInvalid, text))
        };
        self.close(number, result);
    }

    fn take_puback(&mut self, ack: &PubAck<'_>) -> Result<(), SessionError> {
        let Some(correlation) = self.unacknowledged.remove(&ack.packet_id) else {
            return Err(SessionError::Unexpected { packet: "PUBACK" });
        };
        let Some(open) = self.calls.get_mut(&correlation) else { return Ok(()) };
        open.packet_id = None;
        (open.payload, open.properties) = (Bytes::new(), Bytes::new());
        if let Some(reason) = ack.refusal() {
            self.link.status.rejected.add(1);
            let number = open.number;
            self.close(number, Err(CommandError::new(Kind::ClientError, reason)));
        }
        Ok(())
    }

    fn take_suback(&mut self, first: u8, body: &[u8]) -> Result<(), SessionError> {
        self.expect_online("SUBACK")?;
        let SubAck { packet_id, answers } = SubAck::read(Version::V5, first, body)?;
        let [answer] = answers.as_slice() else {
            return Err(SessionError::Malformed("SUBACK that answers another number of filters"));
        };
        let Some(filter) = self.subscriptions.answered(packet_id, answer.is_ok()) else {
            return Err(SessionError::Unexpected { packet: "SUBACK" });
        };
        if let Err(reason) = answer {
            let text = format!("the broker refused the subscription to `{filter}`: {reason}");
            let waiting = self.calls.values().filter(|open| open.filter == filter);
            let numbers: Vec<u64> = waiting.map(|open| open.number).collect();
            for number in numbers {
                self.close(number, Err(CommandError::new(Kind::ClientError, text.clone())));
            }
        }
        Ok(())
    }

    fn take_unsuback(&mut self, body: &[u8]) -> Result<(), SessionError> {
        let (id, _) =
            body.split_first_chunk().ok_or(SessionError::Malformed("UNSUBACK without a packet id"))?;
        if self.subscriptions.is_left(u16::from_be_bytes(*id)) {
            return Ok(());
        }
        Err(SessionError::Unexpected { packet: "UNSUBACK" })
    }

    /// Ends a request with its result.
    fn close(&mut self, number: u64, result: Result<Answer, CommandError>) {
        if let Some(open) = self.forget(number) {
            open.answering.answer(result);
        }
    }

    fn forget(&mut self, number: u64) -> Option<Open> {
        let correlation = self.numbers.remove(&number)?;
        let open = self.calls.remove(&correlation).expect("it has a number");
        self.ends.remove(&(open.until, correlation));
        self.unsent.retain(|unsent| *unsent != correlation);
        Some(open)
    }

    /// Lets go of requests that nobody waits for.
    fn give_up(&mut self, now: Instant) {
        for number in self.door.take_given_up() {
            drop(self.forget(number));
        }
        while let Some(&(until, correlation)) = self.ends.first().filter(|(until, _)| *until <= now) {
            let open = self.calls.get(&correlation).expect("it has an end");
            debug_assert_eq!(open.until, until);
            let text = "no answer in time";
            self.close(open.number, Err(CommandError::new(Kind::Timeout, text)));
        }
    }

    /// Takes what the door has.
    fn take_requests(&mut self, ctx: &mut Context<'_>) {
        loop {
            match self.door.poll_next(ctx) {
                Poll::Ready(Some(submitted)) => self.take_request(submitted),
                Poll::Ready(None) => {
                    self.closing = true;
                    return;
                }
                Poll::Pending => return,
            }
        }
    }

    fn take_request(&mut self, submitted: Submitted) {
        let Submitted { number, request, filter, answering } = submitted;
        let correlation = uuid(&mut self.rng);
        let properties = self.properties(&request.user_data);
        let open = Open {
            number,
            topic: request.topic.name,
            response: request.response.name,
            filter: filter.as_str().to_owned(),
            until: request.until,
            payload: request.payload,
            properties,
            packet_id: None,
            answering,
        };
        self.ends.insert((open.until, correlation));
        self.numbers.insert(number, correlation);
        self.calls.insert(correlation, open);
        self.unsent.push_back(correlation);
    }

    /// The user properties of a request, the protocol's among them.
    fn properties(&mut self, user_data: &[(String, String)]) -> Bytes {
        let point = self.hlc.tick(self.options.clock.wall());
        let time = format!("{:015}:{:05}:{}", point.ms, point.counter, self.options.node);
        let client_id = self.door.client_id();
        let own = [
            (property::TIMESTAMP, time.as_str()),
            (property::SOURCE, client_id),
            (property::INVOKER, client_id),
            (property::VERSION, VERSION),
        ];
        let theirs = user_data.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        let mut properties = BytesMut::new();
        for (key, value) in theirs.chain(own) {
            push_property(&mut properties, key.as_bytes(), value.as_bytes());
        }
        properties.freeze()
    }

    /// Subscribes and publishes, as far as window and write buffer allow.
    fn publish(&mut self, now: Instant) -> Result<(), SessionError> {
        for _ in 0..self.unsent.len() {
            let Some(correlation) = self.unsent.pop_front() else { break };
            let Some(open) = self.calls.get(&correlation) else { continue };
            match self.subscriptions.state(&open.filter) {
                Some(State::Granted) if self.has_room() => self.publish_one(correlation, now),
                Some(_) => self.unsent.push_back(correlation),
                None => {
                    let filter = open.filter.clone();
                    self.unsent.push_back(correlation);
                    self.subscribe(&filter)?;
                }
            }
        }
        Ok(())
    }

    fn has_room(&self) -> bool {
        let window = self.greeting.receive_max.min(self.link.settings().inflight_max.get());
        self.unacknowledged.len() < usize::from(window) && self.link.outgoing.len() < OUTGOING_BYTES_MAX
    }

    fn subscribe(&mut self, filter: &str) -> Result<(), SessionError> {
        let in_use: BTreeSet<&str> = self.calls.values().map(|open| open.filter.as_str()).collect();
        if let Some(old) = self.subscriptions.make_room(|filter| in_use.contains(filter)) {
            let packet_id = self.packet_id();
            subscriptions::unsubscribe(&old, packet_id, &mut self.link.outgoing)?;
            self.subscriptions.left(packet_id);
        }
        self.ask_for(filter)
    }

    fn ask_for(&mut self, filter: &str) -> Result<(), SessionError> {
        let (packet_id, qos) = (self.packet_id(), self.link.settings().qos.level());
        subscriptions::subscribe(filter, qos, packet_id, &mut self.link.outgoing)?;
        self.subscriptions.asked(filter, packet_id);
        Ok(())
    }

    fn publish_one(&mut self, correlation: Correlation, now: Instant) {
        let earlier = self.calls.get(&correlation).and_then(|open| open.packet_id);
        let packet_id = earlier.unwrap_or_else(|| self.packet_id());
        let open = self.calls.get_mut(&correlation).expect("it is open");
        let qos = self.link.settings().qos.level();
        let left = open.until.since(now).max(Duration::from_secs(1));
        let publish = Outgoing {
            version: Version::V5,
            dup: earlier.is_some(),
            qos,
            packet_id,
            topic: open.topic.as_bytes(),
            alias: None,
            content_type: None,
            properties: &open.properties,
            stamp: None,
            extras: Extras {
                response_topic: Some(open.response.as_bytes()),
                correlation: Some(&correlation),
                expiry_s: Some((left + Duration::from_nanos(999_999_999)).as_secs() as u32),
                ..Extras::default()
            },
            payload: &open.payload,
        };
        let (bytes, bytes_max) = (publish.packet_bytes(), self.greeting.packet_bytes_max);
        if bytes > bytes_max.min(frame::REMAINING_BYTES_MAX) {
            let number = open.number;
            let text = format!("request of {bytes} bytes where the broker takes at most {bytes_max}");
            self.close(number, Err(CommandError::new(Kind::PayloadInvalid, text)));
            return;
        }
        publish.write(&mut self.link.outgoing);
        if qos > 0 {
            open.packet_id = Some(packet_id);
            self.unacknowledged.insert(packet_id, correlation);
        }
        self.subscriptions.used(&open.filter);
        self.link.status.messages_out.add(1);
        self.link.status.bytes_out.add(bytes as u64);
        if earlier.is_some() {
            self.link.status.redelivered.add(1);
        }
    }

    /// One that no unanswered packet has.
    fn packet_id(&mut self) -> u16 {
        loop {
            let id = self.next_packet_id;
            self.next_packet_id = id.checked_add(1).unwrap_or(1);
            // As many as a window may still be sent again with theirs.
            let is_taken = self.unacknowledged.contains_key(&id)
                || self.subscriptions.has_asked(id)
                || self.unsent.iter().any(|it| self.calls.get(it).is_some_and(|it| it.packet_id == Some(id)));
            if !is_taken {
                return id;
            }
        }
    }
}

/// A random UUID, as other programs expect one.
fn uuid(rng: &mut SmallRng) -> Correlation {
    let mut bytes: Correlation = rng.random();
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    bytes
}

impl Session for CommandSession {
    fn wants_connection(&self, now: Instant) -> bool {
        self.link.wants_connection(now)
    }

    fn connected(&mut self, now: Instant) -> Result<(), SessionError> {
        self.deframer.clear();
        self.link.connected(now, None)
    }

    fn disconnected(&mut self, now: Instant, error: &SessionError) {
        self.deframer.clear();
        // They are published again, before all that were not yet.
        for correlation in std::mem::take(&mut self.unacknowledged).into_values().rev() {
            self.unsent.push_front(correlation);
        }
        if matches!(error, SessionError::Ended { blames_packet: true, .. }) {
            // One of them, and nobody knows which.
            for correlation in std::mem::take(&mut self.unsent) {
                if let Some(open) = self.calls.get(&correlation).filter(|open| open.packet_id.is_some()) {
                    self.close(open.number, Err(CommandError::new(Kind::ClientError, error.to_string())));
                } else {
                    self.unsent.push_back(correlation);
                }
            }
        }
        self.link.disconnected(now, error);
    }

    fn wants_read(&self) -> bool {
        true
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
        self.take_requests(ctx);
        self.give_up(now);
        if self.closing {
            // Dropped, they are told as cancelled.
            self.calls.clear();
            self.link.end(Farewell::ForGood);
            return Ok(());
        }
        if self.link.is_online() {
            self.publish(now)?;
        }
        self.link.keep_alive(true, now)
    }

    fn outgoing(&mut self) -> &mut BytesMut {
        &mut self.link.outgoing
    }

    fn deadline(&self) -> Option<Instant> {
        let end = self.ends.first().map(|(until, _)| *until);
        [self.link.deadline(), end].into_iter().flatten().min()
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
