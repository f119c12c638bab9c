package stage

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/internal/leaks"
	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/proto/internalv1"
	"github.com/millrace/millrace/record"
	"github.com/millrace/millrace/storage"
)

func TestMain(m *testing.M) { leaks.Main(m) }

var (
	seedFlag   = flag.Uint64("stage.seed", 0, "seed of the random tests; 0: a few fixed ones")
	roundsFlag = flag.Int("stage.rounds", 60, "ticks of each random test")
)

// randomEvents makes records whose times run on with the ticks, some of them late, some NULL, some malformed.
func randomEvents(rng *rand.Rand, tick ids.Tick, n int) []event {
	out := make([]event, n)
	for i := range out {
		e := event{k: fmt.Sprintf("k%d", rng.IntN(12)), n: int64(rng.IntN(100)), ts: int64(tick) - int64(rng.IntN(100_000))}
		switch rng.IntN(20) {
		case 0:
			e.k = ""
		case 1:
			e.ts = noTime
		case 2:
			e.bad = true
		case 3:
			e.ts -= 400_000
		}
		out[i] = e
	}
	return out
}

func TestRandom(t *testing.T) {
	seeds := []uint64{1, 2, 3, 4}
	if *seedFlag != 0 {
		seeds = []uint64{*seedFlag}
	}
	for _, seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Logf("again: go test ./partition/stage -run TestRandom -stage.seed=%d", seed)
			newRandomRun(t, seed).run(*roundsFlag)
		})
	}
}

// randomRun drives a cluster at random and checks it against the model.
type randomRun struct {
	t         *testing.T
	c         *testCluster
	rng       *rand.Rand
	views     []*runView
	followers []*follower
	nextView  ids.StreamID
	primaries atomic.Pointer[[]*testNode] // for the followers, which run beside the driver
}

type runView struct {
	testView
	id    ids.StreamID
	model *model
	now   bool // began with start='now'
}

func newRandomRun(t *testing.T, seed uint64) *randomRun {
	rng := rand.New(rand.NewPCG(seed, seed))
	c := newTestCluster(t, 1+rng.IntN(3), 1+rng.IntN(5), func(cfg *Config) {
		cfg.ChunkBytes = 200 + rng.IntN(4000)
		cfg.DirtyBytes = int64(1 + rng.IntN(100_000))
		cfg.CacheBytes = int64(1 + rng.IntN(100_000))
		cfg.RecentBytes = int64(1 + rng.IntN(10_000))
		cfg.ExchangeBytes, cfg.FeedBytes = 1, int64(1+rng.IntN(6000))
		cfg.ScratchBytes = int64(1 + rng.IntN(2)*200_000) // all sources and targets work anew each time, or some
		cfg.ReadBytes, cfg.RestBytes = 1+rng.IntN(2000), 1+rng.IntN(4000)
	})
	r := &randomRun{t: t, c: c, rng: rng, nextView: 100}
	r.publish()
	t.Cleanup(func() {
		for _, f := range r.followers {
			f.stop()
			<-f.ended
		}
	})
	return r
}

// publish tells the followers where the primaries are.
func (r *randomRun) publish() {
	at := make([]*testNode, len(r.c.state.Partitions))
	for p := range at {
		at[p] = r.c.primary(ids.PartitionID(p))
	}
	r.primaries.Store(&at)
}

func (r *randomRun) run(rounds int) {
	rng, c := r.rng, r.c
	for round := range rounds {
		r.tick()
		switch k := rng.IntN(40); {
		case round == 3 || round > 3 && k == 0:
			r.create(false)
		case k == 1 && round > 3:
			r.create(true)
		case k < 5 && len(c.nodes) > 1:
			c.move(ids.PartitionID(rng.IntN(len(c.state.Partitions))), rng.IntN(len(c.nodes)))
			r.publish()
		case k == 6:
			c.crash(c.nodes[rng.IntN(len(c.nodes))], rng)
		case k == 7:
			c.logs.mu.Lock()
			c.logs.fail[ids.PartitionID(rng.IntN(len(c.state.Partitions)))] = rng.IntN(3)
			c.logs.mu.Unlock()
		case k < 14 && len(r.views) > 0:
			r.checkSome()
		}
	}
	for r.tick(); slices.ContainsFunc(r.views, func(v *runView) bool { return v.model.created > r.c.tick }); {
		r.tick()
	}
	r.checkAll()
}

