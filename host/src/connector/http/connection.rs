//! One connection to the server: its handshake, its requests, and its end, which no client
//! can put off. Knows no messages.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::watch,
    time::{Sleep, sleep, timeout},
};
use tokio_rustls::TlsAcceptor;

use super::{server::Shared, service};

/// The head of one request, with all its headers.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Requests at once on one connection of HTTP/2, and what of their bodies may wait to be read:
/// of one, and of all.
const STREAMS_MAX: u32 = 128;
const STREAM_BYTES_MAX: u32 = 64 << 10;
const WAITING_BYTES_MAX: u32 = 256 << 10;

/// Until the client is gone, or has been too slow, or the server closes.
pub(super) async fn serve(shared: Arc<Shared>, stream: TcpStream, acceptor: Option<TlsAcceptor>) {
    // Answers are small, and wait for nothing.
    let _ = stream.set_nodelay(true);
    let within = shared.settings.header_timeout;
    let Some(acceptor) = acceptor else { return speak(&shared, stream).await };
    match timeout(within, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => speak(&shared, stream).await,
        Ok(Err(error)) => {
            tracing::debug!(%error, "a handshake failed");
            shared.counters.broken.add(1);
        }
        Err(_) => shared.counters.slow.add(1),
    }
}

async fn speak(shared: &Arc<Shared>, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
    let within = shared.settings.header_timeout;
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(within).max_buf_size(HEAD_BYTES_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .initial_stream_window_size(STREAM_BYTES_MAX)
        .initial_connection_window_size(WAITING_BYTES_MAX)
        .max_header_list_size(HEAD_BYTES_MAX as u32)
        .keep_alive_interval(within)
        .keep_alive_timeout(within);
    let activity = Arc::<Activity>::default();
    let service = {
        let (shared, activity) = (shared.clone(), activity.clone());
        service_fn(move |request| {
            let (shared, active) = (shared.clone(), Active::new(&activity));
            async move {
                let response = service::answer(&shared, request).await;
                drop(active);
                Ok::<_, std::convert::Infallible>(response)
            }
        })
    };
    let connection = builder.serve_connection(TokioIo::new(Patient::new(stream, within)), service);
    let mut connection = std::pin::pin!(connection);
    let mut closing = shared.closing.subscribe();
    let mut seen = 0;
    let ended = loop {
        tokio::select! {
            ended = connection.as_mut() => break ended,
            () = closed(&mut closing) => {
                connection.as_mut().graceful_shutdown();
                break connection.await;
            }
            () = sleep(within) => {
                let begun = activity.begun.load(Ordering::Relaxed);
                let is_idle = activity.open.load(Ordering::Relaxed) == 0 && begun == seen;
                if is_idle {
                    // Also one that has said nothing yet, which hyper would wait for.
                    connection.as_mut().graceful_shutdown();
                    if begun == 0 {
                        shared.counters.slow.add(1);
                        return;
                    }
                }
                seen = begun;
            }
        }
    };
    if let Err(error) = ended {
        note_error(shared, &*error);
    }
}

/// Ready once the server closes.
pub(super) async fn closed(closing: &mut watch::Receiver<bool>) {
    // Whoever could say so is gone itself otherwise.
    let _ = closing.wait_for(|is_closing| *is_closing).await;
}

fn note_error(shared: &Shared, error: &(dyn std::error::Error + 'static)) {
    tracing::debug!(error = %crate::deploy::chain(error), "a connection ended");
    let mut cause = Some(error);
    while let Some(error) = cause {
        let is_slow = error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_timeout)
            || error.downcast_ref::<io::Error>().is_some_and(|it| it.kind() == io::ErrorKind::TimedOut);
        if is_slow {
            return shared.counters.slow.add(1);
        }
        if error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse) {
            return shared.counters.broken.add(1);
        }
        cause = error.source();
    }
    shared.counters.cut.add(1);
}

/// What a connection does.
#[derive(Debug, Default)]
struct Activity {
    begun: AtomicU64,
    open: AtomicUsize,
}

/// A request that is not answered yet.
struct Active(Arc<Activity>);

impl Active {
    fn new(activity: &Arc<Activity>) -> Self {
        activity.begun.fetch_add(1, Ordering::Relaxed);
        activity.open.fetch_add(1, Ordering::Relaxed);
        Active(activity.clone())
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A stream whose far side must take in something now and then of what it is sent.
struct Patient<S> {
    stream: S,
    within: Duration,
    /// When it has taken in nothing for too long.
    until: Option<Pin<Box<Sleep>>>,
}

impl<S> Patient<S> {
    fn new(stream: S, within: Duration) -> Self {
        Patient { stream, within, until: None }
    }

    fn watch<T>(&mut self, ctx: &mut Context<'_>, done: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if done.is_ready() {
            self.until = None;
            return done;
        }
        let until = self.until.get_or_insert_with(|| Box::pin(sleep(self.within)));
        match until.as_mut().poll(ctx) {
            Poll::Ready(()) => {
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing in")))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        ctx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(ctx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(mut self: Pin<&mut Self>, ctx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.stream).poll_write(ctx, bytes);
        self.watch(ctx, done)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        ctx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.stream).poll_write_vectored(ctx, bytes);
        self.watch(ctx, done)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, ctx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.stream).poll_flush(ctx);
        self.watch(ctx, done)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, ctx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.stream).poll_shutdown(ctx);
        self.watch(ctx, done)
    }
}
