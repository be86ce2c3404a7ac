"""The web page in a real Chromium, driven by playwright-core: what it shows follows what happens, without a reload.

`--shots FOLDER` puts the pictures of docs/ui.md there."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from harness.hosts import Network
from harness.processes import BUILD, Process, Rollcall, install_npm
from harness.report import Report

HERE = Path(__file__).resolve().parent
SHOTS = Path(sys.argv[sys.argv.index("--shots") + 1]).resolve() if "--shots" in sys.argv else BUILD / "ui-shots"
ACL = '[acl]\nenabled = true\ndefault_policy = "deny"\n'


def browse(report, case, config=None, timeout=240.0):
    folder = install_npm("ui")
    SHOTS.mkdir(parents=True, exist_ok=True)
    with Network() as network:
        host = network.host("one")
        with Rollcall(host, config=config):
            words = ["node", HERE / "ui.mjs", case, folder, SHOTS]
            env = {"HOME": os.environ.get("HOME", "/root")}
            report.program(Process(host, words, env=env, name=f"ui.mjs {case}"), timeout)


def live(report):
    """Lists, one service, keys, maintenance by click, and why DNS answers"""
    browse(report, "live")


def many(report):
    """Ten thousand services stay quick"""
    browse(report, "many")


def tokens(report):
    """Tokens: none, a wrong one, one that may read, one that may all"""
    browse(report, "tokens", config=ACL)


def steady(report):
    """What keeps answers steady: an instance out by reports, on trial and back; a guard"""
    browse(report, "steady", config='[guard]\nshare = 50\nhold = "4s"\n[breaker]\nout = "3s"\n[slow_start.service_window]\n"slow" = "6s"\n')


if __name__ == "__main__":
    Report("ui").run(live, many, tokens, steady)
