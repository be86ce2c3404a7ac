"""200 blocking reads of one service woken by one change, beside as many of another service that must sleep on."""

import json
import statistics
import time

import servers
from client import Connection, Poll, get, put
from verdict import Target, rows

WATCHERS = 200


def register(name, port):
    return put("/v1/agent/service/register", {"ID": name, "Name": name, "Address": "192.0.2.1", "Port": port})


def wait_for(server, count):
    """Until so many blocking reads wait."""
    deadline = time.monotonic() + 60
    while (waiting := servers.metric(server, "rollcall_http_watchers")) != count:
        if time.monotonic() > deadline:
            raise SystemExit(f"{waiting:.0f} blocking reads wait, not {count}")
        time.sleep(0.005)


def run(given, scratch):
    server = servers.rollcall(scratch)
    writer = Connection(server.http)
    for name in ("woken", "asleep"):
        writer.ask(register(name, 1))
    watchers, others = ([Connection(server.http) for _ in range(WATCHERS)] for _ in range(2))
    poll, asleep = Poll(watchers), Poll(others)

    def index(name):
        return writer.ask(get(f"/v1/health/service/{name}?passing")).head["x-consul-index"]

    for one in others:
        one.send(get(f"/v1/health/service/asleep?passing&index={index('asleep')}&wait=10m"))
    last, first, answered, cpu = [], [], [], []
    for turn in range(given.rounds):
        since = index("woken")
        for one in watchers:
            one.send(get(f"/v1/health/service/woken?passing&index={since}&wait=10m"))
        wait_for(server, 2 * WATCHERS)
        before, begun = server.cpu(), time.monotonic()
        writer.send(register("woken", turn + 2))
        moments = []
        for moment, one in poll.whole():
            moments.append(moment - begun)
            if len(moments) == WATCHERS:
                break
        if len(moments) != WATCHERS:
            raise SystemExit(f"{len(moments)} of {WATCHERS} watchers were woken")
        # The answer of the write itself, which the loop above left in its socket.
        while not writer.answer.take(writer.socket.recv(1 << 16)):
            pass
        cpu.append(server.cpu() - before)
        for one in watchers:
            found = json.loads(one.answer.body())
            if [entry["Service"]["Port"] for entry in found] != [turn + 2]:
                raise SystemExit(f"a watcher was answered {found}")
        first.append(min(moments) * 1000)
        last.append(max(moments) * 1000)
    woken = asleep.drain(0.5)
    targets = [
        Target("b", f"from a change's request to the last of {WATCHERS} watchers' answers, median of {given.rounds}",
               statistics.median(last), 50, short=100, unit="ms"),
        Target("b", f"watchers of another service that woke, of {WATCHERS}", woken, 0, once=True),
    ]
    table = rows([f"{WATCHERS} watchers, {given.rounds} changes", "ms"], [
        ["the first answer, median", f"{statistics.median(first):.2f}"],
        ["the last answer, median", f"{statistics.median(last):.2f}"],
        ["the last answer, slowest round", f"{max(last):.2f}"],
        ["CPU of the server for a change, median", f"{statistics.median(cpu) * 1000:.2f}"],
    ])
    return targets, [table], {"last_ms": last, "first_ms": first}
