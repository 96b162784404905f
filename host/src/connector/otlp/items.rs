//! `Items`: where the spans, data points or log records of a request lie, and each of them as
//! a request of its own, with its resource, scope and metric. Works on protobuf as it is:
//! nothing is decoded. Knows no tenants.

use std::ops::Range;

use super::{
    form::Signal,
    wire::{Field, fields, head_len, put_head},
};

/// See the module.
#[derive(Debug, Default)]
pub struct Items {
    /// What encloses items: parents before their children.
    levels: Vec<Level>,
    items: Vec<Item>,
}

/// A message with everything that it says beside what it encloses.
#[derive(Debug)]
struct Level {
    parent: Option<u32>,
    /// The number of its field in what encloses it.
    number: u32,
    others: Vec<u8>,
}

#[derive(Clone, Debug)]
struct Item {
    level: u32,
    /// Its field, key and all, in the request.
    at: Range<u32>,
}

/// Which fields of a message lead to items, and what these are there.
struct Way {
    numbers: &'static [u32],
    inner: Option<&'static Way>,
}

const SCOPES: u32 = 2;
static FLAT: Way = Way { numbers: &[1], inner: Some(&FLAT_RESOURCE) };
static FLAT_RESOURCE: Way = Way { numbers: &[SCOPES], inner: Some(&FLAT_SCOPE) };
static FLAT_SCOPE: Way = Way { numbers: &[2], inner: None };
static METRICS: Way = Way { numbers: &[1], inner: Some(&METRICS_RESOURCE) };
static METRICS_RESOURCE: Way = Way { numbers: &[SCOPES], inner: Some(&METRICS_SCOPE) };
static METRICS_SCOPE: Way = Way { numbers: &[2], inner: Some(&METRIC) };
/// Gauge, sum, histogram, exponential histogram, summary.
static METRIC: Way = Way { numbers: &[5, 7, 9, 10, 11], inner: Some(&POINTS) };
static POINTS: Way = Way { numbers: &[1], inner: None };

impl Items {
    /// More than any batch has that exporters make.
    pub const MAX: usize = 1 << 16;

    /// Of a request that was checked; `None` if it has more than [`Self::MAX`].
    pub fn of(signal: Signal, request: &[u8]) -> Option<Self> {
        let way = if signal == Signal::Metrics { &METRICS } else { &FLAT };
        let mut items = Items::default();
        items.walk(way, request, request.as_ptr() as usize, None).then_some(items)
    }

    fn walk(&mut self, way: &Way, message: &[u8], base: usize, parent: Option<u32>) -> bool {
        for Field { number, whole, inner } in fields(message) {
            let Some(inside) = inner.filter(|_| way.numbers.contains(&number)) else { continue };
            let Some(inner_way) = way.inner else {
                let start = (whole.as_ptr() as usize - base) as u32;
                let level = parent.expect("items lie in scopes");
                self.items.push(Item { level, at: start..start + whole.len() as u32 });
                if self.items.len() > Items::MAX {
                    return false;
                }
                continue;
            };
            let (level, before) = (self.levels.len() as u32, self.items.len());
            let others = Vec::new();
            self.levels.push(Level { parent, number, others });
            if !self.walk(inner_way, inside, base, Some(level)) {
                return false;
            }
            if self.items.len() == before {
                // It encloses none.
                self.levels.truncate(level as usize);
                continue;
            }
            let others = fields(inside).filter(|field| !inner_way.numbers.contains(&field.number));
            let others = others.flat_map(|field| field.whole).copied().collect();
            self.levels[level as usize].others = others;
        }
        true
    }

    pub fn len(&self) -> usize {
        self.items.len()
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Of item `index` as a request of its own, in bytes.
    pub fn bytes_len(&self, index: usize) -> usize {
        let Item { level, at } = &self.items[index];
        let mut len = at.len();
        for Level { number, others, .. } in self.enclosing(*level) {
            len += others.len();
            len += head_len(*number, len);
        }
        len
    }

    /// Of all of them.
    pub fn bytes_len_of_all(&self) -> u64 {
        (0..self.len()).map(|index| self.bytes_len(index) as u64).sum()
    }

    /// Item `index` of `request`, of which these are, as a request of its own.
    pub fn write(&self, index: usize, request: &[u8], out: &mut Vec<u8>) {
        let Item { level, at } = &self.items[index];
        // From the inside, since each length is needed before what it counts.
        let mut lens = [0; 4];
        let mut len = at.len();
        for (place, Level { number, others, .. }) in self.enclosing(*level).enumerate() {
            len += others.len();
            lens[place] = len;
            len += head_len(*number, len);
        }
        out.reserve(len);
        self.write_level(*level, &lens, out);
        out.extend_from_slice(&request[at.start as usize..at.end as usize]);
    }

    fn write_level(&self, level: u32, lens: &[usize], out: &mut Vec<u8>) {
        let Level { parent, number, others } = &self.levels[level as usize];
        if let Some(parent) = parent {
            self.write_level(*parent, &lens[1..], out);
        }
        put_head(*number, lens[0], out);
        out.extend_from_slice(others);
    }

    /// From the innermost on.
    fn enclosing(&self, level: u32) -> impl Iterator<Item = &Level> {
        let level = Some(&self.levels[level as usize]);
        std::iter::successors(level, |level| Some(&self.levels[level.parent? as usize]))
    }
}

#[cfg(test)]
mod tests;
