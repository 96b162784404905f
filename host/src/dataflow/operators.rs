//! The two Timely operators of a dataflow: flow and commit. A batch is one timestamp,
//! the ingest sequence; flow's capability stays at the first batch that is not
//! finished and keeps the frontier, and so the settlement, of everything behind it that
//! is settled in order. What may be settled in any order goes through the region in lanes
//! of its own, and is settled as soon as it is finished.
//!
//! ```text
//!          ┌────────── flow ──────────┐
//! queue ─► │ ingest ─► region ─► sink │ ─► commit ─► Settle::ack up to the frontier
//!          │  seq      guests   holds │    frontier
//!          └──────────────────────────┘
//! ```
//!
//! What is stateless is one operator: each operator and edge more costs a batch half a
//! microsecond and an idle dataflow 3 KB.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::Waker,
};

use smallvec::SmallVec;
use timely::{
    dataflow::{Scope, Stream, channels::pact::Pipeline, operators::generic::builder_rc::OperatorBuilder},
    progress::operate::FrontierInterest,
    scheduling::Activator,
};

use crate::{
    batch::{Batch, Stamped},
    clock::{Clock, Instant},
    dataflow::{
        circuit::{self, Gate, State},
        description::{At, Description, Holding, LastLetter, Reached, Stage},
        lull,
        plan::{Failure, Health, Plan},
        region::{Cause, Flow, Outcome, Region},
        run_queue::TaskId,
        tasks::{Polled, Tasks},
        timers::Timers,
        watermark::Moment,
        window::Windows,
    },
    dead_letter::{DeadLetter, DeadLetters, Reason},
    guest::AcquireError,
    hlc::{Amended, Hlc},
    planted::{self, Bug},
    queue::{Delivery, Marks, Places, Queue},
    settle::Settle,
    write::{Confirmed, Confirms, Write},
};

/// What the operators of one dataflow and its shard share.
pub struct Parts {
    pub plan: Arc<Plan>,
    pub queue: Arc<Queue>,
    pub confirms: Arc<Confirms>,
    pub tasks: Tasks,
    /// At least one, which takes all that is in order.
    pub lanes: SmallVec<[Lane; 1]>,
    pub region: Rc<Region>,
    pub dead_letters: DeadLetters,
    pub hlc: Rc<RefCell<Hlc>>,
    pub clock: Clock,
    pub ledger: Ledger,
    /// `None` in a dataflow without windows.
    windows: Option<WindowParts>,
    /// Closed by a failure: nothing is settled any more.
    gate_closed: Cell<bool>,
    timers: Timers,
    /// Wakes the dataflow.
    dataflow: Waker,
    /// When the dataflow is woken to see whether its circuit lets a delivery pass.
    circuit_armed: Cell<Option<Instant>>,
    /// When it looks at its sources' gates again.
    gate_armed: Cell<Option<Instant>>,
    /// For whoever asks why nothing comes out.
    reached: Cell<Reached>,
    last_in: Cell<Option<Instant>>,
    last_written: Cell<Option<Instant>>,
    last_letter: RefCell<Option<LastLetter>>,
    activators: RefCell<Option<Activators>>,
}

/// The windows of a dataflow, and how far they are on disk.
struct WindowParts {
    windows: Rc<RefCell<Windows>>,
    /// Commits made, and commits on disk.
    commits: Cell<u64>,
    flushed: Arc<AtomicU64>,
    /// Releases wait for this commit, which has them.
    released_with: Cell<u64>,
    /// When the dataflow is woken to look again.
    armed: Cell<Option<Instant>>,
}

/// What volatile windows owe their sources.
struct Replay {
    /// The first sequence that is not to be settled yet.
    needed: Option<u64>,
    /// What they have completed is on disk.
    is_written: bool,
}

impl Default for Replay {
    fn default() -> Self {
        Replay { needed: None, is_written: true }
    }
}

/// Where one delivery at a time goes through the region.
pub struct Lane {
    pub task: TaskId,
    /// What its task left.
    finished: RefCell<Option<Finished>>,
    /// Where it is with the delivery that it has.
    stage: Cell<Stage>,
}

impl Lane {
    fn new(task: TaskId) -> Self {
        Lane { task, finished: RefCell::new(None), stage: Cell::default() }
    }
}

