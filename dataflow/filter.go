package dataflow

import (
	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/record"
)

// filter passes the rows for which its predicate is true.
type filter struct {
	pred expression
	out  *link
	rows []int32
	kept record.Delta
}

func newFilter(b *builder) (operator, error) {
	if err := b.sameSchema(0); err != nil {
		return nil, err
	}
	pred, err := compile(&b.op.Filter.Pred, b.in.schema, b.env, b.errs)
	if err != nil {
		return nil, err
	}
	if pred.typ() != record.Boolean {
		return nil, defect("operator %d filters by %s", b.index, pred.typ())
	}
	b.out.distinct, b.out.ordered = b.in.distinct, b.in.ordered
	return &filter{pred: pred, out: b.out}, nil
}

func (f *filter) push(in *record.Delta) error {
	v := f.pred.eval(in)
	if v.scalar() {
		if v.null(0) || !v.col.Bools[0] {
			return nil
		}
		return f.out.emit(in)
	}
	f.rows = trueRows(f.rows[:0], v.col)
	if len(f.rows) == in.N {
		return f.out.emit(in)
	}
	gatherDelta(&f.kept, in, f.rows, f.out.need)
	return f.out.emit(&f.kept)
}

// trueRows appends the rows at which c is true.
func trueRows(rows []int32, c *record.Column) []int32 {
	if c.Validity == nil {
		for i, v := range c.Bools[:c.N] {
			if v {
				rows = append(rows, int32(i))
			}
		}
		return rows
	}
	for i, v := range c.Bools[:c.N] {
		if v && c.Validity.Valid(i) {
			rows = append(rows, int32(i))
		}
	}
	return rows
}

func (f *filter) endTick(ids.Tick, Marks) error {
	f.pred.trim()
	for c := range f.kept.Cols {
		trim(&f.kept.Cols[c])
	}
	return nil
}
