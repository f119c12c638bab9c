package dataflow

import (
	"math"
	"slices"

	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/record"
)

// hop repeats each row for each window that holds it and isn't over, or gives it its pane and its first window.
type hop struct {
	time, watermark int
	windows         windowing
	panes           bool
	out             *link
	errs            *faults
	need            []bool // of the input's columns
	rows            []int32
	kept            record.Delta
	windowed        record.Delta
	starts, ends    record.Column
}

func newHop(b *builder) (operator, error) {
	p := b.op.Hop
	if err := b.sameSchema(2); err != nil {
		return nil, err
	}
	if err := b.column(p.Time, record.TimestampTZ); err != nil {
		return nil, err
	}
	if p.Watermark >= 0 {
		if err := b.column(p.Watermark, record.TimestampTZ); err != nil {
			return nil, err
		}
	}
	n := len(b.in.schema)
	for _, f := range b.out.schema[n:] {
		if f.Type != record.TimestampTZ {
			return nil, defect("operator %d makes its window's %s of type %s", b.index, f.Name, f.Type)
		}
	}
	w, err := newWindowing(p.Size, p.Slide, p.Offset, p.Cumulate)
	if err != nil {
		return nil, err
	}
	if b.in.distinct != nil {
		b.out.distinct = append(slices.Clone(b.in.distinct), n+1)
	}
	b.out.ordered = b.in.ordered
	h := &hop{time: p.Time, watermark: p.Watermark, windows: w, panes: p.Pane, out: b.out, errs: b.errs, need: b.out.need[:n]}
	h.starts, h.ends = record.NewColumn(record.TimestampTZ, 0), record.NewColumn(record.TimestampTZ, 0)
	return h, nil
}

func (h *hop) push(in *record.Delta) error {
	times := &in.Cols[h.time]
	var marks *record.Column
	if h.watermark >= 0 {
		marks = &in.Cols[h.watermark]
	}
	h.clear()
	// Neighbours are often of the same pane, and then in the same windows.
	pane, first, last, paneEnd := int64(0), int64(0), int64(0), int64(math.MinInt64)
	for i := range in.N {
		if times.Null(i) {
			h.errs.leaveOut(errNoWindowTime, positive(in, i))
			continue
		}
		at := times.Ints[i]
		if at < pane || at >= paneEnd {
			if !h.windows.inRange(at) {
				h.errs.fail(errWindowRange, positive(in, i))
				continue
			}
			pane = h.windows.paneOf(at)
			paneEnd = pane + h.windows.pane
			first, last = h.windows.ends(at)
		}
		open := first
		if first <= last && overdue(first, marks, i) {
			open = h.windows.after(first, marks.Ints[i])
			h.errs.counts.Late += appearing(in, i)
		}
		if open > last {
			continue
		}
		if h.panes {
			h.add(i, pane, open)
			continue
		}
		for end := open; end <= last; end += h.windows.slide {
			h.add(i, h.windows.start(end), end)
			if len(h.rows) == chunkRows {
				if err := h.flush(in); err != nil {
					return err
				}
			}
		}
	}
	return h.flush(in)
}

func (h *hop) add(row int, start, end int64) {
	h.rows = append(h.rows, int32(row))
	h.starts.Ints = append(h.starts.Ints, start)
	h.ends.Ints = append(h.ends.Ints, end)
}

func (h *hop) clear() {
	h.rows, h.starts.Ints, h.ends.Ints = h.rows[:0], h.starts.Ints[:0], h.ends.Ints[:0]
}

// flush passes on the rows gathered so far.
func (h *hop) flush(in *record.Delta) error {
	if len(h.rows) == 0 {
		return nil
	}
	rows := in
	if !h.panes || len(h.rows) < in.N {
		gatherDelta(&h.kept, in, h.rows, h.need)
		rows = &h.kept
	}
	h.starts.N, h.ends.N = rows.N, rows.N
	h.windowed.Cols = append(append(h.windowed.Cols[:0], rows.Cols...), h.starts, h.ends)
	h.windowed.N, h.windowed.Weights = rows.N, rows.Weights
	err := h.out.emit(&h.windowed)
	h.clear()
	return err
}

func (h *hop) endTick(ids.Tick, Marks) error {
	for c := range h.kept.Cols {
		trim(&h.kept.Cols[c])
	}
	h.windowed.Cols = h.windowed.Cols[:0]
	return nil
}
