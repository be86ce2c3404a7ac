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
import http.client
import json
import os
import random
import re
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BUILD = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "peers"
ROLLCALL = Path(os.environ.get("ROLLCALL_BIN", BUILD.parent / "release" / "rollcall"))

SERVER_CORE, LOAD_CORE = "0", "1"
INSTANCES = 3
DOMAIN = "internal"
TICK = os.sysconf("SC_CLK_TCK")
CONNECTIONS = 16


# ---- what is served

def instances(service):
    """(address, port) of each instance of service number `service`; addresses of RFC 2544's benchmark range."""
    for k in range(INSTANCES):
        number = service * INSTANCES + k + 1
        yield f"198.{18 + (number >> 16)}.{number >> 8 & 255}.{number & 255}", 8000 + k


def name(service):
    return f"svc-{service:05}"


def target(address):
    return "".join(f"{int(part):02x}" for part in address.split(".")) + f".addr.dc1.{DOMAIN}."


def zone(services):
    """The same records as a master file."""
    lines = [f"$ORIGIN {DOMAIN}.", "$TTL 5", "@ 1 SOA ns hostmaster 1 3600 600 86400 1", "@ NS ns", "ns A 127.0.0.1"]
    for service in range(services):
        for address, port in instances(service):
            lines += [f"{name(service)}.service A {address}",
                      f"{name(service)}.service SRV 1 1 {port} {target(address)}",
                      f"{target(address)} A {address}"]
    return "\n".join(lines) + "\n"


def questions(services):
    """A and SRV of every service, half and half, with the number of records in the answer."""
    return "".join(f"{name(service)}.service.{DOMAIN} {kind} {INSTANCES}\n"
                   for service in range(services) for kind in ("A", "SRV"))


# ---- servers

def free_port():
    """A port that is free for UDP and TCP on loopback now."""
    while True:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tcp, \
                socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            tcp.bind(("127.0.0.1", 0))
            try:
                udp.bind(tcp.getsockname())
                return tcp.getsockname()[1]
            except OSError:
                continue


class Server:
    """A server pinned to the server core, as a child with its own folder."""

    all = []

    def __init__(self, title, folder, command, port, checked=True):
        self.title, self.port, self.checked = title, port, checked
        self.log = open(folder / "log", "w+")
        self.child = subprocess.Popen(["taskset", "-c", SERVER_CORE, *map(str, command)], cwd=folder,
                                      stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
                                      start_new_session=True)
        Server.all.append(self)

    def processes(self):
        """Its own pid and those of its descendants."""
        parents = {}
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                try:
                    parents[int(entry)] = int(stat(entry)[1])
                except (OSError, IndexError):
                    continue
        found = [self.child.pid]
        for pid in found:
            found += [child for child, parent in parents.items() if parent == pid]
        return found

    def cpu(self):
        """Seconds of CPU time, user and system, of all its threads and processes."""
        total = 0
        for pid in self.processes():
            try:
                fields = stat(pid)
                total += int(fields[11]) + int(fields[12])
            except OSError:
                continue
        return total / TICK

    def wait(self, services):
        """Waits until it answers for the last service."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if self.child.poll() is not None:
                break
            answer = ask(self.port, f"{name(services - 1)}.service.{DOMAIN}", 33)
            if answer and int.from_bytes(answer[6:8], "big") == INSTANCES:
                return self
            time.sleep(0.05)
        raise SystemExit(f"{self.title} does not answer; it printed:\n{self.printed()}")

    def printed(self):
        self.log.seek(0)
        return self.log.read()[-3000:]

    def end(self):
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGTERM)
            try:
                self.child.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(self.child.pid, signal.SIGKILL)
                self.child.wait()
        self.log.close()


def stat(pid):
    """/proc/PID/stat from the state on; a command name may hold spaces."""
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()


def ask(port, owner, kind, timeout=0.5):
    """One query over UDP; the bytes of the answer, or None."""
    wire = struct.pack(">6H", 4711, 0x0100, 1, 0, 0, 0)
    wire += b"".join(bytes([len(label)]) + label.encode() for label in owner.rstrip(".").split("."))
    wire += b"\0" + struct.pack(">2H", kind, 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(timeout)
        try:
            sock.connect(("127.0.0.1", port))
            sock.send(wire)
            return sock.recv(4096)
        except OSError:
            return None


def knot(folder, services):
    port = free_port()
    (folder / "zone").write_text(zone(services))
    (folder / "knot.conf").write_text(f"""
server:
    rundir: {folder}
    listen: 127.0.0.1@{port}
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
database:
    storage: {folder}/db
log:
  - target: stderr
    any: warning
zone:
  - domain: {DOMAIN}
    file: {folder}/zone
    zonefile-load: whole
