package stage

import (
	"bytes"
	"errors"

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

// Scan implements dataflow.State: the dirty entries in order, merged with the store's.
func (s *stateTable) Scan(lo, hi []byte, fn func(key, value []byte) (bool, error)) error {
	mine := make([]int32, 0, 16)
	for _, i := range s.dirty {
		if k := s.young.key(i); bytes.Compare(k, lo) >= 0 && (hi == nil || bytes.Compare(k, hi) < 0) {
			mine = append(mine, i)
		}
	}
	s.young.sortByKey(mine)
	from := append(append([]byte(nil), s.prefix...), lo...)
	_, to := prefixRange(s.prefix)
	if hi != nil {
		to = append(append([]byte(nil), s.prefix...), hi...)
	}
	it, err := s.store.Iter(from, to)
	if err != nil {
		return err
	}
	if err := s.merge(it, mine, fn); err != nil {
		_ = it.Close()
		return err
	}
	return it.Close()
}

func (s *stateTable) merge(it *storage.Iter, mine []int32, fn func(key, value []byte) (bool, error)) error {
	stored := it.First()
	for stored || len(mine) > 0 {
		order := -1 // of mine against the store's
		var key []byte
		if stored {
			key = it.Key()[len(s.prefix):]
			if len(mine) == 0 {
				order = 1
			} else {
				order = bytes.Compare(s.young.key(mine[0]), key)
			}
		}
		if order <= 0 {
			i := mine[0]
			mine = mine[1:]
			if order == 0 {
				stored = it.Next()
			}
			if s.young.entries[i].absent {
				continue
			}
			if more, err := fn(s.young.key(i), s.young.value(i)); err != nil || !more {
				return err
			}
			continue
		}
		if more, err := fn(key, it.Value()); err != nil || !more {
			return err
		}
		stored = it.Next()
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

// written makes the dirty entries clean, after the batch of write was committed.
func (s *stateTable) written() {
	for _, i := range s.dirty {
		s.young.entries[i].dirty = false
	}
	s.dirty, s.dirtyBytes = s.dirty[:0], 0
	switch {
	case s.limit == 0:
		s.young.reset()
		s.old, s.complete = nil, false
	case s.young.bytes > s.limit:
		s.complete = s.complete && s.old == nil
		s.old, s.young = s.young, newTable()
	}
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
