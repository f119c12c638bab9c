package partition

import (
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	internalv1 "github.com/millrace/millrace/proto/internalv1"
	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
	"github.com/millrace/millrace/storage"
)

// reassign changes a partition's replicas and in-sync set.
func (c *cluster) reassign(p ids.PartitionID, fn func(*internalv1.PartitionConfig)) {
	c.t.Helper()
	eventually(c.t, "the configuration is changed", func() bool { // a primary may change it at the same time
		err := c.change(p, ids.Epoch(c.config(p).Epoch), func(cfg *internalv1.PartitionConfig) error { fn(cfg); return nil })
		if err != nil && fault.KindOf(err) != fault.Stale {
			c.t.Fatal(err)
		}
		return err == nil
	})
}

// setStreams replaces the streams' definitions.
func (c *cluster) setStreams(streams ...*millracev1.Stream) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.update(func(st *internalv1.ClusterState) {
		st.Streams = nil
		for _, s := range streams {
			st.Streams = append(st.Streams, &internalv1.StreamDef{Stream: s})
		}
	})
}

// TestGrowFromOne grows a partition from one copy to three while it takes appends.
func TestGrowFromOne(t *testing.T) {
	c := newCluster(t, 3, 1, nil)
	c.state.Partitions[0].Replicas, c.state.Partitions[0].InSync = []string{"n1"}, []string{"n1"}
	c.startAll()
	value := strings.Repeat("x", 1000)
	for i := range 200 {
		c.must(0, 1, batchOf(4, uint64(i+1), fmt.Sprint(i, value)))
	}
	for _, id := range []string{"n2", "n3"} {
		c.reassign(0, func(cfg *internalv1.PartitionConfig) { cfg.Replicas = append(cfg.Replicas, id) })
		for i := 0; !slices.Contains(c.config(0).InSync, id); i++ {
			c.must(0, 2, batchOf(0, 0, fmt.Sprint(i)))
			if i > 20_000 {
				t.Fatal("not in sync")
			}
		}
	}
	want, err := c.nodes["n1"].readAll(0, 1, 0)
	if err != nil || len(want) != 200 {
		t.Fatal(len(want), err)
	}
	for _, id := range c.order {
		eventually(t, "copied", func() bool {
			got, err := c.nodes[id].readAll(0, 1, 0)
			return err == nil && slices.Equal(got, want)
		})
	}
	// The copy knows the producers too.
	c.crash("n1", 0, randSource{1})
	if err := c.failover(0); err != nil {
		t.Fatal(err)
	}
	if res := c.must(0, 1, batchOf(4, 199, fmt.Sprint(198, value))); !res.Duplicate || res.BaseOffset != 198 {
		t.Fatalf("%+v", res)
	}
}

