package sql

import (
	"slices"
	"strings"

	pgquery "github.com/pganalyze/pg_query_go/v6"
)

func (c *converter) fromClause(nodes []*pgquery.Node) ([]*fromItem, error) {
	var out []*fromItem
	for _, n := range nodes {
		f, err := c.fromItem(n)
		if err != nil {
			return nil, err
		}
		out = append(out, f)
	}
	return out, nil
}

func (c *converter) fromItem(n *pgquery.Node) (*fromItem, error) {
	switch n := n.Node.(type) {
	case *pgquery.Node_RangeVar:
		return c.relation(n.RangeVar)
	case *pgquery.Node_RangeSubselect:
		s := n.RangeSubselect
		sub, err := c.selectStmt(s.Subquery.GetSelectStmt(), c.base, c.to)
		if err != nil {
			return nil, err
		}
		f := &fromItem{at: at(sub.at), kind: fromSubquery, sub: sub, lateral: s.Lateral}
		c.alias(f, s.Alias)
		return f, nil
	case *pgquery.Node_RangeFunction:
		return c.tableFunction(n.RangeFunction)
	case *pgquery.Node_JoinExpr:
		return c.join(n.JoinExpr)
	}
	return nil, c.src.unsupported(c.base, "", "this form of FROM is not supported in the query")
}

func (c *converter) join(j *pgquery.JoinExpr) (*fromItem, error) {
	f := &fromItem{kind: fromJoin, natural: j.IsNatural}
	var err error
	if f.left, err = c.fromItem(j.Larg); err != nil {
		return nil, err
	}
	if f.right, err = c.fromItem(j.Rarg); err != nil {
		return nil, err
	}
	f.at = f.right.at
	switch j.Jointype {
	case pgquery.JoinType_JOIN_LEFT:
		f.join = syntaxLeft
	case pgquery.JoinType_JOIN_RIGHT:
		f.join = syntaxRight
	case pgquery.JoinType_JOIN_FULL:
		f.join = syntaxFull
	default:
		f.join = syntaxInner
		if j.Quals == nil && len(j.UsingClause) == 0 && !j.IsNatural {
			f.join = syntaxCross
		}
	}
	for _, u := range j.UsingClause {
		f.using = append(f.using, u.GetString_().GetSval())
	}
	if j.JoinUsingAlias != nil {
		return nil, c.src.unsupported(f.pos(), "name the columns by their tables", "an alias of USING is not supported")
	}
	if f.on, err = c.optional(j.Quals); err != nil {
		return nil, err
	}
	c.alias(f, j.Alias)
	return f, nil
}

func (c *converter) relation(r *pgquery.RangeVar) (*fromItem, error) {
	pos := c.at(r.Location)
	if r.Schemaname != "" && r.Schemaname != PublicSchema || r.Catalogname != "" {
		return nil, c.src.unsupported(pos, "write the bare name", "schemas are not supported: %q", r.Schemaname+"."+r.Relname)
	}
	f := &fromItem{at: at(pos), kind: fromRelation, name: r.Relname, nameAt: pos, asOf: c.asOf[pos], past: c.takePast(pos)}
	c.alias(f, r.Alias)
	return f, nil
}

func (c *converter) alias(f *fromItem, a *pgquery.Alias) {
	if a == nil {
		return
	}
	f.alias = a.Aliasname
	for _, n := range a.Colnames {
		f.columns = append(f.columns, n.GetString_().GetSval())
	}
}

// windowUsage says how each window function is written.
var windowUsage = map[string]string{
	"tumble":   "write TUMBLE(relation, time_column, INTERVAL '1 minute' [, INTERVAL offset])",
	"hop":      "write HOP(relation, time_column, INTERVAL slide, INTERVAL size [, INTERVAL offset])",
	"cumulate": "write CUMULATE(relation, time_column, INTERVAL step, INTERVAL size [, INTERVAL offset])",
	"session":  "write SESSION(relation, time_column, INTERVAL gap [, key columns])",
}

// tableFunctions are the set-returning functions that FROM takes.
var tableFunctions = []string{
	"unnest", "generate_series", "jsonb_array_elements", "jsonb_array_elements_text", "jsonb_each", "jsonb_each_text",
	"jsonb_object_keys", "regexp_split_to_table", "string_to_table",
}

