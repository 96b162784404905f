//! `crowd`: ten thousand tenants on one shard, a thousand of them through mosquitto, a few
//! of them busy and most of them nearly idle, with and without ten attackers.

use std::{
    path::Path,
    sync::{Arc, Mutex, MutexGuard, atomic::AtomicBool},
    thread,
    time::{Duration, Instant},
};

use anyhow::ensure;
use tidegate::connector::memory::Feed;
use tidegate_benches::{
    attacks::Attack,
    inside::{CONVERT, FILTER, Inside, delivery, load},
    mosquitto::Broker,
    report::{Case, Hold, Report},
    site::{self, Link, MEMORY, SiteFolder, policy_like_standard},
};
use tidegate_loadtest::{
    client::{Publisher, Subscriber, Take},
    ledger::{Ledger, PhaseId, Tally},
    spread::{Draw, Spread},
};

use crate::{
    density::name,
    quiet::keep_busy,
    scorecard::{attacker, batch, on_messages, policy},
};

const TENANTS: usize = 10_000;
/// One in so many has its source and its sink on mosquitto, the others have theirs in
/// memory.
const MQTT_EVERY: usize = 10;
/// The busiest tenants; the others are quiet.
const HOT: usize = TENANTS / 100;
const ATTACKERS: usize = 10;
/// Of the rate that the host sustains.
const LOAD: f64 = 0.3;
/// Messages under way while that is measured.
const UNDER_WAY_MAX: u64 = 1_024;
/// How long the last messages may take.
const LATE_MAX: Duration = Duration::from_secs(60);

pub fn run(quick: bool) -> anyhow::Result<Report> {
    let (rounds, phase) = if quick { (1, Duration::from_secs(8)) } else { (3, Duration::from_secs(20)) };
    let broker = Broker::start()?;
    let dir = tempfile::tempdir()?;
    eprintln!("writing a site of {TENANTS} tenants");
    let attacks: Vec<Attack> = on_messages().filter(|attack| attack.interruptible).take(ATTACKERS).collect();
    ensure!(attacks.len() == ATTACKERS, "the list has only {} such attacks", attacks.len());
    lay_out(dir.path(), &broker, &attacks)?;
    let mut crowd = Crowd::start(dir.path(), &broker)?;
    eprintln!("the rate that it sustains");
    crowd.sustained(phase / 4)?;
    let sustained = crowd.sustained(phase / 2)?;
    let rate = sustained * LOAD;
    let mut figures: [Vec<f64>; 3] = Default::default();
    let (mut lost, mut sent) = (0, 0);
    for round in 0..rounds {
        eprintln!("round {}: {rate:.0} messages a second", round + 1);
        let alone = crowd.at(rate, phase)?;
        let attackers =
            attacks.iter().enumerate().map(|(place, attack)| (attacker_name(place), batch(attack)));
        let attacking = keep_busy(&crowd.inside, attackers);
        // Until the attackers have all that they can get.
        let settling = crowd.at(rate, phase / 4)?;
        let beside = crowd.at(rate, phase)?;
        attacking.stop();
        let p99 = |took: &Took| took.quiet.latency_us.value_at_quantile(0.99) as f64 / 1e3;
        figures[0].push(p99(&beside) / p99(&alone));
        figures[1].push(p99(&alone));
        figures[2].push(p99(&beside));
        for took in [alone, settling, beside] {
            lost += took.quiet.lost() + took.others.lost();
            sent += took.quiet.sent + took.others.sent;
        }
    }
    ensure!(crowd.ledger().unexpected() == 0, "messages came where they should not");
    crowd.inside.stop();
    let [ratio, alone, beside] = &figures;
    let value_of = "quiet MQTT tenants: p99 beside ÷ p99 alone";
    let cases = vec![
        Case::median(value_of, "x", ratio).hold(Hold::AtMost(3.0)),
        Case::median("lost", "messages", &[lost as f64]).hold(Hold::AtMost(0.0)),
        Case::median("quiet MQTT tenants: p99 alone", "ms", alone),
        Case::median("quiet MQTT tenants: p99 beside", "ms", beside),
        Case::median("sustained", "messages/s", &[sustained]),
        Case::median("sent in all", "messages", &[sent as f64]),
    ];
    Ok(Report { bench: "crowd", unit: "x", value_of: value_of.into(), cases })
}

