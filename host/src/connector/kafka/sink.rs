//! `KafkaSink`: one tenant's records to one endpoint. Takes writes from the sink's door,
//! hands their messages to a producer, and confirms each write when there is a report for
//! all of it. Keeps what is not reported, so that a producer that cannot go on is replaced
//! and given it again, in order; but for transactions, after whose end the source does.

use std::{
    borrow::Cow,
    collections::{HashMap, VecDeque},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::{Duration, Instant},
};

use rdkafka::{
    ClientContext, Message as _,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode},
    message::{DeliveryResult, Header, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext},
};

use super::{ClientError, Outgoing, Transaction, is_about_secrets, producer, transaction::Phase};
use crate::{
    clock::Clock,
    connector::{backoff::Backoff, route::Route, status::Status, waiter::Waiter},
    deploy::chain,
    resource::endpoint::{KafkaSettings, is_kafka_topic},
    write::{Rejected, SinkQueue, Write},
};

/// With as many bytes unreported, no write is taken.
const UNREPORTED_BYTES_MAX: usize = 8 << 20;
/// So long the thread waits for reports before it looks for writes again.
const REPORTS_WAIT: Duration = Duration::from_millis(2);
/// Without anything to do, the producer's other news is read so often.
const NEWS_EVERY: Duration = Duration::from_secs(10);
/// How long the brokers may take to answer when it begins, until `status` says so.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Once its queue is closed, what is unreported is waited for so long.
const CLOSES_WITHIN: Duration = Duration::from_secs(5);
const RETRY_AFTER: Duration = Duration::from_millis(200);
const RETRY_AFTER_MAX: Duration = Duration::from_secs(5);

/// See the module.
pub struct KafkaSink {
    settings: KafkaSettings,
    client_id: String,
    /// The host's node name.
    node: String,
    /// What messages expire by.
    clock: Clock,
    queue: Arc<SinkQueue>,
    shared: Arc<Shared>,
    route: Route,
    transaction: Option<Arc<Transaction>>,
}

struct Shared {
    unreported: Mutex<Unreported>,
    status: Arc<Status>,
    /// The producer has ended for good.
    failed: AtomicBool,
    /// What it said last of its brokers.
    reason: Mutex<String>,
    /// With transactions: what the brokers refused and why, by its digest. A transaction with
    /// such a record cannot be committed; the next one is without it.
    refused: Option<Mutex<HashMap<u64, String>>>,
}

/// More refused records than these are found out again: more than a producer can hold.
const REFUSED_MAX: usize = 200_000;

fn digest(topic: &str, key: Option<&[u8]>, value: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    (topic, key, value).hash(&mut hasher);
    hasher.finish()
}

/// Writes that are not confirmed, in order.
#[derive(Default)]
struct Unreported {
    writes: VecDeque<Pending>,
    /// Number of the first of them.
    first: u64,
    bytes: usize,
}

struct Pending {
    write: Write,
    /// For each message, whether it has its report.
    reported: Vec<bool>,
    unreported: usize,
    rejected: Vec<Rejected>,
}

impl Unreported {
    /// Message `index` of write `number` is taken, or refused for good.
    fn report(&mut self, number: u64, index: u32, refusal: Option<String>) {
        // Reports of a producer that was replaced may come twice.
        let Some(place) = number.checked_sub(self.first) else { return };
        let Some(pending) = self.writes.get_mut(place as usize) else { return };
        if std::mem::replace(&mut pending.reported[index as usize], true) {
            return;
        }
        pending.unreported -= 1;
        pending.rejected.extend(refusal.map(|reason| Rejected { index, reason }));
        self.confirm();
    }

    /// Confirms all, sent or not.
    fn forget(&mut self) {
        for Pending { write, .. } in self.writes.drain(..) {
            self.first += 1;
            write.confirm(Vec::new());
        }
        self.bytes = 0;
    }

    /// Confirms the writes that are reported, in order.
    fn confirm(&mut self) {
        while self.writes.front().is_some_and(|pending| pending.unreported == 0) {
            let Some(Pending { write, mut rejected, .. }) = self.writes.pop_front() else { return };
            self.first += 1;
            self.bytes -= write.batch.bytes_held();
            rejected.sort_by_key(|rejected| rejected.index);
            write.confirm(rejected);
        }
    }
}

/// A message of a write, as the library carries it through.
fn opaque(number: u64, index: u32) -> usize {
    (number << INDEX_BITS | u64::from(index)) as usize
}

/// More messages than a write has.
const INDEX_BITS: u32 = 24;

