//! `WebStream`: a stream of bytes in the binary frames of a WebSocket, which may cut it
//! anywhere. Knows nothing of what the bytes say.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes};
use futures_util::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{
        self, ClientRequestBuilder, Error, Message,
        error::ProtocolError,
        http::{Uri, uri::InvalidUri},
        protocol::WebSocketConfig,
    },
};

use super::{socket::Socket, transport::Layer};
use crate::connector::mqtt::link::PACKET_BYTES_MAX;

/// Where brokers answer, and what they are asked to speak (MQTT 5.0, 6).
const PATH: &str = "/mqtt";
const SUBPROTOCOL: &str = "mqtt";
/// Largest frame and message: brokers may put more than one packet into each.
const MESSAGE_BYTES_MAX: usize = 2 * PACKET_BYTES_MAX;
/// What each connection reads into; the library's 128 KiB would be most of what it holds.
const READ_BYTES: usize = 8 << 10;

/// Why there is no WebSocket.
#[derive(Debug, thiserror::Error)]
pub enum WebError {
    #[error("`{address}` cannot be asked for")]
    Address { address: String, source: InvalidUri },
    #[error("the broker did not agree to it")]
    Handshake(#[source] Box<tungstenite::Error>),
}

/// See the module.
pub(super) struct WebStream<L> {
    frames: WebSocketStream<L>,
    /// What was read and not yet asked for.
    rest: Bytes,
}

impl<L: Layer> WebStream<L> {
    /// Asks the broker at `address` (`host:port`) for one over `layer`.
    pub(super) async fn open(address: &str, layer: L) -> Result<Self, WebError> {
        let uri = format!("ws://{address}{PATH}").parse::<Uri>();
        let uri = uri.map_err(|source| WebError::Address { address: address.to_owned(), source })?;
        let request = ClientRequestBuilder::new(uri).with_sub_protocol(SUBPROTOCOL);
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BYTES)
            .max_message_size(Some(MESSAGE_BYTES_MAX))
            .max_frame_size(Some(MESSAGE_BYTES_MAX));
        let (frames, _) = client_async_with_config(request, layer, Some(config))
            .await
            .map_err(|error| WebError::Handshake(Box::new(error)))?;
        Ok(WebStream { frames, rest: Bytes::new() })
    }

    /// Waits for a message of bytes; `false` at the end.
    fn poll_fill(&mut self, ctx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        while self.rest.is_empty() {
            match ready!(Pin::new(&mut self.frames).poll_next(ctx)) {
                None => return Poll::Ready(Ok(false)),
                Some(Ok(Message::Binary(bytes))) => self.rest = bytes,
                Some(Ok(Message::Text(_))) => {
                    let error = io::Error::new(io::ErrorKind::InvalidData, "a frame of text");
                    return Poll::Ready(Err(error));
                }
                // The library answers what has to be.
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_))) => {}
                Some(Err(error)) => match io_error(error) {
                    Some(error) => return Poll::Ready(Err(error)),
                    None => return Poll::Ready(Ok(false)),
                },
            }
        }
        Poll::Ready(Ok(true))
    }
}

/// `None` if it says no more than that the stream has ended.
fn io_error(error: Error) -> Option<io::Error> {
    match error {
        Error::Io(error) => Some(error),
        Error::ConnectionClosed | Error::AlreadyClosed => None,
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => None,
        error => Some(io::Error::other(error)),
    }
}

/// The same for who writes.
fn written(result: Result<(), Error>) -> io::Result<()> {
    result.map_err(|error| io_error(error).unwrap_or_else(|| io::ErrorKind::BrokenPipe.into()))
}

impl<L: Layer> Layer for WebStream<L> {
    fn socket(&mut self) -> &mut Socket {
        self.frames.get_mut().socket()
    }
}

impl<L: Layer> AsyncRead for WebStream<L> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        ctx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if ready!(self.poll_fill(ctx))? {
            let len = self.rest.len().min(buffer.remaining());
            buffer.put_slice(&self.rest[..len]);
            self.rest.advance(len);
        }
        Poll::Ready(Ok(()))
    }
}

impl<L: Layer> AsyncWrite for WebStream<L> {
    /// All of it is one frame.
    fn poll_write(mut self: Pin<&mut Self>, ctx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut frames = Pin::new(&mut self.frames);
        written(ready!(frames.as_mut().poll_ready(ctx)))?;
        written(frames.start_send(Message::Binary(Bytes::copy_from_slice(bytes))))?;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, ctx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.frames).poll_flush(ctx).map(written)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, ctx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.frames).poll_close(ctx).map(written)
    }
}

#[cfg(test)]
mod tests;
