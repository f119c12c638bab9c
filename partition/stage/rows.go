package stage

import (
	"bytes"
	"encoding/binary"
	"errors"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
	"github.com/millrace/millrace/storage"
)

// rowLayout is how a view's rows are stored in its partitions.
type rowLayout uint8

const (
	// keyed: the ordered encoding of the plan's key columns -> the other columns (all, where a key column's encoding
	// doesn't tell equal values apart).
	keyed rowLayout = iota
	// weighted: the row's exact encoding -> its weight. For rows that may disappear and have no key.
	weighted
	// appended: tick, number -> weight and row. For rows that never disappear: nothing is read to write one.
	appended
)

// rowCodec turns rows into stored entries and back. It is immutable.
type rowCodec struct {
	layout  rowLayout
	schema  record.Schema
	key     []int // columns of the key, in the order of plan.Key
	rest    []int // columns in the value of a keyed row
	all     []int
	wholeIn bool // rest holds all columns
}

func newRowCodec(p *plan.Plan) *rowCodec {
	c := &rowCodec{schema: p.Output}
	for i := range p.Output {
		c.all = append(c.all, i)
	}
	switch {
	case p.Key != nil:
		c.layout, c.key = keyed, p.Key
		c.split()
	case appendOnly(p):
		c.layout = appended
	default:
		c.layout = weighted
	}
	return c
}

// split decides which columns a keyed row's value holds.
func (c *rowCodec) split() {
	inKey := make([]bool, len(c.schema))
	for _, i := range c.key {
		if c.schema[i].Type.HasForms() {
			c.rest, c.wholeIn = c.all, true
			return
		}
		inKey[i] = true
	}
	for i := range c.schema {
		if !inKey[i] {
			c.rest = append(c.rest, i)
		}
	}
}

// appendOnly tells whether no row of the plan's output ever disappears.
func appendOnly(p *plan.Plan) bool {
	for _, s := range p.Stages {
		for _, op := range s.Ops {
			switch op.Kind {
			case plan.OpFilter, plan.OpProject, plan.OpTumble, plan.OpInput, plan.OpHop, plan.OpDropLate, plan.OpUnnest, plan.OpExpand,
				plan.OpUnion, plan.OpValues:
			case plan.OpScan:
				if op.Scan == nil || op.Scan.Kind != plan.ScanStream {
					return false
				}
			default:
				return false
			}
		}
	}
	return true
}

// appendKey appends row i's key of layout keyed or weighted.
func (c *rowCodec) appendKey(dst []byte, d *record.Delta, i int) []byte {
	if c.layout == weighted {
		return record.AppendRow(dst, d, c.all, i)
	}
	for _, col := range c.key {
		dst = record.AppendOrdered(dst, &d.Cols[col], i)
	}
	return dst
}

// prefixOf returns the stored key, or its beginning, of rows whose first key columns have these values.
func (c *rowCodec) prefixOf(values []record.Value) ([]byte, error) {
	if len(values) == 0 {
		return nil, nil
	}
	if c.layout != keyed || len(values) > len(c.key) {
		return nil, fault.New(fault.Internal, "stage: a read by %d key columns of a view that has %d", len(values), len(c.key))
	}
	var out []byte
	for i, v := range values {
		if v.Type != c.schema[c.key[i]].Type {
			return nil, fault.New(fault.Internal, "stage: key column %d is %s, not %s", i, c.schema[c.key[i]].Type, v.Type)
		}
		out = record.AppendOrderedValue(out, v)
	}
	return out, nil
}

// decode appends the row of a stored entry to d, which has Weights unless the layout is keyed. key is without prefix.
func (c *rowCodec) decode(key, value []byte, d *record.Delta) error {
	switch c.layout {
	case weighted:
		w, n := binary.Varint(value)
		if n <= 0 {
			return badRow("weight")
		}
		return c.decodeWhole(key, w, d)
	case appended:
		w, n := binary.Varint(value)
		if n <= 0 || len(key) != 16 {
			return badRow("weight")
		}
		return c.decodeWhole(value[n:], w, d)
	}
	if err := record.DecodeRow(value, d, c.rest); err != nil {
		return err
	}
	if !c.wholeIn {
		var err error
		for _, col := range c.key {
			if key, err = record.DecodeOrdered(key, &d.Cols[col]); err != nil {
				return err
			}
		}
		if len(key) != 0 {
			return badRow("key")
		}
	}
	d.N++
	if d.Weights != nil {
		d.Weights = append(d.Weights, 1)
	}
	return nil
}

func (c *rowCodec) decodeWhole(row []byte, weight int64, d *record.Delta) error {
	if err := record.DecodeRow(row, d, c.all); err != nil {
		return err
	}
	d.N++
	d.Weights = append(d.Weights, weight)
	return nil
}

func badRow(what string) error {
	return fault.New(fault.Corrupted, "a stored row of a view has a %s that doesn't decode", what)
}

