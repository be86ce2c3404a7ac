"""Target 10: restarts under load lose no query and nothing that was acknowledged. Measured by ../restart/run.py, which judges
by itself; its bounds are counts, and the short form has the same."""

import statistics

from measure import python_bench, say
from verdict import Target, rows


def run(given, scratch):
    found = python_bench("restart", given, scratch)
    say(f"{found['restarts']} restarts done")
    # What the kernel dropped because the server's core was not its own for too long is no restart's fault when it is not so again.
    dropped = 0 < found["lost"] <= found["dropped_at_socket"]
    targets = [Target("10", bound["what"], bound["is"], bound["at_most"],
                      once=not (dropped and bound["what"].startswith("queries lost"))) for bound in found["bounds"]]
    registrations = found["registrations"]
    table = rows([f"{found['restarts']} restarts in {found['seconds']:g} s, {found['services']:,} services", ""],
                 [["queries asked, at half the peak", f"{found['sent']:,}, {found['rate']:,} a second"],
                  ["lost; answered wrongly", f"{found['lost']:,}; {found['wrong']:,}"],
                  ["`rollcall restart` took, median and longest",
                   f"{statistics.median(found['restart_ms']):,.0f} ms, {max(found['restart_ms']):,} ms"],
                  ["registrations acknowledged; of these kept",
                   f"{registrations['acknowledged']:,}; {registrations['kept']:,}"],
                  ["registrations refused; not answered (their connection was closed)",
                   f"{registrations['refused']:,}; {registrations['closed_without_answer']:,}"],
                  ["the longest that one waited", f"{registrations['slowest_ms']:,} ms"]])
    return targets, [table], found
