//! `HttpSource`: requests for one source become deliveries, each of one message or several,
//! and each is answered as soon as its delivery is settled, whatever came before it. It takes them
//! from a bounded channel, since the server is on another thread.

use std::{
    collections::HashMap,
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use hyper::body::Bytes;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, Sleep, sleep_until},
};

use super::{REQUEST, directory::Route, server::Server};
use crate::{
    batch::{Batch, BatchBuilder},
    connector::{status::Status, stop::Stop},
    queue::SourceDoor,
    settle::Acked,
    topic::TopicFilter,
};

/// So long a request waits for credit before its client is told to come again.
pub(in crate::connector) const CREDIT_WITHIN: Duration = Duration::from_secs(1);

/// What a source takes, and from whom.
pub struct HttpOptions {
    pub tenant: String,
    /// `tenant/dataflow/source`.
    pub name: String,
    pub filters: Vec<TopicFilter>,
    /// Whether what the dataflow writes may be the reply to a request.
    pub replies: bool,
    /// The host's node name, for messages without a timestamp of their own.
    pub node: String,
    pub payload_bytes_max: usize,
    pub stop: Stop,
}

/// One request on its way to a source.
#[derive(Debug)]
pub(in crate::connector) struct Post {
    pub topic: String,
    pub content_type: Option<String>,
    pub properties: Vec<(String, String)>,
    /// Of a message each: no more than one delivery may hold.
    pub bodies: Vec<Bytes>,
    /// Under which it waits for a reply.
    pub request: Option<String>,
    /// When it has waited long enough for credit.
    pub until: Instant,
    pub outcome: oneshot::Sender<Outcome>,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::connector) enum Outcome {
    /// And so many of its messages are dead letters.
    Settled { given_up: u64 },
    /// There was no credit for it.
    NoRoom,
    /// Its dataflow is gone, and may have done it or not.
    Gone,
}

impl Post {
    fn batch(&self, node: &str) -> Batch {
        let (topic, content_type) = (self.topic.as_bytes(), self.content_type.as_deref());
        let each = topic.len() + content_type.map_or(0, str::len);
        let bytes = node.len() + self.bodies.len() * each + self.body_bytes();
        let mut builder = BatchBuilder::with_capacity(node, self.bodies.len(), bytes);
        for body in &self.bodies {
            let properties = self.properties.iter().map(|(key, value)| (key.as_bytes(), value.as_bytes()));
            let request = self.request.iter().map(|id| (REQUEST.as_bytes(), id.as_bytes()));
            builder.push(topic, content_type, body, properties.chain(request));
        }
        builder.finish()
    }

    fn body_bytes(&self) -> usize {
        self.bodies.iter().map(Bytes::len).sum()
    }

    fn answer(self, outcome: Outcome) {
        // Its client may have left.
        let _ = self.outcome.send(outcome);
    }
}

/// See the module.
pub struct HttpSource {
    server: Arc<Server>,
    tenant: String,
    name: String,
    stop: Stop,
    taking: Taking,
}

impl HttpSource {
    /// From now on its requests are kept for it.
    pub fn new(server: Arc<Server>, options: HttpOptions, door: SourceDoor) -> Self {
        let HttpOptions { tenant, name, filters, replies, node, payload_bytes_max, stop } = options;
        let (tx, posts) = mpsc::channel(server.shared.settings.requests_max);
        let status = Status::new();
        let route = Route { payload_bytes_max, replies, status: status.clone(), posts: tx };
        server.shared.directory.enter_source(&tenant, &name, filters, route);
        HttpSource {
            server,
            tenant,
            name,
            stop,
            taking: Taking::new(posts, door.in_any_order(), node, status),
        }
    }

    pub fn status(&self) -> &Arc<Status> {
        &self.taking.status
    }

