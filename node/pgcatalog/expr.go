package pgcatalog

import (
	"fmt"

	pgquery "github.com/pganalyze/pg_query_go/v6"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/millrace/millrace/internal/fault"
)

func kindName(n any) string { return fmt.Sprintf("%T", n) }

// truth evaluates a condition: true, false, or NULL (ok is false).
func truth(n *node, e *env) (value, ok bool, err error) {
	v, err := n.eval(e)
	if err != nil || v == nil {
		return false, false, err
	}
	b, is := v.(bool)
	if !is {
		return false, false, fault.SQL(fault.Invalid, "42804", "a condition must be boolean")
	}
	return b, true, nil
}

func (c *compiler) condition(n *pgquery.Node, s *scope) (*node, error) {
	e, err := c.expr(n, s)
	if err != nil {
		return nil, err
	}
	return c.to(e, boolOID)
}

func (c *compiler) boolExpr(b *pgquery.BoolExpr, s *scope) (*node, error) {
	args := make([]*node, len(b.Args))
	for i, a := range b.Args {
		var err error
		if args[i], err = c.condition(a, s); err != nil {
			return nil, err
		}
	}
	out := &node{typ: boolOID, slots: slotsOf(args...)}
	if b.Boolop == pgquery.BoolExprType_NOT_EXPR {
		out.eval = func(e *env) (Value, error) {
			v, ok, err := truth(args[0], e)
			if err != nil || !ok {
				return nil, err
			}
			return !v, nil
		}
		return out, nil
	}
	stop := b.Boolop == pgquery.BoolExprType_OR_EXPR // the value that decides
	out.eval = func(e *env) (Value, error) {
		null := false
		for _, a := range args {
			v, ok, err := truth(a, e)
			if err != nil {
				return nil, err
			}
			if ok && v == stop {
				return stop, nil
			}
			null = null || !ok
		}
		if null {
			return nil, nil
		}
		return !stop, nil
	}
	return out, nil
}

func (c *compiler) nullTest(t *pgquery.NullTest, s *scope) (*node, error) {
	if r := t.Arg.GetColumnRef(); r != nil && len(r.Fields) == 1 { // a whole row, as in "t IS NULL"
		if n, ok := wholeRowTest(r.Fields[0].GetString_().GetSval(), t.Nulltesttype, s); ok {
			return n, nil
		}
	}
	a, err := c.expr(t.Arg, s)
	if err != nil {
		return nil, err
	}
	isNull := t.Nulltesttype == pgquery.NullTestType_IS_NULL
	return &node{typ: boolOID, slots: a.slots, eval: func(e *env) (Value, error) {
		v, err := a.eval(e)
		return (v == nil) == isNull, err
	}}, nil
}

func wholeRowTest(name string, t pgquery.NullTestType, s *scope) (*node, bool) {
	for _, r := range s.rels {
		if r.name != name || len(r.cols) == 1 {
			continue
		}
		for _, col := range r.cols {
			if col.Name == name {
				return nil, false
			}
		}
		return &node{typ: boolOID, slots: 1 << r.slot, eval: func(e *env) (Value, error) {
			return (e.rows[r.slot] == nil) == (t == pgquery.NullTestType_IS_NULL), nil
		}}, true
	}
	return nil, false
}

func (c *compiler) booleanTest(t *pgquery.BooleanTest, s *scope) (*node, error) {
	a, err := c.condition(t.Arg, s)
	if err != nil {
		return nil, err
	}
	var test func(v, ok bool) bool
	switch t.Booltesttype {
	case pgquery.BoolTestType_IS_TRUE:
		test = func(v, ok bool) bool { return ok && v }
	case pgquery.BoolTestType_IS_NOT_TRUE:
		test = func(v, ok bool) bool { return !ok || !v }
	case pgquery.BoolTestType_IS_FALSE:
		test = func(v, ok bool) bool { return ok && !v }
	case pgquery.BoolTestType_IS_NOT_FALSE:
		test = func(v, ok bool) bool { return !ok || v }
	case pgquery.BoolTestType_IS_UNKNOWN:
		test = func(_, ok bool) bool { return !ok }
	default:
		test = func(_, ok bool) bool { return ok }
	}
	return &node{typ: boolOID, slots: a.slots, eval: func(e *env) (Value, error) {
		v, ok, err := truth(a, e)
		return test(v, ok), err
	}}, nil
}

