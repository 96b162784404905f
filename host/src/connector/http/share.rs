//! `Share`: how many of something that an endpoint has one tenant may take, so that no one
//! tenant takes all. Knows no requests.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
};

/// What is taken of a number of places, and by whom.
#[derive(Debug)]
pub(in crate::connector) struct Share {
    max: usize,
    taken: Mutex<HashMap<String, usize>>,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub(in crate::connector) struct Place {
    share: Arc<Share>,
    tenant: String,
}

impl Share {
    pub(super) fn new(max: usize) -> Arc<Self> {
        Arc::new(Share { max, taken: Mutex::default() })
    }

    /// A place for one of so many tenants, if it may have one more.
    pub(in crate::connector) fn take(self: &Arc<Self>, tenant: &str, tenants: usize) -> Option<Place> {
        let mut taken = self.lock();
        let all = taken.values().sum();
        let own = taken.get(tenant).copied().unwrap_or(0);
        if !may_take(own, all, self.max, tenants) {
            return None;
        }
        taken.insert(tenant.to_owned(), own + 1);
        Some(Place { share: self.clone(), tenant: tenant.to_owned() })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        self.taken.lock().expect("no panic under this lock")
    }
}

/// Whoever is alone takes all there is. Of several, each has fewer than are left, as
/// switches divide their buffers: there is always room for one that has none.
fn may_take(own: usize, all: usize, max: usize, tenants: usize) -> bool {
    let left = max.saturating_sub(all);
    left > 0 && (tenants <= 1 || own < left)
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.share.lock();
        match taken.get_mut(&self.tenant) {
            Some(own) if *own > 1 => *own -= 1,
            _ => _ = taken.remove(&self.tenant),
        }
    }
}

#[cfg(test)]
mod tests;
