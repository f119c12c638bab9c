package sql

import (
	"math"
	"slices"

	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// maxInline bounds an expression that grows because a computed column is written out in it.
const maxInline = 512

// push moves predicates down to where their columns come from, and with them what they imply: cross joins become joins
// on keys, outer joins inner ones, and ROW_NUMBER() with a limit on the place a top-N. It returns a tree whose rows are
// r's for which all of preds are true.
func (a *analyzer) push(r *rel, preds []*node) *rel {
	switch r.kind {
	case relFilter:
		return a.push(r.in[0], append(slices.Clone(r.preds), preds...))
	case relExtend:
		return a.pushExtend(r, preds)
	case relJoin:
		return a.pushJoin(r, preds)
	case relTemporal:
		left := setOf(r.in[0].outs())
		down, stay := split(preds, left.within)
		r.in[0], r.in[1] = a.push(r.in[0], down), a.push(r.in[1], nil)
		return filterRel(r, stay...)
	case relWindow:
		have := setOf(r.in[0].outs())
		if r.win.kind == windowSession {
			have = setOf(r.win.keys)
		}
		down, stay := split(preds, have.within)
		r.in[0] = a.push(r.in[0], down)
		return filterRel(r, stay...)
	case relLate:
		down, stay := split(preds, setOf(r.in[0].outs()).within)
		r.in[0] = a.push(r.in[0], down)
		return filterRel(r, stay...)
	case relAggregate:
		return a.pushAggregate(r, preds)
	case relDistinct, relEmit:
		r.in[0] = a.push(r.in[0], preds)
		return r
	case relTopN:
		down, stay := split(preds, setOf(r.top.keys).within)
		if len(r.top.keys) == 0 {
			down, stay = nil, preds
		}
		r.in[0] = a.push(r.in[0], down)
		return filterRel(r, stay...)
	case relOver:
		return a.pushOver(r, preds)
	case relUnnest:
		down, stay := split(preds, setOf(r.in[0].outs()).within)
		if r.unnest.outer {
			for _, p := range stay {
				if a.rejectsNull(p, setOf(r.unnest.outs)) {
					r.unnest.outer = false
				}
			}
		}
		r.in[0] = a.push(r.in[0], down)
		return filterRel(r, stay...)
	case relUnion:
		return a.pushUnion(r, preds)
	case relExpand:
		for i := range r.in {
			r.in[i] = a.push(r.in[i], nil)
		}
		return filterRel(r, preds...)
	}
	for i := range r.in {
		r.in[i] = a.push(r.in[i], nil)
	}
	return filterRel(r, preds...)
}

func split(preds []*node, ok func(*node) bool) (yes, no []*node) {
	for _, p := range preds {
		if ok(p) {
			yes = append(yes, p)
		} else {
			no = append(no, p)
		}
	}
	return yes, no
}

// pushExtend writes computed columns out in the predicates, so that they can move below.
func (a *analyzer) pushExtend(r *rel, preds []*node) *rel {
	have := setOf(r.in[0].outs())
	var down, stay []*node
	for _, p := range preds {
		if !have.within(p) {
			inlined := a.simple.of((&decorrelation{items: r.items}).inline(p))
			if inlined.size > maxInline || !have.within(inlined) {
				stay = append(stay, p)
				continue
			}
			p = inlined
		}
		down = append(down, p)
	}
	r.in[0] = a.push(r.in[0], down)
	return filterRel(r, stay...)
}

func (a *analyzer) pushAggregate(r *rel, preds []*node) *rel {
	keys := setOf(r.agg.keys)
	if r.in[0].kind == relExpand {
		keys = idSet{} // a key is NULL where its set lacks it
	}
	down, stay := split(preds, func(p *node) bool {
		ok := keys.within(p) && len(r.agg.keys) > 0
		p.walk(func(n *node) bool {
			if n.kind == plan.ExprCol {
				if w := a.cols.of(n.col).window; w != nil && !w.closes || w != nil && w.size == 0 {
					ok = false // windows of several panes and sessions are formed by the aggregate itself
				}
			}
			return ok
		})
		return ok && !(r.in[0].windowed() && a.usesWindow(p))
	})
	r.in[0] = a.push(r.in[0], down)
	return filterRel(r, stay...)
}

// usesWindow tells whether n names a window's bound.
func (a *analyzer) usesWindow(n *node) bool {
	found := false
	n.walk(func(n *node) bool {
		found = found || n.kind == plan.ExprCol && a.cols.of(n.col).window != nil
		return !found
	})
	return found
}

// windowed tells whether r is a window that the aggregate above may form out of panes or sessions.
func (r *rel) windowed() bool {
	for r.kind == relExtend {
		r = r.in[0]
	}
	return r.kind == relWindow && r.win.kind != windowTumble
}

func (a *analyzer) pushUnion(r *rel, preds []*node) *rel {
	for i := range r.in {
		var items []item
		for c, id := range r.branches.cols {
			items = append(items, item{id, a.columnNode(r.branches.from[i][c], 0)})
		}
		d := &decorrelation{items: items}
		mine := make([]*node, len(preds))
		for j, p := range preds {
			mine[j] = d.inline(p)
		}
		r.in[i] = a.push(r.in[i], mine)
	}
	return r
}

// pushOver finds the pattern of top-N: a rank alone, and a condition that bounds it.
func (a *analyzer) pushOver(r *rel, preds []*node) *rel {
	down, stay := split(preds, setOf(r.over.keys).within)
	if len(r.over.keys) == 0 {
		down, stay = nil, preds
	}
	f := r.over.funcs[0]
	fn := plan.RankFunc(f.name)
	if len(r.over.funcs) > 1 || fn != plan.RankRowNumber && fn != plan.RankRank && fn != plan.RankDense {
		r.in[0] = a.push(r.in[0], down)
		return filterRel(r, stay...)
	}
	low, high := int64(1), int64(math.MaxInt64)
	var rest []*node
	for _, p := range stay {
		l, h, ok := placeBounds(p, f.id)
		if !ok {
			rest = append(rest, p)
			continue
		}
		low, high = max(low, l), min(high, h)
	}
	r.in[0] = a.push(r.in[0], down)
	if high == math.MaxInt64 {
		return filterRel(r, stay...)
	}
	top := &topRel{fn: fn, keys: r.over.keys, order: r.over.order, offset: low - 1, limit: max(high-low+1, 0), place: f.id}
	return filterRel(&rel{kind: relTopN, in: r.in, top: top}, rest...)
}

// placeBounds reads place <= 10, place = 1 and the like.
func placeBounds(p *node, place int) (low, high int64, ok bool) {
	low, high = 1, math.MaxInt64
	if p.kind != plan.ExprCall || len(p.args) != 2 {
		return 0, 0, false
	}
	col, val, op := p.args[0], foldNegative(p.args[1]), p.fn
	if col.kind == plan.ExprConst {
		col, val = val, col
		op = map[string]string{"lt": "gt", "le": "ge", "gt": "lt", "ge": "le", "eq": "eq"}[op]
	}
	if col.kind != plan.ExprCol || col.col != place || val.kind != plan.ExprConst || val.typ != record.BigInt || val.val.Null || val.val.Int > math.MaxInt64/2 || val.val.Int < math.MinInt64/2 {
		return 0, 0, false
	}
	switch v := val.val.Int; op {
	case "lt":
		high = v - 1
	case "le":
		high = v
	case "gt":
		low = v + 1
	case "ge":
		low = v
	case "eq":
		low, high = v, v
	default:
		return 0, 0, false
	}
	return low, high, true
}

// rejectsNull tells whether p is never true when all of ids are NULL.
func (a *analyzer) rejectsNull(p *node, ids idSet) bool {
	switch p.kind {
	case plan.ExprCall:
		return !nullCall(p.fn) && slices.ContainsFunc(p.args, func(n *node) bool { return a.nullWith(n, ids) })
	case plan.ExprNot:
		if p.args[0].kind == plan.ExprIsNil {
			return a.nullWith(p.args[0].args[0], ids)
		}
		return a.nullWith(p.args[0], ids)
	case plan.ExprOr:
		return !slices.ContainsFunc(p.args, func(n *node) bool { return !a.rejectsNull(n, ids) })
	case plan.ExprAnd:
		return slices.ContainsFunc(p.args, func(n *node) bool { return a.rejectsNull(n, ids) })
	case plan.ExprCoal: // x IS TRUE
		return !slices.ContainsFunc(p.args, func(n *node) bool { return !isTruth(n, false) && !a.nullWith(n, ids) })
	case plan.ExprCol:
		return ids[p.col]
	}
	return false
}

// nullWith tells whether n is NULL when all of ids are.
func (a *analyzer) nullWith(n *node, ids idSet) bool {
	switch n.kind {
	case plan.ExprCol:
		return ids[n.col]
	case plan.ExprCast:
		return a.nullWith(n.args[0], ids)
	case plan.ExprCall:
		return !nullCall(n.fn) && slices.ContainsFunc(n.args, func(n *node) bool { return a.nullWith(n, ids) })
	}
	return false
}

// nullCall tells whether a function is called with NULLs.
func nullCall(fn string) bool {
	return slices.ContainsFunc(functions()[fn], func(f plan.Function) bool { return f.NullCall })
}

func (a *analyzer) pushJoin(r *rel, preds []*node) *rel {
	a.strengthen(r, preds)
	if r.join == plan.JoinInner {
		return a.pushInner(r, preds)
	}
	left, right := setOf(r.in[0].outs()), setOf(r.in[1].outs())
	var stay, downLeft, downRight, on []*node
	for _, p := range preds {
		switch {
		case left.within(p) && (r.join == plan.JoinLeft || leftOnly(r.join)):
			downLeft = append(downLeft, p)
		case right.within(p) && r.join == plan.JoinRight:
			downRight = append(downRight, p)
		default:
			stay = append(stay, p)
		}
	}
	for _, p := range r.preds {
		switch {
		case right.within(p) && (r.join == plan.JoinLeft || r.join == plan.JoinSemi || r.join == plan.JoinAnti):
			downRight = append(downRight, p)
		case left.within(p) && (r.join == plan.JoinRight || r.join == plan.JoinSemi):
			downLeft = append(downLeft, p)
		default:
			on = append(on, p)
		}
	}
	downLeft, downRight = a.impliedOutside(r, downLeft, downRight)
	r.preds = on
	r.in[0], r.in[1] = a.push(r.in[0], downLeft), a.push(r.in[1], downRight)
	return filterRel(r, stay...)
}

func uniqueNodes(nodes []*node) []*node {
	var out []*node
	for _, n := range nodes {
		if n.kind == plan.ExprConst && n.typ == record.Boolean && !n.val.Null && n.val.Int != 0 {
			continue // ON true
		}
		if !slices.ContainsFunc(out, func(o *node) bool { return same(o, n) }) {
			out = append(out, n)
		}
	}
	return out
}
