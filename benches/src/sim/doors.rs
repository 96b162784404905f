//! `Doors`: far ends in memory, right at the dataflow's doors. A source that keeps
//! what is not settled and delivers it again, in order or not, and a sink that confirms in
//! any order, refuses, and is away at times.

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
    /// Messages that are not settled, and those of them that are to be handed over.
    left: usize,
    todo: VecDeque<usize>,
    /// Unsettled deliveries by number, and how many are settled.
    in_flight: BTreeMap<u64, Vec<usize>>,
    acked: u64,
    deliver_at: Instant,
    /// The next delivery, whose credit is not there yet.
    waiting: Option<(Vec<usize>, Batch)>,
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
            left: count,
            todo: (0..count).collect(),
            in_flight: BTreeMap::new(),
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
        self.take_back();
    }

    /// What waits for credit is to be handed over later.
    fn take_back(&mut self) {
        for id in self.waiting.take().into_iter().flat_map(|(ids, _)| ids).rev() {
            self.todo.push_front(id);
        }
    }

    /// Everything unsettled is to be delivered again.
    pub fn close(&mut self, removed: Removed, ledger: &Ledger, stage: &mut Stage) -> anyhow::Result<()> {
        self.settle(ledger, stage)?;
        let left = self.in_flight.len();
        ensure!(removed == Removed::Abandoned || left == 0, "drained with {left} deliveries unsettled");
        self.take_back();
        for id in std::mem::take(&mut self.in_flight).into_values().flatten().rev() {
            self.todo.push_front(id);
        }
        self.source = None;
        Ok(())
    }

    pub fn is_abandoned(&self) -> bool {
        self.source.as_ref().is_some_and(SourceDoor::is_abandoned)
    }

    pub fn left(&self) -> usize {
        self.left
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
        is_open && self.waiting.is_none() && !self.todo.is_empty() && source.unsettled() < UNSETTLED_MAX
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
        let (mut numbers, mut acked) = (Vec::new(), Vec::new());
        // In this order: what is counted is there to be taken.
        let count = source.settled_upto();
        match ledger.is_in_order {
            true => numbers.extend(self.acked + 1..=count),
            false => source.take_settled(&mut acked),
        }
        numbers.extend(acked.iter().map(|acked| acked.number));
        self.acked = count;
        for number in numbers {
            let ids = self.in_flight.remove(&number).context("settled more than was delivered")?;
            ids.iter().try_for_each(|id| ledger.check_done(*id))?;
            self.left -= ids.len();
            if self.in_flight.first_key_value().is_some_and(|(first, _)| *first < number) {
                stage.outcome.overtook += 1;
            }
            stage.note(("settled", number));
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
        let (ids, batch) = match self.waiting.take() {
            Some(waiting) => waiting,
            None if self.may_deliver() && self.deliver_at <= stage.now => {
                let longest = if stage.one_in(50) { 60 } else { 4 };
                let count = stage.rng.random_range(1..longest).min(self.todo.len());
                let ids: Vec<usize> = self.todo.drain(..count).collect();
                let mut builder = BatchBuilder::new("host");
                for id in &ids {
                    builder.push(b"in", None, &ledger.messages[*id].payload, []);
                }
                (ids, builder.finish())
            }
            None => return,
        };
        let Some(source) = &mut self.source else { return };
        let Poll::Ready(credit) = source.poll_credit(batch.bytes_held(), ctx) else {
            self.waiting = Some((ids, batch));
            return;
        };
        ids.iter().for_each(|id| ledger.send(*id, stage));
        self.deliver_at = stage.after(1..300);
        let number = source.deliver(credit, batch);
        stage.note(("deliver", number));
        self.in_flight.insert(number, ids);
    }
}
