package stage

import (
	"time"

	"github.com/millrace/millrace/internal/ids"
)

// A log may be truncated below what no view will ask for again: not this node, should it crash, and not another replica
// that becomes the primary with what was shipped to it. So a target's stored positions count once this node and all
// replicas that get on have made them durable.

// heldCut is positions that a target has stored, as of the flush at tick.
type heldCut struct {
	target *target
	tick   ids.Tick
	cut    cut
	since  time.Time
}

// released returns what the replicas of a group's targets have made durable, of what the targets had stored in time; false
// while there is nothing yet. fresh is what this node has just made durable.
func (s *shipper) released(fresh []heldCut, sources int) (cut, bool) {
	cuts := make([]cut, 0, len(fresh))
	for _, h := range fresh {
		s.mu.Lock()
		l := s.lanes[laneOf(h.target)]
		s.mu.Unlock()
		if l == nil || l.target != h.target {
			return cut{}, false // it is moving away
		}
		if l.held.target == nil {
			l.held = h
		}
		for s.replicasHave(&l.held) {
			l.freed, l.free = l.held.cut, true
			if l.held.tick == h.tick {
				l.held = heldCut{}
				break
			}
			l.held = h
		}
		if !l.free {
			return cut{}, false
		}
		cuts = append(cuts, l.freed)
	}
	return lowest(cuts, sources), true
}

// replicasHave tells whether all other replicas have made durable what a target had stored, leaving out those that don't
// get on: a dead one doesn't hold logs for ever.
func (s *shipper) replicasHave(h *heldCut) bool {
	if h.target == nil {
		return false
	}
	all := true
	for _, l := range s.allLinks() {
		l.note(laneOf(h.target), func(r *shipped) {
			switch {
			case r.durable >= h.tick || r.hopeless:
			case time.Since(h.since) >= s.cfg.Patience && time.Since(r.advanced) >= s.cfg.Patience:
				r.hopeless = true // until it gets on
			default:
				all = false
			}
		})
	}
	return all
}

// followed tells whether a partition has other replicas than this node's.
func (rt *Runtime) followed(p ids.PartitionID) bool { return len(rt.state.Partitions[p].Replicas) > 1 }

// retains tells whether something is kept of what a view reads until the view's state is durable: a log that is truncated,
// or the output of a stage.
func (v *view) retains() bool {
	for _, s := range v.sources {
		if s.log == nil || s.log.truncated() {
			return true
		}
	}
	return false
}

// heldBack tells whether primaries may wait for this node to make durable what it was shipped.
func (in *intake) heldBack(views map[ids.StreamID]*view) bool {
	in.mu.RLock()
	defer in.mu.RUnlock()
	for _, part := range in.parts {
		part.mu.Lock()
		for k, l := range part.lanes {
			if v := views[k.view]; v != nil && !l.mark.copying && l.mark.tick > l.durable && v.retains() {
				part.mu.Unlock()
				return true
			}
		}
		part.mu.Unlock()
	}
	return false
}
