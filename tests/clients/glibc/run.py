"""glibc's getaddrinfo with `nameserver` pointing at Rollcall: a machine set so finds its services and everything
else. "Everything else" is a zone on a second, real DNS server (Knot), reached through [forward]."""

import json
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from harness.ask import Dns, addresses
from harness.fleet import register_fleet
from harness.hosts import Network
from harness.knot import Knot
from harness.processes import Rollcall
from harness.report import Report

ZONE = "\n".join(
    ["$ORIGIN example.com.", "$TTL 300", "@ SOA ns hostmaster 1 3600 600 86400 60", "@ NS ns", "ns A 192.0.2.53",
     "www A 192.0.2.80", "www AAAA 2001:db8::80", "alias CNAME www", "text TXT \"hello\""]
    + [f"wide A 198.51.100.{number}" for number in range(1, 201)]) + "\n"

# One glibc call, run on the host with its resolv.conf; the interpreter is only the caller.
CALL = """
import json, socket, sys
family = {"any": socket.AF_UNSPEC, "4": socket.AF_INET, "6": socket.AF_INET6}[sys.argv[2]]
try:
    found = socket.getaddrinfo(sys.argv[1], None, family, socket.SOCK_STREAM)
    print(json.dumps(sorted({one[4][0] for one in found})))
except socket.gaierror as error:
    print(json.dumps(socket.EAI_AGAIN == error.errno and "again" or "none"))
"""

CONFIG = """
[dns]
listen = ["127.0.0.1:53"]

[forward]
upstreams = [{upstreams}]
"""


def getaddrinfo(host, name, family="any"):
    done = subprocess.run(host.with_etc(sys.executable, "-c", CALL, name, family), stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=60)
    if done.returncode != 0:
        raise AssertionError(f"getaddrinfo {name}: {done.stderr}")
    return json.loads(done.stdout)


def both_worlds(report):
    """getaddrinfo for services and for other names"""
    with Network() as network:
        host, other = network.host("one"), network.host("two")
        host.etc("resolv.conf", "nameserver 127.0.0.1\noptions timeout:2 attempts:1\n")
        config = CONFIG.format(upstreams=f'"{other.address}:53"')
        with Knot(other, {"example.com": ZONE}) as knot, Rollcall(host, config=config) as server:
            register_fleet(server.http)
            for name, family, wanted in (
                    ("web.service.internal", "any", ["192.0.2.11", "192.0.2.12"]),
                    ("web.service.consul", "4", ["192.0.2.11", "192.0.2.12"]),
                    ("web.service.consul", "6", "none"),
                    ("dual.service.internal", "any", ["192.0.2.13", "2001:db8::13"]),
                    ("six.service.internal", "any", ["2001:db8::66"]),
                    ("six.service.internal", "4", "none"),
                    ("idle.service.internal", "any", "none"),
                    ("nobody.service.internal", "any", "none"),
                    ("www.example.com", "any", ["192.0.2.80", "2001:db8::80"]),
                    ("alias.example.com", "4", ["192.0.2.80"]),
                    ("nothing.example.com", "any", "none"),
                    ("text.example.com", "4", "none")):
                report.equal(getaddrinfo(host, name, family), wanted, f"getaddrinfo {name} ({family})")
            report.equal(len(getaddrinfo(host, "wide.example.com", "4")), 200,
                         "a forwarded answer of 200 addresses is complete")
            getent = subprocess.run(host.with_etc("getent", "ahostsv4", "web.service.internal"), capture_output=True,
                                    text=True, timeout=30)
            report.check("192.0.2.11" in getent.stdout and "192.0.2.12" in getent.stdout, "getent ahostsv4",
                         getent.stdout + getent.stderr)

            host.etc("resolv.conf", "search service.internal\nnameserver 127.0.0.1\noptions ndots:1 timeout:2\n")
            report.equal(getaddrinfo(host, "web"), ["192.0.2.11", "192.0.2.12"], "a search list makes the short name do")
            report.equal(getaddrinfo(host, "www.example.com", "4"), ["192.0.2.80"], "and spares other names")

            dns = Dns(host, port=53)
            away = dns.ask("www.example.com", "A")
            report.check(bool(away.flags & 0x0080) and not away.flags & 0x0400, "a forwarded answer has RA and no AA",
                         away)
            own = dns.ask("web.service.internal", "A")
            report.check(bool(own.flags & 0x0400), "our own answer has AA", own)
            report.equal(addresses(dns.tcp("www.example.com", "A")), ["192.0.2.80"], "forwarded for a TCP client too")

            # Live names come from the registry at once, cached or not.
            server.http.deregister("web-1")
            report.equal(getaddrinfo(host, "web.service.internal"), ["192.0.2.12"],
                         "a deregistered instance is gone from the next answer")

            knot.process.kill()
            begun = time.monotonic()
            report.equal(getaddrinfo(host, "web.service.internal"), ["192.0.2.12"],
                         "with the other server dead, services resolve")
            report.check(time.monotonic() - begun < 1.5, "and at once", time.monotonic() - begun)
            dead = getaddrinfo(host, "fresh.example.com")
            report.equal(dead, "again", "and other names fail for now, not for good")


