//! `Replies`: requests that wait for what their dataflow writes. The first message for one
//! is its reply, and only its own tenant can give it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
};

use hyper::{
    Response,
    body::Bytes,
    header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue},
};

use super::answer::Answer;
use crate::batch::{Batch, Entry, Properties};

/// What a request is answered with.
#[derive(Debug)]
pub(super) struct Reply {
    headers: HeaderMap,
    body: Bytes,
}

impl Reply {
    /// A message as an answer, and how many of its properties cannot be headers.
    pub(super) fn of(entry: &Entry, batch: &Batch) -> (Self, u64) {
        let arena = &batch.arena[..];
        let mut removed = 0;
        let mut headers = HeaderMap::new();
        if let Some(content_type) = entry.content_type.get(arena) {
            match HeaderValue::from_bytes(content_type) {
                Ok(value) => _ = headers.insert(CONTENT_TYPE, value),
                Err(_) => removed += 1,
            }
        }
        for (key, value) in Properties::of(entry.user_properties(arena)).filter(|(key, _)| is_extension(key))
        {
            match (HeaderName::from_bytes(key), HeaderValue::from_bytes(value)) {
                (Ok(name), Ok(value)) => _ = headers.append(name, value),
                _ => removed += 1,
            }
        }
        let body = Bytes::copy_from_slice(entry.payload.bytes(arena));
        (Reply { headers, body }, removed)
    }

    pub(super) fn response(self) -> Response<Answer> {
        let mut response = Response::new(Answer::Whole(Some(self.body)));
        *response.headers_mut() = self.headers;
        response
    }
}

/// Whether a header or a property is an extension: these pass through.
pub(super) fn is_extension(name: &[u8]) -> bool {
    name.get(..2).is_some_and(|start| start.eq_ignore_ascii_case(b"x-"))
}

#[derive(Debug, Default)]
pub(super) struct Replies(Mutex<HashMap<String, Waiting>>);

#[derive(Debug)]
struct Waiting {
    tenant: String,
    reply: Option<Reply>,
}

/// One request that waits, until it is dropped.
#[derive(Debug)]
pub(super) struct Awaited {
    replies: Arc<Replies>,
    pub id: String,
}

impl Replies {
    pub(super) fn expect(self: &Arc<Self>, tenant: &str) -> Awaited {
        // Not to be guessed, and of no other run.
        let id = format!("{:032x}", rand::random::<u128>());
        self.lock().insert(id.clone(), Waiting { tenant: tenant.to_owned(), reply: None });
        Awaited { replies: self.clone(), id }
    }

    /// The first for a request that this tenant was sent, and that waits, is kept.
    pub(super) fn give(&self, id: &[u8], tenant: &str, reply: impl FnOnce() -> Reply) {
        let Ok(id) = std::str::from_utf8(id) else { return };
        if let Some(waiting) = self.lock().get_mut(id)
            && waiting.tenant == tenant
        {
            waiting.reply.get_or_insert_with(reply);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Waiting>> {
        self.0.lock().expect("no panic under this lock")
    }
}

impl Awaited {
    pub(super) fn take(&self) -> Option<Reply> {
        self.replies.lock().get_mut(&self.id).and_then(|waiting| waiting.reply.take())
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        self.replies.lock().remove(&self.id);
    }
}

#[cfg(test)]
mod tests;
