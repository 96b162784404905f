//! `Answer`: what a request gets, and what each refusal is in HTTP. Knows no messages.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use hyper::{
    Response, StatusCode,
    body::{Body, Bytes, Frame, SizeHint},
    header::{ALLOW, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE},
};

use super::events::Events;

/// The body of an answer.
pub(in crate::connector) enum Answer {
    /// All of it, until it is given.
    Whole(Option<Bytes>),
    /// The same, and headers behind it.
    Ended(Option<Bytes>, Option<HeaderMap>),
    Events(Events),
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        ctx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Answer::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Answer::Ended(bytes, trailers) => {
                let bytes = bytes.take().map(Frame::data);
                Poll::Ready(bytes.or_else(|| trailers.take().map(Frame::trailers)).map(Ok))
            }
            Answer::Events(events) => events.poll_next(ctx).map(|it| it.map(|bytes| Ok(Frame::data(bytes)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Answer::Whole(None) | Answer::Ended(None, None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Answer::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |it| it.len() as u64)),
            Answer::Ended(..) | Answer::Events(_) => SizeHint::default(),
        }
    }
}

impl Answer {
    /// An answer without a body.
    pub(super) fn empty(status: StatusCode) -> Response<Answer> {
        let mut response = Response::new(Answer::Whole(None));
        *response.status_mut() = status;
        response
    }
}

/// Why a request is not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::connector) enum Refusal {
    /// It is cut short, or no HTTP.
    Broken,
    /// It has no token that is known.
    Unknown,
    /// Its token is another tenant's.
    Others,
    NoSuchTopic,
    NoSuchMethod,
    /// Its body did not come in time.
    Slow,
    TooLarge,
    /// Its body is compressed, and would come through so.
    Encoded,
    /// There is no room for it now.
    TooMany,
    /// Who would take it is not there now; what it said may have been done.
    Gone,
    /// What it said is still being done.
    Late,
}

impl Refusal {
    /// What it is in HTTP, and a sentence.
    pub(in crate::connector) fn parts(self) -> (StatusCode, &'static str) {
        match self {
            Refusal::Broken => (StatusCode::BAD_REQUEST, "the request is cut short or in bad form"),
            Refusal::Unknown => (StatusCode::UNAUTHORIZED, "a token is needed: `authorization: Bearer ...`"),
            Refusal::Others => (StatusCode::FORBIDDEN, "the token is another tenant's"),
            Refusal::NoSuchTopic => (StatusCode::NOT_FOUND, "nobody takes this; the path is `/TENANT/TOPIC`"),
            Refusal::NoSuchMethod => (StatusCode::METHOD_NOT_ALLOWED, "POST sends, GET listens"),
            Refusal::Slow => (StatusCode::REQUEST_TIMEOUT, "the body did not come in time"),
            Refusal::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "the body is larger than it may be"),
            Refusal::Encoded => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "a body is sent without an encoding"),
            Refusal::TooMany => (StatusCode::TOO_MANY_REQUESTS, "there is no room for it now; send it again"),
            Refusal::Gone => {
                (StatusCode::SERVICE_UNAVAILABLE, "its dataflow is not there now; send it again")
            }
            Refusal::Late => (StatusCode::GATEWAY_TIMEOUT, "it is not done yet, and goes on"),
        }
    }

    pub(super) fn response(self) -> Response<Answer> {
        let (status, text) = self.parts();
        let mut response = Response::new(Answer::Whole(Some(Bytes::from(format!("{text}\n")))));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        match self {
            Refusal::TooMany | Refusal::Gone => headers.insert(RETRY_AFTER, HeaderValue::from_static("1")),
            Refusal::Unknown => headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")),
            Refusal::NoSuchMethod => headers.insert(ALLOW, HeaderValue::from_static("GET, POST")),
            _ => None,
        };
        response
    }
}
