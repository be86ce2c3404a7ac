"""The main job: the guide's Go program, built from the guide's own source with the official Consul client, registers
itself and is in DNS while it lives. Its check interval is 10 s; every time below is counted from an event (a line
printed, a signal sent) and has to be under one second."""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from harness.ask import Dns, addresses, endpoints, records
from harness.hosts import Network
from harness.processes import SHARED, Process, Rollcall, build_go
from harness.report import Report

NAME = "my-go-service.service.{}."
PORT = 8080
BOUND = 1.0
LISTENING = "listening on port 8080"


def program(host, binary, server="127.0.0.1"):
    """Starts the guide's program and gives it with the moment it said that it listens."""
    process = Process(host, [binary], env={"CONSUL_HTTP_ADDR": f"{server}:8500"}, name="my-go-service")
    return process, process.wait_line(LISTENING)


def is_up(*hosts):
    """Holds for a SRV answer of exactly these hosts, each with its address in the additional section."""
    wanted = sorted((host.address, PORT) for host in hosts)
    return lambda answer: endpoints(answer) == wanted


def is_gone(answer):
    """The name exists and has nobody: NODATA with the SOA, never NXDOMAIN."""
    return answer.rcode() == 0 and not answer.answer and bool(records(answer.authority, "SOA"))


def looks_right(report, dns, hosts):
    """What `dig` shows in both domains while the program runs on these hosts."""
    for domain in ("consul", "internal"):
        name = NAME.format(domain)
        srv = dns.ask(name, "SRV")
        report.equal(endpoints(srv), sorted((host.address, PORT) for host in hosts),
                     f"{name} SRV has port and target, and the target's address in the additional section")
        targets = [rdata.target.to_text() for _, _, rdata in records(srv.answer, "SRV")]
        report.check(all(target.endswith(f".{domain}.") for target in targets), f"targets lie in {domain}", targets)
        report.equal(sorted(sum((addresses(dns.ask(target)) for target in targets), [])),
                     sorted(host.address for host in hosts), f"{domain}: the targets resolve on their own")
        a = dns.ask(name, "A")
        report.equal(addresses(a), sorted(host.address for host in hosts), f"{name} A")
        report.check(bool(a.flags & 0x0400), f"{name} A is authoritative")
        ttls = {ttl for _, ttl, _ in records(srv.answer, "SRV") + records(a.answer, "A")}
        report.check(ttls and max(ttls) <= 5, f"{domain}: no TTL is over 5 s", ttls)
        none = dns.ask(name, "AAAA")
        report.check(is_gone(none), f"{name} AAAA is NODATA with a SOA", none)


def one_machine(report):
    """One program on the server's machine: up, killed, up again, and the server killed"""
    binary = build_go(None, "my-go-service", SHARED / "guide" / "my-go-service.go")
    with Network() as network:
        host = network.host("one")
        with Rollcall(host) as server:
            dns = Dns(host)
            name = NAME.format("consul")
            service, listening = program(host, binary)
            _, took = dns.until(name, "SRV", is_up(host), listening)
            report.within(took, BOUND, "program listens, to DNS answers for it")
            looks_right(report, dns, [host])

            # Soon after the start, a while into the interval, and after a probe of the regular pace.
            for rest in (0.0, 3.0, 12.0):
                time.sleep(rest)
                killed = service.kill()
                _, took = dns.until(name, "SRV", is_gone, killed)
                report.within(took, BOUND, f"program killed after {rest:.0f} s at rest, to gone from DNS")
                gone = dns.ask(name, "A")
                report.check(is_gone(gone), "killed: A is NODATA with a SOA", gone)
                service, listening = program(host, binary)
                _, took = dns.until(name, "SRV", is_up(host), listening)
                report.within(took, BOUND, "program started again, to back in DNS")

            for round_ in (1, 2):
                server.kill()
                server.start(ready=False)
                begun = time.monotonic()
                first = None
                while first is None and time.monotonic() - begun < 15:
                    try:
                        first = dns.ask(name, "SRV", timeout=0.5)
                    except (ConnectionRefusedError, TimeoutError):
                        time.sleep(0.001)
                took = time.monotonic() - begun
                report.check(first is not None and is_up(host)(first),
                             f"server killed with SIGKILL ({round_}): the first answer after its start has the program",
                             first)
                report.within(took, BOUND, "server started again, to its first answer")
            looks_right(report, dns, [host])
            killed = service.kill()
            # The new server has to have learnt of the program by its own probe before it can miss it.
            _, took = dns.until(name, "SRV", is_gone, killed)
            report.within(took, BOUND, "program killed after the server's restart, to gone from DNS")

            # A program that was not there when the server came back is found out by the first probe.
            service, listening = program(host, binary)
            dns.until(name, "SRV", is_up(host), listening)
            server.kill()
            service.kill()
            server.start()
            _, took = dns.until(name, "SRV", is_gone, time.monotonic())
            report.within(took, BOUND, "program died while the server was down: server ready, to gone from DNS")


def two_machines(report):
    """The same program on two machines, one server on a third"""
    binary = build_go(None, "my-go-service", SHARED / "guide" / "my-go-service.go")
    with Network() as network:
        home, left, right = (network.host(name) for name in ("srv", "lft", "rgt"))
        with Rollcall(home, "--http", f"{home.address}:8500", "--dns", f"{home.address}:8600", http=home.address):
            dns = Dns(right, home.address)
            name = NAME.format("internal")
            one, listening = program(left, binary, home.address)
            _, took = dns.until(name, "SRV", is_up(left), listening)
            report.within(took, BOUND, "first program listens, to DNS answers for it")
            two, listening = program(right, binary, home.address)
            _, took = dns.until(name, "SRV", is_up(left, right), listening)
            report.within(took, BOUND, "second program with the same ID listens, to two instances in DNS")
            looks_right(report, dns, [left, right])
            killed = one.kill()
            _, took = dns.until(name, "SRV", is_up(right), killed)
            report.within(took, BOUND, "first program killed, to one instance left")
            one, listening = program(left, binary, home.address)
            _, took = dns.until(name, "SRV", is_up(left, right), listening)
            report.within(took, BOUND, "first program started again, to two instances")
            killed = two.kill()
            _, took = dns.until(name, "SRV", is_up(left), killed)
            report.within(took, BOUND, "second program killed, to one instance left")


if __name__ == "__main__":
    Report("guide").run(one_machine, two_machines)
