package dataflow

import (
	"math"
	"math/big"

	"github.com/cockroachdb/apd/v3"

	"github.com/millrace/millrace/internal/fault"
)

var (
	errFactorialNegative = fault.SQL(fault.Invalid, "22003", "factorial of a negative number is undefined")
	errFieldOverflow     = fault.SQL(fault.Invalid, "22003", "numeric field overflow")
	errNumericPrecision  = fault.SQL(fault.Invalid, "22023", "NUMERIC precision must be between 1 and 1000, and its scale between -1000 and 1000")
)

// logarithmImpls is exponents and logarithms of numeric, with the scales that PostgreSQL gives them, and what else it has for numeric
// alone.
var logarithmImpls = map[string]impl{
	"exp(numeric)":                         unaryBytes(getBytes, expNumeric),
	"ln(numeric)":                          unaryBytes(getBytes, lnNumeric),
	"log10(numeric)":                       unaryBytes(getBytes, func(dst, a []byte) ([]byte, error) { return logNumeric(dst, []byte("10"), a) }),
	"log(numeric, numeric)":                binaryBytes(getBytes, getBytes, logNumeric),
	"div_trunc(numeric, numeric)":          binaryBytes(getBytes, getBytes, divTruncNumeric),
	"gcd(numeric, numeric)":                binaryBytes(getBytes, getBytes, func(dst, a, b []byte) ([]byte, error) { return divisorNumeric(dst, a, b, false) }),
	"lcm(numeric, numeric)":                binaryBytes(getBytes, getBytes, func(dst, a, b []byte) ([]byte, error) { return divisorNumeric(dst, a, b, true) }),
	"scale(numeric)":                       scaleCall(func(a []byte) []byte { return a }),
	"min_scale(numeric)":                   scaleCall(canonicalNumeric),
	"trim_scale(numeric)":                  unaryBytes(getBytes, func(dst, a []byte) ([]byte, error) { return append(dst, canonicalNumeric(a)...), nil }),
	"factorial(bigint)":                    unaryBytes(getInt, factorial),
	"numeric_fit(numeric, bigint, bigint)": ternaryBytes(getBytes, getInt, getInt, fitNumeric),
}

// scaleCall counts the digits behind the point of what of gives; NaN has none.
func scaleCall(of func(a []byte) []byte) impl {
	return shared(func(c *call) {
		for i := range c.n {
			if c.null(i) {
				continue
			}
			a := of(bytesArg(c, 0, i))
			if isNaN(a) {
				c.setNull(i)
				continue
			}
			c.out.Ints[i] = 0
			for k, b := range a {
				if b == '.' {
					c.out.Ints[i] = int64(len(a) - 1 - k)
				}
			}
		}
	})
}

// maxExponent is how far from zero an exponent makes sense: e^2303 has 1001 digits, and e^-6000 none that are kept.
const (
	maxExponent = 2303
	minExponent = -6000
)

func expNumeric(dst, a []byte) ([]byte, error) {
	if isNaN(a) {
		return append(dst, a...), nil
	}
	var x, z apd.Decimal
	parseDecimal(&x, a)
	f, _ := x.Float64()
	digits := f * math.Log10E
	scale := min(max(minSigDigits-int(max(-2000, min(digits, 2000))), scaleOf(&x), 0), maxDisplayScale)
	switch {
	case f >= maxExponent || math.IsInf(f, 1):
		return dst, errNumericRange
	case f <= minExponent || math.IsInf(f, -1):
		return appendDecimal(dst, &apd.Decimal{Exponent: int32(-scale)})
	}
	ctx := apd.BaseContext.WithPrecision(uint32(max(0, int(digits)) + scale + 10))
	ctx.Rounding = apd.RoundHalfUp
	if _, err := ctx.Exp(&z, &x); err != nil {
		return dst, errNumericRange
	}
	rescale(&z, scale)
	return appendDecimal(dst, &z)
}

// logWeight estimates the decimal weight of ln(x), by the method of PostgreSQL's estimate_ln_dweight.
func logWeight(x *apd.Decimal) int {
	var low, high apd.Decimal
	low.SetFinite(9, -1)
	high.SetFinite(11, -1)
	if x.Cmp(&low) >= 0 && x.Cmp(&high) <= 0 {
		var one, rest apd.Decimal
		one.SetInt64(1)
		if _, err := apd.BaseContext.Sub(&rest, x, &one); err != nil || rest.IsZero() {
			return 0
		}
		weight, first := groupOfDecimal(&rest)
		return weight*4 + int(math.Log10(float64(first)))
	}
	return int(math.Log10(math.Abs(log10Decimal(x) * math.Ln10)))
}

