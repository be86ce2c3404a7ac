"""A checker that is cut off from its targets does not take itself for the only one alive: five targets, each on a host of its
own, of which one, all, or the server itself lose their network. Every fault is looked at where it is: interfaces that are
down, and what probes say."""

import subprocess
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from harness.ask import Dns, addresses
from harness.hosts import Network, ip
from harness.processes import Process, Rollcall
from harness.report import Report

PROGRAM = Path(__file__).resolve().parent.parent / "harness" / "target.py"
PORT = 9100
NAME = "web.service.consul."
HOSTS = 5
HOLD = 8


class Watch(threading.Thread):
    """Asks every 10 ms and keeps each answer that differs from the one before, with the moment of its question."""

    def __init__(self, host):
        super().__init__(daemon=True)
        self.dns, self.over, self.seen, self.asked = Dns(host), threading.Event(), [], 0
        self.start()

    def run(self):
        while not self.over.wait(0.01):
            moment = time.monotonic()
            found = addresses(self.dns.ask(NAME, "A", timeout=2))
            self.asked += 1
            if not self.seen or self.seen[-1][1] != found:
                self.seen.append((moment, found))

    def end(self):
        self.over.set()
        self.join()
        return [found for _, found in self.seen]


class Scene:
    def __enter__(self):
        self.network = Network().__enter__()
        self.home = self.network.host("one")
        config = f'[checks]\ncut_off_hold = "{HOLD}s"\n'
        self.server = Rollcall(self.home, config=config).__enter__()
        self.targets = [self.network.host(f"t{n}") for n in range(HOSTS)]
        for n, target in enumerate(self.targets):
            process = Process(target, [sys.executable, PROGRAM, f"t{n}", target.address, PORT], name=f"t{n}")
            process.wait_line("listening")
            # The kernel asks for an address, and for a connection, again after a second: what was lost as a network came back is
            # not to be a failed probe after it.
            self.server.http.register(ID=f"web-{n}", Name="web", Address=target.address, Port=PORT, Check={
                "HTTP": f"http://{target.address}:{PORT}/health", "Interval": "2s", "Timeout": "1500ms"})
        self.all = sorted(target.address for target in self.targets)
        Dns(self.home).until(NAME, "A", lambda answer: addresses(answer) == self.all, time.monotonic())
        return self

    def __exit__(self, *what):
        self.server.__exit__(*what)
        Process.end_all()
        self.network.__exit__(*what)

    def down(self, host):
        ip("-n", host.namespace, "link", "set", "eth0", "down")

    def up(self, host):
        ip("-n", host.namespace, "link", "set", "eth0", "up")

    def is_down(self, host):
        shown = subprocess.run(["ip", "-n", host.namespace, "-o", "link", "show", "eth0"], capture_output=True, text=True)
        return "state DOWN" in shown.stdout

    def metric(self, name):
        lines = self.server.http.get("/metrics").body.decode().splitlines()
        return next((float(line.split()[-1]) for line in lines if line.startswith(f"{name} ")), None)

    def wait(self, what, holds, patience=20):
        deadline = time.monotonic() + patience
        while not holds():
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {patience} s: {what}")
            time.sleep(0.02)

    def cut_off(self):
        return self.metric("rollcall_checks_cut_off") == 1

    def critical(self):
        return len(self.server.http.json("/v1/health/state/critical"))

    def ready(self):
        return self.server.http.get("/ready").body.decode()


def one_host(report):
    """One host of five loses its network: it is out, as ever"""
    with Scene() as scene:
        watch = Watch(scene.home)
        scene.down(scene.targets[0])
        report.check(scene.is_down(scene.targets[0]), "its interface is down")
        left = scene.all[:]
        left.remove(scene.targets[0].address)
        _, took = Dns(scene.home).until(NAME, "A", lambda a: addresses(a) == left, time.monotonic(), patience=10)
        report.within(took, 5.0, "its network lost, to gone from DNS, with an interval of 2 s and a timeout of 1.5 s")
        time.sleep(3)
        report.equal(watch.end(), [scene.all, left], "no other answer was given")
        report.equal(scene.metric("rollcall_checks_cut_off"), 0.0, "nobody is cut off")
        said = scene.server.http.json("/v1/health/state/critical")[0]["Output"]
        report.check("no route to host" in said or "deadline exceeded" in said, "the probe says why", said)


