#!/usr/bin/env python3
"""What many HTTP checks cost: CPU, memory, lateness, and what DNS feels of it.

    cargo build --release
    python3 benches/checks/run.py [--checks N] [--targets N] [--kept-max N] [--interval S] [--seconds S] [--json FILE]
    python3 benches/checks/run.py --short

Registers 50,000 instances of 10,000 services, each with an HTTP check at an interval of 10 s, over the HTTP API. Each
check has a target of its own, a port on one of 16 loopback addresses (`--targets` below the number of checks lets
several share one); a few processes of targets.c serve them all, as many as the limit on open files asks for. A second
server has the same instances and no checks. `--named N` gives every N-th check's target the name localhost.

When every check has been probed twice, it measures for `--seconds`: CPU time (the kernel's count for the process),
resident memory, how late probes start (the server's own histogram), probes made, connections kept, names looked up.
Meanwhile both servers are asked over DNS in turns, one question at a time (latency.c). Server, targets and generator share
the machine's cores as they come. The second server was also asked alone before, when nothing was probed: that figure
(`quiet`) is printed, and is not the bound's, since the targets' work is missing in it too.

Prints JSON and a verdict; the exit status is 1 when a bound is missed:

- CPU under 0.6 of a core, memory under 600 MB
- no probe later than a second after it was due, none failed, and as many as the interval asks for
- connections kept at most `kept_max`, and as many as there are targets where those are fewer; every check of a target that
  has one is told when it breaks
- one lookup of a name within the time that it is remembered
- the 99th percentile of DNS at most 1.5 of that without checks (medians of the turns)

`--short` is CI's form: the same number of probes a second from a tenth of the checks, three for each target, for a few
seconds. Its bounds fail when the bound on connections, their sharing or the memory of names is switched off. DNS's 99th
percentile may be 3 times that without checks, for so few turns say little of it; that checks give way to DNS is a test's
(tests/it/checks.rs).

Needs cc, and room for 20,000 open files a process."""

import argparse
import json
import os
import resource
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", HERE.parents[1] / "target"))
BUILD = TARGET / "checks"
ROLLCALL = Path(os.environ.get("ROLLCALL_BIN", TARGET / "release" / "rollcall"))
TICK = os.sysconf("SC_CLK_TCK")
FIRST_ADDRESS = (127, 77, 0, 1)
FIRST_PORT, NAMED_PORT = 10_000, 30_000
INSTANCES = 5
# What --short means, unless said otherwise.
SHORT = {"checks": 5000, "interval": 1.0, "targets": 1666, "kept_max": 1000, "named": 5, "seconds": 8.0, "turn": 1.0, "quiet": 2}
# Seconds for which an address from the hosts file is remembered.
REMEMBERED = 5
# Open files that a process of targets has for its listeners; it needs as many again for connections at most.
LISTENERS_MAX = 8_000
FILES = 20_000
# Registrations: on so many connections, so many sent ahead of their answers.
CONNECTIONS, AHEAD = 4, 64


