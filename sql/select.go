package sql

import (
	"slices"

	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// PlanSelect plans an ad-hoc query: stage 0 runs in every partition and hands its rows to the gateway, where the last
// stage runs. A query without FROM has that stage only. Errors: 42P01 (unknown relation), 42703 (unknown column),
// 42702 (ambiguous), 42883 (no such function or operator), 42803 (grouping), 42804 (types), 0A000, and those of literals.
func PlanSelect(s *Select, c Catalog) (*plan.Plan, error) {
	a := &analyzer{src: s.src, catalog: c, params: valuesOf(s.statement)}
	q, err := a.query(s)
	if err != nil {
		return nil, err
	}
	p := &planner{src: s.src, emitAt: -1}
	if err := p.query(q, all(len(q.outs)), true); err != nil {
		return nil, err
	}
	p.gather()
	return p.plan(q), nil
}

// describeSelect returns the result's columns.
func describeSelect(s *Select, ps *parameters, c Catalog) (record.Schema, error) {
	a := &analyzer{src: s.src, catalog: c, params: ps}
	q, err := a.query(s)
	if err != nil {
		return nil, err
	}
	out := record.Schema{}
	for _, o := range q.outs[:q.visible] {
		out = append(out, record.Field{Name: o.name, Type: o.node.typ})
	}
	return out, nil
}

func all(n int) []bool { return slices.Repeat([]bool{true}, n) }

func (p *planner) plan(q *query) *plan.Plan {
	out := &plan.Plan{Version: plan.Version, Stages: p.stages}
	for _, o := range q.outs[:q.visible] {
		out.Output = append(out.Output, record.Field{Name: o.name, Type: o.node.typ})
	}
	return out
}

// PlanView plans a materialized view and tells the ids of what it reads. Errors are those of PlanSelect, 42701 (an
// output name twice) and 22023 (emit = 'final' without a window).
func PlanView(v *CreateView, c Catalog) (p *plan.Plan, dependsOn []uint64, err error) {
	a := &analyzer{src: v.src, catalog: c, live: true}
	if err := refuseLive(v.query); err != nil {
		return nil, nil, err
	}
	q, err := a.query(v.query)
	if err != nil {
		return nil, nil, err
	}
	if err := v.nameOutputs(q); err != nil {
		return nil, nil, err
	}
	b := &planner{src: v.src, live: true, emitAt: -1}
	if v.EmitFinal {
		b.emitAt = v.emitAt
	}
	if err := b.query(q, all(len(q.outs)), true); err != nil {
		return nil, nil, err
	}
	p = b.plan(q)
	p.Key = q.key()
	return p, a.used, nil
}

// refuseLive names what an ad-hoc query can have and a view can't, in its subqueries too.
func refuseLive(s *Select) error {
	for ; s != nil; s = s.from.sub {
		const hint = "use it when you read the view"
		switch {
		case s.distinct:
			return s.src.unsupported(s.at, "use GROUP BY", "DISTINCT in a materialized view is not supported")
		case len(s.orderBy) > 0:
			return s.src.unsupported(s.orderBy[0].expr.pos(), hint, "ORDER BY in a materialized view is not supported")
		case s.limit != nil:
			return s.src.unsupported(s.limit.pos(), hint, "LIMIT in a materialized view is not supported")
		case s.offset != nil:
			return s.src.unsupported(s.offset.pos(), hint, "OFFSET in a materialized view is not supported")
		case s.from == nil:
			return s.src.unsupported(s.at, "", "a materialized view without FROM is not supported")
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

// key returns the positions of the group's keys among the outputs, in their order, or nil when one is missing. A window's
// start and end are one key.
func (q *query) key() []int {
	if !q.grouped || len(q.keys) == 0 {
		return nil
	}
	var out []int
	for k := range q.keys {
		i := slices.IndexFunc(q.outs, func(o output) bool { return o.node.kind == plan.ExprCol && o.node.col == k })
		switch {
		case i >= 0:
			out = append(out, i)
		case q.keyWindow(k) == nil || !q.twin(k):
			return nil
		}
	}
	return out
}

// twin tells whether the other bound of the window that key k is a bound of is among the keys and outputs.
func (q *query) twin(k int) bool {
	for j := range q.keys {
		if w := q.keyWindow(j); j != k && w != nil && w.end != q.keyWindow(k).end &&
			slices.ContainsFunc(q.outs, func(o output) bool { return o.node.kind == plan.ExprCol && o.node.col == j }) {
			return true
		}
	}
	return false
}
