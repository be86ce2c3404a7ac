"""The Ferret sample against the real server: `run.py CASES.jsonl.gz`.

One Rollcall serves the zones of all cases; each case is asked over UDP, and over TCP when the answer is truncated.
Prints what differs, then `N passed, N failed`."""

import re
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path

import dns.flags
import dns.message
import dns.query

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "clients"))

from cases import load
from harness.processes import ROLLCALL, Process


class Here:
    """This machine's loopback, as a host of the harness."""

    def inside(self):
        return nullcontext()


def serve(folder, zones):
    """Starts Rollcall with these zones (origin and text); gives the process and its DNS port."""
    config = []
    for number, (origin, text) in enumerate(zones):
        (folder / f"{number}.zone").write_text(text)
        # Names as TOML literals: backslashes stay what they are.
        config.append(f"[[zone]]\nname = '{origin}'\nfile = '{folder}/{number}.zone'\n")
    (folder / "rollcall.toml").write_text("\n".join(config))
    command = [ROLLCALL, "serve", "--config", folder / "rollcall.toml", "--ephemeral",
               "--dns", "127.0.0.1:0", "--http", "127.0.0.1:0"]
    process = Process(Here(), command, env={"HOME": str(folder)}, name="rollcall")
    process.wait_line("ready", timeout=60)
    port = re.search(r"DNS on 127\.0\.0\.1:(\d+)", "\n".join(text for _, text in process.lines))
    return process, int(port.group(1))


def ask(name, kind, port):
    query = dns.message.make_query(name, kind, flags=0)
    answer = dns.query.udp(query, "127.0.0.1", port=port, timeout=10, one_rr_per_rrset=True)
    if answer.flags & dns.flags.TC:
        answer = dns.query.tcp(query, "127.0.0.1", port=port, timeout=10, one_rr_per_rrset=True)
    return answer


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: run.py CASES.jsonl.gz")
    cases = load(sys.argv[1])
    passed, failed = 0, 0
    with tempfile.TemporaryDirectory(prefix="ferret-") as folder:
        try:
            _, port = serve(Path(folder), [(case.origin, case.zone_text()) for case in cases])
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
