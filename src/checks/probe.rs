//! What one probe comes to.

use std::sync::Arc;

use super::names::Names;
use crate::model::{Status, Targets};
use crate::telemetry::Metrics;
use crate::telemetry::trace::Tracer;

/// The result of one probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) status: Status,
    /// What is shown to people; cut to the check's limit by whoever reports it.
    pub(super) output: String,
    /// Nobody listens there: the connection was refused.
    pub(super) refused: bool,
    /// There was no way to it, or to those who know its name.
    pub(super) lost: bool,
    /// This machine was short of something (open files, memory): it says nothing about the target.
    pub(super) shortage: bool,
}

impl Finding {
    pub(super) fn new(status: Status, output: impl Into<String>) -> Self {
        Self { status, output: output.into(), refused: false, lost: false, shortage: false }
    }

    pub(super) fn critical(output: impl Into<String>) -> Self {
        Self::new(Status::Critical, output)
    }
}

/// What probes need beside their definition.
pub(super) struct Tools {
    pub(super) tls: crate::tls::Clients,
    pub(super) names: Arc<Names>,
    pub(super) targets: Targets,
    pub(super) metrics: Arc<Metrics>,
    pub(super) traces: Tracer,
}
