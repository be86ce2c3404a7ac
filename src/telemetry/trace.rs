//! Traces: spans of work, each with a beginning, an end and what it was about, which belong together by their trace.
//!
//! Explicit values and no layer of `tracing`: a span goes with the command it is of, through queues and threads, where a thread's
//! current span would be somebody else's; and what is not traced costs an `Option` that is `None`. A span that ends goes into a queue with a
//! bound, which nobody waits for: what does not fit is dropped and counted. Who takes them from there is not known here.

mod context;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Instant, SystemTime};

use smallvec::SmallVec;
use tokio::sync::mpsc;

use super::Metrics;
use super::said::cut;
use crate::pace::Rate;

pub use context::{Carried, Context};

/// Octets of one attribute's text, and of a span's name.
const TEXT_OCTETS_MAX: usize = 256;
/// Attributes of one span.
const ATTRIBUTES_MAX: usize = 24;

/// Makes spans; of a server that is not traced, none. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Tracer(Option<Arc<Sink>>);

/// Where spans go.
struct Sink {
    queue: mpsc::Sender<Finished>,
    /// The share of traces that are recorded, of 2^53.
    share: AtomicU64,
    /// How many of them in a second; 0 for no bound. What is left of them, and since when its time is counted.
    per_second: AtomicU32,
    left: AtomicU64,
    since: Instant,
    metrics: Arc<Metrics>,
}

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sink")
    }
}

/// What a span is to its surroundings (OTLP's `SpanKind`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Internal = 1,
    /// Answers a request.
    Server = 2,
    /// Asks somebody else.
    Client = 3,
}

/// What an attribute holds.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Text(String),
    Number(i64),
    Flag(bool),
}

/// A span that has ended.
#[derive(Debug, Clone)]
pub struct Finished {
    pub context: Context,
    /// The span that it is a part of; 0 where there is none.
    pub parent: u64,
    /// What others noted of the trace.
    pub state: Option<Arc<str>>,
    pub name: String,
    pub kind: Kind,
    pub begun: SystemTime,
    pub ended: SystemTime,
    pub attributes: SmallVec<[(&'static str, Value); 8]>,
    /// Why it failed, if it did.
    pub failed: Option<String>,
}

/// Work under way. It ends when it is dropped; one that is not recorded is nothing.
#[derive(Debug, Default)]
#[must_use = "a span ends when it is dropped"]
pub struct Span(Option<Box<Recording>>);

#[derive(Debug)]
struct Recording {
    sink: Arc<Sink>,
    since: Instant,
    span: Finished,
}

/// What other spans can be parts of: a span, without its end.
#[derive(Debug, Clone, Default)]
pub struct Parent(Option<(Arc<Sink>, Carried)>);

/// Of the traces that begin here: which share of them is recorded, 0 none and 1 all, and how many in a second at most (0: all).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    pub ratio: f64,
    pub per_second: u32,
}

impl Tracer {
    /// One whose spans come out at the other end, as many as fit.
    pub fn new(
        spans_max: usize,
        sampling: Sampling,
        metrics: Arc<Metrics>,
    ) -> (Self, mpsc::Receiver<Finished>) {
        let (queue, spans) = mpsc::channel(spans_max.max(1));
        let (share, per_second, left) = (AtomicU64::new(0), AtomicU32::new(0), AtomicU64::new(0));
        let since = Instant::now();
        let tracer = Self(Some(Arc::new(Sink { queue, share, per_second, left, since, metrics })));
        tracer.set_sampling(sampling);
        (tracer, spans)
    }

