// Tells what net/http makes of a message: of a request that it gets, as JSON (in Base64) in the field X-Judged of
// its answer; of a response that is posted to /judge, likewise. It says its port on standard output, and serves until standard input ends.
package main

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
)

// Latin1 is text with one character for each octet, so that JSON can hold any octets.
func latin1(octets string) string {
	runes := make([]rune, len(octets))
	for i := 0; i < len(octets); i++ {
		runes[i] = rune(octets[i])
	}
	return string(runes)
}

func fields(header http.Header) map[string][]string {
	found := map[string][]string{}
	for name, values := range header {
		for _, value := range values {
			found[name] = append(found[name], latin1(value))
		}
	}
	return found
}

type meaning struct {
	Error    string
	Method   string
	Target   string
	Host     string
	Status   int
	Fields   map[string][]string
	Trailers map[string][]string
	Body     string
}

func readResponse(reader *bufio.Reader, method string) (*meaning, error) {
	for {
		response, err := http.ReadResponse(reader, &http.Request{Method: method})
		if err != nil {
			return nil, err
		}
		body, err := io.ReadAll(response.Body)
		if err != nil {
			return nil, err
		}
		if response.StatusCode >= 200 {
			return &meaning{
				Status: response.StatusCode, Fields: fields(response.Header),
				Trailers: fields(response.Trailer), Body: latin1(string(body)),
			}, nil
		}
	}
}

func handle(writer http.ResponseWriter, request *http.Request) {
	var found *meaning
	body, err := io.ReadAll(request.Body)
	if err == nil && request.URL.Path == "/judge" {
		found, err = readResponse(bufio.NewReader(bytes.NewReader(body)), request.Header.Get("X-Method"))
	} else if err == nil {
		found = &meaning{
			Method: request.Method, Target: request.RequestURI, Host: request.Host,
			Fields: fields(request.Header), Trailers: fields(request.Trailer), Body: latin1(string(body)),
		}
		if strings.Contains(request.URL.RawQuery, ";") {
			found.Trailers = nil // net/http hands over a copy of such a request, made before they were read
		}
	}
	if err != nil {
		found = &meaning{Error: err.Error()}
	}
	text, err := json.Marshal(found)
	if err != nil {
		panic(err)
	}
	writer.Header().Set("Connection", "close")
	writer.Header().Set("X-Judged", base64.StdEncoding.EncodeToString(text)) // even HEAD gets it
}

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	go func() {
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	server := &http.Server{Handler: http.HandlerFunc(handle), ErrorLog: log.New(io.Discard, "", 0)}
	panic(server.Serve(listener))
}
