//! What a write costs from its HTTP request to its answer and to DNS, on the real program with a fresh data directory.
//!
//! `cargo bench --bench writes -- [--short] [--only visible] [--instances N] [--beside N] [--registrations N] [--seconds N]
//! [--rounds N] [--dir DIR] [--program FILE]`
//!
//! Prints one JSON object (times in microseconds, rates a second), says of each bound whether it was met, and ends with
//! status 1 when one was missed.
//!
//! - `fsync`: a lone loop of "write one 4 KiB block, sync" on the same file system, in turn with all else. `append_fsync`, which
//!   the bounds name, writes block after block into a new file, as a log does; `append_fdatasync` the same with the cheaper
//!   call; `overwrite_fdatasync` one block again and again.
//! - `visible`: one registration at a time, from its HTTP request to the first DNS answer that has it; DNS is asked over UDP
//!   as fast as it answers. `flip`: the same for the status of a TTL check, in and out of DNS. With `--beside N`, a second
//!   server with N instances is measured in turn with the first: `beside`.
//! - `durable`: new registrations in a closed loop over 8 connections, in ten parts with the lone loop between; `per_fsync` is the
//!   median of the parts' rates divided by those of the lone loop beside them, `floor_per_fsync` the same of the least that such a
//!   server does ([`floor`]), in turn with it, and `last_to_first` compares the last three parts with the first three. `identical`: the same registrations again. `ttl`: TTL updates that change nothing.
//!
//! Before that, `--instances` (1,000) are registered, ten to a service. The client is one thread, so that it takes as little
//! as it can of the cores that it shares with the server. `--short` is CI's form: its bounds are looser, and fail when what they
//! guard is switched off.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::print_stderr)]

#[path = "writes/client.rs"]
mod client;
#[path = "writes/disk.rs"]
mod disk;
#[path = "writes/floor.rs"]
mod floor;
#[path = "writes/options.rs"]
mod options;
#[path = "writes/program.rs"]
mod program;
#[path = "writes/verdict.rs"]
mod verdict;
#[path = "writes/visible.rs"]
mod visible;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use client::Loop;
use disk::{Loops, median, summary};
use options::Options;
use program::Program;
use serde_json::{Value, json};
use visible::Visible;

/// Keep-alive connections of the closed loops.
const CONNECTIONS: usize = 8;
/// Connections while the registry is filled: that is not measured.
const FILLING: usize = 64;
/// Instances of one service, and on one node.
const PER_SERVICE: usize = 10;
const PER_NODE: usize = 100;
/// Parts of the closed loops, each with a lone loop beside it.
const PARTS: usize = 10;
/// Registrations and flips of one server before another has its turn.
const TURN: usize = 50;

