package dataflow

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// modelSessions computes the sessions of rows that aren't late, in the plainest way.
func modelSessions(t testing.TB, ticks [][]row, gap int64, aggs []plan.Agg, emitted func(end int64) bool) zset {
	keys := map[int64][]row{}
	for _, tick := range ticks {
		for _, r := range tick {
			if at, wm := r.values[1].Int, r.values[2]; wm.Null || at+gap > wm.Int {
				keys[r.values[0].Int] = append(keys[r.values[0].Int], r)
			}
		}
	}
	out := zset{}
	for k, rows := range keys {
		slices.SortFunc(rows, func(a, b row) int { return sign(a.values[1].Int - b.values[1].Int) })
		for lo := 0; lo < len(rows); {
			hi := lo + 1
			for hi < len(rows) && rows[hi].values[1].Int-rows[hi-1].values[1].Int < gap {
				hi++
			}
			end := rows[hi-1].values[1].Int + gap
			parts := []string{fmt.Sprint(k), timeText(rows[lo].values[1].Int), timeText(end)}
			for i := range aggs {
				parts = append(parts, modelAggregate(t, &aggs[i], rows[lo:hi], int64(hi-lo)))
			}
			if emitted(end) {
				out[strings.Join(parts, "|")]++
			}
			lo = hi
		}
	}
	return out
}

func timeText(at int64) string { return valueText(record.Value{Type: record.TimestampTZ, Int: at}) }

// TestSessionKeys compares sessions of a grouping with the model, in two phases, with restarts and late rows.
func TestSessionKeys(t *testing.T) {
	randomSeed(t, func(t *testing.T, rng *rand.Rand) {
		w := newEventWorld(t, rng, 2+rng.IntN(12), 1+rng.IntN(12))
		gap := (1 + rng.Int64N(8)) * eventSecond / 2
		ended := append(append(record.Schema{}, w.schema...), record.Field{Name: "end", Type: record.TimestampTZ})
		project := plan.Op{Kind: plan.OpProject, Inputs: []int{0}, Schema: ended, Project: &plan.Project{}}
		for i := range w.schema {
			project.Project.Exprs = append(project.Project.Exprs, col(w.schema, i))
		}
		project.Project.Exprs = append(project.Project.Exprs, plan.Expr{Kind: plan.ExprCall, Func: "add", Type: record.TimestampTZ, Args: []plan.Expr{
			col(w.schema, 1), {Kind: plan.ExprConst, Type: record.IntervalT, Const: &record.Value{Type: record.IntervalT, Interval: record.Interval{Micros: gap}}}}})
		late := plan.Op{Kind: plan.OpDropLate, Inputs: []int{1}, Schema: ended, DropLate: &plan.DropLate{Time: 7, Watermark: 2}}
		partial := &plan.Aggregate{Phase: plan.AggPartial, Keys: []int{0, 1, 7}, Aggs: w.aggs(), AppendOnly: true, Session: &plan.SessionKeys{Gap: gap}}
		source := []plan.Op{scanOp(w.schema), project, late, aggOp(2, ended, partial)}
		final := finalOf(partial)
		final.Session = &plan.SessionKeys{Gap: gap, Final: rng.IntN(2) == 0}
		if rng.IntN(3) > 0 {
			final.Expire = &plan.Expire{Col: 2}
		}
		single := *partial
		single.Phase = plan.AggSingle
		target := []plan.Op{{Kind: plan.OpInput, Schema: source[3].Schema, Input: &plan.Input{}}, aggOp(0, source[3].Schema, final)}
		target[1].Schema = aggSchema(ended, &single)
		state := &MemState{}
		f := mustNew(t, target, Env{State: state})
		var sources []*Fragment
		for range w.slices[0] {
			sources = append(sources, mustNew(t, source, Env{}))
		}
		sum := zset{}
		for i := range w.ticks {
			if rng.IntN(4) == 0 {
				f = mustNew(t, target, Env{State: state})
			}
			for p, rows := range w.slices[i] {
				mustPush(t, sources[p], 0, deltaOf(w.schema, rows))
				mustPush(t, f, 0, mustEnd(t, sources[p], ids.Tick(i+1), NoWatermark))
			}
			d, err := f.EndTick(ids.Tick(i+1), w.marks[i])
			if err != nil {
				t.Fatal(err)
			}
			sum.add(t, d)
			want := modelSessions(t, w.ticks[:i+1], gap, partial.Aggs, func(end int64) bool { return !final.Session.Final || end <= w.marks[i].Watermark })
			if sum.String() != want.String() {
				t.Fatalf("gap %d, %+v\nafter tick %d, marks %v:\n%s\nwant:\n%s", gap, final, i, w.marks[i], sum, want)
			}
		}
		if final.Expire == nil {
			return
		}
		mustEnd(t, mustNew(t, target, Env{State: state}), ids.Tick(len(w.ticks)+1), 1<<50)
		if state.Len() != 1 {
			t.Fatalf("%d entries are left", state.Len())
		}
	})
}
