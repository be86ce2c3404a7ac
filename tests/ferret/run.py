"""The Ferret sample against the real server: `run.py CASES.jsonl.gz`.

One Rollcall serves the zones of all cases; each case is asked over UDP, and over TCP when the answer is truncated.
Prints what differs, then `N passed, N failed`."""

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "clients"))

from cases import load
from harness.processes import Process
from servers import ask, rollcall, write


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: run.py CASES.jsonl.gz")
    cases = load(sys.argv[1])
    passed, failed = 0, 0
    with tempfile.TemporaryDirectory(prefix="ferret-") as folder:
        folder = Path(folder)
        try:
            port = rollcall(folder, write(folder, [(case.origin, case.zone_text()) for case in cases]))
            for case in cases:
                wrong = case.differences(ask(case.name, case.kind, port))
                passed, failed = passed + (not wrong), failed + bool(wrong)
                for line in wrong:
                    print(f"{case.id}: {line}")
        finally:
            Process.end_all()
    print(f"{passed} passed, {failed} failed")
    sys.exit(0 if failed == 0 and passed > 0 else 1)


if __name__ == "__main__":
    main()
