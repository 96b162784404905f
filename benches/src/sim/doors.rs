//! `Doors`: far ends in memory, right at the dataflow's doors. A source that keeps
//! what is not settled and delivers it again, and a sink that confirms in any order,
//! refuses, and is away at times.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, VecDeque},
    sync::Arc,
    task::{Context, Poll},
};

use anyhow::{Context as _, ensure};
use rand::Rng as _;
use tidegate::{
    batch::{Batch, BatchBuilder},
    clock::Instant,
    dataflow::shard::Removed,
    queue::SourceDoor,
    write::{Rejected, SinkQueue, Write},
};

use super::{alarm::Alarm, ledger::Ledger, stage::Stage};

/// See the module.
pub(super) struct Doors {
    source: Option<SourceDoor>,
    sink: Arc<SinkQueue>,
    alarm: Alarm,
    /// Number of messages; those before `settled` are done, those before `next` are
    /// handed over.
    count: usize,
    settled: usize,
    next: usize,
    /// Message counts of unsettled deliveries, and how many of all are settled.
    in_flight: VecDeque<usize>,
    acked: u64,
    deliver_at: Instant,
    /// The next delivery, whose credit is not there yet.
    waiting: Option<Batch>,
    is_stopping: bool,
    /// Writes that are not confirmed yet, by when they will be.
    confirming: BinaryHeap<Reverse<(Instant, u64)>>,
    writes: BTreeMap<u64, (Write, Vec<usize>)>,
    next_write: u64,
    sink_away_until: Instant,
}

/// Most unsettled deliveries of this source.
const UNSETTLED_MAX: u64 = 12;
/// One message in as many is refused.
const REFUSED_EVERY: u32 = 500;

impl Doors {
    pub fn new(count: usize, sink: Arc<SinkQueue>) -> Self {
        Doors {
            source: None,
            sink,
            alarm: Alarm::new(),
            count,
            settled: 0,
            next: 0,
            in_flight: VecDeque::new(),
            acked: 0,
            deliver_at: Instant(0),
            waiting: None,
            is_stopping: false,
            confirming: BinaryHeap::new(),
            writes: BTreeMap::new(),
            next_write: 0,
            sink_away_until: Instant(0),
        }
    }

    pub fn open(&mut self, source: SourceDoor) {
        self.source = Some(source);
        self.is_stopping = false;
        self.acked = 0;
        self.alarm.ring();
    }

    pub fn stop(&mut self) {
        self.is_stopping = true;
        self.waiting = None;
    }

    /// Everything unsettled is to be delivered again.
    pub fn close(&mut self, removed: Removed, ledger: &Ledger, stage: &mut Stage) -> anyhow::Result<()> {
        self.settle(ledger, stage)?;
        let left = self.in_flight.len();
        ensure!(removed == Removed::Abandoned || left == 0, "drained with {left} deliveries unsettled");
        self.next = self.settled;
        self.in_flight.clear();
        self.waiting = None;
        self.source = None;
        Ok(())
    }

    pub fn is_abandoned(&self) -> bool {
        self.source.as_ref().is_some_and(SourceDoor::is_abandoned)
    }

    pub fn left(&self) -> usize {
        self.count - self.settled
    }

    /// Nothing that was written waits for its confirmation.
    pub fn is_quiet(&self) -> bool {
        self.writes.is_empty() && self.sink.depth().0 == 0
    }

    pub fn leave_sink(&mut self, until: Instant) {
        self.sink_away_until = until;
    }

    pub fn due(&self, now: Instant) -> Option<Instant> {
        if self.alarm.rings() {
            return Some(now);
        }
        let confirm = self.confirming.peek().map(|Reverse((at, _))| (*at).max(self.sink_away_until));
        let deliver = self.may_deliver().then_some(self.deliver_at);
        [confirm, deliver].into_iter().flatten().min()
    }

    fn may_deliver(&self) -> bool {
        let Some(source) = &self.source else { return false };
        let is_open = !self.is_stopping && !source.is_abandoned();
        is_open && self.waiting.is_none() && self.next < self.count && source.unsettled() < UNSETTLED_MAX
    }

