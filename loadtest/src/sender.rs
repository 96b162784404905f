//! Clients that send: whatever the connector, each message until it is acknowledged.

use std::{
    fmt::Write as _,
    io::{self, BufRead, BufReader, Read as _, Write as _},
    net::TcpStream,
    sync::{
        Arc, Condvar, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{self, SyncSender},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use rdkafka::{
    ClientConfig, ClientContext,
    error::{KafkaError, RDKafkaErrorCode},
    message::{Header, OwnedHeaders},
    producer::{BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer},
};

use crate::client::Publisher;

/// Until a producer whose queue is full is tried again.
const QUEUE_AGAIN_AFTER: Duration = Duration::from_millis(1);
/// How long a request may go unanswered, over all attempts.
const ANSWER_WITHIN: Duration = Duration::from_secs(180);
/// Longest that one attempt waits: longer than a host waits to answer that it is not done.
const ATTEMPT_WITHIN: Duration = Duration::from_secs(40);
const RETRY_AFTER: Duration = Duration::from_millis(20);

/// One client.
pub enum Sender {
    Mqtt(Publisher),
    Kafka(ThreadedProducer<Reports>),
    Http(Posters),
}

impl Sender {
    /// It stops waiting for a broker that is away once `ends` is set.
    pub fn mqtt(address: &str, client_id: &str, ends: Arc<AtomicBool>) -> anyhow::Result<Self> {
        Ok(Sender::Mqtt(Publisher::connect(address, client_id, ends)?))
    }

    /// Repeats nothing, so that what comes twice was not sent twice.
    pub fn kafka(address: &str) -> anyhow::Result<Self> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", address).set("enable.idempotence", "true");
        // A record is sent until it is acknowledged, however long that takes.
        config.set("message.timeout.ms", "0").set("queue.buffering.max.ms", "1");
        config.set("queue.buffering.max.messages", "100000").set("reconnect.backoff.max.ms", "500");
        Ok(Sender::Kafka(config.create_with_context(Reports::default())?))
    }

    /// By POST to paths of a loopback port, on so many connections.
    pub fn http(port: u16, connections: usize) -> Self {
        Sender::Http(Posters::start(port, connections))
    }

    /// Sends to a topic, or to the path of that name. Waits while nobody takes any more.
    pub fn send(&mut self, topic: &str, properties: &[(&str, &str)], payload: &[u8]) -> anyhow::Result<()> {
        match self {
            Sender::Mqtt(publisher) => publisher.publish(topic, properties, payload),
            Sender::Kafka(producer) => {
                let mut record: BaseRecord<'_, (), [u8]> = BaseRecord::to(topic).payload(payload);
                if !properties.is_empty() {
                    let header = |headers: OwnedHeaders, (key, value): &(&str, &str)| {
                        headers.insert(Header { key, value: Some(*value) })
                    };
                    record = record.headers(properties.iter().fold(OwnedHeaders::new(), header));
                }
                loop {
                    match producer.send(record) {
                        Ok(()) => return Ok(()),
                        Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), again)) => {
                            record = again;
                            thread::sleep(QUEUE_AGAIN_AFTER);
                        }
                        Err((error, _)) => return Err(error).context("the load's producer"),
                    }
                }
            }
            Sender::Http(posters) => posters.post(topic, properties, payload),
        }
    }

    /// Hands over what was sent and waits to be written.
    pub fn flush(&mut self) -> anyhow::Result<()> {
        match self {
            Sender::Mqtt(publisher) => publisher.flush(),
            Sender::Kafka(_) | Sender::Http(_) => Ok(()),
        }
    }

    /// Waits until all is acknowledged; how many messages are not.
    pub fn finish(&mut self, within: Duration) -> u64 {
        match self {
            Sender::Mqtt(publisher) => publisher.finish(within),
            Sender::Kafka(producer) => {
                let _ = producer.flush(within);
                producer.in_flight_count().max(0) as u64
            }
            Sender::Http(posters) => posters.finish(within),
        }
    }

    /// Messages that were answered with a no, and never will be acknowledged.
    pub fn refused(&self) -> u64 {
        match self {
            Sender::Mqtt(publisher) => publisher.acknowledged().1,
            Sender::Kafka(producer) => producer.context().failed.load(Ordering::SeqCst),
            // It is asked again until it is answered with a yes.
            Sender::Http(_) => 0,
        }
    }
}

/// What Kafka says of records.
#[derive(Default)]
pub struct Reports {
    failed: AtomicU64,
}

impl ClientContext for Reports {}

impl ProducerContext for Reports {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        self.failed.fetch_add(u64::from(result.is_err()), Ordering::SeqCst);
    }
}

/// Clients of HTTP/1.1, each with one connection and one request under way.
pub struct Posters {
    /// Whichever is free takes the next one. None once they are to end.
    requests: Option<SyncSender<Request>>,
    state: Arc<(Mutex<Posting>, Condvar)>,
    ends: Arc<AtomicBool>,
}

#[derive(Default)]
struct Posting {
    unanswered: u64,
    /// Why one of them has given up.
    failure: Option<String>,
}

