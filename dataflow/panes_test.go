package dataflow

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// eventWorld is a random history of several partitions' logs, with the watermark of each row, and the marks of each tick.
type eventWorld struct {
	t      testing.TB
	rng    *rand.Rand
	schema record.Schema // k bigint, at timestamptz, wm timestamptz, v bigint, f double precision, t text, b boolean
	ticks  [][]row
	marks  []Marks
	slices [][][]row // of each tick, by partition
}

const eventSecond = int64(1_000_000)

func newEventWorld(t testing.TB, rng *rand.Rand, ticks, spread int) *eventWorld {
	w := &eventWorld{t: t, rng: rng, schema: record.Schema{
		{Name: "k", Type: record.BigInt}, {Name: "at", Type: record.TimestampTZ}, {Name: "wm", Type: record.TimestampTZ},
		{Name: "v", Type: record.BigInt}, {Name: "f", Type: record.Double}, {Name: "t", Type: record.Text}, {Name: "b", Type: record.Boolean},
	}}
	const partitions = 3
	delay := rng.Int64N(6) * eventSecond
	keys := 1 + rng.IntN(4)
	high := [partitions]int64{NoWatermark, NoWatermark, NoWatermark}
	now := [partitions]int64{}
	for p := range now {
		now[p] = 1000*eventSecond + rng.Int64N(20)*eventSecond
	}
	marks := NoMarks
	for range ticks {
		parts := make([][]row, partitions)
		var all []row
		for range rng.IntN(25) {
			p := rng.IntN(partitions)
			now[p] += rng.Int64N(int64(spread)) * eventSecond / 4
			if rng.IntN(30) == 0 {
				now[p] += int64(spread) * 20 * eventSecond
			}
			at := now[p] - rng.Int64N(int64(spread))*eventSecond/2
			mark := record.Value{Type: record.TimestampTZ, Null: true}
			if high[p] != NoWatermark {
				mark = record.Value{Type: record.TimestampTZ, Int: high[p] - delay}
			}
			r := row{[]record.Value{{Type: record.BigInt, Int: int64(rng.IntN(keys))}, {Type: record.TimestampTZ, Int: at}, mark,
				{Type: record.BigInt, Int: int64(rng.IntN(9)), Null: rng.IntN(7) == 0}, {Type: record.Double, Float: rng.Float64()},
				{Type: record.Text, Bytes: []byte(propertyPools[record.Text][rng.IntN(5)])}, {Type: record.Boolean, Int: int64(rng.IntN(2))}}, 1}
			high[p] = max(high[p], at)
			parts[p] = append(parts[p], r)
			all = append(all, r)
		}
		w.ticks, w.slices = append(w.ticks, all), append(w.slices, parts)
		least, active := high[0], int64(NoWatermark)
		for p, h := range high {
			least = min(least, h)
			if h != NoWatermark && (active == NoWatermark || rng.IntN(3) > 0 && h < active) {
				active = h
			}
			_ = p
		}
		if least != NoWatermark {
			marks.Horizon = max(marks.Horizon, least-delay)
		}
		if active != NoWatermark {
			marks.Watermark = max(marks.Watermark, active-delay)
		}
		marks.Watermark = max(marks.Watermark, marks.Horizon)
		w.marks = append(w.marks, marks)
	}
	return w
}

// aggs returns random aggregates over the world's columns, that need no more than rows that come.
func (w *eventWorld) aggs() []plan.Agg {
	choices := []plan.Agg{newAgg(plan.AggCountStar, -1, record.Unknown), newAgg(plan.AggCount, 3, record.BigInt), newAgg(plan.AggSum, 3, record.BigInt),
		newAgg(plan.AggMax, 3, record.BigInt), newAgg(plan.AggMin, 5, record.Text), newAgg(plan.AggSum, 4, record.Double), newAgg(plan.AggAvg, 3, record.BigInt),
		newAgg(plan.AggCount, 3, record.BigInt), newAgg(plan.AggSum, 3, record.BigInt), newAgg(plan.AggJSONBAgg, 3, record.BigInt)}
	choices[7].Distinct, choices[8].Distinct = true, true
	var out []plan.Agg
	for range w.rng.IntN(5) {
		a := choices[w.rng.IntN(len(choices))]
		if w.rng.IntN(4) == 0 {
			a.Filter = 7
		}
		out = append(out, a)
	}
	return out
}

// windowSchema returns s with a window's columns.
func windowSchema(s record.Schema) record.Schema {
	return append(append(record.Schema{}, s...),
		record.Field{Name: "window_start", Type: record.TimestampTZ}, record.Field{Name: "window_end", Type: record.TimestampTZ})
}

