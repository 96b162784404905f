//! A network that fails on purpose: passes connections on to a server until it is told to cut,
//! refuse, delay, slow, halve or truncate them. Knows no protocol; what was under way when it
//! cuts is lost, as on a network.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering},
        mpsc::{self, Receiver, SyncSender},
    },
    thread,
    time::{Duration, Instant},
};

/// Bytes that are read at once.
const CHUNK: usize = 64 << 10;
/// Chunks of one direction that may be on their way, so that a slow link stops who writes.
const CHUNKS_MAX: usize = 16;
/// How often a slow link passes on what it has earned.
const SLOW_EVERY: Duration = Duration::from_millis(20);

/// Changes what a server is about to be told.
type Edit = dyn Fn(&mut [u8]) + Send + Sync;

/// An end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Client,
    Server,
}

/// Stands before a server, on a loopback port of its own, until it is dropped.
pub struct Proxy {
    pub port: u16,
    state: Arc<State>,
}

struct State {
    to: AtomicU16,
    edit: Box<Edit>,
    refuses: AtomicBool,
    deafens: AtomicBool,
    closed: AtomicBool,
    delay_ms: AtomicU64,
    /// Of each direction of each connection; 0 is no limit.
    bytes_per_second: AtomicU64,
    links: Mutex<Vec<Arc<Link>>>,
}

/// A connection from a client to the server.
struct Link {
    client: TcpStream,
    server: TcpStream,
    /// What comes next, in either direction, is cut short, and the connection with it.
    truncates: AtomicBool,
}

impl Link {
    fn of(&self, end: End) -> &TcpStream {
        match end {
            End::Client => &self.client,
            End::Server => &self.server,
        }
    }

    fn cut(&self) {
        let _ = self.client.shutdown(Shutdown::Both);
        let _ = self.server.shutdown(Shutdown::Both);
    }
}

impl Proxy {
    pub fn before(to: u16) -> Self {
        Self::editing(to, |_| ())
    }

    /// Passes on what `edit` makes of what clients say.
    pub fn editing(to: u16, edit: impl Fn(&mut [u8]) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback can be bound");
        let port = listener.local_addr().expect("it is bound").port();
        let state = Arc::new(State {
            to: AtomicU16::new(to),
            edit: Box::new(edit),
            refuses: AtomicBool::new(false),
            deafens: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            delay_ms: AtomicU64::new(0),
            bytes_per_second: AtomicU64::new(0),
            links: Mutex::default(),
        });
        let accepting = state.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if accepting.closed.load(Ordering::SeqCst) {
                    return;
                }
                if !accepting.refuses.load(Ordering::SeqCst) {
                    accepting.pass(client);
                }
            }
        });
        Proxy { port, state }
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// New connections go to another port from now on.
    pub fn lead_to(&self, port: u16) {
        self.state.to.store(port, Ordering::SeqCst);
    }

    /// Ends every connection; new ones come through.
    pub fn cut(&self) {
        self.state.links().drain(..).for_each(|link| link.cut());
    }

    /// From now on connections are closed as soon as they come.
    pub fn refuse(&self) {
        self.state.refuses.store(true, Ordering::SeqCst);
        self.cut();
    }

    /// From now on the server hears nothing, and is heard.
    pub fn deafen(&self) {
        self.state.deafens.store(true, Ordering::SeqCst);
    }

    /// From now on every byte is so much later, in both directions.
    pub fn delay(&self, by: Duration) {
        self.state.delay_ms.store(by.as_millis() as u64, Ordering::SeqCst);
    }

    /// From now on so many bytes a second pass, in each direction of each connection.
    pub fn slow(&self, bytes_per_second: u64) {
        self.state.bytes_per_second.store(bytes_per_second, Ordering::SeqCst);
    }

    /// Tells one end of every connection that the other has said all, which may go on
    /// listening. What that other still says is lost.
    pub fn half_close(&self, end: End) {
        for link in self.state.links().iter() {
            let _ = link.of(end).shutdown(Shutdown::Write);
        }
    }

    /// Of what comes next on every connection, in either direction, half is passed on, and the
    /// connection is cut.
    pub fn truncate(&self) {
        for link in self.state.links().iter() {
            link.truncates.store(true, Ordering::SeqCst);
        }
    }

    /// All passes again, if need be on new connections.
    pub fn admit(&self) {
        self.state.refuses.store(false, Ordering::SeqCst);
        self.state.delay_ms.store(0, Ordering::SeqCst);
        self.state.bytes_per_second.store(0, Ordering::SeqCst);
        // What was said meanwhile is missing in what is said next.
        if self.state.deafens.swap(false, Ordering::SeqCst) {
            self.cut();
        }
    }

    /// Connections that there are.
    pub fn connections(&self) -> usize {
        self.state.links().len()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.state.closed.store(true, Ordering::SeqCst);
        self.cut();
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
    }
}

