package stage

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/proto/internalv1"
	"github.com/millrace/millrace/record"
	"github.com/millrace/millrace/storage"
)

// fill appends to all partitions and closes n ticks.
func (c *testCluster) fill(rng *rand.Rand, n, perBatch int) {
	for range n {
		next := c.tick + ids.Tick(5000+rng.IntN(5000))
		for p := range len(c.state.Partitions) {
			c.append(ids.PartitionID(p), next, randomEvents(rng, next, perBatch))
		}
		c.closeTick(next, rng.Perm(len(c.state.Partitions)))
	}
}

func reasonOf(err error) string {
	var f *fault.Error
	if errors.As(err, &f) {
		return f.GetReason()
	}
	return fmt.Sprint(err)
}

func TestRetention(t *testing.T) {
	c := newTestCluster(t, 2, 3, func(cfg *Config) {
		cfg.RetainTicks, cfg.FlushInterval = 60_000, time.Millisecond
	})
	rng := rand.New(rand.NewPCG(1, 1))
	views := map[ids.StreamID]testView{100: perKey(), 101: filtered(), 102: sizes()}
	models := map[ids.StreamID]*model{}
	for id, v := range views {
		models[id] = c.createView(id, v, false)
	}
	first := c.tick
	for range 12 {
		c.fill(rng, 8, 5)
		for id, v := range views {
			c.check(id, v, models[id], c.tick)
			c.check(id, v, models[id], max(first, c.tick-50_000))
		}
	}
	for id := range views {
		if id == 101 {
			continue // only its deltas are trimmed; its rows tell their ticks
		}
		eventually(t, "the oldest ticks are forgotten", func() bool {
			c.fill(rng, 1, 5)
			_, err := c.read(id, first)
			return reasonOf(err) == ReasonTickNotRetained
		})
	}
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	err := c.primary(0).rt.Subscribe(ctx, 100, 0, first, func(ids.Tick, *record.Delta) error { return nil })
	if reasonOf(err) != ReasonTickNotRetained {
		t.Errorf("a subscription from a forgotten tick: %v", err)
	}
	if _, err := c.read(100, 5); reasonOf(err) != ReasonTickNotRetained {
		t.Errorf("a tick before the view: %v", err)
	}
}

// TestLowWater truncates logs as far as the views allow, crashes everything, and looks whether the views are still right.
func TestLowWater(t *testing.T) {
	c := newTestCluster(t, 2, 4, func(cfg *Config) {
		cfg.DurableInterval, cfg.FlushInterval = 5*time.Millisecond, time.Millisecond
	})
	rng := rand.New(rand.NewPCG(1, 1))
	def := streamDef()
	def.RetentionBytes = 1
	c.change(func(st *internalv1.ClusterState) {
		st.Streams = []*internalv1.StreamDef{{Stream: def, CreatedTick: uint64(streamCreated)}}
	})
	if _, any := c.nodes[0].rt.LowWater(testStream, 0); any {
		t.Error("a stream without views is held")
	}
	c.fill(rng, 3, 20)
	views := map[ids.StreamID]testView{100: perKey(), 101: windows(true), 102: filtered()}
	models := map[ids.StreamID]*model{}
	for id, v := range views {
		models[id] = c.createView(id, v, false)
	}
	for range 5 {
		c.fill(rng, 10, 20)
		for p := range ids.PartitionID(4) {
			eventually(t, "the low water rises", func() bool {
				c.fill(rng, 1, 3)
				low, any := c.primary(p).rt.LowWater(testStream, p)
				c.logs.mu.Lock()
				defer c.logs.mu.Unlock()
				return any && low > c.logs.start[p]
			})
			low, _ := c.primary(p).rt.LowWater(testStream, p)
			c.logs.truncate(p, low)
		}
		for _, n := range c.nodes {
			c.crash(n, rng)
		}
		c.fill(rng, 2, 20)
		for id, v := range views {
			c.check(id, v, models[id], c.tick)
		}
	}
	for p := range ids.PartitionID(4) {
		if c.logs.start[p] == 0 {
			t.Errorf("partition %d was never truncated", p)
		}
	}
}

