//! `Commands`: the door between guests that ask something of another program and the
//! connection that carries their requests and brings the answers. Holds requests to
//! what policy grants and bounds; knows neither guests nor transports.
//!
//! ```text
//!  guest ──open──► Permit ──begin──► requests ──► session ──► broker
//!    ▲                               (bounded by permits)        │
//!    └────────── Call, a future ◄────────── Answering ◄──────────┘
//! ```

pub mod answer;
pub mod pattern;

use std::{
    collections::VecDeque,
    future::poll_fn,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;

pub use self::answer::Answer;
use self::pattern::Topic;
use crate::{clock::Instant, resource::Grants, topic::TopicFilter};

/// How long a request waits for its answer unless it says so.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

/// The longest that a request may wait; one that says more waits that long.
pub const TIMEOUT_MAX: Duration = Duration::from_secs(60);

/// What begins with it, among user properties, is the protocol's.
pub const RESERVED_PREFIX: &str = "__";

/// Why a request has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct CommandError {
    pub kind: CommandErrorKind,
    pub text: String,
}

impl CommandError {
    pub fn new(kind: CommandErrorKind, text: impl Into<String>) -> Self {
        CommandError { kind, text: text.into() }
    }
}

/// The kinds of errors of the protocol, as AIO names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandErrorKind {
    ConfigurationInvalid,
    PayloadInvalid,
    Timeout,
    ClientError,
    Cancellation,
    HeaderInvalid,
    HeaderMissing,
    UnknownError,
    InvocationException,
    ExecutionException,
    InternalLogicError,
    StateInvalid,
}

/// How many requests of a tenant may be open at once, over all its endpoints, and what
/// became of them.
#[derive(Debug)]
pub struct Calls {
    open_max: u32,
    state: Mutex<CallsState>,
    /// Guests that wait for a permit.
    waiting: AtomicU64,
    /// Requests that were handed to a connection.
    asked: AtomicU64,
    answered: AtomicU64,
    /// Answers that are errors, and requests that the broker refused.
    failed: AtomicU64,
    /// Requests that policy does not grant.
    refused: AtomicU64,
    /// Requests without an answer in time.
    timed_out: AtomicU64,
}

#[derive(Debug, Default)]
struct CallsState {
    open: u32,
    waiting: Vec<Waker>,
}

impl Calls {
    pub fn new(open_max: u32) -> Arc<Self> {
        Arc::new(Calls {
            open_max,
            state: Mutex::default(),
            waiting: AtomicU64::new(0),
            asked: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            timed_out: AtomicU64::new(0),
        })
    }

    /// The right to one open request, once there is one.
    pub async fn permit(self: &Arc<Self>) -> Permit {
        let mut waiting = None;
        poll_fn(|ctx| {
            let permit = self.poll_permit(ctx);
            if permit.is_pending() && waiting.is_none() {
                waiting = Some(Waiting::begin(self));
            }
            permit
        })
        .await
    }

    /// The same, to be polled.
    pub fn poll_permit(self: &Arc<Self>, ctx: &mut Context<'_>) -> Poll<Permit> {
        let mut state = self.state.lock().expect("no panic under this lock");
        if state.open < self.open_max {
            state.open += 1;
            return Poll::Ready(Permit(self.clone()));
        }
        if !state.waiting.iter().any(|waker| waker.will_wake(ctx.waker())) {
            state.waiting.push(ctx.waker().clone());
        }
        Poll::Pending
    }

    /// A request waited for a permit or an answer for as long as it may.
    pub fn count_timed_out(&self) {
        self.timed_out.fetch_add(1, Ordering::Relaxed);
    }

