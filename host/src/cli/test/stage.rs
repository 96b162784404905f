//! `Stage`: one test's graph on a shard of its own, stepped by hand on a virtual
//! clock, between the memory connector's two ends. The whole path as a host runs it,
//! only that nobody waits.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    task::{Context, Waker},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde_json::{Map, Value, json};
use tokio::sync::oneshot;

use crate::{
    batch::{Batch, BatchBuilder, Entry, Kind},
    clock::{Clock, Instant, VirtualClock},
    connector::{
        memory::{self, Answer, Collected, Feed, MemorySink, MemorySource},
        stop::Stop,
    },
    dataflow::{
        plan::{Health, Plan},
        shard::{Command, Shard, ShardDoor, ShardSetup, Turn},
    },
    dead_letter::{DeadLetters, Record},
    guest::{component::Components, engine::PoolSize, linker::Linkers},
    hlc,
    queue::SourceDoor,
    resource::test_case::InputMessage,
    write::SinkQueue,
};

/// What a busy turn takes. Guests' time is counted apart, by their fuel.
const TURN: Duration = Duration::from_micros(1);
/// A watermark's tick: how far time goes at once while something is open.
const STEP: Duration = Duration::from_millis(100);
/// The same when all that was asked for has happened, and only something that should
/// not can.
const STEP_QUIET: Duration = Duration::from_secs(1);
/// When a test's messages come, on a clock that begins with a year: a message at the
/// very end of a window belongs to it, and would be alone there.
const BEGIN_AT: Instant = Instant(1_500_000_000);
/// How long a shard is left alone while models run, which take time of their own.
const MODELS_STEP: Duration = Duration::from_micros(200);
/// Longest that a graph's operators may take to begin.
const BEGIN_WITHIN: Duration = Duration::from_secs(60);

/// What came of a test's messages.
#[derive(Debug, Default)]
pub struct Outcome {
    /// In order, as a test's expectation writes them.
    pub outputs: Vec<Value>,
    /// Virtual time from the first input to the last output.
    pub last_output: Duration,
    /// Messages that were dropped by an operator's error, or given up.
    pub dead: Vec<Record>,
    /// Inputs for which nobody has answered when the time was over.
    pub unsettled: u64,
}

/// What a test asks of a stage.
#[derive(Debug)]
pub struct Play<'a> {
    pub messages: &'a [InputMessage],
    /// So many outputs are waited for.
    pub outputs: usize,
    pub timeout: Duration,
}

pub struct Stage {
    shard: Shard,
    door: ShardDoor,
    clock: Arc<VirtualClock>,
    dead: Arc<Mutex<Vec<Record>>>,
}

impl Stage {
    /// The same for the same test: guests' random numbers have a fixed seed.
    pub fn new(components: Components) -> Self {
        let clock = Arc::<VirtualClock>::default();
        let dead = Arc::new(Mutex::new(Vec::new()));
        let linkers = Arc::new(Linkers::new(components.engines()));
        let (shard, door) = Shard::new(ShardSetup {
            clock: Clock::Virtual(clock.clone()),
            components,
            linkers,
            dead_letters: DeadLetters::Memory(dead.clone()),
            slots_max: PoolSize::small(super::SLOTS as u32).slots.map(|slots| slots as usize),
            components_max: super::SLOTS,
            seed: 1,
        });
        Stage { shard, door, clock, dead }
    }

    /// Runs the plan on the messages until its outputs have come and nothing is open,
    /// or until the time is over. An error means that the graph cannot run at all.
    pub fn play(
        mut self,
        plan: &Arc<Plan>,
        sink: &Arc<SinkQueue>,
        play: &Play<'_>,
    ) -> anyhow::Result<Outcome> {
        self.try_operators(plan)?;
        self.clock.advance(BEGIN_AT.since(self.now()));
        let (_, queue) = self.shard.install(plan.clone());
        let door = SourceDoor::new(0, queue, plan.tenant.ledger.clone());
        let (source, feed) = memory::source(door, Stop::default());
        let (sink, collected) = memory::sink(sink.clone(), Answer::all());
        play.messages.iter().for_each(|message| feed.push(delivery(message)));
        let mut ends = Ends { source, feed, sink, collected };
        let mut outcome = Outcome::default();
        let began = self.now();
        let end = began.plus(play.timeout);
        loop {
            let until = self.settle(plan, &mut ends, &mut outcome, began)?;
            if let Health::Failed { cause, .. } | Health::Quarantined { cause } = plan.health() {
                bail!("{cause}");
            }
            outcome.unsettled = ends.feed.unsettled();
            let now = self.now();
            if now >= end {
                break;
            }
            let is_open = outcome.outputs.len() < play.outputs || outcome.unsettled > 0 || until.is_some();
            let step = now.plus(if is_open { STEP } else { STEP_QUIET });
            let next = until.map_or(step, |until| step.min(until)).min(end);
            // A deadline that has passed without an effect may not stop the time.
            self.clock.advance(next.since(now).max(TURN));
        }
        self.door.send(Command::Stop);
        self.shard.turn();
        outcome.dead = std::mem::take(&mut *self.dead.lock().expect("no panic under this lock"));
        Ok(outcome)
    }

