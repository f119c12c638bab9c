package record

import (
	"encoding/hex"
	"math"
	"strconv"
	"unicode/utf8"
)

// AppendText appends value i of c as PostgreSQL prints it (DateStyle ISO, IntervalStyle postgres, bytea_output hex,
// time zone UTC). A NULL appends nothing.
func AppendText(dst []byte, c *Column, i int) []byte {
	if c.Null(i) {
		return dst
	}
	switch c.Type {
	case Boolean:
		return appendBool(dst, c.Bools[i])
	case BigInt:
		return strconv.AppendInt(dst, c.Ints[i], 10)
	case TimestampTZ:
		return appendTimestamp(dst, c.Ints[i])
	case Double:
		return appendDouble(dst, c.Floats[i])
	case Numeric, Text, JSONB:
		return append(dst, c.At(i)...)
	}
	return AppendTextValue(dst, c.Value(i))
}

// AppendTextValue is AppendText of a value outside a column.
func AppendTextValue(dst []byte, v Value) []byte {
	if v.Null {
		return dst
	}
	switch v.Type {
	case Boolean:
		return appendBool(dst, v.Int != 0)
	case BigInt:
		return strconv.AppendInt(dst, v.Int, 10)
	case TimestampTZ:
		return appendTimestamp(dst, v.Int)
	case Timestamp:
		return appendLocal(dst, v.Int, ' ', false)
	case Date:
		return appendDateText(dst, v.Int)
	case Time:
		return appendClock(dst, v.Int, false)
	case Double:
		return appendDouble(dst, v.Float)
	case IntervalT:
		return appendInterval(dst, v.Interval)
	case Bytea:
		return appendBytea(dst, v.Bytes)
	case UUID:
		return appendUUID(dst, v.Bytes)
	case Numeric, Text, JSONB:
		return append(dst, v.Bytes...)
	}
	if v.Type.IsArray() {
		return appendArrayText(dst, v.Type, v.Bytes)
	}
	return dst
}

// AppendJSON appends value i of c as JSON, the way results are printed with --format json: BIGINT, DOUBLE PRECISION and
// NUMERIC as numbers with all their digits (NaN and the infinities as strings), TIMESTAMPTZ as RFC 3339 in UTC with
// microseconds, TIMESTAMP the same without the Z, DATE, TIME, UUID and INTERVAL as PostgreSQL prints them, BYTEA as
// "\\x...", JSONB as it is, arrays as JSON arrays, NULL as null.
func AppendJSON(dst []byte, c *Column, i int) []byte {
	if c.Null(i) {
		return append(dst, "null"...)
	}
	switch c.Type {
	case Boolean:
		return strconv.AppendBool(dst, c.Bools[i])
	case BigInt:
		return strconv.AppendInt(dst, c.Ints[i], 10)
	case Double:
		return appendDoubleJSON(dst, c.Floats[i])
	case Text:
		return appendJSONString(dst, c.At(i))
	case JSONB:
		return append(dst, c.At(i)...)
	}
	return AppendJSONValue(dst, c.Value(i))
}

// AppendJSONValue is AppendJSON of a value outside a column.
func AppendJSONValue(dst []byte, v Value) []byte {
	if v.Null {
		return append(dst, "null"...)
	}
	switch v.Type {
	case Boolean:
		return strconv.AppendBool(dst, v.Int != 0)
	case BigInt:
		return strconv.AppendInt(dst, v.Int, 10)
	case Double:
		return appendDoubleJSON(dst, v.Float)
	case Numeric:
		if string(v.Bytes) == "NaN" {
			return append(dst, `"NaN"`...)
		}
		return append(dst, v.Bytes...)
	case Text:
		return appendJSONString(dst, v.Bytes)
	case JSONB:
		return append(dst, v.Bytes...)
	case Bytea:
		dst = append(dst, `"\\x`...)
		return append(hex.AppendEncode(dst, v.Bytes), '"')
	case TimestampTZ:
		return append(appendRFC3339(append(dst, '"'), v.Int), '"')
	case Timestamp:
		return append(appendLocal(append(dst, '"'), v.Int, 'T', true), '"')
	case IntervalT, Date, Time, UUID:
		return append(AppendTextValue(append(dst, '"'), v), '"')
	}
	if v.Type.IsArray() {
		return appendArrayJSON(dst, v.Type, v.Bytes)
	}
	return append(dst, "null"...)
}

func appendBool(dst []byte, v bool) []byte {
	if v {
		return append(dst, 't')
	}
	return append(dst, 'f')
}

