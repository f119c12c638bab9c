package sql

import (
	"slices"

	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// groupKey is one expression of GROUP BY and the column that it is after the grouping.
type groupKey struct {
	node *node
	id   int
}

// maxGroupingSets bounds GROUPING SETS after ROLLUP and CUBE are written out, as PostgreSQL does.
const maxGroupingSets = 4096

// groupBy checks GROUP BY: an input column goes before an output column of the same name, and a bare integer is the
// position of an output column.
func (q *selection) groupBy() error {
	b := q.a.binder(q.scope, "GROUP BY")
	b.env = q.env
	if q.a.change.clause(q.s) == "" {
		b.sets = &q.setCalls
	}
	if len(q.s.groupBy) > MaxColumns {
		return q.a.src.fail(q.s.groupBy[MaxColumns].pos(), stateTooManyColumns, "", "GROUP BY has more than %d columns", MaxColumns)
	}
	sets := [][]int{{}}
	plainOnly := true
	for _, g := range q.s.groupBy {
		more, err := q.groupSets(b, g)
		if err != nil {
			return err
		}
		plainOnly = plainOnly && g.kind == groupExpr
		if len(more)*len(sets) > maxGroupingSets {
			return q.a.src.fail(g.pos(), stateTooDeep, "", "more than %d grouping sets", maxGroupingSets)
		}
		var product [][]int
		for _, s := range sets {
			for _, m := range more {
				product = append(product, append(slices.Clone(s), m...))
			}
		}
		sets = product
	}
	if !plainOnly && !(len(sets) == 1 && len(sets[0]) > 0) {
		q.sets = sets
	}
	return q.fillSessions()
}

// apart gives each of a subquery's columns a number of its own where two are the same one: a grouping set may have one of them
// without the other, which is NULL there.
func (a *analyzer) apart(r *rel, cols []scopeColumn) (*rel, []scopeColumn) {
	cols = slices.Clone(cols)
	var items []item
	for i, c := range cols {
		if slices.ContainsFunc(cols[:i], func(o scopeColumn) bool { return o.id == c.id && o.table == c.table }) {
			cols[i].id = a.cols.add(*a.cols.of(c.id))
			items = append(items, item{cols[i].id, a.columnNode(c.id, 0)})
		}
	}
	return extendRel(r, items...), cols
}

// groupSets returns the sets of keys (indexes of q.keys) that an item of GROUP BY means.
func (q *selection) groupSets(b *binder, g groupItem) ([][]int, error) {
	switch g.kind {
	case groupExpr:
		k, err := q.groupKey(b, g.expr)
		return [][]int{{k}}, err
	case groupList:
		set := []int{}
		for _, e := range g.list {
			k, err := q.groupKey(b, e)
			if err != nil {
				return nil, err
			}
			set = append(set, k)
		}
		return [][]int{set}, nil
	}
	var parts [][][]int
	for _, m := range g.sets {
		sets, err := q.groupSets(b, m)
		if err != nil {
			return nil, err
		}
		parts = append(parts, sets)
	}
	var out [][]int
	switch g.kind {
	case groupSets:
		for _, p := range parts {
			out = append(out, p...)
		}
	case groupRollup:
		for n := len(parts); n >= 0; n-- {
			set := []int{}
			for _, p := range parts[:n] {
				set = append(set, p[0]...)
			}
			out = append(out, set)
		}
	case groupCube:
		if len(parts) > 12 {
			return nil, q.a.src.fail(g.pos(), stateTooDeep, "", "CUBE is limited to 12 elements")
		}
		for bits := 1<<len(parts) - 1; bits >= 0; bits-- {
			set := []int{}
			for i, p := range parts {
				if bits&(1<<(len(parts)-1-i)) != 0 {
					set = append(set, p[0]...)
				}
			}
			out = append(out, set)
		}
	}
	if len(out) > maxGroupingSets {
		return nil, q.a.src.fail(g.pos(), stateTooDeep, "", "more than %d grouping sets", maxGroupingSets)
	}
	return out, nil
}

// groupKey returns the index in q.keys of an expression, adding it if need be.
func (q *selection) groupKey(b *binder, e expr) (int, error) {
	n, err := q.groupExpr(b, e)
	if err != nil {
		return 0, err
	}
	if n, err = b.known(n); err != nil {
		return 0, err
	}
	for i, k := range q.keys {
		if same(k.node, n) {
			return i, nil
		}
	}
	if len(q.keys) >= MaxColumns {
		return 0, q.a.src.fail(e.pos(), stateTooManyColumns, "", "GROUP BY has more than %d columns", MaxColumns)
	}
	k := groupKey{node: n, id: n.col}
	if n.kind != plan.ExprCol || !q.own(n.col) {
		name, _ := columnName(e)
		k.id = q.a.newColumn(name, n.typ)
	}
	q.keys = append(q.keys, k)
	return len(q.keys) - 1, nil
}

func (q *selection) groupExpr(b *binder, e expr) (*node, error) {
	i, err := q.ordinal(e, "GROUP BY")
	if err != nil {
		return nil, err
	}
	if r, ok := e.(*columnRef); ok && i < 0 && r.table == "" && len(q.scope.seen[r.name]) == 0 {
		if i, err = q.alias(r, "GROUP BY"); err != nil {
			return nil, err
		}
	}
	if i < 0 {
		return b.bind(e)
	}
	n := q.outs[i].node
	bad := ""
	n.walk(func(n *node) bool {
		if n.kind == plan.ExprCol && q.computed(n.col) {
			bad = "aggregate"
			if slices.ContainsFunc(q.overs, func(o *overCall) bool { return o.id == n.col }) {
				bad = "window function"
			}
		}
		return bad == ""
	})
	if bad != "" {
		return nil, q.a.src.fail(e.pos(), stateGrouping, "", "%s is not allowed in GROUP BY", bad)
	}
	return n, nil
}

// own tells whether id is a column of the query's FROM.
func (q *selection) own(id int) bool {
	return slices.ContainsFunc(q.scope.cols, func(c scopeColumn) bool { return c.id == id })
}

// computed tells whether id is an aggregate, a window function or a subquery of this query.
func (q *selection) computed(id int) bool {
	return slices.ContainsFunc(q.aggs, func(a *aggregate) bool { return a.id == id }) ||
		slices.ContainsFunc(q.overs, func(o *overCall) bool { return o.id == id })
}

// assemble puts the tree together: FROM, WHERE, grouping, HAVING, subqueries, window functions.
func (q *selection) assemble() error {
	if err := q.groupSetCalls(); err != nil {
		return err
	}
	q.grouped = len(q.aggs) > 0 || len(q.s.groupBy) > 0 || q.having != nil
	if q.grouped {
		if err := q.group(); err != nil {
			return err
		}
	}
	var err error
	if q.rel, err = q.a.applySubqueries(q.rel, q.subs); err != nil {
		return err
	}
	if q.having != nil {
		q.rel = filterRel(q.rel, conjuncts(q.having, nil)...)
	}
	if err := q.applyOver(); err != nil {
		return err
	}
	q.applySetCalls()
	return nil
}

// group adds the grouping, and rewrites what stands after it over the keys.
func (q *selection) group() error {
	agg := &aggregateRel{aggs: q.aggs, global: len(q.keys) == 0 && q.sets == nil}
	rename := map[int]int{} // keys to what they are after Expand
	if q.sets != nil {
		q.expand(agg, rename)
	} else {
		var items []item
		for _, k := range q.keys {
			agg.keys = append(agg.keys, k.id)
			if k.node.kind != plan.ExprCol || k.id != k.node.col {
				items = append(items, item{k.id, k.node})
			}
		}
		q.rel = extendRel(q.rel, items...)
	}
	q.rel = &rel{kind: relAggregate, in: []*rel{q.rel}, agg: agg}
	keys := slices.Clone(q.keys)
	for i := range keys {
		if id, ok := rename[keys[i].id]; ok {
			keys[i].id = id
		}
	}
	q.keys = keys
	for i := range q.outs {
		n, err := q.regroup(q.outs[i].node)
		if err != nil {
			return err
		}
		q.outs[i].node = n
	}
	for _, o := range q.overs {
		if err := o.rewrite(q.regroup); err != nil {
			return err
		}
	}
	if err := q.regroupSetCalls(); err != nil {
		return err
	}
	for _, s := range q.subs {
		if err := s.rewrite(q); err != nil {
			return err
		}
	}
	if q.having == nil {
		return nil
	}
	n, err := q.regroup(q.having)
	q.having = n
	return err
}

// expand adds GROUPING SETS: each row once for each set, with copies of the keys that are NULL where the set lacks them.
func (q *selection) expand(agg *aggregateRel, rename map[int]int) {
	x := &expandRel{sets: q.sets, grouping: q.a.newColumn("grouping", record.BigInt)}
	var items []item
	for _, k := range q.keys {
		copyOf := q.a.newColumn(q.a.cols.of(k.id).name, k.node.typ)
		items = append(items, item{copyOf, k.node})
		out := q.a.newColumn(q.a.cols.of(k.id).name, k.node.typ)
		if k.node.kind == plan.ExprCol {
			of, info := q.a.cols.of(k.node.col), q.a.cols.of(out)
			info.window, info.timed, info.lag = of.window, of.timed, of.lag
		}
		x.keys, x.out = append(x.keys, copyOf), append(x.out, out)
		rename[k.id] = out
	}
	q.rel = &rel{kind: relExpand, in: []*rel{extendRel(q.rel, items...)}, expand: x}
	agg.keys = append(slices.Clone(x.out), x.grouping)
}

// determined tells whether the keys determine a column: it is a table's, and they have the table's whole primary key.
func (q *selection) determined(r *rel, id int) bool {
	if r.kind != relScan {
		return slices.ContainsFunc(r.in, func(in *rel) bool { return q.determined(in, id) })
	}
	if r.scan.object.Kind != ObjectTable || !slices.Contains(r.scan.cols, id) {
		return false
	}
	for _, k := range r.scan.object.Key {
		if !slices.ContainsFunc(q.keys, func(g groupKey) bool { return g.node.kind == plan.ExprCol && g.node.col == r.scan.cols[k] }) {
			return false
		}
	}
	return true
}

// groupingCall is GROUPING(a, b): its bits come out of the column of all keys' bits.
func (q *selection) groupingCall(n *node) (*node, error) {
	out := bigint(0, n.pos)
	last := len(q.keys) - 1
	for _, arg := range n.args {
		i := slices.IndexFunc(q.keys, func(k groupKey) bool { return same(k.node, arg) })
		if i < 0 {
			return nil, q.a.src.fail(arg.pos, stateGrouping, "", "arguments of GROUPING must be expressions of GROUP BY")
		}
		bit := bigint(0, n.pos)
		if q.sets != nil {
			grouping := q.rel.agg.keys[len(q.rel.agg.keys)-1]
			bit = callNode("bit_and", record.BigInt, n.pos, callNode("shift_right", record.BigInt, n.pos, q.a.columnNode(grouping, n.pos), bigint(int64(last-i), n.pos)), bigint(1, n.pos))
		}
		out = callNode("bit_or", record.BigInt, n.pos, callNode("shift_left", record.BigInt, n.pos, out, bigint(1, n.pos)), bit)
	}
	return out, nil
}

func callNode(fn string, t record.Type, pos int, args ...*node) *node {
	n := inner(plan.ExprCall, t, pos, args...)
	n.fn = fn
	return n
}

// nodeGrouping is GROUPING(...) until the keys are known; its args are over the query's scope.
const nodeGrouping plan.ExprKind = "grouping"

func (q *selection) regroup(n *node) (*node, error) {
	return n.rewrite(func(n *node) (*node, error) {
		if n.kind == nodeGrouping {
			return q.groupingCall(n)
		}
		for _, k := range q.keys {
			if same(k.node, n) {
				return column(k.id, n.typ, n.pos), nil
			}
		}
		switch n.kind {
		case plan.ExprCol:
			if !q.own(n.col) {
				return n, nil
			}
			if q.sets == nil && q.determined(q.rel.in[0], n.col) {
				q.rel.agg.keys = append(q.rel.agg.keys, n.col)
				q.keys = append(q.keys, groupKey{node: n, id: n.col})
				return n, nil
			}
			return nil, q.a.src.fail(n.pos, stateGrouping, "", "column %q must be in GROUP BY or in an aggregate", q.a.cols.of(n.col).name)
		case plan.ExprConst, nodeParam:
			return n, nil
		}
		return nil, nil
	})
}
