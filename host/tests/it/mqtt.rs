//! The MQTT connector against a real mosquitto: source and sink over the real
//! connection, with a dataflow between them that forwards each delivery and settles
//! it when its write is confirmed.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    task::{Wake, Waker},
    thread::{self, JoinHandle, Thread},
    time::Duration,
};

use rumqttc::v5::mqttbytes::v5::PublishProperties;
use tidegate::{
    clock::Clock,
    connector::{
        broker,
        mqtt::{self, Oversize, Remote, Session, Settings, SinkSession, SourceOptions, SourceSession},
        status::{ConnectionState, Status},
        stop::{Farewell, Stop},
    },
    ledger::Ledger,
    queue::{Delivery, Queue, SourceDoor},
    resource::endpoint::{Protocol, Version},
    settle::Settle,
    topic::{TopicFilter, TopicTemplate},
    write::{Confirmed, Confirms, Destination, SinkQueue, Write},
};
use tidegate_loadtest::proxy::Proxy;
use tokio::runtime::Runtime;

use crate::{
    encrypted::Encrypted,
    mosquitto::{Mosquitto, eventually, free_port},
    outside::{self, Subscriber, numbers, publish_all},
};

const PAYLOAD_BYTES_MAX: usize = 256 << 10;

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Forwards deliveries of a source to a sink, as the simplest dataflow would.
struct Forward {
    queue: Arc<Queue>,
    sink_queue: Arc<SinkQueue>,
    state: Arc<ForwardState>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct ForwardState {
    ends: AtomicBool,
    delivered: AtomicUsize,
    rejected: Mutex<Vec<(u32, String)>>,
}

impl Forward {
    fn start() -> Self {
        let state = Arc::<ForwardState>::default();
        let sink_queue = SinkQueue::new(1 << 20);
        let (tx, rx) = mpsc::channel();
        let thread = {
            let (state, sink_queue) = (state.clone(), sink_queue.clone());
            thread::spawn(move || {
                let waker = Waker::from(Arc::new(Unpark(thread::current())));
                let queue = Queue::new(waker.clone());
                tx.send(queue.clone()).expect("the test waits for it");
                forward(&queue, &sink_queue, &Confirms::new(waker), &state);
            })
        };
        let queue = rx.recv().expect("the thread sends it first");
        Forward { queue, sink_queue, state, thread: Some(thread) }
    }

