//! `Deframer`: cuts what a read brought into packets, for both ends of the MQTT
//! connector. Keeps nothing but the packet that is not yet whole; knows of packets
//! only where they begin and end.

use bytes::{Buf, BytesMut};

use super::SessionError;

/// Largest packet that MQTT can frame: a length of four bytes, seven bits each.
pub(super) const REMAINING_BYTES_MAX: usize = 268_435_455;

/// What the bytes read so far make up.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// A whole packet: its first byte, and all that follows its length.
    Packet { first: u8, body: &'a [u8] },
    /// The beginning of a PUBLISH too large to keep; its other bytes are skipped.
    Head { first: u8, head: &'a [u8], body_bytes: usize },
    /// The last byte of the packet whose head was given.
    HeadEnd,
}

/// Holds the bytes of an unfinished packet between two reads.
#[derive(Debug, Default)]
pub(super) struct Deframer {
    /// A PUBLISH with a body beyond this is given by its first `head_bytes` only.
    whole_bytes_max: usize,
    /// Any packet beyond this is an error.
    packet_bytes_max: usize,
    partial: BytesMut,
    skipping: usize,
}

impl Deframer {
    pub(super) fn new(whole_bytes_max: usize, packet_bytes_max: usize) -> Self {
        assert!(whole_bytes_max <= packet_bytes_max && packet_bytes_max <= REMAINING_BYTES_MAX);
        Deframer { whole_bytes_max, packet_bytes_max, partial: BytesMut::new(), skipping: 0 }
    }

    /// Forgets what an ended connection left unfinished.
    pub(super) fn clear(&mut self) {
        self.partial = BytesMut::new();
        self.skipping = 0;
    }

    /// Gives every piece that `bytes` completes to `take`, in order.
    pub(super) fn feed(
        &mut self,
        mut bytes: &[u8],
        mut take: impl FnMut(Piece<'_>) -> Result<(), SessionError>,
    ) -> Result<(), SessionError> {
        while !bytes.is_empty() {
            if self.skipping > 0 {
                let skipped = self.skipping.min(bytes.len());
                bytes = &bytes[skipped..];
                self.skipping -= skipped;
                if self.skipping == 0 {
                    take(Piece::HeadEnd)?;
                }
                continue;
            }
            if self.partial.is_empty() {
                bytes = self.feed_slice(bytes, &mut take)?;
                self.partial.extend_from_slice(bytes);
                return Ok(());
            }
            self.feed_partial(&mut bytes, &mut take)?;
        }
        Ok(())
    }

    /// Takes packets straight from what was read, without a copy; gives back the
    /// bytes of one that is not whole yet.
    fn feed_slice<'b>(
        &mut self,
        mut bytes: &'b [u8],
        take: &mut impl FnMut(Piece<'_>) -> Result<(), SessionError>,
    ) -> Result<&'b [u8], SessionError> {
        while let Some(header) = self.header(bytes)? {
            let Some(body) = bytes.get(header.len..header.len + header.kept) else { break };
            let first = bytes[0];
            bytes = &bytes[header.len + header.kept..];
            if header.kept == header.body {
                take(Piece::Packet { first, body })?;
                continue;
            }
            take(Piece::Head { first, head: body, body_bytes: header.body })?;
            let left = header.body - header.kept;
            let skipped = left.min(bytes.len());
            bytes = &bytes[skipped..];
            self.skipping = left - skipped;
            if self.skipping > 0 {
                return Ok(bytes);
            }
            take(Piece::HeadEnd)?;
        }
        Ok(bytes)
    }

    /// Adds to the unfinished packet no more than it lacks, and takes it if that
    /// was all.
    fn feed_partial(
        &mut self,
        bytes: &mut &[u8],
        take: &mut impl FnMut(Piece<'_>) -> Result<(), SessionError>,
    ) -> Result<(), SessionError> {
        let lacking = match self.header(&self.partial)? {
            Some(header) => header.len + header.kept - self.partial.len(),
            // One byte of the length at a time, which happens twice at most.
            None => 1,
        };
        let added = lacking.min(bytes.len());
        self.partial.extend_from_slice(&bytes[..added]);
        bytes.advance(added);
        let Some(header) = self.header(&self.partial)? else { return Ok(()) };
        if self.partial.len() < header.len + header.kept {
            return Ok(());
        }
        // A fresh buffer for the next one: an idle connection holds none.
        let packet = std::mem::take(&mut self.partial);
        let (first, body) = (packet[0], &packet[header.len..]);
        if header.kept == header.body {
            return take(Piece::Packet { first, body });
        }
        self.skipping = header.body - header.kept;
        take(Piece::Head { first, head: body, body_bytes: header.body })
    }

    fn header(&self, bytes: &[u8]) -> Result<Option<Header>, SessionError> {
        let [first, rest @ ..] = bytes else { return Ok(None) };
        let Some((len_len, body)) = variable_length(rest)? else { return Ok(None) };
        if body > self.packet_bytes_max {
            return Err(SessionError::TooLarge { bytes: body, bytes_max: self.packet_bytes_max });
        }
        if body <= self.whole_bytes_max {
            return Ok(Some(Header { len: 1 + len_len, body, kept: body }));
        }
        if first >> 4 != super::publish::PACKET_TYPE {
            return Err(SessionError::TooLarge { bytes: body, bytes_max: self.whole_bytes_max });
        }
        Ok(Some(Header { len: 1 + len_len, body, kept: self.whole_bytes_max }))
    }
}

struct Header {
    /// Bytes of the packet's first byte and length.
    len: usize,
    /// Bytes that follow them.
    body: usize,
    /// How many of those are kept.
    kept: usize,
}

/// A variable byte integer: how many bytes it takes, and its value. `None` when
/// `bytes` end within it.
pub(super) fn variable_length(bytes: &[u8]) -> Result<Option<(usize, usize)>, SessionError> {
    let mut value = 0;
    for (i, byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return Ok(Some((i + 1, value)));
        }
    }
    if bytes.len() < 4 { Ok(None) } else { Err(SessionError::Malformed("length of more than four bytes")) }
}

/// Appends `value` as a variable byte integer.
pub(super) fn push_variable_length(out: &mut BytesMut, mut value: usize) {
    debug_assert!(value <= REMAINING_BYTES_MAX);
    while value >= 0x80 {
        out.extend_from_slice(&[value as u8 | 0x80]);
        value >>= 7;
    }
    out.extend_from_slice(&[value as u8]);
}

/// How many bytes [`push_variable_length`] appends.
pub(super) fn variable_length_len(value: usize) -> usize {
    match value {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        0x4000..0x20_0000 => 3,
        _ => 4,
    }
}

#[cfg(test)]
mod tests;
