package sql

import (
	pgquery "github.com/pganalyze/pg_query_go/v6"
)

// UPDATE, DELETE and INSERT ... SELECT are planned as the query that finds their rows, so they are rewritten into one
// in PostgreSQL's own tree.

// updateStmt converts UPDATE table [AS alias] SET ... [FROM ...] [WHERE ...].
func (c *converter) updateStmt(s *pgquery.UpdateStmt, from, to int) (*Update, error) {
	out := &Update{statement: statement{src: c.src, from: from, to: to}}
	rel, err := c.relation(s.Relation)
	if err != nil {
		return nil, err
	}
	if rel.past != nil {
		return nil, c.src.unsupported(rel.past.pos(), "a change is made to the rows as they are", "AS OF for the table that is changed is not supported")
	}
	out.Table, out.tableAt = rel.name, rel.pos()
	if out.returning, err = c.selectItems(s.ReturningList); err != nil {
		return nil, err
	}
	set, values, err := c.setClause(s.TargetList)
	if err != nil {
		return nil, err
	}
	out.set = set
	items := []*pgquery.Node{starOf(s.Relation)}
	for _, v := range values {
		items = append(items, target(v))
	}
	out.rows, err = c.rowsOf(&pgquery.SelectStmt{
		TargetList: items, FromClause: append([]*pgquery.Node{rangeVar(s.Relation)}, s.FromClause...),
		WhereClause: s.WhereClause, WithClause: s.WithClause,
	}, from, to)
	return out, err
}

// deleteStmt converts DELETE FROM table [AS alias] [USING ...] [WHERE ...].
func (c *converter) deleteStmt(s *pgquery.DeleteStmt, from, to int) (*Delete, error) {
	out := &Delete{statement: statement{src: c.src, from: from, to: to}}
	rel, err := c.relation(s.Relation)
	if err != nil {
		return nil, err
	}
	if rel.past != nil {
		return nil, c.src.unsupported(rel.past.pos(), "a change is made to the rows as they are", "AS OF for the table that is changed is not supported")
	}
	out.Table, out.tableAt = rel.name, rel.pos()
	if out.returning, err = c.selectItems(s.ReturningList); err != nil {
		return nil, err
	}
	out.rows, err = c.rowsOf(&pgquery.SelectStmt{
		TargetList: []*pgquery.Node{starOf(s.Relation)}, FromClause: append([]*pgquery.Node{rangeVar(s.Relation)}, s.UsingClause...),
		WhereClause: s.WhereClause, WithClause: s.WithClause,
	}, from, to)
	return out, err
}

// insertQuery converts the SELECT of INSERT ... SELECT, wrapped so that its columns can be cast whatever its clauses.
func (c *converter) insertQuery(s *pgquery.SelectStmt, with *pgquery.WithClause, from, to int) (*Select, error) {
	sub := &pgquery.RangeSubselect{
		Subquery: &pgquery.Node{Node: &pgquery.Node_SelectStmt{SelectStmt: s}}, Alias: &pgquery.Alias{Aliasname: "query"},
	}
	star := &pgquery.ColumnRef{Fields: []*pgquery.Node{{Node: &pgquery.Node_AStar{AStar: &pgquery.A_Star{}}}}}
	return c.rowsOf(&pgquery.SelectStmt{
		TargetList: []*pgquery.Node{target(&pgquery.Node{Node: &pgquery.Node_ColumnRef{ColumnRef: star}})},
		FromClause: []*pgquery.Node{{Node: &pgquery.Node_RangeSubselect{RangeSubselect: sub}}}, WithClause: with,
	}, from, to)
}

func (c *converter) rowsOf(s *pgquery.SelectStmt, from, to int) (*Select, error) {
	s.Op, s.LimitOption = pgquery.SetOperation_SETOP_NONE, pgquery.LimitOption_LIMIT_OPTION_DEFAULT
	return c.selectStmt(s, from, to)
}

