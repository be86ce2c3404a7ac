"""Target 4: what it costs the answers when other services change all the time.

The services that change are not those that are asked for. The server has one core for everything, so the work of its
HTTP door and its writer is in the figure: what is compared is answers per second of that core. Changes come in two
forms, each at both rates: every change a request of its own (a TTL check that fails, then passes), and a hundred
statuses in one `PUT /v1/catalog/register`, as a monitor outside writes them. The first is what 1,000 changes a second
are judged by, the second what 10,000 are: ten thousand requests a second are work for HTTP, whatever is in them."""

import time

import world
from measure import finish, generator, interleave, load, median, play, ratio
from records import put
from servers import metric
from verdict import Target, rows

SERVICES = 10_000
BATCH = 100
# How it is shown, changes a second, changes in a request.
FORMS = {
    "1,000, a request each": (1000, 1),
    "1,000, 100 in a request": (1000, BATCH),
    "10,000, a request each": (10_000, 1),
    "10,000, 100 in a request": (10_000, BATCH),
}
JUDGED = {"1,000, a request each": (0.95, 0.85), "10,000, 100 in a request": (0.8, 0.65)}
REST = "none"
# Requests a second at rest: the client that has nothing to send wakes as often as the one that has, which costs the
# generator something.
NOTHING = 0.001


def run(given, scratch):
    ours = world.rollcall(scratch, given.services)
    file = world.questions(scratch, given.services)["live"]
    requests = register(ours, scratch)
    measurements = {REST: lambda: churned(ours, file, given.seconds, NOTHING, 1, requests)}
    for form, (rate, batch) in FORMS.items():
        measurements[form] = lambda rate=rate, batch=batch: churned(ours, file, given.seconds, rate, batch, requests)
    rounds = interleave(given.rounds, measurements, "changes elsewhere")
    targets = []
    for form, (bound, short) in JUDGED.items():
        # Cost at rest over cost while things change: the inverse of their throughputs' ratio is what `ratio` gives.
        middle, low, high = ratio(rounds[form], [rounds[REST]])
        targets.append(Target("4", f"throughput of the core with changes of other services a second: {form}, to that at "
                              "rest", 1 / middle, bound, 1 / high, 1 / low, least=True, short=short))
        targets.append(Target("4", f"of them published a second: {form}", median(rounds[form], "published"),
                              0.97 * FORMS[form][0], least=True, short=0.9 * FORMS[form][0]))
    lines = []
    for form, cell in rounds.items():
        thread = median(cell, "udp_us")
        lines.append([form, f"{median(cell, 'published'):,.0f}" if form != REST else "0", f"{median(cell, 'us'):.2f}",
                      f"{median(cell, 'us') ** -1 / median(rounds[REST], 'us') ** -1:.2f}",
                      f"{thread:.2f}" if thread else "-", f"{median(cell, 'qps'):,.0f}"])
    return targets, [rows(["changes a second elsewhere", "published a second", "CPU µs for an answer, all counted",
                           "throughput of the core", "CPU µs of the UDP thread", "answers/s"], lines)], rounds


def register(ours, scratch):
    """Registers what changes; gives the files that change it, by changes in a request, and those that set it back."""
    names = [f"elsewhere-{number:05}" for number in range(SERVICES)]

    def write(name, requests):
        (scratch / name).write_bytes(b"".join(requests))
        return scratch / name

    def service(name):
        return {"ID": name, "Service": name, "Address": "198.19.255.1", "Port": 80}

    def statuses(status, at):
        return [{"CheckID": name, "Name": "monitor", "Status": status, "ServiceID": name}
                for name in (f"m-{name}" for name in names[at:at + BATCH])]

    play(ours, write("own", (put("/v1/agent/service/register", {
        "ID": name, "Name": name, "Address": "198.19.255.1", "Port": 80, "Check": {"TTL": "1h", "Status": "passing"}})
        for name in names)))
    play(ours, write("monitored", (put("/v1/catalog/register", {
        "Node": "elsewhere", "Address": "198.19.255.2", "Service": service(f"m-{name}")}) for name in names)))
    single = lambda word: [put(f"/v1/agent/check/{word}/service:{name}") for name in names]
    many = lambda status: [put("/v1/catalog/register", {"Node": "elsewhere", "SkipNodeUpdate": True, "Checks":
                                                        statuses(status, at)}) for at in range(0, SERVICES, BATCH)]
    return {
        1: (write("single", single("fail") + single("pass")), write("single-back", single("pass"))),
        BATCH: (write("many", many("critical") + many("passing")), write("many-back", many("passing"))),
    }


def settled(server):
    """Waits until what was changed before is written, which goes on behind."""
    deadline, before = time.monotonic() + 20, server.cpu()
    while time.monotonic() < deadline:
        time.sleep(0.2)
        now = server.cpu()
        if now - before < 0.004:
            return True
        before = now
    raise SystemExit(f"{server.title} does not come to rest")


def churned(ours, file, seconds, rate, batch, requests):
    """One round of load while things change; `published` is how many changes a second the server's own count shows."""
    change, back = requests[batch]
    play(ours, back)
    settled(ours)
    before = metric(ours, "rollcall_registry_flips_total")
    player = generator("play", "-c", 8, "-r", rate / batch, "-l", seconds + 0.1, "127.0.0.1", ours.http, change)
    found = load(ours, file, seconds)
    played = finish(player, seconds)
    if played["refused"]:
        raise SystemExit(f"{ours.title} refused changes: {played}")
    found["published"] = (metric(ours, "rollcall_registry_flips_total") - before) / played["seconds"]
    return found
