//! `density`: memory of resident tenants and of live instances, time to install, and
//! what ten thousand neighbours cost a busy tenant.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tidegate::{clock::Clock, resource::PoolLayout};
use tidegate_benches::{
    inside::{CONVERT, FILTER, Inside, READING, delivery, load},
    mosquitto::Broker,
    report::{Case, Hold, Report, rounds},
    site::{self, Link, MEMORY, Process, SiteFolder, WITHIN, eventually},
};
use tidegate_loadtest::spread::{Draw, Spread};

use crate::dense;

/// Tenants whose two instances each fit the default pool of 6,144 slots.
const LIVE_TENANTS: usize = 3_000;
/// The least that memory is compared with.
const FEW: usize = 10;
const MANY: usize = 10_000;
const MORE: usize = 50_000;
const MQTT_TENANTS: usize = 1_000;

pub fn run(quick: bool) -> anyhow::Result<Report> {
    let dir = tempfile::tempdir()?;
    let lay_out = |name: &str, tenants: usize, distinct: u32| {
        let dir = dir.path().join(name);
        eprintln!("writing a site of {tenants} tenants");
        lay_out(&dir, MEMORY, tenants, distinct).map(|()| dir)
    };
    let few = lay_out("few", FEW, 1)?;
    let many = lay_out("many", MANY, 1)?;
    let mut cases = resident_cases(&few, &many, &lay_out, quick)?;
    cases.extend(live_cases(&few, &many, quick)?);
    let distinct = if quick { 100 } else { 2_000 };
    let diverse = lay_out("diverse", MANY, distinct)?;
    cases.extend(touched_cases("live", &diverse, &format!("{distinct} distinct components"))?);
    cases.extend(mqtt_cases(dir.path())?);
    Ok(Report { bench: "density", unit: "KiB per idle tenant", value_of: "resident at 10,000".into(), cases })
}

/// Tenants of two operators each. Of each operator's component there are so many
/// that differ in all.
fn lay_out(dir: &Path, endpoint: &str, tenants: usize, distinct: u32) -> anyhow::Result<()> {
    let site = SiteFolder::new(dir, "shards: 1", endpoint)?;
    let links = [
        Link { kind: "filter", module: "filter", configuration: FILTER },
        Link { kind: "map", module: "convert", configuration: CONVERT },
    ];
    let names: Vec<String> = (0..tenants).map(name).collect();
    for (index, name) in names.iter().enumerate() {
        let variant = |of: u32| (distinct > 1).then(|| index as u32 % (distinct / 2) * 2 + of);
        site.tenant(name, &links)?;
        site.component(name, "filter", "json_filter", variant(0))?;
        site.component(name, "convert", "unit_convert", variant(1))?;
    }
    site.tenants(names.iter().map(String::as_str))
}

pub fn name(index: usize) -> String {
    format!("t{index:05}")
}

/// A host of its own on a site: KiB, and seconds until it was ready.
fn up(site: &Path) -> anyhow::Result<(f64, f64)> {
    // Compiled beforehand: what is measured is installing.
    Process::host(site)?.stop()?;
    let begin = Instant::now();
    let host = Process::host(site)?;
    let seconds = begin.elapsed().as_secs_f64();
    let kib = host.resident_kib()?;
    host.stop()?;
    Ok((kib, seconds))
}

fn resident_cases(
    few: &Path,
    many: &Path,
    lay_out: &dyn Fn(&str, usize, u32) -> anyhow::Result<PathBuf>,
    quick: bool,
) -> anyhow::Result<Vec<Case>> {
    let (few_kib, few_seconds) = up(few)?;
    let mut sizes = vec![(MANY, many.to_owned())];
    if !quick {
        sizes.push((MORE, lay_out("more", MORE, 1)?));
    }
    let mut cases = Vec::new();
    for (tenants, site) in sizes {
        eprintln!("{tenants} resident tenants");
        let (kib, seconds) = up(&site)?;
        let added = (tenants - FEW) as f64;
        let label = if tenants == MANY { "10,000" } else { "50,000" };
        cases.extend([
            Case::median(format!("resident at {label}"), "KiB/tenant", &[(kib - few_kib) / added])
                .hold(Hold::AtMost(30.0)),
            Case::median(
                format!("start with {label}"),
                "ms/tenant",
                &[(seconds - few_seconds) / added * 1e3],
            ),
        ]);
    }
    cases.push(Case::median("host with 10 tenants", "MiB", &[few_kib / 1024.0]));
    Ok(cases)
}