// TestRetention removes old batches by size on all members, lets a view hold it back, and gives a new copy of what is
// left.
func TestRetention(t *testing.T) {
	low := ids.Offset(120)
	c := newCluster(t, 3, 1, func(cfg *Config) {
		cfg.RetentionInterval = 20 * time.Millisecond
		cfg.LowWater = func(_ ids.PartitionID, s ids.StreamID) (ids.Offset, bool) { return low, s == 1 }
	})
	c.state.Partitions[0].Replicas, c.state.Partitions[0].InSync = []string{"n1", "n2"}, []string{"n1", "n2"}
	c.startAll()
	c.setStreams(&millracev1.Stream{Id: 1, RetentionBytes: 5000}, &millracev1.Stream{Id: 2, RetentionUs: 1})
	value := strings.Repeat("y", 90)
	for i := range 200 {
		c.must(0, 1, batchOf(6, uint64(i+1), fmt.Sprintf("%03d%s", i, value)))
		c.must(0, 2, batchOf(7, uint64(i+1), "short lived"))
	}
	starts := func(id ids.NodeID, s1, s2 ids.Offset) func() bool {
		return func() bool {
			a, err := c.nodes[id].host.End(0, 1)
			b, err2 := c.nodes[id].host.End(0, 2)
			return err == nil && err2 == nil && a.Start == s1 && a.End == 200 && b.Start == s2 && b.End == 200
		}
	}
	for _, id := range []ids.NodeID{"n1", "n2"} {
		eventually(t, "trimmed", starts(id, 120, 200)) // 1: held back by the view; 2: nothing is left
	}
	recs, err := c.nodes["n2"].readAll(0, 1, 5)
	if err != nil || len(recs) != 80 || recs[0].offset != 120 || !strings.HasPrefix(recs[0].value, "120") {
		t.Fatalf("%d records, %v", len(recs), err)
	}
	if o, err := c.nodes["n1"].host.OffsetAtTime(0, 1, 0); err != nil || o != 120 {
		t.Fatal(o, err)
	}
	// A restart finds the same, with the ends of emptied logs.
	c.crash("n2", 0, randSource{5})
	c.start("n2")
	eventually(t, "n2 is back", starts("n2", 120, 200))
	// A new copy begins where the log does.
	c.reassign(0, func(cfg *internalv1.PartitionConfig) { cfg.Replicas = append(cfg.Replicas, "n3") })
	eventually(t, "n3 in sync", func() bool { return slices.Contains(c.config(0).InSync, "n3") })
	eventually(t, "n3 agrees", starts("n3", 120, 200))
	c.reassign(0, func(cfg *internalv1.PartitionConfig) {
		cfg.Primary, cfg.InSync, cfg.Replicas = "n3", []string{"n3"}, []string{"n3"}
	})
	if res := c.must(0, 2, batchOf(7, 200, "short lived")); !res.Duplicate || res.BaseOffset != 199 {
		t.Fatalf("%+v", res)
	}
	if res := c.must(0, 2, batchOf(7, 201, "more")); res.BaseOffset != 200 {
		t.Fatalf("%+v", res)
	}
	// The others have deleted theirs.
	for _, id := range []ids.NodeID{"n1", "n2"} {
		eventually(t, "removed from disk", func() bool { return c.nodes[id].keys(0) == 0 })
		if _, err := c.nodes[id].host.End(0, 1); fault.KindOf(err) != fault.NotPrimary {
			t.Fatal(err)
		}
	}
}

// keys counts what a node's disk has of a partition.
func (n *node) keys(p ids.PartitionID) int {
	it, err := n.store.Iter(storage.PartitionRange(p))
	if err != nil {
		n.c.t.Fatal(err)
	}
	defer it.Close()
	count := 0
	for ok := it.First(); ok; ok = it.Next() {
		count++
	}
	return count
}

func TestDroppedStream(t *testing.T) {
	c := newCluster(t, 1, 1, nil).startAll()
	n := c.nodes["n1"]
	c.must(0, 1, batchOf(1, 1, "a"))
	c.must(0, 2, batchOf(1, 1, "b"))
	c.setStreams(&millracev1.Stream{Id: 2})
	if end, err := n.host.End(0, 1); err != nil || end.End != 0 {
		t.Fatal(end, err)
	}
	if _, err := n.append(0, 1, batchOf(1, 2, "c"), 0); fault.KindOf(err) != fault.NotFound {
		t.Fatal(err)
	}
	if _, err := n.append(0, 77, batchOf(0, 0, "c"), 0); fault.KindOf(err) != fault.Unavailable {
		t.Fatal("a stream that isn't known yet:", err)
	}
	c.must(0, 2, batchOf(1, 2, "d"))
	it, err := n.store.Iter(storage.LogRange(0, 1))
	if err != nil {
		t.Fatal(err)
	}
	if it.First() {
		t.Fatal("the dropped stream is still on disk")
	}
	it.Close()
	c.crash("n1", 0, randSource{1})
	c.start("n1")
	eventually(t, "read", func() bool {
		got, err := c.nodes["n1"].readAll(0, 2, 0)
		return err == nil && slices.Equal(values(got), []string{"b", "d"})
	})
}

