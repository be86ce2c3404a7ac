//! Log lines for those who watch a running server, at a level of their own.
//!
//! A layer beside the one that writes to standard error. While nobody watches, its filter is off, and logging costs what it
//! costs without it. Each watcher has a bounded queue that logging never waits for: what does not fit is counted, and said
//! where it is missing. Only our own lines are shown: those of the libraries that carry a line to its watcher would each make
//! another.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::SystemTime;

use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use serde_json::{Map, Value};
use tokio::sync::mpsc;
use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Filter, Layer};

use super::origin;
use super::said::{Said, cut};
use super::utc;

/// Octets of one line.
const LINE_OCTETS_MAX: usize = 4096;
/// How the targets of our own lines begin.
const OURS: &str = "rollcall";

static WATCHED: Mutex<Vec<Arc<Watched>>> = Mutex::new(Vec::new());
/// A place in [`LEVELS`], one more than that of the most detailed level that is watched; 0 when nobody watches.
static WANTED: AtomicUsize = AtomicUsize::new(0);
const LEVELS: [Level; 5] = [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE];

/// What logging has of one watcher.
struct Watched {
    level: Level,
    json: bool,
    lines: mpsc::Sender<String>,
    /// Lines that did not fit and were not told of yet.
    missed: AtomicU64,
    /// Those and all before.
    dropped: Counter,
}

/// One watcher's end. Nothing is kept for it once it is dropped.
pub struct Watch {
    shared: Arc<Watched>,
    lines: mpsc::Receiver<String>,
}

/// Begins to watch lines of this level and those above it. At most `lines_max` wait; `dropped` counts what did not fit.
/// `None` when `watchers_max` watch already.
pub fn watch(
    level: Level,
    json: bool,
    watchers_max: usize,
    lines_max: usize,
    dropped: Counter,
) -> Option<Watch> {
    let (sender, lines) = mpsc::channel(lines_max.max(1));
    let shared = Arc::new(Watched { level, json, lines: sender, missed: AtomicU64::new(0), dropped });
    let mut watched = WATCHED.lock();
    if watched.len() >= watchers_max {
        return None;
    }
    watched.push(shared.clone());
    want(&watched);
    drop(watched);
    tracing::callsite::rebuild_interest_cache();
    Some(Watch { shared, lines })
}

fn want(watched: &[Arc<Watched>]) {
    let place = |level: Level| LEVELS.iter().position(|known| *known == level).map_or(0, |at| at + 1);
    WANTED.store(watched.iter().map(|one| place(one.level)).max().unwrap_or(0), Ordering::Relaxed);
}

impl Watch {
    /// The next line, with its end.
    pub async fn next(&mut self) -> Option<String> {
        if let Ok(line) = self.lines.try_recv() {
            return Some(line);
        }
        match self.shared.missed.swap(0, Ordering::Relaxed) {
            0 => self.lines.recv().await,
            missed => Some(self.shared.notice(missed)),
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut watched = WATCHED.lock();
        watched.retain(|one| !Arc::ptr_eq(one, &self.shared));
        want(&watched);
        drop(watched);
        tracing::callsite::rebuild_interest_cache();
    }
}

impl Watched {
    fn send(&self, line: String) {
        let missed = self.missed.load(Ordering::Relaxed);
        if missed > 0 {
            if self.lines.try_send(self.notice(missed)).is_err() {
                return self.miss();
            }
            self.missed.fetch_sub(missed.min(self.missed.load(Ordering::Relaxed)), Ordering::Relaxed);
        }
        if self.lines.try_send(line).is_err() {
            self.miss();
        }
    }

    fn miss(&self) {
        self.missed.fetch_add(1, Ordering::Relaxed);
        self.dropped.inc();
    }

    fn notice(&self, missed: u64) -> String {
        let message = format!("{missed} lines are missing here: they were read too slowly");
        let said = Said { message, fields: Map::new() };
        said.line(Level::WARN, "rollcall::monitor", SystemTime::now(), self.json)
    }
}

/// Hands lines to their watchers.
pub(super) struct Tap;

impl<S: Subscriber> Layer<S> for Tap {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let (level, target) = (*event.metadata().level(), event.metadata().target());
        let watched: Vec<_> = WATCHED.lock().iter().filter(|one| level <= one.level).cloned().collect();
        if watched.is_empty() {
            return;
        }
        let mut said = Said::of(event);
        if let Some(id) = origin::look(|origin| Value::from(origin.id.as_str())) {
            said.fields.insert("http.request.id".to_owned(), id);
        }
        let now = SystemTime::now();
        for one in watched {
            one.send(said.line(level, target, now, one.json));
        }
    }
}

/// Lets through what is watched.
pub(super) struct Wanted;

impl Wanted {
    fn hint() -> LevelFilter {
        let place = WANTED.load(Ordering::Relaxed);
        place.checked_sub(1).and_then(|at| LEVELS.get(at)).map_or(LevelFilter::OFF, |level| (*level).into())
    }

    fn wants(metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Self::hint() && metadata.target().starts_with(OURS)
    }
}

impl<S> Filter<S> for Wanted {
    fn enabled(&self, metadata: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        Self::wants(metadata)
    }

    /// Asked again whenever somebody begins or ends to watch.
    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        if Self::wants(metadata) { Interest::always() } else { Interest::never() }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(Self::hint())
    }
}

