//! `up` and `apply` on the real binary: a changed site is taken as a whole with
//! messages flowing, or refused as a whole, and what was applied last outlives the
//! host and the folder that it came from.

use std::{collections::BTreeSet, fs};

use tidegate_benches::site::{Link, chain};

use crate::{
    mosquitto::{Mosquitto, eventually},
    outside::{Subscriber, numbers, publish_all},
    site::{Flow, Site, Up, payloads, tidegate},
};

const HOST: &str = "{ shards: 2, slots: { fuel: 16 }, components: 4 }";
const MEMORY: (&str, &str) = ("memory", "{ endpointType: Memory }");

fn memory_flow(tenant: &str) -> Flow<'_> {
    Flow {
        tenant,
        name: "flow",
        from: ("memory", "in"),
        to: ("memory", "out"),
        operators: &[("map", "pass_through")],
    }
}

fn tenants(site: &Site) -> Vec<String> {
    let status = site.status();
    let tenants = status["tenants"].as_array().expect("a list").iter();
    tenants.map(|tenant| tenant["name"].as_str().expect("a name").to_owned()).collect()
}

#[test]
fn mqtt_a_graph_is_replaced_with_messages_flowing_and_none_is_lost() {
    const COUNT: u64 = 20_000;
    let Some(broker) = Mosquitto::start(&["max_inflight_messages 0"]) else { return };
    let spec = format!("{{ endpointType: Mqtt, mqttSettings: {{ host: \"{}\" }} }}", broker.address());
    let site = Site::new(HOST, &[("local", &spec)]);
    let flow = |tenant, operators| {
        site.flow(&Flow { tenant, name: "flow", from: ("local", "a/in"), to: ("local", "a/out"), operators });
    };
    const PASS: (&str, &str) = ("map", "pass_through");
    flow("a", &[PASS]);
    let subscriber = Subscriber::new(broker.port, "a/out/#");
    let host = site.up();
    let port = broker.port;
    let publisher = std::thread::spawn(move || publish_all(port, numbers("a/in", 0..COUNT)));
    for round in 1..=4 {
        eventually("messages flow", || subscriber.len() as u64 > round * COUNT / 8);
        flow("a", [&[PASS, PASS][..], &[PASS]][(round as usize + 1) % 2]);
        let ran = site.apply();
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        let lines: Vec<_> = ran.stdout.lines().collect();
        assert_eq!(lines, ["replaced  a/flow", "unchanged 0"]);
    }
    publisher.join().expect("publishing does not fail");
    let ids = || subscriber.numbers().into_iter().collect::<BTreeSet<_>>().len() as u64;
    eventually("every id comes out", || ids() == COUNT);
    // The host's memory and its name are in its data folder: a restart takes over the session.
    host.kill();
    publish_all(port, numbers("a/in", COUNT..COUNT + 10));
    let host = site.up_from_data();
    eventually("what came meanwhile comes out", || ids() == COUNT + 10);
    host.stop();
}

#[test]
fn tenants_come_and_go_and_the_host_goes_on_with_what_was_applied_last() {
    let site = Site::new(HOST, &[MEMORY]);
    site.flow(&memory_flow("a"));
    site.flow(&memory_flow("b"));
    let host = site.up();
    assert_eq!(host.line("ready").as_deref(), Some("ready: 2 dataflows of 2 tenants"));
    site.flow(&memory_flow("c"));
    for gone in ["tenants/b", "platform/b.yaml"] {
        site.remove(gone);
    }
    let ran = site.apply();
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    assert_eq!(ran.stdout, "added     c/flow\nremoved   b/flow\nunchanged 1\n");
    // At once: what is accepted is on disk.
    host.kill();
    // The folder is edited, broken, gone: all the same to what was applied.
    site.write("platform/all.yaml", "kind: Nothing");
    let host = site.up_from_data();
    assert_eq!(host.line("ready").as_deref(), Some("ready: 2 dataflows of 2 tenants"));
    assert_eq!(tenants(&site), ["a", "c"]);
    host.stop();
    fs::remove_dir_all(site.dir()).expect("it is there");
    let host = site.up_from_data();
    assert_eq!(tenants(&site), ["a", "c"]);
    host.kill();
}

