"""The callers of examples/report, in Go and in Python, against the real server: an instance whose check passes while requests to it fail
leaves DNS by their reports, and is back when it is well; one caller alone takes nobody out; while the server is away they back
off, and report again when it is there."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from harness.ask import Dns, addresses
from harness.hosts import Network
from harness.processes import BUILD, Process, Rollcall
from harness.report import Report

HERE = Path(__file__).resolve().parent
EXAMPLE = HERE.parent.parent.parent / "examples" / "report"
PORT = 9200
NAME = "web.service.internal."
RATE = "60"
OUT = 3
CONFIG = f'[breaker]\nout = "{OUT}s"\n[dns]\nttl = "1s"\n'


def build():
    BUILD.mkdir(parents=True, exist_ok=True)
    out = BUILD / "report-go"
    subprocess.run(["go", "build", "-o", out, "."], cwd=EXAMPLE / "go", check=True)
    return out


class Scene:
    """A server, three instances and a host for each caller."""

    def __enter__(self):
        self.network = Network().__enter__()
        self.home = self.network.host("one")
        self.server = Rollcall(self.home, "--http", "0.0.0.0:8500", "--dns", f"{self.home.address}:8600",
                               "--dns", "127.0.0.1:8600", config=CONFIG).__enter__()
        self.hosts = [self.network.host(f"t{n}") for n in range(3)]
        self.targets = []
        for n, host in enumerate(self.hosts):
            process = Process(host, [sys.executable, HERE / "sick.py", host.address, PORT], name=f"t{n}")
            process.wait_line("listening")
            self.targets.append(process)
            self.server.http.register(ID=f"web-{n}", Name="web", Address=host.address, Port=PORT, Check={
                "HTTP": f"http://{host.address}:{PORT}/health", "Interval": "1s", "Timeout": "1s"})
        self.all = sorted(host.address for host in self.hosts)
        self.dns = Dns(self.home)
        self.in_dns(self.all)
        return self

    def __exit__(self, kind, *more):
        self.server.__exit__(kind, *more)
        self.network.__exit__(kind, *more)

    def in_dns(self, wanted, patience=30.0):
        """The seconds until DNS has these."""
        since = time.monotonic()
        return self.dns.until(NAME, "A", lambda answer: addresses(answer) == wanted, since, patience=patience)[1]

    def caller(self, name, command):
        host = self.network.host(name)
        env = {"ROLLCALL_HTTP_ADDR": f"http://{self.home.address}:8500", "ROLLCALL_DNS": f"{self.home.address}:8600"}
        process = Process(host, [*command, "web", RATE], env=env, name=name)
        process.wait_line(" ok")
        return process

    def python(self, name="python"):
        return self.caller(name, [sys.executable, EXAMPLE / "python" / "report.py"])

    def counted(self, outcome=None):
        """Requests that were reported."""
        rows = [line for line in self.server.http.get("/metrics").body.decode().splitlines()
                if line.startswith("rollcall_breaker_requests_total") and (outcome is None or f'"{outcome}"' in line)]
        return sum(float(row.rsplit(" ", 1)[1]) for row in rows)

    def circuits(self):
        return [(one["Change"], one["ID"]) for one in
                reversed(self.server.http.json("/v1/rollcall/history/web")["Changes"]) if one["Kind"] == "circuit"]

    def reported(self, caller, patience=15.0):
        """Waits until every request that a caller printed until now is counted."""
        made = sum(1 for _, line in caller.lines if line.endswith((" ok", " failed")))
        deadline = time.monotonic() + patience
        while self.counted() < made:
            if time.monotonic() > deadline:
                return f"{self.counted()} of {made}"
            time.sleep(0.05)
        return ""


def failing(report):
    """Both report: who fails is out though its check passes, tried again, and back when it is well"""
    with Scene() as scene:
        callers = [scene.caller("go", [build()]), scene.python()]
        for caller in callers:
            caller.wait_line(f"{scene.hosts[0].address}:{PORT} ok")
        sick, rest = scene.targets[0], scene.all[1:]
        os.kill(sick.pid, signal.SIGUSR1)
        sick.wait_line("sick")
        report.within(scene.in_dns(rest), 6.0, "from the first failure to gone from DNS")
        shown = scene.server.http.json("/v1/health/service/web?passing")
        report.equal(len(shown), 3, "its check passes all the while")
        report.equal(scene.circuits()[:1], [("open", "web-0")], "history has it")
        told = scene.server.http.get("/v1/rollcall/explain?name=web").body.decode()
        report.check("its circuit is open" in told, "explain says why")
        # No caller calls it while it is out: a second for what was found before, then none.
        time.sleep(0.3)
        before = [len(caller.lines) for caller in callers]
        scene.in_dns(scene.all)
        during = [line for caller, start in zip(callers, before) for _, line in caller.lines[start:]]
        report.check(any(line.endswith(" ok") for line in during), "the others are called meanwhile")
        called = [line for line in during if line.startswith(scene.hosts[0].address)]
        report.check(len(called) <= 2, "it is not called while it is out", called[:5])
        # Tried, and found sick again; then well.
        deadline = time.monotonic() + 40
        while scene.circuits().count(("open", "web-0")) < 2 and time.monotonic() < deadline:
            time.sleep(0.1)
        report.equal(scene.circuits()[1:3], [("half-open", "web-0"), ("open", "web-0")], "tried, and out again")
        os.kill(sick.pid, signal.SIGUSR1)
        sick.wait_line("well")
        deadline = time.monotonic() + 60
        while scene.circuits()[-1:] != [("closed", "web-0")] and time.monotonic() < deadline:
            time.sleep(0.1)
        report.equal(scene.circuits()[-2:], [("half-open", "web-0"), ("closed", "web-0")], "well, and back with its weight")
        report.equal(scene.in_dns(scene.all) < 5, True, "all are in DNS")
        report.check(scene.counted("failure") > 10 and scene.counted("success") > 100, "both kinds were counted")


def alone(report):
    """One of several reporters takes nobody out, whatever it says"""
    with Scene() as scene:
        scene.python()
        liar = scene.network.host("liar")
        body = json.dumps({"Reports": [{"Service": "web", "ID": f"web-{n}", "Failure": 1000} for n in range(3)]})
        command = ["curl", "-sS", "-X", "PUT", "--data", body, f"http://{scene.home.address}:8500/v1/rollcall/report"]
        deadline = time.monotonic() + 15
        while scene.counted() == 0 and time.monotonic() < deadline:
            time.sleep(0.05)
        for _ in range(3):
            process = Process(liar, command, name="liar")
            process.wait_line('"Counted":3')
            process.wait()
        report.check(scene.counted("failure") >= 9000, "its claims were counted")
        report.equal(scene.circuits(), [], "no circuit turned")
        report.equal(addresses(scene.dns.ask(NAME, "A")), scene.all, "all are in DNS")


def away(report):
    """While the server is away, callers back off; then they report again"""
    with Scene() as scene:
        caller = scene.python()
        report.equal(scene.reported(caller), "", "every request is reported")
        # A request has to be left that is not reported yet; it is sent within the second after it.
        for left in reversed(range(5)):
            caller.wait_line(" ok", after=len(caller.lines))
            scene.server.kill()
            try:
                caller.wait_line("reporting failed 1 times", timeout=5)
                break
            except AssertionError:
                if not left:
                    raise
                scene.server.start()
        caller.wait_line("reporting failed 2 times")
        pauses = [float(line.split("again in ")[1].split()[0]) for _, line in caller.lines if "reporting failed" in line]
        report.check(pauses == sorted(pauses) or pauses[1] > 1.9, "each pause is longer", pauses)
        scene.server.start()
        deadline = time.monotonic() + 20
        while scene.counted() == 0 and time.monotonic() < deadline:
            time.sleep(0.05)
        report.check(scene.counted() > 0, "it reports again when the server is back")


if __name__ == "__main__":
    Report("report").run(failing, alone, away)
