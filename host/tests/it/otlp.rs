//! OTLP at both ends, against a real OpenTelemetry Collector and its generator of telemetry:
//! what comes through and where, what is refused and how, and what a kill of either side
//! loses, which is nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write as _,
    path::PathBuf,
    process::{Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_client::TraceServiceClient,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::{AnyValue, KeyValue, any_value::Value as Any},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span},
};
use serde_json::{Value, json};
use tidegate_loadtest::otel::{Collector, Options, find, telemetrygen};
use tonic::{Code, Request, Response, Status, codec::CompressionEncoding, transport::Channel};

use crate::{
    authority::Authority,
    http::{FILE, overtakes, server_count},
    mosquitto::{eventually, free_port},
    site::{Flow, Ran, Site, tidegate},
};

/// Where the programs are; `None` only where `cargo xtask test` has said so.
fn programs() -> Option<PathBuf> {
    let found = find();
    if found.is_none() {
        assert!(
            std::env::var_os("TIDEGATE_WITHOUT_OTEL").is_some(),
            "no OpenTelemetry Collector: run `cargo xtask test`, which builds it"
        );
        eprintln!("SKIPPED: no OpenTelemetry Collector");
    }
    found
}

/// A running Collector that writes a file, and its folder.
pub struct Running {
    collector: Collector,
    bin: PathBuf,
    _folder: tempfile::TempDir,
}

impl Running {
    pub fn start(options: &Options) -> Option<Self> {
        let bin = programs()?;
        let folder = tempfile::tempdir().expect("a folder");
        let collector = Collector::start(&bin, folder.path(), &[], options).expect("it starts");
        Some(Running { collector, bin, _folder: folder })
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.collector.grpc())
    }

    /// All requests of a kind that it has written, in order.
    fn written(&self, key: &str) -> Vec<Value> {
        let text = self.collector.written();
        // The last line may be half written.
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| !line[key].is_null()).collect()
    }

    /// All items of a kind in order, whatever encloses them.
    fn items(&self, [resources, scopes, items]: [&str; 3]) -> Vec<Value> {
        let mut all = Vec::new();
        for request in self.written(resources) {
            for resource in request[resources].as_array().expect("a list") {
                for scope in resource[scopes].as_array().expect("a list") {
                    all.extend(scope[items].as_array().expect("a list").iter().cloned());
                }
            }
        }
        all
    }

    pub fn logs(&self) -> Vec<Value> {
        self.items(LOGS)
    }

    fn names(&self) -> Vec<String> {
        self.items(SPANS).iter().map(|span| span["name"].as_str().expect("text").to_owned()).collect()
    }
}

const SPANS: [&str; 3] = ["resourceSpans", "scopeSpans", "spans"];
const METRICS: [&str; 3] = ["resourceMetrics", "scopeMetrics", "metrics"];
const LOGS: [&str; 3] = ["resourceLogs", "scopeLogs", "logRecords"];

fn listen(port: u16, more: &str) -> String {
    format!(
        "{{ endpointType: OpenTelemetry, openTelemetrySettings: {{ listen: \"127.0.0.1:{port}\"{more} }} }}"
    )
}

fn export(address: &str, more: &str) -> String {
    format!("{{ endpointType: OpenTelemetry, openTelemetrySettings: {{ host: \"{address}\"{more} }} }}")
}

/// What comes by OTLP goes to a file, a message a line.
fn to_file(port: u16, more: &str) -> Site {
    let site = Site::new("{ shards: 1 }", &[("in", &listen(port, more)), ("out", FILE)]);
    site.flow(&Flow::passing(("in", "#"), ("out", "out")));
    site
}

/// What comes by OTLP is exported, through these operators.
fn through(port: u16, more: &str, address: &str, operators: &[(&str, &str)]) -> Site {
    let out = export(address, ", payload: Otlp");
    let site = Site::new("{ shards: 1 }", &[("in", &listen(port, more)), ("out", &out)]);
    let to = ("out", "${outputTopic}");
    site.flow(&Flow { tenant: "a", name: "flow", from: ("in", "#"), to, operators });
    site
}

fn lines(site: &Site) -> Vec<Value> {
    let text = fs::read_to_string(site.dir().join("out.jsonl")).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

/// A request of spans with these names.
fn spans(names: impl IntoIterator<Item = String>) -> ExportTraceServiceRequest {
    let text = |key: &str, value: &str| KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(Any::StringValue(value.to_owned())) }),
        ..Default::default()
    };
    let span = |name| Span { name, trace_id: vec![1; 16], span_id: vec![2; 8], ..Default::default() };
    let scope = ScopeSpans { spans: names.into_iter().map(span).collect(), ..Default::default() };
    let resource = Resource { attributes: vec![text("service.name", "test")], ..Default::default() };
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(resource),
            scope_spans: vec![scope],
            ..Default::default()
        }],
    }
}

