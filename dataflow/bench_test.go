package dataflow

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

const benchRows = 1 << 16

// benchInput is rows (k bigint, name text, v bigint, f double precision, n numeric, at timestamptz) over `keys` keys.
func benchInput(keys int) (record.Schema, []*record.Delta) {
	s := record.Schema{{Name: "k", Type: record.BigInt}, {Name: "name", Type: record.Text}, {Name: "v", Type: record.BigInt},
		{Name: "f", Type: record.Double}, {Name: "n", Type: record.Numeric}, {Name: "at", Type: record.TimestampTZ}}
	rng := rand.New(rand.NewPCG(1, 2))
	var out []*record.Delta
	for range max(1, keys/benchRows) {
		d := record.NewDelta(s, benchRows)
		for i := range benchRows {
			k := rng.Int64N(int64(keys))
			d.Cols[0].AppendInt(k)
			d.Cols[1].AppendString(fmt.Sprintf("key-%06d", k))
			d.Cols[2].AppendInt(rng.Int64N(1000))
			d.Cols[3].AppendFloat(rng.Float64() * 1000)
			d.Cols[4].AppendString(fmt.Sprintf("%d.%02d", rng.IntN(1000), rng.IntN(100)))
			d.Cols[5].AppendInt(1_700_000_000_000_000 + int64(i)*1000)
		}
		d.N = benchRows
		out = append(out, d)
	}
	return s, out
}

// runStage pushes all of in and ends the tick, over and over, and reports rows a second.
func runStage(b *testing.B, ops []plan.Op, env Env, in []*record.Delta) {
	f, err := New(ops, env)
	if err != nil {
		b.Fatal(err)
	}
	rows, cpu := 0, cpuSeconds()
	b.ReportAllocs()
	for tick := ids.Tick(1); b.Loop(); tick++ {
		for _, d := range in {
			if err := f.Push(0, d); err != nil {
				b.Fatal(err)
			}
			rows += d.N
		}
		if _, err := f.EndTick(tick, NoMarks); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(rows)/b.Elapsed().Seconds(), "rows/s")
	b.ReportMetric(float64(rows)/(cpuSeconds()-cpu), "rows/cpu-s")
}

func BenchmarkPartial(b *testing.B) {
	for _, keys := range []int{10, 1_000_000} {
		s, in := benchInput(keys)
		tumble := tumbleOp(0, s)
		tumble.Tumble.Time = 5
		for _, c := range []struct {
			name string
			keys []int
			aggs []plan.Agg
		}{
			{"count/bigint", []int{0}, []plan.Agg{newAgg(plan.AggCountStar, -1, record.Unknown)}},
			{"count/text", []int{1}, []plan.Agg{newAgg(plan.AggCountStar, -1, record.Unknown)}},
			{"count/bigint+window", []int{0, 6, 7}, []plan.Agg{newAgg(plan.AggCountStar, -1, record.Unknown)}},
			{"count/text+window", []int{1, 6, 7}, []plan.Agg{newAgg(plan.AggCountStar, -1, record.Unknown)}},
			{"sum_bigint/bigint", []int{0}, []plan.Agg{newAgg(plan.AggSum, 2, record.BigInt)}},
			{"sum_double/bigint", []int{0}, []plan.Agg{newAgg(plan.AggSum, 3, record.Double)}},
			{"sum_numeric/bigint", []int{0}, []plan.Agg{newAgg(plan.AggSum, 4, record.Numeric)}},
			{"max_bigint/bigint", []int{0}, []plan.Agg{newAgg(plan.AggMax, 2, record.BigInt)}},
		} {
			ops := []plan.Op{scanOp(s)}
			schema := s
			if len(c.keys) > 1 {
				ops = append(ops, tumble)
				schema = tumble.Schema
			}
			ops = append(ops, aggOp(len(ops)-1, schema, &plan.Aggregate{Phase: plan.AggPartial, Keys: c.keys, Aggs: c.aggs, AppendOnly: true}))
			b.Run(fmt.Sprintf("%s/keys=%d", c.name, keys), func(b *testing.B) { runStage(b, ops, Env{}, in) })
		}
	}
}

// BenchmarkFinal merges the partials of 1,000 groups a tick into a state of 1,000 or 1,000,000 groups.
func BenchmarkFinal(b *testing.B) {
	for _, total := range []int{1000, 1_000_000} {
		for _, c := range []struct {
			name string
			aggs []plan.Agg
		}{
			{"count", []plan.Agg{newAgg(plan.AggCountStar, -1, record.Unknown)}},
			{"count_sum_avg_double", []plan.Agg{newAgg(plan.AggCountStar, -1, record.Unknown), newAgg(plan.AggSum, 2, record.BigInt), newAgg(plan.AggAvg, 3, record.Double)}},
		} {
			s, in := benchInput(total)
			a := &plan.Aggregate{Phase: plan.AggPartial, Keys: []int{0}, Aggs: c.aggs, AppendOnly: true}
			partial := []plan.Op{scanOp(s), aggOp(0, s, a)}
			p := mustNew(b, partial, Env{})
			var ticks []*record.Delta
			for _, d := range in {
				for lo := 0; lo < d.N; lo += 1024 {
					var part record.Delta
					sliceDelta(&part, d, lo, lo+1024)
					mustPush(b, p, 0, &part)
					out := mustEnd(b, p, 1, NoWatermark)
					kept := record.NewDelta(partial[1].Schema, out.N)
					for i := range out.N {
						kept.AppendRow(out, i, 1)
					}
					ticks = append(ticks, kept)
				}
			}
			final := []plan.Op{{Kind: plan.OpInput, Schema: partial[1].Schema, Input: &plan.Input{}}, aggOp(0, partial[1].Schema, finalOf(a))}
			f := mustNew(b, final, Env{State: &MemState{}})
			for i, d := range ticks {
				mustPush(b, f, 0, d)
				mustEnd(b, f, ids.Tick(i+1), NoWatermark)
			}
			b.Run(fmt.Sprintf("%s/groups=%d", c.name, total), func(b *testing.B) {
				groups, cpu := 0, cpuSeconds()
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					d := ticks[i%len(ticks)]
					mustPush(b, f, 0, d)
					mustEnd(b, f, ids.Tick(i+1), NoWatermark)
					groups += d.N
				}
				b.ReportMetric(float64(groups)/b.Elapsed().Seconds(), "groups/s")
				b.ReportMetric(float64(groups)/(cpuSeconds()-cpu), "groups/cpu-s")
			})
		}
	}
}

