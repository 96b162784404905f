//! Load for the MQTT bench, and the outside subscriber that counts what came of it.
//! Publishes readings with QoS 1 at a rate, or as fast as they come back, and checks
//! by id that every reading that should come out did. Its codec is its own and its
//! sockets are plain, so that it costs less than what it measures.
//!
//! Prints one JSON object; ends with 1 if anything was lost.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use clap::Parser;
use tidegate_loadtest::mqtt::granted;

/// Publishes readings and counts what comes back.
#[derive(Parser, Clone)]
struct Args {
    #[arg(long, default_value = "127.0.0.1:1883")]
    broker: String,
    #[arg(long, default_value = "in/t")]
    input: String,
    #[arg(long, default_value = "out/t")]
    output: String,
    /// Readings in all.
    #[arg(long, default_value_t = 100_000)]
    count: u64,
    /// Readings a second; 0 for as fast as they come back.
    #[arg(long, default_value_t = 0)]
    rate: u64,
    /// With rate 0: readings that may be under way at once.
    #[arg(long, default_value_t = 1_000)]
    outstanding: u64,
    /// The first readings count neither in latency nor in rate.
    #[arg(long, default_value_t = 2_000)]
    warmup: u64,
    /// Every reading comes back: nothing filters between the topics.
    #[arg(long)]
    unfiltered: bool,
    /// How long the last may take, and how long the job may stand still.
    #[arg(long, default_value_t = 30)]
    patience_seconds: u64,
}

/// Added to each id, so that readings have the size of real ones: 44 bytes.
const ID_BASE: u64 = 10_000_000_000_000;

/// What publisher and subscriber share.
struct Progress {
    start: Instant,
    /// When each reading was sent, in ns after `start`.
    sent_at: Vec<AtomicU64>,
    /// When each came back first, likewise; 0 if it has not.
    came_at: Vec<AtomicU64>,
    sent: AtomicU64,
    acknowledged: AtomicU64,
    /// Expected readings sent and come back.
    expected_sent: AtomicU64,
    came: AtomicU64,
    duplicates: AtomicU64,
    ends: AtomicBool,
    moved: (Mutex<()>, Condvar),
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let progress = Arc::new(Progress::new(args.count));
    let subscriber = Connection::open(&args.broker, "load-subscriber")?.subscribe(&args.output)?;
    let stream = subscriber.stream.try_clone()?;
    let subscribing = {
        let progress = progress.clone();
        thread::spawn(move || subscriber.collect(&progress))
    };
    publish(&args, &progress)?;
    wait_for_the_last(&args, &progress);
    progress.ends.store(true, Ordering::SeqCst);
    stream.shutdown(std::net::Shutdown::Both)?;
    let collected = subscribing.join().expect("the subscriber does not panic");
    let lost = report(&args, &progress)?;
    collected?;
    if lost > 0 {
        std::process::exit(1);
    }
    Ok(())
}

/// In tenths of a degree, 0 to 99.9: about half are above 50.
fn temperature(id: u64) -> u64 {
    id.wrapping_mul(7919) % 1000
}

fn is_expected(args: &Args, id: u64) -> bool {
    args.unfiltered || temperature(id) > 500
}

impl Progress {
    fn new(count: u64) -> Self {
        let zeros = || (0..count).map(|_| AtomicU64::new(0)).collect();
        Progress {
            start: Instant::now(),
            sent_at: zeros(),
            came_at: zeros(),
            sent: AtomicU64::new(0),
            acknowledged: AtomicU64::new(0),
            expected_sent: AtomicU64::new(0),
            came: AtomicU64::new(0),
            duplicates: AtomicU64::new(0),
            ends: AtomicBool::new(false),
            moved: (Mutex::new(()), Condvar::new()),
        }
    }

    fn now_ns(&self) -> u64 {
        (self.start.elapsed().as_nanos() as u64).max(1)
    }

    fn notify(&self) {
        let _guard = self.moved.0.lock().expect("no panic under this lock");
        self.moved.1.notify_all();
    }

