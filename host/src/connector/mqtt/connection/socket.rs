//! `Socket`: a TCP stream whose news can be left unheard. What arrives at one that
//! listens wakes its thread, whether anybody wants to read it or not. Serves the
//! connection; knows bytes only.

use std::{
    io::{self, Read, Write},
    net::Shutdown,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// See the module.
pub(super) struct Socket {
    stream: Stream,
    /// A write found no room, which is news to be listened for.
    is_full: bool,
}

enum Stream {
    /// Registered with the runtime.
    Listening(tokio::net::TcpStream),
    Deaf(std::net::TcpStream),
    /// Changing sides has failed.
    Lost,
}

impl Socket {
    /// It listens at first.
    pub(super) fn new(stream: tokio::net::TcpStream) -> Self {
        Socket { stream: Stream::Listening(stream), is_full: false }
    }

    /// From now on news wakes the task that waits for it, or only if a write found no
    /// room. True if it listens again: then both sides must be tried once more before
    /// waiting for it.
    pub(super) fn listen(&mut self, wanted: bool) -> io::Result<bool> {
        let listens = wanted || self.is_full;
        if listens == matches!(self.stream, Stream::Listening(_)) {
            return Ok(false);
        }
        self.stream = match std::mem::replace(&mut self.stream, Stream::Lost) {
            Stream::Listening(stream) => Stream::Deaf(stream.into_std()?),
            Stream::Deaf(stream) => Stream::Listening(tokio::net::TcpStream::from_std(stream)?),
            Stream::Lost => return Err(io::ErrorKind::NotConnected.into()),
        };
        Ok(listens)
    }

    /// Bytes read, 0 at the end. Deaf, it is pending without a wake-up.
    pub(super) fn poll_read(&mut self, ctx: &mut Context<'_>, bytes: &mut [u8]) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Listening(stream) => {
                let mut buffer = ReadBuf::new(bytes);
                ready!(Pin::new(stream).poll_read(ctx, &mut buffer))?;
                Poll::Ready(Ok(buffer.filled().len()))
            }
            Stream::Deaf(stream) => match stream.read(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
                read => Poll::Ready(read),
            },
            Stream::Lost => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    /// Bytes written.
    pub(super) fn poll_write(&mut self, ctx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = match &mut self.stream {
            Stream::Listening(stream) => Pin::new(stream).poll_write(ctx, bytes),
            Stream::Deaf(stream) => match stream.write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
                written => Poll::Ready(written),
            },
            Stream::Lost => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        };
        self.is_full = written.is_pending();
        written
    }
}

/// For what lies between it and a session, and for the last bytes.
impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        ctx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = ready!(Socket::poll_read(&mut self, ctx, buffer.initialize_unfilled()))?;
        buffer.advance(read);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, ctx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Socket::poll_write(&mut self, ctx, bytes)
    }

    /// What was written is the system's.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, ctx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Listening(stream) => Pin::new(stream).poll_shutdown(ctx),
            Stream::Deaf(stream) => Poll::Ready(stream.shutdown(Shutdown::Write)),
            Stream::Lost => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }
}
