//! `httpSettings`, which AIO does not have: a server that takes requests and answers them,
//! or a webhook that is sent messages.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use hyper::Uri;

use crate::resource::{
    diagnostic::Diagnostics,
    endpoint::{
        OtlpForm,
        security::{Certificate, Tls, is_address},
    },
    host::number,
    quantity,
    secret::Secret,
    yaml::{Object, Text},
};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HttpSettings {
    Listen(ListenSettings),
    Webhook(WebhookSettings),
}

/// What a server's clients speak over HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Speaks {
    /// A message a request.
    Http,
    /// What OpenTelemetry exports.
    Otlp(OtlpForm),
}

/// Limits where an endpoint says nothing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Defaults {
    pub body_bytes_max: u64,
    pub requests_max: u64,
}

/// A server, for the sources and the destinations of all tenants.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ListenSettings {
    /// `host:port`.
    pub address: String,
    pub speaks: Speaks,
    /// Without one it speaks in the clear.
    pub certificate: Option<Certificate>,
    /// A file for each tenant, with a token a line. Without it everybody may ask.
    pub token_folder: Option<PathBuf>,
    pub body_bytes_max: usize,
    /// Under way at once, over all connections.
    pub requests_max: usize,
    pub connections_max: usize,
    /// So long a client may take for the head of a request, and for its body.
    pub header_timeout: Duration,
    /// When a request is answered that nothing else has answered.
    pub reply_within: Duration,
}

/// A server of somebody else's, for destinations.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WebhookSettings {
    /// `http:` or `https:`.
    pub url: String,
    /// Whom `https:` trusts; `None` for whom the system does.
    pub tls: Option<Tls>,
    pub token: Option<Secret>,
    /// What bodies are signed with.
    pub signature: Option<Secret>,
    /// For one attempt, answer included.
    pub timeout: Duration,
    /// Requests under way at once.
    pub inflight_max: usize,
}

const LISTENING: Defaults = Defaults { body_bytes_max: 1 << 20, requests_max: 256 };
/// With as many, a host runs where a process may have 1,024 files.
const CONNECTIONS_MAX: u64 = 512;

impl HttpSettings {
    pub fn read(spec: &mut Object<'_>, diagnostics: &mut Diagnostics) -> Option<Self> {
        spec.need("httpSettings", diagnostics)?;
        let mut http = spec.object("httpSettings", diagnostics)?;
        let settings = match (http.text("listen", diagnostics), http.text("url", diagnostics)) {
            (Some(listen), None) => {
                ListenSettings::read(&mut http, &listen, Speaks::Http, LISTENING, diagnostics)
                    .map(HttpSettings::Listen)
            }
            (None, Some(url)) => {
                WebhookSettings::read(&mut http, &url, diagnostics).map(HttpSettings::Webhook)
            }
            (one, _) => {
                let place = one.map_or_else(|| http.place(), |text| text.place);
                let message = "`httpSettings` takes one of `listen` and `url`";
                let label = "a server listens at `HOST:PORT`, a webhook is sent to a URL";
                diagnostics.error("endpoint/http", place, message, label);
                return None;
            }
        };
        http.finish(diagnostics);
        settings
    }
}

impl ListenSettings {
    /// The same, with its files looked for below the site folder.
    pub fn below(&self, home: &Path) -> Self {
        let certificate = self
            .certificate
            .as_ref()
            .map(|Certificate { chain, key }| Certificate { chain: home.join(chain), key: home.join(key) });
        let token_folder = self.token_folder.as_ref().map(|it| home.join(it));
        ListenSettings { certificate, token_folder, ..self.clone() }
    }