fn main() -> ExitCode {
    let options = Options::read();
    let dir = tempfile::tempdir_in(&options.dir).unwrap();
    let mut loops = Loops::new(dir.path());
    let started = |name: &str, instances: usize| {
        let program = Program::start(&options.program, &dir.path().join(name));
        fill(&program, instances);
        program
    };
    let program = started("first", options.instances);
    let beside = options.beside.map(|instances| started("beside", instances));
    let mut report = json!({ "instances": options.instances, "short": options.short });
    visible(&options, &program, beside.as_ref(), &mut loops, &mut report);
    drop(beside);
    if !options.only_visible {
        let commits = || program.metric("rollcall_store_commits_total");
        let before = commits();
        let floor = floor::start(dir.path(), CONNECTIONS);
        report["durable"] = durable(&program, floor, options.registrations, &mut loops);
        report["durable"]["commits"] = json!(commits() - before);
        report["identical"] = identical(&program, options.registrations, options.seconds);
        report["ttl"] = ttl(&program, options.registrations, options.seconds);
    }
    report["fsync"] = loops.report();
    let bounds = verdict::bounds(&report);
    bounds.iter().for_each(|bound| eprintln!("{bound}"));
    report["bounds"] = bounds.iter().map(verdict::Bound::json).collect();
    println!("{}", serde_json::to_string_pretty(&report).unwrap());
    if bounds.iter().all(verdict::Bound::met) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Registers what is there before anything is measured.
fn fill(program: &Program, count: usize) {
    let requests = (0..count).map(|i| registration("fill", i, &format!("?node=n-{}", i / PER_NODE)));
    Loop::open(program.http, FILLING).run(requests);
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

fn visible(
    options: &Options,
    first: &Program,
    beside: Option<&Program>,
    loops: &mut Loops,
    report: &mut Value,
) {
    let mut all: Vec<Visible> = std::iter::once(first).chain(beside).map(Visible::new).collect();
    for _ in 0..options.rounds.div_ceil(TURN) {
        for one in &mut all {
            loops.run(TURN);
            one.registrations(TURN);
            one.flips(TURN);
        }
    }
    report["visible"] = json!({ "dns": summary(&all[0].visible), "http": summary(&all[0].answered) });
    report["flip"] = summary(&all[0].flipped);
    if let Some(beside) = all.get(1) {
        report["beside"] = json!({ "instances": options.beside, "dns": summary(&beside.visible),
            "http": summary(&beside.answered), "flip": summary(&beside.flipped) });
    }
}

fn durable(program: &Program, floor: SocketAddr, count: usize, loops: &mut Loops) -> Value {
    let mut connections = Loop::open(program.http, CONNECTIONS);
    let mut bare = Loop::open(floor, CONNECTIONS);
    let (mut rates, mut lone, mut floors, cpu) = (Vec::new(), Vec::new(), Vec::new(), program.cpu());
    for part in 0..PARTS {
        let (from, to) = (count * part / PARTS, count * (part + 1) / PARTS);
        let requests: Vec<_> = (from..to).map(|i| registration("new", i, "")).collect();
        let before = loops.run(count / PARTS / 20);
        let begun = Instant::now();
        connections.run(requests.iter());
        rates.push((to - from) as f64 / begun.elapsed().as_secs_f64());
        lone.push((before + loops.run(count / PARTS / 20)) / 2.0);
        let begun = Instant::now();
        bare.run(requests.iter());
        floors.push((to - from) as f64 / begun.elapsed().as_secs_f64());
    }
    let cpu = (program.cpu() - cpu) / count as f64;
    let each: Vec<f64> = rates.iter().zip(&lone).map(|(rate, lone)| rate / lone).collect();
    let floors: Vec<f64> = floors.iter().zip(&lone).map(|(rate, lone)| rate / lone).collect();
    let flat = median(&rates[PARTS - 3..]) / median(&rates[..3]);
    json!({ "rate": median(&rates), "rates": rates, "lone_fsyncs": median(&lone), "per_fsync": median(&each), "each": each,
        "floor_per_fsync": median(&floors),
        "last_to_first": flat, "server_cpu": cpu, "latency": connections.latency() })
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

/// These requests round and round for a time, in parts.
fn timed(program: &Program, requests: &[Vec<u8>], seconds: f64) -> Value {
    let mut connections = Loop::open(program.http, CONNECTIONS);
    let publishes = || program.metric("rollcall_registry_publishes_total");
    let (before, cpu, mut all, mut rates) = (publishes(), program.cpu(), 0, Vec::new());
    let mut rounds = requests.iter().cycle();
    for _ in 0..PARTS {
        let (begun, until) = (Instant::now(), Duration::from_secs_f64(seconds / PARTS as f64));
        let done = connections.run(rounds.by_ref().take_while(|_| begun.elapsed() < until));
        rates.push(done as f64 / begun.elapsed().as_secs_f64());
        all += done;
    }
    let cpu = (program.cpu() - cpu) / all as f64;
    json!({ "rate": median(&rates), "rates": rates, "publishes": publishes() - before, "server_cpu": cpu,
        "latency": connections.latency() })
}
