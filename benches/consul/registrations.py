"""Durable registrations over 8 kept connections, each of which waits for its answer; the server is killed after the last,
and all of them have to be there when it is back."""

import os
import signal
import statistics
import time

import servers
from client import Connection, Poll, get, put
from measure import say
from verdict import Target, rows

CONNECTIONS = 8
PARTS = 10


def registration(number):
    """An instance as most are: one tag, two meta pairs, one TTL check."""
    return put("/v1/agent/service/register", {
        "ID": f"new-{number}", "Name": f"new-{number // 10}", "Address": "192.0.2.1", "Port": 8080, "Tags": ["v1"],
        "Meta": {"version": "1.2.3", "zone": "a"}, "Check": {"TTL": "1h", "Status": "passing"}})


def closed_loop(connections, requests):
    """Plays them once through; gives the seconds that took and those that each waited."""
    requests, poll, sent, waits = iter(requests), Poll(connections), {}, []

    def send(one):
        request = next(requests, None)
        if request is None:
            return False
        one.send(request)
        sent[one] = time.monotonic()
        return True

    begun = time.monotonic()
    under_way = sum([send(one) for one in connections])
    for moment, one in poll.whole():
        if one.answer.status != 200:
            raise SystemExit(f"refused: {one.answer.body()[:300]}")
        waits.append(moment - sent[one])
        under_way -= not send(one)
        if not under_way:
            break
    poll.close()
    return time.monotonic() - begun, waits


def lone_fsyncs(folder, count):
    """A second's worth of "append a block of 4 KiB, sync" by a lone loop on the same file system."""
    block, file = b"x" * 4096, os.open(folder / "lone", os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    begun = time.monotonic()
    for _ in range(count):
        os.write(file, block)
        os.fsync(file)
    took = time.monotonic() - begun
    os.close(file)
    return count / took


def run(given, scratch):
    server = servers.rollcall(scratch)
    connections = [Connection(server.http) for _ in range(CONNECTIONS)]
    rates, lone, waits = [], [], []
    for part in range(PARTS):
        each = given.registrations // PARTS
        requests = [registration(number) for number in range(part * each, (part + 1) * each)]
        before = lone_fsyncs(scratch, max(each // 20, 20))
        took, waited = closed_loop(connections, requests)
        rates.append(each / took)
        lone.append((before + lone_fsyncs(scratch, max(each // 20, 20))) / 2)
        waits += waited
    server.child.send_signal(signal.SIGKILL)
    server.child.wait()
    servers.end_all()
    again = servers.rollcall(scratch)
    kept = len(Connection(again.http).ask(get("/v1/agent/services")).body().split(b'"ID":"new-')) - 1
    say(f"{sum(rates) / PARTS:,.0f} registrations a second")
    made = given.registrations // PARTS * PARTS
    waits.sort()
    targets = [
        # What they are worth beside a lone fsync is target 7 of ../peers, whose client costs less than this one.
        Target("a", f"durable registrations over {CONNECTIONS} kept connections", statistics.median(rates), 5000, least=True,
               short=1000, unit="a second"),
        Target("a", f"of {made:,} acknowledged, there after a SIGKILL", kept, made, least=True, once=True),
    ]
    table = rows(["registrations", ""], [
        ["a second, median of ten parts", f"{statistics.median(rates):,.0f}"],
        ["fsyncs a second of a lone loop beside", f"{statistics.median(lone):,.0f}"],
        ["an answer, median and 99th percentile", f"{waits[len(waits) // 2] * 1000:.2f} ms, {waits[len(waits) * 99 // 100] * 1000:.2f} ms"],
    ])
    return targets, [table], {"rates": rates, "lone_fsyncs": lone, "kept": kept}
