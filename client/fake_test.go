package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/millrace/millrace/internal/fault"
	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
	"github.com/millrace/millrace/record"
)

// stored is one record as a fake cluster keeps it.
type stored struct {
	key   []byte
	value string
	tick  uint64
}

// producerState is what a partition remembers of a producer: as real ones do, its last five results.
type producerState struct {
	last    uint64
	results map[uint64]*millracev1.Appended
}

// verdict is what a fault does to one append.
type verdict struct {
	err       error         // refuse with this
	loseAck   bool          // append, and never answer
	swallow   bool          // neither append nor answer
	cutBefore bool          // end the stream instead of appending
	cutAfter  bool          // append, then end the stream instead of answering
	delay     time.Duration // answer later; answers then overtake each other
}

// cluster is a fake cluster: one shared log behind any number of nodes, with the rules of a real one for sequences.
type cluster struct {
	t          testing.TB
	partitions int
	maxRecord  uint32
	streams    map[string]*millracev1.Stream

	mu        sync.Mutex
	logs      map[string][][]stored // by stream, partition
	producers map[string]*producerState
	tick      uint64
	seen      []uint64 // seen_tick of each append
	batches   int
	primaries []int // node of each partition
	epochs    []uint64
	nodes     []*node
	judge     func(node int, req *millracev1.AppendRequest) verdict // may be nil; called under mu
	execute   func(node int, req *millracev1.ExecuteRequest, send func(*millracev1.ExecuteResponse) error) error
	subscribe func(node int, req *millracev1.SubscribeRequest, stream millracev1.Sql_SubscribeServer) error
	read      func(node int, req *millracev1.ReadRequest, stream millracev1.Log_ReadServer) error
	drain     func(name string) error
	remove    func(name string, force bool) error
	states    []string
}

// node is one server of a fake cluster.
type node struct {
	millracev1.UnimplementedIngestServer
	millracev1.UnimplementedLogServer
	millracev1.UnimplementedSqlServer
	millracev1.UnimplementedClusterServer
	c      *cluster
	i      int
	addr   string
	server *grpc.Server
	done   chan struct{}

	stopping chan struct{} // closed when the node is about to stop
	stopOnce sync.Once

	mu     sync.Mutex
	frozen chan struct{} // not nil: the node answers nothing
}

func startCluster(t testing.TB, nodes, partitions int) *cluster {
	c := &cluster{
		t: t, partitions: partitions, maxRecord: 1 << 20, tick: 1000,
		streams:   map[string]*millracev1.Stream{},
		logs:      map[string][][]stored{},
		producers: map[string]*producerState{},
		primaries: make([]int, partitions),
		epochs:    make([]uint64, partitions),
	}
	c.addStream(&millracev1.Stream{Id: 1, Name: "plain", Format: "json", Columns: []*millracev1.Column{{Name: "n", Type: "bigint"}}})
	c.addStream(&millracev1.Stream{Id: 2, Name: "keyed", Format: "json", Key: "k",
		Columns: []*millracev1.Column{{Name: "k", Type: "bigint"}, {Name: "n", Type: "bigint"}}})
	for i := range nodes {
		c.states = append(c.states, "alive")
		c.nodes = append(c.nodes, c.startNode(i, "127.0.0.1:0"))
	}
	for p := range c.primaries {
		c.primaries[p] = p % nodes
	}
	t.Cleanup(func() {
		for _, n := range c.nodes {
			n.stop()
		}
	})
	return c
}

func (c *cluster) addStream(s *millracev1.Stream) {
	c.streams[s.Name] = s
	c.logs[s.Name] = make([][]stored, c.partitions)
}

func (c *cluster) startNode(i int, addr string) *node {
	var lis net.Listener
	for deadline := time.Now().Add(60 * time.Second); ; { // a port just closed may take a moment to be free
		var err error
		if lis, err = net.Listen("tcp", addr); err == nil {
			break
		}
		if time.Now().After(deadline) {
			c.t.Fatal(err)
		}
	}
	n := &node{c: c, i: i, addr: lis.Addr().String(), done: make(chan struct{}), stopping: make(chan struct{})}
	n.server = grpc.NewServer(grpc.MaxRecvMsgSize(16<<20), grpc.InitialWindowSize(4<<20), grpc.InitialConnWindowSize(16<<20),
		grpc.ChainUnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
			if err := n.thaw(ctx); err != nil {
				return nil, err
			}
			return h(ctx, req)
		}))
	millracev1.RegisterIngestServer(n.server, n)
	millracev1.RegisterLogServer(n.server, n)
	millracev1.RegisterSqlServer(n.server, n)
	millracev1.RegisterClusterServer(n.server, n)
	healthpb.RegisterHealthServer(n.server, health.NewServer())
	go func() {
		defer close(n.done)
		n.server.Serve(lis)
	}()
	return n
}

