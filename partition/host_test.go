package partition

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/internal/leaks"
	internalv1 "github.com/millrace/millrace/proto/internalv1"
)

func TestMain(m *testing.M) { leaks.Main(m) }

type randSource struct{ seed uint64 }

func (r randSource) pcg() *rand.Rand { return rand.New(rand.NewPCG(r.seed, 1)) }

func TestAppendAndRead(t *testing.T) {
	c := newCluster(t, 1, 2, nil).startAll()
	var want []string
	for i := range 50 {
		a, b := fmt.Sprint("a", i), fmt.Sprint("b", i)
		res := c.must(1, 2, batchOf(7, uint64(i+1), a, b))
		if res.BaseOffset != ids.Offset(2*i) || res.Count != 2 || res.Tick == 0 || res.Duplicate {
			t.Fatalf("append %d: %+v", i, res)
		}
		want = append(want, a, b)
	}
	n := c.nodes["n1"]
	check := func(when string) {
		t.Helper()
		for _, from := range []ids.Offset{0, 1, 37, 99, 100, 500} {
			got, err := n.readAll(1, 2, from)
			if err != nil {
				t.Fatal(err)
			}
			first := min(int(from)/2*2, len(want)) // of the batch
			if !slices.Equal(values(got), want[first:]) {
				t.Fatalf("%s: from %d: %v", when, from, values(got))
			}
		}
		end, err := n.host.End(1, 2)
		if err != nil || end.Start != 0 || end.End != 100 || end.LastTick == 0 || end.Bytes == 0 {
			t.Fatalf("%s: end %+v, %v", when, end, err)
		}
	}
	check("before")
	// A repeat gets the first answer, also after a restart.
	for _, again := range []bool{false, true} {
		if again {
			c.crash("n1", 0, randSource{1})
			c.start("n1")
			n = c.nodes["n1"]
		}
		eventually(t, "open", func() bool { _, err := n.append(1, 1, batchOf(0, 0, "x"), 0); return err == nil })
		res, err := n.append(1, 2, batchOf(7, 48, "a47", "b47"), 0)
		if err != nil || !res.Duplicate || res.BaseOffset != 94 {
			t.Fatalf("repeat: %+v, %v", res, err)
		}
		for _, bad := range []struct {
			producer, seq uint64
			reason        string
		}{{7, 52, "OUT_OF_SEQUENCE"}, {8, 2, "UNKNOWN_PRODUCER"}, {7, 3, "DUPLICATE_SEQUENCE"}} {
			_, err := n.append(1, 2, batchOf(bad.producer, bad.seq, "z"), 0)
			if f, ok := err.(*fault.Error); !ok || f.GetReason() != bad.reason || f.Kind != fault.Conflict {
				t.Fatalf("producer %d sequence %d: %v", bad.producer, bad.seq, err)
			}
		}
		check("after")
	}
	if got, err := n.readAll(0, 2, 0); err != nil || len(got) != 0 {
		t.Fatalf("another partition: %v, %v", got, err)
	}
}

func TestReplication(t *testing.T) {
	c := newCluster(t, 3, 3, nil).startAll()
	for i := range 30 {
		c.must(ids.PartitionID(i%3), 1, batchOf(uint64(i%3+1), uint64(i/3+1), fmt.Sprint(i)))
	}
	for p := range ids.PartitionID(3) {
		want, err := c.primary(p).readAll(p, 1, 0)
		if err != nil || len(want) != 10 {
			t.Fatalf("%d: %v %v", p, want, err)
		}
		for _, id := range c.order {
			eventually(t, "followers have it", func() bool {
				got, err := c.nodes[id].readAll(p, 1, 0)
				return err == nil && slices.Equal(got, want)
			})
		}
	}
}

func TestFailover(t *testing.T) {
	c := newCluster(t, 3, 1, nil).startAll()
	for i := range 10 {
		c.must(0, 1, batchOf(5, uint64(i+1), fmt.Sprint(i)))
	}
	c.crash("n1", 0, randSource{2})
	if err := c.failover(0); err != nil {
		t.Fatal(err)
	}
	for i := 10; i < 20; i++ {
		c.must(0, 1, batchOf(5, uint64(i+1), fmt.Sprint(i)))
	}
	res := c.must(0, 1, batchOf(5, 18, "17"))
	if !res.Duplicate || res.BaseOffset != 17 {
		t.Fatalf("repeat %+v", res)
	}
	want, _ := c.primary(0).readAll(0, 1, 0)
	if len(want) != 20 {
		t.Fatalf("%v", values(want))
	}
	c.start("n1") // comes back as a learner and is added
	eventually(t, "n1 in sync", func() bool { return slices.Contains(c.config(0).InSync, "n1") })
	eventually(t, "n1 reads", func() bool {
		got, err := c.nodes["n1"].readAll(0, 1, 0)
		return err == nil && slices.Equal(got, want)
	})
}

