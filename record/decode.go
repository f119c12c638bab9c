package record

import (
	"math"
	"slices"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/internal/ids"
	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
)

// Meta is what a batch's header says of its records.
type Meta struct {
	Partition  ids.PartitionID
	BaseOffset ids.Offset // of the first record; the others follow without gaps
	Tick       ids.Tick
	TimeMicros int64 // append time, microseconds since the Unix epoch
}

// DeadFunc is told of a record that doesn't decode. key and value belong to the batch.
type DeadFunc func(offset ids.Offset, key []byte, hasKey bool, value []byte, err error)

// Decoder turns the records of one stream into columns. One decoder reads one partition's log in order, because it
// carries the highest event time along; it is not for concurrent use.
type Decoder struct {
	// MaxEventTime is the highest event time, in microseconds since the Unix epoch, of the decodable records so far; NULLs don't count.
	// HasEventTime tells whether there was one. Both are kept for every stream with a watermark, whichever columns are
	// asked for, and may be set to resume in the middle of a log.
	MaxEventTime int64
	HasEventTime bool

	schema Schema
	out    []outColumn
	values []Value // of the current record, one for each declared column
	format recordFormat
	event  int   // declared column with the event time, or -1
	delay  int64 // microseconds
	key    int   // declared column with the key, or -1
	table  *tableKey
	made   *generated // the records aren't in the log: they are made
	text   []byte
}

// recordFormat reads records of one format. read sets one value for each declared column, of its type or NULL; of
// columns that are only checked it may leave the value unset. The values are valid until the next call and may belong to value.
// An error means that the record is dead.
type recordFormat interface {
	read(value []byte, out []Value) error
}

// need says what is wanted of a declared column.
type need uint8

const (
	needNothing need = iota // its value may be anything
	needCheck               // it must decode
	needValue
)

// declared is a column of the stream.
type declared struct {
	name string
	typ  Type
	need need
}

// outColumn is a column of the decoder's output: a declared one or a hidden one.
type outColumn struct {
	declared int // index, or -1
	hidden   hiddenColumn
}

type hiddenColumn uint8

const (
	hiddenPartition hiddenColumn = iota
	hiddenOffset
	hiddenTick
	hiddenTime
	hiddenKey
	hiddenWatermark
	hiddenDeleted
)

// The hidden columns of every stream, by name.
var hiddenColumns = []Field{
	hiddenPartition: {"_partition", BigInt},
	hiddenOffset:    {"_offset", BigInt},
	hiddenTick:      {"_tick", BigInt},
	hiddenTime:      {"_time", TimestampTZ},
	hiddenKey:       {"_key", Text},
	hiddenWatermark: {"_watermark", TimestampTZ},
	hiddenDeleted:   {deletedField, Boolean}, // of tables only
}

// NewDecoder returns a decoder of s's records that makes the named columns, declared or hidden (_partition, _offset,
// _tick, _time, _key, _watermark, and a table's _deleted), in that order. A definition that can't be, such as a protobuf message without a
// field for a column, is fault.Invalid.
func NewDecoder(s *millracev1.Stream, columns []string) (*Decoder, error) {
	cols, err := declaredColumns(s)
	if err != nil {
		return nil, err
	}
	d := &Decoder{event: -1, key: -1, delay: s.WatermarkDelayUs, values: make([]Value, len(cols))}
	for i := range cols {
		cols[i].need = needCheck
		d.values[i].Type = cols[i].typ
	}
	find := func(name string) int {
		return slices.IndexFunc(cols, func(c declared) bool { return c.name == name })
	}
	if s.WatermarkColumn != "" {
		if d.event = find(s.WatermarkColumn); d.event < 0 || cols[d.event].typ != TimestampTZ {
			return nil, fault.New(fault.Invalid, "stream %q: its watermark column %q is no timestamptz column of it", s.Name, s.WatermarkColumn)
		}
		cols[d.event].need = needValue
	}
	if s.Key != "" {
		if d.key = find(s.Key); d.key < 0 {
			return nil, fault.New(fault.Invalid, "stream %q: its key %q is no column of it", s.Name, s.Key)
		}
	}
	if len(s.PrimaryKey) > 0 {
		if d.table, err = newTableKey(s, cols); err != nil {
			return nil, err
		}
	}
	for _, name := range columns {
		if i := find(name); i >= 0 {
			cols[i].need = needValue
			d.out = append(d.out, outColumn{declared: i})
			d.schema = append(d.schema, Field{Name: name, Type: cols[i].typ})
			continue
		}
		h := slices.IndexFunc(hiddenColumns, func(f Field) bool { return f.Name == name })
		if h < 0 || hiddenColumn(h) == hiddenDeleted && d.table == nil {
			return nil, fault.New(fault.Invalid, "stream %q has no column %q", s.Name, name)
		}
		if hiddenColumn(h) == hiddenKey && d.key >= 0 {
			cols[d.key].need = needValue
		}
		d.out = append(d.out, outColumn{declared: -1, hidden: hiddenColumn(h)})
		d.schema = append(d.schema, hiddenColumns[h])
	}
	if d.table != nil && s.Format == FormatJSON {
		cols = append(cols, declared{name: deletedField, typ: Boolean, need: needValue})
		d.values = append(d.values, Value{Type: Boolean})
		d.table.field = len(cols) - 1
	}
	d.format, err = newFormat(s, cols)
	return d, err
}

