package sql

import (
	pgquery "github.com/pganalyze/pg_query_go/v6"
)

// Row values are compared, and nothing else is done with them: a comparison is rewritten into those of their columns, which
// has the same result for all NULLs (the manual's section 9.24.5).

// rowSides tells whether an operator has a row value on its left: (a, b) or ROW(a, b).
func rowSides(a *pgquery.A_Expr) bool { return a.GetLexpr().GetRowExpr() != nil }

// rowOperator converts a comparison of rows, and IN over a list of them.
func (c *converter) rowOperator(a *pgquery.A_Expr, pos at, op string) (expr, error) {
	left, err := c.list(a.Lexpr.GetRowExpr().Args)
	if err != nil {
		return nil, err
	}
	switch a.Kind {
	case pgquery.A_Expr_Kind_AEXPR_OP:
		right, err := c.rowOf(a.Rexpr, len(left), pos)
		if err != nil {
			return nil, err
		}
		return c.compareRows(pos, op, left, right)
	case pgquery.A_Expr_Kind_AEXPR_DISTINCT, pgquery.A_Expr_Kind_AEXPR_NOT_DISTINCT:
		right, err := c.rowOf(a.Rexpr, len(left), pos)
		if err != nil {
			return nil, err
		}
		parts := make([]expr, len(left))
		for i := range left {
			parts[i] = &distinctFrom{at: pos, left: left[i], right: right[i]}
		}
		out := joined(pos, logicOr, parts)
		if a.Kind == pgquery.A_Expr_Kind_AEXPR_NOT_DISTINCT {
			out = joined(pos, logicNot, []expr{out})
		}
		return out, nil
	case pgquery.A_Expr_Kind_AEXPR_IN:
		var any []expr
		for _, n := range a.Rexpr.GetList().GetItems() {
			right, err := c.rowOf(n, len(left), pos)
			if err != nil {
				return nil, err
			}
			eq, err := c.compareRows(pos, "=", left, right)
			if err != nil {
				return nil, err
			}
			any = append(any, eq)
		}
		out := joined(pos, logicOr, any)
		if op == "<>" {
			out = joined(pos, logicNot, []expr{out})
		}
		return out, nil
	}
	return nil, c.src.unsupported(pos.pos(), "compare rows with =, <>, <, <=, >, >=, IN or IS DISTINCT FROM", "this operator over row values is not supported")
}

// rowOf converts a row value of n columns.
func (c *converter) rowOf(node *pgquery.Node, n int, pos at) ([]expr, error) {
	r := node.GetRowExpr()
	if r == nil {
		return nil, c.src.unsupported(pos.pos(), "write a row on both sides", "a comparison of a row value with something else is not supported")
	}
	if len(r.Args) != n || n == 0 {
		return nil, c.src.fail(c.at(r.Location), stateSyntax, "", "unequal number of entries in row expressions")
	}
	return c.list(r.Args)
}

// compareRows compares column by column.
func (c *converter) compareRows(pos at, op string, left, right []expr) (expr, error) {
	each := func(op string, i int) expr { return &operator{at: pos, op: op, left: left[i], right: right[i]} }
	switch op {
	case "=", "<>", "!=":
		parts := make([]expr, len(left))
		for i := range left {
			parts[i] = each(op, i)
		}
		if op == "=" {
			return joined(pos, logicAnd, parts), nil
		}
		return joined(pos, logicOr, parts), nil
	case "<", "<=", ">", ">=":
		last := len(left) - 1
		out := each(op, last)
		for i := last - 1; i >= 0; i-- {
			out = joined(pos, logicOr, []expr{each(op[:1], i), joined(pos, logicAnd, []expr{each("=", i), out})})
		}
		return out, nil
	}
	return nil, c.src.unsupported(pos.pos(), "compare rows with =, <>, <, <=, >, >=, IN or IS DISTINCT FROM", "operator %s over row values is not supported", op)
}

func joined(pos at, op logicOp, parts []expr) expr {
	if len(parts) == 1 && op != logicNot {
		return parts[0]
	}
	return &logic{at: pos, op: op, args: parts}
}
