package dataflow

import (
	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/record"
)

// dropLate drops and counts the rows at or below their watermark.
type dropLate struct {
	time, watermark int
	event           int // or -1: rows without a time are kept
	out             *link
	errs            *faults
	rows            []int32
	kept            record.Delta
}

func newDropLate(b *builder) (operator, error) {
	p := b.op.DropLate
	if err := b.sameSchema(0); err != nil {
		return nil, err
	}
	columns := []int{p.Time}
	if p.Watermark >= 0 {
		columns = append(columns, p.Watermark)
	}
	if p.Event != 0 {
		columns = append(columns, p.Event-1)
	}
	for _, c := range columns {
		if err := b.column(c, record.TimestampTZ); err != nil {
			return nil, err
		}
	}
	b.out.distinct, b.out.ordered = b.in.distinct, b.in.ordered
	return &dropLate{time: p.Time, watermark: p.Watermark, event: p.Event - 1, out: b.out, errs: b.errs}, nil
}

func (d *dropLate) push(in *record.Delta) error {
	times := &in.Cols[d.time]
	var marks *record.Column
	if d.watermark >= 0 {
		marks = &in.Cols[d.watermark]
	}
	d.rows = d.rows[:0]
	for i, at := range times.Ints[:in.N] {
		switch {
		case times.Null(i):
			if d.event < 0 {
				break
			}
			if in.Cols[d.event].Null(i) {
				d.errs.leaveOut(errNoWindowTime, positive(in, i))
			}
			continue
		case overdue(at, marks, i):
			d.errs.counts.Late += appearing(in, i)
			continue
		}
		d.rows = append(d.rows, int32(i))
	}
	if len(d.rows) == in.N {
		return d.out.emit(in)
	}
	gatherDelta(&d.kept, in, d.rows, d.out.need)
	return d.out.emit(&d.kept)
}

func (d *dropLate) endTick(ids.Tick, Marks) error {
	for c := range d.kept.Cols {
		trim(&d.kept.Cols[c])
	}
	return nil
}
