package stage

import (
	"bytes"
	"errors"

	"github.com/google/btree"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/storage"
)

// stateTable is one space of a target's keyed state: what changed lately in memory, over a cache of what was read or
// written before, over the state store. It is the State of the stage's operators. Not safe for concurrent use.
//
// The cache is two generations of entries: once the younger one is large and holds nothing dirty, it becomes the older
// one, and what that one held is forgotten unless it was looked up since.
type stateTable struct {
	store  Store
	prefix []byte // of the space's keys
	room   []byte // scratch for whole keys
	young  *table
	old    *table  // only clean entries; nil: none
	dirty  []int32 // entries of young
	// ordered holds the first placed of dirty by their keys, for Scan: nothing is put there before the first one, and what
	// has come since the last one is put there by the next.
	ordered *btree.BTreeG[int32]
	placed  int
	pivot   []byte        // what pivotIndex stands for in ordered
	cursor  *storage.Iter // over the whole space, kept from one Scan to the next; nil: none is open
	inScan  bool          // cursor is in use
	// complete: nothing is stored that isn't in memory too, so that the store needn't be asked.
	complete bool
	bytes    int64 // of keys and values of the whole space, about: exact for entries that were known when they changed
	dirtyBytes,
	limit int // of young, in bytes, beyond which flush turns the generations over
}

// newStateTable makes the table of the keys that begin with prefix.
func newStateTable(store Store, prefix []byte) *stateTable {
	return &stateTable{store: store, prefix: prefix, young: newTable()}
}

func (s *stateTable) storeKey(key []byte) []byte {
	s.room = append(append(s.room[:0], s.prefix...), key...)
	return s.room
}

// lookup returns key's entry in the younger generation, read from below if need be.
func (s *stateTable) lookup(key []byte) (int32, error) {
	if i := s.young.find(key); i >= 0 {
		return i, nil
	}
	if s.old != nil {
		if o := s.old.find(key); o >= 0 {
			i := s.young.add(key)
			if !s.old.entries[o].absent {
				s.young.put(i, s.old.value(o))
			}
			return i, nil
		}
	}
	if s.complete {
		return s.young.add(key), nil
	}
	value, closer, err := s.store.Get(s.storeKey(key))
	if err != nil {
		if errors.Is(err, fault.Of(fault.NotFound)) {
			return s.young.add(key), nil
		}
		return 0, err
	}
	i := s.young.add(key)
	s.young.put(i, value)
	return i, closer.Close()
}

// Get implements dataflow.State.
func (s *stateTable) Get(key []byte) ([]byte, bool, error) {
	i, err := s.lookup(key)
	if err != nil || s.young.entries[i].absent {
		return nil, false, err
	}
	return s.young.value(i), true, nil
}

// peek is Get without leaving a trace in the cache.
func (s *stateTable) peek(key []byte) (value []byte, known, ok bool) {
	for _, t := range []*table{s.young, s.old} {
		if t == nil {
			continue
		}
		if i := t.find(key); i >= 0 {
			if t.entries[i].absent {
				return nil, true, false
			}
			return t.value(i), true, true
		}
	}
	return nil, false, false
}

// entryFor returns an entry to write to, whatever it holds.
func (s *stateTable) entryFor(key []byte) int32 {
	i := s.young.find(key)
	if i < 0 {
		i = s.young.add(key)
		if s.old != nil {
			if o := s.old.find(key); o >= 0 && !s.old.entries[o].absent {
				s.bytes -= int64(len(key)) + int64(s.old.entries[o].valueLen)
			}
		}
	}
	e := &s.young.entries[i]
	if !e.absent {
		s.bytes -= int64(len(key)) + int64(e.valueLen)
	}
	if !e.dirty {
		e.dirty = true
		s.dirty = append(s.dirty, i)
		s.dirtyBytes += entryBytes + len(key)
	} else {
		s.dirtyBytes -= int(e.valueLen)
	}
	return i
}

// Set implements dataflow.State.
func (s *stateTable) Set(key, value []byte) error {
	i := s.entryFor(key)
	s.young.put(i, value)
	s.dirtyBytes += len(value)
	s.bytes += int64(len(key) + len(value))
	return nil
}

// Delete implements dataflow.State.
func (s *stateTable) Delete(key []byte) error {
	i := s.entryFor(key)
	s.young.entries[i].absent, s.young.entries[i].valueLen = true, 0
	return nil
}

// pivotIndex stands for the key in pivot.
const pivotIndex = -1

// orderedDegree is that of the tree of dirty entries: nodes of some 250 bytes.
const orderedDegree = 32

func (s *stateTable) orderedKey(i int32) []byte {
	if i == pivotIndex {
		return s.pivot
	}
	return s.young.key(i)
}

// place puts the dirty entries that have come since the last Scan in order.
func (s *stateTable) place() {
	if s.ordered == nil {
		s.ordered = btree.NewG(orderedDegree, func(a, b int32) bool { return bytes.Compare(s.orderedKey(a), s.orderedKey(b)) < 0 })
	}
	for _, i := range s.dirty[s.placed:] {
		s.ordered.ReplaceOrInsert(i)
	}
	s.placed = len(s.dirty)
}

