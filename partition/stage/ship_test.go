package stage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/proto/internalv1"
	"github.com/millrace/millrace/record"
	"github.com/millrace/millrace/storage"
)

// lanesOf returns the lanes of some views in all partitions.
func (c *testCluster) lanesOf(views ...ids.StreamID) []laneKey {
	var out []laneKey
	for _, v := range views {
		for p := range c.state.Partitions {
			out = append(out, laneKey{view: v, p: ids.PartitionID(p)})
		}
	}
	return out
}

// headOf returns what the primary has stored of a lane; false while there is something that it hasn't stored.
func (c *testCluster) headOf(k laneKey) (mark, bool) {
	s := c.primary(k.p).rt.ship
	s.mu.Lock()
	l := s.lanes[k]
	s.mu.Unlock()
	if l == nil || l.target.group == nil {
		return mark{}, false
	}
	l.target.mu.Lock()
	done, quiet := l.target.quiet()
	l.target.mu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.head, quiet && done >= c.tick
}

// markOf tells what a node has of a lane as a replica.
func (n *testNode) markOf(k laneKey) mark {
	in := &n.rt.ship.in
	in.mu.RLock()
	defer in.mu.RUnlock()
	part := in.parts[k.p]
	if part == nil {
		return mark{}
	}
	part.mu.Lock()
	defer part.mu.Unlock()
	if l := part.lanes[k]; l != nil {
		return l.mark
	}
	return mark{}
}

// awaitShipped waits until all running nodes have what the primaries of the lanes have.
func (c *testCluster) awaitShipped(t *testing.T, lanes []laneKey) {
	t.Helper()
	for _, k := range lanes {
		for _, n := range c.nodes {
			if n.stop == nil || n == c.primary(k.p) {
				continue
			}
			var head, there mark
			for deadline := time.Now().Add(3 * wait); ; time.Sleep(time.Millisecond) {
				quiet := false
				head, quiet = c.headOf(k)
				there = n.markOf(k)
				if quiet && head.tick > 0 && head.tick == there.tick && !there.copying {
					break
				}
				if time.Now().After(deadline) {
					t.Fatalf("lane %+v: the primary %s has %+v (quiet %v), %s has %+v\n%s", k, c.primary(k.p).id, head, quiet, n.id, there,
						c.primary(k.p).rt.dump())
				}
			}
		}
	}
}

