//! What is wrong with zones, in words, with the place.

use std::fmt;
use std::path::PathBuf;

/// Why a zone cannot be served; the same shape tells what is odd in one that can.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZoneError {
    /// As the configuration spells it, or below that file's folder for included files.
    pub file: PathBuf,
    /// The first line is 1; `None` if it concerns the whole file.
    pub line: Option<u32>,
    pub reason: String,
}

impl fmt::Display for ZoneError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, "{line}:")?;
        }
        write!(f, " {}", self.reason)
    }
}

impl std::error::Error for ZoneError {}

/// A line of one of the files of a zone; line 0 is the whole file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) line: u32,
    /// Which of `Faults::files`.
    pub(super) file: u16,
}

/// The errors and warnings of one zone, up to a bound.
#[derive(Debug, Default)]
pub(super) struct Faults {
    pub(super) files: Vec<PathBuf>,
    pub(super) errors: Vec<ZoneError>,
    pub(super) warnings: Vec<ZoneError>,
    limit: usize,
    left_out: usize,
}

impl Faults {
    /// Keeps so many errors and so many warnings.
    pub(super) fn new(file: PathBuf, limit: usize) -> Self {
        Self { files: vec![file], limit, ..Self::default() }
    }

    pub(super) fn error(&mut self, place: Place, reason: impl Into<String>) {
        if self.errors.len() < self.limit {
            let error = self.at(place, reason.into());
            self.errors.push(error);
        }
    }

    /// No further error would be kept: reading on is of no use.
    pub(super) fn is_full(&self) -> bool {
        self.errors.len() >= self.limit
    }

    pub(super) fn warn(&mut self, place: Place, reason: impl FnOnce() -> String) {
        if self.warnings.len() < self.limit {
            let warning = self.at(place, reason());
            self.warnings.push(warning);
        } else {
            self.left_out += 1;
        }
    }

    /// The errors as they were found; if there are none, the warnings.
    pub(super) fn finish(mut self) -> Result<Vec<ZoneError>, Vec<ZoneError>> {
        let whole = |faults: &Self, reason| faults.at(Place { line: 0, file: 0 }, reason);
        if self.is_full() {
            let more = whole(&self, format!("only the first {} errors are shown", self.limit));
            self.errors.push(more);
        }
        if self.left_out > 0 {
            let more = whole(&self, format!("{} more warnings are not shown", self.left_out));
            self.warnings.push(more);
        }
        if self.errors.is_empty() { Ok(self.warnings) } else { Err(self.errors) }
    }

    fn at(&self, place: Place, reason: String) -> ZoneError {
        let file = self.files.get(usize::from(place.file)).cloned().unwrap_or_default();
        ZoneError { file, line: (place.line > 0).then_some(place.line), reason }
    }
}
