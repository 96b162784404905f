//! `scorecard`: quiet tenants alone and beside each attack of the list that is made of
//! messages, from a source to its sink's write; and `leak`, what all of them leave behind.

use std::{
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use anyhow::Context;
use tidegate_benches::{
    attacks::{self, At, Attack, Kind},
    inside::{Inside, delivery, load},
    report::{self, Case, Hold, Report, rounds},
    site::{Link, MEMORY, SiteFolder, resident_kib},
};
use tidegate_loadtest::scorecard::{
    self, Check, Figures, Pair, Row, ScenarioSummary, Scorecard, Setup, TimelineRecord,
};

use crate::quiet::{Bench, VICTIMS, keep_busy, victims};

const ATTACKERS: usize = 4;
/// What a slice that nothing can interrupt may take under `standard`, in ms.
const SLICE_MS_MAX: f64 = 8.0;

/// Attacks that come with messages, through the memory connector, by one operator each.
pub fn on_messages() -> impl Iterator<Item = Attack> {
    attacks::all().into_iter().filter(|attack| {
        attack.at == At::Message
            && attack.like.is_none()
            && attack.through.is_none()
            && attack.endpoint.is_none()
            && attack.shown_by.is_none()
            && attack.operators == 1
            && attack.deploys.is_none()
            && attack.source.is_none()
            && attack.destination.is_none()
            && matches!(attack.kind, Kind::Map | Kind::Filter | Kind::Branch)
    })
}

/// Writes an attacker, whom no fault puts in quarantine: it would be none then.
pub fn attacker(site: &SiteFolder, name: &str, attack: &Attack) -> anyhow::Result<()> {
    let kind = format!("{:?}", attack.kind).to_lowercase();
    let parameters = attack.parameters();
    let link = Link { kind: &kind, module: "attack", configuration: &parameters };
    site.tenant(name, &[link])?;
    site.component(name, "attack", &attack.guest, None)
}

/// Writes the policy `name` for those who attack so.
pub fn policy(site: &SiteFolder, name: &str, attack: &Attack) -> anyhow::Result<()> {
    let mut lines = attack.policy_lines();
    lines.retain(|line| !line.starts_with("faults"));
    lines.push(tidegate_benches::site::PATIENT.to_owned());
    site.policy(name, &lines.iter().map(String::as_str).collect::<Vec<_>>())
}

pub fn batch(attack: &Attack) -> tidegate::batch::Batch {
    let payloads = attack.payloads();
    let guilty: Vec<&str> = attack.guilty().into_iter().map(|place| payloads[place].as_str()).collect();
    delivery(&guilty)
}

pub struct Score {
    attack: Attack,
    /// 99th percentiles by round, in ms.
    pub alone: Vec<f64>,
    pub beside: Vec<f64>,
    /// Each message's latency over all rounds, in ms, ascending.
    all_alone: Vec<f64>,
    all_beside: Vec<f64>,
    seconds: f64,
    longest_slice_ms: f64,
}

pub fn score(attack: Attack, quick: bool) -> anyhow::Result<Score> {
    let phase = Duration::from_secs(if quick { 1 } else { 2 });
    let dir = tempfile::tempdir()?;
    let site = SiteFolder::new(dir.path(), "shards: 1", MEMORY)?;
    policy(&site, "patient", &attack)?;
    let mut tenants = victims(&site)?;
    let attackers: Vec<String> = (0..ATTACKERS).map(|number| format!("attacker{number}")).collect();
    for name in &attackers {
        attacker(&site, name, &attack)?;
        tenants.push((name.clone(), "patient"));
    }
    site.tenants_under(tenants.iter().map(|(name, policy)| (name.as_str(), *policy)))?;
    let bench = Bench::start(dir.path())?;
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    let (mut all_alone, mut all_beside) = (Vec::new(), Vec::new());
    let p99 = |took: &[f64]| took[(took.len() - 1) * 99 / 100];
    let rounds = if quick { 1 } else { rounds(true) };
    for _ in 0..rounds {
        let took = bench.took(phase)?;
        alone.push(p99(&took));
        all_alone.extend(took);
        let attacking = {
            let batch = batch(&attack);
            keep_busy(&bench.inside, attackers.iter().map(|name| (name.clone(), batch.clone())))
        };
        // Until the attackers have all that they can get.
        bench.took(phase / 4)?;
        let took = bench.took(phase)?;
        attacking.stop();
        beside.push(p99(&took));
        all_beside.extend(took);
    }
    all_alone.sort_by(f64::total_cmp);
    all_beside.sort_by(f64::total_cmp);
    let seconds = phase.as_secs_f64() * rounds as f64;
    let longest = attackers.iter().filter_map(|name| bench.inside.host().used(name));
    let longest_slice_ms = longest.map(|used| used.longest_slice_ns.get()).max().unwrap_or(0) as f64 / 1e6;
    let ran: u64 = attackers
        .iter()
        .filter_map(|name| bench.inside.host().used(name))
        .map(|used| used.cpu_ns.get())
        .sum();
    anyhow::ensure!(ran > 0, "`{}` did not run", attack.name);
    bench.inside.stop();
    Ok(Score { attack, alone, beside, all_alone, all_beside, seconds, longest_slice_ms })
}

/// Of the attacks whose names contain `only`.
pub fn run(quick: bool, only: &str) -> anyhow::Result<Report> {
    let (started_at, begun) = (humantime::format_rfc3339_seconds(SystemTime::now()), Instant::now());
    let (mut cases, mut rows, mut checks) = (Vec::new(), Vec::new(), Vec::new());
    let (mut worst, mut all, mut measured) = (0.0_f64, [Vec::new(), Vec::new()], 0.0);
    let attacks: Vec<_> = on_messages().filter(|attack| attack.name.contains(only)).collect();
    anyhow::ensure!(!attacks.is_empty(), "no attack that comes with messages has `{only}` in its name");
    for attack in attacks {
        eprintln!("{}", attack.name);
        let score = score(attack, quick)?;
        let Score { attack, alone, beside, longest_slice_ms, .. } = &score;
        // What nothing can interrupt is waited for to its end.
        let allowance = if attack.interruptible { 0.2 } else { *longest_slice_ms };
        let scores: Vec<f64> =
            alone.iter().zip(beside).map(|(alone, beside)| beside / (2.0 * alone + allowance)).collect();
        let allowed = if attack.interruptible { "0.2 ms" } else { "longest slice" };
        let name = &attack.name;
        let bound = Case::median(format!("{name}: p99 beside ÷ (2 × p99 alone + {allowed})"), "x", &scores);
        if attack.interruptible {
            worst = worst.max(bound.value);
        }
        let most = if attack.interruptible { 1.0 } else { SLICE_MS_MAX };
        let (bound, most) = (bound.hold(Hold::AtMost(1.0)), {
            Case::median(format!("{name}: p99 beside"), "ms", beside).hold(Hold::AtMost(most))
        });
        checks.extend([("bound", &bound), ("p99", &most)].map(|(check, case)| Check {
            name: check.into(),
            row: Some(name.clone()),
            value: case.value,
            bound: match case.hold {
                Some(Hold::AtMost(bound) | Hold::AtLeast(bound)) => bound,
                None => f64::NAN,
            },
            unit: case.unit.into(),
            holds: case.holds(),
        }));
        cases.extend([
            bound,
            most,
            Case::median(format!("{name}: p99 alone"), "ms", alone),
            Case::median(format!("{name}: longest slice"), "ms", &[*longest_slice_ms]),
        ]);
        rows.push(row(&score));
        all[0].extend(score.all_alone);
        all[1].extend(score.all_beside);
        measured += score.seconds;
    }
    let [alone, beside] = all.map(|mut all| {
        all.sort_by(f64::total_cmp);
        Some(Figures::of_latencies(&all, measured))
    });
    let seconds = begun.elapsed().as_secs_f64();
    keep(rows, Pair { alone, beside }, checks, started_at.to_string(), seconds)?;
    let value_of = "the worst attack that can be interrupted";
    cases.insert(0, Case::median(value_of, "x", &[worst]).hold(Hold::AtMost(1.0)));
    Ok(Report { bench: "scorecard", unit: "x bound", value_of: value_of.into(), cases })
}

fn row(score: &Score) -> Row {
    let Score { attack, all_alone, all_beside, seconds, longest_slice_ms, .. } = score;
    let (alone, beside) =
        (Figures::of_latencies(all_alone, *seconds), Figures::of_latencies(all_beside, *seconds));
    Row {
        name: attack.name.clone(),
        about: format!("{}; longest slice {longest_slice_ms:.2} ms", attack.gets),
        interruptible: attack.interruptible,
        ratio: Some(beside.p99_ms / alone.p99_ms),
        quiet: Pair { alone: Some(alone), beside: Some(beside) },
        memory: None,
        beside: None,
        failure: None,
    }
}

/// Writes the scorecard as JSON and as a page, below `target/scorecard`.
fn keep(
    rows: Vec<Row>,
    overall: Pair,
    checks: Vec<Check>,
    started_at: String,
    seconds: f64,
) -> anyhow::Result<()> {
    let holds = checks.iter().all(|check| check.holds);
    let scorecard = Scorecard {
        schema: scorecard::SCHEMA,
        version: env!("CARGO_PKG_VERSION").into(),
        scenario: ScenarioSummary {
            name: "scorecard".into(),
            about: format!(
                "{VICTIMS} quiet tenants of 100 messages a second beside {ATTACKERS} attackers on one shard, from a \
                 source in memory to its sink's write"
            ),
            seed: 0,
            phase_seconds: seconds / rows.len().max(1) as f64,
            tenants: VICTIMS,
        },
        started_at,
        seconds,
        interrupted: false,
        setup: Setup {
            host: Some("in the bench's process".into()),
            broker: "none: memory".into(),
            cpu: report::cpu_name(),
            host_cores: Vec::new(),
            other_cores: Vec::new(),
        },
        rows,
        overall,
        first_messages: None,
        unexpected: 0,
        memory: None,
        timeline: TimelineRecord { width_seconds: 1, buckets: Vec::new(), marks: Vec::new() },
        checks,
        holds,
    };
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/scorecard");
    std::fs::create_dir_all(&target)?;
    std::fs::write(target.join("scorecard.json"), serde_json::to_string_pretty(&scorecard)?)?;
    std::fs::write(target.join("scorecard.html"), tidegate_loadtest::page::page(&scorecard))?;
    eprintln!("target/scorecard/scorecard.html and scorecard.json");
    Ok(())
}

/// Deploys and removals, and every attack, in one host: what they leave of memory, maps
/// and files.
pub fn leak(quick: bool) -> anyhow::Result<Report> {
    let dir = tempfile::tempdir()?;
    let site = SiteFolder::new(dir.path(), "shards: 1", MEMORY)?;
    victims(&site)?;
    let names: Vec<String> = (0..VICTIMS).map(|victim| format!("victim{victim}")).collect();
    site.tenants(names.iter().map(String::as_str))?;
    let mut inside = Inside::start(dir.path(), &dir.path().join(".tidegate"))?;
    inside.apply(&load(dir.path())?)?;
    let (cycles, warm) = if quick { (100, 50) } else { (1_000, 200) };
    let suite: Vec<Attack> = on_messages().collect();
    cycle(&mut inside, &site, warm, &names)?;
    attack_all(&mut inside, &site, &suite, &names)?;
    let before = Footprint::now()?;
    cycle(&mut inside, &site, cycles, &names)?;
    attack_all(&mut inside, &site, &suite, &names)?;
    let after = Footprint::now()?;
    inside.stop();
    let added = |before: f64, after: f64| (after / before - 1.0) * 100.0;
    let figures = [
        ("memory", "KiB", before.kib, after.kib),
        ("maps", "", before.maps, after.maps),
        ("files", "", before.files, after.files),
    ];
    let mut cases = Vec::new();
    let mut worst = f64::MIN;
    for (what, unit, before, after) in figures {
        let on_top = added(before, after);
        worst = worst.max(on_top);
        cases.extend([
            Case::median(format!("{what}: on top"), "%", &[on_top]).hold(Hold::AtMost(5.0)),
            Case::median(format!("{what}: before"), unit, &[before]),
            Case::median(format!("{what}: after"), unit, &[after]),
        ]);
    }
    cases.insert(0, Case::median("on top, the worst", "%", &[worst]).hold(Hold::AtMost(5.0)));
    Ok(Report { bench: "leak", unit: "%", value_of: "on top, the worst".into(), cases })
}

/// Deploys a tenant, sends it a message and removes it again, so often.
fn cycle(inside: &mut Inside, site: &SiteFolder, times: usize, victims: &[String]) -> anyhow::Result<()> {
    let guest = "comes-and-goes";
    // A folder without its Tenant would be refused.
    let (here, aside) = (site.dir().join("tenants").join(guest), site.dir().join(".aside"));
    if aside.exists() {
        std::fs::rename(&aside, &here)?;
    } else {
        site.tenant(guest, &[Link { kind: "map", module: "pass", configuration: &[] }])?;
        site.component(guest, "pass", "pass_through", None)?;
    }
    let all: Vec<&str> = victims.iter().map(String::as_str).chain([guest]).collect();
    for _ in 0..times {
        site.tenants(all.iter().copied())?;
        let read = inside.read(site.dir())?;
        inside.apply(&read)?;
        inside.host().memory().feed(&format!("{guest}/flow/in")).push(delivery(&["x"]));
        site.tenants(all[..victims.len()].iter().copied())?;
        std::fs::rename(&here, &aside)?;
        let read = inside.read(site.dir())?;
        inside.apply(&read)?;
        std::fs::rename(&aside, &here)?;
    }
    Ok(std::fs::rename(&here, &aside)?)
}

fn attack_all(
    inside: &mut Inside,
    site: &SiteFolder,
    suite: &[Attack],
    victims: &[String],
) -> anyhow::Result<()> {
    for attack in suite {
        policy(site, "patient", attack)?;
        let name = "attacker";
        attacker(site, name, attack)?;
        let tenants = victims.iter().map(|victim| (victim.as_str(), "standard")).chain([(name, "patient")]);
        site.tenants_under(tenants)?;
        inside.apply(&load(site.dir())?).with_context(|| attack.name.clone())?;
        let feed = inside.host().memory().feed(&format!("{name}/flow/in"));
        (0..20).for_each(|_| feed.push(batch(attack)));
        std::fs::remove_dir_all(site.dir().join("tenants").join(name))?;
        site.tenants(victims.iter().map(String::as_str))?;
        inside.apply(&load(site.dir())?)?;
    }
    Ok(())
}

struct Footprint {
    kib: f64,
    maps: f64,
    files: f64,
}

impl Footprint {
    fn now() -> anyhow::Result<Self> {
        let lines = std::fs::read_to_string("/proc/self/maps")?.lines().count();
        let files = std::fs::read_dir("/proc/self/fd")?.count();
        Ok(Footprint { kib: resident_kib("/proc/self/status")?, maps: lines as f64, files: files as f64 })
    }
}
