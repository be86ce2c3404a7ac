"""One measurement, and what can be said of many: rounds, medians, ratios with their intervals."""

import json
import os
import random
import re
import shutil
import statistics
import subprocess
import sys

from servers import BUILD, HERE, ROLLCALL

CORE = "1"


def say(text):
    """Progress, beside the result."""
    print(text, file=sys.stderr, flush=True)


def build():
    """The generators and the echo with cc, CoreDNS with Go."""
    BUILD.mkdir(parents=True, exist_ok=True)
    for program in ("load", "pace", "play", "echo"):
        run("cc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", BUILD / program, HERE / f"{program}.c")
    say("building CoreDNS (the first time takes a minute)")
    run("go", "build", "-C", HERE / "coredns", "-mod=readonly", "-o", BUILD / "coredns", ".")


def run(*command):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{command[0]} failed:\n{done.stderr}")
    return done.stdout


def own_bench(*words, **more):
    """Runs another of the project's benches against our binary, its progress beside ours; gives its status and what it printed.
    Where it has bounds, the status says whether they were met, which is judged here."""
    words = list(map(str, words))
    say("running " + " ".join(words))
    done = subprocess.run(words, cwd=HERE.parents[1], stdout=subprocess.PIPE, text=True,
                          env={**os.environ, "ROLLCALL_BIN": str(ROLLCALL)})
    return done.returncode, done.stdout


def cargo_bench(name, *options):
    """One in Rust: its status, and the JSON that it printed, if any."""
    status, printed = own_bench("cargo", "bench", "--quiet", "--bench", name, "--", *options)
    return status, json.loads(printed[printed.index("{"):]) if "{" in printed else {}


def python_bench(name, given, scratch):
    """One in a folder beside this: the JSON that it wrote."""
    file = scratch / f"{name}.json"
    status, _ = own_bench("python3", HERE.parent / name / "run.py", "--json", file, *(["--short"] if given.short else []))
    if not file.exists():
        raise SystemExit(f"the bench {name} failed with status {status}")
    return json.loads(file.read_text())


def generator(program, *arguments):
    """A generator on its core; it prints one line of JSON."""
    return subprocess.Popen(["taskset", "-c", CORE, str(BUILD / program), *map(str, arguments)],
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(child, seconds):
    out, complaint = child.communicate(timeout=seconds + 60)
    if child.returncode != 0:
        raise SystemExit(f"the generator failed: {complaint}")
    if complaint:
        say(complaint.strip())
    return json.loads(out)


def play(server, file, seconds=600):
    """Plays requests once through to Rollcall's HTTP port, as fast as it takes them."""
    done = finish(generator("play", "-c", 16, "-l", seconds, "127.0.0.1", server.http, file), seconds)
    if done["refused"] or done["ok"] != done["sent"]:
        raise SystemExit(f"{server.title} refused requests: {done}")
    return done


def load(server, file, seconds, *options):
    """One round of one server, closed loop: what the generator printed, with the server's CPU time."""
    options = list(options) if server.checked else ["-n"]
    before, thread = server.cpu(), server.udp_cpu()
    found = finish(generator("load", *options, "-l", seconds, "127.0.0.1", server.port, file), seconds)
    found["cpu"] = server.cpu() - before
    found["qps"] = found["answered"] / found["seconds"]
    found["busy"] = found["cpu"] / found["seconds"]
    found["us"] = found["cpu"] * 1e6 / max(found["answered"], 1)
    found["udp_us"] = (server.udp_cpu() - thread) * 1e6 / max(found["answered"], 1)
    if found["wrong"] or not found["answered"]:
        raise SystemExit(f"{server.title} answered wrongly: {found}")
    return found


def interleave(rounds, measurements, what):
    """Does each of the named measurements once a round, in an order that changes, after one that is thrown away; gives
    their results by name. A measurement is a function of nothing."""
    names = list(measurements)
    results = {name: [] for name in names}
    for name in names:
        measurements[name]()
    for turn in range(rounds):
        for k in range(len(names)):
            name = names[(turn + k) % len(names)]
            results[name].append(measurements[name]())
        say(f"{what}: round {turn + 1} of {rounds}")
    return results


def median(rounds, key):
    return statistics.median(one[key] for one in rounds)


def ratio(ours, theirs, key="us", tries=4000):
    """Our median over the least of theirs (a list of servers' rounds), with its 95 % interval by resampling the rounds,
    the same for all since they were interleaved: (middle, low, high)."""
    def of(sample):
        middle = lambda rounds: statistics.median(rounds[i][key] for i in sample)
        return middle(ours) / min(middle(rounds) for rounds in theirs)

    chance = random.Random(7)
    rounds = range(min(len(one) for one in [ours, *theirs]))
    found = sorted(of([chance.choice(rounds) for _ in rounds]) for _ in range(tries))
    return of(rounds), found[tries // 40], found[-tries // 40 - 1]


def dnsperf(server, seconds, file):
    """Queries a second as dnsperf sees them, or None."""
    if not shutil.which("dnsperf") or not server.checked:
        return None
    done = subprocess.run(["taskset", "-c", CORE, "dnsperf", "-s", "127.0.0.1", "-p", str(server.port), "-d", file,
                           "-l", str(max(1, round(seconds))), "-c", "1", "-q", "200"], capture_output=True, text=True)
    found = re.search(r"Queries per second:\s+([\d.]+)", done.stdout)
    return float(found.group(1)) if found else None
