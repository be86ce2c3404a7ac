"""Debian's Knot as the other real DNS server of a test."""

import tempfile
import time
from pathlib import Path

from .ask import Dns
from .processes import Process


class Knot:
    """knotd on a host's first address, port 53, serving `zones` (name to master file text)."""

    def __init__(self, host, zones):
        self._folder = tempfile.TemporaryDirectory(prefix="knot-test-")
        folder = Path(self._folder.name)
        lines = ["server:", f"    rundir: {folder}", "    udp-workers: 1", "    tcp-workers: 1",
                 f"    listen: {host.address}@53", "database:", f"    storage: {folder}/db",
                 "log:", "  - target: stdout", "    any: warning", "template:", "  - id: default",
                 f"    storage: {folder}", "zone:"]
        for name, text in zones.items():
            (folder / f"{name}.zone").write_text(text)
            lines += [f"  - domain: {name}", f"    file: {name}.zone"]
        config = folder / "knot.conf"
        config.write_text("\n".join(lines) + "\n")
        self.process = Process(host, ["knotd", "-c", config], name="knotd")
        dns = Dns(host, host.address, 53)
        deadline = time.monotonic() + 20
        for name in zones:
            while True:
                try:
                    if dns.ask(name, "SOA", timeout=0.5).answer:
                        break
                except (ConnectionRefusedError, TimeoutError):
                    pass
                if time.monotonic() > deadline:
                    raise AssertionError(f"knotd does not serve {name}: {self.process.tail()}")
                time.sleep(0.02)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self._folder.cleanup()
