//! `Exporter`: sends one request to a Collector over gRPC, and says what its answer means.
//! Knows no messages.

use std::time::Duration;

use bytes::Bytes;
use hyper::{Uri, http::uri::PathAndQuery};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use tonic::{Code, Request, Status, body::Body, client::Grpc};

use super::{
    form::Signal,
    grpc::{Raw, partial_success, retry_after},
};
use crate::{
    connector::tls::{self, TlsError},
    resource::endpoint::ExportSettings,
};

/// An answer is a count and a sentence.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// A Collector that is gone without a word is noticed after so long.
const ALIVE_EVERY: Duration = Duration::from_secs(10);
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

pub(super) struct Exporter {
    client: Client<HttpsConnector<HttpConnector>, Body>,
    origin: Uri,
    timeout: Duration,
}

/// What became of a request.
#[derive(Debug)]
pub(super) enum Answer {
    Done,
    /// But for so many of its items, and why.
    Partly(i64, String),
    /// It may do later, and no sooner than it says.
    Again {
        error: String,
        after: Option<Duration>,
    },
    /// It never will.
    Refused {
        error: String,
        why: Why,
    },
}

/// Whose fault it is that a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// Something in it: the rest of it may do.
    Content,
    /// The client's, or what the Collector is set up for.
    Client,
}

impl Exporter {
    /// Blocks while it reads files.
    pub(super) fn new(settings: &ExportSettings) -> Result<Self, TlsError> {
        let (config, scheme) = match &settings.tls {
            Some(tls) => (tls::client(tls)?, "https"),
            None => (tls::client_in_the_clear(), "http"),
        };
        let mut http = HttpConnector::new();
        http.set_nodelay(true);
        http.enforce_http(false);
        http.set_connect_timeout(Some(CONNECT_WITHIN.min(settings.timeout)));
        let connector = HttpsConnectorBuilder::new().with_tls_config(config).https_or_http().enable_http2();
        let client = Client::builder(TokioExecutor::new())
            .http2_only(true)
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .http2_keep_alive_interval(ALIVE_EVERY)
            .http2_keep_alive_timeout(ALIVE_EVERY)
            .http2_adaptive_window(true)
            .build(connector.wrap_connector(http));
        let origin = format!("{scheme}://{}", settings.address).parse().expect("an address was checked");
        Ok(Exporter { client, origin, timeout: settings.timeout })
    }

    pub(super) async fn send(&self, signal: Signal, request: Bytes) -> Answer {
        let path = PathAndQuery::from_static(signal.method());
        let mut grpc = Grpc::with_origin(self.client.clone(), self.origin.clone())
            .max_decoding_message_size(ANSWER_BYTES_MAX);
        let answered = async {
            grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
            grpc.unary(Request::new(request), path, Raw).await
        };
        match tokio::time::timeout(self.timeout, answered).await {
            Ok(Ok(answer)) => match partial_success(answer.get_ref()) {
                None => Answer::Done,
                Some((rejected, message)) => Answer::Partly(rejected, message),
            },
            Ok(Err(status)) => judge(&status),
            Err(_) => {
                Answer::Again { error: format!("there was no answer within {:?}", self.timeout), after: None }
            }
        }
    }
}

/// What OTLP says of a status: which may be tried again, and which not.
fn judge(status: &Status) -> Answer {
    let after = retry_after(status.details());
    let error = describe(status);
    match status.code() {
        Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unavailable
        | Code::DataLoss => Answer::Again { error, after },
        Code::ResourceExhausted if after.is_some() => Answer::Again { error, after },
        // What is in between answers so, before the Collector is there, or when it goes.
        Code::Unknown | Code::Internal if is_transport(status) => Answer::Again { error, after },
        Code::InvalidArgument | Code::ResourceExhausted | Code::Internal | Code::Unknown => {
            Answer::Refused { error, why: Why::Content }
        }
        _ => Answer::Refused { error, why: Why::Client },
    }
}

/// Whether nobody has judged the request: the connection failed.
fn is_transport(status: &Status) -> bool {
    std::error::Error::source(status).is_some()
}

fn describe(status: &Status) -> String {
    let mut text = format!("the Collector answered {:?}: {}", status.code(), status.message());
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests;
