package record

import (
	"bytes"
	"encoding/binary"
	"math"

	"github.com/millrace/millrace/internal/fault"
)

// The ordered encoding of a value begins with one of these, so that NULLs sort last, as in PostgreSQL.
const (
	orderedValue byte = 0x01
	orderedNull  byte = 0xff
)

// Bytes of varying length end with a terminator that sorts below anything that could follow; a zero byte inside is
// followed by 0xff. (The scheme of FoundationDB's tuple layer and CockroachDB's key encoding.)
const (
	orderedEscape     byte = 0x00
	orderedEscaped    byte = 0xff
	orderedTerminator byte = 0x01
)

const signBit = 1 << 63

// AppendOrdered appends value i of c so that the bytes of two values compare as the values do (see Compare), NULL
// last. The encoding tells its own end, and equal values give equal bytes (1.0 and 1.00, -0 and 0, '1 day' and
// '24 hours'), so that it serves as the key of a group; DecodeOrdered returns one of the equal values, maybe not the one that went in.
func AppendOrdered(dst []byte, c *Column, i int) []byte {
	if c.Null(i) {
		return append(dst, orderedNull)
	}
	dst = append(dst, orderedValue)
	switch c.Type {
	case Boolean:
		return appendOrderedBool(dst, c.Bools[i])
	case BigInt, TimestampTZ, Timestamp, Date, Time:
		return binary.BigEndian.AppendUint64(dst, uint64(c.Ints[i])^signBit)
	case Double:
		return binary.BigEndian.AppendUint64(dst, orderedDouble(c.Floats[i]))
	case IntervalT:
		return appendOrderedInterval(dst, c.Intervals[i])
	case Text, Bytea, UUID:
		return appendOrderedBytes(dst, c.At(i))
	case Numeric:
		return appendOrderedNumeric(dst, c.At(i))
	case JSONB:
		return appendOrderedJSONB(dst, c.At(i))
	}
	if c.Type.IsArray() {
		return appendOrderedArray(dst, c.Type, c.At(i))
	}
	return dst
}

// AppendOrderedValue is AppendOrdered of a value outside a column.
func AppendOrderedValue(dst []byte, v Value) []byte {
	if v.Null {
		return append(dst, orderedNull)
	}
	dst = append(dst, orderedValue)
	switch v.Type {
	case Boolean:
		return appendOrderedBool(dst, v.Int != 0)
	case BigInt, TimestampTZ, Timestamp, Date, Time:
		return binary.BigEndian.AppendUint64(dst, uint64(v.Int)^signBit)
	case Double:
		return binary.BigEndian.AppendUint64(dst, orderedDouble(v.Float))
	case IntervalT:
		return appendOrderedInterval(dst, v.Interval)
	case Text, Bytea, UUID:
		return appendOrderedBytes(dst, v.Bytes)
	case Numeric:
		return appendOrderedNumeric(dst, v.Bytes)
	case JSONB:
		return appendOrderedJSONB(dst, v.Bytes)
	}
	if v.Type.IsArray() {
		return appendOrderedArray(dst, v.Type, v.Bytes)
	}
	return dst
}

func appendOrderedBool(dst []byte, v bool) []byte {
	if v {
		return append(dst, 1)
	}
	return append(dst, 0)
}

// orderedDouble maps f to an integer that sorts as PostgreSQL sorts f.
func orderedDouble(f float64) uint64 {
	switch {
	case f != f:
		return math.MaxUint64
	case f == 0:
		f = 0 // one zero
	}
	u := math.Float64bits(f)
	if u&signBit != 0 {
		return ^u
	}
	return u | signBit
}

func doubleOfOrdered(u uint64) float64 {
	switch {
	case u == math.MaxUint64:
		return math.NaN()
	case u&signBit != 0:
		return math.Float64frombits(u &^ signBit)
	}
	return math.Float64frombits(^u)
}

func appendOrderedInterval(dst []byte, v Interval) []byte {
	s := spanOf(v)
	dst = binary.BigEndian.AppendUint64(dst, uint64(s.hi)^signBit)
	return binary.BigEndian.AppendUint64(dst, s.lo)
}

func appendOrderedBytes(dst, v []byte) []byte {
	for {
		n := bytes.IndexByte(v, orderedEscape)
		if n < 0 {
			dst = append(dst, v...)
			return append(dst, orderedEscape, orderedTerminator)
		}
		dst = append(dst, v[:n]...)
		dst = append(dst, orderedEscape, orderedEscaped)
		v = v[n+1:]
	}
}

// Kinds of an ordered numeric.
const (
	orderedNegative byte = 0x01
	orderedZero     byte = 0x02
	orderedPositive byte = 0x03
	orderedNaN      byte = 0x04
)

const exponentBias = 0x8000

