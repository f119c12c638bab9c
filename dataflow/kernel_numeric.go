package dataflow

import (
	"math"

	"github.com/cockroachdb/apd/v3"

	"github.com/millrace/millrace/record"
)

// numericImpls is arithmetic and mathematics of numeric.
var numericImpls = map[string]impl{
	"add(numeric, numeric)": {make: func() kernel { return addNumerics(false) }, ofInts: true},
	"sub(numeric, numeric)": {make: func() kernel { return addNumerics(true) }, ofInts: true},
	"mul(numeric, numeric)": {make: func() kernel { return mulNumerics }, ofInts: true},
	"div(numeric, numeric)": binaryBytes(getBytes, getBytes, divNumeric),
	"mod(numeric, numeric)": binaryBytes(getBytes, getBytes, modNumeric),
	"neg(numeric)":          unaryBytes(getBytes, negNumeric),
	"abs(numeric)": unaryBytes(getBytes, func(dst, a []byte) ([]byte, error) {
		if a[0] == '-' {
			a = a[1:]
		}
		return append(dst, a...), nil
	}),
	"sign(numeric)": unaryBytes(getBytes, func(dst, a []byte) ([]byte, error) {
		switch {
		case isNaN(a):
			return append(dst, a...), nil
		case a[0] == '-':
			return append(dst, "-1"...), nil
		case isZeroNumeric(a):
			return append(dst, '0'), nil
		}
		return append(dst, '1'), nil
	}),
	"ceil(numeric)":           unaryBytes(getBytes, func(dst, a []byte) ([]byte, error) { return wholeNumeric(dst, a, false) }),
	"floor(numeric)":          unaryBytes(getBytes, func(dst, a []byte) ([]byte, error) { return wholeNumeric(dst, a, true) }),
	"round(numeric)":          unaryBytes(getBytes, func(dst, a []byte) ([]byte, error) { return roundNumeric(dst, a, 0) }),
	"round(numeric, bigint)":  binaryBytes(getBytes, getInt, roundNumeric),
	"trunc(numeric)":          unaryBytes(getBytes, func(dst, a []byte) ([]byte, error) { return truncNumeric(dst, a, 0) }),
	"trunc(numeric, bigint)":  binaryBytes(getBytes, getInt, truncNumeric),
	"sqrt(numeric)":           unaryBytes(getBytes, sqrtNumeric),
	"power(numeric, numeric)": binaryBytes(getBytes, getBytes, powerNumeric),
}

func isZeroNumeric(a []byte) bool {
	for _, c := range a {
		if c != '0' && c != '.' {
			return false
		}
	}
	return true
}

func negNumeric(dst, a []byte) ([]byte, error) {
	switch {
	case a[0] == '-':
		a = a[1:]
	case !isNaN(a) && !isZeroNumeric(a):
		dst = append(dst, '-')
	}
	return append(dst, a...), nil
}

func modNumeric(dst, a, b []byte) ([]byte, error) {
	return divided(dst, a, b, func(x, y *apd.Decimal) { x.Coeff.Rem(&x.Coeff, &y.Coeff) })
}

// divided appends what divide makes of a and b, as numbers of the same scale, in x.
func divided(dst, a, b []byte, divide func(x, y *apd.Decimal)) ([]byte, error) {
	if isNaN(a) || isNaN(b) {
		return append(dst, "NaN"...), nil
	}
	if isZeroNumeric(b) {
		return dst, errDivisionByZero
	}
	var x, y apd.Decimal
	parseDecimal(&x, a)
	parseDecimal(&y, b)
	scale := max(scaleOf(&x), scaleOf(&y))
	rescale(&x, scale)
	rescale(&y, scale)
	divide(&x, &y)
	return appendDecimal(dst, &x)
}

// wholeNumeric appends the integer next to a, below it if floor, else above it.
func wholeNumeric(dst, a []byte, floor bool) ([]byte, error) {
	if isNaN(a) {
		return append(dst, a...), nil
	}
	var x, whole apd.Decimal
	parseDecimal(&x, a)
	whole.Set(&x)
	truncateDecimal(&whole, 0)
	if whole.Cmp(&x) != 0 && x.Negative == floor {
		whole.Coeff.Add(&whole.Coeff, apd.NewBigInt(1))
	}
	return appendDecimal(dst, &whole)
}

// maxRoundDigits is how far from the point round and trunc reach; there are no digits beyond.
const maxRoundDigits = 2000

func roundNumeric(dst, a []byte, digits int64) ([]byte, error) {
	return cutNumeric(dst, a, digits, rescale)
}

func truncNumeric(dst, a []byte, digits int64) ([]byte, error) {
	return cutNumeric(dst, a, digits, truncateDecimal)
}

func cutNumeric(dst, a []byte, digits int64, cut func(*apd.Decimal, int)) ([]byte, error) {
	if isNaN(a) {
		return append(dst, a...), nil
	}
	var x apd.Decimal
	parseDecimal(&x, a)
	cut(&x, int(max(-maxRoundDigits, min(digits, record.MaxNumericScale))))
	return appendDecimal(dst, &x)
}

// sqrtNumeric has PostgreSQL's scale: at least 16 significant digits, and no fewer behind the point than a.
func sqrtNumeric(dst, a []byte) ([]byte, error) {
	if isNaN(a) {
		return append(dst, a...), nil
	}
	if a[0] == '-' {
		return dst, errSqrtNegative
	}
	var x apd.Decimal
	parseDecimal(&x, a)
	weight, _ := groupOfDecimal(&x)
	scale := min(max(minSigDigits-(weight+1)*2+1, scaleOf(&x), 0), maxDisplayScale)
	var root apd.Decimal
	sqrtDecimal(&root, &x, scale)
	return appendDecimal(dst, &root)
}

