//! The region: all stateless operators of a dataflow, run one delivery after the
//! other, guests in a row. Between ingest and sink; knows guests as futures, and
//! neither Timely nor transports.

use std::{borrow::Cow, future::poll_fn, sync::Arc};

use smallvec::SmallVec;

use crate::{
    batch::Batch,
    clock::Clock,
    dataflow::plan::{Plan, Target},
    dead_letter::{DeadLetter, Reason},
    guest::{AcquireError, Fault, Guests, InvokeError, Operator, Output, Verdict},
    ledger::Credit,
    resource::OnError,
};

/// A delivery on its way through a dataflow.
#[derive(Debug)]
pub struct Flow {
    /// Its Timely timestamp.
    pub sequence: u64,
    pub source: u32,
    /// As it came; dead letters and retries go back to it.
    pub batch: Batch,
    /// Returned when nothing of the delivery is left in the host.
    pub credit: Credit,
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
}

impl Region {
    /// Runs every operator on the delivery. An error means that the dataflow cannot
    /// go on at all; the delivery stays unsettled.
    pub async fn run(&self, flow: &Flow) -> Result<Outcome, AcquireError> {
        let plan = &*self.plan;
        for destination in &plan.destinations {
            poll_fn(|ctx| destination.sink.poll_room(ctx)).await;
        }
        let mut edges = Edges {
            steps: plan.steps.iter().map(|_| Arrived::new()).collect(),
            destinations: plan.destinations.iter().map(|_| Arrived::new()).collect(),
        };
        let mut dead = Vec::new();
        edges.route(&plan.sources[flow.source as usize].targets, Cow::Borrowed(&flow.batch));
        for (index, step) in plan.steps.iter().enumerate() {
            let input = merge(std::mem::take(&mut edges.steps[index]));
            if input.is_empty() {
                continue;
            }
            let arms = self.run_operator(&step.operator, flow, &input, &mut dead).await?;
            edges.route(&step.targets, merge(arms.untrue));
            edges.route(&step.targets_true, merge(arms.r#true));
        }
        let writes: Writes =
            edges.destinations.into_iter().map(|arrived| merge(arrived).into_owned()).collect();
        plan.stats.written.add(writes.iter().map(|batch| batch.len() as u64).sum());
        Ok(Outcome { writes, dead })
    }

    /// One call of the operator's guest; after a fault its instance is gone.
    async fn call(
        &self,
        operator: &Arc<Operator>,
        flow: &Flow,
        input: &Batch,
    ) -> Result<Result<Output, Fault>, AcquireError> {
        let mut guest = self.guests.acquire(operator).await?;
        let result = guest.process(input, &flow.batch).await;
        match &result {
            Ok(_) => self.guests.release(guest),
            Err(_) => operator.stats.faults.add(1),
        }
        Ok(result)
    }

    /// One operator on one batch: the whole batch in one go, and message by message
    /// after a fault, so that only the guilty one is lost.
    async fn run_operator(
        &self,
        operator: &Arc<Operator>,
        flow: &Flow,
        input: &Batch,
        dead: &mut Vec<DeadLetter>,
    ) -> Result<Arms, AcquireError> {
        operator.stats.taken.add(input.len() as u64);
        let mut work = Work { region: self, operator, flow, dead, arms: Arms::default() };
        match self.call(operator, flow, input).await? {
            Ok(output) => work.take(input, output),
            Err(fault) if input.len() == 1 => work.retry(input, fault).await?,
            Err(fault) => {
                let fault = fault.error;
                tracing::debug!(operator = %operator.name, %fault, messages = input.len(), "fault in a batch");
                for index in 0..input.len() {
                    let message = input.select(|i, _| i == index);
                    match self.call(operator, flow, &message).await? {
                        Ok(output) => work.take(&message, output),
                        Err(fault) => work.retry(&message, fault).await?,
                    }
                }
            }
        }
        let arms = work.arms;
        let given = arms.untrue.iter().chain(&arms.r#true).map(|batch| batch.len()).sum::<usize>();
        operator.stats.given.add(given as u64);
        Ok(arms)
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

/// What waits at the ends of the region's edges.
struct Edges<'a> {
    steps: SmallVec<[Arrived<'a>; 4]>,
    destinations: SmallVec<[Arrived<'a>; 2]>,
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
}

impl Work<'_> {
    /// The message has failed once: again on fresh instances, as often as policy
    /// says and as the kind of fault makes sense, then to the dead letters.
    async fn retry(&mut self, message: &Batch, mut fault: Fault) -> Result<(), AcquireError> {
        let retries_max = self.operator.tenant.limits.fault_retries_max;
        let mut retries = 0;
        while fault.error.is_worth_a_retry() && retries < retries_max {
            retries += 1;
            self.operator.stats.retries.add(1);
            match self.region.call(self.operator, self.flow, message).await? {
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
            OnError::Drop => self.region.plan.stats.errors.add(1),
            OnError::DeadLetter => self.bury(origin, Reason::OperatorError, text, 0),
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
            message: flow.batch.select(|_, entry| entry.origin == origin),
            at: self.clock.wall(),
        }
    }
}