    pub(super) fn read(
        http: &mut Object<'_>,
        listen: &Text,
        speaks: Speaks,
        otherwise: Defaults,
        diagnostics: &mut Diagnostics,
    ) -> Option<Self> {
        let certificate = http.object("tls", diagnostics).and_then(|mut tls| {
            let chain = tls.need_text("certificateFile", diagnostics);
            let key = tls.need_text("keyFile", diagnostics);
            tls.finish(diagnostics);
            Some(Certificate { chain: chain?.text.into(), key: key?.text.into() })
        });
        let token_folder = http.text("tokenFolder", diagnostics).map(|it| PathBuf::from(it.text));
        let mut get = |key, range, otherwise| number(http, key, range, diagnostics).unwrap_or(otherwise);
        let requests_max = get("requestsMax", 1..=65_536, otherwise.requests_max) as usize;
        let connections_max = get("connectionsMax", 1..=1_000_000, CONNECTIONS_MAX) as usize;
        let header_timeout = Duration::from_secs(get("headerTimeoutSeconds", 1..=3_600, 10));
        let reply_within = Duration::from_secs(get("replySeconds", 1..=3_600, 30));
        let body_bytes_max = read_bytes(http, "bodyBytesMax", diagnostics);
        let body_bytes_max = body_bytes_max.unwrap_or(otherwise.body_bytes_max) as usize;
        if !is_address(&listen.text) {
            let message = format!("`{}` is no address to listen at", listen.text);
            diagnostics.error("endpoint/listen", listen.place.clone(), message, "write `host:port`");
            return None;
        }
        if token_folder.is_none() {
            let message = "without a `tokenFolder` no token is asked for";
            let label = "whoever reaches this address may send as any tenant, and listen to it";
            diagnostics.warning("endpoint/no-tokens", listen.place.clone(), message, label);
        }
        Some(ListenSettings {
            address: listen.text.clone(),
            speaks,
            certificate,
            token_folder,
            body_bytes_max,
            requests_max,
            connections_max,
            header_timeout,
            reply_within,
        })
    }
}

/// A delivery holds a body whole, and its places are numbers of 32 bits.
const BODY_BYTES_MOST: u64 = 64 << 20;

fn read_bytes(http: &mut Object<'_>, key: &'static str, diagnostics: &mut Diagnostics) -> Option<u64> {
    let text = http.text(key, diagnostics)?;
    let label = match quantity::above_zero(quantity::bytes, &text.text) {
        Ok(bytes) if bytes <= BODY_BYTES_MOST => return Some(bytes),
        Ok(_) => "64Mi at most".to_owned(),
        Err(error) => error.to_string(),
    };
    let message = format!("`{}` is no value for `{key}`", text.text);
    diagnostics.error("policy/quantity", text.place, message, label);
    None
}

impl WebhookSettings {
    /// The same, with its files looked for below the site folder.
    pub fn below(&self, home: &Path) -> Self {
        WebhookSettings {
            tls: self.tls.as_ref().map(|it| it.below(home)),
            token: self.token.as_ref().map(|it| it.below(home)),
            signature: self.signature.as_ref().map(|it| it.below(home)),
            ..self.clone()
        }
    }

    fn read(http: &mut Object<'_>, url: &Text, diagnostics: &mut Diagnostics) -> Option<Self> {
        let tls = Tls::read(http, diagnostics);
        let token = read_secret(http, ["tokenFile", "tokenVariable"], diagnostics);
        let signature = read_secret(http, ["signatureFile", "signatureVariable"], diagnostics);
        let mut get = |key, range, otherwise| number(http, key, range, diagnostics).unwrap_or(otherwise);
        let timeout = Duration::from_secs(get("timeoutSeconds", 1..=3_600, 30));
        let inflight_max = get("inflight", 1..=1_024, 16) as usize;
        if let Err(label) = check_url(&url.text) {
            let message = format!("`{}` is no URL of a webhook", url.text);
            diagnostics.error("endpoint/url", url.place.clone(), message, label);
            return None;
        }
        if tls.is_some() && !url.text.starts_with("https:") {
            let message = "`tls` says whom `https:` trusts, and the URL has none";
            diagnostics.error("endpoint/url", url.place.clone(), message, "write `https://...`");
        }
        Some(WebhookSettings { url: url.text.clone(), tls, token, signature, timeout, inflight_max })
    }
}

/// A secret that need not be there.
fn read_secret(
    http: &mut Object<'_>,
    [file, variable]: [&'static str; 2],
    diagnostics: &mut Diagnostics,
) -> Option<Secret> {
    if http.get(file).is_none() && http.get(variable).is_none() {
        return None;
    }
    Secret::read_keys(http, [file, variable], diagnostics)
}

fn check_url(url: &str) -> Result<(), &'static str> {
    let scheme = url.split_once("://").map(|(scheme, _)| scheme);
    if !matches!(scheme, Some("http" | "https")) {
        return Err("write `http://host/path` or `https://host/path`");
    }
    let parsed: Uri = url.parse().map_err(|_| "write `http://host/path` or `https://host/path`")?;
    let authority = parsed.authority().map_or("", |it| it.as_str());
    match (authority, url) {
        ("", _) => Err("it names no host"),
        (authority, _) if authority.contains('@') => {
            Err("a secret is in a file or a variable: write `tokenFile` or `tokenVariable`")
        }
        (_, url) if url.contains('#') => Err("a fragment is not sent"),
        _ => Ok(()),
    }
}
