//! `Status`: what can be seen of one connection from outside. Written by the
//! connector once a turn, read by the control side.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering},
};

use tokio::sync::Notify;

use crate::clock::Instant;

/// How a connection stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectionState {
    /// Its first attempt is under way.
    Connecting,
    Connected,
    /// It was lost or never came about, and is tried again with backoff.
    Degraded {
        /// When it was first seen so.
        since: Instant,
        /// The last error with all its sources.
        error: String,
    },
    /// It ended as it was told to.
    Closed,
}

impl std::fmt::Display for ConnectionState {
    /// As `status` shows it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ConnectionState::Connecting => f.write_str("connecting"),
            ConnectionState::Connected => f.write_str("connected"),
            ConnectionState::Degraded { error, .. } => write!(f, "degraded: {error}"),
            ConnectionState::Closed => f.write_str("closed"),
        }
    }
}

const NO_LAG: u64 = u64::MAX;

/// State and counters of one connection.
#[derive(Debug)]
pub struct Status {
    state: Mutex<ConnectionState>,
    /// Messages that wait at the far side; [`NO_LAG`] if it does not say.
    lag: AtomicU64,
    /// Whoever waits for the end of the first attempt.
    tried: Notify,
    pub messages_in: Counter,
    pub messages_out: Counter,
    pub bytes_in: Counter,
    pub bytes_out: Counter,
    /// Messages that came in marked as sent before, or that were sent again.
    pub redelivered: Counter,
    /// Messages without a duty that were let go while the source was paused.
    pub dropped: Counter,
    /// Messages outside every filter, left over from an earlier subscription.
    pub unwanted: Counter,
    /// Messages over the policy's `payload`.
    pub oversize: Counter,
    /// Headers that no user property can carry.
    pub headers_removed: Counter,
    /// Messages whose time was over before they were sent.
    pub expired: Counter,
    /// Messages that the far side, or what policy grants, refused for good.
    pub rejected: Counter,
    /// Items of requests that the far side took but for these, which it does not name.
    pub items_refused: Counter,
    /// Connections that were lost or failed.
    pub failures: Counter,
}

impl Status {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Status {
            state: Mutex::new(ConnectionState::Connecting),
            lag: AtomicU64::new(NO_LAG),
            tried: Notify::new(),
            messages_in: Counter::default(),
            messages_out: Counter::default(),
            bytes_in: Counter::default(),
            bytes_out: Counter::default(),
            redelivered: Counter::default(),
            dropped: Counter::default(),
            unwanted: Counter::default(),
            oversize: Counter::default(),
            headers_removed: Counter::default(),
            expired: Counter::default(),
            rejected: Counter::default(),
            items_refused: Counter::default(),
            failures: Counter::default(),
        })
    }

    /// Every counter with its name.
    pub fn values(&self) -> Vec<(&'static str, u64)> {
        // Naming every field makes a forgotten one a build error.
        let Status {
            state: _,
            lag: _,
            tried: _,
            messages_in,
            messages_out,
            bytes_in,
            bytes_out,
            redelivered,
            dropped,
            unwanted,
            oversize,
            headers_removed,
            expired,
            rejected,
            items_refused,
            failures,
        } = self;
        [
            ("messages_in", messages_in),
            ("messages_out", messages_out),
            ("bytes_in", bytes_in),
            ("bytes_out", bytes_out),
            ("redelivered", redelivered),
            ("dropped", dropped),
            ("unwanted", unwanted),
            ("oversize", oversize),
            ("headers_removed", headers_removed),
            ("expired", expired),
            ("rejected", rejected),
            ("items_refused", items_refused),
            ("failures", failures),
        ]
        .map(|(name, counter)| (name, counter.get()))
        .into()
    }

    pub fn state(&self) -> ConnectionState {
        self.state.lock().expect("no panic under this lock").clone()
    }

    /// Whether it is wanted and not there.
    pub fn is_missing(&self) -> bool {
        matches!(self.state(), ConnectionState::Connecting | ConnectionState::Degraded { .. })
    }

    /// Until the first attempt has had its answer, whichever that was.
    pub async fn tried(&self) {
        let mut ended = std::pin::pin!(self.tried.notified());
        // Before the look, or an attempt that ends after it would not be noticed.
        ended.as_mut().enable();
        if self.state() == ConnectionState::Connecting {
            ended.await;
        }
    }

    /// Messages that wait at the far side, where it says so, as it last did.
    pub fn lag(&self) -> Option<u64> {
        Some(self.lag.load(Ordering::Relaxed)).filter(|lag| *lag != NO_LAG)
    }

    pub(super) fn set_lag(&self, messages: u64) {
        self.lag.store(messages, Ordering::Relaxed);
    }

    pub(super) fn set_connected(&self) {
        self.set(|_| ConnectionState::Connected);
    }

    pub(super) fn set_closed(&self) {
        self.set(|_| ConnectionState::Closed);
    }

    /// Keeps the instant from which it has been degraded.
    pub(super) fn set_degraded(&self, now: Instant, error: String) {
        self.failures.add(1);
        self.set(|state| match *state {
            ConnectionState::Degraded { since, .. } => ConnectionState::Degraded { since, error },
            _ => ConnectionState::Degraded { since: now, error },
        });
    }

    fn set(&self, next: impl FnOnce(&ConnectionState) -> ConnectionState) {
        let mut state = self.state.lock().expect("no panic under this lock");
        *state = next(&state);
        drop(state);
        self.tried.notify_waiters();
    }
}

/// A count that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }
}