struct Request {
    path: String,
    headers: String,
    body: Vec<u8>,
}

impl Posters {
    fn start(port: u16, connections: usize) -> Self {
        let (requests, taken) = mpsc::sync_channel::<Request>(0);
        let taken = Arc::new(Mutex::new(taken));
        let state = Arc::<(Mutex<Posting>, Condvar)>::default();
        let ends = Arc::<AtomicBool>::default();
        for _ in 0..connections {
            let (taken, state, ends) = (taken.clone(), state.clone(), ends.clone());
            let mut poster = Poster { port, stream: None };
            thread::spawn(move || {
                loop {
                    let next = taken.lock().expect("no panic under this lock").recv();
                    let Ok(request) = next else { return };
                    let posted = poster.post(&request, &ends);
                    let mut posting = lock(&state.0);
                    match posted {
                        Ok(()) => posting.unanswered -= 1,
                        Err(error) => posting.failure = Some(format!("{error:#}")),
                    }
                    drop(posting);
                    state.1.notify_all();
                }
            });
        }
        Posters { requests: Some(requests), state, ends }
    }

    fn post(&self, path: &str, properties: &[(&str, &str)], payload: &[u8]) -> anyhow::Result<()> {
        let mut posting = lock(&self.state.0);
        if let Some(failure) = &posting.failure {
            bail!("{failure}");
        }
        posting.unanswered += 1;
        drop(posting);
        let mut headers = String::new();
        for (name, value) in properties {
            // As user properties are written in HTTP.
            write!(headers, "x-{name}: {value}\r\n").expect("a string takes all");
        }
        let request = Request { path: format!("/{path}"), headers, body: payload.to_vec() };
        self.requests.as_ref().and_then(|requests| requests.send(request).ok()).context("no poster is left")
    }

    fn finish(&self, within: Duration) -> u64 {
        let waited = self.state.1.wait_timeout_while(lock(&self.state.0), within, |posting| {
            posting.unanswered > 0 && posting.failure.is_none()
        });
        waited.expect("no panic under this lock").0.unanswered
    }
}

impl Drop for Posters {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::SeqCst);
        // Each ends once it is done with its request.
        self.requests = None;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no panic under this lock")
}

/// One connection, made again when it must.
struct Poster {
    port: u16,
    stream: Option<BufReader<TcpStream>>,
}

impl Poster {
    /// Until it is answered that all of it is done.
    fn post(&mut self, request: &Request, ends: &AtomicBool) -> anyhow::Result<()> {
        let until = Instant::now() + ANSWER_WITHIN;
        let mut last = String::new();
        while Instant::now() < until && !ends.load(Ordering::SeqCst) {
            match self.attempt(request) {
                Ok(200..=299) => return Ok(()),
                Ok(status) => last = format!("it is answered with {status}"),
                Err(error) => {
                    self.stream = None;
                    last = error.to_string();
                }
            }
            thread::sleep(RETRY_AFTER);
        }
        let body = String::from_utf8_lossy(&request.body);
        bail!("`{}` is not acknowledged within {ANSWER_WITHIN:?}: {last}", body.trim_end())
    }

    fn attempt(&mut self, Request { path, headers, body }: &Request) -> io::Result<u16> {
        if self.stream.is_none() {
            let stream = TcpStream::connect(("127.0.0.1", self.port))?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(ATTEMPT_WITHIN))?;
            stream.set_write_timeout(Some(ATTEMPT_WITHIN))?;
            self.stream = Some(BufReader::new(stream));
        }
        let stream = self.stream.as_mut().expect("it was made");
        let len = body.len();
        let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {len}\r\n{headers}\r\n");
        let mut request = head.into_bytes();
        request.extend_from_slice(body);
        stream.get_mut().write_all(&request)?;
        let Head { first, content_length, .. } = Head::read(stream)?;
        io::copy(&mut stream.take(content_length as u64), &mut io::sink())?;
        let status = first.split(' ').nth(1).and_then(|status| status.parse().ok());
        status.ok_or_else(|| io::Error::other(format!("no status in {first:?}")))
    }
}

/// The head of a request or of an answer.
pub struct Head {
    pub first: String,
    /// All other lines.
    pub headers: String,
    pub content_length: usize,
    pub topic: String,
}

impl Head {
    pub fn read(stream: &mut impl BufRead) -> io::Result<Self> {
        let mut line = || {
            let mut line = String::new();
            match stream.read_line(&mut line)? {
                0 => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
                _ => Ok(line.trim_end().to_owned()),
            }
        };
        let first = line()?;
        let mut head = Head { first, headers: String::new(), content_length: 0, topic: String::new() };
        loop {
            let line = line()?;
            let Some((name, value)) = line.split_once(':') else { return Ok(head) };
            head.headers += &line;
            head.headers.push('\n');
            match name.to_ascii_lowercase().as_str() {
                "content-length" => head.content_length = value.trim().parse().map_err(io::Error::other)?,
                "x-tidegate-topic" => head.topic = value.trim().to_owned(),
                _ => {}
            }
        }
    }
}
