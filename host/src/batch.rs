//! `Batch`: messages as fixed-size records over one byte arena, the form in which
//! they cross queue, operators and sinks. Every step of the path carries it; it
//! knows nothing of transports, guests or scheduling.

use bytemuck::{Pod, Zeroable};
use bytes::{Bytes, BytesMut};

#[cfg(target_endian = "big")]
compile_error!("records lie in memory as guests have them, whose numbers are little-endian");

/// Bytes `offset .. offset + len` of a batch's arena, or absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Span {
    pub offset: u32,
    pub len: u32,
}

impl Span {
    /// Not there at all, which is not the same as empty.
    pub const ABSENT: Span = Span { offset: u32::MAX, len: 0 };
    pub const EMPTY: Span = Span { offset: 0, len: 0 };

    pub fn is_absent(self) -> bool {
        self.offset == u32::MAX
    }

    /// The bytes in `arena`; `None` if absent. Panics on a span of another arena.
    pub fn get(self, arena: &[u8]) -> Option<&[u8]> {
        if self.is_absent() { None } else { Some(&arena[self.offset as usize..][..self.len as usize]) }
    }

    /// The bytes in `arena`; empty if absent.
    pub fn bytes(self, arena: &[u8]) -> &[u8] {
        self.get(arena).unwrap_or(&[])
    }

    /// Whether the span is absent or lies within an arena of `arena_bytes`.
    pub fn fits(self, arena_bytes: usize) -> bool {
        // Without a branch: six spans of every message are checked in a row.
        self.is_absent() | (u64::from(self.offset) + u64::from(self.len) <= arena_bytes as u64)
    }
}

/// What an entry is, after AIO's `data-model`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(transparent)]
pub struct Kind(u32);

impl Kind {
    pub const MESSAGE: Kind = Kind(0);
    /// Bytes alone: only `payload` is meant.
    pub const BYTES: Kind = Kind(1);
    /// An image: frame in `payload`, format in `content_type`, width and height
    /// as two little-endian `u32` in `properties`.
    pub const SNAPSHOT: Kind = Kind(2);

    /// Whether it is one of these: what a guest gave may not be.
    pub fn is_known(self) -> bool {
        self.0 <= Kind::SNAPSHOT.0
    }
}

/// One message. Spans point into the arena of its batch; layout and encodings are
/// those of `tidegate:operator/types` in `wit/`, so that a guest is given a batch's
/// entries, and gives its own, as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Entry {
    /// Which message of the delivery this one came from. Never decreases in a batch.
    pub origin: u32,
    pub kind: Kind,
    /// The message's timestamp, which operators may rewrite.
    pub seconds: u64,
    pub nanos: u32,
    /// Nothing yet.
    pub zero: u32,
    pub counter: u64,
    pub node: Span,
    pub topic: Span,
    pub content_type: Span,
    pub payload: Span,
    pub properties: Span,
    pub schema: Span,
}

impl Entry {
    pub fn spans(&self) -> [Span; 6] {
        [self.node, self.topic, self.content_type, self.payload, self.properties, self.schema]
    }

    pub fn spans_mut(&mut self) -> [&mut Span; 6] {
        [
            &mut self.node,
            &mut self.topic,
            &mut self.content_type,
            &mut self.payload,
            &mut self.properties,
            &mut self.schema,
        ]
    }

    /// Its user properties, encoded; those of an image are its size, not text.
    pub fn user_properties<'a>(&self, arena: &'a [u8]) -> &'a [u8] {
        if self.kind == Kind::MESSAGE { self.properties.bytes(arena) } else { &[] }
    }

    /// Its timestamp in ms since the Unix epoch, cut off below.
    pub fn ms(&self) -> u64 {
        self.seconds.saturating_mul(1000).saturating_add(u64::from(self.nanos / 1_000_000))
    }

    /// Payload, topic, properties and the rest, in bytes.
    pub fn bytes_len(&self) -> usize {
        self.spans().iter().map(|span| span.len as usize).sum()
    }
}

/// A point of a hybrid logical clock; `node` lies in some arena. Laid out as
/// `tidegate:operator/types` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Time {
    pub seconds: u64,
    pub nanos: u32,
    /// Nothing yet.
    pub zero: u32,
    pub counter: u64,
    pub node: Span,
}

/// A batch on its way through a dataflow, with the logical time of each message: its
/// timestamp as ingest stamped it, until a delay changes it.
#[derive(Clone, Debug, Default)]
pub struct Stamped {
    pub batch: Batch,
    /// Empty if each message's timestamp is its logical time. Nodes lie in the batch's
    /// arena.
    pub times: Vec<Time>,
}

impl From<Batch> for Stamped {
    /// Each message's timestamp is its logical time.
    fn from(batch: Batch) -> Self {
        Stamped { batch, times: Vec::new() }
    }
}

