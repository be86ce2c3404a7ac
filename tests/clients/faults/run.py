"""Faults of networks, clocks, disks and programs, made for real, one at a time. While each lasts, every answer of DNS is held to what
is true; when it is over, all has to be well again within so many probes. A table at the end names for each the evidence that it was
there, the answers that were judged, and how it ended.

The last rows are mutations: the same faults, with checks or a clock that cannot stand them. The watch has to see wrong answers there."""

import errno
import glob
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, contextmanager
from datetime import datetime, timezone
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from harness.ask import Dns, addresses
from harness.hosts import Network
from harness.processes import Process, Rollcall, build_go
from harness.report import Report
from harness.targets import until
from truth import Truth, Unknown, Watch
from wire import Wire

PROGRAM = Path(__file__).resolve().parent.parent / "harness" / "target.py"
PORT, CEILING = 9100, 2
NEAR, FAR = 4, 3
WEB, BEAT, PLAIN, NOBODY = (f"{name}.service.consul." for name in ("web", "beat", "plain", "nobody"))
# A check that stands the loss and the delay below. A target that is found dead three times in a row is out.
STEADY = {"Interval": "1s", "Timeout": "3s", "FailuresBeforeCritical": 2}
# For faults that no check can stand: it is known sooner.
QUICK = {"Interval": "1s", "Timeout": "1s", "FailuresBeforeCritical": 2}
# One that does not stand them: shorter than a retransmission, and the first failure counts.
HASTY = {"Interval": "1s", "Timeout": "150ms"}
COLLECTOR, MANY = "192.0.2.9", 200
# What is dead is out of DNS after so many probes of each instance: three, and those of the others while one waits for an answer.
LOST = 9
# After a fault all is well again within so many probes of each instance.
PROBES = 6

rows = []


class Instance:
    def __init__(self, host, address, number):
        self.host, self.address, self.name = host, address, f"web-{number}"
        self.start()

    def start(self):
        self.process = Process(self.host, [sys.executable, PROGRAM, self.name, self.address, PORT], name=self.name)
        self.process.wait_line("listening")


class Scene:
    """A server; near instances on a plain network, far ones behind a wire that can have faults; a service with a TTL check that somebody
    renews, one without a check; and the watch."""

    def __init__(self, check=STEADY, config="", env=None, first=None):
        """`first`: what is started on the network before the server; `begun` is what it gives."""
        self.check, self.env, self.first, self.begun = check, env, first, None
        self.config = f'[dns]\nttl = "{CEILING}s"\n{config}'

    def __enter__(self):
        self.open = ExitStack()
        network = self.open.enter_context(Network())
        self.network = network
        self.home = network.host("srv", "192.0.2.1")
        near = network.host("near", *(f"192.0.2.{50 + n}" for n in range(NEAR)))
        far = network.host("far", *(f"192.0.2.{70 + n}" for n in range(FAR)))
        self.wire = Wire(network, far)
        if self.first:
            self.begun = self.first(network)
        self.open.callback(self.wire.close)
        self.server = self.open.enter_context(Rollcall(self.home, config=self.config, env=self.env))
        self.near = [Instance(near, address, n) for n, address in enumerate(near.addresses)]
        self.far = [Instance(far, address, NEAR + n) for n, address in enumerate(far.addresses)]
        self.all = self.near + self.far
        http = self.server.http
        for one in self.all:
            http.register(ID=one.name, Name="web", Address=one.address, Port=PORT,
                          Check={"HTTP": f"http://{one.address}:{PORT}/health", **self.check})
        http.register(ID="beat", Name="beat", Address="192.0.2.90", Port=1, Check={"TTL": "3s", "Status": "passing"})
        http.register(ID="plain", Name="plain", Address="192.0.2.91", Port=1)
        self.resolver = Dns(self.home)
        self.shown(self.all)
        self.beating = threading.Event()
        threading.Thread(target=self.beat, daemon=True).start()
        self.watch = Watch(self.home, CEILING)
        self.open.callback(self.watch.end)
        self.open.callback(self.beating.set)
        self.must(self.all)
        for name, truth in ((BEAT, Truth({"192.0.2.90"})), (PLAIN, Truth({"192.0.2.91"})), (NOBODY, Unknown)):
            self.watch.hold(name, truth)
        return self

    def __exit__(self, *error):
        self.beating.set()
        self.watch.end()
        return self.open.__exit__(*error)

    def beat(self):
        while not self.beating.wait(1.5):
            try:
                self.server.http.put("/v1/agent/check/pass/service:beat", timeout=2)
            except OSError:
                pass

    def must(self, alive, dead=()):
        self.watch.hold(WEB, Truth({one.address for one in alive}, {one.address for one in dead}))

    def shown(self, instances, patience=25.0):
        """Waits until DNS gives these and no others; the seconds it took."""
        wanted = sorted(one.address for one in instances)
        return self.resolver.until(WEB, "A", lambda answer: addresses(answer) == wanted, time.monotonic(), patience=patience)[1]

    def metric(self, name):
        """The sum of the series whose line begins so."""
        lines = self.server.http.get("/metrics").body.decode().splitlines()
        found = [float(line.split()[-1]) for line in lines if line.startswith(name)]
        assert found, f"no metric {name}"
        return sum(found)

    def probes(self):
        return self.metric("rollcall_checks_probes_total{")

    def retransmissions(self):
        with self.home.inside():
            # Of the thread's own namespace.
            text = Path(f"/proc/self/task/{threading.get_native_id()}/net/snmp").read_text()
        names, values = (line.split()[1:] for line in text.splitlines() if line.startswith("Tcp:"))
        return int(dict(zip(names, values))["RetransSegs"])

    def lose(self, gone, rest):
        """These are about to be lost, or were just now: they may be in answers until DNS is seen without them, and not after. That has
        to be within so many probes of each."""
        before = self.probes()
        self.must(rest)
        took = self.shown(rest)
        made = (self.probes() - before) / len(self.all)
        assert made <= LOST, f"after {made:.1f} probes of each DNS still had {[one.address for one in gone]}"
        self.must(rest, gone)
        return took

    def back(self):
        """All is to be well again: gives how many probes of each instance that took."""
        before = self.probes()
        self.must([one for one in self.all if one.address in self.watch.truths[WEB].must])
        self.shown(self.all)
        self.must(self.all)
        self.watch.more(200)
        return (self.probes() - before) / len(self.all)