struct Finished {
    flow: Flow,
    result: Result<Outcome, AcquireError>,
}

/// Schedules the operators of one dataflow.
#[derive(Clone)]
pub struct Activators {
    pub flow: Activator,
    pub commit: Activator,
}

impl Activators {
    /// Every operator: after a panic, any of them may have lost its activation.
    pub fn all(&self) {
        [&self.flow, &self.commit].into_iter().for_each(Activator::activate);
    }
}

/// The duties of one dataflow, in the order of their sequence. Whatever ends the
/// dataflow, each is answered once.
#[derive(Default)]
pub struct Ledger {
    duties: RefCell<VecDeque<Duty>>,
}

struct Duty {
    sequence: u64,
    /// When its delivery came.
    since: Instant,
    settle: Settle,
}

impl Ledger {
    pub fn len(&self) -> usize {
        self.duties.borrow().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// So many messages of the delivery of this sequence are dead letters.
    fn give_up(&self, sequence: u64, messages: usize) {
        self.with(sequence, |settle| settle.give_up(messages as u64));
    }

    /// Only windows keep the delivery of this sequence from being settled.
    fn kept_open(&self, sequence: u64) {
        self.with(sequence, Settle::keep_open);
    }

    /// With the duty for the delivery of this sequence, if it is not answered for yet.
    fn with(&self, sequence: u64, with: impl FnOnce(&mut Settle)) {
        let mut duties = self.duties.borrow_mut();
        if let Ok(place) = duties.binary_search_by_key(&sequence, |duty| duty.sequence) {
            with(&mut duties[place].settle);
        }
    }

    /// The duty for the delivery of this sequence, if it may be answered before others.
    fn take_in_any_order(&self, sequence: u64) -> Option<Duty> {
        let mut duties = self.duties.borrow_mut();
        let place = duties.binary_search_by_key(&sequence, |duty| duty.sequence).ok()?;
        if duties[place].settle.is_in_order() {
            return None;
        }
        duties.remove(place)
    }

    /// When the delivery of this sequence came, if it is not answered for yet.
    fn since(&self, sequence: u64) -> Option<Instant> {
        let duties = self.duties.borrow();
        let place = duties.binary_search_by_key(&sequence, |duty| duty.sequence).ok()?;
        Some(duties[place].since)
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        self.duties.take().into_iter().for_each(|duty| duty.settle.abandon());
    }
}

/// What [`Parts`] is made of.
pub struct Setup {
    pub plan: Arc<Plan>,
    pub queue: Arc<Queue>,
    pub confirms: Arc<Confirms>,
    pub tasks: Tasks,
    /// A task for each lane.
    pub lanes: Vec<TaskId>,
    pub region: Rc<Region>,
    pub dead_letters: DeadLetters,
    pub hlc: Rc<RefCell<Hlc>>,
    pub clock: Clock,
    pub timers: Timers,
    /// Wakes the dataflow.
    pub dataflow: Waker,
}

impl Parts {
    pub fn new(setup: Setup) -> Rc<Self> {
        let Setup { plan, queue, confirms, tasks, lanes, region, dead_letters, hlc, clock, timers, dataflow } =
            setup;
        let windows = region.windows.clone().map(|windows| WindowParts {
            windows,
            commits: Cell::new(0),
            flushed: Arc::default(),
            released_with: Cell::new(0),
            armed: Cell::new(None),
        });
        Rc::new(Parts {
            plan,
            queue,
            confirms,
            tasks,
            lanes: lanes.into_iter().map(Lane::new).collect(),
            region,
            dead_letters,
            hlc,
            clock,
            ledger: Ledger::default(),
            windows,
            gate_closed: Cell::new(false),
            timers,
            dataflow,
            circuit_armed: Cell::new(None),
            gate_armed: Cell::new(None),
            reached: Cell::default(),
            last_in: Cell::new(None),
            last_written: Cell::new(None),
            last_letter: RefCell::new(None),
            activators: RefCell::new(None),
        })
    }

    /// Builds the operators in `scope`.
    pub fn build(self: &Rc<Self>, scope: Scope<'_, u64>) {
        let (flow, held) = self.build_flow(scope);
        let commit = self.build_commit(scope, held);
        *self.activators.borrow_mut() = Some(Activators { flow, commit });
    }

