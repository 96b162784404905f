//! What happened second by second, for the charts: messages, their latency, the host's
//! memory and CPU. Bounded, however long a run is: seconds are joined two by two.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Most buckets that are kept.
const BUCKETS_MAX: usize = 3_600;

/// One stretch of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Bucket {
    /// When it begins, in seconds of the run.
    pub second: u64,
    /// Messages that were due in it, and that came in it.
    pub sent: u64,
    pub came: u64,
    /// Of those that came in it; of joined seconds, of the worst.
    pub p99_ms: f64,
    /// Resident, of the host and what it started; 0 if it is not ours to see.
    pub memory_bytes: u64,
    /// Of the host, in cores.
    pub cpu: f64,
}

pub struct Timeline {
    /// Seconds that one bucket stands for.
    width: u64,
    buckets: Vec<Bucket>,
    /// Of the latest bucket that something came in.
    latency_us: Histogram<u64>,
    latest: usize,
}

impl Default for Timeline {
    fn default() -> Self {
        let latency_us = Histogram::new_with_bounds(1, 3_600_000_000, 2).expect("bounds of a histogram");
        Timeline { width: 1, buckets: Vec::new(), latency_us, latest: 0 }
    }
}

impl Timeline {
    pub fn sent(&mut self, at_ns: u64) {
        self.at(at_ns).sent += 1;
    }

    pub fn came(&mut self, at_ns: u64, latency_us: u64) {
        self.at(at_ns).came += 1;
        let index = self.index(at_ns);
        if index != self.latest {
            self.close();
            self.latest = index;
        }
        self.latency_us.saturating_record(latency_us);
    }

    /// What the host took just now.
    pub fn host(&mut self, at_ns: u64, memory_bytes: u64, cpu: f64) {
        let bucket = self.at(at_ns);
        bucket.memory_bytes = bucket.memory_bytes.max(memory_bytes);
        // To three places, as everything that is kept.
        bucket.cpu = bucket.cpu.max((cpu * 1e3).round() / 1e3);
    }

    pub fn width(&self) -> u64 {
        self.width
    }

    pub fn buckets(&mut self) -> &[Bucket] {
        self.close();
        &self.buckets
    }

    fn close(&mut self) {
        if let Some(bucket) = self.buckets.get_mut(self.latest).filter(|_| !self.latency_us.is_empty()) {
            bucket.p99_ms = bucket.p99_ms.max(self.latency_us.value_at_quantile(0.99) as f64 / 1e3);
        }
        self.latency_us.reset();
    }

    fn index(&self, at_ns: u64) -> usize {
        (at_ns / 1_000_000_000 / self.width) as usize
    }

    fn at(&mut self, at_ns: u64) -> &mut Bucket {
        while self.index(at_ns) >= BUCKETS_MAX {
            self.join();
        }
        let index = self.index(at_ns);
        while self.buckets.len() <= index {
            let second = self.buckets.len() as u64 * self.width;
            self.buckets.push(Bucket { second, ..Bucket::default() });
        }
        &mut self.buckets[index]
    }

    fn join(&mut self) {
        self.close();
        let joined = self.buckets.chunks(2).map(|pair| {
            let (first, second) = (pair[0], pair.get(1).copied().unwrap_or_default());
            Bucket {
                second: first.second,
                sent: first.sent + second.sent,
                came: first.came + second.came,
                p99_ms: first.p99_ms.max(second.p99_ms),
                memory_bytes: first.memory_bytes.max(second.memory_bytes),
                cpu: first.cpu.max(second.cpu),
            }
        });
        self.buckets = joined.collect();
        self.width *= 2;
        self.latest /= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn each_second_has_its_own_figures() {
        let mut timeline = Timeline::default();
        timeline.sent(0);
        timeline.sent(SECOND / 2);
        timeline.came(SECOND / 2, 5_000);
        timeline.came(2 * SECOND, 9_000);
        timeline.host(2 * SECOND, 100, 0.5);
        let buckets = timeline.buckets();
        assert_eq!((buckets.len(), buckets[0].sent, buckets[0].came), (3, 2, 1));
        assert!((buckets[0].p99_ms - 5.0).abs() < 0.1 && (buckets[2].p99_ms - 9.0).abs() < 0.1);
        assert_eq!((buckets[1].came, buckets[1].p99_ms), (0, 0.0));
        assert_eq!((buckets[2].second, buckets[2].memory_bytes, buckets[2].cpu), (2, 100, 0.5));
    }

    #[test]
    fn a_day_takes_no_more_than_an_hour_and_forgets_no_message() {
        let mut timeline = Timeline::default();
        for second in 0..86_400 {
            timeline.sent(second * SECOND);
            timeline.came(second * SECOND, if second == 50_000 { 80_000 } else { 1_000 });
        }
        assert_eq!(timeline.width(), 32);
        let buckets = timeline.buckets();
        assert!(buckets.len() <= BUCKETS_MAX);
        assert_eq!(buckets.iter().map(|bucket| bucket.came).sum::<u64>(), 86_400);
        let worst = buckets.iter().max_by(|a, b| a.p99_ms.total_cmp(&b.p99_ms)).expect("some");
        assert_eq!(worst.second, 50_000 / 32 * 32);
    }
}
