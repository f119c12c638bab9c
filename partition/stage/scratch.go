package stage

import (
	"time"

	"github.com/millrace/millrace/record"
)

// Between two chunks a source keeps what it works in: its fragment with the columns that its operators fill, the splitter,
// the decoder, buffers. Thousands of views would need more for that than for their state. So it is counted, and kept only
// while all sources together stay within ScratchBytes; a source beyond that makes it anew for each chunk. Those that have
// had nothing to read for a while give theirs back, for others to keep.

// scratchRest is how long a source keeps its scratch without reading.
const scratchRest = 5 * time.Second

// leastScratch is about what a fragment takes that has seen no rows, in bytes.
const leastScratch = 32 << 10

// keepScratch keeps what a source works in after a chunk at the end of which it is between two ticks, or lets go of it.
// Called by run with mu held.
func (s *source) keepScratch(now time.Time) {
	s.worked.Store(now.UnixNano())
	size := int64(leastScratch + cap(s.buf))
	for _, sc := range s.scans {
		if sc.in != nil {
			size += 3 * capacity(sc.in) // about: the operators fill such columns too, and groups have keys and values
		}
	}
	if s.rt.scratch.Add(size-s.scratch.Swap(size)) > s.rt.cfg.ScratchBytes {
		s.dropScratch()
	}
}

// dropScratch lets go of it. Called by run with mu held, between two chunks.
func (s *source) dropScratch() {
	s.opBase = append(s.opBase[:0], s.opRows...)
	s.frag, s.split, s.buf = nil, nil, nil
	s.shared, s.sharedAt = nil, nil
	for _, sc := range s.scans {
		if sc.in != nil && sc.in.N == 0 {
			sc.dec, sc.in = nil, nil
		}
	}
	s.rt.scratch.Add(-s.scratch.Swap(0))
}

// restScratch makes the sources that haven't read for a while give back what they work in.
func (rt *Runtime) restScratch(now time.Time) {
	for _, s := range rt.all.Load().sources {
		if s.scratch.Load() > 0 && now.UnixNano()-s.worked.Load() > int64(scratchRest) {
			s.rest.Store(true)
			rt.sched.wake(s)
		}
	}
}

// capacity is what a delta has room for, in bytes.
func capacity(d *record.Delta) int64 {
	n := 8 * cap(d.Weights)
	for i := range d.Cols {
		c := &d.Cols[i]
		n += cap(c.Validity) + cap(c.Bools) + 8*cap(c.Ints) + 8*cap(c.Floats) + 16*cap(c.Intervals) + 4*cap(c.Offsets) + cap(c.Bytes)
	}
	return int64(n)
}
