"""py-consul, through its whole discovery surface, against a server on this machine with two live targets of `web`.

    consul_client.py HOST PORT"""

import sys

import consul
from consul import exceptions

failed = 0


def equal(got, wanted, what):
    global failed
    if got == wanted:
        print(f"ok    {what}", flush=True)
    else:
        failed += 1
        print(f"FAIL  {what}: got {got!r}, wanted {wanted!r}", flush=True)


def raises(error, call, part, what):
    try:
        call()
    except error as raised:
        equal(part in str(raised), True, f"{what} ({raised})")
    else:
        equal("no error", error.__name__, what)


def ids(entries):
    return sorted(entry["Service"]["ID"] for entry in entries)


def agent(client):
    agent = client.agent
    equal(agent.self()["Config"]["NodeName"], "n1", "agent.self")
    check = consul.Check.ttl("30s")
    equal(agent.service.register("cache", service_id="cache-1", address="192.0.2.60", port=6379, tags=["a", "b"], check=check,
                                 meta={"version": "7"}, weights={"Passing": 3, "Warning": 1}), True, "agent.service.register")
    one = agent.services()["cache-1"]
    equal((one["Service"], one["Port"], one["Tags"], one["Meta"]), ("cache", 6379, ["a", "b"], {"version": "7"}), "agent.services")
    equal(agent.service_definition("cache-1")["Weights"], {"Passing": 3, "Warning": 1}, "agent.service_definition")
    equal(agent.service_definition("nobody"), None, "agent.service_definition of nobody")
    equal(agent.checks()["service:cache-1"]["Status"], "critical", "agent.checks: a TTL check begins critical")
    for call, status in ((agent.check.ttl_pass, "passing"), (agent.check.ttl_warn, "warning"), (agent.check.ttl_fail, "critical")):
        equal(call("service:cache-1", notes=f"now {status}"), True, f"agent.check.{call.__name__}")
        found = agent.checks()["service:cache-1"]
        equal((found["Status"], found["Output"]), (status, f"now {status}"), f"and it is {status}")
    equal(agent.check.register("more", check=consul.Check.tcp("192.0.2.31", 9001, "10s"), check_id="more-1", notes="a note",
                               service_id="cache-1"), True, "agent.check.register")
    equal(agent.checks()["more-1"]["Notes"], "a note", "and it is there with its note")
    equal(agent.check.deregister("more-1"), True, "agent.check.deregister")
    equal("more-1" in agent.checks(), False, "and it is gone")
    agent.check.ttl_pass("service:cache-1")
    equal(agent.service.maintenance("cache-1", True, "disk"), True, "agent.service.maintenance on")
    equal(ids(client.health.service("cache", passing=True)[1]), [], "and it is not among the passing")
    equal(agent.service.maintenance("cache-1", False), True, "agent.service.maintenance off")
    equal(agent.maintenance(True, "power"), True, "agent.maintenance on")
    equal(ids(client.health.service("cache", passing=True)[1]), [], "and nobody on the node passes")
    equal(agent.maintenance(False), True, "agent.maintenance off")
    equal(ids(client.health.service("cache", passing=True)[1]), ["cache-1"], "and it passes again")
    raises(exceptions.BadRequest, lambda: agent.service.register(""), "Missing service name", "a registration without a name")


def catalog(client):
    catalog = client.catalog
    equal(catalog.datacenters(), ["dc1"], "catalog.datacenters")
    equal(catalog.register("printer", "192.0.2.90", service={"Service": "lp", "ID": "lp-1", "Port": 631, "Tags": ["ink"]},
                           check={"Node": "printer", "CheckID": "lp", "Name": "lp", "Status": "passing", "ServiceID": "lp-1"}),
          True, "catalog.register")
    index, nodes = catalog.nodes()
    equal((int(index) > 0, "printer" in [node["Node"] for node in nodes]), (True, True), "catalog.nodes")
    equal(catalog.services()[1]["lp"], ["ink"], "catalog.services")
    found = catalog.service("lp")[1]
    equal([(one["Node"], one["Address"], one["ServicePort"]) for one in found], [("printer", "192.0.2.90", 631)], "catalog.service")
    equal(len(catalog.service("web", tag="live")[1]), 2, "catalog.service by tag")
    equal(len(catalog.service("web", tag="dead")[1]), 0, "catalog.service by a tag that nobody has")
    equal(list(catalog.node("printer")[1]["Services"]), ["lp-1"], "catalog.node")
    equal(catalog.node("nobody")[1], None, "catalog.node of nobody")
    equal(ids(client.health.service("lp", passing=True)[1]), ["lp-1"], "health.service of it")
    equal(catalog.deregister("printer", service_id="lp-1"), True, "catalog.deregister of a service")
    equal(catalog.service("lp")[1], [], "and it is gone")
    equal(catalog.deregister("printer"), True, "catalog.deregister of a node")
    equal(catalog.node("printer")[1], None, "and it is gone")
    raises(exceptions.ConsulException, lambda: catalog.service("web", dc="nowhere"), "No path to datacenter", "an unknown datacenter")


