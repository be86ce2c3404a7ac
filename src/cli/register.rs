//! `rollcall register` and `deregister`.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use serde_json::{Map, Value, json};

use super::api::{self, Server};
use super::{block_on, drain, say};

/// Flags of `register`.
#[derive(Args)]
pub(super) struct Arguments {
    /// The service's name
    #[arg(required_unless_present = "file")]
    name: Option<String>,
    /// A definition as Consul's JSON instead of flags; - is standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["name", "id", "address", "port", "tag", "meta", "check_http", "check_tcp", "check_ttl"])]
    file: Option<PathBuf>,
    /// The instance's id, unique on its machine [default: the name]
    #[arg(long)]
    id: Option<String>,
    /// Where it is reached [default: its machine's address]
    #[arg(long, value_name = "ADDR")]
    address: Option<String>,
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// A tag; may be given again
    #[arg(long)]
    tag: Vec<String>,
    /// A meta pair; may be given again
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    meta: Vec<(String, String)>,
    /// Passing while this URL answers with 2xx
    #[arg(long, value_name = "URL", group = "check")]
    check_http: Option<String>,
    /// Passing while this address can be connected to
    #[arg(long, value_name = "HOST:PORT", group = "check")]
    check_tcp: Option<String>,
    /// Passing while the service says so at least this often
    #[arg(long, value_name = "DURATION", group = "check")]
    check_ttl: Option<String>,
    /// Between two probes
    #[arg(long, value_name = "DURATION", default_value = "10s")]
    interval: String,
    /// For one probe
    #[arg(long, value_name = "DURATION", default_value = "5s")]
    timeout: String,
    #[command(flatten)]
    server: Server,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').ok_or_else(|| format!("{text:?} is not KEY=VALUE"))?;
    Ok((pair.0.to_owned(), pair.1.to_owned()))
}

impl Arguments {
    /// The request's body.
    fn body(&self) -> anyhow::Result<Vec<u8>> {
        if let Some(file) = &self.file {
            if file.as_os_str() == "-" {
                return Ok(std::io::read_to_string(std::io::stdin())?.into_bytes());
            }
            return std::fs::read(file).with_context(|| format!("reading {}", file.display()));
        }
        let mut body = json!({ "Name": self.name, "Port": self.port, "Tags": self.tag });
        if let Some(id) = &self.id {
            body["ID"] = json!(id);
        }
        if let Some(address) = &self.address {
            body["Address"] = json!(address);
        }
        if !self.meta.is_empty() {
            body["Meta"] = self.meta.iter().map(|(k, v)| (k.clone(), json!(v))).collect::<Map<_, _>>().into();
        }
        let probe = |kind: &str, target: &String| json!({ kind: target, "Interval": self.interval, "Timeout": self.timeout });
        let check = match (&self.check_http, &self.check_tcp, &self.check_ttl) {
            (Some(url), _, _) => probe("HTTP", url),
            (_, Some(address), _) => probe("TCP", address),
            (_, _, Some(ttl)) => json!({ "TTL": ttl }),
            _ => Value::Null,
        };
        if !check.is_null() {
            body["Check"] = check;
        }
        Ok(body.to_string().into_bytes())
    }
}

/// Registers; prints what the server warns of.
pub(super) fn register(arguments: Arguments) -> anyhow::Result<()> {
    let body = arguments.body()?;
    let headers = block_on(arguments.server.put("/v1/agent/service/register", body.clone()))?;
    for warning in headers.get_all("x-rollcall-warning") {
        say(format_args!("Warning: {}", warning.to_str().unwrap_or("?")))?;
    }
    let name = arguments.name.unwrap_or_else(|| {
        let definition: Value = serde_json::from_slice(&body).unwrap_or_default();
        let key = |key: &&String| key.eq_ignore_ascii_case("name");
        let key = definition.as_object().and_then(|object| object.keys().find(key).cloned());
        key.and_then(|key| definition[key].as_str().map(str::to_owned)).unwrap_or_default()
    });
    say(format_args!("Registered service: {name}"))
}

/// Flags of `deregister`.
#[derive(Args)]
pub(super) struct DeregisterArguments {
    /// The instance's id (not the service's name, unless they are the same)
    id: String,
    /// The machine it is on [default: this one, else the only one that has the id]
    #[arg(long)]
    node: Option<String>,
    /// Return when it is safe to stop the instance, as `drain` does
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    server: Server,
}

/// Deregisters.
pub(super) fn deregister(arguments: &DeregisterArguments) -> anyhow::Result<()> {
    if arguments.wait {
        return drain::deregister(&arguments.server, &arguments.id, arguments.node.as_deref());
    }
    let node = arguments.node.as_ref().map_or_else(String::new, |node| format!("?node={}", api::part(node)));
    let path = format!("/v1/agent/service/deregister/{}{node}", api::part(&arguments.id));
    block_on(arguments.server.put(&path, Vec::new()))?;
    say(format_args!("Deregistered service: {}", arguments.id))
}
