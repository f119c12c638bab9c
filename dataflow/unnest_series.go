package dataflow

import (
	"bytes"
	"math"
	"regexp"
	"unicode/utf8"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/record"
)

// setReturning is a set-returning function: the types of its elements' columns, and its elements.
type setReturning struct {
	columns []record.Type
	make    func(u *unnest) series
}

func plainSeries(s series, columns ...record.Type) setReturning {
	return setReturning{columns, func(*unnest) series { return s }}
}

// seriesOf is the set-returning functions by name and types of arguments.
var seriesOf = withArrays(map[string]setReturning{
	"generate_series(bigint, bigint)":                     plainSeries(intSeries, record.BigInt),
	"generate_series(bigint, bigint, bigint)":             plainSeries(intSeries, record.BigInt),
	"generate_series(timestamptz, timestamptz, interval)": plainSeries(timeSeries, record.TimestampTZ),
	"generate_series(timestamp, timestamp, interval)":     plainSeries(timeSeries, record.Timestamp),
	"generate_series(numeric, numeric, numeric)":          plainSeries(numericSeries, record.Numeric),
	"jsonb_array_elements(jsonb)":                         plainSeries(jsonElements(false), record.JSONB),
	"jsonb_array_elements_text(jsonb)":                    plainSeries(jsonElements(true), record.Text),
	"jsonb_each(jsonb)":                                   plainSeries(jsonMembers(false, "jsonb_each"), record.Text, record.JSONB),
	"jsonb_each_text(jsonb)":                              plainSeries(jsonMembers(true, "jsonb_each_text"), record.Text, record.Text),
	"jsonb_object_keys(jsonb)":                            plainSeries(jsonKeys, record.Text),
	"string_to_table(text, text)":                         plainSeries(stringToTable, record.Text),
	"string_to_table(text, text, text)":                   plainSeries(stringToTable, record.Text),
	"regexp_split_to_table(text, text)":                   {[]record.Type{record.Text}, newRegexpSplit},
	"regexp_split_to_table(text, text, text)":             {[]record.Type{record.Text}, newRegexpSplit},
})

// withArrays adds unnest of every type of arrays.
func withArrays(m map[string]setReturning) map[string]setReturning {
	for _, t := range record.Types() {
		if t.IsArray() {
			m["unnest("+t.String()+")"] = setReturning{[]record.Type{t.Elem()}, arraySeries}
		}
	}
	return m
}

func arraySeries(u *unnest) series {
	elems := record.NewColumn(u.args[0].typ().Elem(), 0)
	return func(u *unnest, i int, next func() bool) error {
		if u.null(i) {
			return nil
		}
		elems.Reset()
		if err := record.DecodeArray(u.bytes(0, i), &elems); err != nil {
			return err
		}
		for e := range elems.N {
			u.elements[0].AppendFrom(&elems, e)
			if !next() {
				break
			}
		}
		return nil
	}
}

var errStepZero = fault.SQL(fault.Invalid, "22023", "step size cannot equal zero")

func intSeries(u *unnest, i int, next func() bool) error {
	if u.null(i) {
		return nil
	}
	step := int64(1)
	if len(u.args) == 3 {
		step = u.int(2, i)
	}
	if step == 0 {
		return errStepZero
	}
	for v, stop := u.int(0, i), u.int(1, i); v <= stop == (step > 0) || v == stop; {
		u.elements[0].AppendInt(v)
		if !next() {
			break
		}
		if step > 0 && v > math.MaxInt64-step || step < 0 && v < math.MinInt64-step {
			break
		}
		v += step
	}
	return nil
}

func numericSeries(u *unnest, i int, next func() bool) error {
	if u.null(i) {
		return nil
	}
	var args [3][]byte
	for k, name := range []string{"start value", "stop value", "step size"} {
		if args[k] = bytes.Clone(u.bytes(k, i)); isNaN(args[k]) {
			return fault.SQL(fault.Invalid, "22023", "%s cannot be NaN", name)
		}
	}
	sign := record.CompareNumeric(args[2], []byte("0"))
	if sign == 0 {
		return errStepZero
	}
	for v := args[0]; record.CompareNumeric(v, args[1])*sign <= 0; {
		u.elements[0].AppendBytes(v)
		if !next() {
			break
		}
		var err error
		if v, err = addNumeric(nil, v, args[2], false); err != nil {
			return err
		}
	}
	return nil
}

func timeSeries(u *unnest, i int, next func() bool) error {
	if u.null(i) {
		return nil
	}
	v := u.values[2]
	step := v.col.Intervals[i&v.mask]
	sign := record.CompareInterval(step, record.Interval{})
	if sign == 0 {
		return errStepZero
	}
	for t, stop := u.int(0, i), u.int(1, i); t <= stop == (sign > 0) || t == stop; {
		u.elements[0].AppendInt(t)
		if !next() {
			break
		}
		var err error
		if t, err = addInterval(t, step, 1); err != nil {
			return err
		}
	}
	return nil
}

