"""Runs the shop and rolls it from blue to green under constant load: `run.py --rollcall PROGRAM`.

All of it lives in a network namespace of its own, so that its ports are free, whoever starts it. The programs are those beside this
file; Go's are built first. Prints a table and exits 0 if no request failed and green answers at the end. `--abrupt` ends blue without
leaving DNS first: requests fail then, and the exit status is 1."""

import argparse
import asyncio
import ctypes
import fcntl
import json
import os
import signal
import socket
import string
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve().parent
DNS, HTTP, HAPROXY, NGINX = "127.0.0.1:8600", "127.0.0.1:8500", "127.0.0.1:8000", "127.0.0.1:8001"
TTL = 1
# Seconds between leaving DNS and ending, beside what Rollcall waits for itself, the TTL: what clients add to it (nginx the rest of its
# second, HAProxy the half second between its questions), and some more.
GRACE = 1 + 0.5 + 1
GO = {"web": "discovery", "price": "promhttp", "checkout": "gobreaker"}
SERVICES = ("price", "stock", "cart", "checkout", "web")
INSTANCES = 2
# Requests a second through each gateway, and how long one may take.
RATE, PATIENCE = 30, 5.0
# Seconds that green is a canary, and that it takes over in.
CANARY, RAMP = 4, 5


def inside():
    return os.environ.get("SHOP_INSIDE") == "yes"


def go_inside():
    """Starts this program again in a network of its own."""
    as_root = [] if os.getuid() == 0 else ["--map-root-user"]
    os.environ["SHOP_INSIDE"] = "yes"
    os.execvp("unshare", ["unshare", *as_root, "--net", sys.executable, *sys.argv])


def loopback_up():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        up = struct.pack("16sh14x", b"lo", 0x1 | 0x40)  # IFF_UP, IFF_RUNNING
        fcntl.ioctl(any_socket, 0x8914, up)  # SIOCSIFFLAGS


def die_with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


class Process:
    """A child whose lines are kept."""

    running = []

    def __init__(self, name, command, **environment):
        self.name, self.lines = name, []
        self.child = subprocess.Popen(list(map(str, command)), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                      text=True, env={**os.environ, **environment}, preexec_fn=die_with_parent)
        Process.running.append(self)
        self.reader = threading.Thread(target=lambda: self.lines.extend(iter(self.child.stdout.readline, "")), daemon=True)
        self.reader.start()

    def end(self, how=signal.SIGTERM):
        self.child.send_signal(how)

    def wait(self, patience=20):
        status = self.child.wait(patience)
        self.reader.join(2)
        return status

    @classmethod
    def end_all(cls):
        for one in cls.running:
            if one.child.poll() is None:
                # A master of nginx that is killed leaves its worker behind.
                one.end(signal.SIGTERM if one.name == "nginx" else signal.SIGKILL)
                one.wait()


def until(holds, what, patience=20):
    begun = time.monotonic()
    while not holds():
        if time.monotonic() - begun > patience:
            raise SystemExit(f"after {patience} s still not: {what}")
        time.sleep(0.02)


class Load(threading.Thread):
    """An open loop: a request falls due every so often, whatever became of those before. Every one is counted: when it fell due,
    the gateway, what went wrong (or nothing), who served it, and its seconds."""

    def __init__(self):
        super().__init__(daemon=True)
        self.seen, self.over, self.late = [], threading.Event(), 0.0
        self.begun = time.monotonic()
        self.start()

    def run(self):
        asyncio.run(self.all())

    async def all(self):
        tasks, number = [], 0
        while not self.over.is_set():
            due = self.begun + number / (2 * RATE)
            await asyncio.sleep(max(0, due - time.monotonic()))
            self.late = max(self.late, time.monotonic() - due)
            tasks.append(asyncio.create_task(self.one(due, (HAPROXY, NGINX)[number % 2])))
            number += 1
        await asyncio.gather(*tasks)

    async def one(self, due, gateway):
        served = []
        try:
            wrong, served = await asyncio.wait_for(self.request(gateway), PATIENCE)
        except asyncio.TimeoutError:
            wrong = "no answer"
        except (OSError, ValueError, IndexError) as error:
            wrong = type(error).__name__
        self.seen.append((due - self.begun, "haproxy" if gateway == HAPROXY else "nginx", wrong, served, time.monotonic() - due))

    @staticmethod
    async def request(gateway):
        """What went wrong, or nothing, and who served it."""
        host, port = gateway.split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            writer.write(b"GET / HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n")
            head, _, rest = (await reader.read()).partition(b"\r\n\r\n")
            status = head.split(b" ", 2)[1].decode()
            if status != "200":
                return f"status {status}", []
            # A body may come in chunks; it is one line of JSON either way.
            served = json.loads(rest[rest.index(b"{"):rest.rindex(b"}") + 1])["served"]
            whole = {one.split("/")[0] for one in served} == set(SERVICES)
            return (None if whole else "not whole"), served
        finally:
            writer.close()

    def end(self):
        self.over.set()
        self.join()
        return self.seen


