//! What the server does with a request of OTLP: its tenant is told by its token or a header,
//! its items become messages for whoever takes their signal, and it is answered once these
//! are settled. However much a request holds, little of it is under way at once.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue},
};
use tokio::{
    sync::{mpsc::error::TrySendError, oneshot},
    time::{Instant, timeout_at},
};

use super::{
    answer::{self, Refusal, Refused, Speech, TENANT},
    form::{JSON, PROTOBUF, Parsed, Signal},
    grpc::{self, HEAD_BYTES},
    gzip, json,
};
use crate::{
    batch::Batch,
    connector::http::{
        answer::{Answer, Refusal as HttpRefusal},
        directory::Route,
        server::Shared,
        service::{nobody, read_body},
        source::{CREDIT_WITHIN, Outcome, Post},
        tokens::Right,
    },
    resource::endpoint::{Encoding, OtlpForm, Unit},
};

const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
/// Posts of one request that are not settled: what of it is held besides itself.
const POSTS_MAX: usize = 4;
/// All items of a request, each with its resource and scope, may be so many times as large
/// as a body: resources are seldom larger than items.
const GROWTH_MAX: u64 = 16;

pub(in crate::connector) async fn answer(
    shared: &Arc<Shared>,
    form: OtlpForm,
    request: Request<Incoming>,
) -> Response<Answer> {
    let speech = speech(request.headers()).unwrap_or(Speech::Protobuf);
    let (response, status) = match take(shared, form, request).await {
        Ok((signal, refused)) => {
            shared.counters.items_refused.add(refused.count());
            (answer::success(speech, signal, &refused), StatusCode::OK)
        }
        Err(refusal) => refusal.response(speech),
    };
    shared.counters.answered(status);
    response
}

/// `None` for what is no OTLP.
fn speech(headers: &HeaderMap) -> Option<Speech> {
    let content_type = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    match essence.to_ascii_lowercase().as_str() {
        PROTOBUF => Some(Speech::Protobuf),
        JSON => Some(Speech::Json),
        // Also `application/grpc+proto`.
        grpc if grpc == "application/grpc" || grpc.starts_with("application/grpc+") => Some(Speech::Grpc),
        _ => None,
    }
}

async fn take(
    shared: &Arc<Shared>,
    form: OtlpForm,
    request: Request<Incoming>,
) -> Result<(Signal, Refused), Refusal> {
    let path = request.uri().path();
    let over_grpc = Signal::ALL.into_iter().find(|signal| signal.method() == path);
    let over_http = path.strip_prefix("/v1/").and_then(Signal::of_name);
    let signal = over_grpc.or(over_http).ok_or(HttpRefusal::NoSuchTopic)?;
    if *request.method() != Method::POST {
        return Err(HttpRefusal::NoSuchMethod.into());
    }
    let speech = speech(request.headers()).ok_or(HttpRefusal::Encoded)?;
    if over_grpc.is_some() != (speech == Speech::Grpc) {
        return Err(HttpRefusal::Encoded.into());
    }
    let tenant = tenant(shared, request.headers())?;
    let routes = shared.directory.routes(&tenant, signal.name());
    if routes.is_empty() {
        return Err(nobody(shared).into());
    }
    let _place = shared.requests.take(&tenant, shared.directory.tenants()).ok_or(HttpRefusal::TooMany)?;
    let (head, body) = request.into_parts();
    let bytes_max = shared.settings.body_bytes_max;
    let body = read_body(shared, body, bytes_max + HEAD_BYTES).await?;
    let body = uncover(speech, &head.headers, body, bytes_max)?;
    let request = match speech {
        Speech::Json => Parsed::of(signal, json::to_protobuf(signal, &body)?.into())?,
        Speech::Grpc | Speech::Protobuf => Parsed::of(signal, body)?,
    };
    let refused = Offer { shared, form, routes: &routes }.make(&request).await?;
    Ok((signal, refused))
}

