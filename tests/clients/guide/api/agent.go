package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"
)

// All of the agent that is not about registrations: what it says of itself, its log, maintenance, reload and leave.
func wholeAgent(client *api.Client) {
	agent := client.Agent()
	self, err := agent.Self()
	done(err, "self")
	equal(self["Config"]["NodeName"], "n1", "self names the node")
	equal(self["Member"]["Name"], "n1", "self has a member")
	check(self["Config"]["Version"] != "" && self["Config"]["Server"] == true, "self has a version and is a server", self["Config"])
	version, err := agent.Version()
	done(err, "version")
	check(version["HumanVersion"] != "" && version["HumanVersion"] != nil, "is there", version)
	host, err := agent.Host()
	done(err, "host")
	check(host["CollectionTime"] != nil, "has the time that it was collected", host)
	members, err := agent.Members(false)
	done(err, "members")
	if check(len(members) == 1, "is one", members) {
		equal(members[0].Name, "n1", "this node")
		equal(members[0].Status, int(1), "alive")
		check(members[0].Tags["role"] == "consul" && members[0].Tags["dc"] == "dc1", "a server in dc1", members[0].Tags)
	}
	_, err = agent.MembersOpts(api.MembersOpts{WAN: true})
	done(err, "members of the WAN")
	metrics, err := agent.Metrics()
	done(err, "metrics")
	check(metrics.Timestamp != "" && len(metrics.Gauges) > 0, "has gauges", metrics)
	monitor(client, agent.Monitor, "[INFO]", "monitor")
	monitor(client, agent.MonitorJSON, `"@level":"info"`, "monitor as JSON")
	_, err = agent.Monitor("loud", nil, nil)
	refused(err, 400, "Unknown log level", "a level that is none")
	done(agent.Reload(), "reload")

	// serfHealth and the service consul, for those who look for them.
	checks, _, err := client.Health().Node("n1", nil)
	done(err, "health of this node")
	serf := ""
	for _, one := range checks {
		if one.CheckID == "serfHealth" {
			serf = one.Status
		}
	}
	equal(serf, api.HealthPassing, "its serfHealth passes")
	servers, _, err := client.Health().Service("consul", "", true, nil)
	done(err, "health of the service consul")
	equal(len(servers), 1, "is one")

	done(agent.ServiceRegister(&api.AgentServiceRegistration{ID: "own-1", Name: "own", Port: 1}), "register a service here")
	hash(client)
	done(agent.EnableNodeMaintenance("power"), "node maintenance on")
	found, _, err := client.Health().Service("own", "", true, nil)
	done(err, "health of it")
	equal(len(found), 0, "nobody passes")
	done(agent.DisableNodeMaintenance(), "node maintenance off")
	done(agent.EnableServiceMaintenance("own-1", "disk"), "service maintenance on")
	status, _, err := agent.AgentHealthServiceByName("own")
	done(err, "agent health by name")
	check(status == api.HealthMaint || status == api.HealthCritical, "is maintenance", status)
	done(agent.DisableServiceMaintenance("own-1"), "service maintenance off")
	refused(agent.ForceLeave("nobody"), 500, "No node found with name 'nobody'", "force-leave of nobody")
	_, err = client.Catalog().Register(&api.CatalogRegistration{Node: "gone", Address: "192.0.2.91"}, nil)
	done(err, "register a node")
	done(agent.ForceLeavePrune("gone"), "force-leave with prune")
	node, _, err := client.Catalog().Node("gone", nil)
	done(err, "catalog node of it")
	check(node == nil, "it is gone", node)
	done(agent.ServiceDeregister("own-1"), "deregister the service")
	// The last: the server ends, as told.
	done(agent.Leave(), "leave")
}

// monitor reads the agent's log until a line of this kind comes; a change makes one.
func monitor(client *api.Client, open func(string, <-chan struct{}, *api.QueryOptions) (chan string, error), part, what string) {
	stop := make(chan struct{})
	defer close(stop)
	lines, err := open("info", stop, nil)
	if !done(err, what) {
		return
	}
	late, again := time.After(10*time.Second), time.NewTicker(100*time.Millisecond)
	defer again.Stop()
	for n := 0; ; n++ {
		select {
		case line := <-lines:
			if strings.Contains(line, part) {
				check(true, what+" gives a line of its form")
				return
			}
		case <-again.C:
			// Its status changes, which is told in the log.
			name := fmt.Sprint("noise-", n)
			_ = client.Agent().CheckRegister(&api.AgentCheckRegistration{Name: name,
				AgentServiceCheck: api.AgentServiceCheck{TTL: "1h"}})
			_ = client.Agent().PassTTL(name, "")
			defer func() { _ = client.Agent().CheckDeregister(name) }()
		case <-late:
			check(false, what+" gives a line of its form", "none within 10 s has ", part)
			return
		}
	}
}

// hash waits for a change of one service by its hash.
func hash(client *api.Client) {
	one, meta, err := client.Agent().Service("own-1", nil)
	done(err, "agent service")
	check(one.ContentHash != "" && meta.LastContentHash == one.ContentHash, "has a hash, in the header too", meta)
	begun := time.Now()
	_, _, err = client.Agent().Service("own-1", &api.QueryOptions{WaitHash: one.ContentHash, WaitTime: time.Second})
	done(err, "agent service with its hash")
	check(time.Since(begun) > 900*time.Millisecond, "waits", time.Since(begun))
	answer := make(chan *api.AgentService, 1)
	go func() {
		changed, _, _ := client.Agent().Service("own-1", &api.QueryOptions{WaitHash: one.ContentHash, WaitTime: time.Minute})
		answer <- changed
	}()
	done(client.Agent().ServiceRegister(&api.AgentServiceRegistration{ID: "own-1", Name: "own", Port: 2}), "register it anew")
	select {
	case changed := <-answer:
		check(changed != nil && changed.Port == 2 && changed.ContentHash != one.ContentHash, "wakes with another hash", changed)
	case <-time.After(10 * time.Second):
		check(false, "wakes with another hash", "not within 10 s")
	}
}
