"""Java: JNDI's DNS provider, which every JDK has, run from one source file, and java.net.http for registration."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from harness.fleet import register_fleet
from harness.hosts import Network
from harness.processes import Process, Rollcall
from harness.report import Report


def client(report):
    """JNDI DNS and java.net.http"""
    with Network() as network:
        host = network.host("one")
        with Rollcall(host) as server:
            register_fleet(server.http)
            program = Path(__file__).resolve().parent / "Client.java"
            report.program(Process(host, ["java", program], name="Client.java"), timeout=120)


if __name__ == "__main__":
    Report("java").run(client)
