//! `http`: requests through one sealed operator, whose result is the reply, against a bare
//! hyper echo: on one connection, one after the other, and on 64.

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use tidegate_benches::{
    report::{Case, Hold, Report, rounds},
    site::{Link, Process, SiteFolder, chain, policy_like_standard, tidegate},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::LocalSet,
};

const CONNECTIONS: [usize; 2] = [1, 64];
/// As a small reading of a sensor is.
const BODY: &str = r#"{"msg_id":1,"temperature":51.25,"station":"edge-1","unit":"C","note":"as it is read"}"#;
/// Connections and instances are made before anything is measured.
const WARM_UP: Duration = Duration::from_secs(1);
/// A request that takes longer is a failure.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// One server under so many connections.
#[derive(Default)]
struct Run {
    per_second: f64,
    /// CPU seconds of the server per million requests.
    cpu: f64,
    p50_us: f64,
    p99_us: f64,
}

pub fn run(quick: bool) -> anyhow::Result<Report> {
    let length = if quick { Duration::from_secs(2) } else { Duration::from_secs(8) };
    let folder = tempfile::tempdir()?;
    let port = tidegate_loadtest::broker::free_port()?;
    write_site(&folder, port)?;
    let mut native = Command::new(tidegate()?.with_file_name("native_http"));
    let mut native = tidegate_loadtest::process::Process::start(native.stdout(Stdio::piped()), &[])?;
    let native_port = first_line(&mut native)?;
    let host = Process::host(folder.path())?;
    let mut cases = Vec::new();
    let mut ratios_at = Vec::new();
    for connections in CONNECTIONS {
        let (mut natives, mut hosts) = (Vec::new(), Vec::new());
        for round in 0..rounds(quick) {
            eprintln!("{connections} connections, round {}", round + 1);
            natives.push(measure(native_port, native.id(), connections, length)?);
            hosts.push(measure(port, host.id(), connections, length)?);
        }
        let ratio = |of: fn(&Run) -> f64| {
            hosts.iter().zip(&natives).map(|(host, native)| of(host) / of(native)).collect::<Vec<_>>()
        };
        let at = match connections {
            1 => "one connection".to_owned(),
            _ => format!("{connections} connections"),
        };
        let per_second: fn(&Run) -> f64 = |run| run.per_second;
        let name = format!("requests/s, host ÷ native, {at}");
        cases.push(Case::median(&name, "x", &ratio(per_second)).hold(Hold::AtLeast(0.5)));
        ratios_at.push(name);
        cases.push(Case::median(format!("CPU, host ÷ native, {at}"), "x", &ratio(|run| run.cpu)));
        for (who, runs) in [("native", &natives), ("host", &hosts)] {
            let of = |of: fn(&Run) -> f64| runs.iter().map(of).collect::<Vec<_>>();
            cases.extend([
                Case::median(format!("{who}: requests/s, {at}"), "1/s", &of(per_second)),
                Case::median(format!("{who}: CPU s per million, {at}"), "s", &of(|run| run.cpu)),
                Case::median(format!("{who}: p50, {at}"), "µs", &of(|run| run.p50_us)),
                Case::median(format!("{who}: p99, {at}"), "µs", &of(|run| run.p99_us)),
            ]);
        }
    }
    host.stop()?;
    native.kill()?;
    // The worse of the two.
    let value = |name: &String| cases.iter().find(|case| case.name == *name).map_or(0.0, |case| case.value);
    let value_of = ratios_at.into_iter().min_by(|a, b| value(a).total_cmp(&value(b)));
    Ok(Report {
        bench: "http",
        unit: "x requests/s of a bare hyper echo",
        value_of: value_of.context("there are two")?,
        cases,
    })
}

/// A server whose requests go through a map, and whose replies are what comes of it.
fn write_site(folder: &tempfile::TempDir, port: u16) -> anyhow::Result<()> {
    let endpoint = format!(
        "apiVersion: tidegate.dev/v1\nkind: DataflowEndpoint\nmetadata: {{ name: local }}\n\
         spec: {{ endpointType: Http, httpSettings: {{ listen: \"127.0.0.1:{port}\" }} }}\n"
    );
    let site = SiteFolder::new(folder.path(), "shards: 1", &endpoint)?;
    site.component("a", "pass", "pass_through", None)?;
    let links = [Link { kind: "map", module: "pass", configuration: &[] }];
    site.write("tenants/a/artifacts/graph/1.yaml", &chain::graph("graph", &links))?;
    let dataflow = chain::dataflow("flow", "graph", ("local", "in"), ("local", "out"));
    site.write("tenants/a/dataflows/flow.yaml", &dataflow)?;
    site.write("platform/policy-bench.yaml", &policy_like_standard("bench", &[], &["local"])?)?;
    site.tenants_under([("a", "bench")])
}

/// The port that the native program says.
fn first_line(native: &mut tidegate_loadtest::process::Process) -> anyhow::Result<u16> {
    let stdout = native.child().stdout.take().context("piped")?;
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line)?;
    line.trim().strip_prefix("ready ").and_then(|port| port.parse().ok()).context("it says its port first")
}

fn measure(port: u16, server: u32, connections: usize, length: Duration) -> anyhow::Result<Run> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let cpu =
        || -> anyhow::Result<f64> { tidegate_benches::site::cpu_seconds(&format!("/proc/{server}/stat")) };
    let load = |length: Duration| {
        LocalSet::new().block_on(&runtime, async {
            let until = Instant::now() + length;
            let clients: Vec<_> =
                (0..connections).map(|_| tokio::task::spawn_local(client(port, until))).collect();
            let mut latencies = Vec::new();
            for client in clients {
                latencies.append(&mut client.await??);
            }
            anyhow::Ok(latencies)
        })
    };
    load(WARM_UP)?;
    let (began, cpu_before) = (Instant::now(), cpu()?);
    let mut latencies = load(length)?;
    let (seconds, cpu) = (began.elapsed().as_secs_f64(), cpu()? - cpu_before);
    latencies.sort_unstable();
    let count = latencies.len();
    ensure!(count > 100, "{count} requests in {length:?} are too few to say anything");
    let quantile = |share: f64| latencies[((count - 1) as f64 * share) as usize].as_secs_f64() * 1e6;
    Ok(Run {
        per_second: count as f64 / seconds,
        cpu: cpu / count as f64 * 1e6,
        p50_us: quantile(0.5),
        p99_us: quantile(0.99),
    })
}

/// One request after the other on one connection; how long each took. It reads no more of
/// HTTP than it needs, so that most of the machine is the server's.
async fn client(port: u16, until: Instant) -> anyhow::Result<Vec<Duration>> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.set_nodelay(true)?;
    let request = format!(
        "POST /a/in HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{BODY}",
        BODY.len()
    );
    let mut latencies = Vec::new();
    let mut answer = Vec::with_capacity(4096);
    while Instant::now() < until {
        let began = Instant::now();
        stream.write_all(request.as_bytes()).await?;
        answer.clear();
        let read = async {
            while !answer.ends_with(BODY.as_bytes()) {
                ensure!(stream.read_buf(&mut answer).await? > 0, "the server ended the connection");
            }
            Ok(())
        };
        let read = tokio::time::timeout(ANSWER_WITHIN, read).await;
        let text = || String::from_utf8_lossy(&answer).into_owned();
        read.with_context(|| format!("no whole answer came: {}", text()))??;
        ensure!(answer.starts_with(b"HTTP/1.1 200"), "it is not done: {}", text());
        latencies.push(began.elapsed());
    }
    Ok(latencies)
}
