//! The database's side: what the journal made durable goes into the database in large commits, by a thread of its own.
//!
//! redb refuses all work after an I/O error. The database is then closed and opened again behind everybody's back: at once,
//! to see whether the failed commit is in it, and until that works at every commit and every [`AGAIN_AFTER`]. What waits for
//! the database stays in memory until it is in it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use redb::{Database, ReadableDatabase, ReadableTable};

use super::super::format::{self, COMMITTED, FORMAT, HIGH_WATER, JOURNAL, META, RECORDS, STATUSES};
use super::super::read::{self, All};
use super::super::seal::{Form, Place};
use super::super::{LogEntry, LogSender, StoreError, Stored};
use super::{Entry, Opener, overlay};
use crate::model::{CheckKey, Definition, Key, Observation, Status};
use crate::telemetry::Metrics;

/// Indexes are reserved in blocks of so many, the next one when half is used.
const BLOCK: u64 = 65_536;
/// How long flips wait for company after a commit; one that comes later than that does not wait, so that it is there should
/// the server be killed a moment later.
const FLUSH_AFTER: Duration = Duration::from_millis(50);
/// How long a definition stays in the journal alone.
const COMMIT_AFTER: Duration = Duration::from_secs(1);
/// How often a database that failed is tried.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// The database and what waits for it.
pub(super) struct Base {
    inner: Mutex<Inner>,
    tail: Mutex<Tail>,
    changed: Condvar,
    database: Mutex<Option<Arc<Database>>>,
    pub(super) form: Arc<Form>,
    writable: Mutex<Result<(), StoreError>>,
    pub(super) log: LogSender,
    pub(super) metrics: Arc<Metrics>,
}

/// Numbers that the database keeps; 0 where it has none.
#[derive(Clone, Copy)]
pub(super) struct Numbers {
    /// Not below any index that was published.
    pub(super) high_water: u64,
    /// The index of the last change that is in it.
    pub(super) committed: u64,
    /// Tells our journal from another database's.
    pub(super) journal: u128,
}

/// Held for the length of a commit.
struct Inner {
    open: Opener,
    high_water: u64,
    journal: u128,
    /// Changes that were refused with the database unreadable after: whether they are in it is seen later.
    doubtful: Vec<Entry>,
    /// The last commit failed.
    failing: bool,
}

/// The last status of each check, and what its probe said.
type Flips = HashMap<CheckKey, (Status, Arc<str>)>;

/// What waits for the database. Held only for moments.
#[derive(Default)]
struct Tail {
    /// Durable in the journal, in order.
    changes: Vec<Entry>,
    flips: Flips,
    /// The highest index that was published, as far as we heard.
    seen: u64,
    /// The index up to which the database has everything.
    committed: u64,
    /// The highest index of what was refused: a frame of it may be in the journal, and must never count.
    refused: u64,
    /// From this index on the next block is to be reserved.
    reserve_at: u64,
    /// When something has to be done.
    due: Option<Instant>,
    /// When the last commit began.
    begun: Option<Instant>,
    ends: bool,
}

impl Tail {
    fn due_at(&mut self, at: Instant) {
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    /// When flips that come now are written.
    fn flush_at(&self, now: Instant) -> Instant {
        self.begun.map_or(now, |begun| now.max(begun + FLUSH_AFTER))
    }
}

/// What was found out about a check goes with it.
fn forget(flips: &mut Flips, changes: &[Entry]) {
    for definition in changes.iter().flat_map(|(_, definitions)| definitions.iter()) {
        if let Definition::Remove(Key::Check(node, id)) = definition {
            flips.remove(&CheckKey { node: node.clone(), id: id.clone() });
        }
    }
}

impl Base {
    pub(super) fn new(
        open: Opener,
        database: Database,
        form: Arc<Form>,
        kept: Numbers,
        log: LogSender,
        metrics: Arc<Metrics>,
    ) -> Self {
        let Numbers { high_water, committed, journal } = kept;
        let inner = Inner { open, high_water, journal, doubtful: Vec::new(), failing: false };
        metrics.store.writable.set(1);
        Self {
            inner: Mutex::new(inner),
            tail: Mutex::new(Tail { committed, ..Tail::default() }),
            changed: Condvar::new(),
            database: Mutex::new(Some(Arc::new(database))),
            form,
            writable: Mutex::new(Ok(())),
            log,
            metrics,
        }
    }

