//! Whoever sends the load of a bed, at a pace, until each message is acknowledged.

use std::{
    io::{self, BufRead, BufReader, Read as _, Write as _},
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use rdkafka::{
    ClientConfig, ClientContext,
    error::{KafkaError, RDKafkaErrorCode},
    producer::{BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer},
};

use crate::{client::Publisher, count::Count};

/// How often what is due is sent.
const EVERY: Duration = Duration::from_millis(5);
/// What was due while nobody took it is not made up for beyond this: it would come at once.
const BEHIND_MAX: Duration = Duration::from_millis(100);
/// How long a request may go unanswered, over all attempts.
const ANSWER_WITHIN: Duration = Duration::from_secs(180);
/// Longest that one attempt waits: longer than a host waits to answer that it is not done.
const ATTEMPT_WITHIN: Duration = Duration::from_secs(40);
const RETRY_AFTER: Duration = Duration::from_millis(20);

/// One client.
pub enum Sender {
    Mqtt { publisher: Publisher, topic: String },
    Kafka { producer: ThreadedProducer<Reports>, topic: String },
    Http(Poster),
}

impl Sender {
    pub fn mqtt(address: &str, client_id: &str, topic: &str) -> anyhow::Result<Self> {
        let publisher = Publisher::connect(address, client_id, Arc::default())?;
        Ok(Sender::Mqtt { publisher, topic: topic.to_owned() })
    }

    /// Repeats nothing, so that what comes twice was not sent twice.
    pub fn kafka(address: &str, topic: &str) -> anyhow::Result<Self> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", address).set("enable.idempotence", "true");
        // A record is sent until it is acknowledged, however long that takes.
        config.set("message.timeout.ms", "0").set("queue.buffering.max.ms", "5");
        config.set("queue.buffering.max.messages", "100000").set("reconnect.backoff.max.ms", "500");
        let producer = config.create_with_context(Reports::default())?;
        Ok(Sender::Kafka { producer, topic: topic.to_owned() })
    }

    /// By POST to `path` on a loopback port.
    pub fn http(port: u16, path: &str) -> Self {
        Sender::Http(Poster { port, path: path.to_owned(), stream: None })
    }

    /// Sends messages once more and waits until they are acknowledged.
    pub fn again(mut self, ids: &[String], within: Duration) -> anyhow::Result<()> {
        for id in ids {
            self.send(&payload(id))?;
        }
        self.flush()?;
        let left = self.finish(within);
        ensure!(left == 0, "{left} messages were not acknowledged when they were sent again");
        Ok(())
    }

    fn send(&mut self, payload: &str) -> anyhow::Result<()> {
        match self {
            Sender::Mqtt { publisher, topic } => publisher.publish(topic, &[], payload.as_bytes()),
            Sender::Kafka { producer, topic } => loop {
                let record: BaseRecord<'_, str, str> = BaseRecord::to(topic).payload(payload);
                match producer.send(record) {
                    Ok(()) => return Ok(()),
                    Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                        thread::sleep(EVERY)
                    }
                    Err((error, _)) => return Err(error).context("the load's producer"),
                }
            },
            Sender::Http(poster) => poster.post(payload),
        }
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        match self {
            Sender::Mqtt { publisher, .. } => publisher.flush(),
            Sender::Kafka { .. } | Sender::Http(_) => Ok(()),
        }
    }

    /// Waits until all is acknowledged; how many messages are not, or never will be.
    fn finish(mut self, within: Duration) -> u64 {
        match &mut self {
            Sender::Mqtt { publisher, .. } => publisher.finish(within) + publisher.acknowledged().1,
            Sender::Kafka { producer, .. } => {
                let _ = producer.flush(within);
                let failed = producer.context().failed.load(Ordering::SeqCst);
                producer.in_flight_count().max(0) as u64 + failed
            }
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

/// A client of HTTP/1.1 on one connection, made again when it must.
pub struct Poster {
    port: u16,
    path: String,
    stream: Option<BufReader<TcpStream>>,
}

impl Poster {
    /// Until it is answered that all of it is done.
    fn post(&mut self, payload: &str) -> anyhow::Result<()> {
        let until = Instant::now() + ANSWER_WITHIN;
        let mut last = String::new();
        while Instant::now() < until {
            match self.attempt(payload) {
                Ok(200..=299) => return Ok(()),
                Ok(status) => last = format!("it is answered with {status}"),
                Err(error) => {
                    self.stream = None;
                    last = error.to_string();
                }
            }
            thread::sleep(RETRY_AFTER);
        }
        anyhow::bail!("{payload} is not acknowledged within {ANSWER_WITHIN:?}: {last}")
    }

    fn attempt(&mut self, payload: &str) -> io::Result<u16> {
        if self.stream.is_none() {
            let stream = TcpStream::connect(("127.0.0.1", self.port))?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(ATTEMPT_WITHIN))?;
            stream.set_write_timeout(Some(ATTEMPT_WITHIN))?;
            self.stream = Some(BufReader::new(stream));
        }
        let stream = self.stream.as_mut().expect("it was made");
        let (path, len) = (&self.path, payload.len());
        let request = format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {len}\r\n\r\n{payload}");
        stream.get_mut().write_all(request.as_bytes())?;
        let Head { first, content_length, .. } = Head::read(stream)?;
        io::copy(&mut stream.take(content_length as u64), &mut io::sink())?;
        let status = first.split(' ').nth(1).and_then(|status| status.parse().ok());
        status.ok_or_else(|| io::Error::other(format!("no status in {first:?}")))
    }
}

/// The head of a request or of an answer.
pub struct Head {
    pub first: String,
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
        let mut head = Head { first: line()?, content_length: 0, topic: String::new() };
        loop {
            let line = line()?;
            let Some((name, value)) = line.split_once(':') else { return Ok(head) };
            match name.to_ascii_lowercase().as_str() {
                "content-length" => head.content_length = value.trim().parse().map_err(io::Error::other)?,
                "x-tidegate-topic" => head.topic = value.trim().to_owned(),
                _ => {}
            }
        }
    }
}

