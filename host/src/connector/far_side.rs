//! What connectors do alike that call a server with requests: they read their files, look
//! whether anybody is there, and wait before they try again.

use std::{future::poll_fn, time::Duration};

use tokio::{
    net::{TcpStream, ToSocketAddrs},
    time::{sleep, timeout},
};

use super::{backoff::Backoff, status::Status};
use crate::{clock::Clock, write::SinkQueue};

/// However long the far side asks to be left alone.
pub(super) const ASKED_MAX: Duration = Duration::from_secs(300);
const REACHED_WITHIN: Duration = Duration::from_secs(3);

/// For a far side that cannot be reached, or may take a message later.
pub(super) fn backoff() -> Backoff {
    Backoff::new(Duration::from_millis(200), Duration::from_secs(30))
}

/// What `make` makes, once it can; `None` if the queue is closed before.
pub(super) async fn made<T, F: Future<Output = Result<T, String>>>(
    queue: &SinkQueue,
    status: &Status,
    make: impl Fn() -> F,
) -> Option<T> {
    let mut backoff = backoff();
    loop {
        match make().await {
            Ok(made) => return Some(made),
            Err(error) => status.set_degraded(Clock::System.now(), error),
        }
        tokio::select! {
            () = sleep(backoff.next()) => {}
            () = poll_fn(|ctx| queue.poll_closed(ctx)) => return None,
        }
    }
}

/// Whether anybody is there, so that it is known before there is anything to send.
pub(super) async fn reach(who: &str, address: impl ToSocketAddrs, status: &Status) {
    let error = match timeout(REACHED_WITHIN, TcpStream::connect(address)).await {
        Ok(Ok(_)) => return status.set_connected(),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "nobody answers".to_owned(),
    };
    status.set_degraded(Clock::System.now(), format!("{who} cannot be reached: {error}"));
}
