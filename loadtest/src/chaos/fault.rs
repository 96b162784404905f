//! How each fault is made to happen. Each returns when it is over.

use std::{
    fs,
    io::{ErrorKind, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer as _},
};

use super::{Effort, Fault};
use crate::{
    bed::{Bed, Plan, Tools, site::GROUP},
    host::Applied,
    proxy::End,
};

/// How long a fault may take to bite.
const BITE_WITHIN: Duration = Duration::from_secs(60);
/// Nothing comes for so long: the fault has bitten.
const BITTEN_AFTER: Duration = Duration::from_secs(1);
/// A delay of links, there and back.
const DELAY: Duration = Duration::from_millis(300);
/// Less than the load, so that what is sent waits.
const SLOW_BYTES_PER_SECOND: u64 = 16 << 10;
/// Where the clock stands, after each step, from the true time in seconds: a day ahead, two hours
/// behind, a year ahead, and right.
const STEPS: [i64; 4] = [86_400, -7_200, 31_536_000, 0];

/// What a bed for the fault needs besides the plan; or what this machine lacks for it.
pub fn prepare(fault: Fault, tools: &Tools, folder: &Path, plan: &mut Plan) -> Result<(), String> {
    match fault {
        Fault::DiskFull => {
            let mut trial = Command::new("unshare");
            trial.args(["-Urm", "sh", "-c", "mount -t tmpfs tmpfs /tmp"]);
            let output = trial.stdin(Stdio::null()).output().map_err(|error| format!("unshare: {error}"))?;
            if !output.status.success() {
                let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                return Err(format!("`unshare -Urm` may not mount a tmpfs here: {said}"));
            }
        }
        Fault::ClockStepped => {
            let library = tools.faketime.as_ref();
            let library = library.ok_or("there is no libfaketime: `apt-get install libfaketime`")?;
            let waits = waits(folder)?;
            let clock = folder.join("clock");
            fs::write(&clock, "+0").map_err(|error| error.to_string())?;
            plan.launch.variables.extend(
                [
                    ("LD_PRELOAD", format!("{}:{}", waits.display(), library.display())),
                    ("FAKETIME_TIMESTAMP_FILE", clock.display().to_string()),
                    // Timers run on: a step is of the clock on the wall.
                    ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
                    ("FAKETIME_NO_CACHE", "1".to_owned()),
                ]
                .map(|(name, value)| (name.to_owned(), value)),
            );
        }
        _ => {}
    }
    Ok(())
}

