#!/usr/bin/env python3
"""Measures what Rollcall promises about speed and size, in one run, beside Knot, NSD, CoreDNS and a bare echo, and says
of each target whether it was reached; ends with status 1 when one was missed.

    python3 benches/peers/run.py [--only PART...] [--rounds N] [--seconds S] [--short] [--json FILE] [--markdown FILE]

Needs cc, go, taskset, knotd, nsd and a release build of Rollcall (`cargo build --release`; or ROLLCALL_BIN); dnsperf's
figure is printed beside ours when it is installed. `--short` is the form that CI runs: few rounds, small sizes, and
bounds that are looser but fail when what they guard is switched off. README.md says how it is made comparable."""

import argparse
import json
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import answers
import checks
import churn
import lost
import million
import restart
import static
import writes
from measure import build, say
from servers import ROLLCALL, end_all
from verdict import once_more, table

PARTS = {
    "answers": answers.run,  # 1, 2
    "static": static.run,    # 3
    "churn": churn.run,      # 4
    "million": million.run,  # 5
    "writes": writes.run,    # 6, 7
    "checks": checks.run,    # 8
    "lost": lost.run,        # 9
    "restart": restart.run,  # 10
}


def arguments():
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--only", nargs="+", choices=list(PARTS), metavar="PART", help=", ".join(PARTS))
    words.add_argument("--rounds", type=int, help="of each measurement; default 9")
    words.add_argument("--seconds", type=float, help="of load in each; default 2")
    words.add_argument("--short", action="store_true", help="CI's form")
    words.add_argument("--json", type=Path, help="writes every round's numbers there")
    words.add_argument("--markdown", type=Path, help="writes the tables there too")
    given = words.parse_args()
    given.rounds = given.rounds or (3 if given.short else 9)
    given.seconds = given.seconds or (0.5 if given.short else 2.0)
    # Services in DNS, names of the static zone, seconds of a steady load, idle TCP connections.
    sizes = (1000, 100_000, 5, 2000) if given.short else (10_000, 1_000_000, 30, 10_000)
    given.services, given.names, given.steady, given.idle = sizes
    if not (1 <= given.rounds <= 100 and 0.2 <= given.seconds <= 60):
        words.error("1 to 100 rounds, 0.2 to 60 seconds")
    for tool in ("cc", "go", "taskset", "knotd", "nsd"):
        if not shutil.which(tool):
            raise SystemExit(f"{tool} is not installed")
    if not ROLLCALL.is_file():
        raise SystemExit(f"no server at {ROLLCALL}: cargo build --release")
    return given


def measured(name, given):
    """A part's targets, tables and figures."""
    with tempfile.TemporaryDirectory(prefix="rollcall-peers-") as scratch:
        try:
            return PARTS[name](given, Path(scratch))
        finally:
            end_all()


def main():
    given = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    build()
    targets, tables, raw = [], [], {}
    for name in given.only or PARTS:
        say(f"---- {name}")
        found, texts, raw[name] = measured(name, given)
        if missed := once_more(found, given.short):
            say("measured once more, for it missed:\n" + "\n".join(one.row(True) for one in missed))
            found, texts, raw[name] = measured(name, given)
        targets += found
        tables += texts
    text = "\n\n".join([table(targets, given.short), *tables])
    print(text)
    if given.markdown:
        given.markdown.write_text(text + "\n")
    if given.json:
        given.json.write_text(json.dumps({"targets": [vars(one) for one in targets], "rounds": raw}, indent=1))
    missed = [one for one in targets if one.verdict(given.short) == "MISSED"]
    print(f"\n{len(targets) - len(missed)} of {len(targets)} targets reached" +
          (", by the bounds of the short form" if given.short else ""))
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
