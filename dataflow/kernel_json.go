package dataflow

import (
	"bytes"
	"encoding/json"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/record"
)

// jsonImpls is functions of jsonb. They work on the canonical text, which is well-formed: objects have their keys once,
// and a value needn't be parsed to be passed over.
var jsonImpls = map[string]impl{
	"json_get(jsonb, text)":        {make: func() kernel { return jsonGet(getBytes, jsonField, false) }},
	"json_get(jsonb, bigint)":      {make: func() kernel { return jsonGet(getInt, jsonElement, false) }},
	"json_get_text(jsonb, text)":   {make: func() kernel { return jsonGet(getBytes, jsonField, true) }},
	"json_get_text(jsonb, bigint)": {make: func() kernel { return jsonGet(getInt, jsonElement, true) }},
	"json_contains(jsonb, jsonb)": binaryOp(getBytes, getBytes, setBool, func(a, b []byte) (bool, error) {
		return jsonContains(a, b, true), nil
	}),
	"json_exists(jsonb, text)": binaryOp(getBytes, getBytes, setBool, func(a, key []byte) (bool, error) {
		return jsonExists(a, key), nil
	}),
	"jsonb_typeof(jsonb)": unaryBytes(getBytes, func(dst, a []byte) ([]byte, error) {
		return append(dst, jsonKind(a)...), nil
	}),
	"jsonb_array_length(jsonb)": unary(getBytes, setInt, func(a []byte) (int64, error) {
		switch jsonKind(a) {
		case "array":
			n := int64(0)
			eachElement(a, func([]byte) bool { n++; return true })
			return n, nil
		case "object":
			return 0, fault.SQL(fault.Invalid, "22023", "cannot get array length of a non-array")
		}
		return 0, fault.SQL(fault.Invalid, "22023", "cannot get array length of a scalar")
	}),
}

// jsonKind returns jsonb_typeof.
func jsonKind(v []byte) string {
	if len(v) == 0 {
		return "null"
	}
	switch v[0] {
	case '{':
		return "object"
	case '[':
		return "array"
	case '"':
		return "string"
	case 't', 'f':
		return "boolean"
	case 'n':
		return "null"
	}
	return "number"
}

// jsonEnd returns where the value at the beginning of v ends.
func jsonEnd(v []byte) int {
	depth := 0
	for i := 0; i < len(v); i++ {
		switch v[i] {
		case '"':
			for i++; i < len(v) && v[i] != '"'; i++ {
				if v[i] == '\\' {
					i++
				}
			}
			if depth == 0 {
				return min(i+1, len(v))
			}
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 {
				return i + 1
			}
			if depth < 0 {
				return i
			}
		case ',', ':', ' ':
			if depth == 0 {
				return i
			}
		}
	}
	return len(v)
}

// afterMark passes over spaces, commas and colons.
func afterMark(v []byte) []byte {
	for len(v) > 0 && (v[0] == ' ' || v[0] == ',' || v[0] == ':') {
		v = v[1:]
	}
	return v
}

// eachElement calls fn with the elements of array v until it returns false.
func eachElement(v []byte, fn func(e []byte) bool) {
	for v = afterMark(v[1:]); len(v) > 0 && v[0] != ']'; {
		n := jsonEnd(v)
		if n == 0 || !fn(v[:n]) {
			return
		}
		v = afterMark(v[n:])
	}
}

// eachMember calls fn with the keys, in quotes, and values of object v until it returns false.
func eachMember(v []byte, fn func(key, value []byte) bool) {
	for v = afterMark(v[1:]); len(v) > 0 && v[0] != '}'; {
		n := jsonEnd(v)
		key := v[:n]
		v = afterMark(v[n:])
		m := jsonEnd(v)
		if n == 0 || m == 0 || !fn(key, v[:m]) {
			return
		}
		v = afterMark(v[m:])
	}
}

// isString tells whether the JSON string quoted is text.
func isString(quoted, text []byte) bool {
	inner := quoted[1 : len(quoted)-1]
	if bytes.IndexByte(inner, '\\') < 0 {
		return bytes.Equal(inner, text)
	}
	return bytes.Equal(unquote(quoted), text)
}

