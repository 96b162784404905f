//! `Tenant`: what every step of the path asks about the owner of a message: limits,
//! credit, counters. Knows nothing of resources or connections.

use std::sync::{
    Arc,
    atomic::{AtomicU32, AtomicU64},
};

use crate::{ledger::Ledger, resource::Limits, store::KeySpace};

/// A tenant as the path sees it; one per tenant, shared by all its dataflows.
#[derive(Debug)]
pub struct Tenant {
    pub name: String,
    /// Effective limits: the policy's, lowered by the tenant's own.
    pub limits: Limits,
    /// Byte credit from ingest to settlement.
    pub ledger: Arc<Ledger>,
    /// Instances live now, over all operators.
    pub instances: AtomicU32,
    /// What its operators keep.
    pub keys: KeySpace,
    /// Bytes that its windows hold, over all dataflows.
    pub window_bytes: AtomicU64,
}

impl Tenant {
    /// Its operators' state is in memory and ends with it.
    pub fn new(name: impl Into<String>, limits: Limits) -> Arc<Self> {
        let keys = KeySpace::memory(limits.state);
        Self::keeping(name, limits, keys)
    }

    /// Its operators' state is in `keys`.
    pub fn keeping(name: impl Into<String>, limits: Limits, keys: KeySpace) -> Arc<Self> {
        let ledger = Ledger::new(limits.inflight_bytes_max as usize);
        Arc::new(Tenant {
            name: name.into(),
            limits,
            ledger,
            instances: AtomicU32::new(0),
            keys,
            window_bytes: AtomicU64::new(0),
        })
    }
}
