package record

import (
	"bytes"
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

// Encoder writes rows as records of one stream. It is not for concurrent use.
type Encoder struct {
	cols   []declared
	names  [][]byte // JSON: each column's name as a JSON string
	fields []protoColumn
	pb     *protobufMessage
	format string
	text   []byte
}

// NewEncoder returns an encoder for s. A definition that can't be is fault.Invalid.
func NewEncoder(s *millracev1.Stream) (*Encoder, error) {
	cols, err := declaredColumns(s)
	if err != nil {
		return nil, err
	}
	e := &Encoder{cols: cols, format: s.Format}
	switch s.Format {
	case FormatJSON:
		for _, c := range cols {
			e.names = append(e.names, appendJSONString(nil, []byte(c.name)))
		}
	case FormatCSV:
	case FormatProtobuf:
		if e.pb, err = newProtobufMessage(s); err != nil {
			return nil, err
		}
		for _, c := range cols {
			col, err := e.pb.column(s, c)
			if err != nil {
				return nil, err
			}
			e.fields = append(e.fields, col)
		}
	default:
		return nil, unknownFormat(s)
	}
	return e, nil
}

// Encode appends row i of d, whose columns are all the declared ones in order, as the value of a record. What the
// format can't hold, such as NULL in a protobuf field without presence, is fault.Invalid.
func (e *Encoder) Encode(dst []byte, d *Delta, i int) ([]byte, error) {
	if len(d.Cols) != len(e.cols) {
		return dst, fault.New(fault.Internal, "a row of %d columns for a stream of %d", len(d.Cols), len(e.cols))
	}
	switch e.format {
	case FormatJSON:
		return e.json(dst, d, i), nil
	case FormatCSV:
		return e.csv(dst, d, i), nil
	}
	return e.protobuf(dst, d, i)
}

func (e *Encoder) json(dst []byte, d *Delta, i int) []byte {
	dst = append(dst, '{')
	for k := range d.Cols {
		if k > 0 {
			dst = append(dst, ',')
		}
		dst = append(append(dst, e.names[k]...), ':')
		c := &d.Cols[k]
		if !c.Null(i) && !inRFC3339(c, i) {
			e.text = AppendText(e.text[:0], c, i)
			dst = appendJSONString(dst, e.text)
			continue
		}
		dst = AppendJSON(dst, c, i)
	}
	return append(dst, '}')
}

// inRFC3339 tells whether value i, if it has times at all, has them in the years 1 to 9999.
func inRFC3339(c *Column, i int) bool {
	switch c.Type {
	case TimestampTZ, Timestamp:
		return c.Ints[i] >= -62135596800*microsPerSecond && c.Ints[i] < 253402300800*microsPerSecond
	case ArrayOf(TimestampTZ), ArrayOf(Timestamp):
		elems := elements(c.Type, c.At(i))
		for k := range elems.N {
			if !elems.Null(k) && !inRFC3339(&elems, k) {
				return false
			}
		}
	}
	return true
}

func (e *Encoder) csv(dst []byte, d *Delta, i int) []byte {
	for k := range d.Cols {
		if k > 0 {
			dst = append(dst, ',')
		}
		c := &d.Cols[k]
		if c.Null(i) {
			continue
		}
		e.text = AppendText(e.text[:0], c, i)
		dst = AppendCSVField(dst, e.text)
	}
	return dst
}

// AppendCSVField appends a field that isn't NULL, in quotes if it needs them: an empty one does, as an empty field
// without quotes is NULL.
func AppendCSVField(dst, field []byte) []byte {
	plain := len(field) > 0
	for _, c := range field {
		if c == ',' || c == '"' || c == '\n' || c == '\r' {
			plain = false
		}
	}
	if plain {
		return append(dst, field...)
	}
	dst = append(dst, '"')
	for _, c := range field {
		if c == '"' {
			dst = append(dst, '"')
		}
		dst = append(dst, c)
	}
	return append(dst, '"')
}

func (e *Encoder) protobuf(dst []byte, d *Delta, i int) ([]byte, error) {
	start := len(dst)
	for k := range d.Cols {
		v, f := d.Cols[k].Value(i), &e.fields[k]
		var err error
		switch {
		case v.Null && f.zero.Null:
		case v.Null:
			err = fault.SQL(fault.Invalid, "23502", "NULL can't be stored: the field has no presence; make it optional in the message")
		case f.kind == protoJSON:
			dst, err = e.protoJSON(dst, f, v)
		case f.kind == protoTime:
			dst, err = appendProtoTime(dst, f, v)
		default:
			dst, err = e.protoScalar(dst, f, v)
		}
		if err != nil {
			return dst[:start], inColumn(e.cols[k].name, err)
		}
	}
	return dst, nil
}

func appendProtoTime(dst []byte, f *protoColumn, v Value) ([]byte, error) {
	micros := v.Int
	if v.Type == IntervalT {
		// A Duration has no months and days: they are counted as when intervals are compared.
		s := spanOf(v.Interval)
		if micros = int64(s.lo); s.hi != micros>>63 {
			return dst, intervalRange(string(AppendTextValue(nil, v)))
		}
	}
	seconds := micros / microsPerSecond
	if v.Type == TimestampTZ { // nanos are never negative
		seconds = floorDiv(micros, microsPerSecond)
	}
	var body [32]byte
	b := protowire.AppendTag(body[:0], 1, protowire.VarintType)
	b = protowire.AppendVarint(b, uint64(seconds))
	b = protowire.AppendTag(b, 2, protowire.VarintType)
	b = protowire.AppendVarint(b, uint64((micros-seconds*microsPerSecond)*nanosPerMicro))
	dst = protowire.AppendTag(dst, f.field.Number(), protowire.BytesType)
	return protowire.AppendBytes(dst, b), nil
}

func (e *Encoder) protoJSON(dst []byte, f *protoColumn, v Value) ([]byte, error) {
	e.text = appendJSONString(append(e.text[:0], '{'), []byte(f.field.TextName()))
	e.text = append(append(append(e.text, ':'), v.Bytes...), '}')
	m := dynamicpb.NewMessage(e.pb.desc)
	opt := protojson.UnmarshalOptions{AllowPartial: true, Resolver: e.pb.types}
	if err := opt.Unmarshal(e.text, m); err != nil {
		return dst, fault.Wrap(fault.Invalid, err, "the JSON doesn't fit the field")
	}
	out, err := proto.MarshalOptions{AllowPartial: true, Deterministic: true}.MarshalAppend(dst, m)
	if err != nil {
		return dst, fault.Wrap(fault.Invalid, err, "the JSON doesn't fit the field")
	}
	return out, nil
}

func (e *Encoder) protoScalar(dst []byte, f *protoColumn, v Value) ([]byte, error) {
	num := f.field.Number()
	kind := f.field.Kind()
	switch kind {
	case protoreflect.StringKind:
		dst = protowire.AppendTag(dst, num, protowire.BytesType)
		e.text = AppendTextValue(e.text[:0], v)
		return protowire.AppendBytes(dst, e.text), nil
	case protoreflect.BytesKind:
		return protowire.AppendBytes(protowire.AppendTag(dst, num, protowire.BytesType), v.Bytes), nil
	case protoreflect.DoubleKind:
		return protowire.AppendFixed64(protowire.AppendTag(dst, num, protowire.Fixed64Type), math.Float64bits(v.Float)), nil
	case protoreflect.FloatKind:
		return protowire.AppendFixed32(protowire.AppendTag(dst, num, protowire.Fixed32Type), math.Float32bits(float32(v.Float))), nil
	}
	bits, err := protoInteger(f.field, v)
	if err != nil {
		return dst, err
	}
	dst = protowire.AppendTag(dst, num, f.wire)
	switch f.wire {
	case protowire.Fixed32Type:
		return protowire.AppendFixed32(dst, uint32(bits)), nil
	case protowire.Fixed64Type:
		return protowire.AppendFixed64(dst, bits), nil
	}
	return protowire.AppendVarint(dst, bits), nil
}

// protoInteger returns the bits of v on the wire of an integer, boolean or enum field, if it is in the field's range.
func protoInteger(fd protoreflect.FieldDescriptor, v Value) (uint64, error) {
	kind := fd.Kind()
	unsigned64 := kind == protoreflect.Uint64Kind || kind == protoreflect.Fixed64Kind
	n := v.Int
	switch {
	case v.Type == Text: // an enum's name
		e := fd.Enum().Values().ByName(protoreflect.Name(v.Bytes))
		if e != nil {
			return uint64(int64(e.Number())), nil
		}
		parsed, err := parseBigInt(string(v.Bytes))
		if err != nil || parsed < math.MinInt32 || parsed > math.MaxInt32 {
			return 0, fault.SQL(fault.Invalid, "22P02", "the enum %s has no value %s", fd.Enum().FullName(), quote(string(v.Bytes)))
		}
		n = parsed
	case v.Type == Numeric:
		p := splitNumeric(v.Bytes)
		whole := v.Bytes
		if dot := bytes.IndexByte(whole, '.'); dot >= 0 {
			whole = whole[:dot]
		}
		if p.sign == 2 || len(p.frac) > 0 {
			return 0, rangeOfField(fd, string(v.Bytes))
		}
		if unsigned64 {
			u, err := strconv.ParseUint(string(whole), 10, 64)
			if err != nil {
				return 0, rangeOfField(fd, string(v.Bytes))
			}
			return u, nil
		}
		parsed, err := strconv.ParseInt(string(whole), 10, 64)
		if err != nil {
			return 0, rangeOfField(fd, string(v.Bytes))
		}
		n = parsed
	}
	return integerBits(fd, n)
}

// integerBits returns n's bits on the wire, if the field's kind can hold it.
func integerBits(fd protoreflect.FieldDescriptor, n int64) (uint64, error) {
	least, most := int64(math.MinInt64), int64(math.MaxInt64)
	switch fd.Kind() {
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind, protoreflect.EnumKind:
		least, most = math.MinInt32, math.MaxInt32
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		least, most = 0, math.MaxUint32
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		least = 0
	}
	if n < least || n > most {
		return 0, rangeOfField(fd, string(AppendTextValue(nil, Value{Type: BigInt, Int: n})))
	}
	switch fd.Kind() {
	case protoreflect.Sint32Kind, protoreflect.Sint64Kind:
		return protowire.EncodeZigZag(n), nil
	}
	return uint64(n), nil
}

func rangeOfField(fd protoreflect.FieldDescriptor, s string) error {
	return fault.SQL(fault.Invalid, "22003", "%s is out of range for the field's type %s", quote(s), fd.Kind())
}
