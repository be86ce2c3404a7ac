//! A metric for each value of a label, whose values are known beforehand.
//!
//! Not `prometheus_client`'s families: these have a lock, a hash for each count, no order, and no bound.

use std::fmt;
use std::sync::Arc;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::{MetricType, TypedMetric};

/// A label and all its values. What code counts under another one counts as `other`, where there is that, else as the last.
#[derive(Debug)]
pub struct Label {
    pub name: &'static str,
    pub values: &'static [&'static str],
}

impl Label {
    fn place(&self, value: &str) -> usize {
        self.values.iter().position(|known| *known == value).unwrap_or(self.values.len() - 1)
    }

    /// The value, where it is one.
    pub(super) fn known(&self, value: &'static str) -> &'static str {
        self.values[self.place(value)]
    }
}

/// One metric for each value.
#[derive(Debug, Clone)]
pub struct Fixed<M> {
    label: &'static Label,
    series: Arc<[M]>,
}

impl<M: Default> Fixed<M> {
    pub fn new(label: &'static Label) -> Self {
        Self::with(label, M::default)
    }
}

impl<M> Fixed<M> {
    pub fn with(label: &'static Label, make: impl Fn() -> M) -> Self {
        Self { label, series: label.values.iter().map(|_| make()).collect() }
    }

    pub fn of(&self, value: &str) -> &M {
        &self.series[self.label.place(value)]
    }
}

impl<M: EncodeMetric + TypedMetric> EncodeMetric for Fixed<M> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        for (value, metric) in self.label.values.iter().zip(&*self.series) {
            let labels = [(self.label.name, *value)];
            metric.encode(encoder.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        M::TYPE
    }
}

/// One metric for each pair of values.
#[derive(Debug, Clone)]
pub struct Grid<M> {
    labels: [&'static Label; 2],
    series: Arc<[M]>,
}

impl<M: Default> Grid<M> {
    pub fn new(first: &'static Label, second: &'static Label) -> Self {
        let count = first.values.len() * second.values.len();
        Self { labels: [first, second], series: (0..count).map(|_| M::default()).collect() }
    }

    pub fn of(&self, first: &str, second: &str) -> &M {
        let [rows, columns] = self.labels;
        &self.series[rows.place(first) * columns.values.len() + columns.place(second)]
    }
}

impl<M: EncodeMetric + TypedMetric> EncodeMetric for Grid<M> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        let [rows, columns] = self.labels;
        let pairs =
            rows.values.iter().flat_map(|first| columns.values.iter().map(move |second| (first, second)));
        for ((first, second), metric) in pairs.zip(&*self.series) {
            let labels = [(rows.name, *first), (columns.name, *second)];
            metric.encode(encoder.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        M::TYPE
    }
}
