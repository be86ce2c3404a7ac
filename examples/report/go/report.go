package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"
)

const (
	every        = time.Second // between batches
	waitMax      = 30 * time.Second
	instancesMax = 1000      // in a batch, and kept; Rollcall takes as many
	requestsMax  = 1_000_000 // in one report
)

// Instance is who was called.
type Instance struct {
	Service string
	Address string
	Port    uint16
}

type counts struct{ Success, Failure int }

// Reporter counts requests, and reports them from a goroutine of its own.
type Reporter struct {
	server, token string
	client        http.Client
	mutex         sync.Mutex
	counts        map[Instance]counts
}

// NewReporter starts one that goes on until the program ends.
func NewReporter(server, token string) *Reporter {
	r := &Reporter{server: server, token: token, client: http.Client{Timeout: 5 * time.Second}, counts: map[Instance]counts{}}
	go r.run()
	return r
}

// Record counts a request.
func (r *Reporter) Record(of Instance, ok bool) {
	if ok {
		r.add(of, counts{Success: 1})
	} else {
		r.add(of, counts{Failure: 1})
	}
}

func (r *Reporter) add(of Instance, more counts) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	own, known := r.counts[of]
	if !known && len(r.counts) >= instancesMax {
		return
	}
	own.Success = min(own.Success+more.Success, requestsMax/2)
	own.Failure = min(own.Failure+more.Failure, requestsMax/2)
	r.counts[of] = own
}

func (r *Reporter) run() {
	for failed := 0; ; {
		pause := every
		if failed > 0 {
			pause = min(every<<min(failed, 10), waitMax)
			pause = time.Duration(float64(pause) * (0.5 + rand.Float64()/2))
			fmt.Printf("reporting failed %d times, again in %.1f s\n", failed, pause.Seconds())
		}
		time.Sleep(pause)
		if r.send() {
			failed = 0
		} else {
			failed++
		}
	}
}

// send says whether there is nothing left to send.
func (r *Reporter) send() bool {
	r.mutex.Lock()
	taken := r.counts
	r.counts = map[Instance]counts{}
	r.mutex.Unlock()
	if len(taken) == 0 {
		return true
	}
	type report struct {
		Instance
		counts
	}
	var batch struct{ Reports []report }
	for of, n := range taken {
		batch.Reports = append(batch.Reports, report{of, n})
	}
	if r.put(batch) {
		return true
	}
	for of, n := range taken {
		r.add(of, n)
	}
	return false
}

func (r *Reporter) put(batch any) bool {
	body, err := json.Marshal(batch)
	if err != nil {
		panic(err) // Texts and numbers can always be written.
	}
	request, err := http.NewRequest(http.MethodPut, r.server+"/v1/rollcall/report", bytes.NewReader(body))
	if err != nil {
		fmt.Println("refused:", err)
		return true
	}
	if r.token != "" {
		request.Header.Set("X-Consul-Token", r.token)
	}
	answer, err := r.client.Do(request)
	if err != nil {
		return false
	}
	defer answer.Body.Close()
	text, _ := io.ReadAll(answer.Body)
	if answer.StatusCode == http.StatusTooManyRequests || answer.StatusCode >= 500 {
		return false
	}
	if answer.StatusCode != http.StatusOK {
		fmt.Println("refused:", answer.Status, string(text)) // It would be refused again.
	}
	return true
}
