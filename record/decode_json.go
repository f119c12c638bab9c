package record

import (
	"bytes"
	"math"
	"strconv"
	"unsafe"

	"github.com/millrace/millrace/internal/fault"
)

// jsonFormat reads records that are JSON objects. A first pass validates the whole document and notes where the
// declared columns' values stand, so that the last of doubled fields wins; a second one converts those.
type jsonFormat struct {
	cols    []declared
	tokens  [][]byte // one for each column: its value in the document, nil where the field is missing
	names   fieldNames
	json    jsonReader
	text    textReader
	scratch []byte
}

func newJSONFormat(cols []declared) *jsonFormat {
	f := &jsonFormat{cols: cols, tokens: make([][]byte, len(cols)), names: fieldNames{index: make(map[string]int32, len(cols))}}
	for i, c := range cols {
		if c.need != needNothing {
			f.names.index[c.name] = int32(i)
		}
	}
	return f
}

func (f *jsonFormat) read(value []byte, out []Value) error {
	if err := f.fields(value); err != nil {
		return err
	}
	f.scratch, f.text.buf = f.scratch[:0], f.text.buf[:0]
	for k, token := range f.tokens {
		v := &out[k]
		if v.Null = token == nil || token[0] == 'n'; v.Null {
			continue
		}
		if err := f.convert(token, &f.cols[k], v); err != nil {
			return inColumn(f.cols[k].name, err)
		}
	}
	return nil
}

// fields validates the document and sets the tokens.
func (f *jsonFormat) fields(b []byte) error {
	clear(f.tokens)
	f.json.reset(b)
	dec := f.json.dec
	if dec.PeekKind() != '{' {
		if _, err := f.json.document(b); err != nil {
			return err
		}
		return errNotObject
	}
	if _, err := dec.ReadToken(); err != nil {
		return malformedJSON(err)
	}
	for ordinal := 0; dec.PeekKind() != '}'; ordinal++ {
		name, err := dec.ReadValue() // fails on what is neither a name nor the end
		if err != nil {
			return malformedJSON(err)
		}
		col := f.names.find(name, ordinal)
		if col < 0 {
			if err := dec.SkipValue(); err != nil {
				return malformedJSON(err)
			}
			continue
		}
		if f.tokens[col], err = dec.ReadValue(); err != nil {
			return malformedJSON(err)
		}
	}
	if _, err := dec.ReadToken(); err != nil {
		return malformedJSON(err)
	}
	return f.json.end()
}

// fieldNames finds columns by field names. Records of one producer mostly have the same fields in the same order, so
// it remembers for each place the name that stood there last, columns and others alike, and compares bytes.
type fieldNames struct {
	index   map[string]int32
	last    []lastName
	scratch []byte
}

type lastName struct {
	raw []byte // with the quotes
	col int32  // or -1
}

// Bounds of what fieldNames remembers; what is beyond is looked up in the index each time.
const (
	maxLastNames    = 256
	maxLastNameSize = 128 // bytes
)

// find returns the column of the field whose name, with its quotes, is raw and stands at place ordinal; -1 for an
// unknown one.
func (f *fieldNames) find(raw []byte, ordinal int) int32 {
	if ordinal < len(f.last) {
		if l := &f.last[ordinal]; string(l.raw) == string(raw) {
			return l.col
		}
	}
	name := raw[1 : len(raw)-1]
	if bytes.IndexByte(name, '\\') >= 0 {
		f.scratch = appendUnescaped(f.scratch[:0], name)
		name = f.scratch
	}
	col, ok := f.index[string(name)]
	if !ok {
		col = -1
	}
	if ordinal < maxLastNames && len(raw) <= maxLastNameSize {
		for ordinal >= len(f.last) {
			f.last = append(f.last, lastName{col: -1})
		}
		l := &f.last[ordinal]
		l.raw, l.col = append(l.raw[:0], raw...), col
	}
	return col
}