def health(client):
    health = client.health
    equal(ids(health.service("web", passing=True)[1]), ["web-1", "web-2"], "health.service")
    equal(ids(health.service("web", tag=["live"])[1]), ["web-1", "web-2"], "health.service by tags")
    equal(ids(health.service("web", near="n1")[1]), ["web-1", "web-2"], "health.service near a node")
    equal(sorted(one["Status"] for one in health.checks("web")[1]), ["passing", "passing"], "health.checks")
    states = {one["CheckID"] for one in health.state("passing")[1]}
    equal({"service:web-1", "service:web-2"} <= states, True, "health.state")
    node = health.service("web")[1][0]["Node"]["Node"]
    equal({"service:web-1", "service:web-2"} <= {one["CheckID"] for one in health.node(node)[1]}, True, "health.node")
    equal(health.service("nobody")[1], [], "health.service of nobody")


def filters(client):
    equal(ids(client.health.service("web", filter_expr='Service.ID == "web-1"')[1]), ["web-1"], "health.service with a filter")
    equal(ids(client.health.service("web", node_meta={"room": "12"})[1]), [], "health.service by node meta")
    equal(len(client.catalog.service("web", filter_expr="ServicePort == 9002")[1]), 1, "catalog.service with a filter")
    equal(list(client.agent.services(filter_expr='"a" in Tags')), ["cache-1"], "agent.services with a filter")
    equal(list(client.agent.checks(filter_expr='ServiceID == "cache-1"')), ["service:cache-1"], "agent.checks with a filter")
    raises(exceptions.ConsulException, lambda: client.agent.services(filter_expr="Tags =="), "", "a filter that cannot be parsed")


def about(client):
    agent = client.agent
    equal([(one["Name"], one["Status"]) for one in agent.members()], [("n1", 1)], "agent.members")
    equal(len(agent.metrics()["Gauges"]) > 0, True, "agent.metrics")
    equal("# TYPE" in agent.metrics(format_prometheus=True), True, "agent.metrics as Prometheus reads them")
    equal(agent.reload(), True, "agent.reload")
    raises(exceptions.ConsulException, lambda: agent.force_leave("nobody"), "No node found", "agent.force_leave of nobody")


def queries(client):
    # This client makes every query a template.
    query = client.query
    made = query.create("web", name="live-", tags=["live"], onlypassing=True, ttl="3s")["ID"]
    equal(len(made), 36, "query.create")
    equal([one["Name"] for one in query.list()], ["live-"], "query.list")
    equal(query.get(made)[0]["Service"]["Tags"], ["live"], "query.get")
    found = query.execute("live-anything")
    equal((ids(found["Nodes"]), found["DNS"]["TTL"]), (["web-1", "web-2"], "3s"), "query.execute of a name that it matches")
    equal(query.explain("live-anything")["Query"]["Service"]["Service"], "web", "query.explain")
    equal(query.update(made, service="web", name="live-", tags=["dead"], regexp=""), True, "query.update")
    equal(query.execute("live-anything")["Nodes"], [], "and nobody has the other tag")
    equal(query.delete(made), True, "query.delete")
    equal(query.list(), [], "and it is gone")


def killed_target(client):
    health = client.health
    index, before = health.service("web", passing=True)
    equal(ids(before), ["web-1", "web-2"], "both targets pass")
    print("watching, kill web-2", flush=True)
    while len(before) == 2:
        index, before = health.service("web", passing=True, index=index, wait="30s")
    equal(ids(before), ["web-1"], "the blocking read woke without the killed target")
    statuses = {one["CheckID"]: one["Status"] for one in health.checks("web")[1]}
    equal(statuses["service:web-2"], "critical", "whose check is critical")


def end(client):
    equal(client.agent.service.deregister("cache-1"), True, "agent.service.deregister")
    equal("cache-1" in client.agent.services(), False, "and it is gone")
    equal(bool(client.status.leader()), True, "status.leader")
    equal(len(client.status.peers()), 1, "status.peers")


with consul.Consul(host=sys.argv[1], port=int(sys.argv[2])) as client:
    for part in (agent, catalog, health, filters, about, queries, killed_target, end):
        part(client)
sys.exit(1 if failed else 0)
