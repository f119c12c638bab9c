package dataflow

import (
	"slices"

	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/record"
)

// maxGroupingSets bounds the sets of an Expand: CUBE of 12 columns.
const maxGroupingSets = 4096

// expand repeats each row for each grouping set, the key columns outside of the set NULL.
type expand struct {
	sets  []expandSet
	nulls []record.Column // a column of NULLs for each key
	keys  []int
	out   *link
	rows  record.Delta
	bits  record.Column
}

// expandSet is one grouping set: which of the keys it leaves out, and its value of the grouping column.
type expandSet struct {
	left []int // indices into keys
	id   int64
}

func newExpand(b *builder) (operator, error) {
	p := b.op.Expand
	if err := b.sameSchema(1); err != nil {
		return nil, err
	}
	n := len(b.in.schema)
	if t := b.out.schema[n].Type; t != record.BigInt {
		return nil, defect("operator %d writes the grouping column as %s", b.index, t)
	}
	if len(p.Keys) > 31 || len(p.Sets) == 0 || len(p.Sets) > maxGroupingSets {
		return nil, defect("operator %d expands %d columns to %d sets; at most 31 and 1 to %d", b.index, len(p.Keys), len(p.Sets), maxGroupingSets)
	}
	e := &expand{keys: p.Keys, out: b.out, bits: record.NewColumn(record.BigInt, 0)}
	for _, k := range p.Keys {
		if err := b.column(k, record.Unknown); err != nil {
			return nil, err
		}
		e.nulls = append(e.nulls, record.NewColumn(b.in.schema[k].Type, 0))
	}
	seen := map[int64]int64{}
	for _, set := range p.Sets {
		var s expandSet
		for k := range p.Keys {
			if s.id <<= 1; !slices.Contains(set, k) {
				s.id |= 1
				s.left = append(s.left, k)
			}
		}
		for _, k := range set {
			if k < 0 || k >= len(p.Keys) {
				return nil, defect("operator %d has key %d of %d in a set", b.index, k, len(p.Keys))
			}
		}
		again := seen[s.id]
		seen[s.id]++
		s.id |= again << len(p.Keys)
		e.sets = append(e.sets, s)
	}
	if b.in.distinct != nil && !slices.ContainsFunc(p.Keys, func(k int) bool { return slices.Contains(b.in.distinct, k) }) {
		b.out.distinct = append(slices.Clone(b.in.distinct), n)
	}
	return e, nil
}

func (e *expand) push(in *record.Delta) error {
	for k := range e.nulls {
		for e.nulls[k].N < in.N {
			e.nulls[k].AppendNull()
		}
	}
	for _, s := range e.sets {
		e.rows.Cols = append(e.rows.Cols[:0], in.Cols...)
		for _, k := range s.left {
			e.rows.Cols[e.keys[k]] = sliceColumn(&e.nulls[k], 0, in.N)
		}
		e.bits.Ints = resize(e.bits.Ints, in.N)
		fill(e.bits.Ints, s.id)
		e.bits.N = in.N
		e.rows.Cols = append(e.rows.Cols, e.bits)
		e.rows.N, e.rows.Weights = in.N, in.Weights
		if err := e.out.emit(&e.rows); err != nil {
			return err
		}
	}
	return nil
}

func (e *expand) endTick(ids.Tick, Marks) error {
	e.rows.Cols = e.rows.Cols[:0]
	return nil
}
