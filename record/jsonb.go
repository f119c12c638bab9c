package record

import (
	"bytes"
	"cmp"
	"math"
	"slices"

	"github.com/millrace/millrace/internal/fault"
)

var errJSONNUL = fault.SQL(fault.Unsupported, "22P05", `unsupported Unicode escape sequence: \u0000 cannot be converted to text`)

// parseJSONB returns the canonical text of the JSON document s.
func parseJSONB(s []byte) ([]byte, error) {
	var r jsonReader
	doc, err := r.document(s)
	if err != nil {
		return nil, fault.SQL(fault.Invalid, "22P02", "invalid input syntax for type json: %s", err.Error())
	}
	var c jsonbWriter
	return c.append(make([]byte, 0, len(doc)+16), doc)
}

// jsonbWriter writes JSON as PostgreSQL prints jsonb: members of an object sorted by the length of their names, then by
// bytes, of members with one name only the last, one space after each comma and colon, numbers as numeric prints them.
// A first pass notes where all values stand, so that however deep objects nest, each byte is written once. The memory
// of both passes is kept.
type jsonbWriter struct {
	b       []byte     // the document, well-formed
	nodes   []jsonNode // in the order of the document
	members []jsonbMember
	scratch []byte
	nul     bool // there was a NUL in a string
}

// maxKeptNodes bounds the memory that a jsonbWriter keeps for the next document, about 1 MB.
const maxKeptNodes = 1 << 16

// jsonNode is a value or a member's name. The nodes up to next are what it holds: the elements of an array, names and
// values by turns of an object.
type jsonNode struct {
	start, end int32 // in the document; end of strings and numbers only
	next       int32 // index of the node after it and all that it holds
}

// jsonbMember is one member of an object.
type jsonbMember struct {
	key   []byte // name without escapes
	name  int32  // nodes
	value int32
}

// append appends the canonical form of value, a well-formed document. Numbers out of numeric's range (22003) and NULs
// in strings (22P05) are errors; dst is then as before.
func (w *jsonbWriter) append(dst, value []byte) ([]byte, error) {
	if len(value) > math.MaxInt32 {
		return dst, fault.New(fault.TooLarge, "a JSON document of %d bytes is too large", len(value))
	}
	w.b, w.nodes, w.members, w.nul = value, w.nodes[:0], w.members[:0], false
	w.scan(0)
	out, e := w.value(dst, 0)
	w.b = nil
	if cap(w.nodes) > maxKeptNodes {
		w.nodes, w.members = nil, nil
	}
	switch {
	case e != numericOK:
		return dst, numericOverflow("a number in the JSON document")
	case w.nul:
		return dst, errJSONNUL
	}
	return out, nil
}

// scan adds the nodes of the value at i and returns the index after it.
func (w *jsonbWriter) scan(i int) int {
	k := len(w.nodes)
	w.nodes = append(w.nodes, jsonNode{start: int32(i)})
	switch c := w.b[i]; c {
	case '"':
		for i++; w.b[i] != '"'; i++ {
			if w.b[i] == '\\' {
				i++
			}
		}
		i++
	case '{', '[':
		for i = skipSpace(w.b, i+1); w.b[i] != c+2; { // the closing one is two after the opening one, in ASCII
			i = skipSpace(w.b, w.scan(i))
			if w.b[i] == ',' || w.b[i] == ':' {
				i = skipSpace(w.b, i+1)
			}
		}
		i++
	default:
		for i < len(w.b) && (isDigit(w.b[i]) || w.b[i]|0x20 >= 'a' && w.b[i]|0x20 <= 'z' || w.b[i] == '-' || w.b[i] == '+' || w.b[i] == '.') {
			i++
		}
	}
	w.nodes[k].end, w.nodes[k].next = int32(i), int32(len(w.nodes))
	return i
}

// value writes node k.
func (w *jsonbWriter) value(dst []byte, k int32) ([]byte, errNumeric) {
	n := w.nodes[k]
	switch w.b[n.start] {
	case '"':
		return w.str(dst, n), numericOK
	case '{':
		return w.object(dst, k)
	case '[':
		return w.array(dst, k)
	case 't', 'f', 'n':
		return append(dst, w.b[n.start:n.end]...), numericOK
	}
	return appendDecimal(dst, w.b[n.start:n.end])
}

