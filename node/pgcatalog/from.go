package pgcatalog

import (
	"slices"

	pgquery "github.com/pganalyze/pg_query_go/v6"

	"github.com/millrace/millrace/internal/fault"
)

// maxRelations bounds the relations of one FROM: a bit each in node.slots.
const maxRelations = 60

// source gives the rows of FROM: it sets the env's rows and calls yield for each combination.
type source interface {
	scan(e *env, yield func() error) error
	slots() []int
}

// leaf is one relation.
type leaf struct {
	slot     int
	table    string // of the two schemas; empty: rows tells
	rows     func(*env) ([][]Value, error)
	once     bool // rows doesn't depend on what is around it
	lookups  []lookup
	unsorted bool // is read before relations of lower slots, so that nothing narrows it
}

// lookup is an equality that narrows a leaf's rows; it is checked again above.
type lookup struct {
	col int
	key *node
}

func (l *leaf) slots() []int { return []int{l.slot} }

func (l *leaf) load(e *env) (*table, error) {
	if l.table != "" {
		return e.x.named(l.table), nil
	}
	if t := e.x.cached[l]; t != nil && l.once {
		return t, nil
	}
	rows, err := l.rows(e)
	t := &table{rows: rows}
	if err == nil && l.once {
		e.x.cached[l] = t
	}
	return t, err
}

func (l *leaf) scan(e *env, yield func() error) error {
	t, err := l.load(e)
	if err != nil {
		return err
	}
	var few []int
	narrowed := false
	for _, k := range l.lookups {
		v, err := k.key.eval(e)
		if err != nil {
			return err
		}
		if v == nil {
			return nil // NULL equals nothing
		}
		if !hashable(v) {
			continue
		}
		if rows := t.find(k.col, v); !narrowed || len(rows) < len(few) {
			few, narrowed = rows, true
		}
	}
	visit := func(row []Value) error {
		if err := e.x.step(); err != nil {
			return err
		}
		e.rows[l.slot] = row
		return yield()
	}
	if narrowed {
		for _, i := range few {
			if err := visit(t.rows[i]); err != nil {
				return err
			}
		}
		return nil
	}
	for _, row := range t.rows {
		if err := visit(row); err != nil {
			return err
		}
	}
	return nil
}

// join is an inner or left join; on may be nil.
type join struct {
	left, right source
	on          *node
	outer       bool
}

func (j *join) slots() []int { return append(slices.Clone(j.left.slots()), j.right.slots()...) }

func (j *join) scan(e *env, yield func() error) error {
	missing := j.right.slots()
	return j.left.scan(e, func() error {
		matched := false
		err := j.right.scan(e, func() error {
			if j.on != nil {
				if v, ok, err := truth(j.on, e); err != nil || !ok || !v {
					return err
				}
			}
			matched = true
			return yield()
		})
		if err != nil || matched || !j.outer {
			return err
		}
		for _, s := range missing {
			e.rows[s] = nil
		}
		return yield()
	})
}

// nothing is the FROM of a query without one: a single row.
type nothing struct{}

func (nothing) slots() []int                          { return nil }
func (nothing) scan(_ *env, yield func() error) error { return yield() }

// fromClause compiles FROM into s.
func (c *compiler) fromClause(items []*pgquery.Node, s *scope) (source, []*leaf, error) {
	f := &fromCompiler{compiler: c, scope: s}
	var out source = nothing{}
	for i, item := range items {
		src, err := f.item(item)
		if err != nil {
			return nil, nil, err
		}
		if i == 0 {
			out = src
		} else {
			out = &join{left: out, right: src}
		}
	}
	return out, f.leaves, nil
}

type fromCompiler struct {
	*compiler
	scope  *scope
	leaves []*leaf
}

func (f *fromCompiler) item(n *pgquery.Node) (source, error) {
	switch n := n.GetNode().(type) {
	case *pgquery.Node_RangeVar:
		return f.rangeVar(n.RangeVar)
	case *pgquery.Node_JoinExpr:
		return f.joinExpr(n.JoinExpr)
	case *pgquery.Node_RangeSubselect:
		return f.subselect(n.RangeSubselect)
	case *pgquery.Node_RangeFunction:
		return f.function(n.RangeFunction)
	}
	return nil, unsupported("this form of FROM")
}

// add makes a relation of the scope.
func (f *fromCompiler) add(l *leaf, name string, a *pgquery.Alias, cols []Column) (source, error) {
	if len(f.scope.rels) >= maxRelations {
		return nil, fault.SQL(fault.TooLarge, "54000", "more than %d relations in FROM", maxRelations)
	}
	cols = slices.Clone(cols)
	if a != nil {
		name = a.Aliasname
		for i, c := range a.Colnames {
			if i < len(cols) {
				cols[i].Name = c.GetString_().GetSval()
			}
		}
	}
	l.slot = len(f.scope.rels)
	rel := &relation{name: name, slot: l.slot, cols: cols}
	if def := definitions()[l.table]; def != nil {
		rel.oid = def.oid
	}
	f.scope.rels = append(f.scope.rels, rel)
	f.leaves = append(f.leaves, l)
	return l, nil
}

