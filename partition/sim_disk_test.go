package partition

import (
	"bytes"
	"slices"
	"sort"
)

// simDisk is what is on a node's disk.
type simDisk map[string][]byte

func (d simDisk) has(key []byte) bool { _, ok := d[string(key)]; return ok }

func (d simDisk) Set(key, value []byte) { d[string(key)] = bytes.Clone(value) }

func (d simDisk) Delete(key []byte) { delete(d, string(key)) }

func (d simDisk) DeleteRange(lo, hi []byte) {
	for k := range d {
		if k >= string(lo) && k < string(hi) {
			delete(d, k)
		}
	}
}

func (d simDisk) put(w *write) {
	b := &simBatch{simDisk: d}
	put(b, w)
	b.finish()
}

type simBatch struct {
	simDisk
	key, value []byte
}

func (b *simBatch) SetDeferred(keyLen, valueLen int) (key, value []byte) {
	b.finish()
	b.key, b.value = make([]byte, keyLen), make([]byte, valueLen)
	return b.key, b.value
}

func (b *simBatch) finish() {
	if b.key != nil {
		b.simDisk[string(b.key)] = b.value
		b.key = nil
	}
}

type simIter struct {
	d    simDisk
	keys []string
	i    int
}

func (d simDisk) iter() *simIter {
	it := &simIter{d: d}
	for k := range d {
		it.keys = append(it.keys, k)
	}
	slices.Sort(it.keys)
	return it
}

func (it *simIter) SeekGE(key []byte) bool {
	it.i = sort.SearchStrings(it.keys, string(key))
	return it.i < len(it.keys)
}

func (it *simIter) SeekLT(key []byte) bool {
	it.i = sort.SearchStrings(it.keys, string(key)) - 1
	return it.i >= 0
}

func (it *simIter) Next() bool { it.i++; return it.i < len(it.keys) }

func (it *simIter) Key() []byte { return []byte(it.keys[it.i]) }

func (it *simIter) Value() []byte { return it.d[it.keys[it.i]] }

func (it *simIter) Error() error { return nil }