func (c *compiler) caseExpr(k *pgquery.CaseExpr, s *scope) (*node, error) {
	var arg *node
	var err error
	if k.Arg != nil {
		if arg, err = c.expr(k.Arg, s); err != nil {
			return nil, err
		}
	}
	conds := make([]*node, len(k.Args))
	results := make([]*node, len(k.Args)+1)
	for i, w := range k.Args {
		w := w.GetCaseWhen()
		if arg == nil {
			conds[i], err = c.condition(w.Expr, s)
		} else {
			var right *node
			if right, err = c.expr(w.Expr, s); err == nil {
				conds[i], err = c.binary("=", arg, right)
			}
		}
		if err != nil {
			return nil, err
		}
		if results[i], err = c.expr(w.Result, s); err != nil {
			return nil, err
		}
	}
	results[len(k.Args)] = constantOf(unknownOID, nil)
	if k.Defresult != nil {
		if results[len(k.Args)], err = c.expr(k.Defresult, s); err != nil {
			return nil, err
		}
	}
	typ, err := c.common(results)
	if err != nil {
		return nil, err
	}
	return &node{typ: typ, slots: slotsOf(conds...) | slotsOf(results...), eval: func(e *env) (Value, error) {
		for i, cond := range conds {
			v, ok, err := truth(cond, e)
			if err != nil {
				return nil, err
			}
			if ok && v {
				return results[i].eval(e)
			}
		}
		return results[len(conds)].eval(e)
	}}, nil
}

func (c *compiler) coalesce(in []*pgquery.Node, s *scope) (*node, error) {
	args, err := c.exprs(in, s)
	if err != nil {
		return nil, err
	}
	typ, err := c.common(args)
	if err != nil {
		return nil, err
	}
	return &node{typ: typ, slots: slotsOf(args...), eval: func(e *env) (Value, error) {
		for _, a := range args {
			if v, err := a.eval(e); v != nil || err != nil {
				return v, err
			}
		}
		return nil, nil
	}}, nil
}

func (c *compiler) array(in []*pgquery.Node, s *scope) (*node, error) {
	args, err := c.exprs(in, s)
	if err != nil {
		return nil, err
	}
	typ, err := c.common(args)
	if err != nil {
		return nil, err
	}
	return &node{typ: arrayOf(typ), slots: slotsOf(args...), eval: func(e *env) (Value, error) {
		out := make([]Value, len(args))
		for i, a := range args {
			var err error
			if out[i], err = a.eval(e); err != nil {
				return nil, err
			}
		}
		return out, nil
	}}, nil
}

// indirection compiles subscripts (a[i]), and the fields of _pg_expandarray's rows.
func (c *compiler) indirection(x *pgquery.A_Indirection, s *scope) (*node, error) {
	a, err := c.expr(x.Arg, s)
	if err != nil {
		return nil, err
	}
	for _, i := range x.Indirection {
		switch i := i.GetNode().(type) {
		case *pgquery.Node_String_:
			if a, err = fieldOf(a, i.String_.Sval); err != nil {
				return nil, err
			}
		case *pgquery.Node_AIndices:
			if i.AIndices.IsSlice {
				return nil, unsupported("a slice of an array")
			}
			at, err := c.expr(i.AIndices.Uidx, s)
			if err != nil {
				return nil, err
			}
			a = subscript(a, at)
		default:
			return nil, unsupported("this form of access to a value")
		}
	}
	return a, nil
}

func fieldOf(a *node, name string) (*node, error) {
	pick := func(v Value) Value {
		p, ok := v.(pair)
		switch {
		case !ok:
			return nil
		case name == "n":
			return p.n
		}
		return p.x
	}
	out := &node{typ: int4OID, slots: a.slots}
	if name != "n" && name != "x" {
		return nil, fault.SQL(fault.Invalid, "42703", "column %q not found", name)
	}
	if a.set != nil {
		out.eval = a.eval
		out.set = func(e *env) ([]Value, error) {
			in, err := a.set(e)
			rows := make([]Value, len(in))
			for i, v := range in {
				rows[i] = pick(v)
			}
			return rows, err
		}
		return out, nil
	}
	out.eval = func(e *env) (Value, error) {
		v, err := a.eval(e)
		return pick(v), err
	}
	return out, nil
}

