package stage

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"slices"
)

// keyHead is an entry with the eight bytes of its key behind what all keys begin with.
type keyHead struct {
	head  uint64
	index int32
}

// sortByKey orders entry indices by their keys. The keys lie scattered, so that the eight bytes behind what all of them begin
// with are compared first, which mostly tells.
func (t *table) sortByKey(indices []int32) {
	if len(indices) < 2 {
		return
	}
	first := t.key(indices[0])
	common := len(first)
	for _, i := range indices[1:] {
		key := t.key(i)
		common = min(common, len(key))
		for common > 0 && !bytes.Equal(first[:common], key[:common]) {
			common--
		}
	}
	all := make([]keyHead, len(indices))
	for n, i := range indices {
		var head [8]byte
		copy(head[:], t.key(i)[common:])
		all[n] = keyHead{binary.BigEndian.Uint64(head[:]), i}
	}
	all = sortByHead(all)
	for lo := 0; lo < len(all); {
		hi := lo + 1
		for hi < len(all) && all[hi].head == all[lo].head {
			hi++
		}
		if hi-lo > 1 {
			slices.SortFunc(all[lo:hi], func(a, b keyHead) int { return bytes.Compare(t.key(a.index), t.key(b.index)) })
		}
		lo = hi
	}
	for n := range all {
		indices[n] = all[n].index
	}
}

// radixLeast is how many entries are sorted faster byte by byte than by comparisons.
const radixLeast = 512

// sortByHead sorts all by head and returns it, or memory like it: a radix sort over the bytes in which heads differ.
func sortByHead(all []keyHead) []keyHead {
	if len(all) < radixLeast {
		slices.SortFunc(all, func(a, b keyHead) int { return cmp.Compare(a.head, b.head) })
		return all
	}
	differ := uint64(0)
	for i := range all {
		differ |= all[i].head ^ all[0].head
	}
	to := make([]keyHead, len(all))
	for shift := 0; shift < 64; shift += 8 {
		if differ>>shift&0xff == 0 {
			continue
		}
		var at [256]int32
		for i := range all {
			at[all[i].head>>shift&0xff]++
		}
		next := int32(0)
		for b := range at {
			at[b], next = next, next+at[b]
		}
		for i := range all {
			b := all[i].head >> shift & 0xff
			to[at[b]] = all[i]
			at[b]++
		}
		all, to = to, all
	}
	return all
}
