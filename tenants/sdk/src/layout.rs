//! The packed layout of `tidegate:operator/types`: records as they lie in a list of
//! numbers, so that a list of entries is read and returned in place. Serves the guest
//! side of a call; knows nothing of messages.

use std::ptr;

/// Bytes `offset .. offset + len` of a call's arena, or absent; one number to the
/// contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Span {
    pub offset: u32,
    pub len: u32,
}

impl Span {
    /// Not there at all, which is not the same as empty.
    pub const ABSENT: Span = Span { offset: u32::MAX, len: 0 };

    pub fn is_absent(self) -> bool {
        self.offset == u32::MAX
    }

    /// The bytes in `arena`; `None` if absent.
    pub fn get(self, arena: &[u8]) -> Option<&[u8]> {
        if self.is_absent() { None } else { Some(&arena[self.offset as usize..][..self.len as usize]) }
    }

    /// The bytes in `arena`; empty if absent.
    pub fn bytes(self, arena: &[u8]) -> &[u8] {
        self.get(arena).unwrap_or(&[])
    }
}

/// One message of a batch.
#[derive(Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Entry {
    pub origin: u32,
    pub kind: u32,
    pub seconds: u64,
    pub nanos: u32,
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
    /// Appends a copy to `entries`, in two halves: a copy of more than 64 bytes becomes
    /// a `memory.copy`, which costs a call out of the guest.
    #[inline]
    pub fn push_to(&self, entries: &mut Vec<Entry>) {
        const HALF: usize = size_of::<Entry>() / 2;
        entries.reserve(1);
        let len = entries.len();
        // Safe: the place is within the capacity just reserved, both halves of it are
        // written, and an entry owns nothing.
        unsafe {
            let from = ptr::from_ref(self).cast::<u8>();
            let to = entries.as_mut_ptr().add(len).cast::<u8>();
            ptr::copy_nonoverlapping(from, to, HALF);
            ptr::copy_nonoverlapping(from.add(HALF), to.add(HALF), HALF);
            entries.set_len(len + 1);
        }
    }

    pub fn spans_but_node_mut(&mut self) -> [&mut Span; 5] {
        [&mut self.topic, &mut self.content_type, &mut self.payload, &mut self.properties, &mut self.schema]
    }

    /// Bytes that its spans refer to.
    pub fn bytes_len(&self) -> usize {
        [self.node, self.topic, self.content_type, self.payload, self.properties, self.schema]
            .iter()
            .map(|span| span.len as usize)
            .sum()
    }
}

/// The logical time of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct LogicalTime {
    pub seconds: u64,
    pub nanos: u32,
    pub zero: u32,
    pub counter: u64,
    pub node: Span,
}

/// What went wrong with one entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Fault {
    pub origin: u32,
    pub zero: u32,
    pub text: Span,
}

/// Values of `kind` on the wire.
pub mod kind {
    pub const MESSAGE: u32 = 0;
    pub const BYTES: u32 = 1;
}

/// Values of a verdict on the wire.
pub mod verdict {
    pub const ERROR: u8 = 2;
}

/// Numbers in one record.
pub const fn words<T>() -> usize {
    size_of::<T>() / size_of::<u64>()
}

// The records of the contract, in its numbers.
const _: () = {
    assert!(size_of::<Span>() == 8 && align_of::<Span>() == 8);
    assert!(words::<Entry>() == 10 && align_of::<Entry>() == 8);
    assert!(words::<LogicalTime>() == 4 && align_of::<LogicalTime>() == 8);
    assert!(words::<Fault>() == 2 && align_of::<Fault>() == 8);
};
