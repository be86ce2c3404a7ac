//! The store in a file of our own (redb).
//!
//! One thread owns the database. It takes everything that waits, makes it durable with one commit
//! (one-phase, fsync before the outcome is sent), and sends the outcomes in order. Flips wait up to
//! [`FLUSH_AFTER`] for a definition to share a commit with.
//!
//! redb refuses all work after an I/O error. The thread then closes the database and opens it again
//! behind the writer's back: at once, to see whether the failed commit is in it, and until that works
//! at every proposal and every [`REOPEN_AFTER`]. While it is closed, definitions are refused with the reason
//! and flips are kept, one for each check.

use std::collections::HashMap;
use std::io::Write;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use redb::{Database, ReadableDatabase, ReadableTable};
use uuid::Uuid;

use super::file::Config;
use super::format::{COMMITTED, FORMAT, HIGH_WATER, META, RECORDS, STATUSES};
use super::read::All;
use super::{Loaded, LogEntry, LogSender, Proposal, Store, StoreError, Stored, backup, file, format, read};
use crate::gently::gently;
use crate::model::{CheckKey, Definition, Key, Observation, Status};
use crate::telemetry::Metrics;

/// Indexes are reserved in blocks of so many, the next one when half is used.
const BLOCK: u64 = 65_536;
/// How long a flip waits for company.
const FLUSH_AFTER: Duration = Duration::from_millis(50);
/// How often a database that is closed is tried.
const REOPEN_AFTER: Duration = Duration::from_secs(1);

/// Opens the database, again after an error.
pub type Opener = Box<dyn Fn() -> Result<Database, StoreError> + Send>;

/// A store in a file.
pub struct Embedded {
    work: Mutex<Option<Sender<Work>>>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
    loaded: Mutex<Option<Loaded>>,
    shared: Arc<Shared>,
    node_id: Uuid,
}

/// What the thread shows to others.
struct Shared {
    database: Mutex<Option<Arc<Database>>>,
    writable: Mutex<Result<(), StoreError>>,
    metrics: Arc<Metrics>,
}

enum Work {
    Propose(Proposal),
    Observe(Vec<Observation>, u64),
}

impl Embedded {
    /// Opens the registry in the data directory, or makes a new one where there is none. Errs, and changes nothing, when what
    /// is there cannot be read in full.
    pub fn open(config: &Config, log: LogSender, metrics: Arc<Metrics>) -> Result<Self, StoreError> {
        file::prepare(config)?;
        let config = config.clone();
        Self::open_with(Box::new(move || file::open(&config)), log, metrics)
    }

    /// The same on a database that comes from elsewhere.
    pub fn open_with(open: Opener, log: LogSender, metrics: Arc<Metrics>) -> Result<Self, StoreError> {
        let database = Arc::new(open()?);
        let All { loaded, node_id, high_water, committed } = gently(|| read::all(&database))?;
        raise_format(&database)?;
        metrics.store.writable.set(1);
        let shared =
            Arc::new(Shared { database: Mutex::new(Some(database)), writable: Mutex::new(Ok(())), metrics });
        let (work, queue) = channel();
        let thread = Thread {
            open,
            shared: shared.clone(),
            log,
            proposals: Vec::new(),
            flips: HashMap::new(),
            seen: loaded.index,
            next: loaded.index.max(committed),
            high_water,
            doubtful: None,
        };
        let thread = std::thread::Builder::new().name("store".into()).spawn(move || thread.run(&queue));
        let thread = thread.map_err(|e| StoreError::new(format!("cannot start the store's thread: {e}")))?;
        Ok(Self {
            work: Mutex::new(Some(work)),
            thread: Mutex::new(Some(thread)),
            loaded: Mutex::new(Some(loaded)),
            shared,
            node_id,
        })
    }

    /// The node's UUID, made when the registry was.
    pub fn node_id(&self) -> Uuid {
        self.node_id
    }

    fn send(&self, work: Work) {
        if let Some(queue) = &*self.work.lock() {
            // Fails only when the thread has ended, and then everything has.
            let _ = queue.send(work);
        }
    }
}

impl Store for Embedded {
    fn load(&self) -> Result<Loaded, StoreError> {
        let loaded = self.loaded.lock().take();
        loaded.ok_or_else(|| StoreError::new("the store was loaded already"))
    }

    fn propose(&self, proposal: Proposal) {
        self.send(Work::Propose(proposal));
    }

    fn observe(&self, flips: Vec<Observation>, index: u64) {
        self.send(Work::Observe(flips, index));
    }

