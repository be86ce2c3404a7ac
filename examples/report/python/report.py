"""Calls a service that is found by DNS, and reports how the requests ended: `report.py SERVICE REQUESTS-PER-SECOND`.

`Reporter` needs the standard library alone; the caller below it needs dnspython."""

import json
import os
import random
import sys
import threading
import time
import urllib.error
import urllib.request

EVERY = 1.0  # seconds between batches
WAIT_MAX = 30.0
INSTANCES_MAX = 1000  # in a batch, and kept; Rollcall takes as many
REQUESTS_MAX = 1_000_000  # in one report


class Reporter:
    """Counts requests and reports them from a thread of its own."""

    def __init__(self, server, token=""):
        self.server, self.token = server.rstrip("/"), token
        self.counts, self.lock, self.over = {}, threading.Lock(), threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def record(self, service, address, port, ok):
        self._add({(service, address, port): [1, 0] if ok else [0, 1]})

    def close(self):
        """Sends what is left, once."""
        self.over.set()
        self.thread.join()

    def _add(self, counts):
        with self.lock:
            for instance, (good, bad) in counts.items():
                if instance in self.counts or len(self.counts) < INSTANCES_MAX:
                    own = self.counts.setdefault(instance, [0, 0])
                    own[0] = min(own[0] + good, REQUESTS_MAX // 2)
                    own[1] = min(own[1] + bad, REQUESTS_MAX // 2)

    def _run(self):
        failed = 0
        while not self.over.wait(self._pause(failed)):
            failed = 0 if self._send() else failed + 1
        self._send()

    def _pause(self, failed):
        if not failed:
            return EVERY
        pause = min(EVERY * 2 ** min(failed, 10), WAIT_MAX) * random.uniform(0.5, 1.0)
        print(f"reporting failed {failed} times, again in {pause:.1f} s", flush=True)
        return pause

    def _send(self):
        """Whether there is nothing left to send."""
        with self.lock:
            counts, self.counts = self.counts, {}
        if not counts:
            return True
        reports = [{"Service": service, "Address": address, "Port": port, "Success": good, "Failure": bad}
                   for (service, address, port), (good, bad) in counts.items()]
        request = urllib.request.Request(
            f"{self.server}/v1/rollcall/report", method="PUT", data=json.dumps({"Reports": reports}).encode(),
            headers={"X-Consul-Token": self.token} if self.token else {})
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                answer.read()
        except urllib.error.HTTPError as error:
            if error.code != 429 and error.code < 500:
                print(f"refused: {error.code} {error.read().decode()}", flush=True)
                return True
            self._add(counts)
            return False
        except OSError:
            self._add(counts)
            return False
        return True


def main():
    import dns.exception
    import dns.rdatatype
    import dns.resolver

    service, rate = sys.argv[1], float(sys.argv[2])
    resolver = dns.resolver.Resolver(configure=False)
    server, port = os.environ.get("ROLLCALL_DNS", "127.0.0.1:8600").rsplit(":", 1)
    resolver.nameservers, resolver.port = [server], int(port)
    reporter = Reporter(os.environ.get("ROLLCALL_HTTP_ADDR", "http://127.0.0.1:8500"), os.environ.get("ROLLCALL_HTTP_TOKEN", ""))

    def find():
        """One instance, by the records' weights (RFC 2782); the targets' addresses come along with them."""
        answer = resolver.resolve(f"_{service}._tcp.service.internal.", "SRV", lifetime=2)
        [record] = random.choices(list(answer), weights=[max(one.weight, 1) for one in answer])
        for extra in answer.response.additional:
            if extra.name == record.target and extra.rdtype == dns.rdatatype.A:
                return extra[0].address, record.port
        return resolver.resolve(record.target, "A", lifetime=2)[0].address, record.port

    failed = 0
    while True:
        time.sleep(1 / rate if not failed else min(2.0 ** min(failed, 5) / rate, 1.0) * random.uniform(0.5, 1.5))
        try:
            address, port = find()
        except dns.exception.DNSException as error:
            failed += 1
            print(f"not found: {type(error).__name__}", flush=True)
            continue
        try:
            with urllib.request.urlopen(f"http://{address}:{port}/", timeout=2) as answer:
                answer.read()
            ok = True
        except OSError:
            ok = False
        failed = 0 if ok else failed + 1
        reporter.record(service, address, port, ok)
        print(f"{address}:{port} {'ok' if ok else 'failed'}", flush=True)


if __name__ == "__main__":
    main()
