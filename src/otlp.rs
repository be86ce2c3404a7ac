//! Traces go to a collector: OTLP over HTTP or gRPC, to whatever speaks it (OpenTelemetry's collector, Jaeger, Tempo).
//!
//! One task takes spans from the queue that [`Tracer`] fills, sends them together, and tries again where that may help. Nobody
//! waits for it: while the collector is away the queue fills, and what does not fit is dropped and counted there. Its own messages and
//! connection instead of OpenTelemetry's SDK: that one brings an exporter, a runtime and second versions of half of what is here, for
//! eight messages and one request.

mod connection;
mod message;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message;
use tokio::sync::mpsc;
use tokio::time::{sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::model::Secret;
use crate::pace::{Breaker, Retries};
use crate::telemetry::Metrics;
use crate::telemetry::trace::{Finished, Sampling, Tracer};
use crate::tls::{Clients, TlsError};

use connection::{Collector, Failed};

/// Where traces go.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// `http://host:4318` or `https://...`; nothing is traced where it is absent.
    pub endpoint: Option<Url>,
    pub protocol: Protocol,
    pub sampling: Sampling,
    /// Sent with each request, for collectors that want to know who sends.
    pub headers: Vec<(String, Secret)>,
    /// Spans that wait to be sent.
    pub spans_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        let sampling = Sampling { ratio: 0.0, per_second: 0 };
        Self { endpoint: None, protocol: Protocol::Http, sampling, headers: Vec::new(), spans_max: 0 }
    }
}

/// How OTLP is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Http,
    Grpc,
}

impl Protocol {
    /// Reads `http/protobuf` or `grpc`, as OpenTelemetry names them.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "http/protobuf" => Ok(Self::Http),
            "grpc" => Ok(Self::Grpc),
            _ => Err(format!("{text:?} is not \"http/protobuf\" or \"grpc\"")),
        }
    }
}

/// Reads an endpoint.
pub fn endpoint(text: &str) -> Result<Url, String> {
    let wrong = || format!("{text:?} is no endpoint such as \"http://127.0.0.1:4318\"");
    let url = Url::parse(text).map_err(|_| wrong())?;
    let plain = url.username().is_empty() && url.password().is_none() && url.query().is_none();
    let fits = matches!(url.scheme(), "http" | "https") && url.host().is_some() && plain;
    if fits { Ok(url) } else { Err(wrong()) }
}

/// Spans of one request.
const TOGETHER_MAX: usize = 512;
/// How long the first of them waits for others.
const TOGETHER_WITHIN: Duration = Duration::from_millis(200);
/// How long one request may take.
const REQUEST_WITHIN: Duration = Duration::from_secs(10);
/// How often one request is tried.
const RETRIES: Retries =
    Retries { tries: 4, pause: Duration::from_millis(500), pause_max: Duration::from_secs(30) };
/// After so many tries in a row that came to nothing, one in this time.
const FAILURES_MAX: u32 = 4;
const PAUSE: Duration = Duration::from_secs(10);
/// Whom it calls, in metrics.
const TO: &str = "collector";
/// What is left for spans at a stop.
const STOP_WITHIN: Duration = Duration::from_secs(1);

/// Takes spans to the collector.
pub struct Exporter {
    spans: mpsc::Receiver<Finished>,
    collector: Collector,
    node: String,
    metrics: Arc<Metrics>,
    breaker: Breaker,
    failing: bool,
}

/// A tracer, and what takes its spans away; neither does anything where no endpoint is configured.
pub fn start(
    config: &Config,
    node: &str,
    metrics: &Arc<Metrics>,
) -> Result<(Tracer, Option<Exporter>), TlsError> {
    let Some(endpoint) = &config.endpoint else { return Ok((Tracer::default(), None)) };
    let tls = (endpoint.scheme() == "https").then(Clients::new).transpose()?;
    let (tracer, spans) = Tracer::new(config.spans_max, config.sampling, metrics.clone());
    let collector = Collector::new(endpoint.clone(), config.protocol, config.headers.clone(), tls);
    let (node, metrics) = (node.to_owned(), metrics.clone());
    let breaker = Breaker::new(FAILURES_MAX, PAUSE);
    Ok((tracer, Some(Exporter { spans, collector, node, metrics, breaker, failing: false })))
}

