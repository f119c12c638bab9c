package node

import (
	"context"
	"fmt"
	"net"
	"os"
	"runtime"

	"github.com/hashicorp/go-sockaddr"
	"golang.org/x/time/rate"
	"google.golang.org/grpc"

	"github.com/millrace/millrace/coordinator"
	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/partition"
	"github.com/millrace/millrace/partition/stage"
	internalv1 "github.com/millrace/millrace/proto/internalv1"
)

// compose makes the parts and connects them; nothing runs yet.
func (n *Node) compose() error {
	var err error
	if n.gossip, err = coordinator.ListenGossip(n.cfg.Gossip); err != nil {
		return fault.Wrap(fault.Invalid, err, "--gossip %s", n.cfg.Gossip)
	}
	n.peers = newPeers(n.cfg.MaxMessageBytes)
	if n.coord, err = n.newCoordinator(); err != nil {
		return err
	}
	n.id = n.coord.ID()
	if n.host, err = n.newHost(); err != nil {
		return err
	}
	if n.runtime, err = n.newRuntime(); err != nil {
		return err
	}
	n.metrics = newMetrics(n)
	n.dead = newDeadCounts()
	n.generator = newGenerator(n)
	n.router = newRouter(n.id, n.host, n.peers, n.catalog, n.log)
	n.ingest = &ingest{n: n, batcher: newBatcher(n)}
	n.intake = newIntake(n.cfg.IngestBytes, n.cfg.ConnInFlightBytes)
	n.queries = &queryMemory{each: n.cfg.QueryMemoryBytes, total: n.cfg.QueriesBytes}
	n.readers = &readers{limit: int64(n.cfg.MaxReaders)}
	n.http = n.newHTTP()
	n.pg = n.newPG()
	n.register()
	n.host.OnClosed(n.closed)
	n.coord.SetLoad(n.load)
	n.coord.OnState(n.configure)
	n.coord.OnTick(func(t ids.Tick, index uint64) {
		n.clock.note(t, index)
		n.host.Tick(t, index)
	})
	return nil
}

func (n *Node) newCoordinator() (*coordinator.Coordinator, error) {
	cfg := coordinator.DefaultConfig()
	grpcAddress, err := reachable(n.listener.tcp.Addr())
	if err != nil {
		return nil, err
	}
	httpAddress, err := reachable(n.httpSocket.Addr())
	if err != nil {
		return nil, err
	}
	if cfg.PG, err = reachable(n.pgSocket.Addr()); err != nil {
		return nil, err
	}
	cfg.Name, cfg.Zone, cfg.GRPC, cfg.HTTP = n.name(), n.cfg.Zone, grpcAddress, httpAddress
	cfg.Join, cfg.Partitions, cfg.Replicas = n.cfg.Join, n.cfg.Partitions, n.cfg.Replicas
	cfg.Moves.CopiesPerNode, cfg.Moves.QuickCopies = n.cfg.CopiesPerNode, max(cfg.Moves.QuickCopies, n.cfg.CopiesPerNode)
	cfg.Gossip, cfg.Stream = n.gossip, n.listener.raft
	cfg.Dial = func(addr string) (*grpc.ClientConn, error) {
		return dialPeer(addr, n.cfg.MaxMessageBytes, peerWindowBytes)
	}
	cfg.LogEnds = func(ctx context.Context, node ids.NodeID, p ids.PartitionID) (uint64, error) {
		positions, err := n.host.LogEnds(ctx, node, []ids.PartitionID{p})
		if err != nil {
			return 0, err
		}
		return positions[0].Rank(), nil
	}
	return coordinator.New(cfg, n.logStore, n.log.With("part", "coordinator"))
}

// name is the node's label: as given, else the host's name and the gRPC port, which tells nodes of one machine apart.
func (n *Node) name() string {
	if n.cfg.Name != "" {
		return n.cfg.Name
	}
	host, err := os.Hostname()
	if err != nil || !nameForm.MatchString(host) {
		host = "node"
	}
	_, port, _ := net.SplitHostPort(n.listener.tcp.Addr().String())
	return fmt.Sprintf("%.50s-%s", host, port)
}

