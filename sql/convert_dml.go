package sql

import (
	pgquery "github.com/pganalyze/pg_query_go/v6"
)

// UPDATE, DELETE and INSERT ... SELECT are planned as the query that finds their rows, so they are rewritten into one
// in PostgreSQL's own tree.

// updateStmt converts UPDATE table [AS alias] SET ... [FROM ...] [WHERE ...].
func (c *converter) updateStmt(s *pgquery.UpdateStmt, from, to int) (*Update, error) {
	out := &Update{statement: statement{src: c.src, from: from, to: to}}
	if len(s.ReturningList) > 0 {
		return nil, c.src.unsupported(c.find("returning"), "select the rows afterwards", "RETURNING is not supported")
	}
	rel, err := c.relation(s.Relation)
	if err != nil {
		return nil, err
	}
	if rel.past != nil {
		return nil, c.src.unsupported(rel.past.pos(), "a change is made to the rows as they are", "AS OF for the table that is changed is not supported")
	}
	out.Table, out.tableAt = rel.name, rel.pos()
	items := []*pgquery.Node{starOf(s.Relation)}
	for _, n := range s.TargetList {
		t := n.GetResTarget()
		pos := c.at(t.Location)
		switch {
		case len(t.Indirection) > 0:
			return nil, c.src.unsupported(pos, "", "assignment to a part of a column is not supported")
		case t.Val.GetMultiAssignRef() != nil:
			return nil, c.src.unsupported(pos, "write column = value for each", "SET (columns) = ... is not supported")
		}
		out.set = append(out.set, columnRef{at: at(pos), name: t.Name})
		val := t.Val
		if val.GetSetToDefault() != nil {
			val = &pgquery.Node{Node: &pgquery.Node_AConst{AConst: &pgquery.A_Const{Isnull: true, Location: t.Location}}}
		}
		items = append(items, target(val))
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
	if len(s.ReturningList) > 0 {
		return nil, c.src.unsupported(c.find("returning"), "select the rows before", "RETURNING is not supported")
	}
	rel, err := c.relation(s.Relation)
	if err != nil {
		return nil, err
	}
	if rel.past != nil {
		return nil, c.src.unsupported(rel.past.pos(), "a change is made to the rows as they are", "AS OF for the table that is changed is not supported")
	}
	out.Table, out.tableAt = rel.name, rel.pos()
	out.rows, err = c.rowsOf(&pgquery.SelectStmt{
		TargetList: []*pgquery.Node{starOf(s.Relation)}, FromClause: append([]*pgquery.Node{rangeVar(s.Relation)}, s.UsingClause...),
		WhereClause: s.WhereClause, WithClause: s.WithClause,
	}, from, to)
	return out, err
}

// insertQuery converts the SELECT of INSERT ... SELECT, wrapped so that its columns can be cast whatever its clauses.
func (c *converter) insertQuery(s *pgquery.SelectStmt, from, to int) (*Select, error) {
	sub := &pgquery.RangeSubselect{
		Subquery: &pgquery.Node{Node: &pgquery.Node_SelectStmt{SelectStmt: s}}, Alias: &pgquery.Alias{Aliasname: "query"},
	}
	star := &pgquery.ColumnRef{Fields: []*pgquery.Node{{Node: &pgquery.Node_AStar{AStar: &pgquery.A_Star{}}}}}
	return c.rowsOf(&pgquery.SelectStmt{
		TargetList: []*pgquery.Node{target(&pgquery.Node{Node: &pgquery.Node_ColumnRef{ColumnRef: star}})},
		FromClause: []*pgquery.Node{{Node: &pgquery.Node_RangeSubselect{RangeSubselect: sub}}},
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

// onConflict converts ON CONFLICT [(columns)] DO NOTHING.
func (c *converter) onConflict(out *Insert, s *pgquery.OnConflictClause) error {
	if s == nil {
		return nil
	}
	out.conflictAt = c.find("conflict")
	if s.Action != pgquery.OnConflictAction_ONCONFLICT_NOTHING {
		return c.src.unsupported(out.conflictAt, "", "ON CONFLICT DO UPDATE is not supported")
	}
	out.onConflict = ConflictNothing
	if s.Infer == nil {
		return nil
	}
	if s.Infer.Conname != "" || s.Infer.WhereClause != nil {
		return c.src.unsupported(out.conflictAt, "name the columns of the primary key", "ON CONFLICT with a constraint's name or a condition is not supported")
	}
	for _, n := range s.Infer.IndexElems {
		e := n.GetIndexElem()
		if e.GetName() == "" {
			return c.src.unsupported(out.conflictAt, "name the columns of the primary key", "ON CONFLICT with an expression is not supported")
		}
		out.conflict = append(out.conflict, columnRef{at: at(out.conflictAt), name: e.Name})
	}
	return nil
}
