//! Where a server's configuration and its data are, for commands that are told as `serve` was.

use std::path::PathBuf;

use anyhow::anyhow;
use clap::Args;

use crate::config::{Config, ConfigError, Data};
use crate::store::{KeySource, StoreKey};

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
        let config = Config::load(&self.config).and_then(with_store_key);
        let mut config = config.map_err(|errors| anyhow!("{}", lines(&errors)))?;
        if let Some(dir) = &self.data_dir {
            config.data = Data::Dir(dir.clone());
        }
        Ok(config)
    }
}

/// The environment's name for the store's key. No flag: others see those.
const STORE_KEY: &str = "ROLLCALL_STORE_KEY";

/// Lays the key of the environment, if there is one, over that of the files.
pub(super) fn with_store_key(mut config: Config) -> Result<Config, Vec<ConfigError>> {
    if let Some(text) = std::env::var_os(STORE_KEY).filter(|text| !text.is_empty()) {
        let key = text.to_str().ok_or_else(|| "it is not text".to_owned()).and_then(StoreKey::parse);
        let wrong = |reason| vec![ConfigError { file: STORE_KEY.into(), line: 0, reason }];
        config.store_key = KeySource::Given(key.map_err(wrong)?);
    }
    Ok(config)
}

/// A line for each error.
pub(super) fn lines(errors: &[ConfigError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
