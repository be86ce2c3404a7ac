"""Live services on a host of their own, registered with HTTP checks, of which a test kills one."""

import sys
import time
from contextlib import ExitStack
from pathlib import Path

from .ask import Dns, Http
from .hosts import Network
from .processes import Process, Rollcall
from .requests import Requests

PROGRAM = Path(__file__).resolve().parent / "target.py"


class Target:
    """One process that serves, and its registration as an instance of `service`. Killing it says nothing to the server."""

    def __init__(self, host, http, name, address, port, service="web"):
        self.host, self.http, self.name, self.address, self.port = host, http, name, address, port
        self.service = service
        self.process = None
        self.start()
        http.register(ID=name, Name=service, Address=address, Port=port, Tags=["live"], Meta={"build": "7"},
                      Check={"HTTP": f"http://{address}:{port}/health", "Interval": "10s", "Timeout": "2s"})

    @property
    def endpoint(self):
        return f"{self.address}:{self.port}"

    def start(self):
        self.process = Process(self.host, [sys.executable, PROGRAM, self.name, self.address, self.port], name=self.name)
        self.process.wait_line("listening")

    def kill(self):
        """SIGKILL; gives the moment."""
        return self.process.kill()

    def requests(self, path="/"):
        """How many requests for this path the running process has printed."""
        return sum(text.startswith(f"request {path} ") for _, text in list(self.process.lines))


class Scene:
    """A server on one host, two live targets on another with an address each, and a host for the client that is looked
    at. The server's log has every request."""

    def __init__(self, ports=(9001, 9002), config=None, args=(), beside=False):
        """`beside`: the client runs on the server's own host, as beside an agent of Consul."""
        self.ports, self.config, self.args, self.beside = ports, config, args, beside

    def __enter__(self):
        self._open = ExitStack()
        network = self._open.enter_context(Network())
        home = network.host("srv")
        app = network.host("app", "192.0.2.31", "192.0.2.32")
        self.client = home if self.beside else network.host("cli")
        # A program without a setting for its name server reads resolv.conf, which knows no port but 53.
        self.client.etc("resolv.conf", f"nameserver {home.address}\noptions ndots:0\n")
        self.server = self._open.enter_context(
            Rollcall(home, "--node", "n1", "--http", f"{home.address}:8500", "--dns", f"{home.address}:53", *self.args,
                     http=home.address, config=self.config, requests=True))
        self.http = f"{home.address}:8500"
        self.dns = f"{home.address}:53"
        # The test's own questions come from the server's host, not from the client's.
        self.resolver = Dns(home, home.address, 53)
        self.log = Requests(self.server)
        registrar = Http(app, home.address)
        self.targets = [Target(app, registrar, f"web-{number}", address, port)
                        for number, (address, port) in enumerate(zip(app.addresses, self.ports), 1)]
        self.passing(2)
        return self

    def __exit__(self, *error):
        # Targets and clients may still ask the server while it stops; that is nobody's failure.
        return self._open.__exit__(*error)

    def passing(self, count):
        """Waits until so many of the targets pass their checks."""
        until(lambda: len(self.server.http.json("/v1/health/service/web?passing")) == count, f"{count} passing targets")


def until(holds, what, patience=20.0):
    """Waits until this is so; gives the seconds that it took."""
    begun = time.monotonic()
    while not holds():
        if time.monotonic() - begun > patience:
            raise AssertionError(f"after {patience:.0f} s still not: {what}")
        time.sleep(0.02)
    return time.monotonic() - begun


KILL_NOW = "watching, kill web-2"


def watch_a_kill(report, scene, process, fixture, agent, addresses=None):
    """Takes over a client program's checks; kills the second target when the program says that it watches."""
    try:
        process.wait_line(KILL_NOW, 60)
        scene.targets[1].kill()
    except AssertionError:
        report.check(False, f"{process.name} came to its watch")
    report.program(process, 60)
    scene.log.compare(report, fixture, agent=agent, addresses=addresses or scene.client.addresses)
