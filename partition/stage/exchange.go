package stage

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	internalv1 "github.com/millrace/millrace/proto/internalv1"
	"github.com/millrace/millrace/record"
)

// Register adds the exchange's service to a gRPC server.
func (rt *Runtime) Register(s grpc.ServiceRegistrar) {
	internalv1.RegisterExchangeServer(s, exchangeServer{rt: rt})
	registerShipping(s, rt)
}

type exchangeServer struct {
	internalv1.UnimplementedExchangeServer
	rt *Runtime
}

// outlet is the sending side of one node's stream: its feeds' queues, which hold no more than the feeds' windows, and
// what it was told of closed ticks.
type outlet struct {
	rt     *Runtime
	stream internalv1.Exchange_PullServer
	wake   chan struct{} // buffered
	reads  atomic.Int64  // feeds of stages' outputs
	sent   []ids.Tick    // closed ticks, by partition; used by the sender alone

	mu      sync.Mutex
	feeds   map[uint64]*outFeed
	turn    []*outFeed // with something queued, in turn
	refused []*internalv1.Refused
	upto    uint64 // the highest feed whose attaching has been dealt with
}

type outFeed struct {
	id     uint64
	reader *reader
	queue  []outStep
	passed ids.Tick // that the other node knows of
}

type outStep struct {
	st   *step
	cost int64
}

// Pull implements internalv1.ExchangeServer.
func (s exchangeServer) Pull(stream internalv1.Exchange_PullServer) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	h := first.Hello
	switch {
	case h == nil || h.Version != exchangeVersion:
		return fault.New(fault.Unsupported, "exchange: version %d, this node speaks %d", h.GetVersion(), exchangeVersion)
	case s.rt.clusterID() == "":
		return fault.New(fault.Unavailable, "exchange: this node doesn't know the cluster's state yet")
	case h.ClusterId != s.rt.clusterID():
		return fault.New(fault.Conflict, "exchange: node %s is of cluster %q, this one of %q", h.Node, h.ClusterId, s.rt.clusterID())
	}
	o := &outlet{
		rt: s.rt, stream: stream, wake: make(chan struct{}, 1), feeds: map[uint64]*outFeed{},
		sent: make([]ids.Tick, s.rt.board.partitions()),
	}
	ctx, cancel := context.WithCancelCause(stream.Context())
	defer cancel(nil)
	if !s.rt.addOutlet(o) {
		return fault.New(fault.Unavailable, "exchange: this node is stopping")
	}
	defer o.close()
	o.apply(first)
	go func() { // ends with the stream, soon after this method
		for {
			req, err := stream.Recv()
			if err != nil {
				cancel(err)
				return
			}
			o.apply(req)
		}
	}()
	return o.run(ctx)
}

// run sends until the stream or the runtime ends.
func (o *outlet) run(ctx context.Context) error {
	for {
		for {
			resp := o.next()
			if resp == nil {
				break
			}
			if err := o.stream.Send(resp); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-o.rt.ctx.Done():
			return fault.New(fault.Unavailable, "exchange: this node is stopping")
		case <-o.wake:
		}
	}
}

func (o *outlet) signal() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// close takes the stream's readers away from their sources.
func (o *outlet) close() {
	o.rt.removeOutlet(o)
	o.mu.Lock()
	feeds := o.feeds
	o.feeds = nil
	o.mu.Unlock()
	for _, f := range feeds {
		f.reader.source.detach(f.reader)
	}
}

func (o *outlet) apply(req *internalv1.PullRequest) {
	for _, id := range req.Detach {
		o.mu.Lock()
		f := o.forget(id)
		o.mu.Unlock()
		if f != nil {
			f.reader.source.detach(f.reader)
		}
	}
	for _, a := range req.Attach {
		if err := o.attach(a); err != nil {
			o.refuse(a.Feed, err.Error(), false)
		}
		o.mu.Lock()
		o.upto = max(o.upto, a.Feed)
		o.mu.Unlock()
	}
	if len(req.Attach) > 0 && o.reads.Load() > 0 {
		o.signal() // what they read may be complete already
	}
	for _, c := range req.Credit {
		if f := o.feed(c.Feed); f != nil {
			f.reader.release(int64(c.Bytes))
		}
	}
	for _, d := range req.Durable {
		if f := o.feed(d.Feed); f != nil {
			f.reader.source.setDurable(f.reader, ids.Offset(d.Offset))
		}
	}
}

