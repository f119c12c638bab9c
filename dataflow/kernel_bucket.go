package dataflow

import (
	"math"

	"github.com/cockroachdb/apd/v3"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/record"
)

var (
	errBucketCount  = fault.SQL(fault.Invalid, "2201G", "count must be greater than zero")
	errBucketNaN    = fault.SQL(fault.Invalid, "2201G", "operand, lower bound, and upper bound cannot be NaN")
	errBucketBounds = fault.SQL(fault.Invalid, "2201G", "lower bound cannot equal upper bound")
	errBucketFinite = fault.SQL(fault.Invalid, "2201G", "lower and upper bounds must be finite")
	errIntRange     = fault.SQL(fault.Invalid, "22003", "integer out of range")
)

// bucketImpls is width_bucket: in which of count equal parts of an interval a number is.
var bucketImpls = map[string]impl{
	"width_bucket(double precision, double precision, double precision, bigint)": {make: func() kernel {
		return func(c *call) {
			arg := func(k, i int) float64 { return c.args[k].col.Floats[i&c.args[k].mask] }
			c.buckets(func(i int, count int64) (int64, error) { return bucketOfDouble(arg(0, i), arg(1, i), arg(2, i), count) })
		}
	}},
	"width_bucket(numeric, numeric, numeric, bigint)": {make: func() kernel {
		return func(c *call) {
			c.buckets(func(i int, count int64) (int64, error) {
				return bucketOfNumeric(bytesArg(c, 0, i), bytesArg(c, 1, i), bytesArg(c, 2, i), count)
			})
		}
	}},
}

// buckets fills the result with what f gives for each row.
func (c *call) buckets(f func(i int, count int64) (int64, error)) {
	for i := range c.n {
		if c.null(i) {
			continue
		}
		count := c.args[3].col.Ints[i&c.args[3].mask]
		var v int64
		var err error = errBucketCount
		switch {
		case count >= math.MaxInt32:
			err = errIntRange
		case count > 0:
			v, err = f(i, count)
		}
		if err != nil {
			c.fail(i, err)
			continue
		}
		c.out.Ints[i] = v
	}
}

func bucketOfDouble(x, lo, hi float64, count int64) (int64, error) {
	switch {
	case x != x || lo != lo || hi != hi:
		return 0, errBucketNaN
	case math.IsInf(lo, 0) || math.IsInf(hi, 0):
		return 0, errBucketFinite
	case lo == hi:
		return 0, errBucketBounds
	case lo < hi && x < lo, lo > hi && x > lo:
		return 0, nil
	case lo < hi && x >= hi, lo > hi && x <= hi:
		return count + 1, nil
	}
	part := (x - lo) / (hi - lo)
	if math.IsInf(hi-lo, 0) {
		part = (x/2 - lo/2) / (hi/2 - lo/2)
	}
	// A quotient may be rounded to 1, though x is below the end.
	return min(int64(float64(count)*part), count-1) + 1, nil
}

func bucketOfNumeric(x, lo, hi []byte, count int64) (int64, error) {
	switch {
	case isNaN(x) || isNaN(lo) || isNaN(hi):
		return 0, errBucketNaN
	}
	order := record.CompareNumeric(lo, hi)
	if order == 0 {
		return 0, errBucketBounds
	}
	if record.CompareNumeric(x, lo)*order > 0 {
		return 0, nil
	}
	if record.CompareNumeric(x, hi)*order <= 0 {
		return count + 1, nil
	}
	var a, b, c apd.Decimal
	parseDecimal(&a, x)
	parseDecimal(&b, lo)
	parseDecimal(&c, hi)
	scale := max(scaleOf(&a), scaleOf(&b), scaleOf(&c))
	for _, d := range []*apd.Decimal{&a, &b, &c} {
		rescale(d, scale)
	}
	var from, width, n apd.BigInt
	from.Sub(signed(&a), signed(&b))
	width.Sub(signed(&c), signed(&b))
	from.Mul(&from, n.SetInt64(count))
	from.Quo(&from, &width) // both have one sign
	return from.Int64() + 1, nil
}

// signed returns d's digits with its sign.
func signed(d *apd.Decimal) *apd.BigInt {
	var z apd.BigInt
	z.Set(&d.Coeff)
	if d.Negative {
		z.Neg(&z)
	}
	return &z
}
