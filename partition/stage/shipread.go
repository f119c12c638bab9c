package stage

import (
	"context"
	"slices"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/record"
	"github.com/millrace/millrace/storage"
)

// ReasonNotHeld is the reason of an error when this node doesn't have what is needed to answer without the others.
const ReasonNotHeld = "NOT_HELD"

// LocalTick returns the newest tick at which this node can read an object in all partitions without asking any other:
// a view, a stream, or of object 0 nothing, but all partitions have closed the tick. Read, and the logs up to that tick,
// then give exactly what the object was at it.
//
// Errors: Unavailable with reason NOT_HELD when the node holds no replica of some partition, or hasn't got there yet.
func (rt *Runtime) LocalTick(object ids.StreamID, isView bool) (ids.Tick, error) {
	inv := rt.all.Load()
	v := inv.views[object]
	if isView && v == nil {
		return 0, fault.New(fault.Unavailable, "view %d isn't known here", object).WithReason(ReasonNotHeld)
	}
	if isView {
		if err := v.failure(); err != nil {
			return 0, err
		}
	}
	least := maxTick
	for p := range ids.PartitionID(rt.board.partitions()) {
		var tick ids.Tick
		var why string
		if isView {
			tick, why = rt.localView(inv, v, p)
		} else {
			tick, why = rt.localLog(inv, p)
		}
		if tick == 0 {
			return 0, fault.New(fault.Unavailable, "this node can't answer alone: %s of partition %d", why, p).WithReason(ReasonNotHeld)
		}
		least = min(least, tick)
	}
	if least == maxTick {
		return 0, fault.New(fault.Unavailable, "this node doesn't know the cluster's state yet").WithReason(ReasonNotHeld)
	}
	return least, nil
}

// localLog is the newest tick up to which this node's log of a partition is complete; 0 with the reason when none is.
func (rt *Runtime) localLog(inv *inventory, p ids.PartitionID) (ids.Tick, string) {
	if slices.Contains(inv.primaries, p) {
		return rt.board.lastHere(p), "no tick was closed here"
	}
	in := &rt.ship.in
	in.mu.RLock()
	defer in.mu.RUnlock()
	part := in.parts[p]
	if part == nil || rt.committed == nil {
		return 0, "it holds no replica"
	}
	at, err := rt.committed(p)
	if err != nil {
		return 0, "it has no replica in sync"
	}
	part.mu.Lock()
	defer part.mu.Unlock()
	for i := len(part.closed) - 1; i >= 0; i-- {
		if part.closed[i].end <= at {
			return part.closed[i].tick, ""
		}
	}
	return 0, "it hasn't heard from the primary"
}

// localView is the newest tick at which a view can be read here in a partition.
func (rt *Runtime) localView(inv *inventory, v *view, p ids.PartitionID) (ids.Tick, string) {
	if len(v.targets) == 0 {
		return 0, "the view has failed"
	}
	if t := inv.find[targetKey{v.id, v.last().index, p}]; t != nil && t.group != nil {
		t.group.mu.Lock()
		defer t.group.mu.Unlock()
		if done := t.group.doneOf(t); done >= v.created {
			return done, ""
		}
		return 0, "the view's history isn't done"
	}
	in := &rt.ship.in
	in.mu.RLock()
	defer in.mu.RUnlock()
	part := in.parts[p]
	if part == nil {
		return 0, "it holds no replica"
	}
	part.mu.Lock()
	defer part.mu.Unlock()
	if l := part.lanes[laneKey{view: v.id, p: p}]; l != nil && l.readable(v) {
		return max(l.mark.tick, l.covered), ""
	}
	return 0, "it hasn't got the view's state"
}

// readable tells whether the lane is whole, and of this view.
func (l *inLane) readable(v *view) bool {
	return l.mark.tick > 0 && !l.mark.copying && l.mark.born == v.created
}

// shippedAt returns a snapshot of the store in which a lane is the view's state at tick, or can be taken back to it, and
// the tick above which the past is retained.
func (in *intake) shippedAt(v *view, p ids.PartitionID, tick ids.Tick) (*storage.Snapshot, ids.Tick, error) {
	in.mu.RLock()
	defer in.mu.RUnlock()
	none := fault.New(fault.NotPrimary, "partition %d of view %q is served by another node; retry", p, v.name)
	part := in.parts[p]
	if part == nil {
		return nil, 0, none
	}
	part.mu.Lock()
	defer part.mu.Unlock()
	l := part.lanes[laneKey{view: v.id, p: p}]
	if l == nil || !l.readable(v) || tick > max(l.mark.tick, l.covered) {
		return nil, 0, none
	}
	return in.rt.store.Snapshot(), l.mark.floor, nil
}

// readShipped is Read where another node is the primary; notHere is what to say if what was shipped doesn't do.
func (rt *Runtime) readShipped(ctx context.Context, id ids.StreamID, p ids.PartitionID, tick ids.Tick, prefix []record.Value,
	fn func(*record.Delta) error, notHere error) error {
	v := rt.all.Load().views[id]
	if v == nil || len(v.targets) == 0 || tick < v.created {
		return notHere
	}
	key, err := v.codec.prefixOf(prefix)
	if err != nil {
		return err
	}
	snap, floor, err := rt.ship.in.shippedAt(v, p, tick)
	if err != nil {
		return notHere
	}
	defer snap.Close()
	if tick < floor {
		return (&deltaLog{p: p, floor: floor}).notRetained(tick)
	}
	// A target that nothing runs, to read with; what blocks it has is looked up in the snapshot.
	t := &target{rt: rt, view: v, plan: v.last(), p: p}
	t.deltas = deltaLog{prefix: t.prefix(spaceDeltas), p: p, floor: floor, blocks: make([]deltaBlock, 1)}
	var later []tickDelta
	if v.codec.layout != appended {
		if later, err = t.later(snap, tick); err != nil {
			return err
		}
	}
	s, err := t.scanOf(snap, later, tick, key)
	if err != nil {
		return err
	}
	return s.drain(ctx, fn)
}
