package dataflow

import (
	"bytes"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/record"
)

// upsert makes changes of a table's rows out of its log: within a tick the last record of a key counts.
//
// State: (op, ordered encoding of the key) is the key's row, in record's row encoding.
type upsert struct {
	index   byte
	keys    []int
	deleted int
	offset  int
	cols    []int // of the row
	state   State
	errs    *faults
	rows    *gathered
	table   *groupTable
	last    []int32 // of each slot, the row with the highest offset
	kept    []int32
	emitter *emitter
	key     []byte
	row     []byte
}

var errNullKey = fault.SQL(fault.Invalid, "23502", "a record of a table has NULL in its primary key")

func newUpsert(b *builder) (operator, error) {
	p := b.op.Upsert
	width := len(b.out.schema)
	if len(b.in.schema) < width+2 {
		return nil, defect("operator %d has %d columns over an input of %d", b.index, width, len(b.in.schema))
	}
	for c, f := range b.out.schema {
		if err := b.column(c, f.Type); err != nil {
			return nil, err
		}
	}
	var keySchema record.Schema
	for _, k := range p.Keys {
		if k < 0 || k >= width {
			return nil, defect("operator %d has key column %d of %d", b.index, k, width)
		}
		keySchema = append(keySchema, b.in.schema[k])
	}
	if len(p.Keys) == 0 {
		return nil, defect("operator %d is an upsert without a key", b.index)
	}
	if err := b.column(p.Deleted, record.Boolean); err != nil {
		return nil, err
	}
	if err := b.column(p.Offset, record.BigInt); err != nil {
		return nil, err
	}
	b.out.distinct = columnsOf(width)
	return &upsert{
		index: b.index, keys: p.Keys, deleted: p.Deleted, offset: p.Offset, cols: columnsOf(width), state: b.env.State,
		errs: b.errs, rows: newGathered(b.in.schema, allNeeded(b.in.schema)), table: newGroupTable(keySchema, false),
		emitter: newEmitter(b.out),
	}, nil
}

func (u *upsert) push(in *record.Delta) error {
	u.kept = u.kept[:0]
	for i := range in.N {
		if in.Weight(i) <= 0 || in.Cols[u.offset].Null(i) {
			return defect("operator %d gets a record of a log that is taken back or has no offset", u.index)
		}
		null := false
		for _, k := range u.keys {
			null = null || in.Cols[k].Null(i)
		}
		if null {
			u.errs.leaveOut(errNullKey, 1)
		} else {
			u.kept = append(u.kept, int32(i))
		}
	}
	return u.rows.pick(in, u.kept)
}

func (u *upsert) endTick(ids.Tick, Marks) error {
	if err := u.findLast(); err != nil {
		return err
	}
	for _, i := range u.last {
		if err := u.apply(int(i)); err != nil {
			return err
		}
	}
	u.last = shrink(u.last, len(u.last))
	u.table.reset()
	u.rows.reset()
	return u.emitter.finish()
}

// findLast finds the last record of each key.
func (u *upsert) findLast() error {
	offsets := u.rows.rows.Cols[u.offset].Ints
	var part record.Delta
	for lo := 0; lo < u.rows.rows.N; lo += chunkRows {
		sliceDelta(&part, &u.rows.rows, lo, min(lo+chunkRows, u.rows.rows.N))
		slots, err := u.table.assign(&part, u.keys)
		if err != nil {
			return err
		}
		for i, s := range slots {
			switch row := int32(lo + i); {
			case int(s) >= len(u.last):
				u.last = append(u.last, row)
			case offsets[row] > offsets[u.last[s]]:
				u.last[s] = row
			}
		}
	}
	return nil
}

// apply makes record i the row of its key.
func (u *upsert) apply(i int) error {
	in := &u.rows.rows
	u.key = append(u.key[:0], u.index)
	for _, k := range u.keys {
		u.key = record.AppendOrdered(u.key, &in.Cols[k], i)
	}
	old, had, err := u.state.Get(u.key)
	if err != nil {
		return err
	}
	deleted := in.Cols[u.deleted]
	gone := deleted.Bools[i] && !deleted.Null(i)
	if !gone {
		u.row = record.AppendRow(u.row[:0], in, u.cols, i)
		if had && bytes.Equal(old, u.row) {
			return nil
		}
	}
	if had {
		if err := record.DecodeRow(old, u.emitter.rows, u.cols); err != nil {
			return err
		}
		if err := u.emitter.wrote(-1); err != nil {
			return err
		}
	}
	if gone {
		if had {
			return u.state.Delete(u.key)
		}
		return nil
	}
	if err := u.state.Set(u.key, u.row); err != nil {
		return err
	}
	for _, c := range u.cols {
		u.emitter.rows.Cols[c].AppendFrom(&in.Cols[c], i)
	}
	return u.emitter.wrote(1)
}
