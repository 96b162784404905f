//! `KafkaSource`: one member of a consumer group, whose partitions become one stream of
//! deliveries. An offset is stored, and so committed, once all up to it is settled.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::{Duration, Instant},
};

use rdkafka::{
    ClientContext, Message, Offset, Statistics, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext, Rebalance},
    error::{KafkaError, KafkaResult},
    message::{Headers as _, OwnedMessage},
    types::RDKafkaRespErr,
};

use super::{ClientError, Record, Transaction, consumer, is_about_secrets, transaction::Phase};
use crate::{
    batch::{Batch, BatchBuilder},
    clock::Clock,
    connector::{backoff::Backoff, status::Status, stop::Stop, waiter::Waiter},
    deploy::chain,
    queue::{Marks, Places, SourceDoor},
    resource::endpoint::{Copying, KafkaSettings},
};

/// How often a source looks at its doors though nothing woke it: the group must hear of it
/// in `max.poll.interval.ms`, which is minutes.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// So long a delivery waits for credit before its partitions are paused, which throws away
/// what was fetched.
const PATIENCE: Duration = Duration::from_secs(1);
/// While paused, the group is asked for news so often.
const PAUSED_LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long partitions that go to another member wait for what is under way.
const DRAIN: Duration = Duration::from_secs(5);
const GLANCE: Duration = Duration::from_millis(1);
const COMMITTED_WITHIN: Duration = Duration::from_secs(5);
/// A client that has no broker for so long is replaced by one with secrets and certificates
/// as they are by then: not every refusal is said to be one.
const MISSED_FOR: Duration = Duration::from_secs(10);
/// How often the library is told what is settled.
const TELL_EVERY: Duration = Duration::from_millis(20);
/// How long a transaction lasts, about.
const CUT_EVERY: Duration = Duration::from_millis(100);
const RETRY_AFTER: Duration = Duration::from_millis(200);
const RETRY_AFTER_MAX: Duration = Duration::from_secs(5);

/// A record whose value is over the policy's `payload`: its place, its size and its
/// beginning. It is passed over when this returns.
pub type Oversize = Box<dyn FnMut(&str, i32, i64, usize, Batch) + Send>;

/// What a [`KafkaSource`] reads, and whom it tells.
pub struct KafkaOptions {
    pub client_id: String,
    /// See [`group`](super::group).
    pub group: String,
    pub topics: Vec<String>,
    /// The host's node name, for messages without a timestamp of their own.
    pub node: String,
    pub payload_bytes_max: usize,
    /// Whether messages are known by their places: windows take each in once.
    pub identifies: bool,
    pub oversize: Oversize,
    /// What its offsets are part of.
    pub transaction: Option<Arc<Transaction>>,
    pub stop: Stop,
}

/// See the module.
pub struct KafkaSource {
    settings: KafkaSettings,
    options: KafkaOptions,
    status: Arc<Status>,
    door: SourceDoor,
}

/// Of a record that is too large, what goes into its dead letter.
const OVERSIZE_HEAD_BYTES: usize = 64 << 10;

impl KafkaSource {
    pub fn new(settings: KafkaSettings, options: KafkaOptions, door: SourceDoor) -> Self {
        KafkaSource { settings, options, status: Status::new(), door }
    }

    pub fn status(&self) -> &Arc<Status> {
        &self.status
    }

