package dataflow

import (
	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/record"
)

// dropLate drops and counts the rows at or below their watermark.
type dropLate struct {
	time, watermark int
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
	for _, c := range []int{p.Time, p.Watermark} {
		if err := b.column(c, record.TimestampTZ); err != nil {
			return nil, err
		}
	}
	b.out.distinct, b.out.ordered = b.in.distinct, b.in.ordered
	return &dropLate{time: p.Time, watermark: p.Watermark, out: b.out, errs: b.errs}, nil
}

func (d *dropLate) push(in *record.Delta) error {
	times, marks := &in.Cols[d.time], &in.Cols[d.watermark]
	d.rows = d.rows[:0]
	for i, at := range times.Ints[:in.N] {
		if at <= marks.Ints[i] && !times.Null(i) && !marks.Null(i) {
			d.errs.counts.Late += positive(in, i)
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
