package dataflow

import (
	"fmt"
	"sort"
	"strings"
	"testing"

	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// row is one row of a Z-set.
type row struct {
	values []record.Value
	weight int64
}

func deltaOf(s record.Schema, rows []row) *record.Delta {
	d := record.NewDelta(s, len(rows))
	d.Weights = []int64{}
	ones := true
	for _, r := range rows {
		for i, v := range r.values {
			d.Cols[i].AppendValue(v)
		}
		d.Weights = append(d.Weights, r.weight)
		ones = ones && r.weight == 1
		d.N++
	}
	if ones {
		d.Weights = nil
	}
	return d
}

func rowText(d *record.Delta, i int) string {
	var parts []string
	for c := range d.Cols {
		if d.Cols[c].Null(i) {
			parts = append(parts, "NULL")
			continue
		}
		parts = append(parts, string(record.AppendText(nil, &d.Cols[c], i)))
	}
	return strings.Join(parts, "|")
}

// zset is the sum of deltas, by the text of rows.
type zset map[string]int64

func (z zset) add(t testing.TB, d *record.Delta) {
	t.Helper()
	seen := map[string]bool{}
	for i := range d.N {
		text, w := rowText(d, i), d.Weight(i)
		if w == 0 {
			t.Fatalf("row %s has weight 0", text)
		}
		if seen[text] {
			t.Fatalf("row %s is there twice", text)
		}
		seen[text] = true
		if z[text] += w; z[text] == 0 {
			delete(z, text)
		}
	}
}

func (z zset) String() string {
	var lines []string
	for text, w := range z {
		lines = append(lines, fmt.Sprintf("%+d %s", w, text))
	}
	sort.Strings(lines)
	return strings.Join(lines, "\n")
}

func mustNew(t testing.TB, ops []plan.Op, env Env) *Fragment {
	t.Helper()
	f, err := New(ops, env)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func mustPush(t testing.TB, f *Fragment, op int, d *record.Delta) {
	t.Helper()
	if err := f.Push(op, d); err != nil {
		t.Fatal(err)
	}
}

func mustEnd(t testing.TB, f *Fragment, tick ids.Tick, watermark int64) *record.Delta {
	t.Helper()
	d, err := f.EndTick(tick, Marks{watermark, watermark})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// text returns the value of type t that s spells, NULL for "NULL".
func value(t testing.TB, typ record.Type, s string) record.Value {
	t.Helper()
	if s == "NULL" {
		return record.Value{Type: typ, Null: true}
	}
	v, err := record.ParseText(typ, s)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func scanOp(s record.Schema) plan.Op {
	columns := make([]string, len(s))
	for i := range s {
		columns[i] = s[i].Name
	}
	return plan.Op{Kind: plan.OpScan, Schema: s, Scan: &plan.Scan{Kind: plan.ScanStream, Name: "s", Columns: columns}}
}

func col(s record.Schema, i int) plan.Expr {
	return plan.Expr{Kind: plan.ExprCol, Type: s[i].Type, Col: i}
}

// aggSchema returns the output of an aggregate.
func aggSchema(in record.Schema, a *plan.Aggregate) record.Schema {
	var out record.Schema
	for i, k := range a.Keys {
		f := in[k]
		if f.Name == "" {
			f.Name = fmt.Sprint("k", i)
		}
		out = append(out, f)
	}
	for i, agg := range a.Aggs {
		if a.Phase == plan.AggPartial {
			for j, t := range agg.PartialTypes() {
				out = append(out, record.Field{Name: fmt.Sprint("p", i, "_", j), Type: t})
			}
		} else {
			out = append(out, record.Field{Name: fmt.Sprint("a", i), Type: agg.Type})
		}
	}
	if a.Phase == plan.AggPartial {
		out = append(out, record.Field{Name: "rows", Type: record.BigInt})
	}
	return out
}

func aggOp(in int, s record.Schema, a *plan.Aggregate) plan.Op {
	return plan.Op{Kind: plan.OpAggregate, Inputs: []int{in}, Schema: aggSchema(s, a), Aggregate: a}
}

func newAgg(f plan.AggFunc, arg int, t record.Type) plan.Agg {
	r, ok := f.Result(t)
	if !ok {
		panic(fmt.Sprint("no ", f, " of ", t))
	}
	if f == plan.AggCountStar {
		arg = -1
	}
	return plan.Agg{Func: f, Arg: arg, ArgType: t, Type: r}
}

// finalOf returns phase final over the output of partial p.
func finalOf(p *plan.Aggregate) *plan.Aggregate {
	f := *p
	f.Phase = plan.AggFinal
	f.Keys = nil
	for i := range p.Keys {
		f.Keys = append(f.Keys, i)
	}
	return &f
}
