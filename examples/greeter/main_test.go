package main

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func get(g *greeter, method, target, body string) *http.Response {
	recorder := httptest.NewRecorder()
	g.ServeHTTP(recorder, httptest.NewRequest(method, target, strings.NewReader(body)))
	return recorder.Result()
}

func text(t *testing.T, response *http.Response) string {
	t.Helper()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func TestSaysHelloAndWhoItIs(t *testing.T) {
	response := get(&greeter{options: options{id: "greeter-a"}}, "GET", "/any/path", "")
	if got := text(t, response); got != "Hello, World! I am greeter-a.\n" {
		t.Errorf("body %q", got)
	}
	if got := response.Header.Get("X-Greeter"); got != "greeter-a" {
		t.Errorf("X-Greeter %q", got)
	}
}

func TestEchoesTheRequest(t *testing.T) {
	var seen struct {
		Method, Path, Body string
		Headers            map[string][]string
	}
	response := get(&greeter{}, "PUT", "/echo?a=1", "ping")
	if err := json.NewDecoder(response.Body).Decode(&seen); err != nil {
		t.Fatal(err)
	}
	if seen.Method != "PUT" || seen.Path != "/echo?a=1" || seen.Body != "ping" {
		t.Errorf("%+v", seen)
	}
	if host := seen.Headers["host"]; len(host) != 1 || host[0] != "example.com" {
		t.Errorf("host %q", host)
	}
}

func TestStreamsBytes(t *testing.T) {
	for path, size := range map[string]int{"/bytes/0": 0, "/bytes/1": 1, "/bytes/100000": 100000} {
		if got := len(text(t, get(&greeter{}, "GET", path, ""))); got != size {
			t.Errorf("%s: %d bytes", path, got)
		}
	}
}

func TestOnlyWholeNumbersAreSizes(t *testing.T) {
	for _, path := range []string{"/bytes/", "/bytes/-1", "/bytes/x", "7"} {
		if size, ok := bytesPath(path); ok {
			t.Errorf("%s: %d", path, size)
		}
	}
}

func TestFailsEveryNthButNoHealthCheck(t *testing.T) {
	g := &greeter{options: options{failEvery: 3}}
	var statuses []int
	for i := 0; i < 6; i++ {
		if status := get(g, "GET", "/healthz", "").StatusCode; status != 200 {
			t.Errorf("health check %d", status)
		}
		statuses = append(statuses, get(g, "GET", "/", "").StatusCode)
	}
	for i, want := range []int{200, 200, 500, 200, 200, 500} {
		if statuses[i] != want {
			t.Errorf("request %d: %d, not %d", i, statuses[i], want)
		}
	}
}

func TestIsUnhealthyWhileDraining(t *testing.T) {
	g := &greeter{}
	if status := get(g, "GET", "/healthz", "").StatusCode; status != 200 {
		t.Errorf("health check %d before", status)
	}
	g.draining.Store(true)
	if status := get(g, "GET", "/healthz", "").StatusCode; status != 503 {
		t.Errorf("health check %d while draining", status)
	}
}
