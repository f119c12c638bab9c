package stage

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/internal/invariants"
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
	// appended: tick, number -> a block of rows of that tick, as record.MarshalDelta encodes them. For rows that never
	// disappear: nothing is read to write them, nothing is done row by row, and they are the view's output deltas as well.
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
	stages := appendOnlyStages(p)
	return len(stages) > 0 && stages[len(stages)-1]
}

// appendOnlyStages tells of each stage whether no row of its output ever disappears.
func appendOnlyStages(p *plan.Plan) []bool {
	out := make([]bool, len(p.Stages))
	for i := range p.Stages {
		ops := p.Stages[i].Ops
		appends := make([]bool, len(ops))
		for k := range ops {
			op := &ops[k]
			inputs := op.Inputs
			switch {
			case op.Kind == plan.OpInput:
				appends[k] = op.Input != nil && op.Input.Stage >= 0 && op.Input.Stage < i && out[op.Input.Stage]
			case appendedJoin(op):
				appends[k], inputs = true, inputs[:1] // whatever happens on the right: no row is taken back
			default:
				appends[k] = onlyAppends(op)
			}
			for _, in := range inputs {
				appends[k] = appends[k] && in >= 0 && in < k && appends[in]
			}
		}
		out[i] = len(ops) > 0 && appends[len(ops)-1]
	}
	return out
}

// appendedJoin tells whether an operator is a temporal join whose rows are stored as such that only come.
func appendedJoin(op *plan.Op) bool {
	return op.Kind == plan.OpTemporalJoin && op.TemporalJoin != nil && op.TemporalJoin.Appended && len(op.Inputs) == 2
}

