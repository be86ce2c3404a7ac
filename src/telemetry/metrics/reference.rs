//! The table of all metrics, as docs/metrics.md has it: made from what they are, so that no metric is missing and none is told
//! that is not there.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::{Answer, Metrics, PATH, RCODE, TRANSPORT, TYPE};

/// A metric as a scrape shows it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Shown {
    pub help: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: String,
    /// Labels and their values, each in the order of its first sample.
    pub labels: Vec<(String, Vec<String>)>,
}

/// The metrics of a scrape in Prometheus' text form 0.0.4, by name. A histogram's `le` is not told.
pub fn read(text: &str) -> BTreeMap<String, Shown> {
    let mut all: BTreeMap<String, Shown> = BTreeMap::new();
    for line in text.lines() {
        let mut words = line.splitn(4, ' ');
        if let (Some("#"), Some(what), Some(name), Some(rest)) =
            (words.next(), words.next(), words.next(), words.next())
        {
            let shown = all.entry(name.to_owned()).or_default();
            let field = if what == "HELP" { &mut shown.help } else { &mut shown.kind };
            rest.clone_into(field);
            continue;
        }
        let Some((series, _)) = line.rsplit_once(' ') else { continue };
        let (sample, labels) = series.split_once('{').unwrap_or((series, ""));
        let name = ["_bucket", "_sum", "_count"].iter().find_map(|end| sample.strip_suffix(end));
        let name = name.filter(|name| all.contains_key(*name)).unwrap_or(sample);
        let shown = all.entry(name.to_owned()).or_default();
        for pair in labels.trim_end_matches('}').split("\",").filter(|pair| !pair.is_empty()) {
            let (label, value) = pair.split_once("=\"").unwrap_or((pair, ""));
            if label != "le" {
                add(&mut shown.labels, label, value.trim_end_matches('"'));
            }
        }
    }
    all
}

fn add(labels: &mut Vec<(String, Vec<String>)>, label: &str, value: &str) {
    let place = labels.iter().position(|(name, _)| name == label).unwrap_or_else(|| {
        labels.push((label.to_owned(), Vec::new()));
        labels.len() - 1
    });
    let values = &mut labels[place].1;
    if !values.iter().any(|known| known == value) {
        values.push(value.to_owned());
    }
}

/// What a server shows that has counted under each value of each label.
pub fn all() -> BTreeMap<String, Shown> {
    let metrics = Metrics::default();
    let count = |r#type, rcode, transport, path| {
        metrics.dns.answered(Answer { r#type, rcode, transport, path }, 1);
    };
    let (types, rcodes) = (TYPE.values, RCODE.values);
    types.iter().for_each(|one| count(one, rcodes[0], TRANSPORT.values[0], PATH.values[0]));
    rcodes.iter().for_each(|one| count(types[0], one, TRANSPORT.values[0], PATH.values[0]));
    TRANSPORT.values.iter().for_each(|one| count(types[0], rcodes[0], one, PATH.values[0]));
    PATH.values.iter().for_each(|one| count(types[0], rcodes[0], TRANSPORT.values[0], one));
    let mut all = read(&metrics.encode_text());
    // A family's samples come in no order.
    for (label, values) in all.values_mut().flat_map(|shown| &mut shown.labels) {
        if let Some(known) = [TYPE, RCODE, TRANSPORT, PATH].iter().find(|known| known.name == label.as_str())
        {
            values.sort_by_key(|value| known.values.iter().position(|one| one == value));
        }
    }
    all
}

/// Two tables: the metrics, and the values of their labels.
pub fn markdown() -> String {
    let mut text = "| metric | type | labels | meaning |\n|---|---|---|---|\n".to_owned();
    let mut values = "| metric | label | values |\n|---|---|---|\n".to_owned();
    for (name, Shown { help, kind, labels }) in all() {
        let names: Vec<_> = labels.iter().map(|(label, _)| format!("`{label}`")).collect();
        // Writing to a String cannot fail.
        let _ =
            writeln!(text, "| `{name}` | {kind} | {} | {} |", names.join(", "), help.trim_end_matches('.'));
        for (label, of) in labels {
            let of: Vec<_> = of.iter().map(|value| format!("`{value}`")).collect();
            let _ = writeln!(values, "| `{name}` | `{label}` | {} |", of.join(", "));
        }
    }
    format!("{text}\n{values}")
}
