//! Durable definitions.
//!
//! A store is a log: what is proposed to it comes back, in order and with an index, once it will
//! outlive us, and only what comes back is applied. The embedded store's log is our own writes; one
//! on a shared engine would bring other servers' by the same road. Status flips are written behind:
//! nobody waits for them.
//!
//! The index never goes backwards, over any end of the process: the store keeps a high-water mark,
//! reserved in blocks, above every index that was published.

mod backup;
mod compact;
mod embedded;
mod ephemeral;
mod file;
mod format;
mod read;
mod rotate;
mod seal;

use std::io::Write;
use std::sync::Arc;

use arcstr::ArcStr;
use tokio::sync::mpsc;

use crate::model::{CheckKey, Definition, Observation, Record};

pub use backup::{Keys, read as read_backup, restore, write as write_backup};
pub use embedded::{Embedded, JournalFile, Opener};
pub use ephemeral::Ephemeral;
pub use file::Config;
pub use rotate::{Rotated, rotate};
pub use seal::{Key as StoreKey, KeySource};

/// What the log brings, together what became durable together: the receiving half is given to the registry's writer.
pub type Log = mpsc::UnboundedReceiver<Vec<LogEntry>>;
/// The half that a store keeps.
pub type LogSender = mpsc::UnboundedSender<Vec<LogEntry>>;

/// A store of definitions.
pub trait Store: Send + Sync + 'static {
    /// Everything that was accepted. Called once, before anything else.
    fn load(&self) -> Result<Loaded, StoreError>;

    /// Hands over changes, each to be committed as a whole. Does not block; the outcomes come on the log.
    fn propose(&self, proposals: Vec<Proposal>);

    /// Hands over status flips to be written behind. Does not block; a flip may be lost with the process, and a later
    /// one of the same check replaces it. `index` is the last that was published.
    fn observe(&self, flips: Vec<Observation>, index: u64);

    /// Writes everything, as of one moment, in the form that `restore` reads. Blocks.
    fn backup(&self, to: &mut dyn Write) -> Result<(), StoreError>;

    /// Whether definitions can be stored at present; the reason why not otherwise.
    fn writable(&self) -> Result<(), StoreError>;

    /// Ends: everything handed over is committed or refused when this returns. Blocks.
    fn close(&self);
}

/// Changes that are committed together or not at all.
#[derive(Debug, Clone)]
pub struct Proposal {
    /// Names the proposal in its outcome.
    pub ticket: u64,
    pub definitions: Arc<[Definition]>,
    /// The last index that was published; the entry's index will be greater.
    pub after: u64,
}

/// The outcome of a proposal.
#[derive(Debug)]
pub enum LogEntry {
    /// Durable. `ticket` is absent for changes that another server proposed.
    Committed { ticket: Option<u64>, index: u64, definitions: Arc<[Definition]> },
    /// Nothing of it was kept.
    Refused { ticket: u64, error: StoreError },
}

/// What was kept.
#[derive(Debug, Default)]
pub struct Loaded {
    /// In key order: nodes, instances, checks, maintenance, then what is on no node.
    pub records: Vec<Stored>,
    pub statuses: Vec<StoredStatus>,
    /// Not below any index that was ever published.
    pub index: u64,
}

/// A record and the indexes at which it was made and last changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    pub record: Record,
    pub create_index: u64,
    pub modify_index: u64,
}

/// The last status of a check that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredStatus {
    pub check: CheckKey,
    pub status: crate::model::Status,
    pub output: ArcStr,
}

/// Why the store could not do something, in words for the operator.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{reason}")]
pub struct StoreError {
    pub reason: Arc<str>,
}

impl StoreError {
    pub fn new(reason: impl Into<Arc<str>>) -> Self {
        Self { reason: reason.into() }
    }
}
