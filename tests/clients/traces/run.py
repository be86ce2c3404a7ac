"""Traces, as the OpenTelemetry collector's own OTLP receiver gets them over HTTP and over gRPC: what spans there are, whose parts they
are, what they say; and that nobody waits for a collector that hangs or is gone."""

import http.server
import json
import os
import re
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from harness.ask import Dns, addresses
from harness.certificates import Certificates
from harness.hosts import Network
from harness.knot import Knot
from harness.processes import Process, Rollcall, build_go
from harness.report import Report

GRPC, HTTP = 4317, 4318
TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{CALLER}-01"
# Requests while the collector hangs, each of several spans: more than the queue has places.
REQUESTS, QUEUE = 1500, 512


class Collector:
    """The receiver on a host, and what it got."""

    def __init__(self, host, certificate=None):
        self.folder = tempfile.TemporaryDirectory(prefix="rollcall-traces-")
        self.out = Path(self.folder.name) / "spans.jsonl"
        self.process = Process(host, [build_go(".", "otlp-collector", module="traces/collector"), "-grpc", f"{host.address}:{GRPC}",
                                      "-http", f"{host.address}:{HTTP}", "-out", self.out,
                                      *(["-cert", f"{certificate}.pem", "-key", f"{certificate}.key"] if certificate else [])],
                               name="collector")
        self.process.wait_line("ready", timeout=20)

    def spans(self):
        """(resource, span) of all that came; attributes as dictionaries."""
        found = []
        text = self.out.read_text() if self.out.exists() else ""
        for line in text.split("\n")[:-1]:
            for resource in json.loads(line)["resourceSpans"]:
                of = attributes(resource["resource"])
                for scope in resource["scopeSpans"]:
                    found += [(of, {**span, "attributes": attributes(span)}) for span in scope["spans"]]
        return found

    def until(self, wanted, what, patience=10.0):
        """The first span for which this holds."""
        deadline = time.monotonic() + patience
        while True:
            spans = [span for _, span in self.spans()]
            for span in spans:
                if wanted(span):
                    return span
            if time.monotonic() > deadline:
                raise AssertionError(f"no span {what} within {patience} s; there were {sorted({span['name'] for span in spans})}")
            time.sleep(0.02)


def attributes(of):
    return {pair["key"]: next(iter(pair["value"].values()), None) for pair in of.get("attributes", [])}


def config(collector, protocol, rest="", scheme="http"):
    port = GRPC if protocol == "grpc" else HTTP
    return (f'[telemetry]\notlp_endpoint = "{scheme}://{collector}:{port}"\notlp_protocol = "{protocol}"\n'
            f'headers = {{ authorization = "Bearer of-the-collector" }}\n\n{rest}')