def tell(report, row, scene, evidence, probes, good=True):
    """A row of the table, and what is asserted of each."""
    for what, count in scene.watch.wrongs.most_common(5):
        print(f"      {count} x {what}")
    wrong = scene.watch.wrongs.total()
    report.equal(wrong, 0, f"{row}: none of {scene.watch.judged} answers was wrong")
    report.check(good and probes <= PROBES, f"{row}: all was well again after {probes:.1f} probes of each", f"the bound is {PROBES}")
    rows.append((row, evidence, scene.watch.judged, wrong, f"{probes:.1f} probes of each"))


def kill_and_return(scene, victim):
    """A death while the fault lasts is found all the same. Gives the seconds until DNS had it."""
    rest = [one for one in scene.all if one is not victim]
    scene.must(rest)
    victim.process.kill()
    took = scene.lose([victim], rest)
    scene.watch.more(200)
    return took


def loss(report, check=STEADY):
    """A tenth of all frames to and from the far instances is lost"""
    with Scene(check) as scene:
        before, probed = scene.retransmissions(), scene.probes()
        scene.wire.loss = 0.1
        if check is HASTY:
            until(lambda: scene.watch.wrongs.total() > 0, "a wrong answer", 60)
            return seen(report, "loss", scene, f"{scene.wire.dropped} frames dropped")
        until(lambda: scene.wire.dropped >= 15 and scene.retransmissions() > before + 3, "frames are lost", 60)
        took = kill_and_return(scene, scene.far[0])
        evidence = f"{scene.wire.dropped} of {scene.wire.dropped + scene.wire.passed} frames dropped, {scene.retransmissions() - before} TCP retransmissions"
        report.check(scene.probes() > probed, f"a far instance killed meanwhile is out of DNS after {took:.1f} s")
        scene.wire.heal()
        scene.far[0].start()
        tell(report, "loss of 10 %", scene, evidence, scene.back())


