//! Answers of a batch by type, code and size, counted together: a shared counter for each answer costs more than a plain one.

use hickory_proto::rr::RecordType;

use super::super::{kind_label, rcode_label};
use super::Written;
use crate::telemetry::metrics::{Answer, DnsMetrics, SizeTally};

#[derive(Default)]
pub(in crate::dns) struct Tally {
    /// A batch has few kinds, and no more than it has answers.
    seen: Vec<(Written, u64)>,
    sizes: SizeTally,
}

impl Tally {
    /// One answer, and its octets.
    pub(in crate::dns) fn add(&mut self, written: Written, octets: usize) {
        self.sizes.add(octets);
        match self.seen.iter_mut().find(|(same, _)| *same == written) {
            Some((_, count)) => *count += 1,
            None => self.seen.push((written, 1)),
        }
    }

    /// Shows what was counted, and starts anew.
    pub(in crate::dns) fn count(&mut self, metrics: &DnsMetrics) {
        for (written, count) in self.seen.drain(..) {
            let (r#type, rcode) = (kind_label(RecordType::from(written.kind)), rcode_label(written.rcode));
            metrics.answered(Answer { r#type, rcode, transport: "udp", path: "fast" }, count);
        }
        metrics.sized("udp", &mut self.sizes);
    }
}
