package dataflow

import (
	"hash/maphash"
	"math"
	"math/bits"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/record"
)

// mix is the step of wyhash: both halves of a product.
func mix(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	return hi ^ lo
}

const (
	mixA = 0x9e3779b97f4a7c15
	mixB = 0xe7037ed1a0b428db
)

func (t *groupTable) hashRows(n int) {
	h, stride := t.rowHash[:n], t.stride
	for i := range h {
		v := t.seed
		for _, w := range t.rowWords[i*stride : (i+1)*stride] {
			v = mix(v^w, mixA)
		}
		h[i] = v
	}
	for k := range t.cols {
		c := t.keys[k]
		if !c.Type.Varlen() {
			continue
		}
		for i := range h {
			if off := c.Offsets[i : i+2]; off[1] > off[0] && !c.Null(i) {
				h[i] = mix(h[i]^hashBytes(c.Bytes[off[0]:off[1]], t.hseed), mixB)
			}
		}
	}
}

// hashBytes hashes b; up to 16 bytes without a call.
func hashBytes(b []byte, seed maphash.Seed) uint64 {
	switch n := len(b); {
	case n > 16:
		return maphash.Bytes(seed, b)
	case n >= 8:
		return mix(load64(b)^mixB, load64(b[n-8:])^mixA)
	case n >= 4:
		return mix(uint64(load32(b))<<32|uint64(load32(b[n-4:]))^mixB, mixA)
	case n > 0:
		return mix(uint64(b[0])<<16|uint64(b[n>>1])<<8|uint64(b[n-1])^mixB, mixA)
	}
	return 0
}

func load64(b []byte) uint64 {
	_ = b[7]
	return uint64(b[0]) | uint64(b[1])<<8 | uint64(b[2])<<16 | uint64(b[3])<<24 |
		uint64(b[4])<<32 | uint64(b[5])<<40 | uint64(b[6])<<48 | uint64(b[7])<<56
}

func load32(b []byte) uint32 {
	_ = b[3]
	return uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24
}

// warmEntries is the size of a table from which on it isn't in the processor's cache any more.
const warmEntries = 1 << 15

// warm reads what the search for each row's key will read first. When the table is large each of these reads waits for
// memory; here they wait at the same time, as none depends on another one, and in the search one after the other.
func (t *groupTable) warm(n int) {
	if len(t.entries) < warmEntries {
		return
	}
	t.spots = resize(t.spots, n)
	sum := uint64(0)
	for i, h := range t.rowHash[:n] {
		t.spots[i] = -1
		if x := t.entries[h&t.mask]; x != 0 && x>>32 == h>>32 {
			t.spots[i] = int(uint32(x)) - 1
		}
	}
	for i, s := range t.spots {
		if s < 0 {
			continue
		}
		sum += t.words[s*t.stride]
		if t.varlen {
			t.spots[i] = t.begin(s)
		}
	}
	if t.varlen {
		for _, at := range t.spots {
			if uint(at) < uint(len(t.bytes)) {
				sum += uint64(t.bytes[at])
			}
		}
	}
	t.touched = sum // or the compiler would see that nobody needs the sum
}

// insert adds a slot for a key with hash h at entry e, and makes room when the table is half full.
func (t *groupTable) insert(e, h uint64) int32 {
	s := t.n
	t.entries[e] = h>>32<<32 | uint64(s+1)
	t.hashes = append(t.hashes, h)
	t.n++
	if 2*t.n > len(t.entries) {
		grow := 4
		if t.n > 1<<16 {
			grow = 2
		}
		t.rehash(grow * len(t.entries))
	}
	return int32(s)
}

func (t *groupTable) rehash(size int) {
	t.entries, t.mask = make([]uint64, size), uint64(size-1)
	for s, h := range t.hashes {
		e := h & t.mask
		for t.entries[e] != 0 {
			e = (e + 1) & t.mask
		}
		t.entries[e] = h>>32<<32 | uint64(s+1)
	}
}

// assignSingle is assign for one column of one word.
func (t *groupTable) assignSingle(n int) {
	c := t.keys[0]
	if c.Type.Layout() == record.LayoutInts {
		// The words are the values: read them where they are.
		for i, v := range c.Ints[:n] {
			t.rowHash[i] = mix(t.seed^uint64(v), mixA)
		}
		t.warm(n)
		t.probeInts(c.Ints[:n], n)
	} else {
		t.rowWords = resize(t.rowWords, n)
		t.packSingle(c, n)
		for i, v := range t.rowWords[:n] {
			t.rowHash[i] = mix(t.seed^v, mixA)
		}
		t.probeWords(n)
	}
	if c.Validity == nil {
		return
	}
	// A NULL was taken for the value in its slot of the column. When that made a new key it is an empty one; no
	// matter: it gets no row, unless the value comes too.
	for i := range n {
		if !c.Validity.Valid(i) {
			t.slots[i] = int32(t.nullSlot())
		}
	}
}

