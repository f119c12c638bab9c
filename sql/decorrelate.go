package sql

import (
	"slices"

	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// notDecorrelated says that a subquery can't be made a join. The caller knows its position.
type notDecorrelated struct{ what, hint string }

func (e *notDecorrelated) Error() string { return e.what }

// decorrelation takes out of a subquery's tree what names columns of outer queries: conditions become conditions of the
// join with the outer query, computed columns are computed after it. An aggregate, DISTINCT, LIMIT or window function
// that such a condition has to pass is computed for each value of the subquery's side of the condition, which must be an
// equality then.
type decorrelation struct {
	a *analyzer
	// exists says that only the existence of rows matters: how often one comes doesn't.
	exists bool
	preds  []*node
	items  []item
	// empty is what the aggregates of a subquery without GROUP BY are over no rows.
	empty map[int]*node
}

const hintDecorrelate = "compare with = and AND alone, or write it as a join"

func (d *decorrelation) fail(what string) error {
	return &notDecorrelated{what: "a subquery that names columns of the outer query " + what + " is not supported", hint: hintDecorrelate}
}

// pull returns r without what names outer columns.
func (d *decorrelation) pull(r *rel) (*rel, error) {
	if !r.free() {
		return r, nil
	}
	out := *r
	out.in = slices.Clone(r.in)
	switch r.kind {
	case relValues:
		return d.pullValues(r)
	case relFilter, relExtend, relWindow, relEmit, relUnnest:
		return d.pullUnary(&out)
	case relJoin, relTemporal:
		return d.pullJoin(&out)
	case relAggregate, relDistinct, relTopN, relOver:
		return d.pullGrouped(&out)
	}
	return nil, d.fail("inside UNION, INTERSECT, EXCEPT or grouping sets")
}

func (d *decorrelation) pullUnary(r *rel) (*rel, error) {
	in, err := d.pull(r.in[0])
	if err != nil {
		return nil, err
	}
	r.in[0] = in
	have := setOf(in.outs())
	switch r.kind {
	case relFilter:
		var keep []*node
		for _, p := range r.preds {
			if have.within(p) {
				keep = append(keep, p)
			} else {
				d.preds = append(d.preds, p)
			}
		}
		return filterRel(in, keep...), nil
	case relExtend:
		var keep []item
		for _, it := range r.items {
			if have.within(it.node) {
				keep = append(keep, it)
			} else {
				d.items = append(d.items, item{it.id, d.inline(it.node)})
			}
		}
		return extendRel(in, keep...), nil
	case relWindow:
		if r.win.kind == windowSession || !have[r.win.time] {
			return nil, d.fail("in a window's input")
		}
	case relUnnest:
		for _, n := range r.unnest.args {
			if !have.within(n) {
				return nil, d.fail("in a function in FROM")
			}
		}
	}
	return r, nil
}

func (d *decorrelation) pullJoin(r *rel) (*rel, error) {
	sides := []int{0}
	if r.kind == relJoin && r.join == plan.JoinInner {
		sides = []int{0, 1}
	}
	if r.kind == relJoin && r.join == plan.JoinSemi && d.exists {
		r.join, sides = plan.JoinInner, []int{0, 1}
	}
	have := idSet{}
	for _, i := range sides {
		in, err := d.pull(r.in[i])
		if err != nil {
			return nil, err
		}
		r.in[i] = in
	}
	for _, in := range r.in {
		if in.free() {
			return nil, d.fail("in the inner side of an outer join")
		}
		have.addAll(in.outs())
	}
	var keep []*node
	for _, p := range r.preds {
		switch {
		case have.within(p):
			keep = append(keep, p)
		case r.join == plan.JoinInner && r.kind == relJoin:
			d.preds = append(d.preds, p)
		default:
			return nil, d.fail("in the condition of an outer join, NOT EXISTS or NOT IN")
		}
	}
	r.preds = keep
	return r, nil
}

// pullGrouped passes equalities through an operator that works on groups of rows, by grouping by their inner side.
func (d *decorrelation) pullGrouped(r *rel) (*rel, error) {
	if d.exists && (r.kind == relDistinct || r.kind == relTopN && r.top.offset == 0 && r.top.limit != 0 && r.top.place == 0) {
		return d.pull(r.in[0]) // there is a row exactly if there is one below
	}
	before, hidden := len(d.preds), len(d.items)
	in, err := d.pull(r.in[0])
	if err != nil {
		return nil, err
	}
	if len(d.items) > hidden {
		return nil, d.fail("to compute what it groups or counts")
	}
	have := setOf(in.outs())
	var keys []int
	for i, p := range d.preds[before:] {
		mine, outer, ok := splitEquality(p, have)
		if !ok {
			return nil, d.fail("other than by an equality under an aggregate, DISTINCT, LIMIT or window function")
		}
		if mine.kind != plan.ExprCol {
			id := d.a.newColumn(d.a.text(mine), mine.typ)
			in = extendRel(in, item{id, mine})
			mine = column(id, mine.typ, mine.pos)
		}
		keys = append(keys, mine.col)
		d.preds[before+i] = callNode("eq", record.Boolean, p.pos, mine, outer)
	}
	r.in[0] = in
	d.group(r, unique(keys))
	return r, nil
}

// group adds keys to the groups of r.
func (d *decorrelation) group(r *rel, keys []int) {
	switch r.kind {
	case relAggregate:
		g := *r.agg
		r.agg = &g
		if g.global {
			r.agg.global = false
			if d.empty == nil {
				d.empty = map[int]*node{}
			}
			for _, a := range g.aggs {
				d.empty[a.id] = nullOf(a.typ, 0)
				switch a.fn {
				case plan.AggCount, plan.AggCountStar, "regr_count", "approx_count_distinct":
					d.empty[a.id] = bigint(0, 0)
				}
			}
		}
		r.agg.keys = unique(append(slices.Clone(g.keys), keys...))
	case relDistinct:
		r.cols = unique(append(slices.Clone(r.cols), keys...))
	case relTopN:
		t := *r.top
		t.keys = unique(append(slices.Clone(t.keys), keys...))
		r.top = &t
	case relOver:
		o := *r.over
		o.keys = unique(append(slices.Clone(o.keys), keys...))
		r.over = &o
	}
}

// splitEquality returns the sides of mine = outer.
func splitEquality(p *node, have idSet) (mine, outer *node, ok bool) {
	if p.kind != plan.ExprCall || p.fn != "eq" {
		return nil, nil, false
	}
	for i := range 2 {
		if have.within(p.args[i]) && !have.touches(p.args[1-i]) {
			return p.args[i], p.args[1-i], true
		}
	}
	return nil, nil, false
}

// pullValues makes VALUES over outer columns a choice by the row's number.
func (d *decorrelation) pullValues(r *rel) (*rel, error) {
	if len(r.values.rows) == 1 {
		for i, id := range r.values.cols {
			d.items = append(d.items, item{id, d.inline(r.values.rows[0][i])})
		}
		return &rel{kind: relValues, values: &valuesRel{rows: [][]*node{{}}}}, nil
	}
	number := d.a.newColumn("row", record.BigInt)
	out := &valuesRel{cols: []int{number}}
	for i := range r.values.rows {
		out.rows = append(out.rows, []*node{bigint(int64(i), 0)})
	}
	for c, id := range r.values.cols {
		t := d.a.cols.of(id).typ
		var args []*node
		for i, row := range r.values.rows {
			args = append(args, callNode("eq", record.Boolean, 0, column(number, record.BigInt, 0), bigint(int64(i), 0)), d.inline(row[c]))
		}
		d.items = append(d.items, item{id, inner(plan.ExprCase, t, 0, append(args, nullOf(t, 0))...)})
	}
	return &rel{kind: relValues, values: out}, nil
}

// inline replaces the columns that are computed after the join by what computes them.
func (d *decorrelation) inline(n *node) *node {
	out, _ := n.rewrite(func(n *node) (*node, error) {
		if n.kind == plan.ExprCol {
			for _, it := range d.items {
				if it.id == n.col {
					return it.node, nil
				}
			}
			return n, nil
		}
		return nil, nil
	})
	return out
}

// overNothing returns what column n of r is when the aggregates under it are over no rows.
func (d *decorrelation) overNothing(r *rel, n *node) *node {
	out, _ := n.rewrite(func(n *node) (*node, error) {
		if n.kind != plan.ExprCol {
			return nil, nil
		}
		if e, ok := d.empty[n.col]; ok {
			return e, nil
		}
		if def := r.definition(n.col); def != nil {
			return d.overNothing(r, def), nil
		}
		for _, it := range d.items {
			if it.id == n.col {
				return d.overNothing(r, it.node), nil
			}
		}
		if setOf(r.outs())[n.col] {
			return nullOf(n.typ, n.pos), nil
		}
		return n, nil // an outer column
	})
	return out
}

// definition returns what computes a column above the first aggregate, or nil.
func (r *rel) definition(id int) *node {
	switch r.kind {
	case relExtend:
		for _, it := range r.items {
			if it.id == id {
				return it.node
			}
		}
	case relFilter, relTopN:
	default:
		return nil
	}
	return r.in[0].definition(id)
}

// exactlyOne tells whether r has one row at all times.
func (r *rel) exactlyOne() bool {
	switch r.kind {
	case relAggregate:
		return r.agg.global
	case relValues:
		return len(r.values.rows) == 1
	case relExtend:
		return r.in[0].exactlyOne()
	case relShared:
		return r.shared.def.rel.exactlyOne()
	case relJoin:
		return r.join == plan.JoinInner && len(r.preds) == 0 && r.in[0].exactlyOne() && r.in[1].exactlyOne() ||
			r.join == plan.JoinLeft && r.in[0].exactlyOne() && r.in[1].atMostOne(idSet{})
	}
	return false
}

// atMostOne tells whether r has at most one row for given values of the bound columns.
func (r *rel) atMostOne(bound idSet) bool {
	if r.exactlyOne() {
		return true
	}
	switch r.kind {
	case relAggregate:
		return bound.hasAll(r.agg.keys)
	case relTopN:
		if r.top.fn == plan.RankRowNumber && r.top.limit >= 0 && r.top.limit <= 1 && bound.hasAll(r.top.keys) {
			return true
		}
		return r.in[0].atMostOne(bound)
	case relDistinct:
		return bound.hasAll(r.cols)
	case relFilter:
		more := idSet{}
		for id := range bound {
			more[id] = true
		}
		for _, p := range r.preds { // k = constant
			if p.kind == plan.ExprCall && p.fn == "eq" {
				for i, side := range p.args {
					if side.kind == plan.ExprCol && p.args[1-i].kind == plan.ExprConst {
						more[side.col] = true
					}
				}
			}
		}
		return r.in[0].atMostOne(more)
	case relExtend, relOver, relEmit:
		return r.in[0].atMostOne(bound)
	case relScan:
		if r.scan.object.Key == nil || r.scan.kind != plan.ScanView {
			return false
		}
		for _, k := range r.scan.object.Key {
			if !bound[r.scan.cols[k]] {
				return false
			}
		}
		return true
	case relJoin:
		if leftOnly(r.join) {
			return r.in[0].atMostOne(bound)
		}
		return r.join == plan.JoinInner && r.in[0].atMostOne(bound) && r.in[1].atMostOne(bound)
	}
	return false
}

// combine joins two relations of FROM; the right one may name the left one's columns.
func (a *analyzer) combine(kind joinSyntax, left, right *rel, preds []*node) (*rel, error) {
	if left == nil {
		return right, nil
	}
	k := joinKinds[kind]
	if !right.free() {
		return joinRel(k, left, right, preds...), nil
	}
	if k != plan.JoinInner && k != plan.JoinLeft {
		return nil, &notDecorrelated{what: "LATERAL on the right of " + string(kind) + " JOIN is not supported", hint: "use LEFT JOIN LATERAL"}
	}
	if right.kind == relUnnest && len(right.in[0].outs()) == 0 && (k == plan.JoinInner || trueAlone(preds)) {
		u := *right.unnest
		u.outer = k == plan.JoinLeft
		out := &rel{kind: relUnnest, in: []*rel{left}, unnest: &u}
		if k == plan.JoinInner {
			return filterRel(out, preds...), nil
		}
		return out, nil
	}
	d := &decorrelation{a: a}
	inside, err := d.pull(right)
	if err != nil {
		return nil, err
	}
	all := append(slices.Clone(preds), d.preds...)
	for i := range all {
		all[i] = d.inline(all[i])
	}
	if k == plan.JoinInner && len(d.empty) == 0 {
		return extendRel(joinRel(k, left, inside, all...), d.items...), nil
	}
	return a.combineOuter(k, left, inside, d, preds, all)
}

func trueAlone(preds []*node) bool {
	return !slices.ContainsFunc(preds, func(n *node) bool { return n.kind != plan.ExprConst || n.val.Null || n.val.Int == 0 })
}

// combineOuter is LEFT JOIN LATERAL, and LATERAL over an aggregate that has a row even over nothing.
func (a *analyzer) combineOuter(k plan.JoinKind, left, inside *rel, d *decorrelation, preds, all []*node) (*rel, error) {
	if len(d.empty) > 0 && !trueAlone(preds) {
		return nil, d.fail("under an aggregate without GROUP BY in LATERAL with a condition")
	}
	found := a.newColumn("found", record.Boolean)
	inside = extendRel(inside, item{found, boolean(true, 0)})
	out := joinRel(plan.JoinLeft, left, inside, all...)
	missing := isNullNode(column(found, record.Boolean, 0))
	var items []item
	for _, it := range d.items {
		none := nullOf(it.node.typ, 0)
		if len(d.empty) > 0 {
			none = d.overNothing(inside, it.node)
		}
		items = append(items, item{it.id, inner(plan.ExprCase, it.node.typ, 0, missing, none, it.node)})
	}
	if len(d.empty) == 0 {
		return extendRel(out, items...), nil
	}
	// The columns that aren't NULL over nothing are computed anew under numbers of their own, and take the old ones' place.
	rename := map[int]int{}
	for _, id := range inside.outs() {
		n := a.columnNode(id, 0)
		if v := d.overNothing(inside, n); v.kind != plan.ExprConst || !v.val.Null {
			rename[id] = a.cols.add(*a.cols.of(id))
			items = append(items, item{id, inner(plan.ExprCase, n.typ, 0, missing, v, column(rename[id], n.typ, 0))})
		}
	}
	_ = k
	out.in[1] = inside.renamed(a, rename)
	return extendRel(out, items...), nil
}

// renamed gives columns of r other numbers.
func (r *rel) renamed(a *analyzer, rename map[int]int) *rel {
	use := &branchesRel{kind: setUnion, all: true, from: [][]int{nil}}
	for _, id := range r.outs() {
		to, ok := rename[id]
		if !ok {
			to = id
		}
		use.cols, use.from[0] = append(use.cols, to), append(use.from[0], id)
	}
	return &rel{kind: relUnion, in: []*rel{r}, branches: use}
}
