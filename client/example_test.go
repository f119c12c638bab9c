package client_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/millrace/millrace/client"
	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
)

// addr is a node's address, such as 127.0.0.1:7070. The examples run against a small fake cluster.
var addr string

func Example() {
	ctx := context.Background()
	c, err := client.Dial(ctx, []string{addr})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	if _, err := c.Exec(ctx, "CREATE STREAM bids (item TEXT, price BIGINT) WITH (format = 'json', key = 'item')"); err != nil {
		log.Fatal(err)
	}
	p, err := c.Producer(ctx, "bids")
	if err != nil {
		log.Fatal(err)
	}
	for i := range 3 {
		if err := p.Send(ctx, nil, fmt.Appendf(nil, `{"item":"lamp","price":%d}`, 10+i), nil); err != nil {
			log.Fatal(err)
		}
	}
	if err := p.Close(ctx); err != nil { // all are acknowledged after this
		log.Fatal(err)
	}
	rows, err := c.Query(ctx, "SELECT max(price) FROM bids WHERE item = $1", "lamp")
	if err != nil {
		log.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var price int64
		if err := rows.Scan(&price); err != nil {
			log.Fatal(err)
		}
		fmt.Println(price)
	}
	if err := rows.Err(); err != nil {
		log.Fatal(err)
	}
	// Output: 12
}

func ExampleProducer_Send() {
	ctx := context.Background()
	c, err := client.Dial(ctx, []string{addr})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	p, err := c.Producer(ctx, "bids", client.WithTimeout(10*time.Second))
	if err != nil {
		log.Fatal(err)
	}
	err = p.Send(ctx, nil, []byte(`{"item":"chair","price":30}`), func(a client.Ack, err error) {
		if err != nil {
			fmt.Println("not acknowledged:", err)
			return
		}
		fmt.Println("it has an offset and a tick:", a.Tick > 0)
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := p.Close(ctx); err != nil {
		log.Fatal(err)
	}
	// Output: it has an offset and a tick: true
}

// At high rates, one call back for a batch is cheaper than one for each record. Tags tell which records it holds.
func ExampleProducer_SendTagged() {
	ctx := context.Background()
	c, err := client.Dial(ctx, []string{addr})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	acknowledged := 0
	p, err := c.Producer(ctx, "bids", client.OnBatch(func(b client.BatchResult) {
		if b.Err != nil {
			fmt.Println("lines", b.Tags, "are not acknowledged:", b.Err)
			return
		}
		acknowledged += b.Count
	}))
	if err != nil {
		log.Fatal(err)
	}
	for line := range uint64(1000) {
		if err := p.SendTagged(ctx, nil, []byte(`{"item":"desk","price":70}`), line); err != nil {
			log.Fatal(err)
		}
	}
	if err := p.Close(ctx); err != nil {
		log.Fatal(err)
	}
	fmt.Println(acknowledged)
	// Output: 1000
}

func ExampleClient_Read() {
	ctx := context.Background()
	c, err := client.Dial(ctx, []string{addr})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	for r, err := range c.Read(ctx, "greetings", client.Limit(2)) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%d/%d %s\n", r.Partition, r.Offset, r.Value)
	}
	// Output:
	// 0/0 "hello"
	// 0/1 "world"
}

func ExampleClient_Subscribe() {
	ctx := context.Background()
	c, err := client.Dial(ctx, []string{addr})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	for change, err := range c.Subscribe(ctx, "best") {
		if err != nil {
			log.Fatal(err)
		}
		for _, row := range change.Rows {
			fmt.Printf("%+d %s\n", row.Weight, row.Values[0].Bytes)
		}
		if change.Tick >= 2 {
			break
		}
	}
	// Output:
	// +1 lamp
	// -1 lamp
	// +1 desk
}

// A session keeps what SET sets; its answers never go back in time.
func ExampleSession() {
	ctx := context.Background()
	c, err := client.Dial(ctx, []string{addr})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	s := c.Session()
	if _, err := s.Exec(ctx, "SET max_staleness = '1 second'"); err != nil {
		log.Fatal(err)
	}
	fmt.Println(s.Settings()["max_staleness"])
	// Output: 1 second
}

// exampleTB lets a fake cluster live outside of a test.
type exampleTB struct{ testing.TB }

func (exampleTB) Cleanup(func())    {}
func (exampleTB) Fatal(args ...any) { log.Fatal(args...) }

// withExamples runs the tests with the cluster that the examples use.
type withExamples struct{ m *testing.M }

func (w withExamples) Run() int {
	c := exampleCluster()
	addr = c.nodes[0].addr
	code := w.m.Run()
	c.nodes[0].stop()
	return code
}

func exampleCluster() *cluster {
	c := startCluster(exampleTB{}, 1, 2)
	c.addStream(&millracev1.Stream{Id: 3, Name: "bids", Format: "json", Key: "item",
		Columns: []*millracev1.Column{{Name: "item", Type: "text"}, {Name: "price", Type: "bigint"}}})
	c.execute = func(_ int, req *millracev1.ExecuteRequest, send func(*millracev1.ExecuteResponse) error) error {
		switch req.Sql[:3] {
		case "SEL":
			return answer(send, 0, schema("max", "bigint"), &millracev1.Complete{Tag: "SELECT 1"}, []*millracev1.Value{bigint(12)})
		case "SET":
			return answer(send, 0, nil, &millracev1.Complete{Tag: "SET", Settings: map[string]string{"max_staleness": "1 second"}})
		}
		return answer(send, 0, nil, &millracev1.Complete{Tag: "CREATE STREAM"})
	}
	c.read = func(_ int, _ *millracev1.ReadRequest, stream grpc.ServerStreamingServer[millracev1.ReadResponse]) error {
		return stream.Send(&millracev1.ReadResponse{Records: []*millracev1.ReadRecord{{Value: []byte(`"hello"`)}, {Offset: 1, Value: []byte(`"world"`)}}})
	}
	c.subscribe = func(_ int, _ *millracev1.SubscribeRequest, stream millracev1.Sql_SubscribeServer) error {
		row := func(weight int64, v string) *millracev1.WeightedRow {
			return &millracev1.WeightedRow{Weight: weight, Row: &millracev1.Row{Values: []*millracev1.Value{text(v)}}}
		}
		return errors.Join(
			stream.Send(&millracev1.SubscribeResponse{Tick: 1, Schema: schema("item", "text"), Rows: []*millracev1.WeightedRow{row(1, "lamp")}, Last: true}),
			stream.Send(&millracev1.SubscribeResponse{Tick: 2, Rows: []*millracev1.WeightedRow{row(-1, "lamp"), row(1, "desk")}, Last: true}))
	}
	return c
}