func appendBytea(dst, v []byte) []byte { return hex.AppendEncode(append(dst, `\x`...), v) }

// appendDoubleJSON writes the digits as appendDouble does: 1e+20 is valid JSON too.
func appendDoubleJSON(dst []byte, v float64) []byte {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return append(appendDouble(append(dst, '"'), v), '"')
	}
	return appendDouble(dst, v)
}

// appendDouble appends v as PostgreSQL 12 and later print it: the shortest digits that read back as v, with an
// exponent below 1e-4 and from 1e15 on.
func appendDouble(dst []byte, v float64) []byte {
	switch {
	case v != v:
		return append(dst, "NaN"...)
	case math.IsInf(v, 1):
		return append(dst, "Infinity"...)
	case math.IsInf(v, -1):
		return append(dst, "-Infinity"...)
	case v == 0:
		if math.Signbit(v) {
			dst = append(dst, '-')
		}
		return append(dst, '0')
	}
	a := math.Abs(v)
	// The thresholds are taken on the rounded digits in PostgreSQL; both are powers of ten, exact or rounded up to, so
	// that comparing the number itself says the same.
	if a >= 1e-4 && a < 1e15 {
		return strconv.AppendFloat(dst, v, 'f', -1, 64)
	}
	if a >= 1<<52 && a < 1e41 && math.Float64bits(v)&1 == 0 {
		return appendDoubleInside(dst, v)
	}
	return strconv.AppendFloat(dst, v, 'e', -1, 64)
}

// appendDoubleInside appends the shortest digits that lie strictly inside v's rounding interval: PostgreSQL's Ryu
// doesn't use digits exactly halfway to the next number, as strconv does for an even mantissa (1e23 prints as
// 9.999999999999999e+22). Digits that short can be exactly halfway only from 2^52 to 10^40.
func appendDoubleInside(dst []byte, v float64) []byte {
	start := len(dst)
	dst = strconv.AppendFloat(dst, v, 'e', -1, 64)
	// Where the shortest digits are on the bound, the next ones inside have 16 digits or 17: fewer are too far apart.
	for prec := 15; prec <= 16 && !isInside(dst[start:], v); prec++ {
		dst = strconv.AppendFloat(dst[:start], v, 'e', prec, 64)
	}
	return dst
}

// isInside tells whether the decimal text reads as v with a little added and with a little taken away.
func isInside(text []byte, v float64) bool {
	var buf [64]byte
	exp := len(text)
	for exp > 0 && text[exp-1] != 'e' {
		exp--
	}
	mantissa := text[:exp-1]
	// More: the same digits, then zeros and a one.
	more := append(buf[:0], mantissa...)
	if !hasByte(mantissa, '.') {
		more = append(more, '.')
	}
	dot := len(more)
	more = append(more, "00000000000000000000001e"...)
	more = append(more, text[exp:]...)
	if got, err := strconv.ParseFloat(string(more), 64); err != nil || got != v {
		return false
	}
	// Less: one less in the last digit, then nines.
	less := append(buf[:0], mantissa...)
	i := len(less) - 1
	for less[i] == '0' || less[i] == '.' {
		if less[i] == '0' {
			less[i] = '9'
		}
		i--
	}
	less[i]--
	if dot > len(less) {
		less = append(less, '.')
	}
	less = append(less, "99999999999999999999999e"...)
	less = append(less, text[exp:]...)
	got, err := strconv.ParseFloat(string(less), 64)
	return err == nil && got == v
}

func hasByte(b []byte, c byte) bool {
	for _, x := range b {
		if x == c {
			return true
		}
	}
	return false
}

const hexDigits = "0123456789abcdef"

// appendJSONString appends s as a JSON string with no more escapes than JSON demands. Bytes that aren't UTF-8, which
// a Text never holds, become U+FFFD, so that the result is valid JSON whatever s is.
func appendJSONString(dst, s []byte) []byte {
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= 0x20 && c != '"' && c != '\\' && c < utf8.RuneSelf {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRune(s[i:])
			if r != utf8.RuneError || n > 1 {
				i += n
				continue
			}
			dst = append(append(dst, s[start:i]...), "\ufffd"...)
			i++
			start = i
			continue
		}
		dst = append(dst, s[start:i]...)
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\b':
			dst = append(dst, '\\', 'b')
		case '\f':
			dst = append(dst, '\\', 'f')
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		default:
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
		i++
		start = i
	}
	return append(append(dst, s[start:]...), '"')
}