    /// Waits until `done`, or until nothing has moved for as long as patience lasts.
    fn wait(&self, patience: Duration, done: impl Fn() -> bool) -> bool {
        let mut guard = self.moved.0.lock().expect("no panic under this lock");
        while !done() {
            let (next, timeout) =
                self.moved.1.wait_timeout(guard, patience).expect("no panic under this lock");
            guard = next;
            if timeout.timed_out() {
                return done();
            }
        }
        true
    }
}

fn publish(args: &Args, progress: &Arc<Progress>) -> anyhow::Result<()> {
    let connection = Connection::open(&args.broker, "load-publisher")?;
    let window = u64::from(connection.receive_max).min(10_000);
    let mut stream = connection.stream.try_clone()?;
    let acknowledging = {
        let progress = progress.clone();
        thread::spawn(move || connection.count_acks(&progress))
    };
    let patience = Duration::from_secs(args.patience_seconds);
    let begin = progress.now_ns();
    let mut bytes = Vec::new();
    let mut id = 0;
    while id < args.count {
        let due = due(args, progress, id, begin, window);
        if due == id {
            if args.rate > 0 && id - progress.acknowledged.load(Ordering::SeqCst) < window {
                let next = begin + id * 1_000_000_000 / args.rate;
                thread::sleep(Duration::from_nanos(next.saturating_sub(progress.now_ns())));
            } else if !progress.wait(patience, || self::due(args, progress, id, begin, window) > id) {
                bail!("nothing has moved for {patience:?}: {id} readings sent");
            }
            continue;
        }
        bytes.clear();
        let now = progress.now_ns();
        for id in id..due {
            push_reading(&mut bytes, &args.input, id);
            progress.sent_at[id as usize].store(now, Ordering::SeqCst);
            progress.expected_sent.fetch_add(u64::from(is_expected(args, id)), Ordering::SeqCst);
        }
        progress.sent.store(due, Ordering::SeqCst);
        stream.write_all(&bytes).context("cannot publish")?;
        id = due;
    }
    progress.wait(patience, || progress.acknowledged.load(Ordering::SeqCst) >= args.count);
    stream.write_all(&[0xe0, 0])?;
    stream.shutdown(std::net::Shutdown::Both)?;
    acknowledging.join().expect("it does not panic")
}

/// Up to which reading may be sent now.
fn due(args: &Args, progress: &Progress, id: u64, begin: u64, window: u64) -> u64 {
    let acknowledged = progress.acknowledged.load(Ordering::SeqCst);
    let by_window = acknowledged + window;
    let by_pace = match args.rate {
        0 => {
            let under_way = progress
                .expected_sent
                .load(Ordering::SeqCst)
                .saturating_sub(progress.came.load(Ordering::SeqCst));
            // Half of the readings come back, unless all do.
            id + args.outstanding.saturating_sub(under_way).min(64)
        }
        rate => (progress.now_ns() - begin) * rate / 1_000_000_000 + 1,
    };
    by_pace.min(by_window).min(args.count).max(id)
}

fn wait_for_the_last(args: &Args, progress: &Progress) {
    let patience = Duration::from_secs(args.patience_seconds);
    let expected = progress.expected_sent.load(Ordering::SeqCst);
    progress.wait(patience, || progress.came.load(Ordering::SeqCst) >= expected);
}

