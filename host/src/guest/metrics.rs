//! `GuestMetrics`: counters and histograms that one operator's guests report
//! through AIO's `metrics`. Kept in memory and read by whoever shows them; it knows
//! no exporter.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

/// Most series of one tenant, unless its policy says otherwise: each new set of labels is one.
pub const SERIES_MAX: u32 = 256;

/// Longest name with labels, in bytes.
const KEY_BYTES_MAX: usize = 1 << 10;

/// Labels of a series, by key.
pub type Labels = BTreeMap<String, String>;

/// How many series one tenant's operators may have, and have.
#[derive(Debug)]
pub struct SeriesAllowance {
    max: u32,
    used: AtomicU32,
}

impl Default for SeriesAllowance {
    fn default() -> Self {
        SeriesAllowance::new(SERIES_MAX)
    }
}

impl SeriesAllowance {
    pub fn new(max: u32) -> Self {
        SeriesAllowance { max, used: AtomicU32::new(0) }
    }

    pub fn used(&self) -> u32 {
        self.used.load(Ordering::Relaxed)
    }

    fn take(&self) -> bool {
        let more = |used: u32| (used < self.max).then_some(used + 1);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }
}

/// The series of one operator; its instances share them.
#[derive(Debug, Default)]
pub struct GuestMetrics {
    allowance: Arc<SeriesAllowance>,
    /// A poisoned lock is taken all the same: numbers cannot be half written.
    series: Mutex<BTreeMap<String, Instrument>>,
}

#[derive(Debug)]
struct Instrument {
    kind: Kind,
    by_labels: BTreeMap<Labels, Reading>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Counter,
    HistogramOfIntegers,
    HistogramOfFloats,
}

/// What is known of one series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reading {
    Counter(u64),
    Histogram { count: u64, sum: f64, min: f64, max: f64 },
}

/// A value for a histogram.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sample {
    Integer(u64),
    Float(f64),
}

/// One series as it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    pub name: String,
    pub labels: Labels,
    pub reading: Reading,
}

/// Why a value was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetricsError {
    #[error("`{name}` is used with another type")]
    IncompatibleType { name: String },
    #[error("a tenant may have {max} series, over all its operators")]
    TooManySeries { max: u32 },
    #[error("name and labels have more than {KEY_BYTES_MAX} bytes")]
    TooLong,
}

impl GuestMetrics {
    /// Of an operator whose tenant has this allowance.
    pub fn within(allowance: Arc<SeriesAllowance>) -> Self {
        GuestMetrics { allowance, series: Mutex::default() }
    }

    pub fn add_to_counter(&self, name: &str, by: u64, labels: Labels) -> Result<(), MetricsError> {
        self.update(name, labels, Kind::Counter, |reading| {
            let before = match reading {
                Some(Reading::Counter(count)) => *count,
                _ => 0,
            };
            Reading::Counter(before.saturating_add(by))
        })
    }

    pub fn record_to_histogram(
        &self,
        name: &str,
        sample: Sample,
        labels: Labels,
    ) -> Result<(), MetricsError> {
        let (kind, value) = match sample {
            Sample::Integer(value) => (Kind::HistogramOfIntegers, value as f64),
            Sample::Float(value) => (Kind::HistogramOfFloats, value),
        };
        self.update(name, labels, kind, |reading| match reading {
            Some(Reading::Histogram { count, sum, min, max }) => Reading::Histogram {
                count: count + 1,
                sum: sum + value,
                min: min.min(value),
                max: max.max(value),
            },
            _ => Reading::Histogram { count: 1, sum: value, min: value, max: value },
        })
    }

    /// All series, by name and labels.
    pub fn read(&self) -> Vec<Series> {
        let series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |(name, instrument): (&String, &Instrument)| {
            let name = name.clone();
            let each = instrument.by_labels.clone().into_iter();
            each.map(move |(labels, reading)| Series { name: name.clone(), labels, reading })
                .collect::<Vec<_>>()
        };
        series.iter().flat_map(of).collect()
    }

    fn update(
        &self,
        name: &str,
        labels: Labels,
        kind: Kind,
        change: impl FnOnce(Option<&Reading>) -> Reading,
    ) -> Result<(), MetricsError> {
        let key_bytes = name.len() + labels.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>();
        if key_bytes > KEY_BYTES_MAX {
            return Err(MetricsError::TooLong);
        }
        let mut series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(instrument) = series.get_mut(name) {
            if instrument.kind != kind {
                return Err(MetricsError::IncompatibleType { name: name.to_owned() });
            }
            if let Some(reading) = instrument.by_labels.get_mut(&labels) {
                *reading = change(Some(reading));
                return Ok(());
            }
        }
        if !self.allowance.take() {
            return Err(MetricsError::TooManySeries { max: self.allowance.max });
        }
        let by_labels = BTreeMap::new();
        let instrument = series.entry(name.to_owned()).or_insert(Instrument { kind, by_labels });
        instrument.by_labels.insert(labels, change(None));
        Ok(())
    }
}

impl Drop for GuestMetrics {
    fn drop(&mut self) {
        let series = self.series.get_mut().unwrap_or_else(PoisonError::into_inner);
        let count: usize = series.values().map(|instrument| instrument.by_labels.len()).sum();
        self.allowance.used.fetch_sub(count as u32, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
