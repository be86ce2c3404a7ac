//! `rollcall services`, `instances` and `watch`: tables for people, JSON for programs.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use anyhow::bail;
use clap::Args;
use serde_json::{Value, json};

use super::api::{self, Server};
use super::{block_on, say};

/// Flags of `services`.
#[derive(Args)]
pub(super) struct ServicesArguments {
    /// JSON instead of a table
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

/// Flags of `instances` and `watch`.
#[derive(Args)]
pub(super) struct InstancesArguments {
    /// The service's name
    name: String,
    /// JSON instead of a table
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

/// How long a watch waits before it asks again.
const WAIT: Duration = Duration::from_secs(300);
/// The pause after a server that was there did not answer.
const AGAIN: Duration = Duration::from_secs(1);

/// Services with their instances by health.
pub(super) fn services(arguments: &ServicesArguments) -> anyhow::Result<()> {
    block_on(list_services(arguments))
}

async fn list_services(arguments: &ServicesArguments) -> anyhow::Result<()> {
    let (_, services) = arguments.server.get("/v1/catalog/services", Duration::ZERO).await?;
    let (_, checks) = arguments.server.get("/v1/health/state/any", Duration::ZERO).await?;
    let worst = worst_by_instance(&checks);
    let names: Vec<&String> = services.as_object().map(|map| map.keys().collect()).unwrap_or_default();
    let mut rows =
        vec![["SERVICE", "INSTANCES", "PASSING", "WARNING", "CRITICAL", "TAGS"].map(str::to_owned).to_vec()];
    let mut all = BTreeMap::new();
    for name in names {
        let path = format!("/v1/catalog/service/{}", api::part(name));
        let (_, instances) = arguments.server.get(&path, Duration::ZERO).await?;
        let mut counts = [0; STATUSES.len()];
        for instance in list(&instances) {
            let node = instance["Node"].as_str().unwrap_or_default();
            let of = |id: &str| worst.get(&(node, id)).copied().unwrap_or(0);
            // Its own checks and its node's.
            counts[of(instance["ServiceID"].as_str().unwrap_or_default()).max(of(""))] += 1;
        }
        let [passing, warning, critical] = counts;
        let tags: Vec<&str> = list(&services[name]).iter().filter_map(Value::as_str).collect();
        rows.push(vec![
            printable(name),
            list(&instances).len().to_string(),
            passing.to_string(),
            warning.to_string(),
            critical.to_string(),
            printable(&tags.join(",")),
        ]);
        all.insert(
            name.clone(),
            json!({ "passing": passing, "warning": warning, "critical": critical, "tags": tags }),
        );
    }
    if arguments.json {
        return say(format_args!("{}", serde_json::to_string_pretty(&all)?));
    }
    table(&rows)
}

/// From best to worst.
const STATUSES: [&str; 3] = ["passing", "warning", "critical"];

/// The worst status (its place in [`STATUSES`]) of each instance's own checks, by node and id; of a node's own, under an
/// empty id.
fn worst_by_instance(checks: &Value) -> HashMap<(&str, &str), usize> {
    let mut worst = HashMap::new();
    for check in list(checks) {
        let [node, id, status] =
            ["Node", "ServiceID", "Status"].map(|key| check[key].as_str().unwrap_or_default());
        let rank = STATUSES.iter().position(|known| *known == status).unwrap_or(STATUSES.len() - 1);
        let entry = worst.entry((node, id)).or_insert(0);
        *entry = rank.max(*entry);
    }
    worst
}

/// The instances of a service, and why one is not healthy.
pub(super) fn instances(arguments: &InstancesArguments) -> anyhow::Result<()> {
    let path = format!("/v1/health/service/{}", api::part(&arguments.name));
    let (_, instances) = block_on(arguments.server.get(&path, Duration::ZERO))?;
    if list(&instances).is_empty() && !arguments.json {
        bail!("no service {:?}; see `rollcall services`", arguments.name);
    }
    show(&instances, arguments.json)
}

/// The same, again at every change, until it is interrupted.
pub(super) fn watch(arguments: &InstancesArguments) -> anyhow::Result<()> {
    let path = format!("/v1/health/service/{}", api::part(&arguments.name));
    let mut index = 0u64;
    let mut shown = Value::Null;
    loop {
        let asked = format!("{path}?index={index}&wait={}s", WAIT.as_secs());
        let (headers, instances) = match block_on(arguments.server.get(&asked, WAIT * 2)) {
            Ok(answer) => answer,
            // A server that was there comes back.
            Err(error) if !shown.is_null() => {
                say(format_args!("{error:#}; trying again"))?;
                std::thread::sleep(AGAIN);
                index = 0;
                continue;
            }
            Err(error) => return Err(error),
        };
        let next = headers.get("x-consul-index").and_then(|v| v.to_str().ok()?.parse().ok()).unwrap_or(0);
        // An index that went backwards is another server's: begin again.
        index = if next < index { 0 } else { next };
        if instances != shown {
            if !arguments.json {
                let count = list(&instances).len();
                let plural = if count == 1 { "" } else { "s" };
                say(format_args!("{}: {count} instance{plural}, index {next}", arguments.name))?;
            }
            show(&instances, arguments.json)?;
            shown = instances;
        }
    }
}

fn show(instances: &Value, as_json: bool) -> anyhow::Result<()> {
    if as_json {
        return say(format_args!("{}", serde_json::to_string_pretty(instances)?));
    }
    let mut rows =
        vec![["ID", "NODE", "ADDRESS", "PORT", "STATUS", "TAGS", "WHY"].map(str::to_owned).to_vec()];
    for entry in list(instances) {
        let (service, node) = (&entry["Service"], &entry["Node"]);
        let own = service["Address"].as_str().filter(|address| !address.is_empty());
        let tags: Vec<&str> = list(&service["Tags"]).iter().filter_map(Value::as_str).collect();
        let failing = list(&entry["Checks"]).iter().filter(|check| check["Status"] != "passing");
        let worst = failing.max_by_key(|check| check["Status"] == "critical");
        // Maintenance has its reason in the notes.
        let said =
            |check: &'_ Value| ["Output", "Notes", "Name"].map(|key| text(&check[key]).trim().to_owned());
        let why = worst.and_then(|check| said(check).into_iter().find(|text| !text.is_empty()));
        rows.push(vec![
            text(&service["ID"]),
            text(&node["Node"]),
            own.map_or_else(|| text(&node["Address"]), str::to_owned),
            service["Port"].to_string(),
            worst.map_or_else(|| "passing".to_owned(), |check| text(&check["Status"])),
            printable(&tags.join(",")),
            why.unwrap_or_default(),
        ]);
    }
    table(&rows)
}

fn text(value: &Value) -> String {
    printable(value.as_str().unwrap_or(""))
}

/// What a service sends must not steer a terminal.
pub(super) fn printable(text: &str) -> String {
    let steers = |c: char| {
        // Directions, joiners and line separators, which are no control characters to Unicode.
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    text.chars().map(|c| if steers(c) { '?' } else { c }).take(200).collect()
}

pub(super) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Columns as wide as they need to be.
pub(super) fn table(rows: &[Vec<String>]) -> anyhow::Result<()> {
    let columns = rows.first().map_or(0, Vec::len);
    let widths: Vec<usize> = (0..columns)
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        say(format_args!("{}", cells.collect::<Vec<_>>().join("  ").trim_end()))?;
    }
    Ok(())
}
