package stage

import (
	"sync/atomic"
	"time"

	"github.com/millrace/millrace/internal/ids"
)

// reader is one consumer of a source: a group of targets of this node, or of another one behind a connection.
type reader struct {
	consumer int // among the source's
	targets  []ids.PartitionID
	want     []bool
	stops    []ids.Offset // see Attach
	window   int64        // bytes
	durable  ids.Offset   // at attach

	// deliver takes a step and what it costs; it must not block. refused is called once when the source goes away.
	deliver func(st *step, cost int64)
	refused func(reason string, failed bool)

	outstanding atomic.Int64 // bytes delivered and not yet released

	source *source

	// guarded by the source's mu
	pos     position      // after the last step that was delivered
	through atomic.Uint64 // pos.through, of what was handed over
	scan    *scan
	stalled time.Time // since when it has been full
	closed  bool
}

func newReader(s *source, consumer int, targets []ids.PartitionID, rows bool, pos position, window int64) *reader {
	r := &reader{source: s, consumer: consumer, targets: targets, want: make([]bool, s.view.partitions), pos: pos, window: window}
	for _, t := range targets {
		r.want[t] = rows
	}
	r.through.Store(uint64(pos.through))
	return r
}

func (r *reader) full() bool { return r.outstanding.Load() >= r.window }

func (r *reader) halfEmpty() bool { return r.outstanding.Load() <= r.window/2 }

// take delivers what a step has for this reader. Called with the source's mu held.
func (r *reader) take(st *step, source ids.PartitionID) {
	if r.closed {
		return
	}
	mine := *st
	mine.parts = nil
	cost := int64(stepBytes)
	for _, p := range st.parts {
		if r.want[p.target] {
			mine.parts = append(mine.parts, p)
			cost += p.bytes
		}
	}
	if !r.want[source] {
		mine.counts.Late, mine.counts.Errors, mine.counts.LastError = 0, 0, ""
	}
	r.pos = mine.pos
	r.outstanding.Add(cost)
	r.deliver(&mine, cost)
	r.through.Store(uint64(mine.pos.through))
}

// release gives back what processed steps have cost, and wakes the source if the reader held it back.
func (r *reader) release(n int64) {
	after := r.outstanding.Add(-n)
	before := after + n
	if before >= r.window && after < r.window || before > r.window/2 && after <= r.window/2 {
		r.source.rt.sched.wake(r.source)
	}
}

// stopsOf returns the offsets at which a step must end for any of the readers.
func stopsOf(readers []*reader) map[ids.Offset]bool {
	var out map[ids.Offset]bool
	for _, r := range readers {
		for _, o := range r.stops {
			if out == nil {
				out = map[ids.Offset]bool{}
			}
			out[o] = true
		}
	}
	return out
}
