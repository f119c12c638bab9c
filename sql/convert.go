package sql

import (
	"strings"

	pgquery "github.com/pganalyze/pg_query_go/v6"
)

// converter turns PostgreSQL's tree of one part of the source into the AST. It and convert_expr.go are the only
// code that knows that tree.
type converter struct {
	src  *source
	base int // where in the source the parsed part begins
	to   int // and ends
}

// at returns a tree's location as a position in the source.
func (c *converter) at(location int32) int {
	if location < 0 {
		return c.base
	}
	return c.base + int(location)
}

// parseQuery parses bytes from..to of the source, which are to be one SELECT.
func parseQuery(src *source, from, to int) (*Select, error) {
	c, node, err := parsePart(src, from, to)
	if err != nil {
		return nil, err
	}
	s := node.GetSelectStmt()
	if s == nil {
		return nil, src.fail(from, stateSyntax, "", "expected SELECT")
	}
	return c.selectStmt(s, from, to)
}

// parsePart lets PostgreSQL's parser read bytes from..to of the source, which are to be one statement.
func parsePart(src *source, from, to int) (*converter, *pgquery.Node, error) {
	c := &converter{src: src, base: from, to: to}
	tree, err := parseText(src.text[from:to])
	if err != nil {
		return nil, nil, src.grammar(err, from, to)
	}
	if len(tree.Stmts) != 1 {
		return nil, nil, src.fail(from, stateSyntax, "", "expected one statement")
	}
	return c, tree.Stmts[0].Stmt, nil
}

func (c *converter) selectStmt(s *pgquery.SelectStmt, from, to int) (*Select, error) {
	if err := c.refuseClauses(s); err != nil {
		return nil, err
	}
	out := &Select{statement: statement{src: c.src, from: from, to: to}, at: from, distinct: len(s.DistinctClause) > 0}
	for _, n := range s.TargetList {
		t := n.GetResTarget()
		e, err := c.selectExpr(t.Val)
		if err != nil {
			return nil, err
		}
		out.items = append(out.items, selectItem{expr: e, alias: t.Name})
	}
	var err error
	if out.from, err = c.fromClause(s.FromClause); err != nil {
		return nil, err
	}
	for _, p := range []struct {
		in  *pgquery.Node
		out *expr
	}{{s.WhereClause, &out.where}, {s.HavingClause, &out.having}, {s.LimitCount, &out.limit}, {s.LimitOffset, &out.offset}} {
		if *p.out, err = c.optional(p.in); err != nil {
			return nil, err
		}
	}
	for _, n := range s.GroupClause {
		if g := n.GetGroupingSet(); g != nil {
			return nil, c.src.unsupported(c.at(g.Location), "write one query for each set", "GROUPING SETS, ROLLUP and CUBE are not supported")
		}
		e, err := c.expr(n)
		if err != nil {
			return nil, err
		}
		out.groupBy = append(out.groupBy, e)
	}
	if out.orderBy, err = c.sortClause(s.SortClause); err != nil {
		return nil, err
	}
	return out, nil
}

// refuseClauses names the parts of a SELECT that aren't supported.
func (c *converter) refuseClauses(s *pgquery.SelectStmt) error {
	src := c.src
	switch {
	case s.WithClause != nil:
		return src.unsupported(c.at(s.WithClause.Location), "write it as a subquery in FROM, or as a view", "WITH (common table expressions) is not supported")
	case s.Op != pgquery.SetOperation_SETOP_NONE && s.Op != pgquery.SetOperation_SET_OPERATION_UNDEFINED:
		op := strings.TrimPrefix(s.Op.String(), "SETOP_")
		return src.unsupported(c.find(lowerASCII(op)), "", "%s is not supported", op)
	case len(s.ValuesLists) > 0:
		return src.unsupported(c.find("values"), "write SELECT with the values", "VALUES as a query is not supported")
	case s.IntoClause != nil:
		return src.unsupported(c.find("into"), "use CREATE MATERIALIZED VIEW", "SELECT INTO is not supported")
	case len(s.LockingClause) > 0:
		return src.unsupported(c.find("update", "share"), "", "FOR UPDATE and FOR SHARE are not supported")
	case len(s.WindowClause) > 0:
		return src.unsupported(c.find("window"), "", "WINDOW is not supported")
	case s.LimitOption == pgquery.LimitOption_LIMIT_OPTION_WITH_TIES:
		return src.unsupported(c.find("ties"), "", "FETCH ... WITH TIES is not supported")
	}
	for _, d := range s.DistinctClause {
		if d.Node != nil {
			return src.unsupported(c.location(d, c.base), "", "DISTINCT ON is not supported")
		}
	}
	return nil
}