// TestCorruption damages a batch on a follower: it is found, never served, and copied anew.
func TestCorruption(t *testing.T) {
	c := newCluster(t, 3, 1, nil).startAll()
	for i := range 20 {
		c.must(0, 1, batchOf(0, 0, fmt.Sprint("value ", i)))
	}
	n := c.nodes["n2"]
	eventually(t, "n2 has it", func() bool { got, err := n.readAll(0, 1, 0); return err == nil && len(got) == 20 })
	key := storage.LogKey(0, 1, 7)
	v, closer, err := n.store.Get(key)
	if err != nil {
		t.Fatal(err)
	}
	bad := slices.Clone(v)
	closer.Close()
	bad[len(bad)-1] ^= 1
	b := n.store.NewBatch()
	b.Set(key, bad)
	if err := n.store.Commit(b, true); err != nil {
		t.Fatal(err)
	}
	b.Close()
	got, err := n.readAll(0, 1, 0)
	if fault.KindOf(err) != fault.Corrupted || len(got) != 7 {
		t.Fatalf("read %d records, %v", len(got), err)
	}
	if again, err := n.readAll(0, 1, 0); err == nil && len(again) != 20 { // 20: it has been copied anew already
		t.Fatalf("a damaged copy is still read: %d records", len(again))
	}
	eventually(t, "copied anew", func() bool {
		got, err := n.readAll(0, 1, 0)
		return err == nil && len(got) == 20 && slices.Contains(c.config(0).InSync, "n2")
	})
	if s := n.host.Status()[0]; s.Role != RoleFollower || s.Err != nil {
		t.Fatalf("%+v", s)
	}
}

func TestBounds(t *testing.T) {
	c := newCluster(t, 1, 1, func(cfg *Config) { cfg.AppendWait = 20 * time.Millisecond; cfg.HoldWait = 2 * time.Second })
	c.startAll()
	n := c.nodes["n1"]
	c.must(0, 1, batchOf(0, 0, "a"))
	if _, err := n.append(0, 1, batchOf(0, 0, strings.Repeat("x", 1<<20)), 0); fault.KindOf(err) != fault.TooLarge {
		t.Fatal(err)
	}
	damaged := batchOf(0, 0, "a")
	damaged.Crc32C++
	if _, err := n.append(0, 1, damaged, 0); fault.KindOf(err) != fault.Corrupted {
		t.Fatal(err)
	}
	if _, err := n.append(5, 1, batchOf(0, 0, "a"), 0); fault.KindOf(err) != fault.NotPrimary {
		t.Fatal(err)
	}
	// Appends that wait for a tick that doesn't come hold their bytes, until they are refused.
	big := strings.Repeat("z", 1000_000)
	done := make(chan outcomeOf, 10)
	for range 4 {
		n.host.Append(AppendRequest{Partition: 0, Stream: 1, Batch: batchOf(0, 0, big), SeenTick: 1 << 62}, func(r AppendResult, err error) { done <- outcomeOf{r, err} })
	}
	if _, err := n.append(0, 1, batchOf(0, 0, big), 0); fault.KindOf(err) != fault.Exhausted {
		t.Fatal(err)
	}
	for range 4 {
		if o := <-done; fault.KindOf(o.err) != fault.Unavailable {
			t.Fatal(o.err)
		}
	}
	c.must(0, 1, batchOf(0, 0, big))
	if l := n.host.Load(); l.PendingAppends != 0 || l.PendingBytes != 0 || l.Appends == 0 {
		t.Fatalf("%+v", l)
	}
}

// TestStop: every append is answered when a host ends.
func TestStop(t *testing.T) {
	c := newCluster(t, 3, 1, patient).startAll()
	c.must(0, 1, batchOf(0, 0, "a"))
	c.isolate("n2", true)
	done := make(chan error, 1)
	n := c.nodes["n1"]
	n.host.Append(AppendRequest{Partition: 0, Stream: 1, Batch: batchOf(0, 0, "b")}, func(_ AppendResult, err error) { done <- err })
	c.stop("n1")
	if err := <-done; fault.KindOf(err) != fault.Unavailable {
		t.Fatal(err)
	}
}