// sqrtDecimal sets root to the square root of x, which isn't negative, with scale digits behind the point.
func sqrtDecimal(root, x *apd.Decimal, scale int) {
	// The integer root of x*10^(2*(scale+1)) has one digit more than needed; that it is cut off can't round the
	// wrong way: half of an odd digit of a root that isn't exact.
	shift := 2*(scale+1) + int(x.Exponent)
	var n apd.BigInt
	n.Set(&x.Coeff)
	if shift >= 0 {
		n.Mul(&n, tenTo(shift))
	} else {
		n.Quo(&n, tenTo(-shift))
	}
	root.Coeff.Sqrt(&n)
	root.Exponent = int32(-scale - 1)
	rescale(root, scale)
}

// powerNumeric follows numeric_power and power_var of PostgreSQL's numeric.c.
func powerNumeric(dst, a, b []byte) ([]byte, error) {
	if isNaN(a) || isNaN(b) {
		if isZeroNumeric(b) || !isNaN(a) && record.CompareNumeric(a, []byte("1")) == 0 {
			return append(dst, '1'), nil
		}
		return append(dst, "NaN"...), nil
	}
	var x, y, whole apd.Decimal
	parseDecimal(&x, a)
	parseDecimal(&y, b)
	whole.Set(&y)
	truncateDecimal(&whole, 0)
	isInt := whole.Cmp(&y) == 0
	switch {
	case x.IsZero() && y.Sign() < 0:
		return dst, errZeroPower
	case x.Sign() < 0 && !isInt:
		return dst, errComplexPower
	}
	if exp, err := whole.Int64(); isInt && err == nil && int64(int32(exp)) == exp {
		return powerInt(dst, &x, exp)
	}
	return powerReal(dst, &x, &y)
}

// powerScale is the scale of a power whose decimal weight is about f.
func powerScale(f float64, a, b int) int {
	return min(max(minSigDigits-int(f), a, b, 0), maxDisplayScale)
}

// powerInt is power_var_int: 16 digits behind the point, or as many as x has.
func powerInt(dst []byte, x *apd.Decimal, exp int64) ([]byte, error) {
	f := 0.0
	if !x.IsZero() {
		f = float64(exp) * log10Decimal(x)
	}
	if f > record.MaxNumericDigits+1 {
		return dst, errNumericRange
	}
	scale := min(max(minSigDigits, scaleOf(x)), maxDisplayScale)
	if f+1 < -maxDisplayScale {
		return appendDecimal(dst, &apd.Decimal{Exponent: int32(-scale)})
	}
	var z apd.Decimal
	switch {
	case exp == 0:
		z.SetInt64(1)
	case x.IsZero():
	default:
		// Squaring at a precision that leaves room for the errors of up to 64 steps.
		ctx := apd.BaseContext.WithPrecision(uint32(max(0, int(f)) + scale + 30))
		ctx.Rounding = apd.RoundHalfUp
		n := exp
		if n < 0 {
			n = -n
		}
		z.SetInt64(1)
		var base apd.Decimal
		base.Set(x)
		for ; n > 0; n >>= 1 {
			if n&1 != 0 {
				if _, err := ctx.Mul(&z, &z, &base); err != nil {
					return dst, errNumericRange
				}
			}
			if n > 1 {
				if _, err := ctx.Mul(&base, &base, &base); err != nil {
					return dst, errNumericRange
				}
			}
		}
		if exp < 0 {
			var one apd.Decimal
			one.SetInt64(1)
			quoDecimal(&z, &one, &z, scale)
		}
	}
	rescale(&z, scale)
	return appendDecimal(dst, &z)
}

// log10Decimal returns about the decimal logarithm of |x|, which isn't zero.
func log10Decimal(x *apd.Decimal) float64 {
	digits := x.Coeff.String()
	if digits[0] == '-' {
		digits = digits[1:]
	}
	f := 0.0
	for _, c := range digits[:min(len(digits), 17)] {
		f = f*10 + float64(c-'0')
	}
	return math.Log10(f) + float64(len(digits)-min(len(digits), 17)) + float64(x.Exponent)
}

func powerReal(dst []byte, x, y *apd.Decimal) ([]byte, error) {
	if x.IsZero() {
		return appendDecimal(dst, &apd.Decimal{Exponent: -minSigDigits})
	}
	negative := false
	if x.Negative { // y is an integer beyond 32 bits
		var two, odd apd.BigInt
		two.SetInt64(2)
		var n apd.Decimal
		n.Set(y)
		truncateDecimal(&n, 0)
		negative = odd.Rem(&n.Coeff, &two).Sign() != 0
		x.Negative = false
	}
	e, _ := y.Float64()
	f := e * log10Decimal(x)
	if f > record.MaxNumericDigits+1 {
		return dst, errNumericRange
	}
	if f < -maxDisplayScale*1.01 {
		return appendDecimal(dst, &apd.Decimal{Exponent: -maxDisplayScale})
	}
	scale := powerScale(f, scaleOf(x), scaleOf(y))
	ctx := apd.BaseContext.WithPrecision(uint32(max(0, int(f)) + scale + 20))
	ctx.Rounding = apd.RoundHalfUp
	var ln, z apd.Decimal
	if _, err := ctx.Ln(&ln, x); err != nil {
		return dst, errNumericRange
	}
	if _, err := ctx.Mul(&ln, &ln, y); err != nil {
		return dst, errNumericRange
	}
	if _, err := ctx.Exp(&z, &ln); err != nil {
		return dst, errNumericRange
	}
	z.Negative = negative
	rescale(&z, scale)
	return appendDecimal(dst, &z)
}
