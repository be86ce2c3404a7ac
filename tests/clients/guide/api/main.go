// The official Consul client against a freshly started Rollcall: what it sends has to be taken, what it gets has to
// decode, and what it does with the two has to work. Prints one line a check, as the other client tests do.
package main

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"sort"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"
)

var failed int

func check(holds bool, what string, detail ...any) bool {
	if holds {
		fmt.Println("ok    " + what)
		return true
	}
	failed++
	fmt.Println("FAIL  "+what+":", fmt.Sprint(detail...))
	return false
}

func equal(got, wanted any, what string) bool {
	return check(reflect.DeepEqual(got, wanted), what, fmt.Sprintf("got %#v, wanted %#v", got, wanted))
}

// done is for a call that has to succeed.
func done(err error, what string) bool { return check(err == nil, what, err) }

// refused is for a call that has to fail with this status and a text that holds `text`.
func refused(err error, status int, text, what string) {
	var answer api.StatusError
	if !errors.As(err, &answer) {
		// Agent calls wrap the answer in their own words.
		check(err != nil && strings.Contains(err.Error(), fmt.Sprint(status)) && strings.Contains(err.Error(), text),
			what, err)
		return
	}
	check(answer.Code == status && strings.Contains(answer.Body, text), what, err)
}

func main() {
	client, err := api.NewClient(api.DefaultConfig())
	if err != nil {
		fmt.Println("FAIL  new client:", err)
		os.Exit(1)
	}
	if len(os.Args) > 1 {
		parts[os.Args[1]](client)
	} else {
		registrations(client)
	}
	if failed > 0 {
		os.Exit(1)
	}
}

// The parts of the client that run against a server of their own, each in its file.
var parts = map[string]func(*api.Client){
	"agent":    wholeAgent,
	"reads":    reads,
	"watches":  watches,
	"queries":  queries,
	"tokens":   tokens,
	"login":    login,
	"secure":   secure,
	"stranger": stranger,
}

func registrations(client *api.Client) {
	ttl(client)
	thresholdsAndFields(client)
	blocking(client)
	catalog(client)
	agent(client)
	maintenance(client)
	catalogWrites(client)
	reregister(client)
	errorTexts(client)
}

func passing(client *api.Client, name string) int {
	found, _, err := client.Health().Service(name, "", true, nil)
	if !done(err, "health of "+name) {
		return -1
	}
	return len(found)
}

