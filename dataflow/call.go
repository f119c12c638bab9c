package dataflow

import (
	"sync"

	"github.com/millrace/millrace/internal/fault"
	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// kernel computes a call for all rows at once. It finds its arguments in c.args and fills c.out, which has room for
// c.n values (a varlen one has no bytes yet). If the function is strict, c.out.Validity says at which rows an argument
// is NULL; what the kernel writes there doesn't matter, but it must not fail there.
type kernel func(c *call)

// impl makes the kernel of one call; kernels that keep something between rows get their own.
type impl struct {
	make func() kernel
	// safe tells that the kernel can't fail and is cheap.
	safe bool
	// ofInts tells that the kernel takes BIGINT in place of arguments of type NUMERIC.
	ofInts bool
}

// call is a function over arguments.
type call struct {
	exprs  []expression
	kernel kernel
	strict bool
	isSafe bool
	errs   *faults
	// fromInt: it is the cast from BIGINT to NUMERIC.
	fromInt bool

	// of one eval
	args   []vector
	out    record.Column
	n      int
	in     *record.Delta
	scalar bool
	valid  record.Bitmap
}

func newCall(f impl, t record.Type, args []expression, strict bool, errs *faults) *call {
	c := &call{exprs: args, kernel: f.make(), strict: strict, isSafe: f.safe, errs: errs}
	c.args, c.out.Type = make([]vector, len(args)), t
	for _, a := range args {
		c.isSafe = c.isSafe && a.safe()
	}
	return c
}

func (c *call) typ() record.Type { return c.out.Type }
func (c *call) safe() bool       { return c.isSafe }

func (c *call) columns(fn func(int)) {
	for _, a := range c.exprs {
		a.columns(fn)
	}
}

func (c *call) trim() {
	trim(&c.out)
	for _, a := range c.exprs {
		a.trim()
	}
}

func (c *call) eval(in *record.Delta) vector {
	c.in, c.n, c.scalar = in, in.N, true
	for i, a := range c.exprs {
		c.args[i] = a.eval(in)
		c.scalar = c.scalar && c.args[i].scalar()
	}
	mask := -1
	if c.scalar {
		c.n, mask = 1, 0
	}
	prepare(&c.out, c.n)
	if c.strict && !c.strictNulls() {
		c.allNull()
		return vector{&c.out, 0}
	}
	c.kernel(c)
	zeroNulls(&c.out)
	c.in = nil
	return vector{&c.out, mask}
}

// strictNulls sets the NULLs of a strict call; it returns false if a scalar argument is NULL, so that all are.
func (c *call) strictNulls() bool {
	for _, a := range c.args {
		if a.col.Validity == nil {
			continue
		}
		if a.scalar() {
			if a.null(0) {
				return false
			}
			continue
		}
		size := (c.n + 7) >> 3
		if c.out.Validity == nil {
			c.valid = append(c.valid[:0], a.col.Validity[:size]...)
			c.out.Validity = c.valid
			continue
		}
		for i, b := range a.col.Validity[:size] {
			c.valid[i] &= b
		}
	}
	return true
}

// allNull makes the result a scalar NULL.
func (c *call) allNull() {
	prepare(&c.out, 1)
	c.valid = append(c.valid[:0], 0)
	c.out.Validity = c.valid
	zeroNulls(&c.out)
	if c.out.Type.Varlen() {
		c.out.Offsets[1] = 0
	}
}

// null tells whether the result at row i is NULL already.
func (c *call) null(i int) bool { return c.out.Validity != nil && !c.out.Validity.Valid(i) }

// setNull makes the result at row i NULL.
func (c *call) setNull(i int) {
	if c.out.Validity == nil {
		c.valid = setBits(c.valid, c.n)
		c.out.Validity = c.valid
	}
	c.out.Validity[i>>3] &^= 1 << (i & 7)
}

// fail makes the result at row i NULL because of err.
func (c *call) fail(i int, err error) {
	c.setNull(i)
	if !c.scalar {
		c.errs.fail(err, positive(c.in, i))
		return
	}
	// Every row has this result.
	n := int64(0)
	for row := range c.in.N {
		n += positive(c.in, row)
	}
	c.errs.fail(err, n)
}

// endBytes ends value i of a varlen result whose bytes were appended to c.out.Bytes from mark on.
func (c *call) endBytes(i, mark int, b []byte, err error) {
	switch {
	case err != nil:
		c.out.Bytes = c.out.Bytes[:mark]
		c.fail(i, err)
	case len(b) > maxResultBytes:
		c.out.Bytes = b[:mark]
		c.fail(i, errChunkBytes)
	default:
		c.out.Bytes = b
	}
	c.out.Offsets[i+1] = int32(len(c.out.Bytes))
}

const (
	maxResultBytes = 1 << 30  // of all values that one call gives for a chunk of rows
	maxTextBytes   = 16 << 20 // of one text that repeat, lpad and the like make
)

// The functions below make kernels from functions of one row. T is one of the types that values of a column have.

func getBool(c *record.Column, i int) bool                { return c.Bools[i] }
func getInt(c *record.Column, i int) int64                { return c.Ints[i] }
func getFloat(c *record.Column, i int) float64            { return c.Floats[i] }
func getInterval(c *record.Column, i int) record.Interval { return c.Intervals[i] }
func getBytes(c *record.Column, i int) []byte             { return c.At(i) }

func setBool(c *record.Column, i int, v bool)                { c.Bools[i] = v }
func setInt(c *record.Column, i int, v int64)                { c.Ints[i] = v }
func setFloat(c *record.Column, i int, v float64)            { c.Floats[i] = v }
func setInterval(c *record.Column, i int, v record.Interval) { c.Intervals[i] = v }

type getter[T any] func(*record.Column, int) T
type setter[T any] func(*record.Column, int, T)

// unary is a function of one argument with a result of fixed width.
func unary[A, R any](get getter[A], set setter[R], f func(A) (R, error)) impl {
	return impl{make: func() kernel { return unaryKernel(get, set, f) }}
}

// pure is unary for functions that can't fail.
func pure[A, R any](get getter[A], set setter[R], f func(A) R) impl {
	k := unaryKernel(get, set, func(a A) (R, error) { return f(a), nil })
	return impl{make: func() kernel { return k }, safe: true}
}

func unaryKernel[A, R any](get getter[A], set setter[R], f func(A) (R, error)) kernel {
	return func(c *call) {
		a := c.args[0]
		for i := range c.n {
			if c.null(i) {
				continue
			}
			if v, err := f(get(a.col, i&a.mask)); err != nil {
				c.fail(i, err)
			} else {
				set(&c.out, i, v)
			}
		}
	}
}

func binaryOp[A, B, R any](ga getter[A], gb getter[B], set setter[R], f func(A, B) (R, error)) impl {
	return impl{make: func() kernel { return binaryKernel(ga, gb, set, f) }}
}

func binaryKernel[A, B, R any](ga getter[A], gb getter[B], set setter[R], f func(A, B) (R, error)) kernel {
	return func(c *call) {
		a, b := c.args[0], c.args[1]
		for i := range c.n {
			if c.null(i) {
				continue
			}
			if v, err := f(ga(a.col, i&a.mask), gb(b.col, i&b.mask)); err != nil {
				c.fail(i, err)
			} else {
				set(&c.out, i, v)
			}
		}
	}
}

func ternary[A, B, C, R any](ga getter[A], gb getter[B], gc getter[C], set setter[R], f func(A, B, C) (R, error)) impl {
	k := func(c *call) {
		a, b, d := c.args[0], c.args[1], c.args[2]
		for i := range c.n {
			if c.null(i) {
				continue
			}
			if v, err := f(ga(a.col, i&a.mask), gb(b.col, i&b.mask), gc(d.col, i&d.mask)); err != nil {
				c.fail(i, err)
			} else {
				set(&c.out, i, v)
			}
		}
	}
	return impl{make: func() kernel { return k }}
}

// eachBytes makes the kernel of a varlen result from a function that appends row i's to dst.
func eachBytes(f func(c *call, dst []byte, i int) ([]byte, error)) kernel {
	return func(c *call) {
		for i := range c.n {
			if c.null(i) {
				c.out.Offsets[i+1] = int32(len(c.out.Bytes))
				continue
			}
			mark := len(c.out.Bytes)
			b, err := f(c, c.out.Bytes, i)
			c.endBytes(i, mark, b, err)
		}
	}
}

func unaryBytes[A any](get getter[A], f func(dst []byte, a A) ([]byte, error)) impl {
	k := eachBytes(func(c *call, dst []byte, i int) ([]byte, error) {
		a := c.args[0]
		return f(dst, get(a.col, i&a.mask))
	})
	return impl{make: func() kernel { return k }}
}

func binaryBytes[A, B any](ga getter[A], gb getter[B], f func(dst []byte, a A, b B) ([]byte, error)) impl {
	k := eachBytes(func(c *call, dst []byte, i int) ([]byte, error) {
		a, b := c.args[0], c.args[1]
		return f(dst, ga(a.col, i&a.mask), gb(b.col, i&b.mask))
	})
	return impl{make: func() kernel { return k }}
}

func ternaryBytes[A, B, C any](
	ga getter[A], gb getter[B], gc getter[C], f func(dst []byte, a A, b B, c C) ([]byte, error),
) impl {
	k := eachBytes(func(c *call, dst []byte, i int) ([]byte, error) {
		a, b, d := c.args[0], c.args[1], c.args[2]
		return f(dst, ga(a.col, i&a.mask), gb(b.col, i&b.mask), gc(d.col, i&d.mask))
	})
	return impl{make: func() kernel { return k }}
}

// resolve finds the function called name over args, and its implementation.
func resolve(name string, args []expression) (*plan.Function, impl, error) {
	all := functionsByName()
	for i := range all[name] {
		f := &all[name][i]
		if !accepts(f, args) {
			continue
		}
		if im, ok := implementation(f.Signature()); ok {
			return f, im, nil
		}
	}
	var types []record.Type
	for _, a := range args {
		types = append(types, a.typ())
	}
	f := plan.Function{Name: name, Args: types}
	return nil, impl{}, fault.SQL(fault.Unsupported, "42883", "function %s does not exist", f.Signature())
}

func accepts(f *plan.Function, args []expression) bool {
	if len(args) != len(f.Args) && !(f.Variadic && len(args) > len(f.Args)) {
		return false
	}
	for i, a := range args {
		if a.typ() != f.Args[min(i, len(f.Args)-1)] {
			return false
		}
	}
	return true
}

// functionsByName returns the table of functions by name.
var functionsByName = sync.OnceValue(func() map[string][]plan.Function {
	m := make(map[string][]plan.Function)
	for _, f := range plan.Functions() {
		m[f.Name] = append(m[f.Name], f)
	}
	return m
})

// implementation returns the implementation of a signature.
func implementation(signature string) (impl, bool) {
	for _, table := range implementations {
		if f, ok := table[signature]; ok {
			return f, true
		}
	}
	return impl{}, false
}

// implementations has the tables of all files, so that each stands next to its functions.
var implementations = []map[string]impl{
	compareImpls, intImpls, floatImpls, numericImpls, extremeImpls,
	textImpls, padImpls, likeImpls, bytesImpls, timeImpls, fieldImpls, formatImpls, jsonImpls, jsonEditImpls, divisorImpls,
	dateImpls, zoneImpls, parseTimeImpls, arrayImpls, regexpImpls, hashImpls, jsonPathImpls,
	degreeImpls, bucketImpls, logarithmImpls, bitsImpls, quoteImpls, unicodeImpls, regexpFromImpls, jsonBuildImpls, overlapsImpls,
	numberCharImpls, formatIntervalImpls,
}