// tick appends at random and closes a tick, in some order.
func (r *randomRun) tick() {
	rng, c := r.rng, r.c
	next := c.tick + ids.Tick(1000+rng.IntN(40_000))
	if rng.IntN(12) == 0 {
		next += testIdle
	}
	for p := range len(c.state.Partitions) {
		for range rng.IntN(3) {
			c.append(ids.PartitionID(p), next, randomEvents(rng, next, 1+rng.IntN(40)))
		}
	}
	c.closeTick(next, rng.Perm(len(c.state.Partitions)))
}

func (r *randomRun) create(now bool) {
	all := testViews()
	if len(r.views) > 0 {
		all = []testView{all[r.rng.IntN(len(all))]}
	}
	for _, v := range all {
		r.nextView++
		r.c.ahead = ids.Tick(r.rng.IntN(3) * r.rng.IntN(40_000))
		rv := &runView{testView: v, id: r.nextView, now: now}
		rv.model = r.c.createView(rv.id, v, now)
		if now {
			rv.naive = sinceCreated(v)
		}
		r.views = append(r.views, rv)
		for p := range len(r.c.state.Partitions) {
			at := func() *testNode { return (*r.primaries.Load())[p] }
			r.followers = append(r.followers, r.c.follow(rv.id, ids.PartitionID(p), rv.model.created, at))
		}
	}
}

// sinceCreated makes a view's model count only records after its creation; those before still make others late.
func sinceCreated(v testView) func(m *model, k ids.Tick) map[string]int64 {
	return func(m *model, k ids.Tick) map[string]int64 {
		n := *m
		n.from = m.created
		return v.naive(&n, k)
	}
}

// checkSome compares a view with the model at a tick that all have closed, not always the newest.
func (r *randomRun) checkSome() {
	v := r.views[r.rng.IntN(len(r.views))]
	tick := r.c.tick
	if tick < v.model.created {
		return
	}
	if back := ids.Tick(r.rng.IntN(300_000)); r.rng.IntN(2) == 0 && tick-back > v.model.created {
		tick -= back
	}
	r.c.check(v.id, v.testView, v.model, tick)
}

func (r *randomRun) checkAll() {
	tick := r.c.tick
	for _, v := range r.views {
		r.c.check(v.id, v.testView, v.model, tick)
		sum := map[string]int64{}
		for _, f := range r.followers {
			if f.view == v.id {
				for k, w := range f.upTo(r.t, tick) {
					sum[k] += w
				}
			}
		}
		if want := v.naive(v.model, tick); !maps.Equal(sum, want) {
			r.t.Fatalf("the subscriptions to %s add up to\n  %s\nwant\n  %s", v.name, show(sum), show(want))
		}
		if v.late {
			r.checkLate(v, tick)
		}
	}
}

func (r *randomRun) checkLate(v *runView, tick ids.Tick) {
	m := *v.model
	if v.now {
		m.from = m.created
	}
	want := m.eachWindowed(tick, func(*event, int64) {})
	var got uint64
	for _, n := range r.c.nodes {
		for _, s := range n.rt.Stats() {
			if s.View == uint64(v.id) {
				got += s.Late
				if s.State != StateLive {
					r.t.Errorf("view %s is %s on %s: %s", v.name, s.State, n.id, s.LastError)
				}
			}
		}
	}
	if got != uint64(want) {
		r.t.Errorf("view %s counts %d late rows, want %d", v.name, got, want)
	}
}

// TestPointRead reads by the whole key and by its beginning.
func TestPointRead(t *testing.T) {
	c := newTestCluster(t, 2, 4, nil)
	order := []int{0, 1, 2, 3}
	rng := rand.New(rand.NewPCG(1, 1))
	v, w := perKey(), windows(false)
	mv, mw := c.createView(100, v, false), c.createView(101, w, false)
	var ticks []ids.Tick
	for range 20 {
		next := c.tick + 5000
		for p := range 4 {
			c.append(ids.PartitionID(p), next, randomEvents(rng, next, 10))
		}
		c.closeTick(next, order)
		ticks = append(ticks, next)
	}
	for _, tick := range []ids.Tick{ticks[19], ticks[11], ticks[0], mv.created} {
		for _, key := range []string{"k1", "k7", "", "none"} {
			prefix := record.Value{Type: record.Text, Bytes: []byte(key), Null: key == ""}
			for id, tv := range map[ids.StreamID]testView{100: v, 101: w} {
				m := map[ids.StreamID]*model{100: mv, 101: mw}[id]
				want := map[string]int64{}
				for row, n := range tv.naive(m, tick) {
					if len(row) > len(null(key)) && row[:len(null(key))+1] == null(key)+"|" {
						want[row] = n
					}
				}
				got, err := c.read(id, tick, prefix)
				if err != nil {
					t.Fatal(err)
				}
				if !maps.Equal(got, want) {
					t.Errorf("%s at %d where k = %q has\n  %s\nwant\n  %s", tv.name, tick, key, show(got), show(want))
				}
			}
		}
	}
}

