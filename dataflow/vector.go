package dataflow

import (
	"github.com/millrace/millrace/record"
)

// chunkRows is the largest number of rows that operators hand each other at once. A multiple of 8, so that a slice
// of rows has whole bytes of its bitmaps.
const chunkRows = 4096

// vector is what an expression gives: one value a row, or one that stands for all rows.
type vector struct {
	col  *record.Column
	mask int // row i is value i&mask: -1, or 0 for a scalar
}

func (v vector) scalar() bool    { return v.mask == 0 }
func (v vector) null(i int) bool { return v.col.Null(i & v.mask) }

// sliceColumn returns rows [lo, hi) of c without copying; lo is a multiple of 8.
func sliceColumn(c *record.Column, lo, hi int) record.Column {
	out := record.Column{Type: c.Type, N: hi - lo}
	if c.N < hi { // a column that nobody reads isn't filled
		return record.Column{Type: c.Type}
	}
	if c.Validity != nil {
		out.Validity = c.Validity[lo>>3 : (hi+7)>>3]
	}
	switch c.Type.Layout() {
	case record.LayoutBools:
		out.Bools = c.Bools[lo:hi]
	case record.LayoutInts:
		out.Ints = c.Ints[lo:hi]
	case record.LayoutFloats:
		out.Floats = c.Floats[lo:hi]
	case record.LayoutIntervals:
		out.Intervals = c.Intervals[lo:hi]
	case record.LayoutBytes:
		out.Offsets, out.Bytes = c.Offsets[lo:hi+1], c.Bytes
	}
	return out
}

// sliceDelta sets dst to rows [lo, hi) of d without copying; lo is a multiple of 8.
func sliceDelta(dst, d *record.Delta, lo, hi int) {
	dst.N, dst.Weights = hi-lo, nil
	if d.Weights != nil {
		dst.Weights = d.Weights[lo:hi]
	}
	dst.Cols = dst.Cols[:0]
	for i := range d.Cols {
		dst.Cols = append(dst.Cols, sliceColumn(&d.Cols[i], lo, hi))
	}
}

// resize gives s n elements of whatever value, growing in steps that don't repeat.
func resize[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n, n+n/4)
	}
	return s[:n]
}

// extend gives s n elements; those that are new are zero.
func extend[T any](s []T, n int) []T {
	if n <= len(s) {
		return s[:n]
	}
	if n > cap(s) {
		grown := make([]T, n, max(n, 2*cap(s)))
		copy(grown, s)
		return grown
	}
	old := len(s)
	s = s[:n]
	clear(s[old:])
	return s
}

// prepare gives c n values of whatever value, none of them NULL; a varlen column has no bytes yet.
func prepare(c *record.Column, n int) {
	c.N, c.Validity = n, nil
	switch c.Type.Layout() {
	case record.LayoutBools:
		c.Bools = resize(c.Bools, n)
	case record.LayoutInts:
		c.Ints = resize(c.Ints, n)
	case record.LayoutFloats:
		c.Floats = resize(c.Floats, n)
	case record.LayoutIntervals:
		c.Intervals = resize(c.Intervals, n)
	case record.LayoutBytes:
		c.Offsets = resize(c.Offsets, n+1)
		c.Offsets[0], c.Bytes = 0, c.Bytes[:0]
	}
}

// maxKeptBytes bounds the bytes of varlen values that a buffer keeps from one tick to the next.
const maxKeptBytes = 1 << 20

// trim drops the memory of an empty or scratch column when it is unusually large.
func trim(c *record.Column) {
	if cap(c.Bytes) > maxKeptBytes {
		c.Bytes = nil
	}
}

// setBits gives b the bits for n values, all set.
func setBits(b record.Bitmap, n int) record.Bitmap {
	b = resize(b, (n+7)>>3)
	for i := range b {
		b[i] = 0xff
	}
	return b
}

// zeroNulls gives the slots of NULLs the zero value that readers may expect.
func zeroNulls(c *record.Column) {
	if c.Validity == nil || c.Type.Varlen() {
		return
	}
	for b := range c.Validity {
		if c.Validity[b] == 0xff {
			continue
		}
		for i := b << 3; i < min(b<<3+8, c.N); i++ {
			if !c.Validity.Valid(i) {
				zeroSlot(c, i)
			}
		}
	}
}

func zeroSlot(c *record.Column, i int) {
	switch c.Type.Layout() {
	case record.LayoutBools:
		c.Bools[i] = false
	case record.LayoutInts:
		c.Ints[i] = 0
	case record.LayoutFloats:
		c.Floats[i] = 0
	case record.LayoutIntervals:
		c.Intervals[i] = record.Interval{}
	}
}

// appendValidity makes room for n more values' bits in dst, from bit `from` of src on (nil: all valid).
func appendValidity(dst *record.Column, src record.Bitmap, n int) {
	if src == nil && dst.Validity == nil {
		return
	}
	if dst.Validity == nil {
		dst.Validity = make(record.Bitmap, (dst.N+7)>>3, (dst.N+n+7)>>3)
		for i := range dst.N {
			dst.Validity[i>>3] |= 1 << (i & 7)
		}
	}
	dst.Validity = extend(dst.Validity, (dst.N+n+7)>>3)
	for i := range n {
		if src.Valid(i) {
			j := dst.N + i
			dst.Validity[j>>3] |= 1 << (j & 7)
		}
	}
}

