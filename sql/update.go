package sql

import (
	"slices"

	pgquery "github.com/pganalyze/pg_query_go/v6"
)

// Update is UPDATE table SET column = expression, ... [FROM ...] [WHERE ...].
type Update struct {
	statement
	Table string

	tableAt   int
	set       []assignment
	rows      *Select // the table's columns, then what each of set becomes
	returning []selectItem
}

// assignment is column = expression of SET.
type assignment struct {
	columnRef
	toDefault bool
}

// Delete is DELETE FROM table [USING ...] [WHERE ...].
type Delete struct {
	statement
	Table string

	tableAt   int
	rows      *Select // the table's columns
	returning []selectItem
}

func (c *cursor) update() (Statement, error) {
	conv, node, err := parsePart(c.src, c.pos(), c.end())
	if err != nil {
		return nil, err
	}
	s, ok := node.GetNode().(*pgquery.Node_UpdateStmt)
	if !ok {
		return nil, c.src.fail(c.pos(), stateSyntax, "", "expected UPDATE")
	}
	return conv.updateStmt(s.UpdateStmt, c.pos(), c.end())
}

func (c *cursor) delete() (Statement, error) {
	conv, node, err := parsePart(c.src, c.pos(), c.end())
	if err != nil {
		return nil, err
	}
	s, ok := node.GetNode().(*pgquery.Node_DeleteStmt)
	if !ok {
		return nil, c.src.fail(c.pos(), stateSyntax, "", "expected DELETE")
	}
	return conv.deleteStmt(s.DeleteStmt, c.pos(), c.end())
}

// table finds the table that a statement changes.
func (s *source) table(c Catalog, name string, pos int) (*Object, error) {
	obj, ok := c.Lookup(name)
	switch {
	case !ok:
		return nil, s.fail(pos, stateNoRelation, suggest(name, c.Names()), "unknown table %q", name)
	case obj.Kind != ObjectTable:
		return nil, s.fail(pos, stateWrongObject, "only tables have rows that change", "%q is a %s", name, obj.Kind)
	}
	return obj, nil
}

// assignment makes n a value of a column.
func (b *binder) assignment(n *node, col string, obj *Object) (*node, error) {
	t := obj.Columns[obj.Columns.Index(col)].Type
	if !assignable(n.typ, t) {
		return nil, b.src.fail(n.pos, stateMismatch, "add a cast", "column %q is of type %s, but its value is of type %s,", col, t, n.typ)
	}
	return b.coerce(n, t)
}

// isBare tells whether an expression takes its type from the column that it is assigned to.
func isBare(e expr) bool {
	switch e.(type) {
	case *literal, *parameter:
		return true
	}
	return false
}

// query returns the query of the rows, without what is bare: a select list would make it text.
func (s *Update) query() *Select {
	q := *s.rows
	q.items = slices.Clone(q.items)
	for i := range q.items {
		if e := q.items[i].expr; isBare(e) {
			q.items[i].expr = &literal{at: at(e.pos()), kind: litNull}
		}
	}
	return &q
}

// assign makes the query of UPDATE give the table's columns as they are, and then as they become.
func (s *Update) assign(q *selection, b *binder, obj *Object) error {
	n := len(obj.Columns)
	become := slices.Clone(q.outs[:n])
	bare := q.a.binder(newScope(nil), "UPDATE")
	places, err := s.src.assigned(s.set, obj)
	if err != nil {
		return err
	}
	for i, c := range s.set {
		value := q.outs[n+i].node
		switch e := s.rows.items[1+i].expr; {
		case c.toDefault:
			value, err = defaultOf(obj, places[i], c.pos())
		case isBare(e):
			value, err = bare.bind(e)
		}
		if err != nil {
			return err
		}
		if value, err = b.assignment(value, c.name, obj); err != nil {
			return err
		}
		become[places[i]] = selected{name: c.name, node: value, pos: c.pos()}
	}
	q.outs = append(q.outs[:n:n], become...)
	return nil
}

// assigned returns the positions of the columns that SET names.
func (s *source) assigned(set []assignment, obj *Object) ([]int, error) {
	var out []int
	for _, c := range set {
		at := obj.Columns.Index(c.name)
		switch {
		case at < 0:
			return nil, s.fail(c.pos(), stateNoColumn, suggest(c.name, namesOf(obj.Columns)), "unknown column %q of table %q", c.name, obj.Name)
		case slices.Contains(out, at):
			return nil, s.fail(c.pos(), stateSyntax, "", "column %q is set twice", c.name)
		case slices.Contains(obj.Key, at):
			return nil, s.unsupported(c.pos(), "delete the row and insert another", "UPDATE of a column of the primary key (%q) is not supported", c.name)
		}
		out = append(out, at)
	}
	return out, nil
}