def delay(report, check=STEADY):
    """Each frame to and from the far instances comes 300 to 400 ms late, and not in order"""
    with Scene(check) as scene:
        slow = 'rollcall_checks_probe_duration_seconds_sum{kind="http"}'
        before, number = scene.metric(slow), scene.probes()
        scene.wire.delay, scene.wire.jitter = 0.3, 0.1
        if check is HASTY:
            until(lambda: scene.watch.wrongs.total() > 0, "a wrong answer", 60)
            return seen(report, "delay", scene, f"{scene.wire.delayed} frames delayed")
        until(lambda: scene.wire.delayed >= 60, "frames are late", 30)
        until(lambda: scene.metric(slow) - before > 6, "probes are late", 30)
        took = kill_and_return(scene, scene.far[0])
        evidence = f"{scene.wire.delayed} frames delayed, {scene.metric(slow) - before:.1f} s of probing"
        report.check(scene.probes() > number, f"a far instance killed meanwhile is out of DNS after {took:.1f} s")
        scene.wire.heal()
        scene.far[0].start()
        tell(report, "delay of 0.3 to 0.4 s", scene, evidence, scene.back())


def partition(ways, title):
    def partition(report):
        with Scene(QUICK) as scene:
            before = scene.metric('rollcall_checks_probes_total{kind="http",outcome="timeout"}')
            scene.must(scene.near)
            dropped = scene.wire.dropped
            scene.wire.cut = set(ways)
            took = scene.lose(scene.far, scene.near)
            scene.watch.more(400)
            timeouts = scene.metric('rollcall_checks_probes_total{kind="http",outcome="timeout"}') - before
            report.check(timeouts >= FAR, f"the far instances are out of DNS after {took:.1f} s, by {timeouts:.0f} probes without an answer")
            said = scene.server.http.json("/v1/health/state/critical")[0]["Output"]
            errno_seen = with_errno(scene)
            evidence = f"{scene.wire.dropped - dropped} frames dropped, {timeouts:.0f} probes timed out, {errno_seen} on a connection of our own"
            report.check(scene.wire.dropped > dropped and said != "", f"what the check says: {said[:90]}")
            scene.wire.heal()
            tell(report, f"partition: {title}", scene, evidence, scene.back())
    partition.__doc__ = f"Partition between the server and the far instances: {title}"
    return partition


def with_errno(scene):
    """The errno that a connection of the test's own to a far instance ends with."""

    with scene.home.inside():
        stream = socket.socket()
    stream.settimeout(1)
    try:
        stream.connect((scene.far[0].address, PORT))
        return "no error"
    except TimeoutError:
        return "ETIMEDOUT"
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))
    finally:
        stream.close()


def hangs(report):
    """A far instance is stopped (SIGSTOP): connections to it are made, and nothing is answered"""
    with Scene(QUICK) as scene:
        victim, rest = scene.far[0], scene.near + scene.far[1:]
        scene.must(rest)
        victim.process.stop()
        took = scene.lose([victim], rest)
        scene.watch.more(400)
        state = victim.process.state()
        report.equal(state, "T", f"it is stopped, and out of DNS after {took:.1f} s")
        os.kill(victim.process.pid, signal.SIGCONT)
        tell(report, "an instance that hangs", scene, f"state {state} in /proc", scene.back())


class Clock:
    """The server's clock, which can be set. `monotonic`: the other clock, which nobody can set on a real machine, moves along."""

    def __init__(self, folder, monotonic=False):
        self.file = Path(folder) / "clock"
        self.set(0)
        [library] = glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1")
        self.env = {"LD_PRELOAD": library, "FAKETIME_TIMESTAMP_FILE": str(self.file), "FAKETIME_NO_CACHE": "1",
                    "FAKETIME_DONT_FAKE_MONOTONIC": "0" if monotonic else "1"}

    def set(self, seconds):
        fresh = self.file.with_suffix(".new")
        fresh.write_text(f"{seconds:+d}\n")
        fresh.rename(self.file)


def clock_of(scene):
    """How far the server's clock is ahead, by the time that its metrics have."""
    told = scene.server.http.json("/v1/agent/metrics")["Timestamp"]
    return datetime.strptime(told, "%Y-%m-%d %H:%M:%S +0000 UTC").replace(tzinfo=timezone.utc).timestamp() - time.time()


DAY = 86400


