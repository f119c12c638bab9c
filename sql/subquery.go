package sql

import (
	"slices"

	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// pending is a subquery of an expression: a join that is still to be put under the operator which evaluates the
// expression. Its result is the column id.
type pending struct {
	rel *rel
	id  int // 0: it gives no column (EXISTS, IN in WHERE)
	out int // the subquery's own column
	// kind is inner for a scalar; semi, anti and not_in for conditions in WHERE. key is what IN compares.
	kind  plan.JoinKind
	key   *node // x = column; nil: none
	preds []*node
	pos   int
	what  string
}

// rewrite puts what the subquery names of a grouped query over its keys.
func (p *pending) rewrite(q *selection) error {
	return p.rel.mapNodes(func(n *node) (*node, error) {
		uses := false
		n.walk(func(n *node) bool {
			uses = uses || n.kind == plan.ExprCol && q.own(n.col)
			return !uses
		})
		if !uses {
			return n, nil
		}
		return q.regroup(n)
	})
}

// mapNodes replaces the expressions of the tree.
func (r *rel) mapNodes(fn func(*node) (*node, error)) (err error) {
	one := func(n *node) *node {
		if err != nil {
			return n
		}
		var out *node
		if out, err = fn(n); err != nil {
			return n
		}
		return out
	}
	for i := range r.preds {
		r.preds[i] = one(r.preds[i])
	}
	for i := range r.items {
		r.items[i].node = one(r.items[i].node)
	}
	if r.values != nil {
		for _, row := range r.values.rows {
			for i := range row {
				row[i] = one(row[i])
			}
		}
	}
	if r.unnest != nil {
		for i := range r.unnest.args {
			r.unnest.args[i] = one(r.unnest.args[i])
		}
	}
	for _, in := range r.in {
		if err == nil {
			err = in.mapNodes(fn)
		}
	}
	return err
}

// where checks WHERE. Its EXISTS, IN, ANY and ALL become joins; other subqueries give columns to filter by.
func (q *selection) where() error {
	if q.s.where == nil {
		return nil
	}
	b := q.a.binder(q.scope, "WHERE")
	var subs []*pending
	b.env, b.subs = q.env, &subs
	var preds []*node
	var joins []*pending
	for _, e := range conjunctExprs(q.s.where, nil) {
		p, err := b.conditionJoin(e)
		if err != nil {
			return err
		}
		if p != nil {
			joins = append(joins, p)
			continue
		}
		n, err := b.condition(e, "WHERE")
		if err != nil {
			return err
		}
		preds = conjuncts(n, preds)
	}
	var plain, after []*node
	made := idSet{}
	for _, s := range subs {
		made[s.id] = true
	}
	for _, n := range preds {
		if made.touches(n) {
			after = append(after, n)
		} else {
			plain = append(plain, n)
		}
	}
	q.rel = filterRel(q.rel, plain...)
	var err error
	if q.rel, err = q.a.applySubqueries(q.rel, joins); err != nil {
		return err
	}
	if q.rel, err = q.a.applySubqueries(q.rel, subs); err != nil {
		return err
	}
	q.rel = filterRel(q.rel, after...)
	return nil
}

// conjunctExprs splits e at its ANDs.
func conjunctExprs(e expr, out []expr) []expr {
	if l, ok := e.(*logic); ok && l.op == logicAnd {
		for _, a := range l.args {
			out = conjunctExprs(a, out)
		}
		return out
	}
	return append(out, e)
}

// conditionJoin returns the join that a condition of WHERE means, or nil when it means none.
func (b *binder) conditionJoin(e expr) (*pending, error) {
	not := false
	for {
		l, ok := e.(*logic)
		if !ok || l.op != logicNot {
			break
		}
		not, e = !not, l.args[0]
	}
	s, ok := e.(*subquery)
	if !ok || s.kind == subScalar {
		return nil, nil
	}
	p, err := b.newPending(s)
	if err != nil {
		return nil, err
	}
	not = not != s.not
	if s.kind == subExists {
		p.kind = plan.JoinSemi
		if not {
			p.kind = plan.JoinAnti
		}
		return p, nil
	}
	cmp, err := b.compareSub(s, p)
	if err != nil {
		return nil, err
	}
	switch {
	case s.kind == subIn && not:
		p.kind, p.key = plan.JoinNotIn, cmp
	case s.kind == subIn, s.kind == subAny && !not:
		p.kind, p.preds = plan.JoinSemi, []*node{cmp}
	case s.kind == subAll && !not: // no row for which it isn't true
		p.kind = plan.JoinAnti
		p.preds = []*node{negate(inner(plan.ExprCoal, record.Boolean, s.pos(), cmp, boolean(false, s.pos())))}
	default:
		return nil, b.src.unsupported(s.pos(), "turn the comparison around", "NOT before %s (subquery) is not supported", s.kind)
	}
	return p, nil
}

// newPending checks the subquery itself.
func (b *binder) newPending(s *subquery) (*pending, error) {
	if b.subs == nil || b.inAgg && b.noAggs == "" {
		where := b.noAggs
		if where == "" {
			where = "this place"
			if b.inAgg {
				where = "an aggregate's arguments"
			}
		}
		return nil, b.src.unsupported(s.pos(), "join the subquery in FROM", "a subquery in %s is not supported", where)
	}
	e := b.env.inner(b.scope)
	e.exists = s.kind == subExists
	q, err := b.a.subqueryRel(s.query, e)
	if err != nil {
		return nil, err
	}
	p := &pending{rel: q.rel, kind: plan.JoinInner, pos: s.pos(), what: string(s.kind)}
	if s.kind != subExists {
		if len(q.outs) != 1 {
			return nil, b.src.fail(s.query.set.firstPos(s.query), stateSyntax, "", "subquery must return only one column")
		}
		p.out = q.outs[0].id
	}
	return p, nil
}

// firstPos returns the position of the first output of a query.
func (*setOperation) firstPos(s *Select) int {
	for s.set != nil {
		s = s.set.left
	}
	if len(s.items) > 0 {
		return s.items[0].expr.pos()
	}
	return s.at
}

// compareSub returns arg op (the subquery's column).
func (b *binder) compareSub(s *subquery, p *pending) (*node, error) {
	arg, err := b.bind(s.arg)
	if err != nil {
		return nil, err
	}
	name, ok := operatorNames[s.op]
	if !ok {
		return nil, b.src.unsupported(s.pos(), "", "operator %s before %s is not supported", s.op, s.kind)
	}
	return b.apply(name, s.op, s.pos(), []*node{arg, b.a.columnNode(p.out, s.pos())})
}

// subquery checks a query in an expression, whose value is then a column.
func (b *binder) subquery(s *subquery) (*node, error) {
	switch s.kind {
	case subScalar:
		p, err := b.newPending(s)
		if err != nil {
			return nil, err
		}
		return b.pendingColumn(p, b.a.cols.of(p.out).name, b.a.cols.of(p.out).typ), nil
	case subExists:
		n, err := b.countOf(s, nil)
		if err != nil {
			return nil, err
		}
		return callNode("gt", record.Boolean, s.pos(), n, bigint(0, s.pos())), nil
	case subIn:
		return b.inValue(s)
	}
	return nil, b.src.unsupported(s.pos(), "use it as a condition of WHERE, joined by AND", "%s (subquery) in an expression is not supported", s.kind)
}

func (b *binder) pendingColumn(p *pending, name string, t record.Type) *node {
	p.id = b.a.newColumn(name, t)
	*b.subs = append(*b.subs, p)
	return column(p.id, t, p.pos)
}

// countOf counts the subquery's rows: all of them, or those for which keep's condition is true.
func (b *binder) countOf(s *subquery, keep func(p *pending) (*node, error)) (*node, error) {
	p, err := b.newPending(s)
	if err != nil {
		return nil, err
	}
	if keep != nil {
		n, err := keep(p)
		if err != nil {
			return nil, err
		}
		p.rel = filterRel(p.rel, n)
	}
	p.out = b.a.newColumn("count(*)", record.BigInt)
	agg := &aggregate{id: p.out, name: "count(*)", fn: plan.AggCountStar, typ: record.BigInt}
	p.rel = &rel{kind: relAggregate, in: []*rel{p.rel}, agg: &aggregateRel{aggs: []*aggregate{agg}, global: true}}
	return b.pendingColumn(p, "count", record.BigInt), nil
}

// inValue is x IN (subquery) as a value, NULL where SQL says so: true with an equal row; else false when there is no row;
// else NULL when x or some row is NULL; else false.
func (b *binder) inValue(s *subquery) (*node, error) {
	pos := s.pos()
	arg, err := b.bind(s.arg)
	if err != nil {
		return nil, err
	}
	equal, err := b.countOf(s, func(p *pending) (*node, error) { return b.compareSub(s, p) })
	if err != nil {
		return nil, err
	}
	all, err := b.countOf(s, nil)
	if err != nil {
		return nil, err
	}
	nulls, err := b.countOf(s, func(p *pending) (*node, error) { return isNullNode(b.a.columnNode(p.out, pos)), nil })
	if err != nil {
		return nil, err
	}
	if arg, err = b.known(arg); err != nil {
		return nil, err
	}
	some := func(n *node) *node { return callNode("gt", record.Boolean, pos, n, bigint(0, pos)) }
	n := inner(plan.ExprCase, record.Boolean, pos, some(equal), boolean(true, pos), negate(some(all)), boolean(false, pos),
		inner(plan.ExprOr, record.Boolean, pos, isNullNode(arg), some(nulls)), nullOf(record.Boolean, pos), boolean(false, pos))
	if s.not {
		return negate(n), nil
	}
	return n, nil
}

// applySubqueries joins the subqueries to r.
func (a *analyzer) applySubqueries(r *rel, subs []*pending) (*rel, error) {
	for _, p := range subs {
		var err error
		if r, err = a.applySubquery(r, p); err != nil {
			if u, ok := err.(*notDecorrelated); ok {
				err = a.src.unsupported(p.pos, u.hint, "%s", u.what)
			}
			return nil, err
		}
	}
	return r, nil
}

func (a *analyzer) applySubquery(r *rel, p *pending) (*rel, error) {
	scalar := p.kind == plan.JoinInner
	d := &decorrelation{a: a, exists: !scalar}
	inside, err := d.pull(p.rel)
	if err != nil {
		return nil, err
	}
	preds := append(slices.Clone(p.preds), d.preds...)
	key := p.key
	if len(d.items) > 0 { // columns that outer ones make: x = (outer + 1)
		for i := range preds {
			preds[i] = d.inline(preds[i])
		}
		if key != nil {
			key = d.inline(key)
		}
	}
	if !scalar {
		if key != nil {
			preds = append([]*node{key}, preds...)
		}
		return joinRel(p.kind, r, inside, preds...), nil
	}
	return a.applyScalar(r, p, d, inside, preds)
}

// applyScalar joins a subquery that gives at most one row for each row of r; none means NULL, or what an aggregate is
// over no rows (the count of nothing is 0).
func (a *analyzer) applyScalar(r *rel, p *pending, d *decorrelation, inside *rel, preds []*node) (*rel, error) {
	bound := idSet{}
	mine := setOf(inside.outs())
	for _, n := range preds {
		if n.kind == plan.ExprCall && n.fn == "eq" {
			for i, side := range n.args {
				if side.kind == plan.ExprCol && mine[side.col] && !mine.touches(n.args[1-i]) {
					bound[side.col] = true
				}
			}
		}
	}
	if !inside.atMostOne(bound) {
		return nil, a.src.fail(p.pos, stateCardinality, "aggregate in it, or add LIMIT 1", "subquery used as an expression may return more than one row")
	}
	value := a.columnNode(p.out, p.pos)
	if len(d.items) > 0 {
		value = d.inline(value)
	}
	if len(preds) == 0 && inside.exactlyOne() {
		return extendRel(joinRel(plan.JoinInner, r, inside), item{p.id, value}), nil
	}
	if len(d.empty) == 0 && len(d.items) == 0 {
		return extendRel(joinRel(plan.JoinLeft, r, inside, preds...), item{p.id, value}), nil
	}
	found := a.newColumn("found", record.Boolean)
	inside = extendRel(inside, item{found, boolean(true, p.pos)})
	none := nullOf(value.typ, p.pos)
	if len(d.empty) > 0 {
		none = d.overNothing(inside, a.columnNode(p.out, p.pos))
	}
	value = inner(plan.ExprCase, value.typ, p.pos, isNullNode(a.columnNode(found, p.pos)), none, value)
	return extendRel(joinRel(plan.JoinLeft, r, inside, preds...), item{p.id, value}), nil
}
