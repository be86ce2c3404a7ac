//! The store in files of our own: a database (redb) and, in front of it, a journal.
//!
//! One thread takes everything that waits, makes it durable with one frame of the [`journal`] (one write, one sync
//! before the outcome is sent), and sends the outcomes in order. What the journal has goes into the database behind that, in
//! large commits ([`base`]); a start finds it in the journal where that was not done. Where the journal has no room or
//! cannot be written, the database takes the batch itself.
//!
//! Flips are not in the journal: they wait for the next commit of the database, which comes within moments.
//!
//! Measured before the journal was made: one commit of redb with eight registrations writes 14 pages and takes 375 us where the
//! sync alone takes 95 us; a commit of two thousand costs 5.5 us for each.

mod base;
mod journal;
mod overlay;

use std::io::Write;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

use parking_lot::Mutex;
use redb::{Database, StorageBackend};
use uuid::Uuid;

use self::base::Base;
use self::journal::Journal;
pub(super) use self::journal::path as journal_path;
use super::file::Config;
use super::read::All;
use super::seal::{Form, Key};
use super::{Loaded, LogEntry, LogSender, Proposal, Store, StoreError, backup, file, read};
use crate::gently::gently;
use crate::model::{Definition, Observation};
use crate::telemetry::Metrics;

/// Octets of the journal: at most so much is read again at a start.
const JOURNAL_OCTETS: usize = 16 << 20;

/// Opens the database, again after an error.
pub type Opener = Box<dyn Fn() -> Result<Database, StoreError> + Send>;
/// The journal's file.
pub type JournalFile = Box<dyn StorageBackend>;

/// What was accepted together, and its index.
type Entry = (u64, Arc<[Definition]>);

/// A store in files.
pub struct Embedded {
    queue: Mutex<Option<Sender<Vec<Proposal>>>>,
    threads: Mutex<Vec<std::thread::JoinHandle<()>>>,
    loaded: Mutex<Option<Loaded>>,
    base: Arc<Base>,
    node_id: Uuid,
}

impl Embedded {
    /// Opens the registry in the data directory, or makes a new one where there is none. Errs, and changes nothing, when what
    /// is there cannot be read in full.
    pub fn open(config: &Config, log: LogSender, metrics: Arc<Metrics>) -> Result<Self, StoreError> {
        Self::open_with_key(config, None, log, metrics)
    }

    /// The same of one that is encrypted, where there is a key. Errs also when the key is not its own.
    pub fn open_with_key(
        config: &Config,
        key: Option<&Key>,
        log: LogSender,
        metrics: Arc<Metrics>,
    ) -> Result<Self, StoreError> {
        file::prepare(config, key)?;
        let config = config.clone();
        // The database is locked first: nobody else has the journal then.
        let database = file::open(&config)?;
        file::clear_aside(&config.data_dir);
        let form = Form::of(&database, key)?;
        let journal = journal::open_file(&config.data_dir)?;
        let open = Box::new(move || file::open(&config));
        Self::with(database, form, open, journal, JOURNAL_OCTETS, log, metrics)
    }

    /// The same on files that come from elsewhere.
    pub fn open_with(
        open: Opener,
        journal: JournalFile,
        journal_octets: usize,
        log: LogSender,
        metrics: Arc<Metrics>,
    ) -> Result<Self, StoreError> {
        let database = open()?;
        let form = Form::of(&database, None)?;
        Self::with(database, form, open, journal, journal_octets, log, metrics)
    }

    fn with(
        database: Database,
        form: Form,
        open: Opener,
        journal: JournalFile,
        journal_octets: usize,
        log: LogSender,
        metrics: Arc<Metrics>,
    ) -> Result<Self, StoreError> {
        let kept = base::Numbers::read(&database)?;
        if kept.journal == 0 {
            // Nothing in it is this database's, and it may be readable where this one is not.
            wipe(&*journal)?;
        }
        let form = Arc::new(form);
        let id = if kept.journal == 0 { Uuid::new_v4().as_u128() } else { kept.journal };
        let (journal, entries) = Journal::open(journal, journal_octets, id, kept.committed, form.clone())?;
        let base = Base::new(open, database, form, base::Numbers { journal: id, ..kept }, log, metrics);
        base.replay(&entries);
        let All { loaded, node_id, .. } = gently(|| base.read())?;
        let next = loaded.index;
        // Until the database knows the journal's id and has what is in it, it takes everything itself.
        let reserved = base.reserve(next);
        let broken = reserved.is_err();
        base.set_writable(reserved);
        let base = Arc::new(base);
        let (queue, proposals) = channel();
        let thread = Thread { base: base.clone(), journal, broken, next };
        let behind = base.clone();
        let threads = vec![
            spawn("store", move || thread.run(&proposals))?,
            spawn("store-behind", move || behind.run())?,
        ];
        Ok(Self {
            queue: Mutex::new(Some(queue)),
            threads: Mutex::new(threads),
            loaded: Mutex::new(Some(loaded)),
            base,
            node_id,
        })
    }

    /// The node's UUID, made when the registry was.
    pub fn node_id(&self) -> Uuid {
        self.node_id
    }
}

/// Everything in a stopped server's files.
pub(super) struct Contents {
    pub(super) loaded: Loaded,
    pub(super) node_id: Uuid,
    /// Locked as long as it is held.
    pub(super) journal: JournalFile,
}

