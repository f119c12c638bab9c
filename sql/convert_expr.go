package sql

import (
	"strings"

	pgquery "github.com/pganalyze/pg_query_go/v6"

	"github.com/millrace/millrace/record"
)

func (c *converter) optional(n *pgquery.Node) (expr, error) {
	if n == nil {
		return nil, nil
	}
	return c.expr(n)
}

// selectExpr converts an item of a select list, where * may stand.
func (c *converter) selectExpr(n *pgquery.Node) (expr, error) {
	if r := n.GetColumnRef(); r != nil {
		if f := r.Fields; f[len(f)-1].GetAStar() != nil {
			switch len(f) {
			case 1:
				return &star{at: at(c.at(r.Location))}, nil
			case 2:
				return &star{at: at(c.at(r.Location)), table: f[0].GetString_().GetSval()}, nil
			}
		}
	}
	return c.expr(n)
}

func (c *converter) expr(n *pgquery.Node) (expr, error) {
	switch n := n.GetNode().(type) {
	case *pgquery.Node_ColumnRef:
		return c.columnRef(n.ColumnRef)
	case *pgquery.Node_AConst:
		return c.constant(n.AConst)
	case *pgquery.Node_AExpr:
		return c.operator(n.AExpr)
	case *pgquery.Node_BoolExpr:
		return c.logic(n.BoolExpr)
	case *pgquery.Node_TypeCast:
		return c.cast(n.TypeCast)
	case *pgquery.Node_FuncCall:
		return c.call(n.FuncCall)
	case *pgquery.Node_CaseExpr:
		return c.caseExpr(n.CaseExpr)
	case *pgquery.Node_NullTest:
		if row := n.NullTest.Arg.GetRowExpr(); row != nil {
			return c.rowIsNull(n.NullTest, row)
		}
		arg, err := c.expr(n.NullTest.Arg)
		not := n.NullTest.Nulltesttype == pgquery.NullTestType_IS_NOT_NULL
		return &isTest{at: at(c.at(n.NullTest.Location)), arg: arg, what: isNull, not: not}, err
	case *pgquery.Node_BooleanTest:
		return c.booleanTest(n.BooleanTest)
	case *pgquery.Node_CoalesceExpr:
		return c.syntaxCall("coalesce", n.CoalesceExpr.Location, n.CoalesceExpr.Args)
	case *pgquery.Node_MinMaxExpr:
		name := "greatest"
		if n.MinMaxExpr.Op == pgquery.MinMaxOp_IS_LEAST {
			name = "least"
		}
		return c.syntaxCall(name, n.MinMaxExpr.Location, n.MinMaxExpr.Args)
	case *pgquery.Node_ParamRef:
		return &parameter{at: at(c.at(n.ParamRef.Location)), number: int(n.ParamRef.Number)}, nil
	case *pgquery.Node_SubLink:
		return c.subLink(n.SubLink)
	case *pgquery.Node_GroupingFunc:
		args, err := c.list(n.GroupingFunc.Args)
		return &grouping{at: at(c.at(n.GroupingFunc.Location)), args: args}, err
	case *pgquery.Node_SqlvalueFunction:
		return c.valueFunction(n.SqlvalueFunction)
	case *pgquery.Node_AArrayExpr:
		return c.array(n.AArrayExpr)
	case *pgquery.Node_AIndirection:
		return c.indirection(n.AIndirection)
	case *pgquery.Node_CollateClause:
		return c.collate(n.CollateClause)
	}
	return nil, c.refuseExpr(n)
}

// refuseExpr names an expression that isn't supported.
func (c *converter) refuseExpr(n *pgquery.Node) error {
	src := c.src
	switch n := n.GetNode().(type) {
	case *pgquery.Node_RowExpr:
		return src.unsupported(c.at(n.RowExpr.Location), "rows can be compared: (a, b) = (1, 2), (a, b) IN ((1, 2))", "row values are not supported here")
	case *pgquery.Node_SetToDefault:
		return src.fail(c.at(n.SetToDefault.Location), stateSyntax, "", "DEFAULT is not allowed here")
	case *pgquery.Node_NamedArgExpr:
		return src.unsupported(c.at(n.NamedArgExpr.Location), "give the arguments in order", "named arguments are not supported")
	case *pgquery.Node_XmlExpr, *pgquery.Node_XmlSerialize:
		return src.unsupported(c.base, "", "XML is not supported in the query")
	}
	return src.unsupported(c.base, "", "an expression in the query is of a kind that is not supported (%s)", kindName(n))
}

// kindName returns the tree's name of n's kind, for a message about one that has no words of its own.
func kindName(n *pgquery.Node) string {
	if n == nil || n.Node == nil {
		return "empty"
	}
	m := n.ProtoReflect()
	f := m.WhichOneof(m.Descriptor().Oneofs().Get(0))
	return strings.ReplaceAll(string(f.Name()), "_", " ")
}

