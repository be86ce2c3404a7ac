"""Node: the package consul; dns.promises.Resolver (c-ares) for SRV and addresses, fetch for registration."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from harness.fleet import register_fleet
from harness.hosts import Network
from harness.processes import Process, Rollcall, install_npm
from harness.report import Report
from harness.targets import Scene, watch_a_kill

HERE = Path(__file__).resolve().parent


def client(report):
    """dns.promises.Resolver and fetch"""
    with Network() as network:
        host = network.host("one")
        with Rollcall(host) as server:
            register_fleet(server.http)
            report.program(Process(host, ["node", HERE / "client.mjs"], name="client.mjs"))


def consul_package(report):
    """The package consul: agent, catalog and health; a killed target leaves its watch"""
    folder = install_npm("node")
    with Scene(beside=True) as scene:
        command = ["node", HERE / "consul.mjs", *scene.http.split(":"), folder]
        watch_a_kill(report, scene, Process(scene.client, command, name="consul.mjs"), "node-consul", "papi/")


if __name__ == "__main__":
    Report("node").run(client, consul_package)
