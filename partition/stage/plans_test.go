package stage

import (
	"fmt"
	"sort"
	"strings"

	"github.com/millrace/millrace/internal/ids"
	"github.com/millrace/millrace/plan"
	millracev1 "github.com/millrace/millrace/proto/millrace/v1"
	"github.com/millrace/millrace/record"
)

const (
	testStream = 7
	testWindow = 200_000 // microseconds
	testDelay  = 30_000
	testIdle   = 300_000
)

func streamDef() *millracev1.Stream {
	return &millracev1.Stream{
		Id: testStream, Name: "s", Format: "json",
		Columns:         []*millracev1.Column{{Name: "k", Type: "text"}, {Name: "n", Type: "bigint"}, {Name: "ts", Type: "timestamptz"}},
		WatermarkColumn: "ts", WatermarkDelayUs: testDelay, IdleUs: testIdle,
	}
}

func text(name string) record.Field    { return record.Field{Name: name, Type: record.Text} }
func bigint(name string) record.Field  { return record.Field{Name: name, Type: record.BigInt} }
func numeric(name string) record.Field { return record.Field{Name: name, Type: record.Numeric} }
func stamp(name string) record.Field   { return record.Field{Name: name, Type: record.TimestampTZ} }

func scanOp(fields ...record.Field) plan.Op {
	s := &plan.Scan{Kind: plan.ScanStream, Object: testStream, Name: "s"}
	for _, f := range fields {
		s.Columns = append(s.Columns, f.Name)
	}
	return plan.Op{Kind: plan.OpScan, Schema: fields, Scan: s}
}

func inputOp(s record.Schema) plan.Op {
	return plan.Op{Kind: plan.OpInput, Schema: s, Input: &plan.Input{Stage: 0}}
}

func project(in int, s record.Schema, cols ...int) plan.Op {
	p := &plan.Project{}
	for i, c := range cols {
		p.Exprs = append(p.Exprs, plan.Expr{Kind: plan.ExprCol, Type: s[i].Type, Col: c})
	}
	return plan.Op{Kind: plan.OpProject, Inputs: []int{in}, Schema: s, Project: p}
}

var (
	countStar = plan.Agg{Func: plan.AggCountStar, Arg: -1, Type: record.BigInt}
)

func aggOf(f plan.AggFunc, col int) plan.Agg {
	t, _ := f.Result(record.BigInt)
	return plan.Agg{Func: f, Arg: col, ArgType: record.BigInt, Type: t}
}

func aggregate(in int, phase plan.AggPhase, s record.Schema, keys []int, aggs ...plan.Agg) plan.Op {
	return plan.Op{Kind: plan.OpAggregate, Inputs: []int{in}, Schema: s,
		Aggregate: &plan.Aggregate{Phase: phase, Keys: keys, Aggs: aggs, AppendOnly: true}}
}

// partialSchema is the columns between the two phases of an aggregate.
func partialSchema(keys record.Schema, aggs ...plan.Agg) record.Schema {
	s := append(record.Schema(nil), keys...)
	for i, a := range aggs {
		for j, t := range a.PartialTypes() {
			s = append(s, record.Field{Name: fmt.Sprintf("p%d_%d", i, j), Type: t})
		}
	}
	return append(s, bigint("rows"))
}

// testView is a view with its naive counterpart: the rows that it should have, as text, with their weights.
type testView struct {
	name  string
	plan  *plan.Plan
	naive func(m *model, k ids.Tick) map[string]int64
	late  bool // counts late rows
}

