package sql

import (
	"fmt"
	"maps"
	"slices"

	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// grouping is an aggregate while it is planned.
type groupPlan struct {
	r    *rel
	keys []int
	aggs []*aggregate
	need idSet // of the input
	// final holds the rows of a window back until it is over.
	final   bool
	partial []plan.Agg // as phase partial has them
}

// aggregate groups rows. Where no row is taken back, rows are combined before they move: a partition sends at most one
// row for each group and tick. Above another aggregate of a view rows are taken back, and then the rows themselves move.
func (p *planner) aggregate(r *rel, need idSet) *stream { return p.grouped(r, need, false) }

func (p *planner) grouped(r *rel, need idSet, final bool) *stream {
	g := &groupPlan{r: r, keys: r.agg.keys, need: idSet{}, final: final}
	g.need.addAll(g.keys)
	for _, a := range r.agg.aggs {
		if need[a.id] {
			g.aggs = append(g.aggs, a)
			a.each(func(n **node) { g.need.addNode(*n) })
		}
	}
	if s := p.paned(g); s != nil {
		return s
	}
	bounds := keepBounds(p.a.bounds(r.in[0]), g.keys)
	s := p.build(r.in[0], g.need)
	p.groupInput(s, g)
	if !s.appendOnly {
		bounds = nil
	}
	by := g.keys
	if want := p.by[r]; want != nil && !p.serves(s, by) {
		by = want
	}
	return p.phases(s, g, bounds, by, nil)
}

// groupInput makes the keys and arguments columns: if they aren't, there is one projection to just them.
func (p *planner) groupInput(s *stream, g *groupPlan) {
	var wanted []int
	plain := true
	note := func(n *node) int {
		if n.kind == plan.ExprCol {
			_, there := s.pos[n.col]
			plain = plain && there
			wanted = append(wanted, n.col)
			return n.col
		}
		plain = false
		for id, v := range s.virt { // count(x), sum(x) of a computed x
			if same(v, s.node(n)) {
				wanted = append(wanted, id)
				return id
			}
		}
		id := p.a.newColumn(p.a.text(n), n.typ)
		s.virt[id] = s.node(n)
		wanted = append(wanted, id)
		return id
	}
	for _, k := range g.keys {
		note(p.a.columnNode(k, 0))
	}
	aggs := make([]*aggregate, len(g.aggs))
	for i, a := range g.aggs {
		c := *a
		c.order = slices.Clone(a.order)
		c.more = slices.Clone(a.more)
		c.each(func(n **node) { *n = p.a.columnNode(note(*n), (*n).pos) })
		aggs[i] = &c
	}
	g.aggs = aggs
	if !plain {
		p.project(s, unique(wanted), nil)
	}
}

// agg makes a's operator part over the stream's columns.
func (p *planner) agg(s *stream, a *aggregate) *plan.Agg {
	out := &plan.Agg{Func: a.fn, Arg: -1, Type: a.typ, Distinct: a.distinct, Const: a.consts}
	if a.arg != nil {
		out.Arg, out.ArgType = s.pos[a.arg.col], a.arg.typ
	}
	if a.filter != nil {
		out.Filter = s.pos[a.filter.col] + 1
	}
	p.aggMore(s, a, out)
	return out
}

// phases appends the aggregate: in one phase where equal keys meet already, else in two, with an exchange by the columns
// of by between them. shape sets what is particular to a phase.
func (p *planner) phases(s *stream, g *groupPlan, bounds []bound, by []int, shape func(*plan.Aggregate)) *stream {
	together := p.live && p.serves(s, by) || !p.live && s.st == p.gate
	combine := s.appendOnly || !p.live
	keys := identity(len(g.keys))
	switch {
	case shape == nil && (together || !combine):
		if !together {
			p.project(s, g.columns(s), nil)
		}
		p.together(s, setOf(g.columns(s)), by)
		p.phase(s, g, plan.AggSingle, s.positions(g.keys), bounds, nil)
	default:
		p.phase(s, g, plan.AggPartial, s.positions(g.keys), nil, nil)
		p.relabel(s, g.keys)
		switch {
		case !p.live:
			if s.st != p.gate {
				p.move(s, plan.Exchange{Key: []int{}, Gather: true})
				s.dist = distribution{kind: distSingle}
			}
		case p.serves(s, by):
			if s.st.scan {
				p.stay(s)
			}
		default:
			p.move(s, plan.Exchange{Key: s.positions(by)})
			s.dist = hashed(by)
		}
		p.phase(s, g, plan.AggFinal, keys, bounds, shape)
	}
	p.relabel(s, g.keys)
	for i, a := range g.aggs {
		s.pos[a.id] = len(g.keys) + i
	}
	s.appendOnly = !p.live
	s.keys = [][]int{g.keys}
	return s
}

// columns returns the keys and then what the aggregates read.
func (g *groupPlan) columns(*stream) []int {
	ids := slices.Clone(g.keys)
	for _, a := range g.aggs {
		a.each(func(n **node) { ids = append(ids, (*n).col) })
	}
	return unique(ids)
}

// relabel says that the stream's first columns are the keys.
func (p *planner) relabel(s *stream, keys []int) {
	s.pos, s.virt = map[int]int{}, map[int]*node{}
	for i, k := range keys {
		s.pos[k] = i
	}
}

// partialSuffix ends the name of an aggregate's first partial column.
const partialSuffix = "#0"

func partialName(i int) string {
	if i == 0 {
		return partialSuffix
	}
	return fmt.Sprintf("#%d", i)
}

func (p *planner) phase(s *stream, g *groupPlan, phase plan.AggPhase, keys []int, bounds []bound, shape func(*plan.Aggregate)) {
	in := s.schema()
	op := &plan.Aggregate{Phase: phase, Keys: keys, Aggs: []plan.Agg{}, AppendOnly: s.appendOnly || !p.live}
	schema := make(record.Schema, 0, len(keys)+len(g.aggs)+1)
	for i, k := range keys {
		name := in[k].Name
		if w := p.a.cols.of(g.keys[i]).window; w != nil && shape != nil {
			name = p.a.cols.of(g.keys[i]).name
		}
		schema = append(schema, record.Field{Name: name, Type: in[k].Type})
	}
	for i, a := range g.aggs {
		var out plan.Agg
		if phase == plan.AggFinal {
			out = g.partial[i]
		} else {
			out = *p.agg(s, a)
		}
		op.Aggs = append(op.Aggs, out)
		if phase != plan.AggPartial {
			schema = append(schema, record.Field{Name: a.name, Type: a.typ})
			continue
		}
		for j, t := range out.PartialTypes() {
			schema = append(schema, record.Field{Name: a.name + partialName(j), Type: t})
		}
	}
	if phase == plan.AggPartial {
		g.partial = op.Aggs
		schema = append(schema, record.Field{Name: "rows", Type: record.BigInt})
	}
	if phase != plan.AggPartial {
		for _, b := range bounds {
			if i := slices.Index(g.keys, b.col); i >= 0 && b.drop == nil && p.live && op.AppendOnly {
				op.Expire = &plan.Expire{Col: i, Delay: b.slack}
				break
			}
		}
	}
	if shape != nil {
		shape(op)
	}
	p.add(s, plan.Op{Kind: plan.OpAggregate, Schema: schema, Aggregate: op})
}

// paned plans a grouping by hopping, growing or session windows in a way that touches each row once: by panes, or by
// fragments of sessions. It returns nil where that can't be.
func (p *planner) paned(g *groupPlan) *stream {
	in := g.r.in[0]
	var items []item
	for in.kind == relExtend {
		items = append(slices.Clone(in.items), items...)
		in = in.in[0]
	}
	if in.kind != relWindow || in.win.kind == windowTumble || p.live && !p.a.appendOnly(in.in[0]) {
		return nil
	}
	w := in.win
	start, end := slices.Contains(g.keys, w.start), slices.Contains(g.keys, w.end)
	if !start && !end || w.kind == windowCumulate && !end {
		return nil
	}
	bounds := setOf([]int{w.start, w.end})
	for _, it := range items {
		if bounds.touches(it.node) {
			return nil
		}
	}
	for _, a := range g.aggs {
		touched := false
		a.each(func(n **node) { touched = touched || bounds.touches(*n) })
		if touched {
			return nil
		}
	}
	var others []int
	for _, k := range g.keys {
		if !bounds[k] {
			others = append(others, k)
		}
	}
	if w.kind == windowSession && !sameIDs(w.keys, others, items) {
		return nil
	}
	g.keys = append(slices.Clone(others), w.start, w.end)
	g.need.addAll([]int{w.time})
	if w.mark != 0 {
		g.need[w.mark] = true
	}
	delete(g.need, w.start)
	delete(g.need, w.end)
	return p.panedInput(g, in, items, others)
}

// sameIDs tells whether the sessions' keys are what is grouped by.
func sameIDs(keys, others []int, _ []item) bool {
	return len(keys) == len(others) && setOf(keys).hasAll(others)
}

func (p *planner) panedInput(g *groupPlan, in *rel, items []item, others []int) *stream {
	w := in.win
	need := maps.Clone(g.need)
	for _, it := range items {
		need.addNode(it.node)
	}
	s := p.build(in.in[0], need)
	p.settle(s, need, w.time)
	if w.kind == windowSession {
		p.sessionFragments(s, w, need)
	} else {
		p.hop(s, w, true)
	}
	for _, it := range items {
		if g.need[it.id] {
			s.virt[it.id] = s.node(it.node)
		}
	}
	p.groupInput(s, g)
	var expires []bound
	if w.mark != 0 {
		expires = []bound{{col: w.end}}
	}
	return p.phases(s, g, expires, others, func(a *plan.Aggregate) {
		if w.kind == windowSession {
			a.Session = &plan.SessionKeys{Gap: w.size, Final: g.final}
			return
		}
		a.Panes = &plan.Panes{Size: w.size, Slide: w.slide, Offset: w.offset, Cumulate: w.kind == windowCumulate, Final: g.final}
	})
}

// sessionFragments gives each row the session that it would be alone: from its time to the gap after it. A row is late when
// that has ended.
func (p *planner) sessionFragments(s *stream, w *windowRel, need idSet) {
	s.pos[w.start] = s.pos[w.time]
	gap := constant(record.Value{Type: record.IntervalT, Interval: record.Interval{Micros: w.size}}, 0)
	s.virt[w.end] = callNode("add", record.TimestampTZ, 0, p.a.columnNode(w.time, 0), gap)
	ids := s.columnsOf(withKeys(need, []int{w.start, w.end}))
	p.project(s, ids, nil)
	op := &plan.DropLate{Time: s.pos[w.end], Watermark: -1, Event: s.pos[w.time] + 1}
	if w.mark != 0 {
		op.Watermark = s.pos[w.mark]
	}
	p.add(s, plan.Op{Kind: plan.OpDropLate, DropLate: op})
}

// expand repeats each row for each grouping set.
func (p *planner) expand(r *rel, need idSet) *stream {
	x := r.expand
	below := maps.Clone(need)
	for _, id := range append(slices.Clone(x.out), x.grouping) {
		delete(below, id)
	}
	below.addAll(x.keys)
	s := p.build(r.in[0], below)
	ids := slices.DeleteFunc(s.columnsOf(below), func(id int) bool { return slices.Contains(x.keys, id) })
	p.project(s, append(ids, x.keys...), nil) // a copy of each key, which becomes NULL in place
	op := &plan.Expand{Keys: s.positions(x.keys), Sets: x.sets}
	for i, id := range x.out {
		s.pos[id] = op.Keys[i]
		delete(s.pos, x.keys[i])
	}
	schema := append(slices.Clone(s.schema()), record.Field{Name: "grouping", Type: record.BigInt})
	s.pos[x.grouping] = len(schema) - 1
	p.add(s, plan.Op{Kind: plan.OpExpand, Schema: schema, Expand: op})
	s.keys = nil
	if s.dist.kind == distHash { // a key is NULL where its set lacks it
		s.dist = distribution{}
	}
	return s
}
