"""Prometheus: dns_sd, http_sd and consul_sd find the live targets and drop the one that is killed.

Debian builds its Prometheus without consul_sd, so that part is Prometheus from the Go module proxy. consul_sd lists critical instances by design; relabelling on `__meta_consul_health` keeps those that pass."""

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from harness.ask import Http
from harness.processes import Process, build_tool
from harness.report import Report
from harness.targets import Scene, until

# As shipped by Debian: built without consul_sd.
DEBIANS = """
global: {{scrape_interval: 1s, scrape_timeout: 1s}}
scrape_configs:
- job_name: dns_sd
  dns_sd_configs:
  - {{names: [_web._tcp.service.consul], type: SRV, refresh_interval: 1s}}
- job_name: http_sd
  http_sd_configs:
  - {{url: "http://{http}/v1/rollcall/http_sd?service=web&tag=live&passing", refresh_interval: 1s}}
  relabel_configs:
  - {{source_labels: [__meta_rollcall_service_id], target_label: instance_id}}
"""
# Its authors' own, from the Go module proxy, with consul_sd as the only discovery.
UPSTREAMS = """
global: {{scrape_interval: 1s, scrape_timeout: 1s}}
scrape_configs:
- job_name: consul_sd
  consul_sd_configs:
  - {{server: "{http}", services: [web], tags: [live], refresh_interval: 1s}}
  relabel_configs:
  - {{source_labels: [__meta_consul_health], regex: passing, action: keep}}
  - {{source_labels: [__meta_consul_service_id], target_label: instance_id}}
  - {{source_labels: [__meta_consul_service_metadata_build], target_label: build}}
- job_name: consul_sd_all
  consul_sd_configs:
  - {{server: "{http}", refresh_interval: 1s}}
  relabel_configs:
  - {{source_labels: [__meta_consul_service, __meta_consul_health], regex: web;passing, action: keep}}
"""


class Prometheus:
    def __init__(self, scene, program, config, port):
        self._folder = tempfile.TemporaryDirectory(prefix="prometheus-test-")
        folder = Path(self._folder.name)
        (folder / "prometheus.yml").write_text(config.format(http=scene.http))
        host = scene.client
        self.process = Process(host, host.with_etc(
            program, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address={host.address}:{port}"), name="prometheus")
        self.http = Http(host, host.address, port)

    def __enter__(self):
        self.process.wait_line("Server is ready to receive web requests", 30)
        return self

    def __exit__(self, *_):
        if self.process.child.poll() is None:
            self.process.kill()
        self._folder.cleanup()

    def targets(self):
        return self.http.json("/api/v1/targets")["data"]

    def up(self, job):
        """The labels of the targets of a job that are scraped and answer."""
        return [one["labels"] for one in self.targets()["activeTargets"]
                if one["scrapePool"] == job and one["health"] == "up"]

    def active(self, job):
        return sum(one["scrapePool"] == job for one in self.targets()["activeTargets"])


def follows_a_kill(report, scene, prometheus, jobs):
    """Both targets are found and scraped; one is killed, and dropped; it is started again, and found again."""
    first, second = scene.targets
    for job in jobs:
        took = until(lambda job=job: len(prometheus.up(job)) == 2, f"{job}: two targets up", 40)
        report.check(True, f"{job}: both targets found and up ({took:.1f} s)")
    second.kill()
    scene.passing(1)
    for job in jobs:
        took = until(lambda job=job: prometheus.active(job) == 1, f"{job}: the killed target dropped", 40)
        report.check(True, f"{job}: the killed target is dropped ({took:.1f} s)")
        # One that is late for a scrape's timeout is down until the next.
        until(lambda job=job: [one["instance"].rsplit(":", 1)[1] for one in prometheus.up(job)] == [str(first.port)],
              f"{job}: the other one is up, and it alone")
        report.check(True, f"{job}: the other one is scraped on")
    before = first.requests("/metrics")
    until(lambda: first.requests("/metrics") > before + 3, "scrapes go on")
    yield
    second.start()
    for job in jobs:
        until(lambda job=job: len(prometheus.up(job)) == 2, f"{job}: two targets up again", 40)
        report.check(True, f"{job}: started again, it is scraped again")


def consul_sd(report):
    """Upstream's Prometheus with consul_sd, for one service and for all"""
    binary = build_tool("prometheus", "prometheus", "github.com/prometheus/prometheus/cmd/prometheus",
                        "remove_all_sd,enable_consul_sd")
    with Scene() as scene, Prometheus(scene, binary, UPSTREAMS, 9091) as prometheus:
        second = scene.targets[1]
        until(lambda: len(prometheus.up("consul_sd")) == 2, "two targets up", 40)
        found = sorted((one["instance"], one["instance_id"], one["build"]) for one in prometheus.up("consul_sd"))
        report.equal(found, [(one.endpoint, one.name, "7") for one in scene.targets],
                     "consul_sd: address, ID and meta became labels")
        for _ in follows_a_kill(report, scene, prometheus, ("consul_sd", "consul_sd_all")):
            dropped = [one["discoveredLabels"] for one in prometheus.targets()["droppedTargets"]]
            report.equal([one["__meta_consul_health"] for one in dropped if one.get("job") == "consul_sd"
                          and one["__meta_consul_service_id"] == second.name], ["critical"],
                         "consul_sd: the killed one is still listed, as critical, and relabelled away")
        prometheus.process.kill()
        scene.log.compare(report, "prometheus-consul_sd", agent="Go-http-client/",
                          addresses=scene.client.addresses)


def debians(report):
    """Debian's Prometheus with dns_sd over SRV and http_sd"""
    with Scene() as scene, Prometheus(scene, "/usr/bin/prometheus", DEBIANS, 9090) as prometheus:
        for _ in follows_a_kill(report, scene, prometheus, ("dns_sd", "http_sd")):
            pass
        report.equal(sorted(one["instance_id"] for one in prometheus.up("http_sd")), ["web-1", "web-2"], "http_sd: the ID became a label")
        prometheus.process.kill()
        scene.log.compare(report, "prometheus-debian", dns_from=scene.client, agent="Prometheus/", addresses=scene.client.addresses)


if __name__ == "__main__":
    Report("prometheus").run(consul_sd, debians)
