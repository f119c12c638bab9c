package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/millrace/millrace/dataflow"
	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/partition/stage"
	"github.com/millrace/millrace/plan"
	internalv1 "github.com/millrace/millrace/proto/internalv1"
	"github.com/millrace/millrace/record"
)

// staleGrace is how long a statement looks for a tick to read before it gives up because the cluster's clock stands still:
// a change of leaders takes less.
const staleGrace = time.Second

// retryPause is how long a statement waits before it looks again where partitions are.
const retryPause = 20 * time.Millisecond

// input is a stream or view that a plan scans.
type input struct {
	object uint64
	view   bool
	name   string
	asOf   ids.Tick // the tick that it is read at; 0: the statement's
}

func inputsOf(p *plan.Plan) []input {
	var out []input
	for i := range p.Stages {
		for j := range p.Stages[i].Ops {
			if s := p.Stages[i].Ops[j].Scan; s != nil {
				out = append(out, input{object: s.Object, view: s.Kind == plan.ScanView, name: s.Name, asOf: ids.Tick(s.AsOf)})
			}
		}
	}
	return out
}

// layout is which node is asked for which partitions, and the newest tick that all of them can be read at.
type layout struct {
	tick  ids.Tick
	alone bool // this node reads everything itself, as the others don't answer
	nodes map[ids.NodeID][]ids.PartitionID

	measure *measured // nil: nobody asked
}

// withinDeadline is ctx for what a statement may wait for: limit long, and a little shorter than its client waits for the
// answer, so that the client hears why there is none.
func withinDeadline(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	if end, ok := ctx.Deadline(); ok {
		left := time.Until(end)
		limit = min(limit, left-min(max(left/10, minAnswerTime), maxAnswerTime))
	}
	return context.WithTimeout(ctx, limit)
}

// What is left of a client's time for the answer to reach it.
const (
	minAnswerTime = 20 * time.Millisecond
	maxAnswerTime = 500 * time.Millisecond
)

// readable finds the newest tick at which all inputs can be read in all partitions, waiting until it is at least
// minTick and no older than maxStaleness, and who is to be asked: a partition that works a view out again is behind for
// a while. When the primaries don't answer for a while, it takes what this node can read alone
// while that is younger than maxStaleness; and it doesn't wait where waiting is in vain: when no tick has come for so long.
func (n *Node) readable(ctx context.Context, inputs []input, minTick ids.Tick, maxStaleness time.Duration) (*layout, error) {
	begun := time.Now()
	var alone error // why this node can't answer alone
	for {
		if time.Since(begun) >= staleGrace || n.fresh(staleGrace) != nil {
			var l *layout
			if l, alone = n.readableHere(inputs, minTick, maxStaleness); alone == nil {
				return l, nil
			}
			if stale := n.fresh(maxStaleness); stale != nil {
				return nil, fault.New(fault.Unavailable, "%v; %v", stale, alone).WithReason(ReasonTooStale)
			}
		}
		try, cancel := context.WithTimeout(ctx, staleGrace)
		l, err := n.tryReadable(try, inputs, minTick)
		late := try.Err() != nil && ctx.Err() == nil
		cancel()
		if err == nil {
			if age := n.tickAge(l.tick); age > maxStaleness {
				err = fault.New(fault.Unavailable, "the newest tick that can be read in all partitions, %d, is %v old, more than max_staleness (%v)",
					l.tick, age.Round(time.Second), maxStaleness).WithReason(ReasonTooStale)
			}
		}
		if err == nil || !fault.Retryable(err) && !late || isReplaced(err) {
			return l, err
		}
		if werr := pause(ctx, retryPause); werr != nil {
			return nil, notReadable(err, alone, minTick)
		}
	}
}

// notReadable is the error of a statement whose time is over: err is what the last try of the primaries met, alone why this
// node has no answer of its own, if it looked for one.
func notReadable(err, alone error, minTick ids.Tick) error {
	if fault.KindOf(err) == fault.Deadline || fault.KindOf(err) == fault.Canceled || errors.Is(err, context.DeadlineExceeded) {
		err = errors.New("some of their primaries don't answer")
	}
	if alone != nil {
		err = fmt.Errorf("%w; %w", err, alone)
	}
	return fault.Wrap(fault.Unavailable, err, "no tick at or above %d can be read in all partitions within the time allowed", minTick).
		WithReason("NOT_READABLE")
}

