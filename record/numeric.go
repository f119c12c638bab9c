package record

import (
	"bytes"
	"strings"

	"github.com/cockroachdb/apd/v3"

	"github.com/millrace/millrace/internal/fault"
)

// Bounds of a NUMERIC, in decimal digits. PostgreSQL allows 131072 before the point and 16383 after it; these are far
// beyond what anyone counts, and keep a short `1e100000` in a record from becoming 100 kB in every copy of the row.
const (
	MaxNumericDigits = 1000 // before the point
	MaxNumericScale  = 1000 // after the point
)

var numericNaN = []byte("NaN")

// errNumeric is why a decimal was refused; it becomes an error with the whole text where that is at hand.
type errNumeric uint8

const (
	numericOK errNumeric = iota
	numericSyntax
	numericRange
	numericInfinite
)

// appendDecimal appends the canonical form of the decimal number s: PostgreSQL's numeric syntax without 'NaN' and
// without white space around it. All digits are kept, trailing zeros too; an exponent is carried out.
func appendDecimal(dst, s []byte) ([]byte, errNumeric) {
	i, neg := 0, false
	if i < len(s) && (s[i] == '-' || s[i] == '+') {
		neg = s[i] == '-'
		i++
	}
	start := i
	for i < len(s) && isDigit(s[i]) {
		i++
	}
	whole, frac := s[start:i], []byte(nil)
	if i < len(s) && s[i] == '.' {
		i++
		start = i
		for i < len(s) && isDigit(s[i]) {
			i++
		}
		frac = s[start:i]
	}
	if len(whole)+len(frac) == 0 {
		return dst, numericSyntax
	}
	exp := 0
	if i < len(s) && (s[i] == 'e' || s[i] == 'E') {
		var ok bool
		if exp, ok = parseExponent(s[i+1:]); !ok {
			return dst, numericSyntax
		}
		i = len(s)
	}
	if i != len(s) {
		return dst, numericSyntax
	}
	return layOut(dst, neg, whole, frac, exp)
}

// parseExponent parses an exponent to its end. One beyond 10^8, either way, is returned as about that.
func parseExponent(s []byte) (int, bool) {
	neg := false
	if len(s) > 0 && (s[0] == '-' || s[0] == '+') {
		neg, s = s[0] == '-', s[1:]
	}
	if len(s) == 0 {
		return 0, false
	}
	e := 0
	for _, c := range s {
		if !isDigit(c) {
			return 0, false
		}
		if e < 100_000_000 {
			e = e*10 + int(c-'0')
		}
	}
	if neg {
		e = -e
	}
	return e, true
}

// layOut writes the number of digits whole and frac times 10^exp without an exponent.
func layOut(dst []byte, neg bool, whole, frac []byte, exp int) ([]byte, errNumeric) {
	scale := max(len(frac)-exp, 0) // digits to print after the point
	for len(whole) > 0 && whole[0] == '0' {
		whole = whole[1:]
	}
	if len(whole) == 0 && len(bytes.TrimLeft(frac, "0")) == 0 { // zero has no sign
		neg, whole, frac, exp = false, nil, nil, -scale
	}
	if scale > MaxNumericScale {
		return dst, numericRange
	}
	before := len(whole) + exp // digits before the point, counting leading zeros of frac
	if before > MaxNumericDigits {
		lead := len(frac) - len(bytes.TrimLeft(frac, "0"))
		if len(whole) > 0 || before-lead > MaxNumericDigits {
			return dst, numericRange
		}
	}
	if neg {
		dst = append(dst, '-')
	}
	// digit k of the number, counted from the first of whole, is whole's, then frac's, then zeros.
	digits := len(whole) + len(frac)
	at := func(k int) byte {
		switch {
		case k < 0 || k >= digits:
			return '0'
		case k < len(whole):
			return whole[k]
		}
		return frac[k-len(whole)]
	}
	first := len(dst)
	if exp == 0 {
		dst = append(dst, whole...)
	} else {
		for k := range max(before, 0) {
			if d := at(k); d != '0' || len(dst) > first {
				dst = append(dst, d)
			}
		}
	}
	if len(dst) == first {
		dst = append(dst, '0')
	}
	if scale == 0 {
		return dst, numericOK
	}
	dst = append(dst, '.')
	if exp == 0 {
		return append(dst, frac...), numericOK
	}
	for k := range scale {
		dst = append(dst, at(before+k))
	}
	return dst, numericOK
}

func isDigit(c byte) bool { return c-'0' <= 9 }

// err returns the error about the text s, nil if there is none.
func (e errNumeric) err(s string) error {
	switch e {
	case numericOK:
		return nil
	case numericRange:
		return numericOverflow(quote(s))
	case numericInfinite:
		return fault.SQL(fault.Unsupported, "0A000", "numeric infinity isn't supported: %s; use double precision", quote(s))
	}
	return syntaxError(Numeric, s)
}

func numericOverflow(what string) error {
	return fault.SQL(fault.Invalid, "22003", "value overflows numeric format: %s has more than %d digits before the point or %d after it",
		what, MaxNumericDigits, MaxNumericScale)
}

// appendNumericText appends the canonical form of s in PostgreSQL's whole input syntax of numeric.
func appendNumericText(dst []byte, s string) ([]byte, errNumeric) {
	t := trimSpace(s)
	out, e := appendDecimal(dst, []byte(t))
	if e != numericSyntax {
		return out, e
	}
	if strings.EqualFold(t, "nan") {
		return append(dst, numericNaN...), numericOK
	}
	switch u := strings.TrimLeft(strings.ToLower(t), "+-"); {
	case u == "infinity" || u == "inf":
		return dst, numericInfinite
	}
	return dst, numericSyntax
}

