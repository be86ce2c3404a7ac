//! The registry's file: where it is, how it is made, and what to say when it cannot be opened.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use redb::{Database, DatabaseError};
use uuid::Uuid;

use super::format::{self, COMMITTED, FORMAT, HIGH_WATER, KEY_CHECK, META, NODE_ID, RECORDS, SALT, STATUSES};
use super::seal::{Form, Key, Place};
use super::{Loaded, StoreError, StoredStatus};

/// What the embedded store is opened with.
#[derive(Debug, Clone)]
pub struct Config {
    pub data_dir: PathBuf,
    /// Memory for the database's pages.
    pub cache_bytes: usize,
}

/// Makes the data directory (mode 0700) and an empty registry in it, where there is none. The new file
/// is filled aside and renamed, so that a crash never leaves one that is half made. Warns of a directory that others may write to.
pub(super) fn prepare(config: &Config, key: Option<&Key>) -> Result<(), StoreError> {
    let dir = &config.data_dir;
    if !dir.exists() {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
        made.map_err(|e| no_dir(dir, &e))?;
    }
    // No error: a volume that somebody else makes is often so, and the files in it are private themselves.
    if fs::metadata(dir).is_ok_and(|data| data.mode() & 0o022 != 0) {
        tracing::warn!("others may write to {}, and so replace the registry: chmod 700 it", dir.display());
    }
    let exists = path(dir).try_exists().map_err(|e| no_dir(dir, &e))?;
    if exists { Ok(()) } else { create(config, key, &Loaded::default(), Uuid::new_v4()) }
}

/// Writes a registry with these contents, encrypted where there is a key, in place of the one that is there, if any.
pub(super) fn create(
    config: &Config,
    key: Option<&Key>,
    loaded: &Loaded,
    node_id: Uuid,
) -> Result<(), StoreError> {
    let dir = &config.data_dir;
    let form = Form::fresh(key)?;
    let (target, aside) = (path(dir), aside(dir));
    let failed = |e: &dyn std::fmt::Display| {
        StoreError::new(format!(
            "cannot write {}: {e}; check the directory's permissions and space",
            aside.display()
        ))
    };
    match fs::remove_file(&aside) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(&e)),
        _ => {}
    }
    // Private before there is anything in it, whatever the umask; the database fills a file that is empty.
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&aside);
    made.map_err(|e| failed(&e))?;
    let database = Database::builder().set_cache_size(config.cache_bytes).create(&aside);
    let database = database.map_err(|e| failed(&e))?;
    fill(&database, &form, loaded, node_id).map_err(|e| failed(&e))?;
    drop(database);
    let renamed = File::open(&aside).and_then(|file| file.sync_all());
    let renamed = renamed.and_then(|()| fs::rename(&aside, &target));
    renamed.and_then(|()| File::open(dir)?.sync_all()).map_err(|e| failed(&e))
}

/// Opens the registry, and checks every page of it.
pub(super) fn open(config: &Config) -> Result<Database, StoreError> {
    let file = path(&config.data_dir);
    let shown = file.display();
    let length = fs::metadata(&file).map_err(|e| StoreError::new(format!("cannot open {shown}: {e}")))?.len();
    if length == 0 {
        return Err(damaged(&file, "it is empty"));
    }
    let mut builder = Database::builder();
    builder.set_cache_size(config.cache_bytes).set_check_integrity_on_open(true);
    builder.open(&file).map_err(|e| match e {
        DatabaseError::DatabaseAlreadyOpen => in_use(&file),
        DatabaseError::Storage(redb::StorageError::Io(e)) if e.kind() != io::ErrorKind::InvalidData => {
            StoreError::new(format!("cannot open {shown}: {e}; check its permissions and the disk"))
        }
        e => damaged(&file, &e.to_string()),
    })
}

/// What to say of a file that another process has locked.
pub(super) fn in_use(file: &Path) -> StoreError {
    StoreError::new(format!(
        "{} is in use by another rollcall; stop that one, or give this one another --data-dir",
        file.display()
    ))
}

fn damaged(file: &Path, why: &str) -> StoreError {
    let (file, dir) = (file.display(), file.parent().unwrap_or(file).display());
    StoreError::new(format!(
        "{file} is damaged: {why}. Nothing was changed. Restore a backup with `rollcall restore --data-dir {dir} \
         --replace FILE`, or move the file away to begin with an empty registry"
    ))
}

fn no_dir(dir: &Path, e: &io::Error) -> StoreError {
    let dir = dir.display();
    StoreError::new(format!(
        "cannot use the data directory {dir}: {e}; check its permissions, or name another with --data-dir"
    ))
}

/// Writes a whole registry into an empty database.
fn fill(database: &Database, form: &Form, loaded: &Loaded, node_id: Uuid) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut records = transaction.open_table(RECORDS)?;
        for stored in &loaded.records {
            let key = format::key(&stored.record.key());
            let at = form.key(Place::Record, &key);
            let value = form.value(Place::Record, &key, &at, format::encode(stored));
            records.insert(&*at, &*value.map_err(redb::Error::Io)?)?;
        }
        let mut statuses = transaction.open_table(STATUSES)?;
        for StoredStatus { check, status, output } in &loaded.statuses {
            let key = format::status_key(check);
            let at = form.key(Place::Status, &key);
            let value = form.value(Place::Status, &key, &at, format::encode_status(*status, output));
            statuses.insert(&*at, &*value.map_err(redb::Error::Io)?)?;
        }
        let mut meta = transaction.open_table(META)?;
        meta.insert(FORMAT, form.number())?;
        if let Form::Sealed(seal) = form {
            meta.insert(SALT, seal.salt)?;
            meta.insert(KEY_CHECK, seal.check)?;
        }
        meta.insert(HIGH_WATER, u128::from(loaded.index))?;
        meta.insert(COMMITTED, u128::from(loaded.index))?;
        meta.insert(NODE_ID, node_id.as_u128())?;
    }
    transaction.commit()?;
    Ok(())
}

/// Where a new registry is filled before it takes its place.
fn aside(data_dir: &Path) -> PathBuf {
    data_dir.join("registry.redb.new")
}

/// Takes away what a run that was broken off left aside. For whoever has the registry's lock.
pub(super) fn clear_aside(data_dir: &Path) {
    // Most often there is none.
    let _ = fs::remove_file(aside(data_dir));
}

/// The path of the registry in a data directory.
pub(super) fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("registry.redb")
}
