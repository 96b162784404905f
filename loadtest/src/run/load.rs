//! The quiet tenants' load: sends what is due when it is due, whatever the host does,
//! and keeps the ledger of it.

use std::{
    num::NonZero,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, ensure};
use rand::{Rng as _, SeedableRng as _, rngs::SmallRng};

use super::stage::{Stage, Watch};
use crate::{
    client::{Publisher, Take},
    ledger::{Ledger, PhaseId, Tally},
    payload::Fill,
    progress::Progress,
    receiver::Receiver,
    scenario::{IdIn, Scenario},
    schedule::{Schedule, Shape},
    sender::Sender,
    site::topic,
    spread::Draw,
};

/// The user property that holds an id.
pub const ID_PROPERTY: &str = "loadtest-id";
/// Most messages that are written at once.
const BATCH: usize = 128;
/// First messages a second: a host that makes instances for thousands of tenants is not
/// to be buried under them.
const WARM_UP_RATE: f64 = 500.0;
/// How long what is under way is waited for once the run was stopped.
const PATIENCE_WHEN_STOPPED: Duration = Duration::from_secs(3);

pub struct Load<'a> {
    scenario: &'a Scenario,
    began: Instant,
    ledger: Arc<Mutex<Ledger>>,
    sender: Sender,
    receiver: Receiver,
    names: Vec<String>,
    inputs: Vec<String>,
    /// Of those, so many are there.
    pub tenants: usize,
    rng: SmallRng,
    stop: Arc<AtomicBool>,
    pub progress: Progress,
    _watch: Watch,
}