func TestUnresponsiveIsRemoved(t *testing.T) {
	c := newCluster(t, 3, 1, nil).startAll()
	c.must(0, 1, batchOf(0, 0, "a"))
	begin := time.Now()
	c.isolate("n2", true)
	c.must(0, 1, batchOf(0, 0, "b"))
	if d := time.Since(begin); d < 100*time.Millisecond { // of 300, as a busy machine may have been silent for a while before
		t.Fatalf("acknowledged after %v, without n2", d)
	}
	if slices.Contains(c.config(0).InSync, "n2") {
		t.Fatal("n2 is still in sync")
	}
	c.isolate("n3", true)
	_, err := c.primary(0).append(0, 1, batchOf(0, 0, "c"), 0)
	for err == nil || fault.KindOf(err) != fault.Unavailable {
		t.Fatalf("append with one of three: %v", err)
	}
	c.isolate("n3", false)
	c.isolate("n2", false)
	c.must(0, 1, batchOf(0, 0, "d"))
	eventually(t, "n2 in sync", func() bool { return slices.Contains(c.config(0).InSync, "n2") })
}

func TestHandover(t *testing.T) {
	c := newCluster(t, 3, 1, nil).startAll()
	stop, failed := make(chan struct{}), make(chan error, 1)
	go func() {
		defer close(failed)
		for i := uint64(1); ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			c.must(0, 1, batchOf(9, i, fmt.Sprint(i)))
		}
	}()
	for _, to := range []string{"n2", "n3", "n1"} {
		begin := time.Now()
		c.reassign(0, func(cfg *internalv1.PartitionConfig) { cfg.HandoverTo = to })
		eventually(t, "handed over", func() bool { return c.config(0).Primary == to })
		c.must(0, 2, batchOf(0, 0, "after"))
		t.Logf("handover to %s: %v", to, time.Since(begin))
	}
	close(stop)
	<-failed
	got, err := c.primary(0).readAll(0, 1, 0)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range got {
		if r.value != fmt.Sprint(i+1) || r.offset != ids.Offset(i) {
			t.Fatalf("record %d: %+v", i, r)
		}
	}
}

func TestClosedTicks(t *testing.T) {
	c := newCluster(t, 1, 1, nil).startAll()
	last := c.must(0, 1, batchOf(0, 0, "a"))
	last = c.must(0, 2, batchOf(0, 0, "b"))
	n := c.nodes["n1"]
	eventually(t, "closed", func() bool { k, ok := n.host.Closed(0); return ok && k >= last.Tick })
	seen := map[ids.StreamID]ids.Tick{}
	eventually(t, "told", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, cl := range n.closings {
			for _, d := range cl.Data {
				if d.Tick > cl.Tick {
					t.Fatalf("data of tick %d in a closing of %d", d.Tick, cl.Tick)
				}
				seen[d.Stream] = d.Tick
			}
		}
		return seen[2] == last.Tick && seen[1] != 0
	})
	// An append is stamped no lower than what its client has seen.
	future := last.Tick + 300_000
	res, err := n.append(0, 1, batchOf(0, 0, "c"), future)
	if err != nil || res.Tick < future {
		t.Fatalf("%+v %v", res, err)
	}
	var ticks []ids.Tick
	err = n.host.ReadTicks(0, 1, 0, res.Tick-1, func(b *Batch) (bool, error) { ticks = append(ticks, b.Tick); return true, nil })
	if err != nil || len(ticks) != 1 {
		t.Fatalf("%v %v", ticks, err)
	}
}

// TestReadOutlivesPayloads lets a replica drop the payloads of its tail, as one does that has become a follower, while
// somebody reads them.
func TestReadOutlivesPayloads(t *testing.T) {
	c := newCluster(t, 1, 1, nil).startAll()
	for i := range 20 {
		c.must(0, 2, batchOf(7, uint64(i+1), fmt.Sprint("r", i)))
	}
	h := c.nodes["n1"].host
	hd := h.slot(0)
	drop := func() {
		hd.mu.Lock()
		defer hd.mu.Unlock()
		for _, e := range hd.r.streams[2].recent {
			e.payload = nil
		}
	}
	for _, when := range []string{"while it is read", "before it is read"} {
		next := ids.Offset(0)
		err := h.Read(0, 2, 0, 0, func(b *Batch) (bool, error) {
			if next == 0 {
				drop()
			}
			if b.BaseOffset != next || len(b.Payload) == 0 {
				return false, fmt.Errorf("batch %d has %d bytes, want %d", b.BaseOffset, len(b.Payload), next)
			}
			next += ids.Offset(b.Count)
			return true, nil
		})
		if err != nil || next != 20 {
			t.Fatalf("%s: %d records, %v", when, next, err)
		}
	}
}