// onlyAppends tells whether an operator that reads rows which never disappear writes such.
func onlyAppends(op *plan.Op) bool {
	switch op.Kind {
	case plan.OpFilter, plan.OpProject, plan.OpTumble, plan.OpHop, plan.OpDropLate, plan.OpLate, plan.OpUnnest, plan.OpExpand, plan.OpUnion,
		plan.OpValues, plan.OpDistinct, plan.OpTemporalJoin:
		return true
	case plan.OpScan:
		return op.Scan != nil && op.Scan.Kind == plan.ScanStream
	case plan.OpJoin:
		return op.Join != nil && (op.Join.Kind == plan.JoinInner || op.Join.Kind == plan.JoinSemi) &&
			op.Join.LeftAppendOnly && op.Join.RightAppendOnly
	}
	return false
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

// decode appends the row of a stored entry, or the rows of a block, to d, which has Weights unless the layout is keyed. key
// is without prefix.
func (c *rowCodec) decode(key, value []byte, d *record.Delta) error {
	switch c.layout {
	case weighted:
		w, n := binary.Varint(value)
		if n <= 0 {
			return badRow("weight")
		}
		return c.decodeWhole(key, w, d)
	case appended:
		_, block, err := c.decodeBlock(key, value)
		if err != nil {
			return err
		}
		for i := range block.N {
			d.AppendRow(block, i, block.Weight(i))
		}
		return nil
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

// decodeBlock decodes a block of layout appended, which may use value in place.
func (c *rowCodec) decodeBlock(key, value []byte) (ids.Tick, *record.Delta, error) {
	if len(key) != blockKeyBytes {
		return 0, nil, badRow("key")
	}
	d, err := record.UnmarshalDelta(value, c.schema)
	if err != nil {
		return 0, nil, err
	}
	for _, w := range d.Weights {
		if w <= 0 {
			return 0, nil, badRow("weight")
		}
	}
	return ids.Tick(binary.BigEndian.Uint64(key)), d, nil
}

func badRow(what string) error {
	return fault.New(fault.Corrupted, "a stored row of a view has a %s that doesn't decode", what)
}

// rowStore is the rows of a view in one partition: what changed lately in memory, the rest in the state store.
type rowStore struct {
	codec *rowCodec
	table *stateTable // keyed and weighted

	// layout appended: blocks not yet written
	pending      []rowBlock
	pendingBytes int
	next         uint64        // rows of the view's history
	open         *record.Delta // those of them that aren't in a full block yet; nil: none
	openTick     ids.Tick
	openDirty    bool

	count   int64 // rows; a row of weight w counts w times
	bytes   int64 // of appended rows
	keyB    []byte
	nextB   []byte
	valB    []byte
	skip    []bool
	indexes []*rowIndex
	dropped []uint64 // indexes of which something is stored
	// changed counts the deltas applied, so that a snapshot knows whether it is still the newest.
	changed uint64
}

// rowBlock is a block of layout appended, encoded or not.
type rowBlock struct {
	key  [blockKeyBytes]byte // tick, number
	raw  []byte              // nil: see rows
	rows *record.Delta
	size int // bytes, encoded
}

// What a block of layout appended is and holds at most, about. Who computes a view's rows again must come to the same
// keys, so that it replaces all that another primary has stored before it: how a tick is cut into blocks is a function of its
// rows; and rows of the history, which comes in pieces of any size, fill one block after the other.
const (
	blockKeyBytes    = 16
	maxBlockRows     = 4096
	maxBlockBytes    = 1 << 20
	historyBlockRows = 256
)

func newRowStore(store Store, prefix []byte, codec *rowCodec) *rowStore {
	return &rowStore{codec: codec, table: newStateTable(store, prefix)}
}

// apply adds a stage's output delta of a tick. It returns the delta in the form in which it is kept, if it is kept as such.
// own tells that d won't change any more.
func (r *rowStore) apply(tick ids.Tick, d *record.Delta, own bool) (kept tickDelta, err error) {
	if d.N == 0 {
		return kept, nil
	}
	r.changed++
	switch r.codec.layout {
	case keyed:
		if err := r.indexKeyed(d); err != nil {
			return kept, err
		}
		return kept, r.applyKeyed(d)
	case weighted:
		return kept, r.applyWeighted(d)
	}
	return r.append(tick, d, own)
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
		was := w
		w += d.Weight(i)
		r.count += d.Weight(i)
		if err := r.indexRow(d, i, r.keyB, was != 0, w != 0); err != nil {
			return err
		}
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

func (r *rowStore) append(tick ids.Tick, d *record.Delta, own bool) (tickDelta, error) {
	kept := tickDelta{tick: tick}
	if err := r.countAppended(d); err != nil {
		return kept, err
	}
	r.closeHistory()
	per := d.N
	if size := rowBytes(d); d.N > maxBlockRows || size > maxBlockBytes {
		per = min(maxBlockRows, max(1, int(int64(d.N)*maxBlockBytes/size)))
	}
	if err := r.indexBlocks(tick, 0, per, d); err != nil {
		return kept, err
	}
	if own {
		kept.rows = d
	}
	number := uint64(0)
	for lo := 0; lo < d.N; lo += per {
		piece := d
		if per < d.N {
			piece = rowsFrom(d, lo, min(lo+per, d.N))
		}
		switch raw := r.addRows(tick, number, piece, own); {
		case own:
		case kept.raw == nil:
			kept.raw = raw
		default:
			kept.more = append(kept.more, raw)
		}
		number++
	}
	return kept, nil
}

// appendHistory adds rows of the view's history, which are all of one tick.
func (r *rowStore) appendHistory(tick ids.Tick, d *record.Delta) error {
	if err := r.countAppended(d); err != nil {
		return err
	}
	r.changed++
	if r.open == nil {
		r.open = record.NewDelta(r.codec.schema, 0)
		r.open.Weights = []int64{}
	}
	r.openTick = tick
	if err := r.indexBlocks(tick, r.next, historyBlockRows, d); err != nil {
		return err
	}
	for i := range d.N {
		r.open.AppendRow(d, i, d.Weight(i))
		r.next++
		r.openDirty = true
		if r.open.N == historyBlockRows {
			r.addRows(tick, r.next/historyBlockRows-1, r.open, false)
			r.open.Reset()
			r.openDirty = false
		}
	}
	return nil
}

// resumeHistory reads the block of the history that isn't full.
func (r *rowStore) resumeHistory(tick ids.Tick) error {
	n := int(r.next % historyBlockRows)
	if n == 0 {
		return nil
	}
	b := rowBlock{}
	b.number(tick, r.next/historyBlockRows)
	value, closer, err := r.table.store.Get(r.table.storeKey(b.key[:]))
	if err != nil {
		return err
	}
	r.open = record.NewDelta(r.codec.schema, n)
	r.open.Weights = []int64{}
	r.openTick = tick
	err = r.codec.decode(b.key[:], value, r.open)
	if e := closer.Close(); err == nil {
		err = e
	}
	if err == nil && r.open.N != n {
		return fault.New(fault.Corrupted, "a view's history has %d rows in its last block, not %d", r.open.N, n)
	}
	return err
}

// closeHistory makes a block of what is left of the history.
func (r *rowStore) closeHistory() {
	if r.openDirty {
		r.addRows(r.openTick, r.next/historyBlockRows, r.open, false)
	}
	r.open, r.openDirty = nil, false
}

// countAppended counts rows, none of which may be taken back.
func (r *rowStore) countAppended(d *record.Delta) error {
	for i := range d.N {
		w := d.Weight(i)
		if w <= 0 {
			return fault.New(fault.Internal, "stage: a row disappears from a view whose rows never do")
		}
		r.count += w
	}
	return nil
}

// rowBytes is what the values of d take, whatever else comes with them.
func rowBytes(d *record.Delta) (n int64) {
	for i := range d.Cols {
		c := &d.Cols[i]
		n += 8 * int64(d.N)
		if c.Type.Varlen() {
			n += int64(c.Offsets[d.N] - c.Offsets[0])
		}
	}
	return n
}

// rowsFrom returns rows [lo, hi) of d, which may use its memory.
func rowsFrom(d *record.Delta, lo, hi int) *record.Delta {
	out := &record.Delta{N: hi - lo, Cols: make([]record.Column, len(d.Cols))}
	if d.Weights != nil {
		out.Weights = d.Weights[lo:hi]
	}
	for i := range d.Cols {
		c := &d.Cols[i]
		if c.Validity != nil && lo&7 != 0 { // the bitmap can't be cut there
			return gather(d, rowsUpTo(hi)[lo:])
		}
		part := record.Column{Type: c.Type, N: hi - lo}
		if c.Validity != nil {
			part.Validity = c.Validity[lo>>3 : (hi+7)>>3]
		}
		switch c.Type.Layout() {
		case record.LayoutBools:
			part.Bools = c.Bools[lo:hi]
		case record.LayoutInts:
			part.Ints = c.Ints[lo:hi]
		case record.LayoutFloats:
			part.Floats = c.Floats[lo:hi]
		case record.LayoutIntervals:
			part.Intervals = c.Intervals[lo:hi]
		case record.LayoutBytes:
			part.Offsets, part.Bytes = c.Offsets[lo:hi+1], c.Bytes
		}
		out.Cols[i] = part
	}
	return out
}

func rowsUpTo(n int) []int32 {
	out := make([]int32, n)
	for i := range out {
		out[i] = int32(i)
	}
	return out
}

// addRows adds a block. Unless the rows are its own it encodes them now, and returns that.
func (r *rowStore) addRows(tick ids.Tick, number uint64, d *record.Delta, own bool) (raw []byte) {
	b := rowBlock{rows: d, size: record.EncodedBytes(d)}
	if !own {
		b.raw, b.rows = record.MarshalDelta(nil, d), nil
	}
	b.number(tick, number)
	r.pending = append(r.pending, b)
	r.bytes += int64(blockKeyBytes + b.size)
	r.pendingBytes += blockKeyBytes + b.size
	return b.raw
}

func (b *rowBlock) number(tick ids.Tick, number uint64) {
	binary.BigEndian.PutUint64(b.key[:], uint64(tick))
	binary.BigEndian.PutUint64(b.key[8:], number)
}

// indexKeyed brings the indexes of layout keyed up to date: what disappears comes first.
func (r *rowStore) indexKeyed(d *record.Delta) error {
	if len(r.indexes) == 0 {
		return nil
	}
	for _, coming := range []bool{false, true} {
		for i := range d.N {
			if (d.Weight(i) > 0) != coming {
				continue
			}
			r.keyB = r.codec.appendKey(r.keyB[:0], d, i)
			if err := r.indexRow(d, i, r.keyB, !coming, coming); err != nil {
				return err
			}
		}
	}
	return nil
}

// indexRow enters in the indexes that a row, which was there or not, is there or not.
func (r *rowStore) indexRow(d *record.Delta, i int, key []byte, was, is bool) error {
	if was == is {
		return nil
	}
	for _, x := range r.indexes {
		var err error
		if is {
			err = x.add(d, i, key)
		} else {
			err = x.remove(d, i, key)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (r *rowStore) dirtyBytes() int {
	n := r.pendingBytes + r.table.dirtyBytes
	for _, x := range r.indexes {
		n += x.table.dirtyBytes
	}
	return n
}

// dirty tells whether rows aren't stored, or what the indexes have of them.
func (r *rowStore) dirty() bool {
	return len(r.pending) > 0 || r.openDirty || len(r.table.dirty) > 0 || slices.ContainsFunc(r.indexes, func(x *rowIndex) bool { return len(x.table.dirty) > 0 })
}

// write adds what isn't stored yet to a batch.
func (r *rowStore) write(b *storage.Batch) {
	r.table.write(b)
	for _, x := range r.indexes {
		x.write(b)
	}
	for i := range r.pending {
		r.writeBlock(b, &r.pending[i])
	}
	if r.openDirty {
		block := rowBlock{rows: r.open, size: record.EncodedBytes(r.open)}
		block.number(r.openTick, r.next/historyBlockRows)
		r.writeBlock(b, &block)
	}
}

func (r *rowStore) writeBlock(b *storage.Batch, block *rowBlock) {
	key, value := b.SetDeferred(len(r.table.prefix)+blockKeyBytes, block.size)
	copy(key[copy(key, r.table.prefix):], block.key[:])
	if block.rows == nil {
		copy(value, block.raw)
		return
	}
	if n := len(record.MarshalDelta(value[:0:len(value)], block.rows)); n != len(value) {
		invariants.Failed("a block of %d bytes has %d encoded", len(value), n)
	}
}

// written forgets what the committed batch of write has stored.
func (r *rowStore) written(tight bool) {
	r.table.written(tight)
	for _, x := range r.indexes {
		x.written()
	}
	r.dropped = r.dropped[:0]
	r.pending, r.pendingBytes, r.openDirty = nil, 0, false
}

// lastAppended returns the tick of the newest stored block, 0 if there is none.
func (r *rowStore) lastAppended(from storage.Reader) (ids.Tick, error) {
	it, err := from.Iter(prefixRange(r.table.prefix))
	if err != nil {
		return 0, err
	}
	last := ids.Tick(0)
	if it.Last() {
		key := it.Key()[len(r.table.prefix):]
		if len(key) != blockKeyBytes {
			_ = it.Close()
			return 0, badRow("key")
		}
		last = ids.Tick(binary.BigEndian.Uint64(key))
	}
	return last, it.Close()
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
