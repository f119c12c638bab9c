package dataflow

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// newTemporalWorld makes a history for a temporal join: a left side that is only appended to, and a right side that is unique by its
// keys (and time).
func newTemporalWorld(t *testing.T, rng *rand.Rand) (*joinWorld, *plan.TemporalJoin) {
	w := newJoinWorld(t, rng)
	w.span = 0
	w.join.Kind, w.join.NullsEqual, w.join.LeftExpire, w.join.RightExpire = plan.JoinInner, false, nil, nil
	w.join.LeftAppendOnly, w.join.LeftUnique, w.join.RightUnique = true, false, true
	if w.join.Residual != nil && w.join.Residual.Kind == plan.ExprAnd {
		w.join.Residual = nil
	}
	if len(w.join.LeftKeys) == 0 {
		w.join.LeftKeys, w.join.RightKeys = []int{joinKey}, []int{joinKey}
	}
	p := &plan.TemporalJoin{LeftKeys: w.join.LeftKeys, RightKeys: w.join.RightKeys, Outer: rng.IntN(2) == 0, Residual: w.join.Residual,
		LeftTime: -1, RightTime: -1}
	w.op = plan.Op{Kind: plan.OpTemporalJoin, Inputs: []int{0, 1}, Schema: append(append(record.Schema{}, w.schema...), w.schema...), TemporalJoin: p}
	return w, p
}

// runTemporal runs the ticks and compares the sum after each with want.
func (w *joinWorld) runTemporal(ticks []joinTick, want func(tick int) zset) *MemState {
	ops := []plan.Op{scanOp(w.schema), scanOp(w.schema), w.op}
	state := &MemState{}
	var f *Fragment
	start := func() {
		f = mustNew(w.t, ops, Env{State: state})
		if j, ok := f.ops[2].(*join); ok {
			j.limit = 200
		}
	}
	start()
	sum := zset{}
	for i, tick := range ticks {
		if w.rng.IntN(3) == 0 {
			start()
		}
		for _, s := range w.rng.Perm(2) {
			for lo := 0; lo < len(tick.rows[s]); {
				hi := min(lo+1+w.rng.IntN(20), len(tick.rows[s]))
				mustPush(w.t, f, s, deltaOf(w.schema, tick.rows[s][lo:hi]))
				lo = hi
			}
		}
		sum.add(w.t, mustEnd(w.t, f, ids.Tick(i+1), tick.horizon))
		if want := want(i); sum.String() != want.String() {
			w.t.Fatalf("%+v, after tick %d:\n%s\nwant:\n%s", *w.op.TemporalJoin, i, sum, want)
		}
	}
	return state
}

func (z zset) put(text string, weight int64) {
	if z[text] += weight; z[text] == 0 {
		delete(z, text)
	}
}

// TestTemporalJoinByTick checks that each left row gets the right rows as they are at the end of its tick.
func TestTemporalJoinByTick(t *testing.T) {
	randomSeed(t, func(t *testing.T, rng *rand.Rand) {
		w, p := newTemporalWorld(t, rng)
		w.ticks = nil
		w.history()
		nulls := "|" + strings.Repeat("NULL|", joinWidth-1) + "NULL"
		sum, right := zset{}, map[string]*row{}
		w.runTemporal(w.ticks, func(tick int) zset {
			for _, r := range w.ticks[tick].rows[1] {
				id := textOf(r.values)
				if right[id] == nil {
					right[id] = &row{values: r.values}
				}
				right[id].weight += r.weight
			}
			for _, l := range w.ticks[tick].rows[0] {
				n := int64(0)
				for id, r := range right {
					if r.weight != 0 && w.matches(l.values, r.values) {
						n += r.weight
						sum.put(textOf(l.values)+"|"+id, l.weight*r.weight)
					}
				}
				if p.Outer && n <= 0 {
					sum.put(textOf(l.values)+nulls, l.weight)
				}
			}
			return sum
		})
	})
}

