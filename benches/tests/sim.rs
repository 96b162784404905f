//! The simulation keeps its promises, is the same for the same seed in a fresh
//! process, and finds every bug that is planted for it.

use std::process::Command;

use tidegate::planted::Bug;

/// Runs seeds in a process of its own; gives whether all was well and what it printed.
fn sim(seeds: u64, jobs: u64, plant: &str) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_sim"))
        .args(["--messages", "6000", "--seeds", &seeds.to_string(), "--jobs", &jobs.to_string()])
        .env("TIDEGATE_PLANT", plant)
        .output()
        .expect("the simulation starts");
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}

fn logs(output: &str) -> Vec<&str> {
    output.lines().filter(|line| line.contains("log ")).collect()
}

#[test]
fn twenty_seeds_keep_every_promise_and_replay_the_same() {
    let (good, first) = sim(20, 2, "");
    assert!(good, "{first}");
    assert_eq!(logs(&first).len(), 20);
    let summary = first.lines().last().unwrap_or_default();
    assert!(!summary.contains(" 0 "), "something never happened: {summary}");
    let (_, again) = sim(3, 1, "");
    assert_eq!(logs(&again), logs(&first)[..3], "a replay differs");
}

#[test]
fn every_planted_bug_is_found() {
    // Windows and the usage ledger are not simulated; the host's own tests plant their bugs where
    // lives are cut short.
    for bug in Bug::ALL
        .into_iter()
        .filter(|bug| !matches!(bug, Bug::CountTwice | Bug::PartialWindow | Bug::UsageAnew))
    {
        let (good, output) = sim(3, 1, bug.name());
        // A panic is not lost: the fence drops its dataflow, and all is delivered again.
        assert_eq!(good, bug == Bug::Panic, "{}: {output}", bug.name());
    }
}
