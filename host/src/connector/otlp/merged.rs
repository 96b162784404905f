//! `Merged`: requests of one signal as one request. What follows on something of the same
//! resource and scope joins it; nothing else is compared, and nothing decoded. Keeps the
//! order of items.

use super::wire::{fields, head_len, put_head};

/// See the module.
#[derive(Debug, Default)]
pub struct Merged {
    resources: Vec<Resource>,
    bytes: usize,
}

/// What it says beside scopes, and these.
#[derive(Debug)]
struct Resource {
    others: Vec<u8>,
    scopes: Vec<Scope>,
}

/// What it says beside items, and these.
#[derive(Debug)]
struct Scope {
    others: Vec<u8>,
    items: Vec<u8>,
}

const RESOURCES: u32 = 1;
const SCOPES: u32 = 2;
const ITEMS: u32 = 2;

impl Merged {
    /// Adds a request that was checked.
    pub fn add(&mut self, request: &[u8]) {
        for inner in fields(request).filter(|it| it.number == RESOURCES).filter_map(|it| it.inner) {
            let others = others(inner, SCOPES);
            if self.resources.last().is_none_or(|last| last.others != others) {
                self.bytes += others.len();
                self.resources.push(Resource { others, scopes: Vec::new() });
            }
            let resource = self.resources.last_mut().expect("there is one");
            for scope in fields(inner).filter(|it| it.number == SCOPES).filter_map(|it| it.inner) {
                self.bytes += resource.add(scope);
            }
        }
    }

    /// About as many bytes will be written.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn is_empty(&self) -> bool {
        self.resources.is_empty()
    }

    pub fn finish(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.bytes + self.bytes / 8);
        for Resource { others, scopes } in &self.resources {
            let len_of = |scope: &Scope| scope.others.len() + scope.items.len();
            let field = |scope: &Scope| head_len(SCOPES, len_of(scope)) + len_of(scope);
            let len = others.len() + scopes.iter().map(field).sum::<usize>();
            put_head(RESOURCES, len, &mut out);
            out.extend_from_slice(others);
            for scope in scopes {
                put_head(SCOPES, len_of(scope), &mut out);
                out.extend_from_slice(&scope.others);
                out.extend_from_slice(&scope.items);
            }
        }
        out
    }
}

impl Resource {
    /// Gives by how many bytes it is larger.
    fn add(&mut self, scope: &[u8]) -> usize {
        let others = others(scope, ITEMS);
        let mut added = 0;
        if self.scopes.last().is_none_or(|last| last.others != others) {
            added += others.len();
            self.scopes.push(Scope { others, items: Vec::new() });
        }
        let last = self.scopes.last_mut().expect("there is one");
        for item in fields(scope).filter(|it| it.number == ITEMS && it.inner.is_some()) {
            added += item.whole.len();
            last.items.extend_from_slice(item.whole);
        }
        added
    }
}

fn others(message: &[u8], number: u32) -> Vec<u8> {
    fields(message).filter(|it| it.number != number).flat_map(|it| it.whole).copied().collect()
}

#[cfg(test)]
mod tests;