// A TTL check through its life: critical until told, then as told, then expired.
func ttl(client *api.Client) {
	agent := client.Agent()
	done(agent.ServiceRegister(&api.AgentServiceRegistration{
		ID: "ttl-1", Name: "ttl", Port: 7000, Address: "192.0.2.77", Tags: []string{"v1", "blue"},
		Meta:  map[string]string{"version": "1.2"},
		Check: &api.AgentServiceCheck{TTL: "30s"},
	}), "register with a TTL check")
	equal(passing(client, "ttl"), 0, "a TTL check starts critical")
	done(agent.PassTTL("service:ttl-1", "fine"), "pass")
	equal(passing(client, "ttl"), 1, "pass puts it among the passing")
	done(agent.WarnTTL("service:ttl-1", "slow"), "warn")
	equal(passing(client, "ttl"), 0, "a warning is not passing")
	status, info, err := agent.AgentHealthServiceByID("ttl-1")
	done(err, "agent health by id")
	equal(status, api.HealthWarning, "agent health by id is warning")
	equal(info != nil && info.Service.ID == "ttl-1", true, "agent health by id names the service")
	done(agent.FailTTL("service:ttl-1", "broken"), "fail")
	status, _, err = agent.AgentHealthServiceByID("ttl-1")
	done(err, "agent health by id, critical")
	equal(status, api.HealthCritical, "agent health by id is critical")
	done(agent.UpdateTTL("service:ttl-1", "all is well", api.HealthPassing), "update")
	checks, err := agent.Checks()
	done(err, "agent checks")
	if one := checks["service:ttl-1"]; check(one != nil, "the check has the ID service:ttl-1", checks) {
		equal(one.Status, "passing", "update sets the status")
		equal(one.Output, "all is well", "update sets the output")
		equal(one.Type, "ttl", "its type is ttl")
		equal(one.ServiceID, "ttl-1", "it names its service")
		equal(one.Name, "Service 'ttl' check", "its name is Consul's default")
	}
	status, infos, err := agent.AgentHealthServiceByName("ttl")
	done(err, "agent health by name")
	equal(status, api.HealthPassing, "agent health by name is passing")
	equal(len(infos), 1, "agent health by name has the one")

	// A check of its own, added to the service and gone again.
	done(agent.CheckRegister(&api.AgentCheckRegistration{
		ID: "second", Name: "second", ServiceID: "ttl-1", AgentServiceCheck: api.AgentServiceCheck{TTL: "30s"},
	}), "register a second check")
	equal(passing(client, "ttl"), 0, "one check that is not passing is enough")
	done(agent.CheckDeregister("second"), "deregister the second check")
	equal(passing(client, "ttl"), 1, "and it passes again")

	// Expiry is the server's, by the second.
	done(agent.ServiceRegister(&api.AgentServiceRegistration{
		ID: "brief", Name: "brief", Port: 7001, Address: "192.0.2.77",
		Check: &api.AgentServiceCheck{TTL: "1s", DeregisterCriticalServiceAfter: "1s"},
	}), "register with a TTL of 1 s")
	// From before the word, so that no wait of ours makes a time shorter.
	begun := time.Now()
	done(agent.PassTTL("service:brief", ""), "pass")
	equal(passing(client, "brief"), 1, "passing while the TTL runs")
	gone, reaped := time.Duration(0), time.Duration(0)
	for time.Since(begun) < 8*time.Second && reaped == 0 {
		found, _, err := client.Health().Service("brief", "", false, nil)
		if err != nil {
			done(err, "health of brief")
			break
		}
		if len(found) == 0 {
			reaped = time.Since(begun)
		} else if gone == 0 && found[0].Checks.AggregatedStatus() == api.HealthCritical {
			gone = time.Since(begun)
		}
		time.Sleep(5 * time.Millisecond)
	}
	check(gone >= time.Second && gone < 2*time.Second, "TTL of 1 s expired after 1 s", gone)
	check(reaped >= 2*time.Second && reaped < 4*time.Second,
		"DeregisterCriticalServiceAfter of 1 s removed it a second later", reaped)
}

// Every field that a definition can hold comes back as it went in.
func thresholdsAndFields(client *api.Client) {
	agent := client.Agent()
	done(agent.ServiceRegister(&api.AgentServiceRegistration{
		ID: "full/1", Name: "full", Port: 7100, Address: "192.0.2.78", Tags: []string{"a", "b"},
		Meta:              map[string]string{"k": "v"},
		TaggedAddresses:   map[string]api.ServiceAddress{"lan_ipv6": {Address: "2001:db8::78", Port: 7106}},
		Weights:           &api.AgentWeights{Passing: 10, Warning: 2},
		EnableTagOverride: true,
		Checks: api.AgentServiceChecks{
			{CheckID: "one", Name: "One", TTL: "30s", Notes: "a note", Status: "passing", SuccessBeforePassing: 2,
				FailuresBeforeCritical: 3, FailuresBeforeWarning: 1},
			{CheckID: "two", TCP: "192.0.2.78:7100", Interval: "10m", Timeout: "1s", Status: "passing",
				DeregisterCriticalServiceAfter: "24h"},
		},
	}), "register with every field, and a slash in the ID")
	one, _, err := agent.Service("full/1", nil)
	if done(err, "agent service, by an ID with a slash") {
		equal(one.Service, "full", "name")
		equal(one.Tags, []string{"a", "b"}, "tags keep their order")
		equal(one.Meta, map[string]string{"k": "v"}, "meta")
		equal(one.Port, 7100, "port")
		equal(one.Weights, api.AgentWeights{Passing: 10, Warning: 2}, "weights")
		equal(one.EnableTagOverride, true, "EnableTagOverride")
		equal(one.TaggedAddresses["lan_ipv6"], api.ServiceAddress{Address: "2001:db8::78", Port: 7106}, "tagged address")
		check(one.ContentHash != "", "ContentHash")
	}
	found, _, err := client.Health().Checks("full", nil)
	done(err, "health checks of full")
	ids := []string{}
	for _, one := range found {
		ids = append(ids, one.CheckID)
		if one.CheckID == "one" {
			equal(one.Notes, "a note", "check notes")
			equal(one.Name, "One", "check name")
		}
	}
	sort.Strings(ids)
	equal(ids, []string{"one", "two"}, "both checks are there under their own IDs")
	done(agent.ServiceDeregister("full/1"), "deregister by an ID with a slash")
	equal(passing(client, "full"), 0, "full is gone")
}

