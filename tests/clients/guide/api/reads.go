package main

import (
	"fmt"
	"time"

	"github.com/hashicorp/consul/api"
)

// Catalog and health with every option that a read takes, beside two live targets of `web` on a node of their own.
func reads(client *api.Client) {
	here, err := client.Agent().NodeName()
	done(err, "agent NodeName()")
	_, err = client.Catalog().Register(&api.CatalogRegistration{
		Node: "printer", Address: "192.0.2.90", NodeMeta: map[string]string{"room": "12", "external-node": "true"},
		Service: &api.AgentService{ID: "lp-1", Service: "lp", Port: 631, Tags: []string{"ink", "colour"},
			Meta: map[string]string{"pages": "a4"}},
		Checks: api.HealthChecks{{Node: "printer", CheckID: "lp", Name: "lp", ServiceID: "lp-1", Status: api.HealthPassing}},
	}, nil)
	done(err, "register a node with meta, a service and a check")
	defer func() {
		_, err := client.Catalog().Deregister(&api.CatalogDeregistration{Node: "printer"}, nil)
		done(err, "deregister the node")
	}()
	filters(client)
	nodeMeta := &api.QueryOptions{NodeMeta: map[string]string{"room": "12"}}
	nodes, _, err := client.Catalog().Nodes(nodeMeta)
	done(err, "catalog nodes by node meta")
	check(len(nodes) == 1 && nodes[0].Node == "printer" && nodes[0].Meta["room"] == "12", "finds the one", nodes)
	services, _, err := client.Catalog().Services(nodeMeta)
	done(err, "catalog services by node meta")
	check(len(services) == 1 && len(services["lp"]) == 2, "finds its service with its tags", services)
	entries, _, err := client.Health().ServiceMultipleTags("lp", []string{"ink", "colour"}, true, nodeMeta)
	done(err, "health service by two tags and node meta")
	equal(serviceIDs(entries), "[lp-1]", "finds the instance")
	entries, _, err = client.Health().ServiceMultipleTags("lp", []string{"ink", "grey"}, true, nil)
	done(err, "health service by a tag that it lacks")
	equal(serviceIDs(entries), "[]", "finds nobody")
	checks, _, err := client.Health().Checks("lp", nodeMeta)
	done(err, "health checks by node meta")
	equal(len(checks), 1, "finds the check")
	checks, _, err = client.Health().State(api.HealthPassing, nodeMeta)
	done(err, "health state by node meta")
	equal(len(checks), 1, "finds the check")
	checks, _, err = client.Health().Node("printer", nil)
	done(err, "health node")
	equal(len(checks), 1, "finds the check")

	for _, near := range []string{"printer", "_agent", here} {
		nodes, _, err = client.Catalog().Nodes(&api.QueryOptions{Near: near})
		done(err, "catalog nodes near "+near)
		equal(len(nodes), 3, "sorts, and leaves none out")
	}
	for name, options := range map[string]*api.QueryOptions{
		"stale": {AllowStale: true}, "consistent": {RequireConsistent: true}, "the datacenter": {Datacenter: "dc1"},
		"cached": {UseCache: true, MaxAge: time.Minute, StaleIfError: time.Minute},
	} {
		found, meta, err := client.Health().Service("web", "live", true, options)
		done(err, "health service, "+name)
		equal(serviceIDs(found), "[web-1 web-2]", name+" gives both targets")
		check(meta != nil && meta.LastIndex > 0 && meta.KnownLeader, name+" gives an index and a leader", meta)
	}
	_, _, err = client.Health().Service("web", "", true, &api.QueryOptions{AllowStale: true, RequireConsistent: true})
	refused(err, 400, "conflicting semantics", "stale with consistent")
	_, _, err = client.Health().Service("web", "", true, &api.QueryOptions{Namespace: "team"})
	refused(err, 400, "Namespaces are a Consul Enterprise feature", "a namespace")
}

