//! `Webhook`: each message is a POST to one URL, several at once, those of one topic one
//! after the other. What the far side may take later is sent again until it does; what it
//! refuses for good is rejected.

mod backlog;
mod call;
mod retry;

use std::{future::poll_fn, sync::Arc};

use tokio::task::JoinSet;

use self::{
    backlog::Backlog,
    call::{Caller, Message},
};
use crate::{
    connector::{far_side, route::Route, status::Status},
    deploy::chain,
    resource::endpoint::WebhookSettings,
    write::{Rejected, SinkQueue, Write},
};

/// What is taken out of the queue and not confirmed. One write may pass it.
const HELD_BYTES_MAX: usize = 1 << 20;

/// See the module.
pub struct Webhook {
    settings: WebhookSettings,
    queue: Arc<SinkQueue>,
    status: Arc<Status>,
    route: Route,
    /// Of this run, so that no message has a key of another.
    run: String,
}

impl Webhook {
    pub fn new(settings: WebhookSettings, queue: Arc<SinkQueue>) -> Self {
        let run = format!("{:016x}", rand::random::<u64>());
        Webhook { settings, queue, status: Status::new(), route: Route::default(), run }
    }

    pub fn status(&self) -> &Arc<Status> {
        &self.status
    }

    /// Sends until its queue is closed and empty and all is answered.
    pub async fn run(mut self) {
        let Some(caller) = self.caller().await else { return self.status.set_closed() };
        far_side::reach("the webhook", call::address(&self.settings.url), &self.status).await;
        let caller = Arc::new(caller);
        let mut backlog = Backlog::default();
        let mut under_way = JoinSet::new();
        let mut is_open = true;
        while is_open || !backlog.is_empty() {
            while under_way.len() < self.settings.inflight_max
                && let Some((job, message)) = backlog.next()
            {
                let caller = caller.clone();
                under_way.spawn(async move { (job, caller.deliver(message).await) });
            }
            let has_room = is_open && backlog.bytes() < HELD_BYTES_MAX;
            tokio::select! {
                write = poll_fn(|ctx| self.queue.poll_next(ctx)), if has_room => match write {
                    Some(write) => self.take(write, &mut backlog),
                    None => is_open = false,
                },
                Some(done) = under_way.join_next() => match done {
                    Ok((job, done)) => backlog.done(job, done.err()),
                    Err(error) => std::panic::resume_unwind(error.into_panic()),
                },
            }
        }
        self.status.set_closed();
    }

    /// `None` if the queue is closed before its files can be read.
    async fn caller(&self) -> Option<Caller> {
        let make = || {
            let (settings, status) = (self.settings.clone(), self.status.clone());
            let made = tokio::task::spawn_blocking(move || Caller::new(&settings, status));
            async { made.await.expect("reading files does not panic").map_err(|error| chain(&error)) }
        };
        far_side::made(&self.queue, &self.status, make).await
    }

    fn take(&mut self, write: Write, backlog: &mut Backlog) {
        let (mut messages, mut rejected) = (Vec::new(), Vec::new());
        for (entry, index) in write.batch.entries.iter().zip(0..) {
            let topic = self.route.topic(&write.destination, entry.topic.bytes(&write.batch.arena));
            let key = format!("{}-{}-{index}", self.run, backlog.number());
            match topic.and_then(|topic| Message::of(entry, &write.batch, topic, &key)) {
                Ok((message, removed)) => {
                    self.status.headers_removed.add(removed);
                    messages.push((index, message));
                }
                Err(reason) => {
                    self.status.rejected.add(1);
                    rejected.push(Rejected { index, reason });
                }
            }
        }
        backlog.add(write, messages, rejected);
    }
}