    pub fn activators(&self) -> Activators {
        self.activators.borrow().clone().expect("built before it is used")
    }

    /// Answers every duty that is left: the sources will deliver again.
    pub fn abandon(&self) {
        self.ledger.duties.take().into_iter().for_each(|duty| duty.settle.abandon());
    }

    /// The dataflow cannot go on: nothing more is settled, its sources wait.
    pub fn fail(&self, failure: Failure, cause: &str) {
        self.gate_closed.set(true);
        tracing::error!(dataflow = %self.plan.name(), cause, "dataflow failed");
        self.plan.set_health(Health::Failed { failure, cause: cause.to_owned() });
    }

    fn build_flow<'s>(self: &Rc<Self>, scope: Scope<'s, u64>) -> (Activator, Stream<'s, u64, Vec<()>>) {
        let parts = self.clone();
        let mut builder = OperatorBuilder::new("flow".into(), scope);
        let (_output, stream) = builder.new_output::<Vec<()>>();
        let activator = scope.activator_for(builder.operator_info().address);
        builder.build(move |mut capabilities| {
            // At the first sequence that is not finished.
            let mut capability = capabilities.pop();
            let mut next = 0;
            let mut guests: SmallVec<[Guests; 1]> = parts.lanes.iter().map(|_| Guests::Free).collect();
            let mut flights = Flights::default();
            let mut confirmed: Vec<Confirmed> = Vec::new();
            move |_frontiers| {
                let Some(cap) = &mut capability else { return };
                parts.queue.see(parts.tasks.latest());
                parts.look_at_gates();
                parts.confirms.take(&mut confirmed);
                confirmed.drain(..).for_each(|confirmed| parts.confirmed(confirmed, &mut flights));
                // In this order: nothing comes once it is closed.
                let closed = parts.queue.is_closed();
                while let Some(done) = parts.advance(&mut guests, &mut next, &mut flights) {
                    parts.write(done, &mut flights);
                }
                // What windows took of a delivery is committed with how far they have it: not
                // while it is in the middle of the region, which has one lane then.
                let is_done = match (&parts.windows, &guests[0]) {
                    (None, _) => true,
                    (Some(windows), Guests::Free) => windows.look(&parts),
                    (Some(_), Guests::Busy | Guests::Stuck(_)) => false,
                };
                let (unfinished, lane) = flights.first().unwrap_or((next, None));
                parts.reached.set(Reached { unfinished, next, lane });
                let replay = parts.windows.as_ref().map(|windows| windows.complete(&parts, unfinished));
                let Replay { needed, is_written } = replay.unwrap_or_default();
                if closed && is_done && is_written && unfinished == next {
                    if let Some(needed) = needed {
                        // What is open is built again by whoever comes next.
                        parts.settle(needed);
                        parts.abandon();
                    }
                    capability = None;
                    return;
                }
                let unfinished = needed.map_or(unfinished, |needed| needed.min(unfinished));
                if *cap.time() < unfinished {
                    cap.downgrade(&unfinished);
                }
            }
        });
        (activator, stream)
    }

    /// Gives lanes that are free the next deliveries. One that a lane is done with, and
    /// what its guests made of it.
    fn advance(
        self: &Rc<Self>,
        guests: &mut [Guests],
        next: &mut u64,
        flights: &mut Flights,
    ) -> Option<(Flow, Outcome)> {
        let mut is_dry = false;
        for lane in 0..guests.len() {
            if matches!(guests[lane], Guests::Free) && !is_dry {
                let is_alone = || guests.iter().all(|guests| matches!(guests, Guests::Free));
                match self.next_delivery(*next, lane, is_alone) {
                    Some(flow) => {
                        flights.take_off(*next, lane);
                        *next += 1;
                        guests[lane] = Guests::Busy;
                        self.start(lane, flow);
                    }
                    // What is left for the first lane is not for the others.
                    None => is_dry = lane > 0 || !self.plan.has_source_in_order(),
                }
            }
            let Some(Finished { flow, result }) = self.lanes[lane].finished.take() else { continue };
            match result {
                Ok(outcome) => {
                    guests[lane] = Guests::Free;
                    return Some((flow, outcome));
                }
                Err(error) => {
                    self.fail(Failure::from(&error), &error.to_string());
                    guests[lane] = Guests::Stuck(flow);
                }
            }
        }
        None
    }

