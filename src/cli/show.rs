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

/// What is counted of a service: the column, the key in JSON, and that of the API.
const COUNTS: [(&str, &str, &str); 6] = [
    ("PASSING", "passing", "Passing"),
    ("WARNING", "warning", "Warning"),
    ("CRITICAL", "critical", "Critical"),
    ("MAINTENANCE", "maintenance", "Maintenance"),
    // Of whatever health: these are out of DNS, too.
    ("CIRCUIT OPEN", "circuit_open", "Out"),
    // These are critical, and in DNS all the same.
    ("GUARDED", "guarded", "Guarded"),
];

async fn list_services(arguments: &ServicesArguments) -> anyhow::Result<()> {
    let (_, services) = arguments.server.get("/v1/rollcall/services", Duration::ZERO).await?;
    if arguments.json {
        let all: BTreeMap<&str, Value> = list(&services)
            .iter()
            .map(|row| {
                let mut told = json!({ "tags": row["Tags"] });
                for (_, key, of) in COUNTS {
                    told[key] = row[of].clone();
                }
                (row["Name"].as_str().unwrap_or_default(), told)
            })
            .collect();
        return say(format_args!("{}", serde_json::to_string_pretty(&all)?));
    }
    let counted = COUNTS.iter().map(|(title, ..)| *title);
    let titles = ["SERVICE", "INSTANCES"].into_iter().chain(counted).chain(["TAGS"]);
    let mut rows = vec![titles.map(str::to_owned).collect()];
    for row in list(&services) {
        let counted = COUNTS.iter().map(|(.., of)| row[*of].to_string());
        let first = [text(&row["Name"]), row["Instances"].to_string()];
        rows.push(first.into_iter().chain(counted).chain([tags(&row["Tags"])]).collect());
    }
    table(&rows)
}

/// The instances of a service, and why one is not healthy.
pub(super) fn instances(arguments: &InstancesArguments) -> anyhow::Result<()> {
    let path = format!("/v1/health/service/{}", api::part(&arguments.name));
    let (_, instances) = block_on(arguments.server.get(&path, Duration::ZERO))?;
    if list(&instances).is_empty() && !arguments.json {
        bail!("no service {:?}; see `rollcall services`", arguments.name);
    }
    if arguments.json {
        return in_json(&instances);
    }
    show(&instances, &block_on(explained(arguments))?)
}

/// What DNS does with each instance, and why; null where that is not known. Nobody need know it to see the instances.
async fn explained(arguments: &InstancesArguments) -> anyhow::Result<Value> {
    let path = format!("/v1/rollcall/explain?name={}&type=SRV", api::part(&arguments.name));
    let told = arguments.server.get(&path, Duration::ZERO).await;
    Ok(told.map_or(Value::Null, |(_, told)| told["Instances"].clone()))
}

