"""The servers: each a child pinned to one core, with a folder and a free port of its own."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

from records import DOMAIN, INSTANCES, ask, instances, name, zone

BUILD = Path(os.environ.get("CARGO_TARGET_DIR", Path(__file__).resolve().parents[2] / "target")) / "peers"
ROLLCALL = Path(os.environ.get("ROLLCALL_BIN", BUILD.parent / "release" / "rollcall"))
CORE = "0"
TICK = os.sysconf("SC_CLK_TCK")
CONNECTIONS = 16


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
    note = None

    def __init__(self, title, folder, command, port, checked=True):
        self.title, self.port, self.checked = title, port, checked
        self.log = open(folder / "log", "w+")
        self.child = subprocess.Popen(["taskset", "-c", CORE, *map(str, command)], cwd=folder,
                                      stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
                                      start_new_session=True)
        Server.all.append(self)

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
        """Seconds of CPU time, user and system, of all its threads and processes."""
        total = 0
        for pid in self.processes():
            try:
                fields = stat(pid)
                total += int(fields[11]) + int(fields[12])
            except OSError:
                continue
        return total / TICK

    def wait(self, services):
        """Waits until it answers for the last service."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if self.child.poll() is not None:
                break
            answer = ask(self.port, f"{name(services - 1)}.service.{DOMAIN}", 33)
            if answer and int.from_bytes(answer[6:8], "big") == INSTANCES:
                return self
            time.sleep(0.05)
        raise SystemExit(f"{self.title} does not answer; it printed:\n{self.printed()}")

    def printed(self):
        self.log.seek(0)
        return self.log.read()[-3000:]

    def end(self):
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGTERM)
            try:
                self.child.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(self.child.pid, signal.SIGKILL)
                self.child.wait()
        self.log.close()


def stat(pid):
    """/proc/PID/stat from the state on; a command name may hold spaces."""
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()


def knot(folder, services):
    """Debian's Knot with one UDP worker."""
    port = free_port()
    (folder / "zone").write_text(zone(services))
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
    any: warning
zone:
  - domain: {DOMAIN}
    file: {folder}/zone
    zonefile-load: whole
""")
    version = re.search(r"[\d.]+", output("knotd", "--version")).group()
    return Server(f"Knot {version}, one worker", folder, ["knotd", "-c", folder / "knot.conf"], port)


def nsd(folder, services):
    """With minimal responses NSD would leave out the addresses of SRV targets, so it runs without them, which adds the
    zone's NS set and its address to each answer."""
    port = free_port()
    (folder / "zone").write_text(zone(services))
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
    name: {DOMAIN}
    zonefile: zone
""")
    version = re.search(r"version ([\d.]+)", output("nsd", "-v")).group(1)
    return Server(f"NSD {version}, one server", folder, ["nsd", "-d", "-c", folder / "nsd.conf"], port)


def echo(folder, _):
    """The kernel's part of every answer."""
    port = free_port()
    return Server("bare echo (the kernel's part)", folder, [BUILD / "echo", port], port, checked=False)


def rollcall(folder, services):
    """Rollcall with its defaults, loaded over HTTP."""
    port, http_port = free_port(), free_port()
    server = Server("Rollcall", folder, [ROLLCALL, "serve", "--data-dir", folder / "data", "--http",
                                         f"127.0.0.1:{http_port}", "--dns", f"127.0.0.1:{port}"], port)
    wait_ready(server, http_port)
    begun = time.monotonic()
    register(http_port, services)
    took = time.monotonic() - begun
    server.note = (f"Rollcall took {services * INSTANCES:,} durable registrations over {CONNECTIONS} kept connections "
                   f"in {took:.1f} s ({services * INSTANCES / took:,.0f} a second)")
    return server


def wait_ready(server, port):
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and server.child.poll() is None:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
            connection.request("GET", "/ready")
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        time.sleep(0.02)
    raise SystemExit(f"{server.title} is not ready; it printed:\n{server.printed()}")


def register(port, services):
    """Registers every instance, a share on each connection."""
    errors = []

    def share(first):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        for service in range(first, services, CONNECTIONS):
            for k, (address, instance_port) in enumerate(instances(service)):
                body = json.dumps({"ID": f"{name(service)}-{k}", "Name": name(service), "Address": address,
                                   "Port": instance_port})
                connection.request("PUT", "/v1/agent/service/register", body)
                answer = connection.getresponse()
                text = answer.read()
                if answer.status != 200:
                    errors.append(f"{answer.status} {text[:200]!r}")
                    return
        connection.close()

    threads = [threading.Thread(target=share, args=(first,)) for first in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise SystemExit(f"Rollcall refused a registration: {errors[0]}")


def output(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout + done.stderr
