//! Reading a whole registry, as of one moment.
//!
//! It is cut into parts by node, which the processors share: the checks of a node find their instances in the same part and
//! share their texts, so that hardly anything is made that is thrown away again.

use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};

use redb::{AccessGuard, Database, ReadOnlyTable, ReadTransaction, ReadableDatabase};
use uuid::Uuid;

use super::compact::Reader;
use super::format::{self, COMMITTED, FORMAT, HIGH_WATER, META, NODE_ID, RECORDS, STATUSES};
use super::seal::{Form, Place, Seal};
use super::{Loaded, StoreError, Stored, StoredStatus};
use crate::model::Record;

/// Parts for each thread, so that those with less in them make up for those with more.
const PARTS: usize = 8;

/// A whole registry and what belongs to it.
pub(super) struct All {
    pub(super) loaded: Loaded,
    pub(super) node_id: Uuid,
    /// The index up to which the database has everything.
    pub(super) committed: u64,
}

/// Reads everything.
pub(super) fn all(database: &Database, form: &Form) -> Result<All, StoreError> {
    let transaction = database.begin_read().map_err(|e| broken(e.into()))?;
    let meta = transaction.open_table(META).map_err(|e| broken(e.into()))?;
    let number = |key: &str| -> Result<u128, StoreError> {
        Ok(meta.get(key).map_err(|e| broken(e.into()))?.map_or(0, |value| value.value()))
    };
    check_format(number(FORMAT)?)?;
    let (high_water, committed) = (number(HIGH_WATER)? as u64, number(COMMITTED)? as u64);
    let (records, statuses) = match form {
        Form::Plain => contents(&transaction)?,
        Form::Sealed(seal) => sealed(&transaction, seal)?,
    };
    let loaded = Loaded { records, statuses, index: high_water.max(committed) };
    Ok(All { loaded, node_id: Uuid::from_u128(number(NODE_ID)?), committed })
}

/// Errs when the file was written by a newer version.
pub(super) fn check_format(format: u128) -> Result<(), StoreError> {
    let version = format.checked_sub(format::SEALED).unwrap_or(format);
    if version > u128::from(format::FILE) {
        return Err(StoreError::new(format!(
            "the registry is in format {version}, this rollcall reads up to {}; start the version that wrote it, or \
             restore a backup made by this one",
            format::FILE
        )));
    }
    Ok(())
}

type Contents = (Vec<Stored>, Vec<StoredStatus>);
type Entry = (AccessGuard<'static, &'static [u8]>, AccessGuard<'static, &'static [u8]>);

fn contents(transaction: &ReadTransaction) -> Result<Contents, StoreError> {
    let mut nodes = Part::whole(transaction)?.nodes()?;
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    // The first key of each part; the last part ends where keys do.
    let each = nodes.len().div_ceil(threads * PARTS).max(1);
    let mut starts: Vec<String> = nodes.iter().step_by(each).filter_map(folded).collect();
    // Records of a node that has none itself are in a part, too.
    starts.splice(..1.min(starts.len()), [String::new()]);
    let (next, starts) = (AtomicUsize::new(0), &starts);
    let work = || -> Result<Vec<(usize, Contents)>, StoreError> {
        let (mut reader, mut done) = (Reader::default(), Vec::new());
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(from) = starts.get(at) else { return Ok(done) };
            let part = Part::new(transaction, from, starts.get(at + 1).map(String::as_str))?;
            done.push((at, part.read(&mut reader)?));
        }
    };
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let own = work();
        std::iter::once(Ok(own)).chain(others.into_iter().map(|other| other.join())).collect()
    });
    let mut parts = Vec::new();
    for outcome in outcomes {
        parts.extend(outcome.map_err(|_| StoreError::new("reading the registry panicked"))??);
    }
    parts.sort_by_key(|(at, _)| *at);
    let mut statuses = Vec::new();
    for (_, (mut part, mut of)) in parts {
        nodes.append(&mut part);
        statuses.append(&mut of);
    }
    for kind in format::APART {
        nodes.append(&mut Part::whole(transaction)?.records(kind, &mut Reader::default())?);
    }
    Ok((nodes, statuses))
}

/// The same of an encrypted file. Its order is that of hidden keys, so all of it is decrypted first, by all processors, and put in
/// the order that a plain one has.
fn sealed(transaction: &ReadTransaction, seal: &Seal) -> Result<Contents, StoreError> {
    let mut reader = Reader::default();
    let records = opened(transaction, Place::Record, seal)?.into_iter();
    let records = records.map(|(key, value)| reader.record(&key, &value)).collect::<Result<_, _>>()?;
    let statuses = opened(transaction, Place::Status, seal)?.into_iter();
    let statuses = statuses.map(|(key, value)| reader.status(&key, &value)).collect::<Result<_, _>>()?;
    Ok((records, statuses))
}

