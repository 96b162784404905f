//! `GuestMetrics`: counters and histograms that one operator's guests report
//! through AIO's `metrics`. Kept in memory and read by whoever shows them; it knows
//! no exporter.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

/// Most series of one operator: each new set of labels is one.
pub const SERIES_MAX: usize = 256;

/// Longest name with labels, in bytes.
const KEY_BYTES_MAX: usize = 1 << 10;

/// Labels of a series, by key.
pub type Labels = BTreeMap<String, String>;

/// The series of one operator; its instances share them.
#[derive(Debug, Default)]
pub struct GuestMetrics {
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
    #[error("an operator may have {SERIES_MAX} series")]
    TooManySeries,
    #[error("name and labels have more than {KEY_BYTES_MAX} bytes")]
    TooLong,
}

impl GuestMetrics {
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
        let count: usize = series.values().map(|instrument| instrument.by_labels.len()).sum();
        if let Some(instrument) = series.get_mut(name) {
            if instrument.kind != kind {
                return Err(MetricsError::IncompatibleType { name: name.to_owned() });
            }
            if let Some(reading) = instrument.by_labels.get_mut(&labels) {
                *reading = change(Some(reading));
                return Ok(());
            }
        }
        if count >= SERIES_MAX {
            return Err(MetricsError::TooManySeries);
        }
        let by_labels = BTreeMap::new();
        let instrument = series.entry(name.to_owned()).or_insert(Instrument { kind, by_labels });
        instrument.by_labels.insert(labels, change(None));
        Ok(())
    }
}

#[cfg(test)]
mod tests;