// TestPointReads reads some rows by their whole keys, at several ticks: what a scan has of them, and nothing else.
func TestPointReads(t *testing.T) {
	c := newTestCluster(t, 2, 4, nil)
	rng := rand.New(rand.NewPCG(2, 2))
	v := perKey()
	m := c.createView(100, v, false)
	ticks := []ids.Tick{}
	for range 12 {
		next := c.tick + 5000
		for p := range 4 {
			c.append(ids.PartitionID(p), next, randomEvents(rng, next, 10))
		}
		c.closeTick(next, []int{0, 1, 2, 3})
		ticks = append(ticks, next)
	}
	wanted := []string{"k1", "k7", "", "none", "k7", "k3"}
	for _, tick := range []ids.Tick{ticks[11], ticks[6], ticks[0], m.created} {
		want := map[string]int64{}
		for row, n := range v.naive(m, tick) {
			for _, key := range wanted {
				if strings.HasPrefix(row, null(key)+"|") {
					want[row] = n
				}
			}
		}
		got := map[string]int64{}
		for p := range ids.PartitionID(4) {
			scan := &plan.Scan{}
			for _, key := range wanted {
				value := record.Value{Type: record.Text, Bytes: []byte(key), Null: key == ""}
				scan.Keys = append(scan.Keys, plan.KeyRead{Partition: uint32(p), Key: []record.Value{value}}, plan.KeyRead{Partition: 9, Key: []record.Value{value}})
			}
			err := c.primary(p).rt.ReadScan(t.Context(), 100, p, tick, scan, func(d *record.Delta) error {
				rows := map[string]int64{}
				addRows(rows, d)
				for row := range rows { // a key that is asked for twice may come twice
					got[row] = 1
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		if !maps.Equal(got, want) {
			t.Errorf("at %d\n  %s\nwant\n  %s", tick, show(got), show(want))
		}
	}
}

// TestDropDeletes looks for what a dropped view leaves behind, also one that was dropped while a node was down.
func TestDropDeletes(t *testing.T) {
	c := newTestCluster(t, 1, 2, nil)
	rng := rand.New(rand.NewPCG(1, 1))
	c.createView(100, perKey(), false)
	m := c.createView(101, windows(true), false)
	for range 5 {
		next := c.tick + 5000
		c.append(0, next, randomEvents(rng, next, 30))
		c.append(1, next, randomEvents(rng, next, 30))
		c.closeTick(next, []int{0, 1})
	}
	c.check(101, windows(true), m, c.tick)
	c.change(func(st *internalv1.ClusterState) { st.Views = st.Views[1:] })
	n := c.nodes[0]
	c.stop(n)
	c.start(n)
	if got := c.keysOf(100); got != 0 {
		t.Errorf("%d keys of a dropped view are left", got)
	}
	if got := c.keysOf(101); got == 0 {
		t.Errorf("the other view's keys are gone")
	}
	c.stop(n)
	c.state.Views = nil
	c.start(n)
	if got := c.keysOf(101); got != 0 {
		t.Errorf("%d keys are left of a view that was dropped while the node was down", got)
	}
}

func (c *testCluster) keysOf(view ids.StreamID) int {
	c.t.Helper()
	return c.keysIn(storage.StateViewRange(view))
}

// keysIn counts what the first node has stored in a range.
func (c *testCluster) keysIn(lo, hi []byte) int {
	c.t.Helper()
	it, err := c.nodes[0].store.Iter(lo, hi)
	if err != nil {
		c.t.Fatal(err)
	}
	n := 0
	for ok := it.First(); ok; ok = it.Next() {
		n++
	}
	if err := it.Close(); err != nil {
		c.t.Fatal(err)
	}
	return n
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(wait); !cond(); {
		if time.Now().After(deadline) {
			t.Fatalf("%s didn't come about", what)
		}
		time.Sleep(time.Millisecond)
	}
}
