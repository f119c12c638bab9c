package dataflow

import (
	"strconv"
	"testing"

	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// TestNumbersOfInts checks that calls of numeric which read bigints without their cast give what they give for its text.
func TestNumbersOfInts(t *testing.T) {
	ints := []string{`\N`, "0", "1", "-1", "999999999999999999", "1000000000000000000", "-9223372036854775808", "9223372036854775807", "908"}
	decimals := []string{`\N`, "NaN", "0", "0.000", "-0.908", "0.908", "1.5", "999999999999999999", "-9223372036854775808", "123456789012345678901234567890.25"}
	schema := record.Schema{{Name: "i", Type: record.BigInt}, {Name: "n", Type: record.Numeric}, {Name: "text", Type: record.Numeric}}
	rows := record.NewDelta(schema, 0)
	add := func(c int, text string) {
		v := record.Value{Type: schema[c].Type, Null: text == `\N`}
		if !v.Null {
			var err error
			if v, err = record.ParseText(schema[c].Type, text); err != nil {
				t.Fatal(err)
			}
		}
		rows.Cols[c].AppendValue(v)
	}
	for _, i := range ints {
		for _, n := range decimals {
			add(0, i)
			add(1, n)
			add(2, i)
			rows.N++
		}
	}
	cast := plan.Expr{Kind: plan.ExprCast, Type: record.Numeric, Args: []plan.Expr{col(schema, 0)}}
	results := map[string]record.Type{"add": record.Numeric, "sub": record.Numeric, "mul": record.Numeric}
	for _, rel := range relationNames {
		results[rel] = record.Boolean
	}
	for name, typ := range results {
		for at, args := range [][2][]plan.Expr{
			{{cast, col(schema, 1)}, {col(schema, 2), col(schema, 1)}},
			{{col(schema, 1), cast}, {col(schema, 1), col(schema, 2)}},
			{{cast, cast}, {col(schema, 2), col(schema, 2)}},
		} {
			var got [2]record.Column
			for k := range args {
				e := plan.Expr{Kind: plan.ExprCall, Func: name, Type: typ, Args: args[k]}
				errs := faults{mode: AdHoc}
				x, err := compile(&e, schema, Env{}, &errs)
				if err != nil {
					t.Fatal(err)
				}
				if c := x.(*call); k == 0 && c.exprs[0].typ() != record.BigInt && c.exprs[1].typ() != record.BigInt {
					t.Fatalf("%s reads no bigint", name)
				}
				got[k] = *x.eval(rows).col
				if errs.err != nil {
					t.Fatal(errs.err)
				}
			}
			for i := range rows.N {
				if a, b := valueText(got[0].Value(i)), valueText(got[1].Value(i)); a != b {
					t.Errorf("%s, arguments %d, row %s: %s of bigint, %s of numeric", name, at, strconv.Itoa(i), a, b)
				}
			}
		}
	}
}
