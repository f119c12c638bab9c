package pgcatalog

import (
	pgquery "github.com/pganalyze/pg_query_go/v6"

	"github.com/millrace/millrace/internal/fault"
)

// setOperation compiles UNION, INTERSECT and EXCEPT.
func (c *compiler) setOperation(st *pgquery.SelectStmt, around *scope) (*query, error) {
	left, err := c.selectStmt(st.Larg, around)
	if err != nil {
		return nil, err
	}
	right, err := c.selectStmt(st.Rarg, around)
	if err != nil {
		return nil, err
	}
	if len(left.cols) != len(right.cols) {
		return nil, fault.SQL(fault.Invalid, "42601", "each query of UNION, INTERSECT and EXCEPT must have the same number of columns")
	}
	var keys []orderKey
	for _, n := range st.SortClause {
		by := n.GetSortBy()
		col := -1
		if k := by.Node.GetAConst(); k != nil && k.GetIval() != nil {
			col = int(k.GetIval().Ival) - 1
		} else if r := by.Node.GetColumnRef(); r != nil {
			for i, t := range left.cols {
				if t.Name == lastName(r.Fields) {
					col = i
				}
			}
		}
		if col < 0 || col >= len(left.cols) {
			return nil, unsupported("ORDER BY an expression over UNION, INTERSECT or EXCEPT")
		}
		keys = append(keys, keyBy(col, by))
	}
	l, err := c.limits(st)
	if err != nil {
		return nil, err
	}
	out := &query{cols: append([]Column(nil), left.cols...), correlated: left.correlated || right.correlated}
	for i, col := range right.cols {
		if out.cols[i].OID == unknownOID {
			out.cols[i].OID = col.OID
		}
	}
	op, all := st.Op, st.All
	out.run = func(parent *env) ([][]Value, error) {
		a, err := left.run(parent)
		if err != nil {
			return nil, err
		}
		b, err := right.run(parent)
		if err != nil {
			return nil, err
		}
		if len(a)+len(b) > maxRows {
			return nil, tooManyRows()
		}
		rows := combine(op, all, a, b, len(out.cols))
		sortRows(rows, keys)
		return l.apply(rows, parent)
	}
	return out, nil
}

func combine(op pgquery.SetOperation, all bool, a, b [][]Value, n int) [][]Value {
	if op == pgquery.SetOperation_SETOP_UNION {
		rows := append(append([][]Value{}, a...), b...)
		if !all {
			rows = distinctRows(rows, n)
		}
		return rows
	}
	count := map[string]int{}
	for _, r := range b {
		count[keyOf(r)]++
	}
	var rows [][]Value
	for _, r := range a {
		k := keyOf(r)
		in := count[k] > 0
		if in && all {
			count[k]--
		}
		if in == (op == pgquery.SetOperation_SETOP_INTERSECT) {
			rows = append(rows, r)
		}
	}
	if !all {
		rows = distinctRows(rows, n)
	}
	return rows
}

// values compiles VALUES.
func (c *compiler) values(st *pgquery.SelectStmt, around *scope) (*query, error) {
	s := &scope{parent: around}
	var rows [][]*node
	for _, n := range st.ValuesLists {
		row, err := c.exprs(n.GetList().GetItems(), s)
		if err != nil {
			return nil, err
		}
		if len(rows) > 0 && len(row) != len(rows[0]) {
			return nil, fault.SQL(fault.Invalid, "42601", "VALUES lists must all be the same length")
		}
		rows = append(rows, row)
	}
	out := &query{correlated: true}
	for i := range rows[0] {
		column := make([]*node, len(rows))
		for k := range rows {
			column[k] = rows[k][i]
		}
		typ, err := c.common(column)
		if err != nil {
			return nil, err
		}
		for k := range rows {
			rows[k][i] = column[k]
		}
		out.cols = append(out.cols, Column{Name: "column" + string(rune('1'+i%9)), OID: typ})
	}
	l, err := c.limits(st)
	if err != nil {
		return nil, err
	}
	out.run = func(parent *env) ([][]Value, error) {
		e := &env{x: parent.x, parent: parent}
		list := make([][]Value, len(rows))
		for i, row := range rows {
			list[i] = make([]Value, len(row))
			for k, n := range row {
				var err error
				if list[i][k], err = n.eval(e); err != nil {
					return nil, err
				}
			}
		}
		return l.apply(list, parent)
	}
	return out, nil
}
