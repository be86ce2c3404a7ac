package main

import (
	"github.com/hashicorp/consul/api"
)

// Prepared queries through their life, and a template.
func queries(client *api.Client) {
	prepared := client.PreparedQuery()
	definition := &api.PreparedQueryDefinition{Name: "live-web",
		Service: api.ServiceQuery{Service: "web", Tags: []string{"live", "!dead"}, OnlyPassing: true,
			ServiceMeta: map[string]string{"build": "7"}},
		DNS: api.QueryDNSOptions{TTL: "3s"}}
	id, _, err := prepared.Create(definition, nil)
	done(err, "create")
	equal(len(id), 36, "gives a UUID")
	found, meta, err := prepared.Get(id, nil)
	done(err, "get")
	if check(len(found) == 1, "gives the one", found) {
		equal(found[0].Name, "live-web", "its name")
		equal(found[0].Service.Tags, []string{"live", "!dead"}, "its tags")
		equal(found[0].DNS.TTL, "3s", "its TTL")
		check(meta.LastIndex > 0, "an index", meta)
	}
	list, _, err := prepared.List(nil)
	done(err, "list")
	equal(len(list), 1, "has the one")
	for what, name := range map[string]string{"by its ID": id, "by its name": "live-web"} {
		answer, _, err := prepared.Execute(name, nil)
		if done(err, "execute "+what) {
			equal(len(answer.Nodes), 2, "gives both targets")
			equal(answer.Service, "web", "of the service")
			equal(answer.Datacenter, "dc1", "from here")
			equal(answer.DNS.TTL, "3s", "with its TTL")
			equal(answer.Failovers, 0, "without a failover")
		}
	}
	definition.ID, definition.Service.Tags = id, []string{"dead"}
	_, err = prepared.Update(definition, nil)
	done(err, "update")
	answer, _, err := prepared.Execute("live-web", &api.QueryOptions{Near: "_agent"})
	done(err, "execute it, near this agent")
	equal(len(answer.Nodes), 0, "gives nobody: the tag is another one")

	template := &api.PreparedQueryDefinition{Name: "any-",
		Template: api.QueryTemplate{Type: "name_prefix_match", Regexp: "^any-(.+)$"},
		Service:  api.ServiceQuery{Service: "${match(1)}"}}
	second, _, err := prepared.Create(template, nil)
	done(err, "create a template")
	answer, _, err = prepared.Execute("any-web", nil)
	done(err, "execute a name that it matches")
	equal(answer != nil && answer.Service == "web" && len(answer.Nodes) == 2, true, "gives the service that the name says")
	explained := struct{ Query api.PreparedQueryDefinition }{}
	_, err = client.Raw().Query("/v1/query/any-web/explain", &explained, nil)
	done(err, "explain it")
	equal(explained.Query.Service.Service, "web", "says the same")

	for _, one := range []string{id, second} {
		_, err = prepared.Delete(one, nil)
		done(err, "delete")
	}
	_, _, err = prepared.Get(id, nil)
	refused(err, 404, "Query not found", "get of what is gone")
	_, _, err = prepared.Execute("live-web", nil)
	refused(err, 404, "Query not found", "execute of what is gone")
	_, _, err = prepared.Create(&api.PreparedQueryDefinition{Name: "empty"}, nil)
	refused(err, 500, "Must provide a Service name to query", "a query without a service")
}
