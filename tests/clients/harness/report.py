"""What a client's test prints: a line for each thing it looked at, and a verdict."""

import signal
import sys
import time
import traceback

from .processes import Process


class Report:
    def __init__(self, client):
        self.client = client
        self.good = 0
        self.bad = 0
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

    def check(self, holds, what, detail=""):
        """One thing looked at; `detail` is printed when it does not hold."""
        if holds:
            self.good += 1
            print(f"ok    {what}", flush=True)
        else:
            self.bad += 1
            print(f"FAIL  {what}" + (f": {detail}" if detail != "" else ""), flush=True)
        return holds

    def equal(self, got, wanted, what):
        return self.check(got == wanted, what, f"got {got!r}, wanted {wanted!r}")

    def within(self, seconds, bound, what):
        """A time that was measured, printed either way."""
        return self.check(seconds < bound, f"{what}: {seconds * 1000:.0f} ms", f"the bound is {bound * 1000:.0f} ms")

    def program(self, process, timeout=60.0):
        """Takes over the `ok    …` and `FAIL  …` lines of a client program, which must exit 0 and print at least one."""
        try:
            status = process.wait(timeout)
        except AssertionError as error:
            self.check(False, process.name, error)
            return
        seen = 0
        for _, text in process.lines:
            if text.startswith(("ok    ", "FAIL  ")):
                seen += 1
                self.check(text.startswith("ok"), text[6:])
            else:
                print(f"      {text}")
        self.check(status == 0 and seen > 0, f"{process.name} ran to its end", f"exit status {status}, {seen} checks")

    def run(self, *cases):
        """Runs each case; one that raises is a failure and does not keep the rest from running. Exits."""
        try:
            for case in cases:
                title = (case.__doc__ or case.__name__).split("\n")[0].rstrip(".")
                print(f"{self.client}: {title}", flush=True)
                started = time.monotonic()
                try:
                    case(self)
                except Exception as error:
                    self.check(False, f"{case.__name__} ({time.monotonic() - started:.1f} s in)", error)
                    traceback.print_exc()
                finally:
                    Process.end_all()
        finally:
            Process.end_all()
        print(f"{self.client}: {self.good} ok, {self.bad} failed", flush=True)
        sys.exit(0 if self.bad == 0 and self.good > 0 else 1)
