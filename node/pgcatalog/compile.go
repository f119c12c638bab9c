package pgcatalog

import (
	"regexp"
	"strconv"
	"strings"

	pgquery "github.com/pganalyze/pg_query_go/v6"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/millrace/millrace/internal/fault"
)

// Short names of the types that the compiler meets most.
const (
	boolOID    = pgtype.BoolOID
	int8OID    = pgtype.Int8OID
	int4OID    = pgtype.Int4OID
	floatOID   = pgtype.Float8OID
	textOID    = pgtype.TextOID
	unknownOID = pgtype.UnknownOID
)

// env is what an expression is evaluated in: a row of each relation in FROM, within the envs of the queries around.
type env struct {
	x       *execution
	rows    [][]Value
	aggs    []Value // results of aggregates and window functions
	members []*env  // rows of the group
	parent  *env
}

// node is a compiled expression.
type node struct {
	typ   uint32
	eval  func(*env) (Value, error)
	slots uint64 // relations of its own query that it reads
	col   *columnAt
	param int                         // number of a parameter whose type is open, from 1; 0: none
	set   func(*env) ([]Value, error) // a set-returning function
	text  *string                     // a constant of type unknown
}

// columnAt is a column of a relation of the expression's own query.
type columnAt struct{ slot, col int }

// relation is one in FROM.
type relation struct {
	name string // alias
	slot int
	cols []Column
	oid  int64 // of a table, as its column tableoid has it
}

// scope is what names an expression may use.
type scope struct {
	rels   []*relation
	parent *scope
	aggs   *[]*aggregate // where aggregates go; nil: they aren't allowed here
	wins   *[]*window
	// correlated is set once an expression names something of a scope around this one.
	correlated bool
}

// cte is a query of WITH.
type cte struct {
	name   string
	q      *query
	around *scope                       // of the query that has the WITH
	rows   func(x *execution) [][]Value // within a recursive query: what the reference to itself reads
}

// compiler checks a statement and turns it into closures.
type compiler struct {
	params []uint32
	ctes   []*cte
	x      *execution // for constants

	patterns map[string]*regexp.Regexp
}

func unsupported(format string, args ...any) error {
	return fault.SQL(fault.Unsupported, "0A000", format+" is not supported in queries of the catalog", args...)
}

func constantOf(typ uint32, v Value) *node {
	return &node{typ: typ, eval: func(*env) (Value, error) { return v, nil }}
}

func lastName(names []*pgquery.Node) string {
	if len(names) == 0 {
		return ""
	}
	return names[len(names)-1].GetString_().GetSval()
}

// expr compiles an expression.
func (c *compiler) expr(n *pgquery.Node, s *scope) (*node, error) {
	switch n := n.GetNode().(type) {
	case *pgquery.Node_AConst:
		return constant(n.AConst)
	case *pgquery.Node_ColumnRef:
		return c.columnRef(n.ColumnRef, s)
	case *pgquery.Node_ParamRef:
		return c.paramRef(int(n.ParamRef.Number))
	case *pgquery.Node_AExpr:
		return c.operator(n.AExpr, s)
	case *pgquery.Node_BoolExpr:
		return c.boolExpr(n.BoolExpr, s)
	case *pgquery.Node_NullTest:
		return c.nullTest(n.NullTest, s)
	case *pgquery.Node_BooleanTest:
		return c.booleanTest(n.BooleanTest, s)
	case *pgquery.Node_CaseExpr:
		return c.caseExpr(n.CaseExpr, s)
	case *pgquery.Node_CoalesceExpr:
		return c.coalesce(n.CoalesceExpr.Args, s)
	case *pgquery.Node_TypeCast:
		return c.typeCast(n.TypeCast, s)
	case *pgquery.Node_FuncCall:
		return c.call(n.FuncCall, s)
	case *pgquery.Node_SubLink:
		return c.subLink(n.SubLink, s)
	case *pgquery.Node_AArrayExpr:
		return c.array(n.AArrayExpr.Elements, s)
	case *pgquery.Node_AIndirection:
		return c.indirection(n.AIndirection, s)
	case *pgquery.Node_CollateClause:
		return c.expr(n.CollateClause.Arg, s) // text compares by bytes, whatever the collation
	case *pgquery.Node_SqlvalueFunction:
		return c.sqlValue(n.SqlvalueFunction.Op)
	}
	return nil, unsupported("an expression of kind %s", strings.TrimPrefix(kindName(n), "*pg_query.Node_"))
}

func constant(k *pgquery.A_Const) (*node, error) {
	if k.Isnull {
		return constantOf(unknownOID, nil), nil
	}
	switch v := k.Val.(type) {
	case *pgquery.A_Const_Ival:
		return constantOf(int4OID, int64(v.Ival.Ival)), nil
	case *pgquery.A_Const_Fval:
		if i, err := strconv.ParseInt(v.Fval.Fval, 10, 64); err == nil {
			return constantOf(int8OID, i), nil
		}
		f, err := strconv.ParseFloat(v.Fval.Fval, 64)
		if err != nil {
			return nil, fault.SQL(fault.Invalid, "22003", "number %s is out of range", v.Fval.Fval)
		}
		return constantOf(pgtype.NumericOID, f), nil
	case *pgquery.A_Const_Boolval:
		return constantOf(boolOID, v.Boolval.Boolval), nil
	case *pgquery.A_Const_Sval:
		text := v.Sval.Sval
		n := constantOf(unknownOID, text)
		n.text = &text
		return n, nil
	}
	return nil, unsupported("a bit string")
}

