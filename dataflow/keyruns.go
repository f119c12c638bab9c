package dataflow

import (
	"bytes"
	"slices"

	"github.com/millrace/millrace/record"
)

// keyRuns puts the slots of a tick in the order of their keys, without the last two key columns, and then of these two,
// which are times.
type keyRuns struct {
	keys  [][]byte
	order []int32
	buf   []byte
	ends  []int
	nk    int
}

// sort fills a.keyCols with the keys of the n slots and orders those that have something and both times.
func (r *keyRuns) sort(a *aggregate, n, nk int) error {
	r.nk = nk
	a.table.appendKeys(a.keyCols.Cols, 0, n)
	a.keyCols.N = n
	one, two := &a.keyCols.Cols[nk], &a.keyCols.Cols[nk+1]
	r.keys, r.ends = resize(r.keys, n), resize(r.ends, n)
	r.buf, r.order = r.buf[:0], r.order[:0]
	for s := range n {
		for k := range nk {
			r.buf = record.AppendOrdered(r.buf, &a.keyCols.Cols[k], s)
		}
		r.ends[s] = len(r.buf)
		switch {
		case a.nothing(s):
		case one.Null(s) || two.Null(s):
			a.errs.leaveOut(errNoWindowTime, max(a.rows[s], 0))
		default:
			r.order = append(r.order, int32(s))
		}
	}
	for s, from := 0, 0; s < n; s++ {
		r.keys[s] = r.buf[from:r.ends[s]:r.ends[s]]
		from = r.ends[s]
	}
	slices.SortFunc(r.order, func(x, y int32) int {
		if c := bytes.Compare(r.keys[x], r.keys[y]); c != 0 {
			return c
		}
		if one.Ints[x] != one.Ints[y] {
			return sign(one.Ints[x] - one.Ints[y])
		}
		return sign(two.Ints[x] - two.Ints[y])
	})
	return nil
}

// each calls fn for each key with its slots in order.
func (r *keyRuns) each(a *aggregate, fn func(key []byte, slots []int32) error) error {
	for lo := 0; lo < len(r.order); {
		key := r.keys[r.order[lo]]
		hi := lo + 1
		for hi < len(r.order) && bytes.Equal(key, r.keys[r.order[hi]]) {
			hi++
		}
		if err := fn(key, r.order[lo:hi]); err != nil {
			return err
		}
		lo = hi
	}
	if cap(r.buf) > maxKeptBytes {
		r.buf = nil
	}
	return nil
}

// sign returns -1, 0 or 1.
func sign(v int64) int {
	switch {
	case v < 0:
		return -1
	case v > 0:
		return 1
	}
	return 0
}