// stored returns what a node has stored of a lane, in hex; of the output deltas, whose blocks depend on the flushes, only
// with deltas.
func (n *testNode) stored(t *testing.T, k laneKey, deltas bool) string {
	t.Helper()
	it, err := n.store.Iter(laneRange(k))
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	for ok := it.First(); ok; ok = it.Next() {
		if _, _, space, _, _ := storage.ParseStateKey(it.Key()); space != spaceDeltas || deltas {
			fmt.Fprintf(&b, "%x=%x\n", it.Key(), it.Value())
		}
	}
	if err := it.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// sameEverywhere compares what all running nodes have stored.
func (c *testCluster) sameEverywhere(t *testing.T, lanes []laneKey, deltas bool) {
	t.Helper()
	for _, k := range lanes {
		want := c.primary(k.p).stored(t, k, deltas)
		if want == "" {
			t.Errorf("lane %+v is empty", k)
		}
		for _, n := range c.nodes {
			if n.stop != nil && n.stored(t, k, deltas) != want {
				t.Errorf("lane %+v is another one on %s than on %s", k, n.id, c.primary(k.p).id)
			}
		}
	}
}

// coveredBy is the tick up to which what was shipped of the lanes goes on without reading anything again: that of the
// stored positions, which may lie before that of the state.
func (c *testCluster) coveredBy(t *testing.T, lanes []laneKey) ids.Tick {
	t.Helper()
	least := maxTick
	for _, k := range lanes {
		for _, n := range c.nodes {
			if n.stop == nil {
				continue
			}
			raw, closer, err := n.store.Get(storage.StateKey(k.view, k.p, spaceProgress, nil))
			if err != nil {
				t.Fatal(err)
			}
			m := &internalv1.TargetProgress{}
			if err := errors.Join(proto.Unmarshal(raw, m), closer.Close()); err != nil {
				t.Fatal(err)
			}
			least = min(least, ids.Tick(m.CutTick))
		}
	}
	return least
}

// rawsAt tells how often the batches up to a tick were looked into.
func (c *testCluster) rawsAt(tick ids.Tick) int {
	c.logs.mu.Lock()
	defer c.logs.mu.Unlock()
	n := 0
	for p, batches := range c.logs.parts {
		for _, b := range batches {
			if b.tick <= tick {
				n += c.logs.raws[[2]uint64{uint64(p), uint64(b.base)}]
			}
		}
	}
	return n
}

// loses stops a node and gives its partitions to the others, in turn.
func (c *testCluster) loses(lost int) {
	c.stop(c.nodes[lost])
	c.change(func(st *internalv1.ClusterState) {
		to := lost
		for _, p := range st.Partitions {
			if p.Primary != nodeName(lost) {
				continue
			}
			for to = (to + 1) % len(c.nodes); c.nodes[to].stop == nil; {
				to = (to + 1) % len(c.nodes)
			}
			p.Epoch++
			p.Primary = nodeName(to)
		}
	})
}

func shippedViews(c *testCluster) (map[ids.StreamID]testView, map[ids.StreamID]*model, []laneKey) {
	views := map[ids.StreamID]testView{}
	models := map[ids.StreamID]*model{}
	var names []ids.StreamID
	for i, v := range testViews() {
		id := ids.StreamID(100 + i)
		views[id], models[id] = v, c.createView(id, v, false)
		names = append(names, id)
	}
	return views, models, c.lanesOf(names...)
}

// TestShipFailover: after a node is lost, views go on from what was shipped: no record that it covers is read again.
func TestShipFailover(t *testing.T) {
	c := newTestCluster(t, 3, 6, nil)
	rng := rand.New(rand.NewPCG(1, 1))
	c.fill(rng, 20, 20)
	views, models, lanes := shippedViews(c)
	c.fill(rng, 40, 20)
	c.awaitShipped(t, lanes)
	c.sameEverywhere(t, lanes, true)
	retained := c.tick
	eventually(t, "positions are stored after the history", func() bool {
		c.fill(rng, 2, 20)
		c.awaitShipped(t, lanes)
		return c.coveredBy(t, lanes) > models[100].created
	})
	shipped := c.coveredBy(t, lanes)
	before := c.rawsAt(shipped)
	followers := []*follower{}
	for p := range c.state.Partitions {
		at := c.primary(ids.PartitionID(p))
		if at == c.nodes[0] {
			at = c.nodes[1+p/3%2]
		}
		followers = append(followers, c.follow(100, ids.PartitionID(p), retained, func() *testNode { return at }))
	}
	c.loses(0)
	c.fill(rng, 10, 20)
	for id, v := range views {
		c.check(id, v, models[id], c.tick)
		c.check(id, v, models[id], retained) // also what was retained came along
	}
	if after := c.rawsAt(shipped); after != before {
		t.Errorf("records that shipped state covers were looked into %d times after the failover", after-before)
	}
	for _, f := range followers {
		f.stop()
		<-f.ended
	}
	c.awaitShipped(t, lanes)
	c.sameEverywhere(t, lanes, false)
	c.loses(1) // all is on one node
	c.fill(rng, 3, 20)
	for id, v := range views {
		c.check(id, v, models[id], c.tick)
	}
	if after := c.rawsAt(shipped); after != before {
		t.Errorf("records that shipped state covers were looked into %d times after the second failover", after-before)
	}
	for _, n := range c.nodes[:2] { // they come back with what they had then
		c.start(n)
	}
	c.fill(rng, 3, 20)
	c.awaitShipped(t, lanes)
	c.sameEverywhere(t, lanes, false)
}

// TestShipCopy: a replica that missed more than the backlog gets a copy, while the views go on.
func TestShipCopy(t *testing.T) {
	c := newTestCluster(t, 3, 4, func(cfg *Config) {
		cfg.Ship.BacklogBytes, cfg.Ship.ChunkBytes, cfg.Ship.CopyPause = 200_000, 300, time.Millisecond
		cfg.Ship.WindowBytes = 1000
	})
	rng := rand.New(rand.NewPCG(2, 1))
	views, models, lanes := shippedViews(c)
	c.fill(rng, 10, 20)
	c.awaitShipped(t, lanes)
	c.loses(2)
	c.fill(rng, 60, 30)
	for id, v := range views {
		c.check(id, v, models[id], c.tick)
	}
	kept := func() (n int64) {
		for _, o := range c.nodes[:2] {
			o.rt.ship.backlogMu.Lock()
			n = max(n, o.rt.ship.kept)
			o.rt.ship.backlogMu.Unlock()
		}
		return n
	}
	if n := kept(); n > 200_000 {
		t.Errorf("%d bytes are kept for a dead replica", n)
	}
	c.start(c.nodes[2])
	for range 30 {
		c.fill(rng, 1, 20)
	}
	c.awaitShipped(t, lanes)
	c.sameEverywhere(t, lanes, false)
	copies := int64(0)
	for _, n := range c.nodes[:2] {
		copies += n.rt.ship.counts.copies.Load()
	}
	if copies == 0 {
		t.Error("no lane was copied")
	}
	shipped := c.coveredBy(t, lanes)
	before := c.rawsAt(shipped)
	c.loses(0)
	c.loses(1)
	c.fill(rng, 3, 20)
	for id, v := range views {
		c.check(id, v, models[id], c.tick)
	}
	if after := c.rawsAt(shipped); after != before {
		t.Errorf("records that the copies cover were looked into %d times", after-before)
	}
}

// TestShipHalfCopy: a replica that becomes the primary in the middle of a copy doesn't use it.
func TestShipHalfCopy(t *testing.T) {
	c := newTestCluster(t, 2, 2, func(cfg *Config) { cfg.Ship.ChunkBytes, cfg.Ship.WindowBytes = 100, 100 })
	rng := rand.New(rand.NewPCG(3, 1))
	c.loses(1)
	c.fill(rng, 5, 50)
	views, models, lanes := shippedViews(c)
	c.fill(rng, 20, 50)
	for id, v := range views {
		c.check(id, v, models[id], c.tick)
	}
	half := laneKey{}
	gate := &shipGate{limit: 1, more: make(chan struct{})}
	c.stop(c.nodes[0])
	c.peers = gate.peers
	c.start(c.nodes[0])
	c.start(c.nodes[1])
	c.fill(rng, 1, 50)
	passed := time.Now()
	eventually(t, "a copy is under way", func() bool {
		for _, k := range lanes {
			if m := c.nodes[1].markOf(k); m.copying && m.tick > 0 {
				half = k
				return true
			}
		}
		if time.Since(passed) > 2*time.Second { // it was refused, since the node had just begun, or its stream broke
			passed = time.Now()
			gate.let(1)
		}
		return false
	})
	c.move(half.p, 1)
	c.fill(rng, 3, 20)
	for id, v := range views {
		c.check(id, v, models[id], c.tick)
	}
	gate.let(1 << 30)
	c.awaitShipped(t, lanes)
	c.sameEverywhere(t, lanes, false)
}

// shipGate lets so many chunks of copies through that aren't the last, then none until it is to let more.
type shipGate struct {
	mu    sync.Mutex
	limit int
	more  chan struct{} // closed when there is
}

func (g *shipGate) let(chunks int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.limit += chunks
	close(g.more)
	g.more = make(chan struct{})
}

// pass waits until a chunk may go.
func (g *shipGate) pass(ctx context.Context, last bool) error {
	for {
		g.mu.Lock()
		free, more := g.limit > 0, g.more
		if free && !last {
			g.limit--
		}
		g.mu.Unlock()
		if free {
			return nil
		}
		select {
		case <-more:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (g *shipGate) peers(p Peers) Peers {
	return peersFunc(func(n ids.NodeID) (grpc.ClientConnInterface, error) {
		c, err := p.Conn(n)
		return gatedConn{c, g}, err
	})
}

type gatedConn struct {
	grpc.ClientConnInterface
	g *shipGate
}

func (c gatedConn) NewStream(ctx context.Context, d *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	s, err := c.ClientConnInterface.NewStream(ctx, d, method, opts...)
	if err != nil || method != internalv1.Shipping_Ship_FullMethodName {
		return s, err
	}
	return gatedStream{s, c.g}, nil
}

type gatedStream struct {
	grpc.ClientStream
	g *shipGate
}

func (s gatedStream) SendMsg(m any) error {
	if r, ok := m.(*internalv1.ShipRequest); ok && r.Piece != nil && len(r.Piece.Cursor) > 0 {
		if err := s.g.pass(s.Context(), r.Piece.Copied); err != nil {
			return err
		}
	}
	return s.ClientStream.SendMsg(m)
}

// TestShipFences: a batch of a primary that was deposed, of another view's time, or that doesn't fit, changes nothing.
func TestShipFences(t *testing.T) {
	c := newTestCluster(t, 2, 2, nil)
	rng := rand.New(rand.NewPCG(4, 1))
	v := perKey()
	m := c.createView(100, v, false)
	c.fill(rng, 10, 20)
	lanes := c.lanesOf(100)
	c.awaitShipped(t, lanes)
	k := lanes[0] // its primary is n0
	n := c.nodes[1]
	in := &n.rt.ship.in
	have := n.markOf(k)
	b := n.store.NewBatch()
	defer b.Close()
	lo, hi := laneRange(k)
	b.DeleteRange(lo, hi)
	piece := func(change func(*internalv1.ShipPiece)) *internalv1.ShipPiece {
		p := &internalv1.ShipPiece{Changes: b.Changes(), From: uint64(have.tick), To: uint64(have.tick + 1), Floor: uint64(have.floor), Born: uint64(have.born)}
		change(p)
		return p
	}
	before := n.stored(t, k, true)
	for name, try := range map[string]struct {
		from  ids.NodeID
		epoch ids.Epoch
		p     *internalv1.ShipPiece
	}{
		"an older epoch":    {"n0", 0, piece(func(*internalv1.ShipPiece) {})},
		"a newer epoch":     {"n0", 2, piece(func(*internalv1.ShipPiece) {})},
		"another sender":    {"n2", 1, piece(func(*internalv1.ShipPiece) {})},
		"a gap":             {"n0", 1, piece(func(p *internalv1.ShipPiece) { p.From++ })},
		"the past":          {"n0", 1, piece(func(p *internalv1.ShipPiece) { p.From, p.To = p.From-9, p.From-1 })},
		"another view":      {"n0", 1, piece(func(p *internalv1.ShipPiece) { p.Born++ })},
		"an earlier floor":  {"n0", 1, piece(func(p *internalv1.ShipPiece) { p.Floor-- })},
		"a chunk of a copy": {"n0", 1, piece(func(p *internalv1.ShipPiece) { p.Cursor = hi })},
		"damage":            {"n0", 1, piece(func(p *internalv1.ShipPiece) { p.Changes = append([]byte{}, p.Changes[:5]...) })},
	} {
		if _, err := in.apply(try.from, k, try.epoch, try.p); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	if n.stored(t, k, true) != before || n.markOf(k).tick != have.tick {
		t.Error("something was changed")
	}
	if _, err := in.apply("n0", lanes[1], 1, piece(func(*internalv1.ShipPiece) {})); fault.KindOf(err) != fault.NotFound {
		t.Errorf("the primary took a batch: %v", err)
	}
	c.fill(rng, 2, 20)
	c.check(100, v, m, c.tick)
}

// TestShipDropped: what was shipped of a dropped view goes.
func TestShipDropped(t *testing.T) {
	c := newTestCluster(t, 3, 3, nil)
	rng := rand.New(rand.NewPCG(5, 1))
	c.createView(100, perKey(), false)
	v := filtered()
	m := c.createView(101, v, false)
	c.fill(rng, 10, 20)
	c.awaitShipped(t, c.lanesOf(100, 101))
	c.change(func(st *internalv1.ClusterState) { st.Views = st.Views[1:] })
	c.fill(rng, 10, 20)
	c.awaitShipped(t, c.lanesOf(101))
	for _, n := range c.nodes {
		for _, k := range c.lanesOf(100) {
			if s := n.stored(t, k, true); s != "" {
				t.Errorf("%s has %s of a dropped view", n.id, s)
			}
		}
	}
	c.change(func(st *internalv1.ClusterState) { // a replica leaves
		st.Partitions[0].Epoch++
		st.Partitions[0].Replicas = []string{"n0", "n1"}
	})
	if s := c.nodes[2].stored(t, c.lanesOf(101)[0], true); s != "" {
		t.Errorf("a node that left has %s", s)
	}
	c.check(101, v, m, c.tick)
}

// TestShipRandom moves and crashes at random while little is kept for the replicas.
func TestShipRandom(t *testing.T) {
	seeds := []uint64{11, 12, 13}
	if *seedFlag != 0 {
		seeds = []uint64{*seedFlag}
	}
	for _, seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Logf("again: go test ./partition/stage -run TestShipRandom -stage.seed=%d", seed)
			shipAtRandom(t, rand.New(rand.NewPCG(seed, 3)))
		})
	}
}

func shipAtRandom(t *testing.T, rng *rand.Rand) {
	c := newTestCluster(t, 3, 1+rng.IntN(4), func(cfg *Config) {
		cfg.Ship.BacklogBytes = int64(rng.IntN(60_000))
		cfg.Ship.ChunkBytes, cfg.Ship.WindowBytes = 50+rng.IntN(2000), int64(1+rng.IntN(5000))
		cfg.Ship.CopyPause, cfg.Ship.NoticeInterval = time.Millisecond, 3*time.Millisecond
		cfg.RetainTicks = 200_000
		cfg.FlushInterval = time.Duration(1+rng.IntN(20)) * time.Millisecond
	})
	c.fill(rng, 5, 20)
	views, models, lanes := shippedViews(c)
	down := -1
	for range *roundsFlag {
		c.fill(rng, 1+rng.IntN(3), 1+rng.IntN(40))
		switch k := rng.IntN(12); {
		case k < 3:
			to := rng.IntN(3)
			if to != down {
				c.move(ids.PartitionID(rng.IntN(len(c.state.Partitions))), to)
			}
		case k == 3 && down < 0:
			down = rng.IntN(3)
			c.loses(down)
		case k == 4 && down < 0:
			c.crash(c.nodes[rng.IntN(3)], rng)
		case k == 5 && down >= 0:
			n := c.nodes[down]
			n.fs = n.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng})
			c.start(n)
			down = -1
		case k > 8:
			for id, v := range views {
				if n := c.nodes[rng.IntN(3)]; n.stop != nil {
					c.checkAlone(t, n, id, v, models[id])
				}
			}
		case k == 6:
			for id, v := range views {
				c.check(id, v, models[id], c.tick)
			}
		}
	}
	if down >= 0 {
		c.start(c.nodes[down])
	}
	c.fill(rng, 2, 10)
	for id, v := range views {
		c.check(id, v, models[id], c.tick)
	}
	c.awaitShipped(t, lanes)
	c.sameRows(t, lanes, views, models)
	lost := rng.IntN(3)
	shipped := c.coveredBy(t, lanes)
	before := c.rawsAt(shipped)
	c.loses(lost)
	c.fill(rng, 2, 10)
	for id, v := range views {
		c.check(id, v, models[id], c.tick)
	}
	if after := c.rawsAt(shipped); after != before {
		t.Errorf("records that shipped state covers were looked into %d times after the failover", after-before)
	}
}

