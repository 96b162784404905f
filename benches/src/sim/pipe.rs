//! `Pipe`: bytes on their way in one direction of a connection. They arrive late and
//! in chunks of any size, in order; what is on its way when it breaks is lost.

use std::{collections::VecDeque, time::Duration};

use bytes::{Buf as _, Bytes, BytesMut};
use rand::Rng as _;
use tidegate::clock::Instant;

use super::stage::Stage;

/// See the module.
#[derive(Default)]
pub(super) struct Pipe {
    chunks: VecDeque<(Instant, Bytes)>,
    bytes: usize,
}

/// What a socket takes before it makes its writer wait.
const BYTES_MAX: usize = 4 << 10;

impl Pipe {
    /// Takes as much as there is room for off the front of `bytes`.
    pub fn send(&mut self, bytes: &mut BytesMut, stage: &mut Stage) {
        let len = bytes.len().min(BYTES_MAX - self.bytes);
        if len == 0 {
            return;
        }
        let mut sent = Bytes::copy_from_slice(&bytes[..len]);
        bytes.advance(len);
        stage.note(&*sent);
        stage.outcome.wire_bytes += len as u64;
        self.bytes += len;
        let mut at = self.chunks.back().map_or(stage.now, |(at, _)| *at);
        while !sent.is_empty() {
            at = at.max(stage.after(20..300));
            if stage.one_in(100) {
                at = at.plus(Duration::from_millis(stage.rng.random_range(1..8)));
            }
            let longest = if stage.one_in(8) { 8 } else { 400 };
            let len = stage.rng.random_range(1..=longest).min(sent.len());
            self.chunks.push_back((at, sent.split_to(len)));
        }
    }

    /// The next chunk that has arrived.
    pub fn receive(&mut self, now: Instant) -> Option<Bytes> {
        if self.next_at()? > now { None } else { self.receive_early() }
    }

    /// The next chunk, arrived or not.
    pub fn receive_early(&mut self) -> Option<Bytes> {
        let (_, chunk) = self.chunks.pop_front()?;
        self.bytes -= chunk.len();
        Some(chunk)
    }

    pub fn next_at(&self) -> Option<Instant> {
        self.chunks.front().map(|(at, _)| *at)
    }

    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }
}

#[cfg(test)]
mod tests;