func wrongKind(t Type, token []byte) error {
	kind := "a number"
	token = token[:min(len(token), 256)]
	switch token[0] {
	case '"':
		kind, token = "a string", bytes.Trim(token, `"`)
	case 't', 'f':
		kind = "a boolean"
	case '[':
		kind = "an array"
	case '{':
		kind = "an object"
	}
	return fault.SQL(fault.Invalid, "22P02", "a value of type %s can't be %s: %s", t, kind, quote(string(token)))
}

// convert sets v to the value of token, which is not null, for column c.
func (f *jsonFormat) convert(token []byte, c *declared, v *Value) error {
	switch first := token[0]; {
	case c.typ == JSONB:
		return f.convertJSONB(token, c, v)
	case first == '"':
		return f.convertString(token, c, v)
	case first == 't' || first == 'f':
		if c.typ != Boolean {
			return wrongKind(c.typ, token)
		}
		v.Int = 0
		if first == 't' {
			v.Int = 1
		}
		return nil
	case first == '[' && c.typ.IsArray():
		return f.convertArray(token, c, v)
	case first == '[' || first == '{':
		return wrongKind(c.typ, token)
	}
	switch c.typ {
	case BigInt, TimestampTZ, Timestamp:
		n, ok := integerOf(token)
		if !ok {
			return notInteger(c.typ, token)
		}
		if c.typ != BigInt && n < MinTimestamp {
			return timestampRange(string(token))
		}
		v.Int = n
		return nil
	case Double:
		if c.need == needCheck && isInteger(token) && len(token) < 300 { // an integer that is surely in range
			return nil
		}
		n, err := strconv.ParseFloat(unsafeString(token), 64)
		if err != nil || (n == 0 && !isZero(unsafeString(token))) {
			return fault.SQL(fault.Invalid, "22003", "%s is out of range for type double precision", quote(string(token)))
		}
		v.Float = n
		return nil
	case Numeric:
		if c.need == needCheck && isInteger(token) && len(token) <= MaxNumericDigits {
			return nil
		}
		return f.text.numeric(token, v)
	}
	return wrongKind(c.typ, token)
}

// convertString converts a string in the syntax that PostgreSQL has for the type.
func (f *jsonFormat) convertString(token []byte, c *declared, v *Value) error {
	if c.typ == BigInt || c.typ == Boolean {
		return wrongKind(c.typ, token)
	}
	s := token[1 : len(token)-1]
	if bytes.IndexByte(s, '\\') >= 0 {
		start := len(f.scratch)
		f.scratch = appendUnescaped(f.scratch, s)
		s = f.scratch[start:len(f.scratch):len(f.scratch)]
		if c.typ == Text && bytes.IndexByte(s, 0) >= 0 {
			return errJSONNUL
		}
	}
	switch c.typ {
	case Text:
		v.Bytes = s
		return nil
	case Double:
		switch string(s) {
		case "NaN":
			v.Float = math.NaN()
		case "Infinity":
			v.Float = math.Inf(1)
		case "-Infinity":
			v.Float = math.Inf(-1)
		default:
			return wrongKind(c.typ, token)
		}
		return nil
	}
	return f.text.read(c.typ, s, v)
}

// convertArray converts a JSON array whose elements are of the array's type, or null.
func (f *jsonFormat) convertArray(token []byte, c *declared, v *Value) error {
	elem := declared{name: c.name, typ: c.typ.Elem(), need: needValue}
	elems := NewColumn(elem.typ, 0)
	f.json.reset(token) // the document's own fields were all taken
	dec := f.json.dec
	if _, err := dec.ReadToken(); err != nil {
		return malformedJSON(err)
	}
	value := Value{Type: elem.typ}
	for dec.PeekKind() != ']' {
		item, err := dec.ReadValue()
		if err != nil {
			return malformedJSON(err)
		}
		switch {
		case elems.N >= MaxArray:
			return fault.SQL(fault.TooLarge, "54000", "array size exceeds the maximum allowed (%d)", MaxArray)
		case item[0] == 'n':
			elems.AppendNull()
			continue
		}
		if err := f.convert(item, &elem, &value); err != nil {
			return err
		}
		elems.AppendValue(value)
	}
	start := len(f.scratch)
	f.scratch = AppendArray(f.scratch, &elems)
	v.Bytes = f.scratch[start:len(f.scratch):len(f.scratch)]
	return nil
}

