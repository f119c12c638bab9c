package dataflow

import (
	"hash/maphash"
	"math"

	"github.com/millrace/millrace/record"
)

// groupTable gives each distinct key a slot, 0, 1, 2, ... in the order in which they come. It is used tick after
// tick; reset forgets the keys.
//
// A key is `stride` words of fixed width (one word of bits for the NULLs of each 64 columns; then per column its
// value, or the length of a varlen one) and, if it has varlen columns, their bytes one after the other. Words of all
// slots lie in one slice, and so do the bytes: a row that isn't new allocates nothing. The table itself is open
// addressing with linear probing over entries that hold half of the hash next to the slot, so that a wrong key is
// nearly never looked at.
type groupTable struct {
	cols   []keyColumn
	stride int
	varlen bool
	single bool // one column of one word: kept without the word for NULLs
	exact  bool // equal values of different form are different keys

	seed  uint64
	hseed maphash.Seed

	entries []uint64 // hash>>32<<32 | slot+1; 0: free
	mask    uint64
	n       int // slots
	hashes  []uint64
	words   []uint64 // n*stride
	ends    []int    // of each slot's bytes
	bytes   []byte
	null    int // single: slot of NULL, or -1
	peak    int // slots of a usual tick, for shrinking

	// of the rows of one call
	spots    []int
	touched  uint64
	rowWords []uint64
	rowHash  []uint64
	slots    []int32
	canon    []record.Column
	keys     []*record.Column
}

type keyColumn struct {
	typ  record.Type
	word int // where its words begin
}

const minEntries = 1 << 7 // thousands of views have a table in each partition

func newGroupTable(s record.Schema, exact bool) *groupTable {
	t := &groupTable{exact: exact, null: -1, hseed: maphash.MakeSeed(), entries: make([]uint64, minEntries)}
	t.mask = minEntries - 1
	t.seed = maphash.String(t.hseed, "words")
	t.stride = (len(s) + 63) / 64
	if len(s) == 1 && wordsOf(s[0].Type) == 1 && !s[0].Type.Varlen() {
		t.single, t.stride = true, 0
	}
	for _, f := range s {
		t.cols = append(t.cols, keyColumn{f.Type, t.stride})
		t.stride += wordsOf(f.Type)
		t.varlen = t.varlen || f.Type.Varlen()
	}
	t.canon = make([]record.Column, len(s))
	t.keys = make([]*record.Column, len(s))
	return t
}

// wordsOf returns the words of a key column of type t.
func wordsOf(t record.Type) int {
	switch t {
	case record.IntervalT:
		return 2
	case record.Unknown:
		return 0
	}
	return 1
}

// assign returns the slot of each row of in, by its columns cols. The slice is valid until the next call.
func (t *groupTable) assign(in *record.Delta, cols []int) ([]int32, error) {
	for k, c := range cols {
		t.keys[k] = &in.Cols[c]
		if !t.exact {
			t.keys[k] = canonicalColumn(&in.Cols[c], &t.canon[k])
		}
	}
	t.slots = resize(t.slots, in.N)
	t.rowHash = resize(t.rowHash, in.N)
	if t.single {
		t.assignSingle(in.N)
		return t.slots, nil
	}
	t.rowWords = resize(t.rowWords, in.N*t.stride)
	t.pack(in.N)
	t.hashRows(in.N)
	t.warm(in.N)
	var err error
	switch {
	case t.varlen:
		err = t.probeVarlen(in.N)
	case t.stride == 4: // one word and a window
		t.probe4(in.N)
	default:
		t.probeWords(in.N)
	}
	return t.slots, err
}

// canonicalColumn returns c with equal values in equal form: c itself, or scratch.
func canonicalColumn(c, scratch *record.Column) *record.Column {
	switch c.Type {
	case record.Numeric:
		return canonicalNumerics(c, scratch)
	case record.JSONB:
		return canonicalJSONs(c, scratch)
	case record.Double:
		return canonicalDoubles(c, scratch)
	case record.IntervalT:
		return canonicalIntervals(c, scratch)
	}
	if c.Type.HasForms() {
		return canonicalArrays(c, scratch)
	}
	return c
}

// canonicalArrays returns c with the elements of its arrays in canonical form.
func canonicalArrays(c, scratch *record.Column) *record.Column {
	scratch.Type = c.Type
	scratch.Reset()
	var buf []byte
	for i := range c.N {
		if c.Null(i) {
			scratch.AppendNull()
			continue
		}
		buf = record.AppendNormalArray(buf[:0], c.Type, c.At(i))
		scratch.AppendBytes(buf)
	}
	return scratch
}

// canonicalDoubles returns c without negative zeros.
func canonicalDoubles(c, scratch *record.Column) *record.Column {
	same := true
	for _, v := range c.Floats[:c.N] {
		same = same && !(v == 0 && math.Signbit(v))
	}
	if same {
		return c
	}
	scratch.Type = record.Double
	scratch.Reset()
	for _, v := range c.Floats[:c.N] {
		if v == 0 {
			v = 0
		}
		scratch.Floats = append(scratch.Floats, v)
	}
	scratch.N, scratch.Validity = c.N, c.Validity
	return scratch
}