    /// Delivers until it is stopped and nothing is under way, or its dataflow is gone.
    /// Blocks its thread.
    pub fn run(self) {
        let waiter = Waiter::default();
        let KafkaSource { settings, mut options, status, door } = self;
        // As long as the dataflow lives.
        let delivery_bytes_max = door.delivery_bytes_max();
        let mut backoff = Backoff::new(RETRY_AFTER, RETRY_AFTER_MAX);
        if options.identifies {
            // For windows: it is silent only once it is in its group.
            door.will_read_streams();
        }
        let shared = Arc::new(Shared {
            progress: Mutex::new(Progress {
                door,
                unsettled: VecDeque::new(),
                reading: Vec::new(),
                delivered_last: 0,
                delivered: BTreeMap::new(),
                topics: Vec::new(),
            }),
            status: status.clone(),
            stop: options.stop.clone(),
            served: AtomicBool::new(false),
            refusal: Mutex::default(),
            transaction: options.transaction.take(),
            identifies: options.identifies,
        });
        while !shared.is_stopped(&waiter) {
            shared.refusal().take();
            let error = match open(&settings, &options, &shared, &waiter) {
                Ok(consumer) => {
                    let node = options.node.clone();
                    let mut reading = Reading {
                        consumer: &consumer,
                        shared: &shared,
                        waiter: &waiter,
                        copying: settings.copying,
                        delivery_bytes_max,
                        is_over: false,
                        builder: BatchBuilder::new(&node),
                        held: VecDeque::new(),
                        ends: Vec::new(),
                        options: &mut options,
                    };
                    // When the consumer goes it leaves the group, after what is stored was
                    // committed.
                    match reading.run() {
                        Ok(()) => break,
                        Err(error) => error,
                    }
                }
                Err(error) => error,
            };
            shared.lock().reading.clear();
            if !status.is_missing() {
                backoff.reset();
            }
            status.set_degraded(Clock::System.now(), chain(&error));
            waiter.wait_for(backoff.next());
        }
        status.set_closed();
    }
}

fn open(
    settings: &KafkaSettings,
    options: &KafkaOptions,
    shared: &Arc<Shared>,
    waiter: &Waiter,
) -> Result<BaseConsumer<Group>, ClientError> {
    let config = consumer(settings, &options.client_id, &options.group)?;
    let mut consumer: BaseConsumer<Group> = config.create_with_context(Group(shared.clone()))?;
    let waker = waiter.waker();
    consumer.set_nonempty_callback(move || waker.wake_by_ref());
    let topics: Vec<&str> = options.topics.iter().map(String::as_str).collect();
    consumer.subscribe(&topics)?;
    Ok(consumer)
}

/// Which partition of which topic, by the number of the topic.
type Partition = (usize, i32);

/// What has been delivered, and where it stood.
struct Progress {
    door: SourceDoor,
    /// For each delivery that is not settled, what is done with once it is: the next offset
    /// of each partition that it took from.
    unsettled: VecDeque<(u64, Vec<(Partition, i64)>)>,
    /// The next offset of each partition that what is read for the next delivery is from.
    reading: Vec<(Partition, i64)>,
    /// Number of the last delivery.
    delivered_last: u64,
    /// The next offset of each partition that was ever delivered from in this run.
    delivered: BTreeMap<Partition, i64>,
    /// Numbered in the order in which they came.
    topics: Vec<String>,
}

impl Progress {
    /// The number of a topic, which it gets if it has none.
    fn topic(&mut self, name: &str) -> usize {
        self.topics.iter().position(|topic| topic == name).unwrap_or_else(|| {
            self.topics.push(name.to_owned());
            self.topics.len() - 1
        })
    }

    /// Behind the last record that was read of a partition.
    fn next(&self, partition: Partition) -> Option<i64> {
        let reading = self.reading.iter().find(|(it, _)| *it == partition).map(|(_, next)| next);
        reading.or_else(|| self.delivered.get(&partition)).copied()
    }

    /// What was read goes with the delivery of a number.
    fn hand_over(&mut self, number: u64) {
        let places = std::mem::take(&mut self.reading);
        self.delivered.extend(places.iter().copied());
        self.delivered_last = number;
        match self.unsettled.back_mut() {
            // Later places of a partition take the place of earlier ones.
            Some((last, earlier)) if *last == number => {
                earlier.retain(|(partition, _)| places.iter().all(|(other, _)| other != partition));
                earlier.extend(places);
            }
            _ => self.unsettled.push_back((number, places)),
        }
    }

    fn note_read(&mut self, partition: Partition, next: i64) {
        match self.reading.iter_mut().find(|(it, _)| *it == partition) {
            Some((_, known)) => *known = next,
            None => self.reading.push((partition, next)),
        }
    }

    /// Says which partitions it has. Each has a clock of its own: one may be far behind another.
    fn tell_streams(&self, assigned: &TopicPartitionList) {
        let streams = assigned.elements().iter().map(|it| stream_of(it.topic(), it.partition())).collect();
        self.door.reads_streams(streams);
    }

