//! What the disk alone can do: a lone loop that writes a block and waits for it.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

use serde_json::{Value, json};

const BLOCK: usize = 4096;

/// The loops, each with a file of its own.
pub(crate) struct Loops {
    loops: BTreeMap<&'static str, Lone>,
}

/// One loop.
struct Lone {
    file: File,
    /// Octets between two writes.
    step: u64,
    sync: fn(&File) -> std::io::Result<()>,
    /// In microseconds.
    took: Vec<f64>,
}

impl Loops {
    pub(crate) fn new(dir: &Path) -> Self {
        let lone =
            |step, sync| Lone { file: tempfile::tempfile_in(dir).unwrap(), step, sync, took: Vec::new() };
        let loops = BTreeMap::from([
            ("append_fsync", lone(BLOCK as u64, File::sync_all)),
            ("append_fdatasync", lone(BLOCK as u64, File::sync_data)),
            ("overwrite_fdatasync", lone(0, File::sync_data)),
        ]);
        Self { loops }
    }

    /// Lets each go round so often; the rate of `append_fsync`.
    pub(crate) fn run(&mut self, count: usize) -> f64 {
        self.loops.values_mut().for_each(|lone| lone.run(count));
        let took = &self.loops["append_fsync"].took;
        rate(&took[took.len() - count..])
    }

    pub(crate) fn report(&self) -> Value {
        let each = self.loops.iter().map(|(name, Lone { took, .. })| {
            let mut shown = summary(took);
            shown["rate"] = json!(rate(took));
            ((*name).to_owned(), shown)
        });
        Value::Object(each.collect())
    }
}

impl Lone {
    fn run(&mut self, count: usize) {
        for _ in 0..count {
            let number = self.took.len();
            let begun = Instant::now();
            self.file.write_all_at(&[number as u8; BLOCK], number as u64 * self.step).unwrap();
            (self.sync)(&self.file).unwrap();
            self.took.push(begun.elapsed().as_secs_f64() * 1e6);
        }
    }
}

fn rate(took: &[f64]) -> f64 {
    1e6 * took.len() as f64 / took.iter().sum::<f64>()
}

/// The median and the 99th percentile.
pub(crate) fn summary(values: &[f64]) -> Value {
    let sorted = sorted(values);
    let at = |part: f64| sorted.get(((sorted.len() as f64 * part) as usize).min(sorted.len().max(1) - 1));
    json!({ "p50": at(0.5), "p99": at(0.99) })
}

pub(crate) fn median(values: &[f64]) -> f64 {
    let sorted = sorted(values);
    (sorted[(sorted.len() - 1) / 2] + sorted[sorted.len() / 2]) / 2.0
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted
}
