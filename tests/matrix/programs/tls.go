// TLS and HTTP/2 as Go has them: `serve NAME ADDR CERT KEY` and `plain NAME ADDR` answer, `ask URL CA ADDR COUNT` asks many at once
// on one connection, every second of them with a field that a filter may match.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sort"
	"strconv"
	"strings"
	"sync"
)

func answer(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Trailer", "X-Sum")
	body, _ := io.ReadAll(r.Body)
	encrypted := "plain"
	if r.TLS != nil {
		encrypted = r.TLS.ServerName
	}
	fmt.Fprintf(w, "%s %s %s %s", os.Args[2], r.URL.Path, r.Proto, encrypted)
	w.(http.Flusher).Flush()
	w.Header().Set("X-Sum", strconv.Itoa(len(body)))
}

func ask() {
	pem, _ := os.ReadFile(os.Args[3])
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	dial := func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, os.Args[4])
	}
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool}, DialContext: dial, ForceAttemptHTTP2: true,
	}}
	count, _ := strconv.Atoi(os.Args[5])
	told := make([]string, count)
	var all sync.WaitGroup
	for n := range count {
		all.Add(1)
		go func() {
			defer all.Done()
			request, _ := http.NewRequest("POST", fmt.Sprintf("%s/%02d", os.Args[2], n), strings.NewReader(strings.Repeat("x", n*5000)))
			if n%2 == 1 {
				request.Header.Set("X-Me", "alice")
			}
			response, err := client.Do(request)
			if err != nil {
				told[n] = err.Error()
				return
			}
			body, _ := io.ReadAll(response.Body)
			told[n] = fmt.Sprintf("%s %s", body, response.Trailer.Get("X-Sum"))
		}()
	}
	all.Wait()
	sort.Strings(told)
	fmt.Println(strings.Join(told, "\n"))
}

func main() {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	switch os.Args[1] {
	case "ask":
		ask()
	case "serve":
		server := http.Server{Addr: os.Args[3], Handler: http.HandlerFunc(answer), Protocols: &protocols}
		panic(server.ListenAndServeTLS(os.Args[4], os.Args[5]))
	case "plain":
		server := http.Server{Addr: os.Args[3], Handler: http.HandlerFunc(answer), Protocols: &protocols}
		panic(server.ListenAndServe())
	}
}
