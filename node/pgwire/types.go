package pgwire

import (
	"encoding/binary"
	"math"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/record"
)

// Formats of values on the wire.
const (
	textFormat   = 0
	binaryFormat = 1
)

// epoch2000 is PostgreSQL's epoch in microseconds of Unix's.
const epoch2000 = 946_684_800_000_000

// oidOf is PostgreSQL's type of ours.
func oidOf(t record.Type) uint32 {
	switch t {
	case record.Boolean:
		return pgtype.BoolOID
	case record.BigInt:
		return pgtype.Int8OID
	case record.Double:
		return pgtype.Float8OID
	case record.Numeric:
		return pgtype.NumericOID
	case record.Bytea:
		return pgtype.ByteaOID
	case record.TimestampTZ:
		return pgtype.TimestamptzOID
	case record.IntervalT:
		return pgtype.IntervalOID
	case record.JSONB:
		return pgtype.JSONBOID
	case record.Date:
		return pgtype.DateOID
	case record.Time:
		return pgtype.TimeOID
	case record.Timestamp:
		return pgtype.TimestampOID
	case record.UUID:
		return pgtype.UUIDOID
	}
	if t.IsArray() {
		return arrayOIDs[oidOf(t.Elem())]
	}
	return pgtype.TextOID
}

// arrayOIDs are the types of arrays by those of their elements.
var arrayOIDs = map[uint32]uint32{
	pgtype.BoolOID: pgtype.BoolArrayOID, pgtype.Int8OID: pgtype.Int8ArrayOID, pgtype.Float8OID: pgtype.Float8ArrayOID,
	pgtype.NumericOID: pgtype.NumericArrayOID, pgtype.TextOID: pgtype.TextArrayOID, pgtype.ByteaOID: pgtype.ByteaArrayOID,
	pgtype.TimestamptzOID: pgtype.TimestamptzArrayOID, pgtype.IntervalOID: pgtype.IntervalArrayOID, pgtype.JSONBOID: pgtype.JSONBArrayOID,
	pgtype.DateOID: pgtype.DateArrayOID, pgtype.TimeOID: pgtype.TimeArrayOID, pgtype.TimestampOID: pgtype.TimestampArrayOID,
	pgtype.UUIDOID: pgtype.UUIDArrayOID,
}

// sizeOf is a type's size as RowDescription has it: -1 varies.
func sizeOf(oid uint32) int16 {
	switch oid {
	case pgtype.BoolOID, pgtype.QCharOID:
		return 1
	case pgtype.Int2OID:
		return 2
	case pgtype.Int4OID, pgtype.OIDOID, pgtype.Float4OID, pgtype.DateOID:
		return 4
	case pgtype.Int8OID, pgtype.Float8OID, pgtype.TimestamptzOID, pgtype.TimestampOID, pgtype.TimeOID:
		return 8
	case pgtype.IntervalOID, pgtype.UUIDOID:
		return 16
	case pgtype.NameOID:
		return 64
	}
	return -1
}

// typeOf is our type of a parameter that a client declared; Unknown leaves it open.
func typeOf(oid uint32) record.Type {
	switch oid {
	case pgtype.BoolOID:
		return record.Boolean
	case pgtype.Int2OID, pgtype.Int4OID, pgtype.Int8OID, pgtype.OIDOID:
		return record.BigInt
	case pgtype.Float4OID, pgtype.Float8OID:
		return record.Double
	case pgtype.NumericOID:
		return record.Numeric
	case pgtype.TextOID, pgtype.VarcharOID, pgtype.BPCharOID, pgtype.NameOID:
		return record.Text
	case pgtype.ByteaOID:
		return record.Bytea
	case pgtype.TimestamptzOID:
		return record.TimestampTZ
	case pgtype.TimestampOID:
		return record.Timestamp
	case pgtype.DateOID:
		return record.Date
	case pgtype.TimeOID:
		return record.Time
	case pgtype.UUIDOID:
		return record.UUID
	case pgtype.IntervalOID:
		return record.IntervalT
	case pgtype.JSONBOID, pgtype.JSONOID:
		return record.JSONB
	}
	if elem := elementOIDs[oid]; elem != 0 {
		return record.ArrayOf(typeOf(elem))
	}
	return record.Unknown
}

