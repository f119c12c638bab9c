package dataflow

import (
	"bytes"
	"math"
	"strconv"
	"strings"

	"github.com/millrace/millrace/internal/fault"
)

// quoteImpls is format and what writes a text as a part of SQL.
var quoteImpls = map[string]impl{
	"format(text)":        {make: formatKernel},
	"format(text, text)":  {make: formatKernel},
	"quote_ident(text)":   unaryBytes(getBytes, func(dst, a []byte) ([]byte, error) { return appendIdent(dst, a), nil }),
	"quote_literal(text)": unaryBytes(getBytes, func(dst, a []byte) ([]byte, error) { return appendQuoted(dst, a), nil }),
	"quote_nullable(text)": {make: func() kernel {
		return eachBytes(func(c *call, dst []byte, i int) ([]byte, error) {
			if c.args[0].null(i) {
				return append(dst, "NULL"...), nil
			}
			return appendQuoted(dst, bytesArg(c, 0, i)), nil
		})
	}},
}

// sqlKeywords is the words that PostgreSQL 15 puts in quotes as names: all but the unreserved ones.
var sqlKeywords = makeSQLKeywords()

func makeSQLKeywords() map[string]bool {
	m := map[string]bool{}
	for w := range strings.FieldsSeq(`all analyse analyze and any array as asc asymmetric authorization between bigint binary bit
		boolean both case cast char character check coalesce collate collation column concurrently constraint create cross
		current_catalog current_date current_role current_schema current_time current_timestamp current_user dec decimal default
		deferrable desc distinct do else end except exists extract false fetch float for foreign freeze from full grant greatest group
		grouping having ilike in initially inner inout int integer intersect interval into is isnull join lateral leading least left
		like limit localtime localtimestamp national natural nchar none normalize not notnull null nullif numeric offset on only or
		order out outer overlaps overlay placing position precision primary real references returning right row select session_user
		setof similar smallint some substring symmetric table tablesample then time timestamp to trailing treat trim true union unique
		user using values varchar variadic verbose when where window with xmlattributes xmlconcat xmlelement xmlexists xmlforest
		xmlnamespaces xmlparse xmlpi xmlroot xmlserialize xmltable`) {
		m[w] = true
	}
	return m
}

// appendIdent appends a name, in quotes if it needs them.
func appendIdent(dst, name []byte) []byte {
	plain := len(name) > 0 && (name[0] >= 'a' && name[0] <= 'z' || name[0] == '_')
	for _, c := range name {
		plain = plain && (c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '_')
	}
	if plain && !sqlKeywords[string(name)] {
		return append(dst, name...)
	}
	dst = append(dst, '"')
	for _, c := range name {
		if c == '"' {
			dst = append(dst, '"')
		}
		dst = append(dst, c)
	}
	return append(dst, '"')
}

// appendQuoted appends a text as a literal of SQL.
func appendQuoted(dst, text []byte) []byte {
	if bytes.IndexByte(text, '\\') >= 0 {
		dst = append(dst, 'E')
	}
	dst = append(dst, '\'')
	for _, c := range text {
		if c == '\'' || c == '\\' {
			dst = append(dst, c)
		}
		dst = append(dst, c)
	}
	return append(dst, '\'')
}

var (
	errFormatShort = fault.SQL(fault.Invalid, "22023", "too few arguments for format()")
	errFormatEnd   = fault.SQL(fault.Invalid, "22023", `unterminated format() type specifier; for a single "%%" use "%%%%"`)
	errFormatZero  = fault.SQL(fault.Invalid, "22023", "format specifies argument 0, but arguments are numbered from 1")
	errFormatWidth = fault.SQL(fault.Invalid, "22003", "number is out of range")
	errFormatNull  = fault.SQL(fault.Invalid, "22004", "null values cannot be formatted as an SQL identifier")
)

// formatter writes one row's format(). Arguments have the numbers that they have in the call: 0 is the pattern.
type formatter struct {
	c    *call
	row  int
	next int    // the argument that a specifier without a number takes
	rest []byte // of the pattern
	part []byte // what a specifier with a width writes
}

func formatKernel() kernel {
	var f formatter
	return eachBytes(func(c *call, dst []byte, i int) ([]byte, error) {
		if c.args[0].null(i) {
			c.setNull(i)
			return dst, nil
		}
		f.c, f.row, f.next, f.rest = c, i, 1, bytesArg(c, 0, i)
		mark := len(dst)
		for {
			n := bytes.IndexByte(f.rest, '%')
			if n < 0 {
				return append(dst, f.rest...), nil
			}
			dst, f.rest = append(dst, f.rest[:n]...), f.rest[n+1:]
			var err error
			if dst, err = f.specifier(dst); err != nil {
				return dst, err
			}
			if len(dst)-mark > maxTextBytes {
				return dst, errTextLength
			}
		}
	})
}

