package stage

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/proto/internalv1"
	"github.com/millrace/millrace/record"
	"github.com/millrace/millrace/storage"
)

func inputOf(stage int, s record.Schema) plan.Op {
	return plan.Op{Kind: plan.OpInput, Schema: s, Input: &plan.Input{Stage: stage}}
}

func scanView(id ids.StreamID, fields ...record.Field) plan.Op {
	op := scanOp(fields...)
	op.Scan.Kind, op.Scan.Object, op.Scan.Name = plan.ScanView, uint64(id), fmt.Sprint("v", id)
	return op
}

func union(s record.Schema, in ...int) plan.Op {
	return plan.Op{Kind: plan.OpUnion, Inputs: in, Schema: s}
}

// grouped is an aggregate over rows that come and go.
func grouped(in int, s record.Schema, keys []int, aggs ...plan.Agg) plan.Op {
	op := aggregate(in, plan.AggSingle, s, keys, aggs...)
	op.Aggregate.AppendOnly = false
	return op
}

// countsOf is the stages of SELECT k, count(*) FROM s GROUP BY k, and its columns.
func countsOf() ([]plan.Stage, record.Schema) {
	aggs := []plan.Agg{countStar}
	between := partialSchema(record.Schema{text("k")}, aggs...)
	out := record.Schema{text("k"), bigint("c")}
	return []plan.Stage{
		{Ops: []plan.Op{scanOp(text("k")), aggregate(0, plan.AggPartial, between, []int{0}, aggs...)}, Exchange: &plan.Exchange{Key: []int{0}}},
		{Ops: []plan.Op{inputOf(0, between), aggregate(0, plan.AggFinal, out, []int{0}, aggs...)}},
	}, out
}

func countsAt(m *model, k ids.Tick) map[string]int64 {
	counts := map[string]int64{}
	m.each(k, func(e *event) { counts[e.k]++ })
	return counts
}

// histogram: SELECT c, count(*) FROM (SELECT k, count(*) AS c FROM s GROUP BY k) GROUP BY c
func histogram() testView {
	stages, counts := countsOf()
	stages[1].Exchange = &plan.Exchange{Key: []int{1}}
	out := record.Schema{bigint("c"), bigint("n")}
	stages = append(stages, plan.Stage{Ops: []plan.Op{inputOf(1, counts), grouped(0, out, []int{1}, countStar)}})
	return testView{
		name: "histogram",
		plan: &plan.Plan{Version: plan.Version, Output: out, Key: []int{0}, Stages: stages},
		naive: func(m *model, k ids.Tick) map[string]int64 {
			return pairs(histogramOf(countsAt(m, k)))
		},
	}
}

func histogramOf(counts map[string]int64) map[string]int64 {
	by := map[string]int64{}
	for _, n := range counts {
		by[fmt.Sprint(n)]++
	}
	return by
}

// pairs makes rows of a map.
func pairs(of map[string]int64) map[string]int64 {
	out := map[string]int64{}
	for k, n := range of {
		out[fmt.Sprintf("%s|%d", null(k), n)] = 1
	}
	return out
}

// deep: SELECT count(*), sum(n) FROM histogram's query: four stages
func deep() testView {
	v := histogram()
	stages, between := v.plan.Stages, v.plan.Output
	stages[2].Exchange = &plan.Exchange{}
	out := record.Schema{bigint("c"), numeric("s")}
	stages = append(stages, plan.Stage{Ops: []plan.Op{inputOf(2, between), grouped(0, out, nil, countStar, aggOf(plan.AggSum, 1))}})
	return testView{
		name: "deep",
		plan: &plan.Plan{Version: plan.Version, Output: out, Key: []int{}, Stages: stages},
		naive: func(m *model, k ids.Tick) map[string]int64 {
			var c, s int64
			for _, n := range histogramOf(countsAt(m, k)) {
				c, s = c+1, s+n
			}
			if c == 0 {
				return map[string]int64{"0|NULL": 1}
			}
			return map[string]int64{fmt.Sprintf("%d|%d", c, s): 1}
		},
	}
}

