//! What the disk alone can do: a lone loop that writes a block and waits for it.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

use serde_json::{Value, json};

const BLOCK: usize = 4096;

/// The times of each loop, in microseconds.
#[derive(Default)]
pub(crate) struct Loops {
    took: BTreeMap<&'static str, Vec<f64>>,
}

impl Loops {
    pub(crate) fn run(&mut self, dir: &Path, count: usize) {
        self.one("append_fsync", dir, count, BLOCK as u64, File::sync_all);
        self.one("append_fdatasync", dir, count, BLOCK as u64, File::sync_data);
        self.one("overwrite_fdatasync", dir, count, 0, File::sync_data);
    }

    fn one(
        &mut self,
        name: &'static str,
        dir: &Path,
        count: usize,
        step: u64,
        sync: impl Fn(&File) -> std::io::Result<()>,
    ) {
        let file = tempfile::tempfile_in(dir).unwrap();
        let took = self.took.entry(name).or_default();
        for i in 0..count {
            let begun = Instant::now();
            file.write_all_at(&[i as u8; BLOCK], i as u64 * step).unwrap();
            sync(&file).unwrap();
            took.push(begun.elapsed().as_secs_f64() * 1e6);
        }
    }

    pub(crate) fn report(&self) -> Value {
        let rate = |took: &[f64]| 1e6 * took.len() as f64 / took.iter().sum::<f64>();
        let each = self.took.iter().map(|(name, took)| {
            let mut shown = summary(took);
            shown["rate"] = json!(rate(took));
            ((*name).to_owned(), shown)
        });
        Value::Object(each.collect())
    }
}

/// The median and the 99th percentile.
pub(crate) fn summary(values: &[f64]) -> Value {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let at = |part: f64| sorted.get(((sorted.len() as f64 * part) as usize).min(sorted.len().max(1) - 1));
    json!({ "p50": at(0.5), "p99": at(0.99) })
}
