package dataflow

import (
	"math"
)

// degreeImpls is trigonometry in degrees, and the hyperbolic functions. The former are exact where the result is (sind(30) is 0.5),
// by the method of PostgreSQL's float.c.
var degreeImpls = map[string]impl{
	"sinh(double precision)":  pure(getFloat, setFloat, math.Sinh),
	"cosh(double precision)":  pure(getFloat, setFloat, math.Cosh),
	"tanh(double precision)":  pure(getFloat, setFloat, math.Tanh),
	"asinh(double precision)": pure(getFloat, setFloat, math.Asinh),
	"acosh(double precision)": unary(getFloat, setFloat, func(a float64) (float64, error) {
		if a < 1 {
			return 0, errInputRange
		}
		return math.Acosh(a), nil
	}),
	"atanh(double precision)": unary(getFloat, setFloat, within1(math.Atanh)),
	"cot(double precision)":   unary(getFloat, setFloat, angle(func(a float64) float64 { return 1 / math.Tan(a) })),
	"sind(double precision)":  unary(getFloat, setFloat, angle(sinDegrees)),
	"cosd(double precision)":  unary(getFloat, setFloat, angle(cosDegrees)),
	"tand(double precision)": unary(getFloat, setFloat, angle(func(a float64) float64 {
		return ratioDegrees(a, func(q float64) float64 { return sinQuadrant(q) / cosQuadrant(q) })
	})),
	"cotd(double precision)": unary(getFloat, setFloat, angle(func(a float64) float64 {
		return ratioDegrees(a, func(q float64) float64 { return cosQuadrant(q) / sinQuadrant(q) })
	})),
	"asind(double precision)": unary(getFloat, setFloat, within1(func(a float64) float64 {
		if a < 0 {
			return -asinQuadrant(-a)
		}
		return asinQuadrant(a)
	})),
	"acosd(double precision)": unary(getFloat, setFloat, within1(func(a float64) float64 {
		if a < 0 {
			return 90 + asinQuadrant(-a)
		}
		return acosQuadrant(a)
	})),
	"atand(double precision)": pure(getFloat, setFloat, func(a float64) float64 { return math.Atan(a) / math.Atan(1) * 45 }),
	"atan2d(double precision, double precision)": binaryOp(getFloat, getFloat, setFloat, func(a, b float64) (float64, error) {
		return math.Atan2(a, b) / math.Atan(1) * 45, nil
	}),
}

// Angles whose sine or cosine is computed in the same way as any other's, at run time, so that it cancels out; a compiler would take
// more digits for constants.
var degrees30, degrees60 = 30.0, 60.0

// The sine is computed from 0 to 30 degrees and the cosine from 0 to 60, each over its value at the end, and the rest of a
// quadrant from the other one.

func sinTo30(a float64) float64 {
	return math.Sin(a*radiansPerDegree) / math.Sin(degrees30*radiansPerDegree) / 2
}

func cosTo60(a float64) float64 {
	part := (1 - math.Cos(a*radiansPerDegree)) / (1 - math.Cos(degrees60*radiansPerDegree))
	return 1 - part/2
}

func sinQuadrant(a float64) float64 {
	if a <= 30 {
		return sinTo30(a)
	}
	return cosTo60(90 - a)
}

func cosQuadrant(a float64) float64 {
	if a <= 60 {
		return cosTo60(a)
	}
	return sinTo30(90 - a)
}

func asinQuadrant(a float64) float64 {
	if a <= 0.5 {
		return math.Asin(a) / math.Asin(0.5) * 30
	}
	part := math.Acos(a) / math.Acos(0.5)
	return 90 - float64(part*60)
}

func acosQuadrant(a float64) float64 {
	if a <= 0.5 {
		part := math.Asin(a) / math.Asin(0.5)
		return 90 - float64(part*30)
	}
	return math.Acos(a) / math.Acos(0.5) * 60
}

func sinDegrees(a float64) float64 {
	a, sign := math.Mod(a, 360), 1.0
	if a < 0 {
		a, sign = -a, -sign
	}
	if a > 180 {
		a, sign = 360-a, -sign
	}
	if a > 90 {
		a = 180 - a
	}
	return sign * sinQuadrant(a)
}

func cosDegrees(a float64) float64 {
	a, sign := math.Abs(math.Mod(a, 360)), 1.0
	if a > 180 {
		a = 360 - a
	}
	if a > 90 {
		a, sign = 180-a, -sign
	}
	return sign * cosQuadrant(a)
}

// ratioDegrees is tand or cotd, of which f is the value within the first quadrant.
func ratioDegrees(a float64, f func(float64) float64) float64 {
	a, sign := math.Mod(a, 360), 1.0
	if a < 0 {
		a, sign = -a, -sign
	}
	if a > 180 {
		a, sign = 360-a, -sign
	}
	if a > 90 {
		a, sign = 180-a, -sign
	}
	v := sign * (f(a) / f(45))
	if v == 0 {
		return 0 // not -0
	}
	return v
}
