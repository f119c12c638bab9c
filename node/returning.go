package node

import (
	"slices"

	"github.com/millrace/millrace/dataflow"
	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/record"
	"github.com/millrace/millrace/sql"
)

// returnedRows is what RETURNING gives, kept until the statement has taken effect.
type returnedRows struct {
	ch     *sql.Change
	tick   ids.Tick
	memory *holding
	rows   []returnedRow
	seen   int64 // rows of a stream so far
}

// returnedRow is row i of d; at is its place among the rows that the statement found or was given.
type returnedRow struct {
	at int64
	d  *record.Delta
	i  int
}

// add keeps the rows of d, whose first column is their place, and whose others are RETURNING's.
func (r *returnedRows) add(d *record.Delta) error {
	if d == nil || d.N == 0 {
		return nil
	}
	if err := r.memory.add(deltaBytes(d)); err != nil {
		return err
	}
	rest := &record.Delta{N: d.N, Cols: d.Cols[1:]}
	for i := range d.N {
		r.rows = append(r.rows, returnedRow{d.Cols[0].Ints[i], rest, i})
	}
	return nil
}

// inserted computes RETURNING for rows that go into a stream.
func (r *returnedRows) inserted(d *record.Delta) error {
	if r.ch.Returning == nil {
		return nil
	}
	in := record.NewDelta(r.ch.Returning.Input, d.N)
	for i := range d.N {
		for range d.Weight(i) {
			appendOrdered(in, r.seen, &d.Cols, i)
			r.seen++
		}
	}
	out, err := compute(r.ch.Returning, in, r.tick)
	if err != nil {
		return err
	}
	return r.add(out)
}

// appendOrdered appends a row's place and the row, as far as d has columns for it.
func appendOrdered(d *record.Delta, at int64, cols *[]record.Column, i int) {
	d.Cols[0].AppendInt(at)
	for c := range d.Cols[1:] {
		d.Cols[1+c].AppendFrom(&(*cols)[c], i)
	}
	d.N++
}

// tell writes the rows in their order.
func (r *returnedRows) tell(out output) error {
	if r.ch.Returned == nil || out == nil {
		return nil
	}
	slices.SortStableFunc(r.rows, func(a, b returnedRow) int { return int(a.at - b.at) })
	rows := record.NewDelta(r.ch.Returned, len(r.rows))
	for _, row := range r.rows {
		rows.AppendRow(row.d, row.i, 1)
	}
	if err := out.schema(r.ch.Returned); err != nil {
		return err
	}
	return out.rows(rows)
}

// compute runs r over rows; nil: there are none.
func compute(r *sql.RowExprs, rows *record.Delta, tick ids.Tick) (*record.Delta, error) {
	frag, err := dataflow.New(r.Ops(), dataflow.Env{Mode: dataflow.AdHoc, NowTick: tick})
	if err != nil {
		return nil, err
	}
	if err := frag.Push(0, rows); err != nil {
		return nil, err
	}
	return frag.EndTick(tick, dataflow.NoMarks)
}
