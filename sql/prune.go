package sql

import (
	"slices"

	"github.com/millrace/millrace/plan"
)

// nothing is a relation without rows that has r's columns.
func nothing(r *rel) *rel {
	return &rel{kind: relValues, values: &valuesRel{cols: unique(r.outs())}}
}

// empty tells whether r is known to have no rows at any time.
func (r *rel) empty() bool {
	return r.kind == relValues && len(r.values.rows) == 0 || r.kind == relShared && r.shared.def.rel.empty()
}

// prune leaves out what never gives a row: what a condition that is never true stands on, and what that takes with it. A
// grouping without keys has a row over nothing too, and an outer join's rows have NULLs for what isn't there. The tree
// itself is not changed.
func (a *analyzer) prune(r *rel) *rel {
	if len(r.in) == 0 {
		return r
	}
	c := *r
	c.in = slices.Clone(r.in)
	for i := range c.in {
		c.in[i] = a.prune(c.in[i])
	}
	never := slices.ContainsFunc(c.preds, func(n *node) bool { return isTruth(n, false) })
	switch c.kind {
	case relFilter:
		if never {
			a.note("a condition is never true: what it stands on is not read")
			return nothing(&c)
		}
	case relAggregate:
		if c.agg.global {
			return &c
		}
	case relUnion:
		return pruneUnion(&c)
	case relSetOp:
		if c.in[0].empty() || c.branches.kind == setIntersect && c.in[1].empty() {
			return nothing(&c)
		}
		return &c
	case relJoin:
		return a.pruneJoin(&c, never)
	}
	if c.in[0].empty() {
		return nothing(&c)
	}
	return &c
}

func pruneUnion(r *rel) *rel {
	b := *r.branches
	var in []*rel
	var from [][]int
	for i := range r.in {
		if !r.in[i].empty() {
			in, from = append(in, r.in[i]), append(from, b.from[i])
		}
	}
	if len(in) == 0 {
		return nothing(r)
	}
	r.in, b.from = in, from
	r.branches = &b
	return r
}

// pruneJoin is for a join of which a side is empty, or whose condition is never true.
func (a *analyzer) pruneJoin(r *rel, never bool) *rel {
	left, right := r.in[0].empty(), r.in[1].empty()
	if never && r.join != plan.JoinNotIn {
		switch r.join {
		case plan.JoinLeft, plan.JoinAnti:
			right = true
		case plan.JoinRight:
			left = true
		case plan.JoinFull: // the rows of both sides
			return r
		default:
			return nothing(r)
		}
	}
	switch {
	case left && (right || r.join != plan.JoinRight && r.join != plan.JoinFull), right && (r.join == plan.JoinInner || r.join == plan.JoinRight || r.join == plan.JoinSemi):
		return nothing(r)
	case leftOnly(r.join) && right:
		return r.in[0]
	case right:
		return a.padded(r.in[0], r.in[1])
	case left:
		return a.padded(r.in[1], r.in[0])
	}
	return r
}

// padded is r with NULLs for the columns of other.
func (a *analyzer) padded(r, other *rel) *rel {
	var items []item
	for _, id := range unique(other.outs()) {
		items = append(items, item{id, nullOf(a.cols.of(id).typ, 0)})
	}
	return extendRel(r, items...)
}

// reads tells whether a tree scans anything.
func (r *rel) reads() bool {
	return r.kind == relScan || r.kind == relShared && r.shared.def.rel.reads() || slices.ContainsFunc(r.in, (*rel).reads)
}