    /// At the start, first: puts what is in the journal alone into the database. Where that cannot be written, it waits as it
    /// does later.
    pub(super) fn replay(&self, entries: &[Entry]) {
        if entries.is_empty() {
            return;
        }
        tracing::info!(changes = entries.len(), "the last changes are taken from the journal");
        self.add(entries, true);
        // An error was logged.
        let _ = self.commit(&[]);
    }

    /// Everything that is durable, also what waits for the database.
    pub(super) fn read(&self) -> Result<All, StoreError> {
        // In this order: what goes into the database meanwhile is in both.
        let waiting = self.tail.lock().changes.clone();
        let mut all = read::all(&*self.database()?, &self.form)?;
        let missing = waiting.partition_point(|(index, _)| *index <= all.committed);
        overlay::lay_over(&mut all.loaded, &waiting[missing..]);
        Ok(all)
    }

    /// At the start, after the load: reserves indexes above this one.
    pub(super) fn reserve(&self, index: u64) -> Result<(), StoreError> {
        self.tail.lock().seen = index;
        self.commit(&[])
    }

    /// The open database, for readers.
    fn database(&self) -> Result<Arc<Database>, StoreError> {
        let database = self.database.lock().clone();
        database
            .ok_or_else(|| self.writable().err().unwrap_or_else(|| StoreError::new("the store is closed")))
    }

    /// The highest index that was published, as far as we heard, and the index up to which the database has everything.
    pub(super) fn indexes(&self) -> (u64, u64) {
        let tail = self.tail.lock();
        (tail.seen, tail.committed)
    }

    /// Takes changes that the journal has; `soon` when it wants its room back.
    pub(super) fn add(&self, changes: &[Entry], soon: bool) {
        let mut tail = self.tail.lock();
        forget(&mut tail.flips, changes);
        tail.seen = changes.last().map_or(tail.seen, |(index, _)| tail.seen.max(*index));
        tail.changes.extend_from_slice(changes);
        let early = soon || tail.seen >= tail.reserve_at;
        if early || tail.due.is_none() {
            tail.due_at(Instant::now() + if early { Duration::ZERO } else { COMMIT_AFTER });
            self.changed.notify_one();
        }
    }

    /// Takes flips; a later one of the same check replaces an earlier one.
    pub(super) fn observe(&self, flips: Vec<Observation>, index: u64) {
        let mut tail = self.tail.lock();
        tail.seen = tail.seen.max(index);
        if tail.flips.is_empty() || tail.seen >= tail.reserve_at {
            let at = tail.flush_at(Instant::now());
            tail.due_at(at);
            self.changed.notify_one();
        }
        tail.flips.extend(flips.into_iter().map(|seen| (seen.check, (seen.status, seen.output))));
    }

    /// The thread: commits what waits when it is due, and at the end.
    pub(super) fn run(&self) {
        loop {
            let mut tail = self.tail.lock();
            while !tail.ends && tail.due.is_none_or(|due| due > Instant::now()) {
                match tail.due {
                    Some(due) => drop(self.changed.wait_until(&mut tail, due)),
                    None => self.changed.wait(&mut tail),
                }
            }
            let ends = tail.ends;
            drop(tail);
            if self.commit(&[]).is_ok() {
                self.set_writable(Ok(()));
            }
            if ends {
                drop(self.database.lock().take());
                return;
            }
        }
    }

    /// Lets the thread end with a last commit.
    pub(super) fn end(&self) {
        self.tail.lock().ends = true;
        self.changed.notify_one();
    }

