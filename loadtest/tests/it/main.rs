//! The program as its users run it: on a real host and broker, and on a link that loses
//! messages on purpose. What the ledger says is compared with what is known otherwise.

mod link;

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde_json::Value;
use tidegate_loadtest::{
    connector::Connector,
    host, kafka,
    scorecard::{Figures, Scorecard},
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_tidegate-loadtest");

/// A run that ended: its status, and what it said.
struct Ended {
    status: ExitStatus,
    stdout: String,
    stderr: String,
}

impl Ended {
    fn code(&self) -> Option<i32> {
        self.status.code()
    }

    fn scorecard(&self) -> Scorecard {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}\n{}", self.stdout, self.stderr))
    }
}

/// Runs the program with its temporary files in `folder`.
fn run(folder: &Path, args: &[&str]) -> Ended {
    let output = command(folder).args(args).output().expect("it runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    Ended { status: output.status, stdout: text(output.stdout), stderr: text(output.stderr) }
}

fn command(folder: &Path) -> Command {
    let mut command = Command::new(PROGRAM);
    command.env("TMPDIR", folder).env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

/// A folder that the test may find in the names of processes and that nobody else has.
fn folder() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("loadtest-it-").tempdir().expect("a folder")
}

/// These tests are about a real host, and say how to get one rather than pass without. One
/// at a time: all of them run on the same core.
fn need_a_host() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    let beside = Path::new(PROGRAM).with_file_name("tidegate");
    let there =
        std::env::var_os("TIDEGATE_BINARY").map_or(beside.is_file(), |path| Path::new(&path).is_file());
    assert!(
        there,
        "no host to test: `cargo build -p tidegate` makes {}, or name one in TIDEGATE_BINARY",
        beside.display()
    );
    let guests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tenants/target/wasm32-wasip2/release");
    assert!(guests.join("unit_convert.wasm").is_file(), "no guests: `cargo xtask guests` builds them");
    // A test that failed before has said so.
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// No process and no file of a run is left.
fn assert_nothing_left(folder: &Path) {
    let name = folder.display().to_string();
    for process in fs::read_dir("/proc").expect("Linux").flatten() {
        let words = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&words).replace('\0', " ");
        assert!(!words.contains(&name), "it still runs: {words}");
    }
    let left = fs::read_dir(folder).expect("a folder").flatten();
    let left: Vec<PathBuf> = left
        .map(|entry| entry.path())
        .filter(|path| path.to_string_lossy().contains("tidegate-loadtest-"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

fn write(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    fs::write(&path, text).expect("written");
    path.display().to_string()
}

#[test]
fn smoke_holds_on_a_real_host_and_leaves_a_page() {
    let _one = need_a_host();
    let folder = folder();
    let out = folder.path().join("out");
    let out_arg = out.display().to_string();
    let ended = run(folder.path(), &["run", "smoke", "--seconds", "3", "--json", "--out", &out_arg]);
    assert_eq!(ended.code(), Some(0), "{}\n{}", ended.stdout, ended.stderr);
    let scorecard = ended.scorecard();
    let load = scorecard.rows[0].quiet.alone.as_ref().expect("it ran");
    assert_eq!((load.sent, load.came, load.lost, load.duplicated), (1_200, 1_200, 0, 0));
    assert!(load.p50_ms > 0.0 && load.p50_ms <= load.p99_ms && load.p99_ms <= load.max_ms);
    assert!(scorecard.holds && !scorecard.interrupted && scorecard.unexpected == 0);
    let memory = scorecard.memory.expect("the host is its own");
    assert!(memory.peak_bytes > 10 << 20, "{memory:?}");
    let page = fs::read_to_string(out.join("scorecard.html")).expect("a page");
    for chart in ["p99", "percentiles", "throughput", "latency", "memory", "cpu"] {
        assert!(page.contains(&format!("<svg id=\"chart-{chart}\"")), "{chart}");
    }
    let again = out.join("again.html").display().to_string();
    let result = out.join("result.json").display().to_string();
    assert_eq!(run(folder.path(), &["report", &result, "--output", &again]).code(), Some(0));
    assert_eq!(fs::read_to_string(again).expect("a page"), page);
    assert_nothing_left(folder.path());
}

/// Whether tests that need Kafka are to be left out, which `cargo xtask test` says aloud.
fn is_without_kafka() -> bool {
    let without = kafka::find().is_none();
    assert!(!without || std::env::var_os("TIDEGATE_WITHOUT_KAFKA").is_some(), "no Kafka: {}", kafka::INSTALL);
    without
}

#[test]
fn a_scenario_runs_over_every_connector() {
    let _one = need_a_host();
    let without = is_without_kafka();
    for connector in Connector::ALL.into_iter().filter(|it| !(without && it.is_kafka())) {
        let folder = folder();
        let name = connector.name();
        // The host's failures are these connectors' as well.
        for scenario in ["smoke", "kill-9"] {
            let ended =
                run(folder.path(), &["run", scenario, "--connector", name, "--seconds", "3", "--json"]);
            assert_eq!(ended.code(), Some(0), "{scenario} over {name}: {}\n{}", ended.stdout, ended.stderr);
            let scorecard = ended.scorecard();
            let row = &scorecard.rows[0];
            let load = row.quiet.alone.as_ref().expect("it ran");
            assert!(load.sent > 1_000 && load.came == load.sent, "{scenario} over {name}: {load:?}");
            assert_eq!((load.duplicated, scorecard.unexpected), (0, 0), "{scenario} over {name}");
            if scenario == "kill-9" {
                let beside = row.quiet.beside.as_ref().expect("it ran");
                assert!(beside.sent > 1_000 && beside.lost == 0, "over {name}: {beside:?}");
                assert!(row.beside.as_ref().is_some_and(|record| record.times > 0), "over {name}");
                // Transactions are what keeps a record from coming twice.
                if connector == Connector::Transactions {
                    assert_eq!(beside.duplicated, 0);
                }
            }
        }
        assert_nothing_left(folder.path());
    }
}

#[test]
fn an_attack_runs_beside_quiet_tenants_who_lose_nothing() {
    let _one = need_a_host();
    let folder = folder();
    let text = "name: attacked\nabout: One attack.\nphase: 2s\ntenants: { count: 4 }\n\
        arrivals: { shape: poisson, rate: 200/s }\n\
        messages: { template: '{\"id\":\"{id}\",\"temperature\":{random 0.0..40.0}}' }\n\
        beside: { what: attacks, attackers: 2, only: [trap-loop] }\nthresholds: { lost: 0, duplicates: 0 }\n";
    let scenario = write(folder.path(), "attacked.yaml", text);
    let ended = run(folder.path(), &["run", &scenario, "--json"]);
    assert_eq!(ended.code(), Some(0), "{}\n{}", ended.stdout, ended.stderr);
    let row = &ended.scorecard().rows[0];
    let record = row.beside.as_ref().expect("it ran");
    assert!(
        record.sent > 0 && record.taken > 0 && record.errors > 0,
        "it must have hurt its host: {record:?}"
    );
    assert!(row.quiet.alone.as_ref().is_some_and(|figures| figures.came > 0));
    assert!(row.quiet.beside.as_ref().is_some_and(|figures| figures.came > 0 && figures.lost == 0));
    assert_nothing_left(folder.path());
}

#[test]
fn messages_that_an_operator_drops_are_lost_messages() {
    let _one = need_a_host();
    let folder = folder();
    // Passes about half of the messages, which nobody told the ledger.
    let text = "name: dropping\nabout: A filter drops what should come.\nphase: 2s\npatience: 2s\n\
        tenants: { count: 2 }\noperators:\n\
        \x20 - { guest: json_filter, kind: filter, configuration: { field: temperature, op: gt, value: \"20\" } }\n\
        arrivals: { shape: constant, rate: 100/s }\n\
        messages: { template: '{\"id\":\"{id}\",\"temperature\":{random 0.0..40.0}}' }\n";
    let scenario = write(folder.path(), "dropping.yaml", text);
    let ended = run(folder.path(), &["run", &scenario, "--json"]);
    assert_eq!(ended.code(), Some(1), "{}\n{}", ended.stdout, ended.stderr);
    let scorecard = ended.scorecard();
    let load = scorecard.rows[0].quiet.alone.as_ref().expect("it ran");
    assert_eq!((load.sent, load.came + load.lost), (200, 200));
    assert!((50..150).contains(&load.lost), "{load:?}");
    // Of the first two messages, some may be lost as well.
    let mut missed = scorecard.checks.iter().filter(|check| !check.holds);
    assert!(missed.any(|check| check.name == "lost" && check.row.as_deref() == Some("load")));
    assert!(missed.all(|check| check.name == "lost"), "and nothing else");
    assert_nothing_left(folder.path());
}

const TWO_TENANTS: &str = "name: link\nabout: A link instead of a host.\nphase: 2s\npatience: 1s\n\
    tenants: { names: [a, b] }\narrivals: { shape: poisson, rate: 500/s }\n\
    messages: { template: 'x {id} {random 0..9}' }\nthresholds: { duplicates: 0 }\n";

#[test]
fn a_link_that_keeps_its_word_holds() {
    let folder = folder();
    let link = link::Link::start(link::Tampering::default());
    let scenario = write(folder.path(), "link.yaml", TWO_TENANTS);
    let ended = run(folder.path(), &["run", &scenario, "--json", "--against", &link.address()]);
    assert_eq!(ended.code(), Some(0), "{}\n{}", ended.stdout, ended.stderr);
    let scorecard = ended.scorecard();
    let all = [scorecard.first_messages, scorecard.overall.alone].map(|figures| figures.expect("it ran"));
    assert_eq!(all[0].came + all[1].came, link.counts().passed);
    assert!(scorecard.memory.is_none(), "nobody looks at somebody else's host");
}

#[test]
fn what_a_link_loses_doubles_and_reorders_is_counted_to_the_message() {
    let folder = folder();
    let link = link::Link::start(link::Tampering { every: Some(10), ..Default::default() });
    let scenario = write(folder.path(), "link.yaml", TWO_TENANTS);
    let ended = run(folder.path(), &["run", &scenario, "--json", "--against", &link.address()]);
    assert_eq!(ended.code(), Some(1), "{}\n{}", ended.stdout, ended.stderr);
    let scorecard = ended.scorecard();
    let all = [&scorecard.first_messages, &scorecard.overall.alone];
    let sum = |of: fn(&Figures) -> u64| all.into_iter().flatten().map(of).sum::<u64>();
    let counts = link.counts();
    assert!(
        counts.dropped > 10 && counts.doubled > 10 && counts.late > 10 && counts.strange > 10,
        "{counts:?}"
    );
    assert_eq!(
        [sum(|it| it.lost), sum(|it| it.duplicated), sum(|it| it.out_of_order), scorecard.unexpected],
        [counts.dropped, counts.doubled, counts.late, counts.strange]
    );
    for missed in ["lost", "duplicates", "outOfOrder", "unexpected"] {
        assert!(scorecard.checks.iter().any(|check| check.name == missed && !check.holds), "{missed}");
    }
}

#[test]
fn what_a_broker_did_not_acknowledge_is_sent_again() {
    let folder = folder();
    let link = link::Link::start(link::Tampering { hang_up_every: Some(100), ..Default::default() });
    let scenario = write(folder.path(), "link.yaml", &TWO_TENANTS.replace("duplicates: 0", "lost: 0"));
    let ended = run(folder.path(), &["run", &scenario, "--json", "--against", &link.address()]);
    assert_eq!(ended.code(), Some(0), "{}\n{}", ended.stdout, ended.stderr);
    let scorecard = ended.scorecard();
    let load = scorecard.rows[0].quiet.alone.as_ref().expect("it ran");
    assert!(load.sent > 500 && load.lost == 0 && load.out_of_order == 0, "{load:?}");
    // What was acknowledged in vain comes twice, and nothing else does.
    let first = scorecard.first_messages.as_ref().expect("it ran");
    assert_eq!(first.came + load.came + load.duplicated, link.counts().passed);
}

#[test]
fn a_broker_that_forgets_the_subscriber_is_found_out() {
    let folder = folder();
    let link = link::Link::start(link::Tampering { forget_at: Some(100), ..Default::default() });
    let scenario = write(folder.path(), "link.yaml", TWO_TENANTS);
    let ended = run(folder.path(), &["run", &scenario, "--json", "--against", &link.address()]);
    assert_eq!(ended.code(), Some(1), "{}\n{}", ended.stdout, ended.stderr);
    assert!(ended.stderr.contains("came back without the subscriber's session"), "{}", ended.stderr);
}

#[test]
fn ctrl_c_sums_up_what_ran_and_stops_what_was_started() {
    let _one = need_a_host();
    let folder = folder();
    let mut command = command(folder.path());
    command.args(["run", "steady", "--json"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it runs");
    let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
    // The first line of progress of the load, some seconds into it.
    let under_way = lines.find(|line| line.as_ref().is_ok_and(|line| line.contains("load: ")));
    assert!(under_way.is_some(), "it ended before it began");
    let id = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(id, rustix::process::Signal::INT).expect("it runs");
    let mut stdout = String::new();
    child.stdout.take().expect("piped").read_to_string(&mut stdout).expect("text");
    assert_eq!(child.wait().expect("it ends").code(), Some(130));
    let scorecard: Scorecard = serde_json::from_str(&stdout).expect("a scorecard");
    assert!(scorecard.interrupted);
    let load = scorecard.rows[0].quiet.alone.as_ref().expect("what ran");
    assert!(load.came > 0 && load.seconds < 60.0, "{load:?}");
    assert_nothing_left(folder.path());
}

#[test]
fn nothing_runs_with_an_error_in_its_scenario() {
    let folder = folder();
    let scenario = write(folder.path(), "wrong.yaml", &TWO_TENANTS.replace("phase: 2s", "fase: 2s"));
    let ended = run(folder.path(), &["run", &scenario]);
    assert_eq!(ended.code(), Some(2));
    assert!(ended.stderr.contains("wrong.yaml:3:1\n"), "{}", ended.stderr);
    assert!(ended.stderr.contains("did you mean `phase`?"), "{}", ended.stderr);
    let checked = run(folder.path(), &["check", &scenario, "--json"]);
    assert_eq!(checked.code(), Some(1));
    let found: Value = serde_json::from_str(&checked.stdout).expect("JSON");
    assert_eq!((&found["errors"], &found["diagnostics"][0]["line"]), (&2.into(), &1.into()));
    let good = write(folder.path(), "good.yaml", TWO_TENANTS);
    assert_eq!(run(folder.path(), &["check", &good]).code(), Some(0));
}

#[test]
fn wrong_usage_says_what_would_be_right() {
    let folder = folder();
    for (args, said) in [
        (&["run", "smok"][..], "did you mean `smoke`?"),
        (&["run", "nothing-like-it-at-all"], "there are smoke, steady"),
        (&["run", "smoke", "--seconds", "0"], "at least a second"),
        (&["run", "smoke", "--attack", "trap-loop"], "makes no attacks"),
        (&["run", "noisy-neighbour", "--attack", "trap-lop"], "did you mean `trap-loop`?"),
        (&["run", "smoke", "--against", "localhost"], "write HOST:PORT"),
        (&["run", "kill-9", "--against", "localhost:1"], "needs a host of its own"),
        (&["report"], "Usage"),
    ] {
        let ended = run(folder.path(), args);
        assert_eq!(ended.code(), Some(2), "{args:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(said), "{args:?}: {}", ended.stderr);
    }
    let nobody = run(folder.path(), &["run", "smoke", "--against", "127.0.0.1:1"]);
    assert_eq!(nobody.code(), Some(1));
    assert!(nobody.stderr.contains("cannot connect to the broker at 127.0.0.1:1"), "{}", nobody.stderr);
    assert!(host::version(Path::new("/nowhere")).is_empty());
}

#[test]
fn a_site_for_a_host_of_ones_own_has_the_scenarios_tenants() {
    let _one = need_a_host();
    let folder = folder();
    let site = folder.path().join("site");
    let site_arg = site.display().to_string();
    let ended = run(folder.path(), &["site", "noisy-neighbour", &site_arg, "--broker", "127.0.0.1:1883"]);
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    assert!(site.join("tenants/quiet-7/dataflows/flow.yaml").is_file());
    assert!(site.join("tenants/attack-endless-loop-1/artifacts/graph/1.yaml").is_file());
    let host = host::find().or_else(|_| {
        let beside = Path::new(PROGRAM).with_file_name("tidegate");
        beside.is_file().then_some(beside).ok_or(())
    });
    let checked =
        Command::new(host.expect("it was there")).arg("check").arg(&site).output().expect("it runs");
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    let other = folder.path().join("other").display().to_string();
    for (connector, code) in [("kafka", 0), ("http", 2)] {
        let args = ["site", "smoke", &other, "--broker", "127.0.0.1:9092", "--connector", connector];
        let ended = run(folder.path(), &args);
        assert_eq!(ended.code(), Some(code), "{connector}: {}", ended.stderr);
    }
    let again = run(folder.path(), &["site", "noisy-neighbour", &site_arg, "--broker", "127.0.0.1:1883"]);
    assert_eq!(again.code(), Some(2), "{}", again.stderr);
}

#[test]
fn what_there_is_is_listed() {
    let folder = folder();
    let ended = run(folder.path(), &["list", "--json"]);
    let list: Value = serde_json::from_str(&ended.stdout).expect("JSON");
    let names = |of: &str| list[of].as_array().expect("a list").len();
    assert_eq!((ended.code(), names("scenarios")), (Some(0), 9));
    assert!(names("attacks") >= 5);
    assert!(list["attacks"][0]["gets"].is_string());
}

#[test]
fn nothing_of_the_host_is_linked() {
    let manifest = include_str!("../../Cargo.toml");
    let dependencies = manifest.split_once("[dependencies]").expect("it has some").1;
    let of_ours =
        dependencies.lines().find(|line| line.starts_with("tidegate") || line.contains("path = \"../"));
    assert_eq!(of_ours, None, "a black box cannot be built from what is in it");
}
