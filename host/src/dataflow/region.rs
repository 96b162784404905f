//! The region: all operators of a dataflow, run on one delivery after the other in each
//! lane, guests in a row, up to where windows hold what they are given. Between ingest and
//! sink; knows guests as futures, and neither Timely nor transports.

use std::{
    borrow::Cow,
    cell::{Cell, RefCell},
    collections::BTreeMap,
    future::poll_fn,
    rc::Rc,
    sync::Arc,
};

use smallvec::SmallVec;

use crate::{
    batch::{Batch, Stamped, Time},
    clock::Clock,
    dataflow::{
        circuit::Circuit,
        description::Stage,
        plan::{Check, Plan, Step, Target},
        timers::Timers,
        watermark::Moment,
        window::{Full, InTime, Known, Windows},
    },
    dead_letter::{DeadLetter, Reason, Replayed},
    guest::{
        AcquireError, Fault, Guests, InvokeError, Operator, OperatorError, OperatorKind, Output, Verdict,
    },
    ledger::Credit,
    resource::{Late, OnError},
    wake::yield_once,
};

/// A delivery on its way through a dataflow.
#[derive(Debug)]
pub struct Flow {
    /// Its Timely timestamp.
    pub sequence: u64,
    pub source: u32,
    /// In which of several that its source reads, if that is known.
    pub stream: Option<Box<[u64; 2]>>,
    /// As it came; dead letters and retries go back to it.
    pub delivery: Stamped,
    /// Which of its messages were delivered before, and windows have them.
    pub known: Known,
    /// The dead letters that its messages were, if it is a replay.
    pub replayed: Option<Arc<[Replayed]>>,
    pub cause: Cause,
}

/// What set a flow going.
#[derive(Debug)]
pub enum Cause {
    /// A source, which has an answer coming. Its credit is returned when nothing of
    /// the delivery is left in the host.
    Source(Credit),
    /// What a window released, as it numbers it.
    Window { window: usize, number: u64 },
}

/// A batch for each destination, empty where nothing goes.
pub type Writes = SmallVec<[Batch; 2]>;

/// What a region made of one delivery.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Per destination.
    pub writes: Writes,
    pub dead: Vec<DeadLetter>,
}

/// A dataflow's operators on one shard.
#[derive(Debug)]
pub struct Region {
    pub plan: Arc<Plan>,
    pub guests: Guests,
    pub clock: Clock,
    pub timers: Timers,
    /// `None` in a dataflow without windows.
    pub windows: Option<Rc<RefCell<Windows>>>,
    pub circuit: RefCell<Circuit>,
    /// Guests at work, over all lanes.
    pub at_work: Cell<usize>,
}