    /// Delivers until it is stopped and all is answered, or its dataflow is gone.
    pub async fn run(self) {
        let HttpSource { server, tenant, name, stop, mut taking } = self;
        let directory = &server.shared.directory;
        server.shared.join(&taking.status);
        poll_fn(|ctx| {
            if !taking.is_stopping && stop.poll_stopped(ctx).is_ready() {
                directory.leave_source(&tenant, &name);
                taking.stop();
            }
            taking.poll(ctx)
        })
        .await;
        directory.leave_source(&tenant, &name);
        taking.status.set_closed();
    }
}

/// The owner of a source's door.
struct Taking {
    posts: mpsc::Receiver<Post>,
    door: SourceDoor,
    node: String,
    status: Arc<Status>,
    /// It waits for credit, and all others wait behind it.
    held: Option<(Post, Batch)>,
    /// Ends when it has waited long enough.
    patience: Option<Pin<Box<Sleep>>>,
    /// By the numbers of their deliveries.
    unanswered: HashMap<u64, oneshot::Sender<Outcome>>,
    /// So many deliveries are settled.
    settled: u64,
    /// Their numbers, on the way to whoever waits for them.
    acked: Vec<Acked>,
    is_stopping: bool,
}

impl Taking {
    fn new(posts: mpsc::Receiver<Post>, door: SourceDoor, node: String, status: Arc<Status>) -> Self {
        Taking {
            posts,
            door,
            node,
            status,
            held: None,
            patience: None,
            unanswered: HashMap::new(),
            settled: 0,
            acked: Vec::new(),
            is_stopping: false,
        }
    }

    /// Takes nothing more; what is not delivered yet is not taken.
    fn stop(&mut self) {
        self.is_stopping = true;
        self.posts.close();
        self.turn_away();
    }

    /// Whoever has not been delivered is told to come again.
    fn turn_away(&mut self) {
        if let Some((post, _)) = self.held.take() {
            post.answer(Outcome::Gone);
        }
        while let Ok(post) = self.posts.try_recv() {
            post.answer(Outcome::Gone);
        }
    }

    /// Does all that can be done now; ready when nothing is left to answer, or nobody is
    /// left to settle it.
    fn poll(&mut self, ctx: &mut Context<'_>) -> Poll<()> {
        self.answer_settled(ctx);
        if self.door.is_abandoned() {
            self.posts.close();
            self.turn_away();
            self.unanswered.drain().for_each(|(_, outcome)| _ = outcome.send(Outcome::Gone));
            return Poll::Ready(());
        }
        if self.is_stopping {
            return if self.door.unsettled() == 0 { Poll::Ready(()) } else { Poll::Pending };
        }
        self.deliver(ctx);
        Poll::Pending
    }

    fn answer_settled(&mut self, ctx: &mut Context<'_>) {
        while let Poll::Ready(settled) = self.door.poll_settled(self.settled, ctx) {
            if settled == self.settled {
                break;
            }
            self.settled = settled;
        }
        self.door.take_settled(&mut self.acked);
        for Acked { number, given_up } in self.acked.drain(..) {
            if let Some(outcome) = self.unanswered.remove(&number) {
                let _ = outcome.send(Outcome::Settled { given_up });
            }
        }
    }

    fn deliver(&mut self, ctx: &mut Context<'_>) {
        loop {
            let (post, batch) = match self.held.take() {
                Some(held) => held,
                None => {
                    let Poll::Ready(Some(post)) = self.posts.poll_recv(ctx) else { return };
                    let batch = post.batch(&self.node);
                    (post, batch)
                }
            };
            match self.door.poll_credit(batch.bytes_held(), ctx) {
                Poll::Ready(credit) => {
                    self.patience = None;
                    self.status.messages_in.add(batch.len() as u64);
                    self.status.bytes_in.add(post.body_bytes() as u64);
                    let number = self.door.deliver(credit, batch);
                    self.unanswered.insert(number, post.outcome);
                }
                Poll::Pending => {
                    let patience = self.patience.get_or_insert_with(|| Box::pin(sleep_until(post.until)));
                    if patience.as_mut().poll(ctx).is_pending() {
                        self.held = Some((post, batch));
                        return;
                    }
                    self.patience = None;
                    post.answer(Outcome::NoRoom);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