// stop kills the node.
func (n *node) stop() {
	n.unfreeze()
	n.stopOnce.Do(func() { close(n.stopping) })
	n.server.Stop()
	<-n.done
}

// restart brings node i back at its address.
func (c *cluster) restart(i int) {
	n := c.startNode(i, c.nodes[i].addr)
	c.mu.Lock()
	c.nodes[i] = n
	c.mu.Unlock()
}

// freeze has the node answer nothing any more, as a stopped process does.
func (n *node) freeze() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.frozen = make(chan struct{})
}

func (n *node) unfreeze() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.frozen != nil {
		close(n.frozen)
		n.frozen = nil
	}
}

// thaw waits while the node is frozen.
func (n *node) thaw(ctx context.Context) error {
	n.mu.Lock()
	frozen := n.frozen
	n.mu.Unlock()
	if frozen == nil {
		return nil
	}
	select {
	case <-frozen:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *cluster) addrs() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make([]string, len(c.nodes))
	for i, n := range c.nodes {
		out[i] = n.addr
	}
	return out
}

func (c *cluster) setJudge(f func(node int, req *millracev1.AppendRequest) verdict) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.judge = f
}

// values returns what each partition of a stream holds.
func (c *cluster) values(stream string) [][]string {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make([][]string, c.partitions)
	for p, log := range c.logs[stream] {
		for _, r := range log {
			out[p] = append(out[p], r.value)
		}
	}
	return out
}

func (n *node) Describe(context.Context, *millracev1.DescribeRequest) (*millracev1.DescribeResponse, error) {
	n.c.mu.Lock()
	defer n.c.mu.Unlock()
	d := &millracev1.DescribeResponse{Cluster: "fake", Leader: "n0", Tick: n.c.tick, TargetReplicas: 3}
	for i, m := range n.c.nodes {
		d.Nodes = append(d.Nodes, &millracev1.Node{Name: fmt.Sprintf("n%d", i), Id: fmt.Sprintf("id%d", i), Grpc: m.addr, State: n.c.states[i]})
	}
	return d, nil
}

func (n *node) Drain(_ context.Context, req *millracev1.DrainRequest) (*millracev1.DrainResponse, error) {
	return &millracev1.DrainResponse{}, n.c.drain(req.Node)
}

func (n *node) Remove(_ context.Context, req *millracev1.RemoveRequest) (*millracev1.RemoveResponse, error) {
	return &millracev1.RemoveResponse{}, n.c.remove(req.Node, req.Force)
}

func (n *node) DescribeStream(_ context.Context, req *millracev1.DescribeStreamRequest) (*millracev1.DescribeStreamResponse, error) {
	n.c.mu.Lock()
	defer n.c.mu.Unlock()
	def := n.c.streams[req.Stream]
	if def == nil {
		return nil, fault.New(fault.NotFound, "unknown stream %q", req.Stream)
	}
	d := &millracev1.DescribeStreamResponse{Stream: def, MaxRecordBytes: n.c.maxRecord}
	for p, i := range n.c.primaries {
		d.Routes = append(d.Routes, &millracev1.Route{Partition: uint32(p), Primary: n.c.nodes[i].addr, Epoch: n.c.epochs[p]})
	}
	return d, nil
}

