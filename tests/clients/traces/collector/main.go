// The OpenTelemetry collector's own OTLP receiver, over gRPC and HTTP; each request's spans are written as a line of OTLP's JSON.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/receiver"
	"go.opentelemetry.io/collector/receiver/otlpreceiver"
)

func main() {
	grpc := flag.String("grpc", "127.0.0.1:4317", "where OTLP over gRPC is taken")
	http := flag.String("http", "127.0.0.1:4318", "where OTLP over HTTP is taken")
	cert := flag.String("cert", "", "the certificate of both, in PEM; without it there is no TLS")
	key := flag.String("key", "", "its key")
	out := flag.String("out", "spans.jsonl", "where spans go")
	flag.Parse()

	file, err := os.OpenFile(*out, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		log.Fatal(err)
	}
	var lock sync.Mutex
	marshaler := ptrace.JSONMarshaler{}
	sink, err := consumer.NewTraces(func(_ context.Context, spans ptrace.Traces) error {
		line, err := marshaler.MarshalTraces(spans)
		if err != nil {
			return err
		}
		lock.Lock()
		defer lock.Unlock()
		_, err = file.Write(append(line, '\n'))
		return err
	})
	if err != nil {
		log.Fatal(err)
	}

	factory := otlpreceiver.NewFactory()
	config := factory.CreateDefaultConfig()
	listener := func(endpoint string) map[string]any {
		settings := map[string]any{"endpoint": endpoint}
		if *cert != "" {
			settings["tls"] = map[string]any{"cert_file": *cert, "key_file": *key}
		}
		return settings
	}
	protocols := map[string]any{"grpc": listener(*grpc), "http": listener(*http)}
	wanted := confmap.NewFromStringMap(map[string]any{"protocols": protocols})
	if err := wanted.Unmarshal(config); err != nil {
		log.Fatal(err)
	}
	settings := receiver.Settings{
		ID:                component.NewID(factory.Type()),
		TelemetrySettings: componenttest.NewNopTelemetrySettings(),
	}
	ctx := context.Background()
	receiver, err := factory.CreateTraces(ctx, settings, config, sink)
	if err != nil {
		log.Fatal(err)
	}
	if err := receiver.Start(ctx, componenttest.NewNopHost()); err != nil {
		log.Fatal(err)
	}
	fmt.Println("ready")
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, os.Interrupt)
	<-stop
	if err := receiver.Shutdown(ctx); err != nil {
		log.Fatal(err)
	}
}
