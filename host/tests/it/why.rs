//! `tidegate status TENANT/DATAFLOW` on a real host: for each thing that can hold a
//! dataflow, the sentence that names it; and the step of the ladder that its tenant is on.

use std::{fs, io::Write as _, path::PathBuf};

use serde_json::Value;

use crate::{
    folder::{Link, SiteFolder},
    mosquitto::eventually,
    process::{Output, output, tidegate},
    site::Up,
};

/// Traps on the text `attack`, every time.
const TRAPS: Link<'_> = ("map", "hostile_attacks", &[("attack", "trap")]);
const PASSES: Link<'_> = ("map", "pass_through", &[]);

/// A site of the tenant `a`, its dataflows between files, or from a file to a broker that is
/// not there.
struct Bench {
    site: SiteFolder,
}

impl Bench {
    /// `keys` are lines of the policy.
    fn new(keys: &[&str]) -> Self {
        let site = SiteFolder::new("{ shards: 1 }", "127.0.0.1:1");
        let mut grants = String::from("endpoints: [ { name: local, read: [ \"#\" ], write: [ \"#\" ] }");
        for name in ["one", "two", "out"] {
            site.write(
                &format!("platform/{name}.yaml"),
                &format!(
                    "apiVersion: tidegate.dev/v1\nkind: DataflowEndpoint\nmetadata: {{ name: {name} }}\n\
                     spec: {{ endpointType: File, fileSettings: {{ path: {name}.jsonl }} }}\n"
                ),
            );
            grants += &format!(", {{ name: {name}, read: [ \"#\" ], write: [ \"#\" ] }}");
        }
        grants += " ]";
        let keys: Vec<_> = keys.iter().copied().chain([grants.as_str()]).collect();
        site.policy("p", &keys);
        site.tenant("a", "p");
        let bench = Bench { site };
        ["one", "two"].iter().for_each(|file| bench.append(file, ""));
        bench
    }

    /// From a file to an endpoint.
    fn flow(&self, name: &str, from: &str, link: Link<'_>, to: &str) {
        self.site.dataflow_between("a", name, (from, "in"), &[link], (to, "a/out"));
    }

    fn path(&self, file: &str) -> PathBuf {
        self.site.path().join(format!("{file}.jsonl"))
    }

    fn append(&self, file: &str, lines: &str) {
        let file = fs::OpenOptions::new().create(true).append(true).open(self.path(file));
        file.and_then(|mut file| file.write_all(lines.as_bytes())).expect("it can be written");
    }

    fn up(&self) -> Up {
        Up::start(tidegate().arg("up").arg(self.site.path())).expect("it starts")
    }

    fn run(&self, arguments: &[&str]) -> Output {
        output(tidegate().args(arguments).arg("--data").arg(self.site.path().join(".tidegate")))
    }

    fn why(&self, dataflow: &str) -> Value {
        let shown = self.run(&["status", "--json", dataflow]);
        shown.expect_success();
        serde_json::from_str(&shown.stdout).expect("a JSON document")
    }

    /// Until the sentence has these words; it is then the last line for people too.
    fn wait_for(&self, dataflow: &str, words: &str) -> Value {
        let mut why = Value::Null;
        eventually(words, || {
            why = self.why(dataflow);
            why["reason"].as_str().expect("a sentence").contains(words)
        });
        let shown = self.run(&["status", dataflow]);
        shown.expect_success();
        let last = shown.stdout.lines().last().unwrap_or_default();
        assert!(last.contains(words), "{}", shown.stdout);
        why
    }

    fn ladder(&self) -> Value {
        let shown = self.run(&["status", "--json"]);
        shown.expect_success();
        let status: Value = serde_json::from_str(&shown.stdout).expect("a JSON document");
        status["tenants"][0]["ladder"].clone()
    }

    fn wait_for_step(&self, step: &str) -> Value {
        let mut ladder = Value::Null;
        eventually(step, || {
            ladder = self.ladder();
            ladder["step"] == step
        });
        ladder
    }

    fn dead(&self) -> u64 {
        self.why("a/flow")["counters"]["dead"].as_u64().expect("a count")
    }
}

#[test]
fn a_source_without_messages_is_said_to_have_none_and_then_when_it_had() {
    let bench = Bench::new(&[]);
    bench.flow("flow", "one", PASSES, "out");
    let host = bench.up();
    let why = bench.wait_for("a/flow", "Nothing has come from its source yet: `in`.");
    assert_eq!(why["onShard"]["lastInMsAgo"], Value::Null);
    assert_eq!(why["onShard"]["frontier"], Value::Null);
    assert_eq!(bench.ladder()["step"], "running");
    bench.append("one", "1\n");
    let why = bench.wait_for("a/flow", "Nothing holds it: its last delivery came");
    assert!(why["onShard"]["lastWrittenMsAgo"].is_u64(), "{why}");
    let nobody = bench.run(&["status", "a/nothing"]);
    assert_eq!(
        (nobody.code, nobody.stderr.as_str()),
        (Some(1), "error: there is no dataflow `a/nothing` on this host\n")
    );
    // The deliveries that were settled have a latency, and the tenant a line.
    let table = bench.run(&["status"]).stdout;
    let line = table.lines().find(|line| line.starts_with("a ")).expect("a line for the tenant");
    assert!(line.ends_with("  running") && !line.contains(" -"), "{table}");
    assert!(table.lines().all(|line| line.chars().count() <= 100), "{table}");
    host.stop();
}

