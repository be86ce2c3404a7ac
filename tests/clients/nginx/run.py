"""Debian's nginx: a `resolver` and an upstream in a variable, so that the name is looked up again when its TTL has
passed. One target is killed, and when it is out, no request goes to it."""

import signal
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from harness.ask import Http, addresses
from harness.processes import Process
from harness.report import Report
from harness.targets import Scene, until

# A name in proxy_pass itself is looked up once, at nginx's start; only a variable is resolved at run time. The port is
# fixed: this nginx asks for addresses, not for SRV. How long an answer is used is our TTL: no `valid=` overrides it.
CONFIG = """
daemon off;
pid {folder}/nginx.pid;
error_log stderr warn;
worker_processes 1;
events {{}}
http {{
    log_format upstream 'served $upstream_addr $upstream_status';
    access_log /dev/stdout upstream;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    resolver {dns} ipv6=off;
    resolver_timeout 2s;
    server {{
        listen {address}:8080;
        location / {{
            set $web web.service.consul;
            proxy_pass http://$web:9000;
        }}
    }}
}}
"""


class Nginx:
    def __init__(self, scene):
        self._folder = tempfile.TemporaryDirectory(prefix="nginx-test-")
        folder, host = Path(self._folder.name), scene.client
        # The worker is not root.
        folder.chmod(0o755)
        config = folder / "nginx.conf"
        config.write_text(CONFIG.format(folder=folder, dns=scene.dns, address=host.address))
        self.process = Process(host, ["nginx", "-c", config, "-p", folder, "-e", "stderr"], name="nginx")
        self.http = Http(host, host.address, 8080)
        self._answered = 0

    def __enter__(self):
        def listens():
            try:
                return len(self.ask(1)) == 1
            except OSError:
                return False
        until(listens, f"nginx listens: {self.process.tail()}")
        return self

    def __exit__(self, *_):
        # A master that is killed leaves its worker behind.
        self.process.kill(signal.SIGTERM)
        self._folder.cleanup()

    def ask(self, count):
        answers = [self.http.get("/") for _ in range(count)]
        self._answered += count
        return [(one.status, one.body.decode()) for one in answers]

    def logged(self):
        """(upstream addresses tried, their statuses) of each request that was answered, by nginx's own log, which has a
        request a little after its answer."""
        def lines():
            return [text for _, text in list(self.process.lines) if text.startswith("served ")]
        until(lambda: len(lines()) == self._answered, "nginx has logged what it answered")
        return [tuple(text.split(" ", 1)[1].rsplit(" ", 1)) for text in lines()]


def killed_target(report):
    """A resolver and a variable upstream; one of two targets is killed"""
    with Scene(ports=(9000, 9000)) as scene, Nginx(scene) as nginx:
        first, second = scene.targets
        names = {first.name, second.name}
        answers = nginx.ask(60)
        report.equal({status for status, _ in answers}, {200}, "60 requests through it are answered")
        report.equal({body for _, body in answers}, names, "by both targets")

        died = second.kill()
        scene.resolver.until("web.service.consul", "A", lambda answer: addresses(answer) == [first.address], died)

        # Which of two addresses nginx takes is chance, and so is a row of answers by one of them. What has an end is its
        # question: the request that it holds up is answered with the new addresses, and so is each after it.
        asked = len(scene.log.dns(scene.client))

        def has_asked_again():
            nginx.ask(1)
            return len(scene.log.dns(scene.client)) > asked

        took = until(has_asked_again, "nginx has looked up again")
        report.check(True, f"nginx looked up again {took:.1f} s after DNS was off the killed target")
        before = len(nginx.logged())
        report.equal(set(nginx.ask(100)), {(200, first.name)}, "100 requests after that are answered by the other")
        report.equal(set(nginx.logged()[before:]), {(first.endpoint, "200")}, "and none was tried at the killed one")

        second.start()
        scene.passing(2)
        until(lambda: {body for _, body in nginx.ask(10)} == names, "nginx uses both again")
        report.check(True, "started again, it serves again")
        scene.log.compare(report, "nginx", dns_from=scene.client)


if __name__ == "__main__":
    Report("nginx").run(killed_target)
