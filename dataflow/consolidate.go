package dataflow

import (
	"math"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/record"
)

// consolidator adds up the weights of equal rows.
type consolidator struct {
	table   *groupTable
	cols    []int
	weights []int64
}

// newConsolidator returns one for rows of schema s. Exact tells equal values of different form apart.
func newConsolidator(s record.Schema, exact bool) *consolidator {
	c := &consolidator{table: newGroupTable(s, exact)}
	for i := range s {
		c.cols = append(c.cols, i)
	}
	return c
}

func (c *consolidator) add(in *record.Delta) error {
	slots, err := c.table.assign(in, c.cols)
	if err != nil {
		return err
	}
	c.weights = extend(c.weights, c.table.n)
	if in.Weights == nil {
		for _, s := range slots {
			c.weights[s]++
		}
		return nil
	}
	for i, s := range slots {
		c.weights[s] += in.Weights[i]
	}
	return nil
}

// drain calls emit with the rows whose weight isn't zero, at most chunkRows at a time, and empties c.
func (c *consolidator) drain(out *record.Delta, emit func(*record.Delta) error) error {
	for lo := 0; lo < c.table.n; {
		out.Reset()
		out.Weights = out.Weights[:0]
		lo = c.rows(out, lo, chunkRows)
		if err := emit(out); err != nil {
			return err
		}
	}
	c.reset()
	return nil
}

// rows appends at most `most` rows from slot lo on to out and returns the slot after them.
func (c *consolidator) rows(out *record.Delta, lo, most int) int {
	hi := lo
	for ; hi < c.table.n && most > 0; hi++ {
		if w := c.weights[hi]; w != 0 {
			out.Weights = append(out.Weights, w)
			most--
		} else if hi > lo {
			break
		} else {
			lo++
		}
	}
	c.table.appendKeys(out.Cols, lo, hi)
	out.N = len(out.Weights)
	return hi
}

func (c *consolidator) reset() {
	c.weights = shrink(c.weights, c.table.n)
	c.table.reset()
}

// shrink returns s without elements, for a use like the last one, which needed n.
func shrink[T any](s []T, n int) []T {
	if cap(s) > 4*n+chunkRows {
		return nil
	}
	return s[:0]
}

// sink gathers what leaves the stage.
type sink struct {
	out    *record.Delta
	merge  *consolidator // nil: rows are distinct already, or in an order, or needn't be distinct
	taken  bool          // out was handed out
	signed bool          // a weight other than 1 was seen
	last   int           // rows of the last tick
	schema record.Schema
	kept   []int64 // memory for weights
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
	s.taken, s.signed = false, false
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
