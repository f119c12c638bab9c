package dataflow

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// modelValues computes an aggregate that needs the values of rows, in the plainest way.
func modelValues(t testing.TB, a *plan.Agg, rows []row) string {
	type element struct {
		arg   []record.Value
		order []record.Value
		n     int64
	}
	there := map[string]*element{}
	for _, r := range rows {
		e := element{n: r.weight}
		null := false
		for _, c := range append([]int{a.Arg}, a.More...) {
			v := r.values[c]
			if a.Distinct {
				v = canonicalValue(t, v)
			}
			null = null || v.Null
			e.arg = append(e.arg, v)
		}
		keepsNulls := a.Func == plan.AggFirst || a.Func == plan.AggLast || a.Func == plan.AggJSONBAgg
		if null && !keepsNulls {
			continue
		}
		for _, k := range a.Order {
			e.order = append(e.order, r.values[k.Col])
		}
		id := fmt.Sprint(valuesText(e.arg), valuesText(e.order))
		if there[id] == nil {
			there[id] = &e
		} else {
			there[id].n += r.weight
		}
	}
	var all []element
	for _, e := range there {
		if e.n > 0 {
			if a.Distinct {
				e.n = 1
			}
			all = append(all, *e)
		}
	}
	slices.SortFunc(all, func(x, y element) int {
		for i, k := range a.Order {
			if d := compareSorted(x.order[i], y.order[i], k); d != 0 {
				if a.Func == plan.AggLast {
					return -d
				}
				return d
			}
		}
		for i := range x.arg {
			if d := compareSorted(x.arg[i], y.arg[i], plan.SortKey{}); d != 0 {
				return d
			}
			if !x.arg[i].Null && formOf(x.arg[i]) != formOf(y.arg[i]) {
				return strings.Compare(formOf(x.arg[i]), formOf(y.arg[i]))
			}
		}
		return 0
	})
	var values []record.Value
	if a.Func == plan.AggCount {
		return fmt.Sprint(len(all))
	}
	best := int64(0)
	var mode record.Value
	for _, e := range all {
		if e.n > best {
			best, mode = e.n, e.arg[0]
		}
		for range e.n {
			values = append(values, e.arg[0])
		}
	}
	if len(values) == 0 {
		return "NULL"
	}
	switch a.Func {
	case plan.AggSum, plan.AggAvg:
		var distinct []counted
		for _, v := range values {
			distinct = append(distinct, counted{v, 1})
		}
		return modelSum(t, a, distinct, int64(len(values)))
	case plan.AggMode:
		return valueText(mode)
	case plan.AggPercentileDisc:
		at := max(int(math.Ceil(a.Const[0].Float*float64(len(values)))), 1)
		return valueText(values[at-1])
	case plan.AggPercentileCont:
		at := a.Const[0].Float * float64(len(values)-1)
		lo, hi := values[int(math.Floor(at))], values[int(math.Ceil(at))]
		if at == math.Floor(at) {
			return valueText(lo)
		}
		step := (at - math.Floor(at)) * (hi.Float - lo.Float)
		return valueText(record.Value{Type: record.Double, Float: lo.Float + float64(step)})
	case plan.AggStringAgg, plan.AggJSONBAgg:
		var parts []string
		for _, v := range values {
			if a.Func == plan.AggStringAgg {
				parts = append(parts, valueText(v))
			} else {
				parts = append(parts, string(record.AppendJSONValue(nil, v)))
			}
		}
		text := strings.Join(parts, ", ")
		if a.Func == plan.AggJSONBAgg {
			text = "[" + text + "]"
		}
		return text
	}
	return valueText(values[0])
}

func valuesText(vs []record.Value) string {
	var parts []string
	for _, v := range vs {
		parts = append(parts, fmt.Sprintf("%t%q", v.Null, valueText(v)))
	}
	return strings.Join(parts, "|")
}

func compareSorted(x, y record.Value, k plan.SortKey) int {
	switch {
	case x.Null && y.Null:
		return 0
	case x.Null || y.Null:
		if x.Null == k.NullsFirst {
			return -1
		}
		return 1
	}
	d := record.Compare(x, y)
	if k.Desc {
		d = -d
	}
	return d
}

