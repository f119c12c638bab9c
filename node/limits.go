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
	// reservedFor is how long a stream may have room for a request that doesn't come.
	reservedFor = 250 * time.Millisecond
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

// claim is room for one request. free may be called at any time, the rest by one goroutine.
type claim struct {
	in   *intake
	conn *connIntake

	mu   sync.Mutex
	size int64 // held
}

// reserve waits for room for the next request of a stream, which should be about as large as its last one, before it is
// taken from the transport: that holds the client back, and keeps no more of it than a window. A stream that brings nothing
// for reservedFor loses what was reserved, for the sake of others.
func (in *intake) reserve(ctx context.Context, conn *connIntake, size int64) (c *claim, keep func(), err error) {
	c = &claim{in: in, conn: conn}
	if err := c.grow(ctx, min(max(size, 1), in.connLimit)); err != nil {
		return nil, nil, err
	}
	timer := time.AfterFunc(reservedFor, c.free)
	return c, func() { timer.Stop() }, nil
}

// settle makes the claim as large as the request turned out to be.
//
// Errors: Exhausted OVERLOADED with a delay, when there is no room for appendWait; Canceled with ctx.
func (c *claim) settle(ctx context.Context, size int64) error {
	size = min(size, c.in.connLimit)
	c.mu.Lock()
	more := size - c.size
	c.mu.Unlock()
	if more <= 0 {
		c.shrink(-more)
		return nil
	}
	wait, cancel := context.WithTimeout(ctx, appendWait)
	defer cancel()
	if err := c.grow(wait, more); err != nil {
		c.free()
		if ctx.Err() != nil {
			return fault.Wrap(fault.Canceled, ctx.Err(), "append")
		}
		c.in.refused.Add(1)
		return err
	}
	return nil
}

func (c *claim) grow(ctx context.Context, n int64) error {
	if err := c.conn.inFlight.Acquire(ctx, n); err != nil {
		return overloaded("%d MiB of this connection's appends wait already (--conn-in-flight)", c.in.connLimit)
	}
	if err := c.in.total.Acquire(ctx, n); err != nil {
		c.conn.inFlight.Release(n)
		return overloaded("%d MiB of appends wait on this node already (--ingest-memory)", c.in.limit)
	}
	c.mu.Lock()
	c.size += n
	c.mu.Unlock()
	c.in.held.Add(n)
	return nil
}

func (c *claim) shrink(n int64) {
	c.mu.Lock()
	n = min(n, c.size)
	c.size -= n
	c.mu.Unlock()
	c.in.held.Add(-n)
	c.in.total.Release(n)
	c.conn.inFlight.Release(n)
}

// free gives all back. It may be called twice.
func (c *claim) free() { c.shrink(1 << 62) }

func overloaded(format string, limit int64) error {
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

// part is what one of several parts of a statement holds, which ends before the statement does. Its methods may not run at
// once.
type part struct {
	of   *holding
	held int64
}

// add is as that of holding.
func (p *part) add(n int64) error {
	p.held += n
	return p.of.add(n)
}

// end gives back what the part holds.
func (p *part) end() {
	p.of.held.Add(-p.held)
	p.of.of.held.Add(-p.held)
	p.held = 0
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
