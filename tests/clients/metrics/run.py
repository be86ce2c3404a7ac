"""Metrics: promtool on a running server's /metrics and on the rules; then Debian's Prometheus scrapes real servers, things happen to
them, and each expression of the dashboard and of the rules has to give what these events must give.

Counts are those that this test made: a rate over five minutes, times 300, is how often it asked, but for what Prometheus
extrapolates at the ends."""

import json
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import dns.flags
import dns.message
import dns.rcode

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from harness.ask import Dns, Http
from harness.hosts import Network
from harness.processes import ROLLCALL, ROOT, Process, Rollcall
from harness.report import Report
from harness.targets import until
import steady
from steady import Steady

RULES = ROOT / "dist" / "prometheus" / "rollcall.rules.yml"
DASHBOARD = ROOT / "dist" / "grafana" / "dashboards" / "rollcall.json"
MAIN, KILLED, FULL, STEADY = "127.0.0.1:8500", "127.0.0.1:8501", "127.0.0.1:8502", steady.ADDRESS
PROMETHEUS = """
global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}
rule_files: ["{rules}"]
scrape_configs:
- job_name: rollcall
  static_configs: [{{targets: ["{targets}"]}}]
"""
# One probe at a time, few tags, an upstream that never answers.
CONFIG = """
[checks]
in_flight_max = 1
[limits]
tags_max = 2
[forward]
upstreams = ["127.0.0.77:53"]
timeout = "2s"
"""
SILENT = 40  # checks of a target that never answers
BIG = 60  # instances of a service whose answer needs TCP
WAITING = 5  # blocking queries
OPEN = 3  # TCP connections for DNS
ASIDE = 10  # questions that wait for the upstream
SLOW = 12  # registrations whose bodies come late
FLIPS = 150  # of one check, each way


def promtool(report):
    """promtool finds nothing in the metrics' names and in the rules"""
    with Network() as network, Rollcall(network.host("srv")) as server:
        server.http.register(Name="web", Address="192.0.2.9", Port=80)
        Dns(server.host).ask("web.service.consul")
        text = server.http.get("/metrics").body
        for what, command, data in (
                ("check metrics", ["check", "metrics"], text),
                ("check rules", ["check", "rules", RULES], b""),
                ("test rules", ["test", "rules", RULES.with_name("rollcall.test.yml")], b"")):
            done = subprocess.run(["promtool", *map(str, command)], input=data, capture_output=True)
            said = (done.stdout + done.stderr).decode()
            report.check(done.returncode == 0 and (what != "check metrics" or said == ""), f"promtool {what}", said)
        bad = subprocess.run(["promtool", "check", "metrics"], input=b"# TYPE bad_ms counter\nbad_ms 1\n", capture_output=True)
        report.check(bad.returncode != 0, "promtool check metrics finds what is wrong")


def expressions():
    """All that is evaluated: (where, expression)."""
    board = json.loads(DASHBOARD.read_text())
    found = [((panel["title"], target["refId"]), target["expr"])
             for panel in board["panels"] for target in panel.get("targets", [])]
    for name, text in re.findall(r"^  - (?:record|alert): (\S+)\n    expr: (\|\n(?:      .*\n)+|.*\n)", RULES.read_text(), re.M):
        found.append((name, text.removeprefix("|").strip()))
    return dict(found)


class Prometheus:
    def __init__(self, host):
        self._folder = tempfile.TemporaryDirectory(prefix="metrics-test-")
        folder = Path(self._folder.name)
        config = PROMETHEUS.format(rules=RULES, targets='", "'.join((MAIN, KILLED, FULL, STEADY)))
        (folder / "prometheus.yml").write_text(config)
        with host.inside():
            self.process = Process(host, [
                "/usr/bin/prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
                "--web.listen-address=127.0.0.1:9090"], name="prometheus")
        self.http = Http(host, "127.0.0.1", 9090)

    def __enter__(self):
        self.process.wait_line("Server is ready to receive web requests", 30)
        return self

    def __exit__(self, *_):
        self.process.kill()
        self._folder.cleanup()

    def query(self, expression, instance=MAIN):
        """The result: a list of (labels, value)."""
        expression = expression.replace("$instance", instance).replace("$__rate_interval", "5m")
        answer = self.http.json("/api/v1/query?query=" + urllib.parse.quote(expression))
        return [(one["metric"], float(one["value"][1])) for one in answer["data"]["result"]]

    def value(self, expression):
        found = self.query(expression)
        return found[0][1] if len(found) == 1 else None