// TestLostLog: a log that was truncated past a view in spite of it fails the view, and no other.
func TestLostLog(t *testing.T) {
	c := newTestCluster(t, 1, 2, func(cfg *Config) { cfg.FlushInterval = time.Hour }) // only the stop stores where the view stands
	rng := rand.New(rand.NewPCG(1, 1))
	c.createView(100, perKey(), false)
	c.fill(rng, 5, 20)
	n := c.nodes[0]
	eventually(t, "the view is at the newest tick", func() bool { return n.rt.Stats()[0].Tick >= uint64(c.tick) })
	c.stop(n)
	for range 10 {
		next := c.tick + 10_000
		c.append(0, next, randomEvents(rng, next, 10))
		c.append(1, next, randomEvents(rng, next, 10))
		c.tick = next
	}
	c.logs.truncate(0, c.logs.ends[0]-15)
	c.start(n)
	c.fill(rng, 1, 10)
	other := c.createView(101, filtered(), true)
	eventually(t, "the view fails", func() bool {
		s := n.rt.Stats()[0]
		return s.State == StateFailed && strings.Contains(s.LastError, "goes on at")
	})
	if _, err := c.read(100, c.tick); reasonOf(err) != ReasonViewFailed {
		t.Errorf("a read of a failed view: %v", err)
	}
	c.fill(rng, 1, 10)
	v := filtered()
	v.naive = sinceCreated(v)
	c.check(101, v, other, c.tick)
}

// TestTruncatedBefore makes views over logs that retention has cut, or emptied, before.
func TestTruncatedBefore(t *testing.T) {
	c := newTestCluster(t, 2, 2, nil)
	rng := rand.New(rand.NewPCG(1, 1))
	c.fill(rng, 10, 10)
	c.logs.truncate(0, c.logs.ends[0]) // all
	c.logs.truncate(1, c.logs.ends[1]-20)
	c.model.events[0] = nil
	c.model.events[1] = c.model.events[1][len(c.model.events[1])-20:]
	v := perKey()
	m := c.createView(100, v, false)
	c.fill(rng, 3, 10)
	m.events = c.model.events
	c.check(100, v, m, c.tick)
	w := filtered()
	w.naive = sinceCreated(w)
	n := c.createView(101, w, true)
	c.fill(rng, 3, 10)
	c.check(101, w, n, c.tick)
	c.check(100, v, m, c.tick)
}

