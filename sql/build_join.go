package sql

import (
	"maps"
	"slices"

	"github.com/millrace/millrace/plan"
	"github.com/millrace/millrace/record"
)

// joinPlan is a join while it is planned.
type joinPlan struct {
	kind        plan.JoinKind
	left, right *stream
	keys        [2][]int // columns of each side that are equal, pair by pair
	residual    []*node
	need        [2]idSet
}

// joinKeys splits a join's conditions into equalities between the sides and the rest. Sides of equalities that are no
// columns become some, of the side's relation.
func (p *planner) joinKeys(r *rel, preds []*node) (*joinPlan, [2]*rel) {
	j := &joinPlan{kind: r.join}
	sides := [2]*rel{r.in[0], r.in[1]}
	have := [2]idSet{setOf(sides[0].outs()), setOf(sides[1].outs())}
	for _, n := range preds {
		if n.kind != plan.ExprCall || n.fn != "eq" || n.args[0].typ == record.JSONB {
			j.residual = append(j.residual, n)
			continue
		}
		a, b := n.args[0], n.args[1]
		if have[1].within(a) && have[0].within(b) {
			a, b = b, a
		}
		if !have[0].within(a) || !have[1].within(b) || !have[0].touches(a) || !have[1].touches(b) {
			j.residual = append(j.residual, n)
			continue
		}
		for i, side := range []*node{a, b} {
			id := side.col
			if side.kind != plan.ExprCol {
				id = p.a.newColumn(p.a.text(side), side.typ)
				sides[i] = extendRel(sides[i], item{id, side})
			}
			j.keys[i] = append(j.keys[i], id)
		}
	}
	return j, sides
}

// join plans a join of two relations.
func (p *planner) join(r *rel, need idSet) *stream {
	preds, key := r.preds, (*node)(nil)
	if r.join == plan.JoinNotIn { // its first condition is what NOT IN compares; the others say which rows it compares with
		preds, key = r.preds[1:], r.preds[0]
	}
	var j *joinPlan
	var sides [2]*rel
	if key != nil {
		j, sides = p.joinKeys(r, []*node{key})
		j.residual = append(j.residual, preds...)
		if len(j.keys[0]) != 1 {
			return p.notInConstant(r, key, preds, need)
		}
	} else {
		j, sides = p.joinKeys(r, preds)
	}
	leftExpire, rightExpire := p.a.joinExpiry(r, p.a.appendOnly(r.in[0]), p.a.appendOnly(r.in[1]))
	for i, side := range sides {
		mine := setOf(side.outs())
		j.need[i] = idSet{}
		for id := range need {
			if mine[id] && (i == 0 || !leftOnly(r.join)) {
				j.need[i][id] = true
			}
		}
		j.need[i].addAll(j.keys[i])
		for _, n := range j.residual {
			n.walk(func(n *node) bool {
				if n.kind == plan.ExprCol && mine[n.col] {
					j.need[i][n.col] = true
				}
				return true
			})
		}
		for k, e := range []*expiry{leftExpire, rightExpire} {
			if e != nil && k == i && p.live {
				j.need[i][e.col] = true
			}
		}
	}
	if p.swapped(r, j, sides) {
		sides[0], sides[1] = sides[1], sides[0]
		j.need[0], j.need[1] = j.need[1], j.need[0]
		leftExpire, rightExpire = rightExpire, leftExpire
	}
	for i, side := range sides {
		p.prefer(side, j.keys[i])
	}
	j.left, j.right = p.build(sides[0], j.need[0]), p.build(sides[1], j.need[1])
	p.place(j, sides)
	return p.joined(j, leftExpire, rightExpire)
}

// prefer asks a grouping under r to move its rows by the keys of a join above it, if it groups by all of them: they would
// have to move again otherwise.
func (p *planner) prefer(r *rel, keys []int) {
	for {
		switch {
		case r.kind == relFilter || r.kind == relExtend || r.kind == relEmit:
			r = r.in[0]
			continue
		case r.kind == relShared && r.shared.def.done == nil:
			mine := make([]int, len(keys))
			for i, k := range keys {
				at := slices.Index(r.shared.cols, k)
				if at < 0 {
					return
				}
				mine[i] = r.shared.def.cols[at]
			}
			r, keys = r.shared.def.rel, mine
			continue
		}
		break
	}
	if r.kind == relAggregate && len(keys) > 0 && setOf(r.agg.keys).hasAll(keys) {
		p.by[r] = unique(keys)
	}
}

// swapped tells whether a join without keys should have its sides the other way around, so that the small one is to the
// right, where it can be broadcast.
func (p *planner) swapped(r *rel, j *joinPlan, sides [2]*rel) bool {
	return p.live && r.join == plan.JoinInner && len(j.keys[0]) == 0 && small(sides[0]) && !small(sides[1])
}

