//! `Queue`: deliveries on their way from sources to a dataflow's ingest operator,
//! and `SourceDoor`, the source's end of it. Bounded by the tenant's credit and by
//! the number of unsettled deliveries; knows nothing of transports.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
};

use crate::{
    batch::Batch,
    clock::Instant,
    dead_letter::Replayed,
    ledger::{Credit, Ledger},
    rate::RateGate,
    settle::{Acked, Settle, Settled},
};

/// What a source hands over at once, and the duty to answer for it.
#[derive(Debug)]
pub struct Delivery {
    /// Which source node of the dataflow.
    pub source: u32,
    pub batch: Batch,
    /// By which its messages are known when they are delivered again.
    pub marks: Option<Marks>,
    /// The dead letters that its messages were, if it is a replay.
    pub replayed: Option<Arc<[Replayed]>>,
    pub settle: Settle,
    pub credit: Credit,
    /// When the dataflow first knew of it.
    pub seen: Option<Instant>,
}

/// What is special to each message of a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Marks {
    Places(Places),
    Sendings(Sendings),
}

impl Marks {
    /// In which of several that its source reads.
    pub fn stream(&self) -> Option<[u64; 2]> {
        match self {
            Marks::Places(places) => Some(places.stream),
            Marks::Sendings(_) => None,
        }
    }
}

/// How a broker sent the messages of a delivery.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sendings {
    /// The broker began with nothing: none of what it sent before comes again.
    pub anew: bool,
    pub messages: Vec<Sending>,
    /// Of the messages up to the last of these, so many at the end may come again; any
    /// if it is not known.
    pub open: Option<u64>,
}

/// How a broker sent one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sending {
    /// 0 for one that is sent once at most.
    pub packet_id: u16,
    /// Of all that the message says.
    pub digest: u64,
    /// It may have been sent before, under the same packet id.
    pub again: bool,
}

/// Where the messages of a delivery stand in what a source reads, such as a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// Names it. Another one for what is read from its beginning again.
    pub stream: [u64; 2],
    /// Whether the source reads others beside it, each from its own place.
    pub is_one_of_many: bool,
    /// For each message, ascending.
    pub ends: Vec<u64>,
}

/// Why a source gives nothing at the moment, where it is not that nothing comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waits {
    No,
    /// It has, or may have, more than is taken of it.
    ToBeTaken,
    /// It does not know yet what it reads.
    ForStreams,
}

/// What a source says of itself.
#[derive(Debug, Default)]
struct Said {
    /// Streams that it reads beside each other, by the names that [`Places`] have, since somebody
    /// looked.
    streams: Option<Vec<[u64; 2]>>,
    is_without_streams: bool,
    /// It waits for credit.
    is_full: bool,
}

/// Deliveries of all sources of one dataflow, first come first served.
#[derive(Debug)]
pub struct Queue {
    lines: Mutex<Lines>,
    /// Whether what may be settled in any order has a line of its own.
    has_two_lines: bool,
    ingest: Waker,
    closed: AtomicBool,
    /// Sources that have given all they ever will.
    ended: Mutex<Vec<u32>>,
    /// By source.
    said: Mutex<Vec<Said>>,
    /// Of streams something was said since somebody looked.
    has_streams: AtomicBool,
    /// So many that nobody has seen.
    unseen: AtomicUsize,
}

/// What waits, by whether it waits for what came before it.
#[derive(Debug, Default)]
struct Lines {
    in_order: Line,
    in_any_order: Line,
    /// How many there are of each source.
    of_sources: Vec<usize>,
}

#[derive(Debug, Default)]
struct Line {
    deliveries: VecDeque<Delivery>,
    /// So many, from the last, that nobody has seen.
    unseen: usize,
}

impl Line {
    fn pop(&mut self) -> Option<Delivery> {
        let delivery = self.deliveries.pop_front();
        self.unseen = self.unseen.min(self.deliveries.len());
        delivery
    }

    fn see(&mut self, now: Instant) {
        let unseen = std::mem::take(&mut self.unseen);
        self.deliveries.iter_mut().rev().take(unseen).for_each(|delivery| delivery.seen = Some(now));
    }
}

