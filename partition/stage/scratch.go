package stage

import (
	"time"

	"github.com/millrace/millrace/record"
)

// Between two chunks a source keeps what it works in: its fragment with the columns that its operators fill, the splitter,
// the decoder, buffers; and so does a target between two ticks. Thousands of views would need more for that than for their
// state. So it is counted, and kept only while all together stay within ScratchBytes; a source beyond that makes it anew for each chunk, and a
// target after each large tick. Those that have had nothing to do for a while give theirs back, for others to keep.

// scratchRest is how long a source or target keeps its scratch without work.
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

// smallScratch is what a target keeps in any case, in bytes.
const smallScratch = 128 << 10

// handled notes how large a tick was. Called with mu held.
func (t *target) handled(out *record.Delta) {
	t.largest = max(t.largest, t.pushed+deltaBytes(out))
	t.pushed = 0
}

// keepScratch keeps what a target works in after some work, or lets go of it. Called with mu held.
func (t *target) keepScratch(now time.Time) {
	t.worked = now
	size := 3 * t.largest // about: the operators fill such columns too, and groups have keys and values
	if t.closed || t.frag == nil || t.partial != 0 || size < min(smallScratch, t.rt.cfg.ScratchBytes) {
		return
	}
	total := t.rt.scratch.Add(size - t.scratch)
	if t.scratch = size; total > t.rt.cfg.ScratchBytes {
		t.dropScratch()
	}
}

// dropScratch lets go of it. Called with mu held, between two ticks.
func (t *target) dropScratch() {
	t.opBase = t.opRows()
	t.frag, t.largest = nil, 0
	t.rt.scratch.Add(-t.scratch)
	t.scratch = 0
}

// opRows is how many rows each operator has put out.
func (t *target) opRows() []uint64 {
	if t.frag == nil {
		return t.opBase
	}
	rows := t.frag.OpRows(nil)
	for i := range min(len(rows), len(t.opBase)) {
		rows[i] += t.opBase[i]
	}
	return rows
}

// rested makes a target that has had nothing to do for a while give back what it works in, and what it remembers of its state if there
// is no room for all of it. Called with mu held.
func (t *target) rested(now time.Time) {
	if now.Sub(t.worked) < scratchRest || t.partial != 0 {
		return
	}
	t.group.mu.Lock()
	working := t.working // a worker that begins now waits for mu
	t.group.mu.Unlock()
	if working {
		return
	}
	if t.scratch > 0 {
		t.dropScratch()
	}
	if t.warm && t.dirtyBytes() == 0 && t.rt.tight() {
		t.table.forget()
		t.countTables()
	}
}

// tight tells whether the targets' state takes more memory than it may.
func (rt *Runtime) tight() bool { return rt.tables.Load() > rt.cfg.CacheBytes+rt.cfg.DirtyBytes }

// capacity is what a delta has room for, in bytes.
func capacity(d *record.Delta) int64 {
	n := 8 * cap(d.Weights)
	for i := range d.Cols {
		c := &d.Cols[i]
		n += cap(c.Validity) + cap(c.Bools) + 8*cap(c.Ints) + 8*cap(c.Floats) + 16*cap(c.Intervals) + 4*cap(c.Offsets) + cap(c.Bytes)
	}
	return int64(n)
}
