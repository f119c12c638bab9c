package coordinator

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/internal/leaks"
	internalv1 "github.com/millrace/millrace/proto/internalv1"
	"github.com/millrace/millrace/storage"
)

// A probe of memberlist under way outlives its Shutdown by up to its timeout. TestDamagedRaftLog leaves a goroutine that
// stands still, as it must.
func TestMain(m *testing.M) {
	leaks.Main(m, goleak.IgnoreTopFunction("github.com/millrace/millrace/coordinator.guarded.stop"))
}

// testMux splits one TCP port between gRPC, which begins with 'P', and Raft.
type testMux struct {
	net.Listener
	grpc, raft chan net.Conn
	done       chan struct{}
	once       sync.Once
	wg         sync.WaitGroup
	mu         sync.Mutex
	conns      map[net.Conn]bool
	gate       gate
}

// gate lets through what goes over a node's connections, or holds it as a hung process or a cut cable would.
type gate struct {
	mu     sync.Mutex
	opened chan struct{} // nil: it is open
}

func (g *gate) freeze() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.opened = make(chan struct{})
}

func (g *gate) thaw() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.opened != nil {
		close(g.opened)
		g.opened = nil
	}
}

func (g *gate) pass() {
	g.mu.Lock()
	wait := g.opened
	g.mu.Unlock()
	if wait != nil {
		<-wait
	}
}

type gatedConn struct {
	net.Conn
	g *gate
}

func (c gatedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.g.pass()
	return n, err
}

func (c gatedConn) Write(b []byte) (int, error) {
	c.g.pass()
	return c.Conn.Write(b)
}

type peeked struct {
	net.Conn
	r *bufio.Reader
}

func (p peeked) Read(b []byte) (int, error) { return p.r.Read(b) }

func newTestMux(t testing.TB, addr string) *testMux {
	t.Helper()
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	m := &testMux{Listener: ln, grpc: make(chan net.Conn), raft: make(chan net.Conn), done: make(chan struct{}), conns: map[net.Conn]bool{}}
	m.wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			m.mu.Lock()
			m.conns[c] = true
			m.mu.Unlock()
			m.wg.Go(func() { m.sort(gatedConn{c, &m.gate}) })
		}
	})
	return m
}

func (m *testMux) sort(c net.Conn) {
	r := bufio.NewReader(c)
	b, err := r.Peek(1)
	to := m.grpc
	if err == nil && b[0] == 'R' {
		to = m.raft
		_, err = r.Discard(1)
	}
	if err == nil {
		select {
		case to <- peeked{c, r}:
			return
		case <-m.done:
		}
	}
	_ = c.Close()
}

// stop closes the port and every connection, as the death of the process would.
func (m *testMux) stop() {
	m.gate.thaw()
	m.mu.Lock()
	m.once.Do(func() { close(m.done) })
	_ = m.Listener.Close()
	for c := range m.conns {
		_ = c.Close()
	}
	m.mu.Unlock()
	m.wg.Wait()
}

type muxSide struct {
	m  *testMux
	ch chan net.Conn
}

func (s muxSide) Accept() (net.Conn, error) {
	select {
	case c := <-s.ch:
		return c, nil
	case <-s.m.done:
		return nil, net.ErrClosed
	}
}
func (s muxSide) Close() error   { return nil }
func (s muxSide) Addr() net.Addr { return s.m.Listener.Addr() }
func (s muxSide) Dial(a raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	c, err := s.m.dial(context.Background(), string(a))
	if err != nil {
		return nil, err
	}
	_, err = c.Write([]byte("R"))
	return c, err
}

// dial connects to another node, unless this one is dead.
func (m *testMux) dial(ctx context.Context, addr string) (net.Conn, error) {
	c, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	select {
	case <-m.done:
		_ = c.Close()
		return nil, net.ErrClosed
	default:
		m.conns[c] = true
		return gatedConn{c, &m.gate}, nil
	}
}

