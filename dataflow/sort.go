package dataflow

import (
	"bytes"
	"cmp"
	"math"
	"slices"

	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// sorter puts the rows of a tick in order, drops the first Offset and keeps Limit. For ad-hoc queries: what it emits
// is the order of that tick's rows, not a change to what it emitted before.
type sorter struct {
	keys          []plan.SortKey
	limit, offset int64
	merge         *consolidator
	out           *link
	all           *record.Delta
}

func newSort(b *builder) (operator, error) {
	if err := b.sameSchema(0); err != nil {
		return nil, err
	}
	s := b.op.Sort
	for _, k := range s.Keys {
		if err := b.column(k.Col, record.Unknown); err != nil {
			return nil, err
		}
	}
	b.out.ordered = true
	return &sorter{
		keys: s.Keys, limit: s.Limit, offset: max(0, s.Offset), out: b.out,
		merge: newConsolidator(b.in.schema, true), all: record.NewDelta(b.in.schema, 0),
	}, nil
}

// maxUnpruned is the number of distinct rows that a sort with a limit gathers before it drops those beyond the limit.
const maxUnpruned = 1 << 16

func (s *sorter) push(in *record.Delta) error {
	if s.limit == 0 {
		return nil
	}
	if err := s.merge.add(in); err != nil {
		return err
	}
	keep := s.limit + s.offset
	if s.limit < 0 || keep < 0 || keep > math.MaxInt32 || int64(s.merge.table.n) < max(maxUnpruned, 2*keep) {
		return nil
	}
	// Rows beyond the limit can only come back if those before them are taken back.
	for _, w := range s.merge.weights {
		if w < 0 {
			return nil
		}
	}
	order := s.sort()
	rest := record.NewDelta(s.out.schema, 0)
	rest.Weights = []int64{}
	for _, i := range order {
		if keep <= 0 {
			break
		}
		rest.AppendRow(s.all, int(i), s.all.Weights[i])
		keep -= s.all.Weights[i]
	}
	s.all = record.NewDelta(s.out.schema, 0)
	var part record.Delta
	for lo := 0; lo < rest.N; lo += chunkRows {
		sliceDelta(&part, rest, lo, min(lo+chunkRows, rest.N))
		if err := s.merge.add(&part); err != nil {
			return err
		}
	}
	return nil
}

// sort moves the gathered rows to s.all and returns their order.
func (s *sorter) sort() []int32 {
	s.all.Reset()
	s.all.Weights = s.all.Weights[:0]
	for lo := 0; lo < s.merge.table.n; {
		lo = s.merge.rows(s.all, lo, s.merge.table.n)
	}
	s.merge.reset()
	order := make([]int32, s.all.N)
	for i := range order {
		order[i] = int32(i)
	}
	slices.SortFunc(order, func(a, b int32) int { return s.compare(int(a), int(b)) })
	return order
}

func (s *sorter) compare(a, b int) int {
	for _, k := range s.keys {
		c := &s.all.Cols[k.Col]
		an, bn := c.Null(a), c.Null(b)
		if an || bn {
			if an == bn {
				continue
			}
			if an == k.NullsFirst {
				return -1
			}
			return 1
		}
		if d := compareAt(c, a, c, b); d != 0 {
			if k.Desc {
				return -d
			}
			return d
		}
	}
	for i := range s.all.Cols {
		if d := compareForm(&s.all.Cols[i], a, b); d != 0 {
			return d
		}
	}
	return 0
}

func (s *sorter) endTick(ids.Tick, Marks) error {
	order := s.sort()
	out := record.NewDelta(s.out.schema, min(len(order), chunkRows))
	out.Weights = []int64{}
	skip, left := s.offset, s.limit
	for _, i := range order {
		w := s.all.Weights[i]
		if w > 0 {
			n := min(skip, w)
			skip -= n
			w -= n
			if s.limit >= 0 {
				w = min(w, left)
				left -= w
			}
		}
		if w == 0 {
			continue
		}
		out.AppendRow(s.all, int(i), w)
		if out.N == chunkRows {
			if err := s.out.emit(out); err != nil {
				return err
			}
			out.Reset()
			out.Weights = []int64{}
		}
	}
	s.all = record.NewDelta(s.out.schema, 0)
	return s.out.emit(out)
}

// compareForm orders values i and j of c by value, NULLs last, then by form, so that it is 0 only for the same value.
func compareForm(c *record.Column, i, j int) int {
	if c.Null(i) || c.Null(j) {
		switch {
		case c.Null(i) == c.Null(j):
			return 0
		case c.Null(j):
			return -1
		}
		return 1
	}
	if d := compareAt(c, i, c, j); d != 0 {
		return d
	}
	switch c.Type {
	case record.Numeric, record.JSONB:
		return bytes.Compare(c.At(i), c.At(j))
	case record.Double:
		return cmp.Compare(floatBits(c.Floats[i]), floatBits(c.Floats[j]))
	case record.IntervalT:
		a, b := c.Intervals[i], c.Intervals[j]
		return cmp.Or(cmp.Compare(a.Months, b.Months), cmp.Compare(a.Days, b.Days))
	}
	if c.Type.HasForms() {
		return bytes.Compare(c.At(i), c.At(j))
	}
	return 0
}
