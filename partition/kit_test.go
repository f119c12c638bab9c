package partition

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	internalv1 "github.com/millrace/millrace/proto/internalv1"
	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
	"github.com/millrace/millrace/record"
	"github.com/millrace/millrace/storage"
)

// cluster is some hosts with a coordinator in memory, over file systems that can crash.
type cluster struct {
	t     testing.TB
	tcp   bool // loopback instead of pipes in memory
	cfg   func(*Config)
	store func(node ids.NodeID, fs vfs.FS) (*storage.Store, error)

	mu    sync.Mutex
	state *internalv1.ClusterState
	nodes map[ids.NodeID]*node
	order []ids.NodeID
	tick  ids.Tick
	cut   map[[2]ids.NodeID]bool // pairs that can't reach each other

	tickWanted chan struct{}
	stopTicks  func()
	frozen     atomic.Bool // no configuration change gets through
}

type node struct {
	c        *cluster
	id       ids.NodeID
	fs       *vfs.MemFS
	store    *storage.Store
	host     *Host
	server   *grpc.Server
	listener net.Listener
	dial     func(ctx context.Context) (net.Conn, error)
	conns    map[ids.NodeID]*grpc.ClientConn
	cancel   context.CancelFunc
	done     chan struct{}
	closings []Closing
	up       bool
	crashed  atomic.Bool
	pipes    []net.Conn
}

func newCluster(t testing.TB, nodes, partitions int, cfg func(*Config)) *cluster {
	c := &cluster{
		t: t, cfg: cfg, nodes: map[ids.NodeID]*node{}, cut: map[[2]ids.NodeID]bool{}, tick: 1000,
		tickWanted: make(chan struct{}, 1),
	}
	c.store = func(_ ids.NodeID, fs vfs.FS) (*storage.Store, error) {
		o := storage.DefaultOptions()
		o.FS, o.Logger, o.ReserveBytes, o.MemTableBytes, o.CacheBytes = fs, quiet(), 0, 1<<20, 1<<20
		return storage.OpenLog("log", o)
	}
	st := &internalv1.ClusterState{Version: 1, ClusterId: "c", Index: 10, PartitionCount: uint32(partitions), Replicas: uint32(min(3, nodes)), NextObjectId: 10}
	for i := range nodes {
		id := ids.NodeID(fmt.Sprintf("n%d", i+1))
		c.order = append(c.order, id)
		c.nodes[id] = &node{c: c, id: id, fs: vfs.NewCrashableMem()}
	}
	for p := range partitions {
		cfg := &internalv1.PartitionConfig{Id: uint32(p), Epoch: 1, EpochIndex: 10}
		for i := range min(3, nodes) {
			cfg.Replicas = append(cfg.Replicas, string(c.order[(p+i)%nodes]))
		}
		cfg.Primary, cfg.InSync = cfg.Replicas[0], slices.Clone(cfg.Replicas)
		st.Partitions = append(st.Partitions, cfg)
	}
	for s := range 3 {
		st.Streams = append(st.Streams, &internalv1.StreamDef{Stream: &millracev1.Stream{Id: uint64(s + 1), Name: fmt.Sprint("s", s+1)}})
	}
	c.state = st
	return c
}

// patient is the configuration of a cluster in which nothing fails: on a machine that stands still for a while nobody is taken
// for unresponsive, and no append is refused for it.
func patient(cfg *Config) {
	cfg.AckTimeout, cfg.StartGrace, cfg.CommitTimeout = time.Minute, time.Minute, time.Minute
}

func quiet() *slog.Logger {
	if os.Getenv("PARTITION_LOG") != "" {
		return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	return slog.New(slog.NewTextHandler(io.Discard, nil))
}

// startAll starts all nodes and the ticks; the test's end stops them.
func (c *cluster) startAll() *cluster {
	for _, id := range c.order {
		c.start(id)
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		ticker := time.NewTicker(5 * time.Millisecond)
		defer ticker.Stop()
		for {
			select {
			case <-stop:
				return
			case <-ticker.C:
			case <-c.tickWanted:
			}
			c.issueTick()
		}
	})
	var once sync.Once
	c.stopTicks = func() { once.Do(func() { close(stop); wg.Wait() }) }
	c.t.Cleanup(c.stopAll)
	return c
}

func (c *cluster) issueTick() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tick = max(c.tick+1, ids.Tick(time.Now().UnixMicro()))
	for _, n := range c.nodes {
		if n.up {
			n.host.Tick(c.tick, c.state.Index)
		}
	}
}