class Target:
    """A program that is probed, on this host; the headers of what came."""

    def __init__(self, host):
        self.seen = seen = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                seen.append(dict(self.headers))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_):
                pass

        with host.inside():
            self.server = http.server.ThreadingHTTPServer((host.address, 9300), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def speaks(protocol):
    def case(report):
        with Network() as network:
            home, away = network.host("one"), network.host("two")
            collector, target = Collector(away), Target(home)
            with Knot(away, {"example.test": "@ SOA ns hostmaster 1 1h 1h 1h 1h\n@ NS ns\nns A 192.0.2.53\nwww A 192.0.2.7\n"}):
                upstream = f'[forward]\nupstreams = ["{away.address}:53"]\n'
                with Rollcall(home, config=config(away.address, protocol, rest=upstream)) as server:
                    registers(report, server, collector)
                    probes(report, server, collector, target, home)
                    forwards(report, home, collector)
                    resolves(report, server, home, collector)
                # What a stop leaves is sent as well.
                report.check(server.process.child.returncode == 0, "it ends cleanly with spans to send")
        target.server.shutdown()
    case.__doc__ = f"Spans over {protocol}"
    return case


def registers(report, server, collector):
    answer = server.http.put("/v1/agent/service/register", {"ID": "web-1", "Name": "web", "Port": 80},
                             headers={"traceparent": TRACEPARENT, "tracestate": f"rojo={CALLER}, congo=t61", "x-request-id": "of-the-client"})
    report.equal(answer.status, 200, "registered")
    root = collector.until(lambda span: span["name"] == "PUT /v1/agent/service/register", "of the request")
    report.equal((root["traceId"], root["parentSpanId"], root["kind"]), (TRACE, CALLER, 2), "it is a part of its caller's trace")
    said = root["attributes"]
    report.equal([said.get(name) for name in ("http.request.method", "http.route", "http.response.status_code", "rollcall.request_id")],
                 ["PUT", "/v1/agent/service/register", "200", "of-the-client"], "what it says")
    resource = next(of for of, span in collector.spans() if span["spanId"] == root["spanId"])
    report.equal((resource["service.name"], bool(resource["service.instance.id"])), ("rollcall", True), "whose it is")
    write = collector.until(lambda span: span["name"] == "registry.write" and span["traceId"] == TRACE, "of the writer")
    report.equal((write["parentSpanId"], write["attributes"]["rollcall.action"]), (root["spanId"], "register-instance"), "the writer's part")
    for name in ("registry.plan", "store.commit", "registry.publish"):
        part = collector.until(lambda span: span["name"] == name and span["traceId"] == TRACE, name)
        inside = int(write["startTimeUnixNano"]) <= int(part["startTimeUnixNano"]) <= int(part["endTimeUnixNano"])
        report.check(part["parentSpanId"] == write["spanId"] and inside, f"{name} is a part of it", part)
    states = {span.get("traceState") for _, span in collector.spans() if span["traceId"] == TRACE}
    report.equal(states, {f"rojo={CALLER},congo=t61"}, "its caller's tracestate goes along with all of them")
    not_sampled = TRACEPARENT.replace(TRACE, TRACE[::-1]).replace("-01", "-00")
    server.http.put("/v1/agent/service/deregister/web-1", headers={"traceparent": not_sampled})
    server.http.put("/v1/agent/service/deregister/web-1", headers={"traceparent": "00-junk", "tracestate": "rojo=1"})
    refused = collector.until(lambda span: span["attributes"].get("http.response.status_code") == "404", "of what was refused")
    report.check(refused.get("parentSpanId", "") == "" and not refused.get("traceState") and refused["traceId"] != TRACE, "a bad traceparent is none")
    report.check(all(span["traceId"] != TRACE[::-1] for _, span in collector.spans()), "what its caller does not record is not recorded")


def probes(report, server, collector, target, home):
    server.http.register(ID="probed", Name="probed", Check={"HTTP": f"http://{home.address}:9300/", "Interval": "1s", "CheckID": "seen"})
    probe = collector.until(lambda span: span["name"] == "check.probe"
                            and span["attributes"].get("rollcall.check.status") == "passing", "of a probe that passes")
    report.equal((probe["kind"], probe["attributes"]["rollcall.check.kind"], probe["attributes"]["rollcall.instance.id"]),
                 (3, "http", "probed"), "what a probe says")
    told = {headers.get("traceparent") for headers in target.seen}
    report.check(f"00-{probe['traceId']}-{probe['spanId']}-01" in told, "its target was told its trace", told)
    server.http.register(ID="dead", Name="dead", Check={"TCP": f"{home.address}:9399", "Interval": "1s"})
    failed = collector.until(lambda span: span["name"] == "check.probe" and span.get("status", {}).get("code") == 2, "that failed")
    report.check("refused" in failed["status"]["message"], "a probe that fails says why", failed["status"])


def forwards(report, home, collector):
    answer = Dns(home).ask("www.example.test.", "A")
    report.equal(addresses(answer), ["192.0.2.7"], "forwarded")
    query = collector.until(lambda span: span["name"] == "dns.query"
                            and span["attributes"].get("dns.question.name") == "www.example.test.", "of the query")
    forward = collector.until(lambda span: span["name"] == "dns.forward" and span["traceId"] == query["traceId"], "of forwarding")
    report.equal((forward["parentSpanId"], query["attributes"]["network.transport"], query["kind"], forward["kind"]),
                 (query["spanId"], "udp", 2, 3), "forwarding is a part of the query")


def resolves(report, server, home, collector):
    """An instance whose address is a host name of others: the slow way of a name of ours."""
    server.http.register(ID="by-name", Name="by-name", Address="www.example.test", Port=80)
    answer = Dns(home).ask("by-name.service.internal.", "A")
    report.equal(addresses(answer), ["192.0.2.7"], "a host name is resolved")
    query = collector.until(lambda span: span["name"] == "dns.query"
                            and span["attributes"].get("dns.question.name") == "by-name.service.internal.", "of that query")
    resolve = collector.until(lambda span: span["name"] == "dns.resolve" and span["traceId"] == query["traceId"], "of resolving")
    asked = collector.until(lambda span: span["name"] == "dns.forward" and span["traceId"] == query["traceId"], "of who was asked")
    report.equal((resolve["parentSpanId"], asked["parentSpanId"]), (query["spanId"], resolve["spanId"]), "resolving is a part of the query")
    report.equal(asked["attributes"]["dns.question.name"], "www.example.test.", "it says for which name")
    report.check(inside(asked, resolve) and inside(resolve, query), "each takes its part of the time")


def inside(part, whole):
    moments = [int(of[key]) for of, key in ((whole, "startTimeUnixNano"), (part, "startTimeUnixNano"),
                                            (part, "endTimeUnixNano"), (whole, "endTimeUnixNano"))]
    return moments == sorted(moments)


def secure(protocol):
    def case(report):
        with Network() as network, tempfile.TemporaryDirectory(prefix="rollcall-traces-") as folder:
            home, away = network.host("one"), network.host("two")
            known, strange = Path(folder) / "known", Path(folder) / "strange"
            for place in (known, strange):
                place.mkdir()
            known, strange = Certificates(known, away.address), Certificates(strange, away.address)
            collector = Collector(away, known.server)
            settings = config(away.address, protocol, scheme="https")
            with Rollcall(home, config=settings, env={"SSL_CERT_FILE": f"{strange.authority}.pem"}) as server:
                server.http.get("/v1/catalog/services")
                server.process.wait_line("traces do not reach https://")
                said = server.process.tail()
                report.check("TLS handshake" in said, "a collector whose authority is not trusted is told no trace", said)
            report.equal(collector.spans(), [], "and has none")
            with Rollcall(home, config=settings, env={"SSL_CERT_FILE": f"{known.authority}.pem"}) as server:
                server.http.get("/v1/catalog/services", headers={"x-request-id": "over-tls"})
                span = collector.until(lambda span: span["attributes"].get("rollcall.request_id") == "over-tls", "over TLS")
                report.equal(span["name"], "GET /v1/catalog/services", "a trusted one has it")
                report.check(counted(server, "exported") > 0, "what was sent is counted")
    case.__doc__ = f"A collector over TLS ({protocol})"
    return case


def memory(server):
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) * 1024


