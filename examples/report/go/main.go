// Calls a service that is found by DNS, and reports how the requests ended: `report SERVICE REQUESTS-PER-SECOND`.
package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"
)

func env(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

// find gives one instance: Go puts SRV records in an order drawn by their weights (RFC 2782).
func find(resolver *net.Resolver, service string) (Instance, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	_, records, err := resolver.LookupSRV(ctx, service, "tcp", "service.internal.")
	if err != nil {
		return Instance{}, err
	}
	if len(records) == 0 {
		return Instance{}, fmt.Errorf("nobody")
	}
	addresses, err := resolver.LookupNetIP(ctx, "ip4", records[0].Target)
	if err != nil {
		return Instance{}, err
	}
	return Instance{Service: service, Address: addresses[0].Unmap().String(), Port: records[0].Port}, nil
}

func call(client *http.Client, of Instance) bool {
	answer, err := client.Get("http://" + net.JoinHostPort(of.Address, strconv.Itoa(int(of.Port))) + "/")
	if err != nil {
		return false
	}
	defer answer.Body.Close()
	_, err = io.Copy(io.Discard, answer.Body)
	return err == nil && answer.StatusCode < 400
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "report SERVICE REQUESTS-PER-SECOND")
		os.Exit(2)
	}
	rate, err := strconv.ParseFloat(os.Args[2], 64)
	if err != nil || rate <= 0 {
		fmt.Fprintln(os.Stderr, "not a rate:", os.Args[2])
		os.Exit(2)
	}
	server := env("ROLLCALL_DNS", "127.0.0.1:8600")
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, server)
	}}
	reporter := NewReporter(env("ROLLCALL_HTTP_ADDR", "http://127.0.0.1:8500"), os.Getenv("ROLLCALL_HTTP_TOKEN"))
	client := &http.Client{Timeout: 2 * time.Second}
	for failed := 0; ; {
		pause := 1 / rate
		if failed > 0 {
			pause = min(pause*float64(int(1)<<min(failed, 5)), 1) * (0.5 + rand.Float64())
		}
		time.Sleep(time.Duration(pause * float64(time.Second)))
		of, err := find(resolver, os.Args[1])
		if err != nil {
			failed++
			fmt.Println("not found:", err)
			continue
		}
		ok := call(client, of)
		reporter.Record(of, ok)
		if ok {
			failed = 0
			fmt.Printf("%s:%d ok\n", of.Address, of.Port)
		} else {
			failed++
			fmt.Printf("%s:%d failed\n", of.Address, of.Port)
		}
	}
}