    fn partition(&self, topic: &str, partition: i32) -> Option<Partition> {
        self.topics.iter().position(|name| name == topic).map(|topic| (topic, partition))
    }

    /// Those of a list of which anything was read in this run.
    fn known(&self, list: &TopicPartitionList) -> Vec<Partition> {
        let elements = list.elements();
        elements.iter().filter_map(|it| self.partition(it.topic(), it.partition())).collect()
    }
}

struct Shared {
    progress: Mutex<Progress>,
    status: Arc<Status>,
    stop: Stop,
    /// The library has called back.
    served: AtomicBool,
    /// Why the brokers do not let the client in.
    refusal: Mutex<Option<String>>,
    transaction: Option<Arc<Transaction>>,
    /// Whether each message is known by its place, which windows want.
    identifies: bool,
}

impl Shared {
    fn refusal(&self) -> MutexGuard<'_, Option<String>> {
        self.refusal.lock().expect("no panic under this lock")
    }

    fn take_served(&self) -> bool {
        self.served.swap(false, Ordering::Relaxed)
    }

    /// Never held while the library runs: it calls back on this very thread.
    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().expect("no panic under this lock")
    }

    fn is_stopped(&self, waiter: &Waiter) -> bool {
        self.stop.poll_stopped(&mut waiter.context()).is_ready() || self.lock().door.is_abandoned()
    }

    /// The offsets up to which everything is settled that was not told yet.
    fn take_settled(&self) -> Option<TopicPartitionList> {
        let mut progress = self.lock();
        let settled = progress.door.settled_upto();
        let mut next = BTreeMap::new();
        while progress.unsettled.front().is_some_and(|(number, _)| *number <= settled) {
            let (_, places) = progress.unsettled.pop_front().expect("there is one");
            next.extend(places);
        }
        if next.is_empty() {
            return None;
        }
        let mut list = TopicPartitionList::with_capacity(next.len());
        for ((topic, partition), offset) in next {
            // Offsets that were read fit.
            let _ = list.add_partition_offset(&progress.topics[topic], partition, Offset::Offset(offset));
        }
        Some(list)
    }
}

/// What the library tells a member of the group.
struct Group(Arc<Shared>);

impl ClientContext for Group {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.0.served.store(true, Ordering::Relaxed);
        tracing::debug!(?level, facility, message, "librdkafka");
    }

    fn stats(&self, statistics: Statistics) {
        self.0.served.store(true, Ordering::Relaxed);
        let partitions = statistics.topics.values().flat_map(|topic| topic.partitions.values());
        let lag: i64 = partitions.map(|it| it.consumer_lag_stored.max(0)).sum();
        self.0.status.set_lag(lag as u64);
        if statistics.brokers.values().any(|broker| broker.state == "UP" && broker.nodeid >= 0) {
            self.0.status.set_connected();
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if is_about_secrets(&error) {
            *self.0.refusal() = Some(reason.to_owned());
        }
        self.0.status.set_degraded(Clock::System.now(), reason.to_owned());
    }
}

