package record

import (
	"encoding/binary"
	"math"
	"slices"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
)

// Generator makes the records of a stream with a source, each a function of its partition and offset. It is not for
// concurrent use.
type Generator interface {
	// Generate appends the values of count records, from offset from on, to cols: one for each column that the generator was
	// made for, in that order.
	Generate(p ids.PartitionID, from ids.Offset, count int, cols []*Column)
	// Times appends the records' event times in microseconds; along a partition they never decrease.
	Times(p ids.PartitionID, from ids.Offset, count int, dst []int64) []int64
}

// generated is what a Decoder of such a stream has in place of a format.
type generated struct {
	g     Generator
	cols  []*Column
	times []int64
	marks bool // the column _watermark is wanted
}

// NewGeneratedDecoder is NewDecoder for a stream with a source; generator returns one for declared columns, of which only those
// that are asked for are made.
func NewGeneratedDecoder(s *millracev1.Stream, columns []string, generator func(names []string) (Generator, error)) (*Decoder, error) {
	d, err := NewDecoder(s, columns)
	if err != nil {
		return nil, err
	}
	var names []string
	for k, o := range d.out {
		if o.declared >= 0 {
			names = append(names, d.schema[k].Name)
		}
	}
	d.made = &generated{marks: slices.ContainsFunc(d.out, func(o outColumn) bool { return o.declared < 0 && o.hidden == hiddenWatermark })}
	d.made.g, err = generator(names)
	return d, err
}

// generatedVersion is that of GeneratedPayload's format.
const generatedVersion = 1

// GeneratedPayload is what a batch of such a stream has in place of records: how many there are.
func GeneratedPayload(count uint32) []byte {
	return binary.AppendUvarint([]byte{generatedVersion}, uint64(count))
}

// GeneratedCount reads a payload of GeneratedPayload. Corrupted for anything else.
func GeneratedCount(payload []byte) (int, error) {
	if len(payload) > 1 && payload[0] == generatedVersion {
		if n, size := binary.Uvarint(payload[1:]); size == len(payload)-1 && n > 0 && n <= math.MaxUint32 {
			return int(n), nil
		}
	}
	return 0, fault.New(fault.Corrupted, "a batch of a stream with a source doesn't tell how many records it stands for")
}

// generate is Decode for a stream with a source.
func (d *Decoder) generate(raw []byte, m *Meta, out *Delta) error {
	n, err := GeneratedCount(raw)
	if err != nil {
		return err
	}
	x := d.made
	x.cols = x.cols[:0]
	for k, o := range d.out {
		if o.declared >= 0 {
			x.cols = append(x.cols, &out.Cols[k])
		}
	}
	x.g.Generate(m.Partition, m.BaseOffset, n, x.cols)
	x.times = x.times[:0]
	switch {
	case d.event < 0:
	case x.marks:
		x.times = x.g.Times(m.Partition, m.BaseOffset, n, x.times)
	default:
		x.times = x.g.Times(m.Partition, m.BaseOffset+ids.Offset(n-1), 1, x.times)
	}
	for k, o := range d.out {
		if o.declared < 0 {
			d.fillHidden(&out.Cols[k], o.hidden, m, n)
		}
	}
	out.N += n
	if out.Weights != nil {
		for range n {
			out.Weights = append(out.Weights, 1)
		}
	}
	if d.event >= 0 {
		if last := x.times[len(x.times)-1]; !d.HasEventTime || last > d.MaxEventTime {
			d.MaxEventTime, d.HasEventTime = last, true
		}
	}
	return nil
}

// fillHidden appends a hidden column of the n records of a batch.
func (d *Decoder) fillHidden(c *Column, h hiddenColumn, m *Meta, n int) {
	if h == hiddenWatermark && d.event >= 0 {
		d.fillWatermark(c)
		return
	}
	for i := range n {
		switch h {
		case hiddenPartition:
			c.AppendInt(int64(m.Partition))
		case hiddenOffset:
			c.AppendInt(int64(m.BaseOffset) + int64(i))
		case hiddenTick:
			c.AppendInt(int64(m.Tick))
		case hiddenTime:
			c.AppendInt(m.TimeMicros)
		default: // such a stream has no keys
			c.AppendNull()
		}
	}
}

// fillWatermark appends for each record the watermark of those before it, of which d.made has the event times.
func (d *Decoder) fillWatermark(c *Column) {
	before, has := d.MaxEventTime, d.HasEventTime
	for _, t := range d.made.times {
		if has {
			c.AppendInt(d.watermark(before))
		} else {
			c.AppendNull()
		}
		if !has || t > before {
			before, has = t, true
		}
	}
}