// A blocking query sleeps through what is not its business, wakes for what is, and gives up in time.
func blocking(client *api.Client) {
	health, agent := client.Health(), client.Agent()
	_, meta, err := health.Service("woken", "", true, nil)
	done(err, "health of a service that nobody registered")
	check(meta.LastIndex > 0, "its index is not 0", meta.LastIndex)
	check(meta.KnownLeader, "KnownLeader is true")
	type woken struct {
		found []*api.ServiceEntry
		index uint64
		after time.Time
		err   error
	}
	wait := func(index uint64, limit time.Duration) chan woken {
		answer := make(chan woken, 1)
		go func() {
			found, meta, err := health.Service("woken", "", true, &api.QueryOptions{WaitIndex: index, WaitTime: limit})
			got := woken{found: found, after: time.Now(), err: err}
			if meta != nil {
				got.index = meta.LastIndex
			}
			answer <- got
		}()
		return answer
	}
	answer := wait(meta.LastIndex, 20*time.Second)
	time.Sleep(100 * time.Millisecond)
	done(agent.ServiceRegister(&api.AgentServiceRegistration{ID: "other-1", Name: "other", Port: 1}), "register another")
	select {
	case got := <-answer:
		check(false, "another service's registration does not wake the watch", got.index, got.err)
	case <-time.After(300 * time.Millisecond):
		check(true, "another service's registration does not wake the watch")
	}
	begun := time.Now()
	done(agent.ServiceRegister(&api.AgentServiceRegistration{ID: "woken-1", Name: "woken", Port: 7200}), "register it")
	got := <-answer
	done(got.err, "the watch returns")
	equal(len(got.found), 1, "with the new instance")
	check(got.after.Sub(begun) < time.Second, "within a second", got.after.Sub(begun))
	check(got.index > meta.LastIndex, "and a higher index", got.index, " after ", meta.LastIndex)

	answer = wait(got.index, 20*time.Second)
	time.Sleep(100 * time.Millisecond)
	begun = time.Now()
	done(agent.ServiceDeregister("woken-1"), "deregister it")
	last := <-answer
	done(last.err, "the watch returns")
	equal(len(last.found), 0, "with nobody")
	check(last.after.Sub(begun) < time.Second, "within a second", last.after.Sub(begun))

	begun = time.Now()
	idle := <-wait(last.index, time.Second)
	took := time.Since(begun)
	done(idle.err, "a watch with nothing new")
	check(took > 900*time.Millisecond && took < 2*time.Second, "gives up after its wait of 1 s", took)
	equal(idle.index, last.index, "with the same index")

	begun = time.Now()
	ahead := <-wait(last.index+1_000_000_000, 20*time.Second)
	done(ahead.err, "a watch with an index that is not reached yet")
	check(time.Since(begun) < 2*time.Second, "returns at once", time.Since(begun))
	done(agent.ServiceDeregister("other-1"), "deregister the other")
}

