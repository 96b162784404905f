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
    /// The stream, and the place in it of the last message.
    pub fn last_place(&self) -> Option<([u64; 2], u64)> {
        match self {
            Marks::Places(places) => Some((places.stream, *places.ends.last()?)),
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

/// What a source says of the streams that it reads beside each other, each of which has a clock
/// of its own: only where a dataflow has windows, and its deliveries stand in one stream each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reads {
    /// These, by the names that [`Places`] have, and no others from now on.
    These(Vec<[u64; 2]>),
    /// It has come to the end of one: behind what ends there, 0 for nothing, there is no message.
    AllOf { stream: [u64; 2], upto: u64 },
    /// There is more again of one.
    MoreOf { stream: [u64; 2] },
    /// It may not read: any of them may have more meanwhile.
    Behind,
    /// It has read all that there was in any.
    CaughtUp,
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
    /// What sources said of their streams, in that order.
    reads: Mutex<Vec<(u32, Reads)>>,
    /// Something was said since somebody looked.
    has_reads: AtomicBool,
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
    fn push(&mut self, delivery: Delivery, is_in_order: bool) {
        let source = delivery.source as usize;
        if self.of_sources.len() <= source {
            self.of_sources.resize(source + 1, 0);
        }
        self.of_sources[source] += 1;
        let line = if is_in_order { &mut self.in_order } else { &mut self.in_any_order };
        line.deliveries.push_back(delivery);
        line.unseen += 1;
    }

    fn pop(&mut self, is_in_order: bool) -> Option<Delivery> {
        let line = if is_in_order { &mut self.in_order } else { &mut self.in_any_order };
        let delivery = line.pop()?;
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
            reads: Mutex::default(),
            has_reads: AtomicBool::new(false),
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

    /// Whether anything of a source waits here.
    pub fn has_any_of(&self, source: u32) -> bool {
        let lines = self.lines.lock().expect("no panic under this lock");
        lines.of_sources.get(source as usize).is_some_and(|waiting| *waiting > 0)
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

    /// What sources have said of their streams since the last call.
    pub fn take_reads(&self) -> Vec<(u32, Reads)> {
        if !self.has_reads.swap(false, Ordering::SeqCst) {
            return Vec::new();
        }
        std::mem::take(&mut self.reads.lock().expect("no panic under this lock"))
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
}

impl SourceDoor {
    /// Most unsettled deliveries of one source: bounds what a stuck delivery keeps
    /// behind it when each is small. Those that windows keep open count against the
    /// tenant's windows instead: a window may need more of them to be complete.
    pub const UNSETTLED_MAX: u64 = 1024;

    pub fn new(source: u32, queue: Arc<Queue>, ledger: Arc<Ledger>) -> Self {
        SourceDoor { source, queue, ledger, settled: Arc::default(), gate: None, delivered: 0 }
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

    /// Says something of the streams that it reads.
    pub fn reads(&self, reads: Reads) {
        self.queue.reads.lock().expect("no panic under this lock").push((self.source, reads));
        self.queue.has_reads.store(true, Ordering::SeqCst);
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
