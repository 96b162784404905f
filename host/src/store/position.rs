//! `Position`: how far a file was settled, and which file it was.

use sha2::{Digest as _, Sha256};

/// Bytes at the beginning of a file that tell it from another.
const HEAD_BYTES: usize = 256;

/// Lines before it were settled. Inode and first bytes tell whether the file at a
/// path is still the one that was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    pub bytes: u64,
    /// 0 where it is not known.
    pub inode: u64,
    pub head: Head,
}

/// The first bytes of a file, as far as they were read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    len: u16,
    hash: [u8; 8],
}

impl Head {
    /// Of a file that begins like this and of which `read` bytes were read.
    pub fn of(begin: &[u8], read: u64) -> Self {
        let len = begin.len().min(HEAD_BYTES).min(usize::try_from(read).unwrap_or(usize::MAX));
        let digest = Sha256::digest(&begin[..len]);
        Head { len: len as u16, hash: digest[..8].try_into().expect("a digest has 32 bytes") }
    }

    /// Whether a file that begins like this may be the same.
    pub fn fits(&self, begin: &[u8]) -> bool {
        let len = usize::from(self.len);
        // Nothing is known of it: it may be any.
        len == 0 || begin.len() >= len && Head::of(&begin[..len], u64::MAX) == *self
    }

    /// Nothing is known of the file.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of a file to give to the others.
    pub const fn bytes_max() -> usize {
        HEAD_BYTES
    }
}

impl Position {
    pub(super) fn to_bytes(self) -> [u8; 26] {
        let mut bytes = [0; 26];
        bytes[..8].copy_from_slice(&self.bytes.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.inode.to_le_bytes());
        bytes[16..18].copy_from_slice(&self.head.len.to_le_bytes());
        bytes[18..].copy_from_slice(&self.head.hash);
        bytes
    }

    /// What cannot be read is the beginning: lines again rather than lines lost.
    pub(super) fn from_bytes(bytes: &[u8]) -> Self {
        let Ok(bytes) = <[u8; 26]>::try_from(bytes) else { return Position::default() };
        let number =
            |range: std::ops::Range<usize>| u64::from_le_bytes(bytes[range].try_into().expect("eight bytes"));
        let len = u16::from_le_bytes([bytes[16], bytes[17]]);
        let hash = bytes[18..].try_into().expect("eight bytes");
        Position { bytes: number(0..8), inode: number(8..16), head: Head { len, hash } }
    }
}
