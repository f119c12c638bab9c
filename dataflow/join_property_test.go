package dataflow

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// Columns of each side of the joins of the property tests.
const (
	joinKey = iota
	joinKey2
	joinAt
	joinInt
	joinText
	joinWidth
)

// joinWorld is a random history of two inputs of a join.
type joinWorld struct {
	t      *testing.T
	rng    *rand.Rand
	schema record.Schema
	join   *plan.Join
	op     plan.Op
	span   int64 // with expiry: a left row matches right rows of this long before it
	few    int   // values of a key
	ticks  []joinTick
}

type joinTick struct {
	rows    [2][]row
	horizon int64
}

var joinKinds = []plan.JoinKind{plan.JoinInner, plan.JoinLeft, plan.JoinRight, plan.JoinFull, plan.JoinSemi, plan.JoinAnti, plan.JoinNotIn}

func newJoinWorld(t *testing.T, rng *rand.Rand) *joinWorld {
	w := &joinWorld{t: t, rng: rng, few: 1 + rng.IntN(6)}
	keyTypes := []record.Type{record.BigInt, record.Text, record.Numeric, record.Double, record.IntervalT, record.Boolean, record.Bytea, record.JSONB}
	w.schema = record.Schema{
		{Name: "k", Type: keyTypes[rng.IntN(len(keyTypes))]}, {Name: "k2", Type: keyTypes[rng.IntN(len(keyTypes))]},
		{Name: "at", Type: record.TimestampTZ}, {Name: "i", Type: record.BigInt}, {Name: "t", Type: record.Text},
	}
	both := append(append(record.Schema{}, w.schema...), w.schema...)
	j := &plan.Join{Kind: joinKinds[rng.IntN(len(joinKinds))]}
	w.join = j
	keys := [][]int{{}, {joinKey}, {joinKey, joinKey2}, {joinKey}}[rng.IntN(4)]
	if j.Kind == plan.JoinNotIn {
		keys = []int{joinKey}
	} else {
		j.NullsEqual = rng.IntN(4) == 0
	}
	j.LeftKeys, j.RightKeys = keys, keys
	j.LeftAppendOnly, j.RightAppendOnly = rng.IntN(2) == 0, rng.IntN(2) == 0
	call := func(name string, t record.Type, args ...plan.Expr) plan.Expr {
		return plan.Expr{Kind: plan.ExprCall, Func: name, Type: t, Args: args}
	}
	if rng.IntN(3) == 0 {
		e := call("ge", record.Boolean, col(both, joinInt), col(both, joinWidth+joinInt))
		j.Residual = &e
	}
	if rng.IntN(3) == 0 && j.Kind != plan.JoinNotIn {
		// A left row at or after the right one, less than span.
		w.span = int64(1+rng.IntN(20)) * bucketMicros / 2
		left, right := col(both, joinAt), col(both, joinWidth+joinAt)
		span := plan.Expr{Kind: plan.ExprConst, Type: record.IntervalT, Const: &record.Value{Type: record.IntervalT, Interval: record.Interval{Micros: w.span}}}
		e := plan.Expr{Kind: plan.ExprAnd, Type: record.Boolean, Args: []plan.Expr{
			call("ge", record.Boolean, left, right), call("le", record.Boolean, left, call("add", record.TimestampTZ, right, span))}}
		j.Residual = &e
		if rng.IntN(4) > 0 {
			j.LeftExpire = &plan.Expire{Col: joinAt}
		}
		if rng.IntN(4) > 0 {
			j.RightExpire = &plan.Expire{Col: joinAt, Delay: w.span}
		}
	}
	if len(keys) > 0 && j.LeftExpire == nil && j.RightExpire == nil {
		j.LeftUnique, j.RightUnique = rng.IntN(4) == 0, rng.IntN(4) == 0
	}
	out := both
	if j.Kind == plan.JoinSemi || j.Kind == plan.JoinAnti || j.Kind == plan.JoinNotIn {
		out = w.schema
	}
	w.op = plan.Op{Kind: plan.OpJoin, Inputs: []int{0, 1}, Schema: out, Join: j}
	w.history()
	return w
}

