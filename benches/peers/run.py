#!/usr/bin/env python3
"""Rollcall beside Debian's Knot and NSD and beside a bare echo, on the same names and records, in one run.

    python3 benches/peers/run.py [--rounds N] [--seconds S] [--services N] [--short] [--json FILE]

Each server runs on core 0 with one worker, the generator (load.c, 200 queries outstanding on one socket) on core 1,
everything on loopback. A round asks each server in turn, in an order that changes; what is compared is the CPU time
that the server's processes used for each answered query, so that a busy machine moves all of them alike. Every
answer is checked. Rollcall is loaded through its HTTP API; Knot and NSD get a zone file with the same records.

Needs cc, taskset, knotd, nsd and a release build of Rollcall (`cargo build --release`); dnsperf's figure is printed
beside ours when it is installed. `--short` is the form that CI runs: it has to run through, and the ratios have to be
sane."""

import argparse
import json
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from records import DOMAIN, INSTANCES, ask, decode, name, questions
from servers import BUILD, ROLLCALL, Server, echo, knot, nsd, rollcall

HERE = Path(__file__).resolve().parent
CORE = "1"


def same_answers(servers, services):
    """All servers have the same records for a sample of the questions, but for the NS set that NSD adds."""
    for service in random.Random(1).sample(range(services), min(services, 50)):
        for kind in (1, 33):
            owner = f"{name(service)}.service.{DOMAIN}"
            seen = {server.title: {record for record in decode(ask(server.port, owner, kind, 2))
                                   if record[0] != 1 and record[2] != f"ns.{DOMAIN}."}
                    for server in servers if server.checked}
            if len({frozenset(records) for records in seen.values()}) != 1:
                raise SystemExit(f"{owner} type {kind}: the servers differ:\n" +
                                 "\n".join(f"{title}: {sorted(records)}" for title, records in seen.items()))


def measure(server, seconds, file):
    """One round of one server: what the generator printed, with the server's CPU time."""
    before = server.cpu()
    done = subprocess.run(["taskset", "-c", CORE, BUILD / "load", *([] if server.checked else ["-n"]), "-l",
                           str(seconds), "127.0.0.1", str(server.port), file], capture_output=True, text=True,
                          timeout=seconds + 30)
    if done.returncode != 0:
        raise SystemExit(f"the generator failed: {done.stderr}")
    found = json.loads(done.stdout)
    found["cpu"] = server.cpu() - before
    found["qps"] = found["answered"] / found["seconds"]
    found["us"] = found["cpu"] * 1e6 / max(found["answered"], 1)
    return found