func (f *fromCompiler) rangeVar(r *pgquery.RangeVar) (source, error) {
	if r.Schemaname == "" {
		for i := len(f.ctes) - 1; i >= 0; i-- {
			if w := f.ctes[i]; w.name == r.Relname {
				return f.add(f.reference(w), r.Relname, r.Alias, w.q.cols)
			}
		}
	}
	schema := r.Schemaname
	if schema == "" {
		schema = "pg_catalog"
	}
	def := definitions()[schema+"."+r.Relname]
	if def == nil {
		return nil, fault.SQL(fault.NotFound, "42P01", "relation %q does not exist", schema+"."+r.Relname)
	}
	return f.add(&leaf{table: def.name}, r.Relname, r.Alias, def.cols)
}

// reference reads a query of WITH, which runs where its WITH stands.
func (f *fromCompiler) reference(w *cte) *leaf {
	if w.rows != nil {
		return &leaf{rows: func(e *env) ([][]Value, error) { return w.rows(e.x), nil }}
	}
	up := 0
	for at := f.scope; at != nil && at != w.around; at = at.parent {
		at.correlated = at.correlated || w.q.correlated
		up++
	}
	return &leaf{once: !w.q.correlated, rows: func(e *env) ([][]Value, error) {
		for range up {
			e = e.parent
		}
		return w.q.run(e)
	}}
}

func (f *fromCompiler) subselect(r *pgquery.RangeSubselect) (source, error) {
	around := f.scope.parent
	if r.Lateral {
		around = f.scope
	}
	outer := &scope{parent: around}
	if r.Lateral {
		outer = around
	}
	q, err := f.selectStmt(r.Subquery.GetSelectStmt(), outer)
	if err != nil {
		return nil, err
	}
	rows := func(e *env) ([][]Value, error) {
		if r.Lateral {
			return q.run(e)
		}
		return q.run(&env{x: e.x, parent: e.parent})
	}
	return f.add(&leaf{rows: rows, once: !q.correlated}, "", r.Alias, q.cols)
}

// function compiles a function in FROM, set-returning or not, which may read what stands before it.
func (f *fromCompiler) function(r *pgquery.RangeFunction) (source, error) {
	if len(r.Functions) != 1 || r.IsRowsfrom {
		return nil, unsupported("ROWS FROM")
	}
	items := r.Functions[0].GetList().GetItems()
	call := items[0].GetFuncCall()
	if call == nil {
		return nil, unsupported("this function in FROM")
	}
	name := lastName(call.Funcname)
	if def := definitions()["pg_catalog."+name+"()"]; def != nil {
		return f.add(&leaf{table: def.name}, name, r.Alias, def.cols)
	}
	if name == "unnest" && len(call.Args) > 1 {
		return f.unnest(call, r)
	}
	n, err := f.call(call, f.scope)
	if err != nil {
		return nil, err
	}
	cols := []Column{{Name: name, OID: n.typ}}
	if r.Alias != nil && len(r.Alias.Colnames) == 0 {
		cols[0].Name = r.Alias.Aliasname
	}
	expand := name == "_pg_expandarray"
	if expand {
		cols = []Column{{Name: "x", OID: int4OID}, {Name: "n", OID: int4OID}}
	}
	if r.Ordinality {
		cols = append(cols, Column{Name: "ordinality", OID: int8OID})
	}
	rows := func(e *env) ([][]Value, error) {
		list, err := valuesOf(n, e)
		out := make([][]Value, len(list))
		for i, v := range list {
			row := []Value{v}
			if p, ok := v.(pair); ok && expand {
				row = []Value{p.x, p.n}
			}
			if r.Ordinality {
				row = append(row, int64(i+1))
			}
			out[i] = row
		}
		return out, err
	}
	return f.add(&leaf{rows: rows}, name, r.Alias, cols)
}

// unnest is the elements of several arrays side by side.
func (f *fromCompiler) unnest(call *pgquery.FuncCall, r *pgquery.RangeFunction) (source, error) {
	args, err := f.exprs(call.Args, f.scope)
	if err != nil {
		return nil, err
	}
	var cols []Column
	for _, a := range args {
		cols = append(cols, Column{Name: "unnest", OID: elementType([]*node{a})})
	}
	if r.Ordinality {
		cols = append(cols, Column{Name: "ordinality", OID: int8OID})
	}
	rows := func(e *env) ([][]Value, error) {
		lists, most := make([][]Value, len(args)), 0
		for i, a := range args {
			v, err := a.eval(e)
			if err != nil {
				return nil, err
			}
			lists[i] = elements(v)
			most = max(most, len(lists[i]))
		}
		out := make([][]Value, most)
		for k := range out {
			row := make([]Value, len(cols))
			for i, list := range lists {
				if k < len(list) {
					row[i] = list[k]
				}
			}
			if r.Ordinality {
				row[len(args)] = int64(k + 1)
			}
			out[k] = row
		}
		return out, nil
	}
	return f.add(&leaf{rows: rows}, "unnest", r.Alias, cols)
}

