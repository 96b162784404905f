//! What an operator of a host sees of it: status, dead letters, the control socket,
//! warnings at the start.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    os::unix::fs::PermissionsExt as _,
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use serde_json::Value;
use tidegate::{
    clock::{Clock, VirtualClock},
    guest::{OperatorKind::Map, engine::SLOTS_PER_INSTANCE_MAX, metrics::Reading},
};
use tidegate_benches::rig::{Rig, tenant};

use crate::{
    mosquitto::{eventually, free_port},
    outside::{numbers, publish_all},
    site::{Flow, Site, Up, tidegate},
};

const ENDPOINTS: [(&str, &str); 2] = [
    ("in", "{ endpointType: File, fileSettings: { path: in.jsonl } }"),
    ("memory", "{ endpointType: Memory }"),
];

const CONFIGURED: &str = "artifact: \"flow:1\", configuration: [ { key: attack, value: trap } ]";
const PARAMETERS: &str = "moduleConfigurations:
  - name: step-0
    parameters: { attack: { name: attack, description: which } }
";

/// Two tenants on one file; one traps on what it is told to.
fn site() -> Site {
    let site = Site::new("{ shards: 2 }", &ENDPOINTS);
    let flow = Flow {
        tenant: "a",
        name: "flow",
        from: ("in", "in"),
        to: ("memory", "out"),
        operators: &[("map", "aio_metrics")],
    };
    site.flow(&flow);
    site.flow(&Flow { tenant: "careless", operators: &[("map", "hostile_attacks")], ..flow });
    let path = "tenants/careless/dataflows/flow.yaml";
    let text = std::fs::read_to_string(site.dir().join(path)).expect("it is there");
    site.write(path, &text.replace("artifact: \"flow:1\"", CONFIGURED));
    let path = "tenants/careless/artifacts/flow/1.yaml";
    let text = std::fs::read_to_string(site.dir().join(path)).expect("it is there");
    site.write(path, &(text + PARAMETERS));
    site.write("in.jsonl", "\"one\"\n\"attack\"\n\"three\"\n");
    site
}

#[test]
fn status_and_dead_letters_say_what_happened() {
    let site = site();
    let host = site.up();
    eventually("all is settled", || {
        site.counter("a", "delivered") == 3
            && site.counter("careless", "delivered") + site.counter("careless", "dead") == 3
    });
    let all = site.run(&["status"]);
    assert_eq!(all.code, 0, "{}", all.stderr);
    assert!(all.stdout.contains("a/flow") && all.stdout.contains("careless/flow"), "{}", all.stdout);
    let one = site.run(&["status", "a"]);
    assert!(one.stdout.contains("a/flow") && !one.stdout.contains("careless"), "{}", one.stdout);
    assert!(one.stdout.contains("seen {kind=any} 3"), "{}", one.stdout);
    assert!(one.stdout.contains("weight {} 3, sum 1.5"), "{}", one.stdout);
    let nobody = site.run(&["status", "nobody"]);
    assert_eq!((nobody.code, nobody.stdout.as_str()), (1, ""));
    assert_eq!(nobody.stderr, "error: there is no tenant `nobody` on this host\n");
    let letters = site.run(&["dead-letters", "list"]);
    assert_eq!(letters.code, 0, "{}", letters.stderr);
    assert_eq!(letters.stdout.lines().count(), 2, "a header and a letter: {}", letters.stdout);
    let words: Vec<_> = letters.stdout.lines().nth(1).unwrap_or_default().split_whitespace().collect();
    assert_eq!((words[0], words[2], words[3]), ("1", "careless/flow/step-0", "trap"), "{words:?}");
    assert_eq!(site.run(&["dead-letters", "list", "a"]).stdout, "");
    let shown = site.run(&["dead-letters", "show", "1", "--tenant", "careless", "--json"]);
    let record: Value = serde_json::from_str(&shown.stdout).expect("a JSON document");
    assert_eq!((record["payload"].as_str(), record["reason"].as_str()), (Some("attack"), Some("trap")));
    let missing = site.run(&["dead-letters", "show", "2"]);
    assert_eq!(
        (missing.code, missing.stderr.as_str()),
        (1, "error: there is no dead letter 2; `tidegate dead-letters list` shows their numbers\n")
    );
    host.stop();
    // They are read without a host too; the state is not.
    assert_eq!(site.run(&["dead-letters", "list"]).stdout, letters.stdout);
    let gone = site.run(&["status"]);
    assert_eq!(gone.code, 1);
    assert!(gone.stderr.contains("no host runs on"), "{}", gone.stderr);
}