/// Prints the figures and gives the number of readings lost.
fn report(args: &Args, progress: &Progress) -> anyhow::Result<u64> {
    let mut latencies = Vec::new();
    let mut lost = 0;
    let (mut first, mut last) = (u64::MAX, 0);
    for id in 0..args.count {
        if !is_expected(args, id) {
            continue;
        }
        let sent = progress.sent_at[id as usize].load(Ordering::SeqCst);
        let came = progress.came_at[id as usize].load(Ordering::SeqCst);
        if came == 0 {
            lost += 1;
        } else if id >= args.warmup {
            latencies.push(came - sent);
            first = first.min(sent);
            last = last.max(came);
        }
    }
    ensure!(!latencies.is_empty(), "nothing came back");
    latencies.sort_unstable();
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize] as f64 / 1e6;
    let seconds = (last - first) as f64 / 1e9;
    let figures = serde_json::json!({
        "sent": progress.sent.load(Ordering::SeqCst),
        "acknowledged": progress.acknowledged.load(Ordering::SeqCst),
        "expected": progress.expected_sent.load(Ordering::SeqCst),
        "received": progress.came.load(Ordering::SeqCst),
        "duplicates": progress.duplicates.load(Ordering::SeqCst),
        "lost": lost,
        "seconds": seconds,
        "per_second": (args.count - args.warmup) as f64 / seconds,
        "p50_ms": at(0.50),
        "p99_ms": at(0.99),
        "max_ms": at(1.0),
    });
    println!("{figures}");
    Ok(lost)
}

fn push_reading(bytes: &mut Vec<u8>, topic: &str, id: u64) {
    let tenths = temperature(id);
    let msg_id = ID_BASE + id;
    let payload = format!("{{\"msg_id\":{msg_id},\"temperature\":{}.{}}}", tenths / 10, tenths % 10);
    let packet_id = (id % 65_535 + 1) as u16;
    let body = 2 + topic.len() + 2 + 1 + payload.len();
    bytes.push(0x32);
    push_length(bytes, body);
    push_text(bytes, topic);
    bytes.extend_from_slice(&packet_id.to_be_bytes());
    bytes.push(0);
    bytes.extend_from_slice(payload.as_bytes());
}

fn push_length(bytes: &mut Vec<u8>, mut len: usize) {
    while len >= 0x80 {
        bytes.push(len as u8 | 0x80);
        len >>= 7;
    }
    bytes.push(len as u8);
}

fn push_text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend_from_slice(&(text.len() as u16).to_be_bytes());
    bytes.extend_from_slice(text.as_bytes());
}

/// A client's socket and what was read from it.
struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// What of `buffer` is not taken yet.
    from: usize,
    filled: usize,
    receive_max: u16,
}

impl Connection {
    fn open(broker: &str, client_id: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(broker).with_context(|| format!("cannot connect to {broker}"))?;
        stream.set_nodelay(true)?;
        let mut connection =
            Connection { stream, buffer: vec![0; 1 << 20], from: 0, filled: 0, receive_max: u16::MAX };
        let mut packet = Vec::new();
        push_text(&mut packet, "MQTT");
        // Version 5, clean start, no keep-alive, receive maximum 65,535 by default.
        packet.extend_from_slice(&[5, 0b10, 0, 0, 0]);
        push_text(&mut packet, client_id);
        let mut bytes = vec![0x10];
        push_length(&mut bytes, packet.len());
        bytes.extend_from_slice(&packet);
        connection.stream.write_all(&bytes)?;
        let (first, body) = connection.packet()?;
        ensure!(first == 0x20, "the broker refused the connection: {body:?}");
        connection.receive_max = granted(&body)?.under_way_max;
        Ok(connection)
    }

    fn subscribe(mut self, filter: &str) -> anyhow::Result<Self> {
        let mut packet = vec![0, 1, 0];
        push_text(&mut packet, filter);
        packet.push(1);
        let mut bytes = vec![0x82];
        push_length(&mut bytes, packet.len());
        bytes.extend_from_slice(&packet);
        self.stream.write_all(&bytes)?;
        let (first, body) = self.packet()?;
        ensure!(
            first == 0x90 && body.last().is_some_and(|code| *code <= 1),
            "the broker refused the subscription"
        );
        Ok(self)
    }

    /// The next packet: its first byte and its body.
    fn packet(&mut self) -> anyhow::Result<(u8, Vec<u8>)> {
        loop {
            if let Some((first, body, len)) = frame(&self.buffer[self.from..self.filled]) {
                let body = body.to_vec();
                self.from += len;
                return Ok((first, body));
            }
            self.fill()?;
        }
    }