impl Exporter {
    /// Sends until the shutdown, and then for a moment what is left.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut together = Vec::with_capacity(TOGETHER_MAX);
        while !shutdown.is_cancelled() {
            tokio::select! {
                () = shutdown.cancelled() => break,
                taken = self.spans.recv_many(&mut together, TOGETHER_MAX) => if taken == 0 { return },
            }
            let until = tokio::time::Instant::now() + TOGETHER_WITHIN;
            while together.len() < TOGETHER_MAX && !shutdown.is_cancelled() {
                let room = TOGETHER_MAX - together.len();
                tokio::select! {
                    taken = self.spans.recv_many(&mut together, room) => if taken == 0 { break },
                    () = sleep_until(until) => break,
                    () = shutdown.cancelled() => break,
                }
            }
            tokio::select! {
                () = self.deliver(&together) => together.clear(),
                // What was under way is tried once more below.
                () = shutdown.cancelled() => {}
            }
        }
        self.spans.close();
        // At the end it is asked once more, whatever it did before.
        self.breaker = Breaker::new(FAILURES_MAX, PAUSE);
        let last = async {
            loop {
                while together.len() < TOGETHER_MAX
                    && let Ok(span) = self.spans.try_recv()
                {
                    together.push(span);
                }
                if together.is_empty() {
                    return;
                }
                self.deliver(&together).await;
                together.clear();
            }
        };
        let _ = timeout(STOP_WITHIN, last).await;
    }

    /// Sends some spans, again where that may help; then they are gone, one way or the other.
    async fn deliver(&mut self, spans: &[Finished]) {
        let body = Bytes::from(message::request(spans, &self.node).encode_to_vec());
        for tried in 1.. {
            if let Err(wait) = self.breaker.try_call(Instant::now()) {
                self.metrics.outbound.withheld(TO);
                // Meanwhile the queue fills, and what does not fit is counted there.
                sleep(wait).await;
                let _ = self.breaker.try_call(Instant::now());
            }
            let sent = timeout(REQUEST_WITHIN, self.collector.send(body.clone())).await;
            let sent = sent.unwrap_or_else(|_| {
                self.collector.give_up();
                Err(Failed { why: format!("no answer within {REQUEST_WITHIN:?}"), again: true })
            });
            // A collector that says what is wrong with a request is there.
            self.breaker.note(sent.as_ref().err().is_none_or(|failed| !failed.again), Instant::now());
            self.metrics.outbound.opened(TO, self.breaker.is_open());
            match sent {
                Ok(rejected) => {
                    let rejected = u64::try_from(rejected).unwrap_or(0).min(spans.len() as u64);
                    self.metrics.traces.counted("exported", spans.len() as u64 - rejected);
                    self.metrics.traces.counted("rejected", rejected);
                    return self.note(None);
                }
                Err(failed) => {
                    self.note(Some(&failed.why));
                    let pause = RETRIES.pause(tried, rand::random()).filter(|_| failed.again);
                    let Some(pause) = pause else { break };
                    sleep(pause).await;
                    self.metrics.outbound.retried(TO);
                }
            }
        }
        self.metrics.traces.counted("not exported", spans.len() as u64);
    }

    /// Says once that spans do not arrive, and once that they do again.
    fn note(&mut self, why: Option<&str>) {
        if std::mem::replace(&mut self.failing, why.is_some()) == why.is_some() {
            return;
        }
        let endpoint = self.collector.endpoint();
        match why {
            Some(why) => {
                tracing::warn!("traces do not reach {endpoint}, and are dropped when too many wait: {why}");
            }
            None => tracing::info!("traces reach {endpoint} again"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_scheme_and_a_host() {
        for good in ["http://127.0.0.1:4318", "https://collector.example/otlp", "http://[::1]:4317"] {
            assert!(endpoint(good).is_ok(), "{good}");
        }
        for bad in ["", "127.0.0.1:4318", "grpc://h", "http://", "http://u:p@h", "http://h/?x"] {
            assert!(endpoint(bad).is_err(), "{bad}");
        }
    }
}
