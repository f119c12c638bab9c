package node

import (
	"context"
	"time"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
)

// ReasonTooStale is the reason of an error when a node that is cut off knows nothing young enough to answer from.
const ReasonTooStale = "TOO_STALE"

// readableHere finds the newest tick at which this node alone can read all inputs: from the logs of its replicas, and
// from what was shipped to it of the views' state. That tick is the same for all inputs and partitions, and so is as
// consistent as any other, only older.
//
// Errors: Unavailable, when there is none (reason NOT_HELD), or it lies below minTick or further back than maxStaleness
// (reason TOO_STALE).
func (n *Node) readableHere(inputs []input, minTick ids.Tick, maxStaleness time.Duration) (*layout, error) {
	l := &layout{alone: true, nodes: map[ids.NodeID][]ids.PartitionID{}}
	for i, in := range inputs {
		tick, err := n.runtime.LocalTick(ids.StreamID(in.object), in.view)
		if err != nil {
			return nil, err
		}
		if i == 0 || tick < l.tick {
			l.tick = tick
		}
	}
	if age := n.tickAge(l.tick); age > maxStaleness {
		return nil, fault.New(fault.Unavailable, "the newest tick that this node can read alone, %d, is %v old",
			l.tick, age.Round(100*time.Millisecond)).WithReason(ReasonTooStale)
	}
	if l.tick < minTick {
		return nil, fault.New(fault.Unavailable, "the newest tick that this node can read alone is %d, and the statement needs %d",
			l.tick, minTick).WithReason(ReasonTooStale)
	}
	for _, p := range n.catalog().state.Partitions {
		l.nodes[n.id] = append(l.nodes[n.id], ids.PartitionID(p.Id))
	}
	return l, nil
}

// tickAge is how long ago a tick was the newest: ticks are the cluster's microseconds, so that no two machines' clocks
// are compared.
func (n *Node) tickAge(tick ids.Tick) time.Duration {
	last, at := n.coord.LastTick()
	age := time.Since(at)
	if tick < last {
		age += time.Duration(last-tick) * time.Microsecond
	}
	return age
}

// whileFresh returns a context that ends, with a TOO_STALE error as its cause, when this node has been cut off for longer
// than max_staleness: whoever listens here should go elsewhere.
func (n *Node) whileFresh(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		look := time.NewTicker(max(n.cfg.MaxStaleness/4, time.Millisecond))
		defer look.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-look.C:
				if err := n.fresh(n.cfg.MaxStaleness); err != nil {
					cancel(err)
					return
				}
			}
		}
	}()
	return ctx, func() {
		cancel(nil)
		<-done
	}
}
