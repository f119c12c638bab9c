package dataflow

import (
	"bytes"
	"math"
	"slices"
	"unicode"
	"unicode/utf8"

	"github.com/millrace/millrace/internal/fault"
)

var (
	errNegativeSubstring = fault.SQL(fault.Invalid, "22011", "negative substring length not allowed")
	errFieldZero         = fault.SQL(fault.Invalid, "22023", "field position must not be zero")
	errChrNull           = fault.SQL(fault.TooLarge, "54000", "null character not permitted")
)

// textImpls is functions of text. They count characters, not bytes; a byte that is no part of a character counts as
// one. Case is Unicode's simple mapping, one character to one.
var textImpls = map[string]impl{
	"concat_op(text, text)": binaryBytes(getBytes, getBytes, func(dst, a, b []byte) ([]byte, error) {
		return append(append(dst, a...), b...), nil
	}),
	"length(text)":       pure(getBytes, setInt, func(a []byte) int64 { return int64(utf8.RuneCount(a)) }),
	"octet_length(text)": pure(getBytes, setInt, func(a []byte) int64 { return int64(len(a)) }),
	"lower(text)": unaryBytes(getBytes, func(dst, a []byte) ([]byte, error) {
		return appendMapped(dst, a, unicode.ToLower), nil
	}),
	"upper(text)": unaryBytes(getBytes, func(dst, a []byte) ([]byte, error) {
		return appendMapped(dst, a, unicode.ToUpper), nil
	}),
	"initcap(text)":               unaryBytes(getBytes, initcap),
	"reverse(text)":               unaryBytes(getBytes, reverse),
	"replace(text, text, text)":   ternaryBytes(getBytes, getBytes, getBytes, replaceText),
	"translate(text, text, text)": ternaryBytes(getBytes, getBytes, getBytes, translate),
	"strpos(text, text)": binaryOp(getBytes, getBytes, setInt, func(a, b []byte) (int64, error) {
		i := bytes.Index(a, b)
		return int64(utf8.RuneCount(a[:max(i, 0)])) + min(int64(i), 0) + 1, nil
	}),
	"starts_with(text, text)": binaryOp(getBytes, getBytes, setBool, func(a, b []byte) (bool, error) {
		return bytes.HasPrefix(a, b), nil
	}),
	"split_part(text, text, bigint)": ternaryBytes(getBytes, getBytes, getInt, splitPart),
	"ascii(text)": pure(getBytes, setInt, func(a []byte) int64 {
		if len(a) == 0 {
			return 0
		}
		r, _ := utf8.DecodeRune(a)
		return int64(r)
	}),
	"chr(bigint)": unaryBytes(getInt, func(dst []byte, a int64) ([]byte, error) {
		switch {
		case a == 0:
			return dst, errChrNull
		case a < 0:
			return dst, fault.SQL(fault.Invalid, "22023", "character number must be positive")
		case a > unicode.MaxRune || !utf8.ValidRune(rune(a)):
			return dst, fault.SQL(fault.TooLarge, "54000", "requested character not valid for encoding: %d", a)
		}
		return utf8.AppendRune(dst, rune(a)), nil
	}),
	"substr(text, bigint)": binaryBytes(getBytes, getInt, func(dst, a []byte, start int64) ([]byte, error) {
		return substr(dst, a, start, math.MaxInt64)
	}),
	"substr(text, bigint, bigint)": ternaryBytes(getBytes, getInt, getInt, substr),
	"left(text, bigint)": binaryBytes(getBytes, getInt, func(dst, a []byte, n int64) ([]byte, error) {
		if n < 0 {
			n = max(0, int64(utf8.RuneCount(a))+n)
		}
		return append(dst, a[:runeOffset(a, n)]...), nil
	}),
	"right(text, bigint)": binaryBytes(getBytes, getInt, func(dst, a []byte, n int64) ([]byte, error) {
		if n < 0 {
			n = -max(n, -math.MaxInt64)
		} else {
			n = max(0, int64(utf8.RuneCount(a))-n)
		}
		return append(dst, a[runeOffset(a, n):]...), nil
	}),
	"concat(text)":          {make: func() kernel { return eachBytes(concat) }},
	"concat_ws(text, text)": {make: func() kernel { return eachBytes(concatWS) }},
}