// canonicalIntervals returns c with as many whole months and days as fit.
func canonicalIntervals(c, scratch *record.Column) *record.Column {
	scratch.Type = record.IntervalT
	scratch.Reset()
	for _, v := range c.Intervals[:c.N] {
		scratch.Intervals = append(scratch.Intervals, canonicalInterval(v))
	}
	scratch.N, scratch.Validity = c.N, c.Validity
	return scratch
}

// floatBits returns v's bits, the same ones for every NaN.
func floatBits(v float64) uint64 {
	if v != v {
		return 0x7ff8000000000001
	}
	return math.Float64bits(v)
}

// pack fills rowWords from the key columns.
func (t *groupTable) pack(n int) {
	rw, stride := t.rowWords, t.stride
	for w := range (len(t.cols) + 63) / 64 {
		for i := range n {
			rw[i*stride+w] = 0
		}
	}
	for k := range t.cols {
		c, at := t.keys[k], t.cols[k].word
		switch c.Type.Layout() {
		case record.LayoutInts:
			for i, v := range c.Ints[:n] {
				rw[i*stride+at] = uint64(v)
			}
		case record.LayoutBools:
			for i, v := range c.Bools[:n] {
				rw[i*stride+at] = 0
				if v {
					rw[i*stride+at] = 1
				}
			}
		case record.LayoutFloats:
			for i, v := range c.Floats[:n] {
				rw[i*stride+at] = floatBits(v)
			}
		case record.LayoutIntervals:
			for i, v := range c.Intervals[:n] {
				rw[i*stride+at] = uint64(uint32(v.Months))<<32 | uint64(uint32(v.Days))
				rw[i*stride+at+1] = uint64(v.Micros)
			}
		case record.LayoutBytes:
			off := c.Offsets[:n+1]
			for i := range n {
				rw[i*stride+at] = uint64(off[i+1] - off[i])
			}
		}
		if c.Validity != nil || c.Type == record.Unknown {
			t.packNulls(k, n)
		}
	}
}

// packNulls gives NULLs of key column k the word zero and their bit.
func (t *groupTable) packNulls(k, n int) {
	c := t.keys[k]
	for i := range n {
		if c.Type == record.Unknown || c.Null(i) {
			row := t.rowWords[i*t.stride : (i+1)*t.stride]
			row[k>>6] |= 1 << (k & 63)
			for w := range wordsOf(c.Type) {
				row[t.cols[k].word+w] = 0
			}
		}
	}
}

// appendKeys appends the keys of slots [lo, hi) to cols, a column for each column of the key.
func (t *groupTable) appendKeys(cols []record.Column, lo, hi int) {
	if lo >= hi {
		return
	}
	for k := range t.cols {
		if t.cols[k].typ.Varlen() {
			continue
		}
		for s := lo; s < hi; s++ {
			t.appendFixed(&cols[k], k, s)
		}
	}
	if !t.varlen {
		return
	}
	for s := lo; s < hi; s++ {
		at := t.begin(s)
		for k := range t.cols {
			if !t.cols[k].typ.Varlen() {
				continue
			}
			if t.isNull(k, s) {
				cols[k].AppendNull()
				continue
			}
			n := int(t.words[s*t.stride+t.cols[k].word])
			cols[k].AppendBytes(t.bytes[at : at+n])
			at += n
		}
	}
}

func (t *groupTable) isNull(k, s int) bool {
	if t.single {
		return s == t.null
	}
	return t.words[s*t.stride+k>>6]&(1<<(k&63)) != 0
}

func (t *groupTable) appendFixed(c *record.Column, k, s int) {
	if t.isNull(k, s) {
		c.AppendNull()
		return
	}
	w := t.words[s*t.stride+t.cols[k].word]
	switch c.Type.Layout() {
	case record.LayoutInts:
		c.AppendInt(int64(w))
	case record.LayoutBools:
		c.AppendBool(w != 0)
	case record.LayoutFloats:
		c.AppendFloat(math.Float64frombits(w))
	case record.LayoutIntervals:
		micros := t.words[s*t.stride+t.cols[k].word+1]
		c.AppendInterval(record.Interval{Months: int32(w >> 32), Days: int32(uint32(w)), Micros: int64(micros)})
	}
}

// reset forgets the keys, and gives memory back when a usual tick needs far less.
func (t *groupTable) reset() {
	t.peak = max(t.n, t.peak-t.peak/8)
	switch {
	case len(t.entries) > minEntries && len(t.entries) > 16*max(t.peak, minEntries/16):
		t.entries = make([]uint64, minEntries)
		t.mask = minEntries - 1
		t.words, t.hashes, t.ends, t.bytes = nil, nil, nil, nil
	case t.n < len(t.entries)/16:
		for s, h := range t.hashes {
			t.forget(h, s)
		}
	default:
		clear(t.entries)
	}
	t.words, t.hashes, t.ends = t.words[:0], t.hashes[:0], t.ends[:0]
	if cap(t.bytes) > maxKeptBytes && cap(t.bytes) > 16*len(t.bytes) {
		t.bytes = nil
	}
	t.bytes = t.bytes[:0]
	t.n, t.null = 0, -1
}

// forget frees the entry of slot s. No entry is looked for any more, so that holes do no harm.
func (t *groupTable) forget(h uint64, s int) {
	if s == t.null {
		return
	}
	for e := h & t.mask; ; e = (e + 1) & t.mask {
		if uint32(t.entries[e]) == uint32(s+1) {
			t.entries[e] = 0
			return
		}
	}
}
