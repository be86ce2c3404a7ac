"""Every kind of probe but HTTP (which `kept` and `guide` look at), with the field's own servers as targets: gRPC's
health service, Go's net/http over HTTP/2 with and without TLS, UDP sockets, programs."""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from harness.ask import Dns, addresses
from harness.hosts import Network
from harness.processes import BUILD, Process, Rollcall, build_go
from harness.report import Report

# As in main.go.
(CONTROL, GRPC, GRPC_TLS, GRPC_EXPIRED, GRPC_NO_HEALTH,
 HTTP2, HTTP2_TLS, HTTP1, UDP_ECHO, UDP_SILENT) = range(9200, 9210)
NAME = "probed.example"
CA = BUILD / "probes-ca.pem"


def start(host):
    target = Process(host, [build_go(".", "go-probed", module="probes"), host.address, CA], name="go-probed")
    target.wait_line("listening")
    return target


def register(server, name, address, **check):
    server.http.register(ID=name, Name=name, Address=address, Port=9,
                         Check={"Interval": "1s", "Timeout": "8s", **check})
    return time.monotonic()


def until(server, name, wanted, since, patience=15.0):
    """Asks until `wanted(status, output)` holds for the service's check; both, and the seconds since `since`."""
    while True:
        check, = server.http.json(f"/v1/health/checks/{name}")
        if wanted(check["Status"], check["Output"]):
            return check["Status"], check["Output"], time.monotonic() - since
        if time.monotonic() - since > patience:
            raise AssertionError(f"{name} did not become as wanted within {patience} s: {check}")
        time.sleep(0.005)


def passing(report):
    """What is healthy is in DNS within a second"""
    with Network() as network:
        home, away = network.host("one"), network.host("two")
        target = start(away)
        at = away.address
        with Rollcall(home, env={"SSL_CERT_FILE": str(CA)}) as server:
            for name, check, output, bound in (
                ("tcp", {"TCP": f"{at}:{GRPC}"}, f"TCP connect {at}:{GRPC}: Success", 1),
                ("tcp-tls", {"TCP": f"{at}:{HTTP2_TLS}", "TCPUseTLS": True, "TLSServerName": NAME},
                 f"TCP+TLS connect {at}:{HTTP2_TLS}: Success", 1),
                ("tcp-tls-any", {"TCP": f"{at}:{GRPC_EXPIRED}", "TCPUseTLS": True, "TLSSkipVerify": True},
                 f"TCP+TLS connect {at}:{GRPC_EXPIRED}: Success", 1),
                ("udp-echo", {"UDP": f"{at}:{UDP_ECHO}"}, f"UDP connect {at}:{UDP_ECHO}: Success", 1),
                # Silence has to be waited for.
                ("udp-silent", {"UDP": f"{at}:{UDP_SILENT}"}, f"UDP connect {at}:{UDP_SILENT}: Success", 6),
                ("grpc", {"GRPC": f"{at}:{GRPC}"}, f"gRPC check {at}:{GRPC}: success", 1),
                ("grpc-service", {"GRPC": f"{at}:{GRPC}/changing"}, f"gRPC check {at}:{GRPC}: success", 1),
                ("grpc-tls", {"GRPC": f"{at}:{GRPC_TLS}", "GRPCUseTLS": True, "TLSServerName": NAME},
                 f"gRPC check {at}:{GRPC_TLS}: success", 1),
                ("h2ping", {"H2PING": f"{at}:{HTTP2}", "H2PingUseTLS": False}, "HTTP2 ping was successful", 1),
                ("h2ping-tls", {"H2PING": f"{at}:{HTTP2_TLS}", "TLSServerName": NAME}, "HTTP2 ping was successful", 1),
                ("h2ping-grpc", {"H2PING": f"{at}:{GRPC}", "H2PingUseTLS": False}, "HTTP2 ping was successful", 1),
            ):
                registered = register(server, name, at, **check)
                _, took = Dns(home).until(f"{name}.service.consul.", "A", lambda a: addresses(a) == [at], registered)
                report.within(took, bound, f"{name}: registered, to in DNS")
                shown, = server.http.json(f"/v1/health/checks/{name}")
                report.equal((shown["Status"], shown["Output"]), ("passing", output), f"{name}: its words")
            # Probes come and go by the second; what the target's libraries complain about they print.
            time.sleep(3)
            report.equal([text for _, text in target.lines if text != "listening"], [],
                         "the targets have nothing to complain about")
            killed = target.kill()
            for name in ("tcp", "tcp-tls", "udp-echo", "grpc", "grpc-tls", "h2ping", "h2ping-tls"):
                _, took = Dns(home).until(f"{name}.service.consul.", "A", lambda a: not a.answer, killed)
                report.within(took, 3, f"{name}: killed, to gone from DNS, at an interval of 1 s")


