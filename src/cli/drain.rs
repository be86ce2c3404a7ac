//! `rollcall drain`: takes an instance out of answers, and says when it is safe to stop it.

use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use http_body_util::BodyExt;
use hyper::Method;
use serde_json::Value;

use super::api::{Server, part};
use super::show::{list, printable};
use super::{block_on, say};

/// The longest that a server waits.
const WAIT_MAX: Duration = Duration::from_secs(86_400);

/// Flags of `drain`.
#[derive(Args)]
pub(super) struct Arguments {
    /// The instance's id (not the service's name, unless they are the same)
    id: String,
    /// The machine it is on [default: this one, else the only one that has the id]
    #[arg(long)]
    node: Option<String>,
    /// Return when it is safe to stop the instance
    #[arg(long)]
    wait: bool,
    /// Why, for those who look
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Put it back into answers
    #[arg(long, conflicts_with_all = ["wait", "reason"])]
    undo: bool,
    /// JSON instead of text
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

/// Drains, or ends it.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let Arguments { id, node, server, .. } = arguments;
    if arguments.undo {
        let path = path(id, node.as_deref(), &[]);
        let ended = block_on(read(server, Method::DELETE, &path, Duration::ZERO))?;
        return if arguments.json { say(format_args!("{ended:#}")) } else { show_end(&ended) };
    }
    let reason = arguments.reason.as_ref().map(|reason| format!("reason={}", part(reason)));
    let drained = drain(server, id, node.as_deref(), reason, arguments.wait)?;
    match arguments.json {
        true => say(format_args!("{drained:#}"))?,
        false => {
            show(&drained)?;
            let reason = text(&drained["Reason"]);
            if reason != arguments.reason.as_deref().filter(|text| !text.is_empty()).unwrap_or("draining") {
                say(format_args!("it was in maintenance already, and that reason stays: {reason}"))?;
            }
        }
    }
    safe(&drained, arguments.wait)
}

/// Deregisters an instance, and waits until it is safe to stop it.
pub(super) fn deregister(server: &Server, id: &str, node: Option<&str>) -> anyhow::Result<()> {
    let drained = drain(server, id, node, Some("deregister".to_owned()), true)?;
    show(&drained)?;
    safe(&drained, true)
}

fn path(id: &str, node: Option<&str>, more: &[String]) -> String {
    let node = node.map(|node| format!("node={}", part(node)));
    let query: Vec<String> = node.into_iter().chain(more.iter().cloned()).collect();
    let joint = if query.is_empty() { "" } else { "?" };
    format!("/v1/rollcall/drain/{}{joint}{}", part(id), query.join("&"))
}

fn drain(
    server: &Server,
    id: &str,
    node: Option<&str>,
    more: Option<String>,
    waits: bool,
) -> anyhow::Result<Value> {
    let wait = waits.then(|| format!("wait={}s", WAIT_MAX.as_secs()));
    let more: Vec<String> = more.into_iter().chain(wait).collect();
    let longest = if waits { WAIT_MAX } else { Duration::ZERO };
    block_on(read(server, Method::PUT, &path(id, node, &more), longest))
}

async fn read(server: &Server, method: Method, path: &str, longest: Duration) -> anyhow::Result<Value> {
    let answer = server.send(method, path, Vec::new(), longest).await?;
    let body = answer.into_body().collect().await.context("reading the answer")?.to_bytes();
    serde_json::from_slice(&body).context("the answer is not JSON; is this a rollcall server?")
}

/// Whoever waited has waited for this.
fn safe(drained: &Value, waited: bool) -> anyhow::Result<()> {
    if waited && !drained["Safe"].as_bool().unwrap_or(false) {
        bail!("the server ended before it was safe to stop {}: run it again", text(&drained["ID"]));
    }
    Ok(())
}

fn text(value: &Value) -> String {
    printable(value.as_str().unwrap_or(""))
}

fn show_end(ended: &Value) -> anyhow::Result<()> {
    let of = format!("{} on {}", text(&ended["ID"]), text(&ended["Node"]));
    match ended["Ended"].as_str() {
        Some(reason) => say(format_args!("{of}: ended its maintenance ({})", printable(reason)))?,
        None => say(format_args!("{of} was not drained"))?,
    }
    match ended["NodeReason"].as_str() {
        Some(reason) => {
            say(format_args!("it is still out: its node is in maintenance ({})", printable(reason)))
        }
        None => Ok(()),
    }
}

fn show(drained: &Value) -> anyhow::Result<()> {
    let [id, node, service, ttl] = ["ID", "Node", "Service", "TTL"].map(|key| text(&drained[key]));
    let how = if drained["Deregistered"].as_bool().unwrap_or(false) { "deregistered" } else { "drained" };
    say(format_args!("{id} on {node} (service {service}): {how} with index {}", drained["Index"]))?;
    match drained["LeftAt"].as_str() {
        Some(_) => {
            let left = text(&drained["LeftAt"]);
            say(format_args!(
                "DNS: all {} threads and all answers from before have left it, {left}",
                drained["Threads"]
            ))?;
            let safe = text(&drained["SafeAt"]);
            say(format_args!("caches: no answer with it lives longer than {ttl}, until {safe}"))?;
            match drained["Safe"].as_bool() {
                Some(true) => say(format_args!("it is safe to stop it"))?,
                _ => say(format_args!("it is safe to stop it in {}", text(&drained["Remaining"])))?,
            }
        }
        None => say(format_args!(
            "DNS: {} of {} threads and {} answers may still be from before; it is not safe to stop it yet (--wait)",
            drained["ThreadsBehind"], drained["Threads"], drained["AnswersUnderWay"]
        ))?,
    }
    for one in list(&drained["NotProved"]) {
        say(format_args!("not proved: {}", text(one)))?;
    }
    Ok(())
}