    /// Takes a delivery off the queue that may go through a lane.
    fn pop(&self, lane: usize) -> Option<Delivery> {
        match lane {
            0 if self.lanes.len() == 1 || self.plan.has_source_in_order() => self.queue.pop(),
            0 => self.queue.pop().or_else(|| self.queue.pop_in_any_order()),
            _ => self.queue.pop_in_any_order(),
        }
    }

    /// Takes a lane's next delivery off the queue, stamped; its duty goes to the ledger.
    fn next_delivery(&self, sequence: u64, lane: usize, is_alone: impl Fn() -> bool) -> Option<Flow> {
        if self.gate_closed.get() || !self.circuit_lets_pass(is_alone) {
            return None;
        }
        if let Some(flow) = self.windows.as_ref().and_then(|windows| windows.next_release(self, sequence)) {
            return Some(flow);
        }
        let Delivery { source, mut batch, marks, replayed, settle, credit, seen } = self.pop(lane)?;
        let now = self.tasks.latest();
        self.last_in.set(Some(now));
        let Amended { ahead, unreadable } = self.hlc.borrow_mut().stamp(&mut batch, self.clock.wall());
        let stats = &self.plan.stats;
        if ahead + unreadable > 0 {
            stats.ahead.add(ahead);
            stats.unreadable.add(unreadable);
        }
        lull::count(batch.len());
        stats.deliveries.add(1);
        stats.received.add(batch.len() as u64);
        stats.received_bytes.add(batch.message_bytes());
        self.ledger.duties.borrow_mut().push_back(Duty { sequence, since: seen.unwrap_or(now), settle });
        if planted::is(Bug::EarlyAck) {
            self.activators().commit.activate();
        }
        let delivery = Stamped::from(batch);
        let stream = marks.as_ref().and_then(Marks::stream).map(Box::new);
        let arrived = |parts: &WindowParts| parts.windows.borrow_mut().arrived(source, sequence, marks);
        let known = self.windows.as_ref().map(arrived).unwrap_or_default();
        Some(Flow { sequence, source, stream, delivery, known, replayed, cause: Cause::Source(credit) })
    }

    /// Lets sources go on that wait at a gate which time has opened.
    fn look_at_gates(&self) {
        let gates = self.plan.sources.iter().filter_map(|source| source.gate.as_ref());
        for gate in gates.filter(|gate| gate.is_waited_at()) {
            let now = self.clock.now();
            let armed = self.gate_armed.get().filter(|armed| *armed > now);
            if let Some(at) = gate.look(now)
                && armed.is_none_or(|armed| at < armed)
            {
                self.gate_armed.set(Some(at));
                self.timers.arm(at, self.dataflow.clone());
            }
        }
    }

    /// Through a circuit that is not closed one delivery goes at a time.
    fn circuit_lets_pass(&self, is_alone: impl Fn() -> bool) -> bool {
        if self.region.circuit.borrow().state() == State::Closed {
            return true;
        }
        if !is_alone() {
            return false;
        }
        let now = self.clock.now();
        match self.region.circuit.borrow_mut().gate(now) {
            Gate::Pass => true,
            Gate::Shut => false,
            Gate::Wait(until) => {
                if self.circuit_armed.replace(Some(until)) != Some(until) {
                    self.timers.arm(until, self.dataflow.clone());
                }
                false
            }
        }
    }

    /// Tells the circuit what the guests made of a delivery.
    fn judge(&self, flow: &Flow, dead: &[DeadLetter]) {
        let faults = dead.iter().filter(|letter| letter.reason.is_fault()).count() as u32;
        let outcome = circuit::Outcome { messages: flow.delivery.batch.len() as u32, faults };
        let mut circuit = self.region.circuit.borrow_mut();
        let is_news = match (faults, circuit.state()) {
            // Nobody looks at a clock for what is as it should be.
            (0, State::Closed) => circuit.passed(outcome, Instant::default()),
            _ => circuit.passed(outcome, self.clock.now()),
        };
        let state = circuit.state();
        drop(circuit);
        if is_news {
            let last = dead.iter().rev().find(|letter| letter.reason.is_fault());
            self.circuit_changed(state, last.map_or("", |letter| letter.detail.as_str()));
        }
    }

