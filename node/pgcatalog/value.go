package pgcatalog

import (
	"encoding/binary"
	"math"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/millrace/millrace/internal/fault"
)

// Value is nil (NULL), bool, int64 (all integers and oids), float64, string (all kinds of text), []Value (an array) or
// pair (a row of _pg_expandarray).
type Value any

// pair is a row of _pg_expandarray.
type pair struct {
	x Value
	n int64
}

// Types that pgtype has no name for.
const (
	oidRegproc      = 24
	oidRegclass     = 2205
	oidRegtype      = 2206
	oidRegnamespace = 4089
	oidRegrole      = 4096
	oidInt2vector   = 22
	oidOidvector    = 30
	oidPgNodeTree   = 194
	oidRegtypeArray = 2211
	oidAnyArray     = 2277
)

// elementOf is the element type of an array type, 0 for others.
func elementOf(oid uint32) uint32 {
	switch oid {
	case pgtype.TextArrayOID:
		return pgtype.TextOID
	case pgtype.NameArrayOID:
		return pgtype.NameOID
	case pgtype.QCharArrayOID:
		return pgtype.QCharOID
	case pgtype.Int2ArrayOID, oidInt2vector:
		return pgtype.Int2OID
	case pgtype.Int4ArrayOID:
		return pgtype.Int4OID
	case pgtype.Int8ArrayOID:
		return pgtype.Int8OID
	case pgtype.OIDArrayOID, oidOidvector:
		return pgtype.OIDOID
	case pgtype.BoolArrayOID:
		return pgtype.BoolOID
	case pgtype.Float8ArrayOID:
		return pgtype.Float8OID
	case pgtype.VarcharArrayOID:
		return pgtype.VarcharOID
	case pgtype.ACLItemArrayOID:
		return pgtype.ACLItemOID
	case oidRegtypeArray:
		return oidRegtype
	}
	return 0
}

// arrayOf is the array type of an element type.
func arrayOf(oid uint32) uint32 {
	switch oid {
	case pgtype.NameOID:
		return pgtype.NameArrayOID
	case pgtype.QCharOID:
		return pgtype.QCharArrayOID
	case pgtype.Int2OID:
		return pgtype.Int2ArrayOID
	case pgtype.Int4OID:
		return pgtype.Int4ArrayOID
	case pgtype.Int8OID:
		return pgtype.Int8ArrayOID
	case pgtype.OIDOID:
		return pgtype.OIDArrayOID
	case pgtype.BoolOID:
		return pgtype.BoolArrayOID
	case pgtype.Float8OID:
		return pgtype.Float8ArrayOID
	case oidRegtype:
		return oidRegtypeArray
	}
	return pgtype.TextArrayOID
}

// isNumber, isText and so on are the classes within which values are of one Go type.
func isInteger(oid uint32) bool {
	switch oid {
	case pgtype.Int2OID, pgtype.Int4OID, pgtype.Int8OID, pgtype.OIDOID, pgtype.XIDOID, pgtype.CIDOID:
		return true
	}
	return isReg(oid)
}

func isReg(oid uint32) bool {
	switch oid {
	case oidRegproc, oidRegclass, oidRegtype, oidRegnamespace, oidRegrole:
		return true
	}
	return false
}

func isFloat(oid uint32) bool {
	return oid == pgtype.Float8OID || oid == pgtype.Float4OID || oid == pgtype.NumericOID
}

// AppendText appends v as PostgreSQL prints it.
func AppendText(dst []byte, v Value) []byte {
	switch v := v.(type) {
	case bool:
		if v {
			return append(dst, 't')
		}
		return append(dst, 'f')
	case int64:
		return strconv.AppendInt(dst, v, 10)
	case float64:
		return strconv.AppendFloat(dst, v, 'g', -1, 64)
	case string:
		return append(dst, v...)
	case tuple:
		return appendTuple(dst, v)
	case pair:
		return append(strconv.AppendInt(append(AppendText(append(dst, '('), v.x), ','), v.n, 10), ')')
	case vector:
		for i, e := range v {
			if i > 0 {
				dst = append(dst, ' ')
			}
			dst = AppendText(dst, e)
		}
		return dst
	case []Value:
		dst = append(dst, '{')
		for i, e := range v {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendElement(dst, e)
		}
		return append(dst, '}')
	}
	return dst
}

// vector is an int2vector or oidvector.
type vector []Value

func appendElement(dst []byte, e Value) []byte {
	if e == nil {
		return append(dst, "NULL"...)
	}
	text := string(AppendText(nil, e))
	if _, nested := e.([]Value); nested || text != "" && !strings.ContainsAny(text, "{},\"\\ \t\n\r\v\f") && !strings.EqualFold(text, "null") {
		return append(dst, text...)
	}
	dst = append(dst, '"')
	for i := range len(text) {
		if text[i] == '"' || text[i] == '\\' {
			dst = append(dst, '\\')
		}
		dst = append(dst, text[i])
	}
	return append(dst, '"')
}

