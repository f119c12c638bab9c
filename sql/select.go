package sql

import (
	"fmt"
	"slices"

	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// PlanSelect plans an ad-hoc query: a stage for each relation that it scans runs in every partition and hands its rows to
// the node that was asked, where the last stage does the rest. A query that scans nothing has that stage only. Errors:
// 42P01 (unknown relation), 42703 (unknown column), 42702 (ambiguous), 42883 (no such function or operator), 42803
// (grouping), 42804 (types), 42P20 (window functions), 21000 (a scalar subquery of more rows), 0A000, and those of
// literals.
func PlanSelect(s *Select, c Catalog) (*plan.Plan, error) {
	a := &analyzer{src: s.src, catalog: c, params: valuesOf(s.statement)}
	q, err := a.query(s, &env{})
	if err != nil {
		return nil, err
	}
	return a.planSelect(q)
}

// planSelect plans a checked ad-hoc query.
func (a *analyzer) planSelect(q *query) (*plan.Plan, error) {
	a.prepare(q)
	p := &planner{a: a, src: a.src, by: map[*rel][]int{}}
	ids, names := q.ids(), q.names()
	need := setOf(ids)
	need.addAll(orderIDs(q.sort))
	var out *plan.Plan
	err := p.run(func() {
		st := p.build(q.rel, need)
		if len(q.sort) > 0 || q.cut() {
			p.resultFirst(st, q)
			p.sorted(st, q.sort, q.limit, q.offset, need)
		}
		p.result(st, ids, names)
		out = p.plan(st, q)
	})
	return out, err
}

func (q *query) names() []string {
	out := make([]string, len(q.outs))
	for i, o := range q.outs {
		out[i] = o.name
	}
	return out
}

// prepare simplifies expressions, moves predicates down, leaves out what has no rows and decides which rows are late, in
// the query and in the shared ones that it uses.
func (a *analyzer) prepare(q *query) {
	a.simple = a.simplifier()
	for _, d := range a.shared {
		d.rel = a.prepared(d.rel)
		a.markDrops(d.rel)
	}
	q.rel = a.prepared(q.rel)
	a.markDrops(q.rel)
	a.share(q)
	// A shared query must have the columns of all its uses, whichever is planned first.
	for _, d := range a.shared {
		d.need = setOf(d.cols)
	}
}

// prepared is one tree of the query. A statement that changes rows reads its table, and a view something, whatever the
// conditions come to.
func (a *analyzer) prepared(r *rel) *rel {
	r = a.push(a.simplify(r, a.simple), nil)
	r = a.simplify(r, a.simple)
	if a.change != nil {
		return r
	}
	notes := a.notes
	if out := a.prune(r); !a.live || out.reads() {
		return out
	}
	a.notes = notes
	return r
}

// note remembers what was done to the query, for EXPLAIN.
func (a *analyzer) note(format string, args ...any) {
	if text := fmt.Sprintf(format, args...); len(a.notes) < maxNotes && !slices.Contains(a.notes, text) {
		a.notes = append(a.notes, text)
	}
}

// maxNotes bounds what a plan keeps for EXPLAIN.
const maxNotes = 32

// resultFirst makes the result's columns the first ones, under their names, and those that are there to sort by the rest.
func (p *planner) resultFirst(s *stream, q *query) {
	ids, names := unique(q.ids()), []string{}
	for _, id := range ids {
		for _, o := range q.outs {
			if o.id == id {
				names = append(names, o.name)
				break
			}
		}
	}
	for _, k := range q.sort {
		if !slices.Contains(ids, k.id) {
			ids = append(ids, k.id)
			names = append(names, exprText(s.expr(p.a.columnNode(k.id, 0)), s.schema()))
		}
	}
	p.project(s, ids, names)
}

// result makes the stream's columns the statement's result, at the node that was asked.
func (p *planner) result(s *stream, ids []int, names []string) {
	if p.live {
		p.project(s, ids, names)
		return
	}
	if s.st != p.gate {
		p.project(s, ids, names)
		p.move(s, plan.Exchange{Key: []int{}, Gather: true})
		return
	}
	p.project(s, ids, names)
}

func (p *planner) plan(s *stream, q *query) *plan.Plan {
	out := &plan.Plan{Version: plan.Version, Stages: p.numbered(s.st), Notes: p.a.notes}
	for _, o := range q.outs {
		out.Output = append(out.Output, record.Field{Name: o.name, Type: p.a.cols.of(o.id).typ})
	}
	return out
}

// describeSelect returns the result's columns.
func describeSelect(s *Select, ps *parameters, c Catalog) (record.Schema, []Origin, error) {
	a := &analyzer{src: s.src, catalog: c, params: ps}
	q, err := a.query(s, &env{})
	if err != nil {
		return nil, nil, err
	}
	out, origins := record.Schema{}, []Origin(nil)
	for _, o := range q.outs {
		origins = append(origins, a.cols.of(o.id).origin)
		out = append(out, record.Field{Name: o.name, Type: a.cols.of(o.id).typ})
	}
	return out, origins, nil
}
