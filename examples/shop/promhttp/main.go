// The shop's `price`: the guide's metrics program. It counts its requests, and Prometheus may read them at /metrics.
package main

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"rollcall/shop/mesh"
)

var requests = promauto.NewCounterVec(
	prometheus.CounterOpts{Name: "http_requests_total", Help: "Total number of HTTP requests."},
	[]string{"path"},
)

func main() {
	http.HandleFunc("/{$}", func(w http.ResponseWriter, r *http.Request) {
		requests.With(prometheus.Labels{"path": r.URL.Path}).Inc()
		mesh.Reply(w, []string{mesh.Me("price")}, nil)
	})
	http.Handle("/metrics", promhttp.Handler())
	mesh.Serve("price")
}
