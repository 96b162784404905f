//! `Directory`: the sources, destinations and listeners behind one server, by tenant. Knows
//! no connections.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

use hyper::body::Bytes;
use tokio::sync::mpsc;

use super::{events::Listener, source::Post};
use crate::{connector::status::Status, topic::TopicFilter};

#[derive(Debug, Default)]
pub(in crate::connector) struct Directory(Mutex<BTreeMap<String, Entry>>);

/// One tenant's.
#[derive(Debug, Default)]
struct Entry {
    /// By their full names.
    sources: BTreeMap<String, SourceEntry>,
    sinks: usize,
    listeners: Vec<Arc<Listener>>,
}

#[derive(Debug)]
struct SourceEntry {
    filters: Vec<TopicFilter>,
    route: Route,
}

/// The way to one source.
#[derive(Clone, Debug)]
pub(in crate::connector) struct Route {
    pub payload_bytes_max: usize,
    /// Whether its dataflow answers requests.
    pub replies: bool,
    pub status: Arc<Status>,
    pub posts: mpsc::Sender<Post>,
}

impl Directory {
    /// Tenants that have anything here.
    pub(in crate::connector) fn tenants(&self) -> usize {
        self.lock().len()
    }

    pub(super) fn enter_source(&self, tenant: &str, name: &str, filters: Vec<TopicFilter>, route: Route) {
        let mut tenants = self.lock();
        let entry = tenants.entry(tenant.to_owned()).or_default();
        entry.sources.insert(name.to_owned(), SourceEntry { filters, route });
    }

    pub(super) fn leave_source(&self, tenant: &str, name: &str) {
        self.change(tenant, |entry| _ = entry.sources.remove(name));
    }

    pub(super) fn enter_sink(&self, tenant: &str) {
        self.lock().entry(tenant.to_owned()).or_default().sinks += 1;
    }

    /// Without a sink there is nothing to listen to.
    pub(super) fn leave_sink(&self, tenant: &str) {
        self.change(tenant, |entry| {
            entry.sinks -= 1;
            if entry.sinks == 0 {
                entry.listeners.drain(..).for_each(|listener| listener.end());
            }
        });
    }

    /// Everyone who takes a topic.
    pub(in crate::connector) fn routes(&self, tenant: &str, topic: &str) -> Vec<Route> {
        let tenants = self.lock();
        let sources = tenants.get(tenant).into_iter().flat_map(|entry| entry.sources.values());
        let takes = |source: &&SourceEntry| source.filters.iter().any(|filter| filter.matches(topic));
        sources.filter(takes).map(|source| source.route.clone()).collect()
    }

    /// `None` where the tenant writes nothing.
    pub(super) fn enter_listener(&self, tenant: &str, filter: TopicFilter) -> Option<Arc<Listener>> {
        let mut tenants = self.lock();
        let entry = tenants.get_mut(tenant).filter(|entry| entry.sinks > 0)?;
        let listener = Listener::new(filter);
        entry.listeners.push(listener.clone());
        Some(listener)
    }

    pub(super) fn leave_listener(&self, tenant: &str, listener: &Arc<Listener>) {
        self.change(tenant, |entry| entry.listeners.retain(|it| !Arc::ptr_eq(it, listener)));
    }

    /// Shows an event to all who listen to its topic; gives how many older ones are lost.
    pub(super) fn publish(&self, tenant: &str, topic: &str, event: impl FnOnce() -> Bytes) -> u64 {
        let listeners: Vec<_> = {
            let tenants = self.lock();
            let listeners = tenants.get(tenant).into_iter().flat_map(|entry| &entry.listeners);
            listeners.filter(|it| it.filter.matches(topic)).cloned().collect()
        };
        if listeners.is_empty() {
            return 0;
        }
        let event = event();
        listeners.iter().map(|listener| listener.push(event.clone())).sum()
    }

    fn change(&self, tenant: &str, change: impl FnOnce(&mut Entry)) {
        let mut tenants = self.lock();
        let Some(entry) = tenants.get_mut(tenant) else { return };
        change(entry);
        if entry.sources.is_empty() && entry.sinks == 0 && entry.listeners.is_empty() {
            tenants.remove(tenant);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        self.0.lock().expect("no panic under this lock")
    }
}

#[cfg(test)]
mod tests;
