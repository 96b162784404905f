//! What a site asks of the machine: `tidegate plan` says it, and a host holds to it.

use std::{path::Path, process::Command};

use serde_json::Value;

use crate::{
    folder::SiteFolder,
    process::{Host, Output, output, tidegate},
};

/// A site of one tenant with so many dataflows, each with an MQTT source, and a sink that
/// they share.
fn site(dataflows: usize) -> SiteFolder {
    let site = SiteFolder::new("{ shards: 1, slots: { fuel: 64, epoch: 64, large: 4 } }", "127.0.0.1:1");
    site.policy("p", &["connections: 2000"]);
    site.tenant("a", "p");
    (0..dataflows).for_each(|index| add(&site, index));
    site
}

fn add(site: &SiteFolder, index: usize) {
    site.dataflow("a", &format!("flow-{index}"), &[("map", "pass_through", &[])]);
}

/// A command of a process that may open no more files than these.
fn with_files(files: u64, arguments: &[&str], dir: &Path) -> Output {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit -n {files} && exec \"$0\" \"$@\"")]);
    output(command.arg(env!("CARGO_BIN_EXE_tidegate")).args(arguments).arg(dir))
}

fn line<'a>(plan: &'a Value, rule: &str) -> &'a Value {
    let lines = plan["lines"].as_array().expect("a list");
    lines.iter().find(|line| line["rule"] == rule).unwrap_or_else(|| panic!("no {rule} in {plan}"))
}

fn plan(site: &SiteFolder) -> Value {
    let planned = output(tidegate().args(["plan", "--json"]).arg(site.path()));
    planned.expect_success();
    serde_json::from_str(&planned.stdout).expect("a JSON document")
}

#[test]
fn a_plan_adds_up_what_tenants_ask_for() {
    let site = site(3);
    let planned = plan(&site);
    let needed = |rule: &str| line(&planned, rule)["needed"].as_u64().expect("a number");
    assert_eq!((needed("plan/tenants"), needed("plan/dataflows"), needed("plan/components")), (1, 3, 1));
    assert_eq!(
        (needed("plan/connections"), needed("plan/slots-fuel"), needed("plan/cpu-promised")),
        (4, 3, 100)
    );
    assert_eq!(needed("plan/memory-promised"), 128 << 20, "the standard total, and the host");
    assert!(needed("plan/memory-expected") < needed("plan/memory-promised"));
    let text = output(tidegate().arg("plan").arg(site.path()));
    text.expect_success();
    assert!(text.stdout.lines().all(|line| line.chars().count() <= 100), "{}", text.stdout);
    assert!(text.stdout.contains("CPU promised"), "{}", text.stdout);
}

#[test]
fn a_running_host_has_what_was_planned_and_no_more() {
    let site = site(20);
    let planned = plan(&site);
    let planned = |rule| line(&planned, rule)["needed"].as_u64().expect("a number");
    let host = Host::up(site.path());
    let of_host = |name: &str| format!("/proc/{}/{name}", host.id());
    let open = std::fs::read_dir(of_host("fd")).expect("it runs").count() as u64;
    assert!(open <= planned("plan/files"), "{open} of {}", planned("plan/files"));
    let maps = std::fs::read_to_string(of_host("maps")).expect("it runs").lines().count() as u64;
    assert!(maps <= planned("plan/maps"), "{maps} of {}", planned("plan/maps"));
    let status = std::fs::read_to_string(of_host("status")).expect("it runs");
    let size = status.lines().find_map(|line| line.strip_prefix("VmSize:")).expect("Linux says it");
    let size: u64 = size.trim().trim_end_matches(" kB").parse().expect("a number");
    let (size, planned) = (size << 10, planned("plan/address-space"));
    assert!(size <= planned && planned / 100 * 95 <= size, "{size} of {planned}");
    host.stop();
}

#[test]
fn what_a_plan_refuses_neither_starts_nor_is_applied() {
    let site = site(1);
    let fits = line(&plan(&site), "plan/files")["needed"].as_u64().expect("a number");
    for (files, code) in [(fits, Some(0)), (fits - 1, Some(1))] {
        let planned = with_files(files, &["plan"], site.path());
        assert_eq!(planned.code, code, "{planned:?}");
        assert_eq!(planned.stderr.contains("open files: "), code == Some(1), "{planned:?}");
        let up = with_files(files, &["up", "--for", "1ms"], site.path());
        assert_eq!(up.code, code, "{up:?}");
        assert_eq!(up.stderr.contains("open files: "), code == Some(1), "{up:?}");
        assert_eq!(up.stdout.contains("ready: "), code == Some(0), "{up:?}");
    }
    // One dataflow fits, and a second is one too many.
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit -n {fits} && exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_tidegate")]);
    let host = Host::started(command, site.path());
    add(&site, 1);
    let applied = host.apply(site.path());
    assert_eq!(applied.code, Some(1), "{applied:?}");
    assert!(applied.stderr.contains("open files: "), "{applied:?}");
    let dataflows = |host: &Host| host.status().0["tenants"][0]["dataflows"].as_array().map(Vec::len);
    assert_eq!(dataflows(&host), Some(1));
    host.stop();
    let host = Host::up(site.path());
    assert_eq!(dataflows(&host), Some(2), "with more files it runs");
    host.stop();
}

#[test]
fn what_is_promised_twice_is_warned_of_and_runs() {
    let site = site(1);
    site.policy("p", &["connections: 2000", "cpu: { rate: 100000m }"]);
    let planned = output(tidegate().arg("plan").arg(site.path()));
    planned.expect_success();
    assert!(planned.stderr.contains("warning: CPU promised: 100 and there is 1\n"), "{planned:?}");
    let up = output(tidegate().args(["up", "--for", "1ms"]).arg(site.path()));
    assert_eq!(up.code, Some(0), "{up:?}");
    assert!(up.stderr.contains("warning: CPU promised: 100 and there is 1\n"), "{up:?}");
}
