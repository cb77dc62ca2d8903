// Greeter is the small HTTP service that demos and tests put behind the balancer.
//
//	go run . -id greeter-a -bind 127.0.0.1:9001
//
//	/healthz   200, or 503 from SIGTERM on
//	/echo      the request as JSON: method, path, headers (names in lower case), body
//	/bytes/N   N bytes, streamed
//	any other  Hello, World! I am greeter-a.
//
// Every answer names the replica in X-Greeter. SIGTERM and SIGINT drain: the health check fails at once, new
// requests are still taken for -drain-delay, then those in flight are waited for. A second one exits at once.
// With -registry it registers as an instance of the service greeter, and SIGTERM deregisters it first.
// The same service in Python is lb/demo/greeter.py; both pass the same tests.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

const maxEcho = 16 << 20 // bytes of a body that /echo takes

var piece = bytes.Repeat([]byte("0123456789abcdef"), 4096) // what /bytes/N sends again and again: 64 KiB

type options struct {
	id           string
	bind         string
	delay        time.Duration
	failEvery    uint64 // every how many requests one is answered with 500; 0 is never
	drainDelay   time.Duration
	drainTimeout time.Duration
	registry     string // the URL of one to register at
	ttl          time.Duration
}

// greeter is the service.
type greeter struct {
	options
	draining atomic.Bool
	requests atomic.Uint64
}

func (g *greeter) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Greeter", g.id)
	if r.URL.Path == "/healthz" {
		g.healthz(w)
		return
	}
	time.Sleep(g.delay)
	if g.failEvery > 0 && g.requests.Add(1)%g.failEvery == 0 {
		http.Error(w, "failing on purpose", http.StatusInternalServerError)
		return
	}
	switch size, ok := bytesPath(r.URL.Path); {
	case ok:
		stream(w, size)
	case r.URL.Path == "/echo":
		g.echo(w, r)
	default:
		g.hello(w, r)
	}
}

func (g *greeter) healthz(w http.ResponseWriter) {
	if g.draining.Load() {
		http.Error(w, "draining", http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ok")
}

func (g *greeter) hello(w http.ResponseWriter, r *http.Request) {
	// An upload is read to its end, so that the connection can be used again.
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		http.Error(w, "the body broke off", http.StatusBadRequest)
		return
	}
	fmt.Fprintf(w, "Hello, World! I am %s.\n", g.id)
}

func (g *greeter) echo(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxEcho))
	if err != nil {
		status := http.StatusBadRequest
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			status = http.StatusRequestEntityTooLarge
		}
		http.Error(w, err.Error(), status)
		return
	}
	headers := map[string][]string{"host": {r.Host}} // Go keeps it apart from the others
	for name, values := range r.Header {
		headers[strings.ToLower(name)] = values
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(map[string]any{
		"greeter": g.id,
		"method":  r.Method,
		"path":    r.RequestURI,
		"headers": headers,
		"body":    string(body),
		"length":  len(body),
	})
}

func bytesPath(path string) (size int64, ok bool) {
	digits := strings.TrimPrefix(path, "/bytes/")
	size, err := strconv.ParseInt(digits, 10, 64)
	return size, err == nil && size >= 0 && digits != path
}

func stream(w http.ResponseWriter, left int64) {
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.FormatInt(left, 10))
	for left > 0 {
		next := piece
		if left < int64(len(next)) {
			next = next[:left]
		}
		n, err := w.Write(next)
		if err != nil {
			return // the client is gone, or it was a HEAD
		}
		left -= int64(n)
	}
}

// serve runs until the context ends, gives the signals back with stop, and drains.
func serve(stopped context.Context, stop context.CancelFunc, g *greeter, listener net.Listener) error {
	server := &http.Server{Handler: g, ReadHeaderTimeout: 10 * time.Second}
	leave := func() {}
	if g.registry != "" {
		leave = register(g.options, listener.Addr().(*net.TCPAddr))
	}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	select {
	case err := <-failed:
		return err
	case <-stopped.Done():
	}
	stop() // the next signal ends us, no matter what we wait for
	leave()
	g.draining.Store(true)
	time.Sleep(g.drainDelay)
	limit, cancel := context.WithTimeout(context.Background(), g.drainTimeout)
	defer cancel()
	return server.Shutdown(limit)
}

// arguments reads the command line; where it is silent, GREETER_ID and PORT are asked.
func arguments(args []string) (options, error) {
	hostname, _ := os.Hostname() // none: -id or GREETER_ID says it
	var o options
	flags := flag.NewFlagSet("greeter", flag.ContinueOnError)
	flags.StringVar(&o.id, "id", either("GREETER_ID", hostname), "who this replica is")
	flags.StringVar(&o.bind, "bind", "0.0.0.0:"+either("PORT", "8080"), "host:port; port 0 is any")
	flags.DurationVar(&o.delay, "delay", 0, "how long to work on each answer, such as 50ms")
	flags.Uint64Var(&o.failEvery, "fail-every", 0, "answer every Nth request with 500")
	flags.DurationVar(&o.drainDelay, "drain-delay", 0, "go on taking requests after SIGTERM")
	flags.DurationVar(&o.drainTimeout, "drain-timeout", 25*time.Second, "wait for requests in flight")
	flags.StringVar(&o.registry, "registry", "", "URL of a registry to register at as an instance of greeter")
	flags.DurationVar(&o.ttl, "ttl", 10*time.Second, "out of rotation without a heartbeat for so long")
	err := flags.Parse(args)
	return o, err
}

func either(variable, otherwise string) string {
	if value := os.Getenv(variable); value != "" {
		return value
	}
	return otherwise
}

func run() error {
	o, err := arguments(os.Args[1:])
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", o.bind)
	if err != nil {
		return err
	}
	stopped, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	fmt.Printf("%s listening on http://%s\n", o.id, listener.Addr())
	return serve(stopped, stop, &greeter{options: o}, listener)
}

func main() {
	if err := run(); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "greeter:", err)
		}
		os.Exit(1)
	}
}