fn numbered(range: std::ops::Range<usize>) -> ExportTraceServiceRequest {
    spans(range.map(|number| number.to_string()))
}

/// A client of gRPC's own library, on a thread of its own.
struct Client {
    runtime: tokio::runtime::Runtime,
    client: TraceServiceClient<Channel>,
}

impl Client {
    fn connect(port: u16) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let endpoint = Channel::from_shared(format!("http://127.0.0.1:{port}")).expect("an address");
        let channel = {
            let _inside = runtime.enter();
            endpoint.connect_lazy()
        };
        Client { runtime, client: TraceServiceClient::new(channel) }
    }

    fn compressing(mut self) -> Self {
        self.client = self.client.send_compressed(CompressionEncoding::Gzip);
        self
    }

    /// As the tenant `a`.
    fn send(&self, request: ExportTraceServiceRequest) -> Result<ExportTraceServiceResponse, Status> {
        self.send_with(request, &[("x-tidegate-tenant", "a")])
    }

    fn send_with(
        &self,
        request: ExportTraceServiceRequest,
        headers: &[(&'static str, &str)],
    ) -> Result<ExportTraceServiceResponse, Status> {
        let mut request = Request::new(request);
        for (name, value) in headers {
            request.metadata_mut().insert(*name, value.parse().expect("a value"));
        }
        let mut client = self.client.clone();
        self.runtime.block_on(async move { client.export(request).await.map(Response::into_inner) })
    }
}

/// A request of HTTP with one log record that says this, of the tenant `a`.
pub fn log_request(text: &str) -> String {
    let record = json!({ "body": { "stringValue": text } });
    let body = json!({ "resourceLogs": [{ "scopeLogs": [{ "logRecords": [record] }] }] }).to_string();
    let len = body.len();
    format!(
        "POST /v1/logs HTTP/1.1\r\nhost: x\r\nx-tidegate-tenant: a\r\n\
         content-type: application/json\r\ncontent-length: {len}\r\n\r\n{body}"
    )
}

/// curl's output, head and all, and the status.
fn curl(port: u16, path: &str, headers: &[&str], body: &[u8]) -> (String, u16) {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--include", "--max-time", "60", "--data-binary", "@-"]);
    command.args(["--write-out", "\n%{http_code}", "--header", "x-tidegate-tenant: a"]);
    for header in headers {
        command.args(["--header", header]);
    }
    command.arg(format!("http://127.0.0.1:{port}{path}"));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("curl is there");
    // It may be answered before all of it is read.
    let _ = child.stdin.take().expect("piped").write_all(body);
    let output = child.wait_with_output().expect("it ends");
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let (text, status) = stdout.rsplit_once('\n').expect("the status is its last line");
    (text.to_owned(), status.parse().expect("a number"))
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut child = Command::new("gzip")
        .args(["--best", "--stdout"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("gzip is there");
    let mut stdin = child.stdin.take().expect("piped");
    thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(bytes).expect("it reads all"));
        child.wait_with_output().expect("it ends").stdout
    })
}

const JSON: &str = "content-type: application/json";
const PROTOBUF: &str = "content-type: application/x-protobuf";

#[test]
fn otlp_all_signals_come_through_over_grpc_and_http() {
    let Some(out) = Running::start(&Options::default()) else { return };
    let port = free_port();
    let site = through(port, ", encoding: Protobuf", &out.address(), &[("map", "pass_through")]);
    let host = site.up();
    let endpoint = format!("127.0.0.1:{port}");
    for (ways, way) in [(&["--otlp-http"][..], "http"), (&[][..], "grpc")] {
        for (signal, count) in [("traces", "--traces=40"), ("metrics", "--metrics=30"), ("logs", "--logs=20")]
        {
            let service = format!("--service={way}");
            let fixed = [
                signal,
                "--otlp-insecure",
                "--otlp-endpoint",
                &endpoint,
                "--otlp-header",
                "x-tidegate-tenant=\"a\"",
                "--rate=0",
                "--workers=1",
                count,
                &service,
            ];
            telemetrygen(&out.bin, &[&fixed[..], ways].concat()).expect("all is taken");
        }
    }
    // A trace is two spans; each metric has a data point.
    eventually("all is written", || {
        [SPANS, METRICS, LOGS].map(|kind| out.items(kind).len()) == [160, 60, 40]
    });
    let mut services = BTreeMap::new();
    for request in out.written("resourceSpans") {
        for resource in request["resourceSpans"].as_array().expect("a list") {
            let attributes = resource["resource"]["attributes"].as_array().expect("a list");
            let name = attributes.iter().find(|it| it["key"] == "service.name").expect("it has one");
            let name = name["value"]["stringValue"].as_str().expect("text").to_owned();
            let scopes = resource["scopeSpans"].as_array().expect("a list").iter();
            let spans = scopes.map(|scope| scope["spans"].as_array().expect("a list").len());
            *services.entry(name).or_insert(0) += spans.sum::<usize>();
        }
    }
    assert_eq!(services, BTreeMap::from([("grpc".to_owned(), 80), ("http".to_owned(), 80)]));
    let kinds: BTreeSet<String> = out.names().into_iter().collect();
    assert_eq!(kinds, BTreeSet::from(["lets-go".to_owned(), "okey-dokey-0".to_owned()]));
    assert_eq!(server_count(&site, "items_refused"), 0);
    host.stop();
}

