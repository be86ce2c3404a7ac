"""The official Consul client for Go, and Go's own DNS resolver. The programs lie in the Go module beside the guide's
test (../guide), which pins the client's version."""

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from harness.certificates import Certificates
from harness.fleet import register_fleet
from harness.hosts import Network
from harness.processes import Process, Rollcall, build_go
from harness.report import Report
from harness.requests import Requests
from harness.targets import Scene, watch_a_kill
from harness.workload import Workload

AGENT = "Go-http-client/"


def consul_client(report):
    """The official Consul client"""
    binary = build_go("api", "go-api")
    with Network() as network:
        host = network.host("one")
        with Rollcall(host, "--node", "n1", requests=True) as server:
            report.program(Process(host, [binary], name="go-api"))
            Requests(server).compare(report, "go-registrations", agent=AGENT)


def part(report, name, scene_options=None, env=None):
    """Runs a part of the program against a server of its own, with two live targets."""
    binary = build_go("api", "go-api")
    with Scene(beside=True, **(scene_options or {})) as scene:
        process = Process(scene.client, [binary, name], env={"CONSUL_HTTP_ADDR": scene.http, **(env or {})}, name=f"go-{name}")
        report.program(process)
        scene.log.compare(report, f"go-{name}", agent=AGENT, addresses=scene.client.addresses)


def reads(report):
    """Catalog and health with filters, tags, node meta, near and every consistency"""
    part(report, "reads")


def agent(report):
    """The agent: what it says of itself, its log, maintenance, reload and leave"""
    binary = build_go("api", "go-api")
    with Network() as network:
        host = network.host("one")
        with Rollcall(host, "--node", "n1", requests=True) as server:
            report.program(Process(host, [binary, "agent"], name="go-agent"))
            report.equal(server.process.wait(), 0, "told to leave, the server ended with status 0")
            Requests(server).compare(report, "go-agent", agent=AGENT)


def queries(report):
    """Prepared queries and a template"""
    part(report, "queries")


def tls(report):
    """HTTPS alone, with client certificates required"""
    binary = build_go("api", "go-api")
    with Network() as network, tempfile.TemporaryDirectory(prefix="tls-test-") as folder:
        host, files = network.host("one"), Certificates(folder)
        config = (f'[http]\nlisten = []\n[https]\nlisten = ["127.0.0.1:8501"]\ncert_file = "{files.server}.pem"\n'
                  f'key_file = "{files.server}.key"\nclient_ca_file = "{files.authority}.pem"\n')
        with Rollcall(host, "--node", "n1", config=config, requests=True, ready=False) as server:
            server.process.wait_line("ready")
            env = {"CONSUL_HTTP_ADDR": "https://127.0.0.1:8501", "CONSUL_CACERT": f"{files.authority}.pem"}
            report.program(Process(host, [binary, "stranger"], env=env, name="go-stranger"))
            env |= {"CONSUL_CLIENT_CERT": f"{files.client}.pem", "CONSUL_CLIENT_KEY": f"{files.client}.key"}
            report.program(Process(host, [binary, "secure"], env=env, name="go-secure"))
            Requests(server).compare(report, "go-secure", agent=AGENT, settled=False)


def unix_socket(report):
    """A Unix socket"""
    binary = build_go("api", "go-api")
    with Network() as network, tempfile.TemporaryDirectory(prefix="unix-test-") as folder:
        host, path = network.host("one"), f"unix://{folder}/api.sock"
        with Rollcall(host, "--node", "n1", "--http", path, requests=True, ready=False) as server:
            server.process.wait_line("ready")
            report.program(Process(host, [binary, "secure"], env={"CONSUL_HTTP_ADDR": path}, name="go-secure"))
            Requests(server).compare(report, "go-secure", agent=AGENT, addresses=None, settled=False)


def guarded(report, name, env=None):
    """Runs a part of the program against a server that denies what no token allows."""
    binary = build_go("api", "go-api")
    with Network() as network:
        host = network.host("one")
        with Rollcall(host, "--node", "n1", config='[acl]\nenabled = true\ndefault_policy = "deny"\n', requests=True) as server:
            report.program(Process(host, [binary, name], env=env, name=f"go-{name}"))
            Requests(server).compare(report, f"go-{name}", agent=AGENT, settled=False)


def tokens(report):
    """ACL: bootstrap, tokens, policies, roles"""
    guarded(report, "tokens")


def login(report):
    """A JWT becomes a scoped token"""
    with tempfile.TemporaryDirectory(prefix="login-test-") as folder:
        workload = Workload(folder)
        guarded(report, "login", {"WORKLOAD_JWT": workload.token(sub="web-7", service="web"), "WORKLOAD_KEY": workload.key})


def watches(report):
    """The client's watch plans; a killed target leaves them"""
    binary = build_go("api", "go-api")
    with Scene(beside=True) as scene:
        process = Process(scene.client, [binary, "watches"], env={"CONSUL_HTTP_ADDR": scene.http}, name="go-watches")
        watch_a_kill(report, scene, process, "go-watches", AGENT)


def resolver(report):
    """Go's net.Resolver, without cgo"""
    binary = build_go("resolve", "go-resolve")
    with Network() as network:
        host = network.host("one")
        with Rollcall(host) as server:
            register_fleet(server.http)
            report.program(Process(host, [binary, "127.0.0.1:8600"], env={"GODEBUG": "netdns=go"}, name="go-resolve"))


if __name__ == "__main__":
    Report("go").run(consul_client, reads, agent, queries, watches, tls, unix_socket, tokens, login, resolver)