    fn backup(&self, to: &mut dyn Write) -> Result<(), StoreError> {
        let database = self.shared.database.lock().clone();
        let database = database.ok_or_else(|| {
            let writable = self.shared.writable.lock().clone();
            writable.err().unwrap_or_else(|| StoreError::new("the store is closed"))
        })?;
        let All { loaded, node_id, .. } = read::all(&database)?;
        backup::write(&loaded, node_id, to)
    }

    fn writable(&self) -> Result<(), StoreError> {
        self.shared.writable.lock().clone()
    }

    fn close(&self) {
        drop(self.work.lock().take());
        if let Some(thread) = self.thread.lock().take() {
            // A panic of the thread was printed when it happened.
            let _ = thread.join();
        }
        drop(self.shared.database.lock().take());
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.close();
    }
}

/// The thread that owns the database.
struct Thread {
    open: Opener,
    shared: Arc<Shared>,
    log: LogSender,
    proposals: Vec<Proposal>,
    flips: HashMap<CheckKey, (Status, Arc<str>)>,
    /// The highest index that was published, as far as we heard.
    seen: u64,
    /// The last index that was assigned.
    next: u64,
    high_water: u64,
    /// Commits that failed with the database unreadable after: whether they are in it is seen later.
    doubtful: Option<Vec<(u64, Proposal)>>,
}

impl Thread {
    fn run(mut self, queue: &Receiver<Work>) {
        let mut retry = Instant::now();
        loop {
            let got = match self.wait(retry) {
                None => queue.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(wait) => queue.recv_timeout(wait),
            };
            let ends = match got {
                Ok(work) => {
                    self.take(work);
                    false
                }
                Err(RecvTimeoutError::Timeout) => false,
                Err(RecvTimeoutError::Disconnected) => true,
            };
            for work in queue.try_iter() {
                self.take(work);
            }
            if self.proposals.is_empty() && !ends && self.wait(retry).is_some_and(|wait| !wait.is_zero()) {
                continue;
            }
            self.work_off();
            retry = Instant::now() + if self.is_open() { FLUSH_AFTER } else { REOPEN_AFTER };
            if ends {
                return;
            }
        }
    }

    /// How long there is until something has to be done without being asked.
    fn wait(&self, retry: Instant) -> Option<Duration> {
        let idle = self.flips.is_empty() && self.high_water >= self.wanted_high_water() && self.is_open();
        (!idle).then(|| retry.saturating_duration_since(Instant::now()))
    }

    fn is_open(&self) -> bool {
        self.shared.database.lock().is_some()
    }

    fn take(&mut self, work: Work) {
        match work {
            Work::Propose(proposal) => {
                self.seen = self.seen.max(proposal.after);
                self.proposals.push(proposal);
            }
            Work::Observe(flips, index) => {
                self.seen = self.seen.max(index);
                for Observation { check, status, output, .. } in flips {
                    self.flips.insert(check, (status, output));
                }
            }
        }
    }

    /// One commit for all that waits.
    fn work_off(&mut self) {
        let proposals = std::mem::take(&mut self.proposals);
        let batch: Vec<(u64, Proposal)> = proposals
            .into_iter()
            .map(|proposal| {
                self.next = self.next.max(self.seen).max(proposal.after) + 1;
                (self.next, proposal)
            })
            .collect();
        let outcome = self.database().and_then(|database| self.commit(&database, &batch));
        match outcome {
            Ok(()) => self.accept(batch),
            Err(error) => {
                self.shared.metrics.store.errors.inc();
                self.set_writable(Err(error.clone()));
                drop(self.shared.database.lock().take());
                self.settle(batch, error);
            }
        }
    }

    /// The open database; opened again if an error closed it.
    fn database(&mut self) -> Result<Arc<Database>, StoreError> {
        if let Some(database) = self.shared.database.lock().clone() {
            return Ok(database);
        }
        let database = Arc::new((self.open)()?);
        let committed = meta(&database, COMMITTED)?;
        // What was refused in doubt and is there after all comes on the log, as another server's would:
        // the live state and the stored one stay the same.
        for (index, proposal) in self.doubtful.take().unwrap_or_default() {
            if index <= committed {
                let definitions = proposal.definitions;
                let _ = self.log.send(LogEntry::Committed { ticket: None, index, definitions });
            }
        }
        *self.shared.database.lock() = Some(database.clone());
        Ok(database)
    }