    fn count(&self, result: &Result<Answer, CommandError>) {
        let counter = match result {
            Ok(_) => &self.answered,
            Err(error) if error.kind == CommandErrorKind::Timeout => &self.timed_out,
            Err(_) => &self.failed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Open requests, and every counter with its name.
    pub fn values(&self) -> Vec<(&'static str, u64)> {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let open = self.state.lock().expect("no panic under this lock").open;
        vec![
            ("open", u64::from(open)),
            ("waiting", count(&self.waiting)),
            ("asked", count(&self.asked)),
            ("answered", count(&self.answered)),
            ("failed", count(&self.failed)),
            ("refused", count(&self.refused)),
            ("timedOut", count(&self.timed_out)),
        ]
    }
}

/// Somebody who waits for a permit, for as long as this is there.
struct Waiting<'a>(&'a Calls);

impl<'a> Waiting<'a> {
    fn begin(calls: &'a Calls) -> Self {
        calls.waiting.fetch_add(1, Ordering::Relaxed);
        Waiting(calls)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The right to one open request, given back when dropped.
#[derive(Debug)]
pub struct Permit(Arc<Calls>);

impl Drop for Permit {
    fn drop(&mut self) {
        let waiting = {
            let mut state = self.0.state.lock().expect("no panic under this lock");
            state.open -= 1;
            std::mem::take(&mut state.waiting)
        };
        // All of them: the first may have been given up meanwhile.
        waiting.into_iter().for_each(Waker::wake);
    }
}

/// What a guest asks.
#[derive(Clone, Debug)]
pub struct Request {
    /// Where to.
    pub topic: Topic,
    /// Where the answer is to come.
    pub response: Topic,
    pub payload: Bytes,
    /// None of the protocol's own, and texts that MQTT carries.
    pub user_data: Arc<[(String, String)]>,
    /// When nobody waits for the answer any more.
    pub until: Instant,
}

/// A request that policy grants, on its way to the far side.
#[derive(Debug)]
pub struct Submitted {
    /// Tells it from all others at this door.
    pub number: u64,
    pub request: Request,
    /// What to subscribe to, which the topic of the answer matches.
    pub filter: TopicFilter,
    pub answering: Answering,
}

/// The duty to answer one request. Dropped, it is told as cancelled.
#[derive(Debug)]
#[must_use = "the guest waits for the answer"]
pub struct Answering(Arc<Slot>);

impl Answering {
    pub fn answer(self, result: Result<Answer, CommandError>) {
        self.0.fill(result);
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.fill(Err(cancelled()));
    }
}

fn cancelled() -> CommandError {
    CommandError::new(CommandErrorKind::Cancellation, "the connection for commands is closed")
}

/// Where the answer of one request lies until it is taken.
#[derive(Debug, Default)]
struct Slot(Mutex<SlotState>);

#[derive(Debug, Default)]
struct SlotState {
    result: Option<Result<Answer, CommandError>>,
    guest: Option<Waker>,
}

impl Slot {
    /// The first result counts.
    fn fill(&self, result: Result<Answer, CommandError>) {
        let guest = {
            let mut state = self.0.lock().expect("no panic under this lock");
            state.result.get_or_insert(result);
            state.guest.take()
        };
        if let Some(guest) = guest {
            guest.wake();
        }
    }
}

/// See the module. One for each tenant and endpoint.
#[derive(Debug)]
pub struct Commands {
    client_id: String,
    grants: Grants,
    calls: Arc<Calls>,
    state: Mutex<DoorState>,
}

#[derive(Debug, Default)]
struct DoorState {
    requests: VecDeque<Submitted>,
    /// Requests that the session has and that nobody waits for any more.
    given_up: Vec<u64>,
    /// How many requests there ever were.
    count: u64,
    closed: bool,
    session: Option<Waker>,
}

impl Commands {
    /// `client_id` is how the broker knows the session that carries the requests.
    pub fn new(client_id: String, grants: Grants, calls: Arc<Calls>) -> Arc<Self> {
        Arc::new(Commands { client_id, grants, calls, state: Mutex::default() })
    }

    pub fn client_id(&self) -> &str {
        &self.client_id
    }

    /// Sends a request off, if policy grants its topics.
    pub fn begin(self: &Arc<Self>, permit: Permit, request: Request) -> Result<Call, CommandError> {
        let filter = self.granted(&request).inspect_err(|_| {
            self.calls.refused.fetch_add(1, Ordering::Relaxed);
        })?;
        let slot = Arc::<Slot>::default();
        let answering = Answering(slot.clone());
        let (number, session) = {
            let mut state = self.state.lock().expect("no panic under this lock");
            if state.closed {
                return Err(cancelled());
            }
            state.count += 1;
            let number = state.count;
            state.requests.push_back(Submitted { number, request, filter, answering });
            (number, state.session.take())
        };
        self.calls.asked.fetch_add(1, Ordering::Relaxed);
        if let Some(session) = session {
            session.wake();
        }
        Ok(Call { commands: self.clone(), number, slot, _permit: permit })
    }

    /// What to subscribe to for the answer.
    fn granted(&self, request: &Request) -> Result<TopicFilter, CommandError> {
        let refused = |what: &str, topic: &str| {
            let text = format!("policy does not let the tenant {what} `{topic}`");
            Err(CommandError::new(CommandErrorKind::ConfigurationInvalid, text))
        };
        let topic = request.topic.name.as_str();
        if !self.grants.write.iter().any(|grant| grant.matches(topic)) {
            return refused("write to", topic);
        }
        let Topic { name, filter, is_own } = &request.response;
        if *is_own || self.grants.read.iter().any(|grant| grant.covers(filter)) {
            return Ok(filter.clone());
        }
        // Of the topics that the pattern allows perhaps this one alone is granted.
        match TopicFilter::parse(name) {
            Ok(one) if self.grants.read.iter().any(|grant| grant.covers(&one)) => Ok(one),
            _ => refused("read", name),
        }
    }

    /// The session's side: the next request; `None` when the door is closed and empty.
    pub fn poll_next(&self, ctx: &mut Context<'_>) -> Poll<Option<Submitted>> {
        let mut state = self.state.lock().expect("no panic under this lock");
        if let Some(submitted) = state.requests.pop_front() {
            return Poll::Ready(Some(submitted));
        }
        if state.closed {
            return Poll::Ready(None);
        }
        if !state.session.as_ref().is_some_and(|session| session.will_wake(ctx.waker())) {
            state.session = Some(ctx.waker().clone());
        }
        Poll::Pending
    }

    /// Requests that nobody waits for any more, since the last call.
    pub fn take_given_up(&self) -> Vec<u64> {
        std::mem::take(&mut self.state.lock().expect("no panic under this lock").given_up)
    }

    /// Requests that the session has not taken.
    pub fn waiting(&self) -> usize {
        self.state.lock().expect("no panic under this lock").requests.len()
    }

    /// No answer comes any more.
    pub fn close(&self) {
        let (requests, session) = {
            let mut state = self.state.lock().expect("no panic under this lock");
            state.closed = true;
            (std::mem::take(&mut state.requests), state.session.take())
        };
        drop(requests);
        if let Some(session) = session {
            session.wake();
        }
    }
}

/// An open request: ready with its answer. Dropped, it is given up.
#[derive(Debug)]
#[must_use = "dropped, the request is given up"]
pub struct Call {
    commands: Arc<Commands>,
    number: u64,
    slot: Arc<Slot>,
    _permit: Permit,
}

impl Future for Call {
    type Output = Result<Answer, CommandError>;

    fn poll(self: Pin<&mut Self>, ctx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.slot.0.lock().expect("no panic under this lock");
        match state.result.take() {
            Some(result) => {
                self.commands.calls.count(&result);
                Poll::Ready(result)
            }
            None => {
                state.guest = Some(ctx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let (request, session) = {
            let mut state = self.commands.state.lock().expect("no panic under this lock");
            match state.requests.iter().position(|it| it.number == self.number) {
                Some(place) => (state.requests.remove(place), None),
                None if Arc::strong_count(&self.slot) > 1 => {
                    state.given_up.push(self.number);
                    (None, state.session.take())
                }
                None => (None, None),
            }
        };
        // Outside of the lock: it tells the slot.
        drop(request);
        if let Some(session) = session {
            session.wake();
        }
    }
}

#[cfg(test)]
mod tests;
