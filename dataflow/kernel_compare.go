package dataflow

import (
	"bytes"
	"cmp"

	"github.com/millrace/millrace/record"
)

// relation is a comparison.
type relation uint8

const (
	relEq relation = iota
	relNe
	relLt
	relLe
	relGt
	relGe
)

// holds tells for a comparison that gave -1, 0 or 1 (plus 1) whether the relation holds.
var holds = [...][3]bool{
	relEq: {false, true, false},
	relNe: {true, false, true},
	relLt: {true, false, false},
	relLe: {true, true, false},
	relGt: {false, false, true},
	relGe: {false, true, true},
}

var relationNames = [...]string{relEq: "eq", relNe: "ne", relLt: "lt", relLe: "le", relGt: "gt", relGe: "ge"}

// compareImpls is the comparisons.
var compareImpls = makeCompareImpls()

func makeCompareImpls() map[string]impl {
	m := make(map[string]impl)
	for _, t := range record.Types() {
		args := "(" + t.String() + ", " + t.String() + ")"
		for rel, name := range relationNames {
			im := shared(compareKernel(t, relation(rel)))
			im.ofInts = t == record.Numeric
			m[name+args] = im
		}
		m["distinct"+args] = shared(distinctKernel)
	}
	return m
}

// shared is a safe kernel that keeps nothing.
func shared(k kernel) impl {
	return impl{safe: true, make: func() kernel { return k }}
}

func compareKernel(t record.Type, rel relation) kernel {
	switch t {
	case record.BigInt, record.TimestampTZ, record.Timestamp, record.Date, record.Time:
		return compareInts(rel)
	case record.Double:
		return compareDoubles(rel)
	case record.Numeric:
		return compareNumerics(rel)
	case record.Text, record.Bytea, record.UUID:
		if rel == relEq || rel == relNe {
			return equalBytes(rel == relEq)
		}
	}
	want := holds[rel]
	return func(c *call) {
		a, b := c.args[0], c.args[1]
		for i := range c.out.Bools {
			if !c.null(i) {
				c.out.Bools[i] = want[compareAt(a.col, i&a.mask, b.col, i&b.mask)+1]
			}
		}
	}
}

func compareInts(rel relation) kernel {
	var loop func(out []bool, a, b []int64, am, bm int)
	switch rel {
	case relEq:
		loop = func(out []bool, a, b []int64, am, bm int) {
			for i := range out {
				out[i] = a[i&am] == b[i&bm]
			}
		}
	case relNe:
		loop = func(out []bool, a, b []int64, am, bm int) {
			for i := range out {
				out[i] = a[i&am] != b[i&bm]
			}
		}
	case relLt, relGt:
		loop = func(out []bool, a, b []int64, am, bm int) {
			for i := range out {
				out[i] = a[i&am] < b[i&bm]
			}
		}
	default:
		loop = func(out []bool, a, b []int64, am, bm int) {
			for i := range out {
				out[i] = a[i&am] <= b[i&bm]
			}
		}
	}
	turned := rel == relGt || rel == relGe
	return func(c *call) {
		a, b := c.args[0], c.args[1]
		if turned {
			a, b = b, a
		}
		loop(c.out.Bools, a.col.Ints, b.col.Ints, a.mask, b.mask)
	}
}

// lessDouble is PostgreSQL's order: NaN equals NaN and is above all else.
func lessDouble(a, b float64) bool { return a < b || b != b && a == a }

func equalDouble(a, b float64) bool { return a == b || a != a && b != b }

func compareDoubles(rel relation) kernel {
	return func(c *call) {
		a, b, out := c.args[0], c.args[1], c.out.Bools
		if rel == relGt || rel == relLe { // a > b: b < a; a <= b: not b < a
			a, b = b, a
		}
		x, y := a.col.Floats, b.col.Floats
		switch rel {
		case relEq:
			for i := range out {
				out[i] = equalDouble(x[i&a.mask], y[i&b.mask])
			}
		case relNe:
			for i := range out {
				out[i] = !equalDouble(x[i&a.mask], y[i&b.mask])
			}
		case relLt, relGt:
			for i := range out {
				out[i] = lessDouble(x[i&a.mask], y[i&b.mask])
			}
		default:
			for i := range out {
				out[i] = !lessDouble(x[i&a.mask], y[i&b.mask])
			}
		}
	}
}