// checkAlone reads a view on one node, without the others: it gives what the view was at the tick, or nothing at all.
func (c *testCluster) checkAlone(t *testing.T, n *testNode, id ids.StreamID, v testView, m *model) (answered bool) {
	t.Helper()
	tick, err := n.rt.LocalTick(id, true)
	if err != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	for _, at := range []ids.Tick{tick, tick - 7000} {
		got := map[string]int64{}
		for p := range ids.PartitionID(len(c.state.Partitions)) {
			if err == nil {
				err = n.rt.Read(ctx, id, p, at, nil, func(d *record.Delta) error { addRows(got, d); return nil })
			}
		}
		if err != nil && (fault.Retryable(err) || reasonOf(err) == ReasonTickNotRetained) {
			return false // another copy has begun meanwhile, or it is too long ago
		}
		if want := v.naive(m, at); err != nil || !maps.Equal(got, want) {
			t.Fatalf("%s alone has of %s at %d (of %d): %v\n  %s\nwant\n  %s", n.id, v.name, at, tick, err, show(got), show(want))
		}
	}
	return true
}

// TestShipReads: what was shipped can be read, and while nothing changes at the newest tick.
func TestShipReads(t *testing.T) {
	c := newTestCluster(t, 3, 4, func(cfg *Config) { cfg.Ship.NoticeInterval = 2 * time.Millisecond })
	rng := rand.New(rand.NewPCG(6, 1))
	c.fill(rng, 5, 20)
	views, models, lanes := shippedViews(c)
	for range 20 {
		c.fill(rng, 3, 20)
		for id, v := range views {
			c.checkAlone(t, c.nodes[rng.IntN(3)], id, v, models[id])
		}
	}
	c.awaitShipped(t, lanes)
	for range 3 {
		c.closeTick(c.tick+10_000, []int{0, 1, 2, 3}) // nothing comes
		for id, v := range views {
			for _, n := range c.nodes {
				eventually(t, "the newest tick can be read everywhere", func() bool {
					tick, err := n.rt.LocalTick(id, true)
					return err == nil && tick >= c.tick && c.checkAlone(t, n, id, v, models[id])
				})
			}
		}
	}
	_, err := c.nodes[0].rt.LocalTick(999, true)
	if reasonOf(err) != ReasonNotHeld {
		t.Errorf("a view that isn't known: %v", err)
	}
	c.change(func(st *internalv1.ClusterState) {
		st.Partitions[1].Epoch++
		st.Partitions[1].Replicas = []string{"n1", "n2"}
	})
	if _, err := c.nodes[0].rt.LocalTick(100, true); reasonOf(err) != ReasonNotHeld {
		t.Errorf("a node without a replica of each partition: %v", err)
	}
	tick := c.tick
	eventually(t, "another node goes on", func() bool {
		at, err := c.nodes[2].rt.LocalTick(100, true)
		return err == nil && at >= tick
	})
}

