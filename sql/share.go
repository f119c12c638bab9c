package sql

import (
	"slices"

	"github.com/millrace/millrace/plan"
)

// Parts of a statement that compute the same are computed once: groupings, DISTINCT and set operations whose trees are
// equal but for the numbers of their columns, after predicates have moved down (so parts under different conditions differ).
// It is done for one statement alone; two views share what a third one, which both read, computes.

// sharing finds equal parts of a statement.
type sharing struct {
	a     *analyzer
	parts []*sharedPart
}

// sharedPart is a tree that was seen, and where.
type sharedPart struct {
	at   *rel // whose input it is
	in   int
	rel  *rel
	size int
	def  *sharedDef // once there is another one
}

// maxShareable bounds the trees that are compared with each other.
const maxShareable = 200

// share makes equal parts uses of one definition.
func (a *analyzer) share(q *query) {
	s := &sharing{a: a}
	for _, d := range slices.Clone(a.shared) {
		s.visit(d.rel)
	}
	s.visit(q.rel)
	for _, p := range s.parts {
		if p.def != nil {
			a.note("equal parts are computed once: %s", partText(a, p.rel))
		}
	}
}

// partText says what is computed once.
func partText(a *analyzer, r *rel) string {
	switch r.kind {
	case relAggregate:
		out := ""
		for i, g := range r.agg.aggs {
			if i > 0 {
				out += ", "
			}
			out += g.name
		}
		for i, k := range r.agg.keys {
			out += map[bool]string{true: " by ", false: ", "}[i == 0] + a.cols.of(k).name
		}
		return out
	case relDistinct:
		return "DISTINCT"
	}
	return string(r.branches.kind)
}

// visit looks at the inputs of r, the larger trees first.
func (s *sharing) visit(r *rel) {
	for i, in := range r.in {
		if k := in.kind; k != relAggregate && k != relDistinct && k != relSetOp {
			s.visit(in)
			continue
		}
		p := &sharedPart{at: r, in: i, rel: in, size: in.count()}
		if !s.replaced(p) {
			if len(s.parts) < maxShareable {
				s.parts = append(s.parts, p)
			}
			s.visit(in)
		}
	}
}

// count returns how many relations a tree has.
func (r *rel) count() int {
	n := 1
	for _, in := range r.in {
		n += in.count()
	}
	return n
}

// replaced makes p a use of an equal part that was seen before, if there is one.
func (s *sharing) replaced(p *sharedPart) bool {
	for _, first := range s.parts {
		if first.size != p.size {
			continue
		}
		m := matching{}
		if !m.rels(first.rel, p.rel) {
			continue
		}
		if first.def == nil {
			first.def = &sharedDef{rel: first.rel, cols: unique(first.rel.outs()), need: map[int]bool{}, uses: 1}
			first.at.in[first.in] = &rel{kind: relShared, shared: &sharedRel{def: first.def, cols: first.def.cols}}
			s.a.shared = append(s.a.shared, first.def)
		}
		first.def.uses++
		use := &sharedRel{def: first.def}
		for _, id := range first.def.cols {
			use.cols = append(use.cols, m[id])
		}
		p.at.in[p.in] = &rel{kind: relShared, shared: use}
		return true
	}
	return false
}

// matching is columns of one tree and what they are in another one that computes the same.
type matching map[int]int

// bind notes columns that both trees make.
func (m matching) bind(x, y []int) bool {
	if len(x) != len(y) {
		return false
	}
	for i := range x {
		m[x[i]] = y[i]
	}
	return true
}

// ids tells whether x and y are the same columns.
func (m matching) ids(x, y []int) bool {
	return slices.EqualFunc(x, y, func(i, j int) bool { return i == j && i == 0 || m[i] == j })
}

func (m matching) order(x, y []sortColumn) bool {
	return slices.EqualFunc(x, y, func(i, j sortColumn) bool { return m[i.id] == j.id && i.desc == j.desc && i.nullsFirst == j.nullsFirst })
}

func (m matching) node(x, y *node) bool {
	if x == nil || y == nil {
		return x == y
	}
	if x.kind != y.kind || x.typ != y.typ || x.fn != y.fn || !sameValue(x.val, y.val) || len(x.args) != len(y.args) || x.kind != plan.ExprCol && x.col != y.col {
		return false
	}
	if x.kind == plan.ExprCol {
		return m[x.col] == y.col
	}
	return slices.EqualFunc(x.args, y.args, m.node)
}

// rels tells whether x and y compute the same.
func (m matching) rels(x, y *rel) bool {
	if x.kind != y.kind || len(x.in) != len(y.in) || len(x.preds) != len(y.preds) || len(x.items) != len(y.items) {
		return false
	}
	for i := range x.in {
		if !m.rels(x.in[i], y.in[i]) {
			return false
		}
	}
	if !slices.EqualFunc(x.preds, y.preds, m.node) {
		return false
	}
	for i := range x.items {
		if !m.node(x.items[i].node, y.items[i].node) {
			return false
		}
		m[x.items[i].id] = y.items[i].id
	}
	switch x.kind {
	case relScan:
		s, t := x.scan, y.scan
		return s.kind == t.kind && s.object == t.object && s.asOf == t.asOf && s.drop == t.drop && m.bind(append(slices.Clone(s.cols), s.mark), append(slices.Clone(t.cols), t.mark))
	case relFilter, relExtend:
		return true
	case relWindow:
		return m.windows(x.win, y.win)
	case relAggregate:
		return m.aggregates(x.agg, y.agg)
	case relJoin:
		return x.join == y.join
	case relUnion, relSetOp:
		b, c := x.branches, y.branches
		return b.kind == c.kind && b.all == c.all && slices.EqualFunc(b.from, c.from, m.ids) && m.bind(b.cols, c.cols)
	case relDistinct:
		return m.ids(x.cols, y.cols)
	case relTopN:
		t, u := x.top, y.top
		return t.fn == u.fn && t.limit == u.limit && t.offset == u.offset && (t.place == 0) == (u.place == 0) && m.ids(t.keys, u.keys) && m.order(t.order, u.order) && m.bind([]int{t.place}, []int{u.place})
	case relShared:
		return x.shared.def == y.shared.def && m.bind(x.shared.cols, y.shared.cols)
	}
	return false // the others aren't looked at
}

func (m matching) windows(w, v *windowRel) bool {
	return w.kind == v.kind && w.size == v.size && w.slide == v.slide && w.offset == v.offset && m.ids([]int{w.time, w.mark}, []int{v.time, v.mark}) &&
		m.ids(w.keys, v.keys) && m.bind([]int{w.start, w.end}, []int{v.start, v.end})
}

func (m matching) aggregates(x, y *aggregateRel) bool {
	if x.global != y.global || len(x.aggs) != len(y.aggs) || !m.ids(x.keys, y.keys) {
		return false
	}
	for i, g := range x.aggs {
		h := y.aggs[i]
		if g.fn != h.fn || g.typ != h.typ || g.distinct != h.distinct || !m.node(g.arg, h.arg) || !m.node(g.filter, h.filter) || !slices.EqualFunc(g.more, h.more, m.node) ||
			!slices.EqualFunc(g.consts, h.consts, sameValue) ||
			!slices.EqualFunc(g.order, h.order, func(a, b orderNode) bool {
				return m.node(a.node, b.node) && a.desc == b.desc && a.nullsFirst == b.nullsFirst
			}) {
			return false
		}
		m[g.id] = h.id
	}
	return true
}