// appendBinary appends value i of c, which isn't NULL, in PostgreSQL's binary format.
func appendBinary(dst []byte, c *record.Column, i int) ([]byte, error) {
	switch c.Type {
	case record.Boolean:
		if c.Bools[i] {
			return append(dst, 1), nil
		}
		return append(dst, 0), nil
	case record.BigInt:
		return binary.BigEndian.AppendUint64(dst, uint64(c.Ints[i])), nil
	case record.Double:
		return binary.BigEndian.AppendUint64(dst, math.Float64bits(c.Floats[i])), nil
	case record.Date:
		const days2000 = epoch2000 / int64(24*time.Hour/time.Microsecond)
		return binary.BigEndian.AppendUint32(dst, uint32(c.Ints[i]-days2000)), nil
	case record.Time:
		return binary.BigEndian.AppendUint64(dst, uint64(c.Ints[i])), nil
	case record.TimestampTZ, record.Timestamp:
		return binary.BigEndian.AppendUint64(dst, uint64(timestampOut(c.Ints[i]))), nil
	case record.IntervalT:
		v := c.Intervals[i]
		dst = binary.BigEndian.AppendUint64(dst, uint64(v.Micros))
		dst = binary.BigEndian.AppendUint32(dst, uint32(v.Days))
		return binary.BigEndian.AppendUint32(dst, uint32(v.Months)), nil
	case record.Numeric:
		return appendNumeric(dst, string(c.At(i)))
	case record.JSONB:
		return append(append(dst, 1), c.At(i)...), nil
	case record.Text, record.Bytea, record.UUID:
		return append(dst, c.At(i)...), nil
	}
	if c.Type.IsArray() {
		return appendArray(dst, c.Type.Elem(), c.At(i))
	}
	return record.AppendText(dst, c, i), nil
}

// appendArray appends an array: the number of its dimensions, whether it has NULLs, the elements' type; the dimension's
// length and lower bound; then each element after its length, -1 for NULL.
func appendArray(dst []byte, elem record.Type, src []byte) ([]byte, error) {
	c := record.NewColumn(elem, 0)
	if err := record.DecodeArray(src, &c); err != nil {
		return dst, err
	}
	var dims, nulls uint32
	if c.N > 0 {
		dims = 1
	}
	if c.Validity != nil {
		nulls = 1
	}
	dst = binary.BigEndian.AppendUint32(dst, dims)
	dst = binary.BigEndian.AppendUint32(dst, nulls)
	dst = binary.BigEndian.AppendUint32(dst, oidOf(elem))
	if c.N == 0 {
		return dst, nil
	}
	dst = binary.BigEndian.AppendUint32(dst, uint32(c.N))
	dst = binary.BigEndian.AppendUint32(dst, 1)
	for i := range c.N {
		at := len(dst)
		dst = binary.BigEndian.AppendUint32(dst, math.MaxUint32)
		if c.Null(i) {
			continue
		}
		var err error
		if dst, err = appendBinary(dst, &c, i); err != nil {
			return dst, err
		}
		binary.BigEndian.PutUint32(dst[at:], uint32(len(dst)-at-4))
	}
	return dst, nil
}

// timestampOut keeps the infinities, which are the ends of the range in both epochs.
func timestampOut(us int64) int64 {
	if us == math.MaxInt64 || us == math.MinInt64 {
		return us
	}
	return us - epoch2000
}

func appendNumeric(dst []byte, text string) ([]byte, error) {
	var n pgtype.Numeric
	if err := n.Scan(text); err != nil {
		return dst, fault.Wrap(fault.Internal, err, "numeric %q", text)
	}
	plan := pgtype.NumericCodec{}.PlanEncode(nil, pgtype.NumericOID, pgtype.BinaryFormatCode, n)
	out, err := plan.Encode(n, dst)
	if err != nil {
		return dst, fault.Wrap(fault.Internal, err, "numeric %q", text)
	}
	return out, nil
}

// decodeParameter returns a parameter's value: a text as a value of type Unknown, which takes the type of its place.
func decodeParameter(oid uint32, format int16, b []byte) (record.Value, error) {
	switch {
	case b == nil:
		return record.Value{Null: true}, nil
	case format == textFormat:
		v, err := record.ParseText(record.Text, string(b)) // which checks the encoding
		v.Type = record.Unknown
		return v, err
	case format != binaryFormat:
		return record.Value{}, protocolError("unknown format %d of a parameter", format)
	}
	return decodeBinary(oid, b)
}

