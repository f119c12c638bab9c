package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/partition/stage"
	"github.com/millrace/millrace/storage"
)

// node is the view runtime of one node with its state store, over a disk in memory.
type node struct {
	id    ids.NodeID
	fs    *vfs.MemFS
	store *storage.Store
	rt    *stage.Runtime
	stop  context.CancelFunc
	ended chan error
	srv   *grpc.Server
	mu    sync.Mutex // the two below
	lis   *bufconn.Listener
	conns map[ids.NodeID]*grpc.ClientConn
}

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

type peersFunc func(ids.NodeID) (grpc.ClientConnInterface, error)

// Conn implements stage.Peers.
func (f peersFunc) Conn(n ids.NodeID) (grpc.ClientConnInterface, error) { return f(n) }

func (m *memory) dial(ctx context.Context, to ids.NodeID) (net.Conn, error) {
	for _, n := range m.nodes {
		if n.id == to {
			n.mu.Lock()
			lis := n.lis
			n.mu.Unlock()
			if lis == nil {
				return nil, errors.New("down")
			}
			return lis.DialContext(ctx)
		}
	}
	return nil, errors.New("unknown node")
}

func (m *memory) conn(n *node, to ids.NodeID) (grpc.ClientConnInterface, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if cc := n.conns[to]; cc != nil {
		return cc, nil
	}
	cc, err := grpc.NewClient("passthrough:///"+string(to), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return m.dial(ctx, to) }))
	if err != nil {
		return nil, err
	}
	n.conns[to] = cc
	return cc, nil
}

// start begins a node on what its disk holds.
func (m *memory) start(n *node) error {
	o := storage.DefaultOptions()
	o.FS, o.ReserveBytes, o.Logger, o.MemTableBytes, o.CacheBytes = n.fs, 0, quiet, 1<<18, 1<<20
	var err error
	if n.store, err = storage.OpenState("state", o); err != nil {
		return err
	}
	cfg := stage.DefaultConfig()
	cfg.NodeID, cfg.Workers = n.id, 1
	cfg.ShareWait, cfg.FlushInterval = time.Millisecond, 20*time.Millisecond
	cfg.RetryMin, cfg.RetryMax = time.Millisecond, 10*time.Millisecond
	cfg.RetainTicks = 1000 * tickStep
	n.conns = map[ids.NodeID]*grpc.ClientConn{}
	peers := peersFunc(func(to ids.NodeID) (grpc.ClientConnInterface, error) { return m.conn(n, to) })
	if n.rt, err = stage.New(cfg, stage.Deps{Store: n.store, Logs: m.logs, Logger: quiet, Peers: peers}); err != nil {
		return err
	}
	n.srv = grpc.NewServer()
	n.rt.Register(n.srv)
	lis := bufconn.Listen(1 << 18)
	n.mu.Lock()
	n.lis = lis
	n.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	n.stop, n.ended = cancel, make(chan error, 1)
	srv, rt, ended := n.srv, n.rt, n.ended
	go func() { _ = srv.Serve(lis) }() // until stop
	go func() { ended <- rt.Run(ctx) }()
	rt.Configure(m.state)
	for _, p := range m.state.Partitions {
		if p.Primary == string(n.id) {
			m.first[ids.PartitionID(p.Id)] = true
		}
	}
	return nil
}

// halt ends a node.
func (m *memory) halt(n *node) error {
	if n.stop == nil {
		return nil
	}
	n.stop()
	n.stop = nil
	err := <-n.ended
	n.rt.Close()
	n.srv.Stop()
	n.mu.Lock()
	n.lis = nil
	for _, cc := range n.conns {
		_ = cc.Close()
	}
	n.mu.Unlock()
	return errors.Join(err, n.store.Close())
}

// crash starts a node anew with what its disk had: all that was synced, and maybe some more.
func (m *memory) crash(n *node, rng *rand.Rand) error {
	disk := n.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng})
	if err := m.halt(n); err != nil {
		return err
	}
	n.fs = disk
	return m.start(n)
}