    /// One commit for all that waits, and for changes that are not in the journal. On an error none of these is kept.
    pub(super) fn commit(&self, more: &[Entry]) -> Result<(), StoreError> {
        let mut inner = self.inner.lock();
        let outcome = self.commit_all(&mut inner, more);
        match (&outcome, inner.failing) {
            (Err(error), false) => tracing::error!("the registry's file cannot be written: {error}"),
            (Ok(()), true) => tracing::info!("the registry's file can be written again"),
            _ => {}
        }
        inner.failing = outcome.is_err();
        if inner.failing {
            self.metrics.store.errors.inc();
            self.tail.lock().due = Some(Instant::now() + AGAIN_AFTER);
        }
        outcome
    }

    fn commit_all(&self, inner: &mut Inner, more: &[Entry]) -> Result<(), StoreError> {
        let database = self.reopened(inner)?;
        let (changes, mut flips, seen, refused) = {
            let mut tail = self.tail.lock();
            tail.due = None;
            tail.begun = Some(Instant::now());
            let (changes, flips) = (std::mem::take(&mut tail.changes), std::mem::take(&mut tail.flips));
            (changes, flips, tail.seen, tail.refused)
        };
        forget(&mut flips, more);
        let last = more.last().or(changes.last()).map(|(index, _)| *index);
        let committed = last.unwrap_or(0).max(refused);
        let top = seen.max(committed);
        let high_water = if top + BLOCK / 2 > inner.high_water { top + BLOCK } else { inner.high_water };
        let all = changes.iter().chain(more);
        let numbers = Numbers { high_water, committed, journal: inner.journal };
        let begun = Instant::now();
        let Err(error) = write(&database, &self.form, all, &flips, &numbers) else {
            inner.high_water = high_water;
            let mut tail = self.tail.lock();
            tail.reserve_at = high_water - BLOCK / 2;
            tail.committed = tail.committed.max(committed);
            self.metrics.store.checkpointed(begun.elapsed());
            return Ok(());
        };
        drop(database);
        drop(self.database.lock().take());
        {
            let mut tail = self.tail.lock();
            let newer = std::mem::replace(&mut tail.changes, changes);
            forget(&mut flips, &newer);
            tail.changes.extend(newer);
            for (check, flip) in flips {
                tail.flips.entry(check).or_insert(flip);
            }
        }
        let error =
            StoreError::new(format!("{error}; free space on the disk or make it writable, then try again"));
        // Whether it is in the file, if the file can be read.
        match (self.reopened(inner), last) {
            (Ok(_), Some(last)) if self.tail.lock().committed >= last => Ok(()),
            (outcome, _) => {
                if let Some((last, _)) = more.last() {
                    self.tail.lock().refused = *last;
                }
                if outcome.is_err() {
                    inner.doubtful.extend_from_slice(more);
                }
                Err(error)
            }
        }
    }

    /// The open database; opened again if an error closed it.
    fn reopened(&self, inner: &mut Inner) -> Result<Arc<Database>, StoreError> {
        if let Some(database) = self.database.lock().clone() {
            return Ok(database);
        }
        let database = Arc::new((inner.open)()?);
        let committed = Numbers::read(&database)?.committed;
        {
            let mut tail = self.tail.lock();
            tail.committed = tail.committed.max(committed);
            tail.changes.retain(|(index, _)| *index > committed);
        }
        // What was refused in doubt and is there after all comes on the log, as another server's would:
        // the live state and the stored one stay the same.
        let there = std::mem::take(&mut inner.doubtful).into_iter().filter(|(index, _)| *index <= committed);
        let there =
            there.map(|(index, definitions)| LogEntry::Committed { ticket: None, index, definitions });
        let there: Vec<_> = there.collect();
        if !there.is_empty() {
            let _ = self.log.send(there);
        }
        *self.database.lock() = Some(database.clone());
        Ok(database)
    }

    pub(super) fn writable(&self) -> Result<(), StoreError> {
        self.writable.lock().clone()
    }

