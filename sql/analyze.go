package sql

import (
	"math"
	"slices"
	"strconv"

	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// query is a checked SELECT: where its rows come from, which columns they have, and in which order which of them are
// wanted.
type query struct {
	at      int
	rel     *rel
	outs    []output
	sort    []sortColumn
	limit   int64 // -1: none
	offset  int64
	sortPos int // position of ORDER BY; -1: none
}

// output is one result column.
type output struct {
	name string
	id   int
	pos  int
}

func (q *query) ids() []int {
	out := make([]int, len(q.outs))
	for i, o := range q.outs {
		out[i] = o.id
	}
	return out
}

func (q *query) cut() bool { return q.limit >= 0 || q.offset > 0 }

// analyzer checks queries against a catalog.
type analyzer struct {
	src     *source
	catalog Catalog
	live    bool     // for a view
	used    []uint64 // catalog ids
	params  *parameters
	cols    columnTable
	shared  []*sharedDef // in the order in which they must be built
	rels    int          // relations in FROM so far
	change  *changeQuery // of a statement that changes rows; else nil
	simple  *simplifier
	notes   []string // what was done to the query
}

// maxRelations bounds the relations that one statement reads, each use of a WITH query counted: the text that a short
// chain of WITH queries means grows exponentially.
const maxRelations = 256

func (a *analyzer) binder(s *scope, noAggs string) *binder {
	return &binder{a: a, src: a.src, scope: s, noAggs: noAggs, noOver: noAggs, live: a.live, params: a.params}
}

func (a *analyzer) newColumn(name string, t record.Type) int {
	return a.cols.add(columnInfo{name: name, typ: t})
}

func (a *analyzer) columnNode(id, pos int) *node { return column(id, a.cols.of(id).typ, pos) }

// query checks s within env, the names that stand around it.
func (a *analyzer) query(s *Select, env *env) (*query, error) {
	if len(s.with) > 0 {
		env = env.with(s.with)
	}
	switch {
	case s.set != nil:
		return a.setOperation(s, env)
	case s.values != nil:
		return a.valuesQuery(s, env)
	}
	return a.selectQuery(s, env)
}

// subqueryRel checks s and applies its ORDER BY with LIMIT; an order alone means nothing inside another query.
func (a *analyzer) subqueryRel(s *Select, env *env) (*query, error) {
	q, err := a.query(s, env)
	if err != nil {
		return nil, err
	}
	a.applyCut(q)
	return q, nil
}

// applyCut makes LIMIT and OFFSET part of the tree.
func (a *analyzer) applyCut(q *query) {
	if !q.cut() {
		q.sort = nil
		return
	}
	q.rel = &rel{kind: relTopN, in: []*rel{q.rel}, top: &topRel{fn: plan.RankRowNumber, order: q.sort, limit: q.limit, offset: q.offset}}
	q.sort, q.limit, q.offset = nil, -1, 0
}

// selection is a SELECT while it is checked.
type selection struct {
	a     *analyzer
	s     *Select
	env   *env
	scope *scope
	rel   *rel
	outs  []selected
	// visible is how many outs are the result; the rest is there to sort by.
	visible int
	aggs    []*aggregate
	overs   []*overCall
	subs    []*pending // of the select list, HAVING and ORDER BY
	// setCalls are the set-returning functions of the select list, GROUP BY and ORDER BY.
	setCalls []*unnestRel
	keys     []groupKey
	sets     [][]int // of keys; nil: plain GROUP BY
	having   *node
	sort     []sortItem
	on       []int // DISTINCT ON: indexes of outs
	grouped  bool
}

type selected struct {
	name string // empty: there only to sort by
	node *node
	pos  int
}

type sortItem struct {
	out        int
	desc       bool
	nullsFirst bool
}

func (a *analyzer) selectQuery(s *Select, e *env) (*query, error) {
	q := &selection{a: a, s: s, env: e}
	if err := q.from(); err != nil {
		return nil, err
	}
	b := a.binder(q.scope, a.change.clause(s))
	b.env, b.aggs, b.overs, b.subs, b.windows = e, &q.aggs, &q.overs, &q.subs, s.windows
	if b.noAggs == "" {
		b.sets = &q.setCalls
	}
	if err := q.outputs(b); err != nil {
		return nil, err
	}
	if err := a.change.apply(q, b); err != nil {
		return nil, err
	}
	if err := q.where(); err != nil {
		return nil, err
	}
	if err := q.groupBy(); err != nil {
		return nil, err
	}
	if s.having != nil {
		n, err := b.withoutOver("HAVING").condition(s.having, "HAVING")
		if err != nil {
			return nil, err
		}
		q.having = n
	}
	if err := q.distinctOn(b); err != nil {
		return nil, err
	}
	if err := q.orderBy(b); err != nil {
		return nil, err
	}
	if err := q.assemble(); err != nil {
		return nil, err
	}
	return q.finish()
}

// from checks FROM: without it there is one row without columns.
func (q *selection) from() error {
	if len(q.s.from) == 0 {
		q.rel = &rel{kind: relValues, values: &valuesRel{rows: [][]*node{{}}}}
		q.scope = newScope(nil)
		q.scope.none = "the query has no FROM"
	} else {
		r, cols, err := q.a.fromList(q.s.from, q.env)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(q.s.groupBy, func(g groupItem) bool { return g.kind != groupExpr }) {
			r, cols = q.a.apart(r, cols)
		}
		q.rel, q.scope = r, newScope(cols)
	}
	q.scope.parent = q.env.scope
	return nil
}

// outputs checks the select list.
func (q *selection) outputs(b *binder) error {
	a := q.a
	for _, item := range q.s.items {
		if st, ok := item.expr.(*star); ok {
			if err := q.star(st); err != nil {
				return err
			}
		} else {
			out, err := b.item(item)
			if err != nil {
				return err
			}
			q.outs = append(q.outs, out)
		}
		if len(q.outs) > MaxColumns {
			return a.src.fail(item.expr.pos(), stateTooManyColumns, "", "select list has more than %d columns", MaxColumns)
		}
	}
	q.visible = len(q.outs)
	if q.visible == 0 && !q.env.exists {
		return a.src.fail(q.s.at, stateSyntax, "name a column, or write *", "select list is empty")
	}
	return nil
}

func (q *selection) star(st *star) error {
	if len(q.s.from) == 0 {
		return q.a.src.fail(st.pos(), stateSyntax, "add FROM", "SELECT * without FROM")
	}
	outs, err := q.scope.star(q.a.src, st)
	q.outs = append(q.outs, outs...)
	return err
}

// star returns the columns that * or table.* means.
func (s *scope) star(src *source, st *star) ([]selected, error) {
	if st.table != "" && !s.hasTable(st.table) {
		return nil, s.unknownTable(src, st.pos(), st.table)
	}
	var out []selected
	for _, c := range s.cols {
		if c.hidden || st.table == "" && c.qualified || st.table != "" && c.table != st.table {
			continue
		}
		out = append(out, selected{name: c.name, node: column(c.id, c.typ, st.pos()), pos: st.pos()})
	}
	return out, nil
}

// item checks one expression of a select list.
func (b *binder) item(item selectItem) (selected, error) {
	n, err := b.bind(item.expr)
	if err != nil {
		return selected{}, err
	}
	if n, err = b.known(n); err != nil {
		return selected{}, err
	}
	out := selected{name: item.alias, node: n, pos: item.expr.pos()}
	if out.name == "" {
		out.name, _ = columnName(item.expr)
	}
	return out, nil
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
		if e.syntax && (e.name == "array_get" || e.name == "array_slice") {
			return columnName(e.args[0]) // of a[1], a
		}
		return e.name, false
	case *grouping:
		return "grouping", false
	case *subquery:
		if e.kind == subExists {
			return "exists", false
		}
		if e.kind == subScalar && len(e.query.items) == 1 {
			if e.query.items[0].alias != "" {
				return e.query.items[0].alias, false
			}
			return columnName(e.query.items[0].expr)
		}
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

// ordinal returns the output column that a bare integer means, or -1.
func (q *selection) ordinal(e expr, clause string) (int, error) {
	l, ok := e.(*literal)
	if !ok {
		return -1, nil
	}
	i, err := strconv.Atoi(l.text)
	if l.kind != litNumber || err != nil {
		return -1, q.a.src.fail(e.pos(), stateSyntax, "", "constant in %s must be the position of a column", clause)
	}
	if i < 1 || i > q.visible {
		return -1, q.a.src.fail(e.pos(), stateColumnRef, "", "%s position %d is not in the select list", clause, i)
	}
	return i - 1, nil
}

// alias returns the output column called r.name, or -1.
func (q *selection) alias(r *columnRef, clause string) (int, error) {
	found := -1
	for i, o := range q.outs[:q.visible] {
		if o.name != r.name {
			continue
		}
		if found >= 0 && !same(q.outs[found].node, o.node) {
			return -1, q.a.src.fail(r.pos(), stateAmbiguous, "", "%s %q is ambiguous", clause, r.name)
		}
		if found < 0 {
			found = i
		}
	}
	return found, nil
}

// named returns the output column that e means by its position or name, or else one equal to it, adding one that isn't
// visible where need be.
func (q *selection) named(b *binder, e expr, clause string) (int, error) {
	i, err := q.ordinal(e, clause)
	if err != nil || i >= 0 {
		return i, err
	}
	if r, ok := e.(*columnRef); ok && r.table == "" {
		if i, err = q.alias(r, clause); err != nil || i >= 0 {
			return i, err
		}
	}
	return q.sortOutput(b, e)
}

func (q *selection) sortOutput(b *binder, e expr) (int, error) {
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
	if q.s.distinct && len(q.s.on) == 0 {
		return 0, q.a.src.fail(e.pos(), stateColumnRef, "add it to the select list", "ORDER BY of SELECT DISTINCT must be in the select list")
	}
	q.outs = append(q.outs, selected{node: n, pos: e.pos()})
	return len(q.outs) - 1, nil
}

func (q *selection) distinctOn(b *binder) error {
	for _, e := range q.s.on {
		i, err := q.named(b, e, "DISTINCT ON")
		if err != nil {
			return err
		}
		if !slices.Contains(q.on, i) {
			q.on = append(q.on, i)
		}
	}
	return nil
}

// orderBy checks ORDER BY: an output column goes before an input column of the same name.
func (q *selection) orderBy(b *binder) error {
	if len(q.s.orderBy) > MaxColumns {
		return q.a.src.fail(q.s.orderBy[MaxColumns].expr.pos(), stateTooManyColumns, "", "ORDER BY has more than %d columns", MaxColumns)
	}
	for _, item := range q.s.orderBy {
		i, err := q.named(b, item.expr, "ORDER BY")
		if err != nil {
			return err
		}
		if t := q.outs[i].node.typ; t == record.JSONB {
			return q.a.src.unsupported(item.expr.pos(), "order by a field of it, or by ::text", "ORDER BY of jsonb is not supported")
		}
		if !slices.ContainsFunc(q.sort, func(k sortItem) bool { return k.out == i }) {
			q.sort = append(q.sort, sortItem{out: i, desc: item.desc, nullsFirst: item.nullsFirst})
		}
	}
	for i := range min(len(q.on), len(q.sort)) {
		if !slices.Contains(q.on, q.sort[i].out) {
			return q.a.src.fail(q.s.orderBy[i].expr.pos(), stateColumnRef, "", "ORDER BY must begin with the expressions of DISTINCT ON")
		}
	}
	return nil
}

// finish computes the output columns and applies DISTINCT.
func (q *selection) finish() (*query, error) {
	out := &query{at: q.s.at, limit: -1, sortPos: -1}
	if len(q.s.orderBy) > 0 && len(q.s.on) == 0 { // DISTINCT ON has used the order itself
		out.sortPos = q.s.orderBy[0].expr.pos()
	}
	ids := make([]int, len(q.outs))
	var items []item
	for i, o := range q.outs {
		if o.node.kind == plan.ExprCol {
			ids[i] = o.node.col
		} else {
			ids[i] = q.a.newColumn(o.name, o.node.typ)
			items = append(items, item{ids[i], o.node})
		}
		if i < q.visible {
			out.outs = append(out.outs, output{o.name, ids[i], o.pos})
		}
	}
	out.rel = extendRel(q.rel, items...)
	for _, k := range q.sort {
		out.sort = append(out.sort, sortColumn{ids[k.out], k.desc, k.nullsFirst})
	}
	switch {
	case len(q.on) > 0:
		top := &topRel{fn: plan.RankRowNumber, order: out.sort, limit: 1}
		for _, i := range q.on {
			top.keys = append(top.keys, ids[i])
		}
		out.rel = &rel{kind: relTopN, in: []*rel{out.rel}, top: top}
	case q.s.distinct:
		out.rel = &rel{kind: relDistinct, in: []*rel{out.rel}, cols: unique(ids[:q.visible])}
	}
	var err error
	if out.limit, err = q.a.rowCount(q.s.limit, "LIMIT", stateBadLimit, -1); err != nil {
		return nil, err
	}
	out.offset, err = q.a.rowCount(q.s.offset, "OFFSET", stateBadOffset, 0)
	if out.limit > math.MaxInt64-out.offset {
		out.limit = -1
	}
	return out, err
}

// unique returns ids without repetitions, in order.
func unique(ids []int) []int {
	var out []int
	for _, id := range ids {
		if !slices.Contains(out, id) {
			out = append(out, id)
		}
	}
	return out
}

// rowCount reads LIMIT and OFFSET, which must be literals or parameters.
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

func identity(n int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = i
	}
	return out
}
