package sql

import (
	"slices"
	"strconv"
	"strings"

	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// query is a checked SELECT. Its expressions are over the columns of from's scope; those after the grouping (having,
// and outs of a grouped query) are over the keys and then the aggregates.
type query struct {
	src     *source
	at      int
	from    *relation // nil: without FROM
	scope   *scope
	where   []*node // conjuncts
	grouped bool
	keys    []*node
	aggs    []aggregate
	having  *node // nil: none
	outs    []output
	visible int // outs[:visible] are the result, the rest is there to sort by
	unique  bool
	sort    []plan.SortKey // Col is an index of outs
	limit   int64          // -1: none
	offset  int64
}

// output is one result column.
type output struct {
	name   string // empty: there only to sort by
	node   *node
	window *windowColumn
	pos    int
}

func (q *query) ordered() bool { return len(q.sort) > 0 || q.limit >= 0 || q.offset > 0 }

// analyzer checks queries against a catalog.
type analyzer struct {
	src     *source
	catalog Catalog
	live    bool     // for a view
	used    []uint64 // catalog ids
	params  *parameters
}

func (a *analyzer) binder(s *scope, noAggs string) *binder {
	return &binder{src: a.src, scope: s, noAggs: noAggs, live: a.live, params: a.params}
}

// query checks s.
func (a *analyzer) query(s *Select) (*query, error) {
	q := &query{src: a.src, at: s.at, limit: -1, unique: s.distinct, scope: newScope(nil)}
	q.scope.none = "the query has no FROM"
	if s.from != nil {
		var err error
		if q.from, err = a.relation(s.from); err != nil {
			return nil, err
		}
		q.scope = newScope(q.from.cols)
	}
	b := a.binder(q.scope, "")
	b.aggs = &q.aggs
	if err := a.outputs(q, b, s); err != nil {
		return nil, err
	}
	if s.where != nil {
		n, err := a.binder(q.scope, "WHERE").condition(s.where, "WHERE")
		if err != nil {
			return nil, err
		}
		q.where = conjuncts(n, nil)
	}
	if err := a.groupBy(q, s); err != nil {
		return nil, err
	}
	if s.having != nil {
		n, err := b.condition(s.having, "HAVING")
		if err != nil {
			return nil, err
		}
		q.having = n
	}
	if err := a.orderBy(q, b, s); err != nil {
		return nil, err
	}
	if len(q.aggs) > 0 || len(s.groupBy) > 0 || s.having != nil {
		if err := q.group(); err != nil {
			return nil, err
		}
	}
	var err error
	if q.limit, err = a.rowCount(s.limit, "LIMIT", stateBadLimit, -1); err != nil {
		return nil, err
	}
	q.offset, err = a.rowCount(s.offset, "OFFSET", stateBadOffset, 0)
	return q, err
}

// outputs checks the select list.
func (a *analyzer) outputs(q *query, b *binder, s *Select) error {
	for _, item := range s.items {
		if st, ok := item.expr.(*star); ok {
			if err := a.star(q, st); err != nil {
				return err
			}
		} else {
			n, err := b.bind(item.expr)
			if err != nil {
				return err
			}
			if n, err = b.known(n); err != nil {
				return err
			}
			out := output{name: item.alias, node: n, pos: item.expr.pos()}
			if out.name == "" {
				out.name, _ = columnName(item.expr)
			}
			if n.kind == plan.ExprCol {
				out.window = q.scope.cols[n.col].window
			}
			q.outs = append(q.outs, out)
		}
		if len(q.outs) > MaxColumns {
			return a.src.fail(item.expr.pos(), stateTooManyColumns, "", "select list has more than %d columns", MaxColumns)
		}
	}
	q.visible = len(q.outs)
	if q.visible == 0 {
		return a.src.fail(s.at, stateSyntax, "name a column, or write *", "select list is empty")
	}
	return nil
}

func (a *analyzer) star(q *query, st *star) error {
	if q.from == nil {
		return a.src.fail(st.pos(), stateSyntax, "add FROM", "SELECT * without FROM")
	}
	if st.table != "" && !q.scope.hasTable(st.table) {
		return q.scope.unknownTable(a.src, st.pos(), st.table)
	}
	for i, c := range q.scope.cols {
		if !c.hidden && (st.table == "" || c.table == st.table) {
			q.outs = append(q.outs, output{name: c.name, node: column(i, c.typ, st.pos()), window: c.window, pos: st.pos()})
		}
	}
	return nil
}

// columnName is the name that PostgreSQL gives a column without an alias; weak says that a cast's type would do as well.
func columnName(e expr) (name string, weak bool) {
	switch e := e.(type) {
	case *columnRef:
		return e.name, false
	case *call:
		if e.label != "" {
			return e.label, false
		}
		return e.name, false
	case *castTo:
		if name, weak := columnName(e.arg); !weak {
			return name, false
		}
		return e.name, false
	case *caseOf:
		if e.els != nil {
			if name, weak := columnName(e.els); !weak {
				return name, false
			}
		}
		return "case", true
	}
	return "?column?", true
}

// groupBy checks GROUP BY: an input column goes before an output column of the same name, and a bare integer is the
// position of an output column.
func (a *analyzer) groupBy(q *query, s *Select) error {
	if len(s.groupBy) > MaxColumns {
		return a.src.fail(s.groupBy[MaxColumns].pos(), stateTooManyColumns, "", "GROUP BY has more than %d columns", MaxColumns)
	}
	b := a.binder(q.scope, "GROUP BY")
	for _, e := range s.groupBy {
		n, err := a.groupKey(q, b, e)
		if err != nil {
			return err
		}
		if n, err = b.known(n); err != nil {
			return err
		}
		if !slices.ContainsFunc(q.keys, func(k *node) bool { return same(k, n) }) {
			q.keys = append(q.keys, n)
		}
	}
	return nil
}

func (a *analyzer) groupKey(q *query, b *binder, e expr) (*node, error) {
	i, err := a.ordinal(q, e, "GROUP BY")
	if err != nil {
		return nil, err
	}
	if r, ok := e.(*columnRef); ok && i < 0 && r.table == "" && len(q.scope.seen[r.name]) == 0 {
		if i, err = a.alias(q, r, "GROUP BY"); err != nil {
			return nil, err
		}
	}
	if i < 0 {
		return b.bind(e)
	}
	n := q.outs[i].node
	agg := false
	n.walk(func(n *node) bool { agg = agg || n.kind == nodeAgg; return !agg })
	if agg {
		return nil, a.src.fail(e.pos(), stateGrouping, "", "aggregate is not allowed in GROUP BY")
	}
	return n, nil
}

// ordinal returns the output column that a bare integer means, or -1.
func (a *analyzer) ordinal(q *query, e expr, clause string) (int, error) {
	l, ok := e.(*literal)
	if !ok {
		return -1, nil
	}
	i, err := strconv.Atoi(l.text)
	if l.kind != litNumber || err != nil {
		return -1, a.src.fail(e.pos(), stateSyntax, "", "constant in %s must be the position of a column", clause)
	}
	if i < 1 || i > q.visible {
		return -1, a.src.fail(e.pos(), stateColumnRef, "", "%s position %d is not in the select list", clause, i)
	}
	return i - 1, nil
}

// alias returns the output column called r.name, or -1.
func (a *analyzer) alias(q *query, r *columnRef, clause string) (int, error) {
	found := -1
	for i, o := range q.outs[:q.visible] {
		if o.name != r.name {
			continue
		}
		if found >= 0 && !same(q.outs[found].node, o.node) {
			return -1, a.src.fail(r.pos(), stateAmbiguous, "", "%s %q is ambiguous", clause, r.name)
		}
		if found < 0 {
			found = i
		}
	}
	return found, nil
}

// orderBy checks ORDER BY: an output column goes before an input column of the same name.
func (a *analyzer) orderBy(q *query, b *binder, s *Select) error {
	if len(s.orderBy) > MaxColumns {
		return a.src.fail(s.orderBy[MaxColumns].expr.pos(), stateTooManyColumns, "", "ORDER BY has more than %d columns", MaxColumns)
	}
	for _, item := range s.orderBy {
		i, err := a.ordinal(q, item.expr, "ORDER BY")
		if err != nil {
			return err
		}
		if r, ok := item.expr.(*columnRef); ok && i < 0 && r.table == "" {
			if i, err = a.alias(q, r, "ORDER BY"); err != nil {
				return err
			}
		}
		if i < 0 {
			if i, err = a.sortOutput(q, b, item.expr); err != nil {
				return err
			}
		}
		if t := q.outs[i].node.typ; t == record.JSONB {
			return a.src.unsupported(item.expr.pos(), "order by a field of it, or by ::text", "ORDER BY of jsonb is not supported")
		}
		if !slices.ContainsFunc(q.sort, func(k plan.SortKey) bool { return k.Col == i }) {
			q.sort = append(q.sort, plan.SortKey{Col: i, Desc: item.desc, NullsFirst: item.nullsFirst})
		}
	}
	return nil
}

// sortOutput returns the output column equal to e; where there is none it adds one that isn't visible.
func (a *analyzer) sortOutput(q *query, b *binder, e expr) (int, error) {
	n, err := b.bind(e)
	if err != nil {
		return 0, err
	}
	if n, err = b.known(n); err != nil {
		return 0, err
	}
	for i, o := range q.outs {
		if same(o.node, n) {
			return i, nil
		}
	}
	if q.unique {
		return 0, a.src.fail(e.pos(), stateColumnRef, "add it to the select list", "ORDER BY of SELECT DISTINCT must be in the select list")
	}
	q.outs = append(q.outs, output{node: n, pos: e.pos()})
	return len(q.outs) - 1, nil
}

// rowCount reads LIMIT and OFFSET, which must be literals.
func (a *analyzer) rowCount(e expr, clause, state string, none int64) (int64, error) {
	if e == nil {
		return none, nil
	}
	switch e.(type) {
	case *literal, *parameter:
	default:
		return 0, a.src.unsupported(e.pos(), "write a number", "%s of an expression is not supported", clause)
	}
	n, err := a.binder(newScope(nil), clause).bind(e)
	if err != nil {
		return 0, err
	}
	if n.typ == record.Unknown {
		if n, err = a.binder(newScope(nil), clause).coerce(n, record.BigInt); err != nil {
			return 0, err
		}
	}
	switch {
	case n.kind == nodeParam, n.val.Null:
		return none, nil
	case n.typ != record.BigInt:
		return 0, a.src.fail(e.pos(), stateMismatch, "", "%s must be a whole number, not %s", clause, n.typ)
	case n.val.Int < 0:
		return 0, a.src.fail(e.pos(), state, "", "%s must not be negative", clause)
	}
	return n.val.Int, nil
}

// group makes the query a grouped one: what stands after the grouping is rewritten over the keys and aggregates.
func (q *query) group() error {
	q.grouped = true
	for i := range q.outs {
		n, err := q.regroup(q.outs[i].node)
		if err != nil {
			return err
		}
		q.outs[i].node = n
		q.outs[i].window = nil
		if n.kind == plan.ExprCol && n.col < len(q.keys) {
			q.outs[i].window = q.keyWindow(n.col)
		}
	}
	if q.having == nil {
		return nil
	}
	n, err := q.regroup(q.having)
	q.having = n
	return err
}

// keyWindow returns the window column that key i is, or nil.
func (q *query) keyWindow(i int) *windowColumn {
	if k := q.keys[i]; k.kind == plan.ExprCol {
		return q.scope.cols[k.col].window
	}
	return nil
}

func (q *query) regroup(n *node) (*node, error) {
	return n.rewrite(func(n *node) (*node, error) {
		for i, k := range q.keys {
			if same(k, n) {
				return column(i, n.typ, n.pos), nil
			}
		}
		switch n.kind {
		case nodeAgg:
			return column(len(q.keys)+n.col, n.typ, n.pos), nil
		case plan.ExprCol:
			c := q.scope.cols[n.col]
			return nil, q.src.fail(n.pos, stateGrouping, "", "column %q must be in GROUP BY or in an aggregate", c.name)
		case plan.ExprConst:
			return n, nil
		}
		return nil, nil
	})
}

// aggName is an aggregate's name in EXPLAIN and in schemas.
func (q *query) aggName(a aggregate) string {
	if a.arg == nil {
		return string(a.fn)
	}
	var names record.Schema
	for _, c := range q.scope.cols {
		names = append(names, record.Field{Name: c.name})
	}
	return string(a.fn) + "(" + strings.TrimSpace(exprText(a.arg.expr(identity(len(names))), names)) + ")"
}

func identity(n int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = i
	}
	return out
}
