"""Debian's HAProxy: `server-template` over SRV with its `hold` times set. Requests go through it to live targets; one
target is killed, and when it is out, no request goes to it."""

import re
import socket
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from harness.ask import Http, endpoints
from harness.processes import Process
from harness.report import Report
from harness.targets import Scene, until

# What HAProxy keeps an answer for is its own: without `hold obsolete`, a server that DNS no longer names is used on for
# as long as the default says.
CONFIG = """
global
    log stdout format raw local0
    stats socket {folder}/admin.sock mode 600 level admin
defaults
    mode http
    log global
    log-format "served %s %ST retries=%rc"
    timeout connect 1s
    timeout client 10s
    timeout server 10s
    option redispatch
    retries 3
resolvers rollcall
    nameserver one {dns}
    accepted_payload_size 8192
    resolve_retries 3
    timeout resolve 500ms
    timeout retry 500ms
    hold valid 500ms
    hold obsolete 1s
    hold nx 1s
    hold other 1s
    hold refused 1s
    hold timeout 1s
frontend front
    bind {address}:8080
    default_backend web
backend web
    balance roundrobin
    server-template web 5 _web._tcp.service.consul resolvers rollcall resolve-prefer ipv4 init-addr none
"""


class HAProxy:
    def __init__(self, scene):
        self._folder = tempfile.TemporaryDirectory(prefix="haproxy-test-")
        folder, host = Path(self._folder.name), scene.client
        config = folder / "haproxy.cfg"
        config.write_text(CONFIG.format(folder=folder, dns=scene.dns, address=host.address))
        self._admin = folder / "admin.sock"
        self.process = Process(host, ["haproxy", "-db", "-f", config], name="haproxy")
        self.http = Http(host, host.address, 8080)

    def __enter__(self):
        until(self._admin.exists, "HAProxy listens")
        return self

    def __exit__(self, *_):
        self.process.kill()
        self._folder.cleanup()

    def servers(self):
        """address:port of the servers that HAProxy has and that are not in maintenance, by HAProxy's own account."""
        with socket.socket(socket.AF_UNIX) as admin:
            admin.connect(str(self._admin))
            admin.sendall(b"show servers state web\n")
            text = b"".join(iter(lambda: admin.recv(65536), b"")).decode()
        # The version, the names of the columns, a line for each server.
        header, *rows = (line.removeprefix("# ").split(" ") for line in text.strip().splitlines()[1:])
        rows = [dict(zip(header, row)) for row in rows]
        return sorted(f"{row['srv_addr']}:{row['srv_port']}" for row in rows if row["srv_op_state"] == "2")

    def ask(self, count):
        """The status and the name of the target that answered, for each of so many requests."""
        answers = [self.http.get("/") for _ in range(count)]
        return [(one.status, one.body.decode()) for one in answers]

    def logged(self):
        """(server, status, retries) of each request in HAProxy's own log."""
        return [re.fullmatch(r".*served (\S+) (\d+) retries=(\+?\d+)", text).groups()
                for _, text in list(self.process.lines) if "served " in text]


def killed_target(report):
    """server-template over SRV; one of two targets is killed"""
    with Scene() as scene, HAProxy(scene) as proxy:
        first, second = scene.targets
        both = sorted(one.endpoint for one in scene.targets)
        took = until(lambda: proxy.servers() == both, "HAProxy has both targets as servers")
        report.check(True, f"HAProxy filled its template with both targets ({took:.1f} s)")
        answers = proxy.ask(40)
        report.equal({status for status, _ in answers}, {200}, "40 requests through it are answered")
        share = [body for _, body in answers].count(first.name)
        report.check(10 <= share <= 30, f"by both targets ({share} by the first)")

        died = second.kill()
        scene.resolver.until("_web._tcp.service.consul", "SRV", lambda answer: endpoints(answer) == [(first.address, first.port)], died)
        took = until(lambda: proxy.servers() == [first.endpoint], "HAProxy has put the killed target out")
        report.check(True, f"HAProxy has put the killed target out, {took:.1f} s after DNS had")
        before = len(proxy.logged())
        answers = proxy.ask(100)
        report.equal(set(answers), {(200, first.name)}, "100 requests after that are answered by the other")
        until(lambda: len(proxy.logged()) == before + 100, "HAProxy has logged them")
        report.equal({entry[1:] for entry in proxy.logged()[before:]}, {("200", "0")},
                     "and none was tried anywhere else first")
        report.equal(len({entry[0] for entry in proxy.logged()[before:]}), 1, "by HAProxy's log it was one server")

        second.start()
        until(lambda: proxy.servers() == both, "HAProxy has both targets again")
        report.equal({body for _, body in proxy.ask(20)}, {first.name, second.name}, "started again, it serves again")
        scene.log.compare(report, "haproxy", dns_from=scene.client)


if __name__ == "__main__":
    Report("haproxy").run(killed_target)