// starOf is r.* as a column of a select list.
func starOf(r *pgquery.RangeVar) *pgquery.Node {
	name := r.Relname
	if r.Alias != nil {
		name = r.Alias.Aliasname
	}
	ref := &pgquery.ColumnRef{Location: r.Location, Fields: []*pgquery.Node{
		pgquery.MakeStrNode(name), {Node: &pgquery.Node_AStar{AStar: &pgquery.A_Star{}}},
	}}
	return target(&pgquery.Node{Node: &pgquery.Node_ColumnRef{ColumnRef: ref}})
}

func target(val *pgquery.Node) *pgquery.Node {
	return &pgquery.Node{Node: &pgquery.Node_ResTarget{ResTarget: &pgquery.ResTarget{Val: val}}}
}

func rangeVar(r *pgquery.RangeVar) *pgquery.Node {
	return &pgquery.Node{Node: &pgquery.Node_RangeVar{RangeVar: r}}
}

// selectItems converts the list of RETURNING.
func (c *converter) selectItems(list []*pgquery.Node) ([]selectItem, error) {
	var out []selectItem
	for _, n := range list {
		t := n.GetResTarget()
		e, err := c.selectExpr(t.Val)
		if err != nil {
			return nil, err
		}
		out = append(out, selectItem{expr: e, alias: t.Name})
	}
	return out, nil
}

// setClause converts the list of SET; DEFAULT is NULL among the values.
func (c *converter) setClause(list []*pgquery.Node) (set []assignment, values []*pgquery.Node, err error) {
	for _, n := range list {
		t := n.GetResTarget()
		pos := c.at(t.Location)
		if len(t.Indirection) > 0 {
			return nil, nil, c.src.unsupported(pos, "", "assignment to a part of a column is not supported")
		}
		val := t.Val
		if m := val.GetMultiAssignRef(); m != nil { // SET (a, b) = (1, 2)
			row := m.Source.GetRowExpr()
			if row == nil {
				return nil, nil, c.src.unsupported(pos, "write column = (subquery) for each", "SET (columns) = (subquery) is not supported")
			}
			if len(row.Args) != int(m.Ncolumns) {
				return nil, nil, c.src.fail(pos, stateSyntax, "", "number of columns does not match number of values")
			}
			val = row.Args[m.Colno-1]
		}
		a := assignment{columnRef: columnRef{at: at(pos), name: t.Name}, toDefault: val.GetSetToDefault() != nil}
		if a.toDefault {
			val = &pgquery.Node{Node: &pgquery.Node_AConst{AConst: &pgquery.A_Const{Isnull: true, Location: t.Location}}}
		}
		set, values = append(set, a), append(values, val)
	}
	return set, values, nil
}

// onConflict converts ON CONFLICT [(columns) | ON CONSTRAINT name] DO NOTHING | DO UPDATE SET ... [WHERE ...].
func (c *converter) onConflict(out *Insert, s *pgquery.OnConflictClause) error {
	if s == nil {
		return nil
	}
	out.conflictAt = c.find("conflict")
	out.onConflict = ConflictNothing
	if s.Infer != nil {
		if s.Infer.WhereClause != nil {
			return c.src.unsupported(out.conflictAt, "name the columns of the primary key", "ON CONFLICT with a condition is not supported")
		}
		out.constraint = s.Infer.Conname
		for _, n := range s.Infer.IndexElems {
			e := n.GetIndexElem()
			if e.GetName() == "" {
				return c.src.unsupported(out.conflictAt, "name the columns of the primary key", "ON CONFLICT with an expression is not supported")
			}
			out.conflict = append(out.conflict, columnRef{at: at(out.conflictAt), name: e.Name})
		}
	}
	if s.Action != pgquery.OnConflictAction_ONCONFLICT_UPDATE {
		return nil
	}
	out.onConflict = ConflictUpdate
	if s.Infer == nil {
		return c.src.fail(out.conflictAt, stateSyntax, "name the columns of the primary key: ON CONFLICT (key) DO UPDATE", "ON CONFLICT DO UPDATE requires inference specification or constraint name")
	}
	set, values, err := c.setClause(s.TargetList)
	if err != nil {
		return err
	}
	out.set = set
	for _, v := range values {
		e, err := c.expr(v)
		if err != nil {
			return err
		}
		out.setTo = append(out.setTo, e)
	}
	out.updateWhere, err = c.optional(s.WhereClause)
	return err
}
