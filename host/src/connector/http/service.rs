//! What the server does with a request: POST is a message for whoever takes its topic, and
//! is answered once that is settled; GET listens.

use std::{sync::Arc, time::Duration};

use bytes::BytesMut;
use http_body_util::BodyExt as _;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Body as _, Bytes, Incoming},
    header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue},
};
use tokio::{
    sync::{mpsc::error::TrySendError, oneshot},
    time::{Instant, timeout, timeout_at},
};

use super::{
    answer::{Answer, Refusal},
    directory::Route,
    events::Events,
    reply::is_extension,
    request_target::Target,
    server::Shared,
    source::{CREDIT_WITHIN, Outcome, Post},
    tokens::Right,
};
use crate::{connector::otlp, resource::endpoint::Speaks, topic::is_text};

pub(super) async fn answer(shared: &Arc<Shared>, request: Request<Incoming>) -> Response<Answer> {
    if let Speaks::Otlp(form) = shared.settings.speaks {
        return otlp::answer(shared, form, request).await;
    }
    let answered = match *request.method() {
        Method::POST => take(shared, request).await,
        Method::GET => listen(shared, &request),
        _ => Err(Refusal::NoSuchMethod),
    };
    let response = answered.unwrap_or_else(Refusal::response);
    shared.counters.answered(response.status());
    response
}

fn check_right(shared: &Shared, headers: &HeaderMap, tenant: &str) -> Result<(), Refusal> {
    let authorization = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
    match shared.right(authorization, tenant) {
        Right::Granted => Ok(()),
        Right::Unknown => Err(Refusal::Unknown),
        Right::Others => Err(Refusal::Others),
    }
}

fn listen(shared: &Arc<Shared>, request: &Request<Incoming>) -> Result<Response<Answer>, Refusal> {
    let Target { tenant, topic } = Target::filter(request.uri().path()).ok_or(Refusal::NoSuchTopic)?;
    check_right(shared, request.headers(), &tenant)?;
    let place = shared.listeners.take(&tenant, shared.directory.tenants()).ok_or(Refusal::TooMany)?;
    let listener = shared.directory.enter_listener(&tenant, topic).ok_or_else(|| nobody(shared))?;
    let events = Events::new(listener, tenant, shared.clone(), place);
    let mut response = Response::new(Answer::Events(events));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// Nobody is there for a topic; while dataflows come and go, somebody may be soon.
pub(in crate::connector) fn nobody(shared: &Shared) -> Refusal {
    if shared.is_changing() { Refusal::Gone } else { Refusal::NoSuchTopic }
}

async fn take(shared: &Arc<Shared>, request: Request<Incoming>) -> Result<Response<Answer>, Refusal> {
    let Target { tenant, topic } = Target::topic(request.uri().path()).ok_or(Refusal::NoSuchTopic)?;
    check_right(shared, request.headers(), &tenant)?;
    let routes = shared.directory.routes(&tenant, &topic);
    if routes.is_empty() {
        return Err(nobody(shared));
    }
    if request.headers().get(CONTENT_ENCODING).is_some_and(|it| it != "identity") {
        return Err(Refusal::Encoded);
    }
    let _place = shared.requests.take(&tenant, shared.directory.tenants()).ok_or(Refusal::TooMany)?;
    let (head, body) = request.into_parts();
    let allowed = routes.iter().map(|route| route.payload_bytes_max).min().unwrap_or(0);
    let body = match read_body(shared, body, allowed.min(shared.settings.body_bytes_max)).await {
        Ok(body) => body,
        Err(refusal) => {
            if refusal == Refusal::TooLarge {
                routes.iter().for_each(|route| route.status.oversize.add(1));
            }
            return Err(refusal);
        }
    };
    hand_over(shared, &tenant, topic, &routes, &head.headers, body).await
}

/// A body of so many bytes at most, each part of it in time.
pub(in crate::connector) async fn read_body(
    shared: &Shared,
    mut body: Incoming,
    bytes_max: usize,
) -> Result<Bytes, Refusal> {
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(Refusal::TooLarge);
    }
    let (patience, until) = (shared.settings.header_timeout, Instant::now() + shared.settings.reply_within);
    let mut bytes = BytesMut::new();
    loop {
        let frame = timeout_at(until.min(Instant::now() + patience), body.frame());
        let Some(frame) = frame.await.map_err(|_| Refusal::Slow)? else { return Ok(bytes.freeze()) };
        // Trailers say nothing to anybody.
        let Ok(data) = frame.map_err(|_| Refusal::Broken)?.into_data() else { continue };
        if bytes.len() + data.len() > bytes_max {
            return Err(Refusal::TooLarge);
        }
        if bytes.is_empty() && body.is_end_stream() {
            return Ok(data);
        }
        bytes.extend_from_slice(&data);
    }
}

/// Sends the message to all who take it, and waits for what becomes of it.
async fn hand_over(
    shared: &Arc<Shared>,
    tenant: &str,
    topic: String,
    routes: &[Route],
    headers: &HeaderMap,
    body: Bytes,
) -> Result<Response<Answer>, Refusal> {
    let replying = routes.iter().any(|route| route.replies);
    let awaited = replying.then(|| shared.replies.expect(tenant));
    let (content_type, properties, removed) = said(headers);
    let now = Instant::now();
    let mut outcomes = Vec::with_capacity(routes.len());
    for route in routes {
        let (outcome, told) = oneshot::channel();
        let post = Post {
            topic: topic.clone(),
            content_type: content_type.clone(),
            properties: properties.clone(),
            bodies: vec![body.clone()],
            request: awaited.as_ref().filter(|_| route.replies).map(|it| it.id.clone()),
            until: now + CREDIT_WITHIN,
            outcome,
        };
        route.posts.try_send(post).map_err(|error| match error {
            TrySendError::Full(_) => Refusal::TooMany,
            TrySendError::Closed(_) => Refusal::Gone,
        })?;
        route.status.headers_removed.add(removed);
        outcomes.push(told);
    }
    let all = async {
        let mut worst = Ok(());
        for told in outcomes {
            match told.await {
                Ok(Outcome::Settled { .. }) => {}
                Ok(Outcome::NoRoom) => worst = worst.and(Err(Refusal::TooMany)),
                Ok(Outcome::Gone) | Err(_) => worst = Err(Refusal::Gone),
            }
        }
        worst
    };
    let within: Duration = shared.settings.reply_within;
    timeout(within, all).await.map_err(|_| Refusal::Late)??;
    let Some(awaited) = awaited else { return Ok(Answer::empty(StatusCode::ACCEPTED)) };
    let reply = awaited.take().map(|reply| reply.response());
    Ok(reply.unwrap_or_else(|| Answer::empty(StatusCode::NO_CONTENT)))
}

type Properties = Vec<(String, String)>;

/// What a request's headers say to a dataflow, and how many of them are no text.
fn said(headers: &HeaderMap) -> (Option<String>, Properties, u64) {
    let mut removed = 0;
    let mut text = |value: &HeaderValue| {
        let text = std::str::from_utf8(value.as_bytes()).ok().filter(|text| is_text(text.as_bytes()));
        removed += u64::from(text.is_none());
        text.map(str::to_owned)
    };
    let content_type = headers.get(CONTENT_TYPE).and_then(&mut text);
    let extensions = headers.iter().filter(|(name, _)| is_extension(name.as_str().as_bytes()));
    let properties =
        extensions.filter_map(|(name, value)| Some((name.as_str().to_owned(), text(value)?))).collect();
    (content_type, properties, removed)
}
