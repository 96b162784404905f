//! `Tenant`: what every step of the path asks about the owner of a message: limits,
//! credit, counters. Knows nothing of resources or connections.

use std::sync::{
    Arc, OnceLock, RwLock,
    atomic::{AtomicU32, AtomicU64},
};

use crate::{
    command::Calls,
    dead_letter::Kept,
    inference::{Inference, Processes},
    ledger::Ledger,
    resource::{Limits, Schemas},
    store::KeySpace,
};

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
    /// What its operators ask of other programs.
    pub calls: Arc<Calls>,
    /// Where its models are, once an operator has one.
    inference: OnceLock<Arc<Inference>>,
    /// What is kept of its dead letters.
    pub letters: Arc<Kept>,
    /// Bytes that its windows hold, over all dataflows.
    pub window_bytes: AtomicU64,
    /// Schemas that its operators may look up; none where there is no site. An apply
    /// puts others in their place.
    schemas: RwLock<Option<Arc<Schemas>>>,
}

impl Tenant {
    /// Its operators' state is in memory and ends with it, and they have no schemas.
    pub fn new(name: impl Into<String>, limits: Limits) -> Arc<Self> {
        Self::on_trial(name, limits, None)
    }

    /// Its operators' state is in memory and ends with it.
    pub fn on_trial(name: impl Into<String>, limits: Limits, schemas: Option<Arc<Schemas>>) -> Arc<Self> {
        let keys = KeySpace::memory(limits.state);
        Self::keeping(name, limits, keys, schemas)
    }

    /// Its operators' state is in `keys`.
    pub fn keeping(
        name: impl Into<String>,
        limits: Limits,
        keys: KeySpace,
        schemas: Option<Arc<Schemas>>,
    ) -> Arc<Self> {
        let ledger = Ledger::new(limits.inflight_bytes_max as usize);
        let calls = Calls::new(limits.commands_max);
        Arc::new(Tenant {
            name: name.into(),
            limits,
            ledger,
            instances: AtomicU32::new(0),
            keys,
            calls,
            inference: OnceLock::new(),
            letters: Arc::default(),
            window_bytes: AtomicU64::new(0),
            schemas: RwLock::new(schemas),
        })
    }

    /// Where its models are.
    pub fn inference(&self, processes: &Arc<Processes>) -> Arc<Inference> {
        self.inference.get_or_init(|| Inference::new(self.limits.inference, processes.clone())).clone()
    }

    /// The same, if any operator has a model.
    pub fn has_inference(&self) -> Option<&Arc<Inference>> {
        self.inference.get()
    }

    pub fn schemas(&self) -> Option<Arc<Schemas>> {
        self.schemas.read().expect("no panic under this lock").clone()
    }

    /// What its operators look up from now on.
    pub fn replace_schemas(&self, schemas: Option<Arc<Schemas>>) {
        *self.schemas.write().expect("no panic under this lock") = schemas;
    }
}