func catalog(client *api.Client) {
	services, meta, err := client.Catalog().Services(nil)
	done(err, "catalog services")
	tags := services["ttl"]
	sort.Strings(tags)
	equal(tags, []string{"blue", "v1"}, "catalog services has ttl's tags")
	check(meta.LastIndex > 0 && meta.KnownLeader, "with an index and a leader", meta)
	nodes, _, err := client.Catalog().Nodes(nil)
	done(err, "catalog nodes")
	if check(len(nodes) == 1, "one node", nodes) {
		check(len(nodes[0].ID) == 36, "its ID is a UUID", nodes[0].ID)
		check(nodes[0].Datacenter == "dc1", "in dc1", nodes[0].Datacenter)
		check(nodes[0].Address != "", "with an address")
		node, _, err := client.Catalog().Node(nodes[0].Node, nil)
		done(err, "catalog node")
		check(node != nil && node.Services["ttl-1"] != nil, "catalog node lists its services", node)
		list, _, err := client.Catalog().NodeServiceList(nodes[0].Node, nil)
		done(err, "catalog node-services")
		check(list != nil && len(list.Services) > 0, "catalog node-services lists them too", list)
		checks, _, err := client.Health().Node(nodes[0].Node, nil)
		done(err, "health node")
		check(len(checks) > 0, "health node lists its checks", checks)
	}
	entries, _, err := client.Catalog().Service("ttl", "", nil)
	done(err, "catalog service")
	if check(len(entries) == 1, "one instance of ttl", entries) {
		equal(entries[0].ServiceID, "ttl-1", "its ID")
		equal(entries[0].ServiceAddress, "192.0.2.77", "its address")
		equal(entries[0].ServicePort, 7000, "its port")
		equal(entries[0].ServiceMeta, map[string]string{"version": "1.2"}, "its meta")
		equal(entries[0].ServiceWeights, api.Weights{Passing: 1, Warning: 1}, "its weights are 1 and 1 by default")
		check(entries[0].ModifyIndex > 0, "its ModifyIndex")
	}
	entries, _, err = client.Catalog().ServiceMultipleTags("TTL", []string{"V1", "blue"}, nil)
	done(err, "catalog service by two tags, in other letters")
	equal(len(entries), 1, "finds the instance")
	entries, _, err = client.Catalog().ServiceMultipleTags("ttl", []string{"v1", "green"}, nil)
	done(err, "catalog service by two tags, one of them another's")
	equal(len(entries), 0, "finds nobody")
	centers, err := client.Catalog().Datacenters()
	done(err, "catalog datacenters")
	equal(centers, []string{"dc1"}, "is dc1 alone")
	state, _, err := client.Health().State(api.HealthAny, nil)
	done(err, "health state any")
	check(len(state) > 0, "lists checks", state)
	unknown, _, err := client.Catalog().Service("nobody", "", nil)
	done(err, "catalog service of an unknown name")
	equal(len(unknown), 0, "is empty")
	leader, err := client.Status().Leader()
	done(err, "status leader")
	check(leader != "", "is not empty")
	peers, err := client.Status().Peers()
	done(err, "status peers")
	equal(len(peers), 1, "is one")
}

func agent(client *api.Client) {
	services, err := client.Agent().Services()
	done(err, "agent services")
	if one := services["ttl-1"]; check(one != nil, "agent services has ttl-1", services) {
		equal(one.Service, "ttl", "with its name")
		equal(one.Datacenter, "dc1", "and its datacenter")
	}
	self, err := client.Agent().Self()
	done(err, "agent self")
	name, _ := self["Config"]["NodeName"].(string)
	check(name != "", "agent self names the node", self["Config"])
	equal(self["Config"]["Datacenter"], "dc1", "and the datacenter")
	again, err := client.Agent().NodeName()
	done(err, "agent NodeName()")
	equal(again, name, "is the same")
}