// testNode is a node whose partitions are faked; its folder outlives its runs.
type testNode struct {
	t    testing.TB
	name string
	fs   vfs.FS
	dir  string
	conf func(*Config)

	*Coordinator
	mux    *testMux
	server *grpc.Server
	store  *storage.Store
	cancel context.CancelFunc
	done   chan error
	err    error
	gone   bool
	host   fakeHost

	raftIndex uint64 // the last in its log as it ended

	appends atomic.Uint64
	ticks   tickLog
}

// tickLog keeps the ticks that a node saw.
type tickLog struct {
	mu    sync.Mutex
	last  ids.Tick
	count int
	bad   string
}

func (l *tickLog) take(t ids.Tick, index uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if t <= l.last {
		l.bad = fmt.Sprintf("tick %d after %d", t, l.last)
	}
	l.last = t
	l.count++
}

func (l *tickLog) seen() (ids.Tick, int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last, l.count
}

// check fails when the ticks didn't grow.
func (l *tickLog) check(t testing.TB, name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.bad != "" {
		t.Errorf("%s: %s", name, l.bad)
	}
}

func newTestNode(t testing.TB, name string, conf func(*Config)) *testNode {
	n := &testNode{t: t, name: name, fs: vfs.NewMem(), conf: conf}
	t.Cleanup(func() { n.kill() })
	return n
}

func testLogger(name string) *slog.Logger {
	if os.Getenv("COORDINATOR_TEST_LOG") == "" {
		return slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("node", name)
}

// start runs the node on free ports.
func (n *testNode) start(join ...*testNode) *testNode {
	n.t.Helper()
	o := storage.DefaultOptions()
	o.FS, o.CacheBytes, o.MemTableBytes, o.ReserveBytes = n.fs, 1<<20, 1<<20, 0
	o.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	if n.dir == "" {
		n.dir = filepath.Join(n.t.TempDir(), "log")
	}
	var err error
	if n.store, err = storage.OpenLog(n.dir, o); err != nil {
		n.t.Fatal(err)
	}
	n.mux = newTestMux(n.t, "127.0.0.1:0")
	cfg := DefaultConfig()
	cfg.Name, cfg.GRPC, cfg.HTTP = n.name, n.mux.Addr().String(), ""
	cfg.Stream = muxSide{n.mux, n.mux.raft}
	if cfg.Gossip, err = ListenGossip("127.0.0.1:0"); err != nil {
		n.t.Fatal(err)
	}
	for _, j := range join {
		cfg.Join = append(cfg.Join, j.cfg.Gossip.Addr())
	}
	mux := n.mux
	cfg.Dial = func(addr string) (*grpc.ClientConn, error) {
		return grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithContextDialer(mux.dial))
	}
	if n.conf != nil {
		n.conf(&cfg)
	}
	if n.Coordinator, err = New(cfg, n.store, testLogger(n.name)); err != nil {
		n.t.Fatal(err)
	}
	n.server = grpc.NewServer()
	n.Register(n.server)
	n.SetLoad(func() Load { return Load{Appends: n.appends.Load()} })
	n.OnTick(n.ticks.take)
	n.host.wake = make(chan struct{}, 1)
	n.OnState(func(*internalv1.ClusterState) { signal(n.host.wake) })
	n.run()
	return n
}

func (n *testNode) run() {
	ctx, cancel := context.WithCancel(context.Background())
	n.cancel, n.done, n.gone = cancel, make(chan error, 1), false
	var wg sync.WaitGroup
	wg.Go(func() { _ = n.server.Serve(muxSide{n.mux, n.mux.grpc}) })
	wg.Go(func() { n.host.run(ctx, n.Coordinator) })
	go func() {
		err := n.Run(ctx)
		if last, lastErr := n.stores.logs.LastIndex(); lastErr == nil {
			n.raftIndex = last
		}
		cancel()
		n.mux.stop()
		n.server.Stop()
		wg.Wait()
		n.done <- errors.Join(err, n.store.Close())
	}()
}

// stop ends the node in good order and returns what Run did.
func (n *testNode) stop() error {
	if n.cancel == nil || n.gone {
		return n.err
	}
	n.cancel()
	return n.wait()
}

