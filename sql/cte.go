package sql

import (
	"github.com/millrace/millrace/plan"
)

// env is the names that stand around a query: the columns of outer queries, and the queries of WITH.
type env struct {
	scope *scope // of the outer query whose columns may be named; nil: none
	// lateral is the columns of the relations before one in FROM, which it may name if it is LATERAL.
	lateral *scope
	ctes    *cteScope
	// exists says that nobody looks at the query's columns.
	exists bool
}

// cteScope is one query of WITH and those before and around it.
type cteScope struct {
	parent *cteScope
	def    *cteDef
	env    *env   // what the query itself may name
	bound  *query // its first use
	shared *sharedDef
}

// with returns e with the queries of WITH, each of which sees those before it.
func (e *env) with(defs []*cteDef) *env {
	out := *e
	for _, d := range defs {
		inside := out
		inside.exists, inside.lateral = false, nil
		out.ctes = &cteScope{parent: out.ctes, def: d, env: &inside}
	}
	return &out
}

func (e *env) cte(name string) *cteScope {
	for c := e.ctes; c != nil; c = c.parent {
		if c.def.name == name {
			return c
		}
	}
	return nil
}

func (e *env) cteNames() []string {
	var out []string
	for c := e.ctes; c != nil; c = c.parent {
		out = append(out, c.def.name)
	}
	return out
}

// inner returns the names around a subquery of a query with this scope.
func (e *env) inner(s *scope) *env { return &env{scope: s, ctes: e.ctes} }

// useCTE returns the rows of a WITH query. One that only filters and computes is planned anew for each use, so that each
// reads what it needs; one that keeps state is computed once.
func (a *analyzer) useCTE(c *cteScope) (*rel, []output, error) {
	if c.shared != nil {
		return a.useShared(c)
	}
	q, err := a.subqueryRel(c.def.query, c.env)
	if err != nil {
		return nil, nil, err
	}
	if len(c.def.columns) > len(q.outs) {
		return nil, nil, a.src.fail(c.def.pos(), stateColumnRef, "", "%q has %d columns, and %d names are given,", c.def.name, len(q.outs), len(c.def.columns))
	}
	for i, name := range c.def.columns {
		q.outs[i].name = name
	}
	if !q.rel.stateful() || q.rel.free() {
		return q.rel, q.outs, nil
	}
	c.bound = q
	c.shared = &sharedDef{name: c.def.name, rel: q.rel, cols: unique(q.ids()), need: map[int]bool{}}
	a.shared = append(a.shared, c.shared)
	return a.useShared(c)
}

func (a *analyzer) useShared(c *cteScope) (*rel, []output, error) {
	c.shared.uses++
	use := &sharedRel{def: c.shared}
	number := map[int]int{}
	for _, id := range c.shared.cols {
		info := *a.cols.of(id)
		info.mark = 0
		fresh := a.cols.add(info)
		use.cols, number[id] = append(use.cols, fresh), fresh
	}
	for _, id := range use.cols { // the other bound of a window is another number now, too
		if w := a.cols.of(id).window; w != nil {
			mine := *w
			mine.twin = number[w.twin]
			a.cols.of(id).window = &mine
		}
	}
	outs := make([]output, len(c.bound.outs))
	for i, o := range c.bound.outs {
		outs[i] = output{o.name, number[o.id], o.pos}
	}
	return &rel{kind: relShared, shared: use}, outs, nil
}

// stateful tells whether the tree has an operator that keeps rows.
func (r *rel) stateful() bool {
	switch r.kind {
	case relAggregate, relJoin, relTemporal, relSetOp, relDistinct, relTopN, relOver, relShared:
		return true
	case relWindow:
		if r.win.kind == windowSession {
			return true
		}
	}
	for _, in := range r.in {
		if in.stateful() {
			return true
		}
	}
	return false
}