// TestDiskError: when the disk fails, appends that wait and those that come get the store's error; reads go on, and after
// a restart nothing acknowledged is missing.
func TestDiskError(t *testing.T) {
	var broken atomic.Bool
	c := newCluster(t, 1, 1, nil)
	c.store = func(_ ids.NodeID, fs vfs.FS) (*storage.Store, error) {
		o := storage.DefaultOptions()
		o.FS = errorfs.Wrap(fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if broken.Load() && op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
				return syscall.EIO
			}
			return nil
		}))
		o.Logger, o.ReserveBytes, o.MemTableBytes, o.CacheBytes = quiet(), 0, 1<<20, 1<<20
		return storage.OpenLog("log", o)
	}
	c.startAll()
	n := c.nodes["n1"]
	for i := range 10 {
		c.must(0, 1, batchOf(3, uint64(i+1), fmt.Sprint(i)))
	}
	broken.Store(true)
	for i, what := range []string{"the first append after", "a later one"} {
		if _, err := n.append(0, 1, batchOf(3, uint64(11+i), "x"), 0); fault.KindOf(err) != fault.Unavailable || n.store.Healthy() == nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	if got, err := n.readAll(0, 1, 0); err != nil || len(got) != 10 {
		t.Fatalf("%d records, %v", len(got), err)
	}
	broken.Store(false)
	c.mu.Lock()
	n.up = false
	c.mu.Unlock()
	n.cancel()
	n.server.Stop()
	<-n.done
	if err := n.store.Close(); err == nil {
		t.Fatal("closing a broken store says nothing")
	}
	c.start("n1")
	if res := c.must(0, 1, batchOf(3, 11, "x")); res.BaseOffset != 10 {
		t.Fatalf("%+v", res)
	}
	if got, err := c.nodes["n1"].readAll(0, 1, 0); err != nil || len(got) != 11 {
		t.Fatalf("%d records, %v", len(got), err)
	}
}

// TestSettled: a primary that has just started doesn't claim to know where the log ends before it has heard the others.
func TestSettled(t *testing.T) {
	c := newCluster(t, 3, 1, nil).startAll()
	for i := range 20 {
		c.must(0, 1, batchOf(1, uint64(i+1), fmt.Sprint(i)))
	}
	if e, err := c.primary(0).host.End(0, 1); err != nil || !e.Settled || e.End != 20 {
		t.Fatalf("%+v, %v", e, err)
	}
	c.frozen.Store(true) // nobody is taken out of the in-sync set
	for _, id := range c.order {
		c.crash(id, 0, randSource{1})
	}
	n := c.primary(0)
	c.start(n.id)
	eventually(t, "it leads", func() bool {
		e, err := n.host.End(0, 1)
		if err == nil && e.Settled {
			t.Fatalf("settled without the others: %+v", e)
		}
		return err == nil
	})
	for _, id := range c.order {
		if id != n.id {
			c.start(id)
		}
	}
	eventually(t, "it is settled", func() bool {
		e, err := n.host.End(0, 1)
		if err == nil && e.Settled && e.End != 20 {
			t.Fatalf("settled at %+v", e)
		}
		return err == nil && e.Settled
	})
}

// TestDiskThatForgets puts a primary back to an earlier state of its disk: the in-sync follower that has more committed
// takes over, nothing acknowledged is lost, and the forgetful copy is made anew.
func TestDiskThatForgets(t *testing.T) {
	c := newCluster(t, 2, 1, nil).startAll()
	for i := range 20 {
		c.must(0, 1, batchOf(7, uint64(i+1), fmt.Sprint("early", i)))
	}
	first := c.primary(0)
	earlier := first.fs.CrashClone(vfs.CrashCloneCfg{})
	for i := range 20 {
		c.must(0, 1, batchOf(7, uint64(i+21), fmt.Sprint("late", i)))
	}
	other := c.nodes["n1"]
	if other == first {
		other = c.nodes["n2"]
	}
	eventually(t, "the follower is in sync and knows that all is committed", func() bool { // a busy machine takes it out for a while
		got, err := other.readAll(0, 1, 0)
		return err == nil && len(got) == 40 && slices.Contains(c.config(0).InSync, string(other.id))
	})
	c.crash(first.id, 0, randSource{1})
	first.fs = earlier
	c.start(first.id)
	eventually(t, "the follower takes over", func() bool { return c.primary(0) == other })
	eventually(t, "the other is whole again", func() bool {
		got, err := first.readAll(0, 1, 0)
		return err == nil && len(got) == 40 && slices.Contains(c.config(0).InSync, string(first.id))
	})
	if got, err := other.readAll(0, 1, 0); err != nil || len(got) != 40 {
		t.Errorf("%d records: %v", len(got), err)
	}
}

