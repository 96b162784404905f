//! HTTP at both ends of a running host, from outside: what is answered is done, whoever asks
//! badly is told so, and nothing that was acknowledged is lost.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, BufRead as _, BufReader, ErrorKind, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tidegate_benches::site::chain;
use tokio::task::JoinSet;

use crate::{
    compose::compose,
    mosquitto::{WITHIN, eventually, free_port},
    site::{Flow, Site, payloads},
};

/// The spec of a server's endpoint.
pub fn listen(port: u16, more: &str) -> String {
    format!("{{ endpointType: Http, httpSettings: {{ listen: \"127.0.0.1:{port}\"{more} }} }}")
}

pub fn webhook(url: &str, more: &str) -> String {
    format!("{{ endpointType: Http, httpSettings: {{ url: \"{url}\"{more} }} }}")
}

pub const FILE: &str = "{ endpointType: File, fileSettings: { path: out.jsonl } }";

pub fn flow<'a>(from: (&'a str, &'a str), to: (&'a str, &'a str)) -> Flow<'a> {
    Flow { tenant: "a", name: "flow", from, to, operators: &[("map", "pass_through")] }
}

/// From requests to `/a/in/...` to a file.
pub fn to_file(port: u16, more: &str) -> Site {
    let site = Site::new("{ shards: 1 }", &[("web", &listen(port, more)), ("out", FILE)]);
    site.flow(&flow(("web", "in/#"), ("out", "out")));
    site
}

/// An independent client: its output, which ends with the status.
fn curl(arguments: &[&str]) -> (String, u16) {
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--max-time", "60", "--write-out", "\n%{http_code}"])
        .args(arguments)
        .output()
        .expect("curl is there");
    let stdout = String::from_utf8(output.stdout).expect("UTF-8");
    let (text, status) = stdout.rsplit_once('\n').expect("the status is its last line");
    let stderr = String::from_utf8_lossy(&output.stderr);
    (text.to_owned(), status.parse().unwrap_or_else(|_| panic!("{stderr}")))
}

/// A client of the test's own, on one connection.
pub struct Client {
    pub stream: BufReader<TcpStream>,
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Client {
    pub fn connect(port: u16) -> Self {
        Self::try_connect(port).expect("somebody listens")
    }

    pub fn try_connect(port: u16) -> io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(WITHIN))?;
        stream.set_nodelay(true)?;
        Ok(Client { stream: BufReader::new(stream) })
    }

    pub fn send(&mut self, text: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.get_mut().write_all(text.as_ref())
    }

    pub fn post(&mut self, path: &str, body: &str) -> io::Result<Answer> {
        let len = body.len();
        self.send(format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {len}\r\n\r\n{body}"))?;
        self.answer()
    }

    pub fn answer(&mut self) -> io::Result<Answer> {
        let (first, headers) = read_head(&mut self.stream)?;
        let status = first.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("no status in {first:?}")))?;
        let mut body = vec![0; length(&headers)];
        self.stream.read_exact(&mut body)?;
        Ok(Answer { status, headers, body })
    }

    /// Whether the server has ended the connection, without another byte.
    pub fn is_ended(&mut self) -> bool {
        matches!(self.stream.read(&mut [0; 1]), Ok(0) | Err(_))
    }
}

fn read_head(stream: &mut BufReader<TcpStream>) -> io::Result<(String, BTreeMap<String, String>)> {
    let mut line = || {
        let mut line = String::new();
        match stream.read_line(&mut line)? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            _ => Ok::<_, io::Error>(line.trim_end().to_owned()),
        }
    };
    let first = line()?;
    let mut headers = BTreeMap::new();
    loop {
        let line = line()?;
        let Some((name, value)) = line.split_once(':') else { return Ok((first, headers)) };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
}

fn length(headers: &BTreeMap<String, String>) -> usize {
    headers.get("content-length").map_or(0, |len| len.parse().expect("a number"))
}