// rowStore is the rows of a view in one partition: what changed lately in memory, the rest in the state store.
type rowStore struct {
	codec *rowCodec
	table *stateTable // keyed and weighted

	// layout appended: entries not yet written, as (key 16 bytes, value) one after the other
	pending []byte
	ends    []int // of the entries in pending
	next    uint64

	count int64 // rows; a row of weight w counts w times
	bytes int64 // of appended rows
	keyB  []byte
	nextB []byte
	valB  []byte
	skip  []bool
	// changed counts the deltas applied, so that a snapshot knows whether it is still the newest.
	changed uint64
}

func newRowStore(store Store, prefix []byte, codec *rowCodec) *rowStore {
	return &rowStore{codec: codec, table: newStateTable(store, prefix)}
}

// apply adds a stage's output delta of a tick.
func (r *rowStore) apply(tick ids.Tick, d *record.Delta) error {
	if d.N == 0 {
		return nil
	}
	r.changed++
	switch r.codec.layout {
	case keyed:
		return r.applyKeyed(d)
	case weighted:
		return r.applyWeighted(d)
	}
	return r.append(tick, d)
}

func (r *rowStore) applyKeyed(d *record.Delta) error {
	r.skip = append(r.skip[:0], make([]bool, d.N)...)
	// What disappears comes first; but a changed row is mostly its old form and its new one side by side.
	for i := range d.N {
		w := d.Weight(i)
		r.count += w
		if w > 0 {
			continue
		}
		r.keyB = r.codec.appendKey(r.keyB[:0], d, i)
		if i+1 < d.N && d.Weight(i+1) > 0 {
			if r.nextB = r.codec.appendKey(r.nextB[:0], d, i+1); bytes.Equal(r.keyB, r.nextB) {
				r.skip[i+1] = true
				if err := r.set(r.keyB, d, i+1); err != nil {
					return err
				}
				continue
			}
		}
		if err := r.table.Delete(r.keyB); err != nil {
			return err
		}
	}
	for i := range d.N {
		if d.Weight(i) < 0 || r.skip[i] {
			continue
		}
		r.keyB = r.codec.appendKey(r.keyB[:0], d, i)
		if err := r.set(r.keyB, d, i); err != nil {
			return err
		}
	}
	return nil
}

// set stores row i under its key.
func (r *rowStore) set(key []byte, d *record.Delta, i int) error {
	r.valB = record.AppendRow(r.valB[:0], d, r.codec.rest, i)
	return r.table.Set(key, r.valB)
}

func (r *rowStore) applyWeighted(d *record.Delta) error {
	for i := range d.N {
		r.keyB = r.codec.appendKey(r.keyB[:0], d, i)
		old, ok, err := r.table.Get(r.keyB)
		if err != nil {
			return err
		}
		var w int64
		if ok {
			var n int
			if w, n = binary.Varint(old); n <= 0 {
				return badRow("weight")
			}
		}
		w += d.Weight(i)
		r.count += d.Weight(i)
		if w == 0 {
			err = r.table.Delete(r.keyB)
		} else {
			r.valB = binary.AppendVarint(r.valB[:0], w)
			err = r.table.Set(r.keyB, r.valB)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (r *rowStore) append(tick ids.Tick, d *record.Delta) error {
	for i := range d.N {
		w := d.Weight(i)
		if w <= 0 {
			return fault.New(fault.Internal, "stage: a row disappears from a view whose rows never do")
		}
		start := len(r.pending)
		r.pending = binary.BigEndian.AppendUint64(r.pending, uint64(tick))
		r.pending = binary.BigEndian.AppendUint64(r.pending, r.next)
		r.pending = binary.AppendVarint(r.pending, w)
		r.pending = record.AppendRow(r.pending, d, r.codec.all, i)
		r.ends = append(r.ends, len(r.pending))
		r.next++
		r.count += w
		r.bytes += int64(len(r.pending) - start)
	}
	return nil
}

func (r *rowStore) dirtyBytes() int { return len(r.pending) + r.table.dirtyBytes }

func (r *rowStore) dirty() bool { return len(r.ends) > 0 || len(r.table.dirty) > 0 }

// write adds what isn't stored yet to a batch.
func (r *rowStore) write(b *storage.Batch) {
	r.table.write(b)
	start := 0
	for _, end := range r.ends {
		e := r.pending[start:end]
		key, value := b.SetDeferred(len(r.table.prefix)+16, len(e)-16)
		copy(key[copy(key, r.table.prefix):], e[:16])
		copy(value, e[16:])
		start = end
	}
}

// written forgets what the committed batch of write has stored.
func (r *rowStore) written() {
	r.table.written()
	r.ends = r.ends[:0]
	if cap(r.pending) > 4<<20 {
		r.pending = nil
	}
	r.pending = r.pending[:0]
}

// get appends the row with this key as it is now to d.
func (r *rowStore) get(key []byte, d *record.Delta) error {
	value, known, ok := r.table.peek(key)
	if known {
		if !ok {
			return nil
		}
		return r.codec.decode(key, value, d)
	}
	value, closer, err := r.table.store.Get(r.table.storeKey(key))
	if errors.Is(err, fault.Of(fault.NotFound)) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := r.codec.decode(key, value, d); err != nil {
		_ = closer.Close()
		return err
	}
	return closer.Close()
}
