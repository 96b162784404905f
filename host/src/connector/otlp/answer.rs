//! What a request of OTLP is answered with, over gRPC and over HTTP: success, success in
//! part, and each refusal as the protocol has it. Knows no messages.

use std::time::Duration;

use bytes::Bytes;
use hyper::{
    Response, StatusCode,
    header::{CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER},
};
use prost::Message as _;
use serde_json::json;
use tonic::{Code, Status};

use super::{
    form::{JSON, PROTOBUF, ParseError, Signal},
    grpc::{self, FrameError, RpcStatus},
    gzip::InflateError,
};
use crate::connector::http::answer::{Answer, Refusal as HttpRefusal};

/// How a client speaks, and is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speech {
    Grpc,
    /// Protobuf over HTTP.
    Protobuf,
    /// JSON over HTTP.
    Json,
}

/// Why a request is not done.
#[derive(Debug)]
pub(super) enum Refusal {
    /// As any request may be.
    Http(HttpRefusal),
    Parse(ParseError),
    Frame(FrameError),
    Inflate(InflateError),
    /// Its items would take too many times its own size.
    Grows,
    /// It does not say which of several tenants it is for.
    NoTenant,
}

impl From<HttpRefusal> for Refusal {
    fn from(refusal: HttpRefusal) -> Self {
        Refusal::Http(refusal)
    }
}

impl From<ParseError> for Refusal {
    fn from(error: ParseError) -> Self {
        Refusal::Parse(error)
    }
}

impl From<FrameError> for Refusal {
    fn from(error: FrameError) -> Self {
        Refusal::Frame(error)
    }
}

impl From<InflateError> for Refusal {
    fn from(error: InflateError) -> Self {
        Refusal::Inflate(error)
    }
}

/// Whoever may come again may so after this.
const COME_AGAIN: Duration = Duration::from_secs(1);

impl Refusal {
    /// What it is in HTTP, by which it is counted, and in gRPC; and a sentence.
    fn parts(&self) -> (StatusCode, Code, String) {
        let (status, text) = match self {
            Refusal::Http(refusal) => {
                let (status, text) = refusal.parts();
                (status, text.to_owned())
            }
            Refusal::Parse(error @ (ParseError::Many | ParseError::Dense)) => {
                (StatusCode::PAYLOAD_TOO_LARGE, error.to_string())
            }
            Refusal::Parse(error) => (StatusCode::BAD_REQUEST, error.to_string()),
            Refusal::Frame(error) => (StatusCode::BAD_REQUEST, error.to_string()),
            Refusal::Inflate(error @ InflateError::TooLarge(_)) => {
                (StatusCode::PAYLOAD_TOO_LARGE, error.to_string())
            }
            Refusal::Inflate(error) => (StatusCode::BAD_REQUEST, error.to_string()),
            Refusal::Grows => {
                let text = "its items with their resources are many times larger than the request";
                (StatusCode::PAYLOAD_TOO_LARGE, text.to_owned())
            }
            Refusal::NoTenant => {
                (StatusCode::BAD_REQUEST, format!("say for which tenant it is, with the header `{TENANT}`"))
            }
        };
        let code = match status {
            StatusCode::UNAUTHORIZED => Code::Unauthenticated,
            StatusCode::FORBIDDEN => Code::PermissionDenied,
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::UNSUPPORTED_MEDIA_TYPE => {
                Code::Unimplemented
            }
            StatusCode::REQUEST_TIMEOUT => Code::Cancelled,
            StatusCode::TOO_MANY_REQUESTS => Code::ResourceExhausted,
            StatusCode::SERVICE_UNAVAILABLE => Code::Unavailable,
            StatusCode::GATEWAY_TIMEOUT => Code::DeadlineExceeded,
            // What is too large stays so: with this code nobody sends it again.
            _ => Code::InvalidArgument,
        };
        (status, code, text)
    }

    /// And the status by which it is counted.
    pub(super) fn response(&self, speech: Speech) -> (Response<Answer>, StatusCode) {
        let (status, code, text) = self.parts();
        let may_come_again =
            matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
        let retry = may_come_again.then_some(COME_AGAIN);
        let said = RpcStatus::new(code, &text, retry);
        let response = match speech {
            Speech::Grpc => {
                let ended = Status::with_details(code, text, said.encode_to_vec().into());
                let mut response = Response::new(Answer::Ended(None, None));
                *response.headers_mut() = ended.into_http::<()>().headers().clone();
                response
            }
            Speech::Protobuf | Speech::Json => {
                let body = match speech {
                    Speech::Json => json!({ "code": said.code, "message": said.message }).to_string().into(),
                    _ => Bytes::from(said.encode_to_vec()),
                };
                let mut response = whole(speech, body);
                *response.status_mut() = status;
                if retry.is_some() {
                    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
                }
                response
            }
        };
        (response, status)
    }
}

/// The header that says for which tenant a request is.
pub(super) const TENANT: &str = "x-tidegate-tenant";

/// Items that were not taken, and why.
#[derive(Debug, Default)]
pub(super) struct Refused {
    pub oversize: u64,
    pub dead: u64,
}

impl Refused {
    pub(super) fn count(&self) -> u64 {
        self.oversize + self.dead
    }

    fn message(&self) -> String {
        let mut reasons = Vec::new();
        if self.oversize > 0 {
            reasons.push(format!("{} larger than the tenant's messages may be", self.oversize));
        }
        if self.dead > 0 {
            reasons.push(format!("{} given up by the dataflow", self.dead));
        }
        reasons.join(", ")
    }
}

/// All is done but what was refused.
pub(super) fn success(speech: Speech, signal: Signal, refused: &Refused) -> Response<Answer> {
    let message = refused.message();
    match speech {
        Speech::Grpc => {
            let body = grpc::frame(&grpc::success(refused.count(), &message));
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            let mut response = Response::new(Answer::Ended(Some(body), Some(trailers)));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            response
        }
        Speech::Protobuf => whole(speech, grpc::success(refused.count(), &message).into()),
        Speech::Json => {
            let said = match refused.count() {
                0 => json!({}),
                // Numbers of 64 bits are text.
                count => json!({ "partialSuccess": {
                    signal.rejected(): count.to_string(), "errorMessage": message,
                } }),
            };
            whole(speech, said.to_string().into())
        }
    }
}

fn whole(speech: Speech, body: Bytes) -> Response<Answer> {
    let content_type = if speech == Speech::Json { JSON } else { PROTOBUF };
    let mut response = Response::new(Answer::Whole(Some(body)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests;
