package client_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/millrace/millrace/client"
	"github.com/millrace/millrace/internal/fault"
	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
)

// TestSubscribeResumes cuts a subscription at every message, between the parts of a tick too: each tick must be
// delivered whole, once, and in order.
func TestSubscribeResumes(t *testing.T) {
	const ticks, parts = 20, 3
	c := startCluster(t, 3, 1)
	var mu sync.Mutex
	var asked []uint64
	sends := 0
	c.subscribe = func(_ int, req *millracev1.SubscribeRequest, stream millracev1.Sql_SubscribeServer) error {
		mu.Lock()
		asked = append(asked, req.AfterTick)
		mu.Unlock()
		first := true
		for tick := max(req.AfterTick+10, 100); tick <= 100+10*ticks; tick += 10 {
			for part := range parts {
				mu.Lock()
				sends++
				cut := sends%7 == 0
				mu.Unlock()
				if cut {
					return fault.New(fault.Unavailable, "the node is going")
				}
				m := &millracev1.SubscribeResponse{Tick: tick, Last: part == parts-1}
				if first {
					m.Schema, first = schema("n", "bigint"), false
				}
				if tick%20 == 0 { // else progress
					m.Rows = []*millracev1.WeightedRow{{Weight: 1 - 2*int64(part%2), Row: &millracev1.Row{Values: []*millracev1.Value{bigint(int64(part))}}}}
				}
				if err := stream.Send(m); err != nil {
					return err
				}
			}
		}
		<-stream.Context().Done()
		return nil
	}
	cl := dial(t, c)
	want := uint64(100)
	for change, err := range cl.Subscribe(t.Context(), "v") {
		if err != nil {
			t.Fatal(err)
		}
		if change.Tick != want {
			t.Fatalf("tick %d, want %d", change.Tick, want)
		}
		if rows := len(change.Rows); change.Tick%20 == 0 && rows != parts || change.Tick%20 != 0 && rows != 0 {
			t.Fatalf("tick %d has %d rows", change.Tick, rows)
		}
		if len(change.Columns) != 1 || change.Columns[0].Name != "n" {
			t.Fatalf("columns %v", change.Columns)
		}
		if len(change.Rows) > 0 && (change.Rows[1].Weight != -1 || change.Rows[2].Values[0].Int != 2) {
			t.Fatalf("rows %v", change.Rows)
		}
		if want += 10; want > 100+10*ticks {
			break
		}
	}
	if cl.SeenTick() != 100+10*ticks {
		t.Fatalf("seen tick %d", cl.SeenTick())
	}
	if len(asked) < 5 || !slices.IsSorted(asked) {
		t.Fatalf("asked for ticks after %v", asked)
	}
}

