"""consul-template, built from the Go module proxy: it renders services and their healthy instances to a file, and
renders again when one is killed."""

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from harness.processes import Process, build_tool
from harness.report import Report
from harness.targets import Scene, until

TEMPLATE = Path(__file__).resolve().parent / "services.ctmpl"


def killed_target(report):
    """A template of services, instances and nodes; one of two targets is killed"""
    binary = build_tool("template", "consul-template", "github.com/hashicorp/consul-template")
    with Scene() as scene, tempfile.TemporaryDirectory(prefix="template-test-") as folder:
        first, second = scene.targets
        rendered = Path(folder) / "services.txt"
        process = Process(scene.client, [binary, f"-consul-addr={scene.http}", f"-template={TEMPLATE}:{rendered}"],
                          name="consul-template")

        def lines(word):
            text = rendered.read_text() if rendered.is_file() else ""
            return [line.split(" ", 1)[1] for line in text.splitlines() if line.startswith(word + " ")]

        def healthy(target):
            return f"{target.name} {target.endpoint} passing build=7 on 192.0.2.31"

        until(lambda: lines("healthy") or process.child.poll() is not None, "consul-template has rendered")
        if not lines("healthy"):
            raise AssertionError(f"consul-template ended: {process.tail()}")
        report.equal(lines("healthy"), [healthy(first), healthy(second)], "both targets are rendered, with port and meta")
        report.equal(lines("datacenter"), ["dc1"], "and the datacenter")
        report.check("web live" in lines("service"), "and the service with its tag", lines("service"))
        report.equal(lines("this"), ["n1"], "and the node that was asked for by name")
        report.check("192.0.2.31 192.0.2.31" in lines("node"), "and the nodes", lines("node"))
        report.equal(sorted(lines("any")), ["web-1 passing", "web-2 passing"], "and the instances by tag, whatever their status")

        second.kill()
        took = until(lambda: lines("healthy") == [healthy(first)], "the killed target is gone from the file")
        report.check(True, f"killed, it is rendered out ({took:.1f} s)")
        until(lambda: sorted(lines("any")) == ["web-1 passing", "web-2 critical"], "the list of any status has it")
        report.check(True, "where any status was asked for it is critical")
        second.start()
        until(lambda: len(lines("healthy")) == 2, "started again, it is in the file again")
        report.check(True, "started again, it is rendered again")
        process.kill()
        scene.log.compare(report, "consul-template", agent="Go-http-client/", addresses=scene.client.addresses)


if __name__ == "__main__":
    Report("template").run(killed_target)
