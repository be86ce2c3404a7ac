//! What an import came to, for people.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};

use anyhow::bail;
use serde_json::Value;

use crate::cli::say;
use crate::cli::show::{list, printable, table};

/// What was read, and what the server did with it.
#[derive(Default)]
pub(super) struct Told {
    /// The server's answer.
    pub(super) report: Value,
    pub(super) dry_run: bool,
    /// What was left out or taken in part while reading: why, how often, and the first one.
    notes: BTreeMap<String, (usize, String)>,
    /// The same of what should have been taken.
    refused: BTreeMap<String, (usize, String)>,
    /// Prepared queries that were written: new, changed, unchanged.
    pub(super) queries: [usize; 3],
}

impl Told {
    pub(super) fn note(&mut self, reason: &str, entry: &str) {
        add(&mut self.notes, reason, entry);
    }

    pub(super) fn refuse(&mut self, reason: &str, entry: &str) {
        add(&mut self.refused, reason, entry);
    }

    /// Prints all. Errs when something was refused.
    pub(super) fn print(mut self) -> anyhow::Result<()> {
        for refusal in list(&self.report["Refused"]) {
            let text = |key: &str| refusal[key].as_str().unwrap_or_default().to_owned();
            add(&mut self.refused, &text("Reason"), &text("Entry"));
        }
        for partly in list(&self.report["Partly"]) {
            let text = |key: &str| partly[key].as_str().unwrap_or_default().to_owned();
            add(&mut self.notes, &text("Reason"), &text("Entry"));
        }
        let number = |key: &str| self.report[key].as_u64().unwrap_or(0);
        let mut rows = vec![["", "NEW", "CHANGED", "UNCHANGED"].map(str::to_owned).to_vec()];
        for (what, key) in [
            ("nodes", "Nodes"),
            ("services", "Services"),
            ("checks", "Checks"),
            ("maintenance", "Maintenance"),
        ] {
            let count = |of: &str| self.report[key][of].as_u64().unwrap_or(0).to_string();
            rows.push(vec![what.to_owned(), count("New"), count("Changed"), count("Unchanged")]);
        }
        let taken = &self.report["Queries"];
        for (at, of) in ["New", "Changed", "Unchanged"].into_iter().enumerate() {
            self.queries[at] += taken[of].as_u64().unwrap_or(0) as usize;
        }
        if self.queries != [0; 3] {
            let counts = self.queries.map(|count| count.to_string());
            rows.push([&["prepared queries".to_owned()][..], &counts].concat());
        }
        if self.dry_run {
            say(format_args!("This is what would be done; nothing was changed."))?;
        }
        table(&rows)?;
        let removed = list(&self.report["Removed"]);
        for entry in removed {
            say(format_args!("removed: {}", printable(entry.as_str().unwrap_or_default())))?;
        }
        for (key, text) in [
            ("RemovedMore", "more were removed"),
            ("Kept", "services stay as their own programs have registered them here"),
            (
                "FileOwned",
                "entries stand in the configuration file of the server they come from, and were left out",
            ),
            ("PartlyMore", "more were taken in part"),
            ("RefusedMore", "more were refused"),
            ("NotTried", "were not tried any more: definitions cannot be stored at present"),
        ] {
            if number(key) > 0 {
                say(format_args!("{} {text}", number(key)))?;
            }
        }
        if let Some(why) = self.report["NotPruned"].as_str() {
            say(format_args!("nothing was removed: {why}"))?;
        }
        reasons("NOT TAKEN AS IT WAS", &self.notes)?;
        reasons("REFUSED", &self.refused)?;
        match (self.refused.is_empty(), self.report["BrokeOff"] == true) {
            (_, true) => {
                bail!("it broke off; what is counted as new or changed was tried, run it again for the rest")
            }
            (false, _) => bail!("not everything was taken"),
            _ => Ok(()),
        }
    }
}

fn add(to: &mut BTreeMap<String, (usize, String)>, reason: &str, entry: &str) {
    to.entry(reason.to_owned()).or_insert_with(|| (0, entry.to_owned())).0 += 1;
}

fn reasons(title: &str, reasons: &BTreeMap<String, (usize, String)>) -> anyhow::Result<()> {
    if reasons.is_empty() {
        return Ok(());
    }
    let mut rows = vec![[title, "FOR EXAMPLE", "WHY"].map(str::to_owned).to_vec()];
    rows.extend(
        reasons
            .iter()
            .map(|(reason, (count, example))| vec![count.to_string(), printable(example), printable(reason)]),
    );
    table(&rows)
}

/// A line that is written over while something goes on, for those who look.
pub(super) struct Progress {
    shown: bool,
    last: std::time::Instant,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self { shown: io::stderr().is_terminal(), last: std::time::Instant::now() }
    }

    pub(super) fn show(&mut self, text: std::fmt::Arguments<'_>) {
        if self.shown && self.last.elapsed().as_millis() >= 100 {
            self.last = std::time::Instant::now();
            let _ = write!(io::stderr(), "\r\x1b[K{text}");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
