//! Another key for a stopped server's store, or the first one, or none any more.
//!
//! The whole registry is read, what is in the journal alone included, and written anew beside the old one, which it then
//! replaces in one step. Whenever that is broken off, what is there is whole: under the old key before that step, under the
//! new one after it; the same command finishes it.

use super::StoreError;
use super::embedded::{self, Contents};
use super::file::{self, Config};
use super::seal::{Form, Key};

/// What was done.
#[derive(Debug, PartialEq, Eq)]
pub enum Rotated {
    /// So many definitions were written under the new key.
    Done(usize),
    /// They are under it already.
    Already,
}

/// Puts the store under the key `to`, from `from`; `None` is a store that is not encrypted. Errs, and changes nothing, when a server has
/// it, when neither key is its own, or when anything in it is damaged.
pub fn rotate(config: &Config, from: Option<&Key>, to: Option<&Key>) -> Result<Rotated, StoreError> {
    let (dir, present) = (config.data_dir.display(), file::path(&config.data_dir));
    if !present.exists() {
        return Err(StoreError::new(format!("there is no registry in {dir}")));
    }
    // Both are locked until the end.
    let database = file::open(config)?;
    let form = Form::of(&database, from);
    if let Err(error) = &form {
        // A run before this one may have been broken off behind the last step but one.
        if Form::of(&database, to).is_err() {
            return Err(error.clone());
        }
        embedded::wipe_foreign_journal(config, &database)?;
        return Ok(Rotated::Already);
    }
    let Contents { loaded, node_id, journal } = embedded::contents(config, &database, form?)?;
    file::create(config, to, &loaded, node_id)?;
    // What is in it belongs to the old file, and may be readable.
    embedded::wipe(&*journal)?;
    drop(database);
    Ok(Rotated::Done(loaded.records.len()))
}
