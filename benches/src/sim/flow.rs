//! `Flow`: one tenant's dataflow of a simulation between its far ends: how it is
//! installed, stopped, drained and removed, as the host does it.

use std::{sync::Arc, time::Duration};

use anyhow::ensure;
use rand::Rng as _;
use tidegate::{
    clock::Instant,
    dataflow::{
        plan::Plan,
        shard::{Command, DataflowId, Removed},
    },
    resource::Limits,
    tenant::Tenant,
    write::SinkQueue,
};
use tokio::sync::oneshot;

use super::{
    doors::Doors,
    ledger::{Character, Ledger},
    mqtt::Mqtt,
    stage::Stage,
};
use crate::rig::{Rig, Running, patient};

/// See the module.
pub(super) struct Flow {
    pub ledger: Ledger,
    pub ends: Ends,
    plan: Arc<Plan>,
    phase: Phase,
    /// Messages that have not come to their end, and since when as many.
    left: usize,
    left_since: Instant,
}

pub(super) enum Ends {
    Doors(Box<Doors>),
    Mqtt(Box<Mqtt>),
}

/// ```text
/// Running ─► Stopping ─► Removing ─► Away ─► Running
///    └──────── a panic took it ───────┘
/// ```
enum Phase {
    Running(DataflowId),
    /// Its source ends, or time is up.
    Stopping {
        dataflow: DataflowId,
        until: Instant,
        drain: Duration,
    },
    Removing(oneshot::Receiver<Removed>),
    Away {
        until: Instant,
    },
}

/// A flow that gets nowhere for as long has lost a message or a wake-up: brokers are
/// away for 20 s at most, and sessions wait up to 30 s before they come back.
const STUCK_AFTER: Duration = Duration::from_secs(200);
/// How often to look whether a removal is through.
const LOOK_EVERY: Duration = Duration::from_micros(100);

impl Flow {
    /// The `index`th of a run.
    pub fn new(rig: &Rig, index: usize, messages: usize, has_brokers: bool, stage: &mut Stage) -> Self {
        let character = Character::ALL[index % Character::ALL.len()];
        let limits = patient(Limits {
            weight: stage.rng.random_range(1..4),
            inflight_bytes_max: stage.rng.random_range(4_000..40_000),
            message_fuel_max: 300_000,
            ..Limits::default()
        });
        let name = format!("t{index}");
        let tenant = Tenant::new(name.clone(), limits);
        let sink = SinkQueue::new(stage.rng.random_range(2_000..100_000));
        let mut plan = rig.plan(&tenant, &name, character.links(), sink.clone());
        let is_in_order = has_brokers || stage.one_in(2);
        Arc::get_mut(&mut plan).expect("nobody else has it").sources[0].is_in_order = is_in_order;
        let ends = if has_brokers {
            Ends::Mqtt(Box::new(Mqtt::new(&name, messages, sink, stage)))
        } else {
            Ends::Doors(Box::new(Doors::new(messages, sink)))
        };
        let mut ledger = Ledger::new(name, character, messages, has_brokers, stage);
        ledger.is_in_order = is_in_order;
        let phase = Phase::Away { until: Instant(0) };
        Flow { ledger, ends, plan, phase, left: messages, left_since: Instant(0) }
    }

    /// Messages that have not come to their end.
    pub fn left(&self) -> usize {
        self.left
    }

    pub fn is_running(&self) -> bool {
        matches!(self.phase, Phase::Running(_))
    }

    pub fn is_away(&self) -> bool {
        matches!(self.phase, Phase::Away { .. })
    }

    pub fn is_quiet(&self) -> bool {
        match &self.ends {
            Ends::Doors(doors) => doors.is_quiet(),
            Ends::Mqtt(mqtt) => mqtt.is_quiet(),
        }
    }

    /// When to step again.
    pub fn due(&self, now: Instant) -> Option<Instant> {
        let phase = match &self.phase {
            Phase::Running(_) => None,
            // With nothing left it stays away.
            Phase::Away { until } => (self.left > 0).then_some(*until),
            Phase::Stopping { until, .. } => Some(*until),
            Phase::Removing(_) => Some(now.plus(LOOK_EVERY)),
        };
        let ends = match &self.ends {
            Ends::Doors(doors) => doors.due(now),
            Ends::Mqtt(mqtt) => mqtt.due(now),
        };
        [phase, ends].into_iter().flatten().min()
    }

