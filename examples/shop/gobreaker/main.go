// The shop's `checkout`: the guide's circuit breaker program. What it protects is a call of `stock`.
package main

import (
	"fmt"
	"net/http"
	"time"

	"github.com/sony/gobreaker"

	"rollcall/shop/mesh"
)

var breaker = gobreaker.NewCircuitBreaker(gobreaker.Settings{
	Name:        "stock",
	MaxRequests: 5,
	// Counts begin anew now and then, so that what failed long ago does not count for ever.
	Interval: 10 * time.Second,
	Timeout:  10 * time.Second,
	ReadyToTrip: func(counts gobreaker.Counts) bool {
		return counts.Requests >= 10 && float64(counts.TotalFailures)/float64(counts.Requests) >= 0.6
	},
	OnStateChange: func(name string, from, to gobreaker.State) {
		fmt.Printf("breaker of %s: %s to %s\n", name, from, to)
	},
})

func main() {
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		answer, err := breaker.Execute(func() (any, error) { return mesh.Ask(r.Context(), "stock") })
		if err != nil {
			mesh.Reply(w, nil, err)
			return
		}
		mesh.Reply(w, append([]string{mesh.Me("checkout")}, answer.(mesh.Answer).Served...), nil)
	})
	mesh.Serve("checkout")
}
