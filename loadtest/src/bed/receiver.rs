//! Whoever takes what a bed's host gives out, and counts it by id: a client of its own,
//! which asks the host nothing.

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

use anyhow::{Context, ensure};
use rdkafka::{
    ClientConfig, Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
    error::KafkaError,
};

use super::sender::Head;
use crate::{
    client::{Subscriber, Take},
    count::Count,
};

const POLL: Duration = Duration::from_millis(100);
/// Records that are counted together.
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

/// Takes from a subscription.
pub struct Taker {
    count: Arc<Count>,
    taken: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Taker {
    pub fn subscribe(address: &str, topic: &str, count: &Arc<Count>) -> anyhow::Result<Receiver> {
        let taker = Taker { count: count.clone(), taken: Vec::new() };
        Ok(Receiver::Mqtt(Subscriber::connect(address, "outside", topic, taker)?))
    }
}

impl Take for Taker {
    fn take(&mut self, topic: &[u8], rest: &[u8]) {
        self.taken.push((topic.to_owned(), rest.to_owned()));
    }

    fn end(&mut self) {
        self.count.arrive(self.taken.iter().map(|(topic, rest)| (topic.as_slice(), rest.as_slice())));
        self.taken.clear();
    }
}

/// Reads a topic from its beginning, in no group.
pub struct Reader {
    address: String,
    topic: String,
    partitions: u32,
    ends: Arc<AtomicBool>,
    reading: Option<JoinHandle<anyhow::Result<()>>>,
}

impl Reader {
    /// Read-committed: it sees what others see who trust transactions.
    pub fn start(address: &str, topic: &str, partitions: u32, count: &Arc<Count>) -> anyhow::Result<Self> {
        let ends = Arc::<AtomicBool>::default();
        let consumer = consumer(address, topic, partitions)?;
        let reading = {
            let (count, ends) = (count.clone(), ends.clone());
            thread::spawn(move || read(&consumer, &count, &ends))
        };
        let (address, topic) = (address.to_owned(), topic.to_owned());
        Ok(Reader { address, topic, partitions, ends, reading: Some(reading) })
    }

    fn check(&mut self) -> anyhow::Result<()> {
        match self.reading.take_if(|reading| reading.is_finished()) {
            None => Ok(()),
            Some(reading) => reading.join().expect("it does not panic").context("the reader ended"),
        }
    }

    /// How many records another reader finds now, up to the end of the topic.
    pub fn records(&self, within: Duration) -> anyhow::Result<u64> {
        let consumer = consumer(&self.address, &self.topic, self.partitions)?;
        let until = Instant::now() + within;
        let (mut records, mut ended) = (0, Vec::new());
        while ended.len() < self.partitions as usize {
            ensure!(Instant::now() < until, "the topic `{}` is not read within {within:?}", self.topic);
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

fn consumer(address: &str, topic: &str, partitions: u32) -> anyhow::Result<BaseConsumer> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", address).set("group.id", "outside");
    config.set("isolation.level", "read_committed").set("enable.partition.eof", "true");
    config.set("enable.auto.commit", "false").set("auto.offset.reset", "earliest");
    // It must be back before the host is, whose recovery it measures.
    config.set("reconnect.backoff.max.ms", "500").set("fetch.wait.max.ms", "20");
    let consumer: BaseConsumer = config.create()?;
    let mut list = TopicPartitionList::new();
    for partition in 0..partitions as i32 {
        list.add_partition_offset(topic, partition, Offset::Beginning)?;
    }
    consumer.assign(&list)?;
    Ok(consumer)
}

fn read(consumer: &BaseConsumer, count: &Count, ends: &AtomicBool) -> anyhow::Result<()> {
    while !ends.load(Ordering::SeqCst) {
        let mut polled = consumer.poll(POLL);
        let mut taken = Vec::new();
        while let Some(next) = polled.take() {
            // What is not fatal is mended by the library.
            match next {
                Ok(record) => taken.push(record),
                Err(KafkaError::MessageConsumptionFatal(error)) => anyhow::bail!("{error}"),
                Err(_) => {}
            }
            if taken.len() < RECORDS_MAX {
                polled = consumer.poll(Duration::ZERO);
            }
        }
        let body = |record: &rdkafka::message::BorrowedMessage<'_>| {
            (record.topic().as_bytes().to_vec(), record.payload().unwrap_or_default().to_vec())
        };
        let bodies: Vec<_> = taken.iter().map(body).collect();
        if !bodies.is_empty() {
            count.arrive(bodies.iter().map(|(topic, body)| (topic.as_slice(), body.as_slice())));
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
    pub fn start(count: &Arc<Count>) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let (ends, open) = (Arc::<AtomicBool>::default(), Arc::<Mutex<Vec<TcpStream>>>::default());
        let hook = Hook { port, ends: ends.clone(), open: open.clone() };
        let count = count.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if ends.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(kept) = stream.try_clone() else { continue };
                open.lock().expect("no panic under this lock").push(kept);
                let count = count.clone();
                thread::spawn(move || {
                    let _ = take_all(&stream, &count);
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

/// Answers on one connection until it ends. What is answered was counted before.
fn take_all(stream: &TcpStream, count: &Count) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut stream, mut answers) = (BufReader::new(stream), stream);
    loop {
        let head = Head::read(&mut stream)?;
        let mut body = vec![0; head.content_length];
        stream.read_exact(&mut body)?;
        count.arrive([(head.topic.as_bytes(), body.as_slice())]);
        answers.write_all(b"HTTP/1.1 204 No Content\r\n\r\n")?;
    }
}
