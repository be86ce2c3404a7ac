"""Cases of the Ferret sample: a zone, one question, and the answer on which four servers agree.

All cases are served at once by one server, though many have the same origin: in each, the last label of every name
becomes one that no other case uses. Relations between the names of a case stay what they are, and names outside its
zone stay outside all zones."""

import gzip
import json

import dns.flags
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype


class Record:
    """A record for comparison: letter case in names does not count."""

    def __init__(self, owner, ttl, rdata):
        self.owner, self.ttl, self.rdata = owner, ttl, rdata

    @property
    def _key(self):
        return self.owner, self.ttl, self.rdata.rdtype, self.rdata.to_digestable()

    def __eq__(self, other):
        return self._key == other._key

    def __hash__(self):
        return hash(self._key)

    def __str__(self):
        kind = dns.rdatatype.to_text(self.rdata.rdtype)
        return f"{self.owner} {self.ttl} IN {kind} {self.rdata}"


class Case:
    def __init__(self, number, fields):
        self.id = fields["id"]
        self._suffix = f"-c{number}".encode()
        self.origin = self._name(fields["origin"])
        self.records = [self._record(line) for line in fields["zone"].splitlines()]
        self.name = self._name(fields["qname"])
        self.kind = dns.rdatatype.from_text(fields["qtype"])
        expected = fields["expected"]
        self.rcode, self.authoritative = expected["rcode"], expected["aa"]
        self.sections = [[self._record(line) for line in expected[name]]
                         for name in ("answer", "authority", "additional")]

    def _name(self, text):
        name = dns.name.from_text(text) if isinstance(text, str) else text
        if len(name.labels) == 1:
            return name
        return dns.name.Name((*name.labels[:-2], name.labels[-2] + self._suffix, b""))

    def _record(self, line):
        owner, ttl, _, kind, data = line.split(None, 4)
        rdata = dns.rdata.from_text("IN", kind, data)
        names = {field: self._name(getattr(rdata, field)) for field in ("target", "mname", "rname")
                 if hasattr(rdata, field)}
        return Record(self._name(owner), int(ttl), rdata.replace(**names) if names else rdata)

    def zone_text(self):
        return "".join(f"{record}\n" for record in self.records)

    def differences(self, response):
        """What is wrong with an answer, a line each; nothing if it is right."""
        wrong = []
        rcode = dns.rcode.to_text(response.rcode())
        if rcode != self.rcode:
            wrong.append(f"rcode {rcode}, expected {self.rcode}")
        authoritative = bool(response.flags & dns.flags.AA)
        if authoritative != self.authoritative:
            wrong.append(f"AA {authoritative}, expected {self.authoritative}")
        given = [flat(section) for section in (response.answer, response.authority, response.additional)]
        # Where there is an answer, the apex's name servers may stand in the authority section or be left out.
        optional = set()
        if given[0] and self.sections[0]:
            optional = {record for record in self.records
                        if record.owner == self.origin and record.rdata.rdtype == dns.rdatatype.NS}
        for name, found, expected in zip(("answer", "authority", "additional"), given, self.sections):
            if len(set(found)) != len(found):
                wrong.append(f"{name}: a record stands twice")
            ignored = optional if name == "authority" else set()
            found, expected = set(found) - ignored, set(expected) - ignored
            wrong += [f"{name}: {record} is not expected" for record in found - expected]
            wrong += [f"{name}: {record} is missing" for record in expected - found]
        return wrong


def flat(section):
    return [Record(rrset.name, rrset.ttl, rdata) for rrset in section for rdata in rrset]


def load(path):
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [Case(number, json.loads(line)) for number, line in enumerate(lines, 1)]