    fn circuit_changed(&self, state: State, fault: &str) {
        let (stats, dataflow) = (&self.plan.stats, self.plan.name());
        let limits = &self.plan.tenant.limits;
        let health = match state {
            State::Closed | State::Probing => {
                tracing::info!(%dataflow, "dataflow goes on: its guests do not fail any more");
                Health::Running
            }
            State::Open { .. } => {
                stats.pauses.add(1);
                let wait = humantime::format_duration(limits.fault_cool_down);
                let cause =
                    format!("its guests failed again and again; one delivery is tried after {wait}: {fault}");
                tracing::warn!(%dataflow, cause, "dataflow paused");
                Health::Paused { cause }
            }
            State::Quarantined => {
                stats.quarantines.add(1);
                let (faults, within) =
                    (limits.quarantine_after, humantime::format_duration(limits.quarantine_within));
                let cause =
                    format!("{faults} messages or more made its guests fail within {within}: {fault}");
                tracing::error!(%dataflow, cause, "dataflow in quarantine; `tidegate resume {dataflow}` ends it");
                Health::Quarantined { cause }
            }
        };
        if matches!(self.plan.health(), Health::Running | Health::Paused { .. } | Health::Quarantined { .. })
        {
            self.plan.set_health(health);
        }
    }

    /// Lets the dataflow go on if it is paused or in quarantine. False if it is neither.
    pub fn resume(&self) -> bool {
        let was_held = self.region.circuit.borrow_mut().resume();
        if was_held {
            tracing::info!(dataflow = %self.plan.name(), "dataflow resumed by command");
            if matches!(self.plan.health(), Health::Paused { .. } | Health::Quarantined { .. }) {
                self.plan.set_health(Health::Running);
            }
            self.activators().flow.activate();
        }
        was_held
    }

    /// What is known of it here; its tenant's levels are not.
    pub fn describe(&self, now: Instant) -> Description {
        let Reached { unfinished, next, lane } = self.reached.get();
        let at = if unfinished == next {
            // Finished, and yet there is a duty: windows need it.
            (!self.ledger.is_empty()).then_some(At::Windows)
        } else {
            Some(match lane.map(|lane| self.lanes[lane].stage.get()) {
                Some(Stage::Room) => At::Room,
                Some(Stage::Step(index)) => At::Operator(self.plan.steps[index].operator.name.clone()),
                None => At::Confirmation,
            })
        };
        let first = self.ledger.duties.borrow().front().map(|duty| duty.sequence);
        let holding = at.map(|at| {
            let sequence = if at == At::Windows { first.unwrap_or(unfinished) } else { unfinished };
            Holding { sequence, since: self.ledger.since(sequence), at }
        });
        let windows = self.plan.windows.iter().map(|window| window.operator.name.clone());
        Description {
            now,
            last_in: self.last_in.get(),
            last_written: self.last_written.get(),
            waiting: self.queue.len(),
            unsettled: self.ledger.len(),
            holding,
            circuit: self.region.circuit.borrow().state(),
            windows: windows.collect(),
            windows_open: self.windows.as_ref().map_or(0, |it| it.windows.borrow().open()),
            last_letter: self.last_letter.borrow().clone(),
            levels: Vec::new(),
            is_throttled: false,
        }
    }

    /// Whether nothing of what it has taken goes on now, so that waiting for it is no use.
    pub fn is_held(&self) -> bool {
        matches!(self.region.circuit.borrow().state(), State::Open { .. } | State::Quarantined)
    }

    fn start(self: &Rc<Self>, lane: usize, flow: Flow) {
        let parts = self.clone();
        let polled = self.tasks.start(
            self.lanes[lane].task,
            Box::pin(async move {
                let Lane { stage, finished, .. } = &parts.lanes[lane];
                let result = parts.region.run(&flow, stage).await;
                *finished.borrow_mut() = Some(Finished { flow, result });
            }),
        );
        if polled == Polled::Panicked {
            // Inside a step: the shard's fence finds out whose operator runs now.
            std::panic::resume_unwind(Box::new("panic in a region"));
        }
    }