def counted(server, kind):
    text = server.http.get("/metrics").body.decode()
    found = re.search(rf'^rollcall_traces_spans_total{{outcome="{kind}"}} (\d+)$', text, re.M)
    return int(found[1]) if found else 0


def hangs(report):
    """A collector that hangs delays nobody and costs no memory"""
    with Network() as network:
        home, away = network.host("one"), network.host("two")
        collector = Collector(away)
        limits = f"[limits]\ntrace_spans_max = {QUEUE}\ntraces_per_second_max = 0\n"
        with Rollcall(home, config=config(away.address, "grpc", rest=limits)) as server:
            def register(first, count):
                begun = time.monotonic()
                for number in range(first, first + count):
                    server.http.register(ID=f"w{number % 10}", Name="web", Port=1 + number)
                return time.monotonic() - begun
            register(0, 300)
            collector.until(lambda span: span["name"] == "registry.write", "before")
            before = register(300, REQUESTS)
            report.equal(collector.process.stop(), "T", "the collector is stopped")
            register(0, 200)
            held = memory(server)
            during = register(200, REQUESTS)
            report.check(during < 3 * before, f"{REQUESTS} registrations take {during:.2f} s, beside {before:.2f} s with it")
            grown = memory(server) - held
            report.check(grown < 16 << 20, f"memory grew by {grown >> 10} KiB", "the bound is 16 MiB")
            dropped = counted(server, "queue full")
            report.check(dropped > REQUESTS, f"{dropped} spans that did not fit are counted")
            os.kill(collector.process.pid, signal.SIGCONT)
            deadline = time.monotonic() + 60
            # Asked again and again, so that there is a span that was made just now.
            while not any(span["attributes"].get("rollcall.request_id") == "after-the-stop" for _, span in collector.spans()):
                server.http.get("/v1/catalog/services", headers={"x-request-id": "after-the-stop"})
                if time.monotonic() > deadline:
                    raise AssertionError("no span arrives after the collector goes on")
                time.sleep(0.2)
            report.check(True, "when the collector goes on, so do traces")
            mark = len(server.process.lines)
            collector.process.kill()
            server.http.register(ID="gone", Name="gone")
            server.process.wait_line("traces do not reach", timeout=60, after=mark)
            report.check(True, "that it is gone is said")
            begun = time.monotonic()
        report.within(time.monotonic() - begun, 8, "a stop does not wait for it")


def floods(report):
    """By default, a flood of requests makes a bounded number of traces"""
    with Network() as network:
        home, away = network.host("one"), network.host("two")
        collector = Collector(away)
        with Rollcall(home, config=config(away.address, "http/protobuf")) as server:
            begun = time.monotonic()
            for _ in range(REQUESTS):
                server.http.get("/v1/catalog/services")
            # 100 at once, and 100 a second.
            bound = 100 + 100 * (time.monotonic() - begun + 1)
            last = {"traceparent": TRACEPARENT, "x-request-id": "traced-by-its-caller"}
            server.http.get("/v1/catalog/services", headers=last)
            collector.until(lambda span: span["attributes"].get("rollcall.request_id") == "traced-by-its-caller", "of a caller's trace")
            report.check(True, "who is traced by its caller always is")
            traces = {span["traceId"] for _, span in collector.spans()}
            text = server.http.get("/metrics").body.decode()
            hits = int(re.search(r'^rollcall_limit_hits_total\{limit="traces_per_second_max"\} (\d+)$', text, re.M)[1])
            report.check(100 <= len(traces) < bound, f"{len(traces)} traces of {REQUESTS} requests", f"the bound is {bound:.0f}")
            report.check(hits >= REQUESTS - bound and hits > 0, f"{hits} that were not recorded are counted")


if __name__ == "__main__":
    Report("traces").run(speaks("http/protobuf"), speaks("grpc"), secure("http/protobuf"), secure("grpc"), hangs, floods)