func (c *compiler) paramRef(number int) (*node, error) {
	if number < 1 || number > 1<<15 {
		return nil, fault.SQL(fault.Invalid, "42P02", "there is no parameter $%d", number)
	}
	for len(c.params) < number {
		c.params = append(c.params, 0)
	}
	n := &node{typ: c.params[number-1], eval: func(e *env) (Value, error) {
		if number > len(e.x.params) {
			return nil, fault.SQL(fault.Invalid, "42P02", "there is no parameter $%d", number)
		}
		return e.x.params[number-1], nil
	}}
	if n.typ == 0 {
		n.typ, n.param = unknownOID, number
	}
	return n, nil
}

// columnRef finds a column in the scope, or in those around it.
func (c *compiler) columnRef(r *pgquery.ColumnRef, s *scope) (*node, error) {
	var names []string
	for _, f := range r.Fields {
		if f.GetAStar() != nil {
			return nil, fault.SQL(fault.Invalid, "42601", "* is not allowed here")
		}
		names = append(names, f.GetString_().GetSval())
	}
	if len(names) > 2 {
		names = names[len(names)-2:]
	}
	table, column := "", names[len(names)-1]
	if len(names) == 2 {
		table = names[0]
	}
	depth := 0
	for at := s; at != nil; at = at.parent {
		n, err := at.find(table, column, depth)
		if n != nil || err != nil {
			for in := s; in != at; in = in.parent {
				in.correlated = true
			}
			return n, err
		}
		depth++
	}
	if table == "" { // a relation's name stands for its row
		depth = 0
		for at := s; at != nil; at = at.parent {
			if n := at.wholeRow(column, depth); n != nil {
				for in := s; in != at; in = in.parent {
					in.correlated = true
				}
				return n, nil
			}
			depth++
		}
	}
	if table != "" {
		return nil, fault.SQL(fault.Invalid, "42703", "column %s.%s does not exist", table, column)
	}
	return nil, fault.SQL(fault.Invalid, "42703", "column %q does not exist", column)
}

func (s *scope) find(table, column string, depth int) (*node, error) {
	var found *node
	for _, r := range s.rels {
		if table != "" && r.name != table {
			continue
		}
		for i, col := range r.cols {
			if col.Name != column {
				continue
			}
			if found != nil && table == "" {
				return nil, fault.SQL(fault.Invalid, "42702", "column reference %q is ambiguous", column)
			}
			if found == nil {
				found = columnNode(r.slot, i, col.OID, depth)
			}
		}
		if found == nil && r.oid != 0 && column == "tableoid" {
			found = constantOf(pgtype.OIDOID, r.oid)
		}
		if found == nil && r.oid != 0 && column == "xmin" {
			found = constantOf(pgtype.XIDOID, int64(0))
		}
		if found == nil && table == "" && r.name == column && len(r.cols) == 1 { // a function's result by its alias
			found = columnNode(r.slot, 0, r.cols[0].OID, depth)
		}
	}
	return found, nil
}

func columnNode(slot, col int, typ uint32, depth int) *node {
	n := &node{typ: typ}
	if depth == 0 {
		n.slots, n.col = 1<<slot, &columnAt{slot, col}
	}
	n.eval = func(e *env) (Value, error) {
		for range depth {
			e = e.parent
		}
		row := e.rows[slot]
		if row == nil {
			return nil, nil // of the missing side of an outer join
		}
		return row[col], nil
	}
	return n
}

// to gives a constant or parameter of unknown type the type that its place asks for.
func (c *compiler) to(n *node, typ uint32) (*node, error) {
	if n.typ != unknownOID || typ == unknownOID || typ == 0 {
		return n, nil
	}
	if n.param > 0 {
		if c.params[n.param-1] == 0 {
			c.params[n.param-1] = typ
		}
		out := *n
		out.typ, out.param = c.params[n.param-1], 0
		return &out, nil
	}
	if n.text != nil {
		v, err := c.x.cast(*n.text, textOID, typ)
		if err != nil {
			return nil, err
		}
		return constantOf(typ, v), nil
	}
	out := *n
	out.typ = typ
	return &out, nil
}

// pair brings two operands to comparable types.
func (c *compiler) pair(l, r *node) (*node, *node, error) {
	l, err := c.to(l, r.typ)
	if err != nil {
		return nil, nil, err
	}
	r, err = c.to(r, l.typ)
	if err != nil {
		return nil, nil, err
	}
	if l.typ == unknownOID {
		if l, err = c.to(l, textOID); err == nil {
			r, err = c.to(r, textOID)
		}
	}
	return l, r, err
}

func (c *compiler) exprs(in []*pgquery.Node, s *scope) ([]*node, error) {
	out := make([]*node, len(in))
	for i, n := range in {
		var err error
		if out[i], err = c.expr(n, s); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func slotsOf(nodes ...*node) uint64 {
	var out uint64
	for _, n := range nodes {
		if n != nil {
			out |= n.slots
		}
	}
	return out
}

// common brings the alternatives of CASE, COALESCE, ARRAY and so on to one type.
func (c *compiler) common(nodes []*node) (uint32, error) {
	typ := uint32(unknownOID)
	for _, n := range nodes {
		if n != nil && n.typ != unknownOID && (typ == unknownOID || isFloat(n.typ) && isInteger(typ)) {
			typ = n.typ
		}
	}
	if typ == unknownOID {
		typ = textOID
	}
	if typ == pgtype.NameOID || typ == pgtype.QCharOID {
		for _, n := range nodes {
			if n != nil && n.typ == textOID {
				typ = textOID
			}
		}
	}
	for i, n := range nodes {
		if n == nil {
			continue
		}
		var err error
		if nodes[i], err = c.to(n, typ); err != nil {
			return 0, err
		}
	}
	return typ, nil
}
