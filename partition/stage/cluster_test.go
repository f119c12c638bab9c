package stage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/proto/internalv1"
	"github.com/millrace/millrace/record"
	"github.com/millrace/millrace/storage"
)

// testNode is one runtime with its state store and server.
type testNode struct {
	id    ids.NodeID
	fs    *vfs.MemFS
	store *storage.Store
	rt    *Runtime // the driver's; others take it by runtime()
	stop  context.CancelFunc
	ended chan error
	srv   *grpc.Server
	lis   *bufconn.Listener
	conns map[ids.NodeID]*grpc.ClientConn
	mu    sync.Mutex
	logs  *memLogs
	lag   map[ids.PartitionID]ids.Tick // a replica that has just become primary may not know yet that later ticks are committed
}

// ReadTicks implements LogReader as this node's replicas do.
func (n *testNode) ReadTicks(p ids.PartitionID, s ids.StreamID, from ids.Offset, maxTick ids.Tick, fn func(*LogBatch) (bool, error)) error {
	n.mu.Lock()
	if lag, ok := n.lag[p]; ok {
		maxTick = min(maxTick, lag)
	}
	n.mu.Unlock()
	return n.logs.ReadTicks(p, s, from, maxTick, fn)
}

// End implements LogReader.
func (n *testNode) End(p ids.PartitionID, s ids.StreamID) (start, end ids.Offset, err error) {
	return n.logs.End(p, s)
}

// testCluster is several nodes over shared logs.
type testCluster struct {
	t       testing.TB
	cfg     func(*Config)
	logs    *memLogs
	nodes   []*testNode
	state   *internalv1.ClusterState
	first   map[ids.PartitionID]bool // the next closing is the first of an epoch
	data    []ids.Tick               // last tick with data that was told, by partition
	tick    ids.Tick
	model   *model
	wrap    func(*storage.Store) Store
	durable time.Duration // the configuration's DurableInterval
	begin   func(context.Context, ids.StreamID, ids.Tick) error
	peers   func(Peers) Peers // around the connections, if set
	ahead   ids.Tick          // how far a new view's created_tick lies above the last closed one
}

func newTestCluster(t testing.TB, nodes, partitions int, cfg func(*Config)) *testCluster {
	return newWrappedCluster(t, nodes, partitions, cfg, nil)
}

// newWrappedCluster is newTestCluster with something between the runtimes and their stores.
func newWrappedCluster(t testing.TB, nodes, partitions int, cfg func(*Config), wrap func(*storage.Store) Store) *testCluster {
	c := &testCluster{wrap: wrap, durable: DefaultConfig().DurableInterval,
		t: t, cfg: cfg, logs: newMemLogs(partitions), first: map[ids.PartitionID]bool{}, data: make([]ids.Tick, partitions),
		tick: streamCreated, model: &model{events: make([][]event, partitions)},
	}
	c.state = &internalv1.ClusterState{
		Version: 1, ClusterId: "test", Index: 1, PartitionCount: uint32(partitions),
		Streams: []*internalv1.StreamDef{{Stream: streamDef(), CreatedTick: uint64(streamCreated)}},
	}
	for i := range nodes {
		c.state.Members = append(c.state.Members, &internalv1.Member{Id: nodeName(i)})
	}
	for p := range partitions {
		pc := &internalv1.PartitionConfig{Id: uint32(p), Epoch: 1, Primary: nodeName(p % nodes)}
		for i := range nodes {
			pc.Replicas = append(pc.Replicas, nodeName(i))
		}
		c.state.Partitions = append(c.state.Partitions, pc)
	}
	for i := range nodes {
		n := &testNode{id: ids.NodeID(nodeName(i)), fs: vfs.NewCrashableMem(), logs: c.logs, lag: map[ids.PartitionID]ids.Tick{}}
		c.nodes = append(c.nodes, n)
		c.start(n)
	}
	t.Cleanup(func() {
		for _, n := range c.nodes {
			c.stop(n)
		}
	})
	return c
}

func nodeName(i int) string { return fmt.Sprintf("n%d", i) }

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func (n *testNode) runtime() *Runtime {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.rt
}

func (n *testNode) conn(c *testCluster, to ids.NodeID) (grpc.ClientConnInterface, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if cc := n.conns[to]; cc != nil {
		return cc, nil
	}
	cc, err := grpc.NewClient("passthrough:///"+string(to), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			for _, o := range c.nodes {
				if o.id == to {
					o.mu.Lock()
					lis := o.lis
					o.mu.Unlock()
					if lis == nil {
						return nil, errors.New("down")
					}
					return lis.DialContext(ctx)
				}
			}
			return nil, errors.New("unknown")
		}))
	if err != nil {
		return nil, err
	}
	n.conns[to] = cc
	return cc, nil
}

