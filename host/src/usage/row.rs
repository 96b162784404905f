//! `Row`: what one tenant used in one hour, and `Hour`. Serves the ledger, its place on
//! disk and the command; adds, and decides nothing.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat};
use serde::{Deserialize, Serialize};

/// An hour of the wall clock (UTC): hours since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Hour(pub u32);

impl Hour {
    const MS: u64 = 3_600_000;
    /// The latest that can be written as a date.
    const MAX: u64 = 70_000_000;

    /// In which a time since the epoch lies.
    pub fn of(wall: Duration) -> Self {
        Hour((wall.as_secs() / 3_600).min(Self::MAX) as u32)
    }

    /// In which a time since the epoch, in ms, lies.
    pub fn of_ms(ms: u64) -> Self {
        Self::of(Duration::from_millis(ms))
    }

    /// The first that does not begin before a time since the epoch, in ms.
    pub fn behind_ms(ms: u64) -> Self {
        Self::of_ms(ms.saturating_add(Self::MS - 1))
    }

    /// The first hour of its day.
    pub fn day(self) -> Self {
        Hour(self.0 - self.0 % 24)
    }

    pub fn plus(self, hours: u32) -> Self {
        Hour(self.0.saturating_add(hours))
    }

    /// When it begins, in RFC 3339.
    pub fn to_text(self) -> String {
        let begin = DateTime::from_timestamp(i64::from(self.0) * 3_600, 0).unwrap_or_default();
        begin.to_rfc3339_opts(SecondsFormat::Secs, true)
    }
}

macro_rules! row {
    ($($(#[$doc:meta])* $field:ident $name:literal,)*) => {
        /// What was used, each of it a count that only grows.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Row { $($(#[$doc])* pub $field: u64,)* }

        impl Row {
            /// In the order of [`Row::values`], as JSON has them.
            pub const NAMES: [&str; Row::LEN] = [$($name),*];
            /// The same, as CSV has them.
            pub const COLUMNS: [&str; Row::LEN] = [$(stringify!($field)),*];
            pub const LEN: usize = [$(stringify!($field)),*].len();

            pub fn values(&self) -> [u64; Row::LEN] {
                let Row { $($field),* } = *self;
                [$($field),*]
            }

            pub fn from_values([$($field),*]: [u64; Row::LEN]) -> Self {
                Row { $($field),* }
            }

            pub fn add(&mut self, more: &Row) {
                $(self.$field = self.$field.saturating_add(more.$field);)*
            }
        }
    };
}

// Their order is that on disk and of the columns: what is new comes last.
row! {
    /// CPU time of guests, of the host calls they make, and of models, in ns.
    cpu_ns "cpuNs",
    /// Fuel of guests and of the host calls they make.
    fuel "fuel",
    /// Memory of the host's that it had, in bytes times seconds.
    memory_byte_seconds "memoryByteSeconds",
    /// Messages taken from sources, and the bytes of their topics, payloads and properties.
    received "received",
    received_bytes "receivedBytes",
    /// Messages that sinks confirmed, and their bytes.
    delivered "delivered",
    delivered_bytes "deliveredBytes",
    /// Messages given up.
    dead "dead",
    /// Calls of guests into the host.
    host_calls "hostCalls",
}

impl Row {
    pub fn is_empty(&self) -> bool {
        *self == Row::default()
    }

    /// Whether there is nothing in it but memory, which costs without work.
    pub fn is_memory_alone(&self) -> bool {
        *self == Row { memory_byte_seconds: self.memory_byte_seconds, ..Row::default() }
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        self.values().iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    /// Of any number of values: what an earlier host did not count is 0.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let (chunks, _) = bytes.as_chunks::<8>();
        let mut values = [0; Row::LEN];
        values.iter_mut().zip(chunks).for_each(|(value, chunk)| *value = u64::from_le_bytes(*chunk));
        Row::from_values(values)
    }
}
