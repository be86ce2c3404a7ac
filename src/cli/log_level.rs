//! `rollcall log-level`: what a running server logs.

use std::time::Duration;

use anyhow::Context;
use clap::Args;

use super::api::{self, Server};
use super::{block_on, say};
use crate::telemetry::logs;

/// Flags of `log-level`.
#[derive(Args)]
pub(super) struct Arguments {
    /// error, warn, info, debug, trace, or directives such as info,rollcall::dns=debug; without it, the one in force is shown
    #[arg(value_name = "LEVEL", value_parser = logs::level)]
    level: Option<String>,
    #[command(flatten)]
    server: Server,
}

/// Shows the level, or sets it until the next reload or start.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    const PATH: &str = "/v1/rollcall/log-level";
    block_on(async {
        let server = &arguments.server;
        if let Some(level) = &arguments.level {
            server.put(&format!("{PATH}?level={}", api::part(level)), Vec::new()).await?;
        }
        let (_, shown) = server.get(PATH, Duration::ZERO).await?;
        let level = shown["Level"].as_str().context("the answer has no Level; is this a rollcall server?")?;
        say(format_args!("{level}"))
    })
}