// appendMapped appends a with every character mapped by f.
func appendMapped(dst, a []byte, f func(rune) rune) []byte {
	for i := 0; i < len(a); {
		r, n := utf8.DecodeRune(a[i:])
		if r == utf8.RuneError && n == 1 {
			dst = append(dst, a[i])
		} else {
			dst = utf8.AppendRune(dst, f(r))
		}
		i += n
	}
	return dst
}

// runeOffset returns where the n-th character of a begins, its end if there are fewer.
func runeOffset(a []byte, n int64) int {
	if n <= 0 {
		return 0
	}
	if n >= int64(len(a)) {
		return len(a) // a character has at least one byte
	}
	at := 0
	for ; n > 0 && at < len(a); n-- {
		if a[at] < utf8.RuneSelf {
			at++
			continue
		}
		_, size := utf8.DecodeRune(a[at:])
		at += size
	}
	return at
}

func initcap(dst, a []byte) ([]byte, error) {
	inside := false
	return appendMapped(dst, a, func(r rune) rune {
		was := inside
		inside = unicode.IsLetter(r) || unicode.IsNumber(r)
		if was {
			return unicode.ToLower(r)
		}
		return unicode.ToUpper(r)
	}), nil
}

func reverse(dst, a []byte) ([]byte, error) {
	for len(a) > 0 {
		_, n := utf8.DecodeLastRune(a)
		dst = append(dst, a[len(a)-n:]...)
		a = a[:len(a)-n]
	}
	return dst, nil
}

func replaceText(dst, a, from, to []byte) ([]byte, error) {
	if len(from) == 0 {
		return append(dst, a...), nil
	}
	start := len(dst)
	for {
		i := bytes.Index(a, from)
		if i < 0 {
			return append(dst, a...), nil
		}
		dst = append(append(dst, a[:i]...), to...)
		if len(dst)-start > maxTextBytes {
			return dst, errTextLength
		}
		a = a[i+len(from):]
	}
}

// translate replaces each character of a that is in from by the one at the same place in to, or drops it.
func translate(dst, a, from, to []byte) ([]byte, error) {
	for i := 0; i < len(a); {
		_, n := utf8.DecodeRune(a[i:])
		char := a[i : i+n]
		i += n
		f, t := from, to
		found := false
		for len(f) > 0 && !found {
			_, fn := utf8.DecodeRune(f)
			_, tn := utf8.DecodeRune(t)
			if found = bytes.Equal(f[:fn], char); found {
				dst = append(dst, t[:tn]...)
			}
			f, t = f[fn:], t[tn:]
		}
		if !found {
			dst = append(dst, char...)
		}
	}
	return dst, nil
}

func splitPart(dst, a, sep []byte, n int64) ([]byte, error) {
	if n == 0 {
		return dst, errFieldZero
	}
	if len(sep) == 0 {
		if n == 1 || n == -1 {
			dst = append(dst, a...)
		}
		return dst, nil
	}
	for ; n > 1; n-- {
		i := bytes.Index(a, sep)
		if i < 0 {
			return dst, nil
		}
		a = a[i+len(sep):]
	}
	if n == 1 {
		if i := bytes.Index(a, sep); i >= 0 {
			a = a[:i]
		}
		return append(dst, a...), nil
	}
	// From the end: the fields are those that are found from the beginning, which matters when separators overlap.
	fields := int64(bytes.Count(a, sep)) + 1
	if n < -fields {
		return dst, nil
	}
	return splitPart(dst, a, sep, fields+n+1)
}

// substr appends n characters of a from the start-th (1 is the first) on; those before the first count too.
func substr(dst, a []byte, start, n int64) ([]byte, error) {
	if n < 0 {
		return dst, errNegativeSubstring
	}
	end := start + n
	if n > 0 && end < start {
		end = math.MaxInt64
	}
	start = max(start, 1)
	if end <= start {
		return dst, nil
	}
	from := runeOffset(a, start-1)
	return append(dst, a[from:from+runeOffset(a[from:], end-start)]...), nil
}

func concat(c *call, dst []byte, i int) ([]byte, error) {
	for _, a := range c.args {
		if !a.null(i) {
			dst = append(dst, a.col.At(i&a.mask)...)
		}
	}
	return dst, nil
}