// declaredColumns returns the stream's columns with their types.
func declaredColumns(s *millracev1.Stream) ([]declared, error) {
	cols := make([]declared, 0, len(s.Columns))
	seen := make(map[string]bool, len(s.Columns))
	for _, c := range s.Columns {
		t, ok := ParseType(c.Type)
		switch {
		case !ok:
			return nil, fault.New(fault.Invalid, "stream %q: column %q has the unknown type %q", s.Name, c.Name, c.Type)
		case seen[c.Name]:
			return nil, fault.New(fault.Invalid, "stream %q has two columns %q", s.Name, c.Name)
		}
		seen[c.Name] = true
		cols = append(cols, declared{name: c.Name, typ: t})
	}
	return cols, nil
}

// The formats of records.
const (
	FormatJSON     = "json"
	FormatCSV      = "csv"
	FormatProtobuf = "protobuf"
)

func newFormat(s *millracev1.Stream, cols []declared) (recordFormat, error) {
	switch s.Format {
	case FormatJSON:
		return newJSONFormat(cols), nil
	case FormatCSV:
		return &csvFormat{cols: cols}, nil
	case FormatProtobuf:
		return newProtobufFormat(s, cols)
	}
	return nil, unknownFormat(s)
}

func unknownFormat(s *millracev1.Stream) error {
	return fault.New(fault.Invalid, "stream %q: unknown format %q; it must be json, csv or protobuf", s.Name, s.Format)
}

// Schema returns the decoder's output columns, as asked for.
func (d *Decoder) Schema() Schema { return d.schema }

// Decode appends the records of a batch, raw being its uncompressed Records, to out, which has the columns of Schema.
// A record of which any declared column doesn't decode is dead, whichever columns are asked for, so that every query agrees on which
// records there are: dead, if not nil, is told of it, and it is skipped. Its offset is used up.
// The error, fault.Corrupted, says that raw itself is no encoded Records; out then has what came before.
// Text columns hold up to 2 GiB, which the caller minds by the size of its batches.
func (d *Decoder) Decode(raw []byte, m Meta, out *Delta, dead DeadFunc) error {
	if d.made != nil {
		return d.generate(raw, &m, out)
	}
	it := NewIter(raw)
	for offset := m.BaseOffset; it.Next(); offset++ {
		if err := d.read(&it); err != nil {
			if dead != nil {
				dead(offset, it.key, it.hasKey, it.value, err)
			}
			continue
		}
		for k := range d.out {
			c := &out.Cols[k]
			if o := d.out[k]; o.declared >= 0 {
				c.AppendValue(d.values[o.declared])
			} else {
				d.appendHidden(c, o.hidden, offset, &m, &it)
			}
		}
		out.N++
		if out.Weights != nil {
			out.Weights = append(out.Weights, 1)
		}
		if d.event >= 0 {
			if v := &d.values[d.event]; !v.Null && (!d.HasEventTime || v.Int > d.MaxEventTime) {
				d.MaxEventTime, d.HasEventTime = v.Int, true
			}
		}
	}
	return it.err
}

// read sets the values of the record that it is at.
func (d *Decoder) read(it *Iter) error {
	if d.table == nil {
		return d.format.read(it.value, d.values)
	}
	return d.table.read(d.format, it, d.values)
}

func (d *Decoder) appendHidden(c *Column, h hiddenColumn, offset ids.Offset, m *Meta, it *Iter) {
	switch h {
	case hiddenPartition:
		c.AppendInt(int64(m.Partition))
	case hiddenOffset:
		c.AppendInt(int64(offset))
	case hiddenTick:
		c.AppendInt(int64(m.Tick))
	case hiddenTime:
		c.AppendInt(m.TimeMicros)
	case hiddenKey:
		d.appendKey(c, it)
	case hiddenDeleted:
		c.AppendBool(d.table.deleted)
	case hiddenWatermark:
		if d.event < 0 || !d.HasEventTime {
			c.AppendNull()
			return
		}
		c.AppendInt(d.watermark(d.MaxEventTime))
	}
}

// watermark is that of records up to an event time.
func (d *Decoder) watermark(event int64) int64 {
	w := event - d.delay
	if d.delay > 0 && w > event { // below all times
		return math.MinInt64
	}
	return w
}

// appendKey appends the text of the record's key: of its key column, or else the key that its producer gave. Keys that
// can't be text, as they are not UTF-8 or have a NUL, are shown as bytea is.
func (d *Decoder) appendKey(c *Column, it *Iter) {
	if d.key >= 0 {
		if d.values[d.key].Null {
			c.AppendNull()
			return
		}
		d.text = appendKeyText(d.text[:0], d.values[d.key])
		c.AppendBytes(d.text)
		return
	}
	switch {
	case !it.hasKey:
		c.AppendNull()
	case checkText(it.key) == nil:
		c.AppendBytes(it.key)
	default:
		d.text = appendBytea(d.text[:0], it.key)
		c.AppendBytes(d.text)
	}
}

// inColumn says in which column a record doesn't decode.
func inColumn(name string, err error) error {
	return fault.Wrap(fault.Invalid, err, "column %s", quote(name))
}
