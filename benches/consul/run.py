#!/usr/bin/env python3
"""What those cost who find services through Consul's API: registrations, watchers, idle blocking reads, whole listings.
Prints a line for each target and ends with status 1 when one was missed.

    python3 benches/consul/run.py [--only PART...] [--rounds N] [--short] [--json FILE] [--markdown FILE]

Needs cc, taskset and a release build of Rollcall (`cargo build --release`; or ROLLCALL_BIN). `--short` is the form that CI
runs: smaller sizes, bounds that are looser but fail when what they guard is switched off. README.md says what is measured."""

import argparse
import gc
import json
import resource
import shutil
import signal
import sys
import tempfile
from pathlib import Path

PEERS = Path(__file__).resolve().parents[1] / "peers"
sys.path.insert(0, str(PEERS))

import idle  # noqa: E402
import listing  # noqa: E402
import measure  # noqa: E402
import registrations  # noqa: E402
import servers  # noqa: E402
import watchers  # noqa: E402
from verdict import once_more, table  # noqa: E402

PARTS = {
    "registrations": registrations.run,  # a
    "watchers": watchers.run,            # b
    "idle": idle.run,                    # c
    "listing": listing.run,              # d
}


def arguments():
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--only", nargs="+", choices=list(PARTS), metavar="PART", help=", ".join(PARTS))
    words.add_argument("--rounds", type=int, help="of each measurement; default 30")
    words.add_argument("--short", action="store_true", help="CI's form")
    words.add_argument("--json", type=Path, help="writes the numbers there")
    words.add_argument("--markdown", type=Path, help="writes the tables there too")
    given = words.parse_args()
    given.rounds = given.rounds or (9 if given.short else 30)
    # Registrations, idle reads, seconds that they are watched, sizes of the registry.
    sizes = (5000, 5000, 2, (1000, 20_000)) if given.short else (20_000, 10_000, 10, (1000, 10_000, 100_000))
    given.registrations, given.idle, given.still, given.instances = sizes
    for tool in ("cc", "taskset"):
        if not shutil.which(tool):
            raise SystemExit(f"{tool} is not installed")
    if not servers.ROLLCALL.is_file():
        raise SystemExit(f"no server at {servers.ROLLCALL}: cargo build --release")
    return given


def measured(name, given):
    """A part's targets, tables and figures."""
    with tempfile.TemporaryDirectory(prefix="rollcall-consul-") as scratch:
        try:
            return PARTS[name](given, Path(scratch))
        finally:
            servers.end_all()


def main():
    given = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    # For this process and the server, each of which has one end of every connection.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # A pause of this process would be measured as one of the server.
    gc.disable()
    servers.BUILD.mkdir(parents=True, exist_ok=True)
    measure.run("cc", "-O2", "-o", servers.BUILD / "play", PEERS / "play.c")
    targets, tables, raw = [], [], {}
    for name in given.only or PARTS:
        measure.say(f"---- {name}")
        found, texts, raw[name] = measured(name, given)
        if missed := once_more(found, given.short):
            measure.say("measured once more, for it missed:\n" + "\n".join(one.row(True) for one in missed))
            found, texts, raw[name] = measured(name, given)
        targets += found
        tables += texts
        gc.collect()
    text = "\n\n".join([table(targets, given.short), *tables])
    print(text)
    if given.markdown:
        given.markdown.write_text(text + "\n")
    if given.json:
        given.json.write_text(json.dumps({"targets": [vars(one) for one in targets], "figures": raw}, indent=1))
    missed = [one for one in targets if one.verdict(given.short) == "MISSED"]
    print(f"\n{len(targets) - len(missed)} of {len(targets)} targets reached" +
          (", by the bounds of the short form" if given.short else ""))
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
