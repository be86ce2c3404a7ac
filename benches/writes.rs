//! What a write costs from its HTTP request to its answer and to DNS, on the real program with a fresh data directory.
//!
//! `cargo bench --bench writes -- [--short] [--instances N] [--registrations N] [--seconds N] [--rounds N] [--dir DIR]
//! [--program FILE]`
//!
//! Prints one JSON object: times in microseconds, rates a second.
//!
//! - `fsync`: a lone loop of "write one 4 KiB block, fsync" on the same file system, before and after all else; the figures
//!   are those of both together. `append` writes block after block into a new file (what a log without a preallocated file
//!   pays), `overwrite` one block again and again.
//! - `visible`: one registration at a time, from its HTTP request to the first DNS answer that has it; DNS is asked over UDP
//!   as fast as it answers. `flip`: the same for the status of a TTL check, in and out of DNS.
//! - `durable`: new registrations in a closed loop over 8 connections, in four quarters; `per_fsync` is their rate divided
//!   by that of the lone loop. `identical`: the same registrations again. `ttl`: TTL updates that change nothing.
//!
//! Before that, `--instances` (1,000) are registered, ten to a service. The client is one thread, so that it takes as little
//! as it can of the cores that it shares with the server. `--short` proves that all runs; its figures are not to be quoted.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

#[path = "writes/client.rs"]
mod client;
#[path = "writes/disk.rs"]
mod disk;
#[path = "writes/program.rs"]
mod program;
#[path = "writes/visible.rs"]
mod visible;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use client::Loop;
use program::Program;
use serde_json::{Value, json};

/// Keep-alive connections of the closed loops.
const CONNECTIONS: usize = 8;
/// Connections while the registry is filled: that is not measured.
const FILLING: usize = 64;
/// Instances of one service, and on one node.
const PER_SERVICE: usize = 10;
const PER_NODE: usize = 100;

struct Options {
    instances: usize,
    registrations: usize,
    /// Of each closed loop that is bounded by time.
    seconds: f64,
    /// Of the one-at-a-time measurements.
    rounds: usize,
    fsyncs: usize,
    dir: PathBuf,
    program: PathBuf,
}

fn options() -> Options {
    let mut options = Options {
        instances: 1_000,
        registrations: 20_000,
        seconds: 3.0,
        rounds: 1_000,
        fsyncs: 2_000,
        dir: std::env::temp_dir(),
        program: env!("CARGO_BIN_EXE_rollcall").into(),
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().unwrap_or_else(|| panic!("{word} needs a value"));
        match word.as_str() {
            "--short" => {
                options.registrations = 2_000;
                options.seconds = 0.5;
                options.rounds = 100;
                options.fsyncs = 300;
            }
            "--instances" => options.instances = value().parse().unwrap(),
            "--registrations" => options.registrations = value().parse().unwrap(),
            "--seconds" => options.seconds = value().parse().unwrap(),
            "--rounds" => options.rounds = value().parse().unwrap(),
            "--dir" => options.dir = value().into(),
            "--program" => options.program = value().into(),
            // What cargo says to every bench.
            "--bench" => {}
            other => panic!("{other} is no option"),
        }
    }
    options
}

fn main() {
    let options = options();
    let dir = tempfile::tempdir_in(&options.dir).unwrap();
    let mut disk = disk::Loops::default();
    disk.run(dir.path(), options.fsyncs);
    let program = Program::start(&options.program, dir.path());
    let mut report = json!({ "instances": options.instances });
    report["filled"] = fill(&program, options.instances);
    report["visible"] = visible::registrations(&program, options.rounds);
    report["flip"] = visible::flips(&program, options.rounds);
    let durable = durable(&program, options.registrations);
    report["identical"] = identical(&program, options.registrations, options.seconds);
    report["ttl"] = ttl(&program, options.registrations, options.seconds);
    report["commits"] = json!(program.metric("rollcall_store_commits_total"));
    drop(program);
    disk.run(dir.path(), options.fsyncs);
    report["fsync"] = disk.report();
    let per =
        |name: &str| durable["rate"].as_f64().unwrap() / report["fsync"][name]["rate"].as_f64().unwrap();
    let per = json!({ "append_fsync": per("append_fsync"), "append_fdatasync": per("append_fdatasync"),
        "overwrite_fdatasync": per("overwrite_fdatasync") });
    report["durable"] = durable;
    report["durable"]["per_fsync"] = per;
    println!("{}", serde_json::to_string_pretty(&report).unwrap());
}