def clock(report, monotonic=False):
    """The server's clock goes a day forward, then two back"""
    with tempfile.TemporaryDirectory(prefix="faults-clock-") as folder:
        fake = Clock(folder, monotonic)
        with Scene(env=fake.env) as scene:
            steps = []
            index = int(scene.server.http.get("/v1/catalog/services").headers["X-Consul-Index"])
            fake.set(DAY)
            until(lambda: abs(clock_of(scene) - DAY) < 5, "the server's clock is a day ahead", 10)
            if monotonic:
                scene.watch.more(1500)
                return seen(report, "clock", scene, "both clocks of the server set a day forward")
            steps.append(clock_of(scene))
            scene.watch.more(1500)
            took = kill_and_return(scene, scene.near[0])
            report.check(True, f"a day ahead: an instance that is killed is out of DNS after {took:.1f} s")
            scene.near[0].start()
            scene.back()
            scene.server.http.register(ID="lapse", Name="lapse", Address="192.0.2.92", Port=1, Check={"TTL": "3s", "Status": "passing"})
            fake.set(-DAY)
            until(lambda: abs(clock_of(scene) + DAY) < 5, "the server's clock is a day behind", 10)
            steps.append(clock_of(scene))
            gone = scene.resolver.until("lapse.service.consul.", "A", lambda answer: addresses(answer) == [], time.monotonic())[1]
            report.check(True, f"a day behind: a TTL check of 3 s that nobody renews expires after {gone:.1f} s")
            scene.watch.more(1500)
            took = kill_and_return(scene, scene.far[0])
            report.check(True, f"a day behind: an instance that is killed is out of DNS after {took:.1f} s")
            fake.set(0)
            until(lambda: abs(clock_of(scene)) < 5, "the server's clock is right again", 10)
            scene.far[0].start()
            probes = scene.back()
            later = int(scene.server.http.get("/v1/catalog/services").headers["X-Consul-Index"])
            report.check(later > index, f"the index went from {index} to {later}")
            tell(report, "steps of the clock", scene, "its time was off by " + ", ".join(f"{step:+.0f} s" for step in steps), probes)


@contextmanager
def small_disk(size="24m"):
    """The folder of a disk of its own, on which temporary files are made meanwhile."""
    with tempfile.TemporaryDirectory(prefix="faults-disk-") as folder:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
        former, tempfile.tempdir = tempfile.tempdir, folder
        try:
            yield Path(folder)
        finally:
            tempfile.tempdir = former
            subprocess.run(["umount", "-l", folder], check=True)


def fill(folder):
    """Fills the disk; gives the errno that ended it."""
    with open(folder / "filler", "wb", buffering=0) as filler:
        try:
            while True:
                filler.write(bytes(65536))
        except OSError as error:
            return error.errno


def full_disk(report):
    """The server's disk is full: what cannot be kept is refused, and the dead leave all the same"""
    with small_disk() as disk, Scene() as scene:
        http = scene.server.http
        kept, refused = [], []
        number = fill(disk)
        report.equal(number, errno.ENOSPC, "the disk takes nothing more")
        for n in range(4000):
            name = f"late-{n}"
            status = http.put("/v1/agent/service/register", {"Name": name, "Address": "192.0.2.93", "Port": 1, "Meta": {"x": "y" * 500}}).status
            (kept if status == 200 else refused).append(name)
            if status != 200:
                report.equal(status, 503, f"a registration is refused, after {n} that still had room")
                break
        errors = scene.metric("rollcall_store_errors_total ")
        report.check(errors > 0 and scene.metric("rollcall_store_writable ") == 0, f"{errors:.0f} errors of the store, and it says it cannot write")
        # What was refused is not there; what was kept is.
        scene.watch.hold(f"{refused[0]}.service.consul.", Unknown)
        if kept:
            scene.watch.hold(f"{kept[-1]}.service.consul.", Truth({"192.0.2.93"}))
        took = kill_and_return(scene, scene.near[0])
        report.check(True, f"an instance that is killed meanwhile is out of DNS after {took:.1f} s")
        scene.watch.more(400)
        (disk / "filler").unlink()
        until(lambda: http.put("/v1/agent/service/register", {"Name": "after", "Address": "192.0.2.94", "Port": 1}).status == 200, "it takes registrations again")
        scene.watch.hold("after.service.consul.", Truth({"192.0.2.94"}))
        scene.near[0].start()
        probes = scene.back()
        with scene.watch.pause():
            scene.server.kill()
            scene.server.start()
        there = set(http.json("/v1/catalog/services"))
        lost = [name for name in [*kept, "after", "web"] if name not in there]
        report.check(not lost and refused[0] not in there, f"after a SIGKILL all {len(kept)} that were acknowledged are there, and none that was refused", lost)
        scene.watch.more(400)
        tell(report, "a full disk", scene, f"{errno.errorcode[number]}, {errors:.0f} errors of the store, 503", probes)


