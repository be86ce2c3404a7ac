"""Targets 6 and 7, and the part of 5 that is about writes: measured and bounded by benches/writes.rs, shown here."""

from measure import cargo_bench
from servers import ROLLCALL
from verdict import Target, rows

MS = 1000


def bench(given, *options):
    """Runs the bench; gives its JSON."""
    status, found = cargo_bench("writes", "--program", ROLLCALL, *(["--short"] if given.short else []), *options)
    if not found:
        raise SystemExit(f"the bench writes failed with status {status}")
    return found


def targets(found, *parts):
    """What the bench was held to."""
    return [Target(bound["part"], bound["what"], bound["is"], bound["bound"], least=bound["least"], unit=bound["unit"])
            for bound in found["bounds"] if bound["part"] in parts]


def run(given, _):
    found = bench(given)
    durable, fsync = found["durable"], found["fsync"]
    times = lambda what, one: [what, f"{one['p50'] / MS:.2f}", f"{one['p99'] / MS:.2f}"]
    waits = rows(["ms", "median", "99th percentile"],
                 [times("registration to visible", found["visible"]["dns"]),
                  times("registration to its answer", found["visible"]["http"]),
                  times("flip to visible", found["flip"]),
                  *(times("raw " + name.replace("_", ", "), one) for name, one in fsync.items())])
    rates = rows(["over 8 connections", "a second", "µs of the server's CPU"],
                 [[what, f"{one['rate']:,.0f}", f"{one['server_cpu']:.1f}"] for what, one in
                  (("durable registrations", durable), ("identical re-registrations", found["identical"]),
                   ("TTL updates that change nothing", found["ttl"]))] +
                 [["fsyncs of a lone loop beside them", f"{durable['lone_fsyncs']:,.0f}", ""],
                  [f"(durable registrations for each of them: {durable['per_fsync']:.2f}; of a server that only reads, writes, "
                   f"syncs and answers: {durable['floor_per_fsync']:.2f})", "", ""]])
    return targets(found, "6", "7"), [waits, rates], found


def visible(given, instances):
    """The time from a registration to DNS with so many instances and with 1,000, in turn."""
    found = bench(given, "--only", "visible", "--beside", instances)
    return targets(found, "5"), found
