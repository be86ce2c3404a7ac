//! `rollcall store rotate`: another key for a stopped server's definitions.

use std::path::PathBuf;

use anyhow::bail;
use clap::{Args, Subcommand};

use super::place::Place;
use super::say;
use crate::config::Data;
use crate::store::{self, Rotated, StoreKey};

/// What can be done with a stopped server's store.
#[derive(Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Encrypt it with another key, for the first time, or not any more; may be broken off and run again
    Rotate(Box<Rotate>),
}

/// Flags of `rotate`.
#[derive(Args)]
struct Rotate {
    #[command(flatten)]
    place: Place,
    /// The key that it is encrypted with [default: the configured one]
    #[arg(long, value_name = "FILE", group = "from")]
    old_key_file: Option<PathBuf>,
    /// It is not encrypted
    #[arg(long, group = "from")]
    from_plain: bool,
    /// The key to encrypt it with [default: the configured one]
    #[arg(long, value_name = "FILE", group = "to")]
    new_key_file: Option<PathBuf>,
    /// Encrypt it no more
    #[arg(long, group = "to")]
    to_plain: bool,
}

/// Runs the command.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let Command::Rotate(arguments) = &arguments.command;
    rotate(arguments)
}

fn rotate(arguments: &Rotate) -> anyhow::Result<()> {
    let config = arguments.place.config()?;
    let Data::Dir(data_dir) = config.data else { bail!("an ephemeral server keeps nothing") };
    let key = |file: &Option<PathBuf>, plain: bool| match (file, plain) {
        (Some(file), _) => StoreKey::read(file).map(Some),
        (None, true) => Ok(None),
        (None, false) => config.store_key.read(),
    };
    let old = key(&arguments.old_key_file, arguments.from_plain)?;
    let new = key(&arguments.new_key_file, arguments.to_plain)?;
    let (said_old, said_new) = (
        arguments.from_plain || arguments.old_key_file.is_some(),
        arguments.to_plain || arguments.new_key_file.is_some(),
    );
    if !said_old && !said_new {
        bail!(
            "say what is to change: --new-key-file or --to-plain, or --old-key-file or --from-plain with the new key configured"
        );
    }
    if new.is_none() && !arguments.to_plain {
        bail!("there is no key to encrypt it with: --new-key-file, [store] key_file or ROLLCALL_STORE_KEY");
    }
    let at = store::Config { data_dir: data_dir.clone(), cache_bytes: config.cache_octets };
    let how = if new.is_some() { "encrypted with the new key" } else { "not encrypted any more" };
    match store::rotate(&at, old.as_ref(), new.as_ref())? {
        Rotated::Done(records) => {
            say(format_args!("{records} definitions in {} are {how}", data_dir.display()))
        }
        Rotated::Already => say(format_args!("The definitions in {} are {how} already", data_dir.display())),
    }
}
