package main

import (
	"time"

	"github.com/hashicorp/consul/api"
)

// The same calls over TLS with a client certificate, or over a Unix socket: where to is in the client's environment.
func secure(client *api.Client) {
	here, err := client.Agent().NodeName()
	done(err, "agent NodeName()")
	equal(here, "n1", "is the server's")
	service := &api.AgentServiceRegistration{ID: "own-1", Name: "own", Port: 1, Check: &api.AgentServiceCheck{TTL: "1h"}}
	done(client.Agent().ServiceRegister(service), "register")
	equal(passing(client, "own"), 0, "does not pass yet")
	_, meta, err := client.Health().Service("own", "", true, nil)
	done(err, "health service")
	woken := make(chan int, 1)
	go func() {
		found, _, _ := client.Health().Service("own", "", true, &api.QueryOptions{WaitIndex: meta.LastIndex, WaitTime: time.Minute})
		woken <- len(found)
	}()
	done(client.Agent().PassTTL("service:own-1", ""), "pass")
	select {
	case count := <-woken:
		equal(count, 1, "a blocking read wakes with it")
	case <-time.After(10 * time.Second):
		check(false, "a blocking read wakes with it", "not within 10 s")
	}
	done(client.Agent().ServiceDeregister("own-1"), "deregister")
	services, err := client.Agent().Services()
	done(err, "agent services")
	equal(len(services), 0, "has none")
}

// A client that the server turns away before it can ask.
func stranger(client *api.Client) {
	_, err := client.Agent().Self()
	check(err != nil, "a client without a certificate of the authority is turned away", err)
}