impl<'a> Load<'a> {
    pub fn start(
        scenario: &'a Scenario,
        stage: &mut Stage,
        stop: Arc<AtomicBool>,
        progress: Progress,
    ) -> anyhow::Result<Self> {
        // Not of the seed: what an earlier run left at a broker must not count.
        let nonce: u32 = rand::rng().random();
        let names = scenario.tenants.names();
        let outputs = names.iter().map(|name| topic(&scenario.topics.output, name));
        let ledger = Arc::new(Mutex::new(Ledger::new(nonce, outputs)));
        let began = Instant::now();
        let watch = stage.watch(ledger.clone(), began);
        let arrivals = Arrivals { ledger: ledger.clone(), began, held: Vec::new() };
        let receiver = stage.receiver(scenario, &format!("loadtest-{nonce:08x}-sub"), arrivals)?;
        let sender = stage.sender(&format!("loadtest-{nonce:08x}-pub"), stop.clone())?;
        // Sleeps end when they should, not up to 50 µs later.
        let _ = rustix::thread::set_current_timer_slack(NonZero::new(1));
        Ok(Load {
            scenario,
            began,
            ledger,
            sender,
            receiver,
            inputs: names.iter().map(|name| stage.input(scenario, name)).collect(),
            tenants: names.len(),
            names,
            rng: SmallRng::seed_from_u64(scenario.seed),
            stop,
            progress,
            _watch: watch,
        })
    }

    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().expect("no panic under this lock")
    }

    /// Since the run began.
    pub fn now(&self) -> Duration {
        self.began.elapsed()
    }

    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// A message for each of some tenants. An error if nothing comes of any.
    pub fn warm_up(&mut self, from: usize, to: usize) -> anyhow::Result<PhaseId> {
        let length = Duration::from_secs_f64((to - from) as f64 / WARM_UP_RATE);
        let schedule = Schedule::new(Shape::Constant { rate: WARM_UP_RATE }, length, 0);
        let mut next = from..to;
        let phase = self.send("first messages", schedule, length, &AtomicBool::new(false), || next.next())?;
        let tally = self.drain(phase, self.scenario.patience)?;
        if tally.came == 0 && !self.is_stopped() {
            let output = topic(&self.scenario.topics.output, &self.names[from]);
            anyhow::bail!(
                "nothing that was sent to `{}` came out on `{output}` within {:?}: does a site with these \
                 tenants run (`tidegate-loadtest site` writes one), and do its operators take these payloads?",
                self.inputs[from],
                self.scenario.patience
            );
        }
        Ok(phase)
    }

    /// Sends for as long as a phase takes; `ends` is set when something beside it fails.
    pub fn phase(&mut self, label: &str, length: Duration, ends: &AtomicBool) -> anyhow::Result<PhaseId> {
        // Each phase of a run is another piece of the same random sequence.
        let seed = self.rng.random();
        let schedule = Schedule::new(self.scenario.arrivals, length, seed);
        let mut draw = Draw::new(self.scenario.spread, self.tenants, self.rng.random());
        self.send(label, schedule, length, ends, || Some(draw.tenant()))
    }

    fn send(
        &mut self,
        label: &str,
        schedule: Schedule,
        length: Duration,
        ends: &AtomicBool,
        mut tenant: impl FnMut() -> Option<usize>,
    ) -> anyhow::Result<PhaseId> {
        let phase = self.ledger().begin_phase();
        let begin_ns = self.now_ns();
        let mut schedule = schedule.peekable();
        while !self.is_stopped() && !ends.load(Ordering::SeqCst) {
            let since = self.now_ns() - begin_ns;
            for _ in 0..BATCH {
                let Some(due) = schedule.next_if(|due| *due <= since) else { break };
                let Some(tenant) = tenant() else { break };
                self.send_one(phase, tenant, begin_ns + due)?;
            }
            self.sender.flush()?;
            let Some(due) = schedule.peek() else { break };
            let left = due.saturating_sub(self.now_ns() - begin_ns);
            // Often enough to see that it is over.
            thread::sleep(Duration::from_nanos(left).min(Duration::from_millis(50)));
            self.tick(label, phase, Duration::from_nanos(since), length);
        }
        Ok(phase)
    }

    fn send_one(&mut self, phase: PhaseId, tenant: usize, due_ns: u64) -> anyhow::Result<()> {
        let (sequence, id) =
            self.ledger.lock().expect("no panic under this lock").send(phase, tenant, due_ns);
        let mut payload = Vec::new();
        let fill = Fill { id: &id, tenant: &self.names[tenant], time: SystemTime::now() };
        self.scenario.payloads.push(sequence, &fill, &mut self.rng, &mut payload);
        let property = [(ID_PROPERTY, id.as_str())];
        let properties = if self.scenario.id == IdIn::Property { &property[..] } else { &[] };
        self.sender.send(&self.inputs[tenant], properties, &payload)
    }

    /// Waits for what is under way, as long as that may take.
    pub fn drain(&mut self, phase: PhaseId, patience: Duration) -> anyhow::Result<Tally> {
        let began = Instant::now();
        let left = |stopped: bool| {
            let patience = if stopped { patience.min(PATIENCE_WHEN_STOPPED) } else { patience };
            patience.saturating_sub(began.elapsed())
        };
        // In short turns, so that Ctrl-C is seen.
        while self.sender.finish(left(self.is_stopped()).min(Duration::from_millis(200))) > 0 {
            if left(self.is_stopped()).is_zero() {
                break;
            }
        }
        let refused = self.sender.refused();
        ensure!(refused == 0, "the broker refused {refused} messages");
        loop {
            let lost = self.ledger().tally(phase).lost();
            if lost == 0 || left(self.is_stopped()).is_zero() {
                return Ok(self.ledger().tally(phase).clone());
            }
            self.receiver.check()?;
            thread::sleep(Duration::from_millis(5));
            self.progress.tick(|| format!("waiting for {lost} messages"));
        }
    }

    fn tick(&mut self, label: &str, phase: PhaseId, since: Duration, length: Duration) {
        let ledger = &self.ledger;
        self.progress.tick(|| {
            let ledger = ledger.lock().expect("no panic under this lock");
            let tally = ledger.tally(phase);
            format!(
                "{label}: {:.0} of {:.0} s, {} sent, {} under way, p99 {:.2} ms",
                since.as_secs_f64(),
                length.as_secs_f64(),
                tally.sent,
                tally.lost(),
                tally.latency_us.value_at_quantile(0.99) as f64 / 1e3
            )
        });
    }

    fn now_ns(&self) -> u64 {
        self.began.elapsed().as_nanos() as u64
    }
}

/// What comes out, on its way to the ledger: all that was read together came at the
/// same moment.
struct Arrivals {
    ledger: Arc<Mutex<Ledger>>,
    began: Instant,
    /// Topics and the rest of messages, until the ledger is free.
    held: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Take for Arrivals {
    fn take(&mut self, topic: &[u8], rest: &[u8]) {
        self.held.push((topic.to_vec(), rest.to_vec()));
    }

    fn end(&mut self) {
        if self.held.is_empty() {
            return;
        }
        let now_ns = self.began.elapsed().as_nanos() as u64;
        let mut ledger = self.ledger.lock().expect("no panic under this lock");
        for (topic, rest) in self.held.drain(..) {
            ledger.arrive(&topic, &rest, now_ns);
        }
    }
}

/// A publisher of attacks, which nobody counts.
pub fn attacker(address: &str, stop: Arc<AtomicBool>) -> anyhow::Result<Publisher> {
    let nonce: u32 = rand::rng().random();
    Publisher::connect(address, &format!("loadtest-{nonce:08x}-attack"), stop).context("the attackers")
}
