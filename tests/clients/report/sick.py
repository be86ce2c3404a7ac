"""A service whose health check passes whatever happens: `/` answers 200, and 500 while it is sick. SIGUSR1 makes it sick, and well again.

    sick.py ADDRESS PORT"""

import signal
import sys
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer

state = {"sick": False, "served": 0}


def turn(*_):
    state["sick"] = not state["sick"]
    print("sick" if state["sick"] else "well", flush=True)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        sick = state["sick"] and self.path != "/health"
        self.send_response(500 if sick else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


class Server(ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128


signal.signal(signal.SIGUSR1, turn)
server = Server((sys.argv[1], int(sys.argv[2])), Handler)
print("listening", flush=True)
server.serve_forever()