/// Live instances, and a busy tenant beside ten thousand.
fn live_cases(few: &Path, many: &Path, quick: bool) -> anyhow::Result<Vec<Case>> {
    let mut beside_few = Apart::start(few)?;
    let mut beside_many = Apart::start(many)?;
    let mut ratios = Vec::new();
    for _ in 0..rounds(quick) {
        let deliveries = if quick { 2_000 } else { 20_000 };
        let cpu = |host: &mut Apart| host.figure(&format!("hot {deliveries}"), "us_per_message");
        let (few, many) = (cpu(&mut beside_few)?, cpu(&mut beside_many)?);
        ratios.push(many / few);
    }
    beside_few.stop()?;
    beside_many.stop()?;
    let ratio =
        Case::median("CPU per message at 10,000 tenants ÷ at 10", "x", &ratios).hold(Hold::AtMost(1.3));
    let mut cases = vec![ratio];
    cases.extend(touched_cases("live", many, "2 components")?);
    Ok(cases)
}

/// First as many tenants as the pool holds, then every tenant in turn.
fn touched_cases(what: &str, site: &Path, components: &str) -> anyhow::Result<Vec<Case>> {
    eprintln!("{components}: touching tenants");
    let mut host = Apart::start(site)?;
    let before = host.figure("resident", "kib")?;
    host.ask(&format!("touch 0 {LIVE_TENANTS}"))?;
    let after = host.figure("resident", "kib")?;
    let live = host.figure("census", "instances")?;
    ensure!(live == 2.0 * LIVE_TENANTS as f64, "{live} instances live");
    let all = host.ask(&format!("touch 0 {MANY}"))?;
    let failed = host.figure("census", "failed")?;
    let written = all["written"].as_f64().context("written")?;
    let seconds = all["seconds"].as_f64().context("seconds")?;
    host.stop()?;
    Ok(vec![
        Case::median(format!("{what}, {components}"), "KiB/instance", &[(after - before) / live])
            .hold(Hold::AtMost(80.0)),
        Case::median(
            format!("10,000 touched in turn, {components}: not answered"),
            "tenants",
            &[MANY as f64 - written + failed],
        )
        .hold(Hold::AtMost(0.0)),
        Case::median(
            format!("10,000 touched in turn, {components}"),
            "µs/tenant",
            &[seconds / MANY as f64 * 1e6],
        ),
    ])
}

/// Tenants with a source and a sink connection each.
fn mqtt_cases(dir: &Path) -> anyhow::Result<Vec<Case>> {
    let broker = Broker::start()?;
    let mut kib = Vec::new();
    for tenants in [FEW, MQTT_TENANTS] {
        eprintln!("{tenants} tenants on MQTT");
        let site = dir.join(format!("mqtt-{tenants}"));
        lay_out(&site, &site::mqtt(&broker.address()), tenants, 1)?;
        let host = Process::host(&site)?;
        eventually("every connection is up", || connected(&site).is_ok_and(|count| count == 2 * tenants))?;
        kib.push(host.resident_kib()?);
        host.stop()?;
    }
    let per_tenant = (kib[1] - kib[0]) / (MQTT_TENANTS - FEW) as f64;
    Ok(vec![
        Case::median("1,000 tenants, two MQTT connections each", "KiB/tenant", &[per_tenant])
            .hold(Hold::AtMost(100.0)),
    ])
}