// history makes the ticks.
func (w *joinWorld) history() {
	var live [2][]row
	now := value(w.t, record.TimestampTZ, "2024-01-01 00:00:00+00").Int
	horizon := int64(NoWatermark)
	for range 1 + w.rng.IntN(8) {
		tick := joinTick{horizon: horizon}
		for s := range 2 {
			appendOnly := [2]bool{w.join.LeftAppendOnly, w.join.RightAppendOnly}[s]
			unique := [2]bool{w.join.LeftUnique, w.join.RightUnique}[s]
			for range w.rng.IntN(25) {
				if !appendOnly && len(live[s]) > 0 && w.rng.IntN(5) < 2 {
					at := w.rng.IntN(len(live[s]))
					r := live[s][at]
					if w.span > 0 && (r.values[joinAt].Null || r.values[joinAt].Int <= horizon) {
						continue
					}
					live[s] = append(live[s][:at], live[s][at+1:]...)
					tick.rows[s] = append(tick.rows[s], row{r.values, -r.weight})
					continue
				}
				r := row{w.values(now, horizon), 1}
				if !unique && w.rng.IntN(6) == 0 {
					r.weight = int64(1 + w.rng.IntN(3))
				}
				if unique && w.hasKey(live[s], r) {
					continue
				}
				live[s] = append(live[s], r)
				tick.rows[s] = append(tick.rows[s], r)
			}
		}
		if w.span > 0 && w.rng.IntN(2) == 0 {
			now += int64(w.rng.IntN(12)) * bucketMicros
			horizon = max(horizon, now-int64(w.rng.IntN(5))*bucketMicros-int64(w.rng.IntN(bucketMicros)))
			tick.horizon = horizon
		}
		w.ticks = append(w.ticks, tick)
	}
}

func (w *joinWorld) values(now, horizon int64) []record.Value {
	vs := make([]record.Value, joinWidth)
	for c, f := range w.schema {
		pool := propertyPools[f.Type]
		n := len(pool)
		if c <= joinKey2 {
			n = min(n, w.few)
			if w.rng.IntN(12) == 0 {
				n = len(pool)
			}
		}
		vs[c] = value(w.t, f.Type, pool[w.rng.IntN(n)])
	}
	if w.span > 0 {
		vs[joinAt].Int = max(now+(w.rng.Int64N(16)-8)*bucketMicros/2, horizon+1)
		if w.rng.IntN(12) == 0 {
			vs[joinAt] = record.Value{Type: record.TimestampTZ, Null: true}
		}
	} else if w.rng.IntN(3) == 0 {
		vs[joinText] = value(w.t, record.Text, strings.Repeat("wide ", w.rng.IntN(20)))
	}
	return vs
}

func (w *joinWorld) hasKey(rows []row, r row) bool {
	for _, o := range rows {
		same := true
		for _, k := range w.join.LeftKeys {
			same = same && string(record.AppendOrderedValue(nil, o.values[k])) == string(record.AppendOrderedValue(nil, r.values[k]))
		}
		if same {
			return true
		}
	}
	return false
}

// matches tells whether two rows belong together; unknown is what an equality with NULL counts as.
func (w *joinWorld) matches(l, r []record.Value) bool {
	for i, k := range w.join.LeftKeys {
		a, b := l[k], r[w.join.RightKeys[i]]
		if a.Null || b.Null {
			if w.join.Kind == plan.JoinNotIn || w.join.NullsEqual && a.Null && b.Null {
				continue
			}
			return false
		}
		if record.Compare(a, b) != 0 {
			return false
		}
	}
	if w.join.Residual == nil {
		return true
	}
	d := deltaOf(append(append(record.Schema{}, w.schema...), w.schema...), []row{{append(append([]record.Value{}, l...), r...), 1}})
	e, err := compile(w.join.Residual, append(append(record.Schema{}, w.schema...), w.schema...), Env{}, &faults{})
	if err != nil {
		w.t.Fatal(err)
	}
	v := e.eval(d)
	return !v.null(0) && v.col.Bools[0]
}