/// Registers what is there before anything is measured.
fn fill(program: &Program, count: usize) -> Value {
    let begun = Instant::now();
    let mut connections = Loop::open(program.http, FILLING);
    connections.run((0..count).map(|i| registration("fill", i, &format!("?node=n-{}", i / PER_NODE))));
    json!({ "rate": count as f64 / begun.elapsed().as_secs_f64() })
}

/// An instance as most are: one tag, two meta pairs, one TTL check.
fn registration(of: &str, i: usize, query: &str) -> Vec<u8> {
    let service = i / PER_SERVICE;
    let body = json!({
        "ID": format!("{of}-{i}"), "Name": format!("{of}-{service}"), "Address": format!("10.{}.{}.{}", i >> 16 & 255, i >> 8 & 255, i & 255),
        "Port": 8080, "Tags": ["v1"], "Meta": { "version": "1.2.3", "zone": "a" },
        "Check": { "TTL": "1h", "Status": "passing" },
    });
    client::put(&format!("/v1/agent/service/register{query}"), &body.to_string())
}

fn durable(program: &Program, count: usize) -> Value {
    let mut connections = Loop::open(program.http, CONNECTIONS);
    let (mut quarters, cpu, begun) = (Vec::new(), program.cpu(), Instant::now());
    for quarter in 0..4 {
        let (from, to) = (count * quarter / 4, count * (quarter + 1) / 4);
        let requests: Vec<_> = (from..to).map(|i| registration("new", i, "")).collect();
        let begun = Instant::now();
        connections.run(requests.into_iter());
        quarters.push((to - from) as f64 / begun.elapsed().as_secs_f64());
    }
    let (rate, cpu) = (count as f64 / begun.elapsed().as_secs_f64(), (program.cpu() - cpu) / count as f64);
    let flat = quarters[3] / quarters[0];
    json!({ "rate": rate, "quarters": quarters, "last_to_first": flat, "server_cpu": cpu, "latency": connections.latency() })
}

fn identical(program: &Program, count: usize, seconds: f64) -> Value {
    let requests: Vec<_> = (0..count).map(|i| registration("new", i, "")).collect();
    timed(program, &requests, seconds)
}

fn ttl(program: &Program, count: usize, seconds: f64) -> Value {
    let pass = |i| client::put(&format!("/v1/agent/check/pass/service:new-{i}"), "");
    let requests: Vec<_> = (0..count).map(pass).collect();
    timed(program, &requests, seconds)
}

/// These requests round and round for a time.
fn timed(program: &Program, requests: &[Vec<u8>], seconds: f64) -> Value {
    let mut connections = Loop::open(program.http, CONNECTIONS);
    let before = program.metric("rollcall_registry_publishes_total");
    let (cpu, begun, until) = (program.cpu(), Instant::now(), Duration::from_secs_f64(seconds));
    let rounds = requests.iter().cycle().take_while(|_| begun.elapsed() < until);
    let done = connections.run(rounds.cloned());
    let took = begun.elapsed().as_secs_f64();
    let publishes = program.metric("rollcall_registry_publishes_total") - before;
    let cpu = (program.cpu() - cpu) / done as f64;
    json!({ "rate": done as f64 / took, "publishes": publishes, "server_cpu": cpu, "latency": connections.latency() })
}
