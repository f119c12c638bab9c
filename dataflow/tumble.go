package dataflow

import (
	"math"

	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/record"
)

// tumble appends the window of each row and drops the rows that are late for it.
type tumble struct {
	time, watermark int
	size, offset    int64
	out             *link
	errs            *faults
	need            []bool // of the input's columns
	rows            []int32
	kept            record.Delta
	windowed        record.Delta
	starts, ends    record.Column
}

func newTumble(b *builder) (operator, error) {
	t := b.op.Tumble
	if err := b.sameSchema(2); err != nil {
		return nil, err
	}
	if err := b.column(t.Time, record.TimestampTZ); err != nil {
		return nil, err
	}
	if t.Watermark >= 0 {
		if err := b.column(t.Watermark, record.TimestampTZ); err != nil {
			return nil, err
		}
	}
	n := len(b.in.schema)
	for _, f := range b.out.schema[n:] {
		if f.Type != record.TimestampTZ {
			return nil, defect("operator %d makes its window's %s of type %s", b.index, f.Name, f.Type)
		}
	}
	if t.Size <= 0 {
		return nil, defect("operator %d has windows of %d microseconds", b.index, t.Size)
	}
	b.out.distinct, b.out.ordered = b.in.distinct, b.in.ordered
	return &tumble{
		time: t.Time, watermark: t.Watermark, size: t.Size, offset: t.Offset, out: b.out, errs: b.errs, need: b.out.need[:n],
		starts: record.NewColumn(record.TimestampTZ, 0), ends: record.NewColumn(record.TimestampTZ, 0),
	}, nil
}

func (t *tumble) push(in *record.Delta) error {
	t.starts.Ints, t.ends.Ints = resize(t.starts.Ints, in.N), resize(t.ends.Ints, in.N)
	t.rows = t.rows[:0]
	t.windows(in)
	rows := in
	if len(t.rows) < in.N {
		gatherDelta(&t.kept, in, t.rows, t.need)
		rows = &t.kept
	}
	t.starts.N, t.ends.N = rows.N, rows.N
	t.windowed.Cols = append(append(t.windowed.Cols[:0], rows.Cols...), t.starts, t.ends)
	t.windowed.N, t.windowed.Weights = rows.N, rows.Weights
	return t.out.emit(&t.windowed)
}

// windows fills starts, ends and rows with the rows that belong to a window that is still open to them.
func (t *tumble) windows(in *record.Delta) {
	times := &in.Cols[t.time]
	var marks *record.Column
	if t.watermark >= 0 {
		marks = &in.Cols[t.watermark]
	}
	// Neighbours are often of the same window: a division is needed only when they aren't.
	start, end := int64(0), int64(math.MinInt64)
	for i := range in.N {
		if times.Null(i) {
			t.errs.leaveOut(errNoWindowTime, positive(in, i))
			continue
		}
		at := times.Ints[i]
		if at < start || at >= end {
			var ok bool
			if start, end, ok = t.window(at); !ok {
				t.errs.fail(errWindowRange, positive(in, i))
				start, end = 0, math.MinInt64
				continue
			}
		}
		if overdue(end, marks, i) {
			t.errs.counts.Late += appearing(in, i)
			continue
		}
		t.starts.Ints[len(t.rows)], t.ends.Ints[len(t.rows)] = start, end
		t.rows = append(t.rows, int32(i))
	}
}

// window returns the window that holds time at.
func (t *tumble) window(at int64) (start, end int64, ok bool) {
	rel := at - t.offset
	if (at^t.offset)&(at^rel) < 0 {
		return 0, 0, false
	}
	n := rel % t.size
	if n < 0 {
		n += t.size
	}
	start = at - n
	end = start + t.size
	return start, end, start <= at && end > at
}

// positive returns 1 for a row that appears, 0 for one that is taken back: only the former is counted.
func positive(in *record.Delta, i int) int64 {
	if in.Weights == nil || in.Weights[i] > 0 {
		return 1
	}
	return 0
}

func (t *tumble) endTick(ids.Tick, Marks) error {
	for c := range t.kept.Cols {
		trim(&t.kept.Cols[c])
	}
	t.windowed.Cols = t.windowed.Cols[:0]
	return nil
}
