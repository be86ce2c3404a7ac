"""Target 9: nothing is lost below the peak, overload sheds and nothing else, and idle TCP connections cost nothing."""

import resource
import socket
import statistics
import struct
import time

import servers
import world
from measure import finish, generator, interleave, load, median, ratio, say
from records import DOMAIN, plain
from servers import metric
from verdict import Target, rows

SHARE, OVER = 0.7, 1.5
PER_ADDRESS = 900
# Idle connections are to stay, and to be allowed.
CONFIG = '[dns]\ntcp_connections_max = 20000\ntcp_idle = "1h"\n'


def run(given, scratch):
    ours = world.rollcall(scratch, given.services, CONFIG)
    peers = world.peers(scratch, given.services, (servers.knot, servers.nsd))
    file = world.questions(scratch, given.services)["live"]
    targets, tables, raw = [], [], {}
    for part in (steady, overload, tcp):
        found, table, raw[part.__name__] = part(given, ours, peers, file)
        targets += found
        tables.append(table)
    return targets, tables, raw


def pace(server, file, rate, seconds):
    """Queries at a fixed rate: what the generator printed, with what the kernel dropped at the server's socket and what
    is unanswered of the rest."""
    before = server.drops()
    found = finish(generator("pace", "-r", rate, "-l", seconds, "127.0.0.1", server.port, file), seconds)
    found["drops"] = server.drops() - before
    found["unanswered"] = found["sent"] - found["answered"] - found["wrong"] - found["drops"] - found["own_drops"]
    found["offered"] = found["sent"] / found["seconds"]
    if found["wrong"]:
        raise SystemExit(f"{server.title} answered wrongly: {found}")
    return found


def steady(given, ours, peers, file):
    """Each server at 70 % of the peak that it has just shown."""
    everyone = [ours, *peers]
    peaks = interleave(3, {one.short: lambda one=one: load(one, file, given.seconds) for one in everyone}, "peak")
    found = {}
    for server in everyone:
        say(f"steady load on {server.short}")
        found[server.short] = pace(server, file, SHARE * median(peaks[server.short], "qps"), given.steady)
    mine = found[ours.short]
    at = f"at 70 % of its peak for {given.steady} s"
    targets = [Target("9", f"queries dropped at our socket {at}", mine["drops"], 0),
               Target("9", f"queries delivered but not answered {at}", abs(mine["unanswered"]), 0)]
    table = rows([at, "peak/s", "sent", "answered", "dropped at its socket", "delivered, not answered",
                  "generator behind by at most"],
                 [[server.title, f"{median(peaks[server.short], 'qps'):,.0f}", f"{one['sent']:,}", f"{one['answered']:,}",
                   f"{one['drops']:,}", f"{one['unanswered']:,}", f"{one['behind_ms']:.1f} ms"]
                  for server in everyone for one in [found[server.short]]])
    return targets, table, {"peaks": peaks, "steady": found}


def overload(given, ours, _, file):
    """More than it can answer: the rate of answers beside the closed loop's, and memory."""
    peak = statistics.median(load(ours, file, given.seconds)["qps"] for _ in range(3))
    before = ours.memory()

    def over():
        one = pace(ours, file, OVER * peak, given.seconds)
        # Answers that the generator had no time to take were given all the same.
        one["qps"] = (one["answered"] + one["own_drops"]) / one["seconds"]
        return one

    rounds = interleave(given.rounds, {"peak": lambda: load(ours, file, given.seconds), "over": over}, "over the peak")
    grown = (ours.memory() - before) / 1e6
    middle, low, high = ratio(rounds["over"], [rounds["peak"]], "qps")
    offered = median(rounds["over"], "offered") / median(rounds["peak"], "qps")
    targets = [Target("9", f"answers a second when {offered:.0%} of the peak is asked, to those at the peak", middle, 0.95,
                      low, high, least=True, short=0.8),
               Target("9", "memory that grew meanwhile", grown, 16, unit="MB")]
    lost = sum(one["unanswered"] for one in rounds["over"])
    table = rows(["over the peak", "asked/s", "answered/s", "dropped at the socket", "delivered, not answered"],
                 [[ours.title, f"{median(rounds['over'], 'offered'):,.0f}", f"{median(rounds['over'], 'qps'):,.0f}",
                   f"{sum(one['drops'] for one in rounds['over']):,}", f"{lost:,}"]])
    return targets, table, rounds


def tcp(given, ours, _, file):
    """UDP with and without idle TCP connections, from as many loopback addresses as the limit for one client wants."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    def crowded():
        idle = [connect(ours.port, number) for number in range(given.idle)]
        wait_for(ours, given.idle)
        found = load(ours, file, given.seconds)
        answer_over_tcp(idle[:: max(1, len(idle) // 20)])
        for one in idle:
            one.close()
        wait_for(ours, 0)
        return found

    rounds = interleave(given.rounds, {"without": lambda: load(ours, file, given.seconds), "with": crowded}, "idle TCP")
    middle, low, high = ratio(rounds["with"], [rounds["without"]])
    target = Target("9", f"CPU of an answer over UDP with {given.idle:,} idle TCP connections, to that without", middle,
                    1.05, low, high, short=1.3)
    table = rows([f"{given.idle:,} idle TCP connections", "CPU µs for an answer over UDP", "answers/s"],
                 [[name, f"{median(cell, 'us'):.2f}", f"{median(cell, 'qps'):,.0f}"] for name, cell in rounds.items()])
    return [target], table, rounds


def connect(port, number):
    one = socket.socket()
    one.bind((f"127.0.1.{1 + number // PER_ADDRESS}", 0))
    one.connect(("127.0.0.1", port))
    return one


def wait_for(server, connections):
    deadline = time.monotonic() + 30
    while metric(server, "rollcall_dns_tcp_connections") != connections:
        if time.monotonic() > deadline:
            raise SystemExit(f"{server.title} has {metric(server, 'rollcall_dns_tcp_connections'):.0f} TCP connections, "
                             f"not {connections}")
        time.sleep(0.05)


def answer_over_tcp(connections):
    """They were idle, not dead."""
    name = b"".join(bytes([len(label)]) + label.encode() for label in f"{plain(1)[0]}.service.{DOMAIN}".split("."))
    query = struct.pack(">6H", 7, 0x0100, 1, 0, 0, 0) + name + b"\0\0\1\0\1"
    for one in connections:
        one.settimeout(5)
        one.sendall(struct.pack(">H", len(query)) + query)
        if one.recv(4096)[2:4] != query[:2]:
            raise SystemExit("an idle TCP connection does not answer")