/// A library that mends what libfaketime fakes by half.
fn waits(folder: &Path) -> Result<PathBuf, String> {
    let (source, library) = (folder.join("waits.c"), folder.join("waits.so"));
    fs::write(&source, include_str!("waits.c")).map_err(|error| error.to_string())?;
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(source).stdin(Stdio::null());
    let output = compiler.output().map_err(|error| format!("there is no C compiler `cc`: {error}"))?;
    match output.status.success() {
        true => Ok(library),
        false => Err(format!("`cc` failed: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}

/// Makes it happen once, for the `time`th time; when it ended.
pub fn act(
    fault: Fault,
    bed: &mut Bed,
    effort: &Effort,
    folder: &Path,
    time: u32,
) -> anyhow::Result<Instant> {
    match fault {
        Fault::HostKilled => {
            let host = bed.hosts.first_mut().context("there is one")?;
            host.kill()?;
            let end = Instant::now();
            host.start_again()?;
            return Ok(end);
        }
        Fault::BrokerKilled => bed.restart_broker(true)?,
        Fault::BrokerRestarted => bed.restart_broker(false)?,
        Fault::BrokerFrozen => {
            bed.broker()?.freeze()?;
            std::thread::sleep(effort.freeze);
            bed.broker()?.go_on()?;
        }
        Fault::LinksCut => bed.networks().for_each(|network| network.cut()),
        Fault::LinksTruncated => bed.networks().for_each(|network| network.truncate()),
        Fault::LinksHalfClosed => {
            let end = if time.is_multiple_of(2) { End::Client } else { End::Server };
            bed.networks().for_each(|network| network.half_close(end));
        }
        Fault::LinksRefused => for_a_while(bed, effort, |network| network.refuse()),
        Fault::LinksDelayed => for_a_while(bed, effort, |network| network.delay(DELAY)),
        Fault::LinksSlowed => for_a_while(bed, effort, |network| network.slow(SLOW_BYTES_PER_SECOND)),
        Fault::LinksDeafened => for_a_while(bed, effort, |network| network.deafen()),
        Fault::Redeployed => {
            bed.sites[0].revise(time + 1)?;
            match bed.hosts[0].apply()? {
                Applied::Done => {}
                Applied::Refused(said) => bail!("the host refused the redeploy: {said}"),
            }
        }
        Fault::GroupRebalanced => rebalance(bed)?,
        Fault::OneOfTwoKilled => {
            // What a broker had given to it waits for it, and so may a transaction: how soon the
            // other goes on is measured before it comes back.
            let number = time as usize % bed.hosts.len();
            bed.hosts[number].kill()?;
            let end = Instant::now();
            std::thread::sleep(effort.lasts);
            bed.hosts[number].start_again()?;
            return Ok(end);
        }
        Fault::DiskFull => fill(bed, effort)?,
        Fault::ClockStepped => step_clock(bed, folder, STEPS[time as usize % STEPS.len()])?,
    }
    Ok(Instant::now())
}

fn for_a_while(bed: &Bed, effort: &Effort, begin: impl Fn(&crate::proxy::Proxy)) {
    bed.networks().for_each(begin);
    std::thread::sleep(effort.lasts);
    bed.networks().for_each(|network| network.admit());
}

/// Another member joins the group of the host's source, is given partitions, and leaves.
fn rebalance(bed: &Bed) -> anyhow::Result<()> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bed.broker_address()?).set("group.id", GROUP);
    // As the host's own: a group has one way to share out.
    config.set("partition.assignment.strategy", "cooperative-sticky");
    config.set("session.timeout.ms", "10000").set("enable.auto.commit", "false");
    let member: BaseConsumer = config.create()?;
    member.subscribe(&[&bed.input()])?;
    let until = Instant::now() + BITE_WITHIN;
    while member.assignment()?.count() == 0 {
        ensure!(Instant::now() < until, "a new member was given nothing within {BITE_WITHIN:?}");
        // What it reads it does not commit: the host reads that again.
        let _ = member.poll(Duration::from_millis(20));
    }
    drop(member);
    Ok(())
}

/// Fills the disk of the host's data until nothing comes through any more, and frees it.
fn fill(bed: &Bed, effort: &Effort) -> anyhow::Result<()> {
    let host = bed.hosts.first().context("there is one")?;
    let id = host.id().load(std::sync::atomic::Ordering::SeqCst);
    // The disk is in a mount namespace of the host's own.
    let path = format!("/proc/{id}/root{}/filler", host.data().display());
    let mut file = fs::File::create(&path).with_context(|| path.clone())?;
    let until = Instant::now() + BITE_WITHIN;
    let came = || bed.count.look(|ledger| ledger.sent_and_came().1);
    let mut last = (came(), Instant::now());
    while last.1.elapsed() < BITTEN_AFTER {
        ensure!(Instant::now() < until, "a full disk stopped nothing within {BITE_WITHIN:?}");
        // Whatever has become free meanwhile, down to the last bytes.
        for len in [1 << 20, 4 << 10, 1] {
            let piece = vec![0; len];
            let error = loop {
                if let Err(error) = file.write_all(&piece) {
                    break error;
                }
            };
            ensure!(error.kind() == ErrorKind::StorageFull, "{path}: {error}");
        }
        if came() != last.0 {
            last = (came(), Instant::now());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(effort.lasts);
    drop(file);
    fs::remove_file(&path).with_context(|| path.clone())
}

fn step_clock(bed: &Bed, folder: &Path, seconds: i64) -> anyhow::Result<()> {
    let id = bed.hosts.first().context("there is one")?.id().load(std::sync::atomic::Ordering::SeqCst);
    let maps = fs::read_to_string(format!("/proc/{id}/maps"))?;
    ensure!(maps.contains("libfaketime"), "the host does not have its clock from libfaketime");
    let new = folder.join("clock.new");
    fs::write(&new, format!("{seconds:+}"))?;
    Ok(fs::rename(new, folder.join("clock"))?)
}
