package sql

import (
	"slices"

	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// strengthen makes an outer join one of fewer rows where a condition that holds for all rows above is never true for those
// without a match, whose columns of the other side are all NULL.
func (a *analyzer) strengthen(r *rel, preds []*node) {
	was := r.join
	left, right := setOf(r.in[0].outs()), setOf(r.in[1].outs())
	needsLeft := slices.ContainsFunc(preds, func(p *node) bool { return a.rejectsNull(p, left) })
	needsRight := slices.ContainsFunc(preds, func(p *node) bool { return a.rejectsNull(p, right) })
	switch {
	case r.join == plan.JoinLeft && needsRight, r.join == plan.JoinRight && needsLeft, r.join == plan.JoinFull && needsLeft && needsRight:
		r.join = plan.JoinInner
	case r.join == plan.JoinFull && needsRight:
		r.join = plan.JoinRight
	case r.join == plan.JoinFull && needsLeft:
		r.join = plan.JoinLeft
	}
	if r.join != was {
		a.note("a %s join is as good as %s: a condition drops the rows without a match", was, r.join)
	}
}

// innerJoins is a tree of inner joins taken apart.
type innerJoins struct {
	parts []*rel
	preds []*node
}

// flatten takes r apart: inner joins, and outer ones that conditions make inner.
func (a *analyzer) flatten(r *rel, preds []*node) *innerJoins {
	j := &innerJoins{preds: slices.Clone(preds)}
	var visit func(r *rel)
	visit = func(r *rel) {
		switch {
		case r.kind == relJoin && r.join == plan.JoinInner:
			j.preds = append(j.preds, r.preds...)
			visit(r.in[0])
			visit(r.in[1])
		case r.kind == relFilter:
			j.preds = append(j.preds, r.preds...)
			visit(r.in[0])
		default:
			j.parts = append(j.parts, r)
		}
	}
	visit(r)
	for i := 0; i < len(j.parts); i++ {
		p := j.parts[i]
		if p.kind != relJoin || leftOnly(p.join) {
			continue
		}
		if a.strengthen(p, j.preds); p.join == plan.JoinInner {
			rest := slices.Clone(j.parts[i+1:])
			j.parts = j.parts[:i]
			visit(p)
			j.parts = append(j.parts, rest...)
			i = -1 // its conditions may make others inner, too
		}
	}
	j.preds = uniqueNodes(j.preds)
	return j
}

// pushInner takes a tree of inner joins apart and puts it together again so that each join has a key where that can be:
// in the order of FROM, but a relation with one row at most for each row that is there goes first, and one without an
// equality to those before it waits. What no equality joins is put together at the end.
func (a *analyzer) pushInner(r *rel, preds []*node) *rel {
	j := a.flatten(r, preds)
	parts, all := j.parts, append(j.preds, a.implied(j)...)
	for i, p := range parts {
		down, rest := split(all, setOf(p.outs()).within)
		all, parts[i] = rest, a.push(p, down)
	}
	var trees []*rel
	for least := 2; len(parts) > 0; {
		out := parts[0]
		parts = parts[1:]
		for len(parts) > 0 {
			i, score := nextJoin(setOf(out.outs()), parts, all)
			if score < least {
				break
			}
			next := parts[i]
			parts = slices.Delete(parts, i, i+1)
			have := setOf(out.outs())
			have.addAll(next.outs())
			var on []*node
			on, all = split(all, have.within)
			out = joinRel(plan.JoinInner, out, next, on...)
		}
		if trees = append(trees, out); len(parts) == 0 && len(trees) > 1 {
			parts, trees, least = trees, nil, 0
		}
	}
	return filterRel(trees[0], all...)
}

// nextJoin returns which of parts to join next, and why: 3 for one that has one row at most for each row that is there, 2
// for an equality to what is there, 1 for any condition.
func nextJoin(have idSet, parts []*rel, preds []*node) (best, score int) {
	for i, p := range parts {
		mine := setOf(p.outs())
		mark := 0
		equal := idSet{}
		for _, n := range preds {
			if !mine.touches(n) || !have.touches(n) {
				continue
			}
			mark = max(mark, 1)
			if l, other, ok := splitEquality(n, mine); ok && l != nil {
				mark = 2
				if l.kind == plan.ExprCol && have.within(other) {
					equal[l.col] = true
				}
			}
		}
		if mark == 2 && len(equal) > 0 && p.atMostOne(equal) {
			mark = 3
		}
		if mark > score {
			best, score = i, mark
		}
	}
	return best, score
}

// equalColumns returns the pairs of columns that preds say are equal. Equal values of these types compare alike with
// anything; jsonb is left out, as it is for keys.
func equalColumns(preds []*node) [][2]int {
	var out [][2]int
	for _, n := range preds {
		if n.kind == plan.ExprCall && n.fn == "eq" && n.args[0].kind == plan.ExprCol && n.args[1].kind == plan.ExprCol && n.args[0].typ != record.JSONB && n.args[0].typ == n.args[1].typ {
			out = append(out, [2]int{n.args[0].col, n.args[1].col})
		}
	}
	return out
}

// compared returns the column that n compares with constants, if it does nothing else: its truth is the same for all equal
// values then. Other functions may tell 1.0 from 1.00.
func compared(n *node) (int, bool) {
	col, ok := 0, true
	n.walk(func(n *node) bool {
		switch n.kind {
		case plan.ExprCol:
			ok = ok && (col == 0 || col == n.col)
			col = n.col
		case plan.ExprConst, plan.ExprAnd, plan.ExprOr, plan.ExprNot:
		case plan.ExprCall:
			switch n.fn {
			case "eq", "ne", "lt", "le", "gt", "ge":
				for i, arg := range n.args {
					ok = ok && (arg.kind == plan.ExprCol && n.args[1-i].kind == plan.ExprConst || arg.kind == plan.ExprConst)
				}
			default:
				ok = false
			}
		default:
			ok = false
		}
		return ok
	})
	return col, ok && col != 0
}

// maxImplied bounds the conditions that follow from others in one join.
const maxImplied = 64

// transfer returns what conditions on a column mean for the columns of side that are equal to it, through any number of
// equalities.
func (a *analyzer) transfer(preds []*node, equal [][2]int, side func(from, to int) bool) []*node {
	var out []*node
	for _, p := range preds {
		col, ok := compared(p)
		if !ok {
			continue
		}
		reached := []int{col}
		for i := 0; i < len(reached); i++ {
			for _, pair := range equal {
				for k, id := range pair {
					if id != reached[i] || slices.Contains(reached, pair[1-k]) {
						continue
					}
					to := pair[1-k]
					reached = append(reached, to)
					if !side(col, to) || len(out) >= maxImplied {
						continue
					}
					n := (&decorrelation{items: []item{{col, a.columnNode(to, p.pos)}}}).inline(p)
					if !slices.ContainsFunc(slices.Concat(preds, out), func(o *node) bool { return same(o, n) }) {
						out = append(out, n)
						a.note("a condition holds for equal columns too: %s", a.text(n))
					}
				}
			}
		}
	}
	return out
}

// implied returns the conditions on single columns of one part that follow from equalities and conditions on others.
func (a *analyzer) implied(j *innerJoins) []*node {
	of := map[int]int{}
	for i, p := range j.parts {
		for _, id := range p.outs() {
			of[id] = i
		}
	}
	return a.transfer(j.preds, equalColumns(j.preds), func(from, to int) bool { return of[from] != of[to] })
}

// standing returns the conditions that r's filters hold its rows to.
func standing(r *rel) []*node {
	var out []*node
	for ; r.kind == relFilter; r = r.in[0] {
		out = append(out, r.preds...)
	}
	return out
}

// impliedOutside adds to the side of an outer, semi or anti join that only matters where it matches what follows for it from
// conditions on the other side: on its rows, or on what matches.
func (a *analyzer) impliedOutside(r *rel, downLeft, downRight []*node) (left, right []*node) {
	sides := [2]idSet{setOf(r.in[0].outs()), setOf(r.in[1].outs())}
	equal := equalColumns(r.preds)
	// What stands below a side already holds for all its rows, too.
	standing := [2][]*node{standing(r.in[0]), standing(r.in[1])}
	switch r.join {
	case plan.JoinLeft, plan.JoinSemi, plan.JoinAnti:
		on, _ := split(r.preds, sides[0].within)
		more := a.transfer(slices.Concat(downLeft, on, standing[0]), equal, func(_, to int) bool { return sides[1][to] })
		downRight = append(downRight, more...)
	case plan.JoinRight:
		on, _ := split(r.preds, sides[1].within)
		more := a.transfer(slices.Concat(downRight, on, standing[1]), equal, func(_, to int) bool { return sides[0][to] })
		downLeft = append(downLeft, more...)
	}
	return downLeft, downRight
}