def interval(ours, theirs, tries=4000):
    """The ratio of the medians, and its 95 % interval by resampling the rounds."""
    chance = random.Random(7)
    rounds = range(len(ours))
    ratios = []
    for _ in range(tries):
        sample = [chance.choice(rounds) for _ in rounds]
        ratios.append(statistics.median(theirs[i] for i in sample) / statistics.median(ours[i] for i in sample))
    ratios.sort()
    return statistics.median(theirs) / statistics.median(ours), ratios[tries // 40], ratios[-tries // 40 - 1]


def dnsperf(server, seconds, file):
    """Queries a second as dnsperf sees them, or None."""
    if not shutil.which("dnsperf") or not server.checked:
        return None
    done = subprocess.run(["taskset", "-c", CORE, "dnsperf", "-s", "127.0.0.1", "-p", str(server.port), "-d", file,
                           "-l", str(max(1, round(seconds))), "-c", "1", "-q", "200"], capture_output=True, text=True)
    found = re.search(r"Queries per second:\s+([\d.]+)", done.stdout)
    return float(found.group(1)) if found else None


def compile_tools():
    BUILD.mkdir(parents=True, exist_ok=True)
    for program in ("load", "echo"):
        done = subprocess.run(["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", BUILD / program, HERE / f"{program}.c"],
                              capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(done.stderr)


def table(servers, results, perf):
    ours = [one["us"] for one in results["Rollcall"]] if "Rollcall" in results else None
    lines = ["| server | CPU µs/query | against Rollcall [95 %] | answered/s | dnsperf/s | lost | wrong |",
             "|---|---|---|---|---|---|---|"]
    for server in servers:
        rounds = results[server.title]
        us = [one["us"] for one in rounds]
        against = "1"
        if ours is None:
            against = "-"
        elif server.title != "Rollcall":
            middle, low, high = interval(ours, us)
            against = f"{middle:.2f} [{low:.2f}, {high:.2f}]"
        speed = f"{perf[server.title]:,.0f}" if perf.get(server.title) else "-"
        lines.append(f"| {server.title} | {statistics.median(us):.2f} | {against} | "
                     f"{statistics.median(one['qps'] for one in rounds):,.0f} | {speed} | "
                     f"{sum(one['dropped'] for one in rounds)} | {sum(one['wrong'] for one in rounds)} |")
    return "\n".join(lines)


def sane(results):
    """What CI holds a short run to: no more than that nothing is badly off."""
    problems = []
    for title, rounds in results.items():
        answered = sum(one["answered"] for one in rounds)
        lost = sum(one["dropped"] for one in rounds)
        if sum(one["wrong"] for one in rounds):
            problems.append(f"{title} gave wrong answers")
        if answered < 1000 * len(rounds):
            problems.append(f"{title} answered only {answered}")
        if lost > answered / 50:
            problems.append(f"{title} lost {lost} of {answered}")
    middle = {title: statistics.median(one["us"] for one in rounds) for title, rounds in results.items()}
    peers = [value for title, value in middle.items() if title.startswith(("Knot", "NSD"))]
    if "Rollcall" in middle and middle["Rollcall"] > 5 * min(peers):
        problems.append(f"Rollcall's {middle['Rollcall']:.2f} µs are over five times the best peer's {min(peers):.2f}")
    return problems


def main():
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--rounds", type=int, default=9)
    words.add_argument("--seconds", type=float, default=3.0, help="of load for each server in each round")
    words.add_argument("--services", type=int, default=10_000)
    words.add_argument("--short", action="store_true", help="3 rounds of 1 s with 1,000 services, and a verdict")
    words.add_argument("--json", type=Path, help="writes every round's numbers there")
    words.add_argument("--without-rollcall", action="store_true", help="to check the rest")
    given = words.parse_args()
    if given.short:
        given.rounds, given.seconds, given.services = 3, 1.0, 1000
    if not (1 <= given.rounds <= 100 and 0.5 <= given.seconds <= 60 and 1 <= given.services <= 40_000):
        words.error("1 to 100 rounds, 0.5 to 60 seconds, 1 to 40000 services")
    for tool in ("cc", "taskset", "knotd", "nsd"):
        if not shutil.which(tool):
            raise SystemExit(f"{tool} is not installed")
    if not ROLLCALL.is_file() and not given.without_rollcall:
        raise SystemExit(f"no server at {ROLLCALL}: cargo build --release")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    compile_tools()

    with tempfile.TemporaryDirectory(prefix="rollcall-peers-") as scratch:
        try:
            run(given, Path(scratch))
        finally:
            for server in Server.all:
                server.end()


def run(given, scratch):
    file = scratch / "questions"
    file.write_text(questions(given.services))
    # dnsperf knows no third column.
    plain = scratch / "dnsperf-questions"
    plain.write_text("".join(" ".join(line.split()[:2]) + "\n" for line in file.read_text().splitlines()))
    servers = []
    for make in ([] if given.without_rollcall else [rollcall]) + [knot, nsd]:
        folder = scratch / make.__name__
        folder.mkdir()
        servers.append(make(folder, given.services).wait(given.services))
    same_answers(servers, given.services)
    folder = scratch / "echo"
    folder.mkdir()
    servers.append(echo(folder, given.services))

    results = {server.title: [] for server in servers}
    for server in servers:
        measure(server, 0.5, file)
    for turn in range(given.rounds):
        for k in range(len(servers)):
            server = servers[(turn + k) % len(servers)]
            results[server.title].append(measure(server, given.seconds, file))
        print(f"round {turn + 1} of {given.rounds}: " +
              ", ".join(f"{server.title.split(',')[0]} {results[server.title][-1]['us']:.2f}" for server in servers),
              file=sys.stderr, flush=True)
    perf = {server.title: dnsperf(server, given.seconds, plain) for server in servers}

    print(f"\n{given.services:,} services of {INSTANCES} instances, A and SRV (with additional addresses) half and half, "
          f"200 queries outstanding, medians of {given.rounds} interleaved rounds of {given.seconds:g} s, server and "
          f"generator on a core each:\n")
    print(table(servers, results, perf))
    for server in servers:
        if server.note:
            print(f"\n{server.note}.")
    if given.json:
        given.json.write_text(json.dumps({"rounds": results, "dnsperf": perf}, indent=1))
    if given.short:
        problems = sane(results)
        for problem in problems:
            print("FAIL  " + problem)
        if problems:
            sys.exit(1)


if __name__ == "__main__":
    main()
