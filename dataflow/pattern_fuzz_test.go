package dataflow

import (
	"testing"

	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// FuzzPatterns gives functions that read a pattern any pattern: they don't panic, and what they write has a bound.
func FuzzPatterns(f *testing.F) {
	for _, p := range append(numberPatterns, patterns...) {
		f.Add(p, "12,454.8-", int64(-485), 148.5)
	}
	for _, p := range []string{"%s|%-10s|%3$L|%1$*2$I", `\0041\+01F600`, "a%_(b|c)[^%]#", "%99999999s", "%*s"} {
		f.Add(p, "x", int64(2147483647), -1e300)
	}
	f.Fuzz(func(t *testing.T, pattern, text string, n int64, d float64) {
		p, s := textValue(pattern), textValue(text)
		number, double := record.Value{Type: record.BigInt, Int: n}, record.Value{Type: record.Double, Float: d}
		interval := record.Value{Type: record.IntervalT, Interval: record.Interval{Months: int32(n), Days: int32(n >> 32), Micros: n}}
		for _, call := range []struct {
			name   string
			result record.Type
			args   []record.Value
		}{
			{"to_char", record.Text, []record.Value{number, p}}, {"to_char", record.Text, []record.Value{double, p}},
			{"to_char", record.Text, []record.Value{interval, p}}, {"to_number", record.Numeric, []record.Value{s, p}},
			{"format", record.Text, []record.Value{p, s, s}}, {"unistr", record.Text, []record.Value{p}},
			{"similar_to_escape", record.Text, []record.Value{p, s}}, {"quote_ident", record.Text, []record.Value{p}},
			{"regexp_instr", record.BigInt, []record.Value{s, p}},
			{"string_to_array", record.ArrayOf(record.Text), []record.Value{p, s, s}},
		} {
			e := plan.Expr{Kind: plan.ExprCall, Func: call.name, Type: call.result}
			for i := range call.args {
				e.Args = append(e.Args, plan.Expr{Kind: plan.ExprConst, Type: call.args[i].Type, Const: &call.args[i]})
			}
			if v, err := Evaluate(&e, Env{}); err == nil && len(v.Bytes) > 4*maxTextBytes {
				t.Errorf("%s%v: %d bytes", call.name, call.args, len(v.Bytes))
			}
		}
	})
}

func textValue(s string) record.Value { return record.Value{Type: record.Text, Bytes: []byte(s)} }
