package record

import (
	"bytes"

	"github.com/millrace/millrace/internal/fault"
)

// csvFormat reads records that are one CSV record (RFC 4180), with the declared columns in order. An empty field
// without quotes is NULL, one in quotes an empty text; encoding/csv doesn't tell the two apart.
type csvFormat struct {
	cols    []declared
	text    textReader
	scratch []byte
}

func (f *csvFormat) read(value []byte, out []Value) error {
	f.scratch, f.text.buf = f.scratch[:0], f.text.buf[:0]
	rest, more := trimLineEnd(value), true
	for k := range f.cols {
		if !more {
			return f.wrongCount(value)
		}
		field, quoted, tail, last, err := f.field(rest)
		if err != nil {
			return inColumn(f.cols[k].name, err)
		}
		rest, more = tail, !last
		c, v := &f.cols[k], &out[k]
		v.Null = len(field) == 0 && !quoted
		if v.Null || c.need == needNothing {
			continue
		}
		if n, ok := csvMicros(c.typ, field); ok {
			v.Int = n
			continue
		}
		if err := f.text.read(c.typ, field, v); err != nil {
			return inColumn(c.name, err)
		}
	}
	if more {
		return f.wrongCount(value)
	}
	return nil
}

// csvMicros returns the time that a field is as a number: microseconds since the Unix epoch. Eight digits are a date,
// yyyymmdd, as in PostgreSQL.
func csvMicros(t Type, field []byte) (int64, bool) {
	if t != TimestampTZ || len(field) == 0 || len(field) == 8 || !isInteger(field) || (!isDigit(field[0]) && (field[0] != '-' || len(field) == 1)) {
		return 0, false
	}
	n, ok := integerOf(field)
	return n, ok && n >= MinTimestamp
}

// trimLineEnd takes off the one line end that a record may have.
func trimLineEnd(s []byte) []byte {
	if n := len(s); n > 0 && s[n-1] == '\n' {
		s = s[:n-1]
	}
	if n := len(s); n > 0 && s[n-1] == '\r' {
		s = s[:n-1]
	}
	return s
}

// field reads the first field of rest. last: no other follows, else tail begins with the next.
func (f *csvFormat) field(rest []byte) (field []byte, quoted bool, tail []byte, last bool, err error) {
	if len(rest) == 0 || rest[0] != '"' {
		n := bytes.IndexByte(rest, ',')
		if last = n < 0; last {
			n = len(rest)
		} else {
			tail = rest[n+1:]
		}
		for _, c := range rest[:n] {
			if c == '"' || c == '\n' || c == '\r' {
				return nil, false, nil, false, fault.SQL(fault.Invalid, "22P04", "malformed CSV: a field with a quote or line end in it must be in quotes")
			}
		}
		return rest[:n], false, tail, last, nil
	}
	start := len(f.scratch)
	for rest = rest[1:]; ; {
		n := bytes.IndexByte(rest, '"')
		if n < 0 {
			return nil, true, nil, false, fault.SQL(fault.Invalid, "22P04", "malformed CSV: a quoted field has no end")
		}
		part, after := rest[:n], rest[n+1:]
		if len(after) > 0 && after[0] == '"' { // a doubled quote is one
			f.scratch = append(f.scratch, rest[:n+1]...)
			rest = after[1:]
			continue
		}
		if len(f.scratch) > start {
			f.scratch = append(f.scratch, part...)
			part = f.scratch[start:len(f.scratch):len(f.scratch)]
		}
		switch {
		case len(after) == 0:
			return part, true, nil, true, nil
		case after[0] == ',':
			return part, true, after[1:], false, nil
		}
		return nil, true, nil, false, fault.SQL(fault.Invalid, "22P04", "malformed CSV: something follows a closing quote")
	}
}

// wrongCount is the error for a record with too few or too many fields.
func (f *csvFormat) wrongCount(value []byte) error {
	have, rest := 0, trimLineEnd(value)
	for last := false; !last; have++ {
		var err error
		f.scratch = f.scratch[:0]
		if _, _, rest, last, err = f.field(rest); err != nil {
			return err
		}
	}
	return fault.SQL(fault.Invalid, "22P04", "the record has %d fields, but the stream has %d columns", have, len(f.cols))
}
