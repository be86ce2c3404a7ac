//! `rollcall history`: what became of a service of late, and how it stood at a moment, for people.

use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::api::{Server, part};
use super::show::{list, printable, reason, table};
use super::{block_on, say};

/// Flags of `history`.
#[derive(Args)]
pub(super) struct Arguments {
    /// The service's name
    name: String,
    /// Also show how it stood then: 2006-01-02T15:04:05Z, seconds since 1970, or how long ago (10m)
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
    /// JSON instead of tables
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

/// Asks, and shows.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let at = arguments.at.as_ref().map_or_else(String::new, |at| format!("?at={}", part(at)));
    let path = format!("/v1/rollcall/history/{}{at}", part(&arguments.name));
    let (_, told) = block_on(arguments.server.get(&path, Duration::ZERO))?;
    if arguments.json {
        return say(format_args!("{}", serde_json::to_string_pretty(&told)?));
    }
    changes(&told)?;
    if told["At"].is_null() { Ok(()) } else { stood(&told["At"]) }
}

fn text(value: &Value) -> String {
    printable(value.as_str().unwrap_or(""))
}

fn changes(told: &Value) -> anyhow::Result<()> {
    say(format_args!("{}: complete since {}", text(&told["Service"]), text(&told["Since"])))?;
    let titles = ["TIME", "ID", "NODE", "CHANGE", "DNS", "CAUSE", "BY", "OUTPUT"];
    let mut rows = vec![titles.map(str::to_owned).to_vec()];
    for change in list(&told["Changes"]) {
        rows.push(vec![
            text(&change["Time"]),
            text(&change["ID"]),
            text(&change["Node"]),
            what(change),
            served(&change["Served"]),
            text(&change["Cause"]),
            text(&change["Actor"]),
            text(&change["Output"]),
        ]);
    }
    table(&rows)
}

fn what(change: &Value) -> String {
    let [kind, word, check] = ["Kind", "Change", "CheckID"].map(|key| text(&change[key]));
    if kind == "route" {
        let subsets: Vec<String> = list(&change["Subsets"]).iter().map(text).collect();
        return match (word.as_str(), subsets.is_empty()) {
            ("set", true) => format!("route version {}: all instances answer", change["Version"]),
            ("set", false) => format!("route version {}: {}", change["Version"], subsets.join(" ")),
            (word, _) => format!("route {word}"),
        };
    }
    match (word.as_str(), check.as_str()) {
        ("status", check) => match ["Before", "After"].map(|key| text(&change[key])) {
            [before, after] if before == after => format!("check {check}: held {after}"),
            [before, after] => format!("check {check}: {before} to {after}"),
        },
        (word, "") if kind == "maintenance" => match text(&change["Reason"]).as_str() {
            "" => format!("maintenance {word}"),
            text => format!("maintenance {word}: {}", reason(text)),
        },
        (word, "") if ["circuit", "guard"].contains(&kind.as_str()) => format!("{kind} {word}"),
        (word, "") => word.to_owned(),
        (word, check) => format!("check {check} {word}"),
    }
}

fn served(served: &Value) -> String {
    if served.is_null() {
        return String::new();
    }
    let word = |key: &str| if served[key].as_bool().unwrap_or(false) { "in" } else { "out" };
    match (word("Before"), word("After")) {
        (before, after) if before == after => after.to_owned(),
        (before, after) => format!("{before} to {after}"),
    }
}

fn stood(at: &Value) -> anyhow::Result<()> {
    let time = text(&at["Time"]);
    if !at["Known"].as_bool().unwrap_or(false) {
        return say(format_args!("\nat {time}: not known; {}", text(&at["Reason"])));
    }
    let subsets: Vec<String> = list(&at["Route"]["Subsets"]).iter().map(text).collect();
    match subsets.is_empty() {
        true => say(format_args!("\nat {time}:"))?,
        false => say(format_args!("\nat {time}, with route {}:", subsets.join(" ")))?,
    }
    let mut rows = vec![["", "ID", "NODE", "ADDRESS", "PORT", "HEALTH"].map(str::to_owned).to_vec()];
    for instance in list(&at["Instances"]) {
        rows.push(vec![
            if instance["In"].as_bool().unwrap_or(false) { "in" } else { "out" }.to_owned(),
            text(&instance["ID"]),
            text(&instance["Node"]),
            text(&instance["Address"]),
            instance["Port"].to_string(),
            match text(&instance["Health"]) {
                health if instance["Guarded"] == true => format!("{health}, kept by the guard"),
                health => health,
            },
        ]);
    }
    table(&rows)
}
