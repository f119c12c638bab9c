package pgcatalog

import (
	"fmt"
	"slices"
	"sort"

	pgquery "github.com/pganalyze/pg_query_go/v6"

	"github.com/millrace/millrace/internal/fault"
)

// query is a compiled SELECT. run gives its rows; parent is the row of the query around it.
type query struct {
	cols       []Column
	correlated bool // reads the row of a query around it
	run        func(parent *env) ([][]Value, error)
}

// subquery is a query within an expression. One that isn't correlated runs once.
type subquery struct{ q *query }

func (s *subquery) rows(e *env) ([][]Value, error) {
	if s.q.correlated {
		return s.q.run(e)
	}
	if rows, ok := e.x.subs[s]; ok {
		return rows, nil
	}
	rows, err := s.q.run(e)
	if err == nil {
		e.x.subs[s] = rows
	}
	return rows, err
}

// selectStmt compiles a query; around is what it may name besides its own FROM.
func (c *compiler) selectStmt(st *pgquery.SelectStmt, around *scope) (*query, error) {
	if st == nil {
		return nil, unsupported("this query")
	}
	if w := st.WithClause; w != nil {
		known := len(c.ctes)
		defer func() { c.ctes = c.ctes[:known] }()
		for _, n := range w.Ctes {
			t := n.GetCommonTableExpr()
			var q *query
			var err error
			if w.Recursive && readsItself(t) {
				q, err = c.recursive(t, around)
			} else if q, err = c.selectStmt(t.Ctequery.GetSelectStmt(), around); err == nil {
				q.name(t.Aliascolnames)
			}
			if err != nil {
				return nil, err
			}
			c.ctes = append(c.ctes, &cte{name: t.Ctename, q: q, around: around})
		}
	}
	switch {
	case st.Op != pgquery.SetOperation_SETOP_NONE:
		return c.setOperation(st, around)
	case len(st.ValuesLists) > 0:
		return c.values(st, around)
	}
	return c.plainSelect(st, around)
}

// target is a column of the select list.
type target struct {
	*node
	name string
}

// selection is a SELECT without set operations, compiled.
type selection struct {
	from    source
	rels    int
	where   *node
	group   []*node
	aggs    []*aggregate
	wins    []*window
	having  *node
	targets []target
	hidden  int // targets at the end that are for ORDER BY only
	grouped bool
	ordered []orderKey
	limits
	distinct bool
	firstOf  []int // the columns of DISTINCT ON
}

func (c *compiler) plainSelect(st *pgquery.SelectStmt, around *scope) (*query, error) {
	s := &scope{parent: around}
	sel := &selection{distinct: len(st.DistinctClause) > 0}
	var on []*pgquery.Node // of DISTINCT ON
	if sel.distinct && st.DistinctClause[0].GetNode() != nil {
		sel.distinct, on = false, st.DistinctClause
	}
	var leaves []*leaf
	var err error
	if sel.from, leaves, err = c.fromClause(st.FromClause, s); err != nil {
		return nil, err
	}
	sel.rels = len(s.rels)
	if st.WhereClause != nil {
		if sel.where, err = c.condition(st.WhereClause, s); err != nil {
			return nil, err
		}
		f := &fromCompiler{compiler: c, scope: s}
		if err := f.narrow(leaves, st.WhereClause); err != nil {
			return nil, err
		}
	}
	s.aggs, s.wins = &sel.aggs, &sel.wins
	if err := c.targets(st.TargetList, s, sel); err != nil {
		return nil, err
	}
	if err := c.grouping(st, s, sel); err != nil {
		return nil, err
	}
	visible := len(sel.targets)
	if sel.ordered, err = c.orderBy(st.SortClause, s, sel); err != nil {
		return nil, err
	}
	for _, n := range on {
		e, err := c.byPosition(n, s, sel)
		if err != nil {
			return nil, err
		}
		sel.firstOf = append(sel.firstOf, sel.column(e))
	}
	sel.hidden = len(sel.targets) - visible
	if sel.limits, err = c.limits(st); err != nil {
		return nil, err
	}
	sel.grouped = len(sel.group) > 0 || len(sel.aggs) > 0
	q := &query{run: sel.run, correlated: s.correlated}
	for _, t := range sel.targets[:visible] {
		q.cols = append(q.cols, Column{Name: t.name, OID: t.typ})
	}
	return q, nil
}

