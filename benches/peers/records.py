"""What all servers are loaded with: names, addresses, a master file, the generator's questions; and how answers are
read back to see that all servers give the same ones."""

import socket
import struct

INSTANCES = 3
DOMAIN = "internal"


def instances(service):
    """(address, port) of each instance of service number `service`; addresses of RFC 2544's benchmark range."""
    for k in range(INSTANCES):
        number = service * INSTANCES + k + 1
        yield f"198.{18 + (number >> 16)}.{number >> 8 & 255}.{number & 255}", 8000 + k


def name(service):
    return f"svc-{service:05}"


def target(address):
    return "".join(f"{int(part):02x}" for part in address.split(".")) + f".addr.dc1.{DOMAIN}."


def zone(services):
    """The same records as a master file."""
    lines = [f"$ORIGIN {DOMAIN}.", "$TTL 5", "@ 1 SOA ns hostmaster 1 3600 600 86400 1", "@ NS ns", "ns A 127.0.0.1"]
    for service in range(services):
        for address, port in instances(service):
            lines += [f"{name(service)}.service A {address}",
                      f"{name(service)}.service SRV 1 1 {port} {target(address)}",
                      f"{target(address)} A {address}"]
    return "\n".join(lines) + "\n"


def questions(services):
    """A and SRV of every service, half and half, with the number of records in the answer."""
    return "".join(f"{name(service)}.service.{DOMAIN} {kind} {INSTANCES}\n"
                   for service in range(services) for kind in ("A", "SRV"))


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
    """The records of an answer, as (section, type, owner, data) with names spelled out, in no order."""
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
            fixed = {2: 0, 33: 6}.get(kind, length)
            data = wire[at:at + fixed].hex() + ("" if fixed == length else read_name(at + fixed)[0])
            found.add((section, kind, owner, data))
            at += length
    return found
