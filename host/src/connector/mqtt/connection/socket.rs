//! `Socket`: a TCP stream whose news can be left unheard. What arrives at one that
//! listens wakes its thread, whether anybody wants to read it or not. Serves the
//! connection; knows bytes only.

use std::{
    io::{self, Read, Write},
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

    /// The stream, to be waited for as usual.
    pub(super) fn into_stream(self) -> io::Result<tokio::net::TcpStream> {
        match self.stream {
            Stream::Listening(stream) => Ok(stream),
            Stream::Deaf(stream) => tokio::net::TcpStream::from_std(stream),
            Stream::Lost => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}