/// One request that a receiver has read.
#[derive(Clone, Debug)]
pub struct Received {
    pub headers: BTreeMap<String, String>,
    pub body: String,
    at: Instant,
}

impl Received {
    fn topic(&self) -> &str {
        &self.headers["x-tidegate-topic"]
    }

    fn key(&self) -> &str {
        &self.headers["idempotency-key"]
    }
}

/// The head of an answer for what came, with all that came before; `None` cuts.
type Answers = dyn Fn(&Received, &[Received]) -> Option<String> + Send + Sync;

/// Whoever webhooks are sent to.
pub struct Receiver {
    port: u16,
    received: Arc<Mutex<Vec<Received>>>,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Receiver {
    pub fn start(answers: impl Fn(&Received, &[Received]) -> Option<String> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback can be bound");
        let port = listener.local_addr().expect("it is bound").port();
        let (received, ends) = (Arc::<Mutex<Vec<Received>>>::default(), Arc::<AtomicBool>::default());
        let answers: Arc<Answers> = Arc::new(answers);
        let thread = {
            let (received, ends) = (received.clone(), ends.clone());
            thread::spawn(move || {
                for stream in listener.incoming().map_while(Result::ok) {
                    if ends.load(Ordering::SeqCst) {
                        return;
                    }
                    let (received, answers) = (received.clone(), answers.clone());
                    thread::spawn(move || receive(BufReader::new(stream), &received, &*answers));
                }
            })
        };
        Receiver { port, received, ends, thread: Some(thread) }
    }

    /// Takes everything.
    pub fn all() -> Self {
        Receiver::start(|_, _| Some("204 No Content".to_owned()))
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/hook", self.port)
    }

    pub fn received(&self) -> Vec<Received> {
        self.received.lock().expect("no panic").clone()
    }

    pub fn len(&self) -> usize {
        self.received.lock().expect("no panic").len()
    }

    pub fn bodies(&self) -> Vec<String> {
        self.received().into_iter().map(|it| it.body).collect()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        self.thread.take().map(JoinHandle::join);
    }
}

/// Answers on one connection until it ends.
fn receive(mut stream: BufReader<TcpStream>, received: &Mutex<Vec<Received>>, answers: &Answers) {
    while let Ok((_, headers)) = read_head(&mut stream) {
        let mut body = vec![0; length(&headers)];
        if stream.read_exact(&mut body).is_err() {
            return;
        }
        let it = Received { headers, body: String::from_utf8_lossy(&body).into_owned(), at: Instant::now() };
        let answer = {
            let mut received = received.lock().expect("no panic");
            let answer = answers(&it, &received);
            received.push(it);
            answer
        };
        let Some(answer) = answer else { return };
        if stream
            .get_mut()
            .write_all(format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\n\r\n").as_bytes())
            .is_err()
        {
            return;
        }
    }
}

/// What the servers have counted.
pub fn server_count(site: &Site, name: &str) -> u64 {
    let status = site.status();
    let servers = status["servers"].as_array().expect("a list").iter();
    servers.map(|server| server["counters"][name].as_u64().expect("a count")).sum()
}

fn lines(site: &Site) -> Vec<Value> {
    let text = fs::read_to_string(site.dir().join("out.jsonl")).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

pub fn texts(site: &Site) -> Vec<String> {
    payloads(&site.dir().join("out.jsonl"))
}

#[test]
fn http_a_request_is_answered_when_its_message_is_where_it_goes() {
    let port = free_port();
    let site = to_file(port, "");
    let host = site.up();
    let url = format!("http://127.0.0.1:{port}/a/in/room%201");
    let headers = ["--header", "content-type: application/json", "--header", "X-Team: weather"];
    let first = [&headers[..], &["--data", "{\"n\": 1}", &url]].concat();
    assert_eq!(curl(&first), (String::new(), 202));
    // It is there now, not soon.
    let seen = lines(&site);
    assert_eq!(seen[0]["payload"]["n"], 1, "{seen:?}");
    assert_eq!(seen[0]["contentType"], "application/json", "{seen:?}");
    assert!(seen[0].to_string().contains("x-team"), "{seen:?}");
    for more in
        [&["--http2-prior-knowledge"][..], &["--header", "transfer-encoding: chunked"], &["--http1.0"]]
    {
        let arguments = [more, &["--data", "2", &url]].concat();
        assert_eq!(curl(&arguments), (String::new(), 202), "{more:?}");
    }
    assert_eq!(lines(&site).len(), 4);
    for (arguments, expected) in [
        (&["--data", "1", "/a/elsewhere"][..], 404),
        (&["--data", "1", "/b/in/x"], 404),
        (&["--data", "1", "/a"], 404),
        (&["--data", "1", "/"], 404),
        (&["--data", "1", "--path-as-is", "/a/in/%23"], 404),
        (&["--data", "1", "/a/in/%00"], 404),
        (&["/a/in/%23"], 404),
        (&["--request", "PUT", "--data", "1", "/a/in/x"], 405),
        (&["--request", "DELETE", "/a/in/x"], 405),
    ] {
        let (path, options) = arguments.split_last().expect("a path");
        let url = format!("http://127.0.0.1:{port}{path}");
        assert_eq!(curl(&[options, &[url.as_str()]].concat()).1, expected, "{arguments:?}");
    }
    assert_eq!(server_count(&site, "no_such_topic"), 7);
    assert_eq!(server_count(&site, "no_such_method"), 2);
    assert_eq!(site.counter("a", "received"), 4);
    host.stop();
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err(), "it is closed with its last end");
}

#[test]
fn http_tokens_are_asked_for_read_anew_and_never_shown() {
    let port = free_port();
    let site = to_file(port, ", tokenFolder: tokens");
    site.flow(&Flow { tenant: "b", ..flow(("web", "in/#"), ("out", "out")) });
    site.write("tokens/a", "first-of-a\nsecond-of-a\n");
    site.write("tokens/b", "one-of-b\n");
    let host = site.up();
    let post = |token: &str, tenant: &str| {
        let authorization = format!("authorization: Bearer {token}");
        let url = format!("http://127.0.0.1:{port}/{tenant}/in/x");
        curl(&["--header", &authorization, "--data", "1", &url]).1
    };
    for (token, tenant, expected) in [
        ("first-of-a", "a", 202),
        ("second-of-a", "a", 202),
        ("one-of-b", "b", 202),
        ("one-of-b", "a", 403),
        ("first-of-a", "b", 403),
        ("first-of-a", "nobody", 403),
        ("nobodys", "a", 401),
        ("", "a", 401),
    ] {
        assert_eq!(post(token, tenant), expected, "{token} for {tenant}");
    }
    assert_eq!(curl(&["--data", "1", &format!("http://127.0.0.1:{port}/a/in/x")]).1, 401);
    assert_eq!(curl(&[&format!("http://127.0.0.1:{port}/a/%23")]).1, 401, "nor may anybody listen");
    site.write("tokens/a", "third-of-a\n");
    eventually("the new token is known", || post("third-of-a", "a") == 202);
    assert_eq!(post("first-of-a", "a"), 401, "and the others no more");
    site.remove("tokens/a");
    eventually("nobody is left", || post("third-of-a", "a") == 401);
    let shown = format!("{}{}{:?}", site.status(), host.log(), site.run(&["status"]));
    for token in ["-of-a", "one-of-b"] {
        assert!(!shown.contains(token), "{shown}");
    }
    host.stop();
}

#[test]
fn http_a_dataflow_answers_the_requests_that_it_was_sent() {
    let port = free_port();
    let hole = format!("http://127.0.0.1:{}/", free_port());
    let more = ", replySeconds: 1";
    let endpoints = [("web", &*listen(port, more)), ("hook", &*webhook(&hole, ""))];
    let site = Site::new("{ shards: 1 }", &endpoints);
    site.flow(&flow(("web", "in/#"), ("web", "out")));
    let hot = [("field", "t"), ("op", "gt"), ("value", "30")];
    let links = [chain::Link { kind: "filter", module: "json_filter", configuration: &hot }];
    site.flow(&Flow {
        tenant: "b",
        operators: &[("filter", "json_filter")],
        ..flow(("web", "in"), ("web", "out"))
    });
    site.write("tenants/b/artifacts/flow/1.yaml", &chain::graph("flow", &links));
    // Nothing of it is ever settled.
    site.flow(&Flow { tenant: "c", ..flow(("web", "in"), ("hook", "out")) });
    let host = site.up();
    let url = |path: &str| format!("http://127.0.0.1:{port}/{path}");
    let head = ["--header", "content-type: text/x-number", "--header", "x-trace: 7"];
    let to = url("a/in/x");
    let arguments = [&["--include"][..], &head, &["--data", "41", &to]].concat();
    let (text, status) = curl(&arguments);
    assert_eq!((status, text.ends_with("\r\n\r\n41")), (200, true), "{text}");
    assert!(text.contains("content-type: text/x-number\r\n") && text.contains("x-trace: 7\r\n"), "{text}");
    assert!(!text.contains("__request"), "{text}");
    // A request of one's own making is nobody's.
    let arguments = ["--header", "x-__request: 1", "--data", "42", &url("a/in/x")];
    assert_eq!(curl(&arguments), ("42".to_owned(), 200));
    for (body, expected) in
        [("{\"t\": 31}", ("{\"t\": 31}", 200)), ("{\"t\": 29}", ("", 204)), ("no JSON", ("", 204))]
    {
        let (text, status) = curl(&["--data", body, &url("b/in")]);
        assert_eq!((text.as_str(), status), expected, "{body}");
    }
    assert_eq!(curl(&["--data", "1", &url("c/in")]).1, 504);
    assert_eq!(server_count(&site, "late"), 1);
    // Each client gets its own answer, however many ask at once.
    let clients: Vec<_> = (0..8)
        .map(|client| {
            thread::spawn(move || {
                let mut connection = Client::connect(port);
                for number in 0..50 {
                    let body = format!("{client}/{number}");
                    let answer = connection.post("/a/in/many", &body).expect("it is answered");
                    assert_eq!((answer.status, answer.body), (200, body.into_bytes()));
                }
            })
        })
        .collect();
    clients.into_iter().for_each(|client| client.join().expect("all is answered"));
    host.kill();
}

#[test]
fn http_many_requests_share_one_connection_of_http_2() {
    let port = free_port();
    let site = to_file(port, "");
    let host = site.up();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let statuses = runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.expect("it listens");
        let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (sender, connection) = handshake.await.expect("it speaks HTTP/2");
        tokio::spawn(connection);
        let mut requests = JoinSet::new();
        for number in 0..500 {
            let mut sender = sender.clone();
            let request = Request::post(format!("http://x/a/in/{number}")).body(Full::new(Bytes::from("1")));
            requests.spawn(async move {
                let answer = sender.send_request(request.expect("in form")).await;
                answer.expect("an answer").status().as_u16()
            });
        }
        requests.join_all().await
    });
    assert_eq!(statuses, [202; 500]);
    assert_eq!(texts(&site).len(), 500);
    assert_eq!(server_count(&site, "connections"), 1);
    host.stop();
}

