//! The control socket: HTTP over a Unix socket in the data folder, for commands to a
//! running host. Control side; knows requests and answers, and the host's doors.

use std::{
    io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Method, Request, Response, StatusCode, body::Bytes, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};
use serde_json::{Value, json};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::{mpsc, oneshot},
};

use crate::{dead_letter::filter::Filter, usage::Query};

/// Largest request, in bytes: a path or a name, or the ids of dead letters.
const REQUEST_BYTES_MAX: usize = 1 << 20;

/// What a host is asked over its socket.
#[derive(Debug)]
pub enum Ask {
    /// Read the site folder again and apply it; by `force` tenants are drained that use
    /// more than they may from now on.
    Apply { dir: PathBuf, force: bool },
    /// Let a dataflow go on that is paused or in quarantine.
    Resume { tenant: String, dataflow: String },
    /// Live state of one tenant, of all, or of so many of the busiest.
    Status { tenant: Option<String>, busiest: Option<usize> },
    /// Why nothing comes out of a dataflow.
    Why { tenant: String, dataflow: String },
    /// What tenants used, a page of it.
    Usage { query: Query },
    /// Measure again how much fuel a second of CPU time is.
    Calibrate,
    /// Remove dead letters for good.
    Discard { filter: Filter },
    /// Send dead letters through their dataflows again.
    Replay { filter: Filter },
}

/// A question and where its answer goes: a status and a JSON document.
pub type Question = (Ask, oneshot::Sender<(StatusCode, Value)>);

/// Why a command cannot reach a host.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error("no host runs on {}; start one with `tidegate up`, or say where it keeps its data with --data", path.display())]
    NoHost { path: PathBuf, source: io::Error },
    #[error("another host runs on {}; stop it first, or give this one a data folder of its own with --data", path.display())]
    Taken { path: PathBuf },
    #[error("cannot use the control socket {}", path.display())]
    Socket { path: PathBuf, source: io::Error },
    #[error("the host did not answer")]
    Http(#[from] hyper::Error),
    #[error("the host gave no JSON")]
    Answer(#[from] serde_json::Error),
}

/// Where the socket of a data folder is.
pub fn socket_of(data: &Path) -> PathBuf {
    data.join("control.sock")
}

/// The right to be the one host of a data folder, until it is dropped or its process
/// ends, however that comes about.
#[derive(Debug)]
pub struct Lock {
    _file: std::fs::File,
}

/// Takes a data folder for this process, and opens its socket for its owner only.
pub fn listen(data: &Path) -> Result<(UnixListener, Lock), ControlError> {
    let path = socket_of(data);
    let error = |source| ControlError::Socket { path: path.clone(), source };
    let file = std::fs::File::create(data.join("control.lock")).map_err(error)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Err(ControlError::Taken { path }),
        Err(other) => return Err(error(other.into())),
    }
    // With the lock held, a socket that is there is what a killed host left. Bound
    // beside it, the new one has its name only once nobody else may use it.
    let beside = data.join("control.new");
    match std::fs::remove_file(&beside) {
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => {}
        other => other.map_err(error)?,
    }
    let listener = UnixListener::bind(&beside).map_err(error)?;
    std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(0o600)).map_err(error)?;
    std::fs::rename(&beside, &path).map_err(error)?;
    Ok((listener, Lock { _file: file }))
}

/// Answers requests until the host is gone.
pub async fn serve(listener: UnixListener, questions: mpsc::Sender<Question>) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "control socket");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                continue;
            }
        };
        let questions = questions.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(request, questions.clone()));
            let connection =
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            if let Err(error) = connection.await {
                tracing::debug!(%error, "control connection");
            }
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    questions: mpsc::Sender<Question>,
) -> Result<Response<Full<Bytes>>, std::convert::Infallible> {
    let (status, body) = match ask_of(request).await {
        Err(problem) => (StatusCode::BAD_REQUEST, json!({ "error": problem })),
        Ok(ask) => {
            let (tx, rx) = oneshot::channel();
            let gone = (StatusCode::SERVICE_UNAVAILABLE, json!({ "error": "the host is shutting down" }));
            match questions.send((ask, tx)).await {
                Ok(()) => rx.await.unwrap_or(gone),
                Err(_) => gone,
            }
        }
    };
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = status;
    Ok(response)
}

async fn ask_of(request: Request<Incoming>) -> Result<Ask, String> {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let body = Limited::new(request.into_body(), REQUEST_BYTES_MAX);
    let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
    let body: Value = if body.is_empty() {
        Value::Null
    } else {
        serde_json::from_slice(&body).map_err(|it| it.to_string())?
    };
    let text = |key: &str| body.get(key).and_then(Value::as_str).map(str::to_owned);
    match (method, path.as_str()) {
        (Method::POST, "/apply") => {
            let force = body.get("force").and_then(Value::as_bool).unwrap_or(false);
            let dir = text("dir").ok_or_else(|| "`dir` is missing".to_owned())?;
            Ok(Ask::Apply { dir: dir.into(), force })
        }
        (Method::POST, "/resume") => match (text("tenant"), text("dataflow")) {
            (Some(tenant), Some(dataflow)) => Ok(Ask::Resume { tenant, dataflow }),
            _ => Err("`tenant` and `dataflow` are needed".to_owned()),
        },
        (Method::POST, "/usage") => {
            serde_json::from_value(body).map(|query| Ask::Usage { query }).map_err(|error| error.to_string())
        }
        (Method::POST, "/status") => {
            let busiest = body.get("busiest").and_then(Value::as_u64).map(|count| count as usize);
            match (text("tenant"), text("dataflow")) {
                (Some(tenant), Some(dataflow)) => Ok(Ask::Why { tenant, dataflow }),
                (tenant, _) => Ok(Ask::Status { tenant, busiest }),
            }
        }
        (Method::POST, "/calibrate") => Ok(Ask::Calibrate),
        (Method::POST, "/dead-letters/discard") => filter_of(body).map(|filter| Ask::Discard { filter }),
        (Method::POST, "/dead-letters/replay") => filter_of(body).map(|filter| Ask::Replay { filter }),
        (method, path) => Err(format!("there is no {method} {path}")),
    }
}

fn filter_of(body: Value) -> Result<Filter, String> {
    serde_json::from_value(body).map_err(|error| error.to_string())
}

/// Asks the host of a data folder.
pub async fn ask(data: &Path, path: &str, body: Value) -> Result<(StatusCode, Value), ControlError> {
    let socket = socket_of(data);
    let stream = UnixStream::connect(&socket)
        .await
        .map_err(|source| ControlError::NoHost { path: socket.clone(), source })?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let request = Request::post(path)
        .header("host", "tidegate")
        .body(Full::new(Bytes::from(body.to_string())))
        .expect("a fixed request is in form");
    let response = sender.send_request(request).await?;
    let status = response.status();
    let bytes = response.into_body().collect().await?.to_bytes();
    driver.abort();
    Ok((status, serde_json::from_slice(&bytes)?))
}
