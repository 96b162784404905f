//! `Store`: what a host keeps across restarts, in sled: how far file sources were
//! settled. Written when a position moves, flushed by sled within half a second and
//! at the end; a crash between costs lines delivered again, never lines lost.

use std::path::Path;

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the store")]
pub struct StoreError(#[from] sled::Error);

/// Clones share one store.
#[derive(Clone, Debug)]
pub struct Store {
    positions: sled::Tree,
}

impl Store {
    /// Most memory for sled's cache.
    const CACHE_BYTES: u64 = 64 << 20;

    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let db = sled::Config::new().path(dir).cache_capacity(Self::CACHE_BYTES).open()?;
        Ok(Store { positions: db.open_tree("positions")? })
    }

    /// Up to which byte the file of a source (`tenant/dataflow/node`) was settled.
    pub fn position(&self, source: &str) -> Result<u64, StoreError> {
        let bytes = self.positions.get(source)?;
        Ok(bytes.and_then(|bytes| bytes.as_ref().try_into().ok()).map_or(0, u64::from_le_bytes))
    }

    pub fn set_position(&self, source: &str, position: u64) -> Result<(), StoreError> {
        self.positions.insert(source, &position.to_le_bytes())?;
        Ok(())
    }

    /// Everything is on disk when this returns.
    pub fn flush(&self) -> Result<(), StoreError> {
        self.positions.flush()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
