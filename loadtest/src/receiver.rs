//! Clients that take what a host gives out, whatever the connector: they ask it nothing.

use std::{
    io::{self, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use rdkafka::{
    ClientConfig, Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
    error::KafkaError,
    message::Headers,
};

use crate::{
    client::{Subscriber, Take},
    sender::Head,
};

const POLL: Duration = Duration::from_millis(100);
/// How long Kafka may take to say where a partition ends.
const END_WITHIN: Duration = Duration::from_secs(10);
/// Records that are handed over together.
const RECORDS_MAX: usize = 1_000;

pub enum Receiver {
    Mqtt(Subscriber),
    Kafka(Reader),
    Http(Hook),
}

impl Receiver {
    pub fn check(&mut self) -> anyhow::Result<()> {
        match self {
            Receiver::Mqtt(subscriber) => subscriber.check(),
            Receiver::Kafka(reader) => reader.check(),
            Receiver::Http(_) => Ok(()),
        }
    }
}

/// From where a topic is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    Beginning,
    /// What is written from now on.
    Now,
}

/// Reads topics, in no group.
pub struct Reader {
    address: String,
    topics: Vec<String>,
    partitions: u32,
    ends: Arc<AtomicBool>,
    reading: Option<JoinHandle<anyhow::Result<()>>>,
}

impl Reader {
    /// Read-committed: it sees what others see who trust transactions. Each topic has so many
    /// partitions.
    pub fn start(
        address: &str,
        topics: Vec<String>,
        partitions: u32,
        since: Since,
        take: impl Take,
    ) -> anyhow::Result<Self> {
        let ends = Arc::<AtomicBool>::default();
        let consumer = consumer(address, &topics, partitions, since)?;
        let reading = {
            let ends = ends.clone();
            thread::spawn(move || read(&consumer, take, &ends))
        };
        Ok(Reader { address: address.to_owned(), topics, partitions, ends, reading: Some(reading) })
    }

    fn check(&mut self) -> anyhow::Result<()> {
        match self.reading.take_if(|reading| reading.is_finished()) {
            None => Ok(()),
            Some(reading) => reading.join().expect("it does not panic").context("the reader ended"),
        }
    }

    /// How many records another reader finds now, up to the end of the topics.
    pub fn records(&self, within: Duration) -> anyhow::Result<u64> {
        let consumer = consumer(&self.address, &self.topics, self.partitions, Since::Beginning)?;
        let until = Instant::now() + within;
        let (mut records, mut ended) = (0, Vec::new());
        while ended.len() < self.topics.len() * self.partitions as usize {
            ensure!(Instant::now() < until, "the topics are not read within {within:?}");
            match consumer.poll(POLL) {
                Some(Ok(_)) => records += 1,
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    ended.retain(|it| *it != partition);
                    ended.push(partition);
                }
                // It asks again by itself.
                Some(Err(_)) | None => {}
            }
        }
        Ok(records)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::SeqCst);
        self.reading.take().map(JoinHandle::join);
    }
}

fn consumer(address: &str, topics: &[String], partitions: u32, since: Since) -> anyhow::Result<BaseConsumer> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", address).set("group.id", "outside");
    config.set("isolation.level", "read_committed").set("enable.partition.eof", "true");
    config.set("enable.auto.commit", "false").set("auto.offset.reset", "earliest");
    // It must be back before the host is, whose recovery it measures.
    config.set("reconnect.backoff.max.ms", "500").set("fetch.wait.max.ms", "20");
    let consumer: BaseConsumer = config.create()?;
    let mut list = TopicPartitionList::new();
    for topic in topics {
        for partition in 0..partitions as i32 {
            let from = match since {
                Since::Beginning => Offset::Beginning,
                // The library would look for the end later.
                Since::Now => Offset::Offset(end_of(&consumer, topic, partition)?),
            };
            list.add_partition_offset(topic, partition, from)?;
        }
    }
    consumer.assign(&list)?;
    Ok(consumer)
}

/// The offset that the next record of a partition will have.
fn end_of(consumer: &BaseConsumer, topic: &str, partition: i32) -> anyhow::Result<i64> {
    let until = Instant::now() + END_WITHIN;
    loop {
        match consumer.fetch_watermarks(topic, partition, END_WITHIN) {
            Ok((_, end)) => return Ok(end),
            // A topic that was made just now is not known everywhere.
            Err(_) if Instant::now() < until => thread::sleep(POLL),
            Err(error) => return Err(error).with_context(|| format!("the topic `{topic}`")),
        }
    }
}

fn read(consumer: &BaseConsumer, mut take: impl Take, ends: &AtomicBool) -> anyhow::Result<()> {
    let mut body = Vec::new();
    while !ends.load(Ordering::SeqCst) {
        let (mut polled, mut taken) = (consumer.poll(POLL), 0);
        while let Some(next) = polled.take() {
            match next {
                Ok(record) => {
                    body.clear();
                    for header in record.headers().into_iter().flat_map(Headers::iter) {
                        body.extend_from_slice(header.value.unwrap_or_default());
                    }
                    body.extend_from_slice(record.payload().unwrap_or_default());
                    take.take(record.topic().as_bytes(), &body);
                    taken += 1;
                }
                Err(KafkaError::MessageConsumptionFatal(error)) => bail!("{error}"),
                // What is not fatal is mended by the library.
                Err(_) => {}
            }
            if taken < RECORDS_MAX {
                polled = consumer.poll(Duration::ZERO);
            }
        }
        if taken > 0 {
            take.end();
        }
    }
    Ok(())
}

/// Whoever webhooks are sent to: takes everything.
pub struct Hook {
    pub port: u16,
    ends: Arc<AtomicBool>,
    /// Every connection that there was.
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Hook {
    pub fn start(listener: TcpListener, take: impl Take) -> anyhow::Result<Self> {
        let port = listener.local_addr()?.port();
        let (ends, open) = (Arc::<AtomicBool>::default(), Arc::<Mutex<Vec<TcpStream>>>::default());
        let hook = Hook { port, ends: ends.clone(), open: open.clone() };
        let take = Arc::new(Mutex::new(take));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if ends.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(kept) = stream.try_clone() else { continue };
                open.lock().expect("no panic under this lock").push(kept);
                let take = take.clone();
                thread::spawn(move || {
                    let _ = take_all(&stream, &take);
                    // Another handle is kept, which would keep it open.
                    let _ = stream.shutdown(Shutdown::Both);
                });
            }
        });
        Ok(hook)
    }
}

impl Drop for Hook {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        for stream in self.open.lock().expect("no panic under this lock").drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// Answers on one connection until it ends. What is answered was taken before.
fn take_all(stream: &TcpStream, take: &Mutex<impl Take>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut stream, mut answers) = (BufReader::new(stream), stream);
    loop {
        let head = Head::read(&mut stream)?;
        let mut rest = head.headers.into_bytes();
        let headers = rest.len();
        rest.resize(headers + head.content_length, 0);
        stream.read_exact(&mut rest[headers..])?;
        let mut taker = take.lock().expect("no panic under this lock");
        taker.take(head.topic.as_bytes(), &rest);
        taker.end();
        drop(taker);
        answers.write_all(b"HTTP/1.1 204 No Content\r\n\r\n")?;
    }
}
