"""Servers on this machine's loopback that answer for many zones: Rollcall, Knot and NSD; and a question to one."""

import re
import socket
import time
from contextlib import nullcontext

import dns.exception
import dns.flags
import dns.message
import dns.query

from harness.processes import ROLLCALL, Process


class Here:
    """This machine itself, as a host of the harness."""

    def inside(self):
        return nullcontext()


def write(folder, zones):
    """Writes zones (origin and text), each to a file; gives origins and files."""
    files = []
    for number, (origin, text) in enumerate(zones):
        file = folder / f"{number}.zone"
        file.write_text(text)
        files.append((origin, file))
    return files


def rollcall(folder, files):
    """Starts Rollcall; gives its DNS port."""
    # Names as TOML literals: backslashes stay what they are.
    tables = [f"[[zone]]\nname = '{origin}'\nfile = '{file}'\n" for origin, file in files]
    config = folder / "rollcall.toml"
    config.write_text("\n".join(tables))
    command = [ROLLCALL, "serve", "--config", config, "--ephemeral", "--dns", "127.0.0.1:0", "--http", "127.0.0.1:0"]
    process = Process(Here(), command, env={"HOME": str(folder)}, name="rollcall")
    process.wait_line("ready", timeout=60)
    printed = "\n".join(text for _, text in process.lines)
    return int(re.search(r"DNS on 127\.0\.0\.1:(\d+)", printed).group(1))


def knot(folder, files):
    port = _free_port()
    lines = ["server:", f"    rundir: {folder}", "    udp-workers: 1", "    tcp-workers: 1",
             f"    listen: 127.0.0.1@{port}", "database:", f"    storage: {folder}/knot",
             "log:", "  - target: stdout", "    any: error", "zone:"]
    for origin, file in files:
        lines += [f"  - domain: \"{origin}\"", f"    file: \"{file}\""]
    config = folder / "knot.conf"
    config.write_text("\n".join(lines) + "\n")
    _until_served(Process(Here(), ["knotd", "-c", config], name="knotd"), port, files)
    return port


def nsd(folder, files):
    port = _free_port()
    lines = ["server:", f"    ip-address: 127.0.0.1@{port}", "    username: \"\"", "    server-count: 1",
             "    database: \"\"", "    rrl-ratelimit: 0", f"    pidfile: \"{folder}/nsd.pid\"",
             f"    zonelistfile: \"{folder}/zone.list\"", f"    xfrdfile: \"{folder}/xfrd.state\"",
             f"    xfrdir: \"{folder}\"", f"    zonesdir: \"{folder}\"", "remote-control:", "    control-enable: no"]
    for origin, file in files:
        lines += ["zone:", f"    name: \"{origin}\"", f"    zonefile: \"{file}\""]
    config = folder / "nsd.conf"
    config.write_text("\n".join(lines) + "\n")
    _until_served(Process(Here(), ["nsd", "-d", "-c", config], name="nsd"), port, files)
    return port


def _free_port():
    """A port that is free for UDP and TCP, below those that the kernel gives to whoever asks for any."""
    for port in range(20_000, 32_768):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tcp, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            try:
                tcp.bind(("127.0.0.1", port))
                udp.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no port is free")


def _until_served(process, port, files):
    deadline = time.monotonic() + 60
    for origin, _ in files:
        while True:
            try:
                if ask(origin, "SOA", port, timeout=0.5).answer:
                    break
            except (OSError, dns.exception.Timeout):
                pass
            if process.child.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"{process.name} does not serve {origin}: {process.tail()}")
            time.sleep(0.05)


def ask(name, kind, port, timeout=10):
    """The answer over UDP, or over TCP if that was truncated; each record is an RRset of its own."""
    query = dns.message.make_query(name, kind, flags=0)
    answer = dns.query.udp(query, "127.0.0.1", port=port, timeout=timeout, one_rr_per_rrset=True)
    if answer.flags & dns.flags.TC:
        answer = dns.query.tcp(query, "127.0.0.1", port=port, timeout=timeout, one_rr_per_rrset=True)
    return answer
