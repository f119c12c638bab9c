package record

import (
	"github.com/millrace/millrace/internal/fault"
)

// textReader converts text in PostgreSQL's input syntax to values, as ParseText does, but into memory that it reuses:
// what it sets in a value may belong to the text or to buf. Whoever uses it empties buf between records.
type textReader struct {
	buf  []byte
	json jsonbWriter
	docs jsonReader
}

// read sets v to the value of type t that s stands for.
func (r *textReader) read(t Type, s []byte, v *Value) (err error) {
	switch t {
	case Boolean:
		v.Int = 0
		var b bool
		if b, err = parseBool(unsafeString(s)); b {
			v.Int = 1
		}
		return err
	case BigInt:
		if n := len(s); n > 0 && n <= 18 {
			if digits := digitsLen(unsafeString(s[1:])); digits == n-1 && (isDigit(s[0]) || (s[0] == '-' && n > 1)) {
				v.Int, _ = integerOf(s)
				return nil
			}
		}
		v.Int, err = parseBigInt(unsafeString(s))
		return err
	case Double:
		v.Float, err = parseDouble(unsafeString(s))
		return err
	case Numeric:
		return r.numeric(s, v)
	case Text:
		v.Bytes = s
		return checkText(s)
	case Bytea:
		start := len(r.buf)
		r.buf, err = appendByteaText(r.buf, unsafeString(s))
		v.Bytes = r.since(start)
		return err
	case TimestampTZ:
		v.Int, err = parseTimestamp(s)
		return err
	case IntervalT:
		v.Interval, err = parseInterval(unsafeString(s))
		return err
	case JSONB:
		doc, err := r.docs.document(s)
		if err != nil {
			return err
		}
		return r.jsonb(doc, v)
	case Timestamp:
		v.Int, err = parseLocal(s, Timestamp)
		return err
	case Date:
		v.Int, err = parseDate(s)
		return err
	case Time:
		v.Int, err = parseTime(s)
		return err
	case UUID:
		start := len(r.buf)
		r.buf, err = appendUUIDText(r.buf, unsafeString(s))
		v.Bytes = r.since(start)
		return err
	}
	if t.IsArray() {
		start := len(r.buf)
		r.buf, err = parseArray(r.buf, t, string(s))
		v.Bytes = r.since(start)
		return err
	}
	return fault.New(fault.Internal, "no text can be of type %s", t)
}

// since returns what was written to buf from start on, so that writing more can't change it.
func (r *textReader) since(start int) []byte { return r.buf[start:len(r.buf):len(r.buf)] }

func (r *textReader) numeric(s []byte, v *Value) error {
	start := len(r.buf)
	var e errNumeric
	if r.buf, e = appendDecimal(r.buf, s); e == numericSyntax {
		r.buf, e = appendNumericText(r.buf[:start], string(s))
	}
	if e != numericOK {
		return e.err(string(s))
	}
	v.Bytes = r.since(start)
	return nil
}

// jsonb sets v to the canonical form of s, a well-formed document.
func (r *textReader) jsonb(s []byte, v *Value) error {
	start := len(r.buf)
	out, err := r.json.append(r.buf, s)
	if err != nil {
		return err
	}
	r.buf = out
	v.Bytes = r.since(start)
	return nil
}
