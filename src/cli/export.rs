//! `rollcall export`: the whole registry of a running server as one JSON document, to a file or to standard output.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use http_body_util::BodyExt;
use hyper::Method;

use super::api::Server;
use super::{block_on, say};

/// Flags of `export`.
#[derive(Args)]
pub(super) struct Arguments {
    /// Where to; replaced when it is there [default: standard output]
    file: Option<PathBuf>,
    #[command(flatten)]
    server: Server,
}

/// A file is written aside, and renamed when all of it is on disk.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let Some(file) = &arguments.file else {
        let mut out = io::stdout().lock();
        block_on(download(arguments, &mut out))?;
        return Ok(out.flush()?);
    };
    let mut aside = file.clone().into_os_string();
    aside.push(".partial");
    let aside = PathBuf::from(aside);
    let written = write(arguments, &aside);
    if written.is_err() {
        // It may never have been made.
        let _ = fs::remove_file(&aside);
    }
    let octets = written?;
    fs::rename(&aside, file).with_context(|| format!("renaming {}", aside.display()))?;
    say(format_args!("Export written: {} ({octets} octets)", file.display()))
}

fn write(arguments: &Arguments, aside: &PathBuf) -> anyhow::Result<u64> {
    // Checks may send what is nobody else's business.
    let opened = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(aside);
    let mut to = opened.with_context(|| format!("writing {}", aside.display()))?;
    let octets = block_on(download(arguments, &mut to))?;
    to.sync_all().with_context(|| format!("writing {}", aside.display()))?;
    Ok(octets)
}

async fn download(arguments: &Arguments, to: &mut impl Write) -> anyhow::Result<u64> {
    let answer =
        arguments.server.send(Method::GET, "/v1/rollcall/export", Vec::new(), Duration::ZERO).await?;
    let (mut body, mut octets) = (answer.into_body(), 0);
    while let Some(frame) = body.frame().await {
        let frame = frame.context("the server broke off; the export is not whole")?;
        if let Some(piece) = frame.data_ref() {
            to.write_all(piece)?;
            octets += piece.len() as u64;
        }
    }
    Ok(octets)
}
