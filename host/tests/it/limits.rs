//! Every limit of a policy that bites today: once where it does, and once raised, where
//! the same work passes. From the key in the file to what comes of it. How `weight`
//! divides a shard is measured by the simulation (`cargo xtask sim`), and not again here.

use std::{
    collections::BTreeSet,
    task::{Context, Waker},
};

use rumqttc::v5::mqttbytes::v5::PublishProperties;
use serde_json::{Value, json};
use tidegate::{
    dead_letter::Reason,
    guest::{OperatorKind::Map, log::LogLimits},
    resource::Limits,
    tenant::Tenant,
};
use tidegate_benches::rig::Rig;

use crate::{
    folder::{Link, SiteFolder},
    mosquitto::{Mosquitto, eventually},
    outside::{Subscriber, publish_all},
    process::{Host, output, tidegate},
    rates::{self, Waiting},
};

/// One limit of a policy that `tidegate run` holds a graph to.
struct Bite {
    /// As interfaces name it.
    key: &'static str,
    /// The policy's line where it bites, and where it does not.
    low: &'static str,
    high: &'static str,
    link: Link<'static>,
    input: &'static [&'static str],
    /// What standard error says where it bites.
    words: &'static str,
    /// What comes in and goes out where it bites, if anything runs, and where not.
    counts: (&'static str, &'static str),
}

const FIVE: &[&str] = &["1", "2", "3", "4", "5"];
/// About 15 million units of fuel, and two milliseconds.
const BUSY: Link<'_> = ("map", "hostile_busy", &[("micros", "2000")]);

