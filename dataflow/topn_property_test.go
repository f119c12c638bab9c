package dataflow

import (
	"fmt"
	"math/rand/v2"
	"sort"
	"testing"

	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// randomTopN returns a top-N over the world's columns.
func (w *world) randomTopN() *plan.TopN {
	p := &plan.TopN{
		Func: []plan.RankFunc{plan.RankRowNumber, plan.RankRank, plan.RankDense}[w.rng.IntN(3)], Limit: int64(w.rng.IntN(6)),
		AppendOnly: !w.taken, Place: w.rng.IntN(2) == 0,
	}
	switch w.rng.IntN(5) {
	case 0:
		p.Limit = -1
	case 1, 2:
		p.Limit = 1
	}
	if w.rng.IntN(3) == 0 {
		p.Offset = int64(w.rng.IntN(4))
	}
	p.Keys = [][]int{{}, {colKey}, {colKey, colKey2}}[w.rng.IntN(3)]
	for range w.rng.IntN(3) {
		p.Order = append(p.Order, plan.SortKey{Col: w.rng.IntN(len(w.schema)), Desc: w.rng.IntN(2) == 0, NullsFirst: w.rng.IntN(2) == 0})
	}
	return p
}

func topNOp(in int, s record.Schema, p *plan.TopN) plan.Op {
	out := append(record.Schema{}, s...)
	if p.Place {
		out = append(out, record.Field{Name: "place", Type: record.BigInt})
	}
	return plan.Op{Kind: plan.OpTopN, Inputs: []int{in}, Schema: out, TopN: p}
}

// modelTopN computes a top-N of the rows of ticks from scratch.
func (w *world) modelTopN(p *plan.TopN, ticks [][]row) zset {
	rows := map[string]*row{}
	for _, tick := range ticks {
		for _, r := range tick {
			id := textOf(r.values)
			if rows[id] == nil {
				rows[id] = &row{values: r.values}
			}
			rows[id].weight += r.weight
		}
	}
	groups := map[string][]*row{}
	for _, r := range rows {
		if r.weight > 0 {
			key := ""
			for _, k := range p.Keys {
				key += string(record.AppendOrderedValue(nil, r.values[k]))
			}
			groups[key] = append(groups[key], r)
		}
	}
	out := zset{}
	for _, group := range groups {
		d := record.NewDelta(w.schema, 0)
		for _, r := range group {
			for c, v := range r.values {
				d.Cols[c].AppendValue(v)
			}
		}
		s := sorter{keys: p.Order, all: d}
		order := make([]int, len(group))
		for i := range order {
			order[i] = i
		}
		sort.Slice(order, func(a, b int) bool { return s.compare(order[a], order[b]) < 0 })
		peers := func(a, b int) bool {
			for _, k := range p.Order {
				c := &d.Cols[k.Col]
				if c.Null(a) != c.Null(b) || !c.Null(a) && compareAt(c, a, c, b) != 0 {
					return false
				}
			}
			return true
		}
		before, class, start := int64(0), int64(0), int64(0)
		for n, i := range order {
			r := group[i]
			if n == 0 || !peers(order[n-1], i) {
				class++
				start = before + 1
			}
			for copy := range r.weight {
				place := map[plan.RankFunc]int64{plan.RankRowNumber: before + copy + 1, plan.RankRank: start, plan.RankDense: class}[p.Func]
				if place <= p.Offset || p.Limit >= 0 && place > p.Offset+p.Limit {
					continue
				}
				text := textOf(r.values)
				if p.Place {
					text += fmt.Sprint("|", place)
				}
				out[text]++
			}
			before += r.weight
		}
	}
	return out
}

// TestTopNMatchesModel checks that after each tick the sum of the deltas is the first rows of the input so far.
func TestTopNMatchesModel(t *testing.T) {
	randomSeed(t, func(t *testing.T, rng *rand.Rand) {
		w := newWorld(t, rng, rng.IntN(3) > 0)
		p := w.randomTopN()
		ops := []plan.Op{scanOp(w.schema), topNOp(0, w.schema, p)}
		state := &MemState{}
		var f *Fragment
		limit := []int{maxBeyond, 1, 100, 300}[rng.IntN(4)]
		start := func() {
			f = mustNew(t, ops, Env{State: state})
			f.ops[1].(*topN).limit = limit
		}
		start()
		sum := zset{}
		for i, tick := range w.ticks {
			if rng.IntN(3) == 0 {
				start()
			}
			rng.Shuffle(len(tick), func(a, b int) { tick[a], tick[b] = tick[b], tick[a] })
			for lo := 0; lo < len(tick); {
				hi := min(lo+1+rng.IntN(20), len(tick))
				mustPush(t, f, 0, deltaOf(w.schema, tick[lo:hi]))
				lo = hi
			}
			sum.add(t, mustEnd(t, f, ids.Tick(i+1), NoWatermark))
			if want := w.modelTopN(p, w.ticks[:i+1]); sum.String() != want.String() {
				t.Fatalf("%+v, after tick %d:\n%s\nwant:\n%s", *p, i, sum, want)
			}
		}
		var gone []row
		for _, tick := range w.ticks {
			for _, r := range tick {
				gone = append(gone, row{r.values, -r.weight})
			}
		}
		if p.AppendOnly {
			return
		}
		mustPush(t, f, 0, deltaOf(w.schema, gone))
		sum.add(t, mustEnd(t, f, ids.Tick(len(w.ticks)+1), NoWatermark))
		if len(sum) > 0 || state.Len() > 0 {
			t.Fatalf("%+v: when all is taken back, %d entries are left and\n%s", *p, state.Len(), sum)
		}
	})
}

// TestTopNIgnoresOrderAndCuts checks that a row may be taken back before it comes.
func TestTopNIgnoresOrderAndCuts(t *testing.T) {
	randomSeed(t, func(t *testing.T, rng *rand.Rand) {
		w := newWorld(t, rng, true)
		p := w.randomTopN()
		ops := []plan.Op{scanOp(w.schema), topNOp(0, w.schema, p)}
		var rows []row
		for _, tick := range w.ticks {
			rows = append(rows, tick...)
		}
		rng.Shuffle(len(rows), func(i, j int) { rows[i], rows[j] = rows[j], rows[i] })
		var cuts [][]row
		for len(rows) > 0 {
			n := 1 + rng.IntN(len(rows))
			cuts, rows = append(cuts, rows[:n]), rows[n:]
		}
		w.drive(ops, cuts, none, func(i int, sum zset) {
			if want := w.modelTopN(p, cuts[:i+1]); sum.String() != want.String() {
				t.Fatalf("%+v, after tick %d:\n%s\nwant:\n%s", *p, i, sum, want)
			}
		})
	})
}

// TestTopNExpires checks that groups whose time has passed are forgotten without a change, also if they have many rows.
func TestTopNExpires(t *testing.T) {
	randomSeed(t, func(t *testing.T, rng *rand.Rand) {
		w := newWorld(t, rng, rng.IntN(3) > 0)
		p := w.randomTopN()
		p.Keys, p.Expire = []int{colTime}, &plan.Expire{Col: colTime, Delay: rng.Int64N(10 * bucketMicros)}
		ops := []plan.Op{scanOp(w.schema), topNOp(0, w.schema, p)}
		state := &MemState{}
		var f *Fragment
		start := func() {
			f = mustNew(t, ops, Env{State: state})
			f.ops[1].(*topN).limit = 100
		}
		start()
		horizon := int64(NoWatermark)
		sum := zset{}
		var came [][]row
		for i, tick := range w.ticks {
			if rng.IntN(3) == 0 {
				start()
			}
			var kept []row
			for _, r := range tick {
				if r.values[colTime].Int > horizon {
					kept = append(kept, r)
				}
			}
			came = append(came, kept)
			mustPush(t, f, 0, deltaOf(w.schema, kept))
			if rng.IntN(2) == 0 {
				horizon = max(horizon, value(t, record.TimestampTZ, "2024-01-01 00:00:00+00").Int+rng.Int64N(300*bucketMicros))
			}
			sum.add(t, mustEnd(t, f, ids.Tick(i+1), horizon))
			if want := w.modelTopN(p, came); sum.String() != want.String() {
				t.Fatalf("%+v, after tick %d:\n%s\nwant:\n%s", *p, i, sum, want)
			}
		}
		if d := mustEnd(t, f, 100, 1<<60); d.N > 0 || state.Len() > 0 {
			t.Fatalf("%+v: %d rows when all time has passed, %d entries are left", *p, d.N, state.Len())
		}
	})
}