func (c *compiler) grouping(st *pgquery.SelectStmt, s *scope, sel *selection) error {
	for _, n := range st.GroupClause {
		k, err := c.byPosition(n, s, sel)
		if err != nil {
			return err
		}
		sel.group = append(sel.group, k)
	}
	if st.HavingClause == nil {
		return nil
	}
	var err error
	sel.having, err = c.condition(st.HavingClause, s)
	return err
}

// byPosition compiles an expression of GROUP BY or ORDER BY, which may be a column's number or name in the select list.
func (c *compiler) byPosition(n *pgquery.Node, s *scope, sel *selection) (*node, error) {
	if k := n.GetAConst(); k != nil && k.GetIval() != nil {
		i := int(k.GetIval().Ival)
		if i < 1 || i > len(sel.targets) {
			return nil, fault.SQL(fault.Invalid, "42P10", "position %d is not in select list", i)
		}
		return sel.targets[i-1].node, nil
	}
	if r := n.GetColumnRef(); r != nil && len(r.Fields) == 1 {
		for _, t := range sel.targets {
			if t.name == r.Fields[0].GetString_().GetSval() {
				return t.node, nil
			}
		}
	}
	return c.expr(n, s)
}

// targets compiles the select list.
func (c *compiler) targets(list []*pgquery.Node, s *scope, sel *selection) error {
	for _, n := range list {
		t := n.GetResTarget()
		if r := t.Val.GetColumnRef(); r != nil && r.Fields[len(r.Fields)-1].GetAStar() != nil {
			table := ""
			if len(r.Fields) > 1 {
				table = r.Fields[len(r.Fields)-2].GetString_().GetSval()
			}
			for _, rel := range s.rels {
				if table != "" && rel.name != table {
					continue
				}
				for i, col := range rel.cols {
					sel.targets = append(sel.targets, target{columnNode(rel.slot, i, col.OID, 0), col.Name})
				}
			}
			continue
		}
		e, err := c.expr(t.Val, s)
		if err != nil {
			return err
		}
		if e.typ == unknownOID {
			if e, err = c.to(e, textOID); err != nil {
				return err
			}
		}
		name := t.Name
		if name == "" {
			name = nameOf(t.Val)
		}
		sel.targets = append(sel.targets, target{e, name})
	}
	if len(sel.targets) > 1600 {
		return fault.SQL(fault.TooLarge, "54011", "target lists can have at most 1600 entries")
	}
	return nil
}

// nameOf is the name that PostgreSQL gives to a column without one.
func nameOf(n *pgquery.Node) string {
	switch n := n.GetNode().(type) {
	case *pgquery.Node_ColumnRef:
		return lastName(n.ColumnRef.Fields)
	case *pgquery.Node_FuncCall:
		return lastName(n.FuncCall.Funcname)
	case *pgquery.Node_TypeCast:
		if name := nameOf(n.TypeCast.Arg); name != "?column?" {
			return name
		}
		return lastName(n.TypeCast.TypeName.Names)
	case *pgquery.Node_CaseExpr:
		return "case"
	case *pgquery.Node_CoalesceExpr:
		return "coalesce"
	case *pgquery.Node_AArrayExpr:
		return "array"
	case *pgquery.Node_CollateClause:
		return nameOf(n.CollateClause.Arg)
	case *pgquery.Node_AIndirection:
		for _, i := range n.AIndirection.Indirection {
			if s := i.GetString_(); s != nil {
				return s.Sval
			}
		}
		return nameOf(n.AIndirection.Arg)
	case *pgquery.Node_AExpr:
		if n.AExpr.Kind == pgquery.A_Expr_Kind_AEXPR_NULLIF {
			return "nullif"
		}
	case *pgquery.Node_SubLink:
		return subLinkName(n.SubLink)
	case *pgquery.Node_SqlvalueFunction:
		return sqlValueName(n.SqlvalueFunction.Op)
	}
	return "?column?"
}