// diamond: rows of the stream, its counts and the counts' counts, added up by key: two scans of one stream, two consumers
// of one stage, a stage of three inputs, constant rows
func diamond() testView {
	stages, counts := countsOf()
	stages[1].Exchange = &plan.Exchange{Key: []int{0}}
	both := record.Schema{text("k"), bigint("n")}
	one := plan.Expr{Kind: plan.ExprConst, Type: record.BigInt, Const: &record.Value{Type: record.BigInt, Int: 1}}
	key := plan.Expr{Kind: plan.ExprConst, Type: record.Text, Const: &record.Value{Type: record.Text, Bytes: []byte("const")}}
	ten := plan.Expr{Kind: plan.ExprConst, Type: record.BigInt, Const: &record.Value{Type: record.BigInt, Int: 10}}
	out := record.Schema{text("k"), numeric("s")}
	stages = append(stages,
		plan.Stage{Ops: []plan.Op{scanOp(text("k"), bigint("n"))}, Exchange: &plan.Exchange{Key: []int{0}}},
		plan.Stage{Ops: []plan.Op{inputOf(1, counts), {Kind: plan.OpProject, Inputs: []int{0}, Schema: both,
			Project: &plan.Project{Exprs: []plan.Expr{{Kind: plan.ExprCol, Type: record.Text, Col: 0}, one}}}, {Kind: plan.OpDistinct, Inputs: []int{1}, Schema: both}},
			Exchange: &plan.Exchange{Local: true}},
		plan.Stage{Ops: []plan.Op{{Kind: plan.OpValues, Schema: both, Values: &plan.Values{Rows: [][]plan.Expr{{key, ten}, {key, one}}}}},
			Exchange: &plan.Exchange{Key: []int{0}}},
		plan.Stage{Ops: []plan.Op{inputOf(1, counts), inputOf(2, both), inputOf(3, both), inputOf(4, both), union(both, 0, 1, 2, 3),
			grouped(4, out, []int{0}, aggOf(plan.AggSum, 1))}},
	)
	return testView{
		name: "diamond",
		plan: &plan.Plan{Version: plan.Version, Output: out, Key: []int{0}, Stages: stages},
		naive: func(m *model, k ids.Tick) map[string]int64 {
			sums := countsAt(m, k)
			for key := range sums {
				sums[key]++
			}
			m.each(k, func(e *event) { sums[e.k] += e.n })
			sums["const"] = 11
			return pairs(sums)
		},
	}
}

// everywhere: the counts by key, in every partition
func everywhere(partitions int) testView {
	stages, counts := countsOf()
	stages[1].Exchange = &plan.Exchange{Broadcast: true}
	stages = append(stages, plan.Stage{Ops: []plan.Op{inputOf(1, counts)}})
	return testView{
		name: "everywhere",
		plan: &plan.Plan{Version: plan.Version, Output: counts, Stages: stages},
		naive: func(m *model, k ids.Tick) map[string]int64 {
			out := pairs(countsAt(m, k))
			for row := range out {
				out[row] = int64(partitions)
			}
			return out
		},
	}
}

// finals: SELECT window_end, sum(c) FROM (SELECT k, window_end, count(*) AS c FROM TUMBLE(s) GROUP BY k, window_end) GROUP BY
// window_end, final; over the inner query as stages of its own or, with over, over a view of it
func finals(over ids.StreamID) testView {
	aggs := []plan.Agg{countStar}
	source, between := windowStage(aggs)
	inner := record.Schema{text("k"), stamp("window_end"), bigint("c")}
	out := record.Schema{stamp("window_end"), numeric("s")}
	last := func(in plan.Op) plan.Stage {
		return plan.Stage{Ops: []plan.Op{in, grouped(0, out, []int{1}, aggOf(plan.AggSum, 2)),
			{Kind: plan.OpEmitFinal, Inputs: []int{1}, Schema: out, EmitFinal: &plan.EmitFinal{WindowEnd: 0}}}}
	}
	p := &plan.Plan{Version: plan.Version, Output: out, Key: []int{0}}
	v := testView{name: "finals", plan: p}
	if over == 0 {
		p.Stages = []plan.Stage{{Ops: source, Exchange: &plan.Exchange{Key: []int{0, 1}}},
			{Ops: []plan.Op{inputOf(0, between), aggregate(0, plan.AggFinal, inner, []int{0, 1}, aggs...)}, Exchange: &plan.Exchange{Key: []int{1}}},
			last(inputOf(1, inner))}
		v.late = true
	} else {
		v.name = "finals_over"
		p.Stages = []plan.Stage{{Ops: []plan.Op{scanView(over, inner...)}, Exchange: &plan.Exchange{Key: []int{1}}}, last(inputOf(0, inner))}
	}
	v.naive = func(m *model, k ids.Tick) map[string]int64 {
		mark, ok := m.watermark(k)
		sums := map[string]int64{}
		m.eachWindowed(k, func(e *event, end int64) {
			if ok && end <= mark {
				sums[fmt.Sprint(end)]++
			}
		})
		return pairs(sums)
	}
	return v
}