impl Stamped {
    /// The logical time of the message `origin`.
    pub fn time(&self, origin: u32) -> Time {
        if let Some(time) = self.times.get(origin as usize) {
            return *time;
        }
        let Entry { seconds, nanos, counter, node, .. } = self.batch.entries[origin as usize];
        Time { seconds, nanos, zero: 0, counter, node }
    }
}

/// At most [`Batch::MESSAGES_MAX`] messages that a source handed over at once, or
/// what operators made of them.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    pub entries: Vec<Entry>,
    pub arena: Bytes,
}

impl Batch {
    /// Most messages in one delivery: the knee of the packed call's cost lies at 64.
    pub const MESSAGES_MAX: usize = 256;
    /// Most bytes in one delivery, unless a single message is larger: beyond it the
    /// copies into a guest fall out of the cache.
    pub const BYTES_MAX: usize = 256 << 10;

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of the arena plus records: what the batch costs the host to hold.
    pub fn bytes_held(&self) -> usize {
        self.arena.len() + self.entries.len() * size_of::<Entry>()
    }

    /// Bytes of what its messages say: topics, payloads and properties.
    pub fn message_bytes(&self) -> u64 {
        let of = |entry: &Entry| (entry.bytes_len() - entry.node.len as usize) as u64;
        self.entries.iter().map(of).sum()
    }

    /// Copies the entries for which `keep` holds; the arena is shared.
    pub fn select(&self, mut keep: impl FnMut(usize, &Entry) -> bool) -> Batch {
        let mut entries = Vec::with_capacity(self.len());
        let kept = self.entries.iter().enumerate().filter(|(i, entry)| keep(*i, entry));
        entries.extend(kept.map(|(_, entry)| *entry));
        if entries.len() < self.len() / 4 {
            // One message of many is kept long where it is a dead letter.
            entries.shrink_to_fit();
        }
        Batch { entries, arena: self.arena.clone() }
    }

    /// Entries of all in order of origin, earlier batches first for one origin.
    /// Arenas are copied once, or not at all where they are the same one.
    pub fn merge(mut batches: Vec<Batch>) -> Batch {
        batches.retain(|batch| !batch.is_empty());
        match batches.as_slice() {
            [] => return Batch::default(),
            [_] => return batches.swap_remove(0),
            [first, rest @ ..] if rest.iter().all(|batch| batch.shares_arena(first)) => {
                let arena = first.arena.clone();
                return Batch { entries: merge_by_origin(batches), arena };
            }
            _ => {}
        }
        let mut arena = BytesMut::with_capacity(batches.iter().map(|batch| batch.arena.len()).sum());
        let mut last: Option<Bytes> = None;
        let mut shift = 0;
        for batch in &mut batches {
            let same = last.as_ref().is_some_and(|last| last.as_ptr() == batch.arena.as_ptr());
            if !same {
                shift = arena.len() as u32;
                arena.extend_from_slice(&batch.arena);
                last = Some(batch.arena.clone());
            }
            for span in batch.entries.iter_mut().flat_map(Entry::spans_mut).filter(|span| !span.is_absent()) {
                span.offset += shift;
            }
        }
        Batch { entries: merge_by_origin(batches), arena: arena.freeze() }
    }

    /// Whether spans of the one hold in the other.
    pub fn shares_arena(&self, other: &Batch) -> bool {
        self.arena.as_ptr() == other.arena.as_ptr() && self.arena.len() == other.arena.len()
    }

    /// The user properties of entry `index`, in order.
    pub fn properties(&self, index: usize) -> Properties<'_> {
        Properties { rest: self.entries[index].properties.bytes(&self.arena) }
    }
}

fn merge_by_origin(batches: Vec<Batch>) -> Vec<Entry> {
    let mut entries = Vec::with_capacity(batches.iter().map(Batch::len).sum());
    batches.into_iter().for_each(|batch| entries.extend(batch.entries));
    // Stable, so that earlier batches stay first; the runs are sorted, which the
    // standard merge sort detects.
    entries.sort_by_key(|entry| entry.origin);
    entries
}

/// Iterates over encoded user properties; ends at the first that is cut short.
#[derive(Clone, Debug)]
pub struct Properties<'a> {
    rest: &'a [u8],
}

impl<'a> Properties<'a> {
    /// Over the bytes of an entry's `properties` span.
    pub fn of(encoded: &'a [u8]) -> Self {
        Properties { rest: encoded }
    }

    /// Whether `encoded` is whole pairs of UTF-8 text and nothing else.
    pub fn is_valid(encoded: &[u8]) -> bool {
        let mut properties = Properties::of(encoded);
        for (key, value) in properties.by_ref() {
            if std::str::from_utf8(key).is_err() || std::str::from_utf8(value).is_err() {
                return false;
            }
        }
        properties.rest.is_empty()
    }
}