const BITES: &[Bite] = &[
    Bite {
        key: "message.fuel",
        low: "message: { fuel: 1M, time: 10s }",
        high: "message: { fuel: 1G, time: 10s }",
        link: BUSY,
        input: &["1"],
        words: "given up (OutOfFuel",
        counts: ("in 1, out 0, filtered 0, errors 0, dead 1", "in 1, out 1,"),
    },
    Bite {
        key: "message.time",
        low: "message: { fuel: 1000G, time: 5ms }",
        high: "message: { fuel: 1000G, time: 30s }",
        link: ("map", "hostile_busy", &[("micros", "100000")]),
        input: &["1"],
        words: "given up (OutOfTime",
        counts: ("in 1, out 0, filtered 0, errors 0, dead 1", "in 1, out 1,"),
    },
    Bite {
        key: "memory.instance",
        low: "memory: { instance: 512Ki }",
        high: "memory: { instance: 4Mi }",
        link: ("map", "hostile_attacks", &[("attack", "bytes"), ("amount", "400000"), ("marker", "1")]),
        input: FIVE,
        words: "given up (MemoryRefused",
        counts: ("in 5, out 4, filtered 0, errors 0, dead 1", "in 5, out 5,"),
    },
    Bite {
        key: "memory.total",
        // The component has some 95 KiB, an instance starts with less than 512 KiB.
        low: "memory: { total: 900Ki }",
        high: "memory: { total: 8Mi }",
        link: ("map", "hostile_attacks", &[("attack", "bytes"), ("amount", "500000"), ("marker", "1")]),
        input: FIVE,
        words: "given up (MemoryRefused",
        counts: ("in 5, out 4, filtered 0, errors 0, dead 1", "in 5, out 5,"),
    },
    Bite {
        key: "engine",
        low: "engine: fuel\n  output: { bytes: 8Mi }",
        high: "engine: large\n  output: { bytes: 8Mi }",
        // Built and copied out, more than the 4 MiB of a slot of the engine `fuel`.
        link: ("map", "hostile_attacks", &[("attack", "bytes"), ("amount", "3000000"), ("marker", "1")]),
        input: &["1"],
        words: "given up (MemoryRefused",
        counts: ("in 1, out 0, filtered 0, errors 0, dead 1", "in 1, out 1,"),
    },
    Bite {
        key: "output.messages",
        low: "output: { messages: 40 }",
        high: "output: { messages: 51 }",
        link: ("map", "hostile_attacks", &[("attack", "messages"), ("amount", "50"), ("marker", "1")]),
        input: &["1"],
        words: "given up (BadOutput",
        counts: ("in 1, out 0, filtered 0, errors 0, dead 1", "in 1, out 51,"),
    },
    Bite {
        key: "output.bytes",
        low: "output: { bytes: 200Ki }",
        high: "output: { bytes: 512Ki }",
        link: ("map", "hostile_attacks", &[("attack", "bytes"), ("amount", "300000"), ("marker", "1")]),
        input: &["1"],
        words: "given up (BadOutput",
        counts: ("in 1, out 0, filtered 0, errors 0, dead 1", "in 1, out 1,"),
    },
    Bite {
        key: "payload",
        low: "payload: 8B",
        high: "payload: 10B",
        link: ("map", "pass_through", &[]),
        input: &["1", "1234567890", "2"],
        words: "line 2: ",
        counts: ("in 2, out 2,", "in 3, out 3,"),
    },
    Bite {
        key: "faults.retries",
        low: "faults: { retries: 0 }",
        high: "faults: { retries: 1 }",
        // Every third message that an instance sees traps, and passes on a fresh one.
        link: ("map", "hostile_attacks", &[("attack", "trap"), ("every", "3")]),
        input: FIVE,
        words: "given up (Trap",
        counts: ("in 5, out 4, filtered 0, errors 0, dead 1", "in 5, out 5,"),
    },
    Bite {
        key: "onError",
        low: "onError: deadLetter",
        high: "onError: drop",
        link: ("filter", "json_filter", &[("field", "t"), ("op", "gt"), ("value", "0")]),
        input: &[r#"{"t":1}"#, "{}", r#"{"t":2}"#],
        words: "given up (OperatorError",
        counts: ("in 3, out 2, filtered 0, errors 0, dead 1", "in 3, out 2, filtered 0, errors 1, dead 0"),
    },
    Bite {
        key: "component.size",
        low: "component: { size: 10Ki }",
        high: "component: { size: 8Mi }",
        link: ("map", "pass_through", &[]),
        input: FIVE,
        words: "policy's `component.size` allows 10240",
        counts: ("", "in 5, out 5,"),
    },
    Bite {
        key: "component.compileTime",
        low: "component: { compileTime: 1ms }",
        high: "component: { compileTime: 60s }",
        link: ("map", "pass_through", &[]),
        input: FIVE,
        words: "compiling took longer than 1ms, policy's `component.compileTime`",
        counts: ("", "in 5, out 5,"),
    },
    Bite {
        key: "component.compileMemory",
        // The process alone takes more.
        low: "component: { compileMemory: 16Mi }",
        high: "component: { compileMemory: 1Gi }",
        link: ("map", "pass_through", &[]),
        input: FIVE,
        words: "more than 16777216 bytes of memory, policy's `component.compileMemory`",
        counts: ("", "in 5, out 5,"),
    },
    Bite {
        key: "state.windows",
        low: "state: { windows: 0Ki }",
        high: "state: { windows: 1Mi }",
        link: ("delay", "align", &[]),
        input: FIVE,
        words: "given up (WindowsFull",
        counts: ("in 5, out 0, filtered 0, errors 0, dead 5", "in 5, out 5,"),
    },
];

/// Tested below or elsewhere, where `tidegate run` has no part in it.
const ELSEWHERE: &[&str] = &[
    "buffer",
    "commands",
    "connections",
    "dataflows",
    "deadLetters.age",
    "deadLetters.bytes",
    "deadLetters.count",
    "endpoints",
    "faults.coolDown",
    "faults.quarantineAfter",
    "faults.within",
    "inference.memory",
    "inference.model",
    "inference.time",
    "inflight",
    "instances",
    "late",
    "log.bytes",
    "log.lines",
    "metrics.series",
    "state.bytes",
    "state.keys",
    "state.value",
    "time.idle",
    "time.lateness",
    "time.tick",
    "weight",
];

#[test]
fn a_limit_bites_and_raised_it_lets_the_same_work_pass() {
    for bite in BITES {
        let run = |limit: &str| {
            let site = SiteFolder::new("{}", "127.0.0.1:1");
            site.policy("p", &[limit]);
            site.dataflow("a", "flow", &[bite.link]);
            site.write("input", &(bite.input.join("\n") + "\n"));
            let artifacts = site.path().join("tenants/a/artifacts");
            // A cache of its own: what was compiled before takes no time.
            let cache = if bite.key.starts_with("component.compile") {
                site.path().to_owned()
            } else {
                env!("CARGO_TARGET_TMPDIR").into()
            };
            let mut command = tidegate();
            command.env("XDG_CACHE_HOME", cache).arg("run").arg(artifacts.join("flow/1.yaml"));
            command.arg("--artifacts").arg(&artifacts).arg("--input").arg(site.path().join("input"));
            output(command.arg("--policy").arg(site.path().join("platform/policy-p.yaml")))
        };
        let (low, high) = (run(bite.low), run(bite.high));
        let said = &low.stderr;
        assert_eq!(low.code, Some(1), "{}: {said}", bite.key);
        assert!(said.contains(bite.words) && said.contains(bite.counts.0), "{}: {said}", bite.key);
        assert_eq!(high.code, Some(0), "{}: {}", bite.key, high.stderr);
        assert!(high.stderr.contains(bite.counts.1), "{}: {}", bite.key, high.stderr);
    }
}

#[test]
fn connections_and_endpoints_bite_before_anything_starts() {
    let local = |read: &str, write: &str| {
        format!("endpoints: [ {{ name: local, read: [ \"{read}\" ], write: [ \"{write}\" ] }} ]")
    };
    let elsewhere = local("a/#", "a/out/#").replace("local", "other");
    let (read, write) = (local("a/other", "a/out/#"), local("a/#", "a/out/other"));
    let granted = local("a/in/flow", "a/out/flow");
    for (low, high, rule) in [
        ("connections: 1", "connections: 2", "tenant/connections"),
        (&read, &granted, "dataflow/read-right"),
        (&write, &granted, "dataflow/write-right"),
        (&elsewhere, &granted, "dataflow/endpoint-right"),
    ] {
        let check = |limit: &str| {
            let site = SiteFolder::new("{ shards: 1 }", "127.0.0.1:1");
            site.policy("p", &[limit]);
            site.tenant("a", "p");
            site.dataflow("a", "flow", &[("map", "pass_through", &[])]);
            output(tidegate().args(["check", "--json"]).arg(site.path()))
        };
        let refused = check(low);
        assert_eq!(refused.code, Some(1), "{low}: {refused:?}");
        assert!(refused.stdout.contains(rule), "{low}: {}", refused.stdout);
        check(high).expect_success();
    }
}

#[test]
fn pinned_operators_have_an_instance_each_before_anything_starts() {
    let pass: Link<'_> = ("map", "pass_through", &[]);
    // Pinned operators, whether there are others beside them, and how many that takes.
    for (pinned, others, needed) in
        [(&[pass, pass][..], false, 2), (&[pass], true, 2), (&[pass, pass], true, 3)]
    {
        let check = |instances: usize| {
            let site = SiteFolder::new("{ shards: 1 }", "127.0.0.1:1");
            site.policy("p", &[&format!("instances: {instances}")]);
            site.tenant("a", "p");
            site.dataflow("a", "kept", pinned);
            let path = "tenants/a/dataflows/kept.yaml";
            let flow = std::fs::read_to_string(site.path().join(path)).expect("it is there");
            let named = "name: kept, annotations: { tidegate.dev/pinned: \"true\" }";
            site.write(path, &flow.replacen("name: kept", named, 1));
            if others {
                site.dataflow("a", "other", &[pass, pass]);
            }
            output(tidegate().args(["check", "--json"]).arg(site.path()))
        };
        let refused = check(needed - 1);
        assert_eq!(refused.code, Some(1), "{needed}: {refused:?}");
        assert!(refused.stdout.contains("tenant/instances"), "{needed}: {}", refused.stdout);
        check(needed).expect_success();
    }
}

#[test]
fn mqtt_a_topic_that_an_operator_sets_is_held_against_the_policy_too() {
    let Some(broker) = Mosquitto::start(&[]) else { return };
    let site = SiteFolder::new("{ shards: 1 }", &broker.address());
    let link: Link<'_> = ("map", "json_enrich", &[("topic", "public/news")]);
    for (tenant, write) in [("low", "{tenant}/out/#"), ("high", "public/#")] {
        let endpoints = format!("endpoints: [ {{ name: local, read: [ \"#\" ], write: [ \"{write}\" ] }} ]");
        site.policy(tenant, &[&endpoints]);
        site.tenant(tenant, tenant);
        let from = format!("{tenant}/in");
        site.dataflow_between(tenant, "flow", ("local", &from), &[link], ("local", "${outputTopic}"));
    }
    let subscriber = Subscriber::new(broker.port, "public/#");
    let host = Host::up(site.path());
    let message = |tenant: &str| {
        let payload = format!("{{\"from\":\"{tenant}\"}}").into_bytes();
        (format!("{tenant}/in"), payload, PublishProperties::default())
    };
    publish_all(broker.port, ["low", "high"].map(message));
    eventually("the granted one arrives", || subscriber.len() == 1);
    let status = host.wait_for("both are settled", |status| {
        status.count("low/flow", "settled") == 1 && status.count("high/flow", "settled") == 1
    });
    assert_eq!((status.count("low/flow", "delivered"), status.count("low/flow", "dead")), (0, 1));
    assert_eq!((status.count("high/flow", "delivered"), status.count("high/flow", "dead")), (1, 0));
    let dead = host.dead_letters();
    assert_eq!((dead.len(), &*dead[0].tenant, dead[0].reason), (1, "low", Reason::Rejected), "{dead:?}");
    assert_eq!(subscriber.len(), 1);
    host.stop();
}

/// Reads a file, and is given up by an operator that traps on every message.
fn traps_on_a_file(site: &SiteFolder, tenant: &str, limit: &str) {
    let endpoints = "endpoints: [ { name: in, read: [ \"#\"] }, { name: out, write: [ \"#\" ] } ]";
    // However many it gives up, it goes on.
    let faults = "faults: { retries: 0, coolDown: 0s, quarantineAfter: 10000, within: 1us }";
    site.policy(tenant, &[&format!("deadLetters: {{ {limit} }}"), faults, endpoints]);
    site.tenant(tenant, tenant);
    let link = ("map", "hostile_attacks", &[("attack", "trap"), ("every", "1")][..]);
    site.dataflow_between(tenant, "flow", ("in", "in"), &[link], ("out", "out"));
}

#[test]
fn dead_letters_are_kept_up_to_a_count_a_size_and_an_age() {
    let site = SiteFolder::new("{ shards: 2 }", "127.0.0.1:1");
    for (name, spec) in [
        ("in", "{ endpointType: File, fileSettings: { path: in.jsonl } }"),
        ("out", "{ endpointType: Memory }"),
    ] {
        let text = format!(
            "apiVersion: tidegate.dev/v1\nkind: DataflowEndpoint\nmetadata: {{ name: {name} }}\nspec: {spec}\n"
        );
        site.write(&format!("platform/{name}.yaml"), &text);
    }
    for (key, low, high) in [("count", "3", "5"), ("bytes", "1200B", "1Mi"), ("age", "1s", "1h")] {
        traps_on_a_file(&site, &format!("{key}-low"), &format!("{key}: {low}"));
        traps_on_a_file(&site, &format!("{key}-high"), &format!("{key}: {high}"));
    }
    site.write("in.jsonl", "1\n2\n3\n4\n5\n");
    let host = Host::up(site.path());
    let kept = |tenant: &str| {
        let letters = host.dead_letters().into_iter().filter(|letter| letter.tenant == tenant);
        letters.map(|letter| letter.payload.expect("a number")).collect::<Vec<_>>()
    };
    let counter = |tenant: &str, key: &str| {
        let status = host.status();
        let tenants = status.0["tenants"].as_array().expect("tenants");
        let of = tenants.iter().find(|it| it["name"] == tenant).expect("it runs");
        of["deadLetters"][key].as_u64().expect("a counter")
    };
    host.wait_for("all are given up and settled", |status| {
        ["count-low", "count-high", "bytes-low", "bytes-high", "age-low", "age-high"].iter().all(|tenant| {
            let flow = format!("{tenant}/flow");
            status.count(&flow, "dead") == 5
                && status.count(&flow, "settled") == status.count(&flow, "deliveries")
        })
    });
    assert_eq!(
        (kept("count-low"), counter("count-low", "displaced")),
        (vec!["3".into(), "4".into(), "5".into()], 2)
    );
    let few = kept("bytes-low");
    assert!((1..5).contains(&few.len()) && few.last().is_some_and(|it| it == "5"), "{few:?}");
    assert!((1..=1200).contains(&counter("bytes-low", "bytes")));
    assert_eq!(counter("bytes-low", "displaced"), 5 - few.len() as u64);
    eventually("those that are too old go", || kept("age-low").is_empty());
    assert_eq!((counter("age-low", "expired"), counter("age-low", "count")), (5, 0));
    for tenant in ["count-high", "bytes-high", "age-high"] {
        assert_eq!(kept(tenant).len(), 5, "{tenant}");
        assert_eq!((counter(tenant, "displaced"), counter(tenant, "expired")), (0, 0), "{tenant}");
    }
    host.stop();
}

#[test]
fn credit_in_flight_holds_a_source_until_what_it_sent_is_settled() {
    for (inflight, admitted) in [(256 << 10, false), (1 << 20, true)] {
        let mut rig = Rig::new(8, 4);
        let tenant = Tenant::new("a", Limits { inflight_bytes_max: inflight, ..Limits::default() });
        let mut flow = rig.install(&tenant, "flow", &[("pass_through", Map, &[])]);
        let large = "x".repeat(200 << 10);
        flow.send(&[&large]);
        rig.settle();
        let mut ctx = Context::from_waker(Waker::noop());
        let credit = flow.source.poll_credit(large.len(), &mut ctx);
        assert_eq!(credit.is_ready(), admitted, "{inflight}");
        drop(credit);
        // Written and confirmed, it makes room for the next.
        assert_eq!(flow.receive(), [large.as_str()]);
        rig.settle();
        assert!(flow.source.poll_credit(large.len(), &mut ctx).is_ready(), "{inflight}");
    }
}

#[test]
fn instances_live_at_once_are_as_many_as_allowed() {
    for (instances, retires) in [(1, true), (2, false)] {
        let mut rig = Rig::new(8, 4);
        let tenant = Tenant::new("a", Limits { instances_max: instances, ..Limits::default() });
        let link = ("pass_through", Map, &[][..]);
        let mut flow = rig.install(&tenant, "flow", &[link, link]);
        let mut most = 0;
        for number in 0..10 {
            flow.send(&[number.to_string()]);
            rig.settle();
            most = most.max(tenant.instances.load(std::sync::atomic::Ordering::Relaxed));
            assert_eq!(flow.receive(), [number.to_string()]);
        }
        assert_eq!(most, instances);
        let retired: u64 = flow.plan.operators().map(|operator| operator.stats.retired.get()).sum();
        assert_eq!(retired > 0, retires, "{retired} with {instances}");
    }
}

#[test]
fn a_tenant_has_as_many_dataflows_as_allowed() {
    for (allowed, code) in [(1, 1), (2, 0)] {
        let site = SiteFolder::new("{ shards: 1 }", "127.0.0.1:1");
        site.policy("p", &[&format!("dataflows: {allowed}")]);
        site.tenant("a", "p");
        for flow in ["one", "two"] {
            site.dataflow("a", flow, &[("map", "pass_through", &[])]);
        }
        let check = output(tidegate().args(["check", "--json"]).arg(site.path()));
        assert_eq!(check.code, Some(code), "{allowed}: {check:?}");
        assert_eq!(check.stdout.contains("tenant/dataflows"), code == 1, "{}", check.stdout);
    }
}

#[test]
fn a_dataflow_that_would_pass_its_tenant_s_memory_is_refused_with_the_amount() {
    for (total, code) in [("100Ki", 1), ("4Mi", 0)] {
        let site = SiteFolder::new("{ shards: 1 }", "127.0.0.1:1");
        site.policy("p", &[&format!("memory: {{ total: {total} }}")]);
        site.tenant("a", "p");
        site.dataflow("a", "flow", &[("map", "hostile_attacks", &[("attack", "trap")])]);
        let check = output(tidegate().args(["check", "--json"]).arg(site.path()));
        assert_eq!(check.code, Some(code), "{total}: {check:?}");
        assert_eq!(check.stdout.contains("tenant/memory"), code == 1, "{}", check.stdout);
        assert_eq!(check.stdout.contains("`memory.total` allows 100 KiB"), code == 1, "{}", check.stdout);
    }
}

#[test]
fn lines_that_a_tenant_logs_are_as_many_as_allowed_and_nobody_waits_for_them() {
    let few = LogLimits { lines_max: 20, bytes_max: 1 << 20 };
    let short = LogLimits { lines_max: 1_000, bytes_max: 1_000 };
    let many = LogLimits { lines_max: 1_000, bytes_max: 1 << 20 };
    for (log, left_out) in [(few, true), (short, true), (many, false)] {
        let mut waiting = Waiting::new();
        let tenant = Tenant::new("a", Limits { log, ..Limits::default() });
        let link = ("hostile_attacks", Map, &[("attack", "log"), ("amount", "50")][..]);
        let mut flow = waiting.rig.install(&tenant, "flow", &[link]);
        flow.send(&["attack"]);
        assert_eq!(waiting.run(&flow, waiting.now()), ["attack"], "{log:?}");
        assert_eq!(tenant.log.left_out.get() > 0, left_out, "{log:?}");
    }
}

#[test]
fn series_of_a_tenant_are_as_many_as_allowed() {
    // A counter and a histogram, for each of two operators.
    for (series_max, errors) in [(3, true), (4, false)] {
        let mut rig = Rig::new(8, 4);
        let tenant = Tenant::new("a", Limits { series_max, ..Limits::default() });
        let link = ("aio_metrics", Map, &[][..]);
        let mut flow = rig.install(&tenant, "flow", &[link, link]);
        flow.send(&["one"]);
        rig.settle();
        flow.receive();
        assert_eq!(flow.plan.stats.errors.get() > 0, errors, "{series_max}");
        assert_eq!(tenant.series.used(), series_max.min(4));
    }
}

/// Keys that a mapping may have, as the error about one that it may not have lists them.
fn known_keys(of: &str) -> Vec<String> {
    let site = SiteFolder::new("{}", "127.0.0.1:1");
    let nonsense = "qqqqqqqqqqqqqqqqqqqq: 1";
    let line = if of.is_empty() { nonsense.to_owned() } else { format!("{of}: {{ {nonsense} }}") };
    site.policy("p", &[&line]);
    let check = output(tidegate().arg("check").arg(site.path().join("platform/policy-p.yaml")));
    let known = check.stderr.lines().find_map(|line| line.split_once("known here: "));
    let keys = known.map(|(_, keys)| keys.split(", ").map(|key| key.trim().to_owned()).collect());
    keys.unwrap_or_default()
}

/// Every key that a policy may have, `group.key` where it is in a group.
fn all_keys() -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    for key in known_keys("") {
        let group = if key == "endpoints" { Vec::new() } else { known_keys(&key) };
        match group.as_slice() {
            [] => _ = keys.insert(key),
            group => keys.extend(group.iter().map(|inner| format!("{key}.{inner}"))),
        }
    }
    assert!(keys.len() > 40, "{keys:?}");
    keys
}

