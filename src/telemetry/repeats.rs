//! Warnings that say the same again and again: one line, then how often it was said.
//!
//! A warning or an error is written once; the same from the same place is counted for as long as its window lasts, and
//! the count is told at the window's end. While it goes on, windows grow: 10 s, 20 s, ... 10 min. A place in the code that says many
//! different things is bounded too ([`DIFFERENT_MAX`] in a window; those beyond are counted together). What is kept is bounded by
//! that and the number of places. Lines at other levels pass: those at `info` come with changes, those below are asked for.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::time::Instant;
use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Level};

use super::said::{Said, cut};

/// What our own lines on repetition have as target.
const TARGET: &str = "rollcall::telemetry::repeats";
/// Different lines of one place in one window.
const DIFFERENT_MAX: usize = 20;
const WINDOW_MIN: Duration = Duration::from_secs(10);
const WINDOW_MAX: Duration = Duration::from_secs(600);
/// Of a line that is told of.
const TEXT_OCTETS_MAX: usize = 256;

/// What was said of late.
#[derive(Default)]
pub(super) struct Repeats {
    seen: Mutex<Seen<Identifier>>,
    changed: Condvar,
}

impl Repeats {
    /// Whether a line is to be written.
    pub(super) fn pass(&self, event: &Event<'_>) -> bool {
        let metadata = event.metadata();
        if *metadata.level() > Level::WARN || metadata.target() == TARGET {
            return true;
        }
        let mut line = Line(DefaultHasher::new());
        event.record(&mut line);
        let text = || Told {
            level: *metadata.level(),
            target: metadata.target(),
            text: cut(&Said::of(event).message, TEXT_OCTETS_MAX).to_owned(),
        };
        let mut seen = self.seen.lock();
        let passes = seen.judge(metadata.callsite(), line.0.finish(), Instant::now(), text);
        drop(seen);
        self.changed.notify_one();
        passes
    }

    /// A thread that tells counts when it is time; for as long as the process lives.
    pub(super) fn tell(self: &Arc<Self>) -> std::io::Result<()> {
        let repeats = self.clone();
        let telling = move || loop {
            let mut seen = repeats.seen.lock();
            match seen.next() {
                Some(at) => drop(repeats.changed.wait_until(&mut seen, at.into_std())),
                None => repeats.changed.wait(&mut seen),
            }
            let due = seen.take(Instant::now());
            drop(seen);
            due.iter().for_each(Summary::tell);
        };
        std::thread::Builder::new().name("log-repeats".to_owned()).spawn(telling).map(drop)
    }

    /// Tells of all that was not told.
    pub(super) fn flush(&self) {
        let all = std::mem::take(&mut *self.seen.lock()).end();
        all.iter().for_each(Summary::tell);
    }
}

/// Where a line came from, and how it begins.
#[derive(Debug, Clone)]
struct Told {
    level: Level,
    target: &'static str,
    text: String,
}

/// How often something was said and not written.
#[derive(Debug)]
struct Summary {
    told: Told,
    count: u64,
    window: Duration,
    /// Different lines, of which this is the first.
    different: bool,
}

impl Summary {
    fn tell(&self) {
        let Self { told: Told { level, target, text }, count, window, different } = self;
        let (seconds, kind) = (window.as_secs(), if *different { "others like" } else { "more of" });
        match *level {
            Level::ERROR => {
                tracing::error!(target: TARGET, repeated = count, seconds, of = target, "{count} {kind}: {text}");
            }
            _ => {
                tracing::warn!(target: TARGET, repeated = count, seconds, of = target, "{count} {kind}: {text}")
            }
        }
    }
}

/// By place in the code.
struct Seen<P> {
    places: HashMap<P, Place>,
}

impl<P> Default for Seen<P> {
    fn default() -> Self {
        Self { places: HashMap::new() }
    }
}

struct Place {
    window: Duration,
    until: Instant,
    lines: Vec<(u64, Held)>,
    /// Those beyond [`DIFFERENT_MAX`].
    others: Option<Held>,
}

struct Held {
    told: Told,
    count: u64,
}

