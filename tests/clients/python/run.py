"""Python: py-consul; dnspython's resolver, and registration with the standard library's urllib and with bare http.client."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from harness.fleet import register_fleet
from harness.hosts import Network
from harness.processes import Process, Rollcall
from harness.report import Report
from harness.targets import Scene, watch_a_kill

HERE = Path(__file__).resolve().parent


def resolver(report):
    """dnspython"""
    with Network() as network:
        host = network.host("one")
        with Rollcall(host) as server:
            register_fleet(server.http)
            report.program(Process(host, [sys.executable, HERE / "resolve.py"], name="resolve.py"))


def registration(report):
    """The Consul API over urllib and http.client"""
    with Network() as network:
        host = network.host("one")
        with Rollcall(host):
            report.program(Process(host, [sys.executable, HERE / "register.py"], name="register.py"))


def py_consul(report):
    """py-consul: agent, catalog and health; a killed target leaves its watch"""
    with Scene(beside=True) as scene:
        command = [sys.executable, HERE / "consul_client.py", *scene.http.split(":")]
        watch_a_kill(report, scene, Process(scene.client, command, name="consul_client.py"), "py-consul", "python-requests/")


if __name__ == "__main__":
    Report("python").run(resolver, registration, py_consul)