type peersFunc func(ids.NodeID) (grpc.ClientConnInterface, error)

func (f peersFunc) Conn(n ids.NodeID) (grpc.ClientConnInterface, error) { return f(n) }

// open opens a node's state store.
func (c *testCluster) open(n *testNode) *storage.Store {
	c.t.Helper()
	o := storage.DefaultOptions()
	o.FS, o.ReserveBytes, o.Logger, o.MemTableBytes = n.fs, 0, quiet(), 1<<20
	store, err := storage.OpenState("state", o)
	if err != nil {
		c.t.Fatal(err)
	}
	return store
}

func (c *testCluster) start(n *testNode) {
	c.t.Helper()
	store := c.open(n)
	cfg := DefaultConfig()
	cfg.NodeID, cfg.Workers = n.id, 2
	cfg.ShareWait, cfg.FlushInterval = 5*time.Millisecond, 20*time.Millisecond
	cfg.RetryMin, cfg.RetryMax = time.Millisecond, 20*time.Millisecond
	cfg.DurableInterval = c.durable
	if c.cfg != nil {
		c.cfg(&cfg)
	}
	n.conns = map[ids.NodeID]*grpc.ClientConn{}
	n.store = store
	var deps Store = store
	if c.wrap != nil {
		deps = c.wrap(store)
	}
	var peers Peers = peersFunc(func(to ids.NodeID) (grpc.ClientConnInterface, error) { return n.conn(c, to) })
	if c.peers != nil {
		peers = c.peers(peers)
	}
	rt, err := New(cfg, Deps{Store: deps, Logs: n, Logger: quiet(), Restart: c.begin, Peers: peers})
	if err != nil {
		c.t.Fatal(err)
	}
	n.mu.Lock()
	n.rt = rt
	n.mu.Unlock()
	n.srv = grpc.NewServer()
	rt.Register(n.srv)
	lis := bufconn.Listen(1 << 20)
	n.mu.Lock()
	n.lis = lis
	n.mu.Unlock()
	go func() { _ = n.srv.Serve(lis) }()
	ctx, cancel := context.WithCancel(context.Background())
	n.stop, n.ended = cancel, make(chan error, 1)
	go func() { n.ended <- rt.Run(ctx) }()
	rt.Configure(c.state)
	for _, p := range c.state.Partitions {
		if p.Primary == string(n.id) {
			c.first[ids.PartitionID(p.Id)] = true
		}
	}
}

// stop ends a node in an orderly way.
func (c *testCluster) stop(n *testNode) {
	if n.stop == nil {
		return
	}
	n.stop()
	n.stop = nil
	if err := <-n.ended; err != nil && n.store.Healthy() == nil {
		c.t.Errorf("run: %v", err)
	}
	n.rt.Close()
	n.srv.Stop()
	n.mu.Lock()
	n.lis = nil
	for _, cc := range n.conns {
		_ = cc.Close()
	}
	n.mu.Unlock()
	if err := n.store.Close(); err != nil {
		c.t.Errorf("close: %v", err)
	}
}

// lose restarts a node without what fn deletes.
func (c *testCluster) lose(n *testNode, fn func(*storage.Batch)) {
	c.t.Helper()
	c.stop(n)
	store := c.open(n)
	b := store.NewBatch()
	fn(b)
	if err := store.Commit(b, false); err != nil {
		c.t.Fatal(err)
	}
	b.Close()
	if err := store.Close(); err != nil {
		c.t.Fatal(err)
	}
	c.start(n)
}

// crash restarts a node with what its disk has: all that was synced, and maybe some more.
func (c *testCluster) crash(n *testNode, rng *rand.Rand) {
	disk := n.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng})
	c.stop(n)
	n.fs = disk
	c.start(n)
}

// crashAll is crash of all nodes at once: a power failure.
func (c *testCluster) crashAll(rng *rand.Rand) {
	var disks []*vfs.MemFS
	for _, n := range c.nodes {
		disks = append(disks, n.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng}))
	}
	for i, n := range c.nodes {
		c.stop(n)
		n.fs = disks[i]
	}
	for _, n := range c.nodes {
		c.start(n)
	}
}