#[test]
fn a_host_that_is_killed_while_it_applies_has_all_of_it_or_nothing() {
    let site = Site::new(HOST, &[MEMORY]);
    let lay_out = |component| {
        for tenant in ["a", "b", "c"] {
            site.flow(&Flow { operators: &[("map", component)], ..memory_flow(tenant) });
        }
    };
    let digests = || {
        let status = site.status();
        let tenants = status["tenants"].as_array().expect("a list").iter();
        tenants.map(|it| it["dataflows"][0]["operators"][0]["component"].to_string()).collect::<BTreeSet<_>>()
    };
    let blobs = || {
        let entries = fs::read_dir(site.data().join("blobs/sha256")).expect("it is there");
        entries.flatten().map(|entry| entry.file_name()).collect::<BTreeSet<_>>()
    };
    lay_out("pass_through");
    let mut host = site.up();
    let (mut taken, mut left) = (0, 0);
    for round in 0..8 {
        let (before, blobs_before) = (digests(), blobs());
        assert_eq!(before.len(), 1, "all tenants have the same component");
        lay_out(["aio_pass_through", "pass_through", "aio_metrics"][round % 3]);
        let apply = tidegate().arg("apply").arg(site.dir()).arg("--data").arg(site.data()).spawn();
        // As soon as something is kept, or as soon as what was before is swept away.
        let is_stored = round % 2 == 1;
        eventually("something is kept", || {
            let blobs = blobs();
            blobs != blobs_before && (!is_stored || blobs.is_disjoint(&blobs_before))
        });
        host.kill();
        apply.expect("it runs").wait().expect("it ends");
        host = site.up_from_data();
        let after = digests();
        assert_eq!(after.len(), 1, "half of it was applied");
        if after == before {
            left += 1
        } else {
            taken += 1
        }
        lay_out(["aio_pass_through", "pass_through", "aio_metrics"][round % 3]);
        assert_eq!(site.apply().code, 0);
    }
    eprintln!("killed before it was stored {left} times, after {taken} times");
    host.kill();
}

#[test]
fn a_hangup_reads_the_folder_again_that_was_applied_last() {
    let (site, other) = (Site::new(HOST, &[MEMORY]), Site::new(HOST, &[MEMORY]));
    site.flow(&memory_flow("a"));
    other.flow(&memory_flow("other"));
    let host = site.up();
    let hang_up = || {
        let pid = rustix::process::Pid::from_child(&host.child);
        rustix::process::kill_process(pid, rustix::process::Signal::HUP).expect("it runs");
    };
    site.flow(&memory_flow("b"));
    hang_up();
    eventually("it is read", || tenants(&site) == ["a", "b"]);
    let ran = site.run(&["apply", other.dir().to_str().expect("UTF-8")]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(tenants(&site), ["other"]);
    other.write("platform/broken.yaml", "kind: Nothing");
    hang_up();
    eventually("errors are said", || host.line("nothing was changed: ").is_some());
    assert!(host.log().contains("--> platform/broken.yaml:1:"), "{}", host.log());
    assert_eq!(tenants(&site), ["other"]);
    host.kill();
    let host = site.up_from_data();
    assert_eq!(tenants(&site), ["other"]);
    assert_eq!(host.log().lines().filter(|line| line.starts_with("warning")).count(), 0, "{}", host.log());
    host.stop();
}

#[test]
fn a_broken_folder_is_refused_as_a_whole_and_what_runs_goes_on() {
    let site = Site::new(HOST, &[MEMORY]);
    site.flow(&memory_flow("a"));
    let host = site.up();
    let before = site.status();
    // One good change, and two that are wrong in different files.
    site.flow(&memory_flow("good"));
    site.flow(&memory_flow("bad"));
    site.write(
        "tenants/bad/artifacts/flow/1.yaml",
        &fs::read_to_string(site.dir().join("tenants/good/artifacts/flow/1.yaml"))
            .expect("it is there")
            .replace("operationType: map", "operationType: mop"),
    );
    site.write(
        "platform/bad.yaml",
        "apiVersion: tidegate.dev/v1\nkind: Tenant\nmetadata: { name: bad }\nspec: { policy: teem }\n",
    );
    let ran = site.apply();
    assert_eq!((ran.code, ran.stdout.as_str()), (1, ""));
    assert!(ran.stderr.contains("--> platform/bad.yaml:4:17"), "{}", ran.stderr);
    let fixed =
        "apiVersion: tidegate.dev/v1\nkind: Tenant\nmetadata: { name: bad }\nspec: { policy: team }\n";
    site.write("platform/bad.yaml", fixed);
    let ran = site.apply();
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("--> tenants/bad/artifacts/flow/1.yaml:5:22"), "{}", ran.stderr);
    assert_eq!(tenants(&site), ["a"]);
    let without_the_time = |mut status: serde_json::Value| {
        status["tenants"][0]["dataflows"][0]["healthState"]["lastUpdateTime"].take();
        status["tenants"].take()
    };
    assert_eq!(without_the_time(before), without_the_time(site.status()));
    // Nor is it stored.
    host.kill();
    let host = site.up_from_data();
    assert_eq!(tenants(&site), ["a"]);
    host.kill();
    let ran = Up::start(tidegate().arg("up").arg(site.dir()).arg("--data").arg(site.data())).err();
    let ran = ran.expect("a folder with errors starts nothing");
    assert_eq!(ran.code, 1);
    // Put right, `up DIR` puts the folder in place of what was stored.
    site.flow(&memory_flow("bad"));
    let host = site.up();
    assert_eq!(tenants(&site), ["a", "bad", "good"]);
    host.stop();
    let host = site.up_from_data();
    assert_eq!(tenants(&site), ["a", "bad", "good"]);
    host.stop();
}