    fn fill(&mut self) -> anyhow::Result<()> {
        self.buffer.copy_within(self.from..self.filled, 0);
        (self.filled, self.from) = (self.filled - self.from, 0);
        let len = self.stream.read(&mut self.buffer[self.filled..])?;
        ensure!(len > 0, "the broker closed the connection");
        self.filled += len;
        Ok(())
    }

    /// The publisher's side: counts PUBACKs until the socket is shut.
    fn count_acks(mut self, progress: &Progress) -> anyhow::Result<()> {
        loop {
            let mut count = 0;
            while let Some((first, body, len)) = frame(&self.buffer[self.from..self.filled]) {
                ensure!(first == 0x40, "a publisher got a packet {first:#04x}");
                ensure!(body.len() < 3 || body[2] < 0x80, "the broker refused a reading: {body:?}");
                self.from += len;
                count += 1;
            }
            if count > 0 {
                progress.acknowledged.fetch_add(count, Ordering::SeqCst);
                progress.notify();
            }
            if progress.acknowledged.load(Ordering::SeqCst) >= progress.sent_at.len() as u64
                || self.fill().is_err()
            {
                return Ok(());
            }
        }
    }

    /// The subscriber's side: notes and acknowledges until the socket is shut.
    fn collect(mut self, progress: &Progress) -> anyhow::Result<()> {
        let mut acks = Vec::new();
        loop {
            let now = progress.now_ns();
            while let Some((first, body, len)) = frame(&self.buffer[self.from..self.filled]) {
                ensure!(first >> 4 == 3 && first & 0b110 == 0b010, "a subscriber got a packet {first:#04x}");
                let topic = usize::from(u16::from_be_bytes([body[0], body[1]]));
                acks.extend_from_slice(&[0x40, 2, body[2 + topic], body[3 + topic]]);
                note(progress, &body[4 + topic..], now)?;
                self.from += len;
            }
            if !acks.is_empty() {
                self.stream.write_all(&acks)?;
                acks.clear();
                progress.notify();
            }
            if let Err(error) = self.fill() {
                return if progress.ends.load(Ordering::SeqCst) { Ok(()) } else { Err(error) };
            }
        }
    }
}

/// A result came: notes its reading.
fn note(progress: &Progress, properties_and_payload: &[u8], now: u64) -> anyhow::Result<()> {
    const KEY: &[u8] = b"\"msg_id\":";
    let place = properties_and_payload
        .windows(KEY.len())
        .rposition(|window| window == KEY)
        .context("a result without id")?;
    let digits = properties_and_payload[place + KEY.len()..].trim_ascii_start();
    let digits = digits.iter().take_while(|byte| byte.is_ascii_digit());
    let id = digits.fold(0u64, |id, digit| id * 10 + u64::from(digit - b'0'));
    let id = id.wrapping_sub(ID_BASE);
    let Some(came_at) = progress.came_at.get(id as usize) else { return Ok(()) };
    if progress.sent_at[id as usize].load(Ordering::SeqCst) == 0 {
        // Left over from an earlier run.
        return Ok(());
    }
    match came_at.compare_exchange(0, now, Ordering::SeqCst, Ordering::SeqCst) {
        Ok(_) => progress.came.fetch_add(1, Ordering::SeqCst),
        Err(_) => progress.duplicates.fetch_add(1, Ordering::SeqCst),
    };
    Ok(())
}

/// First byte, body and whole length of the packet at the beginning of `bytes`.
fn frame(bytes: &[u8]) -> Option<(u8, &[u8], usize)> {
    let first = *bytes.first()?;
    let (mut len, mut at) = (0, 1);
    loop {
        let byte = *bytes.get(at)?;
        len |= usize::from(byte & 0x7f) << (7 * (at - 1));
        at += 1;
        if byte & 0x80 == 0 {
            return Some((first, bytes.get(at..at + len)?, at + len));
        }
    }
}
