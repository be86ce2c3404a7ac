"""Target 8: many HTTP checks, measured by benches/checks/run.py, judged here."""

import json
import subprocess

from measure import ratio, say
from servers import HERE, ROLLCALL
from verdict import Target, rows

BENCH = HERE.parent / "checks" / "run.py"


def run(given, scratch):
    file = scratch / "checks.json"
    words = ["python3", BENCH, "--json", file, *(["--short"] if given.short else [])]
    say("running " + " ".join(map(str, words)))
    # What it prints is in the file too; its verdict is made of the same bounds as ours.
    subprocess.run(list(map(str, words)), stdout=subprocess.DEVNULL)
    if not file.exists():
        raise SystemExit("the bench of checks failed")
    found = json.loads(file.read_text())
    dns = found["dns"]
    middle, low, high = ratio(dns["checked"], [dns["plain"]], "p99_us")
    name = f"{found['checks']:,} HTTP checks at {found['interval']:g} s"
    targets = [Target("8", f"{name}: {bound['what']}", bound["is"], bound["at_most"])
               for bound in found["bounds"] if not bound["what"].startswith("DNS 99th")]
    targets.append(Target("8", f"{name}: DNS, 99th percentile to that without checks", middle, 1.5, low, high, short=3))
    table = rows([name, "CPU, cores", "MB", "µs of CPU a probe", "connections kept", "DNS median, µs", "99th percentile, µs"],
                 [["with them", f"{found['cores']:.2f}", f"{found['memory_mb']:,.0f}", f"{found['us_a_probe']:.0f}",
                   f"{found['kept']:,.0f}", *times(found, "checked")],
                  ["a server without, in turns with it", "", f"{found['memory_without_checks_mb']:,.0f}", "", "",
                   *times(found, "plain")],
                  ["the same before anything was probed", "", "", "", "", *times(found, "quiet")]])
    return targets, [table], found


def times(found, title):
    return [f"{found[part][title]:.0f}" for part in ("p50_us", "p99_us")]
