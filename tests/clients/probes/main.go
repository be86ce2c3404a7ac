// Targets of every kind of probe but HTTP, each as its own library serves it: gRPC's health service, net/http over
// HTTP/2 with and without TLS, UDP. "probed ADDRESS CA-FILE" listens on the ports below, writes the CA of its
// certificates to the file, and prints "listening". A line "SERVICE STATUS" on its control port sets a gRPC status.
package main

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	health_v1 "google.golang.org/grpc/health/grpc_health_v1"
)

// The ports, in the order in which run.py knows them.
const (
	control = iota + 9200
	grpcPlain
	grpcTLS
	grpcExpired
	grpcNoHealth
	http2Plain
	http2TLS
	http1Plain
	udpEcho
	udpSilent
)

const name = "probed.example"

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}

// authority signs certificates for `name`.
type authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newAuthority(file string) authority {
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "the CA of a test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der := must(x509.CreateCertificate(rand.Reader, template, template, key.Public(), key))
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if err := os.WriteFile(file, text, 0o644); err != nil {
		log.Fatal(err)
	}
	return authority{key, must(x509.ParseCertificate(der))}
}

func (ca authority) config(until time.Time, alpn ...string) *tls.Config {
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), DNSNames: []string{name},
		NotBefore: until.Add(-24 * time.Hour), NotAfter: until,
	}
	der := must(x509.CreateCertificate(rand.Reader, template, ca.cert, key.Public(), ca.key))
	pair := tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	return &tls.Config{Certificates: []tls.Certificate{pair}, NextProtos: alpn}
}

func main() {
	address, ca := os.Args[1], newAuthority(os.Args[2])
	listen := func(port int) net.Listener {
		return must(net.Listen("tcp", fmt.Sprintf("%s:%d", address, port)))
	}
	valid := time.Now().Add(time.Hour)
	statuses := health.NewServer()
	statuses.SetServingStatus("down", health_v1.HealthCheckResponse_NOT_SERVING)
	statuses.SetServingStatus("changing", health_v1.HealthCheckResponse_SERVING)

	serveGRPC := func(port int, withHealth bool, options ...grpc.ServerOption) {
		server := grpc.NewServer(options...)
		if withHealth {
			health_v1.RegisterHealthServer(server, statuses)
		}
		listener := listen(port)
		go func() { log.Fatal(server.Serve(listener)) }()
	}
	serveGRPC(grpcPlain, true)
	serveGRPC(grpcTLS, true, grpc.Creds(credentials.NewTLS(ca.config(valid))))
	serveGRPC(grpcExpired, true, grpc.Creds(credentials.NewTLS(ca.config(time.Now().Add(-72*time.Hour)))))
	serveGRPC(grpcNoHealth, false)

	http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "OK") })
	clear := new(http.Protocols)
	clear.SetUnencryptedHTTP2(true)
	one := new(http.Protocols)
	one.SetHTTP1(true)
	serveHTTP := func(listener net.Listener, protocols *http.Protocols) {
		server := &http.Server{Protocols: protocols, ErrorLog: log.New(os.Stdout, "", 0)}
		go func() { log.Fatal(server.Serve(listener)) }()
	}
	serveHTTP(listen(http2Plain), clear)
	serveHTTP(listen(http1Plain), one)
	secure := &http.Server{TLSConfig: ca.config(valid, "h2", "http/1.1"), ErrorLog: log.New(os.Stdout, "", 0)}
	secureListener := listen(http2TLS)
	go func() { log.Fatal(secure.ServeTLS(secureListener, "", "")) }()

	echo := must(net.ListenPacket("udp", fmt.Sprintf("%s:%d", address, udpEcho)))
	go func() {
		buffer := make([]byte, 1024)
		for {
			length, from, err := echo.ReadFrom(buffer)
			if err == nil {
				_, err = echo.WriteTo(buffer[:length], from)
			}
			if err != nil {
				log.Print(err)
			}
		}
	}()
	// Held open and never read.
	silent := must(net.ListenPacket("udp", fmt.Sprintf("%s:%d", address, udpSilent)))
	defer silent.Close()

	controls := listen(control)
	fmt.Println("listening")
	for {
		connection := must(controls.Accept())
		lines := bufio.NewScanner(connection)
		for lines.Scan() {
			service, status, _ := strings.Cut(lines.Text(), " ")
			statuses.SetServingStatus(service,
				health_v1.HealthCheckResponse_ServingStatus(health_v1.HealthCheckResponse_ServingStatus_value[status]))
			fmt.Fprintln(connection, "done")
		}
		connection.Close()
	}
}
