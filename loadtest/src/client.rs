//! The two ends of the load: a publisher that sends what is due and sends it again
//! until the broker has it, and a subscriber that hands over whatever comes. Both
//! outlast their broker.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::{Shutdown, TcpStream, ToSocketAddrs as _},
    sync::{
        Arc, Condvar, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};

use crate::mqtt::{self, Frame, Granted};

/// How long a broker may take to answer while a connection is being made.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// How long a broker may be away.
const AWAY_MAX: Duration = Duration::from_secs(60);
/// Between two attempts to reach it.
const RETRY_AFTER: Duration = Duration::from_millis(50);
/// Most messages under way to the broker, whatever it grants: packet ids must not meet.
const UNDER_WAY_MAX: u16 = 30_000;
/// Longest a write may wait for a broker that reads nothing.
const WRITE_WITHIN: Duration = Duration::from_secs(60);

/// A socket and what was read from it and not yet taken.
struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    from: usize,
    filled: usize,
}

impl Connection {
    /// Connects; gives what the broker grants.
    fn open(address: &str, client_id: &str, clean_start: bool) -> anyhow::Result<(Self, Granted)> {
        let resolved = address.to_socket_addrs()?.next().context("the address has no host")?;
        let stream = TcpStream::connect_timeout(&resolved, ANSWER_WITHIN)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(WRITE_WITHIN))?;
        stream.set_read_timeout(Some(ANSWER_WITHIN))?;
        let mut connection = Connection { stream, buffer: vec![0; 1 << 18], from: 0, filled: 0 };
        connection.stream.write_all(&mqtt::connect(client_id, clean_start))?;
        let granted =
            connection.wait(|frame| (frame.first == mqtt::CONNACK).then(|| mqtt::granted(frame.body)))??;
        Ok((connection, granted))
    }

    /// As [`Self::open`], for as long as a broker may be away.
    fn open_again(
        address: &str,
        client_id: &str,
        clean_start: bool,
        ends: &AtomicBool,
    ) -> anyhow::Result<(Self, Granted)> {
        let until = Instant::now() + AWAY_MAX;
        loop {
            match Self::open(address, client_id, clean_start) {
                Ok(opened) => return Ok(opened),
                Err(error) if ends.load(Ordering::SeqCst) || Instant::now() > until => {
                    return Err(error).with_context(|| format!("the broker at {address} does not come back"));
                }
                Err(_) => thread::sleep(RETRY_AFTER),
            }
        }
    }

    /// The first packet that `wanted` takes. Nothing else may come before it.
    fn wait<T>(&mut self, mut wanted: impl FnMut(&Frame<'_>) -> Option<T>) -> anyhow::Result<T> {
        loop {
            if let Some(frame) = mqtt::frame(&self.buffer[self.from..self.filled])? {
                let found = wanted(&frame);
                self.from += frame.len;
                return found.context("the broker did not answer what it was asked");
            }
            self.fill()?;
        }
    }

    /// Every packet that is there.
    fn each(&mut self, mut take: impl FnMut(&Frame<'_>) -> anyhow::Result<()>) -> anyhow::Result<()> {
        while let Some(frame) = mqtt::frame(&self.buffer[self.from..self.filled])? {
            take(&frame)?;
            self.from += frame.len;
        }
        Ok(())
    }

    /// Reads what there is, at least something.
    fn fill(&mut self) -> anyhow::Result<()> {
        self.buffer.copy_within(self.from..self.filled, 0);
        (self.filled, self.from) = (self.filled - self.from, 0);
        if self.filled == self.buffer.len() {
            self.buffer.resize(self.buffer.len() * 2, 0);
        }
        let len = self.stream.read(&mut self.buffer[self.filled..])?;
        ensure!(len > 0, "the broker closed the connection");
        self.filled += len;
        Ok(())
    }
}

/// What is under way to the broker, between the side that writes and the side that
/// reads acknowledgements.
#[derive(Default)]
struct Flight {
    /// By the number of the message, packets as they were sent.
    packets: BTreeMap<u64, Vec<u8>>,
    /// Which message has which packet id.
    numbers: Vec<u64>,
    next: u64,
    acknowledged: u64,
    /// The broker said that it will not have it.
    refused: u64,
    broken: bool,
}

/// Sends messages of QoS 1, in the order given, until the broker has each.
pub struct Publisher {
    address: String,
    client_id: String,
    stream: TcpStream,
    under_way_max: u16,
    flight: Arc<(Mutex<Flight>, Condvar)>,
    reading: Option<JoinHandle<()>>,
    ends: Arc<AtomicBool>,
    /// Made ready and not yet written.
    waiting: Vec<u8>,
}

impl Publisher {
    pub fn connect(address: &str, client_id: &str, ends: Arc<AtomicBool>) -> anyhow::Result<Self> {
        let (connection, granted) = Connection::open(address, client_id, true)
            .with_context(|| format!("cannot connect to the broker at {address}"))?;
        let flight = Flight { numbers: vec![0; 1 << 16], ..Flight::default() };
        let mut publisher = Publisher {
            address: address.to_owned(),
            client_id: client_id.to_owned(),
            stream: connection.stream.try_clone()?,
            under_way_max: granted.under_way_max.min(UNDER_WAY_MAX),
            flight: Arc::new((Mutex::new(flight), Condvar::new())),
            reading: None,
            ends,
            waiting: Vec::new(),
        };
        publisher.read(connection)?;
        Ok(publisher)
    }

    /// Starts to read acknowledgements from a new connection.
    fn read(&mut self, mut connection: Connection) -> anyhow::Result<()> {
        connection.stream.set_read_timeout(None)?;
        let flight = self.flight.clone();
        self.reading = Some(thread::spawn(move || {
            // Whatever ends it is mended by the side that writes.
            let _ = read_acknowledgements(&mut connection, &flight);
            lock(&flight.0).broken = true;
            flight.1.notify_all();
        }));
        Ok(())
    }

    /// Makes a message ready; it is written with [`Self::flush`]. Waits while the
    /// broker takes no more, which is part of the latency of what waits.
    pub fn publish(
        &mut self,
        topic: &str,
        properties: &[(&str, &str)],
        payload: &[u8],
    ) -> anyhow::Result<()> {
        if lock(&self.flight.0).packets.len() >= usize::from(self.under_way_max) {
            self.flush()?;
            self.wait_until_under_way(usize::from(self.under_way_max) - 1, AWAY_MAX)?;
        }
        let mut flight = lock(&self.flight.0);
        let number = flight.next;
        flight.next += 1;
        let packet_id = (number % 65_535 + 1) as u16;
        let packet = mqtt::publish(topic, packet_id, properties, payload);
        self.waiting.extend_from_slice(&packet);
        flight.numbers[usize::from(packet_id)] = number;
        flight.packets.insert(number, packet);
        Ok(())
    }

    /// Writes what was made ready; connects again and sends again what the broker does
    /// not have, if it must.
    pub fn flush(&mut self) -> anyhow::Result<()> {
        let broken = lock(&self.flight.0).broken;
        if broken || (!self.waiting.is_empty() && self.stream.write_all(&self.waiting).is_err()) {
            self.mend()?;
        }
        self.waiting.clear();
        Ok(())
    }

    fn mend(&mut self) -> anyhow::Result<()> {
        loop {
            let _ = self.stream.shutdown(Shutdown::Both);
            if let Some(reading) = self.reading.take() {
                reading.join().expect("it does not panic");
            }
            let (connection, granted) =
                Connection::open_again(&self.address, &self.client_id, true, &self.ends)?;
            self.stream = connection.stream.try_clone()?;
            self.under_way_max = granted.under_way_max.min(UNDER_WAY_MAX);
            lock(&self.flight.0).broken = false;
            self.read(connection)?;
            if self.send_again()? {
                return Ok(());
            }
        }
    }

    /// In order, a broker's window at a time; whether the connection held.
    fn send_again(&mut self) -> anyhow::Result<bool> {
        let packets: Vec<(u64, Vec<u8>)> =
            lock(&self.flight.0).packets.iter().map(|(number, packet)| (*number, packet.clone())).collect();
        for window in packets.chunks(usize::from(self.under_way_max)) {
            let bytes: Vec<u8> = window.iter().flat_map(|(_, packet)| packet).copied().collect();
            if self.stream.write_all(&bytes).is_err() {
                return Ok(false);
            }
            if packets.len() > window.len() {
                let last = window.last().map_or(0, |(number, _)| *number);
                let waited = self
                    .wait(AWAY_MAX, |flight| flight.broken || flight.packets.range(..=last).next().is_none());
                ensure!(waited, "the broker acknowledges nothing");
                if lock(&self.flight.0).broken {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Waits until at most so many messages are under way.
    fn wait_until_under_way(&mut self, most: usize, within: Duration) -> anyhow::Result<()> {
        let until = Instant::now() + within;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if !self.wait(left, |flight| flight.broken || flight.packets.len() <= most) {
                bail!("the broker has acknowledged nothing for {within:?}");
            }
            if lock(&self.flight.0).packets.len() <= most {
                return Ok(());
            }
            self.mend()?;
        }
    }

    fn wait(&self, within: Duration, done: impl Fn(&Flight) -> bool) -> bool {
        let guard = lock(&self.flight.0);
        let waited = self.flight.1.wait_timeout_while(guard, within, |flight| !done(flight));
        !waited.expect("no panic under this lock").1.timed_out()
    }

    /// Waits until the broker has all; how many it has not in the end.
    pub fn finish(&mut self, within: Duration) -> u64 {
        // What cannot be delivered is told by the count.
        let _ = self.flush().and_then(|()| self.wait_until_under_way(0, within));
        lock(&self.flight.0).packets.len() as u64
    }

    /// Messages that the broker has, and that it has refused.
    pub fn acknowledged(&self) -> (u64, u64) {
        let flight = lock(&self.flight.0);
        (flight.acknowledged, flight.refused)
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        let _ = self.stream.write_all(&mqtt::disconnect());
        let _ = self.stream.shutdown(Shutdown::Both);
        if let Some(reading) = self.reading.take() {
            let _ = reading.join();
        }
    }
}

fn read_acknowledgements(
    connection: &mut Connection,
    flight: &(Mutex<Flight>, Condvar),
) -> anyhow::Result<()> {
    loop {
        let mut locked = lock(&flight.0);
        connection.each(|frame| {
            if frame.first == mqtt::PUBACK {
                let (packet_id, reason) = mqtt::acknowledged(frame.body)?;
                let number = locked.numbers[usize::from(packet_id)];
                if locked.packets.remove(&number).is_some() {
                    locked.acknowledged += 1;
                    locked.refused += u64::from(reason >= mqtt::FAILURE);
                }
            }
            Ok(())
        })?;
        drop(locked);
        flight.1.notify_all();
        connection.fill()?;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no panic under this lock")
}

/// Takes everything on one filter, in a session that outlasts its connection, and
/// acknowledges it once it is handed over.
pub struct Subscriber {
    stream: Arc<Mutex<TcpStream>>,
    ends: Arc<AtomicBool>,
    reading: Option<JoinHandle<anyhow::Result<()>>>,
}

/// What a subscriber gives: topics and the rest of their messages.
pub trait Take: Send + 'static {
    fn take(&mut self, topic: &[u8], rest: &[u8]);
    /// Called after messages that were read together.
    fn end(&mut self);
}

impl Subscriber {
    pub fn connect(address: &str, client_id: &str, filter: &str, take: impl Take) -> anyhow::Result<Self> {
        // Of a client that starts clean, mosquitto keeps no session over a restart. Its id is
        // new, so that it finds none.
        let (mut connection, _) = Connection::open(address, client_id, false)
            .with_context(|| format!("cannot connect to the broker at {address}"))?;
        connection.stream.write_all(&mqtt::subscribe(filter))?;
        let granted =
            connection.wait(|frame| (frame.first == mqtt::SUBACK).then(|| frame.body.last().copied()))?;
        ensure!(
            granted.is_some_and(|reason| reason < mqtt::FAILURE),
            "the broker at {address} refused the subscription to `{filter}`"
        );
        let stream = Arc::new(Mutex::new(connection.stream.try_clone()?));
        let ends = Arc::new(AtomicBool::new(false));
        let reader = Reader {
            address: address.to_owned(),
            client_id: client_id.to_owned(),
            stream: stream.clone(),
            ends: ends.clone(),
            take,
        };
        let reading = Some(thread::spawn(move || reader.run(connection)));
        Ok(Subscriber { stream, ends, reading })
    }

    /// Whether it still takes; an error says why not.
    pub fn check(&mut self) -> anyhow::Result<()> {
        match self.reading.take_if(|reading| reading.is_finished()) {
            None => Ok(()),
            Some(reading) => {
                reading.join().expect("it does not panic").context("the subscriber ended")?;
                bail!("the subscriber ended")
            }
        }
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::SeqCst);
        let _ = lock(&self.stream).shutdown(Shutdown::Both);
        if let Some(reading) = self.reading.take() {
            let _ = reading.join();
        }
    }
}

struct Reader<T> {
    address: String,
    client_id: String,
    stream: Arc<Mutex<TcpStream>>,
    ends: Arc<AtomicBool>,
    take: T,
}

impl<T: Take> Reader<T> {
    fn run(mut self, mut connection: Connection) -> anyhow::Result<()> {
        loop {
            connection.stream.set_read_timeout(None)?;
            // It only ends when the connection does, for whatever reason.
            let _ = self.take_all(&mut connection);
            if self.ends.load(Ordering::SeqCst) {
                return Ok(());
            }
            let (again, granted) = Connection::open_again(&self.address, &self.client_id, false, &self.ends)?;
            ensure!(
                granted.has_session,
                "the broker came back without the subscriber's session: what it held is lost with it"
            );
            *lock(&self.stream) = again.stream.try_clone()?;
            connection = again;
        }
    }

    fn take_all(&mut self, connection: &mut Connection) -> anyhow::Result<()> {
        let mut acks = Vec::new();
        loop {
            let taken = connection.each(|frame| {
                if frame.first & 0xf0 == mqtt::PUBLISH {
                    let arrival = mqtt::arrival(frame)?;
                    self.take.take(arrival.topic, arrival.rest);
                    acks.extend(arrival.packet_id.into_iter().flat_map(mqtt::puback));
                }
                Ok(())
            });
            self.take.end();
            taken?;
            if !acks.is_empty() {
                connection.stream.write_all(&acks)?;
                acks.clear();
            }
            connection.fill()?;
        }
    }
}
