package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/millrace/millrace/plan"
)

// coverage counts what the plans of a run have been made of.
type coverage struct {
	ops       map[string]int
	functions map[string]int
	kinds     map[plan.ExprKind]int
	casts     map[string]int
}

// operatorKinds is all of them; a test holds it against package plan.
var operatorKinds = []plan.OpKind{
	plan.OpScan, plan.OpInput, plan.OpFilter, plan.OpProject, plan.OpTumble, plan.OpAggregate, plan.OpEmitFinal, plan.OpDistinct, plan.OpSort,
	plan.OpValues, plan.OpHop, plan.OpDropLate, plan.OpSession, plan.OpJoin, plan.OpTemporalJoin, plan.OpUnion, plan.OpSetOp, plan.OpTopN,
	plan.OpWindow, plan.OpUnnest, plan.OpExpand, plan.OpUpsert, plan.OpLate,
}

// signatureOf is the signature of the function that an expression calls.
func signatureOf(e *plan.Expr) string {
	for _, byName := range functions {
		for _, f := range byName[e.Func] {
			if len(f.Args) > len(e.Args) || len(f.Args) < len(e.Args) && !f.Variadic {
				continue
			}
			fits := true
			for i := range e.Args {
				fits = fits && f.Args[min(i, len(f.Args)-1)] == e.Args[i].Type
			}
			if fits {
				return f.Signature()
			}
		}
	}
	return e.Func
}

func newCoverage() *coverage {
	return &coverage{ops: map[string]int{}, functions: map[string]int{}, kinds: map[plan.ExprKind]int{}, casts: map[string]int{}}
}

// plan counts a plan's operators and functions.
func (c *coverage) plan(p *plan.Plan) {
	c.overViews(p)
	for _, n := range p.Notes {
		what, _, _ := strings.Cut(n, ":")
		c.ops["planned: "+what]++
	}
	for i := range p.Stages {
		st := &p.Stages[i]
		if x := st.Exchange; x != nil {
			switch {
			case x.Gather:
				c.ops["exchange: gather"]++
			case x.Broadcast:
				c.ops["exchange: broadcast"]++
			case x.Local && len(x.Key) > 0:
				c.ops["exchange: none, placed already"]++
			case x.Local:
				c.ops["exchange: local"]++
			case len(x.Key) == 0:
				c.ops["exchange: to one partition"]++
			default:
				c.ops["exchange: by key"]++
			}
		}
		for j := range st.Ops {
			c.op(&st.Ops[j])
		}
	}
}

// overViews counts what uses event time that comes through a view.
func (c *coverage) overViews(p *plan.Plan) {
	views, final, forgets := false, false, false
	for i := range p.Stages {
		for j := range p.Stages[i].Ops {
			o := &p.Stages[i].Ops[j]
			views = views || o.Scan != nil && o.Scan.Kind == plan.ScanView
			final = final || o.EmitFinal != nil
			forgets = forgets || o.Join != nil && (o.Join.LeftExpire != nil || o.Join.RightExpire != nil) || o.TopN != nil && o.TopN.Expire != nil
		}
	}
	if views && final {
		c.ops["emit_final: over a view"]++
	}
	if views && forgets {
		c.ops["scan: rows over a view's windows forgotten"]++
	}
}

// variant tells operators of a kind apart by what they do differently.
func variant(o *plan.Op) []string {
	var out []string
	add := func(is bool, what string) {
		if is {
			out = append(out, what)
		}
	}
	switch o.Kind {
	case plan.OpScan:
		add(true, string(o.Scan.Kind))
	case plan.OpJoin:
		j := o.Join
		add(true, string(j.Kind))
		add(len(j.LeftKeys) == 0, string(j.Kind)+", no keys")
		add(j.Residual != nil, string(j.Kind)+", residual")
		add(j.NullsEqual, "NULLs equal")
		add(j.LeftExpire != nil, "left side forgotten")
		add(j.RightExpire != nil, "right side forgotten")
		add(j.LeftUnique, "left side unique")
		add(j.RightUnique, "right side unique")
	case plan.OpAggregate:
		a := o.Aggregate
		add(true, string(a.Phase))
		add(len(a.Keys) == 0, string(a.Phase)+", no keys")
		add(a.Panes != nil, "panes")
		add(a.Session != nil, string(a.Phase)+", sessions")
		add(a.AppendOnly, "append-only")
		add(a.Expire != nil, "groups forgotten")
		for i := range a.Aggs {
			out = append(out, aggVariant(&a.Aggs[i])...)
		}
	case plan.OpTopN:
		add(true, string(o.TopN.Func))
		add(o.TopN.Place, "place")
		add(o.TopN.AppendOnly, "append-only")
	case plan.OpWindow:
		for _, f := range o.Window.Funcs {
			name := f.Name
			if f.Agg != nil {
				name = string(f.Agg.Func)
			}
			add(true, name)
			add(true, "frame "+f.Frame.Mode)
		}
	case plan.OpUnnest:
		add(true, o.Unnest.Func)
		add(o.Unnest.Outer, "outer")
		add(o.Unnest.Ordinality, "ordinality")
	case plan.OpSetOp:
		add(true, map[bool]string{true: "except", false: "intersect"}[o.SetOp.Except]+map[bool]string{true: " all", false: ""}[o.SetOp.All])
	case plan.OpHop:
		add(o.Hop.Pane, "pane")
		add(o.Hop.Cumulate, "cumulate")
	case plan.OpTemporalJoin:
		add(o.TemporalJoin.Outer, "outer")
		add(o.TemporalJoin.LeftTime >= 0, "by event time")
	case plan.OpSession:
		add(o.Session.Expire != nil, "rows forgotten")
	}
	return out
}

