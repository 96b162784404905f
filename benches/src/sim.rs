//! Simulation: the shard with its run queue, real guests and the host's own MQTT
//! sessions, stepped by hand on a virtual clock, between brokers that break, forget
//! and stall, and far ends in memory that do no better. A seed decides everything;
//! the same seed gives the same log.

mod alarm;
mod broker;
mod client;
mod doors;
mod fairness;
mod flow;
mod ledger;
mod mqtt;
mod pipe;
mod stage;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use rand::Rng as _;
use tidegate::{
    clock::{Clock, Instant, VirtualClock},
    dataflow::shard::Turn,
    guest::component::Components,
    settle,
};

pub use self::{fairness::unfairness, stage::Outcome};
use self::{
    flow::{Ends, Flow},
    mqtt::Loss,
    stage::Stage,
};
use crate::rig::Rig;

/// Dataflows of a run, each of a tenant of its own, and how many of them lie between
/// brokers.
const FLOWS: usize = 8;
const FLOWS_OF_BROKERS: usize = 4;
/// About as many disturbances come over a run.
const DISTURBANCES: usize = 80;
/// CPU time that a turn of the shard takes beside its guests.
const TURN: Duration = Duration::from_micros(3);
/// Steps without time going on.
const STEPS_AT_ONCE_MAX: usize = 10_000;

struct World {
    stage: Stage,
    rig: Rig,
    clock: Arc<VirtualClock>,
    flows: Vec<Flow>,
    /// Messages left when the next disturbance comes, and how far apart these are.
    disturb_at: usize,
    disturb_every: usize,
    /// The shard gets no CPU until then.
    shard_stalled_until: Instant,
    steps_at_once: usize,
}

/// Runs one seed; an error says which promise was broken.
pub fn run(seed: u64, components: &Components, messages: usize) -> anyhow::Result<Outcome> {
    let dropped = settle::dropped_count();
    let result = catch_unwind(AssertUnwindSafe(|| World::new(seed, components, messages).run()));
    let Ok(outcome) = result else { bail!("the host panicked") };
    let outcome = outcome?;
    ensure!(settle::dropped_count() == dropped, "a duty was dropped unanswered");
    Ok(outcome)
}

impl World {
    fn new(seed: u64, components: &Components, messages: usize) -> Self {
        let clock = Arc::new(VirtualClock::default());
        let mut stage = Stage::new(seed);
        let rig = Rig::with(components.clone(), Clock::Virtual(clock.clone()), 5, 3, seed);
        let share = messages / FLOWS;
        let flows = (0..FLOWS)
            .map(|index| Flow::new(&rig, index, share, index < FLOWS_OF_BROKERS, &mut stage))
            .collect();
        World {
            stage,
            rig,
            clock,
            flows,
            disturb_at: messages,
            disturb_every: (messages / DISTURBANCES).max(1),
            shard_stalled_until: Instant(0),
            steps_at_once: 0,
        }
    }

    fn run(mut self) -> anyhow::Result<Outcome> {
        while self.left() > 0 {
            if self.left() < self.disturb_at {
                let wait = self.stage.rng.random_range(1..=2 * self.disturb_every);
                self.disturb_at = self.left().saturating_sub(wait);
                self.disturb()?;
            }
            self.step()?;
        }
        self.finish()
    }

    fn left(&self) -> usize {
        self.flows.iter().map(Flow::left).sum()
    }

    fn step(&mut self) -> anyhow::Result<()> {
        self.stage.now = self.now();
        for flow in &mut self.flows {
            let left = flow.left();
            flow.step(&mut self.rig, &mut self.stage)?;
            flow.check_progress(left, self.stage.now)?;
        }
        let turn = if self.stage.now < self.shard_stalled_until {
            Turn::Idle { until: Some(self.shard_stalled_until) }
        } else {
            self.rig.shard.turn()
        };
        self.bury()?;
        match turn {
            Turn::Busy => self.clock.advance(TURN),
            Turn::Idle { until } => self.pass_time(until)?,
            Turn::Stopped => bail!("the shard ended"),
        }
        Ok(())
    }

    fn now(&self) -> Instant {
        Clock::Virtual(self.clock.clone()).now()
    }