// appendColumn appends all of src's values to dst.
func appendColumn(dst, src *record.Column) {
	n := src.N
	appendValidity(dst, src.Validity, n)
	switch dst.Type.Layout() {
	case record.LayoutBools:
		dst.Bools = append(dst.Bools, src.Bools[:n]...)
	case record.LayoutInts:
		dst.Ints = append(dst.Ints, src.Ints[:n]...)
	case record.LayoutFloats:
		dst.Floats = append(dst.Floats, src.Floats[:n]...)
	case record.LayoutIntervals:
		dst.Intervals = append(dst.Intervals, src.Intervals[:n]...)
	case record.LayoutBytes:
		shift := int32(len(dst.Bytes)) - src.Offsets[0]
		dst.Bytes = append(dst.Bytes, src.Bytes[src.Offsets[0]:src.Offsets[n]]...)
		for _, o := range src.Offsets[1 : n+1] {
			dst.Offsets = append(dst.Offsets, o+shift)
		}
	}
	dst.N += n
}

// gather sets dst to the values of src at rows.
func gather(dst, src *record.Column, rows []int32) {
	dst.Type = src.Type
	dst.Reset()
	if dst.Type.Varlen() && cap(dst.Offsets) < len(rows)+1 {
		dst.Offsets = append(make([]int32, 0, len(rows)+1+len(rows)/4), 0)
	}
	if src.Validity != nil {
		dst.Validity = make(record.Bitmap, (len(rows)+7)>>3)
		for j, i := range rows {
			if src.Validity.Valid(int(i)) {
				dst.Validity[j>>3] |= 1 << (j & 7)
			}
		}
	}
	dst.N = len(rows)
	switch src.Type.Layout() {
	case record.LayoutBools:
		dst.Bools = gatherSlice(dst.Bools, src.Bools, rows)
	case record.LayoutInts:
		dst.Ints = gatherSlice(dst.Ints, src.Ints, rows)
	case record.LayoutFloats:
		dst.Floats = gatherSlice(dst.Floats, src.Floats, rows)
	case record.LayoutIntervals:
		dst.Intervals = gatherSlice(dst.Intervals, src.Intervals, rows)
	case record.LayoutBytes:
		for _, i := range rows {
			dst.Bytes = append(dst.Bytes, src.Bytes[src.Offsets[i]:src.Offsets[i+1]]...)
			dst.Offsets = append(dst.Offsets, int32(len(dst.Bytes)))
		}
	}
}

func gatherSlice[T any](dst, src []T, rows []int32) []T {
	dst = resize(dst, len(rows))
	for j, i := range rows {
		dst[j] = src[i]
	}
	return dst
}

// gatherDelta sets dst to rows of src; columns for which need is false stay empty.
func gatherDelta(dst, src *record.Delta, rows []int32, need []bool) {
	if len(dst.Cols) != len(src.Cols) {
		dst.Cols = make([]record.Column, len(src.Cols))
	}
	for c := range src.Cols {
		if need[c] {
			gather(&dst.Cols[c], &src.Cols[c], rows)
		} else {
			dst.Cols[c].Type = src.Cols[c].Type
		}
	}
	dst.N = len(rows)
	if src.Weights == nil {
		dst.Weights = nil
	} else {
		dst.Weights = gatherSlice(dst.Weights, src.Weights, rows)
	}
}

// truncate drops the values of c from the n-th on.
func truncate(c *record.Column, n int) {
	if n >= c.N {
		return
	}
	if c.Validity != nil {
		c.Validity = c.Validity[:(n+7)>>3]
		if n&7 != 0 {
			c.Validity[n>>3] &= 1<<(n&7) - 1 // appending expects zero bits behind the last value
		}
	}
	switch c.Type.Layout() {
	case record.LayoutBools:
		c.Bools = c.Bools[:n]
	case record.LayoutInts:
		c.Ints = c.Ints[:n]
	case record.LayoutFloats:
		c.Floats = c.Floats[:n]
	case record.LayoutIntervals:
		c.Intervals = c.Intervals[:n]
	case record.LayoutBytes:
		c.Bytes, c.Offsets = c.Bytes[:c.Offsets[n]], c.Offsets[:n+1]
	}
	c.N = n
}

// sameValue tells whether values i and j of c are the same, in form too.
func sameValue(c *record.Column, i, j int) bool {
	if c.Null(i) || c.Null(j) {
		return c.Null(i) == c.Null(j)
	}
	switch c.Type.Layout() {
	case record.LayoutBools:
		return c.Bools[i] == c.Bools[j]
	case record.LayoutInts:
		return c.Ints[i] == c.Ints[j]
	case record.LayoutFloats:
		return floatBits(c.Floats[i]) == floatBits(c.Floats[j])
	case record.LayoutIntervals:
		return c.Intervals[i] == c.Intervals[j]
	case record.LayoutBytes:
		return string(c.At(i)) == string(c.At(j))
	}
	return true
}