#[test]
fn an_operator_that_does_not_start_changes_nothing() {
    let site = Site::new(HOST, &[MEMORY]);
    site.flow(&memory_flow("a"));
    let host = site.up();
    site.flow(&Flow { operators: &[("map", "hostile_start")], ..memory_flow("hostile") });
    let ran = site.apply();
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("the dataflow `hostile/flow` does not start"), "{}", ran.stderr);
    assert_eq!(tenants(&site), ["a"]);
    host.kill();
    assert_eq!(tenants_after_restart(&site), ["a"]);
}

fn tenants_after_restart(site: &Site) -> Vec<String> {
    let host = site.up_from_data();
    let tenants = tenants(site);
    host.kill();
    tenants
}

#[test]
fn a_data_folder_without_anything_applied_says_what_to_do() {
    let site = Site::new(HOST, &[MEMORY]);
    let ran = Up::start(tidegate().args(["up", "--data"]).arg(site.data())).err().expect("nothing runs");
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("start with `tidegate up DIR`"), "{}", ran.stderr);
    let ran = Up::start(tidegate().arg("up")).err().expect("nothing runs");
    assert_eq!(ran.code, 2, "{}", ran.stderr);
}

#[test]
fn a_disabled_dataflow_goes_on_where_it_stopped_and_a_removed_one_begins_anew() {
    let endpoints = [
        ("in", "{ endpointType: File, fileSettings: { path: in.jsonl } }"),
        ("out", "{ endpointType: File, fileSettings: { path: out.jsonl } }"),
    ];
    let site = Site::new(HOST, &endpoints);
    let flow = Flow { from: ("in", "in"), to: ("out", "out"), ..memory_flow("a") };
    site.flow(&flow);
    let (path, output) = ("tenants/a/dataflows/flow.yaml", site.dir().join("out.jsonl"));
    let enabled = fs::read_to_string(site.dir().join(path)).expect("it is there");
    fs::write(site.dir().join("in.jsonl"), "1\n2\n").expect("a file");
    let host = site.up();
    eventually("they come", || payloads(&output).len() == 2);
    let disabled = enabled.replace("spec:\n", "spec:\n  mode: Disabled\n");
    for (text, expected) in [
        (disabled.as_str(), "removed   a/flow\nunchanged 0\n"),
        (&enabled, "added     a/flow\nunchanged 0\n"),
    ] {
        site.write(path, text);
        let ran = site.apply();
        assert_eq!((ran.stderr.as_str(), ran.stdout.as_str()), ("", expected));
    }
    site.remove(path);
    assert_eq!(site.apply().code, 0);
    assert_eq!(payloads(&output), ["1", "2"], "disabled and enabled again, nothing comes twice");
    site.write(path, &enabled);
    assert_eq!(site.apply().code, 0);
    eventually("removed and added again, all comes", || payloads(&output) == ["1", "2", "1", "2"]);
    host.stop();
}

