//! `rollcall acl bootstrap`: the first management token.

use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand};
use http_body_util::BodyExt;
use hyper::Method;
use serde_json::Value;

use super::api::Server;
use super::{block_on, say};

/// Flags of `acl`.
#[derive(Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Get the first management token; the server gives it away once
    Bootstrap {
        #[command(flatten)]
        server: Server,
    },
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let Command::Bootstrap { server } = &arguments.command;
    let token = block_on(async {
        let answer = server.send(Method::PUT, "/v1/acl/bootstrap", Vec::new(), Duration::ZERO).await?;
        let body = answer.into_body().collect().await?.to_bytes();
        serde_json::from_slice::<Value>(&body).context("the answer is not JSON; is this a rollcall server?")
    })?;
    for key in ["AccessorID", "SecretID"] {
        say(format_args!("{key:<12} {}", token[key].as_str().unwrap_or_default()))?;
    }
    Ok(())
}
