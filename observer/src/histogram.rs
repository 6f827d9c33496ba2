//! Histograms of durations by powers of two, and what can be read from them.

use observer_common::{BUCKETS, bucket, bucket_end};

use crate::event::Bucket;

/// Durations counted by [`bucket`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Histogram(pub [u64; BUCKETS]);

impl Default for Histogram {
    fn default() -> Self {
        Histogram([0; BUCKETS])
    }
}

impl Histogram {
    /// Counts one duration.
    pub fn add(&mut self, ns: u64) {
        self.0[bucket(ns) as usize] += 1;
    }

    /// Adds counts of the kernel programs.
    pub fn merge(&mut self, counts: &[u32; BUCKETS]) {
        for (sum, count) in self.0.iter_mut().zip(counts) {
            *sum += u64::from(*count);
        }
    }

    /// How many durations were counted.
    pub fn count(&self) -> u64 {
        self.0.iter().sum()
    }

    /// A quantile in nanoseconds, interpolated within its bucket and never above the known maximum;
    /// `None` when nothing was counted. `q` is from 0 to 1.
    pub fn quantile(&self, q: f64, max_ns: u64) -> Option<u64> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        let rank = (q.clamp(0.0, 1.0) * count as f64).max(1.0);
        let mut before = 0;
        for (i, &n) in self.0.iter().enumerate() {
            if n > 0 && (before + n) as f64 >= rank {
                let low = if i == 0 {
                    0
                } else {
                    bucket_end(i - 1).unwrap_or(0)
                };
                let high = bucket_end(i).unwrap_or(max_ns).min(max_ns).max(low);
                let within = (rank - before as f64) / n as f64;
                // A large u64 may round up on its way through f64.
                return Some((low + ((high - low) as f64 * within) as u64).min(high));
            }
            before += n;
        }
        Some(max_ns)
    }

    /// The non-empty buckets.
    pub fn buckets(&self) -> Vec<Bucket> {
        let filled = self.0.iter().enumerate().filter(|(_, count)| **count > 0);
        let bucket = |(i, &count)| Bucket {
            lt_ns: bucket_end(i),
            count,
        };
        // There may be a hundred thousand locks, and most of them have one.
        let mut buckets = Vec::with_capacity(filled.clone().count());
        buckets.extend(filled.map(bucket));
        buckets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_in_their_buckets() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.5, 0), None);
        for _ in 0..99 {
            histogram.add(3_000);
        }
        histogram.add(5_000_000);
        let p50 = histogram.quantile(0.5, 5_000_000).unwrap();
        assert!((2_048..4_096).contains(&p50), "{p50}");
        let p99 = histogram.quantile(0.99, 5_000_000).unwrap();
        assert!((2_048..=4_096).contains(&p99), "{p99}");
        assert_eq!(histogram.quantile(1.0, 5_000_000), Some(5_000_000));
        assert_eq!(histogram.buckets().len(), 2);
    }

    #[test]
    fn the_last_bucket_ends_at_the_maximum() {
        let mut histogram = Histogram::default();
        histogram.add(u64::MAX / 2);
        assert_eq!(histogram.quantile(1.0, u64::MAX / 2), Some(u64::MAX / 2));
        assert_eq!(histogram.buckets()[0].lt_ns, None);
    }
}