func (c *converter) columnRef(r *pgquery.ColumnRef) (expr, error) {
	pos := c.at(r.Location)
	names := make([]string, len(r.Fields))
	for i, f := range r.Fields {
		if f.GetAStar() != nil {
			return nil, c.src.fail(pos, stateSyntax, "", "* is not allowed here")
		}
		names[i] = f.GetString_().GetSval()
	}
	switch len(names) {
	case 1:
		return &columnRef{at: at(pos), name: names[0]}, nil
	case 2:
		return &columnRef{at: at(pos), table: names[0], name: names[1]}, nil
	}
	return nil, c.src.unsupported(pos, "write table.column", "schemas are not supported: %q", strings.Join(names, "."))
}

func (c *converter) constant(k *pgquery.A_Const) (expr, error) {
	l := &literal{at: at(c.at(k.Location))}
	if k.Isnull {
		return l, nil
	}
	switch v := k.Val.(type) {
	case *pgquery.A_Const_Ival:
		l.kind, l.text = litNumber, itoa(v.Ival.GetIval())
	case *pgquery.A_Const_Fval:
		l.kind, l.text = litNumber, v.Fval.GetFval()
	case *pgquery.A_Const_Boolval:
		l.kind, l.text = litBool, "false"
		if v.Boolval.GetBoolval() {
			l.text = "true"
		}
	case *pgquery.A_Const_Sval:
		l.kind, l.text = litString, v.Sval.GetSval()
	default:
		return nil, c.src.unsupported(l.pos(), "", "bit strings are not supported")
	}
	return l, nil
}

