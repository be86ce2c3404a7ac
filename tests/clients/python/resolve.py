"""What dnspython's users do: resolve SRV, A, AAAA, TXT and PTR, over UDP and TCP, with EDNS and with mixed case."""

import sys

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.resolver
import dns.reversename

SERVER, PORT = "127.0.0.1", 8600
failed = 0


def equal(got, wanted, what):
    global failed
    if got == wanted:
        print(f"ok    {what}")
    else:
        failed += 1
        print(f"FAIL  {what}: got {got!r}, wanted {wanted!r}")


def make_resolver():
    resolver = dns.resolver.Resolver(configure=False)
    resolver.nameservers, resolver.port, resolver.lifetime = [SERVER], PORT, 5.0
    return resolver


def resolving(resolver, tcp):
    over = "TCP" if tcp else "UDP"
    for name in ("web.service.consul", "v1.web.service.internal", "_web._tcp.service.consul", "web.service.dc1.consul"):
        answer = resolver.resolve(name, "SRV", tcp=tcp)
        equal(sorted((one.priority, one.weight, one.port) for one in answer), [(1, 1, 8001), (1, 5, 8002)],
              f"{over} {name} SRV")
        for one in answer:
            found = resolver.resolve(one.target, "A", tcp=tcp)
            equal(found[0].address, f"192.0.2.{one.port - 7990}", f"{over} target {one.target} resolves")
    equal(sorted(one.address for one in resolver.resolve("web.service.consul", "A", tcp=tcp)),
          ["192.0.2.11", "192.0.2.12"], f"{over} A")
    equal([one.address for one in resolver.resolve("six.service.consul", "AAAA", tcp=tcp)], ["2001:db8::66"],
          f"{over} AAAA of a service with IPv6 only")
    equal([one.address for one in resolver.resolve("dual.service.consul", "AAAA", tcp=tcp)], ["2001:db8::13"],
          f"{over} AAAA of an instance with both")
    equal([one.address for one in resolver.resolve("dual.service.consul", "A", tcp=tcp)], ["192.0.2.13"],
          f"{over} A of an instance with both")
    for name, kind, wanted in (("six.service.consul", "A", dns.resolver.NoAnswer),
                               ("idle.service.consul", "A", dns.resolver.NoAnswer),
                               ("idle.service.consul", "SRV", dns.resolver.NoAnswer),
                               ("service.consul", "A", dns.resolver.NoAnswer),
                               ("nobody.service.consul", "A", dns.resolver.NXDOMAIN),
                               ("v9.web.service.consul", "A", dns.resolver.NXDOMAIN),
                               ("web.service.dc9.consul", "A", dns.resolver.NXDOMAIN)):
        try:
            resolver.resolve(name, kind, tcp=tcp)
            got = None
        except dns.exception.DNSException as error:
            got = type(error)
        equal(got, wanted, f"{over} {name} {kind} is {wanted.__name__}")
    soa = resolver.resolve("consul", "SOA", tcp=tcp)
    equal(soa[0].minimum, 1, f"{over} SOA of the domain, with a MINIMUM of 1 s")
    equal(len(resolver.resolve("consul", "NS", tcp=tcp)) > 0, True, f"{over} NS of the domain")
    names = resolver.resolve(dns.reversename.from_address("192.0.2.11"), "PTR", tcp=tcp)
    equal(len(names) > 0, True, f"{over} PTR of an instance's address")


def messages():
    """What a resolver hides: flags, EDNS, letter case, negative answers' SOA, truncation."""
    name = "wEb.SerVice.cONsul."
    query = dns.message.make_query(name, "A", use_edns=0, payload=4096)
    for over, ask in (("UDP", dns.query.udp), ("TCP", dns.query.tcp)):
        answer = ask(query, SERVER, 2.0, PORT)
        equal(answer.question[0].name.to_text(), name, f"{over} the question's letter case is echoed (0x20)")
        equal(answer.answer[0].name.to_text(), name, f"{over} the answer's owner has the question's letter case")
        equal(bool(answer.flags & dns.flags.AA), True, f"{over} AA is set")
        equal(bool(answer.flags & dns.flags.RA), False, f"{over} RA is clear without a forwarder")
        equal(bool(answer.flags & dns.flags.RD), True, f"{over} RD is copied")
        equal(answer.edns, 0, f"{over} EDNS is answered with EDNS")
        equal(answer.payload, 1232, f"{over} with our own payload size")
        plain = ask(dns.message.make_query(name, "A"), SERVER, 2.0, PORT)
        equal(plain.edns, -1, f"{over} no EDNS is answered without")
        for gone, rcode in (("nobody.service.consul.", "NXDOMAIN"), ("idle.service.consul.", "NOERROR"),
                            ("six.service.consul.", "NOERROR")):
            answer = ask(dns.message.make_query(gone, "A"), SERVER, 2.0, PORT)
            equal(dns.rcode.to_text(answer.rcode()), rcode, f"{over} {gone} A is {rcode}")
            equal([(rr.name.to_text(), rr.ttl, rr[0].minimum) for rr in answer.authority if rr.rdtype == 6],
                  [("consul.", 1, 1)], f"{over} {gone} A has a SOA with TTL = MINIMUM = 1")
        answer = ask(dns.message.make_query("web.service.consul.", "TXT"), SERVER, 2.0, PORT)
        equal(answer.rcode(), 0, f"{over} TXT of a service is NOERROR")
        many = ask(dns.message.make_query("many.service.consul.", "SRV", use_edns=0, payload=1232), SERVER, 2.0, PORT)
        if over == "TCP":
            equal(sum(len(rr) for rr in many.answer), 120, "TCP has all 120 records")
            equal(bool(many.flags & dns.flags.TC), False, "TCP has no TC")
        else:
            equal(bool(many.flags & dns.flags.TC), True, "UDP sets TC when 120 records do not fit")
            equal(many.edns, 0, "UDP keeps the OPT record in a truncated answer")
    answer, by_tcp = dns.query.udp_with_fallback(
        dns.message.make_query("many.service.consul.", "SRV", use_edns=0, payload=1232), SERVER, 5.0, PORT)
    equal((by_tcp, sum(len(rr) for rr in answer.answer)), (True, 120), "udp_with_fallback gets all 120 over TCP")
    small = dns.query.udp(dns.message.make_query("web.service.consul.", "SRV"), SERVER, 2.0, PORT)
    equal({rr.name.to_text() for rr in small.additional}, {one.target.to_text() for one in small.answer[0]},
          "the additional section has the targets and nothing else")


resolving(make_resolver(), tcp=False)
resolving(make_resolver(), tcp=True)
messages()
sys.exit(1 if failed else 0)
