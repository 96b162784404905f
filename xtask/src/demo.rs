//! `cargo xtask demo`: the main job. Three teams on real data, one of them careless,
//! on a host with its broker inside; a fourth that bridges Kafka to it, and a fifth that passes
//! telemetry on to a Collector, where there are such. What comes out is counted from outside.
//! The careless team is throttled, paused and put in quarantine, and resumed by command.

mod bridge;
mod telemetry;

use std::{
    cmp,
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use rumqttc::v5::{
    Client, Event, Incoming, MqttOptions,
    mqttbytes::{QoS, v5::Packet},
};
use serde_json::{Value, json};

use self::{bridge::Bridge, telemetry::Telemetry};
use crate::{guests, root, run::cargo};

/// What the demo plays.
#[derive(Clone, Copy)]
pub struct Demo {
    /// How long; without it until Ctrl-C.
    pub seconds: Option<u64>,
    /// Messages a second for each team.
    pub rate: u32,
}

impl Demo {
    /// Messages of each team.
    fn total(&self) -> Option<u64> {
        self.seconds.map(|seconds| seconds * u64::from(self.rate))
    }
}

/// How long nothing may settle at the end while something waits.
const PROGRESS_WITHIN: Duration = Duration::from_secs(60);

/// Builds, runs and sums up; an error if a message was lost.
pub fn demo(demo: Demo) -> anyhow::Result<()> {
    guests::build()?;
    let site = lay_out_site()?;
    eprintln!("building the host");
    cargo(&root(), ["build", "--quiet", "--package", "tidegate"], &[])?;
    let data = root().join("target/demo/data");
    let bridge = Bridge::start(&site, &root().join("target/demo/kafka"))?;
    let telemetry = Telemetry::start(&site, &root().join("target/demo/otlp"))?;
    let mut host = Host::start(&site, &data)?;
    let port = host.port;
    let mut teams = vec!["weather", "seismology", "careless"];
    teams.extend(bridge.as_ref().map(|_| bridge::TEAM));
    let subscriber = Subscriber::start(port, &teams)?;
    teams.extend(telemetry.as_ref().map(|_| telemetry::TEAM));
    let feeds = feeds()?;
    println!(
        "{} teams at {} messages a second each; watch with: mosquitto_sub -V 5 -p {port} -t '+/out/#'",
        teams.len(),
        demo.rate
    );
    let watch = Watch::start(&data);
    let bridged = bridge.as_ref().map(|bridge| bridge.publish(feeds[0].payloads.clone(), demo));
    let publishers = feeds.into_iter().map(|feed| publish(feed, port, demo));
    let told = telemetry.as_ref().map(|telemetry| telemetry.publish(demo));
    let publishers: Vec<_> = publishers.chain(bridged).chain(told).collect();
    let mut sent = BTreeMap::new();
    for publisher in publishers {
        let (team, count) = publisher.join().map_err(|_| anyhow::anyhow!("a publisher panicked"))??;
        sent.insert(team, count);
    }
    let status = host.settle(&sent)?;
    watch.stop()?;
    let delivered = |team: &str| match (&telemetry, team) {
        (Some(telemetry), telemetry::TEAM) => telemetry.delivered(),
        _ => subscriber.count(team),
    };
    let summary = summary(&status, &teams, &sent, delivered)?;
    host.stop()?;
    summary.print();
    ensure!(summary.lost == 0, "{} messages were lost", summary.lost);
    Ok(())
}

/// Copies the demo's site below `target/`, with its components in place.
fn lay_out_site() -> anyhow::Result<PathBuf> {
    let site = root().join("target/demo/site");
    if site.exists() {
        fs::remove_dir_all(&site)?;
    }
    lay_out_team("", &site)?;
    Ok(site)
}

/// Copies what lies in a folder of the demo's into the site, components included.
fn lay_out_team(folder: &str, site: &Path) -> anyhow::Result<()> {
    let from = root().join("tenants/demo").join(folder);
    copy_folder(&from.join("platform"), &site.join("platform"))?;
    copy_folder(&from.join("tenants"), &site.join("tenants"))?;
    guests::lay_out(&from.join("artifacts.toml"), site)
}

fn copy_folder(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// The host's process.
struct Host {
    child: Child,
    data: PathBuf,
    port: u16,
    output: Option<JoinHandle<()>>,
}

impl Host {
    fn start(site: &Path, data: &Path) -> anyhow::Result<Self> {
        if data.exists() {
            fs::remove_dir_all(data)?;
        }
        let mut child = Command::new(binary())
            .args(["up", "--every", "5s", "--data"])
            .arg(data)
            .arg(site)
            .stdout(Stdio::piped())
            .env("RUST_LOG", "error")
            .spawn()
            .context("cannot start the host")?;
        let mut lines = BufReader::new(child.stdout.take().context("its output is piped")?).lines();
        let mut port = None;
        for line in lines.by_ref() {
            let line = line?;
            println!("{line}");
            if let Some(rest) = line.strip_prefix("broker: mqtt://127.0.0.1:") {
                port = rest.split(' ').next().and_then(|port| port.parse().ok());
            }
            if line.starts_with("ready") {
                break;
            }
        }
        let Some(port) = port else { bail!("the host did not start") };
        let output =
            std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| println!("{line}")));
        Ok(Host { child, data: data.to_owned(), port, output: Some(output) })
    }

    /// Waits until all that was sent is settled, for as long as that goes on: the careless
    /// team has little CPU time, and how far it goes depends on the machine.
    fn settle(&self, sent: &BTreeMap<String, u64>) -> anyhow::Result<Value> {
        let mut settled = 0;
        let mut deadline = Instant::now() + PROGRESS_WITHIN;
        loop {
            let status = status(&self.data)?;
            let done = sent.iter().all(|(team, sent)| {
                let count = |name: &str| counter(&status, team, name);
                count("received") >= *sent && count("settled") == count("deliveries")
            });
            if done {
                return Ok(status);
            }
            let now = sent.keys().map(|team| counter(&status, team, "settled")).sum();
            if now > settled {
                (settled, deadline) = (now, Instant::now() + PROGRESS_WITHIN);
            }
            ensure!(Instant::now() < deadline, "nothing was settled for {PROGRESS_WITHIN:?}: {status}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn stop(&mut self) -> anyhow::Result<()> {
        Command::new("kill").arg("-TERM").arg(self.child.id().to_string()).status()?;
        let status = self.child.wait()?;
        if let Some(output) = self.output.take() {
            output.join().map_err(|_| anyhow::anyhow!("reading the host's output panicked"))?;
        }
        ensure!(status.success(), "the host ended with {status}");
        Ok(())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Whatever went wrong before, no host stays behind.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn status(data: &Path) -> anyhow::Result<Value> {
    let output = Command::new(binary()).args(["status", "--json", "--data"]).arg(data).output()?;
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Says what the host does with the careless team, and resumes it as its platform team
/// would.
struct Watch {
    ends: Arc<AtomicBool>,
    thread: JoinHandle<anyhow::Result<()>>,
}

/// How long a quarantine is left to be looked at.
const QUARANTINE: Duration = Duration::from_secs(1);

impl Watch {
    fn start(data: &Path) -> Self {
        let ends = Arc::<AtomicBool>::default();
        let (stop, data) = (ends.clone(), data.to_owned());
        let thread = std::thread::spawn(move || {
            let (mut throttled, mut state) = (0, "Running".to_owned());
            while !stop.load(Ordering::Relaxed) {
                let status = status(&data)?;
                let tenants = status["tenants"].as_array().into_iter().flatten();
                let Some(team) = tenants.into_iter().find(|tenant| tenant["name"] == "careless") else {
                    continue;
                };
                let times = team["used"]["throttled_cpu"].as_u64().unwrap_or(0);
                if throttled == 0 && times > 0 {
                    println!("careless: throttled, it has used the CPU time that it may");
                }
                throttled = times;
                let flow = &team["dataflows"][0];
                let (now, cause) = (flow["state"].as_str().unwrap_or_default(), flow["cause"].as_str());
                if now != state {
                    println!(
                        "careless: {now}{}",
                        cause.map(|cause| format!(", {cause}")).unwrap_or_default()
                    );
                    state = now.to_owned();
                }
                if state == "Quarantined" {
                    std::thread::sleep(QUARANTINE);
                    println!("$ tidegate resume careless/fahrenheit");
                    let mut resume = Command::new(binary());
                    resume.args(["resume", "careless/fahrenheit", "--data"]).arg(&data);
                    ensure!(resume.status()?.success(), "it cannot be resumed");
                }
                std::thread::sleep(Duration::from_millis(200));
            }
            Ok(())
        });
        Watch { ends, thread }
    }

    fn stop(self) -> anyhow::Result<()> {
        self.ends.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow::anyhow!("watching panicked"))?
    }
}

fn binary() -> PathBuf {
    root().join("target/debug/tidegate")
}

fn counter(status: &Value, team: &str, name: &str) -> u64 {
    let tenants = status["tenants"].as_array().into_iter().flatten();
    let flows =
        tenants.filter(|tenant| tenant["name"] == team).flat_map(|tenant| tenant["dataflows"].as_array());
    flows.flatten().filter_map(|flow| flow["counters"][name].as_u64()).sum()
}

/// Counts what every team puts out, from outside.
struct Subscriber {
    counts: Arc<Mutex<BTreeMap<String, u64>>>,
}

impl Subscriber {
    fn start(port: u16, teams: &[&str]) -> anyhow::Result<Self> {
        let (client, mut connection) = connect("demo-subscriber", port);
        let counts = Arc::new(Mutex::new(BTreeMap::new()));
        let counted = counts.clone();
        let (ready, is_ready) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for event in connection.iter() {
                match event {
                    Ok(Event::Incoming(Incoming::SubAck(_))) => _ = ready.send(()),
                    Ok(Event::Incoming(Packet::Publish(publish))) => {
                        let topic = String::from_utf8_lossy(&publish.topic);
                        let team = topic.split('/').next().unwrap_or_default().to_owned();
                        *counted.lock().expect("no panic under this lock").entry(team).or_default() += 1;
                    }
                    Ok(_) => {}
                    // The host is gone, or the demo has ended.
                    Err(_) => return,
                }
            }
        });
        for team in teams {
            client.subscribe(format!("{team}/out/#"), QoS::AtLeastOnce)?;
            is_ready.recv_timeout(Duration::from_secs(10)).context("the broker does not answer")?;
        }
        // Dropping the client would end the connection.
        std::mem::forget(client);
        Ok(Subscriber { counts })
    }

    fn count(&self, team: &str) -> u64 {
        self.counts.lock().expect("no panic under this lock").get(team).copied().unwrap_or(0)
    }
}

fn connect(id: &str, port: u16) -> (Client, rumqttc::v5::Connection) {
    let mut options = MqttOptions::new(id, "127.0.0.1", port);
    options.set_keep_alive(Duration::from_secs(30));
    Client::new(options, 64)
}

/// A team's topic and payloads, over and over.
struct Feed {
    team: String,
    payloads: Vec<String>,
}

/// The weather as one JSON object an hour, and earthquakes as they stand.
fn feeds() -> anyhow::Result<Vec<Feed>> {
    let data = root().join("tenants/demo/data");
    let weather: Vec<String> = fs::read_to_string(data.join("seattle-weather-hourly-normals.csv"))?
        .lines()
        .skip(1)
        .filter_map(|line| {
            let mut fields = line.split(',');
            let time = fields.next()?;
            let mut number = || fields.next()?.parse::<f64>().ok();
            let (pressure, temperature, wind) = (number()?, number()?, number()?);
            Some(
                json!({ "time": time, "pressure": pressure, "temperature": temperature, "wind": wind })
                    .to_string(),
            )
        })
        .collect();
    let quakes = fs::read_to_string(data.join("earthquakes.jsonl"))?.lines().map(str::to_owned).collect();
    Ok(vec![
        Feed { team: "weather".into(), payloads: weather.clone() },
        Feed { team: "seismology".into(), payloads: quakes },
        Feed { team: "careless".into(), payloads: weather },
    ])
}

/// Publishes a feed at the demo's rate; gives how many the broker has acknowledged.
fn publish(feed: Feed, port: u16, demo: Demo) -> JoinHandle<anyhow::Result<(String, u64)>> {
    std::thread::spawn(move || {
        let (client, mut connection) = connect(&format!("demo-{}", feed.team), port);
        let total = demo.total();
        let acknowledged = std::thread::spawn(move || {
            let mut acknowledged = 0;
            for event in connection.iter() {
                if let Event::Incoming(Incoming::PubAck(_)) = event? {
                    acknowledged += 1;
                    if Some(acknowledged) == total {
                        break;
                    }
                }
            }
            anyhow::Ok(acknowledged)
        });
        paced(demo, |number| {
            let payload = feed.payloads[number as usize % feed.payloads.len()].clone();
            Ok(client.publish(format!("{}/in", feed.team), QoS::AtLeastOnce, false, payload)?)
        })?;
        let acknowledged = acknowledged.join().map_err(|_| anyhow::anyhow!("a publisher panicked"))??;
        Ok((feed.team, acknowledged))
    })
}

/// Sends one message after the other at the demo's rate; gives how many.
fn paced(demo: Demo, mut send: impl FnMut(u64) -> anyhow::Result<()>) -> anyhow::Result<u64> {
    let begin = Instant::now();
    let mut number = 0;
    while Some(number) != demo.total() {
        let due = begin + Duration::from_secs_f64(number as f64 / f64::from(demo.rate));
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        send(number)?;
        number += 1;
    }
    Ok(number)
}

/// What became of every team's messages.
struct Summary {
    lines: Vec<String>,
    lost: u64,
}

fn summary(
    status: &Value,
    teams: &[&str],
    sent: &BTreeMap<String, u64>,
    delivered: impl Fn(&str) -> u64,
) -> anyhow::Result<Summary> {
    let mut summary = Summary { lines: Vec::new(), lost: 0 };
    for &team in teams {
        let count = |name| counter(status, team, name);
        let (filtered, errors, dead) = (count("filtered"), count("errors"), count("dead"));
        let owed = sent[team] - filtered - errors - dead;
        // The last confirmed messages may still be on their way to whoever counts them.
        let deadline = Instant::now() + Duration::from_secs(10);
        while delivered(team) < owed && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(50));
        }
        let delivered = delivered(team);
        summary.lost += owed.saturating_sub(delivered);
        let verdict = match delivered.cmp(&owed) {
            cmp::Ordering::Equal => "all accounted for".to_owned(),
            cmp::Ordering::Less => format!("{} LOST", owed - delivered),
            // Others may publish to the demo's broker, and QoS 1 may give a message twice.
            cmp::Ordering::Greater => format!("nothing lost, {} more than the demo sent", delivered - owed),
        };
        summary.lines.push(format!(
            "{team:<12} sent {:>6} = delivered {delivered:>6} + filtered {filtered:>5} + errors {errors:>4} + dead {dead:>4}   {verdict}",
            sent[team]
        ));
    }
    Ok(summary)
}

impl Summary {
    fn print(&self) {
        println!();
        self.lines.iter().for_each(|line| println!("{line}"));
    }
}