#[test]
fn http_a_message_is_for_every_dataflow_that_takes_its_topic() {
    let port = free_port();
    let site = Site::new("{ shards: 1 }", &[("web", &listen(port, "")), ("out", FILE)]);
    site.flow(&flow(("web", "in/+"), ("web", "out")));
    site.flow(&Flow { name: "kept", ..flow(("web", "in/#"), ("out", "out")) });
    let host = site.up();
    let mut client = Client::connect(port);
    let answer = client.post("/a/in/x", "1").expect("an answer");
    assert_eq!((answer.status, answer.body, lines(&site).len()), (200, b"1".to_vec(), 1));
    assert!(!lines(&site)[0].to_string().contains("__request"), "only who answers is told of the request");
    assert_eq!(client.post("/a/in/x/y", "2").expect("an answer").status, 202, "one of them takes it");
    assert_eq!(texts(&site), ["1", "2"]);
    host.stop();
}

/// A listener by curl, which knows nothing of this.
struct Listening {
    curl: Child,
    text: Arc<Mutex<String>>,
}

impl Listening {
    fn start(port: u16, path: &str) -> Self {
        let mut curl = Command::new("curl")
            .args(["--silent", "--no-buffer", &format!("http://127.0.0.1:{port}{path}")])
            .stdout(Stdio::piped())
            .spawn()
            .expect("curl is there");
        let mut stdout = curl.stdout.take().expect("piped");
        let text = Arc::<Mutex<String>>::default();
        let kept = text.clone();
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(len @ 1..) = stdout.read(&mut bytes) {
                kept.lock().expect("no panic").push_str(&String::from_utf8_lossy(&bytes[..len]));
            }
        });
        let listening = Listening { curl, text };
        eventually("it listens", || listening.text().starts_with(":\n\n"));
        listening
    }

    fn text(&self) -> String {
        self.text.lock().expect("no panic").clone()
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let _ = self.curl.kill();
        let _ = self.curl.wait();
    }
}