func maintenance(client *api.Client) {
	agent := client.Agent()
	done(agent.PassTTL("service:ttl-1", ""), "pass")
	equal(passing(client, "ttl"), 1, "passing before maintenance")
	done(agent.EnableServiceMaintenance("ttl-1", "new disk"), "service maintenance on")
	equal(passing(client, "ttl"), 0, "not passing in maintenance")
	checks, err := agent.Checks()
	done(err, "agent checks in maintenance")
	if one := checks["_service_maintenance:ttl-1"]; check(one != nil, "maintenance shows as Consul's check", checks) {
		equal(one.Notes, "new disk", "with the reason")
		equal(one.Status, "critical", "and critical")
	}
	status, _, err := agent.AgentHealthServiceByID("ttl-1")
	done(err, "agent health in maintenance")
	check(status == api.HealthMaint || status == api.HealthCritical, "is maintenance or critical", status)
	done(agent.PassTTL("service:ttl-1", ""), "a pass during maintenance is taken")
	equal(passing(client, "ttl"), 0, "and does not end it")
	done(agent.DisableServiceMaintenance("ttl-1"), "service maintenance off")
	equal(passing(client, "ttl"), 1, "passing after maintenance")
	done(agent.EnableNodeMaintenance("power"), "node maintenance on")
	equal(passing(client, "ttl"), 0, "nobody on the node passes")
	done(agent.DisableNodeMaintenance(), "node maintenance off")
	equal(passing(client, "ttl"), 1, "and everybody again")
}

// What an external registrar writes straight into the catalog.
func catalogWrites(client *api.Client) {
	_, err := client.Catalog().Register(&api.CatalogRegistration{
		Node: "printer", Address: "192.0.2.90", NodeMeta: map[string]string{"external-node": "true"},
		Service: &api.AgentService{ID: "lp-1", Service: "lp", Port: 631},
		Checks: api.HealthChecks{{Node: "printer", CheckID: "lp", Name: "lp", ServiceID: "lp-1",
			Status: api.HealthPassing}},
	}, nil)
	done(err, "catalog register of a node, a service and a check")
	equal(passing(client, "lp"), 1, "it passes")
	entries, _, err := client.Catalog().Service("lp", "", nil)
	done(err, "catalog service lp")
	if check(len(entries) == 1, "has one", entries) {
		equal(entries[0].ServiceWeights, api.Weights{Passing: 1, Warning: 1}, "the zero weights of Go's client mean none given")
		equal(entries[0].Node, "printer", "on its node")
		equal(entries[0].Address, "192.0.2.90", "at its address")
	}
	nodes, _, err := client.Catalog().Nodes(nil)
	done(err, "catalog nodes")
	equal(len(nodes), 2, "two nodes now")
	_, err = client.Catalog().Deregister(&api.CatalogDeregistration{Node: "printer", ServiceID: "lp-1"}, nil)
	done(err, "catalog deregister of the service")
	equal(passing(client, "lp"), 0, "it is gone")
	_, err = client.Catalog().Deregister(&api.CatalogDeregistration{Node: "printer"}, nil)
	done(err, "catalog deregister of the node")
	nodes, _, err = client.Catalog().Nodes(nil)
	done(err, "catalog nodes")
	equal(len(nodes), 1, "one node again")
}

// Registering an ID again replaces its definition and keeps what its checks said.
func reregister(client *api.Client) {
	agent := client.Agent()
	definition := &api.AgentServiceRegistration{ID: "ttl-1", Name: "ttl", Port: 7009, Address: "192.0.2.77",
		Check: &api.AgentServiceCheck{TTL: "30s"}}
	done(agent.ServiceRegister(definition), "register ttl-1 again with another port")
	found, _, err := client.Health().Service("ttl", "", true, nil)
	done(err, "health of ttl")
	if check(len(found) == 1, "it still passes", found) {
		equal(found[0].Service.Port, 7009, "with the new port")
		equal(found[0].Service.Tags, []string{}, "and without the old tags")
	}
	_, before, _ := client.Catalog().Services(nil)
	done(agent.ServiceRegister(definition), "register the same once more")
	_, after, _ := client.Catalog().Services(nil)
	equal(after.LastIndex, before.LastIndex, "moves no index")
	done(agent.ServiceRegisterOpts(definition, api.ServiceRegisterOpts{ReplaceExistingChecks: true}),
		"register with replace-existing-checks")
	done(agent.ServiceDeregister("ttl-1"), "deregister")
	services, err := agent.Services()
	done(err, "agent services")
	equal(len(services), 0, "nothing is left")
	checks, err := agent.Checks()
	done(err, "agent checks")
	equal(len(checks), 0, "no check is left")
}

