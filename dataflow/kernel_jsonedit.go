package dataflow

import (
	"bytes"
	"math"
	"strconv"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/record"
)

// jsonEditImpls is the functions of jsonb that make another value of one.
var jsonEditImpls = map[string]impl{
	"concat_op(jsonb, jsonb)":                  binaryBytes(getBytes, getBytes, jsonConcat),
	"sub(jsonb, text)":                         binaryBytes(getBytes, getBytes, jsonWithout),
	"sub(jsonb, bigint)":                       binaryBytes(getBytes, getInt, jsonWithoutElement),
	"sub(jsonb, text[])":                       {make: jsonWithoutKeys},
	"json_delete_path(jsonb, text[])":          {make: jsonDeletePath},
	"jsonb_set(jsonb, text[], jsonb)":          {make: jsonSet},
	"jsonb_set(jsonb, text[], jsonb, boolean)": {make: jsonSet},
	"jsonb_strip_nulls(jsonb)":                 unaryBytes(getBytes, func(dst, a []byte) ([]byte, error) { return appendWithoutNulls(dst, a), nil }),
	"jsonb_pretty(jsonb)":                      unaryBytes(getBytes, func(dst, a []byte) ([]byte, error) { return appendPretty(dst, a, 0), nil }),
}

// jsonWriter writes an object or array part by part, in the form that jsonb has.
type jsonWriter struct {
	dst   []byte
	first bool
}

func openJSON(dst []byte, c byte) jsonWriter { return jsonWriter{append(dst, c), true} }

func (w *jsonWriter) element(v []byte) {
	if !w.first {
		w.dst = append(w.dst, ", "...)
	}
	w.first = false
	w.dst = append(w.dst, v...)
}

func (w *jsonWriter) member(key, v []byte) {
	w.element(key)
	w.dst = append(append(w.dst, ": "...), v...)
}

func (w *jsonWriter) end(c byte) []byte { return append(w.dst, c) }

// appendCanonical appends JSON whose objects may have keys twice, of which the last counts, and in any order.
func appendCanonical(dst, text []byte) ([]byte, error) {
	v, err := record.ParseText(record.JSONB, string(text))
	return append(dst, v.Bytes...), err
}

// jsonConcat is a || b: objects are merged, everything else is an array, or the one element of one.
func jsonConcat(dst, a, b []byte) ([]byte, error) {
	ka, kb := jsonKind(a), jsonKind(b)
	if ka == "object" && kb == "object" {
		w := openJSON(nil, '{')
		for _, v := range [][]byte{a, b} {
			eachMember(v, func(k, e []byte) bool { w.member(k, e); return true })
		}
		return appendCanonical(dst, w.end('}'))
	}
	w := openJSON(dst, '[')
	for _, v := range [][]byte{a, b} {
		if jsonKind(v) == "array" {
			eachElement(v, func(e []byte) bool { w.element(e); return true })
		} else {
			w.element(v)
		}
	}
	return w.end(']'), nil
}

var (
	errJSONIndex    = fault.SQL(fault.Invalid, "22003", "integer out of range")
	errDeleteScalar = fault.SQL(fault.Invalid, "22023", "cannot delete from scalar")
	errDeleteIndex  = fault.SQL(fault.Invalid, "22023", "cannot delete from object using integer index")
	errDeletePath   = fault.SQL(fault.Invalid, "22023", "cannot delete path in scalar")
	errSetScalar    = fault.SQL(fault.Invalid, "22023", "cannot set path in scalar")
)

// appendExcept appends v without the members, or elements that are strings, that drop names.
func appendExcept(dst, v []byte, drop func(quoted []byte) bool) ([]byte, error) {
	switch jsonKind(v) {
	case "object":
		w := openJSON(dst, '{')
		eachMember(v, func(k, e []byte) bool {
			if !drop(k) {
				w.member(k, e)
			}
			return true
		})
		return w.end('}'), nil
	case "array":
		w := openJSON(dst, '[')
		eachElement(v, func(e []byte) bool {
			if e[0] != '"' || !drop(e) {
				w.element(e)
			}
			return true
		})
		return w.end(']'), nil
	}
	return dst, errDeleteScalar
}

