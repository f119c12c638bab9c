package stage

import (
	"bytes"
	"hash/maphash"
)

// arenaChunk is how much memory a large table takes at a time for keys and values, in bytes.
const arenaChunk = 256 << 10

// leastChunk is the first piece of it; each is twice as large as the one before.
const leastChunk = 4 << 10

// table is a hash table from bytes to bytes for very many small entries: the entries hold no pointers, keys and values
// lie in large chunks. An entry is never taken out; that it was deleted is a fact worth keeping until it is written.
// Entries are found again by their index, in the order they were added. Not safe for concurrent use.
type table struct {
	seed    maphash.Seed
	slots   []int32 // index into entries + 1; 0: free; a power of two
	entries []entry
	chunks  [][]byte
	free    int   // first free byte of the last chunk
	bytes   int   // memory in use, about
	last    int32 // the entry that was found or added last + 1; 0: none
}

type entry struct {
	hash             uint64
	key, value       uint64 // chunk<<32 | position
	keyLen, valueLen uint32
	valueCap         uint32
	dirty            bool
	absent           bool // deleted, or known not to be there
}

const entryBytes = 48 // an entry and its share of the slots

func newTable() *table { return &table{seed: maphash.MakeSeed()} }

func (t *table) at(ref uint64, n uint32) []byte {
	chunk, pos := ref>>32, ref&0xffffffff
	return t.chunks[chunk][pos : pos+uint64(n) : pos+uint64(n)]
}

func (t *table) key(i int32) []byte { return t.at(t.entries[i].key, t.entries[i].keyLen) }

func (t *table) value(i int32) []byte { return t.at(t.entries[i].value, t.entries[i].valueLen) }

// alloc returns room for n bytes.
func (t *table) alloc(n int) uint64 {
	if len(t.chunks) == 0 || t.free+n > len(t.chunks[len(t.chunks)-1]) {
		size := leastChunk // most tables stay small
		if len(t.chunks) > 0 {
			size = min(2*len(t.chunks[len(t.chunks)-1]), arenaChunk)
		}
		t.chunks = append(t.chunks, make([]byte, max(size, n)))
		t.free = 0
	}
	ref := uint64(len(t.chunks)-1)<<32 | uint64(t.free)
	t.free += n
	t.bytes += n
	return ref
}

// find returns the index of key's entry, or -1.
func (t *table) find(key []byte) int32 {
	if len(t.slots) == 0 {
		return -1
	}
	if i := t.last - 1; i >= 0 && bytes.Equal(t.key(i), key) {
		return i // what is written was mostly read just before
	}
	h := maphash.Bytes(t.seed, key)
	mask := uint64(len(t.slots) - 1)
	for s := h & mask; ; s = (s + 1) & mask {
		i := t.slots[s]
		if i == 0 {
			return -1
		}
		if e := &t.entries[i-1]; e.hash == h && bytes.Equal(t.at(e.key, e.keyLen), key) {
			t.last = i
			return i - 1
		}
	}
}

// add appends an entry for key, which has none, without a value.
func (t *table) add(key []byte) int32 {
	if len(t.entries)*2 >= len(t.slots) {
		t.grow()
	}
	h := maphash.Bytes(t.seed, key)
	ref := t.alloc(len(key))
	copy(t.at(ref, uint32(len(key))), key)
	t.entries = append(t.entries, entry{hash: h, key: ref, keyLen: uint32(len(key)), absent: true})
	t.bytes += entryBytes
	i := int32(len(t.entries))
	t.place(h, i)
	t.last = i
	return i - 1
}

func (t *table) place(h uint64, i int32) {
	mask := uint64(len(t.slots) - 1)
	s := h & mask
	for t.slots[s] != 0 {
		s = (s + 1) & mask
	}
	t.slots[s] = i
}

func (t *table) grow() {
	t.slots = make([]int32, max(64, 2*len(t.slots)))
	for i := range t.entries {
		t.place(t.entries[i].hash, int32(i+1))
	}
}

// put sets the value of entry i.
func (t *table) put(i int32, value []byte) {
	e := &t.entries[i]
	if len(value) > int(e.valueCap) {
		room := len(value)
		if e.valueCap > 0 {
			room += room / 2 // it grew once, it may again
		}
		e.value = t.alloc(room)
		e.valueCap = uint32(room)
	}
	e.valueLen, e.absent = uint32(len(value)), false
	copy(t.at(e.value, e.valueLen), value)
}

// reset empties the table; it keeps its memory unless that is much.
func (t *table) reset() {
	if t.bytes > arenaChunk {
		*t = table{seed: t.seed}
		return
	}
	clear(t.slots)
	t.entries = t.entries[:0]
	if len(t.chunks) > 0 {
		t.chunks = t.chunks[len(t.chunks)-1:]
	}
	t.free, t.bytes, t.last = 0, 0, 0
}