// change publishes a new state to all nodes.
func (c *testCluster) change(fn func(*internalv1.ClusterState)) {
	old := c.state
	st := &internalv1.ClusterState{
		Version: 1, ClusterId: old.ClusterId, Index: old.Index + 1, PartitionCount: old.PartitionCount, Members: old.Members,
		Streams: old.Streams, Views: append([]*internalv1.ViewDef(nil), old.Views...),
	}
	for _, p := range old.Partitions {
		q := &internalv1.PartitionConfig{Id: p.Id, Epoch: p.Epoch, Primary: p.Primary, Replicas: append([]string(nil), p.Replicas...)}
		st.Partitions = append(st.Partitions, q)
	}
	fn(st)
	c.state = st
	for _, p := range st.Partitions {
		before := old.Partitions[p.Id]
		if p.Epoch != before.Epoch {
			c.first[ids.PartitionID(p.Id)] = true
		}
		for _, n := range c.nodes {
			if p.Primary != before.Primary && p.Primary == string(n.id) {
				n.mu.Lock()
				n.lag[ids.PartitionID(p.Id)] = c.tick - 5000
				n.mu.Unlock()
			}
		}
	}
	for _, n := range c.nodes {
		n.rt.Configure(st)
	}
}

// move makes another node the primary of a partition, or the same one in a new epoch.
func (c *testCluster) move(p ids.PartitionID, to int) {
	c.change(func(st *internalv1.ClusterState) {
		st.Partitions[p].Epoch++
		st.Partitions[p].Primary = nodeName(to)
	})
}

func (c *testCluster) createView(id ids.StreamID, v testView, startNow bool) *model {
	c.t.Helper()
	raw, err := plan.Marshal(v.plan)
	if err != nil {
		c.t.Fatal(err)
	}
	created := c.tick + c.ahead
	c.change(func(st *internalv1.ClusterState) {
		st.Views = append(st.Views, &internalv1.ViewDef{Id: uint64(id), Name: v.name, Plan: raw, CreatedTick: uint64(created), StartNow: startNow})
	})
	return &model{created: created, events: c.model.events}
}

// append adds records at the tick that is open: the one after c.tick that closeTick will close.
func (c *testCluster) append(p ids.PartitionID, tick ids.Tick, events []event) {
	for i := range events {
		events[i].p, events[i].tick = p, tick
	}
	c.model.events[p] = append(c.model.events[p], events...)
	c.logs.append(p, tick, events)
}

// closePartition closes a tick in one partition.
func (c *testCluster) closePartition(p ids.PartitionID, tick ids.Tick) {
	cfg := c.state.Partitions[p]
	for _, n := range c.nodes {
		if string(n.id) != cfg.Primary {
			continue
		}
		n.mu.Lock()
		delete(n.lag, p)
		n.mu.Unlock()
		cl := Closing{Partition: p, Epoch: ids.Epoch(cfg.Epoch), Tick: tick}
		last := ids.Tick(0)
		if e := c.model.events[p]; len(e) > 0 {
			last = e[len(e)-1].tick
		}
		if last > c.data[p] && !c.first[p] {
			cl.Data = []StreamTick{{testStream, last}}
		}
		c.data[p] = last
		c.first[p] = false
		n.rt.OnClosed(cl)
	}
}

func (c *testCluster) closeTick(tick ids.Tick, order []int) {
	for _, p := range order {
		c.closePartition(ids.PartitionID(p), tick)
	}
	c.tick = tick
}

func (c *testCluster) primary(p ids.PartitionID) *testNode {
	for _, n := range c.nodes {
		if string(n.id) == c.state.Partitions[p].Primary {
			return n
		}
	}
	c.t.Fatalf("partition %d has no primary", p)
	return nil
}

// wait is how long a test waits for what must happen.
const wait = 60 * time.Second

// read returns a view's rows at a tick, from all partitions.
func (c *testCluster) read(view ids.StreamID, tick ids.Tick, prefix ...record.Value) (map[string]int64, error) {
	return c.readWithin(wait, view, tick, prefix...)
}

