//! `Servers`: one for each address, shared by the sources and destinations of all tenants,
//! there from the first to the last of them. Each has a thread of its own, so that no flood
//! of requests takes a shard's.

use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use hyper::StatusCode;
use tokio::{
    net::TcpListener,
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;

use super::{
    connection,
    directory::Directory,
    reply::Replies,
    share::Share,
    tokens::{Right, Stamp, Tokens},
};
use crate::{
    clock::Clock,
    connector::{
        status::{Counter, Status},
        tls::{self, TlsError},
    },
    deploy::chain,
    resource::endpoint::{Certificate, ListenSettings},
};

/// Tokens and certificates that were replaced are known after so long.
const LOOK_EVERY: Duration = Duration::from_millis(500);
const RETRY_AFTER: Duration = Duration::from_millis(200);
const RETRY_AFTER_MAX: Duration = Duration::from_secs(5);
/// What is under way when the server closes has so long to be answered.
const CLOSES_WITHIN: Duration = Duration::from_secs(5);
/// Events wait for so many, a little for each.
const LISTENERS_MAX: usize = 1024;

/// Why a server is not there. It is tried again.
#[derive(Debug, thiserror::Error)]
enum ServerError {
    #[error("cannot listen at {address}")]
    Listen { address: String, source: io::Error },
    #[error("it cannot encrypt")]
    Tls(#[from] TlsError),
    #[error("cannot read the folder of tokens {}", path.display())]
    Tokens { path: PathBuf, source: io::Error },
}

/// All servers of a host.
#[derive(Debug)]
pub struct Servers {
    running: Mutex<BTreeMap<String, Running>>,
    replies: Arc<Replies>,
    changing: Arc<AtomicBool>,
}

impl Default for Servers {
    /// No dataflow is there yet.
    fn default() -> Self {
        Servers {
            running: Mutex::default(),
            replies: Arc::default(),
            changing: Arc::new(AtomicBool::new(true)),
        }
    }
}

#[derive(Debug)]
struct Running {
    server: Weak<Server>,
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

impl Servers {
    /// Dataflows come and go from now on: whoever asks for what is not there is told to come
    /// again.
    pub fn begin_change(&self) {
        self.changing.store(true, Ordering::SeqCst);
    }

    /// What is not there now is not there.
    pub fn end_change(&self) {
        self.changing.store(false, Ordering::SeqCst);
    }

    /// The server of an endpoint, for one more end.
    pub fn open(&self, settings: ListenSettings) -> Arc<Server> {
        let mut running = self.lock();
        let known = running.get(&settings.address).and_then(|it| it.server.upgrade());
        if let Some(server) = known.filter(|it| it.shared.settings == settings) {
            return server;
        }
        let address = settings.address.clone();
        let before = running.remove(&address).map(|it| it.thread);
        let shared = Arc::new(Shared::new(settings, self.replies.clone(), self.changing.clone()));
        let server = Arc::new(Server { shared: shared.clone() });
        let on_thread = shared.clone();
        let run = move || {
            // The address is free once it is gone.
            if let Some(before) = before
                && before.join().is_err()
            {
                tracing::error!("an HTTP server had panicked");
            }
            run(&on_thread);
        };
        match std::thread::Builder::new().name("http".to_owned()).spawn(run) {
            Ok(thread) => {
                let weak = Arc::downgrade(&server);
                running.insert(address, Running { server: weak, shared, thread });
            }
            Err(error) => shared.stand(Err(format!("no thread can be started: {error}"))),
        }
        server
    }

    /// Those that are there.
    pub fn each(&self) -> Vec<ServerStatus> {
        let running = self.lock();
        let there = running.iter().filter(|(_, it)| it.server.strong_count() > 0);
        let status = |(address, Running { shared, .. }): (&String, &Running)| ServerStatus {
            address: address.clone(),
            state: shared.standing(),
            values: shared.counters.values(),
        };
        there.map(status).collect()
    }

    /// Waits for those whose ends are all gone. Blocks.
    pub fn join(&self) {
        let running = std::mem::take(&mut *self.lock());
        for (address, Running { server, thread, .. }) in running {
            if server.strong_count() == 0 && thread.join().is_err() {
                tracing::error!(address, "an HTTP server had panicked");
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Running>> {
        self.running.lock().expect("no panic under this lock")
    }
}

/// What can be seen of a server from outside.
pub struct ServerStatus {
    pub address: String,
    /// As `status` shows it.
    pub state: String,
    /// Every counter with its name.
    pub values: Vec<(&'static str, u64)>,
}

/// A server, for one end of it. It closes with the last.
#[derive(Debug)]
pub struct Server {
    pub(super) shared: Arc<Shared>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.closing.send_replace(true);
    }
}

/// What a server's thread, its connections and its ends share.
#[derive(Debug)]
pub(in crate::connector) struct Shared {
    pub settings: ListenSettings,
    pub directory: Directory,
    pub requests: Arc<Share>,
    pub listeners: Arc<Share>,
    pub(super) replies: Arc<Replies>,
    changing: Arc<AtomicBool>,
    pub counters: Counters,
    pub closing: watch::Sender<bool>,
    tokens: Mutex<Arc<Tokens>>,
    standing: Mutex<Standing>,
    events: AtomicU64,
}

#[derive(Debug, Default)]
struct Standing {
    /// `None` before the first attempt is over.
    is: Option<Result<(), String>>,
    ends: Vec<Weak<Status>>,
}

impl Shared {
    fn new(settings: ListenSettings, replies: Arc<Replies>, changing: Arc<AtomicBool>) -> Self {
        Shared {
            requests: Share::new(settings.requests_max),
            listeners: Share::new(LISTENERS_MAX),
            settings,
            directory: Directory::default(),
            replies,
            changing,
            counters: Counters::default(),
            closing: watch::Sender::new(false),
            tokens: Mutex::default(),
            standing: Mutex::default(),
            events: AtomicU64::new(0),
        }
    }

    /// An end shows from now on how the server stands.
    pub(super) fn join(&self, status: &Arc<Status>) {
        let mut standing = self.standing.lock().expect("no panic under this lock");
        standing.ends.retain(|end| end.strong_count() > 0);
        standing.ends.push(Arc::downgrade(status));
        if let Some(is) = &standing.is {
            show(status, is);
        }
    }

    fn stand(&self, is: Result<(), String>) {
        let mut standing = self.standing.lock().expect("no panic under this lock");
        standing.ends.iter().filter_map(Weak::upgrade).for_each(|status| show(&status, &is));
        standing.is = Some(is);
    }

    fn standing(&self) -> String {
        match &self.standing.lock().expect("no panic under this lock").is {
            None => "connecting".to_owned(),
            Some(Ok(())) => "listening".to_owned(),
            Some(Err(error)) => format!("degraded: {error}"),
        }
    }

    /// What a request with this `authorization` may do in a tenant's name.
    pub(in crate::connector) fn right(&self, authorization: Option<&[u8]>, tenant: &str) -> Right {
        if self.settings.token_folder.is_none() {
            return Right::Granted;
        }
        self.tokens().right(authorization, tenant)
    }

    /// Whose token a request with this `authorization` has: all of them.
    pub(in crate::connector) fn owners(&self, authorization: Option<&[u8]>) -> Vec<String> {
        self.tokens().owners(authorization).to_vec()
    }

    pub(in crate::connector) fn is_changing(&self) -> bool {
        self.changing.load(Ordering::SeqCst)
    }

    pub(super) fn next_event(&self) -> u64 {
        self.events.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn tokens(&self) -> Arc<Tokens> {
        self.tokens.lock().expect("no panic under this lock").clone()
    }

    fn read_tokens(&self) -> Result<(), ServerError> {
        let Some(folder) = &self.settings.token_folder else { return Ok(()) };
        let read = Tokens::read(folder, &self.tokens());
        let (tokens, done) = match read {
            Ok(tokens) => (tokens, Ok(())),
            // Nobody is let in by what may have been taken back.
            Err(source) => (Tokens::default(), Err(ServerError::Tokens { path: folder.clone(), source })),
        };
        *self.tokens.lock().expect("no panic under this lock") = Arc::new(tokens);
        done
    }
}

fn show(status: &Status, is: &Result<(), String>) {
    match is {
        Ok(()) => status.set_connected(),
        Err(error) => status.set_degraded(Clock::System.now(), error.clone()),
    }
}

/// What came to a server, and how it was answered.
#[derive(Debug, Default)]
pub(in crate::connector) struct Counters {
    pub connections: Counter,
    accepted: Counter,
    /// Requests that are no HTTP or are cut short, and handshakes that failed.
    pub broken: Counter,
    unknown: Counter,
    others: Counter,
    no_such_topic: Counter,
    no_such_method: Counter,
    /// Clients that took too long to send, or to take in an answer.
    pub slow: Counter,
    too_large: Counter,
    too_many: Counter,
    gone: Counter,
    late: Counter,
    /// Connections that ended within a request or an answer.
    pub cut: Counter,
    /// Events that listeners were too slow for.
    pub events_lost: Counter,
    /// Of requests of OTLP that were taken: items that were not.
    pub items_refused: Counter,
}

impl Counters {
    pub(in crate::connector) fn answered(&self, status: StatusCode) {
        let counter = match status {
            StatusCode::BAD_REQUEST | StatusCode::UNSUPPORTED_MEDIA_TYPE => &self.broken,
            StatusCode::UNAUTHORIZED => &self.unknown,
            StatusCode::FORBIDDEN => &self.others,
            StatusCode::NOT_FOUND => &self.no_such_topic,
            StatusCode::METHOD_NOT_ALLOWED => &self.no_such_method,
            StatusCode::REQUEST_TIMEOUT => &self.slow,
            StatusCode::PAYLOAD_TOO_LARGE => &self.too_large,
            StatusCode::TOO_MANY_REQUESTS => &self.too_many,
            StatusCode::SERVICE_UNAVAILABLE => &self.gone,
            StatusCode::GATEWAY_TIMEOUT => &self.late,
            _ => &self.accepted,
        };
        counter.add(1);
    }

    fn values(&self) -> Vec<(&'static str, u64)> {
        // Naming every field makes a forgotten one a build error.
        let Counters {
            connections,
            accepted,
            broken,
            unknown,
            others,
            no_such_topic,
            no_such_method,
            slow,
            too_large,
            too_many,
            gone,
            late,
            cut,
            events_lost,
            items_refused,
        } = self;
        [
            ("connections", connections),
            ("accepted", accepted),
            ("broken", broken),
            ("unknown", unknown),
            ("others", others),
            ("no_such_topic", no_such_topic),
            ("no_such_method", no_such_method),
            ("slow", slow),
            ("too_large", too_large),
            ("too_many", too_many),
            ("gone", gone),
            ("late", late),
            ("cut", cut),
            ("events_lost", events_lost),
            ("items_refused", items_refused),
        ]
        .map(|(name, counter)| (name, counter.get()))
        .into()
    }
}

/// Until the last end is gone.
fn run(shared: &Arc<Shared>) {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(serve(shared)),
        Err(error) => shared.stand(Err(format!("no runtime can be started: {error}"))),
    }
}

/// What is encrypted with, as it was read last.
struct Certified {
    certificate: Certificate,
    stamps: Option<[Stamp; 2]>,
    acceptor: TlsAcceptor,
}

impl Certified {
    fn read(certificate: &Certificate) -> Result<Self, TlsError> {
        // Before they are read, or a change meanwhile would not be noticed.
        let stamps = stamps(certificate);
        Ok(Certified { certificate: certificate.clone(), stamps, acceptor: tls::acceptor(certificate)? })
    }

    /// What lies there may be half written: then the one before goes on.
    fn look(&mut self) {
        let stamps = stamps(&self.certificate);
        if stamps == self.stamps {
            return;
        }
        match tls::acceptor(&self.certificate) {
            Ok(acceptor) => (self.stamps, self.acceptor) = (stamps, acceptor),
            Err(error) => tracing::warn!(error = %chain(&error), "the certificate before stays in use"),
        }
    }
}

fn stamps(Certificate { chain, key }: &Certificate) -> Option<[Stamp; 2]> {
    let stamp = |path| std::fs::metadata(path).ok().map(|file| Stamp::of(&file));
    Some([stamp(chain)?, stamp(key)?])
}

type Acceptor = Arc<Mutex<Option<Certified>>>;

fn acceptor_of(acceptor: &Acceptor) -> Option<TlsAcceptor> {
    acceptor.lock().expect("no panic under this lock").as_ref().map(|it| it.acceptor.clone())
}

async fn serve(shared: &Arc<Shared>) {
    let mut closing = shared.closing.subscribe();
    tokio::select! {
        biased;
        () = connection::closed(&mut closing) => {}
        (listener, acceptor) = open(shared) => {
            let mut connections = JoinSet::new();
            tokio::select! {
                biased;
                () = connection::closed(&mut closing) => {}
                () = keep_fresh(shared, &acceptor) => {}
                () = accept(shared, &listener, &acceptor, &mut connections) => {}
            }
            drop(listener);
            let ended = async { while connections.join_next().await.is_some() {} };
            if timeout(CLOSES_WITHIN, ended).await.is_err() {
                tracing::debug!("clients that did not take their answers in are cut");
            }
        }
    }
}

/// Tries until it listens.
async fn open(shared: &Arc<Shared>) -> (TcpListener, Acceptor) {
    let mut retry_after = RETRY_AFTER;
    loop {
        match open_once(shared).await {
            Ok(opened) => {
                shared.stand(Ok(()));
                return opened;
            }
            Err(error) => shared.stand(Err(chain(&error))),
        }
        sleep(retry_after).await;
        retry_after = (retry_after * 2).min(RETRY_AFTER_MAX);
    }
}

async fn open_once(shared: &Arc<Shared>) -> Result<(TcpListener, Acceptor), ServerError> {
    shared.read_tokens()?;
    let certified = shared.settings.certificate.as_ref().map(Certified::read).transpose()?;
    let address = &shared.settings.address;
    let listen = |source| ServerError::Listen { address: address.clone(), source };
    let listener = TcpListener::bind(address.as_str()).await.map_err(listen)?;
    Ok((listener, Arc::new(Mutex::new(certified))))
}

/// Files are looked at beside the connections, as long as the server runs.
async fn keep_fresh(shared: &Arc<Shared>, acceptor: &Acceptor) {
    let mut failure = None;
    loop {
        sleep(LOOK_EVERY).await;
        let (shared_there, acceptor) = (shared.clone(), acceptor.clone());
        let look = move || {
            acceptor.lock().expect("no panic under this lock").iter_mut().for_each(Certified::look);
            shared_there.read_tokens()
        };
        let now = match tokio::task::spawn_blocking(look).await {
            Ok(read) => read.err().map(|error| chain(&error)),
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        if now != failure {
            shared.stand(now.clone().map_or(Ok(()), Err));
            failure = now;
        }
    }
}

async fn accept(
    shared: &Arc<Shared>,
    listener: &TcpListener,
    acceptor: &Acceptor,
    connections: &mut JoinSet<()>,
) {
    loop {
        let has_room = connections.len() < shared.settings.connections_max;
        tokio::select! {
            accepted = listener.accept(), if has_room => match accepted {
                Ok((stream, _)) => {
                    shared.counters.connections.add(1);
                    connections.spawn(connection::serve(shared.clone(), stream, acceptor_of(acceptor)));
                }
                Err(error) => {
                    // Of one client, or there are no files left: then others end meanwhile.
                    tracing::debug!(%error, "a connection was not taken");
                    sleep(RETRY_AFTER).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}
