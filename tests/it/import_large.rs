//! An import of many: what it costs grows with what it holds and no faster, and neither side keeps what it need not.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::json;

use crate::daemon::{Daemon, rollcall};
use crate::server::request;

/// Instances of the smaller import, and how many times as many the larger has.
const SMALL: usize = 2_000;
const TIMES: usize = 5;
/// Octets of meta of each, in three values, so that what is kept of a document can be told from what a process needs anyway.
const META_OCTETS: usize = 1500;

/// A process' clock ticks on a CPU, and the most kibibytes that it has held at once.
fn cost(process: u32) -> Option<(u64, u64)> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some((ticks, peak.trim().trim_end_matches(" kB").parse().ok()?))
}

fn document(count: usize) -> String {
    let mut text = String::from("{\"rollcall_export\":1,\"records\":[\n");
    let note = "x".repeat(META_OCTETS / 3);
    for n in 0..count {
        let node = format!("h{}", n / 10);
        if n % 10 == 0 {
            let address = format!("10.{}.{}.1", n / 2560, n / 10 % 256);
            writeln!(text, "{},", json!({ "node": { "name": node, "address": address } })).unwrap();
        }
        let service = format!("s{}", n % 97);
        let meta = json!({ "a": note, "b": note, "c": note });
        let instance =
            json!({ "node": node, "id": format!("i{n}"), "service": service, "port": 80, "meta": meta });
        let end = if n + 1 == count { "" } else { "," };
        writeln!(text, "{}{end}", json!({ "instance": instance })).unwrap();
    }
    text + "]}\n"
}

/// What an import of a file costs: the server's ticks and its growth, and the command's peak, in kibibytes.
fn import(server: &Daemon, file: &Path, said: &str) -> (u64, u64, u64) {
    let before = cost(server.child.id()).unwrap();
    let words = ["import", "--file", file.to_str().unwrap(), "--server", &server.http[0].to_string()];
    let mut command = rollcall().args(words).stdout(Stdio::piped()).spawn().unwrap();
    let mut peak = 0;
    let status = loop {
        // What it has held at most does not fall; the last look before its end is the one that counts.
        peak = cost(command.id()).map_or(peak, |(_, kib)| kib.max(peak));
        match command.try_wait().unwrap() {
            Some(status) => break status,
            None => std::thread::sleep(Duration::from_millis(2)),
        }
    };
    let text = std::io::read_to_string(command.stdout.take().unwrap()).unwrap();
    assert!(
        status.success() && text.split_whitespace().collect::<Vec<_>>().join(" ").contains(said),
        "{text}"
    );
    let after = cost(server.child.id()).unwrap();
    (after.0 - before.0, after.1 - before.1, peak)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_of_many_costs_no_more_for_each_and_the_command_keeps_none_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let sizes = [SMALL, SMALL * TIMES];
    let mut costs = Vec::new();
    for count in sizes {
        let file = dir.path().join(format!("{count}.json"));
        fs::write(&file, document(count)).unwrap();
        let data = dir.path().join(format!("data-{count}"));
        let server = Daemon::start(&data, &[]);
        let first = import(&server, &file, &format!("services {count} 0 0"));
        let again = import(&server, &file, &format!("services 0 0 {count}"));
        let listed = request(server.http[0], "GET", "/v1/health/service/s0", &[], "").await.json();
        assert_eq!(listed.as_array().unwrap().len(), count.div_ceil(97));
        costs.push((first, again));
    }
    let [(small, small_again), (large, large_again)] = costs[..] else { panic!("{costs:?}") };
    // Quadratic work would be TIMES times this; a tick is 10 ms.
    let most = |ticks: u64| (ticks + 10) * 2 * TIMES as u64;
    assert!(large.0 <= most(small.0), "the server's time: {costs:?}");
    assert!(large_again.0 <= most(small_again.0), "the server's time the second time: {costs:?}");
    assert!(large.1 <= (small.1 + 4096) * 2 * TIMES as u64, "the server's memory: {costs:?}");
    let more = (TIMES - 1) * SMALL * META_OCTETS / 1024;
    assert!(large.2 <= small.2 + more as u64 / 2, "the command's memory, of {more} KiB more: {costs:?}");
}