#[test]
fn otlp_a_filter_drops_what_it_is_told_to() {
    let Some(out) = Running::start(&Options::default()) else { return };
    let port = free_port();
    let site = through(port, ", encoding: Protobuf", &out.address(), &[]);
    site.flow(&Flow {
        tenant: "a",
        name: "flow",
        from: ("in", "traces"),
        to: ("out", "traces"),
        operators: &[("filter", "otlp_filter")],
    });
    configure(&site, "otlp_filter", &[("attribute", "kind"), ("value", "probe")]);
    let host = site.up();
    let mut request = numbered(0..1_000);
    for (number, span) in request.resource_spans[0].scope_spans[0].spans.iter_mut().enumerate() {
        let kind = if number % 2 == 0 { "probe" } else { "order" };
        span.attributes = vec![KeyValue {
            key: "kind".to_owned(),
            value: Some(AnyValue { value: Some(Any::StringValue(kind.to_owned())) }),
            ..Default::default()
        }];
    }
    let client = Client::connect(port);
    assert_eq!(client.send(request).expect("it is taken").partial_success, None);
    let expected: Vec<String> = (0..1_000).filter(|it| it % 2 == 1).map(|it| it.to_string()).collect();
    eventually("the others are written", || out.names().len() >= expected.len());
    // Several deliveries of one request have no order among them.
    let mut names = out.names();
    names.sort_by_key(|name| name.parse::<usize>().expect("a number"));
    assert_eq!(names, expected);
    host.stop();
}

/// Gives the operator of a flow its configuration.
fn configure(site: &Site, operator: &str, configuration: &[(&str, &str)]) {
    use tidegate_benches::site::chain;
    let link = chain::Link { kind: "filter", module: operator, configuration };
    site.write("tenants/a/artifacts/flow/1.yaml", &chain::graph("flow", &[link]));
}

#[test]
fn otlp_json_and_gzip_are_taken_and_an_item_is_a_message() {
    let port = free_port();
    let site = to_file(port, "");
    let host = site.up();
    let request = json!({ "resourceSpans": [{
        "resource": { "attributes": [{ "key": "service.name", "value": { "stringValue": "shop" } }] },
        "scopeSpans": [{ "scope": { "name": "lib" }, "spans": [
            { "traceId": "5b8efff798038103d269b633813fc60c", "spanId": "eee19b7ec3c1b174", "name": "one",
              "startTimeUnixNano": "1544712660000000000", "kind": 2 },
            { "traceId": "5b8efff798038103d269b633813fc60c", "spanId": "eee19b7ec3c1b175", "name": "two" },
        ] }] }] })
    .to_string();
    let (answer, status) = curl(port, "/v1/traces", &[JSON], request.as_bytes());
    assert_eq!((status, answer.ends_with("{}")), (200, true), "{answer}");
    // They are there now, not soon.
    let seen = lines(&site);
    assert_eq!(seen.len(), 2, "{seen:?}");
    assert_eq!((&seen[0]["topic"], &seen[0]["contentType"]), (&json!("traces"), &json!("application/json")));
    let resource = &seen[1]["payload"]["resourceSpans"][0];
    assert_eq!(resource["resource"]["attributes"][0]["value"]["stringValue"], "shop");
    let span = &seen[0]["payload"]["resourceSpans"][0]["scopeSpans"][0]["spans"][0];
    assert_eq!((&span["traceId"], &span["kind"]), (&json!("5b8efff798038103d269b633813fc60c"), &json!(2)));
    assert_eq!(span["startTimeUnixNano"], "1544712660000000000");
    assert_eq!(resource["scopeSpans"][0]["spans"][0]["name"], "two");
    let zipped = gzip(request.as_bytes());
    let (_, status) = curl(port, "/v1/traces", &[JSON, "content-encoding: gzip"], &zipped);
    assert_eq!((status, lines(&site).len()), (200, 4));
    let client = Client::connect(port).compressing();
    client.send(numbered(0..3)).expect("it is taken");
    assert_eq!(lines(&site).len(), 7);
    // Nothing is nothing, and is taken.
    client.send(spans([])).expect("it is taken");
    assert_eq!(curl(port, "/v1/logs", &[JSON], b"{}").1, 200);
    assert_eq!(lines(&site).len(), 7);
    host.stop();
}