impl Lines {
    fn line(&mut self, is_in_order: bool) -> &mut Line {
        if is_in_order { &mut self.in_order } else { &mut self.in_any_order }
    }

    fn push(&mut self, delivery: Delivery, is_in_order: bool) {
        let source = delivery.source as usize;
        if self.of_sources.len() <= source {
            self.of_sources.resize(source + 1, 0);
        }
        self.of_sources[source] += 1;
        let line = self.line(is_in_order);
        line.deliveries.push_back(delivery);
        line.unseen += 1;
    }

    fn pop(&mut self, is_in_order: bool) -> Option<Delivery> {
        let delivery = self.line(is_in_order).pop()?;
        self.of_sources[delivery.source as usize] -= 1;
        Some(delivery)
    }

    fn len(&self) -> usize {
        self.in_order.deliveries.len() + self.in_any_order.deliveries.len()
    }
}

impl Queue {
    /// One line, in which all wait for each other. `ingest` is woken when a delivery comes.
    pub fn new(ingest: Waker) -> Arc<Self> {
        Queue::with_lines(ingest, false)
    }

    /// One in which deliveries that may be settled in any order wait only for each other.
    pub fn with_two_lines(ingest: Waker) -> Arc<Self> {
        Queue::with_lines(ingest, true)
    }

    fn with_lines(ingest: Waker, has_two_lines: bool) -> Arc<Self> {
        let closed = AtomicBool::new(false);
        Arc::new(Queue {
            lines: Mutex::default(),
            has_two_lines,
            ingest,
            closed,
            ended: Mutex::default(),
            said: Mutex::default(),
            has_streams: AtomicBool::new(false),
            unseen: AtomicUsize::new(0),
        })
    }

    /// Spends the delivery's credit on a place in the queue; a closed queue
    /// abandons it.
    pub fn push(&self, delivery: Delivery) {
        let mut lines = self.lines.lock().expect("no panic under this lock");
        if self.is_closed() {
            drop(lines);
            delivery.settle.abandon();
            return;
        }
        let is_in_order = delivery.settle.is_in_order() || !self.has_two_lines;
        lines.push(delivery, is_in_order);
        self.unseen.fetch_add(1, Ordering::Relaxed);
        drop(lines);
        self.ingest.wake_by_ref();
    }

    /// The next delivery; of two lines, of the one in order.
    pub fn pop(&self) -> Option<Delivery> {
        self.lines.lock().expect("no panic under this lock").pop(true)
    }

    /// The next delivery that waits for nothing before it, where these have their own line.
    pub fn pop_in_any_order(&self) -> Option<Delivery> {
        self.lines.lock().expect("no panic under this lock").pop(false)
    }

    /// Whatever came since the last call came now, as exactly as the dataflow is woken: a
    /// source has no clock to read.
    pub fn see(&self, now: Instant) {
        if self.unseen.load(Ordering::Relaxed) == 0 {
            return;
        }
        let mut lines = self.lines.lock().expect("no panic under this lock");
        self.unseen.store(0, Ordering::Relaxed);
        lines.in_order.see(now);
        lines.in_any_order.see(now);
    }