/// What the library tells of a producer.
pub(super) struct Reports(Arc<Shared>);

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(?level, facility, message, "librdkafka");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal) || is_about_secrets(&error) {
            self.0.fail();
        }
        self.0.status.set_degraded(Clock::System.now(), reason.to_owned());
        self.0.set_reason(reason.to_owned());
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, opaque: usize) {
        let (number, index) = (opaque as u64 >> INDEX_BITS, (opaque & ((1 << INDEX_BITS) - 1)) as u32);
        let refusal = match result {
            Ok(_) => {
                if self.0.status.is_missing() {
                    self.0.status.set_connected();
                }
                None
            }
            Err((error, message)) => match error.rdkafka_error_code() {
                // Given up by a producer that is replaced, which is given it again.
                Some(RDKafkaErrorCode::PurgeQueue | RDKafkaErrorCode::PurgeInflight) => return,
                Some(code) if is_refusal(code) => {
                    let refusal = format!("Kafka refused it: {error}");
                    if let Some(refused) = &self.0.refused {
                        let mut refused = refused.lock().expect("no panic under this lock");
                        if refused.len() >= REFUSED_MAX {
                            refused.clear();
                        }
                        let value = message.payload().unwrap_or_default();
                        refused.insert(digest(message.topic(), message.key(), value), refusal);
                        self.0.set_reason(error.to_string());
                        self.0.fail();
                        return;
                    }
                    self.0.status.rejected.add(1);
                    Some(refusal)
                }
                _ => {
                    tracing::warn!(%error, "a record was not delivered; it is sent again");
                    self.0.set_reason(error.to_string());
                    self.0.fail();
                    return;
                }
            },
        };
        self.0.lock().report(number, index, refusal);
    }
}

/// Whether the brokers would say the same to the same record for ever.
fn is_refusal(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::MessageSizeTooLarge
            | RDKafkaErrorCode::InvalidMessage
            | RDKafkaErrorCode::InvalidMessageSize
            | RDKafkaErrorCode::InvalidRecord
            | RDKafkaErrorCode::InvalidTimestamp
            | RDKafkaErrorCode::InvalidTopic
            | RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::UnknownPartition
            | RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::PolicyViolation
    )
}

/// How a producer ended.
enum End {
    /// All was confirmed, or nobody waits for it any more.
    Closed,
    /// Another one is to go on.
    Failed(ClientError),
}

impl KafkaSink {
    pub fn new(
        settings: KafkaSettings,
        client_id: String,
        node: String,
        clock: Clock,
        queue: Arc<SinkQueue>,
    ) -> Self {
        KafkaSink {
            settings,
            client_id,
            node,
            clock,
            queue,
            shared: Arc::new(Shared::new()),
            route: Route::default(),
            transaction: None,
        }
    }

    /// What it sends is part of `transaction`.
    pub fn within(self, transaction: Arc<Transaction>) -> Self {
        let shared = Shared { refused: Some(Mutex::default()), ..Shared::new() };
        KafkaSink { transaction: Some(transaction), shared: Arc::new(shared), ..self }
    }

    pub fn status(&self) -> &Arc<Status> {
        &self.shared.status
    }

    /// Writes until its queue is closed and empty. Blocks its thread.
    pub fn run(mut self) {
        let waiter = Waiter::default();
        let mut backoff = Backoff::new(RETRY_AFTER, RETRY_AFTER_MAX);
        loop {
            let error = match self.produce(&waiter, &mut backoff) {
                Ok(End::Closed) => break,
                Ok(End::Failed(error)) | Err(error) => error,
            };
            self.shared.status.set_degraded(Clock::System.now(), chain(&error));
            if let Some(transaction) = self.transaction.clone() {
                self.let_go(&transaction, &waiter);
            }
            if self.queue.is_closed() {
                // Nobody waits any more for what it still holds.
                break;
            }
            waiter.wait_for(backoff.next());
        }
        self.shared.status.set_closed();
    }

