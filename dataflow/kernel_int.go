package dataflow

import "math"

// intImpls is arithmetic of bigint. Overflow is looked for behind the loop: most chunks have none.
var intImpls = map[string]impl{
	"add(bigint, bigint)": {make: func() kernel { return addInts }},
	"sub(bigint, bigint)": {make: func() kernel { return subInts }},
	"mul(bigint, bigint)": {make: func() kernel { return mulInts }},
	"div(bigint, bigint)": binaryOp(getInt, getInt, setInt, divInt),
	"mod(bigint, bigint)": binaryOp(getInt, getInt, setInt, modInt),
	"neg(bigint)":         unary(getInt, setInt, negInt),
	"abs(bigint)": unary(getInt, setInt, func(a int64) (int64, error) {
		if a < 0 {
			return negInt(a)
		}
		return a, nil
	}),
	"bit_and(bigint, bigint)": shared(bitInts(func(a, b int64) int64 { return a & b })),
	"bit_or(bigint, bigint)":  shared(bitInts(func(a, b int64) int64 { return a | b })),
	"bit_xor(bigint, bigint)": shared(bitInts(func(a, b int64) int64 { return a ^ b })),
	"bit_not(bigint)":         pure(getInt, setInt, func(a int64) int64 { return ^a }),
	// As the processors that PostgreSQL runs on: the count is taken modulo 64.
	"shift_left(bigint, bigint)":  shared(bitInts(func(a, b int64) int64 { return a << (b & 63) })),
	"shift_right(bigint, bigint)": shared(bitInts(func(a, b int64) int64 { return a >> (b & 63) })),
}

func bitInts(f func(a, b int64) int64) kernel {
	return func(c *call) {
		a, b := c.args[0], c.args[1]
		for i := range c.out.Ints {
			c.out.Ints[i] = f(a.col.Ints[i&a.mask], b.col.Ints[i&b.mask])
		}
	}
}

func addInts(c *call) {
	a, b, out := c.args[0], c.args[1], c.out.Ints
	x, y, am, bm := a.col.Ints, b.col.Ints, a.mask, b.mask
	over := int64(0)
	for i := range out {
		p, q := x[i&am], y[i&bm]
		s := p + q
		out[i] = s
		over |= (p ^ s) & (q ^ s)
	}
	if over < 0 {
		c.failInts(func(i int) bool { return (x[i&am]^out[i])&(y[i&bm]^out[i]) < 0 })
	}
}

func subInts(c *call) {
	a, b, out := c.args[0], c.args[1], c.out.Ints
	x, y, am, bm := a.col.Ints, b.col.Ints, a.mask, b.mask
	over := int64(0)
	for i := range out {
		p, q := x[i&am], y[i&bm]
		s := p - q
		out[i] = s
		over |= (p ^ q) & (p ^ s)
	}
	if over < 0 {
		c.failInts(func(i int) bool { return (x[i&am]^y[i&bm])&(x[i&am]^out[i]) < 0 })
	}
}

func mulInts(c *call) {
	a, b, out := c.args[0], c.args[1], c.out.Ints
	x, y, am, bm := a.col.Ints, b.col.Ints, a.mask, b.mask
	large := uint64(0)
	for i := range out {
		p, q := x[i&am], y[i&bm]
		out[i] = p * q
		large |= (uint64(p) + 1<<31) | (uint64(q) + 1<<31) // factors of 32 bits can't overflow
	}
	if large>>32 != 0 {
		c.failInts(func(i int) bool { _, ok := mul64(x[i&am], y[i&bm]).small(); return !ok })
	}
}

// failInts fails the rows, not NULL, that overflowed.
func (c *call) failInts(over func(i int) bool) {
	for i := range c.n {
		if !c.null(i) && over(i) {
			c.fail(i, errBigintRange)
		}
	}
}

func divInt(a, b int64) (int64, error) {
	if b == 0 {
		return 0, errDivisionByZero
	}
	if b == -1 {
		return negInt(a)
	}
	return a / b, nil
}

func modInt(a, b int64) (int64, error) {
	if b == 0 {
		return 0, errDivisionByZero
	}
	return a % b, nil
}

func negInt(a int64) (int64, error) {
	if a == math.MinInt64 {
		return 0, errBigintRange
	}
	return -a, nil
}