// tableFunction converts windows, dead_letters(...) and set-returning functions.
func (c *converter) tableFunction(r *pgquery.RangeFunction) (*fromItem, error) {
	var fn *pgquery.FuncCall
	if len(r.Functions) == 1 {
		if items := r.Functions[0].GetList().GetItems(); len(items) > 0 {
			fn = items[0].GetFuncCall()
		}
	}
	if fn == nil || r.IsRowsfrom || len(r.Coldeflist) > 0 {
		return nil, c.src.unsupported(c.base, "", "this form of FROM is not supported in the query")
	}
	pos := c.at(fn.Location)
	name := lastName(fn.Funcname)
	f := &fromItem{at: at(pos), name: name, nameAt: pos, lateral: r.Lateral, ordinality: r.Ordinality}
	c.alias(f, r.Alias)
	if _, ok := windowUsage[name]; ok {
		return f, c.window(f, fn)
	}
	args, err := c.list(fn.Args)
	if err != nil {
		return nil, err
	}
	switch {
	case name == "dead_letters":
		return f, c.deadLetters(f, args)
	case name == "late_records":
		return f, c.lateRecords(f, args)
	case slices.Contains(tableFunctions, name):
		f.kind, f.args = fromFunction, args
		return f, nil
	}
	names := append(slices.Clone(tableFunctions), "tumble", "hop", "cumulate", "session", "dead_letters", "late_records")
	return nil, c.src.fail(pos, stateNoFunction, suggest(name, names), "unknown table function %q", name)
}

// window converts TUMBLE(x, ...), where x is a name, a subquery or another window.
func (c *converter) window(f *fromItem, fn *pgquery.FuncCall) error {
	usage := windowUsage[f.name]
	f.kind = fromWindow
	if len(fn.Args) == 0 {
		return c.src.fail(f.pos(), stateSyntax, usage, "%s without arguments", strings.ToUpper(f.name))
	}
	var err error
	switch in := fn.Args[0].Node.(type) {
	case *pgquery.Node_ColumnRef:
		e, err := c.columnRef(in.ColumnRef)
		if err != nil {
			return err
		}
		r := e.(*columnRef)
		if r.table != "" {
			return c.src.fail(r.pos(), stateSyntax, usage, "first argument of %s must be the name of a relation", strings.ToUpper(f.name))
		}
		f.input = &fromItem{at: r.at, kind: fromRelation, name: r.name, nameAt: r.pos(), past: c.takePast(r.pos())}
	case *pgquery.Node_SubLink:
		if in.SubLink.SubLinkType != pgquery.SubLinkType_EXPR_SUBLINK {
			return c.src.fail(f.pos(), stateSyntax, usage, "first argument of %s must be a relation", strings.ToUpper(f.name))
		}
		pos := c.at(in.SubLink.Location)
		sub, err := c.selectStmt(in.SubLink.Subselect.GetSelectStmt(), pos, c.to)
		if err != nil {
			return err
		}
		f.input = &fromItem{at: at(pos), kind: fromSubquery, sub: sub}
	case *pgquery.Node_FuncCall:
		name := lastName(in.FuncCall.Funcname)
		if _, ok := windowUsage[name]; !ok {
			return c.src.fail(f.pos(), stateSyntax, usage, "first argument of %s must be a relation", strings.ToUpper(f.name))
		}
		pos := c.at(in.FuncCall.Location)
		f.input = &fromItem{at: at(pos), name: name, nameAt: pos}
		if err := c.window(f.input, in.FuncCall); err != nil {
			return err
		}
	default:
		return c.src.fail(f.pos(), stateSyntax, usage, "first argument of %s must be the name of a relation", strings.ToUpper(f.name))
	}
	f.args, err = c.list(fn.Args[1:])
	return err
}

func (c *converter) deadLetters(f *fromItem, args []expr) error {
	const usage = "write dead_letters('stream')"
	if len(args) != 1 {
		return c.src.fail(f.pos(), stateSyntax, usage, "dead_letters takes 1 argument, not %d", len(args))
	}
	f.kind, f.nameAt = fromDead, args[0].pos()
	var ok bool
	if f.name, ok = nameArgument(args[0]); !ok {
		return c.src.fail(args[0].pos(), stateSyntax, usage, "argument of dead_letters must be the name of a stream")
	}
	return nil
}

// nameArgument returns the name that a function's argument is, as a string or bare.
func nameArgument(e expr) (string, bool) {
	switch e := e.(type) {
	case *literal:
		return e.text, e.kind == litString
	case *columnRef:
		return e.name, e.table == ""
	}
	return "", false
}

func (c *converter) lateRecords(f *fromItem, args []expr) error {
	const usage = "write late_records('view'), or late_records('view', 'stream') where several of its streams have late rows"
	if len(args) != 1 && len(args) != 2 {
		return c.src.fail(f.pos(), stateSyntax, usage, "late_records takes 1 or 2 arguments, not %d", len(args))
	}
	f.kind, f.nameAt, f.past = fromLate, args[0].pos(), c.takePast(args[0].pos())
	var ok bool
	if f.name, ok = nameArgument(args[0]); !ok {
		return c.src.fail(f.nameAt, stateSyntax, usage, "argument of late_records must be the name of a view")
	}
	if len(args) == 2 {
		f.streamAt = args[1].pos()
		if f.stream, ok = nameArgument(args[1]); !ok || f.stream == "" {
			return c.src.fail(f.streamAt, stateSyntax, usage, "second argument of late_records must be the name of a stream")
		}
	}
	return nil
}