fn is_on_mqtt(tenant: usize) -> bool {
    tenant.is_multiple_of(MQTT_EVERY)
}

fn attacker_name(place: usize) -> String {
    format!("attacker{place}")
}

fn lay_out(dir: &Path, broker: &Broker, attacks: &[Attack]) -> anyhow::Result<()> {
    let endpoints =
        format!("{MEMORY}---\n{}", site::mqtt(&broker.address()).replace("name: local", "name: broker"));
    let site = SiteFolder::new(dir, "shards: 1", &endpoints)?;
    site.write("platform/policy-crowd.yaml", &policy_like_standard("crowd", &[], &["local", "broker"])?)?;
    let links = [
        Link { kind: "filter", module: "filter", configuration: FILTER },
        Link { kind: "map", module: "convert", configuration: CONVERT },
    ];
    let mut tenants = Vec::new();
    for tenant in 0..TENANTS {
        let (name, endpoint) = (name(tenant), if is_on_mqtt(tenant) { "broker" } else { "local" });
        site.tenant_on(endpoint, &name, &links)?;
        site.component(&name, "filter", "json_filter", None)?;
        site.component(&name, "convert", "unit_convert", None)?;
        tenants.push((name, "crowd".to_owned()));
    }
    for (place, attack) in attacks.iter().enumerate() {
        let policy_name = format!("patient{place}");
        policy(&site, &policy_name, attack)?;
        attacker(&site, &attacker_name(place), attack)?;
        tenants.push((attacker_name(place), policy_name));
    }
    site.tenants_under(tenants.iter().map(|(name, policy)| (name.as_str(), policy.as_str())))
}

/// What came of the messages of a phase.
struct Took {
    /// Of tenants on MQTT that are not among the busiest.
    quiet: Tally,
    others: Tally,
}

/// A host with its tenants, who sends them messages, and who counts what comes out.
struct Crowd {
    inside: Inside,
    /// Of tenants in memory.
    feeds: Vec<Option<Feed>>,
    publisher: Publisher,
    _subscriber: Subscriber,
    ledger: Arc<Mutex<Ledger>>,
    /// What the ledger's times count from.
    start: Instant,
    draw: Draw,
}

