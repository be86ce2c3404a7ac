#!/usr/bin/env python3
"""Restarts without a gap, under load: what is lost, what is wrong, what was acknowledged and is not there.

    python3 benches/restart/run.py [--services N] [--seconds S] [--restarts N] [--share F] [--json FILE] [--short]

A server of N services of three instances on core 0; an open-loop generator (../peers/pace.c) on core 1 asks at a share of
the peak that the closed loop (../peers/load.c) has just shown, for S seconds, while `rollcall restart` is run again and
again, evenly. Meanwhile clients register over kept connections: what was acknowledged has to be in DNS at once, and in the
catalog at the end; what was refused or got no answer must not be there. Another client compares the addresses of answers with
those registered. Prints JSON with every figure and a list of `bounds` ({"what", "is", "at_most"}); the exit status is 1 when
one of them is missed.

Needs cc, taskset and a release build of Rollcall (`cargo build --release`; ROLLCALL_BIN names another). `--short` is for
CI: 500 services, three restarts in 6 s."""

import argparse
import http.client
import json
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

PEERS = Path(__file__).resolve().parents[1] / "peers"
sys.path.insert(0, str(PEERS))

import measure  # noqa: E402
import servers  # noqa: E402
import world  # noqa: E402
from records import A, ask, decode, instances, plain  # noqa: E402

REGISTRARS = 4
# Between two registrations of one client: they are to be under way at any moment, not to be the load.
PAUSE = 0.02


class Registrar(threading.Thread):
    """Registers services of its own over a kept connection until told to end."""

    def __init__(self, server, name, end):
        super().__init__()
        self.server, self.name_, self.end = server, name, end
        self.acknowledged, self.refused, self.unanswered, self.invisible = [], [], [], []
        self.lost, self.slowest = 0, 0.0

    def run(self):
        connection, number = None, 0
        while not self.end.is_set():
            connection = connection or http.client.HTTPConnection("127.0.0.1", self.server.http, timeout=60)
            service = f"reg-{self.name_}-{number}"
            number += 1
            body = json.dumps({"Name": service, "Address": "192.0.2.1", "Port": 80})
            begun = time.monotonic()
            try:
                connection.request("PUT", "/v1/agent/service/register", body)
                answer = connection.getresponse()
                answer.read()
            except (OSError, http.client.HTTPException):
                # Closed under it, with no answer: the client does not know.
                self.unanswered.append(service)
                connection.close()
                connection = None
                continue
            self.slowest = max(self.slowest, time.monotonic() - begun)
            if answer.status == 200:
                self.acknowledged.append(service)
                seen = ask(self.server.port, f"{service}.service.internal", A, 2)
                if seen is None:
                    self.lost += 1
                elif seen[7] != 1:
                    self.invisible.append(service)
            else:
                self.refused.append(service)
            if answer.getheader("Connection") == "close":
                connection.close()
                connection = None
            time.sleep(PAUSE)


class Checker(threading.Thread):
    """Compares the addresses of answers with those registered until told to end."""

    def __init__(self, server, services, end):
        super().__init__()
        self.server, self.end = server, end
        self.expected = {name: {v4 for v4, _, _ in found} for name, found in instances(services)}
        self.services, self.asked, self.wrong, self.lost = plain(services), 0, [], 0

    def run(self):
        chance = random.Random(3)
        while not self.end.is_set():
            service = chance.choice(self.services)
            answer = ask(self.server.port, f"{service}.service.internal", A, 2)
            self.asked += 1
            if answer is None:
                self.lost += 1
                continue
            found = {".".join(str(octet) for octet in bytes.fromhex(data))
                     for section, kind, _, data in decode(answer)[1] if section == 0 and kind == A}
            if found != self.expected[service]:
                self.wrong.append(service)
            time.sleep(0.005)


def restart(folder):
    """Runs it; the new process and how long it took."""
    begun = time.monotonic()
    done = subprocess.run([servers.ROLLCALL, "restart", "--data-dir", folder / "data"], capture_output=True, text=True)
    took = time.monotonic() - begun
    if done.returncode != 0:
        raise SystemExit(f"the restart failed: {done.stdout}{done.stderr}")
    return int(re.search(r"process (\d+) serves now", done.stdout).group(1)), took


