package record

import (
	"bytes"
	"encoding/binary"
)

// The ordered encoding of jsonb is a kind and then
//
//	string   its characters, as a Text's
//	number   as a Numeric's
//	boolean  one byte
//	array    how many elements (4 bytes), then the elements
//	object   how many members (4 bytes), then name and value of each, in the order in which jsonb keeps them
//
// PostgreSQL compares objects by count, then member by member, the name before its value, and names as it compares
// strings.

// Kinds of jsonb in PostgreSQL's order. An empty array that is the whole document sorts below everything else: a
// mistake of PostgreSQL's that it keeps, so that indexes stay valid.
const (
	jsonbEmpty byte = iota
	jsonbNull
	jsonbString
	jsonbNumber
	jsonbBoolean
	jsonbArray
	jsonbObject
)

func jsonbKind(c byte) byte {
	switch c {
	case 'n':
		return jsonbNull
	case '"':
		return jsonbString
	case 't', 'f':
		return jsonbBoolean
	case '[':
		return jsonbArray
	case '{':
		return jsonbObject
	}
	return jsonbNumber
}

// appendOrderedJSONB appends the canonical text of a jsonb. Text that isn't one, which no column holds, is encoded as the string of its bytes.
func appendOrderedJSONB(dst, text []byte) []byte {
	if string(text) == "[]" {
		return append(dst, jsonbEmpty)
	}
	start := len(dst)
	out, end := orderedJSONBValue(dst, text, 0)
	if end != len(text) {
		return appendOrderedBytes(append(out[:start], jsonbString), text)
	}
	return out
}

// orderedJSONBValue encodes the value at text[i] and returns where it ends, -1 if it doesn't.
func orderedJSONBValue(dst, text []byte, i int) ([]byte, int) {
	if i >= len(text) {
		return dst, -1
	}
	c := text[i]
	dst = append(dst, jsonbKind(c))
	switch c {
	case 'n':
		return dst, i + 4
	case 't':
		return append(dst, 1), i + 4
	case 'f':
		return append(dst, 0), i + 5
	case '"':
		return orderedJSONBString(dst, text, i)
	case '[', '{':
		return orderedJSONBList(dst, text, i)
	}
	n := i
	for n < len(text) && (isDigit(text[n]) || text[n] == '-' || text[n] == '.') {
		n++
	}
	if n == i {
		return dst, -1
	}
	return appendOrderedNumeric(dst, text[i:n]), n
}

func orderedJSONBString(dst, text []byte, i int) ([]byte, int) {
	end, escaped := i+1, false
	for ; ; end++ {
		if end >= len(text) {
			return dst, -1
		}
		if text[end] == '"' {
			break
		}
		if text[end] == '\\' {
			escaped = true
			end++
		}
	}
	s := text[i+1 : end]
	if escaped {
		s = appendUnescaped(nil, s)
	}
	return appendOrderedBytes(dst, s), end + 1
}

func orderedJSONBList(dst, text []byte, i int) ([]byte, int) {
	object := text[i] == '{'
	at := len(dst)
	dst = append(dst, 0, 0, 0, 0)
	var count uint32
	for i++; ; {
		if i >= len(text) {
			return dst, -1
		}
		if text[i] == ']' || text[i] == '}' {
			break
		}
		if count > 0 {
			i += 2 // ", "
		}
		count++
		if object {
			if i >= len(text) || text[i] != '"' {
				return dst, -1
			}
			if dst, i = orderedJSONBString(dst, text, i); i < 0 {
				return dst, -1
			}
			i += 2 // ": "
		}
		if dst, i = orderedJSONBValue(dst, text, i); i < 0 {
			return dst, -1
		}
	}
	binary.BigEndian.PutUint32(dst[at:], count)
	return dst, i + 1
}

// decodeOrderedJSONB appends the canonical text of the value that src begins with.
func decodeOrderedJSONB(dst, src []byte, depth int) (out, rest []byte, ok bool) {
	if len(src) == 0 || depth > maxJSONDepth {
		return dst, nil, false
	}
	kind, src := src[0], src[1:]
	switch kind {
	case jsonbEmpty:
		return append(dst, "[]"...), src, depth == 0
	case jsonbNull:
		return append(dst, "null"...), src, true
	case jsonbString:
		return decodeOrderedJSONString(dst, src)
	case jsonbNumber:
		if len(src) > 0 && src[0] == orderedNaN {
			return dst, nil, false
		}
		return decodeOrderedNumeric(dst, src)
	case jsonbBoolean:
		if len(src) == 0 || src[0] > 1 {
			return dst, nil, false
		}
		if src[0] == 1 {
			return append(dst, "true"...), src[1:], true
		}
		return append(dst, "false"...), src[1:], true
	case jsonbArray, jsonbObject:
		return decodeOrderedJSONList(dst, src, kind == jsonbObject, depth)
	}
	return dst, nil, false
}

func decodeOrderedJSONString(dst, src []byte) (out, rest []byte, ok bool) {
	// Most strings have no zero byte inside and are written from src.
	if n := bytes.IndexByte(src, orderedEscape); n >= 0 && n+1 < len(src) && src[n+1] == orderedTerminator {
		return appendJSONString(dst, src[:n]), src[n+2:], true
	}
	s, rest, ok := decodeOrderedBytes(nil, src)
	if !ok {
		return dst, nil, false
	}
	return appendJSONString(dst, s), rest, true
}

func decodeOrderedJSONList(dst, src []byte, object bool, depth int) (out, rest []byte, ok bool) {
	if len(src) < 4 {
		return dst, nil, false
	}
	count := binary.BigEndian.Uint32(src)
	src = src[4:]
	open, end := byte('['), byte(']')
	if object {
		open, end = '{', '}'
	}
	dst = append(dst, open)
	for k := range count {
		if k > 0 {
			dst = append(dst, ", "...)
		}
		if object {
			if dst, src, ok = decodeOrderedJSONString(dst, src); !ok {
				return dst, nil, false
			}
			dst = append(dst, ": "...)
		}
		if dst, src, ok = decodeOrderedJSONB(dst, src, depth+1); !ok {
			return dst, nil, false
		}
	}
	return append(dst, end), src, true
}