func (c *testCluster) readWithin(limit time.Duration, view ids.StreamID, tick ids.Tick, prefix ...record.Value) (map[string]int64, error) {
	rows := map[string]int64{}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	for p := range len(c.state.Partitions) {
		for {
			n := c.primary(ids.PartitionID(p))
			got := map[string]int64{}
			_, err := n.rt.BeginRead(ctx, view, []ids.PartitionID{ids.PartitionID(p)}, tick)
			if err == nil {
				err = n.rt.Read(ctx, view, ids.PartitionID(p), tick, prefix, func(d *record.Delta) error {
					addRows(got, d)
					return nil
				})
			}
			if fault.Retryable(err) && ctx.Err() == nil {
				continue
			}
			if err != nil {
				return nil, fmt.Errorf("partition %d: %w", p, err)
			}
			for k, w := range got {
				rows[k] += w
			}
			break
		}
	}
	return rows, nil
}

func (c *testCluster) check(view ids.StreamID, v testView, m *model, tick ids.Tick) {
	c.t.Helper()
	got, err := c.read(view, tick)
	if err != nil {
		for _, n := range c.nodes {
			for _, s := range n.rt.Stats() {
				c.t.Logf("%s: %v", n.id, s)
			}
		}
		for _, n := range c.nodes {
			c.t.Log(n.rt.dump())
		}
		c.t.Fatalf("%s at %d: %v", v.name, tick, err)
	}
	if want := v.naive(m, tick); !maps.Equal(got, want) {
		c.t.Fatalf("%s at tick %d (created %d) has\n  %s\nwant\n  %s", v.name, tick, m.created, show(got), show(want))
	}
}

// follower subscribes to a view's partition and adds up what comes, across moves and crashes.
type follower struct {
	c     *testCluster
	view  ids.StreamID
	p     ids.PartitionID
	mu    sync.Mutex
	rows  map[string]int64
	done  ids.Tick
	ticks int
	err   error
	stop  context.CancelFunc
	ended chan struct{}
	at    func() *testNode
}

// follow begins with the rows at a tick.
func (c *testCluster) follow(view ids.StreamID, p ids.PartitionID, from ids.Tick, at func() *testNode) *follower {
	ctx, cancel := context.WithCancel(context.Background())
	f := &follower{c: c, view: view, p: p, rows: map[string]int64{}, done: from, stop: cancel, ended: make(chan struct{}), at: at}
	go f.run(ctx, from)
	return f
}

func (f *follower) run(ctx context.Context, from ids.Tick) {
	defer close(f.ended)
	for ctx.Err() == nil {
		err := f.at().runtime().Read(ctx, f.view, f.p, from, nil, func(d *record.Delta) error {
			addRows(f.rows, d)
			return nil
		})
		if err == nil {
			break
		}
		if !fault.Retryable(err) && ctx.Err() == nil {
			f.fail(err)
			return
		}
		f.rows = map[string]int64{}
	}
	for ctx.Err() == nil {
		f.mu.Lock()
		after := f.done
		f.mu.Unlock()
		last := after
		pending := map[string]int64{}
		err := f.at().runtime().Subscribe(ctx, f.view, f.p, after, func(tick ids.Tick, d *record.Delta) error {
			f.mu.Lock()
			defer f.mu.Unlock()
			if d == nil {
				if tick < last {
					return fmt.Errorf("progress goes back from %d to %d", last, tick)
				}
				f.done, last = tick, tick
				return nil
			}
			if tick <= last {
				return fmt.Errorf("tick %d comes after %d", tick, last)
			}
			last, f.done = tick, tick
			f.ticks++
			clear(pending)
			addRows(pending, d)
			for k, w := range pending {
				f.rows[k] += w
				if f.rows[k] < 0 {
					return fmt.Errorf("row %s has weight %d at tick %d", k, f.rows[k], tick)
				}
				if f.rows[k] == 0 {
					delete(f.rows, k)
				}
			}
			return nil
		})
		if err != nil && !fault.Retryable(err) && ctx.Err() == nil {
			f.fail(err)
			return
		}
	}
}

func (f *follower) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

// upTo waits until the follower has seen everything up to tick, the last one there is, and returns its rows.
func (f *follower) upTo(t testing.TB, tick ids.Tick) map[string]int64 {
	t.Helper()
	deadline := time.Now().Add(wait)
	for {
		f.mu.Lock()
		done, err, rows := f.done, f.err, maps.Clone(f.rows)
		f.mu.Unlock()
		if err != nil {
			t.Fatalf("subscription to view %d, partition %d: %v", f.view, f.p, err)
		}
		if done >= tick {
			return rows
		}
		if time.Now().After(deadline) {
			t.Fatalf("subscription to view %d, partition %d has come to %d, not %d", f.view, f.p, done, tick)
		}
		time.Sleep(time.Millisecond)
	}
}
