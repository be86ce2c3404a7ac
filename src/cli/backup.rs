//! `rollcall backup` of a running server and `rollcall restore` for a stopped one.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use http_body_util::BodyExt;
use hyper::Method;

use super::api::Server;
use super::place::Place;
use super::{block_on, say};
use crate::config::Data;
use crate::store::{self, Keys, StoreKey};

/// Flags of `backup`.
#[derive(Args)]
pub(super) struct BackupArguments {
    /// Where to; replaced when it is there
    file: PathBuf,
    #[command(flatten)]
    server: Server,
}

/// Flags of `restore`.
#[derive(Args)]
pub(super) struct RestoreArguments {
    /// A backup
    file: PathBuf,
    #[command(flatten)]
    place: Place,
    /// Put the backup in place of definitions that are there
    #[arg(long)]
    replace: bool,
    /// The key of an encrypted backup, where it is not the configured one
    #[arg(long, value_name = "FILE")]
    backup_key_file: Option<PathBuf>,
}

/// Writes aside, and renames when all of it is on disk.
pub(super) fn backup(arguments: &BackupArguments) -> anyhow::Result<()> {
    let mut aside = arguments.file.clone().into_os_string();
    aside.push(".partial");
    let aside = PathBuf::from(aside);
    let written = block_on(download(arguments, &aside));
    if let Err(error) = written {
        // It may never have been made.
        let _ = fs::remove_file(&aside);
        return Err(error);
    }
    fs::rename(&aside, &arguments.file).with_context(|| format!("renaming {}", aside.display()))?;
    say(format_args!("Backup written: {} ({} octets)", arguments.file.display(), written?))
}

async fn download(arguments: &BackupArguments, aside: &PathBuf) -> anyhow::Result<u64> {
    let failed = || format!("writing {}", aside.display());
    let answer =
        arguments.server.send(Method::GET, "/v1/rollcall/backup", Vec::new(), Duration::ZERO).await?;
    // Definitions may hold what is nobody else's business.
    // One that was broken off may be there, with another mode.
    let _ = fs::remove_file(aside);
    let opened = OpenOptions::new().create_new(true).write(true).mode(0o600).open(aside);
    let mut to = opened.with_context(failed)?;
    let (mut body, mut octets) = (answer.into_body(), 0);
    while let Some(frame) = body.frame().await {
        let frame = frame.context("the server broke off; the backup is not whole")?;
        if let Some(piece) = frame.data_ref() {
            to.write_all(piece).with_context(failed)?;
            octets += piece.len() as u64;
        }
    }
    to.sync_all().with_context(failed)?;
    Ok(octets)
}

/// Reads and checks the whole backup before anything is replaced.
pub(super) fn restore(arguments: &RestoreArguments) -> anyhow::Result<()> {
    let config = arguments.place.config()?;
    let Data::Dir(data_dir) = config.data else { bail!("an ephemeral server keeps nothing to restore") };
    let to = store::Config { data_dir: data_dir.clone(), cache_bytes: config.cache_octets };
    let store = config.store_key.read()?;
    let own = arguments.backup_key_file.as_deref().map(StoreKey::read).transpose()?;
    let keys = Keys { store: store.as_ref(), backup: own.as_ref().or(store.as_ref()) };
    let records = store::restore(&to, keys, &arguments.file, arguments.replace)?;
    say(format_args!("Restored {records} definitions to {}", data_dir.display()))
}
