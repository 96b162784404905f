//! Usage of tenants on disk: rows by hour and tenant in one tree, so that a range of time
//! is a scan, with how many rows each hour has. Totals alone are written, with everything
//! else that the store flushes. Serves `UsageLedger`; decides nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

use super::{Shared, Store, StoreError};
use crate::usage::{Changes, Hour, Page, Query, Row};

const COUNT: u8 = b'c';
const ROW: u8 = b'r';

/// Rows that one page looks at: others wait for the database meanwhile.
const PAGE_ROWS_MAX: usize = 10_000;

/// Changes that are not on disk yet: the latest of each key.
#[derive(Clone, Debug, Default)]
pub(super) struct Unwritten {
    /// Hours that go, before what is below comes.
    gone: BTreeSet<Hour>,
    values: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Unwritten {
    pub(super) fn is_empty(&self) -> bool {
        self.gone.is_empty() && self.values.is_empty()
    }
}

/// Keys are in the order of hours, and within them of tenants.
fn key_of(kind: u8, hour: Hour, tenant: &str) -> Vec<u8> {
    [&[kind][..], &hour.0.to_be_bytes(), tenant.as_bytes()].concat()
}

fn parse_key(key: &[u8]) -> (Hour, String) {
    let (hour, tenant) = key[1..].split_first_chunk().expect("a key has an hour");
    (Hour(u32::from_be_bytes(*hour)), String::from_utf8_lossy(tenant).into_owned())
}

impl Store {
    /// Written soon, all of it or nothing.
    pub fn keep_usage(&self, changes: Changes) {
        let Changes { rows, counts, gone } = changes;
        let mut state = self.shared.state();
        for hour in gone {
            let stays = |key: &[u8]| key[1..5] != hour.0.to_be_bytes();
            state.usage.values.retain(|key, _| stays(key));
            state.usage.gone.insert(hour);
        }
        let rows = rows.iter().map(|(hour, tenant, row)| (key_of(ROW, *hour, tenant), row.to_bytes()));
        let counts =
            counts.iter().map(|(hour, count)| (key_of(COUNT, *hour, ""), count.to_le_bytes().to_vec()));
        state.usage.values.extend(rows.chain(counts));
        drop(state);
        self.shared.changed.notify_all();
    }

    /// Hours that have rows, and how many.
    pub fn usage_hours(&self) -> Result<BTreeMap<Hour, u32>, StoreError> {
        self.with(|database| {
            let entries = database.usage.scan_prefix([COUNT]).map(|entry| {
                let (key, count) = entry?;
                let count = count.as_ref().try_into().expect("a count is written as four bytes");
                Ok((parse_key(&key).0, u32::from_le_bytes(count)))
            });
            entries.collect()
        })
    }

    /// Every row of an hour.
    pub fn usage_of_hour(&self, hour: Hour) -> Result<Vec<(String, Row)>, StoreError> {
        self.with(|database| {
            // Some may not be on disk yet.
            self.shared.write_behind(database)?;
            let entries = database.usage.scan_prefix(key_of(ROW, hour, "")).map(|entry| {
                let (key, row) = entry?;
                Ok((parse_key(&key).1, Row::from_bytes(&row)))
            });
            entries.collect()
        })
    }

    /// The next rows that are meant, of those on disk.
    pub fn usage_page(&self, query: &Query) -> Result<Page, StoreError> {
        self.with(|database| match &query.tenant {
            Some(tenant) => page_of(&database.usage, query, tenant),
            None => page(&database.usage, query),
        })
    }
}

fn page(tree: &sled::Tree, query: &Query) -> sled::Result<Page> {
    let begin = match &query.after {
        Some((hour, tenant)) => Bound::Excluded(key_of(ROW, *hour, tenant)),
        None => Bound::Included(key_of(ROW, query.from, "")),
    };
    let mut page = Page::default();
    let end = key_of(ROW, query.to, "");
    for entry in tree.range((begin, Bound::Excluded(end.clone()))) {
        let (key, row) = entry?;
        let (hour, tenant) = parse_key(&key);
        page.rows.push((hour, tenant.clone(), Row::from_bytes(&row)));
        if page.rows.len() == PAGE_ROWS_MAX {
            page.next = Some((hour, tenant));
            break;
        }
    }
    Ok(page)
}

/// One tenant's rows: a look for each hour that has any.
fn page_of(tree: &sled::Tree, query: &Query, tenant: &str) -> sled::Result<Page> {
    let from = query.after.as_ref().map_or(query.from, |(hour, _)| hour.plus(1));
    let mut page = Page::default();
    if from >= query.to {
        return Ok(page);
    }
    for (looked, entry) in tree.range(key_of(COUNT, from, "")..key_of(COUNT, query.to, "")).enumerate() {
        let (hour, _) = parse_key(&entry?.0);
        if let Some(row) = tree.get(key_of(ROW, hour, tenant))? {
            page.rows.push((hour, tenant.to_owned(), Row::from_bytes(&row)));
        }
        if looked + 1 == PAGE_ROWS_MAX {
            page.next = Some((hour, tenant.to_owned()));
            break;
        }
    }
    Ok(page)
}

impl Shared {
    /// Writes what is not written yet, at once; gives what it was, for [`Shared::usage_written`].
    pub(super) fn write_usage(&self, tree: &sled::Tree) -> sled::Result<Unwritten> {
        let unwritten = self.state().usage.clone();
        if unwritten.is_empty() {
            return Ok(unwritten);
        }
        let mut batch = sled::Batch::default();
        for hour in &unwritten.gone {
            for key in tree.scan_prefix(key_of(ROW, *hour, "")).keys() {
                batch.remove(key?);
            }
            batch.remove(key_of(COUNT, *hour, ""));
        }
        unwritten.values.iter().for_each(|(key, value)| batch.insert(key.as_slice(), value.as_slice()));
        tree.apply_batch(batch)?;
        Ok(unwritten)
    }

    /// This is on disk now.
    pub(super) fn usage_written(&self, written: Unwritten) {
        let mut state = self.state();
        for (key, value) in written.values {
            // It may have grown meanwhile.
            if state.usage.values.get(&key) == Some(&value) {
                state.usage.values.remove(&key);
            }
        }
        written.gone.iter().for_each(|hour| _ = state.usage.gone.remove(hour));
    }
}