// AppendBinary appends v, which isn't NULL, in PostgreSQL's binary format of a type.
func AppendBinary(dst []byte, oid uint32, v Value) ([]byte, error) {
	switch v := v.(type) {
	case bool:
		if v {
			return append(dst, 1), nil
		}
		return append(dst, 0), nil
	case int64:
		switch oid {
		case pgtype.Int8OID:
			return binary.BigEndian.AppendUint64(dst, uint64(v)), nil
		case pgtype.Int2OID:
			return binary.BigEndian.AppendUint16(dst, uint16(v)), nil
		}
		return binary.BigEndian.AppendUint32(dst, uint32(v)), nil
	case float64:
		switch oid {
		case pgtype.Float8OID:
			return binary.BigEndian.AppendUint64(dst, math.Float64bits(v)), nil
		case pgtype.Float4OID:
			return binary.BigEndian.AppendUint32(dst, math.Float32bits(float32(v))), nil
		}
		return dst, fault.SQL(fault.Unsupported, "0A000", "numeric of the catalog in the binary format is not supported; ask for text")
	case string:
		return append(dst, v...), nil
	case vector:
		return appendBinaryArray(dst, elementOf(oid), v, 0)
	case []Value:
		return appendBinaryArray(dst, elementOf(oid), v, 1)
	}
	return dst, fault.SQL(fault.Unsupported, "0A000", "values of type %d in the binary format are not supported; ask for text", oid)
}

func appendBinaryArray(dst []byte, element uint32, v []Value, lower uint32) ([]byte, error) {
	dims, nulls := uint32(1), uint32(0)
	if len(v) == 0 && lower == 1 {
		dims = 0
	}
	for _, e := range v {
		if e == nil {
			nulls = 1
		}
	}
	dst = binary.BigEndian.AppendUint32(dst, dims)
	dst = binary.BigEndian.AppendUint32(dst, nulls)
	dst = binary.BigEndian.AppendUint32(dst, element)
	if dims == 0 {
		return dst, nil
	}
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(v)))
	dst = binary.BigEndian.AppendUint32(dst, lower)
	for _, e := range v {
		if e == nil {
			dst = append(dst, 0xff, 0xff, 0xff, 0xff)
			continue
		}
		at := len(dst)
		dst = append(dst, 0, 0, 0, 0)
		var err error
		if dst, err = AppendBinary(dst, element, e); err != nil {
			return dst, err
		}
		binary.BigEndian.PutUint32(dst[at:], uint32(len(dst)-at-4))
	}
	return dst, nil
}

// parseArray reads an array's text, of one dimension.
func parseArray(text string) ([]Value, error) {
	bad := fault.SQL(fault.Invalid, "22P02", "malformed array literal: %q", text)
	s := strings.TrimSpace(text)
	if len(s) < 2 || s[0] != '{' || s[len(s)-1] != '}' {
		return nil, bad
	}
	s = s[1 : len(s)-1]
	out := []Value{}
	for i := 0; i < len(s); {
		var b strings.Builder
		quoted := false
		for i < len(s) && s[i] != ',' {
			switch {
			case s[i] == '{' || s[i] == '}':
				return nil, bad
			case s[i] == '\\' && i+1 < len(s):
				i++
				b.WriteByte(s[i])
			case s[i] == '"':
				quoted = true
				for i++; i < len(s) && s[i] != '"'; i++ {
					if s[i] == '\\' && i+1 < len(s) {
						i++
					}
					b.WriteByte(s[i])
				}
				if i == len(s) {
					return nil, bad
				}
			default:
				b.WriteByte(s[i])
			}
			i++
		}
		i++
		if t := strings.TrimSpace(b.String()); quoted {
			out = append(out, b.String())
		} else if strings.EqualFold(t, "null") {
			out = append(out, nil)
		} else {
			out = append(out, t)
		}
	}
	return out, nil
}

// compare orders two values of one class; ok is false when they are of different ones.
func compare(a, b Value) (c int, ok bool) {
	switch a := a.(type) {
	case bool:
		b, ok := b.(bool)
		switch {
		case a == b:
			return 0, ok
		case !a:
			return -1, ok
		}
		return 1, ok
	case int64:
		switch b := b.(type) {
		case int64:
			return order(a, b), true
		case float64:
			return order(float64(a), b), true
		}
	case float64:
		switch b := b.(type) {
		case int64:
			return order(a, float64(b)), true
		case float64:
			return order(a, b), true
		}
	case string:
		b, ok := b.(string)
		return strings.Compare(a, b), ok
	case vector:
		return compare([]Value(a), b)
	case []Value:
		other, ok := b.([]Value)
		if v, isVector := b.(vector); isVector {
			other, ok = []Value(v), true
		}
		if !ok {
			return 0, false
		}
		for i := range min(len(a), len(other)) {
			if c, ok := compareNulls(a[i], other[i]); c != 0 || !ok {
				return c, ok
			}
		}
		return order(len(a), len(other)), true
	}
	return 0, false
}

// compareNulls is compare with NULLs last.
func compareNulls(a, b Value) (int, bool) {
	switch {
	case a == nil && b == nil:
		return 0, true
	case a == nil:
		return 1, true
	case b == nil:
		return -1, true
	}
	return compare(a, b)
}

func order[T int | int64 | float64](a, b T) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}
