//! What the writer does for [slow starts](super::super::ramps): publishes their steps.

use std::sync::Arc;

use tokio::time::Instant;

use super::super::deadlines::Due;
use super::super::ramps::Settings;
use super::Writer;
use crate::model::ServiceName;

impl Writer {
    /// How starts are slow, while any is or may be.
    pub(super) fn starts(&self) -> Option<Arc<Settings>> {
        let settings = self.shared.upgrade()?.slow_start.load_full();
        (settings.is_on() || !self.ramps.is_empty()).then_some(settings)
    }

    /// Shows what the instances of a service have of their weights now.
    pub(super) fn publish_eased(&mut self, service: &ServiceName) {
        let shown = self.ramps.at(service, Instant::now());
        let due = Due::Ramp(service.clone());
        match &shown {
            Some((_, next)) => self.deadlines.set(due, *next),
            None => self.deadlines.clear(&due),
        }
        let index = self.next_index();
        let eased = shown.map(|(eased, _)| Arc::new(eased));
        if self.state.set_eased(service, eased, &mut self.round.effects) {
            self.moved_to(index);
        }
        if let Some(shared) = self.shared.upgrade() {
            shared.metrics.steady.easing.set(self.ramps.len() as i64);
        }
    }
}