func (c *cluster) stopAll() {
	c.stopTicks()
	for _, id := range c.order {
		if c.nodes[id].up {
			c.stop(id)
		}
	}
}

// start opens a node on what its file system has.
func (c *cluster) start(id ids.NodeID) {
	n := c.nodes[id]
	var err error
	if n.store, err = c.store(id, n.fs); err != nil {
		c.t.Fatal(err)
	}
	cfg := DefaultConfig()
	cfg.Node, cfg.Coordinator = id, (*fakeCoordinator)(c)
	cfg.InFlightBytes, cfg.PartitionBytes, cfg.MaxBatchBytes = 8<<20, 4<<20, 1<<20
	cfg.AckTimeout, cfg.StartGrace = 300*time.Millisecond, 300*time.Millisecond
	if c.cfg != nil {
		c.cfg(&cfg)
	}
	n.conns = map[ids.NodeID]*grpc.ClientConn{}
	if n.host, err = NewHost(cfg, n.store, n, quiet().With("node", id)); err != nil {
		c.t.Fatal(err)
	}
	n.host.OnClosed(func(cl Closing) {
		c.mu.Lock()
		n.closings = append(n.closings, cl)
		c.mu.Unlock()
	})
	n.server = grpc.NewServer(grpc.MaxRecvMsgSize(16<<20), grpc.InitialWindowSize(16<<20), grpc.InitialConnWindowSize(16<<20),
		grpc.ReadBufferSize(256<<10), grpc.WriteBufferSize(256<<10))
	n.host.Register(n.server)
	if c.tcp {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			c.t.Fatal(err)
		}
		n.listener = l
		n.dial = func(ctx context.Context) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", l.Addr().String())
		}
	} else {
		l := bufconn.Listen(1 << 20)
		n.listener, n.dial = l, l.DialContext
	}
	ctx, cancel := context.WithCancel(context.Background())
	n.cancel, n.done = cancel, make(chan struct{})
	served := make(chan struct{})
	go func() { defer close(served); _ = n.server.Serve(n.listener) }()
	go func() {
		defer close(n.done)
		if err := n.host.Run(ctx); err != nil {
			c.t.Error(err)
		}
		<-served
	}()
	c.mu.Lock()
	n.up = true
	n.host.Configure(c.state)
	c.mu.Unlock()
}

// stop ends a node cleanly.
func (c *cluster) stop(id ids.NodeID) {
	n := c.nodes[id]
	c.mu.Lock()
	n.up = false
	c.mu.Unlock()
	n.cancel()
	n.server.Stop()
	<-n.done
	n.mu(func() {
		for _, conn := range n.conns {
			conn.Close()
		}
		n.conns = nil
		for _, p := range n.pipes {
			p.Close()
		}
		n.pipes = nil
	})
	if err := n.store.Close(); err != nil {
		c.t.Error(err)
	}
}

// crash stops a node as power loss would: what wasn't synced is gone.
func (c *cluster) crash(id ids.NodeID, keepUnsynced int, rng randSource) {
	n := c.nodes[id]
	// Nothing that it does from here on gets out: it must not acknowledge what the copy of its disk doesn't have.
	n.crashed.Store(true)
	c.isolate(id, true)
	clone := n.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: keepUnsynced, RNG: rng.pcg()})
	c.stop(id)
	c.isolate(id, false)
	n.crashed.Store(false)
	n.fs = clone
}

func (n *node) mu(fn func()) {
	n.c.mu.Lock()
	defer n.c.mu.Unlock()
	fn()
}

// Conn implements Peers.
func (n *node) Conn(to ids.NodeID) (grpc.ClientConnInterface, error) {
	n.c.mu.Lock()
	defer n.c.mu.Unlock()
	if conn := n.conns[to]; conn != nil {
		return conn, nil
	}
	if n.conns == nil {
		return nil, fault.New(fault.Unavailable, "stopped")
	}
	conn, err := grpc.NewClient("passthrough:///"+string(to), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithInitialWindowSize(16<<20), grpc.WithInitialConnWindowSize(16<<20),
		grpc.WithReadBufferSize(256<<10), grpc.WithWriteBufferSize(256<<10),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 2, Jitter: 0.2, MaxDelay: 200 * time.Millisecond}, MinConnectTimeout: time.Second,
		}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(16<<20)),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return n.c.connect(ctx, n, to) }))
	if err != nil {
		return nil, err
	}
	n.conns[to] = conn
	return conn, nil
}

