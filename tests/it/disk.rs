//! A disk in memory for the store: it forgets what was not synced when the power goes, and can be full.

use std::io;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};
use redb::{Database, StorageBackend};
use rollcall::store::{Config, Embedded, JournalFile, Log, Opener, Store, StoreError};
use rollcall::telemetry::Metrics;

/// The disk; clones are the same disk.
#[derive(Debug, Clone)]
pub struct Disk {
    inner: Arc<Mutex<Inner>>,
    released: Arc<Condvar>,
}

/// One of its files.
#[derive(Debug, Clone)]
struct OnDisk {
    disk: Disk,
    file: usize,
}

/// The database and its journal.
const DATABASE: usize = 0;
const JOURNAL: usize = 1;
/// Octets of the journal: so few that the halves take turns.
pub const JOURNAL_OCTETS: usize = 1 << 16;
/// What is in the files.
pub type Contents = [Vec<u8>; 2];

#[derive(Debug, Default)]
struct Inner {
    /// What a reader sees.
    now: Contents,
    /// What is left when the power goes.
    synced: Contents,
    /// Changes of a file since its last sync, in order.
    unsynced: Vec<(usize, Change)>,
    /// Changes until the power goes.
    left: Option<usize>,
    dead: bool,
    full: bool,
    /// Syncs do nothing, as on a disk that lies.
    lies: bool,
    /// Syncs take until this ends, as on a disk that hangs.
    hangs: bool,
    /// Somebody waits for a sync that hangs.
    held: bool,
}

/// While it lives, the disk hangs.
pub struct Hanging(Disk);

impl Drop for Hanging {
    fn drop(&mut self) {
        self.0.inner.lock().hangs = false;
        self.0.released.notify_all();
    }
}

#[derive(Debug)]
enum Change {
    Length(usize),
    Write(usize, Vec<u8>),
}

impl Change {
    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Self::Length(length) => to.resize(*length, 0),
            Self::Write(at, bytes) => {
                let end = at + bytes.len();
                if to.len() < end {
                    to.resize(end, 0);
                }
                to[*at..end].copy_from_slice(bytes);
            }
        }
    }
}

impl Disk {
    /// A disk with this on it.
    pub fn with(contents: Contents) -> Self {
        let inner = Inner { now: contents.clone(), synced: contents, ..Inner::default() };
        Self { inner: Arc::new(Mutex::new(inner)), released: Arc::default() }
    }

    /// A disk with a new registry on it.
    pub fn fresh() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { data_dir: dir.path().to_owned(), cache_bytes: 1 << 20 };
        let (log, _entries) = tokio::sync::mpsc::unbounded_channel();
        Embedded::open(&config, log, Arc::new(Metrics::default())).unwrap().close();
        Self::with([std::fs::read(dir.path().join("registry.redb")).unwrap(), Vec::new()])
    }

    /// Lets the power go after so many changes from now.
    pub fn die_after(&self, changes: usize) {
        self.inner.lock().left = Some(changes);
    }

    /// From now on syncs do nothing.
    pub fn lie(&self) {
        self.inner.lock().lies = true;
    }

    /// Full: writes fail as on a disk without space. Reads go on.
    pub fn fill(&self, full: bool) {
        self.inner.lock().full = full;
    }

    /// Hangs: no sync comes back before the guard is dropped.
    pub fn hang(&self) -> Hanging {
        self.inner.lock().hangs = true;
        Hanging(self.clone())
    }

    /// Waits until a sync hangs.
    pub fn until_held(&self) {
        let mut inner = self.inner.lock();
        while !inner.held {
            self.released.wait(&mut inner);
        }
    }

    pub fn is_dead(&self) -> bool {
        self.inner.lock().dead
    }

    /// What is found when the power is back: all that was synced, and of the rest whatever had reached the platter:
    /// any part of the changes, the last of them perhaps torn. `chance` gives numbers below its argument.
    pub fn after_the_power_went(&self, mut chance: impl FnMut(usize) -> usize) -> Contents {
        let inner = self.inner.lock();
        let mut left = inner.synced.clone();
        for (file, change) in &inner.unsynced {
            let left = &mut left[*file];
            match (chance(3), change) {
                (0, _) => {}
                (1, Change::Write(at, bytes)) => {
                    Change::Write(*at, bytes[..chance(bytes.len() + 1)].to_vec()).apply(left);
                }
                (_, change) => change.apply(left),
            }
        }
        left
    }

    /// Opens the database on the disk, for the store.
    pub fn opener(&self) -> Opener {
        let file = OnDisk { disk: self.clone(), file: DATABASE };
        Box::new(move || {
            let database = Database::builder().create_with_backend(file.clone());
            database.map_err(|e| StoreError::new(e.to_string()))
        })
    }

    /// The journal on the disk, for the store.
    pub fn journal(&self) -> JournalFile {
        Box::new(OnDisk { disk: self.clone(), file: JOURNAL })
    }

    /// Opens a store on the disk.
    pub fn store(&self, metrics: Arc<Metrics>) -> Result<(Embedded, Log), StoreError> {
        let (log, entries) = tokio::sync::mpsc::unbounded_channel();
        Ok((Embedded::open_with(self.opener(), self.journal(), JOURNAL_OCTETS, log, metrics)?, entries))
    }

    fn change(&self, file: usize, change: Change) -> Result<(), io::Error> {
        let mut inner = self.inner.lock();
        inner.alive()?;
        if inner.full {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        if let Some(left) = &mut inner.left {
            if *left == 0 {
                inner.dead = true;
                return inner.alive();
            }
            *left -= 1;
        }
        change.apply(&mut inner.now[file]);
        inner.unsynced.push((file, change));
        Ok(())
    }
}

impl Inner {
    fn alive(&self) -> Result<(), io::Error> {
        if self.dead { Err(io::Error::other("the power is gone")) } else { Ok(()) }
    }
}

impl StorageBackend for OnDisk {
    fn len(&self) -> Result<u64, io::Error> {
        let inner = self.disk.inner.lock();
        inner.alive()?;
        Ok(inner.now[self.file].len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        let inner = self.disk.inner.lock();
        inner.alive()?;
        let at = offset as usize;
        let found = inner.now[self.file].get(at..at + out.len());
        let found = found.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        out.copy_from_slice(found);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.disk.change(self.file, Change::Length(len as usize))
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        let mut inner = self.disk.inner.lock();
        while inner.hangs {
            inner.held = true;
            self.disk.released.notify_all();
            self.disk.released.wait(&mut inner);
        }
        inner.alive()?;
        if inner.full {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        if !inner.lies {
            inner.synced[self.file] = inner.now[self.file].clone();
            inner.unsynced.retain(|(file, _)| *file != self.file);
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.disk.change(self.file, Change::Write(offset as usize, data.to_vec()))
    }
}