#[test]
fn how_much_fuel_a_second_is_stays_until_a_command_measures_it_again() {
    let site = site();
    let host = site.up();
    let kept = || site.status()["fuelPerCpuSecond"].as_u64();
    eventually("it is measured", || kept().is_some());
    let first = kept().expect("it is");
    // No machine is so slow or so fast.
    assert!((10_000_000..100_000_000_000).contains(&first), "{first}");
    host.stop();
    let host = site.up_from_data();
    assert_eq!(kept(), Some(first), "it is measured once");
    let ran = site.run(&["calibrate", "--json"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let answer: Value = serde_json::from_str(&ran.stdout).expect("a document");
    assert_eq!(answer["before"], first);
    assert_eq!(kept(), answer["fuelPerCpuSecond"].as_u64());
    host.stop();
}

#[test]
fn watching_gives_plain_lines_where_there_is_no_terminal() {
    let site = Site::new("{ shards: 1 }", &ENDPOINTS);
    let host = site.up();
    let mut watch = tidegate()
        .args(["status", "--watch", "--every", "100ms", "--json", "--data"])
        .arg(site.data())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs");
    let mut lines = BufReader::new(watch.stdout.take().expect("piped")).lines();
    for _ in 0..3 {
        let line = lines.next().expect("a line comes").expect("UTF-8");
        let status: Value = serde_json::from_str(&line).expect("a document a line");
        assert_eq!(status["host"], "test");
    }
    host.stop();
    // With the host gone it ends, and says why.
    assert_eq!(watch.wait().expect("it ends").code(), Some(1));
}

#[test]
fn of_many_tenants_the_table_has_those_that_do_most() {
    let site = Site::new("{ shards: 1 }", &ENDPOINTS);
    let name = |index: usize| format!("t{index:02}");
    for index in 0..22 {
        // The last in the alphabet is the one that does anything.
        let from = if index == 21 { ("in", "in") } else { ("memory", "in") };
        let tenant = name(index);
        let operators = &[("map", "pass_through")];
        site.flow(&Flow { tenant: &tenant, name: "flow", from, to: ("memory", "out"), operators });
    }
    site.write("in.jsonl", "1\n");
    let host = site.up();
    eventually("it is through", || {
        let all = site.status();
        let last = &all["tenants"][21];
        last["dataflows"][0]["counters"]["delivered"] == 1
    });
    let tenants = |shown: &str| {
        let rows = shown.lines().filter(|line| line.ends_with("  running"));
        rows.filter_map(|line| line.split(' ').next().map(str::to_owned)).collect::<Vec<_>>()
    };
    let shown = site.run(&["status"]).stdout;
    let busiest = tenants(&shown);
    assert_eq!((busiest.len(), busiest[0].as_str()), (20, "t21"), "{shown}");
    assert!(shown.contains("\nand 2 more; --all shows them\n"), "{shown}");
    assert!(shown.contains("; 22 tenants, 22 dataflows\n"), "{shown}");
    let all = site.run(&["status", "--all"]).stdout;
    assert_eq!(tenants(&all), (0..22).map(name).collect::<Vec<_>>(), "{all}");
    host.stop();
}

#[test]
fn latency_is_from_when_a_delivery_comes_to_when_it_is_settled() {
    let clock = Arc::<VirtualClock>::default();
    let mut rig = Rig::on(Clock::Virtual(clock.clone()), 8, 4);
    let tenant = tenant("weather");
    let mut flow = rig.install(&tenant, "flow", &[("pass_through", Map, &[])]);
    assert_eq!(tenant.latency.percentile(99), None);
    flow.send(&["1"]);
    rig.settle();
    // Written, and not confirmed for a while.
    clock.advance(Duration::from_millis(80));
    assert_eq!(tenant.latency.percentile(99), None, "it is not settled");
    assert_eq!(flow.receive(), ["1"]);
    rig.settle();
    let read = tenant.latency.percentile(99).expect("it is settled");
    assert!((Duration::from_millis(80)..Duration::from_millis(100)).contains(&read), "{read:?}");
}

#[test]
fn the_socket_is_its_owners_and_one_hosts() {
    let site = Site::new("{ shards: 1 }", &ENDPOINTS);
    let host = site.up();
    let socket = site.data().join("control.sock");
    let mode = std::fs::metadata(&socket).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let second = Up::start(tidegate().arg("up").arg(site.dir()).arg("--data").arg(site.data())).err();
    let second = second.expect("there is one host for a data folder");
    assert_eq!(second.code, 1);
    assert!(second.stderr.contains("another host runs on"), "{}", second.stderr);
    assert_eq!(site.run(&["status"]).code, 0, "the first is not disturbed");
    host.kill();
    assert!(socket.exists(), "a killed host leaves its socket");
    let host = site.up();
    assert_eq!(site.run(&["status"]).code, 0);
    host.stop();
    assert!(!socket.exists());
}

#[test]
fn clients_of_the_embedded_broker_that_leave_are_no_errors() {
    let (v5, v311) = (free_port(), free_port());
    let spec = format!("{{ endpointType: Mqtt, mqttSettings: {{ host: \"127.0.0.1:{v5}\" }} }}");
    let host = format!("{{ shards: 1, broker: {{ embedded: true, v5: {v5}, v311: {v311} }} }}");
    let site = Site::new(&host, &[("local", &spec)]);
    site.flow(&Flow::passing(("local", "a/in"), ("local", "a/out")));
    let host = site.up();
    let line = format!("broker: mqtt://127.0.0.1:{v5} (v5), mqtt://127.0.0.1:{v311} (v3.1.1)");
    assert_eq!(host.line("broker: "), Some(line));
    let connected = || site.status()["tenants"][0]["dataflows"][0]["sources"][0]["connection"] == "connected";
    eventually("it is subscribed", connected);
    publish_all(v5, numbers("a/in", 0..10));
    // One that says nothing of MQTT.
    let mut stranger = TcpStream::connect(("127.0.0.1", v5)).expect("it listens");
    stranger.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("it is taken");
    let _ = stranger.read_to_end(&mut Vec::new());
    publish_all(v5, numbers("a/in", 10..20));
    eventually("all came through", || site.counter("a", "delivered") == 20);
    let log = host.log.clone();
    host.stop();
    eventually("its log is read to the end", || Arc::strong_count(&log) == 1);
    let log = log.lock().expect("no panic");
    assert!(log.contains("dataflow ended") && !log.contains("ERROR") && !log.contains("\x1b"), "{log}");
}

#[test]
fn what_operators_report_outlives_their_instances() {
    // One more than there are slots: each operator's call ends another's instance.
    let mut rig = Rig::new(SLOTS_PER_INSTANCE_MAX, 4);
    let tenant = tenant("weather");
    let names = (0..=SLOTS_PER_INSTANCE_MAX).map(|index| format!("flow-{index}"));
    let mut flows: Vec<_> =
        names.map(|name| rig.install(&tenant, &name, &[("aio_metrics", Map, &[])])).collect();
    for _ in 0..3 {
        for flow in &mut flows {
            flow.send(&["1"]);
            rig.settle();
            assert_eq!(flow.receive(), ["1"]);
            rig.settle();
        }
    }
    for flow in &flows {
        let operator = flow.plan.operators().next().expect("there is one");
        assert!(operator.stats.retired.get() >= 2, "its instances were retired");
        let read = operator.metrics.read();
        let readings: Vec<_> = read.iter().map(|series| (series.name.as_str(), series.reading)).collect();
        let weight = Reading::Histogram { count: 3, sum: 1.5, min: 0.5, max: 0.5 };
        assert_eq!(readings, [("seen", Reading::Counter(3)), ("weight", weight)]);
    }
}

/// What a command shows on a terminal, until it ends.
fn on_a_terminal(command: &str) -> String {
    let mut script = std::process::Command::new("script");
    let shown = script.args(["-qec", command, "/dev/null"]).stdin(Stdio::null()).output();
    let shown = shown.expect("`script` of util-linux is there");
    String::from_utf8_lossy(&shown.stdout).into_owned()
}

#[test]
fn a_terminal_shows_a_live_table_unless_lines_are_asked_for() {
    const CLEAR: &str = "\x1b[H\x1b[J";
    let site = site();
    let program = env!("CARGO_BIN_EXE_tidegate");
    let up = format!("{program} up {} --data {} --for 4s", site.dir().display(), site.data().display());
    let live = on_a_terminal(&up);
    // The last state replaces those before it, and what the log said is below it.
    let last = live.rsplit(CLEAR).next().expect("there is a first");
    assert!(live.matches(CLEAR).count() >= 2, "{live}");
    assert!(last.contains("  p99  step\r\n") && last.contains("\r\ncareless "), "{live}");
    assert!(last.contains("message given up"), "{live}");
    assert!(last.ends_with("stopped\r\n"), "{live}");
    let lines = on_a_terminal(&format!("{up} --every 500ms"));
    assert!(!lines.contains(CLEAR) && lines.contains("a/flow  "), "{lines}");
    let host = site.up();
    let watch = format!("timeout 3 {program} status --watch --every 500ms --data {}", site.data().display());
    assert!(on_a_terminal(&watch).matches(CLEAR).count() >= 2);
    host.stop();
}