impl Said {
    /// One line in Consul's form, with its end.
    fn line(&self, level: Level, target: &str, at: SystemTime, json: bool) -> String {
        let (at, module) = (utc::rfc3339(at), target.replace("::", "."));
        let mut line = if json {
            let mut all = Map::new();
            all.insert("@level".into(), level.as_str().to_ascii_lowercase().into());
            all.insert("@message".into(), cut(&self.message, LINE_OCTETS_MAX).into());
            all.insert("@module".into(), module.into());
            all.insert("@timestamp".into(), at.into());
            let text = Value::Object(all.clone()).to_string();
            all.extend(self.fields.clone());
            let whole = Value::Object(all).to_string();
            // Half of an object is of no use.
            if whole.len() <= LINE_OCTETS_MAX { whole } else { text }
        } else {
            let mut text = format!("{at} {:<7} {module}: {}", format!("[{level}]"), plain(&self.message));
            for (number, (name, value)) in (0..).zip(&self.fields) {
                let joint = if number == 0 { ": " } else { " " };
                let value = value.as_str().map_or_else(|| value.to_string(), quoted);
                // Writing to a String cannot fail.
                let _ = write!(text, "{joint}{name}={value}");
            }
            cut(&text, LINE_OCTETS_MAX).to_owned()
        };
        line.push('\n');
        line
    }
}

/// A text that stays on its line: control characters are spelt.
fn plain(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() })
        .collect()
}

fn quoted(text: &str) -> String {
    let bare = !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c.is_control() || c == '"');
    if bare { text.to_owned() } else { format!("{text:?}") }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    /// The watchers are of the process: one test at a time.
    static ALONE: Mutex<()> = Mutex::new(());

    fn logging<T>(run: impl FnOnce() -> T) -> T {
        let subscriber = tracing_subscriber::registry().with(Tap.with_filter(Wanted));
        tracing::subscriber::with_default(subscriber, run)
    }

    fn taken(watch: &mut Watch) -> Vec<String> {
        let mut lines = Vec::new();
        while let Some(Some(line)) = futures_util::FutureExt::now_or_never(watch.next()) {
            lines.push(line);
        }
        lines
    }

    #[test]
    fn lines_have_consuls_forms_and_their_watchers_level() {
        let _alone = ALONE.lock();
        let said = Said {
            message: "two\nlines".into(),
            fields: [("a".to_owned(), Value::from(1)), ("b".to_owned(), Value::from("x y"))]
                .into_iter()
                .collect(),
        };
        let line = |json| said.line(Level::INFO, "rollcall::http::guard", SystemTime::UNIX_EPOCH, json);
        let text = "1970-01-01T00:00:00.000Z [INFO]  rollcall.http.guard: two\\nlines: a=1 b=\"x y\"\n";
        assert_eq!(line(false), text);
        let json: Value = serde_json::from_str(&line(true)).unwrap();
        assert_eq!((&json["@level"], &json["@module"]), (&"info".into(), &"rollcall.http.guard".into()));
        assert_eq!((&json["@message"], &json["b"]), (&"two\nlines".into(), &"x y".into()));
        logging(|| {
            let watch = |level| watch(level, false, 9, 9, Counter::default()).unwrap();
            let (mut info, mut debug) = (watch(Level::INFO), watch(Level::DEBUG));
            tracing::info!(answer = 42, "seen by both");
            tracing::debug!("seen by one");
            tracing::trace!("seen by none");
            tracing::info!(target: "hyper::proto", "not ours");
            let (info, debug) = (taken(&mut info), taken(&mut debug));
            assert_eq!((info.len(), debug.len()), (1, 2), "{info:?} {debug:?}");
            assert!(info[0].ends_with("seen by both: answer=42\n"), "{info:?}");
            assert!(debug[1].contains("[DEBUG] ") && debug[1].ends_with("seen by one\n"), "{debug:?}");
        });
        assert_eq!(Wanted::hint(), LevelFilter::OFF, "nobody watches any more");
    }

    #[test]
    fn who_reads_too_slowly_holds_a_bounded_number_of_lines_and_is_told_what_is_missing() {
        let _alone = ALONE.lock();
        logging(|| {
            let dropped = Counter::default();
            let mut watch = watch(Level::INFO, false, 9, 4, dropped.clone()).unwrap();
            let long = "x".repeat(100_000);
            (0..1000).for_each(|number| tracing::info!(long, "{number}"));
            assert_eq!((watch.lines.len(), dropped.get()), (4, 996));
            let lines = taken(&mut watch);
            assert!(lines.iter().all(|line| line.len() <= LINE_OCTETS_MAX + 1));
            assert!(lines[4].contains("996 lines are missing here"), "{}", lines[4]);
            assert_eq!(lines.len(), 5);
            // Where more came after those that are missing, that is said between them.
            (0..10).for_each(|number| tracing::info!("{number}"));
            assert!(watch.lines.try_recv().unwrap().ends_with("0\n"));
            watch.lines.try_recv().unwrap();
            tracing::info!("later");
            let lines = taken(&mut watch);
            assert!(
                lines[2].contains("6 lines are missing here") && lines[3].ends_with("later\n"),
                "{lines:?}"
            );
        });
    }

    #[test]
    fn watchers_are_limited() {
        let _alone = ALONE.lock();
        let begin = || watch(Level::INFO, false, 1, 1, Counter::default());
        let first = begin();
        assert!(first.is_some() && begin().is_none());
        drop(first);
        assert!(begin().is_some());
    }
}
