//! `Transaction`: what a source and a sink of one dataflow write to one cluster, each record
//! once. Results are sent within a transaction; when nothing is under way, the source adds how
//! far it has read and commits both. If that fails, whatever is under way is let go, and the
//! source begins again where the last transaction ended.
//!
//! ```text
//! wanted ──sink──► open ──source: nothing under way──► committed, open again
//!    ▲               │ either: it failed
//!    └──source───── failed: the sink lets go what comes, until nothing is under way
//! ```

use std::{
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Waker},
    time::{Duration, Instant},
};

use rdkafka::{
    TopicPartitionList,
    consumer::ConsumerGroupMetadata,
    error::{KafkaError, KafkaResult},
    producer::{BaseProducer, Producer as _},
};

use super::{ClientError, sink::Reports};

/// How long brokers may take for one step. Shorter than the transaction's own time-out.
const STEP_WITHIN: Duration = Duration::from_secs(30);

const AGAIN_AFTER: Duration = Duration::from_millis(20);

/// Shared by the two ends of a dataflow.
#[derive(Default)]
pub struct Transaction {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    phase: Phase,
    waiting: Vec<Waker>,
}

/// See the module.
#[derive(Clone, Default)]
pub(super) enum Phase {
    #[default]
    Wanted,
    Open(Arc<BaseProducer<Reports>>),
    Failed,
}

impl Transaction {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic under this lock")
    }

    pub(super) fn phase(&self) -> Phase {
        self.lock().phase.clone()
    }

    /// The phase as it is, and a call when it changes.
    pub(super) fn poll_phase(&self, ctx: &mut Context<'_>) -> Phase {
        let mut state = self.lock();
        if !state.waiting.iter().any(|waker| waker.will_wake(ctx.waker())) {
            state.waiting.push(ctx.waker().clone());
        }
        state.phase.clone()
    }

    fn set(&self, phase: Phase) {
        let waiting = {
            let mut state = self.lock();
            state.phase = phase;
            std::mem::take(&mut state.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Whether what `producer` sends is still part of it. What comes after may have come and
    /// gone before anybody looks.
    pub(super) fn is_open_with(&self, producer: &Arc<BaseProducer<Reports>>, ctx: &mut Context<'_>) -> bool {
        matches!(self.poll_phase(ctx), Phase::Open(open) if Arc::ptr_eq(&open, producer))
    }

    /// The source: nothing is under way of the one that failed.
    pub(super) fn want(&self) {
        self.set(Phase::Wanted);
    }

    /// Either end: what is under way is to be let go.
    pub(super) fn fail(&self) {
        if !matches!(self.phase(), Phase::Failed) {
            self.set(Phase::Failed);
        }
    }

    /// The sink: ends what an earlier producer of the same name left open, and begins.
    pub(super) fn open(&self, producer: Arc<BaseProducer<Reports>>) -> KafkaResult<()> {
        producer.init_transactions(STEP_WITHIN)?;
        producer.begin_transaction()?;
        if matches!(self.phase(), Phase::Wanted) {
            self.set(Phase::Open(producer));
        }
        Ok(())
    }

    /// The source: all up to `offsets` is in the transaction, and nothing else is.
    pub(super) fn commit(
        &self,
        offsets: &TopicPartitionList,
        group: Option<ConsumerGroupMetadata>,
    ) -> Result<(), ClientError> {
        let Phase::Open(producer) = self.phase() else { return Err(aborted("it failed before")) };
        let Some(group) = group else { return Err(aborted("the consumer is in no group")) };
        let committed =
            again_if_retriable(|| producer.send_offsets_to_transaction(offsets, &group, STEP_WITHIN))
                .and_then(|()| again_if_retriable(|| producer.commit_transaction(STEP_WITHIN)))
                .and_then(|()| producer.begin_transaction());
        committed.map_err(|error| {
            self.fail();
            aborted(&error.to_string())
        })
    }
}

fn aborted(reason: &str) -> ClientError {
    ClientError::Aborted { reason: reason.to_owned() }
}

fn again_if_retriable(step: impl Fn() -> KafkaResult<()>) -> KafkaResult<()> {
    let until = Instant::now() + STEP_WITHIN;
    loop {
        match step() {
            Err(KafkaError::Transaction(error)) if error.is_retriable() && Instant::now() < until => {
                std::thread::park_timeout(AGAIN_AFTER);
            }
            result => return result,
        }
    }
}