#[test]
fn every_key_that_a_policy_may_have_has_its_test() {
    let mut keys = all_keys();
    assert!(keys.remove("world"), "it is no limit: {keys:?}");
    let tested = BITES.iter().map(|bite| bite.key).chain(rates::keys()).chain(ELSEWHERE.iter().copied());
    assert_eq!(keys, tested.map(str::to_owned).collect());
}

#[test]
fn every_key_that_a_policy_may_have_is_explained_with_where_it_comes_from() {
    let site = SiteFolder::new("{ shards: 1 }", "127.0.0.1:1");
    site.policy("p", &["memory: { total: 32Mi }", "onError: deadLetter"]);
    site.write(
        "platform/tenant-a.yaml",
        "apiVersion: tidegate.dev/v1\nkind: Tenant\nmetadata: { name: a }\n\
         spec: { policy: p, limits: { memory: { total: 16Mi } } }\n",
    );
    site.tenant("shipped", "standard");
    let explain = |tenant: &str, json: &[&str]| {
        output(tidegate().args(["check", "--explain", tenant]).args(json).arg(site.path()))
    };
    let shown = explain("a", &["--json"]);
    assert_eq!(shown.code, Some(0), "{shown:?}");
    let document: Value = serde_json::from_str(&shown.stdout).expect("a JSON document");
    let limits = document["explained"]["limits"].as_array().expect("a list").clone();
    let key = |limit: &Value| limit["key"].as_str().expect("a key").to_owned();
    let keys = limits.iter().map(key).map(|key| key.replace("endpoints.local", "endpoints"));
    assert_eq!(keys.collect::<BTreeSet<_>>(), all_keys());
    for (wanted, value, from, at) in [
        ("memory.total", "16Mi", "tenant", Some(("platform/tenant-a.yaml", 4, 47))),
        ("onError", "deadLetter", "policy", Some(("platform/policy-p.yaml", 7, 12))),
        ("memory.instance", "4Mi", "default", None),
        ("fuel.rate", "unlimited", "default", None),
        ("calls.stateReads", "unlimited", "default", None),
        ("endpoints.local", "read 1, write 1", "policy", Some(("platform/policy-p.yaml", 8, 24))),
    ] {
        let limit = limits.iter().find(|limit| key(limit) == wanted).expect("it is explained");
        assert_eq!((limit["value"].as_str(), limit["from"].as_str()), (Some(value), Some(from)), "{wanted}");
        let place = at.map(|(file, line, column)| json!({ "file": file, "line": line, "column": column }));
        assert_eq!(limit["at"], json!(place), "{wanted}");
    }
    let table = explain("a", &[]).stdout;
    assert!(table.contains("tenant's own limits (platform/tenant-a.yaml:4:47)\n"), "{table}");
    assert!(table.contains("policy `p` (platform/policy-p.yaml:7:12)\n"), "{table}");
    let shipped = explain("shipped", &[]).stdout;
    assert!(shipped.contains("shipped policy `standard` (policies/standard.yaml:"), "{shipped}");
    assert!(table.lines().chain(shipped.lines()).all(|line| line.chars().count() <= 100), "{table}{shipped}");
    let nobody = explain("shiped", &[]);
    assert_eq!(nobody.code, Some(1));
    assert!(nobody.stderr.contains("no tenant `shiped`; did you mean `shipped`?"), "{}", nobody.stderr);
}