    pub(super) fn set_writable(&self, state: Result<(), StoreError>) {
        let mut shown = self.writable.lock();
        match (&*shown, &state) {
            (Ok(()), Ok(())) => return,
            (Ok(()), Err(error)) => tracing::error!("definitions cannot be stored: {error}"),
            (Err(_), Ok(())) => tracing::info!("definitions can be stored again"),
            _ => {}
        }
        self.metrics.store.writable.set(i64::from(state.is_ok()));
        *shown = state;
    }
}

fn write<'a>(
    database: &Database,
    form: &Form,
    changes: impl Iterator<Item = &'a Entry>,
    flips: &Flips,
    numbers: &Numbers,
) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut records = transaction.open_table(RECORDS)?;
        let mut statuses = transaction.open_table(STATUSES)?;
        let mut meta = transaction.open_table(META)?;
        for (index, definitions) in changes {
            for definition in definitions.iter() {
                let key = format::key(&definition.key());
                let at = form.key(Place::Record, &key);
                match definition {
                    Definition::Put(record) => {
                        let old = records.get(&*at)?;
                        let old = old.and_then(|old| {
                            let value = form.opened(Place::Record, &at, old.value()).ok()?;
                            format::create_index(&key, &value).ok()
                        });
                        let create_index = old.unwrap_or(*index);
                        let stored = Stored { record: record.clone(), create_index, modify_index: *index };
                        let value = form.value(Place::Record, &key, &at, format::encode(&stored));
                        records.insert(&*at, &*value.map_err(redb::Error::Io)?)?;
                    }
                    Definition::Remove(removed) => {
                        records.remove(&*at)?;
                        if let Key::Check(node, id) = removed {
                            let check = CheckKey { node: node.clone(), id: id.clone() };
                            statuses.remove(&*form.key(Place::Status, &format::status_key(&check)))?;
                        }
                    }
                }
            }
        }
        for (check, (status, output)) in flips {
            let key = format::status_key(check);
            let at = form.key(Place::Status, &key);
            let value = form.value(Place::Status, &key, &at, format::encode_status(*status, output));
            statuses.insert(&*at, &*value.map_err(redb::Error::Io)?)?;
        }
        if numbers.committed > 0 {
            meta.insert(COMMITTED, u128::from(numbers.committed))?;
        }
        meta.insert(HIGH_WATER, u128::from(numbers.high_water))?;
        meta.insert(JOURNAL, numbers.journal)?;
        // From now on an older rollcall refuses the file as a whole.
        meta.insert(FORMAT, form.number())?;
    }
    transaction.commit()?;
    Ok(())
}

impl Numbers {
    /// Reads them; errs when the file was written by another version.
    pub(super) fn read(database: &Database) -> Result<Self, StoreError> {
        let numbers = || -> Result<(u128, Self), redb::Error> {
            let meta = database.begin_read()?.open_table(META)?;
            let number = |key: &str| -> Result<u128, redb::Error> {
                Ok(meta.get(key)?.map_or(0, |value| value.value()))
            };
            let (high_water, committed) = (number(HIGH_WATER)? as u64, number(COMMITTED)? as u64);
            Ok((number(FORMAT)?, Self { high_water, committed, journal: number(JOURNAL)? }))
        };
        let numbers = numbers().map_err(|e| StoreError::new(format!("the registry cannot be read: {e}")));
        let (format, numbers) = numbers?;
        read::check_format(format)?;
        Ok(numbers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flip_after_a_quiet_while_is_written_at_once_and_many_wait_for_one_another() {
        let now = Instant::now();
        let mut tail = Tail::default();
        assert_eq!(tail.flush_at(now), now);
        tail.begun = Some(now);
        let soon = now + FLUSH_AFTER / 5;
        assert_eq!(tail.flush_at(soon), now + FLUSH_AFTER);
        let later = now + FLUSH_AFTER * 2;
        assert_eq!(tail.flush_at(later), later);
    }
}