def failing(report):
    """What is not healthy is critical, and says why"""
    with Network() as network:
        home, away = network.host("one"), network.host("two")
        target = start(away)
        at = away.address
        nobody = "192.0.2.99"
        with Rollcall(home, env={"SSL_CERT_FILE": str(CA)}) as server:
            for name, check, words in (
                ("tcp-refused", {"TCP": f"{at}:9"}, f"dial tcp {at}:9: connect: connection refused"),
                ("tcp-gone", {"TCP": f"{nobody}:9"}, f"dial tcp {nobody}:9: connect: no route to host"),
                ("tcp-no-tls", {"TCP": f"{at}:{HTTP1}", "TCPUseTLS": True}, "does the target speak TLS on this port?"),
                ("tcp-other-name", {"TCP": f"{at}:{HTTP2_TLS}", "TCPUseTLS": True}, f"is for {NAME}, not for this name"),
                ("tcp-expired", {"TCP": f"{at}:{GRPC_EXPIRED}", "TCPUseTLS": True, "TLSServerName": NAME},
                 "the certificate expired 3 days ago"),
                ("udp-refused", {"UDP": f"{at}:9"}, f"read udp {at}:9: connection refused"),
                ("udp-gone", {"UDP": f"{nobody}:9"}, f"read udp {nobody}:9: no route to host"),
                ("grpc-down", {"GRPC": f"{at}:{GRPC}/down"}, f"gRPC {at}:{GRPC} serving status: NOT_SERVING"),
                ("grpc-unknown", {"GRPC": f"{at}:{GRPC}/nothing"}, "code = NotFound desc = unknown service"),
                ("grpc-no-health", {"GRPC": f"{at}:{GRPC_NO_HEALTH}"}, "code = Unimplemented desc = unknown service "
                 "grpc.health.v1.Health (the target does not serve grpc.health.v1.Health"),
                ("grpc-http1", {"GRPC": f"{at}:{HTTP1}"}, "does the target speak HTTP/2 without TLS on this port?"),
                ("grpc-http2", {"GRPC": f"{at}:{HTTP2}"}, "is it a gRPC server?"),
                ("grpc-needs-tls", {"GRPC": f"{at}:{GRPC_TLS}"}, "does the target speak HTTP/2 without TLS on this port?"),
                ("h2ping-http1", {"H2PING": f"{at}:{HTTP1}", "H2PingUseTLS": False},
                 "does the target speak HTTP/2 without TLS on this port?"),
                ("h2ping-other-name", {"H2PING": f"{at}:{HTTP2_TLS}"}, f"is for {NAME}, not for this name"),
            ):
                registered = register(server, name, at, **check)
                status, output, took = until(server, name, lambda _, output: output != "", registered)
                report.check(status == "critical" and words in output, f"{name}: {output!r} after {took:.1f} s",
                             f"wanted critical and {words!r}, got {status}")
        # The same CA, not known to this one.
        with Rollcall(home, env={"SSL_CERT_FILE": "/nowhere", "SSL_CERT_DIR": "/nowhere"}) as server:
            registered = register(server, "no-roots", at, TCP=f"{at}:{GRPC_TLS}", TCPUseTLS=True, TLSServerName=NAME)
            _, output, _ = until(server, "no-roots", lambda _, output: output != "", registered)
            report.check("no root certificates" in output, f"without roots: {output!r}", "wanted the remedy")
            registered = register(server, "any", at, TCP=f"{at}:{GRPC_TLS}", TCPUseTLS=True, TLSSkipVerify=True)
            until(server, "any", lambda status, _: status == "passing", registered)
            report.check(True, "without roots: TLSSkipVerify passes")
        target.kill()