@contextmanager
def full_disk(host):
    """A server whose disk, with its audit log, has no room left a moment after its start."""
    with tempfile.TemporaryDirectory(prefix="metrics-full-") as folder:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", folder], check=True)
        try:
            config = Path(folder) / "rollcall.toml"
            config.write_text(f'[audit]\nfile = "{folder}/audit.log"\n')
            process = Process(host, [ROLLCALL, "serve", "--config", config, "--data-dir", f"{folder}/data", "--http", FULL,
                                     "--dns", "127.0.0.1:8602"])
            process.wait_line("ready", 20)

            def fill():
                with open(f"{folder}/filler", "wb", buffering=0) as filler:
                    try:
                        while True:
                            filler.write(b"x" * 65536)
                    except OSError:
                        pass
                http = Http(host, "127.0.0.1", 8502)
                for number in range(2000):
                    if http.put("/v1/agent/service/register", {"Name": f"s{number}", "Meta": {"x": "y" * 500}}).status == 503:
                        return
                raise AssertionError("the full disk takes registrations")
            yield fill
            process.kill()
        finally:
            subprocess.run(["umount", "-l", folder], check=True)


class Events:
    """What happens to the main server, and how often."""

    def __init__(self, host, http, prometheus):
        self.host, self.http, self.prometheus = host, http, prometheus
        self.asked = Counter()
        self.registered = 0
        self.dns = Dns(host)
        self.kept = []

    def ask(self, name, kind="A", tcp=False, path="fast", times=1, rcode="NOERROR"):
        for _ in range(times):
            answer = self.dns.tcp(name, kind) if tcp else self.dns.ask(name, kind)
            assert dns.rcode.to_text(answer.rcode()) == rcode, answer
            self.note(kind, rcode, "tcp" if tcp else "udp", "general" if tcp else path)

    def note(self, kind, rcode, transport, path):
        self.asked[kind, rcode, transport, path] += 1

    def total(self, place, value):
        return sum(count for key, count in self.asked.items() if key[place] == value)

    def register(self, **definition):
        self.http.register(**definition)
        self.registered += 1

    def first_of_each(self):
        """One of each kind of answer, so that Prometheus sees a rise from there."""
        self.ask("web.service.consul")
        self.ask("web.service.consul", "SRV")
        self.ask("nobody.service.consul", rcode="NXDOMAIN")
        self.ask("web.service.consul", tcp=True)
        self.ask("consul.", "SOA", path="general")
        self.ask("consul.", "SOA", tcp=True)
        self.cut()
        self.aside(1)
        until(lambda: self.prometheus.value("sum(rollcall_dns_answers_total{instance='%s'})" % MAIN) == 8, "the first answers", 20)
        self.asked.clear()

    def aside(self, count):
        """Questions that the upstream does not answer; SERVFAIL comes when we give up."""
        with self.host.inside():
            sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(count)]
        for one in sockets:
            one.connect(("127.0.0.1", 8600))
            one.settimeout(15)
            one.send(dns.message.make_query("www.example.org", "A", use_edns=False).to_wire())
        if count > 1:
            until(lambda: self.prometheus.value("rollcall_dns_forwards_waiting{instance='%s'}" % MAIN) == count, "questions wait", 10)
        for one in sockets:
            answer = dns.message.from_wire(one.recv(4096))
            assert answer.rcode() == dns.rcode.SERVFAIL, answer
            self.note("A", "SERVFAIL", "udp", "general")
            one.close()

    def cut(self):
        """Too long for 512 octets."""
        answer = self.dns.exchange(dns.message.make_query("big.service.consul", "A", use_edns=False))
        assert answer.flags & dns.flags.TC, answer
        self.note("A", "NOERROR", "udp", "general")

    def storm(self):
        self.ask("web.service.consul", times=600)
        self.ask("web.service.consul", "SRV", times=200)
        self.ask("nobody.service.consul", times=100, rcode="NXDOMAIN")
        self.ask("web.service.consul", tcp=True, times=50)
        self.ask("consul.", "SOA", path="general", times=50)
        for _ in range(40):
            self.cut()
        for _ in range(30):
            self.dns.socket.send(b"\x00\x01\x80\x00" + bytes(8))  # an answer to nobody's question

    def slow_registration(self, number):
        body = json.dumps({"Name": "slow", "ID": f"slow-{number}"}).encode()
        with self.host.inside():
            stream = socket.socket()
        stream.connect(("127.0.0.1", 8500))
        stream.sendall(b"PUT /v1/agent/service/register HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                       b"Content-Length: %d\r\n\r\n" % len(body))
        time.sleep(1.8)
        stream.sendall(body)
        assert stream.recv(100).startswith(b"HTTP/1.1 200")
        stream.close()

    def wait_for_change(self):
        try:
            self.http.get("/v1/health/service/nobody?index=1000000000000&wait=1s")
            index = self.http.get("/v1/health/service/nobody").headers["X-Consul-Index"]
            self.http.get(f"/v1/health/service/nobody?index={index}&wait=300s", timeout=400)
        except OSError:
            pass  # The server ended, and so did the wait.

    def limits(self):
        for _ in range(20):
            assert self.http.put("/v1/agent/service/register", {"Name": "x", "Tags": ["a", "b", "c"]}).status == 400
        for _ in range(20):
            assert self.http.get("/v1/catalog/services", headers={"Host": "evil.example"}).status == 403

    def run(self):
        for number in range(3):
            self.register(Name="web", ID=f"web-{number}", Address=f"192.0.2.{10 + number}", Port=80)
        self.register(Name="api", ID="api", Check={"CheckID": "api", "TTL": "300s", "Status": "passing"})
        for number in range(BIG):
            self.register(Name="big", ID=f"big-{number}", Address=f"192.0.2.{100 + number}", Port=80)
        self.first_of_each()
        # A target that takes connections and never answers. The bounds of the buckets that hold a probe's timeout, 0.5 and 2.1 s, are
        # far from it, so that a probe that ends late is in none of the next.
        with self.host.inside():
            silent = socket.socket()
            silent.bind(("127.0.0.1", 0))
            silent.listen(512)
        self.kept.append(silent)
        url = "http://127.0.0.1:%d/" % silent.getsockname()[1]
        for number in range(SILENT):
            self.register(Name="silent", ID=f"silent-{number}", Check={"HTTP": url, "Interval": "1s", "Timeout": "1s"})
        slow = [threading.Thread(target=self.slow_registration, args=[number]) for number in range(SLOW)]
        for one in slow:
            one.start()
        for one in slow:
            one.join()
        for _ in range(FLIPS):
            for word in ("fail", "pass"):
                assert self.http.put(f"/v1/agent/check/{word}/api").status == 200
        self.limits()
        self.storm()
        self.aside(ASIDE)
        for _ in range(WAITING):
            threading.Thread(target=self.wait_for_change, daemon=True).start()
        for _ in range(OPEN):
            stream = self.dns.connect()
            question = dns.message.make_query("consul.", "SOA").to_wire()
            stream.sendall(len(question).to_bytes(2, "big") + question)
            stream.recv(2)
            self.note("SOA", "NOERROR", "tcp", "general")
            self.kept.append(stream)


def by(label):
    return lambda found: {labels[label]: value for labels, value in found}


def pair(first, second):
    return lambda found: {(labels[first], labels[second]): value for labels, value in found}


def only(found):
    return found[0][1] if len(found) == 1 else float("nan")


def about(value, count):
    """A rate over five minutes of a counter that rose so often."""
    return value is not None and abs(value * 300 - count) <= max(0.1 * count, 1.5)


def between(low, high):
    return lambda found: low < only(found) <= high


def alert(*instances, holds=lambda value: True):
    return lambda found: sorted(labels["instance"] for labels, value in found if holds(value)) == sorted(instances)


def expected(events, before):
    """What each expression must give: a function of its result, and of which server."""
    total, registered = events.total, events.registered + SLOW
    answers = sum(events.asked.values())
    fast = total(3, "fast")

    def rates(of, place, values):
        return lambda found: all(about(of(found).get(value, 0), total(place, value)) for value in values)

    def quantiles(cause, low, high):
        return lambda found: low < by("cause")(found).get(cause, -1) <= high

    of_main = lambda holds: lambda found: holds({labels["instance"]: value for labels, value in found}.get(MAIN, float("nan")))
    critical = SILENT
    return {
        ("Services", "A"): lambda found: only(found) == before["Services"] + 5,
        ("Instances", "A"): lambda found: only(found) == before["Instances"] + registered,
        ("Nodes", "A"): lambda found: only(found) == before["Nodes"],
        ("Checks that do not pass", "A"): lambda found: only(found) == critical,
        ("Can store", "A"): lambda found: only(found) == 1,
        ("Answers a second", "A"): lambda found: about(only(found), answers),
        ("Answers by code", "A"): rates(by("rcode"), 1, ("NOERROR", "NXDOMAIN", "SERVFAIL")),
        ("Answers by type", "A"): rates(by("type"), 0, ("A", "SRV", "SOA")),
        ("Answers by transport and path", "A"): lambda found: about(pair("transport", "path")(found)["udp", "fast"], fast)
        and about(pair("transport", "path")(found)["tcp", "general"], total(2, "tcp")),
        ("Size of answers", "A"): between(64, 128),
        ("Size of answers", "B"): between(256, 512),
        ("Not answered, and cut", "A"): lambda found: about(by("reason")(found)["not a request"], 30),
        ("Not answered, and cut", "B"): lambda found: about(only(found), 41),
        ("TCP connections", "A"): lambda found: only(found) == OPEN,
        ("Forwarded by outcome", "A"): lambda found: about(by("outcome")(found)["failed"], ASIDE + 1)
        and by("outcome")(found)["answered"] == 0,
        ("Time of upstreams", "A"): between(2, 8.2),
        ("Waiting for upstreams", "A"): lambda found: only(found) == 0,
        ("From a change to the answer", "A"): quantiles("request", 0, 0.5),
        ("From a change to the answer", "B"): quantiles("request", 1.6, 6.6),
        ("Until no cache has an older answer", "A"): quantiles("request", 0.5, 5.05),
        ("Until no cache has an older answer", "B"): quantiles("request", 3, 10.1),
        ("Snapshots and commits", "A"): lambda found: only(found) * 300 > registered,
        ("Snapshots and commits", "B"): lambda found: 0 < only(found) * 300 <= 1.1 * (registered + 1),
        ("Index", "A"): lambda found: only(found) >= before["Index"] + registered + 2 * FLIPS,
        ("Blocking queries", "A"): lambda found: only(found) == WAITING,
        ("Checks by status", "A"): lambda found: by("status")(found)["critical"] == critical
        and by("status")(found)["passing"] == before["passing"] + 1,
        ("Changes of status", "A"): lambda found: about(by("status")(found)["critical"], FLIPS)
        and about(by("status")(found)["passing"], FLIPS),
        ("Probes", "A"): lambda found: pair("kind", "outcome")(found)["http", "timeout"] > 0
        and pair("kind", "outcome")(found)["http", "passing"] == 0,
        ("Time of probes", "A"): lambda found: 0.5 < by("kind")(found)["http"] <= 2.1,
        ("Lateness of probes", "A"): between(1, 16),
        ("Probes under way", "A"): lambda found: 1 <= only(found) <= 9,
        ("Probes under way", "B"): lambda found: 1 <= only(found) <= SILENT,
        ("Time of commits", "A"): between(0, 1),
        ("Time of commits", "B"): between(0, 7),
        ("Time of commits", "C"): between(0, 7),
        ("Errors of the store", "A"): lambda found: only(found) == 0,
        ("Requests by family", "A"): lambda found: about(by("family")(found)["/v1/agent/service"], registered + 20)
        and about(by("family")(found)["/v1/agent/check"], 2 * FLIPS),
        ("Requests by outcome", "A"): lambda found: about(by("status")(found)["client error"], 40)
        and by("status")(found)["server error"] == 0,
        ("Time of requests", "A"): lambda found: 1.6 < by("family")(found)["/v1/agent/service"] <= 6.6,
        ("Connections", "A"): lambda found: WAITING <= only(found) <= WAITING + 3,
        ("Limits hit", "A"): lambda found: about(by("limit")(found)["tags_max"], 20)
        and set(by("limit")(found)) == {"tags_max", "in_flight_max"},
        ("Refused", "A"): lambda found: by("reason")(found).keys() == {"guard"} and about(by("reason")(found)["guard"], 20),
        "instance_rcode:rollcall_dns_answers:rate5m": lambda found: about(
            pair("instance", "rcode")(found)[MAIN, "NXDOMAIN"], total(1, "NXDOMAIN")),
        "instance:rollcall_dns_fast:ratio_rate5m": of_main(lambda value: abs(value - fast / answers) < 0.03),
        "instance:rollcall_change_to_answer_seconds:p99_5m": of_main(lambda value: 1.6 < value <= 6.6),
        "instance:rollcall_change_to_caches_seconds:p99_5m": of_main(lambda value: 3 < value <= 10.1),
        "instance:rollcall_checks_probe_lateness_seconds:p90_5m": of_main(lambda value: 1 < value <= 16),
        "instance:rollcall_checks_critical:ratio": of_main(lambda value: value == SILENT / (SILENT + 1 + before["passing"])),
        "instance:rollcall_store_commit_duration_seconds:p99_5m": of_main(lambda value: 0 < value < 7),
        "RollcallDown": alert(KILLED),
        "RollcallCannotStore": alert(FULL),
        "RollcallStoreErrors": alert(FULL, holds=lambda value: value > 0),
        "RollcallLimitHit": lambda found: {(labels["instance"], labels["limit"]) for labels, _ in found}
        == {(MAIN, "tags_max"), (MAIN, "in_flight_max")},
        "RollcallChecksLate": alert(MAIN),
        "RollcallManyCritical": alert(MAIN, holds=lambda value: value > 0.5),
        "RollcallFlapping": alert(MAIN, holds=lambda value: value > 4 * SILENT),
        "RollcallSlowChanges": alert(MAIN, holds=lambda value: value > 1),
        "RollcallDnsFailures": alert(STEADY, holds=lambda value: value == 1),
        "RollcallForwarderFails": alert(MAIN, STEADY, holds=lambda value: value == 1),
        "RollcallCutOff": alert(STEADY),
        "RollcallGuardHolds": alert(STEADY, holds=lambda value: value == 1),
        "RollcallCircuitOpens": alert(STEADY),
        "RollcallRouteAborted": alert(STEADY),
        "RollcallHeldBack": lambda found: {(labels["instance"], labels["to"]) for labels, _ in found} >= {
            (STEADY, "collector"), (STEADY, "upstreams")},
        "RollcallSpansLost": alert(STEADY),
        "RollcallAuditLost": alert(FULL),
    }


def steadily(scene):
    """The same of what is asked about the server that keeps, leaves out, weighs and calls."""
    lines = scene.audited()
    return {
        ("Kept by guards", "A"): lambda found: only(found) == 1,
        ("Kept by guards", "B"): lambda found: only(found) == steady.GUARDED,
        ("Circuits that are not closed", "A"): lambda found: by("state")(found) == {"open": 1, "half-open": 0},
        ("Reported requests", "A"): lambda found: about(by("outcome")(found)["success"], steady.SUCCESS)
        and about(by("outcome")(found)["failure"], steady.FAILURE),
        ("Turns of circuits", "A"): lambda found: about(by("state")(found)["open"], 1)
        and 0 < by("state")(found)["open"] and by("state")(found)["closed"] == 0,
        ("Turns of circuits", "B"): lambda found: only(found) == 0,
        ("Flapping, and slow starts", "A"): lambda found: only(found) == 1,
        ("Flapping, and slow starts", "B"): lambda found: only(found) == steady.SLOW,
        ("Cut off", "A"): lambda found: only(found) == 1,
        ("Routes", "A"): lambda found: only(found) == 1,
        ("Versions of routes", "A"): lambda found: about(by("action")(found)["set"], steady.TURNS + 2)
        and 0 < by("action")(found)["abort"] < by("action")(found)["undo"] < by("action")(found)["set"],
        ("Time of drains", "A"): between(0, 2),
        ("Calls to others again, or not made", "A"): lambda found: by("to")(found)["collector"] > 0 == by("to")(found)["keys"],
        ("Calls to others again, or not made", "B"): lambda found: 0 < by("to")(found)["upstreams"] * 300 <= 1.1 * steady.ASKED,
        ("Held back", "A"): lambda found: by("to")(found) == {"upstreams": 1, "collector": 1},
        ("Spans", "A"): lambda found: about(by("outcome")(found)["not exported"], steady.TRACED)
        and by("outcome")(found)["exported"] == 0,
        ("Audit log", "A"): lambda found: about(only(found), lines),
        ("Audit log", "B"): lambda found: by("reason")(found) == {"file": 0, "queue": 0},
    }


def evaluated(report):
    """Every expression of the dashboard and of the rules gives what the events must give"""
    found = expressions()
    with ExitStack() as stack:
        network = stack.enter_context(Network())
        host = network.host("srv")
        with host.inside():
            upstream = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            upstream.bind(("127.0.0.77", 53))
        server = stack.enter_context(Rollcall(host, config=CONFIG))
        other = stack.enter_context(Rollcall(host, "--http", KILLED, "--dns", "127.0.0.1:8601", ready=False))
        fill = stack.enter_context(full_disk(host))
        scene = stack.enter_context(Steady(network, host))
        prometheus = stack.enter_context(Prometheus(host))
        until(lambda: prometheus.value("sum(up)") == 4, "four servers are scraped", 30)
        until(lambda: prometheus.value("sum(count_over_time(up[1m]))") > 12, "three scrapes of each", 30)
        alerts = [name for name in found if isinstance(name, str) and ":" not in name]
        quiet = {name: prometheus.query(found[name]) for name in alerts}
        report.equal({name: rows for name, rows in quiet.items() if rows}, {}, "before anything happens no alert holds")
        before = {title: only(prometheus.query(found[title, "A"])) for title in ("Services", "Instances", "Nodes", "Index")}
        before["passing"] = by("status")(prometheus.query(found["Checks by status", "A"]))["passing"]
        events = Events(host, server.http, prometheus)
        with ThreadPoolExecutor(1) as aside:
            both = aside.submit(scene.run, prometheus)
            events.run()
            both.result()
        other.kill()
        fill()
        wanted = {where: (holds, MAIN) for where, holds in expected(events, before).items()}
        wanted |= {where: (holds, STEADY) for where, holds in steadily(scene).items()}
        report.equal(sorted(map(str, wanted)), sorted(map(str, found)), "each expression has a value that it must give")
        for where, expression in found.items():
            judge(report, prometheus, where, expression, *wanted[where])
        for title, holds in (("Can store", lambda rows: only(rows) == 0), ("Errors of the store", lambda rows: only(rows) > 0)):
            judge(report, prometheus, f"{title}, on the full disk", found[title, "A"], holds, FULL)
        for name in alerts:
            until(lambda name=name: prometheus.query('ALERTS{alertname="%s"}' % name) != [], f"{name} is pending or fires", 20)
            report.check(True, f"{name} is pending or fires")
        for name in found:
            if ":" in name:
                rows = prometheus.query(name)
                report.check(any(labels["instance"] == MAIN for labels, _ in rows), f"{name} is recorded", rows)
        for one in events.kept:
            one.close()


def judge(report, prometheus, where, expression, holds, instance=MAIN):
    """Prometheus may be a scrape behind."""
    deadline = time.monotonic() + 8
    while True:
        rows = prometheus.query(expression, instance)
        try:
            good = bool(rows) and holds(rows)
        except (KeyError, TypeError):
            good = False
        if good or time.monotonic() > deadline:
            break
        time.sleep(0.3)
    name = where if isinstance(where, str) else " ".join(where)
    report.check(good, name, rows)


if __name__ == "__main__":
    Report("metrics").run(promtool, evaluated)