// perKey: SELECT k, count(*), sum(n), min(n), max(n) FROM s GROUP BY k
func perKey() testView {
	aggs := []plan.Agg{countStar, aggOf(plan.AggSum, 1), aggOf(plan.AggMin, 1), aggOf(plan.AggMax, 1)}
	between := partialSchema(record.Schema{text("k")}, aggs...)
	out := record.Schema{text("k"), bigint("c"), numeric("s"), bigint("lo"), bigint("hi")}
	return testView{
		name: "per_key",
		plan: &plan.Plan{Version: plan.Version, Output: out, Key: []int{0}, Stages: []plan.Stage{
			{Ops: []plan.Op{scanOp(text("k"), bigint("n")), aggregate(0, plan.AggPartial, between, []int{0}, aggs...)},
				Exchange: &plan.Exchange{Key: []int{0}}},
			{Ops: []plan.Op{inputOp(between), aggregate(0, plan.AggFinal, out, []int{0}, aggs...)}},
		}},
		naive: func(m *model, k ids.Tick) map[string]int64 {
			type group struct{ c, s, lo, hi int64 }
			groups := map[string]*group{}
			m.each(k, func(e *event) {
				g := groups[e.k]
				if g == nil {
					g = &group{lo: e.n, hi: e.n}
					groups[e.k] = g
				}
				g.c++
				g.s += e.n
				g.lo, g.hi = min(g.lo, e.n), max(g.hi, e.n)
			})
			out := map[string]int64{}
			for key, g := range groups {
				out[fmt.Sprintf("%s|%d|%d|%d|%d", null(key), g.c, g.s, g.lo, g.hi)] = 1
			}
			return out
		},
	}
}

func null(k string) string {
	if k == "" {
		return "NULL"
	}
	return k
}

// windowStage is the source side of the windowed views.
func windowStage(aggs []plan.Agg) ([]plan.Op, record.Schema) {
	scan := scanOp(text("k"), stamp("ts"), stamp(plan.ColWatermark))
	tumbled := append(append(record.Schema(nil), scan.Schema...), stamp("window_start"), stamp("window_end"))
	between := partialSchema(record.Schema{text("k"), stamp("window_end")}, aggs...)
	return []plan.Op{scan,
		{Kind: plan.OpTumble, Inputs: []int{0}, Schema: tumbled, Tumble: &plan.Tumble{Time: 1, Watermark: 2, Size: testWindow}},
		aggregate(1, plan.AggPartial, between, []int{0, 4}, aggs...)}, between
}

// windows: SELECT k, window_end, count(*) FROM TUMBLE(s, ts, ...) GROUP BY k, window_end, emit on change or final
func windows(final bool) testView {
	aggs := []plan.Agg{countStar}
	source, between := windowStage(aggs)
	out := record.Schema{text("k"), stamp("window_end"), bigint("c")}
	last := []plan.Op{inputOp(between), aggregate(0, plan.AggFinal, out, []int{0, 1}, aggs...)}
	v := testView{name: "windows", late: true}
	if final {
		v.name = "final"
		last = append(last, plan.Op{Kind: plan.OpEmitFinal, Inputs: []int{1}, Schema: out, EmitFinal: &plan.EmitFinal{WindowEnd: 1}})
	}
	v.plan = &plan.Plan{Version: plan.Version, Output: out, Key: []int{0, 1}, Stages: []plan.Stage{
		{Ops: source, Exchange: &plan.Exchange{Key: []int{0, 1}}}, {Ops: last},
	}}
	v.naive = func(m *model, k ids.Tick) map[string]int64 {
		counts := map[string]int64{}
		mark, ok := m.watermark(k)
		m.eachWindowed(k, func(e *event, end int64) {
			if !final || ok && end <= mark {
				counts[fmt.Sprintf("%s|%d", null(e.k), end)]++
			}
		})
		out := map[string]int64{}
		for key, n := range counts {
			out[fmt.Sprintf("%s|%d", key, n)] = 1
		}
		return out
	}
	return v
}

