"""Kept connections of health checks, with real servers as targets. The interval is 10 s throughout: what happens
faster than that happens because the probe's connection broke, and what a server closes by habit must not count."""

import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from harness.ask import Dns, Http, addresses
from harness.hosts import Network
from harness.processes import Process, Rollcall, build_go
from harness.report import Report

HERE = Path(__file__).resolve().parent
PORT = 9100
NAME = "kept.service.consul."
INTERVAL = 10


def start(host, command, env=None):
    target = Process(host, command, env=env, name=str(Path(str(command[0])).name))
    return target, target.wait_line("listening")


def register(server, host):
    server.http.register(ID="kept-1", Name="kept", Address=host.address, Port=PORT,
                         Check={"HTTP": f"http://{host.address}:{PORT}/health", "Interval": f"{INTERVAL}s",
                                "Timeout": "2s"})
    return time.monotonic()


def up(host):
    return lambda answer: addresses(answer) == [host.address]


def gone(answer):
    return answer.rcode() == 0 and not answer.answer


class Watch(threading.Thread):
    """Asks every 10 ms and counts the answers without the instance."""

    def __init__(self, host, target):
        super().__init__(daemon=True)
        self.dns, self.wanted = Dns(host), up(target)
        self.asked = self.missed = 0
        self.over = threading.Event()
        self.start()

    def run(self):
        while not self.over.wait(0.01):
            self.asked += 1
            try:
                self.missed += not self.wanted(self.dns.ask(NAME, "A", timeout=1))
            except (TimeoutError, ConnectionRefusedError):
                self.missed += 1

    def end(self):
        self.over.set()
        self.join()
        return self.missed


def killed(report, what, command, env=None, rest=2.0):
    """One server as target: up, killed at rest, up again."""
    with Network() as network:
        home, away = network.host("one"), network.host("two")
        with Rollcall(home) as server:
            dns = Dns(home)
            target, _ = start(away, command(away), env)
            registered = register(server, away)
            _, took = dns.until(NAME, "A", up(away), registered)
            report.within(took, 1.0, f"{what}: registered, to in DNS")
            time.sleep(rest)
            moment = target.kill()
            _, took = dns.until(NAME, "A", gone, moment, patience=15)
            report.within(took, 1.0, f"{what}: killed {rest:.0f} s after its probe, to gone from DNS")
            target, listening = start(away, command(away), env)
            _, took = dns.until(NAME, "A", up(away), listening, patience=15)
            report.within(took, 5.0, f"{what}: started again without registering, to back in DNS")
            # The second time the habits of the first are known.
            time.sleep(rest)
            moment = target.kill()
            _, took = dns.until(NAME, "A", gone, moment, patience=15)
            report.within(took, 1.0, f"{what}: killed again, to gone from DNS")


def go_server(report):
    """Go's net/http"""
    binary = build_go("checked", "go-checked")
    killed(report, "Go", lambda away: [binary, f"{away.address}:{PORT}"])
    killed(report, "Go at rest for 7 s", lambda away: [binary, f"{away.address}:{PORT}"], rest=7.0)


def node_server(report):
    """Node's http, with its default of closing idle connections after 5 s"""
    killed(report, "Node", lambda away: ["node", HERE / "server.mjs", away.address, str(PORT)])


def python_server(report):
    """Python's http.server, speaking HTTP/1.1"""
    killed(report, "Python", lambda away: [sys.executable, HERE / "server.py", away.address, str(PORT), "HTTP/1.1"])


def habits(report):
    """Servers that close connections by habit neither flap nor draw extra probes"""
    with Network() as network:
        home = network.host("one")
        for what, command in (("Node, which closes after 5 s", ["node", HERE / "server.mjs"]),
                              ("Python, which closes after each answer", [sys.executable, HERE / "server.py"])):
            away = network.host(command[0].rsplit("/", 1)[-1][:2] + "x")
            with Rollcall(home) as server:
                words = [*command, away.address, str(PORT)]
                target, _ = start(away, words)
                registered = register(server, away)
                Dns(home).until(NAME, "A", up(away), registered)
                watch = Watch(home, away)
                time.sleep(25)
                missed = watch.end()
                count = int(Http(away, away.address, PORT).get("/count").body)
                report.equal(missed, 0, f"{what}: in every one of {watch.asked} answers over 25 s")
                # Three by the clock (0, 10, 20 s), and a few while the habit is learnt.
                report.check(2 <= count <= 8, f"{what}: {count} probes in 25 s", "3 are by the clock")
                moment = target.kill()
                _, took = Dns(home).until(NAME, "A", gone, moment, patience=20)
                report.within(took, INTERVAL + 2.5, f"{what}: killed with no connection kept, to gone from DNS")


if __name__ == "__main__":
    Report("kept").run(go_server, node_server, python_server, habits)