/// Clients that send until they are told to end.
pub struct Load {
    ends: Arc<AtomicBool>,
    /// In messages a second, of each client.
    rate: Arc<AtomicU64>,
    clients: Vec<JoinHandle<anyhow::Result<Sender>>>,
}

impl Load {
    /// Each of the clients sends its part of so many messages a second.
    pub fn start(senders: Vec<Sender>, count: &Arc<Count>, rate: u64) -> Self {
        let ends = Arc::<AtomicBool>::default();
        let each = Arc::new(AtomicU64::new(rate.div_ceil(senders.len() as u64)));
        let clients = senders.into_iter().map(|sender| {
            let (count, ends, each) = (count.clone(), ends.clone(), each.clone());
            thread::spawn(move || pace(sender, &count, &each, &ends))
        });
        Load { clients: clients.collect(), ends, rate: each }
    }

    pub fn set_rate(&self, rate: u64) {
        self.rate.store(rate.div_ceil(self.clients.len() as u64), Ordering::SeqCst);
    }

    /// An error if a client has given up.
    pub fn check(&mut self) -> anyhow::Result<()> {
        while let Some(at) = self.clients.iter().position(JoinHandle::is_finished) {
            self.clients.swap_remove(at).join().expect("it does not panic")?;
        }
        Ok(())
    }

    /// Sends nothing more and waits until all is acknowledged.
    pub fn finish(self, within: Duration) -> anyhow::Result<()> {
        self.ends.store(true, Ordering::SeqCst);
        let until = Instant::now() + within;
        let mut left = 0;
        for client in self.clients {
            let sender = client.join().expect("it does not panic")?;
            left += sender.finish(until.saturating_duration_since(Instant::now()));
        }
        ensure!(left == 0, "{left} messages were never acknowledged");
        Ok(())
    }
}

/// Bytes of a payload, as far as its id leaves room.
const PAYLOAD_BYTES: usize = 100;

fn payload(id: &str) -> String {
    format!("{id:<PAYLOAD_BYTES$}")
}

fn pace(mut sender: Sender, count: &Count, rate: &AtomicU64, ends: &AtomicBool) -> anyhow::Result<Sender> {
    let mut due = Instant::now();
    while !ends.load(Ordering::SeqCst) {
        let gap = Duration::from_secs(1) / u32::try_from(rate.load(Ordering::SeqCst).max(1))?;
        due = due.max(Instant::now().checked_sub(BEHIND_MAX).unwrap_or(due));
        let until = Instant::now();
        while due <= until {
            let id = count.send();
            sender.send(&payload(&id))?;
            due += gap;
        }
        sender.flush()?;
        thread::sleep(EVERY);
    }
    Ok(sender)
}