func compareNumerics(rel relation) kernel {
	want := holds[rel]
	return func(c *call) {
		x, y := newSmallNumbers(c.args[0]), newSmallNumbers(c.args[1])
		for i := range c.out.Bools {
			if c.null(i) {
				continue
			}
			ac, as, ok := x.at(i)
			bc, bs, ok2 := y.at(i)
			order := 0
			if ok && ok2 {
				order = compareSmall(ac, as, bc, bs)
			} else {
				order = record.CompareNumeric(x.bytes(i), y.bytes(i))
			}
			c.out.Bools[i] = want[order+1]
		}
	}
}

func equalBytes(want bool) kernel {
	return func(c *call) {
		a, b := c.args[0], c.args[1]
		for i := range c.out.Bools {
			c.out.Bools[i] = bytes.Equal(a.col.At(i&a.mask), b.col.At(i&b.mask)) == want
		}
	}
}

// distinctKernel is IS DISTINCT FROM.
func distinctKernel(c *call) {
	a, b := c.args[0], c.args[1]
	for i := range c.out.Bools {
		an, bn := a.null(i), b.null(i)
		if an || bn {
			c.out.Bools[i] = an != bn
		} else {
			c.out.Bools[i] = compareAt(a.col, i&a.mask, b.col, i&b.mask) != 0
		}
	}
}

// compareAt compares value i of a with value j of b, columns of the same type, in PostgreSQL's order; neither is NULL.
func compareAt(a *record.Column, i int, b *record.Column, j int) int {
	switch a.Type {
	case record.Boolean:
		switch {
		case a.Bools[i] == b.Bools[j]:
			return 0
		case b.Bools[j]:
			return -1
		}
		return 1
	case record.BigInt, record.TimestampTZ, record.Timestamp, record.Date, record.Time:
		return cmp.Compare(a.Ints[i], b.Ints[j])
	case record.Double:
		return record.CompareDouble(a.Floats[i], b.Floats[j])
	case record.Numeric:
		return record.CompareNumeric(a.At(i), b.At(j))
	case record.Text, record.Bytea, record.UUID:
		return bytes.Compare(a.At(i), b.At(j))
	case record.IntervalT:
		return record.CompareInterval(a.Intervals[i], b.Intervals[j])
	}
	return record.Compare(a.Value(i), b.Value(j))
}

// extremeImpls is GREATEST and LEAST: NULLs are passed over.
var extremeImpls = makeExtremeImpls()

func makeExtremeImpls() map[string]impl {
	m := make(map[string]impl)
	for _, t := range []record.Type{
		record.BigInt, record.Double, record.Numeric, record.Text, record.TimestampTZ, record.IntervalT,
		record.Timestamp, record.Date, record.Time,
	} {
		m["greatest("+t.String()+")"] = impl{make: func() kernel { return extremeKernel(1) }}
		m["least("+t.String()+")"] = impl{make: func() kernel { return extremeKernel(-1) }}
	}
	return m
}

func extremeKernel(sign int) kernel {
	var out record.Column
	return func(c *call) {
		out.Type = c.out.Type
		out.Reset()
		for i := range c.n {
			best := -1
			for k, a := range c.args {
				if a.null(i) {
					continue
				}
				if best < 0 || sign*compareAt(a.col, i&a.mask, c.args[best].col, i&c.args[best].mask) > 0 {
					best = k
				}
			}
			if best < 0 {
				out.AppendNull()
			} else {
				out.AppendFrom(c.args[best].col, i&c.args[best].mask)
			}
		}
		// What was there is used again next time.
		c.out, out = out, c.out
	}
}
