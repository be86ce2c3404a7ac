//! `rollcall check-config`: what `serve` would refuse, without starting anything.

use std::path::PathBuf;

use anyhow::bail;
use clap::Args;

use super::say;
use crate::config::{Config, reference};

/// Flags of `check-config`.
#[derive(Args)]
pub(super) struct Arguments {
    /// Configuration files, or directories of *.toml and Consul's *.json files
    #[arg(value_name = "FILE", required_unless_present = "reference")]
    files: Vec<PathBuf>,
    /// Print the reference of all keys instead (Markdown)
    #[arg(long)]
    reference: bool,
}

/// Prints every error with its file, line and reason.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    if arguments.reference {
        return say(format_args!("{}", reference::markdown().trim_end()));
    }
    let (config, errors) = Config::read(&arguments.files);
    let mut wrong: Vec<String> = errors.iter().map(ToString::to_string).collect();
    if let Err(errors) = crate::load_zones(&config) {
        wrong.extend(errors.to_string().lines().map(str::to_owned));
    }
    let mut warnings = config.warnings.clone();
    if !config.https.listen.is_empty() {
        match config.https.files.load() {
            Ok(loaded) => warnings.extend(loaded.warnings.iter().map(|warning| format!("[https] {warning}"))),
            Err(error) => wrong.push(format!("[https] {error}")),
        }
    }
    for warning in &warnings {
        say(format_args!("warning: {warning}"))?;
    }
    if wrong.is_empty() {
        return say(format_args!("Configuration is valid!"));
    }
    for line in &wrong {
        say(format_args!("{line}"))?;
    }
    match wrong.len() {
        1 => bail!("the configuration is not valid (1 error)"),
        count => bail!("the configuration is not valid ({count} errors)"),
    }
}
