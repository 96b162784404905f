//! `restart`: hosts that are killed at random moments while windows are open and messages
//! come; then what came out of all their lives, against what one whole life gives.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::Write as _,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use rumqttc::v5::{
    Client, Event, Incoming, MqttOptions,
    mqttbytes::{QoS, v5::PublishProperties},
};
use serde_json::Value;
use tidegate_benches::{
    mosquitto::Broker,
    report::{Case, Hold, Report},
    site::{Link, Process, SiteFolder, chain, eventually, file, mqtt, policy_like_standard},
};

const WINDOW: u64 = 10;
/// So many seconds stay open: thirty windows.
const LATENESS: u64 = 300;
/// Seconds since the epoch of the first message; each is a second after the one before.
const START: u64 = 1_700_000_000;
/// Messages a second that come while hosts live and die.
const PACE: u64 = 2_000;
/// Longest that a host lives once it is ready.
const LIFE_MAX: Duration = Duration::from_millis(400);
/// Once all that is sent must have come out.
const WINDOWS_WITHIN: Duration = Duration::from_secs(120);

/// What came of one way to lose no window.
struct Outcome {
    /// Windows that one whole life does not give.
    strange: usize,
    /// Windows of a whole life that are not there.
    missing: usize,
    windows: usize,
    /// Given more than once, each time the same.
    repeats: usize,
}

pub fn run(quick: bool) -> anyhow::Result<Report> {
    let kills = if quick { 10 } else { 100 };
    let mut cases = Vec::new();
    let mut differ = 0;
    for (name, outcome) in [
        ("file, durable", over_a_file("durable", kills)?),
        ("file, volatile", over_a_file("volatile", kills)?),
        ("MQTT with redelivery, durable", over_mqtt(kills)?),
    ] {
        let Outcome { strange, missing, windows, repeats } = outcome;
        differ += strange + missing;
        let case = |what: &str, value: usize| Case::median(format!("{name}: {what}"), "", &[value as f64]);
        cases.extend([
            case("windows that are partial or have too much", strange).hold(Hold::AtMost(0.0)),
            case("windows that are lost", missing).hold(Hold::AtMost(0.0)),
            case("windows", windows),
            case("identical repeats", repeats),
            case("kills", kills),
        ]);
    }
    let value_of = "windows that differ from the uninterrupted run";
    cases.insert(0, Case::median(value_of, "", &[differ as f64]).hold(Hold::AtMost(0.0)));
    Ok(Report { bench: "restart", unit: "windows", value_of: value_of.into(), cases })
}

/// Gives messages at a steady pace until it is told to stop.
struct Feeder {
    stop: Arc<AtomicBool>,
    /// Seconds that were given.
    given: Arc<AtomicU64>,
    thread: thread::JoinHandle<anyhow::Result<()>>,
}

impl Feeder {
    /// `give` takes a range of seconds.
    fn start(mut give: impl FnMut(std::ops::Range<u64>) -> anyhow::Result<()> + Send + 'static) -> Self {
        let (stop, given) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (stopped, told) = (stop.clone(), given.clone());
        let thread = thread::spawn(move || {
            let begun = Instant::now();
            let mut next = 1;
            while !stopped.load(Ordering::SeqCst) {
                let due = 1 + (begun.elapsed().as_secs_f64() * PACE as f64) as u64;
                if due > next {
                    give(next..due)?;
                    next = due;
                    told.store(next - 1, Ordering::SeqCst);
                }
                thread::sleep(Duration::from_millis(2));
            }
            // The next window is whole, and all before it close.
            let end = next.next_multiple_of(WINDOW) + 1;
            let last = end + LATENESS + WINDOW;
            give(next..last)?;
            told.store(end, Ordering::SeqCst);
            Ok(())
        });
        Feeder { stop, given, thread }
    }

    /// Windows that must come out.
    fn stop(self) -> anyhow::Result<u64> {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().map_err(|_| anyhow::anyhow!("the feeder panicked"))??;
        Ok((self.given.load(Ordering::SeqCst) - 1) / WINDOW)
    }
}

