package dataflow

import (
	"bytes"
	"encoding/binary"
	"slices"

	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// window appends window functions to its rows. The rows of a partition lie in the state in their order. When some come
// or go the partition is read once, the functions are computed over the rows as they were and as they are, and the
// rows whose values differ are emitted.
//
// State: (op, ordered encoding of the keys, columns of the order as appendSorted has them, the row in record's encoding)
// is the row's weight, and the length of the part for the order. With Expire the time comes first among the keys.
type window struct {
	index    byte
	keys     []int
	keyOrder []int // of keys, in the state
	order    []plan.SortKey
	funcs    []windowFunc
	instead  func(*windowPart) []record.Column // of funcs, if set
	out      *link
	state    State
	merge    *consolidator
	rows     *record.Delta // the tick's changes
	expiry   *expiry
	part     windowPart
	changes  []windowChange
	buf      []byte
	key      []byte
	value    []byte
	emitted  *record.Delta
}

// windowChange is a row of the tick: where its key in the state is, its parts, and its weight.
type windowChange struct {
	key    []byte // without (op)
	prefix int    // of key: the partition
	sorted int    // of key: up to the end of the order's columns
	weight int64
}

func newWindow(b *builder) (operator, error) {
	p := b.op.Window
	if err := b.sameSchema(len(p.Funcs)); err != nil {
		return nil, err
	}
	w := &window{
		index: b.index, keys: p.Keys, keyOrder: slices.Clone(p.Keys), order: p.Order, out: b.out, state: b.env.State,
		merge: newConsolidator(b.in.schema, true), rows: record.NewDelta(b.in.schema, 0), emitted: record.NewDelta(b.out.schema, 0),
	}
	for _, c := range p.Keys {
		if err := b.column(c, record.Unknown); err != nil {
			return nil, err
		}
	}
	for _, k := range p.Order {
		if err := b.column(k.Col, record.Unknown); err != nil {
			return nil, err
		}
	}
	for i := range p.Funcs {
		f, err := newWindowFunc(b, &p.Funcs[i], b.out.schema[len(b.in.schema)+i].Type)
		if err != nil {
			return nil, err
		}
		w.funcs = append(w.funcs, f)
	}
	w.part.init(b.in.schema)
	if p.Expire == nil {
		return w, nil
	}
	at := slices.Index(p.Keys, p.Expire.Col)
	if at < 0 || b.in.schema[p.Expire.Col].Type != record.TimestampTZ || p.Expire.Delay < 0 {
		return nil, defect("operator %d forgets rows by column %d, which is no time among its keys", b.index, p.Expire.Col)
	}
	w.keyOrder = append([]int{p.Expire.Col}, slices.Delete(w.keyOrder, at, at+1)...)
	var err error
	w.expiry, err = newExpiry(w.state, []byte{w.index}, p.Expire)
	return w, err
}

func (w *window) push(in *record.Delta) error { return w.merge.add(in) }

func (w *window) endTick(_ ids.Tick, marks Marks) error {
	if w.merge.table.n > 0 {
		if err := w.apply(); err != nil {
			return err
		}
	}
	if w.expiry != nil {
		return w.expiry.end(marks.Horizon)
	}
	return nil
}

// apply takes the tick's changes, partition by partition.
func (w *window) apply() error {
	w.rows.Reset()
	w.rows.Weights = w.rows.Weights[:0]
	if w.rows.Weights == nil {
		w.rows.Weights = []int64{}
	}
	for lo := 0; lo < w.merge.table.n; {
		lo = w.merge.rows(w.rows, lo, w.merge.table.n)
	}
	w.merge.reset()
	w.gatherChanges()
	for lo := 0; lo < len(w.changes); {
		hi := lo + 1
		prefix := w.changes[lo].key[:w.changes[lo].prefix]
		for hi < len(w.changes) && bytes.Equal(prefix, w.changes[hi].key[:w.changes[hi].prefix]) {
			hi++
		}
		if err := w.change(prefix, w.changes[lo:hi]); err != nil {
			return err
		}
		lo = hi
	}
	w.rows.Reset()
	for c := range w.rows.Cols {
		trim(&w.rows.Cols[c])
	}
	w.changes = shrink(w.changes, len(w.changes))
	return w.flush()
}

// gatherChanges fills changes from rows, in the order of their keys.
func (w *window) gatherChanges() {
	w.buf, w.changes = w.buf[:0], w.changes[:0]
	type ends struct{ prefix, sorted, end int }
	at := make([]ends, w.rows.N)
	for i := range w.rows.N {
		from := len(w.buf)
		for _, c := range w.keyOrder {
			w.buf = record.AppendOrdered(w.buf, &w.rows.Cols[c], i)
		}
		at[i].prefix = len(w.buf) - from
		for k := range w.order {
			w.buf = appendSorted(w.buf, &w.rows.Cols[w.order[k].Col], i, &w.order[k])
		}
		at[i].sorted = len(w.buf) - from
		w.buf = record.AppendRow(w.buf, w.rows, w.part.cols, i)
		at[i].end = len(w.buf)
		if w.expiry != nil && !w.rows.Cols[w.keyOrder[0]].Null(i) {
			w.expiry.first.note(w.rows.Cols[w.keyOrder[0]].Ints[i])
		}
	}
	from := 0
	for i, e := range at {
		w.changes = append(w.changes, windowChange{w.buf[from:e.end:e.end], e.prefix, e.sorted, w.rows.Weights[i]})
		from = e.end
	}
	// A key that is the beginning of another one's can't be of the same partition and order.
	slices.SortFunc(w.changes, func(a, b windowChange) int {
		if c := bytes.Compare(a.key[:a.sorted], b.key[:b.sorted]); c != 0 {
			return c
		}
		return bytes.Compare(a.key[a.sorted:], b.key[b.sorted:])
	})
	if cap(w.buf) > 16*maxKeptBytes {
		w.buf = nil
	}
}

// change brings one partition up to date and emits what changed.
func (w *window) change(prefix []byte, changes []windowChange) error {
	p := &w.part
	p.reset()
	lo := append(append(w.key[:0], w.index), prefix...)
	w.key = lo
	next := 0
	take := func(c *windowChange) error {
		return p.add(c.key[c.prefix:c.sorted], c.key[c.sorted:], 0, c.weight)
	}
	err := w.state.Scan(lo, prefixEnd(lo), func(key, value []byte) (bool, error) {
		weight, rest, ok := readInt(value)
		sorted, size := binary.Uvarint(rest)
		if !ok || size <= 0 || sorted > uint64(len(key)-len(lo)) {
			return false, corrupted("a row of operator %d doesn't decode", w.index)
		}
		key = key[len(lo):]
		change := int64(0)
		for next < len(changes) {
			c := &changes[next]
			order := bytes.Compare(c.key[c.prefix:], key)
			if order > 0 {
				break
			}
			next++
			if order == 0 {
				change = c.weight
				break
			}
			if err := take(c); err != nil {
				return false, err
			}
		}
		return true, p.add(key[:sorted], key[sorted:], weight, weight+change)
	})
	if err != nil {
		return err
	}
	for ; next < len(changes); next++ {
		if err := take(&changes[next]); err != nil {
			return err
		}
	}
	if err := w.store(lo, changes); err != nil {
		return err
	}
	return w.emit()
}

// store writes the rows that changed.
func (w *window) store(lo []byte, changes []windowChange) error {
	n := len(lo)
	for i := range changes {
		c := &changes[i]
		w.key = append(w.key[:n], c.key[c.prefix:]...)
		v, ok, err := w.state.Get(w.key)
		if err != nil {
			return err
		}
		weight := c.weight
		if ok {
			old, _, ok := readInt(v)
			if !ok {
				return corrupted("a row of operator %d doesn't decode", w.index)
			}
			weight += old
		}
		if weight == 0 {
			err = w.state.Delete(w.key)
		} else {
			w.value = binary.AppendVarint(w.value[:0], weight)
			w.value = binary.AppendUvarint(w.value, uint64(c.sorted-c.prefix))
			err = w.state.Set(w.key, w.value)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// emit computes the functions over the rows as they were and as they are and emits the difference.
func (w *window) emit() error {
	p := &w.part
	p.number(func(r *windowRow) int64 { return r.before })
	was, err := w.compute(-1)
	if err != nil {
		return err
	}
	before := slices.Clone(p.first)
	p.number(func(r *windowRow) int64 { return r.after })
	is, err := w.compute(1)
	if err != nil {
		return err
	}
	for i := range p.rows {
		r := &p.rows[i]
		n, m := max(r.before, 0), max(r.after, 0)
		for k := range max(n, m) {
			if k < n && k < m && sameResults(was, is, before[i]+int(k), p.first[i]+int(k)) {
				continue
			}
			if k < n {
				w.append(i, was, before[i]+int(k), -1)
			}
			if k < m {
				w.append(i, is, p.first[i]+int(k), 1)
			}
			if w.emitted.N >= chunkRows-1 {
				if err := w.flush(); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// compute returns a column of each function's results over the rows that part.number has numbered.
func (w *window) compute(weight int64) ([]record.Column, error) {
	p := &w.part
	if w.instead != nil {
		return w.instead(p), nil
	}
	out := make([]record.Column, len(w.funcs))
	for i := range w.funcs {
		f := &w.funcs[i]
		out[i] = record.NewColumn(f.plan.Type, len(p.place))
		if err := f.compute(p, &out[i], weight); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func sameResults(a, b []record.Column, i, j int) bool {
	for c := range a {
		if !sameIn(&a[c], i, &b[c], j) {
			return false
		}
	}
	return true
}

// sameIn is sameValue of two columns of one type.
func sameIn(a *record.Column, i int, b *record.Column, j int) bool {
	if a.Null(i) || b.Null(j) {
		return a.Null(i) == b.Null(j)
	}
	if a.Type.Varlen() {
		return bytes.Equal(a.At(i), b.At(j))
	}
	switch a.Type {
	case record.Boolean:
		return a.Bools[i] == b.Bools[j]
	case record.Double:
		return floatBits(a.Floats[i]) == floatBits(b.Floats[j])
	case record.IntervalT:
		return a.Intervals[i] == b.Intervals[j]
	}
	return a.Ints[i] == b.Ints[j]
}

// append appends row i of the partition with the results at place `at`.
func (w *window) append(i int, results []record.Column, at int, weight int64) {
	n := len(w.part.data.Cols)
	for c := range n {
		w.emitted.Cols[c].AppendFrom(&w.part.data.Cols[c], i)
	}
	for c := range results {
		w.emitted.Cols[n+c].AppendFrom(&results[c], at)
	}
	w.emitted.Weights = append(w.emitted.Weights, weight)
	w.emitted.N++
}

func (w *window) flush() error {
	if err := w.out.emit(w.emitted); err != nil {
		return err
	}
	w.emitted.Reset()
	w.emitted.Weights = []int64{}
	return nil
}
