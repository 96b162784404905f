//! The connection of one MQTT client: a task that opens its transport, moves bytes
//! between it and the session, and opens it again when it is lost. One read and one
//! write a turn, however many packets they hold; knows nothing of packets.

mod remote;
mod transport;
mod web;
mod socket;

use std::{
    cell::RefCell,
    future::{Future, poll_fn},
    io,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Buf;
use tokio::time::{Sleep, timeout};

use self::transport::Transport;
use super::{Session, SessionError};
use crate::clock::{Clock, Instant};

pub use self::{remote::Remote, web::WebError};
pub use crate::connector::tls::TlsError;

/// How long a connection may take to come about, with a handshake if there is one.
const DIAL_WITHIN: Duration = Duration::from_secs(10);
/// How long the last bytes may take.
const FAREWELL_WITHIN: Duration = Duration::from_secs(2);
/// Most that one read brings.
const READ_BYTES: usize = 64 << 10;
/// After as many turns in a row other tasks get theirs.
const TURNS_MAX: usize = 16;

thread_local! {
    /// Every connection of a thread reads into the same bytes and takes from them
    /// at once what it keeps, so that an idle one holds no buffer.
    static READ_BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

/// Keeps `session` connected to `remote` until it has finished.
pub async fn run<S: Session>(remote: Remote, session: Box<S>, clock: Clock) {
    let timer = Timer { sleep: Box::pin(tokio::time::sleep(Duration::ZERO)), fires_at: None };
    let mut connection = Connection { session, clock, timer };
    while let Some(dialled) = connection.dial(&remote).await {
        let error = match dialled {
            Ok(transport) => match connection.drive(transport).await {
                Ok(()) => return,
                Err(error) => error,
            },
            Err(error) => error,
        };
        connection.session.disconnected(connection.clock.now(), &error);
    }
}

struct Connection<S> {
    session: Box<S>,
    clock: Clock,
    timer: Timer,
}

impl<S: Session> Connection<S> {
    /// Waits until it is time, then opens a transport; `None` once the session has
    /// finished.
    async fn dial(&mut self, remote: &Remote) -> Option<Result<Transport, SessionError>> {
        let due = poll_fn(|ctx| {
            loop {
                let now = self.clock.now();
                ready!(self.poll_offline(ctx, now));
                if self.session.is_finished() || self.session.wants_connection(now) {
                    return Poll::Ready(());
                }
                ready!(self.timer.poll_until(self.session.deadline(), now, ctx));
            }
        });
        due.await;
        let mut dialling = pin!(timeout(DIAL_WITHIN, remote.dial()));
        let dialled = poll_fn(|ctx| {
            let now = self.clock.now();
            if self.poll_offline(ctx, now).is_ready() && self.session.is_finished() {
                return Poll::Ready(None);
            }
            dialling.as_mut().poll(ctx).map(Some)
        });
        match dialled.await? {
            Ok(dialled) => Some(dialled),
            Err(_) => Some(Err(SessionError::Io(io::ErrorKind::TimedOut.into()))),
        }
    }

    /// Without a transport there is only the door to look at.
    fn poll_offline(&mut self, ctx: &mut Context<'_>, now: Instant) -> Poll<()> {
        self.session.poll(ctx, now).expect("a session without a connection has nobody to fail it");
        Poll::Ready(())
    }

    /// Moves bytes until the session has finished, or the transport is lost.
    async fn drive(&mut self, mut transport: Transport) -> Result<(), SessionError> {
        self.session.connected(self.clock.now())?;
        poll_fn(|ctx| self.poll_turns(&mut transport, ctx)).await?;
        // What is lost now, the last PUBACKs and our DISCONNECT, costs duplicates.
        let _ = timeout(FAREWELL_WITHIN, transport.leave(self.session.outgoing())).await;
        Ok(())
    }

    fn poll_turns(
        &mut self,
        transport: &mut Transport,
        ctx: &mut Context<'_>,
    ) -> Poll<Result<(), SessionError>> {
        for _ in 0..TURNS_MAX {
            let now = self.clock.now();
            let wanted_read = self.session.wants_read();
            let has_read = wanted_read && self.read(transport, now, ctx)?;
            self.session.poll(ctx, now)?;
            if self.session.is_finished() {
                return Poll::Ready(Ok(()));
            }
            let has_written = self.write(transport, ctx)?;
            if has_read || has_written {
                continue;
            }
            let wants_read = self.session.wants_read();
            let listens_again = transport.listen(wants_read).map_err(SessionError::Io)?;
            if listens_again || (wants_read && !wanted_read) {
                // It has not been asked for yet.
                continue;
            }
            ready!(self.timer.poll_until(self.session.deadline(), now, ctx));
        }
        ctx.waker().wake_by_ref();
        Poll::Pending
    }

    /// One read, if there is something.
    fn read(
        &mut self,
        transport: &mut Transport,
        now: Instant,
        ctx: &mut Context<'_>,
    ) -> Result<bool, SessionError> {
        READ_BUFFER.with_borrow_mut(|bytes| match transport.poll_read(ctx, bytes) {
            Poll::Pending => Ok(false),
            Poll::Ready(Err(error)) => Err(SessionError::Io(error)),
            Poll::Ready(Ok(0)) => Err(SessionError::Closed),
            Poll::Ready(Ok(read)) => self.session.received(&bytes[..read], now).map(|()| true),
        })
    }

    /// One write, if there is something.
    fn write(&mut self, transport: &mut Transport, ctx: &mut Context<'_>) -> Result<bool, SessionError> {
        let outgoing = self.session.outgoing();
        if outgoing.is_empty() {
            transport.flush(ctx).map_err(SessionError::Io)?;
            return Ok(false);
        }
        match transport.poll_write(ctx, outgoing) {
            Poll::Pending => Ok(false),
            Poll::Ready(Err(error)) => Err(SessionError::Io(error)),
            // Clearing keeps the buffer where it is.
            Poll::Ready(Ok(written)) if written == outgoing.len() => {
                outgoing.clear();
                Ok(true)
            }
            Poll::Ready(Ok(written)) => {
                outgoing.advance(written);
                Ok(true)
            }
        }
    }
}

/// A timer that is set anew only for an earlier deadline or when it has fired, not
/// whenever a deadline moves on.
struct Timer {
    sleep: Pin<Box<Sleep>>,
    fires_at: Option<Instant>,
}

impl Timer {
    /// Ready when `deadline` has come, at `now`.
    fn poll_until(&mut self, deadline: Option<Instant>, now: Instant, ctx: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = deadline else { return Poll::Pending };
        if deadline <= now {
            self.fires_at = None;
            return Poll::Ready(());
        }
        if self.fires_at.is_some_and(|at| now < at && at <= deadline) {
            // It is set, and this task is already registered with it.
            return Poll::Pending;
        }
        self.fires_at = Some(deadline);
        self.sleep.as_mut().reset(tokio::time::Instant::now() + deadline.since(now));
        ready!(self.sleep.as_mut().poll(ctx));
        self.fires_at = None;
        Poll::Ready(())
    }
}