func (o *outlet) feed(id uint64) *outFeed {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.feeds[id]
}

// forget takes a feed out. Called with mu held.
func (o *outlet) forget(id uint64) *outFeed {
	f := o.feeds[id]
	if f != nil && f.reader.source.up != nil {
		o.reads.Add(-1)
	}
	delete(o.feeds, id)
	return f
}

func (o *outlet) refuse(id uint64, reason string, failed bool) {
	o.mu.Lock()
	o.forget(id)
	o.refused = append(o.refused, &internalv1.Refused{Feed: id, Reason: reason, Failed: failed})
	o.mu.Unlock()
	o.signal()
}

func (o *outlet) attach(a *internalv1.Attach) error {
	s, err := o.rt.sourceFor(ids.StreamID(a.View), int(a.SourceIndex), ids.PartitionID(a.Source), ids.Epoch(a.Epoch))
	if err != nil {
		return err
	}
	if int(a.Consumer) >= len(s.plan.consumers) {
		return fault.New(fault.Invalid, "exchange: reader %d of a source of view %q, which has %d", a.Consumer, s.view.name, len(s.plan.consumers))
	}
	targets := make([]ids.PartitionID, len(a.Targets))
	for i, t := range a.Targets {
		if int(t) >= s.view.partitions {
			return fault.New(fault.Invalid, "exchange: partition %d of %d", t, s.view.partitions)
		}
		targets[i] = ids.PartitionID(t)
	}
	f := &outFeed{id: a.Feed, reader: newReader(s, int(a.Consumer), targets, !a.MarksOnly, positionOf(a.Position), int64(a.Window))}
	f.reader.durable = ids.Offset(a.Durable)
	for _, x := range a.Stops {
		f.reader.stops = append(f.reader.stops, ids.Offset(x))
	}
	f.reader.deliver = func(st *step, cost int64) { o.enqueue(f, outStep{st, cost}) }
	f.reader.refused = func(reason string, failed bool) { o.refuse(f.id, reason, failed) }
	o.mu.Lock()
	if o.feeds == nil {
		o.mu.Unlock()
		return fault.New(fault.Unavailable, "exchange: the stream has ended")
	}
	o.feeds[f.id] = f
	if s.up != nil {
		o.reads.Add(1)
	}
	o.mu.Unlock()
	if err := s.attach(f.reader); err != nil {
		o.mu.Lock()
		o.forget(f.id)
		o.mu.Unlock()
		return err
	}
	return nil
}

func (o *outlet) enqueue(f *outFeed, s outStep) {
	o.mu.Lock()
	if o.feeds[f.id] == f {
		f.queue = append(f.queue, s)
		if len(f.queue) == 1 {
			o.turn = append(o.turn, f)
		}
	}
	o.mu.Unlock()
	o.signal()
}

// gatherBytes is about how much goes into one message, in bytes, when there are many small steps.
const gatherBytes = 64 << 10

// next returns the next message: closed ticks, and some steps, one of each feed in turn; nil when there is nothing.
func (o *outlet) next() *internalv1.PullResponse {
	resp := &internalv1.PullResponse{}
	o.rt.board.news(o.rt.primariesHere(), o.sent, func(tick ids.Tick, parts []uint32, data []lastData) {
		c := &internalv1.Closed{Tick: uint64(tick), Partitions: parts}
		for _, d := range data {
			c.Data = append(c.Data, &internalv1.LastData{Partition: uint32(d.p), Stream: uint64(d.stream), Tick: uint64(d.tick)})
		}
		resp.Closed = append(resp.Closed, c)
	})
	o.mu.Lock()
	resp.Refused, o.refused = o.refused, nil
	o.mu.Unlock()
	for size := 0; size < gatherBytes; {
		f, s, ok := o.pop()
		if !ok {
			break
		}
		m, n := o.message(f, s)
		resp.Steps = append(resp.Steps, m)
		size += n
	}
	if o.reads.Load() > 0 {
		resp.Passed = o.passed(resp.Refused)
	}
	if len(resp.Closed) == 0 && len(resp.Steps) == 0 && len(resp.Refused) == 0 && len(resp.Passed) == 0 {
		return nil
	}
	return resp
}