#[test]
fn http_whoever_listens_sees_what_is_written_and_holds_nothing_up() {
    let port = free_port();
    // A client may take nothing in for a minute before it is cut.
    let site = Site::new("{ shards: 1 }", &[("web", &listen(port, ", headerTimeoutSeconds: 60"))]);
    for tenant in ["a", "b"] {
        site.flow(&Flow { tenant, ..flow(("web", "in/#"), ("web", "out/${outputTopic.2}")) });
    }
    let host = site.up();
    let all = Listening::start(port, "/a/out/%23");
    let one = Listening::start(port, "/a/out/1");
    let mut client = Client::connect(port);
    for (topic, body) in [("1", "two\nlines"), ("2", "2"), ("1", "3")] {
        assert_eq!(client.post(&format!("/a/in/{topic}"), body).expect("an answer").status, 200);
    }
    client
        .send(b"POST /a/in/2 HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n\xff\x00")
        .expect("it is sent");
    assert_eq!(client.answer().expect("an answer").body, b"\xff\x00");
    assert_eq!(client.post("/b/in/1", "somebody else's").expect("an answer").status, 200);
    let last = "event: binary\ntopic: out/2\ndata: /wA=\n\n";
    eventually("all came", || all.text().ends_with(last));
    let text = all.text();
    assert!(text.contains("event: message\ntopic: out/1\ndata: two\ndata: lines\n\nid: "), "{text}");
    assert_eq!(text.matches("\nid: ").count(), 4, "{text}");
    assert!(!text.contains("somebody"), "{text}");
    eventually("both came", || one.text().ends_with("data: 3\n\n"));
    assert!(!one.text().contains("topic: out/2"), "{}", one.text());
    // One who reads nothing: what it cannot hold is lost to it, and to nobody else.
    let mut slow = Client::connect(port);
    slow.send("GET /a/out/slow HTTP/1.1\r\nhost: x\r\n\r\n").expect("it is sent");
    let (first, headers) = read_head(&mut slow.stream).expect("an answer");
    assert_eq!((first.as_str(), headers["content-type"].as_str()), ("HTTP/1.1 200 OK", "text/event-stream"));
    let body = "x".repeat(200 << 10);
    let mut sent = 0;
    eventually("events are lost", || {
        assert_eq!(client.post("/a/in/slow", &body).expect("an answer").status, 200);
        sent += 1;
        server_count(&site, "events_lost") > 3
    });
    let mut read = String::new();
    let mut lost = None;
    while lost.is_none() {
        let mut line = String::new();
        slow.stream.read_line(&mut line).expect("it still listens");
        if read == "event: lost\n" {
            lost = Some(line.trim().trim_start_matches("data: ").parse::<u64>().expect("a number"));
        }
        read = line;
    }
    assert!(lost.is_some_and(|lost| lost >= 1 && lost < sent), "{lost:?} of {sent}");
    drop(slow);
    host.stop();
}

