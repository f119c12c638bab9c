package node

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"

	"github.com/millrace/millrace/coordinator"
	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/node/pgwire"
	"github.com/millrace/millrace/partition"
	"github.com/millrace/millrace/partition/stage"
	internalv1 "github.com/millrace/millrace/proto/internalv1"
	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
	"github.com/millrace/millrace/storage"
)

// Node is one running node.
type Node struct {
	cfg    Config
	budget Budget
	log    *slog.Logger

	id         ids.NodeID
	logStore   *storage.Store
	stateStore *storage.Store
	peers      *peers
	coord      *coordinator.Coordinator
	host       *partition.Host
	runtime    *stage.Runtime
	router     *router
	ingest     *ingest
	intake     *intake
	queries    *queryMemory
	readers    *readers
	tables     tableWriters
	dead       *deadCounts
	generator  *generator

	metrics *metrics

	clock    tickClock
	current  atomic.Pointer[catalog]
	changed  bell // rings with each new state and each closed tick
	draining atomic.Bool
	serving  context.Context // ends when calls that would go on for ever must end
	endCalls context.CancelFunc
	active   atomic.Int64 // calls that end by themselves
	started  time.Time
	tasks    sync.WaitGroup // goroutines that serve a callback
	fatal    chan error     // an error that ends the node

	listener   *sharedListener
	gossip     *coordinator.GossipSockets
	httpSocket net.Listener
	pgSocket   net.Listener
	pg         *pgwire.Server
	grpc       *grpc.Server
	http       *http.Server
	health     *health.Server
}

// Run starts a node and blocks until ctx ends, then stops it cleanly: its primaries are handed over, calls under way
// get ShutdownTimeout to end. ready is called once, when the node can serve.
func Run(ctx context.Context, cfg Config, log *slog.Logger, ready func(Addresses) error) error {
	n := &Node{cfg: cfg, log: log, started: time.Now(), fatal: make(chan error, 1)}
	n.serving, n.endCalls = context.WithCancel(context.Background())
	defer n.endCalls()
	if err := cfg.Validate(); err != nil {
		return err
	}
	n.budget = cfg.Budget()
	n.cfg.fill()
	if err := n.open(); err != nil {
		return errors.Join(err, n.close())
	}
	err := n.run(ctx, ready)
	return errors.Join(err, n.close())
}

// open takes the ports and opens the stores, so that what is wrong with them is said at once.
func (n *Node) open() error {
	if err := os.MkdirAll(n.cfg.DataDir, 0o755); err != nil {
		return fault.Wrap(fault.Invalid, err, "data folder %s", n.cfg.DataDir)
	}
	tcp, err := net.Listen("tcp", n.cfg.Listen)
	if err != nil {
		return fault.Wrap(fault.Invalid, err, "--listen %s", n.cfg.Listen)
	}
	n.listener = newSharedListener(tcp, n.cfg.MaxConnections)
	if n.httpSocket, err = net.Listen("tcp", n.cfg.HTTP); err != nil {
		return fault.Wrap(fault.Invalid, err, "--http %s", n.cfg.HTTP)
	}
	if n.pgSocket, err = n.listenPG(); err != nil {
		return err
	}
	if err := n.openStores(); err != nil {
		return err
	}
	if err := n.compose(); err != nil && fault.KindOf(err) == fault.Corrupted {
		return n.damagedLog(err)
	} else if err != nil {
		return err
	}
	return nil
}

// catalog returns the newest published state that this node has applied.
func (n *Node) catalog() *catalog { return n.current.Load() }

// configure takes a published state to every part that depends on it, in Raft order.
func (n *Node) configure(st *internalv1.ClusterState) {
	c, err := newCatalog(st, n.current.Load())
	if err != nil {
		n.fail(fault.Wrap(fault.Corrupted, err, "catalog at Raft index %d", st.Index))
		return
	}
	n.peers.configure(st)
	n.current.Store(c)
	n.host.Configure(st) // before the runtime, whose sources read the host's logs
	n.runtime.Configure(st)
	n.router.configure(c)
	n.ingest.batcher.configure(c)
	n.tables.configure(c)
	n.dead.configure(c)
	n.generator.configure(c)
	n.changed.ring()
}

// fail ends the node with err; the first one counts.
func (n *Node) fail(err error) {
	select {
	case n.fatal <- err:
	default:
	}
}

