package stage

import (
	"github.com/millrace/millrace/internal/ids"
	internalv1 "github.com/millrace/millrace/proto/internalv1"
)

// position is how far one source partition's log was read, or a stage's output there. It lies between two batches, or
// ticks.
type position struct {
	offset   ids.Offset // of the next record; of a stage's output the last tick in which it had any
	through  ids.Tick   // everything stamped up to this tick lies below offset; 0: in the history
	lastTick ids.Tick   // of the last batch below offset; 0: none
	hasEvent bool
	maxEvent int64 // highest event time below offset
}

// before orders positions of one source.
func (p position) before(q position) bool {
	return p.through < q.through || p.through == q.through && p.offset < q.offset
}

func (p position) proto() *internalv1.SourcePosition {
	return &internalv1.SourcePosition{
		Offset: uint64(p.offset), Through: uint64(p.through), LastTick: uint64(p.lastTick),
		HasEvent: p.hasEvent, MaxEvent: p.maxEvent,
	}
}

func positionOf(m *internalv1.SourcePosition) position {
	return position{
		offset: ids.Offset(m.GetOffset()), through: ids.Tick(m.GetThrough()), lastTick: ids.Tick(m.GetLastTick()),
		hasEvent: m.GetHasEvent(), maxEvent: m.GetMaxEvent(),
	}
}

// cut is the positions of all sources of a group at one tick: everything stamped up to tick lies below them, nothing
// stamped later does. With tick 0 it lies in the history, where every source has its own place.
type cut struct {
	tick       ids.Tick
	positions  []position
	watermarks []watermarkValue // of the streams that the marks depend on
}

// lowest returns the place from which a group can serve targets with these cuts: for each source the lowest position.
func lowest(cuts []cut, sources int) cut {
	out := cut{positions: make([]position, sources)}
	for i, c := range cuts {
		if i == 0 || c.tick < out.tick {
			out.tick, out.watermarks = c.tick, c.watermarks
		}
		for s := range out.positions {
			if i == 0 || c.positions[s].before(out.positions[s]) {
				out.positions[s] = c.positions[s]
			}
		}
	}
	return out
}

// deltaPosition is the position after a stage's output of the ticks up to through, of which last was the last one with
// any.
func deltaPosition(last, through ids.Tick) position {
	return position{offset: ids.Offset(last), through: through, lastTick: last}
}
