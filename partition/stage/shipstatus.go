package stage

import (
	"sync/atomic"
	"time"

	"github.com/millrace/millrace/internal/ids"
)

// shipCounts run since the process began.
type shipCounts struct {
	sent     atomic.Int64 // bytes of batches and copies
	copied   atomic.Int64 // of these, of copies
	received atomic.Int64 // bytes taken from other nodes
	copies   atomic.Int64 // begun
	lost     atomic.Int64 // copies that fell too far behind and begin again
}

// ShippedReplica is how another replica of a partition whose primary is here stands with the views' state.
type ShippedReplica struct {
	Partition ids.PartitionID
	Node      ids.NodeID
	// Behind: it lacks the state of some view, or gets a copy of it. Otherwise it has all that was flushed but for what
	// is on its way.
	Behind bool
	// Tick is that of the least advanced state that it has; 0 when it lacks one, or there is no view.
	Tick ids.Tick
	// Done and Total are about how many bytes of state it has, and is to have.
	Done, Total int64
}

// statusAge is how old an answer of Shipped may be.
const statusAge = 100 * time.Millisecond

// Shipped tells how far state was shipped, by partition and replica, in no order; of partitions without views nothing. The
// caller must not change the answer, which may be a tenth of a second old. Views in their history don't count: their
// state isn't shipped yet.
func (rt *Runtime) Shipped() []ShippedReplica {
	s := rt.ship
	s.statusMu.Lock()
	defer s.statusMu.Unlock()
	if now := time.Now(); now.Sub(s.statusAt) >= statusAge {
		s.status, s.statusAt = s.standing(), now
	}
	return s.status
}

type standingKey struct {
	p    ids.PartitionID
	node ids.NodeID
}

func (s *shipper) standing() []ShippedReplica {
	at := map[standingKey]int{}
	var out []ShippedReplica
	for _, l := range s.allLinks() {
		l.mu.Lock()
		for k, w := range l.wanted {
			r := l.replica[k]
			w.lane.mu.Lock()
			live := w.lane.head.tick > 0
			w.lane.mu.Unlock()
			if r == nil || !live {
				continue
			}
			key := standingKey{k.p, l.node}
			i, ok := at[key]
			if !ok {
				i = len(out)
				at[key] = i
				out = append(out, ShippedReplica{Partition: k.p, Node: l.node, Tick: r.tick})
			}
			out[i].Behind = out[i].Behind || !r.follows
			out[i].Tick = min(out[i].Tick, r.tick)
			size := w.lane.size.Load()
			out[i].Total += size
			if r.follows {
				out[i].Done += size
			} else {
				out[i].Done += min(r.copied, size)
			}
		}
		l.mu.Unlock()
	}
	return out
}

// ShipMetrics are the numbers of shipping. Counters run since the process began.
type ShipMetrics struct {
	SentBytes     int64 // counter: to all replicas
	CopiedBytes   int64 // counter: of these, in copies
	ReceivedBytes int64 // counter
	Copies        int64 // counter: begun here
	BacklogBytes  int64 // kept for replicas that are behind
	// Behind is how many pairs of a partition whose primary is here and another replica lack the state of some view.
	Behind int
	// Lag is by how much the least advanced state that a replica follows with lies behind what is stored here.
	Lag time.Duration
}

// ShipMetrics returns the numbers of shipping.
func (rt *Runtime) ShipMetrics() ShipMetrics {
	s := rt.ship
	m := ShipMetrics{
		SentBytes: s.counts.sent.Load(), CopiedBytes: s.counts.copied.Load(), ReceivedBytes: s.counts.received.Load(),
		Copies: s.counts.copies.Load(), Lag: s.lag(),
	}
	s.backlogMu.Lock()
	m.BacklogBytes = s.kept
	s.backlogMu.Unlock()
	for _, r := range rt.Shipped() {
		if r.Behind {
			m.Behind++
		}
	}
	return m
}

// lag is the greatest distance, in ticks, between what is stored here of a lane and what a replica that follows has.
func (s *shipper) lag() time.Duration {
	most := ids.Tick(0)
	for _, l := range s.allLinks() {
		l.mu.Lock()
		for k, w := range l.wanted {
			w.lane.mu.Lock()
			head := w.lane.head.tick
			w.lane.mu.Unlock()
			if r := l.replica[k]; r != nil && r.follows && head > r.tick {
				most = max(most, head-r.tick)
			}
		}
		l.mu.Unlock()
	}
	return time.Duration(most) * time.Microsecond
}
