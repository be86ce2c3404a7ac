"""What DNS has to say while faults come and go, and a watch that asks all the time and holds every answer to it.

A wrong answer is: an instance that was already known to be dead; a live one that can be reached and is not given; a code other than
NOERROR for a name that is registered, or other than NXDOMAIN for one that nobody registered; a TTL above the ceiling; no answer."""

import threading
import time
from collections import Counter
from contextlib import contextmanager

import dns.rcode

from harness.ask import Dns, addresses, records


class Truth:
    """Of a name: addresses that have to be in an answer, and those that must not. Others may be (what is changing right now)."""

    def __init__(self, must=(), never=()):
        self.must, self.never = set(must), set(never)

    def wrong(self, answer, ceiling):
        if answer.rcode() != dns.rcode.NOERROR:
            return [dns.rcode.to_text(answer.rcode())]
        got = set(addresses(answer))
        found = [f"{one} is dead and was given" for one in sorted(got & self.never)]
        found += [f"{one} is alive and was not given" for one in sorted(self.must - got)]
        found += [f"a TTL of {ttl}" for _, ttl, _ in records(answer.answer, "A") if ttl > ceiling]
        return found


class Unknown:
    """Of a name that nobody registered."""

    @staticmethod
    def wrong(answer, _):
        return [] if answer.rcode() == dns.rcode.NXDOMAIN else [f"{dns.rcode.to_text(answer.rcode())} for a name that is not there"]


class Watch(threading.Thread):
    """Asks for each name in turn from the server's own host, where no fault is between them."""

    def __init__(self, host, ceiling, port=8600):
        super().__init__(daemon=True)
        self.dns, self.ceiling = Dns(host, port=port), ceiling
        self.truths, self.lock, self.over = {}, threading.Lock(), threading.Event()
        self.judged, self.wrongs, self.paused = 0, Counter(), False
        self.start()

    def run(self):
        while not self.over.wait(0.004):
            for name in list(self.truths):
                # The truth does not change between a question and its answer.
                with self.lock:
                    if not self.paused:
                        self.judge(name)

    def judge(self, name):
        try:
            answer = self.dns.ask(name, "A", timeout=1)
            found = self.truths[name].wrong(answer, self.ceiling)
        except (TimeoutError, OSError) as error:
            found = [f"no answer ({type(error).__name__})"]
        self.judged += 1
        for what in found:
            self.wrongs[f"{name} {what}"] += 1

    def hold(self, name, truth):
        with self.lock:
            self.truths[name] = truth

    @contextmanager
    def pause(self):
        """While the server itself is not there."""
        with self.lock:
            self.paused = True
        yield
        with self.lock:
            self.paused = False

    def more(self, count, patience=20.0):
        """Waits until so many more answers were judged."""
        wanted, deadline = self.judged + count, time.monotonic() + patience
        while self.judged < wanted:
            if time.monotonic() > deadline:
                raise AssertionError(f"{count} answers took longer than {patience} s")
            time.sleep(0.01)

    def end(self):
        self.over.set()
        self.join()
