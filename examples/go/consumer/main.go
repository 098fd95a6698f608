// An HTTP service that the bus posts jobs to: net/http alone.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"sync"
)

type order struct {
	Order int `json:"order"`
}

var done sync.Map // yours is a table in the database that the work is in

func work(id string, it order) error {
	if _, before := done.LoadOrStore(id, true); before {
		return nil
	}
	fmt.Println("order", it.Order)
	return nil
}

func jobs(answer http.ResponseWriter, request *http.Request) {
	content, err := io.ReadAll(request.Body)
	if err != nil {
		return // cut off: the bus knows
	}
	var it order
	if err := json.Unmarshal(content, &it); err != nil {
		http.Error(answer, err.Error(), http.StatusUnprocessableEntity) // no further try will change that
		return
	}
	if err := work(request.Header.Get("X-Pepperbus-Job-Id"), it); err != nil {
		http.Error(answer, err.Error(), http.StatusInternalServerError) // tried again, this text is shown
	}
}

func main() {
	port := os.Getenv("PORT")
	if port == "" {
		port = "8080"
	}
	log.Fatal(http.ListenAndServe("127.0.0.1:"+port, http.HandlerFunc(jobs)))
}