func concatWS(c *call, dst []byte, i int) ([]byte, error) {
	if c.args[0].null(i) {
		c.setNull(i)
		return dst, nil
	}
	sep := c.args[0].col.At(i & c.args[0].mask)
	first := true
	for _, a := range c.args[1:] {
		if a.null(i) {
			continue
		}
		if !first {
			dst = append(dst, sep...)
		}
		dst, first = append(dst, a.col.At(i&a.mask)...), false
	}
	return dst, nil
}

// padImpls is functions that cut or fill the ends of a text.
var padImpls = map[string]impl{
	"trim(text)":        unaryBytes(getBytes, func(dst, a []byte) ([]byte, error) { return append(dst, bytes.Trim(a, " ")...), nil }),
	"ltrim(text)":       unaryBytes(getBytes, func(dst, a []byte) ([]byte, error) { return append(dst, bytes.TrimLeft(a, " ")...), nil }),
	"rtrim(text)":       unaryBytes(getBytes, func(dst, a []byte) ([]byte, error) { return append(dst, bytes.TrimRight(a, " ")...), nil }),
	"trim(text, text)":  binaryBytes(getBytes, getBytes, trimSides(true, true)),
	"ltrim(text, text)": binaryBytes(getBytes, getBytes, trimSides(true, false)),
	"rtrim(text, text)": binaryBytes(getBytes, getBytes, trimSides(false, true)),
	"lpad(text, bigint)": binaryBytes(getBytes, getInt, func(dst, a []byte, n int64) ([]byte, error) {
		return pad(dst, a, n, []byte(" "), true)
	}),
	"lpad(text, bigint, text)": ternaryBytes(getBytes, getInt, getBytes, func(dst, a []byte, n int64, with []byte) ([]byte, error) {
		return pad(dst, a, n, with, true)
	}),
	"rpad(text, bigint)": binaryBytes(getBytes, getInt, func(dst, a []byte, n int64) ([]byte, error) {
		return pad(dst, a, n, []byte(" "), false)
	}),
	"rpad(text, bigint, text)": ternaryBytes(getBytes, getInt, getBytes, func(dst, a []byte, n int64, with []byte) ([]byte, error) {
		return pad(dst, a, n, with, false)
	}),
	"repeat(text, bigint)": binaryBytes(getBytes, getInt, func(dst, a []byte, n int64) ([]byte, error) {
		if n <= 0 || len(a) == 0 {
			return dst, nil
		}
		if n > maxTextBytes/int64(len(a)) {
			return dst, errTextLength
		}
		dst = slices.Grow(dst, int(n)*len(a))
		for range n {
			dst = append(dst, a...)
		}
		return dst, nil
	}),
}

func trimSides(left, right bool) func(dst, a, set []byte) ([]byte, error) {
	return func(dst, a, set []byte) ([]byte, error) {
		in := func(char []byte) bool {
			for s := set; len(s) > 0; {
				_, n := utf8.DecodeRune(s)
				if bytes.Equal(s[:n], char) {
					return true
				}
				s = s[n:]
			}
			return false
		}
		for left && len(a) > 0 {
			_, n := utf8.DecodeRune(a)
			if !in(a[:n]) {
				break
			}
			a = a[n:]
		}
		for right && len(a) > 0 {
			_, n := utf8.DecodeLastRune(a)
			if !in(a[len(a)-n:]) {
				break
			}
			a = a[:len(a)-n]
		}
		return append(dst, a...), nil
	}
}

// pad appends a filled up to n characters, or cut to as many.
func pad(dst, a []byte, n int64, with []byte, left bool) ([]byte, error) {
	if n <= 0 {
		return dst, nil
	}
	have := int64(utf8.RuneCount(a))
	if have >= n || len(with) == 0 {
		return append(dst, a[:runeOffset(a, n)]...), nil
	}
	if n > maxTextBytes/utf8.UTFMax {
		return dst, errTextLength
	}
	if !left {
		dst = append(dst, a...)
	}
	size := int64(utf8.RuneCount(with))
	for missing := n - have; missing > 0; missing -= size {
		dst = append(dst, with[:runeOffset(with, missing)]...)
	}
	if left {
		dst = append(dst, a...)
	}
	return dst, nil
}
