package sql

import (
	"slices"

	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// Folder is what a Catalog may be besides: it computes constants while a query is planned. Without it they are computed when
// the query runs.
type Folder interface {
	// Fold returns the value of e, which reads no column, no clock and no tick. An error leaves e as it is.
	Fold(e *plan.Expr) (record.Value, error)
}

// maxFolded bounds the bytes of a value that takes its expression's place in a plan.
const maxFolded = 1024

// simplifier rewrites expressions into simpler ones that give the same for every row. What fails stays and fails when a
// row reaches it, as it would have; what PostgreSQL drops without looking at it (x AND false, a strict function of NULL)
// is dropped here too, whether it would fail or not.
type simplifier struct {
	folder Folder // nil: nothing is computed
	done   map[*node]*node
}

func (a *analyzer) simplifier() *simplifier {
	f, _ := a.catalog.(Folder)
	return &simplifier{folder: f, done: map[*node]*node{}}
}

// of returns what n comes to.
func (s *simplifier) of(n *node) *node {
	if len(n.args) == 0 {
		return n
	}
	if out, ok := s.done[n]; ok {
		return out
	}
	args := make([]*node, len(n.args))
	for i, arg := range n.args {
		args[i] = s.of(arg)
	}
	out := n
	if !slices.Equal(args, n.args) {
		c := *n
		c.args = args
		out = resized(&c)
	}
	out = s.rule(out)
	s.done[n] = out
	return out
}

func (s *simplifier) rule(n *node) *node {
	switch n.kind {
	case plan.ExprAnd:
		return s.logic(n, false)
	case plan.ExprOr:
		return s.logic(n, true)
	case plan.ExprNot:
		return s.not(n)
	case plan.ExprIsNil:
		if arg := n.args[0]; arg.kind == plan.ExprConst {
			return boolean(arg.val.Null, n.pos)
		}
	case plan.ExprCase:
		return s.choice(n)
	case plan.ExprCoal:
		return s.coalesce(n)
	case plan.ExprCast:
		if n.args[0].typ == n.typ {
			return n.args[0]
		}
		return s.computed(n)
	case plan.ExprCall:
		if !nullCall(n.fn) && slices.ContainsFunc(n.args, isNullConst) {
			return nullOf(n.typ, n.pos)
		}
		if out := truth(n); out != nil {
			return s.rule(out)
		}
		return s.computed(n)
	}
	return n
}

func isNullConst(n *node) bool { return n.kind == plan.ExprConst && n.val.Null }

// isTruth tells whether n is the constant true or false, as v says.
func isTruth(n *node, v bool) bool {
	return n.kind == plan.ExprConst && n.typ == record.Boolean && !n.val.Null && (n.val.Int != 0) == v
}

// logic simplifies AND, or OR, of which the constant over decides all and its opposite nothing.
func (s *simplifier) logic(n *node, over bool) *node {
	var args []*node
	var add func(list []*node) bool
	add = func(list []*node) bool {
		for _, arg := range list {
			switch {
			case isTruth(arg, over):
				return false
			case isTruth(arg, !over):
			case arg.kind == n.kind:
				if !add(arg.args) {
					return false
				}
			case !slices.ContainsFunc(args, func(o *node) bool { return same(o, arg) }):
				args = append(args, arg)
			}
		}
		return true
	}
	switch {
	case !add(n.args):
		return boolean(over, n.pos)
	case len(args) == 0:
		return boolean(!over, n.pos)
	case len(args) == 1:
		return args[0]
	case slices.Equal(args, n.args):
		return n
	}
	return inner(n.kind, record.Boolean, n.pos, args...)
}

// opposites of comparisons: with a NULL both are NULL.
var opposites = map[string]string{"eq": "ne", "ne": "eq", "lt": "ge", "ge": "lt", "gt": "le", "le": "gt"}

func (s *simplifier) not(n *node) *node {
	arg := n.args[0]
	switch arg.kind {
	case plan.ExprConst:
		if arg.val.Null {
			return arg
		}
		return boolean(arg.val.Int == 0, n.pos)
	case plan.ExprNot:
		return arg.args[0]
	case plan.ExprCall:
		fn := opposites[arg.fn]
		if slices.ContainsFunc(functions()[fn], func(f plan.Function) bool {
			return len(f.Args) == len(arg.args) && f.Args[0] == arg.args[0].typ && f.Args[1] == arg.args[1].typ
		}) {
			return callNode(fn, record.Boolean, n.pos, arg.args...)
		}
	}
	return n
}

// truth is x for x = true and x <> false, NOT x for the others; nil: n is none of them.
func truth(n *node) *node {
	if n.fn != "eq" && n.fn != "ne" || n.args[0].typ != record.Boolean {
		return nil
	}
	for i, v := range n.args {
		if v.kind == plan.ExprConst && !v.val.Null {
			x := n.args[1-i]
			if (v.val.Int != 0) == (n.fn == "eq") {
				return x
			}
			return inner(plan.ExprNot, record.Boolean, n.pos, x)
		}
	}
	return nil
}

// choice drops the branches of CASE that are never reached.
func (s *simplifier) choice(n *node) *node {
	var args []*node
	last := len(n.args) - 1
	end := n.args[last]
	for i := 0; i < last; i += 2 {
		when, then := n.args[i], n.args[i+1]
		if isTruth(when, true) {
			end = then
			break
		}
		if !isTruth(when, false) && !isNullConst(when) {
			args = append(args, when, then)
		}
	}
	switch {
	case len(args) == 0 && end.typ == n.typ:
		return end
	case len(args) == last && end == n.args[last] || end.typ != n.typ:
		return n
	}
	return inner(plan.ExprCase, n.typ, n.pos, append(args, end)...)
}

// coalesce drops NULLs, and what comes after a constant.
func (s *simplifier) coalesce(n *node) *node {
	var args []*node
	for _, arg := range n.args {
		if arg.typ != n.typ {
			return n
		}
		if !isNullConst(arg) {
			args = append(args, arg)
		}
		if arg.kind == plan.ExprConst && !arg.val.Null {
			break
		}
	}
	switch len(args) {
	case 0:
		return nullOf(n.typ, n.pos)
	case 1:
		return args[0]
	case len(n.args):
		return n
	}
	return inner(plan.ExprCoal, n.typ, n.pos, args...)
}

// computed returns the value of a call or cast of constants.
func (s *simplifier) computed(n *node) *node {
	if s.folder == nil || slices.ContainsFunc(n.args, func(arg *node) bool { return arg.kind != plan.ExprConst || arg.typ == record.Unknown }) {
		return n
	}
	e := n.expr(nil)
	v, err := s.folder.Fold(&e)
	if err != nil || v.Type != n.typ && !v.Null || len(v.Bytes) > maxFolded {
		return n
	}
	v.Type = n.typ
	return constant(v, n.pos)
}

// conditions simplifies predicates that must all be true: false alone when they never are.
func (s *simplifier) conditions(preds []*node) []*node {
	var out []*node
	for _, p := range preds {
		for _, c := range conjuncts(s.of(p), nil) {
			switch {
			case isTruth(c, true):
			case isTruth(c, false) || isNullConst(c):
				return []*node{boolean(false, c.pos)}
			default:
				out = append(out, c)
			}
		}
	}
	return out
}

// simplify simplifies the expressions of a tree.
func (a *analyzer) simplify(r *rel, s *simplifier) *rel {
	for i := range r.in {
		r.in[i] = a.simplify(r.in[i], s)
	}
	for i := range r.items {
		r.items[i].node = s.of(r.items[i].node)
	}
	switch r.kind {
	case relFilter:
		r.preds = s.conditions(r.preds)
		return filterRel(r.in[0], r.preds...)
	case relJoin:
		if r.join == plan.JoinNotIn { // its first condition is what NOT IN compares
			r.preds = append(r.preds[:1:1], s.conditions(r.preds[1:])...)
		} else {
			r.preds = s.conditions(r.preds)
		}
	case relValues:
		for _, row := range r.values.rows {
			for i := range row {
				row[i] = s.of(row[i])
			}
		}
	case relAggregate:
		for _, g := range r.agg.aggs {
			g.each(func(n **node) { *n = s.of(*n) })
			if g.filter != nil && isTruth(g.filter, true) {
				g.filter = nil
			}
		}
	case relUnnest:
		for i := range r.unnest.args {
			r.unnest.args[i] = s.of(r.unnest.args[i])
		}
	}
	return r
}