// checkLog refuses what has no logarithm.
func checkLog(x *apd.Decimal) error {
	switch {
	case x.IsZero():
		return errLogZero
	case x.Negative:
		return errLogNegative
	}
	return nil
}

// lnDecimal sets z to ln(x), exact to about digits significant ones.
func lnDecimal(z, x *apd.Decimal, digits int) error {
	ctx := apd.BaseContext.WithPrecision(uint32(digits))
	ctx.Rounding = apd.RoundHalfUp
	_, err := ctx.Ln(z, x)
	return err
}

func lnNumeric(dst, a []byte) ([]byte, error) {
	if isNaN(a) {
		return append(dst, a...), nil
	}
	var x, z apd.Decimal
	parseDecimal(&x, a)
	if err := checkLog(&x); err != nil {
		return dst, err
	}
	scale := min(max(minSigDigits-logWeight(&x), scaleOf(&x), 0), maxDisplayScale)
	if err := lnDecimal(&z, &x, scale+int(max(0, x.NumDigits()))+10); err != nil {
		return dst, errNumericRange
	}
	rescale(&z, scale)
	return appendDecimal(dst, &z)
}

// logNumeric is the logarithm of a to a base.
func logNumeric(dst, base, a []byte) ([]byte, error) {
	if isNaN(base) || isNaN(a) {
		return append(dst, "NaN"...), nil
	}
	var b, x, lb, lx apd.Decimal
	parseDecimal(&b, base)
	parseDecimal(&x, a)
	for _, d := range []*apd.Decimal{&b, &x} {
		if err := checkLog(d); err != nil {
			return dst, err
		}
	}
	scale := min(max(minSigDigits-(logWeight(&x)-logWeight(&b)), scaleOf(&b), scaleOf(&x), 0), maxDisplayScale)
	digits := scale + int(max(b.NumDigits(), x.NumDigits())) + 20
	if lnDecimal(&lb, &b, digits) != nil || lnDecimal(&lx, &x, digits) != nil {
		return dst, errNumericRange
	}
	if lb.IsZero() {
		return dst, errDivisionByZero
	}
	quoDecimal(&x, &lx, &lb, scale)
	return appendDecimal(dst, &x)
}

// divTruncNumeric is div(): the quotient without its fraction.
func divTruncNumeric(dst, a, b []byte) ([]byte, error) {
	return divided(dst, a, b, func(x, y *apd.Decimal) {
		x.Coeff.Quo(&x.Coeff, &y.Coeff)
		x.Negative, x.Exponent = x.Negative != y.Negative, 0
	})
}

// divisorNumeric is gcd, or lcm.
func divisorNumeric(dst, a, b []byte, multiple bool) ([]byte, error) {
	if isNaN(a) || isNaN(b) {
		return append(dst, "NaN"...), nil
	}
	var x, y, z apd.Decimal
	parseDecimal(&x, a)
	parseDecimal(&y, b)
	scale := max(scaleOf(&x), scaleOf(&y))
	rescale(&x, scale)
	rescale(&y, scale)
	z.Exponent = int32(-scale)
	switch {
	case multiple && (x.IsZero() || y.IsZero()):
	case x.IsZero():
		z.Coeff.Set(&y.Coeff)
	case y.IsZero():
		z.Coeff.Set(&x.Coeff)
	default:
		z.Coeff.GCD(nil, nil, &x.Coeff, &y.Coeff)
		if multiple {
			z.Coeff.Quo(&x.Coeff, &z.Coeff)
			z.Coeff.Mul(&z.Coeff, &y.Coeff)
		}
	}
	return appendDecimal(dst, &z)
}

// maxFactorial is the greatest number whose factorial is a NUMERIC, of record.MaxNumericDigits.
const maxFactorial = 449

func factorial(dst []byte, n int64) ([]byte, error) {
	switch {
	case n < 0:
		return dst, errFactorialNegative
	case n > maxFactorial:
		return dst, errNumericRange
	case n < 2:
		return append(dst, '1'), nil
	}
	var z big.Int
	z.MulRange(2, n)
	return z.Append(dst, 10), nil
}

// fitNumeric is a cast to NUMERIC(precision, scale).
func fitNumeric(dst, a []byte, precision, scale int64) ([]byte, error) {
	if precision < 1 || precision > 1000 || scale < -1000 || scale > 1000 {
		return dst, errNumericPrecision
	}
	if isNaN(a) {
		return append(dst, a...), nil
	}
	var x apd.Decimal
	parseDecimal(&x, a)
	rescale(&x, int(scale))
	if !x.IsZero() && x.NumDigits() > precision {
		return dst, errFieldOverflow
	}
	return appendDecimal(dst, &x)
}