// passed tells up to which tick the outputs of stages are complete, if there is news: one entry for the feeds that are
// furthest, which mostly are all, and one for each other tick. The steps of a feed that it tells of are in the same
// message, or were in an earlier one.
func (o *outlet) passed(refused []*internalv1.Refused) []*internalv1.Passed {
	o.mu.Lock()
	defer o.mu.Unlock()
	known := map[*target][2]ids.Tick{} // what output says: asked once for each stage, not for each feed
	byTick := map[ids.Tick][]*outFeed{}
	var top ids.Tick
	for _, f := range o.feeds {
		up := f.reader.source.up
		if up == nil || f.id > o.upto {
			continue
		}
		out, ok := known[up]
		if !ok {
			out[0], out[1] = up.output()
			known[up] = out
		}
		at := f.passed
		if through := ids.Tick(f.reader.through.Load()); len(f.queue) == 0 && through >= out[1] {
			at = max(at, out[0])
		}
		byTick[at] = append(byTick[at], f)
		top = max(top, at)
	}
	var out []*internalv1.Passed
	all := &internalv1.Passed{Tick: uint64(top), Upto: o.upto}
	for _, r := range slices.Concat(refused, o.refused) {
		all.Except = append(all.Except, r.Feed) // the other node believes that they are there
	}
	for at, feeds := range byTick {
		some := &internalv1.Passed{Tick: uint64(at)}
		news := false
		for _, f := range feeds {
			if news = news || f.passed < at; f.passed < at && at < top {
				some.Feeds = append(some.Feeds, f.id)
			}
			if at < top {
				all.Except = append(all.Except, f.id)
			}
			f.passed = at
		}
		switch {
		case !news:
		case at == top:
			out = append(out, all)
		default:
			out = append(out, some)
		}
	}
	return out
}

// pop takes the next step, of each feed in turn.
func (o *outlet) pop() (f *outFeed, s outStep, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for len(o.turn) > 0 {
		f = o.turn[0]
		if o.turn = o.turn[1:]; len(o.turn) == 0 {
			o.turn = nil
		}
		if o.feeds[f.id] != f {
			continue
		}
		s = f.queue[0]
		f.queue[0] = outStep{}
		if f.queue = f.queue[1:]; len(f.queue) > 0 {
			o.turn = append(o.turn, f)
		}
		return f, s, true
	}
	return nil, outStep{}, false
}

// message encodes a step and returns about how large it is; the rest of a large one goes back to the front of the queue.
func (o *outlet) message(f *outFeed, s outStep) (*internalv1.Step, int) {
	st := s.st
	m := &internalv1.Step{
		Feed: f.id, Tick: uint64(st.tick), Part: st.part, Through: uint64(st.through), Position: st.pos.proto(),
		Late: st.counts.Late, Errors: st.counts.Errors, LastError: st.counts.LastError, Bytes: s.cost,
	}
	size := 0
	for i := range st.parts {
		p := &st.parts[i]
		if size > 0 && size+int(p.bytes) > messageBytes && p.delta != st.parts[i-1].delta {
			rest := *st
			rest.parts = st.parts[i:]
			m.More = true
			o.putBack(f, outStep{&rest, s.cost})
			break
		}
		if i > 0 && size > 0 && p.delta == st.parts[i-1].delta {
			last := m.Parts[len(m.Parts)-1]
			last.Also = append(last.Also, uint32(p.target))
			continue
		}
		raw := record.MarshalDelta(make([]byte, 0, int(p.bytes)+64), p.delta)
		m.Parts = append(m.Parts, &internalv1.Part{Target: uint32(p.target), Delta: raw, Bytes: p.bytes})
		size += len(raw)
	}
	return m, size + stepBytes
}

// putBack makes s the feed's next step, and the feed the next in turn, so that pieces come one after the other.
func (o *outlet) putBack(f *outFeed, s outStep) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(f.queue) == 0 {
		o.turn = append(o.turn, f)
	}
	f.queue = append([]outStep{s}, f.queue...)
}
