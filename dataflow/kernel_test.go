package dataflow

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// TestKernelsByRow checks that every function gives for a column, with NULLs and failing rows among the others and in a
// slice of rows, what it gives for each row by itself.
func TestKernelsByRow(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 5))
	const n = 56
	for _, f := range testFunctions() {
		args := len(f.Args)
		if f.Variadic {
			args++
		}
		var schema record.Schema
		in := &record.Delta{N: n + 8}
		for i := range args {
			typ := f.Args[min(i, len(f.Args)-1)]
			pool := pools[typ]
			if s, ok := specialTexts(&f, i); ok && !(typ == record.BigInt && strings.HasPrefix(f.Name, "json_get")) && typ == specialType(f.Name, i, typ) {
				pool = append([]string{`\N`}, s...)
			}
			c := record.NewColumn(typ, n)
			for range in.N {
				v := record.Value{Type: typ, Null: true}
				if text := pool[rng.IntN(len(pool))]; text != `\N` {
					parsed, err := record.ParseText(typ, text)
					if err != nil {
						t.Fatal(err)
					}
					v = parsed
				}
				c.AppendValue(v)
			}
			in.Cols = append(in.Cols, c)
			schema = append(schema, record.Field{Type: typ})
		}
		var rows record.Delta
		sliceDelta(&rows, in, 8, in.N)
		for scalar := range args + 1 { // the argument that is a constant; the last: none
			checkByRow(t, &f, schema, &rows, scalar)
		}
	}
}

// specialType is the type of argument i for which special's texts are, where functions of one name differ in it.
func specialType(name string, i int, typ record.Type) record.Type {
	switch {
	case name == "timezone":
		return record.Text
	case name == "to_timestamp" && i == 0:
		return record.Double
	}
	return typ
}

func checkByRow(t *testing.T, f *plan.Function, schema record.Schema, rows *record.Delta, scalar int) {
	t.Helper()
	if len(rows.Cols) == 0 {
		rows.N = 3
	}
	e := plan.Expr{Kind: plan.ExprCall, Func: f.Name, Type: f.Result}
	if f.Name == "cast" {
		e.Kind = plan.ExprCast
	}
	fixed := record.Value{}
	for i := range schema {
		if i == scalar {
			fixed = rows.Cols[i].Value(0)
			e.Args = append(e.Args, plan.Expr{Kind: plan.ExprConst, Type: schema[i].Type, Const: &fixed})
			continue
		}
		e.Args = append(e.Args, col(schema, i))
	}
	errs := faults{}
	x, err := compile(&e, schema, Env{}, &errs)
	if err != nil {
		t.Fatal(err)
	}
	if x.typ() != f.Result {
		t.Fatalf("%s gives %s", f.Signature(), x.typ())
	}
	var v vector
	for range 3 { // what it keeps from one chunk to the next must not matter
		errs = faults{}
		v = x.eval(rows)
	}
	failed := int64(0)
	for i := range rows.N {
		one := e
		one.Args = nil
		for k := range schema {
			value := rows.Cols[k].Value(i)
			if k == scalar {
				value = fixed
			}
			one.Args = append(one.Args, plan.Expr{Kind: plan.ExprConst, Type: schema[k].Type, Const: &value})
		}
		want, err := Evaluate(&one, Env{})
		if err != nil {
			failed++
			want = record.Value{Type: f.Result, Null: true}
		}
		if got := v.col.Value(i & v.mask); valueText(got) != valueText(want) {
			t.Errorf("%s, constant %d, row %d: %s, by itself %s (%v)", f.Signature(), scalar, i, valueText(got), valueText(want), err)
			return
		}
		if c := v.col; c.Null(i&v.mask) && !c.Type.Varlen() {
			bare := *c
			bare.Validity = nil
			if got := bare.Value(i & v.mask); got.Int != 0 || got.Float != 0 || got.Interval != (record.Interval{}) {
				t.Errorf("%s: the slot of a NULL holds %v", f.Signature(), got)
			}
		}
	}
	if errs.counts.Errors != failed {
		t.Errorf("%s, constant %d: %d rows failed, counted %d", f.Signature(), scalar, failed, errs.counts.Errors)
	}
}

