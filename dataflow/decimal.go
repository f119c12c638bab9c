package dataflow

import (
	"cmp"
	"math"
	"strconv"

	"github.com/cockroachdb/apd/v3"

	"github.com/millrace/millrace/record"
)

// NUMERIC is decimal text. Arithmetic first tries numbers of up to 18 digits as an int64 and a scale, then goes to
// apd's decimals of any length. Results have the scale that PostgreSQL gives them (numeric.c).

const (
	minSigDigits    = 16   // NUMERIC_MIN_SIG_DIGITS
	maxDisplayScale = 1000 // NUMERIC_MAX_DISPLAY_SCALE
)

var pow10 = [...]uint64{1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19}

// parseSmall returns the number b as coef / 10^scale if it has at most 18 digits and isn't NaN or infinite.
func parseSmall(b []byte) (coef int64, scale int, ok bool) {
	neg := len(b) > 0 && b[0] == '-'
	if neg {
		b = b[1:]
	}
	if len(b) == 0 || len(b) > 19 {
		return 0, 0, false
	}
	point := -1
	for i, c := range b {
		if d := c - '0'; d <= 9 {
			coef = coef*10 + int64(d)
		} else if c == '.' && point < 0 {
			point = i
		} else {
			return 0, 0, false
		}
	}
	if point >= 0 {
		scale = len(b) - 1 - point
	} else if len(b) > 18 {
		return 0, 0, false
	}
	if neg {
		coef = -coef
	}
	return coef, scale, true
}

// appendSmall appends coef / 10^scale.
func appendSmall(dst []byte, coef int64, scale int) []byte {
	mag := uint64(coef)
	if coef < 0 {
		mag = -mag
	}
	return appendScaled(dst, 0, mag, scale, coef < 0)
}

// appendScaled appends (hi:lo) / 10^scale.
func appendScaled(dst []byte, hi, lo uint64, scale int, neg bool) []byte {
	if neg && (hi != 0 || lo != 0) {
		dst = append(dst, '-')
	}
	if hi == 0 && scale > 0 && scale <= 36 {
		return appendPointed(dst, lo, scale)
	}
	start := len(dst)
	dst = appendUint128(dst, hi, lo)
	return insertPoint(dst, start, scale)
}

// appendPointed appends v / 10^scale, for a scale of 1 to 36.
func appendPointed(dst []byte, v uint64, scale int) []byte {
	var buf [36]byte
	for i := scale - 1; i >= 0; i-- {
		buf[i] = byte('0' + v%10)
		v /= 10
	}
	dst = strconv.AppendUint(dst, v, 10)
	return append(append(dst, '.'), buf[:scale]...)
}

// insertPoint puts the decimal point into the digits dst[start:], with zeros before them as needed.
func insertPoint(dst []byte, start, scale int) []byte {
	if scale <= 0 {
		return dst
	}
	n := len(dst) - start
	for ; n <= scale; n++ {
		dst = append(dst, 0)
		copy(dst[start+1:], dst[start:])
		dst[start] = '0'
	}
	dst = append(dst, 0)
	at := len(dst) - 1 - scale
	copy(dst[at+1:], dst[at:])
	dst[at] = '.'
	return dst
}

// parseDecimal sets d to the number b, which is canonical text.
func parseDecimal(d *apd.Decimal, b []byte) {
	if coef, scale, ok := parseSmall(b); ok {
		d.SetFinite(coef, int32(-scale))
		return
	}
	if isNaN(b) {
		d.Form, d.Negative = apd.NaN, false
		return
	}
	d.Form, d.Exponent, d.Negative = apd.Finite, 0, b[0] == '-'
	if d.Negative {
		b = b[1:]
	}
	digits := make([]byte, 0, len(b))
	for i, c := range b {
		if c == '.' {
			d.Exponent = int32(-(len(b) - 1 - i))
			continue
		}
		digits = append(digits, c)
	}
	d.Coeff.SetString(string(digits), 10)
}

// isNaN tells whether the NUMERIC b is NaN.
func isNaN(b []byte) bool { return len(b) > 0 && b[0] == 'N' }

// scaleOf returns the digits behind d's point.
func scaleOf(d *apd.Decimal) int { return int(max(0, -d.Exponent)) }

