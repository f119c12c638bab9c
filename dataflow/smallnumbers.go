package dataflow

import (
	"math"
	"strconv"

	"github.com/millrace/millrace/record"
)

// smallNumbers reads the NUMERICs of an argument as parseSmall does, that of a scalar but once. The argument may be BIGINTs
// instead: see numbersOfInts.
type smallNumbers struct {
	of    vector
	ints  bool
	coef  int64
	scale int
	ok    bool
	text  []byte
}

func newSmallNumbers(v vector) smallNumbers {
	n := smallNumbers{of: v, ints: v.col.Type == record.BigInt}
	if v.scalar() && !v.null(0) {
		n.coef, n.scale, n.ok = n.read(0)
	}
	return n
}

func (n *smallNumbers) read(i int) (coef int64, scale int, ok bool) {
	if n.ints {
		return n.of.col.Ints[i], 0, true
	}
	return parseSmall(n.of.col.At(i))
}

func (n *smallNumbers) at(i int) (coef int64, scale int, ok bool) {
	if n.of.scalar() {
		return n.coef, n.scale, n.ok
	}
	return n.read(i)
}

// bytes returns row i's number as NUMERIC; it is valid until the next call.
func (n *smallNumbers) bytes(i int) []byte {
	if n.ints {
		n.text = strconv.AppendInt(n.text[:0], n.of.col.Ints[i&n.of.mask], 10)
		return n.text
	}
	return n.of.col.At(i & n.of.mask)
}

// numbersOfInts replaces arguments that are casts from BIGINT to NUMERIC by what they cast: the kernel reads its arguments
// as smallNumbers, and needs no text of them.
func numbersOfInts(args []expression) {
	for i, a := range args {
		if c, ok := a.(*call); ok && c.fromInt {
			args[i] = c.exprs[0]
		}
	}
}

// addNumerics is a+b, or a-b if neg.
func addNumerics(neg bool) kernel {
	return func(c *call) {
		x, y := newSmallNumbers(c.args[0]), newSmallNumbers(c.args[1])
		for i := range c.n {
			if c.null(i) {
				c.out.Offsets[i+1] = int32(len(c.out.Bytes))
				continue
			}
			mark := len(c.out.Bytes)
			if ac, as, ok := x.at(i); ok {
				if bc, bs, ok := y.at(i); ok && bc != math.MinInt64 {
					if neg {
						bc = -bc
					}
					if sum, scale, ok := addSmall(ac, as, bc, bs); ok {
						c.endBytes(i, mark, appendSmall(c.out.Bytes, sum, scale), nil)
						continue
					}
				}
			}
			b, err := addNumeric(c.out.Bytes, x.bytes(i), y.bytes(i), neg)
			c.endBytes(i, mark, b, err)
		}
	}
}

// mulNumerics is a*b.
func mulNumerics(c *call) {
	x, y := newSmallNumbers(c.args[0]), newSmallNumbers(c.args[1])
	for i := range c.n {
		if c.null(i) {
			c.out.Offsets[i+1] = int32(len(c.out.Bytes))
			continue
		}
		mark := len(c.out.Bytes)
		if ac, as, ok := x.at(i); ok {
			if bc, bs, ok := y.at(i); ok {
				hi, lo, neg := mul64(ac, bc).abs()
				c.endBytes(i, mark, appendScaled(c.out.Bytes, hi, lo, as+bs, neg), nil)
				continue
			}
		}
		b, err := mulNumeric(c.out.Bytes, x.bytes(i), y.bytes(i))
		c.endBytes(i, mark, b, err)
	}
}
