package dataflow

import (
	"bytes"
	"math"

	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// RangeDeleter is a State that can delete many entries at once.
type RangeDeleter interface {
	// DeleteRange deletes the entries with lo <= key < hi (nil: all from lo on).
	DeleteRange(lo, hi []byte) error
}

// deleteRange deletes the entries with lo <= key < hi.
func deleteRange(st State, lo, hi []byte) error {
	if d, ok := st.(RangeDeleter); ok {
		return d.DeleteRange(lo, hi)
	}
	for more := true; more; {
		var keys [][]byte
		err := st.Scan(lo, hi, func(key, _ []byte) (bool, error) {
			keys = append(keys, bytes.Clone(key))
			return len(keys) < chunkRows, nil
		})
		if err != nil {
			return err
		}
		for _, key := range keys {
			if err := st.Delete(key); err != nil {
				return err
			}
		}
		more = len(keys) == chunkRows
	}
	return nil
}

// expiry forgets the entries whose keys begin with a time that the horizon has passed: the ordered encoding of a
// TimestampTZ after prefix. NULL is never passed.
type expiry struct {
	st     State
	prefix []byte
	delay  int64
	first  firstOf
}

// newExpiry returns an expiry that knows the first time that is stored.
func newExpiry(st State, prefix []byte, p *plan.Expire) (*expiry, error) {
	e := &expiry{st: st, delay: p.Delay}
	c := record.NewColumn(record.TimestampTZ, 1)
	c.AppendInt(0)
	e.prefix = bytes.Clone(prefix)
	e.prefix = record.AppendOrdered(e.prefix, &c, 0)[:len(prefix)+1] // with the byte that tells it from NULL
	return e, firstTime(st, e.prefix, &e.first.at, &e.first.has)
}

// end forgets what the horizon of a tick has passed.
func (e *expiry) end(horizon int64) error {
	if horizon == NoWatermark || horizon < math.MinInt64+e.delay || !e.first.reached(horizon-e.delay) {
		return nil
	}
	hi := prefixEnd(e.prefix)
	if mark := horizon - e.delay; mark < math.MaxInt64 {
		hi = appendTime(bytes.Clone(e.prefix), mark+1)
	}
	if err := deleteRange(e.st, e.prefix, hi); err != nil {
		return err
	}
	return firstTime(e.st, e.prefix, &e.first.at, &e.first.has)
}
