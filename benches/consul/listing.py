"""Whole listings of small and large registries: the time for each entry has to be the same, and no request may cost memory
as if it copied the registry."""

import statistics
import re
import threading
import time
from pathlib import Path

import servers
from client import Connection, get, put
from measure import play, say
from verdict import Target, rows

# Half of all instances are of one service, the other half ten to a service; a hundred to a node.
LISTINGS = {
    "catalog/services": ("/v1/catalog/services", b'":['),
    "catalog/nodes": ("/v1/catalog/nodes", b'"Datacenter":'),
    "catalog/service": ("/v1/catalog/service/big", b'"ServiceID":'),
    "health/service": ("/v1/health/service/big", b'"EnableTagOverride":'),
    "health/state": ("/v1/health/state/any", b'"CheckID":'),
}
READERS = 4
MIB = 1 << 20


def requests(count):
    found = []
    for number in range(count):
        service = "big" if number % 2 else f"small-{number // 20}"
        body = {"ID": f"i-{number}", "Name": service, "Address": f"10.0.{number >> 8 & 255}.{number & 255}", "Port": 8080,
                "Tags": ["v1"], "Meta": {"version": "1.2.3", "zone": "a"}, "Check": {"TTL": "1h", "Status": "passing"}}
        text = put(f"/v1/agent/service/register?node=n-{number // 100}", body)
        found.append(b"%d\n%s" % (len(text), text))
    return b"".join(found)


def resident(server, field):
    return int(re.search(rf"^{field}:\s+(\d+) kB", Path(f"/proc/{server.child.pid}/status").read_text(), re.M).group(1)) * 1024


def peak_beside(server, path):
    """By how much the server's memory grew at most while READERS read this listing at once, and the octets of one."""
    readers, sizes = [Connection(server.http) for _ in range(READERS)], []
    # Sets the peak back to what is now (proc_pid_clear_refs(5)).
    Path(f"/proc/{server.child.pid}/clear_refs").write_text("5")
    before = resident(server, "VmRSS")
    read = [threading.Thread(target=lambda one=one: sizes.append(len(one.ask(get(path)).octets))) for one in readers]
    for one in read:
        one.start()
    for one in read:
        one.join()
    return resident(server, "VmHWM") - before, sizes[0]


def measured(given, scratch, count):
    """Microseconds of CPU for each entry of each listing, and how the largest costs memory."""
    folder = scratch / str(count)
    folder.mkdir()
    server = servers.rollcall(folder)
    empty = server.memory()
    file = folder / "registrations"
    file.write_bytes(requests(count))
    play(server, file)
    registry, reader, found = server.memory() - empty, Connection(server.http), {}
    for name, (path, mark) in LISTINGS.items():
        entries, times = 0, []
        for _ in range(given.rounds // 2 + 1):
            # As many reads as make a time that the clock of the process can tell.
            repeat = max(1, 2000 // count)
            before = server.cpu()
            for _ in range(repeat):
                answer = reader.ask(get(path))
            times.append((server.cpu() - before) / repeat)
            entries = answer.octets.count(mark)
        found[name] = {"entries": entries, "us": statistics.median(times) * 1e6 / entries, "ms": statistics.median(times) * 1e3}
    memory = {name: peak_beside(server, LISTINGS[name][0]) for name in ("health/service", "health/state")}
    say(f"{count:,} instances: {registry / MIB:.0f} MiB")
    server.end()
    return {"listings": found, "registry": registry, "memory": memory}


def run(given, scratch):
    small, *_, large = given.instances
    found = {count: measured(given, scratch, count) for count in given.instances}
    targets, lines = [], []
    for name in LISTINGS:
        each = [found[count]["listings"][name] for count in given.instances]
        targets.append(Target("d", f"{name}: CPU of an entry with {large:,} instances, to that with {small:,}",
                              each[-1]["us"] / each[0]["us"], 2.0, short=3.0))
        lines.append([name, *(f"{one['us']:.2f} µs of {one['entries']:,}" for one in each), f"{each[-1]['ms']:.0f} ms"])
    registry, sizes = found[large]["registry"], []
    for name, (grown, octets) in found[large]["memory"].items():
        targets.append(Target("d", f"{name}: memory that a reader costs at most, to the registry's own",
                              grown / READERS / registry, 0.05, short=0.15))
        sizes.append([f"{name}, {READERS} readers at once", f"{octets / MIB:.1f} MiB each", f"{grown / MIB:.1f} MiB"])
    return targets, [rows(["listing", *(f"{count:,} instances" for count in given.instances), "the largest, whole"], lines),
                     rows([f"{large:,} instances: {registry / MIB:.0f} MiB", "answer", "memory grew by"], sizes)], \
        {str(count): one["listings"] for count, one in found.items()}