func (n *Node) tryReadable(ctx context.Context, inputs []input, minTick ids.Tick) (*layout, error) {
	c := n.catalog()
	for _, in := range inputs {
		if id := ids.StreamID(in.object); id != 0 && c.streams[id] == nil && c.views[id] == nil {
			if c.byName[in.name] != nil {
				return nil, wasReplaced(in.name)
			}
			return nil, fault.SQL(fault.NotFound, "42P01", "%q was dropped", in.name)
		}
	}
	l := &layout{nodes: map[ids.NodeID][]ids.PartitionID{}}
	for _, p := range c.state.Partitions {
		if p.Primary == "" {
			return nil, fault.New(fault.Unavailable, "partition %d has no primary now", p.Id)
		}
		l.nodes[ids.NodeID(p.Primary)] = append(l.nodes[ids.NodeID(p.Primary)], ids.PartitionID(p.Id))
	}
	var mu sync.Mutex
	g, ctx := errgroup.WithContext(ctx)
	for node, want := range l.nodes {
		for _, in := range inputs {
			g.Go(func() error {
				resp, err := n.askProgress(ctx, node, &internalv1.ProgressRequest{Object: in.object, View: in.view, MinTick: uint64(minTick), Oldest: in.view && in.asOf > 0})
				if err != nil {
					return err
				}
				if !samePartitions(resp.Partitions, want) {
					return fault.New(fault.NotPrimary, "partitions have moved")
				}
				if in.asOf > 0 && in.view && uint64(in.asOf) < resp.OldestTick {
					return notRetained(in, ids.Tick(resp.OldestTick))
				}
				mu.Lock()
				if l.tick == 0 || ids.Tick(resp.Tick) < l.tick {
					l.tick = ids.Tick(resp.Tick)
				}
				mu.Unlock()
				return nil
			})
		}
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return l, nil
}

// notRetained says that a view can't be read as of the tick that was asked for.
func notRetained(in input, oldest ids.Tick) error {
	return fault.SQL(fault.NotFound, "72000", "%q can't be read as of tick %d any more; the oldest is %d (%s); WITH (history = '...') lets a view keep more",
		in.name, in.asOf, oldest, time.UnixMicro(int64(oldest)).UTC().Format("2006-01-02 15:04:05.000000Z07")).WithReason(stage.ReasonTickNotRetained)
}

func (n *Node) askProgress(ctx context.Context, node ids.NodeID, req *internalv1.ProgressRequest) (*internalv1.ProgressResponse, error) {
	if node == n.id {
		return n.progress(ctx, req)
	}
	client, err := n.queryClient(node)
	if err != nil {
		return nil, err
	}
	resp, err := client.Progress(ctx, req)
	return resp, fault.FromGRPC(err)
}

func (n *Node) queryClient(node ids.NodeID) (internalv1.QueryClient, error) {
	conn, err := n.peers.queryConn(node)
	if err != nil {
		return nil, err
	}
	return internalv1.NewQueryClient(conn), nil
}

func samePartitions(got []uint32, want []ids.PartitionID) bool {
	if len(got) != len(want) {
		return false
	}
	for i := range got {
		if ids.PartitionID(got[i]) != want[i] {
			return false
		}
	}
	return true
}

// fresh refuses to answer once the cluster's clock has stood still for longer than maxStaleness: this node is cut off, or
// there is no leader.
func (n *Node) fresh(maxStaleness time.Duration) error {
	_, at := n.coord.LastTick()
	if age := time.Since(at); age > maxStaleness {
		return fault.New(fault.Unavailable, "no tick came from the cluster's leader for %v, more than max_staleness (%v); ask another node",
			age.Round(time.Second), maxStaleness).WithReason(ReasonTooStale)
	}
	return nil
}

// query runs an ad-hoc plan at the layout's tick: all stages but the last in the partitions, each a scan, all at one tick;
// the last one here. emit gets the result in parts, in order, and must not keep them.
func (n *Node) query(ctx context.Context, p *plan.Plan, l *layout, emit func(*record.Delta) error) error {
	last := len(p.Stages) - 1
	for i := range last {
		if leafOf(&p.Stages[i]) < 0 || p.Stages[i].Exchange == nil || !p.Stages[i].Exchange.Gather {
			return fault.New(fault.Internal, "stage %d of an ad-hoc plan is no scan", i)
		}
	}
	g := &gathering{stage: &p.Stages[last], tick: l.tick, emit: emit, memory: n.queries.begin()}
	defer g.memory.end()
	g.stream = last == 1 && linear(g.stage)
	var err error
	g.frag, err = dataflow.New(g.stage.Ops, dataflow.Env{Mode: dataflow.AdHoc, NowTick: l.tick, AppendOnly: g.stream, Hold: g.memory.add, Check: func(rows *record.Delta, kept bool) error {
		if !kept || g.stream {
			return ctx.Err()
		}
		if err := g.memory.add(deltaBytes(rows)); err != nil {
			return err
		}
		return ctx.Err()
	}})
	if err != nil {
		return err
	}
	if last > 0 {
		if err := n.gather(ctx, p, l, g.take); err != nil {
			return err
		}
	}
	err = flushTo(g.frag, l.tick, emit)
	if l.measure != nil {
		l.measure.add(last, g.frag.OpRows(nil))
	}
	return err
}

// gathering is the last stage of an ad-hoc query while rows come in.
type gathering struct {
	stage  *plan.Stage
	frag   *dataflow.Fragment
	tick   ids.Tick
	stream bool // rows can be passed on as they come
	emit   func(*record.Delta) error
	memory *holding
}

// take takes rows of stage from.
func (g *gathering) take(from int, d *record.Delta) error {
	for i := range g.stage.Ops {
		if in := g.stage.Ops[i].Input; in != nil && in.Stage == from {
			if err := g.frag.Push(i, d); err != nil {
				return err
			}
		}
	}
	if g.stream {
		return flushTo(g.frag, g.tick, g.emit)
	}
	return nil
}

func flushTo(f *dataflow.Fragment, tick ids.Tick, emit func(*record.Delta) error) error {
	d, err := f.EndTick(tick, dataflow.NoMarks)
	if err != nil || d == nil || d.N == 0 {
		return err
	}
	return emit(d)
}

// gather runs all stages but the last in all partitions; take is called by one goroutine at a time.
func (n *Node) gather(ctx context.Context, p *plan.Plan, l *layout, take func(stage int, d *record.Delta) error) error {
	encoded, err := plan.Marshal(p)
	if err != nil {
		return fault.Wrap(fault.Internal, err, "plan")
	}
	var mu sync.Mutex
	g, ctx := errgroup.WithContext(ctx)
	for stage := range len(p.Stages) - 1 {
		ops := p.Stages[stage].Ops
		schema := ops[len(ops)-1].Schema
		locked := func(d *record.Delta) error {
			mu.Lock()
			defer mu.Unlock()
			return take(stage, d)
		}
		for node, parts := range l.nodes {
			g.Go(func() error {
				if node == n.id {
					return n.scan(ctx, p, stage, parts, l, locked)
				}
				req := &internalv1.ScanRequest{Plan: encoded, Partitions: partitionNumbers(parts), Tick: uint64(l.tick), Stage: uint32(stage), Analyze: l.measure != nil}
				return n.scanThere(ctx, node, req, schema, l.measure, locked)
			})
		}
	}
	return g.Wait()
}

func partitionNumbers(parts []ids.PartitionID) []uint32 {
	out := make([]uint32, len(parts))
	for i, p := range parts {
		out[i] = uint32(p)
	}
	return out
}

func (n *Node) scanThere(ctx context.Context, node ids.NodeID, req *internalv1.ScanRequest, schema record.Schema, m *measured, take func(*record.Delta) error) error {
	client, err := n.queryClient(node)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.Scan(ctx, req)
	if err != nil {
		return fault.FromGRPC(err)
	}
	for {
		resp, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fault.FromGRPC(err)
		}
		if m != nil && len(resp.OpRows) > 0 {
			m.add(int(req.Stage), resp.OpRows)
		}
		if len(resp.Delta) == 0 {
			continue
		}
		d, err := record.UnmarshalDelta(resp.Delta, schema)
		if err != nil {
			return err
		}
		if err := take(d); err != nil {
			return err
		}
	}
}

// deltaBytes is about what a delta holds in memory.
func deltaBytes(d *record.Delta) int64 {
	n := int64(8 * len(d.Weights))
	for i := range d.Cols {
		c := &d.Cols[i]
		n += int64(len(c.Bools) + 8*len(c.Ints) + 8*len(c.Floats) + 16*len(c.Intervals) + 4*len(c.Offsets) + len(c.Bytes) + len(c.Validity))
	}
	return n
}

// pause waits for d or until ctx ends, whose error it then returns.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