def answers(gateway):
    try:
        return asyncio.run(Load.request(gateway))[0] is None
    except (OSError, ValueError, IndexError):
        return False


def build_go(folder):
    folder.mkdir(parents=True, exist_ok=True)
    programs = [f"./{one}" for one in GO.values()]
    subprocess.run(["go", "build", "-mod=readonly", "-o", f"{folder}/", *programs], cwd=HERE, check=True)


class Shop:
    def __init__(self, rollcall, folder, build):
        self.rollcall, self.folder, self.build = rollcall, Path(folder), build
        self.services = {}

    def command(self, service):
        if service in GO:
            return [self.build / GO[service]]
        return [sys.executable, HERE / "python/stock.py"] if service == "stock" else ["node", HERE / "node/cart.mjs"]

    def start_rollcall(self):
        (self.folder / "rollcall.toml").write_text(f'[dns]\nttl = "{TTL}s"\n')
        command = [self.rollcall, "serve", "--data-dir", self.folder / "data", "--config", self.folder / "rollcall.toml"]
        self.server = Process("rollcall", command)
        until(lambda: any("ready" in line for line in self.server.lines), "rollcall is ready")

    def start(self, version, number):
        """An instance of every service, in order: those that others need come first."""
        for place, service in enumerate(SERVICES, 1):
            # Each has an address of its own, as on hosts of their own.
            address = f"127.0.{place}.{number + 10 * (version == 'green')}"
            process = Process(f"{service}-{version}-{address}", self.command(service), ADDRESS=address, PORT="8080", VERSION=version,
                              GRACE=str(GRACE), ROLLCALL_DNS=DNS, CONSUL_HTTP_ADDR=HTTP)
            # As the programs name themselves.
            process.id = process.name
            self.services[service, version, number] = process
        for service in SERVICES:
            process = self.services[service, version, number]
            until(lambda: any("listening" in line for line in process.lines) or process.child.poll() is not None, f"{process.name} listens")

    def run(self, *words):
        """What a command of Rollcall prints."""
        return subprocess.run([self.rollcall, *words], check=True, capture_output=True, text=True).stdout

    def passing(self, count):
        def all_pass():
            return all(self.run("instances", service).count(" passing") == count for service in SERVICES)
        until(all_pass, f"{count} instances of each service pass")

    def start_gateways(self):
        values = {"DNS": DNS, "HAPROXY": HAPROXY, "NGINX": NGINX, "FOLDER": self.folder}
        for name in ("haproxy.cfg", "nginx.conf"):
            text = (HERE / "gateways" / name).read_text()
            (self.folder / name).write_text(string.Template(text).safe_substitute(values))
        Process("haproxy", ["haproxy", "-db", "-f", self.folder / "haproxy.cfg"])
        Process("nginx", ["nginx", "-c", self.folder / "nginx.conf", "-p", self.folder, "-e", "stderr"])
        until(lambda: answers(HAPROXY) and answers(NGINX), "both gateways answer")

    def route(self, *words):
        """The same route for every service."""
        for service in SERVICES:
            self.run("route", "set", service, *words)

    def of(self, version):
        return {key: process for key, process in self.services.items() if key[1] == version}

    def drain(self, version):
        """Takes the instances of this version out, all at once, and waits until they may be stopped; gives what is said of one."""
        words = [self.rollcall, "drain", "--wait"]
        running = [subprocess.Popen([*words, process.id], stdout=subprocess.PIPE, text=True) for process in self.of(version).values()]
        said = [one.communicate(timeout=30)[0] for one in running]
        if any(one.returncode for one in running):
            raise SystemExit(f"drain: {said}")
        return said[0]

    def end(self, version, how):
        """Ends the instances of this version; gives their exit statuses."""
        for one in self.of(version).values():
            one.end(how)
        return [one.wait() for one in self.of(version).values()]