    /// With one producer, as long as it lasts.
    fn produce(&mut self, waiter: &Waiter, backoff: &mut Backoff) -> Result<End, ClientError> {
        self.shared.failed.store(false, Ordering::SeqCst);
        let config = producer(&self.settings, &self.client_id)?;
        let producer: BaseProducer<Reports> = config.create_with_context(Reports(self.shared.clone()))?;
        let producer = Arc::new(producer);
        self.reach(&producer)?;
        if let Some(transaction) = &self.transaction {
            transaction.open(producer.clone())?;
        }
        backoff.reset();
        self.send_again(&producer);
        let mut closing_since = None;
        loop {
            if self.shared.has_failed() {
                let fatal = producer.client().fatal_error().map(|(code, text)| format!("{code}: {text}"));
                let reason = fatal.unwrap_or_else(|| self.shared.reason());
                return Ok(End::Failed(ClientError::Fatal { reason }));
            }
            if let Some(transaction) = &self.transaction
                && !transaction.is_open_with(&producer, &mut waiter.context())
            {
                let reason = "its source did not commit it".to_owned();
                return Ok(End::Failed(ClientError::Aborted { reason }));
            }
            let has_room = self.shared.lock().bytes < UNREPORTED_BYTES_MAX;
            let polled = if has_room { self.queue.poll_next(&mut waiter.context()) } else { Poll::Pending };
            let is_ended = matches!(polled, Poll::Ready(None));
            match polled {
                Poll::Ready(Some(write)) => {
                    self.take(write, &producer);
                    // Reports that are there, without waiting for more.
                    producer.poll(Duration::ZERO);
                    continue;
                }
                Poll::Ready(None) if self.shared.lock().writes.is_empty() => return Ok(End::Closed),
                Poll::Ready(None) | Poll::Pending => {}
            }
            // Empty, or without room to take what it still has.
            if is_ended || (!has_room && self.queue.is_closed()) {
                let since = *closing_since.get_or_insert_with(Instant::now);
                if since.elapsed() > CLOSES_WITHIN {
                    return Ok(End::Closed);
                }
            }
            if self.shared.lock().writes.is_empty() {
                producer.poll(Duration::ZERO);
                waiter.wait_for(NEWS_EVERY);
            } else {
                producer.poll(REPORTS_WAIT);
            }
        }
    }

    /// Of a transaction that failed, all that is under way: until the source wants another.
    fn let_go(&mut self, transaction: &Transaction, waiter: &Waiter) {
        if matches!(transaction.phase(), Phase::Wanted) {
            // Nothing was sent in it.
            return;
        }
        transaction.fail();
        loop {
            self.shared.lock().forget();
            if matches!(transaction.poll_phase(&mut waiter.context()), Phase::Wanted) {
                return;
            }
            match self.queue.poll_next(&mut waiter.context()) {
                Poll::Ready(Some(write)) => write.confirm(Vec::new()),
                Poll::Ready(None) => return,
                Poll::Pending => waiter.wait_for(NEWS_EVERY),
            }
        }
    }

    /// Until a broker has answered, or too much time is over.
    fn reach(&self, producer: &BaseProducer<Reports>) -> Result<(), ClientError> {
        let until = Instant::now() + ANSWER_WITHIN;
        while !self.queue.is_closed() {
            let step = Duration::from_millis(500);
            if producer.client().fetch_cluster_id(step).is_some() {
                self.shared.status.set_connected();
                return Ok(());
            }
            producer.poll(Duration::ZERO);
            if self.shared.has_failed() {
                return Err(ClientError::Refused { reason: self.shared.reason() });
            }
            if Instant::now() > until {
                break;
            }
        }
        Err(ClientError::Silent { address: self.settings.address.clone(), reason: self.shared.reason() })
    }

    fn take(&mut self, write: Write, producer: &BaseProducer<Reports>) {
        let number = {
            let mut unreported = self.shared.lock();
            unreported.bytes += write.batch.bytes_held();
            let messages = write.batch.len();
            let number = unreported.first + unreported.writes.len() as u64;
            let pending = Pending {
                write,
                reported: vec![false; messages],
                unreported: messages,
                rejected: Vec::new(),
            };
            unreported.writes.push_back(pending);
            number
        };
        self.send(number, producer);
    }

    fn send_again(&mut self, producer: &BaseProducer<Reports>) {
        let numbers = {
            let unreported = self.shared.lock();
            unreported.first..unreported.first + unreported.writes.len() as u64
        };
        for number in numbers {
            if self.shared.has_failed() {
                return;
            }
            self.send(number, producer);
        }
    }