    /// Lets time go on to the next instant at which something happens.
    fn pass_time(&mut self, until: Option<Instant>) -> anyhow::Result<()> {
        let now = self.now();
        let due = self.flows.iter().filter_map(|flow| flow.due(now)).chain(until).min();
        // With nothing to come, whoever still waits does so in vain.
        let due = due.unwrap_or(now);
        self.steps_at_once = if now < due { 0 } else { self.steps_at_once + 1 };
        ensure!(
            self.steps_at_once < STEPS_AT_ONCE_MAX,
            "time stands still: a wake-up is lost, or never ends"
        );
        self.clock.advance(due.since(now));
        Ok(())
    }

    /// Takes note of dead letters.
    fn bury(&mut self) -> anyhow::Result<()> {
        let records = std::mem::take(&mut *self.rig.dead.lock().expect("no panic under this lock"));
        for record in records {
            let flow = self.flows.iter_mut().find(|flow| flow.ledger.name == record.dataflow);
            let ledger = &mut flow.context("a dead letter of nobody's")?.ledger;
            ledger.bury(record.payload.unwrap_or_default().as_bytes(), record.reason)?;
        }
        Ok(())
    }

    /// Something goes wrong, or an administrator does something.
    fn disturb(&mut self) -> anyhow::Result<()> {
        let longest = if self.stage.one_in(10) { 20_000_000 } else { 50_000 };
        let until = self.stage.after(0..longest);
        let index = self.stage.rng.random_range(0..self.flows.len());
        let kind = self.stage.rng.random_range(0..10);
        self.stage.note(("disturb", kind, index, until));
        match kind {
            0..3 => {
                let within = Duration::from_micros(self.stage.rng.random_range(0..20_000));
                let drain = Duration::from_micros(self.stage.rng.random_range(0..3_000));
                self.flows[index].remove(within, drain, &mut self.stage);
            }
            3 => {
                // Short of the flows' own patience, but long against everything else.
                self.stage.outcome.stalls += 1;
                self.shard_stalled_until = self.stage.after(0..500_000);
            }
            4 => {
                for flow in &mut self.flows {
                    disturb_ends(flow, Loss::Broker, until, &mut self.stage)?;
                }
            }
            _ => {
                const LOSSES: [Loss; 4] = [Loss::Connection, Loss::Connection, Loss::Broker, Loss::Session];
                let loss = LOSSES[self.stage.rng.random_range(0..LOSSES.len())];
                disturb_ends(&mut self.flows[index], loss, until, &mut self.stage)?;
            }
        }
        Ok(())
    }

    /// All is settled: every dataflow drains, every sink ends, and nothing is left.
    fn finish(mut self) -> anyhow::Result<Outcome> {
        const WITHIN: Duration = Duration::from_secs(100);
        self.shard_stalled_until = Instant(0);
        self.until("the last writes", Flow::is_quiet)?;
        for flow in &mut self.flows {
            flow.remove(WITHIN, WITHIN, &mut self.stage);
        }
        self.until("the last removals", Flow::is_away)?;
        for flow in &mut self.flows {
            if let Ends::Mqtt(mqtt) = &mut flow.ends {
                mqtt.close_sink();
            }
        }
        self.until("the last sinks", |flow| match &flow.ends {
            Ends::Doors(_) => true,
            Ends::Mqtt(mqtt) => mqtt.is_sink_closed(),
        })?;
        for flow in &self.flows {
            flow.check_end(&mut self.stage)?;
        }
        Ok(self.stage.finish())
    }

    /// Goes on until all flows are as they should be.
    fn until(&mut self, what: &str, is_so: impl Fn(&Flow) -> bool) -> anyhow::Result<()> {
        let begin = self.now();
        while !self.flows.iter().all(&is_so) {
            ensure!(self.now().since(begin) < Duration::from_secs(300), "{what} never come");
            self.step().context(format!("while waiting for {what}"))?;
        }
        Ok(())
    }
}

/// Something happens at one of a flow's far ends.
fn disturb_ends(flow: &mut Flow, loss: Loss, until: Instant, stage: &mut Stage) -> anyhow::Result<()> {
    let (at_source, is_stall) = (stage.one_in(2), stage.one_in(4));
    let Ends::Mqtt(mqtt) = &mut flow.ends else {
        if let Ends::Doors(doors) = &mut flow.ends {
            stage.outcome.stalls += 1;
            doors.leave_sink(until);
        }
        return Ok(());
    };
    match (is_stall, at_source) {
        (true, true) => mqtt.stall_source(until),
        (true, false) => mqtt.stall_sink(until),
        (false, true) => return mqtt.lose_source(loss, until, &mut flow.ledger, stage),
        (false, false) => return mqtt.lose_sink(loss, until, &mut flow.ledger, stage),
    }
    stage.outcome.stalls += 1;
    Ok(())
}