func (w *jsonbWriter) str(dst []byte, n jsonNode) []byte {
	s := w.b[n.start:n.end]
	if bytes.IndexByte(s, '\\') < 0 {
		return append(dst, s...)
	}
	w.scratch = appendUnescaped(w.scratch[:0], s[1:len(s)-1])
	w.nul = w.nul || bytes.IndexByte(w.scratch, 0) >= 0
	return appendJSONString(dst, w.scratch)
}

func (w *jsonbWriter) array(dst []byte, k int32) ([]byte, errNumeric) {
	dst = append(dst, '[')
	for c := k + 1; c < w.nodes[k].next; c = w.nodes[c].next {
		if c > k+1 {
			dst = append(dst, ", "...)
		}
		var e errNumeric
		if dst, e = w.value(dst, c); e != numericOK {
			return dst, e
		}
	}
	return append(dst, ']'), numericOK
}

func (w *jsonbWriter) object(dst []byte, k int32) ([]byte, errNumeric) {
	base, sorted := len(w.members), true
	for c := k + 1; c < w.nodes[k].next; c = w.nodes[c+1].next {
		n := w.nodes[c]
		m := jsonbMember{key: w.b[n.start+1 : n.end-1], name: c, value: c + 1}
		if bytes.IndexByte(m.key, '\\') >= 0 {
			m.key = appendUnescaped(nil, m.key)
		}
		sorted = sorted && (len(w.members) == base || compareKeys(w.members[len(w.members)-1].key, m.key) < 0)
		w.members = append(w.members, m)
	}
	if !sorted {
		slices.SortFunc(w.members[base:], func(a, b jsonbMember) int {
			if c := compareKeys(a.key, b.key); c != 0 {
				return c
			}
			return cmp.Compare(a.name, b.name)
		})
	}
	dst = append(dst, '{')
	first := true
	for m, last := base, len(w.members); m < last; m++ {
		if m+1 < last && bytes.Equal(w.members[m].key, w.members[m+1].key) {
			w.nul = w.nul || bytes.IndexByte(w.members[m].key, 0) >= 0
			if e := w.check(w.members[m].value); e != numericOK {
				return dst, e
			}
			continue
		}
		if !first {
			dst = append(dst, ", "...)
		}
		first = false
		dst = append(w.str(dst, w.nodes[w.members[m].name]), ": "...)
		var e errNumeric
		if dst, e = w.value(dst, w.members[m].value); e != numericOK {
			return dst, e
		}
	}
	clear(w.members[base:])
	w.members = w.members[:base]
	return append(dst, '}'), numericOK
}

// check looks at a value that isn't written, because a later member has its name: PostgreSQL checks it all the same.
func (w *jsonbWriter) check(k int32) errNumeric {
	for c := k; c < w.nodes[k].next; c++ {
		n := w.nodes[c]
		switch first := w.b[n.start]; {
		case first == '"':
			s := w.b[n.start+1 : n.end-1]
			if bytes.IndexByte(s, '\\') >= 0 {
				w.scratch = appendUnescaped(w.scratch[:0], s)
				w.nul = w.nul || bytes.IndexByte(w.scratch, 0) >= 0
			}
		case first == '-' || isDigit(first):
			var e errNumeric
			if w.scratch, e = appendDecimal(w.scratch[:0], w.b[n.start:n.end]); e != numericOK {
				return e
			}
		}
	}
	return numericOK
}

// compareKeys is the order in which jsonb keeps an object's members.
func compareKeys(a, b []byte) int {
	if c := cmp.Compare(len(a), len(b)); c != 0 {
		return c
	}
	return bytes.Compare(a, b)
}

// compareJSONB compares two canonical texts in PostgreSQL's order of jsonb: by kind (object > array > boolean > number >
// string > null), arrays and objects first by how many elements they have, numbers by value.
func compareJSONB(a, b []byte) int {
	return bytes.Compare(appendOrderedJSONB(nil, a), appendOrderedJSONB(nil, b))
}
