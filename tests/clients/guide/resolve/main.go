// Go's own resolver (not cgo's) against Rollcall: net.Resolver.LookupSRV and LookupHost. Go refuses SRV answers whose
// target is compressed and drops those whose target is no host name. The server is the first argument.
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"reflect"
	"sort"
	"strings"
	"time"
)

var failed int

func equal(got, wanted any, what string) {
	if reflect.DeepEqual(got, wanted) {
		fmt.Println("ok    " + what)
		return
	}
	failed++
	fmt.Printf("FAIL  %s: got %#v, wanted %#v\n", what, got, wanted)
}

func main() {
	server := os.Args[1]
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	resolver := func(network string) *net.Resolver {
		return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, asked, _ string) (net.Conn, error) {
			if network != "" {
				asked = network
			}
			return (&net.Dialer{}).DialContext(ctx, asked, server)
		}}
	}
	for _, network := range []string{"", "tcp"} {
		r, over := resolver(network), "udp"
		if network != "" {
			over = network
		}
		for _, name := range []string{"web.service.consul.", "_web._tcp.service.internal.", "_web._v1.service.consul.",
			"WEB.Service.Internal."} {
			_, found, err := r.LookupSRV(ctx, "", "", name)
			equal(err, error(nil), over+" LookupSRV "+name)
			ports := []string{}
			for _, one := range found {
				hosts, err := r.LookupHost(ctx, one.Target)
				if err != nil {
					hosts = []string{err.Error()}
				}
				ports = append(ports, fmt.Sprintf("%s:%d/%d/%d", strings.Join(hosts, ","), one.Port, one.Priority, one.Weight))
			}
			sort.Strings(ports)
			equal(ports, []string{"192.0.2.11:8001/1/1", "192.0.2.12:8002/1/5"}, over+" "+name+" has both, and their targets resolve")
		}
		_, found, err := r.LookupSRV(ctx, "web", "tcp", "service.consul.")
		equal(err, error(nil), over+" LookupSRV(web, tcp, service.consul.)")
		equal(len(found), 2, over+" the three-part form has both")
		hosts, err := r.LookupHost(ctx, "web.service.consul.")
		equal(err, error(nil), over+" LookupHost")
		sort.Strings(hosts)
		equal(hosts, []string{"192.0.2.11", "192.0.2.12"}, over+" LookupHost has both")
		hosts, err = r.LookupHost(ctx, "six.service.consul.")
		equal(err, error(nil), over+" LookupHost of a service that has IPv6 only")
		equal(hosts, []string{"2001:db8::66"}, over+" its address")
		texts, err := r.LookupTXT(ctx, "nobody.service.consul.")
		var no *net.DNSError
		equal(errors.As(err, &no) && no.IsNotFound && len(texts) == 0, true, over+" an unknown service is not found")
		_, err = r.LookupHost(ctx, "idle.service.consul.")
		equal(errors.As(err, &no) && no.IsNotFound && !no.IsTemporary, true, over+" a service with nobody healthy is not found, for good")
		_, many, err := r.LookupSRV(ctx, "", "", "many.service.consul.")
		equal(err, error(nil), over+" LookupSRV of 120 instances")
		equal(len(many), 120, over+" has them all, over TCP after a truncated answer if need be")
		names, err := r.LookupAddr(ctx, "192.0.2.11")
		equal(err == nil && len(names) > 0, true, over+" LookupAddr of an instance's address")
	}
	if failed > 0 {
		os.Exit(1)
	}
}