""")
    version = re.search(r"[\d.]+", output("knotd", "--version")).group()
    return Server(f"Knot {version}, one worker", folder, ["knotd", "-c", folder / "knot.conf"], port)


def nsd(folder, services):
    """With minimal responses NSD would leave out the addresses of SRV targets, so it runs without them, which adds the
    zone's NS set and its address to each answer."""
    port = free_port()
    (folder / "zone").write_text(zone(services))
    (folder / "nsd.conf").write_text(f"""
server:
    ip-address: 127.0.0.1@{port}
    server-count: 1
    username: ""
    zonesdir: "{folder}"
    database: ""
    pidfile: "{folder}/pid"
    zonelistfile: "{folder}/zone.list"
    xfrdfile: "{folder}/xfrd.state"
    xfrdir: "{folder}"
    minimal-responses: no
    rrl-ratelimit: 0
    verbosity: 0
remote-control:
    control-enable: no
zone:
    name: {DOMAIN}
    zonefile: zone
""")
    version = re.search(r"version ([\d.]+)", output("nsd", "-v")).group(1)
    return Server(f"NSD {version}, one server", folder, ["nsd", "-d", "-c", folder / "nsd.conf"], port)


def rollcall(folder, services):
    port, http_port = free_port(), free_port()
    server = Server("Rollcall", folder, [ROLLCALL, "serve", "--data-dir", folder / "data", "--http",
                                         f"127.0.0.1:{http_port}", "--dns", f"127.0.0.1:{port}"], port)
    wait_ready(server, http_port)
    begun = time.monotonic()
    register(http_port, services)
    took = time.monotonic() - begun
    server.note = (f"Rollcall took {services * INSTANCES:,} durable registrations over {CONNECTIONS} kept connections "
                   f"in {took:.1f} s ({services * INSTANCES / took:,.0f} a second)")
    return server


def wait_ready(server, port):
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and server.child.poll() is None:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
            connection.request("GET", "/ready")
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        time.sleep(0.02)
    raise SystemExit(f"{server.title} is not ready; it printed:\n{server.printed()}")


def register(port, services):
    """Registers every instance, a share on each connection."""
    errors = []

    def share(first):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        for service in range(first, services, CONNECTIONS):
            for k, (address, instance_port) in enumerate(instances(service)):
                body = json.dumps({"ID": f"{name(service)}-{k}", "Name": name(service), "Address": address,
                                   "Port": instance_port})
                connection.request("PUT", "/v1/agent/service/register", body)
                answer = connection.getresponse()
                text = answer.read()
                if answer.status != 200:
                    errors.append(f"{answer.status} {text[:200]!r}")
                    return
        connection.close()

    threads = [threading.Thread(target=share, args=(first,)) for first in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise SystemExit(f"Rollcall refused a registration: {errors[0]}")


def output(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout + done.stderr


# ---- the same answers

def decode(wire):
    """The records of an answer, as (section, type, owner, data) with names spelled out, in no order."""
    def read_name(at):
        labels, end, jumps = [], None, 0
        while wire[at]:
            if wire[at] >= 0xC0:
                end = end or at + 2
                at = (wire[at] & 0x3F) << 8 | wire[at + 1]
                jumps += 1
                if jumps > 50:
                    raise ValueError("compression loop")
                continue
            labels.append(wire[at + 1:at + 1 + wire[at]].decode().lower())
            at += wire[at] + 1
        return ".".join(labels) + ".", end or at + 1

    counts = struct.unpack(">4H", wire[4:12])
    _, at = read_name(12)
    at += 4
    found = set()
    for section, count in enumerate(counts[1:]):
        for _ in range(count):
            owner, at = read_name(at)
            kind, _, _, length = struct.unpack(">2HIH", wire[at:at + 10])
            at += 10
            fixed = {2: 0, 33: 6}.get(kind, length)
            data = wire[at:at + fixed].hex() + ("" if fixed == length else read_name(at + fixed)[0])
            found.add((section, kind, owner, data))
            at += length
    return found


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


# ---- measuring

def measure(server, seconds, file):
    """One round of one server: what the generator printed, with the server's CPU time."""
    before = server.cpu()
    done = subprocess.run(["taskset", "-c", LOAD_CORE, BUILD / "load", *([] if server.checked else ["-n"]), "-l",
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
    done = subprocess.run(["taskset", "-c", LOAD_CORE, "dnsperf", "-s", "127.0.0.1", "-p", str(server.port), "-d", file,
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
    folder = scratch / "echo"
    folder.mkdir()
    port = free_port()
    echo = Server("bare echo (the kernel's part)", folder, [BUILD / "echo", port], port, checked=False)
    same_answers(servers, given.services)
    servers.append(echo)

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
        if hasattr(server, "note"):
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
