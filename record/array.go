package record

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"math"

	"github.com/millrace/millrace/internal/fault"
)

// An array's bytes are the number of its elements as a varint, a bit for each element, least significant first, set
// for NULL, and then the elements that aren't NULL as AppendRow encodes them.

// MaxArray bounds an array's elements.
const MaxArray = 1 << 20

// AppendArray appends the bytes of an array with the values of elems, a column of its elements.
func AppendArray(dst []byte, elems *Column) []byte {
	return appendArrayRange(dst, elems, 0, elems.N)
}

func appendArrayRange(dst []byte, elems *Column, from, to int) []byte {
	dst = binary.AppendUvarint(dst, uint64(to-from))
	nulls := len(dst)
	for range (to - from + 7) >> 3 {
		dst = append(dst, 0)
	}
	for i := from; i < to; i++ {
		if elems.Null(i) {
			k := i - from
			dst[nulls+k>>3] |= 1 << (k & 7)
			continue
		}
		dst = appendStored(dst, elems, i)
	}
	return dst
}

// DecodeArray appends the elements of an array to elems, a column of their type. Bytes that are no array of it are
// fault.Corrupted, and then nothing was appended.
func DecodeArray(src []byte, elems *Column) error {
	n, rest, err := arrayHead(src)
	if err != nil {
		return err
	}
	before := elems.N
	nulls := rest
	rest = rest[(n+7)>>3:]
	for k := range n {
		if nulls[k>>3]&(1<<(k&7)) != 0 {
			elems.AppendNull()
			continue
		}
		size := elems.appendStored(rest)
		if size < 0 {
			elems.truncate(before)
			return badArray(elems.Type)
		}
		rest = rest[size:]
	}
	if len(rest) > 0 {
		elems.truncate(before)
		return badArray(elems.Type)
	}
	return nil
}

// ArrayLen returns the number of an array's elements.
func ArrayLen(src []byte) (int, error) {
	n, _, err := arrayHead(src)
	return n, err
}

func arrayHead(src []byte) (n int, rest []byte, err error) {
	v, size := binary.Uvarint(src)
	if size <= 0 || v > MaxArray || int(v+7)>>3 > len(src)-size {
		return 0, nil, fault.New(fault.Corrupted, "stored array doesn't decode")
	}
	return int(v), src[size:], nil
}

func badArray(t Type) error {
	return fault.New(fault.Corrupted, "stored array doesn't decode as %s", ArrayOf(t))
}

// elements returns an array's elements. What doesn't decode, which no array made here does, has none.
func elements(t Type, src []byte) Column {
	c := NewColumn(t.Elem(), 0)
	if DecodeArray(src, &c) != nil {
		c.Reset()
	}
	return c
}

// compareArrays compares as PostgreSQL does: element by element, NULL last and equal to NULL, then by length.
func compareArrays(t Type, a, b []byte) int {
	x, y := elements(t, a), elements(t, b)
	for i := range min(x.N, y.N) {
		switch {
		case x.Null(i) && y.Null(i):
			continue
		case x.Null(i):
			return 1
		case y.Null(i):
			return -1
		}
		if c := Compare(x.Value(i), y.Value(i)); c != 0 {
			return c
		}
	}
	return cmp.Compare(x.N, y.N)
}

// hasForms tells whether equal values of a scalar type may look different.
func hasForms(t Type) bool {
	return t == Double || t == Numeric || t == IntervalT || t == JSONB
}

// HasForms tells whether equal values of t may look different: 1.0 and 1.00, 0 and -0, 1 day and 24 hours.
func (t Type) HasForms() bool { return hasForms(t.Elem()) }

// orderedArrayEnd sorts below what an element begins with.
const orderedArrayEnd byte = 0x00

func appendOrderedArray(dst []byte, t Type, src []byte) []byte {
	c := elements(t, src)
	for i := range c.N {
		dst = AppendOrdered(dst, &c, i)
	}
	return append(dst, orderedArrayEnd)
}

// decodeOrderedArray appends the bytes of the array that src begins with.
func decodeOrderedArray(dst []byte, t Type, src []byte) (out, rest []byte, ok bool) {
	c := NewColumn(t.Elem(), 0)
	for len(src) > 0 && src[0] != orderedArrayEnd {
		var err error
		if src, err = DecodeOrdered(src, &c); err != nil || c.N > MaxArray {
			return dst, nil, false
		}
	}
	if len(src) == 0 {
		return dst, nil, false
	}
	return AppendArray(dst, &c), src[1:], true
}

