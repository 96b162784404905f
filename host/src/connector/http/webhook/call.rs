//! `Caller`: sends one message until the far side has it or refuses it. Knows HTTP, and no
//! other messages.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use chrono::Utc;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Request, StatusCode, Uri,
    body::Incoming,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT},
};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use ring::hmac;
use tokio::time::{sleep, timeout};

use super::retry::{Verdict, asked, judge};
use crate::{
    batch::{Batch, Entry, Properties},
    clock::Clock,
    connector::{
        far_side::backoff,
        http::REQUEST,
        status::Status,
        tls::{self, TlsError},
    },
    deploy::chain,
    hlc,
    resource::{
        endpoint::WebhookSettings,
        secret::{Secret, SecretError},
    },
};

const KEY: HeaderName = HeaderName::from_static("idempotency-key");
const TOPIC: HeaderName = HeaderName::from_static("x-tidegate-topic");
const SIGNATURE: HeaderName = HeaderName::from_static("x-tidegate-signature");
/// What this connector says itself, nobody else does.
const OWN: &str = "x-tidegate-";
/// Of an answer, so much is read, and so long, for the sake of its connection, which is kept
/// then.
const ANSWER_BYTES_MAX: usize = 64 << 10;
const ANSWER_WITHIN: Duration = Duration::from_millis(500);
/// A secret that was replaced is known after so long.
const SECRETS_FOR: Duration = Duration::from_secs(1);
const IDLE_FOR: Duration = Duration::from_secs(30);

/// A message as a request, the same for every attempt.
#[derive(Debug)]
pub(super) struct Message {
    pub topic: Bytes,
    headers: HeaderMap,
    body: Bytes,
}

impl Message {
    /// And how many of its properties cannot be headers.
    pub(super) fn of(entry: &Entry, batch: &Batch, topic: &[u8], key: &str) -> Result<(Self, u64), String> {
        let arena = &batch.arena[..];
        let mut removed = 0;
        let mut headers = HeaderMap::new();
        for (name, value) in Properties::of(entry.user_properties(arena)) {
            // These two are ours, and mean nothing outside.
            if name == REQUEST.as_bytes() || name == hlc::PROPERTY.as_bytes() {
                continue;
            }
            match (extension(name), HeaderValue::from_bytes(value)) {
                (Some(name), Ok(value)) => _ = headers.append(name, value),
                _ => removed += 1,
            }
        }
        if let Some(content_type) = entry.content_type.get(arena) {
            match HeaderValue::from_bytes(content_type) {
                Ok(value) => _ = headers.insert(CONTENT_TYPE, value),
                Err(_) => removed += 1,
            }
        }
        let named = HeaderValue::from_bytes(topic).map_err(|_| "its topic cannot be a header".to_owned())?;
        headers.insert(TOPIC, named);
        headers.insert(KEY, HeaderValue::from_str(key).expect("a key is digits and letters"));
        headers.insert(USER_AGENT, HeaderValue::from_static("tidegate"));
        let payload = entry.payload;
        let body = match payload.len {
            0 => Bytes::new(),
            len => batch.arena.slice(payload.offset as usize..(payload.offset + len) as usize),
        };
        Ok((Message { topic: Bytes::copy_from_slice(topic), headers, body }, removed))
    }
}

/// The header of a user property: `x-` and its name, unless that begins so already.
fn extension(name: &[u8]) -> Option<HeaderName> {
    let name = std::str::from_utf8(name).ok()?.to_ascii_lowercase();
    let name = if name.starts_with("x-") { name } else { format!("x-{name}") };
    if name.starts_with(OWN) { None } else { name.parse().ok() }
}

/// `host:port` of a URL that was checked.
pub(super) fn address(url: &str) -> String {
    let uri: Uri = url.parse().expect("checked when it was read");
    let port = uri.port_u16().unwrap_or(if url.starts_with("https:") { 443 } else { 80 });
    format!("{}:{port}", uri.host().unwrap_or_default())
}

/// Why there is nobody to send anything.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallerError {
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Secret(#[from] SecretError),
}

/// Why one attempt did not end in an answer.
#[derive(Debug, thiserror::Error)]
enum CallError {
    #[error("the request was not answered")]
    Request(#[from] hyper_util::client::legacy::Error),
    #[error("there was no answer within {0:?}")]
    Late(Duration),
    #[error(transparent)]
    Secret(#[from] SecretError),
}

/// Connections to the far side, and what is made of certificates.
type Connections = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

pub(super) struct Caller {
    connections: Mutex<Connections>,
    uri: Uri,
    settings: WebhookSettings,
    secrets: Mutex<(Instant, Arc<Secrets>)>,
    status: Arc<Status>,
    /// The last attempt of any message failed.
    is_failing: AtomicBool,
}

/// As they are now.
#[derive(Default)]
struct Secrets {
    authorization: Option<HeaderValue>,
    signature: Option<hmac::Key>,
}

impl Secrets {
    /// Blocks while it reads files.
    fn read(settings: &WebhookSettings) -> Result<Self, SecretError> {
        let token = settings.token.as_ref().map(Secret::reveal).transpose()?;
        let authorization = token.and_then(|token| {
            let mut value = HeaderValue::from_str(&format!("Bearer {token}")).ok()?;
            value.set_sensitive(true);
            Some(value)
        });
        let signature = settings.signature.as_ref().map(Secret::reveal).transpose()?;
        let signature = signature.map(|secret| hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()));
        Ok(Secrets { authorization, signature })
    }
}

/// Blocks while it reads files.
fn connect(settings: &WebhookSettings) -> Result<Connections, TlsError> {
    let tls = match is_encrypted(settings) {
        true => tls::client(&settings.tls.clone().unwrap_or_default())?,
        false => tls::client_in_the_clear(),
    };
    let mut http = HttpConnector::new();
    http.set_nodelay(true);
    http.enforce_http(false);
    http.set_connect_timeout(Some(settings.timeout));
    let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_all_versions();
    let client = Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_FOR)
        .pool_max_idle_per_host(settings.inflight_max)
        .build(connector.wrap_connector(http));
    Ok(client)
}