def all_hosts(report):
    """All hosts are lost at once: they stay, for a bounded time, and are there when the network is back"""
    with Scene() as scene:
        watch = Watch(scene.home)
        for target in scene.targets:
            scene.down(target)
        report.check(all(map(scene.is_down, scene.targets)), "all interfaces are down")
        scene.wait("it is known", scene.cut_off)
        report.check("cut off" in scene.ready(), "/ready says so", scene.ready())
        report.check(scene.server.process.wait_line("seems to be cut off") > 0, "the log says so")
        # What fell before it was known is taken back.
        scene.wait("what fell is back", lambda: scene.critical() == 0)
        known = time.monotonic()
        report.equal(scene.critical(), 0, "no check is critical")
        time.sleep(3)
        for target in scene.targets:
            scene.up(target)
        scene.wait("it is over", lambda: not scene.cut_off())
        time.sleep(3)
        watch.end()
        report.check(all(watch_found for _, watch_found in watch.seen), f"none of {watch.asked} answers was empty")
        after = [found for moment, found in watch.seen if moment > known]
        report.check(all(found == scene.all for found in after), "from when it was known, every answer had all five", after)
        report.check(scene.metric("rollcall_checks_held_total") > 0, "probes failed and did not count")
        report.equal(scene.ready(), "ready\n", "/ready says nothing more")


def ourselves(report):
    """The server's own interface is down: no answer changes, and no TTL check expires meanwhile"""
    with Scene() as scene:
        scene.server.http.register(ID="beat", Name="beat", Address="192.0.2.200", Port=1,
                                   Check={"TTL": "4s", "Status": "passing"})
        watch = Watch(scene.home)
        scene.server.http.put("/v1/agent/check/pass/service:beat")
        scene.down(scene.home)
        report.check(scene.is_down(scene.home), "the server's interface is down")
        scene.wait("it is known", scene.cut_off)
        time.sleep(5)
        beat = addresses(Dns(scene.home).ask("beat.service.consul.", "A"))
        report.equal(beat, ["192.0.2.200"], "a TTL check that nobody could renew is held")
        scene.up(scene.home)
        ip("-n", scene.home.namespace, "route", "add", "default", "via", "192.0.2.254")
        scene.wait("it is over", lambda: not scene.cut_off())
        time.sleep(2)
        report.equal(watch.end(), [scene.all], f"all of {watch.asked} answers had all five")
        report.check(scene.metric("rollcall_checks_held_total") > 0, "probes failed and did not count")
        scene.wait("the TTL check expires at last", lambda: scene.critical() == 1)


def too_long(report):
    """It lasts longer than is believed: what is found counts"""
    with Scene() as scene:
        for target in scene.targets:
            scene.down(target)
        scene.wait("it is known", scene.cut_off)
        since = time.monotonic()
        scene.wait("they are critical", lambda: scene.critical() == HOSTS, 30)
        took = time.monotonic() - since
        report.check(took > HOLD * 0.9, f"held for {took:.1f} s of {HOLD} s")
        report.equal(addresses(Dns(scene.home).ask(NAME, "A")), [], "they are out of DNS")
        scene.wait("the server believes it no more", lambda: not scene.cut_off())
        for target in scene.targets:
            scene.up(target)
        Dns(scene.home).until(NAME, "A", lambda a: addresses(a) == scene.all, time.monotonic(), patience=20)
        report.check(True, "they are back when the network is")


if __name__ == "__main__":
    Report("cutoff").run(one_host, all_hosts, ourselves, too_long)
