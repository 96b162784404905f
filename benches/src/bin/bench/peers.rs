//! `peers`: the noisy neighbour of `scorecard` in an engine that one would use otherwise, by
//! the driver in `benches/peers/`, beside the same here.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, ensure};
use serde_json::Value;
use tidegate_benches::{
    attacks,
    report::{Case, Hold, Report},
};

use crate::scorecard::{Score, score};

/// The attack that both know.
const ATTACK: &str = "endless-loop";

pub fn run(quick: bool) -> anyhow::Result<Report> {
    let attack = attacks::all().into_iter().find(|attack| attack.name == ATTACK).context("it is listed")?;
    eprintln!("here: {ATTACK}");
    let Score { alone, beside, .. } = score(attack, quick)?;
    let peer = peer(if quick { 3 } else { 10 })?;
    let text =
        |key: &str| peer[key].as_str().map(str::to_owned).with_context(|| format!("no {key} in {peer}"));
    let name = format!("{} {}", text("engine")?, text("version")?);
    let here = Case::median("here: p99 beside an endless loop", "ms", &beside);
    let mut cases = vec![Case::median("here: p99 alone", "ms", &alone)];
    let mut threads_p99 = f64::NAN;
    for (shape, figures) in [("one dataflow", &peer), ("a thread each", &peer["thread-each"])] {
        let figure = |of: &Value, key: &str| of[key].as_f64().with_context(|| format!("no {key} in {of}"));
        let name = format!("{name}, {shape}");
        let p99 = |what: &str, of: &Value| {
            Ok::<_, anyhow::Error>(Case::median(format!("{name}: {what}"), "ms", &[figure(of, "p99_ms")?]))
        };
        cases.push(p99("p99 alone", &figures["alone"])?);
        for (attack, said) in [(ATTACK, "an endless loop"), ("fifty-ms", "calls of 50 ms")] {
            let beside = &figures["beside"][attack];
            let share = figure(beside, "delivered")? / figure(beside, "sent")? * 100.0;
            cases.extend([
                p99(&format!("p99 beside {said}"), beside)?,
                Case::median(format!("{name}: delivered beside {said}"), "%", &[share]),
            ]);
        }
        threads_p99 = figure(&figures["beside"][ATTACK], "p99_ms")?;
    }
    let value_of = format!("beside an endless loop: p99 here ÷ {name}, a thread each");
    let ratio = Case::median(&value_of, "x", &[here.value / threads_p99]).hold(Hold::AtMost(1.0));
    cases.splice(0..0, [ratio, here]);
    Ok(Report { bench: "peers", unit: "x", value_of, cases })
}

/// Runs the driver.
fn peer(seconds: u32) -> anyhow::Result<Value> {
    let mut driver = Command::new(python("bytewax")?);
    driver.arg(folder().join("noisy_neighbour.py")).args(["--seconds", &seconds.to_string()]);
    Ok(serde_json::from_slice(&succeed(&mut driver)?)?)
}

/// Where the drivers are.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("peers")
}

/// The Python of a virtual environment below `target`, with what a peer needs.
pub fn python(peer: &str) -> anyhow::Result<PathBuf> {
    let environment = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/peers").join(peer);
    let python = environment.join("bin/python");
    if !python.exists() {
        succeed(Command::new("python3").args(["-m", "venv"]).arg(&environment))?;
    }
    let mut install = Command::new(&python);
    install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"]);
    succeed(install.arg(folder().join(format!("{peer}.txt"))))?;
    Ok(python)
}

/// What it says, if it ends well; what it reports on goes to stderr.
fn succeed(command: &mut Command) -> anyhow::Result<Vec<u8>> {
    let output = command.stderr(std::process::Stdio::inherit()).output();
    let output = output.with_context(|| format!("{command:?}; it takes Python 3.9 to 3.12"))?;
    ensure!(output.status.success(), "{command:?} ended with {}", output.status);
    Ok(output.stdout)
}