#[test]
fn a_circuit_that_is_open_is_the_reason_and_then_the_quarantine_until_it_is_resumed() {
    let bench = Bench::new(&["faults: { retries: 0, coolDown: 1s, quarantineAfter: 5, within: 1h }"]);
    bench.flow("flow", "one", TRAPS, "out");
    let host = bench.up();
    for count in 1..=3 {
        bench.append("one", "\"attack\"\n");
        eventually("it is given up", || bench.dead() == count);
    }
    bench.wait_for("a/flow", "The circuit of `a/flow` is open: its guests failed again and again");
    for count in 4..=5 {
        bench.append("one", "\"attack\"\n");
        eventually("it is given up", || bench.dead() == count);
    }
    let why = bench.wait_for("a/flow", "`a/flow` is in quarantine: 5 messages or more");
    assert_eq!(why["onShard"]["circuit"]["state"], "quarantine");
    assert_eq!(why["onShard"]["lastGivenUp"]["reason"], "trap");
    assert_eq!(why["onShard"]["lastGivenUp"]["operation"], "step-0");
    let ladder = bench.wait_for_step("quarantine");
    assert!(ladder["cause"].as_str().is_some_and(|cause| cause.starts_with("flow: 5 messages")), "{ladder}");
    assert_eq!(ladder["entered"]["quarantine"], 1);
    assert_eq!(ladder["entered"]["deadLettering"].as_u64().map(|times| times > 0), Some(true), "{ladder}");
    let shown = bench.run(&["status"]).stdout;
    assert!(
        shown.contains(&format!("  a quarantine since {}: flow: 5", ladder["since"].as_str().unwrap_or("-"))),
        "{shown}"
    );
    bench.run(&["resume", "a/flow"]).expect_success();
    bench.wait_for_step("running");
    let log = host.log();
    for step in ["deadLettering", "quarantine", "running"] {
        let event = format!("a tenant's step of the ladder is another tenant=\"a\" step=\"{step}\"");
        assert!(log.contains(&event), "{event}: {log}");
    }
    host.stop();
}

#[test]
fn fuel_that_is_used_up_is_the_reason_with_when_it_goes_on() {
    let bench = Bench::new(&["fuel: { rate: 1K, burst: 1M }"]);
    bench.flow("flow", "one", ("map", "hostile_busy", &[("micros", "2000")]), "out");
    bench.append("one", "1\n2\n");
    let host = bench.up();
    let why = bench.wait_for("a/flow", "The tenant `a` has used up its fuel: 1K comes back a second, ");
    assert_eq!(why["onShard"]["isThrottled"], true);
    assert_eq!(why["onShard"]["frontier"]["at"], "operator");
    assert_eq!(why["onShard"]["frontier"]["operator"], "a/flow/step-0");
    let buckets = why["onShard"]["buckets"].as_array().expect("a list");
    let fuel = buckets.iter().find(|bucket| bucket["of"] == "fuel").expect("it is limited");
    assert!(fuel["level"].as_i64() < Some(0) && fuel["opensInMs"].as_u64() > Some(1_000), "{fuel}");
    let ladder = bench.wait_for_step("throttled");
    assert_eq!(ladder["cause"], "it has used up its fuel (`fuel.rate`)");
    drop(host);
}

#[test]
fn a_sink_that_is_not_there_is_the_reason_and_then_the_credit_that_it_holds() {
    let bench = Bench::new(&["inflight: 8Ki", "payload: 4Ki"]);
    bench.flow("flow", "one", PASSES, "local");
    bench.flow("other", "two", PASSES, "out");
    bench.append("one", "1\n");
    let host = bench.up();
    let why = bench.wait_for("a/flow", "The sink `local` cannot be reached (");
    assert!(
        why["reason"].as_str().is_some_and(|reason| reason.ends_with("1 delivery waits for it.")),
        "{why}"
    );
    assert_eq!(why["onShard"]["frontier"]["at"], "confirmation");
    let line = format!("\"{}\"\n", "x".repeat(3_900));
    bench.append("one", &line.repeat(4));
    eventually("no credit is left", || bench.why("a/flow")["credit"]["isWaitedFor"] == true);
    bench.append("two", &line);
    let why = bench.wait_for("a/other", "The tenant `a` has no credit left: ");
    assert_eq!(why["counters"]["received"], 0);
    let ladder = bench.wait_for_step("paused");
    assert_eq!(ladder["cause"], "all its credit is in flight (`inflight`)");
    drop(host);
}

#[test]
fn messages_that_go_another_way_than_out_are_the_reason() {
    let bench = Bench::new(&[]);
    let filter = ("filter", "json_filter", &[("field", "t"), ("op", "gt"), ("value", "5")][..]);
    bench.flow("flow", "one", filter, "out");
    bench.flow("other", "two", filter, "out");
    bench.append("one", "{\"t\":1}\n{\"t\":2}\n");
    bench.append("two", "{}\n");
    let host = bench.up();
    bench.wait_for("a/flow", "2 of 2 messages were filtered, and none is left.");
    bench.wait_for(
        "a/other",
        "1 of 1 messages were dropped because an operator of `a/other` returned an error",
    );
    host.stop();
}