// number reads digits from the pattern.
func (f *formatter) number() (n int64, ok bool, err error) {
	for len(f.rest) > 0 && f.rest[0] >= '0' && f.rest[0] <= '9' {
		if n = n*10 + int64(f.rest[0]-'0'); n > math.MaxInt32 {
			return 0, false, errFormatWidth
		}
		f.rest, ok = f.rest[1:], true
	}
	if len(f.rest) == 0 {
		return n, ok, errFormatEnd
	}
	return n, ok, nil
}

// specifier writes %[position][flags][width]type, of which the % has been read.
func (f *formatter) specifier(dst []byte) ([]byte, error) {
	arg, width := -1, int64(0)
	n, ok, err := f.number()
	if err != nil {
		return dst, err
	}
	if ok && f.rest[0] == '$' {
		if n == 0 {
			return dst, errFormatZero
		}
		arg, f.rest, ok = int(n), f.rest[1:], false
	} else if ok {
		width = n // it was the width, and there are no flags
	}
	left := false
	if !ok {
		for len(f.rest) > 0 && f.rest[0] == '-' {
			left, f.rest = true, f.rest[1:]
		}
		if width, err = f.width(); err != nil {
			return dst, err
		}
	}
	if width < 0 {
		left, width = true, -width
	}
	if len(f.rest) == 0 {
		return dst, errFormatEnd
	}
	kind := f.rest[0]
	size := charSize(f.rest)
	what := f.rest[:size]
	f.rest = f.rest[size:]
	switch kind {
	case '%':
		return append(dst, '%'), nil
	case 's', 'I', 'L':
	default:
		return dst, fault.SQL(fault.Invalid, "22023", `unrecognized format() type specifier %q; for a single "%%" use "%%%%"`, what)
	}
	if arg, err = f.take(arg); err != nil {
		return dst, err
	}
	if width == 0 {
		return f.value(dst, kind, arg)
	}
	if f.part, err = f.value(f.part[:0], kind, arg); err != nil {
		return dst, err
	}
	have := int64(len([]rune(string(f.part))))
	if width > maxTextBytes {
		return dst, errTextLength
	}
	if left {
		dst = append(dst, f.part...)
	}
	for range width - have {
		dst = append(dst, ' ')
	}
	if !left {
		dst = append(dst, f.part...)
	}
	return dst, nil
}

// take returns the argument of that number, or the next one for -1.
func (f *formatter) take(arg int) (int, error) {
	if arg < 0 {
		arg = f.next
	}
	if arg >= len(f.c.args) {
		return 0, errFormatShort
	}
	f.next = arg + 1
	return arg, nil
}

// width reads the width: digits, or * for an argument.
func (f *formatter) width() (int64, error) {
	if len(f.rest) == 0 {
		return 0, errFormatEnd
	}
	if f.rest[0] != '*' {
		n, _, err := f.number()
		return n, err
	}
	f.rest = f.rest[1:]
	arg := -1
	n, ok, err := f.number()
	if err != nil {
		return 0, err
	}
	if ok {
		if f.rest[0] != '$' {
			return 0, fault.SQL(fault.Invalid, "22023", `width argument position must be ended by "$"`)
		}
		if n == 0 {
			return 0, errFormatZero
		}
		arg, f.rest = int(n), f.rest[1:]
	}
	if arg, err = f.take(arg); err != nil {
		return 0, err
	}
	if f.c.args[arg].null(f.row) {
		return 0, nil
	}
	text := string(bytesArg(f.c, arg, f.row))
	v, err := strconv.ParseInt(strings.TrimSpace(text), 10, 32)
	if err != nil {
		return 0, fault.SQL(fault.Invalid, "22P02", "invalid input syntax for type integer: %q", shorten([]byte(text)))
	}
	return v, nil
}

func (f *formatter) value(dst []byte, kind byte, arg int) ([]byte, error) {
	null := f.c.args[arg].null(f.row)
	switch {
	case kind == 'I' && null:
		return dst, errFormatNull
	case kind == 'L' && null:
		return append(dst, "NULL"...), nil
	case null:
		return dst, nil
	}
	v := bytesArg(f.c, arg, f.row)
	switch kind {
	case 'I':
		return appendIdent(dst, v), nil
	case 'L':
		return appendQuoted(dst, v), nil
	}
	return append(dst, v...), nil
}
