package main

// sharedView computes the same twice in one query: both sides of a join, a comparison with a grouping of itself, or a
// union; sometimes under other conditions, which make it two.
func (g *gen) sharedView() (query, bool) {
	s := g.base(g.relation(nil))
	if g.d.chance(30) {
		if w, ok := g.window(); ok {
			s = w
		}
	}
	key, ok := g.column(s.cols, func(c *column) bool { return !c.inexact && !c.vague && !c.event && hasOrder(c.typ) })
	if !ok || s.size > 1000 {
		return query{}, false
	}
	in := g.grouped(s, 0, []column{key})
	if g.d.chance(25) {
		in = g.distinct(0)
	}
	a, b := g.alias("a"), g.alias("b")
	l := source{text: format("(%s) AS %s", in.text, a), cols: in.columnsOf(a), unique: in.unique, size: in.size}
	r := source{text: format("(%s) AS %s", in.text, b), cols: in.columnsOf(b), unique: in.unique, size: in.size}
	on, ok := g.column(l.cols, func(c *column) bool { return !c.inexact && !c.vague && !c.event && hasOrder(c.typ) })
	if !ok || in.size > 300 {
		return query{}, false
	}
	other := column{}
	for i := range l.cols {
		if l.cols[i].name == on.name {
			other = r.cols[i]
		}
	}
	switch g.d.n(4) {
	case 0: // a grouping over the second
		top := g.grouped(r, 0, []column{other})
		c := g.alias("c")
		m := source{text: format("(%s) AS %s", top.text, c), cols: top.columnsOf(c), size: top.size}
		out := source{isJoin: true, cols: joined(&l, &m), size: in.size * 2}
		out.text = format("%s JOIN %s ON %s = %s", l.text, m.text, on.text, m.cols[0].text)
		return g.plain(out, 0), true
	case 1: // a union
		q := query{size: 2 * in.size}
		x, y := q.output(ofColumn(on)), other.text
		q.text = format("SELECT %s FROM %s%s UNION ALL SELECT %s FROM %s", x, l.text, g.where(&l, 0), y, r.text)
		return q, true
	}
	out := source{isJoin: true, cols: joined(&l, &r), unique: bothUnique(&l, &r), size: in.size * 3}
	out.text = format("%s %s %s ON %s = %s", l.text, pick(g.d, []string{"JOIN", "LEFT JOIN", "FULL JOIN"}), r.text, on.text, other.text)
	return g.plain(out, 0), true
}