#[test]
fn otlp_a_request_may_be_one_message() {
    let port = free_port();
    let site = to_file(port, ", unit: Request, encoding: Json");
    let host = site.up();
    Client::connect(port).send(numbered(0..50)).expect("it is taken");
    let seen = lines(&site);
    assert_eq!(seen.len(), 1);
    let scopes = &seen[0]["payload"]["resourceSpans"][0]["scopeSpans"];
    assert_eq!(scopes[0]["spans"].as_array().expect("a list").len(), 50);
    // One that is larger than a message may be is not taken at all.
    let status = Client::connect(port).send(spans(["x".repeat(300 << 10)])).expect_err("it is too large");
    assert_eq!(status.code(), Code::InvalidArgument, "nobody sends it again");
    assert_eq!(lines(&site).len(), 1);
    host.stop();
}

#[test]
fn otlp_items_that_are_too_large_are_refused_and_the_others_taken() {
    let port = free_port();
    let site = to_file(port, "");
    let host = site.up();
    let names = ["one".to_owned(), "x".repeat(300 << 10), "two".to_owned()];
    let answer = Client::connect(port).send(spans(names)).expect("the others are taken");
    let partial = answer.partial_success.expect("one is not");
    assert_eq!(partial.rejected_spans, 1);
    assert!(partial.error_message.contains("larger than"), "{}", partial.error_message);
    assert_eq!(lines(&site).len(), 2);
    assert_eq!(server_count(&site, "items_refused"), 1);
    host.stop();
}

#[test]
fn otlp_what_is_no_request_gets_the_protocols_own_error() {
    let port = free_port();
    let site = to_file(port, ", bodyBytesMax: 64Ki");
    let host = site.up();
    let bomb = gzip(&vec![b' '; 16 << 20]);
    let broken = |body: &[u8], headers: &[&str], path: &str, expected: u16| {
        let (answer, status) = curl(port, path, headers, body);
        assert_eq!(status, expected, "{path} {headers:?}: {answer}");
    };
    broken(b"\x0a\x05\x01", &[PROTOBUF], "/v1/traces", 400);
    broken(b"\xff\xff\xff", &[PROTOBUF], "/v1/logs", 400);
    broken(b"{\"resourceSpans\": 1}", &[JSON], "/v1/traces", 400);
    broken(b"{", &[JSON], "/v1/traces", 400);
    broken(b"no gzip", &[JSON, "content-encoding: gzip"], "/v1/traces", 400);
    broken(b"{}", &[JSON, "content-encoding: br"], "/v1/traces", 415);
    broken(b"{}", &["content-type: text/plain"], "/v1/traces", 415);
    broken(b"{}", &[JSON], "/v1/profiles", 404);
    broken(&vec![b' '; 80 << 10], &[JSON], "/v1/traces", 413);
    broken(&bomb, &[JSON, "content-encoding: gzip"], "/v1/traces", 413);
    let (answer, _) = curl(port, "/v1/traces", &[JSON], b"{");
    let body = answer.lines().last().expect("a body");
    let said: Value = serde_json::from_str(body).expect("a google.rpc.Status");
    assert_eq!(said["code"], 3, "{answer}");
    assert!(said["message"].as_str().is_some_and(|text| text.contains("JSON")), "{answer}");
    // Over gRPC, what is too large when inflated.
    let client = Client::connect(port).compressing();
    let status = client.send(spans(["x".repeat(1 << 20)])).expect_err("it is too large");
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    eventually("all are counted", || {
        server_count(&site, "too_large") == 3 && server_count(&site, "broken") == 8
    });
    assert_eq!(site.counter("a", "received"), 0, "nothing of it came through");
    client.send(numbered(0..1)).expect("and others are served");
    host.stop();
}

/// Resident memory of the host, in KiB.
fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("it has some");
    line.split_whitespace().nth(1).and_then(|text| text.parse().ok()).expect("a number")
}

