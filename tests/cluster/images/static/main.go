// The only file of the image localhost/static:1, as in a distroless one: a service that answers who it is, and forwards
// what is asked below /via/ to the address in UPSTREAM.
package main

import (
	"encoding/json"
	"io"
	"log"
	"net/http"
	"os"
	"strings"
)

func main() {
	http.HandleFunc("/via/", func(w http.ResponseWriter, r *http.Request) {
		answer, err := http.Get("http://" + os.Getenv("UPSTREAM") + "/" + strings.TrimPrefix(r.URL.Path, "/via/"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer answer.Body.Close()
		w.WriteHeader(answer.StatusCode)
		io.Copy(w, answer.Body)
	})
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		log.Print(r.Method, " ", r.URL, " from ", r.RemoteAddr)
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(map[string]string{"service": "catalog", "pod": os.Getenv("POD_NAME"), "path": r.URL.Path, "peer": r.RemoteAddr})
	})
	log.Fatal(http.ListenAndServe(":8080", nil))
}
