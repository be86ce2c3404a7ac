// The shop's front, `web`: the guide's service discovery program, with its imports fixed. It asks three others.
package main

import (
	"net/http"

	"rollcall/shop/mesh"
)

func main() {
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		served := []string{mesh.Me("web")}
		for _, service := range []string{"price", "cart", "checkout"} {
			answer, err := mesh.Ask(r.Context(), service)
			if err != nil {
				mesh.Reply(w, nil, err)
				return
			}
			served = append(served, answer.Served...)
		}
		mesh.Reply(w, served, nil)
	})
	mesh.Serve("web")
}