func (c *converter) list(nodes []*pgquery.Node) ([]expr, error) {
	out := make([]expr, len(nodes))
	for i, n := range nodes {
		var err error
		if out[i], err = c.expr(n); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (c *converter) operator(a *pgquery.A_Expr) (expr, error) {
	pos := at(c.at(a.Location))
	op := lastName(a.Name)
	if rowSides(a) {
		return c.rowOperator(a, pos, op)
	}
	switch a.Kind {
	case pgquery.A_Expr_Kind_AEXPR_IN, pgquery.A_Expr_Kind_AEXPR_BETWEEN, pgquery.A_Expr_Kind_AEXPR_NOT_BETWEEN,
		pgquery.A_Expr_Kind_AEXPR_BETWEEN_SYM, pgquery.A_Expr_Kind_AEXPR_NOT_BETWEEN_SYM:
		return c.rangeTest(a, pos, op)
	case pgquery.A_Expr_Kind_AEXPR_OP, pgquery.A_Expr_Kind_AEXPR_DISTINCT, pgquery.A_Expr_Kind_AEXPR_NOT_DISTINCT,
		pgquery.A_Expr_Kind_AEXPR_NULLIF, pgquery.A_Expr_Kind_AEXPR_LIKE, pgquery.A_Expr_Kind_AEXPR_ILIKE,
		pgquery.A_Expr_Kind_AEXPR_SIMILAR: // x ~ similar_to_escape(pattern)
	case pgquery.A_Expr_Kind_AEXPR_OP_ANY, pgquery.A_Expr_Kind_AEXPR_OP_ALL:
		sides, err := c.list([]*pgquery.Node{a.Lexpr, a.Rexpr})
		if err != nil {
			return nil, err
		}
		return &quantified{at: pos, op: op, any: a.Kind == pgquery.A_Expr_Kind_AEXPR_OP_ANY, left: sides[0], right: sides[1]}, nil
	default:
		return nil, c.src.unsupported(pos.pos(), "", "this form of operator %s is not supported", op)
	}
	left, err := c.optional(a.Lexpr)
	if err != nil {
		return nil, err
	}
	if a.Kind == pgquery.A_Expr_Kind_AEXPR_LIKE || a.Kind == pgquery.A_Expr_Kind_AEXPR_ILIKE {
		return c.like(a, pos, left)
	}
	right, err := c.expr(a.Rexpr)
	if err != nil {
		return nil, err
	}
	switch a.Kind {
	case pgquery.A_Expr_Kind_AEXPR_DISTINCT, pgquery.A_Expr_Kind_AEXPR_NOT_DISTINCT:
		return &distinctFrom{at: pos, left: left, right: right, not: a.Kind == pgquery.A_Expr_Kind_AEXPR_NOT_DISTINCT}, nil
	case pgquery.A_Expr_Kind_AEXPR_NULLIF:
		return &call{at: pos, name: "nullif", args: []expr{left, right}, syntax: true}, nil
	}
	return &operator{at: pos, op: op, left: left, right: right}, nil
}

// rangeTest converts IN and BETWEEN.
func (c *converter) rangeTest(a *pgquery.A_Expr, pos at, op string) (expr, error) {
	arg, err := c.expr(a.Lexpr)
	if err != nil {
		return nil, err
	}
	l := a.Rexpr.GetList()
	if l == nil {
		return nil, c.refuseExpr(a.Rexpr)
	}
	list, err := c.list(l.Items)
	if err != nil {
		return nil, err
	}
	if a.Kind == pgquery.A_Expr_Kind_AEXPR_IN {
		return &inList{at: pos, arg: arg, list: list, not: op == "<>"}, nil
	}
	b := &between{at: pos, arg: arg, lo: list[0], hi: list[1]}
	b.symmetric = a.Kind == pgquery.A_Expr_Kind_AEXPR_BETWEEN_SYM || a.Kind == pgquery.A_Expr_Kind_AEXPR_NOT_BETWEEN_SYM
	b.not = a.Kind == pgquery.A_Expr_Kind_AEXPR_NOT_BETWEEN || a.Kind == pgquery.A_Expr_Kind_AEXPR_NOT_BETWEEN_SYM
	return b, nil
}

func (c *converter) like(a *pgquery.A_Expr, pos at, left expr) (expr, error) {
	l := &like{at: pos, left: left, insensitive: a.Kind == pgquery.A_Expr_Kind_AEXPR_ILIKE, not: strings.HasPrefix(lastName(a.Name), "!")}
	var err error
	if f := a.Rexpr.GetFuncCall(); f != nil && lastName(f.Funcname) == "like_escape" && len(f.Args) == 2 && len(f.Funcname) == 2 {
		if l.escape, err = c.expr(f.Args[1]); err != nil {
			return nil, err
		}
		l.pattern, err = c.expr(f.Args[0])
		return l, err
	}
	l.pattern, err = c.expr(a.Rexpr)
	return l, err
}

func (c *converter) logic(b *pgquery.BoolExpr) (expr, error) {
	args, err := c.list(b.Args)
	l := &logic{at: at(c.at(b.Location)), args: args}
	switch b.Boolop {
	case pgquery.BoolExprType_AND_EXPR:
		l.op = logicAnd
	case pgquery.BoolExprType_OR_EXPR:
		l.op = logicOr
	default:
		l.op = logicNot
	}
	return l, err
}

func (c *converter) booleanTest(b *pgquery.BooleanTest) (expr, error) {
	arg, err := c.expr(b.Arg)
	t := &isTest{at: at(c.at(b.Location)), arg: arg}
	switch b.Booltesttype {
	case pgquery.BoolTestType_IS_TRUE:
		t.what = isTrue
	case pgquery.BoolTestType_IS_NOT_TRUE:
		t.what, t.not = isTrue, true
	case pgquery.BoolTestType_IS_FALSE:
		t.what = isFalse
	case pgquery.BoolTestType_IS_NOT_FALSE:
		t.what, t.not = isFalse, true
	case pgquery.BoolTestType_IS_NOT_UNKNOWN:
		t.what, t.not = isUnknown, true
	default:
		t.what = isUnknown
	}
	return t, err
}

func (c *converter) caseExpr(k *pgquery.CaseExpr) (expr, error) {
	out := &caseOf{at: at(c.at(k.Location))}
	var err error
	if out.arg, err = c.optional(k.Arg); err != nil {
		return nil, err
	}
	for _, n := range k.Args {
		w := n.GetCaseWhen()
		cond, err := c.expr(w.Expr)
		if err != nil {
			return nil, err
		}
		then, err := c.expr(w.Result)
		if err != nil {
			return nil, err
		}
		out.whens = append(out.whens, when{cond, then})
	}
	out.els, err = c.optional(k.Defresult)
	return out, err
}

func (c *converter) syntaxCall(name string, location int32, args []*pgquery.Node) (expr, error) {
	list, err := c.list(args)
	return &call{at: at(c.at(location)), name: name, args: list, syntax: true}, err
}

func (c *converter) valueFunction(f *pgquery.SQLValueFunction) (expr, error) {
	pos := c.at(f.Location)
	switch f.Op {
	case pgquery.SQLValueFunctionOp_SVFOP_CURRENT_TIMESTAMP:
		return &call{at: at(pos), name: "now", label: "current_timestamp", syntax: true}, nil
	case pgquery.SQLValueFunctionOp_SVFOP_CURRENT_DATE, pgquery.SQLValueFunctionOp_SVFOP_LOCALTIMESTAMP, pgquery.SQLValueFunctionOp_SVFOP_LOCALTIME:
		name, typ := "localtimestamp", record.Timestamp
		switch f.Op {
		case pgquery.SQLValueFunctionOp_SVFOP_CURRENT_DATE:
			name, typ = "current_date", record.Date
		case pgquery.SQLValueFunctionOp_SVFOP_LOCALTIME:
			name, typ = "localtime", record.Time
		}
		return &castTo{at: at(pos), arg: &call{at: at(pos), name: "now", label: name, syntax: true}, typ: typ, name: name}, nil
	case pgquery.SQLValueFunctionOp_SVFOP_CURRENT_TIMESTAMP_N:
		return nil, c.src.unsupported(pos, "use date_trunc", "CURRENT_TIMESTAMP with a precision is not supported")
	}
	name := strings.TrimPrefix(f.Op.String(), "SVFOP_")
	return nil, c.src.unsupported(pos, "", "%s is not supported", strings.TrimSuffix(name, "_N"))
}

func (c *converter) call(f *pgquery.FuncCall) (expr, error) {
	pos := c.at(f.Location)
	name := lastName(f.Funcname)
	syntax := f.Funcformat == pgquery.CoercionForm_COERCE_SQL_SYNTAX
	switch {
	case len(f.Funcname) == 2 && f.Funcname[0].GetString_().GetSval() != "pg_catalog" || len(f.Funcname) > 2:
		return nil, c.src.unsupported(pos, "write the bare name", "schemas are not supported: function %q", name)
	case f.FuncVariadic:
		return nil, c.src.unsupported(pos, "", "VARIADIC (in %s) is not supported", name)
	}
	args, err := c.arguments(f, name)
	if err != nil {
		return nil, err
	}
	out := &call{at: at(pos), name: name, args: args, star: f.AggStar, distinct: f.AggDistinct, syntax: syntax, within: f.AggWithinGroup}
	if out.order, err = c.sortClause(f.AggOrder); err != nil {
		return nil, err
	}
	if f.Over != nil {
		if out.over, err = c.windowDef(f.Over); err != nil {
			return nil, err
		}
	}
	out.filter, err = c.optional(f.AggFilter)
	return out, err
}

func (c *converter) cast(t *pgquery.TypeCast) (expr, error) {
	arg, err := c.expr(t.Arg)
	if err != nil {
		return nil, err
	}
	n := typeName{name: lastName(t.TypeName.Names), at: c.at(t.TypeName.Location), array: len(t.TypeName.ArrayBounds) > 0}
	for _, m := range t.TypeName.Typmods {
		n.mods = append(n.mods, m.GetAConst().GetIval().GetIval())
	}
	out := &castTo{at: at(arg.pos()), arg: arg, name: n.name}
	if t.Location >= 0 {
		out.at = at(c.at(t.Location))
	} else {
		out.at = at(n.at) // INTERVAL '...'
	}
	if t.TypeName.Setof {
		return nil, c.src.unsupported(n.at, "", "SETOF is not supported")
	}
	out.mods = n.modifiers()
	if n.name == "interval" && len(n.mods) > 0 && !n.array {
		out.unit, err = intervalUnit(c.src, n)
		n.mods = nil
		if err != nil {
			return nil, err
		}
	}
	out.typ, err = n.resolve(c.src)
	return out, err
}

// subLink converts a query in an expression.
func (c *converter) subLink(s *pgquery.SubLink) (expr, error) {
	out := &subquery{at: at(c.at(s.Location))}
	switch s.SubLinkType {
	case pgquery.SubLinkType_EXISTS_SUBLINK:
		out.kind = subExists
	case pgquery.SubLinkType_EXPR_SUBLINK:
		out.kind = subScalar
	case pgquery.SubLinkType_ANY_SUBLINK:
		out.kind, out.op = subAny, lastName(s.OperName)
		if out.op == "" || out.op == "=" {
			out.kind, out.op = subIn, "="
		}
	case pgquery.SubLinkType_ALL_SUBLINK:
		out.kind, out.op = subAll, lastName(s.OperName)
		if out.op == "<>" {
			out.kind, out.not, out.op = subIn, true, "="
		}
	case pgquery.SubLinkType_ARRAY_SUBLINK:
		return nil, c.src.unsupported(out.pos(), "use array_agg or jsonb_agg", "ARRAY(subquery) is not supported")
	default:
		return nil, c.src.unsupported(out.pos(), "", "this form of subquery is not supported")
	}
	if s.Testexpr != nil {
		if r := s.Testexpr.GetRowExpr(); r != nil {
			return nil, c.src.unsupported(c.at(r.Location), "use EXISTS, and compare the columns one by one", "a row value before IN (subquery) is not supported")
		}
		var err error
		if out.arg, err = c.expr(s.Testexpr); err != nil {
			return nil, err
		}
	}
	var err error
	out.query, err = c.selectStmt(s.Subselect.GetSelectStmt(), out.pos(), c.to)
	return out, err
}