// valuesOf is what a function gives: the rows of a set, or one value.
func valuesOf(n *node, e *env) ([]Value, error) {
	if n.set != nil {
		return n.set(e)
	}
	v, err := n.eval(e)
	return []Value{v}, err
}

func (f *fromCompiler) joinExpr(j *pgquery.JoinExpr) (source, error) {
	outer, swap := false, false
	switch j.Jointype {
	case pgquery.JoinType_JOIN_INNER:
	case pgquery.JoinType_JOIN_LEFT:
		outer = true
	case pgquery.JoinType_JOIN_RIGHT:
		outer, swap = true, true
	default:
		return nil, unsupported("FULL JOIN")
	}
	if j.IsNatural || j.Alias != nil {
		return nil, unsupported("NATURAL JOIN, and an alias of a join,")
	}
	begun := len(f.leaves)
	left, err := f.item(j.Larg)
	if err != nil {
		return nil, err
	}
	before := len(f.leaves)
	right, err := f.item(j.Rarg)
	if err != nil {
		return nil, err
	}
	narrow := f.leaves[before:]
	if swap {
		left, right = right, left
		narrow = nil // stands first then
		for _, l := range f.leaves[begun:] {
			l.unsorted = true
		}
	}
	out := &join{left: left, right: right, outer: outer}
	switch {
	case len(j.UsingClause) > 0:
		out.on, err = f.using(j.UsingClause, left.slots(), right.slots())
		return out, err
	case j.Quals == nil:
		return out, nil
	}
	if out.on, err = f.condition(j.Quals, f.scope); err != nil {
		return nil, err
	}
	// An equality of the condition narrows the right side, where that is a single relation.
	if len(narrow) == 1 && right == source(narrow[0]) {
		return out, f.narrow(narrow, j.Quals)
	}
	return out, nil
}

// using compiles USING (columns).
func (f *fromCompiler) using(names []*pgquery.Node, left, right []int) (*node, error) {
	find := func(slots []int, name string) *node {
		for _, r := range f.scope.rels {
			for i, c := range r.cols {
				if c.Name == name && slices.Contains(slots, r.slot) {
					return columnNode(r.slot, i, c.OID, 0)
				}
			}
		}
		return nil
	}
	var tests []*node
	for _, n := range names {
		name := n.GetString_().GetSval()
		l, r := find(left, name), find(right, name)
		if l == nil || r == nil {
			return nil, fault.SQL(fault.Invalid, "42703", "column %q of USING does not exist on both sides", name)
		}
		t, err := f.binary("=", l, r)
		if err != nil {
			return nil, err
		}
		tests = append(tests, t)
	}
	return &node{typ: boolOID, slots: slotsOf(tests...), eval: func(e *env) (Value, error) {
		for _, t := range tests {
			if v, ok, err := truth(t, e); err != nil || !ok || !v {
				return false, err
			}
		}
		return true, nil
	}}, nil
}

// narrow gives leaves the equalities among the conjuncts of a condition: column = what is known before the leaf is read.
func (f *fromCompiler) narrow(leaves []*leaf, cond *pgquery.Node) error {
	if b := cond.GetBoolExpr(); b != nil && b.Boolop == pgquery.BoolExprType_AND_EXPR {
		for _, a := range b.Args {
			if err := f.narrow(leaves, a); err != nil {
				return err
			}
		}
		return nil
	}
	x := cond.GetAExpr()
	if x == nil || x.Kind != pgquery.A_Expr_Kind_AEXPR_OP || lastName(x.Name) != "=" || x.Lexpr == nil {
		return nil
	}
	l, err := f.expr(x.Lexpr, f.scope)
	if err != nil {
		return err
	}
	r, err := f.expr(x.Rexpr, f.scope)
	if err != nil {
		return err
	}
	if l, r, err = f.pair(l, r); err != nil {
		return err
	}
	for _, side := range [][2]*node{{l, r}, {r, l}} {
		col, key := side[0].col, side[1]
		if col == nil || isFloat(side[0].typ) || isFloat(key.typ) {
			continue
		}
		for _, leaf := range leaves {
			before := uint64(1)<<leaf.slot - 1
			if col.slot == leaf.slot && !leaf.unsorted && key.slots&^before == 0 {
				leaf.lookups = append(leaf.lookups, lookup{col.col, key})
			}
		}
	}
	return nil
}
