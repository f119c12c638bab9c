package dataflow

import (
	"bytes"
	"encoding/binary"
	"slices"

	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// multiset is the values of one argument (or of several together) in each group, each with how often it is there, for
// the aggregates that need more than a sum: those with DISTINCT, percentiles, lists, the first row in an order. All
// aggregates over one argument share it, whatever their filters: a value has one count for each filter.
//
// A value stands as bytes in its order (see key). Few values of a group are kept in the group's entry, in order;
// once they are many they go to an index of their own, of which a tick reads and writes only what it changes:
//
//	key    the group's key, the accumulator's number (2 bytes), the value's bytes
//	value  for each filter how often the value is there (varint)
//
// Where only distinct bigints of rows that are never taken back matter, an entry of the index is 64 neighbours:
//
//	key    the group's key, the accumulator's number, the bytes of the first of the 64
//	value  for each filter a bit (64, little endian) for each one that was there
type multiset struct {
	schema     record.Schema // of the value's columns: those of an order, then the arguments
	cols       []int         // in the input
	order      []plan.SortKey
	args       int   // of schema, at its end
	filters    []int // input columns, -1: every row
	skipNulls  bool  // a row with a NULL argument has no value
	distinct   bool  // only whether a value is there matters
	counted    bool  // distinct, and in no order: equal values of different form are one
	ints       bool  // distinct values of one column of 64 bits: the value is its 8 bytes
	bits       bool  // ints of rows that are never taken back
	appendOnly bool
	whole      bool // everything is in the group's entry: there is no index
	number     uint16
	consumers  []*valueAgg // those that are fed with distinct values

	// what the tick changed: slot and value, and a weight for each filter
	changes *groupTable
	pair    record.Delta
	pairs   []int // columns of pair
	passed  []int64
	weights []int64
	values  record.Delta // keys of changes, when they are wanted
	bySlot  []int32
	starts  []int32
	ready   bool
	touched []bool

	// what is known of a slot's group
	state   State
	group   []byte // key of the group
	lists   [][]byte
	spilled []bool
	size    []int64 // values in the index
	totals  []int64 // for each filter: how many there are
	key     []byte
	entry   []byte
	canon   []record.Column
	one     record.Delta // one value, decoded
	oneCols []int
	row     record.Delta
}

// maxInline is the number of values that a group's entry holds before they go to the index, and maxInlineBytes what
// they take at most.
const (
	maxInline      = 24
	maxInlineBytes = 512
)

func (m *multiset) start() {
	typ := record.Bytea
	if m.ints {
		typ = record.BigInt
	}
	m.changes = newGroupTable(record.Schema{{Type: record.BigInt}, {Type: typ}}, true)
	m.pair.Cols = []record.Column{record.NewColumn(record.BigInt, 0), record.NewColumn(typ, 0)}
	m.values.Cols = []record.Column{record.NewColumn(record.BigInt, 0), record.NewColumn(typ, 0)}
	m.pairs = []int{0, 1}
	m.canon = make([]record.Column, len(m.schema))
	args := m.schema[len(m.schema)-m.args:]
	for i := range args {
		m.one.Cols = append(m.one.Cols, record.NewColumn(args[i].Type, 1))
		m.oneCols = append(m.oneCols, i)
	}
}

// filter returns the number of the filter that reads input column c (-1: none).
func (m *multiset) filter(c int) int {
	if i := slices.Index(m.filters, c); i >= 0 {
		return i
	}
	m.filters = append(m.filters, c)
	return len(m.filters) - 1
}

func (m *multiset) grow(n int) {
	m.touched, m.lists = extend(m.touched, n), extend(m.lists, n)
	m.spilled, m.size = extend(m.spilled, n), extend(m.size, n)
	m.totals = extend(m.totals, n*len(m.filters))
}

func (m *multiset) reset() {
	n := len(m.touched)
	clear(m.lists)
	m.touched, m.lists = shrink(m.touched, n), shrink(m.lists, n)
	m.spilled, m.size, m.totals = shrink(m.spilled, n), shrink(m.size, n), shrink(m.totals, n*len(m.filters))
	m.weights = shrink(m.weights, len(m.weights))
	m.changes.reset()
	m.ready = false
	for c := range m.values.Cols {
		m.values.Cols[c].Reset()
		trim(&m.values.Cols[c])
		m.pair.Cols[c].Reset()
		trim(&m.pair.Cols[c])
	}
}

// update adds rows.
func (m *multiset) update(slots []int32, in *record.Delta) error {
	nf := len(m.filters)
	m.pair.Reset()
	m.passed = m.passed[:0]
	cols := make([]*record.Column, len(m.cols))
	for k, c := range m.cols {
		cols[k] = &in.Cols[c]
		if m.distinct {
			cols[k] = canonicalColumn(cols[k], &m.canon[k])
		}
	}
	for i, s := range slots {
		w := in.Weight(i)
		if w == 0 || m.skipNulls && anyNull(cols[len(cols)-m.args:], i) {
			continue
		}
		any := false
		for _, f := range m.filters {
			if f >= 0 && (in.Cols[f].Null(i) || !in.Cols[f].Bools[i]) {
				m.passed = append(m.passed, 0)
				continue
			}
			m.passed = append(m.passed, w)
			any = true
		}
		if !any {
			m.passed = m.passed[:len(m.passed)-nf]
			continue
		}
		m.touched[s] = true
		m.pair.Cols[0].AppendInt(int64(s))
		if m.ints {
			m.pair.Cols[1].AppendInt(cols[0].Ints[i])
		} else {
			m.key = m.appendKey(m.key[:0], cols, i)
			m.pair.Cols[1].AppendBytes(m.key)
		}
		m.pair.N++
	}
	return m.count()
}

func anyNull(cols []*record.Column, i int) bool {
	for _, c := range cols {
		if c.Null(i) {
			return true
		}
	}
	return false
}

// count adds the rows of pair, whose weights are in passed, to the tick's changes.
func (m *multiset) count() error {
	if m.pair.N == 0 {
		return nil
	}
	at, err := m.changes.assign(&m.pair, m.pairs)
	if err != nil {
		return err
	}
	nf := len(m.filters)
	m.weights = extend(m.weights, m.changes.n*nf)
	for i, c := range at {
		for f := range nf {
			m.weights[int(c)*nf+f] += m.passed[i*nf+f]
		}
	}
	m.ready = false
	return nil
}

// appendKey appends the bytes that stand for a value. Those of distinct values are the ordered encoding of the
// arguments, from which they are read back. Others are the columns of the order and the arguments in that encoding,
// then the arguments as they are and their length.
func (m *multiset) appendKey(dst []byte, cols []*record.Column, i int) []byte {
	for k, c := range cols {
		if k < len(m.order) {
			dst = appendSorted(dst, c, i, &m.order[k])
		} else {
			dst = record.AppendOrdered(dst, c, i)
		}
	}
	if m.counted {
		return dst
	}
	m.row.Cols = m.row.Cols[:0]
	for _, c := range cols[len(cols)-m.args:] {
		if c.Type == record.IntervalT && !c.Null(i) {
			dst = appendForm(dst, c, i) // the bytes of others order forms well enough
		}
		m.row.Cols = append(m.row.Cols, *c)
	}
	at := len(dst)
	dst = record.AppendRow(dst, &m.row, m.oneCols, i)
	return binary.BigEndian.AppendUint32(dst, uint32(len(dst)-at))
}

// appendSorted appends value i of c so that bytes compare as k orders values.
func appendSorted(dst []byte, c *record.Column, i int, k *plan.SortKey) []byte {
	if c.Null(i) {
		if k.NullsFirst {
			return append(dst, 0)
		}
		return append(dst, 2)
	}
	dst = append(dst, 1)
	at := len(dst)
	dst = record.AppendOrdered(dst, c, i)
	if k.Desc {
		for ; at < len(dst); at++ {
			dst[at] = ^dst[at]
		}
	}
	return dst
}

const signBit = 1 << 63

// decode sets one to the value that stands as key.
func (m *multiset) decode(key []byte) error {
	for k := range m.one.Cols {
		m.one.Cols[k].Reset()
	}
	switch {
	case m.ints:
		if len(key) != 8 {
			return corrupted("a value of an aggregate doesn't decode")
		}
		m.one.Cols[0].AppendInt(int64(binary.BigEndian.Uint64(key) ^ signBit))
		return nil
	case m.counted:
		var err error
		for k := range m.one.Cols {
			if key, err = record.DecodeOrdered(key, &m.one.Cols[k]); err != nil {
				return err
			}
		}
		if len(key) > 0 {
			return corrupted("a value of an aggregate doesn't decode")
		}
		return nil
	}
	n := len(key) - 4
	if n < 0 {
		return corrupted("a value of an aggregate doesn't decode")
	}
	size := int(binary.BigEndian.Uint32(key[n:]))
	if size > n {
		return corrupted("a value of an aggregate doesn't decode")
	}
	return record.DecodeRow(key[n-size:n], &m.one, m.oneCols)
}

// prepare puts the tick's changes in the order of their slots, and within a slot of their values.
func (m *multiset) prepare() {
	if m.ready {
		return
	}
	m.ready = true
	for c := range m.values.Cols {
		m.values.Cols[c].Reset()
	}
	m.changes.appendKeys(m.values.Cols, 0, m.changes.n)
	n := len(m.touched)
	m.starts = resize(m.starts, n+1)
	clear(m.starts)
	slots := m.values.Cols[0].Ints
	for _, s := range slots {
		m.starts[s+1]++
	}
	for s := range n {
		m.starts[s+1] += m.starts[s]
	}
	m.bySlot = resize(m.bySlot, m.changes.n)
	next := slices.Clone(m.starts)
	for i, s := range slots {
		m.bySlot[next[s]] = int32(i)
		next[s]++
	}
	v := &m.values.Cols[1]
	for s := range n {
		part := m.bySlot[m.starts[s]:m.starts[s+1]]
		if m.ints {
			slices.SortFunc(part, func(a, b int32) int {
				if v.Ints[a] < v.Ints[b] {
					return -1
				}
				return 1
			})
		} else {
			slices.SortFunc(part, func(a, b int32) int { return bytes.Compare(v.At(int(a)), v.At(int(b))) })
		}
	}
}

// changed returns the changes of slot s.
func (m *multiset) changed(s int) []int32 {
	m.prepare()
	return m.bySlot[m.starts[s]:m.starts[s+1]]
}

// appendValue appends the bytes of the value of change c.
func (m *multiset) appendValue(dst []byte, c int32) []byte {
	if m.ints {
		return binary.BigEndian.AppendUint64(dst, uint64(m.values.Cols[1].Ints[c])^signBit)
	}
	return append(dst, m.values.Cols[1].At(int(c))...)
}

// partial packs the tick's changes of slot s as a list (see list).
func (m *multiset) partial(s, round int, out []record.Column) bool {
	nf := len(m.filters)
	switch {
	case round > 0 || !m.whole && !m.touched[s] || m.whole && len(m.lists[s]) == 0:
		out[0].AppendNull()
		return false
	case m.whole:
		out[0].AppendBytes(m.lists[s])
		return false
	}
	m.entry = m.entry[:0]
	for _, c := range m.changed(s) {
		w := m.weights[int(c)*nf : (int(c)+1)*nf]
		if allZero(w) {
			continue
		}
		m.key = m.appendValue(m.key[:0], c)
		m.entry = appendListed(m.entry, m.key, w)
	}
	if len(m.entry) == 0 {
		out[0].AppendNull()
	} else {
		out[0].AppendBytes(m.entry)
	}
	return false
}

// merge adds what partial packed.
func (m *multiset) merge(slots []int32, in *record.Delta, at int) error {
	c := &in.Cols[at]
	m.pair.Reset()
	m.passed = m.passed[:0]
	for i, s := range slots {
		w := in.Weight(i)
		if c.Null(i) || w == 0 {
			continue
		}
		m.touched[s] = true
		err := m.eachListed(c.At(i), func(key []byte, counts []int64) error {
			if m.ints {
				m.pair.Cols[1].AppendInt(int64(binary.BigEndian.Uint64(key) ^ signBit))
			} else {
				m.pair.Cols[1].AppendBytes(key)
			}
			m.pair.Cols[0].AppendInt(int64(s))
			m.pair.N++
			for _, n := range counts {
				m.passed = append(m.passed, n*w)
			}
			if m.pair.N < chunkRows {
				return nil
			}
			err := m.count()
			m.pair.Reset()
			m.passed = m.passed[:0]
			return err
		})
		if err != nil {
			return err
		}
	}
	return m.count()
}