func (f *jsonFormat) convertJSONB(token []byte, c *declared, v *Value) error {
	if c.need == needCheck && isPlainJSON(token) {
		return nil
	}
	return f.text.jsonb(token, v)
}

// isPlainJSON tells whether a well-formed document is surely a jsonb: it is too short for a number that is too long, has no
// exponent that makes one, and no escape that could be a NUL.
func isPlainJSON(b []byte) bool {
	if len(b) > MaxNumericDigits {
		return false
	}
	for i, c := range b {
		if c == '\\' || (c|0x20 == 'e' && i > 0 && isDigit(b[i-1])) {
			return false
		}
	}
	return true
}

// isInteger tells whether a JSON number has neither fraction nor exponent.
func isInteger(token []byte) bool {
	for _, c := range token[1:] {
		if !isDigit(c) {
			return false
		}
	}
	return true
}

func notInteger(t Type, token []byte) error {
	s := string(token)
	if n := digitsLen(s[1:]); n+1 == len(s) { // all digits
		return rangeError(t, s)
	}
	return fault.SQL(fault.Invalid, "22P02", "a value of type %s must be an integer in its range: %s", t, quote(s))
}

// integerOf returns the integer that a JSON number is: with a fraction or an exponent too, as long as its value is integral.
func integerOf(token []byte) (int64, bool) {
	neg, i := token[0] == '-', 0
	if neg {
		i = 1
	}
	if len(token)-i <= 18 {
		var n int64
		for ; i < len(token) && isDigit(token[i]); i++ {
			n = n*10 + int64(token[i]-'0')
		}
		if i == len(token) {
			if neg {
				n = -n
			}
			return n, true
		}
	} else if isInteger(token) {
		n, err := strconv.ParseInt(unsafeString(token), 10, 64)
		return n, err == nil
	}
	if i = 0; neg {
		i = 1
	}
	return integralOf(token[i:], neg)
}

// integralOf returns the integer that a decimal number without sign is, if it is one.
func integralOf(s []byte, neg bool) (int64, bool) {
	var digits [19]byte // significant ones, without zeros at the end
	n, point, zeros := 0, 0, 0
	seen, exp := false, 0
	for i, c := range s {
		if c == '.' {
			seen = true
			continue
		}
		if !isDigit(c) {
			exp, _ = parseExponent(s[i+1:])
			break
		}
		if !seen {
			point++
		}
		switch {
		case c == '0' && n == 0:
			point-- // a zero in front counts for nothing, and one after the point moves it
		case c == '0':
			zeros++
		case n+zeros >= len(digits):
			return 0, false // more digits than an int64 has, before or after the point
		default:
			for ; zeros > 0; zeros-- {
				digits[n] = '0'
				n++
			}
			digits[n] = c
			n++
		}
	}
	if n == 0 {
		return 0, true
	}
	// The number is 0.digits x 10^(point+exp).
	if point += exp; point < n || point > len(digits) {
		return 0, false
	}
	var buf [20]byte
	out := buf[:0]
	if neg {
		out = append(out, '-')
	}
	out = append(out, digits[:n]...)
	for range point - n {
		out = append(out, '0')
	}
	v, err := strconv.ParseInt(unsafeString(out), 10, 64)
	return v, err == nil
}

// unsafeString is b as a string for as long as a call takes that doesn't keep it.
func unsafeString(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
