"""Node: dns.promises.Resolver (c-ares) for SRV and addresses, fetch for registration."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from harness.fleet import register_fleet
from harness.hosts import Network
from harness.processes import Process, Rollcall
from harness.report import Report


def client(report):
    """dns.promises.Resolver and fetch"""
    with Network() as network:
        host = network.host("one")
        with Rollcall(host) as server:
            register_fleet(server.http)
            program = Path(__file__).resolve().parent / "client.mjs"
            report.program(Process(host, ["node", program], name="client.mjs"))


if __name__ == "__main__":
    Report("node").run(client)
