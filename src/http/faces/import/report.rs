//! What an import did, or would do.

use axum::http::StatusCode;
use serde::Serialize;

use super::NAMED_MAX;

/// How many of one kind.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Count {
    pub(super) new: usize,
    pub(super) changed: usize,
    pub(super) unchanged: usize,
}

impl Count {
    /// Counts one; whether it differs.
    pub(super) fn weigh(&mut self, known: bool, same: bool) -> bool {
        match (known, same) {
            (_, true) => self.unchanged += 1,
            (true, false) => self.changed += 1,
            (false, false) => self.new += 1,
        }
        !same
    }
}

/// What could not be taken, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Refusal {
    entry: String,
    reason: String,
    /// The entry was taken, but not all that was said of it.
    #[serde(skip)]
    partly: bool,
}

impl Refusal {
    pub(super) fn new(entry: String, reason: String) -> Self {
        Self { entry, reason, partly: false }
    }

    pub(super) fn note(entry: String, reason: String) -> Self {
        Self { entry, reason, partly: true }
    }

    pub(super) fn is_partly(&self) -> bool {
        self.partly
    }
}

/// The answer to an import.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Report {
    pub(super) dry_run: bool,
    pub(super) nodes: Count,
    pub(super) services: Count,
    pub(super) checks: Count,
    pub(super) maintenance: Count,
    pub(super) queries: Count,
    pub(super) routes: Count,
    /// Services that their own programs have registered here by now.
    pub(super) kept: usize,
    pub(super) removed: Vec<String>,
    pub(super) removed_more: usize,
    /// Left out: the configuration file of the server that they come from has them.
    pub(super) file_owned: usize,
    pub(super) refused: Vec<Refusal>,
    pub(super) refused_more: usize,
    /// Taken, but not with all that was said of them.
    pub(super) partly: Vec<Refusal>,
    pub(super) partly_more: usize,
    /// Definitions cannot be stored at present.
    pub(super) broke_off: bool,
    /// Not tried any more for that.
    pub(super) not_tried: usize,
    /// Why nothing was removed though it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) not_pruned: Option<String>,
}

impl Report {
    pub(super) fn refuse(&mut self, refusal: Refusal) {
        let (list, more) = if refusal.is_partly() {
            (&mut self.partly, &mut self.partly_more)
        } else {
            (&mut self.refused, &mut self.refused_more)
        };
        if list.len() < NAMED_MAX { list.push(refusal) } else { *more += 1 }
    }

    pub(super) fn remove(&mut self, entry: String) {
        if self.removed.len() < NAMED_MAX { self.removed.push(entry) } else { self.removed_more += 1 }
    }

    /// 200 when all was taken, 409 when some was refused, 503 when it broke off.
    pub(super) fn status(&self) -> StatusCode {
        match () {
            () if self.broke_off => StatusCode::SERVICE_UNAVAILABLE,
            () if !self.refused.is_empty() => StatusCode::CONFLICT,
            () => StatusCode::OK,
        }
    }
}