func TestSubscribeErrors(t *testing.T) {
	c := startCluster(t, 2, 1)
	c.subscribe = func(_ int, req *millracev1.SubscribeRequest, _ millracev1.Sql_SubscribeServer) error {
		if req.AfterTick != 55 {
			return fault.New(fault.Internal, "after %d", req.AfterTick)
		}
		return fault.New(fault.NotFound, "unknown view %q", req.View)
	}
	n := 0
	for _, err := range dial(t, c).Subscribe(t.Context(), "nope", client.AfterTick(55)) {
		n++
		if !errors.Is(err, fault.Of(fault.NotFound)) {
			t.Fatalf("%v", err)
		}
	}
	if n != 1 {
		t.Fatalf("%d errors", n)
	}
	c.subscribe = func(_ int, _ *millracev1.SubscribeRequest, stream millracev1.Sql_SubscribeServer) error {
		<-stream.Context().Done()
		return nil
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	for _, err := range dial(t, c).Subscribe(ctx, "v") {
		if !errors.Is(err, fault.Of(fault.Canceled)) {
			t.Fatalf("%v", err)
		}
	}
}

// serveRecords serves reads of numbered records in every partition, and fails after every `cut` records.
func serveRecords(c *cluster, perPartition, cut int) {
	c.read = func(_ int, req *millracev1.ReadRequest, stream millracev1.Log_ReadServer) error {
		from := map[uint32]uint64{}
		for _, p := range req.Positions {
			from[p.Partition] = p.Offset
		}
		sent, left := 0, int(req.Limit)
		for offset := range uint64(perPartition) {
			for p := range uint32(c.partitions) {
				if len(req.Partitions) > 0 && !slices.Contains(req.Partitions, p) || offset < from[p] {
					continue
				}
				if sent++; cut > 0 && sent > cut {
					return fault.New(fault.Unavailable, "the node is going")
				}
				if err := stream.Send(&millracev1.ReadResponse{Records: []*millracev1.ReadRecord{{
					Partition: p, Offset: offset, Tick: 10 + offset, TimeUs: 1_000_000, Value: fmt.Appendf(nil, "%d/%d", p, offset)}}}); err != nil {
					return err
				}
				if left--; left == 0 {
					return nil
				}
			}
		}
		return nil
	}
}

func TestReadResumes(t *testing.T) {
	c := startCluster(t, 3, 4)
	serveRecords(c, 25, 9)
	var got []string
	for r, err := range dial(t, c).Read(t.Context(), "s") {
		if err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprintf("%d/%d", r.Partition, r.Offset); string(r.Value) != want {
			t.Fatalf("%q, want %q", r.Value, want)
		}
		got = append(got, string(r.Value))
	}
	if len(got) != 100 {
		t.Fatalf("%d records", len(got))
	}
	slices.Sort(got)
	if len(slices.Compact(got)) != 100 {
		t.Fatal("some came twice")
	}
}

func TestReadOptions(t *testing.T) {
	c := startCluster(t, 1, 4)
	serveRecords(c, 25, 0)
	cl := dial(t, c)
	count := func(opts ...client.ReadOption) (n int) {
		for _, err := range cl.Read(t.Context(), "s", opts...) {
			if err != nil {
				t.Fatal(err)
			}
			n++
		}
		return n
	}
	if n := count(client.Limit(7)); n != 7 {
		t.Errorf("limit: %d", n)
	}
	if n := count(client.Partitions(1, 2)); n != 50 {
		t.Errorf("partitions: %d", n)
	}
	if n := count(client.Partitions(1), client.FromOffset(1, 20)); n != 5 {
		t.Errorf("from offset: %d", n)
	}
	var req *millracev1.ReadRequest
	c.read = func(_ int, r *millracev1.ReadRequest, _ millracev1.Log_ReadServer) error {
		req = r
		return fault.New(fault.NotFound, "unknown stream")
	}
	for _, err := range cl.Read(t.Context(), "s", client.FromEnd(), client.Follow(), client.DeadLetters(), client.FromTime(time.UnixMicro(9))) {
		if !errors.Is(err, fault.Of(fault.NotFound)) {
			t.Fatal(err)
		}
	}
	if !req.FromEnd || !req.Follow || !req.Dead || req.FromTimeUs != 9 {
		t.Fatalf("%v", req)
	}
}

// TestReadFromEndResumes: after a failover, partitions that brought nothing yet go on from when the read began.
func TestReadFromEndResumes(t *testing.T) {
	c := startCluster(t, 2, 2)
	begun := time.Now()
	var requests []*millracev1.ReadRequest
	c.read = func(_ int, req *millracev1.ReadRequest, stream millracev1.Log_ReadServer) error {
		requests = append(requests, req)
		switch len(requests) {
		case 1:
			if err := stream.Send(&millracev1.ReadResponse{Records: []*millracev1.ReadRecord{{Partition: 1, Offset: 41}}}); err != nil {
				return err
			}
			return fault.New(fault.Unavailable, "gone")
		case 2:
			return fault.New(fault.Unavailable, "gone too")
		}
		return stream.Send(&millracev1.ReadResponse{Records: []*millracev1.ReadRecord{{Partition: 1, Offset: 41}, {Partition: 1, Offset: 42}, {Partition: 0, Offset: 7}}})
	}
	var got []string
	for r, err := range dial(t, c).Read(t.Context(), "s", client.FromEnd(), client.Follow()) {
		if err != nil {
			t.Fatal(err)
		}
		if got = append(got, fmt.Sprint(r.Partition, "/", r.Offset)); len(got) == 3 {
			break
		}
	}
	if s := strings.Join(got, " "); s != "1/41 1/42 0/7" {
		t.Fatal(s)
	}
	last := requests[2]
	if last.FromEnd || last.FromTimeUs < begun.UnixMicro() || len(last.Positions) != 1 || last.Positions[0].Offset != 42 {
		t.Fatalf("%v", last)
	}
}

func TestCluster(t *testing.T) {
	c := startCluster(t, 2, 1)
	c.drain = func(name string) error {
		if name != "n1" {
			return fault.New(fault.NotFound, "unknown node %q", name)
		}
		c.mu.Lock()
		c.states[1] = "draining"
		c.mu.Unlock()
		return nil
	}
	c.remove = func(_ string, force bool) error {
		if !force {
			return fault.New(fault.Conflict, "it lives")
		}
		return nil
	}
	cl := dial(t, c)
	if err := cl.Cluster().Drain(t.Context(), "n9"); !errors.Is(err, fault.Of(fault.NotFound)) {
		t.Fatalf("%v", err)
	}
	if err := cl.Cluster().WaitDrained(t.Context(), "n1", nil); !errors.Is(err, fault.Of(fault.Conflict)) {
		t.Fatalf("a node that isn't drained: %v", err)
	}
	if err := cl.Cluster().Drain(t.Context(), "n1"); err != nil {
		t.Fatal(err)
	}
	polls := 0
	err := cl.Cluster().WaitDrained(t.Context(), "id1", func(d *millracev1.DescribeResponse) {
		if polls++; polls == 2 {
			c.mu.Lock()
			c.states[1] = "drained"
			c.mu.Unlock()
		}
	})
	if err != nil || polls != 3 {
		t.Fatalf("%v after %d polls", err, polls)
	}
	if err := cl.Cluster().WaitDrained(t.Context(), "n9", nil); !errors.Is(err, fault.Of(fault.NotFound)) {
		t.Fatalf("%v", err)
	}
	if err := cl.Cluster().Remove(t.Context(), "n1", false); !errors.Is(err, fault.Of(fault.Conflict)) {
		t.Fatalf("%v", err)
	}
	if err := cl.Cluster().Remove(t.Context(), "n1", true); err != nil {
		t.Fatal(err)
	}
}
