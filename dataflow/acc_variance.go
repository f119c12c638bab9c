package dataflow

import (
	"github.com/cockroachdb/apd/v3"

	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// variance is variance and standard deviation of bigint and numeric: the exact sums of the values and of their squares.
// It stores what these store.
type variance struct {
	arg     int
	ints    *intSum     // of bigints, else nil
	sums    *numericSum // of numerics, else nil
	values  accumulator // the one of the two
	squares *numericSum
	scratch record.Delta
	buf     []byte
}

func newVariance(a *plan.Agg, appendOnly bool) *variance {
	v := &variance{arg: a.Arg, squares: &numericSum{appendOnly: appendOnly}}
	v.scratch.Cols = []record.Column{record.NewColumn(record.Numeric, 0)}
	if a.ArgType == record.BigInt {
		v.ints = &intSum{arg: a.Arg}
		v.values = v.ints
	} else {
		v.sums = &numericSum{arg: a.Arg, appendOnly: appendOnly}
		v.values = v.sums
	}
	return v
}

func (v *variance) grow(n int)       { v.values.grow(n); v.squares.grow(n) }
func (v *variance) reset()           { v.values.reset(); v.squares.reset() }
func (v *variance) clear(s int)      { v.values.clear(s); v.squares.clear(s) }
func (v *variance) empty(s int) bool { return v.values.empty(s) && v.squares.empty(s) }
func (v *variance) add(dst, src int) { v.values.add(dst, src); v.squares.add(dst, src) }

func (v *variance) update(slots []int32, in *record.Delta) error {
	c, sq := &in.Cols[v.arg], &v.scratch.Cols[0]
	sq.Reset()
	for i := range in.N {
		switch {
		case c.Null(i):
			sq.AppendNull()
		case v.ints != nil:
			hi, lo, _ := mul64(c.Ints[i], c.Ints[i]).abs()
			v.buf = appendScaled(v.buf[:0], hi, lo, 0, false)
			sq.AppendBytes(v.buf)
		default:
			sq.AppendBytes(v.square(c.At(i)))
		}
	}
	v.scratch.N, v.scratch.Weights = in.N, in.Weights
	if err := v.values.update(slots, in); err != nil {
		return err
	}
	return v.squares.update(slots, &v.scratch)
}

// square returns the square of a number, which may be longer than a NUMERIC can be.
func (v *variance) square(b []byte) []byte {
	var d apd.Decimal
	parseDecimal(&d, b)
	if d.Form == apd.NaN {
		return b
	}
	p := numericPart{scale: 2*int32(scaleOf(&d)) + scaleZero, big: new(apd.BigInt).Mul(&d.Coeff, &d.Coeff)}
	v.buf, _ = p.text(v.buf[:0]) // a part's text has no bound
	return v.buf
}

func (v *variance) width() int {
	if v.ints != nil {
		return 3
	}
	return 2
}

func (v *variance) merge(slots []int32, in *record.Delta, at int) error {
	if err := v.values.merge(slots, in, at); err != nil {
		return err
	}
	return v.squares.merge(slots, in, at+v.width())
}

func (v *variance) partial(s, round int, out []record.Column) bool {
	a := v.values.partial(s, round, out[:v.width()])
	b := v.squares.partial(s, round, out[v.width():])
	return a || b
}

func (v *variance) load(s int, src []byte) (rest []byte, ok bool) {
	if rest, ok = v.values.load(s, src); !ok {
		return nil, false
	}
	return v.squares.load(s, rest)
}

func (v *variance) store(dst []byte, s int) []byte {
	return v.squares.store(v.values.store(dst, s), s)
}

// result follows numeric_stddev_internal of PostgreSQL's numeric.c.
func (v *variance) result(f plan.AggFunc, s int, out *record.Column) error {
	var x, xx, by apd.Decimal
	squares, n := v.squares.total(s)
	sample := f == plan.AggVarSamp || f == plan.AggStddevSamp
	if n <= 0 || sample && n == 1 {
		out.AppendNull()
		return nil
	}
	if squares.scale == scaleNaN {
		out.AppendString("NaN")
		return nil
	}
	if v.ints != nil {
		setWide(&x, v.ints.sums[s], 0)
	} else {
		all, _ := v.sums.total(s)
		if all.scale == scaleNone {
			all.scale = scaleZero
		}
		all.decimal(&x)
	}
	if squares.scale == scaleNone {
		squares.scale = scaleZero
	}
	squares.decimal(&xx)
	scale := 2 * scaleOf(&x)
	// n*xx - x*x, with scale digits
	rescale(&xx, scale)
	var num, part apd.BigInt
	num.Mul(&xx.Coeff, apd.NewBigInt(n))
	num.Sub(&num, part.Mul(&x.Coeff, &x.Coeff))
	if num.Sign() <= 0 {
		out.AppendString("0")
		return nil
	}
	x = apd.Decimal{Exponent: int32(-scale)}
	x.Coeff.Set(&num)
	by.Coeff.Mul(apd.NewBigInt(n), apd.NewBigInt(n))
	if sample {
		by.Coeff.Mul(apd.NewBigInt(n), apd.NewBigInt(n-1))
	}
	w1, f1 := groupOfDecimal(&x)
	w2, f2 := groupOfDecimal(&by)
	digits := divScale(w1, f1, scale, w2, f2, 0)
	var z apd.Decimal
	quoDecimal(&z, &x, &by, digits)
	if f == plan.AggStddevPop || f == plan.AggStddevSamp {
		var root apd.Decimal
		sqrtDecimal(&root, &z, digits)
		z = root
	}
	return appendVarlen(out, func(dst []byte) ([]byte, error) { return appendDecimal(dst, &z) })
}
