"""Target 8: many HTTP checks, measured by benches/checks/run.py, judged here."""

from measure import python_bench, ratio
from verdict import Target, rows


def run(given, scratch):
    found = python_bench("checks", given, scratch)
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
