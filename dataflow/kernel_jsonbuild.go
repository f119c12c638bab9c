package dataflow

import (
	"bytes"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/record"
)

// jsonBuildImpls is the functions that make jsonb of other values.
var jsonBuildImpls = makeJSONBuildImpls()

func makeJSONBuildImpls() map[string]impl {
	m := map[string]impl{
		"jsonb_build_array(jsonb)":                           {make: func() kernel { return eachBytes(jsonBuildArray) }},
		"jsonb_build_object(jsonb)":                          {make: func() kernel { return eachBytes(jsonBuildObject) }},
		"jsonb_object(text[])":                               {make: jsonObject},
		"jsonb_object(text[], text[])":                       {make: jsonObject},
		"jsonb_insert(jsonb, text[], jsonb)":                 {make: jsonInsert},
		"jsonb_insert(jsonb, text[], jsonb, boolean)":        {make: jsonInsert},
		"jsonb_set_lax(jsonb, text[], jsonb, boolean, text)": {make: jsonSetLax},
		"jsonb_extract_path(jsonb, text)":                    {make: func() kernel { return jsonExtract(false) }},
		"jsonb_extract_path_text(jsonb, text)":               {make: func() kernel { return jsonExtract(true) }},
	}
	for _, t := range record.Types() {
		m["to_jsonb("+t.String()+")"] = toJSON(t)
	}
	return m
}

// toJSON is to_jsonb of one type. What has doubles or NUMERICs with a form of their own is brought into that of jsonb.
func toJSON(t record.Type) impl {
	elem := t
	if t.IsArray() {
		elem = t.Elem()
	}
	again := elem == record.Double || elem == record.Numeric || t.IsArray()
	if elem == record.Timestamp || elem == record.TimestampTZ {
		return impl{make: func() kernel { return timeJSON(t) }}
	}
	k := eachBytes(func(c *call, dst []byte, i int) ([]byte, error) {
		a := c.args[0]
		v := a.col.Value(i & a.mask)
		if again {
			return appendCanonical(dst, record.AppendJSONValue(nil, v))
		}
		return append(dst, record.AppendJSONValue(nil, v)...), nil
	})
	return impl{make: func() kernel { return k }}
}

// timeJSON is to_jsonb of timestamps and their arrays, in PostgreSQL's form of ISO 8601: as many digits of the second as there are, and
// the zone with its minutes.
func timeJSON(t record.Type) kernel {
	elems := record.NewColumn(t.Elem(), 0)
	return eachBytes(func(c *call, dst []byte, i int) ([]byte, error) {
		if !t.IsArray() {
			return appendTimeJSON(dst, c.args[0].col, i&c.args[0].mask), nil
		}
		elems.Reset()
		if err := record.DecodeArray(bytesArg(c, 0, i), &elems); err != nil {
			return dst, err
		}
		w := openJSON(dst, '[')
		for e := range elems.N {
			w.element(nil)
			if elems.Null(e) {
				w.dst = append(w.dst, "null"...)
			} else {
				w.dst = appendTimeJSON(w.dst, &elems, e)
			}
		}
		return w.end(']'), nil
	})
}

func appendTimeJSON(dst []byte, c *record.Column, i int) []byte {
	text := record.AppendText(nil, c, i)
	day, clock, _ := bytes.Cut(text, []byte(" "))
	dst = append(append(append(dst, '"'), day...), 'T')
	if at := bytes.IndexByte(clock, '+'); at >= 0 {
		dst = append(append(dst, clock[:at+3]...), ":00"...)
		clock = clock[at+3:]
	}
	return append(append(dst, clock...), '"')
}

// jsonArg returns argument k at row i, null where it is NULL.
func jsonArg(c *call, k, i int) []byte {
	if c.args[k].null(i) {
		return []byte("null")
	}
	return bytesArg(c, k, i)
}

func jsonBuildArray(c *call, dst []byte, i int) ([]byte, error) {
	w := openJSON(dst, '[')
	for k := range c.args {
		w.element(jsonArg(c, k, i))
	}
	return w.end(']'), nil
}

var (
	errOddArguments = fault.SQL(fault.Invalid, "22023", "argument list must have even number of elements")
	errKeyKind      = fault.SQL(fault.Invalid, "22023", "key value must be scalar, not array, composite, or json")
	errArrayPairs   = fault.SQL(fault.Invalid, "2202E", "array must have even number of elements")
	errArrayLengths = fault.SQL(fault.Invalid, "2202E", "mismatched array dimensions")
	errKeyNull      = fault.SQL(fault.Invalid, "22004", "null value not allowed for object key")
	errKeyExists    = fault.SQL(fault.Invalid, "22023", "cannot replace existing key; use jsonb_set to replace it")
	errNullHandling = fault.SQL(fault.Invalid, "22023", `null_value_treatment must be "delete_key", "return_target", "use_json_null", or "raise_exception"`)
	errNullValue    = fault.SQL(fault.Invalid, "22004", "JSON value must not be null")
)