impl ConsumerContext for Group {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, what: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let (rebalance, done) = match what {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => {
                self.begin_where_it_read(consumer, list);
                (Rebalance::Assign(list), consumer.incremental_assign(list))
            }
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS => {
                let rebalance = Rebalance::Revoke(list);
                self.pre_rebalance(consumer, &rebalance);
                (rebalance, consumer.incremental_unassign(list))
            }
            other => (Rebalance::Error(KafkaError::Rebalance(other.into())), Ok(())),
        };
        self.0.served.store(true, Ordering::Relaxed);
        if let Err(error) = done {
            tracing::warn!(%error, "the library refuses a change of partitions");
        }
        self.post_rebalance(consumer, &rebalance);
    }

    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let Rebalance::Revoke(list) = rebalance else { return };
        if consumer.assignment_lost() {
            // Others have them already: nothing can be committed any more.
            if let Some(transaction) = &self.0.transaction {
                transaction.fail();
            }
            return;
        }
        if let Some(transaction) = &self.0.transaction {
            return self.cut_for_others(transaction, consumer, list);
        }
        let last = {
            let progress = self.0.lock();
            let revoked = progress.known(list);
            let takes = |places: &[(Partition, i64)]| places.iter().any(|(it, _)| revoked.contains(it));
            progress.unsettled.iter().rev().find(|(_, places)| takes(places)).map(|(number, _)| *number)
        };
        if let Some(last) = last {
            self.drain(last);
        }
        if let Some(settled) = self.0.take_settled()
            && let Err(error) = consumer.store_offsets(&settled).and_then(|()| {
                // Now, or another member begins before it.
                consumer.commit(&settled, CommitMode::Sync)
            })
        {
            tracing::debug!(%error, "what was settled of partitions that go is not committed");
        }
    }

    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        // Of partitions that are lost, as when the brokers are away, most come back.
        let is_lost = matches!(rebalance, Rebalance::Revoke(_)) && consumer.assignment_lost();
        if self.0.identifies && !is_lost && !matches!(rebalance, Rebalance::Error(_)) {
            match consumer.assignment() {
                Ok(assigned) => self.0.lock().tell_streams(&assigned),
                Err(error) => {
                    tracing::warn!(%error, "windows do not know which partitions there are");
                    self.0.lock().tell_streams(&TopicPartitionList::new());
                }
            }
        }
        match rebalance {
            Rebalance::Assign(list) => {
                tracing::info!(partitions = list.count(), "partitions came");
                self.0.status.set_connected();
            }
            Rebalance::Revoke(list) => tracing::info!(partitions = list.count(), "partitions went"),
            Rebalance::Error(error) => {
                self.0.status.set_degraded(Clock::System.now(), format!("no partitions: {error}"));
            }
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, _: &TopicPartitionList) {
        self.0.served.store(true, Ordering::Relaxed);
        if let Err(error) = result {
            tracing::debug!(%error, "offsets were not committed; the next commit covers them");
        }
    }
}

impl Group {
    /// A partition that comes back, as after a loss of the connection, goes on behind what
    /// was read of it: that is under way or done. What is committed may be behind.
    fn begin_where_it_read(&self, consumer: &BaseConsumer<Self>, list: &mut TopicPartitionList) {
        let mut read = Vec::new();
        {
            let progress = self.0.lock();
            for it in list.elements() {
                let partition = progress.partition(it.topic(), it.partition());
                if let Some(next) = partition.and_then(|partition| progress.next(partition)) {
                    read.push((it.topic().to_owned(), it.partition(), next));
                }
            }
        }
        if read.is_empty() {
            return;
        }
        // Another member may have had it meanwhile.
        let Ok(committed) = consumer.committed_offsets(list.clone(), COMMITTED_WITHIN) else { return };
        for (topic, partition, next) in read {
            let known = committed.find_partition(&topic, partition).and_then(|it| it.offset().to_raw());
            let next = Offset::Offset(known.unwrap_or(0).max(next));
            // It is in the list.
            let _ = list.set_partition_offset(&topic, partition, next);
        }
    }

    /// Ends the transaction before partitions go, or lets go of it.
    fn cut_for_others(
        &self,
        transaction: &Transaction,
        consumer: &BaseConsumer<Self>,
        list: &TopicPartitionList,
    ) {
        let last = self.0.lock().unsettled.back().map(|(number, _)| *number);
        let is_done = last.is_none_or(|last| self.drain(last));
        let settled = self.0.take_settled();
        if !is_done {
            return transaction.fail();
        }
        if let Some(settled) = settled
            && let Err(error) = transaction.commit(&settled, consumer.group_metadata())
        {
            tracing::debug!(%error, "what was done before partitions went is done again");
        }
        let progress = self.0.lock();
        let gone = progress.known(list);
        if progress.reading.iter().any(|(partition, _)| gone.contains(partition)) {
            // What was read of them and is not delivered yet is for whoever has them now.
            transaction.fail();
        }
    }

