//! Where a server's configuration and its data are, for commands that are told as `serve` was.

use std::path::PathBuf;

use anyhow::anyhow;
use clap::Args;

use crate::config::{Config, ConfigError};

/// Flags of commands for a server on this machine.
#[derive(Args)]
pub(super) struct Place {
    /// The server's configuration file, for its data directory
    #[arg(long, value_name = "FILE", env = "ROLLCALL_CONFIG", value_delimiter = ',')]
    config: Vec<PathBuf>,
    /// Where the server keeps its definitions
    #[arg(long, value_name = "DIR", env = "ROLLCALL_DATA_DIR")]
    pub(super) data_dir: Option<PathBuf>,
}

impl Place {
    /// The configuration. Errs with all that is wrong with it, a line each.
    pub(super) fn config(&self) -> anyhow::Result<Config> {
        Config::load(&self.config).map_err(|errors| anyhow!("{}", lines(&errors)))
    }
}

/// A line for each error.
pub(super) fn lines(errors: &[ConfigError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