func subLinkName(l *pgquery.SubLink) string {
	switch l.SubLinkType {
	case pgquery.SubLinkType_EXISTS_SUBLINK:
		return "exists"
	case pgquery.SubLinkType_ARRAY_SUBLINK:
		return "array"
	case pgquery.SubLinkType_EXPR_SUBLINK:
		if list := l.Subselect.GetSelectStmt().GetTargetList(); len(list) == 1 {
			if t := list[0].GetResTarget(); t.Name != "" {
				return t.Name
			}
			return nameOf(list[0].GetResTarget().Val)
		}
	}
	return "?column?"
}

func sqlValueName(op pgquery.SQLValueFunctionOp) string {
	switch op {
	case pgquery.SQLValueFunctionOp_SVFOP_CURRENT_CATALOG:
		return "current_catalog"
	case pgquery.SQLValueFunctionOp_SVFOP_CURRENT_SCHEMA:
		return "current_schema"
	case pgquery.SQLValueFunctionOp_SVFOP_SESSION_USER:
		return "session_user"
	case pgquery.SQLValueFunctionOp_SVFOP_USER:
		return "user"
	case pgquery.SQLValueFunctionOp_SVFOP_CURRENT_ROLE:
		return "current_role"
	}
	return "current_user"
}

// run evaluates the selection.
func (sel *selection) run(parent *env) ([][]Value, error) {
	e := &env{x: parent.x, rows: make([][]Value, sel.rels), parent: parent}
	var all []*env
	direct := !sel.grouped && len(sel.wins) == 0
	var out [][]Value
	err := sel.from.scan(e, func() error {
		if sel.where != nil {
			if v, ok, err := truth(sel.where, e); err != nil || !ok || !v {
				return err
			}
		}
		if direct {
			var err error
			out, err = sel.project(e, out)
			return err
		}
		if len(all) >= maxRows {
			return tooManyRows()
		}
		all = append(all, &env{x: e.x, rows: slices.Clone(e.rows), parent: parent})
		return nil
	})
	if err != nil {
		return nil, err
	}
	if sel.grouped {
		if all, err = sel.groups(all, e); err != nil {
			return nil, err
		}
	}
	for i, w := range sel.wins {
		if err := w.number(all, len(sel.aggs)+i); err != nil {
			return nil, err
		}
	}
	for _, row := range all {
		if out, err = sel.project(row, out); err != nil {
			return nil, err
		}
	}
	if sel.distinct {
		out = distinctRows(out, len(sel.targets)-sel.hidden)
	}
	sortRows(out, sel.ordered)
	if sel.firstOf != nil {
		out = firstRows(out, sel.firstOf)
	}
	if sel.hidden > 0 {
		for i := range out {
			out[i] = out[i][:len(sel.targets)-sel.hidden]
		}
	}
	return sel.limits.apply(out, parent)
}

func tooManyRows() error {
	return fault.SQL(fault.Exhausted, "54000", "the query holds more than %d rows of the catalog; ask for less", maxRows)
}

// project appends the select list's values: one row, or as many as a set-returning function gives.
func (sel *selection) project(e *env, out [][]Value) ([][]Value, error) {
	sets := make(map[int][]Value)
	n := 1
	for i, t := range sel.targets {
		if t.set == nil {
			continue
		}
		list, err := t.set(e)
		if err != nil {
			return nil, err
		}
		if len(sets) == 0 {
			n = len(list)
		}
		sets[i], n = list, max(n, len(list))
	}
	if len(out)+n > maxRows {
		return nil, tooManyRows()
	}
	for k := range n {
		row := make([]Value, len(sel.targets))
		for i, t := range sel.targets {
			if list, ok := sets[i]; ok {
				if k < len(list) {
					row[i] = list[k]
				}
				continue
			}
			var err error
			if row[i], err = t.eval(e); err != nil {
				return nil, err
			}
		}
		out = append(out, row)
	}
	return out, nil
}

// keyOf is a row as a key of a map.
func keyOf(row []Value) string {
	var b []byte
	for _, v := range row {
		if v == nil {
			b = append(b, 'n')
			continue
		}
		t := AppendText(nil, v)
		b = append(fmt.Appendf(b, "v%d:", len(t)), t...)
	}
	return string(b)
}