/// The same, again at every change, until it is interrupted.
pub(super) fn watch(arguments: &InstancesArguments) -> anyhow::Result<()> {
    let path = format!("/v1/health/service/{}", api::part(&arguments.name));
    let mut index = 0u64;
    let mut shown = (Value::Null, Value::Null);
    loop {
        let asked = format!("{path}?index={index}&wait={}s", WAIT.as_secs());
        let (headers, instances) = match block_on(arguments.server.get(&asked, WAIT * 2)) {
            Ok(answer) => answer,
            // A server that was there comes back.
            Err(error) if !shown.0.is_null() => {
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
        let why = if arguments.json { Value::Null } else { block_on(explained(arguments))? };
        let now = (instances, why);
        if now == shown {
            continue;
        }
        shown = now;
        let (instances, why) = &shown;
        if arguments.json {
            in_json(instances)?;
            continue;
        }
        let count = list(instances).len();
        let plural = if count == 1 { "" } else { "s" };
        say(format_args!("{}: {count} instance{plural}, index {next}", arguments.name))?;
        show(instances, why)?;
    }
}

fn in_json(value: &Value) -> anyhow::Result<()> {
    say(format_args!("{}", serde_json::to_string_pretty(value)?))
}

/// `why`: what DNS does with each of them.
fn show(instances: &Value, why: &Value) -> anyhow::Result<()> {
    let titles = ["ID", "NODE", "ADDRESS", "PORT", "STATUS", "DNS", "TAGS", "WHY"];
    let mut rows = vec![titles.map(str::to_owned).to_vec()];
    let name = |value: &Value| value.as_str().unwrap_or_default().to_ascii_lowercase();
    let of = |row: &'_ Value| (name(&row["Node"]), name(&row["ID"]));
    let why: HashMap<_, _> = list(why).iter().map(|row| (of(row), row)).collect();
    for entry in list(instances) {
        let (service, node) = (&entry["Service"], &entry["Node"]);
        let own = service["Address"].as_str().filter(|address| !address.is_empty());
        let worst = list(&entry["Checks"]).iter().max_by_key(|check| badness(check));
        let worst = worst.filter(|check| check["Status"] != "passing");
        let dns = why.get(&(name(&node["Node"]), name(&service["ID"])));
        let given = dns.and_then(|row| row["In"].as_bool());
        rows.push(vec![
            text(&service["ID"]),
            text(&node["Node"]),
            own.map_or_else(|| text(&node["Address"]), str::to_owned),
            service["Port"].to_string(),
            match worst {
                Some(check) if is_word(check) => "maintenance".to_owned(),
                Some(check) => text(&check["Status"]),
                None => "passing".to_owned(),
            },
            given.map_or("", |given| if given { "in" } else { "out" }).to_owned(),
            tags(&service["Tags"]),
            match (worst, dns) {
                (Some(check), _) => said(check),
                (None, Some(row)) if given == Some(false) => text(&row["Reason"]),
                (None, _) => String::new(),
            },
        ]);
    }
    table(&rows)
}

/// What is worse is greater. Maintenance goes before whatever checks say.
fn badness(check: &Value) -> usize {
    match check["Status"].as_str() {
        _ if is_word(check) => 3,
        Some("passing") => 0,
        Some("warning") => 1,
        _ => 2,
    }
}

/// Whether a check is the operators' word: Consul's API shows maintenance as one.
fn is_word(check: &Value) -> bool {
    let id = check["CheckID"].as_str().unwrap_or_default();
    id == "_node_maintenance" || id.starts_with("_service_maintenance:")
}

/// What a check that does not pass has to say.
fn said(check: &Value) -> String {
    if is_word(check) {
        return reason(&text(&check["Notes"])).to_owned();
    }
    if check["Type"] == "ttl" && text(&check["Output"]).is_empty() {
        return format!("waits for PUT /v1/agent/check/pass/{}", text(&check["CheckID"]));
    }
    let all = ["Output", "Notes", "Name"].map(|key| text(&check[key]));
    all.into_iter().find(|text| !text.is_empty()).unwrap_or_default()
}

/// Why there is maintenance; Consul's words for "no reason" would make a table wide.
pub(super) fn reason(text: &str) -> &str {
    let none =
        text.starts_with("Maintenance mode is enabled for this ") && text.contains("no reason was provided");
    if none { "no reason given" } else { text }
}

fn tags(value: &Value) -> String {
    let tags: Vec<&str> = list(value).iter().filter_map(Value::as_str).collect();
    printable(&tags.join(","))
}

fn text(value: &Value) -> String {
    printable(value.as_str().unwrap_or(""))
}

/// What a service sends must not steer a terminal, and stands in one line.
pub(super) fn printable(text: &str) -> String {
    let steers = |c: char| {
        // Directions, joiners and line separators, which are no control characters to Unicode.
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    let shown = |c: char| match c {
        '\n' | '\r' | '\t' => ' ',
        c if steers(c) => '?',
        c => c,
    };
    text.trim().chars().map(shown).take(200).collect()
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
