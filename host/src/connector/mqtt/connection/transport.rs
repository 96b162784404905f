//! `Transport`: what a connection moves a session's bytes over: a socket, or layers over
//! one. Knows bytes only.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio_rustls::client::TlsStream;

use super::socket::Socket;

/// See the module.
pub(super) enum Transport {
    Plain(Socket),
    Layered {
        layer: Box<dyn Layer>,
        /// It holds bytes that the socket had no room for.
        is_unflushed: bool,
    },
}

/// What makes other bytes of a session's on their way to a socket.
pub(super) trait Layer: AsyncRead + AsyncWrite + Unpin + Send {
    fn socket(&mut self) -> &mut Socket;
}

impl Layer for Socket {
    fn socket(&mut self) -> &mut Socket {
        self
    }
}

impl<L: Layer> Layer for TlsStream<L> {
    fn socket(&mut self) -> &mut Socket {
        self.get_mut().0.socket()
    }
}

impl Transport {
    pub(super) fn layered(layer: impl Layer + 'static) -> Self {
        Transport::Layered { layer: Box::new(layer), is_unflushed: false }
    }

    /// See [`Socket::listen`].
    pub(super) fn listen(&mut self, wanted: bool) -> io::Result<bool> {
        match self {
            Transport::Plain(socket) => socket.listen(wanted),
            Transport::Layered { layer, .. } => layer.socket().listen(wanted),
        }
    }

    /// Bytes read, 0 at the end.
    pub(super) fn poll_read(&mut self, ctx: &mut Context<'_>, bytes: &mut [u8]) -> Poll<io::Result<usize>> {
        let layer = match self {
            Transport::Plain(socket) => return socket.poll_read(ctx, bytes),
            Transport::Layered { layer, .. } => layer,
        };
        let mut buffer = ReadBuf::new(bytes);
        match ready!(Pin::new(layer).poll_read(ctx, &mut buffer)) {
            // Whoever closes the socket need not say so in every layer.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(0)),
            Err(error) => Poll::Ready(Err(error)),
            Ok(()) => Poll::Ready(Ok(buffer.filled().len())),
        }
    }

    /// Bytes taken.
    pub(super) fn poll_write(&mut self, ctx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let (layer, is_unflushed) = match self {
            Transport::Plain(socket) => return socket.poll_write(ctx, bytes),
            Transport::Layered { layer, is_unflushed } => (layer, is_unflushed),
        };
        let written = ready!(Pin::new(layer).poll_write(ctx, bytes))?;
        *is_unflushed = true;
        self.flush(ctx)?;
        Poll::Ready(Ok(written))
    }

    /// Writes what a layer still holds, as far as the socket has room.
    pub(super) fn flush(&mut self, ctx: &mut Context<'_>) -> io::Result<()> {
        if let Transport::Layered { layer, is_unflushed: is_unflushed @ true } = self
            && let Poll::Ready(flushed) = Pin::new(layer).poll_flush(ctx)
        {
            *is_unflushed = false;
            flushed?;
        }
        Ok(())
    }

    /// Writes what is left and waits until the broker hangs up, which shows that it has
    /// read it: the next client of this id would otherwise take over the session before
    /// the broker has seen the last PUBACKs.
    pub(super) async fn leave(mut self, outgoing: &[u8]) -> io::Result<()> {
        self.listen(true)?;
        match self {
            Transport::Plain(socket) => leave(socket, outgoing).await,
            Transport::Layered { layer, .. } => leave(layer, outgoing).await,
        }
    }
}

async fn leave(mut stream: impl AsyncRead + AsyncWrite + Unpin, outgoing: &[u8]) -> io::Result<()> {
    stream.write_all(outgoing).await?;
    stream.shutdown().await?;
    let mut bytes = [0; 1024];
    while stream.read(&mut bytes).await? > 0 {}
    Ok(())
}
