"""Questions asked from inside a host: one UDP socket for DNS, and plain HTTP without a content type."""

import http.client
import json
import socket
import time

import dns.edns
import dns.flags
import dns.message
import dns.query
import dns.rdatatype


# How the tests name themselves to the server, so that its log tells them from the client that is looked at.
TESTS_AGENT = "rollcall-tests"


class Http:
    """Requests to one server's HTTP API, each on a connection of its own. A body that is not bytes goes as JSON and,
    as curl's users send it, with no content type."""

    def __init__(self, host, address, port=8500):
        self.host, self.address, self.port = host, address, port

    def request(self, method, path, body=None, headers=None, timeout=30.0):
        connection = http.client.HTTPConnection(self.address, self.port, timeout=timeout)
        with self.host.inside():
            connection.connect()
        try:
            if body is not None and not isinstance(body, bytes):
                body = json.dumps(body).encode()
            connection.request(method, path, body=body, headers={"User-Agent": TESTS_AGENT, **(headers or {})})
            answer = connection.getresponse()
            answer.body = answer.read()
            return answer
        finally:
            connection.close()

    def get(self, path, **more):
        return self.request("GET", path, **more)

    def put(self, path, body=None, **more):
        return self.request("PUT", path, body, **more)

    def json(self, path):
        answer = self.get(path)
        if answer.status != 200:
            raise AssertionError(f"GET {path}: {answer.status} {answer.body[:300]!r}")
        return json.loads(answer.body)

    def register(self, **definition):
        answer = self.put("/v1/agent/service/register", definition)
        if answer.status != 200:
            raise AssertionError(f"register {definition}: {answer.status} {answer.body[:300]!r}")
        return answer

    def deregister(self, instance):
        answer = self.put(f"/v1/agent/service/deregister/{instance}")
        if answer.status != 200:
            raise AssertionError(f"deregister {instance}: {answer.status} {answer.body[:300]!r}")


class Dns:
    """A DNS client on a host with one connected UDP socket, so that a closed port is known at once."""

    def __init__(self, host, address="127.0.0.1", port=8600):
        self.host, self.address, self.port = host, address, port
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with host.inside():
            self.socket = socket.socket(family, socket.SOCK_DGRAM)
        self.socket.connect((address, port))

    def ask(self, name, kind="A", timeout=2.0, **query):
        """The answer over UDP. `query` goes to dns.message.make_query."""
        return self.exchange(dns.message.make_query(name, kind, **query), timeout)

    def exchange(self, question, timeout=2.0):
        self.socket.settimeout(timeout)
        self.socket.send(question.to_wire())
        deadline = time.monotonic() + timeout
        while True:
            wire = self.socket.recv(65535)
            if int.from_bytes(wire[:2], "big") == question.id:
                answer = dns.message.from_wire(wire)
                answer.length = len(wire)
                return answer
            if time.monotonic() > deadline:
                raise TimeoutError(f"no answer to {question.question[0]}")

    def raw(self, wire, timeout=2.0):
        """Sends these bytes and gives back those that come; None when nothing does."""
        self.socket.settimeout(timeout)
        self.socket.send(wire)
        try:
            return self.socket.recv(65535)
        except TimeoutError:
            return None

    def tcp(self, name, kind="A", timeout=5.0, **query):
        """The answer over TCP, on a connection of its own."""
        question = dns.message.make_query(name, kind, **query)
        with self.connect(timeout) as stream:
            return dns.query.tcp(question, self.address, timeout, self.port, sock=stream)

    def connect(self, timeout=5.0):
        family = socket.AF_INET6 if ":" in self.address else socket.AF_INET
        with self.host.inside():
            stream = socket.socket(family, socket.SOCK_STREAM)
        stream.settimeout(timeout)
        stream.connect((self.address, self.port))
        return stream

    def until(self, name, kind, wanted, since, bound=1.0, patience=15.0):
        """Asks again and again until `wanted(answer)`. Gives the answer and the seconds that passed since `since`.
        Raises when `patience` runs out: a wait longer than `bound` is the caller's to judge and to print."""
        last = None
        while True:
            try:
                last = self.ask(name, kind, timeout=0.5)
                if wanted(last):
                    return last, time.monotonic() - since
            except (ConnectionRefusedError, TimeoutError):
                pass
            if time.monotonic() - since > patience:
                raise AssertionError(f"{name} {kind} did not become as wanted within {patience} s "
                                     f"(bound {bound} s); last answer:\n{last}")
            time.sleep(0.002)


def records(section, kind):
    """The records of this type in a section, as (owner, ttl, rdata)."""
    kind = dns.rdatatype.from_text(kind)
    return [(rrset.name.to_text(), rrset.ttl, rdata) for rrset in section if rrset.rdtype == kind for rdata in rrset]


def addresses(answer, kind="A"):
    """The addresses in the answer section, sorted."""
    return sorted(rdata.address for _, _, rdata in records(answer.answer, kind))


def endpoints(answer):
    """(address, port) of each SRV record whose target has its address in the additional section, sorted."""
    glue = {}
    for kind in ("A", "AAAA"):
        for owner, _, rdata in records(answer.additional, kind):
            glue.setdefault(owner.lower(), []).append(rdata.address)
    return sorted((address, rdata.port) for _, _, rdata in records(answer.answer, "SRV")
                  for address in glue.get(rdata.target.to_text().lower(), ["no address"]))