// local: as final, but in one stage, so that every partition has its own groups.
func local() testView {
	aggs := []plan.Agg{countStar}
	scan := scanOp(bigint(plan.ColPartition), text("k"), stamp("ts"), stamp(plan.ColWatermark))
	tumbled := append(append(record.Schema(nil), scan.Schema...), stamp("window_start"), stamp("window_end"))
	out := record.Schema{bigint("p"), stamp("window_end"), bigint("c")}
	return testView{
		name: "local", late: true,
		plan: &plan.Plan{Version: plan.Version, Output: out, Key: []int{0, 1}, Stages: []plan.Stage{{Ops: []plan.Op{scan,
			{Kind: plan.OpTumble, Inputs: []int{0}, Schema: tumbled, Tumble: &plan.Tumble{Time: 2, Watermark: 3, Size: testWindow}},
			aggregate(1, plan.AggSingle, out, []int{0, 5}, aggs...),
			{Kind: plan.OpEmitFinal, Inputs: []int{2}, Schema: out, EmitFinal: &plan.EmitFinal{WindowEnd: 1}},
		}}}},
		naive: func(m *model, k ids.Tick) map[string]int64 {
			counts := map[string]int64{}
			mark, ok := m.watermark(k)
			m.eachWindowed(k, func(e *event, end int64) {
				if ok && end <= mark {
					counts[fmt.Sprintf("%d|%d", e.p, end)]++
				}
			})
			out := map[string]int64{}
			for key, n := range counts {
				out[fmt.Sprintf("%s|%d", key, n)] = 1
			}
			return out
		},
	}
}

// filtered: SELECT k, n FROM s WHERE n >= 50: rows that never disappear and may be there more than once
func filtered() testView {
	scan := scanOp(text("k"), bigint("n"))
	ge := plan.Expr{Kind: plan.ExprCall, Type: record.Boolean, Func: "ge", Args: []plan.Expr{
		{Kind: plan.ExprCol, Type: record.BigInt, Col: 1},
		{Kind: plan.ExprConst, Type: record.BigInt, Const: &record.Value{Type: record.BigInt, Int: 50}},
	}}
	return testView{
		name: "filtered",
		plan: &plan.Plan{Version: plan.Version, Output: scan.Schema, Stages: []plan.Stage{{Ops: []plan.Op{scan,
			{Kind: plan.OpFilter, Inputs: []int{0}, Schema: scan.Schema, Filter: &plan.Filter{Pred: ge}}}}}},
		naive: func(m *model, k ids.Tick) map[string]int64 {
			out := map[string]int64{}
			m.each(k, func(e *event) {
				if e.n >= 50 {
					out[fmt.Sprintf("%s|%d", null(e.k), e.n)]++
				}
			})
			return out
		},
	}
}

// sizes: SELECT count(*) FROM s GROUP BY k: rows without a key that come and go
func sizes() testView {
	aggs := []plan.Agg{countStar}
	between := partialSchema(record.Schema{text("k")}, aggs...)
	grouped, out := record.Schema{text("k"), bigint("c")}, record.Schema{bigint("c")}
	return testView{
		name: "sizes",
		plan: &plan.Plan{Version: plan.Version, Output: out, Stages: []plan.Stage{
			{Ops: []plan.Op{scanOp(text("k")), aggregate(0, plan.AggPartial, between, []int{0}, aggs...)},
				Exchange: &plan.Exchange{Key: []int{0}}},
			{Ops: []plan.Op{inputOp(between), aggregate(0, plan.AggFinal, grouped, []int{0}, aggs...), project(1, out, 1)}},
		}},
		naive: func(m *model, k ids.Tick) map[string]int64 {
			counts := map[string]int64{}
			m.each(k, func(e *event) { counts[e.k]++ })
			out := map[string]int64{}
			for _, n := range counts {
				out[fmt.Sprint(n)]++
			}
			return out
		},
	}
}

// total: SELECT count(*), sum(n) FROM s: one row, always
func total() testView {
	aggs := []plan.Agg{countStar, aggOf(plan.AggSum, 0)}
	between := partialSchema(nil, aggs...)
	out := record.Schema{bigint("c"), numeric("s")}
	return testView{
		name: "total",
		plan: &plan.Plan{Version: plan.Version, Output: out, Key: []int{}, Stages: []plan.Stage{
			{Ops: []plan.Op{scanOp(bigint("n")), aggregate(0, plan.AggPartial, between, nil, aggs...)},
				Exchange: &plan.Exchange{}},
			{Ops: []plan.Op{inputOp(between), aggregate(0, plan.AggFinal, out, nil, aggs...)}},
		}},
		naive: func(m *model, k ids.Tick) map[string]int64 {
			var c, s int64
			m.each(k, func(e *event) { c, s = c+1, s+e.n })
			if c == 0 {
				return map[string]int64{"0|NULL": 1}
			}
			return map[string]int64{fmt.Sprintf("%d|%d", c, s): 1}
		},
	}
}