#[test]
fn a_total_below_what_a_tenant_uses_is_refused_with_the_amount_and_forced_by_draining() {
    let endpoints = [
        ("in", "{ endpointType: File, fileSettings: { path: in.jsonl } }"),
        ("out", "{ endpointType: File, fileSettings: { path: out.jsonl } }"),
    ];
    let site = Site::new(HOST, &endpoints);
    let operators = &[("map", "hostile_attacks")];
    site.flow(&Flow { from: ("in", "in"), to: ("out", "out"), operators, ..memory_flow("a") });
    let link = Link { kind: "map", module: "hostile_attacks", configuration: &[("attack", "reserve")] };
    site.write("tenants/a/artifacts/flow/1.yaml", &chain::graph("flow", &[link]));
    fs::write(site.dir().join("in.jsonl"), "\"attack\"\n").expect("a file");
    let host = site.up();
    eventually("its instance has grown", || payloads(&site.dir().join("out.jsonl")).len() == 1);
    let memory = |key: &str| site.status()["tenants"][0]["memory"][key].as_u64().expect("bytes");
    assert!(memory("total") > 3 << 20, "{}", memory("total"));
    let policy = fs::read_to_string(site.dir().join("platform/all.yaml")).expect("it is there");
    // What it uses, though less than before, is no obstacle; what it does not, is.
    for (total, code) in [("32Mi", 0), ("3Mi", 1)] {
        let lowered =
            policy.replace("spec:\n  world", &format!("spec:\n  memory: {{ total: {total} }}\n  world"));
        site.write("platform/all.yaml", &lowered);
        let ran = site.apply();
        assert_eq!(ran.code, code, "{}", ran.stderr);
        // For the dataflow that is new: the one before it would take it at once.
        fs::write(site.dir().join("in.jsonl"), "\"attack\"\n\"attack\"\n").expect("a file");
        eventually("both are through", || payloads(&site.dir().join("out.jsonl")).len() == 2);
    }
    let refused = site.apply();
    assert!(refused.stderr.contains("`memory.total` would allow 3072 KiB"), "{}", refused.stderr);
    assert!(refused.stderr.contains("tidegate apply --force"), "{}", refused.stderr);
    assert_eq!(memory("max"), 32 << 20, "what is refused changes nothing");
    let forced = site.run(&["apply", "--force", site.dir().to_str().expect("UTF-8")]);
    assert_eq!(
        (forced.code, forced.stdout.as_str()),
        (0, "replaced  a/flow\nunchanged 0\n"),
        "{}",
        forced.stderr
    );
    assert_eq!(memory("max"), 3 << 20);
    assert!(memory("total") <= 3 << 20, "{}", memory("total"));
    host.stop();
}

#[test]
fn mqtt_the_session_of_a_dataflow_that_went_while_the_host_was_down_is_ended() {
    let Some(broker) = Mosquitto::start(&[]) else { return };
    let spec = format!("{{ endpointType: Mqtt, mqttSettings: {{ host: \"{}\" }} }}", broker.address());
    let site = Site::new(HOST, &[("local", &spec)]);
    let flow = Flow { from: ("local", "a/in"), to: ("local", "a/out"), ..memory_flow("a") };
    site.flow(&flow);
    let subscriber = Subscriber::new(broker.port, "a/out/#");
    site.up().stop();
    // What comes meanwhile waits at the broker for a dataflow that comes back.
    publish_all(broker.port, numbers("a/in", 0..5));
    let host = site.up();
    eventually("they come", || subscriber.numbers() == [0, 1, 2, 3, 4]);
    host.stop();
    // Some wait when it goes, too.
    publish_all(broker.port, numbers("a/in", 5..8));
    site.remove("tenants/a/dataflows/flow.yaml");
    let host = site.up();
    eventually("its session is ended", || {
        host.log().contains("the session of a source that is gone was ended")
    });
    host.stop();
    publish_all(broker.port, numbers("a/in", 8..10));
    site.flow(&flow);
    let host = site.up();
    let connected = || site.status()["tenants"][0]["dataflows"][0]["sources"][0]["connection"] == "connected";
    eventually("it is subscribed anew", connected);
    publish_all(broker.port, numbers("a/in", 10..11));
    eventually("what is new comes", || subscriber.numbers().contains(&10));
    assert_eq!(subscriber.numbers(), [0, 1, 2, 3, 4, 10], "nobody kept anything for it");
    host.stop();
}
