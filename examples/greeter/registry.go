package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

var errForgotten = errors.New("the registry does not know us")

// instance is a registration by Consul's agent API, of which lb's registry speaks a part.
type instance struct {
	agent  string // the URL up to and with /v1/agent/
	client http.Client
	ID     string
	Name   string
	// Without one it is where the registry sees us.
	Address string `json:",omitempty"`
	Port    int
	Check   check
}

type check struct {
	CheckID                        string
	TTL                            string
	Status                         string
	DeregisterCriticalServiceAfter string
}

// register keeps a greeter registered, and returns what deregisters it. Nobody waits for the registry: where it
// is away, the greeter comes in when it is back.
func register(o options, bound *net.TCPAddr) (leave func()) {
	i := &instance{
		agent:  strings.TrimRight(o.registry, "/") + "/v1/agent/",
		client: http.Client{Timeout: 5 * time.Second},
		ID:     o.id,
		Name:   "greeter",
		Port:   bound.Port,
		Check:  check{"service:" + o.id, o.ttl.String(), "passing", "1m"},
	}
	if !bound.IP.IsUnspecified() {
		i.Address = bound.IP.String()
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		i.beat(o.ttl/3, stop)
	}()
	return func() {
		close(stop)
		<-stopped
		if err := i.put("service/deregister/"+url.PathEscape(i.ID), nil); err != nil {
			log.Print("not deregistered: ", err)
		}
	}
}

// beat registers, and says again and again that we are well; sooner again where the registry fails.
func (i *instance) beat(every time.Duration, stop <-chan struct{}) {
	registered, well := false, true
	for {
		wait := every
		err := i.once(&registered)
		if err != nil {
			if well {
				log.Print("the registry does not take us: ", err)
			}
			if every > time.Second {
				wait = time.Second
			}
		}
		well = err == nil
		select {
		case <-stop:
			return
		case <-time.After(wait):
		}
	}
}

func (i *instance) once(registered *bool) error {
	if *registered {
		err := i.put("check/pass/"+url.PathEscape(i.Check.CheckID), nil)
		if !errors.Is(err, errForgotten) {
			return err
		}
	}
	body, err := json.Marshal(i)
	if err == nil {
		err = i.put("service/register", body)
	}
	*registered = err == nil
	return err
}

func (i *instance) put(path string, body []byte) error {
	request, err := http.NewRequest(http.MethodPut, i.agent+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	response, err := i.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	words, _ := io.ReadAll(io.LimitReader(response.Body, 4096))
	switch response.StatusCode {
	case http.StatusOK:
		return nil
	case http.StatusNotFound:
		return errForgotten
	}
	return fmt.Errorf("%s: %s", response.Status, bytes.TrimSpace(words))
}