// appendDecimal appends d with its own scale; it is an error if d has more digits than a NUMERIC can hold.
func appendDecimal(dst []byte, d *apd.Decimal) ([]byte, error) {
	switch d.Form {
	case apd.NaN, apd.NaNSignaling:
		return append(dst, "NaN"...), nil
	case apd.Infinite:
		return dst, errNumericRange
	}
	if d.Exponent > record.MaxNumericDigits {
		return dst, errNumericRange
	}
	if d.Exponent > 0 {
		d.Coeff.Mul(&d.Coeff, tenTo(int(d.Exponent)))
		d.Exponent = 0
	}
	if scaleOf(d) > record.MaxNumericScale {
		rescale(d, record.MaxNumericScale)
	}
	scale := scaleOf(d)
	if d.Negative && d.Coeff.Sign() != 0 {
		dst = append(dst, '-')
	}
	start := len(dst)
	dst = d.Coeff.Append(dst, 10)
	if len(dst)-start-scale > record.MaxNumericDigits {
		return dst, errNumericRange
	}
	return insertPoint(dst, start, scale), nil
}

// tenTo returns 10^n.
func tenTo(n int) *apd.BigInt {
	z := new(apd.BigInt)
	if n < 19 {
		return z.SetInt64(int64(pow10[n]))
	}
	return z.Exp(apd.NewBigInt(10), apd.NewBigInt(int64(n)), nil)
}

// rescale gives d exactly scale digits behind the point (before it, if negative), rounding half away from zero.
func rescale(d *apd.Decimal, scale int) {
	if d.Form != apd.Finite {
		return
	}
	shift := scale + int(d.Exponent)
	d.Exponent = int32(-scale)
	if shift >= 0 {
		if shift > 0 {
			d.Coeff.Mul(&d.Coeff, tenTo(shift))
		}
		return
	}
	if int64(-shift) > d.NumDigits()+1 {
		d.Coeff.SetInt64(0)
		return
	}
	divRound(&d.Coeff, &d.Coeff, tenTo(-shift))
}

// divRound sets z to |a|/|b| rounded half away from zero.
func divRound(z, a, b *apd.BigInt) {
	var q, r, x, y apd.BigInt
	x.Abs(a)
	y.Abs(b)
	q.QuoRem(&x, &y, &r)
	if r.Lsh(&r, 1).Cmp(&y) >= 0 {
		q.Add(&q, apd.NewBigInt(1))
	}
	z.Set(&q)
}

// truncateDecimal is rescale without rounding.
func truncateDecimal(d *apd.Decimal, scale int) {
	if d.Form != apd.Finite {
		return
	}
	shift := scale + int(d.Exponent)
	if shift >= 0 {
		rescale(d, scale)
		return
	}
	d.Exponent = int32(-scale)
	if int64(-shift) > d.NumDigits() {
		d.Coeff.SetInt64(0)
		return
	}
	d.Coeff.Quo(&d.Coeff, tenTo(-shift))
}

// canonicalNumeric cuts the zeros at the end of b's fraction.
func canonicalNumeric(b []byte) []byte {
	if len(b) == 0 || b[len(b)-1] != '0' && b[len(b)-1] != '.' {
		return b
	}
	for i, c := range b {
		if c != '.' {
			continue
		}
		end := len(b)
		for b[end-1] == '0' {
			end--
		}
		if end == i+1 {
			end = i
		}
		return b[:end]
	}
	return b
}

// canonicalNumerics returns c with every value in canonical form: c itself if it is so already.
func canonicalNumerics(c, scratch *record.Column) *record.Column {
	same := true
	for i := range c.N {
		v := c.At(i)
		same = same && len(canonicalNumeric(v)) == len(v)
	}
	if same {
		return c
	}
	scratch.Type = c.Type
	scratch.Reset()
	for i := range c.N {
		scratch.Bytes = append(scratch.Bytes, canonicalNumeric(c.At(i))...)
		scratch.Offsets = append(scratch.Offsets, int32(len(scratch.Bytes)))
	}
	scratch.N, scratch.Validity = c.N, c.Validity
	return scratch
}

