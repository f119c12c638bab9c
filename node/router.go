package node

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"slices"
	"sync"

	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/partition"
	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
)

// forwardedKey marks appends that a node passes on, so that two nodes that each take the other for the primary
// don't send a batch back and forth.
const forwardedKey = "millrace-forwarded"

// forwardQueue is how many batches may wait for the stream to another node; their bytes are bounded by the
// connections that they came from.
const forwardQueue = 256

// appendJob is one batch on its way to its partition's primary. done is called once, from any goroutine.
type appendJob struct {
	stream    *millracev1.Stream
	batch     *millracev1.Batch
	seenTick  ids.Tick
	since     ids.Tick // see partition.AppendRequest.UnchangedSince
	forwarded bool     // came from another node: append here or refuse
	done      func(*millracev1.Appended, error)
}

// router brings batches to their partition's primary: the one here, or another node's over one stream per node.
type router struct {
	self    ids.NodeID
	host    *partition.Host
	peers   *peers
	catalog func() *catalog
	log     *slog.Logger

	mu       sync.Mutex
	closed   bool
	forwards map[ids.NodeID]*forward
	wait     sync.WaitGroup
}

func newRouter(self ids.NodeID, host *partition.Host, p *peers, catalog func() *catalog, log *slog.Logger) *router {
	return &router{self: self, host: host, peers: p, catalog: catalog, log: log, forwards: map[ids.NodeID]*forward{}}
}

// append starts the job. It may block while the log or the other node has too much in flight.
func (r *router) append(ctx context.Context, job appendJob) {
	p := ids.PartitionID(job.batch.Partition)
	c := r.catalog()
	if int(p) >= c.partitions() {
		job.done(nil, fault.New(fault.Invalid, "partition %d: the cluster has partitions 0 to %d", p, c.partitions()-1))
		return
	}
	primary, ok := c.primary(p)
	switch {
	case !ok:
		job.done(nil, fault.New(fault.Unavailable, "partition %d has no primary now; retry", p))
	case primary == r.self:
		r.appendHere(job)
	case job.forwarded:
		job.done(nil, fault.New(fault.NotPrimary, "partition %d has moved to node %s; retry", p, c.name(string(primary))))
	default:
		f, err := r.forwardTo(primary)
		if err != nil {
			job.done(nil, err)
			return
		}
		f.send(ctx, job)
	}
}

func (r *router) appendHere(job appendJob) {
	r.host.Append(partition.AppendRequest{
		Partition: ids.PartitionID(job.batch.Partition), Stream: ids.StreamID(job.stream.Id),
		Batch: job.batch, SeenTick: job.seenTick, UnchangedSince: job.since,
	}, func(res partition.AppendResult, err error) {
		if err != nil {
			job.done(nil, err)
			return
		}
		job.done(&millracev1.Appended{
			Partition: job.batch.Partition, BaseOffset: uint64(res.BaseOffset), Count: res.Count, Tick: uint64(res.Tick),
		}, nil)
	})
}

// configure gives up on what waits for nodes that no longer lead its partition: they may never answer. Whether such a
// batch was appended is unknown.
func (r *router) configure(c *catalog) {
	r.mu.Lock()
	forwards := slices.Collect(maps.Values(r.forwards))
	r.mu.Unlock()
	for _, f := range forwards {
		for _, job := range f.stranded(c) {
			job.done(nil, fault.New(fault.Unavailable, "partition %d has moved from node %s; retry", job.batch.Partition, c.name(string(f.node))))
		}
	}
}

func (r *router) forwardTo(node ids.NodeID) (*forward, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, fault.New(fault.Unavailable, "this node is stopping; retry at another")
	}
	if f := r.forwards[node]; f != nil {
		return f, nil
	}
	conn, err := r.peers.Conn(node)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(metadata.AppendToOutgoingContext(context.Background(), forwardedKey, "1"))
	f := &forward{
		node: node, cancel: cancel, jobs: make(chan appendJob, forwardQueue),
		pending: map[uint64]appendJob{}, done: make(chan struct{}),
	}
	r.forwards[node] = f
	r.wait.Go(func() {
		defer cancel()
		err := f.run(ctx, millracev1.NewIngestClient(conn))
		r.mu.Lock()
		delete(r.forwards, node)
		r.mu.Unlock()
		f.fail(err)
		r.log.Debug("forwarding ended", "to", node, "err", err)
	})
	return f, nil
}