#[test]
fn http_a_webhook_gets_every_message_signed_and_those_of_a_topic_in_order() {
    let port = free_port();
    let receiver = Receiver::start(|it, before| {
        let tries = before.iter().filter(|other| other.key() == it.key()).count();
        Some(match (it.topic(), tries) {
            // Each of its first attempts is refused for now, or never answered.
            ("out/1", 0) if it.body == "10" => "503 Service Unavailable\r\nretry-after: 1".to_owned(),
            ("out/1", 0) if it.body == "11" => return None,
            ("out/1", 0) if it.body == "12" => "429 Too Many Requests".to_owned(),
            ("out/2", _) if it.body == "20" => "422 Unprocessable Content".to_owned(),
            _ => "200 OK".to_owned(),
        })
    });
    let more = ", tokenFile: secrets/token, signatureFile: secrets/signature, inflight: 4";
    let endpoints = [("web", &*listen(port, "")), ("hook", &*webhook(&receiver.url(), more))];
    let site = Site::new("{ shards: 1 }", &endpoints);
    site.flow(&flow(("web", "in/#"), ("hook", "out/${outputTopic.2}")));
    site.write("secrets/token", "hook-token\n");
    site.write("secrets/signature", "key of the hook\n");
    let host = site.up();
    let clients: Vec<_> = (1..4_u64)
        .map(|topic| {
            thread::spawn(move || {
                // Several at once, in one order: a pipeline on one connection.
                let mut client = Client::connect(port);
                for number in 0..10 {
                    let request = format!(
                        "POST /a/in/{topic} HTTP/1.1\r\nhost: x\r\nx-team: weather\r\ncontent-type: text/plain\r\n\
                         content-length: 2\r\n\r\n{topic}{number}"
                    );
                    client.send(request).expect("it is sent");
                }
                for _ in 0..10 {
                    assert_eq!(client.answer().expect("an answer").status, 202);
                }
            })
        })
        .collect();
    clients.into_iter().for_each(|client| client.join().expect("all is acknowledged"));
    let received = receiver.received();
    for topic in 1..4_u64 {
        let of_topic = received.iter().filter(|it| it.topic() == format!("out/{topic}"));
        let mut bodies: Vec<_> = of_topic.map(|it| it.body.as_str()).collect();
        bodies.dedup();
        let expected: Vec<_> = (0..10).map(|number| format!("{topic}{number}")).collect();
        assert_eq!(bodies, expected, "in order, and before the next only itself again");
    }
    let mut keys = BTreeMap::<&str, BTreeSet<&str>>::new();
    received.iter().for_each(|it| _ = keys.entry(it.key()).or_default().insert(&it.body));
    assert_eq!((keys.len(), keys.values().all(|bodies| bodies.len() == 1)), (30, true));
    let again: Vec<_> = received.iter().filter(|it| it.body == "10").collect();
    assert_eq!(again.len(), 2);
    assert!(again[1].at - again[0].at >= Duration::from_secs(1), "`retry-after` is kept to");
    for (name, expected) in
        [("content-type", "text/plain"), ("x-team", "weather"), ("authorization", "Bearer hook-token")]
    {
        assert_eq!(received[0].headers[name], expected);
    }
    let signature = format!("sha256={}", openssl_hmac("key of the hook", &received[0].body));
    assert_eq!(received[0].headers["x-tidegate-signature"], signature);
    let letters = site.run(&["dead-letters", "list", "--json"]).stdout;
    assert_eq!(letters.matches("the webhook refused it: 422").count(), 1, "{letters}");
    let sink = site.status()["tenants"][0]["sinks"][0].clone();
    assert_eq!((&sink["connection"], &sink["counters"]["rejected"]), (&"connected".into(), &1.into()));
    assert!(!format!("{}{}", site.status(), host.log()).contains("hook-token"));
    host.stop();
}