// small tells whether r has few rows at all times: as many as the statement says.
func small(r *rel) bool {
	switch r.kind {
	case relValues:
		return true
	case relAggregate:
		return r.agg.global
	case relTopN:
		return len(r.top.keys) == 0 && r.top.limit >= 0 && r.top.limit <= 1000 || small(r.in[0])
	case relShared:
		return small(r.shared.def.rel)
	case relJoin:
		return small(r.in[0]) && (leftOnly(r.join) || small(r.in[1]))
	case relScan, relExpand:
		return false
	}
	for _, in := range r.in {
		if !small(in) {
			return false
		}
	}
	return true
}

// place brings the sides of a join into one stage, so that rows that may match meet.
func (p *planner) place(j *joinPlan, sides [2]*rel) {
	for i, s := range []*stream{j.left, j.right} {
		p.settle(s, j.need[i], j.keys[i]...)
	}
	switch {
	case !p.live:
		p.gather(j.left, j.need[0])
		p.gather(j.right, j.need[1])
	case j.left.dist.kind == distSingle && j.right.dist.kind == distSingle:
		p.stateful(j.left, j.need[0])
		p.stateful(j.right, j.need[1])
	case j.kind == plan.JoinNotIn, len(j.keys[0]) == 0 && j.kind != plan.JoinRight && j.kind != plan.JoinFull && small(sides[1]):
		p.stateful(j.left, j.need[0])
		p.narrow(j.right, j.need[1])
		p.move(j.right, plan.Exchange{Key: []int{}, Broadcast: true})
		j.right.dist = distribution{}
	case len(j.keys[0]) == 0:
		p.together(j.left, j.need[0], nil)
		p.together(j.right, j.need[1], nil)
	default:
		p.meet(j)
	}
	p.merge(j.left, j.right)
}

// meet moves the side of a join that isn't where the other's equal keys are, or both.
func (p *planner) meet(j *joinPlan) {
	sides := [2]*stream{j.left, j.right}
	order := [2]int{0, 1}
	if sides[0].dist.kind != distHash && sides[1].dist.kind == distHash {
		order = [2]int{1, 0}
	}
	for _, i := range order {
		by, ok := sides[i].placedAt(j.keys[i])
		if !ok {
			continue
		}
		p.stateful(sides[i], j.need[i])
		other := 1 - i
		theirs := make([]int, len(by))
		for k, b := range by {
			theirs[k] = j.keys[other][b]
		}
		if at, ok := sides[other].placedAt(j.keys[other]); ok && slices.Equal(at, by) {
			p.stateful(sides[other], j.need[other])
			return
		}
		p.narrow(sides[other], j.need[other])
		p.move(sides[other], plan.Exchange{Key: sides[other].positions(theirs)})
		sides[other].dist = hashed(theirs)
		return
	}
	for i, s := range sides {
		p.narrow(s, j.need[i])
		p.move(s, plan.Exchange{Key: s.positions(j.keys[i])})
		s.dist = hashed(j.keys[i])
	}
}

// joined appends the join itself.
func (p *planner) joined(j *joinPlan, leftExpire, rightExpire *expiry) *stream {
	l, r := j.left, j.right
	for i, s := range []*stream{l, r} {
		ids := slices.Clone(j.keys[i])
		for k, e := range []*expiry{leftExpire, rightExpire} {
			if e != nil && k == i && p.live {
				ids = append(ids, e.col)
			}
		}
		p.settle(s, j.need[i], ids...)
		p.narrow(s, j.need[i])
	}
	op := &plan.Join{
		Kind: j.kind, LeftKeys: l.positions(j.keys[0]), RightKeys: r.positions(j.keys[1]),
		LeftAppendOnly: l.appendOnly, RightAppendOnly: r.appendOnly, LeftUnique: l.unique(j.keys[0]), RightUnique: r.unique(j.keys[1]),
	}
	if p.live && leftExpire != nil {
		op.LeftExpire = &plan.Expire{Col: l.pos[leftExpire.col], Delay: leftExpire.delay}
	}
	if p.live && rightExpire != nil {
		op.RightExpire = &plan.Expire{Col: r.pos[rightExpire.col], Delay: rightExpire.delay}
	}
	width := len(l.schema())
	both := maps.Clone(l.pos)
	for id, at := range r.pos {
		both[id] = width + at
	}
	op.Residual = conjunction(j.residual, both)
	out := &stream{st: l.st, op: l.op, pos: l.pos, virt: map[int]*node{}, dist: l.dist}
	schema := l.schema()
	if !leftOnly(j.kind) {
		out.pos = both
		schema = append(slices.Clone(schema), r.schema()...)
	}
	out.keys = j.uniqueKeys()
	out.dist = j.distribution()
	out.appendOnly = !p.live || l.appendOnly && r.appendOnly && (j.kind == plan.JoinInner || j.kind == plan.JoinSemi)
	p.add(out, plan.Op{Kind: plan.OpJoin, Schema: schema, Join: op}, r.op)
	return out
}

func conjunction(preds []*node, pos map[int]int) *plan.Expr {
	if len(preds) == 0 {
		return nil
	}
	n := preds[0]
	if len(preds) > 1 {
		n = inner(plan.ExprAnd, record.Boolean, n.pos, preds...)
	}
	e := n.expr(pos)
	return &e
}