// close fails what is under way and waits for it.
func (r *router) close() {
	r.mu.Lock()
	r.closed = true
	for _, f := range r.forwards {
		f.cancel()
	}
	r.mu.Unlock()
	r.wait.Wait()
}

// forward is the stream of appends to one other node.
type forward struct {
	node   ids.NodeID
	cancel context.CancelFunc
	jobs   chan appendJob
	done   chan struct{} // closed when no job will be taken any more

	mu      sync.Mutex
	ended   error // set when done
	next    uint64
	pending map[uint64]appendJob
}

func (f *forward) send(ctx context.Context, job appendJob) {
	select {
	case f.jobs <- job:
		// The stream may have ended meanwhile, with no one left to take the job.
		select {
		case <-f.done:
			f.drain()
		default:
		}
	case <-f.done:
		job.done(nil, f.reason())
	case <-ctx.Done():
		job.done(nil, fault.Wrap(fault.Canceled, ctx.Err(), "append to partition %d", job.batch.Partition))
	}
}

// run sends jobs and dispatches answers until the stream breaks or ctx ends.
func (f *forward) run(ctx context.Context, client millracev1.IngestClient) error {
	stream, err := client.AppendStream(ctx)
	if err != nil {
		return err
	}
	received := make(chan error, 1)
	go func() { received <- f.receive(stream) }()
	for {
		select {
		case job := <-f.jobs:
			f.mu.Lock()
			f.next++
			id := f.next
			f.pending[id] = job
			f.mu.Unlock()
			req := &millracev1.AppendRequest{
				RequestId: id, Stream: job.stream.Name, SeenTick: uint64(job.seenTick), Batch: job.batch,
				UnchangedSince: uint64(job.since),
			}
			if err := stream.Send(req); err != nil && !errors.Is(err, io.EOF) {
				f.cancel()
				<-received
				return err
			}
		case err := <-received: // also after a Send that met io.EOF
			return err
		}
	}
}

func (f *forward) receive(stream millracev1.Ingest_AppendStreamClient) error {
	for {
		resp, err := stream.Recv()
		if err != nil {
			return err
		}
		f.mu.Lock()
		job, ok := f.pending[resp.RequestId]
		delete(f.pending, resp.RequestId)
		f.mu.Unlock()
		switch {
		case !ok:
		case resp.Error != nil:
			job.done(nil, fault.FromStatus(status.FromProto(resp.Error)))
		case len(resp.Appended) != 1:
			job.done(nil, fault.New(fault.Internal, "node %s acknowledged a batch %d times", f.node, len(resp.Appended)))
		default:
			job.done(resp.Appended[0], nil)
		}
	}
}

// stranded takes out the jobs whose partition has another primary than the stream's node.
func (f *forward) stranded(c *catalog) []appendJob {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []appendJob
	for id, job := range f.pending {
		if primary, ok := c.primary(ids.PartitionID(job.batch.Partition)); !ok || primary != f.node {
			out = append(out, job)
			delete(f.pending, id)
		}
	}
	return out
}

// fail ends the stream for all that wait: whether their batches were appended is unknown.
func (f *forward) fail(err error) {
	f.mu.Lock()
	f.ended = fault.Wrap(fault.Unavailable, err, "lost the connection to node %s; retry", f.node)
	pending := f.pending
	f.pending = map[uint64]appendJob{}
	f.mu.Unlock()
	close(f.done)
	for _, job := range pending {
		job.done(nil, f.reason())
	}
	f.drain()
}

func (f *forward) drain() {
	for {
		select {
		case job := <-f.jobs:
			job.done(nil, f.reason())
		default:
			return
		}
	}
}

func (f *forward) reason() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ended
}
