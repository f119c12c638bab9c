package test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/millrace/millrace/client"
)

// traffic is a producer that goes on while a test changes the cluster, and that remembers what was acknowledged.
type traffic struct {
	t      *testing.T
	c      *client.Client
	cancel context.CancelFunc
	done   chan struct{}

	sent, acked atomic.Int64
	mu          sync.Mutex
	errs        []error
}

// startTraffic makes a stream and a view over it, and sends numbered records until stop.
func startTraffic(t *testing.T, addrs ...string) *traffic {
	t.Helper()
	sql(t, addrs[0], `CREATE STREAM traffic (k BIGINT, n BIGINT) WITH (format = 'json', key = 'k');
		CREATE MATERIALIZED VIEW per_key AS SELECT k, count(*) AS n, max(n) AS most FROM traffic GROUP BY k`)
	ctx, cancel := context.WithCancel(context.Background())
	c, err := client.Dial(ctx, addrs)
	if err != nil {
		t.Fatal(err)
	}
	p, err := c.Producer(ctx, "traffic", client.WithTimeout(stepTimeout))
	if err != nil {
		t.Fatal(err)
	}
	w := &traffic{t: t, c: c, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(w.done)
		ticker := time.NewTicker(2 * time.Millisecond)
		defer ticker.Stop()
		for ctx.Err() == nil {
			n := w.sent.Load()
			err := p.Send(context.Background(), nil, fmt.Appendf(nil, `{"k":%d,"n":%d}`, n%trafficKeys, n), func(_ client.Ack, err error) {
				if err == nil {
					w.acked.Add(1)
					return
				}
				w.mu.Lock()
				w.errs = append(w.errs, err)
				w.mu.Unlock()
			})
			if err != nil {
				t.Error(err)
				return
			}
			w.sent.Add(1)
			<-ticker.C
		}
		flush, cancel := context.WithTimeout(context.Background(), 2*stepTimeout)
		defer cancel()
		_ = p.Close(flush) // the callbacks have its errors
	}()
	t.Cleanup(func() { cancel(); <-w.done; c.Close() })
	return w
}

const trafficKeys = 100

// flows waits until more records are acknowledged.
func (w *traffic) flows() {
	w.t.Helper()
	from := w.acked.Load() + 50
	eventually(w.t, func() string {
		if n := w.acked.Load(); n < from {
			return fmt.Sprintf("%d records acknowledged, want %d", n, from)
		}
		return ""
	})
}

// stop ends the traffic: no record was refused or lost, and each node's view has each of them once.
func (w *traffic) stop(servers ...*server) {
	w.t.Helper()
	w.cancel()
	<-w.done
	if len(w.errs) > 0 {
		w.t.Errorf("the client saw %d errors, the first: %v", len(w.errs), w.errs[0])
	}
	sent := w.sent.Load()
	if acked := w.acked.Load(); acked != sent {
		w.t.Errorf("%d of %d records acknowledged", acked, sent)
	}
	for _, s := range servers {
		got := one(w.t, s.grpc, fmt.Sprintf("SET min_tick = %d; SELECT sum(n) AS n, max(most) AS most FROM per_key", w.c.SeenTick()))
		if fmt.Sprint(got["n"]) != fmt.Sprint(sent) || fmt.Sprint(got["most"]) != fmt.Sprint(sent-1) {
			w.t.Errorf("%s has %v, want %d records", s.name, got, sent)
		}
	}
}

func addresses(servers ...*server) (out []string) {
	for _, s := range servers {
		out = append(out, s.grpc)
	}
	return out
}

// nodeState is a node's state as the cluster sees it; "" when it isn't listed.
func nodeState(t *testing.T, of *server, name string) string {
	for _, n := range status(t, of.grpc).Nodes {
		if n.Name == name && n.State != "removed" {
			return n.State
		}
	}
	return ""
}

// TestRollingRestart stops and starts every node in turn, under load: the client sees no error.
func TestRollingRestart(t *testing.T) {
	servers := cluster(t, 3)
	w := startTraffic(t, addresses(servers...)...)
	for _, s := range servers {
		w.flows()
		s.stop()
		w.flows() // without it
		s.start()
		waitInSync(t, s, 3)
	}
	w.flows()
	w.stop(servers...)
}