func (n *node) AppendStream(stream millracev1.Ingest_AppendStreamServer) error {
	var sending sync.Mutex
	var late sync.WaitGroup
	defer late.Wait()
	for {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := n.thaw(stream.Context()); err != nil {
			return err
		}
		resp, v := n.c.append(n.i, req)
		switch {
		case v.cutBefore || v.cutAfter:
			return fault.New(fault.Unavailable, "cut")
		case v.loseAck, v.swallow:
			continue
		case v.delay > 0:
			late.Add(1)
			time.AfterFunc(v.delay, func() {
				defer late.Done()
				sending.Lock()
				defer sending.Unlock()
				stream.Send(resp)
			})
			continue
		}
		sending.Lock()
		err = stream.Send(resp)
		sending.Unlock()
		if err != nil {
			return err
		}
	}
}

// append appends a batch, by the rules: a repeat within the last five gets its stored result, a gap is refused.
func (c *cluster) append(node int, req *millracev1.AppendRequest) (*millracev1.AppendResponse, verdict) {
	c.mu.Lock()
	defer c.mu.Unlock()
	resp := &millracev1.AppendResponse{RequestId: req.RequestId}
	refuse := func(err error) { resp.Error = fault.Status(err).Proto() }
	var v verdict
	if c.judge != nil {
		v = c.judge(node, req)
	}
	b := req.Batch
	switch {
	case v.cutBefore, v.swallow:
		return resp, v
	case v.err != nil:
		refuse(v.err)
		return resp, v
	case c.streams[req.Stream] == nil:
		refuse(fault.New(fault.NotFound, "unknown stream %q", req.Stream))
		return resp, v
	case record.Checksum(b.Payload) != b.Crc32C:
		refuse(fault.New(fault.Corrupted, "checksum"))
		return resp, v
	}
	id := fmt.Sprint(req.Stream, "/", b.Partition, "/", b.ProducerId)
	p := c.producers[id]
	if p == nil {
		if b.Sequence != 1 {
			refuse(fault.New(fault.Conflict, "unknown producer").WithReason("UNKNOWN_PRODUCER"))
			return resp, v
		}
		p = &producerState{results: map[uint64]*millracev1.Appended{}}
		c.producers[id] = p
	}
	if a := p.results[b.Sequence]; a != nil {
		resp.Appended, resp.Tick = []*millracev1.Appended{a}, a.Tick
		return resp, v
	}
	if b.Sequence != p.last+1 {
		refuse(fault.New(fault.Conflict, "batch %d, expected %d", b.Sequence, p.last+1).WithReason("OUT_OF_SEQUENCE"))
		return resp, v
	}
	a, err := c.store(req)
	if err != nil {
		refuse(err)
		return resp, v
	}
	p.last = b.Sequence
	p.results[b.Sequence] = a
	delete(p.results, b.Sequence-5)
	resp.Appended, resp.Tick = []*millracev1.Appended{a}, a.Tick
	return resp, v
}

func (c *cluster) store(req *millracev1.AppendRequest) (*millracev1.Appended, error) {
	b := req.Batch
	raw, err := record.Decompress(nil, b.Payload, b.Compression, int(b.UncompressedBytes))
	if err != nil {
		return nil, err
	}
	c.tick++
	c.batches++
	c.seen = append(c.seen, req.SeenTick)
	log := c.logs[req.Stream][b.Partition]
	a := &millracev1.Appended{Partition: b.Partition, BaseOffset: uint64(len(log)), Count: b.Count, Tick: c.tick}
	it := record.NewIter(raw)
	for it.Next() {
		key, hasKey := it.Key()
		if hasKey {
			key = append([]byte{}, key...)
		}
		log = append(log, stored{key: key, value: string(it.Value()), tick: c.tick})
	}
	if n := len(log) - int(a.BaseOffset); it.Err() != nil || n != int(b.Count) {
		return nil, fault.New(fault.Invalid, "%d records, header says %d: %v", n, b.Count, it.Err())
	}
	c.logs[req.Stream][b.Partition] = log
	return a, nil
}

func (n *node) Execute(req *millracev1.ExecuteRequest, stream millracev1.Sql_ExecuteServer) error {
	if err := n.thaw(stream.Context()); err != nil {
		return err
	}
	return n.c.execute(n.i, req, stream.Send)
}

func (n *node) Subscribe(req *millracev1.SubscribeRequest, stream millracev1.Sql_SubscribeServer) error {
	return n.c.subscribe(n.i, req, stream)
}

func (n *node) Read(req *millracev1.ReadRequest, stream millracev1.Log_ReadServer) error {
	return n.c.read(n.i, req, stream)
}
