package sql

import pgquery "github.com/pganalyze/pg_query_go/v6"

// Truncate is TRUNCATE [TABLE] table: DELETE of all rows, row by row.
type Truncate struct {
	statement
	Table string

	tableAt int
	rows    *Select // the table's columns
}

func (c *cursor) truncate() (Statement, error) {
	conv, node, err := parsePart(c.src, c.pos(), c.end())
	if err != nil {
		return nil, err
	}
	s := node.GetTruncateStmt()
	switch {
	case s == nil:
		return nil, c.src.fail(c.pos(), stateSyntax, "", "expected TRUNCATE")
	case s.RestartSeqs:
		return nil, c.src.unsupported(conv.find("restart"), "a table has no sequences", "TRUNCATE ... RESTART IDENTITY is not supported")
	case len(s.Relations) != 1:
		return nil, c.src.unsupported(c.pos(), "write a statement for each", "TRUNCATE of several tables is not supported")
	}
	r := s.Relations[0].GetRangeVar()
	rel, err := conv.relation(r)
	if err != nil {
		return nil, err
	}
	out := &Truncate{statement: c.base(), Table: rel.name, tableAt: rel.pos()}
	out.rows, err = conv.rowsOf(&pgquery.SelectStmt{TargetList: []*pgquery.Node{starOf(r)}, FromClause: []*pgquery.Node{rangeVar(r)}}, c.pos(), c.end())
	return out, err
}