/// Reads a stopped server's files, what is in the journal alone included. Changes nothing.
pub(super) fn contents(config: &Config, database: &Database, form: Form) -> Result<Contents, StoreError> {
    let kept = base::Numbers::read(database)?;
    let journal = journal::open_file(&config.data_dir)?;
    let (form, mut entries) = (Arc::new(form), Vec::new());
    if kept.journal != 0 {
        let all = journal::octets_of(&*journal)?;
        entries = journal::changes(&all, kept.journal, kept.committed, &form)?;
    }
    let All { mut loaded, node_id, .. } = read::all(database, &form)?;
    overlay::lay_over(&mut loaded, &entries);
    Ok(Contents { loaded, node_id, journal })
}

/// Empties a journal that belongs to another database than this one, whose lock the caller has.
pub(super) fn wipe_foreign_journal(config: &Config, database: &Database) -> Result<(), StoreError> {
    file::clear_aside(&config.data_dir);
    if base::Numbers::read(database)?.journal == 0 {
        wipe(&*journal::open_file(&config.data_dir)?)?;
    }
    Ok(())
}

/// Empties a journal.
pub(super) fn wipe(journal: &dyn StorageBackend) -> Result<(), StoreError> {
    let wiped = || -> std::io::Result<()> {
        if journal.len()? > 0 {
            journal.set_len(0)?;
            journal.sync_data()?;
        }
        Ok(())
    };
    wiped().map_err(|e| StoreError::new(format!("the journal cannot be emptied: {e}")))
}

fn spawn(
    name: &str,
    work: impl FnOnce() + Send + 'static,
) -> Result<std::thread::JoinHandle<()>, StoreError> {
    let thread = std::thread::Builder::new().name(name.into()).spawn(work);
    thread.map_err(|e| StoreError::new(format!("cannot start the store's thread: {e}")))
}

impl Store for Embedded {
    fn load(&self) -> Result<Loaded, StoreError> {
        let loaded = self.loaded.lock().take();
        loaded.ok_or_else(|| StoreError::new("the store was loaded already"))
    }

    fn propose(&self, proposals: Vec<Proposal>) {
        if let Some(queue) = &*self.queue.lock() {
            // Fails only when the thread has ended, and then everything has.
            let _ = queue.send(proposals);
        }
    }

    fn observe(&self, flips: Vec<Observation>, index: u64) {
        self.base.observe(flips, index);
    }

    fn backup(&self, to: &mut dyn Write) -> Result<(), StoreError> {
        // The statuses that wait are part of it, where they can be written.
        let _ = self.base.commit(&[]);
        let All { loaded, node_id, .. } = self.base.read()?;
        let key = match &*self.base.form {
            Form::Plain => None,
            Form::Sealed(seal) => Some(seal.operators()),
        };
        backup::write_with(&loaded, node_id, key, to)
    }

    fn writable(&self) -> Result<(), StoreError> {
        self.base.writable()
    }

    fn close(&self) {
        drop(self.queue.lock().take());
        for thread in std::mem::take(&mut *self.threads.lock()) {
            // A panic of the thread was printed when it happened.
            let _ = thread.join();
        }
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.close();
    }
}

/// The thread that clients wait for.
struct Thread {
    base: Arc<Base>,
    journal: Journal,
    /// The journal's last frame may be there or not: the database has to take the next batch.
    broken: bool,
    /// The last index that was assigned.
    next: u64,
}

impl Thread {
    fn run(mut self, queue: &Receiver<Vec<Proposal>>) {
        while let Ok(mut waiting) = queue.recv() {
            queue.try_iter().for_each(|mut more| waiting.append(&mut more));
            self.work_off(waiting);
        }
        self.base.end();
    }

    /// Makes all that waits durable, together.
    fn work_off(&mut self, proposals: Vec<Proposal>) {
        let (seen, committed) = self.base.indexes();
        self.next = self.next.max(seen);
        let entries: Vec<Entry> = proposals
            .iter()
            .map(|proposal| {
                self.next = self.next.max(proposal.after) + 1;
                (self.next, proposal.definitions.clone())
            })
            .collect();
        let begun = Instant::now();
        let outcome = self.keep(&entries, committed);
        if outcome.is_ok() {
            self.base.metrics.store.committed(begun.elapsed());
        }
        self.base.set_writable(outcome.clone());
        let outcomes =
            entries.into_iter().zip(proposals).map(|((index, definitions), Proposal { ticket, .. })| {
                match &outcome {
                    Ok(()) => LogEntry::Committed { ticket: Some(ticket), index, definitions },
                    Err(error) => LogEntry::Refused { ticket, error: error.clone() },
                }
            });
        // Fails only when the registry has ended.
        let _ = self.base.log.send(outcomes.collect());
    }

    fn keep(&mut self, entries: &[Entry], committed: u64) -> Result<(), StoreError> {
        if !self.broken {
            let half = self.journal.active();
            match self.journal.append(entries, committed) {
                Ok(true) => {
                    self.base.add(entries, self.journal.active() != half);
                    return Ok(());
                }
                Ok(false) => {}
                Err(error) => tracing::warn!("the journal cannot be written: {error}"),
            }
        }
        self.broken = true;
        self.base.commit(entries)?;
        self.journal.restart(self.next);
        self.broken = false;
        Ok(())
    }
}
