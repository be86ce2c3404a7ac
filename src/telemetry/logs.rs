//! Logs: lines for a person on a terminal, JSON for programs, on standard error.

use std::io::{IsTerminal, stderr};

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

use super::tap::{Tap, Wanted};

/// How the server logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// A level, or directives as `EnvFilter` takes them.
    pub level: String,
    pub format: Format,
}

impl Default for Config {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: Format::Auto }
    }
}

/// The form of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `Human` on a terminal, else `Json`.
    Auto,
    Human,
    Json,
}

impl Format {
    /// Reads `auto`, `human` or `json`.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "human" => Ok(Self::Human),
            "json" => Ok(Self::Json),
            _ => Err(format!("{text:?} is not \"auto\", \"human\" or \"json\"")),
        }
    }
}

/// Checks a level or directives; gives them back.
pub fn level(text: &str) -> Result<String, String> {
    let parsed = EnvFilter::builder().parse(text);
    parsed.map(|_| text.to_owned()).map_err(|e| format!("{text:?} is not a log level or directives: {e}"))
}

/// Changes the level of logs that have begun.
pub struct Logs(reload::Handle<EnvFilter, Registry>);

/// Begins to log, for the whole process; may be called once.
pub fn init(config: &Config) -> anyhow::Result<Logs> {
    let (filter, handle) = reload::Layer::new(filter(&config.level)?);
    let terminal = stderr().is_terminal();
    let human = match config.format {
        Format::Auto => terminal,
        Format::Human => true,
        Format::Json => false,
    };
    let lines = if human {
        fmt::layer().with_writer(stderr).with_ansi(terminal).with_target(false).boxed()
    } else {
        fmt::layer().json().flatten_event(true).with_writer(stderr).boxed()
    };
    // Filters of their own: who watches may want more than is written.
    let lines = lines.with_filter(filter);
    tracing_subscriber::registry().with(lines).with(Tap.with_filter(Wanted)).try_init()?;
    Ok(Logs(handle))
}

impl Logs {
    /// Logs by another level from now on.
    pub fn set_level(&self, level: &str) -> anyhow::Result<()> {
        Ok(self.0.reload(filter(level)?)?)
    }
}

fn filter(level: &str) -> anyhow::Result<EnvFilter> {
    Ok(EnvFilter::builder().parse(level)?)
}