/// Kills hosts on a site, and compares what is heard in the end.
fn killed(
    dir: &Path,
    kills: usize,
    feeder: Feeder,
    heard: impl Fn() -> anyhow::Result<Vec<String>>,
) -> anyhow::Result<Outcome> {
    let mut rng = StdRng::seed_from_u64(7);
    for kill in 0..kills {
        let host = Process::host(dir)?;
        thread::sleep(LIFE_MAX.mul_f64(rng.random()));
        // Not asked to end: killed.
        drop(host);
        if (kill + 1) % 10 == 0 {
            eprintln!("{} kills", kill + 1);
        }
    }
    let windows = feeder.stop()?;
    let host = Process::host(dir)?;
    let expected: BTreeSet<String> = (0..windows).map(summary).collect();
    // Later ones may close as well, once nothing comes any more, and are whole too.
    let whole: BTreeSet<String> = (0..windows + (LATENESS / WINDOW)).map(summary).collect();
    let begun = Instant::now();
    loop {
        let all = heard()?;
        let found: BTreeSet<String> = all.iter().cloned().collect();
        // What came before the last is there counts too, whether it should be or not.
        if expected.is_subset(&found) || begun.elapsed() > WINDOWS_WITHIN {
            drop(host);
            return Ok(Outcome {
                strange: found.difference(&whole).count(),
                missing: expected.difference(&found).count(),
                windows: windows as usize,
                repeats: all.len() - found.len(),
            });
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// What a whole window says.
fn summary(window: u64) -> String {
    let (min, max) = (window * WINDOW + 1, (window + 1) * WINDOW);
    let sum: u64 = (min..=max).sum();
    canonical(&serde_json::json!({
        "count": WINDOW, "sum": sum as f64, "min": min as f64, "max": max as f64,
        "mean": sum as f64 / WINDOW as f64,
    }))
}

/// JSON with its keys in order.
fn canonical(value: &Value) -> String {
    value.to_string()
}

fn over_a_file(keeping: &str, kills: usize) -> anyhow::Result<Outcome> {
    eprintln!("a file, {keeping}");
    let dir = tempfile::tempdir()?;
    lay_out(
        dir.path(),
        &[file("in", "in.jsonl"), file("out", "out.jsonl")],
        ("in", "in"),
        ("out", "out"),
        keeping,
    )?;
    let mut input = File::create(dir.path().join("in.jsonl"))?;
    let feeder = Feeder::start(move |seconds| {
        let lines: String = seconds
            .map(|second| {
                let ms = (START + second) * 1000;
                format!(
                    "{{\"topic\":\"in\",\"payload\":{{\"v\":{second}}},\"properties\":[[\"__ts\",\"{ms:015}:00000:bench\"]]}}\n"
                )
            })
            .collect();
        Ok(input.write_all(lines.as_bytes())?)
    });
    let output = dir.path().join("out.jsonl");
    killed(dir.path(), kills, feeder, || {
        let text = fs::read_to_string(&output).unwrap_or_default();
        // The last line may be half written.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let lines = whole.lines().map(|line| serde_json::from_str::<Value>(line).ok());
        // Nor is one that a kill cut off a window: it is written again.
        Ok(lines.flatten().map(|line| canonical(&line["payload"])).collect())
    })
}

fn over_mqtt(kills: usize) -> anyhow::Result<Outcome> {
    eprintln!("MQTT");
    let broker = Broker::start()?;
    let dir = tempfile::tempdir()?;
    let endpoint = mqtt(&broker.address());
    lay_out(dir.path(), &[endpoint], ("local", "in"), ("local", "out"), "durable")?;
    let heard = subscribe(broker.port)?;
    // Its session is there before the first message.
    drop(Process::host(dir.path())?);
    let mut publish = publisher(broker.port)?;
    let feeder = Feeder::start(move |seconds| seconds.into_iter().try_for_each(&mut publish));
    killed(dir.path(), kills, feeder, || {
        let heard = heard.lock().expect("no panic under this lock");
        heard.iter().map(|payload| Ok(canonical(&serde_json::from_slice(payload)?))).collect()
    })
}

fn options(id: &str, port: u16) -> MqttOptions {
    let mut options = MqttOptions::new(id, "127.0.0.1", port);
    options.set_clean_start(false);
    options.set_session_expiry_interval(Some(3600));
    options.set_keep_alive(Duration::from_secs(30));
    options
}

/// Payloads that come on `out`, from now on.
fn subscribe(port: u16) -> anyhow::Result<Arc<Mutex<Vec<bytes::Bytes>>>> {
    let (client, mut connection) = Client::new(options("bench-subscriber", port), 100);
    let heard = Arc::<Mutex<Vec<bytes::Bytes>>>::default();
    client.subscribe("out", QoS::AtLeastOnce)?;
    let (subscribed, kept) = (Arc::<AtomicBool>::default(), heard.clone());
    let told = subscribed.clone();
    thread::spawn(move || {
        let _client = client;
        for event in connection.iter() {
            match event {
                Ok(Event::Incoming(Incoming::SubAck(_))) => told.store(true, Ordering::SeqCst),
                Ok(Event::Incoming(Incoming::Publish(publish))) => {
                    kept.lock().expect("no panic under this lock").push(publish.payload);
                }
                Ok(_) => {}
                // The broker has ended, and the bench with it.
                Err(_) => return,
            }
        }
    });
    eventually("the bench is subscribed", || subscribed.load(Ordering::SeqCst))?;
    Ok(heard)
}

/// Publishes the message of a second, with QoS 1.
fn publisher(port: u16) -> anyhow::Result<impl FnMut(u64) -> anyhow::Result<()> + Send + 'static> {
    let (client, mut connection) = Client::new(options("bench-publisher", port), 1000);
    thread::spawn(move || while connection.iter().next().is_some_and(|event| event.is_ok()) {});
    Ok(move |second: u64| {
        let user_properties = vec![("__ts".into(), format!("{:015}:00000:bench", (START + second) * 1000))];
        let properties = PublishProperties { user_properties, ..PublishProperties::default() };
        let payload = format!(r#"{{"v":{second}}}"#);
        client
            .publish_with_properties("in", QoS::AtLeastOnce, false, payload, properties)
            .context("the broker is gone")
    })
}

/// One tenant with one dataflow of windows of ten seconds.
fn lay_out(
    dir: &Path,
    endpoints: &[String],
    from: (&str, &str),
    to: (&str, &str),
    keeping: &str,
) -> anyhow::Result<()> {
    let site = SiteFolder::new(dir, "shards: 1", &endpoints.join("---\n"))?;
    let names: BTreeSet<&str> = [from.0, to.0].into();
    let names: Vec<&str> = names.into_iter().collect();
    site.write("platform/policy.yaml", &policy_like_standard("windows", &[], &names)?)?;
    site.write(
        "platform/tenant.yaml",
        "apiVersion: tidegate.dev/v1\nkind: Tenant\nmetadata: { name: a }\nspec: { policy: windows }\n",
    )?;
    let links = [
        Link { kind: "delay", module: "align", configuration: &[] },
        Link { kind: "accumulate", module: "aggregate", configuration: &[("field", "v")] },
    ];
    site.component("a", "align", "align", None)?;
    site.component("a", "aggregate", "aggregate", None)?;
    site.write("tenants/a/artifacts/graph/1.yaml", &chain::graph("graph", &links))?;
    let annotations = format!(
        "metadata: {{ name: flow, annotations: {{ tidegate.dev/lateness: {LATENESS}s, tidegate.dev/windows: {keeping} }} }}"
    );
    let dataflow = chain::dataflow("flow", "graph", from, to);
    ensure!(dataflow.contains("metadata: { name: flow }"), "the form of a dataflow has changed");
    site.write("tenants/a/dataflows/flow.yaml", &dataflow.replace("metadata: { name: flow }", &annotations))
}
