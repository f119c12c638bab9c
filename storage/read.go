package storage

import (
	"io"

	"github.com/cockroachdb/pebble/v2"
)

// Reader is what can be read: a Store as it is now, or a Snapshot as it was.
type Reader interface {
	// Get returns the value of key, valid until the closer is closed; NotFound when there is none.
	Get(key []byte) ([]byte, io.Closer, error)
	// Iter walks the keys from lo, inclusive, to hi, exclusive; nil is open. It sees one moment, that of the call.
	Iter(lo, hi []byte) (*Iter, error)
}

// Iter returns an iterator over [lo, hi), nil being open, as of now. It must be closed.
func (s *Store) Iter(lo, hi []byte) (*Iter, error) {
	if err := s.enter(); err != nil {
		return nil, err
	}
	defer s.leave()
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: lo, UpperBound: hi})
	return s.newIter(it, err)
}

func (s *Store) newIter(it *pebble.Iterator, err error) (*Iter, error) {
	if err != nil {
		return nil, s.readError(err)
	}
	return &Iter{s: s, it: it}, nil
}

// Iter walks a range of keys. It isn't positioned at first. Not safe for concurrent use.
type Iter struct {
	s   *Store
	it  *pebble.Iterator
	err error
}

// First goes to the first key.
func (i *Iter) First() bool { return i.it.First() }

// Last goes to the last key.
func (i *Iter) Last() bool { return i.it.Last() }

// SeekGE goes to the first key at or above key.
func (i *Iter) SeekGE(key []byte) bool { return i.it.SeekGE(key) }

// SeekLT goes to the last key below key.
func (i *Iter) SeekLT(key []byte) bool { return i.it.SeekLT(key) }

// Next goes one key up.
func (i *Iter) Next() bool { return i.it.Next() }

// Prev goes one key down.
func (i *Iter) Prev() bool { return i.it.Prev() }

// SetBounds moves the range to [lo, hi), nil being open. The iterator isn't positioned then, and sees the same moment as
// before. It must not have failed.
func (i *Iter) SetBounds(lo, hi []byte) { i.it.SetBounds(lo, hi) }

// Valid tells whether the iterator stands on a key. When it doesn't, Error tells the end from a failure.
func (i *Iter) Valid() bool { return i.it.Valid() && i.err == nil }

// Key returns the key, valid until the next move.
func (i *Iter) Key() []byte { return i.it.Key() }

// Value returns the value, valid until the next move. A large one is read from the disk here: if that fails, Value
// returns nil and Error and Valid tell.
func (i *Iter) Value() []byte {
	v, err := i.it.ValueAndErr()
	if err != nil {
		i.err = err
		return nil
	}
	return v
}

// Error returns what went wrong, or nil.
func (i *Iter) Error() error {
	if i.err != nil {
		return i.s.readError(i.err)
	}
	return i.s.readError(i.it.Error())
}

// Close ends the iterator; it returns the same as Error. Safe to call twice.
func (i *Iter) Close() error {
	if i.it == nil {
		return nil
	}
	err := i.it.Close()
	i.it = nil
	if i.err != nil {
		err = i.err
	}
	return i.s.readError(err)
}

// Snapshot is the store as it was at one moment. It must be closed: while it is open, what it sees isn't freed.
type Snapshot struct {
	s    *Store
	snap *pebble.Snapshot
}

// Snapshot returns the store as it is now. On a closed store it returns one whose reads fail.
func (s *Store) Snapshot() *Snapshot {
	if s.enter() != nil {
		return &Snapshot{s: s}
	}
	defer s.leave()
	return &Snapshot{s: s, snap: s.db.NewSnapshot()}
}

// Get is Store.Get as of the snapshot.
func (n *Snapshot) Get(key []byte) ([]byte, io.Closer, error) {
	if err := n.s.enter(); err != nil {
		return nil, nil, err
	}
	defer n.s.leave()
	if n.snap == nil {
		return nil, nil, errClosed
	}
	v, c, err := n.snap.Get(key)
	return v, c, n.s.readError(err)
}

// Iter is Store.Iter as of the snapshot.
func (n *Snapshot) Iter(lo, hi []byte) (*Iter, error) {
	if err := n.s.enter(); err != nil {
		return nil, err
	}
	defer n.s.leave()
	if n.snap == nil {
		return nil, errClosed
	}
	it, err := n.snap.NewIter(&pebble.IterOptions{LowerBound: lo, UpperBound: hi})
	return n.s.newIter(it, err)
}

// Close lets go of the moment. Safe to call twice, and after the store was closed.
func (n *Snapshot) Close() error {
	if n.snap == nil {
		return nil
	}
	if err := n.s.enter(); err != nil {
		return err
	}
	defer n.s.leave()
	err := n.snap.Close()
	n.snap = nil
	return n.s.readError(err)
}
