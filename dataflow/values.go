package dataflow

import (
	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/record"
)

// values is constant rows. They appear at the first tick that the fragment ends, in partition 0 only.
//
// State: (op) is there once they have appeared.
type values struct {
	rows  [][]expression
	out   *link
	once  bool
	state State // nil: nothing is kept
	key   []byte
}

func newValues(b *builder) (operator, error) {
	v := &values{out: b.out, once: b.env.Partition != 0, key: []byte{b.index}}
	if b.keep && !v.once {
		v.state = b.env.State
		_, ok, err := v.state.Get(v.key)
		if err != nil {
			return nil, err
		}
		v.once = ok
	}
	for r, row := range b.op.Values.Rows {
		if len(row) != len(b.out.schema) {
			return nil, defect("operator %d has %d values in row %d for %d columns", b.index, len(row), r, len(b.out.schema))
		}
		var exprs []expression
		for i := range row {
			e, err := compile(&row[i], nil, b.env, b.errs)
			if err != nil {
				return nil, err
			}
			if e.typ() != b.out.schema[i].Type {
				return nil, defect("operator %d has %s in column %d (%s)", b.index, e.typ(), i, b.out.schema[i].Type)
			}
			exprs = append(exprs, e)
		}
		v.rows = append(v.rows, exprs)
	}
	return v, nil
}

func (v *values) push(*record.Delta) error { return defect("values get rows") }

// nextDue tells of rows that haven't appeared.
func (v *values) nextDue() (int64, bool) { return NoWatermark, !v.once }

func (v *values) endTick(ids.Tick, Marks) error {
	if v.once {
		return nil
	}
	v.once = true
	if v.state != nil {
		if err := v.state.Set(v.key, nil); err != nil {
			return err
		}
	}
	none := &record.Delta{N: 1}
	out := record.NewDelta(v.out.schema, min(len(v.rows), chunkRows))
	for _, row := range v.rows {
		for i, e := range row {
			out.Cols[i].AppendFrom(e.eval(none).col, 0)
		}
		if out.N++; out.N == chunkRows {
			if err := v.out.emit(out); err != nil {
				return err
			}
			out.Reset()
		}
	}
	return v.out.emit(out)
}