// firstRows keeps the first row of those that are equal in some columns.
func firstRows(rows [][]Value, cols []int) [][]Value {
	seen := map[string]bool{}
	return slices.DeleteFunc(rows, func(r []Value) bool {
		key := make([]Value, len(cols))
		for i, c := range cols {
			key[i] = r[c]
		}
		k := keyOf(key)
		known := seen[k]
		seen[k] = true
		return known
	})
}

func distinctRows(rows [][]Value, n int) [][]Value {
	seen := map[string]bool{}
	out := rows[:0]
	for _, r := range rows {
		if k := keyOf(r[:n]); !seen[k] {
			seen[k] = true
			out = append(out, r)
		}
	}
	return out
}

// orderKey is one of ORDER BY, a column of the rows.
type orderKey struct {
	col        int
	desc       bool
	nullsFirst bool
}

// column returns where an expression stands in the rows, which it is added to where it doesn't yet.
func (sel *selection) column(e *node) int {
	col := slices.IndexFunc(sel.targets, func(t target) bool { return t.node == e })
	if col < 0 {
		col = len(sel.targets)
		sel.targets = append(sel.targets, target{node: e})
	}
	return col
}

// orderBy compiles ORDER BY; what isn't in the select list is added to it, hidden.
func (c *compiler) orderBy(list []*pgquery.Node, s *scope, sel *selection) ([]orderKey, error) {
	var out []orderKey
	for _, n := range list {
		by := n.GetSortBy()
		e, err := c.byPosition(by.Node, s, sel)
		if err != nil {
			return nil, err
		}
		out = append(out, keyBy(sel.column(e), by))
	}
	return out, nil
}

func keyBy(col int, by *pgquery.SortBy) orderKey {
	desc := by.SortbyDir == pgquery.SortByDir_SORTBY_DESC
	first := desc
	switch by.SortbyNulls {
	case pgquery.SortByNulls_SORTBY_NULLS_FIRST:
		first = true
	case pgquery.SortByNulls_SORTBY_NULLS_LAST:
		first = false
	}
	return orderKey{col, desc, first}
}

// before compares two values under a key.
func (k orderKey) compare(a, b Value) int {
	switch {
	case a == nil && b == nil:
		return 0
	case a == nil || b == nil:
		if (a == nil) == k.nullsFirst {
			return -1
		}
		return 1
	}
	c, _ := compare(a, b)
	if k.desc {
		return -c
	}
	return c
}

func sortRows(rows [][]Value, keys []orderKey) {
	if len(keys) == 0 {
		return
	}
	sort.SliceStable(rows, func(i, j int) bool {
		for _, k := range keys {
			if c := k.compare(rows[i][k.col], rows[j][k.col]); c != 0 {
				return c < 0
			}
		}
		return false
	})
}

// limits is LIMIT and OFFSET.
type limits struct{ limit, offset *node }

func (c *compiler) limits(st *pgquery.SelectStmt) (limits, error) {
	var l limits
	for _, p := range []struct {
		in  *pgquery.Node
		out **node
	}{{st.LimitCount, &l.limit}, {st.LimitOffset, &l.offset}} {
		if p.in == nil {
			continue
		}
		e, err := c.expr(p.in, nil)
		if err == nil {
			e, err = c.to(e, int8OID)
		}
		if err != nil {
			return l, err
		}
		*p.out = e
	}
	return l, nil
}

func (l limits) apply(rows [][]Value, e *env) ([][]Value, error) {
	number := func(n *node, none int) (int, error) {
		if n == nil {
			return none, nil
		}
		v, err := n.eval(e)
		if err != nil || v == nil {
			return none, err
		}
		i, ok := v.(int64)
		if !ok || i < 0 {
			return 0, fault.SQL(fault.Invalid, "2201W", "LIMIT and OFFSET must not be negative")
		}
		return int(min(i, 1<<40)), nil
	}
	offset, err := number(l.offset, 0)
	if err != nil {
		return nil, err
	}
	rows = rows[min(offset, len(rows)):]
	limit, err := number(l.limit, len(rows))
	return rows[:min(limit, len(rows))], err
}
