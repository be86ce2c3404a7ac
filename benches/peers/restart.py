"""Target 10: restarts under load lose no query and nothing that was acknowledged. Measured by ../restart/run.py, which judges
by itself; its bounds are counts, and the short form has the same."""

import json
import os
import statistics
import subprocess

from measure import say
from servers import HERE, ROLLCALL
from verdict import Target, rows


def run(given, scratch):
    file = scratch / "restart.json"
    words = ["python3", HERE.parent / "restart" / "run.py", "--json", file, *(["--short"] if given.short else [])]
    # It ends with status 1 when a bound is missed, which is told here by its figures.
    done = subprocess.run(list(map(str, words)), stdout=subprocess.PIPE, env={**os.environ, "ROLLCALL_BIN": str(ROLLCALL)})
    if not file.exists():
        raise SystemExit(f"the bench of restarts failed with status {done.returncode}")
    found = json.loads(file.read_text())
    say(f"{found['restarts']} restarts done")
    targets = [Target("10", bound["what"], bound["is"], bound["at_most"]) for bound in found["bounds"]]
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
