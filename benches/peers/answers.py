"""Targets 1 and 2: CPU time for an answer from the registry, beside Knot, NSD, CoreDNS and a bare echo."""

import random

import servers
import world
from measure import dnsperf, interleave, load, median, ratio
from records import TYPES, ask, decode, question_sets
from verdict import Target, rows

# What is asked of all: its name in the table, the question set, what the generator adds to it.
ASKED = {
    "A and SRV": ("live", []),
    "NXDOMAIN": ("nxdomain", []),
    "NODATA": ("nodata", []),
    "AAAA": ("aaaa", []),
    "tag names": ("tags", []),
    "mixed case": ("live", ["-x"]),
}
COOKIE = "with a client cookie"


def run(given, scratch):
    peers = world.peers(scratch, given.services, (servers.knot, servers.nsd, servers.coredns))
    ours, floor = world.rollcall(scratch, given.services), world.echo(scratch)
    files = world.questions(scratch, given.services)
    same_answers([ours, *peers], given.services)
    rounds = interleave(given.rounds, measurements(peers, ours, floor, files, given.seconds), "answers")
    return targets(rounds, peers, ours), tables(rounds, peers, ours, floor, files, given), rounds


def same_answers(all_servers, services):
    """All servers have the same code and the same records in the same sections for a sample of each question set."""
    for questions in question_sets(services).values():
        for owner, kind, rcode, _ in random.Random(1).sample(questions, min(len(questions), 40)):
            seen = {server.title: decode(ask(server.port, owner, TYPES[kind], 2)) for server in all_servers}
            if len(set(seen.values())) != 1 or seen["Rollcall"][0] != rcode:
                raise SystemExit(f"{owner} {kind}: the servers differ:\n" +
                                 "\n".join(f"{title}: {code} {sorted(found)}" for title, (code, found) in seen.items()))


def measurements(peers, ours, floor, files, seconds):
    found = {}

    def add(what, server, file, *options):
        found[f"{server.short} {what}"] = lambda: load(server, file, seconds, *options)

    for what, (file, options) in ASKED.items():
        for server in [ours, *peers]:
            if server.short != "CoreDNS" or what == "A and SRV":
                add(what, server, files[file], *options)
    add(COOKIE, ours, files["live"], "-c")
    add("A and SRV", floor, files["live"])
    return found


def targets(rounds, peers, ours):
    mine = {what: rounds[f"{ours.short} {what}"] for what in [*ASKED, COOKIE]}
    found = []

    def compare(part, what, one, others, bound, short):
        middle, low, high = ratio(one, others)
        found.append(Target(part, what, middle, bound, low, high, short=short))

    for what in ASKED:
        best = [rounds[f"{server.short} {what}"] for server in peers if server.short != "CoreDNS"]
        plain = what == "A and SRV"
        compare("1", f"CPU of an answer, {what}, against the better of Knot and NSD", mine[what], best,
                0.75 if plain else 1.0, 1.3)
        if plain:
            compare("1", "the same against a bare echo", mine[what], [rounds["echo A and SRV"]], 1.3, 2.0)
    compare("1", f"the same {COOKIE} against our own without", mine[COOKIE], [mine["A and SRV"]], 1.1, 1.3)
    middle, low, high = ratio(rounds["CoreDNS A and SRV"], [mine["A and SRV"]])
    found.append(Target("2", "times cheaper than CoreDNS, A and SRV", middle, 15, low, high, least=True, short=4))
    return found


def tables(rounds, peers, ours, floor, files, given):
    """CPU microseconds of each server and question set; then what else the first set tells."""
    all_servers = [ours, *peers, floor]
    costs = []
    for what in [*ASKED, COOKIE]:
        cells = [rounds.get(f"{server.short} {what}") for server in all_servers]
        costs.append([what] + [f"{median(cell, 'us'):.2f}" if cell else "-" for cell in cells])
    # dnsperf wants lines of two words.
    plain = files["live"].with_suffix(".dnsperf")
    plain.write_text("".join(" ".join(line.split()[:2]) + "\n" for line in files["live"].read_text().splitlines()))
    more = []
    for server in all_servers:
        cell = rounds[f"{server.short} A and SRV"]
        seen = dnsperf(server, given.seconds, plain)
        more.append([server.title, f"{median(cell, 'qps'):,.0f}", f"{seen:,.0f}" if seen else "-",
                     f"{median(cell, 'octets'):.0f}", f"{100 * median(cell, 'busy'):.0f} %",
                     f"{sum(one['lost'] for one in cell)}"])
    return [f"CPU µs for an answer: {given.services:,} services of three instances and a quarter as many with both kinds "
            f"of address, medians of {given.rounds} interleaved rounds of {given.seconds:g} s\n\n" +
            rows(["asked", *(server.title for server in all_servers)], costs),
            rows(["A and SRV", "answers/s", "dnsperf's answers/s", "octets", "of its core", "lost"], more)]