func errorTexts(client *api.Client) {
	agent := client.Agent()
	refused(agent.ServiceDeregister("nope"), 404,
		`Unknown service ID "nope". Ensure that the service ID is passed, not the service name.`, "unknown service")
	refused(agent.CheckDeregister("nope"), 404,
		`Unknown check ID "nope". Ensure that the check ID is passed, not the check name.`, "unknown check")
	refused(agent.PassTTL("nope", ""), 404, `Unknown check ID "nope"`, "pass of an unknown check")
	refused(agent.EnableServiceMaintenance("nope", ""), 404, `Unknown service ID "nope"`, "maintenance of nobody")
	refused(agent.ServiceRegister(&api.AgentServiceRegistration{}), 400, "Missing service name", "no name")
	refused(agent.ServiceRegister(&api.AgentServiceRegistration{Name: "x", Address: "0.0.0.0"}), 400,
		"Invalid service address", "address 0.0.0.0")
	refused(agent.ServiceRegister(&api.AgentServiceRegistration{Name: "x", Port: 70000}), 400, "70000", "port 70000")
	refused(agent.ServiceRegister(&api.AgentServiceRegistration{Name: "x",
		Check: &api.AgentServiceCheck{TTL: "10s", HTTP: "http://192.0.2.1/", Interval: "10s"}}), 400,
		"Interval and TTL cannot both be specified", "TTL and interval")
	refused(agent.ServiceRegister(&api.AgentServiceRegistration{Name: "x",
		Check: &api.AgentServiceCheck{HTTP: "http://192.0.2.1/"}}), 400, "Interval must be > 0", "no interval")
	refused(agent.ServiceRegister(&api.AgentServiceRegistration{Name: "x",
		Check: &api.AgentServiceCheck{TTL: "10"}}), 400, "missing unit in duration", "a duration without a unit")
	refused(agent.CheckRegister(&api.AgentCheckRegistration{Name: "c", ServiceID: "zz",
		AgentServiceCheck: api.AgentServiceCheck{TTL: "10s"}}), 404, `ServiceID "zz" does not exist`,
		"a check of an unknown service")
	// Scripts are off, and the registration that asked for one changed nothing.
	err := agent.ServiceRegister(&api.AgentServiceRegistration{Name: "x",
		Check: &api.AgentServiceCheck{Args: []string{"/bin/true"}, Interval: "10s"}})
	check(err != nil && strings.Contains(err.Error(), "Scripts are disabled on this agent"), "a script check", err)
	services, _ := agent.Services()
	equal(len(services), 0, "none of these registered anything")
	done(agent.ServiceRegister(&api.AgentServiceRegistration{ID: "plain", Name: "plain", Port: 1,
		Check: &api.AgentServiceCheck{TCP: "192.0.2.1:1", Interval: "10m", Timeout: "1s"}}), "register a TCP check")
	refused(agent.PassTTL("service:plain", ""), 500, `CheckID "service:plain" does not have associated TTL`,
		"pass of a check that is not TTL")
	done(agent.ServiceDeregister("plain"), "deregister it")
	_, _, err = agent.Service("nope", nil)
	refused(err, 404, "unknown service ID: nope", "agent service of nobody")
	_, _, err = client.Catalog().Service("x", "", &api.QueryOptions{Datacenter: "nowhere"})
	refused(err, 500, "No path to datacenter", "an unknown datacenter")
	_, _, err = client.KV().Get("a", nil)
	done(err, "a key that is not there is no error to the client")
	_, err = client.KV().Put(&api.KVPair{Key: "a", Value: []byte("b")}, nil)
	refused(err, 404, "", "writing a key, which Rollcall does not serve")
}