// addNumeric appends a+b, or a-b if neg.
func addNumeric(dst, a, b []byte, neg bool) ([]byte, error) {
	if ac, as, ok := parseSmall(a); ok {
		if bc, bs, ok := parseSmall(b); ok {
			if neg {
				bc = -bc
			}
			if sum, scale, ok := addSmall(ac, as, bc, bs); ok {
				return appendSmall(dst, sum, scale), nil
			}
		}
	}
	var x, y apd.Decimal
	parseDecimal(&x, a)
	parseDecimal(&y, b)
	if neg {
		y.Negative = !y.Negative
	}
	if x.Form != apd.Finite || y.Form != apd.Finite {
		return append(dst, "NaN"...), nil
	}
	if _, err := apd.BaseContext.Add(&x, &x, &y); err != nil {
		return dst, errNumericRange
	}
	return appendDecimal(dst, &x)
}

// addSmall adds numbers of at most 18 digits.
func addSmall(a int64, as int, b int64, bs int) (sum int64, scale int, ok bool) {
	if as < bs {
		a, as, b, bs = b, bs, a, as
	}
	m, ok := mul64(b, int64(pow10[as-bs])).small()
	sum = a + m
	return sum, as, ok && (a^sum)&(m^sum) >= 0
}

// compareSmall compares a / 10^as with b / 10^bs; the scales are at most 18.
func compareSmall(a int64, as int, b int64, bs int) int {
	switch {
	case as == bs:
		return cmp.Compare(a, b)
	case as < bs:
		return mul64(a, int64(pow10[bs-as])).compare(wide(b))
	}
	return wide(a).compare(mul64(b, int64(pow10[as-bs])))
}

// mulNumeric appends a*b.
func mulNumeric(dst, a, b []byte) ([]byte, error) {
	if ac, as, ok := parseSmall(a); ok {
		if bc, bs, ok := parseSmall(b); ok {
			hi, lo, neg := mul64(ac, bc).abs()
			return appendScaled(dst, hi, lo, as+bs, neg), nil
		}
	}
	var x, y apd.Decimal
	parseDecimal(&x, a)
	parseDecimal(&y, b)
	if x.Form != apd.Finite || y.Form != apd.Finite {
		return append(dst, "NaN"...), nil
	}
	x.Coeff.Mul(&x.Coeff, &y.Coeff)
	x.Exponent += y.Exponent
	x.Negative = x.Negative != y.Negative
	return appendDecimal(dst, &x)
}

// leadingGroup returns the position of the first of the groups of four digits that PostgreSQL keeps a number in,
// counted from the point, and that group's value. digits is the number of decimal digits of the coefficient, and
// high its first ones, at least four if there are so many.
func leadingGroup(high uint64, highDigits, digits, scale int) (weight int, first uint64) {
	// The first digit stands for 10^top.
	top := digits - 1 - scale
	weight = top >> 2
	want := top - weight*4 + 1 // digits in the first group, 1 to 4
	for ; highDigits > want; highDigits-- {
		high /= 10
	}
	for ; highDigits < want; highDigits++ {
		high *= 10
	}
	return weight, high
}

// divScale is PostgreSQL's select_div_scale: at least 16 significant digits, and no fewer behind the point than
// either operand has.
func divScale(w1 int, f1 uint64, s1, w2 int, f2 uint64, s2 int) int {
	q := w1 - w2
	if f1 <= f2 {
		q--
	}
	return min(max(minSigDigits-4*q, s1, s2, 0), maxDisplayScale)
}

func digitsOf(v uint64) int {
	n := 1
	for n < len(pow10) && v >= pow10[n] {
		n++
	}
	return n
}

// groupOfSmall is leadingGroup of a number that isn't zero.
func groupOfSmall(coef int64, scale int) (int, uint64) {
	if coef == 0 {
		return 0, 0
	}
	mag := uint64(coef)
	if coef < 0 {
		mag = -mag
	}
	d := digitsOf(mag)
	return leadingGroup(mag, d, d, scale)
}

func groupOfDecimal(d *apd.Decimal) (int, uint64) {
	if d.Coeff.Sign() == 0 {
		return 0, 0
	}
	digits := int(d.NumDigits())
	var high apd.BigInt
	n := digits
	if digits > 18 {
		high.Quo(&d.Coeff, tenTo(digits-18))
		n = 18
	} else {
		high.Set(&d.Coeff)
	}
	return leadingGroup(high.Uint64(), n, digits, -int(d.Exponent))
}

