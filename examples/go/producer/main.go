// Push orders with go-redis. A login is the queue's name and password; Redis' own commands do the rest.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"

	"github.com/redis/go-redis/v9"
)

func main() {
	ctx := context.Background()
	queue := env("QUEUE", "orders")
	bus := redis.NewClient(&redis.Options{
		Addr: env("PEPPERBUS", "127.0.0.1:12017"), Username: queue, Password: env("PASSWORD", "secret"),
		MaxRetries: -1, // go-redis would push again by itself when an answer is lost: maybe a second job
	})
	defer bus.Close()

	text, err := bus.Do(ctx, "LPUSH", queue+"/new", `{"order":1}`).Text()
	check(err)
	var answer struct {
		Jobs  []string `json:"jobs"`
		Error string   `json:"error"`
	}
	check(json.Unmarshal([]byte(text), &answer))
	if answer.Error != "" {
		log.Fatal(answer.Error)
	}
	fmt.Println("pushed", answer.Jobs[0])
	check(bus.Do(ctx, "ZADD", queue, "+1", `{"order":2}`).Err()) // not before in a second
	check(bus.RPush(ctx, queue, `{"order":3}`).Err())            // ahead of all that waits
	fmt.Println("and two more")
}

func env(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