// TestEmptyFolderUnderAnOldName: a node that lost its folder is a new member that takes the old one's places.
func TestEmptyFolderUnderAnOldName(t *testing.T) {
	servers := cluster(t, 3)
	w := startTraffic(t, addresses(servers...)...)
	w.flows()
	lost := servers[1]
	lost.extra = []string{"--join", servers[0].gossip}
	lost.kill()
	if err := os.RemoveAll(lost.dir); err != nil {
		t.Fatal(err)
	}
	lost.start()
	waitInSync(t, servers[0], 3)
	w.flows()
	st := status(t, servers[2].grpc)
	live, removed := 0, 0
	for _, n := range st.Nodes {
		switch {
		case n.Name != lost.name:
		case n.State == "removed":
			removed++
		case n.State == "alive":
			live++
		}
	}
	if live != 1 || removed > 1 {
		t.Errorf("nodes: %+v", st.Nodes)
	}
	eventually(t, func() string {
		voters := 0
		for _, n := range status(t, servers[0].grpc).Nodes {
			if n.Voter {
				voters++
			}
		}
		if voters != 3 {
			return fmt.Sprintf("%d voters", voters)
		}
		return ""
	})
	w.stop(servers...)
}

// TestNameOfALiveNode: a second node under the name of one that lives says so and ends.
func TestNameOfALiveNode(t *testing.T) {
	s := serve(t, "n1")
	other := &server{t: t, name: "n1", dir: t.TempDir() + "/other", extra: []string{"--join", s.gossip}}
	other.startLater()
	select {
	case <-other.exited:
	case <-time.After(startTimeout):
		t.Fatal("it goes on")
	}
	if code := other.cmd.ProcessState.ExitCode(); code != 1 {
		t.Errorf("exit code %d", code)
	}
	if !strings.Contains(other.log.String(), `the name \"n1\" belongs to another member`) && !strings.Contains(other.log.String(), `the name "n1" belongs to another member`) {
		t.Errorf("it says: %s", other.log)
	}
	if n := len(status(t, s.grpc).Nodes); n != 1 {
		t.Errorf("%d members", n)
	}
}

// TestReplaceAtRuntime adds a node, drains another, stops and removes it, all under load.
func TestReplaceAtRuntime(t *testing.T) {
	servers := cluster(t, 3)
	w := startTraffic(t, addresses(servers...)...)
	w.flows()
	fresh := serve(t, "n4", "--join", servers[0].gossip)
	w.flows()
	old := servers[0]
	r := cli(t, nil, "cluster", "drain", "n1", "--addr", fresh.grpc)
	if r.code != 0 || !strings.Contains(r.out, "it can be stopped") {
		t.Fatalf("drain: %+v", r)
	}
	st := status(t, fresh.grpc)
	for _, n := range st.Nodes {
		if n.Name == "n1" && (n.State != "drained" || n.Replicas != 0 || n.Primaries != 0 || n.Voter) {
			t.Errorf("drained, and still %+v", n)
		}
	}
	w.flows()
	old.stop()
	w.flows()
	if r := cli(t, nil, "cluster", "remove", "n1", "--addr", fresh.grpc); r.code != 0 {
		t.Fatalf("remove: %+v", r)
	}
	rest := []*server{servers[1], servers[2], fresh}
	waitInSync(t, fresh, 3)
	w.flows()
	w.stop(rest...)
	// The old node's folder is of no use any more, and it says so.
	old.startLater()
	select {
	case <-old.exited:
	case <-time.After(startTimeout):
		t.Fatal("a removed node goes on")
	}
	if !strings.Contains(old.log.String(), "was removed from the cluster") {
		t.Errorf("it says: %s", old.log)
	}
}

// TestRemoveADeadNode: what it held is made anew elsewhere, at once.
func TestRemoveADeadNode(t *testing.T) {
	servers := cluster(t, 4)
	w := startTraffic(t, addresses(servers...)...)
	w.flows()
	servers[3].kill()
	w.flows()
	eventually(t, func() string {
		if st := nodeState(t, servers[0], "n4"); st != "dead" {
			return "n4 is " + st
		}
		return ""
	})
	if r := cli(t, nil, "cluster", "remove", "n4", "--addr", servers[0].grpc); r.code != 0 {
		t.Fatalf("remove: %+v", r)
	}
	waitInSync(t, servers[0], 3)
	for _, p := range status(t, servers[0].grpc).Partitions {
		for _, r := range p.Replicas {
			if r == "n4" {
				t.Errorf("partition %d is still on n4", p.ID)
			}
		}
	}
	w.stop(servers[:3]...)
}