// divNumeric appends a/b.
func divNumeric(dst, a, b []byte) ([]byte, error) {
	if ac, as, ok := parseSmall(a); ok {
		if bc, bs, ok := parseSmall(b); ok {
			if bc == 0 {
				return dst, errDivisionByZero
			}
			if out, ok := divSmall(dst, ac, as, bc, bs); ok {
				return out, nil
			}
		}
	}
	var x, y apd.Decimal
	parseDecimal(&x, a)
	parseDecimal(&y, b)
	if x.Form != apd.Finite || y.Form != apd.Finite {
		return append(dst, "NaN"...), nil
	}
	if y.IsZero() {
		return dst, errDivisionByZero
	}
	w1, f1 := groupOfDecimal(&x)
	w2, f2 := groupOfDecimal(&y)
	quoDecimal(&x, &x, &y, divScale(w1, f1, scaleOf(&x), w2, f2, scaleOf(&y)))
	return appendDecimal(dst, &x)
}

// quoDecimal sets z to x/y with scale digits behind the point.
func quoDecimal(z, x, y *apd.Decimal, scale int) {
	// x.Coeff*10^x.Exponent / (y.Coeff*10^y.Exponent) = z.Coeff*10^-scale
	shift := scale + int(x.Exponent) - int(y.Exponent)
	var num, den apd.BigInt
	num.Set(&x.Coeff)
	den.Set(&y.Coeff)
	if shift >= 0 {
		num.Mul(&num, tenTo(shift))
	} else {
		den.Mul(&den, tenTo(-shift))
	}
	neg := x.Negative != y.Negative
	divRound(&z.Coeff, &num, &den)
	z.Form, z.Negative, z.Exponent = apd.Finite, neg, int32(-scale)
}

// divSmall appends a/b if 128 bits are enough.
func divSmall(dst []byte, a int64, as int, b int64, bs int) ([]byte, bool) {
	w1, f1 := groupOfSmall(a, as)
	w2, f2 := groupOfSmall(b, bs)
	return divWide(dst, wide(a), as, w1, f1, b, bs, w2, f2)
}

func divWide(dst []byte, a int128, as, w1 int, f1 uint64, b int64, bs, w2 int, f2 uint64) ([]byte, bool) {
	scale := divScale(w1, f1, as, w2, f2, bs)
	hi, lo, neg := a.abs()
	den := uint64(b)
	if b < 0 {
		den, neg = -den, !neg
	}
	shift := scale - as + bs
	if shift < 0 {
		return dst, false
	}
	for shift > 0 {
		step := min(shift, 19)
		var ok bool
		if hi, lo, ok = mul128(hi, lo, pow10[step]); !ok {
			return dst, false
		}
		shift -= step
	}
	qhi, qlo, rem := div128(hi, lo, den)
	if rem >= den-rem {
		if qlo++; qlo == 0 {
			qhi++
		}
	}
	return appendScaled(dst, qhi, qlo, scale, neg), true
}

// divIntegers appends the NUMERIC quotient of the integers a and b, which isn't zero.
func divIntegers(dst []byte, a int128, b int64) ([]byte, error) {
	hi, lo, _ := a.abs()
	if hi == 0 && lo < math.MaxInt64 {
		w1, f1 := 0, uint64(0)
		if lo != 0 {
			d := digitsOf(lo)
			w1, f1 = leadingGroup(lo, d, d, 0)
		}
		w2, f2 := groupOfSmall(b, 0)
		if out, ok := divWide(dst, a, 0, w1, f1, b, 0, w2, f2); ok {
			return out, nil
		}
	}
	var x, y apd.Decimal
	setWide(&x, a, 0)
	y.SetFinite(b, 0)
	w1, f1 := groupOfDecimal(&x)
	w2, f2 := groupOfDecimal(&y)
	quoDecimal(&x, &x, &y, divScale(w1, f1, 0, w2, f2, 0))
	return appendDecimal(dst, &x)
}

// setWide sets d to a / 10^scale.
func setWide(d *apd.Decimal, a int128, scale int) {
	hi, lo, neg := a.abs()
	d.Form, d.Negative, d.Exponent = apd.Finite, neg, int32(-scale)
	d.Coeff.SetUint64(hi)
	d.Coeff.Lsh(&d.Coeff, 64)
	var low apd.BigInt
	d.Coeff.Or(&d.Coeff, low.SetUint64(lo))
}