func (t *groupTable) packSingle(c *record.Column, n int) {
	switch c.Type {
	case record.Boolean:
		for i, v := range c.Bools[:n] {
			t.rowWords[i] = 0
			if v {
				t.rowWords[i] = 1
			}
		}
	case record.Double:
		for i, v := range c.Floats[:n] {
			t.rowWords[i] = floatBits(v)
		}
	}
}

// nullSlot returns the slot of a single NULL, which isn't in entries.
func (t *groupTable) nullSlot() int {
	if t.null < 0 {
		t.null = t.n
		t.words = append(t.words, 0)
		t.hashes = append(t.hashes, 0)
		t.n++
	}
	return t.null
}

func (t *groupTable) probeInts(v []int64, n int) {
	for i := range n {
		h := t.rowHash[i]
		e := h & t.mask
		for {
			x := t.entries[e]
			if x == 0 {
				t.words = append(t.words, uint64(v[i]))
				t.slots[i] = t.insert(e, h)
				break
			}
			if x>>32 == h>>32 && t.words[uint32(x)-1] == uint64(v[i]) {
				t.slots[i] = int32(uint32(x) - 1)
				break
			}
			e = (e + 1) & t.mask
		}
	}
}

func (t *groupTable) probe4(n int) {
	for i := range n {
		h := t.rowHash[i]
		e := h & t.mask
		row := (*[4]uint64)(t.rowWords[i*4:])
		for {
			x := t.entries[e]
			if x == 0 {
				t.words = append(t.words, row[:]...)
				t.slots[i] = t.insert(e, h)
				break
			}
			if x>>32 == h>>32 {
				s := uint64(uint32(x) - 1)
				if *(*[4]uint64)(t.words[s*4:]) == *row {
					t.slots[i] = int32(s)
					break
				}
			}
			e = (e + 1) & t.mask
		}
	}
}

func (t *groupTable) probeWords(n int) {
	for i := range n {
		h := t.rowHash[i]
		e := h & t.mask
		row := t.rowWords[i*t.stride : (i+1)*t.stride]
		for {
			x := t.entries[e]
			if x == 0 {
				t.words = append(t.words, row...)
				t.slots[i] = t.insert(e, h)
				break
			}
			if x>>32 == h>>32 && sameWords(t.words[(int(uint32(x))-1)*t.stride:], row) {
				t.slots[i] = int32(uint32(x) - 1)
				break
			}
			e = (e + 1) & t.mask
		}
	}
}

func sameWords(a, b []uint64) bool {
	a = a[:len(b)]
	for i, w := range b {
		if a[i] != w {
			return false
		}
	}
	return true
}

func (t *groupTable) probeVarlen(n int) error {
	for i := range n {
		h := t.rowHash[i]
		e := h & t.mask
		row := t.rowWords[i*t.stride : (i+1)*t.stride]
		for {
			x := t.entries[e]
			if x == 0 {
				if err := t.insertVarlen(e, h, row, i); err != nil {
					return err
				}
				break
			}
			if x>>32 == h>>32 {
				s := int(uint32(x)) - 1
				if sameWords(t.words[s*t.stride:], row) && t.sameBytes(s, i) {
					t.slots[i] = int32(s)
					break
				}
			}
			e = (e + 1) & t.mask
		}
	}
	return nil
}

func (t *groupTable) begin(s int) int {
	if s == 0 {
		return 0
	}
	return t.ends[s-1]
}

// sameBytes tells whether slot s has row i's varlen values; their lengths are known to be the same.
func (t *groupTable) sameBytes(s, i int) bool {
	at := t.begin(s)
	for k := range t.cols {
		c := t.keys[k]
		if !c.Type.Varlen() || c.Null(i) {
			continue
		}
		v := c.At(i)
		if string(t.bytes[at:at+len(v)]) != string(v) {
			return false
		}
		at += len(v)
	}
	return true
}

func (t *groupTable) insertVarlen(e, h uint64, row []uint64, i int) error {
	for k := range t.cols {
		if c := t.keys[k]; c.Type.Varlen() && !c.Null(i) {
			t.bytes = append(t.bytes, c.At(i)...)
		}
	}
	// Any one column of the keys must fit a column's 32-bit offsets.
	if len(t.bytes) > math.MaxInt32 {
		return fault.New(fault.TooLarge, "the distinct keys or rows of one tick have more than 2 GiB")
	}
	t.words = append(t.words, row...)
	t.ends = append(t.ends, len(t.bytes))
	t.slots[i] = t.insert(e, h)
	return nil
}
