package record

import (
	"math"
	"strconv"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/millrace/millrace/internal/fault"
	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
)

// protobufFormat reads records that are one protobuf message, straight from the wire by a table of field numbers.
// Fields without a column are skipped without looking inside, as are fields whose wire type isn't that of the schema.
// Only what becomes JSONB goes through a dynamic message.
type protobufFormat struct {
	cols    []declared
	message *protobufMessage
	table   []protoField // by number, for small numbers
	sparse  map[protowire.Number]*protoField
	columns []protoColumn
	oneofs  [][]int // columns of each oneof
	text    textReader
}

// protoField is what to do with one field number.
type protoField struct {
	known bool
	col   int // or -1: only clears the others of its oneof
	oneof int // or -1
}

// protoColumn is a column's field and what has been read of it in the current record.
type protoColumn struct {
	field protoreflect.FieldDescriptor
	wire  protowire.Type
	kind  protoKind
	zero  Value // where the message lacks the field

	seen    bool
	varint  uint64 // varint and fixed
	bytes   []byte
	raw     []byte // JSON: the field's occurrences, with tags
	seconds int64  // Timestamp and Duration
	nanos   int64
}

// protoKind says how a field's value becomes a column's.
type protoKind uint8

const (
	protoScalar protoKind = iota
	protoTime             // google.protobuf.Timestamp, google.protobuf.Duration
	protoJSON             // messages, repeated fields, maps
)

// maxTable bounds the field numbers that are looked up in a slice.
const maxTable = 1024

func newProtobufFormat(s *millracev1.Stream, cols []declared) (*protobufFormat, error) {
	m, err := newProtobufMessage(s)
	if err != nil {
		return nil, err
	}
	f := &protobufFormat{cols: cols, message: m, columns: make([]protoColumn, len(cols)),
		sparse: map[protowire.Number]*protoField{}, oneofs: make([][]int, m.desc.Oneofs().Len())}
	fields := m.desc.Fields()
	for i, c := range cols {
		if c.need == needNothing {
			continue
		}
		col, err := m.column(s, c)
		if err != nil {
			return nil, err
		}
		f.columns[i] = col
		f.entry(col.field.Number()).col = i
		if o := col.field.ContainingOneof(); o != nil {
			f.oneofs[o.Index()] = append(f.oneofs[o.Index()], i)
		}
	}
	for k := range fields.Len() { // also fields without a column clear the others of their oneof
		if o := fields.Get(k).ContainingOneof(); o != nil && len(f.oneofs[o.Index()]) > 0 {
			f.entry(fields.Get(k).Number()).oneof = o.Index()
		}
	}
	return f, nil
}

// entry returns the entry of number n, made if it isn't there.
func (f *protobufFormat) entry(n protowire.Number) *protoField {
	e := f.find(n)
	if e == nil {
		if n < maxTable {
			for int(n) >= len(f.table) {
				f.table = append(f.table, protoField{})
			}
			e = &f.table[n]
		} else {
			e = &protoField{}
			f.sparse[n] = e
		}
		*e = protoField{known: true, col: -1, oneof: -1}
	}
	return e
}

func (f *protobufFormat) find(n protowire.Number) *protoField {
	if int(n) < len(f.table) {
		if e := &f.table[n]; e.known {
			return e
		}
		return nil
	}
	return f.sparse[n]
}

func malformedProtobuf(at int) error {
	return fault.SQL(fault.Invalid, "22P03", "malformed protobuf message at byte %d", at)
}

func (f *protobufFormat) read(value []byte, out []Value) error {
	for i := range f.columns {
		f.columns[i].clear()
	}
	f.text.buf = f.text.buf[:0]
	for b := value; len(b) > 0; {
		num, typ, tag := protowire.ConsumeTag(b)
		if tag < 0 || num > protowire.MaxValidNumber {
			return malformedProtobuf(len(value) - len(b))
		}
		e := f.find(num)
		if e == nil {
			n := protowire.ConsumeFieldValue(num, typ, b[tag:])
			if n < 0 {
				return malformedProtobuf(len(value) - len(b))
			}
			b = b[tag+n:]
			continue
		}
		n, err := f.field(e, num, typ, b, tag)
		if err != nil {
			return err
		}
		if n < 0 {
			return malformedProtobuf(len(value) - len(b))
		}
		b = b[n:]
	}
	for i := range f.cols {
		c := &f.cols[i]
		if c.need == needNothing {
			out[i].Null = true
			continue
		}
		if err := f.convert(&f.columns[i], c, &out[i]); err != nil {
			return inColumn(c.name, err)
		}
	}
	return nil
}

func (c *protoColumn) clear() {
	c.seen, c.raw, c.seconds, c.nanos = false, c.raw[:0], 0, 0
}

