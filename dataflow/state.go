package dataflow

import (
	"slices"
	"strings"
)

// State is the keyed state of one stage in one partition. It isn't used by two goroutines at once. Every key begins
// with the index of the operator that it belongs to. Errors are passed on as they are and end the fragment.
type State interface {
	// Get returns the value of key, valid until the next call of any method.
	Get(key []byte) (value []byte, ok bool, err error)
	// Set keeps copies of key and value.
	Set(key, value []byte) error
	Delete(key []byte) error
	// Scan calls fn for the entries with lo <= key < hi in the order of their keys, until fn returns false or an
	// error. fn doesn't change the state, and keeps neither key nor value.
	Scan(lo, hi []byte, fn func(key, value []byte) (bool, error)) error
}

// MemState is a State in memory: a map, and blocks of keys in order that are brought up to date when it is scanned.
// The zero value is empty and ready to use. It holds whatever it is given: bounding it is its user's part.
type MemState struct {
	index  map[string]int32
	values [][]byte
	placed []bool     // whether the slot's key is in blocks
	free   []int32    // slots that hold no entry
	blocks [][]string // keys in order, at most blockKeys in each, none of them empty
	fresh  []string   // keys that aren't in blocks, in no order; some may have been deleted since
}

const blockKeys = 512

// Get implements State.
func (s *MemState) Get(key []byte) ([]byte, bool, error) {
	i, ok := s.index[string(key)]
	if !ok {
		return nil, false, nil
	}
	return s.values[i], true, nil
}

// Set implements State.
func (s *MemState) Set(key, value []byte) error {
	if i, ok := s.index[string(key)]; ok {
		s.values[i] = append(s.values[i][:0], value...)
		return nil
	}
	if s.index == nil {
		s.index = make(map[string]int32)
	}
	var i int32
	if n := len(s.free); n > 0 {
		i, s.free = s.free[n-1], s.free[:n-1]
		s.values[i], s.placed[i] = append(s.values[i][:0], value...), false
	} else {
		i = int32(len(s.values))
		s.values = append(s.values, append(make([]byte, 0, len(value)+4), value...))
		s.placed = append(s.placed, false)
	}
	k := string(key)
	s.index[k] = i
	s.fresh = append(s.fresh, k)
	return nil
}

// Delete implements State.
func (s *MemState) Delete(key []byte) error {
	i, ok := s.index[string(key)]
	if !ok {
		return nil
	}
	delete(s.index, string(key))
	s.free = append(s.free, i)
	if s.placed[i] {
		b := s.block(string(key))
		at, _ := slices.BinarySearch(s.blocks[b], string(key))
		if s.blocks[b] = slices.Delete(s.blocks[b], at, at+1); len(s.blocks[b]) == 0 {
			s.blocks = slices.Delete(s.blocks, b, b+1)
		}
	} else if len(s.fresh) > 2*len(s.index)+blockKeys {
		s.place() // keys that were set and deleted again must not pile up
	}
	return nil
}

// DeleteRange implements RangeDeleter.
func (s *MemState) DeleteRange(lo, hi []byte) error {
	s.place()
	for len(s.blocks) > 0 {
		b := s.block(string(lo))
		from, _ := slices.BinarySearch(s.blocks[b], string(lo))
		if from == len(s.blocks[b]) {
			if b++; b == len(s.blocks) {
				return nil
			}
			from = 0
		}
		block := s.blocks[b]
		to := len(block)
		if hi != nil {
			to, _ = slices.BinarySearch(block, string(hi))
		}
		if to <= from {
			return nil
		}
		for _, k := range block[from:to] {
			s.free = append(s.free, s.index[k])
			delete(s.index, k)
		}
		if s.blocks[b] = slices.Delete(block, from, to); len(s.blocks[b]) == 0 {
			s.blocks = slices.Delete(s.blocks, b, b+1)
		}
	}
	return nil
}

// Len returns the number of entries.
func (s *MemState) Len() int { return len(s.index) }

// Scan implements State.
func (s *MemState) Scan(lo, hi []byte, fn func(key, value []byte) (bool, error)) error {
	s.place()
	if len(s.blocks) == 0 {
		return nil
	}
	var key []byte
	first := s.block(string(lo))
	from, _ := slices.BinarySearch(s.blocks[first], string(lo))
	for _, block := range s.blocks[first:] {
		for _, k := range block[from:] {
			if hi != nil && k >= string(hi) {
				return nil
			}
			key = append(key[:0], k...)
			if more, err := fn(key, s.values[s.index[k]]); err != nil || !more {
				return err
			}
		}
		from = 0
	}
	return nil
}

// block returns the block that key belongs in.
func (s *MemState) block(key string) int {
	b, found := slices.BinarySearchFunc(s.blocks, key, func(b []string, k string) int { return strings.Compare(b[0], k) })
	if found {
		return b
	}
	return max(0, b-1)
}

// place moves the fresh keys into the blocks.
func (s *MemState) place() {
	if len(s.fresh) == 0 {
		return
	}
	slices.Sort(s.fresh)
	merge := len(s.fresh) > len(s.index)/8
	var added []string
	for _, k := range s.fresh {
		i, ok := s.index[k]
		if !ok || s.placed[i] {
			continue
		}
		s.placed[i] = true
		if merge {
			added = append(added, k)
		} else {
			s.insert(k)
		}
	}
	if merge {
		s.mergeKeys(added)
	}
	s.fresh = shrink(s.fresh, len(s.fresh))
}

func (s *MemState) insert(key string) {
	if len(s.blocks) == 0 {
		s.blocks = append(s.blocks, []string{key})
		return
	}
	b := s.block(key)
	at, _ := slices.BinarySearch(s.blocks[b], key)
	s.blocks[b] = slices.Insert(s.blocks[b], at, key)
	if n := len(s.blocks[b]); n > blockKeys {
		tail := slices.Clone(s.blocks[b][n/2:])
		s.blocks[b] = slices.Delete(s.blocks[b], n/2, n)
		s.blocks = slices.Insert(s.blocks, b+1, tail)
	}
}

// mergeKeys builds the blocks anew from what they hold and the keys of added, which is in order.
func (s *MemState) mergeKeys(added []string) {
	all := make([]string, 0, len(s.index))
	for _, block := range s.blocks {
		for _, k := range block {
			for len(added) > 0 && added[0] < k {
				all, added = append(all, added[0]), added[1:]
			}
			all = append(all, k)
		}
	}
	all = append(all, added...)
	s.blocks = s.blocks[:0]
	for block := range slices.Chunk(all, blockKeys/2) {
		s.blocks = append(s.blocks, slices.Clone(block))
	}
}