// TestHeldReplica puts the disk of a primary that is alone in sync back to an earlier state. The other replica has what it
// forgot, and keeps it, also over a restart and when it is moved off its node, until an operator chooses.
func TestHeldReplica(t *testing.T) {
	for _, choice := range []string{"the primary", "the held replica"} {
		t.Run(choice, func(t *testing.T) {
			c, first, other := forgetAlone(t)
			held := func() bool {
				s := other.host.Status()
				return len(s) == 1 && s[0].Held && s[0].Err != nil && s[0].Last == 40
			}
			eventually(t, "the other replica is held", held)
			c.crash(other.id, 0, randSource{1})
			c.start(other.id)
			eventually(t, "it is held after a restart", held)
			c.reassign(0, func(cfg *internalv1.PartitionConfig) {
				cfg.Replicas = []string{string(first.id)}
			})
			eventually(t, "it is held though it was moved", held)
			chosen, records := first, 20
			if choice == "the held replica" {
				chosen, records = other, 40
			}
			c.reassign(0, func(cfg *internalv1.PartitionConfig) {
				cfg.Replicas = []string{string(first.id), string(other.id)}
				cfg.Primary, cfg.InSync, cfg.ForcedEpoch = string(chosen.id), []string{string(chosen.id)}, cfg.Epoch+1
			})
			for _, n := range []*node{first, other} {
				eventually(t, fmt.Sprintf("%s has %d records and is in sync", n.id, records), func() bool {
					got, err := n.readAll(0, 1, 0)
					return err == nil && len(got) == records && slices.Contains(c.config(0).InSync, string(n.id))
				})
			}
			c.must(0, 1, batchOf(8, 1, "goes on"))
		})
	}
}

// forgetAlone is a primary, alone in sync, whose disk has forgotten half of its 40 batches, and a replica that has all.
func forgetAlone(t *testing.T) (c *cluster, first, other *node) {
	c = newCluster(t, 2, 1, nil).startAll()
	for i := range 20 {
		c.must(0, 1, batchOf(7, uint64(i+1), fmt.Sprint("early", i)))
	}
	first = c.primary(0)
	earlier := first.fs.CrashClone(vfs.CrashCloneCfg{})
	for i := range 20 {
		c.must(0, 1, batchOf(7, uint64(i+21), fmt.Sprint("late", i)))
	}
	if other = c.nodes["n1"]; other == first {
		other = c.nodes["n2"]
	}
	eventually(t, "the follower knows that all is committed", func() bool {
		got, err := other.readAll(0, 1, 0)
		return err == nil && len(got) == 40
	})
	c.crash(first.id, 0, randSource{1})
	first.fs = earlier
	c.reassign(0, func(cfg *internalv1.PartitionConfig) {
		cfg.InSync = []string{string(first.id)}
	})
	c.start(first.id)
	return c, first, other
}

// TestMovedOffAndBack takes a replica off its node and puts it there again at once: the link that ends must not take the new
// one's place.
func TestMovedOffAndBack(t *testing.T) {
	c := newCluster(t, 2, 1, nil).startAll()
	first := c.primary(0)
	other := c.nodes["n1"]
	if other == first {
		other = c.nodes["n2"]
	}
	for i := range 30 {
		c.must(0, 1, batchOf(7, uint64(i+1), fmt.Sprint(i)))
		c.reassign(0, func(cfg *internalv1.PartitionConfig) {
			cfg.Replicas, cfg.InSync = []string{string(first.id)}, []string{string(first.id)}
		})
		c.reassign(0, func(cfg *internalv1.PartitionConfig) {
			cfg.Replicas = []string{string(first.id), string(other.id)}
		})
		eventually(t, "it is in sync again", func() bool { return slices.Contains(c.config(0).InSync, string(other.id)) })
	}
}