fn is_encrypted(settings: &WebhookSettings) -> bool {
    settings.url.starts_with("https:")
}

impl Caller {
    /// Blocks while it reads files.
    pub(super) fn new(settings: &WebhookSettings, status: Arc<Status>) -> Result<Self, CallerError> {
        let connections = Mutex::new(connect(settings)?);
        let secrets = Mutex::new((Instant::now(), Arc::new(Secrets::read(settings)?)));
        let uri = settings.url.parse().expect("checked when it was read");
        let settings = settings.clone();
        Ok(Caller { connections, uri, settings, secrets, status, is_failing: AtomicBool::new(false) })
    }

    /// Certificates may have been replaced. What cannot be read is as it was before.
    async fn renew(&self) {
        let settings = self.settings.clone();
        let made = tokio::task::spawn_blocking(move || connect(&settings)).await;
        if let Ok(connections) = made.expect("reading files does not panic") {
            *self.connections.lock().expect("no panic under this lock") = connections;
        }
    }

    /// Until the far side has it; otherwise why it never will.
    pub(super) async fn deliver(&self, message: Message) -> Result<(), String> {
        let mut backoff = backoff();
        loop {
            let called = self.call(&message).await;
            let is_unheard = matches!(called, Err(CallError::Request(_))) && is_encrypted(&self.settings);
            let (error, retry_after) = match called {
                Ok((status, retry_after)) => match judge(status) {
                    Verdict::Done => {
                        self.note_success();
                        self.status.messages_out.add(1);
                        self.status.bytes_out.add(message.body.len() as u64);
                        return Ok(());
                    }
                    Verdict::Refused => {
                        self.note_success();
                        self.status.rejected.add(1);
                        return Err(format!("the webhook refused it: {status}"));
                    }
                    Verdict::Again => (format!("the webhook answered {status}"), retry_after),
                },
                Err(error) => (chain(&error), None),
            };
            self.is_failing.store(true, Ordering::Relaxed);
            self.status.set_degraded(Clock::System.now(), error);
            let asked = retry_after.and_then(|text| asked(text.to_str().ok()?, Utc::now()));
            sleep(backoff.next().max(asked.unwrap_or_default())).await;
            self.status.redelivered.add(1);
            if is_unheard {
                self.renew().await;
            }
        }
    }

    fn note_success(&self) {
        if self.is_failing.swap(false, Ordering::Relaxed) || self.status.is_missing() {
            self.status.set_connected();
        }
    }

    /// One attempt: the answer's status, and when it says to come again.
    async fn call(&self, message: &Message) -> Result<(StatusCode, Option<HeaderValue>), CallError> {
        let secrets = self.secrets().await?;
        let mut request = Request::post(self.uri.clone())
            .body(Full::new(message.body.clone()))
            .expect("a URI that was checked and no headers");
        *request.headers_mut() = message.headers.clone();
        if let Some(authorization) = &secrets.authorization {
            request.headers_mut().insert(AUTHORIZATION, authorization.clone());
        }
        if let Some(key) = &secrets.signature {
            request.headers_mut().insert(SIGNATURE, signature(key, &message.body));
        }
        let within = self.settings.timeout;
        let connections = self.connections.lock().expect("no panic under this lock").clone();
        let answer = async {
            let response = connections.request(request).await?;
            let (head, body) = response.into_parts();
            // What it means was said before.
            let _ = timeout(ANSWER_WITHIN, drain(body)).await;
            Ok((head.status, head.headers.get(RETRY_AFTER).cloned()))
        };
        timeout(within, answer).await.map_err(|_| CallError::Late(within))?
    }

    async fn secrets(&self) -> Result<Arc<Secrets>, SecretError> {
        {
            let known = self.secrets.lock().expect("no panic under this lock");
            if known.0.elapsed() < SECRETS_FOR {
                return Ok(known.1.clone());
            }
        }
        let settings = self.settings.clone();
        let read = tokio::task::spawn_blocking(move || Secrets::read(&settings)).await;
        let read = Arc::new(read.expect("reading files does not panic")?);
        *self.secrets.lock().expect("no panic under this lock") = (Instant::now(), read.clone());
        Ok(read)
    }
}

/// What an answer says beside its status is for nobody.
async fn drain(mut body: Incoming) {
    let mut read = 0;
    while let Some(Ok(frame)) = body.frame().await {
        read += frame.data_ref().map_or(0, Bytes::len);
        if read > ANSWER_BYTES_MAX {
            return;
        }
    }
}

fn signature(key: &hmac::Key, body: &[u8]) -> HeaderValue {
    let tag = hmac::sign(key, body);
    let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    HeaderValue::from_str(&format!("sha256={hex}")).expect("digits and letters")
}

#[cfg(test)]
mod tests;