/// What one direction has read, and when.
type Chunk = (Instant, Vec<u8>);

impl State {
    fn links(&self) -> MutexGuard<'_, Vec<Arc<Link>>> {
        self.links.lock().expect("no panic under this lock")
    }

    fn pass(self: &Arc<Self>, client: TcpStream) {
        let to = self.to.load(Ordering::SeqCst);
        let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, to)) else { return };
        let _ = client.set_nodelay(true);
        let _ = server.set_nodelay(true);
        let link = Arc::new(Link { client, server, truncates: AtomicBool::new(false) });
        self.links().push(link.clone());
        let ends = [(End::Client, End::Server), (End::Server, End::Client)].map(|(from, to)| {
            let (chunks, read) = mpsc::sync_channel(CHUNKS_MAX);
            let reading = link.clone();
            thread::spawn(move || read_all(reading.of(from), &chunks));
            let (state, link) = (self.clone(), link.clone());
            thread::spawn(move || state.write_all(&link, to, &read))
        });
        let state = self.clone();
        thread::spawn(move || {
            ends.into_iter().for_each(|end| end.join().expect("it does not panic"));
            state.links().retain(|other| !Arc::ptr_eq(other, &link));
        });
    }

    /// Passes on one direction until it ends. One that its end does not take any more is read
    /// on: the other direction may still be open.
    fn write_all(&self, link: &Link, to: End, read: &Receiver<Chunk>) {
        let mut stream = link.of(to);
        for (came, mut bytes) in read {
            let delay = Duration::from_millis(self.delay_ms.load(Ordering::SeqCst));
            thread::sleep((came + delay).saturating_duration_since(Instant::now()));
            if to == End::Server {
                (self.edit)(&mut bytes);
                if self.deafens.load(Ordering::SeqCst) {
                    continue;
                }
            }
            if link.truncates.load(Ordering::SeqCst) {
                let _ = stream.write_all(&bytes[..bytes.len() / 2]);
                link.cut();
                return;
            }
            self.write_slowly(stream, &bytes);
        }
        let _ = stream.shutdown(Shutdown::Write);
    }

    fn write_slowly(&self, mut stream: &TcpStream, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let per_second = self.bytes_per_second.load(Ordering::SeqCst);
            let earned = (per_second * SLOW_EVERY.as_millis() as u64).div_ceil(1_000) as usize;
            let len = if per_second == 0 { bytes.len() } else { earned.min(bytes.len()) };
            if stream.write_all(&bytes[..len]).is_err() {
                return;
            }
            bytes = &bytes[len..];
            if per_second > 0 {
                thread::sleep(SLOW_EVERY);
            }
        }
    }
}

fn read_all(mut stream: &TcpStream, chunks: &SyncSender<Chunk>) {
    let mut bytes = vec![0; CHUNK];
    while let Ok(len) = stream.read(&mut bytes) {
        if len == 0 || chunks.send((Instant::now(), bytes[..len].to_vec())).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