    /// Hands an outcome to its sinks and to the dead letters, and holds the delivery
    /// until all of them have confirmed.
    fn write(&self, (flow, Outcome { writes, dead }): (Flow, Outcome), flights: &mut Flights) {
        let sequence = flow.sequence;
        self.judge(&flow, &dead);
        self.plan.stats.dead.add(dead.len() as u64);
        let written = || writes.iter().filter(|batch| !batch.is_empty());
        let committed = self.windows.as_ref().is_some_and(|windows| windows.took(self, &flow));
        let waiting = written().count() as u32 + u32::from(!dead.is_empty()) + u32::from(committed);
        if waiting == 0 {
            flights.land(sequence);
            self.finished(&flow);
            return;
        }
        if let Some(letter) = dead.last() {
            self.ledger.give_up(sequence, dead.len());
            *self.last_letter.borrow_mut() = Some(letter.into());
        }
        // Before the writes: a sink may confirm at once.
        let written_bytes = written().map(Batch::message_bytes).sum();
        let written = written().map(|batch| batch.len() as u64).sum();
        if written > 0 {
            self.last_written.set(Some(self.tasks.latest()));
        }
        flights.hold(sequence, Hold { flow, waiting, written, written_bytes });
        if committed && let Some(windows) = &self.windows {
            windows.commit(self, Some((sequence, self.confirms.clone())));
        }
        if planted::is_now_and_then(Bug::Panic, 50) {
            panic!("planted");
        }
        for (destination, mut batch) in self.plan.destinations.iter().zip(writes) {
            if batch.is_empty() {
                continue;
            }
            if planted::is_now_and_then(Bug::HalfBatch, 10) {
                batch.entries.truncate(batch.len() / 2);
            }
            if let Some(gate) = &destination.gate {
                gate.pass(batch.len() as u64, batch.message_bytes());
            }
            let write = Write::new(sequence, batch, destination.destination.clone(), self.confirms.clone());
            destination.sink.push(write);
        }
        if !dead.is_empty() {
            self.dead_letters.submit(dead, sequence, &self.confirms);
        }
    }

    fn confirmed(&self, confirmed: Confirmed, flights: &mut Flights) {
        let Confirmed { id, rejected } = confirmed;
        let hold = flights.held(id).expect("each write is confirmed once");
        hold.waiting -= 1;
        if !rejected.is_empty() {
            hold.written -= rejected.len() as u64;
            let flow = &hold.flow;
            let letter = |(origin, reason)| self.region.dead_letter(flow, origin, Reason::Rejected, reason);
            let letters: Vec<_> = rejected.into_iter().map(letter).collect();
            self.plan.stats.dead.add(letters.len() as u64);
            self.plan.stats.rejected.add(letters.len() as u64);
            hold.waiting += 1;
            self.ledger.give_up(id, letters.len());
            self.dead_letters.submit(letters, id, &self.confirms);
        }
        if hold.waiting == 0 {
            self.plan.stats.delivered.add(hold.written);
            self.plan.stats.delivered_bytes.add(hold.written_bytes);
            if let Some(Flight::Held(hold)) = flights.land(id) {
                self.finished(&hold.flow);
            }
        }
    }

    /// Nothing of a flow is on its way any more.
    fn finished(&self, flow: &Flow) {
        let needed = match (&self.windows, &flow.cause) {
            (None, _) => None,
            (Some(parts), Cause::Source(_)) => parts.windows.borrow().needed(),
            (Some(parts), Cause::Window { window, number }) => {
                parts.windows.borrow_mut().confirmed(*window, *number);
                return;
            }
        };
        if needed.is_some_and(|needed| needed <= flow.sequence) {
            self.ledger.kept_open(flow.sequence);
        } else if !self.plan.sources[flow.source as usize].is_in_order
            && !self.gate_closed.get()
            && let Some(duty) = self.ledger.take_in_any_order(flow.sequence)
        {
            self.ack(duty);
        }
    }

    /// Acks all before a sequence.
    fn settle(&self, frontier: u64) {
        if self.gate_closed.get() {
            return;
        }
        let mut duties = self.ledger.duties.borrow_mut();
        while duties.front().is_some_and(|duty| duty.sequence < frontier) {
            if let Some(duty) = duties.pop_front() {
                self.ack(duty);
            }
        }
    }