    fn delivered(&self) -> usize {
        self.state.delivered.load(Ordering::SeqCst)
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.state.ends.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

fn forward(queue: &Queue, sink_queue: &SinkQueue, confirms: &Arc<Confirms>, state: &ForwardState) {
    let destination = Arc::new(Destination {
        name: "t/forward/out".into(),
        topic: TopicTemplate::parse("out/${outputTopic.2}").expect("valid"),
        write_grants: vec![TopicFilter::parse("out/#").expect("valid")],
        headers: Default::default(),
    });
    let mut unsettled: VecDeque<(u64, Settle, _)> = VecDeque::new();
    let (mut writes, mut confirmed) = (0, Vec::new());
    while !state.ends.load(Ordering::SeqCst) {
        while let Some(Delivery { batch, settle, credit, .. }) = queue.pop() {
            writes += 1;
            state.delivered.fetch_add(batch.len(), Ordering::SeqCst);
            sink_queue.push(Write::new(writes, batch, destination.clone(), confirms.clone()));
            unsettled.push_back((writes, settle, credit));
        }
        confirms.take(&mut confirmed);
        for Confirmed { id, rejected } in confirmed.drain(..) {
            let (first, settle, _credit) = unsettled.pop_front().expect("each write is confirmed once");
            assert_eq!(id, first, "writes are confirmed in order");
            state.rejected.lock().expect("no panic under this lock").extend(rejected);
            settle.ack();
        }
        thread::park_timeout(Duration::from_millis(100));
    }
    for (_, settle, _) in unsettled {
        settle.abandon();
    }
    queue.close();
}

/// A runtime with a source, a forwarding dataflow and a sink on it.
struct Rig {
    runtime: Runtime,
    forward: Forward,
    source: Option<RunningSource>,
    sink: Arc<Status>,
    /// Of the source too, unless it says another.
    version: Version,
    ledger: Arc<Ledger>,
    oversize: Arc<Mutex<Vec<(Oversize,)>>>,
}

struct RunningSource {
    status: Arc<Status>,
    stop: Stop,
    task: tokio::task::JoinHandle<()>,
}

impl Rig {
    /// The sink connects to `sink`; the source waits for [`Self::open_source`].
    fn new(sink: String) -> Self {
        Self::over(Remote::plain(sink))
    }

    fn over(sink: Remote) -> Self {
        Self::with(sink, settings("tg/edge-1/t/out/local"))
    }

    fn with(sink: Remote, settings: Settings) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime starts");
        let forward = Forward::start();
        let session = SinkSession::new(settings.clone(), forward.sink_queue.clone());
        let status = session.status().clone();
        runtime.spawn(mqtt::run(sink, Box::new(session), Clock::System));
        Rig {
            runtime,
            forward,
            source: None,
            sink: status,
            version: settings.version,
            ledger: Ledger::new(1 << 20),
            oversize: Arc::default(),
        }
    }

    fn open_source(&mut self, address: String) {
        self.open_source_over(Remote::plain(address));
    }

    fn open_source_over(&mut self, remote: Remote) {
        let version = self.version;
        self.open_source_with(remote, Settings { version, ..settings("tg/edge-1/t/forward/in") });
    }

    fn open_source_with(&mut self, remote: Remote, settings: Settings) {
        let stop = Stop::default();
        let oversize = self.oversize.clone();
        let options = SourceOptions {
            filters: vec![TopicFilter::parse("in/#").expect("valid")],
            payload_bytes_max: PAYLOAD_BYTES_MAX,
            node: "edge-1".into(),
            identifies: false,
            oversize: Box::new(move |message| {
                oversize.lock().expect("no panic under this lock").push((message,));
            }),
            stop: stop.clone(),
        };
        let door = SourceDoor::new(0, self.forward.queue.clone(), self.ledger.clone());
        let session = SourceSession::new(settings, options, door);
        let status = session.status().clone();
        let task = self.runtime.spawn(mqtt::run(remote, Box::new(session), Clock::System));
        eventually("the source is connected", || status.state() == ConnectionState::Connected);
        self.source = Some(RunningSource { status, stop, task });
    }

    fn source(&self) -> &Status {
        &self.source.as_ref().expect("it is open").status
    }

    /// In order: takes nothing more, waits until all is settled, closes.
    fn close_source(&mut self) {
        let RunningSource { stop, task, status } = self.source.take().expect("it is open");
        stop.stop(Farewell::UntilLater);
        self.runtime.block_on(task).expect("it ends without a panic");
        assert_eq!(status.state(), ConnectionState::Closed);
    }
}

fn settings(client_id: &str) -> Settings {
    Settings::new(client_id.to_owned())
}

/// Numbers in order of their first coming.
fn first_seen(numbers: &[u64]) -> Vec<u64> {
    let mut seen = std::collections::HashSet::new();
    numbers.iter().copied().filter(|number| seen.insert(*number)).collect()
}

#[test]
fn messages_pass_in_order_and_once_whatever_the_broker_s_window() {
    for window in ["max_inflight_messages 20", "max_inflight_messages 0", "max_inflight_messages 1"] {
        let Some(broker) = Mosquitto::start(&[window]) else { return };
        let subscriber = Subscriber::new(broker.port, "out/#");
        let mut rig = Rig::new(broker.address());
        rig.open_source(broker.address());
        let count = if window.ends_with(" 1") { 200 } else { 5_000 };
        publish_all(broker.port, numbers("in/a", 0..count));
        eventually("all arrive", || subscriber.len() as u64 >= count);
        rig.close_source();
        assert_eq!(subscriber.numbers(), (0..count).collect::<Vec<_>>(), "{window}");
        assert_eq!(rig.sink.failures.get(), 0);
    }
}

#[test]
fn what_came_with_a_message_goes_with_it() {
    let Some(broker) = Mosquitto::start(&[]) else { return };
    let subscriber = Subscriber::new(broker.port, "out/#");
    let mut rig = Rig::new(broker.address());
    rig.open_source(broker.address());
    let properties = PublishProperties {
        content_type: Some("application/json".into()),
        payload_format_indicator: Some(0),
        message_expiry_interval: Some(3600),
        response_topic: Some("back/to/me".into()),
        correlation_data: Some(vec![0, 255, 7].into()),
        user_properties: vec![("k".into(), "v".into()), ("ключ".into(), "".into()), ("k".into(), "w".into())],
        ..PublishProperties::default()
    };
    publish_all(broker.port, [("in/b".to_owned(), vec![0, 159, 146, 150], properties.clone())]);
    eventually("it arrives", || subscriber.len() == 1);
    let received = subscriber.received().remove(0);
    assert_eq!((&received.topic[..], &received.payload[..]), (&b"out/b"[..], &[0, 159, 146, 150][..]));
    let came = received.properties.expect("there are some");
    assert_eq!(
        (came.content_type, came.user_properties),
        (properties.content_type, properties.user_properties)
    );
    assert_eq!(
        (came.response_topic, came.correlation_data),
        (properties.response_topic, properties.correlation_data)
    );
    assert!(came.message_expiry_interval.is_some_and(|seconds| (3500..=3600).contains(&seconds)));
    let text = PublishProperties { payload_format_indicator: Some(1), ..PublishProperties::default() };
    publish_all(broker.port, [("in/b".to_owned(), b"text".to_vec(), text)]);
    eventually("it arrives", || subscriber.len() == 2);
    let came = subscriber.received().remove(1).properties.expect("there are some");
    assert_eq!(came.payload_format_indicator, Some(1));
}

#[test]
fn what_is_retained_where_it_comes_from_is_where_it_goes_unless_an_end_says_never() {
    for (source_keeps, sink_keeps) in [(true, true), (false, true), (true, false)] {
        let Some(broker) = Mosquitto::start(&[]) else { return };
        outside::retain(broker.port, "in/before", "1");
        let of = |id: &str, keeps_retain| Settings { keeps_retain, ..settings(id) };
        let remote = Remote::plain(broker.address());
        let mut rig = Rig::with(remote.clone(), of("tg/edge-1/t/out/local", sink_keeps));
        let seen = Subscriber::new(broker.port, "out/#");
        rig.open_source_with(remote, of("tg/edge-1/t/forward/in", source_keeps));
        outside::retain(broker.port, "in/after", "2");
        publish_all(broker.port, numbers("in/not", 3..4));
        eventually("all arrive", || seen.len() == 3);
        eventually("and are confirmed", || rig.ledger.bytes_in_flight() == 0);
        drop(seen);
        outside::retain(broker.port, "out/last", "4");
        let late = Subscriber::named("outside-late", broker.port, "out/#");
        eventually("what is retained comes", || late.numbers().contains(&4));
        let mut kept = late.numbers();
        kept.sort_unstable();
        let expected: &[u64] = if source_keeps && sink_keeps { &[1, 2, 4] } else { &[4] };
        assert_eq!(kept, expected, "source {source_keeps}, sink {sink_keeps}");
        rig.close_source();
    }
}

#[test]
fn what_expires_while_it_is_held_is_dropped_and_acknowledged() {
    let Some(broker) = Mosquitto::start(&[]) else { return };
    let subscriber = Subscriber::new(broker.port, "out/#");
    let mut rig = Rig::new(broker.address());
    rig.open_source(broker.address());
    let all = rig.ledger.try_acquire(1 << 20).expect("nothing is in flight");
    let soon = PublishProperties { message_expiry_interval: Some(1), ..PublishProperties::default() };
    publish_all(broker.port, [("in/a".to_owned(), b"1".to_vec(), soon)]);
    publish_all(broker.port, numbers("in/a", 2..3));
    eventually("both are held", || rig.source().messages_in.get() == 2);
    let held = std::time::Instant::now();
    eventually("its time is over", || held.elapsed() > Duration::from_secs(1));
    drop(all);
    eventually("the other one arrives", || subscriber.len() == 1);
    assert_eq!(subscriber.numbers(), [2]);
    assert_eq!((rig.sink.expired.get(), rig.sink.rejected.get()), (1, 0));
    rig.close_source();
    rig.open_source(broker.address());
    publish_all(broker.port, numbers("in/a", 3..4));
    eventually("the new one arrives", || subscriber.len() == 2);
    assert_eq!(rig.source().redelivered.get(), 0, "both were acknowledged");
    rig.close_source();
}

#[test]
fn cut_connections_cost_duplicates_and_nothing_else() {
    let Some(broker) = Mosquitto::start(&["max_inflight_messages 0"]) else { return };
    cut(broker.port, broker.port, Remote::plain);
}

#[test]
fn cut_connections_over_tls_cost_duplicates_and_nothing_else() {
    let Some(encrypted) = Encrypted::start(&["max_inflight_messages 0"]) else { return };
    let tls = || Some(encrypted.tls.clone());
    cut(encrypted.broker.port, encrypted.port, |address| Remote { tls: tls(), ..Remote::plain(address) });
}

#[test]
fn cut_connections_of_websockets_cost_duplicates_and_nothing_else() {
    let port = free_port();
    let listener = format!("listener {port} 127.0.0.1");
    let options = ["max_inflight_messages 0", &listener, "protocol websockets"];
    let Some(broker) = Mosquitto::start(&options) else { return };
    let protocol = Protocol::WebSockets;
    cut(broker.port, port, |address| Remote { protocol, ..Remote::plain(address) });
}

#[test]
fn cut_connections_of_websockets_over_tls_cost_duplicates_and_nothing_else() {
    let options = ["protocol websockets", "max_inflight_messages 0"];
    let Some(encrypted) = Encrypted::start(&options) else { return };
    let protocol = Protocol::WebSockets;
    let tls = || Some(encrypted.tls.clone());
    cut(encrypted.broker.port, encrypted.port, |address| Remote { address, tls: tls(), protocol });
}

#[test]
fn cut_connections_of_3_1_1_cost_duplicates_and_nothing_else() {
    let Some(broker) = Mosquitto::start(&["max_inflight_messages 0"]) else { return };
    cut_of(Version::V311, broker.port, broker.port, Remote::plain);
}

fn cut(port: u16, inner: u16, remote: impl Fn(String) -> Remote) {
    cut_of(Version::V5, port, inner, remote);
}

/// Source and sink are at `remote` of what is before `inner`, all others at `port`.
fn cut_of(version: Version, port: u16, inner: u16, remote: impl Fn(String) -> Remote) {
    let subscriber = Subscriber::new(port, "out/#");
    let (before_source, before_sink) = (Proxy::before(inner), Proxy::before(inner));
    let sink = Settings { version, ..settings("tg/edge-1/t/out/local") };
    let mut rig = Rig::with(remote(before_sink.address()), sink);
    rig.open_source_over(remote(before_source.address()));
    let count = 20_000;
    let publisher = thread::spawn(move || publish_all(port, numbers("in/a", 0..count)));
    for cut in 1..=10u64 {
        eventually("it goes on", || subscriber.len() as u64 >= cut * count / 12);
        let (proxy, status) =
            if cut % 2 == 0 { (&before_source, rig.source()) } else { (&before_sink, &*rig.sink) };
        eventually("it is connected", || status.state() == ConnectionState::Connected);
        let failures = status.failures.get();
        proxy.cut();
        eventually("the cut is felt", || status.failures.get() > failures);
    }
    publisher.join().expect("it publishes all");
    eventually("all arrive", || first_seen(&subscriber.numbers()).len() as u64 == count);
    assert_eq!(first_seen(&subscriber.numbers()), (0..count).collect::<Vec<_>>());
    assert!(rig.sink.redelivered.get() > 0, "something was sent again");
    rig.close_source();
}

#[test]
fn a_broker_that_restarts_in_the_middle_loses_nothing() {
    for version in [Version::V5, Version::V311] {
        restart(version);
    }
}

fn restart(version: Version) {
    let persistence = ["persistence true", "max_inflight_messages 20"];
    let Some(mut broker) = Mosquitto::start(&persistence) else { return };
    let subscriber = Subscriber::new(broker.port, "out/#");
    let sink = Settings { version, ..settings("tg/edge-1/t/out/local") };
    let mut rig = Rig::with(Remote::plain(broker.address()), sink);
    // The broker collects for the session while the source is away.
    rig.open_source(broker.address());
    rig.close_source();
    let count = 5_000;
    publish_all(broker.port, numbers("in/a", 0..count));
    rig.open_source(broker.address());
    eventually("it is under way", || subscriber.len() as u64 >= count / 10);
    broker.stop();
    broker.restart();
    eventually("all arrive", || first_seen(&subscriber.numbers()).len() as u64 == count);
    // What the outside subscriber had not acknowledged comes to it twice, and late.
    let mut numbers = first_seen(&subscriber.numbers());
    numbers.sort_unstable();
    assert_eq!(numbers, (0..count).collect::<Vec<_>>());
    assert!(rig.source().failures.get() >= 1 && rig.sink.failures.get() >= 1);
    rig.close_source();
}

#[test]
fn after_kill_9_of_a_broker_without_memory_unconfirmed_writes_are_sent_again() {
    let Some(mut broker) = Mosquitto::start(&["persistence false"]) else { return };
    let subscriber = Subscriber::new(broker.port, "out/#");
    let before_sink = Proxy::before(broker.port);
    let mut rig = Rig::new(before_sink.address());
    rig.open_source(broker.address());
    publish_all(broker.port, numbers("in/a", 0..100));
    eventually("the first arrive", || subscriber.len() == 100);
    eventually("and are confirmed", || rig.ledger.bytes_in_flight() == 0);
    // From here on nothing is confirmed.
    before_sink.refuse();
    publish_all(broker.port, numbers("in/a", 100..150));
    eventually("the source has them", || rig.forward.delivered() == 150);
    broker.kill();
    let subscriptions = subscriber.subscriptions();
    broker.restart();
    subscriber.wait_for_subscription(subscriptions + 1);
    before_sink.admit();
    eventually("the rest arrive", || subscriber.len() == 150);
    let source = rig.source.as_ref().expect("it is open").status.clone();
    eventually("the source is back", || source.state() == ConnectionState::Connected);
    assert!(source.failures.get() >= 1);
    // It has subscribed anew: the broker had forgotten it.
    publish_all(broker.port, numbers("in/a", 150..200));
    eventually("new ones arrive", || subscriber.len() == 200);
    assert_eq!(subscriber.numbers(), (0..200).collect::<Vec<_>>());
    rig.close_source();
}

#[test]
fn a_message_over_the_limit_becomes_a_dead_letter_and_holds_nobody_up() {
    let Some(broker) = Mosquitto::start(&[]) else { return };
    let subscriber = Subscriber::new(broker.port, "out/#");
    let mut rig = Rig::new(broker.address());
    rig.open_source(broker.address());
    let within = vec![b'7'; PAYLOAD_BYTES_MAX];
    let message = |payload: Vec<u8>| [("in/large".to_owned(), payload, PublishProperties::default())];
    publish_all(broker.port, message(within.clone()));
    eventually("the one just within arrives", || subscriber.len() == 1);
    publish_all(broker.port, message(vec![b'8'; PAYLOAD_BYTES_MAX + 1]));
    publish_all(broker.port, message(vec![b'9'; 10 << 20]));
    publish_all(broker.port, numbers("in/a", 0..50));
    eventually("the others arrive", || subscriber.len() == 51);
    assert_eq!(subscriber.received()[0].payload, within);
    let oversize: Vec<Oversize> =
        rig.oversize.lock().expect("no panic under this lock").drain(..).map(|(message,)| message).collect();
    let sizes: Vec<u64> = oversize.iter().map(|message| message.payload_bytes).collect();
    assert_eq!(sizes, [PAYLOAD_BYTES_MAX as u64 + 1, 10 << 20]);
    assert_eq!(rig.source().failures.get(), 0);
    for Oversize { settle, .. } in oversize {
        settle.ack();
    }
    rig.close_source();
    // All were acknowledged: nothing comes again.
    rig.open_source(broker.address());
    publish_all(broker.port, numbers("in/a", 50..51));
    eventually("the new one arrives", || subscriber.len() >= 52);
    let numbers: Vec<_> =
        subscriber.received().iter().skip(1).map(|publish| publish.payload.clone()).collect();
    assert_eq!(numbers, (0..51).map(|number| number.to_string().into_bytes()).collect::<Vec<_>>());
    assert_eq!(rig.source().redelivered.get(), 0);
    assert!(rig.oversize.lock().expect("no panic under this lock").is_empty());
    rig.close_source();
}

#[test]
fn order_holds_when_packet_ids_wrap_and_the_connection_is_cut_there() {
    let Some(broker) = Mosquitto::start(&["max_inflight_messages 0"]) else { return };
    let subscriber = Subscriber::new(broker.port, "out/#");
    let before_sink = Proxy::before(broker.port);
    let mut rig = Rig::new(before_sink.address());
    rig.open_source(broker.address());
    let count = 66_000;
    let port = broker.port;
    let publisher = thread::spawn(move || publish_all(port, numbers("in/a", 0..count)));
    // Around the id 65,535 of the sink's packets.
    for cut in (65_300..65_700).step_by(50) {
        eventually("it goes on", || rig.sink.messages_out.get() - rig.sink.redelivered.get() >= cut);
        before_sink.cut();
    }
    publisher.join().expect("it publishes all");
    eventually("all arrive", || subscriber.len() as u64 >= count);
    eventually("all arrive", || first_seen(&subscriber.numbers()).len() as u64 == count);
    assert_eq!(first_seen(&subscriber.numbers()), (0..count).collect::<Vec<_>>());
    assert!(rig.sink.redelivered.get() > 0);
    rig.close_source();
}

#[test]
fn a_paused_source_stays_connected() {
    let Some(broker) = Mosquitto::start(&[]) else { return };
    let subscriber = Subscriber::new(broker.port, "out/#");
    let mut rig = Rig::new(broker.address());
    let keep_alive = Duration::from_secs(2);
    let remote = Remote::plain(broker.address());
    rig.open_source_with(remote, Settings { keep_alive, ..settings("tg/edge-1/t/forward/in") });
    let all = rig.ledger.try_acquire(1 << 20).expect("nothing is in flight");
    publish_all(broker.port, numbers("in/a", 0..500));
    // The broker gives up a silent client after one and a half keep-alives; it
    // answers each ping with two bytes, one a second.
    let source = rig.source.as_ref().expect("it is open").status.clone();
    let window = u64::from(Settings::new(String::new()).inflight_max.get());
    eventually("the broker's window is full", || source.messages_in.get() >= window);
    let bytes_in = source.bytes_in.get();
    eventually("pings are answered", || source.bytes_in.get() >= bytes_in + 10);
    assert_eq!((rig.forward.delivered(), source.failures.get()), (0, 0));
    assert_eq!(source.messages_in.get(), window, "the broker waits for the PUBACKs");
    drop(all);
    eventually("all arrive", || subscriber.len() == 500);
    assert_eq!(source.failures.get(), 0);
    rig.close_source();
}

#[test]
fn what_the_tenant_may_not_write_is_rejected_and_never_reaches_the_broker() {
    let Some(broker) = Mosquitto::start(&[]) else { return };
    let subscriber = Subscriber::new(broker.port, "#");
    let mut rig = Rig::new(broker.address());
    rig.open_source(broker.address());
    // The template takes the second level; this one has none.
    publish_all(broker.port, [("in".to_owned(), b"1".to_vec(), PublishProperties::default())]);
    publish_all(broker.port, numbers("in/a", 2..3));
    eventually("the good one arrives", || subscriber.len() == 3);
    let rejected = || rig.forward.state.rejected.lock().expect("no panic under this lock").clone();
    eventually("the other one is rejected", || !rejected().is_empty());
    assert_eq!(rejected(), [(0, "the message's topic has no level 2".to_owned())]);
    rig.close_source();
}

#[test]
fn retained_messages_come_once_and_not_with_every_connection() {
    for version in [Version::V5, Version::V311] {
        let Some(broker) = Mosquitto::start(&[]) else { return };
        outside::retain(broker.port, "in/kept", "1");
        let (before_source, subscriber) = (Proxy::before(broker.port), Subscriber::new(broker.port, "out/#"));
        let mut rig = Rig::new(broker.address());
        let id = format!("tg/edge-1/t/{version:?}/in");
        let settings = Settings { version, ..settings(&id) };
        rig.open_source_with(Remote::plain(before_source.address()), settings);
        eventually("what is retained comes", || subscriber.len() == 1);
        for number in 2..5 {
            let failures = rig.source().failures.get();
            before_source.cut();
            eventually("the cut is felt", || rig.source().failures.get() > failures);
            eventually("it is back", || rig.source().state() == ConnectionState::Connected);
            publish_all(broker.port, numbers("in/a", number..number + 1));
            eventually("what is new comes", || subscriber.numbers().contains(&number));
        }
        assert_eq!(first_seen(&subscriber.numbers()), [1, 2, 3, 4], "{version:?}");
        // What was not acknowledged before the cut came again, and was marked.
        assert_eq!(subscriber.len() as u64, 4 + rig.source().redelivered.get(), "{version:?}");
        rig.close_source();
    }
}

#[test]
fn the_embedded_broker_carries_messages_both_ways() {
    let ports = broker::start(broker::Ports::default()).expect("loopback has free ports");
    let remote = Remote::plain(format!("127.0.0.1:{}", ports.v5));
    let subscriber = Subscriber::new(ports.v5, "out/#");
    let settings = |client_id: &str| settings(&broker::client_id(client_id));
    let mut rig = Rig::with(remote.clone(), settings("tg/edge-1/t/out/local"));
    rig.open_source_with(remote, settings("tg/edge-1/t/forward/in"));
    publish_all(ports.v5, numbers("in/a", 0..2_000));
    let large = vec![b'7'; PAYLOAD_BYTES_MAX];
    publish_all(ports.v5, [("in/large".to_owned(), large.clone(), PublishProperties::default())]);
    eventually("all arrive", || subscriber.len() == 2_001);
    let received = subscriber.received();
    let numbers: Vec<_> = received[..2_000].iter().map(|publish| publish.payload.clone()).collect();
    assert_eq!(numbers, (0..2_000).map(|number| number.to_string().into_bytes()).collect::<Vec<_>>());
    assert_eq!(received[2_000].payload, large);
    rig.close_source();
}