    /// From now on.
    pub fn set_sampling(&self, sampling: Sampling) {
        if let Some(sink) = &self.0 {
            let share = (sampling.ratio.clamp(0.0, 1.0) * (1u64 << 53) as f64) as u64;
            sink.share.store(share, Ordering::Relaxed);
            sink.per_second.store(sampling.per_second, Ordering::Relaxed);
        }
    }

    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// The first span of ours: in a trace of its own, or in the caller's, which has decided whether it is recorded.
    pub fn start(&self, name: impl Into<String>, kind: Kind, caller: Option<Carried>) -> Span {
        let Some(sink) = &self.0 else { return Span(None) };
        let (trace, parent, state) = match caller {
            Some(caller) if !caller.context.sampled => return Span(None),
            Some(Carried { context, state }) => (context.trace, context.span, state),
            None => {
                let trace = rand::random::<u128>() | 1;
                // The ratio looks at the trace, so that all who do so decide alike.
                if (trace as u64) >> 11 >= sink.share.load(Ordering::Relaxed) || !sink.has_room() {
                    return Span(None);
                }
                (trace, 0, None)
            }
        };
        Span::begin(sink.clone(), (trace, parent, state), name.into(), kind)
    }
}

impl Sink {
    /// Whether one more trace may begin in this second.
    fn has_room(&self) -> bool {
        let Some(rate) = Rate::per_second(self.per_second.load(Ordering::Relaxed)) else { return true };
        let now = u64::try_from(self.since.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let taken = rate.take(&self.left, now);
        taken.inspect_err(|_| self.metrics.limits.hit("traces_per_second_max")).is_ok()
    }
}

impl Span {
    /// In a trace, as a part of a span of it.
    fn begin(
        sink: Arc<Sink>,
        (trace, parent, state): (u128, u64, Option<Arc<str>>),
        name: String,
        kind: Kind,
    ) -> Self {
        let context = Context { trace, span: rand::random::<u64>() | 1, sampled: true };
        let (since, begun) = (Instant::now(), SystemTime::now());
        let span = Finished {
            context,
            parent,
            state,
            name,
            kind,
            begun,
            ended: begun,
            attributes: SmallVec::new(),
            failed: None,
        };
        Self(Some(Box::new(Recording { sink, since, span })))
    }

    /// A part of this work.
    pub fn child(&self, name: &'static str, kind: Kind) -> Self {
        let Some(Recording { sink, span, .. }) = self.0.as_deref() else { return Self(None) };
        let within = (span.context.trace, span.context.span, span.state.clone());
        Self::begin(sink.clone(), within, name.to_owned(), kind)
    }

    pub fn parent(&self) -> Parent {
        Parent(self.0.as_ref().and_then(|own| Some((own.sink.clone(), self.carried()?))))
    }

    /// What is told to those who are asked for this work.
    pub fn carried(&self) -> Option<Carried> {
        self.0.as_ref().map(|own| Carried { context: own.span.context, state: own.span.state.clone() })
    }

    pub fn is_recorded(&self) -> bool {
        self.0.is_some()
    }

    /// Notes what the work is about; the value is made only if somebody wants it.
    pub fn note(&mut self, name: &'static str, value: impl FnOnce() -> Value) {
        if let Some(own) = &mut self.0
            && own.span.attributes.len() < ATTRIBUTES_MAX
        {
            own.span.attributes.push((name, value().cut()));
        }
    }

    pub fn rename(&mut self, name: impl FnOnce() -> String) {
        if let Some(own) = &mut self.0 {
            own.span.name = cut(&name(), TEXT_OCTETS_MAX).to_owned();
        }
    }

    /// Notes that the work failed.
    pub fn fail(&mut self, why: impl FnOnce() -> String) {
        if let Some(own) = &mut self.0 {
            own.span.failed = Some(cut(&why(), TEXT_OCTETS_MAX).to_owned());
        }
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        let Some(own) = self.0.take() else { return };
        let Recording { sink, since, mut span } = *own;
        // The machine's clock may have been set meanwhile.
        span.ended = span.begun + since.elapsed();
        if sink.queue.try_send(span).is_err() {
            sink.metrics.traces.counted("queue full", 1);
        }
    }
}

impl Parent {
    /// A part of that work.
    pub fn child(&self, name: &'static str, kind: Kind) -> Span {
        let Some((sink, Carried { context, state })) = &self.0 else { return Span(None) };
        Span::begin(sink.clone(), (context.trace, context.span, state.clone()), name.to_owned(), kind)
    }

