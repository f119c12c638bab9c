package stage

import (
	"bytes"
	"context"
	"encoding/binary"
	"math"
	"time"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/record"
	"github.com/millrace/millrace/storage"
)

// scanOf begins to read the stored rows that r sees, taking back the changes of later.
func (t *target) scanOf(r storage.Reader, later []tickDelta, tick ids.Tick, prefix []byte) (*rowScan, error) {
	s := &rowScan{cfg: &t.rt.cfg, codec: t.plan.codec, out: t.newRows()}
	lo := t.prefix(spaceRows)
	s.skip = len(lo)
	lo = append(lo, prefix...)
	_, hi := prefixRange(lo)
	if s.codec.layout == appended {
		hi = binary.BigEndian.AppendUint64(t.prefix(spaceRows), uint64(min(tick, math.MaxUint64-1))+1)
	}
	var err error
	if s.undo, err = t.undo(later, func(k []byte, _ *record.Delta, _ int) bool { return bytes.HasPrefix(k, prefix) }); err != nil {
		return nil, err
	}
	return s, s.begin(r, lo, hi)
}

// rowScan hands stored rows over, with later changes taken back. It must be closed.
type rowScan struct {
	cfg     *Config
	codec   *rowCodec
	release func()         // lets go of what it reads; nil: somebody else does
	skip    int            // bytes of a key before the row's, or the entry's
	by      *entries       // nil: it reads the rows themselves, else an index
	it      *storage.Iter  // nil: it rests
	from    storage.Reader // what it iterates over
	at, hi  []byte         // where it goes on when it rests, and the end of its range
	stored  bool           // it stands at a row, or rests at one
	read    int            // bytes since it rested last
	size    int            // bytes of the rows in out, about
	slow    bool           // whoever gets the rows takes his time
	undo    *undo
	undone  int             // rows of undo that were handed over, or needn't be
	seen    map[string]bool // layout weighted: rows of undo that the store has
	out     *record.Delta
	key     []byte
	handed  bool // the block that the iterator stands at was handed out as it is
}

// slowReader is how long a reader takes with some rows before the next ones wait for him without an iterator.
const slowReader = 20 * time.Millisecond

// begin starts at the first key of a range.
func (s *rowScan) begin(r storage.Reader, lo, hi []byte) error {
	s.from, s.at, s.hi, s.stored = r, lo, hi, true
	return s.wake()
}

// wake goes on where the scan rests.
func (s *rowScan) wake() error {
	if s.it != nil || !s.stored {
		return nil
	}
	it, err := s.from.Iter(s.at, s.hi)
	if err != nil {
		return err
	}
	s.it, s.read = it, 0
	if s.stored = it.First(); !s.stored {
		return it.Error()
	}
	return nil
}

// rest lets go of the iterator before rows are handed over, when it has read much or won't be needed for a while. Tables
// that an iterator has begun with stay in memory when they are files already, until it ends: long reads of several clients would hold many
// times what the store may take.
func (s *rowScan) rest() error {
	if s.it == nil || s.handed || !s.slow && s.read < s.cfg.RestBytes {
		return nil
	}
	if s.stored {
		s.at = append(s.at[:0], s.it.Key()...)
	}
	err := s.it.Close()
	s.it = nil
	return err
}

// next returns about n rows, nil at the end. They are valid until the next call.
func (s *rowScan) next(n int) (*record.Delta, error) {
	if s.handed {
		s.handed, s.stored = false, s.it.Next()
		if err := s.rest(); err != nil {
			return nil, err
		}
	}
	if err := s.wake(); err != nil {
		return nil, err
	}
	d, err := s.take(n)
	if err == nil && d != nil {
		err = s.rest()
	}
	return d, err
}

func (s *rowScan) take(n int) (*record.Delta, error) {
	for {
		s.out.Reset()
		s.size = 0
		for s.stored && s.out.N < n && s.size < s.cfg.ReadBytes {
			if s.codec.layout == appended && s.by == nil {
				if d, err := s.takeBlock(n); d != nil || err != nil {
					return d, err
				}
				continue
			}
			if err := s.takeStored(); err != nil {
				return nil, err
			}
		}
		if !s.stored && s.it != nil {
			if err := s.it.Error(); err != nil {
				return nil, err
			}
		}
		for !s.stored && s.undone < s.undo.old.N && s.out.N < n {
			s.takeUndone()
		}
		if s.out.N == 0 {
			return nil, nil
		}
		d := *s.out
		if d.Weights = simpleWeights(&d); d.N > 0 {
			return &d, nil
		}
	}
}

// takeBlock takes the block at the iterator: it returns a large one as it is, and puts the rows of a small one with others.
func (s *rowScan) takeBlock(n int) (*record.Delta, error) {
	value := s.it.Value()
	_, d, err := s.codec.decodeBlock(s.it.Key()[s.skip:], value)
	if err != nil {
		return nil, err
	}
	s.read += len(value)
	if !s.slow && s.out.N == 0 && d.N >= n/2 {
		s.handed = true
		d.Weights = simpleWeights(d)
		return d, nil
	}
	for i := range d.N {
		s.out.AppendRow(d, i, d.Weight(i))
	}
	s.size += len(value)
	s.stored = s.it.Next()
	return nil, nil
}

// takeStored takes the row at the iterator and goes on to the next.
func (s *rowScan) takeStored() error {
	key, value := s.it.Key()[s.skip:], s.it.Value()
	var err error
	switch {
	case s.by != nil && s.by.blocks != nil:
		s.read += len(key) + len(value)
		if key, err = s.by.key(key, value); err == nil {
			err = s.by.blocks.take(key, s.out)
		}
		s.stored = err == nil && s.it.Next()
		return err
	case s.by != nil:
		if key, value, err = s.by.row(key, value); err != nil {
			return err
		}
	}
	s.read += len(key) + len(value)
	since, changed := s.undo.rows[string(key)]
	if !changed || s.codec.layout != keyed { // else it comes below, if it was there
		if err := s.codec.decode(key, value, s.out); err != nil {
			return err
		}
		s.size += len(key) + len(value)
		if changed {
			if s.seen == nil {
				s.seen = map[string]bool{}
			}
			s.seen[string(key)] = true
			s.out.Weights[s.out.N-1] -= since
		}
	}
	s.stored = s.it.Next()
	return nil
}

// takeUndone takes the next row that isn't stored any more, or differently.
func (s *rowScan) takeUndone() {
	i := s.undone
	s.undone++
	s.key = s.codec.appendKey(s.key[:0], s.undo.old, i)
	switch {
	case s.codec.layout == keyed:
		if s.undo.rows[string(s.key)] == int64(i) {
			s.out.AppendRow(s.undo.old, i, 1)
		}
	case !s.seen[string(s.key)]:
		s.out.AppendRow(s.undo.old, i, -s.undo.rows[string(s.key)])
	}
}

func (s *rowScan) close() error {
	var err error
	if s.it != nil {
		err = s.it.Close()
	}
	if s.release != nil {
		s.release()
	}
	return err
}

// drain hands all rows to fn and closes the scan.
func (s *rowScan) drain(ctx context.Context, fn func(*record.Delta) error) error {
	for {
		d, err := s.next(readRows)
		if err == nil && d != nil {
			if err = ctx.Err(); err != nil {
				err = fault.Wrap(kindOfContext(ctx), err, "a read of a view ended")
			} else {
				began := time.Now()
				err = fn(d)
				s.slow = time.Since(began) > slowReader
			}
		}
		if err != nil {
			_ = s.close()
			return err
		}
		if d == nil {
			return s.close()
		}
	}
}