impl Region {
    /// Runs every operator on the delivery, and says at which it is. An error means that
    /// the dataflow cannot go on at all; the delivery stays unsettled.
    pub async fn run(&self, flow: &Flow, stage: &Cell<Stage>) -> Result<Outcome, AcquireError> {
        let plan = &*self.plan;
        stage.set(Stage::Room);
        for destination in &plan.destinations {
            poll_fn(|ctx| destination.sink.poll_room(ctx)).await;
        }
        for gate in plan.destinations.iter().filter_map(|destination| destination.gate.as_ref()) {
            poll_fn(|ctx| {
                let waker = ctx.waker().clone();
                gate.poll_open_at(self.clock.now(), ctx, |at| self.timers.arm(at, waker))
            })
            .await;
        }
        let mut edges = Edges {
            steps: plan.steps.iter().map(|_| Arrived::new()).collect(),
            destinations: plan.destinations.iter().map(|_| Arrived::new()).collect(),
            checks: plan.checks.iter().map(|_| Arrived::new()).collect(),
        };
        let mut dead = Vec::new();
        edges.route(&plan.sources[flow.source as usize].targets, Cow::Borrowed(&flow.delivery.batch));
        self.run_checks(&mut edges, flow, &mut dead).await;
        for (index, step) in plan.steps.iter().enumerate() {
            let input = merge(std::mem::take(&mut edges.steps[index]));
            if input.is_empty() {
                continue;
            }
            stage.set(Stage::Step(index));
            if let Some(window) = step.window {
                self.run_window(step, window, flow, &input, &mut dead).await?;
                continue;
            }
            let arms = self.run_operator(&step.operator, flow, &input, &mut dead).await?;
            edges.route(&step.targets, merge(arms.untrue));
            edges.route(&step.targets_true, merge(arms.r#true));
            self.run_checks(&mut edges, flow, &mut dead).await;
        }
        let writes: Writes =
            edges.destinations.into_iter().map(|arrived| merge(arrived).into_owned()).collect();
        plan.stats.written.add(writes.iter().map(|batch| batch.len() as u64).sum());
        Ok(Outcome { writes, dead })
    }

    /// Lets what fits its schema through all checks that hold messages.
    async fn run_checks(&self, edges: &mut Edges<'_>, flow: &Flow, dead: &mut Vec<DeadLetter>) {
        for (index, check) in self.plan.checks.iter().enumerate().rev() {
            if edges.checks[index].is_empty() {
                continue;
            }
            let batch = merge(std::mem::take(&mut edges.checks[index]));
            let unfit = self.run_check(check, flow, &batch, dead).await;
            let fitting = match unfit.is_empty() {
                true => batch,
                false => Cow::Owned(batch.select(|place, _| unfit.binary_search(&place).is_err())),
            };
            edges.route(&[check.target], fitting);
        }
    }

    /// Places of the messages that do not fit, for which it leaves dead letters.
    async fn run_check(
        &self,
        check: &Check,
        flow: &Flow,
        batch: &Batch,
        dead: &mut Vec<DeadLetter>,
    ) -> Vec<usize> {
        let mut unfit = Vec::new();
        let mut work = 0;
        for (place, entry) in batch.entries.iter().enumerate() {
            let checked = check.schema.check(entry.payload.bytes(&batch.arena));
            work += checked.work;
            if work > CHECK_WORK_PER_SLICE {
                work = 0;
                yield_once().await;
            }
            let Some(violation) = checked.violation else { continue };
            unfit.push(place);
            self.plan.stats.unfit.add(1);
            if dead.iter().any(|letter| letter.message.entries[0].origin == entry.origin) {
                continue;
            }
            let detail = format!("schema `{}`: {violation}", check.schema.name());
            let letter = self.dead_letter(flow, entry.origin, Reason::Schema, detail);
            let operation = Some(check.operation.clone());
            tracing::warn!(dataflow = %self.plan.name(), ?operation, detail = %letter.detail, "message given up");
            dead.push(DeadLetter { operation, ..letter });
        }
        unfit
    }

    /// One call of the operator's guest; after a fault its instance is gone.
    async fn call(
        &self,
        operator: &Arc<Operator>,
        flow: &Flow,
        input: &Batch,
    ) -> Result<Result<Output, Fault>, AcquireError> {
        // What another lane has comes back.
        let comes_back = || self.at_work.get() > 0;
        let mut guest = self.guests.acquire(operator, comes_back).await?;
        self.at_work.update(|guests| guests + 1);
        let result = guest.process(input, &flow.delivery).await;
        self.at_work.update(|guests| guests - 1);
        match &result {
            Ok(_) => self.guests.release(guest),
            Err(_) => operator.stats.faults.add(1),
        }
        Ok(result)
    }

    /// One operator on one batch.
    async fn run_operator(
        &self,
        operator: &Arc<Operator>,
        flow: &Flow,
        input: &Batch,
        dead: &mut Vec<DeadLetter>,
    ) -> Result<Arms, AcquireError> {
        operator.stats.taken.add(input.len() as u64);
        let mut work = Work { region: self, operator, flow, dead, arms: Arms::default(), held: None };
        work.run(input).await?;
        let arms = work.arms;
        let given = arms.untrue.iter().chain(&arms.r#true).map(|batch| batch.len()).sum::<usize>();
        operator.stats.given.add(given as u64);
        Ok(arms)
    }

    /// An accumulate or delay on one batch: nothing leaves it now.
    async fn run_window(
        &self,
        step: &Step,
        window: usize,
        flow: &Flow,
        input: &Batch,
        dead: &mut Vec<DeadLetter>,
    ) -> Result<(), AcquireError> {
        let operator = &step.operator;
        let fresh;
        let input = if flow.known.is_none() {
            input
        } else {
            fresh = input.select(|_, entry| !flow.known.has(entry.origin));
            self.plan.stats.recognised.add((input.len() - fresh.len()) as u64);
            &fresh
        };
        if input.is_empty() {
            return Ok(());
        }
        operator.stats.taken.add(input.len() as u64);
        let mut work = Work { region: self, operator, flow, dead, arms: Arms::default(), held: None };
        if operator.kind == OperatorKind::Delay {
            work.held = Some(Held { window, moment: Moment::default(), time: None });
            return work.run(input).await;
        }
        let mut moments: BTreeMap<Moment, Vec<u32>> = BTreeMap::new();
        for (place, entry) in input.entries.iter().enumerate() {
            let moment = Moment::of(flow.delivery.time(entry.origin));
            if let Some(moment) = work.in_time(window, moment, entry.origin) {
                moments.entry(moment).or_default().push(place as u32);
            }
        }
        for (moment, places) in moments {
            let messages = input.select(|place, _| places.binary_search(&(place as u32)).is_ok());
            let first = flow.delivery.time(messages.entries[0].origin);
            let Moment { seconds, nanos, counter } = moment;
            let time = Some(Time { seconds, nanos, counter, ..first });
            work.held = Some(Held { window, moment, time });
            work.run(&messages).await?;
        }
        Ok(())
    }

    fn windows(&self) -> &RefCell<Windows> {
        self.windows.as_ref().expect("a step with a window is in a dataflow with windows")
    }
}

/// What came along the edges into one place: nearly always one batch, for which no
/// memory is allocated. A delivery as it came is not copied.
type Arrived<'a> = SmallVec<[Cow<'a, Batch>; 1]>;

fn merge(mut arrived: Arrived<'_>) -> Cow<'_, Batch> {
    match arrived.len() {
        1 => arrived.remove(0),
        _ => Cow::Owned(Batch::merge(arrived.into_iter().map(Cow::into_owned).collect())),
    }
}

/// Work of schema checks between two yields, about 100 µs.
const CHECK_WORK_PER_SLICE: u64 = 10_000;

/// What waits at the ends of the region's edges.
struct Edges<'a> {
    steps: SmallVec<[Arrived<'a>; 4]>,
    destinations: SmallVec<[Arrived<'a>; 2]>,
    /// Empty without schemas, which allocates nothing.
    checks: Vec<Arrived<'a>>,
}

impl<'a> Edges<'a> {
    fn route(&mut self, targets: &[Target], batch: Cow<'a, Batch>) {
        let Some((last, others)) = targets.split_last() else { return };
        if batch.is_empty() {
            return;
        }
        for target in others {
            self.end(*target).push(batch.clone());
        }
        self.end(*last).push(batch);
    }

    fn end(&mut self, target: Target) -> &mut Arrived<'a> {
        match target {
            Target::Step(index) => &mut self.steps[index],
            Target::Destination(index) => &mut self.destinations[index],
            Target::Check(index) => &mut self.checks[index],
        }
    }
}

/// What leaves an operator: a branch fills both, others only the first.
#[derive(Debug, Default)]
struct Arms {
    untrue: Arrived<'static>,
    r#true: Arrived<'static>,
}

/// One operator's work on one delivery.
struct Work<'a> {
    region: &'a Region,
    operator: &'a Arc<Operator>,
    flow: &'a Flow,
    dead: &'a mut Vec<DeadLetter>,
    arms: Arms,
    /// Where its results stay, if it is an accumulate or delay.
    held: Option<Held>,
}

const WINDOWS_FULL: &str = "windows hold as much as policy's `state.windows` allows";

/// A window that an operator works on.
struct Held {
    window: usize,
    moment: Moment,
    /// The window's, with its node in the delivery's arena; a delay has one for each
    /// message instead.
    time: Option<Time>,
}

impl Work<'_> {
    /// The whole batch in one go, and message by message after a fault, so that only
    /// the guilty one is lost.
    async fn run(&mut self, input: &Batch) -> Result<(), AcquireError> {
        match self.call(input).await? {
            // So does an error of a window's call, which is one for all its messages.
            Ok(output) if input.len() == 1 || !matches!(output, Output::Staged(Err(_))) => {
                self.take(input, output);
            }
            Err(fault) if input.len() == 1 => self.retry(input, fault).await?,
            failed => {
                if let Err(Fault { error, .. }) = failed {
                    let operator = &self.operator.name;
                    tracing::debug!(%operator, fault = %error, messages = input.len(), "fault in a batch");
                }
                for index in 0..input.len() {
                    let message = input.select(|i, _| i == index);
                    match self.call(&message).await? {
                        Ok(output) => self.take(&message, output),
                        Err(fault) => self.retry(&message, fault).await?,
                    }
                }
            }
        }
        Ok(())
    }

    /// One call of the guest; a window's begins with its staged value.
    async fn call(&self, messages: &Batch) -> Result<Result<Output, Fault>, AcquireError> {
        let Some(Held { window, moment, time: Some(time) }) = &self.held else {
            return self.region.call(self.operator, self.flow, messages).await;
        };
        let node = time.node.bytes(&self.flow.delivery.batch.arena);
        let input = self.region.windows().borrow().call(*window, *moment, (*time, node), messages);
        self.region.call(self.operator, self.flow, &input).await
    }

    /// The moment at which a window takes a message, if it still does.
    fn in_time(&mut self, window: usize, moment: Moment, origin: u32) -> Option<Moment> {
        let late = self.operator.tenant.limits.late;
        let windows = self.region.windows().borrow();
        match windows.in_time(window, moment, origin, late == Late::NextWindow) {
            InTime::At(moment) => return Some(moment),
            InTime::Again => self.region.plan.stats.recognised.add(1),
            // What was kept once is not dropped by a replay.
            InTime::Late if late == Late::DeadLetter || self.flow.replayed.is_some() => {
                let detail = "its time was complete already".to_owned();
                self.bury(origin, Reason::Late, detail, 0);
            }
            InTime::Late => {
                let late = &self.region.plan.stats.late;
                late.add(1);
                if late.get().is_power_of_two() {
                    let count = late.get();
                    tracing::warn!(operator = %self.operator.name, count, "messages came too late for their window");
                }
            }
        }
        None
    }

    /// Holds messages until the times that a delay gave them.
    fn delay(&mut self, input: &Batch, times: &[Time], nodes: &[u8], errors: &[OperatorError]) {
        let window = self.held.as_ref().expect("a delay has a window").window;
        let mut errors = errors.iter().map(|error| error.index as usize).peekable();
        for (place, (entry, time)) in input.entries.iter().zip(times).enumerate() {
            if errors.next_if_eq(&place).is_some() {
                continue;
            }
            let old = self.flow.delivery.time(entry.origin);
            let mut time = (*time, time.node.bytes(nodes));
            if Moment::of(time.0) < Moment::of(old) {
                self.region.plan.stats.clamped.add(1);
                time = (old, old.node.bytes(&self.flow.delivery.batch.arena));
            }
            let Some(moment) = self.in_time(window, Moment::of(time.0), entry.origin) else { continue };
            let Moment { seconds, nanos, counter } = moment;
            time.0 = Time { seconds, nanos, counter, ..time.0 };
            let held = self.region.windows().borrow_mut().hold(window, time, (entry, &input.arena));
            match held {
                Ok(()) => self.region.plan.stats.absorbed.add(1),
                Err(Full) => self.bury(entry.origin, Reason::WindowsFull, WINDOWS_FULL.into(), 0),
            }
        }
    }

    /// Replaces a window's staged value.
    fn stage(&mut self, messages: &Batch, value: &Batch) {
        let Some(Held { window, moment, time: Some(time) }) = &self.held else {
            unreachable!("only an accumulate gives a staged value")
        };
        let node = time.node.bytes(&self.flow.delivery.batch.arena);
        let staged = self.region.windows().borrow_mut().stage(*window, *moment, (*time, node), value);
        match staged {
            Ok(()) => self.region.plan.stats.absorbed.add(messages.len() as u64),
            Err(Full) => messages
                .entries
                .iter()
                .for_each(|entry| self.bury(entry.origin, Reason::WindowsFull, WINDOWS_FULL.into(), 0)),
        }
    }

    /// The message has failed once: again on fresh instances, as often as policy
    /// says and as the kind of fault makes sense, then to the dead letters.
    async fn retry(&mut self, message: &Batch, mut fault: Fault) -> Result<(), AcquireError> {
        let retries_max = self.operator.tenant.limits.fault_retries_max;
        let mut retries = 0;
        let may_retry = || self.region.circuit.borrow_mut().may_retry();
        while fault.error.is_worth_a_retry() && retries < retries_max && may_retry() {
            retries += 1;
            self.operator.stats.retries.add(1);
            match self.call(message).await? {
                Ok(output) => {
                    self.take(message, output);
                    return Ok(());
                }
                Err(again) => fault = again,
            }
        }
        let reason = match fault.error {
            InvokeError::Trap { .. } => Reason::Trap,
            InvokeError::MemoryRefused { .. } => Reason::MemoryRefused,
            InvokeError::OutOfFuel { .. } => Reason::OutOfFuel,
            InvokeError::OutOfTime { .. } => Reason::OutOfTime,
            InvokeError::BadOutput { .. } => Reason::BadOutput,
        };
        self.bury(message.entries[0].origin, reason, fault.error.to_string(), fault.fuel);
        Ok(())
    }

    /// Takes a guest's output into the arms; `input` is what it was called with.
    fn take(&mut self, input: &Batch, output: Output) {
        let stats = &self.region.plan.stats;
        let errors = match output {
            Output::Mapped { batch, errors } => {
                let mut mapped = batch;
                // Guests count from the start of their call, the host from the delivery's.
                let mut silent = input.len() as u64 - errors.len() as u64;
                let mut last = None;
                for entry in &mut mapped.entries {
                    if last.replace(entry.origin) != Some(entry.origin) {
                        silent = silent.saturating_sub(1);
                    }
                    entry.origin = input.entries[entry.origin as usize].origin;
                }
                stats.filtered.add(silent);
                self.arms.untrue.push(Cow::Owned(mapped));
                errors
            }
            Output::Judged { verdicts, errors } => {
                let pick = |wanted| Cow::Owned(input.select(|i, _| verdicts[i] == wanted));
                if self.operator.is_branch() {
                    self.arms.untrue.push(pick(Verdict::FALSE));
                    self.arms.r#true.push(pick(Verdict::TRUE));
                } else {
                    let passed = pick(Verdict::TRUE);
                    stats.filtered.add((input.len() - passed.len() - errors.len()) as u64);
                    self.arms.untrue.push(passed);
                }
                errors
            }
            Output::Staged(Ok(value)) => {
                self.stage(input, &value);
                Vec::new()
            }
            Output::Staged(Err(error)) => vec![error],
            Output::Delayed { times, arena, errors } => {
                self.delay(input, &times, &arena, &errors);
                errors
            }
        };
        for error in errors {
            self.operator_error(input.entries[error.index as usize].origin, error.text);
        }
    }

    /// AIO's rule: the message is dropped, the error logged, the pipeline goes on.
    fn operator_error(&mut self, origin: u32, text: String) {
        let stats = &self.operator.stats;
        stats.errors.add(1);
        let count = stats.errors.get();
        // A flood of bad messages must not become a flood of log lines.
        if count.is_power_of_two() {
            tracing::warn!(operator = %self.operator.name, error = %text, count, "operator returned an error");
        }
        match self.operator.tenant.limits.on_error {
            OnError::Drop if self.flow.replayed.is_none() => self.region.plan.stats.errors.add(1),
            OnError::Drop | OnError::DeadLetter => self.bury(origin, Reason::OperatorError, text, 0),
        }
    }

    fn bury(&mut self, origin: u32, reason: Reason, detail: String, fuel: u64) {
        // One message gives one dead letter, however many of its parts fail.
        if self.dead.iter().any(|letter| letter.message.entries[0].origin == origin) {
            return;
        }
        let letter = DeadLetter {
            operation: Some(self.operator.operation().to_owned()),
            component: Some(self.operator.digest_short()),
            fuel,
            ..self.region.dead_letter(self.flow, origin, reason, detail)
        };
        tracing::warn!(operator = %self.operator.name, ?reason, detail = %letter.detail, "message given up");
        self.dead.push(letter);
    }
}

impl Region {
    /// A dead letter for the message `origin` of a delivery, blaming no operator.
    pub fn dead_letter(&self, flow: &Flow, origin: u32, reason: Reason, detail: String) -> DeadLetter {
        DeadLetter {
            tenant: self.plan.tenant.name.clone(),
            dataflow: self.plan.dataflow.clone(),
            operation: None,
            source: self.plan.sources[flow.source as usize].name.clone(),
            sequence: flow.sequence,
            reason,
            detail,
            fuel: 0,
            component: None,
            message: flow.delivery.batch.select(|_, entry| entry.origin == origin),
            at: self.clock.wall(),
            replayed: flow.replayed.as_ref().map(|replayed| replayed[origin as usize]),
        }
    }
}