#[test]
fn otlp_bombs_take_no_memory() {
    let port = free_port();
    let site = to_file(port, ", encoding: Protobuf");
    let host = site.up();
    Client::connect(port).send(numbered(0..100)).expect("it is taken");
    let before = resident(host.child.id());
    // Many small spans; and one resource that each of many spans would carry.
    let empty = spans(vec![String::new(); 20_000]);
    let mut heavy = spans(vec![String::new(); 60_000]);
    let attributes = &mut heavy.resource_spans[0].resource.as_mut().expect("it has one").attributes;
    attributes[0].key = "x".repeat(200 << 10);
    let zeros = gzip(&vec![0; 128 << 20]);
    let dense = format!("{{\"resourceSpans\":[{}{{}}]}}", "{},".repeat(1 << 20));
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let client = Client::connect(port);
                assert_eq!(client.send(heavy.clone()).expect_err("it grows").code(), Code::InvalidArgument);
                let headers = [PROTOBUF, "content-encoding: gzip"];
                assert_eq!(curl(port, "/v1/traces", &headers, &zeros).1, 413);
                assert_eq!(curl(port, "/v1/traces", &[JSON], dense.as_bytes()).1, 413);
            });
        }
    });
    assert_eq!(Client::connect(port).send(empty).expect("it is taken").partial_success, None);
    let grown = resident(host.child.id()) - before;
    assert!(grown < 200 << 10, "{grown} KiB more");
    host.stop();
}

