package sql

import (
	pgquery "github.com/pganalyze/pg_query_go/v6"
)

// converter turns PostgreSQL's tree of one part of the source into the AST. It and convert_expr.go are the only
// code that knows that tree.
type converter struct {
	src  *source
	base int           // where in the source the parsed part begins
	to   int           // and ends
	asOf map[int]expr  // FOR SYSTEM_TIME AS OF, by the position of the relation's name
	past map[int]*past // AS OF TICK and AS OF TIMESTAMP, by the position of the relation's name
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
	out, err := c.selectStmt(s, from, to)
	if err == nil {
		err = c.pastUsed()
	}
	if err != nil {
		return nil, err
	}
	return out, nil
}

// parsePart lets PostgreSQL's parser read bytes from..to of the source, which are to be one statement.
func parsePart(src *source, from, to int) (*converter, *pgquery.Node, error) {
	x, err := takeExtras(src, from, to)
	if err != nil {
		return nil, nil, err
	}
	c := &converter{src: src, base: from, to: to, past: x.past}
	tree, err := parseText(x.text)
	if err != nil {
		return nil, nil, src.grammar(err, from, to)
	}
	for at, s := range x.asOf {
		if c.asOf == nil {
			c.asOf = map[int]expr{}
		}
		if c.asOf[at], err = parseExpression(src, s, "time of FOR SYSTEM_TIME AS OF"); err != nil {
			return nil, nil, err
		}
	}
	for _, p := range x.past {
		if p.time, err = parseExpression(src, p.text, "time of AS OF"); err != nil {
			return nil, nil, err
		}
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
	out := &Select{statement: statement{src: c.src, from: from, to: to}, at: from}
	var err error
	if out.with, err = c.withClause(s.WithClause); err != nil {
		return nil, err
	}
	switch {
	case s.Op == pgquery.SetOperation_SETOP_UNION || s.Op == pgquery.SetOperation_SETOP_INTERSECT || s.Op == pgquery.SetOperation_SETOP_EXCEPT:
		out.set, err = c.setOperation(s, from, to)
	case len(s.ValuesLists) > 0:
		out.values, err = c.valuesLists(s.ValuesLists, c.expr)
	default:
		err = c.plainSelect(out, s)
	}
	if err != nil {
		return nil, err
	}
	if out.orderBy, err = c.sortClause(s.SortClause); err != nil {
		return nil, err
	}
	if out.limit, err = c.optional(s.LimitCount); err != nil {
		return nil, err
	}
	out.offset, err = c.optional(s.LimitOffset)
	return out, err
}

// plainSelect converts what only SELECT itself has.
func (c *converter) plainSelect(out *Select, s *pgquery.SelectStmt) error {
	out.distinct = len(s.DistinctClause) > 0
	for _, n := range s.DistinctClause {
		if n.Node == nil {
			continue
		}
		e, err := c.expr(n)
		if err != nil {
			return err
		}
		out.on = append(out.on, e)
	}
	for _, n := range s.TargetList {
		t := n.GetResTarget()
		e, err := c.selectExpr(t.Val)
		if err != nil {
			return err
		}
		out.items = append(out.items, selectItem{expr: e, alias: t.Name})
	}
	var err error
	if out.from, err = c.fromClause(s.FromClause); err != nil {
		return err
	}
	if out.where, err = c.optional(s.WhereClause); err != nil {
		return err
	}
	if out.having, err = c.optional(s.HavingClause); err != nil {
		return err
	}
	for _, n := range s.GroupClause {
		g, err := c.groupItem(n)
		if err != nil {
			return err
		}
		out.groupBy = append(out.groupBy, g)
	}
	for _, n := range s.WindowClause {
		w, err := c.windowDef(n.GetWindowDef())
		if err != nil {
			return err
		}
		out.windows = append(out.windows, w)
	}
	return nil
}

func (c *converter) setOperation(s *pgquery.SelectStmt, from, to int) (*setOperation, error) {
	out := &setOperation{kind: setUnion, all: s.All}
	switch s.Op {
	case pgquery.SetOperation_SETOP_INTERSECT:
		out.kind = setIntersect
	case pgquery.SetOperation_SETOP_EXCEPT:
		out.kind = setExcept
	}
	var err error
	if out.left, err = c.selectStmt(s.Larg, from, to); err != nil {
		return nil, err
	}
	out.right, err = c.selectStmt(s.Rarg, from, to)
	return out, err
}

func (c *converter) withClause(w *pgquery.WithClause) ([]*cteDef, error) {
	if w == nil {
		return nil, nil
	}
	if w.Recursive {
		return nil, c.src.unsupported(c.at(w.Location), "", "WITH RECURSIVE is not supported")
	}
	var out []*cteDef
	for _, n := range w.Ctes {
		e := n.GetCommonTableExpr()
		d := &cteDef{at: at(c.at(e.Location)), name: e.Ctename}
		s := e.Ctequery.GetSelectStmt()
		if s == nil {
			return nil, c.src.unsupported(d.pos(), "", "a WITH query that changes data is not supported")
		}
		for _, before := range out {
			if before.name == d.name {
				return nil, c.src.fail(d.pos(), stateDuplicateAlias, "", "WITH query name %q is given twice", d.name)
			}
		}
		for _, a := range e.Aliascolnames {
			d.columns = append(d.columns, a.GetString_().GetSval())
		}
		var err error
		if d.query, err = c.selectStmt(s, d.pos(), c.to); err != nil {
			return nil, err
		}
		out = append(out, d)
	}
	return out, nil
}

func (c *converter) groupItem(n *pgquery.Node) (groupItem, error) {
	g := n.GetGroupingSet()
	if g == nil {
		if r := n.GetRowExpr(); r != nil && r.RowFormat == pgquery.CoercionForm_COERCE_IMPLICIT_CAST {
			list, err := c.list(r.Args)
			return groupItem{at: at(c.at(r.Location)), kind: groupList, list: list}, err
		}
		e, err := c.expr(n)
		if err != nil {
			return groupItem{}, err
		}
		return groupItem{at: at(e.pos()), expr: e}, nil
	}
	out := groupItem{at: at(c.at(g.Location))}
	switch g.Kind {
	case pgquery.GroupingSetKind_GROUPING_SET_EMPTY:
		out.kind = groupList
		return out, nil
	case pgquery.GroupingSetKind_GROUPING_SET_ROLLUP:
		out.kind = groupRollup
	case pgquery.GroupingSetKind_GROUPING_SET_CUBE:
		out.kind = groupCube
	default:
		out.kind = groupSets
	}
	for _, m := range g.Content {
		item, err := c.groupItem(m)
		if err != nil {
			return out, err
		}
		out.sets = append(out.sets, item)
	}
	return out, nil
}

// Bits of PostgreSQL's frame options.
const (
	frameNonDefault         = 0x00001
	frameRange              = 0x00002
	frameRows               = 0x00004
	frameGroups             = 0x00008
	frameStartUnboundedPrec = 0x00020
	frameEndUnboundedPrec   = 0x00040
	frameStartUnboundedFoll = 0x00080
	frameEndUnboundedFoll   = 0x00100
	frameStartCurrent       = 0x00200
	frameEndCurrent         = 0x00400
	frameStartPreceding     = 0x00800
	frameEndPreceding       = 0x01000
	frameStartFollowing     = 0x02000
	frameEndFollowing       = 0x04000
	frameExclusion          = 0x08000 | 0x10000 | 0x20000
)

func (c *converter) windowDef(w *pgquery.WindowDef) (*windowSpec, error) {
	out := &windowSpec{at: at(c.at(w.Location)), name: w.Name, base: w.Refname}
	var err error
	if out.keys, err = c.list(w.PartitionClause); err != nil {
		return nil, err
	}
	if out.order, err = c.sortClause(w.OrderClause); err != nil {
		return nil, err
	}
	o := w.FrameOptions
	switch {
	case o&frameNonDefault == 0:
		return out, nil
	case o&frameExclusion != 0:
		return nil, c.src.unsupported(out.pos(), "", "EXCLUDE in a window frame is not supported")
	}
	f := &frameSpec{at: out.at, mode: "range"}
	if o&frameRows != 0 {
		f.mode = "rows"
	} else if o&frameGroups != 0 {
		f.mode = "groups"
	}
	f.start = frameBound{unbounded: o&(frameStartUnboundedPrec|frameStartUnboundedFoll) != 0, preceding: o&(frameStartPreceding|frameStartUnboundedPrec) != 0}
	f.end = frameBound{unbounded: o&(frameEndUnboundedPrec|frameEndUnboundedFoll) != 0, preceding: o&(frameEndPreceding|frameEndUnboundedPrec) != 0}
	if f.start.offset, err = c.optional(w.StartOffset); err != nil {
		return nil, err
	}
	f.end.offset, err = c.optional(w.EndOffset)
	out.frame = f
	return out, err
}

// refuseClauses names the parts of a SELECT that aren't supported.
func (c *converter) refuseClauses(s *pgquery.SelectStmt) error {
	src := c.src
	switch {
	case s.IntoClause != nil:
		return src.unsupported(c.find("into"), "use CREATE MATERIALIZED VIEW", "SELECT INTO is not supported")
	case len(s.LockingClause) > 0:
		return src.unsupported(c.find("update", "share"), "", "FOR UPDATE and FOR SHARE are not supported")
	case s.LimitOption == pgquery.LimitOption_LIMIT_OPTION_WITH_TIES:
		return src.unsupported(c.find("ties"), "use rank() OVER (ORDER BY ...) <= n", "FETCH ... WITH TIES is not supported")
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

// insertStmt converts INSERT INTO stream [(columns)] VALUES ...
func (c *converter) insertStmt(s *pgquery.InsertStmt, from, to int) (*Insert, error) {
	rel, err := c.relation(s.Relation)
	if err != nil {
		return nil, err
	}
	out := &Insert{statement: statement{src: c.src, from: from, to: to}, Stream: rel.name, alias: rel.alias, streamAt: rel.pos()}
	if out.returning, err = c.selectItems(s.ReturningList); err != nil {
		return nil, err
	}
	values := s.SelectStmt.GetSelectStmt()
	switch {
	case values != nil && len(values.ValuesLists) > 0 && s.WithClause != nil:
		return nil, c.src.unsupported(c.find("with"), "write INSERT ... SELECT", "WITH before INSERT ... VALUES is not supported")
	case values != nil && len(values.ValuesLists) > 0 && (len(values.SortClause) > 0 || values.LimitCount != nil || values.LimitOffset != nil):
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
	switch {
	case values == nil: // DEFAULT VALUES
		out.columns, out.rows = []columnRef{}, [][]expr{{}}
		return out, nil
	case len(values.ValuesLists) == 0:
		out.query, err = c.insertQuery(values, s.WithClause, from, to)
		return out, err
	}
	out.rows, err = c.valuesLists(values.ValuesLists, c.valuesExpr)
	return out, err
}

func (c *converter) valuesLists(lists []*pgquery.Node, convert func(*pgquery.Node) (expr, error)) ([][]expr, error) {
	var out [][]expr
	for _, l := range lists {
		var row []expr
		for _, n := range l.GetList().GetItems() {
			e, err := convert(n)
			if err != nil {
				return nil, err
			}
			row = append(row, e)
		}
		out = append(out, row)
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