/// Whose request it is: the header says so, or the token, if it is one tenant's alone.
fn tenant(shared: &Shared, headers: &HeaderMap) -> Result<String, Refusal> {
    let authorization = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
    if let Some(named) = headers.get(TENANT) {
        let named = named.to_str().map_err(|_| Refusal::NoTenant)?;
        return match shared.right(authorization, named) {
            Right::Granted => Ok(named.to_owned()),
            Right::Unknown => Err(HttpRefusal::Unknown.into()),
            Right::Others => Err(HttpRefusal::Others.into()),
        };
    }
    if shared.settings.token_folder.is_none() {
        return Err(Refusal::NoTenant);
    }
    let mut owners = shared.owners(authorization);
    match (owners.pop(), owners.is_empty()) {
        (None, _) => Err(HttpRefusal::Unknown.into()),
        (Some(owner), true) => Ok(owner),
        (Some(_), false) => Err(Refusal::NoTenant),
    }
}

/// What a body holds, without its frame and its compression.
fn uncover(speech: Speech, headers: &HeaderMap, body: Bytes, bytes_max: usize) -> Result<Bytes, Refusal> {
    let encoding = if speech == Speech::Grpc { GRPC_ENCODING } else { CONTENT_ENCODING };
    let encoding = headers.get(encoding).map(HeaderValue::as_bytes);
    let is_gzip = match encoding {
        None | Some(b"identity") => false,
        Some(b"gzip") => true,
        Some(_) => return Err(HttpRefusal::Encoded.into()),
    };
    let (body, is_compressed) = match speech {
        Speech::Grpc => {
            let (message, is_compressed) = grpc::unframe(body)?;
            if is_compressed && !is_gzip {
                return Err(HttpRefusal::Encoded.into());
            }
            (message, is_compressed)
        }
        Speech::Protobuf | Speech::Json => (body, is_gzip),
    };
    if is_compressed {
        Ok(gzip::inflate(&body, bytes_max)?.into())
    } else if body.len() > bytes_max {
        Err(HttpRefusal::TooLarge.into())
    } else {
        Ok(body)
    }
}

/// A request on its way to all who take it.
struct Offer<'o> {
    shared: &'o Shared,
    form: OtlpForm,
    routes: &'o [Route],
}

impl Offer<'_> {
    /// Ready once all of it is settled, but for the items that are too large.
    async fn make(&self, request: &Parsed) -> Result<Refused, Refusal> {
        let until = Instant::now() + self.shared.settings.reply_within;
        let made = async {
            match self.form.unit {
                Unit::Request => self.make_whole(request).await,
                Unit::Item => self.make_items(request, until).await,
            }
        };
        timeout_at(until, made).await.map_err(|_| HttpRefusal::Late)?
    }

    fn payload_bytes_max(&self) -> usize {
        self.routes.iter().map(|route| route.payload_bytes_max).min().unwrap_or(0)
    }

    async fn make_whole(&self, request: &Parsed) -> Result<Refused, Refusal> {
        if request.items.is_empty() {
            return Ok(Refused::default());
        }
        let allowed = self.payload_bytes_max();
        let fits = request.protobuf.len() <= allowed;
        let payload = match self.form.encoding {
            Encoding::Protobuf => request.protobuf.clone(),
            Encoding::Json if fits => json::to_json(request.signal, &request.protobuf).into(),
            Encoding::Json => Bytes::new(),
        };
        if !fits || payload.len() > allowed {
            self.routes.iter().for_each(|route| route.status.oversize.add(1));
            return Err(HttpRefusal::TooLarge.into());
        }
        let mut told = VecDeque::new();
        let until = Instant::now() + CREDIT_WITHIN;
        self.post_first(request.signal, vec![payload], until, &mut told)?;
        // The one message is all of them.
        let dead = if wait(&mut told, 0).await? > 0 { request.items.len() as u64 } else { 0 };
        Ok(Refused { oversize: 0, dead })
    }

    async fn make_items(&self, request: &Parsed, until: Instant) -> Result<Refused, Refusal> {
        if request.items.bytes_len_of_all() > GROWTH_MAX * self.shared.settings.body_bytes_max as u64 {
            return Err(Refusal::Grows);
        }
        let mut pieces = Pieces { offer: self, request, next: 0, held: None, oversize: 0 };
        let mut told = VecDeque::new();
        let first_until = Instant::now() + CREDIT_WITHIN;
        if let Some(payloads) = pieces.take() {
            self.post_first(request.signal, payloads, first_until, &mut told)?;
        }
        let mut dead = 0;
        // Something of it is under way: the rest has time.
        while let Some(payloads) = pieces.take() {
            dead += wait(&mut told, (POSTS_MAX - 1) * self.routes.len()).await?;
            self.post(request.signal, payloads, until, &mut told).await?;
        }
        let oversize = pieces.oversize;
        dead += wait(&mut told, 0).await?;
        self.routes.iter().for_each(|route| route.status.oversize.add(oversize));
        // More than one may take an item, and each may give it up.
        let dead = dead.min(request.items.len() as u64 - oversize);
        Ok(Refused { oversize, dead })
    }

    fn compose(
        &self,
        signal: Signal,
        payloads: &[Bytes],
        until: Instant,
        told: &mut VecDeque<oneshot::Receiver<Outcome>>,
    ) -> Post {
        let content_type = match self.form.encoding {
            Encoding::Protobuf => PROTOBUF,
            Encoding::Json => JSON,
        };
        let (outcome, receiver) = oneshot::channel();
        told.push_back(receiver);
        Post {
            topic: signal.name().to_owned(),
            content_type: Some(content_type.to_owned()),
            properties: Vec::new(),
            bodies: payloads.to_vec(),
            request: None,
            until,
            outcome,
        }
    }

    /// Where there is no room now, nothing of the request is taken.
    fn post_first(
        &self,
        signal: Signal,
        payloads: Vec<Bytes>,
        until: Instant,
        told: &mut VecDeque<oneshot::Receiver<Outcome>>,
    ) -> Result<(), Refusal> {
        for route in self.routes {
            let post = self.compose(signal, &payloads, until, told);
            route.posts.try_send(post).map_err(|error| match error {
                TrySendError::Full(_) => HttpRefusal::TooMany,
                TrySendError::Closed(_) => HttpRefusal::Gone,
            })?;
        }
        Ok(())
    }

    async fn post(
        &self,
        signal: Signal,
        payloads: Vec<Bytes>,
        until: Instant,
        told: &mut VecDeque<oneshot::Receiver<Outcome>>,
    ) -> Result<(), Refusal> {
        for route in self.routes {
            let post = self.compose(signal, &payloads, until, told);
            route.posts.send(post).await.map_err(|_| HttpRefusal::Gone)?;
        }
        Ok(())
    }
}