func decodeBinary(oid uint32, b []byte) (record.Value, error) {
	want := func(n int) error {
		if len(b) != n {
			return fault.SQL(fault.Invalid, "22P03", "incorrect binary data format: %d bytes for a type of %d", len(b), n)
		}
		return nil
	}
	v := record.Value{Type: typeOf(oid)}
	switch oid {
	case pgtype.BoolOID:
		if err := want(1); err != nil {
			return v, err
		}
		v.Int = int64(b[0] & 1)
	case pgtype.Int2OID:
		if err := want(2); err != nil {
			return v, err
		}
		v.Int = int64(int16(binary.BigEndian.Uint16(b)))
	case pgtype.Int4OID:
		if err := want(4); err != nil {
			return v, err
		}
		v.Int = int64(int32(binary.BigEndian.Uint32(b)))
	case pgtype.OIDOID:
		if err := want(4); err != nil {
			return v, err
		}
		v.Int = int64(binary.BigEndian.Uint32(b))
	case pgtype.Int8OID:
		if err := want(8); err != nil {
			return v, err
		}
		v.Int = int64(binary.BigEndian.Uint64(b))
	case pgtype.Float4OID:
		if err := want(4); err != nil {
			return v, err
		}
		v.Float = float64(math.Float32frombits(binary.BigEndian.Uint32(b)))
	case pgtype.Float8OID:
		if err := want(8); err != nil {
			return v, err
		}
		v.Float = math.Float64frombits(binary.BigEndian.Uint64(b))
	case pgtype.TimestamptzOID, pgtype.TimestampOID:
		if err := want(8); err != nil {
			return v, err
		}
		t, err := timestampIn(int64(binary.BigEndian.Uint64(b)))
		t.Type = v.Type
		return t, err
	case pgtype.TimeOID:
		if err := want(8); err != nil {
			return v, err
		}
		if v.Int = int64(binary.BigEndian.Uint64(b)); v.Int < 0 || v.Int > int64(24*time.Hour/time.Microsecond) {
			return v, fault.SQL(fault.Invalid, "22008", "time out of range")
		}
	case pgtype.DateOID:
		if err := want(4); err != nil {
			return v, err
		}
		const day = int64(24 * time.Hour / time.Microsecond)
		if v.Int = int64(int32(binary.BigEndian.Uint32(b))) + epoch2000/day; v.Int < record.MinDate || v.Int > record.MaxDate {
			return v, fault.SQL(fault.Invalid, "22008", "date out of range")
		}
	case pgtype.IntervalOID:
		if err := want(16); err != nil {
			return v, err
		}
		v.Interval = record.Interval{
			Micros: int64(binary.BigEndian.Uint64(b)), Days: int32(binary.BigEndian.Uint32(b[8:])), Months: int32(binary.BigEndian.Uint32(b[12:])),
		}
	default:
		return decodeBinaryBytes(oid, b)
	}
	return v, nil
}

// decodeBinaryBytes decodes the types whose length varies.
func decodeBinaryBytes(oid uint32, b []byte) (record.Value, error) {
	switch oid {
	case pgtype.NumericOID:
		var n pgtype.Numeric
		plan := pgtype.NumericCodec{}.PlanScan(nil, oid, pgtype.BinaryFormatCode, &n)
		if err := plan.Scan(b, &n); err != nil {
			return record.Value{}, fault.SQL(fault.Invalid, "22P03", "incorrect binary data format of numeric: %v", err)
		}
		text, err := numericText(n)
		if err != nil {
			return record.Value{}, err
		}
		return record.ParseText(record.Numeric, text)
	case pgtype.ByteaOID:
		return record.Value{Type: record.Bytea, Bytes: append([]byte{}, b...)}, nil
	case pgtype.JSONBOID:
		if len(b) == 0 || b[0] != 1 {
			return record.Value{}, fault.SQL(fault.Invalid, "22P03", "unsupported jsonb version")
		}
		return record.ParseText(record.JSONB, string(b[1:]))
	case pgtype.JSONOID:
		return record.ParseText(record.JSONB, string(b))
	case pgtype.UUIDOID:
		if len(b) != 16 {
			return record.Value{}, fault.SQL(fault.Invalid, "22P03", "incorrect binary data format of uuid")
		}
		return record.Value{Type: record.UUID, Bytes: append([]byte{}, b...)}, nil
	case pgtype.TextOID, pgtype.VarcharOID, pgtype.BPCharOID, pgtype.NameOID:
		return record.ParseText(record.Text, string(b))
	case 0, pgtype.UnknownOID:
		v, err := record.ParseText(record.Text, string(b))
		v.Type = record.Unknown
		return v, err
	}
	if elementOIDs[oid] != 0 {
		return decodeBinaryArray(oid, b)
	}
	return record.Value{}, fault.SQL(fault.Unsupported, "0A000", "parameters of type %d in the binary format are not supported; send text", oid)
}

// maxNumericExponent keeps a parameter of a few bytes from becoming megabytes of digits.
const maxNumericExponent = 20_000

func numericText(n pgtype.Numeric) (string, error) {
	if n.Exp > maxNumericExponent || n.Exp < -maxNumericExponent {
		return "", fault.SQL(fault.Invalid, "22003", "value overflows numeric format")
	}
	text, err := n.Value()
	if err != nil {
		return "", fault.SQL(fault.Invalid, "22P03", "incorrect binary data format of numeric: %v", err)
	}
	s, _ := text.(string)
	return s, nil
}

func timestampIn(us int64) (record.Value, error) {
	v := record.Value{Type: record.TimestampTZ, Int: us}
	if us != math.MaxInt64 && us != math.MinInt64 {
		if us > math.MaxInt64-epoch2000 {
			return v, fault.SQL(fault.Invalid, "22008", "timestamp out of range")
		}
		v.Int = us + epoch2000
	}
	return v, nil
}
