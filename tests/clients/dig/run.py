"""`dig`, as people use it to look: every kind of answer, and what a server has to do with odd questions."""

import re
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from harness.fleet import register_fleet
from harness.hosts import Network
from harness.processes import Rollcall
from harness.report import Report


class Shown:
    """What one dig printed, taken apart."""

    def __init__(self, text):
        self.text = text
        found = re.search(r"status: (\w+)", text)
        self.status = found.group(1) if found else None
        found = re.search(r";; flags: ([a-z ]*);", text)
        self.flags = found.group(1).split() if found else []
        self.edns = re.search(r"EDNS: version: (\d+), flags:([a-z ]*); udp: (\d+)", text)
        self.sections = {}
        section = None
        for line in text.splitlines():
            if line.startswith(";; ") and line.endswith(" SECTION:"):
                section = self.sections.setdefault(line.split()[1], [])
            elif line == "" or line.startswith(";"):
                section = None if line == "" else section
            elif section is not None:
                section.append(line.split(None, 4))

    def has(self, section, kind):
        """The data of this type's records in a section, sorted."""
        return sorted(words[4] for words in self.sections.get(section, []) if words[3] == kind)


def dig(host, *words, server="127.0.0.1", port=8600):
    with host.inside():
        done = subprocess.run(["dig", f"@{server}", "-p", str(port), "+tries=1", "+time=3", *words],
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    return Shown(done.stdout + done.stderr)


def answers(report):
    """What a person looks up"""
    with Network() as network:
        host = network.host("one")
        with Rollcall(host) as server:
            register_fleet(server.http)
            for domain in ("consul", "internal"):
                shown = dig(host, f"web.service.{domain}", "SRV")
                srv = shown.has("ANSWER", "SRV")
                report.equal([one.rsplit(" ", 1)[0] for one in srv], ["1 1 8001", "1 5 8002"], f"SRV in {domain}")
                report.equal(shown.has("ADDITIONAL", "A"), ["192.0.2.11", "192.0.2.12"], f"with addresses in {domain}")
                report.check("aa" in shown.flags and "ra" not in shown.flags, "authoritative, not recursive", shown.text)
                for one in srv:
                    target = one.rsplit(" ", 1)[1]
                    report.equal(len(dig(host, target, "A").has("ANSWER", "A")), 1, f"{target} resolves on its own")
            # By weights of 1 and 5 one of them is first five times of six.
            orders = set()
            for _ in range(200):
                orders.add(tuple(words[4] for words in dig(host, "web.service.consul", "A").sections["ANSWER"]))
                if len(orders) == 2:
                    break
            report.equal(len(orders), 2, "answers rotate")
            for name, kind, status in (("idle.service.consul", "A", "NOERROR"), ("six.service.consul", "A", "NOERROR"),
                                       ("nobody.service.consul", "SRV", "NXDOMAIN"), ("service.consul", "A", "NOERROR"),
                                       ("consul", "A", "NOERROR"), ("dc1.consul", "TXT", "NOERROR"),
                                       ("nothing.consul", "A", "NXDOMAIN"),
                                       ("web.service.elsewhere.consul", "A", "NXDOMAIN")):
                shown = dig(host, name, kind)
                report.equal((shown.status, [soa.split()[-1] for soa in shown.has("AUTHORITY", "SOA")]), (status, ["1"]),
                             f"{name} {kind} is {status}, with a SOA")
            # The apex may have an address: ns.D answers with the server's, D itself has SOA and NS.
            report.equal(len(dig(host, "internal", "SOA").has("ANSWER", "SOA")), 1, "SOA of the domain")
            report.equal(len(dig(host, "internal", "NS").has("ANSWER", "NS")), 1, "NS of the domain")
            reverse = dig(host, "-x", "192.0.2.11").has("ANSWER", "PTR")
            report.check(len(reverse) >= 1, "dig -x finds an instance's name", reverse)
            node = re.search(r"(\S+\.node\.\S+)", " ".join(reverse))
            if node:
                report.check(dig(host, node.group(1), "A").has("ANSWER", "A"), f"{node.group(1)} resolves")


def odd_questions(report):
    """What a server has to do with odd questions"""
    with Network() as network:
        host = network.host("one")
        with Rollcall(host) as server:
            register_fleet(server.http)
            plain = dig(host, "many.service.consul", "SRV", "+bufsize=512", "+ignore")
            report.check("tc" in plain.flags and plain.edns, "+bufsize=512: TC, and the OPT record stays", plain.text)
            plain = dig(host, "many.service.consul", "SRV", "+noedns", "+ignore")
            report.check("tc" in plain.flags and not plain.edns, "+noedns: TC, and no OPT record", plain.text)
            size = re.search(r"MSG SIZE\s+rcvd: (\d+)", plain.text)
            report.check(size and int(size.group(1)) <= 512, "in at most 512 octets", plain.text[-200:])
            whole = dig(host, "many.service.consul", "SRV", "+bufsize=512")
            report.check("retrying in TCP mode" in whole.text, "dig asks again over TCP", whole.text[:300])
            report.equal(len(whole.has("ANSWER", "SRV")), 120, "and gets all 120")
            report.check("tc" not in whole.flags, "without TC", whole.flags)
            large = dig(host, "many.service.consul", "SRV", "+bufsize=4096", "+ignore")
            size = re.search(r"MSG SIZE\s+rcvd: (\d+)", large.text)
            report.check(size and int(size.group(1)) <= 1232, "no UDP answer is over 1232 octets", large.text[-200:])

            shown = dig(host, "web.service.consul", "A", "+norec")
            report.check(shown.status == "NOERROR" and "rd" not in shown.flags, "+norec", shown.text)
            shown = dig(host, "web.service.consul", "A", "+edns=1", "+noednsneg")
            report.equal((shown.status, shown.edns and shown.edns.group(1)), ("BADVERS", "0"), "EDNS version 1 is BADVERS")
            shown = dig(host, "web.service.consul", "A", "+bufsize=4096", "+dnssec")
            report.equal((shown.status, shown.edns and shown.edns.group(3)), ("NOERROR", "1232"), "our payload size is 1232")
            report.check(shown.edns and "do" in shown.edns.group(2), "DO is copied (RFC 3225)", shown.text)
            for option in ("+cookie", "+cookie=0123456789abcdef", "+nsid", "+subnet=198.51.100.0/24", "+padding=64",
                           "+ednsopt=65001:dead", "+ednsflags=0x0001", "+zflag", "+adflag", "+cdflag"):
                shown = dig(host, "web.service.consul", "A", option)
                report.equal((shown.status, shown.has("ANSWER", "A")), ("NOERROR", ["192.0.2.11", "192.0.2.12"]),
                             f"{option} is no reason not to answer")
            for kind in ("TYPE65280", "TYPE64", "TYPE65", "NAPTR", "DS", "DNSKEY", "MX"):
                shown = dig(host, "web.service.consul", "-t", kind)
                report.equal((shown.status, len(shown.has("AUTHORITY", "SOA")), shown.sections.get("ANSWER", [])),
                             ("NOERROR", 1, []), f"type {kind} is NODATA")
            shown = dig(host, "web.service.consul", "ANY", "+notcp")
            report.check(shown.status == "NOERROR" and 1 <= len({words[3] for words in shown.sections.get("ANSWER", [])}) <= 1,
                         "ANY has one RRset (RFC 8482)", shown.text)
            shown = dig(host, "-c", "CH", "web.service.consul", "TXT")
            report.equal(shown.status, "REFUSED", "class CH is REFUSED")
            shown = dig(host, "-c", "CH", "version.bind", "TXT")
            report.equal(shown.status, "REFUSED", "version.bind is REFUSED")
            for opcode in ("notify", "update", "status", "iquery", "15"):
                shown = dig(host, "web.service.consul", "SOA", f"+opcode={opcode}")
                report.equal(shown.status, "NOTIMP", f"opcode {opcode} is NOTIMP")
            shown = dig(host, "+header-only", "web.service.consul")
            report.check(shown.status in ("FORMERR", "NOERROR"), "no question at all", shown.text)
            for kind in ("AXFR", "IXFR=1"):
                shown = dig(host, "consul", kind, "+tcp")
                report.check("SOA" not in shown.text.replace("consul.", "") and "web" not in shown.text,
                             f"{kind} gives nothing away", shown.text)
            for name in ("www.example.com", "consul.example", "service.consul.example.com", ".", "com",
                         "9.100.51.198.in-addr.arpa"):
                shown = dig(host, name, "A")
                report.check(shown.status == "REFUSED" and "aa" not in shown.flags and not shown.sections.get("ANSWER"),
                             f"{name} is not ours: REFUSED", shown.text)
            keep = dig(host, "+tcp", "+keepopen", "web.service.consul", "A", "six.service.consul", "AAAA",
                       "many.service.consul", "SRV")
            report.equal((len(keep.text.split("Got answer")) - 1, keep.text.count("status: NOERROR")), (3, 3),
                         "three questions on one TCP connection")


def wildcard(report):
    """Listening on a wildcard address, answers leave from the address that was asked"""
    with Network() as network:
        host = network.host("one", "192.0.2.10", "192.0.2.110", "2001:db8::10", "2001:db8::110")
        other = network.host("two")
        with Rollcall(host, "--dns", "0.0.0.0:8600", "--dns", "[::]:8601") as server:
            register_fleet(server.http)
            for address, port in (("192.0.2.10", 8600), ("192.0.2.110", 8600), ("2001:db8::10", 8601),
                                  ("2001:db8::110", 8601)):
                for transport in ("+notcp", "+tcp"):
                    shown = dig(other, "web.service.consul", "A", transport, server=address, port=port)
                    report.check(shown.has("ANSWER", "A") == ["192.0.2.11", "192.0.2.12"]
                                 and "unexpected source" not in shown.text,
                                 f"{address} answers from itself, {transport}", shown.text)
            shown = dig(host, "web.service.consul", "A", server="127.0.0.53")
            report.check(shown.has("ANSWER", "A") and "unexpected source" not in shown.text, "127.0.0.53 does too",
                         shown.text)


if __name__ == "__main__":
    Report("dig").run(answers, odd_questions, wildcard)