class Child:
    """A process of ours, with what it printed."""

    all = []

    def __init__(self, title, folder, *command):
        self.title = title
        self.log = open(folder / f"{title}.log", "w+")
        self.process = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL,
                                        stdout=self.log, stderr=self.log, start_new_session=True)
        self.pid = self.process.pid
        Child.all.append(self)

    def printed(self):
        self.log.seek(0)
        return self.log.read()

    def wait_for(self, word, seconds):
        deadline = time.monotonic() + seconds
        while word not in self.printed():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{self.title} did not say {word!r}; it printed:\n{self.printed()[-3000:]}")
            time.sleep(0.02)
        return self

    def cpu(self):
        """Seconds of CPU time so far, user and system."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return int(fields[11]) / TICK, int(fields[12]) / TICK

    def memory(self, what="VmRSS"):
        """Resident megabytes."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(what + ":"):
                return int(line.split()[1]) * 1024 / 1e6
        return 0.0

    def end(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class Server(Child):
    """Rollcall, keeping nothing."""

    def __init__(self, title, folder, kept_max):
        config = folder / f"{title}.toml"
        config.write_text(f"[checks]\nkept_max = {kept_max}\n")
        super().__init__(title, folder, ROLLCALL, "serve", "--config", config, "--ephemeral", "--node", title, "--http",
                         "127.0.0.1:0", "--dns", "127.0.0.1:0", "--log-level", "warn")
        self.wait_for("ready", 20)
        words = self.printed().split()
        self.http, self.dns = (next(int(word.rsplit(":", 1)[1]) for word in words[at:] if word.startswith("127."))
                               for at in (words.index("HTTP"), words.index("DNS")))

    def metrics(self):
        text = urllib.request.urlopen(f"http://127.0.0.1:{self.http}/metrics", timeout=30).read().decode()
        lines = (line.rsplit(" ", 1) for line in text.splitlines() if line.startswith("rollcall_"))
        return {name.removeprefix("rollcall_"): float(value) for name, value in lines}


def register(server, given, checked):
    """Registers every instance; with `checked`, each has its check."""
    bodies = []
    for k in range(given.checks):
        name, target = f"s{k // INSTANCES}", k % given.targets
        address = f"10.{k >> 16}.{k >> 8 & 255}.{k & 255}"
        body = {"ID": f"{name}-{k % INSTANCES}", "Name": name, "Address": address, "Port": 8080}
        if checked:
            # Neighbours are on other addresses.
            address, port = host(target % given.addresses), FIRST_PORT + target // given.addresses
            if given.named and target % given.named == 0:
                address, port = "localhost", NAMED_PORT + target // given.named
            url = f"http://{address}:{port}/health"
            body["Check"] = {"HTTP": url, "Interval": f"{given.interval:g}s", "Timeout": "5s"}
        text = json.dumps(body)
        bodies.append(f"PUT /v1/agent/service/register HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(text)}\r\n"
                      f"\r\n{text}".encode())
    errors = []

    def share(mine):
        with socket.create_connection(("127.0.0.1", server.http)) as connection:
            replies = connection.makefile("rb")
            for at in range(0, len(mine), AHEAD):
                batch = mine[at:at + AHEAD]
                connection.sendall(b"".join(batch))
                for _ in batch:
                    head = list(iter(replies.readline, b"\r\n"))
                    length = next((int(line.split(b":")[1]) for line in head
                                   if line.lower().startswith(b"content-length")), 0)
                    text = replies.read(length)
                    if b" 200 " not in head[0]:
                        errors.append(f"{head[0]!r} {text[:300]!r}")
                        return

    threads = [threading.Thread(target=share, args=(bodies[n::CONNECTIONS],)) for n in range(CONNECTIONS)]
    begun = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise SystemExit(f"a registration was refused: {errors[0]}")
    return time.monotonic() - begun


def until(what, seconds, done):
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            raise SystemExit(f"{what} did not come within {seconds} s")
        time.sleep(0.25)


def probes(metrics, outcome=""):
    return sum(value for name, value in metrics.items()
               if name.startswith("checks_probes_total{kind=\"http\"") and outcome in name)


def lookups(metrics):
    return sum(value for name, value in metrics.items() if name.startswith("checks_lookups_total"))


def latency(server, names, seconds, pause_us):
    done = subprocess.run([BUILD / "latency", "127.0.0.1", str(server.dns), names, str(INSTANCES), str(seconds),
                           str(pause_us)], capture_output=True, text=True, timeout=seconds + 30)
    if done.returncode != 0:
        raise SystemExit(done.stderr)
    found = json.loads(done.stdout)
    if found["lost"] or found["wrong"]:
        raise SystemExit(f"{server.title} lost or misanswered questions: {found}")
    return found


def lateness(before, after):
    """Probes that started later than so many seconds after they were due, by that time."""
    def buckets(metrics):
        prefix = "checks_probe_lateness_seconds_bucket{le=\""
        return {name.removeprefix(prefix).rstrip("\"}"): value for name, value in metrics.items()
                if name.startswith(prefix)}
    old, new = buckets(before), buckets(after)
    total = new["+Inf"] - old["+Inf"]
    return {le: total - (new[le] - old[le]) for le in new if le != "+Inf"}


def measure(given, checked, plain, targets, names):
    """The steady state."""
    before, begun = checked.metrics(), time.monotonic()
    cpu = {child: child.cpu() for child in (checked, *targets)}
    turns = {"checked": [], "plain": []}
    if given.turn:
        while time.monotonic() < begun + given.seconds:
            for title, server in (("checked", checked), ("plain", plain)):
                turns[title].append(latency(server, names, given.turn, given.pause))
    else:
        time.sleep(given.seconds)
    took, after = time.monotonic() - begun, checked.metrics()
    used = {child: [now - then for now, then in zip(child.cpu(), cpu[child])] for child in cpu}
    made = probes(after) - probes(before)
    return {
        "seconds": took,
        "cores": sum(used[checked]) / took,
        "cores_user": used[checked][0] / took,
        "cores_of_targets": sum(sum(used[child]) for child in targets) / took,
        "memory_mb": checked.memory(),
        "memory_peak_mb": checked.memory("VmHWM"),
        "memory_without_checks_mb": plain.memory() if plain else 0,
        "probes_a_second": made / took,
        "probes_failed": made - (probes(after, "passing") - probes(before, "passing")),
        "us_a_probe": sum(used[checked]) * 1e6 / made,
        "later_than_s": lateness(before, after),
        "lookups": lookups(after) - lookups(before),
        "kept": after["checks_kept"],
        "without_notice": after.get("checks_unkept", 0),
        "publishes": after["registry_publishes_total"] - before["registry_publishes_total"],
        "dns": turns,
    }


def host(number):
    return ".".join(map(str, FIRST_ADDRESS[:3])) + f".{FIRST_ADDRESS[3] + number}"


def start_targets(folder, given):
    """As few processes as the limit on open files allows, each with whole addresses."""
    ports = -(-given.targets // given.addresses)
    share = max(1, LISTENERS_MAX // ports)
    started = [Child(f"targets{first}", folder, BUILD / "targets", host(first), min(share, given.addresses - first),
                     FIRST_PORT, ports) for first in range(0, given.addresses, share)]
    if given.named:
        started.append(Child("named", folder, BUILD / "targets", "127.0.0.1", 1, NAMED_PORT,
                             -(-given.targets // given.named)))
    return [child.wait_for("listening", 60) for child in started]


def run(given, folder):
    names = folder / "names"
    names.write_text("".join(f"s{k}.service.internal\n" for k in range(given.checks // INSTANCES)))
    targets = start_targets(folder, given)
    plain, quiet = None, []
    if given.turn:
        plain = Server("plain", folder, given.kept_max)
        register(plain, given, False)
        latency(plain, names, 0.5, given.pause)
        quiet = [latency(plain, names, given.turn, given.pause) for _ in range(given.quiet)]
    checked = Server("checked", folder, given.kept_max)
    took = register(checked, given, True)
    begun = time.monotonic()
    until("a pass of every check", 120,
          lambda: checked.metrics().get("registry_checks{status=\"passing\"}", 0) == given.checks)
    passed = time.monotonic() - begun
    # The second probes are spread over an interval.
    until("the second probe of every check", 60 + 3 * given.interval,
          lambda: probes(checked.metrics(), "passing") >= 2 * given.checks)
    if given.perf:
        print(f"measuring: pid {checked.pid}", file=sys.stderr, flush=True)
    found = measure(given, checked, plain, targets, names)
    found["dns"]["quiet"] = quiet
    found["checks"], found["interval"] = given.checks, given.interval
    found["registered_in_s"], found["passed_after_s"] = took, passed
    return found


def summed_up(given, found):
    """What was found in few numbers, and what of it misses its bound."""
    dns = found["dns"]
    p99 = {title: statistics.median(turn["p99_us"] for turn in turns) for title, turns in dns.items() if turns}
    found["p99_us"] = p99
    found["p50_us"] = {title: statistics.median(t["p50_us"] for t in turns) for title, turns in dns.items() if turns}
    late = found["later_than_s"]
    due = given.checks / given.interval
    kept_wanted = min(given.targets, given.kept_max)
    bounds = [
        ("CPU in cores", found["cores"], 0.6),
        ("resident MB", found["memory_mb"], 600),
        ("probes later than 1 s", late[max((le for le in late if float(le) <= 1), key=float)], 0),
        ("probes that failed", found["probes_failed"], 0),
        ("probes not made, a second", due - found["probes_a_second"], due / 10),
        ("connections kept", found["kept"], kept_wanted),
        # Those whose probe is under way are not counted.
        ("connections missing", kept_wanted - found["kept"], kept_wanted / 5),
        # Each check of a target that has one is told, however many they are.
        ("checks without notice of a crash", found["without_notice"],
         given.checks * (1 - kept_wanted / given.targets) * 1.05),
    ]
    if given.named:
        # One as the measuring begins.
        bounds.append(("lookups of a name", found["lookups"], found["seconds"] // REMEMBERED + 1))
    if p99:
        bounds.append(("DNS 99th percentile to a server's without checks", p99["checked"] / p99["plain"],
                       3 if given.short else 1.5))
    found["bounds"] = [{"what": what, "is": is_, "at_most": most, "holds": is_ <= most} for what, is_, most in bounds]
    return all(bound["holds"] for bound in found["bounds"])


def compile_tools():
    BUILD.mkdir(parents=True, exist_ok=True)
    for program in ("targets", "latency"):
        done = subprocess.run(["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", BUILD / program,
                               HERE / f"{program}.c"], capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(done.stderr)


def main():
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--short", action="store_true", help="CI's form")
    words.add_argument("--checks", type=int, default=50_000)
    words.add_argument("--targets", type=int, help="default: one for each check")
    words.add_argument("--addresses", type=int, default=16)
    words.add_argument("--named", type=int, default=0, help="every so-manieth target has a name; default: none")
    words.add_argument("--kept-max", type=int, default=10_000)
    words.add_argument("--interval", type=float, default=10.0)
    words.add_argument("--seconds", type=float, default=40.0, help="of measuring in the steady state")
    words.add_argument("--turn", type=float, default=2.0, help="seconds of DNS for each server in turn; 0: no DNS")
    words.add_argument("--quiet", type=int, default=5, help="turns of DNS before anything is probed")
    words.add_argument("--pause", type=int, default=500, help="microseconds between an answer and the next question")
    words.add_argument("--perf", action="store_true", help="says when the measuring begins, and of which process")
    words.add_argument("--json", type=Path, help="writes what was found there too")
    if "--short" in sys.argv:
        words.set_defaults(**SHORT)
    given = words.parse_args()
    given.targets = min(given.targets or given.checks, given.checks)
    given.checks -= given.checks % INSTANCES
    if not ROLLCALL.is_file():
        raise SystemExit(f"no server at {ROLLCALL}: cargo build --release")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard < FILES:
        # Only root may, and not everywhere.
        resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, FILES))
    compile_tools()
    with tempfile.TemporaryDirectory(prefix="rollcall-checks-") as scratch:
        try:
            found = run(given, Path(scratch))
        finally:
            for child in reversed(Child.all):
                child.end()
    good = summed_up(given, found)
    if given.json:
        given.json.write_text(json.dumps(found, indent=1))
    print(json.dumps({key: value for key, value in found.items() if key not in ("dns", "bounds")}, indent=1))
    for bound in found["bounds"]:
        print(f"{'ok  ' if bound['holds'] else 'FAIL'}  {bound['what']}: {bound['is']:.3g}, at most {bound['at_most']:g}")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