// sameRows compares the replicas' rows and state with the primaries'.
func (c *testCluster) sameRows(t *testing.T, lanes []laneKey, views map[ids.StreamID]testView, models map[ids.StreamID]*model) {
	t.Helper()
	c.sameEverywhere(t, lanes, false)
	for id, v := range views {
		got, err := c.read(id, c.tick)
		if want := v.naive(models[id], c.tick); err != nil || !maps.Equal(got, want) {
			t.Errorf("%s: %v", v.name, err)
		}
	}
}

// retainedCluster is a cluster whose stream has a retention, which truncates as far as the views allow.
func retainedCluster(t *testing.T, patience time.Duration) *testCluster {
	c := newTestCluster(t, 2, 2, func(cfg *Config) {
		cfg.DurableInterval, cfg.FlushInterval, cfg.Ship.Patience = 5*time.Millisecond, time.Millisecond, patience
	})
	def := streamDef()
	def.RetentionBytes = 1
	c.change(func(st *internalv1.ClusterState) {
		st.Streams = []*internalv1.StreamDef{{Stream: def, CreatedTick: uint64(streamCreated)}}
	})
	return c
}

// rises waits until both logs may be truncated above what they are now, and does it.
func (c *testCluster) rises(t *testing.T, rng *rand.Rand) {
	t.Helper()
	for p := range ids.PartitionID(2) {
		eventually(t, "the low water rises", func() bool {
			c.fill(rng, 1, 3)
			low, _ := c.primary(p).rt.LowWater(testStream, p)
			if low <= c.logs.start[p] {
				return false
			}
			c.logs.truncate(p, low)
			return true
		})
	}
}