func subscript(a, at *node) *node {
	elem := elementOf(a.typ)
	if elem == 0 {
		elem = textOID
	}
	lower := int64(1)
	if a.typ == oidInt2vector || a.typ == oidOidvector {
		lower = 0
	}
	return &node{typ: elem, slots: slotsOf(a, at), eval: func(e *env) (Value, error) {
		v, err := a.eval(e)
		if err != nil {
			return nil, err
		}
		i, err := at.eval(e)
		if err != nil {
			return nil, err
		}
		list := elements(v)
		n, ok := i.(int64)
		if !ok || n < lower || n-lower >= int64(len(list)) {
			return nil, nil
		}
		return list[n-lower], nil
	}}
}

// elements returns an array's or vector's elements.
func elements(v Value) []Value {
	switch v := v.(type) {
	case []Value:
		return v
	case vector:
		return v
	}
	return nil
}

// subLink compiles EXISTS, IN, ANY, ALL, ARRAY and scalar subqueries.
func (c *compiler) subLink(l *pgquery.SubLink, s *scope) (*node, error) {
	sel := l.Subselect.GetSelectStmt()
	if sel == nil {
		return nil, unsupported("this subquery")
	}
	q, err := c.selectStmt(sel, s)
	if err != nil {
		return nil, err
	}
	sub := &subquery{q: q}
	out := &node{slots: ^uint64(0)} // may read anything around it
	switch l.SubLinkType {
	case pgquery.SubLinkType_EXISTS_SUBLINK:
		out.typ = boolOID
		out.eval = func(e *env) (Value, error) {
			rows, err := sub.rows(e)
			return len(rows) > 0, err
		}
	case pgquery.SubLinkType_EXPR_SUBLINK:
		out.typ = q.cols[0].OID
		out.eval = func(e *env) (Value, error) {
			rows, err := sub.rows(e)
			if err != nil || len(rows) == 0 {
				return nil, err
			}
			if len(rows) > 1 {
				return nil, fault.SQL(fault.Invalid, "21000", "more than one row returned by a subquery used as an expression")
			}
			return rows[0][0], nil
		}
	case pgquery.SubLinkType_ARRAY_SUBLINK:
		out.typ = arrayOf(q.cols[0].OID)
		out.eval = func(e *env) (Value, error) {
			rows, err := sub.rows(e)
			list := make([]Value, len(rows))
			for i, r := range rows {
				list[i] = r[0]
			}
			return list, err
		}
	case pgquery.SubLinkType_ANY_SUBLINK, pgquery.SubLinkType_ALL_SUBLINK:
		return c.anySubLink(l, sub, s)
	default:
		return nil, unsupported("this kind of subquery")
	}
	return out, nil
}

func (c *compiler) anySubLink(l *pgquery.SubLink, sub *subquery, s *scope) (*node, error) {
	left, err := c.expr(l.Testexpr, s)
	if err != nil {
		return nil, err
	}
	op := "="
	if len(l.OperName) > 0 {
		op = lastName(l.OperName)
	}
	list := &node{typ: arrayOf(sub.q.cols[0].OID), slots: ^uint64(0), eval: func(e *env) (Value, error) {
		rows, err := sub.rows(e)
		out := make([]Value, len(rows))
		for i, r := range rows {
			out[i] = r[0]
		}
		return out, err
	}}
	return c.quantified(op, left, list, l.SubLinkType == pgquery.SubLinkType_ALL_SUBLINK)
}

func (c *compiler) sqlValue(op pgquery.SQLValueFunctionOp) (*node, error) {
	out := &node{typ: pgtype.NameOID}
	switch op {
	case pgquery.SQLValueFunctionOp_SVFOP_CURRENT_CATALOG:
		out.eval = func(e *env) (Value, error) { return e.x.database, nil }
	case pgquery.SQLValueFunctionOp_SVFOP_CURRENT_SCHEMA:
		out.eval = func(*env) (Value, error) { return "public", nil }
	default:
		if timeFunction(op) {
			return nil, unsupported("the time")
		}
		out.eval = func(e *env) (Value, error) { return e.x.user, nil }
	}
	return out, nil
}
