package dataflow

import (
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"github.com/millrace/millrace/internal/fault"
)

// unicodeImpls is Unicode's normal forms and escapes, the patterns of SIMILAR TO, and a cast to VARCHAR(n).
var unicodeImpls = map[string]impl{
	"unistr(text)": unaryBytes(getBytes, unistr),
	"normalize(text, text)": binaryBytes(getBytes, getBytes, func(dst, a, form []byte) ([]byte, error) {
		f, err := normalForm(form)
		if err != nil {
			return dst, err
		}
		return f.Append(dst, a...), nil
	}),
	"is_normalized(text, text)": binaryOp(getBytes, getBytes, setBool, func(a, form []byte) (bool, error) {
		f, err := normalForm(form)
		return err == nil && f.IsNormal(a), err
	}),
	"similar_to_escape(text)": unaryBytes(getBytes, func(dst, p []byte) ([]byte, error) { return similarPattern(dst, p, []byte{'\\'}) }),
	"similar_to_escape(text, text)": binaryBytes(getBytes, getBytes, func(dst, p, escape []byte) ([]byte, error) {
		if utf8.RuneCount(escape) > 1 {
			return dst, errSimilarEscape
		}
		return similarPattern(dst, p, escape)
	}),
	"text_fit(text, bigint)": binaryBytes(getBytes, getInt, func(dst, a []byte, n int64) ([]byte, error) {
		return append(dst, a[:runeOffset(a, n)]...), nil
	}),
}

var (
	errNormalForm    = fault.SQL(fault.Invalid, "22023", "invalid normalization form; use NFC, NFD, NFKC or NFKD")
	errSimilarEscape = fault.SQL(fault.Invalid, "22025", "invalid escape string; it must be empty or one character")
	errSimilarParts  = fault.SQL(fault.Unsupported, "0A000", "SUBSTRING with SIMILAR and escape-double-quote separators is not supported; use regexp_match")
	errUnicodeEscape = fault.SQL(fault.Invalid, "42601", `invalid Unicode escape; escapes must be \XXXX, \+XXXXXX, \uXXXX, or \UXXXXXXXX`)
	errSurrogates    = fault.SQL(fault.Invalid, "42601", "invalid Unicode surrogate pair")
	errCodePoint     = fault.SQL(fault.Invalid, "22023", "invalid Unicode code point")
)

func normalForm(name []byte) (norm.Form, error) {
	switch strings.ToUpper(string(name)) {
	case "NFC":
		return norm.NFC, nil
	case "NFD":
		return norm.NFD, nil
	case "NFKC":
		return norm.NFKC, nil
	case "NFKD":
		return norm.NFKD, nil
	}
	return 0, errNormalForm
}

// unistr replaces \XXXX, \+XXXXXX, \uXXXX and \UXXXXXXXX by the characters that they mean.
func unistr(dst, a []byte) ([]byte, error) {
	first := rune(0) // of two that make one character
	for len(a) > 0 {
		if a[0] != '\\' || len(a) > 1 && a[1] == '\\' {
			if first != 0 {
				return dst, errSurrogates
			}
			dst = append(dst, a[0])
			a = a[1+b2i(a[0] == '\\'):]
			continue
		}
		skip, digits := 1, 4
		switch {
		case len(a) > 1 && a[1] == '+':
			skip, digits = 2, 6
		case len(a) > 1 && a[1] == 'u':
			skip = 2
		case len(a) > 1 && a[1] == 'U':
			skip, digits = 2, 8
		}
		if len(a) < skip+digits {
			return dst, errUnicodeEscape
		}
		n, err := strconv.ParseUint(string(a[skip:skip+digits]), 16, 32)
		if err != nil {
			return dst, errUnicodeEscape
		}
		a = a[skip+digits:]
		if n == 0 || n > utf8.MaxRune {
			return dst, errCodePoint
		}
		r := rune(n)
		switch high, low := r >= 0xD800 && r < 0xDC00, r >= 0xDC00 && r < 0xE000; {
		case first != 0 && !low, first == 0 && low:
			return dst, errSurrogates
		case high:
			first = r
			continue
		case low:
			r, first = (first-0xD800)<<10|(r-0xDC00)+0x10000, 0
		}
		dst = utf8.AppendRune(dst, r)
	}
	if first != 0 {
		return dst, errSurrogates
	}
	return dst, nil
}

// similarPattern writes a pattern of SIMILAR TO as a regular expression, as PostgreSQL's similar_escape_internal does.
func similarPattern(dst, p, escape []byte) ([]byte, error) {
	dst = append(dst, "^(?:"...)
	escaped, class := false, false
	for len(p) > 0 {
		n := charSize(p)
		char, c := p[:n], p[0]
		p = p[n:]
		switch {
		case escaped && c == '"' && !class:
			return dst, errSimilarParts
		case escaped:
			dst, escaped = append(append(dst, '\\'), char...), false
		case len(escape) > 0 && string(char) == string(escape):
			escaped = true
		case class:
			if c == '\\' {
				dst = append(dst, '\\')
			}
			dst = append(dst, char...)
			class = c != ']'
		case c == '[':
			dst, class = append(dst, c), true
		case c == '%':
			dst = append(dst, ".*"...)
		case c == '_':
			dst = append(dst, '.')
		case c == '(':
			dst = append(dst, "(?:"...)
		case c == '\\', c == '.', c == '^', c == '$':
			dst = append(dst, '\\', c)
		default:
			dst = append(dst, char...)
		}
	}
	return append(dst, ")$"...), nil
}
