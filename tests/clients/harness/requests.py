"""What a client asked, by the server's own log, and the fixtures that keep it: one file a client, a line a kind of call.

A client that begins to call something else, or stops calling something, shows as a difference and fails, until the
fixture is written anew: `run.py --update-fixtures`."""

import difflib
import json
import re
import sys
import time
from pathlib import Path
from urllib.parse import unquote

from .ask import TESTS_AGENT

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures"
# The server's log for the tests: each HTTP request and each DNS query, beside what it says anyway.
LOG_LEVEL = "info,rollcall::http::request_log=debug,rollcall::dns::query_log=trace"
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_VERSION = re.compile(r"/v?\d+(\.\d+)+\S*")


class Requests:
    """Reads the log of a server that was started with `requests=True`."""

    def __init__(self, server):
        self.server = server

    def http(self):
        """The requests of HTTP that were answered or given up, but for the test's own, in their order."""
        return [one for one in self._lines("rollcall::http::request_log") if one["user_agent.original"] != TESTS_AGENT]

    def dns(self, client):
        """(type, name) of the queries that came from this host."""
        named = [one for one in self._lines("rollcall::dns::query_log") if "dns.question.name" in one]
        return [(one["dns.question.type"], unquote(one["dns.question.name"]).lower()) for one in named
                if one["client.address"] in client.addresses]

    def _lines(self, target):
        for process in self.server.processes:
            for _, text in list(process.lines):
                if text.startswith("{") and target in text:
                    line = json.loads(text)
                    if line.get("log.logger") == target:
                        yield line

    def wait(self, holds, what, patience=10.0):
        """Waits until a request was logged for which this holds: a line is written when its answer is."""
        deadline = time.monotonic() + patience
        while not any(holds(one) for one in self.http()):
            if time.monotonic() > deadline:
                raise AssertionError(f"the server's log never had {what}; it had:\n" + "\n".join(self.calls()))
            time.sleep(0.02)

    def _settled(self, patience=10.0):
        """Waits until nobody but the test itself is connected: a client that was ended with reads under way has them in
        the log when the server has seen it go."""
        if self.server.process.child.poll() is not None:
            return
        deadline = time.monotonic() + patience
        while b"\nrollcall_http_connections 1\n" not in self.server.http.get("/metrics").body:
            if time.monotonic() > deadline:
                raise AssertionError("clients are still connected: end them before what they called is compared")
            time.sleep(0.02)

    def _logged(self, wanted, dns_from, patience=5.0):
        """The calls when nothing of what is wanted is missing any more: a client may have ended before the line of its last call
        was written and read."""
        deadline = time.monotonic() + patience
        while not set(wanted) <= set(found := self.calls(dns_from)) and time.monotonic() < deadline:
            time.sleep(0.02)
        return found

    def calls(self, dns_from=None):
        """A line for each kind of call, sorted: what is different each time (versions, ids, values) is left out."""
        lines = {f"{_plain_agent(one['user_agent.original'])} {one['http.request.method']} {_plain_path(one['url.path'])}{_keys(one['url.query'])}"
                 for one in self.http()}
        if dns_from is not None:
            lines |= {f"DNS {kind} {name}" for kind, name in self.dns(dns_from)}
        return sorted(lines)

    def compare(self, report, client, dns_from=None, agent=None, addresses=("127.0.0.1",), settled=True):
        """That this client called what its fixture says, and nobody else called. `agent`: how its User-Agent begins;
        `addresses`: where its requests come from (None: not looked at); `dns_from`: the host that its DNS queries come
        from; `settled`: whether to wait until its connections have ended."""
        if agent is not None:
            made = [(one["user_agent.original"], one.get("client.address")) for one in self.http()]
            others = {one for one in made if not one[0].startswith(agent) or addresses and one[1] not in addresses}
            report.check(made and not others, f"the server's log has {len(made)} requests of {client}",
                         f"and others: {others}")
        if dns_from is not None:
            asked = len(self.dns(dns_from))
            report.check(asked > 0, f"the server's log has {asked} DNS queries of {client}")
        if settled:
            self._settled()
        file = FIXTURES / f"{client}.txt"
        kept = file.read_text().splitlines() if file.is_file() else []
        found = self._logged(kept, dns_from)
        if "--update-fixtures" in sys.argv:
            FIXTURES.mkdir(exist_ok=True)
            file.write_text("".join(line + "\n" for line in found))
            kept = found
        shown = "\n".join(difflib.unified_diff(kept, found, f"fixtures/{client}.txt", "what it called", lineterm=""))
        report.check(found and found == kept, f"{client} made the {len(found)} kinds of call of its fixture, no other",
                     f"after a look, take them over with --update-fixtures\n{shown}")


def _plain_agent(agent):
    return _VERSION.sub("/VERSION", agent).replace(" ", "_") or "-"


def _plain_path(path):
    return _UUID.sub("{uuid}", path)


def _keys(query):
    keys = sorted({pair.split("=", 1)[0] for pair in query.split("&") if pair})
    return " ?" + "&".join(keys) if keys else ""
