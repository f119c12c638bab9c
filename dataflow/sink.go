package dataflow

import (
	"math"
	"slices"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/record"
)

// sink gathers what leaves the stage.
type sink struct {
	out    *record.Delta
	merge  *consolidator // nil: rows are distinct already, or in an order, or needn't be distinct
	taken  bool          // out was handed out
	signed bool          // a weight other than 1 was seen
	last   int           // rows of the last tick
	schema record.Schema
	kept   []int64 // memory for weights
	comes  int     // rows that were told to come in the tick
	came   int     // in the last tick for which that was known
	rows   int     // that became of them
	sizes  []int   // bytes of their varlen columns
}

func newSink(l *link, appendOnly bool) *sink {
	s := &sink{out: record.NewDelta(l.schema, 0), schema: l.schema}
	if l.distinct == nil && !l.ordered && !appendOnly {
		s.merge = newConsolidator(l.schema, true)
	}
	return s
}

// begin forgets what was handed out.
func (s *sink) begin() {
	if !s.taken {
		return
	}
	s.taken, s.signed, s.comes = false, false, 0
	if s.out == nil {
		s.out = record.NewDelta(s.schema, 0)
		return
	}
	if s.last > 4*s.out.N+16*chunkRows {
		s.last, s.out = s.out.N, record.NewDelta(s.schema, 0)
	} else {
		s.last = max(s.out.N, s.last-s.last/8)
	}
	s.out.Reset()
	if s.out.Weights != nil {
		s.kept, s.out.Weights = shrink(s.out.Weights, s.last), nil
	}
	for i := range s.out.Cols {
		trim(&s.out.Cols[i])
	}
}

// detach gives away what take returned; a copy, if that has much more room than it needs.
func (s *sink) detach() *record.Delta {
	out := s.out
	used, room := 0, 0
	for i := range out.Cols {
		c := &out.Cols[i]
		used += len(c.Bools) + 8*len(c.Ints) + 8*len(c.Floats) + 16*len(c.Intervals) + 4*len(c.Offsets) + len(c.Bytes)
		room += cap(c.Bools) + 8*cap(c.Ints) + 8*cap(c.Floats) + 16*cap(c.Intervals) + 4*cap(c.Offsets) + cap(c.Bytes)
	}
	if room > used+used/2 {
		own := record.NewDelta(s.schema, out.N)
		own.N = out.N
		for i := range own.Cols {
			own.Cols[i].Bytes = make([]byte, 0, len(out.Cols[i].Bytes))
			appendColumn(&own.Cols[i], &out.Cols[i])
		}
		own.Weights = slices.Clone(out.Weights)
		return own
	}
	if out.Weights != nil {
		s.kept = nil // it may be the same memory
	}
	s.last = max(out.N, s.last-s.last/8)
	s.out = nil
	return out
}

// leastExpected is how many rows must be coming for room to be made before they are there.
const leastExpected = 256

// expect makes room for what becomes of n rows, if it is as much as of those before.
func (s *sink) expect(n int) {
	s.begin()
	s.comes += n
	if s.merge != nil || n < leastExpected || s.out.N > 0 || s.came == 0 {
		return
	}
	scaled := func(was int) int {
		would := int(int64(was) * int64(n) / int64(s.came))
		return min(would+would/16, math.MaxInt32)
	}
	for i := range s.out.Cols {
		reserve(&s.out.Cols[i], scaled(s.rows), scaled(s.sizes[i]))
	}
}

// learn notes what became of the rows of a tick.
func (s *sink) learn() {
	if s.comes < leastExpected {
		return
	}
	s.came, s.rows, s.sizes = s.comes, s.out.N, s.sizes[:0]
	for i := range s.out.Cols {
		s.sizes = append(s.sizes, len(s.out.Cols[i].Bytes))
	}
}

// reserve makes room for n values of an empty column, and their bytes.
func reserve(c *record.Column, n, bytes int) {
	switch c.Type.Layout() {
	case record.LayoutBools:
		c.Bools = slices.Grow(c.Bools, n)
	case record.LayoutInts:
		c.Ints = slices.Grow(c.Ints, n)
	case record.LayoutFloats:
		c.Floats = slices.Grow(c.Floats, n)
	case record.LayoutIntervals:
		c.Intervals = slices.Grow(c.Intervals, n)
	case record.LayoutBytes:
		c.Offsets, c.Bytes = slices.Grow(c.Offsets, n), slices.Grow(c.Bytes, bytes)
	}
}

func (s *sink) push(in *record.Delta) error {
	if s.merge != nil {
		return s.merge.add(in)
	}
	return s.append(in)
}

func (s *sink) append(in *record.Delta) error {
	out := s.out
	for c := range out.Cols {
		if out.Cols[c].Type.Varlen() {
			o := in.Cols[c].Offsets
			if n := len(out.Cols[c].Bytes) + int(o[in.N]-o[0]); n > math.MaxInt32 {
				return fault.New(fault.TooLarge, "the results of one tick have more than 2 GiB in column %s", s.schema[c].Name)
			}
		}
		appendColumn(&out.Cols[c], &in.Cols[c])
	}
	s.appendWeights(in)
	out.N += in.N
	return nil
}

func (s *sink) appendWeights(in *record.Delta) {
	if in.Weights == nil && s.out.Weights == nil {
		return
	}
	if s.out.Weights == nil {
		s.out.Weights = resize(s.kept, s.out.N)
		fill(s.out.Weights, 1)
	}
	if in.Weights != nil {
		s.out.Weights = append(s.out.Weights, in.Weights...)
		return
	}
	for range in.N {
		s.out.Weights = append(s.out.Weights, 1)
	}
}

func (s *sink) endTick(ids.Tick, Marks) error { return nil }

// take returns the rows of the tick.
func (s *sink) take() *record.Delta {
	s.taken = true
	if s.merge == nil {
		s.learn()
		return s.out
	}
	s.out.Weights = s.kept[:0:cap(s.kept)]
	for lo := 0; lo < s.merge.table.n; {
		lo = s.merge.rows(s.out, lo, s.merge.table.n)
	}
	s.merge.reset()
	for _, w := range s.out.Weights {
		if w != 1 {
			return s.out
		}
	}
	s.kept, s.out.Weights = s.out.Weights, nil
	return s.out
}
