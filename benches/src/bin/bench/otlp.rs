//! `otlp`: spans by gRPC through a sealed filter that drops half of them, and on by gRPC,
//! against the OpenTelemetry Collector with its filter processor doing the same. Both answer
//! once the other side has; what is measured is seen from there.

use std::{
    convert::Infallible,
    future::poll_fn,
    net::TcpListener,
    path::Path,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context as TaskContext, Poll},
    time::Duration,
};

use anyhow::{Context, ensure};
use bytes::{BufMut as _, Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Request, Response,
    body::{Body, Frame, Incoming},
    header::{HeaderMap, HeaderValue},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tidegate::connector::otlp::{Parsed, Signal, parsers};
use tidegate_benches::{
    report::{Case, Hold, Report, rounds},
    site::{Link, Process, SiteFolder, chain, cpu_seconds, policy_like_standard},
};
use tidegate_loadtest::{
    broker::free_port,
    otel::{Collector, INSTALL, Options, find},
};
use tokio::time::Instant;

/// As exporters batch.
const SPANS: usize = 512;
/// Requests under way at once.
const UNDER_WAY: usize = 16;
/// Connections and instances are made before anything is measured.
const WARM_UP: Duration = Duration::from_secs(2);

/// One program under load.
struct Run {
    per_second: f64,
    /// CPU seconds of the program per million spans taken.
    cpu: f64,
}

pub fn run(quick: bool) -> anyhow::Result<Report> {
    let bin = find().context(INSTALL)?;
    let length = if quick { Duration::from_secs(4) } else { Duration::from_secs(12) };
    let far = Far::start()?;
    let (mut hosts, mut collectors) = (Vec::new(), Vec::new());
    for round in 0..rounds(quick) {
        eprintln!("round {}: Collector", round + 1);
        collectors.push(collector(&bin, &far, length)?);
        eprintln!("round {}: host", round + 1);
        hosts.push(host(&far, length)?);
    }
    let per_second: fn(&Run) -> f64 = |run| run.per_second;
    let cpu: fn(&Run) -> f64 = |run| run.cpu;
    let ratio = |of: fn(&Run) -> f64| {
        hosts.iter().zip(&collectors).map(|(host, other)| of(host) / of(other)).collect::<Vec<f64>>()
    };
    let value_of = "spans/s, host ÷ Collector";
    let mut cases = vec![
        Case::median(value_of, "x", &ratio(per_second)).hold(Hold::AtLeast(0.5)),
        Case::median("CPU, host ÷ Collector", "x", &ratio(cpu)),
    ];
    for (who, runs) in [("host", &hosts), ("Collector", &collectors)] {
        let of = |of: fn(&Run) -> f64| runs.iter().map(of).collect::<Vec<f64>>();
        cases.push(Case::median(format!("{who}: spans/s"), "1/s", &of(per_second)));
        cases.push(Case::median(format!("{who}: CPU s per million"), "s", &of(cpu)));
    }
    Ok(Report { bench: "otlp", unit: "x spans/s of the Collector", value_of: value_of.into(), cases })
}

fn collector(bin: &Path, far: &Far, length: Duration) -> anyhow::Result<Run> {
    let folder = tempfile::tempdir()?;
    let condition = "attributes[\"kind\"] == \"probe\"";
    let filter = format!("filter: {{ error_mode: ignore, traces: {{ span: ['{condition}'] }} }}");
    let options = Options {
        processors: Some((filter, "filter".to_owned())),
        export: Some(format!("127.0.0.1:{}", far.port)),
        tls: None,
    };
    let mut collector = Collector::start(bin, folder.path(), &[], &options)?;
    let id = collector.process().context("it runs")?.id();
    let run = measure(collector.grpc(), id, far, length);
    collector.stop()?;
    run
}

fn host(far: &Far, length: Duration) -> anyhow::Result<Run> {
    let (folder, port) = (tempfile::tempdir()?, free_port()?);
    let endpoint = |name: &str, settings: &str| {
        format!(
            "apiVersion: tidegate.dev/v1\nkind: DataflowEndpoint\nmetadata: {{ name: {name} }}\n\
             spec: {{ endpointType: OpenTelemetry, openTelemetrySettings: {{ {settings} }} }}\n"
        )
    };
    let endpoints = [
        endpoint("in", &format!("listen: \"127.0.0.1:{port}\", encoding: Protobuf")),
        endpoint("out", &format!("host: \"127.0.0.1:{}\", payload: Otlp", far.port)),
    ];
    let site = SiteFolder::new(folder.path(), "shards: 1", &endpoints.join("---\n"))?;
    site.component("a", "filter", "otlp_filter", None)?;
    let configuration = [("attribute", "kind"), ("value", "probe")];
    let links = [Link { kind: "filter", module: "filter", configuration: &configuration }];
    site.write("tenants/a/artifacts/graph/1.yaml", &chain::graph("graph", &links))?;
    let dataflow = chain::dataflow("flow", "graph", ("in", "traces"), ("out", "traces"));
    site.write("tenants/a/dataflows/flow.yaml", &dataflow)?;
    let policy = policy_like_standard("bench", &[("inflight: 1Mi", "inflight: 16Mi")], &["in", "out"])?;
    site.write("platform/policy-bench.yaml", &policy)?;
    site.tenants_under([("a", "bench")])?;
    let process = Process::host(folder.path())?;
    let run = measure(port, process.id(), far, length);
    process.stop()?;
    run
}

fn measure(port: u16, program: u32, far: &Far, length: Duration) -> anyhow::Result<Run> {
    let cpu = || cpu_seconds(&format!("/proc/{program}/stat"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let request = request();
    runtime.block_on(load(port, &request, WARM_UP))?;
    let (before, passed, began) = (cpu()?, far.spans(), Instant::now());
    let answered = runtime.block_on(load(port, &request, length))?;
    let seconds = began.elapsed().as_secs_f64();
    let (taken, passed) = (answered * SPANS as u64, far.spans() - passed);
    // What was answered has come through, half of it.
    ensure!(passed == taken / 2, "{passed} spans came through of {taken}");
    ensure!(answered > 20, "{answered} requests in {length:?} are too few to say anything");
    Ok(Run { per_second: taken as f64 / seconds, cpu: (cpu()? - before) / taken as f64 * 1e6 })
}

/// Sends for so long; gives how many requests were answered, all of them well.
async fn load(port: u16, request: &Bytes, length: Duration) -> anyhow::Result<u64> {
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .handshake(TokioIo::new(stream))
        .await?;
    let connection = tokio::spawn(connection);
    let until = Instant::now() + length;
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..UNDER_WAY {
        let (mut sender, request) = (sender.clone(), request.clone());
        clients.spawn(async move {
            let mut answered = 0;
            while Instant::now() < until {
                poll_fn(|ctx| sender.poll_ready(ctx)).await?;
                let message = Request::post(format!("http://127.0.0.1:{port}{}", Signal::Traces.method()))
                    .header("content-type", "application/grpc")
                    .header("te", "trailers")
                    .header("x-tidegate-tenant", "a")
                    .body(Full::new(request.clone()))?;
                let response = sender.send_request(message).await?;
                let in_head = response.headers().get("grpc-status").cloned();
                let body = response.into_body().collect().await?;
                let status = in_head.or_else(|| body.trailers()?.get("grpc-status").cloned());
                ensure!(status.as_ref().is_some_and(|it| it == "0"), "it is answered {status:?}");
                answered += 1;
            }
            anyhow::Ok(answered)
        });
    }
    let mut answered = 0;
    while let Some(client) = clients.join_next().await {
        answered += client??;
    }
    drop(sender);
    connection.abort();
    Ok(answered)
}

/// A frame of gRPC with a request of spans as instrumented services have them, every second
/// one to be dropped.
fn request() -> Bytes {
    let attribute =
        |key: &str, value: &str| format!("{{\"key\":\"{key}\",\"value\":{{\"stringValue\":\"{value}\"}}}}");
    let span = |number: usize| {
        let attributes = [
            attribute("kind", if number.is_multiple_of(2) { "probe" } else { "order" }),
            attribute("http.request.method", "GET"),
            attribute("url.path", &format!("/orders/{number}")),
            attribute("server.address", "shop.example"),
            attribute("user_agent.original", "curl/8.5.0"),
        ];
        format!(
            "{{\"traceId\":\"{number:032x}\",\"spanId\":\"{number:016x}\",\"name\":\"GET /orders\",\"kind\":2,\
             \"startTimeUnixNano\":\"1700000000000000000\",\"endTimeUnixNano\":\"1700000000001000000\",\
             \"attributes\":[{}]}}",
            attributes.join(",")
        )
    };
    let spans: Vec<String> = (1..=SPANS).map(span).collect();
    let resource = [attribute("service.name", "shop"), attribute("host.name", "edge-1")].join(",");
    let text = format!(
        "{{\"resourceSpans\":[{{\"resource\":{{\"attributes\":[{resource}]}},\
         \"scopeSpans\":[{{\"scope\":{{\"name\":\"http\"}},\"spans\":[{}]}}]}}]}}",
        spans.join(",")
    );
    let message = parsers::to_protobuf(Signal::Traces, text.as_bytes()).expect("it is OTLP");
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(message.len() as u32);
    frame.extend_from_slice(&message);
    frame.freeze()
}

/// Whoever is exported to: counts spans, on a thread of its own.
struct Far {
    port: u16,
    spans: Arc<AtomicU64>,
}

impl Far {
    fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        listener.set_nonblocking(true)?;
        let spans = Arc::<AtomicU64>::default();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let counted = spans.clone();
        std::thread::spawn(move || runtime.block_on(serve(listener, counted)));
        Ok(Far { port, spans })
    }

    fn spans(&self) -> u64 {
        self.spans.load(Ordering::SeqCst)
    }
}

async fn serve(listener: TcpListener, spans: Arc<AtomicU64>) -> anyhow::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let spans = spans.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let spans = spans.clone();
            async move {
                let body = request.into_body().collect().await?.to_bytes();
                let (message, _) = parsers::unframe(body)?;
                let parsed = Parsed::of(Signal::Traces, message)?;
                spans.fetch_add(parsed.items.len() as u64, Ordering::SeqCst);
                let mut response = Response::new(Answer::Head);
                response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
                anyhow::Ok(response)
            }
        });
        let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(4 << 20)
            .serve_connection(TokioIo::new(stream), service);
        tokio::spawn(connection);
    }
}

/// An empty message, and that all went well.
enum Answer {
    Head,
    Status,
    Over,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match *self {
            Answer::Head => {
                *self = Answer::Status;
                Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[0; 5])))))
            }
            Answer::Status => {
                *self = Answer::Over;
                let trailers = HeaderMap::from_iter([(
                    hyper::header::HeaderName::from_static("grpc-status"),
                    HeaderValue::from_static("0"),
                )]);
                Poll::Ready(Some(Ok(Frame::trailers(trailers))))
            }
            Answer::Over => Poll::Ready(None),
        }
    }
}