impl Crowd {
    fn start(dir: &Path, broker: &Broker) -> anyhow::Result<Self> {
        let topics = (0..TENANTS).map(|tenant| format!("{}/out/t", name(tenant)));
        let ledger = Arc::new(Mutex::new(Ledger::new(std::process::id(), topics)));
        let start = Instant::now();
        let mut inside = Inside::start(dir, &dir.join(".tidegate"))?;
        let in_memory = ledger.clone();
        inside.host().memory().watch(move |sink, batch| {
            let tenant = sink.split('/').next().unwrap_or_default();
            if tenant.starts_with("attacker") {
                return;
            }
            let topic = format!("{tenant}/out/t");
            let mut ledger = lock(&in_memory);
            let now = start.elapsed().as_nanos() as u64;
            for entry in &batch.entries {
                ledger.arrive(topic.as_bytes(), entry.payload.bytes(&batch.arena), now);
            }
        });
        inside.apply(&load(dir)?)?;
        eprintln!("connecting {} tenants", TENANTS / MQTT_EVERY);
        site::eventually("every connection is up", || {
            let connected = inside.status().to_string().matches(r#""connected""#).count();
            connected == 2 * TENANTS / MQTT_EVERY
        })?;
        let feed = |tenant| {
            (!is_on_mqtt(tenant)).then(|| inside.host().memory().feed(&format!("{}/flow/in", name(tenant))))
        };
        let feeds = (0..TENANTS).map(feed).collect();
        let heard = Heard { ledger: ledger.clone(), start };
        Ok(Crowd {
            feeds,
            publisher: Publisher::connect(&broker.address(), "crowd-load", Arc::<AtomicBool>::default())?,
            _subscriber: Subscriber::connect(&broker.address(), "crowd-count", "+/out/t", heard)?,
            inside,
            ledger,
            start,
            draw: Draw::new(Spread::Zipf { exponent: 1.1 }, TENANTS, 7),
        })
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        lock(&self.ledger)
    }

    /// Sends a message that was due at this moment of the run to a tenant that is drawn.
    fn send(&mut self, phases: &[PhaseId; 2], due: Duration) -> anyhow::Result<()> {
        let tenant = self.draw.tenant();
        let is_quiet = is_on_mqtt(tenant) && tenant >= HOT;
        let phase = phases[usize::from(!is_quiet)];
        let (_, id) = self.ledger().send(phase, tenant, due.as_nanos() as u64);
        let payload = format!(r#"{{"sensor":"{id}","temperature":70.5,"unit":"celsius-scale"}}"#);
        match &self.feeds[tenant] {
            Some(feed) => feed.push(delivery(&[&payload])),
            None => self.publisher.publish(&format!("{}/in", name(tenant)), &[], payload.as_bytes())?,
        }
        Ok(())
    }

    /// Of the messages of both phases, so many have come out.
    fn came(&self, phases: &[PhaseId; 2]) -> u64 {
        phases.iter().map(|phase| self.ledger().tally(*phase).came).sum()
    }

    /// Messages a second that come out while as many as fit are under way.
    fn sustained(&mut self, within: Duration) -> anyhow::Result<f64> {
        let phases = [(); 2].map(|()| self.ledger().begin_phase());
        let begin = Instant::now();
        let mut sent = 0;
        while begin.elapsed() < within {
            let came = self.came(&phases);
            if sent - came >= UNDER_WAY_MAX {
                thread::sleep(Duration::from_micros(200));
            }
            for _ in sent - came..UNDER_WAY_MAX {
                self.send(&phases, self.start.elapsed())?;
                sent += 1;
            }
            self.publisher.flush()?;
        }
        let rate = self.came(&phases) as f64 / begin.elapsed().as_secs_f64();
        self.settled(&phases)?;
        Ok(rate)
    }

    /// Sends at a rate for so long, whatever becomes of it.
    fn at(&mut self, rate: f64, within: Duration) -> anyhow::Result<Took> {
        let phases = [(); 2].map(|()| self.ledger().begin_phase());
        let begin = self.start.elapsed();
        let messages = (within.as_secs_f64() * rate) as u64;
        let mut sent = 0;
        while sent < messages {
            let due = begin + Duration::from_secs_f64(sent as f64 / rate);
            let now = self.start.elapsed();
            if due > now {
                self.publisher.flush()?;
                thread::sleep(due - now);
            }
            self.send(&phases, due)?;
            sent += 1;
        }
        self.publisher.flush()?;
        self.settled(&phases)
    }

    /// Waits until all messages of a phase have come, or for as long as they may take.
    fn settled(&self, phases: &[PhaseId; 2]) -> anyhow::Result<Took> {
        let until = Instant::now() + LATE_MAX;
        loop {
            let [quiet, others] = phases.map(|phase| self.ledger().tally(phase).clone());
            if quiet.lost() + others.lost() == 0 || Instant::now() > until {
                ensure!(quiet.came > 0, "nothing came to quiet tenants");
                return Ok(Took { quiet, others });
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

fn lock(ledger: &Mutex<Ledger>) -> MutexGuard<'_, Ledger> {
    ledger.lock().expect("no panic under this lock")
}

/// What the outside subscriber hears.
struct Heard {
    ledger: Arc<Mutex<Ledger>>,
    start: Instant,
}

impl Take for Heard {
    fn take(&mut self, topic: &[u8], rest: &[u8]) {
        let now = self.start.elapsed().as_nanos() as u64;
        lock(&self.ledger).arrive(topic, rest, now);
    }

    fn end(&mut self) {}
}
