package dataflow

import (
	"bytes"
	"cmp"
	"encoding/binary"

	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// extremes is min or max where no row is taken back: each slot's value so far. Among equal values of different form
// it keeps the one whose form sorts first (see compareForms), so that the choice doesn't depend on order.
//
// It stores a byte that tells whether there is a value, and the value in record's row encoding.
type extremes struct {
	typ    record.Type
	arg    int
	max    bool
	seen   []bool
	ints   []int64
	floats []float64
	spans  []record.Interval
	spots  []spot // of varlen values in bytes
	bytes  []byte
	waste  int
	one    record.Delta // one value, for coding
	col    []int
}

// spot is where a value's bytes are.
type spot struct{ at, n int }

func newExtremes(t record.Type, arg int, isMax bool) *extremes {
	e := &extremes{typ: t, arg: arg, max: isMax, col: []int{0}}
	e.one.Cols = []record.Column{record.NewColumn(t, 1)}
	return e
}

func (e *extremes) grow(n int) {
	e.seen = extend(e.seen, n)
	switch e.typ.Layout() {
	case record.LayoutFloats:
		e.floats = extend(e.floats, n)
	case record.LayoutIntervals:
		e.spans = extend(e.spans, n)
	case record.LayoutBytes:
		e.spots = extend(e.spots, n)
	default:
		e.ints = extend(e.ints, n)
	}
}

func (e *extremes) reset() {
	n := len(e.seen)
	e.seen, e.ints, e.floats = shrink(e.seen, n), shrink(e.ints, n), shrink(e.floats, n)
	e.spans, e.spots = shrink(e.spans, n), shrink(e.spots, n)
	e.bytes, e.waste = shrink(e.bytes, len(e.bytes)), 0
}

func (e *extremes) clear(s int) {
	if e.seen[s] && e.typ.Varlen() {
		e.waste += e.spots[s].n
	}
	e.seen[s] = false
}

func (e *extremes) empty(s int) bool { return !e.seen[s] }

func (e *extremes) update(slots []int32, in *record.Delta) error {
	e.take(slots, &in.Cols[e.arg], in.Weights)
	return nil
}

func (e *extremes) merge(slots []int32, in *record.Delta, at int) error {
	e.take(slots, &in.Cols[at], in.Weights)
	return nil
}

func (e *extremes) take(slots []int32, c *record.Column, weights []int64) {
	if c.Type.Layout() == record.LayoutInts {
		e.takeInts(slots, c, weights)
		return
	}
	for i, s := range slots {
		if !c.Null(i) && (weights == nil || weights[i] > 0) {
			e.offer(int(s), c, i)
		}
	}
}

func (e *extremes) takeInts(slots []int32, c *record.Column, weights []int64) {
	for i, s := range slots {
		if c.Validity != nil && !c.Validity.Valid(i) || weights != nil && weights[i] <= 0 {
			continue
		}
		if v := c.Ints[i]; !e.seen[s] || v != e.ints[s] && v > e.ints[s] == e.max {
			e.ints[s], e.seen[s] = v, true
		}
	}
}

// offer takes value i of c for slot s if it goes before what is there.
func (e *extremes) offer(s int, c *record.Column, i int) {
	switch e.typ.Layout() {
	case record.LayoutBools:
		v := int64(0)
		if c.Bools[i] {
			v = 1
		}
		if !e.seen[s] || v != e.ints[s] && v > e.ints[s] == e.max {
			e.ints[s] = v
		}
	case record.LayoutInts:
		if v := c.Ints[i]; !e.seen[s] || v != e.ints[s] && v > e.ints[s] == e.max {
			e.ints[s] = v
		}
	case record.LayoutFloats:
		v := c.Floats[i]
		if !e.seen[s] || e.before(record.CompareDouble(v, e.floats[s]), cmp.Compare(floatBits(v), floatBits(e.floats[s]))) {
			e.floats[s] = v
		}
	case record.LayoutIntervals:
		v := c.Intervals[i]
		if !e.seen[s] || e.before(record.CompareInterval(v, e.spans[s]), compareSpanForm(v, e.spans[s])) {
			e.spans[s] = v
		}
	default:
		e.offerBytes(s, c.At(i))
	}
	e.seen[s] = true
}

// before tells whether a value goes before another one, by the order of the values and, if that is 0, of their forms.
func (e *extremes) before(value, form int) bool {
	if value != 0 {
		return value > 0 == e.max
	}
	return form < 0
}

func compareSpanForm(a, b record.Interval) int {
	return cmp.Or(cmp.Compare(a.Months, b.Months), cmp.Compare(a.Days, b.Days), cmp.Compare(a.Micros, b.Micros))
}

func (e *extremes) offerBytes(s int, v []byte) {
	p := &e.spots[s]
	if e.seen[s] {
		old := e.bytes[p.at : p.at+p.n]
		form := bytes.Compare(v, old)
		value := form
		if e.typ == record.Numeric || e.typ.IsArray() {
			value = record.Compare(record.Value{Type: e.typ, Bytes: v}, record.Value{Type: e.typ, Bytes: old})
		}
		if !e.before(value, form) {
			return
		}
		if len(v) <= p.n {
			e.waste += p.n - len(v)
			copy(old, v)
			p.n = len(v)
			return
		}
		e.waste += p.n
	}
	p.at, p.n = len(e.bytes), len(v)
	e.bytes = append(e.bytes, v...)
	e.seen[s] = true
	if e.waste > maxKeptBytes && e.waste > len(e.bytes)/2 {
		e.compact()
	}
}

// compact drops bytes that no slot holds any more.
func (e *extremes) compact() {
	kept := make([]byte, 0, len(e.bytes)-e.waste)
	for s := range e.spots {
		if !e.seen[s] {
			continue
		}
		p := &e.spots[s]
		at := len(kept)
		kept = append(kept, e.bytes[p.at:p.at+p.n]...)
		p.at = at
	}
	e.bytes, e.waste = kept, 0
}

func (e *extremes) appendTo(s int, out *record.Column) {
	if !e.seen[s] {
		out.AppendNull()
		return
	}
	switch e.typ.Layout() {
	case record.LayoutBools:
		out.AppendBool(e.ints[s] != 0)
	case record.LayoutInts:
		out.AppendInt(e.ints[s])
	case record.LayoutFloats:
		out.AppendFloat(e.floats[s])
	case record.LayoutIntervals:
		out.AppendInterval(e.spans[s])
	default:
		out.AppendBytes(e.bytes[e.spots[s].at : e.spots[s].at+e.spots[s].n])
	}
}

func (e *extremes) result(_ plan.AggFunc, s int, out *record.Column) error {
	e.appendTo(s, out)
	return nil
}

func (e *extremes) partial(s, round int, out []record.Column) bool {
	if round > 0 {
		out[0].AppendNull()
	} else {
		e.appendTo(s, &out[0])
	}
	return false
}

func (e *extremes) add(dst, src int) {
	if !e.seen[src] {
		return
	}
	c := &e.one.Cols[0]
	c.Reset()
	e.appendTo(src, c)
	e.offer(dst, c, 0)
}

func (e *extremes) store(dst []byte, s int) []byte {
	if !e.seen[s] {
		return append(dst, 0)
	}
	c := &e.one.Cols[0]
	c.Reset()
	e.appendTo(s, c)
	at := len(dst) + 1
	dst = record.AppendRow(append(dst, 1), &e.one, e.col, 0)
	// The length goes before the value; nearly always it is below 128 and so has the place kept for it.
	n := len(dst) - at
	var size [binary.MaxVarintLen64]byte
	head := binary.AppendUvarint(size[:0], uint64(n))
	dst = append(dst, head...)
	copy(dst[at+len(head):], dst[at:at+n])
	copy(dst[at:], head)
	return dst
}

func (e *extremes) load(s int, src []byte) (rest []byte, ok bool) {
	if len(src) == 0 || src[0] > 1 {
		return nil, false
	}
	e.seen[s] = false
	if src[0] == 0 {
		return src[1:], true
	}
	v, rest, ok := readBytes(src[1:])
	if !ok {
		return nil, false
	}
	c := &e.one.Cols[0]
	c.Reset()
	if record.DecodeRow(v, &e.one, e.col) != nil || c.Null(0) {
		return nil, false
	}
	e.offer(s, c, 0)
	return rest, true
}

// appendForm appends what orders equal values of different form, at the end of a key.
func appendForm(dst []byte, c *record.Column, i int) []byte {
	switch c.Type {
	case record.Numeric:
		return append(dst, c.At(i)...)
	case record.Double:
		return binary.BigEndian.AppendUint64(dst, floatBits(c.Floats[i]))
	case record.IntervalT:
		v := c.Intervals[i]
		dst = binary.BigEndian.AppendUint32(dst, uint32(v.Months)^1<<31)
		dst = binary.BigEndian.AppendUint32(dst, uint32(v.Days)^1<<31)
		return binary.BigEndian.AppendUint64(dst, uint64(v.Micros)^1<<63)
	}
	if c.Type.HasForms() {
		return append(dst, c.At(i)...)
	}
	return dst
}

// indexedExtremes is min or max where rows may be taken back. Besides the value that extremes keeps, the state has an
// index of the group's values:
//
//	key    the group's key, the accumulator's number (2 bytes), the value in its order (turned round for max), its form
//	value  how many there are (varint), then the value in record's row encoding
//
// In a tick it gathers how many of which value come and go.
type indexedExtremes struct {
	*extremes
	number  uint16
	changes *groupTable // slot, value
	weights []int64
	pair    record.Delta
	cols    []int
	bySlot  []int32 // changes in order of their slots
	starts  []int32
	values  record.Delta
	key     []byte
	entry   []byte
	ready   bool
	touched []bool // slots with changes that apply hasn't seen
}

func newIndexedExtremes(e *extremes) *indexedExtremes {
	schema := record.Schema{{Type: record.BigInt}, {Type: e.typ}}
	return &indexedExtremes{
		extremes: e, changes: newGroupTable(schema, true), cols: []int{0, 1},
		pair:   record.Delta{Cols: []record.Column{record.NewColumn(record.BigInt, 0), {}}},
		values: record.Delta{Cols: []record.Column{record.NewColumn(record.BigInt, 0), record.NewColumn(e.typ, 0)}},
	}
}

func (x *indexedExtremes) update(slots []int32, in *record.Delta) error {
	arg := &in.Cols[x.arg]
	x.pair.Cols[0].Reset()
	for _, s := range slots {
		x.pair.Cols[0].AppendInt(int64(s))
	}
	x.pair.Cols[1], x.pair.N = *arg, in.N
	at, err := x.changes.assign(&x.pair, x.cols)
	if err != nil {
		return err
	}
	x.weights = extend(x.weights, x.changes.n)
	addWeights(x.weights, at, arg, in.Weights)
	for _, s := range slots {
		x.touched[s] = true
	}
	return nil
}

func (x *indexedExtremes) grow(n int) {
	x.extremes.grow(n)
	x.touched = extend(x.touched, n)
}

func (x *indexedExtremes) empty(s int) bool { return !x.touched[s] && x.extremes.empty(s) }

func (x *indexedExtremes) merge([]int32, *record.Delta, int) error {
	return defect("min and max of rows that may be taken back can't be merged")
}

func (x *indexedExtremes) reset() {
	x.extremes.reset()
	x.touched = shrink(x.touched, len(x.touched))
	x.changes.reset()
	x.weights = shrink(x.weights, len(x.weights))
	x.ready = false
	for c := range x.values.Cols {
		x.values.Cols[c].Reset()
		trim(&x.values.Cols[c])
	}
}

// add does nothing: apply has made the new value.
func (x *indexedExtremes) add(int, int) {}

// prepareChanges sorts the tick's changes by slot.
func (x *indexedExtremes) prepareChanges(slots int) {
	x.ready = true
	x.changes.appendKeys(x.values.Cols, 0, x.changes.n)
	x.starts = resize(x.starts, slots+1)
	clear(x.starts)
	for _, s := range x.values.Cols[0].Ints {
		x.starts[s+1]++
	}
	for s := range slots {
		x.starts[s+1] += x.starts[s]
	}
	x.bySlot = resize(x.bySlot, x.changes.n)
	next := append([]int32(nil), x.starts...)
	for i, s := range x.values.Cols[0].Ints {
		x.bySlot[next[s]] = int32(i)
		next[s]++
	}
}

// apply brings the index of a group up to date and sets slot s to its new value; old is the slot with the value
// before. slots is the number of slots of the tick.
func (x *indexedExtremes) apply(st State, group []byte, s, old, slots int) error {
	if !x.ready {
		x.prepareChanges(slots)
	}
	c := &x.values.Cols[1]
	x.extremes.clear(s)
	x.touched[s] = false
	if x.seen[old] {
		x.extremes.add(s, old)
	}
	lost := false
	for _, i := range x.bySlot[x.starts[s]:x.starts[s+1]] {
		w := x.weights[i]
		if w == 0 || c.Null(int(i)) {
			continue
		}
		before, after, err := x.change(st, group, c, int(i), w)
		if err != nil {
			return err
		}
		switch {
		case before <= 0 && after > 0:
			x.offer(s, c, int(i))
		case before > 0 && after <= 0:
			lost = lost || x.seen[old] && x.isValue(old, c, int(i))
		}
	}
	if !lost {
		return nil
	}
	return x.first(st, group, s)
}

// change adds w to the count of value i of c.
func (x *indexedExtremes) change(st State, group []byte, c *record.Column, i int, w int64) (before, after int64, err error) {
	x.key = x.appendPrefix(x.key[:0], group)
	at := len(x.key)
	x.key = record.AppendOrdered(x.key, c, i)
	if x.max {
		for k := at; k < len(x.key); k++ {
			x.key[k] = ^x.key[k]
		}
	}
	x.key = appendForm(x.key, c, i)
	v, ok, err := st.Get(x.key)
	if err != nil {
		return 0, 0, err
	}
	if ok {
		if before, _, ok = readInt(v); !ok {
			return 0, 0, corrupted("an entry of an index of min and max doesn't decode")
		}
	}
	after = before + w
	if after == 0 {
		return before, 0, st.Delete(x.key)
	}
	x.entry = binary.AppendVarint(x.entry[:0], after)
	x.entry = record.AppendRow(x.entry, &x.values, x.cols[1:], i)
	return before, after, st.Set(x.key, x.entry)
}

func (x *indexedExtremes) appendPrefix(dst, group []byte) []byte {
	return append(append(dst, group...), byte(x.number>>8), byte(x.number))
}

// isValue tells whether slot s has value i of c, in the same form.
func (x *indexedExtremes) isValue(s int, c *record.Column, i int) bool {
	one := &x.one.Cols[0]
	one.Reset()
	x.appendTo(s, one)
	one.AppendFrom(c, i)
	return sameValue(one, 0, 1)
}

// first sets slot s to the first value of the group's index.
func (x *indexedExtremes) first(st State, group []byte, s int) error {
	x.extremes.clear(s)
	lo := x.appendPrefix(nil, group)
	hi := append(bytes.Clone(lo), 0xff) // a value's first byte is below that, turned round or not
	return st.Scan(lo, hi, func(_, value []byte) (bool, error) {
		n, rest, ok := readInt(value)
		if !ok {
			return false, corrupted("an entry of an index of min and max doesn't decode")
		}
		if n <= 0 {
			return true, nil
		}
		one := &x.one.Cols[0]
		one.Reset()
		if err := record.DecodeRow(rest, &x.one, x.col); err != nil {
			return false, err
		}
		x.offer(s, one, 0)
		return false, nil
	})
}