// drive runs a reference over all rows, and sources and a target over the rows by partition, with restarts, and compares
// what came out so far after each tick.
func (w *eventWorld) drive(reference, source, target []plan.Op, what any) *MemState {
	t := w.t
	state, refState := &MemState{}, &MemState{}
	ref := mustNew(t, reference, Env{State: refState})
	f := mustNew(t, target, Env{State: state})
	var sources []*Fragment
	for range w.slices[0] {
		sources = append(sources, mustNew(t, source, Env{}))
	}
	want, got := zset{}, zset{}
	for i := range w.ticks {
		if w.rng.IntN(4) == 0 {
			f = mustNew(t, target, Env{State: state})
		}
		mustPush(t, ref, 0, deltaOf(w.schema, w.ticks[i]))
		for p, rows := range w.slices[i] {
			mustPush(t, sources[p], 0, deltaOf(w.schema, rows))
			d, err := sources[p].EndTick(ids.Tick(i+1), NoMarks)
			if err != nil {
				t.Fatal(err)
			}
			mustPush(t, f, 0, d)
		}
		for _, x := range []struct {
			f   *Fragment
			sum zset
		}{{ref, want}, {f, got}} {
			d, err := x.f.EndTick(ids.Tick(i+1), w.marks[i])
			if err != nil {
				t.Fatal(err)
			}
			x.sum.add(t, d)
		}
		if got.String() != want.String() {
			t.Fatalf("%+v\nafter tick %d, marks %v:\n%s\nwant:\n%s", what, i, w.marks[i], got, want)
		}
	}
	return state
}

// TestPanes compares windows made of panes with windows whose rows are repeated.
func TestPanes(t *testing.T) {
	randomSeed(t, func(t *testing.T, rng *rand.Rand) {
		hop := plan.Hop{Time: 1, Watermark: 2, Offset: rng.Int64N(3) * eventSecond / 2}
		hop.Slide = (1 + rng.Int64N(4)) * eventSecond
		hop.Size = (1 + rng.Int64N(40)) * eventSecond
		if rng.IntN(3) == 0 {
			hop.Cumulate = true
			hop.Size = hop.Slide * (1 + rng.Int64N(30))
		}
		w := newEventWorld(t, rng, 2+rng.IntN(12), 1+rng.IntN(12))
		s := windowSchema(w.schema)
		keys := []int{0, 7, 8}
		if rng.IntN(4) == 0 {
			keys = keys[1:]
		}
		a := &plan.Aggregate{Phase: plan.AggSingle, Keys: keys, Aggs: w.aggs(), AppendOnly: true}
		reference := []plan.Op{scanOp(w.schema), {Kind: plan.OpHop, Inputs: []int{0}, Schema: s, Hop: &hop}, aggOp(1, s, a)}
		panes := &plan.Panes{Size: hop.Size, Slide: hop.Slide, Offset: hop.Offset, Cumulate: hop.Cumulate, Final: rng.IntN(2) == 0}
		if panes.Final {
			reference = append(reference, plan.Op{Kind: plan.OpEmitFinal, Inputs: []int{2}, Schema: reference[2].Schema, EmitFinal: &plan.EmitFinal{WindowEnd: len(keys) - 1}})
		}
		paned, partial := hop, *a
		paned.Pane, partial.Phase = true, plan.AggPartial
		source := []plan.Op{scanOp(w.schema), {Kind: plan.OpHop, Inputs: []int{0}, Schema: s, Hop: &paned}, aggOp(1, s, &partial)}
		final := finalOf(&partial)
		final.Panes = panes
		if rng.IntN(3) > 0 {
			final.Expire = &plan.Expire{Col: len(keys) - 1}
		}
		target := []plan.Op{{Kind: plan.OpInput, Schema: source[2].Schema, Input: &plan.Input{}}, aggOp(0, source[2].Schema, final)}
		target[1].Schema = reference[2].Schema
		state := w.drive(reference, source, target, fmt.Sprintf("%+v %+v", hop, a))
		if final.Expire == nil {
			return
		}
		// Once all is over nothing is left but the marks.
		f := mustNew(t, target, Env{State: state})
		mustEnd(t, f, ids.Tick(len(w.ticks)+1), 1<<50)
		if state.Len() != 1 {
			t.Fatalf("%d entries are left", state.Len())
		}
	})
}

// TestExpire checks that groups are forgotten only once no row that counts can reach them, and that all are in the end.
func TestExpire(t *testing.T) {
	randomSeed(t, func(t *testing.T, rng *rand.Rand) {
		w := newEventWorld(t, rng, 2+rng.IntN(12), 1+rng.IntN(12))
		s := windowSchema(w.schema)
		window := plan.Op{Kind: plan.OpTumble, Inputs: []int{0}, Schema: s, Tumble: &plan.Tumble{Time: 1, Watermark: 2, Size: (1 + rng.Int64N(8)) * eventSecond}}
		a := &plan.Aggregate{Phase: plan.AggSingle, Keys: []int{0, 7, 8}, Aggs: w.aggs(), AppendOnly: true}
		// With an index of values below the groups.
		a.Aggs = append(a.Aggs, newAgg(plan.AggCount, 4, record.Double))
		a.Aggs[len(a.Aggs)-1].Distinct = true
		reference := []plan.Op{scanOp(w.schema), window, aggOp(1, s, a)}
		partial := *a
		partial.Phase = plan.AggPartial
		source := []plan.Op{scanOp(w.schema), window, aggOp(1, s, &partial)}
		final := finalOf(&partial)
		final.Expire = &plan.Expire{Col: 2, Delay: rng.Int64N(2) * eventSecond}
		target := []plan.Op{{Kind: plan.OpInput, Schema: source[2].Schema, Input: &plan.Input{}}, aggOp(0, source[2].Schema, final)}
		target[1].Schema = reference[2].Schema
		state := w.drive(reference, source, target, a)
		mustEnd(t, mustNew(t, target, Env{State: state}), ids.Tick(len(w.ticks)+1), 1<<50)
		if state.Len() != 0 {
			t.Fatalf("%d entries are left", state.Len())
		}
	})
}