impl<'a> Iterator for Properties<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (key, rest) = take_counted(self.rest)?;
        let (value, rest) = take_counted(rest)?;
        self.rest = rest;
        Some((key, value))
    }
}

/// Bytes behind their length, and what follows.
pub(crate) fn take_counted(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(u32::from_le_bytes(*len) as usize)
}

/// Appends one user property in the encoding of `tidegate:operator/types`.
pub fn push_property(arena: &mut BytesMut, key: &[u8], value: &[u8]) {
    for part in [key, value] {
        arena.extend_from_slice(&(part.len() as u32).to_le_bytes());
        arena.extend_from_slice(part);
    }
}

/// Fills one batch. The host's node name stands at the start of the arena, so that
/// a message without a timestamp of its own gets the host's without a copy.
#[derive(Debug)]
pub struct BatchBuilder {
    entries: Vec<Entry>,
    arena: BytesMut,
    node: Span,
}

impl BatchBuilder {
    pub fn new(node: &str) -> Self {
        Self::with_capacity(node, 0, 0)
    }

    /// Room for as many messages and bytes, so that filling it allocates no more.
    pub fn with_capacity(node: &str, messages: usize, bytes: usize) -> Self {
        let mut arena = BytesMut::with_capacity(bytes.max(node.len()));
        arena.extend_from_slice(node.as_bytes());
        let node = Span { offset: 0, len: arena.len() as u32 };
        BatchBuilder { entries: Vec::with_capacity(messages), node, arena }
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn bytes_len(&self) -> usize {
        self.arena.len()
    }

    /// Whether one more message of `bytes` would pass what a delivery may hold.
    pub fn is_full_for(&self, bytes: usize) -> bool {
        self.entries.len() >= Batch::MESSAGES_MAX
            || (!self.entries.is_empty() && self.arena.len() + bytes > Batch::BYTES_MAX)
    }

    /// Adds a message; the ingest operator stamps it, with the time of its arrival if it
    /// has none. `properties` yields key and
    /// value in order.
    pub fn push<'p>(
        &mut self,
        topic: &[u8],
        content_type: Option<&str>,
        payload: &[u8],
        properties: impl IntoIterator<Item = (&'p [u8], &'p [u8])>,
    ) {
        let topic = self.append(topic);
        let content_type = content_type.map_or(Span::ABSENT, |text| self.append(text.as_bytes()));
        let payload = self.append(payload);
        let start = self.arena.len();
        for (key, value) in properties {
            push_property(&mut self.arena, key, value);
        }
        let properties = match self.arena.len() - start {
            0 => Span::ABSENT,
            len => Span { offset: start as u32, len: len as u32 },
        };
        self.entries.push(Entry {
            origin: self.entries.len() as u32,
            kind: Kind::MESSAGE,
            seconds: 0,
            nanos: 0,
            zero: 0,
            counter: 0,
            node: self.node,
            topic,
            content_type,
            payload,
            properties,
            schema: Span::ABSENT,
        });
    }

    /// The message that was added last has this user property as well.
    pub fn push_property(&mut self, key: &[u8], value: &[u8]) {
        let properties = &mut self.entries.last_mut().expect("one was added").properties;
        let start = if properties.is_absent() { self.arena.len() } else { properties.offset as usize };
        debug_assert!(properties.is_absent() || start + properties.len as usize == self.arena.len());
        push_property(&mut self.arena, key, value);
        *properties = Span { offset: start as u32, len: (self.arena.len() - start) as u32 };
    }

    /// The message that was added last has this time, in ms since the Unix epoch, unless
    /// it says another one itself.
    pub fn date_last(&mut self, ms: u64) {
        let entry = self.entries.last_mut().expect("one was added");
        (entry.seconds, entry.nanos) = (ms / 1000, (ms % 1000) as u32 * 1_000_000);
    }

    /// Adds a copy of a message of another arena, and of nothing else that is there.
    pub fn copy(&mut self, entry: &Entry, arena: &[u8]) {
        let mut entry = Entry { origin: self.entries.len() as u32, ..*entry };
        for span in entry.spans_mut() {
            *span = self.copy_span(*span, arena);
        }
        self.entries.push(entry);
    }

    /// The span's bytes of another arena, in this one.
    pub fn copy_span(&mut self, span: Span, arena: &[u8]) -> Span {
        span.get(arena).map_or(Span::ABSENT, |bytes| self.append(bytes))
    }

    fn append(&mut self, bytes: &[u8]) -> Span {
        let offset = self.arena.len() as u32;
        self.arena.extend_from_slice(bytes);
        Span { offset, len: bytes.len() as u32 }
    }

    pub fn finish(self) -> Batch {
        Batch { entries: self.entries, arena: self.arena.freeze() }
    }
}

#[cfg(test)]
mod tests;