// TestShipLowWater: logs are kept as far back as a replica that is behind needs them, should it become the primary.
func TestShipLowWater(t *testing.T) {
	c := retainedCluster(t, time.Hour)
	rng := rand.New(rand.NewPCG(7, 1))
	v := perKey()
	m := c.createView(100, v, false)
	c.fill(rng, 10, 20)
	c.rises(t, rng)
	c.loses(1)
	for range 30 {
		c.fill(rng, 3, 20)
		c.check(100, v, m, c.tick)
		for p := range ids.PartitionID(2) {
			low, _ := c.primary(p).rt.LowWater(testStream, p)
			c.logs.truncate(p, low)
		}
	}
	c.stop(c.nodes[0]) // the other one has only what it had
	c.start(c.nodes[1])
	c.change(func(st *internalv1.ClusterState) {
		for _, p := range st.Partitions {
			p.Epoch++
			p.Primary = "n1"
		}
	})
	c.fill(rng, 2, 20)
	c.check(100, v, m, c.tick)
}

// TestShipDeadReplica: a replica that doesn't come back doesn't hold logs for ever.
func TestShipDeadReplica(t *testing.T) {
	c := retainedCluster(t, 50*time.Millisecond)
	rng := rand.New(rand.NewPCG(8, 1))
	v := perKey()
	m := c.createView(100, v, false)
	c.fill(rng, 10, 20)
	c.rises(t, rng)
	c.loses(1)
	for range 3 {
		c.fill(rng, 5, 20)
		c.rises(t, rng)
	}
	c.check(100, v, m, c.tick)
}

