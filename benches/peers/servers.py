"""The servers: each a child pinned to one core, with a folder and a free port of its own."""

import http.client
import os
import re
import signal
import socket
import subprocess
import time
from pathlib import Path

from records import DOMAIN

HERE = Path(__file__).resolve().parent
BUILD = Path(os.environ.get("CARGO_TARGET_DIR", HERE.parents[1] / "target")) / "peers"
ROLLCALL = Path(os.environ.get("ROLLCALL_BIN", BUILD.parent / "release" / "rollcall"))
CORE = "0"


def free_port():
    """A port that is free for UDP and TCP on loopback now."""
    while True:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tcp, \
                socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            tcp.bind(("127.0.0.1", 0))
            try:
                udp.bind(tcp.getsockname())
                return tcp.getsockname()[1]
            except OSError:
                continue


class Server:
    """A server pinned to the server core, as a child with its own folder."""

    all = []
    http = None

    def __init__(self, title, folder, command, port, checked=True):
        self.title, self.port, self.checked = title, port, checked
        self.log = open(folder / "log", "w+")
        self.child = subprocess.Popen(["taskset", "-c", CORE, *map(str, command)], cwd=folder,
                                      stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
                                      start_new_session=True)
        Server.all.append(self)

    @property
    def short(self):
        return self.title.split()[0]

    def processes(self):
        """Its own pid and those of its descendants."""
        parents = {}
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                try:
                    parents[int(entry)] = int(stat(entry)[1])
                except (OSError, IndexError):
                    continue
        found = [self.child.pid]
        for pid in found:
            found += [child for child, parent in parents.items() if parent == pid]
        return found

    def cpu(self):
        """Seconds of CPU time, user and system, of all its threads and processes: the kernel's clock of each process."""
        total = 0
        for pid in self.processes():
            try:
                total += time.clock_gettime(~pid << 3 | 2)
            except OSError:
                continue
        return total

    def udp_cpu(self):
        """Seconds of CPU time of the threads that do nothing but answer over UDP, where they have a name of their own."""
        total = 0
        for task in Path(f"/proc/{self.child.pid}/task").iterdir():
            try:
                if (task / "comm").read_text().startswith("dns-udp"):
                    total += int((task / "schedstat").read_text().split()[0]) / 1e9
            except OSError:
                continue
        return total

    def memory(self):
        """Resident octets of all its processes, counting what they share once (PSS)."""
        total = 0
        for pid in self.processes():
            try:
                text = Path(f"/proc/{pid}/smaps_rollup").read_text()
                total += int(re.search(r"^Pss:\s+(\d+)", text, re.M).group(1)) * 1024
            except OSError:
                continue
        return total

    def drops(self):
        """Datagrams that the kernel dropped since the start because this server's sockets were full."""
        total, port = 0, f":{self.port:04X}"
        for family in ("udp", "udp6"):
            try:
                rows = Path(f"/proc/net/{family}").read_text().splitlines()[1:]
            except OSError:
                continue
            total += sum(int(row.split()[-1]) for row in rows if row.split()[1].endswith(port))
        return total

    def alive(self):
        return self.child.poll() is None

    def wait(self, is_up, seconds=120):
        """Waits until `is_up()` holds."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self.alive():
            if is_up():
                return self
            time.sleep(0.05)
        raise SystemExit(f"{self.title} does not answer; it printed:\n{self.printed()}")

    def printed(self):
        self.log.seek(0)
        return self.log.read()[-3000:]

    def end(self):
        if self.alive():
            self.child.send_signal(signal.SIGTERM)
            try:
                self.child.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(self.child.pid, signal.SIGKILL)
                self.child.wait()
        self.log.close()
        Server.all.remove(self)


def end_all():
    for server in list(Server.all):
        server.end()


def stat(pid):
    """/proc/PID/stat from the state on; a command name may hold spaces."""
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()


def knot(folder, zone, origin=DOMAIN):
    """Debian's Knot with one UDP worker and its module for statistics. Its answers are minimal as it comes."""
    port = free_port()
    (folder / "knot.conf").write_text(f"""
server:
    rundir: {folder}
    listen: 127.0.0.1@{port}
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
database:
    storage: {folder}/db
log:
  - target: stderr
    any: error
template:
  - id: default
    global-module: mod-stats
zone:
  - domain: {origin}
    file: {zone}
    zonefile-load: whole
    semantic-checks: off
""")
    version = re.search(r"[\d.]+", output("knotd", "--version")).group()
    return Server(f"Knot {version}", folder, ["knotd", "-c", folder / "knot.conf"], port)


def nsd(folder, zone, origin=DOMAIN):
    """Debian's NSD with one server process, whose statistics are built in. Its own minimal responses would leave out the addresses of SRV targets; the
    zone's want of an NS set makes them minimal instead (records.py)."""
    port = free_port()
    (folder / "nsd.conf").write_text(f"""
server:
    ip-address: 127.0.0.1@{port}
    server-count: 1
    username: ""
    zonesdir: "{folder}"
    database: ""
    pidfile: "{folder}/pid"
    zonelistfile: "{folder}/zone.list"
    xfrdfile: "{folder}/xfrd.state"
    xfrdir: "{folder}"
    minimal-responses: no
    rrl-ratelimit: 0
    verbosity: 0
remote-control:
    control-enable: no
zone:
    name: {origin}
    zonefile: {zone}
""")
    version = re.search(r"version ([\d.]+)", output("nsd", "-v")).group(1)
    return Server(f"NSD {version}", folder, ["nsd", "-d", "-c", folder / "nsd.conf"], port)


def coredns(folder, zone, origin=DOMAIN):
    """CoreDNS with its plugins for metrics and zone files; Go sees one core."""
    port = free_port()
    (folder / "Corefile").write_text(f"{origin}:{port} {{\n    bind 127.0.0.1\n    prometheus 127.0.0.1:{free_port()}\n"
                                     f"    file {zone}\n}}\n")
    version = re.search(r"coredns/coredns v(\S+)", (HERE / "coredns" / "go.mod").read_text()).group(1)
    command = [BUILD / "coredns", "-conf", folder / "Corefile"]
    return Server(f"CoreDNS {version}", folder, command, port)


def echo(folder):
    """The kernel's part of every answer."""
    port = free_port()
    return Server("echo (the kernel's part)", folder, [BUILD / "echo", port], port, checked=False)


def rollcall(folder, config="", *flags):
    """Rollcall with its defaults, and what of a configuration is given."""
    port, http_port = free_port(), free_port()
    (folder / "rollcall.toml").write_text(config)
    server = Server("Rollcall", folder, [ROLLCALL, "serve", "--config", folder / "rollcall.toml", "--data-dir",
                                         folder / "data", "--http", f"127.0.0.1:{http_port}", "--dns",
                                         f"127.0.0.1:{port}", *flags], port)
    server.http = http_port
    return server.wait(lambda: get(http_port, "/ready")[0] == 200)


def get(port, path):
    """Status and text of a GET; status 0 when nobody answers."""
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    except OSError:
        return 0, ""


def metric(server, name):
    """The sum of one of Rollcall's metrics over its labels; 0 while it has no samples."""
    text = get(server.http, "/metrics")[1]
    values = re.findall(rf"^{name}(?:\{{[^}}]*\}})? (\S+)$", text, re.M)
    return sum(map(float, values))


def output(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout + done.stderr
