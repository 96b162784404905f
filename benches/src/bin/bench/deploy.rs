//! `deploy`: from an accepted `apply` to the first sink write, for a component that
//! is compiled on disk and not in memory; and instantiation alone against bare
//! wasmtime.

use std::{
    path::Path,
    sync::{Arc, Mutex, mpsc},
    time::{Duration, Instant},
};

use tidegate::{dataflow::shard::Command, guest::OperatorKind, resource::EngineKind};
use tidegate_benches::{
    bare::BareStart,
    inside::{FILTER, Inside, READING, delivery, load},
    report::{Case, Hold, Report, rounds},
    rig::{Rig, guest_path, tenant},
    site::{Link, MEMORY, SiteFolder, WITHIN},
};
use tokio::sync::oneshot;

pub fn run(quick: bool) -> anyhow::Result<Report> {
    let dir = tempfile::tempdir()?;
    let tenants = if quick { 50 } else { 200 };
    let Deploys { times, unchanged, read, read_all } = deploys(dir.path(), tenants)?;
    let (host, bare, ratios) = starts(quick)?;
    let mut sorted = times.clone();
    sorted.sort_by(f64::total_cmp);
    let p99 = sorted[(sorted.len() - 1) * 99 / 100];
    Ok(Report {
        bench: "deploy",
        unit: "ms",
        value_of: "apply to first sink write, p99".into(),
        cases: vec![
            Case::median("apply to first sink write, p99", "ms", &[p99]).hold(Hold::AtMost(5.0)),
            Case::median("apply to first sink write", "ms", &times),
            Case::median("an apply that changes nothing, a tenant", "µs", &unchanged),
            Case::median("reading a site that has not changed, a tenant", "µs", &read),
            Case::median("reading all of a site, a tenant", "µs", &read_all),
            Case::median("instance and init, host ÷ bare", "x", &ratios).hold(Hold::AtMost(1.2)),
            Case::median("instance and init, host", "µs", &host),
            Case::median("instance and init, bare", "µs", &bare),
        ],
    })
}

fn name(index: usize) -> String {
    format!("t{index:03}")
}

struct Deploys {
    /// ms until the first message is written.
    times: Vec<f64>,
    /// µs a tenant that an apply takes when nothing has changed, reading the site for
    /// it, and reading the site as if it were new.
    unchanged: Vec<f64>,
    read: Vec<f64>,
    read_all: Vec<f64>,
}

/// Adds one tenant after the other to a running host, each with a component of its
/// own that is compiled already; then applies the same site again and again.
fn deploys(dir: &Path, tenants: usize) -> anyhow::Result<Deploys> {
    let site = SiteFolder::new(dir, "shards: 1", MEMORY)?;
    let names: Vec<String> = (0..tenants).map(name).collect();
    for (index, name) in names.iter().enumerate() {
        site.tenant(name, &[Link { kind: "filter", module: "filter", configuration: FILTER }])?;
        site.component(name, "filter", "json_filter", Some(index as u32))?;
    }
    // The folder with these tenants and no others.
    let upto = |count: usize| -> anyhow::Result<()> {
        site.tenants(names[..count].iter().map(String::as_str))?;
        // A tenant's folder without its tenant would be an error.
        let hidden = dir.join(".later");
        std::fs::create_dir_all(&hidden)?;
        for (index, name) in names.iter().enumerate() {
            let (here, there) = (dir.join("tenants").join(name), hidden.join(name));
            let (from, to) = if index < count { (there, here) } else { (here, there) };
            if from.exists() {
                std::fs::rename(from, to)?;
            }
        }
        Ok(())
    };
    let data = dir.join(".tidegate");
    eprintln!("compiling {tenants} components");
    site.tenants(names.iter().map(String::as_str))?;
    let mut first = Inside::start(dir, &data)?;
    upto(tenants)?;
    first.apply(&load(dir)?)?;
    first.stop();
    let mut inside = Inside::start(dir, &data)?;
    upto(0)?;
    inside.apply(&inside.read(dir)?)?;
    let (tx, rx) = mpsc::channel();
    let tx = Mutex::new(tx);
    inside.host().memory().watch(move |_, _| {
        let tx = tx.lock().expect("no panic under this lock");
        // The bench may have ended.
        let _ = tx.send(Instant::now());
    });
    let mut times = Vec::new();
    for count in 1..=tenants {
        upto(count)?;
        let site = inside.read(dir)?;
        inside.host().memory().feed(&format!("{}/flow/in", names[count - 1])).push(delivery(&[READING]));
        let begin = Instant::now();
        inside.apply(&site)?;
        let written = rx.recv_timeout(WITHIN)?;
        times.push((written - begin).as_secs_f64() * 1e3);
    }
    let (mut unchanged, mut read, mut read_all) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..100 {
        let begin = Instant::now();
        let site = inside.read(dir)?;
        let done = Instant::now();
        inside.apply(&site)?;
        let applied = Instant::now();
        load(dir)?;
        read_all.push(applied.elapsed().as_secs_f64() * 1e6 / tenants as f64);
        read.push((done - begin).as_secs_f64() * 1e6 / tenants as f64);
        unchanged.push((applied - done).as_secs_f64() * 1e6 / tenants as f64);
    }
    inside.stop();
    Ok(Deploys { times, unchanged, read, read_all })
}

/// µs for an instance and its `init`, through the shard and bare; and their ratios.
fn starts(quick: bool) -> anyhow::Result<(Vec<f64>, Vec<f64>, Vec<f64>)> {
    let mut rig = Rig::new(8, 4);
    let operator = rig.operator(&tenant("bench"), "start", ("json_filter", OperatorKind::Filter, FILTER));
    let component = std::fs::read(guest_path("json_filter"))?;
    let bare = BareStart::new(rig.components.engines().of(EngineKind::Fuel), &component, FILTER)?;
    let count = if quick { 500 } else { 5_000 };
    let (mut host_us, mut bare_us, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds(quick) {
        let host = mean(count, || start(&mut rig, &operator))?;
        let bare = mean(count, || bare.call())?;
        host_us.push(host);
        bare_us.push(bare);
        ratios.push(host / bare);
    }
    Ok((host_us, bare_us, ratios))
}

fn start(rig: &mut Rig, operator: &Arc<tidegate::guest::Operator>) -> anyhow::Result<()> {
    let (reply, mut result) = oneshot::channel();
    rig.door.send(Command::Try { operators: vec![operator.clone()], reply });
    loop {
        rig.shard.turn();
        match result.try_recv() {
            Ok(result) => return result.map_err(anyhow::Error::msg),
            Err(oneshot::error::TryRecvError::Empty) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// µs each.
fn mean(count: u32, mut call: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    (0..count / 10).try_for_each(|_| call())?;
    let begin = Instant::now();
    (0..count).try_for_each(|_| call())?;
    let elapsed: Duration = begin.elapsed();
    Ok(elapsed.as_secs_f64() * 1e6 / f64::from(count))
}