func jsonBuildObject(c *call, dst []byte, i int) ([]byte, error) {
	if len(c.args)%2 != 0 {
		return dst, errOddArguments
	}
	w := openJSON(nil, '{')
	for k := 0; k < len(c.args); k += 2 {
		if c.args[k].null(i) {
			return dst, fault.SQL(fault.Invalid, "22023", "argument %d: key must not be null", k+1)
		}
		key := bytesArg(c, k, i)
		switch key[0] {
		case '{', '[':
			return dst, errKeyKind
		case '"':
		default: // a number or boolean, as its text
			key = append(append([]byte{'"'}, key...), '"')
		}
		w.member(key, jsonArg(c, k+1, i))
	}
	return appendCanonical(dst, w.end('}'))
}

// jsonText appends element at of an array as a string of JSON, null where it is NULL.
func jsonText(elems *record.Column, at int) []byte {
	if elems.Null(at) {
		return []byte("null")
	}
	return record.AppendJSONValue(nil, record.Value{Type: record.Text, Bytes: elems.At(at)})
}

// jsonObject is jsonb_object of keys and values by turns, or of an array of each.
func jsonObject() kernel {
	k := newArrayKernel(record.ArrayOf(record.Text))
	return eachBytes(func(c *call, dst []byte, i int) ([]byte, error) {
		if err := k.load(c, &k.a, 0, i); err != nil {
			return dst, err
		}
		keys, values, step := &k.a, &k.a, 2
		if len(c.args) == 2 {
			if err := k.load(c, &k.b, 1, i); err != nil {
				return dst, err
			}
			values, step = &k.b, 1
		}
		switch {
		case step == 2 && keys.N%2 != 0:
			return dst, errArrayPairs
		case keys.N != values.N:
			return dst, errArrayLengths
		}
		w := openJSON(nil, '{')
		for at := 0; at < keys.N; at += step {
			if keys.Null(at) {
				return dst, errKeyNull
			}
			w.member(jsonText(keys, at), jsonText(values, at+step-1))
		}
		return appendCanonical(dst, w.end('}'))
	})
}

// jsonExtract is #> with the path's parts as arguments.
func jsonExtract(text bool) kernel {
	path := record.NewColumn(record.Text, 0)
	return eachBytes(func(c *call, dst []byte, i int) ([]byte, error) {
		path.Reset()
		for _, a := range c.args[1:] {
			path.AppendFrom(a.col, i&a.mask)
		}
		v := bytesArg(c, 0, i)
		for e := 0; e < path.N && v != nil; e++ {
			v = jsonStep(v, &path, e)
		}
		if v == nil || text && v[0] == 'n' {
			c.setNull(i)
			return dst, nil
		}
		if text && v[0] == '"' {
			v = unquote(v)
		}
		return append(dst, v...), nil
	})
}

// jsonInsert is jsonb_insert: before the element at the path, or behind it with the last argument; or a new key.
func jsonInsert() kernel {
	k := newArrayKernel(record.ArrayOf(record.Text))
	return eachBytes(func(c *call, dst []byte, i int) ([]byte, error) {
		if err := k.load(c, &k.a, 1, i); err != nil {
			return dst, err
		}
		v := bytesArg(c, 0, i)
		switch kind := jsonKind(v); {
		case kind != "object" && kind != "array":
			return dst, errSetScalar
		case k.a.N == 0:
			return append(dst, v...), nil
		}
		e := jsonEdit{path: &k.a, put: bytesArg(c, 2, i), create: true, insert: true}
		if len(c.args) == 4 {
			e.behind = c.args[3].col.Bools[i&c.args[3].mask]
		}
		return e.append(dst, v, 0)
	})
}

// jsonSetLax is jsonb_set that says what to do with a NULL as the new value.
func jsonSetLax() kernel {
	k := newArrayKernel(record.ArrayOf(record.Text))
	return eachBytes(func(c *call, dst []byte, i int) ([]byte, error) {
		for _, arg := range []int{0, 1, 3} {
			if c.args[arg].null(i) {
				c.setNull(i)
				return dst, nil
			}
		}
		if err := k.load(c, &k.a, 1, i); err != nil {
			return dst, err
		}
		v, put := bytesArg(c, 0, i), jsonArg(c, 2, i)
		if c.args[4].null(i) {
			return dst, errNullHandling
		}
		if c.args[2].null(i) {
			switch string(bytesArg(c, 4, i)) {
			case "raise_exception":
				return dst, errNullValue
			case "return_target":
				return append(dst, v...), nil
			case "delete_key":
				return deletePath(dst, v, &k.a)
			case "use_json_null":
			default:
				return dst, errNullHandling
			}
		}
		return setPath(dst, v, &k.a, put, c.args[3].col.Bools[i&c.args[3].mask])
	})
}
