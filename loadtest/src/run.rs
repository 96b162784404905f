//! A run: lays out, starts, loads phase by phase, and sums up. Whatever happens, all
//! that it started is stopped.

mod beside;
mod load;
mod stage;

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use anyhow::{bail, ensure};

use self::{load::Load, stage::Stage};
use crate::{
    attack::Attack,
    connector::Connector,
    ledger::{PhaseId, Tally},
    progress::Progress,
    scenario::{Beside, Scenario, Tenants, quiet_names},
    scorecard::{
        BesideRecord, Figures, Mark, Memory, Pair, Row, SCHEMA, ScenarioSummary, Scorecard, TimelineRecord,
        checks, rounded,
    },
    site,
};

/// What a run is given beside its scenario.
pub struct Options {
    /// The broker of a host that runs already.
    pub against: Option<String>,
    pub guests: PathBuf,
    pub attacks: Vec<Attack>,
    /// Set by Ctrl-C.
    pub stop: Arc<AtomicBool>,
    pub quiet: bool,
    /// Keep the temporary folder and say where it is.
    pub keep: bool,
}

/// Runs a scenario. An error means that nothing was measured.
pub fn run(scenario: &Scenario, options: Options) -> anyhow::Result<Scorecard> {
    let started_at = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let mut progress = Progress::new(options.quiet);
    let mut stage = Stage::set(scenario, &options, &mut progress)?;
    let load = Load::start(scenario, &mut stage, options.stop.clone(), progress)?;
    let mut run = Run {
        scenario,
        options: &options,
        stage,
        load,
        rows: Vec::new(),
        first: None,
        alone: None,
        beside: None,
        marks: Vec::new(),
        before: 0,
    };
    let ended = run.play();
    run.sum_up(started_at, ended)
}

/// The attacks of a list that are named, or all but variants of others.
pub fn chosen<'a>(attacks: &'a [Attack], only: &'a [String]) -> impl Iterator<Item = &'a Attack> {
    attacks.iter().filter(move |attack| match only {
        [] => attack.like.is_none(),
        only => only.contains(&attack.name),
    })
}

/// What cannot be done, before anything is started: attacks that are not there, or to a host
/// that is not ours.
pub fn refuse(scenario: &Scenario, options: &Options) -> anyhow::Result<()> {
    if let Some(Beside::Attacks { only, .. }) = &scenario.beside {
        for name in only {
            ensure!(
                options.attacks.iter().any(|attack| attack.name == *name),
                "there is no attack `{name}`: {}",
                options.attacks.iter().map(|attack| attack.name.as_str()).collect::<Vec<_>>().join(", ")
            );
        }
    }
    if options.against.is_none() {
        return Ok(());
    }
    refuse_other_host(scenario)?;
    let what = match (&scenario.beside, &scenario.tenants) {
        (Some(Beside::Deploys { .. }), _) => "deploys tenants",
        (Some(Beside::KillHost { .. }), _) => "kills its host",
        (Some(Beside::RestartBroker { .. }), _) => "restarts its broker",
        (_, Tenants::Steps(_)) => "deploys tenants step by step",
        _ => return Ok(()),
    };
    bail!("`{}` {what}, which needs a host of its own: run it without `--against`", scenario.name)
}

/// What cannot be done to a host that is not ours, nor be written for one.
pub fn refuse_other_host(scenario: &Scenario) -> anyhow::Result<()> {
    ensure!(
        scenario.connector != Connector::Http,
        "`{}` runs over HTTP, where the host's webhooks must find this program: have it start the host, or \
         take another connector",
        scenario.name
    );
    Ok(())
}

struct Run<'a> {
    scenario: &'a Scenario,
    options: &'a Options,
    stage: Stage,
    load: Load<'a>,
    rows: Vec<Row>,
    /// What the first messages came to, and all phases without and with what is beside.
    first: Option<Tally>,
    alone: Option<Tally>,
    beside: Option<Tally>,
    marks: Vec<Mark>,
    /// The host's memory once it was warm.
    before: u64,
}

/// A phase that ran.
struct Ran {
    phase: PhaseId,
    cpu: Option<f64>,
}

/// All that makes up a row.
#[derive(Default)]
struct Rounds {
    alone: Vec<Ran>,
    beside: Vec<Ran>,
    record: Option<BesideRecord>,
    /// Why there are no more.
    failure: Option<String>,
}

