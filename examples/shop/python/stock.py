"""The shop's `stock`, in Python: asks `price`. Finds it by DNS with dnspython; registers with nothing but the standard library.

The environment is that of the Go programs (mesh/mesh.go)."""

import http.client
import json
import os
import random
import signal
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import dns.resolver

NAME = "stock"
ADDRESS, PORT, VERSION = os.environ["ADDRESS"], int(os.environ["PORT"]), os.environ["VERSION"]
ID = f"{NAME}-{VERSION}-{ADDRESS}"

resolver = dns.resolver.Resolver(configure=False)
_server, _port = os.environ["ROLLCALL_DNS"].rsplit(":", 1)
resolver.nameservers, resolver.port = [_server], int(_port)


def find(service):
    """(address, port) of an instance. The records have weights (RFC 2782); the targets' addresses come along with them."""
    answer = resolver.resolve(f"_{service}._tcp.service.internal.", "SRV", lifetime=2)
    [record] = random.choices(list(answer), weights=[max(one.weight, 1) for one in answer])
    for extra in answer.response.additional:
        if extra.name == record.target and extra.rdtype == dns.rdatatype.A:
            return extra[0].address, record.port
    return resolver.resolve(record.target, "A", lifetime=2)[0].address, record.port


def ask(service):
    """What an instance of the service answers. One request; whatever fails is seen to fail."""
    connection = http.client.HTTPConnection(*find(service), timeout=2)
    try:
        connection.request("GET", "/")
        answer = connection.getresponse()
        if answer.status != 200:
            raise OSError(f"{service}: {answer.status}")
        return json.load(answer)
    finally:
        connection.close()


def rollcall(path, body=None):
    host, port = os.environ["CONSUL_HTTP_ADDR"].rsplit(":", 1)
    connection = http.client.HTTPConnection(host, int(port), timeout=10)
    try:
        connection.request("PUT", path, None if body is None else json.dumps(body))
        answer = connection.getresponse()
        if answer.status != 200:
            raise SystemExit(f"PUT {path}: {answer.status} {answer.read().decode()}")
        answer.read()
    finally:
        connection.close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and body leave together.
    wbufsize = -1

    def do_GET(self):
        if self.path == "/health":
            return self.reply(200, b"OK\n")
        try:
            served = [f"{NAME}/{VERSION}", *ask("price")["served"]]
            self.reply(200, json.dumps({"served": served}).encode())
        except (OSError, dns.exception.DNSException) as error:
            self.reply(502, f"{error}\n".encode())

    def reply(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


server = Server((ADDRESS, PORT), Handler)
stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
threading.Thread(target=server.serve_forever, daemon=True).start()
rollcall("/v1/agent/service/register", {
    "ID": ID, "Name": NAME, "Address": ADDRESS, "Port": PORT, "Tags": [VERSION], "Meta": {"version": VERSION},
    "Check": {"HTTP": f"http://{ADDRESS}:{PORT}/health", "Interval": "10s", "Timeout": "5s"},
})
print(f"{ID} listening on {ADDRESS}:{PORT}", flush=True)

# Out of DNS first; then, when no cache can have it any more, to the end.
stop.wait()
rollcall(f"/v1/agent/service/maintenance/{ID}?enable=true&reason=stopping")
time.sleep(float(os.environ["GRACE"]))
server.shutdown()
rollcall(f"/v1/agent/service/deregister/{ID}")