impl<P: Eq + Hash> Seen<P> {
    fn judge(&mut self, place: P, line: u64, now: Instant, told: impl FnOnce() -> Told) -> bool {
        let place = self.places.entry(place).or_insert_with(|| Place {
            window: WINDOW_MIN,
            until: now + WINDOW_MIN,
            lines: Vec::new(),
            others: None,
        });
        if let Some((_, held)) = place.lines.iter_mut().find(|(known, _)| *known == line) {
            held.count += 1;
            return false;
        }
        if place.lines.len() < DIFFERENT_MAX {
            place.lines.push((line, Held { told: told(), count: 0 }));
            return true;
        }
        place.others.get_or_insert_with(|| Held { told: told(), count: 0 }).count += 1;
        false
    }

    /// When the next window ends.
    fn next(&self) -> Option<Instant> {
        self.places.values().map(|place| place.until).min()
    }

    /// Ends the windows whose time has come. Where something was held back the place stays, with a longer one.
    fn take(&mut self, now: Instant) -> Vec<Summary> {
        let mut due = Vec::new();
        self.places.retain(|_, place| {
            if place.until > now {
                return true;
            }
            place.tell(&mut due);
            place.lines.retain(|(_, held)| held.count > 0);
            let goes_on = !place.lines.is_empty() || place.others.is_some();
            place.lines.iter_mut().for_each(|(_, held)| held.count = 0);
            place.others = None;
            place.window = (place.window * 2).min(WINDOW_MAX);
            place.until = now + place.window;
            goes_on
        });
        due
    }

    fn end(self) -> Vec<Summary> {
        let mut all = Vec::new();
        self.places.values().for_each(|place| place.tell(&mut all));
        all
    }
}

impl Place {
    fn tell(&self, to: &mut Vec<Summary>) {
        let same = self.lines.iter().map(|(_, held)| (held, false));
        for (held, different) in same.chain(self.others.iter().map(|held| (held, true))) {
            if held.count > 0 {
                to.push(Summary {
                    told: held.told.clone(),
                    count: held.count,
                    window: self.window,
                    different,
                });
            }
        }
    }
}

/// Takes all that a line says.
struct Line(DefaultHasher);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        (field.name(), format!("{value:?}")).hash(&mut self.0);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        (field.name(), value).hash(&mut self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> impl FnOnce() -> Told {
        let told = Told { level: Level::WARN, target: "t", text: text.to_owned() };
        move || told
    }

    #[test]
    fn what_is_said_again_is_one_line_and_a_count() {
        let (mut seen, begun) = (Seen::default(), Instant::now());
        assert!(seen.judge("place", 1, begun, told("same")));
        assert!((0..1000).all(|_| !seen.judge("place", 1, begun, told("same"))));
        assert!(seen.judge("place", 2, begun, told("else")) && seen.judge("other", 1, begun, told("same")));
        assert!(seen.take(begun).is_empty());
        let summary = seen.take(begun + WINDOW_MIN);
        assert_eq!((summary.len(), summary[0].count, summary[0].different), (1, 1000, false));
        // While it goes on it is not written again, and its windows grow.
        assert_eq!(seen.next(), Some(begun + 3 * WINDOW_MIN));
        assert!(!seen.judge("place", 1, begun + WINDOW_MIN, told("same")));
        assert_eq!(seen.take(begun + 3 * WINDOW_MIN)[0].window, 2 * WINDOW_MIN);
        // After a quiet window it is new.
        assert!(seen.take(begun + 100 * WINDOW_MIN).is_empty() && seen.next().is_none());
        assert!(seen.judge("place", 1, begun, told("same")));
    }

    #[test]
    fn a_place_that_says_many_different_things_is_bounded() {
        let (mut seen, begun) = (Seen::default(), Instant::now());
        let written = (0..100_000).filter(|line| seen.judge("place", *line, begun, told("x"))).count();
        assert_eq!((written, seen.places["place"].lines.len()), (DIFFERENT_MAX, DIFFERENT_MAX));
        let all = seen.end();
        let whole: u64 = all.iter().map(|summary| summary.count).sum();
        assert_eq!((whole, all[0].different), (100_000 - DIFFERENT_MAX as u64, true), "all are counted");
    }

    #[test]
    fn windows_do_not_grow_for_ever() {
        let (mut seen, mut now) = (Seen::default(), Instant::now());
        for _ in 0..20 {
            seen.judge("place", 1, now, told("same"));
            seen.judge("place", 1, now, told("same"));
            now = seen.next().unwrap();
            seen.take(now);
        }
        assert_eq!(seen.next(), Some(now + WINDOW_MAX));
    }
}