    pub fn step(&mut self, rig: &mut Rig, stage: &mut Stage) -> anyhow::Result<()> {
        self.change_phase(rig, stage)?;
        self.left = match &mut self.ends {
            Ends::Doors(doors) => {
                doors.step(&mut self.ledger, stage)?;
                doors.left()
            }
            Ends::Mqtt(mqtt) => {
                mqtt.step(&mut self.ledger, stage)?;
                mqtt.left(&self.ledger)
            }
        };
        Ok(())
    }

    /// No starvation: whoever has something to do gets on with it.
    pub fn check_progress(&mut self, left_before: usize, now: Instant) -> anyhow::Result<()> {
        if self.left != left_before || self.left == 0 {
            self.left_since = now;
        }
        let (name, left) = (&self.ledger.name, self.left);
        let idle = now.since(self.left_since);
        ensure!(idle < STUCK_AFTER, "{left} messages of {name} get nowhere: something is lost or starved");
        Ok(())
    }

    fn change_phase(&mut self, rig: &mut Rig, stage: &mut Stage) -> anyhow::Result<()> {
        if self.is_running() && self.is_abandoned() {
            // A panic took it: started again, as an administrator would.
            self.close(Removed::Abandoned, stage)?;
            self.phase = Phase::Away { until: stage.now };
        }
        match &mut self.phase {
            Phase::Running(_) => {}
            Phase::Stopping { dataflow, until, drain } => {
                let (dataflow, is_late, drain) = (*dataflow, *until <= stage.now, *drain);
                let has_stopped = self.has_stopped();
                if has_stopped || is_late {
                    let drain = if has_stopped { drain } else { Duration::ZERO };
                    let (reply, removed) = oneshot::channel();
                    rig.door.send(Command::Remove { dataflow, drain, reply });
                    self.phase = Phase::Removing(removed);
                }
            }
            Phase::Removing(removed) => {
                if let Ok(removed) = removed.try_recv() {
                    self.close(removed, stage)?;
                    stage.outcome.removals += 1;
                    stage.note(("removed", &self.ledger.name, removed == Removed::Drained));
                    self.phase = Phase::Away { until: stage.after(0..50_000) };
                }
            }
            Phase::Away { until } if *until <= stage.now && self.left > 0 => self.install(rig, stage),
            Phase::Away { .. } => {}
        }
        Ok(())
    }

    fn install(&mut self, rig: &mut Rig, stage: &mut Stage) {
        let Running { id, source, .. } = rig.start(self.plan.clone());
        match &mut self.ends {
            Ends::Doors(doors) => doors.open(source),
            Ends::Mqtt(mqtt) => mqtt.open(source, stage),
        }
        stage.outcome.installs += 1;
        stage.note(("install", &self.ledger.name));
        self.phase = Phase::Running(id);
    }

    /// Takes nothing more from its source, and goes once it is empty or time is up.
    pub fn remove(&mut self, within: Duration, drain: Duration, stage: &mut Stage) {
        let Phase::Running(dataflow) = self.phase else { return };
        match &mut self.ends {
            Ends::Doors(doors) => doors.stop(),
            Ends::Mqtt(mqtt) => mqtt.stop(),
        }
        stage.note(("remove", &self.ledger.name));
        self.phase = Phase::Stopping { dataflow, until: stage.now.plus(within), drain };
    }

    fn has_stopped(&self) -> bool {
        match &self.ends {
            Ends::Doors(_) => true,
            Ends::Mqtt(mqtt) => mqtt.has_stopped(),
        }
    }

    fn is_abandoned(&self) -> bool {
        match &self.ends {
            Ends::Doors(doors) => doors.is_abandoned(),
            Ends::Mqtt(mqtt) => mqtt.has_stopped(),
        }
    }

    fn close(&mut self, removed: Removed, stage: &mut Stage) -> anyhow::Result<()> {
        match &mut self.ends {
            Ends::Doors(doors) => doors.close(removed, &self.ledger, stage),
            Ends::Mqtt(mqtt) => mqtt.close(removed, &mut self.ledger, stage),
        }
    }

    /// All is over: nothing may be left, and everything must have had its fate.
    pub fn check_end(&self, stage: &mut Stage) -> anyhow::Result<()> {
        let held = self.plan.tenant.ledger.bytes_in_flight();
        ensure!(held == 0, "{held} bytes of credit of {} did not come back", self.ledger.name);
        if let Ends::Mqtt(mqtt) = &self.ends {
            ensure!(mqtt.is_sink_closed(), "the sink of {} does not end", self.ledger.name);
        }
        stage.outcome.deliveries += self.plan.stats.settled.get();
        stage.outcome.faults += self.plan.operators().map(|it| it.stats.faults.get()).sum::<u64>();
        self.ledger.check_end(stage)
    }
}
