package dataflow

import (
	"math"

	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// late lets the rows through that a windowed operator drops as late, with the window that they missed.
type late struct {
	of              plan.LateOf
	time, watermark int
	tumbling        tumble    // of LateOfTumble
	windows         windowing // of LateOfHop
	gap             int64     // of LateOfSession
	out             *link
	need            []bool // of the input's columns
	rows            []int32
	kept            record.Delta
	missed          record.Delta
	starts, ends    record.Column
}

func newLate(b *builder) (operator, error) {
	p := b.op.Late
	more := 2
	if p.Of == plan.LateOfDropLate {
		more = 0
	}
	if err := b.sameSchema(more); err != nil {
		return nil, err
	}
	for _, c := range []int{p.Time, p.Watermark} {
		if err := b.column(c, record.TimestampTZ); err != nil {
			return nil, err
		}
	}
	n := len(b.in.schema)
	for _, f := range b.out.schema[n:] {
		if f.Type != record.TimestampTZ {
			return nil, defect("operator %d makes its window's %s of type %s", b.index, f.Name, f.Type)
		}
	}
	l := &late{of: p.Of, time: p.Time, watermark: p.Watermark, gap: p.Size, out: b.out, need: b.out.need[:n]}
	l.starts, l.ends = record.NewColumn(record.TimestampTZ, 0), record.NewColumn(record.TimestampTZ, 0)
	var err error
	switch {
	case p.Of == plan.LateOfDropLate:
	case p.Size <= 0 || p.Of == plan.LateOfSession && p.Size > farTime:
		err = defect("operator %d has windows of %d microseconds", b.index, p.Size)
	case p.Of == plan.LateOfTumble:
		l.tumbling = tumble{size: p.Size, offset: p.Offset}
	case p.Of == plan.LateOfHop:
		l.windows, err = newWindowing(p.Size, p.Slide, p.Offset, p.Cumulate)
	case p.Of != plan.LateOfSession:
		err = defect("operator %d is for the late rows of %q", b.index, p.Of)
	}
	b.out.distinct, b.out.ordered = b.in.distinct, b.in.ordered
	return l, err
}

// span returns what row i, whose time is at, missed; false: it isn't late.
func (l *late) span(at int64, marks *record.Column, i int) (start, end int64, ok bool) {
	switch l.of {
	case plan.LateOfTumble:
		start, end, ok = l.tumbling.window(at)
		return start, end, ok && overdue(end, marks, i)
	case plan.LateOfHop:
		if !l.windows.inRange(at) {
			return 0, 0, false
		}
		first, last := l.windows.ends(at)
		if first > last || !overdue(first, marks, i) {
			return 0, 0, false
		}
		open := l.windows.after(first, marks.Ints[i])
		return l.windows.start(first), min(open-l.windows.slide, last), true
	case plan.LateOfSession:
		if at > math.MaxInt64-l.gap {
			return 0, 0, false
		}
		return at, at + l.gap, overdue(at+l.gap, marks, i)
	}
	return 0, 0, overdue(at, marks, i)
}

func (l *late) push(in *record.Delta) error {
	times, marks := &in.Cols[l.time], &in.Cols[l.watermark]
	l.rows, l.starts.Ints, l.ends.Ints = l.rows[:0], l.starts.Ints[:0], l.ends.Ints[:0]
	for i := range in.N {
		if times.Null(i) {
			continue
		}
		start, end, ok := l.span(times.Ints[i], marks, i)
		if !ok {
			continue
		}
		l.rows = append(l.rows, int32(i))
		l.starts.Ints, l.ends.Ints = append(l.starts.Ints, start), append(l.ends.Ints, end)
	}
	if len(l.rows) == 0 {
		return nil
	}
	rows := in
	if len(l.rows) < in.N {
		gatherDelta(&l.kept, in, l.rows, l.need)
		rows = &l.kept
	}
	l.missed.Cols = append(l.missed.Cols[:0], rows.Cols...)
	if l.of != plan.LateOfDropLate {
		l.starts.N, l.ends.N = rows.N, rows.N
		l.missed.Cols = append(l.missed.Cols, l.starts, l.ends)
	}
	l.missed.N, l.missed.Weights = rows.N, rows.Weights
	return l.out.emit(&l.missed)
}

func (l *late) endTick(ids.Tick, Marks) error {
	for c := range l.kept.Cols {
		trim(&l.kept.Cols[c])
	}
	l.missed.Cols = l.missed.Cols[:0]
	return nil
}
