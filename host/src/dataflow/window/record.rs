//! Records of windows on disk: keys in the order in which they are taken up, values
//! as the batches that they are. Knows no database.
//!
//! ```text
//! OPERATION 0 'p' moment number   a staged value, or a held message
//! OPERATION 0 'r' number          a release that is not confirmed
//! OPERATION 0 'w'                 watermark, number of the last release
//! SOURCE 0 'c'                    how far windows have what it delivered
//! SOURCE 0 'm' number             messages of a delivery that may be sent again
//! SOURCE 0 'u'                    how far it had been read when volatile windows were
//!                                 complete up to the time that 'w' says
//! ```

use bytes::Bytes;

use crate::{
    batch::{Batch, Entry, Span, Stamped, Time},
    dataflow::{watermark::Moment, window::Change},
};

/// A key, without its operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    Piece { moment: Moment, number: u64 },
    Release { number: u64 },
    Reached,
}

/// What a record says.
#[derive(Debug)]
pub enum Restored {
    Piece { moment: Moment, number: u64, messages: Stamped },
    Release { number: u64, messages: Stamped },
    Reached { moment: Moment, number: u64 },
}

impl Key {
    pub fn to_bytes(self, operation: &str) -> Vec<u8> {
        let mut key = Vec::with_capacity(operation.len() + 30);
        key.extend_from_slice(operation.as_bytes());
        key.push(0);
        match self {
            Key::Piece { moment, number } => {
                key.push(b'p');
                put_moment(&mut key, moment);
                key.extend_from_slice(&number.to_be_bytes());
            }
            Key::Release { number } => {
                key.push(b'r');
                key.extend_from_slice(&number.to_be_bytes());
            }
            Key::Reached => key.push(b'w'),
        }
        key
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (kind, mut rest) = bytes.split_first()?;
        let rest = &mut rest;
        let key = match kind {
            b'p' => Key::Piece { moment: take_moment(rest)?, number: u64::from_be_bytes(take(rest)?) },
            b'r' => Key::Release { number: u64::from_be_bytes(take(rest)?) },
            b'w' => Key::Reached,
            _ => return None,
        };
        rest.is_empty().then_some(key)
    }
}

fn put_moment(bytes: &mut Vec<u8>, moment: Moment) {
    bytes.extend_from_slice(&moment.seconds.to_be_bytes());
    bytes.extend_from_slice(&moment.nanos.to_be_bytes());
    bytes.extend_from_slice(&moment.counter.to_be_bytes());
}

fn take_moment(bytes: &mut &[u8]) -> Option<Moment> {
    let (seconds, nanos) = (u64::from_be_bytes(take(bytes)?), u32::from_be_bytes(take(bytes)?));
    Some(Moment { seconds, nanos, counter: u64::from_be_bytes(take(bytes)?) })
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*first)
}

/// Messages with their logical times: how many of each, the records, then the arena.
/// Nodes of `times` are in the arena, or in `nodes` if there is one, which follows it.
pub fn write(batch: &Batch, times: &[Time], nodes: &[u8]) -> Vec<u8> {
    let (entries_bytes, times_bytes) =
        (bytemuck::cast_slice::<Entry, u8>(&batch.entries), size_of_val(times));
    let mut bytes =
        Vec::with_capacity(8 + entries_bytes.len() + times_bytes + batch.arena.len() + nodes.len());
    bytes.extend_from_slice(&(batch.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&(times.len() as u32).to_le_bytes());
    bytes.extend_from_slice(entries_bytes);
    for time in times {
        let moved = if nodes.is_empty() { 0 } else { batch.arena.len() as u32 };
        let node = Span { offset: time.node.offset.saturating_add(moved), ..time.node };
        bytes.extend_from_slice(bytemuck::bytes_of(&Time { node, ..*time }));
    }
    bytes.extend_from_slice(&batch.arena);
    bytes.extend_from_slice(nodes);
    bytes
}

/// The watermark up to which a window has released, and the last release's number.
pub fn reached(moment: Moment, number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_moment(&mut bytes, moment);
    bytes.extend_from_slice(&number.to_be_bytes());
    bytes
}

/// What windows have of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Had {
    /// All messages of a stream up to a place.
    Upto { stream: [u64; 2], is_one_of_many: bool, place: u64 },
    /// Of the delivery of a number these messages, by packet id and digest.
    Sent(u64, Vec<(u16, u64)>),
    /// Those messages of a stream up to a place whose windows are complete.
    Complete([u64; 2], u64),
}

