//! Clients that have nothing to do with the host: what they saw is what happened.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rumqttc::v5::{
    Client, Connection, Event, Incoming, MqttOptions,
    mqttbytes::{
        QoS,
        v5::{Publish, PublishProperties},
    },
};

use crate::mosquitto::{WITHIN, eventually};

fn options(id: &str, port: u16) -> MqttOptions {
    let mut options = MqttOptions::new(id, "127.0.0.1", port);
    options.set_clean_start(false);
    options.set_session_expiry_interval(Some(3600));
    options.set_keep_alive(Duration::from_secs(30));
    options.set_max_packet_size(Some(20 << 20));
    options
}

/// Collects all that comes, over restarts of the broker.
pub struct Subscriber {
    received: Arc<Mutex<Vec<Publish>>>,
    subscriptions: Arc<AtomicUsize>,
    client: Client,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Subscriber {
    /// Subscribed when this returns.
    pub fn new(port: u16, filter: &str) -> Self {
        Self::named("outside-subscriber", port, filter)
    }

    /// The same beside others.
    pub fn named(id: &str, port: u16, filter: &str) -> Self {
        let (client, connection) = Client::new(options(id, port), 100);
        let received = Arc::<Mutex<Vec<Publish>>>::default();
        let (subscriptions, ends) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let thread = {
            let (client, filter) = (client.clone(), filter.to_owned());
            let (received, subscriptions, ends) = (received.clone(), subscriptions.clone(), ends.clone());
            thread::spawn(move || collect(connection, &client, &filter, &received, &subscriptions, &ends))
        };
        let subscriber = Subscriber { received, subscriptions, client, ends, thread: Some(thread) };
        subscriber.wait_for_subscription(1);
        subscriber
    }

    /// Until it has subscribed as many times in all: once for each connection.
    pub fn wait_for_subscription(&self, count: usize) {
        eventually("the outside subscriber is subscribed", || self.subscriptions() >= count);
    }

    pub fn subscriptions(&self) -> usize {
        self.subscriptions.load(Ordering::SeqCst)
    }

    pub fn len(&self) -> usize {
        self.received.lock().expect("no panic under this lock").len()
    }

    pub fn received(&self) -> Vec<Publish> {
        self.received.lock().expect("no panic under this lock").clone()
    }

    /// The payloads, read as numbers.
    pub fn numbers(&self) -> Vec<u64> {
        let number = |publish: &Publish| String::from_utf8_lossy(&publish.payload).parse().expect("a number");
        self.received().iter().map(number).collect()
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::SeqCst);
        let _ = self.client.try_disconnect();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn collect(
    mut connection: Connection,
    client: &Client,
    filter: &str,
    received: &Mutex<Vec<Publish>>,
    subscriptions: &AtomicUsize,
    ends: &AtomicBool,
) {
    loop {
        match connection.recv_timeout(Duration::from_millis(100)) {
            Ok(Ok(Event::Incoming(Incoming::ConnAck(_)))) => {
                client.try_subscribe(filter, QoS::AtLeastOnce).expect("its queue has room");
            }
            Ok(Ok(Event::Incoming(Incoming::SubAck(_)))) => {
                subscriptions.fetch_add(1, Ordering::SeqCst);
            }
            Ok(Ok(Event::Incoming(Incoming::Publish(publish)))) => {
                received.lock().expect("no panic under this lock").push(publish);
            }
            Ok(Ok(_)) => {}
            // The broker is away, or nothing comes.
            Ok(Err(_)) => thread::park_timeout(Duration::from_millis(20)),
            Err(_) => {}
        }
        if ends.load(Ordering::SeqCst) {
            return;
        }
    }
}

/// A program that is asked: it takes requests, and answers them when told to.
pub struct Responder {
    requests: Arc<Mutex<Vec<Publish>>>,
    client: Client,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// What a responder answers at once: for each answer its status and payload.
type Answers = Box<dyn FnMut(&Publish) -> Vec<(String, String)> + Send>;

impl Responder {
    /// Subscribed when this returns; it answers nothing by itself.
    pub fn new(port: u16, filter: &str) -> Self {
        Self::start(port, filter, Box::new(|_| Vec::new()))
    }

    /// Answers each request at once.
    pub fn answering(
        port: u16,
        filter: &str,
        answers: impl FnMut(&Publish) -> Vec<(String, String)> + Send + 'static,
    ) -> Self {
        Self::start(port, filter, Box::new(answers))
    }

    fn start(port: u16, filter: &str, mut answers: Answers) -> Self {
        let (client, mut connection) = Client::new(options("outside-responder", port), 1000);
        let requests = Arc::<Mutex<Vec<Publish>>>::default();
        let (subscribed, ends) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let thread = {
            let (client, filter) = (client.clone(), filter.to_owned());
            let (requests, subscribed, ends) = (requests.clone(), subscribed.clone(), ends.clone());
            thread::spawn(move || {
                while !ends.load(Ordering::SeqCst) {
                    match connection.recv_timeout(Duration::from_millis(100)) {
                        Ok(Ok(Event::Incoming(Incoming::ConnAck(_)))) => {
                            client.try_subscribe(&filter, QoS::AtLeastOnce).expect("its queue has room");
                        }
                        Ok(Ok(Event::Incoming(Incoming::SubAck(_)))) => {
                            subscribed.store(true, Ordering::SeqCst);
                        }
                        Ok(Ok(Event::Incoming(Incoming::Publish(request)))) => {
                            for (status, payload) in answers(&request) {
                                answer(&client, &request, &[("__stat", &status)], &payload);
                            }
                            requests.lock().expect("no panic under this lock").push(request);
                        }
                        _ => {}
                    }
                }
            })
        };
        eventually("the responder is subscribed", || subscribed.load(Ordering::SeqCst));
        Responder { requests, client, ends, thread: Some(thread) }
    }

    pub fn len(&self) -> usize {
        self.requests.lock().expect("no panic under this lock").len()
    }

    pub fn requests(&self) -> Vec<Publish> {
        self.requests.lock().expect("no panic under this lock").clone()
    }

    /// Answers with these user properties, where the request says.
    pub fn answer(&self, request: &Publish, properties: &[(&str, &str)], payload: &str) {
        answer(&self.client, request, properties, payload);
    }
}

fn answer(client: &Client, request: &Publish, properties: &[(&str, &str)], payload: &str) {
    let asked = request.properties.clone().expect("a request has properties");
    let topic = asked.response_topic.expect("a request says where its answer goes");
    let properties = PublishProperties {
        correlation_data: asked.correlation_data,
        user_properties: properties.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect(),
        ..PublishProperties::default()
    };
    client
        .try_publish_with_properties(topic, QoS::AtLeastOnce, false, payload.to_owned(), properties)
        .expect("its queue has room");
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::SeqCst);
        let _ = self.client.try_disconnect();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Sends a number, waits for it to come back, sends the next: as long as it lasts, everything
/// between is served, in order and nothing twice.
pub struct Pulse {
    beats: Arc<AtomicUsize>,
    longest_us: Arc<AtomicUsize>,
    ends: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Pulse {
    pub fn start(port: u16, to: &str, from: &str) -> Self {
        let mut options = options("outside-pulse", port);
        // One message at a time would wait for the acknowledgement of the one before.
        let mut network = options.network_options();
        network.set_tcp_nodelay(true);
        options.set_network_options(network);
        let (client, connection) = Client::new(options, 10);
        let (beats, longest_us) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let ends = Arc::<AtomicBool>::default();
        let thread = {
            let (to, from) = (to.to_owned(), from.to_owned());
            let (beats, longest_us, ends) = (beats.clone(), longest_us.clone(), ends.clone());
            thread::spawn(move || beat(connection, &client, &to, &from, (&beats, &longest_us), &ends))
        };
        Pulse { beats, longest_us, ends, thread }
    }

    /// Round trips so far.
    pub fn beats(&self) -> usize {
        assert!(!self.thread.is_finished(), "the pulse is gone");
        self.beats.load(Ordering::SeqCst)
    }

    /// Round trips in all, and how long the longest took.
    pub fn stop(self) -> (usize, Duration) {
        self.ends.store(true, Ordering::SeqCst);
        self.thread.join().expect("every number came back, in order");
        let longest = Duration::from_micros(self.longest_us.load(Ordering::SeqCst) as u64);
        (self.beats.load(Ordering::SeqCst), longest)
    }
}

fn beat(
    mut connection: Connection,
    client: &Client,
    to: &str,
    from: &str,
    (beats, longest_us): (&AtomicUsize, &AtomicUsize),
    ends: &AtomicBool,
) {
    let mut sent = Instant::now();
    let send = |number: usize| {
        client.try_publish(to, QoS::AtLeastOnce, false, number.to_string()).expect("its queue has room");
        Instant::now()
    };
    loop {
        let event = connection.recv_timeout(WITHIN).expect("something comes in time");
        match event.expect("the broker is there") {
            Event::Incoming(Incoming::ConnAck(_)) => {
                client.try_subscribe(from, QoS::AtLeastOnce).expect("its queue has room");
            }
            Event::Incoming(Incoming::SubAck(_)) => sent = send(0),
            Event::Incoming(Incoming::Publish(publish)) => {
                let number = beats.load(Ordering::SeqCst);
                assert_eq!(String::from_utf8_lossy(&publish.payload), number.to_string());
                longest_us.fetch_max(sent.elapsed().as_micros() as usize, Ordering::SeqCst);
                beats.store(number + 1, Ordering::SeqCst);
                if ends.load(Ordering::SeqCst) {
                    let _ = client.try_disconnect();
                    return;
                }
                sent = send(number + 1);
            }
            _ => {}
        }
    }
}

/// Publishes with QoS 1 and returns when the broker has acknowledged all.
pub fn publish_all(port: u16, messages: impl IntoIterator<Item = (String, Vec<u8>, PublishProperties)>) {
    let (client, mut connection) = Client::new(options("outside-publisher", port), 100);
    let mut messages = messages.into_iter().peekable();
    let (mut published, mut acknowledged) = (0, 0);
    while messages.peek().is_some() || acknowledged < published {
        while published - acknowledged < 90 {
            let Some((topic, payload, properties)) = messages.next() else { break };
            client
                .try_publish_with_properties(topic, QoS::AtLeastOnce, false, payload, properties)
                .expect("its queue has room");
            published += 1;
        }
        match connection.recv().expect("the client is there").expect("the broker is there") {
            Event::Incoming(Incoming::PubAck(_)) => acknowledged += 1,
            _ => continue,
        }
    }
    client.try_disconnect().expect("its queue has room");
    while connection.recv().is_ok_and(|event| event.is_ok()) {}
}

/// Publishes a message that the broker retains, and returns when it has it.
pub fn retain(port: u16, topic: &str, payload: &str) {
    let (client, mut connection) = Client::new(options("outside-publisher", port), 100);
    client.try_publish(topic, QoS::AtLeastOnce, true, payload.to_owned()).expect("its queue has room");
    loop {
        let event = connection.recv().expect("the client is there").expect("the broker is there");
        if let Event::Incoming(Incoming::PubAck(_)) = event {
            break;
        }
    }
    client.try_disconnect().expect("its queue has room");
    while connection.recv().is_ok_and(|event| event.is_ok()) {}
}

/// Publishes with QoS 0, and returns when the broker has taken all.
pub fn publish_unacknowledged(
    port: u16,
    messages: impl IntoIterator<Item = (String, Vec<u8>, PublishProperties)>,
) {
    let (client, mut connection) = Client::new(options("outside-publisher", port), 1000);
    for (topic, payload, properties) in messages {
        client
            .try_publish_with_properties(topic, QoS::AtMostOnce, false, payload, properties)
            .expect("its queue has room");
    }
    // Answered only once all before it is taken.
    client.try_publish("outside/marker", QoS::AtLeastOnce, false, "").expect("its queue has room");
    loop {
        let event = connection.recv().expect("the client is there").expect("the broker is there");
        if let Event::Incoming(Incoming::PubAck(_)) = event {
            break;
        }
    }
    client.try_disconnect().expect("its queue has room");
    while connection.recv().is_ok_and(|event| event.is_ok()) {}
}

/// Numbers as payloads, all to one topic.
pub fn numbers(
    topic: &str,
    numbers: std::ops::Range<u64>,
) -> impl Iterator<Item = (String, Vec<u8>, PublishProperties)> {
    numbers
        .map(move |number| (topic.to_owned(), number.to_string().into_bytes(), PublishProperties::default()))
}