// overCounts: SELECT c, count(*) FROM per_key GROUP BY c, over a view
func overCounts(over ids.StreamID) testView {
	in := record.Schema{bigint("c")}
	out := record.Schema{bigint("c"), bigint("n")}
	return testView{
		name: "over_counts",
		plan: &plan.Plan{Version: plan.Version, Output: out, Key: []int{0}, Stages: []plan.Stage{
			{Ops: []plan.Op{scanView(over, in...)}, Exchange: &plan.Exchange{Key: []int{0}}},
			{Ops: []plan.Op{inputOf(0, in), grouped(0, out, []int{0}, countStar)}},
		}},
		naive: func(m *model, k ids.Tick) map[string]int64 { return pairs(histogramOf(countsAt(m, k))) },
	}
}

// overRows: SELECT n, k FROM filtered WHERE n < 70, over a view whose rows are only appended
func overRows(over ids.StreamID) testView {
	in := record.Schema{bigint("n"), text("k")}
	lt := plan.Expr{Kind: plan.ExprCall, Type: record.Boolean, Func: "lt", Args: []plan.Expr{
		{Kind: plan.ExprCol, Type: record.BigInt, Col: 0},
		{Kind: plan.ExprConst, Type: record.BigInt, Const: &record.Value{Type: record.BigInt, Int: 70}},
	}}
	return testView{
		name: "over_rows",
		plan: &plan.Plan{Version: plan.Version, Output: in, Stages: []plan.Stage{{Ops: []plan.Op{scanView(over, in...),
			{Kind: plan.OpFilter, Inputs: []int{0}, Schema: in, Filter: &plan.Filter{Pred: lt}}}}}},
		naive: func(m *model, k ids.Tick) map[string]int64 {
			out := map[string]int64{}
			m.each(k, func(e *event) {
				if e.n >= 50 && e.n < 70 {
					out[fmt.Sprintf("%d|%s", e.n, null(e.k))]++
				}
			})
			return out
		},
	}
}

// joined: two views, and the stream once more, side by side: SELECT c FROM sizes UNION ALL SELECT c FROM histogram
func joined(sizesID, histogramID ids.StreamID) testView {
	out := record.Schema{bigint("c")}
	return testView{
		name: "joined",
		plan: &plan.Plan{Version: plan.Version, Output: out, Stages: []plan.Stage{
			{Ops: []plan.Op{scanView(histogramID, out...)}, Exchange: &plan.Exchange{Key: []int{0}}},
			{Ops: []plan.Op{scanView(sizesID, out...), inputOf(0, out), union(out, 0, 1)}}}},
		naive: func(m *model, k ids.Tick) map[string]int64 {
			out := sizes().naive(m, k)
			for c := range histogramOf(countsAt(m, k)) {
				out[c]++
			}
			return out
		},
	}
}

// graphRun is a randomRun with views of many stages and views over views.
type graphRun struct {
	*randomRun
	mu     sync.Mutex
	wishes map[ids.StreamID]ids.Tick // views that are to begin anew, with the created_tick that they have
	anew   int
}

func newGraphRun(t *testing.T, seed uint64) *graphRun {
	r := &graphRun{randomRun: newRandomRun(t, seed), wishes: map[ids.StreamID]ids.Tick{}}
	for _, n := range r.c.nodes {
		r.c.stop(n)
	}
	r.c.begin = func(_ context.Context, id ids.StreamID, created ids.Tick) error {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.wishes[id] = created
		return nil
	}
	base, retain := r.c.cfg, ids.Tick(1+r.rng.IntN(2)*60_000_000)*1_000
	r.c.cfg = func(cfg *Config) {
		base(cfg)
		cfg.RetainTicks = retain
		cfg.FlushInterval = 10 * time.Millisecond
	}
	r.c.durable = time.Duration(1+r.rng.IntN(100)) * time.Millisecond
	for _, n := range r.c.nodes {
		r.c.start(n)
	}
	return r
}