#[test]
fn otlp_tenants_are_told_by_token_or_header() {
    let port = free_port();
    let site = to_file(port, ", tokenFolder: tokens");
    site.flow(&Flow { tenant: "b", ..Flow::passing(("in", "traces"), ("out", "b/out")) });
    site.write("tokens/a", "of-a\nof-both\n");
    site.write("tokens/b", "of-b\nof-both\n");
    let host = site.up();
    let client = Client::connect(port);
    let send = |headers: &[(&'static str, &str)]| client.send_with(numbered(0..1), headers);
    let code = |headers: &[(&'static str, &str)]| send(headers).expect_err("it is refused").code();
    send(&[("authorization", "Bearer of-a")]).expect("it is a's");
    send(&[("authorization", "Bearer of-b")]).expect("it is b's");
    send(&[("authorization", "Bearer of-both"), ("x-tidegate-tenant", "b")]).expect("it says whose");
    assert_eq!(code(&[]), Code::Unauthenticated);
    assert_eq!(code(&[("authorization", "Bearer nobodys")]), Code::Unauthenticated);
    assert_eq!(code(&[("authorization", "Bearer of-both")]), Code::InvalidArgument);
    let others = [("authorization", "Bearer of-a"), ("x-tidegate-tenant", "b")];
    assert_eq!(code(&others), Code::PermissionDenied);
    assert_eq!(curl(port, "/v1/traces", &[JSON], b"{}").1, 401);
    let received = ["a", "b"].map(|tenant| site.counter(tenant, "received"));
    assert_eq!(received, [1, 2]);
    assert!(!host.log().contains("of-a"), "no token is logged");
    host.stop();
}

#[test]
fn otlp_without_credit_a_client_is_told_to_come_again() {
    let Some(mut out) = Running::start(&Options::default()) else { return };
    let port = free_port();
    let site = through(port, ", encoding: Protobuf", &out.address(), &[("map", "pass_through")]);
    let host = site.up();
    out.collector.kill().expect("it runs");
    // The Collector is away: what is taken stays, until the tenant has no credit left.
    let full = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..24)
        .map(|number| {
            let full = full.clone();
            thread::spawn(move || {
                let client = Client::connect(port);
                let names = move || (0..200).map(move |it| format!("{number}-{it}-{}", "x".repeat(500)));
                loop {
                    match client.send(spans(names())) {
                        Ok(_) => return,
                        Err(status) if status.code() == Code::ResourceExhausted => {
                            assert!(!status.details().is_empty(), "it says when to come again: {status:?}");
                            full.store(true, Ordering::SeqCst);
                        }
                        Err(status) => {
                            assert!(
                                matches!(status.code(), Code::DeadlineExceeded | Code::Unavailable),
                                "{status:?}"
                            );
                        }
                    }
                }
            })
        })
        .collect();
    eventually("somebody is told to come again", || full.load(Ordering::SeqCst));
    let body =
        json!({ "resourceSpans": [{ "scopeSpans": [{ "spans": [{ "name": "x".repeat(150_000) }] }] }] });
    let (answer, status) = curl(port, "/v1/traces", &[JSON], body.to_string().as_bytes());
    assert_eq!(status, 429, "{answer}");
    assert!(answer.contains("retry-after: 1"), "{answer}");
    out.collector.restart().expect("it starts");
    clients.into_iter().for_each(|client| client.join().expect("it is done in the end"));
    let all = || out.names().iter().map(|name| name.split("-x").next().unwrap_or("").to_owned()).collect();
    eventually("all is there", || {
        let all: BTreeSet<String> = all();
        (0..24).all(|number| (0..200).all(|it| all.contains(&format!("{number}-{it}"))))
    });
    host.stop();
}

#[test]
fn otlp_nothing_is_lost_when_the_collector_is_away_and_order_is_kept() {
    const REQUESTS: usize = 60;
    const EACH: usize = 50;
    let Some(mut out) = Running::start(&Options::default()) else { return };
    let port = free_port();
    let site = through(port, ", encoding: Protobuf", &out.address(), &[("map", "pass_through")]);
    let host = site.up();
    let sent = Arc::new(AtomicUsize::new(0));
    let sending = {
        let sent = sent.clone();
        thread::spawn(move || {
            let client = Client::connect(port);
            for number in 0..REQUESTS {
                // One after the other, each until it is done.
                while client.send(numbered(number * EACH..(number + 1) * EACH)).is_err() {}
                sent.fetch_add(1, Ordering::SeqCst);
            }
        })
    };
    for round in 1..4 {
        eventually("some are sent", || sent.load(Ordering::SeqCst) >= round * 10);
        // It writes what it has answered for, which one that is killed may not have.
        out.collector.stop().expect("it runs");
        eventually("the sink knows", || {
            let status = site.status();
            status["tenants"][0]["sinks"][0]["connection"].as_str().is_some_and(|it| it.contains("degraded"))
        });
        out.collector.restart().expect("it starts");
    }
    sending.join().expect("all is sent");
    let all = || out.names().iter().map(|name| name.parse::<usize>().expect("a number")).collect::<Vec<_>>();
    let distinct = || all().into_iter().collect::<BTreeSet<_>>();
    eventually("all is there", || distinct().len() == REQUESTS * EACH);
    let seen = all();
    let back = seen.windows(2).filter(|pair| pair[1] < pair[0]).count();
    assert!(back <= 8, "it went back {back} times: only what was under way comes twice");
    host.stop();
}

#[test]
fn otlp_nothing_that_was_answered_is_lost_when_the_host_is_killed() {
    let Some(out) = Running::start(&Options::default()) else { return };
    let port = free_port();
    let site = through(port, ", encoding: Protobuf", &out.address(), &[("map", "pass_through")]);
    let answered = Arc::new(Mutex::new(BTreeSet::new()));
    let ends = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..4)
        .map(|client| {
            let (answered, ends) = (answered.clone(), ends.clone());
            thread::spawn(move || {
                let connected = Client::connect(port);
                for number in 0.. {
                    if ends.load(Ordering::SeqCst) {
                        return;
                    }
                    let name = format!("{client}-{number}");
                    if connected.send(spans([name.clone()])).is_ok() {
                        answered.lock().expect("no panic").insert(name);
                    }
                }
            })
        })
        .collect();
    let count = || answered.lock().expect("no panic").len();
    for _ in 0..3 {
        let host = site.up();
        let before = count();
        eventually("some are answered", || count() > before + 200);
        host.kill();
    }
    ends.store(true, Ordering::SeqCst);
    clients.into_iter().for_each(|client| client.join().expect("no panic"));
    let answered = answered.lock().expect("no panic").clone();
    eventually("all that was answered is there", || {
        let there: BTreeSet<String> = out.names().into_iter().collect();
        answered.is_subset(&there)
    });
    assert!(answered.len() > 600);
}

/// A Collector that answers as it is told to.
struct Stand {
    port: u16,
    requests: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
    _runtime: tokio::runtime::Runtime,
}

type Verdicts = dyn Fn(&ExportTraceServiceRequest, usize) -> Result<i64, Status> + Send + Sync;

struct Standing {
    requests: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
    verdicts: Box<Verdicts>,
}

#[tonic::async_trait]
impl TraceService for Standing {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let request = request.into_inner();
        let mut requests = self.requests.lock().expect("no panic");
        requests.push(request.clone());
        let rejected_spans = (self.verdicts)(&request, requests.len() - 1)?;
        let error_message = "some are old".to_owned();
        let partial = ExportTracePartialSuccess { rejected_spans, error_message };
        let partial_success = (rejected_spans > 0).then_some(partial);
        Ok(Response::new(ExportTraceServiceResponse { partial_success }))
    }
}

impl Stand {
    /// `verdicts` says what becomes of a request, by its number.
    fn start(
        verdicts: impl Fn(&ExportTraceServiceRequest, usize) -> Result<i64, Status> + Send + Sync + 'static,
    ) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let requests = Arc::<Mutex<Vec<_>>>::default();
        let standing = Standing { requests: requests.clone(), verdicts: Box::new(verdicts) };
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"));
        let listener = listener.expect("loopback can be bound");
        let port = listener.local_addr().expect("it is bound").port();
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        let server = tonic::transport::Server::builder().add_service(TraceServiceServer::new(standing));
        runtime.spawn(server.serve_with_incoming(incoming));
        Stand { port, requests, _runtime: runtime }
    }

    fn site(&self, port: u16) -> Site {
        let address = format!("127.0.0.1:{}", self.port);
        through(port, ", encoding: Protobuf", &address, &[("map", "pass_through")])
    }

    fn requests(&self) -> Vec<Vec<String>> {
        let requests = self.requests.lock().expect("no panic");
        requests.iter().map(names).collect()
    }
}

