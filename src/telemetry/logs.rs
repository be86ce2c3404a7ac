//! Logs: lines for a person on a terminal, JSON for programs (Elastic Common Schema), on standard error.

use std::fmt as text;
use std::io::{IsTerminal, stderr};
use std::str::FromStr;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use parking_lot::Mutex;
use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::{Format as Human, Full, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

use super::repeats::Repeats;
use super::said::Said;
use super::tap::{Tap, Wanted};
use super::{ecs, origin};

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

/// Octets of a level or of directives.
const LEVEL_OCTETS_MAX: usize = 4096;

/// Checks a level or directives; gives them back, without blanks around them.
pub fn level(text: &str) -> Result<String, String> {
    if text.len() > LEVEL_OCTETS_MAX {
        return Err(format!("a log level of {} octets; at most {LEVEL_OCTETS_MAX} are allowed", text.len()));
    }
    let directives: Vec<&str> = text.split(',').map(str::trim).collect();
    // `EnvFilter` would take a word that is no level for a place in the code, and nothing else would be written.
    if let Some(word) =
        directives.iter().find(|one| !one.contains('=') && LevelFilter::from_str(one).is_err())
    {
        return Err(format!(
            "{word:?} is not a log level: error, warn, info, debug, trace and off are; of one place in the code it is \
             PLACE=LEVEL, as in info,rollcall::dns=debug"
        ));
    }
    let text = directives.join(",");
    let parsed = EnvFilter::builder().parse(&text);
    parsed.map_err(|e| format!("{text:?} is not a log level or directives: {e}")).map(|_| text)
}

/// The logs of this process, once they have begun.
static BEGUN: OnceLock<Begun> = OnceLock::new();

struct Begun {
    filter: reload::Handle<EnvFilter, Registry>,
    level: Mutex<String>,
    repeats: Arc<Repeats>,
}

/// Logs that have begun. When it goes, what was held back is told.
pub struct Logs(());

impl Drop for Logs {
    fn drop(&mut self) {
        if let Some(begun) = BEGUN.get() {
            begun.repeats.flush();
        }
    }
}

/// Begins to log, for the whole process; may be called once. `node` is who writes.
pub fn init(config: &Config, node: &str) -> anyhow::Result<Logs> {
    let (filter, handle) = reload::Layer::new(filter(&config.level)?);
    let terminal = stderr().is_terminal();
    let human = match config.format {
        Format::Auto => terminal,
        Format::Human => true,
        Format::Json => false,
    };
    let repeats = Arc::new(Repeats::default());
    let form = if human {
        Form::Human(fmt::format().with_target(false).with_ansi(terminal))
    } else {
        Form::Json(ecs::Writer { node: node.to_owned(), pid: std::process::id() })
    };
    let lines = Lines { form, repeats: repeats.clone() };
    let lines = fmt::layer().event_format(lines).with_ansi(terminal).with_writer(stderr);
    // Filters of their own: who watches may want more than is written.
    let lines = lines.with_filter(filter);
    tracing_subscriber::registry().with(lines).with(Tap.with_filter(Wanted)).try_init()?;
    repeats.tell()?;
    let _ = BEGUN.set(Begun { filter: handle, level: Mutex::new(config.level.clone()), repeats });
    Ok(Logs(()))
}

/// Logs by another level from now on; gives the one before. Errs where this process has no logs of a server.
pub fn set_level(level: &str) -> anyhow::Result<String> {
    let begun =
        BEGUN.get().ok_or_else(|| anyhow::anyhow!("the logs of this process are not the server's"))?;
    let mut current = begun.level.lock();
    begun.filter.reload(filter(level)?)?;
    Ok(std::mem::replace(&mut current, level.to_owned()))
}

/// The level in force.
pub fn current_level() -> Option<String> {
    Some(BEGUN.get()?.level.lock().clone())
}

fn filter(level: &str) -> anyhow::Result<EnvFilter> {
    Ok(EnvFilter::builder().parse(level)?)
}

/// How lines are written.
struct Lines {
    form: Form,
    repeats: Arc<Repeats>,
}

enum Form {
    Human(Human<Full>),
    Json(ecs::Writer),
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut to: Writer<'_>,
        event: &Event<'_>,
    ) -> text::Result {
        // Nothing is written then.
        if !self.repeats.pass(event) {
            return Ok(());
        }
        match &self.form {
            Form::Human(human) => {
                let mut line = String::new();
                human.format_event(context, Writer::new(&mut line), event)?;
                to.write_str(line.trim_end_matches('\n'))?;
                match origin::look(|origin| origin.id.clone()) {
                    Some(id) => writeln!(to, " http.request.id={id}"),
                    None => writeln!(to),
                }
            }
            Form::Json(ecs) => {
                let metadata = event.metadata();
                let (level, target) = (*metadata.level(), metadata.target());
                let origin = origin::current();
                let (now, said) = (SystemTime::now(), Said::of(event));
                to.write_str(&ecs.line(now, level, target, said, origin.as_deref()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_is_no_level_is_refused_and_never_taken_for_a_place() {
        for good in [
            "info",
            "WARN",
            "off",
            "info,rollcall::dns=debug",
            "rollcall=trace",
            "info,rollcall[x{y=1}]=debug",
        ] {
            assert_eq!(level(good).as_deref(), Ok(good));
        }
        assert_eq!(level(" info, rollcall::dns=debug ").as_deref(), Ok("info,rollcall::dns=debug"));
        for bad in ["warning", "bogus", "info,bogus", "rollcall::dns", "rollcall::dns=bogus", "x==1"] {
            let why = level(bad).expect_err(bad);
            assert!(why.contains("is not a log level"), "{bad}: {why}");
        }
        assert!(level("warning").unwrap_err().contains("error, warn, info, debug, trace"));
    }
}