// TestEvaluate checks the errors of constants.
func TestEvaluate(t *testing.T) {
	call := plan.Expr{Kind: plan.ExprCall, Func: "div", Type: record.BigInt, Args: []plan.Expr{constant64(7), constant64(2)}}
	v, err := Evaluate(&call, Env{})
	if err != nil || v.Int != 3 {
		t.Errorf("7/2: %v, %v", v, err)
	}
	call.Args[1] = constant64(0)
	if _, err := Evaluate(&call, Env{}); err != errDivisionByZero {
		t.Errorf("7/0: %v", err)
	}
	for _, bad := range []plan.Expr{
		{Kind: plan.ExprCol, Type: record.BigInt, Col: 0},
		{Kind: plan.ExprConst, Type: record.BigInt},
		{Kind: plan.ExprCall, Type: record.BigInt, Func: "nope"},
		{Kind: plan.ExprCall, Type: record.Text, Func: "div", Args: call.Args},
		{Kind: plan.ExprCast, Type: record.JSONB, Args: call.Args[:1]},
		{Kind: plan.ExprCase, Type: record.BigInt, Args: call.Args},
		{Kind: plan.ExprAnd, Type: record.Boolean, Args: call.Args},
		{Kind: plan.ExprNot, Type: record.Boolean},
		{Kind: "what"},
	} {
		if v, err := Evaluate(&bad, Env{}); err == nil {
			t.Errorf("%v: %v", bad, v)
		}
	}
	deep := constant64(1)
	for range maxExprDepth + 2 {
		deep = plan.Expr{Kind: plan.ExprCall, Func: "neg", Type: record.BigInt, Args: []plan.Expr{deep}}
	}
	if _, err := Evaluate(&deep, Env{}); err == nil {
		t.Error("an expression of any depth")
	}
}

// TestSmallNumbers compares the short ways of numerics with the long ones.
func TestSmallNumbers(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	text := func() []byte {
		digits := 1 + rnd.IntN(20)
		b := []byte{byte('0' + rnd.IntN(10))}
		for range digits - 1 {
			b = append(b, byte('0'+rnd.IntN(10)))
		}
		if scale := rnd.IntN(digits + 1); scale > 0 && scale < digits {
			b = insertPoint(b, 0, scale)
		}
		b = []byte(strings.TrimLeft(string(b), "0"))
		if len(b) == 0 || b[0] == '.' {
			b = append([]byte{'0'}, b...)
		}
		if rnd.IntN(2) == 0 && !isZeroNumeric(b) {
			b = append([]byte{'-'}, b...)
		}
		return b
	}
	small := 0
	for range 100_000 {
		a, b := text(), text()
		if rnd.IntN(4) == 0 {
			b = append([]byte(nil), a...)
			if bytes.IndexByte(b, '.') > 0 {
				b = append(b, '0')
			}
		}
		ac, as, ok := parseSmall(a)
		bc, bs, ok2 := parseSmall(b)
		if !ok || !ok2 {
			continue
		}
		small++
		if got, want := compareSmall(ac, as, bc, bs), record.CompareNumeric(a, b); got != want {
			t.Fatalf("%s and %s compare as %d, not %d", a, b, got, want)
		}
		hi, lo, neg := mul64(ac, bc).abs()
		long := []byte{}
		if neg && (hi != 0 || lo != 0) {
			long = append(long, '-')
		}
		start := len(long)
		long = insertPoint(appendUint128(long, hi, lo), start, as+bs)
		if got := appendScaled(nil, hi, lo, as+bs, neg); !bytes.Equal(got, long) {
			t.Fatalf("%s * %s is %s, not %s", a, b, got, long)
		}
	}
	if small < 50_000 {
		t.Errorf("only %d pairs were small", small)
	}
}
