//! A histogram of sizes that takes many at once: a thread that answers a batch counts in plain numbers of its own and shows them
//! together, since a shared counter for each answer costs more than a plain one.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::{MetricType, TypedMetric};

/// Upper bounds in octets: RFC 1035's 512, the payload of RFC 9715 (1232), RFC 6891's 4096, and all that TCP can carry.
const BOUNDS: [usize; 9] = [64, 128, 256, 512, 1232, 4096, 8192, 16_384, 65_535];

/// Sizes that were not shown yet.
#[derive(Debug, Default, Clone)]
pub struct SizeTally {
    counts: [u64; BOUNDS.len()],
    octets: u64,
}

impl SizeTally {
    /// Adds one; no message of DNS is larger than the last bound.
    pub fn add(&mut self, octets: usize) {
        let place = BOUNDS.partition_point(|bound| *bound < octets).min(BOUNDS.len() - 1);
        self.counts[place] += 1;
        self.octets += octets as u64;
    }
}

/// The histogram.
#[derive(Debug, Default, Clone)]
pub struct Sizes(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    counts: [AtomicU64; BOUNDS.len()],
    octets: AtomicU64,
}

impl Sizes {
    /// Takes what was counted, and leaves nothing.
    pub fn take(&self, tally: &mut SizeTally) {
        if tally.octets == 0 {
            return;
        }
        for (shared, counted) in self.0.counts.iter().zip(&mut tally.counts) {
            if *counted > 0 {
                shared.fetch_add(std::mem::take(counted), Ordering::Relaxed);
            }
        }
        self.0.octets.fetch_add(std::mem::take(&mut tally.octets), Ordering::Relaxed);
    }
}

impl TypedMetric for Sizes {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for Sizes {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        let counts: Vec<u64> = self.0.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        let mut buckets: Vec<(f64, u64)> =
            BOUNDS.iter().zip(&counts).map(|(bound, count)| (*bound as f64, *count)).collect();
        buckets.push((f64::INFINITY, 0));
        let octets = self.0.octets.load(Ordering::Relaxed) as f64;
        encoder.encode_histogram::<NoLabelSet>(octets, counts.iter().sum(), &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}
