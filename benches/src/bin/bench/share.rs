//! `fair` and `cap`: what busy tenants get of a shard, by weight, and what one gets that
//! may have no more than its rate.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tidegate_benches::{
    inside::{Inside, delivery, load},
    report::{Case, Hold, Report, rounds},
    site::{Link, MEMORY, PATIENT, SiteFolder},
};

const WEIGHTS: [u32; 3] = [1, 2, 4];

/// Tenants that are busy all the time.
struct Busy {
    inside: Inside,
    stop: Arc<AtomicBool>,
    feeder: thread::JoinHandle<()>,
}

/// A source that is kept full: its name, and what it is sent, so much at once.
struct Work {
    source: String,
    payload: &'static str,
    messages: usize,
}

impl Busy {
    fn start(dir: &Path, work: Vec<Work>) -> anyhow::Result<Self> {
        let mut inside = Inside::start(dir, &dir.join(".tidegate"))?;
        inside.apply(&load(dir)?)?;
        let feeds: Vec<_> = work
            .iter()
            .map(|work| {
                let feed = inside.host().memory().feed(&work.source);
                (feed, delivery(&vec![work.payload; work.messages]))
            })
            .collect();
        let stop = Arc::<AtomicBool>::default();
        let ends = stop.clone();
        let feeder = thread::spawn(move || {
            while !ends.load(Ordering::SeqCst) {
                for (feed, batch) in &feeds {
                    while feed.unsettled() < 4 {
                        feed.push(batch.clone());
                    }
                }
                thread::sleep(Duration::from_micros(500));
            }
        });
        Ok(Busy { inside, stop, feeder })
    }

    /// CPU seconds that a tenant was charged with so far.
    fn cpu(&self, tenant: &str) -> f64 {
        let used = self.inside.host().used(tenant).expect("it runs");
        used.cpu_ns.get() as f64 / 1e9
    }

    fn stop(self) {
        self.stop.store(true, Ordering::SeqCst);
        self.feeder.join().expect("it does not panic");
        self.inside.stop();
    }
}

/// The largest deviation of a busy tenant's share from that of its weight.
pub fn fair(quick: bool) -> anyhow::Result<Report> {
    let phase = Duration::from_secs(if quick { 3 } else { 10 });
    let mut cases = Vec::new();
    let mut worst = 0.0_f64;
    for (what, micros, messages) in [("long calls", "2000", 8), ("a flood of short calls", "50", 64)] {
        let dir = tempfile::tempdir()?;
        let site = SiteFolder::new(dir.path(), "shards: 1", MEMORY)?;
        let name = |weight: u32| format!("weight{weight}");
        for weight in WEIGHTS {
            // Promised so little that each is past it, however little of a core there is:
            // what is promised comes before weights.
            let lines = [PATIENT, "cpu: { rate: 10m, burst: 50ms }", &format!("weight: {weight}")];
            site.policy(&name(weight), &lines)?;
            let link = Link { kind: "map", module: "busy", configuration: &[("micros", micros)] };
            site.tenant(&name(weight), &[link])?;
            site.component(&name(weight), "busy", "hostile_busy", None)?;
        }
        let names = WEIGHTS.map(name);
        site.tenants_under(names.iter().map(|name| (name.as_str(), name.as_str())))?;
        let work =
            names.iter().map(|name| Work { source: format!("{name}/flow/in"), payload: "work", messages });
        let busy = Busy::start(dir.path(), work.collect())?;
        // Until what each may have at once is spent.
        thread::sleep(Duration::from_secs(3));
        let mut deviations = Vec::new();
        for _ in 0..if quick { 1 } else { rounds(true) } {
            let before = names.each_ref().map(|name| busy.cpu(name));
            thread::sleep(phase);
            let spent: Vec<f64> =
                names.iter().zip(before).map(|(name, before)| busy.cpu(name) - before).collect();
            let (all, weights) = (spent.iter().sum::<f64>(), f64::from(WEIGHTS.iter().sum::<u32>()));
            let deviation = spent.iter().zip(WEIGHTS).map(|(spent, weight)| {
                let share = f64::from(weight) / weights;
                (spent / all / share - 1.0).abs() * 100.0
            });
            deviations.push(deviation.fold(0.0, f64::max));
        }
        busy.stop();
        let case = Case::median(format!("{what}: largest deviation"), "%", &deviations);
        worst = worst.max(case.value);
        cases.push(case.hold(Hold::AtMost(5.0)));
    }
    cases.insert(0, Case::median("largest deviation", "%", &[worst]).hold(Hold::AtMost(5.0)));
    Ok(Report { bench: "fair", unit: "% of the share", value_of: "largest deviation".into(), cases })
}

/// How far a tenant with a cap strays from its rate, in any second.
pub fn cap(quick: bool) -> anyhow::Result<Report> {
    const RATE: f64 = 0.05;
    let dir = tempfile::tempdir()?;
    let site = SiteFolder::new(dir.path(), "shards: 1", MEMORY)?;
    site.policy("capped", &[PATIENT, "cpu: { rate: 50m, burst: 200ms, cap: true }"])?;
    let looping: &[_] = &[("attack", "spin")];
    let short: &[_] = &[("micros", "50")];
    let works = [
        ("loop", "hostile_attacks", looping, "attack", 4),
        ("short", "hostile_busy", short, "work", 64),
        ("calls", "aio_state_load", &[], "get k 0 500 1 10", 1),
    ];
    for (flow, guest, configuration, ..) in works {
        site.dataflow("capped", flow, &[Link { kind: "map", module: guest, configuration }])?;
        site.component("capped", guest, guest, None)?;
    }
    site.tenants_under([("capped", "capped")])?;
    let work = works.map(|(flow, _, _, payload, messages)| Work {
        source: format!("capped/{flow}/in"),
        payload,
        messages,
    });
    let busy = Busy::start(dir.path(), work.into())?;
    // Its burst is spent after a fifth of a second.
    thread::sleep(Duration::from_secs(2));
    let begin = Instant::now();
    let seconds = if quick { 5 } else { 20 };
    let mut samples = vec![(begin, busy.cpu("capped"))];
    while begin.elapsed() < Duration::from_secs(seconds) {
        thread::sleep(Duration::from_millis(50));
        samples.push((Instant::now(), busy.cpu("capped")));
    }
    busy.stop();
    let mut rates = Vec::new();
    for (index, (from, before)) in samples.iter().enumerate() {
        let second = samples[index..].iter().find(|(to, _)| *to - *from >= Duration::from_secs(1));
        if let Some((to, after)) = second {
            rates.push((after - before) / (*to - *from).as_secs_f64());
        }
    }
    let deviations: Vec<f64> = rates.iter().map(|rate| (rate / RATE - 1.0).abs() * 100.0).collect();
    let worst = deviations.iter().copied().fold(0.0, f64::max);
    let milli: Vec<f64> = rates.iter().map(|rate| rate * 1e3).collect();
    let value_of = "largest deviation in any second";
    Ok(Report {
        bench: "cap",
        unit: "% of the rate",
        value_of: value_of.into(),
        cases: vec![
            Case::median(value_of, "%", &[worst]).hold(Hold::AtMost(10.0)),
            Case::median("thousandths of a core in a second", "m", &milli),
        ],
    })
}