func (c *cluster) connect(ctx context.Context, from *node, to ids.NodeID) (net.Conn, error) {
	c.mu.Lock()
	n := c.nodes[to]
	if !n.up || c.cut[[2]ids.NodeID{from.id, to}] {
		c.mu.Unlock()
		return nil, fault.New(fault.Unavailable, "%s can't be reached", to)
	}
	dial := n.dial
	c.mu.Unlock()
	conn, err := dial(ctx)
	if err == nil {
		c.mu.Lock()
		from.pipes = append(from.pipes, conn)
		c.mu.Unlock()
	}
	return conn, err
}

// isolate cuts a node off from the others, or joins it again.
func (c *cluster) isolate(id ids.NodeID, off bool) {
	c.mu.Lock()
	var broken []net.Conn
	for _, o := range c.order {
		c.cut[[2]ids.NodeID{id, o}], c.cut[[2]ids.NodeID{o, id}] = off, off
		if off {
			broken = append(broken, c.nodes[o].pipes...) // also others' among themselves: they connect again
			c.nodes[o].pipes = nil
		}
	}
	c.mu.Unlock()
	for _, b := range broken {
		b.Close()
	}
}

// change applies a change of one partition's configuration if its epoch is the expected one.
func (c *cluster) change(p ids.PartitionID, epoch ids.Epoch, fn func(*internalv1.PartitionConfig) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	old := c.state.Partitions[p]
	if ids.Epoch(old.Epoch) != epoch {
		return fault.New(fault.Stale, "epoch %d, not %d", old.Epoch, epoch)
	}
	cfg := &internalv1.PartitionConfig{
		Id: old.Id, Epoch: old.Epoch, Primary: old.Primary, Replicas: slices.Clone(old.Replicas), InSync: slices.Clone(old.InSync),
		EpochIndex: old.EpochIndex, HandoverTo: old.HandoverTo, ForcedEpoch: old.ForcedEpoch,
	}
	if err := fn(cfg); err != nil {
		return err
	}
	same := cfg.ForcedEpoch == old.ForcedEpoch && cfg.Primary == old.Primary && slices.Equal(cfg.Replicas, old.Replicas) && slices.Equal(cfg.InSync, old.InSync)
	c.update(func(st *internalv1.ClusterState) {
		if !same {
			cfg.Epoch, cfg.EpochIndex = old.Epoch+1, st.Index
		}
		st.Partitions = slices.Clone(st.Partitions)
		st.Partitions[p] = cfg
	})
	return nil
}

// update publishes a new state. c.mu is held.
func (c *cluster) update(fn func(*internalv1.ClusterState)) {
	old := c.state
	st := &internalv1.ClusterState{
		Version: 1, ClusterId: old.ClusterId, Index: old.Index + 1, PartitionCount: old.PartitionCount, Replicas: old.Replicas,
		Partitions: old.Partitions, Streams: old.Streams, NextObjectId: old.NextObjectId,
	}
	fn(st)
	c.state = st
	for _, id := range c.order {
		if n := c.nodes[id]; n.up {
			n.host.Configure(st)
		}
	}
}

func (c *cluster) config(p ids.PartitionID) *internalv1.PartitionConfig {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state.Partitions[p]
}

func (c *cluster) primary(p ids.PartitionID) *node { return c.nodes[ids.NodeID(c.config(p).Primary)] }

// failover makes the in-sync member with the longest log the primary, without those that are down.
func (c *cluster) failover(p ids.PartitionID) error {
	cfg := c.config(p)
	var live []string
	best, rank := "", uint64(0)
	for _, m := range cfg.InSync {
		n := c.nodes[ids.NodeID(m)]
		c.mu.Lock()
		up := n.up && !c.cut[[2]ids.NodeID{n.id, n.id}]
		c.mu.Unlock()
		if !up {
			continue
		}
		live = append(live, m)
		pos, err := n.host.LogEnds(context.Background(), n.id, []ids.PartitionID{p})
		if err == nil && (best == "" || pos[0].Rank() > rank) {
			best, rank = m, pos[0].Rank()
		}
	}
	if best == "" {
		return fault.New(fault.Unavailable, "no in-sync member is up")
	}
	return c.change(p, ids.Epoch(cfg.Epoch), func(cfg *internalv1.PartitionConfig) error {
		cfg.Primary, cfg.InSync, cfg.HandoverTo = best, live, ""
		return nil
	})
}

// fakeCoordinator is the cluster as a host sees it.
type fakeCoordinator cluster

func (f *fakeCoordinator) change(p ids.PartitionID, epoch ids.Epoch, fn func(*internalv1.PartitionConfig) error) error {
	c := (*cluster)(f)
	if c.frozen.Load() {
		return fault.New(fault.Unavailable, "no leader")
	}
	return c.change(p, epoch, fn)
}

