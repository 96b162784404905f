//! A write as a record of a buffer: its destination and its messages, as they lie in memory.

use bytemuck::{cast_slice, pod_read_unaligned};
use bytes::Bytes;

use crate::{
    batch::{Batch, BatchBuilder, Entry, take_counted},
    topic::TopicTemplate,
    write::Destination,
};

/// What a record begins with. Another form than this is of another version.
const FORM: u8 = 1;

/// What is kept of a write.
#[derive(Debug)]
pub(super) struct Kept {
    /// `tenant/dataflow/node` of its destination.
    pub destination: String,
    pub topic: TopicTemplate,
    /// Each of its own origin.
    pub batch: Batch,
}

pub(super) fn encode(destination: &Destination, batch: &Batch) -> Vec<u8> {
    // Of an arena that it shares with others it needs its own alone.
    let mut builder = BatchBuilder::with_capacity("", batch.len(), batch.message_bytes() as usize);
    batch.entries.iter().for_each(|entry| builder.copy(entry, &batch.arena));
    let batch = builder.finish();
    let entries: &[u8] = cast_slice(batch.entries.as_slice());
    let topic = destination.topic.to_string();
    let mut bytes = vec![FORM];
    for part in [destination.name.as_bytes(), topic.as_bytes(), entries] {
        bytes.extend_from_slice(&(part.len() as u32).to_le_bytes());
        bytes.extend_from_slice(part);
    }
    bytes.extend_from_slice(&batch.arena);
    bytes
}

/// `None` if it was never written so.
pub(super) fn decode(bytes: &[u8]) -> Option<Kept> {
    let (FORM, bytes) = bytes.split_first().map(|(form, rest)| (*form, rest))? else { return None };
    let (destination, bytes) = take_counted(bytes)?;
    let (topic, bytes) = take_counted(bytes)?;
    let (entries, arena) = take_counted(bytes)?;
    let entries =
        entries.chunks_exact(size_of::<Entry>()).map(pod_read_unaligned::<Entry>).collect::<Vec<_>>();
    let is_sound =
        |entry: &Entry| entry.kind.is_known() && entry.spans().iter().all(|it| it.fits(arena.len()));
    if !entries.iter().all(is_sound) {
        return None;
    }
    Some(Kept {
        destination: std::str::from_utf8(destination).ok()?.to_owned(),
        topic: TopicTemplate::parse(std::str::from_utf8(topic).ok()?).ok()?,
        batch: Batch { entries, arena: Bytes::copy_from_slice(arena) },
    })
}

#[cfg(test)]
mod tests;
