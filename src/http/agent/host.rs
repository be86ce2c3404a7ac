//! `/v1/agent/host`: the machine, in the keys of Consul's agents. Read from /proc each time it is asked.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::State as Extract;
use axum::response::Response;
use serde_json::{Value, json};

use crate::http::State;
use crate::http::error::Error;
use crate::http::query::Params;
use crate::http::route::{self, get};

pub(super) fn routes() -> Router<Arc<State>> {
    Router::new().route("/v1/agent/host", get(host))
}

async fn host(Extract(state): Extract<Arc<State>>, _: Params) -> Result<Response, Error> {
    let data_dir = state.config.load().shown.data_dir.clone();
    let gathered = tokio::task::spawn_blocking(move || gather(data_dir.as_deref())).await;
    gathered.map(|value| route::json(&value)).map_err(|e| Error::server(e.to_string()))
}

fn gather(data_dir: Option<&Path>) -> Value {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let uptime = read("/proc/uptime").split('.').next().and_then(|text| text.parse().ok()).unwrap_or(0u64);
    let release = read("/etc/os-release");
    let of_release = pairs(&release, '=');
    let word = |name: &str| of_release.get(name).map_or("", |text| text.trim_matches('"')).to_owned();
    json!({
        "Memory": memory(&read("/proc/meminfo")),
        "CPU": processors(&read("/proc/cpuinfo")),
        "Host": {
            "hostname": read("/proc/sys/kernel/hostname").trim(),
            "uptime": uptime,
            "bootTime": now.as_secs().saturating_sub(uptime),
            "procs": processes(&read("/proc/loadavg")),
            "os": std::env::consts::OS,
            "platform": word("ID"),
            "platformFamily": word("ID_LIKE"),
            "platformVersion": word("VERSION_ID"),
            "kernelVersion": read("/proc/sys/kernel/osrelease").trim(),
            "kernelArch": std::env::consts::ARCH,
            "virtualizationSystem": "",
            "virtualizationRole": "",
            "hostId": "",
        },
        "Disk": data_dir.map(disk),
        "CollectionTime": u64::try_from(now.as_nanos()).unwrap_or(u64::MAX),
        "Errors": null,
    })
}

/// Lines of a name, a mark and a value.
fn pairs(text: &str, mark: char) -> HashMap<&str, &str> {
    text.lines()
        .filter_map(|line| line.split_once(mark))
        .map(|(name, value)| (name.trim(), value.trim()))
        .collect()
}

/// Of /proc/meminfo, which counts in kB.
fn memory(text: &str) -> Value {
    let all = pairs(text, ':');
    let octets = |name: &str| {
        let number = all.get(name).and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
        number.unwrap_or(0) * 1024
    };
    let (total, available) = (octets("MemTotal"), octets("MemAvailable"));
    let used = total.saturating_sub(available);
    json!({
        "total": total, "available": available, "used": used, "usedPercent": percent(used, total),
        "free": octets("MemFree"), "active": octets("Active"), "inactive": octets("Inactive"),
        "buffers": octets("Buffers"), "cached": octets("Cached"),
    })
}

/// Of /proc/cpuinfo: a paragraph for each.
fn processors(text: &str) -> Vec<Value> {
    let paragraphs =
        text.split("\n\n").map(|part| pairs(part, ':')).filter(|all| all.contains_key("processor"));
    let number = |text: Option<&&str>| text.and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
    let word = |text: Option<&&str>| text.copied().unwrap_or("").to_owned();
    let shown = paragraphs.map(|all| {
        json!({
            "cpu": number(all.get("processor")) as u64, "vendorId": word(all.get("vendor_id")),
            "family": word(all.get("cpu family")), "model": word(all.get("model")),
            "modelName": word(all.get("model name")), "cores": 1, "mhz": number(all.get("cpu MHz")),
        })
    });
    shown.collect()
}

/// Of /proc/loadavg, whose fourth part is those that run, a slash, and all.
fn processes(text: &str) -> u64 {
    text.split(' ').nth(3).and_then(|part| part.split('/').nth(1)?.parse().ok()).unwrap_or(0)
}

/// The file system on which definitions are kept.
fn disk(path: &Path) -> Value {
    let shown = path.display().to_string();
    let Ok(found) = nix::sys::statvfs::statvfs(path) else { return json!({ "path": shown }) };
    let block = found.fragment_size();
    let (total, free) = (found.blocks() * block, found.blocks_available() * block);
    let used = total.saturating_sub(found.blocks_free() * block);
    let (files, files_free) = (found.files(), found.files_free());
    let files_used = files.saturating_sub(files_free);
    json!({
        "path": shown, "fstype": "", "total": total, "free": free, "used": used, "usedPercent": percent(used, total),
        "inodesTotal": files, "inodesUsed": files_used, "inodesFree": files_free,
        "inodesUsedPercent": percent(files_used, files),
    })
}

fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 * 100.0 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_writes_is_read() {
        let shown = memory("MemTotal:       4000 kB\nMemFree:  100 kB\nMemAvailable:   1000 kB\n");
        assert_eq!((&shown["total"], &shown["used"]), (&json!(4_096_000), &json!(3_072_000)));
        assert_eq!(shown["usedPercent"], 75.0);
        let two = "processor\t: 0\nmodel name\t: A B\ncpu MHz\t\t: 2000.5\n\nprocessor\t: 1\n\n";
        let shown = processors(two);
        assert_eq!((shown.len(), &shown[0]["modelName"], &shown[1]["cpu"]), (2, &json!("A B"), &json!(1)));
        assert_eq!(processes("0.1 0.2 0.3 2/345 6789\n"), 345);
        assert_eq!(memory("")["usedPercent"], 0.0);
    }
}