func jsonWithout(dst, v, key []byte) ([]byte, error) {
	return appendExcept(dst, v, func(q []byte) bool { return isString(q, key) })
}

func jsonWithoutElement(dst, v []byte, at int64) ([]byte, error) {
	if int64(int32(at)) != at { // no array has so many
		return dst, errJSONIndex
	}
	switch jsonKind(v) {
	case "object":
		return dst, errDeleteIndex
	case "array":
		return appendArrayExcept(dst, v, at), nil
	}
	return dst, errDeleteScalar
}

// jsonLen returns the number of an array's elements.
func jsonLen(v []byte) int64 {
	n := int64(0)
	eachElement(v, func([]byte) bool { n++; return true })
	return n
}

// appendArrayExcept appends array v without element at, counted from the end when it is negative.
func appendArrayExcept(dst, v []byte, at int64) []byte {
	if at < 0 {
		if at += jsonLen(v); at < 0 {
			at = math.MaxInt64
		}
	}
	w := openJSON(dst, '[')
	eachElement(v, func(e []byte) bool {
		if at != 0 {
			w.element(e)
		}
		at--
		return true
	})
	return w.end(']')
}

func jsonWithoutKeys() kernel {
	k := newArrayKernel(record.ArrayOf(record.Text))
	return eachBytes(func(c *call, dst []byte, i int) ([]byte, error) {
		if err := k.load(c, &k.a, 1, i); err != nil {
			return dst, err
		}
		return appendExcept(dst, bytesArg(c, 0, i), func(q []byte) bool {
			for e := range k.a.N {
				if !k.a.Null(e) && isString(q, k.a.At(e)) {
					return true
				}
			}
			return false
		})
	})
}

// pathIndex is an element of a path as the index of an array.
func pathIndex(path *record.Column, at int) (int64, error) {
	n, err := strconv.ParseInt(string(bytes.TrimSpace(path.At(at))), 10, 32)
	if err != nil {
		return 0, fault.SQL(fault.Invalid, "22P02", "path element at position %d is not an integer: %q", at+1, path.At(at))
	}
	return n, nil
}

func nullPath(at int) error {
	return fault.SQL(fault.Invalid, "22004", "path element at position %d is null", at+1)
}

// jsonEdit changes the value at a path: put is what takes its place, nil deletes it. create adds what isn't there to the
// object or array that the path's last element is of.
type jsonEdit struct {
	path   *record.Column
	put    []byte
	create bool
	// insert puts it beside what is at the path, behind or before it.
	insert, behind bool
}

// append appends v with the edit made to it from path element at on.
func (e *jsonEdit) append(dst, v []byte, at int) ([]byte, error) {
	switch kind := jsonKind(v); {
	case kind != "object" && kind != "array":
		return append(dst, v...), nil
	case e.path.Null(at):
		return dst, nullPath(at)
	case kind == "object":
		return e.object(dst, v, at)
	}
	return e.array(dst, v, at)
}

// value appends what stands at the path's element at, where old stood.
func (e *jsonEdit) value(old []byte, at int) ([]byte, error) {
	if at == e.path.N-1 {
		return e.put, nil
	}
	return e.append(nil, old, at+1)
}

func (e *jsonEdit) object(dst, v []byte, at int) (_ []byte, err error) {
	last, found := at == e.path.N-1, false
	w := openJSON(nil, '{')
	eachMember(v, func(k, old []byte) bool {
		if !isString(k, e.path.At(at)) {
			w.member(k, old)
			return true
		}
		found = true
		if last && e.insert {
			err = errKeyExists
			return false
		}
		var fresh []byte
		if fresh, err = e.value(old, at); err == nil && fresh != nil {
			w.member(k, fresh)
		}
		return err == nil
	})
	if err != nil {
		return dst, err
	}
	if !found && last && e.create && e.put != nil {
		w.member(record.AppendJSONValue(nil, record.Value{Type: record.Text, Bytes: e.path.At(at)}), e.put)
	}
	return appendCanonical(dst, w.end('}'))
}

