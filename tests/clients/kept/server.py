"""server.py ADDRESS PORT [HTTP/1.1]: Python's http.server, which speaks HTTP/1.0 and so closes after each answer
unless told otherwise. Counts at /count."""

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer


class Handler(BaseHTTPRequestHandler):
    protocol_version = sys.argv[3] if len(sys.argv) > 3 else "HTTP/1.0"
    count = 0

    def do_GET(self):
        if self.path == "/health":
            Handler.count += 1
        body = str(Handler.count).encode() if self.path == "/count" else b"OK"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    def server_bind(self):
        """Without HTTPServer's own, which looks its address up in DNS first and waits for an answer."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]


server = Server((sys.argv[1], int(sys.argv[2])), Handler)
print("listening", flush=True)
server.serve_forever()