func testViews() []testView {
	return []testView{perKey(), windows(false), windows(true), local(), filtered(), sizes(), total()}
}

// model recomputes from all records.
type model struct {
	created ids.Tick // of the view
	from    ids.Tick // records up to this tick don't count; but they make others late
	events  [][]event
}

// each calls fn for the records that decode with a tick <= k.
func (m *model) each(k ids.Tick, fn func(*event)) {
	for p := range m.events {
		for i := range m.events[p] {
			if e := &m.events[p][i]; e.tick <= k && e.tick > m.from && !e.bad {
				fn(e)
			}
		}
	}
}

// eachWindowed calls fn with the end of the window for the records that have a time and aren't late.
func (m *model) eachWindowed(k ids.Tick, fn func(e *event, end int64)) (late int64) {
	for p := range m.events {
		highest, any := int64(0), false
		for i := range m.events[p] {
			e := &m.events[p][i]
			if e.tick > k {
				break
			}
			if e.bad || e.ts == noTime {
				continue
			}
			end := e.ts - e.ts%testWindow + testWindow
			switch {
			case e.tick <= m.from:
			case any && end <= highest-testDelay:
				late++
			default:
				fn(e, end)
			}
			if !any || e.ts > highest {
				highest, any = e.ts, true
			}
		}
	}
	return late
}

// rawWatermark is the watermark at k by its definition, without the memory that it never goes back.
func (m *model) rawWatermark(k ids.Tick) (int64, bool) {
	least, greatest, active, known, any := int64(0), int64(0), 0, 0, false
	for p := range m.events {
		last, highest, has := streamCreated, int64(0), false
		for i := range m.events[p] {
			e := &m.events[p][i]
			if e.tick > k {
				break
			}
			last = e.tick
			if !e.bad && e.ts != noTime && (!has || e.ts > highest) {
				highest, has = e.ts, true
			}
		}
		if has && (!any || highest > greatest) {
			greatest, any = highest, true
		}
		if k >= last+testIdle {
			continue
		}
		active++
		if has {
			if known == 0 || highest < least {
				least = highest
			}
			known++
		}
	}
	if active == 0 {
		return greatest - testDelay, any
	}
	return least - testDelay, known == active
}

const streamCreated = ids.Tick(1_000_000)

func (m *model) watermark(k ids.Tick) (int64, bool) {
	at := map[ids.Tick]bool{m.created: true, k: true, streamCreated + testIdle: true}
	for p := range m.events {
		for i := range m.events[p] {
			at[m.events[p][i].tick] = true
			at[m.events[p][i].tick+testIdle] = true
		}
	}
	best, ok := int64(0), false
	for t := range at {
		if t < m.created || t > k {
			continue
		}
		if w, has := m.rawWatermark(t); has && (!ok || w > best) {
			best, ok = w, true
		}
	}
	return best, ok
}

// show renders rows with weights, sorted, for messages.
func show(rows map[string]int64) string {
	var out []string
	for r, w := range rows {
		out = append(out, fmt.Sprintf("%s x%d", r, w))
	}
	sort.Strings(out)
	if len(out) > 40 {
		out = append(out[:40], "...")
	}
	return strings.Join(out, "\n  ")
}

// addRows adds a delta's rows to a map.
func addRows(to map[string]int64, d *record.Delta) {
	for i := range d.N {
		var b strings.Builder
		for c := range d.Cols {
			if c > 0 {
				b.WriteByte('|')
			}
			if d.Cols[c].Null(i) {
				b.WriteString("NULL")
				continue
			}
			switch d.Cols[c].Type {
			case record.BigInt, record.TimestampTZ:
				fmt.Fprint(&b, d.Cols[c].Ints[i])
			default:
				b.Write(d.Cols[c].At(i))
			}
		}
		to[b.String()] += d.Weight(i)
		if to[b.String()] == 0 {
			delete(to, b.String())
		}
	}
}
