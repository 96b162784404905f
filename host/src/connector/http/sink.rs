//! `HttpSink`: what a tenant writes to an endpoint that listens. It is the reply to the
//! request that it came from, if one waits, and an event for whoever listens. Nothing waits
//! for either.

use std::{future::poll_fn, sync::Arc};

use super::{REQUEST, events, reply::Reply, server::Server};
use crate::{
    batch::Properties,
    connector::{route::Route, status::Status},
    write::{Rejected, SinkQueue, Write},
};

/// See the module.
pub struct HttpSink {
    server: Arc<Server>,
    tenant: String,
    queue: Arc<SinkQueue>,
    status: Arc<Status>,
    route: Route,
}

impl HttpSink {
    /// From now on there is something to listen to.
    pub fn new(server: Arc<Server>, tenant: String, queue: Arc<SinkQueue>) -> Self {
        server.shared.directory.enter_sink(&tenant);
        HttpSink { server, tenant, queue, status: Status::new(), route: Route::default() }
    }

    pub fn status(&self) -> &Arc<Status> {
        &self.status
    }

    /// Takes writes until the queue is closed and empty.
    pub async fn run(mut self) {
        self.server.shared.join(&self.status);
        while let Some(write) = poll_fn(|ctx| self.queue.poll_next(ctx)).await {
            self.take(write);
        }
        self.server.shared.directory.leave_sink(&self.tenant);
        self.status.set_closed();
    }

    fn take(&mut self, write: Write) {
        let mut rejected = Vec::new();
        let (shared, tenant) = (&self.server.shared, &self.tenant);
        for (index, entry) in write.batch.entries.iter().enumerate() {
            let arena = &write.batch.arena[..];
            let topic = match self.route.topic(&write.destination, entry.topic.bytes(arena)) {
                Ok(topic) => String::from_utf8_lossy(topic),
                Err(reason) => {
                    self.status.rejected.add(1);
                    rejected.push(Rejected { index: index as u32, reason });
                    continue;
                }
            };
            let request =
                Properties::of(entry.user_properties(arena)).find(|(key, _)| *key == REQUEST.as_bytes());
            if let Some((_, id)) = request {
                shared.replies.give(id, tenant, || {
                    let (reply, removed) = Reply::of(entry, &write.batch);
                    self.status.headers_removed.add(removed);
                    reply
                });
            }
            let payload = entry.payload.bytes(arena);
            let lost = shared
                .directory
                .publish(tenant, &topic, || events::event(shared.next_event(), &topic, payload));
            shared.counters.events_lost.add(lost);
            self.status.messages_out.add(1);
            self.status.bytes_out.add(payload.len() as u64);
        }
        write.confirm(rejected);
    }
}
