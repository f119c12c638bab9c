package node

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
	"google.golang.org/grpc/peer"

	"github.com/millrace/millrace/internal/fault"
)

// Reasons of the errors that tell a client that this node has enough to do. They are stable; each comes with a delay.
const (
	ReasonOverloaded  = "OVERLOADED"       // appends
	ReasonQueryMemory = "QUERY_MEMORY"     // statements, all together
	ReasonReaders     = "TOO_MANY_READERS" // reads of logs and subscriptions
)

const (
	// appendWait is how long an append waits for memory before it is refused; its client comes back later then.
	appendWait = 500 * time.Millisecond
	// overloadedFor is when a client that was refused should come back.
	overloadedFor = 200 * time.Millisecond
	// readersFor is the same for reads and subscriptions, which go on for long.
	readersFor = time.Second
)

// intake bounds the appends that this node holds for its clients, from when a request was received to its answer: those of
// each connection, whatever streams and calls it has, and all together.
type intake struct {
	total     *semaphore.Weighted
	limit     int64 // of total, bytes
	connLimit int64 // bytes
	held      atomic.Int64
	refused   atomic.Int64

	mu    sync.Mutex
	conns map[string]*connIntake
}

// connIntake is one connection's share, while it has calls.
type connIntake struct {
	inFlight *semaphore.Weighted
	calls    int // under intake.mu
}

func newIntake(limit, connLimit int64) *intake {
	return &intake{total: semaphore.NewWeighted(limit), limit: limit, connLimit: min(connLimit, limit), conns: map[string]*connIntake{}}
}

// conn returns the share of the connection that a call came by; leave must be called when the call ends.
func (in *intake) conn(ctx context.Context) (c *connIntake, leave func()) {
	p, ok := peer.FromContext(ctx)
	if !ok || p.Addr == nil { // a statement of this node's own
		return &connIntake{inFlight: semaphore.NewWeighted(in.connLimit)}, func() {}
	}
	name := p.Addr.String()
	in.mu.Lock()
	defer in.mu.Unlock()
	if c = in.conns[name]; c == nil {
		c = &connIntake{inFlight: semaphore.NewWeighted(in.connLimit)}
		in.conns[name] = c
	}
	c.calls++
	return c, func() {
		in.mu.Lock()
		defer in.mu.Unlock()
		if c.calls--; c.calls == 0 {
			delete(in.conns, name)
		}
	}
}

// ready waits until there is room for something at all. A stream waits here before it takes a request from the transport,
// which holds its client back and keeps no more of it than a window.
func (in *intake) ready(ctx context.Context, c *connIntake) error {
	for _, s := range []*semaphore.Weighted{c.inFlight, in.total} {
		if err := s.Acquire(ctx, 1); err != nil {
			return err
		}
		s.Release(1)
	}
	return nil
}

// acquire takes room for a request; free gives it back.
//
// Errors: Exhausted OVERLOADED with a delay, when there is none for appendWait; Canceled with ctx.
func (in *intake) acquire(ctx context.Context, c *connIntake, size int64) (free func(), err error) {
	size = min(size, in.connLimit)
	wait, cancel := context.WithTimeout(ctx, appendWait)
	defer cancel()
	if err := c.inFlight.Acquire(wait, size); err != nil {
		return nil, in.refusal(ctx, "%d MiB of this connection's appends wait already (--conn-in-flight)", in.connLimit)
	}
	if err := in.total.Acquire(wait, size); err != nil {
		c.inFlight.Release(size)
		return nil, in.refusal(ctx, "%d MiB of appends wait on this node already (--ingest-memory)", in.limit)
	}
	in.held.Add(size)
	return func() {
		in.held.Add(-size)
		in.total.Release(size)
		c.inFlight.Release(size)
	}, nil
}

func (in *intake) refusal(ctx context.Context, format string, limit int64) error {
	if ctx.Err() != nil {
		return fault.Wrap(fault.Canceled, ctx.Err(), "append")
	}
	in.refused.Add(1)
	return fault.New(fault.Exhausted, "the node has enough to do: "+format+"; send it again a little later", limit>>20).
		WithReason(ReasonOverloaded).WithRetryAfter(overloadedFor)
}

// queryMemory bounds the rows that statements hold on this node: those of each, and all together.
type queryMemory struct {
	each, total int64 // limits, bytes
	held        atomic.Int64
	refused     atomic.Int64
}

// holding is what one statement holds here. Its methods may run at once.
type holding struct {
	of   *queryMemory
	held atomic.Int64
}

func (q *queryMemory) begin() *holding { return &holding{of: q} }

// add counts n bytes more.
//
// Errors: Exhausted 53200, with reason QUERY_MEMORY and a delay when it is the others' fault.
func (h *holding) add(n int64) error {
	if h.held.Add(n) > h.of.each {
		h.of.refused.Add(1)
		h.of.held.Add(n)
		return fault.SQL(fault.Exhausted, "53200", "the statement needs more than %d MiB of memory (--query-memory); filter or aggregate more", h.of.each>>20)
	}
	if h.of.held.Add(n) > h.of.total {
		h.of.refused.Add(1)
		return fault.SQL(fault.Exhausted, "53200", "the statements that run on this node need more than %d MiB of memory together (--query-memory-total); "+
			"retry when others are done", h.of.total>>20).WithReason(ReasonQueryMemory).WithRetryAfter(readersFor)
	}
	return nil
}

// end gives all back. It may be called twice.
func (h *holding) end() { h.of.held.Add(-h.held.Swap(0)) }

// readers bounds the reads of logs and the subscriptions at once.
type readers struct {
	limit   int64
	now     atomic.Int64
	refused atomic.Int64
}

// enter counts one; leave must be called at its end.
func (r *readers) enter() (leave func(), err error) {
	if r.now.Add(1) > r.limit {
		r.now.Add(-1)
		r.refused.Add(1)
		return nil, fault.New(fault.Exhausted, "this node serves %d reads and subscriptions already (--max-readers); end some, or go to another node", r.limit).
			WithReason(ReasonReaders).WithRetryAfter(readersFor)
	}
	return func() { r.now.Add(-1) }, nil
}