func aggVariant(a *plan.Agg) []string {
	name := string(a.Func)
	out := []string{name}
	if a.Distinct {
		out = append(out, name+" distinct")
	}
	if a.Filter > 0 {
		out = append(out, "filter")
	}
	if a.Retract {
		out = append(out, name+" retract")
	}
	if len(a.Order) > 0 {
		out = append(out, name+" in an order")
	}
	return out
}

func (c *coverage) op(o *plan.Op) {
	c.ops[string(o.Kind)]++
	for _, v := range variant(o) {
		c.ops[string(o.Kind)+": "+v]++
	}
	switch o.Kind {
	case plan.OpFilter:
		c.expr(&o.Filter.Pred)
	case plan.OpProject:
		for i := range o.Project.Exprs {
			c.expr(&o.Project.Exprs[i])
		}
	case plan.OpJoin:
		c.expr(o.Join.Residual)
	case plan.OpTemporalJoin:
		c.expr(o.TemporalJoin.Residual)
	case plan.OpUnnest:
		for i := range o.Unnest.Args {
			c.expr(&o.Unnest.Args[i])
		}
	case plan.OpValues:
		for _, r := range o.Values.Rows {
			for i := range r {
				c.expr(&r[i])
			}
		}
	}
}

func (c *coverage) expr(e *plan.Expr) {
	if e == nil {
		return
	}
	c.kinds[e.Kind]++
	var args []string
	for i := range e.Args {
		c.expr(&e.Args[i])
		args = append(args, e.Args[i].Type.String())
	}
	switch e.Kind {
	case plan.ExprCall:
		c.functions[signatureOf(e)]++
	case plan.ExprCast:
		c.casts[args[0]+" to "+e.Type.String()]++
	}
}

// parts writes what was counted under a name that is no operator's.
func (c *coverage) parts(w io.Writer, name string) {
	var list []string
	for v, n := range c.ops {
		if rest, ok := strings.CutPrefix(v, name+": "); ok {
			list = append(list, fmt.Sprintf("%s %d", rest, n))
		}
	}
	slices.Sort(list)
	fmt.Fprintf(w, "  %-14s %8s  %s\n", name, "", strings.Join(list, ", "))
}

// print writes the table of what was reached, and what wasn't.
func (c *coverage) print(w io.Writer, long bool) {
	var kinds []string
	for k := range c.ops {
		if !strings.Contains(k, ":") {
			kinds = append(kinds, k)
		}
	}
	slices.Sort(kinds)
	fmt.Fprintln(w, "operators:")
	for _, k := range kinds {
		var parts []string
		for v, n := range c.ops {
			if rest, ok := strings.CutPrefix(v, k+": "); ok {
				parts = append(parts, fmt.Sprintf("%s %d", rest, n))
			}
		}
		slices.Sort(parts)
		fmt.Fprintf(w, "  %-14s %8d  %s\n", k, c.ops[k], strings.Join(parts, ", "))
	}
	c.parts(w, "exchange")
	c.parts(w, "planned")
	var missing []string
	for _, k := range operatorKinds {
		if c.ops[string(k)] == 0 {
			missing = append(missing, string(k))
		}
	}
	fmt.Fprintf(w, "operators not reached: %s\n", strings.Join(missing, ", "))
	all, unreached := 0, []string(nil)
	for _, f := range plan.Functions() {
		if all++; c.functions[f.Signature()] == 0 {
			unreached = append(unreached, f.Signature())
		}
	}
	fmt.Fprintf(w, "functions reached: %d of %d overloads; casts: %d\n", all-len(unreached), all, len(c.casts))
	fmt.Fprintf(w, "expressions: %v\n", c.kinds)
	if long {
		fmt.Fprintf(w, "functions not reached: %s\n", strings.Join(unreached, "; "))
	}
}