// jsonElements gives the elements of an array.
func jsonElements(text bool) series {
	return func(u *unnest, i int, next func() bool) error {
		if u.null(i) {
			return nil
		}
		v := u.bytes(0, i)
		switch kind := jsonKind(v); kind {
		case "array":
		case "object":
			return fault.SQL(fault.Invalid, "22023", "cannot extract elements from an object")
		default:
			return fault.SQL(fault.Invalid, "22023", "cannot extract elements from a scalar")
		}
		eachElement(v, func(e []byte) bool {
			appendJSON(&u.elements[0], e, text)
			return next()
		})
		return nil
	}
}

// appendJSON appends a JSON value to a column of jsonb or, if it is to be text, as ->> gives it.
func appendJSON(c *record.Column, v []byte, text bool) {
	switch {
	case text && v[0] == 'n':
		c.AppendNull()
	case text && v[0] == '"':
		c.AppendBytes(unquote(v))
	default:
		c.AppendBytes(v)
	}
}

// jsonMembers gives the keys and values of an object.
func jsonMembers(text bool, name string) series {
	return func(u *unnest, i int, next func() bool) error {
		if u.null(i) {
			return nil
		}
		v := u.bytes(0, i)
		if jsonKind(v) != "object" {
			return fault.SQL(fault.Invalid, "22023", "cannot call %s on a non-object", name)
		}
		eachMember(v, func(key, value []byte) bool {
			u.elements[0].AppendBytes(unquote(key))
			appendJSON(&u.elements[1], value, text)
			return next()
		})
		return nil
	}
}

func jsonKeys(u *unnest, i int, next func() bool) error {
	if u.null(i) {
		return nil
	}
	v := u.bytes(0, i)
	switch jsonKind(v) {
	case "object":
	case "array":
		return fault.SQL(fault.Invalid, "22023", "cannot call jsonb_object_keys on an array")
	default:
		return fault.SQL(fault.Invalid, "22023", "cannot call jsonb_object_keys on a scalar")
	}
	eachMember(v, func(key, _ []byte) bool {
		u.elements[0].AppendBytes(unquote(key))
		return next()
	})
	return nil
}

// stringToTable splits at a delimiter: at every character if it is NULL, nowhere if it is empty. Parts equal to the third argument
// are NULL.
func stringToTable(u *unnest, i int, next func() bool) error {
	if u.values[0].null(i) {
		return nil
	}
	var null []byte
	hasNull := len(u.args) == 3 && !u.values[2].null(i)
	if hasNull {
		null = u.bytes(2, i)
	}
	add := func(part []byte) bool {
		if hasNull && bytes.Equal(part, null) {
			u.elements[0].AppendNull()
		} else {
			u.elements[0].AppendBytes(part)
		}
		return next()
	}
	text := u.bytes(0, i)
	switch {
	case len(text) == 0:
		return nil
	case u.values[1].null(i):
		for len(text) > 0 {
			_, n := utf8.DecodeRune(text)
			if !add(text[:n]) {
				return nil
			}
			text = text[n:]
		}
		return nil
	}
	delimiter := u.bytes(1, i)
	for len(delimiter) > 0 {
		part, rest, found := bytes.Cut(text, delimiter)
		if !found {
			break
		}
		if !add(part) {
			return nil
		}
		text = rest
	}
	add(text)
	return nil
}

// newRegexpSplit splits at the matches of a regular expression, in RE2's syntax (PostgreSQL's without look-around and back
// references). It keeps the last expression.
func newRegexpSplit(*unnest) series {
	var source string
	var re *regexp.Regexp
	return func(u *unnest, i int, next func() bool) error {
		if u.null(i) {
			return nil
		}
		pattern := "(?s)" + string(u.bytes(1, i)) // a dot matches a newline, too
		if len(u.args) == 3 {
			flags, err := regexpFlags(u.bytes(2, i))
			if err != nil {
				return err
			}
			pattern = flags + string(u.bytes(1, i))
		}
		if re == nil || pattern != source {
			made, err := regexp.Compile(pattern)
			if err != nil {
				return fault.SQL(fault.Invalid, "2201B", "invalid regular expression: %v", err)
			}
			re, source = made, pattern
		}
		text, from := u.bytes(0, i), 0
		for _, m := range re.FindAllIndex(text, maxElements) {
			// As in PostgreSQL, an empty match at the beginning, at the end, or right after another one splits nothing.
			if m[0] == m[1] && (m[0] == from || m[0] == len(text)) {
				continue
			}
			u.elements[0].AppendBytes(text[from:m[0]])
			if !next() {
				return nil
			}
			from = m[1]
		}
		u.elements[0].AppendBytes(text[from:])
		next()
		return nil
	}
}

// regexpFlags returns PostgreSQL's flags as RE2 has them.
func regexpFlags(flags []byte) (string, error) {
	var out []byte
	for _, f := range flags {
		switch f {
		case 'i':
			out = append(out, 'i')
		case 'm', 'n':
			out = append(out, 'm')
		case 'c', 's':
		default:
			return "", fault.SQL(fault.Invalid, "22023", "invalid regular expression option: %q", string(f))
		}
	}
	// Without m a dot matches a newline.
	if !bytes.ContainsAny(flags, "mn") {
		out = append(out, 's')
	}
	return "(?" + string(out) + ")", nil
}