    fn accept(&mut self, batch: Vec<(u64, Proposal)>) {
        self.flips.clear();
        self.shared.metrics.store.commits.inc();
        self.set_writable(Ok(()));
        for (index, Proposal { ticket, definitions, .. }) in batch {
            // Fails only when the registry has ended.
            let _ = self.log.send(LogEntry::Committed { ticket: Some(ticket), index, definitions });
        }
    }

    /// After a failed commit: whether it is in the file, if the file can be read.
    fn settle(&mut self, batch: Vec<(u64, Proposal)>, error: StoreError) {
        let committed = self.database().and_then(|database| meta(&database, COMMITTED));
        if let (Ok(committed), Some((last, _))) = (&committed, batch.last())
            && committed >= last
        {
            return self.accept(batch);
        }
        for (_, proposal) in &batch {
            let refused = LogEntry::Refused { ticket: proposal.ticket, error: error.clone() };
            let _ = self.log.send(refused);
        }
        if committed.is_err() && !batch.is_empty() {
            self.doubtful.get_or_insert_default().extend(batch);
        }
    }

    fn set_writable(&self, state: Result<(), StoreError>) {
        let mut shown = self.shared.writable.lock();
        self.shared.metrics.store.writable.set(i64::from(state.is_ok()));
        match (&*shown, &state) {
            (Ok(()), Err(error)) => tracing::error!("definitions cannot be stored: {error}"),
            (Err(_), Ok(())) => tracing::info!("definitions can be stored again"),
            _ => {}
        }
        *shown = state;
    }

    fn wanted_high_water(&self) -> u64 {
        let index = self.seen.max(self.next);
        if index + BLOCK / 2 > self.high_water { index + BLOCK } else { self.high_water }
    }

    fn commit(&mut self, database: &Database, batch: &[(u64, Proposal)]) -> Result<(), StoreError> {
        let high_water = self.wanted_high_water();
        self.write(database, batch, high_water).map_err(|e| {
            StoreError::new(format!("{e}; free space on the disk or make it writable, then try again"))
        })?;
        self.high_water = high_water;
        Ok(())
    }

    fn write(&self, db: &Database, batch: &[(u64, Proposal)], high_water: u64) -> Result<(), redb::Error> {
        let transaction = db.begin_write()?;
        {
            let mut records = transaction.open_table(RECORDS)?;
            let mut statuses = transaction.open_table(STATUSES)?;
            let mut meta = transaction.open_table(META)?;
            for (check, (status, output)) in &self.flips {
                let bytes = format::encode_status(*status, output);
                statuses.insert(&*format::status_key(check), &*bytes)?;
            }
            for (index, proposal) in batch {
                for definition in proposal.definitions.iter() {
                    let key = format::key(&definition.key());
                    match definition {
                        Definition::Put(record) => {
                            let old = records
                                .get(&*key)?
                                .and_then(|old| format::create_index(&key, old.value()).ok());
                            let create_index = old.unwrap_or(*index);
                            let stored =
                                Stored { record: record.clone(), create_index, modify_index: *index };
                            records.insert(&*key, &*format::encode(&stored))?;
                        }
                        Definition::Remove(removed) => {
                            records.remove(&*key)?;
                            if let Key::Check(node, id) = removed {
                                let check = CheckKey { node: node.clone(), id: id.clone() };
                                statuses.remove(&*format::status_key(&check))?;
                            }
                        }
                    }
                }
            }
            if let Some((last, _)) = batch.last() {
                meta.insert(COMMITTED, u128::from(*last))?;
            }
            meta.insert(HIGH_WATER, u128::from(high_water))?;
        }
        transaction.commit()?;
        Ok(())
    }
}

/// One number of META; 0 when it is absent.
fn meta(database: &Database, key: &str) -> Result<u64, StoreError> {
    let read = || -> Result<u64, redb::Error> {
        let transaction = database.begin_read()?;
        let number = transaction.open_table(META)?.get(key)?.map(|value| value.value());
        Ok(number.and_then(|number| u64::try_from(number).ok()).unwrap_or(0))
    };
    read().map_err(|e| StoreError::new(e.to_string()))
}

/// Notes that values of our version may be in the file from now on, so that an older rollcall refuses it as a whole.
fn raise_format(database: &Database) -> Result<(), StoreError> {
    if meta(database, FORMAT)? == u64::from(format::VERSION) {
        return Ok(());
    }
    let write = || -> Result<(), redb::Error> {
        let transaction = database.begin_write()?;
        transaction.open_table(META)?.insert(FORMAT, u128::from(format::VERSION))?;
        transaction.commit()?;
        Ok(())
    };
    write().map_err(|e| StoreError::new(format!("cannot write to the registry: {e}")))
}