// reachable is the address at which others reach a listener: a wildcard can't be dialled.
func reachable(addr net.Addr) (string, error) {
	host, port, err := net.SplitHostPort(addr.String())
	if err != nil {
		return "", fault.Wrap(fault.Internal, err, "address %s", addr)
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsUnspecified() {
		return addr.String(), nil
	}
	private, err := sockaddr.GetPrivateIP()
	if err != nil || private == "" {
		return "", fault.New(fault.Invalid, "%s is every address of this machine, and none of them is private; give the one that others reach", addr)
	}
	return net.JoinHostPort(private, port), nil
}

func (n *Node) newHost() (*partition.Host, error) {
	cfg := partition.DefaultConfig()
	cfg.Node, cfg.Coordinator = n.id, n.coord
	cfg.InFlightBytes, cfg.PartitionBytes = n.cfg.InFlightBytes, min(cfg.PartitionBytes, n.cfg.InFlightBytes)
	cfg.CacheBytes, cfg.CompactMemory = n.budget.Batches, min(cfg.CompactMemory, n.budget.Batches)
	cfg.GroupBytes, cfg.CopyWindow = int(min(int64(cfg.GroupBytes), n.budget.InFlight)), min(cfg.CopyWindow, n.budget.Backlog)
	cfg.CopyLimit = n.copyLimit(cfg.MaxBatchBytes)
	cfg.CompactBytes, cfg.CompactDelay = n.cfg.CompactBytes, stage.DefaultConfig().RetainTicks
	cfg.LowWater = func(p ids.PartitionID, stream ids.StreamID) (ids.Offset, bool) { return n.runtime.LowWater(stream, p) }
	return partition.NewHost(cfg, n.logStore, n.peers, n.log.With("part", "partition"))
}

// copyLimit is what bounds the copies that this node makes for others; nil: nothing does. One of them may be a batch of
// maxBatch bytes.
func (n *Node) copyLimit(maxBatch int) *rate.Limiter {
	if n.cfg.CopyRate == 0 {
		return nil
	}
	return rate.NewLimiter(rate.Limit(n.cfg.CopyRate), max(maxBatch, int(n.cfg.CopyRate/10)))
}

func (n *Node) newRuntime() (*stage.Runtime, error) {
	cfg := stage.DefaultConfig()
	cfg.NodeID, cfg.Workers = n.id, runtime.GOMAXPROCS(0)
	b := n.budget
	cfg.DirtyBytes, cfg.CacheBytes, cfg.ExchangeBytes, cfg.DecodedBytes = b.Dirty, b.State, b.Exchange, b.Decoded
	cfg.ChunkBytes = int(min(max(b.Exchange/64, leastChunk), int64(cfg.ChunkBytes))) // each feed may pass its share by as much
	cfg.ScratchBytes, cfg.RecentBytes, cfg.UndoBytes = b.Scratch, b.Changes, int(min(b.Statement/2, int64(cfg.UndoBytes)))
	cfg.Ship.BytesPerSecond, cfg.Ship.BacklogBytes = n.cfg.ShipRate, b.Backlog
	cfg.Ship.WindowBytes = min(cfg.Ship.WindowBytes, b.Backlog)
	return stage.New(cfg, stage.Deps{
		Store: n.stateStore, Logs: logReader{n.host}, Peers: n.peers, Logger: n.log.With("part", "views"),
		Committed: func(p ids.PartitionID) (uint64, error) {
			at, err := n.host.Committed(p)
			return uint64(at), err
		},
		Restart: n.restartView,
	})
}

// restartView implements what stage.Deps.Restart says.
func (n *Node) restartView(ctx context.Context, view ids.StreamID, created ids.Tick) error {
	_, err := n.coord.Propose(ctx, &internalv1.Command{Op: &internalv1.Command_RestartView{RestartView: &internalv1.RestartView{
		Id: uint64(view), CreatedTick: uint64(created),
	}}})
	return err
}

// logReader is the partitions' logs as the view runtime reads them.
type logReader struct{ host *partition.Host }

// ReadTicks implements stage.LogReader.
func (r logReader) ReadTicks(p ids.PartitionID, stream ids.StreamID, from ids.Offset, maxTick ids.Tick, fn func(*stage.LogBatch) (bool, error)) error {
	var b stage.LogBatch
	return r.host.ReadTicks(p, stream, from, maxTick, func(in *partition.Batch) (bool, error) {
		b = stage.LogBatch{BaseOffset: in.BaseOffset, Count: in.Count, Tick: in.Tick, TimeMicros: in.TimeMicros, Raw: in.Raw}
		return fn(&b)
	})
}

// End implements stage.LogReader.
func (r logReader) End(p ids.PartitionID, stream ids.StreamID) (start, end ids.Offset, err error) {
	e, err := r.host.End(p, stream)
	return e.Start, e.End, err
}

// closed passes on what the partitions closed.
func (n *Node) closed(c partition.Closing) {
	out := stage.Closing{Partition: c.Partition, Epoch: c.Epoch, Tick: c.Tick, End: uint64(c.End)}
	if len(c.Data) > 0 {
		out.Data = make([]stage.StreamTick, len(c.Data))
		for i, d := range c.Data {
			out.Data[i] = stage.StreamTick{Stream: d.Stream, Tick: d.Tick}
		}
	}
	n.runtime.OnClosed(out)
	n.changed.ring()
}

// load is what the node reports to the leader.
func (n *Node) load() coordinator.Load {
	l := n.host.Load()
	out := coordinator.Load{
		Appends: l.Appends, PendingAppends: uint64(max(l.PendingAppends, 0)), PendingBytes: uint64(max(l.PendingBytes, 0)), CommitTime: l.CommitTime,
		Waiting: n.readers.now.Load() > 0 || n.changed.waiting.Load() > 0,
	}
	type replica struct {
		p    ids.PartitionID
		node ids.NodeID
	}
	behind := map[replica]stage.ShippedReplica{}
	for _, s := range n.runtime.Shipped() {
		if s.Behind {
			behind[replica{s.Partition, s.Node}] = s
		}
	}
	note := func(p coordinator.Progress) {
		key := replica{p.Partition, p.Node}
		if s, ok := behind[key]; ok {
			p.ViewsBehind, p.StateDone, p.StateTotal = true, uint64(s.Done), uint64(s.Total)
			delete(behind, key)
		}
		out.Progress = append(out.Progress, p)
	}
	for _, r := range n.host.Status() {
		if r.Held {
			out.Held = append(out.Held, coordinator.Held{Partition: r.Partition, Committed: uint64(r.Commit), Reason: r.Err.Error()})
		}
		for _, learner := range r.Learners {
			note(coordinator.Progress{
				Partition: r.Partition, Node: learner.Node, Done: uint64(max(learner.Done, 0)), Total: uint64(max(learner.Total, 0)),
			})
		}
	}
	for key := range behind { // in sync, but for the views
		note(coordinator.Progress{Partition: key.p, Node: key.node})
	}
	return out
}