func TestFailedView(t *testing.T) {
	c := newTestCluster(t, 2, 3, nil)
	rng := rand.New(rand.NewPCG(1, 1))
	c.fill(rng, 3, 10)
	c.change(func(st *internalv1.ClusterState) {
		st.Views = append(st.Views, &internalv1.ViewDef{Id: 99, Name: "broken", Plan: []byte(`{"version":1`), CreatedTick: uint64(c.tick)})
	})
	v := perKey()
	m := c.createView(100, v, false)
	c.fill(rng, 3, 10)
	c.check(100, v, m, c.tick)
	for _, n := range c.nodes {
		s := n.rt.Stats()
		if len(s) != 2 || s[0].State != StateFailed || !strings.Contains(s[0].LastError, "plan") || s[1].State != StateLive {
			t.Errorf("%s: %v", n.id, s)
		}
	}
	if _, err := c.read(99, c.tick); reasonOf(err) != ReasonViewFailed {
		t.Errorf("a read of a failed view: %v", err)
	}
	if _, err := c.nodes[0].rt.BeginRead(context.Background(), 98, []ids.PartitionID{0}, 0); fault.KindOf(err) != fault.NotFound {
		t.Errorf("an unknown view: %v", err)
	}
	if _, err := c.nodes[0].rt.BeginRead(context.Background(), 100, []ids.PartitionID{1}, 0); fault.KindOf(err) != fault.NotPrimary {
		t.Errorf("another node's partition: %v", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if _, err := c.nodes[0].rt.BeginRead(ctx, 100, []ids.PartitionID{0}, c.tick+1); fault.KindOf(err) != fault.Deadline {
		t.Errorf("a tick that doesn't come: %v", err)
	}
}

// TestReplicaLeaves: state goes when the node is no replica any more, and stays when only the primary moves.
func TestReplicaLeaves(t *testing.T) {
	c := newTestCluster(t, 2, 2, nil)
	rng := rand.New(rand.NewPCG(1, 1))
	v := perKey()
	m := c.createView(100, v, false)
	c.fill(rng, 5, 20)
	c.check(100, v, m, c.tick)
	c.move(0, 1)
	c.fill(rng, 2, 20)
	c.check(100, v, m, c.tick)
	if c.keysOf(100) == 0 {
		t.Error("a replica's state is gone")
	}
	c.change(func(st *internalv1.ClusterState) {
		st.Partitions[0].Epoch++
		st.Partitions[0].Replicas = []string{"n1"}
	})
	lo, hi := storage.StatePartitionRange(100, 0)
	if n := c.keysIn(lo, hi); n != 0 { // those of the other partition may have been shipped here
		t.Errorf("%d keys are left of a partition that went", n)
	}
	c.fill(rng, 2, 20)
	c.check(100, v, m, c.tick)
}

// TestLargeSteps sends steps that take several messages between nodes.
func TestLargeSteps(t *testing.T) {
	c := newTestCluster(t, 2, 4, func(cfg *Config) { cfg.ChunkBytes = 64 << 20 })
	big := strings.Repeat("x", 1<<20)
	v := perKey()
	fillBig := func(n int) {
		next := c.tick + 5000
		for p := range ids.PartitionID(4) {
			var events []event
			for i := range n {
				events = append(events, event{k: fmt.Sprint(big, i), n: int64(i), ts: int64(next)})
			}
			c.append(p, next, events)
		}
		c.closeTick(next, []int{0, 1, 2, 3})
	}
	fillBig(8)
	m := c.createView(100, v, false)
	fillBig(10)
	got, err := c.readWithin(5*wait, 100, c.tick) // 70 MB of keys
	if err != nil {
		t.Fatal(err)
	}
	want := v.naive(m, c.tick)
	for row := range want {
		if got[row] != 1 {
			t.Errorf("row ...%s is missing", row[len(row)-20:])
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d rows, want %d", len(got), len(want))
	}
}

// TestTightMemory: of ticks that are far larger than what targets may keep of their state, and work in, no more than that
// stays in memory.
func TestTightMemory(t *testing.T) {
	const keys, size = 300, 500
	c := newTestCluster(t, 1, 4, func(cfg *Config) { cfg.CacheBytes, cfg.DirtyBytes, cfg.ScratchBytes = 64<<10, 64<<10, 64<<10 })
	v := perKey()
	c.fill(rand.New(rand.NewPCG(1, 1)), 1, 1)
	m := c.createView(100, v, false)
	text := strings.Repeat("x", size)
	for round := range 5 {
		next := c.tick + 5000
		for p := range ids.PartitionID(4) {
			var events []event
			for i := range keys {
				events = append(events, event{k: fmt.Sprint(text, round, p, i), n: int64(i), ts: int64(next)})
			}
			c.append(p, next, events)
		}
		c.closeTick(next, []int{0, 1, 2, 3})
		c.check(100, v, m, c.tick)
		if got := c.nodes[0].rt.Metrics(); got.StateBytes > 4*keys*size/2 || got.ScratchBytes > 4*keys*size/2 {
			t.Errorf("round %d: of a tick with %d bytes of state %d stay in memory, and %d of what it was worked in", round, 4*keys*size, got.StateBytes, got.ScratchBytes)
		}
	}
}

// TestDecodeOnce: a record is looked into once for each view, though three nodes want what comes of it.
func TestDecodeOnce(t *testing.T) {
	c := newTestCluster(t, 3, 6, func(cfg *Config) { cfg.ShareWait = wait })
	rng := rand.New(rand.NewPCG(1, 1))
	c.fill(rng, 30, 10)
	v := perKey()
	m := c.createView(100, v, false)
	c.check(100, v, m, c.tick)
	for range 20 {
		c.fill(rng, 1, 10)
		c.check(100, v, m, c.tick)
	}
	c.logs.mu.Lock()
	defer c.logs.mu.Unlock()
	if len(c.logs.raws) != 50*6 {
		t.Errorf("%d batches were looked into, want %d", len(c.logs.raws), 50*6)
	}
	for at, n := range c.logs.raws {
		if n != 1 {
			t.Fatalf("the batch at %v was looked into %d times", at, n)
		}
	}
}

// TestSlowReader: a reader that takes nothing holds nobody back, and gets everything in the end.
func TestSlowReader(t *testing.T) {
	c := newTestCluster(t, 1, 2, func(cfg *Config) { cfg.ChunkBytes = 1000 })
	rng := rand.New(rand.NewPCG(1, 1))
	v := perKey()
	m := c.createView(100, v, false)
	c.fill(rng, 3, 10)
	c.check(100, v, m, c.tick)
	rt := c.nodes[0].rt
	s, err := rt.sourceFor(100, 0, 0, 1)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var ticks []ids.Tick
	var owed int64
	r := newReader(s, 0, []ids.PartitionID{0, 1}, true, position{through: 0}, 3000)
	r.refused = func(string, bool) {}
	r.deliver = func(st *step, cost int64) {
		mu.Lock()
		defer mu.Unlock()
		owed += cost
		if st.tick != 0 && !st.part {
			ticks = append(ticks, st.tick)
		}
	}
	if err := s.attach(r); err != nil {
		t.Fatal(err)
	}
	var want []ids.Tick
	for i := range 100 {
		c.fill(rng, 1, 10)
		if i%10 == 0 {
			c.check(100, v, m, c.tick)
		}
	}
	mu.Lock()
	if owed > 3000+20_000 {
		t.Errorf("a reader with a window of 3000 bytes was given %d", owed)
	}
	mu.Unlock()
	want = append(want, m.created)
	for _, e := range c.model.events[0] {
		if e.tick > m.created && e.tick != want[len(want)-1] {
			want = append(want, e.tick)
		}
	}
	eventually(t, "the slow reader has got everything", func() bool {
		mu.Lock()
		n := owed
		owed = 0
		done := len(ticks) == len(want)
		mu.Unlock()
		if n > 0 {
			r.release(n)
		}
		return done
	})
	for i := range want {
		if ticks[i] != want[i] {
			t.Fatalf("step %d is of tick %d, want %d", i, ticks[i], want[i])
		}
	}
	s.mu.Lock()
	scans := len(s.scans)
	s.mu.Unlock()
	if scans != 1 {
		eventually(t, "the scans become one", func() bool {
			c.fill(rng, 1, 5)
			mu.Lock()
			n := owed
			owed = 0
			mu.Unlock()
			if n > 0 {
				r.release(n)
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			return len(s.scans) == 1
		})
	}
}

// live tells whether all nodes say that n views are.
func (c *testCluster) live(n int) bool {
	for _, node := range c.nodes {
		stats := node.rt.Stats()
		for _, s := range stats {
			if s.State != StateLive {
				return false
			}
		}
		if len(stats) < n {
			return false
		}
	}
	return true
}

// TestCrashInHistory crashes nodes again and again while they read a view's history.
func TestCrashInHistory(t *testing.T) {
	for seed := range uint64(3) {
		rng := rand.New(rand.NewPCG(seed, 7))
		c := newTestCluster(t, 1+int(seed), 4, func(cfg *Config) {
			cfg.ChunkBytes, cfg.FlushInterval = 2000, 100*time.Microsecond
			cfg.DirtyBytes, cfg.CacheBytes = 4000, 20_000
		})
		c.fill(rng, 150, 30)
		views := map[ids.StreamID]testView{100: perKey(), 101: windows(true), 102: filtered(), 103: sizes()}
		models := map[ids.StreamID]*model{}
		for id, v := range views {
			models[id] = c.createView(id, v, false)
		}
		half := 0
		for range 25 {
			c.logs.mu.Lock()
			until := c.logs.reads + 1 + rng.IntN(60)
			c.logs.mu.Unlock()
			for deadline := time.Now().Add(time.Second); time.Now().Before(deadline) && !c.live(len(views)); {
				c.logs.mu.Lock()
				n := c.logs.reads
				c.logs.mu.Unlock()
				if n >= until {
					break
				}
				time.Sleep(100 * time.Microsecond)
			}
			n := c.nodes[rng.IntN(len(c.nodes))]
			if rng.IntN(4) > 0 {
				if err := n.store.Flush(); err != nil {
					t.Fatal(err)
				}
			}
			c.crash(n, rng)
			for _, n := range c.nodes {
				for _, s := range n.rt.Stats() {
					if s.State == StateBackfilling && s.StateBytes > 0 {
						half++
					}
				}
			}
			c.closeTick(c.tick+1000, []int{0, 1, 2, 3})
		}
		if half == 0 {
			t.Errorf("seed %d: no crash hit a history half read", seed)
		}
		c.fill(rng, 3, 10)
		for id, v := range views {
			c.check(id, v, models[id], c.tick)
		}
	}
}

// TestHistoryReadAgain takes from a view what it has of its history in one partition: the others, which have all of it but
// its end, must not take what is read for that one a second time.
func TestHistoryReadAgain(t *testing.T) {
	c := newTestCluster(t, 1, 3, func(cfg *Config) { cfg.FlushInterval = time.Millisecond })
	c.fill(rand.New(rand.NewPCG(3, 3)), 5, 20)
	v := sizes()
	c.ahead = 10_000
	m := c.createView(100, v, false)
	n := c.nodes[0]
	eventually(t, "all of the history is stored, but that it is complete", func() bool {
		for _, tg := range n.rt.all.Load().targets {
			tg.mu.Lock()
			saved := tg.saved.positions
			tg.mu.Unlock()
			for p := range saved {
				if _, end, err := c.logs.End(ids.PartitionID(p), testStream); err != nil || saved[p].offset != end || saved[p].through != 0 {
					return false
				}
			}
		}
		return true
	})
	c.lose(n, func(b *storage.Batch) { b.DeleteRange(storage.StatePartitionRange(100, 1)) })
	c.closeTick(c.tick+20_000, []int{0, 1, 2})
	c.check(100, v, m, c.tick)
}

// fullStore refuses commits for a while, as a disk without room.
type fullStore struct {
	*storage.Store
	full    *atomic.Bool
	refused *atomic.Int64
}

func (f fullStore) Commit(b *storage.Batch, sync bool) error {
	if f.full.Load() {
		f.refused.Add(1)
		return fault.New(fault.Exhausted, "the disk is nearly full")
	}
	return f.Store.Commit(b, sync)
}

func TestDiskFull(t *testing.T) {
	var full atomic.Bool
	var refused atomic.Int64
	c := newWrappedCluster(t, 1, 2, func(cfg *Config) { cfg.FlushInterval = time.Millisecond },
		func(s *storage.Store) Store { return fullStore{s, &full, &refused} })
	rng := rand.New(rand.NewPCG(1, 1))
	v := perKey()
	m := c.createView(100, v, false)
	c.fill(rng, 5, 20)
	c.check(100, v, m, c.tick)
	full.Store(true)
	eventually(t, "a flush is refused", func() bool {
		c.fill(rng, 1, 20)
		return refused.Load() > 3
	})
	full.Store(false)
	c.fill(rng, 5, 20)
	c.check(100, v, m, c.tick)
	if s := c.nodes[0].rt.Stats()[0]; s.State != StateLive {
		t.Errorf("the view is %s: %s", s.State, s.LastError)
	}
}
