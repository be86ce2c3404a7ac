"""A service as a test's target: answers `/` with its name, `/health` with ok and `/metrics` as Prometheus reads them,
and prints a line for each request but those for `/health`. Ends when it is killed.

    target.py NAME ADDRESS PORT"""

import sys
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer

name, address, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
BODIES = {"/": name, "/health": "ok", "/metrics": f'target_info{{name="{name}"}} 1\n'}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = BODIES.get(self.path, "").encode()
        if self.path != "/health":
            print(f"request {self.path} {self.headers.get('User-Agent', '-')}", flush=True)
        self.send_response(200 if body else 404)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(ThreadingTCPServer):
    # Not http.server's, which asks DNS for its own name before it listens.
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128


server = Server((address, port), Handler)
print("listening", flush=True)
server.serve_forever()