    pub fn context(&self) -> Option<Context> {
        self.0.as_ref().map(|(_, carried)| carried.context)
    }
}

impl Value {
    fn cut(self) -> Self {
        match self {
            Self::Text(text) if text.len() > TEXT_OCTETS_MAX => {
                Self::Text(cut(&text, TEXT_OCTETS_MAX).to_owned())
            }
            value => value,
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tracer(spans_max: usize, ratio: f64) -> (Tracer, mpsc::Receiver<Finished>, Arc<Metrics>) {
        let metrics = Arc::new(Metrics::default());
        let sampling = Sampling { ratio, per_second: 0 };
        let (tracer, spans) = Tracer::new(spans_max, sampling, metrics.clone());
        (tracer, spans, metrics)
    }

    #[test]
    fn parts_are_in_the_trace_of_the_whole_and_end_before_it() {
        let (tracer, mut spans, _) = tracer(9, 1.0);
        let mut whole = tracer.start("whole", Kind::Server, None);
        whole.note("long", || "x".repeat(1 << 20).into());
        let parent = whole.parent();
        let part = parent.child("part", Kind::Internal);
        drop(part.child("inner", Kind::Client));
        drop(part);
        whole.fail(|| "broke".to_owned());
        drop(whole);
        let all: Vec<_> = std::iter::from_fn(|| spans.try_recv().ok()).collect();
        let [inner, part, whole] = &all[..] else { panic!("{all:?}") };
        assert_eq!((inner.parent, part.parent), (part.context.span, whole.context.span));
        assert!(all.iter().all(|span| span.context.trace == whole.context.trace && span.ended >= span.begun));
        assert_eq!((whole.parent, whole.failed.as_deref()), (0, Some("broke")));
        assert!(matches!(&whole.attributes[0], ("long", Value::Text(text)) if text.len() == TEXT_OCTETS_MAX));
    }

    #[test]
    fn who_calls_has_decided_and_else_the_ratio_does() {
        let (tracer, mut spans, _) = tracer(20_000, 0.0);
        let context = |sampled| Context { trace: 7, span: 8, sampled };
        let caller = |sampled| Some(Carried { context: context(sampled), state: Some("a=1".into()) });
        assert!(!tracer.start("x", Kind::Server, None).is_recorded());
        assert!(!tracer.start("x", Kind::Server, caller(false)).is_recorded());
        drop(tracer.start("x", Kind::Server, caller(true)));
        let span = spans.try_recv().unwrap();
        assert_eq!((span.context.trace, span.parent, span.state.as_deref()), (7, 8, Some("a=1")));
        for (ratio, least, most) in [(0.25, 2_100, 2_900), (1.0, 10_000, 10_000)] {
            tracer.set_sampling(Sampling { ratio, per_second: 0 });
            let count = (0..10_000).filter(|_| tracer.start("x", Kind::Client, None).is_recorded()).count();
            assert!((least..=most).contains(&count), "{ratio}: {count}");
        }
        assert!(!Tracer::default().start("x", Kind::Server, caller(true)).is_recorded(), "off");
    }

    #[test]
    fn what_others_noted_of_a_trace_goes_along_with_its_parts() {
        let (tracer, mut spans, _) = tracer(9, 1.0);
        let context = Context { trace: 7, span: 8, sampled: true };
        let whole = tracer.start("whole", Kind::Server, Some(Carried { context, state: Some("a=1".into()) }));
        let part = whole.parent().child("part", Kind::Internal);
        let told = part.child("inner", Kind::Client).carried().unwrap();
        assert_eq!((told.context.trace, told.state.as_deref()), (7, Some("a=1")));
        drop((part, whole));
        assert!((0..3).all(|_| spans.try_recv().unwrap().state.as_deref() == Some("a=1")));
        assert_eq!(tracer.start("own", Kind::Server, None).carried().unwrap().state, None);
    }

    #[test]
    fn so_many_traces_begin_in_a_second_and_callers_are_not_asked() {
        let (tracer, _spans, metrics) = tracer(9, 1.0);
        tracer.set_sampling(Sampling { ratio: 1.0, per_second: 3 });
        let (begun, most) = (Instant::now(), 10_000);
        let count = (0..most).filter(|_| tracer.start("x", Kind::Client, None).is_recorded()).count();
        assert!((3..=4 + 3 * begun.elapsed().as_secs() as usize + 3).contains(&count), "{count}");
        let text = metrics.encode_text();
        let hits = format!("rollcall_limit_hits_total{{limit=\"traces_per_second_max\"}} {}\n", most - count);
        assert!(text.contains(&hits), "{text}");
        let caller = Carried { context: Context { trace: 7, span: 8, sampled: true }, state: None };
        assert!((0..100).all(|_| tracer.start("x", Kind::Server, Some(caller.clone())).is_recorded()));
    }

    #[test]
    fn what_does_not_fit_is_counted_and_nobody_waits() {
        let (tracer, mut spans, metrics) = tracer(3, 1.0);
        for _ in 0..100 {
            drop(tracer.start("x", Kind::Internal, None));
        }
        assert_eq!(std::iter::from_fn(|| spans.try_recv().ok()).count(), 3);
        let text = metrics.encode_text();
        assert!(text.contains("rollcall_traces_spans_total{outcome=\"queue full\"} 97\n"), "{text}");
    }
}