/// A key and its value.
type Pair = (Vec<u8>, Vec<u8>);

/// Keys and values of a table, decrypted, in the order of the keys.
fn opened(transaction: &ReadTransaction, place: Place, seal: &Seal) -> Result<Vec<Pair>, StoreError> {
    let table = if matches!(place, Place::Record) { RECORDS } else { STATUSES };
    // Parts by the first octet of a key.
    let next = AtomicUsize::new(0);
    let work = || -> Result<Vec<Pair>, StoreError> {
        let table = transaction.open_table(table).map_err(|e| broken(e.into()))?;
        let mut found = Vec::new();
        loop {
            let Ok(first) = u8::try_from(next.fetch_add(1, Ordering::Relaxed)) else { return Ok(found) };
            let from = [first];
            let range = match first.checked_add(1) {
                Some(end) => table.range(from.as_slice()..[end].as_slice()),
                None => table.range(from.as_slice()..),
            };
            for entry in range.map_err(|e| broken(e.into()))? {
                let (hidden, value) = entry.map_err(|e| broken(e.into()))?;
                found.push(seal.entry(place, hidden.value(), value.value())?);
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let own = work();
        std::iter::once(Ok(own)).chain(others.into_iter().map(|other| other.join())).collect()
    });
    let mut all = Vec::new();
    for outcome in outcomes {
        all.append(&mut outcome.map_err(|_| StoreError::new("reading the registry panicked"))??);
    }
    all.sort_unstable();
    Ok(all)
}

fn folded(stored: &Stored) -> Option<String> {
    match &stored.record {
        Record::Node(node) => Some(node.name.folded().to_owned()),
        _ => None,
    }
}

/// The records of some nodes that follow one another.
struct Part<'a> {
    records: ReadOnlyTable<&'static [u8], &'static [u8]>,
    statuses: ReadOnlyTable<&'static [u8], &'static [u8]>,
    from: &'a str,
    to: Option<&'a str>,
}

impl<'a> Part<'a> {
    fn new(transaction: &ReadTransaction, from: &'a str, to: Option<&'a str>) -> Result<Self, StoreError> {
        let records = transaction.open_table(RECORDS).map_err(|e| broken(e.into()))?;
        let statuses = transaction.open_table(STATUSES).map_err(|e| broken(e.into()))?;
        Ok(Self { records, statuses, from, to })
    }

    fn whole(transaction: &ReadTransaction) -> Result<Self, StoreError> {
        Self::new(transaction, "", None)
    }

    /// The entries of one kind, whose keys begin with `kind`; statuses have none.
    fn entries(
        &self,
        kind: Option<u8>,
    ) -> Result<impl Iterator<Item = Result<Entry, StoreError>> + use<>, StoreError> {
        let table = if kind.is_some() { &self.records } else { &self.statuses };
        let key = |node: &str| kind.into_iter().chain(node.bytes()).collect::<Vec<u8>>();
        let end = match (self.to, kind) {
            (Some(to), _) => Some(key(to)),
            (None, Some(kind)) => Some(vec![kind + 1]),
            (None, None) => None,
        };
        let from = key(self.from);
        let range = match &end {
            Some(end) => table.range(from.as_slice()..end.as_slice()),
            None => table.range(from.as_slice()..),
        };
        Ok(range.map_err(|e| broken(e.into()))?.map(|entry| entry.map_err(|e| broken(e.into()))))
    }

    fn nodes(&self) -> Result<Vec<Stored>, StoreError> {
        self.records(b'1', &mut Reader::default())
    }

    fn read(&self, reader: &mut Reader) -> Result<Contents, StoreError> {
        reader.forget_keys();
        // In this order: a check finds its instance's texts, a status its check's.
        let mut records = self.records(b'2', reader)?;
        records.append(&mut self.records(b'3', reader)?);
        records.append(&mut self.records(b'4', reader)?);
        let mut statuses = Vec::new();
        for entry in self.entries(None)? {
            let (key, value) = entry?;
            statuses.push(reader.status(key.value(), value.value())?);
        }
        Ok((records, statuses))
    }

    fn records(&self, kind: u8, reader: &mut Reader) -> Result<Vec<Stored>, StoreError> {
        let mut records = Vec::new();
        for entry in self.entries(Some(kind))? {
            let (key, value) = entry?;
            records.push(reader.record(key.value(), value.value())?);
        }
        Ok(records)
    }
}

fn broken(e: redb::Error) -> StoreError {
    StoreError::new(format!("the registry cannot be read: {e}"))
}
