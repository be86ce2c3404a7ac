package main

import (
	"fmt"
	"io"
	"sort"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/hashicorp/consul/api/watch"
	"github.com/hashicorp/go-hclog"
)

// plan runs a watch plan of the client's own package and gives what its handler is called with.
func plan(client *api.Client, params map[string]any) (chan any, *watch.Plan) {
	parsed, err := watch.Parse(params)
	if !done(err, fmt.Sprint("watch.Parse ", params)) {
		return nil, nil
	}
	seen := make(chan any, 64)
	parsed.Handler = func(_ uint64, what any) { seen <- what }
	logger := hclog.New(&hclog.LoggerOptions{Output: io.Discard})
	go func() { check(parsed.RunWithClientAndHclog(client, logger) == nil, "the plan ended without an error") }()
	return seen, parsed
}

// until takes what a plan sees until one of it holds.
func until(seen chan any, holds func(any) bool, what string) {
	late := time.After(20 * time.Second)
	var last any
	for {
		select {
		case last = <-seen:
			if holds(last) {
				check(true, what)
				return
			}
		case <-late:
			check(false, what, "not within 20 s; last seen: ", fmt.Sprintf("%+v", last))
			return
		}
	}
}

func serviceIDs(entries []*api.ServiceEntry) string {
	ids := []string{}
	for _, one := range entries {
		ids = append(ids, one.Service.ID)
	}
	sort.Strings(ids)
	return fmt.Sprint(ids)
}

// Watch plans for a service, all services, the nodes and the checks, while one of two targets is killed.
func watches(client *api.Client) {
	passing, passingPlan := plan(client, map[string]any{"type": "service", "service": "web", "passingonly": true})
	tagged, taggedPlan := plan(client, map[string]any{"type": "service", "service": "web", "tag": []any{"live"}})
	services, servicesPlan := plan(client, map[string]any{"type": "services"})
	nodes, nodesPlan := plan(client, map[string]any{"type": "nodes"})
	ofService, ofServicePlan := plan(client, map[string]any{"type": "checks", "service": "web"})
	critical, criticalPlan := plan(client, map[string]any{"type": "checks", "state": "critical"})

	ids := func(wanted string) func(any) bool {
		return func(what any) bool { return serviceIDs(what.([]*api.ServiceEntry)) == wanted }
	}
	until(passing, ids("[web-1 web-2]"), "type service, passing only: both targets")
	until(tagged, ids("[web-1 web-2]"), "type service, by tag: both targets")
	until(services, func(what any) bool { return len(what.(map[string][]string)["web"]) == 1 }, "type services: web and its tag")
	until(nodes, func(what any) bool { return len(what.([]*api.Node)) == 2 }, "type nodes: both nodes")
	until(ofService, func(what any) bool { return len(what.([]*api.HealthCheck)) == 2 }, "type checks, of a service: both")
	until(critical, func(what any) bool { return len(what.([]*api.HealthCheck)) == 0 }, "type checks, critical: none")

	fmt.Println("watching, kill web-2")
	until(passing, ids("[web-1]"), "type service, passing only: woke without the killed target")
	until(critical, func(what any) bool {
		found := what.([]*api.HealthCheck)
		return len(found) == 1 && found[0].CheckID == "service:web-2"
	}, "type checks, critical: woke with the killed target's")
	until(tagged, func(what any) bool {
		entries := what.([]*api.ServiceEntry)
		statuses := map[string]string{}
		for _, one := range entries {
			statuses[one.Service.ID] = one.Checks.AggregatedStatus()
		}
		return len(entries) == 2 && statuses["web-1"] == api.HealthPassing && statuses["web-2"] == api.HealthCritical
	}, "type service, whatever the status: woke, and it is critical")
	until(ofService, func(what any) bool {
		for _, one := range what.([]*api.HealthCheck) {
			if one.CheckID == "service:web-2" && one.Status == api.HealthCritical {
				return true
			}
		}
		return false
	}, "type checks, of a service: woke")

	_, err := client.Catalog().Register(&api.CatalogRegistration{Node: "printer", Address: "192.0.2.90",
		Service: &api.AgentService{ID: "lp-1", Service: "lp", Port: 631}}, nil)
	done(err, "register a node and a service")
	until(nodes, func(what any) bool { return len(what.([]*api.Node)) == 3 }, "type nodes: woke with it")
	until(services, func(what any) bool { return what.(map[string][]string)["lp"] != nil }, "type services: woke with it")
	_, err = client.Catalog().Deregister(&api.CatalogDeregistration{Node: "printer"}, nil)
	done(err, "deregister the node")
	until(nodes, func(what any) bool { return len(what.([]*api.Node)) == 2 }, "type nodes: woke without it")
	until(services, func(what any) bool { return what.(map[string][]string)["lp"] == nil }, "type services: woke without it")

	// One service of this machine's agent, which waits on a hash and not on an index.
	register := &api.AgentServiceRegistration{ID: "own-1", Name: "own", Port: 1}
	done(client.Agent().ServiceRegister(register), "register a service here")
	own, ownPlan := plan(client, map[string]any{"type": "agent_service", "service_id": "own-1"})
	until(own, func(what any) bool { return what.(*api.AgentService).Port == 1 }, "type agent_service: it")
	register.Port = 2
	done(client.Agent().ServiceRegister(register), "register it with another port")
	until(own, func(what any) bool { return what.(*api.AgentService).Port == 2 }, "type agent_service: woke with the other port")
	for _, one := range []*watch.Plan{passingPlan, taggedPlan, servicesPlan, nodesPlan, ofServicePlan, criticalPlan, ownPlan} {
		one.Stop()
	}
	done(client.Agent().ServiceDeregister("own-1"), "deregister it")
}