// model computes the join of what came up to a tick from scratch.
func (w *joinWorld) model(upTo int) zset {
	var sides [2]map[string]*row
	for s := range sides {
		sides[s] = map[string]*row{}
		for _, tick := range w.ticks[:upTo+1] {
			for _, r := range tick.rows[s] {
				id := textOf(r.values)
				if sides[s][id] == nil {
					sides[s][id] = &row{values: r.values}
				}
				sides[s][id].weight += r.weight
			}
		}
	}
	out := zset{}
	add := func(text string, weight int64) {
		if out[text] += weight; out[text] == 0 {
			delete(out, text)
		}
	}
	nulls := strings.Repeat("NULL|", joinWidth-1) + "NULL"
	found := map[*row]int64{}
	kind := w.join.Kind
	for lid, l := range sides[0] {
		n := int64(0)
		for rid, r := range sides[1] {
			if !w.matches(l.values, r.values) {
				continue
			}
			n += r.weight
			found[r] += l.weight
			if kind == plan.JoinInner || kind == plan.JoinLeft || kind == plan.JoinRight || kind == plan.JoinFull {
				add(lid+"|"+rid, l.weight*r.weight)
			}
		}
		switch {
		case kind == plan.JoinSemi && n > 0, (kind == plan.JoinAnti || kind == plan.JoinNotIn) && n <= 0:
			add(lid, l.weight)
		case (kind == plan.JoinLeft || kind == plan.JoinFull) && n <= 0:
			add(lid+"|"+nulls, l.weight)
		}
	}
	if kind == plan.JoinRight || kind == plan.JoinFull {
		for rid, r := range sides[1] {
			if found[r] <= 0 {
				add(nulls+"|"+rid, r.weight)
			}
		}
	}
	return out
}

func textOf(vs []record.Value) string {
	var parts []string
	for _, v := range vs {
		parts = append(parts, valueText(v))
	}
	return strings.Join(parts, "|")
}

// TestJoinMatchesModel checks that after each tick the sum of the deltas is the join of the inputs so far.
func TestJoinMatchesModel(t *testing.T) {
	randomSeed(t, func(t *testing.T, rng *rand.Rand) {
		w := newJoinWorld(t, rng)
		limit := []int{maxSegment, 100, 400}[rng.IntN(3)]
		ops := []plan.Op{scanOp(w.schema), scanOp(w.schema), w.op}
		state := &MemState{}
		var f *Fragment
		start := func() {
			f = mustNew(t, ops, Env{State: state})
			f.ops[2].(*join).limit, f.ops[2].(*join).hashed = limit, limit/8
		}
		start()
		sum := zset{}
		for i, tick := range w.ticks {
			if rng.IntN(3) == 0 {
				start()
			}
			for s := range 2 {
				rng.Shuffle(len(tick.rows[s]), func(a, b int) { tick.rows[s][a], tick.rows[s][b] = tick.rows[s][b], tick.rows[s][a] })
				for lo := 0; lo < len(tick.rows[s]); {
					hi := min(lo+1+rng.IntN(20), len(tick.rows[s]))
					mustPush(t, f, s, deltaOf(w.schema, tick.rows[s][lo:hi]))
					lo = hi
				}
			}
			d, err := f.EndTick(ids.Tick(i+1), Marks{tick.horizon, tick.horizon})
			if err != nil {
				t.Fatal(err)
			}
			sum.add(t, d)
			if want := w.model(i); sum.String() != want.String() {
				t.Fatalf("%s\nafter tick %d:\n%s\nwant:\n%s", w.describe(), i, sum, want)
			}
		}
	})
}

func (w *joinWorld) describe() string {
	return fmt.Sprintf("%+v of %s, %s", *w.join, w.schema[0].Type, w.schema[1].Type)
}