    fn ack(&self, Duty { since, settle, .. }: Duty) {
        // How long a window is open says nothing of how the host does.
        if !settle.is_kept_open() {
            self.plan.tenant.latency.record(self.tasks.latest().since(since));
        }
        settle.ack();
        self.plan.stats.settled.add(1);
    }

    fn build_commit<'s>(self: &Rc<Self>, scope: Scope<'s, u64>, held: Stream<'s, u64, Vec<()>>) -> Activator {
        let parts = self.clone();
        let mut builder = OperatorBuilder::new("commit".into(), scope);
        let mut input = builder.new_input(held, Pipeline);
        builder.set_notify_for(0, FrontierInterest::Always);
        let activator = scope.activator_for(builder.operator_info().address);
        builder.build(move |_capabilities| {
            move |frontiers| {
                input.for_each(|_, _| {});
                // Everything before the frontier is finished; an empty one means that
                // all that was ever given out is.
                let frontier = frontiers[0].frontier().first().copied().unwrap_or(u64::MAX);
                let frontier = if planted::is(Bug::EarlyAck) { u64::MAX } else { frontier };
                parts.settle(frontier);
            }
        });
        activator
    }
}

impl WindowParts {
    /// Takes account of a flow that is through the region. True if there are changes to
    /// be committed with it.
    fn took(&self, parts: &Parts, flow: &Flow) -> bool {
        let now = parts.clock.now();
        let mut windows = self.windows.borrow_mut();
        let heard = matches!(flow.cause, Cause::Source(_)).then_some(flow.source);
        windows.look(&parts.queue, heard, now);
        windows.absorbed(flow.source, flow.sequence);
        match flow.cause {
            Cause::Source(_) => {
                let origins = 0..flow.delivery.batch.len() as u32;
                let latest = origins.map(|origin| Moment::of(flow.delivery.time(origin))).max();
                windows.heard(flow.source, flow.stream.as_deref().copied(), latest.unwrap_or_default());
            }
            Cause::Window { window, .. } => windows.passed(window),
        }
        if windows.advance(now) {
            parts.dataflow.wake_by_ref();
        }
        windows.is_durable() && windows.has_changes()
    }

    /// Looks what volatile windows have completed, and has it written.
    fn complete(&self, parts: &Parts, unfinished: u64) -> Replay {
        let (changes, space, replay) = {
            let mut windows = self.windows.borrow_mut();
            if !windows.is_written() && self.flushed.load(Ordering::SeqCst) == self.commits.get() {
                windows.wrote();
            }
            if windows.is_durable() {
                return Replay::default();
            }
            windows.complete(unfinished);
            let changes = windows.take_changes();
            let replay = Replay { needed: windows.needed(), is_written: windows.is_written() };
            (changes, windows.space().clone(), replay)
        };
        if !changes.is_empty() {
            self.commits.set(self.commits.get() + 1);
            let (flushed, dataflow) = (self.flushed.clone(), parts.dataflow.clone());
            space.commit_behind(changes, move || {
                flushed.fetch_add(1, Ordering::SeqCst);
                dataflow.wake();
            });
        }
        replay
    }

    /// Writes all changes as one; whoever asked for it is told when they are on disk.
    fn commit(&self, parts: &Parts, confirm: Option<(u64, Arc<Confirms>)>) {
        let (changes, space) = {
            let mut windows = self.windows.borrow_mut();
            (windows.take_changes(), windows.space().clone())
        };
        self.commits.set(self.commits.get() + 1);
        self.released_with.set(self.commits.get());
        let (flushed, dataflow) = (self.flushed.clone(), parts.dataflow.clone());
        space.commit(changes, move || {
            flushed.fetch_add(1, Ordering::SeqCst);
            match confirm {
                Some((id, confirms)) => confirms.push(Confirmed { id, rejected: Vec::new() }),
                None => dataflow.wake(),
            }
        });
    }