/// As a receiver would check it, by another program.
fn openssl_hmac(key: &str, body: &str) -> String {
    let mut child = Command::new("openssl")
        .args(["dgst", "-sha256", "-hmac", key])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("openssl is there");
    child.stdin.take().expect("piped").write_all(body.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    text.trim().rsplit(' ').next().expect("a digest").to_owned()
}

#[test]
fn http_a_webhook_that_is_away_is_seen_and_gets_all_once_it_is_back() {
    let (port, hook) = (free_port(), free_port());
    let url = format!("http://127.0.0.1:{hook}/");
    let endpoints = [("web", &*listen(port, "")), ("hook", &*webhook(&url, ""))];
    let site = Site::new("{ shards: 1 }", &endpoints);
    site.flow(&flow(("web", "in"), ("hook", "out")));
    let host = site.up();
    let state = || site.status()["tenants"][0]["sinks"][0]["connection"].to_string();
    assert!(state().contains("degraded"), "{}", state());
    let client = thread::spawn(move || Client::connect(port).post("/a/in", "1").expect("an answer").status);
    eventually("it is tried again", || {
        site.status()["tenants"][0]["sinks"][0]["counters"]["redelivered"].as_u64() > Some(0)
    });
    let listener = TcpListener::bind(("127.0.0.1", hook)).expect("it is free");
    let received = Mutex::default();
    let (stream, _) = listener.accept().expect("it is tried again");
    let answering = thread::spawn(move || {
        receive(BufReader::new(stream), &received, &|_, _| Some("200 OK".to_owned()));
    });
    assert_eq!(client.join().expect("no panic"), 202);
    eventually("it is seen", || state().contains("connected"));
    host.stop();
    answering.join().expect("no panic");
}

/// A certificate for this machine, and its key.
fn certificate(site: &Site) {
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
    site.write("tls/certificate.pem", &made.cert.pem());
    site.write("tls/key.pem", &made.signing_key.serialize_pem());
}

#[test]
fn http_both_ends_speak_tls_and_take_up_a_certificate_that_was_replaced() {
    let port = free_port();
    let server = listen(port, ", tls: { certificateFile: tls/certificate.pem, keyFile: tls/key.pem }");
    let hook = webhook(
        &format!("https://localhost:{port}/a/from-hook"),
        ", tls: { trustedCaCertificateFile: tls/certificate.pem }",
    );
    let site = Site::new("{ shards: 1 }", &[("web", &server), ("hook", &hook), ("out", FILE)]);
    site.flow(&flow(("web", "in"), ("hook", "x")));
    site.flow(&Flow { name: "back", ..flow(("web", "from-hook"), ("out", "out")) });
    certificate(&site);
    let host = site.up();
    let trusted = site.dir().join("tls/certificate.pem");
    let url = format!("https://localhost:{port}/a/in");
    let trusted = trusted.to_str().expect("UTF-8");
    let post = |protocol: &str| curl(&["--cacert", trusted, protocol, "--data", "1", &url]).1;
    for protocol in ["--http1.1", "--http2"] {
        assert_eq!(post(protocol), 202, "{protocol}");
    }
    assert_eq!(texts(&site), ["1", "1"], "through the webhook and back");
    // In the clear, and whom it does not trust.
    let mut clear = Client::connect(port);
    clear.send("POST /a/in HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\n1").expect("it is sent");
    assert!(clear.answer().is_err());
    let ran = Command::new("curl").args(["--silent", "--data", "1", &url]).output().expect("curl is there");
    assert!(!ran.status.success());
    assert!(server_count(&site, "broken") >= 2);
    certificate(&site);
    let url = format!("https://localhost:{port}/a/from-hook");
    let post = || curl(&["--cacert", trusted, "--data", "1", &url]).1;
    eventually("the new certificate is shown", || post() == 202);
    host.stop();
}

#[test]
fn http_a_webhook_trusts_a_certificate_that_was_replaced_while_it_was_away() {
    let [port, far_port] = tidegate_loadtest::broker::free_ports().expect("some are free");
    let server = listen(far_port, ", tls: { certificateFile: tls/certificate.pem, keyFile: tls/key.pem }");
    let far = Site::new("{ shards: 1 }", &[("web", &server), ("out", FILE)]);
    far.flow(&flow(("web", "in"), ("out", "out")));
    certificate(&far);
    let trusted = far.dir().join("tls/certificate.pem");
    let hook = webhook(
        &format!("https://localhost:{far_port}/a/in"),
        &format!(", tls: {{ trustedCaCertificateFile: \"{}\" }}", trusted.display()),
    );
    let site = Site::new("{ shards: 1 }", &[("web", &listen(port, "")), ("hook", &hook)]);
    site.flow(&flow(("web", "in"), ("hook", "x")));
    let (far_host, host) = (far.up(), site.up());
    let url = format!("http://localhost:{port}/a/in");
    let post = |body: &str| curl(&["--data", body, &url]).1;
    assert_eq!(post("1"), 202);
    far_host.stop();
    certificate(&far);
    let far_host = far.up();
    assert_eq!(post("2"), 202);
    assert_eq!(texts(&far), ["1", "2"]);
    host.stop();
    far_host.stop();
}

/// From now on a message that says `spin` keeps its operator busy for two seconds of CPU time,
/// which is policy's limit. Then it is given up.
fn spin(site: &Site, instances: u32) {
    let slow = site.dir().join("tenants/a/artifacts/pass_through/1.wasm");
    let composed = compose("map_custom", "hostile_provider", &slow);
    assert_eq!(composed.code, 0, "{}", composed.stderr);
    site.limit(&format!("message: {{ fuel: 500G, time: 2s }}\n  instances: {instances}"));
}

/// Whether requests to a site, made of what they say, are answered with `status` before an
/// earlier one that is slow in its operator.
pub fn overtakes(site: impl Fn(u16) -> Site, request: impl Fn(&str) -> String, status: u16) {
    // With one instance alone they go one after the other: so a slow one can be told.
    for (instances, is_overtaken) in [(16, true), (1, false)] {
        let port = free_port();
        let site = site(port);
        spin(&site, instances);
        let host = site.up();
        let mut slow = Client::connect(port);
        slow.send(request("spin")).expect("it is sent");
        eventually("it is taken", || site.counter("a", "received") == 1);
        let mut client = Client::connect(port);
        for number in 0..20 {
            client.send(request(&number.to_string())).expect("it is sent");
            assert_eq!(client.answer().expect("an answer").status, status);
        }
        // The operator gives it up at the end; its answer also waits for the dead letter's disk.
        assert_eq!(site.counter("a", "dead") == 0, is_overtaken, "with {instances} instances");
        assert_eq!(slow.answer().expect("it is answered").status, status, "a dead letter is an end");
        assert_eq!(site.counter("a", "settled"), 21);
        assert_eq!(site.counter("a", "dead"), 1);
        host.stop();
    }
}

#[test]
fn http_a_request_that_is_slow_in_its_operator_does_not_delay_the_answers_to_later_ones() {
    let request = |text: &str| {
        format!("POST /a/in/1 HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{text}", text.len())
    };
    overtakes(|port| to_file(port, ""), request, 202);
}