    pub fn len(&self) -> usize {
        self.lines.lock().expect("no panic under this lock").len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Why a source gives nothing.
    pub fn waits(&self, source: u32) -> Waits {
        let source = source as usize;
        let is_full = {
            let said = self.said.lock().expect("no panic under this lock");
            if said.get(source).is_some_and(|it| it.is_without_streams) {
                return Waits::ForStreams;
            }
            said.get(source).is_some_and(|it| it.is_full)
        };
        let lines = self.lines.lock().expect("no panic under this lock");
        let is_here = lines.of_sources.get(source).is_some_and(|waiting| *waiting > 0);
        if is_full || is_here { Waits::ToBeTaken } else { Waits::No }
    }

    fn say(&self, source: u32, say: impl FnOnce(&mut Said)) {
        let mut said = self.said.lock().expect("no panic under this lock");
        if said.len() <= source as usize {
            said.resize_with(source as usize + 1, Said::default);
        }
        say(&mut said[source as usize]);
    }

    /// Sources that have ended since the last call, if nothing of theirs waits here.
    pub fn take_ended(&self) -> Vec<u32> {
        let lines = self.lines.lock().expect("no panic under this lock");
        if lines.len() == 0 {
            std::mem::take(&mut self.ended.lock().expect("no panic under this lock"))
        } else {
            Vec::new()
        }
    }

    /// Which streams sources read from now on, and no others, where they have said so since the
    /// last call.
    pub fn take_streams(&self) -> Vec<(u32, Vec<[u64; 2]>)> {
        if !self.has_streams.swap(false, Ordering::SeqCst) {
            return Vec::new();
        }
        let mut said = self.said.lock().expect("no panic under this lock");
        let taken =
            said.iter_mut().enumerate().filter_map(|(source, it)| Some((source as u32, it.streams.take()?)));
        taken.collect()
    }

    /// Takes no more; what waits stays.
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.ingest.wake_by_ref();
    }

    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// Takes no more and abandons what waits.
    pub fn abandon(&self) {
        self.close();
        while let Some(delivery) = self.pop().or_else(|| self.pop_in_any_order()) {
            delivery.settle.abandon();
        }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.abandon();
    }
}

/// The source's door: deliveries in, settlements out.
#[derive(Debug)]
pub struct SourceDoor {
    source: u32,
    queue: Arc<Queue>,
    ledger: Arc<Ledger>,
    settled: Arc<Settled>,
    /// Where what it delivers has to pass.
    gate: Option<Arc<RateGate>>,
    /// Number of the last delivery handed over.
    delivered: u64,
    /// That it waits for credit was said.
    is_full: AtomicBool,
}

impl SourceDoor {
    /// Most unsettled deliveries of one source: bounds what a stuck delivery keeps
    /// behind it when each is small. Those that windows keep open count against the
    /// tenant's windows instead: a window may need more of them to be complete.
    pub const UNSETTLED_MAX: u64 = 1024;

    pub fn new(source: u32, queue: Arc<Queue>, ledger: Arc<Ledger>) -> Self {
        let (settled, is_full) = (Arc::default(), AtomicBool::new(false));
        SourceDoor { source, queue, ledger, settled, gate: None, delivered: 0, is_full }
    }

    /// What it delivers is settled in any order.
    pub fn in_any_order(self) -> Self {
        SourceDoor { settled: Arc::new(Settled::in_any_order()), ..self }
    }

    /// What it delivers passes a gate, at the pace that this allows.
    pub fn through(self, gate: Option<Arc<RateGate>>) -> Self {
        SourceDoor { gate, ..self }
    }

    /// Credit for `bytes`, once the tenant has it, its gate is open, and fewer than
    /// [`Self::UNSETTLED_MAX`] deliveries are unsettled.
    pub fn poll_credit(&self, bytes: usize, ctx: &mut Context<'_>) -> Poll<Credit> {
        let polled = self.poll_let(bytes, ctx);
        let is_full = polled.is_pending();
        if self.is_full.swap(is_full, Ordering::Relaxed) != is_full {
            self.queue.say(self.source, |said| said.is_full = is_full);
        }
        polled
    }

    fn poll_let(&self, bytes: usize, ctx: &mut Context<'_>) -> Poll<Credit> {
        let has_room =
            |settled: &Settled| settled.is_abandoned() || self.under_way(settled) < Self::UNSETTLED_MAX;
        if self.settled.poll_until(has_room, ctx).is_pending() {
            return Poll::Pending;
        }
        if let Some(gate) = &self.gate
            && gate.poll_open(ctx).is_pending()
        {
            // Its shard has the clock that opens it.
            self.queue.ingest.wake_by_ref();
            return Poll::Pending;
        }
        self.ledger.poll_acquire(bytes, ctx)
    }

