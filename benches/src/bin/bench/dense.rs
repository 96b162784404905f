//! `dense`: the pool without copy-on-write and guards (`pool: dense` of the Host resource):
//! live instances at the kernel's default limit on mappings, what calls cost there against
//! the default pool, and what a hundred thousand would need.

use std::path::Path;

use anyhow::ensure;
use tidegate::{
    guest::engine::{EngineError, PoolSize},
    resource::{PerEngine, PoolLayout},
};
use tidegate_benches::{
    inside::{CONVERT, FILTER},
    report::{Case, Hold, Report, rounds},
    site::{Link, MEMORY, SiteFolder},
};

use crate::density::{Apart, name};

/// Instances live at once, two a tenant.
const LIVE: usize = 25_000;
/// As many as the default pool's slots hold.
const LIVE_GUARDED: usize = 6_000;
/// A host with little else to do than what is measured.
const FEW: usize = 20;
const WANTED: u32 = 100_000;
/// What Linux allows a process unless told otherwise.
const MAPS_DEFAULT: f64 = 65_530.0;

pub fn run(quick: bool) -> anyhow::Result<Report> {
    let dir = tempfile::tempdir()?;
    let lay_out = |layout: PoolLayout, live: usize| {
        let dir = dir.path().join(format!("{}-{live}", layout.name()));
        lay_out(&dir, layout, live).map(|()| dir)
    };
    let (mut dense_cases, dense_kib) = live(&lay_out(PoolLayout::Dense, LIVE)?, PoolLayout::Dense, LIVE)?;
    let guarded_site = lay_out(PoolLayout::Guarded, LIVE_GUARDED)?;
    let (guarded_cases, _) = live(&guarded_site, PoolLayout::Guarded, LIVE_GUARDED)?;
    let [dense, guarded] = [PoolLayout::Dense, PoolLayout::Guarded].map(|layout| lay_out(layout, FEW));
    dense_cases[0] = dense_cases[0].clone().hold(Hold::AtMost(90.0));
    dense_cases[1] = dense_cases[1].clone().hold(Hold::AtMost(MAPS_DEFAULT));
    let mut cases = dense_cases;
    cases.extend(guarded_cases);
    cases.extend(call_cases(&dense?, &guarded?, quick)?);
    let gib = dense_kib * f64::from(WANTED) / f64::from(1 << 20);
    cases.push(Case::median("100,000 live, dense: resident", "GiB", &[gib]));
    for layout in PoolLayout::ALL {
        let name = format!("100,000 live, {}: vm.max_map_count", layout.name());
        cases.push(Case::median(name, "mappings", &[maps_for(layout)?]));
    }
    Ok(Report { bench: "dense", unit: "KiB per live instance", value_of: cases[0].name.clone(), cases })
}

/// Tenants of two operators each, whose components have all their memory from the start.
pub fn lay_out(dir: &Path, layout: PoolLayout, live: usize) -> anyhow::Result<()> {
    let slots = live + 8;
    let host = format!(
        "shards: 1, components: 100, pool: {}, slots: {{ fuel: {slots}, epoch: 4, large: 4 }}",
        layout.name()
    );
    let site = SiteFolder::new(dir, &host, MEMORY)?;
    let links = [
        Link { kind: "filter", module: "filter", configuration: FILTER },
        Link { kind: "map", module: "convert", configuration: CONVERT },
    ];
    let names: Vec<String> = (0..live / links.len()).map(name).collect();
    for name in &names {
        site.tenant(name, &links)?;
        site.component(name, "filter", "json_filter_dense", None)?;
        site.component(name, "convert", "unit_convert_dense", None)?;
    }
    site.tenants(names.iter().map(String::as_str))
}

/// Touches every tenant of a site; also gives KiB per live instance.
fn live(site: &Path, layout: PoolLayout, live: usize) -> anyhow::Result<(Vec<Case>, f64)> {
    eprintln!("{live} live instances, {}", layout.name());
    let tenants = live / 2;
    let mut host = Apart::start(site)?;
    let before = host.figure("resident", "kib")?;
    let touch = format!("touch 0 {tenants}");
    let written = host.figure(&touch, "written")?;
    ensure!(written == tenants as f64, "{written} of {tenants} tenants answered");
    let (instances, failed) = (host.figure("census", "instances")?, host.figure("census", "failed")?);
    ensure!((instances, failed) == (live as f64, 0.0), "{instances} instances live, {failed} failed");
    let kib = (host.figure("resident", "kib")? - before) / instances;
    let maps = host.figure("maps", "count")?;
    let again = host.figure(&touch, "seconds")? / tenants as f64;
    host.stop()?;
    let said = |what: &str| format!("{live} live, {}: {what}", layout.name());
    let cases = vec![
        Case::median(said("resident"), "KiB/instance", &[kib]),
        Case::median(said("mappings of the process"), "mappings", &[maps]),
        Case::median(said("all touched again"), "µs/tenant", &[again * 1e6]),
    ];
    Ok((cases, kib))
}

/// A busy tenant in both pools, and nobody else.
fn call_cases(dense: &Path, guarded: &Path, quick: bool) -> anyhow::Result<Vec<Case>> {
    let deliveries = if quick { 8_000 } else { 20_000 };
    let (mut in_dense, mut in_guarded) = (Apart::start(dense)?, Apart::start(guarded)?);
    let hot = format!("hot {deliveries}");
    let mut figures: [Vec<f64>; 3] = Default::default();
    for _ in 0..rounds(quick) {
        let (dense, guarded) =
            (in_dense.figure(&hot, "us_per_message")?, in_guarded.figure(&hot, "us_per_message")?);
        for (figure, value) in figures.iter_mut().zip([dense, guarded, (dense / guarded - 1.0) * 100.0]) {
            figure.push(value);
        }
    }
    in_dense.stop()?;
    in_guarded.stop()?;
    Ok(vec![
        Case::median("filter and convert, batch 64, dense over guarded", "% CPU", &figures[2]),
        Case::median("filter and convert, batch 64, dense", "µs/message", &figures[0]),
        Case::median("filter and convert, batch 64, guarded", "µs/message", &figures[1]),
    ])
}

/// Mappings that the host asks for before it starts so large a pool.
fn maps_for(layout: PoolLayout) -> anyhow::Result<f64> {
    let slots = PerEngine { fuel: WANTED, epoch: 4, large: 4 };
    match (PoolSize { slots, components: 100, layout }).check(0) {
        Err(EngineError::TooManyMaps { needed, .. }) => Ok(needed as f64),
        other => anyhow::bail!("no limit at all was kept: {other:?}"),
    }
}
