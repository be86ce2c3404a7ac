//! `rollcall route`: with which instances a service's name answers, and in what shares.

use std::time::Duration;

use clap::{Args, Subcommand};
use hyper::Method;
use serde_json::{Value, json};

use super::api::{Server, part};
use super::show::{list, printable, table};
use super::{block_on, say};

/// Flags of `route`.
#[derive(Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Answer with these subsets of a service's instances, in these shares
    Set(Set),
    /// Put the former route back
    Undo(One),
    /// Answer with all instances again
    Clear(One),
    /// Show the route of a service
    Show(One),
    /// Show the versions of a service's route
    History(One),
    /// List the routes of all services
    List(All),
}

#[derive(Args)]
struct Set {
    /// The service's name
    service: String,
    /// TAG=SHARE, meta.KEY=VALUE:SHARE or version=VALUE:SHARE, each perhaps with NAME@ in front; shares are percents (95%) or weights
    #[arg(required = true, value_name = "SUBSET")]
    subsets: Vec<String>,
    /// Go there step by step
    #[arg(long, value_name = "DURATION")]
    over: Option<String>,
    /// Put the former route back when more than this share of the instances that gain by it is unhealthy
    #[arg(long, value_name = "PERCENT")]
    abort_if_unhealthy: Option<String>,
    /// How long that is watched after the shares are reached [default: 10m]
    #[arg(long, value_name = "DURATION", requires = "abort_if_unhealthy")]
    guard_for: Option<String>,
    /// Answer with nobody rather than with instances that have no share
    #[arg(long)]
    strict: bool,
    /// JSON instead of text
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

#[derive(Args)]
struct One {
    /// The service's name
    service: String,
    /// JSON instead of text
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

#[derive(Args)]
struct All {
    /// JSON instead of text
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

fn path(service: &str) -> String {
    format!("/v1/rollcall/route/{}", part(service))
}

/// Does it, and shows what holds then.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    match &arguments.command {
        Command::Set(set) => {
            let body = json!({
                "Subsets": set.subsets,
                "Over": set.over.as_deref().unwrap_or_default(),
                "AbortIfUnhealthy": set.abort_if_unhealthy.as_deref().unwrap_or_default(),
                "GuardFor": set.guard_for.as_deref().unwrap_or_default(),
                "Strict": set.strict,
            });
            let route = block_on(async {
                set.server.put(&path(&set.service), body.to_string().into_bytes()).await?;
                set.server.get(&path(&set.service), Duration::ZERO).await
            });
            show(&route?.1, set.json)
        }
        Command::Undo(one) => changed(one, Method::PUT, &format!("{}/undo", path(&one.service))),
        Command::Clear(one) => changed(one, Method::DELETE, &path(&one.service)),
        Command::Show(one) => show(&read(&one.server, &path(&one.service))?, one.json),
        Command::History(one) => history(&read(&one.server, &path(&one.service))?, one.json),
        Command::List(all) => routes(&read(&all.server, "/v1/rollcall/routes")?, all.json),
    }
}

fn read(server: &Server, path: &str) -> anyhow::Result<Value> {
    Ok(block_on(server.get(path, Duration::ZERO))?.1)
}

fn changed(one: &One, method: Method, at: &str) -> anyhow::Result<()> {
    block_on(one.server.send(method, at, Vec::new(), Duration::ZERO))?;
    match read(&one.server, &path(&one.service)) {
        Ok(route) => show(&route, one.json),
        // It went with its service.
        Err(error) if error.to_string().contains("has no route") => {
            say(format_args!("Removed the route of {}", one.service))
        }
        Err(error) => Err(error),
    }
}

fn text(value: &Value) -> String {
    printable(value.as_str().unwrap_or(""))
}

fn show(route: &Value, as_json: bool) -> anyhow::Result<()> {
    if as_json {
        return say(format_args!("{route:#}"));
    }
    let (name, version) = (text(&route["Service"]), &route["Version"]);
    say(format_args!("{name}: version {version}, {} at {}", text(&route["Why"]), text(&route["Set"])))?;
    let subsets = list(&route["Now"]);
    if subsets.is_empty() {
        return say(format_args!("all instances answer"));
    }
    let [over, abort, watch] = ["Over", "AbortIfUnhealthy", "GuardFor"].map(|key| text(&route[key]));
    if over != "0s" {
        say(format_args!("the shares come to what was set {over} after that"))?;
    }
    if !abort.is_empty() {
        say(format_args!(
            "the former route comes back when more than {abort} of those who gain are unhealthy, until {watch} after that"
        ))?;
    }
    let mut rows = vec![["SUBSET", "NAME", "SHARE", "NOW"].map(str::to_owned).to_vec()];
    rows.extend(subsets.iter().map(|subset| {
        let percent = subset["Percent"].as_f64().unwrap_or(0.0);
        vec![text(&subset["By"]), text(&subset["Name"]), subset["Share"].to_string(), format!("{percent}%")]
    }));
    table(&rows)?;
    match text(&route["Answers"]).as_str() {
        "by shares" => Ok(()),
        others => say(format_args!("who answers: {others}")),
    }
}

fn history(route: &Value, as_json: bool) -> anyhow::Result<()> {
    let own = json!({
        "Version": route["Version"], "Subsets": route["Subsets"], "Strict": route["Strict"], "Set": route["Set"],
        "Why": route["Why"],
    });
    let versions: Vec<&Value> = std::iter::once(&own).chain(list(&route["Past"])).collect();
    if as_json {
        return say(format_args!("{:#}", json!(versions)));
    }
    let mut rows = vec![["VERSION", "SET", "SUBSETS", "WHY"].map(str::to_owned).to_vec()];
    rows.extend(versions.into_iter().map(|version| {
        let subsets: Vec<String> = list(&version["Subsets"]).iter().map(text).collect();
        let subsets = if subsets.is_empty() { "all instances".to_owned() } else { subsets.join(" ") };
        vec![version["Version"].to_string(), text(&version["Set"]), subsets, text(&version["Why"])]
    }));
    table(&rows)
}

fn routes(routes: &Value, as_json: bool) -> anyhow::Result<()> {
    if as_json {
        return say(format_args!("{routes:#}"));
    }
    let mut rows = vec![["SERVICE", "VERSION", "NOW"].map(str::to_owned).to_vec()];
    rows.extend(list(routes).iter().map(|route| {
        let subsets = list(&route["Now"])
            .iter()
            .map(|subset| format!("{}={}%", text(&subset["By"]), subset["Percent"].as_f64().unwrap_or(0.0)));
        let subsets: Vec<String> = subsets.collect();
        let subsets = match text(&route["Answers"]).as_str() {
            "by shares" => subsets.join(" "),
            "all" => "all instances".to_owned(),
            others => others.to_owned(),
        };
        vec![text(&route["Service"]), route["Version"].to_string(), subsets]
    }));
    table(&rows)
}