// BenchmarkStage is stages without an aggregate.
func BenchmarkStage(b *testing.B) {
	s, in := benchInput(1000)
	pred := plan.Expr{Kind: plan.ExprCall, Func: "gt", Type: record.Boolean, Args: []plan.Expr{col(s, 2), constant64(500)}}
	filter := plan.Op{Kind: plan.OpFilter, Inputs: []int{0}, Schema: s, Filter: &plan.Filter{Pred: pred}}
	out := record.Schema{{Name: "name", Type: record.Text}, {Name: "x", Type: record.BigInt}, {Name: "_offset", Type: record.BigInt}}
	project := plan.Op{Kind: plan.OpProject, Inputs: []int{1}, Schema: out, Project: &plan.Project{Exprs: []plan.Expr{
		col(s, 1), {Kind: plan.ExprCall, Func: "mul", Type: record.BigInt, Args: []plan.Expr{col(s, 2), constant64(3)}}, col(s, 0),
	}}}
	b.Run("filter_project_consolidate", func(b *testing.B) { runStage(b, []plan.Op{scanOp(s), filter, project}, Env{}, in) })
	named := append(record.Schema{{Name: plan.ColOffset, Type: record.BigInt}}, s[1:]...)
	scan := scanOp(named)
	filter.Schema = named
	b.Run("filter_project", func(b *testing.B) { runStage(b, []plan.Op{scan, filter, project}, Env{}, in) })
}

func constant64(v int64) plan.Expr {
	return plan.Expr{Kind: plan.ExprConst, Type: record.BigInt, Const: &record.Value{Type: record.BigInt, Int: v}}
}

// BenchmarkKernel is calls over chunks of rows.
func BenchmarkKernel(b *testing.B) {
	s, in := benchInput(1000)
	text := func(v string) plan.Expr {
		return plan.Expr{Kind: plan.ExprConst, Type: record.Text, Const: &record.Value{Type: record.Text, Bytes: []byte(v)}}
	}
	call := func(t record.Type, name string, args ...plan.Expr) plan.Expr {
		return plan.Expr{Kind: plan.ExprCall, Type: t, Func: name, Args: args}
	}
	for _, c := range []struct {
		name string
		e    plan.Expr
	}{
		{"add_bigint", call(record.BigInt, "add", col(s, 0), col(s, 2))},
		{"mul_bigint_const", call(record.BigInt, "mul", col(s, 0), constant64(7))},
		{"div_bigint_const", call(record.BigInt, "div", col(s, 0), constant64(7))},
		{"gt_bigint_const", call(record.Boolean, "gt", col(s, 2), constant64(500))},
		{"eq_text_const", call(record.Boolean, "eq", col(s, 1), text("key-000007"))},
		{"like_prefix", call(record.Boolean, "like", col(s, 1), text("key-0001%"))},
		{"like_general", call(record.Boolean, "like", col(s, 1), text("%0_01%"))},
		{"add_double", call(record.Double, "add", col(s, 3), col(s, 3))},
		{"mul_double", call(record.Double, "mul", col(s, 3), col(s, 3))},
		{"add_numeric", call(record.Numeric, "add", col(s, 4), col(s, 4))},
		{"div_numeric", call(record.Numeric, "div", col(s, 4), col(s, 4))},
		{"date_trunc_hour", call(record.TimestampTZ, "date_trunc", text("hour"), col(s, 5))},
		{"date_trunc_month", call(record.TimestampTZ, "date_trunc", text("month"), col(s, 5))},
		{"extract_hour", call(record.Numeric, "extract", text("hour"), col(s, 5))},
		{"upper", call(record.Text, "upper", col(s, 1))},
		{"cast_bigint_text", plan.Expr{Kind: plan.ExprCast, Type: record.Text, Args: []plan.Expr{col(s, 0)}}},
	} {
		b.Run(c.name, func(b *testing.B) {
			errs := faults{}
			e, err := compile(&c.e, s, Env{}, &errs)
			if err != nil {
				b.Fatal(err)
			}
			var chunk record.Delta
			rows := 0
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				lo := i * chunkRows % benchRows
				sliceDelta(&chunk, in[0], lo, lo+chunkRows)
				e.eval(&chunk)
				rows += chunkRows
			}
			b.ReportMetric(float64(rows)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}