    pub fn step(&mut self, ledger: &mut Ledger, stage: &mut Stage) -> anyhow::Result<()> {
        if self.due(stage.now).is_none_or(|due| due > stage.now) {
            return Ok(());
        }
        let waker = self.alarm.reset();
        let ctx = &mut Context::from_waker(&waker);
        self.settle(ledger, stage)?;
        if let Some(source) = &self.source {
            // Only to be woken by the next one.
            let _ = source.poll_settled(self.acked, ctx);
        }
        self.take_writes(ctx, ledger, stage)?;
        self.confirm(ledger, stage);
        self.deliver(ctx, ledger, stage);
        Ok(())
    }

    /// Takes note of what is settled, and checks that all of it came to its end.
    fn settle(&mut self, ledger: &Ledger, stage: &mut Stage) -> anyhow::Result<()> {
        let Some(source) = &self.source else { return Ok(()) };
        let upto = source.settled_upto();
        while self.acked < upto {
            self.acked += 1;
            let count = self.in_flight.pop_front().context("settled more than was delivered")?;
            (self.settled..self.settled + count).try_for_each(|id| ledger.check_done(id))?;
            self.settled += count;
            stage.note(("settled", self.settled));
        }
        Ok(())
    }

    fn take_writes(
        &mut self,
        ctx: &mut Context<'_>,
        ledger: &mut Ledger,
        stage: &mut Stage,
    ) -> anyhow::Result<()> {
        while let Poll::Ready(Some(write)) = self.sink.poll_next(ctx) {
            let arena = &write.batch.arena;
            let ids = write.batch.entries.iter().map(|it| ledger.receive(it.payload.bytes(arena), false));
            let ids = ids.collect::<anyhow::Result<Vec<_>>>()?;
            let longest = if stage.one_in(20) { 5_000 } else { 200 };
            self.confirming.push(Reverse((stage.after(0..longest), self.next_write)));
            self.writes.insert(self.next_write, (write, ids));
            self.next_write += 1;
        }
        Ok(())
    }

    /// Confirms what is due, in any order; some messages are refused.
    fn confirm(&mut self, ledger: &mut Ledger, stage: &mut Stage) {
        while stage.now >= self.sink_away_until
            && let Some(Reverse((at, id))) = self.confirming.peek().copied()
            && at <= stage.now
        {
            self.confirming.pop();
            let (write, ids) = self.writes.remove(&id).expect("it waits for this");
            let mut rejected = Vec::new();
            for (index, id) in (0..).zip(&ids) {
                let is_refused = stage.one_in(REFUSED_EVERY);
                ledger.answer(*id, is_refused);
                if is_refused {
                    rejected.push(Rejected { index, reason: "refused".into() });
                }
            }
            stage.note(("confirm", &ids, rejected.len()));
            write.confirm(rejected);
        }
    }

    /// Hands over a few messages, once there is credit for them.
    fn deliver(&mut self, ctx: &mut Context<'_>, ledger: &mut Ledger, stage: &mut Stage) {
        let batch = match self.waiting.take() {
            Some(batch) => batch,
            None if self.may_deliver() && self.deliver_at <= stage.now => {
                let longest = if stage.one_in(50) { 60 } else { 4 };
                let end = (self.next + stage.rng.random_range(1..longest)).min(self.count);
                let mut builder = BatchBuilder::new("host");
                for message in &ledger.messages[self.next..end] {
                    builder.push(b"in", None, &message.payload, []);
                }
                builder.finish()
            }
            None => return,
        };
        let Some(source) = &mut self.source else { return };
        let Poll::Ready(credit) = source.poll_credit(batch.bytes_held(), ctx) else {
            self.waiting = Some(batch);
            return;
        };
        let end = self.next + batch.len();
        (self.next..end).for_each(|id| ledger.send(id, stage));
        self.in_flight.push_back(batch.len());
        self.next = end;
        self.deliver_at = stage.after(1..300);
        stage.note(("deliver", end));
        source.deliver(credit, batch);
    }
}
