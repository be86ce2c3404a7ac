//! A store that keeps nothing: what is proposed is accepted at once.

use std::io::Write;
use std::time::SystemTime;

use parking_lot::Mutex;

use super::{Loaded, LogEntry, LogSender, Proposal, Store, StoreError};
use crate::model::Observation;

/// Indexes that the clock leaves for each second: at more the low 32 bits would come round within months.
const PER_SECOND: u64 = 256;

/// Accepts everything, forgets everything at the end of the process.
pub struct Ephemeral {
    log: LogSender,
    index: Mutex<u64>,
    begun: Mutex<Loaded>,
}

impl Ephemeral {
    /// The index starts from the clock, so that neither it nor its low 32 bits (the SOA serial, RFC 1982) go backwards over
    /// a restart, as long as fewer than [`PER_SECOND`] changes a second are made on average.
    pub fn new(log: LogSender, now: SystemTime) -> Self {
        let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let parts = u64::from(since.subsec_nanos()) * PER_SECOND / 1_000_000_000;
        let index = since.as_secs() * PER_SECOND + parts;
        Self { log, index: Mutex::new(index), begun: Mutex::new(Loaded { index, ..Loaded::default() }) }
    }

    /// One that begins with what another process knew.
    pub fn after(log: LogSender, known: Loaded) -> Self {
        Self { log, index: Mutex::new(known.index), begun: Mutex::new(known) }
    }
}

impl Store for Ephemeral {
    fn load(&self) -> Result<Loaded, StoreError> {
        Ok(std::mem::take(&mut *self.begun.lock()))
    }

    fn propose(&self, proposals: Vec<Proposal>) {
        let mut index = self.index.lock();
        let committed = proposals.into_iter().map(|Proposal { ticket, definitions, after }| {
            *index = after.max(*index) + 1;
            LogEntry::Committed { ticket: Some(ticket), index: *index, definitions }
        });
        // Fails only when the registry has ended.
        let _ = self.log.send(committed.collect());
    }

    fn observe(&self, _: Vec<Observation>, _: u64) {}

    fn backup(&self, _: &mut dyn Write) -> Result<(), StoreError> {
        Err(StoreError::new(
            "the server runs with --ephemeral and keeps nothing; there is nothing to back up",
        ))
    }

    fn writable(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn close(&self) {}
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_index_starts_from_the_clock_and_grows() {
        let (log, mut entries) = tokio::sync::mpsc::unbounded_channel();
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(1_000_500);
        let store = Ephemeral::new(log, now);
        assert_eq!(store.load().unwrap().index, 256_128);
        for after in [0, 300_000] {
            store.propose(vec![Proposal { ticket: 1, definitions: [].into(), after }]);
        }
        let mut index = || match entries.try_recv() {
            Ok(entries) => match *entries {
                [LogEntry::Committed { index, .. }] => index,
                _ => panic!("{entries:?}"),
            },
            Err(e) => panic!("{e}"),
        };
        assert_eq!((index(), index()), (256_129, 300_001));
    }
}