func (r *graphRun) create() {
	parts := len(r.c.state.Partitions)
	add := func(make func(first ids.StreamID) testView) {
		r.nextView++
		v := make(r.nextView)
		rv := &runView{testView: v, id: r.nextView}
		r.c.ahead = ids.Tick(r.rng.IntN(2) * r.rng.IntN(40_000))
		rv.model = r.c.createView(rv.id, v, false)
		r.views = append(r.views, rv)
	}
	fixed := func(v testView) func(ids.StreamID) testView { return func(ids.StreamID) testView { return v } }
	first := r.nextView + 1
	for _, v := range []testView{perKey(), sizes(), windows(false), filtered(), histogram(), deep(), diamond(), everywhere(parts), finals(0)} {
		add(fixed(v))
		if r.rng.IntN(3) == 0 {
			r.tick()
		}
	}
	for range 2 {
		r.tick()
	}
	add(fixed(overCounts(first)))
	over := r.nextView
	r.tick()
	for _, v := range []testView{overRows(first + 3), finals(first + 2), joined(first+1, first+4), overCounts(first), overCounts(over)} {
		if v.name == "over_counts" && v.plan.Stages[0].Ops[0].Scan.Object == uint64(over) {
			v.plan.Stages[0].Ops[0].Scan.Columns = []string{"n"}
			v.naive = func(m *model, k ids.Tick) map[string]int64 {
				return pairs(histogramOf(histogramOf(countsAt(m, k))))
			}
		}
		add(fixed(v))
	}
}

// settle applies what was wished for, and waits until nothing is.
func (r *graphRun) settle() {
	r.mu.Lock()
	wishes := r.wishes
	r.wishes = map[ids.StreamID]ids.Tick{}
	r.mu.Unlock()
	if len(wishes) == 0 {
		return
	}
	r.c.change(func(st *internalv1.ClusterState) {
		for i, v := range st.Views {
			if created, ok := wishes[ids.StreamID(v.Id)]; ok && uint64(created) == v.CreatedTick {
				r.anew++
				st.Views[i] = &internalv1.ViewDef{Id: v.Id, Name: v.Name, Plan: v.Plan, CreatedTick: uint64(r.c.tick)}
				for _, rv := range r.views {
					if rv.id == ids.StreamID(v.Id) {
						rv.model.created = r.c.tick
					}
				}
			}
		}
	})
}

// checkNow compares a view with its model at the last tick, after it has begun anew if it must.
func (r *graphRun) checkNow(v *runView) {
	r.t.Helper()
	for deadline := time.Now().Add(2 * wait); ; {
		r.settle()
		tick := r.c.tick
		if tick < v.model.created {
			r.tick()
			continue
		}
		got, err := r.c.readWithin(time.Second, v.id, tick)
		if err == nil {
			if want := v.naive(v.model, tick); !maps.Equal(got, want) {
				r.t.Fatalf("%s (%d) at tick %d (created %d) has\n  %s\nwant\n  %s", v.name, v.id, tick, v.model.created, show(got), show(want))
			}
			return
		}
		if time.Now().After(deadline) {
			for _, n := range r.c.nodes {
				r.t.Log(n.rt.dump())
			}
			r.t.Fatalf("%s (%d) at %d: %v", v.name, v.id, tick, err)
		}
		// Ticks never end, and a node that was just started knows of none.
		r.c.closeTick(r.c.tick+1000, r.rng.Perm(len(r.c.state.Partitions)))
	}
}

// lose deletes what a node has stored of one stage, or of all, of a view in a partition.
func (r *graphRun) lose(n *testNode) {
	v := r.views[r.rng.IntN(len(r.views))]
	p := ids.PartitionID(r.rng.IntN(len(r.c.state.Partitions)))
	var lo, hi []byte
	switch stage := r.rng.IntN(len(v.plan.Stages) + 1); {
	case stage == len(v.plan.Stages):
		lo, hi = storage.StatePartitionRange(v.id, p)
	case stage == len(v.plan.Stages)-1:
		lo, hi = storage.LastStageRange(v.id, p)
	default:
		lo, hi = storage.StageRange(v.id, p, byte(stage))
	}
	r.c.lose(n, func(b *storage.Batch) { b.DeleteRange(lo, hi) })
}

