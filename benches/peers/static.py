"""Target 3: CPU time for an answer from a static zone of a million names, beside Knot and NSD."""

import random

import servers
from measure import interleave, load, median, ratio
from records import A, ask, lines
from verdict import Target, rows

ORIGIN = "static.test"
ASKED = 200_000


def host(number):
    return f"host-{number:07}.{ORIGIN}"


def address(number):
    return f"198.{18 + (number >> 16 & 1)}.{number >> 8 & 255}.{number & 255}"


def run(given, scratch):
    master = scratch / "zone"
    with open(master, "w") as out:
        out.write(f"$ORIGIN {ORIGIN}.\n$TTL 300\n@ SOA ns hostmaster 1 3600 600 86400 60\nns A 127.0.0.1\n")
        out.writelines(f"{host(number)}. A {address(number)}\n" for number in range(given.names))
    # NSD would add the NS set to its answers (records.py); Rollcall wants one.
    with_ns = scratch / "zone-with-ns"
    with_ns.write_text(f"$TTL 300\n$INCLUDE {master.name}\n@ NS ns\n")
    chance = random.Random(1)
    questions = scratch / "questions"
    questions.write_text(lines((host(chance.randrange(given.names)), "A", 0, 1) for _ in range(ASKED)))
    folders = {name: scratch / name for name in ("rollcall", "knot", "nsd")}
    for folder in folders.values():
        folder.mkdir()
    last = host(given.names - 1)

    def ready(server):
        return server.wait(lambda: (answer := ask(server.port, last, A)) and answer[7] == 1)

    ours = ready(servers.rollcall(folders["rollcall"], f'[[zone]]\nname = "{ORIGIN}"\nfile = "{with_ns}"\n'))
    peers = [ready(servers.knot(folders["knot"], with_ns, ORIGIN)), ready(servers.nsd(folders["nsd"], master, ORIGIN))]
    everyone = [ours, *peers]
    rounds = interleave(given.rounds, {server.short: lambda server=server: load(server, questions, given.seconds)
                                       for server in everyone}, "static zone")
    middle, low, high = ratio(rounds["Rollcall"], [rounds["Knot"]])
    target = Target("3", f"CPU of an answer from a zone of {given.names:,} names, against Knot", middle, 1.0, low, high,
                    short=1.3)
    table = rows([f"zone of {given.names:,} names", "CPU µs", "answers/s", "octets", "MB resident"],
                 [[server.title, f"{median(rounds[server.short], 'us'):.2f}",
                   f"{median(rounds[server.short], 'qps'):,.0f}", f"{median(rounds[server.short], 'octets'):.0f}",
                   f"{server.memory() / 1e6:,.0f}"] for server in everyone])
    return [target], [table], rounds
