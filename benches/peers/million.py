"""Target 5: memory and start with a million instances, measured by benches/million.rs, judged here; how soon a write
is seen then, by benches/writes.rs."""

import time

import servers
import writes
from measure import cargo_bench
from records import A, ask
from servers import ROLLCALL
from verdict import Target, rows

MS = 1000


def bench(*options):
    """Runs the bench; gives its JSON, if it printed any. It has no bounds: a failure is one."""
    status, found = cargo_bench("million", *options)
    if status != 0:
        raise SystemExit(f"the bench million failed with status {status}")
    return found


def run(given, scratch):
    count = 50_000 if given.short else 1_000_000
    shape = ["--instances", count, "--services", count // 10, "--nodes", count // 100]
    found = bench(*shape, "--server", ROLLCALL, "--starts", 1 if given.short else 3)
    worst = max(found["clean"]["rss_kib"], found["killed"]["rss_kib"]) * 1024 / 1e6
    targets = [
        Target("5", f"resident memory with {count:,} instances", worst, 900, unit="MB", short=120),
        Target("5", "from exec to a right answer, after a clean end", found["clean"]["answer_ms"], 4 * MS, unit="ms",
               short=500),
        Target("5", "from exec to a right answer, after SIGKILL", found["killed"]["answer_ms"], 4 * MS, unit="ms",
               short=500),
        Target("5", "acknowledged registrations lost by SIGKILL", found["killed"]["lost"], 0),
    ]
    table = rows([f"{count:,} instances in {count // 10:,} services", "exec to answer, ms", "MB resident", "MB at most"],
                 [["Rollcall, " + how, f"{one['answer_ms']:,}", f"{one['rss_kib'] * 1024 / 1e6:,.0f}",
                   f"{one['peak_kib'] * 1024 / 1e6:,.0f}"]
                  for how, one in (("after a clean end", found["clean"]), ("after SIGKILL", found["killed"]))] +
                 [nsd(scratch, shape)])
    seen, times = writes.visible(given, count)
    return targets + seen, [table], {"million": found, "visible": times}


def nsd(scratch, shape):
    """How long NSD takes for the same records in a master file."""
    master = scratch / "zone"
    bench(*shape, "--zone", master)
    with open(master) as lines:
        name = next(line for line in lines if ".service A " in line).split()[0]
    begun = time.monotonic()
    server = servers.nsd(scratch, master)
    server.wait(lambda: (answer := ask(server.port, f"{name}.internal", A, 0.05)) and answer[3] & 15 == 0)
    took = time.monotonic() - begun
    return [server.title, f"{took * MS:,.0f}", f"{server.memory() / 1e6:,.0f}", "-"]