    /// The next release, once it is on disk: what a window gave is given once.
    fn next_release(&self, parts: &Parts, sequence: u64) -> Option<Flow> {
        if self.flushed.load(Ordering::SeqCst) < self.released_with.get() {
            return None;
        }
        let mut windows = self.windows.borrow_mut();
        let release = windows.next_release()?;
        let source = (parts.plan.sources_outside() + release.window) as u32;
        let ends = vec![release.number; release.messages.batch.len()];
        let marks = Marks::Places(Places { stream: [0; 2], is_one_of_many: false, ends });
        let known = windows.arrived(source, sequence, Some(marks));
        let (window, number) = (release.window, release.number);
        let cause = Cause::Window { window, number };
        let delivery = release.messages;
        Some(Flow { sequence, source, stream: None, delivery, known, replayed: None, cause })
    }

    /// Lets time go on, and sees to it that somebody looks again. True if nothing is
    /// left to be released before the dataflow may end.
    fn look(&self, parts: &Parts) -> bool {
        let now = parts.clock.now();
        let (has_changes, next, is_done) = {
            let mut windows = self.windows.borrow_mut();
            windows.look(&parts.queue, None, now);
            parts.queue.take_ended().into_iter().for_each(|source| windows.ended(source));
            // What is durable is sent on by whoever hears that it is on disk.
            if windows.advance(now) || (!windows.is_durable() && windows.has_released()) {
                parts.dataflow.wake_by_ref();
            }
            let has_changes = windows.is_durable() && windows.has_changes();
            (has_changes, windows.next_look(now), windows.is_done())
        };
        if has_changes {
            self.commit(parts, None);
        }
        if self.armed.get().is_some_and(|armed| armed <= now) {
            self.armed.set(None);
        }
        if let Some(next) = next.filter(|next| self.armed.get().is_none_or(|armed| *next < armed)) {
            self.armed.set(Some(next));
            parts.timers.arm(next, parts.dataflow.clone());
        }
        is_done
    }
}

/// What the guests of a lane are at.
enum Guests {
    Free,
    /// A delivery that was taken.
    Busy,
    /// They could not even begin on it: kept, unsettled.
    Stuck(#[expect(dead_code, reason = "its credit is held with it")] Flow),
}

/// A delivery that is taken and not finished.
enum Flight {
    /// In the region, in this lane.
    AtGuests(usize),
    Held(Hold),
}

/// A delivery whose results are on their way. Its credit goes back when it is
/// dropped, and the frontier may pass.
struct Hold {
    flow: Flow,
    /// Writes and dead letters not yet confirmed.
    waiting: u32,
    /// Messages written and not rejected.
    written: u64,
    /// Bytes of all that was written.
    written_bytes: u64,
}

/// Flights by sequence: nearly dense, and mostly finished from the front.
#[derive(Default)]
struct Flights {
    /// Sequence of the first.
    first: u64,
    flights: VecDeque<Option<Flight>>,
}

impl Flights {
    /// The first sequence that is not finished, and its lane while it is in one.
    fn first(&self) -> Option<(u64, Option<usize>)> {
        let lane = match self.flights.front()? {
            Some(Flight::AtGuests(lane)) => Some(*lane),
            Some(Flight::Held(_)) | None => None,
        };
        Some((self.first, lane))
    }

    /// Sequences are taken one after the other.
    fn take_off(&mut self, sequence: u64, lane: usize) {
        if self.flights.is_empty() {
            self.first = sequence;
        }
        self.flights.push_back(Some(Flight::AtGuests(lane)));
    }

    fn at(&mut self, sequence: u64) -> Option<&mut Option<Flight>> {
        let place = sequence.checked_sub(self.first)?;
        self.flights.get_mut(place as usize)
    }

    /// It is through the region.
    fn hold(&mut self, sequence: u64, hold: Hold) {
        *self.at(sequence).expect("it was taken and is not finished") = Some(Flight::Held(hold));
    }

    fn held(&mut self, sequence: u64) -> Option<&mut Hold> {
        match self.at(sequence)? {
            Some(Flight::Held(hold)) => Some(hold),
            Some(Flight::AtGuests(_)) | None => None,
        }
    }

    fn land(&mut self, sequence: u64) -> Option<Flight> {
        let flight = self.at(sequence).and_then(Option::take);
        while let Some(None) = self.flights.front() {
            self.flights.pop_front();
            self.first += 1;
        }
        flight
    }
}