impl Rounds {
    fn happened(&mut self, record: BesideRecord) {
        match &mut self.record {
            Some(all) => all.add(record),
            None => self.record = Some(record),
        }
    }
}

impl Run<'_> {
    /// Until the end, Ctrl-C, or a failure that leaves nothing to measure.
    fn play(&mut self) -> anyhow::Result<()> {
        match (&self.scenario.tenants, &self.scenario.beside) {
            (Tenants::Steps(steps), _) => self.steps(steps),
            (Tenants::Named(names), None) => {
                self.warm_up(0, names.len())?;
                self.plain()
            }
            (Tenants::Named(names), Some(beside)) => {
                self.warm_up(0, names.len())?;
                match beside {
                    Beside::Attacks { attackers, only } => self.attacks(*attackers, only),
                    Beside::Deploys { tenants } => self.disturb(
                        "deploys",
                        "Tenants with a component that nobody had before come and go.",
                        |stage, ends| beside::deploys(stage, *tenants, ends),
                    ),
                    Beside::KillHost { every } => self.disturb(
                        "kill -9",
                        "The host is killed and goes on with what it has on disk.",
                        |stage, ends| beside::kills(stage, *every, ends),
                    ),
                    Beside::RestartBroker { every } => self.disturb(
                        "broker restart",
                        "The broker ends and comes back with its sessions.",
                        |stage, ends| beside::restarts(stage, *every, ends),
                    ),
                }
            }
        }
    }

    /// A first message for each tenant, so that nothing is measured that is not there.
    fn warm_up(&mut self, from: usize, to: usize) -> anyhow::Result<()> {
        self.load.progress.step(&format!("{} tenants: a first message each", to - from));
        self.mark("warm-up");
        let phase = self.load.warm_up(from, to)?;
        let tally = self.load.ledger().tally(phase).clone();
        add(&mut self.first, &tally);
        self.before = self.stage.settled_memory();
        self.stage.take_peak();
        Ok(())
    }

    fn plain(&mut self) -> anyhow::Result<()> {
        let mut rounds = Rounds::default();
        for _ in 0..self.scenario.rounds {
            rounds.alone.push(self.alone("load")?);
            if self.load.is_stopped() {
                break;
            }
        }
        let row = self.row("load", &self.scenario.about.clone(), rounds);
        self.rows.push(row);
        Ok(())
    }

    fn steps(&mut self, steps: &[usize]) -> anyhow::Result<()> {
        let mut there = 0;
        for &step in steps {
            if self.load.is_stopped() {
                return Ok(());
            }
            self.load.progress.step(&format!("deploying up to {step} tenants"));
            let began = Instant::now();
            self.stage.deploy_quiet(&quiet_names(step))?;
            let deployed = began.elapsed();
            self.warm_up(there, step)?;
            there = step;
            self.load.tenants = step;
            let name = format!("{step} tenants");
            let mut rounds = Rounds::default();
            for _ in 0..self.scenario.rounds {
                rounds.alone.push(self.alone(&name)?);
                if self.load.is_stopped() {
                    break;
                }
            }
            let about = format!("{:.1} s to deploy the tenants that were added.", deployed.as_secs_f64());
            let row = self.row(&name, &about, rounds);
            self.rows.push(row);
        }
        Ok(())
    }

    /// Phases alone, and beside what `beside` does, in turns.
    fn disturb(
        &mut self,
        name: &str,
        about: &str,
        beside: impl Fn(&mut Stage, &AtomicBool) -> anyhow::Result<BesideRecord> + Send + Sync,
    ) -> anyhow::Result<()> {
        let mut rounds = Rounds::default();
        for _ in 0..self.scenario.rounds {
            rounds.alone.push(self.alone("alone")?);
            if self.load.is_stopped() {
                break;
            }
            let (ran, record) = self.phase(name, &beside)?;
            rounds.beside.push(ran);
            match record {
                Ok(record) => rounds.happened(record),
                Err(error) => {
                    rounds.failure = Some(format!("{error:#}"));
                    break;
                }
            }
        }
        let row = self.row(name, about, rounds);
        self.rows.push(row);
        Ok(())
    }

    fn attacks(&mut self, attackers: usize, only: &[String]) -> anyhow::Result<()> {
        let chosen: Vec<&Attack> = chosen(&self.options.attacks, only).collect();
        for (index, attack) in chosen.iter().enumerate() {
            if self.load.is_stopped() {
                return Ok(());
            }
            if self.options.against.is_some() && attack.at.is_deploy() {
                self.load.progress.step(&format!("{}: skipped, it deploys", attack.name));
                continue;
            }
            self.load.progress.step(&format!("attack {} of {}: {}", index + 1, chosen.len(), attack.name));
            self.attack(attack, attack.deploys.unwrap_or(attackers))?;
        }
        Ok(())
    }

    fn attack(&mut self, attack: &Attack, attackers: usize) -> anyhow::Result<()> {
        let mut rounds = Rounds::default();
        for _ in 0..self.scenario.rounds {
            rounds.alone.push(self.alone("alone")?);
            if self.load.is_stopped() {
                break;
            }
            let attacked = match attack.at.is_deploy() {
                true => self.attack_by_deploys(attack, attackers, &mut rounds),
                false => self.attack_by_messages(attack, attackers, &mut rounds),
            };
            // What Ctrl-C cut short has not failed.
            if let Err(error) = attacked
                && !self.load.is_stopped()
            {
                rounds.failure = Some(format!("{error:#}"));
                // The next attack may find a host that is still there, or again.
                self.stage.recover(attack, attackers)?;
                break;
            }
        }
        let mut row = self.row(&attack.name, &attack.gets, rounds);
        row.interruptible = attack.interruptible;
        self.rows.push(row);
        Ok(())
    }

    fn attack_by_deploys(
        &mut self,
        attack: &Attack,
        attackers: usize,
        rounds: &mut Rounds,
    ) -> anyhow::Result<()> {
        let deploy =
            |stage: &mut Stage, ends: &AtomicBool| beside::attack_deploys(stage, attack, attackers, ends);
        let (ran, record) = self.phase(&attack.name, deploy)?;
        rounds.beside.push(ran);
        let record = record?;
        ensure!(record.times > 0, "nothing was deployed within {:?}", self.scenario.phase);
        let taken = record.times - record.refused;
        ensure!(taken == 0 || !attack.is_refused, "the host took {taken} of {} deploys", record.times);
        rounds.happened(record);
        Ok(())
    }

    fn attack_by_messages(
        &mut self,
        attack: &Attack,
        attackers: usize,
        rounds: &mut Rounds,
    ) -> anyhow::Result<()> {
        self.stage.deploy_attackers(attack, attackers)?;
        let address = self.stage.broker()?;
        let send = |_: &mut Stage, ends: &AtomicBool| beside::attack(attack, attackers, &address, ends);
        let (ran, record) = self.phase(&attack.name, send)?;
        rounds.beside.push(ran);
        let mut record = record?;
        if let Some(counted) = self.stage.counted(&site::attackers(attack, attackers))? {
            (record.taken, record.errors) = counted;
            ensure!(record.taken > 0, "the host took none of the {} messages of the attack", record.sent);
        }
        rounds.happened(record);
        self.stage.remove_attackers(attack, attackers)
    }

    /// One phase of the load with nothing beside it.
    fn alone(&mut self, label: &str) -> anyhow::Result<Ran> {
        let (ran, nothing) = self.phase(label, |_, _| Ok(()))?;
        nothing.map(|()| ran)
    }

    /// One phase of the load, and what became of what happened beside it.
    fn phase<T: Send>(
        &mut self,
        label: &str,
        beside: impl FnOnce(&mut Stage, &AtomicBool) -> anyhow::Result<T> + Send,
    ) -> anyhow::Result<(Ran, anyhow::Result<T>)> {
        self.mark(label);
        let cpu = self.stage.cpu_seconds();
        let began = Instant::now();
        let ends = AtomicBool::new(false);
        let (stage, load) = (&mut self.stage, &mut self.load);
        let (phase, done) = std::thread::scope(|scope| {
            let doing = scope.spawn(|| {
                let done = beside(stage, &ends);
                // No use in measuring on beside nothing.
                if done.is_err() {
                    ends.store(true, Ordering::SeqCst);
                }
                done
            });
            let phase = load.phase(label, self.scenario.phase, &ends);
            ends.store(true, Ordering::SeqCst);
            (phase, doing.join().expect("it does not panic"))
        });
        let phase = phase?;
        let seconds = began.elapsed().as_secs_f64();
        // A host that was killed counts from 0 again.
        let cpu = cpu.zip(self.stage.cpu_seconds()).map(|(from, to)| (to - from) / seconds);
        let tally = self.load.drain(phase, self.scenario.patience)?;
        let of = if label == "alone" || self.scenario.beside.is_none() {
            &mut self.alone
        } else {
            &mut self.beside
        };
        add(of, &tally);
        // A host that is gone is why the rest failed.
        let done = self.stage.check().and(done);
        Ok((Ran { phase, cpu: cpu.filter(|cpu| *cpu >= 0.0) }, done))
    }

    fn row(&mut self, name: &str, about: &str, rounds: Rounds) -> Row {
        let peak_bytes = self.stage.take_peak();
        let after_bytes = self.stage.settled_memory();
        let ledger = self.load.ledger();
        let figures = |ran: &[Ran]| {
            let rounds: Vec<_> = ran.iter().map(|ran| (ledger.tally(ran.phase).clone(), ran.cpu)).collect();
            Figures::of(&rounds)
        };
        let quiet = Pair { alone: figures(&rounds.alone), beside: figures(&rounds.beside) };
        let ratio = quiet.alone.as_ref().zip(quiet.beside.as_ref());
        let ratio = ratio.map(|(alone, beside)| rounded(beside.p99_ms / alone.p99_ms.max(0.001)));
        let memory =
            Memory { before_bytes: self.before, peak_bytes: peak_bytes.max(after_bytes), after_bytes };
        Row {
            name: name.to_owned(),
            about: about.to_owned(),
            interruptible: true,
            quiet,
            ratio,
            memory: self.stage.is_ours().then_some(memory),
            beside: rounds.record,
            failure: rounds.failure,
        }
    }

    fn mark(&mut self, label: &str) {
        let second = rounded(self.load.now().as_secs_f64());
        self.marks.push(Mark { second, label: label.to_owned() });
    }

    /// The scorecard of what ran. What went wrong is part of it, unless nothing ran.
    fn sum_up(mut self, started_at: String, ended: anyhow::Result<()>) -> anyhow::Result<Scorecard> {
        let stopped = self.load.is_stopped();
        if let Err(error) = ended {
            if self.rows.is_empty() && !stopped {
                return Err(error);
            }
            let failed = Rounds { failure: Some(format!("{error:#}")), ..Rounds::default() };
            let row = self.row("the run", "It ended before its scenario did.", failed);
            self.rows.push(row);
        }
        let after_bytes = self.stage.settled_memory();
        let peak_bytes = self.rows.iter().filter_map(|row| row.memory).map(|memory| memory.peak_bytes).max();
        let memory =
            Memory { before_bytes: self.before, peak_bytes: peak_bytes.unwrap_or(after_bytes), after_bytes };
        let figures =
            |tally: &Option<Tally>| tally.as_ref().and_then(|tally| Figures::of(&[(tally.clone(), None)]));
        let overall = Pair { alone: figures(&self.alone), beside: figures(&self.beside) };
        let mut ledger = self.load.ledger();
        let mut scorecard = Scorecard {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            scenario: ScenarioSummary {
                name: self.scenario.name.clone(),
                about: self.scenario.about.clone(),
                seed: self.scenario.seed,
                phase_seconds: self.scenario.phase.as_secs_f64(),
                tenants: self.scenario.tenants.names().len(),
            },
            started_at,
            seconds: rounded(self.load.now().as_secs_f64()),
            interrupted: stopped,
            setup: self.stage.setup().clone(),
            rows: std::mem::take(&mut self.rows),
            overall,
            first_messages: figures(&self.first),
            unexpected: ledger.unexpected(),
            memory: self.stage.is_ours().then_some(memory),
            timeline: TimelineRecord {
                width_seconds: ledger.timeline.width(),
                buckets: ledger.timeline.buckets().to_vec(),
                marks: std::mem::take(&mut self.marks),
            },
            checks: Vec::new(),
            holds: false,
        };
        drop(ledger);
        scorecard.checks = checks(&scorecard, &self.scenario.thresholds);
        scorecard.holds = scorecard.checks.iter().all(|check| check.holds);
        Ok(scorecard)
    }
}

fn add(sum: &mut Option<Tally>, tally: &Tally) {
    match sum {
        Some(sum) => sum.add(tally),
        None => *sum = Some(tally.clone()),
    }
}

/// Waits a little, unless it is over.
fn pause(ends: &AtomicBool, time: Duration) {
    let until = Instant::now() + time;
    while !ends.load(Ordering::SeqCst) {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        std::thread::sleep(left.min(Duration::from_millis(20)));
    }
}