def who_may_ask(report):
    """Forwarding is for the clients that [forward] allows"""
    with Network() as network:
        host, other = network.host("one"), network.host("two")
        config = (f'[dns]\nlisten = ["0.0.0.0:53"]\n[forward]\nupstreams = ["{other.address}:53"]\n'
                  'allow = ["127.0.0.0/8"]\n')
        with Knot(other, {"example.com": ZONE}), Rollcall(host, config=config) as server:
            register_fleet(server.http)
            stranger = Dns(other, host.address, 53)
            report.equal(stranger.ask("www.example.com").rcode(), 5, "a stranger's other names are REFUSED")
            report.equal(addresses(stranger.ask("web.service.internal")), ["192.0.2.11", "192.0.2.12"],
                         "a stranger's service names are answered")
            report.equal(addresses(Dns(host, port=53).ask("www.example.com")), ["192.0.2.80"],
                         "a local client's other names are forwarded")
            report.equal(stranger.ask("www.example.com").rcode(), 5, "and still REFUSED to the stranger once cached")


def system_upstreams(report):
    """upstreams = ["system"] takes the machine's own servers, and never ourselves"""
    with Network() as network:
        host, other = network.host("one"), network.host("two")
        config = CONFIG.format(upstreams='"system"')
        with Knot(other, {"example.com": ZONE}):
            host.etc("resolv.conf", f"nameserver {other.address}\n")
            with Rollcall(host, config=config, own_etc=True) as server:
                register_fleet(server.http)
                host.etc("resolv.conf", "nameserver 127.0.0.1\noptions timeout:2 attempts:1\n")
                report.equal(getaddrinfo(host, "www.example.com", "4"), ["192.0.2.80"], "the system's server is asked")
                report.equal(getaddrinfo(host, "six.service.internal"), ["2001:db8::66"], "services resolve beside it")
        # Now the system's only server is ourselves: it says so and ends, or runs and fails those names quickly.
        server = None
        try:
            server = Rollcall(host, config=config, own_etc=True)
        except AssertionError as refused:
            report.check("itself" in str(refused), "a system that names only ourselves is refused at the start, in so many "
                         "words", refused)
            return
        with server:
            register_fleet(server.http)
            begun = time.monotonic()
            answer = Dns(host, port=53).ask("www.example.com", timeout=5)
            report.check(answer.rcode() in (2, 5), "no loop to ourselves: other names fail", answer)
            report.check(time.monotonic() - begun < 1, "at once", time.monotonic() - begun)
            report.equal(getaddrinfo(host, "six.service.internal"), ["2001:db8::66"], "and services resolve")


if __name__ == "__main__":
    Report("glibc").run(both_worlds, who_may_ask, system_upstreams)