def run(given, scratch):
    server = world.rollcall(scratch, given.services)
    questions = world.questions(scratch, given.services)["live"]
    peak = statistics.median(measure.load(server, questions, given.warm)["qps"] for _ in range(3))
    rate = peak * given.share
    measure.say(f"{given.services:,} services, peak {peak:,.0f}/s, asking {rate:,.0f}/s for {given.seconds:g} s")

    end = threading.Event()
    registrars = [Registrar(server, name, end) for name in range(REGISTRARS)]
    checker = Checker(server, given.services, end)
    clients = [*registrars, checker]
    drops = server.drops()
    generator = measure.generator("pace", "-r", rate, "-l", given.seconds, "127.0.0.1", server.port, questions)
    # The clients share the server's core, and are to take only what it leaves.
    os.nice(19)
    for client in clients:
        client.start()
    pid, times = None, []
    try:
        begun = time.monotonic()
        for number in range(given.restarts):
            time.sleep(max(0, begun + (number + 0.5) * given.seconds / given.restarts - time.monotonic()))
            pid, took = restart(scratch / "rollcall")
            times.append(took)
        found = measure.finish(generator, given.seconds)
    finally:
        end.set()
        for client in clients:
            client.join()
        catalog = servers.get(server.http, "/v1/catalog/services")[1] if pid else "{}"
        if pid:
            os.kill(pid, signal.SIGTERM)
    kept = json.loads(catalog)
    of_all = lambda key: [service for registrar in registrars for service in getattr(registrar, key)]
    acknowledged, refused, unanswered = map(of_all, ("acknowledged", "refused", "unanswered"))
    dropped = server.drops() - drops
    lost = found["sent"] - found["answered"] - found["wrong"] - found["own_drops"]
    lost += checker.lost + sum(registrar.lost for registrar in registrars)
    return {
        "services": given.services, "peak": round(peak), "rate": round(rate), "seconds": given.seconds,
        "restarts": len(times), "restart_ms": [round(took * 1000) for took in times],
        "sent": found["sent"] + checker.asked, "answered": found["answered"], "lost": lost,
        "dropped_at_socket": dropped, "own_drops": found["own_drops"], "generator_behind_ms": found["behind_ms"],
        "wrong": found["wrong"] + found["stray"] + len(checker.wrong),
        "registrations": {
            "acknowledged": len(acknowledged), "kept": sum(service in kept for service in acknowledged),
            "lost": sum(service not in kept for service in acknowledged),
            "not_in_dns_when_acknowledged": len(of_all("invisible")),
            "refused": len(refused), "closed_without_answer": len(unanswered),
            "carried_out_and_not_acknowledged": sum(service in kept for service in refused + unanswered),
            "slowest_ms": round(max(registrar.slowest for registrar in registrars) * 1000),
        },
    }


def bounds(found):
    registrations = found["registrations"]
    return [
        {"what": f"queries lost over {found['restarts']} restarts", "is": found["lost"], "at_most": 0},
        {"what": "wrong answers", "is": found["wrong"], "at_most": 0},
        {"what": "acknowledged registrations lost", "is": registrations["lost"], "at_most": 0},
        {"what": "registrations not in DNS when acknowledged", "is": registrations["not_in_dns_when_acknowledged"],
         "at_most": 0},
        {"what": "registrations carried out and not acknowledged",
         "is": registrations["carried_out_and_not_acknowledged"], "at_most": 0},
    ]


def main():
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--services", type=int, default=10_000)
    words.add_argument("--seconds", type=float, default=30.0)
    words.add_argument("--restarts", type=int, default=10)
    words.add_argument("--share", type=float, default=0.5, help="of the peak")
    words.add_argument("--json", type=Path, help="writes the result there too")
    words.add_argument("--short", action="store_true", help="500 services, three restarts in 6 s")
    given = words.parse_args()
    given.warm = 2.0
    if given.short:
        given.services, given.seconds, given.restarts, given.warm = 500, 6.0, 3, 0.5
    for tool in ("cc", "taskset"):
        if not shutil.which(tool):
            raise SystemExit(f"{tool} is not installed")
    if not servers.ROLLCALL.is_file():
        raise SystemExit(f"no server at {servers.ROLLCALL}: cargo build --release")
    servers.BUILD.mkdir(parents=True, exist_ok=True)
    for program in ("load", "pace", "play"):
        measure.run("cc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", servers.BUILD / program, PEERS / f"{program}.c")
    with tempfile.TemporaryDirectory(prefix="rollcall-restart-") as scratch:
        try:
            found = run(given, Path(scratch))
        finally:
            servers.end_all()
    found["bounds"] = bounds(found)
    text = json.dumps(found, indent=1)
    print(text)
    if given.json:
        given.json.write_text(text)
    missed = [bound["what"] for bound in found["bounds"] if bound["is"] > bound["at_most"]]
    if missed:
        raise SystemExit("missed: " + ", ".join(missed))


if __name__ == "__main__":
    main()