func (f *fakeCoordinator) RemoveFromInSync(_ context.Context, p ids.PartitionID, epoch ids.Epoch, node ids.NodeID) error {
	return f.change(p, epoch, func(cfg *internalv1.PartitionConfig) error {
		rest := slices.DeleteFunc(slices.Clone(cfg.InSync), func(m string) bool { return m == string(node) })
		if cfg.Primary == string(node) { // its copy is damaged: another takes over
			if len(rest) == 0 {
				return fault.New(fault.Unavailable, "nobody else is in sync")
			}
			cfg.Primary, cfg.InSync, cfg.HandoverTo = rest[0], rest, ""
			return nil
		}
		if len(rest) < min(3, len(cfg.Replicas))/2+1 {
			return fault.New(fault.Conflict, "too few would be left")
		}
		cfg.InSync = rest
		if cfg.HandoverTo == string(node) {
			cfg.HandoverTo = ""
		}
		return nil
	})
}

func (f *fakeCoordinator) AddToInSync(_ context.Context, p ids.PartitionID, epoch ids.Epoch, node ids.NodeID) error {
	return f.change(p, epoch, func(cfg *internalv1.PartitionConfig) error {
		if !slices.Contains(cfg.Replicas, string(node)) {
			return fault.New(fault.Conflict, "%s holds no replica", node)
		}
		if !slices.Contains(cfg.InSync, string(node)) {
			cfg.InSync = append(cfg.InSync, string(node))
		}
		return nil
	})
}

func (f *fakeCoordinator) CompleteHandover(_ context.Context, p ids.PartitionID, epoch ids.Epoch, node ids.NodeID) error {
	return f.change(p, epoch, func(cfg *internalv1.PartitionConfig) error {
		if cfg.HandoverTo != string(node) {
			return fault.New(fault.Conflict, "no handover to %s", node)
		}
		cfg.Primary, cfg.HandoverTo = string(node), ""
		return nil
	})
}

func (f *fakeCoordinator) RequestTick() { poke(f.tickWanted) }

// batchOf makes a batch of records with the given values.
func batchOf(producer, sequence uint64, values ...string) *millracev1.Batch {
	var b record.BatchBuilder
	for _, v := range values {
		b.Add(nil, false, []byte(v))
	}
	payload := slices.Clone(b.Payload())
	return &millracev1.Batch{
		ProducerId: producer, Sequence: sequence, Count: uint32(len(values)), UncompressedBytes: uint32(len(payload)),
		Crc32C: record.Checksum(payload), Payload: payload,
	}
}

type outcomeOf struct {
	res AppendResult
	err error
}

// append appends on one node and waits for the outcome.
func (n *node) append(p ids.PartitionID, s ids.StreamID, b *millracev1.Batch, seen ids.Tick) (AppendResult, error) {
	return n.request(AppendRequest{Partition: p, Stream: s, Batch: b, SeenTick: seen})
}

func (n *node) request(req AppendRequest) (AppendResult, error) {
	ch := make(chan outcomeOf, 1)
	n.host.Append(req, func(r AppendResult, err error) { ch <- outcomeOf{r, err} })
	o := <-ch
	if n.crashed.Load() {
		return AppendResult{}, fault.New(fault.Unavailable, "no power")
	}
	return o.res, o.err
}

// must appends at the primary until it is acknowledged.
func (c *cluster) must(p ids.PartitionID, s ids.StreamID, b *millracev1.Batch) AppendResult {
	c.t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for {
		res, err := c.primary(p).append(p, s, b, 0)
		if err == nil {
			return res
		}
		if time.Now().After(deadline) || !fault.Retryable(err) {
			c.t.Fatalf("append: %v", err)
		}
		time.Sleep(time.Millisecond)
	}
}

// eventually waits for a condition.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 60 s: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

type readRecord struct {
	offset ids.Offset
	tick   ids.Tick
	value  string
}

// readAll returns the committed records of a stream as a node has them.
func (n *node) readAll(p ids.PartitionID, s ids.StreamID, from ids.Offset) (out []readRecord, err error) {
	err = n.host.Read(p, s, from, 0, func(b *Batch) (bool, error) {
		raw, err := b.Raw(nil)
		if err != nil {
			return false, err
		}
		it := record.NewIter(raw)
		for i := ids.Offset(0); it.Next(); i++ {
			out = append(out, readRecord{b.BaseOffset + i, b.Tick, string(it.Value())})
		}
		return true, it.Err()
	})
	return out, err
}

func values(rs []readRecord) (out []string) {
	for _, r := range rs {
		out = append(out, r.value)
	}
	return out
}