/// Until no more than `left` posts are not settled; gives how many messages were given up.
async fn wait(told: &mut VecDeque<oneshot::Receiver<Outcome>>, left: usize) -> Result<u64, Refusal> {
    let mut all = 0;
    while told.len() > left {
        let Some(outcome) = told.pop_front() else { break };
        match outcome.await {
            Ok(Outcome::Settled { given_up }) => all += given_up,
            Ok(Outcome::NoRoom) => return Err(HttpRefusal::TooMany.into()),
            Ok(Outcome::Gone) | Err(_) => return Err(HttpRefusal::Gone.into()),
        }
    }
    Ok(all)
}

/// The items of a request, as many at once as a delivery holds.
struct Pieces<'p> {
    offer: &'p Offer<'p>,
    request: &'p Parsed,
    next: usize,
    /// It did not fit with those before.
    held: Option<Bytes>,
    oversize: u64,
}

impl Pieces<'_> {
    fn take(&mut self) -> Option<Vec<Bytes>> {
        let allowed = self.offer.payload_bytes_max();
        let bytes_max = Batch::BYTES_MAX.min(allowed);
        let (mut payloads, mut bytes) = (Vec::new(), 0);
        while payloads.len() < Batch::MESSAGES_MAX {
            let payload = match self.held.take() {
                Some(held) => held,
                None if self.next == self.request.items.len() => break,
                None => {
                    self.next += 1;
                    let Some(payload) = self.payload(self.next - 1, allowed) else {
                        self.oversize += 1;
                        continue;
                    };
                    payload
                }
            };
            if !payloads.is_empty() && bytes + payload.len() > bytes_max {
                self.held = Some(payload);
                break;
            }
            bytes += payload.len();
            payloads.push(payload);
        }
        (!payloads.is_empty()).then_some(payloads)
    }

    /// `None` for one that is too large.
    fn payload(&self, index: usize, allowed: usize) -> Option<Bytes> {
        let Parsed { signal, protobuf, items } = self.request;
        if items.bytes_len(index) > allowed {
            return None;
        }
        let mut payload = Vec::new();
        items.write(index, protobuf, &mut payload);
        if self.offer.form.encoding == Encoding::Json {
            payload = json::to_json(*signal, &payload);
        }
        (payload.len() <= allowed).then(|| payload.into())
    }
}

#[cfg(test)]
mod tests;
