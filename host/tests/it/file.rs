//! Files as endpoints of a running host: where it stopped it goes on, after a kill
//! with lines again but none lost.

use std::{collections::BTreeSet, fs::File, io::Write as _, path::Path};

use crate::{
    mosquitto::eventually,
    site::{Flow, Site, payloads},
};

const FLOW: Flow<'_> = Flow {
    tenant: "a",
    name: "copy",
    from: ("in", "a/in"),
    to: ("out", "a/out"),
    operators: &[("map", "pass_through")],
};

fn site() -> Site {
    let endpoints = [
        ("in", "{ endpointType: File, fileSettings: { path: in.jsonl } }"),
        ("out", "{ endpointType: File, fileSettings: { path: out.jsonl } }"),
    ];
    let site = Site::new("{ shards: 2 }", &endpoints);
    site.flow(&FLOW);
    site
}

fn append(path: &Path, numbers: std::ops::Range<u64>) {
    let mut file = File::options().create(true).append(true).open(path).expect("it can be written");
    let text: String = numbers.map(|number| format!("{number}\n")).collect();
    file.write_all(text.as_bytes()).expect("it can be written");
}

fn distinct(path: &Path) -> usize {
    payloads(path).into_iter().collect::<BTreeSet<_>>().len()
}

#[test]
fn a_file_goes_on_where_it_was_settled_when_the_host_stopped_in_order() {
    let site = site();
    let (input, output) = (site.dir().join("in.jsonl"), site.dir().join("out.jsonl"));
    append(&input, 0..1000);
    let host = site.up();
    eventually("the first lines come", || payloads(&output).len() == 1000);
    host.stop();
    append(&input, 1000..2000);
    let host = site.up();
    eventually("the others come", || payloads(&output).len() >= 2000);
    host.stop();
    let expected: Vec<_> = (0..2000).map(|number| number.to_string()).collect();
    assert_eq!(payloads(&output), expected, "each once, in order");
}

/// Kills the host five times over a file that grows and is rotated; how many of the
/// 100,001 lines came out.
fn killed_over_a_rotated_file() -> usize {
    let site = site();
    let (input, output) = (site.dir().join("in.jsonl"), site.dir().join("out.jsonl"));
    // There is no file yet: the source waits for it and says so.
    let mut host = site.up();
    let state = || site.status()["tenants"][0]["dataflows"][0]["sources"][0]["connection"].to_string();
    eventually("the missing file is said", || state().contains("degraded: cannot open"));
    for round in 0..5_u64 {
        append(&input, round * 20_000..(round + 1) * 20_000);
        eventually("some come", || {
            payloads(&output).iter().any(|it| it.parse::<u64>().is_ok_and(|it| it > round * 20_000 + 1000))
        });
        host.kill();
        std::fs::rename(&input, site.dir().join(format!("in.jsonl.{round}"))).expect("it is there");
        host = site.up();
    }
    append(&input, 100_000..100_001);
    let last = (100_000).to_string();
    eventually("the last comes", || payloads(&output).contains(&last));
    host.stop();
    distinct(&output)
}

#[test]
fn kills_lose_no_line_of_a_file_that_grows_and_is_rotated() {
    assert_eq!(killed_over_a_rotated_file(), 100_001);
}

/// Stops the host while its sink holds ten lines that it cannot write; how many of
/// eleven come out once it can.
fn held_over_a_stop(plant: &str) -> usize {
    let endpoints = [
        ("in", "{ endpointType: File, fileSettings: { path: in.jsonl } }"),
        ("out", "{ endpointType: File, fileSettings: { path: later/out.jsonl } }"),
    ];
    let site = Site::new("{ shards: 2 }", &endpoints);
    site.flow(&FLOW);
    append(&site.dir().join("in.jsonl"), 0..10);
    let host = site.up_planted(plant);
    let state = || site.status()["tenants"][0]["sinks"][0]["connection"].to_string();
    eventually("it is said", || state().contains("degraded: cannot open"));
    eventually("the lines wait", || site.counter("a", "written") == 10);
    host.stop();
    let host = site.up_from_data();
    std::fs::create_dir(site.dir().join("later")).expect("the folder can be written");
    append(&site.dir().join("in.jsonl"), 10..11);
    let output = site.dir().join("later/out.jsonl");
    // In order: what is not there by then does not come.
    eventually("the last comes", || payloads(&output).contains(&"10".to_owned()));
    host.stop();
    distinct(&output)
}

#[test]
fn a_sink_that_cannot_be_written_holds_its_lines_over_a_stop_in_order() {
    assert_eq!(held_over_a_stop(""), 11);
}

#[test]
fn the_same_count_reports_loss_when_settlement_is_broken() {
    assert!(held_over_a_stop("early-ack") < 11, "the count cannot fail");
}
