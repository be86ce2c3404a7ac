"""Java: Kiwi's consul-client; JNDI's DNS provider, which every JDK has, run from one source file, and java.net.http for registration."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from harness.fleet import register_fleet
from harness.hosts import Network
from harness.processes import Process, Rollcall, install_maven
from harness.report import Report
from harness.targets import Scene, watch_a_kill

HERE = Path(__file__).resolve().parent


def client(report):
    """JNDI DNS and java.net.http"""
    with Network() as network:
        host = network.host("one")
        with Rollcall(host) as server:
            register_fleet(server.http)
            report.program(Process(host, ["java", HERE / "Client.java"], name="Client.java"), timeout=120)


def consul_client(report):
    """Kiwi's consul-client from Maven Central: agent, catalog and health; a killed target leaves its cache"""
    jars = install_maven("java")
    with Scene(beside=True) as scene:
        command = ["java", "-cp", f"{jars}/*", HERE / "ConsulClient.java", *scene.http.split(":")]
        watch_a_kill(report, scene, Process(scene.client, command, name="ConsulClient.java"), "java-consul-client", "okhttp/")


if __name__ == "__main__":
    Report("java").run(client, consul_client)
