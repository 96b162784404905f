//! `TenantMeter` and `FlowMeter`: what of a counter is in the ledger already. Counters
//! begin at zero with each tenant and dataflow that is put together, and end with it.

use std::{
    ops::Sub,
    sync::{Arc, Weak},
};

use super::row::Row;
use crate::{
    clock::Instant,
    stats::{DataflowStats, TenantStats},
    tenant::Tenant,
};

/// One tenant as it runs; a tenant that is replaced has another.
#[derive(Debug)]
pub struct TenantMeter {
    pub name: Arc<str>,
    /// Its memory, as long as it is there.
    tenant: Weak<Tenant>,
    stats: Arc<TenantStats>,
    counted: Row,
    /// When its memory was looked at last, and how many bytes it was.
    measured: Instant,
    bytes: u64,
    /// Less than a byte-second, in byte-nanoseconds.
    rest: u128,
}

/// One dataflow as it runs.
#[derive(Debug)]
pub struct FlowMeter {
    pub tenant: Arc<str>,
    stats: Arc<DataflowStats>,
    counted: Row,
}

/// What has come since the last reading.
#[derive(Debug)]
pub struct Reading {
    pub used: Row,
    /// Nobody can add to it any more.
    pub is_last: bool,
}

impl TenantMeter {
    pub fn new(tenant: &Arc<Tenant>, now: Instant) -> Self {
        TenantMeter {
            name: tenant.name.as_str().into(),
            tenant: Arc::downgrade(tenant),
            stats: tenant.stats.clone(),
            counted: Row::default(),
            measured: now,
            bytes: tenant.memory().total(),
            rest: 0,
        }
    }

    /// Of a tenant that did nothing memory is looked at only if `measures`: it is most of
    /// the cost, and of ten thousand tenants most do nothing.
    pub fn read(&mut self, now: Instant, measures: bool) -> Reading {
        // Before the counters: whoever had it has counted all by then.
        let is_last = Arc::get_mut(&mut self.stats).is_some();
        let TenantStats { cpu_ns, models_cpu_ns, fuel, host_calls, .. } = &*self.stats;
        let count = Row {
            cpu_ns: cpu_ns.get() + models_cpu_ns.get(),
            fuel: fuel.get(),
            host_calls: host_calls.get(),
            ..Row::default()
        };
        let mut used = &count - &self.counted;
        self.counted = count;
        // Soon after it was put together it has some.
        if measures || self.bytes == 0 || !used.is_empty() {
            used.memory_byte_seconds = self.memory(now);
        }
        Reading { used, is_last }
    }

    /// Whole byte-seconds since the last time, during which it had what it had then.
    fn memory(&mut self, now: Instant) -> u64 {
        let time = now.since(self.measured);
        self.measured = now;
        let bytes = self.tenant.upgrade().map(|tenant| tenant.memory().total());
        // When it went is not known.
        let before = std::mem::replace(&mut self.bytes, bytes.unwrap_or_default());
        self.rest += u128::from(bytes.map_or(0, |_| before)) * time.as_nanos();
        let whole = self.rest / 1_000_000_000;
        self.rest %= 1_000_000_000;
        u64::try_from(whole).unwrap_or(u64::MAX)
    }
}

impl FlowMeter {
    pub fn new(tenant: &str, stats: &Arc<DataflowStats>) -> Self {
        FlowMeter { tenant: tenant.into(), stats: stats.clone(), counted: Row::default() }
    }

    pub fn read(&mut self) -> Reading {
        let is_last = Arc::get_mut(&mut self.stats).is_some();
        let DataflowStats { received, received_bytes, delivered, delivered_bytes, dead, .. } = &*self.stats;
        let count = Row {
            received: received.get(),
            received_bytes: received_bytes.get(),
            delivered: delivered.get(),
            delivered_bytes: delivered_bytes.get(),
            dead: dead.get(),
            ..Row::default()
        };
        let used = &count - &self.counted;
        self.counted = count;
        Reading { used, is_last }
    }
}

impl Sub for &Row {
    type Output = Row;

    fn sub(self, counted: &Row) -> Row {
        let (mut values, counted) = (self.values(), counted.values());
        values.iter_mut().zip(counted).for_each(|(value, counted)| *value -= counted);
        Row::from_values(values)
    }
}

#[cfg(test)]
mod tests;
