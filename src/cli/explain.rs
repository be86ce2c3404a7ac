//! `rollcall explain`: what DNS answers to a name, and why, for people.

use std::net::IpAddr;
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::api::{Server, part};
use super::show::{list, printable, table};
use super::{block_on, say};

/// Flags of `explain`.
#[derive(Args)]
pub(super) struct Arguments {
    /// The name that is asked for, or a service's alone
    name: String,
    /// The record type [default: A]
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// The address of whoever asks DNS [default: that of this command]
    #[arg(long, value_name = "IP")]
    from: Option<IpAddr>,
    /// JSON instead of text
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

/// Asks, and shows.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let mut path = format!("/v1/rollcall/explain?name={}", part(&arguments.name));
    if let Some(kind) = &arguments.kind {
        path += &format!("&type={}", part(kind));
    }
    if let Some(from) = arguments.from {
        path += &format!("&from={}", part(&from.to_string()));
    }
    let (_, explained) = block_on(arguments.server.get(&path, Duration::ZERO))?;
    if arguments.json {
        return say(format_args!("{}", serde_json::to_string_pretty(&explained)?));
    }
    show(&explained)
}

fn show(explained: &Value) -> anyhow::Result<()> {
    let text = |value: &Value| printable(value.as_str().unwrap_or(""));
    let rcode = match text(&explained["Rcode"]) {
        empty if empty.is_empty() => "forwarded".to_owned(),
        rcode => rcode,
    };
    let [name, kind] = ["Name", "Type"].map(|key| text(&explained[key]));
    let [index, serial] = ["Index", "Serial"].map(|key| explained[key].as_u64().unwrap_or(0));
    say(format_args!("{name} {kind}: {rcode} (index {index}, serial {serial})"))?;
    for said in list(&explained["Said"]) {
        say(format_args!("  {}", text(said)))?;
    }
    if let Some(ttl) = explained["TTL"].as_u64() {
        say(format_args!("  TTL {ttl} s: {}", text(&explained["TTLReason"])))?;
    }
    for (section, title) in
        [("Answers", "ANSWER"), ("Authorities", "AUTHORITY"), ("Additionals", "ADDITIONAL")]
    {
        let records = list(&explained[section]);
        if !records.is_empty() {
            say(format_args!("\n{title}"))?;
        }
        for record in records {
            say(format_args!("  {}", text(record)))?;
        }
    }
    let instances = list(&explained["Instances"]);
    if instances.is_empty() {
        return Ok(());
    }
    say(format_args!(""))?;
    let mut rows = vec![["", "ID", "NODE", "ADDRESS", "WEIGHT", "WHY"].map(str::to_owned).to_vec()];
    for instance in instances {
        let given = instance["In"].as_bool().unwrap_or(false);
        let addresses: Vec<String> = list(&instance["Addresses"]).iter().map(text).collect();
        rows.push(vec![
            if given { "in" } else { "out" }.to_owned(),
            text(&instance["ID"]),
            text(&instance["Node"]),
            addresses.join(","),
            instance["Weight"].as_u64().unwrap_or(0).to_string(),
            text(&instance["Reason"]),
        ]);
    }
    table(&rows)
}
