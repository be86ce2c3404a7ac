// CoreDNS with nothing but the plugins that serve zone files and count: the server that Kubernetes runs, to compare with.
// Built from the module proxy by run.py.
package main

import (
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"
	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/file"
	_ "github.com/coredns/coredns/plugin/metrics"
)

func main() {
	dnsserver.Directives = []string{"bind", "prometheus", "file"}
	coremain.Run()
}
