package dataflow

import (
	"math"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/record"
)

// gathered is rows of one tick, kept until it ends; of columns that nobody needs nothing.
type gathered struct {
	rows   record.Delta // Weights is always set
	schema record.Schema
	need   []bool
	peak   int // rows of a usual tick
}

func newGathered(s record.Schema, need []bool) *gathered {
	g := &gathered{schema: s, need: need}
	g.rows = *record.NewDelta(s, 0)
	g.rows.Weights = []int64{}
	return g
}

// add appends all rows of in.
func (g *gathered) add(in *record.Delta) error {
	for c := range g.rows.Cols {
		if !g.need[c] {
			continue
		}
		if err := checkRoom(&g.rows.Cols[c], &in.Cols[c], g.schema[c].Name); err != nil {
			return err
		}
		appendColumn(&g.rows.Cols[c], &in.Cols[c])
	}
	g.weigh(in, nil)
	return nil
}

// pick appends the given rows of in.
func (g *gathered) pick(in *record.Delta, rows []int32) error {
	switch len(rows) {
	case 0:
		return nil
	case in.N:
		return g.add(in)
	}
	for c := range g.rows.Cols {
		if !g.need[c] {
			continue
		}
		if err := checkRoom(&g.rows.Cols[c], &in.Cols[c], g.schema[c].Name); err != nil {
			return err
		}
		for _, i := range rows {
			g.rows.Cols[c].AppendFrom(&in.Cols[c], int(i))
		}
	}
	g.weigh(in, rows)
	return nil
}

func (g *gathered) weigh(in *record.Delta, rows []int32) {
	switch {
	case rows != nil:
		for _, i := range rows {
			g.rows.Weights = append(g.rows.Weights, in.Weight(int(i)))
		}
	case in.Weights != nil:
		g.rows.Weights = append(g.rows.Weights, in.Weights...)
	default:
		n := len(g.rows.Weights)
		g.rows.Weights = append(g.rows.Weights, make([]int64, in.N)...)
		fill(g.rows.Weights[n:], 1)
	}
	g.rows.N = len(g.rows.Weights)
}

// checkRoom checks that all of src fits behind the values of dst.
func checkRoom(dst, src *record.Column, name string) error {
	if !dst.Type.Varlen() {
		return nil
	}
	if n := len(dst.Bytes) + int(src.Offsets[src.N]-src.Offsets[0]); n > math.MaxInt32 {
		return fault.New(fault.TooLarge, "the rows of one tick have more than 2 GiB in column %s", name)
	}
	return nil
}

// reset forgets the rows, and gives memory back after an unusually large tick.
func (g *gathered) reset() {
	n := g.rows.N
	if g.peak > 4*n+16*chunkRows {
		g.rows = *record.NewDelta(g.schema, 0)
		g.rows.Weights = []int64{}
		g.peak = n
		return
	}
	g.peak = max(n, g.peak-g.peak/8)
	g.rows.Reset()
	for c := range g.rows.Cols {
		if cap(g.rows.Cols[c].Bytes) > 4*maxKeptBytes {
			trim(&g.rows.Cols[c])
		}
	}
}

// slotOrder is rows in the order of their slots in a groupTable.
type slotOrder struct {
	slots  []int32
	starts []int32
	order  []int32
}

// assign gives the rows of in, any number of them, their slots by columns cols.
func (s *slotOrder) assign(t *groupTable, in *record.Delta, cols []int) error {
	s.slots = resize(s.slots, in.N)
	if len(cols) == 0 {
		t.n = 1
		clear(s.slots)
		return nil
	}
	var part record.Delta
	for lo := 0; lo < in.N; lo += chunkRows {
		hi := min(lo+chunkRows, in.N)
		sliceDelta(&part, in, lo, hi)
		slots, err := t.assign(&part, cols)
		if err != nil {
			return err
		}
		copy(s.slots[lo:hi], slots)
	}
	return nil
}

// sort orders the rows, n being the number of slots.
func (s *slotOrder) sort(n int) {
	s.starts = resize(s.starts, n+2)
	clear(s.starts)
	for _, slot := range s.slots {
		s.starts[slot+2]++
	}
	for i := 2; i < n+2; i++ {
		s.starts[i] += s.starts[i-1]
	}
	s.order = resize(s.order, len(s.slots))
	for i, slot := range s.slots {
		s.order[s.starts[slot+1]] = int32(i)
		s.starts[slot+1]++
	}
}

// rows returns the rows of a slot.
func (s *slotOrder) rows(slot int) []int32 { return s.order[s.starts[slot]:s.starts[slot+1]] }

// reset forgets the rows.
func (s *slotOrder) reset() {
	n := len(s.slots)
	s.slots, s.order = shrink(s.slots, n), shrink(s.order, n)
	s.starts = shrink(s.starts, len(s.starts))
}

// emitter gathers rows that an operator writes one at a time and passes them on in chunks.
type emitter struct {
	rows *record.Delta // Weights is always set
	out  *link
}

func newEmitter(out *link) *emitter {
	e := &emitter{record.NewDelta(out.schema, 0), out}
	e.rows.Weights = []int64{}
	return e
}

// wrote counts one more row, which the caller has appended to the columns.
func (e *emitter) wrote(weight int64) error {
	e.rows.Weights = append(e.rows.Weights, weight)
	if e.rows.N++; e.rows.N < chunkRows {
		return nil
	}
	return e.flush()
}

// flush passes on what there is.
func (e *emitter) flush() error {
	err := e.out.emit(e.rows)
	e.rows.Reset()
	return err
}

// finish is flush at the end of a tick.
func (e *emitter) finish() error {
	err := e.flush()
	for c := range e.rows.Cols {
		trim(&e.rows.Cols[c])
	}
	return err
}

// allNeeded says that every column of s is needed.
func allNeeded(s record.Schema) []bool {
	need := make([]bool, len(s))
	fill(need, true)
	return need
}

// columnsOf returns 0 to n-1.
func columnsOf(n int) []int {
	cols := make([]int, n)
	for c := range cols {
		cols[c] = c
	}
	return cols
}