    /// Hands those messages of a write to the producer that have no report.
    fn send(&mut self, number: u64, producer: &BaseProducer<Reports>) {
        // Of its own: reports come while it is read.
        let (batch, destination, reported) = {
            let unreported = self.shared.lock();
            let Some(place) = number.checked_sub(unreported.first) else { return };
            let Some(pending) = unreported.writes.get(place as usize) else { return };
            let reported = pending.reported.clone();
            (pending.write.batch.clone(), pending.write.destination.clone(), reported)
        };
        if batch.is_empty() {
            return self.shared.lock().confirm();
        }
        for (index, entry) in batch.entries.iter().enumerate().filter(|(index, _)| !reported[*index]) {
            let index = index as u32;
            let made = Outgoing::of(
                entry,
                &batch,
                &self.settings.partition,
                self.settings.copying,
                &self.node,
                || self.clock.wall(),
            );
            let outgoing = match made {
                Ok(Some(outgoing)) => outgoing,
                Ok(None) => {
                    self.shared.status.expired.add(1);
                    self.shared.lock().report(number, index, None);
                    continue;
                }
                Err(reason) => {
                    self.shared.reject(number, index, reason);
                    continue;
                }
            };
            let topic = self.route.topic(&destination, entry.topic.bytes(&batch.arena));
            let topic = topic.and_then(|topic| {
                let topic = std::str::from_utf8(topic).map_err(|error| error.to_string())?;
                if is_kafka_topic(topic) { Ok(topic) } else { Err(format!("Kafka has no topic `{topic}`")) }
            });
            let topic = match topic {
                Ok(topic) => topic,
                Err(reason) => {
                    self.shared.reject(number, index, reason);
                    continue;
                }
            };
            if let Some(reason) = self.shared.refusal(topic, &outgoing) {
                self.shared.reject(number, index, reason);
                continue;
            }
            let opaque = opaque(number, index);
            if let Err(reason) = hand_over(producer, topic, &outgoing, opaque, &self.shared, &self.queue) {
                self.shared.reject(number, index, reason);
            } else if self.shared.has_failed() {
                // What comes behind it is not to overtake it.
                return;
            } else {
                self.shared.status.messages_out.add(1);
                self.shared.status.bytes_out.add(outgoing.value.len() as u64);
            }
        }
    }
}

impl Shared {
    fn new() -> Self {
        Shared {
            unreported: Mutex::default(),
            status: Status::new(),
            failed: AtomicBool::new(false),
            reason: Mutex::default(),
            refused: None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Unreported> {
        self.unreported.lock().expect("no panic under this lock")
    }

    /// Why the brokers refused the same record before.
    fn refusal(&self, topic: &str, outgoing: &Outgoing<'_>) -> Option<String> {
        let refused = self.refused.as_ref()?.lock().expect("no panic under this lock");
        if refused.is_empty() {
            return None;
        }
        refused.get(&digest(topic, outgoing.key, outgoing.value)).cloned()
    }

    /// The producer cannot go on.
    fn fail(&self) {
        self.failed.store(true, Ordering::SeqCst);
    }

    fn has_failed(&self) -> bool {
        self.failed.load(Ordering::SeqCst)
    }

    fn set_reason(&self, reason: String) {
        *self.reason.lock().expect("no panic under this lock") = reason;
    }

    fn reason(&self) -> String {
        self.reason.lock().expect("no panic under this lock").clone()
    }

    fn reject(&self, number: u64, index: u32, reason: String) {
        self.status.rejected.add(1);
        self.lock().report(number, index, Some(reason));
    }
}

/// Gives one record to the producer, once that has room.
fn hand_over(
    producer: &BaseProducer<Reports>,
    topic: &str,
    outgoing: &Outgoing<'_>,
    opaque: usize,
    shared: &Shared,
    queue: &SinkQueue,
) -> Result<(), String> {
    let begun = Instant::now();
    let mut record: BaseRecord<'_, [u8], [u8], usize> =
        BaseRecord::with_opaque_to(topic, opaque).payload(outgoing.value);
    record.key = outgoing.key;
    record.timestamp = outgoing.timestamp;
    if !outgoing.headers.is_empty() {
        let headers = OwnedHeaders::new_with_capacity(outgoing.headers.len());
        let add = |headers: OwnedHeaders, (key, value): &(Cow<'_, str>, Cow<'_, [u8]>)| {
            headers.insert(Header { key, value: Some(&**value) })
        };
        record.headers = Some(outgoing.headers.iter().fold(headers, add));
    }
    loop {
        let (error, again) = match producer.send(record) {
            Ok(()) => return Ok(()),
            Err(refused) => refused,
        };
        match error.rdkafka_error_code() {
            // Nobody waits for it any more.
            Some(RDKafkaErrorCode::QueueFull) if queue.is_closed() && begun.elapsed() > CLOSES_WITHIN => {
                shared.fail();
            }
            Some(RDKafkaErrorCode::QueueFull) => producer.poll(REPORTS_WAIT),
            // Found out by the library itself.
            Some(code) if is_refusal(code) => return Err(format!("Kafka refused it: {error}")),
            // It is given to the next producer.
            _ => {
                shared.fail();
                return Ok(());
            }
        }
        record = again;
        if shared.has_failed() {
            return Ok(());
        }
    }
}
