package dataflow

import (
	"slices"

	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// project computes one column per expression.
type project struct {
	exprs  []expression
	out    *link
	rows   record.Delta
	spread []record.Column // of scalars, one value a row
}

func newProject(b *builder) (operator, error) {
	exprs := b.op.Project.Exprs
	if len(exprs) != len(b.out.schema) {
		return nil, defect("operator %d has %d expressions for %d columns", b.index, len(exprs), len(b.out.schema))
	}
	p := &project{out: b.out, spread: make([]record.Column, len(exprs))}
	p.rows.Cols = make([]record.Column, len(exprs))
	for i := range exprs {
		e, err := compile(&exprs[i], b.in.schema, b.env, b.errs)
		if err != nil {
			return nil, err
		}
		if e.typ() != b.out.schema[i].Type {
			return nil, defect("operator %d computes column %d (%s) as %s", b.index, i, b.out.schema[i].Type, e.typ())
		}
		p.exprs = append(p.exprs, e)
	}
	b.out.ordered = b.in.ordered
	b.out.distinct = projected(b.in.distinct, exprs)
	return p, nil
}

// projected returns where columns `distinct` of the input are in the output, nil unless all of them are.
func projected(distinct []int, exprs []plan.Expr) []int {
	if distinct == nil {
		return nil
	}
	out := make([]int, 0, len(distinct))
	for _, c := range distinct {
		at := slices.IndexFunc(exprs, func(e plan.Expr) bool { return e.Kind == plan.ExprCol && e.Col == c })
		if at < 0 {
			return nil
		}
		out = append(out, at)
	}
	return out
}

func (p *project) push(in *record.Delta) error {
	for i, e := range p.exprs {
		v := e.eval(in)
		if v.scalar() {
			broadcast(&p.spread[i], v.col, in.N)
			v.col = &p.spread[i]
		}
		p.rows.Cols[i] = *v.col
	}
	p.rows.N, p.rows.Weights = in.N, in.Weights
	return p.out.emit(&p.rows)
}

func (p *project) endTick(ids.Tick, Marks) error {
	for i, e := range p.exprs {
		e.trim()
		trim(&p.spread[i])
		p.rows.Cols[i] = record.Column{}
	}
	return nil
}

// broadcast sets dst to n times the one value of src.
func broadcast(dst, src *record.Column, n int) {
	dst.Type = src.Type
	dst.Reset()
	if src.Null(0) {
		prepare(dst, n)
		dst.Validity = make(record.Bitmap, (n+7)>>3)
		zeroNulls(dst)
		if dst.Type.Varlen() {
			clear(dst.Offsets)
		}
		return
	}
	prepare(dst, n)
	switch src.Type.Layout() {
	case record.LayoutBools:
		fill(dst.Bools, src.Bools[0])
	case record.LayoutInts:
		fill(dst.Ints, src.Ints[0])
	case record.LayoutFloats:
		fill(dst.Floats, src.Floats[0])
	case record.LayoutIntervals:
		fill(dst.Intervals, src.Intervals[0])
	case record.LayoutBytes:
		v := src.At(0)
		for i := range n {
			dst.Bytes = append(dst.Bytes, v...)
			dst.Offsets[i+1] = int32(len(dst.Bytes))
		}
	}
}

func fill[T any](s []T, v T) {
	for i := range s {
		s[i] = v
	}
}
