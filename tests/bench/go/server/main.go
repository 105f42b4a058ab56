// The token server of the bench: a fixed reply, after a given latency, plain or over TLS.
//
//	server LATENCY [LIFETIME [CERTIFICATE KEY]]
//
// It prints its port, and ends when its stdin does.
package main

import (
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"time"
)

func main() {
	latency, err := time.ParseDuration(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	lifetime := "3600"
	if len(os.Args) > 2 {
		lifetime = os.Args[2]
	}
	var count atomic.Int64
	filler := strings.Repeat("x", 30)
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			fmt.Fprint(w, count.Load())
			return
		}
		io.Copy(io.Discard, r.Body)
		time.Sleep(latency)
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"access_token":"%s%010d","token_type":"Bearer","expires_in":%s}`, filler, count.Add(1), lifetime)
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	go func() {
		if len(os.Args) > 4 {
			log.Fatal(http.ServeTLS(listener, handler, os.Args[3], os.Args[4]))
		}
		log.Fatal(http.Serve(listener, handler))
	}()
	io.Copy(io.Discard, os.Stdin)
}