// valuesQuery checks VALUES (...), ....
func (a *analyzer) valuesQuery(s *Select, e *env) (*query, error) {
	scope := newScope(nil)
	scope.parent = e.scope
	var subs []*pending
	b := a.binder(scope, "VALUES")
	b.env, b.subs = e, &subs
	width := len(s.values[0])
	if width > MaxColumns {
		return nil, a.src.fail(s.at, stateTooManyColumns, "", "VALUES has more than %d columns", MaxColumns)
	}
	rows := make([][]*node, len(s.values))
	for i, row := range s.values {
		if len(row) != width {
			return nil, a.src.fail(row[0].pos(), stateSyntax, "", "VALUES lists must all be the same length")
		}
		var err error
		if rows[i], err = b.bindAll(row); err != nil {
			return nil, err
		}
	}
	q := &query{at: s.at, limit: -1, sortPos: -1}
	v := &valuesRel{rows: rows}
	for c := range width {
		list := make([]*node, len(rows))
		for i := range rows {
			list[i] = rows[i][c]
		}
		list, t, err := b.common(list, "VALUES")
		if err != nil {
			return nil, err
		}
		for i := range rows {
			rows[i][c] = list[i]
		}
		name := "column" + itoa(int32(c+1))
		id := a.newColumn(name, t)
		v.cols = append(v.cols, id)
		q.outs = append(q.outs, output{name, id, s.values[0][c].pos()})
	}
	q.rel = &rel{kind: relValues, values: v}
	if len(subs) > 0 { // values that are subqueries: a row of one column each first
		return nil, a.src.unsupported(s.at, "use SELECT with UNION ALL", "a subquery in VALUES is not supported")
	}
	return q, a.orderOf(q, s)
}

// setOperation checks UNION, INTERSECT and EXCEPT.
func (a *analyzer) setOperation(s *Select, e *env) (*query, error) {
	left, err := a.subqueryRel(s.set.left, e)
	if err != nil {
		return nil, err
	}
	right, err := a.subqueryRel(s.set.right, e)
	if err != nil {
		return nil, err
	}
	if len(left.outs) != len(right.outs) {
		return nil, a.src.fail(right.outs[0].pos, stateSetColumns, "", "each %s query must have the same number of columns", s.set.kind)
	}
	b := a.binder(newScope(nil), string(s.set.kind))
	r := &branchesRel{kind: s.set.kind, all: s.set.all, from: make([][]int, 2)}
	items := make([][]item, 2)
	out := &query{at: s.at, limit: -1, sortPos: -1}
	for i, l := range left.outs {
		pair, t, err := b.common([]*node{a.columnNode(l.id, l.pos), a.columnNode(right.outs[i].id, right.outs[i].pos)}, string(s.set.kind))
		if err != nil {
			return nil, err
		}
		for side, n := range pair {
			id := n.col
			if n.kind != plan.ExprCol {
				id = a.newColumn(l.name, t)
				items[side] = append(items[side], item{id, n})
			}
			r.from[side] = append(r.from[side], id)
		}
		info := columnInfo{name: l.name, typ: t}
		if w, v := a.cols.of(r.from[0][i]).window, a.cols.of(r.from[1][i]).window; w != nil && v != nil && w.end == v.end {
			info.window = &windowColumn{end: w.end, size: w.size}
			if w.size != v.size {
				info.window.size = 0
			}
		}
		if l, m := a.cols.of(r.from[0][i]), a.cols.of(r.from[1][i]); l.timed && m.timed {
			info.timed, info.lag = true, max(l.lag, m.lag)
		}
		id := a.cols.add(info)
		r.cols = append(r.cols, id)
		out.outs = append(out.outs, output{l.name, id, l.pos})
	}
	in := []*rel{extendRel(left.rel, items[0]...), extendRel(right.rel, items[1]...)}
	if s.set.kind == setUnion {
		out.rel = &rel{kind: relUnion, in: in, branches: r}
		if !s.set.all {
			out.rel = &rel{kind: relDistinct, in: []*rel{out.rel}, cols: unique(r.cols)}
		}
	} else {
		out.rel = &rel{kind: relSetOp, in: in, branches: r}
	}
	return out, a.orderOf(out, s)
}

// orderOf checks ORDER BY, LIMIT and OFFSET of a set operation or VALUES: they see the result's columns alone.
func (a *analyzer) orderOf(q *query, s *Select) error {
	cols := make([]scopeColumn, len(q.outs))
	sel := &selection{a: a, s: &Select{statement: s.statement, orderBy: s.orderBy, distinct: true}, visible: len(q.outs)}
	for i, o := range q.outs {
		t := a.cols.of(o.id).typ
		cols[i] = scopeColumn{name: o.name, typ: t, id: o.id}
		sel.outs = append(sel.outs, selected{o.name, column(o.id, t, o.pos), o.pos})
	}
	if err := sel.orderBy(a.binder(newScope(cols), "ORDER BY")); err != nil {
		return err
	}
	if len(s.orderBy) > 0 {
		q.sortPos = s.orderBy[0].expr.pos()
	}
	for _, k := range sel.sort {
		q.sort = append(q.sort, sortColumn{q.outs[k.out].id, k.desc, k.nullsFirst})
	}
	var err error
	if q.limit, err = a.rowCount(s.limit, "LIMIT", stateBadLimit, -1); err != nil {
		return err
	}
	q.offset, err = a.rowCount(s.offset, "OFFSET", stateBadOffset, 0)
	return err
}