    /// Waits until the delivery `last` is settled, but not for ever: what is then under way
    /// comes again from whoever has the partition next. Whether it is settled.
    fn drain(&self, last: u64) -> bool {
        let waiter = Waiter::default();
        let until = Instant::now() + DRAIN;
        loop {
            let (is_done, is_idle) = {
                let progress = self.0.lock();
                let seen = progress.door.settled_upto();
                let is_idle = progress.door.is_abandoned()
                    || (progress.door.poll_settled(seen, &mut waiter.context()).is_pending()
                        && progress.door.poll_idle(&mut waiter.context()).is_ready());
                (seen >= last, is_idle)
            };
            let left = until.saturating_duration_since(Instant::now());
            if is_done || is_idle || left.is_zero() {
                return is_done;
            }
            waiter.wait_for(left);
        }
    }
}

/// A source while it runs.
struct Reading<'s> {
    consumer: &'s BaseConsumer<Group>,
    shared: &'s Shared,
    waiter: &'s Waiter,
    options: &'s mut KafkaOptions,
    copying: Copying,
    delivery_bytes_max: usize,
    /// Something was read and will not be delivered.
    is_over: bool,
    /// The delivery that is being made.
    builder: BatchBuilder,
    /// Read while nothing could be taken.
    held: VecDeque<OwnedMessage>,
    /// Behind each of its messages, if they are identified.
    ends: Vec<i64>,
}

