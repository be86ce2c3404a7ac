//! The audit log: who changed what, from what to what, and what came of it. Apart from the logs, in a file of its own.
//!
//! A line for each record that changed, and for each request that would have changed one and was refused. The registry's writer
//! tells of what passed it, in the order in which it was applied; the door of HTTP tells of what never got there. A thread makes
//! lines of it ([`mod@line`]) and writes them ([`mod@file`]): nobody waits for the disk. When it is full or too slow, lines are lost, counted and
//! told of once; the server goes on, since an audit log that can stop it would be one more way to stop it. Nothing is made and nobody
//! is asked where no file is configured.

mod file;
mod line;
mod secrets;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::time::{Duration, Instant, SystemTime};

use crate::model::{Key, Record, Status};
use crate::telemetry::Metrics;
use crate::telemetry::origin::Origin;

use file::File;

/// Where the log is kept.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Config {
    /// There is none where it is absent.
    pub file: Option<PathBuf>,
    /// Octets at which a new file begins.
    pub octets_max: usize,
    /// Files that are kept, with the one that is written.
    pub files_max: usize,
    /// Lines that wait for the disk.
    pub lines_max: usize,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Allowed,
    /// Whoever asked may not.
    Denied,
    /// It cannot be.
    Refused,
    /// It failed for a reason of ours.
    Error,
}

/// Why something is done.
#[derive(Debug, Clone, Default)]
pub struct Cause {
    /// Whose request it is; rollcall's own doing where there is none.
    pub origin: Option<Arc<Origin>>,
    /// What is done, in a word.
    pub action: &'static str,
}

/// What there was, or is.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Record(Record),
    Status(Status),
    /// The state of an instance's circuit, in a word.
    Circuit(&'static str),
    /// What the server logs.
    LogLevel(String),
}

/// What one line tells.
#[derive(Debug, Clone)]
pub struct Entry {
    pub at: SystemTime,
    pub cause: Cause,
    /// What it is about; unknown where a request could not be read.
    pub key: Option<Key>,
    pub before: Option<Value>,
    pub after: Option<Value>,
    pub outcome: Outcome,
    /// Why, where it was not allowed.
    pub reason: Option<String>,
    /// That of the change.
    pub index: Option<u64>,
}

impl Entry {
    /// Of what is no record, and has no index.
    pub fn changed(cause: Cause, before: Value, after: Value) -> Self {
        let (at, outcome) = (SystemTime::now(), Outcome::Allowed);
        let (before, after) = (Some(before), Some(after));
        Self { at, cause, key: None, before, after, outcome, reason: None, index: None }
    }

    /// Of something that changed nothing.
    pub fn failed(cause: Cause, key: Option<Key>, outcome: Outcome, reason: String) -> Self {
        let at = SystemTime::now();
        Self { at, cause, key, before: None, after: None, outcome, reason: Some(reason), index: None }
    }
}

/// A handle on the log; of a server without one it does nothing.
#[derive(Clone, Default)]
pub struct Audit(Option<Arc<Shared>>);

struct Shared {
    queue: SyncSender<Message>,
    metrics: Arc<Metrics>,
}

enum Message {
    Entry(Box<Entry>),
    Reopen,
    /// Write what waits, and say so.
    Flush(SyncSender<()>),
}

impl fmt::Debug for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_on() { "Audit(on)" } else { "Audit(off)" })
    }
}

/// How long a stop waits for the disk.
const FLUSH_WITHIN: Duration = Duration::from_secs(5);
/// How often a stop tries to have its word in a queue that is full.
const FULL_PAUSE: Duration = Duration::from_millis(5);

impl Audit {
    /// Opens the file and starts the thread that writes to it. `node` is who writes.
    pub fn start(config: &Config, node: &str, metrics: &Arc<Metrics>) -> anyhow::Result<Self> {
        let Some(path) = &config.file else { return Ok(Self(None)) };
        let file = File::open(path, config.octets_max as u64, config.files_max, metrics.clone())?;
        let (queue, entries) = sync_channel(config.lines_max.max(1));
        let node = node.to_owned();
        let write = move || write(file, &entries, &node);
        std::thread::Builder::new().name("audit".to_owned()).spawn(write)?;
        Ok(Self(Some(Arc::new(Shared { queue, metrics: metrics.clone() }))))
    }

    /// Whether anybody wants to know.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Takes what happened; never waits.
    pub fn tell(&self, entry: Entry) {
        let Some(shared) = &self.0 else { return };
        if let Some(origin) = &entry.cause.origin {
            origin.told();
        }
        if shared.queue.try_send(Message::Entry(Box::new(entry))).is_err() {
            shared.metrics.audit.lost("queue");
            shared.metrics.limits.hit("audit_lines_max");
        }
    }

    /// Takes what was not done.
    pub fn tell_failed(
        &self,
        cause: Cause,
        about: impl FnOnce() -> Option<Key>,
        outcome: Outcome,
        why: &dyn fmt::Display,
    ) {
        if self.is_on() {
            self.tell(Entry::failed(cause, about(), outcome, why.to_string()));
        }
    }

    /// Opens the file anew, after somebody moved it away.
    pub fn reopen(&self) {
        if let Some(shared) = &self.0 {
            // A full queue is written with the old file; whoever moved it asks again.
            let _ = shared.queue.try_send(Message::Reopen);
        }
    }

    /// Waits, for a while, until all that was told is written. Blocks.
    pub fn flush(&self) {
        self.flush_within(FLUSH_WITHIN);
    }

    fn flush_within(&self, patience: Duration) {
        let Some(shared) = &self.0 else { return };
        let (done, written) = sync_channel(1);
        let deadline = Instant::now() + patience;
        let mut asked = Message::Flush(done);
        // The queue may be full, of a disk that hangs.
        while let Err(TrySendError::Full(back)) = shared.queue.try_send(asked) {
            if Instant::now() >= deadline {
                return;
            }
            asked = back;
            std::thread::sleep(FULL_PAUSE);
        }
        let _ = written.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }
}

/// Writes until the last handle is gone; what waits together is written together.
fn write(mut file: File, entries: &Receiver<Message>, node: &str) {
    while let Ok(first) = entries.recv() {
        let mut next = Ok(first);
        let mut flushed = Vec::new();
        loop {
            match next {
                Ok(Message::Entry(entry)) => file.add(&line::line(&entry, node)),
                Ok(Message::Reopen) => file.reopen(),
                Ok(Message::Flush(done)) => flushed.push(done),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
            }
            next = entries.try_recv();
        }
        file.flush();
        // Who asked may have given up.
        for done in flushed {
            let _ = done.try_send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a thread writes that hangs in the disk is a queue that nobody takes from.
    #[test]
    fn a_stop_waits_for_a_disk_that_hangs_only_for_a_while_whether_or_not_the_queue_is_full() {
        for places in [1, 2] {
            let (queue, _nobody_takes) = sync_channel(places);
            queue.try_send(Message::Reopen).unwrap();
            let audit = Audit(Some(Arc::new(Shared { queue, metrics: Arc::default() })));
            let patience = Duration::from_millis(50);
            let begun = Instant::now();
            audit.flush_within(patience);
            assert!(begun.elapsed() >= patience, "it waits, too");
        }
    }
}
