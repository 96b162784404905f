//! Hybrid logical clocks: the time of a message, from its `__ts` property or from
//! the host. Serves ingest, which stamps, and sinks, which write `__ts`.

use std::time::Duration;

use bytes::BytesMut;

use crate::batch::{Batch, Entry, Properties, Span};

/// The user property that carries a message's time, as AIO names it.
pub const PROPERTY: &str = "__ts";

/// Furthest that another's clock may run ahead: it is followed no further, and its
/// messages are no later.
const DRIFT_MAX: Duration = Duration::from_secs(60);

/// The host's own clock: never goes back, and past what it has seen of others.
#[derive(Debug, Default)]
pub struct Hlc {
    ms: u64,
    counter: u64,
}

/// A point of a hybrid logical clock, without its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Point {
    pub ms: u64,
    pub counter: u64,
}

/// Messages whose own time could not be taken as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amended {
    /// Further ahead than clocks may drift: held to the furthest.
    pub ahead: u64,
    /// No time at all: given the host's.
    pub unreadable: u64,
}

impl Hlc {
    /// The next point, later than every one before. `wall` is the time since the
    /// Unix epoch.
    pub fn tick(&mut self, wall: Duration) -> Point {
        let now_ms = wall.as_millis() as u64;
        if now_ms > self.ms {
            (self.ms, self.counter) = (now_ms, 0);
        } else {
            self.counter += 1;
        }
        Point { ms: self.ms, counter: self.counter }
    }

    /// Follows another's point, unless it is further ahead than clocks may drift.
    pub fn observe(&mut self, other: Point, wall: Duration) {
        if Duration::from_millis(other.ms) > wall + DRIFT_MAX {
            return;
        }
        if (other.ms, other.counter) > (self.ms, self.counter) {
            (self.ms, self.counter) = (other.ms, other.counter);
        }
    }

    /// Gives every message of a delivery its logical time: its own `__ts` if it
    /// has one that can be read, that of its source, the host's otherwise. One that is far ahead would
    /// complete every window before it, so that it is held back.
    pub fn stamp(&mut self, batch: &mut Batch, wall: Duration) -> Amended {
        let arena = batch.arena.clone();
        let furthest = Point { ms: (wall + DRIFT_MAX).as_millis() as u64, counter: 0 };
        let mut amended = Amended::default();
        for entry in &mut batch.entries {
            let (point, node) = match own_time(entry, &arena) {
                Own::At(point, node) if point.ms > furthest.ms => {
                    amended.ahead += 1;
                    (furthest, node)
                }
                Own::At(point, node) => {
                    self.observe(point, wall);
                    (point, node)
                }
                own => {
                    amended.unreadable += u64::from(own == Own::Unreadable);
                    (self.tick(wall), entry.node)
                }
            };
            entry.seconds = point.ms / 1000;
            entry.nanos = (point.ms % 1000) as u32 * 1_000_000;
            entry.counter = point.counter;
            entry.node = node;
        }
        amended
    }
}

/// What a message says of its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Own {
    Nothing,
    Unreadable,
    At(Point, Span),
}

fn own_time(entry: &Entry, arena: &[u8]) -> Own {
    // The time that its source knows.
    let of_source = || {
        let ms = entry.ms();
        if ms == 0 { Own::Nothing } else { Own::At(Point { ms, counter: entry.counter }, entry.node) }
    };
    if entry.properties.is_absent() {
        return of_source();
    }
    let encoded = entry.properties.bytes(arena);
    let Some((_, value)) = Properties::of(encoded).find(|(key, _)| *key == PROPERTY.as_bytes()) else {
        return of_source();
    };
    let Some((point, node)) = parse(value) else { return Own::Unreadable };
    // Where the node stands in the arena: both are slices of it.
    let offset = node.as_ptr() as usize - arena.as_ptr() as usize;
    Own::At(point, Span { offset: offset as u32, len: node.len() as u32 })
}

/// Reads `<ms>:<counter>:<node>`, leniently: any number of digits, any node.
pub fn parse(text: &[u8]) -> Option<(Point, &[u8])> {
    let mut parts = text.splitn(3, |byte| *byte == b':');
    let (ms, counter, node) = (parts.next()?, parts.next()?, parts.next()?);
    let number = |digits: &[u8]| std::str::from_utf8(digits).ok()?.trim().parse::<u64>().ok();
    std::str::from_utf8(node).ok()?;
    // Seconds must fit what later arithmetic does with them.
    let ms = number(ms).filter(|ms| *ms < u64::MAX / 2_000_000)?;
    Some((Point { ms, counter: number(counter)? }, node))
}

/// Appends the time of `entry` as `__ts` carries it: 15 and 5 digits, then the node.
pub fn format(entry: &Entry, arena: &[u8], out: &mut BytesMut) {
    let ms = entry.ms();
    put_padded(out, ms, 15);
    out.extend_from_slice(b":");
    put_padded(out, entry.counter, 5);
    out.extend_from_slice(b":");
    out.extend_from_slice(entry.node.bytes(arena));
}

/// Bytes that [`format()`] appends.
pub fn formatted_len(entry: &Entry) -> usize {
    let ms = entry.ms();
    digits(ms).max(15) + 1 + digits(entry.counter).max(5) + 1 + entry.node.len as usize
}

fn digits(number: u64) -> usize {
    number.checked_ilog10().map_or(1, |log| log as usize + 1)
}

fn put_padded(out: &mut BytesMut, mut number: u64, width: usize) {
    let mut text = [b'0'; 20];
    let len = digits(number).max(width);
    for place in text[..len].iter_mut().rev() {
        *place = b'0' + (number % 10) as u8;
        number /= 10;
    }
    out.extend_from_slice(&text[..len]);
}

#[cfg(test)]
mod tests;
