"""HTTPS with client certificates, and Unix sockets: curl, OpenSSL's s_client, and the official Consul client for Go, which
does over them all that it does in clear."""

import signal
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from harness.hosts import Network
from harness.processes import Process, Rollcall, build_go
from harness.report import Report

PORT = 8501


class Authority:
    """Certificates made by OpenSSL, as an operator makes them."""

    def __init__(self, folder):
        self.folder = Path(folder)
        (self.folder / "index.txt").touch()
        (self.folder / "crlnumber").write_text("01\n")
        self.file("ca.conf").write_text(
            f"[ca]\ndefault_ca = own\n[own]\ndatabase = {self.folder}/index.txt\ndefault_md = sha256\n"
            f"default_crl_days = 30\ncrlnumber = {self.folder}/crlnumber\ncrl_extensions = list\n"
            "[list]\nauthorityKeyIdentifier = keyid\n[names]\nsubjectAltName = IP:127.0.0.1\n[clients]\nextendedKeyUsage = clientAuth\n")
        self.openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
                     "-subj", "/CN=authority", "-keyout", "ca.key", "-out", "ca.pem")
        self.issue("server", "names", "rsa:2048")
        self.issue("client", "clients")
        self.issue("revoked", "clients")
        self.list_revoked()

    def file(self, name):
        return self.folder / name

    def openssl(self, *words):
        done = subprocess.run(["openssl", *words], cwd=self.folder, capture_output=True, text=True)
        if done.returncode != 0:
            raise AssertionError(f"openssl {' '.join(words)}: {done.stderr}")

    def issue(self, name, section, kind="ed25519"):
        self.openssl("req", "-newkey", kind, "-nodes", "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out",
                     f"{name}.csr")
        self.openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
                     "-days", "30", "-extfile", "ca.conf", "-extensions", section, "-out", f"{name}.pem")

    def revoke(self, name):
        self.openssl("ca", "-config", "ca.conf", "-cert", "ca.pem", "-keyfile", "ca.key", "-revoke", f"{name}.pem")
        self.list_revoked()

    def list_revoked(self):
        self.openssl("ca", "-config", "ca.conf", "-cert", "ca.pem", "-keyfile", "ca.key", "-gencrl", "-out", "ca.crl")

    def config(self, socket):
        return (f'[http]\nlisten = ["127.0.0.1:8500", "unix://{socket}"]\n'
                f'[https]\nlisten = ["127.0.0.1:{PORT}"]\ncert_file = "{self.file("server.pem")}"\n'
                f'key_file = "{self.file("server.key")}"\nclient_ca_file = "{self.file("ca.pem")}"\n'
                f'client_crl_file = "{self.file("ca.crl")}"\n')


def curl(host, *words):
    """curl's exit status, and what it got."""
    process = Process(host, ["curl", "-sS", "--max-time", "10", *words], name="curl")
    status = process.wait()
    return status, process.tail()


def tools(report):
    """curl and s_client: who is let in, and with what"""
    with tempfile.TemporaryDirectory() as folder, Network() as network:
        authority = Authority(folder)
        host, socket = network.host("one"), Path(folder) / "api.sock"
        with Rollcall(host, "--node", "n1", config=authority.config(socket)) as server:
            url = f"https://127.0.0.1:{PORT}/v1/agent/self"
            ca = ["--cacert", authority.file("ca.pem")]

            def shows(name):
                return ["--cert", authority.file(f"{name}.pem"), "--key", authority.file(f"{name}.key")]

            status, text = curl(host, *ca, *shows("client"), url)
            report.check(status == 0 and '"n1"' in text, "curl with a client certificate", f"{status} {text}")
            for words, what in ((ca, "without one"), (shows("client"), "that does not know the authority")):
                status, text = curl(host, *words, url)
                report.check(status != 0 and "n1" not in text, f"curl {what} gets nothing", f"{status} {text}")
            status, text = curl(host, *ca, *shows("revoked"), url)
            report.check(status == 0, "one that is not revoked yet is let in", f"{status} {text}")
            authority.revoke("revoked")
            server.process.child.send_signal(signal.SIGHUP)
            server.process.wait_line("reloaded")
            status, text = curl(host, *ca, *shows("revoked"), url)
            report.check(status != 0 and "revoked" in text, "revoked, it is refused and told so", f"{status} {text}")
            server.process.wait_line("the client's certificate was revoked")
            for version, good in (("-tls1_1", False), ("-tls1_2", True), ("-tls1_3", True)):
                process = Process(host, ["openssl", "s_client", "-connect", f"127.0.0.1:{PORT}", "-verify_return_error",
                                         "-CAfile", authority.file("ca.pem"), "-cert", authority.file("client.pem"),
                                         "-key", authority.file("client.key"), "-alpn", "h2,http/1.1", version],
                                  name="s_client")
                process.wait()
                shown = process.tail(200)
                report.equal("Verification: OK" in shown and "ALPN protocol: http/1.1" in shown, good,
                             f"s_client {version}")
            status, text = curl(host, "--unix-socket", socket, "http://localhost/v1/agent/self")
            report.check(status == 0 and '"n1"' in text, "curl over the Unix socket", f"{status} {text}")


def consul_client(report):
    """The official Consul client for Go, over HTTPS and over a Unix socket"""
    binary = build_go("api", "go-api")
    for over in ("https", "unix"):
        with tempfile.TemporaryDirectory() as folder, Network() as network:
            authority = Authority(folder)
            host, socket = network.host("one"), Path(folder) / "api.sock"
            with Rollcall(host, "--node", "n1", config=authority.config(socket)):
                env = {"CONSUL_HTTP_ADDR": f"unix://{socket}"}
                if over == "https":
                    env = {"CONSUL_HTTP_ADDR": f"https://127.0.0.1:{PORT}", "CONSUL_CACERT": str(authority.file("ca.pem")),
                           "CONSUL_CLIENT_CERT": str(authority.file("client.pem")),
                           "CONSUL_CLIENT_KEY": str(authority.file("client.key"))}
                report.program(Process(host, [binary], env=env, name=f"go-api over {over}"))


if __name__ == "__main__":
    Report("tls").run(tools, consul_client)