func (r *graphRun) run(rounds int) {
	rng, c := r.rng, r.c
	for round := range rounds {
		r.tick()
		r.settle()
		switch k := rng.IntN(40); {
		case round == 3:
			r.create()
		case k < 6 && len(c.nodes) > 1:
			c.move(ids.PartitionID(rng.IntN(len(c.state.Partitions))), rng.IntN(len(c.nodes)))
			r.publish()
		case k == 6:
			c.crash(c.nodes[rng.IntN(len(c.nodes))], rng)
		case k == 16:
			c.crashAll(rng)
			r.publish()
		case k == 7:
			c.logs.mu.Lock()
			c.logs.fail[ids.PartitionID(rng.IntN(len(c.state.Partitions)))] = rng.IntN(3)
			c.logs.mu.Unlock()
		case k < 10 && len(r.views) > 0:
			r.lose(c.nodes[rng.IntN(len(c.nodes))])
		case k < 16 && len(r.views) > 0:
			r.checkNow(r.views[rng.IntN(len(r.views))])
		}
	}
	for _, v := range r.views {
		r.checkNow(v)
		if v.late {
			r.checkLate(v, c.tick)
		}
	}
}

func TestRandomGraph(t *testing.T) {
	seeds := []uint64{1, 2, 3, 4, 5, 6}
	if *seedFlag != 0 {
		seeds = []uint64{*seedFlag}
	}
	for _, seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Logf("again: go test ./partition/stage -run TestRandomGraph -stage.seed=%d", seed)
			r := newGraphRun(t, seed)
			r.run(*roundsFlag)
			t.Logf("%d nodes, %d partitions: views began anew %d times", len(r.c.nodes), len(r.c.state.Partitions), r.anew)
		})
	}
}

// TestGraphPlans runs each plan alone, on one node and on three, and reads it at old ticks too.
func TestGraphPlans(t *testing.T) {
	for _, nodes := range []int{1, 3} {
		for _, v := range []testView{histogram(), deep(), diamond(), everywhere(5), finals(0)} {
			t.Run(fmt.Sprintf("%s/%d", v.name, nodes), func(t *testing.T) {
				c := newTestCluster(t, nodes, 5, nil)
				rng := rand.New(rand.NewPCG(1, 1))
				c.fill(rng, 10, 20)
				m := c.createView(100, v, false)
				c.check(100, v, m, c.tick)
				for range 10 {
					c.fill(rng, 3, 10)
					c.check(100, v, m, c.tick)
				}
				c.closeTick(c.tick+2*testIdle, rng.Perm(5))
				c.check(100, v, m, c.tick)
				c.check(100, v, m, m.created)
			})
		}
	}
}

// TestStageLost takes the state of the last stage away in one partition, when the stages before it have let go of what it
// would need: they are computed again, and nobody else notices.
func TestStageLost(t *testing.T) {
	r := newGraphRun(t, 2)
	c := r.c
	c.durable = 5 * time.Millisecond
	n := c.nodes[0]
	c.stop(n)
	c.start(n)
	v := deep()
	rv := &runView{testView: v, id: 100, model: c.createView(100, v, false)}
	r.views = append(r.views, rv)
	for lost := range 3 {
		trimmed := func() bool {
			r.tick()
			r.checkNow(rv)
			inv := n.rt.all.Load()
			for _, t := range inv.targets {
				t.mu.Lock()
				kept := !t.plan.last && t.base
				t.mu.Unlock()
				if kept {
					return false
				}
			}
			return true
		}
		eventually(t, "the stages let go of their history", trimmed)
		c.lose(n, func(b *storage.Batch) {
			if lost == 2 {
				b.DeleteRange(storage.StageRange(100, 0, 1))
			}
			b.DeleteRange(storage.LastStageRange(100, 0))
		})
		r.tick()
		r.checkNow(rv)
		if n.rt.Metrics().Redone == 0 {
			t.Error("nothing was computed again")
		}
	}
}

// TestUnsupportedPlans are refused with their reason.
func TestUnsupportedPlans(t *testing.T) {
	c := newTestCluster(t, 1, 2, nil)
	v := overCounts(55)
	c.createView(100, v, false)
	c.createView(101, overCounts(100), false)
	for _, s := range c.nodes[0].rt.Stats() {
		if s.State != StateFailed || !strings.Contains(s.LastError, map[uint64]string{100: "doesn't exist", 101: "has failed"}[s.View]) {
			t.Errorf("%v", s)
		}
	}
}
