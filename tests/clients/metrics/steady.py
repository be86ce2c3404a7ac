"""A server of which each rule that keeps an instance in DNS, leaves it out, or lets it weigh less, has something to do; whose routes,
drains and calls to others are counted; and what the dashboard and the alerts must say of it then."""

import socket
import sys
import tempfile
from pathlib import Path

import dns.message
import dns.rcode

from harness.ask import Dns, Http
from harness.hosts import ip
from harness.processes import Process, Rollcall
from harness.targets import PROGRAM, until

ADDRESS = "127.0.0.1:8503"
PORT = 8503
# What is found stays until it was looked at: every time is longer than the test.
CONFIG = """
[http]
listen = ["127.0.0.1:8503"]
[dns]
listen = ["127.0.0.1:8603"]
[guard]
share = 50
hold = "10m"
[slow_start.service_window]
"slow" = "10m"
[breaker]
out = "10m"
[checks]
cut_off_hold = "10m"
[forward]
upstreams = ["127.0.0.77:53"]
timeout = "100ms"
[telemetry]
otlp_endpoint = "http://127.0.0.77:4318"
sample_ratio = 0.0
[audit]
file = "{folder}/audit.log"
"""
GUARDED = 3  # of four instances
SLOW = 2  # instances that begin slowly
SUCCESS, FAILURE = 7, 30  # reported requests
TURNS = 2  # routes that are undone
ASKED = 12  # questions that the upstream does not answer
TRACED = 10  # requests that come with a trace


class Steady:
    """The server, and a target on a host of its own that it loses at the end."""

    def __init__(self, network, host):
        self.host, self.app = host, network.host("app")
        self._folder = tempfile.TemporaryDirectory(prefix="metrics-steady-")
        self.server = Rollcall(host, config=CONFIG.format(folder=self._folder.name), ready=False)
        self.http = Http(host, "127.0.0.1", PORT)
        self.dns = Dns(host, "127.0.0.1", 8603)

    def __enter__(self):
        self.server.process.wait_line("ready", 20)
        return self

    def __exit__(self, *what):
        self.server.__exit__(*what)
        self._folder.cleanup()

    def audited(self):
        """The lines of its audit log."""
        return len((Path(self._folder.name) / "audit.log").read_text().splitlines())

    def change(self, path, body=None):
        answer = self.http.put(path, body)
        assert answer.status == 200, (path, answer)

    def register(self, **definition):
        self.change("/v1/agent/service/register", definition)

    def metric(self, name):
        lines = self.http.get("/metrics").body.decode().splitlines()
        return float(next(line.split()[-1] for line in lines if line.rsplit(" ", 1)[0] == name))

    def guard(self):
        for number in range(GUARDED + 1):
            self.register(Name="kept", ID=f"kept-{number}", Check={"CheckID": f"kept-{number}", "TTL": "300s", "Status": "passing"})
        for number in range(GUARDED):
            self.change(f"/v1/agent/check/fail/kept-{number}")
        until(lambda: self.metric("rollcall_registry_guarded_instances") == GUARDED, "the guard holds")

    def circuit(self):
        for number in range(4):
            self.register(Name="pay", ID=f"pay-{number}", Port=80 + number, Tags=["green" if number > 2 else "blue"])
        report = {"Service": "pay", "ID": "pay-0", "Success": SUCCESS, "Failure": FAILURE}
        assert self.http.put("/v1/rollcall/report", {"Reports": [report]}).status == 200

    def slow(self):
        for number in range(SLOW):
            self.register(Name="slow", ID=f"slow-{number}", Port=90 + number)

    def flap(self):
        # Nobody listens there: the first probe makes it fall, and one fall is enough.
        self.register(Name="flap", ID="flap", Check={
            "TCP": "127.0.0.78:1", "Interval": "1s", "Status": "passing", "FlapMax": 1, "FlapLeak": "10m", "FlapSteady": "10m"})
        until(lambda: self.metric("rollcall_checks_flapping") == 1, "the check counts as flapping")

    def route(self):
        for _ in range(TURNS):
            self.change("/v1/rollcall/route/pay", {"Subsets": ["blue=90", "green=10"]})
            self.change("/v1/rollcall/route/pay/undo")
        self.register(Name="new", ID="new-a", Port=70, Tags=["a"])
        self.register(Name="new", ID="new-b", Port=71, Tags=["b"], Check={"CheckID": "new-b", "TTL": "300s", "Status": "passing"})
        self.change("/v1/rollcall/route/new", {"Subsets": ["a=100"]})
        self.change("/v1/rollcall/route/new", {"Subsets": ["b=100"], "AbortIfUnhealthy": "20%", "GuardFor": "10m"})
        self.change("/v1/agent/check/fail/new-b")
        until(lambda: self.metric('rollcall_registry_route_changes_total{action="abort"}') == 1, "the route's guard puts the former back")

    def drain(self):
        self.register(Name="old", ID="old", Port=60)
        self.change("/v1/rollcall/drain/old?wait=30s")

    def ask_a_stranger(self, times):
        for _ in range(times):
            answer = self.dns.exchange(dns.message.make_query("www.example.org", "A"), timeout=10)
            assert answer.rcode() == dns.rcode.SERVFAIL, answer

    def others(self):
        self.ask_a_stranger(ASKED)
        for number in range(TRACED):
            self.http.get("/v1/catalog/services", headers={"traceparent": f"00-{number + 1:032x}-{number + 1:016x}-01"})
        until(lambda: self.metric('rollcall_traces_spans_total{outcome="not exported"}') > 0, "the collector is not there", 60)

    def cut_off(self):
        """A target that lives, until this machine loses its network."""
        address = self.app.address
        process = Process(self.app, [sys.executable, PROGRAM, "far", address, 9100], name="far")
        process.wait_line("listening")
        self.register(Name="far", ID="far", Address=address, Port=9100, Check={
            "HTTP": f"http://{address}:9100/health", "Interval": "1s", "Timeout": "1s"})
        until(lambda: self.http.json("/v1/health/service/far?passing"), "the target is alive")
        ip("-n", self.host.namespace, "link", "set", "eth0", "down")
        until(lambda: self.metric("rollcall_checks_cut_off") == 1, "the server knows that it is cut off")

    def run(self, prometheus):
        # Series of answers are there from the first answer on: Prometheus has to see it to see a rise.
        self.ask_a_stranger(1)
        until(lambda: prometheus.value("sum(rollcall_dns_answers_total{instance='%s'})" % ADDRESS) == 1, "the first answer is seen")
        for part in (self.guard, self.circuit, self.slow, self.flap, self.route, self.drain, self.others, self.cut_off):
            part()