/// The record that says so.
pub fn had(source: &str, had: &Had) -> Change {
    let place = |stream: &[u64; 2], place: u64| [stream[0], stream[1], place].map(u64::to_be_bytes).concat();
    let (key, value) = match had {
        Had::Upto { stream, is_one_of_many, place: upto } => {
            // The record of the last stream takes the place of the one before.
            let many = if *is_one_of_many { stream.map(u64::to_be_bytes).concat() } else { Vec::new() };
            ([source.as_bytes(), &[0, b'c'], &many].concat(), place(stream, *upto))
        }
        Had::Complete(stream, upto) => ([source.as_bytes(), &[0, b'u']].concat(), place(stream, *upto)),
        Had::Sent(number, messages) => {
            let message = |(id, digest): &(u16, u64)| {
                [id.to_be_bytes().as_slice(), digest.to_be_bytes().as_slice()].concat()
            };
            (sent_key(source, *number), messages.iter().flat_map(message).collect())
        }
    };
    (key, Some(value))
}

/// None of the messages of this delivery comes again.
pub fn not_again(source: &str, number: u64) -> Change {
    (sent_key(source, number), None)
}

fn sent_key(source: &str, number: u64) -> Vec<u8> {
    [source.as_bytes(), &[0, b'm'], &number.to_be_bytes()].concat()
}

fn read_place(value: &mut &[u8]) -> Option<([u64; 2], u64)> {
    let mut number = || Some(u64::from_be_bytes(take(value)?));
    Some(([number()?, number()?], number()?))
}

/// Reads what [`had`] wrote.
pub fn read_had<'k>(key: &'k [u8], value: &[u8]) -> Option<(&'k str, Had)> {
    // Numbers in other keys may look like this at their end.
    let end = key.iter().position(|byte| *byte == 0)?;
    let source = std::str::from_utf8(&key[..end]).ok()?;
    let rest = &mut &value[..];
    let had = match key[end + 1..].split_first()? {
        (b'c', many) if matches!(many.len(), 0 | 16) => {
            let (stream, place) = read_place(rest)?;
            Had::Upto { stream, is_one_of_many: !many.is_empty(), place }
        }
        (b'u', []) => {
            let (stream, place) = read_place(rest)?;
            Had::Complete(stream, place)
        }
        (b'm', number) => {
            let mut messages = Vec::with_capacity(value.len() / 10);
            while !rest.is_empty() {
                messages.push((u16::from_be_bytes(take(rest)?), u64::from_be_bytes(take(rest)?)));
            }
            Had::Sent(u64::from_be_bytes(number.try_into().ok()?), messages)
        }
        _ => return None,
    };
    Some((source, had))
}

/// Reads a record of the operation that `find` knows.
pub fn read(key: &[u8], value: &[u8], find: impl Fn(&str) -> Option<usize>) -> Option<(usize, Restored)> {
    let end = key.iter().position(|byte| *byte == 0)?;
    let window = find(std::str::from_utf8(&key[..end]).ok()?)?;
    let restored = match Key::from_bytes(&key[end + 1..])? {
        Key::Piece { moment, number } => Restored::Piece { moment, number, messages: read_messages(value)? },
        Key::Release { number } => Restored::Release { number, messages: read_messages(value)? },
        Key::Reached => {
            let rest = &mut &value[..];
            let moment = take_moment(rest)?;
            Restored::Reached { moment, number: u64::from_be_bytes(take(rest)?) }
        }
    };
    Some((window, restored))
}

fn read_messages(bytes: &[u8]) -> Option<Stamped> {
    let rest = &mut &bytes[..];
    let entries = u32::from_le_bytes(take(rest)?) as usize;
    let times = u32::from_le_bytes(take(rest)?) as usize;
    let (entries, others) = rest.split_at_checked(entries.checked_mul(size_of::<Entry>())?)?;
    let (times, arena) = others.split_at_checked(times.checked_mul(size_of::<Time>())?)?;
    let entries: Vec<Entry> = bytemuck::pod_collect_to_vec(entries);
    let times: Vec<Time> = bytemuck::pod_collect_to_vec(times);
    let fit = entries.iter().flat_map(Entry::spans).chain(times.iter().map(|time| time.node));
    let sound = fit.fold(true, |sound, span| sound & span.fits(arena.len()));
    let batch = Batch { entries, arena: Bytes::copy_from_slice(arena) };
    sound.then_some(Stamped { batch, times })
}

#[cfg(test)]
mod tests;