// field reads one occurrence of a known field, whose tag has the given size, and returns its size or -1.
func (f *protobufFormat) field(e *protoField, num protowire.Number, typ protowire.Type, b []byte, tag int) (int, error) {
	if e.col >= 0 {
		c := &f.columns[e.col]
		if c.wire != typ && !(c.kind == protoJSON && typ == protowire.BytesType && c.field.IsList()) {
			n := protowire.ConsumeFieldValue(num, typ, b[tag:])
			return tag + n, orMalformed(n)
		}
		f.clearOneof(e, e.col)
		n, err := c.take(num, typ, b, tag)
		if err != nil {
			return 0, inColumn(f.cols[e.col].name, err)
		}
		return n, nil
	}
	f.clearOneof(e, -1)
	n := protowire.ConsumeFieldValue(num, typ, b[tag:])
	return tag + n, orMalformed(n)
}

func orMalformed(n int) error {
	if n < 0 {
		return fault.SQL(fault.Invalid, "22P03", "malformed protobuf message")
	}
	return nil
}

// clearOneof takes back the other members of a oneof: the last one on the wire counts.
func (f *protobufFormat) clearOneof(e *protoField, but int) {
	if e.oneof < 0 {
		return
	}
	for _, i := range f.oneofs[e.oneof] {
		if i != but {
			f.columns[i].clear()
		}
	}
}

// take reads one occurrence of the column's field.
func (c *protoColumn) take(num protowire.Number, typ protowire.Type, b []byte, tag int) (int, error) {
	c.seen = true
	n := 0
	switch {
	case c.kind == protoJSON:
		if n = protowire.ConsumeFieldValue(num, typ, b[tag:]); n >= 0 {
			c.raw = append(c.raw, b[:tag+n]...)
		}
	case c.kind == protoTime:
		var body []byte
		if body, n = consumeBytes(b[tag:]); n >= 0 {
			return tag + n, c.takeTime(body)
		}
	case typ == protowire.VarintType:
		c.varint, n = protowire.ConsumeVarint(b[tag:])
	case typ == protowire.Fixed64Type:
		c.varint, n = protowire.ConsumeFixed64(b[tag:])
	case typ == protowire.Fixed32Type:
		var v uint32
		v, n = protowire.ConsumeFixed32(b[tag:])
		c.varint = uint64(v)
	case typ == protowire.BytesType:
		c.bytes, n = consumeBytes(b[tag:])
	}
	if n < 0 {
		return -1, nil
	}
	return tag + n, nil
}

// takeTime reads a Timestamp or Duration; several occurrences are merged.
func (c *protoColumn) takeTime(b []byte) error {
	for len(b) > 0 {
		num, typ, tag := protowire.ConsumeTag(b)
		if tag < 0 || num > protowire.MaxValidNumber {
			return orMalformed(-1)
		}
		n := protowire.ConsumeFieldValue(num, typ, b[tag:])
		if n < 0 {
			return orMalformed(-1)
		}
		if typ == protowire.VarintType && num <= 2 {
			v, _ := protowire.ConsumeVarint(b[tag:])
			if num == 1 {
				c.seconds = int64(v)
			} else {
				c.nanos = int64(int32(v))
			}
		}
		b = b[tag+n:]
	}
	return nil
}

// convert sets v to the column's value in the current record.
func (f *protobufFormat) convert(c *protoColumn, d *declared, v *Value) error {
	v.Null = false
	if !c.seen {
		typ := v.Type
		*v = c.zero
		v.Type = typ
		return nil
	}
	switch c.kind {
	case protoTime:
		return c.convertTime(d, v)
	case protoJSON:
		return f.convertJSON(c, v)
	}
	switch kind := c.field.Kind(); kind {
	case protoreflect.StringKind:
		if d.typ == Text {
			v.Bytes = c.bytes
			return checkText(c.bytes)
		}
		return f.text.read(d.typ, c.bytes, v)
	case protoreflect.BytesKind:
		v.Bytes = c.bytes
		return nil
	case protoreflect.BoolKind:
		v.Int = int64(c.varint)
		if c.varint > 1 {
			v.Int = 1
		}
		return nil
	case protoreflect.FloatKind:
		v.Float = float64(math.Float32frombits(uint32(c.varint)))
		return nil
	case protoreflect.DoubleKind:
		v.Float = math.Float64frombits(c.varint)
		return nil
	case protoreflect.EnumKind:
		if d.typ == Text {
			return f.enumName(c, v)
		}
	}
	n, unsigned := c.integer()
	if d.typ == Numeric {
		start := len(f.text.buf)
		if unsigned {
			f.text.buf = strconv.AppendUint(f.text.buf, uint64(n), 10)
		} else {
			f.text.buf = strconv.AppendInt(f.text.buf, n, 10)
		}
		v.Bytes = f.text.since(start)
		return nil
	}
	if unsigned && n < 0 {
		return rangeError(d.typ, strconv.FormatUint(uint64(n), 10))
	}
	if d.typ == TimestampTZ && n < MinTimestamp {
		return timestampRange(strconv.FormatInt(n, 10))
	}
	v.Int = n
	return nil
}

