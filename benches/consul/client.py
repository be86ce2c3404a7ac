"""Plain HTTP over many kept connections from one thread: the client has to cost less than what it measures."""

import json
import select
import socket
import time


def get(path):
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()


def put(path, body):
    body = json.dumps(body).encode()
    return f"PUT {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


class Answer:
    """One answer, as far as it has come."""

    def __init__(self):
        self.octets, self.head, self.left, self.chunked = bytearray(), None, 0, False

    def take(self, more):
        """Whether that was the end of it."""
        self.octets += more
        if self.head is None:
            end = self.octets.find(b"\r\n\r\n")
            if end < 0:
                return False
            lines = self.octets[:end].decode("latin-1").lower().split("\r\n")
            self.head = dict(line.split(": ", 1) for line in lines[1:])
            self.status = int(lines[0].split()[1])
            self.chunked = "chunked" in self.head.get("transfer-encoding", "")
            self.whole = None if self.chunked else end + 4 + int(self.head.get("content-length", 0))
            self.start = end + 4
        if self.chunked:
            return self.octets.endswith(b"0\r\n\r\n")
        return len(self.octets) >= self.whole

    def body(self):
        if not self.chunked:
            return bytes(self.octets[self.start:self.whole])
        parts, at = [], self.start
        while True:
            end = self.octets.index(b"\r\n", at)
            size = int(self.octets[at:end], 16)
            if size == 0:
                return b"".join(parts)
            parts.append(self.octets[end + 2:end + 2 + size])
            at = end + 4 + size


class Connection:
    def __init__(self, port, source="127.0.0.1"):
        self.socket = socket.socket()
        self.socket.bind((source, 0))
        self.socket.connect(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.answer = None

    def send(self, request):
        self.answer = Answer()
        self.socket.sendall(request)

    def ask(self, request, wanted=200):
        """The whole answer."""
        self.send(request)
        while True:
            more = self.socket.recv(1 << 18)
            if not more:
                raise SystemExit("the server closed a connection instead of answering")
            if self.answer.take(more):
                if self.answer.status != wanted:
                    raise SystemExit(f"status {self.answer.status}: {self.answer.body()[:300]}")
                return self.answer

    def close(self):
        self.socket.close()


class Poll:
    """Many connections, and whichever of them has something."""

    def __init__(self, connections):
        self._epoll = select.epoll()
        self._by_file = {one.socket.fileno(): one for one in connections}
        for number in self._by_file:
            self._epoll.register(number, select.EPOLLIN)

    def whole(self, patience=60.0):
        """Yields (moment, connection) for each whole answer as it comes; ends when nothing comes for so long."""
        while True:
            ready = self._epoll.poll(patience)
            if not ready:
                return
            for number, _ in ready:
                one = self._by_file[number]
                more = one.socket.recv(1 << 18)
                if not more:
                    raise SystemExit("the server closed a connection instead of answering")
                if one.answer.take(more):
                    yield time.monotonic(), one

    def drain(self, seconds):
        """How many answers come within so long."""
        return sum(1 for _ in self.whole(seconds))

    def close(self):
        self._epoll.close()
