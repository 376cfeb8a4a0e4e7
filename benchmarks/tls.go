// The server and the load of `./run bench --steal --tls`, as http.c without TLS: `serve HOST PORT CERT KEY`, and
// `load HOST PORT CONNECTIONS SECONDS RATE CERT NEW`, which prints requests/s, and p50 and p99 in µs. RATE 0: as fast as answers come; else
// latency counts from when a request was due. NEW 1: a connection for each request.
package main

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sort"
	"strconv"
	"sync"
	"time"
)

const request = "GET /some/path HTTP/1.1\r\nHost: orders.staging.internal\r\nUser-Agent: load\r\nAccept: */*\r\n\r\n"

func number(n int) int {
	value, err := strconv.Atoi(os.Args[n])
	if err != nil {
		panic(err)
	}
	return value
}

func serve() {
	handler := func(w http.ResponseWriter, r *http.Request) { w.Write([]byte("0123456789")) }
	listener, err := net.Listen("tcp", net.JoinHostPort(os.Args[2], os.Args[3]))
	if err != nil {
		panic(err)
	}
	fmt.Println("ready")
	server := http.Server{Handler: http.HandlerFunc(handler), TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){}}
	panic(server.ServeTLS(listener, os.Args[4], os.Args[5]))
}

type client struct {
	address string
	config  *tls.Config
	once    bool
	conn    net.Conn
	reader  *bufio.Reader
}

func (c *client) ask() error {
	if c.conn == nil {
		raw, err := net.Dial("tcp", c.address)
		if err != nil {
			return err
		}
		c.conn = tls.Client(raw, c.config)
		c.reader = bufio.NewReader(c.conn)
	}
	if _, err := io.WriteString(c.conn, request); err != nil {
		return err
	}
	response, err := http.ReadResponse(c.reader, nil)
	if err != nil {
		return err
	}
	io.Copy(io.Discard, response.Body)
	if c.once {
		c.conn.Close()
		c.conn = nil
	}
	return nil
}

func load() {
	connections, rate := number(4), number(6)
	seconds, err := strconv.ParseFloat(os.Args[5], 64)
	if err != nil {
		panic(err)
	}
	pem, err := os.ReadFile(os.Args[7])
	if err != nil {
		panic(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	config := &tls.Config{RootCAs: pool, ServerName: "orders.staging.internal"}
	begun := time.Now()
	end := begun.Add(time.Duration(seconds * float64(time.Second)))
	var all sync.WaitGroup
	took := make([][]time.Duration, connections)
	for n := range connections {
		all.Add(1)
		go func() {
			defer all.Done()
			c := &client{address: net.JoinHostPort(os.Args[2], os.Args[3]), config: config, once: os.Args[8] == "1"}
			for round := 0; ; round++ {
				due := time.Now()
				if rate > 0 {
					due = begun.Add(time.Duration(round*connections+n) * time.Second / time.Duration(rate))
					time.Sleep(time.Until(due))
				}
				if due.After(end) {
					return
				}
				if err := c.ask(); err != nil {
					panic(err)
				}
				took[n] = append(took[n], time.Since(due))
			}
		}()
	}
	all.Wait()
	var sorted []time.Duration
	for _, each := range took {
		sorted = append(sorted, each...)
	}
	sort.Slice(sorted, func(a, b int) bool { return sorted[a] < sorted[b] })
	at := func(share float64) int64 { return sorted[int(share*float64(len(sorted)-1))].Microseconds() }
	fmt.Printf("%.1f %d %d\n", float64(len(sorted))/seconds, at(0.5), at(0.99))
}

func main() {
	if os.Args[1] == "serve" {
		serve()
	}
	load()
}