fn names(request: &ExportTraceServiceRequest) -> Vec<String> {
    let scopes = request.resource_spans.iter().flat_map(|it| &it.scope_spans);
    scopes.flat_map(|it| &it.spans).map(|span| span.name.clone()).collect()
}

fn sink_count(site: &Site, name: &str) -> u64 {
    site.status()["tenants"][0]["sinks"][0]["counters"][name].as_u64().expect("a count")
}

#[test]
fn otlp_what_a_collector_may_take_later_is_sent_again_as_it_says() {
    let stand = Stand::start(|_, number| match number {
        0 => Err(Status::unavailable("soon")),
        1 => {
            // google.rpc.Status with a RetryInfo of 1.2 s.
            let delay = b"\x0a\x07\x08\x01\x10\x80\x84\xaf\x5f".to_vec();
            let mut any = b"\x0a\x28type.googleapis.com/google.rpc.RetryInfo\x12".to_vec();
            any.push(delay.len() as u8);
            any.extend(delay);
            let mut details = vec![0x08, 0x08, 0x1a, any.len() as u8];
            details.extend(any);
            Err(Status::with_details(Code::ResourceExhausted, "full", details.into()))
        }
        _ => Ok(0),
    });
    let port = free_port();
    let site = stand.site(port);
    let host = site.up();
    let begun = std::time::Instant::now();
    Client::connect(port).send(numbered(0..5)).expect("it is taken in the end");
    assert!(begun.elapsed() >= Duration::from_millis(1_200), "no sooner than it was asked to");
    let all: Vec<String> = (0..5).map(|it| it.to_string()).collect();
    assert_eq!(stand.requests(), [all.clone(), all.clone(), all]);
    assert_eq!(sink_count(&site, "redelivered"), 2);
    host.stop();
}

#[test]
fn otlp_success_in_part_is_counted_and_said_and_nothing_is_sent_again() {
    let stand = Stand::start(|_, _| Ok(2));
    let port = free_port();
    let site = stand.site(port);
    let host = site.up();
    Client::connect(port).send(numbered(0..5)).expect("it is taken");
    assert_eq!(stand.requests().len(), 1);
    assert_eq!(sink_count(&site, "items_refused"), 2);
    assert!(host.log().contains("some are old"), "{}", host.log());
    host.stop();
}

#[test]
fn otlp_what_a_collector_refuses_is_a_dead_letter_and_the_rest_goes_through() {
    let stand = Stand::start(|request, _| match names(request).iter().any(|name| name == "bad") {
        true => Err(Status::invalid_argument("a bad span")),
        false => Ok(0),
    });
    let port = free_port();
    let site = stand.site(port);
    let host = site.up();
    let names = (0..100).map(|number| if number == 37 { "bad".to_owned() } else { number.to_string() });
    let answer = Client::connect(port).send(spans(names)).expect("the rest is taken");
    assert_eq!(answer.partial_success.expect("one is not").rejected_spans, 1);
    let requests = stand.requests().into_iter().filter(|names| !names.contains(&"bad".to_owned()));
    let taken: Vec<String> = requests.flatten().collect();
    let expected: Vec<String> = (0..100).filter(|it| *it != 37).map(|it| it.to_string()).collect();
    assert_eq!(taken, expected, "in their order");
    let letters = site.run(&["dead-letters", "export"]);
    assert_eq!(letters.stdout.lines().count(), 1, "{letters:?}");
    assert!(letters.stdout.contains("a bad span"), "{letters:?}");
    host.stop();
}