// AppendNormalArray appends the array that stands for all arrays equal to src.
func AppendNormalArray(dst []byte, t Type, src []byte) []byte {
	if !t.HasForms() {
		return append(dst, src...)
	}
	out, _, ok := decodeOrderedArray(dst, t, appendOrderedArray(nil, t, src))
	if !ok {
		return append(dst, src...)
	}
	return out
}

// appendArrayText appends an array as PostgreSQL prints it: {1,NULL,"a b"}.
func appendArrayText(dst []byte, t Type, src []byte) []byte {
	c := elements(t, src)
	dst = append(dst, '{')
	var text []byte
	for i := range c.N {
		if i > 0 {
			dst = append(dst, ',')
		}
		if c.Null(i) {
			dst = append(dst, "NULL"...)
			continue
		}
		text = AppendText(text[:0], &c, i)
		dst = appendArrayElement(dst, text)
	}
	return append(dst, '}')
}

func appendArrayElement(dst, text []byte) []byte {
	plain := len(text) > 0 && !bytes.EqualFold(text, []byte("null"))
	for _, b := range text {
		if b == '{' || b == '}' || b == ',' || b == '"' || b == '\\' || isSpace(b) {
			plain = false
		}
	}
	if plain {
		return append(dst, text...)
	}
	dst = append(dst, '"')
	for _, b := range text {
		if b == '"' || b == '\\' {
			dst = append(dst, '\\')
		}
		dst = append(dst, b)
	}
	return append(dst, '"')
}

// appendArrayJSON appends an array as a JSON array.
func appendArrayJSON(dst []byte, t Type, src []byte) []byte {
	c := elements(t, src)
	dst = append(dst, '[')
	for i := range c.N {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = AppendJSON(dst, &c, i)
	}
	return append(dst, ']')
}

func malformedArray(s string) error {
	return fault.SQL(fault.Invalid, "22P02", "malformed array literal: %s", quote(s))
}

// parseArray appends the bytes of the array of type t that s is in PostgreSQL's syntax.
func parseArray(dst []byte, t Type, s string) ([]byte, error) {
	p := arrayParser{text: s, rest: trimSpace(s), elems: NewColumn(t.Elem(), 0)}
	if err := p.parse(); err != nil {
		return dst, err
	}
	return AppendArray(dst, &p.elems), nil
}

type arrayParser struct {
	text, rest string
	elems      Column
}

func (p *arrayParser) parse() error {
	if len(p.rest) < 2 || p.rest[0] != '{' {
		return malformedArray(p.text)
	}
	p.rest = trimSpace(p.rest[1:])
	if p.rest == "}" {
		return nil
	}
	for {
		if err := p.element(); err != nil {
			return err
		}
		p.rest = trimSpace(p.rest)
		switch {
		case p.rest == "}":
			return nil
		case len(p.rest) > 1 && p.rest[0] == ',':
			p.rest = trimSpace(p.rest[1:])
		default:
			return malformedArray(p.text)
		}
		if p.elems.N >= MaxArray {
			return fault.SQL(fault.TooLarge, "54000", "array size exceeds the maximum allowed (%d)", MaxArray)
		}
	}
}

// element takes one element, quoted or not.
func (p *arrayParser) element() error {
	var text []byte
	i, quoted := 0, false
	if p.rest != "" && p.rest[0] == '"' {
		quoted = true
		for i = 1; ; i++ {
			if i >= len(p.rest) {
				return malformedArray(p.text)
			}
			if p.rest[i] == '"' {
				i++
				break
			}
			if p.rest[i] == '\\' {
				if i++; i >= len(p.rest) {
					return malformedArray(p.text)
				}
			}
			text = append(text, p.rest[i])
		}
	} else {
		for ; i < len(p.rest) && p.rest[i] != ',' && p.rest[i] != '}'; i++ {
			switch p.rest[i] {
			case '{':
				return fault.SQL(fault.Unsupported, "0A000", "arrays of more than one dimension are not supported: %s", quote(p.text))
			case '"':
				return malformedArray(p.text)
			case '\\':
				if i++; i >= len(p.rest) {
					return malformedArray(p.text)
				}
			}
			text = append(text, p.rest[i])
		}
		text = bytes.TrimRight(text, " \t\n\v\f\r")
		if len(text) == 0 {
			return malformedArray(p.text)
		}
	}
	p.rest = p.rest[i:]
	if !quoted && bytes.EqualFold(text, []byte("null")) {
		p.elems.AppendNull()
		return nil
	}
	v, err := ParseText(p.elems.Type, string(text))
	if err != nil {
		return err
	}
	if len(p.elems.Bytes)+len(v.Bytes) > math.MaxInt32 {
		return fault.SQL(fault.TooLarge, "54000", "array is too large")
	}
	p.elems.AppendValue(v)
	return nil
}