    /// Hands over `batch` and gives its number: from 1, without gaps.
    pub fn deliver(&mut self, credit: Credit, batch: Batch) -> u64 {
        self.deliver_marked(credit, batch, None)
    }

    /// Hands over `batch` of messages that are known by their `marks`.
    pub fn deliver_marked(&mut self, credit: Credit, batch: Batch, marks: Option<Marks>) -> u64 {
        self.hand_over(credit, batch, marks, None)
    }

    /// Hands over messages that were given up before, each a dead letter.
    pub fn deliver_again(&mut self, credit: Credit, batch: Batch, replayed: Arc<[Replayed]>) -> u64 {
        assert_eq!(batch.len(), replayed.len(), "each message was a dead letter");
        self.hand_over(credit, batch, None, Some(replayed))
    }

    fn hand_over(
        &mut self,
        credit: Credit,
        batch: Batch,
        marks: Option<Marks>,
        replayed: Option<Arc<[Replayed]>>,
    ) -> u64 {
        self.delivered += 1;
        if let Some(gate) = self.gate.as_ref().filter(|_| replayed.is_none()) {
            gate.pass(batch.len() as u64, batch.message_bytes());
        }
        let settle = Settle::new(self.settled.clone(), self.delivered);
        self.queue.push(Delivery { source: self.source, batch, marks, replayed, settle, credit, seen: None });
        self.delivered
    }

    /// It will read several streams, each with a clock of its own, and does not know which yet.
    pub fn will_read_streams(&self) {
        self.queue.say(self.source, |said| said.is_without_streams = true);
    }

    /// These, and no others, it reads from now on.
    pub fn reads_streams(&self, streams: Vec<[u64; 2]>) {
        self.queue.say(self.source, |said| {
            said.is_without_streams = false;
            said.streams = Some(streams);
        });
        self.queue.has_streams.store(true, Ordering::SeqCst);
        self.queue.ingest.wake_by_ref();
    }

    /// Nothing more will be delivered: windows that wait for more need wait no longer.
    pub fn end(&self) {
        self.queue.ended.lock().expect("no panic under this lock").push(self.source);
        self.queue.ingest.wake_by_ref();
    }

    /// Everything up to this number is settled.
    pub fn settled_upto(&self) -> u64 {
        self.settled.count()
    }

    /// Appends what was settled since the last call, if that is in any order.
    pub fn take_settled(&self, taken: &mut Vec<Acked>) {
        self.settled.take(taken);
    }

    /// Ready once more than `seen` deliveries are settled, or once the dataflow is gone.
    pub fn poll_settled(&self, seen: u64, ctx: &mut Context<'_>) -> Poll<u64> {
        self.settled.poll_beyond(seen, ctx)
    }

    /// The dataflow is gone; what is unsettled must be delivered again by whoever
    /// opens the source next.
    pub fn is_abandoned(&self) -> bool {
        self.settled.is_abandoned()
    }

    pub fn unsettled(&self) -> u64 {
        self.delivered - self.settled.count()
    }

    /// Unsettled deliveries that are not only kept open by windows.
    fn under_way(&self, settled: &Settled) -> u64 {
        (self.delivered - settled.count()).saturating_sub(settled.kept_open())
    }

    /// Ready once nothing that was delivered is under way any more: it is settled, or
    /// only windows keep it open, which the next run builds again; or once the dataflow
    /// is gone.
    pub fn poll_idle(&self, ctx: &mut Context<'_>) -> Poll<()> {
        self.settled.poll_until(|settled| settled.is_abandoned() || self.under_way(settled) == 0, ctx)
    }

    /// Ready once all that was delivered is settled, or the dataflow is gone.
    pub fn poll_settled_all(&self, ctx: &mut Context<'_>) -> Poll<()> {
        let delivered = self.delivered;
        self.settled.poll_until(|settled| settled.is_abandoned() || settled.count() >= delivered, ctx)
    }

    /// Most bytes one delivery may hold, so that the tenant's credit can cover it.
    pub fn delivery_bytes_max(&self) -> usize {
        Batch::BYTES_MAX.min(self.ledger.bytes_max())
    }
}
