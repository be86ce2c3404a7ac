// Package mesh is what the shop's Go programs share: each finds the others by DNS alone, tells Rollcall that it is there,
// and leaves DNS before it ends.
//
// The environment says who a program is: ADDRESS and PORT where it serves, VERSION (blue or green), ROLLCALL_DNS
// (host:port), CONSUL_HTTP_ADDR as the official client reads it, and GRACE, the seconds between leaving and ending.
package mesh

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/consul/api"
)

// Answer is what every service of the shop gives: who took part in it, as "name/version".
type Answer struct {
	Served []string `json:"served"`
}

// Me is the part that the service itself has in an answer.
func Me(name string) string { return name + "/" + os.Getenv("VERSION") }

var resolver = &net.Resolver{
	PreferGo: true,
	Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, os.Getenv("ROLLCALL_DNS"))
	},
}

var client = &http.Client{
	Timeout:   2 * time.Second,
	Transport: &http.Transport{MaxIdleConnsPerHost: 16, IdleConnTimeout: 3 * time.Second},
}

// Find gives host:port of an instance. LookupSRV has put the records in an order drawn by their weights (RFC 2782).
func Find(ctx context.Context, service string) (string, error) {
	_, records, err := resolver.LookupSRV(ctx, service, "tcp", "service.internal.")
	if err != nil {
		return "", err
	}
	addresses, err := resolver.LookupNetIP(ctx, "ip4", records[0].Target)
	if err != nil {
		return "", err
	}
	return net.JoinHostPort(addresses[0].String(), strconv.Itoa(int(records[0].Port))), nil
}

// Ask makes one request of an instance of the service. It is not repeated: whatever fails is seen to fail.
func Ask(ctx context.Context, service string) (Answer, error) {
	var answer Answer
	at, err := Find(ctx, service)
	if err != nil {
		return answer, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+at+"/", nil)
	if err != nil {
		return answer, err
	}
	response, err := client.Do(request)
	if err != nil {
		return answer, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return answer, fmt.Errorf("%s at %s: %s", service, at, response.Status)
	}
	return answer, json.NewDecoder(response.Body).Decode(&answer)
}

// Reply writes an answer, or what went wrong as 502.
func Reply(w http.ResponseWriter, served []string, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(Answer{served})
}

// Serve listens, registers the service, and on SIGTERM takes it out of DNS, waits until no cache can have it, and ends.
func Serve(name string) {
	address, version := os.Getenv("ADDRESS"), os.Getenv("VERSION")
	port, err := strconv.Atoi(os.Getenv("PORT"))
	if err != nil {
		log.Fatal("PORT: ", err)
	}
	grace, err := time.ParseDuration(os.Getenv("GRACE") + "s")
	if err != nil {
		log.Fatal("GRACE: ", err)
	}
	consul, err := api.NewClient(api.DefaultConfig())
	if err != nil {
		log.Fatal(err)
	}
	http.HandleFunc("/health", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "OK") })
	server := &http.Server{Addr: net.JoinHostPort(address, strconv.Itoa(port))}
	failed := make(chan error, 1)
	go func() { failed <- server.ListenAndServe() }()

	id := strings.Join([]string{name, version, address}, "-")
	err = consul.Agent().ServiceRegister(&api.AgentServiceRegistration{
		ID:      id,
		Name:    name,
		Address: address,
		Port:    port,
		Tags:    []string{version},
		Meta:    map[string]string{"version": version},
		Check: &api.AgentServiceCheck{
			HTTP:     fmt.Sprintf("http://%s:%d/health", address, port),
			Interval: "10s",
			Timeout:  "5s",
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s listening on %s\n", id, server.Addr)

	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, os.Interrupt)
	select {
	case err := <-failed:
		log.Fatal(err)
	case <-stop:
	}
	if err := consul.Agent().EnableServiceMaintenance(id, "stopping"); err != nil {
		log.Fatal(err)
	}
	time.Sleep(grace)
	if err := server.Shutdown(context.Background()); err != nil {
		log.Fatal(err)
	}
	if err := consul.Agent().ServiceDeregister(id); err != nil {
		log.Fatal(err)
	}
}
