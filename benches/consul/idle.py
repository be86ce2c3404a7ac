"""Ten thousand blocking reads that wait: what they cost in memory and CPU, and that others are served beside them."""

import statistics
import time

import servers
from client import Connection, Poll, get
from verdict import Target, rows
from watchers import register, wait_for

SERVICES = 100
# A client address has a bound of its own on connections; loopback has many addresses.
PER_ADDRESS = 1000
MIB, MB = 1 << 20, 1_000_000


def run(given, scratch):
    server = servers.rollcall(scratch)
    writer = Connection(server.http)
    for number in range(SERVICES):
        writer.ask(register(f"idle-{number}", 1))
    indexes = [writer.ask(get(f"/v1/health/service/idle-{number}")).head["x-consul-index"] for number in range(SERVICES)]
    busy = lambda: usage(server, given.still)
    alone, memory = busy(), server.memory()
    connections = []
    for number in range(given.idle):
        one = Connection(server.http, f"127.0.0.{2 + number // PER_ADDRESS}")
        service = number % SERVICES
        one.send(get(f"/v1/health/service/idle-{service}?passing&index={indexes[service]}&wait=10m"))
        connections.append(one)
    wait_for(server, given.idle)
    beside, held = busy(), server.memory()
    poll = Poll(connections)
    # One change wakes a hundredth of them, and nobody else.
    times = []
    for number in range(20):
        begun = time.monotonic()
        writer.ask(register(f"new-{number}", 1))
        times.append(time.monotonic() - begun)
    disturbed = poll.drain(0.5)
    begun = time.monotonic()
    writer.ask(register("idle-7", 2))
    woken, took = 0, 0.0
    for moment, _ in poll.whole(10):
        woken, took = woken + 1, moment - begun
        if woken == given.idle // SERVICES:
            break
    for one in connections:
        one.close()
    wait_for(server, 0)
    after = server.memory()
    cost = (held - memory) / MB
    targets = [
        Target("c", f"memory of {given.idle:,} idle blocking reads", cost, 100 * given.idle / 10_000,
               short=125 * given.idle / 10_000, unit="MB"),
        Target("c", "CPU that they cost while nothing changes, of one core", max(beside - alone, 0) * 100, 1.0, unit="%"),
        Target("c", "of them woken by 20 changes of others", disturbed, 0, once=True),
        Target("c", "of them woken by a change of theirs", woken, given.idle // SERVICES, least=True, once=True),
    ]
    table = rows([f"{given.idle:,} idle blocking reads", ""], [
        ["memory of each", f"{(held - memory) / given.idle / 1024:.1f} KiB"],
        ["memory when they had gone, beside before", f"{(after - memory) / MIB:+.1f} MiB"],
        ["CPU of the server without them, with them", f"{alone * 100:.2f} %, {beside * 100:.2f} %"],
        ["a registration beside them, median", f"{statistics.median(times) * 1000:.2f} ms"],
        [f"the last of {given.idle // SERVICES} woken by a change", f"{took * 1000:.1f} ms"],
    ])
    return targets, [table], {"memory": held - memory, "cpu": [alone, beside]}


def usage(server, seconds):
    """The share of a core that the server takes over this long."""
    before, begun = server.cpu(), time.monotonic()
    time.sleep(seconds)
    return (server.cpu() - before) / (time.monotonic() - begun)
