package sql

import (
	"fmt"
	"slices"

	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// grouped appends a grouped query up to HAVING, without the aggregates that neither outs nor HAVING use. It returns
// where the keys and aggregates are then.
//
// Where no row is retracted, rows are combined before they move: a partition sends at most one row for each group
// and tick. Above another aggregate of a live view rows are retracted, and min and max can't be combined: then the
// rows themselves move.
func (p *planner) grouped(q *query, outs []*node, top bool) ([]int, error) {
	used := columns(len(q.keys)+len(q.aggs), append(slices.Clone(outs), q.having)...)
	after := identity(len(q.keys))
	var aggs []aggregate
	var args []*node
	for i, a := range q.aggs {
		after = append(after, -1)
		if used[len(q.keys)+i] {
			after[len(q.keys)+i] = len(q.keys) + len(aggs)
			aggs, args = append(aggs, a), append(args, a.arg)
		}
	}
	cols, err := p.from(q, columns(len(q.scope.cols), slices.Concat(q.keys, args, q.where)...))
	if err != nil {
		return nil, err
	}
	agg := p.aggregateInput(q, aggs, cols)
	phase := func(ph plan.AggPhase) { p.aggregate(q, aggs, agg, ph) }
	switch keys := identity(len(q.keys)); {
	case p.single:
		phase(plan.AggSingle)
	case p.live && p.retracts:
		agg = p.narrow(agg)
		p.exchange(plan.Exchange{Key: keys})
		phase(plan.AggSingle)
	default:
		phase(plan.AggPartial)
		if p.live {
			p.exchange(plan.Exchange{Key: keys})
		} else {
			p.gather()
		}
		agg.Keys = keys
		phase(plan.AggFinal)
	}
	p.retracts = p.retracts || p.live
	if q.having != nil {
		p.filter(conjuncts(q.having, nil), after)
	}
	if top && p.emitAt >= 0 {
		return after, p.emitFinal(q)
	}
	return after, nil
}

// aggregateInput projects the keys and arguments, unless they are plain columns already.
func (p *planner) aggregateInput(q *query, aggs []aggregate, cols []int) plan.Aggregate {
	agg := plan.Aggregate{Keys: make([]int, len(q.keys)), Aggs: make([]plan.Agg, len(aggs))}
	plain := true
	for _, k := range q.keys {
		plain = plain && k.kind == plan.ExprCol
	}
	for _, a := range aggs {
		plain = plain && (a.arg == nil || a.arg.kind == plan.ExprCol)
	}
	var nodes []*node
	var names []string
	position := func(n *node) int {
		if plain {
			return cols[n.col]
		}
		for i, m := range nodes {
			if same(m, n) {
				return i
			}
		}
		name := ""
		if n.kind == plan.ExprCol {
			name = q.scope.cols[n.col].name
		} else {
			name = exprText(n.expr(cols), p.schema())
		}
		nodes, names = append(nodes, n), append(names, name)
		return len(nodes) - 1
	}
	for i, k := range q.keys {
		agg.Keys[i] = position(k)
	}
	for i, a := range aggs {
		agg.Aggs[i] = plan.Agg{Func: a.fn, Arg: -1, Type: a.typ}
		if a.arg != nil {
			agg.Aggs[i].Arg, agg.Aggs[i].ArgType = position(a.arg), a.arg.typ
		}
	}
	if !plain {
		p.project(nodes, names, cols)
	}
	return agg
}

// narrow projects the keys, in order, and the arguments alone, before rows move.
func (p *planner) narrow(agg plan.Aggregate) plan.Aggregate {
	in := p.schema()
	var exprs []plan.Expr
	var schema record.Schema
	add := func(col int) int {
		exprs = append(exprs, plan.Expr{Kind: plan.ExprCol, Type: in[col].Type, Col: col})
		schema = append(schema, in[col])
		return len(exprs) - 1
	}
	out := plan.Aggregate{Keys: []int{}, Aggs: slices.Clone(agg.Aggs)}
	for _, k := range agg.Keys {
		out.Keys = append(out.Keys, add(k))
	}
	moved := map[int]int{}
	for i, a := range out.Aggs {
		if a.Arg < 0 {
			continue
		}
		if _, ok := moved[a.Arg]; !ok {
			moved[a.Arg] = add(a.Arg)
		}
		out.Aggs[i].Arg = moved[a.Arg]
	}
	if len(schema) != len(in) || !slices.Equal(schema, in) {
		if schema == nil {
			schema = record.Schema{}
		}
		p.add(plan.Op{Kind: plan.OpProject, Schema: schema, Project: &plan.Project{Exprs: exprs}})
	}
	return out
}

// aggregate appends one phase.
func (p *planner) aggregate(q *query, aggs []aggregate, agg plan.Aggregate, phase plan.AggPhase) {
	agg.Phase = phase
	agg.AppendOnly = !p.retracts || !p.live
	in := p.schema()
	schema := make(record.Schema, 0, len(agg.Keys)+len(agg.Aggs)+1)
	for _, k := range agg.Keys {
		schema = append(schema, in[k])
	}
	for i, a := range agg.Aggs {
		name := q.aggName(aggs[i])
		if phase != plan.AggPartial {
			schema = append(schema, record.Field{Name: name, Type: a.Type})
			continue
		}
		for j, t := range a.PartialTypes() {
			schema = append(schema, record.Field{Name: name + partialName(j), Type: t})
		}
	}
	if phase == plan.AggPartial {
		schema = append(schema, record.Field{Name: "rows", Type: record.BigInt})
	}
	p.add(plan.Op{Kind: plan.OpAggregate, Schema: schema, Aggregate: &agg})
}

// partialSuffix ends the name of an aggregate's first partial column.
const partialSuffix = "#0"

func partialName(i int) string {
	if i == 0 {
		return partialSuffix
	}
	return fmt.Sprintf("#%d", i)
}

// emitFinal holds the groups of a window back until it is over. A window's end that isn't among the keys is its
// start and its size.
func (p *planner) emitFinal(q *query) error {
	end, start := -1, -1
	for i := range q.keys {
		switch w := q.keyWindow(i); {
		case w == nil:
		case w.end:
			end = i
		default:
			start = i
		}
	}
	if end < 0 && start < 0 {
		return p.noWindow()
	}
	w := q.keyWindow(max(end, start))
	if err := p.checkEvent(w); err != nil {
		return err
	}
	if end < 0 {
		in := p.schema()
		end = len(in)
		exprs := make([]plan.Expr, 0, end+1)
		for i, f := range in {
			exprs = append(exprs, plan.Expr{Kind: plan.ExprCol, Type: f.Type, Col: i})
		}
		size := record.Value{Type: record.IntervalT, Interval: record.Interval{Micros: w.size}}
		exprs = append(exprs, plan.Expr{Kind: plan.ExprCall, Func: "add", Type: record.TimestampTZ, Args: []plan.Expr{
			exprs[start], {Kind: plan.ExprConst, Type: record.IntervalT, Const: &size},
		}})
		schema := append(slices.Clone(in), record.Field{Name: "window_end", Type: record.TimestampTZ})
		p.add(plan.Op{Kind: plan.OpProject, Schema: schema, Project: &plan.Project{Exprs: exprs}})
	}
	p.add(plan.Op{Kind: plan.OpEmitFinal, EmitFinal: &plan.EmitFinal{WindowEnd: end}})
	return nil
}
