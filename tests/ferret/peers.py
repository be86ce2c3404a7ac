"""Random small zones, served by Rollcall and by Debian's Knot and NSD: where those two give the same answer, ours must
be that answer.

    peers.py [--zones N] [--seed SEED]

The seed is printed, so that a failure can be had again. Answers are compared as the sample's are: whole sections as
sets, except that an answer may or may not carry the apex's name servers."""

import argparse
import random
import sys
import tempfile
from pathlib import Path

import dns.flags
import dns.rcode
import dns.rdatatype

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "clients"))

from cases import flat
from harness.processes import Process
from servers import ask, knot, nsd, rollcall, write

LABELS = ["a", "b", "*", "x"]
KINDS = ["A", "AAAA", "TXT", "NS", "CNAME", "DNAME", "MX", "SRV", "SOA", "DS"]
QUESTIONS = 40


class Zone:
    """A zone made by chance, of a few names that lie close together."""

    def __init__(self, chance, number):
        self.chance = chance
        self.origin = f"z{number}.test."
        self.types = {}
        self.lines = [f"{self.origin} 500 IN SOA ns.{self.origin} root.{self.origin} 1 600 60 6000 100",
                      f"{self.origin} 500 IN NS ns.{self.origin}"]
        # Some zones have many aliases, some are an alias themselves.
        weights = [5, 3, 3, 4, 5, 3, 2, 1] if chance.random() < 0.6 else [3, 1, 1, 2, 12, 6, 1, 1]
        if chance.random() < 0.05:
            self._add(self.origin, "DNAME")
        for _ in range(chance.randint(2, 12)):
            self._add(self.name(), chance.choices(KINDS[:8], weights)[0])

    def name(self):
        depth = self.chance.choices(range(5), [1, 6, 6, 4, 1])[0]
        return "".join(self.chance.choice(LABELS) + "." for _ in range(depth)) + self.origin

    def _target(self):
        return self.name() if self.chance.random() < 0.9 else "a.b.elsewhere."

    def _add(self, owner, kind):
        types = self.types.setdefault(owner, set())
        if kind in types and kind in ("CNAME", "DNAME"):
            return
        if "CNAME" in types or (kind == "CNAME" and (types or owner == self.origin)):
            return
        # Names below a DNAME keep Knot from loading the zone; NS beside DNAME and at wildcards nobody defines.
        if kind == "DNAME" and (any(name.endswith("." + owner) for name in self.types) or (owner != self.origin and "NS" in types)):
            return
        if any("DNAME" in self.types[name] for name in self.types if owner.endswith("." + name)):
            return
        if kind == "NS" and "DNAME" in types and owner != self.origin:
            return
        data = {
            "A": f"192.0.2.{self.chance.randint(1, 99)}", "AAAA": f"2001:db8::{self.chance.randint(1, 99)}",
            "TXT": '"text"', "MX": f"10 {self._target()}", "SRV": f"1 1 80 {self._target()}",
        }.get(kind) or self._target()
        types.add(kind)
        self.lines.append(f"{owner} 500 IN {kind} {data}")

    def text(self):
        return "\n".join(self.lines) + "\n"


def digest(response, origin):
    """What two answers have to have in common."""
    sections = [flat(section) for section in (response.answer, response.authority, response.additional)]
    if sections[0]:
        # The apex's name servers are optional there, and with them their addresses.
        apex = [record for record in sections[1]
                if str(record.owner) == origin and record.rdata.rdtype == dns.rdatatype.NS]
        hosts = {record.rdata.target for record in apex} - {host(record.rdata) for record in sections[0]}
        sections[1] = [record for record in sections[1] if record not in apex]
        sections[2] = [record for record in sections[2] if record.owner not in hosts]
    rcode, authoritative = dns.rcode.to_text(response.rcode()), bool(response.flags & dns.flags.AA)
    return (rcode, authoritative, *(frozenset(map(str, section)) for section in sections))


def host(rdata):
    """The host that a record leads to, if its type makes servers add that host's addresses."""
    if rdata.rdtype in (dns.rdatatype.NS, dns.rdatatype.SRV):
        return rdata.target
    return getattr(rdata, "exchange", None)


def shown(what, parts):
    rcode, authoritative, *sections = parts
    print(f"  {what}: {rcode}{' aa' if authoritative else ''}")
    for name, records in zip(("answer", "authority", "additional"), sections):
        for record in sorted(records):
            print(f"    {name}: {record}")


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--zones", type=int, default=300)
    arguments.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    arguments.add_argument("--disputed", action="store_true", help="print what Knot and NSD answer differently")
    options = arguments.parse_args()
    print(f"seed {options.seed}")
    chance = random.Random(options.seed)
    zones = [Zone(chance, number) for number in range(options.zones)]
    passed, failed, disputed, alone = 0, 0, 0, 0
    with tempfile.TemporaryDirectory(prefix="peers-") as folder:
        folder = Path(folder)
        try:
            files = write(folder, [(zone.origin, zone.text()) for zone in zones])
            ports = [start(folder, files) for start in (rollcall, knot, nsd)]
            for zone in zones:
                for _ in range(QUESTIONS):
                    name, kind = zone.name(), chance.choice(KINDS)
                    ours, *theirs = (digest(ask(name, kind, port), zone.origin) for port in ports)
                    if theirs[0] != theirs[1]:
                        disputed += 1
                        alone += ours not in theirs
                        if not options.disputed:
                            continue
                    elif ours == theirs[0]:
                        passed += 1
                        continue
                    else:
                        failed += 1
                    print(f"{name} {kind} in\n{zone.text()}")
                    shown("rollcall", ours)
                    shown("knot", theirs[0])
                    if theirs[0] != theirs[1]:
                        shown("nsd", theirs[1])
        finally:
            Process.end_all()
    print(f"{passed} passed, {failed} failed ({disputed} more are answered differently by Knot and NSD, {alone} in a third way by us)")
    sys.exit(0 if failed == 0 and passed > 0 else 1)


if __name__ == "__main__":
    main()
