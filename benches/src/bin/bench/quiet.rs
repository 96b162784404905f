//! `quiet`: how long quiet tenants' messages take, from a source to its sink's write,
//! alone and beside ten attackers on the same shard that want all of it.

use std::{
    collections::VecDeque,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use tidegate::batch::Batch;
use tidegate_benches::{
    inside::{CONVERT, FILTER, Inside, READING, delivery, load},
    report::{Case, Hold, Report, rounds},
    site::{Link, MEMORY, PATIENT, SiteFolder, cpu_seconds},
};

pub const VICTIMS: usize = 8;
const ATTACKERS: usize = 10;
/// Between two messages of one victim.
const EVERY: Duration = Duration::from_millis(10);

/// What the attackers do.
struct Attack {
    name: &'static str,
    /// The attackers'; victims have `standard`.
    policy: &'static str,
    guest: &'static str,
    configuration: &'static [(&'static str, &'static str)],
    payload: &'static str,
    /// Messages of one delivery.
    messages: usize,
}

const ATTACKS: [Attack; 3] = [
    Attack {
        name: "endless loops",
        policy: "patient",
        guest: "hostile_attacks",
        configuration: &[("attack", "spin")],
        payload: "attack",
        messages: 8,
    },
    // Nothing but a timer stops these.
    Attack {
        name: "endless loops on the engine epoch",
        policy: "patient-epoch",
        guest: "hostile_attacks",
        configuration: &[("attack", "spin")],
        payload: "attack",
        messages: 8,
    },
    Attack {
        name: "a flood of 50 µs calls",
        policy: "patient",
        guest: "hostile_busy",
        configuration: &[("micros", "50")],
        payload: "work",
        messages: 64,
    },
];

pub fn run(quick: bool) -> anyhow::Result<Report> {
    let phase = Duration::from_secs(if quick { 2 } else { 6 });
    let mut cases = Vec::new();
    let mut scores = Vec::new();
    for attack in &ATTACKS {
        let dir = tempfile::tempdir()?;
        lay_out(dir.path(), attack)?;
        let bench = Bench::start(dir.path())?;
        let mut figures: [Vec<f64>; 4] = Default::default();
        for round in 0..rounds(quick) {
            eprintln!("{}: round {}", attack.name, round + 1);
            let alone = bench.p99(phase)?;
            let attacking = bench.attack(attack);
            // Until the attackers have all that they can get.
            bench.p99(phase / 4)?;
            let (cpu, begin) = (bench.shard_cpu()?, Instant::now());
            let beside = bench.p99(phase)?;
            figures[2].push((bench.shard_cpu()? - cpu) / begin.elapsed().as_secs_f64() * 100.0);
            attacking.stop();
            figures[0].push(alone);
            figures[1].push(beside);
            figures[3].push(beside / (2.0 * alone + 0.2));
        }
        let [alone, beside, core, score] = &figures;
        let case = |what: &str, unit, figures: &[f64]| {
            Case::median(format!("{}: {what}", attack.name), unit, figures)
        };
        cases.extend([
            case("p99 beside ÷ (2 × p99 alone + 0.2 ms)", "x", score).hold(Hold::AtMost(1.0)),
            case("p99 beside", "ms", beside).hold(Hold::AtMost(1.0)),
            case("p99 alone", "ms", alone),
            case("the shard's share of a core", "%", core).hold(Hold::AtLeast(90.0)),
        ]);
        scores.push(cases[cases.len() - 4].value);
        bench.inside.stop();
    }
    let worst = scores.into_iter().fold(0.0, f64::max);
    cases.insert(0, Case::median("the worst attack", "x", &[worst]).hold(Hold::AtMost(1.0)));
    Ok(Report { bench: "quiet", unit: "x bound", value_of: "the worst attack".into(), cases })
}

fn lay_out(dir: &Path, attack: &Attack) -> anyhow::Result<()> {
    let site = SiteFolder::new(dir, "shards: 1", MEMORY)?;
    // An attacker that were in quarantine would be none.
    site.policy("patient", &[PATIENT])?;
    site.policy("patient-epoch", &[PATIENT, "engine: epoch", "message: { time: 20ms }"])?;
    let mut names = victims(&site)?;
    for attacker in 0..ATTACKERS {
        let name = attacker_name(attacker);
        site.tenant(&name, &[Link { kind: "map", module: "attack", configuration: attack.configuration }])?;
        site.component(&name, "attack", attack.guest, None)?;
        names.push((name, attack.policy));
    }
    site.tenants_under(names.iter().map(|(name, policy)| (name.as_str(), *policy)))
}

/// Lays out the victims; gives each one's name and policy.
pub fn victims(site: &SiteFolder) -> anyhow::Result<Vec<(String, &'static str)>> {
    let mut names = Vec::new();
    for victim in 0..VICTIMS {
        let name = victim_name(victim);
        site.tenant(
            &name,
            &[
                Link { kind: "filter", module: "filter", configuration: FILTER },
                Link { kind: "map", module: "convert", configuration: CONVERT },
            ],
        )?;
        site.component(&name, "filter", "json_filter", None)?;
        site.component(&name, "convert", "unit_convert", None)?;
        names.push((name, "standard"));
    }
    Ok(names)
}

fn victim_name(index: usize) -> String {
    format!("victim{index}")
}

fn attacker_name(index: usize) -> String {
    format!("attacker{index}")
}

/// A host, and when its victims' messages began and how long they took.
pub struct Bench {
    pub inside: Inside,
    under_way: Arc<[Mutex<VecDeque<Instant>>]>,
    took: Arc<Mutex<Vec<f64>>>,
}

impl Bench {
    pub fn start(dir: &Path) -> anyhow::Result<Self> {
        let mut inside = Inside::start(dir, &dir.join(".tidegate"))?;
        let under_way: Arc<[Mutex<VecDeque<Instant>>]> = (0..VICTIMS).map(|_| Mutex::default()).collect();
        let took = Arc::<Mutex<Vec<f64>>>::default();
        let (begun, times) = (under_way.clone(), took.clone());
        inside.host().memory().watch(move |sink, batch| {
            let victim =
                sink.strip_prefix("victim").and_then(|rest| rest.split('/').next()?.parse::<usize>().ok());
            let Some(victim) = victim else { return };
            let mut begun = begun[victim].lock().expect("no panic under this lock");
            let mut times = times.lock().expect("no panic under this lock");
            for _ in 0..batch.len() {
                // A source's messages come out in the order in which they went in.
                let begin = begun.pop_front().expect("it was sent");
                times.push(begin.elapsed().as_secs_f64() * 1e3);
            }
        });
        inside.apply(&load(dir)?)?;
        Ok(Bench { inside, under_way, took })
    }

    /// Sends the victims' messages for so long; the 99th percentile, in ms.
    pub fn p99(&self, phase: Duration) -> anyhow::Result<f64> {
        let took = self.took(phase)?;
        Ok(took[(took.len() - 1) * 99 / 100])
    }

    /// Sends the victims' messages for so long; how long each took, in ms, ascending. An
    /// error if one is lost.
    pub fn took(&self, phase: Duration) -> anyhow::Result<Vec<f64>> {
        let feeds: Vec<_> = (0..VICTIMS)
            .map(|victim| self.inside.host().memory().feed(&format!("{}/flow/in", victim_name(victim))))
            .collect();
        self.took.lock().expect("no panic under this lock").clear();
        let begin = Instant::now();
        let mut sent = 0;
        while begin.elapsed() < phase {
            let victim = sent % VICTIMS;
            let due = EVERY / VICTIMS as u32 * sent as u32;
            thread::sleep(due.saturating_sub(begin.elapsed()));
            let batch = delivery(&[READING]);
            self.under_way[victim].lock().expect("no panic under this lock").push_back(Instant::now());
            feeds[victim].push(batch);
            sent += 1;
        }
        let until = Instant::now() + Duration::from_secs(30);
        let came = || self.took.lock().expect("no panic under this lock").len();
        while came() < sent {
            ensure!(Instant::now() < until, "{} of {sent} victims' messages came", came());
            thread::sleep(Duration::from_millis(1));
        }
        let mut took = self.took.lock().expect("no panic under this lock").clone();
        took.sort_by(f64::total_cmp);
        Ok(took)
    }

    /// Keeps every attacker's source full until stopped.
    fn attack(&self, attack: &Attack) -> Attacking {
        let batch = delivery(&vec![attack.payload; attack.messages]);
        keep_busy(&self.inside, (0..ATTACKERS).map(|attacker| (attacker_name(attacker), batch.clone())))
    }

    /// CPU seconds of the shard's thread.
    fn shard_cpu(&self) -> anyhow::Result<f64> {
        for task in std::fs::read_dir("/proc/self/task")? {
            let path = task?.path();
            if std::fs::read_to_string(path.join("comm")).is_ok_and(|name| name.trim() == "shard-0") {
                return cpu_seconds(&path.join("stat").display().to_string());
            }
        }
        None.context("no thread `shard-0`")
    }
}

/// Keeps the sources of tenants full of a delivery of each one's own until stopped.
pub fn keep_busy(inside: &Inside, tenants: impl Iterator<Item = (String, Batch)>) -> Attacking {
    let ends = Arc::<AtomicBool>::default();
    let feeds: Vec<_> = tenants
        .map(|(tenant, batch)| (inside.host().memory().feed(&format!("{tenant}/flow/in")), batch))
        .collect();
    let stop = ends.clone();
    let thread = thread::spawn(move || {
        while !stop.load(Ordering::SeqCst) {
            for (feed, batch) in &feeds {
                // Enough that the guests never wait, and soon over afterwards.
                while feed.unsettled() < 4 {
                    feed.push(batch.clone());
                }
            }
            thread::sleep(Duration::from_millis(1));
        }
        // What is held for good, such as in a window, is not waited for.
        let until = Instant::now() + Duration::from_secs(10);
        while feeds.iter().any(|(feed, _)| feed.unsettled() > 0) && Instant::now() < until {
            thread::sleep(Duration::from_millis(5));
        }
    });
    Attacking { ends, thread }
}

pub struct Attacking {
    ends: Arc<AtomicBool>,
    thread: thread::JoinHandle<()>,
}

impl Attacking {
    pub fn stop(self) {
        self.ends.store(true, Ordering::SeqCst);
        self.thread.join().expect("it does not panic");
    }
}
