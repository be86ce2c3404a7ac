//! The bounds, and whether they were met.

use std::fmt;

use serde_json::{Value, json};

/// One line of the result.
pub(crate) struct Bound {
    /// The number of the target.
    part: &'static str,
    what: String,
    is: f64,
    bound: f64,
    /// The figure has to be at least the bound, else at most.
    least: bool,
    unit: &'static str,
}

impl Bound {
    pub(crate) fn met(&self) -> bool {
        if self.least { self.is >= self.bound } else { self.is <= self.bound }
    }

    pub(crate) fn json(&self) -> Value {
        json!({ "part": self.part, "what": self.what, "is": self.is, "bound": self.bound, "least": self.least,
            "unit": self.unit, "met": self.met() })
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { part, what, is, bound, least, unit } = self;
        let (verdict, than) =
            (if self.met() { "met" } else { "MISSED" }, if *least { "at least" } else { "at most" });
        write!(f, "{verdict}: {part} {what}: {is:.2} {unit} ({than} {bound:.2})")
    }
}

/// All bounds that a report can be held to. The short form's leave room for a short run on a shared machine, and fail all the
/// same without the journal, without shared commits, or with flips that wait for the disk.
pub(crate) fn bounds(report: &Value) -> Vec<Bound> {
    let short = report["short"] == true;
    let or = |full, shorts| if short { shorts } else { full };
    let number = |pointer: &str| report.pointer(pointer).and_then(Value::as_f64);
    let ms = |pointer: &str| number(pointer).unwrap_or(f64::NAN) / 1e3;
    let mut bounds = Vec::new();
    let mut bound = |part, what: &str, is, bound, least, unit| {
        bounds.push(Bound { part, what: what.to_owned(), is, bound, least, unit });
    };
    if let (Some(many), Some(few)) = (number("/beside/dns/p99"), number("/visible/dns/p99")) {
        let what = format!(
            "99th percentile of registration to visible with {} instances, to that with {}",
            report["beside"]["instances"], report["instances"]
        );
        bound("5", &what, many / few, or(2.0, 4.0), false, "");
    }
    let raw = ms("/fsync/append_fsync/p99");
    let what = format!("registration to visible, 99th percentile (that of a raw fsync: {raw:.2} ms)");
    bound("6", &what, ms("/visible/dns/p99"), 2.0 * raw + 2.0, false, "ms");
    bound(
        "6",
        "flip of a status to visible, 99th percentile",
        ms("/flip/p99"),
        or(2.0, 2.0 + raw),
        false,
        "ms",
    );
    if let Some(per) = number("/durable/per_fsync") {
        let what = "durable registrations over 8 connections for each fsync of a lone loop";
        // How many a machine can share a sync among is its own: a short run is held to what the least server reaches beside it.
        let floor = number("/durable/floor_per_fsync").unwrap_or(f64::NAN);
        bound("7", what, per, or(5.0, 0.4 * floor), true, "");
        let flat = number("/durable/last_to_first").unwrap_or(f64::NAN);
        bound("7", "their rate in the last three tenths, to the first three", flat, or(0.9, 0.5), true, "");
    }
    for (name, what) in
        [("identical", "identical re-registrations"), ("ttl", "TTL updates that change nothing")]
    {
        if let Some(rate) = number(&format!("/{name}/rate")) {
            bound("7", what, rate, or(15_000.0, 5_000.0), true, "a second");
        }
    }
    bounds
}