// TestTemporalJoinByTime checks that each left row gets the right row that was valid at its time, once the watermark has passed it.
func TestTemporalJoinByTime(t *testing.T) {
	randomSeed(t, func(t *testing.T, rng *rand.Rand) {
		w, p := newTemporalWorld(t, rng)
		p.LeftTime, p.RightTime = joinAt, joinAt
		if rng.IntN(2) == 0 {
			p.Expire = &plan.Expire{Col: joinAt, Delay: rng.Int64N(3 * bucketMicros)}
		}
		base := value(t, record.TimestampTZ, "2024-01-01 00:00:00+00").Int
		// Times after the watermark; the right side's keys and times are unique.
		seen := map[string]bool{}
		mark := int64(NoWatermark)
		ticks := make([]joinTick, 1+rng.IntN(8))
		for i := range ticks {
			for s := range 2 {
				for range rng.IntN(25) {
					r := row{w.values(0, 0), 1}
					r.values[joinAt].Int = max(base+rng.Int64N(30)*bucketMicros/2, mark+1)
					if rng.IntN(12) == 0 {
						r.values[joinAt] = record.Value{Type: record.TimestampTZ, Null: true}
					}
					id := ""
					for _, k := range append([]int{joinAt}, p.RightKeys...) {
						id += string(record.AppendOrderedValue(nil, r.values[k]))
					}
					if s == 1 && seen[id] {
						continue
					}
					seen[id] = seen[id] || s == 1
					ticks[i].rows[s] = append(ticks[i].rows[s], r)
				}
			}
			if rng.IntN(2) == 0 {
				mark = max(mark, base+rng.Int64N(20)*bucketMicros)
			}
			ticks[i].horizon = mark
		}
		nulls := "|" + strings.Repeat("NULL|", joinWidth-1) + "NULL"
		state := w.runTemporal(ticks, func(tick int) zset {
			sum := zset{}
			for _, of := range ticks[:tick+1] {
				for _, l := range of.rows[0] {
					if at := l.values[joinAt]; !at.Null && at.Int > ticks[tick].horizon {
						continue
					}
					r := w.versionOf(l, ticks[:tick+1])
					switch {
					case r != nil:
						sum.put(textOf(l.values)+"|"+textOf(r.values), 1)
					case p.Outer:
						sum.put(textOf(l.values)+nulls, 1)
					}
				}
			}
			return sum
		})
		f := mustNew(t, []plan.Op{scanOp(w.schema), scanOp(w.schema), w.op}, Env{State: state})
		mustEnd(t, f, 1000, base+100*bucketMicros)
		versions := 0
		state.Scan([]byte{2, 2}, []byte{2, 3}, func(_, v []byte) (bool, error) {
			rows, err := decodeRanked(nil, v[1:], 0)
			if err != nil {
				t.Fatal(err)
			}
			versions = max(versions, len(rows))
			return true, nil
		})
		if p.Expire != nil && versions > 1 {
			t.Fatalf("%+v: %d versions of a key when all time has passed", *p, versions)
		}
		if _, ok := f.NextDue(); ok {
			t.Fatal("rows wait when all time has passed")
		}
	})
}

// versionOf returns the right row that was valid at l's time and matches it.
func (w *joinWorld) versionOf(l row, ticks []joinTick) *row {
	if l.values[joinAt].Null {
		return nil
	}
	var best *row
	residual := w.join.Residual
	w.join.Residual = nil
	for _, tick := range ticks {
		for i := range tick.rows[1] {
			r := &tick.rows[1][i]
			at := r.values[joinAt]
			if at.Null || at.Int > l.values[joinAt].Int || !w.matches(l.values, r.values) {
				continue
			}
			if best == nil || at.Int > best.values[joinAt].Int {
				best = r
			}
		}
	}
	w.join.Residual = residual
	if best != nil && !w.matches(l.values, best.values) {
		return nil
	}
	return best
}