def roll(shop, abrupt, mark):
    """Green comes and gets nothing; then a little of everything, as a canary; then more and more, until it has all. Blue is drained:
    when Rollcall says that no cache can have it any more, it is told to end. Gives the exit statuses of blue."""
    for number in range(1, INSTANCES + 1):
        shop.start("green", number)
    shop.passing(2 * INSTANCES)
    mark("green is up")
    time.sleep(TTL)
    mark("canary")
    shop.route("blue=95", "green=5")
    time.sleep(CANARY)
    mark("canary ends")
    if not abrupt:
        shop.route("green=100", "--over", f"{RAMP}s", "--abort-if-unhealthy", "20%")
        time.sleep(RAMP)
        mark("drain")
        print(shop.drain("blue"))
    mark("blue is told to end")
    return shop.end("blue", signal.SIGKILL if abrupt else signal.SIGTERM)


def between(seen, begin, end):
    return [row for row in seen if begin <= row[0] < end]


def part(rows, services, version):
    """The share of this version in what these services served."""
    served = [one.split("/") for row in rows for one in row[3]]
    versions = [found for service, found in served if service in services]
    return versions.count(version) / max(len(versions), 1)


def tables(seen, marks):
    print(f"\n{'second':>8} {'requests':>9} {'failed':>7}  " + " ".join(f"{one:>9}" for one in SERVICES) + "   (share of green)")
    for second in range(int(max(row[0] for row in seen)) + 1):
        rows = between(seen, second, second + 1)
        failed = sum(row[2] is not None for row in rows)
        told = "; ".join(what for what, at in marks.items() if int(at) == second)
        print(f"{second:>8} {len(rows):>9} {failed:>7}  " + " ".join(f"{part(rows, [one], 'green'):>9.0%}" for one in SERVICES) + f"   {told}")
    print(f"\n{'gateway':>8} {'requests':>9} {'failed':>7} {'median':>10} {'99 %':>10}   what failed")
    for gateway in ("haproxy", "nginx"):
        rows = [row for row in seen if row[1] == gateway]
        times = sorted(row[4] for row in rows)
        wrong = Counter(row[2] for row in rows if row[2])
        print(f"{gateway:>8} {len(rows):>9} {wrong.total():>7} {times[len(times) // 2] * 1000:>7.1f} ms {times[len(times) * 99 // 100] * 1000:>7.1f} ms"
              f"   {', '.join(f'{count} x {what}' for what, count in wrong.items())}")


def main():
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--rollcall", default="rollcall", help="the program")
    words.add_argument("--build", type=Path, default=HERE / "build", help="where Go's programs are built")
    words.add_argument("--abrupt", action="store_true", help="end blue without leaving DNS first")
    words.add_argument("--json", type=Path, help="a file for the figures")
    words = words.parse_args()
    # Where there is no network of ours yet, there may be one with Go's modules.
    if not inside():
        build_go(words.build.resolve())
        go_inside()
    loopback_up()
    with tempfile.TemporaryDirectory(prefix="shop-") as folder:
        # nginx's worker and HAProxy may be somebody else.
        os.chmod(folder, 0o755)
        try:
            return follow(words, Shop(words.rollcall, folder, words.build.resolve()))
        finally:
            Process.end_all()


def follow(words, shop):
    shop.start_rollcall()
    for number in range(1, INSTANCES + 1):
        shop.start("blue", number)
    shop.passing(INSTANCES)
    shop.route("blue=100", "green=0")
    shop.start_gateways()
    load, marks = Load(), {}

    def mark(what):
        marks[what] = time.monotonic() - load.begun

    time.sleep(3)
    mark("the roll begins")
    statuses = roll(shop, words.abrupt, mark)
    mark("blue has ended")
    time.sleep(TTL + 4)
    seen = load.end()
    tables(seen, marks)
    failed = sum(row[2] is not None for row in seen)
    # What Go, Node and Python drew by the weights of SRV records; gateways keep an answer for a while.
    canary = part(between(seen, marks["canary"] + TTL, marks["canary ends"]), ("price", "stock"), "green")
    early = part(between(seen, 0, marks["canary"]), SERVICES, "green")
    late = part(between(seen, marks["blue has ended"] + TTL + 1, load.late + 1e9), SERVICES, "green")
    trips = [line for one in Process.running for line in one.lines if line.startswith("breaker")]
    print(f"\n{len(seen)} requests, {failed} failed. Green served {early:.1%} before the canary, {canary:.1%} as a canary, {late:.1%} at the end. "
          f"{len(trips)} changes of a breaker. No request began more than {load.late * 1000:.0f} ms late.")
    figures = {"requests": len(seen), "failed": failed, "early": early, "canary": canary, "late": late,
               "orderly": all(status == 0 for status in statuses)}
    if words.json:
        words.json.write_text(json.dumps(figures))
    return 0 if failed == 0 and early == 0 and 0.01 < canary < 0.15 and late == 1 and figures["orderly"] else 1


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
