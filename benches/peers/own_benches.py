"""Targets 5 to 8 and 10: measured by benches of their own (benches/million.rs, writes.rs, checks, restart), judged
here."""

import json
import os
import subprocess
import time

import servers
from measure import say
from records import A, ask
from servers import HERE, ROLLCALL
from verdict import Target, rows

REPOSITORY = HERE.parents[1]
MS = 1000


def command(*words):
    """Runs one of the benches; its progress goes where ours goes. Gives what it printed, and its status."""
    words = list(map(str, words))
    say("running " + " ".join(words))
    done = subprocess.run(words, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True,
                          env={**os.environ, "ROLLCALL_BIN": str(ROLLCALL)})
    return done.stdout, done.returncode


def cargo_bench(name, *options):
    out, status = command("cargo", "bench", "--quiet", "--bench", name, "--", *options)
    if status != 0:
        raise SystemExit(f"the bench {name} failed")
    return json.loads(out[out.index("{"):]) if "{" in out else {}


def million(given, scratch):
    """Target 5."""
    count = 50_000 if given.short else 1_000_000
    shape = ["--instances", count, "--services", count // 10, "--nodes", count // 100]
    found = cargo_bench("million", *shape, "--server", ROLLCALL, "--starts", 1 if given.short else 3)
    few = visible(given, 1000)
    many = visible(given, count)
    worst = max(found["clean"]["rss_kib"], found["killed"]["rss_kib"]) * 1024 / 1e6
    targets = [
        Target("5", f"resident memory with {count:,} instances", worst, 900, unit="MB", short=120),
        Target("5", "from exec to a right answer, after a clean end", found["clean"]["answer_ms"], 4 * MS, unit="ms",
               short=500),
        Target("5", "from exec to a right answer, after SIGKILL", found["killed"]["answer_ms"], 4 * MS, unit="ms",
               short=500),
        Target("5", "acknowledged registrations lost by SIGKILL", found["killed"]["lost"], 0),
        Target("5", f"99th percentile of registration to visible with {count:,} instances, to that with 1,000",
               many["p99"] / few["p99"], 2, short=4),
    ]
    table = rows([f"{count:,} instances in {count // 10:,} services", "exec to answer, ms", "MB resident", "MB at most"],
                 [["Rollcall, " + how, f"{one['answer_ms']:,}", f"{one['rss_kib'] * 1024 / 1e6:,.0f}",
                   f"{one['peak_kib'] * 1024 / 1e6:,.0f}"]
                  for how, one in (("after a clean end", found["clean"]), ("after SIGKILL", found["killed"]))] +
                 [nsd(scratch, shape)])
    return targets, [table], {"million": found, "visible": {"few": few, "many": many}}


def visible(given, instances):
    """The times from a registration to the first answer that has it, in microseconds."""
    return cargo_bench("writes", "--registrations", 2000, "--seconds", 0.5, "--rounds", 200 if given.short else 1000,
                       "--instances", instances, "--program", ROLLCALL)["visible"]["dns"]


def nsd(scratch, shape):
    """How long NSD takes for the same records in a master file."""
    master = scratch / "zone"
    cargo_bench("million", *shape, "--zone", master)
    with open(master) as lines:
        name = next(line for line in lines if ".service A " in line).split()[0]
    begun = time.monotonic()
    server = servers.nsd(scratch, master)
    server.wait(lambda: (answer := ask(server.port, f"{name}.internal", A, 0.05)) and answer[3] & 15 == 0)
    took = time.monotonic() - begun
    return [server.title, f"{took * MS:,.0f}", f"{server.memory() / 1e6:,.0f}", "-"]


def writes(given, scratch):
    """Targets 6 and 7."""
    found = cargo_bench("writes", "--program", ROLLCALL, *(["--short"] if given.short else []))
    fsync = found["fsync"]["append_fsync"]
    seen, flip, durable = found["visible"]["dns"], found["flip"]["dns"], found["durable"]
    per_fsync, flat = durable["per_fsync"]["append_fsync"], durable["last_to_first"]
    targets = [
        Target("6", f"registration to visible, 99th percentile (that of a raw fsync: {fsync['p99'] / MS:.2f} ms)",
               seen["p99"] / MS, (2 * fsync["p99"]) / MS + 2, unit="ms"),
        Target("6", "flip of a status to visible, 99th percentile", flip["p99"] / MS, 2, unit="ms", short=10),
        Target("7", "durable registrations over 8 connections for each fsync of a lone loop", per_fsync, 5, least=True,
               short=2),
        Target("7", "their rate in the last quarter, to the first", flat, 0.9, least=True, short=0.5),
        Target("7", "identical re-registrations a second", found["identical"]["rate"], 15_000, least=True, short=5000),
        Target("7", "TTL updates that change nothing a second", found["ttl"]["rate"], 15_000, least=True, short=5000),
    ]
    ms = lambda one: [f"{one['p50'] / MS:.2f}", f"{one['p99'] / MS:.2f}"]
    table = rows(["ms", "median", "99th percentile"],
                 [["registration to visible", *ms(seen)], ["flip to visible", *ms(flip)],
                  *([f"raw {name.replace('_', ', ')}", *ms(one)] for name, one in found["fsync"].items())])
    rates = rows(["a second", ""], [["durable registrations", f"{durable['rate']:,.0f}"],
                                    ["fsyncs of a lone loop", f"{fsync['rate']:,.0f}"]])
    return targets, [table, rates], found


def checks(given, scratch):
    """Target 8."""
    size = ["--checks", 2000, "--interval", 2, "--seconds", 6, "--turn", 1, "--quiet", 3] if given.short else []
    return judged_there("8", "checks", scratch, size)


def restart(given, scratch):
    """Target 10."""
    return judged_there("10", "restart", scratch, ["--short"] if given.short else [])


def judged_there(part, name, scratch, options):
    """A bench that judges by itself: its JSON has `bounds`, a list of {"what", "is", "at_most"}."""
    file = scratch / f"{name}.json"
    command("python3", HERE.parent / name / "run.py", "--json", file, *options)
    if not file.exists():
        raise SystemExit(f"the bench {name} failed")
    found = json.loads(file.read_text())
    # Percentiles of a short run on a shared machine say little.
    targets = [Target(part, bound["what"], bound["is"], bound["at_most"],
                      short=bound["at_most"] * 3 if "percentile" in bound["what"] else None)
               for bound in found["bounds"]]
    return targets, [], found
