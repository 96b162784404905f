//! Server-sent events: what is written to a tenant's topics, for whoever listens. A
//! listener holds few events, and loses the oldest if it is slow; nothing waits for it.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, Waker},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hyper::body::Bytes;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::{server::Shared, share::Place};
use crate::topic::{TopicFilter, is_text};

/// What waits for one listener. One event may pass it.
const HELD_BYTES_MAX: usize = 128 << 10;
const HELD_MAX: usize = 256;
/// A comment now and then shows that both sides are there.
const BEAT_EVERY: Duration = Duration::from_secs(15);
const BEAT: &[u8] = b":\n\n";

/// One event as it is sent.
pub(super) fn event(id: u64, topic: &str, payload: &[u8]) -> Bytes {
    let mut text = format!("id: {id}\n");
    let payload = match std::str::from_utf8(payload) {
        Ok(payload) => {
            text += "event: message\n";
            payload.to_owned()
        }
        Err(_) => {
            text += "event: binary\n";
            STANDARD.encode(payload)
        }
    };
    // Browsers pass over it; others can tell what a filter matched.
    if is_text(topic.as_bytes()) {
        text += &format!("topic: {topic}\n");
    }
    // A line ends with any of these, and the listener joins lines with `\n`.
    for line in payload.replace("\r\n", "\n").split(['\n', '\r']) {
        text += "data: ";
        text += line;
        text.push('\n');
    }
    text.push('\n');
    Bytes::from(text)
}

/// What waits for one who listens.
#[derive(Debug)]
pub(super) struct Listener {
    pub filter: TopicFilter,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    events: VecDeque<Bytes>,
    bytes: usize,
    /// Since it was last told.
    lost: u64,
    ended: bool,
    waker: Option<Waker>,
}

impl Listener {
    pub(super) fn new(filter: TopicFilter) -> Arc<Self> {
        Arc::new(Listener { filter, held: Mutex::default() })
    }

    /// Gives how many older ones are lost by it.
    pub(super) fn push(&self, event: Bytes) -> u64 {
        let (lost, waker) = {
            let mut held = self.lock();
            let before = held.lost;
            while held.events.len() >= HELD_MAX || held.bytes + event.len() > HELD_BYTES_MAX {
                let Some(oldest) = held.events.pop_front() else { break };
                held.bytes -= oldest.len();
                held.lost += 1;
            }
            held.bytes += event.len();
            held.events.push_back(event);
            (held.lost - before, held.waker.take())
        };
        waker.into_iter().for_each(Waker::wake);
        lost
    }

    /// Nothing more comes.
    pub(super) fn end(&self) {
        let waker = {
            let mut held = self.lock();
            held.ended = true;
            held.waker.take()
        };
        waker.into_iter().for_each(Waker::wake);
    }

    /// Ready with what it is to be given; `None` at the end.
    pub(super) fn poll_next(&self, ctx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let mut held = self.lock();
        if held.lost > 0 {
            let lost = std::mem::take(&mut held.lost);
            return Poll::Ready(Some(Bytes::from(format!("event: lost\ndata: {lost}\n\n"))));
        }
        if let Some(event) = held.events.pop_front() {
            held.bytes -= event.len();
            return Poll::Ready(Some(event));
        }
        if held.ended {
            return Poll::Ready(None);
        }
        held.waker = Some(ctx.waker().clone());
        Poll::Pending
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().expect("no panic under this lock")
    }
}

/// The body of an answer to one who listens; leaves when it is dropped.
pub(in crate::connector) struct Events {
    listener: Arc<Listener>,
    tenant: String,
    shared: Arc<Shared>,
    beat: Interval,
    _place: Place,
}

impl Events {
    pub(super) fn new(listener: Arc<Listener>, tenant: String, shared: Arc<Shared>, place: Place) -> Self {
        let mut beat = interval(BEAT_EVERY);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Events { listener, tenant, shared, beat, _place: place }
    }

    pub(super) fn poll_next(&mut self, ctx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        match self.listener.poll_next(ctx) {
            Poll::Pending => self.beat.poll_tick(ctx).map(|_| Some(Bytes::from_static(BEAT))),
            ready => ready,
        }
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.shared.directory.leave_listener(&self.tenant, &self.listener);
    }
}

#[cfg(test)]
mod tests;