// appendOrderedNumeric appends a kind, and for numbers other than zero the exponent e of 0.d1d2d3... x 10^e with d1 not
// zero, then the digits two to a byte (1 to 100), then 0; for negative numbers all inverted.
func appendOrderedNumeric(dst, text []byte) []byte {
	p := splitNumeric(text)
	switch p.sign {
	case 0:
		return append(dst, orderedZero)
	case 2:
		return append(dst, orderedNaN)
	case 1:
		dst = append(dst, orderedPositive)
	case -1:
		dst = append(dst, orderedNegative)
	}
	start := len(dst)
	exp, whole, frac := len(p.whole), p.whole, p.frac
	if exp == 0 {
		lead := 0
		for frac[lead] == '0' {
			lead++
		}
		exp, frac = -lead, frac[lead:]
	}
	if len(frac) == 0 { // zeros at the end of a whole number are no digits
		whole = bytes.TrimRight(whole, "0")
	}
	dst = binary.BigEndian.AppendUint16(dst, uint16(exp+exponentBias))
	n := len(whole) + len(frac)
	digit := func(k int) byte {
		switch {
		case k < len(whole):
			return whole[k] - '0'
		case k < n:
			return frac[k-len(whole)] - '0'
		}
		return 0
	}
	for k := 0; k < n; k += 2 {
		dst = append(dst, digit(k)*10+digit(k+1)+1)
	}
	dst = append(dst, 0)
	if p.sign < 0 {
		for k := start; k < len(dst); k++ {
			dst[k] = ^dst[k]
		}
	}
	return dst
}

// DecodeOrdered appends to c the value that src begins with and returns what follows it. Bytes that no value has are
// fault.Corrupted, and c is as before.
func DecodeOrdered(src []byte, c *Column) (rest []byte, err error) {
	if len(src) == 0 {
		return nil, badOrdered(c.Type)
	}
	kind, src := src[0], src[1:]
	if kind == orderedNull {
		c.AppendNull()
		return src, nil
	}
	if kind != orderedValue {
		return nil, badOrdered(c.Type)
	}
	switch c.Type {
	case Boolean:
		if len(src) < 1 || src[0] > 1 {
			return nil, badOrdered(c.Type)
		}
		c.AppendBool(src[0] == 1)
		return src[1:], nil
	case BigInt, TimestampTZ, Timestamp, Date, Time, Double:
		if len(src) < 8 {
			return nil, badOrdered(c.Type)
		}
		u := binary.BigEndian.Uint64(src)
		if c.Type == Double {
			c.AppendFloat(doubleOfOrdered(u))
		} else {
			c.AppendInt(int64(u ^ signBit))
		}
		return src[8:], nil
	case IntervalT:
		if len(src) < 16 {
			return nil, badOrdered(c.Type)
		}
		s := span{int64(binary.BigEndian.Uint64(src) ^ signBit), binary.BigEndian.Uint64(src[8:])}
		v := normalInterval(s)
		if spanOf(v) != s {
			return nil, badOrdered(c.Type)
		}
		c.AppendInterval(v)
		return src[16:], nil
	case Text, Bytea, UUID, Numeric, JSONB:
		return decodeOrderedVarlen(src, c)
	}
	if c.Type.IsArray() {
		return decodeOrderedVarlen(src, c)
	}
	return nil, badOrdered(c.Type)
}

// decodeOrderedVarlen writes the value straight behind the column's bytes.
func decodeOrderedVarlen(src []byte, c *Column) (rest []byte, err error) {
	out, ok := c.Bytes, false
	switch c.Type {
	case Text, Bytea, UUID:
		out, rest, ok = decodeOrderedBytes(out, src)
	case Numeric:
		out, rest, ok = decodeOrderedNumeric(out, src)
	case JSONB:
		out, rest, ok = decodeOrderedJSONB(out, src, 0)
	default:
		out, rest, ok = decodeOrderedArray(out, c.Type, src)
	}
	if !ok {
		return nil, badOrdered(c.Type)
	}
	c.Bytes = out
	c.Offsets = append(c.Offsets, int32(len(out)))
	c.grow()
	return rest, nil
}

func badOrdered(t Type) error {
	return fault.New(fault.Corrupted, "stored key doesn't decode as %s", t)
}

func decodeOrderedBytes(dst, src []byte) (out, rest []byte, ok bool) {
	for {
		n := bytes.IndexByte(src, orderedEscape)
		if n < 0 || n+1 >= len(src) {
			return dst, nil, false
		}
		dst = append(dst, src[:n]...)
		mark := src[n+1]
		src = src[n+2:]
		switch mark {
		case orderedTerminator:
			return dst, src, true
		case orderedEscaped:
			dst = append(dst, 0)
		default:
			return dst, nil, false
		}
	}
}

func decodeOrderedNumeric(dst, src []byte) (out, rest []byte, ok bool) {
	if len(src) == 0 {
		return dst, nil, false
	}
	kind, src := src[0], src[1:]
	var flip byte
	switch kind {
	case orderedZero:
		return append(dst, '0'), src, true
	case orderedNaN:
		return append(dst, numericNaN...), src, true
	case orderedNegative:
		flip = 0xff
	case orderedPositive:
	default:
		return dst, nil, false
	}
	if len(src) < 3 {
		return dst, nil, false
	}
	exp := int(uint16(src[0]^flip)<<8|uint16(src[1]^flip)) - exponentBias
	src = src[2:]
	end := bytes.IndexByte(src, flip)
	if end <= 0 || end > (MaxNumericDigits+MaxNumericScale)/2+1 || exp > MaxNumericDigits || exp < -MaxNumericScale {
		return dst, nil, false
	}
	var buf [64]byte
	digits := buf[:0]
	for _, c := range src[:end] {
		c ^= flip
		if c > 100 {
			return dst, nil, false
		}
		digits = append(digits, '0'+(c-1)/10, '0'+(c-1)%10)
	}
	if digits[len(digits)-1] == '0' {
		digits = digits[:len(digits)-1]
	}
	if digits[0] == '0' || digits[len(digits)-1] == '0' { // not what the encoder writes
		return dst, nil, false
	}
	out, e := layOut(dst, flip != 0, digits, nil, exp-len(digits))
	return out, src[end+1:], e == numericOK
}