def collector(report):
    """Traces go to a collector that is stopped (SIGSTOP): its receiver takes connections and answers nothing"""
    program = build_go(".", "otlp-collector", module="traces/collector")
    with tempfile.TemporaryDirectory(prefix="faults-traces-") as folder:
        spans = Path(folder) / "spans.jsonl"

        def start(network):
            host = network.host("col", COLLECTOR)
            words = [program, "-grpc", f"{COLLECTOR}:4317", "-http", f"{COLLECTOR}:4318", "-out", spans]
            process = Process(host, words, name="collector")
            process.wait_line("ready", 20)
            return process

        config = f'[telemetry]\notlp_endpoint = "http://{COLLECTOR}:4318"\n[limits]\ntrace_spans_max = 512\n'
        with Scene(config=config, first=start) as scene:
            exported, full = (f'rollcall_traces_spans_total{{outcome="{outcome}"}}' for outcome in ("exported", "queue full"))
            before = statistics.median(registrations(scene) for _ in range(3))
            until(lambda: scene.metric(exported) > 0, "spans are exported")
            state = scene.begun.stop()
            report.equal(state, "T", "the collector is stopped")
            rounds = 0
            while scene.metric(full) == 0 and rounds < 20:
                registrations(scene)
                rounds += 1
            # Where somebody waits for a place, all do from now on: a median of three shows it, and forgives one bad moment.
            during = statistics.median(registrations(scene) for _ in range(3))
            lost = scene.metric(full)
            report.check(lost > 0, f"{lost:.0f} spans had no place any more, and are counted")
            report.check(during < 4 * before, f"{MANY} registrations take {during / before:.2f} of what they took before")
            took = kill_and_return(scene, scene.near[0])
            report.check(True, f"an instance that is killed meanwhile is out of DNS after {took:.1f} s")
            sent, size = scene.metric(exported), spans.stat().st_size
            os.kill(scene.begun.pid, signal.SIGCONT)
            scene.near[0].start()
            probes = scene.back()
            until(lambda: scene.metric(exported) > sent and spans.stat().st_size > size, "spans arrive again", 40)
            tell(report, "a collector that hangs", scene, f"state {state} in /proc, {lost:.0f} spans lost and counted", probes)


def registrations(scene):
    """The seconds that many registrations take."""
    begun = time.monotonic()
    for number in range(MANY):
        scene.server.http.register(ID=f"traced-{number % 10}", Name="traced", Port=1 + number, Address="192.0.2.95")
    return time.monotonic() - begun


def seen(report, row, scene, evidence):
    """Of a mutation: the watch sees wrong answers."""
    wrong = scene.watch.wrongs
    report.check(wrong.total() > 0, f"{row}, mutated: {wrong.total()} wrong answers are seen, such as {next(iter(wrong), None)}")
    rows.append((f"mutated: {row}", evidence, scene.watch.judged, wrong.total(), "(as it has to be)"))


def mutated(report):
    """The same faults, with checks and a clock that do not stand them: the rows above would fail"""
    loss(report, HASTY)
    delay(report, HASTY)
    clock(report, monotonic=True)


def table(report):
    """What there was"""
    head = ("fault", "evidence", "answers", "wrong", "well again after")
    widths = [max(len(str(row[n])) for row in [head, *rows]) for n in range(len(head))]
    for row in [head, *rows]:
        print("  " + "  ".join(str(cell).ljust(width) for cell, width in zip(row, widths)).rstrip())
    report.check(len(rows) >= 11, f"{len(rows)} rows", rows)


if __name__ == "__main__":
    cases = [loss, delay, partition({"in", "out"}, "no frame passes"), partition({"out"}, "what they answer is lost"),
             hangs, clock, full_disk, collector, mutated, table]
    # run.py NAME...: these alone.
    Report("faults").run(*(case for case in cases if len(sys.argv) == 1 or case.__name__ in sys.argv))