// unique tells whether no two rows have the same values of ids.
func (s *stream) unique(ids []int) bool {
	have := setOf(ids)
	return slices.ContainsFunc(s.keys, have.hasAll)
}

// uniqueKeys returns the sets of columns that identify a row of the join.
func (j *joinPlan) uniqueKeys() [][]int {
	var out [][]int
	switch {
	case leftOnly(j.kind):
		return j.left.keys
	case j.right.unique(j.keys[1]) && (j.kind == plan.JoinInner || j.kind == plan.JoinLeft):
		out = append(out, j.left.keys...)
	}
	if j.left.unique(j.keys[0]) && (j.kind == plan.JoinInner || j.kind == plan.JoinRight) {
		out = append(out, j.right.keys...)
	}
	if len(out) == 0 && j.kind != plan.JoinFull { // a NULL key of the padded side would be one of many
		for _, l := range j.left.keys {
			for _, r := range j.right.keys {
				if j.kind == plan.JoinInner {
					out = append(out, append(slices.Clone(l), r...))
				}
			}
		}
	}
	return out
}

// distribution returns where the join's rows are: those without a match have NULLs on the other side.
func (j *joinPlan) distribution() distribution {
	d := j.left.dist
	switch {
	case j.right.dist.kind == distSingle && d.kind == distSingle:
		return d
	case leftOnly(j.kind) || j.kind == plan.JoinLeft || d.kind != distHash && j.kind == plan.JoinInner:
		return d
	case j.kind == plan.JoinRight:
		return j.right.dist
	case j.kind == plan.JoinFull:
		return distribution{}
	}
	if j.right.dist.kind != distHash || len(j.right.dist.cols) != len(d.cols) {
		return d
	}
	out := distribution{kind: distHash}
	for i := range d.cols {
		out.cols = append(out.cols, append(slices.Clone(d.cols[i]), j.right.dist.cols[i]...))
	}
	return out
}

// notInConstant is x NOT IN (...) where a side is no column of its relation, such as 5 NOT IN (SELECT ...): it is
// made one.
func (p *planner) notInConstant(r *rel, key *node, preds []*node, need idSet) *stream {
	left := setOf(r.in[0].outs())
	a, b := key.args[0], key.args[1]
	if setOf(r.in[1].outs()).within(a) && !left.touches(a) && left.within(b) && left.touches(b) {
		a, b = b, a
	}
	l, m := p.a.newColumn(p.a.text(a), a.typ), p.a.newColumn(p.a.text(b), b.typ)
	again := *r
	again.in = []*rel{extendRel(r.in[0], item{l, a}), extendRel(r.in[1], item{m, b})}
	again.preds = append([]*node{callNode("eq", record.Boolean, key.pos, column(l, a.typ, a.pos), column(m, b.typ, b.pos))}, preds...)
	if !setOf(r.in[0].outs()).within(a) || !setOf(r.in[1].outs()).within(b) {
		p.stop(p.src.unsupported(key.pos, "compare a column of the outer query with one of the subquery", "this comparison of NOT IN is not supported"))
	}
	return p.join(&again, need)
}

// temporal joins each row of an append-only relation with what matches it then.
func (p *planner) temporal(r *rel, need idSet) *stream {
	t := r.temporal
	j, sides := p.joinKeys(r, r.preds)
	for i, side := range sides {
		mine := setOf(side.outs())
		j.need[i] = idSet{}
		for id := range need {
			if mine[id] {
				j.need[i][id] = true
			}
		}
		j.need[i].addAll(j.keys[i])
		for _, n := range j.residual {
			n.walk(func(n *node) bool {
				if n.kind == plan.ExprCol && mine[n.col] {
					j.need[i][n.col] = true
				}
				return true
			})
		}
	}
	if t.byTime {
		j.need[0][t.leftTime], j.need[1][t.rightTime] = true, true
	}
	j.left, j.right = p.build(sides[0], j.need[0]), p.build(sides[1], j.need[1])
	p.place(j, sides)
	for i, s := range []*stream{j.left, j.right} {
		p.settle(s, j.need[i], j.keys[i]...)
		p.narrow(s, j.need[i])
	}
	l, m := j.left, j.right
	op := &plan.TemporalJoin{LeftKeys: l.positions(j.keys[0]), RightKeys: m.positions(j.keys[1]), Outer: t.outer, LeftTime: -1, RightTime: -1, Appended: true}
	if t.byTime {
		op.LeftTime, op.RightTime = l.pos[t.leftTime], m.pos[t.rightTime]
	}
	width := len(l.schema())
	both := maps.Clone(l.pos)
	for id, at := range m.pos {
		both[id] = width + at
	}
	op.Residual = conjunction(j.residual, both)
	schema := append(slices.Clone(l.schema()), m.schema()...)
	out := &stream{st: l.st, op: l.op, pos: both, virt: map[int]*node{}, dist: l.dist, appendOnly: true, keys: l.keys}
	p.add(out, plan.Op{Kind: plan.OpTemporalJoin, Schema: schema, TemporalJoin: op}, m.op)
	return out
}
