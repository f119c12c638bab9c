package node

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
)

// bell wakes everyone who waits for a change. Ringing it while nobody waits costs one atomic load.
type bell struct {
	waiting atomic.Int32
	mu      sync.Mutex
	ch      chan struct{}
}

// listen returns a channel that closes at the next ring. Call leave when done with it.
func (b *bell) listen() <-chan struct{} {
	b.waiting.Add(1)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ch == nil {
		b.ch = make(chan struct{})
	}
	return b.ch
}

func (b *bell) leave() { b.waiting.Add(-1) }

func (b *bell) ring() {
	if b.waiting.Load() == 0 {
		return
	}
	b.mu.Lock()
	ch := b.ch
	b.ch = nil
	b.mu.Unlock()
	if ch != nil {
		close(ch)
	}
}

// await calls done at once and after each new state or closed tick, until it says true or fails, or ctx ends.
func (n *Node) await(ctx context.Context, done func(*catalog) (bool, error)) error {
	for {
		changed := n.changed.listen()
		ok, err := done(n.catalog())
		if ok || err != nil {
			n.changed.leave()
			return err
		}
		select {
		case <-changed:
			n.changed.leave()
		case <-ctx.Done():
			n.changed.leave()
			return fault.Wrap(fault.Unavailable, ctx.Err(), "waited for the cluster in vain").WithReason("TIMED_OUT")
		}
	}
}

// lookup finds what f looks for in the catalog; when it isn't there, once more in one as new as the leader's.
func (n *Node) lookup(ctx context.Context, f func(*catalog) bool) (bool, error) {
	if f(n.catalog()) {
		return true, nil
	}
	if err := n.sync(ctx); err != nil {
		return false, err
	}
	return f(n.catalog()), nil
}

// syncTimeout is how long a statement that names what this node doesn't know waits for the leader's word.
const syncTimeout = 5 * time.Second

// sync waits until this node has applied all that the leader has committed now.
func (n *Node) sync(ctx context.Context) error {
	ctx, cancel := withinDeadline(ctx, syncTimeout)
	defer cancel()
	index, err := n.coord.Barrier(ctx)
	if err != nil && ctx.Err() != nil {
		return fault.New(fault.Unavailable, "this node doesn't know what is named here, and the cluster's leader, who would, doesn't answer; "+
			"millrace cluster status tells which nodes are there").WithReason("NO_LEADER").WithRetryAfter(retryPause)
	}
	if err != nil {
		return err
	}
	return n.applied(ctx, index)
}

// applied waits until this node's parts know the state of a Raft index.
func (n *Node) applied(ctx context.Context, index uint64) error {
	return n.await(ctx, func(c *catalog) (bool, error) { return c.state.Index >= index, nil })
}

// stream finds a stream by name.
func (n *Node) stream(ctx context.Context, name string) (*millracev1.Stream, error) {
	var def *millracev1.Stream
	var view bool
	_, err := n.lookup(ctx, func(c *catalog) bool {
		if o := c.byName[name]; o != nil {
			def, view = o.Stream, o.Stream == nil
		}
		return def != nil || view
	})
	switch {
	case err != nil:
		return nil, err
	case view:
		return nil, fault.SQL(fault.Invalid, "42809", "%q is a view; records go to and come from streams", name).WithReason("NOT_A_STREAM")
	case def == nil:
		return nil, fault.SQL(fault.NotFound, "42P01", "unknown stream %q; SHOW STREAMS lists them, CREATE STREAM makes one", name).
			WithReason("UNKNOWN_STREAM")
	}
	return def, nil
}

// futureTicks is how far a client's tick may be ahead of this node's clock, and of the cluster's.
const futureTicks = 60_000_000 // microseconds

// tellsTicks is how old the newest tick may be for a node that tells which were never issued.
const tellsTicks = time.Second

// checkSeenTick refuses a tick that the cluster can't have issued, which would hold the append back for long.
func (n *Node) checkSeenTick(seen ids.Tick) error {
	last, _ := n.coord.LastTick()
	newest := max(last, ids.Tick(n.catalog().state.TickCeiling), ids.Tick(time.Now().UnixMicro()))
	if seen > newest+futureTicks {
		// Ticks may be far ahead of this clock: a leader's clock was. Only a node that has heard the newest can tell.
		if err := n.fresh(tellsTicks); err != nil {
			return err
		}
		return fault.New(fault.Invalid, "tick %d was never issued; it would be a minute and more in the future", seen).WithReason("TICK_IN_FUTURE")
	}
	return nil
}