// TestShipAfterFlush: while a node gives a partition up, it takes nothing from the new primary before its own target has
// stored what it had: that would lie on what is newer.
func TestShipAfterFlush(t *testing.T) {
	c := newTestCluster(t, 2, 2, nil)
	v := perKey()
	m := c.createView(100, v, false)
	c.fill(rand.New(rand.NewPCG(4, 2)), 10, 20)
	k := c.lanesOf(100)[0] // its primary is n0
	n := c.nodes[0]
	c.move(k.p, 1)
	c.move(k.p, 0)
	st := proto.Clone(c.state).(*internalv1.ClusterState)
	st.Index++
	st.Partitions[k.p].Epoch++
	st.Partitions[k.p].Primary = "n1"
	epoch := ids.Epoch(st.Partitions[k.p].Epoch)
	n.rt.mu.Lock()
	n.rt.ship.prepare(st)
	_, err := n.rt.ship.in.open("n1", k, epoch)
	n.rt.mu.Unlock()
	if fault.KindOf(err) != fault.NotFound {
		t.Fatalf("before the target has stored what it had: %v", err)
	}
	c.move(k.p, 1)
	if _, err := n.rt.ship.in.open("n1", k, epoch); err != nil {
		t.Fatal(err)
	}
	c.closeTick(c.tick+1000, []int{0, 1})
	c.check(100, v, m, c.tick)
}