func (e *jsonEdit) array(dst, v []byte, at int) ([]byte, error) {
	index, err := pathIndex(e.path, at)
	if err != nil {
		return dst, err
	}
	n, last := jsonLen(v), at == e.path.N-1
	before := false
	if index < 0 {
		index += n
		before = index < 0
	}
	w := openJSON(dst, '[')
	add := last && e.create && e.put != nil
	if before && add {
		w.element(e.put)
	}
	i := int64(0)
	eachElement(v, func(old []byte) bool {
		fresh := old
		switch {
		case i != index:
		case last && e.insert && e.behind:
			w.element(old)
			fresh = e.put
		case last && e.insert:
			w.element(e.put)
		default:
			fresh, err = e.value(old, at)
		}
		if i++; fresh != nil {
			w.element(fresh)
		}
		return err == nil
	})
	if index >= n && add {
		w.element(e.put)
	}
	return w.end(']'), err
}

func jsonDeletePath() kernel {
	k := newArrayKernel(record.ArrayOf(record.Text))
	return eachBytes(func(c *call, dst []byte, i int) ([]byte, error) {
		if err := k.load(c, &k.a, 1, i); err != nil {
			return dst, err
		}
		return deletePath(dst, bytesArg(c, 0, i), &k.a)
	})
}

func deletePath(dst, v []byte, path *record.Column) ([]byte, error) {
	switch kind := jsonKind(v); {
	case kind != "object" && kind != "array":
		return dst, errDeletePath
	case path.N == 0 || jsonLenOf(v) == 0:
		return append(dst, v...), nil
	}
	e := jsonEdit{path: path}
	return e.append(dst, v, 0)
}

func jsonSet() kernel {
	k := newArrayKernel(record.ArrayOf(record.Text))
	return eachBytes(func(c *call, dst []byte, i int) ([]byte, error) {
		if err := k.load(c, &k.a, 1, i); err != nil {
			return dst, err
		}
		create := true
		if len(c.args) == 4 {
			create = c.args[3].col.Bools[i&c.args[3].mask]
		}
		return setPath(dst, bytesArg(c, 0, i), &k.a, bytesArg(c, 2, i), create)
	})
}

func setPath(dst, v []byte, path *record.Column, put []byte, create bool) ([]byte, error) {
	switch kind := jsonKind(v); {
	case kind != "object" && kind != "array":
		return dst, errSetScalar
	case path.N == 0 || !create && jsonLenOf(v) == 0:
		return append(dst, v...), nil
	}
	e := jsonEdit{path: path, put: put, create: create}
	return e.append(dst, v, 0)
}

// jsonLenOf returns how many members or elements an object or array has.
func jsonLenOf(v []byte) int64 {
	if jsonKind(v) == "array" {
		return jsonLen(v)
	}
	n := int64(0)
	eachMember(v, func(_, _ []byte) bool { n++; return true })
	return n
}

// appendWithoutNulls appends v without the members of objects, at any depth, that are null.
func appendWithoutNulls(dst, v []byte) []byte {
	switch jsonKind(v) {
	case "object":
		w := openJSON(dst, '{')
		eachMember(v, func(k, e []byte) bool {
			if e[0] != 'n' {
				w.member(k, nil)
				w.dst = appendWithoutNulls(w.dst, e)
			}
			return true
		})
		return w.end('}')
	case "array":
		w := openJSON(dst, '[')
		eachElement(v, func(e []byte) bool {
			w.element(nil)
			w.dst = appendWithoutNulls(w.dst, e)
			return true
		})
		return w.end(']')
	}
	return append(dst, v...)
}

// appendPretty appends v with a line for each member and element.
func appendPretty(dst, v []byte, depth int) []byte {
	line := func(depth int) {
		dst = append(dst, '\n')
		for range depth {
			dst = append(dst, "    "...)
		}
	}
	first := true
	next := func() {
		if !first {
			dst = append(dst, ',')
		}
		first = false
		line(depth + 1)
	}
	switch jsonKind(v) {
	case "object":
		dst = append(dst, '{')
		eachMember(v, func(k, e []byte) bool {
			next()
			dst = appendPretty(append(append(dst, k...), ": "...), e, depth+1)
			return true
		})
		line(depth)
		return append(dst, '}')
	case "array":
		dst = append(dst, '[')
		eachElement(v, func(e []byte) bool {
			next()
			dst = appendPretty(dst, e, depth+1)
			return true
		})
		line(depth)
		return append(dst, ']')
	}
	return append(dst, v...)
}