/// Connections of a host that are up.
fn connected(site: &Path) -> anyhow::Result<usize> {
    let status = site::ask(&site.join(".tidegate"), "/status", "{}")?;
    Ok(status.to_string().matches(r#""connected""#).count())
}

/// A host inside a process of its own, so that its memory is its own.
pub struct Apart {
    child: Child,
    asks: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Apart {
    pub fn start(site: &Path) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("resident").arg(site).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let asks = child.stdin.take().context("piped")?;
        let answers = BufReader::new(child.stdout.take().context("piped")?);
        let mut apart = Apart { child, asks, answers };
        apart.ask("census")?;
        Ok(apart)
    }

    pub fn ask(&mut self, command: &str) -> anyhow::Result<Value> {
        writeln!(self.asks, "{command}")?;
        let mut line = String::new();
        ensure!(self.answers.read_line(&mut line)? > 0, "the host ended at `{command}`");
        Ok(serde_json::from_str(&line)?)
    }

    pub fn figure(&mut self, command: &str, name: &str) -> anyhow::Result<f64> {
        let answer = self.ask(command)?;
        answer[name].as_f64().with_context(|| format!("no {name} in {answer}"))
    }

    pub fn stop(mut self) -> anyhow::Result<()> {
        drop(self.asks);
        self.child.wait()?;
        Ok(())
    }
}

/// A host inside this process, that does what it is told on stdin.
#[derive(clap::Args)]
pub struct Resident {
    site: PathBuf,
}

pub fn resident(args: &Resident) -> anyhow::Result<()> {
    let site = load(&args.site)?;
    let mut inside = Inside::start(&args.site, &args.site.join(".tidegate"))?;
    let written = Arc::<AtomicU64>::default();
    let counting = written.clone();
    inside.host().memory().watch(move |_, batch| {
        counting.fetch_add(batch.len() as u64, Ordering::SeqCst);
    });
    inside.apply(&site)?;
    // What reading the site took is no part of running it.
    drop(site);
    for line in std::io::stdin().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let answer = match words.as_slice() {
            ["resident"] => json!({ "kib": site::resident_kib("/proc/self/status")? }),
            ["maps"] => json!({ "count": std::fs::read_to_string("/proc/self/maps")?.lines().count() }),
            ["census"] => census(&inside.status())?,
            ["touch", from, to] => touch(&inside, &written, from.parse()?..to.parse()?)?,
            ["spread", tenants, messages, exponent] => {
                spread_over(&inside, &written, tenants.parse()?, messages.parse()?, exponent.parse()?)?
            }
            ["hot", deliveries] => hot(&inside, &written, deliveries.parse()?)?,
            _ => anyhow::bail!("`{line}`"),
        };
        println!("{answer}");
    }
    inside.stop();
    Ok(())
}

/// Live instances, and dataflows that failed or gave a message up.
fn census(status: &Value) -> anyhow::Result<Value> {
    let list = |value: &Value, key: &str| value[key].as_array().cloned().unwrap_or_default();
    let instances: u64 = list(status, "shards").iter().filter_map(|shard| shard["instances"].as_u64()).sum();
    let dataflows = list(status, "tenants").into_iter().flat_map(|tenant| list(&tenant, "dataflows"));
    let is_well = |flow: &Value| flow["state"] == "Running" && flow["counters"]["dead"] == 0;
    let failed = dataflows.filter(|flow| !is_well(flow)).count();
    Ok(json!({ "instances": instances, "failed": failed }))
}

/// One reading to each tenant of a range.
fn touch(inside: &Inside, written: &AtomicU64, tenants: std::ops::Range<usize>) -> anyhow::Result<Value> {
    let before = written.load(Ordering::SeqCst);
    let goal = before + tenants.len() as u64;
    let begin = Instant::now();
    for tenant in tenants {
        let feed = inside.host().memory().feed(&format!("{}/flow/in", name(tenant)));
        feed.push(delivery(&[READING]));
    }
    wait_for(written, goal);
    let seconds = begin.elapsed().as_secs_f64();
    Ok(json!({ "written": written.load(Ordering::SeqCst) - before, "seconds": seconds }))
}

/// Deliveries of 64 readings to one tenant: CPU of the whole process.
fn hot(inside: &Inside, written: &AtomicU64, deliveries: u64) -> anyhow::Result<Value> {
    let feed = inside.host().memory().feed(&format!("{}/flow/in", name(0)));
    let batch = delivery(&[READING; 64]);
    let cpu = || site::cpu_seconds("/proc/self/stat");
    let before = cpu()?;
    let goal = written.load(Ordering::SeqCst) + 64 * deliveries;
    for _ in 0..deliveries {
        feed.push(batch.clone());
    }
    wait_for(written, goal);
    Ok(json!({ "us_per_message": (cpu()? - before) * 1e6 / (64 * deliveries) as f64 }))
}

/// CPU time of a message at 10,000 tenants against 10, each alone in its delivery: spread
/// over the tenants by Zipf's law, and evenly; in a dense pool with room for everybody, and
/// in the default one, where cold tenants take others' places.
pub fn spread(quick: bool) -> anyhow::Result<Report> {
    let dir = tempfile::tempdir()?;
    let messages = if quick { 20_000 } else { 100_000 };
    let mut cases = Vec::new();
    for layout in [PoolLayout::Dense, PoolLayout::Guarded] {
        let mut hosts = Vec::new();
        for tenants in [FEW, MANY] {
            let site = dir.path().join(format!("{}-{tenants}", layout.name()));
            eprintln!("writing a site of {tenants} tenants, {}", layout.name());
            match layout {
                PoolLayout::Dense => dense::lay_out(&site, layout, 2 * tenants)?,
                PoolLayout::Guarded => lay_out(&site, MEMORY, tenants, 1)?,
            }
            hosts.push(Apart::start(&site)?);
        }
        cases.extend(spread_cases(&mut hosts, layout, messages, rounds(quick))?);
        hosts.into_iter().try_for_each(Apart::stop)?;
    }
    let value_of = cases[0].name.clone();
    Ok(Report { bench: "spread", unit: "x", value_of, cases })
}

fn spread_cases(
    hosts: &mut [Apart],
    layout: PoolLayout,
    messages: u64,
    rounds: usize,
) -> anyhow::Result<Vec<Case>> {
    let mut cases = Vec::new();
    for (what, exponent) in [("Zipf 1.1", "1.1"), ("evenly", "0")] {
        let mut figures: [Vec<f64>; 3] = Default::default();
        // As after some days: there are the instances that there is room for.
        for (host, tenants) in hosts.iter_mut().zip([FEW, MANY]) {
            host.figure(&format!("touch 0 {tenants}"), "written")?;
        }
        for _ in 0..rounds {
            let mut cpu = |place: usize, tenants: usize| {
                hosts[place].figure(&format!("spread {tenants} {messages} {exponent}"), "us_per_message")
            };
            let (few, many) = (cpu(0, FEW)?, cpu(1, MANY)?);
            figures[0].push(many / few);
            figures[1].push(few);
            figures[2].push(many);
        }
        let what = format!("{what}, {}", layout.name());
        let ratio = Case::median(format!("{what}: 10,000 tenants ÷ 10"), "x", &figures[0]);
        let is_held = (layout, exponent) == (PoolLayout::Dense, "1.1");
        cases.extend([
            if is_held { ratio.hold(Hold::AtMost(2.0)) } else { ratio },
            Case::median(format!("{what}: 10 tenants"), "µs/message", &figures[1]),
            Case::median(format!("{what}: 10,000 tenants"), "µs/message", &figures[2]),
        ]);
    }
    Ok(cases)
}

/// One message a delivery, to tenants drawn by Zipf's law, or evenly with the exponent 0: CPU
/// of the host.
fn spread_over(
    inside: &Inside,
    written: &AtomicU64,
    tenants: usize,
    messages: u64,
    exponent: f64,
) -> anyhow::Result<Value> {
    let feeds: Vec<_> = (0..tenants)
        .map(|tenant| inside.host().memory().feed(&format!("{}/flow/in", name(tenant))))
        .collect();
    let mut draw = Draw::new(Spread::Zipf { exponent }, tenants, 7);
    let batch = delivery(&[READING]);
    // What this thread does, a host's would not.
    let cpu = || {
        Ok::<_, anyhow::Error>(site::cpu_seconds("/proc/self/stat")? - Clock::System.cpu_ns() as f64 / 1e9)
    };
    let before = cpu()?;
    let begun = written.load(Ordering::SeqCst);
    for sent in 0..messages {
        feeds[draw.tenant()].push(batch.clone());
        // As many under way as a busy host has, and no more.
        while sent + 1 - (written.load(Ordering::SeqCst) - begun) > 256 {
            std::thread::sleep(std::time::Duration::from_micros(50));
        }
    }
    wait_for(written, begun + messages);
    Ok(json!({ "us_per_message": (cpu()? - before) * 1e6 / messages as f64 }))
}

/// Until so much was written, or nothing was for long.
fn wait_for(written: &AtomicU64, goal: u64) {
    let mut last = (written.load(Ordering::SeqCst), Instant::now());
    while last.0 < goal && last.1.elapsed() < WITHIN / 10 {
        std::thread::sleep(std::time::Duration::from_millis(1));
        let now = written.load(Ordering::SeqCst);
        if now != last.0 {
            last = (now, Instant::now());
        }
    }
}
