package sql

import (
	"slices"

	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// PlanView plans a materialized view and tells the ids of what it reads. Errors are those of PlanSelect, 42701 (an
// output name twice) and 22023 (emit = 'final' without a window).
func PlanView(v *CreateView, c Catalog) (p *plan.Plan, dependsOn []uint64, err error) {
	a := &analyzer{src: v.src, catalog: c, live: true}
	q, err := a.query(v.query, &env{})
	if err != nil {
		return nil, nil, err
	}
	switch {
	case len(a.used) == 0:
		return nil, nil, v.src.unsupported(v.query.at, "", "a materialized view that reads nothing is not supported")
	case q.sortPos >= 0 && !q.cut():
		return nil, nil, v.src.unsupported(q.sortPos, "use it when you read the view, or add LIMIT", "ORDER BY in a materialized view is not supported")
	}
	if err := v.nameOutputs(q); err != nil {
		return nil, nil, err
	}
	a.applyCut(q)
	if v.EmitFinal {
		if err := a.emitFinal(v, q); err != nil {
			return nil, nil, err
		}
	}
	a.prepare(q)
	b := &planner{a: a, src: v.src, live: true, by: map[*rel][]int{}}
	err = b.run(func() {
		st := b.build(q.rel, setOf(q.ids()))
		b.result(st, q.ids(), q.names())
		p = b.plan(st, q)
		p.Key, p.Placed, p.Times = a.keyOf(st, q), st.placed(q), a.timesOf(q)
	})
	return p, a.used, err
}

// emitFinal holds the rows of a windowed query back until their window is over.
func (a *analyzer) emitFinal(v *CreateView, q *query) error {
	outer, in := &q.rel, q.rel
	for in.kind == relExtend { // below the columns computed last
		outer, in = &in.in[0], in.in[0]
	}
	ends, err := a.finalAt(v, &in)
	if err != nil {
		return err
	}
	ends = distinctEnds(in, ends)
	if len(ends) > 1 { // a row of several windows is final when the last of them is over
		args := make([]*node, len(ends))
		for i, id := range ends {
			args[i] = a.columnNode(id, 0)
		}
		last := a.newColumn("window_end", record.TimestampTZ)
		in = extendRel(in, item{last, callNode("greatest", record.TimestampTZ, 0, args...)})
		ends = []int{last}
	}
	*outer = &rel{kind: relEmit, in: []*rel{in}, cols: ends}
	return nil
}

// distinctEnds drops the window ends that a join or filter of r says are equal to others.
func distinctEnds(r *rel, ends []int) []int {
	var preds []*node
	var visit func(r *rel)
	visit = func(r *rel) {
		if r.kind == relFilter || r.kind == relJoin && r.join == plan.JoinInner {
			preds = append(preds, r.preds...)
		}
		if r.kind == relFilter || r.kind == relExtend || r.kind == relJoin && r.join == plan.JoinInner {
			for _, in := range r.in {
				visit(in)
			}
		}
	}
	visit(r)
	var out []int
	for _, id := range ends {
		if !slices.ContainsFunc(preds, func(n *node) bool {
			if n.kind != plan.ExprCall || n.fn != "eq" || n.args[0].kind != plan.ExprCol || n.args[1].kind != plan.ExprCol {
				return false
			}
			c, d := n.args[0].col, n.args[1].col
			return c == id && slices.Contains(out, d) || d == id && slices.Contains(out, c)
		}) {
			out = append(out, id)
		}
	}
	return out
}

// keyOf returns the positions of the columns that identify a row among the outputs, or nil when one is missing. A window's
// start and end are one.
func (a *analyzer) keyOf(s *stream, q *query) []int {
	at := func(id int) int { return slices.IndexFunc(q.outs, func(o output) bool { return o.id == id }) }
	for _, key := range s.keys {
		var out []int
		ok := len(key) > 0
		for _, id := range key {
			i := at(id)
			w := a.cols.of(id).window
			switch {
			case i >= 0:
				out = append(out, i)
			case w != nil && at(w.twin) >= 0 && slices.Contains(key, w.twin) && (w.closes || !w.end):
				// told by the other bound
			default:
				ok = false
			}
		}
		if ok && len(out) > 0 {
			return out
		}
	}
	return nil
}

// nameOutputs applies the names given to the view's columns, and checks them.
func (v *CreateView) nameOutputs(q *query) error {
	if len(v.columns) > len(q.outs) {
		return v.src.fail(v.columns[len(q.outs)].pos(), stateSyntax, "", "more names than the query's %d columns", len(q.outs))
	}
	for i, c := range v.columns {
		q.outs[i].name, q.outs[i].pos = c.name, c.pos()
	}
	seen := map[string]bool{}
	for _, o := range q.outs {
		switch {
		case seen[o.name]:
			return v.src.fail(o.pos, stateDuplicate, "give one an alias with AS", "column %q is in the view twice", o.name)
		case o.name == "?column?":
			return v.src.fail(o.pos, stateDuplicate, "give it one with AS", "a column of the view has no name")
		case slices.Contains(reservedOutputs, o.name):
			return v.src.fail(o.pos, stateReservedName, "give it an alias with AS", "column name %q is reserved", o.name)
		}
		if err := checkName(v.src, o.pos, o.name); err != nil {
			return err
		}
		seen[o.name] = true
	}
	return nil
}

// reservedOutputs stand beside a view's columns in what SUBSCRIBE writes.
var reservedOutputs = []string{"_tick", "_weight", "_progress"}
