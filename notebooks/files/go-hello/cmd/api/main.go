// A server that says hello, and who it is. With an argument it asks another one:
// an image that holds nothing but this program has no curl.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
)

type answer struct {
	Hello string `json:"hello"`
	Host  string `json:"host"`
	User  int    `json:"user"`
	PID   int    `json:"pid"`
}

func main() {
	if len(os.Args) == 2 {
		ask(os.Args[1])
		return
	}
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		host, _ := os.Hostname()
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(answer{"container", host, os.Getuid(), os.Getpid()})
	})
	fmt.Println("listening on :8080")
	log.Fatal(http.ListenAndServe(":8080", nil))
}

func ask(address string) {
	reply, err := http.Get(address)
	if err != nil {
		log.Fatal(err)
	}
	defer reply.Body.Close()
	io.Copy(os.Stdout, reply.Body)
}