// run serves until ctx ends or a part fails.
func (n *Node) run(ctx context.Context, ready func(Addresses) error) error {
	stop, cancel := context.WithCancel(context.WithoutCancel(ctx)) // ends the parts, after the drain
	defer cancel()
	g, gctx := errgroup.WithContext(stop)
	g.Go(n.listener.run)
	g.Go(func() error { return n.grpc.Serve(n.listener.grpc) })
	g.Go(func() error { return n.pg.Serve(n.pgSocket) })
	g.Go(func() error {
		if err := n.http.Serve(n.httpSocket); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	g.Go(func() error { return n.coordinate(gctx) })
	g.Go(func() error { return n.host.Run(gctx) })
	g.Go(func() error { return n.runtime.Run(gctx) })
	g.Go(func() error { return n.generator.run(gctx) })
	g.Go(func() error { return n.watchStores(gctx) })
	g.Go(func() error { return n.replaceLoop(gctx) })
	g.Go(func() error {
		select {
		case err := <-n.fatal:
			return err
		case <-gctx.Done():
			return nil
		}
	})
	g.Go(func() error {
		err := n.announce(ctx, gctx, ready)
		if err == nil {
			select {
			case <-ctx.Done():
			case <-gctx.Done():
			}
		}
		n.stop()
		cancel()
		return err
	})
	err := g.Wait()
	n.tasks.Wait()
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// announce waits until the node can serve and calls ready.
func (n *Node) announce(ctx, gctx context.Context, ready func(Addresses) error) error {
	poll := time.NewTicker(2 * time.Millisecond)
	defer poll.Stop()
	for {
		if ok, _ := n.ready(); ok {
			n.health.SetServingStatus("", healthpb.HealthCheckResponse_SERVING)
			n.log.Info("ready", "name", n.coord.Name(), "id", n.id, "after", time.Since(n.started).Round(time.Millisecond))
			return ready(n.addresses())
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return nil
		case <-gctx.Done():
			return nil
		}
	}
}

func (n *Node) addresses() Addresses {
	return Addresses{
		Name: n.coord.Name(), GRPC: n.listener.tcp.Addr().String(),
		Gossip: n.gossip.Addr(), HTTP: n.httpSocket.Addr().String(), PG: n.pgSocket.Addr().String(),
	}
}

// ready tells whether the node can serve, and if not, why.
func (n *Node) ready() (bool, string) {
	if n.draining.Load() {
		return false, "stopping"
	}
	if err := n.logStore.Healthy(); err != nil {
		return false, err.Error()
	}
	if n.catalog() == nil {
		return false, "waiting for the cluster's state"
	}
	return n.coord.Ready()
}

// stop drains: no new calls, primaries handed over, calls under way ended.
func (n *Node) stop() {
	n.draining.Store(true)
	n.health.Shutdown()
	n.log.Info("stopping")
	drain, cancel := context.WithTimeout(context.Background(), n.cfg.DrainTimeout)
	if err := n.coord.PrepareStop(drain); err != nil {
		n.log.Warn("could not hand over all primaries", "err", err)
	}
	cancel()
	n.endCalls()
	for end := time.Now().Add(n.cfg.ShutdownTimeout); n.active.Load() > 0 && time.Now().Before(end); {
		time.Sleep(5 * time.Millisecond)
	}
	n.pgSocket.Close()
	pgStop, cancelPG := context.WithTimeout(context.Background(), n.cfg.ShutdownTimeout)
	n.pg.Shutdown(pgStop)
	cancelPG()
	// What is left are peers' streams and idle producers, which go on elsewhere.
	stopped := make(chan struct{})
	go func() {
		n.grpc.Stop()
		close(stopped)
	}()
	select {
	case <-stopped:
	case <-time.After(n.cfg.ShutdownTimeout):
		n.log.Warn("calls don't end; stopping without them")
	}
	n.router.close()
	shutdown, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := n.http.Shutdown(shutdown); err != nil {
		n.http.Close()
	}
	n.listener.Close()
}

func (n *Node) close() error {
	var errs []error
	if n.listener != nil {
		errs = append(errs, ignoreClosed(n.listener.Close()))
	}
	if n.httpSocket != nil {
		errs = append(errs, ignoreClosed(n.httpSocket.Close()))
	}
	if n.pgSocket != nil {
		errs = append(errs, ignoreClosed(n.pgSocket.Close()))
	}
	if n.peers != nil {
		errs = append(errs, n.peers.Close())
	}
	errs = append(errs, n.closeStores())
	return errors.Join(errs...)
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// register makes the gRPC server with every service.
func (n *Node) register() {
	n.grpc = grpc.NewServer(
		grpc.MaxRecvMsgSize(n.cfg.MaxMessageBytes), grpc.MaxSendMsgSize(n.cfg.MaxMessageBytes),
		grpc.InitialWindowSize(serverWindowBytes), grpc.InitialConnWindowSize(peerWindowBytes),
		grpc.ReadBufferSize(peerBufferBytes), grpc.WriteBufferSize(peerBufferBytes),
		grpc.MaxConcurrentStreams(10_000), grpc.WaitForHandlers(true),
		grpc.ChainUnaryInterceptor(n.unary), grpc.ChainStreamInterceptor(n.streaming),
	)
	millracev1.RegisterIngestServer(n.grpc, n.ingest)
	millracev1.RegisterLogServer(n.grpc, &logService{n: n})
	millracev1.RegisterSqlServer(n.grpc, &sqlService{n: n})
	millracev1.RegisterClusterServer(n.grpc, &clusterService{n: n})
	internalv1.RegisterQueryServer(n.grpc, &queryService{n: n})
	n.coord.Register(n.grpc)
	n.host.Register(n.grpc)
	n.runtime.Register(n.grpc)
	n.health = health.NewServer()
	n.health.SetServingStatus("", healthpb.HealthCheckResponse_NOT_SERVING)
	healthpb.RegisterHealthServer(n.grpc, n.health)
	reflection.Register(n.grpc)
}