// find returns where the first of the words that is in the parsed part stands.
func (c *converter) find(words ...string) int {
	part := &source{text: c.src.text[c.base:c.to]}
	tokens, err := scan(part)
	if err != nil {
		return c.base
	}
	k := newCursor(part, tokens)
	for i := range tokens {
		for _, w := range words {
			if k.word(i) == w {
				return c.base + tokens[i].from
			}
		}
	}
	return c.base
}

// location returns where an expression's tree begins, else otherwise.
func (c *converter) location(n *pgquery.Node, otherwise int) int {
	if e, err := c.expr(n); err == nil {
		return e.pos()
	}
	return otherwise
}

func (c *converter) sortClause(nodes []*pgquery.Node) ([]orderItem, error) {
	var out []orderItem
	for _, n := range nodes {
		s := n.GetSortBy()
		e, err := c.expr(s.Node)
		if err != nil {
			return nil, err
		}
		if len(s.UseOp) > 0 {
			return nil, c.src.unsupported(c.at(s.Location), "use ASC or DESC", "ORDER BY ... USING is not supported")
		}
		item := orderItem{expr: e, desc: s.SortbyDir == pgquery.SortByDir_SORTBY_DESC}
		switch s.SortbyNulls {
		case pgquery.SortByNulls_SORTBY_NULLS_FIRST:
			item.nullsFirst = true
		case pgquery.SortByNulls_SORTBY_NULLS_LAST:
		default:
			item.nullsFirst = item.desc
		}
		out = append(out, item)
	}
	return out, nil
}

func (c *converter) fromClause(nodes []*pgquery.Node) (*fromItem, error) {
	switch len(nodes) {
	case 0:
		return nil, nil
	case 1:
		return c.fromItem(nodes[0])
	}
	f, err := c.fromItem(nodes[1])
	if err != nil {
		return nil, err
	}
	return nil, c.src.unsupported(f.pos(), "", "joins (more than one relation in FROM) are not supported")
}

func (c *converter) fromItem(n *pgquery.Node) (*fromItem, error) {
	switch n := n.Node.(type) {
	case *pgquery.Node_RangeVar:
		return c.relation(n.RangeVar)
	case *pgquery.Node_RangeSubselect:
		s := n.RangeSubselect
		if s.Lateral {
			return nil, c.src.unsupported(c.find("lateral"), "", "LATERAL is not supported")
		}
		sub, err := c.selectStmt(s.Subquery.GetSelectStmt(), c.base, c.to)
		if err != nil {
			return nil, err
		}
		f := &fromItem{at: at(sub.at), kind: fromSubquery, sub: sub}
		c.alias(f, s.Alias)
		return f, nil
	case *pgquery.Node_RangeFunction:
		return c.tableFunction(n.RangeFunction)
	case *pgquery.Node_JoinExpr:
		pos := c.base
		if f, err := c.fromItem(n.JoinExpr.Rarg); err == nil {
			pos = f.pos()
		}
		return nil, c.src.unsupported(pos, "", "joins are not supported")
	}
	return nil, c.src.unsupported(c.base, "", "this form of FROM is not supported in the query")
}

func (c *converter) relation(r *pgquery.RangeVar) (*fromItem, error) {
	pos := c.at(r.Location)
	if r.Schemaname != "" && r.Schemaname != PublicSchema || r.Catalogname != "" {
		return nil, c.src.unsupported(pos, "write the bare name", "schemas are not supported: %q", r.Schemaname+"."+r.Relname)
	}
	f := &fromItem{at: at(pos), kind: fromRelation, name: r.Relname, nameAt: pos}
	c.alias(f, r.Alias)
	return f, nil
}

func (c *converter) alias(f *fromItem, a *pgquery.Alias) {
	if a == nil {
		return
	}
	f.alias = a.Aliasname
	for _, n := range a.Colnames {
		f.columns = append(f.columns, n.GetString_().GetSval())
	}
}

// tableFunction converts TUMBLE(...) and dead_letters(...).
func (c *converter) tableFunction(r *pgquery.RangeFunction) (*fromItem, error) {
	var fn *pgquery.FuncCall
	if len(r.Functions) == 1 {
		if items := r.Functions[0].GetList().GetItems(); len(items) > 0 {
			fn = items[0].GetFuncCall()
		}
	}
	if fn == nil || r.Lateral || r.Ordinality || r.IsRowsfrom || len(r.Coldeflist) > 0 {
		return nil, c.src.unsupported(c.base, "", "this form of FROM is not supported in the query")
	}
	pos := c.at(fn.Location)
	name := lastName(fn.Funcname)
	f := &fromItem{at: at(pos)}
	c.alias(f, r.Alias)
	args := make([]expr, len(fn.Args))
	for i, a := range fn.Args {
		var err error
		if args[i], err = c.expr(a); err != nil {
			return nil, err
		}
	}
	switch name {
	case "tumble":
		return f, c.tumble(f, args)
	case "dead_letters":
		return f, c.deadLetters(f, args)
	case "hop", "session", "cumulate":
		return nil, c.src.unsupported(pos, "use TUMBLE", "window function %s is not supported", strings.ToUpper(name))
	}
	return nil, c.src.fail(pos, stateNoFunction, suggest(name, []string{"tumble", "dead_letters"}), "unknown table function %q", name)
}