// Scan implements dataflow.State: the dirty entries in order, merged with the store's.
func (s *stateTable) Scan(lo, hi []byte, fn func(key, value []byte) (bool, error)) error {
	s.place()
	from := append(append([]byte(nil), s.prefix...), lo...)
	_, to := prefixRange(s.prefix)
	if hi != nil {
		to = append(append([]byte(nil), s.prefix...), hi...)
	}
	if s.inScan { // fn scans itself: it gets an iterator of its own
		it, err := s.store.Iter(from, to)
		if err != nil {
			return err
		}
		if err := s.merge(it, from[len(s.prefix):], hi, fn); err != nil {
			_ = it.Close()
			return err
		}
		return it.Close()
	}
	if s.cursor == nil {
		var err error
		if s.cursor, err = s.store.Iter(from, to); err != nil {
			return err
		}
	} else {
		s.cursor.SetBounds(from, to)
	}
	s.inScan = true
	err := s.merge(s.cursor, from[len(s.prefix):], hi, fn)
	s.inScan = false
	return err
}

// release closes the iterator that Scan keeps: it holds on to what the store could free, so it lives for a tick at most.
func (s *stateTable) release() error {
	if s.cursor == nil {
		return nil
	}
	err := s.cursor.Close()
	s.cursor = nil
	return err
}

// merge calls fn for what it walks over and the dirty entries with lo <= key < hi, which go before stored ones.
func (s *stateTable) merge(it *storage.Iter, lo, hi []byte, fn func(key, value []byte) (bool, error)) error {
	stored, more := it.First(), true
	var err error
	// below hands out the stored entries below a key; nil: all.
	below := func(key []byte) (equal bool) {
		for more && stored {
			k := it.Key()[len(s.prefix):]
			if key != nil {
				if order := bytes.Compare(k, key); order >= 0 {
					return order == 0
				}
			}
			if more, err = fn(k, it.Value()); err != nil {
				more = false
			}
			if more {
				stored = it.Next()
			}
		}
		return false
	}
	outer := s.pivot
	s.pivot = lo
	defer func() { s.pivot = outer }()
	s.ordered.AscendGreaterOrEqual(pivotIndex, func(i int32) bool {
		key := s.young.key(i)
		if hi != nil && bytes.Compare(key, hi) >= 0 {
			return false
		}
		equal := below(key)
		if !more {
			return false
		}
		if equal {
			stored = it.Next()
		}
		if !s.young.entries[i].absent {
			if more, err = fn(key, s.young.value(i)); err != nil {
				more = false
			}
		}
		return more
	})
	below(nil)
	if err != nil {
		return err
	}
	return it.Error()
}

// write adds the dirty entries to a batch, in the order of their keys, which spares the store's tables in memory.
func (s *stateTable) write(b *storage.Batch) {
	s.young.sortByKey(s.dirty)
	for _, i := range s.dirty {
		e := &s.young.entries[i]
		if e.absent {
			b.Delete(s.storeKey(s.young.key(i)))
			continue
		}
		key, value := b.SetDeferred(len(s.prefix)+int(e.keyLen), int(e.valueLen))
		copy(key[copy(key, s.prefix):], s.young.key(i))
		copy(value, s.young.value(i))
	}
}

// written makes the dirty entries clean, after the batch of write was committed. tight: there is no room for more than the
// limit, as there is when a tick was far larger than it.
func (s *stateTable) written(tight bool) {
	_ = s.release() // an error of it was Scan's before
	for _, i := range s.dirty {
		s.young.entries[i].dirty = false
	}
	s.dirty, s.dirtyBytes, s.placed, s.ordered = s.dirty[:0], 0, 0, nil
	switch {
	case s.limit == 0:
		s.young.reset()
		s.old, s.complete = nil, false
	case s.young.bytes > s.limit:
		s.complete = s.complete && s.old == nil
		s.old, s.young = s.young, newTable()
		if tight && s.old.bytes > s.limit+s.limit/2 {
			s.forgetOld()
		}
	}
}

// forgetOld gives up what was not used lately.
func (s *stateTable) forgetOld() {
	if s.old != nil {
		s.old, s.complete = nil, false
	}
}

// forget gives up all that is stored. Nothing may be dirty.
func (s *stateTable) forget() {
	s.old, s.young, s.complete = nil, newTable(), false
}

// memory is what the table takes, in bytes, about.
func (s *stateTable) memory() int {
	n := s.young.bytes
	if s.old != nil {
		n += s.old.bytes
	}
	return n
}

// prefixRange returns the range of all keys that begin with prefix.
func prefixRange(prefix []byte) (lo, hi []byte) {
	hi = append([]byte(nil), prefix...)
	for i := len(hi) - 1; i >= 0; i-- {
		if hi[i]++; hi[i] != 0 {
			return prefix, hi[:i+1]
		}
	}
	return prefix, nil
}
