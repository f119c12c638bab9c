package stage

import (
	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
	"github.com/millrace/millrace/ring"
)

// splitter cuts a stage's output by the partition that each row goes to. Not safe for concurrent use.
type splitter struct {
	exchange   *plan.Exchange // nil: rows stay in their partition
	partitions int
	key        []byte
	rows       [][]int32 // by target
	used       []ids.PartitionID
}

func newSplitter(x *plan.Exchange, partitions int) *splitter {
	return &splitter{exchange: x, partitions: partitions, rows: make([][]int32, partitions)}
}

// split returns the pieces of d that go to targets for which want is true, in order. The pieces hold no memory of d's.
func (s *splitter) split(from ids.PartitionID, d *record.Delta, want []bool) []part {
	if d.N == 0 {
		return nil
	}
	if s.exchange != nil && s.exchange.Broadcast {
		return s.broadcast(d, want)
	}
	if s.exchange == nil || len(s.exchange.Key) == 0 || s.partitions == 1 {
		to := ids.PartitionID(0)
		if s.exchange == nil {
			to = from
		}
		if !want[to] {
			return nil
		}
		c := copyDelta(d)
		return []part{{target: to, delta: c, bytes: deltaBytes(c)}}
	}
	for i := range d.N {
		s.key = record.AppendPartitionKey(s.key[:0], d, s.exchange.Key, i)
		t := ring.Partition(s.key, s.partitions)
		if !want[t] {
			continue
		}
		if len(s.rows[t]) == 0 {
			s.used = append(s.used, t)
		}
		s.rows[t] = append(s.rows[t], int32(i))
	}
	parts := make([]part, 0, len(s.used))
	for _, t := range s.used {
		c := gather(d, s.rows[t])
		parts = append(parts, part{target: t, delta: c, bytes: deltaBytes(c)})
		s.rows[t] = s.rows[t][:0]
	}
	s.used = s.used[:0]
	return parts
}

// broadcast gives all targets the same rows.
func (s *splitter) broadcast(d *record.Delta, want []bool) []part {
	var parts []part
	for t := range want {
		if !want[t] {
			continue
		}
		if parts == nil {
			d = copyDelta(d)
		}
		parts = append(parts, part{target: ids.PartitionID(t), delta: d, bytes: deltaBytes(d)})
	}
	return parts
}

// gather returns the given rows of d in memory of their own.
func gather(d *record.Delta, rows []int32) *record.Delta {
	out := &record.Delta{N: len(rows), Cols: make([]record.Column, len(d.Cols))}
	for c := range d.Cols {
		gatherColumn(&out.Cols[c], &d.Cols[c], rows)
	}
	if d.Weights != nil {
		out.Weights = pick(d.Weights, rows)
	}
	return out
}

func gatherColumn(dst, src *record.Column, rows []int32) {
	dst.Type, dst.N = src.Type, len(rows)
	if src.Validity != nil {
		dst.Validity = make(record.Bitmap, (len(rows)+7)>>3)
		for j, i := range rows {
			if src.Validity.Valid(int(i)) {
				dst.Validity[j>>3] |= 1 << (j & 7)
			}
		}
	}
	switch src.Type.Layout() {
	case record.LayoutBools:
		dst.Bools = pick(src.Bools, rows)
	case record.LayoutInts:
		dst.Ints = pick(src.Ints, rows)
	case record.LayoutFloats:
		dst.Floats = pick(src.Floats, rows)
	case record.LayoutIntervals:
		dst.Intervals = pick(src.Intervals, rows)
	case record.LayoutBytes:
		size := 0
		for _, i := range rows {
			size += int(src.Offsets[i+1] - src.Offsets[i])
		}
		dst.Bytes = make([]byte, 0, size)
		dst.Offsets = make([]int32, 1, len(rows)+1)
		for _, i := range rows {
			dst.Bytes = append(dst.Bytes, src.At(int(i))...)
			dst.Offsets = append(dst.Offsets, int32(len(dst.Bytes)))
		}
	}
}

func pick[T any](src []T, rows []int32) []T {
	out := make([]T, len(rows))
	for j, i := range rows {
		out[j] = src[i]
	}
	return out
}

// copyDelta returns d in memory of its own.
func copyDelta(d *record.Delta) *record.Delta {
	out := &record.Delta{N: d.N, Cols: make([]record.Column, len(d.Cols))}
	for i := range d.Cols {
		c := d.Cols[i]
		c.Validity = append(record.Bitmap(nil), c.Validity...)
		c.Bools = append([]bool(nil), c.Bools...)
		c.Ints = append([]int64(nil), c.Ints...)
		c.Floats = append([]float64(nil), c.Floats...)
		c.Intervals = append([]record.Interval(nil), c.Intervals...)
		c.Offsets = append([]int32(nil), c.Offsets...)
		c.Bytes = append([]byte(nil), c.Bytes...)
		out.Cols[i] = c
	}
	if d.Weights != nil {
		out.Weights = append([]int64{}, d.Weights...)
	}
	return out
}

// deltaBytes is about what d takes in memory.
func deltaBytes(d *record.Delta) int64 {
	n := len(d.Weights) * 8
	for i := range d.Cols {
		c := &d.Cols[i]
		n += len(c.Validity) + len(c.Bools) + 8*len(c.Ints) + 8*len(c.Floats) + 16*len(c.Intervals) + 4*len(c.Offsets) + len(c.Bytes)
	}
	return int64(n)
}