// TestManyDistinctValues has groups with so many values that they go to the index, under several filters, with ticks,
// restarts and two phases.
func TestManyDistinctValues(t *testing.T) {
	randomSeed(t, func(t *testing.T, rng *rand.Rand) {
		taken := rng.IntN(2) == 0
		types := []record.Type{record.BigInt, record.Text, record.Numeric}
		s := record.Schema{{Name: "k", Type: record.BigInt}, {Name: "v", Type: types[rng.IntN(3)]}, {Name: "b", Type: record.Boolean}, {Name: "c", Type: record.Boolean}}
		w := &world{t: t, rng: rng, schema: s, taken: taken}
		var live []row
		for range 2 + rng.IntN(4) {
			var tick []row
			for range rng.IntN(120) {
				if taken && len(live) > 0 && rng.IntN(5) < 2 {
					at := rng.IntN(len(live))
					tick = append(tick, row{live[at].values, -live[at].weight})
					live = slices.Delete(live, at, at+1)
					continue
				}
				r := row{[]record.Value{value(t, record.BigInt, fmt.Sprint(rng.IntN(2))), value(t, s[1].Type, fmt.Sprint(rng.IntN(150)-20)),
					{Type: record.Boolean, Int: int64(rng.IntN(2))}, {Type: record.Boolean, Int: int64(rng.IntN(2)), Null: rng.IntN(9) == 0}}, 1}
				if rng.IntN(20) == 0 {
					r.values[1] = record.Value{Type: s[1].Type, Null: true}
				}
				live, tick = append(live, r), append(tick, r)
			}
			w.ticks = append(w.ticks, tick)
		}
		distinct := func(f plan.AggFunc, filter int) plan.Agg {
			a := newAgg(f, 1, s[1].Type)
			a.Distinct, a.Filter = true, filter
			return a
		}
		a := &plan.Aggregate{Phase: plan.AggSingle, Keys: []int{0}, AppendOnly: !taken}
		a.Aggs = []plan.Agg{distinct(plan.AggCount, 0), distinct(plan.AggCount, 3), distinct(plan.AggCount, 4)}
		if s[1].Type != record.Text {
			a.Aggs = append(a.Aggs, distinct(plan.AggSum, 4), distinct(plan.AggAvg, 0))
		}
		if rng.IntN(2) == 0 {
			mode := newAgg(plan.AggMode, 1, s[1].Type)
			last := newAgg(plan.AggLast, 1, s[1].Type)
			last.Order, last.OrderTypes = []plan.SortKey{{Col: 2}, {Col: 1}}, []record.Type{record.Boolean, s[1].Type}
			a.Aggs = append(a.Aggs, mode, last, distinct(plan.AggJSONBAgg, 3))
		}
		check := func(tick int, sum zset) {
			if want := w.model(a, w.ticks[:tick+1]); sum.String() != want.String() {
				t.Fatalf("%v, aggregates %v, after tick %d:\n%s\nwant:\n%s", s[1].Type, a.Aggs, tick, sum, want)
			}
		}
		w.drive([]plan.Op{scanOp(s), aggOp(0, s, a)}, w.ticks, none, check)
		w.driveTwoPhases(a, check)
	})
}

// driveTwoPhases runs a in phases partial and final over the world's ticks, from two sources.
func (w *world) driveTwoPhases(a *plan.Aggregate, check func(tick int, sum zset)) {
	p := *a
	p.Phase = plan.AggPartial
	partial := []plan.Op{scanOp(w.schema), aggOp(0, w.schema, &p)}
	final := []plan.Op{{Kind: plan.OpInput, Schema: partial[1].Schema, Input: &plan.Input{}}, aggOp(0, partial[1].Schema, finalOf(&p))}
	final[1].Schema = aggSchema(w.schema, a)
	sources := []*Fragment{mustNew(w.t, partial, Env{Partition: 0}), mustNew(w.t, partial, Env{Partition: 1})}
	env := Env{State: &MemState{}}
	target := mustNew(w.t, final, env)
	sum := zset{}
	for i, tick := range w.ticks {
		if w.rng.IntN(3) == 0 {
			target = mustNew(w.t, final, env)
		}
		parts := [2][]row{}
		for _, r := range tick {
			p := w.rng.IntN(2)
			parts[p] = append(parts[p], r)
		}
		for p, rows := range parts {
			mustPush(w.t, sources[p], 0, deltaOf(w.schema, rows))
			mustPush(w.t, target, 0, mustEnd(w.t, sources[p], ids.Tick(i+1), NoWatermark))
		}
		sum.add(w.t, mustEnd(w.t, target, ids.Tick(i+1), NoWatermark))
		check(i, sum)
	}
}