// The same expressions over every listing that takes one.
func filters(client *api.Client) {
	by := func(text string) *api.QueryOptions { return &api.QueryOptions{Filter: text} }
	catalog, health, agent := client.Catalog(), client.Health(), client.Agent()
	nodes, _, err := catalog.Nodes(by(`Meta.room == "12" and Node matches "^prin"`))
	done(err, "catalog nodes with a filter")
	check(len(nodes) == 1 && nodes[0].Node == "printer", "finds the one", nodes)
	services, _, err := catalog.Services(by(`ServiceName == "lp"`))
	done(err, "catalog services with a filter")
	check(len(services) == 1 && services["lp"] != nil, "finds the one", services)
	instances, _, err := catalog.Service("web", "", by(fmt.Sprintf("ServicePort == %d", 9002)))
	done(err, "catalog service with a filter")
	check(len(instances) == 1 && instances[0].ServiceID == "web-2", "finds the one", instances)
	list, _, err := catalog.NodeServiceList("printer", by(`"ink" in Tags`))
	done(err, "catalog node-services with a filter")
	check(list != nil && len(list.Services) == 1, "finds the one", list)
	node, _, err := catalog.Node("printer", by(`Service != "lp"`))
	done(err, "catalog node with a filter")
	check(node != nil && len(node.Services) == 0, "leaves the service out", node)
	for text, wanted := range map[string]string{
		`Service.Port > 0`:                                     "error",
		`Service.ID == "web-1"`:                                "[web-1]",
		`Service.Meta.build == "7"`:                            "[web-1 web-2]",
		`"live" in Service.Tags and not Service.ID == "web-1"`: "[web-2]",
		`Service.Tags contains "dead" or Service.Port != 9001`: "[web-2]",
		`Service.Meta is empty`:                                "[]",
	} {
		found, _, err := health.Service("web", "", false, by(text))
		if wanted == "error" {
			check(err != nil, "health service with a filter that no field takes: "+text, err)
		} else if done(err, "health service with "+text) {
			equal(serviceIDs(found), wanted, "finds "+wanted)
		}
	}
	for what, call := range map[string]func() (api.HealthChecks, *api.QueryMeta, error){
		"health checks": func() (api.HealthChecks, *api.QueryMeta, error) {
			return health.Checks("web", by(`CheckID == "service:web-1"`))
		},
		"health state": func() (api.HealthChecks, *api.QueryMeta, error) {
			return health.State("any", by(`CheckID == "service:web-1"`))
		},
		"health node": func() (api.HealthChecks, *api.QueryMeta, error) {
			return health.Node("192.0.2.31", by(`CheckID == "service:web-1"`))
		},
	} {
		found, _, err := call()
		done(err, what+" with a filter")
		check(len(found) == 1 && found[0].ServiceID == "web-1", "finds the one", found)
	}
	for _, port := range []int{1, 2} {
		done(agent.ServiceRegister(&api.AgentServiceRegistration{ID: fmt.Sprint("own-", port), Name: "own", Port: port,
			Check: &api.AgentServiceCheck{TTL: "1h"}}), "register a service here")
	}
	own, err := agent.ServicesWithFilter(`Port == 2`)
	done(err, "agent services with a filter")
	check(len(own) == 1 && own["own-2"] != nil, "finds the one", own)
	checks, err := agent.ChecksWithFilter(`ServiceID == "own-1" and Status == "critical"`)
	done(err, "agent checks with a filter")
	check(len(checks) == 1 && checks["service:own-1"] != nil, "finds the one", checks)
	for _, port := range []int{1, 2} {
		done(agent.ServiceDeregister(fmt.Sprint("own-", port)), "deregister it")
	}
	_, _, err = catalog.Nodes(by("Node =="))
	refused(err, 500, "Failed to create boolean expression evaluator", "a filter that cannot be parsed")
	_, _, err = catalog.Nodes(by(`Nod == "a"`))
	refused(err, 500, `Selector "Nod" is not valid`, "a field that is not there")
}