#[test]
fn otlp_aios_form_becomes_metrics_and_logs() {
    let Some(out) = Running::start(&Options::default()) else { return };
    let web = free_port();
    let listen = crate::http::listen(web, "");
    let site = Site::new("{ shards: 1 }", &[("web", &listen)]);
    // AIO's own resource, unchanged.
    site.write(
        "platform/otel.yaml",
        &format!(
            "apiVersion: connectivity.iotoperations.azure.com/v1\nkind: DataflowEndpoint\n\
             metadata: {{ name: otel }}\nspec:\n  endpointType: OpenTelemetry\n  openTelemetrySettings:\n    \
             host: \"{}\"\n    batching: {{ latencySeconds: 0, maxMessages: 1000 }}\n    \
             tls: {{ mode: Disabled }}\n    authentication: {{ method: Anonymous }}\n",
            out.address()
        ),
    );
    let policy = fs::read_to_string(site.dir().join("platform/all.yaml")).expect("it is there");
    let granted = "    - { name: web, read: [\"#\"], write: [\"#\"] }\n";
    let more = format!("{granted}    - {{ name: otel, read: [], write: [\"#\"] }}\n");
    site.write("platform/all.yaml", &policy.replace(granted, &more));
    site.flow(&Flow::passing(("web", "in"), ("otel", "telemetry")));
    let host = site.up();
    let post = |payload: Value| curl(web, "/a/in", &[JSON], payload.to_string().as_bytes()).1;
    let metric = json!({ "name": "heat", "type": "f64_gauge", "value": 20.5, "timestamp": 1_700_000_000_000_000_000_u64,
        "attributes": [{ "key": "room", "value": "a" }] });
    let log = json!({ "value": "it is warm", "level": "warn" });
    assert_eq!(post(json!({ "metrics": [metric.clone()], "logs": [log] })), 202);
    assert_eq!(post(json!({ "metrics": [metric] })), 202);
    // What does not conform is dropped and acknowledged, and kept as a dead letter.
    assert_eq!(post(json!({ "metrics": [{ "name": "heat", "metric_type": "f64_gauge", "value": 1 }] })), 202);
    eventually("all is written", || out.items(METRICS).len() == 2 && out.items(LOGS).len() == 1);
    let point = &out.items(METRICS)[0]["gauge"]["dataPoints"][0];
    assert_eq!((&point["asDouble"], &point["timeUnixNano"]), (&json!(20.5), &json!("1700000000000000000")));
    let record = &out.items(LOGS)[0];
    assert_eq!(
        (&record["body"]["stringValue"], &record["severityText"]),
        (&json!("it is warm"), &json!("WARN"))
    );
    let letters = site.run(&["dead-letters", "export"]);
    assert_eq!(letters.stdout.lines().count(), 1, "{letters:?}");
    assert!(letters.stdout.contains("missing field `type`"), "{letters:?}");
    host.stop();
}

#[test]
fn otlp_a_collector_is_spoken_to_over_tls_with_a_certificate() {
    let authority = Authority::new("one that is trusted");
    let folder = tempfile::tempdir().expect("a folder");
    let issued = authority.issue("collector", folder.path());
    let trusted = folder.path().join("trusted");
    fs::write(&trusted, authority.pem()).expect("a file");
    let tls = format!(
        "{{ cert_file: \"{}\", key_file: \"{}\", client_ca_file: \"{}\" }}",
        issued.certificate.display(),
        issued.key.display(),
        trusted.display()
    );
    let Some(out) = Running::start(&Options { tls: Some(tls), ..Options::default() }) else { return };
    let port = free_port();
    let more = ", payload: Otlp, tls: { trustedCaCertificateFile: secrets/trusted }, authentication: \
                { method: X509Certificate, x509CertificateSettings: { certificateFile: secrets/edge.certificate, \
                keyFile: secrets/edge.key } }";
    let (listen, export) = (listen(port, ", encoding: Protobuf"), export(&out.address(), more));
    let site = Site::new("{ shards: 1 }", &[("in", &listen), ("out", &export)]);
    site.flow(&Flow::passing(("in", "traces"), ("out", "traces")));
    authority.issue("edge", &site.dir().join("secrets"));
    site.write("secrets/trusted", &authority.pem());
    let host = site.up();
    Client::connect(port).send(numbered(0..10)).expect("it is taken");
    eventually("they are written", || out.names().len() == 10);
    let status = site.status();
    assert_eq!(status["tenants"][0]["sinks"][0]["connection"], "connected", "{status}");
    host.stop();
}

#[test]
fn otlp_bad_settings_are_refused_with_their_place() {
    let port = free_port();
    let site = through(port, "", "127.0.0.1:1", &[("map", "pass_through")]);
    let check = |site: &Site| Ran::of(tidegate().arg("check").arg(site.dir()).output().expect("it runs"));
    site.flow(&Flow::passing(("in", "spans"), ("out", "traces")));
    let ran = check(&site);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains("no signal of OTLP is named `spans`"), "{ran:?}");
    assert!(ran.stderr.contains("tenants/a/dataflows/flow.yaml:"), "{ran:?}");
    site.flow(&Flow::passing(("in", "traces"), ("out", "elsewhere")));
    assert!(check(&site).stderr.contains("no signal of OTLP is named `elsewhere`"));
    site.flow(&Flow::passing(("out", "traces"), ("in", "traces")));
    let ran = check(&site);
    assert!(ran.stderr.contains("nothing comes from `out`"), "{ran:?}");
    assert!(ran.stderr.contains("nothing can be written to `in`"), "{ran:?}");
}

#[test]
fn otlp_a_request_that_is_slow_in_its_operator_does_not_delay_the_answers_to_later_ones() {
    overtakes(|port| to_file(port, ""), log_request, 200);
}