// kill cuts the node off from the others before it can say goodbye, then ends it.
func (n *testNode) kill() {
	if n.mux != nil && !n.gone {
		n.mux.stop()
		n.cfg.Gossip.Close()
		_ = n.stop()
	}
}

func (n *testNode) wait() error {
	n.t.Helper()
	select {
	case n.err = <-n.done:
	case <-time.After(60 * time.Second):
		n.t.Fatalf("%s: Run doesn't return", n.name)
	}
	n.gone = true
	return n.err
}

// fakeHost does what the primaries of a node's partitions would: it promotes learners and completes handovers.
type fakeHost struct {
	wake chan struct{}
	slow atomic.Bool // learners don't catch up
}

func (h *fakeHost) run(ctx context.Context, c *Coordinator) {
	for {
		var again <-chan time.Time
		if h.serve(ctx, c) {
			again = time.After(20 * time.Millisecond)
		}
		select {
		case <-h.wake:
		case <-again:
		case <-ctx.Done():
			return
		}
	}
}

// serve tells whether there was something to do.
func (h *fakeHost) serve(ctx context.Context, c *Coordinator) (busy bool) {
	for _, p := range c.State().Partitions {
		if p.Primary != string(c.ID()) || ctx.Err() != nil {
			continue
		}
		part, epoch := ids.PartitionID(p.Id), ids.Epoch(p.Epoch)
		if p.HandoverTo != "" {
			busy = true
			_ = c.CompleteHandover(ctx, part, epoch, ids.NodeID(p.HandoverTo))
			continue
		}
		for _, r := range p.Replicas {
			if !slices.Contains(p.InSync, r) && !h.slow.Load() {
				busy = true
				_ = c.AddToInSync(ctx, part, epoch, ids.NodeID(r)) // a stale epoch is tried again with the next state
				break
			}
		}
	}
	return busy
}

// eventually waits for cond, up to a deadline that a loaded machine meets.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !cond(); {
		if time.Now().After(end) {
			t.Fatalf("timeout: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func (n *testNode) waitReady() {
	n.t.Helper()
	eventually(n.t, n.name+" is ready", func() bool { ok, _ := n.Ready(); return ok })
}

func (n *testNode) member(of *testNode) *internalv1.Member {
	_, m := findMember(n.State(), string(of.ID()))
	return m
}

// settled tells whether every partition has its wanted replicas in sync, on exactly these nodes.
func (n *testNode) settled(nodes ...*testNode) bool {
	st := n.State()
	for _, p := range st.Partitions {
		if len(p.Replicas) != min(int(st.Replicas), len(nodes)) || !sameSet(p.Replicas, p.InSync) || p.HandoverTo != "" {
			return false
		}
		for _, id := range p.Replicas {
			if !slices.ContainsFunc(nodes, func(o *testNode) bool { return string(o.ID()) == id }) {
				return false
			}
		}
	}
	o, err := n.Overview(context.Background())
	return len(st.Partitions) > 0 && err == nil && len(o.Moves) == 0
}

func voters(st *internalv1.ClusterState) int {
	v := 0
	for _, m := range st.Members {
		if m.Voter {
			v++
		}
	}
	return v
}

// startThree makes a cluster of three nodes whose partitions have come to rest.
func startThree(t testing.TB, conf func(*Config)) []*testNode {
	t.Helper()
	a := newTestNode(t, "n1", conf).start()
	a.waitReady()
	nodes := []*testNode{a, newTestNode(t, "n2", conf).start(a), newTestNode(t, "n3", conf).start(a)}
	for _, n := range nodes {
		n.waitReady()
	}
	eventually(t, "three voters, partitions at rest", func() bool { return voters(a.State()) == 3 && a.settled(nodes...) })
	return nodes
}

func leaderOf(t testing.TB, nodes []*testNode) (leader *testNode, others []*testNode) {
	t.Helper()
	eventually(t, "there is a leader", func() bool {
		leader, others = nil, nil
		for _, n := range nodes {
			if !n.gone && n.IsLeader() {
				leader = n
			} else if !n.gone {
				others = append(others, n)
			}
		}
		return leader != nil
	})
	return leader, others
}
