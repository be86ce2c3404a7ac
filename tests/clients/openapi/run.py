"""The OpenAPI document as a real client reads it: schemathesis asks a running server all that the document allows and much
that it does not. No status and no content type that is not in the document, no answer of another shape, and no 5xx but
those that are named, with their texts."""

import json
import os
import re
import subprocess
import sys
import tempfile
import urllib.request
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
BUILD = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "clients"
ROLLCALL = Path(os.environ.get("ROLLCALL_BIN", BUILD.parent / "release" / "rollcall"))
WANTED = (HERE / "requirements.txt").read_text()
SECONDS = int(os.environ.get("FUZZ_SECONDS", "90"))
# The end of the server, and answers without an end.
LEFT_OUT = ["/v1/agent/leave", "/v1/rollcall/events", "/v1/agent/monitor", "/v1/agent/metrics/stream"]
CHECKS = ["status_code_conformance", "content_type_conformance", "response_headers_conformance",
          "response_schema_conformance", "unsupported_method", "allow_header_conformance", "server_errors_are_named"]
REQUESTS_MIN = 2000


def fuzzer():
    """The program, in an environment of its own that holds what requirements.txt names."""
    place = BUILD / "schemathesis"
    mark = place / "requirements.txt"
    if not mark.exists() or mark.read_text() != WANTED:
        venv.create(place, clear=True, with_pip=True)
        subprocess.run([place / "bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
                        "-r", HERE / "requirements.txt"], check=True)
        mark.write_text(WANTED)
    return place / "bin/st"


def get(url):
    with urllib.request.urlopen(url, timeout=30) as answer:
        return answer.read().decode()


def answered(url):
    """How many requests the server has answered, by its own count."""
    lines = get(f"{url}/metrics").splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("rollcall_http_requests_total"))


def main():
    failed = []

    def check(holds, what):
        print(("ok    " if holds else "FAIL  ") + what, flush=True)
        if not holds:
            failed.append(what)

    program = fuzzer()
    with tempfile.TemporaryDirectory() as scratch:
        words = ["serve", "--data-dir", f"{scratch}/data", "--node", "n1", "--http", "127.0.0.1:0", "--dns", "127.0.0.1:0",
                 "--log-level", "error"]
        server = subprocess.Popen([ROLLCALL, *words], stdout=subprocess.PIPE, text=True)
        try:
            url = None
            for line in server.stdout:
                if found := re.match(r"listening for HTTP on (\S+)", line):
                    url = f"http://{found[1]}"
                if line == "ready\n":
                    break
            served = json.loads(get(f"{url}/v1/rollcall/openapi.json"))
            check(served == json.loads((ROOT / "docs/openapi.json").read_text()), "the server has the committed document")
            before = answered(url)
            words = ["run", str(ROOT / "docs/openapi.json"), "--url", url, "--checks", ",".join(CHECKS), "--seed", "1",
                     "--max-time", str(SECONDS), "--request-timeout", "20", "--suppress-health-check", "all",
                     "--warnings", "off", "--no-color"]
            for path in LEFT_OUT:
                words += ["--exclude-path", path]
            run = subprocess.run([program, *words], cwd=scratch, env={
                **os.environ, "PYTHONPATH": str(HERE), "SCHEMATHESIS_HOOKS": "hooks"}, check=False)
            check(run.returncode == 0, "schemathesis finds nothing")
            asked = answered(url) - before
            check(asked >= REQUESTS_MIN, f"it asked {asked:.0f} requests, {REQUESTS_MIN} at least")
            check(get(f"{url}/ready") == "ready\n" and server.poll() is None, "the server goes on")
        finally:
            server.terminate()
            status = server.wait(30)
        check(status == 0, "and ends cleanly")
    print(f"openapi: {len(failed)} failed")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
