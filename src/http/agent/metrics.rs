//! `/v1/agent/metrics`: the server's metrics in the form of Consul's agents, made from the text that `/metrics` gives.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State as Extract;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use serde_json::{Map, Value, json};

use crate::http::State;
use crate::http::door::admission::Admitted;
use crate::http::ops;
use crate::http::query::Params;
use crate::http::route::{self, get};
use crate::telemetry::utc;

/// How often a stream of metrics has a new one; as long as Consul gathers them.
const EVERY: Duration = Duration::from_secs(10);

pub(super) fn routes() -> Router<Arc<State>> {
    Router::new()
        .route("/v1/agent/metrics", get(metrics))
        .route("/v1/agent/metrics/stream", get(metrics_stream))
}

async fn metrics(Extract(state): Extract<Arc<State>>, params: Params, headers: HeaderMap) -> Response {
    let accepts = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or("");
    if params.get("format") == Some("prometheus") || accepts.contains("application/openmetrics-text") {
        return ops::exposition(&state, &headers);
    }
    route::json(&now(&state))
}

/// One JSON object a line.
async fn metrics_stream(Extract(state): Extract<Arc<State>>, access: Admitted, _: Params) -> Response {
    let lapses = access.lapses(state.clone(), "/v1/agent/metrics/stream");
    let objects = stream::unfold((state, true), |(state, first)| async move {
        if !first {
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                () = state.shutdown.cancelled() => return None,
            }
        }
        let line = format!("{}\n", now(&state));
        Some((Ok::<_, Infallible>(Bytes::from(line)), (state, false)))
    });
    ([(header::CONTENT_TYPE, "application/json")], Body::from_stream(objects.take_until(Box::pin(lapses))))
        .into_response()
}

fn now(state: &State) -> Value {
    ops::measure(state);
    summary(&state.metrics.encode_text(), &utc::spaced(SystemTime::now()))
}

/// What a series came to.
#[derive(Default)]
struct Distribution {
    count: f64,
    sum: f64,
}

/// Metrics in Prometheus' text form 0.0.4 as Consul's agents show theirs. Counters and samples are totals since the start.
fn summary(text: &str, timestamp: &str) -> Value {
    let mut kinds: BTreeMap<&str, &str> = BTreeMap::new();
    let (mut gauges, mut counters) = (Vec::new(), Vec::new());
    let mut samples: BTreeMap<(String, &str), Distribution> = BTreeMap::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            kinds.extend(rest.split_once(' '));
            continue;
        }
        let Some((series, value)) = line.rsplit_once(' ') else { continue };
        let Ok(value) = value.parse::<f64>() else { continue };
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let labels = labels.strip_suffix('}').unwrap_or(labels);
        match kinds.get(name) {
            Some(&"gauge") => gauges.push(json!({
                "Name": dotted(name), "Value": value, "Labels": pairs(labels),
            })),
            Some(&"counter") => counters.push(json!({
                "Name": dotted(name.strip_suffix("_total").unwrap_or(name)), "Count": whole(value), "Rate": 0,
                "Sum": value, "Min": 0, "Max": 0, "Mean": 0, "Stddev": 0, "Labels": pairs(labels),
            })),
            _ => {
                let of = |suffix| name.strip_suffix(suffix).map(|name| (dotted(name), labels));
                if let Some(key) = of("_sum") {
                    samples.entry(key).or_default().sum = value;
                } else if let Some(key) = of("_count") {
                    samples.entry(key).or_default().count = value;
                }
            }
        }
    }
    // What nothing was seen of is not there, as with Consul.
    let seen = samples.into_iter().filter(|(_, of)| of.count > 0.0);
    let samples: Vec<Value> = seen.map(|((name, labels), of)| sample(&name, labels, &of)).collect();
    json!({ "Timestamp": timestamp, "Gauges": gauges, "Points": [], "Counters": counters, "Samples": samples })
}

fn sample(name: &str, labels: &str, Distribution { count, sum }: &Distribution) -> Value {
    let mean = if *count > 0.0 { sum / count } else { 0.0 };
    json!({
        "Name": name, "Count": whole(*count), "Rate": 0, "Sum": sum, "Min": 0, "Max": 0, "Mean": mean, "Stddev": 0,
        "Labels": pairs(labels),
    })
}

/// Clients read a count as an integer and refuse `3.0`.
fn whole(count: f64) -> u64 {
    count as u64
}

/// `rollcall_dns_answers` is `rollcall.dns.answers`: the parts before a metric's own name are divided by dots.
fn dotted(name: &str) -> String {
    name.replacen('_', ".", 2)
}

/// Our labels' values come from fixed sets, without quotes and commas in them.
fn pairs(labels: &str) -> Map<String, Value> {
    let pairs = labels.split(',').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.trim_matches('"').into())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Metrics;
    use crate::telemetry::metrics::Answer;

    #[test]
    fn gauges_counters_and_histograms_have_consuls_shapes() {
        let metrics = Metrics::default();
        metrics.registry.instances.set(7);
        let answer = Answer { r#type: "A", rcode: "NOERROR", transport: "udp", path: "fast" };
        metrics.dns.answered(answer, 3);
        metrics.http.answered("/v1/agent", 200, Duration::from_millis(500));
        metrics.http.answered("/v1/agent", 200, Duration::from_millis(250));
        let shown = summary(&metrics.encode_text(), "now");
        let find = |list: &str, name: &str| {
            let found = shown[list].as_array().unwrap().iter().find(|one| one["Name"] == name);
            found.unwrap_or_else(|| panic!("{name} in {list}: {shown}")).clone()
        };
        assert_eq!((&shown["Timestamp"], &shown["Points"]), (&json!("now"), &json!([])));
        let gauge = json!({ "Name": "rollcall.registry.instances", "Value": 7.0, "Labels": {} });
        assert_eq!(find("Gauges", "rollcall.registry.instances"), gauge);
        let counter = find("Counters", "rollcall.dns.answers");
        let labels = json!({ "type": "A", "rcode": "NOERROR", "transport": "udp", "path": "fast" });
        assert_eq!((&counter["Count"], &counter["Labels"]), (&json!(3), &labels));
        let sample = find("Samples", "rollcall.http.request_duration_seconds");
        assert_eq!(
            [&sample["Count"], &sample["Sum"], &sample["Mean"]],
            [&json!(2), &json!(0.75), &json!(0.375)]
        );
    }
}