// ParseNumeric sets d to the number whose text is given, as a Numeric column holds it or in any form that
// PostgreSQL takes. d's exponent is the number's scale, negative: "1.10" has exponent -2.
// Errors have SQLSTATE 22P02 (syntax) and 22003 (too many digits).
func ParseNumeric(d *apd.Decimal, text []byte) error {
	// Most numbers have up to 18 digits: no big integer, no string.
	neg, i := false, 0
	if len(text) > 0 && text[0] == '-' {
		neg, i = true, 1
	}
	if n := len(text) - i; n > 0 && n <= 19 {
		var coeff int64
		scale, digits := int32(-1), 0
		for ; i < len(text); i++ {
			switch c := text[i]; {
			case isDigit(c) && digits < 18:
				coeff = coeff*10 + int64(c-'0')
				digits++
				if scale >= 0 {
					scale++
				}
				continue
			case c == '.' && scale < 0:
				scale = 0
				continue
			}
			break
		}
		if i == len(text) && digits > 0 {
			if neg {
				coeff = -coeff
			}
			d.SetFinite(coeff, -max(scale, 0))
			return nil
		}
	}
	return parseLongNumeric(d, text)
}

func parseLongNumeric(d *apd.Decimal, text []byte) error {
	canon, e := appendNumericText(make([]byte, 0, len(text)+8), string(text))
	if e != numericOK {
		return e.err(string(text))
	}
	if _, _, err := d.SetString(string(canon)); err != nil {
		return fault.Wrap(fault.Internal, err, "numeric %s", quote(string(canon)))
	}
	return nil
}

// AppendNumeric appends the canonical text of d, with as many digits after the point as its exponent says.
// A number beyond MaxNumericDigits or MaxNumericScale and an infinite one are an error with SQLSTATE 22003.
func AppendNumeric(dst []byte, d *apd.Decimal) ([]byte, error) {
	switch d.Form {
	case apd.NaN, apd.NaNSignaling:
		return append(dst, numericNaN...), nil
	case apd.Infinite:
		return dst, numericOverflow("the result")
	}
	exp := int(d.Exponent)
	if exp < -MaxNumericScale || exp > MaxNumericDigits || d.Coeff.BitLen() > (MaxNumericDigits+MaxNumericScale)*4 {
		return dst, numericOverflow("the result")
	}
	start := len(dst)
	dst = d.Coeff.Append(dst, 10)
	// The digits are moved up by as much room as the layout may need, then laid out from there.
	digits := len(dst) - start
	var buf [64]byte
	whole := append(buf[:0], dst[start:start+digits]...)
	out, e := layOut(dst[:start], d.Negative, whole, nil, exp)
	if e != numericOK {
		return dst[:start], numericOverflow("the result")
	}
	return out, nil
}

// numericParts is a canonical numeric taken apart: sign, digits before the point without leading zeros, and digits
// after it without trailing zeros. A NaN has sign 2 and compares greatest; zero has sign 0.
type numericParts struct {
	sign        int
	whole, frac []byte
}

func splitNumeric(t []byte) numericParts {
	if len(t) > 0 && t[0] == 'N' {
		return numericParts{sign: 2}
	}
	p := numericParts{sign: 1}
	if len(t) > 0 && t[0] == '-' {
		p.sign, t = -1, t[1:]
	}
	p.whole = t
	if dot := bytes.IndexByte(t, '.'); dot >= 0 {
		p.whole, p.frac = t[:dot], t[dot+1:]
		for n := len(p.frac); n > 0 && p.frac[n-1] == '0'; n-- {
			p.frac = p.frac[:n-1]
		}
	}
	for len(p.whole) > 0 && p.whole[0] == '0' {
		p.whole = p.whole[1:]
	}
	if len(p.whole) == 0 && len(p.frac) == 0 {
		p.sign = 0
	}
	return p
}

// CompareNumeric compares two canonical texts of numeric by value; NaN is equal to itself and the greatest.
func CompareNumeric(a, b []byte) int {
	x, y := splitNumeric(a), splitNumeric(b)
	if x.sign != y.sign {
		if x.sign < y.sign {
			return -1
		}
		return 1
	}
	if x.sign == 0 || x.sign == 2 {
		return 0
	}
	c := len(x.whole) - len(y.whole)
	if c == 0 {
		c = bytes.Compare(x.whole, y.whole)
	}
	if c == 0 {
		c = bytes.Compare(x.frac, y.frac) // a prefix is less: the rest of the other isn't all zeros
	}
	switch {
	case c < 0:
		return -x.sign
	case c > 0:
		return x.sign
	}
	return 0
}

// appendReducedNumeric appends the canonical text t without trailing zeros after the point, so that equal numbers
// give equal bytes.
func appendReducedNumeric(dst, t []byte) []byte {
	p := splitNumeric(t)
	switch p.sign {
	case 2:
		return append(dst, numericNaN...)
	case -1:
		dst = append(dst, '-')
	}
	if len(p.whole) == 0 {
		dst = append(dst, '0')
	}
	dst = append(dst, p.whole...)
	if len(p.frac) > 0 {
		dst = append(append(dst, '.'), p.frac...)
	}
	return dst
}