func (c *converter) tumble(f *fromItem, args []expr) error {
	const usage = "write TUMBLE(stream, time_column, INTERVAL '1 minute' [, INTERVAL offset])"
	if len(args) < 3 || len(args) > 4 {
		return c.src.fail(f.pos(), stateSyntax, usage, "TUMBLE takes 3 or 4 arguments, not %d", len(args))
	}
	rel, ok := args[0].(*columnRef)
	if !ok || rel.table != "" {
		return c.src.fail(args[0].pos(), stateSyntax, usage, "first argument of TUMBLE must be the name of a stream")
	}
	col, ok := args[1].(*columnRef)
	if !ok {
		return c.src.fail(args[1].pos(), stateSyntax, usage, "second argument of TUMBLE must be a column")
	}
	f.kind, f.name, f.nameAt, f.time, f.size = fromTumble, rel.name, rel.pos(), col, args[2]
	if len(args) == 4 {
		f.offset = args[3]
	}
	return nil
}

func (c *converter) deadLetters(f *fromItem, args []expr) error {
	const usage = "write dead_letters('stream')"
	if len(args) != 1 {
		return c.src.fail(f.pos(), stateSyntax, usage, "dead_letters takes 1 argument, not %d", len(args))
	}
	f.kind, f.nameAt = fromDead, args[0].pos()
	switch a := args[0].(type) {
	case *literal:
		if a.kind == litString {
			f.name = a.text
			return nil
		}
	case *columnRef:
		if a.table == "" {
			f.name = a.name
			return nil
		}
	}
	return c.src.fail(args[0].pos(), stateSyntax, usage, "argument of dead_letters must be the name of a stream")
}

// insertStmt converts INSERT INTO stream [(columns)] VALUES ...
func (c *converter) insertStmt(s *pgquery.InsertStmt, from, to int) (*Insert, error) {
	rel, err := c.relation(s.Relation)
	if err != nil {
		return nil, err
	}
	out := &Insert{statement: statement{src: c.src, from: from, to: to}, Stream: rel.name, streamAt: rel.pos()}
	values := s.SelectStmt.GetSelectStmt()
	switch {
	case len(s.ReturningList) > 0:
		return nil, c.src.unsupported(c.find("returning"), "", "RETURNING is not supported")
	case s.WithClause != nil:
		return nil, c.src.unsupported(c.find("with"), "", "WITH (common table expressions) is not supported")
	case values == nil:
		return nil, c.src.unsupported(c.find("default"), "write VALUES (...)", "INSERT ... DEFAULT VALUES is not supported")
	case len(values.ValuesLists) > 0 && (len(values.SortClause) > 0 || values.LimitCount != nil || values.LimitOffset != nil):
		return nil, c.src.unsupported(c.find("order", "limit", "offset"), "", "ORDER BY, LIMIT and OFFSET after VALUES are not supported")
	}
	for _, n := range s.Cols {
		t := n.GetResTarget()
		if len(t.Indirection) > 0 {
			return nil, c.src.unsupported(c.at(t.Location), "", "assignment to a part of a column is not supported")
		}
		out.columns = append(out.columns, columnRef{at: at(c.at(t.Location)), name: t.Name})
	}
	if err := c.onConflict(out, s.OnConflictClause); err != nil {
		return nil, err
	}
	if len(values.ValuesLists) == 0 {
		out.query, err = c.insertQuery(values, from, to)
		return out, err
	}
	for _, l := range values.ValuesLists {
		var row []expr
		for _, n := range l.GetList().GetItems() {
			e, err := c.valuesExpr(n)
			if err != nil {
				return nil, err
			}
			row = append(row, e)
		}
		out.rows = append(out.rows, row)
	}
	return out, nil
}

func (c *converter) valuesExpr(n *pgquery.Node) (expr, error) {
	if d := n.GetSetToDefault(); d != nil {
		return &defaultValue{at(c.at(d.Location))}, nil
	}
	return c.expr(n)
}

func lastName(names []*pgquery.Node) string {
	if len(names) == 0 {
		return ""
	}
	return names[len(names)-1].GetString_().GetSval()
}
