package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sort"
	"sync"
	"sync/atomic"
	"time"
)

func main() {
	host, _ := os.Hostname()
	data, err := os.ReadFile("/srv/config.txt")
	fmt.Print(os.Getenv("GREETING"), " ", host, " ", string(data), err, "\n")
	_, err = os.ReadFile("/srv/none")
	fmt.Println(err)
	entries, _ := os.ReadDir("/srv/folder")
	for _, entry := range entries {
		fmt.Println(entry.Name(), entry.IsDir())
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	addresses, err := net.DefaultResolver.LookupHost(ctx, "db.staging.internal")
	sort.Strings(addresses)
	fmt.Println(addresses, err)
	addresses, err = net.DefaultResolver.LookupHost(ctx, "db")
	fmt.Println(addresses, err)
	_, err = net.DefaultResolver.LookupHost(ctx, "nowhere.staging.internal.")
	fmt.Println(err)
	for n := 0; n < 3; n++ {
		answer, err := http.Get("http://orders.staging.internal:8080/go")
		if err != nil {
			fmt.Println(err)
			return
		}
		body, _ := io.ReadAll(answer.Body)
		answer.Body.Close()
		fmt.Print(answer.Status, " ", string(body))
	}
	_, err = net.Dial("tcp", "10.77.0.20:7999")
	fmt.Println(err)
	greeter, err := net.Dial("tcp", "10.77.0.20:7002")
	line := make([]byte, 50)
	size, _ := greeter.Read(line)
	fmt.Print(string(line[:size]), greeter.RemoteAddr(), err, "\n")
	datagrams, _ := net.Dial("udp", "10.77.0.20:7000")
	datagrams.Write([]byte("hi"))
	size, _ = datagrams.Read(line)
	fmt.Println(string(line[:size]), datagrams.RemoteAddr(), datagrams.LocalAddr().(*net.UDPAddr).IP)
	packets, _ := net.ListenPacket("udp", ":0")
	packets.WriteTo([]byte("ho"), datagrams.RemoteAddr())
	size, from, _ := packets.ReadFrom(line)
	fmt.Println(string(line[:size]), from)
	var wait sync.WaitGroup
	var good int64
	for n := 0; n < 100; n++ {
		wait.Add(1)
		go func() {
			defer wait.Done()
			if conn, err := net.Dial("tcp", "10.77.0.20:7000"); err == nil {
				conn.Write([]byte("go"))
				answer := make([]byte, 2)
				if _, err = io.ReadFull(conn, answer); err == nil {
					atomic.AddInt64(&good, 1)
				}
				conn.Close()
			} else {
				fmt.Println(err)
			}
		}()
	}
	wait.Wait()
	fmt.Println(good, "at once")
	own, _ := net.Listen("tcp", "127.0.0.1:0")
	go http.Serve(own, http.NotFoundHandler())
	answer, err := http.Get("http://" + own.Addr().String())
	fmt.Println(err, answer != nil && answer.StatusCode == 404)
}
