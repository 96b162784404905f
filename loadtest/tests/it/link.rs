//! A broker and a host in one, for two connections: what is published on `TENANT/in`
//! comes out on `TENANT/out/flow`, or does not, or twice, or late. It counts what it
//! does on its own.

use std::{
    collections::HashMap,
    io::{Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

use tidegate_loadtest::mqtt;

/// What is done to messages and connections.
#[derive(Clone, Copy, Default)]
pub struct Tampering {
    /// To every so many messages, each of five things in turn.
    pub every: Option<u64>,
    /// Hangs up on the publisher at every so many messages, without taking the last.
    pub hang_up_every: Option<u64>,
    /// Hangs up on the subscriber at this message, and forgets it.
    pub forget_at: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub passed: u64,
    pub dropped: u64,
    pub doubled: u64,
    /// Passed on after a later one of the same tenant.
    pub late: u64,
    /// Nobody sent it, or for another tenant.
    pub strange: u64,
}

pub struct Link {
    port: u16,
    state: Arc<Mutex<State>>,
}

struct State {
    tampering: Tampering,
    subscriber: Option<TcpStream>,
    taken: u64,
    counts: Counts,
    /// By tenant, what waits for a later message to overtake it.
    held: HashMap<String, Vec<u8>>,
}

impl Link {
    pub fn start(tampering: Tampering) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let (counts, held) = (Counts::default(), HashMap::new());
        let state = Arc::new(Mutex::new(State { tampering, subscriber: None, taken: 0, counts, held }));
        let shared = state.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = shared.clone();
                thread::spawn(move || serve(stream, &state));
            }
        });
        Link { port, state }
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// What is still held was never passed on.
    pub fn counts(&self) -> Counts {
        let state = self.state.lock().expect("no panic under this lock");
        Counts { dropped: state.counts.dropped + state.held.len() as u64, ..state.counts }
    }
}

fn serve(mut stream: TcpStream, state: &Mutex<State>) {
    let mut bytes = Vec::new();
    let mut chunk = [0; 65_536];
    loop {
        while let Some(frame) = mqtt::frame(&bytes).expect("MQTT") {
            match frame.first & 0xf0 {
                // CONNECT, SUBSCRIBE.
                0x10 => stream.write_all(&[0x20, 3, 0, 0, 0]).expect("it reads"),
                0x80 => {
                    let answer = [0x90, 4, frame.body[0], frame.body[1], 0, 1];
                    stream.write_all(&answer).expect("it reads");
                    let mut state = state.lock().expect("no panic under this lock");
                    state.subscriber = Some(stream.try_clone().expect("a socket"));
                }
                mqtt::PUBLISH => {
                    if state.lock().expect("no panic under this lock").hangs_up() {
                        return;
                    }
                    let arrival = mqtt::arrival(&frame).expect("a publish");
                    let packet_id = arrival.packet_id.expect("QoS 1");
                    stream.write_all(&mqtt::puback(packet_id)).expect("it reads");
                    let topic = std::str::from_utf8(arrival.topic).expect("text");
                    let tenant = topic.strip_suffix("/in").expect("an input");
                    // Without properties, their length is one byte.
                    state.lock().expect("no panic under this lock").take(tenant, &arrival.rest[1..]);
                }
                _ => {}
            }
            let len = frame.len;
            bytes.drain(..len);
        }
        match stream.read(&mut chunk) {
            Ok(len) if len > 0 => bytes.extend_from_slice(&chunk[..len]),
            _ => return,
        }
    }
}

impl State {
    /// A message came; whether the connection ends instead of taking it.
    fn hangs_up(&mut self) -> bool {
        self.taken += 1;
        if self.tampering.forget_at == Some(self.taken) {
            let subscriber = self.subscriber.take().expect("it has subscribed");
            subscriber.shutdown(Shutdown::Both).expect("it is open");
        }
        self.tampering.hang_up_every.is_some_and(|every| self.taken.is_multiple_of(every))
    }

    fn take(&mut self, tenant: &str, payload: &[u8]) {
        let turn = match self.tampering.every {
            Some(every) if self.taken.is_multiple_of(every) => self.taken / every % 5,
            _ => 0,
        };
        match turn {
            1 => self.counts.dropped += 1,
            2 => {
                self.pass(tenant, payload);
                self.pass(tenant, payload);
                self.counts.doubled += 1;
            }
            3 if !self.held.contains_key(tenant) => {
                self.held.insert(tenant.to_owned(), payload.to_vec());
            }
            4 => {
                self.pass(tenant, payload);
                self.send(tenant, b"nobody's");
                let other = if tenant == "a" { "b" } else { "a" };
                self.send(other, payload);
                self.counts.strange += 2;
            }
            _ => self.pass(tenant, payload),
        }
    }

    /// And behind it what was held for it.
    fn pass(&mut self, tenant: &str, payload: &[u8]) {
        self.send(tenant, payload);
        self.counts.passed += 1;
        if let Some(held) = self.held.remove(tenant) {
            self.send(tenant, &held);
            self.counts.passed += 1;
            self.counts.late += 1;
        }
    }

    fn send(&mut self, tenant: &str, payload: &[u8]) {
        let packet = mqtt::publish(&format!("{tenant}/out/flow"), 1, &[], payload);
        if let Some(subscriber) = &mut self.subscriber {
            subscriber.write_all(&packet).expect("it reads");
        }
    }
}
