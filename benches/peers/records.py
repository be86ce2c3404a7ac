"""What all servers are loaded with: names, addresses, a master file, registrations, the generators' questions; and how
answers are read back to see that all servers give the same ones.

There are `count` services `svc-…` of three instances with an IPv4 address, and a quarter as many `dual-…` whose
instances have an IPv6 address too. Every instance has the tag `v1`, the first of a service `primary` too."""

import json
import random
import socket
import struct

INSTANCES = 3
DOMAIN = "internal"
A, MX, TXT, AAAA, SRV = 1, 15, 16, 28, 33
TYPES = {"A": A, "MX": MX, "TXT": TXT, "AAAA": AAAA, "SRV": SRV}


def plain(count):
    return [f"svc-{service:05}" for service in range(count)]


def name_of_last(count):
    return f"{plain(count)[-1]}.service.{DOMAIN}"


def dual(count):
    return [f"dual-{service:05}" for service in range(count // 4)]


def instances(count):
    """(service, its instances as (IPv4, IPv6 or None, port)), with addresses of the ranges for benchmarks (RFC 2544 and
    RFC 5180)."""
    number = 0
    for service in plain(count) + dual(count):
        found = []
        for k in range(INSTANCES):
            number += 1
            v4 = f"198.{18 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"
            found.append((v4, f"2001:2::{number:x}" if service.startswith("dual") else None, 8000 + k))
        yield service, found


def tags(k):
    return ["v1", "primary"] if k == 0 else ["v1"]


def target(v4, v6):
    label = socket.inet_pton(socket.AF_INET, v4).hex()
    if v6:
        label += "-" + socket.inet_pton(socket.AF_INET6, v6).hex()
    return f"{label}.addr.dc1.{DOMAIN}."


def zone(count):
    """The same records as a master file. It has no NS set: NSD would add that to every answer, and could be kept from it
    only together with the addresses of SRV targets; so all servers' answers have the same sections."""
    lines = [f"$ORIGIN {DOMAIN}.", "$TTL 5", "@ 1 SOA ns hostmaster 1 3600 600 86400 1", "ns A 127.0.0.1"]
    for service, found in instances(count):
        for k, (v4, v6, port) in enumerate(found):
            for owner in [service] + [f"{tag}.{service}" for tag in tags(k)]:
                lines.append(f"{owner}.service A {v4}")
                if v6:
                    lines.append(f"{owner}.service AAAA {v6}")
                lines.append(f"{owner}.service SRV 1 1 {port} {target(v4, v6)}")
            lines.append(f"{target(v4, v6)} A {v4}")
            if v6:
                lines.append(f"{target(v4, v6)} AAAA {v6}")
    return "\n".join(lines) + "\n"


def put(path, body=None):
    """A request as play.c reads it."""
    text = b"" if body is None else json.dumps(body).encode()
    head = f"PUT {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(text)}\r\n\r\n".encode()
    return b"%d\n" % (len(head) + len(text)) + head + text


def registrations(count):
    """The requests that register the services."""
    out = []
    for service, found in instances(count):
        for k, (v4, v6, port) in enumerate(found):
            body = {"ID": f"{service}-{k}", "Name": service, "Address": v4, "Port": port, "Tags": tags(k)}
            if v6:
                body["TaggedAddresses"] = {"lan_ipv6": {"Address": v6, "Port": port}}
            out.append(put("/v1/agent/service/register", body))
    return b"".join(out)


def question_sets(count):
    """The question sets, as lists of (name, type, rcode, answers)."""
    chance = random.Random(1)
    word = lambda: "".join(chance.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(chance.randint(4, 12)))
    services, pairs = plain(count), dual(count)

    def at(owner):
        return f"{owner}.service.{DOMAIN}"

    live = [(at(service), kind, 0, INSTANCES) for service in services for kind in ("A", "SRV")]
    nxdomain = []
    for service in services:
        # Services nobody registered, tags that a service has not, and names elsewhere in the domain: 3 to 1 to 1.
        nxdomain += [(at(f"{word()}-{chance.randint(0, 99999):05}"), kind, 3, 0) for kind in ("A", "SRV", "AAAA")]
        nxdomain += [(at(f"{word()}.{service}"), "A", 3, 0), (f"{word()}.{word()}-x.{DOMAIN}", "A", 3, 0)]
    nodata = [(at(service), kind, 0, 0) for service in services for kind in ("MX", "TXT")]
    aaaa = [(at(chance.choice(pairs)), "AAAA", 0, INSTANCES) for _ in services]
    aaaa += [(at(service), "AAAA", 0, 0) for service in services]
    tagged = [(at(f"v1.{service}"), kind, 0, INSTANCES) for service in services for kind in ("A", "SRV")]
    tagged += [(at(f"primary.{service}"), kind, 0, 1) for service in services for kind in ("A", "SRV")]
    return {"live": live, "nxdomain": nxdomain, "nodata": nodata, "aaaa": aaaa, "tags": tagged}


def lines(questions):
    """A question set as the generators read it."""
    return "".join(f"{name} {kind} {rcode} {answers}\n" for name, kind, rcode, answers in questions)


def ask(port, owner, kind, timeout=0.5):
    """One query over UDP; the bytes of the answer, or None."""
    wire = struct.pack(">6H", 4711, 0x0100, 1, 0, 0, 0)
    wire += b"".join(bytes([len(label)]) + label.encode() for label in owner.rstrip(".").split("."))
    wire += b"\0" + struct.pack(">2H", kind, 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(timeout)
        try:
            sock.connect(("127.0.0.1", port))
            sock.send(wire)
            return sock.recv(4096)
        except OSError:
            return None


def decode(wire):
    """The code of an answer, and its records as (section, type, owner, data) with names spelled out, in no order; of a
    SOA without its serial."""
    def read_name(at):
        labels, end, jumps = [], None, 0
        while wire[at]:
            if wire[at] >= 0xC0:
                end = end or at + 2
                at = (wire[at] & 0x3F) << 8 | wire[at + 1]
                jumps += 1
                if jumps > 50:
                    raise ValueError("compression loop")
                continue
            labels.append(wire[at + 1:at + 1 + wire[at]].decode().lower())
            at += wire[at] + 1
        return ".".join(labels) + ".", end or at + 1

    counts = struct.unpack(">4H", wire[4:12])
    _, at = read_name(12)
    at += 4
    found = set()
    for section, count in enumerate(counts[1:]):
        for _ in range(count):
            owner, at = read_name(at)
            kind, _, _, length = struct.unpack(">2HIH", wire[at:at + 10])
            at += 10
            if kind == SRV:
                data = wire[at:at + 6].hex() + read_name(at + 6)[0]
            elif kind == 6:
                server, then = read_name(at)
                mailbox, then = read_name(then)
                data = f"{server} {mailbox} {wire[then + 4:at + length].hex()}"
            elif kind == 2:
                data = read_name(at)[0]
            else:
                data = wire[at:at + length].hex()
            found.add((section, kind, owner, data))
            at += length
    return wire[3] & 0xF, frozenset(found)