// integer returns the integer that was read. unsigned: its 64 bits are those of a uint64.
func (c *protoColumn) integer() (n int64, unsigned bool) {
	switch c.field.Kind() {
	case protoreflect.Int32Kind, protoreflect.Sfixed32Kind, protoreflect.EnumKind:
		return int64(int32(c.varint)), false
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		return int64(uint32(c.varint)), false
	case protoreflect.Sint32Kind:
		return int64(int32(protowire.DecodeZigZag(c.varint & math.MaxUint32))), false
	case protoreflect.Sint64Kind:
		return protowire.DecodeZigZag(c.varint), false
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return int64(c.varint), true
	}
	return int64(c.varint), false
}

// enumName sets v to the name of the enum's value, or to its number where the schema has no name for it.
func (f *protobufFormat) enumName(c *protoColumn, v *Value) error {
	n := protoreflect.EnumNumber(int32(c.varint))
	start := len(f.text.buf)
	if e := c.field.Enum().Values().ByNumber(n); e != nil {
		f.text.buf = append(f.text.buf, e.Name()...)
	} else {
		f.text.buf = strconv.AppendInt(f.text.buf, int64(n), 10)
	}
	v.Bytes = f.text.since(start)
	return nil
}

const (
	nanosPerMicro     = 1000
	microsPerSecond   = 1_000_000
	maxNanos          = 999_999_999
	timestampFullName = "google.protobuf.Timestamp"
	durationFullName  = "google.protobuf.Duration"
)

// convertTime keeps whole microseconds: of a Timestamp, whose nanos are never negative, rounded down.
func (c *protoColumn) convertTime(d *declared, v *Value) error {
	micros, ok := c.micros()
	if d.typ == IntervalT {
		if !ok {
			return intervalRange(strconv.FormatInt(c.seconds, 10) + " seconds")
		}
		v.Interval = Interval{Micros: micros}
		return nil
	}
	if !ok || c.nanos < 0 || micros < MinTimestamp {
		return timestampRange(strconv.FormatInt(c.seconds, 10) + " seconds")
	}
	v.Int = micros
	return nil
}

// micros returns seconds and nanos in microseconds; false if they are out of range.
func (c *protoColumn) micros() (int64, bool) {
	const most = math.MaxInt64 / microsPerSecond
	if c.seconds > most || c.seconds < -most || c.nanos > maxNanos || c.nanos < -maxNanos {
		return 0, false
	}
	whole, part := c.seconds*microsPerSecond, c.nanos/nanosPerMicro
	sum := whole + part
	return sum, (sum >= whole) == (part >= 0)
}

// convertJSON decodes the field's occurrences as a message that has no other field, prints that as JSON and takes the
// field out of it: so merging, packing and map entries follow protobuf's own rules.
func (f *protobufFormat) convertJSON(c *protoColumn, v *Value) error {
	m := dynamicpb.NewMessage(f.message.desc)
	opt := proto.UnmarshalOptions{AllowPartial: true, Resolver: f.message.types}
	if err := opt.Unmarshal(c.raw, m); err != nil {
		return fault.Wrap(fault.Invalid, err, "malformed protobuf field")
	}
	text, err := protojson.MarshalOptions{UseProtoNames: true, AllowPartial: true, Resolver: f.message.types}.Marshal(m)
	if err != nil {
		return fault.Wrap(fault.Invalid, err, "protobuf field has no JSON form")
	}
	only := jsonFormat{cols: []declared{{name: f.message.jsonName(c.field), typ: JSONB, need: needValue}}}
	only = *newJSONFormat(only.cols)
	value := []Value{{Type: JSONB}}
	if err := only.read(text, value); err != nil {
		return err
	}
	start := len(f.text.buf)
	switch {
	case !value[0].Null:
		f.text.buf = append(f.text.buf, value[0].Bytes...)
	case c.field.IsMap():
		f.text.buf = append(f.text.buf, "{}"...)
	case c.field.IsList():
		f.text.buf = append(f.text.buf, "[]"...)
	default: // a google.protobuf.Value that is null
		v.Null = true
		return nil
	}
	v.Bytes = f.text.since(start)
	return nil
}