// TestJoinAdHoc checks a join that keeps nothing, of which some columns only are read.
func TestJoinAdHoc(t *testing.T) {
	randomSeed(t, func(t *testing.T, rng *rand.Rand) {
		w := newJoinWorld(t, rng)
		all := joinTick{horizon: NoWatermark}
		for _, tick := range w.ticks {
			for s := range 2 {
				all.rows[s] = append(all.rows[s], tick.rows[s]...)
			}
		}
		w.ticks = []joinTick{all}
		var cols []int
		for c := range w.op.Schema {
			if rng.IntN(2) == 0 {
				cols = append(cols, c)
			}
		}
		project := plan.Op{Kind: plan.OpProject, Inputs: []int{2}, Project: &plan.Project{}}
		for _, c := range cols {
			project.Schema = append(project.Schema, w.op.Schema[c])
			project.Project.Exprs = append(project.Project.Exprs, col(w.op.Schema, c))
		}
		f := mustNew(t, []plan.Op{scanOp(w.schema), scanOp(w.schema), w.op, project}, Env{Mode: AdHoc})
		for s := range 2 {
			mustPush(t, f, s, deltaOf(w.schema, all.rows[s]))
		}
		got := zset{}
		got.add(t, mustEnd(t, f, 1, NoWatermark))
		want := zset{}
		for text, n := range w.model(0) {
			parts := strings.Split(text, "|")
			var kept []string
			for _, c := range cols {
				kept = append(kept, parts[c])
			}
			if want[strings.Join(kept, "|")] += n; want[strings.Join(kept, "|")] == 0 {
				delete(want, strings.Join(kept, "|"))
			}
		}
		if got.String() != want.String() {
			t.Fatalf("%s, columns %v:\n%s\nwant:\n%s", w.describe(), cols, got, want)
		}
	})
}

// TestJoinManyPairs checks joins of which one key's rows and pairs are many chunks, and that they go away again.
func TestJoinManyPairs(t *testing.T) {
	s := record.Schema{{Name: "k", Type: record.BigInt}, {Name: "v", Type: record.BigInt}, {Name: "t", Type: record.Text}}
	both := append(append(record.Schema{}, s...), s...)
	rows := func(n int, from int64, w int64) *record.Delta {
		d := record.NewDelta(s, n)
		d.Weights = []int64{}
		for i := range n {
			d.Cols[0].AppendInt(7)
			d.Cols[1].AppendInt(from + int64(i))
			d.Cols[2].AppendString(strings.Repeat("x", i%50))
			d.Weights = append(d.Weights, w)
		}
		d.N = n
		return d
	}
	for _, kind := range []plan.JoinKind{plan.JoinInner, plan.JoinFull, plan.JoinAnti} {
		for _, residual := range []bool{false, true} {
			j := &plan.Join{Kind: kind, LeftKeys: []int{0}, RightKeys: []int{0}}
			if residual {
				j.Residual = &plan.Expr{Kind: plan.ExprCall, Func: "gt", Type: record.Boolean, Args: []plan.Expr{col(both, 1), col(both, 4)}}
			}
			out := both
			if kind == plan.JoinAnti {
				out = s
			}
			count := plan.Op{Kind: plan.OpAggregate, Inputs: []int{2}, Schema: record.Schema{{Name: "n", Type: record.BigInt}},
				Aggregate: &plan.Aggregate{Phase: plan.AggSingle, Aggs: []plan.Agg{newAgg(plan.AggCountStar, -1, record.Unknown)}}}
			state := &MemState{}
			f := mustNew(t, []plan.Op{scanOp(s), scanOp(s), {Kind: plan.OpJoin, Inputs: []int{0, 1}, Schema: out, Join: j}, count}, Env{State: state})
			sum := zset{}
			step := func(tick, side int, d *record.Delta, want int64) {
				t.Helper()
				mustPush(t, f, side, d)
				sum.add(t, mustEnd(t, f, ids.Tick(tick), NoWatermark))
				if sum.String() != fmt.Sprintf("+1 %d", want) {
					t.Fatalf("%s, residual %v, tick %d: %s, want %d", kind, residual, tick, sum, want)
				}
			}
			lone := func(n int64) int64 {
				if kind == plan.JoinInner {
					return 0
				}
				return n
			}
			pairs := func(n int64) int64 {
				if kind == plan.JoinAnti {
					return 0
				}
				return n
			}
			step(1, 0, rows(6000, 0, 1), lone(6000))
			if residual {
				// Right values 0, 1, 2: left values above them match; right 2 and below have a match.
				step(2, 1, rows(3, 0, 1), pairs(5999+5998+5997)+lone(1))
			} else {
				step(2, 1, rows(3, 0, 1), pairs(18000))
			}
			step(3, 1, rows(3, 0, -1), lone(6000))
			step(4, 0, rows(6000, 0, -1), 0)
			if n := state.Len(); n != 1 {
				t.Fatalf("%d entries are left", n)
			}
		}
	}
}
