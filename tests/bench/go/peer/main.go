// The anchor of the bench: a Go program that does the same work with x/oauth2's clientcredentials.
//
//	peer URL DIRECTORY CLIENTS TOKENS CONCURRENCY [CA]
//
// It gets TOKENS tokens for each of CLIENTS clients, CONCURRENCY at once, and writes each to
// DIRECTORY/cN/tN with fsync and rename.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

func number(text string) int {
	value, err := strconv.Atoi(text)
	if err != nil {
		log.Fatal(err)
	}
	return value
}

// publish replaces a file: written in full beside it, synced, renamed, and the directory synced.
func publish(path string, token string) error {
	directory := filepath.Dir(path)
	file, err := os.CreateTemp(directory, ".tmp")
	if err != nil {
		return err
	}
	if _, err = file.WriteString(token); err == nil {
		err = file.Chmod(0o640)
	}
	if err == nil {
		err = file.Sync()
	}
	if closed := file.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		return err
	}
	handle, err := os.Open(directory)
	if err != nil {
		return err
	}
	defer handle.Close()
	return handle.Sync()
}

func main() {
	url, directory := os.Args[1], os.Args[2]
	clients, tokens, concurrency := number(os.Args[3]), number(os.Args[4]), number(os.Args[5])
	transport := &http.Transport{MaxIdleConnsPerHost: concurrency, MaxConnsPerHost: concurrency}
	if len(os.Args) > 6 {
		text, err := os.ReadFile(os.Args[6])
		if err != nil {
			log.Fatal(err)
		}
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(text)
		transport.TLSClientConfig = &tls.Config{RootCAs: pool}
	}
	ctx := context.WithValue(context.Background(), oauth2.HTTPClient, &http.Client{Transport: transport})
	names := make(chan [2]int)
	var workers sync.WaitGroup
	for range make([]struct{}, concurrency) {
		workers.Add(1)
		go func() {
			defer workers.Done()
			for name := range names {
				config := clientcredentials.Config{
					ClientID: "x", ClientSecret: "s", TokenURL: url,
					Scopes: []string{fmt.Sprintf("t%d", name[1])}, AuthStyle: oauth2.AuthStyleInHeader,
				}
				token, err := config.Token(ctx)
				if err != nil {
					log.Fatal(err)
				}
				path := filepath.Join(directory, fmt.Sprintf("c%d", name[0]), fmt.Sprintf("t%d", name[1]))
				if err := publish(path, token.AccessToken); err != nil {
					log.Fatal(err)
				}
			}
		}()
	}
	for client := 0; client < clients; client++ {
		if err := os.MkdirAll(filepath.Join(directory, fmt.Sprintf("c%d", client)), 0o750); err != nil {
			log.Fatal(err)
		}
		for token := 0; token < tokens; token++ {
			names <- [2]int{client, token}
		}
	}
	close(names)
	workers.Wait()
}
