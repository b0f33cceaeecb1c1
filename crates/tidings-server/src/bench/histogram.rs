//! Durations counted so that any percentile is known within one in sixty-four, in bounded memory.

use serde_json::{Value, json};

/// Counts by duration in nanoseconds.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max: u64,
}

const PER_DOUBLING: u32 = 6;

impl Default for Histogram {
    fn default() -> Self {
        Histogram { counts: vec![0; 64 << PER_DOUBLING], total: 0, max: 0 }
    }
}

impl Histogram {
    pub(super) fn add(&mut self, nanoseconds: u64) {
        let value = nanoseconds.max(1 << PER_DOUBLING);
        let doublings = value.ilog2();
        let within = (value >> (doublings - PER_DOUBLING)) & ((1 << PER_DOUBLING) - 1);
        self.counts[(doublings << PER_DOUBLING) as usize | within as usize] += 1;
        self.total += 1;
        self.max = self.max.max(nanoseconds);
    }

    pub(super) fn merge(&mut self, other: &Histogram) {
        for (sum, more) in self.counts.iter_mut().zip(&other.counts) {
            *sum += more;
        }
        self.total += other.total;
        self.max = self.max.max(other.max);
    }

    /// Only the places that are not empty.
    pub(super) fn to_json(&self) -> Value {
        let filled = self.counts.iter().enumerate().filter(|(_, count)| **count > 0);
        json!({"max": self.max, "counts": filled.collect::<Vec<_>>()})
    }

    pub(super) fn from_json(value: &Value) -> Option<Histogram> {
        let mut histogram = Histogram { max: value["max"].as_u64()?, ..Histogram::default() };
        for pair in value["counts"].as_array()? {
            let (index, count) = (pair.get(0)?.as_u64()?, pair.get(1)?.as_u64()?);
            *histogram.counts.get_mut(index as usize)? += count;
            histogram.total += count;
        }
        Some(histogram)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// In milliseconds; `part` from 0 to 1.
    pub(super) fn percentile(&self, part: f64) -> f64 {
        let wanted = (self.total as f64 * part).ceil() as u64;
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted && *count > 0 {
                let (doublings, within) = (index as u32 >> PER_DOUBLING, index as u64 & ((1 << PER_DOUBLING) - 1));
                let lower = (1u64 << doublings) + (within << (doublings - PER_DOUBLING));
                return lower as f64 / 1e6;
            }
        }
        0.0
    }

    pub(super) fn max(&self) -> f64 {
        self.max as f64 / 1e6
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles() {
        let mut histogram = Histogram::default();
        (1..=1_000).for_each(|ms| histogram.add(ms * 1_000_000));
        for (part, expected) in [(0.5, 500.0), (0.99, 990.0), (1.0, 1_000.0)] {
            let found = histogram.percentile(part);
            assert!((expected * 0.98..=expected).contains(&found), "{part}: {found}");
        }
        assert!((histogram.max() - 1_000.0).abs() < 1e-9);
    }
}