    fn now(&self) -> Instant {
        Clock::Virtual(self.clock.clone()).now()
    }

    /// Runs `init` of every operator, as a deploy does.
    fn try_operators(&mut self, plan: &Plan) -> anyhow::Result<()> {
        let (reply, mut tried) = oneshot::channel();
        self.door.send(Command::Try { operators: plan.operators().cloned().collect(), reply });
        let end = self.now().plus(BEGIN_WITHIN);
        while self.now() < end {
            let turn = self.shard.turn();
            if let Ok(result) = tried.try_recv() {
                return result.map_err(anyhow::Error::msg);
            }
            match turn {
                Turn::Busy => self.clock.advance(TURN),
                Turn::Idle { .. } if runs_models(plan) => std::thread::sleep(MODELS_STEP),
                Turn::Idle { until } => {
                    let until = until.context("an operator's `init` waits for nothing that could come")?;
                    self.clock.advance(until.since(self.now()).max(TURN));
                }
                Turn::Stopped => bail!("the shard ended"),
            }
        }
        bail!("an operator's `init` does not end within {BEGIN_WITHIN:?}")
    }

    /// Turns the shard and both ends until none of them can do more at this instant;
    /// gives the shard's next deadline.
    fn settle(
        &mut self,
        plan: &Plan,
        ends: &mut Ends,
        outcome: &mut Outcome,
        began: Instant,
    ) -> anyhow::Result<Option<Instant>> {
        ends.step();
        loop {
            let turn = self.shard.turn();
            let mut moved = ends.step();
            for (_, batch) in ends.collected.take() {
                moved = true;
                outcome.last_output = self.now().since(began);
                outcome.outputs.extend(outputs(&batch));
            }
            match turn {
                Turn::Stopped => bail!("the shard ended"),
                // On the virtual clock a model takes no time.
                Turn::Idle { .. } if !moved && runs_models(plan) => std::thread::sleep(MODELS_STEP),
                Turn::Idle { until } if !moved => return Ok(until),
                _ => self.clock.advance(TURN),
            }
        }
    }
}

/// Whether an operator waits for a model.
fn runs_models(plan: &Plan) -> bool {
    plan.tenant.has_inference().is_some_and(|inference| inference.open() > 0)
}

/// Both ends of the memory connector, polled by hand.
struct Ends {
    source: MemorySource,
    feed: Feed,
    sink: MemorySink,
    collected: Collected,
}

impl Ends {
    /// Lets both ends do what they can; says whether the source could.
    fn step(&mut self) -> bool {
        let mut ctx = Context::from_waker(Waker::noop());
        let before = (self.feed.waiting(), self.feed.settled());
        // Neither ends before the stage does.
        let _ = self.source.poll(&mut ctx);
        let _ = self.sink.poll(&mut ctx);
        before != (self.feed.waiting(), self.feed.settled())
    }
}

fn delivery(message: &InputMessage) -> Batch {
    let mut builder = BatchBuilder::new("test");
    builder.push(message.topic.as_bytes(), None, &message.payload, []);
    builder.finish()
}

/// Messages as tests write them.
fn outputs(batch: &Batch) -> Vec<Value> {
    batch.entries.iter().enumerate().map(|(index, entry)| output(batch, index, entry)).collect()
}

fn output(batch: &Batch, index: usize, entry: &Entry) -> Value {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut message = Map::new();
    message.insert("topic".into(), text(entry.topic.bytes(&batch.arena)).into());
    let payload = entry.payload.bytes(&batch.arena);
    let payload = std::str::from_utf8(payload).map_or_else(|_| BASE64.encode(payload), str::to_owned);
    message.insert("payload".into(), payload.into());
    if let Some(content_type) = entry.content_type.get(&batch.arena) {
        message.insert("contentType".into(), text(content_type).into());
    }
    // The properties of an image are its size, not text.
    if entry.kind == Kind::MESSAGE {
        let own = batch.properties(index).filter(|(key, _)| *key != hlc::PROPERTY.as_bytes());
        let user: BTreeMap<String, String> = own.map(|(key, value)| (text(key), text(value))).collect();
        message.insert("properties".into(), json!({ "user-properties": user }));
    }
    message.into()
}

/// Whether all messages fit what the policy lets in; the error names one that does not.
pub fn check_sizes(messages: &[InputMessage], bytes_max: u64) -> anyhow::Result<()> {
    for InputMessage { payload, file, .. } in messages {
        let bytes = payload.len();
        let file = file.display();
        ensure!(bytes as u64 <= bytes_max, "{file} has {bytes} bytes, and the policy lets {bytes_max} in");
    }
    Ok(())
}
