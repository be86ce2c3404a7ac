"""The shop of examples/shop, by the commands of its README: rolled from blue to green under constant load without a failed request;
and the same with blue ended before it has left DNS, where requests must fail."""

import json
import os
import shlex
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from harness.hosts import Network
from harness.processes import BUILD, ROLLCALL, ROOT, Process
from harness.report import Report

HERE = ROOT / "examples" / "shop"


def commands():
    """The README's lines that start the shop, as words."""
    lines = [line.strip() for line in (HERE / "README.md").read_text().splitlines()]
    return [shlex.split(line) for line in lines if line.startswith("python3 examples/shop/run.py")]


def run(words):
    """The exit status and the figures of such a line, with our own Python, server and folder."""
    with tempfile.TemporaryDirectory(prefix="shop-test-") as folder, Network() as network:
        figures = Path(folder) / "figures.json"
        words = [{"python3": sys.executable, "target/release/rollcall": ROLLCALL}.get(word, word) for word in words]
        os.chdir(ROOT)
        process = Process(network.host("one"), [*words, "--build", BUILD / "shop", "--json", figures], name="shop", echo=True)
        status = process.wait(150)
        return status, json.loads(figures.read_text()) if figures.exists() else {}


def rolled(report):
    """From blue to green, under load through HAProxy and nginx"""
    [words] = [words for words in commands() if "--abrupt" not in words]
    status, figures = run(words)
    report.equal(figures.get("failed"), 0, f"0 of {figures.get('requests')} requests failed")
    report.equal(figures.get("early"), 0, "before it had a share green served nothing")
    canary = figures.get("canary", 0)
    report.check(0.01 < canary < 0.15, f"as a canary of 5 % green served {canary:.1%}")
    report.equal(figures.get("late"), 1, "at the end green served all")
    report.check(figures.get("orderly"), "every program of blue ended by itself, with 0")
    report.equal(status, 0, "the example says so too")


def abrupt(report):
    """The same, but blue is killed before it has left DNS: the load sees it"""
    [words] = [words for words in commands() if "--abrupt" in words]
    status, figures = run(words)
    report.check(figures.get("failed", 0) > 0, f"{figures.get('failed')} of {figures.get('requests')} requests failed")
    report.equal(figures.get("late"), 1, "at the end green served all, all the same")
    report.equal(status, 1, "the example says so too")


if __name__ == "__main__":
    Report("shop").run(rolled, abrupt)
