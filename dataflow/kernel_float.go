package dataflow

import (
	"math"

	"github.com/millrace/millrace/internal/fault"
)

const radiansPerDegree = 0.0174532925199432957692

var (
	errComplexPower = fault.SQL(fault.Invalid, "2201F", "a negative number raised to a non-integer power yields a complex result")
	errZeroPower    = fault.SQL(fault.Invalid, "2201F", "zero raised to a negative power is undefined")
	errSqrtNegative = fault.SQL(fault.Invalid, "2201F", "cannot take square root of a negative number")
	errLogZero      = fault.SQL(fault.Invalid, "2201E", "cannot take logarithm of zero")
	errLogNegative  = fault.SQL(fault.Invalid, "2201E", "cannot take logarithm of a negative number")
	errInputRange   = fault.SQL(fault.Invalid, "22003", "input is out of range")
)

// floatImpls is arithmetic and mathematics of double precision. As in PostgreSQL, a finite calculation that gives an
// infinity or loses all digits is an error. A product is rounded before it is added to (float64(x*y)), or machines
// with a fused multiply-add would give other results than those without.
var floatImpls = map[string]impl{
	"add(double precision, double precision)": {make: func() kernel { return addFloats }},
	"sub(double precision, double precision)": {make: func() kernel { return subFloats }},
	"mul(double precision, double precision)": binaryOp(getFloat, getFloat, setFloat, mulFloat),
	"div(double precision, double precision)": binaryOp(getFloat, getFloat, setFloat, divFloat),
	"neg(double precision)":                   pure(getFloat, setFloat, func(a float64) float64 { return -a }),
	"abs(double precision)":                   pure(getFloat, setFloat, math.Abs),
	"sign(double precision)": pure(getFloat, setFloat, func(a float64) float64 {
		switch {
		case a > 0:
			return 1
		case a < 0:
			return -1
		}
		return 0
	}),
	"ceil(double precision)":  pure(getFloat, setFloat, math.Ceil),
	"floor(double precision)": pure(getFloat, setFloat, math.Floor),
	"round(double precision)": pure(getFloat, setFloat, math.RoundToEven),
	"trunc(double precision)": pure(getFloat, setFloat, math.Trunc),
	"sqrt(double precision)": unary(getFloat, setFloat, func(a float64) (float64, error) {
		if a < 0 {
			return 0, errSqrtNegative
		}
		return math.Sqrt(a), nil
	}),
	"cbrt(double precision)":                    pure(getFloat, setFloat, math.Cbrt),
	"power(double precision, double precision)": binaryOp(getFloat, getFloat, setFloat, powerFloat),
	"exp(double precision)":                     unary(getFloat, setFloat, expFloat),
	"ln(double precision)":                      unary(getFloat, setFloat, logFloat(exactLog)),
	"log10(double precision)":                   unary(getFloat, setFloat, logFloat(exactLog10)),
	"pi()":                                      shared(func(c *call) { fill(c.out.Floats, math.Pi) }),
	"sin(double precision)":                     unary(getFloat, setFloat, angle(math.Sin)),
	"cos(double precision)":                     unary(getFloat, setFloat, angle(math.Cos)),
	"tan(double precision)":                     unary(getFloat, setFloat, angle(math.Tan)),
	"asin(double precision)":                    unary(getFloat, setFloat, within1(math.Asin)),
	"acos(double precision)":                    unary(getFloat, setFloat, within1(math.Acos)),
	"atan(double precision)":                    pure(getFloat, setFloat, math.Atan),
	"atan2(double precision, double precision)": binaryOp(getFloat, getFloat, setFloat,
		func(a, b float64) (float64, error) { return math.Atan2(a, b), nil }),
	"radians(double precision)": unary(getFloat, setFloat,
		func(a float64) (float64, error) { return mulFloat(a, radiansPerDegree) }),
	"degrees(double precision)": unary(getFloat, setFloat,
		func(a float64) (float64, error) { return divFloat(a, radiansPerDegree) }),
}

func addFloats(c *call) {
	a, b, out := c.args[0], c.args[1], c.out.Floats
	x, y, am, bm := a.col.Floats, b.col.Floats, a.mask, b.mask
	special := false
	for i := range out {
		s := x[i&am] + y[i&bm]
		out[i] = s
		special = special || s-s != 0
	}
	if special {
		c.failInfinite(a, b)
	}
}

func subFloats(c *call) {
	a, b, out := c.args[0], c.args[1], c.out.Floats
	x, y, am, bm := a.col.Floats, b.col.Floats, a.mask, b.mask
	special := false
	for i := range out {
		s := x[i&am] - y[i&bm]
		out[i] = s
		special = special || s-s != 0
	}
	if special {
		c.failInfinite(a, b)
	}
}

// failInfinite fails the rows, not NULL, at which finite arguments gave an infinity.
func (c *call) failInfinite(a, b vector) {
	for i := range c.n {
		if !c.null(i) && math.IsInf(c.out.Floats[i], 0) &&
			!math.IsInf(a.col.Floats[i&a.mask], 0) && !math.IsInf(b.col.Floats[i&b.mask], 0) {
			c.fail(i, errDoubleOverflow)
		}
	}
}

func mulFloat(a, b float64) (float64, error) {
	v := a * b
	switch {
	case math.IsInf(v, 0) && !math.IsInf(a, 0) && !math.IsInf(b, 0):
		return 0, errDoubleOverflow
	case v == 0 && a != 0 && b != 0:
		return 0, errDoubleUnderflow
	}
	return v, nil
}

func divFloat(a, b float64) (float64, error) {
	if b == 0 && a == a {
		return 0, errDivisionByZero
	}
	v := a / b
	switch {
	case math.IsInf(v, 0) && !math.IsInf(a, 0):
		return 0, errDoubleOverflow
	case v == 0 && a != 0 && !math.IsInf(b, 0):
		return 0, errDoubleUnderflow
	}
	return v, nil
}

func powerFloat(a, b float64) (float64, error) {
	switch {
	case a != a:
		if b == 0 {
			return 1, nil
		}
		return a, nil
	case b != b:
		if a == 1 {
			return 1, nil
		}
		return b, nil
	case a == 0 && b < 0:
		return 0, errZeroPower
	case a < 0 && math.Floor(b) != b:
		return 0, errComplexPower
	}
	v := exactPow(a, b)
	if math.IsInf(a, 0) || math.IsInf(b, 0) {
		return v, nil
	}
	switch {
	case math.IsInf(v, 0):
		return 0, errDoubleOverflow
	case v == 0 && a != 0:
		return 0, errDoubleUnderflow
	}
	return v, nil
}

func expFloat(a float64) (float64, error) {
	v := exactExp(a)
	switch {
	case math.IsInf(a, 0) || a != a:
		return v, nil
	case math.IsInf(v, 0):
		return 0, errDoubleOverflow
	case v == 0:
		return 0, errDoubleUnderflow
	}
	return v, nil
}

func logFloat(f func(float64) float64) func(float64) (float64, error) {
	return func(a float64) (float64, error) {
		switch {
		case a == 0:
			return 0, errLogZero
		case a < 0:
			return 0, errLogNegative
		}
		return f(a), nil
	}
}

func angle(f func(float64) float64) func(float64) (float64, error) {
	return func(a float64) (float64, error) {
		if math.IsInf(a, 0) {
			return 0, errInputRange
		}
		return f(a), nil
	}
}

func within1(f func(float64) float64) func(float64) (float64, error) {
	return func(a float64) (float64, error) {
		if a < -1 || a > 1 {
			return 0, errInputRange
		}
		return f(a), nil
	}
}