def changing(report):
    """A gRPC status that changes is followed at the interval"""
    with Network() as network:
        home, away = network.host("one"), network.host("two")
        start(away)
        with Rollcall(home) as server:
            registered = register(server, "changing", away.address, GRPC=f"{away.address}:{GRPC}/changing")
            until(server, "changing", lambda status, _: status == "passing", registered)
            stream = Dns(away, away.address, CONTROL).connect()
            for word, status in (("NOT_SERVING", "critical"), ("SERVING", "passing")):
                stream.sendall(f"changing {word}\n".encode())
                stream.recv(16)
                moment = time.monotonic()
                _, _, took = until(server, "changing", lambda now, _: now == status, moment)
                report.within(took, 3, f"{word}, to {status}, at an interval of 1 s")
            stream.close()


def alive(mark):
    """Whether a process with this word on its command line runs."""
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if mark in file.read_text("utf-8", "replace").split("\0"):
                return True
        except OSError:
            pass  # It has just ended.
    return False


def scripts(report):
    """Programs: only when allowed, by exit code, killed with all they started"""
    script = {"ScriptArgs": ["true"], "Interval": "1s"}
    with Network() as network:
        home = network.host("one")
        with Rollcall(home) as server:
            answer = server.http.put("/v1/agent/service/register", {"ID": "s", "Name": "s", "Check": script})
            report.equal(answer.status, 500, "not allowed: refused")
            report.check(b"[checks] script = true" in answer.body, "not allowed: the remedy is named", answer.body)
            report.equal(server.http.json("/v1/agent/services"), {}, "not allowed: nothing was registered")
        with Rollcall(home, config="[checks]\nscript = true\n") as server:
            for name, words, status, output in (
                ("fine", ["sh", "-c", "echo fine"], "passing", "fine\n"),
                ("so-so", ["sh", "-c", "echo so so; exit 1"], "warning", "so so\n"),
                ("bad", ["sh", "-c", "echo bad >&2; exit 2"], "critical", "bad\n"),
                ("none", ["/no/such/program"], "critical", 'cannot run "/no/such/program": no such file or directory'),
            ):
                registered = register(server, name, home.address, ScriptArgs=words)
                now, shown, _ = until(server, name, lambda _, shown: shown != "", registered)
                report.check(now == status and shown.startswith(output), f"{name}: {now}, {shown!r}",
                             f"wanted {status}, {output!r}")
            mark = f"{time.time_ns()}"
            # The mark is on the command line of all three processes; as a number of seconds it is long.
            hangs = ["sh", "-c", "(sleep $0; exit) & echo waiting; wait", mark]
            registered = register(server, "hangs", home.address, ScriptArgs=hangs, Timeout="1s", Interval="600s")
            _, shown, _ = until(server, "hangs", lambda _, shown: shown != "", registered)
            report.equal(shown, "Timed out (1s) running check\nwaiting\n", "hangs: its words")
            server.http.deregister("hangs")
            gone_by(report, mark, "timed out: nothing of it is left")
            run_until(report, server, home, hangs, lambda: server.http.deregister("stays"), "deregistered")
            run_until(report, server, home, hangs, server.stop, "server stopped")


def run_until(report, server, home, words, end, what):
    """A program that runs on until `end()`."""
    mark = words[-1] = f"{time.time_ns()}"
    register(server, "stays", home.address, ScriptArgs=words, Timeout="600s")
    deadline = time.monotonic() + 10
    while not alive(mark) and time.monotonic() < deadline:
        time.sleep(0.005)
    report.check(alive(mark), f"{what}: it ran before")
    end()
    gone_by(report, mark, f"{what}: nothing of it is left")


def gone_by(report, mark, what, patience=5.0):
    deadline = time.monotonic() + patience
    while alive(mark) and time.monotonic() < deadline:
        time.sleep(0.005)
    report.check(not alive(mark), what, f"still there after {patience} s")


if __name__ == "__main__":
    Report("probes").run(passing, failing, changing, scripts)