// unquote returns the text of a JSON string.
func unquote(quoted []byte) []byte {
	inner := quoted[1 : len(quoted)-1]
	if bytes.IndexByte(inner, '\\') < 0 {
		return inner
	}
	var s string
	if json.Unmarshal(quoted, &s) != nil {
		return inner
	}
	return []byte(s)
}

func jsonField(v, key []byte) []byte {
	if jsonKind(v) != "object" {
		return nil
	}
	var found []byte
	eachMember(v, func(k, value []byte) bool {
		if isString(k, key) {
			found = value
		}
		return found == nil
	})
	return found
}

func jsonElement(v []byte, at int64) []byte {
	switch jsonKind(v) {
	case "object":
		return nil
	case "array":
	default: // PostgreSQL takes a scalar at the top for an array of one
		if at != 0 && at != -1 {
			return nil
		}
		return v
	}
	if at < 0 {
		n := int64(0)
		eachElement(v, func([]byte) bool { n++; return true })
		if at += n; at < 0 {
			return nil
		}
	}
	var found []byte
	eachElement(v, func(e []byte) bool {
		if at == 0 {
			found = e
		}
		at--
		return at >= 0
	})
	return found
}

// jsonGet is -> and, with text, ->>.
func jsonGet[A any](get getter[A], find func([]byte, A) []byte, text bool) kernel {
	return eachBytes(func(c *call, dst []byte, i int) ([]byte, error) {
		v, at := c.args[0], c.args[1]
		found := find(v.col.At(i&v.mask), get(at.col, i&at.mask))
		if found == nil || text && found[0] == 'n' {
			c.setNull(i)
			return dst, nil
		}
		if text && found[0] == '"' {
			found = unquote(found)
		}
		return append(dst, found...), nil
	})
}

// jsonContains is a @> b. At the top, an array also contains a scalar that is one of its elements.
func jsonContains(a, b []byte, top bool) bool {
	ka, kb := jsonKind(a), jsonKind(b)
	switch {
	case ka == "object" && kb == "object":
		all := true
		eachMember(b, func(key, want []byte) bool {
			have := jsonField(a, unquote(key))
			all = have != nil && jsonContains(have, want, false)
			return all
		})
		return all
	case ka == "array" && kb == "array":
		all := true
		eachElement(b, func(want []byte) bool {
			all = hasElement(a, want)
			return all
		})
		return all
	case ka == "array" && top && kb != "object":
		return hasElement(a, b)
	}
	return ka == kb && jsonEqual(a, b)
}

func hasElement(array, want []byte) bool {
	found := false
	eachElement(array, func(e []byte) bool {
		if k := jsonKind(e); k == jsonKind(want) {
			found = jsonContains(e, want, false)
		}
		return !found
	})
	return found
}

func jsonEqual(a, b []byte) bool {
	return record.Compare(record.Value{Type: record.JSONB, Bytes: a}, record.Value{Type: record.JSONB, Bytes: b}) == 0
}

func jsonExists(v, key []byte) bool {
	switch jsonKind(v) {
	case "object":
		return jsonField(v, key) != nil
	case "string":
		return isString(v, key)
	case "array":
		found := false
		eachElement(v, func(e []byte) bool {
			found = e[0] == '"' && isString(e, key)
			return !found
		})
		return found
	}
	return false
}

// canonicalJSONs returns c with equal values in equal form: numbers without trailing zeros.
func canonicalJSONs(c, scratch *record.Column) *record.Column {
	scratch.Type = c.Type
	scratch.Reset()
	var key []byte
	for i := range c.N {
		if c.Null(i) {
			scratch.AppendNull()
			continue
		}
		key = record.AppendOrdered(key[:0], c, i)
		if _, err := record.DecodeOrdered(key, scratch); err != nil {
			scratch.AppendBytes(c.At(i)) // not canonical to begin with: it stands for itself
		}
	}
	return scratch
}
