// What operators call with the official Consul client: who is there, metrics, the log, a reload, taking nodes out, and the
// end of the server with the word `leave`. Prints one line a check, as the other client tests do.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"
)

var failed int

func check(holds bool, what string, detail ...any) {
	if holds {
		fmt.Println("ok    " + what)
		return
	}
	failed++
	fmt.Println("FAIL  "+what+":", fmt.Sprint(detail...))
}

func main() {
	client, err := api.NewClient(api.DefaultConfig())
	if err != nil {
		fmt.Println("FAIL  new client:", err)
		os.Exit(1)
	}
	if len(os.Args) > 1 && os.Args[1] == "leave" {
		check(client.Agent().Leave() == nil, "Leave is answered")
	} else {
		who(client.Agent())
		metrics(client.Agent())
		monitor(client.Agent())
		forceLeave(client)
		check(client.Agent().Reload() == nil, "Reload is taken")
	}
	fmt.Printf("%d failed\n", failed)
	if failed > 0 {
		os.Exit(1)
	}
}

func who(agent *api.Agent) {
	members, err := agent.Members(false)
	check(err == nil && len(members) == 1, "Members are one", err, members)
	if len(members) == 1 {
		member := members[0]
		check(member.Name == "n1" && member.Status == 1, "it is n1 and alive", member)
		check(member.ACLMode() == api.ACLModeDisabled, "its ACL mode is disabled", member.Tags)
	}
	found, err := agent.MembersOpts(api.MembersOpts{Segment: api.AllSegments, Filter: `Tags["role"] == node`})
	check(err == nil && len(found) == 0, "MembersOpts filters", err, found)
	host, err := agent.Host()
	check(err == nil && host["Host"] != nil, "Host has the machine", err)
	version, err := agent.Version()
	check(err == nil && version["HumanVersion"] != "", "Version has one", err, version)
}

func metrics(agent *api.Agent) {
	info, err := agent.Metrics()
	check(err == nil && info != nil && info.Timestamp != "", "Metrics decode", err)
	if info != nil {
		check(len(info.Gauges) > 0 && len(info.Counters) > 0 && len(info.Samples) > 0, "there are some of each kind")
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	stream, err := agent.MetricsStream(ctx)
	if err != nil {
		check(false, "MetricsStream", err)
		return
	}
	defer stream.Close()
	var first api.MetricsInfo
	err = json.NewDecoder(stream).Decode(&first)
	check(err == nil && first.Timestamp != "", "MetricsStream sends one at once", err)
}

func monitor(agent *api.Agent) {
	stop := make(chan struct{})
	defer close(stop)
	lines, err := agent.MonitorJSON("debug", stop, nil)
	if err != nil {
		check(false, "Monitor", err)
		return
	}
	// A name that DNS cannot show is a warning in the log.
	err = agent.ServiceRegister(&api.AgentServiceRegistration{Name: "not a label"})
	check(err == nil, "a service with a strange name is taken", err)
	for {
		select {
		case line := <-lines:
			var said map[string]any
			if err := json.Unmarshal([]byte(line), &said); err != nil {
				check(false, "a line is JSON", line)
				return
			}
			if text, _ := said["@message"].(string); strings.Contains(text, "not a label") {
				check(said["@level"] == "warn", "MonitorJSON has the line with its level", line)
				return
			}
		case <-time.After(20 * time.Second):
			check(false, "MonitorJSON has the line")
			return
		}
	}
}

func forceLeave(client *api.Client) {
	_, err := client.Catalog().Register(&api.CatalogRegistration{Node: "gone", Address: "192.0.2.9"}, nil)
	check(err == nil, "a node is registered", err)
	err = client.Agent().ForceLeave("nope")
	check(err != nil && strings.Contains(err.Error(), "No node found with name 'nope'"), "ForceLeave knows whom it does not know", err)
	check(client.Agent().ForceLeavePrune("gone") == nil, "ForceLeavePrune is taken")
	nodes, _, err := client.Catalog().Nodes(nil)
	check(err == nil && len(nodes) == 1, "and the node is out", err, len(nodes))
	// Not in the client: the sentence that names what is not served.
	answer, err := http.Get("http://" + api.DefaultConfig().Address + "/v1/kv/x")
	if err != nil {
		check(false, "GET /v1/kv/x", err)
		return
	}
	defer answer.Body.Close()
	line, _ := bufio.NewReader(answer.Body).ReadString('\n')
	check(answer.StatusCode == 404 && strings.Contains(line, "is not served"), "what is not served is named", line)
}