impl Reading<'_> {
    /// Until it is stopped, or another consumer is to go on.
    fn run(&mut self) -> Result<(), ClientError> {
        let (mut told_at, mut there_at) = (Instant::now(), Instant::now());
        while !self.shared.is_stopped(self.waiter) {
            if let Some(reason) = self.shared.refusal().take() {
                return Err(ClientError::Refused { reason });
            }
            if !self.shared.status.is_missing() {
                there_at = Instant::now();
            } else if there_at.elapsed() > MISSED_FOR {
                return Err(ClientError::Missed);
            }
            self.wait_for_transaction()?;
            let is_more = self.read();
            if !self.builder.is_empty() {
                self.deliver();
            }
            if !self.shared.status.is_missing() {
                there_at = Instant::now();
            }
            match &self.shared.transaction {
                Some(transaction) => self.cut_if_due(transaction, &mut told_at, is_more)?,
                None if !is_more => {
                    self.store();
                    self.wait_for_more();
                }
                None if told_at.elapsed() > TELL_EVERY => {
                    self.store();
                    told_at = Instant::now();
                }
                None => {}
            }
        }
        // Nothing more is taken; what is under way may still be settled.
        self.pause();
        while self.shared.lock().door.poll_idle(&mut self.waiter.context()).is_pending() {
            self.waiter.wait_for(PAUSED_LOOK_EVERY);
            self.serve();
            self.store();
        }
        self.store();
        match &self.shared.transaction {
            Some(transaction) if !self.shared.lock().door.is_abandoned() => self.cut(transaction),
            _ => Ok(()),
        }
    }

    /// Ends the transaction if it has lasted long enough and has something; sleeps until
    /// then, or until there is more to read.
    fn cut_if_due(
        &mut self,
        transaction: &Transaction,
        cut_at: &mut Instant,
        is_more: bool,
    ) -> Result<(), ClientError> {
        let is_empty = self.shared.lock().unsettled.is_empty();
        let left = CUT_EVERY.saturating_sub(cut_at.elapsed());
        if is_empty {
            *cut_at = Instant::now();
        } else if left.is_zero() {
            self.cut(transaction)?;
            *cut_at = Instant::now();
        }
        if !is_more {
            self.waiter.wait_for(if is_empty { LOOK_EVERY } else { left });
        }
        Ok(())
    }

    /// Ends the transaction once nothing is under way.
    fn cut(&mut self, transaction: &Transaction) -> Result<(), ClientError> {
        let mut is_paused = false;
        let since = Instant::now();
        while self.shared.lock().door.poll_settled_all(&mut self.waiter.context()).is_pending() {
            if let Phase::Failed = transaction.poll_phase(&mut self.waiter.context()) {
                return self.give_up(transaction, "the sink cannot go on");
            }
            if since.elapsed() > PATIENCE {
                is_paused = true;
                self.serve();
            }
            self.waiter.wait_for(PAUSED_LOOK_EVERY);
        }
        if self.shared.lock().door.is_abandoned() {
            return Ok(());
        }
        if is_paused {
            self.resume();
        }
        let Some(settled) = self.shared.take_settled() else { return Ok(()) };
        match transaction.commit(&settled, self.consumer.group_metadata()) {
            Ok(()) => Ok(()),
            Err(error) => self.give_up(transaction, &chain(&error)),
        }
    }

    /// What was delivered since the last transaction comes to nothing; the next consumer
    /// begins behind that one.
    fn give_up(&mut self, transaction: &Transaction, reason: &str) -> Result<(), ClientError> {
        transaction.fail();
        while self.shared.lock().door.poll_settled_all(&mut self.waiter.context()).is_pending() {
            self.serve();
            self.waiter.wait_for(PAUSED_LOOK_EVERY);
        }
        {
            let mut progress = self.shared.lock();
            progress.unsettled.clear();
            progress.delivered.clear();
        }
        transaction.want();
        Err(ClientError::Aborted { reason: reason.to_owned() })
    }

    /// Without an open transaction nothing is taken.
    fn wait_for_transaction(&mut self) -> Result<(), ClientError> {
        let Some(transaction) = &self.shared.transaction else { return Ok(()) };
        let mut is_paused = false;
        loop {
            match transaction.poll_phase(&mut self.waiter.context()) {
                Phase::Failed => return self.give_up(transaction, "the sink cannot go on"),
                Phase::Wanted if !self.shared.is_stopped(self.waiter) => {
                    is_paused = true;
                    self.serve();
                    self.waiter.wait_for(PAUSED_LOOK_EVERY);
                }
                _ => break,
            }
        }
        if is_paused {
            self.resume();
        }
        Ok(())
    }

    /// Sleeps until there is a record, or something is settled, or it is to stop.
    fn wait_for_more(&self) {
        {
            let progress = self.shared.lock();
            let seen = progress.door.settled_upto();
            if progress.unsettled.front().is_some_and(|(number, _)| *number <= seen)
                || progress.door.poll_settled(seen, &mut self.waiter.context()).is_ready()
            {
                return;
            }
        }
        self.waiter.wait_for(LOOK_EVERY);
    }

    /// Takes records until the delivery is full, or there are none. Whether there may be
    /// more at once.
    fn read(&mut self) -> bool {
        while let Some(message) = self.held.pop_front() {
            self.take(&message);
            if self.is_full() {
                return true;
            }
        }
        loop {
            // What is taken is not kept waiting. An event that is no record, which is served
            // while it waits, hides what is behind it otherwise.
            let wait = if self.builder.is_empty() { GLANCE } else { Duration::ZERO };
            match self.consumer.poll(wait) {
                None if self.shared.take_served() => {}
                None => return false,
                Some(Ok(message)) => {
                    self.take(&message);
                    if self.is_over {
                        return false;
                    }
                    if self.is_full() {
                        return true;
                    }
                }
                Some(Err(error)) => {
                    self.shared.status.set_degraded(Clock::System.now(), error.to_string());
                    return true;
                }
            }
        }
    }

    /// Serves the group, and keeps for later what comes though all is paused: it is of
    /// partitions that have just come.
    fn serve(&mut self) {
        self.pause();
        match self.consumer.poll(Duration::ZERO) {
            Some(Ok(message)) => self.held.push_back(message.detach()),
            Some(Err(error)) => self.shared.status.set_degraded(Clock::System.now(), error.to_string()),
            None => {}
        }
    }

    fn is_full(&self) -> bool {
        // The next record may be as large as the last ones were.
        let bytes = self.builder.bytes_len() / self.builder.len().max(1);
        self.builder.is_full_for(bytes) || self.builder.bytes_len() + bytes > self.delivery_bytes_max
    }

    fn take(&mut self, message: &impl Message) {
        let topic = message.topic();
        let (partition, is_another) = {
            let mut progress = self.shared.lock();
            let partition = (progress.topic(topic), message.partition());
            (partition, progress.reading.first().is_some_and(|(first, _)| *first != partition))
        };
        // What is identified stands in one stream.
        if self.options.identifies && is_another && !self.builder.is_empty() {
            self.deliver();
            if self.is_over {
                // What was read before it is not delivered: neither is this.
                return;
            }
        }
        let value = message.payload().unwrap_or_default();
        self.shared.status.messages_in.add(1);
        self.shared.status.bytes_in.add((value.len() + message.key().map_or(0, <[u8]>::len)) as u64);
        let is_oversize = value.len() > self.options.payload_bytes_max;
        let headers = message.headers().map_or(Vec::new(), |headers| {
            headers.iter().map(|header| (header.key, header.value.unwrap_or_default())).collect()
        });
        let record = Record {
            topic,
            key: message.key(),
            value: if is_oversize { &value[..value.len().min(OVERSIZE_HEAD_BYTES)] } else { value },
            timestamp: message.timestamp().to_millis(),
            headers,
        };
        let next = message.offset() + 1;
        if is_oversize {
            self.shared.status.oversize.add(1);
            let mut builder = BatchBuilder::new(&self.options.node);
            record.push(self.copying, &mut builder);
            (self.options.oversize)(topic, partition.1, message.offset(), value.len(), builder.finish());
        } else {
            let left_out = record.push(self.copying, &mut self.builder);
            self.shared.status.headers_removed.add(left_out);
            if self.options.identifies {
                self.ends.push(next);
            }
        }
        let mut progress = self.shared.lock();
        progress.note_read(partition, next);
        if is_oversize && self.builder.is_empty() {
            // Done with as soon as what came before it is.
            let before = progress.delivered_last;
            progress.hand_over(before);
        }
    }

    /// Hands over what was read, once there is credit for it.
    fn deliver(&mut self) {
        let builder = std::mem::replace(&mut self.builder, BatchBuilder::new(&self.options.node));
        let ends = std::mem::take(&mut self.ends);
        let batch = builder.finish();
        let marks = self.options.identifies.then(|| {
            let progress = self.shared.lock();
            let (topic, partition) = progress.reading[0].0;
            let name = &progress.topics[topic];
            let ends = ends.iter().map(|end| *end as u64).collect();
            Marks::Places(Places { stream: stream_of(name, partition), is_one_of_many: true, ends })
        });
        let bytes = batch.bytes_held();
        let waits_since = Instant::now();
        let mut is_paused = false;
        let credit = loop {
            if self.shared.is_stopped(self.waiter) {
                // It was read but not delivered: its offsets are not stored, nor any behind it.
                self.is_over = true;
                return;
            }
            let polled = self.shared.lock().door.poll_credit(bytes, &mut self.waiter.context());
            if let Poll::Ready(credit) = polled {
                break credit;
            }
            self.store();
            self.waiter.wait_for(if is_paused { PAUSED_LOOK_EVERY } else { PATIENCE });
            if is_paused || waits_since.elapsed() >= PATIENCE {
                is_paused = true;
                self.serve();
            }
        };
        {
            let mut progress = self.shared.lock();
            let number = progress.door.deliver_marked(credit, batch, marks);
            progress.hand_over(number);
        }
        if is_paused {
            self.resume();
        }
    }

    /// Tells the library what is settled, so that it commits it. With transactions that is
    /// not for the library.
    fn store(&self) {
        if self.shared.transaction.is_some() {
            return;
        }
        let Some(settled) = self.shared.take_settled() else { return };
        if let Err(error) = self.consumer.store_offsets(&settled) {
            // Of partitions that went meanwhile.
            tracing::debug!(%error, "offsets are not stored");
        }
    }

    fn pause(&self) {
        self.with_assignment("pause", |list| self.consumer.pause(list));
    }

    fn resume(&self) {
        self.with_assignment("resume", |list| self.consumer.resume(list));
    }

    fn with_assignment(&self, what: &str, ask: impl Fn(&TopicPartitionList) -> KafkaResult<()>) {
        if let Err(error) = self.consumer.assignment().and_then(|list| ask(&list)) {
            tracing::warn!(%error, what, "partitions do as before");
        }
    }
}

/// Names a partition among the streams of a source: FNV-1a of its topic, the same in every run.
fn stream_of(topic: &str, partition: i32) -> [u64; 2] {
    let hash = |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    [topic.bytes().fold(0xcbf2_9ce4_8422_2325, hash), partition as u64]
}
