//! Soak: a host at half of what it sustains, for long; whether anything is lost by id, and
//! whether its memory grows.

use std::{
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};

use anyhow::ensure;

use crate::{
    bed::{Bed, Plan, QUIET_MAX, Servers, Tools, site::Shape},
    connector::Connector,
    host::Launch,
    process::usage,
};

/// How often memory is looked at.
const EVERY: Duration = Duration::from_secs(1);
/// More than any host takes.
const SATURATING: u64 = 1_000_000;

#[derive(Clone, Debug)]
pub struct Effort {
    /// For how long a host is saturated, to find what it sustains.
    pub saturated: Duration,
    pub lasts: Duration,
    /// Until when memory may grow: caches fill, and allocators find their size.
    pub settles: Duration,
}

impl Effort {
    pub fn full() -> Self {
        Effort {
            saturated: Duration::from_secs(30),
            lasts: Duration::from_secs(3_600),
            settles: Duration::from_secs(600),
        }
    }

    pub fn quick() -> Self {
        Effort {
            saturated: Duration::from_secs(8),
            lasts: Duration::from_secs(60),
            settles: Duration::from_secs(15),
        }
    }
}

#[derive(Debug)]
pub struct Soaked {
    pub connector: Connector,
    /// Messages a second that came out of a saturated host.
    pub sustained: f64,
    /// Messages a second that were sent.
    pub rate: u64,
    pub sent: u64,
    pub delivered: u64,
    pub duplicated: u64,
    pub unexpected: u64,
    pub missing: Vec<u64>,
    /// Of memory, after it has settled.
    pub slope_mib_per_hour: f64,
    /// Resident when it had settled, and in the end.
    pub resident_mib: (f64, f64),
}

impl Soaked {
    pub fn lost(&self) -> u64 {
        self.sent - self.delivered
    }
}

pub fn run(tools: &Tools, effort: &Effort, connector: Connector) -> anyhow::Result<Soaked> {
    let mut servers = Servers::default();
    let plan = |rate| Plan {
        connector,
        shape: Shape::Passing,
        hosts: 1,
        rate,
        launch: Launch::default(),
        disk_bytes: None,
        quiet: QUIET_MAX,
    };
    let sustained = saturate(Bed::start(tools, &mut servers, plan(SATURATING))?, effort, &mut servers)?;
    let rate = (sustained / 2.0) as u64;
    ensure!(rate > 0, "a saturated host gave out nothing");
    let mut bed = Bed::start(tools, &mut servers, plan(rate))?;
    let samples = sample(&mut bed, effort)?;
    let first = bed.count.look(|ledger| ledger.first_phase());
    let count = bed.finish(&mut servers)?;
    let (tally, missing) = count.of(&[first]);
    let mib = |sample: Option<&(f64, f64)>| sample.map_or(0.0, |(_, mib)| *mib);
    Ok(Soaked {
        connector,
        sustained,
        rate,
        sent: tally.sent,
        delivered: tally.came,
        duplicated: tally.duplicated,
        unexpected: count.look(|ledger| ledger.unexpected()),
        missing,
        slope_mib_per_hour: slope(&samples) * 3_600.0,
        resident_mib: (mib(samples.first()), mib(samples.last())),
    })
}

/// What comes out a second. The first quarter is not measured: connections and code are cold.
fn saturate(mut bed: Bed, effort: &Effort, servers: &mut Servers) -> anyhow::Result<f64> {
    thread::sleep(effort.saturated / 4);
    let came = |bed: &Bed| bed.count.look(|ledger| ledger.sent_and_came().1);
    let (begun, before) = (Instant::now(), came(&bed));
    thread::sleep(effort.saturated * 3 / 4);
    let sustained = (came(&bed) - before) as f64 / begun.elapsed().as_secs_f64();
    bed.check()?;
    bed.finish(servers)?;
    Ok(sustained)
}

/// Seconds and MiB resident, from when memory has settled.
fn sample(bed: &mut Bed, effort: &Effort) -> anyhow::Result<Vec<(f64, f64)>> {
    let begun = Instant::now();
    let mut samples = Vec::new();
    let mut next = begun;
    while begun.elapsed() < effort.lasts {
        bed.check()?;
        if begun.elapsed() >= effort.settles {
            let host = bed.hosts[0].id().load(Ordering::SeqCst);
            let mib = usage(host).memory_bytes as f64 / f64::from(1 << 20);
            samples.push((begun.elapsed().as_secs_f64(), mib));
        }
        next += EVERY;
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    Ok(samples)
}

/// Of the line with the least squares from the points.
fn slope(points: &[(f64, f64)]) -> f64 {
    let count = points.len().max(1) as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let square: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
    let product: f64 = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
    if square == 0.0 { 0.0 } else { product / square }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slope_is_that_of_a_line_through_noise() {
        let noise = |at: f64| if (at as u64).is_multiple_of(2) { 0.5 } else { -0.5 };
        let points: Vec<(f64, f64)> =
            (0..1_000).map(f64::from).map(|at| (at, 100.0 + 0.25 * at + noise(at))).collect();
        assert!((slope(&points) - 0.25).abs() < 0.001, "{}", slope(&points));
        assert_eq!((slope(&[]), slope(&[(1.0, 5.0)])), (0.0, 0.0));
        let flat: Vec<(f64, f64)> = (0..10).map(|at| (f64::from(at), 7.0)).collect();
        assert_eq!(slope(&flat), 0.0);
    }
}
